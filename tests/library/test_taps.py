"""Which outputs a tap of a window serves, and which pixels it reads for them: counted one by one."""

from __future__ import annotations

import itertools

import pytest

from gpucnn.ops.cpu._taps import covers_all, taps
from gpucnn.ops.shapes import Window


def windows() -> list[Window]:
    """Everything small on one axis, with something else on the other one; outputs as many as fit, one fewer, and one that hangs over."""
    found = []
    for size, k, stride, begin, end, dilation in itertools.product((1, 2, 5, 6), (1, 2, 3), (1, 2, 3), (0, 1, 3), (0, 2), (1, 2, 4)):
        fit = (size + begin + end - dilation * (k - 1) - 1) // stride + 1
        for count in {max(1, fit - 1), max(1, fit), max(1, fit) + 1}:
            found.append(Window((size, 4), (k, 2), (stride, 2), ((begin, end), (1, 0)), (dilation, 1), (count, 2)))
            found.append(Window((3, size), (2, k), (1, stride), ((0, 0), (begin, end)), (1, dilation), (2, count)))
    return found


def reads(window: Window, axis: int, tap: int) -> list[tuple[int, int]]:
    """(output, pixel) on an axis, with the pixels outside of the image."""
    step, begin = window.stride[axis], window.padding[axis][0]
    return [(place, place * step - begin + tap * window.dilation[axis]) for place in range(window.output[axis])]


def inside(window: Window, axis: int, tap: int) -> list[tuple[int, int]]:
    return [(place, pixel) for place, pixel in reads(window, axis, tap) if 0 <= pixel < window.input[axis]]


@pytest.mark.parametrize("part", range(4))
def test_a_tap_reads_its_pixel_for_each_output_that_it_has_one_for(part: int) -> None:
    for window in windows()[part::4]:
        expected = {}
        for r, s in itertools.product(range(window.kernel[0]), range(window.kernel[1])):
            rows, columns = inside(window, 0, r), inside(window, 1, s)
            if rows and columns:
                expected[r, s] = rows, columns
        got = {}
        for tap in taps(window):
            pairs = []
            for axis in (0, 1):
                outputs, pixels = range(window.output[axis])[tap.into[axis]], range(window.input[axis])[tap.pixels[axis]]
                assert len(outputs) == len(pixels)
                assert tap.into[axis].stop <= window.output[axis] and tap.pixels[axis].stop <= window.input[axis]
                pairs.append(list(zip(outputs, pixels, strict=True)))
            got[tap.r, tap.s] = tuple(pairs)
        assert got == expected, window
        assert list(got) == list(expected)  # in row-major order: the first of equals wins a maximum


def test_a_window_covers_all_where_no_tap_reads_padding() -> None:
    answers = set()
    for window in windows():
        everything = all(reads(window, axis, tap) == inside(window, axis, tap) for axis in (0, 1) for tap in range(window.kernel[axis]))
        assert covers_all(window) == everything, window
        answers.add(everything)
    assert answers == {True, False}
