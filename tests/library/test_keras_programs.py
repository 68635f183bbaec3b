"""Programs of Keras's users, as they stand in its guides but for the import, and each of their words by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import layers
from gpucnn.errors import ArgumentError, GpucnnError, ShapeError, UnknownNameError

RNG = np.random.default_rng(6)


def images(count: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A bright quarter, and which it is; uint8 (N, H, W), as keras.datasets.mnist.load_data() gives them."""
    labels = RNG.integers(0, 4, count)
    x = RNG.integers(0, 60, (count, side, side)).astype(np.uint8)
    half = side // 2
    for image, label in zip(x, labels, strict=True):
        image[half * (label // 2) :, half * (label % 2) :][:half, :half] += 150
    return x, labels


X, Y = images(160)
XT, YT = images(40)


def test_the_quickstart_for_beginners() -> None:
    """tensorflow.org/tutorials/quickstart/beginner."""
    tf_keras = gc
    x_train, x_test = X / 255.0, XT / 255.0
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Flatten(input_shape=(12, 12)),
            tf_keras.layers.Dense(32, activation="relu"),
            tf_keras.layers.Dropout(0.2),
            tf_keras.layers.Dense(4),
        ]
    )
    predictions = model(x_train[:1])
    assert predictions.shape == (1, 4)
    loss_fn = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss_fn, metrics=["accuracy"])
    model.fit(x_train, Y, epochs=12, verbose=0)
    loss, accuracy = model.evaluate(x_test, YT, verbose=2)
    assert accuracy > 0.9 and loss < 1
    probability_model = tf_keras.Sequential([model, tf_keras.layers.Softmax()])
    np.testing.assert_allclose(probability_model(x_test[:5]), model.predict(x_test[:5]), rtol=1e-5)


