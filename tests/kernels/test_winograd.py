"""Winograd's kernel without a GPU: the transforms that it is made of, and that the rules never choose what no chip has confirmed."""

from __future__ import annotations

import numpy as np
import pytest
from winograd_cases import MATRICES

from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv.winograd_ends import WinogradTile
from gpucnn_kernels.conv.winograd_loop import winograd_kernel

BOTH = (problems.conv2d, problems.conv2d_input_grad)


def test_the_transforms_are_a_convolution() -> None:
    """Of whole numbers, in which nothing is rounded."""
    bt, g, at = MATRICES
    random = np.random.default_rng(0)
    d, k = random.integers(-9, 10, (4, 4)), random.integers(-9, 10, (3, 3))
    y = at @ ((g @ k @ g.T) * (bt @ d @ bt.T)) @ at.T
    np.testing.assert_array_equal(y, [[(d[i : i + 3, j : j + 3] * k).sum() for j in range(2)] for i in range(2)])


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 0)])
def test_it_comes_by_its_name_alone(make: type, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_TUNED", "none")
    problem = make(256, 64, 128, conv_window((32, 32), 3, 1, 1))
    with select.for_chip(108, capability=capability):
        assert "winograd" in select.variants(problem) and select.choose(problem).name != "winograd"
        choice = select.choose(problem, "winograd")
        assert choice.name == "winograd" and choice.workspace == 16 * 64 * 128
        found = next(variant for variant in VARIANTS[problem.operation] if variant.name == "winograd")
        assert found.weigh(problem, select.current_chip()) == (0, 1), "a chip's confirmation is a number in conv/winograd.py"


@pytest.mark.parametrize(
    ("sizes", "window", "groups", "there"),
    [
        ((8, 8), (3, 1, 1), 1, True),
        ((7, 8), (3, 1, 1), 1, False),
        ((8, 7), (3, 1, 1), 1, False),
        ((8, 8), (5, 1, 1), 1, False),
        ((8, 8), (3, 2, 1), 1, False),
        ((8, 8), (3, 1, 2), 1, False),
        ((16, 16), (3, 1, 1), 2, False),
    ],
)
def test_what_it_is_for(sizes: tuple[int, int], window: tuple[int, int, int], groups: int, there: bool) -> None:
    (kernel, stride, dilation), (c, k) = window, sizes
    with select.for_chip(108, capability=(8, 0)):
        for make in BOTH:
            problem = make(2, c, k, conv_window((9, 9), kernel, stride, 0, dilation), groups)
            assert ("winograd" in select.variants(problem)) == there


@pytest.mark.parametrize("tile", [WinogradTile(32, 64, 8), WinogradTile(16, 64, 8), WinogradTile(4, 4, 1, 2, 4)])
def test_tiles_that_do_not_come_out_are_refused(tile: WinogradTile) -> None:
    with pytest.raises(ValueError, match="not a tile that this kernel can do"):
        winograd_kernel(tile)
