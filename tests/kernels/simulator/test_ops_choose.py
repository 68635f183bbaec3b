"""The operations of gpucnn.ops with each variant that can do them, workspaces and all: what a network runs is what was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn_kernels.choose import select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tiled as tiled_conv
from gpucnn_kernels.core import launch
from gpucnn_kernels.dense import tiled as tiled_dense
from gpucnn_kernels.engine.tiles import Tile

SMALL = Tile(16, 16, 8, 4, 4, 1)  # that the simulator can do

WINDOW, POOL = conv_window((5, 6), (3, 3), 1, 1), pool_window((5, 6), (2, 2), (2, 2), 0, 1, False)
X, WEIGHT, BIAS, DY = normal(0, 2, 2, 5, 6), normal(1, 3, 2, 3, 3), normal(2, 3), normal(3, 2, 3, 5, 6)
DEEP = normal(4, 4, 1, 3, 3)  # depthwise, two filters for each channel
DEEP_DY = normal(5, 2, 4, 5, 6)
ROWS, MATRIX, DROWS = normal(6, 5, 9), normal(7, 7, 9), normal(8, 5, 7)


def on(device: Device, arguments: tuple[Any, ...]) -> list[Any]:
    return [device.array(item) if isinstance(item, np.ndarray) else item for item in arguments]


def close(got: Any, expected: Any) -> None:
    # Sums of at most 60 products of numbers around 1: sixty roundings.
    np.testing.assert_allclose(to_numpy(got), expected, rtol=60 * 2.0**-24, atol=60 * 2.0**-24 * 8)


CASES = [
    *(("conv2d", (X, WEIGHT, BIAS, WINDOW), variant) for variant in ("plain", "direct", "small")),
    ("conv2d", (X, DEEP, None, WINDOW, 2), "depthwise"),
    *(("conv2d_input_grad", (DY, WEIGHT, WINDOW), variant) for variant in ("plain", "small")),
    ("conv2d_input_grad", (DEEP_DY, DEEP, WINDOW, 2), "depthwise"),
    *(("conv2d_weight_grad", (DY, X, WINDOW), variant) for variant in ("plain", "direct", "small")),
    ("conv2d_weight_grad", (DEEP_DY, X, WINDOW, 2), "depthwise"),
    *(("dense", (ROWS, MATRIX), variant) for variant in ("plain", "small")),
    *(("dense_input_grad", (DROWS, MATRIX), variant) for variant in ("plain", "small")),
    *(("dense_weight_grad", (DROWS, ROWS), variant) for variant in ("plain", "small")),
]


# Kernels that other tests compile have other shapes or tiles. One of each kind is compiled here too: the choice is the same for all.
QUICK = {"plain": [case[0] for case in CASES], "direct": ["conv2d"], "depthwise": ["conv2d_input_grad"], "small": []}


@pytest.mark.parametrize(
    ("operation", "arguments", "variant"),
    [pytest.param(*case, marks=() if case[0] in QUICK[case[-1]] else COMPILED) for case in CASES],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operations_with_what_they_take_along(
    device: Device, monkeypatch: pytest.MonkeyPatch, operation: str, arguments: tuple[Any, ...], variant: str
) -> None:
    for name, small in {**tiled_conv.variants("small", SMALL, 1.0), **tiled_dense.variants("small", SMALL, 1.0)}.items():
        monkeypatch.setitem(VARIANTS, name, [*VARIANTS[name], small])
    select._choose.cache_clear()
    along: dict[str, Any] = {}
    biased = None
    if operation.endswith("input_grad"):
        along["relu"] = np.maximum(X if "conv" in operation else ROWS, 0)
    elif operation.endswith("weight_grad"):
        biased = np.full(arguments[0].shape[1], np.nan, np.float32)
        along["dbias"] = biased
    else:
        along["relu"] = True
    try:
        with select.override({operation: variant}), launch.recording() as launches:
            given = {name: device.array(value) if isinstance(value, np.ndarray) else value for name, value in along.items()}
            got = getattr(device.ops, operation)(*on(device, arguments), **given)
    finally:
        select._choose.cache_clear()
    close(got, getattr(cpu, operation)(*arguments, **along))
    if biased is not None:
        close(given["dbias"], biased)
    names = " ".join(item.name for item in launches)
    assert "relu_grad" not in names
    if variant != "plain":  # and not a plain kernel under another name
        assert {"small": "engine", "direct": "direct", "depthwise": "depthwise"}[variant] in names


@pytest.mark.parametrize("variant", [pytest.param("plain", marks=pytest.mark.slow), "direct"])
@pytest.mark.parametrize("masked", [False, True])
def test_convolution_and_pooling_forward_and_back(device: Device, variant: str, masked: bool) -> None:
    operations = dict.fromkeys(("conv2d_relu_max_pool2d", "conv2d_relu_max_pool2d_weight_grad"), variant)
    dpool = normal(9, 2, 3, 2, 3)
    expected, places = cpu.conv2d_relu_max_pool2d(X, WEIGHT, BIAS, WINDOW, POOL)
    dbias, own = np.full(3, np.nan, np.float32), device.array(np.full(3, np.nan, np.float32))
    with select.override(operations), launch.recording() as launches:
        y, indices = device.ops.conv2d_relu_max_pool2d(*on(device, (X, WEIGHT, BIAS, WINDOW, POOL)))
        relu = None if masked else y
        dweight = device.ops.conv2d_relu_max_pool2d_weight_grad(
            device.array(dpool), indices, device.array(X), WINDOW, POOL, relu=relu, dbias=own
        )
    close(y, expected)
    np.testing.assert_array_equal(to_numpy(indices), places)
    reference = cpu.conv2d_relu_max_pool2d_weight_grad(dpool, places, X, WINDOW, POOL, relu=None if masked else expected, dbias=dbias)
    close(dweight, reference)
    close(own, dbias)
    if variant == "direct":
        assert len(launches) == 3  # forward; a kernel and the sum of its blocks' shares for both gradients
