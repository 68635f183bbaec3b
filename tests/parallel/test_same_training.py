"""One number of ranks is as good as another: the parameters, the history, evaluation and prediction that one rank has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpucnn as gc
from gpucnn.data import augment
from gpucnn.data.batches import Batches
from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.ops import cpu
from gpucnn.ops.cpu.dropout import dropout as plain_dropout
from gpucnn.ops.cpu.dropout import philox
from gpucnn.training.communicator import Communicator
from gpucnn.training.parallel import slice_of
from local_ranks import failures, together

RANDOM = np.random.default_rng(3)
COUNT, BATCH = 67, 11  # seven steps an epoch, the last of one example: fewer than there are ranks
IMAGES = RANDOM.integers(0, 256, (COUNT, 2, 9, 9)).astype(np.uint8)
LABELS = RANDOM.integers(0, 4, COUNT)
SAME = {
    "float32": 1e-5,
    "float64": 1e-12,
}  # after some fifty steps: roundings, and those of double precision


def network(dtype: str, **norm: Any) -> gc.Sequential:
    """Everything that draws at random or looks at a whole batch, also within a layer made of layers."""
    return gc.Sequential(
        gc.Conv2D(6, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.BatchNorm2D(activation="relu", **norm),
        gc.Residual(gc.Conv2D(6, 3, padding="same", use_bias=False), gc.BatchNorm2D(**norm), gc.Dropout(0.2), activation="relu"),
        gc.Flatten(),
        gc.Dropout(0.3),
        gc.Dense(5, activation="relu"),
        gc.Dense(4),
    ).build((2, 9, 9), seed=2, device="cpu", dtype=dtype)


def trained(ranks: Communicator, make: Callable[[], gc.Sequential], **options: Any) -> tuple[gc.Sequential, gc.History]:
    model = make()
    x, y = options.pop("data", (IMAGES, LABELS))
    history = model.fit(x, y, **{"batch_size": BATCH, "epochs": 7, "verbose": False, **options}, parallel=ranks)
    return model, history


def values(model: gc.Sequential) -> np.ndarray[Any, Any]:
    return np.asarray(model.buffers.copy())


def compared(make: Callable[[], gc.Sequential], sizes: tuple[int, ...], within: float, **options: Any) -> None:
    """Parameters, running statistics and the history of so many ranks are those of one; all ranks have the same bits."""
    one, expected = trained(Communicator(), make, **options)
    for size in sizes:
        found = together(size, lambda ranks: trained(ranks, make, **options))
        for model, history in found:
            np.testing.assert_array_equal(values(model), values(found[0][0]))
            assert model.state() == one.state()
            assert history.rows == found[0][1].rows
        np.testing.assert_allclose(values(found[0][0]), values(one), rtol=within, atol=within)
        for row, other in zip(found[0][1].rows, expected.rows, strict=True):
            clocks = {"seconds", "images_per_second"}
            assert {**row, **dict.fromkeys(clocks, 0)} == pytest.approx({**other, **dict.fromkeys(clocks, 0)}, rel=100 * within)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_after_fifty_steps_are_those_of_one_rank(dtype: str) -> None:
    def make() -> gc.Sequential:
        clipped = 0.5 if dtype == "float64" else None  # by the norm of the sums over all ranks
        return network(dtype).compile(gc.SGD(0.01, momentum=0.9, global_clipnorm=clipped))

    sizes = (3, 4) if dtype == "float64" else (2, 3)
    compared(make, sizes, SAME[dtype], augment="elastic", validation_data=(IMAGES[:20], LABELS[:20]))


def test_the_same_number_of_ranks_gives_the_same_bits_again() -> None:
    def make() -> gc.Sequential:
        return network("float32").compile("adam")

    first, again = (together(3, lambda ranks: values(trained(ranks, make, epochs=2)[0])) for _ in range(2))
    np.testing.assert_array_equal(first, again)


TARGETS: Mapping[str, Any] = {
    "categorical_crossentropy": np.eye(4)[LABELS] * 0.9 + 0.025,
    "binary_crossentropy": (RANDOM.random((COUNT, 4)) > 0.5).astype(float),
    "mean_squared_error": RANDOM.normal(size=(COUNT, 4)),
    "hinge": RANDOM.choice([-1.0, 1.0], (COUNT, 4)),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", TARGETS)
def test_a_loss_is_the_mean_over_the_whole_batch(loss: str, weighted: bool) -> None:
    def make() -> gc.Sequential:
        model = gc.Sequential(gc.Flatten(), gc.Dense(4)).build((2, 9, 9), seed=1, device="cpu", dtype="float64")
        return model.compile(gc.SGD(0.05), loss)

    weights = {"sample_weight": RANDOM.random(COUNT)} if weighted else {}
    compared(make, (3,), 1e-12, data=(IMAGES, TARGETS[loss]), epochs=2, **weights)


def test_a_loss_that_is_no_mean_of_its_examples_is_refused() -> None:
    def work(ranks: Communicator) -> None:
        model = gc.Sequential(gc.Flatten(), gc.Dense(4)).build((2, 9, 9), device="cpu").compile("sgd", "root_mean_squared_error")
        model.fit(IMAGES, TARGETS["mean_squared_error"], parallel=ranks)

    for error in failures(2, work):
        assert isinstance(error, ArgumentError) and "cannot be shared among ranks" in str(error)


def lifted(x: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """An augmentation of the user's own, which draws in an order of its own."""
    return (x + rng.normal(size=(len(x), 1, 1, 1)) * rng.random()).astype(x.dtype)


