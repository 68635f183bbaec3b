"""Layers that are not trained; layers by their names, and what they put out."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import CheckpointError, GpucnnError, ShapeError, UnknownNameError
from gpucnn.ops import cpu

X, Y = np.random.default_rng(0).random((40, 1, 8, 8), np.float32), np.random.default_rng(1).integers(0, 3, 40)


def network() -> gc.Sequential:
    return gc.Sequential(
        gc.Conv2D(3, 3, activation="relu"),
        gc.MaxPool2D(2),
        gc.BatchNorm2D(),
        gc.Residual(gc.Conv2D(3, 3, padding="same"), gc.BatchNorm2D(), activation="relu"),
        gc.Flatten(),
        gc.Dense(5),
        gc.Dense(3),
    )


def built(*frozen: int, optimizer: gc.Optimizer | None = None) -> gc.Sequential:
    model = network()
    for index in frozen:
        model.layers[index].trainable = False
    return model.build((1, 8, 8), seed=2, device="cpu").compile(optimizer or gc.Adam(0.01, weight_decay=0.1))


@pytest.mark.parametrize("frozen", [(0,), (2,), (3,), (5,), (0, 2, 3), (0, 1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("optimizer", [lambda: gc.Adam(0.01, weight_decay=0.1), lambda: gc.SGD(0.1, momentum=0.9, weight_decay=0.1)])
def test_what_is_frozen_stays_and_all_else_is_trained(frozen: tuple[int, ...], optimizer: Any) -> None:
    model = built(*frozen, optimizer=optimizer())
    before = {name: array.value.copy() for name, array in (model.parameters | model.arrays).items()}
    still = {model.layers[index].name for index in frozen}
    model.fit(X, Y, batch_size=8, epochs=2, verbose=False)
    for name, array in (model.parameters | model.arrays).items():
        assert (array.value == before[name]).all() == (name.split(".")[0] in still), name
        if isinstance(array, gc.Parameter):
            assert (array.grad is None) == (name.split(".")[0] in still)
    trained = sum(parameter.size for name, parameter in model.parameters.items() if name.split(".")[0] not in still)
    assert sum(parameter.size for parameter in model.buffers.parameters) == trained
    fresh = built()
    assert list(fresh.parameters) == list(model.parameters) and fresh.parameter_count == model.parameter_count
    for name, parameter in fresh.parameters.items():
        np.testing.assert_array_equal(parameter.value, before[name])  # freezing changes nothing that is drawn


def test_no_gradient_is_computed_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(0, 2)
    calls: list[str] = []
    for name in ("conv2d_weight_grad", "conv2d_relu_max_pool2d_weight_grad", "batch_norm_grad", "conv2d_input_grad", "max_pool2d_grad"):
        op = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *a, name=name, op=op, **k: calls.append(name) or op(*a, **k))
    y = model.forward(X[:4], training=True)
    model.backward(np.ones_like(y))
    assert calls == ["batch_norm_grad", "conv2d_weight_grad"]  # of the block's two layers: nothing before it is reached
    calls.clear()
    y = model.forward(X[:4], training=True)
    assert model.backward(np.ones_like(y), input_grad=True).shape == (4, 1, 8, 8)
    assert calls == ["batch_norm_grad", "conv2d_weight_grad", "conv2d_input_grad", "max_pool2d_grad", "conv2d_input_grad"]


def test_freezing_a_compiled_model_needs_a_new_compile() -> None:
    model = built()
    model.fit(X, Y, batch_size=8, verbose=False)
    optimizer, kept = model.optimizer, model.buffers.copy()
    before = model.predict(X)
    model["residual_1"].trainable = False
    np.testing.assert_array_equal(model.predict(X), before)
    assert optimizer is not None
    with pytest.raises(GpucnnError, match="which layers are trained has changed since the model was compiled: compile it again"):
        model.fit(X, Y)
    model.backward(np.ones_like(model.forward(X[:2], training=True)))
    with pytest.raises(GpucnnError, match="which layers are trained has changed since this optimizer was attached"):
        optimizer.step()
    model.compile("adam").fit(X, Y, batch_size=8, verbose=False)
    assert model.parameters["residual_1.conv2d_1.weight"].frozen and not model.parameters["conv2d_1.weight"].frozen
    model["residual_1"].trainable = True
    assert model.buffers.copy().size == kept.size and not any(parameter.frozen for parameter in model.parameters.values())
    model["residual_1"].trainable = True  # nothing changes
    model.compile("adam").fit(X, Y, batch_size=8, verbose=False)
    model.trainable = False
    assert not model.trainable and not model.buffers.parameters
    model.trainable = True
    assert model.trainable


def test_frozen_layers_are_saved_copied_and_summed_up(tmp_path: Path) -> None:
    model = built(0, 3)
    model.fit(X, Y, batch_size=8, verbose=False)
    model.save(tmp_path / "m.safetensors")
    for other in (gc.load(tmp_path / "m.safetensors", device="cpu"), copy.deepcopy(model)):
        assert [layer.trainable for layer in other.layers] == [False, True, True, False, True, True, True]
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        assert [parameter.frozen for parameter in other.parameters.values()] == [p.frozen for p in model.parameters.values()]
        other.fit(X, Y, batch_size=8, verbose=False)
        np.testing.assert_array_equal(other["conv2d_1"].weight.value, model["conv2d_1"].weight.value)  # type: ignore[attr-defined]
    text = io.StringIO()
    model.summary(file=text)
    assert f"{30 + 84 + 6} parameters are frozen" in text.getvalue()


def test_a_run_with_frozen_layers_resumes_to_the_bit(tmp_path: Path) -> None:
    whole, part, resumed = built(0, 2), built(0, 2), built(0, 2)
    whole.fit(X, Y, batch_size=16, epochs=3, verbose=False)
    part.fit(X, Y, batch_size=16, epochs=1, verbose=False, callbacks=[gc.Checkpoint(tmp_path / "r.safetensors")])
    resumed.fit(X, Y, batch_size=16, epochs=3, verbose=False, resume=tmp_path / "r.safetensors")
    np.testing.assert_array_equal(resumed.buffers.copy(), whole.buffers.copy())
    with pytest.raises(CheckpointError, match="its layers differ"):
        built(0).fit(X, Y, batch_size=16, epochs=3, verbose=False, resume=tmp_path / "r.safetensors")


@pytest.mark.parametrize("name", ["requires_grad", "frozen_", "trainble", "freeze", "trained"])
def test_attributes_of_other_names_are_refused(name: str) -> None:
    layer = gc.Dense(3)
    if name == "frozen_":
        with pytest.raises(TypeError, match="trainable must be True or False, got 'no'"):
            layer.trainable = "no"  # type: ignore[assignment]
        return
    with pytest.raises(AttributeError, match=rf"a layer has no '{name}'.*set layer\.trainable = False"):
        setattr(layer, name, False)


class Gain(gc.Layer):
    """A layer of the user's own, which knows nothing of freezing."""

    def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.gain = gc.Parameter("gain", (1,), "ones")
        self.parameters = [self.gain]
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        self.x = x
        return x * self.gain.value

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        self.gain.add_grad((dy * self.x).sum())
        return dy * self.gain.value


