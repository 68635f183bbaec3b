"""Measures the CPU device: its operations one by one within whole steps, against this machine's own ceilings."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpucnn
from gpucnn.device import get_device
from gpucnn.layers import replayed
from gpucnn.ops.cpu import _engine, _threads
from gpucnn.profiling.measure import against_torch
from gpucnn.profiling.measure.statistics import summarize
from gpucnn.profiling.measure.timing import HostClock, measure
from gpucnn.profiling.records import Ceilings, Profile, Row, Step, Timing
from gpucnn.profiling.what import correct, memory, roofline
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import sizes_of, work_of
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn.text import bytes_text

WARM_UP = 3  # steps
LEAST_STEPS, MOST_STEPS = 10, 100
BUDGET = 6.0  # seconds; the least number of steps is taken, however long they last
COPY = 64 << 20  # bytes of the copied array: more than any cache
SIDE = 1536  # of the matrices whose product is timed

BUSY = 0.7  # threads for each core over the last minute, before this began

Say = Callable[[str], None]


def profile(workload: Workload, selection: Selection, torch: Any, say: Say) -> Profile:
    """Measures a workload on the CPU device; beside PyTorch where `torch` is that module."""
    load = _load()
    say("checking every operation against float64")
    calls, errors, roads = _checked(workload)
    bytes_by_buffer = memory.of_step(workload)
    say("measuring the machine's ceilings")
    before = measure_ceilings()
    say("measuring steps")
    steps, times, starts = _timed(workload, len(calls))
    recorded = _recorded(workload)
    ceilings = _higher(before, measure_ceilings())
    if torch is not None:
        torch.set_num_threads(_threads.threads())
    rows = []
    for index, call in enumerate(calls):
        if not selection.takes(call, workload.model):
            continue
        work = work_of(call)
        compared = None
        if torch is not None:
            compared = against_torch.compare(call, torch, HostClock())
        rows.append(
            Row(
                layer=call.layer,
                phase=call.phase,
                op=call.op,
                kernel=call.op,
                shape=sizes_of(call),
                flops=work.flops,
                bytes=work.least_bytes,
                roofline=roofline.seconds(work, ceilings),
                wall=roofline.wall(work, ceilings),
                time=summarize(times[index]),
                warm=compared.own if compared else None,
                start=summarize(starts[index]).median,
                error=errors[index],
                road=roads[index],
                reference=compared.torch if compared else None,
                ratio=compared.ratio if compared else None,
            )
        )
    notes = []
    if load > BUSY * (os.cpu_count() or 1):
        notes.append(f"the machine was busy: {load:.1f} threads were waiting for its {os.cpu_count()} cores in the last minute")
    if any((row.of_roofline or 0) > 1 for row in rows):
        notes.append(
            "over 100 % of the roofline: a convolution by Winograd's algorithm does fewer multiplications than are counted, caches held "
            "data that are counted as read from memory, or the machine was busier when its ceilings were measured"
        )
    if torch is not None:
        notes.append(
            f"PyTorch {torch.__version__} on {_threads.threads()} threads, in turn with this library, each operation alone and warm"
        )
    kernels = summarize([sum(samples) for samples in zip(*times, strict=True)]).median
    return Profile(
        kind="cpu",
        model=workload.name,
        batch=workload.batch,
        device=_device(),
        ceilings=ceilings,
        rows=rows,
        step=Step(kernels=kernels, time=summarize(steps), graph=recorded, memory=bytes_by_buffer),
        notes=notes,
        only=selection.words,
    )


def measure_ceilings() -> Ceilings:
    """This machine's copy bandwidth and float32 product rate, on the threads that the operations use, and the cost of a minimal
    operation."""
    count = COPY // 4
    source, target = np.ones(count, np.float32), np.zeros(count, np.float32)

    def copy() -> None:
        _threads.slabs(lambda part: np.copyto(target[part], source[part]), count)

    a, b = (np.full((SIDE, SIDE), 0.5, np.float32) for _ in range(2))
    product = np.empty((SIDE, SIDE), np.float32)
    small = np.ones((1, 1), np.float32)
    relu, clock = get_device("cpu").ops.relu, HostClock()
    copying = measure(clock, [copy], budget=0.7)
    with _threads.blas_alike():
        multiplying = measure(clock, [lambda: np.matmul(a, b, out=product)], budget=0.7)
    launching = measure(clock, [lambda: relu(small)], budget=0.1)
    flops, told = 2 * SIDE**3 / multiplying.p10, f"a product of {SIDE}×{SIDE}"
    fastest = _engine.fastest()
    if fastest is not None and (most := 2 * fastest() / measure(clock, [fastest], budget=0.3).p10) > flops:
        flops, told = most, "multiply-adds in registers"
    # The fastest tenth: a ceiling is what the machine can do, not what it did under other load.
    return Ceilings(
        bandwidth=2 * COPY / copying.p10,
        flops=flops,
        launch=launching.median,
        source=f"measured before the steps and after: a copy of {bytes_text(COPY)}, reading and writing counted; "
        f"{told}; relu of one number",
    )


def _higher(one: Ceilings, other: Ceilings) -> Ceilings:
    """The higher of each: other load may have slowed the machine down before or after the steps, and a ceiling is what it can do."""
    return Ceilings(max(one.bandwidth, other.bandwidth), max(one.flops, other.flops), min(one.launch, other.launch), one.source)


def _checked(workload: Workload) -> tuple[list[Call], list[float | None], list[str]]:
    """The calls of a step, the error of each, and what computed it."""
    calls: list[Call] = []
    errors: list[float | None] = []
    roads: list[str] = []

    def listener(call: Call) -> Any:
        expected = correct.expect(call)
        result, road = _engine.road(call.run)
        calls.append(call)
        roads.append(road)
        errors.append(None if expected is None else expected.error(result))
        return result

    with workload.observer.listening(listener):
        workload.step()
    return calls, errors, roads


def _timed(workload: Workload, count: int) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Seconds of whole steps and of each call in them, with the time when it began."""
    times: list[list[float]] = [[] for _ in range(count)]
    starts: list[list[float]] = [[] for _ in range(count)]
    steps: list[float] = []
    clock = time.perf_counter
    begin, number = 0.0, 0

    def listener(call: Call) -> Any:
        nonlocal number
        start = clock()
        result = call.run()
        times[number].append(clock() - start)
        starts[number].append(start - begin)
        number += 1
        return result

    for _ in range(WARM_UP):
        workload.step()
    gc.collect()
    with workload.observer.listening(listener):
        while len(steps) < LEAST_STEPS or (len(steps) < MOST_STEPS and sum(steps) < BUDGET):
            begin, number = clock(), 0
            workload.step()
            steps.append(clock() - begin)
    return steps, times, starts


def _recorded(workload: Workload) -> Timing | None:
    """The time of a step where nobody observes its operations; None if it is not recorded then (layers/replayed.py)."""
    if workload.unobserved is None:
        return None
    alone, clock = workload.unobserved(), time.perf_counter
    steps: list[float] = []
    for _ in range(WARM_UP):
        alone.step()
    known = alone.model.chain.replayed
    if known is None or not any(isinstance(found, replayed.Step) for found in known.known.values()):
        return None
    while len(steps) < LEAST_STEPS or (len(steps) < MOST_STEPS and sum(steps) < BUDGET / 3):
        began = clock()
        alone.step()
        steps.append(clock() - began)
    return summarize(steps)


def _load() -> float:
    """The number of threads that wanted a core, on average over the last minute; 0 where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def _device() -> dict[str, str]:
    return {
        "chip": _processor(),
        "threads": str(_threads.threads()),
        "gpucnn": gpucnn.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    """The processor's name according to Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
