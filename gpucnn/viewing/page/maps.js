// What the chosen layer puts out: its maps, the strongest first; or its values as bars.
import { barsOf, listOf, perPage } from "./bars.js";
import { paintImage, paintMap, reach } from "./colours.js";
import { $, button, el, soon } from "./elements.js";
import { place } from "./explain.js";
import { winners } from "./layers.js";
import { count, shown } from "./numbers.js";
import { strongest } from "./ribbon.js";
import { put } from "./seen.js";
import { choose, nodeNow, on, state, unitNow } from "./state.js";
import { paintBelow, thumbnail, tile } from "./tile.js";

const MAPS = 16; // on a page
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
  addEventListener(
    "resize",
    soon(() => bars && lay()),
  );
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
    const why =
      "Not known for drawings: a layer of somebody’s own stands before this one, and this page has its outputs only for the images " +
      "that came along. Pick one of them.";
    box.replaceChildren(el("p", { class: "soft" }, state.outputs.length ? why : "…"));
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
  } else if (node.shape[0] <= LIST) {
    bars = listOf(node, box);
    $("pages").replaceChildren();
  } else {
    const each = perPage(box);
    if (state.unit !== null) page = Math.floor(state.unit / each);
    bars = barsOf(node, box, page * each);
    pages(node.shape[0], each, "values");
  }
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
  const [back, on_] = [
    button("←", () => turn(page - 1), { "aria-label": "The page before" }),
    button("→", () => turn(page + 1), { "aria-label": "The next page" }),
  ];
  back.disabled = page === 0;
  on_.disabled = page === last;
  $("pages").replaceChildren(...(last > 0 ? [back, el("span", { class: "soft" }, text), on_] : []));
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
    each.name.textContent =
      node.op === "input" ? (node.shape[0] === 3 ? ["red", "green", "blue"][each.map] : `channel ${each.map + 1}`) : `map ${each.map + 1}`;
    each.canvas.setAttribute(
      "aria-label",
      `${each.name.textContent}, ${height} by ${width}, strongest value ${shown(strength)}. Arrow keys move through it.`,
    );
    if (each.thumb) thumbnail(each.thumb, node, each.map);
    if (each.below) paintBelow(each.below, node, each.map, places.subarray(start, start + height * width));
  });
  marks();
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

// Goes to a value of another node, and shows it.
export function goTo(id, unit) {
  choose(id, unit);
  document.querySelector("#maps canvas, #maps button")?.focus({ preventScroll: true });
}
