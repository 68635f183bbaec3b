// Filters that image editors know by name, of any size.

const SMALL = {
  sharpen: [
    [0, -1, 0],
    [-1, 5, -1],
    [0, -1, 0],
  ],
  edge: [
    [-1, -1, -1],
    [-1, 8, -1],
    [-1, -1, -1],
  ],
  emboss: [
    [-2, -1, 0],
    [-1, 1, 1],
    [0, 1, 2],
  ],
};
export const PRESETS = ["identity", "blur", "sharpen", "edge", "emboss"];

// A filter of rows × columns as a list of numbers: those of 3 × 3 stand in the middle of larger ones, and lose their rim in smaller ones.
export function preset(name, rows, columns) {
  if (name === "blur") {
    const down = binomial(rows);
    const along = binomial(columns);
    return down.flatMap(a => along.map(b => a * b));
  }
  const found = new Array(rows * columns).fill(0);
  const middle = [(rows - 1) >> 1, (columns - 1) >> 1];
  if (name === "identity") {
    found[middle[0] * columns + middle[1]] = 1;
    return found;
  }
  SMALL[name].forEach((line, i) =>
    line.forEach((value, j) => {
      const row = middle[0] + i - 1;
      const column = middle[1] + j - 1;
      if (row >= 0 && row < rows && column >= 0 && column < columns) found[row * columns + column] = value;
    }),
  );
  return found;
}

// Pascal's row of so many numbers, its sum one: 1/4, 2/4, 1/4.
function binomial(length) {
  let row = [1];
  while (row.length < length) row = [1, ...row.slice(1).map((value, i) => value + row[i]), 1];
  return row.map(value => value / 2 ** (length - 1));
}

// Whether a layer's filters can be changed one by one: not where every place has its own.
export const hasFilters = node => node.op === "conv" || node.op === "transposed";

// Of a layer's filters: how many, how many maps below each has weights for, and their rows and columns.
export function sizesOf(node) {
  const [first, second, rows, columns] = node.weight.shape;
  return node.op === "transposed" ? [node.shape[0], first / node.groups, rows, columns] : [first, second, rows, columns];
}

// Where the weights of filter k for channel c begin: (K, C / groups, R, S), and of a transposed convolution (C, K / groups, R, S).
export function startOf(node, k, c) {
  const [filters, channels, rows, columns] = sizesOf(node);
  const each = filters / node.groups;
  const kernel = node.op === "transposed" ? (Math.floor(k / each) * channels + c) * each + (k % each) : k * channels + c;
  return kernel * rows * columns;
}

// A copy of a layer's weights with filter k, channel c replaced; with `alone` the filter's other channels are 0.
export function replaced(weight, node, k, c, values, alone) {
  const found = weight.slice();
  for (let other = 0; alone && other < sizesOf(node)[1]; other++) {
    const start = startOf(node, k, other);
    found.fill(0, start, start + values.length);
  }
  found.set(values, startOf(node, k, c));
  return found;
}
