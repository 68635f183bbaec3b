"""What tensor/accuracy.py promises of products with factors in two parts: beside FMAs, on a grid of lengths and of numbers that are hard.

A sum is worked out in NumPy in the order of the kernels. That this is their order, and that numbers are where lanes look for them, is what
test_warps.py and test_dense_accuracy.py show by the kernels' own maps; here both are held to give the same bits.

Tensor cores differ in how they add, so three kinds are tried: exact and then cut off to a float32; and those that cut each term off where
the largest ends, with one bit more than a float32's for each four terms, or two for each eight (the papers that accuracy.py names).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import test_dense_accuracy as dense
import test_warps as conv
from test_warps import at_once, cancelling, cut, in_tf32, normal, positive, rounded, wide

from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.conv import classes, tensor, tiled
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, KINDS, TF32
from gpucnn_kernels.dense.tensor import GROUPS, NAME
from gpucnn_kernels.tensor.accuracy import LEAST_TERMS
from gpucnn_kernels.tensor.parts import ENDING
from gpucnn_kernels.tensor.product import TensorTile

Array = npt.NDArray[np.float32]
Adder = Callable[[Array, Array, Array], Array]
ROUNDING = 2.0**-24
TOGETHER = 16  # terms between two takings-out


def exact(c: Array, a: Array, b: Array) -> Array:
    """c + a · b by one instruction, cut off once."""
    return cut(np.float64(c) + np.float64(a) @ np.float64(b))


def aligned(terms: int, bits: int) -> Adder:
    """The same, so many terms at a time: they and the sum so far are cut off where a float32 of the largest ends, but for so many bits."""

    def add(c: Array, a: Array, b: Array) -> Array:
        for first in range(0, a.shape[1], terms):
            products = np.float64(a)[:, first : first + terms, None] * np.float64(b)[None, first : first + terms]
            addends = np.concatenate([products, np.float64(c)[:, None]], axis=1)
            _, exponents = np.frexp(np.abs(addends).max(axis=1, keepdims=True))
            unit = np.ldexp(1.0, exponents - 24 - bits)
            c = cut((np.trunc(addends / unit) * unit).sum(axis=1))
        return c

    return add


ADDERS: dict[str, Adder] = {"exact": exact, "by-fours": aligned(4, 1), "by-eights": aligned(8, 2)}


def parts(x: Array, rounds: bool) -> tuple[Array, Array]:
    """Both parts of numbers as tensor cores take them; where `rounds` the small one was rounded before it was written to memory."""
    big = rounded(x)
    return big, rounded(x - big) if rounds else in_tf32(x - big)


def on_tensor_cores(a: Array, b: Array, add: Adder, *, rounds: bool = True, small_first: int = TOGETHER, taken: int = TOGETHER) -> Array:
    """a (M, K) · b (K, N) by three products, with b's small parts rounded or not. Of each `small_first` terms those products come first
    that have a small part; after `taken` terms a sum is taken out."""
    (a_big, a_small), (b_big, b_small) = parts(a, False), parts(b, rounds)
    sums = np.zeros((len(a), b.shape[1]), np.float32)
    for begin in range(0, a.shape[1], taken):
        part = np.zeros_like(sums)
        for first in range(begin, min(begin + taken, a.shape[1]), small_first):
            steps = [slice(k, k + 8) for k in range(first, first + small_first, 8)]
            for step in steps:
                part = add(add(part, a_small[:, step], b_big[step]), a_big[:, step], b_small[step])
            for step in steps:
                part = add(part, a_big[:, step], b_big[step])
        sums = sums + part
    return sums


@pytest.mark.parametrize("kind", [normal, wide])
def test_the_order_is_that_of_the_kernels(kind: Callable[..., Array]) -> None:
    """Convolutions by warps, dense layers by warps, and warpgroups, which multiply turned around: columns of c by rows."""
    a, b = kind(np.random.default_rng(3), 64, 64), kind(np.random.default_rng(4), 64, 64)
    few = np.ascontiguousarray(b[:, :8])
    np.testing.assert_array_equal(conv.by_warps(np.ascontiguousarray(a[:16]), few, 2), on_tensor_cores(a[:16], few, exact))
    some = np.ascontiguousarray(b[:, :32])
    for by_rows in dense.FORMS.values():
        np.testing.assert_array_equal(dense.by_warps(a, some, by_rows, FLOAT32), on_tensor_cores(a, some, exact, rounds=False))
        turned = on_tensor_cores(np.ascontiguousarray(b.T), np.ascontiguousarray(a.T), exact).T
        np.testing.assert_array_equal(dense.by_groups(a, b, by_rows, FLOAT32), turned)


# Numbers that are hard.


def behind_relu(random: Any, *shape: int) -> Array:
    """Of one factor half are 0."""
    x = normal(random, *shape)
    return np.maximum(x, 0) if shape[0] < shape[1] else x


def of_powers_of_two(random: Any, *shape: int) -> Array:
    """One factor of 41 binary magnitudes."""
    x = normal(random, *shape)
    return np.ldexp(x, random.integers(-20, 21, shape)).astype(np.float32) if shape[0] < shape[1] else x


def near_zero(random: Any, *shape: int) -> Array:
    """The last term takes away what all others add up to: of the first column all of it, of the others as much."""
    x = normal(random, *shape)
    if shape[0] < shape[1]:
        x[:, -1] *= np.float32(shape[1] ** 0.5)
    return x


def losing_most(random: Any, *shape: int) -> Array:
    """All of them lose as much as a number can by being split: 4095 units below the middle of two in TF32, of which one is cut off."""
    return np.full(shape, 1 + 4095 * 2.0**-23, np.float32)


HARD = (normal, positive, wide, behind_relu, of_powers_of_two, near_zero, cancelling)
LENGTHS = (256, 288, 576, 1152, 4608)


Product = tuple[Array, Array]


@functools.cache
def products(kind: Callable[..., Array], terms: int, count: int, size: int) -> list[Product]:
    """a and b of some. size < terms, which is how kinds tell a from b."""
    random = np.random.default_rng(terms)
    return [(kind(random, size, terms), kind(random, terms, size)) for _ in range(count)]


def errors_of(multiply: Callable[[Array, Array], Array], some: list[Product]) -> Any:
    """In roundings of Σ |a||b|."""
    found = []
    for a, b in some:
        result, magnitude = np.float64(a) @ np.float64(b), np.abs(np.float64(a)) @ np.abs(np.float64(b))
        found.append((multiply(a, b) - result) / (ROUNDING * magnitude))
    return np.array(found)


def mean(errors: Any) -> float:
    return float(np.sqrt(np.mean(errors**2)))


@functools.cache
def of_fmas(kind: Callable[..., Array], terms: int, count: int, size: int) -> float:
    """The mean error of FMAs one after the other."""
    return mean(errors_of(dense.fmas, products(kind, terms, count, size)))


def in_slices(a: Array, b: Array, add: Adder) -> Array:
    """Of 128 terms, the shortest that there are (dense/tensor.py)."""
    sums = np.zeros((len(a), b.shape[1]), np.float32)
    for first in range(0, a.shape[1], 128):
        sums = sums + on_tensor_cores(a[:, first : first + 128], b[first : first + 128], add)
    return sums


def grid() -> list[Any]:
    """(kind, terms, adder). The shortest sums are quick, which are the least exact beside FMAs."""
    return [
        pytest.param(
            kind,
            terms,
            adder,
            id=f"{kind.__name__}-{terms}-{adder}",
            marks=() if terms == LENGTHS[0] and (adder == "exact" or kind is wide) else pytest.mark.slow,
        )
        for kind, terms, adder in itertools.product(HARD, LENGTHS, ADDERS)
    ]


@pytest.mark.parametrize(("kind", "terms", "adder"), grid())
def test_no_less_exact_than_fmas_in_the_mean(kind: Callable[..., Array], terms: int, adder: str) -> None:
    """Of several products, because those of numbers of many magnitudes vary by a tenth. Whole sums, and those in slices."""
    assert LENGTHS[0] == LEAST_TERMS[FLOAT32]
    count, size = max(1, 2048 // terms), 24
    some, add = products(kind, terms, count, size), ADDERS[adder]
    ways = [functools.partial(on_tensor_cores, add=add, rounds=rounds) for rounds in (False, True)]
    for way in (*ways, functools.partial(in_slices, add=add)):
        found = mean(errors_of(way, some))
        assert found <= of_fmas(kind, terms, count, size), (found, of_fmas(kind, terms, count, size))


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("terms", [16, *(pytest.param(terms, marks=pytest.mark.slow) for terms in (256, 1152))])
@pytest.mark.parametrize("kind", [*HARD, at_once, losing_most], ids=lambda kind: kind.__name__)
def test_no_sum_is_off_by_more_than_is_promised(kind: Callable[..., Array], terms: int, adder: str) -> None:
    """36 roundings, and one for each 16 terms."""
    for rounds in (False, True):
        way = functools.partial(on_tensor_cores, add=ADDERS[adder], rounds=rounds)
        worst = np.max(np.abs(errors_of(way, products(kind, terms, 1, 12))))
        assert worst <= 36 + terms / 16
        if kind is losing_most and not rounds:
            assert worst > 7, "what splitting costs at most would be seen: 8"
    if terms >= LEAST_TERMS[FLOAT32]:
        assert 36 + terms / 16 < terms / 4, "a quarter of what FMAs may be off by"


def test_what_would_be_seen() -> None:
    """Sums of 32 terms are less exact than FMAs; and so are those of 256 with small parts in between, or 32 terms at a time."""
    for kind, terms, way in (
        (normal, 32, on_tensor_cores),
        (wide, 32, on_tensor_cores),
        (wide, 256, functools.partial(on_tensor_cores, small_first=8)),  # the order that warps had
        (wide, 256, functools.partial(on_tensor_cores, small_first=32, taken=32)),  # and that of warpgroups
    ):
        found = mean(errors_of(functools.partial(way, add=exact), products(kind, terms, 4, 24)))
        assert found > of_fmas(kind, terms, 4, 24), (kind.__name__, terms, found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [normal, positive, wide])
@pytest.mark.parametrize("terms", [32, 64, 128, 256, 576, 4608])
def test_beside_fmas(kind: Callable[..., Array], terms: int) -> None:
    """Prints (`pytest -s`) what kernels/README.md says: root mean squares, and the worst, in roundings of Σ |a||b|."""
    ways = dense.fmas, *(functools.partial(on_tensor_cores, add=add) for add in ADDERS.values())
    errors = [errors_of(way, products(kind, terms, max(2, 2048 // terms), 24)) for way in ways]
    print(f"\n| {terms} | {kind.__name__} |", *(f"{mean(each):.2f} ({np.abs(each).max():.1f}) |" for each in errors))
    assert terms < LEAST_TERMS[FLOAT32] or all(mean(each) <= mean(errors[0]) for each in errors[1:])


# Which sums are left to tensor cores.

needs_instructions = pytest.mark.skipif(tensor.MLIR, reason="numba-cuda-mlir has no instructions of ours")


def by_tensor_cores(problem: Any) -> set[str]:
    return {name for name in select.variants(problem) if name.startswith(("mma", "tensor"))}


@needs_instructions
def test_short_sums_are_left_to_fmas() -> None:
    """By the rules, by name, by a table and by `gpucnn tune`, which all ask what fits. Factors in one part have no such rule."""
    window, names = conv_window((16, 16), (1, 1)), {f"tensor128x{columns}" for columns in tensor.BEST} | set(tensor.WARPS)
    with select.for_chip(132, capability=(9, 0)):
        for terms, n in ((255, 255), (256, 256)):
            of_convolution = (
                problems.conv2d(64, terms, 64, window),
                problems.conv2d_input_grad(64, 64, terms, window),
                problems.conv2d_weight_grad(n, 64, 64, conv_window((1, 1), (1, 1))),
            )
            for problem in of_convolution:
                assert problem.depth == terms and by_tensor_cores(problem) == (names if terms == 256 else set())
            of_dense = problems.dense(64, terms, 64), problems.dense_input_grad(64, 64, terms), problems.dense_weight_grad(terms, 64, 64)
            for problem in of_dense:
                assert problem.depth == terms and by_tensor_cores(problem) == ({NAME, *GROUPS} if terms == 256 else set())
        for bits, terms in itertools.product((TF32, BFLOAT16), (31, 32, 255, 256)):
            kept = [ENDING[each] for each in KINDS if each >= bits and terms >= (256 if each == FLOAT32 else 32)]
            assert by_tensor_cores(problems.dense(64, terms, 64, bits)) == {name + end for name in (NAME, *GROUPS) for end in kept}
        short = problems.conv2d(64, 255, 64, window)
        with select.override(conv2d="tensor128x64"):
            assert select.choose(short).name.startswith("tile")
        of_that_name = select.choose(problems.conv2d(64, 256, 64, window), "tensor128x64")
        message = (
            "'tensor128x64' of conv2d cannot do .* sums of 255 terms, .* compute capability 9.0: those that can are plain, .*tile64x64"
        )
        for said in ("tensor128x64", None):
            with pytest.raises(ValueError, match=message), select.override({} if said else {"conv2d": of_that_name}):
                select.choose(short, said)


@needs_instructions
def test_classes_of_pixels_with_short_sums_are_left_to_fmas() -> None:
    """3 × 3 at a stride of 2, of 128 filters: pixels gather 128, 256, 256 and 512 terms."""
    for taps_of, filters, kernel, stride in ((4, 128, (3, 3), 2), (4, 72, (5, 5), 3), (4, 64, (2, 2), 1), (2, 200, (1, 3), (1, 2))):
        window = conv_window((14, 14), kernel, stride, 1)
        sizes = 2, 32, filters, window, 1
        parts_of = [tensor.gather(TensorTile(64), each, tiled.Epilogue()) for each in classes.input_grad(sizes)]
        terms = [each.taps * each.C for each in classes.input_grad(sizes)]
        assert max(terms) == problems.conv2d_input_grad(*sizes).depth == taps_of * filters
        on_tensor_cores = ["tensor" in part.product.kernel.__name__ for part in parts_of]
        assert on_tensor_cores == [each >= 256 for each in terms]
