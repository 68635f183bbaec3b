// Windows that slide over an image: which pixels each one reads, and how many there are. As gpucnn/ops/shapes.py has them.

// The pixel that tap t reads at position p of an axis; outside of 0 … size − 1 it is padding.
export const pixel = (window, axis, p, t) => p * window.stride[axis] - window.padding[axis][0] + t * window.dilation[axis];

// Rows and columns from the first tap to the last.
export const extent = (window, axis) => window.dilation[axis] * (window.kernel[axis] - 1) + 1;

// [before, after] of one axis: TensorFlow's rule for "same", the odd pixel behind.
function samePadding(size, kernel, stride, dilation) {
  const total = Math.max((Math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0);
  return [Math.floor(total / 2), total - Math.floor(total / 2)];
}

// How many positions a window has on an axis; below one where it does not fit.
const positions = (size, pads, kernel, stride, dilation) =>
  Math.floor((size + pads[0] + pads[1] - dilation * (kernel - 1) - 1) / stride) + 1;

// A convolution's window over images of `input`, with padding "same" or "valid".
export function convWindow(input, kernel, stride, dilation, rule) {
  const padding = [0, 1].map(axis => (rule === "same" ? samePadding(input[axis], kernel[axis], stride[axis], dilation[axis]) : [0, 0]));
  const output = [0, 1].map(axis => positions(input[axis], padding[axis], kernel[axis], stride[axis], dilation[axis]));
  return { input, kernel, stride, padding, dilation, output, same: rule === "same" };
}
