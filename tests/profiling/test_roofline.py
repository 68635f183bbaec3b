"""Ceilings, verdicts and advice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpucnn.profiling.records import Ceilings, Profile, Row, Step
from gpucnn.profiling.what import roofline
from gpucnn.profiling.what.work import Work

CEILINGS = Ceilings(bandwidth=1e12, flops=1e13, launch=2e-6, source="")


@pytest.mark.parametrize(
    ("flops", "moved", "seconds", "wall"),
    [
        (10**10, 10**6, 1e-3, "compute"),
        (10**6, 10**9, 1e-3, "memory"),
        (10**6, 10**5, 1e-7, "launch"),
        (0, 0, 0, "launch"),
        (10**9, 10**8, 1e-4, "compute"),  # at the knee itself
    ],
)
def test_the_slower_of_two_ceilings_decides(flops: int, moved: int, seconds: float, wall: str) -> None:
    assert roofline.seconds(Work(flops, moved), CEILINGS) == pytest.approx(seconds)
    assert roofline.wall(Work(flops, moved), CEILINGS) == wall


def test_the_knee_is_where_they_meet() -> None:
    assert roofline.knee(CEILINGS) == 10
    assert roofline.seconds(Work(10**9, 10**8), CEILINGS) == pytest.approx(1e9 / CEILINGS.flops)


def test_the_largest_gain_comes_first(recorded: Profile) -> None:
    lines = roofline.advice(recorded)
    assert lines[0].startswith("conv2d (conv2d_1, forward) takes 36 % of the step at 50 % of its roofline (compute)")
    assert "18 % shorter" in lines[0]
    assert "conv2d_weight_grad" in lines[1]
    assert any("14 % of the step no kernel runs" in line for line in lines)


def test_a_launch_is_no_gain(make_row: Callable[..., Row], make_profile: Callable[..., Profile]) -> None:
    """A kernel that has next to nothing to do, and takes as long as a launch does, cannot be improved by a better kernel."""
    tiny = make_row(flops=10, bytes=10, roofline=1e-12, wall="launch", time=None)
    assert roofline.to_gain(tiny, CEILINGS) == 0
    perfect = make_profile(rows=[make_row(roofline=2e-4)], step=Step(kernels=2e-4))
    assert roofline.advice(perfect) == ["nothing stands out: no kernel is far from its roofline and takes much of the step"]


def test_bounds_say_what_the_compiler_found(bounds: Profile) -> None:
    lines = roofline.advice(bounds)
    assert lines[0] == "pack (conv2d_1, forward) spills 8 bytes of registers to memory"
    assert "its 196 blocks fill 50 % of the chip" in lines[1]
