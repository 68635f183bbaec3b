"""What fit takes as Keras's does: models that are not built, a part held back, weights, one batch at a time, batches of others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.data.stream import Stream
from gpucnn.errors import ArgumentError, DataError, GpucnnError, ShapeError

RNG = np.random.default_rng(8)
X = RNG.random((44, 1, 6, 6), dtype=np.float32)
Y = RNG.integers(0, 3, 44)
LABELS = {"categorical_crossentropy": Y, "rows": np.eye(3, dtype=np.float32)[Y], "binary_crossentropy": np.eye(3)[Y], "mse": np.eye(3)[Y]}


def model(loss: str = "categorical_crossentropy", optimizer: Any = None, dtype: str = "float32") -> gc.Sequential:
    made = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).build((1, 6, 6), seed=2, device="cpu", dtype=dtype)
    return made.compile(optimizer or gc.SGD(0.1), "categorical_crossentropy" if loss == "rows" else loss)


def bits(made: gc.Sequential) -> bytes:
    return made.buffers.values.tobytes()  # type: ignore[no-any-return]


# Before build.


def test_compile_before_build_and_fit_that_builds() -> None:
    made = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3))
    assert made.compile("sgd", "mse", ["acc"]) is made and made.metrics == ["accuracy"]
    made.build((1, 6, 6), seed=2, device="cpu")
    made.evaluate(X, Y)
    other = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).compile(gc.SGD(0.1))
    history = other.fit(X, Y, 16, 2, verbose=0)
    assert other.input_shape == (1, 6, 6) and len(history["loss"]) == 2
    expected = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).build((1, 6, 6)).compile(gc.SGD(0.1))
    expected.fit(X, Y, batch_size=16, epochs=2, verbose=False)
    assert bits(other) == bits(expected)


def test_a_loss_that_does_not_go_with_the_model_is_refused_when_it_is_built() -> None:
    made = gc.Sequential(gc.Conv2D(2, 3)).compile()
    with pytest.raises(gc.ShapeError, match="needs one row of outputs per example"):
        made.build((1, 6, 6), device="cpu")
    with pytest.raises(GpucnnError, match="not compiled yet"):
        gc.Sequential(gc.Flatten(), gc.Dense(3)).fit(X, Y)


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_numbers_that_can_only_be_mistyped_are_refused(name: str) -> None:
    made = model()
    before = bits(made)
    with pytest.raises(ArgumentError, match=f"{name} must be at most 2,147,483,647, got 10000000000"):
        made.fit(X, Y, **{name: 10_000_000_000})
    assert bits(made) == before
    made.fit(X, Y, batch_size=2**31 - 1, verbose=False)


# Held back.


@pytest.mark.parametrize(("split", "held"), [(0.25, 11), (0.1, 4), (0.5, 22)])
def test_a_split_holds_the_last_part_back(split: float, held: int) -> None:
    made, expected = model(), model()
    history = made.fit(X, Y, epochs=2, validation_split=split, verbose=False)
    reference = expected.fit(X[:-held], Y[:-held], epochs=2, validation_data=(X[-held:], Y[-held:]), verbose=False)
    assert bits(made) == bits(expected)
    assert history["val_loss"] == reference["val_loss"] and history["val_accuracy"] == reference["val_accuracy"]


def test_splits_that_cannot_be() -> None:
    for split, error in ((1, ArgumentError), (-0.1, ArgumentError), ("a", TypeError), (0.001, ArgumentError), (True, TypeError)):
        with pytest.raises(error, match="validation_split"):
            model().fit(X, Y, validation_split=split, verbose=False)
    with pytest.raises(ArgumentError, match="mean the same"):
        model().fit(X, Y, validation_split=0.1, validation_data=(X, Y), verbose=False)
    for data in (X, (X,), (X, Y, Y), 3):
        with pytest.raises(ArgumentError, match=r"validation_data must be a pair \(x, y\)"):
            model().fit(X, Y, validation_data=data, verbose=False)


def test_an_error_in_the_data_for_validation_says_so() -> None:
    spoiled = X.copy()
    spoiled[3, 0, 0, 0] = np.nan
    for data, error, words in (
        ((spoiled, Y), DataError, "example 3 contains NaN"),
        ((X[:0], Y[:0]), ShapeError, "the batch is empty"),
        ((X[:, :, :5], Y), ShapeError, "the model takes examples of shape"),
        ((X, Y + 9), DataError, "labels must lie in"),
    ):
        with pytest.raises(error, match=f"^validation_data: {words}"):
            model().fit(X, Y, validation_data=data, verbose=False)


# Weights.


@pytest.mark.parametrize("loss", LABELS)
def test_whole_weights_are_examples_that_come_several_times(loss: str) -> None:
    """All in one batch, so that the order does not matter. Three of one example differ from a weight of 3 by the count alone."""
    labels, weights = LABELS[loss], RNG.integers(0, 4, len(X))
    made, repeated = model(loss, dtype="float64"), model(loss, dtype="float64")
    before = made.buffers.values.copy()
    scale = weights.sum() / len(X)
    history = made.fit(X, labels, batch_size=len(X), sample_weight=weights, verbose=False)
    reference = repeated.fit(
        np.repeat(X, weights, axis=0), np.repeat(labels, weights, axis=0), batch_size=int(weights.sum()), verbose=False
    )
    assert history["loss"][0] == pytest.approx(reference["loss"][0] * scale, rel=1e-9)
    np.testing.assert_allclose(made.buffers.values - before, (repeated.buffers.values - before) * scale, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss", LABELS)
def test_weights_of_one_change_nothing_that_counts(loss: str) -> None:
    made, plain = model(loss), model(loss)
    history = made.fit(X, LABELS[loss], epochs=3, sample_weight=np.ones(len(X)), verbose=False)
    reference = plain.fit(X, LABELS[loss], epochs=3, verbose=False)
    assert history["loss"] == pytest.approx(reference["loss"], rel=1e-5)
    assert history["accuracy"] == reference["accuracy"]
    np.testing.assert_allclose(made.buffers.values, plain.buffers.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "rows"])
def test_a_class_weighs_what_each_of_its_examples_weighs(loss: str) -> None:
    made, single, both = model(loss), model(loss), model(loss)
    table = {0: 0.0, 2: 3.5}
    each = np.array([table.get(int(label), 1.0) for label in Y])
    made.fit(X, LABELS[loss], class_weight=table, verbose=False)
    single.fit(X, LABELS[loss], sample_weight=each[:, None], verbose=False)
    both.fit(X, LABELS[loss], class_weight=table, sample_weight=np.full(len(X), 2.0), verbose=False)
    assert bits(made) == bits(single) != bits(both)
    twice = model(loss, gc.SGD(0.2))
    twice.fit(X, LABELS[loss], class_weight=table, verbose=False)
    np.testing.assert_allclose(twice.buffers.values, both.buffers.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("table", [{0: 5.0}, {1: 5.0}, {0: 0.5, 1: 3.0}])
@pytest.mark.parametrize(
    ("loss", "low"),
    [
        (gc.BinaryCrossentropy(), 0),
        (gc.BinaryCrossentropy(label_smoothing=0.1), 0),
        (gc.MeanSquaredError(), 0),
        (gc.Hinge(), 0),
        (gc.Hinge(), -1),
    ],
)
def test_the_two_classes_of_one_output_are_weighted_whatever_stands_for_them(loss: gc.Loss, low: int, table: dict[int, float]) -> None:
    two = Y % 2
    made, single, plain = (gc.Sequential(gc.Flatten(), gc.Dense(1)).build((1, 6, 6), device="cpu").compile("sgd", loss) for _ in range(3))
    labels = np.where(two == 1, 1, low)
    made.fit(X, labels, class_weight=table, verbose=False)
    single.fit(X, labels, sample_weight=np.array([table.get(int(label), 1.0) for label in two]), verbose=False)
    plain.fit(X, labels, verbose=False)
    assert bits(made) == bits(single) != bits(plain)


def test_a_weighted_loss_that_overflows_is_an_error_and_no_warning() -> None:
    made = gc.Sequential(gc.Flatten(), gc.Dense(1)).build((1, 6, 6), device="cpu").compile(gc.SGD(1e30), "mse")
    with warnings.catch_warnings(), pytest.raises(gc.TrainingError):
        warnings.simplefilter("error")
        made.fit(X, Y % 2, epochs=9, sample_weight=np.ones(len(X)), verbose=False)


def test_weights_go_with_a_split_and_with_a_checkpoint(tmp_path: Path) -> None:
    def run(epochs: int, resume: bool, weights: Any) -> bytes:
        made = model()
        path = tmp_path / "c"
        made.fit(
            X,
            Y,
            batch_size=8,
            epochs=epochs,
            sample_weight=weights,
            validation_split=0.25,
            verbose=False,
            callbacks=[gc.Checkpoint(path)],
            resume=path if resume else None,
        )
        return bits(made)

    weights = RNG.random(len(X))
    whole = run(4, False, weights)
    run(2, False, weights)
    assert run(4, True, weights) == whole
    with pytest.raises(gc.CheckpointError, match="training data"):
        run(4, True, weights[::-1])


def test_weights_that_cannot_be() -> None:
    for more, error, message in (
        ({"sample_weight": np.ones(3)}, DataError, "one number for each of the 44 examples"),
        ({"sample_weight": -np.ones(44)}, DataError, "at least 0"),
        ({"sample_weight": np.full(44, np.nan)}, DataError, "finite"),
        ({"sample_weight": "heavy"}, DataError, "sample_weight must be"),
        ({"sample_weight": np.full(44, 1e300)}, DataError, "weight of example 0 is infinite in float32: give smaller"),
        ({"class_weight": {Y[3]: 1e30}, "sample_weight": np.r_[[1] * 3, 1e9, [1] * 40]}, DataError, "weight of example 3 is infinite"),
        ({"class_weight": [1, 2, 3]}, TypeError, "class_weight must be a dict"),
        ({"class_weight": {"a": 1}}, TypeError, "integer"),
        ({"class_weight": {0: -1}}, ArgumentError, "the weight of class 0"),
        ({"class_weight": {0: 1, 7: 2.0}}, ArgumentError, "a weight for class 7, and classes are numbered from 0 to [0-9]$"),
    ):
        with warnings.catch_warnings(), pytest.raises(error, match=message):
            warnings.simplefilter("error")
            model().fit(X, Y, verbose=False, **more)  # type: ignore[arg-type]

    class Own(gc.MeanSquaredError):
        each = gc.Loss.each

    with pytest.raises(ArgumentError, match="does not have the loss of each example"):
        model(Own()).fit(X, LABELS["mse"], sample_weight=np.ones(44), verbose=False)  # type: ignore[arg-type]


def test_a_fit_that_is_refused_leaves_how_the_model_reads_images() -> None:
    made, images = model(), X.transpose(0, 2, 3, 1)
    for x, y, error in ((images[:, 1:], Y, ValueError), (images, Y + 3, DataError), (X, Y, ValueError)):
        with pytest.raises(error):
            made.fit(x, y, data_format="channels_last", verbose=False)
        assert made.data_format is None and made.predict(X).shape == (44, 3)
    made.fit(images, Y, data_format="channels_last", verbose=False)
    assert made.data_format == "channels_last" and made.predict(images).shape == (44, 3)


# One batch at a time, and batches of others.


def test_train_on_batch_is_what_fit_does() -> None:
    made, expected = model(optimizer=gc.Adam()), model(optimizer=gc.Adam())
    history = expected.fit(X, Y, batch_size=len(X), shuffle=False, verbose=False)
    loss, accuracy = made.train_on_batch(X, Y)
    assert (loss, accuracy) == (pytest.approx(history["loss"][0]), history["accuracy"][0]) and bits(made) == bits(expected)
    unbuilt = gc.Sequential(gc.Flatten(), gc.Dense(3)).compile(metrics=[])
    first = unbuilt.train_on_batch(X, Y, class_weight={0: 2.0})
    assert isinstance(first, float) and unbuilt.train_on_batch(X, Y, class_weight={0: 2.0}) < first


class Sequence:
    """As Keras's: a length and items."""

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.pairs[index]


