"""Losses: values by SciPy and PyTorch, gradients by numerical differentiation, extremes, and every refusal of labels."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import special

import gpucnn as gc
import gpucnn.functional as F
from gpucnn.errors import DataError, ShapeError, UnknownNameError
from gpucnn.losses import check_class_labels, get_loss
from gpucnn.metrics import METRICS
from gpucnn.ops import cpu

F64 = np.dtype("float64")


def test_cross_entropy_is_minus_the_log_softmax_at_the_label(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(6, 4)) * 3, rng.integers(0, 4, 6)
    loss, dlogits = F.softmax_cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(-special.log_softmax(logits, axis=1)[np.arange(6), labels].mean(), rel=1e-13)
    np.testing.assert_allclose(dlogits, (special.softmax(logits, axis=1) - np.eye(4)[labels]) / 6, rtol=1e-12, atol=1e-15)


def test_one_hot_rows_give_what_class_numbers_give(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    by_number, by_row = F.softmax_cross_entropy(logits, labels), F.softmax_cross_entropy(logits, np.eye(4)[labels])
    assert float(by_number[0]) == pytest.approx(float(by_row[0]), rel=1e-14)
    np.testing.assert_allclose(by_number[1], by_row[1], rtol=1e-13, atol=1e-16)
    column = F.softmax_cross_entropy(logits, labels[:, None])
    np.testing.assert_array_equal(column[1], by_number[1])


def test_cross_entropy_is_pytorchs_for_numbers_and_soft_rows(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    logits = rng.normal(size=(6, 4))
    for labels in (rng.integers(0, 4, 6), rng.dirichlet(np.ones(4), 6)):
        tensor = torch.tensor(logits, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels))
        expected.backward()
        loss, dlogits = F.softmax_cross_entropy(logits, labels)
        assert float(loss) == pytest.approx(expected.item(), rel=1e-12)
        np.testing.assert_allclose(dlogits, tensor.grad.numpy(), rtol=1e-11, atol=1e-14)


def loss_cases(rng: np.random.Generator) -> list[tuple[Any, Any]]:
    return [
        (cpu.softmax_cross_entropy, rng.integers(0, 3, 5).astype(np.int32)),
        (cpu.softmax_cross_entropy, rng.dirichlet(np.ones(3), 5)),
        (cpu.softmax_cross_entropy, rng.random((5, 3)) * 2),  # rows that sum to anything have an exact gradient as well
        (cpu.binary_cross_entropy, rng.random((5, 3))),
        (cpu.mean_squared_error, rng.normal(size=(5, 3))),
    ]


@pytest.mark.parametrize("case", range(5))
def test_gradients_of_losses_are_the_numerical_ones(case: int, rng: np.random.Generator, numerical_gradient: Any) -> None:
    function, labels = loss_cases(rng)[case]
    outputs = rng.normal(size=(5, 3))
    kept = outputs.copy(), labels.copy()
    expected = numerical_gradient(lambda: float(function(outputs, labels)[0]), outputs)
    np.testing.assert_allclose(function(outputs, labels)[2], expected, rtol=1e-6, atol=1e-9)
    out = np.full_like(outputs, np.nan)
    np.testing.assert_array_equal(function(outputs, labels, out=out)[2], out)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(outputs, kept[0])
    np.testing.assert_array_equal(labels, kept[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_give_the_right_finite_loss(dtype: str) -> None:
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss, _, dlogits = cpu.softmax_cross_entropy(logits, np.array([1, 1], np.int32))
        assert float(loss) == 1e4  # 2e4 for the first row, 0 for the second
        np.testing.assert_array_equal(dlogits, [[0.5, -0.5, 0], [0, 0, 0]])
        soft = np.array([[0, 1, 0], [0, 1, 0]], dtype)
        assert float(cpu.softmax_cross_entropy(logits, soft)[0]) == 1e4
        loss, _, dlogits = cpu.binary_cross_entropy(np.array([[1e4], [-1e4]], dtype), np.array([[0], [0]], dtype))
        assert float(loss) == 5e3
        np.testing.assert_array_equal(dlogits, [[0.5], [0]])
    assert dlogits.dtype == dtype


def test_binary_cross_entropy_is_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    logits, targets = rng.normal(size=(5, 3)) * 5, rng.random((5, 3))
    tensor = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(tensor, torch.tensor(targets))
    expected.backward()
    loss, _, dlogits = cpu.binary_cross_entropy(logits, targets)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(dlogits, tensor.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_mean_squared_error_is_the_mean_over_all_elements() -> None:
    loss, _, dy = cpu.mean_squared_error(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 4.0]]))
    assert float(loss) == (0 + 4 + 9 + 0) / 4
    np.testing.assert_array_equal(dy, [[0, 1], [1.5, 0]])


def test_right_answers_are_counted_and_the_first_of_equals_is_the_guess() -> None:
    outputs = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 3.0]])
    assert int(cpu.softmax_cross_entropy(outputs, np.array([0, 2, 2], np.int32))[1]) == 2
    assert int(cpu.softmax_cross_entropy(outputs, np.eye(3)[[0, 1, 2]])[1]) == 3
    assert int(cpu.mean_squared_error(outputs, np.eye(3)[[1, 1, 2]])[1]) == 2
    assert int(cpu.mean_squared_error(np.array([[0.6], [0.5], [0.4]]), np.array([[1.0], [1.0], [0.0]]))[1]) == 2
    assert int(cpu.binary_cross_entropy(np.array([[0.1, -0.1], [0.0, 5.0]]), np.array([[1.0, 0.0], [0.0, 0.0]]))[1]) == 3


def test_the_mean_of_many_float32_losses_is_summed_in_float64() -> None:
    # 2²⁰ losses of 0.1 in float32 would be off in the fifth figure if they were added one after another.
    logits = np.zeros((1 << 16, 2), np.float32)
    loss, _, _ = cpu.softmax_cross_entropy(logits, np.zeros(1 << 16, np.int32))
    assert float(loss) == pytest.approx(np.float32(np.log(2)), rel=1e-7)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"a label for each of the 3 examples, got labels of shape \(2,\)"),
        (1, r"a label for each of the 3 examples, got labels of shape \(\)"),
        ([0, 1, 4], r"labels must lie in 0..3 for 4 outputs, got 4 at index 2"),
        ([0, -1, 4], r"labels must lie in 0..3 for 4 outputs, got -1 at index 1"),
        ([0.0, 1.0, 2.0], r"class numbers must be integers, got float64: convert them with .astype\('int64'\), or pass prob"),
        (["a", "b", "a"], r"got <U1 of shape \(3,\): number the classes first, names, labels = np.unique\(labels, return_inverse=True\)"),
        ([1j, 0, 0], r"got complex128 of shape \(3,\): give .real or abs\(\) of them"),
        ([True, False, True], r"class numbers must be integers, got bool"),
        (["a", "b", "c"], r"labels must be numbers, got <U1"),
        (np.eye(3), r"expects labels of shape \(3, 4\), got \(3, 3\)"),
        (np.zeros((3, 4)), r"each row's sum 1"),
        (np.full((3, 4), 0.3), r"each row's sum 1"),
        (np.array([[1.5, -0.5, 0, 0]] * 3), r"at least 0"),
        (np.full((3, 4), np.nan), r"NaN or infinity"),
        (np.zeros((3, 4, 1)), r"expects labels of shape \(3, 4\), got \(3, 4, 1\)"),
        (np.array([["a"] * 4] * 3), r"labels must be numbers, got <U1"),
    ],
)
def test_class_labels_that_do_not_fit_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_class_labels(labels, 3, 4, F64)
    with pytest.raises(DataError, match=message):
        F.softmax_cross_entropy(np.zeros((3, 4)), labels)


def test_class_labels_of_every_kind_become_int32_or_rows() -> None:
    for given in ([0, 3, 1], np.array([0, 3, 1], np.uint8), np.array([[0], [3], [1]], np.int64)):
        checked = check_class_labels(given, 3, 4, F64)
        assert checked.dtype == np.int32
        assert checked.tolist() == [0, 3, 1]
    rows = check_class_labels(np.eye(4, dtype=np.int64)[:3], 3, 4, np.dtype("float32"))
    assert rows.dtype == np.float32
    # uint8 cannot hold 300: the comparison must not wrap around.
    assert check_class_labels(np.array([255], np.uint8), 1, 300, F64).tolist() == [255]


def test_targets_of_the_other_losses_are_checked() -> None:
    binary, squared = gc.BinaryCrossentropy(), gc.MeanSquaredError()
    assert binary.check_labels([0, 1, 1], 3, 1, F64).tolist() == [[0], [1], [1]]
    assert binary.check_labels(np.array([True, False, True]), 3, 1, F64).tolist() == [[1], [0], [1]]
    for wrong in ([0, 1, 2], [0, -0.1, 1]):
        with pytest.raises(DataError, match=r"must lie in 0..1, got"):
            binary.check_labels(wrong, 3, 1, F64)
    with pytest.raises(DataError, match=r"'binary_crossentropy' expects labels of shape \(3, 2\), got \(3,\)"):
        binary.check_labels([0, 1, 1], 3, 2, F64)
    assert squared.check_labels([0, 2, 1], 3, 3, F64).tolist() == np.eye(3)[[0, 2, 1]].tolist()
    assert squared.check_labels([0.5, 2, 1], 3, 1, F64).tolist() == [[0.5], [2], [1]]
    with pytest.raises(DataError, match=r"labels must lie in 0..2 for 3 outputs, got 3 at index 1"):
        squared.check_labels([0, 3, 1], 3, 3, F64)
    with pytest.raises(DataError, match=r"expects labels of shape \(3, 2\)"):
        squared.check_labels(np.zeros((3, 3)), 3, 2, F64)
    with pytest.raises(DataError, match="NaN or infinity"):
        squared.check_labels([np.inf, 0, 0], 3, 1, F64)


def test_losses_are_found_by_name_and_others_refused_with_a_hint() -> None:
    for name, kind in (
        ("categorical_crossentropy", gc.CategoricalCrossentropy),
        ("binary_crossentropy", gc.BinaryCrossentropy),
        ("mean_squared_error", gc.MeanSquaredError),
    ):
        assert type(get_loss(name)) is kind
    with pytest.raises(UnknownNameError, match=r"unknown loss 'categorical_crossentrpy': .*did you mean 'categorical_crossentropy'\?"):
        get_loss("categorical_crossentrpy")
    with pytest.raises(UnknownNameError, match="unknown loss None"):
        get_loss(None)


def test_a_loss_refuses_a_model_that_it_does_not_go_with() -> None:
    image = gc.Sequential(gc.Conv2D(2, 3)).build((1, 5, 5), device="cpu")
    with pytest.raises(ShapeError, match=r"needs one row of outputs per example, got \(2, 3, 3\): end with Flatten"):
        image.compile()
    for last, loss in (("sigmoid", "categorical_crossentropy"), ("softmax", "binary_crossentropy")):
        model = gc.Sequential(gc.Dense(2, activation=last)).build((3,), device="cpu")
        with pytest.raises(ValueError, match=rf"loss '{loss}' needs a last activation .* or none, got '{last}'"):
            model.compile(loss=loss)
        model.compile(loss="mean_squared_error")


@pytest.mark.parametrize(
    "layers",
    [
        [gc.Dense(3, activation="softmax"), gc.Flatten()],
        [gc.Dense(3), gc.Softmax(), gc.Dropout(0.5)],
        [gc.Stack(gc.Dense(3, activation="sigmoid"), gc.Flatten()), gc.Dropout(0.1)],
        [gc.Conv2D(3, 1, activation="softmax"), gc.GlobalAvgPool2D()],
    ],
)
def test_probabilities_behind_another_layer_are_not_taken_for_logits(layers: list[gc.Layer]) -> None:
    shape = (1, 2, 2) if isinstance(layers[0], gc.Conv2D) else (2,)
    model = gc.Sequential(layers).build(shape, device="cpu")
    for loss in ("categorical_crossentropy", "binary_crossentropy"):
        with pytest.raises(gc.ArgumentError, match=rf"^loss '{loss}' takes raw outputs, .* has other layers after it: put them before"):
            model.compile(loss=loss)
        with pytest.raises(gc.ArgumentError, match="has other layers after it"):
            gc.Sequential(copy.deepcopy(layers)).compile(loss=loss).build(shape, device="cpu")
    model.compile(loss="mse")  # takes them as they are


@pytest.mark.parametrize(
    "layers",
    [[gc.Dense(3, activation="softmax"), gc.Dense(3)], [gc.Flatten(), gc.Dropout(0.5)], [gc.Dense(3, activation="relu"), gc.Flatten()]],
)
def test_other_ends_are_logits(layers: list[gc.Layer]) -> None:
    gc.Sequential(layers).build((3,), device="cpu").compile(loss="categorical_crossentropy")


@pytest.mark.parametrize("labels", [[0, 2, 1], [[0], [2], [1]]])
def test_class_numbers_stand_for_one_hot_rows_under_the_squared_error(labels: Any) -> None:
    loss = gc.MeanSquaredError()
    np.testing.assert_array_equal(loss.check_labels(labels, 3, 3, np.dtype("float32")), np.eye(3)[[0, 2, 1]])
    np.testing.assert_array_equal(loss.check_labels([[0], [2], [1]], 3, 1, np.dtype("float32")), [[0], [2], [1]])
    np.testing.assert_array_equal(loss.check_labels([[0], [1], [1]], 3, 2, np.dtype("float32")), np.eye(2)[[0, 1, 1]])
    with pytest.raises(DataError, match=r"expects labels of shape \(3, 3\), got \(3, 2\)"):
        loss.check_labels([[0, 1]] * 3, 3, 3, np.dtype("float32"))


def test_targets_of_binary_cross_entropy_may_be_any_part_of_one() -> None:
    loss = gc.BinaryCrossentropy()
    for targets in ([0.2, 0.9], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]):
        np.testing.assert_allclose(loss.check_labels(targets, 2, 1, np.dtype("float64"))[:, 0], targets)
    for targets in ([-0.001, 0.5], [0.5, 1.001], [0.2, 2.0]):
        with pytest.raises(DataError, match=r"must lie in 0\.\.1"):
            loss.check_labels(targets, 2, 1, np.dtype("float64"))


def test_rows_of_probabilities_may_be_off_by_a_thousandth() -> None:
    exact = np.array([[0.25, 0.75], [1.0, 0.0]])
    for off in (0.0, 0.0009, -0.0009):
        check_class_labels(exact + np.array([[off, 0], [0, 0]]), 2, 2, F64)
    for off in (0.0021, -0.0021):
        with pytest.raises(DataError, match="each row's sum 1"):
            check_class_labels(exact + np.array([[off, 0], [0, 0]]), 2, 2, F64)
    with pytest.raises(DataError, match="each row's sum 1"):
        check_class_labels(exact / 2, 2, 2, F64)


def test_answers_are_examples_or_each_output() -> None:
    rows = np.zeros((5, 3))
    assert [gc.CategoricalCrossentropy().answers(rows), gc.MeanSquaredError().answers(rows), gc.BinaryCrossentropy().answers(rows)] == [
        5,
        5,
        15,
    ]


def test_a_row_may_take_away_from_a_class() -> None:
    """The sum is linear in the labels, whatever their sign: log softmax (0, log 3) is (−log 4, log 3 − log 4)."""
    loss, correct, dlogits = cpu.softmax_cross_entropy(np.log([[1.0, 3.0]]), np.array([[1.5, -0.5]]))
    assert float(loss) == pytest.approx(1.5 * np.log(4) + 0.5 * np.log(3 / 4), rel=1e-14) and correct == 0
    np.testing.assert_allclose(dlogits, [[0.25 - 1.5, 0.75 + 0.5]], rtol=1e-14)


def test_where_a_loss_of_rows_has_no_logarithm_of_zero() -> None:
    """−t·log 0 is 0 where t is, and infinite where it is not, on both sides of a sigmoid that is full."""
    infinite = np.array([[np.inf], [-np.inf], [0.0]])
    loss, correct, _ = cpu.binary_cross_entropy(infinite, np.array([[1.0], [0.0], [1.0]]))
    assert float(loss) == pytest.approx(np.log(2) / 3) and int(correct) == 2
    for targets in ([[0.0], [0.0], [1.0]], [[1.0], [1.0], [1.0]]):
        assert float(cpu.binary_cross_entropy(infinite, np.array(targets))[0]) == np.inf
    loss, _, _ = cpu.softmax_cross_entropy(np.array([[0.0, -np.inf]]), np.array([[1.0, 0.0]]))
    assert float(loss) == 0


@pytest.mark.parametrize("value", [np.nan, -np.nan])
def test_nan_is_no_right_answer(value: float) -> None:
    rows = np.array([[value, 0.0], [0.0, 1.0]])
    assert int(cpu.softmax_cross_entropy(rows, np.array([0, 1], np.int32))[1]) == 1
    assert int(cpu.softmax_cross_entropy(rows, np.eye(2))[1]) == 1
    assert int(cpu.mean_squared_error(rows, np.eye(2))[1]) == 1
    assert int(cpu.mean_squared_error(np.array([[value], [1.0], [value]]), np.array([[0.0], [1.0], [1.0]]))[1]) == 1
    assert int(cpu.binary_cross_entropy(rows, np.array([[0.0, 0.0], [0.0, 1.0]]))[1]) == 3


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 1, 1)])
def test_outputs_are_one_row_for_each_example(shape: tuple[int, ...]) -> None:
    for loss in (gc.CategoricalCrossentropy(), gc.BinaryCrossentropy(), gc.MeanSquaredError()):
        loss.check_model((3,), None)
        with pytest.raises(ShapeError, match="needs one row of outputs per example"):
            loss.check_model(shape, None)


def test_whole_numbers_under_the_squared_error_are_classes_only_in_one_row_or_column() -> None:
    loss = gc.MeanSquaredError()
    assert loss.check_labels([0, 2, 1], 3, 1, F64).tolist() == [[0], [2], [1]]
    rows = loss.check_labels(np.array([[0, 2, 5], [1, 0, 0], [7, 0, 3]]), 3, 3, F64)
    assert rows.dtype == F64 and rows.tolist() == [[0, 2, 5], [1, 0, 0], [7, 0, 3]]
    for shape in ((3, 0), (3, 1, 3), (3, 3, 1), ()):
        with pytest.raises(DataError):
            loss.check_labels(np.zeros(shape, int), 3, 3, F64)
        with pytest.raises(DataError):
            loss.check_labels(np.zeros(shape), 3, 1, F64)


def test_a_target_too_large_for_its_type_is_infinite_whatever_numpy_was_told_to_raise() -> None:
    with np.errstate(all="raise"):
        for loss in (gc.MeanSquaredError(), gc.BinaryCrossentropy()):
            with pytest.raises(DataError, match="NaN or infinity"):
                loss.check_labels([1e300, 0.0], 2, 1, np.dtype("float32"))
        with pytest.raises(DataError, match="NaN or infinity"):
            check_class_labels(np.array([[1e300, 0.0]]), 1, 2, np.dtype("float32"))


def test_a_half_is_not_more_than_a_half() -> None:
    halves = np.array([[0.5], [0.5]])
    assert int(cpu.binary_cross_entropy(np.array([[-1.0], [0.0]]), halves)[1]) == 2
    assert int(cpu.binary_cross_entropy(np.array([[1.0], [0.25]]), halves)[1]) == 0
    assert int(cpu.mean_squared_error(np.array([[0.4], [0.5]]), halves)[1]) == 2
    assert int(cpu.mean_squared_error(np.array([[0.6], [1.0]]), halves)[1]) == 0


# Hinge, the root of the mean squared error, label smoothing.


@pytest.mark.parametrize("name", ["hinge", "root_mean_squared_error"])
@pytest.mark.parametrize("k", [1, 4])
def test_gradients_of_margins_and_roots_are_the_numerical_ones(
    name: str, k: int, rng: np.random.Generator, numerical_gradient: Any
) -> None:
    y, targets = rng.normal(size=(5, k)) * 2, np.where(rng.normal(size=(5, k)) > 0, 1.0, -1.0)
    loss, _, dy = getattr(cpu, name)(y, targets)
    np.testing.assert_allclose(dy, numerical_gradient(lambda: float(getattr(cpu, name)(y, targets)[0]), y), rtol=1e-5, atol=1e-8)
    expected = np.maximum(0, 1 - targets * y).mean() if name == "hinge" else np.sqrt(((y - targets) ** 2).mean())
    assert float(loss) == pytest.approx(expected, rel=1e-13)
    out = np.empty_like(y)
    assert getattr(cpu, name)(y, targets, out=out)[2] is out
    np.testing.assert_array_equal(out, dy)


def test_hinge_takes_signs_bits_and_class_numbers() -> None:
    loss = gc.Hinge()
    expected = np.array([[1, -1, -1], [-1, -1, 1]])
    for labels in (expected, (expected + 1) // 2, np.array([0, 2])):
        np.testing.assert_array_equal(loss.check_labels(labels, 2, 3, F64), expected)
    np.testing.assert_array_equal(loss.check_labels(np.array([0, 1, 1]), 3, 1, F64), [[-1], [1], [1]])
    for wrong, message in (([[0.5, 1, 0]], "must be −1 and 1, or 0 and 1, got 0..1"), ([[-1, 0, 1]], "got all three")):
        with pytest.raises(DataError, match=message):
            loss.check_labels(np.array(wrong), 1, 3, F64)
    y = np.array([[0.5, 2.0, -3.0], [0.1, 0.2, 0.3]])
    assert int(cpu.hinge(y, expected.astype(float))[1]) == 1


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_is_pytorchs(smoothing: float, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    loss = gc.CategoricalCrossentropy(label_smoothing=smoothing)
    rows = loss.targets(loss.check_labels(labels, 6, 4, F64), 4, F64)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    tensor = torch.tensor(logits, requires_grad=True)
    ref = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels), label_smoothing=smoothing)
    ref.backward()
    value, _, dlogits = cpu.softmax_cross_entropy(logits, rows)
    assert float(value) == pytest.approx(float(ref.detach()), rel=1e-12)
    np.testing.assert_allclose(dlogits, tensor.grad, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(loss.targets(loss.check_labels(np.eye(4)[labels], 6, 4, F64), 4, F64), rows)
    bits = gc.BinaryCrossentropy(label_smoothing=smoothing).targets(np.array([[0.0], [1.0]]), 1, F64)
    np.testing.assert_allclose(bits[:, 0], [smoothing / 2, 1 - smoothing / 2])
    with pytest.raises(ValueError, match="label_smoothing must be at least 0 and below 1, got 1"):
        gc.CategoricalCrossentropy(label_smoothing=1)


@pytest.mark.parametrize("form", ["numbers", "rows", "two classes"])
def test_label_smoothing_is_for_the_loss_and_metrics_see_the_labels(form: str, rng: np.random.Generator, monkeypatch: Any) -> None:
    """In evaluate and in fit, for arrays and for batches; the loss of all of them, and that of the validation, is PyTorch's."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    seen: list[Any] = []
    monkeypatch.setitem(METRICS, "seen", lambda scores, labels: seen.append(labels.copy()) or 0.0)
    units = 1 if form == "two classes" else 3
    x, numbers = rng.normal(size=(10, 5)), rng.integers(0, max(units, 2), 10)
    y = {"numbers": numbers, "rows": np.eye(3)[numbers % 3], "two classes": numbers[:, None].astype(float)}[form]
    loss = (gc.BinaryCrossentropy if units == 1 else gc.CategoricalCrossentropy)(label_smoothing=0.2)

    def model() -> gc.Sequential:
        made = gc.Sequential(gc.Dense(units)).build((5,), seed=1, device="cpu", dtype="float64")
        return made.compile(gc.SGD(0.1), loss, ["seen"])

    def reference(model: gc.Sequential) -> float:
        outputs = torch.tensor(model.forward(x))
        if units == 1:
            return float(torch.nn.functional.binary_cross_entropy_with_logits(outputs, torch.tensor(y * 0.8 + 0.1)))
        return float(torch.nn.functional.cross_entropy(outputs, torch.tensor(y), label_smoothing=0.2))

    made, batched, single = model(), model(), model()
    before = reference(made)
    assert made.evaluate(x, y, batch_size=4)[0] == pytest.approx(before, rel=1e-12)
    history = made.fit(x, y, batch_size=10, validation_data=(x, y), verbose=False)
    batched.fit([(x, y)], validation_data=[(x[:5], y[:5]), (x[5:], y[5:])], shuffle=False, verbose=False)
    assert history["loss"] == pytest.approx([before], rel=1e-12) and single.train_on_batch(x, y) == pytest.approx(before, rel=1e-12)
    assert history["val_loss"] == pytest.approx([reference(made)], rel=1e-12)
    for other in (batched, single):
        np.testing.assert_allclose(other.buffers.values, made.buffers.values, rtol=1e-12)
    assert len(seen) == 3
    for labels in seen:
        np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("loss", ["hinge", "root_mean_squared_error", gc.CategoricalCrossentropy(label_smoothing=0.2)])
