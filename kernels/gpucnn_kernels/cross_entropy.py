"""Softmax and cross-entropy in one, with the gradient and the number of right answers: a warp takes a row, as in loss.py.

A small batch, 128 rows of 10 classes, is 10 KB to move and a microsecond of work, less than a launch takes. So for small batches one block
does everything, in one launch. A thread takes a row by itself, which needs no barrier. But the threads of a warp would then read numbers
that are a row apart; so the block first copies the rows to shared memory, neighbouring threads copying neighbouring numbers, and later the
gradient back. In shared memory rows are an odd number of words apart, so that 32 threads use 32 banks. The threads' sums are added in a
tree, as in loss.py.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, ints, run
from gpucnn_kernels.core.reduce import LANES, beats, is_nan, tree_argmax, tree_sum
from gpucnn_kernels.loss import by_rows

ONE_BLOCK_CLASSES = 32  # at most: more are too much work for one thread
ONE_BLOCK_LOGITS = 1 << 14  # at most: more are too much work for one block
ONE_BLOCK_THREADS = 512
_TILE = 8192  # floats of shared memory: 32 KB
_BATCH = 8  # loads that a thread issues before it waits for the first


@functools.cache
def one_block(of_classes: bool) -> Any:
    """The kernel of softmax and cross-entropy by one block: (logits, labels, dlogits, loss, correct, N, K, rows, scale), `rows` at a time.

    `of_classes`: labels are class numbers, otherwise rows of probabilities. One kernel does for blocks of up to ONE_BLOCK_THREADS.
    """

    @device(forceinline=True)
    def to_tile(array, first, count, tile, offset, K, pitch, thread):
        threads = uint32(cuda.blockDim.x)
        values = cuda.local.array(_BATCH, float32)
        e = thread
        while e < count:
            for i in range(_BATCH):
                values[i] = array[uint32(first + min(uint32(e + uint32(uint32(i) * threads)), uint32(count - uint32(1))))]
            for i in range(_BATCH):
                own = uint32(e + uint32(uint32(i) * threads))
                row = uint32(own // K)
                if own < count:
                    tile[uint32(offset + row * pitch + (own - row * K))] = values[i]
            e = uint32(e + uint32(uint32(_BATCH) * threads))

    @device(forceinline=True)
    def from_tile(tile, array, first, count, K, pitch, thread):
        e = thread
        while e < count:
            row = uint32(e // K)
            array[uint32(first + e)] = tile[uint32(row * pitch + (e - row * K))]
            e = uint32(e + uint32(cuda.blockDim.x))

    @device(forceinline=True)
    def largest_of(tile, at, K):
        """The largest of a row and its index, in the order of `beats`; −1 for that of NaN."""
        largest = float32(-math.inf)
        index = int32(K)
        for k in range(int32(K)):
            value = tile[uint32(at + uint32(k))]
            if beats(value, int32(k), largest, index):
                largest = value
                index = int32(k)
        if is_nan(largest):  # not a right answer
            index = int32(-1)
        return largest, index

    @device(forceinline=True)
    def class_row(tile, at, label, K, scale):
        """Loss of a row and its largest logit's index. The row's gradient is written over its logits."""
        largest, index = largest_of(tile, at, K)
        chosen = float32(math.nan)  # callers reject labels out of range; here nothing out of bounds may be read
        if label >= int32(0) and label < int32(K):
            chosen = tile[uint32(at + uint32(label))]
        total = float32(0)
        for k in range(int32(K)):
            value = float32(math.exp(tile[uint32(at + uint32(k))] - largest))
            tile[uint32(at + uint32(k))] = value
            total += value
        for k in range(int32(K)):
            gradient = tile[uint32(at + uint32(k))] / total
            if k == label:
                gradient -= float32(1)
            tile[uint32(at + uint32(k))] = gradient * scale
        return float32(math.log(total)) - (chosen - largest), index

    @device(forceinline=True)
    def probability_row(tile, at, labels_at, K, scale):
        largest, index = largest_of(tile, at, K)
        total = float32(0)
        weight = float32(0)
        for k in range(int32(K)):
            total += float32(math.exp(tile[uint32(at + uint32(k))] - largest))
            weight += tile[uint32(labels_at + uint32(k))]
        logarithm = float32(math.log(total))
        loss = float32(0)
        for k in range(int32(K)):
            shifted = tile[uint32(at + uint32(k))] - largest
            label = tile[uint32(labels_at + uint32(k))]
            if label != float32(0):  # 0·log 0 is 0
                loss += label * (logarithm - shifted)
            tile[uint32(at + uint32(k))] = (float32(math.exp(shifted)) / total * weight - label) * scale
        return loss, index

    @kernel(launch_bounds=ONE_BLOCK_THREADS)
    def softmax_cross_entropy_in_one_block(logits, labels, dlogits, loss, correct, N, K, rows, scale):
        tile = cuda.shared.array(_TILE, float32)
        losses = cuda.shared.array(ONE_BLOCK_THREADS, float32)
        counts = cuda.shared.array(ONE_BLOCK_THREADS, int32)
        thread = uint32(cuda.threadIdx.x)
        pitch = uint32(K | uint32(1))
        at = uint32(thread * pitch)
        total = float32(0)
        count = int32(0)
        first = uint32(0)
        while first < N:
            here = uint32(min(rows, uint32(N - first)))
            start = uint32(first * K)
            size = uint32(here * K)
            # A thread writes to the places of the tile that it read for the last rows' gradient: no barrier is needed between.
            to_tile(logits, start, size, tile, uint32(0), K, pitch, thread)
            if not of_classes:
                to_tile(labels, start, size, tile, uint32(_TILE // 2), K, pitch, thread)
            cuda.syncthreads()
            if thread < here:
                if of_classes:
                    answer = labels[uint32(first + thread)]
                    row_loss, index = class_row(tile, at, answer, K, scale)
                else:
                    _, answer = largest_of(tile, uint32(uint32(_TILE // 2) + at), K)
                    row_loss, index = probability_row(tile, at, uint32(uint32(_TILE // 2) + at), K, scale)
                total += row_loss
                if index == answer:
                    count = int32(count + 1)
            cuda.syncthreads()
            from_tile(tile, dlogits, start, size, K, pitch, thread)
            first = uint32(first + rows)
        losses[thread] = total
        counts[thread] = count
        threads = int32(cuda.blockDim.x)
        tree_sum(losses, thread, threads)
        tree_sum(counts, thread, threads)
        if thread == uint32(0):
            loss[0] = losses[0] * scale
            correct[0] = counts[0]

    return softmax_cross_entropy_in_one_block


@device(forceinline=True)
def largest_of_row(array, first, K, lanes, indices, lane):
    """The largest of the K numbers from `first` on and its index, in the order of `beats`, by a warp. The index stays in indices[0], and
    `lanes` may be written again."""
    largest = float32(-math.inf)
    index = int32(K)
    for k in range(lane, K, int32(LANES)):
        if beats(array[uint32(first + k)], k, largest, index):
            largest = array[uint32(first + k)]
            index = int32(k)
    lanes[lane] = largest
    indices[lane] = index
    tree_argmax(lanes, indices, lane, LANES)
    largest = lanes[0]
    index = indices[0]
    cuda.syncthreads()
    return largest, index


@kernel
def class_cross_entropy_kernel(logits, labels, dlogits, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    indices = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)
    label = labels[row]

    largest, _ = largest_of_row(logits, first, K, lanes, indices, lane)

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
        loss = float32(math.nan)  # callers reject labels out of range; here nothing out of bounds may be read
        if label >= 0 and label < K:
            loss = float32(math.log(total)) - (logits[uint32(first + label)] - largest)
        row_loss[row] = loss
        row_correct[row] = int32(indices[0] == label and largest == largest)  # NaN is not a right answer


@kernel
def row_cross_entropy_kernel(logits, labels, dlogits, row_loss, row_correct, K, scale):
    lanes = cuda.shared.array(LANES, float32)
    indices = cuda.shared.array(LANES, int32)
    row = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    first = uint32(row * K)

    _, answer = largest_of_row(labels, first, K, lanes, indices, lane)
    largest, guess = largest_of_row(logits, first, K, lanes, indices, lane)

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
        if label != float32(0):  # 0·log 0 is 0
            loss += label * (logarithm - (logits[uint32(first + k)] - largest))
        dlogits[uint32(first + k)] = (dlogits[uint32(first + k)] / total * weight - label) * scale
    lanes[lane] = loss
    tree_sum(lanes, lane, LANES)
    if lane == 0:
        row_loss[row] = lanes[0]
        row_correct[row] = int32(guess == answer and largest == largest)


def rows_cross_entropy(logits: Array, labels: Array, dlogits: Array, row_loss: Array, row_correct: Array, stream: Stream = 0) -> None:
    """Writes (softmax(logits) − p) / N to dlogits (N, K), with p 1 at the label, and each row's loss and whether its answer is right to
    row_loss (N) and row_correct (N, int32). labels: int32 class numbers (N)."""
    n, k = logits.shape
    inputs = floats(logits, "logits"), ints(labels, "labels", (n,)), floats(dlogits, "dlogits", (n, k))
    results = floats(row_loss, "row_loss", (n,)), ints(row_correct, "row_correct", (n,))
    run(class_cross_entropy_kernel, n, LANES, stream, *inputs, *results, np.int32(k), np.float32(1 / n))


def softmax_cross_entropy(
    logits: Array,
    labels: Array,
    dlogits: Array,
    loss: Array,
    correct: Array,
    row_loss: Array,
    row_correct: Array,
    stream: Stream = 0,
    *,
    threads: int | None = None,
) -> None:
    """Writes the mean over the batch of −Σₖ pₖ·log softmax(logits)ₖ to loss, (softmax·Σₖ pₖ − p) / N to dlogits (N, K).

    labels: int32 class numbers (N), or float32 rows of probabilities p (N, K). loss (1, float32) and correct (1, int32) are written,
    row_loss (N, float32) and row_correct (N, int32) are scratch. A class number out of range makes the loss NaN.
    One launch where there are few numbers, otherwise two; `threads` is the first one's block, for tests.
    """
    n, k = logits.shape
    of_classes = len(labels.shape) == 1
    inputs = floats(logits, "logits"), ints(labels, "labels", (n,)) if of_classes else floats(labels, "labels", (n, k))
    gradient = floats(dlogits, "dlogits", (n, k))
    if k > ONE_BLOCK_CLASSES or n * k > ONE_BLOCK_LOGITS:
        kernel = class_cross_entropy_kernel if of_classes else row_cross_entropy_kernel
        by_rows(kernel, inputs, gradient, (loss, correct, row_loss, row_correct), (n, k), (1 / n, 1 / n), stream)
        return
    if threads is None:
        threads = min(max(LANES, 1 << (n - 1).bit_length()), ONE_BLOCK_THREADS)
    results = floats(loss, "loss", (1,)), ints(correct, "correct", (1,))
    floats(row_loss, "row_loss", (n,)), ints(row_correct, "row_correct", (n,))  # the same is refused whatever the sizes
    rows = min(threads, (_TILE if of_classes else _TILE // 2) // (k | 1))
    sizes = np.uint32(n), np.uint32(k), np.uint32(rows), np.float32(1 / n)
    run(one_block(of_classes), 1, threads, stream, *inputs, gradient, *results, *sizes)
