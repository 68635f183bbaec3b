"""Activations beside ReLU, sigmoid and softmax, and operations on whole planes, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, distinct, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from tolerances import check

OPS: dict[str, Any] = {
    # Roundings: of the functions two (one unit in the last place), of each product and sum one.
    "leaky_relu": ({"negative_slope": 0.2}, 2),
    "elu": ({"alpha": 1.5}, 4),
    "tanh": ({}, 4),
    "silu": ({}, 8),
    "relu6": ({}, 0),
    "hard_sigmoid": ({}, 2),
    "hard_swish": ({}, 4),
    "gelu": ({}, 12),
    "gelu_by_tanh": ({"approximate": True}, 16),
}
SHAPES = [(1, 1), (3, 43), (2, 3, 2, 7)]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_units(device: Device, name: str, shape: tuple[int, ...]) -> None:
    options, roundings = OPS[name]
    op = name.removesuffix("_by_tanh")
    x, dy = (4 if op in ("relu6", "hard_sigmoid", "hard_swish") else 2) * normal(1, *shape), normal(2, *shape)
    out = Output(device, shape)
    getattr(device.ops, op)(device.array(x), **options, out=out.array)
    ref = getattr(cpu, op)(double(x), **options)
    # Where two numbers near one cancel, the error is that of numbers near the input.
    check(out.result(), ref, magnitude=np.abs(ref) + np.abs(x), terms=roundings, direction="elementwise")
    kept = x if op in ("silu", "gelu", "hard_swish") else ref.astype(np.float32)
    out = Output(device, shape)
    getattr(device.ops, f"{op}_grad")(device.array(dy), device.array(kept), **options, out=out.array)
    ref = getattr(cpu, f"{op}_grad")(double(dy), double(kept), **options)
    magnitude = np.abs(dy) * (3 + np.abs(double(x)) ** 3)
    check(out.result(), ref, magnitude=magnitude, terms=roundings, direction="elementwise")


@pytest.mark.parametrize("name", OPS)
def test_special_numbers_and_in_place(device: Device, name: str) -> None:
    options, _ = OPS[name]
    op = name.removesuffix("_by_tanh")
    x = np.array([np.nan, np.inf, 0.0, 1e-40, -1e-40, 60.0, -60.0], np.float32)
    given = device.array(x.copy())
    getattr(device.ops, op)(given, **options, out=given)
    y = to_numpy(given)
    assert (
        np.isnan(y[0])
        and y[1] == {"tanh": 1, "hard_sigmoid": 1, "relu6": 6}.get(op, np.inf)
        and y[2] == (0.5 if op == "hard_sigmoid" else 0)
    )
    np.testing.assert_allclose(y[5:], getattr(cpu, op)(double(x), **options)[5:], rtol=1e-5, atol=1e-20)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_by_tanh", "hard_swish"])
def test_gradients_of_inputs_whose_squares_overflow(device: Device, name: str) -> None:
    """Those are 1 and 0 there."""
    op, x = name.removesuffix("_by_tanh"), np.array([1e38, -1e38, 3e19, -3e19, 1e19, -1e19], np.float32)
    out = Output(device, x.shape)
    getattr(device.ops, f"{op}_grad")(device.array(np.ones_like(x)), device.array(x), **OPS[name][0], out=out.array)
    np.testing.assert_array_equal(out.result(), x > 0)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 4), (1, 2, 7, 9)])
def test_whole_planes(device: Device, shape: tuple[int, ...]) -> None:
    x, dy = distinct(1, *shape), normal(2, *shape[:2])
    size = shape[2:]
    out = Output(device, shape[:2])
    device.ops.global_avg_pool2d(device.array(x), out=out.array)
    sums = np.abs(double(x)).mean(axis=(2, 3))
    check(out.result(), cpu.global_avg_pool2d(double(x)), magnitude=sums, terms=size[0] * size[1], direction="forward")
    out = Output(device, shape)
    device.ops.global_avg_pool2d_grad(device.array(dy), size, out=out.array)
    np.testing.assert_allclose(out.result(), cpu.global_avg_pool2d_grad(double(dy), size), rtol=1e-7)
    out, places = Output(device, shape[:2]), Output(device, shape[:2], "int32")
    device.ops.global_max_pool2d(device.array(x), out=out.array, indices=places.array)
    y, expected = cpu.global_max_pool2d(x)
    np.testing.assert_array_equal(out.result(), y)
    np.testing.assert_array_equal(places.result(), expected)
    out = Output(device, shape)
    device.ops.global_max_pool2d_grad(device.array(dy), places.array, size, out=out.array)
    np.testing.assert_array_equal(out.result(), cpu.global_max_pool2d_grad(dy, expected, size))
    for padding in (((0, 0), (0, 0)), ((1, 0), (2, 3))):
        padded = cpu.zero_pad2d(x, padding)
        out = Output(device, padded.shape)
        device.ops.zero_pad2d(device.array(x), padding, out=out.array)
        np.testing.assert_array_equal(out.result(), padded)
        out = Output(device, shape)
        device.ops.zero_pad2d_grad(device.array(padded), padding, out=out.array)
        np.testing.assert_array_equal(out.result(), x)


def test_the_largest_of_equals_of_nan_and_of_nothing_but_infinity(device: Device) -> None:
    x = np.zeros((1, 4, 6, 7), np.float32)
    x[0, 0, 2, 3] = x[0, 0, 5, 5] = 1
    x[0, 1, 3, 3] = x[0, 1, 1, 6] = np.nan
    x[0, 2] = -np.inf
    y, places = device.ops.global_max_pool2d(device.array(x))
    assert to_numpy(places).tolist() == [[17, 13, 0, 0]]
    np.testing.assert_array_equal(to_numpy(y), [[1, np.nan, -np.inf, 0]])
