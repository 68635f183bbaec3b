"""Losses: the mean, the gradient and the number of right answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn.ops.cuda._arrays import stream
from gpucnn_kernels import cross_entropy
from gpucnn_kernels.core.launch import run
from gpucnn_kernels.core.reduce import BLOCK_LANES
from gpucnn_kernels.cross_entropy import softmax_cross_entropy
from gpucnn_kernels.loss import add_rows_kernel
from tolerances import check

SIZES = [(1, 1), (3, 10), (2, 37)]


def compare(device: Device, name: str, x: Any, targets: Any, magnitude: float, gradient_magnitude: Any, terms: int) -> tuple[Any, Any, Any]:
    """Runs the loss `name` and checks its loss within `magnitude`, its gradient within `gradient_magnitude`, its count exactly."""
    out = Output(device, x.shape)
    loss, correct, dx = getattr(device.ops, name)(device.array(x), device.array(targets), out=out.array)
    assert dx is out.array and loss.shape == () and correct.shape == ()
    wide = targets if targets.dtype == np.int32 else double(targets)
    ref_loss, ref_correct, ref_dx = getattr(cpu, name)(double(x), wide)
    check(to_numpy(loss), ref_loss, magnitude=magnitude, terms=terms + x.shape[0], direction="forward")
    check(out.result(), ref_dx, magnitude=gradient_magnitude, terms=terms, direction="input_grad")
    assert int(correct) == int(ref_correct)
    return loss, correct, dx


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_softmax_cross_entropy(device: Device, n: int, k: int) -> None:
    logits = 3 * normal(0, n, k)
    labels = np.random.default_rng(1).integers(0, k, n).astype(np.int32)
    spread = float(logits.max() - logits.min())
    magnitude = spread + np.log(k) + 1  # of a row's loss, and more than the mean's
    compare(device, "softmax_cross_entropy", logits, labels, magnitude, 2 / n, 2 * int(np.ceil(spread)) + k + 6)
    rows = cpu.softmax(normal(2, n, k))
    compare(device, "softmax_cross_entropy", logits, rows, magnitude, 2 / n, 2 * int(np.ceil(spread)) + 2 * k + 6)


@pytest.mark.parametrize("of_classes", [True, False])
@pytest.mark.parametrize(
    ("n", "k", "threads"),
    [
        (1, 1, 4),
        (5, 7, 4),
        (9, 10, 4),
        (3, 32, 4),
        (13, 2, 4),
        *(pytest.param(*sizes, marks=COMPILED) for sizes in ((1, 1, 1), (9, 10, 8), (13, 2, 2))),
    ],
)
def test_one_launch(device: Device, n: int, k: int, threads: int, of_classes: bool) -> None:
    """Small batches are one block's work: rows over several rounds, and more threads than rows."""
    logits = 3 * normal(20, n, k)
    random = np.random.default_rng(21)
    labels = random.integers(0, k, n).astype(np.int32) if of_classes else random.uniform(0, 1, (n, k)).astype(np.float32)
    out, loss, correct = Output(device, (n, k)), Output(device, (1,)), Output(device, (1,), "int32")
    scratch = device.xp.empty(n, "float32"), device.xp.empty(n, "int32")
    given = device.array(logits)
    arrays = given, device.array(labels), out.array, loss.array, correct.array
    softmax_cross_entropy(*arrays, *scratch, stream(given), threads=threads)
    ref_loss, ref_correct, ref = cpu.softmax_cross_entropy(double(logits), labels if of_classes else double(labels))
    spread = float(logits.max() - logits.min())
    weight = 1 if of_classes else float(labels.sum(axis=1).max())
    terms = 2 * int(np.ceil(spread)) + 2 * k + 6
    check(loss.result()[0], ref_loss, magnitude=weight * (spread + np.log(k) + 1), terms=terms + n, direction="forward")
    check(out.result(), ref, magnitude=2 * weight / n, terms=terms, direction="input_grad")
    assert correct.result()[0] == ref_correct


def test_rounds_of_a_full_block(device: Device) -> None:
    """More rows than fit in shared memory at a time, and more numbers than a thread reads at a time."""
    logits, labels = normal(22, 300, 32), np.random.default_rng(23).integers(0, 32, 300).astype(np.int32)
    out, loss, correct = Output(device, logits.shape), Output(device, (1,)), Output(device, (1,), "int32")
    given = device.array(logits)
    scratch = device.xp.empty(300, "float32"), device.xp.empty(300, "int32")
    softmax_cross_entropy(given, device.array(labels), out.array, loss.array, correct.array, *scratch, stream(given), threads=16)
    ref_loss, ref_correct, ref = cpu.softmax_cross_entropy(double(logits), labels)
    check(loss.result()[0], ref_loss, magnitude=12, terms=350, direction="forward")
    check(out.result(), ref, magnitude=2 / 300, terms=60, direction="input_grad")
    assert correct.result()[0] == ref_correct


