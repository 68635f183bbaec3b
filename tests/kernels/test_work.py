"""Work and least bytes against counting one by one; the chips that there are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn.profiling.chip import chips, samples
from gpucnn.profiling.what import work
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import derived, join, norm, pool, work_of
from gpucnn.profiling.what.operations.row import first_array
from gpucnn.profiling.what.operations.sample import Sample
from gpucnn.profiling.what.shapes import POOL_SHAPES
from gpucnn.profiling.what.work import Work

WINDOWS = {
    "one": conv_window((1, 1), (1, 1)),
    "same": conv_window((5, 6), (3, 3), padding="same"),
    "stride": conv_window((7, 6), (3, 2), stride=2, padding=1),
    "stride-over-kernel": conv_window((8, 7), (2, 1), stride=(3, 2)),
    "dilation": conv_window((9, 7), (3, 2), stride=(2, 1), dilation=(2, 3), padding=((1, 2), (0, 3))),
    "padding-over-kernel": conv_window((2, 3), (1, 1), padding=3, stride=2),
    "kernel-over-image": conv_window((1, 2), (3, 5), padding=(1, 2)),
}


def reads(window: Window) -> list[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """Position, tap and pixel of every read that is not padding, one by one."""
    (P, Q), (R, S), (H, W) = window.output, window.kernel, window.input
    found = []
    for p, q, r, s in itertools.product(range(P), range(Q), range(R), range(S)):
        h = p * window.stride[0] - window.padding[0][0] + r * window.dilation[0]
        w = q * window.stride[1] - window.padding[1][0] + s * window.dilation[1]
        if 0 <= h < H and 0 <= w < W:
            found.append(((p, q), (r, s), (h, w)))
    return found


def different(window: Window) -> tuple[int, int, int]:
    """Positions that read a pixel, taps and pixels that are read."""
    positions, taps, pixels = (len(set(each)) for each in zip(*reads(window), strict=True))
    return positions, taps, pixels


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", WINDOWS)
def test_convolution(name: str, groups: int) -> None:
    window, n, c, k = WINDOWS[name], 3, 4, 6
    positions, taps, pixels = different(window)
    area, outputs = window.input[0] * window.input[1], window.output[0] * window.output[1]
    images, weights, gradients = n * c * pixels, k * c // groups * taps, n * k * positions
    flops = 2 * sum(1 for _ in itertools.product(range(n * k * outputs), range(c // groups), range(window.kernel[0] * window.kernel[1])))

    forward = work.conv2d(n, c, k, window, groups, bias=True)
    assert (forward.flops, forward.least_bytes) == (flops, 4 * (images + weights + k + n * k * outputs))
    backward = work.conv2d_input_grad(n, c, k, window, groups)
    assert (backward.flops, backward.least_bytes) == (flops, 4 * (gradients + weights + n * c * area))
    weight = work.conv2d_weight_grad(n, c, k, window, groups)
    assert weight.flops == flops
    assert weight.least_bytes == 4 * (gradients + images + k * c // groups * window.kernel[0] * window.kernel[1])
    biased = work.conv2d_weight_grad(n, c, k, window, groups, bias=True)
    assert (biased.flops, biased.least_bytes) == (flops + n * k * outputs, weight.least_bytes + 4 * k)


@pytest.mark.parametrize("name", ["one", "same", "stride", "stride-over-kernel", "dilation"])
def test_pooling(name: str) -> None:
    window, n, c = WINDOWS[name], 2, 3
    _, _, pixels = different(window)
    area, outputs, taps = window.input[0] * window.input[1], window.output[0] * window.output[1], window.kernel[0] * window.kernel[1]
    images, results = n * c, n * c * outputs
    assert work.max_pool2d(n, c, window) == Work(results * taps, 4 * (images * pixels + 2 * results))
    assert work.avg_pool2d(n, c, window) == Work(results * taps, 4 * (images * pixels + results))
    dx = images * area
    assert work.max_pool2d_grad(n, c, window) == Work(results, 4 * (2 * results + dx))
    assert work.avg_pool2d_grad(n, c, window) == Work(results * taps, 4 * (results + dx))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_fused_least_bytes_leave_out_what_is_pooled_away(groups: int, padding: int) -> None:
    window = conv_window((7, 6), (3, 3), 2, 1)  # 4 × 3 outputs, of which 4 × 2 are pooled unless there is padding
    pooling = pool_window(window.output, 2, padding=padding)
    pooled = {position for _, _, position in reads(pooling)}
    assert len(pooled) == (12 if padding else 8)
    pixels = len({pixel for position, _, pixel in reads(window) if position in pooled})
    kept, weights = 2 * 6 * pooling.output[0] * pooling.output[1], 6 * 3 // groups * 9
    fused = work.conv2d_relu_max_pool2d(2, 3, 6, window, pooling, groups, bias=True)
    assert fused.least_bytes == 4 * (2 * 3 * pixels + weights + 6 + 2 * kept)
    assert fused.flops == work.conv2d(2, 3, 6, window, groups).flops + 2 * 6 * 12 + kept * 4
    backward = work.conv2d_relu_max_pool2d_weight_grad(2, 3, 6, window, pooling, groups, bias=True)
    assert backward.flops == work.conv2d_weight_grad(2, 3, 6, window, groups).flops + 2 * kept
    assert backward.least_bytes == 4 * (2 * kept + 2 * 3 * pixels + weights + 6)


def test_dense_and_elementwise() -> None:
    assert work.dense(5, 7, 3, bias=True).flops == work.dense_input_grad(5, 7, 3).flops == work.dense_weight_grad(5, 7, 3).flops == 210
    assert work.dense(5, 7, 3, bias=True).least_bytes == 4 * (35 + 21 + 3 + 15)
    assert work.dense_input_grad(5, 7, 3).least_bytes == work.dense_weight_grad(5, 7, 3).least_bytes == 4 * (35 + 21 + 15)
    assert work.dense_weight_grad(5, 7, 3, bias=True) == work.dense_weight_grad(5, 7, 3) + Work(15, 12)
    assert work.bias_grad(4, 3, 10) == Work(120, 4 * 123)
    assert work.elementwise(10, 3, 2) == work.elementwise(4, 3, 2) + work.elementwise(6, 3, 2) == Work(30, 80)
    assert work.softmax_cross_entropy(4, 10).least_bytes == 4 * (80 + 4 + 2)
    assert work.softmax_cross_entropy(4, 10, of_classes=False).least_bytes == 4 * (80 + 40 + 2)
    assert Work(12, 4).intensity == 3


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("H200", "H200"),
        ("rtx4090", "RTX 4090"),
        ("RTX-5090", "RTX 5090"),
        ("rtx 3090", "RTX 3090"),
        ("t4", "T4"),
        ("sm_75", "T4"),
        ("sm_80", "A100"),
        ("sm_86", "RTX 3090"),
        ("SM89", "RTX 4090"),
        ("sm_90", "H200"),
        ("sm_100", "B200"),
        ("sm_120", "RTX 5090"),
    ],
)
def test_chips_are_found(name: str, found: str) -> None:
    assert chips.find(name).name == found


@pytest.mark.parametrize("name", ["", "sm_70", "RTX", "GTX 1080"])
def test_unknown_chip(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown chip .*: the chips are T4, A100, .*, or sm_75, "):
        chips.find(name)


@pytest.mark.parametrize("chip", chips.CHIPS.values(), ids=lambda chip: chip.name)
def test_peaks_are_lanes_times_a_clock_that_there_is(chip: Any) -> None:
    """A slip of a digit would show: boost clocks are from 1.4 to 2.6 GHz, and bandwidth moves the whole memory in 9 to 60 ms."""
    assert 1.4e9 < chip.fp32 / (2 * chip.sms * chip.architecture.lanes) < 2.6e9
    assert 9e-3 < chip.memory / chip.bandwidth < 60e-3
    assert chip.l2 < chip.memory / 200
    assert chip.arch == "sm_{}{}".format(*chip.architecture.capability)


READ_AGAIN = {"batch_norm": 1, "batch_norm_grad": 2}
"""Arrays that must be read a second time, because sums over all of them come first (gpucnn_kernels/norm.py)."""
GLANCED_AT = {"batch_norm_statistics": "x"}
"""Kernels that are given an array and read one number of it for each channel."""


@pytest.mark.skipif(simulated(), reason="the simulator's kernels are others")
def test_what_memory_bounds_moves_hardly_more_than_it_must() -> None:
    """All launches of an operation together, each of whose kernels reads or writes its arrays once: at most 1.2 times the least. What of
    three arrays is given one twice, as the gradients of activations are here, counts it once."""
    moved: dict[int, int] = {}
    calls: dict[int, Call] = {}
    windows = (pool.poolings(each.n, each.c, each.window) for each in POOL_SHAPES)
    whole = (norm.normalized, join.joined, pool.whole_planes, derived.activations, *windows)
    for kernel in (kernel for run in whole for kernel in samples.launched(Sample("", run), chips.find("H100"))):
        call, launch = kernel.call, kernel.part.launch
        if call is None or work_of(call).least_bytes < 1 << 18:  # as long as a launch takes, however it is done
            continue
        arrays = [value for value in call.arguments.values() if getattr(value, "ndim", 0)]
        if not all(array.flags.c_contiguous for array in arrays):  # a part of larger images, whose rest is not its own
            continue
        glanced = call.arguments[GLANCED_AT[launch.name]].nbytes if launch.name in GLANCED_AT else 0
        calls[id(call)] = call
        moved[id(call)] = moved.get(id(call), 0) + launch.array_bytes - glanced
    found = {}
    for key, call in calls.items():
        again = READ_AGAIN.get(call.op, 0) * first_array(call.arguments).nbytes
        found[call.op] = moved[key] / (work_of(call).least_bytes + again)
    forward = {
        "batch_norm",
        "batch_norm_apply",
        "max_pool2d",
        "avg_pool2d",
        "global_avg_pool2d",
        "leaky_relu",
        "elu",
        "gelu",
        "silu",
        "tanh",
    }
    assert forward | {f"{op}_grad" for op in forward - {"batch_norm_apply"}} | {"add", "zero_pad2d", "dropout"} <= set(found)
    assert {op: share for op, share in found.items() if not 0.66 < share < 1.2} == {}
