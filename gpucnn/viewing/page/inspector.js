// The panel beside the maps: where the value under the mouse, or the one that is pinned, comes from.
import { PARTS, softmax, whereabouts } from "./details.js";
import { $, el, soon } from "./elements.js";
import { explain } from "./explain.js";
import { goTo } from "./maps.js";
import { shown } from "./numbers.js";
import { classOf, nodeNow, on, state, unitNow } from "./state.js";

let all = false; // channels
let open = null; // of which node
let said = "";

export function openInspector() {
  const repaint = soon(paint);
  for (const event of ["outputs", "unit", "node", "theme"]) on(event, repaint);
}

function paint() {
  const panel = $("inspector");
  const node = nodeNow();
  const unit = unitNow();
  const values = state.outputs[node.id];
  if (open !== node.id) all = false;
  open = node.id;
  if (!values || unit === null || unit >= values.length) {
    panel.replaceChildren(
      el("h3", {}, "Where a value comes from"),
      el(
        "p",
        { class: "soft" },
        "Hover over a value, tap it, or reach it with the arrow keys: what was multiplied, how it adds up, and which part of the input it " +
          "sees. A click pins it; from there you can follow it down.",
      ),
    );
    panel.classList.remove("chosen");
    return;
  }
  const found = explain(node, unit, state.outputs, state.network.arrays[node.id]);
  const below = state.network.nodes[node.inputs[0]] ?? node;
  const go = (source, at) => goTo(node.inputs[source], at);
  const more = {
    all,
    nameOf: i => classOf(node, i) ?? `value ${i + 1}`,
    toggle: () => {
      all = !all;
      paint();
    },
  };
  const parts = PARTS[found.form](found, node, below, go, more);
  if (found.activation === "softmax" && found.form !== "pass") parts.splice(1, 0, softmax(found, node, more));
  const title = named(node, unit);
  panel.classList.toggle("chosen", !state.auto || state.hover !== null);
  panel.replaceChildren(
    el("h3", {}, title, el("strong", { class: "at", dataset: { value: String(found.value) } }, shown(found.value, 5))),
    ...parts.filter(Boolean),
  );
  if (state.hover !== null || state.auto || title === said) return;
  said = title; // once for each value, and not for every drawing
  $("spoken").textContent = `${title}: ${shown(found.value)}`;
}

function named(node, unit) {
  return `${node.name}, ${classOf(node, unit) ?? whereabouts(node.shape, unit)}`;
}
