"""Batch normalization: against PyTorch where it is installed, by numerical gradients, its running statistics and what they survive."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.ops import cpu

SHAPES = [(4, 3), (2, 3, 4, 5), (3, 1, 1, 2), (1, 2, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_outputs_gradients_and_running_statistics_are_pytorchs(shape: tuple[int, ...], relu: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    kind = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
    other = kind(shape[1], eps=1e-3, momentum=0.3, dtype=torch.float64)
    layer = gc.BatchNorm2D(eps=1e-3, momentum=0.3, activation="relu" if relu else None)
    model = gc.Sequential(layer).build(shape[1:], device="cpu", dtype="float64")
    for name in ("weight", "bias"):
        values = rng.normal(size=shape[1])
        model.parameters[f"batchnorm2d_1.{name}"].value = values
        getattr(other, name).data = torch.tensor(values)
    for _ in range(3):
        x, dy = rng.normal(3, 2, size=shape), rng.normal(size=shape)
        tensor = torch.tensor(x, requires_grad=True)
        result = torch.relu(other(tensor)) if relu else other(tensor)
        other.zero_grad()
        result.backward(torch.tensor(dy))
        model.buffers.forget_gradients()
        np.testing.assert_allclose(model.forward(x, training=True), result.detach(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(model.backward(dy, input_grad=True), tensor.grad, rtol=1e-8, atol=1e-10)
        for name in ("weight", "bias"):
            found = model.parameters[f"batchnorm2d_1.{name}"].grad
            np.testing.assert_allclose(found, getattr(other, name).grad, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer.mean.value, other.running_mean, rtol=1e-12)
    np.testing.assert_allclose(layer.variance.value, other.running_var, rtol=1e-12)
    other.eval()
    given = torch.relu(other(torch.tensor(x))) if relu else other(torch.tensor(x))
    np.testing.assert_allclose(model.forward(x), given.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_are_the_numerical_ones(
    shape: tuple[int, ...], affine: bool, frozen: bool, rng: np.random.Generator, numerical_gradient: Any
) -> None:
    layer = gc.BatchNorm2D(affine=affine)
    layer.trainable = not frozen
    model = gc.Sequential(gc.Sigmoid(), layer, gc.Sigmoid()).build(shape[1:], device="cpu", dtype="float64")
    x, dy = rng.normal(size=shape), rng.normal(size=shape)
    layer.mean.value, layer.variance.value = rng.normal(size=shape[1]), rng.random(shape[1]) + 0.5
    kept = model.buffers.saved.copy()

    def objective() -> float:
        model.buffers.saved[...] = kept
        return float((model.forward(x, training=True) * dy).sum())

    objective()
    assert (model.buffers.saved == kept).all() == frozen
    np.testing.assert_allclose(model.backward(dy, input_grad=True), numerical_gradient(objective, x), rtol=1e-5, atol=1e-7)
    for parameter in model.parameters.values():
        if frozen:
            assert parameter.grad is None
        else:
            gradient = parameter.grad.copy()
            np.testing.assert_allclose(gradient, numerical_gradient(objective, parameter.value), rtol=1e-5, atol=1e-7)


def test_relu_before_and_behind_has_no_gradient_pass_of_its_own(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def network() -> gc.Sequential:
        layers = gc.Conv2D(3, 2, activation="relu"), gc.BatchNorm2D(activation="relu"), gc.Conv2D(2, 2), gc.Flatten(), gc.Dense(2)
        return gc.Sequential(*layers).build((1, 5, 5), device="cpu", dtype="float64")

    model, apart = network(), network()
    x, dy = rng.normal(size=(3, 1, 5, 5)), rng.normal(size=(3, 2))
    ref, gradient = x, dy
    for layer in apart.layers:
        ref = layer.forward(ref, training=True)
    for layer in reversed(apart.layers):
        gradient = layer.backward(gradient)
    np.testing.assert_array_equal(model.forward(x, training=True), ref)
    monkeypatch.setattr(cpu, "relu_grad", lambda *_, **__: pytest.fail("a pass over the gradient for ReLU alone"))
    np.testing.assert_array_equal(model.backward(dy), None)
    np.testing.assert_array_equal(model.buffers.all_gradients(), apart.buffers.all_gradients())


def test_the_mean_may_be_large() -> None:
    x = (1e4 + np.random.default_rng(0).normal(size=(16, 2, 8, 8))).astype(np.float32)
    weight, bias, running = np.ones(2, np.float32), np.zeros(2, np.float32), (np.zeros(2, np.float32), np.ones(2, np.float32))
    y, _, rstd = cpu.batch_norm(x, weight, bias, running, momentum=1, eps=1e-5)
    wide = x.astype(np.float64)
    variance = wide.var(axis=(0, 2, 3))
    # The mean is rounded to 2⁻¹¹ here, which is that much of a standard deviation, and its square of the variance.
    np.testing.assert_allclose(rstd, 1 / np.sqrt(variance), rtol=1e-5)
    np.testing.assert_allclose(y, (wide - wide.mean(axis=(0, 2, 3))[:, None, None]) / np.sqrt(variance)[:, None, None], atol=2e-3)
    np.testing.assert_allclose(running[1], variance * 1024 / 1023, rtol=1e-5)


def network() -> gc.Sequential:
    layers = gc.Conv2D(4, 3, use_bias=False), gc.BatchNorm2D(activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(5)
    model = gc.Sequential(*layers, gc.BatchNorm2D(momentum=0.2, affine=False), gc.ReLU(), gc.Dense(3))
    return model.build((1, 8, 8), device="cpu").compile(gc.Adam(0.01))


X, Y = np.random.default_rng(0).random((40, 1, 8, 8), np.float32), np.random.default_rng(1).integers(0, 3, 40)


def test_running_statistics_are_saved_copied_and_resumed_to_the_bit(tmp_path: Path) -> None:
    model = network()
    model.fit(X, Y, batch_size=16, verbose=False)
    assert list(model.arrays) == [f"batchnorm2d_{i}.running_{name}" for i in (1, 2) for name in ("mean", "variance")]
    model.save(tmp_path / "m.safetensors")
    for other in (gc.load(tmp_path / "m.safetensors", device="cpu"), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    whole, part, resumed = network(), network(), network()
    whole.fit(X, Y, batch_size=16, epochs=3, verbose=False)
    part.fit(X, Y, batch_size=16, epochs=2, verbose=False, callbacks=[gc.Checkpoint(tmp_path / "r.safetensors")])
    resumed.fit(X, Y, batch_size=16, epochs=3, verbose=False, resume=tmp_path / "r.safetensors")
    np.testing.assert_array_equal(resumed.buffers.copy(), whole.buffers.copy())


def test_answers_leave_the_running_statistics_alone() -> None:
    model = network()
    model.fit(X, Y, batch_size=16, verbose=False)
    kept = model.buffers.saved.copy()
    first = model.predict(X[:3])
    np.testing.assert_array_equal(model.predict(X)[:3], model.predict(X)[:3])
    np.testing.assert_allclose(model.predict(X)[:3], first, rtol=1e-5)
    model.evaluate(X, Y)
    np.testing.assert_array_equal(model.buffers.saved, kept)


def test_a_batch_with_nan_leaves_the_running_statistics_good() -> None:
    model = network()
    x = X.copy()
    x[3, 0, 4, 4] = np.nan
    before = model.buffers.saved.copy()
    model.forward(x, training=True)
    np.testing.assert_array_equal(model.buffers.saved, before)


def test_arguments_that_make_no_sense_are_refused() -> None:
    for settings, message in (
        ({"momentum": 1.5}, "momentum must be at most 1, got 1.5.*Keras's 0.99 is 0.01 here"),
        ({"momentum": -0.1}, "momentum must be a finite number of at least 0"),
        ({"eps": 0}, "eps must be a finite number above 0, got 0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            gc.BatchNorm2D(**settings)  # type: ignore[arg-type]
    model = gc.Sequential(gc.BatchNorm2D()).build((3,), device="cpu")
    with pytest.raises(ShapeError, match="needs at least two numbers in each channel to train on"):
        model.forward(np.zeros((1, 3)), training=True)
    assert model.forward(np.zeros((1, 3))).shape == (1, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("count", "batch_size", "message"),
    [(9, 8, "9 examples in batches of 8 leave a last one of 1"), (3, 1, "batches of 1"), (1, 8, "batches of 1")],
)
def test_a_batch_too_small_to_normalize_is_told_before_the_first_step(count: int, batch_size: int, message: str, dtype: str) -> None:
    x, y = np.ones((count, 4)), np.arange(count) % 2
    model = gc.Sequential(gc.Dense(3), gc.Residual(gc.BatchNorm2D()), gc.Dense(2)).build((4,), device="cpu", dtype=dtype).compile("sgd")
    before, saved = model.buffers.values.copy(), model.buffers.saved.copy()
    told = rf"^{message}, and 'residual_1.batchnorm2d_1' needs at least two numbers in each channel to train on: change batch_size$"
    with pytest.raises(ShapeError, match=told):
        model.fit(x, y, batch_size=batch_size, verbose=False)
    np.testing.assert_array_equal(model.buffers.values, before)
    np.testing.assert_array_equal(model.buffers.saved, saved)
    model["residual_1.batchnorm2d_1"].trainable = False  # then it takes its running statistics
    model.compile("sgd").fit(x, y, batch_size=batch_size, verbose=False)
    image = gc.Sequential(gc.BatchNorm2D(), gc.Flatten(), gc.Dense(2)).build((1, 2, 2), device="cpu", dtype=dtype).compile("sgd")
    image.fit(x.reshape(count, 1, 2, 2), y, batch_size=batch_size, verbose=False)


def test_a_list_of_batches_whose_last_is_too_small_is_told_before_the_first_step() -> None:
    model = gc.Sequential(gc.Dense(3), gc.BatchNorm2D(), gc.Dense(2)).build((4,), device="cpu").compile("sgd")
    before = model.buffers.values.copy()
    with pytest.raises(ShapeError, match=r"^9 examples in batches of 8 leave a last one of 1, and 'batchnorm2d_1'"):
        model.fit([(np.ones((8, 4)), np.zeros(8, int)), (np.ones((1, 4)), np.zeros(1, int))], verbose=False)
    np.testing.assert_array_equal(model.buffers.values, before)
