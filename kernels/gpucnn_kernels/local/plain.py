"""Convolution without sharing, the plain way: every position has filters of its own.

x (N, C, H, W), weight (K, C, R, S, P, Q), bias (K, P, Q), y and dy (N, K, P, Q):

    y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s, p, q] · x[n, c, h, w],   h = p·stride_h − top + r·dilation_h, and likewise w

There are P·Q times as many weights as in a convolution, and each is used once per image. So reading them is the cost: positions are their
innermost axes, so that neighbouring threads read neighbouring weights, and a thread uses every weight that it reads for four images. The
gradient of a weight is a sum over the images alone, by one thread each; no sum is shared, so results are bit-identical every time.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import split
from gpucnn_kernels.core.launch import Array, Stream, Window, floats, geometry, run_each
from gpucnn_kernels.core.variant import Variant

IMAGES = 4  # that a thread takes


@device
def finished(total, bias, at, has_bias, relu):
    """A sum with its bias and ReLU."""
    if has_bias:
        total += bias[at]
    if relu and total <= float32(0):  # NaN stays NaN
        total = float32(0)
    return total


@kernel
def locally_connected2d_kernel(x, weight, bias, y, N, C, K, window, has_bias, relu):
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    i = uint32(cuda.grid(1))
    rest, q = split(i, Q)
    rest, p = split(rest, P)
    four, k = split(rest, K)
    n = int32(four * IMAGES)
    if n >= N:
        return
    first_h, first_w = int32(p * stride_h - top), int32(q * stride_w - left)
    image = uint32(C * H * W)
    place = uint32(p * Q + q)
    t0, t1, t2, t3 = float32(0), float32(0), float32(0), float32(0)
    for c in range(C):
        for r in range(R):
            h = int32(first_h + r * dilation_h)
            if h >= 0 and h < H:
                for s in range(S):
                    w = int32(first_w + s * dilation_w)
                    if w >= 0 and w < W:
                        factor = weight[uint32(uint32(((k * C + c) * R + r) * S + s) * uint32(P * Q) + place)]
                        at = uint32(((n * C + c) * H + h) * W + w)
                        t0 += factor * x[at]
                        if n + 1 < N:
                            t1 += factor * x[uint32(at + image)]
                        if n + 2 < N:
                            t2 += factor * x[uint32(at + uint32(2) * image)]
                        if n + 3 < N:
                            t3 += factor * x[uint32(at + uint32(3) * image)]
    own = uint32(k * uint32(P * Q) + place)
    step = uint32(K * P * Q)
    at = uint32(uint32(n) * step + own)
    y[at] = finished(t0, bias, own, has_bias, relu)
    if n + 1 < N:
        y[uint32(at + step)] = finished(t1, bias, own, has_bias, relu)
    if n + 2 < N:
        y[uint32(at + uint32(2) * step)] = finished(t2, bias, own, has_bias, relu)
    if n + 3 < N:
        y[uint32(at + uint32(3) * step)] = finished(t3, bias, own, has_bias, relu)


@kernel
def locally_connected2d_input_grad_kernel(dy, weight, mask, dx, N, C, K, window, masked):
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    i = uint32(cuda.grid(1))
    rest, w = split(i, W)
    rest, h = split(rest, H)
    four, c = split(rest, C)
    n = int32(four * IMAGES)
    if n >= N:
        return
    step = uint32(K * P * Q)
    t0, t1, t2, t3 = float32(0), float32(0), float32(0), float32(0)
    for r in range(R):
        row = int32(h + top - r * dilation_h)
        p = int32(row // stride_h)
        if row >= 0 and p * stride_h == row and p < P:
            for s in range(S):
                column = int32(w + left - s * dilation_w)
                q = int32(column // stride_w)
                if column >= 0 and q * stride_w == column and q < Q:
                    place = uint32(p * Q + q)
                    for k in range(K):
                        factor = weight[uint32(uint32(((k * C + c) * R + r) * S + s) * uint32(P * Q) + place)]
                        at = uint32(uint32(uint32(n) * step) + uint32(uint32(k * P * Q) + place))
                        t0 += factor * dy[at]
                        if n + 1 < N:
                            t1 += factor * dy[uint32(at + step)]
                        if n + 2 < N:
                            t2 += factor * dy[uint32(at + uint32(2) * step)]
                        if n + 3 < N:
                            t3 += factor * dy[uint32(at + uint32(3) * step)]
    image = uint32(C * H * W)
    at = uint32(((n * C + c) * H + h) * W + w)
    for j in range(IMAGES):
        if n + j < N:
            total = t0 if j == 0 else t1 if j == 1 else t2 if j == 2 else t3
            own = uint32(at + uint32(j) * image)
            if masked and not mask[own] > float32(0):
                total = float32(0)
            dx[own] = total


@kernel
def locally_connected2d_weight_grad_kernel(dy, x, dweight, N, C, K, window):
    H, W, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, P, Q = window
    i = uint32(cuda.grid(1))
    if i >= dweight.size:
        return
    rest, q = split(i, Q)
    rest, p = split(rest, P)
    rest, s = split(rest, S)
    rest, r = split(rest, R)
    k, c = split(rest, C)
    h, w = int32(p * stride_h - top + r * dilation_h), int32(q * stride_w - left + s * dilation_w)
    total = float32(0)
    if h >= 0 and h < H and w >= 0 and w < W:
        at, from_x = uint32((k * P + p) * Q + q), uint32((c * H + h) * W + w)
        for _ in range(N):
            total += dy[at] * x[from_x]
            at = uint32(at + uint32(K * P * Q))
            from_x = uint32(from_x + uint32(C * H * W))
    dweight[i] = total


@kernel
def batch_sum_kernel(dy, dbias, N):
    i = uint32(cuda.grid(1))
    if i >= dbias.size:
        return
    total, at = float32(0), i
    for _ in range(N):
        total += dy[at]
        at = uint32(at + uint32(dbias.size))
    dbias[i] = total


def locally_connected2d(
    x: Array, weight: Array, bias: Array | None, y: Array, window: Window, relu: bool = False, stream: Stream = 0
) -> None:
    """Writes y (N, K, P, Q), plus bias (K, P, Q) unless it is None, then ReLU where `relu`."""
    (n, c), k = x.shape[:2], weight.shape[0]
    run_each(
        locally_connected2d_kernel,
        -(-n // IMAGES) * k * window.output[0] * window.output[1],
        stream,
        floats(x, "x", (n, c, *window.input)),
        floats(weight, "weight", (k, c, *window.kernel, *window.output)),
        floats(weight, "weight") if bias is None else floats(bias, "bias", (k, *window.output)),  # never read without a bias
        floats(y, "y", (n, k, *window.output)),
        *map(np.int32, (n, c, k)),
        geometry(window),
        np.int32(bias is not None),
        np.int32(relu),
    )


def locally_connected2d_input_grad(
    dy: Array, weight: Array, dx: Array, window: Window, stream: Stream = 0, *, relu: Array | None = None
) -> None:
    """Writes the gradient with respect to x to dx (N, C, H, W). `relu`: x, if a ReLU produced it; then dx is 0 where x is not positive."""
    (n, k), c = dy.shape[:2], weight.shape[1]
    run_each(
        locally_connected2d_input_grad_kernel,
        -(-n // IMAGES) * c * window.input[0] * window.input[1],
        stream,
        floats(dy, "dy", (n, k, *window.output)),
        floats(weight, "weight", (k, c, *window.kernel, *window.output)),
        floats(dy, "dy") if relu is None else floats(relu, "relu", (n, c, *window.input)),  # never read without
        floats(dx, "dx", (n, c, *window.input)),
        *map(np.int32, (n, c, k)),
        geometry(window),
        np.int32(relu is not None),
    )


def locally_connected2d_weight_grad(
    dy: Array, x: Array, dweight: Array, window: Window, stream: Stream = 0, *, dbias: Array | None = None
) -> None:
    """Writes the gradient with respect to weight to dweight (K, C, R, S, P, Q), and to bias to dbias (K, P, Q) unless it is None."""
    (n, k), c = dy.shape[:2], x.shape[1]
    gradient = floats(dy, "dy", (n, k, *window.output))
    target = floats(dweight, "dweight", (k, c, *window.kernel, *window.output))
    pixels = floats(x, "x", (n, c, *window.input))
    run_each(
        locally_connected2d_weight_grad_kernel,
        int(target.size),
        stream,
        gradient,
        pixels,
        target,
        *map(np.int32, (n, c, k)),
        geometry(window),
    )
    if dbias is not None:
        sums = floats(dbias, "dbias", (k, *window.output))
        run_each(batch_sum_kernel, int(sums.size), stream, gradient, sums, np.int32(n))


FORWARD = Variant("plain", locally_connected2d)
INPUT_GRAD = Variant("plain", locally_connected2d_input_grad)
WEIGHT_GRAD = Variant("plain", locally_connected2d_weight_grad)
