"""Convolution on the CPU and its two gradients: SciPy, float64 numerical gradients and PyTorch as oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

import gpucnn.functional as F
from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window

# float64 sums of fewer than a thousand products of values near one: 1000 · 2⁻⁵³ · √1000 leaves 1e-11 with room to spare.
CLOSE = {"rtol": 1e-10, "atol": 1e-11}

# n, c, h, w, k, r, s, stride, padding, dilation, groups
CASES: list[tuple[Any, ...]] = [
    (1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1),
    (2, 3, 5, 7, 4, 3, 2, 1, 0, 1, 1),
    (2, 3, 7, 5, 2, 3, 3, 2, 1, 1, 1),
    (3, 2, 6, 6, 2, 2, 2, 3, 0, 1, 1),  # stride over size: pixels that no window reads
    (1, 2, 7, 8, 3, 3, 2, (2, 3), (1, 2), (1, 2), 1),
    (2, 4, 6, 5, 6, 3, 3, 1, "same", 1, 2),
    (2, 3, 5, 6, 3, 2, 4, 2, "same", (2, 1), 3),  # depthwise
    (1, 2, 4, 5, 2, 3, 3, 1, ((0, 2), (3, 1)), 1, 1),  # asymmetric
    (1, 1, 2, 2, 1, 2, 2, 1, 3, 1, 1),  # padding over the kernel: outputs of padding alone
    (1, 1, 3, 3, 2, 2, 2, 1, 2, 3, 1),  # dilation over the image: taps that never touch it
    (9, 2, 4, 4, 3, 3, 3, 1, 1, 1, 1),  # more images than lanes
]


def slow_conv2d(x: Any, weight: Any, bias: Any, window: Any, groups: int) -> Any:
    """SciPy's correlate2d of one plane with one filter at a time: dilation by zeros between taps, stride by leaving rows out."""
    n, _c = x.shape[:2]
    k, per_group = weight.shape[:2]
    (sh, sw), (dh, dw), (p, q) = window.stride, window.dilation, window.output
    padded = np.pad(x, ((0, 0), (0, 0), *window.padding))
    y = np.zeros((n, k, p, q))
    for image in range(n):
        for filter in range(k):
            group = filter // (k // groups)
            for channel in range(per_group):
                spread = np.zeros(window.extent)
                spread[::dh, ::dw] = weight[filter, channel]
                full = correlate2d(padded[image, group * per_group + channel], spread, "valid")
                y[image, filter] += full[::sh, ::sw][:p, :q]
    return y if bias is None else y + bias[:, None, None]


