"""A kernel that does nothing but FMAs, to measure how many a chip really does in a second, beside its data sheet."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, run

THREADS = 256
CHAINS = 8  # independent FMAs of a thread: an FMA takes four cycles, and each scheduler issues one in every cycle
REPEATS = 16  # FMAs of each chain per turn of the loop, so that counting the turns costs next to nothing


@kernel
def fma_kernel(out, turns, factor):
    i = uint32(cuda.grid(1))
    a = float32(i)
    b, c, d = float32(a + factor), float32(a - factor), float32(a * factor)
    e, f, g, h = float32(b + factor), float32(c - factor), float32(d + factor), float32(d - factor)
    for _ in range(turns):
        for _ in range(REPEATS):
            a = a * factor + factor
            b = b * factor + factor
            c = c * factor + factor
            d = d * factor + factor
            e = e * factor + factor
            f = f * factor + factor
            g = g * factor + factor
            h = h * factor + factor
    if i < out.size:
        out[i] = a + b + c + d + e + f + g + h


def fma(out: Array, blocks: int, turns: int, stream: Stream = 0) -> None:
    """`fma_flops(blocks, turns)` floating-point operations, whose results go to out, one per thread as far as there is room."""
    run(fma_kernel, blocks, THREADS, stream, floats(out, "out"), np.int32(turns), np.float32(0.5))


def fma_flops(blocks: int, turns: int) -> int:
    """The FLOPs of `fma`: an FMA is two."""
    return 2 * blocks * THREADS * CHAINS * REPEATS * turns