def test_the_convnet_of_the_guide() -> None:
    """keras.io/examples/vision/mnist_convnet."""
    keras = gc
    num_classes = 4
    input_shape = (12, 12, 1)
    x_train = X.astype("float32") / 255
    x_test = XT.astype("float32") / 255
    x_train = np.expand_dims(x_train, -1)
    x_test = np.expand_dims(x_test, -1)
    y_train = keras.utils.to_categorical(Y, num_classes)
    y_test = keras.utils.to_categorical(YT, num_classes)
    model = keras.Sequential(
        [
            keras.Input(shape=input_shape, data_format="channels_last"),  # the one word that is new
            layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.summary()
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    history = model.fit(x_train, y_train, batch_size=16, epochs=15, validation_split=0.1, verbose=0)
    score = model.evaluate(x_test, y_test, verbose=0)
    assert score[1] > 0.9 and set(history.history) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert model.predict(x_test).argmax(axis=1).shape == (40,)


def test_a_program_that_adds(tmp_path: Path) -> None:
    """As in F. Chollet's book."""
    models, callbacks = gc.models, [gc.callbacks.EarlyStopping(monitor="val_loss", patience=8, restore_best_weights=True)]
    model = models.Sequential()
    model.add(layers.Conv2D(8, (3, 3), strides=(1, 1), padding="SAME", kernel_initializer="he_normal", input_shape=(1, 12, 12)))
    model.add(layers.ReLU())
    model.add(layers.AveragePooling2D(2, strides=2))
    model.add(layers.MaxPool2D(2, 2))
    model.add(layers.Flatten())
    model.add(layers.Dense(4, activation="softmax"))
    model.compile(gc.optimizers.SGD(lr=0.1, momentum=0.9), "SparseCategoricalCrossentropy", metrics=["acc"])
    history = model.fit(X, Y, 16, 8, validation_data=(XT, YT), shuffle=True, class_weight={0: 1.0, 1: 2.0}, verbose=0, callbacks=callbacks)
    model.save(tmp_path / "mnist.safetensors")
    np.testing.assert_array_equal(models.load_model(tmp_path / "mnist.safetensors").predict(XT), model.predict(XT))
    assert history.history["val_acc"][-1] > 0.9
    assert model.output_shape == (4,)


# Each word by itself.


def test_keras_datasets_are_arrays_as_keras_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    grey, labels = RNG.integers(0, 256, (4, 1, 6, 5), np.uint8), np.arange(4, dtype=np.int32)
    colour = RNG.integers(0, 256, (4, 3, 6, 5), np.uint8)
    made = {
        "fashion-mnist": gc.data.Dataset("a", grey, labels, grey[:2], labels[:2], tuple("abcd"), "here"),
        "cifar10": gc.data.Dataset("b", colour, labels, colour[:2], labels[:2], tuple("abcd"), "here"),
    }
    monkeypatch.setattr(gc.datasets, "load_dataset", made.__getitem__)
    (x_train, y_train), (x_test, y_test) = gc.datasets.fashion_mnist.load_data()
    np.testing.assert_array_equal(x_train, grey[:, 0])
    assert y_train.tolist() == [0, 1, 2, 3] and y_train.dtype == np.uint8 and x_test.shape == (2, 6, 5) and y_test.shape == (2,)
    (x_train, y_train), _ = gc.datasets.cifar10.load_data()
    np.testing.assert_array_equal(x_train, colour.transpose(0, 2, 3, 1))
    assert y_train.shape == (4, 1)
    assert {name: getattr(gc.datasets, name).name for name in gc.datasets.__all__} == {
        "mnist": "mnist",
        "fashion_mnist": "fashion-mnist",
        "cifar10": "cifar10",
        "cifar100": "cifar100",
    }


def test_class_numbers_as_rows() -> None:
    rows = gc.utils.to_categorical([2, 0, 1])
    np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(gc.utils.to_categorical(np.array([[2], [0], [1]], np.uint8), 3), rows)
    assert gc.utils.to_categorical(Y, 10).shape == (160, 10) and gc.utils.to_categorical([0], num_classes=1).tolist() == [[1]]
    for wrong, match in (
        ([0, 3], "must lie in 0..2"),
        ([-1], "must lie in 0..2"),
        ([0.5], "integers"),
        (rows, "of shape"),
        (1, "label"),
    ):
        with pytest.raises(GpucnnError, match=match):
            gc.utils.to_categorical(wrong, 3)


def test_classes_are_the_same_under_their_second_names() -> None:
    assert gc.MaxPooling2D is gc.MaxPool2D is layers.MaxPooling2D
    assert gc.AveragePooling2D is gc.AvgPool2D is layers.AveragePooling2D
    assert gc.Convolution2D is gc.Conv2D is layers.Convolution2D


def test_arguments_of_layers() -> None:
    given = gc.Conv2D(2, 3, strides=2, dilation_rate=1, kernel_initializer="HeNormal", padding="Valid")  # type: ignore[call-arg]
    assert given.settings() == gc.Conv2D(2, 3, stride=2, dilation=1, initializer="he_normal", padding="valid").settings()
    assert gc.MaxPool2D(3, 1).settings() == gc.MaxPool2D(3, stride=1).settings()
    assert gc.AvgPool2D(3, strides=1).settings() == gc.AvgPool2D(3, 1).settings()  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="stride and strides are two names of one argument of MaxPool2D"):
        gc.MaxPool2D(2, 2, strides=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'filter'"):
        gc.Conv2D(2, 3, filter=2)  # type: ignore[call-arg]


def test_an_input_says_what_a_model_is_for() -> None:
    made = gc.Sequential(gc.Input((1, 6, 6)), gc.Flatten(), gc.Dense(2))
    assert made.parameter_count == 74 and made.input_shape == (1, 6, 6)  # built when it is first needed
    assert gc.Sequential([gc.Input((6, 6)), gc.Flatten()]).build(device="cpu").input_shape == (1, 6, 6)
    assert gc.Sequential(gc.Dense(2, input_shape=(5,))).build(device="cpu").input_shape == (5,)  # type: ignore[call-arg]
    assert gc.Sequential(gc.Input((1, 6, 6)), gc.Flatten()).build((1, 8, 8), device="cpu").input_shape == (1, 8, 8)
    for wrong in (lambda: gc.Sequential(gc.Flatten(), gc.Input((1, 6, 6))), lambda: gc.Sequential(gc.Input((2,)), gc.Input((2,)))):
        with pytest.raises(ArgumentError, match="a model has at most one Input"):
            wrong()
    for shape in ((), 3, "ab", None):
        with pytest.raises(ShapeError, match="Input takes the shape of one example"):
            gc.Input(shape)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="the input shape is unknown"):
        gc.Sequential(gc.Flatten()).build()


def test_a_model_in_front_says_what_it_is_for() -> None:
    for first, shape in (
        (gc.Sequential(gc.Flatten()).build((28, 28, 1), data_format="channels_first", device="cpu"), (28, 28, 1)),
        (gc.Sequential(gc.Flatten()).build((5, 4, 3), data_format="channels_last", device="cpu"), (3, 5, 4)),
        (gc.Sequential(gc.Dense(2)).build((7,), device="cpu"), (7,)),
        (gc.Sequential(gc.Input((1, 6, 5)), gc.Flatten()), (1, 6, 5)),
    ):
        made = gc.Sequential(first, gc.Dense(2))
        assert made.parameter_count and made.input_shape == shape


def test_what_is_declared_is_no_part_of_the_file(tmp_path: Path) -> None:
    made = gc.Sequential(gc.Dense(2, input_shape=(5,))).build(device="cpu")  # type: ignore[call-arg]
    made.save(tmp_path / "m")
    assert gc.load(tmp_path / "m", device="cpu").config() == made.config() and "input_shape" not in made.config()["layers"][0]


def test_a_model_that_is_built_does_not_grow() -> None:
    made = gc.Sequential(gc.Flatten()).build((1, 2, 2), device="cpu")
    with pytest.raises(GpucnnError, match="already built and cannot be extended"):
        made.add(gc.Dense(2))
    part = gc.Sequential()
    part.add(gc.Sequential(gc.Conv2D(2, 3), gc.ReLU()))
    part.add(gc.Flatten())
    assert part.build((1, 4, 4), device="cpu").output_shape == (8,)


# Where the channels stand.

LAST = RNG.random((10, 9, 8, 3), dtype=np.float32)
CLASSES = RNG.integers(0, 2, 10)


def coloured(**build: Any) -> gc.Sequential:
    made = gc.Sequential(gc.Conv2D(4, 3, activation="relu"), gc.Flatten(), gc.Dense(2))
    return made.build(seed=3, device="cpu", **build).compile("sgd")


def test_channels_last_is_channels_first_turned() -> None:
    first = LAST.transpose(0, 3, 1, 2)
    last, other = coloured(input_shape=(9, 8, 3), data_format="channels_last"), coloured(input_shape=(3, 9, 8))
    assert last.input_shape == other.input_shape == (3, 9, 8)
    np.testing.assert_array_equal(last.predict(LAST), other.predict(first))
    history = last.fit(LAST, CLASSES, epochs=2, validation_data=(LAST, CLASSES), verbose=0)
    reference = other.fit(first, CLASSES, epochs=2, validation_data=(first, CLASSES), verbose=0)
    assert history["loss"] == reference["loss"] and history["val_loss"] == reference["val_loss"]
    assert last.evaluate(LAST, CLASSES) == other.evaluate(first, CLASSES) == other.evaluate(LAST, CLASSES, data_format="channels_last")
    np.testing.assert_array_equal(other.predict(LAST, data_format="channels_last"), last.predict(LAST))
    np.testing.assert_array_equal(last.predict(first, data_format="channels_first"), last.predict(LAST))
    np.testing.assert_array_equal(last.predict((255 * LAST).astype(np.uint8)), other.predict((255 * first).astype(np.uint8)))


def test_channels_last_by_fit_alone_and_through_a_file(tmp_path: Path) -> None:
    made = gc.Sequential(gc.Conv2D(4, 3, activation="relu"), gc.Flatten(), gc.Dense(2)).compile("sgd")
    made.fit(LAST, CLASSES, data_format="channels_last", verbose=0)
    assert made.input_shape == (3, 9, 8)
    made.save(tmp_path / "m")
    loaded = gc.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(loaded.predict(LAST), made.predict(LAST))
    assert "data_format" not in coloured(input_shape=(3, 9, 8)).config()


def test_what_looks_like_channels_last_is_asked_about() -> None:
    for shape in ((28, 28, 1), (32, 32, 3), (8, 8, 4)):
        with pytest.raises(ShapeError, match=r"looks like \(height, width, channels\): give data_format='channels_last'"):
            gc.Sequential(gc.Flatten()).build(shape, device="cpu")
        assert gc.Sequential(gc.Flatten()).build(shape, device="cpu", data_format="channels_first").input_shape == shape
    with pytest.raises(ShapeError, match="looks like"):
        gc.Sequential(gc.Flatten(), gc.Dense(2)).compile().fit(LAST, CLASSES, verbose=0)
    with pytest.raises(ShapeError, match="their channels seem to be last; pass data_format='channels_last'"):
        coloured(input_shape=(3, 9, 8)).predict(LAST)
    last = coloured(input_shape=(9, 8, 3), data_format="channels_last")
    first = LAST.transpose(0, 3, 1, 2)
    match = rf"takes examples of shape \(batch, 9, 8, 3\), got \({len(LAST)}, 3, 9, 8\): their channels seem to be first; pass data_format="
    with pytest.raises(ShapeError, match=match):
        last.predict(first)
    np.testing.assert_array_equal(last.predict(first, data_format="channels_first"), last.predict(LAST))
    with pytest.raises(ShapeError, match=rf"takes examples of shape \(batch, 9, 8, 3\), got \({len(LAST)}, 9, 7, 3\)$"):
        last.predict(LAST[:, :, :7])
    with pytest.raises(UnknownNameError, match="unknown data_format 'last': there are channels_first, channels_last"):
        coloured(input_shape=(3, 9, 8), data_format="last")
    for shape in ((64, 7, 1), (3, 3, 3), (4, 28, 28), (64, 4, 4)):
        assert gc.Sequential(gc.Flatten()).build(shape, device="cpu").input_shape == shape


def test_forward_takes_channels_first() -> None:
    made = gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(2)).build((8, 9, 3), device="cpu", data_format="channels_last")
    x = np.random.default_rng(0).random((2, 8, 9, 3), np.float32)
    for call in (made, lambda images: made.features(images, "conv2d_1")):
        with pytest.raises(ShapeError, match=r"their channels seem to be last; forward takes channels first, x.transpose\(0, 3, 1, 2\)"):
            call(x)
    np.testing.assert_allclose(made(x.transpose(0, 3, 1, 2)), made.predict(x), rtol=1e-5, atol=1e-6)