def case_arrays(case: tuple[Any, ...], rng: np.random.Generator) -> tuple[Any, ...]:
    n, c, h, w, k, r, s, stride, padding, dilation, groups = case
    window = conv_window((h, w), (r, s), stride, padding, dilation)
    x = rng.normal(size=(n, c, h, w))
    weight = rng.normal(size=(k, c // groups, r, s))
    return x, weight, rng.normal(size=k), window, dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv2d_is_scipys(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    x, weight, bias, window, options = case_arrays(case, rng)
    expected = slow_conv2d(x, weight, bias, window, options["groups"])
    np.testing.assert_allclose(F.conv2d(x, weight, bias, **options), expected, **CLOSE)
    np.testing.assert_allclose(F.conv2d(x, weight, **options), slow_conv2d(x, weight, None, window, options["groups"]), **CLOSE)
    np.testing.assert_allclose(cpu.conv2d(x, weight, bias, window, options["groups"], relu=True), np.maximum(expected, 0), **CLOSE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv2d_gradients_are_the_numerical_ones(case: tuple[Any, ...], rng: np.random.Generator, numerical_gradient: Any) -> None:
    x, weight, _, window, options = case_arrays(case, rng)
    dy = rng.normal(size=(x.shape[0], weight.shape[0], *window.output))

    def objective() -> float:
        return float((slow_conv2d(x, weight, None, window, options["groups"]) * dy).sum())

    # Convolution is linear, so the differences have no error but rounding: about 1e-16 · 100 / 1e-3.
    np.testing.assert_allclose(
        F.conv2d_input_grad(dy, weight, x.shape, **options), numerical_gradient(objective, x, 1e-3), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(
        F.conv2d_weight_grad(dy, x, weight.shape, **options), numerical_gradient(objective, weight, 1e-3), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(cpu.bias_grad(dy), dy.sum(axis=(0, 2, 3)), **CLOSE)


@pytest.mark.parametrize("case", [case for case in CASES if not isinstance(case[8], tuple) or isinstance(case[8][0], int)], ids=str)
def test_conv2d_and_gradients_are_pytorchs(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    x, weight, bias, window, options = case_arrays(case, rng)
    # PyTorch pads both sides alike (and has no "same" with a stride): the padding is put into the image before.
    (top, bottom), (left, right) = window.padding
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    padded = torch.nn.functional.pad(tensors[0], (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, tensors[1], tensors[2], window.stride, 0, window.dilation, options["groups"])
    dy = rng.normal(size=y.shape)
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(F.conv2d(x, weight, bias, **options), y.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(F.conv2d_input_grad(dy, weight, x.shape, **options), tensors[0].grad.numpy(), **CLOSE)
    np.testing.assert_allclose(F.conv2d_weight_grad(dy, x, weight.shape, **options), tensors[1].grad.numpy(), **CLOSE)


@st.composite
def legal_convolutions(draw: st.DrawFn) -> tuple[Any, ...]:
    groups = draw(st.integers(1, 3))
    r, s, dh, dw = (draw(st.integers(1, 3)) for _ in range(4))
    top, bottom, left, right = (draw(st.integers(0, 3)) for _ in range(4))
    same = draw(st.booleans())
    least_h = 1 if same else max(1, dh * (r - 1) + 1 - top - bottom)
    least_w = 1 if same else max(1, dw * (s - 1) + 1 - left - right)
    padding = "same" if same else ((top, bottom), (left, right))
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n, c, k = draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    return n, c, draw(st.integers(least_h, 9)), draw(st.integers(least_w, 9)), k, r, s, stride, padding, (dh, dw), groups


@given(legal_convolutions(), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_any_legal_convolution_is_scipys_and_its_gradients_are_its_transposes(case: tuple[Any, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight, _bias, window, options = case_arrays(case, rng)
    y = F.conv2d(x, weight, **options)
    np.testing.assert_allclose(y, slow_conv2d(x, weight, None, window, options["groups"]), **CLOSE)
    # ⟨conv(x, w), dy⟩ = ⟨x, conv_input_gradᵀ⟩ = ⟨w, conv_weight_gradᵀ⟩ for every dy: a linear map and its transposes.
    dy = rng.normal(size=y.shape)
    product = (y * dy).sum()
    np.testing.assert_allclose((F.conv2d_input_grad(dy, weight, x.shape, **options) * x).sum(), product, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose((F.conv2d_weight_grad(dy, x, weight.shape, **options) * weight).sum(), product, rtol=1e-9, atol=1e-9)


def test_many_images_in_pieces_are_the_same_as_one_at_a_time(rng: np.random.Generator) -> None:
    x, weight = rng.normal(size=(21, 2, 6, 5)), rng.normal(size=(3, 2, 3, 3))
    dy = rng.normal(size=(21, 3, 6, 5))
    one = [F.conv2d(x[i : i + 1], weight, padding=1) for i in range(21)]
    np.testing.assert_allclose(F.conv2d(x, weight, padding=1), np.concatenate(one), **CLOSE)
    one = [F.conv2d_input_grad(dy[i : i + 1], weight, (1, 2, 6, 5), padding=1) for i in range(21)]
    np.testing.assert_allclose(F.conv2d_input_grad(dy, weight, x.shape, padding=1), np.concatenate(one), **CLOSE)
    total = sum(F.conv2d_weight_grad(dy[i : i + 1], x[i : i + 1], weight.shape, padding=1) for i in range(21))
    np.testing.assert_allclose(F.conv2d_weight_grad(dy, x, weight.shape, padding=1), total, **CLOSE)


def test_a_smaller_last_piece_reads_no_leftovers_of_the_one_before(rng: np.random.Generator) -> None:
    # 17 images in pieces of three leave a last piece of two; its padding must still be zero and its sizes its own.
    x, weight = rng.normal(size=(17, 1, 4, 4)) + 100, rng.normal(size=(2, 1, 3, 3))
    whole = F.conv2d(x, weight, padding=1)
    np.testing.assert_allclose(whole[15:], slow_conv2d(x[15:], weight, None, conv_window((4, 4), 3, 1, 1), 1), **CLOSE)


def test_outputs_are_written_where_out_says_whatever_was_there(rng: np.random.Generator) -> None:
    x, weight, bias = rng.normal(size=(2, 2, 5, 5)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)
    window = conv_window((5, 5), 3, 2, 1)
    dy = rng.normal(size=(2, 3, *window.output))
    for function, arguments in [
        (cpu.conv2d, (x, weight, bias, window)),
        (cpu.conv2d_input_grad, (dy, weight, window)),
        (cpu.conv2d_weight_grad, (dy, x, window)),
        (cpu.bias_grad, (dy,)),
    ]:
        expected = function(*arguments)
        out = np.full_like(expected, np.nan)
        assert function(*arguments, out=out) is out or np.shares_memory(function(*arguments, out=out), out)
        np.testing.assert_array_equal(out, expected)


def test_float32_stays_float32_and_is_close_to_float64(rng: np.random.Generator) -> None:
    x, weight, bias = rng.normal(size=(2, 8, 9, 9)), rng.normal(size=(4, 8, 3, 3)), rng.normal(size=4)
    small = [array.astype("float32") for array in (x, weight, bias)]
    y = F.conv2d(*small, padding=1)
    assert y.dtype == np.float32
    # 72 products: 72 · 2⁻²⁴ times the sum of their sizes, under 100.
    np.testing.assert_allclose(y, F.conv2d(x, weight, bias, padding=1), rtol=1e-5, atol=72 * 2**-24 * 10)
    assert F.conv2d_input_grad(y, small[1], x.shape, padding=1).dtype == np.float32
    assert F.conv2d_weight_grad(y, small[0], weight.shape, padding=1).dtype == np.float32


def test_arguments_are_left_as_they_are_and_need_not_be_contiguous(rng: np.random.Generator) -> None:
    x, weight = rng.normal(size=(5, 5, 2, 2)).transpose(3, 2, 0, 1), rng.normal(size=(3, 3, 2, 4)).transpose(3, 2, 1, 0)
    before = x.copy(), weight.copy()
    y = F.conv2d(x, weight)
    np.testing.assert_array_equal(y, F.conv2d(np.ascontiguousarray(x), np.ascontiguousarray(weight)))
    dy = rng.normal(size=y.shape)
    dy_before = dy.copy()
    F.conv2d_input_grad(dy, weight, x.shape)
    F.conv2d_weight_grad(dy, x, weight.shape)
    for array, old in ((x, before[0]), (weight, before[1]), (dy, dy_before)):
        np.testing.assert_array_equal(array, old)


def test_read_only_arguments_are_fine(rng: np.random.Generator) -> None:
    x, weight = rng.normal(size=(2, 1, 4, 4)), rng.normal(size=(1, 1, 3, 3))
    x.flags.writeable = weight.flags.writeable = False
    assert F.conv2d(x, weight, padding="same").shape == (2, 1, 4, 4)


def test_nan_reaches_only_the_outputs_whose_windows_hold_it() -> None:
    x = np.zeros((2, 1, 5, 5))
    x[0, 0, 0, 0] = np.nan
    y = F.conv2d(x, np.ones((1, 1, 2, 2)))
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isnan(y).sum() == 1


def test_relu_in_the_convolution_keeps_nan() -> None:
    y = cpu.conv2d(np.full((1, 1, 2, 2), np.nan), np.ones((1, 1, 1, 1)), None, conv_window((2, 2), 1), relu=True)
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("x", "weight", "options", "error", "message"),
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), {}, ShapeError, r"weight must be \(K, 3, R, S\) for 3 channels in 1 groups, got \(4, 2, 3, 3\)"),
        ((1, 3, 5, 5), (4, 3, 3, 3), {"groups": 2}, ShapeError, r"divisible by groups, got 3 channels, 4 filters, 2 groups"),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, ShapeError, r"divisible by groups, got 4 channels, 3 filters, 2 groups"),
        ((1, 1, 5, 5), (1, 1, 3, 3), {"groups": 0}, ArgumentError, r"groups must be at least 1, got 0"),
        ((1, 1, 5, 5), (1, 1, 3, 3), {"groups": -1}, ArgumentError, r"groups must be at least 1, got -1"),
        ((1, 1, 5, 5), (1, 1, 3, 3), {"groups": 1.0}, TypeError, r"groups must be an integer, got 1.0"),
        ((1, 1, 5, 5), (1, 1, 3, 3), {"groups": True}, TypeError, r"groups must be an integer, got True"),
        ((1, 5, 5), (1, 1, 3, 3), {}, ShapeError, r"x must have 4 axes, got shape \(1, 5, 5\)"),
        ((1, 1, 5, 5), (1, 3, 3), {}, ShapeError, r"weight must have 4 axes, got shape \(1, 3, 3\)"),
        ((0, 1, 5, 5), (1, 1, 3, 3), {}, ShapeError, r"x must not be empty, got shape \(0, 1, 5, 5\)"),
        ((1, 1, 5, 5), (0, 1, 3, 3), {}, ShapeError, r"weight must not be empty"),
        ((1, 1, 5, 5), (1, 1, 6, 3), {}, ShapeError, r"kernel is 6 pixels high .* padded image only 5"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x: Any, weight: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.conv2d(np.zeros(x), np.zeros(weight), **options)


def test_bias_and_gradients_of_wrong_shapes_are_refused() -> None:
    x, weight, dy = np.zeros((2, 1, 5, 5)), np.zeros((3, 1, 3, 3)), np.zeros((2, 3, 3, 3))
    with pytest.raises(ShapeError, match=r"bias must have one value for each of the 3 filters, got shape \(1,\)"):
        F.conv2d(x, weight, np.zeros(1))
    with pytest.raises(ShapeError, match=r"dy must have shape \(2, 3, 3, 3\), got \(2, 3, 3, 2\)"):
        F.conv2d_input_grad(dy[..., :2], weight, x.shape)
    with pytest.raises(ShapeError, match=r"dy must have shape \(2, 3, 3, 3\), got \(1, 3, 3, 3\)"):
        F.conv2d_weight_grad(dy[:1], x, weight.shape)
    with pytest.raises(ShapeError, match=r"input_shape must be \(N, C, H, W\), got \(5, 5\)"):
        F.conv2d_input_grad(dy, weight, (5, 5))
    with pytest.raises(ShapeError, match=r"weight_shape must be \(K, C/groups, R, S\), got 3"):
        F.conv2d_weight_grad(dy, x, 3)


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (np.zeros((1, 1, 3, 3), np.int64), np.zeros((1, 1, 3, 3), np.int64), "x must be float32 or float64, got int64"),
        (np.zeros((1, 1, 3, 3), np.float16), np.zeros((1, 1, 3, 3)), "x must be float32 or float64, got float16"),
        (np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 3, 3), np.float32), "one dtype, got weight as float32 and the others as float64"),
        ([["a"]], np.zeros((1, 1, 3, 3)), "x must be numbers, got <U1"),
    ],
)
def test_arrays_of_a_wrong_kind_are_refused(x: Any, weight: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        F.conv2d(x, weight)


@pytest.mark.parametrize("pieces", [1, 2, 7, 8, 9, 16, 17, 40])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient_of_a_weight_over_any_number_of_pieces(
    pieces: int, groups: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than eight pieces share eight sums, and a sum takes every eighth. In whole numbers, so that there is no rounding."""
    from gpucnn.ops.cpu import conv

    x = rng.integers(-9, 10, (40, 4, 6, 5)).astype(np.float64)
    dy = rng.integers(-9, 10, (40, 6, 4, 3)).astype(np.float64)
    window = conv_window((6, 5), (3, 3))
    one = 4 * 9 * 12  # elements of an unfolded image
    monkeypatch.setattr(conv, "_UNFOLDED", one * -(-40 // pieces))
    expected = np.zeros((6, 4 // groups, 3, 3))
    for k in range(6):
        first = k // (6 // groups) * (4 // groups)
        for r in range(3):
            for s in range(3):
                part = x[:, first : first + 4 // groups, r : r + 4, s : s + 3]
                expected[k, :, r, s] = (part * dy[:, k : k + 1]).sum(axis=(0, 2, 3))
    dbias, unfold, seen = np.empty(6), conv._unfold, []
    monkeypatch.setattr(conv, "_unfold", lambda x, *more: seen.append(len(x)) or unfold(x, *more))
    np.testing.assert_array_equal(conv.conv2d_weight_grad(dy, x, window, groups, dbias=dbias), expected)
    np.testing.assert_array_equal(dbias, dy.sum(axis=(0, 2, 3)))
    assert sum(seen) == 40 and min(seen) > 0 and len(seen) == -(-40 // min(-(-40 // pieces), 5)), "no piece without an image"


def test_lenet5x5_takes_more_than_eight_pieces() -> None:
    from gpucnn.ops.cpu.conv import _LANES, _images_at_a_time

    window = conv_window((14, 14), (5, 5), padding="same")
    assert -(-128 // _images_at_a_time(128, 32, window)) > _LANES


def test_how_much_work_a_convolution_is_and_how_many_images_go_at_a_time() -> None:
    from gpucnn.ops.cpu import conv

    window = conv_window((6, 5), (3, 2), (1, 2))  # 4·2 outputs
    unfolded = 5 * 3 * 2 * 4 * 2  # of an image of five channels
    assert [conv._work(7, k, 5, window) for k in (1, 7, 8, 17)] == [7 * unfolded * factor for factor in (1, 1, 2, 3)]
    # An eighth of the batch, and no more than 2²¹ numbers, but one image at least.
    assert [conv._images_at_a_time(n, 5, window) for n in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]
    assert conv._images_at_a_time(10**6, 5, window) == 2**21 // unfolded
    assert conv._images_at_a_time(64, 1, conv_window((1500, 1500), 1)) == 1
    assert conv._images_at_a_time(64, 1, conv_window((1000, 1000), 1)) == 2


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", [0, ((2, 0), (0, 1)), "same"])
def test_memory_that_was_used_before_leaves_nothing_behind(
    padding: Any, groups: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taps in the padding read zeros, whatever lay where images are unfolded to."""
    from gpucnn.ops.cpu import conv

    class Used:
        """NumPy, but that memory that is new is full of NaN."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def empty(self, shape: Any, dtype: Any = float) -> Any:
            return np.full(shape, np.nan, dtype)

    x, weight, bias = rng.normal(size=(11, 4, 5, 6)), rng.normal(size=(6, 4 // groups, 3, 2)), rng.normal(size=6)
    window = conv_window((5, 6), (3, 2), padding=padding)
    expected = slow_conv2d(x, weight, bias, window, groups)
    dy = rng.normal(size=expected.shape)
    dx, dweight = conv.conv2d_input_grad(dy, weight, window, groups), conv.conv2d_weight_grad(dy, x, window, groups)
    monkeypatch.setattr(conv, "np", Used())
    np.testing.assert_allclose(conv.conv2d(x, weight, bias, window, groups), expected, **CLOSE)
    np.testing.assert_array_equal(conv.conv2d_input_grad(dy, weight, window, groups), dx)
    np.testing.assert_array_equal(conv.conv2d_weight_grad(dy, x, window, groups), dweight)


@pytest.mark.parametrize("wrong", [True, 1.0, (1, True), (1.0, 1), np.float64(1), "1"])
@pytest.mark.parametrize(
    "call", [lambda x, w, s: F.conv2d(x, w, stride=s), lambda x, w, s: F.max_pool2d(x, 2, s), lambda x, w, s: F.avg_pool2d(x, 2, s)]
)
def test_what_equals_a_remembered_size_is_refused_all_the_same(call: Any, wrong: Any) -> None:
    """Checked sizes are kept, and 1 == True == 1.0."""
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 2, 2), np.float32)
    expected = call(x, w, 1)
    for same in (1, (1, 1), [1, 1], np.int64(1)):
        np.testing.assert_array_equal(call(x, w, same), expected)
    with pytest.raises((TypeError, ShapeError)):
        call(x, w, wrong)
