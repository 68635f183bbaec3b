"""Losses, each with its gradient and the number of right answers, without the host's having to wait.

A warp takes a row (an image's answers): it writes the row's gradient, its share of the loss and how many of its answers are right. A
second kernel, one block, adds up the rows, always in the same order, and leaves one number each. So a loss is two launches and needs two
scratch arrays of a number per row.

Rows are added in float32. Each of 128 lanes adds every 128th row, and the lanes are added as a tree: a sum of N numbers is N/128 + 7
additions deep, whose rounding is of no account beside the noise of a batch.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels._numba import cuda, float32, int32, kernel, uint32
from gpucnn_kernels.activations import logistic
from gpucnn_kernels.launch import Array, Stream, floats, ints, run
from gpucnn_kernels.reduce import BLOCK_LANES, LANES, beats, tree_argmax, tree_sum


@kernel
def class_cross_entropy_kernel(logits, labels, dlogits, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    places = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)
    label = labels[row]

    largest = float32(-math.inf)
    place = int32(K)
    for k in range(lane, K, int32(LANES)):
        if beats(logits[uint32(first + k)], k, largest, place):
            largest = logits[uint32(first + k)]
            place = int32(k)
    lanes[lane] = largest
    places[lane] = place
    tree_argmax(lanes, places, lane, LANES)
    largest = lanes[0]
    cuda.syncthreads()

    total = float32(0)
    for k in range(lane, K, int32(LANES)):
        value = float32(math.exp(logits[uint32(first + k)] - largest))
        dlogits[uint32(first + k)] = value
        total += value
    lanes[lane] = total
    tree_sum(lanes, lane, LANES)
    total = lanes[0]

    for k in range(lane, K, int32(LANES)):
        gradient = dlogits[uint32(first + k)] / total
        if k == label:
            gradient -= float32(1)
        dlogits[uint32(first + k)] = gradient * scale
    if lane == 0:
        loss = float32(math.nan)  # a label out of range is the caller's to refuse; read nothing that is not there
        if label >= 0 and label < K:
            loss = float32(math.log(total)) - (logits[uint32(first + label)] - largest)
        row_loss[row] = loss
        row_correct[row] = int32(places[0] == label)


@kernel
def row_cross_entropy_kernel(logits, labels, dlogits, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    places = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)

    largest = float32(-math.inf)
    place = int32(K)
    for k in range(lane, K, int32(LANES)):
        if beats(labels[uint32(first + k)], k, largest, place):
            largest = labels[uint32(first + k)]
            place = int32(k)
    lanes[lane] = largest
    places[lane] = place
    tree_argmax(lanes, places, lane, LANES)
    answer = places[0]
    cuda.syncthreads()

    largest = float32(-math.inf)
    place = int32(K)
    for k in range(lane, K, int32(LANES)):
        if beats(logits[uint32(first + k)], k, largest, place):
            largest = logits[uint32(first + k)]
            place = int32(k)
    lanes[lane] = largest
    places[lane] = place
    tree_argmax(lanes, places, lane, LANES)
    largest = lanes[0]
    cuda.syncthreads()

    total = float32(0)
    weight = float32(0)  # rows of probabilities sum to one up to rounding; the exact gradient has their sum
    for k in range(lane, K, int32(LANES)):
        value = float32(math.exp(logits[uint32(first + k)] - largest))
        dlogits[uint32(first + k)] = value
        total += value
        weight += labels[uint32(first + k)]
    lanes[lane] = total
    tree_sum(lanes, lane, LANES)
    total = lanes[0]
    cuda.syncthreads()
    lanes[lane] = weight
    tree_sum(lanes, lane, LANES)
    weight = lanes[0]
    cuda.syncthreads()

    loss = float32(0)
    logarithm = float32(math.log(total))
    for k in range(lane, K, int32(LANES)):
        label = labels[uint32(first + k)]
        loss += label * (logarithm - (logits[uint32(first + k)] - largest))
        dlogits[uint32(first + k)] = (dlogits[uint32(first + k)] / total * weight - label) * scale
    lanes[lane] = loss
    tree_sum(lanes, lane, LANES)
    if lane == 0:
        row_loss[row] = lanes[0]
        row_correct[row] = int32(places[0] == answer)


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
        loss += positive - z * target + float32(math.log1p(math.exp(-abs(z))))
        if (z > float32(0)) == (target > float32(0.5)):
            correct = int32(correct + 1)
        dlogits[i] = (logistic(z) - target) * scale
    lanes[lane] = loss
    counts[lane] = correct
    tree_sum(lanes, lane, LANES)
    tree_sum(counts, lane, LANES)
    if lane == 0:
        row_loss[row] = lanes[0]
        row_correct[row] = counts[0]


@kernel
def mean_squared_error_kernel(y, targets, dy, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    places = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)
    loss = float32(0)
    largest = float32(-math.inf)
    place = int32(K)
    largest_target = float32(-math.inf)
    target_place = int32(K)
    for k in range(lane, K, int32(LANES)):
        value = y[uint32(first + k)]
        target = targets[uint32(first + k)]
        difference = value - target
        loss += difference * difference
        dy[uint32(first + k)] = difference * scale
        if beats(value, k, largest, place):
            largest = value
            place = int32(k)
        if beats(target, k, largest_target, target_place):
            largest_target = target
            target_place = int32(k)
    lanes[lane] = loss
    tree_sum(lanes, lane, LANES)
    if lane == 0:
        row_loss[row] = lanes[0]
    cuda.syncthreads()
    lanes[lane] = largest
    places[lane] = place
    tree_argmax(lanes, places, lane, LANES)
    largest = lanes[0]
    answer = places[0]
    cuda.syncthreads()
    lanes[lane] = largest_target
    places[lane] = target_place
    tree_argmax(lanes, places, lane, LANES)
    if lane == 0:
        correct = int32(answer == places[0])
        if K == 1:
            correct = int32((largest > float32(0.5)) == (lanes[0] > float32(0.5)))
        row_correct[row] = correct


@kernel
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


def softmax_cross_entropy(
    logits: Array,
    labels: Array,
    dlogits: Array,
    loss: Array,
    correct: Array,
    row_loss: Array,
    row_correct: Array,
    stream: Stream = 0,
) -> None:
    """Writes the mean over the batch of −Σₖ pₖ·log softmax(logits)ₖ to loss, (softmax·Σₖ pₖ − p) / N to dlogits (N, K).

    labels: int32 class numbers (N), or float32 rows of probabilities p (N, K). loss (1, float32) and correct (1, int32) are written,
    row_loss (N, float32) and row_correct (N, int32) are scratch. A class number out of range makes the loss NaN.
    """
    n, k = logits.shape
    of_classes = len(labels.shape) == 1
    _by_rows(
        class_cross_entropy_kernel if of_classes else row_cross_entropy_kernel,
        (floats(logits, "logits"), ints(labels, "labels", (n,)) if of_classes else floats(labels, "labels", (n, k))),
        floats(dlogits, "dlogits", (n, k)),
        (loss, correct, row_loss, row_correct),
        (n, k),
        1 / n,
        1 / n,
        stream,
    )


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
    _by_rows(
        binary_cross_entropy_kernel,
        (floats(logits, "logits"), floats(targets, "targets", (n, k))),
        floats(dlogits, "dlogits", (n, k)),
        (loss, correct, row_loss, row_correct),
        (n, k),
        1 / (n * k),
        1 / (n * k),
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
    _by_rows(
        mean_squared_error_kernel,
        (floats(y, "y"), floats(targets, "targets", (n, k))),
        floats(dy, "dy", (n, k)),
        (loss, correct, row_loss, row_correct),
        (n, k),
        2 / (n * k),
        1 / (n * k),
        stream,
    )


def _by_rows(
    kernel: Array,
    inputs: tuple[Array, Array],
    gradient: Array,
    results: tuple[Array, Array, Array, Array],
    sizes: tuple[int, int],
    gradient_scale: float,
    loss_scale: float,
    stream: Stream,
) -> None:
    """The two launches of a loss; `results` are loss, correct, row_loss, row_correct."""
    n, k = sizes
    loss, correct = floats(results[0], "loss", (1,)), ints(results[1], "correct", (1,))
    row_loss, row_correct = floats(results[2], "row_loss", (n,)), ints(results[3], "row_correct", (n,))
    run(kernel, n, LANES, stream, *inputs, gradient, row_loss, row_correct, np.int32(k), np.float32(gradient_scale))
    run(add_rows_kernel, 1, BLOCK_LANES, stream, row_loss, row_correct, loss, correct, np.float32(loss_scale))
