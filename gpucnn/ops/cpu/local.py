"""Convolution without weight sharing: x (N, C, H, W), weight (K, C, R, S, P, Q), bias (K, P, Q), y and dy (N, K, P, Q)."""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._taps import taps
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.cpu.activations import relu_grad
from gpucnn.ops.shapes import Window

__all__ = ["locally_connected2d", "locally_connected2d_input_grad", "locally_connected2d_weight_grad"]

# At each position there is a product of the images' pixels under the window, (N, C), and the filters', (K, C), for every tap: a batch of
# products, as matmul has them, with the positions first.


def locally_connected2d(
    x: Array, weight: Array, bias: Array | None, window: Window, *, relu: bool = False, out: Array | None = None
) -> Array:
    """y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s, p, q] · x[n, c, p·stride + r·dilation − padding, …], plus bias, then ReLU."""
    y = np.empty((x.shape[0], weight.shape[0], *window.output), x.dtype) if out is None else out
    y[...] = 0 if bias is None else bias
    for tap in taps(window):
        pixels = x[:, :, *tap.pixels].transpose(2, 3, 0, 1)
        filters = weight[:, :, tap.r, tap.s, *tap.into].transpose(2, 3, 1, 0)
        y[:, :, *tap.into] += np.matmul(np.ascontiguousarray(pixels), filters).transpose(2, 3, 0, 1)
    return np.maximum(y, 0, out=y) if relu else y


def locally_connected2d_input_grad(
    dy: Array, weight: Array, window: Window, *, relu: Array | None = None, out: Array | None = None
) -> Array:
    """dx (N, C, H, W), given dy. relu: x, if a ReLU produced it; then dx is 0 where x is not positive."""
    dx = np.empty((dy.shape[0], weight.shape[1], *window.input), dy.dtype) if out is None else out
    dx[...] = 0
    for tap in taps(window):
        gradients = dy[:, :, *tap.into].transpose(2, 3, 0, 1)
        filters = weight[:, :, tap.r, tap.s, *tap.into].transpose(2, 3, 0, 1)
        dx[:, :, *tap.pixels] += np.matmul(np.ascontiguousarray(gradients), filters).transpose(2, 3, 0, 1)
    return dx if relu is None else relu_grad(dx, relu, out=dx)


def locally_connected2d_weight_grad(dy: Array, x: Array, window: Window, *, out: Array | None = None, dbias: Array | None = None) -> Array:
    """dweight (K, C, R, S, P, Q), given dy. Writes the sums of dy over the batch to `dbias`, if given."""
    dweight = np.empty((dy.shape[1], x.shape[1], *window.kernel, *window.output), dy.dtype) if out is None else out
    dweight[...] = 0
    for tap in taps(window):
        gradients = dy[:, :, *tap.into].transpose(2, 3, 1, 0)
        pixels = x[:, :, *tap.pixels].transpose(2, 3, 0, 1)
        found = np.matmul(np.ascontiguousarray(gradients), np.ascontiguousarray(pixels))
        dweight[:, :, tap.r, tap.s, *tap.into] = found.transpose(2, 3, 0, 1)
    if dbias is not None:
        np.add.reduce(dy, axis=0, out=dbias)
    return dweight
