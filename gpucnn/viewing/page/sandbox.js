// A sandbox beside the network: one filter slides over what the layer gets, with padding and stride of one's choice.
import { paintMap, reach } from "./colours.js";
import { conv } from "./convolution.js";
import { equation } from "./details.js";
import { filterNow } from "./editor.js";
import { $, button, calm, el, soon } from "./elements.js";
import { put } from "./seen.js";
import { fixed } from "./numbers.js";
import { nodeNow, on, state, tell } from "./state.js";
import { convWindow, extent, pixel } from "./windows.js";

let timer = null;
let window_ = null;
let output = null;

export function openSandbox() {
  on("node", lay);
  const repaint = soon(compute);
  for (const event of ["outputs", "edits", "theme"]) on(event, repaint);
  let last = -1;
  on("unit", () => {
    if (filterNow() !== last) repaint();
    last = filterNow();
    moveTo(state.unit);
  });
  state.changedFilter = repaint;
}

function lay() {
  stop();
  const node = nodeNow();
  $("sandbox").replaceChildren(...(node.op === "transposed" ? laidDown(node) : []));
  if (node.op !== "conv") return;
  const { sandbox } = state;
  sandbox.rule ??= node.window.same ? "same" : "valid";
  sandbox.stride ??= Math.min(4, node.window.stride[0]);
  const change = () => {
    sandbox.at = 0;
    stop();
    compute();
    tell("sandbox");
  };
  const rules = ["valid", "same"].map(rule =>
    el(
      "label",
      { class: "check" },
      el("input", {
        type: "radio",
        name: "rule",
        value: rule,
        checked: sandbox.rule === rule,
        onchange: () => {
          sandbox.rule = rule;
          change();
        },
      }),
      ` ${rule.toUpperCase()}`,
    ),
  );
  const strides = el(
    "select",
    {
      id: "stride",
      onchange: event => {
        sandbox.stride = Number(event.target.value);
        change();
      },
    },
    [1, 2, 3, 4].map(step => el("option", { value: step, selected: step === sandbox.stride }, String(step))),
  );
  const frame = (id, label) =>
    el(
      "figure",
      { class: "slide" },
      el(
        "span",
        { class: "frame" },
        el("canvas", { id, role: "img", "aria-label": label }),
        el("span", { class: "mark", id: `${id}-mark` }),
      ),
      el("figcaption", { id: `${id}-words` }),
    );
  const step = by => () => {
    stop();
    move(sandbox.at + by);
  };
  $("sandbox").replaceChildren(
    el("h3", {}, "Slide the window"),
    el("p", { class: "soft" }, "The same filter, with padding and stride of your choice. The network itself stays as it is."),
    el(
      "div",
      { class: "tools" },
      el("span", { role: "group", "aria-label": "Padding" }, "padding ", rules),
      el("label", { for: "stride" }, "stride ", strides),
    ),
    el("p", { class: "formula", id: "formula" }),
    el(
      "div",
      { class: "slides" },
      frame("padded", "What the layer gets, with its padding, and the window"),
      el("span", { class: "sign" }, "→"),
      frame("slid", "What the filter has written so far"),
    ),
    el(
      "div",
      { class: "tools" },
      button("◀", step(-1), { "aria-label": "One step back" }),
      button("Play", toggle, { id: "run", "aria-pressed": "false" }),
      button("▶", step(1), { "aria-label": "One step on" }),
      el("input", {
        type: "range",
        id: "at",
        min: 0,
        value: 0,
        "aria-label": "Place of the window",
        oninput: event => {
          stop();
          move(Number(event.target.value));
        },
      }),
    ),
    el("div", { id: "step" }),
  );
  compute();
}

// A transposed convolution has no window that slides, and a size by a formula as well.
function laidDown(node) {
  const { stride, padding, input, output } = node.window; // of the convolution that goes the other way
  const size = axis => {
    const cut = padding[axis][0] + padding[axis][1];
    const more = input[axis] - ((output[axis] - 1) * stride[axis] + extent(node.window, axis) - cut);
    const ends = `${cut ? ` − ${cut}` : ""}${more ? ` + ${more}` : ""}`;
    return `(${output[axis]} − 1) × ${stride[axis]} + ${extent(node.window, axis)}${ends} = ${input[axis]}`;
  };
  const names = "size = (input − 1) × stride + window − what is cut off + what is put on";
  return [
    el("h3", {}, "How large it gets"),
    el("p", { class: "soft" }, "Nothing slides here: every pixel below lays the filter down, a stride from the last one."),
    el("p", { class: "formula", id: "formula" }, `${names} = ${size(0)}${size(0) === size(1) ? "" : `; across ${size(1)}`}`),
  ];
}

