"""The dense layer's products on the engine: ragged in every direction, cut into slices, read by fours and one by one; and the choice of
variants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, Output, double, normal

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tiled as tiled_conv
from gpucnn_kernels.core.integers import magic
from gpucnn_kernels.dense import tiled
from gpucnn_kernels.engine.product import sum_slices
from gpucnn_kernels.engine.tiles import BIAS, MASK, NOTHING, SUMS, Tile
from tolerances import check

SMALL = Tile(8, 8, 8, 4, 4)
FLAT = Tile(8, 16, 16, 4, 8)
BROAD = Tile(8, 32, 8, 4, 4)  # more threads than rows
WHOLE = (8, 8, 8, 1, SMALL)  # without a ragged edge: kernels of its own
SIZES = [  # N, C, K, slices
    (1, 1, 1, 1, SMALL),
    (3, 5, 2, 1, SMALL),
    WHOLE,
    (4, 20, 12, 2, SMALL),
    (9, 17, 10, 3, SMALL),
    pytest.param(2, 1, 19, 1, FLAT, marks=COMPILED),
    pytest.param(12, 40, 4, 2, FLAT, marks=COMPILED),
    pytest.param(11, 8, 12, 2, BROAD, marks=COMPILED),
]
GRADIENTS = [pytest.param(*each, marks=COMPILED) if each is WHOLE else each for each in SIZES]


@pytest.mark.parametrize(("n", "c", "k", "slices", "tile"), SIZES)
@pytest.mark.parametrize(("with_bias", "relu"), [(False, False), (True, True)])
def test_forward(device: Device, n: int, c: int, k: int, slices: int, tile: Tile, with_bias: bool, relu: bool) -> None:
    x, weight, bias = normal(0, n, c), normal(1, k, c), normal(2, k) if with_bias else None
    out = Output(device, (n, k))
    space = device.xp.full(tiled.workspace_size((n, k, c), tile, slices), np.nan, "float32")
    given = None if bias is None else device.array(bias)
    tiled.dense(device.array(x), device.array(weight), given, out.array, relu, workspace=space, tile=tile, slices=slices)
    ref = cpu.dense(double(x), double(weight), None if bias is None else double(bias), relu=relu)
    magnitude = cpu.dense(np.abs(double(x)), np.abs(double(weight)), None if bias is None else np.abs(double(bias)))
    check(out.result(), ref, magnitude=magnitude, terms=c, direction="forward")


@pytest.mark.parametrize(("n", "c", "k", "slices", "tile"), GRADIENTS)
def test_gradients(device: Device, n: int, c: int, k: int, slices: int, tile: Tile) -> None:
    x, weight, dy = normal(0, n, c), normal(1, k, c), normal(3, n, k)
    out = Output(device, (n, c))
    space = device.xp.full(tiled.workspace_size((n, c, k), tile, slices), np.nan, "float32")
    tiled.dense_input_grad(device.array(dy), device.array(weight), out.array, workspace=space, tile=tile, slices=slices)
    ref, magnitude = double(dy) @ double(weight), np.abs(double(dy)) @ np.abs(double(weight))
    check(out.result(), ref, magnitude=magnitude, terms=k, direction="input_grad")

    alone, values = out.result(), np.array([0, -0.0, np.nan, 1e-45, 2, np.inf, -1], np.float32)
    relu = np.random.default_rng(9).choice(values, (n, c))
    out = Output(device, (n, c))
    space[...] = np.nan
    arrays = device.array(dy), device.array(weight), out.array
    tiled.dense_input_grad(*arrays, workspace=space, tile=tile, slices=slices, relu=device.array(relu))
    np.testing.assert_array_equal(out.result().view(np.uint32), cpu.relu_grad(alone, relu).view(np.uint32))

    out = Output(device, (k, c))
    space = device.xp.full(tiled.workspace_size((k, c, n), tile, slices), np.nan, "float32")
    tiled.dense_weight_grad(device.array(dy), device.array(x), out.array, workspace=space, tile=tile, slices=slices)
    ref, magnitude = double(dy).T @ double(x), np.abs(double(dy)).T @ np.abs(double(x))
    check(out.result(), ref, magnitude=magnitude, terms=n, direction="weight_grad")

    alone, runs = out.result(), []
    for _ in range(2):
        out, sums = Output(device, (k, c)), Output(device, (k,))
        space[...] = np.nan
        arrays = device.array(dy), device.array(x), out.array
        tiled.dense_weight_grad(*arrays, workspace=space, tile=tile, slices=slices, dbias=sums.array)
        np.testing.assert_array_equal(out.result().view(np.uint32), alone.view(np.uint32))
        check(sums.result(), double(dy).sum(0), magnitude=np.abs(double(dy)).sum(0), terms=n, direction="weight_grad")
        runs.append(sums.result().tobytes())
    assert runs[0] == runs[1]


def test_misaligned_arrays_are_read_one_by_one(device: Device) -> None:
    x = device.xp.ones(65, "float32")[1:].reshape(8, 8)
    out = Output(device, (8, 8))
    tiled.dense(x, device.xp.ones((8, 8), "float32"), None, out.array, tile=SMALL)
    assert (out.result() == 8).all()


def test_misaligned_masks_are_read_one_by_one(device: Device) -> None:
    ones, out = device.xp.ones((8, 8), "float32"), Output(device, (8, 8))
    relu = device.xp.ones(65, "float32")[1:].reshape(8, 8)
    relu[2] = 0
    tiled.dense_input_grad(ones, ones, out.array, tile=SMALL, relu=relu)
    np.testing.assert_array_equal(out.result(), np.where(np.arange(8) == 2, 0, 8)[:, None].repeat(8, 1))


def test_tiles_that_cannot_be_are_refused() -> None:
    for tile in (Tile(8, 8, 4, 4, 4), Tile(8, 8, 8, 2, 4), Tile(64, 4, 8, 4, 4)):
        with pytest.raises(ValueError):
            tiled.workspace_size((8, 8, 8), tile, 1)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 8, 9, 25, 121, 1000, 2**16 + 1, 2**31 - 2, 2**31 - 1])
def test_magic_division(divisor: int) -> None:
    multiplier, shift = (int(number) for number in magic(divisor))
    assert multiplier < 2**32
    numbers = {0, 1, divisor - 1, divisor, 2**31 - 1, 2**31 - 2} | {
        count * divisor + extra for count in (1, 2, 3, (2**31 - 1) // divisor) for extra in (-1, 0, 1)
    }
    for number in numbers:
        if 0 <= number < 2**31:
            assert number * multiplier >> (31 + shift) == number // divisor


def test_the_operations_use_the_engine(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through gpucnn.ops, workspaces and all, with a tile that the simulator can do."""
    small = {**tiled_conv.variants("small", SMALL, 1.0), **tiled.variants("small", SMALL, 1.0)}
    for name, variant in small.items():
        monkeypatch.setitem(VARIANTS, name, [*VARIANTS[name], variant])
    monkeypatch.setenv(select.VARIABLE, ",".join(f"{name}=small" for name in small))
    select._choose.cache_clear()
    window, ops = conv_window((4, 4), (3, 3), 1, 1), device.ops
    x, weight, dy = normal(0, 1, 2, 4, 4), normal(1, 3, 2, 3, 3), normal(2, 1, 3, 4, 4)
    rows, matrix, drows = normal(3, 3, 9), normal(4, 5, 9), normal(5, 3, 5)
    cases = [
        ("conv2d", (x, weight, None, window)),
        ("conv2d_input_grad", (dy, weight, window)),
        ("conv2d_weight_grad", (dy, x, window)),
        ("dense", (rows, matrix)),
        ("dense_input_grad", (drows, matrix)),
        ("dense_weight_grad", (drows, rows)),
    ]
    try:
        for name, arguments in cases:
            got = getattr(ops, name)(*(device.array(item) if isinstance(item, np.ndarray) else item for item in arguments))
            got = got.get() if hasattr(got, "get") else got
            np.testing.assert_allclose(got, getattr(cpu, name)(*arguments), rtol=1e-4, atol=1e-4, err_msg=name)
    finally:
        select._choose.cache_clear()


