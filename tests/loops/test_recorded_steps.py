"""Recorded training steps: the bits of steps that run as always, in losses, gradients, parameters and whatever a step counts."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.layers import replayed
from gpucnn_loops import crew, replay, threads

Program = Callable[..., subprocess.CompletedProcess[str]]
Array = np.ndarray[Any, Any]

NETWORKS = """
import numpy as np, gpucnn as gc
from gpucnn.layers import replayed
from gpucnn_loops import replay
replay.WORTH_WAITING = 1
for name in ("keras", "tf2", "lenet5x5", "resnet", "mobilenet", "inception"):
    found = []
    for recorded in (True, False):
        model = gc.network(name).build((1, 28, 28), seed=3, device="cpu")
        model.compile(gc.Adam(1e-3) if name != "resnet" else gc.SGD(0.01, momentum=0.9))
        if not recorded:
            model.chain.replayed = None
        rng, told = np.random.default_rng(0), []
        for turn in range(4):
            for n in (9, 4):
                x, labels = rng.random((n, 1, 28, 28), dtype="float32"), rng.integers(0, 10, n)
                told.append(model.train_on_batch(x, labels))
                told.append([layer.state() for layer in model.layers])
        if recorded:
            assert [type(each) for each in model.chain.replayed.known.values()] == [replayed.Step] * 2, name
        found.append((told, model.buffers.copy().tobytes(), model.buffers.all_gradients().tobytes()))
    assert found[0] == found[1], name
