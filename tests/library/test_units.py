"""Activations beside ReLU, sigmoid and softmax, and operations on whole planes: against PyTorch, SciPy and Python's own functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.ops import cpu
from gpucnn.ops.cpu._erf import erfc

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 88.0, -88.0, 1e30, -1e30])
NAMES: dict[str, Any] = {
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.2}),
    "elu": ("elu", {"alpha": 1.5}),
    "tanh": ("tanh", {}),
    "silu": ("silu", {}),
    "relu6": ("relu6", {}),
    "hard sigmoid": ("hard_sigmoid", {}),
    "hard swish": ("hard_swish", {}),
    "gelu": ("gelu", {}),
    "gelu by tanh": ("gelu", {"approximate": True}),
}


def test_erfc_is_pythons() -> None:
    x = np.concatenate([np.linspace(-6, 27, 20_001), [0.46875, np.nextafter(0.46875, 1), 4, np.nextafter(4, 5)]])
    expected = np.array([math.erfc(value) for value in x])
    np.testing.assert_allclose(erfc(x), expected, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(erfc(x.astype(np.float32)), [math.erfc(value) for value in x.astype(np.float32)], rtol=2e-4, atol=1e-30)
    assert erfc(x.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(erfc(np.array([np.nan, np.inf, -np.inf, 0])), [np.nan, 0, 2, 1])


@pytest.mark.parametrize("name", NAMES)
def test_activations_and_gradients_are_pytorchs(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    op, options = NAMES[name]
    given = {"approximate": "tanh"} if options.get("approximate") else options
    x, dy = np.concatenate([rng.normal(size=500) * 3, SPECIAL[np.isfinite(SPECIAL)]]), rng.normal(size=500 + 8)
    tensor = torch.tensor(x, requires_grad=True)
    ref = getattr(torch if op == "tanh" else torch.nn.functional, op.replace("hard_", "hard"))(tensor, **given)
    ref.backward(torch.tensor(dy))
    y = getattr(cpu, op)(x, **options)
    np.testing.assert_allclose(y, ref.detach(), rtol=1e-12, atol=1e-12)
    kept = x if op in ("silu", "gelu", "hard_swish") else y
    finite = np.abs(x) < 1e20  # the cube of what is larger is infinite
    rtol = 1e-7 if op == "hard_sigmoid" else 1e-10  # PyTorch has its 1/6 in float32 there
    np.testing.assert_allclose(getattr(cpu, f"{op}_grad")(dy, kept, **options)[finite], tensor.grad[finite], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity(name: str) -> None:
    op, options = NAMES[name]
    y = getattr(cpu, op)(SPECIAL[:2], **options)
    assert np.isnan(y[0]) and y[1] == {"tanh": 1, "hard_sigmoid": 1, "relu6": 6}.get(op, np.inf)
    x = np.full(3, 0.5)
    np.testing.assert_array_equal(getattr(cpu, op)(x, **options, out=x), getattr(cpu, op)(np.full(3, 0.5), **options))


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu", "elu", "gelu", "silu", "relu6", "hard_sigmoid", "hard_swish"])
def test_a_last_activation_of_another_kind_is_never_left_off(activation: str) -> None:
    model = gc.Sequential(gc.Dense(3, activation=activation)).build((4,), device="cpu")
    x = np.random.default_rng(0).random((5, 4), np.float32)
    np.testing.assert_array_equal(model.forward(x, logits=True), model.forward(x))


def test_whole_planes(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4, 5, 6))
    np.testing.assert_allclose(cpu.global_avg_pool2d(x), x.mean(axis=(2, 3)), rtol=1e-12)
    y, places = cpu.global_max_pool2d(x)
    np.testing.assert_array_equal(y, x.max(axis=(2, 3)))
    np.testing.assert_array_equal(x.reshape(12, 30)[range(12), places.reshape(-1)], y.reshape(-1))
    x[0, 0, 1, 1] = x[0, 0, 2, 2] = np.nan
    x[1, 1] = -np.inf
    y, places = cpu.global_max_pool2d(x)
    assert np.isnan(y[0, 0]) and places[0, 0] == 7 and places[1, 1] == 0
    padding = ((1, 0), (2, 3))
    padded = cpu.zero_pad2d(x, padding)
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (0, 0), *padding)))
    np.testing.assert_array_equal(cpu.zero_pad2d_grad(padded, padding), x)
