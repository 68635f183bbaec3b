// Where a value comes from: what was multiplied with what, and how it adds up. Nothing here draws.
import { largest, windowSum, winners } from "./layers.js";
import { pixel } from "./windows.js";

// node: of a Network. at: the value's place in its output. outputs: of all nodes. arrays: the node's weights.
// What comes back has a `form`, `value` (what the node puts out there), and `before`, what it was before the activation.
export function explain(node, at, outputs, arrays) {
  const value = outputs[node.id]?.[at];
  if (node.op === "input") return { form: "input", value };
  const inputs = node.inputs.map(id => outputs[id]);
  if (node.op === "opaque" || inputs.includes(null)) return { form: "opaque", value };
  const found = FORMS[node.op](node, at, inputs, arrays);
  if (node.activation === "softmax") {
    const length = node.shape[node.shape.length - 1];
    const first = at - (at % length);
    return { ...found, ...softmaxOf(node, first, at, inputs, arrays, length), value };
  }
  return { ...found, activation: node.activation, options: node.options, value };
}

const FORMS = {
  conv: patches,
  local: patches,
  transposed: reverse,
  dense: (node, k, [x], { weight, bias }) => {
    const terms = Array.from(x, (value, i) => ({
      from: i,
      value,
      weight: weight[k * x.length + i],
      product: value * weight[k * x.length + i],
    }));
    return summed(terms, bias ? bias[k] : 0);
  },
  norm: (node, at, [x], { weight, bias, mean, variance }) => {
    const c = Math.floor(at / (x.length / node.shape[0]));
    const found = {
      form: "norm",
      from: at,
      x: x[at],
      mean: mean[c],
      deviation: Math.sqrt(variance[c] + node.eps),
      weight: weight ? weight[c] : 1,
      bias: bias ? bias[c] : 0,
    };
    return { ...found, before: ((found.x - found.mean) / found.deviation) * found.weight + found.bias, channel: c };
  },
  max_pool: (node, at, [x]) => {
    const window = windowOf(node, at, x);
    const best = winners(node, x)[at];
    return { ...window, form: "window", best: window.places.indexOf(best + window.plane), before: x[window.plane + best] };
  },
  avg_pool: (node, at, [x]) => {
    const [c, i, j] = place(node.shape, at);
    const { sum, count } = windowSum(node, x, c, i, j);
    return { ...windowOf(node, at, x), form: "window", mean: true, sum, count, before: sum / count };
  },
  global_avg: (node, at, [x]) => {
    const plane = planeOf(node, at, x);
    const sum = plane.reduce((all, value) => all + value, 0);
    return { form: "plane", mean: true, sum, count: plane.length, before: sum / plane.length };
  },
  global_max: (node, at, [x]) => {
    const plane = planeOf(node, at, x);
    const best = largest(plane);
    return { form: "plane", count: plane.length, before: plane[best], places: [at * plane.length + best] };
  },
  pad: (node, at, [x]) => {
    const [c, row, column] = place(node.shape, at);
    const [, h, w] = node.from;
    const i = row - node.padding[0][0];
    const j = column - node.padding[1][0];
    const from = i >= 0 && i < h && j >= 0 && j < w ? (c * h + i) * w + j : null;
    return { form: "copy", source: 0, from, before: from === null ? 0 : x[from] };
  },
  flatten: (node, at, [x]) => ({ form: "copy", source: 0, from: at, before: x[at] }),
  pass: (node, at, [x]) => ({ form: "pass", source: 0, from: at, before: x[at] }),
  add: (node, at, [x, side]) => ({ form: "add", parts: [x[at], side[at]], from: at, before: x[at] + side[at] }),
  concat: (node, at, parts) => {
    let source = 0;
    let from = at;
    while (from >= parts[source].length) from -= parts[source++].length;
    return { form: "copy", source, from, before: parts[source][from] };
  },
};

// [channel, row, column] of a place in (C, H, W); [place] in a row of values.
export function place(shape, at) {
  if (shape.length === 1) return [at];
  const [, h, w] = shape;
  return [Math.floor(at / (h * w)), Math.floor(at / w) % h, at % w];
}

