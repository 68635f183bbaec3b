"""Which parameters are updated while backward still computes the first layer's gradient, and that it is the same update."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import Device
from gpucnn.layers.beside import beside, later, lent
from gpucnn.ops import cpu
from gpucnn.training import early
from gpucnn.training.feed import HostFeed
from gpucnn.training.step import TrainingStep

IMAGES = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
LABELS = np.arange(6, dtype=np.int32) % 4


def built(*layers: gc.layers.base.Layer, optimizer: Any = None) -> gc.Sequential:
    model = gc.Sequential(*layers).build((1, 8, 8), seed=2, device="cpu")
    model.compile(optimizer or gc.Adam(0.01), loss="categorical_crossentropy")
    return model


def usual(first: gc.layers.base.Layer | None = None) -> list[gc.layers.base.Layer]:
    return [first or gc.Conv2D(3, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(20, activation="relu"), gc.Dense(4)]


class Noted:
    """Branches that run in turn, and note what runs apart and when it is waited for."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def another(self) -> Iterator[Any]:
        yield self

    @contextmanager
    def apart(self) -> Iterator[None]:
        self.notes.append("apart")
        yield
        self.notes.append("on")

    def join(self) -> None:
        self.notes.append("join")


def stage_of(model: gc.Sequential, layer: int) -> int:
    return next(index for index, stage in enumerate(model.chain.stages) if model.layers[layer] in stage.layers)


def test_all_but_the_first_layers_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(*usual())
    assert early.early(model, gc.Adam()) is None  # too few
    monkeypatch.setattr(early, "LEAST", 100)
    assert early.early(model, gc.Adam()) == (stage_of(model, 3), model.buffers.offsets[2])
    assert early.early(model, gc.Adam(global_clipnorm=1.0)) is None
    monkeypatch.setattr(early, "LEAST", 2000)
    assert model.buffers.values.size < 2000 and early.early(model, gc.Adam()) is None


def test_the_first_layer_is_the_first_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "LEAST", 1)
    model = built(*usual())
    model.layers[0].trainable = False
    model.compile(gc.Adam(), loss="categorical_crossentropy")
    assert early.early(model, gc.Adam()) == (stage_of(model, 4), model.buffers.offsets[2])
    model.layers[3].trainable = False
    model.compile(gc.Adam(), loss="categorical_crossentropy")
    assert early.early(model, gc.Adam()) is None  # nothing is left to run beside


@pytest.mark.parametrize("optimizer", [gc.Adam, lambda: gc.SGD(0.1, momentum=0.9), lambda: gc.Adam(global_clipnorm=0.1)])
def test_a_step_with_branches_has_the_bits_of_one_without(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "LEAST", 1)
    found, noted = [], Noted()
    for branches in (None, noted):
        model = built(*usual(gc.Residual(gc.Conv2D(1, 3, padding="same"), activation="relu")), optimizer=optimizer())
        assert model.loss is not None and model.optimizer is not None
        model.chain.replayed = None  # what a CPU does in place of launches
        step = TrainingStep(model, model.loss, model.optimizer)
        feed = HostFeed(step.graphs)
        step.begin(3)
        feed.put(IMAGES, LABELS)
        updates: list[slice | None] = []
        update = model.optimizer.update

        def noting(rates: Any, part: slice | None = None, update: Any = update, updates: list[slice | None] = updates) -> None:
            noted.notes.append("update")
            updates.append(part)
            update(rates, part)

        monkeypatch.setattr(model.optimizer, "update", noting)
        for _ in range(3):
            noted.notes.clear()
            if branches is None:
                step._launch(feed, 6)
            else:
                with lent(branches):
                    step._launch(feed, 6)
        found.append((model.buffers.values.copy(), step.read().loss))
        divided = branches is not None and model.optimizer.divisible
        offset = model.buffers.offsets[2]
        assert updates == ([slice(offset, None), slice(offset)] if divided else [None]) * 3
    if optimizer().global_clipnorm is None:  # what is counted comes before both updates, and the first runs apart
        after = noted.notes.index("update")
        assert noted.notes[after - 2 : after + 2] == ["join", "apart", "update", "on"] and noted.notes[-2:] == ["update", "join"]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert model.chain.done is None


def test_what_is_needed_later_runs_on_the_outermost_branch() -> None:
    """Its arrays are kept until that is waited for, and no longer."""
    noted, x = Noted(), np.zeros(3)
    kept = weakref.ref(x)
    with lent(noted), beside() as outer:
        with beside() as inner, inner:
            assert later(x) is outer
        del x
        assert kept() is not None
        outer.join()
        assert kept() is None
        assert later() is outer
    apart = later(np.zeros(3))
    with apart:  # of nobody's step
        assert apart is not outer
    with lent(noted), beside(False), later():
        pass
    assert noted.notes == ["apart", "on", "join", "join", "join"]


def test_the_heads_gradients_are_made_on_the_branch_of_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU; here on its stand-in, whose layers have branches."""
    noted, order = Noted(), list[str]()
    device = Device("cuda", "a stand-in", np, importlib.import_module("gpucnn.ops.cpu"))
    model = gc.Sequential(*usual()).build((1, 8, 8), seed=2, device=device)
    model.compile("sgd", loss="categorical_crossentropy")
    assert model.loss is not None and model.optimizer is not None
    for name in ("tally", "dense_cross_entropy", "dense_weight_grad", "dense_input_grad"):
        real = getattr(cpu, name)

        def call(*given: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            order.append(name)
            noted.notes.append(name)
            return real(*given, **more)

        monkeypatch.setattr(cpu, name, call)
    step = TrainingStep(model, model.loss, model.optimizer, graphs=False)
    feed = HostFeed(step.graphs)
    step.begin(1)
    feed.put(IMAGES, LABELS)
    with lent(noted):
        step.run(feed, len(IMAGES))
    assert order == ["dense_cross_entropy", "tally", "dense_weight_grad", "dense_weight_grad", "dense_input_grad"]
    assert noted.notes[:7] == ["dense_cross_entropy", "apart", "tally", "on", "apart", "dense_weight_grad", "on"]
    assert "join" not in noted.notes[:8]  # of the next layer's gradients, which begin at once
