"""How sums are written that lie in a thread's registers as tensor cores leave them (hopper.py, instructions.py)."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import float32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.engine.loop import finish, kept
from gpucnn_kernels.engine.tiles import BIAS, MASK, Store


@functools.cache
def writer(store: Store, count: int, product_step: int = 8, column_step: int = 1) -> Any:
    """A function that writes `count` sums of a thread, from sums[first] on, with what comes after the sum (engine/tiles.py). The steps are
    those between columns, from one product to the next and from the first of a thread's two to the second."""
    column_offset = store.column_offset

    @device(lines=False, forceinline=True)
    def write(number, first, c, c_args, sizes, epilogue, group, row, row_at, below, below_at, first_column, extra, sums):
        """The sum of that number: columns by twos, in the thread's first row and in the eighth below."""
        M, N, _, _, _, _ = sizes
        extra_role, relu = epilogue
        column = uint32(first_column + uint32(number // 4 * product_step + number % 2 * column_step))
        own, at = (below, below_at) if number % 4 >= 2 else (row, row_at)
        if own < M and column < N:
            offset = uint32(at + column_offset(c_args, M, N, group, column))
            value, shift = sums[first + number], float32(0)
            if extra_role == BIAS:
                shift = extra[uint32(group * N + column)]
            if extra_role == MASK:
                value = kept(value, extra[offset])
            c[offset] = finish(value, shift, relu)

    return unrolled(write, count)
