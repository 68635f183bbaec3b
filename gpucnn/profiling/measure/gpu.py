"""The kernels measured on a GPU: each by itself, replayed from the launch that a real step made, and the step as a whole.

CuPy is the device's `xp`. All work is on one stream, which is not the default one because that cannot be captured. A launch is replayed on
copies of its arrays, as many as it takes to fill the second-level cache three times over, and captured as a graph with others like it, so
that the host, which takes longer over a launch than many kernels last, is no part of the time.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gpucnn
from gpucnn.profiling.chip import bounds, static
from gpucnn.profiling.chip.chips import ARCHITECTURES, Architecture
from gpucnn.profiling.measure import against_torch, fma, nsight
from gpucnn.profiling.measure.statistics import summarize
from gpucnn.profiling.measure.timing import BUDGET, HostClock, Work, buffers_needed, measure
from gpucnn.profiling.records import Ceilings, Profile, Row, Step, Timing
from gpucnn.profiling.what import correct, memory, roofline
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import sizes_of
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn.text import bytes_text
from gpucnn_kernels.core.launch import Launch, address_of, external_stream, recording, unsynchronized

WARM_UP, STEPS = 5, 30
ROOM = 4  # a part in so many of the free memory may go to copies
TURNS = 512  # of the FMA kernel's loop: some hundred microseconds

Say = Callable[[str], None]


class EventClock:
    """CUDA's events on a stream. A batch is a graph; only launches may be in it, on arrays that are there already."""

    def __init__(self, xp: Any, stream: Any) -> None:
        self._stream = stream
        self._begin, self._end = xp.cuda.Event(), xp.cuda.Event()
        self._elapsed = xp.cuda.get_elapsed_time  # milliseconds

    def batch(self, runs: Sequence[Work]) -> Work:
        """The runs as one graph."""
        collecting = gc.isenabled()
        gc.disable()  # a graph or an event that is collected meanwhile would break the capture off
        self._stream.begin_capture()
        try:
            for run in runs:
                run()
        except BaseException:
            with contextlib.suppress(Exception):  # the stream is of no use to anybody while it is being captured
                self._stream.end_capture()
            raise
        finally:
            if collecting:
                gc.enable()
        return functools.partial(self._stream.end_capture().launch, self._stream)

    def time(self, work: Work) -> float:
        """Seconds between an event before the work and one after it."""
        self._begin.record(self._stream)
        work()
        self._end.record(self._stream)
        self._end.synchronize()
        return float(self._elapsed(self._begin, self._end)) * 1e-3


class _ReplayClock(EventClock):
    """For work that is a graph already, or belongs to another library: a batch is a loop."""

    def batch(self, runs: Sequence[Work]) -> Work:
        return HostClock().batch(runs)


@dataclass(frozen=True)
class Recorded:
    """A call of a step, with its launches and how far off its result was."""

    call: Call
    launches: list[Launch]
    error: float | None


