"""Measures kernels on a GPU: each by itself, replayed from the launch in a real step, and the step as a whole."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gpucnn
from gpucnn.layers.beside import lent
from gpucnn.profiling.chip import bounds, static
from gpucnn.profiling.measure import against_torch, fma, nsight
from gpucnn.profiling.measure.bench import Bench, Gpu, ReplayClock
from gpucnn.profiling.measure.statistics import summarize
from gpucnn.profiling.measure.timing import Run, measure
from gpucnn.profiling.records import Ceilings, Profile, Row, Step, Timing
from gpucnn.profiling.what import correct, memory, roofline
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import sizes_of
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn.text import bytes_text
from gpucnn_kernels.core.launch import Launch, external_stream, recording, unsynchronized

WARM_UP, STEPS = 5, 30
TURNS = 512  # of the FMA kernel's loop: some hundred microseconds

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recorded:
    """A call of a step, with its launches and the error of its result."""

    call: Call
    launches: list[Launch]
    error: float | None


def profile(workload: Workload, selection: Selection, torch: Any, say: Say, arguments: list[str]) -> Profile:
    """Measures a workload on the GPU; beside PyTorch where `torch` is that module. `arguments` are the command's, for Nsight."""
    xp = workload.model.device.xp
    xp.cuda.Device().synchronize()  # the batch and the parameters were put there on another stream
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        bench = Bench.on(xp, stream)
        nsight.name_kernels(planned(workload))
        say("checking every operation against float64")
        forks = bounds.Forks()
        recorded = record(workload, forks)
        bytes_by_buffer = memory.of_step(workload, xp.get_default_memory_pool().used_bytes)
        say("measuring the chip's ceilings")
        ceilings = measure_ceilings(bench)
        say("measuring steps")
        eager, host, starts = _steps(workload, bench, len(recorded))
        launches = [launch for item in recorded for launch in item.launches]
        # No two launches share memory, because all their arguments are still held: so those of two branches may overlap.
        branches = [branch for branch, item in zip(forks.branches, recorded, strict=True) for _ in item.launches]
        graph = measure(bench.clock, [bench.side_by_side(bench.replays(launches, copied=False), branches)])
        rows: list[Row] = []
        indices: list[int] = []  # positions of the rows among the launches
        first = 0
        for index, item in enumerate(recorded):
            own = range(first, first := first + len(item.launches))
            if not selection.takes(item.call, workload.model):
                continue
            say(f"measuring {item.call.op} of {item.call.layer}, {index + 1} of {len(recorded)}")
            indices += own
            rows += _rows(item, starts[index], bench, ceilings, torch)
        with nsight.region(xp.cuda.runtime):
            workload.observer.on_phase = nsight.ranges()
            workload.step()
            workload.observer.on_phase = None
            stream.synchronize()
    kernels = sum(row.seconds for row in rows) if len(rows) == len(launches) else graph.median
    slowest = max(zip(rows, indices, strict=True), key=lambda pair: pair[0].seconds, default=None)
    notes = ["each kernel is timed by itself, on data that no cache holds; in a step it finds some of what the kernel before it left there"]
    if torch is not None:
        notes.append(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, float32 without TF32, in turn, both as graphs")
    return Profile(
        kind="gpu",
        model=workload.name,
        batch=workload.batch,
        device=_words(bench.gpu, xp),
        ceilings=ceilings,
        rows=rows,
        step=Step(kernels, time=eager, graph=graph, host=host, memory=bytes_by_buffer),
        notes=notes,
        commands={} if slowest is None else nsight.commands(launches, slowest[1], arguments),
        only=selection.words,
    )


def planned(workload: Workload) -> list[Part]:
    """The launches that a step would make: nothing is launched or compiled."""
    found: list[Part] = []

    def listener(call: Call) -> Any:
        with recording(launching=False) as launches:
            result = call.run()
        found.extend(parts(call, launches))
        return result

    with workload.observer.listening(listener):
        workload.step()
    return found


def record(workload: Workload, forks: bounds.Forks) -> list[Recorded]:
    """A step in which every operation is compared with the CPU's in float64. Two steps run before it, so that everything is compiled.
    forks: records the forks of each call."""
    for _ in range(2):
        workload.step()
    found: list[Recorded] = []

    def listener(call: Call) -> Any:
        expected = correct.expect(call)
        with recording() as launches:
            result = call.run()
        found.append(Recorded(call, launches, None if expected is None else expected.error(result)))
        forks.called()
        return result

    with workload.observer.listening(listener), lent(forks):
        workload.step()
    return found


def measure_ceilings(bench: Bench) -> Ceilings:
    """The rates of copying, counting reads and writes, and of FMAs, and the time of an empty kernel."""
    xp, stream, clock, gpu = bench.xp, bench.stream, bench.clock, bench.gpu
    count = max(256 << 20, 4 * gpu.cache)
    source, target = xp.zeros(count, "uint8"), xp.zeros(count, "uint8")
    pool, blocks = xp.zeros(1, "float32"), 16 * gpu.multiprocessors
    numba_stream = external_stream(stream.ptr)
    out = unsynchronized(pool)
    copying = measure(clock, [lambda: target.data.copy_from_device_async(source.data, count, stream)])
    computing = measure(clock, [lambda: fma.fma(out, blocks, TURNS, numba_stream)])
    nothing = measure(clock, [lambda: fma.fma(out, 1, 0, numba_stream)])
    # The fastest tenth: a ceiling is what the chip can do before it gets warm.
    return Ceilings(
        bandwidth=2 * count / copying.p10,
        flops=fma.fma_flops(blocks, TURNS) / computing.p10,
        launch=nothing.median,
        source=f"measured in this run: a copy of {bytes_text(count)}, reading and writing counted; a loop of FMAs; an empty kernel",
    )


def _steps(workload: Workload, bench: Bench, count: int) -> tuple[Timing, Timing, list[float]]:
    """The step's time on the GPU, the host's time for launching it, and when each call began in it."""
    xp, stream = bench.xp, bench.stream
    elapsed = xp.cuda.get_elapsed_time  # milliseconds
    begin, end = xp.cuda.Event(), xp.cuda.Event()
    marks = [xp.cuda.Event() for _ in range(count)]
    for _ in range(WARM_UP):
        workload.step()
    steps: list[float] = []
    hosts: list[float] = []
    starts: list[list[float]] = [[] for _ in range(count)]
    for _ in range(STEPS):
        stream.synchronize()
        start = time.perf_counter()
        begin.record(stream)
        workload.step()
        end.record(stream)
        hosts.append(time.perf_counter() - start)
        end.synchronize()
        steps.append(float(elapsed(begin, end)) * 1e-3)
    for _ in range(STEPS):  # separately: an event for each call takes host time
        order = itertools.count()

        def listener(call: Call, order: Any = order) -> Any:
            marks[next(order)].record(stream)
            return call.run()

        begin.record(stream)
        with workload.observer.listening(listener):
            workload.step()
        stream.synchronize()
        for own, mark in zip(starts, marks, strict=True):
            own.append(float(elapsed(begin, mark)) * 1e-3)
    return summarize(steps), summarize(hosts), [summarize(own).median for own in starts]


def _rows(item: Recorded, start: float, bench: Bench, ceilings: Ceilings, torch: Any) -> list[Row]:
    """A row for each launch of a call."""
    compared = None if torch is None else _against_torch(item, torch, bench)
    rows = []
    for part in parts(item.call, item.launches):
        launch, work = part.launch, part.work
        buffers = [run for _ in range(bench.copies(launch.array_bytes)) for run in bench.replays([launch], copied=True)]
        cold, warm = measure(bench.clock, buffers), measure(bench.clock, buffers[:1])
        del buffers
        registers, local, shared, occupancy, waves = _taken(launch, bench.gpu)
        rows.append(
            Row(
                layer=item.call.layer,
                phase=item.call.phase,
                op=item.call.op,
                kernel=part.name,
                shape=sizes_of(item.call),
                flops=work.flops,
                bytes=work.least_bytes,
                roofline=roofline.seconds(work, ceilings),
                wall=roofline.wall(work, ceilings),
                blocks=launch.blocks,
                threads=launch.threads,
                time=cold,
                warm=warm,
                start=start,
                error=item.error,
                registers=registers,
                spills=local,
                shared=shared,
                occupancy=occupancy,
                waves=waves,
                reference=compared.torch if compared else None,
                ratio=compared.ratio if compared else None,
            )
        )
        start += cold.median
    return rows


def _taken(launch: Launch, gpu: Gpu) -> tuple[int | None, int | None, int | None, float | None, float | None]:
    """Registers, local memory, shared memory, occupancy and waves of a compiled kernel."""
    compiled = launch.kernel.overloads.get(launch.signature)
    if compiled is None:
        return None, None, None, None, None
    registers, local, shared = int(compiled.regs_per_thread), int(compiled.local_mem_per_thread), int(compiled.shared_mem_per_block)
    shared += launch.shared
    if gpu.architecture is None:
        return registers, local, shared, None, None
    occupancy = static.occupancy(gpu.architecture, launch.threads, registers, shared)
    return registers, local, shared, occupancy, bounds.waves(launch, occupancy, gpu.architecture, gpu.multiprocessors)


def _against_torch(item: Recorded, torch: Any, bench: Bench) -> against_torch.Compared | None:
    """The call's launches and PyTorch's, both as graphs on the same stream."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the fastest that cuDNN has
    own = bench.clock.batch(bench.replays(item.launches, copied=False))

    def as_graph(reference: Run) -> Run:
        for _ in range(3):  # picks its algorithm, allocates
            reference()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            reference()
        return graph.replay  # type: ignore[no-any-return]

    with torch.cuda.stream(torch.cuda.ExternalStream(bench.stream.ptr)):
        return against_torch.compare(item.call, torch, ReplayClock(bench.xp, bench.stream), own=own, prepared=as_graph)


def _words(gpu: Gpu, xp: Any) -> dict[str, str]:
    numbers = xp.cuda.runtime.driverGetVersion(), xp.cuda.runtime.runtimeGetVersion()
    driver, runtime = (f"{number // 1000}.{number % 1000 // 10}" for number in numbers)
    return {
        "chip": gpu.name,
        "compute capability": ".".join(map(str, gpu.capability)),
        "multiprocessors": str(gpu.multiprocessors),
        "second-level cache": bytes_text(gpu.cache),
        "memory": bytes_text(gpu.memory),
        "driver's CUDA": driver,
        "CUDA": runtime,
        "gpucnn": gpucnn.__version__,
        "CuPy": xp.__version__,
        "Python": platform.python_version(),
    }
