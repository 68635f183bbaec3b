"""The convolution kernels, all directions, against the CPU's in float64."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_harness import Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.errors import ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels.conv import plain as conv
from tolerances import check


class Case:
    """Images (n, c, *hw), k filters of rs; the rest as the window takes it."""

    def __init__(
        self, n: int, c: int, hw: tuple[int, int], k: int, rs: tuple[int, int], groups: int = 1, *, like: int = 0, **window: Any
    ) -> None:
        self.window: Window = conv_window(hw, rs, **window)
        self.groups = groups
        self.x = normal(like, n, c, *hw)
        self.weight = normal(like + 1, k, c // groups, *rs)
        self.bias = normal(like + 2, k)
        self.dy = normal(like + 3, n, k, *self.window.output)


# Few weights each: for every weight the simulator runs a warp of 32 threads that wait for each other, at a thirtieth of a second.
CASES = {
    "one": lambda: Case(1, 1, (1, 1), 1, (1, 1)),
    "plain": lambda: Case(2, 3, (5, 7), 1, (3, 2), padding=1),
    "primes": lambda: Case(1, 1, (13, 11), 1, (5, 3), padding=(2, 3), stride=(3, 1)),
    "one-pixel-padded": lambda: Case(2, 2, (1, 1), 1, (3, 3), padding=1),
    "one-channel": lambda: Case(3, 1, (7, 5), 2, (3, 3), padding="same", stride=2),
    "same-even": lambda: Case(1, 1, (6, 8), 2, (3, 2), padding="same", stride=2),
    "stride-over-kernel": lambda: Case(1, 2, (11, 7), 3, (2, 1), stride=(3, 2)),
    "groups": lambda: Case(2, 4, (5, 5), 6, (2, 1), 2),
    "depthwise": lambda: Case(1, 3, (4, 6), 3, (3, 2), 3, padding="same"),
    "depthwise-twice": lambda: Case(1, 2, (5, 4), 4, (2, 2), 2, padding=1),
    "dilation": lambda: Case(1, 1, (9, 8), 2, (2, 3), dilation=(3, 2), padding=(1, 2)),
    "dilation-stride": lambda: Case(1, 1, (10, 9), 2, (3, 2), dilation=2, stride=(2, 3), padding=((1, 2), (0, 1))),
    "asymmetric": lambda: Case(2, 1, (5, 6), 1, (3, 4), padding=((2, 0), (0, 3)), stride=(2, 3)),
    "padding-over-kernel": lambda: Case(1, 1, (2, 3), 2, (1, 1), padding=3, stride=2),
    "long-sums": lambda: Case(5, 1, (9, 9), 1, (1, 1)),
    "many-channels": lambda: Case(1, 13, (2, 2), 1, (1, 1)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.mark.parametrize(("with_bias", "relu"), [(False, False), (True, False), (True, True)])
def test_forward(device: Device, case: Case, with_bias: bool, relu: bool) -> None:
    forward(device, case, with_bias, relu)


def test_the_call_of_the_document_is_one(device: Device) -> None:
    text = Path(__file__).parents[3].joinpath("kernels", "README.md").read_text(encoding="utf-8")
    (call,) = (block for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) if "# y is written" in block)
    case, out = Case(1, 1, (28, 28), 1, (3, 3), padding=1), Output(device, (1, 1, 28, 28))
    arrays = {"x": device.array(case.x), "weight": device.array(case.weight), "bias": device.array(case.bias), "y": out.array}
    exec(textwrap.dedent(call), arrays)
    expected = cpu.relu(cpu.conv2d(double(case.x), double(case.weight), double(case.bias), case.window))
    np.testing.assert_allclose(out.result(), expected, rtol=1e-5, atol=1e-5)


def test_input_grad(device: Device, case: Case) -> None:
    input_grad(device, case)


def test_input_grad_with_relu(device: Device, case: Case) -> None:
    """The bits of the kernel without, or 0 where ReLU gave zero of either sign, or NaN."""
    values = np.array([0, -0.0, np.nan, 1e-45, 2, np.inf, -1], np.float32)
    x = np.random.default_rng(9).choice(values, case.x.shape)
    arrays, results = (device.array(case.dy), device.array(case.weight)), []
    for relu in (None, device.array(x)):
        out = Output(device, x.shape)
        conv.conv2d_input_grad(*arrays, out.array, case.window, case.groups, stream(out.array), relu=relu)
        results.append(out.result())
    np.testing.assert_array_equal(results[1].view(np.uint32), cpu.relu_grad(results[0], x).view(np.uint32))


def test_weight_grad(device: Device, case: Case) -> None:
    weight_grad(device, case)


def test_weight_grad_with_bias_grad(device: Device) -> None:
    case = CASES["same-even"]()
    out, bias_out = Output(device, case.weight.shape), Output(device, case.bias.shape)
    arrays = device.array(case.dy), device.array(case.x), out.array
    conv.conv2d_weight_grad(*arrays, case.window, case.groups, stream(out.array), dbias=bias_out.array)
    dy, x, terms = double(case.dy), double(case.x), case.dy.size // case.dy.shape[1]
    magnitude = cpu.conv2d_weight_grad(np.abs(dy), np.abs(x), case.window)
    check(out.result(), cpu.conv2d_weight_grad(dy, x, case.window), magnitude=magnitude, terms=terms, direction="weight_grad")
    check(bias_out.result(), cpu.bias_grad(dy), magnitude=cpu.bias_grad(np.abs(dy)), terms=terms, direction="weight_grad")


def forward(device: Device, case: Case, with_bias: bool, relu: bool) -> None:
    bias = case.bias if with_bias else None
    out = Output(device, (case.x.shape[0], case.weight.shape[0], *case.window.output))
    x, weight = device.array(case.x), device.array(case.weight)
    given = None if bias is None else device.array(bias)
    y = device.ops.conv2d(x, weight, given, case.window, case.groups, relu=relu, out=out.array)
    assert y is out.array
    wide = None if bias is None else double(bias)
    ref = cpu.conv2d(double(case.x), double(case.weight), wide, case.window, case.groups, relu=relu)
    wide = None if wide is None else np.abs(wide)
    magnitude = cpu.conv2d(np.abs(double(case.x)), np.abs(double(case.weight)), wide, case.window, case.groups)
    check(out.result(), ref, magnitude=magnitude, terms=case.weight[0].size, direction="forward")


def input_grad(device: Device, case: Case) -> None:
    out = Output(device, case.x.shape)
    device.ops.conv2d_input_grad(device.array(case.dy), device.array(case.weight), case.window, case.groups, out=out.array)
    dy, weight = double(case.dy), double(case.weight)
    ref = cpu.conv2d_input_grad(dy, weight, case.window, case.groups)
    magnitude = cpu.conv2d_input_grad(np.abs(dy), np.abs(weight), case.window, case.groups)
    terms = case.weight.size // case.weight.shape[1] // case.groups
    check(out.result(), ref, magnitude=magnitude, terms=terms, direction="input_grad")


def weight_grad(device: Device, case: Case) -> None:
    out = Output(device, case.weight.shape)
    device.ops.conv2d_weight_grad(device.array(case.dy), device.array(case.x), case.window, case.groups, out=out.array)
    dy, x = double(case.dy), double(case.x)
    ref = cpu.conv2d_weight_grad(dy, x, case.window, case.groups)
    magnitude = cpu.conv2d_weight_grad(np.abs(dy), np.abs(x), case.window, case.groups)
    check(out.result(), ref, magnitude=magnitude, terms=case.dy.size // case.dy.shape[1], direction="weight_grad")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = draw(st.integers(1, 2))
    c, k = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    side = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.one_of(st.just("same"), st.just("valid"), st.tuples(side, side)))
    hw, rs, stride, dilation = draw(st.tuples(st.integers(1, 7), st.integers(1, 7))), draw(pairs), draw(pairs), draw(pairs)
    try:
        return Case(draw(st.integers(1, 2)), c, hw, k, rs, groups, padding=padding, stride=stride, dilation=dilation)
    except ShapeError:  # the kernel does not fit
        return Case(1, c, hw, k, (1, 1), groups, padding=padding, stride=stride)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_any_legal_shape(device: Device, case: Case) -> None:
    forward(device, case, with_bias=True, relu=False)
    input_grad(device, case)
    if case.weight.size <= 8:
        weight_grad(device, case)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 3, 5, 7), (70, 2, 2, 1), (1, 4, 1, 1)])
def test_bias_grad(device: Device, shape: tuple[int, ...]) -> None:
    dy = normal(4, *shape)
    out = Output(device, (shape[1],))
    device.ops.bias_grad(device.array(dy), out=out.array)
    terms = dy.size // shape[1]
    check(out.result(), cpu.bias_grad(double(dy)), magnitude=cpu.bias_grad(np.abs(double(dy))), terms=terms, direction="weight_grad")


def test_relu_keeps_nan_and_infinity(device: Device) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1, -1], np.float32).reshape(1, 1, 1, 5)
    y = device.ops.conv2d(device.array(x), device.array(np.ones((1, 1, 1, 1), np.float32)), None, conv_window((1, 5), (1, 1)), relu=True)
    expected = np.array([np.nan, np.inf, 0, 1, 0], np.float32).reshape(x.shape)
    np.testing.assert_array_equal(to_numpy(y), expected)


def test_padding_is_not_multiplied(device: Device) -> None:
    """A weight that is infinite times a pixel that is padding is nothing, not NaN."""
    weight = np.array([np.inf, 1, 1], np.float32).reshape(1, 1, 1, 3)
    x = np.ones((1, 1, 1, 1), np.float32)
    y = device.ops.conv2d(device.array(x), device.array(weight), None, conv_window((1, 1), (1, 3), padding=(0, 1)))
    assert to_numpy(y).ravel() == [1]


def test_the_same_bits_every_time(device: Device) -> None:
    case = CASES["long-sums"]()
    arrays = device.array(case.dy), device.array(case.x)
    first, second = (to_numpy(device.ops.conv2d_weight_grad(*arrays, case.window)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
