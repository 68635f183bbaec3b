"""Hopper's own instructions: tensor cores that read shared memory, bulk copies, barriers in memory.

As those of instructions.py, which has what older chips have as well ("PTX ISA", NVIDIA; chapters 9.7.9 on copies, 9.7.13 on barriers,
9.7.16 on wgmma). They exist for compute capability 9.0a alone.

**wgmma**, the central instruction, is issued by the four warps of a warpgroup together. It multiplies a (64, 8) by b (8, N) in
TF32, which is float32 with 10 instead of 23 bits behind the point, and adds the products to 64 × N sums in float32, N / 2 in each
thread's registers. Which thread holds what, lane being thread % 32 and warp (thread // 32) % 4:

    a[16·warp + lane // 4 + 8·i, lane % 4 + 4·j]           in the register i + 2·j       (i, j = 0, 1)
    c[16·warp + lane // 4 + 8·i, 8·j + 2·(lane % 4) + v]   in the sum 4·j + 2·i + v      (i, v = 0, 1; j = 0 … N/8 − 1)

Drawn, with the registers of thread 0 as 0.a0 … 0.a3 and its sums 4·j … 4·j + 3 as 0.s0 … 0.s3 (each warp has 16 rows, and in them lies as
mma.sync does; fragments.py has both as functions):

    a   depth 0     1     2     3     4     5     6     7      c   column 8·j  +1    +2    +3    …    +6    +7
    row  0   0.a0  1.a0  2.a0  3.a0  0.a2  1.a2  2.a2  3.a2    row  0    0.s0  0.s1  1.s0  1.s1  …  3.s0  3.s1
    row  1   4.a0  5.a0  6.a0  7.a0  4.a2  5.a2  6.a2  7.a2    row  1    4.s0  4.s1  5.s0  5.s1  …  7.s0  7.s1
      …                                                          …
    row  8   0.a1  1.a1  2.a1  3.a1  0.a3  1.a3  2.a3  3.a3    row  8    0.s2  0.s3  1.s2  1.s3  …  3.s2  3.s3
      …                                                          …
    row 16  32.a0 33.a0 34.a0 35.a0 32.a2 33.a2 34.a2 35.a2    row 16   32.s0 32.s1 33.s0 33.s1  … 35.s0 35.s1
      …                                                          …
    row 63 124.a1 …                                127.a3      row 63  124.s2 124.s3  …            … 127.s2 127.s3

In bfloat16, two numbers to a word, it multiplies a (64, 16) by b (16, N). The register i + 2·j of a then has

    a[16·warp + lane // 4 + 8·i, 2·(lane % 4) + 8·j + h]   in its lower (h = 0) and upper (h = 1) half

b lies in shared memory as N rows of 32 numbers along the depth, 128 bytes each: 4 steps of 8. So that eight rows can be read at a time
without touching a bank twice, the 16-byte pieces of a row are exchanged by the row's number: `swizzled`. A descriptor says where.

    bytes   0 … 15        16 … 31       32 … 47    …  112 … 127
    row 0   depth  0…3    depth  4…7    depth 8…11  …  28…31
    row 1   depth  4…7    depth  0…3    depth 12…15 …  24…27
    row 2   depth  8…11   depth 12…15   depth 0…3   …  20…23
      …
    row 7   depth 28…31   depth 24…27   depth 20…23 …   0…3      and so on from row 8, which lies as row 0 does
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from gpucnn_kernels.core._numba import SIMULATED, types
from gpucnn_kernels.core.problem import BFLOAT16
from gpucnn_kernels.tensor.instructions import instruction, intrinsic

if SIMULATED:
    from gpucnn_kernels.tensor import simulated

ROW = 32
"""Numbers in a row of b: the depth that is multiplied at a time."""


def swizzled(row: int, depth: int) -> int:
    """The position in its tile of number `depth` (0 … 31) of row `row` of b, in numbers of 4 bytes."""
    return row * ROW + (depth ^ (row % 8 * 4))


DESCRIPTOR = 1 << 62 | 8 * ROW * 4 // 16 << 32 | 1 << 16
"""The descriptor of a tile of b without its address: swizzled rows of 128 bytes, 1024 bytes from eight rows to the next eight. Add the
tile's address, a multiple of 1024, in units of 16 bytes; and 2 for each step of 8 along the depth."""


# In bfloat16 a row of 32 numbers has 64 bytes, 16 words of two: those of `fragments.depth_of`, 16 after 16.


