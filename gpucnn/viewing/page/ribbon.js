// The network from left to right: a block for each layer with its strongest maps, and frames around what belongs together.
import { colourOf, paintImage, paintMosaic, pixelFor, reach, sharp } from "./colours.js";
import { $, calm, el, soon } from "./elements.js";
import { kindOf, shapeText } from "./words.js";
import { choose, on, state } from "./state.js";

const MAPS = 9;
const blocks = new Map(); // node → {element, canvas}
const orders = new Map();

export function openRibbon() {
  $("ribbon").append(row(state.model.tree));
  const repaint = soon(paint);
  on("outputs", repaint);
  on("theme", repaint);
  on("node", mark);
  on("edits", mark);
}

function row(items) {
  const found = [];
  for (const item of items) {
    if (found.length) found.push(el("span", { class: "link", "aria-hidden": "true" }));
    found.push(typeof item === "number" ? block(item) : group(item));
  }
  return el("div", { class: "row-of-blocks" }, found);
}

const TITLES = { Residual: "residual", Concat: "side by side", Stack: "block", SeparableConv2D: "separable convolution" };

function group({ kind, rows, end }) {
  // A lane is frame enough: a stack that fills one needs none of its own.
  const flat = items => (rows.length > 1 && items.length === 1 && items[0].kind === "Stack" ? items[0].rows[0] : items);
  const lanes = rows
    .map(flat)
    .map(items =>
      items.length ? row(items) : el("div", { class: "row-of-blocks around" }, el("span", { class: "wire", title: "The input, as it is" })),
    );
  const framed = el(
    "div",
    {
      class: `group ${kind.toLowerCase()}${rows.length > 1 && rows[1].length ? " several" : ""}`,
      role: "group",
      "aria-label": TITLES[kind] ?? kind,
    },
    el("span", { class: "group-title" }, TITLES[kind] ?? kind),
    el("div", { class: "lanes" }, lanes),
  );
  if (end === undefined) return framed;
  return el("div", { class: "row-of-blocks" }, framed, el("span", { class: "link", "aria-hidden": "true" }), block(end));
}

function block(id) {
  const node = state.network.nodes[id];
  const canvas = el("canvas", { "aria-hidden": "true" });
  const { kind, shape } = { kind: kindOf(node), shape: shapeText(node.shape) };
  const element = el(
    "button",
    {
      type: "button",
      class: `block ${node.op}`,
      title: `${node.name}: ${kind}, ${shape}`,
      "aria-label": `${node.name}, ${kind}, ${shape}`,
      onclick: () => choose(id),
    },
    el("span", { class: "picture-of" }, canvas),
    el("span", { class: "kind" }, kind),
    el("span", { class: "shape" }, shape),
  );
  blocks.set(id, { element, canvas });
  return element;
}

// The maps with the most in them, the strongest first.
export function strongest(values, [depth, height, width]) {
  const size = height * width;
  const sums = Array.from({ length: depth }, (_, c) => {
    let sum = 0;
    for (let i = c * size; i < (c + 1) * size; i++) sum += Math.abs(values[i]);
    return Number.isFinite(sum) ? sum : Infinity;
  });
  return Array.from(sums.keys()).sort((a, b) => sums[b] - sums[a] || a - b);
}

function paint() {
  for (const [id, { element, canvas }] of blocks) {
    const values = state.outputs[id];
    element.classList.toggle("unknown", !values);
    if (!values) continue;
    const node = state.network.nodes[id];
    if (id === 0 && node.shape.length === 3) paintImage(canvas, values, node.shape);
    else if (node.shape.length === 3) {
      if (!state.drawing || !orders.has(id)) orders.set(id, strongest(values, node.shape).slice(0, MAPS));
      paintMosaic(canvas, values, node.shape, orders.get(id), reach(values));
    } else paintRow(canvas, values);
  }
}

// A row of values as a square of cells, of very many some that lie evenly among them; few values as bars.
function paintRow(canvas, values) {
  if (values.length <= 24) return paintBars(canvas, values);
  const shown = Math.min(values.length, 400);
  const side = Math.ceil(Math.sqrt(shown));
  const rows = Math.ceil(shown / side);
  canvas.width = side;
  canvas.height = rows;
  const image = new ImageData(side, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const most = reach(values);
  for (let i = 0; i < shown; i++) pixels[i] = pixelFor(values[Math.floor((i * values.length) / shown)], most);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function paintBars(canvas, values) {
  const [context, size] = sharp(canvas, 74, 74);
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [0, 0]);
  const span = high - low || 1;
  const zero = (high / span) * (size - 2) + 1;
  context.fillStyle = colourOf("line");
  context.fillRect(0, zero - 0.5, size, 1);
  const [plus, minus] = [colourOf("plus"), colourOf("minus")];
  values.forEach((value, i) => {
    const height = (value / span) * (size - 2);
    context.fillStyle = value < 0 ? minus : plus;
    context.fillRect((i * size) / values.length + 0.5, Math.min(zero, zero - height), size / values.length - 1, Math.abs(height));
  });
}

function mark() {
  const edited = new Set([...state.edits.keys()].map(key => Number(key.split(":")[0])));
  for (const [id, { element }] of blocks) {
    element.toggleAttribute("aria-current", id === state.node);
    element.classList.toggle("edited", edited.has(id));
  }
  const { element } = blocks.get(state.node);
  const ribbon = $("ribbon");
  const [box, around] = [element.getBoundingClientRect(), ribbon.getBoundingClientRect()];
  if (box.left < around.left || box.right > around.right) {
    ribbon.scrollBy({ left: box.left - around.left - (around.width - box.width) / 2, behavior: calm() ? "auto" : "smooth" });
  }
}
