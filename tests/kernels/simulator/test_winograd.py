"""Winograd's kernel on odd shapes, forward and gradient of the input, against the CPU's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_harness import double, normal
from winograd_cases import CASES, Case

from gpucnn.device import Device, simulated, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import select
from gpucnn_kernels.conv import winograd


def masks(*shape: int) -> Any:
    """Where ReLU's output is expected: positive numbers, zeros of both signs, NaN, and what ReLU never gives."""
    return np.random.default_rng(9).choice(np.array([0, -0.0, np.nan, 1e-45, 2, np.inf, -1], np.float32), shape)


@pytest.mark.parametrize("name", CASES)
def test_both_ways(device: Device, name: str) -> None:
    """Alone, and with what comes after it: the same bits, or 0."""
    case = CASES[name]()
    plain = case.forward(device, with_bias=False, relu=False)
    np.testing.assert_array_equal(case.forward(device, with_bias=False), np.maximum(plain, 0))
    case.forward(device, relu=False)
    alone, mask = case.input_grad(device), masks(*case.x.shape)
    np.testing.assert_array_equal(case.input_grad(device, mask), cpu.relu_grad(alone, mask))


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_shape(device: Device, data: st.DataObject) -> None:
    sides = st.tuples(st.integers(0, 4), st.integers(0, 4))
    hw = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    chosen = data.draw(st.tuples(sides, sides))
    padding = tuple((before, max(after, 3 - size - before)) for size, (before, after) in zip(hw, chosen, strict=True))
    case = Case(data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), hw, data.draw(st.integers(1, 5)), padding)
    case.forward(device)
    case.input_grad(device, masks(*case.x.shape))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the simulator
@pytest.mark.parametrize("special", [np.inf, np.nan, np.float32(3e38)])
def test_what_is_not_finite_is_where_the_sums_have_it(device: Device, special: float) -> None:
    """And numbers whose transform would overflow give the sums that they have."""
    case = Case(1, 2, (6, 6), 2)
    case.x[0, 1, 2, 3] = special
    case.dy[0, 1, 3, 3] = -special
    if np.isfinite(special):  # the two pixels in the middle of a tile: their sum is beyond float32, the outputs are not
        case.x[0, 1, 2, 2] = special
        case.dy[0, 1, 3, 2] = -special
        case.weight *= np.float32(1e-3)
    y, dx = case.forward(device, relu=False, nan=True), case.input_grad(device, nan=True)
    assert np.isfinite(y).all() == np.isfinite(dx).all() == np.isfinite(special)
    assert np.isfinite(y[0, :, 0]).all() and np.isfinite(dx[0, :, 5]).all(), "it has spread over its tile"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_weight_meets_no_padding(device: Device) -> None:
    """0 · ∞ would be NaN: padding is left out, as in plain.py."""
    case = Case(1, 1, (4, 4), 1)
    case.x[...] = np.abs(case.x)
    case.weight[0, 0, 0, 0] = np.inf
    out = device.xp.full((1, 1, 4, 4), np.nan, "float32")
    room = device.xp.empty(case.tile.packed(1, 1), "float32")
    winograd.conv2d(device.array(case.x), device.array(case.weight), None, out, case.window, workspace=room, tile=case.tile)
    got = to_numpy(out)[0, 0]
    assert np.isfinite(got[0]).all() and np.isfinite(got[:, 0]).all() and (got[1:, 1:] == np.inf).all()


@pytest.mark.parametrize("parts", [False, True])
def test_misaligned_arrays_and_parts_of_larger_ones(device: Device, parts: bool) -> None:
    case = CASES["even"]()
    expected = case.forward(device)
    n, c, k = case.sizes
    if parts:
        whole = device.xp.zeros((n, k + 1, *case.window.output), "float32")
        y = whole[:, 1:]
    else:
        y = device.xp.empty(case.dy.size + 1, "float32")[1:].reshape(case.dy.shape)
    room = device.xp.empty(case.tile.packed(c, k), "float32")
    arrays = device.array(case.x), device.array(case.weight), device.array(case.bias)
    winograd.conv2d(*arrays, y, case.window, relu=True, workspace=room, tile=case.tile)
    np.testing.assert_array_equal(to_numpy(y), expected)
    if parts:
        assert not to_numpy(whole[:, :1]).any()


def test_what_it_cannot_do_is_refused() -> None:
    x, y = np.zeros((1, 2, 5, 5), np.float32), np.zeros((1, 2, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"for 3 × 3 at stride 1 .* not for kernel \(3, 3\), stride \(2, 2\)"):
        winograd.conv2d(x, np.zeros((2, 2, 3, 3), np.float32), None, y, conv_window((5, 5), 3, 2))


def test_all_that_a_block_has(device: Device) -> None:
    """More tiles, filters and channels than a block and a turn take, and none of them whole."""
    tile = winograd.TILE
    sizes = (1, 2, (3, 5), 5, 1) if simulated() else (3, tile.channels + 2, (7, 9), tile.filters + 3, ((1, 1), (1, 0)))
    case = Case(*sizes)
    case.forward(device)
    case.input_grad(device, masks(*case.x.shape))


@pytest.mark.skipif(simulated(), reason="sums of this length take too long in the simulator")
@pytest.mark.slow
@pytest.mark.parametrize("channels", [64, 256])
@pytest.mark.parametrize("rectified", [False, True], ids=["normal", "relu"])
def test_its_error_beside_that_of_a_direct_sum(device: Device, channels: int, rectified: bool) -> None:
    """Root mean squares against float64, relative to that of the results: less than the engine's, whose sums are nine times as long.
    kernels/README.md has what -s prints."""
    window = conv_window((16, 16), 3, 1, 1)
    x, weight = normal(1, 1, channels, 16, 16), normal(2, 64, channels, 3, 3)
    x = np.maximum(x, 0) if rectified else x
    exact, errors = cpu.conv2d(double(x), double(weight), None, window), {}
    for variant in ("tile128x64", "winograd"):
        with select.override(conv2d=variant):
            y = to_numpy(device.ops.conv2d(device.array(x), device.array(weight), None, window))
        errors[variant] = float(np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)))
    print(f"{channels} channels, {'ReLU of ' * rectified}normal numbers:", {name: f"{error:.2g}" for name, error in errors.items()})
    assert 0 < errors["winograd"] < errors["tile128x64"]