def test_they_train_and_are_saved_with_the_model(loss: Any, tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    model = gc.Sequential(gc.Dense(8, activation="relu"), gc.Dense(3)).build((5,), device="cpu").compile(gc.Adam(0.02), loss)
    history = model.fit(x, y, batch_size=16, epochs=12, verbose=False)
    assert history["loss"][-1] < history["loss"][0] and history["accuracy"][-1] > 0.7
    model.save(tmp_path / "m.safetensors")
    again = gc.load(tmp_path / "m.safetensors", device="cpu")
    assert again.loss is not None and model.loss is not None and again.loss.config() == model.loss.config()
    assert again.evaluate(x, y) == model.evaluate(x, y)
    assert type(get_loss(model.loss.config())) is type(model.loss)


def test_a_loss_of_ones_own_may_return_numbers_of_python() -> None:
    class Absolute(gc.Loss):
        name = "absolute"

        def check_labels(self, labels: Any, count: int, outputs: int, dtype: Any) -> Any:
            return np.asarray(labels, dtype).reshape(count, outputs)

        def __call__(self, device: Any, outputs: Any, labels: Any) -> Any:
            return float(abs(outputs - labels).mean()), 0, np.sign(outputs - labels) / labels.size

    x, y = np.linspace(0, 1, 12).reshape(6, 2), np.arange(6.0)
    model = gc.Sequential(gc.Dense(1)).build((2,), device="cpu").compile(gc.SGD(0.0), Absolute(), [])
    expected = pytest.approx(np.abs(model.forward(x)[:, 0] - y).mean(), rel=1e-6)
    history = model.fit(x, y, validation_data=(x, y), batch_size=4, verbose=False)
    assert history["loss"] == [expected] and history["val_loss"] == [expected]
    assert model.evaluate(x, y) == model.train_on_batch(x, y) == expected


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 7.0, dtype=np.float32)])
def test_a_loss_of_ones_own_may_write_to_what_it_is_given(weights: Any) -> None:
    """The last layer needs its outputs for its gradient, and labels are the caller's."""

    class InPlace(gc.MeanSquaredError):
        name = "in_place"

        def __call__(self, device: Any, outputs: Any, labels: Any) -> Any:
            loss, correct, gradient = super().__call__(device, outputs, labels)
            outputs[...] = labels[...] = np.nan
            return loss, correct, gradient

        def each(self, device: Any, outputs: Any, labels: Any) -> Any:
            loss = super().each(device, outputs, labels)
            outputs[...] = labels[...] = np.nan
            return loss

    x, y = np.linspace(-1, 1, 18, dtype=np.float32).reshape(6, 3), np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
    labels, found = y.copy(), []
    for loss in (gc.MeanSquaredError(), InPlace()):
        model = gc.Sequential(gc.Dense(2, activation="tanh")).build((3,), seed=1, device="cpu").compile(gc.SGD(0.1), loss, ["precision"])
        trained = [model.train_on_batch(x, labels, sample_weight=weights) for _ in range(3)]
        fitted = model.fit(x, labels, epochs=2, sample_weight=weights, validation_data=(x, labels), shuffle=False, verbose=False)
        found.append([*trained, *fitted["loss"], *fitted["val_loss"], *fitted["val_precision"], *model.evaluate(x, labels)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize(
    "order", [np.asfortranarray, lambda array: np.repeat(array, 2, axis=1)[:, ::2], lambda array: array.astype("float64")]
)
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_the_gradient_of_a_loss_of_ones_own_may_lie_in_memory_in_any_order(order: Any, activation: Any) -> None:
    class Ordered(gc.CategoricalCrossentropy):
        name = "ordered"

        def __call__(self, device: Any, outputs: Any, labels: Any) -> Any:
            loss, correct, gradient = super().__call__(device, outputs, labels)
            return loss, correct, order(gradient)

    x, y, found = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32), np.arange(12) % 3, []
    for loss in (gc.CategoricalCrossentropy(), Ordered()):
        model = gc.Sequential(gc.Dense(8), gc.Dense(3, activation=activation)).build((5,), seed=1, device="cpu").compile(gc.SGD(0.1), loss)
        model.fit(x, y, epochs=3, batch_size=6, verbose=False)
        found.append(model.predict(x))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize("returned", [None, 1.0, (1.0, 0)])
def test_a_loss_of_ones_own_returns_three(returned: Any) -> None:
    class Own(gc.MeanSquaredError):
        name = "own"

        def __call__(self, device: Any, outputs: Any, labels: Any) -> Any:
            return returned

    model = gc.Sequential(gc.Dense(2)).build((3,), device="cpu").compile(gc.SGD(0.1), Own(), [])
    for train in (model.train_on_batch, lambda x, y: model.fit(x, y, verbose=False)):
        with pytest.raises(TypeError, match=r"^loss 'own' must return \(loss, correct, doutputs\), got "):
            train(np.ones((4, 3)), np.ones((4, 2)))


@pytest.mark.parametrize(
    ("gradient", "got"), [(np.ones((4, 1)), r"an array of shape \(4, 1\)"), (np.ones(2), r"an array of shape \(2,\)"), (0.5, "0.5")]
)
def test_the_gradient_of_a_loss_of_ones_own_has_the_shape_of_the_outputs(gradient: Any, got: str) -> None:
    class Own(gc.MeanSquaredError):
        name = "own"

        def __call__(self, device: Any, outputs: Any, labels: Any) -> Any:
            return 1.0, 0, gradient

    model = gc.Sequential(gc.Dense(2)).build((3,), device="cpu").compile(gc.SGD(0.1), Own(), [])
    for train in (model.train_on_batch, lambda x, y: model.fit(x, y, verbose=False)):
        with pytest.raises(ShapeError, match=rf"loss 'own' must return a gradient of the shape of the outputs, \(4, 2\), got {got}$"):
            train(np.ones((4, 3)), np.ones((4, 2)))
