// Colours for numbers: blue below zero, the paper's colour at zero, orange above. People who see colours differently tell these apart, and
// brightness alone tells how far from zero a number is.

const SCALES = {
  light: { minus: ["#12456f", "#3f83b8", "#a9cbe4"], zero: "#f6f4ef", plus: ["#f7c793", "#dd7a28", "#8f3306"] },
  dark: { minus: ["#d3eaff", "#5fa9e0", "#214a6d"], zero: "#1b1f27", plus: ["#6e3a12", "#e28a35", "#ffe3bd"] },
};
const STEPS = 255; // on each side of zero
let table = null;

const channels = text => [1, 3, 5].map(at => parseInt(text.slice(at, at + 2), 16));

// Whether the page is dark now.
const isDark = () => getComputedStyle(document.documentElement).colorScheme.includes("dark");

// To be called where light and dark have changed.
export function forgetColours() {
  table = null;
}

// Pixels (as a little-endian word, alpha first) for −STEPS … STEPS.
export function colours() {
  if (table) return table;
  const scale = SCALES[isDark() ? "dark" : "light"];
  const stops = [...scale.minus, scale.zero, ...scale.plus].map(channels);
  table = Uint32Array.from({ length: 2 * STEPS + 1 }, (_, i) => {
    const at = (i / (2 * STEPS)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const [r, g, b] = stops[low].map((value, c) => Math.round(value + (stops[low + 1][c] - value) * (at - low)));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
  return table;
}

const NOT_A_NUMBER = 0xffd633e0; // a violet that no number has

// The pixel for a number; `most` is the number that has the strongest colour.
export function pixelFor(value, most, words = colours()) {
  if (Number.isNaN(value)) return NOT_A_NUMBER;
  const part = most > 0 ? value / most : 0;
  return words[STEPS + Math.round(Math.max(-1, Math.min(1, part)) * STEPS)];
}

export function css(value, most) {
  const word = pixelFor(value, most);
  return `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
}

// Black or white, whichever can be read on the colour of a number.
export function inkOn(value, most) {
  const word = pixelFor(value, most);
  const bright = 0.299 * (word & 255) + 0.587 * ((word >> 8) & 255) + 0.114 * ((word >> 16) & 255);
  return bright > 140 ? "#14161a" : "#ffffff";
}

// The largest distance from zero, of all numbers that are some.
export function reach(values, start = 0, end = values.length) {
  let most = 0;
  for (let i = start; i < end; i++) {
    const size = Math.abs(values[i]);
    if (size > most && size < Infinity) most = size;
  }
  return most;
}

// A map of height × width numbers, a pixel each: the style sheet makes it larger.
export function paintMap(canvas, values, start, height, width, most) {
  const image = imageOf(canvas, width, height);
  const words = colours();
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = pixelFor(values[start + i], most, words);
  contextOf(canvas).putImageData(image, 0, 0);
}

// An image (C, H, W) of numbers within 0 … 1, in its own colours; of other than three channels the first, or the mean, in grey.
export function paintImage(canvas, values, [depth, height, width], most = 1) {
  const image = imageOf(canvas, width, height);
  const size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round((values[(depth === 3 ? c * size : 0) + i] / most) * 255);
    image.data[4 * i + 3] = 255;
  }
  contextOf(canvas).putImageData(image, 0, 0);
}

const SMALL = 64; // pixels: of larger maps a mosaic shows every second one, or fewer

// The first of so many maps side by side in one canvas, with a line of paper between them.
export function paintMosaic(canvas, values, [, tall, broad], order, most) {
  const step = Math.ceil(Math.max(tall, broad) / SMALL);
  const [height, width] = [Math.ceil(tall / step), Math.ceil(broad / step)];
  const side = Math.ceil(Math.sqrt(order.length));
  const rows = Math.ceil(order.length / side);
  const gap = width > 8 ? 2 : 1;
  const across = side * width + (side - 1) * gap;
  const image = imageOf(canvas, across, rows * height + (rows - 1) * gap);
  const words = colours();
  const pixels = new Uint32Array(image.data.buffer);
  order.forEach((map, n) => {
    const corner = Math.floor(n / side) * (height + gap) * across + (n % side) * (width + gap);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++)
        pixels[corner + i * across + j] = pixelFor(values[(map * tall + i * step) * broad + j * step], most, words);
    }
  });
  contextOf(canvas).putImageData(image, 0, 0);
}

// Pixels are written, and never drawn by a graphics card: the browser keeps them where they are.
const contextOf = canvas => canvas.getContext("2d", { willReadFrequently: true });

function imageOf(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return new ImageData(width, height);
}

// A canvas as large as it is shown, in the screen's own pixels; returns [context, width, height] in those of the style sheet.
export function sharp(canvas, width, height) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return [context, width, height];
}

export const colourOf = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
