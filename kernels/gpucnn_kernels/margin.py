"""Hinge loss and the root of the mean squared error, with gradients and the number of right answers as in loss.py: a warp takes a row."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, run_each
from gpucnn_kernels.core.reduce import LANES, beats
from gpucnn_kernels.loss import by_rows, finish_row, mean_squared_error


@kernel
def hinge_kernel(y, targets, dy, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    indices = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)
    loss = float32(0)
    largest, index = float32(-math.inf), int32(K)
    largest_target, target_index = float32(-math.inf), int32(K)
    for k in range(lane, K, int32(LANES)):
        value, target = y[uint32(first + k)], targets[uint32(first + k)]
        missing = float32(1) - target * value
        gradient = -target * scale
        if missing <= float32(0):  # NaN stays NaN
            missing = float32(0)
            gradient = float32(0)
        loss += missing
        dy[uint32(first + k)] = gradient
        if beats(value, k, largest, index):
            largest = value
            index = int32(k)
        if beats(target, k, largest_target, target_index):
            largest_target = target
            target_index = int32(k)
    finish_row(lanes, indices, row, lane, loss, largest, index, largest_target, target_index, float32(0), K, row_loss, row_correct)


@kernel
def root_kernel(mean, root, dy):
    i = uint32(cuda.grid(1))
    if i >= dy.size:
        return
    size = float32(math.sqrt(mean[0]))
    if i == uint32(0):
        root[0] = size
    if size == float32(0):
        dy[i] = float32(0)  # the root has no derivative at 0: 0 is used
    else:  # NaN as well, as on a CPU
        dy[i] /= float32(2) * size


def hinge(
    y: Array, targets: Array, dy: Array, loss: Array, correct: Array, row_loss: Array, row_correct: Array, stream: Stream = 0
) -> None:
    """Writes the mean of max(0, 1 − t·y) to loss and −t / size, where that is not 0, to dy, for y and targets t of −1 and 1, (N, K).

    loss (1, float32) and correct (1, int32) are written, row_loss (N, float32) and row_correct (N, int32) are scratch.
    """
    n, k = y.shape
    by_rows(
        hinge_kernel,
        (floats(y, "y"), floats(targets, "targets", (n, k))),
        floats(dy, "dy", (n, k)),
        (loss, correct, row_loss, row_correct),
        (n, k),
        (1 / (n * k), 1 / (n * k)),
        stream,
    )


def root_mean_squared_error(
    y: Array, targets: Array, dy: Array, loss: Array, correct: Array, row_loss: Array, row_correct: Array, stream: Stream = 0
) -> None:
    """Writes √mean (y − t)² to loss and (y − t) / (size · loss) to dy, 0 where loss is, for y and targets t (N, K).

    loss (1, float32) and correct (1, int32) are written, row_loss (N + 1, float32) and row_correct (N, int32) are scratch.
    """
    n, k = y.shape
    mean = floats(row_loss, "row_loss", (n + 1,))[n:]
    mean_squared_error(y, targets, dy, mean, correct, row_loss[:n], row_correct, stream)
    run_each(root_kernel, n * k, stream, mean, floats(loss, "loss", (1,)), floats(dy, "dy", (n, k)))
