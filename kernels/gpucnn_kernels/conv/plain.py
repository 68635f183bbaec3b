"""Convolution the plain way: each thread computes one number of the result independently.

x (N, C, H, W), weight (K, C/groups, R, S), bias (K), y and dy (N, K, P, Q); the kernel is not flipped, as in every deep-learning
library:

    y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s] · x[n, c, h, w],   h = p·stride_h − top + r·dilation_h, and likewise w

The gradients are the same sum seen from its other two factors:

    dx[n, c, h, w]      = Σ over k, r, s of weight[k, c, r, s] · dy[n, k, p, q]     for the p, q that read pixel h, w by tap r, s
    dweight[k, c, r, s] = Σ over n, p, q of dy[n, k, p, q] · x[n, c, h, w]

dx gathers: each pixel asks which outputs have read it. To scatter instead, each output adding to the pixels that it has read, would need
atomic additions, whose order, and so whose rounding, changes from run to run. dweight consists of few numbers, which are long sums, so a
warp shares each one: every lane adds up a 32nd of the terms, then the lanes' sums are added in a tree (reduce.py).

A GPU runs the kernel's body once per thread. Threads are numbered through the whole grid (`cuda.grid(1)`), a thread splits the number
of its element into n, k, p, q, and threads past the last element return. Neighbouring threads have neighbouring q, so
that they read neighbouring pixels, which the hardware fetches together. y and dy may be a part of larger images: there are then `skipped`
elements between an image's last and the next one's first, or `image` from the beginning of one to that of the next.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import split
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, geometry, images, run, run_each
from gpucnn_kernels.core.reduce import LANES, tree_sum
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.bias import bias_grad

# Sizes reach the kernels as int32, because Python ints would travel as 64 bits. Numba widens every sum and product of them to 64 bits;
# the int32() and uint32() around index arithmetic let the compiler keep to 32. An unsigned index also spares the test for x[-1].


@kernel(role="product")
def conv2d_kernel(x, weight, bias, y, sizes, window, skipped, has_bias, relu):
    N, C, K, groups = sizes
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    i = uint32(cuda.grid(1))
    rest, q = split(i, Q)
    rest, p = split(rest, P)
    n, k = split(rest, K)
    if n >= N:
        return
    at = uint32(i + n * skipped)
    group_c = int32(C // groups)
    first_c = int32(k // uint32(K // groups)) * group_c
    first_h = int32(p * stride_h - top)
    first_w = int32(q * stride_w - left)
    total = float32(0)
    for c in range(group_c):
        for r in range(R):
            h = int32(first_h + r * dilation_h)
            if h >= 0 and h < H:
                for s in range(S):
                    w = int32(first_w + s * dilation_w)
                    if w >= 0 and w < W:
                        pixel = x[uint32(((n * C + first_c + c) * H + h) * W + w)]
                        total += weight[uint32(((k * group_c + c) * R + r) * S + s)] * pixel
    if has_bias:
        total += bias[k]
    if relu and total <= float32(0):  # NaN stays NaN
        total = float32(0)
    y[at] = total


@kernel(role="product")
def conv2d_input_grad_kernel(dy, weight, mask, dx, sizes, window, image, masked):
    C, K, groups = sizes
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    i = uint32(cuda.grid(1))
    if i >= dx.size:
        return
    if masked and not mask[i] > float32(0):
        dx[i] = float32(0)
        return
    rest, w = split(i, W)
    rest, h = split(rest, H)
    n, c = split(rest, C)
    group_c = int32(C // groups)
    group_k = int32(K // groups)
    first_k = int32(c // uint32(group_c)) * group_k
    own_c = int32(c % uint32(group_c))
    total = float32(0)
    for r in range(R):
        # Tap r of output p reads row h where p·stride_h = h + top − r·dilation_h.
        row = int32(h + top - r * dilation_h)
        p = int32(row // stride_h)
        if row >= 0 and p * stride_h == row and p < P:
            for s in range(S):
                column = int32(w + left - s * dilation_w)
                q = int32(column // stride_w)
                if column >= 0 and q * stride_w == column and q < Q:
                    for k in range(first_k, first_k + group_k):
                        gradient = dy[uint32(n * image + (k * P + p) * Q + q)]
                        total += weight[uint32(((k * group_c + own_c) * R + r) * S + s)] * gradient
    dx[i] = total


@kernel(role="product")
def conv2d_weight_grad_kernel(dy, x, dweight, sizes, window, image):
    N, C, K, groups = sizes
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    sums = cuda.shared.array(LANES, float32)
    i = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    rest, s = split(i, S)
    rest, r = split(rest, R)
    group_c = int32(C // groups)
    k, own_c = split(rest, group_c)
    c = uint32(int32(k // uint32(K // groups)) * group_c + own_c)
    offset_h = int32(r * dilation_h - top)
    offset_w = int32(s * dilation_w - left)
    total = float32(0)
    for position in range(lane, int32(N * P * Q), int32(LANES)):
        rest, q = split(uint32(position), Q)
        n, p = split(rest, P)
        h = int32(p * stride_h + offset_h)
        w = int32(q * stride_w + offset_w)
        if h >= 0 and h < H and w >= 0 and w < W:
            total += dy[uint32(n * image + (k * P + p) * Q + q)] * x[uint32(((n * C + c) * H + h) * W + w)]
    sums[lane] = total
    tree_sum(sums, lane, LANES)
    if lane == 0:
        dweight[i] = sums[0]


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    window: Window,
    groups: int = 1,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
) -> None:
    """Writes the convolution of x with weight to y (N, K, P, Q), plus bias (K) unless it is None, then ReLU where `relu`.

    Variants that say so (`parts`) write to y, and read dy, where it is a part of larger images. `workspace` is for variants that need one;
    so is `slices` of the gradient of the weight.
    """
    (n, c), k = x.shape[:2], weight.shape[0]
    own = k * window.output[0] * window.output[1]
    target, step = images(y, "y", (n, k, *window.output))
    run_each(
        conv2d_kernel,
        n * own,
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", weight_shape(k, c, window, groups)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k,)),  # never read without a bias: keeps one signature
        target,
        _forward_sizes(n, c, k, groups),
        geometry(window),
        np.uint32(step - own if step else 0),
        np.int32(bias is not None),
        np.int32(relu),
    )


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
) -> None:
    """Writes the gradient of `conv2d` with respect to x to dx (N, C, H, W). `relu`: x, where it is ReLU's output; then dx is the gradient
    of ReLU's input, 0 where x is not positive."""
    (n, k), c = dy.shape[:2], weight.shape[1] * groups
    gradients, step = images(dy, "dy", (n, k, *window.output))
    run_each(
        conv2d_input_grad_kernel,
        n * c * window.input[0] * window.input[1],
        stream,
        gradients,
        floats(weight, "weight", weight_shape(k, c, window, groups)),
        gradients if relu is None else floats(relu, "relu", (n, c, *window.input)),  # never read without: keeps one signature
        floats(dx, "dx", (n, c, *window.input)),
        _sizes(c, k, groups),
        geometry(window),
        np.int32(step or k * window.output[0] * window.output[1]),
        np.int32(relu is not None),
    )


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
) -> None:
    """Writes the gradient of `conv2d` with respect to weight to dweight (K, C/groups, R, S), and with respect to bias to dbias (K) unless
    it is None."""
    (n, k), c = dy.shape[:2], x.shape[1]
    shape = weight_shape(k, c, window, groups)
    gradients, step = images(dy, "dy", (n, k, *window.output))
    run(
        conv2d_weight_grad_kernel,
        shape[0] * shape[1] * shape[2] * shape[3],
        LANES,
        stream,
        gradients,
        floats(x, "x", (n, c, *window.input)),
        floats(dweight, "dweight", shape),
        _sizes(n, c, k, groups),
        geometry(window),
        np.int32(step or k * window.output[0] * window.output[1]),
    )
    if dbias is not None:
        bias_grad(dy, dbias, stream)


@functools.lru_cache(maxsize=256)
def _sizes(*numbers: int) -> tuple[np.int32, ...]:
    return tuple(map(np.int32, numbers))


@functools.lru_cache(maxsize=256)
def _forward_sizes(n: int, c: int, k: int, groups: int) -> tuple[Any, ...]:
    return np.uint32(n), *_sizes(c, k, groups)


def weight_shape(k: int, c: int, window: Window, groups: int) -> tuple[int, int, int, int]:
    if groups < 1 or c % groups or k % groups:
        raise ValueError(f"groups must divide the channels: {c} input channels, {k} output channels, groups {groups}")
    return k, c // groups, *window.kernel


FORWARD = Variant("plain", conv2d, parts=True)
INPUT_GRAD = Variant("plain", conv2d_input_grad, parts=True)
WEIGHT_GRAD = Variant("plain", conv2d_weight_grad, parts=True)
