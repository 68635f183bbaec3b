// What the chosen layer puts out: its maps, the strongest first; or its values as bars.
import { colourOf, paintImage, paintMap, pixelFor, reach, sharp } from "./colours.js";
import { $, arrow, button, el, soon } from "./elements.js";
import { place } from "./explain.js";
import { put } from "./input.js";
import { winners } from "./layers.js";
import { count, percent, shown } from "./numbers.js";
import { strongest } from "./ribbon.js";
import { barRow } from "./scores.js";
import { choose, hover, nodeNow, on, pin, state, unitNow } from "./state.js";

const MAPS = 16; // on a page
const ROWS = 12; // of bars on a page
const LIST = 40; // values that are listed by their names
let page = 0;
let order = [];
let tiles = [];
let bars = null;

export function openMaps() {
  const repaint = soon(paint);
  on("node", () => {
    page = 0;
    lay();
  });
  on("outputs", repaint);
  on("theme", repaint);
  on("unit", soon(marks));
  addEventListener("resize", soon(() => bars && lay()));
}

const valuesNow = () => state.outputs[state.node];

// Builds what stands there for the chosen layer.
function lay() {
  const node = nodeNow();
  const box = $("maps");
  tiles = [];
  bars = null;
  if (!valuesNow()) {
    box.className = "";
    const why = state.outputs.length ? "Not known for drawings: a layer of somebody’s own stands before this one, and this page has its outputs for the images below only. Pick one of them." : "…";
    box.replaceChildren(el("p", { class: "soft" }, why));
    $("pages").replaceChildren();
    return;
  }
  if (node.shape.length === 3) {
    order = strongest(valuesNow(), node.shape);
    if (state.unit !== null) page = Math.floor(order.indexOf(place(node.shape, state.unit)[0]) / MAPS);
    tiles = order.slice(page * MAPS, (page + 1) * MAPS).map(() => tile(node));
    box.className = `tiles ${node.op}${node.shape[0] === 1 ? " single" : ""}`;
    box.replaceChildren(...tiles.map(each => each.element));
    pages(node.shape[0], MAPS, "maps, the strongest first");
  } else if (node.shape[0] <= LIST) layList(node, box);
  else layBars(node, box);
  paint();
}

function pages(total, each, what) {
  const last = Math.ceil(total / each) - 1;
  const turn = to => {
    page = Math.min(last, Math.max(0, to));
    state.unit = null;
    lay();
    marks();
  };
  const text = `${count(page * each + 1)}–${count(Math.min(total, (page + 1) * each))} of ${count(total)} ${what}`;
  const [back, on_] = [button("←", () => turn(page - 1), { "aria-label": "The page before" }), button("→", () => turn(page + 1), { "aria-label": "The next page" })];
  back.disabled = page === 0;
  on_.disabled = page === last;
  $("pages").replaceChildren(...(last > 0 ? [back, el("span", { class: "soft" }, text), on_] : []));
}

// One map: a canvas of a pixel for each value, and the mark of the value that is looked at.
function tile(node) {
  const [, height, width] = node.shape;
  const canvas = el("canvas", { tabindex: "0", role: "img", class: "map" });
  const mark = el("span", { class: "spot", hidden: true });
  const below = node.op === "max_pool" ? el("canvas", { class: "below", "aria-hidden": "true" }) : null;
  const thumb = node.op === "conv" && Math.max(...node.window.kernel) > 1 ? el("canvas", { class: "thumb", "aria-hidden": "true" }) : null;
  const name = el("span", { class: "map-name" });
  const frame = el("span", { class: "frame" }, canvas, mark);
  const figure = el("figure", { class: "tile" }, el("div", { class: "pair" }, below ? [el("span", { class: "frame" }, below), el("span", { class: "arrow", "aria-hidden": "true" }, "→")] : null, frame), el("figcaption", {}, thumb, name));
  const made = { element: figure, canvas, mark, below, thumb, name, map: 0 };
  const unitAt = event => {
    const box = canvas.getBoundingClientRect();
    const row = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * height)));
    const column = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * width)));
    return (made.map * height + row) * width + column;
  };
  canvas.addEventListener("pointermove", event => event.pointerType !== "touch" && hover(unitAt(event)));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", event => pin(unitAt(event)));
  canvas.addEventListener("focus", () => {
    if (!canvas.matches(":focus-visible")) return;
    if (state.unit === null || place(node.shape, state.unit)[0] !== made.map) pin((made.map * height + (height >> 1)) * width + (width >> 1));
  });
  canvas.addEventListener("keydown", event => {
    const step = arrow(event);
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const at = unitNow();
    const [map, row, column] = at === null ? [made.map, height >> 1, width >> 1] : place(node.shape, at);
    const next = [Math.min(height - 1, Math.max(0, row + step[0])), Math.min(width - 1, Math.max(0, column + step[1]))];
    pin((map * height + next[0]) * width + next[1]);
  });
  return made;
}

