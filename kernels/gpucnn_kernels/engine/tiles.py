"""The parts of a product on the engine: the tile's size, the factors, the result; and how a factor's tile gets to shared memory."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import float32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import beyond
from gpucnn_kernels.core.unroll import unrolled

NOTHING, BIAS, MASK, SUMS = range(4)
"""The roles of a product's fourth array, `extra`. BIAS: one number for each column and group, added to the results. MASK: an array like c;
a result is 0 where it is not positive there. SUMS: it is written, Σ over k of a[m, k] for each row and batch."""


@dataclass(frozen=True)
class Tile:
    """BM × BN results per block of threads, BK steps of k at a time, TM × TN results per thread. All of them powers of
    two, TM and TN from 4, BK from 8."""

    BM: int
    BN: int
    BK: int
    TM: int
    TN: int
    blocks_per_sm: int = 1  # that the compiler must leave registers for

    @property
    def threads(self) -> int:
        return self.BM // self.TM * (self.BN // self.TN)

    @property
    def guards(self) -> bool:
        """Whether there are registers for reads without branches (core/guarded.py). 512 threads on a multiprocessor have 128 each, and with
        those of fours, or of pixels for the gradient of a weight, they would spill."""
        return self.threads * self.blocks_per_sm < 512


TILES = {
    "tile128x128": Tile(128, 128, 8, 8, 8, 2),
    "tile128x64": Tile(128, 64, 8, 8, 8, 3),
    "tile64x64": Tile(64, 64, 8, 8, 8, 6),
}
NARROW = {"tile128x32": Tile(128, 32, 8, 8, 8, 6)}
SHORT = {"tile32x64": Tile(32, 64, 8, 4, 8, 8)}
"""Where the others would multiply padding: NARROW has few columns, SHORT few rows."""
BEST = {"tile128x128": 1.0, "tile128x64": 0.95, "tile64x64": 0.85, "tile128x32": 0.8, "tile32x64": 0.65}
"""The speed of a full tile as a fraction of the first one's: on an H100 43, 41 and 37 TFLOP/s; for the last two as predicted. Smaller tiles
read more numbers per FMA."""


@dataclass(frozen=True)
class Operand:
    """A factor: how its numbers are found, and by which thread.

    prepare(args, group, row, state, at)   once per thread and row, before the loop: writes `words` numbers to state[at:]
    fetch(args, array, state, at, first, depth, values, out)
        reads the `width` numbers from depth first + depth of the row that `state` is of, to values[out:]; 0 past the end of depth.
        `first`, a multiple of BK, is the same for all threads of a block

    A row is a row of a, or a column of b: what stays while depth, the axis that the sum runs over, moves on. `along` says how neighbouring
    threads share the work: they take neighbouring "rows", or neighbouring "depths", whichever are neighbours in memory. With a width of 4
    a thread takes four neighbours itself. Rows past the last may be fetched and must not be out of bounds: what is read does not matter.
    """

    name: str
    along: str
    width: int
    words: int
    prepare: Callable[..., Any]
    fetch: Callable[..., Any]


@device(forceinline=True)
def group_by_group(args, N, group, column):
    """(groups, columns) in memory."""
    return uint32(uint32(group * N) + column)


@dataclass(frozen=True)
class Store:
    """The address of (row, column) of a batch: c[row_offset(args, M, N, batch, row) + column_offset(args, M, N, batch, column)].
    Four neighbours `along` "rows" or "columns" are neighbours in memory, where the launch says so (`vector`). `sums`: whether
    there can be sums of rows; where not, nothing is added up for them. A column's bias is extra[bias_index(args, N, group, column)]."""

    name: str
    along: str
    sums: bool
    row_offset: Callable[..., Any]
    column_offset: Callable[..., Any]
    bias_index: Callable[..., Any] = group_by_group


@dataclass(frozen=True)
class Copy:
    """The copy of an operand's tile to shared memory: numbers per thread, their states, numbers in shared memory per depth, functions.

    add(0, values, sums) adds what a thread has fetched to the sums of its rows. spread(0, sums, values) makes numbers of these that can
    be put in the tile like any others, and whose rows have the same sums.
    """

    count: int
    words: int
    pitch: int
    sums: int
    prepare: Callable[..., Any]
    fetch: Callable[..., Any]
    put: Callable[..., Any]
    add: Callable[..., Any]
    spread: Callable[..., Any]


def copy_of(operand: Operand, rows: int, depths: int, threads: int) -> Copy:
    """The way in which `threads` threads copy rows × depths numbers of an operand."""
    along_rows, width, words = operand.along == "rows", operand.width, operand.words
    count = rows * depths // (threads * width)  # fetches per thread
    if count * threads * width != rows * depths:
        raise ValueError(f"{threads} threads cannot share a tile of {rows} × {depths} by {width}s")
    across = (rows if along_rows else depths) // width
    # Threads that are neighbours along depth write a whole row of shared memory apart: four extra numbers put them in different banks.
    pitch = rows if along_rows else rows + 4
    prepare_row, fetch_one = operand.prepare, operand.fetch

    if across * width != (rows if along_rows else depths) or (threads % across and across % threads):
        raise ValueError(f"{threads} threads cannot share rows of {across} evenly")
    row_next, depth_next = (1, 0) if along_rows else (0, 1)  # where the rest of a fetch lies

    @device(forceinline=True)
    def position(thread):
        """Row and depth of a thread's first number."""
        along = uint32(uint32(thread % uint32(across)) * uint32(width))
        beside = uint32(thread // uint32(across))
        return (along, beside) if along_rows else (beside, along)

    @device(forceinline=True)
    def step(i):
        """From there to those of its fetch number i: constants, once the loops over i are unrolled."""
        along = i * threads % across * width
        beside = i * threads // across
        return (along, beside) if along_rows else (beside, along)

    @device(forceinline=True)
    def put_one(n, values, tile, at):
        row_step, depth_step = step(n // width)
        v = n % width
        tile[beyond(at, (depth_step + v * depth_next) * pitch + row_step + v * row_next)] = values[n]

    put_all = unrolled(put_one, count * width)

    @device(forceinline=True)
    def prepare(args, group, first_row, thread, state):
        row, _ = position(thread)
        for i in range(count):
            row_step, _ = step(i)
            prepare_row(args, group, uint32(first_row + row + uint32(row_step)), state, i * words)

    @device(forceinline=True)
    def fetch(args, array, state, first, thread, values):
        _, depth = position(thread)
        for i in range(count):
            _, depth_step = step(i)
            fetch_one(args, array, state, i * words, first, uint32(depth + uint32(depth_step)), values, i * width)

    @device(forceinline=True)
    def put(values, tile, offset, thread):
        row, depth = position(thread)
        put_all(0, values, tile, uint32(offset + depth * uint32(pitch) + row))

    # A thread's number n is of its row n // together % sums: a fetch along depth is of one row, and fetches along rows are all of the same.
    if not along_rows:
        together, sums = width, count
    else:
        together, sums = 1, width if threads % across == 0 else count * width

    @device(forceinline=True)
    def add(n, values, totals):
        totals[n // together % sums] += values[n]

    @device(forceinline=True)
    def spread(n, totals, values):
        row = n // together % sums
        values[n] = totals[row] if n == row * together else float32(0)

    numbers = count * width
    return Copy(numbers, count * words, pitch, sums, prepare, fetch, put, unrolled(add, numbers), unrolled(spread, numbers))