@pytest.mark.parametrize(
    "gradient",
    [
        lambda array: array,
        lambda array: lambda out: array,
        lambda array: lambda out: array.copy() if out is None else np.copyto(out, array),
        lambda array: lambda out: np.add(array, 0, out=out),
    ],
)
def test_a_gradient_is_added_as_an_array_or_as_a_function_gives_it(gradient: Any) -> None:
    layer = gc.Dense(2)
    model = gc.Sequential(layer).build((3,), device="cpu")
    once = np.arange(6, dtype=np.float32).reshape(2, 3)
    layer.weight.gradient_room[...] = np.nan  # whatever was there before does not count
    layer.weight.add_grad(gradient(once))
    np.testing.assert_array_equal(layer.weight.grad, once)
    layer.weight.add_grad(gradient(once))
    np.testing.assert_array_equal(layer.weight.grad, 2 * once)
    layer.trainable = False
    layer.weight.add_grad(gradient(once))
    assert layer.weight.grad is None
    layer.weight.add_grad(lambda out: 1 / 0)  # which is not called
    del model


@pytest.mark.parametrize("function", [False, True])
def test_a_gradient_of_another_shape_is_not_added(function: bool) -> None:
    """It might be broadcast."""
    layer = gc.Dense(2)
    model = gc.Sequential(layer).build((3,), device="cpu")
    for again in range(2):
        for wrong in (np.ones(3, np.float32), np.float32(1), 2.0):
            with pytest.raises(
                ShapeError, match=r"the gradient of parameter 'weight' must have its shape, \(2, 3\), got \((3,)?\): sum over"
            ):
                layer.weight.add_grad((lambda out, wrong=wrong: wrong) if function else wrong)
        np.testing.assert_array_equal(layer.weight.grad, again)
        layer.weight.add_grad(np.ones((2, 3), np.float32))
    del model


