"""Everything that is not a product: pooling, ReLU, dropout, loss and optimizers, against the NumPy road, mostly to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpucnn.errors import ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.cpu import activations, join, loss, norm, planes, pool, units, update
from gpucnn.ops.cpu.dropout import dropout as numpys_dropout
from gpucnn.ops.shapes import pool_window
from gpucnn_loops import threads
from tolerances import check

SIZES = [1, 2, 3, 5, 16, 31, 4095, 4096, 4097, 100_003]
ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -3e38]


def draw(rng: np.random.Generator, *shape: int, odd: bool = True) -> Any:
    x = rng.standard_normal(shape, dtype=np.float32)
    if odd and x.size > 20:
        x.reshape(-1)[rng.integers(0, x.size, len(ODD))] = ODD
    return x


@st.composite
def poolings(draw: st.DrawFn) -> tuple[Any, ...]:
    return (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
        (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        draw(st.integers(0, 2)),
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        draw(st.booleans()),
    )


@given(poolings(), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
@example((1, 1, 1, 2, (1, 2), (1, 2), 0, (1, 2), True), 0)  # as large as the image, with a tap behind it
def test_any_pooling(case: tuple[Any, ...], seed: int) -> None:
    n, c, h, w, kernel, stride, padding, dilation, ceil = case
    try:
        window = pool_window((h, w), kernel, stride, padding, dilation, ceil)
    except ShapeError:
        return
    rng = np.random.default_rng(seed)
    x = draw(rng, n, c, h, w)
    x[rng.random(x.shape) < 0.3] = 0.5  # ties
    y, indices = cpu.max_pool2d(x, window)
    expected, places = pool.max_pool2d(x, window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    alone, none = cpu.max_pool2d(x, window, places=False)
    assert none is None and alone.tobytes() == y.tobytes()  # of −0 and 0, and of two NaN, the first
    dy = draw(rng, *y.shape, odd=False)
    taps = kernel[0] * kernel[1]
    for relu in (None, y):
        exact = pool.max_pool2d_grad(dy.astype(np.float64), indices, window, relu=relu)
        magnitude = pool.max_pool2d_grad(np.abs(dy.astype(np.float64)), indices, window, relu=relu)
        check(cpu.max_pool2d_grad(dy, indices, window, relu=relu), exact, magnitude=magnitude, terms=taps, direction="input_grad")
    x = draw(rng, n, c, h, w, odd=False).astype(np.float32)
    for counted in (True, False):
        exact = pool.avg_pool2d(x.astype(np.float64), window, counted)
        magnitude = pool.avg_pool2d(np.abs(x).astype(np.float64), window, counted)
        check(cpu.avg_pool2d(x, window, counted), exact, magnitude=magnitude, terms=taps, direction="forward")
        exact = pool.avg_pool2d_grad(dy.astype(np.float64), window, counted)
        magnitude = pool.avg_pool2d_grad(np.abs(dy).astype(np.float64), window, counted)
        check(cpu.avg_pool2d_grad(dy, window, counted), exact, magnitude=magnitude, terms=taps + 1, direction="input_grad")


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (3, 5), (4, 4), (7, 7), (5, 13), (1, 1000)])
def test_a_window_of_the_whole_plane(size: tuple[int, int], rng: np.random.Generator) -> None:
    window = pool_window(size, size)
    x = np.round(draw(rng, 3, 41, *size, odd=False))  # ties
    x[0, 0], x[0, 1], x[0, 2, -1, -1] = -np.inf, 0, np.inf
    x[0, 3].flat[-1], x[0, 4].flat[0], x[0, 5] = np.nan, np.nan, np.nan
    x[1] = np.where(rng.random(x[1].shape) < 0.1, np.nan, x[1])
    x[0, 6], x[0, 7] = 0, -0.0
    x[0, 6].flat[-1], x[0, 7].flat[-1] = -0.0, 0
    indices = np.full((3, 41, 1, 1), -1, np.int32)
    y, _ = cpu.max_pool2d(x, window, out=np.full((3, 41, 1, 1), np.nan, np.float32), indices=indices)
    expected, places = pool.max_pool2d(x, window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    x, dy = draw(rng, 3, 41, *size, odd=False), draw(rng, 3, 41, 1, 1, odd=False)
    pixels = size[0] * size[1]
    exact = x.astype(np.float64).mean((2, 3), keepdims=True)
    got = cpu.avg_pool2d(x, window, out=np.full_like(dy, np.nan))
    check(got, exact, magnitude=np.abs(x).mean((2, 3), keepdims=True), terms=pixels + 1, direction="forward")
    dx = cpu.avg_pool2d_grad(dy, window, out=np.full_like(x, np.nan))
    np.testing.assert_array_equal(dx, np.broadcast_to(dy / np.float32(pixels), x.shape))


@pytest.mark.parametrize("size", [(6, 6), (9, 17), (5, 33), (20, 16)])
@pytest.mark.parametrize("pooling", [(3, 1, 1), (2, 2, 0), (3, 3, 1), (2, 1, 0)])
def test_maxima_alone_beside_other_channels(
    pooling: tuple[int, int, int], size: tuple[int, int], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole vectors are written past the end of a row, but not into what belongs to another thread, or to nobody."""
    monkeypatch.setattr(threads, "_number", 3)
    window = pool_window(size, *pooling)
    x = draw(rng, 7, 40, *size)
    expected, _ = pool.max_pool2d(x, window)
    for _ in range(3):
        np.testing.assert_array_equal(cpu.max_pool2d(x, window, places=False)[0], expected)
        room = np.full((7, 43, *window.output), -7, np.float32)
        cpu.max_pool2d(x, window, out=room[:, 1:41], places=False)
        np.testing.assert_array_equal(room[:, 1:41], expected)
        assert (room[:, 0] == -7).all() and (room[:, 41:] == -7).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pooling", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (4, 4, 1), (5, 4, 0)])