function compute() {
  const node = nodeNow();
  const x = state.outputs[node.inputs?.[0]];
  if (node.op !== "conv" || !$("padded") || !x) return;
  const { sandbox } = state;
  const { window } = node;
  window_ = convWindow(window.input, window.kernel, [sandbox.stride, sandbox.stride], window.dilation, sandbox.rule);
  const size = axis => {
    const [before, after] = window_.padding[axis];
    return `⌊(${window.input[axis]} + ${before} + ${after} − ${extent(window, axis)}) / ${sandbox.stride}⌋ + 1 = ${window_.output[axis]}`;
  };
  const [p, q] = window_.output;
  const fits = p > 0 && q > 0;
  const square = window.input[0] === window.input[1] && window.kernel[0] === window.kernel[1];
  $("formula").textContent =
    `size = ⌊(input + padding − window) / stride⌋ + 1 = ${size(0)}${square ? "" : `; across ${size(1)}`}${fits ? "" : ": the window does not fit"}`;
  for (const id of ["run", "at"]) $(id).disabled = !fits;
  if (!fits) return;
  const { weight, bias } = state.network.arrays[node.id];
  const k = filterNow();
  const deep = node.weight.shape[1];
  const length = deep * window.kernel[0] * window.kernel[1];
  const first = Math.floor(k / (node.shape[0] / node.groups)) * deep;
  const part = x.subarray(first * window.input[0] * window.input[1], (first + deep) * window.input[0] * window.input[1]);
  output = conv(part, weight.subarray(k * length, (k + 1) * length), bias ? bias.subarray(k, k + 1) : null, window_, deep, 1, 1);
  $("at").max = p * q - 1;
  paintPadded(part, weight.subarray(k * length, (k + 1) * length), deep);
  move(Math.min(sandbox.at, p * q - 1), false);
}

// The window goes where a value has been pinned, if it has the layer's own places.
function moveTo(unit) {
  const node = nodeNow();
  if (node.op !== "conv" || unit === null || !output || String(window_.output) !== String(node.window.output)) return;
  stop();
  move(unit % (window_.output[0] * window_.output[1]));
}

// Of several maps below the one that the filter makes most of.
function paintPadded(x, weight, deep) {
  const [h, w] = window_.input;
  const taps = window_.kernel[0] * window_.kernel[1];
  const strengths = Array.from(
    { length: deep },
    (_, c) => squares(weight.subarray(c * taps, (c + 1) * taps)) * squares(x.subarray(c * h * w, (c + 1) * h * w)),
  );
  const channel = Math.max(0, strengths.indexOf(Math.max(...strengths)));
  const [[top, bottom], [left, right]] = window_.padding;
  const [high, wide] = [h + top + bottom, w + left + right];
  const values = new Float32Array(high * wide);
  for (let row = 0; row < h; row++) values.set(x.subarray((channel * h + row) * w, (channel * h + row + 1) * w), (row + top) * wide + left);
  paintMap($("padded"), values, 0, high, wide, reach(x));
  $("padded-words").textContent =
    `${deep > 1 ? `map ${channel + 1} of ${deep}, ` : ""}${h} × ${w}${top + bottom + left + right ? `, with padding ${high} × ${wide}` : ""}`;
  $("slid-words").textContent = `${window_.output[0]} × ${window_.output[1]}`;
}

const squares = values => values.reduce((sum, value) => sum + value * value, 0);

function move(at, telling = true) {
  const { sandbox } = state;
  const [p, q] = window_.output;
  sandbox.at = Math.max(0, Math.min(p * q - 1, at));
  $("at").value = sandbox.at;
  const [i, j] = [Math.floor(sandbox.at / q), sandbox.at % q];
  const [[top, bottom], [left, right]] = window_.padding;
  const [h, w] = window_.input;
  const from = [pixel(window_, 0, i, 0) + top, pixel(window_, 1, j, 0) + left];
  put(
    $("padded-mark"),
    { top: from[0], bottom: from[0] + extent(window_, 0) - 1, left: from[1], right: from[1] + extent(window_, 1) - 1 },
    [h + top + bottom, w + left + right],
  );
  put($("slid-mark"), { top: i, bottom: i, left: j, right: j }, [p, q]);
  const soFar = output.map((value, n) => (n <= sandbox.at ? value : 0));
  paintMap($("slid"), soFar, 0, p, q, reach(output));
  $("step").replaceChildren(
    equation([
      `step ${sandbox.at + 1} of ${p * q}: row ${i + 1}, column ${j + 1}`,
      fixed(output[sandbox.at], 4),
      "result",
      output[sandbox.at],
    ]),
  );
  if (telling) tell("sandbox");
}

function toggle() {
  if (timer) return stop();
  const { sandbox } = state;
  const total = window_.output[0] * window_.output[1];
  if (sandbox.at >= total - 1) move(0);
  $("run").textContent = "Pause";
  $("run").setAttribute("aria-pressed", "true");
  const pause = calm() ? 700 : Math.max(30, Math.min(250, 12000 / total));
  timer = setInterval(() => {
    if (sandbox.at >= total - 1) return stop();
    move(sandbox.at + 1);
  }, pause);
}

function stop() {
  clearInterval(timer);
  timer = null;
  if (!$("run")) return;
  $("run").textContent = "Play";
  $("run").setAttribute("aria-pressed", "false");
}
