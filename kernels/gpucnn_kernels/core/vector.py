"""Vector loads and stores, which plain Numba cannot express.

A GPU moves up to 16 bytes per thread and instruction, if the address is a multiple of that size. Numba reads `array[i]` and `array[i + 1]`
by two instructions, because it cannot know how `array` is aligned. These functions assume alignment, and callers must guarantee it: the
array starts at a multiple of 16 bytes, and the index is a multiple of the count of numbers moved.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import MLIR, SIMULATED, types, uint32
from gpucnn_kernels.core.compile import device

load_2: Any
load_4: Any
load_bytes: Any
store_2: Any
store_4: Any

if SIMULATED:

    def load_2(array, index):
        """array[index] and array[index + 1]."""
        return _numbers(array, index, 2)

    def load_4(array, index):
        """array[index : index + 4] as a tuple."""
        return _numbers(array, index, 4)

    def load_bytes(array, index):
        """The four bytes array[index : index + 4] as one word, the first of them lowest."""
        return np.uint32(int.from_bytes(bytes(int(each) for each in _numbers(array, index, 4)), "little"))

    def store_2(array, index, v0, v1):
        """Writes array[index] and array[index + 1]."""
        _write(array, index, (v0, v1))

    def store_4(array, index, v0, v1, v2, v3):
        """Writes four numbers to array[index : index + 4]."""
        _write(array, index, (v0, v1, v2, v3))

    def _numbers(array, index, count):
        assert index % count == 0, f"index {index} is not a multiple of {count}"
        return tuple(array[index + i] for i in range(count))

    def _write(array, index, values):
        assert index % len(values) == 0, f"index {index} is not a multiple of {len(values)}"
        for i, value in enumerate(values):
            array[index + i] = value

elif MLIR:
    # Element by element. numba-cuda-mlir has `cuda.vector.load`, which (in 0.6.0) loses the address space of shared arrays and reads
    # elsewhere.

    @device
    def load_2(array, index):
        """array[index] and array[index + 1]."""
        return array[index], array[index + 1]

    @device
    def load_4(array, index):
        """array[index : index + 4] as a tuple."""
        return array[index], array[index + 1], array[index + 2], array[index + 3]

    @device
    def load_bytes(array, index):
        """The four bytes array[index : index + 4] as one word, the first of them lowest."""
        low = uint32(uint32(array[index]) | uint32(array[index + 1]) << uint32(8))
        high = uint32(uint32(array[index + 2]) | uint32(array[index + 3]) << uint32(8))
        return uint32(low | high << uint32(16))

    @device
    def store_2(array, index, v0, v1):
        """Writes array[index] and array[index + 1]."""
        array[index] = v0
        array[index + 1] = v1

    @device
    def store_4(array, index, v0, v1, v2, v3):
        """Writes four numbers to array[index : index + 4]."""
        array[index] = v0
        array[index + 1] = v1
        array[index + 2] = v2
        array[index + 3] = v3

else:
    from llvmlite import ir

    from gpucnn_kernels.core._numba import intrinsic

    _FLOAT, _INT = ir.FloatType(), ir.IntType(32)

    def _address(context, builder, kind, array_type, array, index):
        """Address of array[index], as that of a `kind`."""
        data = context.make_array(array_type)(context, builder, array).data
        return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

    def _load(array, count):
        """The signature and the code of a read of `count` numbers."""
        vector = ir.VectorType(_FLOAT, count)

        def generate(context, builder, signature, arguments):
            values = builder.load(_address(context, builder, vector, signature.args[0], *arguments), align=4 * count)
            parts = [builder.extract_element(values, _INT(i)) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.float32, count)(array, types.uint64), generate

    def _store(array, count):
        """The signature and the code of a write of `count` numbers."""
        vector = ir.VectorType(_FLOAT, count)

        def generate(context, builder, signature, arguments):
            values = ir.Constant(vector, ir.Undefined)
            for i, value in enumerate(arguments[2:]):
                values = builder.insert_element(values, value, _INT(i))
            builder.store(values, _address(context, builder, vector, signature.args[0], *arguments[:2]), align=4 * count)
            return context.get_dummy_value()

        return types.void(array, types.uint64, *(types.float32,) * count), generate

    # Numba wants to see as many parameters as there are.

    @intrinsic
    def load_2(typing_context, array, index):
        """array[index] and array[index + 1], by one instruction."""
        return _load(array, 2)

    @intrinsic
    def load_4(typing_context, array, index):
        """array[index : index + 4] as a tuple, by one instruction."""
        return _load(array, 4)

    @intrinsic
    def load_bytes(typing_context, array, index):
        """The four bytes array[index : index + 4] as one word, the first of them lowest, by one instruction."""

        def generate(context, builder, signature, arguments):
            return builder.load(_address(context, builder, _INT, signature.args[0], *arguments), align=4)

        return types.uint32(array, types.uint64), generate

    @intrinsic
    def store_2(typing_context, array, index, v0, v1):
        """Writes array[index] and array[index + 1], by one instruction."""
        return _store(array, 2)

    @intrinsic
    def store_4(typing_context, array, index, v0, v1, v2, v3):
        """Writes four numbers to array[index : index + 4], by one instruction."""
        return _store(array, 4)