def test_an_average_of_what_is_not_finite(pooling: tuple[int, int, int], value: float, rng: np.random.Generator) -> None:
    """Whatever lies behind the end of a row, in the image or in the gradient, is in no window."""
    window = pool_window((9, 45), *pooling)
    x, dy = draw(rng, 2, 3, 9, 45, odd=False), draw(rng, 2, 3, *window.output, odd=False)
    given = [(cpu.avg_pool2d, pool.avg_pool2d, x), (cpu.avg_pool2d_grad, pool.avg_pool2d_grad, dy)]
    for fast, exact, array in given:
        double = array.astype(np.float64)
        check(fast(array, window), exact(double, window), magnitude=exact(np.abs(double), window), terms=10, direction="forward")
    x[0, 1, 4, 44] = x[1, 2, 8, 0] = dy[0, 1, 1, -1] = dy[1, 2, -1, 0] = value
    with np.errstate(all="ignore"):
        for fast, exact, array in given:
            np.testing.assert_array_equal(np.isfinite(fast(array, window)), np.isfinite(exact(array, window)))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 3), (3, 5, 7, 7), (1, 17, 4, 4), (2, 2, 33, 31)])
def test_means_of_planes(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = draw(rng, *shape, odd=False)
    exact = planes.global_avg_pool2d(x.astype(np.float64))
    check(cpu.global_avg_pool2d(x), exact, magnitude=np.abs(x).mean((2, 3)), terms=shape[2] * shape[3] + 1, direction="forward")


@pytest.mark.parametrize("size", SIZES)
def test_relu_and_its_gradient_have_numpys_bits(size: int, rng: np.random.Generator) -> None:
    x, dy = draw(rng, size), draw(rng, size)
    np.testing.assert_array_equal(cpu.relu(x), activations.relu(x))
    np.testing.assert_array_equal(cpu.relu_grad(dy, x), activations.relu_grad(dy, x))
    own = dy.copy()
    assert cpu.relu_grad(own, x, out=own) is own
    np.testing.assert_array_equal(own, activations.relu_grad(dy, x))


@pytest.mark.parametrize("size", SIZES)
def test_tanh_and_its_gradient(size: int, rng: np.random.Generator) -> None:
    x, dy = draw(rng, size), draw(rng, size)
    x[: size // 2] *= np.float32(0.1)  # the polynomial's half
    exact = np.tanh(x.astype(np.float64))
    y = cpu.tanh(x)
    # From 0.625 on 2e / (1 + e) is at most 0.8 of the result, and e = e⁻²ᵗ, the sum and the quotient are off by three, one and one
    # roundings; the difference by one. Below, the polynomial's part is at most 0.13 of it.
    check(y, exact, magnitude=exact, terms=6, direction="elementwise")
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))
    with np.errstate(all="ignore"):
        expected = units.tanh_grad(dy, y)
    np.testing.assert_array_equal(cpu.tanh_grad(dy, y), expected)
    assert cpu.tanh(x, out=x) is x and cpu.tanh_grad(dy, y, out=dy) is dy
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(dy, expected)