print("the same")
"""


@pytest.mark.parametrize("count", ["1", "2", "3"])
def test_the_bits_of_steps_as_always(count: str, program: Program) -> None:
    done = program(NETWORKS, GPUCNN_NUM_THREADS=count)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same\n"


LAYERS: list[list[gc.Layer]] = [
    [gc.Conv2D(8, 5, stride=2, padding="same"), gc.BatchNorm2D(activation="relu")],
    [gc.Conv2D(6, 3, groups=3), gc.Conv2D(4, 1, activation="tanh"), gc.AvgPool2D(3, 2, padding=1)],
    [gc.Conv2D(19, 3, padding=1), gc.DepthwiseConv2D(3, padding=1), gc.BatchNorm2D(), gc.ReLU(), gc.GlobalAvgPool2D()],
    [gc.DepthwiseConv2D(3, stride=2), gc.MaxPool2D(3, 1), gc.BatchNorm2D(), gc.Tanh(), gc.Dropout(0.5), gc.MaxPool2D(2, 1)],
    [gc.Sigmoid(), gc.Conv2D(4, 3, activation="sigmoid"), gc.Softmax(), gc.Flatten(), gc.Dense(9, activation="softmax")],
    [gc.Conv2D(16, 3, padding=1, activation="relu"), gc.MaxPool2D(3, 2), gc.Conv2D(3, 2, dilation=2)],
    [gc.Conv2D(18, 5, padding=2), gc.BatchNorm2D(), gc.Conv2D(16, 3, activation="relu"), gc.MaxPool2D(2)],
    [gc.Residual(gc.Conv2D(3, 3, padding=1), gc.BatchNorm2D(), activation="relu"), gc.Residual([gc.Conv2D(3, 1)])],
    [gc.Conv2D(4, 3, use_bias=False), gc.BatchNorm2D(affine=False, activation="relu"), gc.Conv2D(16, 3), gc.BatchNorm2D(affine=False)],
    [gc.Flatten(), gc.Dense(33, activation="relu"), gc.BatchNorm2D(), gc.Dropout(0.25), gc.Dense(8)],
    [gc.Concat([gc.Conv2D(5, 1, activation="relu")], [gc.MaxPool2D(3, 1, padding=1), gc.Conv2D(3, 1, activation="relu")])],
    [gc.Concat([gc.Conv2D(5, 3, padding=1)], [gc.DepthwiseConv2D(3, padding=1)], [gc.Conv2D(2, 1, activation="relu")])],
    [gc.Conv2D(5, 3, activation="gelu"), gc.LeakyReLU(0.2), gc.Conv2D(4, 3), gc.GELU(approximate=True), gc.BatchNorm2D(activation="silu")],
    [gc.ELU(0.5), gc.Conv2D(5, 3, activation="hard_swish"), gc.ReLU6(), gc.DepthwiseConv2D(3), gc.HardSigmoid()],
]


def built(layers: list[gc.Layer]) -> gc.Sequential:
    model = gc.Sequential(*copy.deepcopy(layers), gc.Flatten(), gc.Dense(7)).build((3, 12, 12), seed=2, device="cpu")
    model.compile(gc.SGD(0.05, momentum=0.9))
    return model


def batch(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((n, 3, 12, 12), dtype=np.float32), rng.integers(0, 7, n)


def known(model: gc.Sequential) -> list[Any]:
    assert model.chain.replayed is not None
    return list(model.chain.replayed.known.values())


def unrecorded(model: gc.Sequential) -> gc.Sequential:
    """A copy that records nothing."""
    twin = copy.deepcopy(model)
    twin.chain.replayed = None
    return twin


def assert_alike(model: gc.Sequential, twin: gc.Sequential) -> None:
    for name, array in model.arrays.items():
        np.testing.assert_array_equal(array.value, twin.arrays[name].value, name)
    for name, parameter in model.parameters.items():
        np.testing.assert_array_equal(parameter.value, twin.parameters[name].value, name)
        assert parameter.has_grad == twin.parameters[name].has_grad
        np.testing.assert_array_equal(parameter.grad, twin.parameters[name].grad, name)
    assert [layer.state() for layer in model.layers] == [layer.state() for layer in twin.layers]


@pytest.mark.parametrize("layers", LAYERS)
def test_layers(layers: list[gc.Layer], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "WORTH_WAITING", 1)
    model = built(layers)
    twin = unrecorded(model)
    for _ in range(5):
        x, labels = batch(5, rng)
        assert model.train_on_batch(x, labels) == twin.train_on_batch(x, labels)
        assert_alike(model, twin)
    assert [type(each) for each in known(model)] == [replayed.Step]


def test_an_image_that_is_not_finite_counts_once(rng: np.random.Generator) -> None:
    """Winograd goes the direct road for it, so the step runs as always; running means and masks of dropout are those of one step."""
    layers = [gc.Conv2D(16, 3), gc.BatchNorm2D(), gc.ReLU(), gc.Conv2D(16, 3), gc.BatchNorm2D(), gc.MaxPool2D(2), gc.Dropout(0.5)]
    model = built(layers)
    twin = unrecorded(model)
    for turn in range(6):
        x, labels = batch(4, rng)
        if turn == 3:
            x[1, 2, 3, 4] = 1e38  # finite, but not after Winograd's transform
        one, other = (each.train_on_batch(x, labels) for each in (model, twin))
        np.testing.assert_equal(one, other)
        assert_alike(model, twin)
    assert [type(each) for each in known(model)] == [replayed.Step]


def test_labels_that_are_no_classes_are_left_to_numpy(rng: np.random.Generator) -> None:
    from gpucnn.training.step import TrainingStep

    model = built(LAYERS[0])
    twin = unrecorded(model)
    one, other = (TrainingStep(each, each.loss, each.optimizer) for each in (model, twin))  # type: ignore[arg-type]
    x, labels = batch(4, rng)
    for _ in range(3):
        assert one(x, labels.astype(np.int32)) == other(x, labels.astype(np.int32))
    assert [type(each) for each in known(model)] == [replayed.Step]
    for wrong in (-1, 7):
        given = np.array([0, 1, wrong, 2], np.int32)
        if wrong == -1:  # an index of NumPy's
            assert one(x, given) == other(x, given)
            continue
        for step in (one, other):
            with pytest.raises(IndexError):
                step(x, given)
    np.testing.assert_array_equal(model.buffers.values, twin.buffers.values)


def test_what_is_set_on_a_layer_counts(rng: np.random.Generator) -> None:
    model = built([gc.Conv2D(4, 3), gc.BatchNorm2D(), gc.Dropout(0.5)])
    for _ in range(3):
        model.train_on_batch(*batch(4, rng))
    model["dropout_1"].rate = 0.25  # type: ignore[attr-defined]
    assert known(model) == []
    twin = unrecorded(model)
    for _ in range(3):
        x, labels = batch(4, rng)
        assert model.train_on_batch(x, labels) == twin.train_on_batch(x, labels)
    called: list[int] = []
    layer = model["conv2d_1"]
    backward = layer._backward
    layer._backward = lambda *given: called.append(1) or backward(*given)  # type: ignore[method-assign, func-returns-value]
    for _ in range(4):
        model.train_on_batch(*batch(4, rng))
    assert len(called) == 4


def test_freezing_between(rng: np.random.Generator) -> None:
    model = built([gc.Conv2D(4, 3), gc.BatchNorm2D(), gc.Conv2D(5, 3)])
    for frozen in ("conv2d_1", "batchnorm2d_1"):
        for _ in range(3):
            model.train_on_batch(*batch(4, rng))
        model[frozen].trainable = False
        model.compile(gc.SGD(0.05, momentum=0.9))
        kept, twin = model[frozen].weight.value.copy(), unrecorded(model)  # type: ignore[attr-defined]
        for _ in range(4):
            x, labels = batch(4, rng)
            assert model.train_on_batch(x, labels) == twin.train_on_batch(x, labels)
        np.testing.assert_array_equal(model[frozen].weight.value, kept)  # type: ignore[attr-defined]
        assert_alike(model, twin)
        assert [type(each) for each in known(model)] == [replayed.Step]


@pytest.mark.parametrize("loss", [gc.losses.CategoricalCrossentropy(label_smoothing=0.1), "mse", "hinge"])
def test_losses_that_numpy_computes(loss: Any, rng: np.random.Generator) -> None:
    model = built(LAYERS[0])
    model.compile(gc.SGD(0.01), loss)
    twin = unrecorded(model)
    targets = np.eye(7, dtype=np.float32)
    for _ in range(4):
        x, labels = batch(4, rng)
        given = labels if model.loss.name == "categorical_crossentropy" else targets[labels]  # type: ignore[union-attr]
        assert model.train_on_batch(x, given) == twin.train_on_batch(x, given)
        assert_alike(model, twin)
    assert not any(isinstance(each, replayed.Step) for each in known(model))


def test_a_loss_of_ones_own_is_run(rng: np.random.Generator) -> None:
    class Counted(gc.losses.CategoricalCrossentropy):
        calls = 0

        def __call__(self, *given: Any) -> Any:
            self.calls += 1
            return super().__call__(*given)

    model, loss = built(LAYERS[0]), Counted()
    model.compile(gc.SGD(0.01), loss)
    for _ in range(4):
        model.train_on_batch(*batch(4, rng))
    assert loss.calls == 4


def test_predictions_before_count_other_stages(rng: np.random.Generator) -> None:
    """For predictions a convolution and the normalization after it are one stage."""
    layers = [gc.Conv2D(5, 3), gc.BatchNorm2D(), gc.Conv2D(4, 3), gc.BatchNorm2D(), gc.Flatten(), gc.Dense(7, activation="softmax")]
    model = gc.Sequential(*layers).build((3, 12, 12), seed=2, device="cpu")
    twin = unrecorded(model)
    x, labels = batch(6, rng)
    for each in (model, twin):
        each.compile(gc.SGD(0.05))
    for _ in range(4):
        assert model.evaluate(x, labels) == twin.evaluate(x, labels)
        np.testing.assert_array_equal(model.predict(x), twin.predict(x))
        assert model.train_on_batch(x, labels) == twin.train_on_batch(x, labels)
        assert_alike(model, twin)
    assert sorted(type(each).__name__ for each in known(model)) == ["Pass", "Pass", "Step"]


def test_threads_that_are_busy_leave_the_step_to_be_run_as_always(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_number", 3)
    monkeypatch.setattr(replay, "WORTH_WAITING", 1)
    model = built(LAYERS[3])
    twin = unrecorded(model)
    for busy in (False, True, False, False, True, True):  # the second time in vain, the third time it is recorded
        x, labels = batch(6, rng)
        with monkeypatch.context() as patch:
            if busy:
                patch.setattr(crew, "_worker", lambda: None)
            assert model.train_on_batch(x, labels) == twin.train_on_batch(x, labels)
        assert_alike(model, twin)
    assert [type(each) for each in known(model)] == [replayed.Step]


def test_fit_and_predictions_in_turn(rng: np.random.Generator) -> None:
    model = built(LAYERS[5])
    twin = unrecorded(model)
    x, labels = batch(26, rng)
    found = [each.fit(x, labels, epochs=3, batch_size=8, validation_data=(x[:9], labels[:9]), verbose=False) for each in (model, twin)]
    columns = ("loss", "accuracy", "val_loss", "val_accuracy")
    assert [[row[name] for name in columns] for row in found[0].rows] == [[row[name] for name in columns] for row in found[1].rows]
    np.testing.assert_array_equal(model.predict(x), twin.predict(x))
    assert sum(isinstance(each, replayed.Step) for each in known(model)) == 2  # whole batches, and the last one


def test_a_large_step_is_not_kept(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_BYTES", 100)
    model = built(LAYERS[0])
    twin = unrecorded(model)
    for _ in range(3):
        x, labels = batch(3, rng)
        assert model.train_on_batch(x, labels) == twin.train_on_batch(x, labels)
    assert known(model) == [replayed.UNFIT]
