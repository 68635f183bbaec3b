// What the page shows, in its address: layer, value, image, edits and the sandbox, so that all of it can be linked to.
import { hasFilters, replaced, sizesOf } from "./filters.js";
import { choose, on, state, tell } from "./state.js";
import { place } from "./explain.js";

const LONGEST = 4096; // bytes of a drawing that an address still holds

// Bytes as letters that an address may hold. A zero is followed by how many there are: most of a drawing is empty.
function packed(bytes) {
  const found = [];
  for (let i = 0; i < bytes.length;) {
    found.push(bytes[i]);
    if (bytes[i++] !== 0) continue;
    let run = 1;
    for (; i < bytes.length && bytes[i] === 0 && run < 255; i++) run++;
    found.push(run);
  }
  return btoa(String.fromCharCode(...found))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

// The bytes behind letters of `packed`; null where they are not `length` bytes.
function unpacked(text, length) {
  let raw;
  try {
    raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return null;
  }
  const found = [];
  for (let i = 0; i < raw.length && found.length <= length; i++) {
    const byte = raw.charCodeAt(i);
    if (byte) found.push(byte);
    else for (let run = raw.charCodeAt(++i); run > 0 && found.length <= length; run--) found.push(0);
  }
  return found.length === length ? Uint8Array.from(found) : null;
}

function written() {
  const { network, model } = state;
  const parts = [];
  if (state.picture !== null) parts.push(["image", state.picture + 1]);
  else if (state.bytes?.some(Boolean) && state.bytes.length <= LONGEST) parts.push(["drawn", packed(state.bytes)]);
  const node = network.nodes[state.node];
  parts.push(["layer", node.name]);
  if (state.unit !== null) parts.push(["unit", place(node.shape, state.unit).join(",")]);
  for (const [key, { values, alone, name }] of state.edits) {
    const [id, k, c] = key.split(":");
    const what = name ?? values.map(value => Number(value.toPrecision(9))).join(",");
    parts.push(["edit", `${model.nodes[id].name}:${k}:${c}:${alone ? "only:" : ""}${what}`]);
  }
  const { rule, stride, at } = state.sandbox;
  if (rule) parts.push(["sandbox", `${rule},${stride},${at}`]);
  return parts.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",").replaceAll("%3A", ":")}`).join("&");
}

let timer = 0;
let last = "";

// Soon, and once for many changes.
function note() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    last = `#${written()}`;
    if (location.hash === last) return;
    try {
      history.replaceState(null, "", last);
    } catch {
      location.replace(last); // a browser that lets files change no history
    }
  }, 150);
}

// Takes up what an address says, as far as it makes sense; returns whether it named an input. input: a function that takes an image's
// number, or the bytes of a drawing.
export function follow(hash, input, presets) {
  const { network } = state;
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  for (const text of asked.getAll("edit")) edited(text, presets);
  const number = Number(asked.get("image")) - 1;
  const drawn = asked.has("drawn")
    ? unpacked(
        asked.get("drawn"),
        network.nodes[0].shape.reduce((a, b) => a * b, 1),
      )
    : null;
  let found = false;
  if (asked.has("image") && Number.isInteger(number)) found = input(number, null);
  else if (drawn) found = input(null, drawn);
  const [rule, stride, at] = (asked.get("sandbox") ?? "").split(",");
  if (["same", "valid"].includes(rule) && Number(stride) >= 1 && Number(stride) <= 4) {
    state.sandbox = { rule, stride: Math.round(Number(stride)), at: Math.max(0, Math.round(Number(at)) || 0) };
  }
  const node = network.nodes.find(each => each.name === asked.get("layer"));
  if (!node) return found;
  const unit = asked.has("unit") ? placeOf(node.shape, asked.get("unit").split(",").map(Number)) : null;
  choose(node.id, unit);
  return found;
}

function placeOf(shape, at) {
  if (at.length !== shape.length || !at.every((value, axis) => Number.isInteger(value) && value >= 0 && value < shape[axis])) return null;
  return at.reduce((sum, value, axis) => sum * shape[axis] + value, 0);
}

function edited(text, presets) {
  const [name, k, c, ...rest] = text.split(":");
  const node = state.network.nodes.find(each => each.name === name && hasFilters(each));
  if (!node) return;
  const [filters, channels, rows, columns] = sizesOf(node);
  const alone = rest[0] === "only";
  const what = rest[rest.length - 1] ?? "";
  const values = presets.includes(what) ? what : what.split(",").map(Number);
  const fits = typeof values === "string" || (values.length === rows * columns && values.every(Number.isFinite));
  const at = [k, c].map(Number);
  if (!fits || !at.every(Number.isInteger) || at[0] < 0 || at[0] >= filters || at[1] < 0 || at[1] >= channels) return;
  setEdit(node, at[0], at[1], values, alone, false);
}

// Replaces channel c of filter k of a layer: by numbers, or by a filter's name; null puts back what it was trained to. The network is
// asked anew.
export function setEdit(node, k, c, values, alone = false, ask = true) {
  const key = `${node.id}:${k}:${c}`;
  if (values === null) {
    for (const other of [...state.edits.keys()]) if (other === key) state.edits.delete(other);
  } else {
    const [, , rows, columns] = sizesOf(node);
    const name = typeof values === "string" ? values : undefined;
    state.edits.set(key, { values: name ? state.presets(name, rows, columns) : values, alone, name });
  }
  applyEdits(node.id);
  tell("edits");
  if (ask) tell("input");
}

export function undoEdits() {
  const nodes = new Set([...state.edits.keys()].map(key => Number(key.split(":")[0])));
  state.edits.clear();
  nodes.forEach(applyEdits);
  tell("edits");
  tell("input");
}

function applyEdits(id) {
  let weight = null;
  for (const [key, { values, alone }] of state.edits) {
    const [node, k, c] = key.split(":").map(Number);
    if (node !== id) continue;
    weight = replaced(weight ?? state.network.trained[id].weight, state.network.nodes[id], k, c, values, alone);
  }
  state.network.edit(id, weight);
  state.runner.edit(id, weight);
}

export function keepAddress(input, presets) {
  for (const event of ["outputs", "node", "unit", "edits", "sandbox"]) on(event, note);
  addEventListener("hashchange", event => {
    const { hash } = new URL(event.newURL); // what was asked for: `note` may have written over it since
    if (hash !== last) follow(hash, input, presets);
  });
}
