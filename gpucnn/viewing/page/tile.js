// One map of a layer: a canvas whose values can be pointed at, its filter, and the map below it where a maximum was taken.
import { colourOf, paintMap, pixelFor, reach } from "./colours.js";
import { arrow, el } from "./elements.js";
import { place } from "./explain.js";
import { hover, pin, state, unitNow } from "./state.js";

// One map: a canvas of a pixel for each value, and the mark of the value that is looked at.
export function tile(node) {
  const [, height, width] = node.shape;
  const canvas = el("canvas", { tabindex: "0", role: "img", class: "map" });
  const mark = el("span", { class: "spot", hidden: true });
  const below = node.op === "max_pool" ? el("canvas", { class: "below", "aria-hidden": "true" }) : null;
  const thumb = node.op === "conv" && Math.max(...node.window.kernel) > 1 ? el("canvas", { class: "thumb", "aria-hidden": "true" }) : null;
  const name = el("span", { class: "map-name" });
  const frame = el("span", { class: "frame" }, canvas, mark);
  const figure = el(
    "figure",
    { class: "tile" },
    el(
      "div",
      { class: "pair" },
      below ? [el("span", { class: "frame" }, below), el("span", { class: "arrow", "aria-hidden": "true" }, "→")] : null,
      frame,
    ),
    el("figcaption", {}, thumb, name),
  );
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
    if (state.unit === null || place(node.shape, state.unit)[0] !== made.map)
      pin((made.map * height + (height >> 1)) * width + (width >> 1));
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

// The filter of a map: of its channels the one with the most weight.
export function thumbnail(canvas, node, k) {
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
export function paintBelow(canvas, node, map, places) {
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
