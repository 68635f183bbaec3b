"""What surrounds recorded graphs: whose memory is whose, what goes first when memory runs out, time that is waited.

With a stand-in for CuPy's `cuda`, and on a GPU where there is one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.data.batches import Batches
from gpucnn.device import Device, get_device, to_numpy, why_no_cuda
from gpucnn.errors import DeviceMemoryError
from gpucnn.layers.beside import beside
from gpucnn.ops.shapes import LIMIT
from gpucnn.training import loop
from gpucnn.training.feed import DeviceFeed, HostFeed, feed_for
from gpucnn.training.graph import Graphs
from gpucnn.training.step import TrainingStep

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (50, 1, 28, 28)).astype(np.uint8), RNG.integers(0, 10, 50)


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class Stream:
    """A stream that says in which order it was asked for what."""

    def __init__(self, log: list[str], name: str, non_blocking: bool = True) -> None:
        self.log, self.name, self.ptr = log, name, id(self)

    def __enter__(self) -> Stream:
        self.log.append(f"on {self.name}")
        return self

    def __exit__(self, *exception: object) -> None:
        self.log.append(f"off {self.name}")

    def record(self, event: Any = None) -> str:
        return self.name

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")

    def synchronize(self) -> None:
        time.sleep(0.02)
        self.log.append(f"host waits for {self.name}")


class Cuda:
    """As much of `cupy.cuda` as graphs ask for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.default = Stream(self.log, "default")
        self.full = False
        self.streams = 0
        self.inside = False  # whether arrays come from the graphs' pool
        self.runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError)
        self.MemoryPointer = lambda memory, offset: memory
        self.unused = 0  # bytes that CuPy's own pool keeps, and that the device would have room for
        self.pools: list[str] = []  # what was returned to the device

    def Stream(self, non_blocking: bool) -> Stream:
        self.streams += 1
        return Stream(self.log, ("graphs", "branch", "another")[min(self.streams, 3) - 1])

    def MemoryPool(self, allocate: Any) -> Any:
        return SimpleNamespace(malloc=allocate, total_bytes=lambda: 0, free_all_blocks=lambda: self.pools.append("the graphs'"))

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(total_bytes=lambda: self.unused, free_all_blocks=self._free_unused)

    def _free_unused(self) -> None:
        self.pools.append("CuPy's own")
        self.full, self.unused = self.full and not self.unused, 0

    def Memory(self, size: int) -> int:
        if self.full:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        return size

    def get_current_stream(self) -> Stream:
        return self.default

    @contextlib.contextmanager
    def using_allocator(self, allocate: Any) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def Event(self, disable_timing: bool = True) -> Any:
        return SimpleNamespace(synchronize=lambda: None, record=lambda stream: None)

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size)


def stand_in() -> tuple[Device, Cuda, list[tuple[str, bool]]]:
    """A device with NumPy's arrays and the stand-in, and a log of what was allocated, and whether inside of the graphs' pool."""
    cuda, allocated = Cuda(), []

    class Library:
        __name__ = "cupy"

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def empty(self, shape: Any, dtype: Any = "float32") -> Any:
            allocated.append((str(shape), cuda.inside))
            made = np.empty(shape, dtype).view(Settable)
            return made

    library = Library()
    library.cuda, library.get_default_memory_pool = cuda, cuda.get_default_memory_pool  # type: ignore[attr-defined]
    return Device("cuda", "a stand-in", library, get_device("cpu").ops), cuda, allocated  # type: ignore[arg-type]


class Settable(np.ndarray):
    def set(self, values: Any, stream: Any) -> None:
        self[...] = values


def test_batches_from_the_host_never_take_the_memory_of_recorded_graphs() -> None:
    """Of every size, also of one that comes up when graphs have been recorded: the ragged last batch."""
    device, _, allocated = stand_in()
    graphs = Graphs(device)
    feed = HostFeed(graphs, Batches(IMAGES, LABELS, 16, seed=1))
    for epoch in range(2):
        for size in feed.epoch(epoch, 0):
            with graphs.entered():
                device.xp.empty((3, size))  # scratch of the step
            assert feed.labels(size).shape == (size,)
    copies = [inside for shape, inside in allocated if not shape.startswith("(3,")]
    assert copies and not any(copies)
    assert all(inside for shape, inside in allocated if shape.startswith("(3,"))


def test_what_looks_at_the_model_is_ordered_with_the_graphs_both_ways() -> None:
    device, cuda, _ = stand_in()
    graphs = Graphs(device)
    with graphs.ordered():
        cuda.log.append("callback")
    assert cuda.log == ["graphs waits for default", "on graphs", "callback", "off graphs", "default waits for graphs"]
    cuda.log.clear()
    with pytest.raises(ZeroDivisionError), graphs.ordered():
        raise ZeroDivisionError
    assert cuda.log[-1] == "default waits for graphs"