@pytest.mark.parametrize("of_classes", [True, False])
def test_one_launch_and_two_agree(device: Device, monkeypatch: pytest.MonkeyPatch, of_classes: bool) -> None:
    """Which of them runs depends on the sizes alone; ties, NaN, infinities and labels out of range are the same to both."""
    logits = np.random.default_rng(24).integers(0, 4, (6, 10)).astype(np.float32)
    logits[1, 3], logits[2, 5], logits[3] = np.nan, -np.inf, -np.inf
    rows = np.random.default_rng(25).integers(0, 2, (6, 10)).astype(np.float32)
    labels = np.array([0, 3, 2, 3, 4, 10], np.int32) if of_classes else rows
    results = []
    for most in (32, 1):
        monkeypatch.setattr(cross_entropy, "ONE_BLOCK_CLASSES", most)
        results.append([to_numpy(part) for part in device.ops.softmax_cross_entropy(device.array(logits), device.array(labels))])
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    assert results[0][1] == results[1][1]
    np.testing.assert_allclose(results[0][2], results[1][2], rtol=1e-5, atol=1e-7)


def test_class_numbers_are_rows_with_a_one(device: Device) -> None:
    logits, labels = normal(3, 3, 7), np.array([0, 6, 3], np.int32)
    rows = np.eye(7, dtype=np.float32)[labels]
    by_number = [to_numpy(result) for result in device.ops.softmax_cross_entropy(device.array(logits), device.array(labels))]
    by_row = [to_numpy(result) for result in device.ops.softmax_cross_entropy(device.array(logits), device.array(rows))]
    np.testing.assert_allclose(by_number[0], by_row[0], rtol=2**-22)
    assert by_number[1] == by_row[1]
    np.testing.assert_allclose(by_number[2], by_row[2], atol=2**-24)


def test_right_answers_with_ties_and_nan(device: Device) -> None:
    logits = np.array([[1, 1, 0], [0, 1, 1], [0, np.nan, np.nan], [2, np.nan, 0], [-np.inf] * 3], np.float32)
    for labels in ([0, 1, 1, 0, 0], [1, 2, 2, 1, 1]):
        given = np.array(labels, np.int32)
        with np.errstate(invalid="ignore"):
            expected = cpu.softmax_cross_entropy(logits, given)[1]
        assert int(device.ops.softmax_cross_entropy(device.array(logits), device.array(given))[1]) == expected


def test_nan_reaches_the_loss(device: Device) -> None:
    logits = normal(4, 3, 4)
    logits[1, 2] = np.nan
    labels = np.zeros(3, np.int32)
    loss, _, dlogits = device.ops.softmax_cross_entropy(device.array(logits), device.array(labels))
    assert np.isnan(float(loss))
    np.testing.assert_array_equal(np.isnan(to_numpy(dlogits)).all(axis=1), [False, True, False])


def test_a_label_out_of_range_reads_nothing_and_gives_nan(device: Device) -> None:
    logits = normal(5, 2, 3)
    for label in (-1, 3, 2**31 - 1):
        loss, _, _ = device.ops.softmax_cross_entropy(device.array(logits), device.array(np.array([0, label], np.int32)))
        assert np.isnan(float(loss))


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_binary_cross_entropy(device: Device, n: int, k: int) -> None:
    logits = 4 * normal(6, n, k)
    targets = np.random.default_rng(7).uniform(0, 1, (n, k)).astype(np.float32)
    magnitude = np.abs(logits).mean() * 2 + 1
    compare(device, "binary_cross_entropy", logits, targets, magnitude, 2 / logits.size, k + 8)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_mean_squared_error(device: Device, n: int, k: int) -> None:
    y, targets = normal(8, n, k), normal(9, n, k)
    magnitude = np.square(double(y) - double(targets)).mean()
    gradient = 2 * np.abs(double(y) - double(targets)) / y.size
    compare(device, "mean_squared_error", y, targets, magnitude, gradient, k + 4)


