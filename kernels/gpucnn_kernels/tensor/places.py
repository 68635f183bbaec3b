"""Where the numbers of a matrix lie in a stage of shared memory, and in the lanes of a warp that multiplies it (matrices.py). Plain
functions of integers, which the kernels call and the tests use.

A factor has rows, those of a or the columns of b, and depths, which the sum runs over. It is copied as it lies in memory, along its depths
or along its rows, and in both cases neither the copies nor the reads of a warp touch a bank twice at a time:

    along depths   row by row, 20 words apart for 16 depths. `ldmatrix` gives each lane one word of each of four pieces of 8 rows by 4
                   depths: 8 rows of 16 bytes at a time. So a lane has rows 8 apart: those that fragments.py says
    along rows     depth by depth, 8 words more apart than there are rows. A lane reads four neighbouring rows of a depth by one
                   instruction. So it has rows side by side

Which row of a tile stands at which row of a product does not matter, as long as the results are written to where they belong.
"""

from __future__ import annotations

DEPTHS = 16
"""Of a stage."""
_ROW = DEPTHS + 4  # words from a row to the next, along depths
_MORE = 8  # words from a depth to the next beyond the number of rows, along rows


def pitch(by_rows: bool, rows: int) -> int:
    """Words from a row to the next, or from a depth to the next."""
    return rows + _MORE if by_rows else _ROW


def words(by_rows: bool, rows: int) -> int:
    """Words of a stage."""
    return DEPTHS * (rows + _MORE) if by_rows else rows * _ROW


def word(by_rows: bool, rows: int, row: int, depth: int) -> int:
    """The word of a stage that holds a number."""
    return depth * (rows + _MORE) + row if by_rows else row * _ROW + depth


# Copies: `across` neighbouring threads take a line of memory, and as many lines are taken at a time as there are threads for.


def across(by_rows: bool, rows: int, width: int) -> int:
    """The threads side by side along a line, each of which copies `width` numbers."""
    return (rows if by_rows else DEPTHS) // width


def own_line(by_rows: bool, number: int) -> int:
    """The first line of a thread, of which `number` counts the threads that lie on the same place of their lines. Rows along depths are
    taken by fours: neighbours in a warp are the first of each, and the second."""
    return number if by_rows else number // 8 * 8 + number % 2 * 4 + number // 2 % 4


# Reads: of each 8 steps of depth.


def own_row(by_rows: bool, lane: int, number: int) -> int:
    """The row, within those of a warp, of a lane's row of that number: two for each product of a, 2·i and 2·i + 1, one for each of b."""
    return number // 4 * 32 + lane // 4 * 4 + number % 4 if by_rows else number * 8 + lane // 4


def piece_of_a(lane: int) -> tuple[int, int]:
    """Row and depth of the 16 bytes whose address a lane gives to ldmatrix for a product of a: the pieces are the registers."""
    return lane // 8 % 2 * 8 + lane % 8, lane // 16 * 4


def piece_of_b(lane: int) -> tuple[int, int]:
    """Column and depth, likewise, for two products side by side of b: both registers of the first, then those of the second."""
    return lane // 16 * 8 + lane % 8, lane // 8 % 2 * 4


def first_of_a(by_rows: bool, rows: int, lane: int) -> int:
    """The word at which a lane begins to read a: the piece whose address it gives, or the first of its four rows."""
    if by_rows:
        return lane % 4 * (rows + _MORE) + lane // 4 * 4
    return (lane // 8 % 2 * 8 + lane % 8) * _ROW + lane // 16 * 4


def first_of_b(by_rows: bool, rows: int, lane: int) -> int:
    """The same of b."""
    if by_rows:
        return lane % 4 * (rows + _MORE) + lane // 4 * 4
    return (lane // 16 * 8 + lane % 8) * _ROW + lane // 8 % 2 * 4
