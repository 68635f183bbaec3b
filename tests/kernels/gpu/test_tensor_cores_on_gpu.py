"""The kernels on Hopper's tensor cores, on small odd shapes: as near to float64 as the table of tolerances asks of float32.

Whole blocks of channels and ragged ones, strides, dilation, groups, padding on one side, tiles that are half empty, sums in slices, bias,
ReLU and its mask, gradients of the bias. On a GPU that has no such tensor cores they skip; the virtual GPU has them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal
from tensor_cases import SHAPES, case, kept, rounded

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tensor
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32
from tolerances import bound, check

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("short_sums")]


def named(operation: str, bits: int) -> list[str]:
    names = [variant.name for variant in VARIANTS[operation] if variant.name.startswith("tensor")]
    return [name for name in names if kept(name) == bits]


GATHER, GRAD = named("conv2d", FLOAT32), named("conv2d_weight_grad", FLOAT32)
GATHER_TF32, GRAD_TF32 = named("conv2d", TF32), named("conv2d_weight_grad", TF32)
GATHER_BF16, GRAD_BF16 = named("conv2d", BFLOAT16), named("conv2d_weight_grad", BFLOAT16)


def with_each(variants: list[str], whole: tuple[str, ...]) -> list[Any]:
    """(shape, variant): shapes that are not `whole` take kernels of their own, which one tile's stand for; make slow has the others."""
    quick = [(name, variant) for name in SHAPES for variant in variants if name in whole or variant == variants[-1]]
    rest = [(name, variant) for name in SHAPES for variant in variants if (name, variant) not in quick]
    return [*quick, *(pytest.param(*case, marks=pytest.mark.slow) for case in rest)]


def with_rounded_factors(variants: list[str]) -> list[Any]:
    """(shape, variant), of which one is quick: what differs from float32's accuracy does not depend on the shape."""
    cases = [(name, variant) for name in SHAPES for variant in variants]
    quick = "stride", next(variant for variant in reversed(variants) if kept(variant) == TF32)
    return [pytest.param(*case, marks=() if case == quick else pytest.mark.slow) for case in cases]


@pytest.fixture
def tensor_cores(gpu: Device) -> Device:
    if not tensor.there(select.current_chip()):
        pytest.skip("these kernels are for compute capability 9.0")
    return gpu


def test_images_too_large_for_32_bits_are_left_to_fmas(tensor_cores: Device) -> None:
    for side, there in ((2895, True), (2897, False)):
        sizes = 1, 32, 64, conv_window((side, side), (3, 3), 1, 1)
        for operation in (problems.conv2d, problems.conv2d_input_grad, problems.conv2d_weight_grad):
            assert bool({*GATHER, *GRAD} & set(select.variants(operation(*sizes)))) == there


@pytest.mark.parametrize("fill", [1, pytest.param(132, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "variant"), with_each(GATHER, ("whole", "stride")))
def test_forward_and_gradient_of_the_input(tensor_cores: Device, name: str, variant: str, fill: int) -> None:
    """With whole sums, and with those that are cut to fill so many multiprocessors."""
    gpu = tensor_cores
    window, groups, x, weight, bias, dy = case(name)
    y, dx = Output(gpu, dy.shape), Output(gpu, x.shape)
    posed = [make(len(x), x.shape[1], len(weight), window, groups) for make in (problems.conv2d, problems.conv2d_input_grad)]
    chosen = {problem.operation: select.choice(select.choose(problem, variant).variant, problem, fill) for problem in posed}
    with select.override(chosen):
        gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups, relu=True, out=y.array)
        gpu.ops.conv2d_input_grad(*map(gpu.array, (dy, weight)), window, groups, relu=gpu.array(x), out=dx.array)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return cpu.conv2d(x, weight, bias, window, groups, relu=True)

    def backward(dy: Any, weight: Any) -> Any:
        return cpu.conv2d_input_grad(dy, weight, window, groups, relu=double(x))

    for got, operation, arrays, terms, direction in (
        (y, forward, (x, weight, bias), weight[0].size, "forward"),
        (dx, backward, (dy, weight), weight.size // x.shape[1], "input_grad"),
    ):
        wide = [double(array) for array in arrays]
        check(got.result(), operation(*wide), magnitude=operation(*map(np.abs, wide)), terms=terms, direction=direction)


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize(("name", "variant"), with_each(GRAD, ("whole",)))
def test_gradient_of_the_weight(tensor_cores: Device, name: str, variant: str, slices: int) -> None:
    gpu = tensor_cores
    window, groups, x, weight, bias, dy = case(name)
    problem = problems.conv2d_weight_grad(x.shape[0], x.shape[1], len(weight), window, groups)
    choice = select.choice(select.choose(problem, variant).variant, problem, slices)
    dweight, dbias = Output(gpu, weight.shape), Output(gpu, bias.shape)
    with select.override(conv2d_weight_grad=choice):
        gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window, groups, out=dweight.array, dbias=dbias.array)
    terms = dy.size // len(weight)

    def gradient(dy: Any, x: Any) -> Any:
        return cpu.conv2d_weight_grad(dy, x, window, groups)

    wide = double(dy), double(x)
    check(dweight.result(), gradient(*wide), magnitude=gradient(*map(np.abs, wide)), terms=terms, direction="weight_grad")
    check(dbias.result(), cpu.bias_grad(wide[0]), magnitude=cpu.bias_grad(np.abs(wide[0])), terms=terms, direction="weight_grad")


