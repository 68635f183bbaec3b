"""Convolution. x (N, C, H, W), weight (K, C/groups, R, S), bias (K), y and dy (N, K, P, Q)."""

from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream, workspace
from gpucnn.ops.shapes import Window
from gpucnn_kernels import conv as kernels
from gpucnn_kernels import implicit_gemm, select


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    *,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s] · x[n, c, p·stride + r·dilation − padding, …], plus bias, then ReLU."""
    y = empty(x, (x.shape[0], weight.shape[0], *window.output)) if out is None else out
    sizes = x.shape[0], x.shape[1], weight.shape[0], window, groups
    tile = select.conv2d(*sizes).tile
    if tile is None:
        kernels.conv2d(x, weight, bias, y, window, groups, relu, stream(x))
    else:
        space = workspace(x, implicit_gemm.conv2d_workspace(*sizes, tile))
        implicit_gemm.conv2d(x, weight, bias, y, space, window, groups, relu, stream(x), tile=tile)
    return y


def conv2d_input_grad(dy: Array, weight: Array, window: Window, groups: int = 1, *, out: Array | None = None) -> Array:
    """dx (N, C, H, W): the gradient of `conv2d` with respect to x, given that of y."""
    dx = empty(dy, (dy.shape[0], weight.shape[1] * groups, *window.input)) if out is None else out
    sizes = dy.shape[0], dx.shape[1], dy.shape[1], window, groups
    tile = select.conv2d_input_grad(*sizes).tile
    if tile is None:
        kernels.conv2d_input_grad(dy, weight, dx, window, groups, stream(dy))
    else:
        space = workspace(dy, implicit_gemm.conv2d_input_grad_workspace(*sizes, tile))
        implicit_gemm.conv2d_input_grad(dy, weight, dx, space, window, groups, stream(dy), tile=tile)
    return dx


def conv2d_weight_grad(dy: Array, x: Array, window: Window, groups: int = 1, *, out: Array | None = None) -> Array:
    """dweight (K, C/groups, R, S): the gradient of `conv2d` with respect to weight, given that of y."""
    dweight = empty(dy, (dy.shape[1], x.shape[1] // groups, *window.kernel)) if out is None else out
    sizes = dy.shape[0], x.shape[1], dy.shape[1], window, groups
    choice = select.conv2d_weight_grad(*sizes)
    if choice.tile is None:
        kernels.conv2d_weight_grad(dy, x, dweight, window, groups, stream(dy))
    else:
        space = workspace(dy, implicit_gemm.conv2d_weight_grad_workspace(*sizes, choice.tile, choice.slices))
        implicit_gemm.conv2d_weight_grad(dy, x, dweight, space, window, groups, stream(dy), tile=choice.tile, slices=choice.slices)
    return dweight


def bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    """dbias (K): the sum of dy (N, K) or (N, K, P, Q) over everything but channels."""
    dbias = empty(dy, (dy.shape[1],)) if out is None else out
    kernels.bias_grad(dy, dbias, stream(dy))
    return dbias
