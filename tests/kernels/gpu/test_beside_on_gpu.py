"""The gradients of a layer's weight and of its input, side by side: which memory the two use, and that their order is kept."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernel_harness import REAL

import gpucnn as gc
from gpucnn.device import Device, to_numpy
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.training import early, graph
from gpucnn.training.feed import HostFeed
from gpucnn.training.graph import Branch, Prioritized, _main, _prioritized
from gpucnn.training.step import TrainingStep
from gpucnn_kernels.core.launch import Launch, recording

pytestmark = pytest.mark.gpu

BATCH = 8
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((BATCH, 2, 9, 9), np.float32)
LABELS = RANDOM.integers(0, 10, BATCH).astype(np.int32)


def step_on(device: Device, graphs: bool = True, observer: Observer | None = None) -> tuple[TrainingStep, HostFeed]:
    """Layers of all kinds that have both gradients, with a batch put before them."""
    layers = (
        gc.Conv2D(6, 3, padding="same", activation="relu"),
        gc.Residual(gc.Conv2D(6, 3, padding="same", use_bias=False)),
        gc.DepthwiseConv2D(3),
        gc.ConvTranspose2D(6, 2, activation="relu"),
        gc.Conv2D(5, 3, activation="relu"),
        gc.MaxPool2D(2),
        gc.LocallyConnected2D(4, 2, activation="relu"),
        gc.Flatten(),
        gc.Dense(64, activation="relu"),
        gc.Dense(10),
    )
    model = gc.Sequential(*layers).build((2, 9, 9), seed=4, device=device if observer is None else observer.device(device))
    model.compile(gc.SGD(0.05), loss="categorical_crossentropy")
    if observer is not None:
        observer.watch(model)
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer, graphs=graphs)
    feed = HostFeed(step.graphs)
    step.begin(3)
    feed.put(IMAGES, LABELS)
    return step, feed


def trained(step: TrainingStep, feed: HostFeed) -> Any:
    """The parameters after three steps: launched, recorded, replayed."""
    for _ in range(3):
        step.run(feed, BATCH)
    step.read()
    return to_numpy(step.model.buffers.values).copy()


@pytest.fixture
def pairs(gpu: Device) -> Iterator[Callable[[int], list[list[tuple[Call, Any, list[Launch]]]]]]:
    """What makes a step, the third of which is a replay, and gives of its calls on a branch those, and the one behind each."""
    observer = Observer()
    step, feed = step_on(gpu, observer=observer)
    step.prepare(feed, BATCH)  # so that it is not rehearsed under the eyes of the listener

    def made(number: int) -> list[list[tuple[Call, Any, list[Launch]]]]:
        calls: list[tuple[int, Call, Any, list[Launch]]] = []
        with recording() as launches:

            def listener(call: Call) -> Any:
                first = len(launches)
                result = call.run()
                calls.append((gpu.xp.cuda.get_current_stream().ptr, call, result, launches[first:]))
                return result

            with observer.listening(listener):
                step.run(feed, BATCH)
            step.graphs.wait()
        main, found = step.graphs._stream.ptr, []
        for index, (stream, *_) in enumerate(calls):
            if stream != main and calls[index + 1][0] == main:
                first = max(at for at in range(index) if calls[at][0] == main) + 1
                found.append([call[1:] for call in calls[first : index + 2]])
        assert step.graphs.recorded == number
        # What is counted, and the gradient of the last layer's weight, run beside all of the backward pass, and share nothing with it.
        tally = next(index for index, call in enumerate(calls) if call[1].op == "tally")
        assert calls[tally + 1][1].op == "dense_weight_grad" and calls[tally + 1][1].layer == "dense_2"
        apart = [memory(array) for at in (tally, tally + 1) for launch in calls[at][3] for array in launch.arrays]
        assert calls[tally][0] == calls[tally + 1][0] != main and calls[-1][1].op == "sgd_update" and len(calls) > tally + 14
        for *_, own in calls[tally + 2 : -1]:
            assert not any(overlap(memory(array), each) for launch in own for array in launch.arrays for each in apart)
        return found

    yield made


def memory(array: Any) -> tuple[int, int]:
    return int(array.data.ptr), int(array.data.ptr) + int(array.nbytes)


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_the_two_share_no_memory_but_what_both_read(pairs: Callable[[int], list[list[tuple[Call, Any, list[Launch]]]]]) -> None:
    """Launched, and as recorded."""
    for recorded in (0, 1):
        found = pairs(recorded)
        operations = [(calls[-2][0].op, calls[-1][0].op) for calls in found]
        kinds = {
            ("dense_weight_grad", "dense_input_grad"),
            ("conv2d_weight_grad", "conv2d_input_grad"),
            ("bias_grad", "conv2d"),
            ("locally_connected2d_weight_grad", "locally_connected2d_input_grad"),
        }
        assert set(operations) == kinds and len(operations) == 6 and found[0][0][0].op == "tally"
        for *apart, (beside, result, launches) in found:
            given = [memory(value) for value in beside.arguments.values() if hasattr(value, "nbytes")]
            given += [memory(call.arguments["x"]) for call, _, _ in apart if "x" in call.arguments]
            theirs = {memory(array) for _, _, each in apart for launch in each for array in launch.arrays}
            own = {memory(array) for launch in launches for array in launch.arrays}
            assert memory(result) in own and theirs and own
            for one in theirs:
                for other in own:
                    read = any(each[0] <= one[0] and one[1] <= each[1] for each in given)
                    assert not overlap(one, other) or (read and not overlap(other, memory(result)))


@pytest.mark.parametrize("least", [early.LEAST, 1], ids=["one update", "an early one"])
def test_side_by_side_has_the_bits_of_one_after_the_other(gpu: Device, monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    monkeypatch.setattr(early, "LEAST", least)
    step, feed = step_on(gpu)
    side_by_side = trained(step, feed)
    assert step.graphs.recorded == 1
    step, feed = step_on(gpu, graphs=False)
    np.testing.assert_array_equal(side_by_side, trained(step, feed))


@pytest.mark.skipif(REAL, reason="a real GPU does not say which order nothing has kept")
@pytest.mark.vgpu_findings
@pytest.mark.parametrize(
    ("left_out", "recorded"),
    [
        ("the wait behind the fork", True),
        ("the join", False),
        pytest.param("the wait behind the fork", False, marks=pytest.mark.slow),
        pytest.param("the join", True, marks=pytest.mark.slow),
    ],
)
def test_an_order_that_is_not_kept_would_be_found(gpu: Device, monkeypatch: pytest.MonkeyPatch, left_out: str, recorded: bool) -> None:
    vgpu = sys.modules["vgpu"]
    step, feed = step_on(gpu)
    if recorded:
        step.run(feed, BATCH)
        step.graphs.wait()
    before = vgpu.findings()
    if left_out == "the join":
        monkeypatch.setattr(Branch, "join", lambda self: None)
    else:
        monkeypatch.setattr(Branch, "apart", lambda self: self.stream)
    with contextlib.suppress(RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a recording that could not be ended
        for _ in range(2):
            step.run(feed, BATCH)
        step.graphs.wait()
    assert vgpu.findings() > before or step.graphs.recorded == 0


def test_the_early_update_runs_beside_the_first_layers_gradient(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launched, recorded and replayed; the virtual GPU reports what it would read or write too early."""
    monkeypatch.setattr(early, "LEAST", 1)
    observer = Observer()
    step, feed = step_on(gpu, observer=observer)
    step.prepare(feed, BATCH)
    for recorded in (0, 1, 1):
        calls: list[tuple[int, str, Any]] = []

        def listener(call: Call, calls: list[tuple[int, str, Any]] = calls) -> Any:
            calls.append((gpu.xp.cuda.get_current_stream().ptr, call.op, call.arguments))
            return call.run()

        with observer.listening(listener):
            step.run(feed, BATCH)
        step.graphs.wait()
        assert step.graphs.recorded == recorded
        if not calls:  # replayed
            continue
        main = step.graphs._stream.ptr
        updates = [index for index, (_, op, _) in enumerate(calls) if op == "sgd_update"]
        assert [calls[index][0] == main for index in updates] == [False, True] and updates[1] == len(calls) - 1
        assert calls[updates[0]][0] == next(stream for stream, op, _ in calls if op == "tally")
        assert updates[1] - updates[0] > 1  # the first layer's gradient is between them
        first, last = (memory(next(value for value in calls[index][2].values() if hasattr(value, "nbytes"))) for index in updates)
        assert last[1] == first[0] and first[1] - last[0] == step.model.buffers.values.nbytes


