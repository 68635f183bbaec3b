"""Functions that a kernel calls and that become one instruction, which Numba cannot express: how they are made.

Each is the PTX in its text ("PTX ISA", NVIDIA). In Numba's simulator it is a function of Python of the same name.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gpucnn_kernels.core._numba import SIMULATED, types
from gpucnn_kernels.core._numba import intrinsic as _intrinsic

_LLVM = {types.float32: ir.FloatType(), types.int32: ir.IntType(32), types.uint32: ir.IntType(32), types.uint64: ir.IntType(64)}


def makers(meanings: str) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    """(intrinsic, instruction) for a module's functions; `meanings` is the module that has those of the simulator."""

    def meaning(name: str) -> Any:
        return getattr(importlib.import_module(meanings), name)

    def intrinsic(function: Any) -> Any:
        """A function that Numba makes instructions of; in its simulator, what they mean in Python."""
        return meaning(function.__name__) if SIMULATED else _intrinsic(function)

    def instruction(name: str, text: str, constraints: str, *kinds: Any, gives: Any = None, constants: tuple[int, ...] = ()) -> Any:
        """A function that is one instruction; its arguments have these kinds, in the order in which the text numbers them. In the simulator
        it is the function of that name there, which takes the text's constants before them."""
        if SIMULATED:
            return functools.partial(meaning(name), *constants) if constants else meaning(name)
        signature = (types.void if gives is None else gives)(*kinds)
        kind = ir.FunctionType(ir.VoidType() if gives is None else _LLVM[gives], [_LLVM[each] for each in kinds])

        def generate(context, builder, signature, arguments):
            result = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), arguments)
            return context.get_dummy_value() if gives is None else result

        # Numba needs to see the real number of parameters.
        made = (
            lambda typing_context: (signature, generate),
            lambda typing_context, a: (signature, generate),
            lambda typing_context, a, b: (signature, generate),
            lambda typing_context, a, b, c: (signature, generate),
            lambda typing_context, a, b, c, d: (signature, generate),
        )
        return _intrinsic(made[len(kinds)])

    return intrinsic, instruction
