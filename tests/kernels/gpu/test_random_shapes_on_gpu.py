"""Random legal shapes with real launches: every variant that can do them, with ReLU and bias forward, and their gradients backward.

Kernels that are made for a shape take seconds to compile, so kernel, stride and dilation, and for first layers the image, come from a
few; all else is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from kernel_harness import REAL, Output, distinct, double, normal
from tensor_cases import kept, rounded
from winograd_cases import bound

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tensor, wide, winograd
from gpucnn_kernels.core.problem import FLOAT32, KINDS
from gpucnn_kernels.dense.tensor import GROUPS, NAME
from gpucnn_kernels.engine.merit import half_is_padding
from gpucnn_kernels.engine.tiles import NARROW, TILES
from gpucnn_kernels.tensor.accuracy import enough
from gpucnn_kernels.tensor.chips import asynchronous_copies_there, groups_there, warps_there
from gpucnn_kernels.tensor.parts import ENDING
from tolerances import check

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("short_sums")]

SHAPES = 100 if REAL else 24  # of each kind; the virtual GPU takes up to a minute for one


def each_shape(test: Callable[..., None]) -> Any:
    """A test of every shape: on the virtual GPU not in `make test`."""
    marked = pytest.mark.parametrize("seed", range(SHAPES))(test)
    return marked if REAL else pytest.mark.slow(marked)


TAPS = (((3, 3), 1, 1), ((3, 3), 2, 1), ((5, 5), 1, 1), ((3, 2), (2, 1), (1, 2)))  # kernel, stride, dilation
FIRST_LAYERS = (  # channels and window
    (1, conv_window((28, 28), (5, 5), padding="same")),
    (1, conv_window((28, 28), (3, 3))),
    (3, conv_window((32, 32), (3, 3), 1, 1)),
    (2, conv_window((17, 23), (3, 2), (1, 2), ((1, 0), (0, 2)))),
    (4, conv_window((13, 11), (3, 3), 1, 2, dilation=2)),
)


class Problem:
    """A convolution, and numbers for it."""

    def __init__(self, seed: int, n: int, c: int, k: int, groups: int, window: Window) -> None:
        self.n, self.c, self.k, self.groups, self.window = n, c, k, groups, window
        self.x = np.maximum(normal(seed, n, c, *window.input), 0)  # as ReLU leaves it, because its gradient is taken too
        self.weight = normal(seed + 1, k, c // groups, *window.kernel)
        self.bias = normal(seed + 2, k)

    def __repr__(self) -> str:
        return f"{self.n} images, {self.c} channels, {self.k} filters, {self.groups} groups, {self.window}"


def random_problem(seed: int, depthwise: bool) -> Problem:
    random = np.random.default_rng(seed)
    kernel, stride, dilation = TAPS[seed % len(TAPS)]
    hw = int(random.integers(7, 40)), int(random.integers(7, 40))
    (top, bottom), (left, right) = random.integers(0, 3, (2, 2)).tolist()
    window = conv_window(hw, kernel, stride, ((top, bottom), (left, right)), dilation)
    groups = int(random.integers(2, 40)) if depthwise else int(random.integers(1, 3))
    c = groups * (1 if depthwise else int(random.integers(5, 20)))  # a first layer has fewer: below
    k = groups * int(random.integers(1, 3 if depthwise else 30))
    return Problem(seed, int(random.integers(1, 6)), c, k, groups, window)


def problem_in_groups(seed: int) -> Problem:
    """In groups of few channels."""
    random, alike = np.random.default_rng(seed), random_problem(seed, depthwise=True)
    of, to = random.choice([2, 3, 4, 8, 16], 2).tolist()
    groups = int(random.integers(2, 6))
    return Problem(seed, alike.n, groups * of, groups * to, groups, alike.window)


def agrees(got: Output, operation: Callable[..., Any], *arrays: Any, terms: int, direction: str) -> None:
    """`got` is what `operation` makes of the arrays in float64, but for rounding; what it makes of their absolute values bounds that."""
    wide = [array if array.dtype == np.float64 else double(array) for array in arrays]
    check(got.result(), operation(*wide), magnitude=operation(*map(np.abs, wide)), terms=terms, direction=direction)


def tiles_agree(got: Output, reference: Any, p: Problem, source: Any, direction: str) -> None:
    """The same of Winograd's tiles, whose errors come from all pixels of a tile."""
    magnitude, terms = bound(source, p.weight, p.window, direction == "input_grad")
    bias = np.abs(p.bias)[:, None, None] if direction == "forward" else 0
    check(got.result(), reference, magnitude=magnitude + bias, terms=terms, direction=direction)


