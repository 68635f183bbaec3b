"""The launches of an operation: their names, and the share of its work that each does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import OPERATIONS, work_of
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.choose import select
from gpucnn_kernels.conv.tensor import SHORT
from gpucnn_kernels.core.launch import Launch, address_of

CUT = "-cut"
"""The end of the name of a kernel some of whose tiles have several blocks (gpucnn_kernels/engine/cut.py)."""


@dataclass(frozen=True)
class Part:
    """A launch, its kernel's name among the others, and its share of the operation's work."""

    launch: Launch
    name: str
    work: Work


def parts(call: Call, launches: Sequence[Launch]) -> list[Part]:
    """The launches of a call on the chip that kernels are chosen for."""
    apart = dict(filter(None, map(_between, call.arguments.values())))
    return [Part(launch, kernel_name(call, launch), work) for launch, work in shares(launches, work_of(call), apart)]


def _between(argument: Any) -> tuple[int, int] | None:
    """The address of an array with gaps between its images, and the size of all gaps in bytes."""
    flags = getattr(argument, "flags", None)
    if flags is None or not getattr(argument, "ndim", 0) or flags["C_CONTIGUOUS"]:
        return None
    own = math.prod(argument.shape[1:]) * int(argument.itemsize)
    return address_of(argument)[0], (int(argument.shape[0]) - 1) * (int(argument.strides[0]) - own)


def shares(launches: Sequence[Launch], work: Work, apart: Mapping[int, int] | None = None) -> list[tuple[Launch, Work]]:
    """The share of an operation's work that each of its launches does. A single launch does all of it. Several products share the
    arithmetic by threads; other launches, and products beside others, move each of their arrays once. A kernel's role tells what it is.
    apart: by address of an array, the bytes in gaps between its images, which do not count."""
    products = [launch for launch in launches if launch.role in ("product", "engine")]
    mains = products or [launch for launch in launches if launch.role != "adder"] or list(launches)
    threads = sum(launch.blocks * launch.threads for launch in mains)
    result = []
    for launch in launches:
        own = launch.array_bytes - sum((apart or {}).get(address_of(array)[0], 0) for array in launch.arrays)
        if not any(launch is main for main in mains):
            result.append((launch, Work(0, own)))
            continue
        part = launch.blocks * launch.threads / threads
        least = own if len(mains) == 1 < len(launches) else round(work.least_bytes * part)
        result.append((launch, Work(round(work.flops * part), least)))
    return result


def kernel_name(call: Call, launch: Launch) -> str:
    """The name of a launch's kernel, for readers who know that `call` made it, on the chip that kernels are chosen for."""
    if launch.role != "engine":
        return launch.name
    name = variant_name(call)
    if launch.name == "engine" and ("-tensor" in name or "-mma" in name):  # a class of pixels that is not left to tensor cores
        return f"{call.op}-{SHORT}"
    return name


def variant_name(call: Call) -> str:
    """The operation of a call with its selected variant: "conv2d-tile128x64", or "conv2d-tile128x64-cut". For an operation that is done in
    parts, the variant of the product among them."""
    op, row = call.op, OPERATIONS.get(call.op)
    if row is None or row.problem is None:
        return op
    problem = row.problem(call.arguments)
    choice = select.choose(problem)
    if choice.apart and row.product is not None:
        op = row.product
        inner = OPERATIONS[op].problem
        assert inner is not None
        problem = inner(call.arguments)
        choice = select.choose(problem)
    return f"{op}-{choice.name}{'' if problem.cuts or choice.slices == 1 else CUT}"
