"""Sequential: building, fitting, evaluating, predicting, and what each of them refuses."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
from scipy import special

import gpucnn as gc
import gpucnn.functional as F
from gpucnn.errors import ArgumentError, DataError, DeviceError, GpucnnError, ShapeError, TrainingError, UnknownNameError
from gpucnn.metrics import METRICS


def network(**build: Any) -> gc.Sequential:
    model = gc.Sequential(
        gc.Conv2D(4, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(8, activation="relu"), gc.Dropout(0.2), gc.Dense(3)
    )
    return model.build((1, 6, 6), **{"seed": 0, "device": "cpu"} | build)


def compiled(**build: Any) -> gc.Sequential:
    return network(**build).compile(gc.Adam(0.01))


@pytest.fixture
def images(rng: np.random.Generator) -> Any:
    return rng.random((50, 1, 6, 6), dtype=np.float32)


@pytest.fixture
def labels(rng: np.random.Generator) -> Any:
    return rng.integers(0, 3, 50)


def values(model: gc.Sequential) -> dict[str, Any]:
    return {name: parameter.value.copy() for name, parameter in model.parameters.items()}


def same_values(one: gc.Sequential, other: gc.Sequential) -> bool:
    return all(np.array_equal(value, values(other)[name]) for name, value in values(one).items())


# Building.


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        (
            lambda: [gc.Conv2D(4, 3), gc.MaxPool2D(2), gc.Conv2D(8, 7)],
            (1, 8, 8),
            r"layer 3 of 3, Conv2D\(filters=8, kernel_size=\(7, 7\).*kernel is 7 pixels high .* padded image only 3",
        ),
        (lambda: [gc.Dense(3)], (1, 8, 8), r"layer 1 of 1, Dense\(units=3.*shape \(1, 8, 8\): put a Flatten\(\) before it"),
        (lambda: [gc.Flatten(), gc.Conv2D(2, 3)], (1, 8, 8), r"layer 2 of 2, Conv2D.*works on images .*got an input of shape \(64,\)"),
        (lambda: [gc.Flatten(), gc.MaxPool2D(2)], (1, 8, 8), r"layer 2 of 2, MaxPool2D.*works on images"),
        (lambda: [gc.Conv2D(2, 1), gc.MaxPool2D(3, padding=2)], (1, 8, 8), r"layer 2 of 2, MaxPool2D.*over half of a pooling window"),
        (lambda: [gc.Conv2D(4, 3, groups=2)], (3, 8, 8), r"layer 1 of 1, Conv2D.*channels must be divisible by groups, got 3 channels"),
    ],
)
def test_a_layer_that_does_not_fit_is_named_with_its_place(layers: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        gc.Sequential(layers()).build(shape, device="cpu")


NO_SHAPES = [(2, 1, 28, 28), 784, (1, 0, 28), (1, 28, 28.0), ()]


@pytest.mark.parametrize("shape", NO_SHAPES)
def test_input_shapes_that_are_none_are_refused(shape: Any) -> None:
    with pytest.raises((ShapeError, TypeError), match="input_shape must be"):
        gc.Sequential(gc.Flatten()).build(shape, device="cpu")


def test_build_refuses_other_devices_dtypes_and_seeds() -> None:
    with pytest.raises(DeviceError, match="unknown device 'gpu': the devices are auto, cpu, cuda"):
        network(device="gpu")
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got 'float16'"):
        network(dtype="float16")
    with pytest.raises(ArgumentError, match="seed must be at least 0, got -1"):
        network(seed=-1)
    with pytest.raises(TypeError, match=r"seed must be an integer, got 1.5"):
        network(seed=1.5)


def test_what_is_no_stack_of_layers_is_refused() -> None:
    with pytest.raises(ShapeError, match="no layers: add at least one"):
        gc.Sequential().build((1, 2, 2), device="cpu")
    with pytest.raises(TypeError, match="Sequential takes layers, got 'relu'"):
        gc.Sequential(gc.Dense(2), "relu")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Sequential takes layers"):
        gc.Sequential(gc.Dense)  # type: ignore[arg-type]
    layer = gc.Dense(2)
    with pytest.raises(ArgumentError, match="a layer can be in a model only once"):
        gc.Sequential(layer, layer)


def test_layers_may_come_as_a_list_and_are_named_by_kind_and_number() -> None:
    model = gc.Sequential([gc.Conv2D(1, 1), gc.Conv2D(1, 1), gc.Flatten(), gc.Dense(2), gc.ReLU(), gc.Dense(3)]).build(
        (1, 2, 2), device="cpu"
    )
    assert [layer.name for layer in model.layers] == ["conv2d_1", "conv2d_2", "flatten_1", "dense_1", "relu_1", "dense_2"]
    assert list(model.parameters) == [
        f"{name}.{part}" for name in ("conv2d_1", "conv2d_2", "dense_1", "dense_2") for part in ("weight", "bias")
    ]


def test_everything_that_needs_a_built_model_says_so(tmp_path: Any) -> None:
    model = gc.Sequential(gc.Dense(2))
    x = np.zeros((1, 3))
    for act in (
        lambda: model.forward(x),
        lambda: model.backward(x),
        lambda: model.evaluate(x, [0]),
        lambda: model.predict(x),
        lambda: model.summary(),
        lambda: model.save(tmp_path / "model.safetensors"),
        lambda: model.parameters,
        lambda: model.parameter_count,
        lambda: model.device,
        lambda: model.buffers,
    ):
        with pytest.raises(GpucnnError, match=r"not built yet: call model.build\(input_shape\) first"):
            act()
    assert not list(tmp_path.iterdir())


def test_training_and_measuring_need_a_compiled_model(images: Any, labels: Any) -> None:
    model = network()
    for act in (lambda: model.fit(images, labels), lambda: model.evaluate(images, labels)):
        with pytest.raises(GpucnnError, match=r"not compiled yet: call model.compile"):
            act()
    assert model.predict(images).shape == (50, 3)


def test_compile_refuses_unknown_names_and_changes_nothing(images: Any, labels: Any) -> None:
    model = compiled()
    optimizer = model.optimizer
    for arguments, message in (
        ({"optimizer": "adamn"}, "unknown optimizer 'adamn'"),
        ({"loss": "crossentropi"}, "unknown loss 'crossentropi'"),
        ({"metrics": ["acuracy"]}, "unknown metric 'acuracy': there are accuracy"),
    ):
        with pytest.raises(ValueError, match=message):
            model.compile(**arguments)
    with pytest.raises(UnknownNameError):
        model.compile("adamn")
    assert model.optimizer is optimizer


# Seeds.


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_values(images: Any, labels: Any) -> None:
    runs = []
    for seed in (5, 5, 6):
        model = compiled(seed=seed)
        start = values(model)
        history = model.fit(images, labels, batch_size=16, epochs=2, augment=gc.data.augmentation("shift"), verbose=False)
        runs.append((start, values(model), history["loss"], history["accuracy"]))
    for name in runs[0][0]:
        np.testing.assert_array_equal(runs[0][0][name], runs[1][0][name])
        np.testing.assert_array_equal(runs[0][1][name], runs[1][1][name])
        assert (runs[0][1][name] != runs[2][1][name]).any()
    assert runs[0][2:] == runs[1][2:]
    assert runs[0][2] != runs[2][2]


def test_the_seed_of_fit_is_of_order_and_augmentation_alone(images: Any, labels: Any) -> None:
    first, same, other = (compiled() for _ in range(3))
    for model, seed in ((first, 1), (same, 1), (other, 2)):
        model.fit(images, labels, batch_size=16, seed=seed, verbose=False)
    assert same_values(first, same)
    assert not same_values(first, other)


def test_without_shuffling_and_dropout_the_seed_of_fit_means_nothing(images: Any, labels: Any) -> None:
    models = [gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 6, 6), device="cpu").compile() for _ in range(2)]
    for model, seed in zip(models, (1, 2), strict=True):
        model.fit(images, labels, batch_size=16, seed=seed, shuffle=False, verbose=False)
    assert same_values(*models)


def test_two_models_share_nothing(images: Any, labels: Any) -> None:
    alone = compiled()
    alone.fit(images, labels, batch_size=16, verbose=False)
    first, second = compiled(), compiled()
    before = values(second)
    first.fit(images, labels, batch_size=16, verbose=False)
    for name, value in before.items():
        np.testing.assert_array_equal(values(second)[name], value)
    second.fit(images, labels, batch_size=16, verbose=False)
    assert same_values(first, alone)
    assert same_values(second, alone)
    assert not any(np.shares_memory(a.value, b.value) for a in first.parameters.values() for b in second.parameters.values())


def test_an_optimizer_that_went_on_to_another_model_is_noticed(images: Any, labels: Any) -> None:
    optimizer = gc.Adam()
    first, second = network().compile(optimizer), network().compile(optimizer)
    with pytest.raises(GpucnnError, match="optimizer trains another model, or none yet: compile"):
        first.fit(images, labels, verbose=False)
    before = values(second)
    with pytest.raises(GpucnnError, match="optimizer trains another model, or none yet: compile"):
        first.train_on_batch(images, labels)
    for name, value in before.items():
        np.testing.assert_array_equal(values(second)[name], value)
    second.fit(images, labels, verbose=False)


@pytest.mark.parametrize("name", ["forward", "backward", "__call__", "call", "train_step"])
def test_a_model_of_ones_own_whose_passes_would_not_be_called_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"would never call Own.{name}: write a Layer, whose _forward and _backward they do call"):
        type("Own", (gc.Sequential,), {name: lambda self, x: x})
    made = type("Own", (gc.Sequential,), {"describe": lambda self: "mine"})(gc.Dense(3))
    assert made.build((4,), device="cpu").describe() == "mine"


def test_a_model_that_fit_is_training_is_trained_by_nothing_else(images: Any, labels: Any) -> None:
    model, alone = compiled(), compiled()

    class Trains(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            for train in (model.fit, model.train_on_batch):
                with pytest.raises(GpucnnError, match=r"fit is training this model at this moment: train a copy of it, copy.copy\(model\)"):
                    train(images, labels)
            copy.copy(model).train_on_batch(images, labels)
            pickle.loads(pickle.dumps(model)).fit(images, labels, verbose=False)

    model.fit(images, labels, batch_size=16, verbose=False, callbacks=[Trains()])
    alone.fit(images, labels, batch_size=16, verbose=False)
    assert same_values(model, alone)

    class Fails(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            raise KeyError("of the user's")

    with pytest.raises(KeyError):
        model.fit(images, labels, verbose=False, callbacks=[Fails()])
    model.fit(images, labels, verbose=False)


def test_building_again_starts_afresh_and_keeps_the_compilation(images: Any, labels: Any) -> None:
    model, fresh = compiled(), compiled(seed=4)
    model.fit(images, labels, batch_size=16, verbose=False)
    model.build((1, 6, 6), seed=4, device="cpu")
    assert same_values(model, fresh)
    for each in (model, fresh):
        each.fit(images, labels, batch_size=16, verbose=False)
    assert same_values(model, fresh)


# Forward.


def test_a_batch_and_its_parts_give_the_same_outputs(images: Any) -> None:
    model = network()
    whole = model.forward(images)
    parts = np.concatenate([model.forward(images[start : start + 7]) for start in range(0, 50, 7)])
    # float32 products of at most 36 terms near one: a BLAS may sum them in another order for another batch.
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=36 * 2**-24)
    np.testing.assert_allclose(model.predict(images, batch_size=7), model.predict(images, batch_size=50), rtol=1e-5, atol=36 * 2**-24)


def test_forward_takes_lists_other_dtypes_and_pixels(rng: np.random.Generator) -> None:
    model = network()
    pixels = rng.integers(0, 256, (3, 1, 6, 6), dtype=np.uint8)
    expected = model.forward(pixels.astype("float32") / np.float32(255))
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(model.forward(pixels), expected)
    np.testing.assert_array_equal(model.forward(pixels.astype(np.float64) / 255), expected)
    np.testing.assert_allclose(model.forward((pixels / 255).tolist()), expected, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(pixels), model.predict(pixels.astype("float32") / np.float32(255)))


@pytest.mark.parametrize("shape", [(6, 6), (2, 1, 6, 5), (2, 2, 6, 6), (2, 6, 6, 1), ()])
def test_examples_of_another_shape_are_refused_and_both_shapes_named(shape: tuple[int, ...]) -> None:
    model = compiled()
    message = rf"takes examples of shape \(batch, 1, 6, 6\), got {str(shape).replace('(', '[(]').replace(')', '[)]')}"
    x = np.zeros(shape, np.float32)
    for act in (model.forward, model.predict, lambda x: model.fit(x, [0, 1]), lambda x: model.evaluate(x, [0, 1])):
        with pytest.raises(ShapeError, match=message):
            act(x)


def test_empty_batches_are_refused() -> None:
    model = compiled()
    x = np.zeros((0, 1, 6, 6), np.float32)
    for act in (
        lambda: model.forward(x),
        lambda: model.predict(x),
        lambda: model.fit(x, []),
        lambda: model.fit(x, np.zeros((0, 3))),
        lambda: model.evaluate(x, np.zeros((0, 3))),
        lambda: model.evaluate(x, np.zeros(0, int)),
    ):
        with pytest.raises(ShapeError, match="the batch is empty"):
            act()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_examples_with_nan_or_infinity_are_refused_and_the_first_is_named(value: float, images: Any, labels: Any) -> None:
    model = compiled()
    images[[7, 31], 0, 2, 3] = value
    for act in (
        lambda: model.fit(images, labels),
        lambda: model.evaluate(images, labels),
        lambda: model.predict(images),
        lambda: model.fit(np.zeros_like(images), labels, validation_data=(images, labels)),
    ):
        with pytest.raises(DataError, match="example 7 contains NaN or infinity"):
            act()


def test_examples_that_are_no_numbers_are_refused(labels: Any) -> None:
    model = compiled()
    for x in (np.full((50, 1, 6, 6), "a"), np.zeros((50, 1, 6, 6), complex), np.zeros((50, 1, 6, 6), object)):
        with pytest.raises(DataError, match="examples must be numbers, got"):
            model.predict(x)
        with pytest.raises(DataError, match="examples must be numbers, got"):
            model.fit(x, labels)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8"])
def test_batch_sizes_that_are_none_are_refused(size: Any, images: Any, labels: Any) -> None:
    error = ArgumentError if type(size) is int else TypeError
    model = compiled()
    for act in (
        lambda: model.fit(images, labels, batch_size=size),
        lambda: model.evaluate(images, labels, batch_size=size),
        lambda: model.predict(images, batch_size=size),
        lambda: model.summary(size),
    ):
        with pytest.raises(error, match=rf"batch_size must be .*got {size!r}"):
            act()
    with pytest.raises(error, match=rf"epochs must be .*got {size!r}"):
        model.fit(images, labels, epochs=size)


def test_labels_that_do_not_fit_are_refused_before_anything_is_trained(images: Any, labels: Any) -> None:
    model = compiled()
    before = values(model)
    wrong = labels.copy()
    wrong[11] = 3
    for act in (
        lambda: model.fit(images, wrong),
        lambda: model.evaluate(images, wrong),
        lambda: model.fit(images, labels, validation_data=(images, wrong)),
    ):
        with pytest.raises(DataError, match=r"labels must lie in 0..2 for 3 outputs, got 3 at index 11"):
            act()
    with pytest.raises(DataError, match="a label for each of the 50 examples"):
        model.fit(images, labels[:49])
    for name, value in before.items():
        np.testing.assert_array_equal(values(model)[name], value)


# Training.


def test_history_has_a_value_of_each_measure_for_each_epoch(images: Any, labels: Any) -> None:
    model = compiled()
    history = model.fit(images, labels, batch_size=16, epochs=3, validation_data=(images[:20], labels[:20]), verbose=False)
    expected = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds", "images_per_second"]
    assert list(history) == expected
    assert all(len(history[name]) == 3 for name in expected)
    assert history["epoch"] == [1, 2, 3]
    assert history["learning_rate"] == [0.01] * 3
    loss, accuracy = model.evaluate(images[:20], labels[:20])
    assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-12)
    assert history["val_accuracy"][-1] == accuracy
    with pytest.raises(KeyError):
        history["val_auc"]


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples_with_a_small_last_batch(images: Any, labels: Any) -> None:
    # With a learning rate of zero the epoch's loss and accuracy are those of the model, whatever the batches.
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 6, 6), device="cpu").compile(gc.SGD(0.0))
    loss, accuracy = model.evaluate(images, labels)
    for batch_size in (1, 16, 49, 50, 1000):
        history = model.fit(images, labels, batch_size=batch_size, verbose=False)
        assert history["loss"] == pytest.approx([loss], rel=1e-6)
        assert history["accuracy"] == [accuracy]
        again = model.evaluate(images, labels, batch_size=batch_size)
        assert again == (pytest.approx(loss, rel=1e-6), accuracy)
    logits = model.forward(images)
    assert loss == pytest.approx(-special.log_softmax(logits.astype(float), axis=1)[np.arange(50), labels].mean(), rel=1e-5)
    assert accuracy == (logits.argmax(axis=1) == labels).mean()


def test_fit_is_the_loop_by_hand(images: Any, labels: Any) -> None:
    fitted, by_hand = compiled(), network()
    fitted.fit(images, labels, batch_size=16, epochs=2, shuffle=False, verbose=False)
    optimizer = gc.Adam(0.01)
    optimizer.attach(by_hand.buffers)
    for _ in range(2):
        for start in range(0, 50, 16):
            x, y = images[start : start + 16], labels[start : start + 16]
            logits = by_hand.forward(x, training=True)
            _, dlogits = gc.functional.softmax_cross_entropy(logits, y)
            by_hand.backward(dlogits)
            optimizer.step()
            optimizer.zero_grad()
    assert same_values(fitted, by_hand)


def test_the_api_of_the_readme_runs_as_written(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.chdir(tmp_path)
    x, xv, xt = (rng.integers(0, 256, (n, 1, 12, 12), dtype=np.uint8) for n in (40, 8, 8))
    y, yv, yt = (rng.integers(0, 10, n) for n in (40, 8, 8))
    model = gc.Sequential(gc.Conv2D(8, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(16, activation="relu"), gc.Dense(10))
    model.build((1, 12, 12), seed=0, device="cpu")
    model.compile(optimizer=gc.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=2, validation_data=(xv, yv), verbose=False)
    assert len(history["loss"]) == 2
    loss, accuracy = model.evaluate(xt, yt)
    assert 0 <= accuracy <= 1 < loss
    probabilities = model.predict(xt)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    model.save("mnist.safetensors")
    np.testing.assert_array_equal(gc.load("mnist.safetensors", device="cpu").predict(xt), probabilities)
    optimizer, labels = model.optimizer, y
    assert optimizer is not None
    logits = model.forward(x, training=True)
    loss, dlogits = gc.functional.softmax_cross_entropy(logits, labels)
    model.backward(dlogits)
    optimizer.step()
    optimizer.zero_grad()


def test_a_last_softmax_gives_the_same_training_to_the_bit(images: Any, labels: Any) -> None:
    raw, last, layer = (
        gc.Sequential(gc.Flatten(), gc.Dense(8, activation="relu"), *end).build((1, 6, 6), device="cpu").compile(gc.Adam(0.01))
        for end in ([gc.Dense(3)], [gc.Dense(3, activation="softmax")], [gc.Dense(3), gc.Softmax()])
    )
    for model in (raw, last, layer):
        model.fit(images, labels, batch_size=16, epochs=2, verbose=False)
    assert same_values(raw, last)
    assert [*values(raw).values()][-1].tolist() == [*values(layer).values()][-1].tolist()
    assert raw.evaluate(images, labels) == last.evaluate(images, labels) == layer.evaluate(images, labels)
    # All three predict probabilities; forward gives what the last layer says.
    for model in (last, layer):
        np.testing.assert_array_equal(model.predict(images), raw.predict(images))
        np.testing.assert_array_equal(model.forward(images), F.softmax(raw.forward(images)))
        np.testing.assert_array_equal(model.forward(images, logits=True), raw.forward(images))


@pytest.mark.parametrize(("name", "loss"), [("softmax", "categorical_crossentropy"), ("sigmoid", "binary_crossentropy")])
def test_a_last_activation_in_a_stack_is_the_models(name: str, loss: str, images: Any, labels: Any, monkeypatch: Any) -> None:
    """Predictions have it once, and metrics see predictions."""
    seen: list[Any] = []
    monkeypatch.setitem(METRICS, "seen", lambda scores, labels: seen.append(scores) or 0.0)
    y = np.eye(3)[labels] if name == "sigmoid" else labels
    ends: list[tuple[str | None, list[gc.Layer | gc.Sequential]]] = [
        (None, [gc.Dense(3)]),
        (None, [gc.Stack(gc.Dense(3))]),
        ("tanh", [gc.Dense(3, activation="tanh")]),  # which the loss takes for raw outputs
        (name, [gc.Stack(gc.Dense(3, activation=name))]),  # type: ignore[arg-type]
        (name, [gc.Sequential(gc.Dense(4), gc.Sequential(gc.Dense(3, activation=name)))]),  # type: ignore[arg-type]
        (name, [gc.Stack(gc.Dense(3), gc.Softmax() if name == "softmax" else gc.Sigmoid())]),
    ]
    for last, end in ends:
        model = gc.Sequential(gc.Flatten(), *end).build((1, 6, 6), device="cpu", dtype="float64").compile("sgd", loss, ["seen"])
        assert model.last_activation == last
        model.evaluate(images, y)
        raw = model.forward(images, logits=True)
        expected = special.softmax(raw, axis=1) if name == "softmax" else special.expit(raw)
        for predicted in (model.predict(images), seen.pop()):
            np.testing.assert_allclose(predicted, expected, rtol=1e-13)
    other = "binary_crossentropy" if name == "softmax" else "categorical_crossentropy"
    with pytest.raises(ValueError, match=f"needs a last activation .* or none, got {name!r}"):
        gc.Sequential(gc.Flatten(), gc.Stack(gc.Dense(3, activation=name))).build((1, 6, 6), device="cpu").compile(loss=other)  # type: ignore[arg-type]


def test_a_last_sigmoid_gives_the_same_training_to_the_bit(images: Any, rng: np.random.Generator) -> None:
    targets = rng.integers(0, 2, 50)
    raw, last = (
        gc.Sequential(gc.Flatten(), gc.Dense(1, activation=name)).build((1, 6, 6), device="cpu").compile(gc.SGD(0.1), "binary_crossentropy")
        for name in (None, "sigmoid")
    )
    for model in (raw, last):
        model.fit(images, targets, batch_size=16, epochs=2, verbose=False)
    assert same_values(raw, last)
    np.testing.assert_array_equal(raw.predict(images), last.predict(images))
    loss, accuracy = raw.evaluate(images, targets)
    assert accuracy == ((raw.predict(images)[:, 0] > 0.5) == targets).mean()
    p = raw.predict(images)[:, 0].astype(float)
    assert loss == pytest.approx(-np.where(targets, np.log(p), np.log1p(-p)).mean(), rel=1e-5)


def test_class_numbers_one_hot_and_soft_rows_train(images: Any, labels: Any) -> None:
    numbers, rows = compiled(dtype="float64"), compiled(dtype="float64")
    numbers.fit(images, labels, batch_size=16, verbose=False)
    rows.fit(images, np.eye(3)[labels], batch_size=16, verbose=False)
    for name, value in values(numbers).items():
        np.testing.assert_allclose(values(rows)[name], value, rtol=1e-9, atol=1e-12)
    assert compiled().fit(images, np.full((50, 3), 1 / 3), verbose=False)["loss"][0] > 0


def test_mean_squared_error_trains_on_numbers_and_rows(images: Any, labels: Any) -> None:
    models = [network().compile("sgd", "mean_squared_error") for _ in range(2)]
    models[0].fit(images, labels, verbose=False)
    models[1].fit(images, np.eye(3)[labels], verbose=False)
    assert same_values(*models)
    np.testing.assert_array_equal(models[0].predict(images), models[0].forward(images))  # nothing is left to a loss here


def test_without_accuracy_it_is_neither_measured_nor_given(images: Any, labels: Any) -> None:
    model = network().compile(metrics=[])
    history = model.fit(images, labels, validation_data=(images, labels), verbose=False)
    assert "accuracy" not in history
    assert "val_accuracy" not in history
    assert isinstance(model.evaluate(images, labels), float)


def test_uint8_images_are_pixels_over_255_everywhere(rng: np.random.Generator, labels: Any) -> None:
    pixels = rng.integers(0, 256, (50, 1, 6, 6), dtype=np.uint8)
    scaled = pixels / np.float32(255)
    raw, floating = compiled(), compiled()
    histories = [
        model.fit(x, labels, batch_size=16, validation_data=(x, labels), verbose=False) for model, x in ((raw, pixels), (floating, scaled))
    ]
    assert same_values(raw, floating)
    assert histories[0]["val_loss"] == histories[1]["val_loss"]
    assert raw.evaluate(pixels, labels) == raw.evaluate(scaled, labels)
    np.testing.assert_array_equal(raw.predict(pixels), raw.predict(scaled))


def test_what_is_given_is_left_as_it_is(images: Any, labels: Any) -> None:
    model = compiled()
    images.flags.writeable = labels.flags.writeable = False
    model.fit(images, labels, batch_size=16, validation_data=(images, labels), augment=gc.data.augmentation("shift"), verbose=False)
    model.evaluate(images, labels)
    model.predict(images)


def test_predictions_belong_to_the_caller(images: Any) -> None:
    model = network()
    first = model.predict(images)
    kept = first.copy()
    model.predict(images * 2)
    np.testing.assert_array_equal(first, kept)
    first[...] = 0
    np.testing.assert_array_equal(model.predict(images), kept)


def test_a_loss_that_is_no_number_stops_training_and_is_placed(images: Any, labels: Any) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(8), gc.Dense(3)).build((1, 6, 6), device="cpu")
    model.compile(gc.SGD(1e30))
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"the loss became (nan|inf) at step \d+: lower .*1e\+30.*\(epoch 1, batch \d\)"),
    ):
        model.fit(images, labels, batch_size=16, verbose=False)


def test_progress_is_a_line_per_epoch_where_the_output_is_no_terminal(images: Any, labels: Any, capsys: pytest.CaptureFixture[str]) -> None:
    compiled().fit(images, labels, epochs=2, validation_data=(images, labels), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert "val_accuracy" in lines[1]
    compiled().fit(images, labels)
    assert capsys.readouterr().out == ""


# Summary.


def test_summary_counts_parameters_and_multiply_adds_as_one_does_by_hand() -> None:
    model = gc.Sequential(
        gc.Conv2D(6, (3, 2), stride=2, groups=2, activation="relu"),
        gc.MaxPool2D(2),
        gc.Flatten(),
        gc.Dense(5, use_bias=False),
        gc.Softmax(),
    ).build((4, 11, 10), device="cpu")
    # conv: 6 × 5 × 5 outputs of 2 × 3 × 2 products; 6 × 12 weights and 6 biases. dense: 24 × 5.
    conv_madds, dense_madds = 6 * 5 * 5 * 12, 24 * 5
    assert model.parameter_count == 72 + 6 + 120
    text = io.StringIO()
    model.summary(batch_size=10, file=text)
    rows = {line.split()[0]: line for line in text.getvalue().splitlines() if line.strip()}
    assert "6 × 5 × 5" in rows["conv2d_1"]
    assert f"{78:,}" in rows["conv2d_1"]
    assert f"{conv_madds * 10:,}" in rows["conv2d_1"]
    assert "(relu)" in rows["conv2d_1"]
    assert "6 × 2 × 2" in rows["maxpool2d_1"]
    assert f"{dense_madds * 10:,}" in rows["dense_1"]
    assert "198" in rows["total"]
    assert f"{(conv_madds + dense_madds) * 10:,}" in rows["total"]
    padded = 96 + 32 + 128  # each parameter begins at a multiple of 128 bytes
    assert f"{padded * 4 * 2 / 1024:.1f} KiB for parameters and gradients, " in text.getvalue()
    model.compile("adam")
    text = io.StringIO()
    model.summary(file=text)
    assert f"{padded * 4 * 4 / 1024:.1f} KiB for parameters, gradients and optimizer, " in text.getvalue()
    assert f"{conv_madds:,}" in text.getvalue()


def test_summary_goes_to_the_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    gc.network("keras").build((1, 28, 28), device="cpu").summary()
    assert "1,387,594" in capsys.readouterr().out


def test_a_model_prints_as_its_layers() -> None:
    assert repr(gc.Sequential(gc.Flatten(), gc.Dropout(0.5))) == "Sequential(Flatten(), Dropout(rate=0.5))"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("keras", 320 + (13 * 13 * 32 * 256 + 256) + 2570),
        ("tf2", 640 + 36_928 + (11 * 11 * 64 * 128 + 128) + 1290),
        ("lenet5x5", 3_274_634),  # as TensorFlow's old "Deep MNIST for experts" has it
    ],
)
def test_the_reference_networks_build_for_mnist(name: str, count: int) -> None:
    model = gc.network(name).build((1, 28, 28), device="cpu")
    assert model.output_shape == (10,)
    assert model.parameter_count == count
    assert gc.network(name, 4).build((1, 28, 28), device="cpu").output_shape == (4,)


def test_an_unknown_reference_network_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'lenet': there are keras, tf2, lenet5x5"):
        gc.network("lenet")
    with pytest.raises(ArgumentError, match="classes must be at least 1, got 0"):
        gc.network("keras", 0)


def test_layers_are_iterated_in_order_built_or_not() -> None:
    layers = [gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(3)]
    model = gc.Sequential(layers)
    assert list(model) == layers == [*model.build((1, 5, 5), device="cpu")]
    assert gc.Sequential(*model, gc.Dense(2)).build((1, 5, 5), device="cpu").output_shape == (2,)
    assert list(gc.Sequential()) == []


def test_what_compile_sets_is_checked_where_it_is_assigned() -> None:
    model = gc.Sequential(gc.Dense(3)).build((4,), device="cpu").compile("sgd")
    x, y = np.ones((5, 4)), np.array([0, 1, 2, 0, 1])
    for name, kind in (("loss", "Loss"), ("optimizer", "Optimizer")):
        with pytest.raises(
            TypeError, match=rf"^model.{name} is an object of a class derived from {kind}, got 'adam': compile takes names$"
        ):
            setattr(model, name, "adam")
    with pytest.raises(UnknownNameError, match=r"^unknown metric 'recal': .*did you mean 'recall'"):
        model.metrics = ["recal"]
    with pytest.raises(AttributeError, match=r"^a model has no 'requires_grad', .*: set model.trainable = False to freeze it$"):
        model.requires_grad = False
    model.metrics = ["acc", "recall"]
    assert model.evaluate(x, y, return_dict=True).keys() == {"loss", "accuracy", "recall"}
    model.optimizer = gc.SGD(0.1)
    with pytest.raises(GpucnnError, match="trains another model, or none yet: compile each model with its own optimizer"):
        model.fit(x, y, verbose=False)
    model.compile(model.optimizer).fit(x, y, verbose=False)