@pytest.mark.parametrize("rows", [1, 127, 300])
def test_adding_up_rows(device: Device, rows: int) -> None:
    """The second launch of every loss, over more rows than it has threads."""
    losses, rights = normal(10, rows), np.random.default_rng(11).integers(0, 5, rows).astype(np.int32)
    total, count = Output(device, (1,)), Output(device, (1,), "int32")
    arrays = device.array(losses), device.array(rights), total.array, count.array
    run(add_rows_kernel, 1, BLOCK_LANES, stream(arrays[0]), *arrays, np.float32(0.5))
    ref, magnitude = double(losses).sum(keepdims=True) / 2, np.abs(double(losses)).sum(keepdims=True) / 2
    check(total.result(), ref, magnitude=magnitude, terms=rows, direction="forward")
    assert count.result()[0] == rights.sum()


def test_binary_extremes(device: Device) -> None:
    logits = np.array([[0.0], [100.0], [-100.0], [1e30], [-1e30]], np.float32)
    targets = np.array([[0.5], [1.0], [0.0], [0.0], [1.0]], np.float32)
    loss, correct, dlogits = device.ops.binary_cross_entropy(device.array(logits), device.array(targets))
    np.testing.assert_allclose(float(loss), 2e30 / 5, rtol=2**-22)
    assert int(correct) == 3
    np.testing.assert_allclose(to_numpy(dlogits).ravel(), np.array([0, 0, 0, 1, -1]) / 5, atol=2**-24)


def test_one_column_is_right_by_halves(device: Device) -> None:
    y, targets = np.array([[0.2], [0.7], [0.5], [0.9]], np.float32), np.array([[1.0], [1.0], [0.0], [0.5]], np.float32)
    assert int(device.ops.mean_squared_error(device.array(y), device.array(targets))[1]) == 2


@pytest.mark.parametrize("most", [32, 1])
def test_nothing_times_an_endless_logarithm_is_nothing(device: Device, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A class that has no part in the right answer may be impossible: with one launch and with two, and in binary cross-entropy."""
    monkeypatch.setattr(cross_entropy, "ONE_BLOCK_CLASSES", most)
    logits = np.array([[0, -np.inf, 1, 2], [2, 1, -np.inf, -np.inf]], np.float32)
    rows = np.array([[0.5, 0, 0.5, 0], [1, 0, 0, 0]], np.float32)
    loss, correct, dlogits = device.ops.softmax_cross_entropy(device.array(logits), device.array(rows))
    expected, right, gradient = cpu.softmax_cross_entropy(double(logits), double(rows))
    assert np.isfinite(expected)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(dlogits), gradient, atol=1e-6)
    assert int(correct) == int(right) == 1
    never = np.array([[0, 1, 0, 0], [1, 0, 0, 0]], np.float32)
    assert to_numpy(device.ops.softmax_cross_entropy(device.array(logits), device.array(never))[0]) == np.inf
    z = np.array([[np.inf, -np.inf, 0.5]], np.float32)
    for targets, finite in (([[1, 0, 1]], True), ([[0, 0, 1]], False), ([[1, 0.5, 1]], False)):
        given = np.array(targets, np.float32)
        loss, correct, dz = device.ops.binary_cross_entropy(device.array(z), device.array(given))
        expected, right, gradient = cpu.binary_cross_entropy(z, given)
        assert np.isfinite(expected) == finite and int(correct) == int(right)
        np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-6)
        np.testing.assert_allclose(to_numpy(dz), gradient, atol=1e-6)


@pytest.mark.parametrize("most", [32, 1])
@pytest.mark.parametrize(
    ("name", "k"), [("softmax_cross_entropy", 3), ("binary_cross_entropy", 3), ("mean_squared_error", 3), ("mean_squared_error", 1)]
)
def test_nan_is_no_right_answer(device: Device, monkeypatch: pytest.MonkeyPatch, name: str, k: int, most: int) -> None:
    monkeypatch.setattr(cross_entropy, "ONE_BLOCK_CLASSES", most)
    x = np.zeros((4, k), np.float32)
    x[1], x[2, 0] = np.nan, np.nan
    for column in range(k):
        targets = np.eye(k, dtype=np.float32)[[column] * 4]
        for given in (
            targets,
            *([np.full(4, column, np.int32)] if name.startswith("softmax") else []),
            *([0 * targets] if k == 1 and not name.startswith("softmax") else []),
        ):
            _, correct, _ = getattr(device.ops, name)(device.array(x), device.array(given))
            assert int(correct) == int(getattr(cpu, name)(double(x), given)[1])
