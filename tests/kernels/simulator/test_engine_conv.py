"""Convolutions on the engine, all directions, against the CPU's in float64. The tiles are the smallest there are, so that small arrays
are ragged over several: a block is four threads."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from cuts import thirds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_harness import Output, cases, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.errors import ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels.choose import problems
from gpucnn_kernels.conv import tiled
from gpucnn_kernels.engine.tiles import Tile
from tolerances import check

SMALL = Tile(8, 8, 8, 4, 4)
WIDE = Tile(16, 8, 8, 8, 4)


class Case:
    """Images (n, c, *hw), k filters of rs; the rest as the window takes it."""

    def __init__(
        self,
        n: int,
        c: int,
        hw: tuple[int, int],
        k: int,
        rs: tuple[int, int],
        groups: int = 1,
        tile: Tile = SMALL,
        slices: int = 1,
        **window: Any,
    ) -> None:
        self.window: Window = conv_window(hw, rs, **window)
        self.groups, self.tile, self.slices = groups, tile, slices
        self.x = normal(0, n, c, *hw)
        self.weight = normal(1, k, c // groups, *rs)
        self.bias = normal(2, k)
        self.dy = normal(3, n, k, *self.window.output)
        self.sizes = (n, c, k, self.window, groups, tile)


CASES = {
    "one": lambda: Case(1, 1, (1, 1), 1, (1, 1)),
    "ragged": lambda: Case(1, 3, (5, 3), 9, (3, 2), padding=1),
    "whole-quads": lambda: Case(2, 4, (4, 4), 4, (2, 2), padding=((0, 1), (1, 0)), tile=WIDE, slices=3),
    "primes": lambda: Case(1, 1, (7, 5), 1, (3, 2), padding=(1, 2), stride=(3, 1), slices=2),
    "one-pixel-padded": lambda: Case(3, 2, (1, 1), 2, (3, 3), padding=1),
    "same-stride": lambda: Case(1, 1, (6, 8), 2, (3, 2), padding="same", stride=2),
    "stride-over-kernel": lambda: Case(1, 2, (7, 5), 3, (2, 1), stride=(3, 2)),
    "groups": lambda: Case(2, 4, (3, 3), 6, (2, 1), 2, slices=2),
    "depthwise": lambda: Case(1, 3, (3, 4), 3, (3, 2), 3, padding="same"),
    "dilation": lambda: Case(1, 1, (9, 8), 2, (2, 3), dilation=(3, 2), padding=(1, 2)),
    "dilation-stride": lambda: Case(1, 1, (10, 9), 2, (3, 2), dilation=2, stride=(2, 3), padding=((1, 2), (0, 1))),
    "dilation-twice-stride": lambda: Case(1, 1, (6, 5), 1, (3, 3), dilation=(4, 3), stride=(2, 2), padding=2),
    "asymmetric": lambda: Case(1, 1, (5, 6), 1, (3, 4), padding=((2, 0), (0, 3)), stride=(2, 3)),
    "padding-over-kernel": lambda: Case(1, 1, (2, 3), 2, (1, 1), padding=3, stride=2),
    "many-channels": lambda: Case(1, 11, (2, 2), 10, (1, 1)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.mark.parametrize(("with_bias", "relu"), [(False, False), (True, True)])
def test_forward(device: Device, case: Case, with_bias: bool, relu: bool) -> None:
    forward(device, case, with_bias, relu)


def test_input_grad(device: Device, case: Case) -> None:
    """Alone, and with the gradient of the ReLU before it: the same bits, or 0."""
    alone, x = input_grad(device, case), relu_output(*case.x.shape)
    np.testing.assert_array_equal(bits(input_grad(device, case, x)), bits(cpu.relu_grad(alone, x)))


def test_weight_grad(device: Device, case: Case) -> None:
    """Alone, and with the gradient of the bias."""
    alone, _ = weight_grad(device, case, with_bias=False)
    np.testing.assert_array_equal(bits(weight_grad(device, case)[0]), bits(alone))


SUMS_CUT = cases(CASES, ("groups", "stride-over-kernel", "many-channels"))


@pytest.mark.parametrize("name", SUMS_CUT)
def test_sums_that_are_cut(device: Device, name: str) -> None:
    """With what comes after the sum, which only the block does that adds up; and the same bits every time."""
    case = CASES[name]()
    x = relu_output(*case.x.shape)
    first, second = (
        (forward(device, case, True, True, IN_THIRDS), input_grad(device, case, x, IN_THIRDS), input_grad(device, case, make=IN_THIRDS))
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(bits(one), bits(other))
    np.testing.assert_array_equal(bits(first[1]), bits(cpu.relu_grad(first[2], x)))


def test_sums_that_are_cut_can_be_added_up_again(device: Device) -> None:
    """In the same workspace, on images that lie apart: what counted the blocks begins at zero, and nothing is written beside."""
    case = CASES["many-channels"]()
    n, k, (P, Q) = len(case.x), len(case.weight), case.window.output
    wide = device.xp.full((n, k + 3, P, Q), np.nan, "float32")
    workspace = space(device, room("conv2d", case, make=IN_THIRDS))
    expected = forward(device, case, True, False, IN_THIRDS)
    arrays = device.array(case.x), device.array(case.weight), device.array(case.bias), wide[:, 2 : k + 2]
    for _ in range(3):
        wide[:, 2 : k + 2] = np.nan
        tiled.conv2d(*arrays, case.window, case.groups, workspace=workspace, tile=case.tile, make=IN_THIRDS)
        got = to_numpy(wide)
        np.testing.assert_array_equal(bits(got[:, 2 : k + 2]), bits(expected))
        assert np.isnan(got[:, :2]).all() and np.isnan(got[:, k + 2 :]).all()
    with pytest.raises(ValueError, match=f"has {workspace.size - 1} elements, and {workspace.size} are needed"):
        tiled.conv2d(*arrays, case.window, case.groups, workspace=workspace[1:], tile=case.tile, make=IN_THIRDS)


def relu_output(*shape: int) -> Any:
    """Where ReLU's output is expected: positive numbers, the smallest too, zeros of both signs, NaN, and what ReLU never gives."""
    return np.random.default_rng(9).choice(np.array([0, -0.0, np.nan, 1e-45, 2, np.inf, -1], np.float32), shape)


