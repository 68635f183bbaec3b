// What is drawn, as the network gets it. Planes are rows of numbers, 0 … 255.

// A part of a plane, brought to another size: each pixel is the mean of what lies under it, by area.
export function shrink(values, width, part, wide, high) {
  const found = new Float64Array(wide * high);
  const across = part.width / wide;
  const down = part.height / high;
  const columns = Array.from({ length: wide }, (_, i) =>
    shares(part.left + i * across, part.left + (i + 1) * across, part.left + part.width),
  );
  for (let row = 0; row < high; row++) {
    const rows = shares(part.top + row * down, part.top + (row + 1) * down, part.top + part.height);
    for (let column = 0; column < wide; column++) {
      let sum = 0;
      for (const [x, share] of columns[column]) {
        for (const [y, other] of rows) sum += values[y * width + x] * share * other;
      }
      found[row * wide + column] = sum / (across * down);
    }
  }
  return found;
}

// Whole pixels between two places, and how much of each lies between them.
function shares(from, to, end) {
  const found = [];
  for (let at = Math.floor(from); at < Math.min(Math.ceil(to), end); at++) found.push([at, Math.min(at + 1, to) - Math.max(at, from)]);
  return found;
}

// The smallest box around all that is brighter than `least`; null where nothing is.
function boxOf(values, width, least = 24) {
  const box = { left: width, right: -1, top: Infinity, bottom: -1 };
  for (let i = 0; i < values.length; i++) {
    if (values[i] <= least) continue;
    const x = i % width;
    const y = (i - x) / width;
    box.left = Math.min(box.left, x);
    box.right = Math.max(box.right, x);
    box.top = Math.min(box.top, y);
    box.bottom = y;
  }
  return box.right < 0 ? null : { left: box.left, top: box.top, width: box.right - box.left + 1, height: box.bottom - box.top + 1 };
}

// Ink, light on dark, as the makers of a set of digits brought theirs to its size: scaled, its shape kept, until it fits a box of
// rule.box pixels, then put with its centre of mass, or its box, into the middle. Bytes; nothing but zeros where nothing is drawn.
export function prepared(values, width, rule, wide, high) {
  const found = new Uint8Array(wide * high);
  const box = boxOf(values, width);
  if (!box) return found;
  const scale = rule.box / Math.max(box.width, box.height);
  const w = Math.max(1, Math.round(box.width * scale));
  const h = Math.max(1, Math.round(box.height * scale));
  const small = shrink(values, width, box, w, h);
  const corner = rule.by === "mass" ? byMass(small, w, wide, high) : [Math.floor((wide - w) / 2), Math.floor((high - h) / 2)];
  small.forEach((value, i) => {
    const x = corner[0] + (i % w);
    const y = corner[1] + Math.floor(i / w);
    if (x >= 0 && x < wide && y >= 0 && y < high) found[y * wide + x] = Math.round(value);
  });
  return found;
}

// The corner that puts the centre of mass on the pixel right of and below the middle, which is where MNIST's are.
function byMass(values, w, wide, high) {
  let mass = 0,
    x = 0,
    y = 0;
  values.forEach((value, i) => {
    mass += value;
    x += value * (i % w);
    y += value * Math.floor(i / w);
  });
  return [Math.round(wide / 2 - x / mass), Math.round(high / 2 - y / mass)];
}

// The plane of a photograph of something drawn, as ink, light on dark: what is like its edge is paper, and becomes 0; what differs most
// becomes 255.
export function asInk(values, width) {
  const edge = [];
  const height = values.length / width;
  for (let x = 0; x < width; x++) edge.push(values[x], values[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) edge.push(values[y * width], values[y * width + width - 1]);
  edge.sort((a, b) => a - b);
  const paper = edge[edge.length >> 1];
  const ink = values.map(value => (paper > 127 ? paper - value : value - paper));
  const most = ink.reduce((a, b) => Math.max(a, b), 0);
  if (most < 20) return ink.fill(0);
  return ink.map(value => Math.max(0, Math.min(255, ((value / most - 0.2) / 0.6) * 255)));
}

// Bytes (C, H, W) as the numbers that a network is given: 0 … 1.
export const scaled = bytes => Float32Array.from(bytes, value => value / 255);
