// The answer: a bar for each class, with its name and its probability.
import { $, el } from "./elements.js";
import { largest } from "./layers.js";
import { percent, shown } from "./numbers.js";
import { choose, on, state } from "./state.js";

const MOST = 12; // bars; of more classes the most probable
let rows = [];
let spoken = 0;

export function openScores() {
  const { model, network } = state;
  const last = model.scores ?? network.nodes.length - 1;
  const { shape } = network.nodes[last];
  if (shape.length !== 1) {
    $("scores").hidden = true;
    return;
  }
  if (model.scores === null) $("scores-title").textContent = "The network’s outputs";
  rows = Array.from({ length: Math.min(MOST, shape[0]) }, () => barRow(unit => choose(last, unit)));
  $("bars").classList.toggle(
    "named",
    model.classes.some(name => name.length > 2),
  );
  $("bars").append(...rows.map(row => row.element));
  on("outputs", () => paint(last));
}

// A line with a name, a bar and a number; `update` says which value it is of.
export function barRow(onclick, onhover) {
  const [name, bar, number] = [el("span", { class: "name" }), el("span", { class: "bar" }), el("span", { class: "number" })];
  const element = el("button", { type: "button", class: "row" }, name, el("span", { class: "track" }, bar), number);
  const row = { element, unit: 0 };
  element.addEventListener("click", () => onclick(row.unit));
  if (onhover) {
    element.addEventListener("pointerenter", () => onhover(row.unit));
    element.addEventListener("focus", () => onhover(row.unit));
    element.addEventListener("pointerleave", () => onhover(null));
    element.addEventListener("blur", () => onhover(null));
  }
  // low, high: the ends of the track.
  row.update = (unit, title, value, low, high, text) => {
    row.unit = unit;
    name.textContent = title;
    name.title = title;
    number.textContent = text;
    const span = high - low || 1;
    const zero = (0 - low) / span;
    const part = Math.max(0, Math.min(1, (value - low) / span)) || 0;
    bar.style.left = `${100 * Math.min(zero, part)}%`;
    bar.style.width = `${100 * Math.abs(part - zero)}%`;
    bar.classList.toggle("below", value < 0);
  };
  return row;
}

function paint(last) {
  const values = state.outputs[last];
  const answer = $("answer");
  if (!values) {
    answer.textContent =
      "Not known: there is a layer of somebody’s own before it, which this page cannot compute for drawings. Pick an image.";
    rows.forEach(row => (row.element.hidden = true));
    return;
  }
  const { classes, scores } = state.model;
  const order = Array.from(values.keys());
  if (values.length > MOST) order.sort((a, b) => values[b] - values[a]);
  const best = largest(values);
  const isShare = scores !== null;
  const [low, high] = isShare ? [0, 1] : [Math.min(0, ...values), Math.max(0, ...values)];
  rows.forEach((row, i) => {
    const unit = order[i];
    row.element.hidden = false;
    row.element.classList.toggle("best", unit === best && values.length > 1);
    row.update(unit, classes[unit] ?? String(unit), values[unit], low, high, isShare ? percent(values[unit]) : shown(values[unit]));
  });
  $("took").textContent = `computed in ${state.took < 1 ? "under a millisecond" : `${state.took.toFixed(state.took < 10 ? 1 : 0)} ms`}`;
  if (!isShare || values.length < 2) {
    answer.textContent = "";
    return;
  }
  const name = classes[best] ?? String(best);
  answer.replaceChildren(el("strong", {}, name), el("span", {}, percent(values[best])));
  clearTimeout(spoken);
  answer.setAttribute("aria-live", state.drawing ? "off" : "polite");
}