def products(p: Problem) -> set[str]:
    """The tiles that there are for a convolution on this GPU: short sums are left to FMAs."""
    chip, tiles = select.current_chip(), set(TILES)
    if half_is_padding(len(p.bias) // p.groups):
        tiles |= set(NARROW)
    if winograd.suits(p.window, p.groups) and min(p.weight.shape[:2]) >= 8:
        tiles.add("winograd")
    if asynchronous_copies_there(chip):
        tiles |= set(wide.TILES)
    if enough(p.weight[0].size, FLOAT32):
        tiles |= {f"tensor128x{columns}" for columns in tensor.BEST if tensor.there(chip)}
        tiles |= {name for name in tensor.WARPS if warps_there(chip)}
    return tiles


def ways(problem: Any) -> Iterator[select.Choice]:
    """Every variant that can do a convolution; and where the rules would cut sums of some tiles, without as well."""
    for name in select.variants(problem):
        choice = select.choose(problem, name)
        yield choice
        if choice.slices > 1:
            yield select.choice(choice.variant, problem, 1)


def every_variant(gpu: Device, p: Problem) -> set[str]:
    """Holds the three operations in all their variants against the CPU's, and returns the variants."""
    sizes = p.n, p.c, p.k, p.window, p.groups
    x, weight, bias = map(gpu.array, (p.x, p.weight, p.bias))
    dy = normal(99, p.n, p.k, *p.window.output)
    given = gpu.array(dy)
    found: set[str] = set()

    for choice in ways(problems.conv2d(*sizes)):
        y = Output(gpu, dy.shape)
        with select.override(conv2d=choice):
            gpu.ops.conv2d(x, weight, bias, p.window, p.groups, relu=True, out=y.array)
        found.add(choice.name)
        if choice.name == "winograd":
            tiles_agree(y, cpu.conv2d(*map(double, (p.x, p.weight, p.bias)), p.window, relu=True), p, p.x, "forward")
            continue
        agrees(
            y,
            lambda x, w, b: cpu.conv2d(x, w, b, p.window, p.groups, relu=True),
            p.x,
            p.weight,
            p.bias,
            terms=p.weight[0].size,
            direction="forward",
        )

    for choice in ways(problems.conv2d_input_grad(*sizes)):
        for relu in (None, p.x):
            dx = Output(gpu, p.x.shape)
            with select.override(conv2d_input_grad=choice):
                gpu.ops.conv2d_input_grad(given, weight, p.window, p.groups, relu=None if relu is None else x, out=dx.array)
            if choice.name == "winograd":
                tiles_agree(dx, cpu.conv2d_input_grad(double(dy), double(p.weight), p.window, relu=relu), p, dy, "input_grad")
                continue
            agrees(
                dx,
                lambda dy, w, mask=relu: cpu.conv2d_input_grad(dy, w, p.window, p.groups, relu=mask),
                dy,
                p.weight,
                terms=p.weight.size // p.c,
                direction="input_grad",
            )

    terms = dy.size // p.k
    for variant in select.variants(problems.conv2d_weight_grad(*sizes)):
        dweight, dbias = Output(gpu, p.weight.shape), Output(gpu, (p.k,))
        with select.override(conv2d_weight_grad=variant):
            gpu.ops.conv2d_weight_grad(given, x, p.window, p.groups, out=dweight.array, dbias=dbias.array)
        agrees(dweight, lambda dy, x: cpu.conv2d_weight_grad(dy, x, p.window, p.groups), dy, p.x, terms=terms, direction="weight_grad")
        agrees(dbias, cpu.bias_grad, dy, terms=terms, direction="weight_grad")
    return found


@each_shape
def test_convolutions(gpu: Device, seed: int) -> None:
    p = random_problem(seed, depthwise=False)
    assert every_variant(gpu, p) >= {"plain", *products(p)}


@each_shape
def test_depthwise_convolutions(gpu: Device, seed: int) -> None:
    p = random_problem(seed, depthwise=True)
    assert every_variant(gpu, p) >= {"plain", "depthwise", *products(p)}


@each_shape
def test_convolutions_in_groups(gpu: Device, seed: int) -> None:
    p = problem_in_groups(seed)
    assert every_variant(gpu, p) >= {"plain", "grouped", *products(p)}


@each_shape
def test_first_layers(gpu: Device, seed: int) -> None:
    """By themselves, and with ReLU and pooling in one kernel; its gradient from the values and places that it gave."""
    random = np.random.default_rng(seed)
    c, window = FIRST_LAYERS[seed % len(FIRST_LAYERS)]
    p = Problem(seed, int(random.integers(1, 20)), c, int(random.integers(1, 40)), 1, window)
    own = p.n, c, p.k, window
    for problem in (problems.conv2d(*own), problems.conv2d_input_grad(*own), problems.conv2d_weight_grad(*own)):
        assert "direct" in select.variants(problem)
    every_variant(gpu, p)

    pooling = pool_window(window.output, 2)
    sizes = p.n, p.c, p.k, window, pooling
    forward, backward = problems.conv2d_relu_max_pool2d(*sizes), problems.conv2d_relu_max_pool2d_weight_grad(*sizes)
    assert {"plain", "direct"} <= {*select.variants(forward)} & {*select.variants(backward)}
    x, weight, bias = map(gpu.array, (p.x, p.weight, p.bias))
    dy = normal(98, p.n, p.k, *pooling.output)
    for variant in select.variants(forward):
        y, places = Output(gpu, dy.shape), Output(gpu, dy.shape, "int32")
        with select.override(conv2d_relu_max_pool2d=variant):
            gpu.ops.conv2d_relu_max_pool2d(x, weight, bias, window, pooling, out=y.array, indices=places.array)
        agrees(
            y,
            lambda *arrays: cpu.conv2d_relu_max_pool2d(*arrays, window, pooling)[0],
            p.x,
            p.weight,
            p.bias,
            terms=p.weight[0].size,
            direction="forward",
        )

    dconv = cpu.max_pool2d_grad(cpu.relu_grad(dy, y.result()), places.result(), pooling)
    for variant in select.variants(backward):
        for relu in (y.array, None):
            dweight, dbias = Output(gpu, p.weight.shape), Output(gpu, (p.k,))
            arrived = dy if relu is not None else cpu.relu_grad(dy, y.result())  # without `relu` it has seen ReLU's gradient already
            with select.override(conv2d_relu_max_pool2d_weight_grad=variant):
                gpu.ops.conv2d_relu_max_pool2d_weight_grad(
                    gpu.array(arrived), places.array, x, window, pooling, relu=relu, out=dweight.array, dbias=dbias.array
                )
            terms = dy.size // p.k
            agrees(dweight, lambda d, x: cpu.conv2d_weight_grad(d, x, window), dconv, p.x, terms=terms, direction="weight_grad")
            agrees(dbias, cpu.bias_grad, dconv, terms=terms, direction="weight_grad")


@each_shape
def test_dense_layers(gpu: Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    n, c, k = (int(size) for size in random.integers(1, 200, 3))
    x, weight, bias = np.maximum(normal(seed, n, c), 0), normal(seed + 1, k, c), normal(seed + 2, k)
    dy = normal(seed + 3, n, k)
    on_gpu, bits = [gpu.array(array) for array in (x, weight, bias, dy)], KINDS[seed % len(KINDS)]
    asked = [problem(n, c, k, bits) for problem in (problems.dense, problems.dense_input_grad, problems.dense_weight_grad)]
    for problem in asked:
        chip, long_enough = select.current_chip(), enough(problem.depth, bits)
        on_tensor_cores = {NAME} if long_enough and warps_there(chip) else set()
        on_tensor_cores |= {*GROUPS} if long_enough and groups_there(chip) else set()
        assert {*select.variants(problem)} >= {"plain", *TILES, *(name + ENDING[bits] for name in on_tensor_cores)}
    for variant in dict.fromkeys(name for problem in asked for name in select.variants(problem)):
        there = {problem.operation: variant for problem in asked if variant in select.variants(problem)}
        y, dx, dweight, dbias = (Output(gpu, shape) for shape in ((n, k), (n, c), (k, c), (k,)))
        with select.override(there):
            gpu.ops.dense(*on_gpu[:3], relu=True, out=y.array, bits=bits)
            gpu.ops.dense_input_grad(on_gpu[3], on_gpu[1], relu=on_gpu[0], out=dx.array, bits=bits)
            gpu.ops.dense_weight_grad(on_gpu[3], on_gpu[0], out=dweight.array, dbias=dbias.array, bits=bits)
        for problem, got, operation, factors, more, terms, direction in (
            (asked[0], y, lambda *arrays: cpu.dense(*arrays, relu=True), (x, weight), (bias,), c, "forward"),
            (asked[1], dx, lambda dy, w: cpu.dense_input_grad(dy, w, relu=x), (dy, weight), (), k, "input_grad"),
            (asked[2], dweight, cpu.dense_weight_grad, (dy, x), (), n, "weight_grad"),
        ):
            own = kept(variant) if problem.operation in there else kept("")  # where the variant is not, another one is as exact as float32
            agrees(got, operation, *(rounded(each, own) for each in factors), *more, terms=terms, direction=direction)
        agrees(dbias, cpu.bias_grad, dy, terms=n, direction="weight_grad")


@each_shape
def test_pooling_gradients_with_relu(gpu: Device, seed: int) -> None:
    """To the bit where windows do not overlap: 2 × 2 in its own kernel, 3 × 3 in the plain one."""
    random = np.random.default_rng(seed)
    n, c, h, w = (int(size) for size in random.integers(3, 20, 4))
    pooling = pool_window((h, w), 2 + seed % 2)
    x = np.maximum(distinct(seed, n, c, h, w), 0)
    y, places = cpu.max_pool2d(x, pooling)
    dy, dx = normal(seed, *y.shape), Output(gpu, x.shape)
    gpu.ops.max_pool2d_grad(gpu.array(dy), gpu.array(places), pooling, relu=gpu.array(y), out=dx.array)
    np.testing.assert_array_equal(dx.result(), cpu.max_pool2d_grad(dy, places, pooling, relu=y))


def test_a_variant_is_held_against_the_cpu_by_being_listed(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own file and a line in `VARIANTS` are all that there is to write: one that is right is found, one that is wrong is told."""
    for operation in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        monkeypatch.setitem(VARIANTS, operation, VARIANTS[operation][:1])  # the plain one, which compiles in no time
    plain = VARIANTS["conv2d"][0]
    p = Problem(1, 2, 2, 3, 1, conv_window((5, 4), (3, 2)))
    monkeypatch.setitem(VARIANTS, "conv2d", [plain, dataclasses.replace(plain, name="right")])
    assert every_variant(gpu, p) == {"plain", "right"}

    def without_bias(x: Any, weight: Any, bias: Any, y: Any, *rest: Any, **more: Any) -> None:
        assert plain.launch is not None
        plain.launch(x, weight, None, y, *rest, **more)

    monkeypatch.setitem(VARIANTS, "conv2d", [plain, dataclasses.replace(plain, name="wrong", launch=without_bias)])
    with pytest.raises(AssertionError, match="are wrong, the first at"):
        every_variant(gpu, p)
