// The chosen layer: its name, what it does in words, its sizes, and the legend of the colours.
import { colours, reach } from "./colours.js";
import { $, el, soon } from "./elements.js";
import { shown } from "./numbers.js";
import { choose, nodeNow, on, state } from "./state.js";
import { kindOf, sentence, shapeText, weightsText } from "./words.js";

export function openLayer() {
  on("node", words);
  const repaint = soon(legend);
  for (const event of ["node", "outputs", "theme"]) on(event, repaint);
  $("before").addEventListener("click", () => choose(Math.max(0, state.node - 1)));
  $("after").addEventListener("click", () => choose(Math.min(state.network.nodes.length - 1, state.node + 1)));
}

function words() {
  const node = nodeNow();
  $("layer-title").replaceChildren(el("span", {}, node.name), el("span", { class: `badge ${node.op}` }, kindOf(node)));
  $("layer-words").textContent = sentence(node);
  const sizes =
    node.op === "input"
      ? [["size", shapeText(node.shape)]]
      : [
          ["in", node.inputs.map(id => shapeText(state.network.nodes[id].shape)).join(" and ")],
          ["out", shapeText(node.shape)],
          ["learned", weightsText(node)],
        ];
  $("layer-sizes").replaceChildren(...sizes.map(([name, text]) => el("span", {}, el("span", { class: "of" }, name), el("span", {}, text))));
  $("before").disabled = node.id === 0;
  $("after").disabled = node.id === state.network.nodes.length - 1;
}

function legend() {
  const node = nodeNow();
  const values = state.outputs[node.id];
  const box = $("legend");
  const bars = node.shape.length === 1;
  const many = bars && node.shape[0] > 40;
  if (!values || node.op === "input" || bars) {
    box.replaceChildren(...(many && values ? [el("span", { class: "soft" }, "Bars up, orange: above zero. Bars down, blue: below.")] : []));
    return;
  }
  const most = reach(values);
  const canvas = el("canvas", { width: 511, height: 1, "aria-hidden": "true" });
  const image = new ImageData(511, 1);
  new Uint32Array(image.data.buffer).set(colours());
  canvas.getContext("2d").putImageData(image, 0, 0);
  const more = node.op === "max_pool" ? " Left the map below, with the winner of each window dotted; right what is kept." : "";
  box.replaceChildren(
    el(
      "span",
      { class: "scale", role: "img", "aria-label": `Colours from ${shown(-most)} over 0 to ${shown(most)}` },
      el("span", {}, shown(-most, 3)),
      canvas,
      el("span", {}, shown(most, 3)),
    ),
    el("span", { class: "soft" }, `Blue is below zero, orange above; the stronger, the farther from it.${more}`),
  );
}
