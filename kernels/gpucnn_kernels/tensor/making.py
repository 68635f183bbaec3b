"""The factor that wgmma reads in shared memory, made there of numbers that come as they lie in global memory: rows of b, as hopper.py calls
them, of 32 depths each (weight_grad.py, groups.py).

128 threads copy and make it. Each copies numbers to words of its own, some stages ahead, so it waits for its own copies alone and for
no other thread; then it takes each number apart, or rounds it, and writes what becomes of it where wgmma wants it. The sums of rows, for
the gradient of a bias, are added up on the way. Numbers come by fours where memory allows it, or one by one; and neither copies nor
writes touch a bank twice at a time (tests/kernels/test_making.py).

    along depths   a row lies along its depths in memory. Threads side by side take a row, and a thread takes the same piece of some rows
    along rows     a depth lies along the rows. A thread takes four rows by four depths: four pieces come, and four go, turned

Words of bfloat16 hold depths 4 apart, so two threads that have these exchange halves of what they have.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_4, store_2, store_4
from gpucnn_kernels.tensor import hopper, instructions
from gpucnn_kernels.tensor.instructions import number_of
from gpucnn_kernels.tensor.parts import first_part, small_part
from gpucnn_kernels.tensor.stages import DEPTH

THREADS = 128
ROWS_AT_ONCE = 64
"""Along rows: the rows that the threads take at a time, four by four depths each."""


def across(width: int) -> int:
    """Along depths: the threads side by side along a row, each of which copies `width` numbers."""
    return DEPTH // width


def rows_step(width: int) -> int:
    """Along depths: from a thread's row to its next."""
    return THREADS // across(width)


def first_place(width: int, bits: int, along: int) -> int:
    """Along depths: the place in its row of the word that a thread writes first, before it is swizzled. In bfloat16 by fours, of two
    threads side by side the first writes the lesser two of their four words; one by one, the threads whose depth has no bit 2 write."""
    if bits != BFLOAT16:
        return along * width
    return along * width // 8 * 4 + (along % 2 * 2 if width == 4 else along % 4)


