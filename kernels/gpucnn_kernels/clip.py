"""Clipping gradients by the norm of all of them together: a sum of squares over many blocks, then a factor where it is needed.

Blocks cannot wait for one another, so these are two launches. In the first, each block leaves the sum of its squares; in the second,
each block adds up these sums, in the same order, and so knows the norm. The number of blocks depends on the size alone, so results are
bit-identical on every chip. The host reads nothing, so a recorded step can clip. Where the norm is small enough nothing is written.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, run
from gpucnn_kernels.core.reduce import tree_sum

_THREADS = 256
_EACH = 8  # numbers a thread takes at least, while there are fewer than _MOST blocks
_MOST = 512  # blocks: four on each processor of an H100


@kernel(launch_bounds=_THREADS)
def squares_kernel(gradients, sums):
    """sums[b]: the squares of every number that block b comes to, added up."""
    values = cuda.shared.array(_THREADS, float32)
    thread = int32(cuda.threadIdx.x)
    total = float32(0)
    for i in range(int32(cuda.grid(1)), int32(gradients.size), int32(cuda.gridsize(1))):
        total += gradients[i] * gradients[i]
    values[thread] = total
    tree_sum(values, thread, _THREADS)
    if thread == int32(0):
        sums[cuda.blockIdx.x] = values[0]


@kernel(launch_bounds=_THREADS)
def scale_kernel(gradients, sums, most):
    """Multiplies every gradient by most / norm, if the norm is above `most`."""
    values = cuda.shared.array(_THREADS, float32)
    thread = int32(cuda.threadIdx.x)
    total = float32(0)
    for block in range(thread, int32(sums.size), int32(_THREADS)):
        total += sums[block]
    values[thread] = total
    tree_sum(values, thread, _THREADS)
    norm = float32(math.sqrt(values[0]))
    if norm > most:  # which NaN is not: it reaches the parameters
        factor = most / norm
        for i in range(int32(cuda.grid(1)), int32(gradients.size), int32(cuda.gridsize(1))):
            gradients[i] *= factor


def blocks(size: int) -> int:
    """The number of blocks, and of their sums, for `size` gradients."""
    return min(-(-size // (_THREADS * _EACH)), _MOST)


def clip_norm(gradients: Array, most: float, sums: Array, stream: Stream = 0) -> None:
    """Multiplies `gradients` (flat) by most / norm where their Euclidean norm is above `most`. sums (blocks(size)) is scratch."""
    flat = floats(gradients, "gradients")
    count = blocks(flat.shape[0])
    parts = floats(sums, "sums", (count,))
    run(squares_kernel, count, _THREADS, stream, flat, parts)
    run(scale_kernel, count, _THREADS, stream, flat, parts, np.float32(most))
