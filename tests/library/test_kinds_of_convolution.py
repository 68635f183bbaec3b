"""Depthwise, separable, transposed and unshared convolution: against PyTorch and against Conv2D; the numbers of the teaching texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn as gc


def built(layer: gc.Layer, shape: tuple[int, ...]) -> gc.Sequential:
    return gc.Sequential(layer).build(shape, seed=1, device="cpu", dtype="float64")


# Convolution as the texts introduce it: the input is 32 × 32 × 3, there are 20 filters of 8 × 8 × 3.


def test_worked_numbers_of_the_texts() -> None:
    image = (3, 32, 32)
    for padding, side in ((1, 14), ("same", 16), ("valid", 13)):
        assert built(gc.Conv2D(20, 8, stride=2, padding=padding), image).output_shape == (20, side, side)
    assert built(gc.LocallyConnected2D(20, 8, stride=2, padding=1), image).parameter_count == 756_560
    assert built(gc.Conv2D(20, 8, stride=2, padding=1), image).parameter_count == 3_860
    sixteen = built(gc.Conv2D(16, 3, use_bias=False), (1, 28, 28))
    assert sixteen.parameter_count == 144 and sixteen.output_shape == (16, 26, 26)
    for w in (5, 7, 12):
        for f in (1, 2, 3, 5):
            for stride in (1, 2, 3):
                for p in (0, 1, 2):
                    if w - f + 2 * p >= 0:
                        size = (w - f + 2 * p) // stride + 1
                        assert built(gc.Conv2D(1, f, stride=stride, padding=p), (1, w, w)).output_shape == (1, size, size)


@pytest.mark.parametrize("relu", [False, True])
def test_unshared_filters_that_are_all_the_same_are_a_convolution(relu: bool, rng: np.random.Generator) -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "activation": "relu" if relu else None}
    local, shared = built(gc.LocallyConnected2D(4, 3, **options), (3, 7, 8)), built(gc.Conv2D(4, 3, **options), (3, 7, 8))
    p, q = local.output_shape[1:]
    weight, bias = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    shared.parameters["conv2d_1.weight"].value, shared.parameters["conv2d_1.bias"].value = weight, bias
    local.parameters["locallyconnected2d_1.weight"].value = np.broadcast_to(weight[..., None, None], (4, 3, 3, 3, p, q))
    local.parameters["locallyconnected2d_1.bias"].value = np.broadcast_to(bias[:, None, None], (4, p, q))
    x, dy = rng.normal(size=(5, 3, 7, 8)), rng.normal(size=(5, 4, p, q))
    np.testing.assert_allclose(local.forward(x, training=True), shared.forward(x, training=True), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(local.backward(dy, input_grad=True), shared.backward(dy, input_grad=True), rtol=1e-10, atol=1e-12)
    for name in ("weight", "bias"):
        summed = local.parameters[f"locallyconnected2d_1.{name}"].grad.sum(axis=(-1, -2))
        np.testing.assert_allclose(summed, shared.parameters[f"conv2d_1.{name}"].grad, rtol=1e-10, atol=1e-11)


def test_unshared_filters_are_drawn_like_those_of_a_convolution() -> None:
    weights = built(gc.LocallyConnected2D(8, 3, initializer="he_uniform"), (4, 12, 12)).parameters["locallyconnected2d_1.weight"].value
    limit = np.sqrt(6 / (4 * 9))
    assert weights.shape == (8, 4, 3, 3, 10, 10) and 0.99 * limit < np.abs(weights).max() <= limit


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": (3, 2), "padding": (0, 1), "output_padding": (2, 0), "groups": 2},
        {"dilation": (2, 3), "padding": 1, "output_padding": 1, "stride": 2},
        {"stride": 2, "padding": 2, "use_bias": False},
        {"dilation": 3, "output_padding": 2},
        {"dilation": (3, 1), "stride": (2, 3), "output_padding": (2, 2), "padding": (1, 2), "groups": 2},
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_transposed_convolution_is_pytorchs(options: dict[str, Any], dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    model = gc.Sequential(gc.ConvTranspose2D(6, (3, 4), **options)).build((4, 5, 6), seed=1, device="cpu", dtype=dtype)
    near = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 1e-5, "atol": 1e-5}
    weight = model.parameters["convtranspose2d_1.weight"]
    given = {name: value for name, value in options.items() if name != "use_bias"}
    x = torch.tensor(rng.normal(size=(2, 4, 5, 6)).astype(dtype), requires_grad=True)
    filters = torch.tensor(weight.value, requires_grad=True)
    bias = model.parameters.get("convtranspose2d_1.bias")
    added = None if bias is None else torch.tensor(rng.normal(size=6).astype(dtype), requires_grad=True)
    if bias is not None:
        bias.value = added.detach()
    ref = torch.nn.functional.conv_transpose2d(x, filters, added, **given)
    y = model.forward(x.detach().numpy(), training=True)
    assert tuple(ref.shape[1:]) == model.output_shape
    np.testing.assert_allclose(y, ref.detach(), **near)
    dy = rng.normal(size=y.shape).astype(dtype)
    ref.backward(torch.tensor(dy))
    np.testing.assert_allclose(model.backward(dy, input_grad=True), x.grad, **near)
    np.testing.assert_allclose(weight.grad, filters.grad, **near)
    if bias is not None:
        np.testing.assert_allclose(bias.grad, added.grad, **near)


def test_same_padding_multiplies_the_size_by_the_stride() -> None:
    for stride in (1, 2, 3):
        for kernel in (1, 2, 3, 4):
            assert built(gc.ConvTranspose2D(2, kernel, stride=stride, padding="same"), (3, 5, 4)).output_shape == (
                2,
                5 * stride,
                4 * stride,
            )
    assert built(gc.ConvTranspose2D(2, 3, stride=2, padding="valid"), (3, 5, 4)).output_shape == (2, 11, 9)


def test_depthwise_is_pytorchs_and_separable_is_its_two_layers(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    model = built(gc.DepthwiseConv2D(3, stride=2, padding=1, multiplier=2), (3, 7, 6))
    weight = model.parameters["depthwiseconv2d_1.weight"]
    x = rng.normal(size=(2, 3, 7, 6))
    ref = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight.value), stride=2, padding=1, groups=3)
    np.testing.assert_allclose(model.forward(x), ref, rtol=1e-9, atol=1e-11)

    separable = built(gc.SeparableConv2D(5, 3, padding=1, multiplier=2, activation="relu"), (3, 7, 6))
    assert {name: parameter.shape for name, parameter in separable.parameters.items()} == {
        "separableconv2d_1.depthwise.weight": (6, 1, 3, 3),
        "separableconv2d_1.pointwise.weight": (5, 6, 1, 1),
        "separableconv2d_1.pointwise.bias": (5,),
    }
    depthwise, pointwise = (parameter.value for parameter in list(separable.parameters.values())[:2])
    middle = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(depthwise), padding=1, groups=3)
    ref = torch.relu(torch.nn.functional.conv2d(middle, torch.tensor(pointwise)))
    np.testing.assert_allclose(separable.forward(x), ref, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: gc.DepthwiseConv2D(3, multiplier=2),
        lambda: gc.SeparableConv2D(3, 3, activation="relu"),
        lambda: gc.ConvTranspose2D(3, 3, stride=2, activation="relu"),
        lambda: gc.LocallyConnected2D(3, 3),
    ],
)
def test_they_train_and_come_back_from_a_file(layer: Any, tmp_path: Any) -> None:
    model = gc.Sequential(layer(), gc.Flatten(), gc.Dense(3)).build((2, 6, 6), device="cpu").compile(gc.Adam(0.01))
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 2, 6, 6), np.float32), rng.integers(0, 3, 30)
    loss = model.fit(x, y, batch_size=8, epochs=4, verbose=False)["loss"]
    assert loss[-1] < loss[0]
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(gc.load(tmp_path / "m.safetensors", device="cpu").predict(x), model.predict(x))