def pairs() -> list[tuple[Any, Any]]:
    return [(X[start : start + 16], Y[start : start + 16]) for start in range(0, 44, 16)]


def endless() -> Iterator[tuple[Any, Any]]:
    while True:
        yield from pairs()


@pytest.mark.parametrize("kind", ["list", "Sequence", "generator", "loader"])
def test_batches_of_others_train_as_ones_own(kind: str) -> None:
    source: Any = {"list": pairs, "Sequence": lambda: Sequence(pairs()), "generator": endless, "loader": loader}[kind]()
    made, expected = model(), model()
    steps = {"steps_per_epoch": 3} if kind == "generator" else {}
    history = made.fit(source, epochs=3, validation_data=pairs(), verbose=False, **steps)
    reference = expected.fit(X, Y, batch_size=16, epochs=3, shuffle=False, validation_data=(X, Y), verbose=False)
    assert bits(made) == bits(expected)
    assert history["loss"] == reference["loss"] and history["val_loss"] == pytest.approx(reference["val_loss"], rel=1e-6)
    assert made.evaluate(pairs()) == pytest.approx(expected.evaluate(X, Y), rel=1e-6)


def loader() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=16)


def test_a_model_is_built_for_the_first_batch_and_the_batch_is_not_lost() -> None:
    made = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).compile(gc.SGD(0.1))
    expected = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).compile(gc.SGD(0.1))
    made.fit(endless(), steps_per_epoch=3, verbose=False)
    expected.fit(pairs(), verbose=False)
    assert bits(made) == bits(expected)