def test_a_function_of_ones_own_changes_the_whole_batch() -> None:
    def make() -> gc.Sequential:
        return gc.Sequential(gc.Flatten(), gc.Dense(4)).build((2, 9, 9), seed=1, device="cpu", dtype="float64").compile("sgd")

    compared(make, (2,), 1e-12, augment=lifted, epochs=2)


def test_batches_from_outside_are_shared_as_well() -> None:
    cuts = [0, 1, 9, 10, 30, 67]
    source = [(IMAGES[a:b], LABELS[a:b]) for a, b in itertools.pairwise(cuts)]

    def make() -> gc.Sequential:
        return network("float64").compile("sgd")

    compared(make, (3,), 1e-12, data=(source, None), epochs=2)


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_a_part_of_a_batch_is_changed_as_the_whole_would_be(name: str) -> None:
    batches = Batches(IMAGES, LABELS, BATCH, seed=4, augment=augment.for_images(name, 9))  # type: ignore[arg-type]
    whole = list(batches.epoch(1, 2))
    for rank in range(3):
        parts = list(batches.epoch(1, 2, lambda size, rank=rank: slice(rank, max(rank + 1, size - 1))))
        for (x, labels), (full, others) in zip(parts[:-1], whole[:-1], strict=True):
            np.testing.assert_array_equal(x, full[rank : len(full) - 1])
            np.testing.assert_array_equal(labels, others[rank : len(full) - 1])


@given(st.integers(1, 200), st.integers(1, 30))
def test_slices_cover_a_batch_evenly(size: int, ranks: int) -> None:
    parts = [slice_of(size, ranks, rank) for rank in range(ranks)]
    assert [place for first, count in parts for place in range(first, first + count)] == list(range(size))
    assert max(count for _, count in parts) - min(count for _, count in parts) <= 1
    assert all(first < size for first, _ in parts)  # an example that counts for nothing is there for an empty part


