"""Copies from global to shared memory that pass no registers: cp.async, which chips of compute capability 8.0 and newer have.

A thread that has begun a copy goes on, and later waits for the group of copies that it belongs to. An ordinary read ends in a register, and
the instruction that needs it waits for one of six scoreboards, which reads of shared memory have as well; copies have none.

Addresses in shared memory are 32-bit numbers of bytes, as `shared_address` gives them; those in global memory are 64-bit ones. The
virtual GPU has these instructions; in Numba's simulator each is the function of its name in simulated_copies.py.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from gpucnn_kernels.core._numba import types
from gpucnn_kernels.core.instruction import makers

intrinsic, instruction = makers("gpucnn_kernels.core.simulated_copies")
_I, _L, _U, _UL = ir.IntType(32), ir.IntType(64), types.uint32, types.uint64
_FROM = 800  # the first architecture that has cp.async, as __CUDA_ARCH__ counts

copy_word = instruction("copy_word", "cp.async.ca.shared.global [$0], [$1], 4, $2;", "r,l,r,~{memory}", _U, _UL, _U)
"""(to, from, bytes): 4 bytes, of which `bytes` (0 or 4) are read and the rest are 0."""
copy_four = instruction("copy_four", "cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r,~{memory}", _U, _UL, _U)
"""(to, from, bytes): 16 bytes from and to multiples of 16, of which `bytes` (0 or 16) are read and the rest are 0."""
copies_commit = instruction("copies_commit", "cp.async.commit_group;", "~{memory}")
"""Makes a group of the copies that this thread has begun since the last group."""


@functools.cache
def copies_wait(groups: int) -> Any:
    """(): waits until all but the last `groups` groups of this thread's copies have arrived, for this thread to read."""
    return instruction("copies_wait", f"cp.async.wait_group {groups};", "~{memory}", constants=(groups,))


fixed = instruction("fixed", "mov.b32 $0, $1;", "=r,r", _U, gives=_U)
"""(word) → the word, which the compiler then takes for any: it keeps it in a register and does not work it out again in a loop."""


@intrinsic
def shared_address(typing_context, array):
    """The address of a shared array."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        if data.type.addrspace == 0:
            data = builder.addrspacecast(data, ir.PointerType(data.type.pointee, 3))
        return builder.ptrtoint(data, _I)

    return types.uint32(array), generate


@intrinsic
def global_address(typing_context, array):
    """The address of an array in global memory."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(signature.args[0])(context, builder, arguments[0]).data, _L)

    return types.uint64(array), generate


@intrinsic
def asynchronous(typing_context):
    """Whether the chip that the kernel is compiled for has these copies. NVVM knows it and leaves the other way out ("NVVM IR
    specification", __nvvm_reflect), so that Numba's code is the same for all chips."""

    def generate(context, builder, signature, arguments):
        module, text = builder.module, bytearray(b"__CUDA_ARCH\0")
        name = module.globals.get("gpucnn_architecture")
        if name is None:
            name = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), len(text)), "gpucnn_architecture", addrspace=4)
            name.initializer, name.global_constant, name.linkage = ir.Constant(name.type.pointee, text), True, "internal"
        characters = ir.PointerType(ir.IntType(8))
        reflect = module.globals.get("__nvvm_reflect") or ir.Function(module, ir.FunctionType(_I, [characters]), "__nvvm_reflect")
        anywhere = builder.addrspacecast(name, ir.PointerType(name.type.pointee))
        return builder.icmp_unsigned(">=", builder.call(reflect, [builder.bitcast(anywhere, characters)]), ir.Constant(_I, _FROM))

    return types.boolean(), generate
