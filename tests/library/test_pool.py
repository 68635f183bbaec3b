"""Pooling on the CPU: a slow loop, PyTorch and numerical gradients as oracles; ties, NaN and infinities."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gpucnn.functional as F
from gpucnn.errors import DataError, ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.shapes import Window, pool_window

# h, w, kernel, stride, padding, dilation, ceil_mode
CASES: list[tuple[Any, ...]] = [
    (1, 1, 1, 1, 0, 1, False),
    (4, 6, 2, None, 0, 1, False),  # tiles exactly
    (5, 7, 2, None, 0, 1, False),  # a row and a column that no window reads
    (5, 7, 2, None, 0, 1, True),
    (6, 7, 3, 2, 1, 1, False),  # overlapping
    (6, 7, 3, 2, 1, 1, True),
    (7, 5, (3, 2), (1, 3), (1, 0), 1, False),
    (7, 8, 2, 1, 0, (2, 3), False),
    (7, 8, 3, 3, 1, 2, True),
    (5, 5, 3, 2, "same", 1, False),
    (4, 7, 2, 2, "same", 2, False),
    (5, 6, 3, 1, ((0, 1), (1, 0)), 1, False),  # asymmetric
    (9, 4, 2, 4, 0, 1, True),  # stride over size
    (2, 2, 3, 2, 0, 1, True),  # one window, larger than the image
]


def make_window(case: tuple[Any, ...]) -> Window:
    h, w, kernel, stride, padding, dilation, ceil_mode = case
    return pool_window((h, w), kernel, stride, padding, dilation, ceil_mode)


def pixels_of(window: Window, p: int, q: int) -> list[tuple[int, int]]:
    """The pixels (row, column) under window (p, q), in row-major order, without padding."""
    (h, w), (sh, sw), (dh, dw) = window.input, window.stride, window.dilation
    top, left = window.padding[0][0], window.padding[1][0]
    rows = [p * sh - top + r * dh for r in range(window.kernel[0])]
    columns = [q * sw - left + s * dw for s in range(window.kernel[1])]
    return [(row, column) for row in rows for column in columns if 0 <= row < h and 0 <= column < w]


def slow_max_pool(x: Any, window: Window) -> tuple[Any, Any]:
    """np.argmax over each window's pixels: the first of equals, the first NaN, the first pixel where all are −inf."""
    shape = (*x.shape[:2], *window.output)
    y, indices = np.empty(shape, x.dtype), np.empty(shape, np.int32)
    for n, c, p, q in np.ndindex(shape):
        pixels = pixels_of(window, p, q)
        row, column = pixels[int(np.argmax([x[n, c, row, column] for row, column in pixels]))]
        y[n, c, p, q], indices[n, c, p, q] = x[n, c, row, column], row * window.input[1] + column
    return y, indices


def slow_max_pool_grad(dy: Any, indices: Any, window: Window) -> Any:
    dx = np.zeros((*dy.shape[:2], window.input[0] * window.input[1]))
    for n, c, p, q in np.ndindex(dy.shape):
        dx[n, c, indices[n, c, p, q]] += dy[n, c, p, q]
    return dx.reshape(*dy.shape[:2], *window.input)