function paint() {
  const node = nodeNow();
  const values = valuesNow();
  if (!values || (!tiles.length && !bars)) {
    if (values || tiles.length || bars) lay();
    return;
  }
  if (bars) bars.paint(values);
  if (!tiles.length) return;
  if (!state.drawing && state.hover === null && page === 0) order = strongest(values, node.shape);
  const [, height, width] = node.shape;
  const most = reach(values);
  const places = node.op === "max_pool" ? winners(node, state.outputs[node.inputs[0]]) : null;
  tiles.forEach((each, i) => {
    each.map = order[page * MAPS + i];
    const start = each.map * height * width;
    if (node.op === "input") paintImage(each.canvas, values.subarray(start, start + height * width), [1, height, width]);
    else paintMap(each.canvas, values, start, height, width, most);
    const strength = reach(values, start, start + height * width);
    each.name.textContent = node.op === "input" ? (node.shape[0] === 3 ? ["red", "green", "blue"][each.map] : `channel ${each.map + 1}`) : `map ${each.map + 1}`;
    each.canvas.setAttribute("aria-label", `${each.name.textContent}, ${height} by ${width}, strongest value ${shown(strength)}. Arrow keys move through it.`);
    if (each.thumb) thumbnail(each.thumb, node, each.map);
    if (each.below) paintBelow(each.below, node, each.map, places.subarray(start, start + height * width));
  });
  marks();
}

// The filter of a map: of its channels the one with the most weight.
function thumbnail(canvas, node, k) {
  const { weight } = state.network.arrays[node.id];
  const [, deep, r, s] = node.weight.shape;
  const strengths = Array.from({ length: deep }, (_, c) => {
    let sum = 0;
    for (let i = 0; i < r * s; i++) sum += weight[(k * deep + c) * r * s + i] ** 2;
    return sum;
  });
  const c = strengths.indexOf(Math.max(...strengths));
  const start = (k * deep + Math.max(0, c)) * r * s;
  paintMap(canvas, weight, start, r, s, reach(weight, start, start + r * s));
  canvas.title = deep > 1 ? `Its filter for map ${c + 1} below, the strongest of ${deep}` : "Its filter";
}

// The map below, with the winning pixel of each window marked.
function paintBelow(canvas, node, map, places) {
  const values = state.outputs[node.inputs[0]];
  const [, height, width] = node.from;
  const cell = Math.max(1, Math.min(8, Math.floor(320 / Math.max(height, width))));
  canvas.width = width * cell;
  canvas.height = height * cell;
  const context = canvas.getContext("2d");
  const most = reach(values);
  const small = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = pixelFor(values[map * height * width + i], most);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (cell < 3) return;
  context.fillStyle = colourOf("accent");
  context.strokeStyle = colourOf("halo");
  const radius = Math.max(1, cell * 0.26);
  for (const at of places) {
    context.beginPath();
    context.arc(((at % width) + 0.5) * cell, (Math.floor(at / width) + 0.5) * cell, radius, 0, 2 * Math.PI);
    context.fill();
    if (cell > 5) context.stroke();
  }
}

