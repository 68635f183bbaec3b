"""Kernels are compiled before the step that launches them: the rehearsal finds what the step will launch, and changes nothing."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import Device
from gpucnn.ops import processes
from gpucnn.ops.cuda import _arrays
from gpucnn.training import step as step_module
from gpucnn.training.feed import DeviceFeed, HostFeed, feed_for
from gpucnn.training.step import TrainingStep
from gpucnn_kernels.core import crew
from gpucnn_kernels.core.launch import Launch, recording

N, BATCH = 20, 8


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 1, 8, 8), np.uint8), rng.integers(0, 3, N)


def model(device: Device) -> gc.Sequential:
    layers = gc.Conv2D(4, 3, activation="relu"), gc.BatchNorm2D(), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.5), gc.Dense(64), gc.Dense(3)
    return gc.Sequential(*layers).build((1, 8, 8), seed=1, device=device).compile("adam")


def bits(made: gc.Sequential) -> list[Any]:
    held = [made.buffers.values, made.buffers.saved, *made.optimizer.state.values()]  # type: ignore[union-attr]
    return [array.get().tobytes() for array in held] + [str(layer.state()) for layer in made.layers]


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[list[Launch]]:
    """The launches of each rehearsal."""
    found: list[list[Launch]] = []
    real = crew.waiting
    monkeypatch.setattr(crew, "waiting", lambda launches: found.append(list(launches)) or real(launches))
    return found


def names(launches: list[Launch]) -> list[Any]:
    return [(launch.kernel, launch.signature, launch.blocks, launch.threads) for launch in launches]


@pytest.mark.parametrize("on_device", [True, False])
def test_a_rehearsal_finds_what_the_step_launches_and_changes_nothing(gpu: Device, rehearsed: list[list[Launch]], on_device: bool) -> None:
    images, labels = data()
    made = model(gpu)
    step = TrainingStep(made, made.loss, made.optimizer)  # type: ignore[arg-type]
    batches = gc.data.Batches(images, labels.astype(np.int32), BATCH)
    feed: Any = feed_for(step.graphs, batches) if on_device else HostFeed(step.graphs, batches)
    assert isinstance(feed, DeviceFeed) == on_device
    before = bits(made)
    step.prepare(feed, BATCH)
    step.graphs.wait()
    assert bits(made) == before
    step.begin(3)
    with recording() as launches:
        sizes = feed.epoch(0, 0)
        step.run(feed, next(sizes))
    assert len(rehearsed) == 1 and len(launches) > 10
    assert names(rehearsed[0]) == names(launches)


def test_each_kind_of_step_is_rehearsed_once(gpu: Device, rehearsed: list[list[Launch]]) -> None:
    images, labels = data()
    made = model(gpu)
    made.fit(images, labels, batch_size=BATCH, epochs=2, validation_data=(images, labels), verbose=False)
    assert len(rehearsed) == 3  # a whole batch, the last one of an epoch, and validation
    made.fit(images, labels, batch_size=BATCH, epochs=1, verbose=False)
    made.evaluate(images, labels, batch_size=BATCH)
    assert len(rehearsed) == 3
    made.predict(images, batch_size=BATCH)
    made.train_on_batch(images[:BATCH], labels[:BATCH])
    made.train_on_batch(images[:BATCH], labels[:BATCH])
    assert len(rehearsed) == 5


def test_batches_from_outside_are_rehearsed_with_the_first(gpu: Device, rehearsed: list[list[Launch]]) -> None:
    images, labels = data()
    model(gpu).fit([(images[:BATCH], labels[:BATCH])] * 2, epochs=1, verbose=False)
    assert len(rehearsed) == 1 and len(rehearsed[0]) > 10


def test_trained_with_and_without_a_rehearsal_is_the_same_to_the_bit(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where losses are weighted, which CuPy computes a part of."""
    images, labels = data()

    def trained() -> list[Any]:
        made = model(gpu)
        made.fit(images, labels, batch_size=BATCH, epochs=1, class_weight={0: 2.0}, verbose=False)
        return bits(made)

    with_it = trained()
    monkeypatch.setattr(step_module, "compile_ahead", lambda *arguments: None)
    assert trained() == with_it


class Follows(gc.Layer):
    """Keeps a running sum, which CuPy computes."""

    def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.total = gc.SavedArray("total", (1,))
        self.arrays = [self.total]
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        if training:
            self.total.value[...] += x.mean() + 1
        return x

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        return dy


class Shrinks(gc.SGD):
    """Weights decay by an operation of CuPy's."""

    def _update(self, buffers: Any, gradients: Any, rates: Any) -> None:
        buffers.values *= 0.5
        super()._update(buffers, gradients, rates)


def test_what_cupy_computes_in_layers_and_optimizers_of_ones_own_is_put_back(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = data()

    def trained() -> list[Any]:
        made = gc.Sequential(gc.Flatten(), gc.Dense(5), Follows(), gc.Dense(3)).build((1, 8, 8), seed=1, device=gpu).compile(Shrinks(0.1))
        made.fit(images, labels, batch_size=BATCH, epochs=1, verbose=False)
        assert made.buffers.saved.get().any()
        return bits(made)

    with_it = trained()
    monkeypatch.setattr(step_module, "compile_ahead", lambda *arguments: None)
    assert trained() == with_it


def test_what_is_missing_is_compiled_with_a_line(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it counts; elsewhere there is one for all."""
    told: list[tuple[int, int]] = []

    def compile_all(jobs: list[Any], processes: int, done: Callable[[int], object]) -> None:
        told.append((len(jobs), processes))
        done(1)

    monkeypatch.setattr(crew, "waiting", lambda launches: ["a", "b", "c"])
    monkeypatch.setattr(crew, "compile_all", compile_all)
    monkeypatch.setenv(processes.VARIABLE, "2")
    images, labels = data()
    for terminal in (True, False):
        monkeypatch.setattr(_arrays.announcement, "said", False)
        stream = io.StringIO()
        stream.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", stream)
        model(gpu).fit(images[:BATCH], labels[:BATCH], batch_size=BATCH, epochs=1, verbose=False)
        if terminal:
            line = "compiling 3 kernels for this GPU in 2 processes, once:"
            assert re.fullmatch(rf"{line} 0 of 3\r{line} 1 of 3\r{line} \d+ s +\n", stream.getvalue())
        else:
            line = "gpucnn is compiling 3 kernels for this GPU in 2 processes, which takes seconds for each, the first time\n"
            assert stream.getvalue() == line
    assert told == [(3, 2)] * 2


def test_other_threads_launch_meanwhile() -> None:
    """A list of launches is one thread's."""
    import threading

    found: list[int] = []

    def other() -> None:
        with recording(launching=False) as launches:
            found.append(len(launches))

    from gpucnn_kernels.core import launch

    with recording(launching=False) as launches:
        thread = threading.Thread(target=lambda: (found.append(launch._own.recorder is None), other()))
        thread.start()
        thread.join()
        launch.run(object(), 1, 1, 0)
    assert found == [True, 0] and len(launches) == 1
