"""Dense layers on tensor cores, by warps and by Hopper's warpgroups, on small odd shapes, beside float64. A GPU without them skips them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, double, normal
from tensor_cases import kept, rounded

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.core.problem import BFLOAT16, KINDS
from gpucnn_kernels.dense.tensor import GROUPS, NAME
from gpucnn_kernels.tensor.chips import groups_there, warps_there
from gpucnn_kernels.tensor.parts import ENDING
from tolerances import check

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("short_sums")]

SHAPES = {  # rows, inputs, outputs
    "fours": (132, 68, 72),  # all lines by fours, and none of a whole tile
    "odd": (37, 51, 67),  # none of them
    "mixed": (130, 36, 33),  # x and the weight's inputs by fours, dy by ones
    "whole": (128, 64, 64),
}
NAMES = (NAME, *GROUPS)
VARIANTS = [name + ENDING[bits] for name in NAMES for bits in KINDS]
QUICK = [("mixed", "mma128x64-bf16", 2, "dense_weight_grad"), ("mixed", "tensor64x128", 1, "dense_input_grad")]
OPERATIONS = (problems.dense, problems.dense_input_grad, problems.dense_weight_grad)


def needs(variant: str) -> None:
    there = warps_there if variant.startswith(NAME) else groups_there
    if not there(select.current_chip()):
        pytest.skip(f"no {variant} on this GPU")


def cases() -> list[Any]:
    """(shape, variant, slices, operation)."""
    names = [operation.__name__ for operation in OPERATIONS]
    every = [(shape, variant, slices, name) for shape in SHAPES for variant in VARIANTS for slices in (1, 2) for name in names]
    assert set(QUICK) <= set(every)
    return [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in every]


def chosen(sizes: tuple[int, int, int], name: str, slices: int) -> dict[str, Any]:
    """The variants of a layer's three products, with the sums of those that are long enough in slices."""
    found = {}
    for operation in OPERATIONS:
        problem = operation(*sizes, kept(name))
        variant = select.choose(problem, name).variant
        assert variant.name == name
        found[problem.operation] = select.choice(variant, problem, slices)
    return found


@pytest.mark.parametrize(("shape", "variant", "slices", "operation"), cases())
def test_each_product(gpu: Device, shape: str, variant: str, slices: int, operation: str) -> None:
    """With bias, ReLU, its mask, and the gradient of the bias, whose sums are those of float32 in all modes; in TF32 and bfloat16 what
    comes out is what factors give that were rounded beforehand."""
    needs(variant)
    bits = kept(variant)
    n, c, k = SHAPES[shape]
    x, weight, bias, dy = np.maximum(normal(1, n, c), 0), normal(2, k, c), normal(3, k), normal(4, n, k)
    factor = functools.partial(rounded, bits=bits)

    def holds(got: Output, run: Callable[..., Any], *arrays: Any, terms: int, direction: str) -> None:
        check(got.result(), run(*arrays), magnitude=run(*map(np.abs, arrays)), terms=terms, direction=direction)

    with select.override(chosen((n, c, k), variant, slices)):
        if operation == "dense":
            y = Output(gpu, (n, k))
            gpu.ops.dense(*map(gpu.array, (x, weight, bias)), relu=True, out=y.array, bits=bits)
            factors = factor(x), factor(weight), double(bias)
            holds(y, lambda *a: cpu.dense(*a, relu=True), *factors, terms=c, direction="forward")
        elif operation == "dense_input_grad":
            dx = Output(gpu, (n, c))
            gpu.ops.dense_input_grad(*map(gpu.array, (dy, weight)), relu=gpu.array(x), out=dx.array, bits=bits)
            factors = factor(dy), factor(weight)
            holds(dx, lambda *a: cpu.dense_input_grad(*a, relu=double(x)), *factors, terms=k, direction="input_grad")
        else:
            dweight, dbias = Output(gpu, (k, c)), Output(gpu, (k,))
            gpu.ops.dense_weight_grad(*map(gpu.array, (dy, x)), out=dweight.array, dbias=dbias.array, bits=bits)
            holds(dweight, cpu.dense_weight_grad, factor(dy), factor(x), terms=n, direction="weight_grad")
            holds(dbias, cpu.bias_grad, double(dy), terms=n, direction="weight_grad")


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.uint32(0x7FFFFFFF).view(np.float32)])
@pytest.mark.parametrize("in_x", [True, False], ids=["x", "weight"])
def test_what_is_no_number(gpu: Device, variant: str, value: float, in_x: bool) -> None:
    """NaN stays NaN, that of a GPU too; infinities stay what they are, but where a number has two parts: there they become NaN. Nothing
    beside is touched."""
    needs(variant)
    x, weight = np.abs(normal(5, 40, 40)) + 1, np.abs(normal(6, 36, 40)) + 1
    (x if in_x else weight)[11, 3] = value
    with select.override(dense=variant):
        got = gpu.ops.dense(gpu.array(x), gpu.array(weight), bits=kept(variant)).get()
    own = got[11] if in_x else got[:, 11]
    np.testing.assert_array_equal(own, np.full(own.size, value if variant not in NAMES else np.nan))
    assert np.isfinite(got).sum() == got.size - own.size


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_below_the_normal_ones(gpu: Device, variant: str) -> None:
    """They count, down to the least of TF32, 2⁻¹³⁶, and of bfloat16, 2⁻¹³³."""
    needs(variant)
    least = 2.0**-133 if kept(variant) == BFLOAT16 else 2.0**-136
    x, weight = np.full((3, 40), 4 * least, np.float32), np.full((36, 40), 2.0**100, np.float32)
    with select.override(dense=variant):
        got = gpu.ops.dense(gpu.array(x), gpu.array(weight), bits=kept(variant)).get()
        np.testing.assert_array_equal(got, np.full((3, 36), 160 * least * 2.0**100, np.float32))
        x[:] = least
        got = gpu.ops.dense(gpu.array(x), gpu.array(weight), bits=kept(variant)).get()
        np.testing.assert_array_equal(got, np.full((3, 36), 40 * least * 2.0**100, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("variant", NAMES)
def test_arrays_that_begin_anywhere(gpu: Device, variant: str) -> None:
    """At multiples of 4 bytes and not of 16: read one number at a time."""
    needs(variant)
    sizes = (40, 36, 44)
    n, c, k = sizes
    x, weight = normal(7, n, c), normal(8, k, c)
    room = gpu.xp.zeros(1 + n * c, "float32")
    room[1:] = gpu.array(x).ravel()
    y = Output(gpu, (n, k))
    with select.override(dense=variant):
        gpu.ops.dense(room[1:].reshape(n, c), gpu.array(weight), out=y.array)
    wide = double(x), double(weight)
    check(y.result(), cpu.dense(*wide), magnitude=cpu.dense(*map(np.abs, wide)), terms=c, direction="forward")


@pytest.mark.slow
@pytest.mark.parametrize("variant", NAMES)
def test_the_same_bits_every_time(gpu: Device, variant: str) -> None:
    needs(variant)
    sizes = (130, 70, 66)
    x, dy = gpu.array(normal(9, 130, 70)), gpu.array(normal(10, 130, 66))
    with select.override(chosen(sizes, variant, 2)):
        first, second = (gpu.ops.dense_weight_grad(dy, x).get() for _ in range(2))
    np.testing.assert_array_equal(first, second)
