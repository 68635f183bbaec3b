// Convolutions of one image, x (C, H, W). Sums are taken in double precision and rounded to float32 once: what float32 gives at its best.
import { pixel } from "./windows.js";

const BLOCK = 48; // positions at a time: their patches stay in the cache

// y (K, P, Q) of weights (K, C / groups, R, S). Patches are laid out as rows; the products of four filters with two patches share what they
// load.
export function conv(x, weight, bias, window, channels, groups, filters) {
  const [p, q] = window.output;
  const places = p * q;
  const y = new Float32Array(filters * places);
  const deep = channels / groups;
  const length = deep * window.kernel[0] * window.kernel[1];
  const each = filters / groups;
  const patches = new Float64Array(BLOCK * length);
  for (let group = 0; group < groups; group++) {
    for (let start = 0; start < places; start += BLOCK) {
      const end = Math.min(places, start + BLOCK);
      gather(patches, x, window, group * deep, deep, start, end);
      multiply(y, patches, weight, bias, length, group * each, (group + 1) * each, places, start, end);
    }
  }
  return y;
}

// The patches of positions start … end − 1, a row of numbers each: by channel, row, column; zeros for padding.
function gather(patches, x, window, first, deep, start, end) {
  const [h, w] = window.input;
  const [r, s] = window.kernel;
  const q = window.output[1];
  const down = window.dilation[1];
  let at = 0;
  for (let place = start; place < end; place++) {
    const column = pixel(window, 1, place % q, 0);
    for (let c = 0; c < deep; c++) {
      const plane = (first + c) * h * w;
      for (let i = 0; i < r; i++) {
        const row = pixel(window, 0, Math.floor(place / q), i);
        const inside = row >= 0 && row < h;
        const from = plane + row * w;
        for (let j = 0, k = column; j < s; j++, k += down) patches[at++] = inside && k >= 0 && k < w ? x[from + k] : 0;
      }
    }
  }
}

function multiply(y, patches, weight, bias, length, first, last, places, start, end) {
  let k = first;
  for (; k + 4 <= last; k += 4) {
    const w0 = k * length;
    const w1 = w0 + length;
    const w2 = w1 + length;
    const w3 = w2 + length;
    const [b0, b1, b2, b3] = bias ? bias.subarray(k, k + 4) : [0, 0, 0, 0];
    let place = start;
    for (; place + 2 <= end; place += 2) {
      const at = (place - start) * length;
      let s00 = 0,
        s01 = 0,
        s10 = 0,
        s11 = 0,
        s20 = 0,
        s21 = 0,
        s30 = 0,
        s31 = 0;
      for (let l = 0; l < length; l++) {
        const x0 = patches[at + l];
        const x1 = patches[at + length + l];
        const f0 = weight[w0 + l];
        const f1 = weight[w1 + l];
        const f2 = weight[w2 + l];
        const f3 = weight[w3 + l];
        s00 += f0 * x0;
        s01 += f0 * x1;
        s10 += f1 * x0;
        s11 += f1 * x1;
        s20 += f2 * x0;
        s21 += f2 * x1;
        s30 += f3 * x0;
        s31 += f3 * x1;
      }
      const to = k * places + place;
      y[to] = s00 + b0;
      y[to + 1] = s01 + b0;
      y[to + places] = s10 + b1;
      y[to + places + 1] = s11 + b1;
      y[to + 2 * places] = s20 + b2;
      y[to + 2 * places + 1] = s21 + b2;
      y[to + 3 * places] = s30 + b3;
      y[to + 3 * places + 1] = s31 + b3;
    }
    for (; place < end; place++) {
      for (let j = k; j < k + 4; j++)
        y[j * places + place] = dot(weight, j * length, patches, (place - start) * length, length) + (bias ? bias[j] : 0);
    }
  }
  for (; k < last; k++) {
    for (let place = start; place < end; place++) {
      y[k * places + place] = dot(weight, k * length, patches, (place - start) * length, length) + (bias ? bias[k] : 0);
    }
  }
}

// Σ a·b, in four sums: one would wait for itself.
export function dot(a, i, b, j, length) {
  let s0 = 0,
    s1 = 0,
    s2 = 0,
    s3 = 0;
  let l = 0;
  for (; l + 4 <= length; l += 4) {
    s0 += a[i + l] * b[j + l];
    s1 += a[i + l + 1] * b[j + l + 1];
    s2 += a[i + l + 2] * b[j + l + 2];
    s3 += a[i + l + 3] * b[j + l + 3];
  }
  for (; l < length; l++) s0 += a[i + l] * b[j + l];
  return s0 + s1 + (s2 + s3);
}

// y (K, H, W) of weights (C, K / groups, R, S): each pixel of x lays its filter down, scaled. The window is that of the convolution the
// other way: its output is x, its input y.
export function transposed(x, weight, bias, window, channels, groups, filters) {
  const [h, w] = window.input;
  const [p, q] = window.output;
  const [r, s] = window.kernel;
  const each = filters / groups;
  const sums = new Float64Array(filters * h * w);
  for (let c = 0; c < channels; c++) {
    const group = Math.floor(c / (channels / groups));
    for (let k = 0; k < each; k++) {
      const plane = (group * each + k) * h * w;
      const taps = (c * each + k) * r * s;
      for (let place = 0; place < p * q; place++) {
        const value = x[c * p * q + place];
        if (value === 0) continue;
        for (let i = 0; i < r; i++) {
          const row = pixel(window, 0, Math.floor(place / q), i);
          if (row < 0 || row >= h) continue;
          for (let j = 0; j < s; j++) {
            const column = pixel(window, 1, place % q, j);
            if (column >= 0 && column < w) sums[plane + row * w + column] += value * weight[taps + i * s + j];
          }
        }
      }
    }
  }
  const y = new Float32Array(sums.length);
  for (let i = 0; i < y.length; i++) y[i] = sums[i] + (bias ? bias[Math.floor(i / (h * w))] : 0);
  return y;
}

// y (K, P, Q) of weights (K, C, R, S, P, Q) and biases (K, P, Q): every position has filters of its own.
export function local(x, weight, bias, window, channels, filters) {
  const [h, w] = window.input;
  const [p, q] = window.output;
  const [r, s] = window.kernel;
  const places = p * q;
  const y = new Float32Array(filters * places);
  for (let k = 0; k < filters; k++) {
    for (let place = 0; place < places; place++) {
      let sum = 0;
      for (let c = 0; c < channels; c++) {
        for (let i = 0; i < r; i++) {
          const row = pixel(window, 0, Math.floor(place / q), i);
          if (row < 0 || row >= h) continue;
          for (let j = 0; j < s; j++) {
            const column = pixel(window, 1, place % q, j);
            if (column >= 0 && column < w)
              sum += x[(c * h + row) * w + column] * weight[(((k * channels + c) * r + i) * s + j) * places + place];
          }
        }
      }
      y[k * places + place] = sum + (bias ? bias[k * places + place] : 0);
    }
  }
  return y;
}
