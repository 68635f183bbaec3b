"""Sizes and padding of windows: brute force, PyTorch and TensorFlow's written rule as oracles; then everything that is refused."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucnn.errors import ShapeError
from gpucnn.ops import shapes
from gpucnn.ops.shapes import conv_window, normalize_padding, pool_window, resolve_padding

sizes = st.integers(1, 12)
small = st.integers(1, 5)


def positions(padded: int, extent: int, stride: int) -> int:
    """The number of places at which a window of `extent` fits, counted one by one."""
    return sum(1 for start in range(0, padded, stride) if start + extent <= padded)


@pytest.mark.parametrize("size", range(1, 13))
@pytest.mark.parametrize("stride", range(1, 5))
def test_same_gives_ceil_of_size_over_stride_with_the_least_padding_and_the_odd_pixel_last(size: int, stride: int) -> None:
    for kernel in range(1, 6):
        for dilation in range(1, 4):
            window = conv_window((size, 3), (kernel, 1), (stride, 1), "same", (dilation, 1))
            (top, bottom), sides = window.padding
            extent = dilation * (kernel - 1) + 1
            outputs = math.ceil(size / stride)
            assert window.output == (outputs, 3)
            assert sides == (0, 0)
            # The least total with which `outputs` windows fit, found by trying.
            least = next(total for total in range(100) if positions(size + total, extent, stride) >= outputs)
            assert top + bottom == least
            assert bottom - top in (0, 1)
            assert window.same


def test_same_pads_each_axis_by_its_own_size_stride_and_dilation() -> None:
    window = conv_window((7, 10), (3, 4), (2, 3), "same", (2, 1))
    assert window.output == (4, 4)
    assert window.padding == ((2, 2), (1, 2))  # 3·2 + 5 − 7 = 4; 3·3 + 4 − 10 = 3, the odd one on the right


@given(sizes, sizes, small, small, small, small, st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_convolution_has_an_output_wherever_the_kernel_fits(
    h: int, w: int, r: int, s: int, sh: int, sw: int, top: int, bottom: int, d: int
) -> None:
    padded, extent = h + top + bottom, d * (r - 1) + 1
    if extent > padded or d * (s - 1) + 1 > w:
        with pytest.raises(ShapeError):
            conv_window((h, w), (r, s), (sh, sw), ((top, bottom), (0, 0)), d)
        return
    window = conv_window((h, w), (r, s), (sh, sw), ((top, bottom), (0, 0)), d)
    assert window.output == (positions(padded, extent, sh), positions(w, d * (s - 1) + 1, sw))
    assert window.padding == ((top, bottom), (0, 0))
    assert window.extent == (extent, d * (s - 1) + 1)
    assert not window.same


def test_convolution_sizes_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    for size, kernel, stride, padding, dilation in [(7, 3, 2, 1, 1), (8, 3, 3, 0, 2), (5, 5, 1, 2, 1), (9, 2, 4, 3, 3), (6, 1, 2, 0, 1)]:
        expected = torch.nn.functional.conv2d(
            torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel), stride=stride, padding=padding, dilation=dilation
        ).shape[2:]
        assert conv_window((size, size), kernel, stride, padding, dilation).output == tuple(expected)


def test_pooling_sizes_are_pytorchs_with_and_without_ceil_mode() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    compared = 0
    for size in range(1, 9):
        for kernel in range(1, 5):
            for stride in range(1, 5):
                for padding in range(kernel // 2 + 1):
                    for dilation in (1, 2, 3):
                        for ceil_mode in (False, True):
                            image = torch.arange(float(size)).reshape(1, 1, size, 1)
                            try:
                                expected = torch.nn.functional.max_pool2d(
                                    image, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), ceil_mode=ceil_mode
                                )
                            except RuntimeError:
                                expected = None
                            try:
                                window = pool_window((size, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), ceil_mode)
                            except ShapeError as error:
                                # PyTorch gives −inf where a window holds padding only; this library refuses such windows.
                                assert expected is None or ("nothing but padding" in str(error) and torch.isinf(expected).any())
                                continue
                            assert expected is not None
                            assert window.output == tuple(expected.shape[2:])
                            compared += 1
    assert compared > 700


def test_ceil_mode_keeps_an_overhanging_window_and_drops_one_that_starts_in_the_end_padding() -> None:
    assert pool_window((5, 5), 2, 2).output == (2, 2)
    assert pool_window((5, 5), 2, 2, ceil_mode=True).output == (3, 3)
    assert pool_window((4, 4), 2, 3, 1).output == (2, 2)
    # ceil((4 + 2 − 2) / 3) + 1 = 3, but the third would start at row 6 − 1 = 5, past the image of 4.
    assert pool_window((4, 4), 2, 3, 1, ceil_mode=True).output == (2, 2)


def test_ceil_mode_gives_same_no_window_too_many() -> None:
    for size in range(1, 12):
        for kernel in range(1, 4):
            for stride in range(1, 6):
                window = pool_window((size, size), kernel, stride, "same", ceil_mode=True)
                assert window.output == (math.ceil(size / stride),) * 2


def test_stride_of_pooling_is_the_window_unless_given() -> None:
    assert pool_window((6, 9), (2, 3)).stride == (2, 3)
    assert pool_window((6, 9), (2, 3), 1).stride == (1, 1)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (1, ((1, 1), (1, 1))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),  # as it comes back from JSON
        ((1, (3, 4)), None),
        ("valid", "valid"),
        ("same", "same"),
        (np.int64(2), ((2, 2), (2, 2))),
    ],
)
def test_padding_is_understood_in_every_form(padding: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(ShapeError, match="padding must be"):
            normalize_padding(padding)
    else:
        assert normalize_padding(padding) == expected


def test_valid_is_no_padding() -> None:
    assert resolve_padding("valid", (5, 5), (3, 3), (1, 1), (1, 1)) == ((0, 0), (0, 0))
    assert conv_window((5, 6), 3, padding="valid").output == (3, 4)


@pytest.mark.parametrize("make", [conv_window, pool_window])
@pytest.mark.parametrize("argument", ["kernel", "stride", "dilation"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ShapeError),
        (-1, ShapeError),
        ((2, 0), ShapeError),
        ((1, 2, 3), ShapeError),
        (1.5, TypeError),
        (2.0, TypeError),
        (True, TypeError),
        ("2", TypeError),
        (np.bool_(True), TypeError),
        ((1, 2.0), TypeError),
        (np.array([2, 2]), TypeError),
    ],
)
def test_what_is_no_positive_whole_number_is_refused_and_named(make: Any, argument: str, value: Any, error: type[Exception]) -> None:
    arguments = {"kernel": 2, "stride": 1, "dilation": 1, argument: value}
    with pytest.raises(error) as caught:
        make((8, 8), **arguments)
    message = str(caught.value)
    assert {"kernel": "kernel size" if make is conv_window else "pooling window"}.get(argument, argument) in message
    shown = value[1] if isinstance(value, tuple) and len(value) == 2 else value
    assert str(shown) in message or repr(shown) in message
    assert "at least 1" in message or "integer" in message


@pytest.mark.parametrize("make", [conv_window, pool_window])
@pytest.mark.parametrize(
    ("padding", "error", "named"),
    [
        (-1, ShapeError, "-1"),
        ((0, -2), ShapeError, "-2"),
        (0.5, TypeError, "0.5"),
        (True, TypeError, "True"),
        ("sane", ShapeError, "'sane'"),
        ("full", ShapeError, "'full'"),
        ((1, 2, 3), ShapeError, "(1, 2, 3)"),
        (("same", "valid"), ShapeError, "'same'"),
        (((1, 2), (3, 4), (5, 6)), ShapeError, "(5, 6)"),
        (((1,), (2, 2)), ShapeError, "(1,)"),
        ((), ShapeError, "()"),
        (None, TypeError, "None"),
    ],
)
def test_padding_that_means_nothing_is_refused_and_named(make: Any, padding: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error) as caught:
        make((8, 8), 3, 1, padding)
    assert named in str(caught.value)
    assert "padding" in str(caught.value)


def test_a_kernel_larger_than_the_padded_image_is_refused_with_both_sizes() -> None:
    with pytest.raises(ShapeError, match=r"kernel is 9 pixels high \(size 5, dilation 2\) and the padded image only 8"):
        conv_window((6, 20), 5, 1, 1, 2)
    with pytest.raises(ShapeError, match=r"pooling window is 3 pixels wide and the padded image only 2"):
        pool_window((5, 2), 3, 3)


def test_ceil_mode_takes_an_image_smaller_than_the_window_only_as_far_as_pytorch_does() -> None:
    assert pool_window((2, 2), 3, 2, ceil_mode=True).output == (1, 1)
    with pytest.raises(ShapeError, match="pooling window is 3 pixels high and the padded image only 2"):
        pool_window((2, 2), 3, 1, ceil_mode=True)


def test_padding_over_half_of_a_pooling_window_is_refused() -> None:
    assert pool_window((8, 8), 4, 2, 2).output == (5, 5)
    with pytest.raises(ShapeError, match=r"padding 2 is over half of a pooling window 3 high: at most 1 is allowed"):
        pool_window((8, 8), 3, 2, 2)
    with pytest.raises(ShapeError, match=r"padding 2 is over half of a pooling window 3 wide"):
        pool_window((8, 8), 3, 2, ((0, 0), (0, 2)))


def test_a_pooling_window_with_nothing_but_padding_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"pooling window 0 of 1 \(high\) would hold nothing but padding: image 1, window 2, .*dilation 2"):
        pool_window((1, 4), 2, 1, (1, 0), (2, 1))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (5,), (-1, 2), (5.0, 5)])
def test_images_without_pixels_are_refused(size: Any) -> None:
    with pytest.raises((ShapeError, TypeError), match="image size"):
        conv_window(size, 1)


def test_a_window_holds_plain_numbers_and_compares_by_value() -> None:
    window = conv_window((np.int64(5), np.int64(5)), np.int32(3), np.int64(1), np.int64(1))
    assert window == conv_window((5, 5), 3, 1, 1)
    assert all(type(number) is int for pair in (window.input, window.kernel, window.stride, window.output) for number in pair)
    assert hash(window) == hash(conv_window((5, 5), 3, 1, 1))


def brute(size: int, k: int, s: int, d: int, begin: int, count: int) -> int | None:
    for position in range(count):
        if not any(0 <= position * s - begin + tap * d < size for tap in range(k)):
            return position
    return None


def test_windows_of_nothing_but_padding_are_found_by_a_formula() -> None:
    for numbers in itertools.product(range(1, 5), range(1, 5), range(1, 5), range(1, 8), range(12), range(1, 6)):
        assert shapes._padding_alone(*numbers) == brute(*numbers), numbers


@pytest.mark.parametrize(
    ("image", "kernel", "stride", "dilation"),
    [(2**31 - 2, 2, 1, 1), (2**30, 2, 1, 2**20), (10**9, 3, 7, 10**6), (2**30, 2, 1, 2**30 - 1), (1, 2**30, 1, 1)],
)
def test_sizes_of_any_length_cost_no_time(image: int, kernel: int, stride: int, dilation: int) -> None:
    started = time.process_time()
    with contextlib.suppress(ShapeError):
        pool_window((1, image), (1, kernel), (1, stride), "same", (1, dilation), True)
    with contextlib.suppress(ShapeError):
        conv_window((1, image), (1, kernel), (1, stride), "same", (1, dilation))
    assert time.process_time() - started < 1


@pytest.mark.parametrize("name", ["input", "kernel", "stride", "dilation", "padding"])
def test_sizes_that_the_kernels_cannot_count_are_refused(name: str) -> None:
    numbers: dict[str, Any] = {"input": (4, 4), "kernel": 2, "stride": 1, "padding": 1, "dilation": 1} | {name: 2**31}
    for window in (conv_window, pool_window):
        with pytest.raises(ShapeError, match=r"2³¹|over half of a pooling window"):
            window(**numbers)


def test_the_longest_side_is_just_under_two_to_the_31() -> None:
    """However it is made up of image and padding: sums that share no bit, and sums that do."""
    most = 2**31 - 1
    assert conv_window((most, 1), 1).output == (most, 1)
    for size, begin, end in ((1, 2**30, 2**30 - 2), (2**30, 2**30 - 1, 0), (2**30 - 1, 2**30 - 1, 1), (5, 0, most - 5)):
        assert conv_window((size, 1), 1, padding=((begin, end), (0, 0))).output == (most, 1)
        assert conv_window((1, size), 1, padding=((0, 0), (begin, end))).output == (1, most)
    for size, begin, end in ((1, 2**30, 2**30 - 1), (2**30, 2**30, 0), (2**30 + 1, 1, 2**30 - 1), (most, 0, 1), (most, most, most)):
        for padding, image in ((((begin, end), (0, 0)), (size, 1)), (((0, 0), (begin, end)), (1, size))):
            with pytest.raises(ShapeError, match="over 2³¹ pixels"):
                conv_window(image, 1, padding=padding)
    for size in (most + 1, most + 2, 2**40):
        with pytest.raises(ShapeError, match="image size must be below"):
            conv_window((1, size), 1)


def test_a_window_made_by_hand_was_not_padded_to_the_same_size() -> None:
    assert shapes.Window((4, 4), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), (2, 2)) == pool_window((4, 4), 2)
