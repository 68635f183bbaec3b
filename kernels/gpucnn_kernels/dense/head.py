"""A network's last dense layer with softmax and cross-entropy, in one launch: x (N, C), weight (K, C), K ≤ 32, labels are class numbers.

As two kernels, the second, a single block, takes twice as long as the first and spends that time waiting: for its launch, for the logits,
for one exponential after the other. Here the block that has computed a row's logits (rows.py) goes on with them, with a thread for each
class; values of the row that all threads need are computed by each of them at the same time. It writes the row's gradient, its loss and
whether the answer was right. tally.py adds these up over the batch, and nothing in the backward pass waits for that.

While its weights are in the cache, the block goes on to the gradient of the row's inputs, with which the rest of the backward pass begins.
The gradient of the weight, over all rows, is left to a launch that runs beside that.

Every sum is in the same order as in a kernel for each of the three, so the results are bit-identical.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import THREADS, Array, Stream, aligned, floats, ints, run
from gpucnn_kernels.core.reduce import beats
from gpucnn_kernels.dense.rows import input_gradients, row_outputs


@functools.cache
def kernel_of(K: int, wide: bool) -> Any:
    """The kernel: (x, weight, bias, labels, dy, row_loss, row_correct, dx, (C, has_bias, gradients, masked), scale). `wide`: rows of x,
    weight and dx begin at multiples of 16 bytes. gradients: whether dx is written; masked: whether x is the result of a ReLU whose
    gradient it includes."""
    (outputs, room), write = row_outputs(K, wide), input_gradients(K, wide)
    width = 4 if wide else 1

    @kernel(launch_bounds=THREADS)
    def dense_narrow_cross_entropy(x, weight, bias, labels, dy, row_loss, row_correct, dx, sizes, scale):
        C, has_bias, gradients, masked = sizes
        logits, exponentials = cuda.shared.array(K, float32), cuda.shared.array(K, float32)
        tile = cuda.shared.array(room, float32)
        own = outputs(x, weight, bias, C, has_bias, tile)
        thread, row = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        if thread < uint32(K):
            logits[thread] = own
        cuda.syncthreads()
        largest, index = float32(-math.inf), int32(K)
        for k in range(K):
            if beats(logits[k], int32(k), largest, index):
                largest, index = logits[k], int32(k)
        value = float32(0)
        if thread < uint32(K):
            value = float32(math.exp(own - largest))
            exponentials[thread] = value
        cuda.syncthreads()
        if thread < uint32(K):
            total = float32(0)
            for k in range(K):
                total += exponentials[k]
            label = labels[row]
            gradient = value / total
            if int32(thread) == label:
                gradient -= float32(1)
            dy[uint32(row * uint32(K) + thread)] = tile[thread] = gradient * scale
            if thread == uint32(0):
                chosen = float32(math.nan)  # callers reject labels out of range; here nothing out of bounds may be read
                if label >= int32(0) and label < int32(K):
                    chosen = logits[label]
                row_loss[row] = float32(math.log(total)) - (chosen - largest)
                row_correct[row] = int32(index == label and largest == largest)  # NaN is not a right answer
        if gradients:
            cuda.syncthreads()
            column = uint32(thread * uint32(width))
            while column < C:
                write(tile, uint32(0), weight, x, dx, uint32(uint32(row * C) + column), column, C, masked)
                column = uint32(column + uint32(THREADS * width))

    return dense_narrow_cross_entropy


def dense_cross_entropy(
    x: Array,
    weight: Array,
    bias: Array | None,
    labels: Array,
    dy: Array,
    row_loss: Array,
    row_correct: Array,
    stream: Stream = 0,
    *,
    dx: Array | None = None,
    relu: bool = False,
) -> None:
    """Writes −log softmax(x·weightᵀ + bias) at the label to row_loss (N), whether that is the largest to row_correct (N, int32), and the
    gradient of the mean over the rows to dy (N, K), and to dx (N, C), if given: times 0 where x is not positive if `relu`. A class number
    out of range makes the row's loss NaN."""
    (n, c), k = x.shape, weight.shape[0]
    flat = floats(x, "x", (n, c)), floats(weight, "weight", (k, c))
    shift = flat[0] if bias is None else floats(bias, "bias", (k,))
    results = floats(dy, "dy", (n, k)), floats(row_loss, "row_loss", (n,)), ints(row_correct, "row_correct", (n,))
    target = flat[0] if dx is None else floats(dx, "dx", (n, c))
    sizes = np.uint32(c), np.uint32(bias is not None), np.uint32(dx is not None), np.uint32(relu)
    wide = c % 4 == 0 and all(map(aligned, (*flat, target)))
    run(kernel_of(k, wide), n, THREADS, stream, *flat, shift, ints(labels, "labels", (n,)), *results, target, sizes, np.float32(1 / n))
