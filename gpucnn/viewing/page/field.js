// The receptive field: what part of the input a value can see at all.
import { place } from "./explain.js";
import { pixel } from "./windows.js";

// For every node that the value at `at` of node `id` depends on, the box of its values that count, {c0, c1, top, bottom, left, right}, ends
// included; by the node's number. Rows of values are boxes of one column each, a value in a row being its c0 … c1.
export function fields(nodes, id, at) {
  const [c, row = 0, column = 0] = place(nodes[id].shape, at);
  const found = new Map([[id, { c0: c, c1: c, top: row, bottom: row, left: column, right: column }]]);
  for (let number = id; number > 0; number--) {
    const box = found.get(number);
    if (!box) continue;
    below(nodes[number], box, nodes).forEach((part, i) => {
      if (!part) return;
      const other = nodes[number].inputs[i];
      found.set(other, joined(found.get(other), part));
    });
  }
  return found;
}

// The boxes in the inputs of a node that a box of its output comes from; null for an input that has no part in it.
function below(node, box, nodes) {
  if (node.activation === "softmax") box = node.shape.length === 1 ? whole(node.shape) : { ...box, left: 0, right: node.shape[2] - 1 };
  const from = node.from;
  switch (node.op) {
    case "conv":
    case "local": {
      const groups = node.op === "local" ? 1 : node.groups;
      const [deep, each] = [from[0] / groups, node.shape[0] / groups];
      return [{ ...slid(node, box), c0: Math.floor(box.c0 / each) * deep, c1: (Math.floor(box.c1 / each) + 1) * deep - 1 }];
    }
    case "max_pool":
    case "avg_pool":
      return [slid(node, box)];
    case "transposed":
      return [{ ...unslid(node, box), c0: 0, c1: from[0] - 1 }];
    case "global_avg":
    case "global_max":
      return [{ ...whole(from), c0: box.c0, c1: box.c1 }];
    case "pad": {
      const [[top], [left]] = node.padding;
      return [clipped({ ...box, top: box.top - top, bottom: box.bottom - top, left: box.left - left, right: box.right - left }, from)];
    }
    case "flatten": {
      if (from.length === 1) return [box];
      const [first, last] = [place(from, box.c0), place(from, box.c1)];
      if (box.c0 === box.c1) return [{ c0: first[0], c1: first[0], top: first[1], bottom: first[1], left: first[2], right: first[2] }];
      return [{ ...whole(from), c0: first[0], c1: last[0] }];
    }
    case "norm":
    case "pass":
    case "add":
      return node.inputs.map(() => box);
    case "concat": {
      let start = 0;
      return node.inputs.map(id => {
        const size = nodes[id].shape[0];
        const part = { ...box, c0: Math.max(box.c0 - start, 0), c1: Math.min(box.c1 - start, size - 1) };
        start += size;
        return part.c0 <= part.c1 ? part : null;
      });
    }
    default: // a dense layer, one of somebody's own
      return [whole(from)];
  }
}

const whole = ([c, h = 1, w = 1]) => ({ c0: 0, c1: c - 1, top: 0, bottom: h - 1, left: 0, right: w - 1 });

function slid(node, box) {
  const { window } = node;
  const found = {
    ...box,
    top: pixel(window, 0, box.top, 0),
    bottom: pixel(window, 0, box.bottom, window.kernel[0] - 1),
    left: pixel(window, 1, box.left, 0),
    right: pixel(window, 1, box.right, window.kernel[1] - 1),
  };
  return clipped(found, node.from);
}

function unslid(node, box) {
  const { window } = node;
  const ends = [
    [box.top, box.bottom],
    [box.left, box.right],
  ].map(([from, to], axis) => {
    const reach = window.dilation[axis] * (window.kernel[axis] - 1);
    const before = window.padding[axis][0];
    return [Math.ceil((from + before - reach) / window.stride[axis]), Math.floor((to + before) / window.stride[axis])];
  });
  return clipped({ ...box, top: ends[0][0], bottom: ends[0][1], left: ends[1][0], right: ends[1][1] }, node.from);
}

function clipped(box, [, h, w]) {
  return {
    ...box,
    top: Math.min(Math.max(box.top, 0), h - 1),
    bottom: Math.min(Math.max(box.bottom, 0), h - 1),
    left: Math.min(Math.max(box.left, 0), w - 1),
    right: Math.min(Math.max(box.right, 0), w - 1),
  };
}

function joined(a, b) {
  if (!a) return b;
  const found = {};
  for (const name of ["c0", "top", "left"]) found[name] = Math.min(a[name], b[name]);
  for (const name of ["c1", "bottom", "right"]) found[name] = Math.max(a[name], b[name]);
  return found;
}
