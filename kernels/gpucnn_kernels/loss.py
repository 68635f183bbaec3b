"""Losses, each with its gradient and the number of right answers; the host does not have to wait.

A warp takes a row (an image's answers): it writes the row's gradient, its share of the loss and how many of its answers are right. A
second kernel, one block, adds up the rows, always in the same order, and leaves one number each. So a loss is two launches and needs two
scratch arrays of a number per row. A warp is a block by itself: an SM has taken its 24 or 32 blocks long before its registers are used up.

Rows are added in float32. Each of 128 lanes adds every 128th row, and the lanes are added in a tree: a sum of N numbers is N/128 + 7
additions deep, and its rounding is negligible beside the noise of a batch.

Softmax and cross-entropy are in cross_entropy.py, hinge loss and the root of the mean squared error in margin.py.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.activations import logistic
from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, ints, run
from gpucnn_kernels.core.reduce import BLOCK_LANES, LANES, beats, tree_argmax, tree_sum


@kernel
def binary_cross_entropy_kernel(logits, targets, dlogits, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    counts = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    loss = float32(0)
    correct = int32(0)
    for k in range(lane, K, int32(LANES)):
        i = uint32(row * K + k)
        z = logits[i]
        target = targets[i]
        positive = float32(0) if z <= float32(0) else z  # NaN stays NaN
        term = positive - z * target + float32(math.log1p(math.exp(-abs(z))))
        if math.isinf(z):  # −t·log 0 is 0 where t is
            term = float32(0) if target == float32(z > float32(0)) else float32(math.inf)
        loss += term
        if z == z and (z > float32(0)) == (target > float32(0.5)):
            correct = int32(correct + 1)
        dlogits[i] = (logistic(z) - target) * scale
    lanes[lane] = loss
    counts[lane] = correct
    tree_sum(lanes, lane, LANES)
    tree_sum(counts, lane, LANES)
    if lane == 0:
        row_loss[row] = lanes[0]
        row_correct[row] = counts[0]


@device(forceinline=True)
def finish_row(lanes, indices, row, lane, loss, value, index, target, target_index, middle, K, row_loss, row_correct):
    """Finishes a warp's row: adds up its threads' loss, and compares the positions of the largest number and the largest target. In a row
    of one number, both have to be on the same side of `middle`."""
    lanes[lane] = loss
    tree_sum(lanes, lane, LANES)
    if lane == 0:
        row_loss[row] = lanes[0]
    cuda.syncthreads()
    lanes[lane] = value
    indices[lane] = index
    tree_argmax(lanes, indices, lane, LANES)
    largest = lanes[0]
    answer = indices[0]
    cuda.syncthreads()
    lanes[lane] = target
    indices[lane] = target_index
    tree_argmax(lanes, indices, lane, LANES)
    if lane == 0:
        right = answer == indices[0]
        if K == 1:
            right = (largest > middle) == (lanes[0] > middle)
        row_correct[row] = int32(right and largest == largest)  # NaN is not a right answer


@kernel
def mean_squared_error_kernel(y, targets, dy, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    indices = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)
    loss = float32(0)
    largest = float32(-math.inf)
    index = int32(K)
    largest_target = float32(-math.inf)
    target_index = int32(K)
    for k in range(lane, K, int32(LANES)):
        value = y[uint32(first + k)]
        target = targets[uint32(first + k)]
        difference = value - target
        loss += difference * difference
        dy[uint32(first + k)] = difference * scale
        if beats(value, k, largest, index):
            largest = value
            index = int32(k)
        if beats(target, k, largest_target, target_index):
            largest_target = target
            target_index = int32(k)
    finish_row(lanes, indices, row, lane, loss, largest, index, largest_target, target_index, float32(0.5), K, row_loss, row_correct)


@kernel(role="adder")
def add_rows_kernel(row_loss, row_correct, loss, correct, scale):
    losses = cuda.shared.array(BLOCK_LANES, float32)
    counts = cuda.shared.array(BLOCK_LANES, int32)
    lane = int32(cuda.threadIdx.x)
    total = float32(0)
    count = int32(0)
    for row in range(lane, int32(row_loss.size), int32(BLOCK_LANES)):
        total += row_loss[uint32(row)]
        count = int32(count + row_correct[uint32(row)])
    losses[lane] = total
    counts[lane] = count
    tree_sum(losses, lane, BLOCK_LANES)
    tree_sum(counts, lane, BLOCK_LANES)
    if lane == 0:
        loss[0] = losses[0] * scale
        correct[0] = counts[0]


def binary_cross_entropy(
    logits: Array,
    targets: Array,
    dlogits: Array,
    loss: Array,
    correct: Array,
    row_loss: Array,
    row_correct: Array,
    stream: Stream = 0,
) -> None:
    """Writes the mean of max(z, 0) − z·t + log(1 + e^−|z|) to loss and (σ(z) − t) / size to dlogits, for logits z and targets t (N, K).

    loss (1, float32) and correct (1, int32) are written, row_loss (N, float32) and row_correct (N, int32) are scratch.
    """
    n, k = logits.shape
    by_rows(
        binary_cross_entropy_kernel,
        (floats(logits, "logits"), floats(targets, "targets", (n, k))),
        floats(dlogits, "dlogits", (n, k)),
        (loss, correct, row_loss, row_correct),
        (n, k),
        (1 / (n * k), 1 / (n * k)),
        stream,
    )


def mean_squared_error(
    y: Array,
    targets: Array,
    dy: Array,
    loss: Array,
    correct: Array,
    row_loss: Array,
    row_correct: Array,
    stream: Stream = 0,
) -> None:
    """Writes the mean of (y − t)² to loss and 2·(y − t) / size to dy, for y and targets t (N, K).

    loss (1, float32) and correct (1, int32) are written, row_loss (N, float32) and row_correct (N, int32) are scratch.
    """
    n, k = y.shape
    by_rows(
        mean_squared_error_kernel,
        (floats(y, "y"), floats(targets, "targets", (n, k))),
        floats(dy, "dy", (n, k)),
        (loss, correct, row_loss, row_correct),
        (n, k),
        (2 / (n * k), 1 / (n * k)),
        stream,
    )


def by_rows(
    kernel: Array,
    inputs: tuple[Array, Array],
    gradient: Array,
    results: tuple[Array, Array, Array, Array],
    sizes: tuple[int, int],
    scales: tuple[float, float],
    stream: Stream,
) -> None:
    """The two launches of a loss; `results` are loss, correct, row_loss, row_correct, `scales` those of the gradient and of the loss."""
    (n, k), (gradient_scale, loss_scale) = sizes, scales
    loss, correct = floats(results[0], "loss", (1,)), ints(results[1], "correct", (1,))
    row_loss, row_correct = floats(results[2], "row_loss", (n,)), ints(results[3], "row_correct", (n,))
    run(kernel, n, LANES, stream, *inputs, gradient, row_loss, row_correct, np.int32(k), np.float32(gradient_scale))
    run(add_rows_kernel, 1, BLOCK_LANES, stream, row_loss, row_correct, loss, correct, np.float32(loss_scale))
