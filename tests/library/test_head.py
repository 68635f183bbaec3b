"""The last dense layer and the loss in one: where it is done, and that it is the same training."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import Device, get_device
from gpucnn.losses import CategoricalCrossentropy, get_loss
from gpucnn.ops import cpu
from gpucnn.training.step import TrainingStep

RANDOM = np.random.default_rng(0)
X, LABELS = RANDOM.standard_normal((6, 4)).astype(np.float32), np.array([0, 2, 1, 1, 0, 2], np.int32)


def stand_in() -> Device:
    """A GPU of NumPy's arrays and the CPU's operations."""
    return Device("cuda", "a stand-in", np, importlib.import_module("gpucnn.ops.cpu"))


def built(*layers: gc.Layer, loss: Any = "categorical_crossentropy", device: Device | str = "cpu") -> gc.Sequential:
    return gc.Sequential(*layers).build((4,), seed=1, device=device).compile("sgd", loss=loss)


class Other(gc.Dense):
    pass


class OtherLoss(CategoricalCrossentropy):
    name = "another"


@pytest.mark.parametrize(
    ("layer", "loss", "labels", "one"),
    [
        (lambda: gc.Dense(3), "categorical_crossentropy", LABELS, True),
        (lambda: gc.Dense(3, activation="softmax", use_bias=False), "categorical_crossentropy", LABELS, True),
        (lambda: gc.Dense(32), "categorical_crossentropy", LABELS, True),
        (lambda: gc.Dense(33), "categorical_crossentropy", LABELS, False),
        (lambda: gc.Dense(3, activation="relu"), "categorical_crossentropy", LABELS, False),
        (lambda: gc.Dense(3), "categorical_crossentropy", np.eye(3, dtype=np.float32)[LABELS], False),
        (lambda: gc.Dense(3), "mean_squared_error", np.eye(3, dtype=np.float32)[LABELS], False),
        (lambda: Other(3), "categorical_crossentropy", LABELS, False),
        (lambda: gc.Dense(3), OtherLoss(), LABELS, False),
        (lambda: gc.Stack(gc.Dense(3)), "categorical_crossentropy", LABELS, True),
        (lambda: gc.Residual(gc.Dense(4)), "categorical_crossentropy", LABELS, False),
    ],
)
def test_where_layer_and_loss_are_one(monkeypatch: pytest.MonkeyPatch, layer: Any, loss: Any, labels: Any, one: bool) -> None:
    calls = []
    real = cpu.dense_cross_entropy
    monkeypatch.setattr(cpu, "dense_cross_entropy", lambda *given, **wanted: calls.append(given) or real(*given, **wanted))
    model = built(layer(), loss=loss, device=stand_in())
    found, correct, doutputs = model.chain.forward_with_loss(X, get_loss(loss), labels)
    assert (len(calls) == 1) is one and correct.shape == found.shape == ((6,) if one else ())
    same = built(layer(), loss=loss)
    own, right, expected = same.chain.forward_with_loss(X, get_loss(loss), labels)
    assert len(calls) == one and own.shape == ()
    np.testing.assert_allclose(found.mean(), own, rtol=1e-6)
    assert correct.sum() == right
    np.testing.assert_allclose(doutputs, expected, rtol=1e-6, atol=1e-7)
    for each, gradient in ((model, doutputs), (same, expected)):
        each.chain.backward(gradient)
    np.testing.assert_allclose(model.buffers.all_gradients(), same.buffers.all_gradients(), rtol=1e-5, atol=1e-6)


def test_a_step_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for device in (get_device("cpu"), stand_in()):
        model = built(gc.Dense(5, activation="relu"), gc.Dense(3), device=device)
        assert model.loss is not None and model.optimizer is not None
        step = TrainingStep(model, model.loss, model.optimizer, graphs=False)
        results.append([step(X, LABELS) for _ in range(3)])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


@pytest.mark.parametrize("metrics", [["accuracy"], [], ["accuracy", "top_5_accuracy"]])
def test_evaluation_takes_them_as_one_where_nobody_wants_scores(monkeypatch: pytest.MonkeyPatch, metrics: list[str]) -> None:
    """And keeps nothing: a backward would belong to the forward before it."""
    calls = []
    real = cpu.dense_cross_entropy
    monkeypatch.setattr(cpu, "dense_cross_entropy", lambda *given, **wanted: calls.append(given) or real(*given, **wanted))
    results = []
    for device in (get_device("cpu"), stand_in()):
        model = built(gc.Dense(5, activation="relu"), gc.Dense(6), device=device)
        model.metrics = metrics
        model.forward(X, training=True)
        results.append(model.evaluate(X, LABELS, batch_size=4, return_dict=True))
        model.backward(np.ones((6, 6), np.float32))
    assert len(calls) == (0 if len(metrics) > 1 else 2)
    assert results[0].keys() == results[1].keys() == {"loss", *metrics}
    np.testing.assert_allclose(list(results[1].values()), list(results[0].values()), rtol=1e-6)


def test_layer_and_loss_in_one_give_the_rows_of_both() -> None:
    x, weight, bias = (RANDOM.standard_normal(size) for size in ((6, 4), (3, 4), (3,)))
    losses, correct, dlogits, dx = cpu.dense_cross_entropy(x, weight, bias, LABELS)
    mean, right, expected = cpu.softmax_cross_entropy(cpu.dense(x, weight, bias), LABELS)
    np.testing.assert_allclose(losses.mean(), mean, rtol=1e-12)
    assert correct.sum() == right and losses.shape == correct.shape == (6,)
    np.testing.assert_allclose(dlogits, expected, rtol=1e-12)
    assert dx is None
    for relu in (False, True):
        *_, dx = cpu.dense_cross_entropy(x, weight, bias, LABELS, input_grad=True, relu=relu)
        np.testing.assert_array_equal(dx, cpu.dense_input_grad(dlogits, weight, relu=x if relu else None))


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ([lambda: gc.Dense(5, activation="relu")], {"input_grad": True, "relu": True}),
        ([lambda: gc.Dense(5, activation="tanh")], {"input_grad": True, "relu": False}),
        ([lambda: gc.Dense(5, activation="relu"), lambda: gc.Dropout(0.5)], {"input_grad": True, "relu": True}),
        ([], {"input_grad": False, "relu": False}),
        ([gc.Flatten], {"input_grad": False, "relu": False}),  # nothing before the head is trained
    ],
)
def test_the_gradient_of_the_inputs_comes_with_the_loss(
    monkeypatch: pytest.MonkeyPatch, before: list[Any], wanted: dict[str, bool]
) -> None:
    """And backward, given the gradient that came with it, does not compute it again. For any other gradient it does."""
    model, same = (built(*(each() for each in before), gc.Dense(3), device=device) for device in (stand_in(), "cpu"))
    asked: list[dict[str, bool]] = []
    real = cpu.dense_cross_entropy
    monkeypatch.setattr(cpu, "dense_cross_entropy", lambda *given, **wanted: asked.append(wanted) or real(*given, **wanted))
    _, _, doutputs = model.chain.forward_with_loss(X, get_loss("categorical_crossentropy"), LABELS)
    assert asked == [wanted]
    made: list[Any] = []
    input_grad = cpu.dense_input_grad
    monkeypatch.setattr(cpu, "dense_input_grad", lambda *given, **more: made.append(given) or input_grad(*given, **more))
    model.chain.backward(doutputs)
    assert not made
    _, _, expected = same.chain.forward_with_loss(X, get_loss("categorical_crossentropy"), LABELS)
    same.chain.backward(expected)
    np.testing.assert_allclose(model.buffers.all_gradients(), same.buffers.all_gradients(), rtol=1e-5, atol=1e-6)

    model.buffers.forget_gradients()
    _, _, doutputs = model.chain.forward_with_loss(X, get_loss("categorical_crossentropy"), LABELS)
    counted = len(made)
    model.chain.backward(2 * doutputs)
    assert len(made) == counted + wanted["input_grad"]
    if len(before) < 2:  # dropout goes on with its random numbers
        np.testing.assert_allclose(model.buffers.all_gradients(), 2 * same.buffers.all_gradients(), rtol=1e-5, atol=1e-6)


def test_a_frozen_head_passes_the_gradient_on(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for device in (stand_in(), "cpu"):
        model = built(gc.Dense(5, activation="relu"), gc.Dense(3), device=device)
        model.layers[-1].trainable = False
        model.compile("sgd", loss="categorical_crossentropy")
        _, _, doutputs = model.chain.forward_with_loss(X, get_loss("categorical_crossentropy"), LABELS)
        model.chain.backward(doutputs)
        results.append([np.array(parameter.grad) for parameter in model.layers[0].parameters])
    for one, other in zip(*results, strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_evaluation_forgets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass between a step's forward and backward that keeps nothing leaves what was made alone."""
    model = built(gc.Dense(5, activation="relu"), gc.Dense(3), device=stand_in())
    loss = get_loss("categorical_crossentropy")
    _, _, doutputs = model.chain.forward_with_loss(X, loss, LABELS)
    model.chain.forward_with_loss(X[:2], loss, LABELS[:2], training=False)
    model.chain.backward(doutputs)
    first = model.buffers.all_gradients().copy()
    model.buffers.forget_gradients()
    _, _, doutputs = model.chain.forward_with_loss(X, loss, LABELS)
    model.chain.backward(doutputs)
    np.testing.assert_array_equal(first, model.buffers.all_gradients())
