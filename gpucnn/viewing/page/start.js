// The page: reads what came with it, puts its parts together, and asks the network. The same script is the worker's.
import { follow, keepAddress, undoEdits } from "./address.js";
import { forgetColours } from "./colours.js";
import { openEditor } from "./editor.js";
import { $, complain } from "./elements.js";
import { preset, PRESETS } from "./filters.js";
import { firstInput, openInput, takeInput } from "./input.js";
import { openInspector } from "./inspector.js";
import { openLayer } from "./layer.js";
import { largest } from "./layers.js";
import { openMaps } from "./maps.js";
import { Network } from "./network.js";
import { bytesOf, count, floatsOf, percent, product } from "./numbers.js";
import { openRibbon } from "./ribbon.js";
import { openSandbox } from "./sandbox.js";
import { openScores } from "./scores.js";
import { choose, on, state, tell } from "./state.js";
import { Runner, serve } from "./worker.js";

const THEMES = { auto: "light", light: "dark", dark: "auto" };

export function start() {
  if (typeof document === "undefined") serve();
  else open();
}

const textOf = id => $(id).textContent;

function open() {
  const model = (state.model = JSON.parse(textOf("model")));
  const weights = floatsOf(bytesOf(textOf("weights")), model.dtype);
  state.images = bytesOf(textOf("images"));
  state.given = givenOutputs(model, floatsOf(bytesOf(textOf("given")), "float32"));
  state.presets = preset;
  state.network = new Network(model.nodes, weights);
  for (const id of ["weights", "images", "given", "model"]) $(id).remove(); // their text is not needed any more
  state.runner = new Runner(model.nodes, weights, $("program").textContent, answer);
  on("input", ask);
  facts();
  openRibbon();
  openLayer();
  openMaps();
  openInspector();
  openEditor();
  openSandbox();
  openScores();
  openInput();
  openTools();
  const first = state.network.nodes.find(node => node.op === "conv") ?? state.network.nodes[Math.min(1, state.network.nodes.length - 1)];
  const asked = location.hash;
  choose(first.id);
  if (!follow(asked, takeInput, PRESETS)) firstInput();
  keepAddress(takeInput, PRESETS);
  for (const event of ["outputs", "node"]) on(event, strongest);
  globalThis.gpucnn = { state }; // for the console
}

// Until somebody chooses a value, the strongest of the layer is looked at: there is always something to read.
function strongest() {
  const values = state.outputs[state.node];
  if (!state.auto || state.drawing || !values) return;
  state.unit = largest(values);
  tell("unit");
}

// The outputs of layers that this page cannot compute, for each image that came along.
function givenOutputs(model, numbers) {
  const found = {};
  let at = 0;
  for (const [name, shape] of Object.entries(model.given)) {
    const size = product(shape.slice(1));
    found[name] = Array.from({ length: shape[0] }, (_, i) => numbers.slice(at + i * size, at + (i + 1) * size));
    at += shape[0] * size;
  }
  return found;
}

function ask() {
  const given = {};
  if (state.picture !== null) for (const [name, outputs] of Object.entries(state.given)) given[name] = outputs[state.picture];
  state.runner.run({ input: state.input, given });
}

function answer({ outputs, took }) {
  state.outputs = outputs;
  state.took = took;
  state.answers = (state.answers ?? 0) + 1;
  tell("outputs");
}

function facts() {
  const { model } = state;
  const parts = [
    model.dataset && `trained on ${model.dataset}`,
    `${count(model.parameters)} weights and biases`,
    model.accuracy !== null && `${percent(model.accuracy)} of the test images right`,
  ];
  $("facts").textContent = parts.filter(Boolean).join(" · ");
  const notes = [
    model.dtype === "float16" && "The weights in this page are rounded to float16: numbers differ a little from the model’s own.",
    model.double && "The model computes in float64, this page in float32.",
    Object.keys(model.given).length &&
      "A layer of somebody’s own is in this network: what comes from it on is known for the images below only.",
    !Object.keys(model.given).length &&
      model.nodes.some(node => node.op === "opaque") &&
      "A layer of somebody’s own is in this network, and no images came along: what comes from it on is not known.",
  ].filter(Boolean);
  $("notes").hidden = !notes.length;
  $("notes").textContent = notes.join(" ");
}

function openTools() {
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const next = THEMES[root.dataset.theme ?? "auto"];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    $("theme").textContent = `Theme: ${next}`;
    forgetColours();
    tell("theme");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    forgetColours();
    tell("theme");
  });
  $("link").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("link").textContent = "Copied";
    } catch {
      complain("The browser does not let this page copy: the address bar has the link.");
    }
    setTimeout(() => ($("link").textContent = "Copy link"), 1500);
  });
  $("undo-edits").addEventListener("click", undoEdits);
  on("edits", () => {
    $("undo-edits").hidden = !state.edits.size;
    $("undo-edits").textContent = `Undo ${state.edits.size} ${state.edits.size === 1 ? "edit" : "edits"}`;
  });
}

start();