def test_layers_of_ones_own_can_be_frozen() -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(4), Gain(), gc.Dense(3)).build((1, 8, 8), device="cpu").compile("adam")
    model.layers[2].trainable = False
    model.compile("adam").fit(X, Y, verbose=False)
    assert model.parameters["gain_1.gain"].value.tolist() == [1]
    model.layers[2].trainable = True
    model.compile("adam").fit(X, Y, verbose=False)
    assert model.parameters["gain_1.gain"].value.tolist() != [1]


# Layers by name.


def test_layers_by_name() -> None:
    model = built()
    assert model["conv2d_1"] is model.layers[0] and model["dense_2"] is model.layers[-1]
    assert model["residual_1.batchnorm2d_1"] is model.layers[3].inner()["batchnorm2d_1"]
    with pytest.raises(UnknownNameError, match=r"unknown layer 'conv2d_2'.*did you mean 'conv2d_1'"):
        model["conv2d_2"]
    with pytest.raises(TypeError, match=r"takes a layer's name, such as model\['conv2d_1'\], got 0"):
        model[0]  # type: ignore[index]
    with pytest.raises(GpucnnError, match="not built"):
        network()["conv2d_1"]


def test_features_are_what_each_layer_puts_out() -> None:
    model = built()
    y: Any = X
    for layer in model.layers:
        y = layer.forward(y)
        np.testing.assert_array_equal(model.features(X, layer.name), y)
    block, pooled = model.layers[3], model.features(X, "batchnorm2d_1")
    inner = model.features(X, "residual_1.conv2d_1")
    np.testing.assert_array_equal(inner, block.inner()["conv2d_1"].forward(pooled))
    np.testing.assert_array_equal(model.features(X, "residual_1.batchnorm2d_1"), block.inner()["batchnorm2d_1"].forward(inner))
    np.testing.assert_array_equal(model.forward(X), model.features(X, "dense_2"))
    nested = gc.Sequential(gc.Stack(gc.Conv2D(2, 3, activation="relu"), gc.MaxPool2D(2)), gc.Concat(gc.Flatten(), gc.Flatten()))
    nested.build((1, 8, 8), device="cpu")
    conv = nested.features(X, "stack_1.conv2d_1")
    np.testing.assert_array_equal(nested.features(X, "stack_1"), cpu.max_pool2d(conv, nested["stack_1.maxpool2d_1"].window)[0])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(nested.features(X, "concat_1.branch_2"), nested.features(X, "stack_1").reshape(40, -1))
