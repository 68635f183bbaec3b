"""Launches that begin early: a kernel's blocks are placed on multiprocessors that have become free while the last blocks of the kernel
before it still run. CUDA calls it programmatic dependent launch ("CUDA C++ Programming Guide", under that name). It hides most of what lies
between two kernels of a recorded step, which is a microsecond on an H100.

Nothing but an instruction, `griddepcontrol.wait`, then keeps a kernel from reading what the one before has not written yet. So it is not
written by hand: `begin` puts it at the very beginning of every kernel of this package, before any other instruction. A kernel is over only
after all its threads have waited for the one before, so waiting for a kernel is waiting for all the earlier ones.

No GPU has run this, so it is off. GPUCNN_DEPENDENT_LAUNCH=1 turns it on, for compute capability 9.0 and newer, and for launches that are
being recorded: others spend more time on the host than they would save.
"""

from __future__ import annotations

import os
from typing import Any

ENABLED = os.environ.get("GPUCNN_DEPENDENT_LAUNCH", "0") not in ("", "0")
CAPABILITY = 9, 0
"""The first compute capability that has the instruction."""
_WAIT = "griddepcontrol.wait;"


def begin(function: Any) -> None:
    """Puts at the beginning of a kernel, given as llvmlite's function, that the next one may begin, and then that it waits for the one
    before. The next kernel's blocks come when all of this one's have started, so they take no block's place."""
    from llvmlite import ir

    builder = ir.IRBuilder(function.entry_basic_block)
    builder.position_at_start(function.entry_basic_block)
    for instruction in ("griddepcontrol.launch_dependents;", _WAIT):
        builder.asm(ir.FunctionType(ir.VoidType(), []), instruction, "~{memory}", [], side_effect=True)


def waits(compiled: Any) -> bool:
    """Whether a compiled kernel, which may come from the disk or from another process, waits for the kernel before it."""
    return ENABLED and _WAIT in compiled._codelibrary.get_llvm_str()


def possible(driver: Any, stream: Any) -> bool:
    """Whether the next launch on `stream` can begin early: if it is being recorded, and comes directly after one other kernel. `driver` is
    cuda.bindings' module."""
    error, status, _, _, before, *_, count = driver.cuStreamGetCaptureInfo(stream)
    if int(error) or status != driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE or count != 1:
        return False
    error, kind = driver.cuGraphNodeGetType(before[0])
    return int(error) == 0 and kind == driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL


def launch(driver: Any, function: Any, blocks: int, threads: int, shared: int, stream: Any, parameters: int) -> Any:
    """Launches a kernel that begins early, and waits by itself. Returns the driver's error."""
    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.hStream = shared, stream
    config.attrs, config.numAttrs = [attribute], 1
    (error,) = driver.cuLaunchKernelEx(config, function, parameters, 0)
    return error