def bits(array: Any) -> Any:
    return array.view(np.uint32)


IN_THIRDS = functools.partial(tiled.gather, cut_of=thirds)


def room(operation: str, case: Case, slices: int = 1, make: Any = tiled.gather) -> int:
    """Elements of the workspace, as the variant with the case's tile says."""
    variants = {**tiled.variants("tile", case.tile, 1.0), **tiled.gathering("tile", case.tile, 1.0, make)}
    return variants[operation].workspace(getattr(problems, operation)(*case.sizes[:5]), slices)


def space(device: Device, elements: int) -> Any:
    return device.xp.full(elements, np.nan, "float32")


def forward(device: Device, case: Case, with_bias: bool, relu: bool, make: Any = tiled.gather) -> Any:
    out = Output(device, (case.x.shape[0], case.weight.shape[0], *case.window.output))
    workspace = space(device, room("conv2d", case, make=make))
    x, weight, bias = device.array(case.x), device.array(case.weight), device.array(case.bias) if with_bias else None
    tiled.conv2d(x, weight, bias, out.array, case.window, case.groups, relu, workspace=workspace, tile=case.tile, make=make)
    wide = double(case.bias) if with_bias else None
    ref = cpu.conv2d(double(case.x), double(case.weight), wide, case.window, case.groups, relu=relu)
    wide = None if wide is None else np.abs(wide)
    magnitude = cpu.conv2d(np.abs(double(case.x)), np.abs(double(case.weight)), wide, case.window, case.groups)
    check(out.result(), ref, magnitude=magnitude, terms=case.weight[0].size, direction="forward")
    return out.result()


def input_grad(device: Device, case: Case, relu: Any = None, make: Any = tiled.gather) -> Any:
    out = Output(device, case.x.shape)
    workspace = space(device, room("conv2d_input_grad", case, make=make))
    arrays = device.array(case.dy), device.array(case.weight)
    given = None if relu is None else device.array(relu)
    options = {"relu": given, "workspace": workspace, "tile": case.tile, "make": make}
    tiled.conv2d_input_grad(*arrays, out.array, case.window, case.groups, **options)
    dy, weight = double(case.dy), double(case.weight)
    ref = cpu.conv2d_input_grad(dy, weight, case.window, case.groups)
    if relu is not None:
        ref = cpu.relu_grad(ref, relu)
    magnitude = cpu.conv2d_input_grad(np.abs(dy), np.abs(weight), case.window, case.groups)
    terms = case.weight.size // case.weight.shape[1] // case.groups
    check(out.result(), ref, magnitude=magnitude, terms=terms, direction="input_grad")
    return out.result()


