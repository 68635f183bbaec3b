"""The kernels on tensor cores in Numba's simulator, on small odd shapes, beside float64.

tensor/simulated.py says what their instructions mean there. The tiles of warps are smaller than those of the rules, down to one warp,
so that small arrays are ragged over several. test_instructions_simulated.py has the instructions one by one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from cuts import thirds
from kernel_harness import Output, double, normal
from tensor_cases import case, rounded

from gpucnn.device import Device, simulated
from gpucnn.ops import cpu
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.conv import tensor
from gpucnn_kernels.conv.tiled import gathering, summing
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32
from gpucnn_kernels.dense import tensor as dense_tensor
from gpucnn_kernels.dense import tiled
from gpucnn_kernels.tensor.groups import GroupTile
from gpucnn_kernels.tensor.matrices import MatrixTile
from gpucnn_kernels.tensor.product import TensorTile
from gpucnn_kernels.tensor.warps import WarpTile
from gpucnn_kernels.tensor.warps_grad import WarpGradTile
from gpucnn_kernels.tensor.weight_grad import TensorGradTile
from tolerances import check

pytestmark = [
    pytest.mark.skipif(not simulated(), reason="the same kernels on a GPU: tests/kernels/gpu/test_tensor_*"),
    pytest.mark.usefixtures("short_sums"),
]

SHAPES = {  # images, channels, size, filters, kernel, stride, padding, dilation, groups
    "stride": (1, 3, (5, 4), 5, (3, 2), (2, 1), 1, 1, 1),
    "many-filters": (3, 18, (3, 3), 37, (1, 1), 1, 0, 1, 1),
    "groups": (2, 4, (5, 5), 6, (2, 2), 1, ((0, 1), (2, 0)), 2, 2),
    "fours": (2, 5, (4, 6), 7, (3, 3), 1, 1, 1, 1),  # positions by fours
    "whole": (1, 32, (3, 7), 8, (1, 1), 1, 0, 1, 1),
}
LONG = {"long": (5, 70, (4, 5), 8, (1, 1), 1, 0, 1, 1)}  # sums of more blocks than there are stages
DENSE = {"fours": (18, 20, 24), "odd": (19, 21, 9), "two-tiles": (131, 17, 5), "long": (12, 260, 8)}  # rows, inputs, outputs
NAME = "mma128x64"  # that of a variant, which what is chosen must have


def forward_and_input_grad(device: Device, name: str, tile: Any, part: Any) -> None:
    """With bias, ReLU and its mask; in TF32 and bfloat16 what comes out is what factors give that were rounded beforehand."""
    window, groups, x, weight, bias, dy = case(name, SHAPES | LONG)
    y, dx = Output(device, dy.shape), Output(device, x.shape)
    variants, sizes = gathering(NAME, tile, 1.0, part), (x.shape[0], x.shape[1], len(weight), window, groups, tile.bits)
    chosen = {each: select.choice(variants[each], getattr(problems, each)(*sizes)) for each in ("conv2d", "conv2d_input_grad")}
    with select.override(chosen):
        device.ops.conv2d(*map(device.array, (x, weight, bias)), window, groups, relu=True, out=y.array, bits=tile.bits)
        device.ops.conv2d_input_grad(*map(device.array, (dy, weight)), window, groups, relu=device.array(x), out=dx.array, bits=tile.bits)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return cpu.conv2d(x, weight, bias, window, groups, relu=True)

    def backward(dy: Any, weight: Any) -> Any:
        return cpu.conv2d_input_grad(dy, weight, window, groups, relu=double(x))

    factor = functools.partial(rounded, bits=tile.bits)
    for got, operation, arrays, terms, direction in (
        (y, forward, (factor(x), factor(weight), double(bias)), weight[0].size, "forward"),
        (dx, backward, (factor(dy), factor(weight)), weight.size // x.shape[1], "input_grad"),
    ):
        check(got.result(), operation(*arrays), magnitude=operation(*map(np.abs, arrays)), terms=terms, direction=direction)


def weight_grad(device: Device, name: str, tile: Any, part: Any, slices: int) -> None:
    """With the gradient of the bias, whose sums are those of float32 in the other modes as well."""
    window, groups, x, weight, bias, dy = case(name, SHAPES | LONG)
    problem = problems.conv2d_weight_grad(x.shape[0], x.shape[1], len(weight), window, groups, tile.bits)
    choice = select.choice(summing(NAME, tile, 1.0, part, True)["conv2d_weight_grad"], problem, slices)
    dweight, dbias = Output(device, weight.shape), Output(device, bias.shape)
    with select.override(conv2d_weight_grad=choice):
        device.ops.conv2d_weight_grad(
            device.array(dy), device.array(x), window, groups, out=dweight.array, dbias=dbias.array, bits=tile.bits
        )
    terms, wide, factor = dy.size // len(weight), double(dy), functools.partial(rounded, bits=tile.bits)
    expected, magnitude = (cpu.conv2d_weight_grad(*map(f, map(factor, (dy, x))), window, groups) for f in (np.asarray, np.abs))
    check(dweight.result(), expected, magnitude=magnitude, terms=terms, direction="weight_grad")
    check(dbias.result(), cpu.bias_grad(wide), magnitude=cpu.bias_grad(np.abs(wide)), terms=terms, direction="weight_grad")


class ShortWarpTile(WarpTile):
    stages = 3


class ShortTensorTile(TensorTile):
    stages = 2


class ShortTensorGradTile(TensorGradTile):
    stages = 2


IN_THIRDS = functools.partial(tensor.gather, cut_of=thirds)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stride", "many-filters", "groups", "long"])
def test_sums_that_are_cut(device: Device, name: str) -> None:
    forward_and_input_grad(device, name, TensorTile(32), IN_THIRDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tile", "part"),
    [(ShortWarpTile(16, BM=32, WM=32, WN=16), tensor.gather_by_warps), (ShortTensorTile(32), tensor.gather)],
    ids=["warps", "hopper"],
)
def test_stages_are_used_again_in_turn(device: Device, tile: Any, part: Any) -> None:
    forward_and_input_grad(device, "long", tile, part)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tile", "part"), [(WarpGradTile(), tensor.total_by_warps), (ShortTensorGradTile(32), tensor.total)], ids=["warps", "hopper"]
)
def test_stages_are_used_again_in_turn_for_the_gradient_of_the_weight(device: Device, tile: Any, part: Any) -> None:
    weight_grad(device, "long", tile, part, 1)


def cases(quick: tuple[Any, ...], others: list[tuple[Any, ...]]) -> list[Any]:
    """One that takes less than two seconds, and those for make slow."""
    return [quick, *(pytest.param(*other, marks=pytest.mark.slow) for other in others)]


@pytest.mark.parametrize(
    ("name", "BN", "bits"),
    cases(
        ("stride", 16, FLOAT32),
        [
            ("stride", 16, BFLOAT16),
            ("many-filters", 32, FLOAT32),
            ("many-filters", 32, TF32),
            ("many-filters", 32, BFLOAT16),
            ("groups", 16, FLOAT32),
            ("groups", 16, TF32),
        ],
    ),
)
def test_forward_and_input_grad_by_warps(device: Device, name: str, BN: int, bits: int) -> None:
    forward_and_input_grad(device, name, WarpTile(BN, bits, BM=32, WM=32, WN=16), tensor.gather_by_warps)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [FLOAT32, TF32, BFLOAT16])
def test_forward_and_input_grad_by_warps_of_the_real_tile(device: Device, bits: int) -> None:
    forward_and_input_grad(device, "many-filters", WarpTile(bits=bits), tensor.gather_by_warps)


@pytest.mark.parametrize(
    ("name", "slices", "bits"),
    cases(
        ("stride", 1, FLOAT32),
        [("stride", 1, TF32), ("stride", 1, BFLOAT16), ("groups", 2, FLOAT32), ("groups", 2, TF32), ("groups", 2, BFLOAT16)],
    ),
)
def test_weight_grad_by_warps(device: Device, name: str, slices: int, bits: int) -> None:
    weight_grad(device, name, WarpGradTile(bits), tensor.total_by_warps, slices)


@pytest.mark.parametrize(
    ("name", "BN", "bits"),
    cases(
        ("whole", 32, FLOAT32),
        [("whole", 32, TF32), ("many-filters", 32, FLOAT32), ("stride", 64, TF32), ("whole", 128, FLOAT32), ("whole", 32, BFLOAT16)],
    ),
)
def test_forward_and_input_grad_on_hopper(device: Device, name: str, BN: int, bits: int) -> None:
    forward_and_input_grad(device, name, TensorTile(BN, bits), tensor.gather)


@pytest.mark.parametrize(
    ("name", "BN", "slices", "bits"),
    cases(
        ("stride", 32, 1, FLOAT32),
        [
            ("stride", 64, 1, TF32),
            ("groups", 32, 2, FLOAT32),
            ("groups", 32, 2, TF32),
            ("fours", 128, 1, FLOAT32),
            ("fours", 32, 1, TF32),
            ("stride", 32, 1, BFLOAT16),
            ("fours", 32, 1, BFLOAT16),
        ],
    ),
)
def test_weight_grad_on_hopper(device: Device, name: str, BN: int, slices: int, bits: int) -> None:
    weight_grad(device, name, TensorGradTile(BN, bits), tensor.total, slices)


@pytest.mark.parametrize(
    ("name", "slices", "bits"),
    cases(
        ("odd", 1, FLOAT32),
        [("fours", 1, FLOAT32), ("two-tiles", 2, FLOAT32), ("fours", 2, TF32), ("fours", 1, BFLOAT16), ("odd", 2, BFLOAT16)],
    ),
)
def test_dense_layers_by_warps(device: Device, name: str, slices: int, bits: int) -> None:
    dense_layer(device, name, MatrixTile(bits), dense_tensor.multiply, slices)


@pytest.mark.parametrize(
    ("name", "rows", "slices", "bits"),
    cases(
        ("fours", 64, 1, FLOAT32),
        [
            ("odd", 64, 1, FLOAT32),
            ("fours", 64, 1, BFLOAT16),
            ("odd", 64, 2, BFLOAT16),
            ("two-tiles", 64, 2, TF32),
            ("two-tiles", 128, 1, FLOAT32),
            ("long", 64, 2, FLOAT32),
            ("long", 128, 1, BFLOAT16),
        ],
    ),
)
def test_dense_layers_on_hopper(device: Device, name: str, rows: int, slices: int, bits: int) -> None:
    dense_layer(device, name, GroupTile(rows, bits), dense_tensor.multiply_by_groups, slices)


def dense_layer(device: Device, name: str, tile: Any, make: Any, slices: int) -> None:
    """All three products, with bias, ReLU, its mask, and the gradient of the bias."""
    bits, (n, c, k) = tile.bits, DENSE[name]
    x, weight, bias, dy = np.maximum(normal(1, n, c), 0), normal(2, k, c), normal(3, k), normal(4, n, k)
    y, dx, dweight, dbias = (Output(device, shape) for shape in ((n, k), (n, c), (k, c), (k,)))
    how = {"tile": tile, "make": make, "slices": slices}

    def space(*sizes: int) -> Any:
        return device.xp.full(tiled.workspace_size(sizes, tile, slices, make), np.nan, "float32")

    tiled.dense(x, weight, bias, y.array, True, workspace=space(n, k, c), **how)
    tiled.dense_input_grad(dy, weight, dx.array, relu=x, workspace=space(n, c, k), **how)
    tiled.dense_weight_grad(dy, x, dweight.array, dbias=dbias.array, workspace=space(k, c, n), **how)
    factor = functools.partial(rounded, bits=bits)
    for got, run, arrays, terms, direction in (
        (y, lambda *of: cpu.dense(*of, relu=True), (factor(x), factor(weight), double(bias)), c, "forward"),
        (dx, lambda *of: cpu.dense_input_grad(*of, relu=double(x)), (factor(dy), factor(weight)), k, "input_grad"),
        (dweight, cpu.dense_weight_grad, (factor(dy), factor(x)), n, "weight_grad"),
        (dbias, cpu.bias_grad, (double(dy),), n, "weight_grad"),
    ):
        check(got.result(), run(*arrays), magnitude=run(*map(np.abs, arrays)), terms=terms, direction=direction)
