// An explanation as tables of numbers that add up. What explain.js found is drawn here.
import { css, inkOn, paintMap, reach } from "./colours.js";
import { button, el } from "./elements.js";
import { place } from "./explain.js";
import { count, fixed, percent, shown } from "./numbers.js";
import { activationName } from "./words.js";

const SHOWN = 3; // channels, the weightiest first
const TERMS = 10;

// Where a value is, in words: map 3, row 5, column 7.
export function whereabouts(shape, at) {
  const [c, row, column] = place(shape, at);
  return shape.length === 3 ? `map ${c + 1}, row ${row + 1}, column ${column + 1}` : `value ${c + 1}`;
}

// An equation: parts [label, text, full number?] with signs between them.
export function equation(...parts) {
  return el(
    "div",
    { class: "equation" },
    parts.map(part =>
      typeof part === "string"
        ? el("span", { class: "sign" }, part)
        : el(
            "span",
            { class: `term ${part[2] ?? ""}` },
            el("span", { class: "value", title: String(part[3] ?? "") }, part[1]),
            el("span", { class: "of" }, part[0]),
          ),
    ),
  );
}

// The same for a value of a row that was made of maps, as they call it there.
const named = (node, at) => (node.op === "flatten" && node.from.length === 3 ? whereabouts(node.from, at) : whereabouts(node.shape, at));

const full = (label, value, kind) => [label, Number.isFinite(value) ? fixed(value, 4) : shown(value), kind, value];

// sum + bias = before → activation → value
function tail(found, lead) {
  const parts = lead;
  if (found.activation && found.activation !== "softmax") parts.push("→", full(activationName(found.activation), found.value, "result"));
  else parts[parts.length - 1][2] = "result";
  return equation(...parts);
}

// A table of numbers in their colours; `down` makes its cells ways down.
function matrix(title, values, columns, most, { strong = -1, down = null, places = [], small = false } = {}) {
  const rows = [];
  const wide = columns > 5 || small;
  for (let start = 0; start < values.length; start += columns) {
    const cells = values.slice(start, start + columns).map((value, i) => {
      const at = start + i;
      const none = value === null || places[at] === null;
      const text = none
        ? "·"
        : wide
          ? ""
          : Math.abs(value) >= 100
            ? shown(value, 3)
            : columns > 3
              ? fixed(value, 2).replace(/^(−?)0\./, "$1.")
              : fixed(value, 2);
      const cell = el(
        "td",
        { class: `${at === strong ? "strong" : ""}${down && !none ? " down" : ""}`, title: none ? "padding" : String(value) },
        text,
      );
      if (!none) {
        cell.style.background = css(value, most);
        cell.style.color = inkOn(value, most);
        if (down) cell.addEventListener("click", () => down(places[at]));
      }
      return cell;
    });
    rows.push(el("tr", {}, cells));
  }
  return el(
    "figure",
    { class: `matrix${wide ? " wide" : columns > 3 ? " narrow" : ""}` },
    el("figcaption", {}, title),
    el("table", { role: "presentation" }, el("tbody", {}, rows)),
  );
}

