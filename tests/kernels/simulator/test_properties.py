"""Every fast convolution over the whole space of legal shapes: what Hypothesis makes up, small, against the CPU's in float64.

An axis is made from its result: so many positions, a kernel, stride, dilation and padding on either side that give them, and the pixels
that are over. So every example is legal, and each number varies by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_harness import Output, double, normal

from gpucnn.device import Device, simulated
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.choose import problems as problems_of
from gpucnn_kernels.conv import (
    depthwise,
    depthwise_grad,
    depthwise_input_grad,
    direct,
    direct_grad,
    direct_plan,
    pooled,
    pooled_grad,
    tiled,
)
from gpucnn_kernels.engine.tiles import Tile
from tolerances import check

TILE = Tile(8, 8, 8, 4, 4)  # a block of four threads

# Each shape is compiled where the simulator does not run it: the random ones are the long tail, for make slow.
pytestmark = [] if simulated() else pytest.mark.slow


class Problem:
    """A convolution, and numbers for it."""

    def __init__(self, n: int, c: int, k: int, groups: int, window: Window, seed: int) -> None:
        self.n, self.c, self.k, self.groups, self.window = n, c, k, groups, window
        self.x = normal(seed, n, c, *window.input)
        self.weight = normal(seed + 1, k, c // groups, *window.kernel)
        self.bias = normal(seed + 2, k)
        self.dy = normal(seed + 3, n, k, *window.output)

    def __repr__(self) -> str:
        return f"{self.n} images, {self.c} channels, {self.k} filters, {self.groups} groups, {self.window}"

    def check_forward(self, device: Device, launch: Callable[..., None]) -> None:
        """`launch(x, weight, bias, y)`, with ReLU."""
        y = Output(device, self.dy.shape)
        launch(*map(device.array, (self.x, self.weight, self.bias)), y.array)
        agrees(
            y,
            lambda x, w, b: cpu.conv2d(x, w, b, self.window, self.groups, relu=True),
            self.x,
            self.weight,
            self.bias,
            terms=self.weight[0].size,
            direction="forward",
        )

    def check_input_grad(self, device: Device, launch: Callable[..., None], relu: Any = None) -> None:
        """`launch(dy, weight, dx)`."""
        dx = Output(device, self.x.shape)
        launch(device.array(self.dy), device.array(self.weight), dx.array)
        agrees(
            dx,
            lambda dy, w: cpu.conv2d_input_grad(dy, w, self.window, self.groups, relu=relu),
            self.dy,
            self.weight,
            terms=self.weight.size // self.c,
            direction="input_grad",
        )

    def check_weight_grad(self, device: Device, launch: Callable[..., None], with_bias: bool = True) -> None:
        """`launch(dy, x, dweight)`, and dbias `with_bias`."""
        dweight, dbias = Output(device, self.weight.shape), Output(device, (self.k,))
        launch(device.array(self.dy), device.array(self.x), dweight.array, *[dbias.array] * with_bias)
        terms = self.dy.size // self.k
        agrees(
            dweight,
            lambda dy, x: cpu.conv2d_weight_grad(dy, x, self.window, self.groups),
            self.dy,
            self.x,
            terms=terms,
            direction="weight_grad",
        )
        if with_bias:
            agrees(dbias, cpu.bias_grad, self.dy, terms=terms, direction="weight_grad")


def agrees(got: Output, operation: Callable[..., Any], *arrays: Any, terms: int, direction: str) -> None:
    """`got` is what `operation` makes of the arrays in float64, but for rounding; what it makes of their absolute values bounds that."""
    wide = [double(array) for array in arrays]
    check(got.result(), operation(*wide), magnitude=operation(*map(np.abs, wide)), terms=terms, direction=direction)


@st.composite
def axes(draw: st.DrawFn, positions: int) -> tuple[int, int, int, tuple[int, int], int]:
    """Size, taps, stride, padding before and after, dilation."""
    taps, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    before, after, over = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(0, stride - 1))
    size = (draw(st.integers(1, positions)) - 1) * stride + (taps - 1) * dilation + 1 + over - before - after
    return max(1, size), taps, stride, (before, after), dilation


@st.composite
def problems(
    draw: st.DrawFn, positions: int = 4, most_c: int = 4, most_k: int = 5, group_counts: int = 1, depthwise: bool = False
) -> Problem:
    """Up to `positions` by `positions` results, or more where padding alone gives them; up to so many channels and filters in a group."""
    (h, r, *down), (w, s, *across) = draw(axes(positions)), draw(axes(positions))
    stride, padding, dilation = zip(down, across, strict=True)
    groups = draw(st.integers(1, 3 if depthwise else group_counts))
    c = groups * (1 if depthwise else draw(st.integers(1, most_c)))
    k = groups * draw(st.integers(1, 2 if depthwise else most_k))
    window = conv_window((h, w), (r, s), stride, padding, dilation)
    return Problem(draw(st.integers(1, 2)), c, k, groups, window, draw(st.integers(0, 99)))


def examples(count: int) -> Any:
    """Where each shape's kernels are compiled, which takes seconds, few: the long tail is that of gpu/test_random_shapes_on_gpu.py."""
    return settings(
        max_examples=count if simulated() else 2,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def space(device: Device, elements: int) -> Any:
    return device.xp.full(elements, np.nan, "float32")


@examples(6)
@given(problem=problems())
def test_direct(device: Device, problem: Problem) -> None:
    p = problem
    assert direct.fits(p.c, p.window)
    plan = direct_plan.plan_of(p.c, p.k, p.window, threads=8)
    grad = direct_plan.grad_plan_of(p.n, p.c, p.k, p.window, threads=8, blocks=3)
    assert plan is not None and grad is not None
    p.check_forward(device, lambda *arrays: direct.conv2d(*arrays, p.window, relu=True, plan=plan))
    workspace = space(device, grad.parts * (p.weight.size + p.k))
    options = {"workspace": workspace, "plan": grad, "adders": (8, 2)}
    p.check_weight_grad(
        device, lambda dy, x, dweight, dbias: direct_grad.conv2d_weight_grad(dy, x, dweight, p.window, dbias=dbias, **options)
    )


@examples(6)
@given(problem=problems(positions=5))
def test_fused(device: Device, problem: Problem) -> None:
    """Forward, and then the gradient from the values and places that it gave."""
    p = problem
    assume(min(p.window.output) >= 2)  # a window of the pooling fits
    pooling = pool_window(p.window.output, 2)
    assert pooled.fits(p.c, p.window, pooling) and pooled_grad.fits(p.c, p.window, pooling)
    shape = (p.n, p.k, *pooling.output)
    y, places = Output(device, shape), Output(device, shape, "int32")
    x, weight, bias = map(device.array, (p.x, p.weight, p.bias))
    plan = direct_plan.plan_of(p.c, p.k, p.window, side=2, threads=8)
    pooled.conv2d_relu_max_pool2d(x, weight, bias, y.array, places.array, p.window, pooling, plan=plan)
    agrees(
        y,
        lambda *arrays: cpu.conv2d_relu_max_pool2d(*arrays, p.window, pooling)[0],
        p.x,
        p.weight,
        p.bias,
        terms=p.weight[0].size,
        direction="forward",
    )
    values, won = y.result(), places.result()

    grad = pooled_grad.grad_plan_of(p.n, p.c, p.k, p.window, pooling, threads=8, blocks=3)
    assert grad is not None
    dy = normal(5, *shape)
    dweight, dbias = Output(device, p.weight.shape), Output(device, (p.k,))
    pooled_grad.conv2d_relu_max_pool2d_weight_grad(
        device.array(dy),
        places.array,
        x,
        dweight.array,
        p.window,
        pooling,
        relu=y.array,
        dbias=dbias.array,
        workspace=space(device, grad.parts * (p.weight.size + p.k)),
        plan=grad,
        adders=(8, 2),
    )
    terms = dy.size // p.k
    dconv = cpu.max_pool2d_grad(cpu.relu_grad(dy, values), won, pooling)
    agrees(dweight, lambda d, x: cpu.conv2d_weight_grad(d, x, p.window), dconv, p.x, terms=terms, direction="weight_grad")
    agrees(dbias, cpu.bias_grad, dconv, terms=terms, direction="weight_grad")


@examples(8)
@given(problem=problems(positions=9, depthwise=True))
def test_depthwise(device: Device, problem: Problem) -> None:
    p = problem
    assert depthwise.fits(p.c, p.k, p.window)
    p.check_forward(device, lambda *arrays: depthwise.conv2d(*arrays, p.window, relu=True))
    p.check_input_grad(device, lambda *arrays: depthwise_input_grad.conv2d_input_grad(*arrays, p.window))
    relu = device.array(p.x)
    p.check_input_grad(device, lambda *arrays: depthwise_input_grad.conv2d_input_grad(*arrays, p.window, relu=relu), p.x)
    plan = depthwise_grad.grad_plan_of(p.n, p.k, p.window, threads=8, blocks=3)
    assert plan is not None
    workspace = space(device, plan.parts * (p.weight.size + p.k))
    options = {"workspace": workspace, "plan": plan, "adders": (8, 2)}
    p.check_weight_grad(
        device, lambda dy, x, dweight, dbias: depthwise_grad.conv2d_weight_grad(dy, x, dweight, p.window, dbias=dbias, **options)
    )


@examples(6)
@given(problem=problems(positions=2, most_c=2, most_k=3, group_counts=2), slices=st.integers(1, 3))
def test_engine(device: Device, problem: Problem, slices: int) -> None:
    p = problem
    forward, input_grad, weight_grad = (
        {
            "workspace": space(device, variant.workspace(getattr(problems_of, name)(p.n, p.c, p.k, p.window, p.groups), slices)),
            "tile": TILE,
        }
        for name, variant in tiled.variants("tile", TILE, 1.0).items()
    )
    p.check_forward(device, lambda *arrays: tiled.conv2d(*arrays, p.window, p.groups, True, **forward))
    p.check_input_grad(device, lambda *arrays: tiled.conv2d_input_grad(*arrays, p.window, p.groups, **input_grad))
    p.check_weight_grad(
        device,
        lambda *arrays: tiled.conv2d_weight_grad(*arrays, p.window, p.groups, slices=slices, **weight_grad),
        with_bias=False,
    )