@dataclass(frozen=True)
class Gpu:
    """What is known of the GPU."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    cache: int  # bytes of the second level
    memory: int
    architecture: Architecture | None


def profile(workload: Workload, selection: Selection, torch: Any, say: Say, arguments: list[str]) -> Profile:
    """Measures a workload on the GPU; beside PyTorch where `torch` is that module. `arguments` are the command's, for Nsight."""
    xp = workload.model.device.xp
    gpu = describe(xp)
    xp.cuda.Device().synchronize()  # the batch and the parameters were put there on another stream
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        clock = EventClock(xp, stream)
        nsight.name_kernels(planned(workload))
        say("checking every operation against float64")
        recorded = record(workload)
        bytes_by_buffer = memory.of_step(workload, xp.get_default_memory_pool().used_bytes)
        say("measuring the chip's ceilings")
        ceilings = measure_ceilings(xp, stream, clock, gpu)
        say("measuring steps")
        eager, host, starts = _steps(workload, xp, stream, len(recorded))
        launches = [launch for item in recorded for launch in item.launches]
        graph = measure(clock, [functools.partial(_all, [_replay(launch, stream) for launch in launches])])
        rows: list[Row] = []
        places: list[int] = []  # of the rows among the launches
        first = 0
        for index, item in enumerate(recorded):
            own = range(first, first := first + len(item.launches))
            if not selection.takes(item.call, workload.model):
                continue
            say(f"measuring {item.call.op} of {item.call.layer}, {index + 1} of {len(recorded)}")
            places += own
            rows += _rows(item, starts[index], gpu, ceilings, xp, stream, clock, torch)
        with nsight.region(xp.cuda.runtime):
            workload.observer.on_phase = nsight.ranges()
            workload.step()
            workload.observer.on_phase = None
            stream.synchronize()
    kernels = sum(row.seconds for row in rows) if len(rows) == len(launches) else graph.median
    slowest = max(zip(rows, places, strict=True), key=lambda pair: pair[0].seconds, default=None)
    notes = ["each kernel is timed by itself, on data that no cache holds; in a step it finds some of what the kernel before it left there"]
    if torch is not None:
        notes.append(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, float32 without TF32, in turn, both as graphs")
    return Profile(
        kind="gpu",
        model=workload.name,
        batch=workload.batch,
        device=_words(gpu, xp),
        ceilings=ceilings,
        rows=rows,
        step=Step(kernels, time=eager, graph=graph, host=host, memory=bytes_by_buffer),
        notes=notes,
        commands={} if slowest is None else nsight.commands(launches, slowest[1], arguments),
        only=selection.words,
    )


def describe(xp: Any) -> Gpu:
    """The current GPU, as CUDA describes it."""
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
    major, minor = int(properties["major"]), int(properties["minor"])
    return Gpu(
        name=properties["name"].decode(),
        capability=(major, minor),
        multiprocessors=int(properties["multiProcessorCount"]),
        cache=int(properties["l2CacheSize"]),
        memory=int(properties["totalGlobalMem"]),
        architecture=ARCHITECTURES.get(f"sm_{major}{minor}"),
    )


def planned(workload: Workload) -> list[Part]:
    """What a step would launch; nothing is, and nothing is compiled."""
    found: list[Part] = []

    def listener(call: Call) -> Any:
        with recording(launching=False) as launches:
            result = call.run()
        found.extend(parts(call, launches))
        return result

    with workload.observer.listening(listener):
        workload.step()
    return found


def record(workload: Workload) -> list[Recorded]:
    """A step, every operation of which is held against the CPU's in float64. Runs two before, so that everything is compiled."""
    for _ in range(2):
        workload.step()
    found: list[Recorded] = []

    def listener(call: Call) -> Any:
        expected = correct.expect(call)
        with recording() as launches:
            result = call.run()
        found.append(Recorded(call, launches, None if expected is None else expected.error(result)))
        return result

    with workload.observer.listening(listener):
        workload.step()
    return found


def measure_ceilings(xp: Any, stream: Any, clock: EventClock, gpu: Gpu) -> Ceilings:
    """Copying from memory to memory, reading and writing counted; FMAs; and a kernel that has nothing to do."""
    count = max(256 << 20, 4 * gpu.cache)
    source, target = xp.zeros(count, "uint8"), xp.zeros(count, "uint8")
    pool, blocks = xp.zeros(1, "float32"), 16 * gpu.multiprocessors
    numba_stream = external_stream(stream.ptr)
    out = unsynchronized(pool)
    copying = measure(clock, [lambda: target.data.copy_from_device_async(source.data, count, stream)])
    computing = measure(clock, [lambda: fma.fma(out, blocks, TURNS, numba_stream)])
    nothing = measure(clock, [lambda: fma.fma(out, 1, 0, numba_stream)])
    # The quick tenth: a ceiling is what the chip can do, before it gets warm.
    return Ceilings(
        bandwidth=2 * count / copying.p10,
        flops=fma.fma_flops(blocks, TURNS) / computing.p10,
        launch=nothing.median,
        source=f"measured in this run: a copy of {bytes_text(count)}, reading and writing counted; a loop of FMAs; an empty kernel",
    )


def _steps(workload: Workload, xp: Any, stream: Any, count: int) -> tuple[Timing, Timing, list[float]]:
    """The step's time on the GPU, the host's time for launching it, and when each call began in it."""
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
    for _ in range(STEPS):  # by themselves: an event for each call takes the host's time
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


def _rows(item: Recorded, start: float, gpu: Gpu, ceilings: Ceilings, xp: Any, stream: Any, clock: EventClock, torch: Any) -> list[Row]:
    """A row for each launch of a call."""
    compared = None if torch is None else _against_torch(item, torch, xp, stream, clock)
    rows = []
    for part in parts(item.call, item.launches):
        launch, work = part.launch, part.work
        copies = buffers_needed(launch.array_bytes, gpu.cache, int(xp.cuda.runtime.memGetInfo()[0]) // ROOM)
        buffers = [_replay(launch, stream, copied=True) for _ in range(copies)]
        cold, warm = measure(clock, buffers), measure(clock, buffers[:1])
        del buffers
        registers, local, shared, occupancy, waves = _taken(launch, gpu)
        rows.append(
            Row(
                layer=item.call.layer,
                phase=item.call.phase,
                op=item.call.op,
                kernel=part.name,
                shape=sizes_of(item.call),
                flops=work.flops,
                bytes=work.least_bytes,
                roofline=roofline.seconds(work.flops, work.least_bytes, ceilings),
                wall=roofline.wall(work.flops, work.least_bytes, ceilings),
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


def _replay(launch: Launch, stream: Any, *, copied: bool = False) -> Work:
    """The launch, ready to be done again: on its own arrays, or on copies of them, of which those that were one stay one."""
    views = {address_of(array): unsynchronized(array.copy() if copied else array) for array in launch.arrays}
    arguments = tuple(views[address_of(argument)] if getattr(argument, "shape", ()) else argument for argument in launch.arguments)
    return functools.partial(launch.run, external_stream(stream.ptr), arguments)


def time_together(launches: Sequence[Launch], *, xp: Any, stream: Any, clock: EventClock, gpu: Gpu, budget: float = BUDGET) -> Timing:
    """The time of an operation's launches, one after the other, on data that no cache holds. `budget`: seconds for the samples."""
    size = sum(launch.array_bytes for launch in launches)
    copies = buffers_needed(size, gpu.cache, int(xp.cuda.runtime.memGetInfo()[0]) // ROOM)
    return measure(clock, [functools.partial(_all, _replays(launches, stream)) for _ in range(copies)], budget=budget)


def _replays(launches: Sequence[Launch], stream: Any) -> list[Work]:
    """The launches on copies of their arrays, where what one writes for the next stays one array."""
    views: dict[Any, Any] = {}
    for launch in launches:
        for array in launch.arrays:
            views.setdefault(address_of(array), unsynchronized(array.copy()))
    numba_stream = external_stream(stream.ptr)
    return [
        functools.partial(
            launch.run,
            numba_stream,
            tuple(views[address_of(argument)] if getattr(argument, "shape", ()) else argument for argument in launch.arguments),
        )
        for launch in launches
    ]


def _all(runs: Sequence[Work]) -> None:
    for run in runs:
        run()


def _against_torch(item: Recorded, torch: Any, xp: Any, stream: Any, clock: EventClock) -> against_torch.Compared | None:
    """The call's launches and PyTorch's, both as graphs on the same stream."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the fastest that cuDNN has
    own = clock.batch([_replay(launch, stream) for launch in item.launches])

    def as_graph(reference: Work) -> Work:
        for _ in range(3):  # picks its algorithm, allocates
            reference()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            reference()
        return graph.replay  # type: ignore[no-any-return]

    with torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
        return against_torch.compare(item.call, torch, _ReplayClock(xp, stream), own=own, prepared=as_graph)


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