def test_one_output_has_no_categories() -> None:
    for activation in (None, "softmax"):
        made = gc.Sequential(gc.Flatten(), gc.Dense(1, activation=activation)).build((1, 2, 2), device="cpu")
        with pytest.raises(ShapeError, match=r"needs an output for each class, and the model has one.*or use loss 'binary_crossentropy'"):
            made.compile("sgd", "sparse_categorical_crossentropy")


def test_grey_images_need_no_channel() -> None:
    made = gc.Sequential(gc.Flatten(), gc.Dense(4)).compile()
    made.fit(X, Y, verbose=0)
    assert made.input_shape == (1, 12, 12)
    np.testing.assert_array_equal(made.predict(X), made.predict(X[:, None]))
    np.testing.assert_array_equal(made.forward(X / 255), made.forward(X[:, None] / 255))


# Initial values by a function.


def test_a_function_is_an_initializer(tmp_path: Path) -> None:
    seen: list[Any] = []

    def ours(shape: tuple[int, ...], rng: np.random.Generator, groups: int = 1) -> Any:
        seen.append((shape, groups))
        return rng.random(shape)

    def keras(shape: tuple[int, ...], dtype: Any = None) -> Any:
        return np.full(shape, 0.5)

    last = gc.Dense(2, initializer=lambda shape: np.ones(shape))
    made = gc.Sequential(gc.Conv2D(2, 3, initializer=ours), gc.Flatten(), gc.Dense(2, initializer=keras), last)
    made.build((2, 4, 4), device="cpu")
    assert seen == [((2, 2, 3, 3), 1)]
    assert (made.parameters["dense_1.weight"].value == 0.5).all() and (made.parameters["dense_2.weight"].value == 1).all()
    made.compile().fit(RNG.random((8, 2, 4, 4)), RNG.integers(0, 2, 8), verbose=0, callbacks=[gc.Checkpoint(tmp_path / "c")])
    made.save(tmp_path / "m")
    loaded = gc.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(loaded.buffers.values, made.buffers.values)
    with pytest.raises(UnknownNameError, match=r"the initializer .*ours is unknown here: register it with gpucnn\.register"):
        loaded.build((2, 4, 4), device="cpu")


def test_names_that_are_initializers_and_one_that_is_not() -> None:
    for name in ("Zeros", "ones", "GlorotUniform"):
        gc.Sequential(gc.Dense(2, kernel_initializer=name)).build((5,), device="cpu")  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="unknown initializer 'he'"):
        gc.Dense(2, initializer="he")


def test_a_loss_may_be_told_that_it_gets_logits() -> None:
    for kind in (gc.SparseCategoricalCrossentropy, gc.losses.CategoricalCrossentropy):
        gc.Sequential(gc.Input((4,)), gc.Dense(2)).compile(loss=kind(from_logits=True)).build(device="cpu")
        gc.Sequential(gc.Input((4,)), gc.Dense(2, activation="softmax")).compile(loss=kind(from_logits=False)).build(device="cpu")
        with pytest.raises(ArgumentError, match="from_logits=True, but the model ends in 'softmax'"):
            gc.Sequential(gc.Input((4,)), gc.Dense(2, activation="softmax")).compile(loss=kind(from_logits=True)).build(device="cpu")
