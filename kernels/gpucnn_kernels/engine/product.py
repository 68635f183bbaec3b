"""Launches of the engine: products, prepared once per shape, and the sum of their slices."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, aligned, floats, run, run_each
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.engine.cut import Cut, given
from gpucnn_kernels.engine.loop import tile_kernel
from gpucnn_kernels.engine.tiles import BIAS, MASK, NOTHING, SUMS, Operand, Store, Tile


def _adder(count: int) -> Any:
    """The device function that adds `count` numbers, each `step` behind the last, to a value: all are read before the first is added."""

    @device(forceinline=True)
    def read(j, partial, first, step, values):
        values[j] = partial[uint32(first + uint32(j) * step)]

    @device(forceinline=True)
    def add(j, values, total):
        total[0] += values[j]

    read_all, add_all = unrolled(read, count), unrolled(add, count)

    @device(forceinline=True)
    def added(partial, first, step, value):
        values, total = cuda.local.array(count, float32), cuda.local.array(1, float32)
        total[0] = value
        read_all(0, partial, first, step, values)
        add_all(0, values, total)
        return total[0]

    return added


_add_16, _add_8, _add_4, _add_2 = _adder(16), _adder(8), _adder(4), _adder(2)


@kernel(max_registers=32)  # waiting for memory, it wants as many threads as a multiprocessor has; on Turing 16 addresses would take 53
def sum_slices_kernel(partial, extra, total, slices, extra_role, relu):
    """total[i] = Σ over slices of partial[slice, i], first to last, then `extra` in its role, then ReLU. Sums of rows lie behind all
    slices of the results, and are added up to extra[i] by the threads past the last result.

    A thread waits for memory once for up to 16 slices, and for `extra` at the same time."""
    i = uint32(cuda.grid(1))
    size, more = uint32(total.size), uint32(0)
    if extra_role == SUMS:
        more = uint32(extra.size)
    if i >= uint32(size + more):
        return
    shift, mask = float32(0), float32(1)
    if extra_role == BIAS:
        shift = extra[uint32(i % uint32(extra.size))]
    elif extra_role == MASK:
        mask = extra[i]
    is_result = i < size
    first = i if is_result else uint32(slices * size + uint32(i - size))
    step = size if is_result else more
    value = float32(0)
    left = uint32(slices)
    while left >= uint32(16):
        value = _add_16(partial, first, step, value)
        first = uint32(first + uint32(16) * step)
        left = uint32(left - uint32(16))
    if left & uint32(8):
        value = _add_8(partial, first, step, value)
        first = uint32(first + uint32(8) * step)
    if left & uint32(4):
        value = _add_4(partial, first, step, value)
        first = uint32(first + uint32(4) * step)
    if left & uint32(2):
        value = _add_2(partial, first, step, value)
        first = uint32(first + uint32(2) * step)
    if left & uint32(1):
        value += partial[first]
    value += shift
    if relu and value <= float32(0):  # NaN stays NaN
        value = float32(0)
    if not mask > float32(0):
        value = float32(0)
    if is_result:
        total[i] = value
    else:
        extra[uint32(i - size)] = value


def sum_slices(partial: Array, extra: Array | None, total: Array, slices: int, extra_role: int, relu: bool, stream: Stream) -> None:
    """Adds up `slices` results that follow one another in `partial`, all flat, and the sums of rows behind them if `extra` is for those."""
    threads = total.shape[0] + (extra.shape[0] if extra is not None and extra_role == SUMS else 0)
    numbers = np.uint32(slices), np.uint32(extra_role), np.uint32(relu)
    run_each(sum_slices_kernel, threads, stream, partial, total if extra is None else extra, total, *numbers)


class Last(NamedTuple):
    """The last step before a sum of products is written: an array, its role, and whether there is a ReLU."""

    extra: Array | None
    role: int
    relu: bool = False


@dataclass(frozen=True)
class Product:
    """A product ready to be launched: everything but the arrays. It is prepared once per shape and kept, because preparing takes longer
    than launching. With several slices, c holds `batches` = slices · groups results, to be added up."""

    kernel: Any
    blocks: int
    threads: int
    batches: int
    slices: int
    arguments: tuple[Any, ...]
    shared: int = 0

    def run(self, a: Array, b: Array, extra: Array, c: Array, stream: Stream) -> None:
        """Launches it on flat arrays. `extra` may be any float32 array if it is unused."""
        run(self.kernel, self.blocks, self.threads, stream, a, b, extra, c, *self.arguments, shared=self.shared)

    def run_whole(self, arrays: tuple[Array, Array, Array], last: Last, workspace: Array | None, stream: Stream) -> None:
        """Launches it on a, b, c, then the sum of its slices if there are several: they lie in the workspace, and `last` is applied to
        that sum."""
        (a, b, c), (extra, extra_role, relu) = arrays, last
        if self.slices == 1:
            self.run(a, b, a if extra is None else extra, c, stream)
            return
        results = self.slices * c.shape[0]
        if extra is not None and extra_role == SUMS:
            space = room(workspace, results + self.slices * extra.shape[0])
            self.run(a, b, space[results:], space[:results], stream)
        else:
            space = room(workspace, results)
            self.run(a, b, a, space, stream)
        sum_slices(space, extra, c, self.slices, extra_role, relu, stream)


def in_slices(tile: Any, sizes: tuple[int, int, int], slices: int) -> tuple[int, int, int, int, int]:
    """A sum cut into `slices`, or into fewer if some would be empty: the blocks of BK terms of all of it and of a slice, the slices, and
    the tiles along M and N. `sizes` are M, N and the depth."""
    M, N, depth = sizes
    blocks = -(-depth // tile.BK)
    slice_blocks = max(1, -(-blocks // slices))
    return blocks, slice_blocks, max(1, -(-blocks // slice_blocks)), -(-M // tile.BM), -(-N // tile.BN)


def product(
    tile: Tile,
    a: tuple[Operand, Any],
    b: tuple[Operand, Any],
    c: tuple[Store, Any],
    sizes: tuple[int, int, int],
    epilogue: tuple[bool, int, bool] = (False, NOTHING, False),
    *,
    groups: int = 1,
    slices: int = 1,
    cut: Cut | None = None,
    scratch: tuple[int, int] = (0, 0),
    past_registers: bool = False,
) -> Product:
    """The product of two operands, each with its arguments; `sizes` are M, N and the depth of one group, `epilogue` whether four results
    may be written at once, what `extra` is for, and whether there is a ReLU. The sum is cut into `slices`, or into fewer
    if some would be empty. Or only that of some tiles, as `cut` says: their counters and sums are in b, from the elements `scratch` on.
    `past_registers`: as for the kernel."""
    M, N, _ = sizes
    blocks, slice_blocks, slices, tiles_m, tiles_n = in_slices(tile, sizes, slices)
    numbers = tuple(np.uint32(number) for number in (M, N, slice_blocks, blocks, groups, tiles_m, tiles_n))
    more, grid, way = given(cut, numbers, tiles_m * tiles_n * groups * slices, scratch)
    return Product(
        tile_kernel(tile, a[0], b[0], c[0], way, past_registers),
        grid,
        tile.threads,
        groups * slices,
        slices,
        (more, tuple(np.uint32(flag) for flag in epilogue), a[1], b[1], c[1]),
    )


def room(workspace: Array | None, size: int) -> Array:
    """The first `size` elements of the workspace, flat. Raises ValueError where there are fewer, and for a misaligned one."""
    if workspace is None:
        raise ValueError(f"there is no workspace, and one of {size} elements is needed")
    workspace = floats(workspace, "workspace")
    if workspace.shape[0] < size:
        raise ValueError(f"the workspace has {workspace.shape[0]} elements, and {size} are needed")
    if not aligned(workspace):
        raise ValueError("the workspace must begin at a multiple of 16 bytes")
    return workspace[:size]
