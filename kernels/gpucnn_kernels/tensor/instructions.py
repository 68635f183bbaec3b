"""Instructions that Numba cannot express, of chips of compute capability 8.0 and newer: TF32, products of warps, and those of
core/asynchronous.py, the copies.

Each is a function that a kernel calls, and becomes the PTX instruction in its text ("PTX ISA", NVIDIA; chapters 9.7.9 on
conversions, 9.7.14 on mma). hopper.py has those of Hopper alone. The virtual GPU has all of them; in Numba's simulator each is the function
of its name in simulated.py.

**mma.sync**, the central one, is issued by a warp. It multiplies a (16, 8) by b (8, 8) in TF32, which is float32 with 10 instead of 23
bits behind the point, and adds the products to 16 × 8 sums in float32. Each lane of the warp holds four numbers of a, two of b and four
sums, in registers:

    a   depth 0     1     2     3     4     5     6     7         b   column 0     1    …    7          c   column 0  1     2  3    …   6  7
    row  0   0.a0  1.a0  2.a0  3.a0  0.a2  1.a2  2.a2  3.a2     depth 0   0.b0  4.b0  …  28.b0      row  0   0.c0 .c1  1.c0 .c1  … 3.c0 .c1
    row  1   4.a0  5.a0  6.a0  7.a0  4.a2  5.a2  6.a2  7.a2     depth 1   1.b0  5.b0  …  29.b0      row  1   4.c0 .c1  5.c0 .c1  … 7.c0 .c1
      …                                                         depth 2   2.b0  6.b0  …  30.b0        …
    row  7  28.a0 29.a0 30.a0 31.a0 28.a2 29.a2 30.a2 31.a2     depth 3   3.b0  7.b0  …  31.b0      row  7  28.c0 .c1 29.c0 .c1  … 31.c0 .c1
    row  8   0.a1  1.a1  2.a1  3.a1  0.a3  1.a3  2.a3  3.a3     depth 4   0.b1  4.b1  …  28.b1      row  8   0.c2 .c3  1.c2 .c3  … 3.c2 .c3
      …                                                           …                                   …
    row 15  28.a1 29.a1 30.a1 31.a1 28.a3 29.a3 30.a3 31.a3     depth 7   3.b1  7.b1  …  31.b1      row 15  28.c2 .c3 29.c2 .c3  … 31.c2 .c3

4.a2 being the register a2 of lane 4. fragments.py has the same as functions, and where the numbers lie in shared memory.

In bfloat16, a float32 without its lower 16 bits, the instruction multiplies a (16, 16) by b (16, 8). A register holds two numbers that are
neighbours along the depth, the first in its lower half:

    a   depth 0, 1  2, 3   4, 5   6, 7   8, 9   …  14, 15     b   column 0     1    …    7
    row  0    0.a0   1.a0   2.a0   3.a0   0.a2  …   3.a2      depth  0,  1   0.b0  4.b0  …  28.b0
    row  1    4.a0   5.a0   6.a0   7.a0   4.a2  …   7.a2      depth  2,  3   1.b0  5.b0  …  29.b0
      …                                                         …
    row  7   28.a0  29.a0  30.a0  31.a0  28.a2  …  31.a2      depth  6,  7   3.b0  7.b0  …  31.b0
    row  8    0.a1   1.a1   2.a1   3.a1   0.a3  …   3.a3      depth  8,  9   0.b1  4.b1  …  28.b1
      …                                                         …
    row 15   28.a1  29.a1  30.a1  31.a1  28.a3  …  31.a3      depth 14, 15   3.b1  7.b1  …  31.b1

The sums are those of TF32. Which 16 terms of a sum these depths stand for does not matter, if they are the same in a and in b:
fragments.py says which they are here.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gpucnn_kernels.core._numba import SIMULATED, types
from gpucnn_kernels.core.asynchronous import copies_commit as copies_commit
from gpucnn_kernels.core.asynchronous import copies_wait as copies_wait
from gpucnn_kernels.core.asynchronous import copy_four as copy_four
from gpucnn_kernels.core.asynchronous import copy_word as copy_word
from gpucnn_kernels.core.asynchronous import fixed as fixed
from gpucnn_kernels.core.asynchronous import global_address as global_address
from gpucnn_kernels.core.asynchronous import shared_address as shared_address
from gpucnn_kernels.core.instruction import makers

if SIMULATED:
    from gpucnn_kernels.tensor import simulated

_F, _I, _U = ir.FloatType(), ir.IntType(32), types.uint32
intrinsic, instruction = makers("gpucnn_kernels.tensor.simulated")

to_bfloat16 = instruction("to_bfloat16", "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", types.float32, types.float32, gives=_U)
"""(low, high) → two numbers as bfloat16, the upper half of a float32, in one word: to nearest, ties to even. NaN stays NaN, infinities stay
infinite, numbers below the normal ones are rounded as they are; what is nearer to 2¹²⁸ than to the largest bfloat16 becomes infinite."""
to_tf32 = instruction("to_tf32", "cvt.rna.tf32.f32 $0, $1;", "=r,f", types.float32, gives=_U)
"""(number) → the bits of it rounded to TF32, to nearest, ties away from zero; NaN stays NaN, and infinities what they are."""


@intrinsic
def bits_of(typing_context, number):
    """The 32 bits of a float32."""
    return types.uint32(types.float32), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], _I)


@intrinsic
def number_of(typing_context, bits):
    """The float32 of 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], _F)


