"""How long the kernels of a network's first training step take to compile, in one process and in several.

    python examples/first_step.py --model keras --arch H100 --processes 2

No GPU is needed: the kernels are compiled for the chip and kept nowhere. Measured is a process with an empty cache, from the first kernel
to the last: seconds by the clock, and of the processor in this process and in all. Where other programs run, the latter say more. Predicted
are the seconds where each process has a core: kernels are handed out as `fit` does it, each takes as much of a processor as it took in one
process, and so does the start of a process.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common import finish, parse, whole

from gpucnn.device import simulated
from gpucnn.errors import DeviceError
from gpucnn.ops.cpu._threads import threads

PREDICTED = (4, 8, 16)  # processes


def launches(model: str, arch: str) -> tuple[list[Any], Any]:
    """The launches of a training step with those that order an epoch, and what is compiled for."""
    from gpucnn.profiling.chip import bounds, chips
    from gpucnn.profiling.what import workload
    from gpucnn.profiling.what.observe import Observer

    chip = chips.find(arch)
    with bounds.as_if_there(chip) as found:
        workload.of_model(model, 128, bounds.device_of(chip), Observer()).step()
    capability = chip.architecture.capability
    return found, (capability, (*capability, "a" if capability >= (9, 0) else ""), ("no GPU", capability))


@contextmanager
def timed(jobs: list[Any]) -> Iterator[list[tuple[str, float]]]:
    """Seconds of the processor for what is compiled in this process."""
    taken: list[tuple[str, float]] = []
    for job in jobs:

        def compile_timed(signature: Any, job: Any = job, real: Any = job.kernel.compile) -> None:
            began = time.process_time()
            real(signature)
            taken.append((job.kernel.py_func.__name__.removesuffix("_kernel"), time.process_time() - began))

        job.kernel.compile = compile_timed
    yield taken


def compiled(model: str, arch: str, processes: int, most: int) -> dict[str, Any]:
    """Compiles all, or `most`, kernels here and in other processes: kernels with seconds, and seconds of the clock, here, and in all."""
    from gpucnn_kernels.core import crew
    from gpucnn_kernels.core._numba import without_driver

    found, target = launches(model, arch)
    with without_driver(target):
        jobs = crew.waiting(found)
        jobs = sorted(jobs, key=lambda job: len(crew._packed(job) or b""))[:most]
        before, own, began = used(), time.process_time(), time.perf_counter()
        with timed(jobs) as taken:
            crew.compile_all(jobs, processes)
        seconds = time.perf_counter() - began, time.process_time() - own, used() - before
        return {"kernels": taken, "count": len(jobs), "seconds": seconds}


def used() -> float:
    """Seconds of the processor so far, in this process and in those that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def start_of_a_process() -> float:
    """Seconds of the processor until a process is ready for its first kernel."""
    command = [sys.executable, "-P", "-W", "ignore", "-m", "gpucnn_kernels.core.worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    before = used()
    target = pickle.dumps(((9, 0), (9, 0, "a"), ()))
    subprocess.run(command, input=target, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, check=True)
    return used() - before


def predicted(kernels: list[tuple[str, float]], processes: int, start: float) -> float:
    """Seconds where each process has a core: the largest kernels first, each to whoever is free first."""
    free = [0.0] + [start] * (processes - 1)
    end = 0.0
    for _, seconds in sorted(kernels, key=lambda each: -each[1]):
        first = min(range(len(free)), key=free.__getitem__)
        free[first] += seconds
        end = max(end, free[first])
    return end


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="keras", help="a network by name, or a file that train wrote")
    parser.add_argument("--arch", default="H100", help="the chip, as for gpucnn profile --arch")
    parser.add_argument("--processes", type=whole(2, 1024), default=max(2, threads()), help="beside one (default: the cores)")
    parser.add_argument("--kernels", type=whole(), default=10_000, help="the smallest kernels alone, so many")
    parser.add_argument("--once", type=whole(), help=argparse.SUPPRESS)  # a measurement, in a process of its own
    options = parse(parser, kernels=2)
    if simulated():
        raise DeviceError("Numba's CUDA simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM")
    if options.once is not None:
        print(json.dumps(compiled(options.model, options.arch, options.once, options.kernels)))
        return 0
    from gpucnn.profiling.chip import static

    launches(options.model, options.arch)  # which says what is wrong with the options
    try:
        static.check_compilers()
    except static.ToolchainError as error:
        raise DeviceError(str(error)) from None
    found = {}
    for processes in (1, options.processes):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--once", str(processes), "--kernels", str(options.kernels)]
            command += ["--model", options.model, "--arch", options.arch]
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "GPUCNN_KERNEL_CACHE": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[processes] = json.loads(done.stdout.splitlines()[-1])
    alone = found[1]
    for name, seconds in sorted(alone["kernels"], key=lambda each: -each[1]):
        print(f"{name:<40} {seconds:5.1f} s")
    print(f"{options.model} on {options.arch}: {alone['count']} kernels")
    start = start_of_a_process()
    for processes in sorted({1, options.processes, *PREDICTED}):
        words = "process,  " if processes == 1 else "processes,"
        line = f"{processes:4} {words} predicted {predicted(alone['kernels'], processes, start):5.1f} s"
        if processes in found:
            clock, own, everywhere = found[processes]["seconds"]
            line += f", measured {clock:5.1f} s: of the processor {own:5.1f} s here, {everywhere:5.1f} s in all"
        print(line)
    return 0


if __name__ == "__main__":
    finish(main)
