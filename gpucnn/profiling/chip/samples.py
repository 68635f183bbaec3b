"""Finds every kernel by its launches: the samples of all operations run, with launches recorded instead of executed. So the kernels that
are compiled and shown are those that the launchers launch, on the chip that kernels are selected for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn.device import Device
from gpucnn.profiling.chip.chips import Chip
from gpucnn.profiling.measure import fma
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import OPERATIONS, conv, pool
from gpucnn.profiling.what.operations import SAMPLES as OF_OPERATIONS
from gpucnn.profiling.what.operations.sample import Sample, floats
from gpucnn.profiling.what.shapes import CONV_SHAPES, POOL_SHAPES
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.choose import select
from gpucnn_kernels.core.launch import Launch, recording


@dataclass(frozen=True)
class Kernel:
    """A kernel, represented by a launch in a sample, and the call that launched it (None if no operation runs it)."""

    sample: str
    part: Part = field(repr=False)
    call: Call | None = field(repr=False)

    @property
    def launch(self) -> Launch:
        return self.part.launch

    @property
    def name(self) -> str:
        """Its name and that of the sample that launched it, which together identify it."""
        return f"{self.part.name} {self.sample}".strip()


SAMPLES = (*OF_OPERATIONS, Sample("", lambda ops: fma.fma(floats(1), 1, 1)))  # and the kernel that measures a chip

SHAPES = (  # the named shapes, with the kernels that the chip would use
    *(Sample(shape.name, conv.convolutions(shape.n, shape.c, shape.k, shape.window, relu=False), False) for shape in CONV_SHAPES),
    *(Sample(each.name, pool.max_pooling(each.n, each.c, each.window), False) for each in POOL_SHAPES),
)


def launched(sample: Sample, chip: Chip) -> list[Kernel]:
    """The kernels that a sample launches on a chip, in order."""
    from gpucnn.ops import cuda

    found: list[Kernel] = []
    observer = Observer()

    def add(call: Call) -> Any:
        with recording(launching=False) as launches:
            result = call.run()
        found.extend(Kernel(sample.name, part, call) for part in parts(call, launches))
        return result

    def listener(call: Call) -> Any:
        row, result = OPERATIONS[call.op], None
        if row.problem is None or not sample.variants:
            return add(call)
        problem = row.problem(call.arguments)
        for variant in select.variants(problem):
            choice = select.choose(problem, variant)
            ways = [choice]
            if choice.variant.slices and not problem.cuts:  # kernels that can cut sums, and those that cannot
                ways = [select.choice(choice.variant, problem, slices) for slices in (1, chip.sms)]
            for way in ways:
                with select.override({call.op: way}):
                    result = add(call)
        return result

    device = observer.device(Device("cuda", chip.name, np, cuda))
    there = select.for_chip(chip.sms, capability=chip.architecture.capability)
    with there, recording(launching=False) as beside, observer.listening(listener):
        sample.run(device.ops)
    for each in beside:  # kernels that no operation launches
        found.append(Kernel(sample.name, Part(each, each.name, Work(0, each.array_bytes)), None))
    return found


def kernels(chip: Chip) -> list[Kernel]:
    """Every kernel for a chip, once each. Of several launches of a kernel, the first one counts, preferably by an operation that consists
    of this kernel alone."""
    everything = [each for sample in SAMPLES for each in launched(sample, chip)]
    everything.sort(key=_in_parts)
    found: dict[Any, Kernel] = {}
    for each in everything:
        launch = each.launch
        found.setdefault((id(launch.kernel), launch.signature, launch.threads, launch.shared), each)
    return list(found.values())


def _in_parts(kernel: Kernel) -> bool:
    """Whether it was launched by an operation that may consist of other operations' kernels, one after the other."""
    return kernel.call is not None and OPERATIONS[kernel.call.op].product is not None