@pytest.mark.parametrize("variant", ["tensor128x64"])
def test_numbers_of_all_sizes(tensor_cores: Device, variant: str) -> None:
    """Parts of numbers from 1e-30 to 1e30, that cancel: the small parts count as they do in float32. NaN stays NaN."""
    gpu = tensor_cores
    window = conv_window((4, 4), (1, 1))
    random = np.random.default_rng(0)
    x, weight = normal(5, 2, 64, 4, 4), normal(6, 32, 64, 1, 1)
    x *= np.float32(10.0) ** random.integers(-12, 13, x.shape).astype(np.float32)
    x[:, 32:] = -x[:, :32]
    weight[:, 32:] = weight[:, :32] * np.float32(1 + 2**-20)
    y = Output(gpu, (2, 32, 4, 4))
    with select.override(conv2d=variant):
        gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, out=y.array)
    wide = double(x), double(weight)
    expected, magnitude = (cpu.conv2d(*arrays, None, window) for arrays in (wide, map(np.abs, wide)))
    check(y.result(), expected, magnitude=magnitude, terms=64, direction="forward")

    x[0, 3, 1, 2] = np.nan
    with select.override(conv2d=variant):
        got = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window).get()
    assert np.isnan(got[0, :, 1, 2]).all() and np.isnan(got).sum() == 32


GPU_NAN = np.uint32(0x7FFFFFFF).view(np.float32)  # that of a GPU, whose bits a rounding by an addition would turn to -0
LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize("value", [GPU_NAN, *(pytest.param(value, marks=pytest.mark.slow) for value in (np.nan, np.inf, -np.inf, LARGEST))])
def test_weights_and_gradients_that_are_no_numbers(tensor_cores: Device, value: float) -> None:
    """Every sum with them is NaN, and no other. So it is with numbers that round to infinity, and with infinities in either factor."""
    gpu = tensor_cores
    window = conv_window((4, 4), (1, 1))
    x, weight, dy = normal(5, 2, 64, 4, 4), normal(6, 32, 64, 1, 1), normal(7, 2, 32, 4, 4)
    weight[5, 3], dy[1, 7, 2, 1] = value, value
    with select.override(conv2d="tensor128x32", conv2d_weight_grad="tensor128x32"):
        y = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window).get()
        dweight = gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window).get()
    assert np.isnan(y[:, 5]).all() and np.isfinite(y).sum() == y.size - y[:, 5].size
    assert np.isnan(dweight[7]).all() and np.isfinite(dweight).sum() == dweight.size - 64


def test_the_same_bits_every_time(tensor_cores: Device) -> None:
    gpu = tensor_cores
    window, groups, x, weight, bias, dy = case("stride")
    results = []
    for _ in range(2):
        with select.override(conv2d="tensor128x64", conv2d_weight_grad="tensor128x64"):
            y = gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups).get()
            results.append((y, gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window, groups).get()))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


# One product in TF32 or bfloat16 for each: what comes out is, to float32's own tolerance, what factors give that were rounded beforehand;
# so this finds bits that are cut off in place of being rounded, which a bound on the whole would not.


@pytest.mark.parametrize(("name", "variant"), with_rounded_factors([*GATHER_TF32, *GATHER_BF16]))
def test_forward_and_gradient_of_the_input_of_rounded_factors(tensor_cores: Device, name: str, variant: str) -> None:
    gpu = tensor_cores
    window, groups, x, weight, bias, dy = case(name)
    y, dx = Output(gpu, dy.shape), Output(gpu, x.shape)
    with select.override(conv2d=variant, conv2d_input_grad=variant):
        gpu.ops.conv2d(*map(gpu.array, (x, weight, bias)), window, groups, out=y.array, bits=kept(variant))
        gpu.ops.conv2d_input_grad(*map(gpu.array, (dy, weight)), window, groups, out=dx.array, bits=kept(variant))
    for got, operation, first, rest, terms, direction in (
        (y, cpu.conv2d, x, (double(bias),), weight[0].size, "forward"),
        (dx, cpu.conv2d_input_grad, dy, (), weight.size // x.shape[1], "input_grad"),
    ):
        factors = rounded(first, kept(variant)), rounded(weight, kept(variant))
        expected, magnitude = (operation(*map(f, factors), *map(f, rest), window, groups) for f in (np.asarray, np.abs))
        check(got.result(), expected, magnitude=magnitude, terms=terms, direction=direction)
        exact = operation(double(first), double(weight), *rest, window, groups)
        assert np.max(np.abs(expected - exact) / magnitude) > 2.0**-16, "these factors would not have shown any rounding"


@pytest.mark.parametrize(("name", "variant"), with_rounded_factors([*GRAD_TF32, *GRAD_BF16]))
def test_gradient_of_the_weight_of_rounded_factors(tensor_cores: Device, name: str, variant: str) -> None:
    gpu, bits = tensor_cores, kept(variant)
    window, groups, x, weight, bias, dy = case(name)
    dweight, dbias = Output(gpu, weight.shape), Output(gpu, bias.shape)
    with select.override(conv2d_weight_grad=variant):
        gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window, groups, out=dweight.array, dbias=dbias.array, bits=bits)
    terms, factors, wide = dy.size // len(weight), (rounded(dy, bits), rounded(x, bits)), double(dy)
    expected, magnitude = (cpu.conv2d_weight_grad(*map(f, factors), window, groups) for f in (np.asarray, np.abs))
    check(dweight.result(), expected, magnitude=magnitude, terms=terms, direction="weight_grad")
    # The sums of dy are sums of float32, whatever its products are.
    check(dbias.result(), cpu.bias_grad(wide), magnitude=cpu.bias_grad(np.abs(wide)), terms=terms, direction="weight_grad")


