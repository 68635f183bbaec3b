"""Four numbers at a time, and division by sizes that only the launch knows: what the fast kernels take beyond plain Numba.

A GPU moves up to 16 bytes per thread and instruction, if the address is a multiple of 16. Numba reads `array[i]` and `array[i + 1]` by
two instructions, because it cannot know how `array` is aligned. `load_4` and `store_4` promise that, so whoever calls them must keep to
it: the array starts at a multiple of 16 bytes and the index is a multiple of 4.

An integer division takes some twenty instructions. For a divisor that stays the same, a multiplication and a shift do (Granlund and
Montgomery, Division by Invariant Integers using Multiplication, PLDI 1994): `magic` finds the two numbers on the host, `divide` uses them.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn_kernels._numba import SIMULATED, device, types, uint32, uint64

load_4: Any
store_4: Any

if SIMULATED:

    def load_4(array, index):
        """array[index : index + 4] as a tuple."""
        assert index % 4 == 0, f"index {index} is not a multiple of 4"
        return tuple(array[index + i] for i in range(4))

    def store_4(array, index, v0, v1, v2, v3):
        """Writes four numbers to array[index : index + 4]."""
        assert index % 4 == 0, f"index {index} is not a multiple of 4"
        for i, value in enumerate((v0, v1, v2, v3)):
            array[index + i] = value

else:
    from llvmlite import ir

    from gpucnn_kernels._numba import intrinsic

    _FOUR = ir.VectorType(ir.FloatType(), 4)

    def _place(context, builder, array_type, array, index):
        """Address of array[index], as that of a vector of four."""
        data = context.make_array(array_type)(context, builder, array).data
        return builder.bitcast(builder.gep(data, [index]), _FOUR.as_pointer())

    @intrinsic
    def load_4(typing_context, array, index):
        """array[index : index + 4] as a tuple, by one instruction."""

        def generate(context, builder, signature, arguments):
            values = builder.load(_place(context, builder, signature.args[0], *arguments), align=16)
            parts = [builder.extract_element(values, ir.IntType(32)(i)) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.float32, 4)(array, types.uint64), generate

    @intrinsic
    def store_4(typing_context, array, index, v0, v1, v2, v3):
        """Writes four numbers to array[index : index + 4], by one instruction."""

        def generate(context, builder, signature, arguments):
            values = ir.Constant(_FOUR, ir.Undefined)
            for i, value in enumerate(arguments[2:]):
                values = builder.insert_element(values, value, ir.IntType(32)(i))
            builder.store(values, _place(context, builder, signature.args[0], *arguments[:2]), align=16)
            return context.get_dummy_value()

        return types.void(array, types.uint64, *(types.float32,) * 4), generate


@device(forceinline=True)
def beyond(index, constant):
    """index + constant, in 64 bits: then the constant becomes part of the instruction that reads or writes there, and costs nothing.

    In 32 bits the sum might wrap around, so that the compiler has to add first.
    """
    return uint64(uint64(index) + uint64(constant))


@device(forceinline=True)
def divide(number, multiplier, shift):
    """number // divisor for number < 2³¹, where `multiplier` and `shift` are `magic(divisor)`."""
    return uint32(uint32(uint64(number) * uint64(multiplier) >> uint64(31)) >> uint32(shift))


def magic(divisor: int) -> tuple[np.uint32, np.uint32]:
    """The multiplier m and the shift s with which n // divisor = n·m >> (31 + s), for every n < 2³¹ and 1 ≤ divisor < 2³¹.

    m = ⌈2^(31 + s) / d⌉ is too large by e/d with e < d ≤ 2ˢ, so n·m / 2^(31 + s) is too large by less than 1/d, and never reaches
    the next whole number.
    """
    if not 1 <= divisor < 2**31:
        raise ValueError(f"cannot divide by {divisor}: a divisor is from 1 to 2³¹ − 1")
    shift = (divisor - 1).bit_length()
    return np.uint32(-(-(1 << (31 + shift)) // divisor)), np.uint32(shift)