@given(st.integers(1, 60), st.integers(0, 59), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_a_part_drops_what_the_whole_would_drop(size: int, cut: int, before: int) -> None:
    cut = min(cut, size - 1)
    x, calls = np.arange(1, size + 1, dtype=np.float32), np.array([5, 0], np.uint32)
    for dropout in (cpu.dropout, plain_dropout):
        whole = dropout(x, calls, 0.5, 9, first=before)
        parts = [dropout(x[:cut], calls, 0.5, 9, first=before), dropout(x[cut:], calls, 0.5, 9, first=before + cut)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(whole == 0, philox(size, 9, 5, before) < 2**31)


def test_words_from_the_middle_are_those_of_a_longer_draw() -> None:
    for first in range(9):
        np.testing.assert_array_equal(philox(7, 3, 4, first), philox(40, 3, 4)[first : first + 7])


def test_batch_normalization_by_rank_has_the_same_running_statistics_everywhere() -> None:
    def make() -> gc.Sequential:
        return network("float64", sync=False).compile("sgd")

    data = (IMAGES[:64], LABELS[:64])
    found = together(2, lambda ranks: trained(ranks, make, data=data, batch_size=16, epochs=1)[0])
    np.testing.assert_array_equal(values(found[0]), values(found[1]))
    one, _ = trained(Communicator(), make, data=data, batch_size=16, epochs=1)
    mean = "batchnorm2d_1.running_mean"
    # The means of halves average to that of the whole; what was learned from them is another thing.
    first = together(2, lambda ranks: trained(ranks, make, data=(IMAGES[:16], LABELS[:16]), batch_size=16, epochs=1)[0])
    alone, _ = trained(Communicator(), make, data=(IMAGES[:16], LABELS[:16]), batch_size=16, epochs=1)
    np.testing.assert_allclose(first[0].arrays[mean].value, alone.arrays[mean].value, rtol=1e-12)
    assert np.abs(values(found[0]) - values(one)).max() > 1e-6


def test_batch_normalization_by_rank_wants_two_numbers_on_each() -> None:
    def work(ranks: Communicator) -> None:
        model = gc.Sequential(gc.Flatten(), gc.BatchNorm2D(sync=False), gc.Dense(4)).build((2, 9, 9), device="cpu").compile("sgd")
        model.fit(IMAGES, LABELS, batch_size=3, verbose=False, parallel=ranks)

    for error in failures(2, work):
        assert isinstance(error, ShapeError) and "at least two numbers" in str(error)


def test_whether_statistics_are_shared_is_part_of_the_layer() -> None:
    assert "sync" not in gc.BatchNorm2D().settings()  # files of earlier versions stay what they were
    layer = gc.BatchNorm2D(sync=False)
    assert gc.BatchNorm2D.from_settings(layer.settings()).sync is False  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_evaluation_and_prediction_have_the_bits_of_one_rank(size: int) -> None:
    model = network("float32").compile("sgd", "mean_squared_error", ["accuracy", "top_5_accuracy"])
    targets = np.eye(4, dtype=np.float32)[LABELS]
    measured, outputs = model.evaluate(IMAGES, targets, 16), model.predict(IMAGES, 16)

    def work(ranks: Communicator) -> tuple[Any, Any]:
        own = network("float32").compile("sgd", "mean_squared_error", ["accuracy", "top_5_accuracy"])
        return own.evaluate(IMAGES, targets, 16, parallel=ranks), own.predict(IMAGES, 16, parallel=ranks)

    for found, predicted in together(size, work):
        assert found == measured
        np.testing.assert_array_equal(predicted, outputs)


OTHERS: Mapping[str, dict[str, Any]] = {
    "examples: number is 30 on": {"x": IMAGES[:30], "y": LABELS[:30]},
    "examples: checksum is ": {"x": np.roll(IMAGES, 1)},
    "labels: checksum is ": {"y": LABELS[::-1]},
    "batch size: which is 8 on": {"size": 8},
    "parameters: which is ": {"seed": 4},
}


@pytest.mark.parametrize("words", OTHERS)
def test_ranks_that_would_measure_something_else_are_refused_with_both_values(words: str) -> None:
    """Each would take what the others have found of another model, or of other examples."""

    def measure(ranks: Communicator) -> Any:
        given = {"x": IMAGES, "y": LABELS, "size": 16, "seed": 3} | (OTHERS[words] if ranks.rank else {})
        model = gc.Sequential(gc.Flatten(), gc.Dense(4)).build((2, 9, 9), seed=given["seed"], device="cpu").compile("sgd")
        return model, given

    def evaluates(ranks: Communicator) -> None:
        model, given = measure(ranks)
        model.evaluate(given["x"], given["y"], given["size"], parallel=ranks)

    def predicts(ranks: Communicator) -> None:
        model, given = measure(ranks)
        model.predict(given["x"], given["size"], parallel=ranks)

    for work in (evaluates, predicts):
        if work is predicts and words.startswith("labels"):
            continue
        for error in failures(2, work):
            assert isinstance(error, ArgumentError), error
            assert str(error).startswith(f"the ranks do not see the same {words}")
            assert "on rank 1 (host0)" in str(error) and "on rank 0 (host0)" in str(error)


def test_a_part_is_known_to_the_layers_while_they_train_and_no_longer() -> None:
    def work(ranks: Communicator) -> list[Any]:
        model, _ = trained(ranks, lambda: network("float32").compile("sgd"), epochs=1)
        assert model.chain.done is None
        return [layer.part for layer in model.layers]

    assert together(2, work) == [[None] * 8] * 2