NANS = [0x7FC00000, 0x7FC00001, 0xFFC00003, 0x7F800001, 0x7FFFFFFF, 0xFFABCDEF]  # whatever their last bits are


@pytest.mark.parametrize("function", [cpu.tanh, cpu.sigmoid, cpu.softmax])
def test_every_nan_stays_nan(function: Any) -> None:
    for bits in NANS:
        x = np.linspace(-90, 3, 40, dtype=np.float32)
        x.view(np.uint32)[[5, 37]] = bits
        expected = np.isnan(x) | (function is cpu.softmax)
        np.testing.assert_array_equal(np.isnan(function(x)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_sigmoid_and_its_gradient(size: int, rng: np.random.Generator) -> None:
    x, dy = draw(rng, size), draw(rng, size)
    with np.errstate(over="ignore"):
        x[: size // 2] *= np.float32(30)  # down to where float32 has no smaller numbers
    with np.errstate(all="ignore"):
        exact = activations.sigmoid(x.astype(np.float64))
    y = cpu.sigmoid(x)
    # e = e⁻ᵗ is off by three roundings, 1 + e by those of a part of it and one, and the quotient by one.
    check(y, exact, magnitude=exact, terms=7, direction="elementwise")
    with np.errstate(all="ignore"):
        expected = activations.sigmoid_grad(dy, y)
    np.testing.assert_array_equal(cpu.sigmoid_grad(dy, y), expected)
    assert cpu.sigmoid(x, out=x) is x and cpu.sigmoid_grad(dy, y, out=dy) is dy
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(dy, expected)


@pytest.mark.parametrize("spread", [1, 60])
@pytest.mark.parametrize("shape", [(1, 1), (128, 10), (3, 16), (5, 17), (2, 3, 4, 31), (700, 3), (4, 1000), (9,), (0, 5)])
def test_softmax_and_its_gradient(shape: tuple[int, ...], spread: float, rng: np.random.Generator) -> None:
    x = (rng.standard_normal(shape) * spread + 1000).astype(np.float32)
    exact = activations.softmax(x.astype(np.float64)) if x.size else x.astype(np.float64)
    y, k = cpu.softmax(x), shape[-1]
    # The difference from the maximum is rounded once, so e to its power is off by as many roundings as it is large, and three more; the sum
    # by the mean of that and one for each vector of 16 and each of four halvings; the quotient by one.
    far = 1 + np.abs(x.astype(np.float64) - x.max(axis=-1, keepdims=True, initial=-np.inf))
    check(y, exact, magnitude=exact * far, terms=3 + 5 + k // 16 + 4 + 1, direction="elementwise")
    dy = rng.standard_normal(shape, dtype=np.float32)
    wide, by = dy.astype(np.float64), y.astype(np.float64)
    got, exact = cpu.softmax_grad(dy, y), activations.softmax_grad(wide, by)
    sums = np.abs(wide * by).sum(axis=-1, keepdims=True)
    check(got, exact, magnitude=by * (np.abs(wide) + sums), terms=k + 3, direction="elementwise")
    assert cpu.softmax(x, out=x) is x and cpu.softmax_grad(dy, y, out=dy) is dy
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(dy, got)


def test_softmax_of_infinities_and_of_nothing() -> None:
    x = np.array([[np.inf, 1, 2], [-np.inf, -np.inf, 0], [-np.inf] * 3, [1e38, -1e38, 3e38], [np.inf, np.inf, -np.inf]], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(cpu.softmax(x), activations.softmax(x))
    with pytest.raises(ValueError, match="zero-size"):
        cpu.softmax(np.zeros((3, 0), np.float32))


@pytest.mark.parametrize("size", SIZES)
def test_sums_of_two_have_numpys_bits(size: int, rng: np.random.Generator) -> None:
    a, b, mask = (draw(rng, size) for _ in range(3))
    with np.errstate(all="ignore"):
        for options in ({}, {"relu": True}, {"mask": mask}, {"relu": True, "mask": mask}):
            np.testing.assert_array_equal(cpu.add(a, b, **options), join.add(a, b, **options))
        expected = join.add(a, b)
    assert cpu.add(a, b, out=a) is a
    np.testing.assert_array_equal(a, expected)


@given(st.integers(1, 9), st.integers(1, 37), st.sampled_from([1, 1, 2, 3, 16, 31, 40]), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_batch_normalization_is_the_references(n: int, c: int, pixels: int, relu: bool, seed: int) -> None:
    rng, count = np.random.default_rng(seed), n * pixels
    if count < 2:
        return
    x, dy = draw(rng, n, c, pixels, odd=False) + 3, draw(rng, n, c, pixels, odd=False)
    weight, bias = draw(rng, c, odd=False), draw(rng, c, odd=False)
    running = [np.zeros(c, np.float32), np.ones(c, np.float32)]
    wide = [array.astype(np.float64) for array in (x, dy, weight, bias, *running)]
    options: dict[str, Any] = {"momentum": 0.1, "eps": 1e-1, "relu": relu}  # eps: a variance near 0 would make any rounding large
    y, mean, rstd = cpu.batch_norm(x, weight, bias, (running[0], running[1]), **options)
    ey, emean, erstd = norm.batch_norm(wide[0], wide[2], wide[3], (wide[4], wide[5]), **options)
    terms = count + 20
    check(mean, emean, magnitude=np.abs(x).mean(axis=(0, 2)), terms=terms, direction="forward")
    size = np.abs(x).max() * erstd  # a normalized number is off by the roundings of the mean and of the root, times its own size
    check(rstd, erstd, magnitude=erstd * (1 + size**2), terms=terms, direction="forward")
    scale = (size * (1 + size**2) * np.abs(weight) + np.abs(bias))[:, None]
    check(y, ey, magnitude=np.broadcast_to(scale, y.shape), terms=terms, direction="forward")
    for got, expected in zip(running, wide[4:], strict=True):
        check(got, expected, magnitude=1 + np.abs(x).max() ** 2, terms=terms, direction="forward")
    dweight, dbias = np.empty_like(weight), np.empty_like(bias)
    dx = cpu.batch_norm_grad(dy, x, weight, (mean, rstd), relu=relu, dweight=dweight, dbias=dbias)
    kept = mean.astype(np.float64), rstd.astype(np.float64)
    edweight, edbias = np.empty(c), np.empty(c)
    edx = norm.batch_norm_grad(wide[1], wide[0], wide[2], kept, relu=relu, dweight=edweight, dbias=edbias)
    normal, given_size = np.abs((wide[0] - kept[0][:, None]) * kept[1][:, None]), np.abs(wide[1])
    check(dbias, edbias, magnitude=given_size.sum(axis=(0, 2)), terms=terms, direction="weight_grad")
    products = (given_size * (normal + size[:, None])).sum(axis=(0, 2))
    check(dweight, edweight, magnitude=products, terms=terms, direction="weight_grad")
    whole = given_size + ((normal + size[:, None]) * products[:, None] + given_size.sum(axis=(0, 2))[:, None]) / count
    check(dx, edx, magnitude=whole * np.abs(weight * rstd)[:, None], terms=terms, direction="input_grad")
    # Some channels of larger images: the same bits, and nothing beside them.
    room = np.full((2, n, c + 3, pixels), np.nan, np.float32)
    apart, target = room[0][:, 1 : c + 1], room[1][:, 2 : c + 2]
    apart[...] = dy
    for out in (target, None):
        more = [np.zeros(c, np.float32), np.ones(c, np.float32)]
        np.testing.assert_array_equal(cpu.batch_norm(x, weight, bias, (more[0], more[1]), out=out, **options)[0], y)
    np.testing.assert_array_equal(target, y)
    assert np.isnan(np.delete(room[1], range(2, c + 2), axis=1)).all()
    sums = np.empty_like(weight), np.empty_like(bias)
    found = cpu.batch_norm_grad(apart, x, weight, (mean, rstd), relu=relu, dweight=sums[0], dbias=sums[1])
    for one, other in zip((found, *sums), (dx, dweight, dbias), strict=True):
        np.testing.assert_array_equal(one, other)
    for each in (dy, apart):
        np.testing.assert_array_equal(
            cpu.batch_norm_apply(each, weight, bias, (mean, rstd), eps=0.1, out=target),
            cpu.batch_norm_apply(dy, weight, bias, (mean, rstd), eps=0.1),
        )
    assert cpu.batch_norm_grad(dy, x, weight, (mean, rstd), relu=relu, out=dy) is dy
    np.testing.assert_array_equal(dy, dx)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("rate", "seed", "call"), [(0.5, 1, 7), (0.1, 2**63 + 5, 2**32 + 3), (0.999, 0, 0)])
def test_dropout_has_numpys_bits(size: int, rate: float, seed: int, call: int, rng: np.random.Generator) -> None:
    x, calls = draw(rng, size), np.array([call & 0xFFFFFFFF, call >> 32], np.uint32)
    with np.errstate(all="ignore"):
        expected = numpys_dropout(x, calls, rate, seed)
    np.testing.assert_array_equal(cpu.dropout(x, calls, rate, seed), expected)


def around(got: Any, expected: Any) -> None:
    np.testing.assert_array_equal(got.view(np.uint32)[~np.isnan(expected)], expected.view(np.uint32)[~np.isnan(expected)])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_has_numpys_bits(size: int, decay: float, momentum: float, nesterov: bool, rng: np.random.Generator) -> None:
    p, g, v, rates = draw(rng, size), draw(rng, size), draw(rng, size), np.array([0.37, 1, 1, 1], np.float32)
    mine, theirs = ([array.copy() for array in (p, g, v)] for _ in range(2))
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    cpu.sgd_update(*mine[:2], mine[2] if momentum else None, rates=rates, **options)
    with np.errstate(all="ignore"):
        update.sgd_update(*theirs[:2], theirs[2] if momentum else None, rates=rates, **options)
    for got, expected in zip(mine, theirs, strict=True):
        around(got, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (0.1, False), (0.1, True), (0.0, True)])
def test_adam_has_numpys_bits(size: int, decay: float, decoupled: bool, rng: np.random.Generator) -> None:
    arrays = draw(rng, size), draw(rng, size), draw(rng, size), np.abs(draw(rng, size))
    rates = np.array([0.37, 18.3, 0.99, 1], np.float32)
    mine, theirs = ([array.copy() for array in arrays] for _ in range(2))
    options: dict[str, Any] = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": decay, "decoupled": decoupled}
    cpu.adam_update(*mine, rates=rates, **options)
    with np.errstate(all="ignore"):
        update.adam_update(*theirs, rates=rates, **options)
    for got, expected in zip(mine, theirs, strict=True):
        around(got, expected)


def test_an_update_that_is_not_to_be_done_is_not_done(rng: np.random.Generator) -> None:
    p, g = draw(rng, 100), draw(rng, 100)
    before, rates = p.copy(), np.array([0.1, 1, 1, 0], np.float32)
    cpu.sgd_update(p, g, None, rates=rates)
    cpu.adam_update(p, g, p.copy(), p.copy(), rates=rates)
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 10), (7, 2), (128, 10), (33, 1000)])
def test_cross_entropy_is_the_references(n: int, k: int, rng: np.random.Generator) -> None:
    logits, labels = 5 * draw(rng, n, k, odd=False), rng.integers(0, k, n, dtype=np.int32)
    value, correct, dlogits = cpu.softmax_cross_entropy(logits, labels)
    expected, right, exact = loss.softmax_cross_entropy(logits.astype(np.float64), labels)
    assert abs(value - expected) <= 1e-6 * max(1, abs(expected)) and correct == right
    assert value.shape == correct.shape == () and dlogits.dtype == np.float32
    # Σ of k powers, each of a difference rounded once: its relative error is that difference times u, and exp's own.
    spread = np.ptp(logits, axis=1, keepdims=True)
    check(
        dlogits,
        exact,
        magnitude=np.abs(exact) + np.broadcast_to(1 / n / k, exact.shape),
        terms=int(k + 4 * spread.max() + 20),
        direction="elementwise",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cross_entropy_of_what_is_not_finite(value: float, rng: np.random.Generator) -> None:
    logits, labels = draw(rng, 9, 10, odd=False), np.arange(9, dtype=np.int32)
    logits[3, 3] = logits[4, 7] = value
    got = cpu.softmax_cross_entropy(logits, labels)
    with np.errstate(all="ignore"):
        expected = loss.softmax_cross_entropy(logits, labels)
    np.testing.assert_array_equal(np.isnan(got[2]), np.isnan(expected[2]))
    assert got[1] == expected[1]
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)


@pytest.mark.parametrize("label", [4, 1 << 30])
def test_a_label_that_is_no_class_reads_nothing(label: int) -> None:
    with pytest.raises(IndexError):
        cpu.softmax_cross_entropy(np.zeros((2, 4), np.float32), np.array([0, label], np.int32))


def test_equal_logits_make_the_first_the_answer() -> None:
    _, correct, _ = cpu.softmax_cross_entropy(np.zeros((2, 4), np.float32), np.array([0, 1], np.int32))
    assert correct == 1
