"""The kernels of warps on tensor cores (mma.sync), on small odd shapes, beside float64.

One shape is quick: it takes the kernel that all others take. The gradient of the weight, whose kernel is another, is in make slow. On a GPU
before Ampere they skip; the virtual GPU has the instructions.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal
from tensor_cases import SHAPES, case, kept, rounded

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.conv import tensor
from gpucnn_kernels.tensor.chips import warps_there
from tolerances import bound, check

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("short_sums")]


@pytest.fixture
def warps(gpu: Device) -> Device:
    if not warps_there(select.current_chip()):
        pytest.skip("these kernels are for compute capability 8.0 and newer")
    return gpu


QUICK = (("few-channels", "mma128x64"), ("groups", "mma128x64-bf16"))


def cases() -> list[Any]:
    """(shape, variant)."""
    return [
        pytest.param(name, variant, marks=() if (name, variant) in QUICK else pytest.mark.slow)
        for name in SHAPES
        for first in tensor.WARPS
        for variant in (first, f"{first}-tf32", f"{first}-bf16")
    ]


@pytest.mark.parametrize(("name", "variant"), cases())
def test_forward_and_gradient_of_the_input(warps: Device, name: str, variant: str) -> None:
    """With bias, ReLU and its mask; in TF32 and bfloat16 what comes out is what factors give that were rounded
    beforehand."""
    gpu, bits = warps, kept(variant)
    window, groups, x, weight, bias, dy = case(name)
    y, dx = Output(gpu, dy.shape), Output(gpu, x.shape)
    with select.override(conv2d=variant, conv2d_input_grad=variant):
        gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups, relu=True, out=y.array, bits=bits)
        gpu.ops.conv2d_input_grad(*map(gpu.array, (dy, weight)), window, groups, relu=gpu.array(x), out=dx.array, bits=bits)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return cpu.conv2d(x, weight, bias, window, groups, relu=True)

    def backward(dy: Any, weight: Any) -> Any:
        return cpu.conv2d_input_grad(dy, weight, window, groups, relu=double(x))

    factor = functools.partial(rounded, bits=bits)
    for got, operation, arrays, terms, direction in (
        (y, forward, (factor(x), factor(weight), double(bias)), weight[0].size, "forward"),
        (dx, backward, (factor(dy), factor(weight)), weight.size // x.shape[1], "input_grad"),
    ):
        check(got.result(), operation(*arrays), magnitude=operation(*map(np.abs, arrays)), terms=terms, direction=direction)


@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize(("name", "variant"), cases())
def test_gradient_of_the_weight(warps: Device, name: str, variant: str, slices: int) -> None:
    """With the gradient of the bias, whose sums are those of float32 in the other modes as well."""
    gpu, bits = warps, kept(variant)
    window, groups, x, weight, bias, dy = case(name)
    problem = problems.conv2d_weight_grad(x.shape[0], x.shape[1], len(weight), window, groups, bits)
    choice = select.choice(select.choose(problem, variant).variant, problem, slices)
    assert choice.name == variant
    dweight, dbias = Output(gpu, weight.shape), Output(gpu, bias.shape)
    with select.override(conv2d_weight_grad=choice):
        gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window, groups, out=dweight.array, dbias=dbias.array, bits=bits)
    terms, wide, factor = dy.size // len(weight), double(dy), functools.partial(rounded, bits=bits)
    expected, magnitude = (cpu.conv2d_weight_grad(*map(f, map(factor, (dy, x))), window, groups) for f in (np.asarray, np.abs))
    check(dweight.result(), expected, magnitude=magnitude, terms=terms, direction="weight_grad")
    check(dbias.result(), cpu.bias_grad(wide), magnitude=cpu.bias_grad(np.abs(wide)), terms=terms, direction="weight_grad")


def test_numbers_of_all_sizes_and_none(warps: Device) -> None:
    """From 1e-12 to 1e12, that cancel: the small parts count as they do in float32. NaN stays NaN, an infinity becomes one."""
    gpu, window, random = warps, conv_window((4, 4), (1, 1)), np.random.default_rng(0)
    x, weight = normal(5, 2, 64, 4, 4), normal(6, 32, 64, 1, 1)
    x *= np.float32(10.0) ** random.integers(-12, 13, x.shape).astype(np.float32)
    x[:, 32:] = -x[:, :32]
    weight[:, 32:] = weight[:, :32] * np.float32(1 + 2**-20)
    y = Output(gpu, (2, 32, 4, 4))
    with select.override(conv2d="mma128x64"):
        gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, out=y.array)
        wide = double(x), double(weight)
        expected, magnitude = (cpu.conv2d(*arrays, None, window) for arrays in (wide, map(np.abs, wide)))
        check(y.result(), expected, magnitude=magnitude, terms=64, direction="forward")
        for value in (np.nan, np.inf):
            x[0, 3, 1, 2] = value
            got = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window).get()
            assert np.isnan(got[0, :, 1, 2]).all() and np.isfinite(got).sum() == got.size - 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf32", "bf16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.uint32(0x7FFFFFFF).view(np.float32)])
def test_what_is_no_number_stays_what_it_is(warps: Device, value: float, kind: str) -> None:
    """Infinities too, as with FMAs, and the NaN of a GPU, whose bits a rounding by an addition would turn to -0."""
    gpu, window = warps, conv_window((4, 4), (1, 1))
    x, weight = normal(5, 2, 64, 4, 4), np.abs(normal(6, 32, 64, 1, 1)) + 1
    x[0, 3, 1, 2] = value
    with select.override(conv2d=f"mma128x64-{kind}"):
        got = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, bits=kept(f"-{kind}")).get()
    np.testing.assert_array_equal(got[0, :, 1, 2], np.full(32, value))
    assert np.isfinite(got).sum() == got.size - 32


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.uint32(0x7FFFFFFF).view(np.float32), np.finfo(np.float32).max])
def test_weights_that_are_no_numbers(warps: Device, value: float) -> None:
    """Every sum with them is NaN, and no other; so it is with numbers that round to infinity."""
    gpu, window = warps, conv_window((4, 4), (1, 1))
    x, weight = normal(5, 2, 64, 4, 4), normal(6, 32, 64, 1, 1)
    weight[5, 3] = value
    with select.override(conv2d="mma128x64"):
        got = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window).get()
    assert np.isnan(got[:, 5]).all() and np.isfinite(got).sum() == got.size - got[:, 5].size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "-tf32", "-bf16"])
def test_numbers_below_the_normal_ones_count(warps: Device, kind: str) -> None:
    """On either side of 2⁻¹²⁶, in one factor or the other. Of split numbers what is less than TF32's least, 2⁻¹³⁶, is lost."""
    gpu, window = warps, conv_window((4, 4), (1, 1))
    for x_exponent, weight_exponent in ((-127, 100), (100, -127)):
        x, weight = np.ldexp(normal(5, 2, 64, 4, 4), x_exponent), np.ldexp(normal(6, 32, 64, 1, 1), weight_exponent)
        y = Output(gpu, (2, 32, 4, 4))
        with select.override(conv2d=f"mma128x64{kind}"):
            gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, out=y.array, bits=kept(kind))
        wide = [rounded(each, kept(kind)) for each in (x, weight)]
        expected, magnitude = (cpu.conv2d(*map(f, wide), None, window) for f in (np.asarray, np.abs))
        lost = 0.0 if kind else 64 * 2.0**-136 * float(max(np.abs(each).max() for each in wide))
        error = np.abs(y.result() - expected)
        assert np.all(error <= bound(magnitude, 64, "forward") + lost) and np.abs(expected).max() > 32 * lost


@pytest.mark.slow
def test_bfloat16_makes_infinities_of_the_largest_numbers(warps: Device) -> None:
    """Half of a bfloat16's last bit beyond the largest is 3.3961776e38; what is less stays finite."""
    gpu, window = warps, conv_window((1, 2), (1, 1))
    x, weight = np.zeros((1, 64, 1, 2), np.float32), np.zeros((32, 64, 1, 1), np.float32)
    x[0, 7, 0], weight[:, 7] = np.array([0x7F7F8000, 0x7F7F7FFF], np.uint32).view(np.float32), np.float32(0.5)
    with select.override(conv2d="mma128x64-bf16"):
        got = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, bits=8).get()
    largest = np.uint32(0x7F7F0000).view(np.float32) / np.float32(2)
    np.testing.assert_array_equal(got[0, :, 0], np.tile(np.array([np.inf, largest], np.float32), (32, 1)))


def test_the_same_bits_every_time(warps: Device) -> None:
    gpu = warps
    window, groups, x, weight, bias, _ = case("few-channels")
    with select.override(conv2d="mma128x64"):
        first, second = (gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups).get() for _ in range(2))
    np.testing.assert_array_equal(first, second)