def test_what_runs_apart_comes_after_what_was_launched_and_before_what_follows() -> None:
    device, cuda, _ = stand_in()
    graphs = Graphs(device)
    with graphs.entered():
        cuda.log.clear()
        with beside() as apart:
            with apart:
                cuda.log.append("weight")
            cuda.log.append("input")
        forked = ["branch waits for graphs", "on branch", "weight", "off branch"]
        assert cuda.log == [*forked, "input", "graphs waits for branch"]
        cuda.log.clear()
        with pytest.raises(ZeroDivisionError), beside() as apart, apart:  # a recording ends with all branches joined, or not at all
            raise ZeroDivisionError
        assert cuda.log == ["branch waits for graphs", "on branch", "off branch", "graphs waits for branch"]
        cuda.log.clear()
        with beside() as apart:  # what is counted, and a layer's gradients
            with apart:
                cuda.log.append("tally")
            with beside() as inner, inner:
                cuda.log.append("weight")
            cuda.log.append("next")
        counted = ["branch waits for graphs", "on branch", "tally", "off branch"]
        within = ["another waits for graphs", "on another", "weight", "off another", "graphs waits for another"]
        assert cuda.log == [*counted, *within, "next", "graphs waits for branch"]
        cuda.log.clear()
        with beside():  # of a layer that is frozen
            cuda.log.append("input")
        with beside(False) as apart, apart:  # of the first layer
            cuda.log.append("weight")
        assert cuda.log == ["input", "weight"]
    cuda.log.clear()
    with beside() as apart, apart:  # of nobody's step
        cuda.log.append("weight")
    with Graphs(device, enabled=False).entered(), beside() as apart, apart:
        cuda.log.append("weight")
    assert cuda.log == ["weight", "weight"]


def test_graphs_go_before_their_pool_gives_memory_back() -> None:
    device, cuda, _ = stand_in()
    graphs = Graphs(device)
    graphs._graphs["a"] = object()
    assert graphs._pool.malloc(64) == 64 and graphs.recorded == 1
    cuda.full = True
    graphs._recording = True
    with pytest.raises(RuntimeError, match="no memory left to record in") as caught:
        graphs._pool.malloc(64)
    assert not isinstance(caught.value, CUDARuntimeError) and graphs.recorded == 1  # of no kind at which the pool would free anything
    graphs._recording = False
    with pytest.raises(CUDARuntimeError):
        graphs._pool.malloc(64)
    assert graphs.recorded == 0 and cuda.log[-1] == "host waits for graphs"


def test_what_predictions_have_left_is_used_before_graphs_go() -> None:
    device, cuda, _ = stand_in()
    graphs = Graphs(device)
    graphs._graphs["a"] = object()
    cuda.full, cuda.unused = True, 64
    graphs._recording = True
    with pytest.raises(RuntimeError, match="no memory left to record in"):  # to return it would wait
        graphs._pool.malloc(64)
    graphs._recording = False
    assert not cuda.pools
    assert graphs._pool.malloc(64) == 64
    assert (cuda.pools, graphs.recorded) == (["CuPy's own"], 1)


def test_graphs_return_their_memory_when_they_are_released_and_when_they_end() -> None:
    """With their last reference, not when garbage is collected next: CuPy's pools never give back what is free when they end."""
    device, cuda, _ = stand_in()
    graphs = Graphs(device)
    graphs._graphs["a"] = object()
    graphs.release()
    assert (cuda.log[-1], graphs.recorded, cuda.pools) == ("host waits for graphs", 0, ["the graphs'"])
    del graphs
    assert cuda.pools == 2 * ["the graphs'"]


def test_the_time_that_is_waited_is_counted() -> None:
    device, _, _ = stand_in()
    graphs = Graphs(device)
    graphs.wait()
    graphs.wait()
    assert 0.03 < graphs.waited < 5


class Waits(gc.Callback):
    """A callback that waits for the steps, as writing a checkpoint does, and takes time of its own besides."""

    def __init__(self, clock: list[float], waited: float, own: float) -> None:
        self.clock, self.waited, self.own = clock, waited, own
        self.graphs: Any = None

    def on_step_end(self, run: Any) -> None:
        self.graphs.waited += self.waited
        self.clock[0] += self.waited + self.own


@pytest.mark.parametrize(("waited", "own"), [(0.0, 0.0), (10.0, 0.0), (0.0, 7.0), (10.0, 7.0)])
def test_images_a_second_hold_the_time_that_callbacks_wait_for_steps_and_not_their_own(
    waited: float, own: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def tick() -> float:
        clock[0] += 0.25
        return clock[0]

    callback = Waits(clock, waited, own)

    class Step(TrainingStep):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            callback.graphs = self.graphs

    monkeypatch.setattr(loop, "TrainingStep", Step)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=tick))
    model = gc.Sequential(gc.Flatten(), gc.Dense(10)).build((1, 28, 28), device="cpu").compile("sgd")
    row = model.fit(IMAGES, LABELS, batch_size=10, callbacks=[callback], verbose=False).rows[0]
    assert row["seconds"] == 5 * (0.25 + waited)  # five steps, each with a callback behind it
    assert row["images_per_second"] == round(50 / row["seconds"], 1)