def test_a_loader_that_shuffles_is_passed_over_once_an_epoch() -> None:
    """Whoever looks at its first batch, to build the model or to compile its loops, takes it from the pass that trains."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))

    def trained(built: bool, source: Callable[[Any], Any]) -> bytes:
        torch.manual_seed(3)
        made = gc.Sequential(gc.Flatten(), gc.Dense(3)).compile(gc.SGD(0.1))
        if built:
            made.build(X.shape[1:], device="cpu")
        made.fit(source(torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)), steps_per_epoch=3, epochs=2, verbose=False)
        return bits(made)

    def each(loader: Any) -> Iterator[tuple[Any, Any]]:
        for _ in range(2):
            yield from loader

    expected = trained(True, each)
    assert trained(True, lambda loader: loader) == trained(False, lambda loader: loader) == trained(False, each) == expected


def test_how_many_examples_an_epoch_has_where_the_source_says_so() -> None:
    def of(source: Any, steps: int | None = None) -> int:
        return Stream(source, steps).examples(16)

    assert of(pairs()) == of(Sized(pairs(), 44)) == 44 and of(Sequence(pairs())) == of(endless(), 3) == of(Sized(pairs(), 50)) == 48
    assert of(pairs(), 2) == of(Sized(pairs(), 44), 2) == 32 and of([*pairs(), (X[:3], Y[:3])]) == 64
    assert of(Sized(pairs(), None)) == 48


class Sized:
    """A loader of a set of so many examples, which may have no length."""

    def __init__(self, batches: list[Any], examples: int | None) -> None:
        self.batches, self.dataset = batches, object() if examples is None else range(examples)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def test_batches_that_cannot_be() -> None:
    for source, more, error, message in (
        (endless(), {}, ArgumentError, "give steps_per_epoch"),
        (pairs(), {"steps_per_epoch": 4}, DataError, "ended after 3 of the 4 steps"),
        (pairs(), {"class_weight": {0: 1}}, ArgumentError, "go with arrays"),
        (pairs(), {"validation_split": 0.1}, ArgumentError, "go with arrays"),
        (X, {}, ArgumentError, "labels are missing"),
        (iter([]), {"steps_per_epoch": 2}, DataError, "ended after 0 of the 2"),
        (iter([X]), {"steps_per_epoch": 1}, DataError, r"a batch must be a pair \(x, labels\)"),
        ([(X, Y[:3])], {}, DataError, "a label for each of the 44"),
    ):
        with pytest.raises(error, match=message):
            model().fit(source, verbose=False, **more)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="steps_per_epoch is for batches"):
        model().fit(X, Y, steps_per_epoch=3)
    with pytest.raises(ArgumentError, match="may never end"):
        model().evaluate(endless())


def test_a_run_on_batches_of_others_is_resumed(tmp_path: Path) -> None:
    def run(epochs: int, resume: bool) -> bytes:
        made = model()
        made.fit(
            pairs(), epochs=epochs, verbose=False, callbacks=[gc.Checkpoint(tmp_path / "c")], resume=tmp_path / "c" if resume else None
        )
        return bits(made)

    whole = run(4, False)
    run(2, False)
    assert run(4, True) == whole


# Words.


@pytest.mark.parametrize("verbose", [0, False, None, "auto", 1, 2, True])
def test_levels_of_progress(verbose: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(X, Y, epochs=2, verbose=verbose)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == (2 if verbose in (1, 2) and verbose is not None else 0)


def test_levels_that_there_are_not() -> None:
    for level, error in ((3, ArgumentError), (-1, ArgumentError), ("loud", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="verbose"):
            model().fit(X, Y, verbose=level)


def test_evaluate_and_predict_take_verbose_and_names() -> None:
    made = model()
    loss, accuracy = made.evaluate(X, Y, verbose=0)
    assert made.evaluate(X, Y, return_dict=True) == {"loss": loss, "accuracy": accuracy}
    np.testing.assert_array_equal(made.predict(X, verbose=1), made.predict(X, 16))


def test_an_augmentation_goes_by_name() -> None:
    made, expected = model(), model()
    with pytest.raises(TypeError, match=r"augment must be a callable \(x, rng\) -> x, got .*Shift.*: call the class, to make one"):
        made.fit(X, Y, augment=gc.data.Shift, verbose=False)
    made.fit(X, Y, augment="shift", verbose=False)
    expected.fit(X, Y, augment=gc.data.Shift(), verbose=False)
    assert bits(made) == bits(expected)


@pytest.mark.parametrize(
    ("method", "argument", "hint"),
    [
        ("fit", "initial_epoch", r"a further call of fit continues where .* ended"),
        ("fit", "validation_freq", "validation follows each epoch"),
        ("fit", "workers", "give fit a loader that prepares batches"),
        ("fit", "epoch", r"did you mean epochs\?"),
        ("fit", "nonsense", "it takes x, y, batch_size, .*parallel$"),
        ("evaluate", "sample_weight", "weights are for training, in fit and train_on_batch"),
        ("predict", "steps", "give as many batches"),
        ("compile", "weighted_metrics", "metrics are not weighted"),
        ("train_on_batch", "reset_metrics", "it takes x, y, class_weight, sample_weight$"),
    ],
)
def test_an_argument_of_keras_is_told_what_there_is(method: str, argument: str, hint: str) -> None:
    with pytest.raises(TypeError, match=rf"^Sequential.{method}\(\) got an unexpected keyword argument '{argument}': .*{hint}"):
        getattr(model(), method)(**{argument: 1})


def test_weights_of_validation_are_refused_with_a_reason() -> None:
    with pytest.raises(ArgumentError, match=r"^validation_data must be a pair .* of 3: weights of examples are for training alone$"):
        model().fit(X, Y, validation_data=(X, Y, np.ones(44)), verbose=False)


@pytest.mark.parametrize("batches", [lambda: [(X[:32], Y[:32]), (X[32:], Y[32:])], lambda: iter([(X, Y)]), lambda: Loader()])
def test_predict_says_what_to_do_with_batches(batches: Callable[[], Any]) -> None:
    with pytest.raises(
        DataError, match=r"^predict takes examples \(N, …\), got a \w+ that is not an array .*model.predict\(x\) for x, _ in batches"
    ):
        model().predict(batches())
    rows = [tuple(row) for row in X[:3].reshape(3, 2, 18)]  # looks like batches, and is an array of examples
    made = gc.Sequential(gc.Dense(2)).build((36,), device="cpu")
    with pytest.raises(ShapeError, match="the model takes examples of shape"):
        made.predict(rows)


class Loader:
    """Batches as a data loader yields them."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(X, Y)])


