"""The functions for layers beside convolution and pooling: PyTorch's results, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn.functional as F
from gpucnn.errors import ArgumentError, ShapeError

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
        *((F.gelu(x, approximate=kind), T.gelu(tensor, approximate=kind)) for kind in ("none", "tanh")),
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


def test_batch_norm_without_running_statistics_is_pytorchs(rng: np.random.Generator) -> None:
    x, weight, bias = rng.normal(2, 3, size=(4, 3, 2, 5)), rng.normal(size=3), rng.normal(size=3)
    expected = T.batch_norm(torch.tensor(x), None, None, torch.tensor(weight), torch.tensor(bias), training=True)
    np.testing.assert_allclose(F.batch_norm(x, None, None, weight, bias, training=True), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(F.batch_norm(x, training=True).mean(axis=(0, 2, 3)), 0, atol=1e-12)
    one = np.ones(3)
    for mean, variance, training in ((None, None, False), (None, one, False), (one, None, True), (None, one, True), (one, None, False)):
        with pytest.raises(TypeError, match="give both, or neither and training=True"):
            F.batch_norm(x, mean, variance, weight, bias, training)


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


ONE = np.ones((1, 1, 1, 1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("momentum", "message"), [(3.0, "must be at most 1, got 3.0"), (-0.1, "of at least 0, got -0.1")])
def test_the_momentum_of_batch_norm_is_a_share(momentum: float, message: str, training: bool) -> None:
    with pytest.raises(ArgumentError, match=f"^momentum {message}|^momentum must be a finite number {message}"):
        F.batch_norm(np.ones((2, 3)), np.zeros(3), np.ones(3), training=training, momentum=momentum)


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
        (lambda: F.conv2d(ONE, ONE, padding=10**9), "an image with its padding would be an array of shape .* more than 2³¹ − 1 numbers"),
        (lambda: F.conv2d(ONE, np.ones((40000, 1, 1, 1)), padding=150), "^y would be an array of shape"),
        (lambda: F.conv2d_input_grad(ONE, ONE, (1, 1, 60000, 60000), stride=60000), "^x would be an array of shape"),
        (lambda: F.conv_transpose2d(np.ones((1, 1, 2, 2)), ONE, stride=10**8), "^y would be an array of shape"),
        (lambda: F.zero_pad2d(ONE, 10**9), "^y would be an array of shape"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()


def test_any_order_of_bytes(rng: np.random.Generator) -> None:
    x, weight = rng.normal(size=(1, 2, 5, 5)).astype("f"), rng.normal(size=(3, 2, 3, 3)).astype("f")
    y, (p, indices) = F.conv2d(x, weight), F.max_pool2d(x, 2)
    for swapped in ((x.astype(">f4"), weight), (x, weight.astype(">f4"))):
        got = F.conv2d(*swapped)
        assert got.dtype == np.float32 and got.dtype.isnative
        np.testing.assert_array_equal(got, y)
    expected = F.max_pool2d_grad(p, indices, x.shape, 2)
    for given in (indices.astype(">i4"), indices.tolist()):
        np.testing.assert_array_equal(F.max_pool2d_grad(p, given, x.shape, 2), expected)


def test_whole_numbers_in_lists_are_numbers() -> None:
    np.testing.assert_array_equal(F.relu([[-1, 2]]), [[0, 2]])
    assert F.relu([[-1, 2]]).dtype == np.float32
    assert F.dense([[1, 2]], np.ones((3, 2))).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.relu(torch.eye(3).to_sparse()), "a tensor cannot be used .*: give a dense one of float32"),
        (
            lambda: F.dense(np.ones((1, 2)), np.ones((3, 2), "f")),
            r"weight as float32 and the others as float64: convert with .astype\('float64'\)",
        ),
        (lambda: F.relu(np.ones(3, np.int64)), r"x must be float32 or float64, got int64: convert it with .astype\('float32'\)"),
        (
            lambda: F.max_pool2d_grad(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), (1, 1, 2, 2), 2),
            "an int32 array .* as max_pool2d returns",
        ),
        (lambda: F.max_pool2d_grad(np.ones((1, 1, 1, 1)), [[[[2**40]]]], (1, 1, 2, 2), 2), "indices must be an int32 array"),
        (lambda: F.batch_norm(np.ones((2, 3)), np.zeros(3), memoryview(np.ones(3)), training=True), "running_var is updated in place"),
    ],
)
def test_what_is_of_another_kind_is_refused(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()
