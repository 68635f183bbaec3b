"""What every public function takes in the same way: arrays of any kind, numbers of NumPy, and callers who have told NumPy to raise."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import arrays
from gpucnn.errors import DataError
from gpucnn.functional import __all__ as functions

F = gc.functional
RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)
FLOATS = (PIXELS / 255).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def model(last: int = 3, loss: str = "categorical_crossentropy", seed: int = 0) -> gc.Sequential:
    made = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(last)).build((1, 4, 4), seed=seed, device="cpu")
    return made.compile(gc.SGD(0.1), loss)


def fitted(x: Any, y: Any) -> Any:
    made = model()
    made.fit(x, y, batch_size=4, epochs=2, verbose=False)
    return made.buffers.values


def validated(x: Any, y: Any) -> Any:
    return model().fit(FLOATS, LABELS, verbose=False, validation_data=(x, y))["val_loss"]


# Every way in for examples and labels.
TAKES: dict[str, Callable[[Any, Any], Any]] = {
    "fit": fitted,
    "validation_data": validated,
    "evaluate": lambda x, y: model().evaluate(x, y),
    "predict": lambda x, y: model().predict(x),
    "forward": lambda x, y: model().forward(x),
}


class Own(np.ndarray):
    """A subclass from somewhere else."""


def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda array: array.tolist(),
    "tuple of arrays": tuple,
    "array of another width": lambda array: array.astype(np.float64 if array.dtype.kind == "f" else np.int64),
    "array of the other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
    "subclass": lambda array: array.view(Own),
    "read only": lambda array: np.broadcast_to(array, array.shape),
    "tensor": lambda array: torch().from_numpy(array.copy()),
    "tensor that wants gradients": lambda array: torch().from_numpy(array.copy()).requires_grad_(array.dtype.kind == "f"),
    "list of tensors": lambda array: list(torch().from_numpy(array.copy())),
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("way", TAKES)
@pytest.mark.parametrize("examples", ["pixels", "floats"])
def test_whatever_holds_the_same_examples_gives_the_same(way: str, kind: str, examples: str) -> None:
    x = PIXELS if examples == "pixels" else FLOATS
    np.testing.assert_array_equal(TAKES[way](SAME[kind](x), LABELS), TAKES[way](x, LABELS))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("way", TAKES)
def test_whole_numbers_of_every_width_are_pixels(way: str, dtype: type) -> None:
    x = PIXELS // 2 if dtype is np.int8 else PIXELS
    np.testing.assert_array_equal(TAKES[way](x.astype(dtype), LABELS), TAKES[way](x, LABELS))


@pytest.mark.parametrize("way", TAKES)
@pytest.mark.parametrize("wrong", [-1, 256])
def test_whole_numbers_that_are_no_pixels_are_refused(way: str, wrong: int) -> None:
    x = PIXELS.astype(np.int64)
    x[3, 0, 1, 1] = wrong
    with pytest.raises(DataError, match=rf"are pixels and must be in 0\.\.255, got .*{wrong}.*floats"):
        TAKES[way](x, LABELS)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "masked": (lambda: np.ma.masked_array(FLOATS, mask=FLOATS > 0.5), "masked array"),
    "masked, with nothing under the mask": (lambda: np.ma.masked_array(FLOATS), "masked array"),
    "list with a masked array": (lambda: [np.ma.masked_array(FLOATS[0]), *FLOATS[1:]], "masked array"),
    "strings": (lambda: np.full((6, 1, 4, 4), "a"), "must be numbers, got <U1"),
    "complex": (lambda: FLOATS.astype(complex), "must be numbers, got complex128"),
    "objects": (lambda: FLOATS.astype(object), "must be numbers, got object"),
    "rows of two lengths": (lambda: [[[[1.0]]], [[[1.0, 2.0]]]], "must be"),
    "nothing": (lambda: None, "must be numbers"),
    "what fails when it is asked": (lambda: types.SimpleNamespace(__array__=3, __len__=3), "must be"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("way", TAKES)
def test_what_holds_no_numbers_is_refused_in_a_sentence(way: str, kind: str) -> None:
    make, match = REFUSED[kind]
    with pytest.raises(DataError, match=match):
        TAKES[way](make(), LABELS)


@pytest.mark.parametrize("way", ["fit", "validation_data", "evaluate"])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS.tolist(),
        LABELS[:, None],
        LABELS[:, None].tolist(),
        LABELS.astype(np.uint8),
        LABELS.astype(">i8"),
        LABELS.view(Own),
        np.eye(3)[LABELS],
        np.eye(3, dtype=int)[LABELS].tolist(),
        np.eye(3, dtype=bool)[LABELS],
    ],
)
def test_labels_of_every_form(way: str, labels: Any) -> None:
    np.testing.assert_allclose(TAKES[way](FLOATS, labels), TAKES[way](FLOATS, LABELS), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("labels", [np.ma.masked_array(LABELS), ["a"] * 6, LABELS[:, None, None], LABELS + 0.5])
def test_labels_of_no_form_are_refused(labels: Any) -> None:
    for way in ("fit", "validation_data", "evaluate"):
        with pytest.raises(DataError):
            TAKES[way](FLOATS, labels)


# Metrics.


@pytest.mark.parametrize("wrap", [np.asarray, lambda array: np.asarray(array).tolist(), lambda array: torch().as_tensor(np.asarray(array))])
@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        (np.eye(4), [0, 1, 2, 3], 1.0),
        (np.eye(4), [[0], [1], [2], [3]], 1.0),
        (np.eye(4), np.eye(4), 1.0),
        (np.eye(4), [0, 1, 2, 0], 0.75),
        ([[0.9], [0.8], [0.1], [0.7]], [1, 1, 0, 1], 1.0),
        ([[0.9], [0.8], [0.1], [0.7]], [[1], [0], [0], [1]], 0.75),
        ([0.9, 0.5, 0.1, 0.7], [1, 0, 0, 1], 1.0),  # half is not over half
        ([[0.1, np.nan], [0.2, 0.8], [np.nan, np.nan], [0.7, 0.3]], [1, 1, 0, 0], 0.5),
        ([[np.nan], [0.2], [0.1], [np.nan]], [0, 0, 0, 1], 0.5),
    ],
)
def test_accuracy_of_every_form(scores: Any, labels: Any, expected: float, wrap: Any) -> None:
    assert gc.metrics.accuracy(wrap(scores), wrap(labels)) == expected


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (np.ma.masked_array(np.eye(3)), [0, 1, 2]),
        (np.eye(3), [0, 1, 3]),
        (np.eye(3), [0, -1, 2]),
        (np.eye(3), [0.0, 1.0, 2.0]),
        (np.eye(3), np.eye(4)[:3]),
        ([[0.1], [0.9]], [2, 0]),
        ([[0.1], [0.9]], [[1, 0], [0, 1]]),
        ([["a"], ["b"]], [1, 0]),
        (3.0, 1),
    ],
)
def test_accuracy_refuses_the_rest(scores: Any, labels: Any) -> None:
    with pytest.raises(DataError):
        gc.metrics.accuracy(scores, labels)


def test_confusion_matrix_takes_columns_and_refuses_scores() -> None:
    expected = [[1, 1], [0, 2]]
    for wrap in (list, np.asarray, lambda values: np.asarray(values)[:, None], lambda values: torch().as_tensor(values)):
        np.testing.assert_array_equal(gc.metrics.confusion_matrix(wrap([0, 0, 1, 1]), wrap([0, 1, 1, 1]), np.int64(2)), expected)
    with pytest.raises(DataError, match="integers, got float64"):
        gc.metrics.confusion_matrix([0, 1], [0.0, np.nan], 2)


# The stateless functions.

X = FLOATS
CALLS: dict[str, tuple[Any, ...]] = {  # arrays first, then the rest
    "avg_pool2d": ((X,), (2,)),
    "avg_pool2d_grad": ((np.ones((6, 1, 2, 2), np.float32),), ((6, 1, 4, 4), 2)),
    "batch_norm": ((X, np.ones(1, np.float32), np.zeros(1, np.float32)), ()),
    "conv2d": ((X, np.ones((2, 1, 3, 3), np.float32), np.ones(2, np.float32)), ()),
    "conv2d_input_grad": ((np.ones((6, 2, 2, 2), np.float32), np.ones((2, 1, 3, 3), np.float32)), ((6, 1, 4, 4),)),
    "conv2d_weight_grad": ((np.ones((6, 2, 2, 2), np.float32), X), ((2, 1, 3, 3),)),
    "conv_transpose2d": ((X, np.ones((1, 2, 3, 3), np.float32), np.ones(2, np.float32)), ()),
    "dense": ((X.reshape(6, 16), np.ones((3, 16), np.float32), np.ones(3, np.float32)), ()),
    "elu": ((X,), ()),
    "flatten": ((X,), ()),
    "gelu": ((X,), ()),
    "global_avg_pool2d": ((X,), ()),
    "global_max_pool2d": ((X,), ()),
    "hard_sigmoid": ((X,), ()),
    "hard_swish": ((X,), ()),
    "leaky_relu": ((X,), ()),
    "max_pool2d": ((X,), (2,)),
    "max_pool2d_grad": ((np.ones((6, 1, 2, 2), np.float32),), (np.zeros((6, 1, 2, 2), np.int32), (6, 1, 4, 4), 2)),
    "relu": ((X,), ()),
    "relu6": ((X,), ()),
    "sigmoid": ((X,), ()),
    "silu": ((X,), ()),
    "softmax": ((X.reshape(6, 16),), ()),
    "softmax_cross_entropy": ((X.reshape(6, 16),), (LABELS,)),
    "tanh": ((X,), ()),
    "zero_pad2d": ((X,), (1,)),
}


def flat(result: Any) -> list[Any]:
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


def test_every_function_is_walked() -> None:
    assert set(CALLS) == set(functions)


@pytest.mark.parametrize("kind", ["list", "strided", "subclass", "tensor that wants gradients"])
@pytest.mark.parametrize("name", CALLS)
def test_functions_take_what_models_take(name: str, kind: str) -> None:
    given, rest = CALLS[name]
    expected = flat(getattr(F, name)(*given, *rest))
    result = flat(getattr(F, name)(*map(SAME[kind], given), *rest))
    assert all(one.dtype == other.dtype for one, other in zip(result, expected, strict=True))
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", CALLS)
def test_functions_refuse_masked_arrays_whole_numbers_and_none(name: str) -> None:
    given, rest = CALLS[name]
    for place in range(len(given)):
        for wrong in (np.ma.masked_array(given[place]), given[place].astype(np.int64), "x", given[place].astype(complex)):
            with pytest.raises(TypeError):
                getattr(F, name)(*given[:place], wrong, *given[place + 1 :], *rest)


# Callers who have told NumPy to raise.


def everything(seed: int) -> list[Any]:
    """Infinity, underflow and overflow on their way through training, answers, losses, metrics and augmentation."""
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        x = (rng.normal(size=(24, 1, 6, 6)) * 10.0 ** rng.integers(-38, 30, (24, 1, 6, 6))).astype(np.float32)
        wide = x.astype(np.float64) * 1e9
        large = {name: [array * np.float32(1e30) for array in given] for name, (given, _) in CALLS.items()}
    y = np.arange(24) % 3
    made = (
        gc.Sequential(
            gc.Conv2D(4, 3, activation="relu"),
            gc.MaxPool2D(2),
            gc.Flatten(),
            gc.Dropout(0.2),
            gc.Dense(8, activation="sigmoid"),
            gc.Dense(3),
        )
        .build((1, 6, 6), seed=seed, device="cpu")
        .compile(gc.Adam(1e-3, weight_decay=1e-3))
    )
    small = np.tanh(x)
    results: list[Any] = []
    for kind in ("shift", "affine", "elastic", "crop-flip", "cutout"):
        made.fit(small, y, batch_size=5, epochs=1, augment=gc.data.augmentation(kind), verbose=False, validation_data=(small, y))
        results.append(made.buffers.values.copy())
    results += [made.predict(x), made.evaluate(small.astype(np.float64), y), made.forward(wide)]
    for name, (_, rest) in CALLS.items():
        results += flat(getattr(F, name)(*large[name], *rest))
    for loss in (gc.BinaryCrossentropy(), gc.MeanSquaredError(), gc.CategoricalCrossentropy()):
        logits = np.array([[1e30, -1e30, 0], [200, -200, 1e-40], [3, 4, 5]], np.float32)
        results += [np.asarray(part) for part in loss(gc.get_device("cpu"), logits, np.eye(3, dtype=np.float32))]
    parameters = made.forward(small, training=True)
    made.backward(np.full_like(parameters, 1e-30))
    assert made.optimizer is not None
    made.optimizer.step()
    return [*results, made.buffers.values.copy()]


def test_numpy_told_to_raise_changes_nothing() -> None:
    expected = everything(1)
    with np.errstate(all="raise"):
        raising = everything(1)
    for one, other in zip(raising, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("error")
def test_and_prints_nothing() -> None:
    everything(2)


# Numbers of NumPy.

NUMBERS: list[tuple[Callable[[Any], Any], Any]] = [
    (lambda n: gc.Dense(n), 4),
    (lambda n: gc.Conv2D(n, n, stride=n, padding=n, dilation=n, groups=n), 1),
    (lambda n: gc.Conv2D(2, (n, n), padding=((n, n), (n, n))), 1),
    (lambda n: gc.MaxPool2D(n, stride=n, padding=n, dilation=n), 1),
    (lambda n: gc.AvgPool2D((n, n)), 2),
    (lambda n: gc.Dropout(n), 0.5),
    (lambda n: gc.SGD(n, momentum=n, weight_decay=n), 0.5),
    (lambda n: gc.Adam(n, beta1=n, beta2=n, epsilon=n), 0.5),
    (lambda n: gc.AdamW(weight_decay=n), 0.5),
    (lambda n: gc.StepDecay(0.5, every=n, factor=n), 2),
    (lambda n: gc.Cosine(0.5, steps=n, final=n), 2),
    (lambda n: gc.OneCycle(0.5, steps=n, start_factor=n, end_factor=n), 3),
    (lambda n: gc.EarlyStopping(patience=n, min_delta=n), 2),
    (lambda n: gc.Checkpoint("a", every=n), 2),
    (lambda n: gc.data.Shift(n), 2),
    (lambda n: gc.data.CropFlip(n), 2),
    (lambda n: gc.data.Cutout(n), 2),
    (lambda n: gc.data.Affine(n, n), 2),
    (lambda n: gc.data.Affine(scale=n), 0.5),
    (lambda n: gc.data.Elastic(n, n, n, n), 2),
    (lambda n: gc.data.Batches(FLOATS, LABELS, n, seed=n), 2),
    (lambda n: gc.load_dataset("digits", seed=n), 1),
    (lambda n: gc.network("keras", n), 3),
    (lambda n: gc.Sequential(gc.Flatten()).build((n, n, n), seed=n, device="cpu"), 2),
    (lambda n: model().fit(FLOATS, LABELS, batch_size=n, epochs=n, seed=n, verbose=False), 2),
    (lambda n: model().predict(FLOATS, batch_size=n), 2),
    (lambda n: model().evaluate(FLOATS, LABELS, batch_size=n), 2),
]


@pytest.mark.parametrize("number", range(len(NUMBERS)))
def test_numbers_of_numpy_are_numbers(number: int) -> None:
    make, value = NUMBERS[number]
    kinds = [np.int8, np.uint8, np.int32, np.int64, np.uint64] if isinstance(value, int) else [np.float16, np.float32, np.float64]
    expected = described(make(value))
    for kind in kinds:
        assert described(make(kind(value))) == expected
    if isinstance(value, int):
        assert described(make(np.array(value))) == expected  # no axes: a number


def described(made: Any) -> Any:
    """What something says of itself, where numbers of NumPy would be seen: they print otherwise."""
    for name in ("config", "settings"):
        if hasattr(made, name):
            return repr(getattr(made, name)())
    return repr(vars(made)) if isinstance(made, gc.EarlyStopping | gc.Checkpoint) and sys.stdout is None else type(made).__name__


@pytest.mark.parametrize(
    "make",
    [
        lambda n: gc.Adam(epsilon=n),
        lambda n: gc.Adam(n),
        lambda n: gc.SGD(n),
        lambda n: gc.SGD(0.1, momentum=0.5, weight_decay=n),
        lambda n: gc.AdamW(weight_decay=n),
        lambda n: gc.Cosine(n, 3),
        lambda n: gc.OneCycle(n, 3),
        lambda n: gc.StepDecay(n, 3),
        lambda n: gc.data.Affine(n),
        lambda n: gc.Dropout(n),
    ],
)
def test_settings_that_vanish_in_float32_are_refused(make: Any) -> None:
    for value in (1e-50, 1e-300, np.float64(1e-46)):
        with pytest.raises(ValueError, match="which is zero in float32"):
            make(value)


@pytest.mark.parametrize("make", [lambda n: gc.Adam(beta1=n), lambda n: gc.Adam(beta2=n), lambda n: gc.SGD(momentum=n), gc.Dropout])
def test_fractions_that_become_one_in_float32_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="which is 1 in float32"):
        make(1 - 1e-12)
    make(1 - 2.0**-24)


# 0 · log 0, and fans of groups.


@pytest.mark.parametrize("endless", [-np.inf, np.inf])
def test_what_has_no_part_in_the_right_answer_has_none_in_the_loss(endless: float) -> None:
    logits = np.array([[0.0, -np.inf, 1.0], [2.0, 1.0, -np.inf]], np.float32)
    numbers, _ = F.softmax_cross_entropy(logits, [2, 0])
    rows, gradient = F.softmax_cross_entropy(logits, np.eye(3, dtype=np.float32)[[2, 0]])
    assert rows == pytest.approx(float(numbers), rel=1e-6)
    assert rows == pytest.approx((np.log1p(np.exp(-1)) + np.log1p(np.exp(-1))) / 2, rel=1e-6)
    assert np.isfinite(gradient).all()
    never, _ = F.softmax_cross_entropy(logits, [[0, 1, 0], [1, 0, 0]])
    assert never == np.inf
    loss, correct, dz = gc.get_device("cpu").ops.binary_cross_entropy(
        np.array([[endless, 0.0]], np.float32), np.array([[float(endless > 0), 1.0]], np.float32)
    )
    assert float(loss) == pytest.approx(np.log(2) / 2) and int(correct) == 1 and np.isfinite(dz).all()
    assert gc.get_device("cpu").ops.binary_cross_entropy(np.array([[endless]]), np.array([[float(endless < 0)]]))[0] == np.inf


@pytest.mark.parametrize("loss", [gc.CategoricalCrossentropy(), gc.BinaryCrossentropy(), gc.MeanSquaredError()])
@pytest.mark.parametrize("outputs", [1, 3])
def test_nan_is_no_right_answer(loss: gc.Loss, outputs: int) -> None:
    outputs = 3 if isinstance(loss, gc.CategoricalCrossentropy) else outputs
    y = np.full((4, outputs), np.nan, np.float32)
    for label in range(outputs):
        targets = np.eye(outputs, dtype=np.float32)[[label] * 4]
        for given in (targets, 0 * targets) if isinstance(loss, gc.BinaryCrossentropy) or outputs == 1 else (targets,):
            assert int(loss(gc.get_device("cpu"), y, given)[1]) == 0
    if isinstance(loss, gc.CategoricalCrossentropy):
        assert int(loss(gc.get_device("cpu"), y, np.arange(4) % 3)[1]) == 0


@pytest.mark.parametrize("groups", [1, 4, 64])
def test_the_spread_of_grouped_weights(groups: int) -> None:
    """Glorot: 2 / (fan_in + fan_out), and an input feeds the outputs of its own group only."""
    made = gc.Sequential(gc.Conv2D(64, 3, groups=groups)).build((64, 8, 8), seed=0, device="cpu")
    weight = made.parameters["conv2d_1.weight"].value
    assert weight.std() == pytest.approx(np.sqrt(2 / (9 * 64 / groups + 9 * 64 / groups)), rel=0.1)
    from gpucnn.initializers import fans

    assert fans((64, 64 // groups, 3, 3), groups) == (9 * 64 // groups, 9 * 64 // groups)


def test_numbers_leaves_arrays_as_they_are() -> None:
    assert arrays.numbers(X, "x") is X
    assert arrays.examples(PIXELS, np.dtype("float32")) is PIXELS
