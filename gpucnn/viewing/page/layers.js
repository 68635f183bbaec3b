// What each kind of layer computes of one image. An operation gets the node, its inputs and its arrays, and gives a new Float32Array.
import { conv, dot, local, transposed } from "./convolution.js";
import { pixel } from "./windows.js";

export const OPERATIONS = {
  conv: (node, [x], { weight, bias }) => conv(x, weight, bias, node.window, node.from[0], node.groups, node.shape[0]),
  transposed: (node, [x], { weight, bias }) => transposed(x, weight, bias, node.window, node.from[0], node.groups, node.shape[0]),
  local: (node, [x], { weight, bias }) => local(x, weight, bias, node.window, node.from[0], node.shape[0]),
  dense: (node, [x], { weight, bias }) => {
    const y = new Float32Array(node.shape[0]);
    for (let k = 0; k < y.length; k++) y[k] = dot(weight, k * x.length, x, 0, x.length) + (bias ? bias[k] : 0);
    return y;
  },
  norm: (node, [x], { weight, bias, mean, variance }) => {
    const y = new Float32Array(x.length);
    const size = x.length / node.shape[0];
    for (let i = 0; i < x.length; i++) {
      const c = Math.floor(i / size);
      y[i] = (x[i] - mean[c]) * ((weight ? weight[c] : 1) / Math.sqrt(variance[c] + Math.fround(node.eps))) + (bias ? bias[c] : 0);
    }
    return y;
  },
  max_pool: (node, [x]) => {
    const places = winners(node, x);
    const y = new Float32Array(places.length);
    const size = node.from[1] * node.from[2];
    const each = node.shape[1] * node.shape[2];
    for (let i = 0; i < y.length; i++) y[i] = x[Math.floor(i / each) * size + places[i]];
    return y;
  },
  avg_pool: (node, [x]) => eachWindow(node, values => values.sum / values.count, x),
  global_avg: (node, [x]) => planes(node, x, plane => plane.reduce((sum, value) => sum + value, 0) / plane.length),
  global_max: (node, [x]) => planes(node, x, plane => plane[largest(plane)]),
  pad: (node, [x]) => {
    const [c, h, w] = node.from;
    const [, high, wide] = node.shape;
    const [[top], [left]] = node.padding;
    const y = new Float32Array(c * high * wide);
    for (let row = 0; row < c * h; row++) {
      y.set(x.subarray(row * w, (row + 1) * w), (Math.floor(row / h) * high + (row % h) + top) * wide + left);
    }
    return y;
  },
  flatten: (node, [x]) => x.slice(),
  pass: (node, [x]) => x.slice(),
  add: (node, [x, side]) => x.map((value, i) => value + side[i]),
  concat: (node, parts) => {
    const y = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      y.set(part, at);
      at += part.length;
    }
    return y;
  },
};

// The place of the largest, the first of equals; NaN wins over numbers.
export function largest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) {
    if (values[i] > values[best] || (Number.isNaN(values[i]) && !Number.isNaN(values[best]))) best = i;
  }
  return best;
}

// Where the largest pixel of each window lies in its plane, (C, P, Q): the argmax. Padding never wins.
export function winners(node, x) {
  const places = new Int32Array(node.shape[0] * node.shape[1] * node.shape[2]);
  const [c, h, w] = node.from;
  const [p, q] = node.window.output;
  const [r, s] = node.window.kernel;
  let at = 0;
  for (let plane = 0; plane < c; plane++) {
    for (let i = 0; i < p; i++) {
      for (let j = 0; j < q; j++) {
        let best = -1;
        for (let t = 0; t < r; t++) {
          const row = pixel(node.window, 0, i, t);
          if (row < 0 || row >= h) continue;
          for (let u = 0; u < s; u++) {
            const column = pixel(node.window, 1, j, u);
            if (column < 0 || column >= w) continue;
            const place = row * w + column;
            const value = x[plane * h * w + place];
            const before = best < 0 ? 0 : x[plane * h * w + best];
            if (best < 0 || value > before || (Number.isNaN(value) && !Number.isNaN(before))) best = place;
          }
        }
        places[at++] = best;
      }
    }
  }
  return places;
}

// The sum of a window's pixels, and what it is divided by: padding counts where the layer says so, what hangs over it never.
export function windowSum(node, x, plane, i, j) {
  const [, h, w] = node.from;
  const { kernel, padding } = node.window;
  const found = { sum: 0, count: 0, pixels: [] };
  for (let t = 0; t < kernel[0]; t++) {
    const row = pixel(node.window, 0, i, t);
    for (let u = 0; u < kernel[1]; u++) {
      const column = pixel(node.window, 1, j, u);
      const inside = row >= 0 && row < h && column >= 0 && column < w;
      const padded = row >= -padding[0][0] && row < h + padding[0][1] && column >= -padding[1][0] && column < w + padding[1][1];
      if (inside) found.sum += x[(plane * h + row) * w + column];
      if (inside || (node.counts_padding && padded)) found.count++;
      found.pixels.push(inside ? x[(plane * h + row) * w + column] : null);
    }
  }
  return found;
}

function eachWindow(node, apply, x) {
  const [c, p, q] = node.shape;
  const y = new Float32Array(c * p * q);
  for (let i = 0; i < y.length; i++) {
    y[i] = apply(windowSum(node, x, Math.floor(i / (p * q)), Math.floor(i / q) % p, i % q));
  }
  return y;
}

function planes(node, x, apply) {
  const size = x.length / node.shape[0];
  return Float32Array.from({ length: node.shape[0] }, (_, c) => apply(x.subarray(c * size, (c + 1) * size)));
}
