"""The dense layer's products: smaller than a tile, exactly a tile, and ragged over several."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn_kernels.dense import plain as gemm
from tolerances import check

SIZES = [(1, 1, 1), (3, 5, 2), (16, 16, 16), (17, 20, 5), (2, 1, 19)]  # N, C, K


@pytest.mark.parametrize(("n", "c", "k"), SIZES)
@pytest.mark.parametrize(("with_bias", "relu"), [(False, False), (True, True)])
def test_forward(device: Device, n: int, c: int, k: int, with_bias: bool, relu: bool) -> None:
    x, weight, bias = normal(0, n, c), normal(1, k, c), normal(2, k) if with_bias else None
    out = Output(device, (n, k))
    device.ops.dense(device.array(x), device.array(weight), None if bias is None else device.array(bias), relu=relu, out=out.array)
    ref = cpu.dense(double(x), double(weight), None if bias is None else double(bias), relu=relu)
    magnitude = cpu.dense(np.abs(double(x)), np.abs(double(weight)), None if bias is None else np.abs(double(bias)))
    check(out.result(), ref, magnitude=magnitude, terms=c, direction="forward")


@pytest.mark.parametrize(("n", "c", "k"), SIZES)
def test_gradients(device: Device, n: int, c: int, k: int) -> None:
    x, weight, dy = normal(0, n, c), normal(1, k, c), normal(3, n, k)
    out = Output(device, (n, c))
    device.ops.dense_input_grad(device.array(dy), device.array(weight), out=out.array)
    ref, magnitude = double(dy) @ double(weight), np.abs(double(dy)) @ np.abs(double(weight))
    check(out.result(), ref, magnitude=magnitude, terms=k, direction="input_grad")
    out = Output(device, (k, c))
    device.ops.dense_weight_grad(device.array(dy), device.array(x), out=out.array)
    ref, magnitude = double(dy).T @ double(x), np.abs(double(dy)).T @ np.abs(double(x))
    check(out.result(), ref, magnitude=magnitude, terms=n, direction="weight_grad")


@pytest.mark.parametrize(("n", "c", "k"), SIZES)
def test_gradients_fused(device: Device, n: int, c: int, k: int) -> None:
    """The input's with that of the ReLU before it, and the weight's with that of the bias."""
    x, weight, dy = normal(0, n, c), normal(1, k, c), normal(3, n, k)
    relu = np.random.default_rng(9).choice(np.array([0, -0.0, np.nan, 1e-45, 2, np.inf, -1], np.float32), (n, c))
    results = []
    for given in (None, device.array(relu)):
        out = Output(device, (n, c))
        gemm.dense_input_grad(device.array(dy), device.array(weight), out.array, stream(out.array), relu=given)
        results.append(out.result())
    np.testing.assert_array_equal(results[1].view(np.uint32), cpu.relu_grad(results[0], relu).view(np.uint32))

    out, sums = Output(device, (k, c)), Output(device, (k,))
    gemm.dense_weight_grad(device.array(dy), device.array(x), out.array, stream(out.array), dbias=sums.array)
    ref, magnitude = double(dy).T @ double(x), np.abs(double(dy)).T @ np.abs(double(x))
    check(out.result(), ref, magnitude=magnitude, terms=n, direction="weight_grad")
    check(sums.result(), double(dy).sum(0), magnitude=np.abs(double(dy)).sum(0), terms=n, direction="weight_grad")


def test_nan_stays_in_its_row(device: Device) -> None:
    x = np.ones((3, 2), np.float32)
    x[1, 0] = np.nan
    y = to_numpy(device.ops.dense(device.array(x), device.array(np.ones((2, 2), np.float32)), relu=True))
    np.testing.assert_array_equal(np.isnan(y), [[False] * 2, [True] * 2, [False] * 2])
