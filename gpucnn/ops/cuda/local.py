"""Convolution without weight sharing: x (N, C, H, W), weight (K, C, R, S, P, Q), bias (K, P, Q), y and dy (N, K, P, Q)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn.ops.shapes import Window
from gpucnn_kernels.choose import problems, select

__all__ = ["locally_connected2d", "locally_connected2d_input_grad", "locally_connected2d_weight_grad"]


def locally_connected2d(
    x: Array, weight: Array, bias: Array | None, window: Window, *, relu: bool = False, out: Array | None = None
) -> Array:
    """y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s, p, q] · x[n, c, p·stride + r·dilation − padding, …], plus bias, then ReLU."""
    y = empty(x, (x.shape[0], weight.shape[0], *window.output)) if out is None else out
    choice = select.choose(problems.locally_connected2d(*x.shape[:2], weight.shape[0], window))
    choice.launch(x, weight, bias, y, window, relu, stream(x))
    return y


def locally_connected2d_input_grad(
    dy: Array, weight: Array, window: Window, *, relu: Array | None = None, out: Array | None = None
) -> Array:
    """dx (N, C, H, W), given dy. relu: x, if a ReLU produced it; then dx is 0 where x is not positive."""
    dx = empty(dy, (dy.shape[0], weight.shape[1], *window.input)) if out is None else out
    choice = select.choose(problems.locally_connected2d_input_grad(dy.shape[0], weight.shape[1], dy.shape[1], window))
    choice.launch(dy, weight, dx, window, stream(dy), relu=relu)
    return dx


def locally_connected2d_weight_grad(dy: Array, x: Array, window: Window, *, out: Array | None = None, dbias: Array | None = None) -> Array:
    """dweight (K, C, R, S, P, Q), given dy. Writes the sums of dy over the batch to `dbias`, if given."""
    dweight = empty(dy, (dy.shape[1], x.shape[1], *window.kernel, *window.output)) if out is None else out
    choice = select.choose(problems.locally_connected2d_weight_grad(*x.shape[:2], dy.shape[1], window))
    choice.launch(dy, x, dweight, window, stream(dy), dbias=dbias)
    return dweight
