"""The functions for layers beside convolution and pooling: PyTorch's results, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn.functional as F
from gpucnn.errors import ShapeError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
T = torch.nn.functional


def test_activations_are_pytorchs(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4, 5)) * 2
    tensor = torch.tensor(x)
    for got, expected in (
        (F.tanh(x), torch.tanh(tensor)),
        (F.leaky_relu(x), T.leaky_relu(tensor)),
        (F.leaky_relu(x, 0.3), T.leaky_relu(tensor, 0.3)),
        (F.elu(x, 0.7), T.elu(tensor, 0.7)),
        (F.silu(x), T.silu(tensor)),
        (F.relu6(3 * x), T.relu6(3 * tensor)),
        (F.hard_sigmoid(x), T.hardsigmoid(tensor)),
        (F.hard_swish(x), T.hardswish(tensor)),
        (F.gelu(x), T.gelu(tensor)),
        (F.gelu(x, approximate=True), T.gelu(tensor, approximate="tanh")),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 5)])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_is_pytorchs_and_moves_the_running_ones_in_place(shape: tuple[int, ...], affine: bool, rng: np.random.Generator) -> None:
    x, mean, variance = rng.normal(2, 3, size=shape), rng.normal(size=3), rng.random(3) + 0.5
    weight, bias = (rng.normal(size=3), rng.normal(size=3)) if affine else (None, None)
    moved: Any = torch.tensor(mean), torch.tensor(variance)
    others = [None if each is None else torch.tensor(each) for each in (weight, bias)]
    for training in (False, True):
        got = F.batch_norm(x, mean, variance, weight, bias, training, 0.3, 1e-3)
        np.testing.assert_allclose(got, T.batch_norm(torch.tensor(x), *moved, *others, training, 0.3, 1e-3), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(mean, moved[0], rtol=1e-12)
        np.testing.assert_allclose(variance, moved[1], rtol=1e-12)
    strided = np.zeros((3, 2))
    F.batch_norm(x, strided[:, 0], strided[:, 1] + 1, training=True)
    assert strided[:, 0].all() and not strided[:, 1].any()


def test_transposed_convolution_is_pytorchs(rng: np.random.Generator) -> None:
    x, weight, bias = rng.normal(size=(2, 4, 5, 6)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=6)
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    ref = T.conv_transpose2d(torch.tensor(x), torch.tensor(weight), torch.tensor(bias), **options)
    np.testing.assert_allclose(F.conv_transpose2d(x, weight, bias, **options), ref, rtol=1e-10, atol=1e-12)
    assert F.conv_transpose2d(x, weight, stride=3, padding="same").shape == (2, 3, 15, 18)


def test_whole_planes_and_zeros_around_them(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(F.global_avg_pool2d(x), x.mean(axis=(2, 3)), rtol=1e-12)
    y, places = F.global_max_pool2d(x)
    np.testing.assert_array_equal(y, x.max(axis=(2, 3)))
    np.testing.assert_array_equal(places, x.reshape(2, 3, -1).argmax(axis=2))
    np.testing.assert_array_equal(F.zero_pad2d(x, (1, 2)), np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.batch_norm(np.ones(3), np.ones(3), np.ones(3)), r"x must be \(N, C, …\), got shape \(3,\)"),
        (lambda: F.batch_norm(np.ones((2, 3)), np.ones(2), np.ones(3)), r"running_mean must have shape \(3,\), got \(2,\)"),
        (lambda: F.batch_norm(np.ones((1, 3)), np.ones(3), np.ones(3), training=True), "at least two numbers in each channel"),
        (lambda: F.conv_transpose2d(np.ones((1, 3, 2, 2)), np.ones((2, 3, 1, 1))), "with the 3 channels of x"),
        (lambda: F.conv_transpose2d(np.ones((1, 2, 2, 2)), np.ones((2, 3, 1, 1)), np.ones(2)), "each of the 3 filters, got shape"),
        (lambda: F.conv_transpose2d(np.ones((1, 2, 2, 2)), np.ones((2, 3, 1, 1)), output_padding=1), "below the stride or the dilation"),
        (lambda: F.zero_pad2d(np.ones((1, 2, 2, 2)), "same"), "padding of zero_pad2d must be integers, got 'same'"),
        (lambda: F.global_avg_pool2d(np.ones((2, 3))), "x must have 4 axes"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()
