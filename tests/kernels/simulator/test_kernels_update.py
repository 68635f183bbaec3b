"""Optimizer steps over flat buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn_kernels import clip, update
from tolerances import check


def buffers(device: Device, *values: Any) -> list[Output]:
    """The values on the device, each in the middle of a longer buffer."""
    outputs = [Output(device, value.shape) for value in values]
    for output, value in zip(outputs, values, strict=True):
        output.array[...] = device.array(value)
    return outputs


def rates(device: Device, rate: float, root: float = 1, shrink: float = 1, go: float = 1) -> Any:
    return device.array([rate, root, shrink, go], "float32")


@pytest.mark.parametrize("size", [1, 7, 131])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
)
def test_sgd(device: Device, size: int, options: dict[str, Any]) -> None:
    p, g, v = normal(0, size), normal(1, size), normal(2, size)
    parameters, gradients, velocity = buffers(device, p, g, v)
    moving = "momentum" in options
    device.ops.sgd_update(parameters.array, gradients.array, velocity.array if moving else None, rates=rates(device, 0.25), **options)
    ref, ref_v = double(p), double(v)
    cpu.sgd_update(ref, double(g), ref_v if moving else None, rates=np.array([0.25, 1, 1, 1]), **options)
    magnitude = np.abs(p) + np.abs(g) + np.abs(v)
    check(parameters.result(), ref, magnitude=magnitude, terms=6, direction="elementwise")
    check(velocity.result(), ref_v, magnitude=magnitude, terms=4, direction="elementwise")
    np.testing.assert_array_equal(gradients.result(), g)


@pytest.mark.parametrize("size", [1, 7, 131])
@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": True}])
def test_adam(device: Device, size: int, step: int, options: dict[str, Any]) -> None:
    p, g, m, v = normal(0, size), normal(1, size), normal(2, size), normal(3, size) ** 2
    parameters, gradients, mean, variance = buffers(device, p, g, m, v)
    arrays = parameters.array, gradients.array, mean.array, variance.array
    shrink = 1 - 0.01 * options["weight_decay"] if "decoupled" in options else 1.0
    exact = 0.01 / (1 - 0.9**step), 1 / np.sqrt(1 - 0.999**step), shrink
    device.ops.adam_update(*arrays, rates=rates(device, *exact), **options)
    ref = [double(p), double(g), double(m), double(v)]
    cpu.adam_update(*ref, rates=np.array([*exact, 1]), **options)
    m_magnitude = np.abs(m) + np.abs(g) + np.abs(p)
    check(mean.result(), ref[2], magnitude=m_magnitude, terms=4, direction="elementwise")
    check(variance.result(), ref[3], magnitude=v + 2 * (np.abs(g) + np.abs(p)) ** 2, terms=4, direction="elementwise")
    # The step is off by a few roundings, and by those of m, relatively more where m is a small difference.
    rate = 0.01 / (1 - 0.9**step)
    moved = rate * m_magnitude / (np.sqrt(ref[3]) / np.sqrt(1 - 0.999**step) + 1e-8)
    check(parameters.result(), ref[0], magnitude=np.abs(p) + 4 * moved, terms=6, direction="elementwise")
    np.testing.assert_array_equal(gradients.result(), g)


@pytest.mark.parametrize("size", [8, 11])
def test_by_fours_is_one_by_one_to_the_bit(device: Device, size: int) -> None:
    """Buffers that begin at a multiple of 16 bytes, with and without parameters left over, and buffers of which one does not."""
    values = [normal(seed, size) ** (2 if seed == 3 else 1) for seed in range(4)]
    values[1][3] = np.nan
    results = []
    for shift in (0, 1):
        buffers = [device.xp.full(size + 5, 7, "float32") for _ in values]
        arrays = [buffer[shift if number == 1 else 0 :][:size] for number, buffer in enumerate(buffers)]
        for array, value in zip(arrays, values, strict=True):
            array[...] = device.array(value)
        assert update._fours(*arrays) == (0 if shift else size // 4)
        device.ops.adam_update(*arrays, rates=rates(device, 0.1, 1.5, 0.75), weight_decay=0.1)
        device.ops.sgd_update(*arrays[:3], rates=rates(device, 0.25), momentum=0.9, nesterov=True, weight_decay=0.1)
        device.ops.sgd_update(*arrays[:2], None, rates=rates(device, 0.25))
        assert all((to_numpy(buffers[number])[size:] == 7).all() for number in (0, 2, 3))
        results.append([to_numpy(array).view(np.uint32) for array in arrays])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("size", [1, 131, 5000])  # of one block, and of three
def test_clipping_by_the_norm(device: Device, size: int) -> None:
    g = normal(0, size)
    norm = float(np.linalg.norm(double(g)))
    for most in (norm / 4, norm * 0.999, norm * 1.001):
        (gradients,), ref = buffers(device, g), double(g)
        device.ops.clip_norm(gradients.array, most)
        cpu.clip_norm(ref, most)
        np.testing.assert_allclose(ref, double(g) * min(1, most / norm), rtol=1e-14)
        if most > norm:
            np.testing.assert_array_equal(gradients.result(), g)
        # The norm is half as far off, relatively, as the sum of squares, which are all positive; a square, a root, a quotient, a product.
        check(gradients.result(), ref, magnitude=np.abs(ref), terms=size + 4, direction="elementwise")
    assert clip.blocks(0) == 0 and clip.blocks(1) == 1 and clip.blocks(5000) == 3 and clip.blocks(2**31 - 1) == 512


def test_a_norm_of_nan_changes_nothing(device: Device) -> None:
    g = np.array([1, np.nan, 200], np.float32)
    (gradients,) = buffers(device, g)
    device.ops.clip_norm(gradients.array, 1.0)
    np.testing.assert_array_equal(gradients.result(nan=True), g)


def test_nan_gradients_reach_the_parameters(device: Device) -> None:
    p, g = normal(0, 3), np.array([1, np.nan, 2], np.float32)
    parameters, gradients, mean, variance = buffers(device, p, g, np.zeros_like(p), np.zeros_like(p))
    device.ops.adam_update(parameters.array, gradients.array, mean.array, variance.array, rates=rates(device, 1.0, 31.6))
    np.testing.assert_array_equal(np.isnan(parameters.result(nan=True)), [False, True, False])


def test_nothing_is_done_where_the_rates_say_so(device: Device) -> None:
    values = [normal(seed, 5) for seed in range(4)]
    values[3] = np.abs(values[3])  # a mean of squares
    outputs = buffers(device, *values)
    arrays = [output.array for output in outputs]
    device.ops.adam_update(*arrays, rates=rates(device, 0.1, go=0))
    device.ops.sgd_update(*arrays[:3], rates=rates(device, 0.1, go=0), momentum=0.9)
    for output, value in zip(outputs, values, strict=True):
        np.testing.assert_array_equal(output.result(), value)
    for value in (values, [double(value) for value in values]):
        kept = [array.copy() for array in value]
        cpu.adam_update(*value, rates=np.array([0.1, 1, 1, 0], value[0].dtype))
        cpu.sgd_update(*value[:3], rates=np.array([0.1, 1, 1, 0], value[0].dtype), momentum=0.9)
        np.testing.assert_array_equal(value, kept)


def test_a_step_is_counted(device: Device) -> None:
    """Losses added up as two float32 numbers: the sum is that of float64 to a float32's last bit, however many there are."""
    losses = np.abs(normal(0, 60)) * np.float32(3.1)
    table = np.arange(180, dtype=np.float32).reshape(60, 3)
    results = []
    for ops, array, kind in ((cpu, np.array, "float64"), (device.ops, device.array, "float32")):
        state = array(table, "float32"), array([7, 7, 7, 7], "float32"), array([2, 9, -6, 0, 0, 3], "int32"), array([1e6, 0], kind)
        for number in range(58):
            ops.tally(array(losses[number], "float32"), array(3, "int32"), 37, *state)
        results.append([to_numpy(item).astype(np.float64) for item in state])
        np.testing.assert_array_equal(results[-1][1], [177, 178, 179, 1])
        np.testing.assert_array_equal(results[-1][2], [60, 9, -6 + 3 * 58, 58, 0, 4])  # 2³² is passed on the way
    exact = 1e6 + (losses[:58].astype(np.float64) * 37).sum()
    # Each term is rounded once, to half of its last bit; the two-word sum adds next to nothing.
    allowed = 2.0**-24 * (losses[:58].astype(np.float64) * 37).sum() + 2.0**-44 * exact
    assert abs(results[0][3].sum() - exact) <= 1e-9
    assert abs(results[1][3].sum() - exact) <= allowed