// The parts of the panel for each form of explanation. go(source, at): to a value below. below: the node below.
export const PARTS = {
  patches(found, node, below, go, more) {
    const order = [...found.channels].sort((a, b) => Math.abs(b.subtotal) - Math.abs(a.subtotal));
    const chosen = more.all ? order.slice(0, 64) : order.slice(0, SHOWN);
    const patch = Math.max(...chosen.map(each => reach(each.patch)));
    const filter = Math.max(...chosen.map(each => reach(each.filter)));
    const products = Math.max(...chosen.map(each => reach(each.products)));
    const lines = chosen.map(each =>
      el(
        "div",
        { class: "line" },
        matrix(
          below.op === "input"
            ? below.shape[0] === 1
              ? "patch of the input"
              : `patch, channel ${each.channel + 1}`
            : `patch of map ${each.channel + 1}`,
          each.patch,
          found.columns,
          patch,
          { down: at => go(0, at), places: each.places },
        ),
        el("span", { class: "sign" }, "×"),
        matrix("filter", each.filter, found.columns, filter),
        el("span", { class: "sign" }, "="),
        matrix("products", each.products, found.columns, products, { places: each.places }),
        found.channels.length === 1
          ? ""
          : el("p", { class: "subtotal" }, "sum of the products ", el("strong", { title: String(each.subtotal) }, fixed(each.subtotal, 4))),
      ),
    );
    const rest = order.slice(chosen.length);
    const left = rest.reduce((sum, each) => sum + each.subtotal, 0);
    const others = rest.length
      ? [button(`${rest.length} more maps below: ${fixed(left, 4)}`, more.toggle, { class: "more" })]
      : more.all && order.length > SHOWN
        ? [button("Fewer", more.toggle, { class: "more" })]
        : [];
    const lead = [full(found.channels.length === 1 ? "sum of the products" : `sum over ${found.channels.length} maps`, found.sum)];
    if (found.hasBias) lead.push("+", full("bias", found.bias), "=", full("", found.before));
    return [tail(found, lead), ...lines, ...others, deepest(order[0], go)];
  },

  terms(found, node, below, go) {
    const most = found.terms.length ? Math.abs(found.terms[0].product) : 0;
    const first = found.terms.slice(0, TERMS);
    const rest = found.terms.slice(TERMS).reduce((sum, term) => sum + term.product, 0);
    const rows = first.map(term =>
      el(
        "tr",
        { class: "down", onclick: () => go(0, term.from) },
        el("th", { scope: "row" }, named(below, term.from)),
        el("td", { title: String(term.value) }, shown(term.value)),
        el("td", { title: String(term.weight) }, shown(term.weight)),
        el(
          "td",
          { title: String(term.product), style: { background: css(term.product, most), color: inkOn(term.product, most) } },
          fixed(term.product),
        ),
      ),
    );
    const head = el(
      "tr",
      {},
      ["largest terms", "value", "× weight", "= product"].map(text => el("th", { scope: "col" }, text)),
    );
    const others =
      found.terms.length > TERMS
        ? [
            el(
              "tr",
              { class: "rest" },
              el("th", { scope: "row" }, `${count(found.terms.length - TERMS)} smaller terms`),
              el("td"),
              el("td"),
              el("td", { title: String(rest) }, fixed(rest)),
            ),
          ]
        : [];
    const lead = [full(`sum of ${count(found.terms.length)} products`, found.sum)];
    if (node.bias) lead.push("+", full("bias", found.bias), "=", full("", found.before));
    const picture =
      below.op === "flatten" && below.from.length === 3 && found.terms.length === below.shape[0] ? [origin(found.terms, below.from)] : [];
    const way = found.terms.length ? [button("Follow the largest down ↓", () => go(0, found.terms[0].from), { class: "more" })] : [];
    return [
      tail(found, lead),
      el("div", { class: "scroll" }, el("table", { class: "terms" }, el("thead", {}, head), el("tbody", {}, rows, others))),
      ...way,
      ...picture,
    ];
  },

  norm(found, node, below, go) {
    const parts = [
      "(",
      full("value below", found.x),
      "−",
      full("mean", found.mean),
      ") ÷",
      full("deviation", found.deviation),
      "×",
      full("weight", found.weight),
      "+",
      full("bias", found.bias),
      "=",
      full("", found.before),
    ];
    return [tail(found, parts), follow(go, 0, found)];
  },

  window(found, node, below, go) {
    const values = found.values;
    const most = reach(values.filter(value => value !== null));
    const table = matrix(found.mean ? "window" : "window, its maximum framed", values, found.columns, most, {
      strong: found.best ?? -1,
      down: at => go(0, at),
      places: found.places,
    });
    const lead = found.mean
      ? [full("sum", found.sum), "÷", ["pixels", String(found.count)], "=", full("mean", found.before)]
      : ["max", full("of the window", found.before)];
    const best = found.mean ? null : found.places[found.best];
    return [
      tail(found, lead),
      el("div", { class: "line" }, table),
      best === null ? null : button("Follow the winner down ↓", () => go(0, best), { class: "more" }),
    ];
  },

  plane(found, node, below, go) {
    const lead = found.mean
      ? [full("sum", found.sum), "÷", ["pixels", count(found.count)], "=", full("mean", found.before)]
      : ["max", full(`of the map’s ${count(found.count)} pixels`, found.before)];
    return [tail(found, lead), found.places ? button("Follow the winner down ↓", () => go(0, found.places[0]), { class: "more" }) : null];
  },

  pass(found, node, below, go, more) {
    return [
      found.activation === "softmax" ? softmax(found, node, more) : tail(found, [full("value below", found.before)]),
      follow(go, 0, { from: found.from }),
    ];
  },

  add(found, node, below, go) {
    const lead = [full("layers", found.parts[0]), "+", full("around them", found.parts[1]), "=", full("", found.before)];
    return [
      tail(found, lead),
      button("Follow the layers down ↓", () => go(0, found.from), { class: "more" }),
      button("Follow the other way ↓", () => go(1, found.from), { class: "more" }),
    ];
  },

  copy(found, node, below, go) {
    if (found.from === null) return [el("p", {}, "This is padding: a zero.")];
    return [
      tail(found, [full("copied from below", found.before)]),
      button("Follow it down ↓", () => go(found.source, found.from), { class: "more" }),
    ];
  },

  input: found => [
    el("p", {}, "A pixel of the input: nothing was computed."),
    equation([`pixel, ${shown(found.value * 255, 4)} of 255`, fixed(found.value, 4), "result", found.value]),
  ],

  opaque: () => [el("p", {}, "Computed in Python, by a layer of somebody’s own: this page does not know how.")],
};

