"""The GPU's part on a stand-in: NumPy arrays, events that show recorded times, launches that are only written down.

What a stand-in cannot show is whether CUDA does what CuPy's documentation says; everything else about the measuring is tried here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn.device import Device, simulated
from gpucnn.profiling.measure import bench, gpu, nsight
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn.profiling.what.workload import Selection
from gpucnn_kernels.core.launch import Launch, recording

pytestmark = pytest.mark.skipif(simulated(), reason="the simulator has no signatures")


class Machine:
    """A GPU's clock: it stands still but for what is put on the stream."""

    def __init__(self) -> None:
        self.now = 0.0
        self.captured: list[float] | None = None
        self.done: list[str] = []
        self.streams: list[Any] = []

    def work(self, name: str, seconds: float) -> None:
        self.done.append(name)
        if self.captured is not None:
            self.captured.append(seconds)
        else:
            self.now += seconds


def stand_in(machine: Machine) -> Any:
    """CuPy, as far as gpu.py asks for it."""

    class Event:
        at = 0.0

        def __init__(self, disable_timing: bool = False) -> None:
            self.timing = not disable_timing

        def record(self, stream: Any) -> None:
            assert machine.captured is None or not self.timing, "an event in a graph shows nothing"
            self.at = machine.now

        def synchronize(self) -> None: ...

    class Stream:
        count = 6

        def __init__(self, non_blocking: bool = False) -> None:
            assert non_blocking, "the default stream cannot be captured"
            Stream.count += 1
            self.ptr = Stream.count  # 7 for the first, where all is measured

        def __enter__(self) -> Any:
            machine.streams.append(self)
            return self

        def __exit__(self, *exception: object) -> None:
            machine.streams.pop()

        def record(self, event: Event) -> Any:
            assert not event.timing
            machine.done.append(f"{self.ptr} recorded")
            return self

        def wait_event(self, event: Any) -> None:
            machine.done.append(f"{self.ptr} waits for {event.ptr}")

        def synchronize(self) -> None: ...

        def begin_capture(self) -> None:
            assert machine.captured is None
            machine.captured = []

        def end_capture(self) -> Any:
            captured, machine.captured = machine.captured, None
            assert captured is not None
            return SimpleNamespace(launch=lambda stream: machine.work("graph", sum(captured)))

    properties = {
        "major": 9,
        "minor": 0,
        "name": b"A stand-in",
        "multiProcessorCount": 132,
        "l2CacheSize": 1 << 20,
        "totalGlobalMem": 1 << 30,
    }
    runtime = SimpleNamespace(
        getDeviceProperties=lambda number: properties,
        memGetInfo=lambda: (1 << 28, 1 << 30),
        driverGetVersion=lambda: 13010,
        runtimeGetVersion=lambda: 13000,
        profilerStart=lambda: machine.done.append("start"),
        profilerStop=lambda: machine.done.append("stop"),
    )
    cuda = SimpleNamespace(
        Event=Event,
        Stream=Stream,
        get_current_stream=lambda: machine.streams[-1],
        Device=lambda: SimpleNamespace(id=0, synchronize=lambda: None),
        get_elapsed_time=lambda begin, end: (end.at - begin.at) * 1e3,
        runtime=runtime,
    )

    def zeros(count: int, kind: str) -> Any:
        def copy(other: Any, size: int, stream: Any) -> None:
            machine.work("copy", 2 * size / 1e12)

        return SimpleNamespace(data=SimpleNamespace(copy_from_device_async=copy)) if kind == "uint8" else np.zeros(count, kind)

    pool = SimpleNamespace(used_bytes=lambda: 100)

    class CuPy(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    return CuPy(cuda=cuda, zeros=zeros, get_default_memory_pool=lambda: pool, __version__="14.2", __name__="numpy")


def seconds_of(launch: Launch) -> float:
    """What a launch takes on the stand-in: two microseconds, and a byte a picosecond."""
    if launch.name == "fma":
        return 2e-6 + float(launch.arguments[1]) * 1e-6
    return 2e-6 + launch.array_bytes / 1e12


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    monkeypatch.setattr(Launch, "run", lambda self, stream, arguments=None: machine.work(self.name, seconds_of(self)))
    monkeypatch.setattr(gpu, "recording", functools.partial(recording, launching=False))
    for module in (gpu, bench):
        monkeypatch.setattr(module, "external_stream", lambda pointer: pointer)
        monkeypatch.setattr(module, "unsynchronized", lambda array: array)
    monkeypatch.setattr(gpu.correct, "expect", lambda call: None)
    monkeypatch.setattr(gpu.fma, "run", lambda kernel, blocks, threads, stream, *rest: Launch(kernel, blocks, threads, rest).run(stream))
    monkeypatch.setattr(gpu, "_taken", lambda launch, gpu: (32, 0, 0, 1.0, 2.0))
    from gpucnn_kernels.choose import select

    with select.for_chip(132), recording(launching=False):
        yield machine


def measured(machine: Machine, selection: Selection) -> Any:
    xp = stand_in(machine)
    place = Device("cuda", "A stand-in", np, __import__("gpucnn.ops.cuda", fromlist=["cuda"]))
    work = workload.of_model("keras", 16, place, Observer())
    work.model._device = Device("cuda", "A stand-in", xp, work.model.device.ops)
    return gpu.profile(work, selection, None, lambda text: None, ["--model", "keras"])


def test_a_step_is_measured_kernel_by_kernel(machine: Machine) -> None:
    result = measured(machine, Selection())
    assert result.kind == "gpu" and result.device["chip"] == "A stand-in" and result.device["driver's CUDA"] == "13.1"
    assert {row.phase for row in result.rows} == {"batch", "forward", "loss", "backward", "update"}
    for row in result.rows:
        assert row.time is not None and row.warm is not None
        assert row.time.median == pytest.approx(row.warm.median, rel=1e-6), "this machine has no cache"
        assert row.time.median >= 2e-6 * 0.999 and row.start is not None
    assert result.ceilings.bandwidth == pytest.approx(1e12)
    assert result.ceilings.launch == pytest.approx(2e-6)
    assert result.step.kernels == pytest.approx(sum(row.seconds for row in result.rows))
    assert result.step.graph.median == pytest.approx(result.step.kernels, rel=1e-6), "the graph of all launches"
    assert {"parameters", "gradients", "optimizer state", "batch and labels"} <= result.step.memory.keys()


def test_a_step_s_graph_forks_where_training_does(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = stand_in(machine)
    main = xp.cuda.Stream(non_blocking=True)
    with main:
        on: Any = bench.Bench(xp, main, None, None)  # type: ignore[arg-type]
        runs = [functools.partial(lambda name: machine.done.append(f"{name} on {machine.streams[-1].ptr}"), name) for name in "abcdefgh"]
        outer, inner = ((1, True),), ((1, False), (2, True))
        on.side_by_side(runs, [(), outer, inner, inner, ((1, False), (2, False)), ((1, False), (3, True)), ((1, False),), ()])()
    assert machine.done == [
        "a on 7",
        *("7 recorded", "8 waits for 7", "b on 8"),
        *("7 recorded", "9 waits for 7", "c on 9", "7 recorded", "9 waits for 7", "d on 9"),
        *("e on 7", "9 recorded", "7 waits for 9"),
        *("7 recorded", "9 waits for 7", "f on 9", "9 recorded", "7 waits for 9"),
        *("g on 7", "8 recorded", "7 waits for 8"),
        "h on 7",
    ]


def test_the_tools_watch_one_step(machine: Machine) -> None:
    measured(machine, Selection(op="loss"))
    assert machine.done.count("start") == machine.done.count("stop") == 1
    assert machine.done.index("start") < machine.done.index("stop")


def test_only_what_was_asked_for_is_measured(machine: Machine) -> None:
    result = measured(machine, Selection(op="dense"))
    assert {row.op.partition("_")[0] for row in result.rows} == {"dense"}
    assert result.step.kernels == result.step.graph.median, "the others were not timed by themselves"
    assert result.commands["Nsight Compute"].startswith("ncu --profile-from-start off --set full --import-source yes --kernel-name ")


def test_a_replay_is_on_copies_that_were_one_and_stay_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "external_stream", lambda pointer: pointer)
    monkeypatch.setattr(bench, "unsynchronized", lambda array: array)
    seen: list[Any] = []
    monkeypatch.setattr(Launch, "run", lambda self, stream, arguments=None: seen.extend(arguments))
    x, y = np.arange(4, dtype=np.float32), np.zeros(2, np.float32)
    launch = Launch(None, 1, 1, (x, y, x, np.int32(3), (np.uint32(1), np.uint32(2))))
    xp = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=7)))
    on: Any = bench.Bench(xp, SimpleNamespace(ptr=7), None, None)  # type: ignore[arg-type]
    (run,) = on.replays([launch], copied=True)
    run()
    assert seen[0] is seen[2] and seen[0] is not x and seen[1] is not y
    np.testing.assert_array_equal(seen[0], x)
    assert seen[3:] == [3, (1, 2)]