def slow_avg_pool(x: Any, window: Window, count_include_pad: bool) -> Any:
    y = np.empty((*x.shape[:2], *window.output))
    for p, q in np.ndindex(*window.output):
        pixels = pixels_of(window, p, q)
        count = len(pixels)
        if count_include_pad and not window.same:  # everything inside the padded image; what hangs over it never counts
            count = 1
            for axis, position in enumerate((p, q)):
                begin, end = window.padding[axis]
                first = position * window.stride[axis] - begin
                reads = [first + tap * window.dilation[axis] for tap in range(window.kernel[axis])]
                count *= sum(1 for read in reads if -begin <= read < window.input[axis] + end)
        y[..., p, q] = sum(x[..., row, column] for row, column in pixels) / count
    return y


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pooling_takes_each_windows_first_largest_pixel(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    window = make_window(case)
    x = rng.integers(-3, 3, (2, 3, *window.input)).astype(np.float64)  # few values: many ties
    y, indices = cpu.max_pool2d(x, window)
    expected, places = slow_max_pool(x, window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    assert indices.dtype == np.int32


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pooling_of_special_values_is_argmaxs(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    window = make_window(case)
    x = rng.choice([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0], (4, 3, *window.input), p=[0.2, 0.4, 0.1, 0.1, 0.1, 0.1])
    x[0] = -np.inf
    x[1, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NaN in the data is no reason for noise
        y, indices = cpu.max_pool2d(x, window)
    expected, places = slow_max_pool(x, window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pooling_sends_the_gradient_to_the_winners(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    window = make_window(case)
    x = rng.integers(-3, 3, (2, 3, *window.input)).astype(np.float64)
    _, indices = cpu.max_pool2d(x, window)
    dy = rng.normal(size=indices.shape)
    out = np.full(x.shape, np.nan)
    np.testing.assert_allclose(cpu.max_pool2d_grad(dy, indices, window, out=out), slow_max_pool_grad(dy, indices, window), rtol=1e-13)
    assert not np.isnan(out).any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pooling_gradients_are_the_numerical_ones(
    case: tuple[Any, ...], tie_free: Any, rng: np.random.Generator, numerical_gradient: Any
) -> None:
    window = make_window(case)
    x = tie_free(1, 2, *window.input)
    _, indices = cpu.max_pool2d(x, window)
    dy = rng.normal(size=indices.shape)
    expected = numerical_gradient(lambda: float((cpu.max_pool2d(x, window)[0] * dy).sum()), x, 1e-4)
    np.testing.assert_allclose(cpu.max_pool2d_grad(dy, indices, window), expected, rtol=1e-8, atol=1e-8)
    for include in (True, False):
        expected = numerical_gradient(lambda include=include: float((slow_avg_pool(x, window, include) * dy).sum()), x, 1e-4)
        np.testing.assert_allclose(cpu.avg_pool2d_grad(dy, window, include), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average_pooling_divides_by_what_counts(case: tuple[Any, ...], include: bool, rng: np.random.Generator) -> None:
    window = make_window(case)
    x = rng.normal(size=(2, 3, *window.input))
    np.testing.assert_allclose(cpu.avg_pool2d(x, window, include), slow_avg_pool(x, window, include), rtol=1e-12, atol=1e-14)


def test_padding_from_same_never_counts_and_declared_padding_does() -> None:
    x = np.ones((1, 1, 3, 3))
    np.testing.assert_array_equal(F.avg_pool2d(x, 3, 1, "same"), x)
    corner = F.avg_pool2d(x, 3, 1, 1)[0, 0, 0, 0]
    assert corner == pytest.approx(4 / 9)
    np.testing.assert_allclose(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), x)


def test_what_hangs_over_the_padded_image_never_counts() -> None:
    # Two rows and a window of three that starts at the first, over an image padded by none: two pixels count.
    assert F.avg_pool2d(np.ones((1, 1, 2, 1)), (3, 1), (2, 1), ceil_mode=True)[0, 0, 0, 0] == 1


@pytest.mark.parametrize("include", [True, False])
def test_average_pooling_and_gradient_are_pytorchs(include: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    compared = 0
    for size in (1, 2, 5, 6):
        for kernel in (1, 2, 3, 4):
            for stride in (1, 2, 3):
                for padding in range(kernel // 2 + 1):
                    for ceil_mode in (False, True):
                        x = rng.normal(size=(2, 2, size, size + 1))
                        tensor = torch.tensor(x, requires_grad=True)
                        try:
                            expected = torch.nn.functional.avg_pool2d(tensor, kernel, stride, padding, ceil_mode, include)
                            y = F.avg_pool2d(x, kernel, stride, padding, ceil_mode, include)
                        except (RuntimeError, ShapeError):
                            continue  # what is refused is compared in test_shapes
                        dy = rng.normal(size=y.shape)
                        expected.backward(torch.tensor(dy))
                        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-13)
                        dx = F.avg_pool2d_grad(dy, x.shape, kernel, stride, padding, include)
                        np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-12, atol=1e-13)
                        compared += 1
    assert compared > 100


def test_max_pooling_and_gradient_are_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    compared = 0
    for size in (1, 2, 5, 6):
        for kernel in (1, 2, 3):
            for stride in (1, 2, 3):
                for padding in range(kernel // 2 + 1):
                    for dilation in (1, 2):
                        for ceil_mode in (False, True):
                            x = rng.integers(-4, 4, (2, 2, size, size + 1)).astype(np.float64)  # ties: PyTorch's first one wins as well
                            tensor = torch.tensor(x, requires_grad=True)
                            try:
                                expected, places = torch.nn.functional.max_pool2d(
                                    tensor, kernel, stride, padding, dilation, ceil_mode=ceil_mode, return_indices=True
                                )
                                y, indices = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
                            except (RuntimeError, ShapeError):
                                continue
                            dy = rng.normal(size=y.shape)
                            expected.backward(torch.tensor(dy))
                            np.testing.assert_array_equal(y, expected.detach().numpy())
                            np.testing.assert_array_equal(indices, places.numpy())
                            dx = F.max_pool2d_grad(dy, indices, x.shape, kernel, stride, padding, dilation)
                            np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-12, atol=1e-13)
                            compared += 1
    assert compared > 100


sides = st.integers(0, 2)


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.one_of(st.just("same"), st.tuples(st.tuples(sides, sides), st.tuples(sides, sides))),
    st.integers(1, 2),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_any_legal_pooling_is_the_slow_loops(
    h: int, w: int, r: int, s: int, sh: int, sw: int, padding: Any, dilation: int, ceil_mode: bool, seed: int
) -> None:
    try:
        window = pool_window((h, w), (r, s), (sh, sw), padding, dilation, ceil_mode)
    except ShapeError:
        assume(False)
        return
    rng = np.random.default_rng(seed)
    x = rng.choice([np.nan, -np.inf, 0.0, 1.0, 2.0], (1, 2, h, w), p=[0.1, 0.3, 0.2, 0.2, 0.2])
    y, indices = cpu.max_pool2d(x, window)
    expected, places = slow_max_pool(x, window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    dy = rng.normal(size=y.shape)
    np.testing.assert_allclose(cpu.max_pool2d_grad(dy, indices, window), slow_max_pool_grad(dy, indices, window), rtol=1e-12)
    x = rng.normal(size=x.shape)
    for include in (True, False):
        mean = cpu.avg_pool2d(x, window, include)
        np.testing.assert_allclose(mean, slow_avg_pool(x, window, include), rtol=1e-12, atol=1e-13)
        # ⟨pool(x), dy⟩ = ⟨x, pool_gradᵀ(dy)⟩: averaging is linear.
        np.testing.assert_allclose((cpu.avg_pool2d_grad(dy, window, include) * x).sum(), (mean * dy).sum(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ((4, 6, 2, None, 0, 1, False), True),
        ((4, 6, (2, 3), None, 0, 1, False), True),
        ((4, 6, 1, 1, 0, 1, False), True),
        ((5, 6, 2, None, 0, 1, False), False),  # a row that no window reads
        ((4, 7, 2, None, 0, 1, True), False),  # a window that hangs over
        ((4, 6, 2, 1, 0, 1, False), False),  # pixels that several read
        ((4, 6, 2, (2, 1), 0, 1, False), False),
        ((4, 6, 2, None, 0, (1, 2), False), False),  # gaps between taps
        ((4, 6, 2, None, 0, (2, 1), False), False),
        ((3, 6, 2, None, ((1, 0), (0, 0)), 1, False), False),  # taps in the padding
    ],
)
def test_windows_that_read_every_pixel_once_are_told_from_others(case: tuple[Any, ...], expected: bool) -> None:
    from gpucnn.ops.cpu import pool

    window = make_window(case)
    reads = [pixel for p, q in np.ndindex(*window.output) for pixel in pixels_of(window, p, q)]
    taps = window.output[0] * window.output[1] * window.kernel[0] * window.kernel[1]
    assert (sorted(reads) == list(np.ndindex(*window.input)) and len(reads) == taps) == expected
    assert pool._tiles_exactly(window) == expected


def test_planes_in_pieces_are_the_same_as_one_at_a_time(rng: np.random.Generator) -> None:
    # Over 2¹⁵ elements: several pieces, the last of them smaller. One plane holds NaN, which only its own piece looks for.
    x = rng.normal(size=(7, 11, 40, 40)).astype("float32")
    x[3, 5, 7, 9] = np.nan
    window = pool_window((40, 40), 3, 2, 1)
    y, indices = cpu.max_pool2d(x, window)
    dx = cpu.max_pool2d_grad(y, indices, window)
    mean = cpu.avg_pool2d(x, window)
    for n in range(7):
        one, places = cpu.max_pool2d(np.ascontiguousarray(x[n : n + 1]), window)
        np.testing.assert_array_equal(y[n : n + 1], one)
        np.testing.assert_array_equal(indices[n : n + 1], places)
        np.testing.assert_array_equal(dx[n : n + 1], cpu.max_pool2d_grad(one, places, window))
        np.testing.assert_array_equal(mean[n : n + 1], cpu.avg_pool2d(np.ascontiguousarray(x[n : n + 1]), window))


@pytest.mark.parametrize(("planes", "pieces"), [(6, [2, 2, 2]), (7, [2, 2, 2, 1])])
def test_pieces_fit_the_cache_and_hold_each_plane_once(planes: int, pieces: list[int]) -> None:
    from gpucnn.ops.cpu import pool

    small, large = np.zeros((1, planes, 2, 2)), np.zeros((1, planes, 2, pool.SLAB // 4))  # two planes of the larger ones are a slab
    small += np.arange(planes)[:, None, None]
    seen = []
    pool._by_planes(lambda one, other: seen.append((list(one[:, 0, 0]), len(other))), small, large)
    assert sorted(seen) == [(list(range(first, first + count)), count) for first, count in zip((0, 2, 4, 6), pieces, strict=False)]


def test_out_and_indices_are_written_where_they_are_said_to_be(rng: np.random.Generator) -> None:
    x, window = rng.normal(size=(2, 2, 5, 5)), pool_window((5, 5), 2)
    y, indices = np.full((2, 2, 2, 2), np.nan), np.full((2, 2, 2, 2), -7, np.int32)
    cpu.max_pool2d(x, window, out=y, indices=indices)
    expected, places = slow_max_pool(x, window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    out = np.full_like(y, np.nan)
    np.testing.assert_array_equal(cpu.avg_pool2d(x, window, out=out), out)
    assert not np.isnan(out).any()


def test_pixels_that_no_window_reads_get_no_gradient() -> None:
    dx = F.max_pool2d_grad(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1), np.int32), (1, 1, 3, 3), 2)
    np.testing.assert_array_equal(dx, [[[[1, 0, 0], [0, 0, 0], [0, 0, 0]]]])
    np.testing.assert_array_equal(
        F.avg_pool2d_grad(np.ones((1, 1, 1, 1)), (1, 1, 3, 3), 2)[0, 0], [[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pooling_keeps_the_dtype(dtype: str) -> None:
    x = np.ones((1, 1, 4, 4), dtype)
    y, indices = F.max_pool2d(x, 2)
    assert y.dtype == F.avg_pool2d(x, 2).dtype == dtype
    assert F.max_pool2d_grad(y, indices, x.shape, 2).dtype == F.avg_pool2d_grad(y, x.shape, 2).dtype == dtype


def test_gradients_find_the_window_that_ceil_mode_gave() -> None:
    x = np.arange(25.0).reshape(1, 1, 5, 5)
    for ceil_mode, side in ((False, 2), (True, 3)):
        y, indices = F.max_pool2d(x, 2, ceil_mode=ceil_mode)
        assert y.shape[2:] == (side, side)
        assert F.max_pool2d_grad(np.ones_like(y), indices, x.shape, 2).sum() == side * side
        assert F.avg_pool2d_grad(np.ones_like(y), x.shape, 2).sum() == pytest.approx(side * side)


def test_gradients_refuse_what_does_not_fit() -> None:
    x = np.arange(25.0).reshape(1, 1, 5, 5)
    y, indices = F.max_pool2d(x, 2)
    with pytest.raises(ShapeError, match=r"dy must have shape \(1, 1, 3, 3\) or \(1, 1, 2, 2\) for this pooling, got \(1, 1, 4, 4\)"):
        F.max_pool2d_grad(np.ones((1, 1, 4, 4)), indices, x.shape, 2)
    with pytest.raises(ShapeError, match=r"dy must have shape \(1, 1, 2, 2\) for this pooling, got \(1, 2, 2, 2\)"):
        F.avg_pool2d_grad(np.ones((1, 2, 2, 2)), (1, 1, 4, 4), 2)
    with pytest.raises(TypeError, match="indices must be an int32 array"):
        F.max_pool2d_grad(y, indices.astype(np.int64), x.shape, 2)
    with pytest.raises(ShapeError, match=r"indices must have shape \(1, 1, 2, 2\), got \(1, 1, 1, 2\)"):
        F.max_pool2d_grad(y, indices[:, :, :1], x.shape, 2)
    for wrong in (-1, 25):
        bad = indices.copy()
        bad[0, 0, 1, 0] = wrong
        with pytest.raises(DataError, match=rf"indices must lie in 0..24 for images of 5×5, got .*{wrong}"):
            F.max_pool2d_grad(y, bad, x.shape, 2)
    with pytest.raises(ShapeError, match="over half of a pooling window"):
        F.max_pool2d_grad(y, indices, x.shape, 2, padding=2)
    with pytest.raises(ShapeError, match="x must have 4 axes"):
        F.max_pool2d(np.zeros((5, 5)), 2)


def test_inputs_are_left_as_they_are(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 2, 6, 6))
    x.flags.writeable = False
    y, indices = F.max_pool2d(x, 3, 2, 1)
    y.flags.writeable = indices.flags.writeable = False
    F.max_pool2d_grad(y, indices, x.shape, 3, 2, 1)
    F.avg_pool2d_grad(F.avg_pool2d(x, 3, 2, 1), x.shape, 3, 2, 1)


@pytest.mark.parametrize("kernel", [(17, 17), (1, 300), (16, 16), (20, 13)])
def test_windows_of_more_taps_than_a_byte_counts(kernel: tuple[int, int], rng: np.random.Generator) -> None:
    """The last tap wins in some, the first in others."""
    x = rng.permutation(2 * 2 * 40 * 301).reshape(2, 2, 40, 301).astype(np.float64)
    y, indices = F.max_pool2d(x, kernel)
    for n, c, p, q in np.ndindex(y.shape):
        part = x[n, c, p * kernel[0] : (p + 1) * kernel[0], q * kernel[1] : (q + 1) * kernel[1]]
        r, s = np.unravel_index(part.argmax(), part.shape)
        assert y[n, c, p, q] == part.max() and indices[n, c, p, q] == (p * kernel[0] + r) * 301 + q * kernel[1] + s
    dx = F.max_pool2d_grad(np.ones_like(y), indices, x.shape, kernel)
    assert dx.sum() == y.size and (x[dx > 0].reshape(-1).sum() == y.sum())


@pytest.mark.parametrize("slab", [1, 40, 100, 1000])
def test_any_number_of_pieces_gives_the_same(slab: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn.ops.cpu import pool

    x, window = rng.normal(size=(5, 3, 7, 6)), pool_window((7, 6), 2, 1)
    dy = rng.normal(size=(5, 3, *window.output))

    def everything() -> list[np.ndarray]:
        y, indices = pool.max_pool2d(x, window)
        outputs = [np.full(x.shape, np.nan) for _ in range(3)]
        pool.max_pool2d_grad(dy, indices, window, out=outputs[0])
        pool.max_pool2d_grad(dy, indices, window, relu=y, out=outputs[1])
        pool.avg_pool2d_grad(dy, window, out=outputs[2])
        return [y, indices, pool.avg_pool2d(x, window), *outputs]

    expected = everything()
    monkeypatch.setattr(pool, "SLAB", slab)
    for one, other in zip(everything(), expected, strict=True):
        np.testing.assert_array_equal(one, other)