def test_a_set_that_the_kernels_cannot_count_comes_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    device, _, _ = stand_in()
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1 << 60)
    monkeypatch.setattr("gpucnn.training.feed.DeviceFeed", lambda *given: "on the device")
    batches = SimpleNamespace(augment=None, labels=np.zeros(2, np.int32), images=np.broadcast_to(np.uint8(0), (LIMIT // 4 - 1, 1, 2, 2)))
    assert feed_for(Graphs(device), batches) == "on the device"
    batches.images = np.broadcast_to(np.uint8(0), (LIMIT // 4, 1, 2, 2))
    assert isinstance(feed_for(Graphs(device), batches), HostFeed)
    batches.images, batches.labels = np.zeros((2, 1, 2, 2), np.uint8), np.broadcast_to(np.float32(0), (2, LIMIT // 2))
    assert isinstance(feed_for(Graphs(device), batches), HostFeed)


def test_a_device_without_room_for_the_set_falls_back_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    device, _, _ = stand_in()
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1 << 40)

    def full(*given: Any) -> Any:
        raise MemoryError("in pieces")

    monkeypatch.setattr("gpucnn.training.feed.DeviceFeed", full)
    assert isinstance(feed_for(Graphs(device), Batches(IMAGES, LABELS, 16)), HostFeed)


def test_validation_takes_the_training_s_batch_and_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(10)).build((1, 28, 28), device="cpu").compile("sgd")
    sizes = []
    real = model.measure
    monkeypatch.setattr(model, "measure", lambda x, y, size: sizes.append(size) or real(x, y, size))
    model.fit(IMAGES, LABELS, batch_size=7, validation_data=(IMAGES, LABELS), verbose=False)
    model.fit(IMAGES, LABELS, batch_size=40, validation_data=(IMAGES[:9], LABELS[:9]), verbose=False)
    assert sizes == [7, 9]

    def full(*given: Any) -> Any:
        raise MemoryError("out of memory")

    monkeypatch.setattr(model, "measure", full)
    with pytest.raises(DeviceMemoryError, match=r"CPU has too little memory for a training step of 16 examples .*use a smaller batch"):
        model.fit(IMAGES, LABELS, batch_size=16, validation_data=(IMAGES, LABELS), verbose=False)


# On a GPU.


@pytest.fixture
def gpu() -> Device:
    missing = why_no_cuda()
    if missing is not None:
        pytest.skip(f"no GPU: {missing}")
    return get_device("cuda")


class Meddles(gc.Callback):
    """Looks at the parameters, asks the model, and changes it: between two steps, wherever those run."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray[Any, Any]] = []

    def on_step_end(self, run: Any) -> None:
        model = run.model
        self.seen.append(to_numpy(model.parameters["dense_2.weight"].value).copy())
        self.seen.append(model.predict(IMAGES[:3]))
        model.buffers.values *= np.float32(0.99)
        model.parameters["dense_2.bias"].value = np.linspace(-1, 1, 10)


@pytest.mark.gpu
@pytest.mark.parametrize("augment", [None, lambda x, rng: x], ids=["from the device", "from the host"])
def test_callbacks_that_meddle_on_a_gpu(gpu: Device, augment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for graphs in ("1", "0"):
        monkeypatch.setenv("GPUCNN_GRAPHS", graphs)
        model = gc.network("keras").build((1, 28, 28), seed=1, device=gpu).compile(gc.SGD(0.05, momentum=0.9))
        callback = Meddles()
        model.fit(IMAGES, LABELS, batch_size=16, epochs=3, augment=augment, callbacks=[callback], verbose=False)
        ends.append((callback.seen, to_numpy(model.buffers.values)))
    (seen, values), (launched, expected) = ends
    np.testing.assert_array_equal(values, expected)
    for one, other in zip(seen, launched, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("feed", [HostFeed, DeviceFeed])
def test_the_pool_of_the_graphs_and_the_batches_never_overlap_on_a_gpu(gpu: Device, feed: type[Any]) -> None:
    model = gc.network("keras").build((1, 28, 28), seed=1, device=gpu).compile("sgd")
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer)
    taken: list[tuple[int, int]] = []
    malloc = step.graphs._pool.malloc

    def logged(size: int) -> Any:
        pointer = malloc(size)
        taken.append((pointer.ptr, pointer.ptr + size))
        return pointer

    step.graphs._pool = SimpleNamespace(malloc=logged, total_bytes=lambda: 0)
    batches = Batches(IMAGES, LABELS, 16, seed=1)
    source = HostFeed(step.graphs, batches) if feed is HostFeed else DeviceFeed(step.graphs, batches, None)
    for epoch in range(3):
        step.begin(batches.steps_per_epoch, epoch=epoch)
        for size in source.epoch(epoch, 0):
            step.run(source, size)
        step.read()
    assert taken and step.graphs.recorded == 2
    own = [array for copies in getattr(source, "_copies", {}).values() for array in (*copies._arrived, copies._batch)]
    own += [source._x, source._images, source._order] if feed is DeviceFeed else []
    for array in [*own, model.buffers.values, model.buffers.all_gradients(), step._counters, step._sums, step._rates, step._table]:
        begin, end = array.data.ptr, array.data.ptr + array.nbytes
        assert not any(first < end and begin < last for first, last in taken)