@intrinsic
def read_four(typing_context, address):
    """(address) → the four float32 in shared memory there, at a multiple of 16 bytes. vector.load_4 goes by an array's index."""

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(_F, 4)
        values = builder.load(builder.inttoptr(arguments[0], ir.PointerType(vector, 3)), align=16)
        return context.make_tuple(builder, signature.return_type, [builder.extract_element(values, ir.Constant(_I, i)) for i in range(4)])

    return types.UniTuple(types.float32, 4)(types.uint32), generate


@intrinsic
def load_pieces(typing_context, address):
    """(address) → four words. All lanes of a warp together: each gives the address of 16 bytes in shared memory, and the 32 of them are
    four pieces of eight rows of four words, piece by piece. A lane gets the word lane % 4 of row lane // 4 of each (PTX ISA, ldmatrix):

        piece   word 0  1   2   3         address from lane   piece 0   1   2   3
        row 0      0    1   2   3         row 0                   0     8  16  24
        row 1      4    5   6   7         row 1                   1     9  17  25
          …                                 …
        row 7     28   29  30  31         row 7                   7    15  23  31
    """

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.LiteralStructType([_I] * 4), [_I])
        text = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0,$1,$2,$3}, [$4];"
        result = builder.call(ir.InlineAsm(kind, text, "=r,=r,=r,=r,r,~{memory}", side_effect=True), arguments)
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(result, i) for i in range(4)])

    return types.UniTuple(types.uint32, 4)(types.uint32), generate


def _product_of_warps(name: str, kind_of: str) -> Any:
    """A function that is mma.sync of this kind, for a of four registers, b of two and four sums; in the simulator that of this name."""
    if SIMULATED:
        return getattr(simulated, name)
    text = f"mma.sync.aligned.{kind_of} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"

    @intrinsic
    def multiply(typing_context, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        u, f = types.uint32, types.float32

        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.LiteralStructType([_F] * 4), [_I] * 6 + [_F] * 4)
            result = builder.call(ir.InlineAsm(kind, text, ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4), side_effect=False), arguments)
            return context.make_tuple(builder, signature.return_type, [builder.extract_value(result, i) for i in range(4)])

        return types.UniTuple(f, 4)(u, u, u, u, u, u, f, f, f, f), generate

    return multiply


multiply_warp = _product_of_warps("multiply_warp", "m16n8k8.row.col.f32.tf32.tf32.f32")
"""(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3) → this lane's four sums c = a · b + c; a and b as bits. All lanes of a warp together."""
multiply_warp_bfloat16 = _product_of_warps("multiply_warp_bfloat16", "m16n8k16.row.col.f32.bf16.bf16.f32")
"""The same of a (16, 16) and b (16, 8) in bfloat16, two of a number in each register."""