def test_a_capture_that_fails_is_ended() -> None:
    machine = Machine()
    xp = stand_in(machine)
    clock = bench.EventClock(xp, xp.cuda.Stream(non_blocking=True))

    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        clock.batch([fails])
    assert machine.captured is None, "the stream can be used again"


def test_ranges_have_names_where_nvtx_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    @contextlib.contextmanager
    def annotate(message: str, domain: str) -> Iterator[None]:
        named.append(message)
        yield

    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(annotate=annotate))
    ranges = nsight.ranges()
    assert ranges is not None
    with ranges("conv2d_1", "forward"):
        pass
    assert named == ["conv2d_1 forward"]
    monkeypatch.setitem(sys.modules, "nvtx", None)
    assert nsight.ranges() is None


def named(name: str) -> Launch:
    return Launch(SimpleNamespace(py_func=SimpleNamespace(__qualname__=f"made.<locals>.{name}")), 1, 1, ())


def test_commands_find_the_launch_and_can_be_pasted() -> None:
    launches = [named("relu_kernel"), named("conv2d_tile128x64"), named("relu_kernel"), named("relu_kernel"), named("relu_grad_kernel")]
    found = nsight.commands(launches, 3, ["--model", "my models/a.safetensors"])
    parts = shlex.split(found["Nsight Compute"])
    assert parts[-5:] == ["gpucnn", "profile", "--model", "my models/a.safetensors", "--lineinfo"]
    assert "regex:relu_kernel" in parts and parts[parts.index("--launch-skip") + 1] == "2"
    assert shlex.split(found["Nsight Systems"])[-5:] == parts[-5:]
    assert nsight.commands(launches, 0, ["--lineinfo"])["Nsight Systems"].count("--lineinfo") == 1