@pytest.mark.parametrize("n", [1, 37, 600])
def test_a_step_is_counted_by_rows(device: Device, n: int) -> None:
    losses, right = np.abs(normal(0, n)) * np.float32(3.1), np.random.default_rng(1).integers(0, 2, n).astype(np.int32)
    for ops, array, kind in ((cpu, np.array, "float64"), (device.ops, device.array, "float32")):
        table, rates, counters = array(np.ones((1, 3)), "float32"), array(np.zeros(4), "float32"), array(np.zeros(6), "int32")
        sums = array(np.zeros(2), kind)
        ops.tally(array(losses, "float32"), array(right, "int32"), n, table, rates, counters, sums)
        np.testing.assert_array_equal(to_numpy(counters), [1, 0, right.sum(), 1, 0, 0])
        # As many roundings as additions on the way, the mean's, and that of n times it.
        np.testing.assert_allclose(to_numpy(sums).astype("f8").sum(), losses.astype("f8").sum(), rtol=2.0**-24 * (-(-n // 512) + 9 + 3))
    with pytest.raises(ValueError, match="correct has shape"):
        device.ops.tally(device.array(losses), device.array(right[:1].repeat(n + 1)), n, table, rates, counters, sums)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_stops_the_count(device: Device, bad: float) -> None:
    for ops, array, kind in ((cpu, np.array, "float64"), (device.ops, device.array, "float32")):
        table, rates = array(np.ones((4, 3)), "float32"), array([0, 0, 0, 9], "float32")
        counters, sums = array([0, 6, 0, 0, 0, 0], "int32"), array([0, 0], kind)
        for loss in (2.0, bad, 3.0):
            ops.tally(array(loss, "float32"), array(1, "int32"), 1, table, rates, counters, sums)
        np.testing.assert_array_equal(to_numpy(counters), [1, 6, 1, 1, 1, 0])
        np.testing.assert_array_equal(to_numpy(sums)[0], bad)
        np.testing.assert_array_equal(to_numpy(rates), [1, 1, 1, 0])


@pytest.mark.parametrize("number", [0, 2**32 - 2, 2**32 - 1, 2**64 - 1])
def test_calls_of_dropout_are_counted(device: Device, number: int) -> None:
    calls = np.array([number & 0xFFFFFFFF, number >> 32], np.uint32)
    counted = device.array(calls)
    device.ops.next_call(counted)
    cpu.next_call(calls)
    np.testing.assert_array_equal(to_numpy(counted), calls)
