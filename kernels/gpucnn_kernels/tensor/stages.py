"""What kernels on tensor cores share: stages of shared memory between threads that copy and threads that multiply, and the multiplying.

tensor/product.py says how it all works. A stage holds 32 steps of k: b's big parts, b's small parts (hopper.py: swizzled), then a. Where
numbers have one part, the big one, there are no small ones; in bfloat16 b's numbers are two to a word.

Of the three products of each 8 steps, those that have a small part come first, for 16 steps, and then those of big parts. Each product cuts
off bits of the sum so far: of sums of small numbers next to nothing. So a sum loses bits twice before it is taken out and added up in
float32; accuracy.py says what that makes of the error. While the products of 16 steps run, the numbers of the next are taken apart.
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
from gpucnn_kernels.tensor import hopper, instructions
from gpucnn_kernels.tensor.parts import apart

DEPTH = hopper.ROW  # BK
HEAD = 1024  # bytes of shared memory for the barriers; the stages begin at a multiple of 1024
MOST_SHARED = 227 << 10  # bytes that a block may have on Hopper
TOGETHER = 2  # products' steps, of 8 each, that tensor cores add up before a sum of two parts' products is taken out


@device(forceinline=True)
def begin_stages(begin, thread, stages, arrivals):
    """The barriers of all stages, in the first bytes of shared memory from `begin` on that lie at a multiple of 1024; "full" takes so
    many arrivals, "empty" one of each thread that multiplies. Returns where "full" and "empty" begin, and where the stages do."""
    full = uint32(uint32(begin + uint32(HEAD - 1)) & uint32(0xFFFFFFFF - (HEAD - 1)))
    empty = uint32(full + uint32(8) * stages)
    if thread == 0:
        for i in range(int32(stages)):
            hopper.barrier_begin(uint32(full + uint32(8) * uint32(i)), arrivals)
            hopper.barrier_begin(uint32(empty + uint32(8) * uint32(i)), uint32(256))
        hopper.barriers_begun()
    cuda.syncthreads()
    return full, empty, uint32(full + uint32(HEAD))


@functools.cache
def multiplier(BN: int, stages: int, stage_bytes: int, row_step: int, depth_step: int, bits: int) -> Any:
    """A function for the 256 threads that multiply: (blocks, shared, a_first, stages_at, full, empty, part, sums), for so many blocks of 32
    steps, takes one stage after the other and leaves the sums of 128 × BN in `sums`. b's tiles are at the beginning of a stage; a's first
    number for this thread is shared[a_first], and to its next row and depth it is so many numbers. bits: what factors keep
    (parts.py)."""
    count, held = BN // 2, DEPTH // 2  # sums, and numbers of a
    multiply = hopper.multiply_add(BN, bits)
    first_descriptor, depths = (hopper.PAIR_DESCRIPTOR, 16) if bits == BFLOAT16 else (hopper.DESCRIPTOR, 8)  # of a product

    @device(forceinline=True)
    def read(shared, at):
        """A thread's four numbers of a in 8 steps of k, in the order of the registers in TF32."""
        far = uint32(at + uint32(4 * depth_step))
        return shared[at], shared[at + uint32(8 * row_step)], shared[far], shared[far + uint32(8 * row_step)]

    @device(forceinline=True)
    def multiply_wide_step(step, shared, a_at, descriptor, part):
        """16 steps of k in bfloat16; places along the product are those of fragments.depth_of."""
        x_0, x_1, x_2, x_3 = read(shared, uint32(a_at + uint32(step * 16 * depth_step)))
        y_0, y_1, y_2, y_3 = read(shared, uint32(a_at + uint32((step * 16 + 8) * depth_step)))
        a_0, a_1 = instructions.to_bfloat16(x_0, x_2), instructions.to_bfloat16(x_1, x_3)
        a_2, a_3 = instructions.to_bfloat16(y_0, y_2), instructions.to_bfloat16(y_1, y_3)
        hopper.products_begin()
        multiply(part, a_0, a_1, a_2, a_3, uint64(descriptor + uint64(step * 2)), uint32(0 if step == 0 else 1))

    @device(forceinline=True)
    def multiply_step(step, shared, a_at, descriptor, part):
        """8 steps of k in TF32."""
        x_0, x_1, x_2, x_3 = read(shared, uint32(a_at + uint32(step * 8 * depth_step)))
        a_0, a_1, a_2, a_3 = instructions.to_tf32(x_0), instructions.to_tf32(x_1), instructions.to_tf32(x_2), instructions.to_tf32(x_3)
        hopper.products_begin()
        multiply(part, a_0, a_1, a_2, a_3, uint64(descriptor + uint64(step * 2)), uint32(0 if step == 0 else 1))

    multiply_steps = unrolled(multiply_wide_step if bits == BFLOAT16 else multiply_step, DEPTH // depths)

    @device(forceinline=True)
    def multiply_one_part(shared, a_at, descriptor, part, sums):
        """A stage of numbers with one part."""
        multiply_steps(0, shared, a_at, descriptor, part)
        hopper.products_commit()

    @device(forceinline=True)
    def take_apart(step, shared, a_at, big, small):
        """A thread's numbers of a in 8 steps of k."""
        x_0, x_1, x_2, x_3 = read(shared, uint32(a_at + uint32(step * 8 * depth_step)))
        big[4 * step], small[4 * step] = apart(x_0)
        big[4 * step + 1], small[4 * step + 1] = apart(x_1)
        big[4 * step + 2], small[4 * step + 2] = apart(x_2)
        big[4 * step + 3], small[4 * step + 3] = apart(x_3)

    @device(forceinline=True)
    def multiply_small(step, descriptor, part, big, small):
        """The two products of 8 steps that have a small part. The first of those that are added up together begins the sum."""
        b_big, keep = uint64(descriptor + uint64(step * 2)), uint32(0 if step % TOGETHER == 0 else 1)
        multiply(part, small[4 * step], small[4 * step + 1], small[4 * step + 2], small[4 * step + 3], b_big, keep)
        b_small = uint64(b_big + uint64(BN * DEPTH * 4 // 16))
        multiply(part, big[4 * step], big[4 * step + 1], big[4 * step + 2], big[4 * step + 3], b_small, uint32(1))

    @device(forceinline=True)
    def multiply_big(step, descriptor, part, big, small):
        b_big = uint64(descriptor + uint64(step * 2))
        multiply(part, big[4 * step], big[4 * step + 1], big[4 * step + 2], big[4 * step + 3], b_big, uint32(1))

    take_steps, small_steps, big_steps = (unrolled(each, TOGETHER) for each in (take_apart, multiply_small, multiply_big))

    @device(forceinline=True)
    def multiply_two_parts(shared, a_at, descriptor, part, sums):
        """A stage of numbers with two parts: the sums of its first half are added up, those of its second half remain in `part`."""
        big, small = cuda.local.array(held, uint32), cuda.local.array(held, uint32)
        take_steps(0, shared, a_at, big, small)
        hopper.products_begin()
        small_steps(0, descriptor, part, big, small)
        big_steps(0, descriptor, part, big, small)
        hopper.products_commit()
        take_steps(TOGETHER, shared, a_at, big, small)
        hopper.products_wait()
        for i in range(count):
            sums[i] += part[i]
        hopper.products_begin()
        small_steps(TOGETHER, descriptor, part, big, small)
        big_steps(TOGETHER, descriptor, part, big, small)
        hopper.products_commit()

    multiply_stage = multiply_two_parts if bits == FLOAT32 else multiply_one_part

    @device(forceinline=True)
    def multiply_all(blocks, shared, a_first, stages_at, full, empty, part, sums):
        stage, parity = uint32(0), uint32(0)
        descriptor = uint64(uint64(first_descriptor) | uint64(uint32(stages_at & uint32(0x3FFFF)) >> uint32(4)))
        for i in range(count):
            sums[i] = float32(0)
            part[i] = float32(0)
        for _ in range(blocks):
            while hopper.has_ended(uint32(full + uint32(stage * uint32(8))), parity) == 0:
                pass
            b_at = uint64(descriptor + uint64(uint32(stage * uint32(stage_bytes // 16))))
            multiply_stage(shared, uint32(a_first + uint32(stage * uint32(stage_bytes // 4))), b_at, part, sums)
            hopper.products_wait()
            hopper.arrive(uint32(empty + uint32(stage * uint32(8))))
            for i in range(count):
                sums[i] += part[i]
            stage = uint32(stage + uint32(1))
            if stage == uint32(stages):
                stage, parity = uint32(0), uint32(parity ^ uint32(1))

    return multiply_all