def keras_callback(**methods: Any) -> gc.Callback:
    return type("Keras", (gc.Callback,), methods)()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (
            {"on_epoch_begin": lambda self, epoch, logs=None: None},
            "^Keras has on_epoch_begin, which is never called: the events are on_train",
        ),
        ({"on_train_batch_end": lambda self, batch, logs=None: None}, "^Keras has on_train_batch_end, which is never called"),
        (
            {"on_epoch_end": lambda self, epoch, logs=None: None},
            r"^Keras.on_epoch_end takes logs, and is called with .*: on_epoch_end\(self, run\)",
        ),
    ],
)
def test_a_callback_as_keras_has_them_is_refused(methods: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model().fit(X, Y, callbacks=[keras_callback(**methods)], verbose=False)


def test_a_callback_may_have_more_than_events() -> None:
    seen: list[int] = []
    more = {"on_improvement": lambda self: None, "on_epoch_end": lambda self, run, wide=True: seen.append(run.epoch)}
    model().fit(X, Y, epochs=2, callbacks=[keras_callback(**more)], verbose=False)
    assert seen == [1, 2]


def test_batches_that_are_none_are_told_what_they_must_be() -> None:
    for parts in (3, 1):
        with pytest.raises(ArgumentError, match=f"^batches must be pairs \\(x, y\\), got a first one of {parts}$"):
            model().fit([(X, Y, np.ones(44))[:parts]], verbose=False)
    singles = [(X[index], Y[index]) for index in range(44)]  # as a data set of PyTorch's yields them
    with pytest.raises(DataError, match=r"with a label for each example, got the label .*: is this one example\?$"):
        model().fit(singles, verbose=False)
    with pytest.raises(DataError, match=r"got the label 1: is this one example\?$"):
        model().fit([(X[0], 1)], verbose=False)
    with pytest.raises(DataError, match=r"^labels must be an array of numbers, got "):
        model().fit([(X, [[1], [1, 2]])], verbose=False)
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    with pytest.raises(DataError, match=r"got the label tensor\(.\): is this one example\?$"):
        model().fit(dataset, verbose=False)
    model().fit(torch.utils.data.DataLoader(dataset, batch_size=11), verbose=False)


def test_weights_of_classes_go_with_one_class_for_each_example() -> None:
    rows = np.eye(3)[Y]
    model("binary_crossentropy").fit(X, rows, class_weight={0: 2.0}, verbose=False)
    for answers, count in (([1, 1, 0], 2), ([0, 0, 0], 0)):
        rows[5] = answers
        with pytest.raises(DataError, match=f"^class_weight goes with one class .* example 5 has {count}: give sample_weight$"):
            model("binary_crossentropy").fit(X, rows, class_weight={0: 2.0}, verbose=False)
        model("binary_crossentropy").fit(X, rows, sample_weight=np.ones(44), verbose=False)
