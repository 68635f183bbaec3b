"""Convolution as matrix products over unfolded images (im2col), a few images at a time so that they stay in the cache.

x (N, C, H, W), weight (K, C/groups, R, S), bias (K), y and dy (N, K, P, Q). As in every deep-learning library, the kernel is not
flipped (this is cross-correlation).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gpucnn.ops.cpu._engine import expected
from gpucnn.ops.cpu._taps import covers_all, taps
from gpucnn.ops.cpu._threads import Array, share, workers_for
from gpucnn.ops.cpu.activations import relu_grad
from gpucnn.ops.shapes import Window

__all__ = ["bias_grad", "conv2d", "conv2d_input_grad", "conv2d_weight_grad"]

_UNFOLDED = 1 << 21  # elements of unfolded images that a thread has at once: 8 MB of float32, a core's share of the last-level cache
_LANES = 8  # partial sums of the weight gradient, added in a fixed order whatever the number of threads


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    *,
    relu: bool = False,
    out: Array | None = None,
    bits: int = 24,
) -> Array:
    """y[n, k, p, q] = Σ over c, r, s of weight[k, c, r, s] · x[n, c, p·stride + r·dilation − padding, …], plus bias, then ReLU.

    bits: what factors keep at least of a float32's bits, in the gradients too; on the CPU they always keep all.
    """
    n, c, k = *x.shape[:2], weight.shape[0]
    y = np.empty((n, k, *window.output), x.dtype) if out is None else out
    images = _images_at_a_time(n, c, window)
    matrix = weight.reshape(groups, k // groups, -1)
    column = None if bias is None else bias.reshape(1, k, 1, 1)

    def body(pieces: Iterable[int]) -> None:
        columns = _columns(images, c, window, x.dtype)
        product = np.empty((k, images, *window.output), x.dtype)
        for piece in pieces:
            part = slice(piece * images, min((piece + 1) * images, n))
            count = part.stop - part.start
            unfolded = _unfold(x[part], columns, window)
            rows = product.reshape(-1)[: k * count * window.output[0] * window.output[1]]
            np.matmul(matrix, unfolded.reshape(groups, matrix.shape[2], -1), out=rows.reshape(groups, k // groups, -1))
            result = rows.reshape(k, count, *window.output).swapaxes(0, 1)  # images come first again
            if column is None:
                y[part] = result
            else:
                np.add(result, column, out=y[part])
            if relu:
                np.maximum(y[part], 0, out=y[part])

    share(-(-n // images), body, work=_work(n, k, c, window), blas=True)
    return y


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    window: Window,
    groups: int = 1,
    *,
    relu: Array | None = None,
    out: Array | None = None,
    bits: int = 24,
) -> Array:
    """dx (N, C, H, W): the gradient of `conv2d` with respect to x, given that of y.

    relu: x, if a ReLU produced it. Then dx includes ReLU's gradient: it is 0 where x is not positive.
    """
    n, k = dy.shape[:2]
    c = weight.shape[1] * groups
    dx = np.empty((n, c, *window.input), dy.dtype) if out is None else out
    images = _images_at_a_time(n, c, window)
    matrix = weight.reshape(groups, k // groups, -1).swapaxes(1, 2)

    def body(pieces: Iterable[int]) -> None:
        columns = np.empty(c * window.kernel[0] * window.kernel[1] * images * window.output[0] * window.output[1], dy.dtype)
        for piece in pieces:
            part = slice(piece * images, min((piece + 1) * images, n))
            count = part.stop - part.start
            size = columns.size // images * count
            unfolded = columns[:size].reshape(groups, matrix.shape[1], -1)
            gradient = np.ascontiguousarray(dy[part].swapaxes(0, 1)).reshape(groups, k // groups, -1)
            np.matmul(matrix, gradient, out=unfolded)
            _fold(columns[:size].reshape(c, *window.kernel, count, *window.output), dx[part], window)

    share(-(-n // images), body, work=_work(n, k, c, window), blas=True)
    return dx if relu is None else relu_grad(dx, relu, out=dx)


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    window: Window,
    groups: int = 1,
    *,
    out: Array | None = None,
    dbias: Array | None = None,
    bits: int = 24,
) -> Array:
    """dweight (K, C/groups, R, S): the gradient of `conv2d` with respect to weight, given that of y; writes `bias_grad` to `dbias` if
    given."""
    n, k = dy.shape[:2]
    c = x.shape[1]
    shape = (k, c // groups, *window.kernel)
    images = _images_at_a_time(n, c, window)
    pieces = -(-n // images)
    lanes = min(_LANES, pieces)
    sums = np.empty((lanes, groups, k // groups, c // groups * window.kernel[0] * window.kernel[1]), dy.dtype)

    def body(own: Iterable[int]) -> None:
        columns = _columns(images, c, window, x.dtype)
        term = np.empty(sums.shape[1:], dy.dtype)
        for lane in own:
            for piece in range(lane, pieces, lanes):
                part = slice(piece * images, min((piece + 1) * images, n))
                unfolded = _unfold(x[part], columns, window).reshape(groups, term.shape[2], -1)
                gradient = np.ascontiguousarray(dy[part].swapaxes(0, 1)).reshape(groups, k // groups, -1)
                np.matmul(gradient, unfolded.swapaxes(1, 2), out=sums[lane] if piece == lane else term)
                if piece != lane:
                    sums[lane] += term

    share(lanes, body, work=_work(n, k, c, window), blas=True)
    dweight = np.empty(shape, dy.dtype) if out is None else out
    np.add.reduce(sums, axis=0, out=dweight.reshape(sums.shape[1:]))
    if dbias is not None:
        bias_grad(dy, out=dbias)
    return dweight


def bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    """dbias (K): the sum of dy (N, K) or (N, K, P, Q) over everything but channels."""
    if dy.ndim == 2:
        return np.add.reduce(dy, axis=0, out=out)
    rows = dy.reshape(dy.shape[0], dy.shape[1], -1).sum(axis=2)  # pairwise along each plane, then over the batch
    return np.add.reduce(rows, axis=0, out=out)


def scratch(n: int, k: int, c: int, window: Window, groups: int) -> tuple[int, int]:
    """Elements needed besides inputs and outputs, forward and in the gradients: an upper bound, for the largest number of threads."""
    if expected():
        return _scratch_of_loops(n, k, c, window, groups)
    images = _images_at_a_time(n, c, window)
    pieces = -(-n // images)
    columns = c * window.kernel[0] * window.kernel[1] * images * window.output[0] * window.output[1]
    result = k * images * window.output[0] * window.output[1]
    weight = k * c // groups * window.kernel[0] * window.kernel[1]
    workers = workers_for(pieces, _work(n, k, c, window))
    return workers * (columns + result), workers * (columns + result + weight) + min(_LANES, pieces) * weight


def _scratch_of_loops(n: int, k: int, c: int, window: Window, groups: int) -> tuple[int, int]:
    """Padded images, a band of outputs and transposed gradients for each thread; sums of the weight's gradient for each group of images."""
    image, outputs = window.input[0] * window.input[1], window.output[0] * window.output[1]
    workers = workers_for(n, _work(n, k, c, window))
    ahead = workers * (c // groups * image + k // groups * min(outputs, 240))
    weight = k * c // groups * window.kernel[0] * window.kernel[1]
    return ahead, workers * (c // groups * image + k // groups * outputs) + max(1, min(n // 8, 8)) * weight


def _work(n: int, k: int, c: int, window: Window) -> int:
    """The number of elements touched: those that are unfolded or folded, and an eighth of the multiply-adds."""
    unfolded = n * c * window.kernel[0] * window.kernel[1] * window.output[0] * window.output[1]
    return unfolded * (1 + k // 8)


def _images_at_a_time(n: int, c: int, window: Window) -> int:
    one = c * window.kernel[0] * window.kernel[1] * window.output[0] * window.output[1]
    return max(1, min(n, _UNFOLDED // one, -(-n // _LANES)))


def _columns(images: int, c: int, window: Window, dtype: np.dtype[np.generic]) -> Array:
    """Space for unfolded images, zero where taps fall into the padding, which are the same positions in every image."""
    allocate = np.empty if covers_all(window) else np.zeros
    return allocate((c, *window.kernel, images, *window.output), dtype)


def _unfold(x: Array, columns: Array, window: Window) -> Array:
    """The pixels under each tap: (C, R, S, images, P, Q), one column of C·R·S pixels for each output."""
    if x.shape[0] != columns.shape[3]:  # the last, smaller piece
        columns = _columns(x.shape[0], x.shape[1], window, x.dtype)
    planes = x.swapaxes(0, 1)
    for tap in taps(window):
        columns[:, tap.r, tap.s, :, tap.into[0], tap.into[1]] = planes[:, :, tap.pixels[0], tap.pixels[1]]
    return columns


def _fold(columns: Array, dx: Array, window: Window) -> None:
    """The transpose of `_unfold`: adds each column's values to the pixels that they came from."""
    dx[...] = 0
    planes = dx.swapaxes(0, 1)
    for tap in taps(window):
        planes[:, :, tap.pixels[0], tap.pixels[1]] += columns[:, tap.r, tap.s, :, tap.into[0], tap.into[1]]
