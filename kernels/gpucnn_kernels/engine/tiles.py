"""The parts of a product on the engine: the tile's size, the factors, the result; and how a factor's tile gets to shared memory."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import uint32
from gpucnn_kernels.core.compile import device

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
    find(args, state, at, first, depth)     where the `width` numbers from depth first + depth of the row that `state` is of are in memory,
        and whether they are there: 0 past the end of depth. `first`, a multiple of BK, is the same for all threads of a block

    A row is a row of a, or a column of b: what stays while depth, the axis that the sum runs over, moves on. `along` says how neighbouring
    threads share the work: they take neighbouring "rows", or neighbouring "depths", whichever are neighbours in memory. With a width of 4
    a thread takes four neighbours itself. Rows past the last may be fetched and must not be out of bounds: what is read does not matter.
    `guarded`: a number that passes registers is read without a branch (core/guarded.py). `late`: where there is one before fours, their
    place is worked out behind it. Which takes fewer registers is up to the compiler; test_engine_compiles.py has that nothing spills.
    """

    name: str
    along: str
    width: int
    words: int
    prepare: Callable[..., Any]
    find: Callable[..., Any]
    guarded: bool = True
    late: bool = False


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
