"""Convolutions of few channels for the tests of their kernels: named ones, and any that are legal."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from kernel_harness import normal

from gpucnn.errors import ShapeError
from gpucnn.ops.shapes import Window, conv_window


class Case:
    """Images (n, c, *hw), k filters of rs; the rest as the window takes it."""

    def __init__(self, n: int, c: int, hw: tuple[int, int], k: int, rs: tuple[int, int], *, like: int = 0, **window: Any) -> None:
        self.window: Window = conv_window(hw, rs, **window)
        self.x = normal(like, n, c, *hw)
        self.weight = normal(like + 1, k, c, *rs)
        self.bias = normal(like + 2, k)
        self.dy = normal(like + 3, n, k, *self.window.output)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Images, channels, filters."""
        return self.x.shape[0], self.x.shape[1], self.weight.shape[0]


CASES = {
    "one": lambda: Case(1, 1, (1, 1), 1, (1, 1)),
    "one-pixel-padded": lambda: Case(2, 2, (1, 1), 3, (3, 3), padding=1),
    "first-layer": lambda: Case(2, 1, (8, 8), 3, (5, 5), padding="same"),
    "valid": lambda: Case(1, 1, (9, 9), 8, (3, 3)),
    "primes": lambda: Case(1, 2, (13, 11), 2, (5, 3), padding=(2, 3), stride=(3, 1)),
    "same-stride": lambda: Case(2, 4, (11, 13), 3, (3, 3), padding="same", stride=2),
    "same-even": lambda: Case(1, 2, (6, 8), 9, (3, 2), padding="same", stride=2),
    "stride-over-kernel": lambda: Case(1, 2, (11, 7), 3, (2, 1), stride=(3, 2)),
    "dilation": lambda: Case(1, 4, (9, 8), 2, (2, 3), dilation=(3, 2), padding=(1, 2)),
    "dilation-stride": lambda: Case(1, 1, (10, 9), 6, (3, 2), dilation=2, stride=(2, 3), padding=((1, 2), (0, 1))),
    "asymmetric": lambda: Case(2, 1, (5, 6), 4, (3, 4), padding=((2, 0), (0, 3)), stride=(1, 2)),
    "padding-over-kernel": lambda: Case(1, 1, (2, 3), 7, (1, 1), padding=3, stride=2),
}


# A window is a kernel, and takes seconds to compile. The simulator has them all. What is compiled: four channels and one, few filters and
# more than a thread has, strides, dilation, uneven padding, outputs of padding alone. Other tests take these as well where any would do.
QUICK = ("same-stride", "dilation-stride", "padding-over-kernel")


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    side = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.one_of(st.just("same"), st.just("valid"), st.tuples(side, side)))
    hw, rs, stride, dilation = draw(st.tuples(st.integers(1, 9), st.integers(1, 9))), draw(pairs), draw(pairs), draw(pairs)
    n, c, k = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    try:
        return Case(n, c, hw, k, rs, padding=padding, stride=stride, dilation=dilation)
    except ShapeError:  # the kernel does not fit
        return Case(n, c, hw, k, (1, 1), padding=padding, stride=stride)
