"""Compiles every kernel for an H100, and predicts the times in the documents' tables, from the machine code; no GPU is needed.

    python examples/predict.py [compiled times steps] [--seconds 350] [--stale] [--quick]
    python examples/measured_tables.py      # writes the tables of the documents

The results are files in kernels/predicted. What they already have is kept if none of the files that its kernels are made of has changed,
nor the predictor, nor the compilers. All of it takes an hour; --seconds ends a run early, with status 3, and the next goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import predictions
from common import finish, parse, whole
from kept import PREDICTED, Prepare, Results
from predictions import Asked

import gpucnn as gc
from gpucnn.precision import using
from gpucnn.profiling import run
from gpucnn.profiling.chip import bounds, chips, samples, sources
from gpucnn.profiling.chip import predict as predictor
from gpucnn.profiling.chip.chips import Chip
from gpucnn.profiling.chip.compiled import Compiler, folder
from gpucnn.profiling.show import report
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import OPERATIONS
from gpucnn_kernels.choose import select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.core.launch import Launch, recording
from gpucnn_kernels.engine.cut import cut_in

ARCH = "sm_90"
UNFIT = "0" * 16  # the mark of what no kernel can do


@cache
def compiler(arch: str) -> Compiler:
    return Compiler(arch, lambda text: None, folder())


def mark_of(launches: list[Launch], arch: str) -> str | None:
    """A hash of what launches are predicted from."""
    digest = hashlib.sha256(sources.content(sources.reached(predictor.__name__)))
    for launch in launches:
        one = compiler(arch).mark(launch)
        if one is None:
            return None
        digest.update(f"{one} {launch.blocks} {[_plain(argument) for argument in launch.arguments]}".encode())
    return digest.hexdigest()[:16]


def _plain(argument: Any) -> str:
    if isinstance(argument, (tuple, list)):
        return str([_plain(each) for each in argument])
    return str(argument.shape) if getattr(argument, "ndim", 0) else str(argument)


class Unfit(Exception):
    """No variant that is asked for can do the problem."""


def chosen(asked: Asked, call: Call, chip: Chip) -> str | select.Choice | None:
    """The variant that is asked for; None for the one that the rules select. Raises Unfit."""
    row = OPERATIONS[call.op]
    if row.problem is None or not (asked.variant or asked.slices):
        return None
    problem = row.problem(call.arguments)
    there = select.variants(problem)
    found = [each for each in VARIANTS[call.op] if each.name in there and fnmatch(each.name, asked.variant)]
    if asked.variant and not found:
        raise Unfit
    seen = select.current_chip()
    best = max(found, key=lambda each: each.weigh(problem, seen)[0]) if found else select.choose(problem).variant
    return select.choice(best, problem, asked.slices or best.weigh(problem, seen)[1])


def launched(asked: Asked, chip: Chip) -> list[Part]:
    """The launches of an operation."""
    observer, found = Observer(), list[Part]()

    def listener(call: Call) -> Any:
        if call.op != asked.op:
            return call.run()
        choice = chosen(asked, call, chip)
        with ExitStack() as stack:
            if choice is not None:
                stack.enter_context(select.override({call.op: choice}))
            launches = stack.enter_context(recording(launching=False))
            result = call.run()
            found.extend(parts(call, launches))
        return result

    with using(asked.precision), bounds.as_if_there(chip):
        work = workload.of_operation(asked.kind, asked.shape, bounds.device_of(chip), observer)
        with observer.listening(listener):
            work.step()
    return found


def predicted(found: list[Part], chip: Chip) -> dict[str, Any]:
    """µs of launches one after the other, their names, what limits the longest, and which of their tiles are cut."""
    own = compiler(chip.arch)
    made, cut = [], []
    for part in found:
        program = own.program(part.launch)
        if program is None:
            raise gc.GpucnnError("; ".join(own.notes))
        made.append(predictor.predict(part.launch, part.work, program, own.compiled(part.launch).occupancy, chip))
        slices = cut_in(part.launch.arguments, part.launch.blocks)
        if slices is not None and slices.rest:
            cut.append(f"{slices.rest} of {slices.tiles} into {slices.slices}")
    names = list(dict.fromkeys(part.name for part in found))
    limit = max(made, key=lambda each: each.seconds).limit
    return {"µs": microseconds(sum(each.seconds for each in made)), "kernels": names, "limit": limit, "cut": list(dict.fromkeys(cut))}


def microseconds(seconds: float) -> float:
    return float(f"{seconds * 1e6:.4g}")


def times() -> Iterator[tuple[str, Prepare]]:
    """The predictions in the tables."""
    for asked in predictions.everything():
        yield asked.key, partial(time_of, asked)


def time_of(asked: Asked) -> tuple[str | None, Callable[[], dict[str, Any]]]:
    chip = chips.find(asked.chip)
    try:
        found = launched(asked, chip)
    except Unfit:
        return UNFIT, lambda: {"µs": None}
    return mark_of([part.launch for part in found], chip.arch), partial(predicted, found, chip)


def compiled() -> Iterator[tuple[str, Prepare]]:
    """What the compiler says of every kernel."""
    seen = set[str]()
    for each in samples.kernels(chips.find(ARCH)):
        key = f"{each.sample or '–'} {each.part.name} {each.launch.blocks} × {each.launch.threads}"
        while key in seen:  # kernels that differ in what is not shown
            key += " again"
        seen.add(key)
        yield key, partial(kernel, each)


def kernel(one: samples.Kernel) -> tuple[str | None, Callable[[], dict[str, Any]]]:
    return compiler(ARCH).mark(one.launch), partial(resources, one)


def resources(kernel: samples.Kernel) -> dict[str, Any]:
    """The entry of a kernel."""
    found = compiler(ARCH).compiled(kernel.launch)
    return {
        "sample": kernel.sample,
        "kernel": kernel.part.name,
        "blocks": kernel.launch.blocks,
        "threads": kernel.launch.threads,
        "registers": found.registers,
        "spills": found.spills,
        "stack": found.stack,
        "float64": found.float64,
        "shared": found.shared,
        "occupancy": found.occupancy,
        "loop": [found.loop.fma, found.loop.instructions] if found.loop else None,
    }


def steps() -> Iterator[tuple[str, Prepare]]:
    """What the named shapes need, and whole training steps of 128 images."""
    yield "H200, shapes", needs
    for chip, network in predictions.STEPS:
        yield f"{chip}, {network}", partial(step_of, chip, network)


def needs() -> tuple[str | None, Callable[[], dict[str, Any]]]:
    """The report on the kernels that an H200 would use for the named shapes."""
    chip = chips.find("H200")
    launches = [each.launch for sample in samples.SHAPES for each in samples.launched(sample, chip)]
    wanted = run.Options(arch="H200", kernels=bounds.NAMED_SHAPES)
    return mark_of(launches, chip.arch), lambda: {"report": list(report.lines(run.make(wanted, lambda text: None)))}


def step_of(name: str, network: str) -> tuple[str | None, Callable[[], dict[str, Any]]]:
    chip = chips.find(name)
    with bounds.as_if_there(chip):
        work = workload.of_model(network, 128, bounds.device_of(chip), Observer())
    launches = [launch for _, found, _ in bounds.record(work, chip) for launch in found]
    return mark_of(launches, chip.arch), partial(step, name, network)


def step(chip: str, network: str) -> dict[str, Any]:
    """µs of a step: one kernel after the other, and with branches side by side; and its report."""
    made = run.make(run.Options(model=network, arch=chip), lambda text: None)
    if made.step.predicted is None:
        raise gc.GpucnnError("; ".join(made.notes))
    kernels = [(row.layer, row.op, row.kernel, microseconds(row.predicted or 0.0), row.limit) for row in made.rows]
    turns = sum(row.predicted or 0.0 for row in made.rows)
    lines = {"report": list(report.lines(made))} if (chip, network) == ("H100", "keras") else {}
    return {"µs": microseconds(made.step.predicted), "in turn": microseconds(turns), "kernels": kernels, **lines}


WORK: dict[str, Callable[[], Iterator[tuple[str, Prepare]]]] = {"times": times, "compiled": compiled, "steps": steps}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*WORK, []], help=f"which of the files {', '.join(WORK)} [all]")
    parser.add_argument("--seconds", type=whole(), metavar="N", help="end after so many seconds, with status 3 if something is left")
    parser.add_argument("--stale", action="store_true", help="compile nothing: list what is out of date, with status 3 if anything is")
    parser.add_argument("--output", type=Path, default=PREDICTED, metavar="FOLDER", help="the folder of the files [kernels/predicted]")
    parser.add_argument("--most", type=whole(), metavar="N", help="only the first so many of each file [all]")
    options = parse(parser, most=1)
    until = time.monotonic() + options.seconds if options.seconds else math.inf
    status = 0
    for name in options.what or WORK:
        results = Results(options.output / f"{name}.json", until, stale=options.stale)
        try:
            for key, prepare in islice(WORK[name](), options.most):
                results.keep(key, prepare)
            results.done = options.most is None
        finally:
            status = max(status, results.close())
    return status


if __name__ == "__main__":
    finish(main)