def test_the_real_nvtx_takes_the_ranges() -> None:
    pytest.importorskip("nvtx", reason="nvtx is not installed")
    ranges = nsight.ranges()
    assert ranges is not None
    with ranges("conv2d_1", "forward"):
        pass


def test_kernels_have_names_and_lines_for_the_tools() -> None:
    """In a process of its own: names and line numbers are those of the first compilation."""
    program = """
from gpucnn.profiling.chip import bounds, chips, static
from gpucnn.profiling.measure import bench, gpu, nsight
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn_kernels.choose import select

chip = chips.find("A100")
with bounds.as_if_there(chip), select.override(dense="tile64x64"):
    parts = gpu.planned(workload.of_operation("dense", "128,1024,512", bounds.device_of(chip), Observer()))
nsight.name_kernels(parts)
static.check_compilers()
for part in parts[:1] + parts[-1:]:
    assert part.launch.kernel.targetoptions["lineinfo"]
    ptx = static.ptx(part.launch, "sm_80")
    print(ptx.split(".entry ")[1].split("(")[0], ".loc" in ptx)
"""
    environment = {**os.environ, "GPUCNN_LINEINFO": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300)
    if "ToolchainError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert "dense_tile64x64" in first and "sum_slices_kernel" in last
    assert first.endswith("True") and last.endswith("True")


def test_the_loop_that_measures_the_peak_is_made_of_fmas() -> None:
    from gpucnn.profiling.chip import sass, static
    from gpucnn.profiling.measure import fma as ceilings

    with recording(launching=False) as launches:
        ceilings.fma(np.zeros(1, np.float32), 1, 1)
    try:
        loop = sass.hot_loop(sass.disassemble(static.machine_code(launches[0], "sm_90")))
    except static.ToolchainError as error:
        pytest.skip(str(error))
    assert loop.share > 0.95 and loop.ffma == ceilings.CHAINS * ceilings.REPEATS