// Where in the maps the products of a dense layer come from: at each place what they come to in all maps.
function origin(terms, [, height, width]) {
  const sums = new Float64Array(height * width);
  for (const term of terms) sums[term.from % (height * width)] += term.product;
  const canvas = el("canvas", { class: "origin", role: "img", "aria-label": "What the products come to at each place" });
  paintMap(canvas, sums, 0, height, width, reach(sums));
  return el(
    "figure",
    { class: "from" },
    canvas,
    el(
      "figcaption",
      {},
      "Where it comes from: the products at each place, added up over all maps. Orange speaks for this value, blue against it.",
    ),
  );
}

export function softmax(found, node, more) {
  const order = found.row
    .map((_, i) => i)
    .sort((a, b) => found.row[b] - found.row[a])
    .slice(0, 12);
  if (!order.includes(found.own)) order.push(found.own);
  const rows = order.map(i =>
    el(
      "tr",
      { class: i === found.own ? "chosen" : "" },
      el("th", { scope: "row" }, more.nameOf(i)),
      el("td", { title: String(found.row[i]) }, fixed(found.row[i])),
      el("td", { title: String(found.powers[i]) }, shown(found.powers[i])),
      el("td", {}, percent(found.powers[i] / found.total)),
    ),
  );
  const head = el(
    "tr",
    {},
    ["before", "x", "e^(x − max)", "share"].map(text => el("th", { scope: "col" }, text)),
  );
  return el(
    "div",
    {},
    equation(["e^(x − max)", shown(found.powers[found.own])], "÷", ["sum of all", shown(found.total)], "=", [
      node.name === "probabilities" ? "probability" : "share",
      fixed(found.value, 4),
      "result",
      found.value,
    ]),
    el("div", { class: "scroll" }, el("table", { class: "terms" }, el("thead", {}, head), el("tbody", {}, rows))),
  );
}

const follow = (go, source, { from }) =>
  from === undefined ? null : button("Follow it down ↓", () => go(source, from), { class: "more" });

function deepest(channel, go) {
  const size = channel.products.map(Math.abs);
  const best = size.indexOf(Math.max(...size));
  return channel.places[best] === null
    ? null
    : button("Follow the largest product down ↓", () => go(0, channel.places[best]), { class: "more" });
}