// Of a convolution: for each channel below the patch, the filter, their products, and what they come to.
function patches(node, at, [x], { weight, bias }) {
  const [k, p, q] = place(node.shape, at);
  const [h, w] = node.window.input;
  const [r, s] = node.window.kernel;
  const isLocal = node.op === "local";
  const groups = isLocal ? 1 : node.groups;
  const deep = node.from[0] / groups;
  const first = Math.floor(k / (node.shape[0] / groups)) * deep;
  const spots = node.shape[1] * node.shape[2];
  const channels = [];
  for (let c = 0; c < deep; c++) {
    const found = { channel: first + c, patch: [], filter: [], products: [], places: [], subtotal: 0 };
    for (let i = 0; i < r; i++) {
      for (let j = 0; j < s; j++) {
        const row = pixel(node.window, 0, p, i);
        const column = pixel(node.window, 1, q, j);
        const inside = row >= 0 && row < h && column >= 0 && column < w;
        const from = inside ? ((first + c) * h + row) * w + column : null;
        const tap = ((k * deep + c) * r + i) * s + j;
        const filter = isLocal ? weight[tap * spots + p * node.shape[2] + q] : weight[tap];
        const value = inside ? x[from] : 0;
        found.patch.push(value);
        found.filter.push(filter);
        found.products.push(value * filter);
        found.places.push(from);
        found.subtotal += value * filter;
      }
    }
    channels.push(found);
  }
  const sum = channels.reduce((all, each) => all + each.subtotal, 0);
  const own = bias ? bias[isLocal ? at : k] : 0;
  return { form: "patches", rows: r, columns: s, channels, sum, bias: own, hasBias: Boolean(bias), before: sum + own };
}

// Of a transposed convolution: the pixels below whose filters reach this place.
function reverse(node, at, [x], { weight, bias }) {
  const [k, row, column] = place(node.shape, at);
  const [p, q] = node.window.output;
  const [r, s] = node.window.kernel;
  const each = node.shape[0] / node.groups;
  const deep = node.from[0] / node.groups;
  const first = Math.floor(k / each) * deep;
  const terms = [];
  for (let c = first; c < first + deep; c++) {
    for (let i = 0; i < p; i++) {
      const t = row - pixel(node.window, 0, i, 0);
      if (t < 0 || t % node.window.dilation[0] || t / node.window.dilation[0] >= r) continue;
      for (let j = 0; j < q; j++) {
        const u = column - pixel(node.window, 1, j, 0);
        if (u < 0 || u % node.window.dilation[1] || u / node.window.dilation[1] >= s) continue;
        const from = (c * p + i) * q + j;
        const own = weight[((c * each + (k % each)) * r + t / node.window.dilation[0]) * s + u / node.window.dilation[1]];
        terms.push({ from, value: x[from], weight: own, product: x[from] * own });
      }
    }
  }
  return summed(terms, bias ? bias[k] : 0);
}

// Terms, the largest first, and what they come to.
function summed(terms, bias) {
  const sum = terms.reduce((all, term) => all + term.product, 0);
  terms.sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  return { form: "terms", terms, sum, bias, before: sum + bias };
}

function windowOf(node, at, x) {
  const [c, p, q] = place(node.shape, at);
  const [h, w] = node.window.input;
  const [r, s] = node.window.kernel;
  const found = { rows: r, columns: s, values: [], places: [], plane: c * h * w };
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < s; j++) {
      const row = pixel(node.window, 0, p, i);
      const column = pixel(node.window, 1, q, j);
      const inside = row >= 0 && row < h && column >= 0 && column < w;
      found.places.push(inside ? (c * h + row) * w + column : null);
      found.values.push(inside ? x[(c * h + row) * w + column] : null);
    }
  }
  return found;
}

const planeOf = (node, at, x) => x.subarray((at * x.length) / node.shape[0], ((at + 1) * x.length) / node.shape[0]);

// Softmax needs the whole row of what stands before it.
function softmaxOf(node, first, at, inputs, arrays, length) {
  const row = Array.from({ length }, (_, i) => Math.fround(FORMS[node.op](node, first + i, inputs, arrays).before));
  const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = row.map(x => Math.exp(x - most));
  return { activation: "softmax", row, powers, total: powers.reduce((a, b) => a + b, 0), own: at - first };
}