def test_what_runs_apart_gives_way() -> None:
    """The main stream has a higher priority, which is a lower number; CuPy 13 has none."""
    asked: list[dict[str, Any]] = []

    def old(non_blocking: bool) -> None:
        asked.append({})

    cupy = SimpleNamespace(Stream=lambda **options: asked.append(options))
    _main(cupy)
    _main(SimpleNamespace(Stream=old))
    assert asked == [{"non_blocking": True, "priority": -1}, {}]


def test_a_recording_keeps_the_priorities(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    step, feed = step_on(gpu)
    before = trained(step, feed)
    (made,) = step.graphs._graphs.values()
    assert isinstance(made, Prioritized)
    assert step.graphs._stream.priority < 0 and all(stream.priority == 0 for stream in step.graphs._branches.streams)
    again, feed = step_on(gpu)
    monkeypatch.setattr(graph, "_prioritized", lambda recorded: recorded)
    np.testing.assert_array_equal(before, trained(again, feed))
    (plain,) = again.graphs._graphs.values()
    assert not isinstance(plain, Prioritized)


def test_without_priorities_a_graph_is_what_it_was(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bindings have no such flag, or the driver refuses it; and an error of a launch is reported by CuPy."""
    launched: list[Any] = []
    plain = SimpleNamespace(graph=0, launch=launched.append)
    assert _prioritized(plain) is plain and _prioritized(None) is None
    step, feed = step_on(gpu)
    trained(step, feed)
    (made,) = step.graphs._graphs.values()
    bindings = made._driver
    monkeypatch.setattr(made, "_graph", plain)
    refused = SimpleNamespace(cuGraphLaunch=lambda *_: (bindings.CUresult.CUDA_ERROR_INVALID_VALUE,), CUstream=bindings.CUstream)
    monkeypatch.setattr(made, "_driver", refused)
    made.launch(step.graphs._stream)
    assert launched == [step.graphs._stream]