@pytest.mark.parametrize("kind", ["tf32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, GPU_NAN])
def test_what_is_no_number_stays_what_it_is(tensor_cores: Device, value: float, kind: str) -> None:
    """Infinities too, as with FMAs, and the NaN of a GPU."""
    gpu = tensor_cores
    window = conv_window((4, 4), (1, 1))
    x, weight = normal(5, 2, 64, 4, 4), np.abs(normal(6, 32, 64, 1, 1)) + 1
    x[0, 3, 1, 2] = value
    with select.override(conv2d=f"tensor128x32-{kind}"):
        got = gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, bits=kept(f"-{kind}")).get()
    np.testing.assert_array_equal(got[0, :, 1, 2], np.full(32, value))
    assert np.isfinite(got).sum() == got.size - 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "-tf32", "-bf16"])
def test_numbers_below_the_normal_ones_count(tensor_cores: Device, kind: str) -> None:
    """On either side of 2⁻¹²⁶, in one factor or the other. Of split numbers what is less than TF32's least, 2⁻¹³⁶, is lost."""
    gpu, window, bits, variant = tensor_cores, conv_window((4, 4), (1, 1)), kept(kind), f"tensor128x32{kind}"
    for exponents in ((-127, 100), (100, -127)):
        x, other = np.ldexp(normal(5, 4, 64, 4, 4), exponents[0]), normal(6, 32, 64, 4, 4)
        weight, dy = np.ldexp(other[:, :, :1, :1], exponents[1]), np.ldexp(other[:4, :32], exponents[1])
        y, dweight = Output(gpu, (4, 32, 4, 4)), Output(gpu, (32, 64, 1, 1))
        with select.override(conv2d=variant, conv2d_weight_grad=variant):
            gpu.ops.conv2d(gpu.array(x), gpu.array(weight), None, window, out=y.array, bits=bits)
            gpu.ops.conv2d_weight_grad(gpu.array(dy), gpu.array(x), window, out=dweight.array, bits=bits)

        def forward(x: Any, weight: Any) -> Any:
            return cpu.conv2d(x, weight, None, window)

        def gradient(x: Any, dy: Any) -> Any:
            return cpu.conv2d_weight_grad(dy, x, window)

        for got, operation, factors, direction in ((y, forward, (x, weight), "forward"), (dweight, gradient, (x, dy), "weight_grad")):
            wide = [rounded(each, bits) for each in factors]
            expected, magnitude = (operation(*map(f, wide)) for f in (np.asarray, np.abs))
            lost = 0.0 if kind else 64 * 2.0**-136 * float(max(np.abs(each).max() for each in wide))
            error = np.abs(got.result() - expected)
            assert np.all(error <= bound(magnitude, 64, direction) + lost) and np.abs(expected).max() > 32 * lost


def test_tf32_is_for_those_who_ask(tensor_cores: Device) -> None:
    """And then by a table of `gpucnn tune` alone, until a chip has confirmed these kernels; what is there without one is exact."""
    exact, other = (problems.conv2d(64, 32, 64, conv_window((32, 32), (3, 3), 1, 1), bits=bits) for bits in (24, 11))
    assert not set(GATHER_TF32) & set(select.variants(exact)) and set(GATHER_TF32) <= set(select.variants(other))
    assert select.choose(other).name == select.choose(exact).name == "tensor128x64"
    with select.override(conv2d="tensor128x64-tf32"):
        assert (select.choose(exact).name, select.choose(other).name) == ("tensor128x64", "tensor128x64-tf32")
    assert other.key == f"{exact.key} in TF32"
    least = dataclasses.replace(other, bits=BFLOAT16)
    assert {*GATHER_TF32, *GATHER_BF16} <= set(select.variants(least))
    assert not set(GATHER_BF16) & set(select.variants(other))
