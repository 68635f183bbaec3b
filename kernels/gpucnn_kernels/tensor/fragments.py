"""Where the numbers of a product of warps lie: in the lanes of a warp, and in shared memory. Plain functions of integers, which the
kernels call and the tests use.

Both factors are in shared memory in the order of the registers, so that a lane reads four of them by one instruction: of a the four of a
product, of b those of two products, either big and small parts or two neighbours. b is packed like that beforehand (pack.py), and copied
as it is. a comes word by word, as neighbouring threads copy neighbouring pixels; so the 16-byte pieces of a product are exchanged by the
depth, and their halves by the number of the product, until neither the copies nor the reads touch a bank twice (`a_word`).
"""

from __future__ import annotations

ROWS, DEPTHS, COLUMNS = 16, 8, 8
"""A product's size: a has 16 × 8 numbers, b 8 × 8, and there are 16 × 8 sums."""
WORDS = 128
"""Words of shared memory that a warp reads at a time: four for each lane."""


def a_place(lane: int, register: int) -> tuple[int, int]:
    """Row and depth of the number of a that a lane has in a register, 0 … 3 (PTX ISA, mma.m16n8k8 in TF32)."""
    return lane // 4 + register % 2 * 8, lane % 4 + register // 2 * 4


def b_place(lane: int, register: int) -> tuple[int, int]:
    """Depth and column of the number of b that a lane has in a register, 0 or 1."""
    return lane % 4 + register * 4, lane // 4


def c_place(lane: int, register: int) -> tuple[int, int]:
    """Row and column of a sum that a lane has in a register, 0 … 3."""
    return lane // 4 + register // 2 * 8, lane % 4 * 2 + register % 2


def depth_of(place: int) -> int:
    """The depth whose number stands at a place, 0 … 15, along a product in bfloat16: 0, 4, 1, 5, 2, 6, 3, 7, and so on from 8.

    So a lane's numbers of a product are those that it has of two products in TF32, one after the other, and both find them alike in shared
    memory.
    """
    return place // 8 * 8 + place % 8 // 2 + place % 2 * 4


def a_pair(lane: int, register: int, half: int) -> tuple[int, int]:
    """Row and depth of the number of a that a lane has in the lower (0) or upper (1) half of a register, 0 … 3 (PTX ISA, mma.m16n8k16 in
    bfloat16), the depth being that which `depth_of` puts there."""
    return lane // 4 + register % 2 * 8, depth_of(lane % 4 * 2 + half + register // 2 * 8)


def b_pair(lane: int, register: int, half: int) -> tuple[int, int]:
    """Depth and column of the number of b that a lane has in a half of a register, 0 or 1."""
    return depth_of(lane % 4 * 2 + half + register * 8), lane // 4


def group_a_place(thread: int, register: int) -> tuple[int, int]:
    """Row and depth of the number of a that a thread of a warpgroup has in a register, 0 … 3 (PTX ISA, wgmma with a in registers). Each
    of its warps has 16 of the 64 rows, and its lanes hold them as they do for a product of the warp alone."""
    row, depth = a_place(thread % 32, register)
    return thread // 32 % 4 * ROWS + row, depth


def group_c_place(thread: int, register: int) -> tuple[int, int]:
    """Row and column of a sum that a thread of a warpgroup has in a register: four for each eight columns."""
    row, column = c_place(thread % 32, register % 4)
    return thread // 32 % 4 * ROWS + row, register // 4 * COLUMNS + column


def a_word(BM: int, row: int, depth: int) -> int:
    """The word of a stage that holds a number of a; BM rows, in products of 16 rows, one after the other for each 8 of depth."""
    piece = depth % 4 * 8 + (row % 8 ^ depth % 4 * 2)
    return depth // 8 * (BM * 8) + row // 16 * WORDS + piece * 4 + row // 8 % 2 + (depth // 4 % 2 ^ row // 16 % 2) * 2


def a_twist(depth: int) -> int:
    """What turns the byte of a row's number at depth 0 into that at `depth`, by exclusive or; `a_step` is then to be added.

    4 · a_word(BM, row, depth) = (4 · a_word(BM, row, 0) ^ a_twist(depth)) + a_step(BM, depth)
    """
    return depth % 4 * 32 + depth // 4 % 2 * 8


def a_step(BM: int, depth: int) -> int:
    return depth // 8 * (BM * 32) + depth % 4 * 128


def a_read(lane: int) -> int:
    """The first of the four words of a product of a that a lane reads; the registers 0 … 3, or 2, 3, 0, 1 where the product's number among
    those of its depth is odd."""
    return (lane % 4 * 8 + (lane // 4 ^ lane % 4 * 2)) * 4


def b_word(BN: int, parts: int, column: int, depth: int, part: int) -> int:
    """The word that holds a part (0 big, 1 small) of a number of b among BN columns, and with the same of other depths of a stage."""
    pair = column // 8 * parts + part
    return (depth // 8 * (BN // 16 * parts) + pair // 2) * WORDS + (column % 8 * 4 + depth % 4) * 4 + pair % 2 * 2 + depth // 4 % 2


def b_pair_word(BN: int, column: int, depth: int) -> int:
    """The word that holds two numbers of b in bfloat16 among BN columns: that of `depth`, which `first_of_pair` gives, in the lower
    half, and that of depth + 4 in the upper one."""
    pair = depth // 16 * (BN // 16) + column // 16
    return pair * WORDS + (column % 8 * 4 + depth % 4) * 4 + column // 8 % 2 * 2 + depth // 8 % 2


def first_of_pair(number: int) -> int:
    """The lesser depth of a pair: 0, 1, 2, 3, 8, 9, …"""
    return number // 4 * 8 + number % 4


def b_read(lane: int) -> int:
    """The first of the four words of b that a lane reads: two registers of a pair, then two of the next."""
    return lane * 4


# The gradient of a weight copies both factors word by word, eight of a depth side by side, which are neighbours in memory, by four rows.


def grad_row(i: int) -> int:
    """From the first row of a that a thread copies to its i-th."""
    return i // 4 * 16 + i % 4 * 2


def grad_own(thread: int, rows: int) -> int:
    """The first row that a thread copies, or column, where its warp has `rows` of them."""
    return thread // 32 * rows + thread // 8 % 2 + thread // 16 % 2 * 8


def grad_twist(i: int) -> int:
    """What turns the byte of a thread's first row into that of its i-th, by exclusive or; `grad_step` is then to be added.

    4 · a_word(BM, row + grad_row(i), depth) = (4 · a_word(BM, row, depth) ^ grad_twist(i)) + grad_step(i)
    """
    return i % 4 * 32 + i // 4 % 2 * 8


def grad_step(i: int) -> int:
    return i // 4 * (WORDS * 4)


GRAD_COLUMN = 128
"""Bytes from a thread's column of b to its next, two further on."""
