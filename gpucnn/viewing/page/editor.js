// A filter's weights, to be changed: by hand, or to a filter that image editors know by name.
import { setEdit } from "./address.js";
import { css, inkOn, reach } from "./colours.js";
import { $, button, el } from "./elements.js";
import { place } from "./explain.js";
import { hasFilters, PRESETS, sizesOf, startOf } from "./filters.js";
import { count } from "./numbers.js";
import { nodeNow, on, state } from "./state.js";

const EACH_ITS_OWN =
  "Here every place has filters of its own: there is no one filter to change, nor one that slides. Point at a value to see its own.";

let filter = 0;
let channel = 0;
let fields = [];

export function openEditor() {
  on("node", lay);
  on("edits", show);
  on("theme", show);
  on("unit", () => {
    const node = nodeNow();
    if (!hasFilters(node) || state.unit === null) return;
    const k = place(node.shape, state.unit)[0];
    if (k !== filter) {
      filter = k;
      show();
    }
  });
}

export const filterNow = () => filter;

function lay() {
  const node = nodeNow();
  $("play").hidden = !hasFilters(node) && node.op !== "local";
  fields = [];
  if (node.op === "local") $("editor").replaceChildren(el("p", { class: "soft" }, EACH_ITS_OWN));
  if (!hasFilters(node)) return;
  filter = state.unit === null ? 0 : place(node.shape, state.unit)[0];
  channel = 0;
  const edit = [...state.edits.keys()].map(key => key.split(":").map(Number)).find(([id]) => id === node.id);
  if (edit) [, filter, channel] = edit;
  const [filters, channels, r, s] = sizesOf(node);
  const chooser = (id, text, total, value, change) =>
    el(
      "label",
      { for: id },
      `${text} `,
      el("input", {
        type: "number",
        id,
        min: 1,
        max: total,
        value: value + 1,
        onchange: event => change(Math.min(total, Math.max(1, Math.round(Number(event.target.value)) || 1)) - 1),
      }),
      ` of ${count(total)}`,
    );
  fields = Array.from({ length: r * s }, (_, i) =>
    el("input", {
      type: "number",
      step: "any",
      class: "weight",
      "aria-label": `weight, row ${Math.floor(i / s) + 1}, column ${(i % s) + 1}`,
      oninput: () => typed(node),
    }),
  );
  const grid = el("div", { class: "weights", role: "group", "aria-label": "The filter’s weights", style: { "--columns": s } }, fields);
  const presets = PRESETS.map(name =>
    button(name, () => setEdit(node, filter, channel, name, $("alone").checked), { "aria-pressed": "false", dataset: { preset: name } }),
  );
  const alone = el(
    "label",
    { class: "check", hidden: channels === 1 },
    el("input", { type: "checkbox", id: "alone", onchange: () => only(node) }),
    " other maps below count 0",
  );
  $("editor").replaceChildren(
    el("h3", {}, "Edit a filter"),
    el("p", { class: "soft" }, "Change what this filter looks for, and see what every layer behind it makes of that."),
    el(
      "div",
      { class: "tools" },
      chooser("filter", "filter", filters, filter, value => {
        filter = value;
        show();
        state.changedFilter?.();
      }),
      channels > 1
        ? chooser("channel", "for map", channels, channel, value => {
            channel = value;
            show();
          })
        : null,
    ),
    grid,
    el(
      "div",
      { class: "tools" },
      presets,
      button("as trained", () => setEdit(node, filter, channel, null), { id: "as-trained" }),
    ),
    alone,
  );
  show();
}

function typed(node) {
  const values = fields.map(field => (field.value.trim() === "" ? NaN : Number(field.value)));
  const bad = values.map(value => !Number.isFinite(value));
  fields.forEach((field, i) => field.setAttribute("aria-invalid", bad[i]));
  if (!bad.includes(true)) setEdit(node, filter, channel, values, $("alone").checked);
}

// The same filter, its other maps with their own weights again or with none: it keeps its name.
function only(node) {
  const name = state.edits.get(`${node.id}:${filter}:${channel}`)?.name;
  if (name) setEdit(node, filter, channel, name, $("alone").checked);
  else typed(node);
}

function show() {
  const node = nodeNow();
  if (!hasFilters(node) || !fields.length) return;
  const start = startOf(node, filter, channel);
  const values = state.network.arrays[node.id].weight.subarray(start, start + fields.length);
  const most = reach(values);
  const edit = state.edits.get(`${node.id}:${filter}:${channel}`);
  fields.forEach((field, i) => {
    if (document.activeElement !== field) field.value = Number.isFinite(values[i]) ? Number(values[i].toPrecision(3)) : "";
    field.title = String(values[i]);
    field.style.background = css(values[i], most);
    field.style.color = inkOn(values[i], most);
    field.setAttribute("aria-invalid", "false");
  });
  for (const [id, value] of [
    ["filter", filter],
    ["channel", channel],
  ])
    if ($(id) && document.activeElement !== $(id)) $(id).value = value + 1;
  $("alone").checked = edit?.alone ?? false;
  $("as-trained").disabled = !edit;
  document.querySelectorAll("#editor [data-preset]").forEach(each => each.setAttribute("aria-pressed", edit?.name === each.dataset.preset));
}
