"""A training step as a graph, with a stand-in for CuPy's: it takes down the launches of a recording, runs none of them, and replays them in
the simulator. So whatever a step does that is not a launch, or that changes from one step to the next on the host, makes other numbers."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.data.batches import Batches
from gpucnn.device import Device, get_device
from gpucnn.errors import TrainingError
from gpucnn.training.feed import DeviceFeed, HostFeed
from gpucnn.training.step import Totals, TrainingStep
from gpucnn_kernels.core import launch


class Array(np.ndarray):
    """NumPy's, with CuPy's way of copying from the host."""

    def set(self, values: Any, stream: Any = None) -> None:
        assert stream is not None, "such a copy would be on whatever stream is the current one"
        self[...] = values


Array.__module__ = "numpy"  # by which operations know what an array is


class Graph:
    def __init__(self, launches: list[launch.Launch]) -> None:
        self.launches = launches

    def launch(self, stream: Any) -> None:
        for item in self.launches:
            item.run(0)


class Event:
    def __init__(self, **options: Any) -> None: ...
    def record(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...


class Stream:
    current: ClassVar[list[Any]] = []
    broken = False  # whether it cannot be recorded

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking
        self.ptr = id(self)

    def __enter__(self) -> Stream:
        self.current.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        self.current.pop()

    def record(self, event: Event | None = None) -> Event:
        return event or Event()

    def wait_event(self, event: Event) -> None: ...

    def synchronize(self) -> None:
        assert not hasattr(self, "_recording"), "this waits inside a recording"

    def begin_capture(self) -> None:
        if self.broken:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: not here")
        assert self.current[-1] is self
        self._recording = launch.recording(launching=False)
        self._launches = self._recording.__enter__()

    def end_capture(self) -> Graph:
        self._recording.__exit__(None, None, None)
        del self._recording
        return Graph(self._launches)


@contextlib.contextmanager
def using_allocator(allocator: Any) -> Iterator[None]:
    yield


class Library:
    """NumPy with a `cuda`."""

    __name__ = "numpy"
    cuda = SimpleNamespace(
        Stream=Stream,
        Event=Event,
        MemoryPool=lambda allocator: SimpleNamespace(malloc=None, total_bytes=lambda: 0, free_all_blocks=lambda: None),
        using_allocator=using_allocator,
        get_current_stream=lambda: Stream.current[-1] if Stream.current else Stream(non_blocking=True),
    )

    @staticmethod
    def empty(shape: Any, dtype: Any) -> Any:
        return np.full(shape, 77, dtype).view(Array)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@pytest.fixture
def device() -> Device:
    return stand_in()


@functools.cache
def stand_in() -> Device:
    simulator = get_device("cuda")
    return Device("cuda", simulator.name, Library(), simulator.ops)  # type: ignore[arg-type]


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 1, 5, 5)).astype(np.uint8)
LABELS = np.array([0, 2, 1, 1, 0, 2], np.int32)


def model_on(device: Device, optimizer: gc.optimizers.Optimizer) -> gc.Sequential:
    layers = (
        gc.Conv2D(1, 2, activation="relu", use_bias=False),
        gc.MaxPool2D(2),
        gc.Flatten(),
        gc.Dropout(0.3),
        gc.Dense(3, use_bias=False),
    )
    return gc.Sequential(*layers).build((1, 5, 5), seed=4, device=device).compile(optimizer)


def optimizer(kind: str) -> gc.optimizers.Optimizer:
    schedule = gc.schedules.OneCycle(0.05, 9)
    return gc.Adam(schedule, weight_decay=0.01) if kind == "adam" else gc.SGD(schedule, momentum=0.9, nesterov=True, global_clipnorm=0.05)


@functools.cache  # the simulator takes seconds
def train(device: Device, kind: str, graphs: bool, feed: type[Any]) -> tuple[gc.Sequential, TrainingStep, list[Totals]]:
    model = model_on(device, optimizer(kind))
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer, graphs=graphs)
    count = 5 if feed is DeviceFeed else 6  # with a smaller last batch, or without
    batches = Batches(IMAGES[:count], LABELS[:count], 2, seed=1)
    source = DeviceFeed(step.graphs, batches, None) if feed is DeviceFeed else HostFeed(step.graphs, batches)
    totals = []
    for epoch in range(2 if feed is DeviceFeed else 1):
        step.begin(3, epoch=epoch)
        for size in source.epoch(epoch, 0):
            step.run(source, size)
        totals.append(step.read())
    return model, step, totals


@pytest.mark.parametrize(("kind", "feed"), [("adam", DeviceFeed), ("sgd", HostFeed)])
def test_replayed_steps_have_the_bits_of_launched_ones(device: Device, kind: str, feed: type[Any]) -> None:
    model, step, totals = train(device, kind, True, feed)
    other, eager, expected = train(device, kind, False, feed)
    np.testing.assert_array_equal(model.buffers.values, other.buffers.values)
    steps = 3 * len(totals)
    assert totals == expected and len({total.loss for total in totals}) == len(totals)
    assert model.state() == other.state() == {"dropout_1": {"calls": steps}}
    assert model.optimizer is not None and model.optimizer.steps == steps
    assert step.graphs.recorded == len(totals)  # batches of two, and on the device the last one
    assert eager.graphs.recorded == 0


def test_what_is_recorded_and_in_which_order(device: Device) -> None:
    _, step, _ = train(device, "adam", True, DeviceFeed)
    for graph in step.graphs._graphs.values():
        names = [item.name for item in graph.launches]
        assert names[0].startswith("gather") and names[-1] == "adam"
        assert names.count("tally_rows") == 1 and names.count("next_call") == 1 and names.count("dropout") == 2
        loss = next(place for place, name in enumerate(names) if "cross_entropy" in name)
        assert loss < names.index("tally_rows") < names.index("adam")
    first, second = step.graphs._graphs.values()
    parameters = {int(step.model.buffers.values.ctypes.data)}
    for graph in (first, second):  # the update is of the model's own parameters, in place
        assert {int(graph.launches[-1].arguments[0].ctypes.data)} == parameters


def test_a_loss_of_nan_stops_the_updates_where_it_came_up(device: Device) -> None:
    model = model_on(device, gc.SGD(0.1))
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer)
    x = np.random.default_rng(1).standard_normal((2, 1, 5, 5)).astype(np.float32)
    feed = HostFeed(step.graphs)
    step.begin(5)
    kept = []
    for number in range(5):
        feed.put(x * np.float32(np.nan if number == 3 else 1), LABELS[:2])
        step.run(feed, 2)
        kept.append(model.buffers.values.copy())
    with pytest.raises(TrainingError, match=r"the loss became nan at step 4"):
        step.read()
    assert model.optimizer.steps == 3 and not np.isnan(model.buffers.values).any()
    assert (kept[2] != kept[1]).any()
    np.testing.assert_array_equal(kept[4], kept[2])


@pytest.mark.slow
def test_a_model_that_is_built_anew_is_recorded_anew(device: Device) -> None:
    model = model_on(device, gc.SGD(0.1))
    assert model.loss is not None
    step = TrainingStep(model, model.loss, model.optimizer)  # type: ignore[arg-type]
    x = np.ones((2, 1, 5, 5), np.float32)
    for _ in range(2):
        step(x, LABELS[:2])
    assert step.graphs.recorded == 1
    model.build((1, 5, 5), seed=5, device=device)
    first = model.buffers.values.copy()
    step(x, LABELS[:2])
    assert step.graphs.recorded == 0 and (model.buffers.values != first).any()
    step(np.ones((1, 1, 5, 5), np.float32), LABELS[:1])  # another size is another graph
    step(x, LABELS[:2])
    assert step.graphs.recorded == 1


@pytest.mark.slow
def test_where_nothing_can_be_recorded_steps_are_launched_and_it_is_said_once(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "broken", True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model, step, totals = train.__wrapped__(device, "adam", True, DeviceFeed)
    assert [str(item.message) for item in said if "CUDA graph" in str(item.message)] == [
        "training continues without a CUDA graph, more slowly: the step could not be recorded (cudaErrorStreamCaptureUnsupported: not here)"
    ]
    other, _, expected = train(device, "adam", False, DeviceFeed)
    np.testing.assert_array_equal(model.buffers.values, other.buffers.values)
    assert totals == expected and step.graphs.recorded == 0


@pytest.mark.slow
def test_fit_trains_with_graphs_and_resumes_to_the_bit(device: Device, tmp_path: Any) -> None:
    path = tmp_path / "run.safetensors"
    whole = model_on(device, gc.Adam(0.05))
    history = whole.fit(IMAGES[:3], LABELS[:3], batch_size=2, epochs=2, verbose=False)

    class Stop(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            if run.epoch == 1:
                raise KeyboardInterrupt

    broken = model_on(device, gc.Adam(0.05))
    with pytest.raises(KeyboardInterrupt):
        broken.fit(IMAGES[:3], LABELS[:3], batch_size=2, epochs=2, verbose=False, callbacks=[Stop(), gc.Checkpoint(path, every=1)])
    resumed = model_on(device, gc.Adam(0.05))
    again = resumed.fit(IMAGES[:3], LABELS[:3], batch_size=2, epochs=2, verbose=False, resume=path, callbacks=[gc.Checkpoint(path)])
    np.testing.assert_array_equal(resumed.buffers.values, whole.buffers.values)
    assert again["loss"] == history["loss"] and again["accuracy"] == history["accuracy"]