def swizzled_pair(row: int, number: int) -> int:
    """The position in its tile of word `number` (0 … 15) of row `row` of b in bfloat16."""
    return row * (ROW // 2) + (number ^ (row // 2 % 4 * 4))


PAIR_DESCRIPTOR = 2 << 62 | 8 * ROW * 2 // 16 << 32 | 1 << 16
"""The descriptor of a tile of b in bfloat16: swizzled rows of 64 bytes, 512 bytes from eight rows to the next eight. Add the tile's
address, a multiple of 512, in units of 16 bytes; and 2 for each step of 16 along the depth."""


_F, _I, _L = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_U, _UL = types.uint32, types.uint64

# Barriers in shared memory, 8 bytes each. A phase ends when all announced threads and all expected bytes have arrived.
barrier_begin = instruction("barrier_begin", "mbarrier.init.shared::cta.b64 [$0], $1;", "r,r,~{memory}", _U, _U)
"""(address, arrivals): a new barrier, for this number of arrivals in each phase."""
barriers_begun = instruction("barriers_begun", "fence.mbarrier_init.release.cluster;", "~{memory}")
"""Makes new barriers visible to copies as well."""
arrive = instruction("arrive", "mbarrier.arrive.shared::cta.b64 _, [$0];", "r,~{memory}", _U)
"""(address): one arrival."""
arrive_expecting = instruction("arrive_expecting", "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r,~{memory}", _U, _U)
"""(address, bytes): one arrival, and the phase does not end before that many bytes have been copied."""
arrive_with_copies = instruction("arrive_with_copies", "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [$0];", "r,~{memory}", _U)
"""(address): one arrival, once everything that this thread has begun to copy by `copy_word` has arrived."""
has_ended = instruction(
    "has_ended",
    "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [$1], $2;\nselp.u32 $0, 1, 0, p;\n}",
    "=r,r,r,~{memory}",
    _U,
    _U,
    gives=_U,
)
"""(address, parity) → 1 if the phase of that parity has ended; waits a while for it otherwise, and gives 0 if that was not enough."""

# Copies from global to shared memory; instructions.py has those of single words.
copy_bulk = instruction(
    "copy_bulk",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];",
    "r,l,r,r,~{memory}",
    _U,
    _UL,
    _U,
    _U,
)
"""(to, from, bytes, barrier): a multiple of 16 bytes from and to multiples of 16, by the copying engine, which tells the barrier."""

# Tensor cores.
products_begin = instruction("products_begin", "wgmma.fence.sync.aligned;", "~{memory}")
"""Orders the registers: the next products take what they hold now."""
products_commit = instruction("products_commit", "wgmma.commit_group.sync.aligned;", "~{memory}")
products_wait = instruction("products_wait", "wgmma.wait_group.sync.aligned 0;", "~{memory}")
"""Waits until all committed products are in the sums, and b has been read."""

written_for_products = instruction("written_for_products", "fence.proxy.async.shared::cta;", "~{memory}")
"""Makes what this thread has written to shared memory visible to wgmma, which reads it through another path."""


@functools.cache
def take_registers(count: int) -> Any:
    """(): raises the registers of this warpgroup's threads to this number, a multiple of 8, once others have released theirs."""
    return instruction("take_registers", f"setmaxnreg.inc.sync.aligned.u32 {count};", "~{memory}", constants=(count,))


@functools.cache
def give_registers(count: int) -> Any:
    """(): lowers the registers of this warpgroup's threads to this number, a multiple of 8."""
    return instruction("give_registers", f"setmaxnreg.dec.sync.aligned.u32 {count};", "~{memory}", constants=(count,))


@functools.cache
def multiply_add(columns: int, bits: int) -> Any:
    """(sums, a0, a1, a2, a3, descriptor, keep): sums (64, columns) = a · b, added to what they were where `keep` is not 0; of 8 steps in
    TF32, or 16 in bfloat16.

    `sums` is a local array of columns / 2 numbers, which the compiler keeps in registers: their values go into the instruction
    and come back. They must not be read before `products_wait`.
    """
    if SIMULATED:
        return simulated.multiply_add(columns, bits)
    count = columns // 2
    kinds, turned = ("k16.f32.bf16.bf16", ", 0") if bits == BFLOAT16 else ("k8.f32.tf32.tf32", "")  # b is not turned

    @intrinsic
    def multiply(typing_context, sums, a0, a1, a2, a3, descriptor, keep):
        def generate(context, builder, signature, arguments):
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            places = [builder.gep(data, [_L(i)]) for i in range(count)]
            kind = ir.FunctionType(ir.LiteralStructType([_F] * count), [_I] * 4 + [_L, _I] + [_F] * count)
            held = ",".join(f"${i}" for i in range(count))
            a = ",".join(f"${count + i}" for i in range(4))
            text = (
                f"{{\n.reg .pred p;\nsetp.ne.b32 p, ${count + 5}, 0;\n"
                f"wgmma.mma_async.sync.aligned.m64n{columns}{kinds} {{{held}}}, {{{a}}}, ${count + 4}, p, 1, 1{turned};\n}}"
            )
            constraints = ",".join(["=f"] * count + ["r"] * 4 + ["l", "r"] + [str(i) for i in range(count)])
            given = [*arguments[1:], *(builder.load(place) for place in places)]
            results = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), given)
            for i, place in enumerate(places):
                builder.store(builder.extract_value(results, i), place)
            return context.get_dummy_value()

        u = types.uint32
        return types.void(sums, u, u, u, u, types.uint64, u), generate

    return multiply
