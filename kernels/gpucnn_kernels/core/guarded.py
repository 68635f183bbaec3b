"""Reads that happen only where a condition holds, without a branch.

`if inside: value = array[index]` is a branch. The compiler makes a guarded read of it in the end, but takes what the read needs into the
branch as well: the address, the parameters that it is made of, and even what was worked out before the loop. Eight such reads in a turn are
eight branches, each of which reads the same parameters again; on sm_90 these reads have six scoreboards between them and the numbers from
memory, so that to wait for a parameter is to wait for memory. Here the condition guards the read alone, as in the PTX of CUTLASS's
`global_load` ("PTX ISA", NVIDIA, 9.3: predicated execution), and what all reads of a turn need is there once.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

from gpucnn_kernels.core._numba import MLIR, SIMULATED, float32, types
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.vector import load_4

load_if: Any
load_4_if: Any

if SIMULATED or MLIR:

    @device
    def load_if(array, index, there):
        """array[index] where `there`, and 0 elsewhere."""
        value = float32(0)
        if there:
            value = array[index]
        return value

    @device
    def load_4_if(array, index, there):
        """array[index : index + 4] where `there`, and zeros elsewhere."""
        v0 = v1 = v2 = v3 = float32(0)
        if there:
            v0, v1, v2, v3 = load_4(array, index)
        return v0, v1, v2, v3

else:
    from llvmlite import ir

    from gpucnn_kernels.core._numba import intrinsic

    _FLOAT, _WORD, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
    _PIECE = "{{\n.reg .pred there;\nsetp.ne.u32 there, ${condition}, 0;\n{zeros}@there ld.global.{kind} {into}, [${address}];\n}}"

    def _guarded(array, count):
        """The signature and the code of a read of `count` numbers where a condition holds."""
        names = [f"${i}" for i in range(count)]
        text = _PIECE.format(
            zeros="".join(f"mov.f32 {name}, 0f00000000;\n" for name in names),
            kind="f32" if count == 1 else f"v{count}.f32",
            into=names[0] if count == 1 else "{" + ", ".join(names) + "}",
            address=count,
            condition=count + 1,
        )
        result = _FLOAT if count == 1 else ir.LiteralStructType([_FLOAT] * count)
        instruction = ir.InlineAsm(ir.FunctionType(result, [_LONG, _WORD]), text, ",".join(["=f"] * count + ["l", "r"]), side_effect=True)

        def generate(context, builder, signature, arguments):
            whole, index, there = arguments
            data = context.make_array(signature.args[0])(context, builder, whole).data
            address = builder.ptrtoint(builder.gep(data, [index]), _LONG)
            found = builder.call(instruction, [address, builder.zext(there, _WORD)])
            if count == 1:
                return found
            return context.make_tuple(builder, signature.return_type, [builder.extract_value(found, i) for i in range(count)])

        gives = types.float32 if count == 1 else types.UniTuple(types.float32, count)
        return gives(array, types.uint64, types.boolean), generate

    @intrinsic
    def load_if(typing_context, array, index, there):
        """array[index] of an array in global memory where `there`, by one instruction, and 0 elsewhere."""
        return _guarded(array, 1)

    @intrinsic
    def load_4_if(typing_context, array, index, there):
        """array[index : index + 4] of an array in global memory where `there`, by one instruction, and zeros elsewhere."""
        return _guarded(array, 4)
