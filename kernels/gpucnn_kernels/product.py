"""Launching the engine: a product made ready once per shape, and the slices of a long sum added up."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels._numba import cuda, float32, kernel, uint32
from gpucnn_kernels.engine import tile_kernel
from gpucnn_kernels.launch import Array, Stream, aligned, floats, run, run_each
from gpucnn_kernels.tiles import Operand, Store, Tile


@kernel
def sum_slices_kernel(partial, bias, total, slices, columns, has_bias, relu):
    """total[i] = Σ over slices of partial[slice, i], first to last, plus the column's bias, then ReLU."""
    i = uint32(cuda.grid(1))
    size = uint32(total.size)
    if i >= size:
        return
    value = float32(0)
    for number in range(slices):
        value += partial[uint32(uint32(number) * size + i)]
    shift = float32(0)
    if has_bias:
        shift = bias[uint32(i % columns)]
    value += shift
    if relu and value <= float32(0):  # NaN stays NaN
        value = float32(0)
    total[i] = value


def sum_slices(partial: Array, bias: Array | None, total: Array, slices: int, relu: bool, stream: Stream) -> None:
    """Adds up `slices` results one after the other in `partial`, all flat; a bias has one number per column."""
    size = total.shape[0]
    columns = np.uint32(1 if bias is None else bias.shape[0])
    numbers = np.uint32(slices), columns, np.uint32(bias is not None), np.uint32(relu)
    run_each(sum_slices_kernel, size, stream, partial, total if bias is None else bias, total, *numbers)


@dataclass(frozen=True)
class Product:
    """A product ready to be launched: everything about it but the arrays. Made once per shape and kept, because making it takes longer
    than launching it. With several slices, c holds `batches` = slices · groups results, to be added up."""

    kernel: Any
    blocks: int
    threads: int
    batches: int
    slices: int
    arguments: tuple[Any, ...]

    def run(self, a: Array, b: Array, bias: Array, c: Array, stream: Stream) -> None:
        """Launches it on flat arrays. `bias` may be any float32 array where the store uses none."""
        run(self.kernel, self.blocks, self.threads, stream, a, b, bias, c, *self.arguments)


def product(
    tile: Tile,
    a: tuple[Operand, Any],
    b: tuple[Operand, Any],
    c: tuple[Store, Any],
    sizes: tuple[int, int, int],
    ends: tuple[bool, bool, bool] = (False, False, False),
    groups: int = 1,
    slices: int = 1,
) -> Product:
    """The product of two operands, each with its arguments; `sizes` are M, N and the depth of one group. The sum is cut into `slices`,
    or fewer where that leaves none empty."""
    M, N, depth = sizes
    blocks = -(-depth // tile.BK)
    slice_blocks = max(1, -(-blocks // slices))
    slices = max(1, -(-blocks // slice_blocks))
    tiles_m, tiles_n = -(-M // tile.BM), -(-N // tile.BN)
    numbers = tuple(np.uint32(number) for number in (M, N, slice_blocks, blocks, groups, tiles_m, tiles_n))
    return Product(
        tile_kernel(tile, a[0], b[0], c[0]),
        tiles_m * tiles_n * groups * slices,
        tile.threads,
        groups * slices,
        slices,
        (numbers, tuple(np.uint32(flag) for flag in ends), a[1], b[1], c[1]),
    )


def room(workspace: Array, size: int) -> Array:
    """The first `size` elements of the workspace, flat. Raises ValueError where there are fewer, and for a misaligned one."""
    workspace = floats(workspace, "workspace")
    if workspace.shape[0] < size:
        raise ValueError(f"the workspace has {workspace.shape[0]} elements, and {size} are needed")
    if not aligned(workspace):
        raise ValueError("the workspace must begin at a multiple of 16 bytes")
    return workspace[:size]
