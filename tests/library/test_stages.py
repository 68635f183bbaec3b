"""Layers that a model runs as one, or whose gradients it takes in one go: the same bits as each layer by itself."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import GpucnnError
from gpucnn.layers.base import Plan
from gpucnn.layers.chain import planned
from gpucnn.layers.fused import ConvReluMaxPool, stages
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window, pool_window


def conv(filters: int = 3, activation: str | None = "relu", **settings: Any) -> gc.Conv2D:
    return gc.Conv2D(filters, 3, activation=activation, **settings)


NETWORKS: dict[str, Any] = {
    "keras": lambda: (conv(), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(6, activation="relu"), gc.Dense(4)),
    "lenet5x5": lambda: (
        conv(padding="same"),
        gc.MaxPool2D(2),
        conv(4, padding="same"),
        gc.MaxPool2D(2),
        gc.Flatten(),
        gc.Dense(6, activation="relu"),
        gc.Dropout(0.4),
        gc.Dense(4),
    ),
    "convolutions": lambda: (conv(), conv(4, stride=2), gc.Flatten(), gc.Dense(4)),
    "overlapping windows": lambda: (conv(), gc.MaxPool2D(3, stride=2, padding=1), gc.Flatten(), gc.Dense(4)),
    "pooling twice": lambda: (conv(), gc.MaxPool2D(2), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(4)),
    "averages": lambda: (conv(), gc.AvgPool2D(2), gc.Flatten(), gc.Dense(4)),
    "no ReLU before the pooling": lambda: (conv(activation=None), gc.MaxPool2D(2), gc.ReLU(), gc.Flatten(), gc.Dense(4)),
    "sigmoid": lambda: (conv(activation="sigmoid"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(5, activation="sigmoid"), gc.Dense(4)),
    "no bias": lambda: (conv(use_bias=False), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(4, use_bias=False)),
    "ReLU twice": lambda: (conv(), gc.ReLU(), gc.Flatten(), gc.Dense(5, activation="relu"), gc.ReLU(), gc.Dense(4)),
    "ends in pooling": lambda: (conv(), gc.MaxPool2D(2)),
    "ends in ReLU": lambda: (gc.Flatten(), gc.Dense(4, activation="relu")),
}


def build(name: str) -> gc.Sequential:
    model = gc.Sequential(*NETWORKS[name]()).build((2, 12, 12), seed=3, device="cpu", dtype="float64")
    rng = np.random.default_rng(5)
    for parameter in model.parameters.values():
        parameter.value[...] = rng.normal(size=parameter.shape)
    return model


@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_gives_the_bits_of_its_layers_one_by_one(name: str, input_grad: bool) -> None:
    model, apart = build(name), build(name)
    rng = np.random.default_rng(7)
    x, dy = rng.normal(size=(5, 2, 12, 12)), rng.normal(size=(5, *model.output_shape))

    for _ in range(2):  # the second pass adds to the gradients of the first
        y = model.forward(x, training=True)
        dx = model.backward(dy, input_grad=input_grad)
        ref, gradient = x, dy
        for layer in apart.layers:
            ref = layer.forward(ref, training=True)
        for layer in reversed(apart.layers):
            gradient = layer.backward(gradient)

        np.testing.assert_array_equal(y, ref)
        if input_grad:
            np.testing.assert_array_equal(dx, gradient)
        else:
            assert dx is None
        for key, parameter in model.parameters.items():
            np.testing.assert_array_equal(parameter.grad, apart.parameters[key].grad, err_msg=key)


@pytest.mark.parametrize("name", ["keras", "lenet5x5", "convolutions"])
def test_relu_has_no_gradient_pass_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    monkeypatch.setattr(cpu, "relu_grad", lambda *_, **__: pytest.fail("a pass over the gradient for ReLU alone"))
    y = model.forward(np.ones((2, 2, 12, 12)), training=True)
    model.backward(np.ones_like(y))


@pytest.mark.parametrize("name", ["keras", "lenet5x5", "overlapping windows"])
def test_nan_takes_the_same_way_as_through_the_layers(name: str) -> None:
    model, apart = build(name), build(name)
    x = np.random.default_rng(1).normal(size=(3, 2, 12, 12))
    x[1, 0, 4, 4] = np.nan
    y = model.forward(x, training=True)
    model.backward(np.ones_like(y))
    ref = x
    for layer in apart.layers:
        ref = layer.forward(ref, training=True)
    gradient: Any = np.ones_like(ref)
    for layer in reversed(apart.layers):
        gradient = layer.backward(gradient)
    np.testing.assert_array_equal(y, ref)
    for key, parameter in model.parameters.items():
        np.testing.assert_array_equal(parameter.grad, apart.parameters[key].grad, err_msg=key)


def test_what_is_one_stage() -> None:
    first, pool, flat = conv(), gc.MaxPool2D(2), gc.Flatten()
    found = stages([first, pool, flat])
    assert isinstance(found[0], ConvReluMaxPool) and list(found[0].layers) == [first, pool] and found[1] is flat
    assert stages([first, flat, pool]) == [first, flat, pool]
    for other in (conv(activation=None), conv(activation="sigmoid"), gc.ReLU()):
        assert stages([other, pool]) == [other, pool]


def test_what_backward_does_besides_is_planned_once() -> None:
    def plans(name: str) -> list[tuple[bool, bool, bool]]:
        return [(plan.overwrites, plan.takes_relu, plan.relu_taken) for plan in planned(stages(NETWORKS[name]()))]

    # Convolution with pooling, Flatten, Dense with ReLU, Dense: each takes the gradient of the ReLU before it along, but for a first stage
    # with pooling, which masks for nothing.
    assert plans("keras") == [(True, False, False), (True, False, False), (True, False, True), (False, True, False)]
    found = stages(NETWORKS["lenet5x5"]())
    assert [plan.relu_taken for plan in planned(found)][:2] == [False, True]
    assert [plan.relu_taken for plan in planned(found, first=1)][:2] == [False, False]  # the first one is frozen
    # Dropout keeps ReLU's zeros, so the last layer sees through it.
    assert plans("lenet5x5")[-3:] == [(True, True, True), (True, False, False), (False, True, False)]
    # Nobody takes the gradient of a ReLU along that is not right before, or where it cannot: pooling has no kernel for it.
    assert plans("averages") == [(True, False, False), (True, False, False), (True, False, False), (False, False, False)]
    assert plans("ends in pooling") == [(False, False, False)]
    # What a Flatten at the end hands on is the caller's own array.
    assert [plan.overwrites for plan in planned([conv(), gc.ReLU(), gc.Flatten()])] == [False, False, False]
    assert planned([]) == [] and Plan() == planned([gc.Dense(3)])[0]


def test_backward_twice_is_refused_and_nothing_is_kept() -> None:
    model = build("ends in pooling")
    y = model.forward(np.ones((2, 2, 12, 12)), training=True)
    model.backward(np.ones_like(y))
    with pytest.raises(GpucnnError, match="backward of layer 'maxpool2d_1' needs a forward with training=True"):
        model.backward(np.ones_like(y))
    model.forward(np.ones((2, 2, 12, 12)))
    with pytest.raises(GpucnnError, match="needs a forward"):
        model.backward(np.ones_like(y))


def test_summary_counts_what_is_kept() -> None:
    text = io.StringIO()
    model = build("ends in pooling")
    model.summary(file=text)
    kept = [line.split("  ")[-1].strip() for line in text.getvalue().splitlines() if line.startswith(("conv2d", "maxpool2d"))]
    assert kept == ["2.2 KiB", "1.2 KiB"]  # 2·12·12 numbers of the input; 3·5·5 maxima and their places


def test_gradients_that_take_others_along(rng: np.random.Generator) -> None:
    window, pool = conv_window((7, 6), (3, 2), (2, 1), ((1, 0), (0, 1))), pool_window((3, 6), (2, 2), (2, 2), 0, 1, False)
    x, weight = rng.normal(size=(3, 4, 7, 6)), rng.normal(size=(6, 2, 3, 2))
    y, places = cpu.conv2d_relu_max_pool2d(x, weight, None, window, pool, 2)
    dy, dpool = rng.normal(size=(3, 6, 3, 6)), rng.normal(size=y.shape)
    dbias = np.full(6, np.nan)

    dx = cpu.conv2d_input_grad(dy, weight, window, 2, relu=np.maximum(x, 0))
    np.testing.assert_array_equal(dx, cpu.relu_grad(cpu.conv2d_input_grad(dy, weight, window, 2), x))
    dweight = cpu.conv2d_weight_grad(dy, x, window, 2, dbias=dbias)
    np.testing.assert_array_equal(dweight, cpu.conv2d_weight_grad(dy, x, window, 2))
    np.testing.assert_array_equal(dbias, cpu.bias_grad(dy))
    dconv = cpu.max_pool2d_grad(dpool, places, pool, relu=y)
    np.testing.assert_array_equal(dconv, cpu.max_pool2d_grad(cpu.relu_grad(dpool, y), places, pool))
    dweight = cpu.conv2d_relu_max_pool2d_weight_grad(dpool, places, x, window, pool, 2, relu=y, dbias=dbias)
    np.testing.assert_array_equal(dweight, cpu.conv2d_weight_grad(dconv, x, window, 2))
    np.testing.assert_array_equal(dbias, cpu.bias_grad(dconv))

    rows, matrix, drows = rng.normal(size=(5, 7)), rng.normal(size=(6, 7)), rng.normal(size=(5, 6))
    np.testing.assert_array_equal(cpu.dense_input_grad(drows, matrix, relu=rows), cpu.relu_grad(drows @ matrix, rows))
    np.testing.assert_array_equal(cpu.dense_weight_grad(drows, rows, dbias=dbias), drows.T @ rows)
    np.testing.assert_array_equal(dbias, drows.sum(0))


def test_the_operation_of_two_layers_has_one_group_where_none_are_named() -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.normal(size=(2, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3))
    window, pool = conv_window((6, 6), 3), pool_window((4, 4), 2)
    y, places = cpu.conv2d_relu_max_pool2d(x, weight, None, window, pool)
    expected, where = cpu.max_pool2d(np.maximum(cpu.conv2d(x, weight, None, window), 0), pool)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(places, where)
    dy = rng.normal(size=y.shape)
    dconv = cpu.relu_grad(cpu.max_pool2d_grad(dy, places, pool), cpu.conv2d(x, weight, None, window))
    np.testing.assert_allclose(
        cpu.conv2d_relu_max_pool2d_weight_grad(dy, places, x, window, pool, relu=y),
        cpu.conv2d_weight_grad(dconv, x, window),
        rtol=1e-12,
    )
