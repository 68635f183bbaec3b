"""The gradient of a bias: for each channel the sum of its gradients. A block adds up one channel."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import split
from gpucnn_kernels.core.launch import Array, Stream, floats, images, run
from gpucnn_kernels.core.reduce import BLOCK_LANES, tree_sum


@kernel
def bias_grad_kernel(dy, dbias, N, plane, image):
    sums = cuda.shared.array(BLOCK_LANES, float32)
    k = uint32(cuda.blockIdx.x)
    lane = int32(cuda.threadIdx.x)
    total = float32(0)
    for position in range(lane, int32(N * plane), int32(BLOCK_LANES)):
        n, pixel = split(uint32(position), plane)
        total += dy[uint32(n * image + k * plane + pixel)]
    sums[lane] = total
    tree_sum(sums, lane, BLOCK_LANES)
    if lane == 0:
        dbias[k] = sums[0]


def bias_grad(dy: Array, dbias: Array, stream: Stream = 0) -> None:
    """Writes the sums of dy (N, K) or (N, K, P, Q) over everything but channels to dbias (K). The images of dy may lie apart."""
    n, k = dy.shape[:2]
    plane = 1
    for side in dy.shape[2:]:
        plane *= int(side)
    gradients, step = images(dy, "dy", tuple(dy.shape))
    sizes = np.int32(n), np.int32(plane), np.int32(step or k * plane)
    run(bias_grad_kernel, k, BLOCK_LANES, stream, gradients, floats(dbias, "dbias", (k,)), *sizes)