def weight_grad(device: Device, case: Case, with_bias: bool = True) -> tuple[Any, Any]:
    out, bias_out = Output(device, case.weight.shape), Output(device, case.bias.shape)
    workspace = space(device, room("conv2d_weight_grad", case, case.slices))
    arrays = device.array(case.dy), device.array(case.x), out.array
    options = {"dbias": bias_out.array if with_bias else None, "workspace": workspace, "slices": case.slices, "tile": case.tile}
    tiled.conv2d_weight_grad(*arrays, case.window, case.groups, **options)
    dy, x = double(case.dy), double(case.x)
    ref = cpu.conv2d_weight_grad(dy, x, case.window, case.groups)
    magnitude = cpu.conv2d_weight_grad(np.abs(dy), np.abs(x), case.window, case.groups)
    terms = case.dy.size // case.dy.shape[1]
    check(out.result(), ref, magnitude=magnitude, terms=terms, direction="weight_grad")
    if not with_bias:
        return out.result(), None
    check(bias_out.result(), cpu.bias_grad(dy), magnitude=cpu.bias_grad(np.abs(dy)), terms=terms, direction="weight_grad")
    return out.result(), bias_out.result()


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    groups = draw(st.integers(1, 2))
    c, k = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    side = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.one_of(st.just("same"), st.just("valid"), st.tuples(side, side)))
    hw, rs, stride, dilation = draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), draw(pairs), draw(pairs), draw(pairs)
    slices = draw(st.integers(1, 3))
    try:
        return Case(draw(st.integers(1, 2)), c, hw, k, rs, groups, slices=slices, padding=padding, stride=stride, dilation=dilation)
    except ShapeError:  # the kernel does not fit
        return Case(1, c, hw, k, (1, 1), groups, slices=slices, padding=padding, stride=stride)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_case())
def test_any_legal_shape(device: Device, case: Case) -> None:
    for make in (tiled.gather, IN_THIRDS):
        forward(device, case, with_bias=True, relu=False, make=make)
        input_grad(device, case, relu_output(*case.x.shape), make)
    weight_grad(device, case)


@pytest.mark.parametrize("slices", [1, 3])
def test_the_same_bits_every_time(device: Device, slices: int) -> None:
    case = Case(2, 2, (5, 5), 4, (2, 2), 2, slices=slices)
    for first, second in zip(weight_grad(device, case), weight_grad(device, case), strict=True):
        assert first.tobytes() == second.tobytes()


def test_infinity_stays_in_its_filter(device: Device) -> None:
    case = Case(2, 1, (4, 3), 3, (1, 1), slices=2)
    case.dy[1, 1, 3, 2] = np.inf
    _, dbias = weight_grad(device, case)
    np.testing.assert_array_equal(np.isinf(dbias), [False, True, False])


def test_misaligned_arrays_are_read_and_written_one_by_one(device: Device) -> None:
    case = CASES["whole-quads"]()
    y = device.xp.empty(case.dy.size + 1, "float32")[1:].reshape(case.dy.shape)
    workspace = space(device, room("conv2d", case))
    tiled.conv2d(device.array(case.x), device.array(case.weight), None, y, case.window, workspace=workspace, tile=case.tile)
    ref = cpu.conv2d(case.x, case.weight, None, case.window)
    np.testing.assert_allclose(y.get() if hasattr(y, "get") else y, ref, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("misaligned", ["dx", "relu"])
def test_misaligned_masks_are_read_one_by_one(device: Device, misaligned: str) -> None:
    case = CASES["whole-quads"]()
    x = relu_output(*case.x.shape)
    dx, relu = (device.xp.empty(x.size + 1, "float32")[name == misaligned :][: x.size].reshape(x.shape) for name in ("dx", "relu"))
    relu[...] = device.array(x)
    workspace = space(device, room("conv2d_input_grad", case))
    arrays, options = (device.array(case.dy), device.array(case.weight), dx), {"workspace": workspace, "tile": case.tile}
    tiled.conv2d_input_grad(*arrays, case.window, relu=relu, **options)
    np.testing.assert_array_equal(bits(to_numpy(dx)), bits(input_grad(device, case, x)))


def test_a_workspace_too_small_is_refused(device: Device) -> None:
    case = CASES["one"]()
    with pytest.raises(ValueError, match="the workspace has 1 elements, and 64 are needed"):
        tiled.conv2d(case.x, case.weight, None, case.dy, case.window, workspace=space(device, 1), tile=case.tile)