def own_square(thread: int) -> tuple[int, int]:
    """Along rows: the first row and depth of a thread's four by four. The lanes of a warp have 16 rows and all depths; eight lanes that
    write together have four pieces of depths, of every other four rows, and rows' numbers exchange these for all places of 16 bytes."""
    return (thread % 2 + thread // 8 % 2 * 2 + thread // 32 * 4) * 4, (thread // 2 % 4 + thread // 16 % 2 * 4) * 4


def first_turned(bits: int, row: int, depth: int) -> tuple[int, int]:
    """Along rows: the row, and the place in it, of the word that the thread of a square writes first, before it is swizzled. In bfloat16,
    of the two threads whose depths are neighbours the first writes the first and the third of their rows, and the second the others."""
    return (row + depth // 4 % 2, depth // 8 * 4) if bits == BFLOAT16 else (row, depth)


@functools.cache
def swizzled(bits: int) -> Any:
    """The function (row, place) that gives the word of b's tile."""
    return device(hopper.swizzled_pair if bits == BFLOAT16 else hopper.swizzled, forceinline=True)


@functools.cache
def along_depths(rows: int, width: int, bits: int) -> tuple[Any, Any]:
    """Two functions, for b along depths: (0, to, source, step, rows_left, there), which begins the copies of a thread: to its own
    words, of which the first is at `to`, from its first number, `step` bytes from a row of its own to the next, zeros past `rows_left` and
    where nothing is `there`; and (0, shared, raw, at, totals), which makes shared[at:] of shared[raw:], and adds to `totals`, one for each
    row. `at` is where `first_place` lies, and shared begins at a multiple of 128 bytes."""
    beside, step_rows = across(width), rows_step(width)
    copy_one, size = (instructions.copy_four, 16) if width == 4 else (instructions.copy_word, 4)
    big_of, split = first_part(bits), bits == FLOAT32

    @device(forceinline=True)
    def copy(i, to, source, step, rows_left, there):
        """A thread's numbers of row number i · step_rows from its first on, or 0 past the last."""
        real = there and int32(i * step_rows) < rows_left
        copy_one(uint32(to + uint32(i * THREADS * size)), uint64(source + uint64(uint32(i) * step)), uint32(size) if real else uint32(0))

    @device(forceinline=True)
    def put(i, shared, raw, at, totals):
        """The parts of a copied piece. Those of other rows are exchanged alike, where rows go on by multiples of 8; where they go on by 4,
        bit 2 of every other row's number is turned."""
        if width == 4:
            offset = uint64(at + uint32(i * step_rows * DEPTH))
            x0, x1, x2, x3 = load_4(shared, uint64(raw + uint32(i * 512)))
            totals[i] += float32(float32(x0 + x1) + float32(x2 + x3))
            b0, b1, b2, b3 = big_of(x0), big_of(x1), big_of(x2), big_of(x3)
            store_4(shared, offset, b0, b1, b2, b3)
            if split:
                s0, s1, s2, s3 = small_part(x0, b0), small_part(x1, b1), small_part(x2, b2), small_part(x3, b3)
                store_4(shared, uint64(offset + uint64(rows * DEPTH)), s0, s1, s2, s3)
        else:
            offset = uint32(uint32(at + uint32(i * step_rows * DEPTH)) ^ uint32(i % 2 * 16))
            x = shared[uint32(raw + uint32(i * 128))]
            totals[i] += x
            big = big_of(x)
            shared[offset] = big
            if split:
                shared[uint32(offset + uint32(rows * DEPTH))] = small_part(x, big)

    @device(forceinline=True)
    def put_pairs(i, shared, raw, at, totals):
        """The same in bfloat16."""
        own = uint32(uint32(cuda.threadIdx.x) % uint32(beside))
        offset = uint32(uint32(at + uint32(i * step_rows * (DEPTH // 2))) ^ uint32(0 if width == 4 else i % 2 * 8))
        if width == 4:
            x0, x1, x2, x3 = load_4(shared, uint64(raw + uint32(i * 512)))
            totals[i] += float32(float32(x0 + x1) + float32(x2 + x3))
            second = own % uint32(2) == uint32(1)
            y0 = cuda.shfl_xor_sync(0xFFFFFFFF, x0 if second else x2, 1)
            y1 = cuda.shfl_xor_sync(0xFFFFFFFF, x1 if second else x3, 1)
            low_0, low_1 = y0 if second else x0, y1 if second else x1
            high_0, high_1 = x2 if second else y0, x3 if second else y1
            word_0, word_1 = instructions.to_bfloat16(low_0, high_0), instructions.to_bfloat16(low_1, high_1)
            store_2(shared, uint64(offset), number_of(word_0), number_of(word_1))
        else:
            x = shared[uint32(raw + uint32(i * 128))]
            totals[i] += x
            y = cuda.shfl_xor_sync(0xFFFFFFFF, x, 4)
            if uint32(own // uint32(4)) % uint32(2) == uint32(0):
                shared[offset] = number_of(instructions.to_bfloat16(x, y))

    count = rows // step_rows
    return unrolled(copy, count), unrolled(put_pairs if bits == BFLOAT16 else put, count)


@functools.cache
def along_rows(rows: int, width: int, bits: int) -> tuple[Any, Any]:
    """Two functions, for b along rows: (0, to, source, line, rows_left, depths_left), which begins the copies of a thread, `line` bytes
    from a depth to the next; and (0, shared, raw, at, totals) as in `along_depths`, with `first_turned` at `at` and totals of four
    rows for each of the thread's squares."""
    big_of, split = first_part(bits), bits == FLOAT32

    @device(forceinline=True)
    def copy_four(i, to, source, line, rows_left, depths_left):
        """Depth i % 4 of square i // 4."""
        real = int32(i // 4 * ROWS_AT_ONCE) < rows_left and int32(i % 4) < depths_left
        at = uint64(source + uint64(uint32(i % 4) * line) + uint64(i // 4 * ROWS_AT_ONCE * 4))
        instructions.copy_four(uint32(to + uint32(i * THREADS * 16)), at, uint32(16) if real else uint32(0))

    @device(forceinline=True)
    def copy_word(i, to, source, line, rows_left, depths_left):
        """Row i % 4 of depth i // 4 % 4 of square i // 16."""
        row = i // 16 * ROWS_AT_ONCE + i % 4
        real = int32(row) < rows_left and int32(i // 4 % 4) < depths_left
        at = uint64(source + uint64(uint32(i // 4 % 4) * line) + uint64(row * 4))
        instructions.copy_word(uint32(to + uint32(i * THREADS * 4)), at, uint32(4) if real else uint32(0))

    @device(forceinline=True)
    def four_rows(i, shared, raw):
        """Of depth i % 4 of square i // 4."""
        if width == 4:
            return load_4(shared, uint64(raw + uint32(i * 512)))
        at = uint32(raw + uint32(i * 512))
        return shared[at], shared[uint32(at + uint32(128))], shared[uint32(at + uint32(256))], shared[uint32(at + uint32(384))]

    @device(forceinline=True)
    def put_row(v, shared, at, x0, x1, x2, x3):
        """Four depths of a square's row v. Its number exchanges the pieces, by its lower bits beside what `first_turned` has."""
        offset = uint64(uint32(at ^ uint32(v * 4)) + uint32(v * DEPTH))
        b0, b1, b2, b3 = big_of(x0), big_of(x1), big_of(x2), big_of(x3)
        store_4(shared, offset, b0, b1, b2, b3)
        if split:
            s0, s1, s2, s3 = small_part(x0, b0), small_part(x1, b1), small_part(x2, b2), small_part(x3, b3)
            store_4(shared, uint64(offset + uint64(rows * DEPTH)), s0, s1, s2, s3)

    @device(forceinline=True)
    def put(j, shared, raw, at, totals):
        """Square j."""
        a0, a1, a2, a3 = four_rows(4 * j, shared, raw)
        b0, b1, b2, b3 = four_rows(4 * j + 1, shared, raw)
        c0, c1, c2, c3 = four_rows(4 * j + 2, shared, raw)
        d0, d1, d2, d3 = four_rows(4 * j + 3, shared, raw)
        totals[4 * j] += float32(float32(a0 + b0) + float32(c0 + d0))
        totals[4 * j + 1] += float32(float32(a1 + b1) + float32(c1 + d1))
        totals[4 * j + 2] += float32(float32(a2 + b2) + float32(c2 + d2))
        totals[4 * j + 3] += float32(float32(a3 + b3) + float32(c3 + d3))
        own = uint32(at + uint32(j * ROWS_AT_ONCE * DEPTH))
        put_row(0, shared, own, a0, b0, c0, d0)
        put_row(1, shared, own, a1, b1, c1, d1)
        put_row(2, shared, own, a2, b2, c2, d2)
        put_row(3, shared, own, a3, b3, c3, d3)

    @device(forceinline=True)
    def pair(second, first_row, second_row):
        """A word of two depths 4 apart, of the row that this thread writes: it has one of them, and gets the other for its own of the
        row that the other thread writes."""
        other = cuda.shfl_xor_sync(0xFFFFFFFF, first_row if second else second_row, 2)
        return number_of(instructions.to_bfloat16(other if second else first_row, second_row if second else other))

    @device(forceinline=True)
    def put_pairs(j, shared, raw, at, totals):
        """Square j in bfloat16."""
        a0, a1, a2, a3 = four_rows(4 * j, shared, raw)
        b0, b1, b2, b3 = four_rows(4 * j + 1, shared, raw)
        c0, c1, c2, c3 = four_rows(4 * j + 2, shared, raw)
        d0, d1, d2, d3 = four_rows(4 * j + 3, shared, raw)
        totals[4 * j] += float32(float32(a0 + b0) + float32(c0 + d0))
        totals[4 * j + 1] += float32(float32(a1 + b1) + float32(c1 + d1))
        totals[4 * j + 2] += float32(float32(a2 + b2) + float32(c2 + d2))
        totals[4 * j + 3] += float32(float32(a3 + b3) + float32(c3 + d3))
        second = uint32(uint32(cuda.threadIdx.x) // uint32(2)) % uint32(2) == uint32(1)
        own = uint32(at + uint32(j * ROWS_AT_ONCE * (DEPTH // 2)))
        w0, w1, w2, w3 = pair(second, a0, a1), pair(second, b0, b1), pair(second, c0, c1), pair(second, d0, d1)
        store_4(shared, uint64(own), w0, w1, w2, w3)
        w0, w1, w2, w3 = pair(second, a2, a3), pair(second, b2, b3), pair(second, c2, c3), pair(second, d2, d3)
        store_4(shared, uint64(uint32(own ^ uint32(4)) + uint32(2 * (DEPTH // 2))), w0, w1, w2, w3)

    squares = rows // ROWS_AT_ONCE
    copy_all = unrolled(copy_four, 4 * squares) if width == 4 else unrolled(copy_word, 16 * squares)
    return copy_all, unrolled(put_pairs if bits == BFLOAT16 else put, squares)