function marks() {
  const node = nodeNow();
  const unit = unitNow();
  if (bars) return bars.mark(unit);
  if (node.shape.length !== 3) return;
  const [, height, width] = node.shape;
  const at = unit === null ? null : place(node.shape, unit);
  for (const each of tiles) {
    each.mark.hidden = !at || at[0] !== each.map;
    if (!each.mark.hidden) put(each.mark, { top: at[1], bottom: at[1], left: at[2], right: at[2] }, [height, width]);
  }
}

// Few values: a line for each, with its name.
function layList(node, box) {
  const { classes, nodes } = state.model;
  const named = node.shape[0] === classes.length && nodes[nodes.length - 1].shape[0] === classes.length && node.id >= nodes.length - 2;
  const rows = Array.from({ length: node.shape[0] }, () => barRow(pin, hover));
  box.className = "list";
  box.replaceChildren(...rows.map(row => row.element));
  $("pages").replaceChildren();
  const isShare = ["softmax", "sigmoid"].includes(node.activation);
  bars = {
    paint: values => {
      const [low, high] = isShare ? [0, 1] : [Math.min(0, ...values), Math.max(0, ...values)];
      rows.forEach((row, i) => row.update(i, named ? classes[i] : `${i + 1}`, values[i], low, high, isShare ? percent(values[i]) : shown(values[i])));
    },
    mark: unit => rows.forEach((row, i) => row.element.classList.toggle("chosen", i === unit)),
  };
}

// Many values: bars in rows, in one canvas.
function layBars(node, box) {
  const across = Math.max(16, Math.min(128, Math.floor(box.clientWidth / 9)));
  const total = node.shape[0];
  const each = across * ROWS;
  if (state.unit !== null) page = Math.floor(state.unit / each);
  const first = page * each;
  const shownNow = Math.min(each, total - first);
  const rows = Math.ceil(shownNow / across);
  const canvas = el("canvas", { class: "bars", tabindex: "0", role: "img", "aria-label": `${total} values as bars. Arrow keys move through them.` });
  box.className = "";
  box.replaceChildren(canvas);
  const width = Math.max(200, box.clientWidth);
  const height = rows * 46;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  pages(total, each, "values");
  const unitAt = event => {
    const frame = canvas.getBoundingClientRect();
    const row = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - frame.top) / frame.height) * rows)));
    const column = Math.min(across - 1, Math.max(0, Math.floor(((event.clientX - frame.left) / frame.width) * across)));
    return Math.min(first + row * across + column, first + shownNow - 1);
  };
  canvas.addEventListener("pointermove", event => event.pointerType !== "touch" && hover(unitAt(event)));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", event => pin(unitAt(event)));
  canvas.addEventListener("keydown", event => {
    const step = arrow(event);
    if (!step) return;
    event.preventDefault();
    const at = state.unit ?? first - step[1] - step[0] * across;
    pin(Math.min(first + shownNow - 1, Math.max(first, at + step[1] + step[0] * across)));
  });
  let last = null;
  const draw = (values, unit) => {
    const [context] = sharp(canvas, width, height);
    const [plus, minus, accent, line] = ["plus", "minus", "accent", "line"].map(colourOf);
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [0, 0]);
    const span = high - low || 1;
    for (let i = 0; i < shownNow; i++) {
      const [row, column] = [Math.floor(i / across), i % across];
      const value = values[first + i];
      const zero = row * 46 + 4 + (high / span) * 38;
      const x = (column * width) / across;
      if (column === 0) {
        context.fillStyle = line;
        context.fillRect(0, zero - 0.5, width, 1);
      }
      const size = (value / span) * 38;
      context.fillStyle = first + i === unit ? accent : value < 0 ? minus : plus;
      context.fillRect(x + 0.5, Math.min(zero, zero - size), Math.max(1, width / across - 1.5), Math.max(Math.abs(size), first + i === unit ? 3 : 0));
    }
  };
  bars = {
    paint: values => draw((last = values), unitNow()),
    mark: unit => last && draw(last, unit),
  };
}

// Goes to a value of another node, and shows it.
export function goTo(id, unit) {
  choose(id, unit);
  document.querySelector("#maps canvas, #maps button")?.focus({ preventScroll: true });
}