def same(found: Any, expected: Any) -> None:
    """Bit by bit; a NaN's bits are the processor's."""
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))


@pytest.mark.parametrize("slices", [*range(1, 36), 47, 64])
def test_slices_are_added_first_to_last(device: Device, slices: int) -> None:
    """To the bit, for every number of them: with bias, ReLU, its mask, and sums of rows behind the results."""
    columns, size = 3, 12
    partial = normal(slices, slices, size) * np.float32(10.0) ** np.arange(slices, dtype=np.float32)[::-1, None].clip(max=6)
    partial[0, 4] = np.nan
    bias, mask = normal(1, columns), normal(2, size)
    mask[[5, 6]] = np.nan, 0
    rows = normal(3, slices, columns)
    total = np.zeros(size, np.float32)
    for each in partial:
        total = total + each
    own = np.zeros(columns, np.float32)
    for each in rows:
        own = own + each
    shifted = total + np.tile(bias, size // columns)
    kept = mask > 0
    for extra, role, relu, expected in (
        (None, NOTHING, False, total),
        (bias, BIAS, False, shifted),
        (bias, BIAS, True, np.where(shifted <= 0, np.float32(0), shifted)),
        (mask, MASK, False, np.where(kept, total, np.float32(0))),
    ):
        out = Output(device, (size,))
        sum_slices(device.array(partial.reshape(-1)), None if extra is None else device.array(extra), out.array, slices, role, relu, 0)
        same(out.result(nan=True), expected)
    out, sums = Output(device, (size,)), Output(device, (columns,))
    sum_slices(device.array(np.concatenate([partial.reshape(-1), rows.reshape(-1)])), sums.array, out.array, slices, SUMS, False, 0)
    same(out.result(nan=True), total)
    same(sums.result(), own)
