"""Keras 3's .keras files: made by Keras, through PyTorch, whose own answers are the right values; and files that mean harm."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.exchange import NotTakenError, import_keras, import_onnx
from gpucnn.exchange.keras_layers import LAYERS

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

APART = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own, with NumPy 2


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("torch", reason="PyTorch is not installed, through which Keras computes here")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    found = pytest.importorskip("keras", reason="Keras is not installed")
    if found.backend.backend() != "torch":
        pytest.skip(f"Keras computes with {found.backend.backend()} here, which is not what the tests are for")
    return found


def saved(model: Any, path: Path, seed: int = 0) -> Any:
    """The model in a file, with nothing left at its first value."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for weight in layer.weights:
            if len(weight.shape) == 1 and "seed" not in weight.path:
                low, high = (0.5, 1.5) if "variance" in weight.path or "gamma" in weight.path else (-0.4, 0.4)
                weight.assign(rng.uniform(low, high, weight.shape))
    model.save(path)
    return model


def check(model: Any, path: Path, batch: int = 3) -> gc.Sequential:
    saved(model, path)
    x = np.random.default_rng(1).normal(0, 1, (batch, *model.input_shape[1:])).astype(np.float32)
    expected = np.asarray(model(x, training=False).detach())
    taken = import_keras(path, device="cpu")
    found = taken.predict(x)
    if found.ndim == 4 and taken.data_format == "channels_last":
        found = found.transpose(0, 2, 3, 1)  # images come out with their channels first
    np.testing.assert_allclose(found, expected, rtol=APART, atol=APART)
    return taken


def each(keras: Any) -> dict[str, tuple[tuple[int, ...], list[Any]]]:
    """For every layer of the table, ones that use what it can do."""
    k = keras.layers
    return {
        "Conv2D": (
            (9, 8, 4),
            [
                k.Conv2D(6, (3, 2), strides=2, padding="same", activation="relu"),
                k.Conv2D(4, 3, groups=2, dilation_rate=2, use_bias=False, padding="same", activation="leaky_relu"),
            ],
        ),
        "DepthwiseConv2D": ((8, 7, 3), [k.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, activation="tanh")]),
        "SeparableConv2D": ((8, 7, 3), [k.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2, activation="silu")]),
        "Conv2DTranspose": (
            (5, 4, 3),
            [
                k.Conv2DTranspose(4, 3, strides=2, padding="same"),
                k.Conv2DTranspose(2, (2, 4), strides=(3, 2), padding="valid"),
                k.Conv2DTranspose(3, (3, 5), strides=2, padding="same", output_padding=1),
                k.Conv2DTranspose(2, 3, strides=(3, 2), padding="valid", output_padding=(2, 1)),
            ],
        ),
        "Dense": ((6,), [k.Dense(5, activation="gelu"), k.Dense(3, use_bias=False, activation="softmax")]),
        "BatchNormalization": (
            (4, 5, 3),
            [k.BatchNormalization(epsilon=1e-2), k.BatchNormalization(scale=False), k.BatchNormalization(center=False, scale=False)],
        ),
        "MaxPooling2D": ((9, 8, 2), [k.MaxPooling2D(3, strides=2, padding="same"), k.MaxPooling2D()]),
        # Through PyTorch Keras repeats the edge where more is padded at one side than at the other; through TensorFlow and JAX it counts no
        # padding, as is done here. Of 9 pixels both sides have one.
        "AveragePooling2D": ((9, 9, 2), [k.AveragePooling2D(3, strides=2, padding="same"), k.AveragePooling2D((2, 1))]),
        "GlobalAveragePooling2D": ((4, 5, 3), [k.GlobalAveragePooling2D(keepdims=True), k.Conv2D(2, 1), k.GlobalAveragePooling2D()]),
        "GlobalMaxPooling2D": ((4, 5, 3), [k.GlobalMaxPooling2D()]),
        "ZeroPadding2D": ((4, 5, 3), [k.ZeroPadding2D(((1, 0), (2, 3))), k.ZeroPadding2D(1)]),
        "Flatten": ((4, 5, 3), [k.Conv2D(4, 2, strides=2), k.Flatten(), k.BatchNormalization(), k.Dense(3)]),
        "Reshape": ((6, 5), [k.Reshape((6, 5, 1)), k.Conv2D(2, 3), k.Reshape((-1,)), k.Dense(2)]),
        "Activation": (
            (3, 4, 2),
            [
                k.Activation("sigmoid"),
                k.Activation("elu"),
                k.Activation("linear"),
                k.Conv2D(3, 1, activation="relu6"),
                k.Activation("hard_sigmoid"),
                k.Activation("hard_silu"),
                k.Conv2D(2, 1, activation="hard_swish"),
            ],
        ),
        "ReLU": ((3, 4, 2), [k.ReLU(negative_slope=0.1), k.ReLU(), k.Rescaling(20), k.ReLU(max_value=6.0)]),
        "LeakyReLU": ((3, 4, 2), [k.LeakyReLU(negative_slope=0.25)]),
        "ELU": ((3, 4, 2), [k.ELU(alpha=0.5)]),
        "Softmax": ((5,), [k.Softmax()]),
        "Dropout": ((5,), [k.Dropout(0.3), k.Dense(2)]),
        "Identity": ((5,), [k.Identity(), k.Dense(2)]),
    }


def test_every_layer_of_the_table(keras: Any, tmp_path: Path) -> None:
    known = each(keras)
    assert set(known) | {"Add", "Concatenate", "Rescaling"} == set(LAYERS)  # which have tests of their own
    for name, (shape, layers) in known.items():
        try:
            check(keras.Sequential([keras.layers.Input(shape), *layers]), tmp_path / "m.keras")
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_what_stands_behind_a_flatten_is_in_the_order_of_channels(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    layers = [k.Input((6, 5, 2)), k.Conv2D(3, 3, activation="relu"), k.Flatten(), k.Dense(4), k.Dense(2)]
    taken = check(keras.Sequential(layers), tmp_path / "m.keras")
    assert taken.data_format == "channels_last" and taken.input_shape == (2, 6, 5)
    assert [type(layer).__name__ for layer in taken.layers] == ["Conv2D", "Flatten", "Dense", "Dense"]
    kernel = keras.ops.convert_to_numpy(layers[3].kernel).reshape(4, 3, 3, 4)  # (height, width, channels, units)
    np.testing.assert_array_equal(taken.parameters["dense_1.weight"].value, kernel.transpose(3, 2, 0, 1).reshape(4, -1))
    # As many rows out of order would be seen: with the rows as they stand in the file the answers are others.
    x = np.random.default_rng(0).normal(0, 1, (2, 6, 5, 2)).astype(np.float32)
    right = taken.predict(x)
    taken.parameters["dense_1.weight"].value = kernel.reshape(36, 4).T
    assert np.abs(taken.predict(x) - right).max() > 0.01


def test_momentum_and_epsilon_are_turned_round(keras: Any, tmp_path: Path) -> None:
    saved(keras.Sequential([keras.layers.Input((4, 4, 2)), keras.layers.BatchNormalization(momentum=0.9)]), tmp_path / "m.keras")
    (layer,) = import_keras(tmp_path / "m.keras", device="cpu").layers
    assert isinstance(layer, gc.BatchNorm2D) and (layer.momentum, layer.eps) == (0.1, 1e-3)


def functional(keras: Any) -> Any:
    """Branches that are added and joined, and a model within the model."""
    k = keras.layers
    image = k.Input((9, 8, 3))
    x = k.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(image)
    x = stem = k.ReLU()(k.BatchNormalization()(x))
    x = k.Add()([k.Conv2D(4, 3, padding="same")(x), stem])
    within = keras.Sequential([k.Input((5, 4, 4)), k.Conv2D(5, 1, activation="relu"), k.Conv2D(3, 3, padding="same")])
    x = k.Concatenate()([k.MaxPooling2D(3, strides=1, padding="same")(x), within(x), x])
    x = k.Add()([k.Conv2D(6, 1)(x), k.DepthwiseConv2D(1)(k.Conv2D(6, 3, padding="same")(x)), k.Conv2D(6, 1)(x)])
    return keras.Model(image, k.Dense(3)(k.Flatten()(x)))


def test_functional_models(keras: Any, tmp_path: Path) -> None:
    taken = check(functional(keras), tmp_path / "m.keras")
    kinds = [type(layer).__name__ for layer in taken.layers]
    assert kinds == ["Conv2D", "BatchNorm2D", "Residual", "Concat", "Residual", "Flatten", "Dense"]
    taken.save(tmp_path / "m.safetensors")
    again = gc.load(tmp_path / "m.safetensors", device="cpu")
    x = np.random.default_rng(0).random((2, 9, 8, 3), np.float32)
    np.testing.assert_array_equal(again.predict(x), taken.predict(x))


def test_channels_first(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    layers = [k.Conv2D(3, 3, data_format="channels_first"), k.BatchNormalization(axis=1), k.MaxPooling2D(data_format="channels_first")]
    for data_format in ("channels_first", "channels_last"):  # Keras's Flatten brings the channels to the end of what it takes for the first
        model = keras.Sequential([k.Input((2, 7, 6)), *layers, k.Flatten(data_format=data_format), k.Dense(2)])
        assert check(model, tmp_path / "m.keras").data_format == "channels_first"


def test_a_rescaling_of_pixels_is_adapted_to_the_division_by_255_here(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    for scale, offset, count in ((1 / 255, 0.0, 0), (1 / 127.5, -1.0, 1)):
        model = saved(keras.Sequential([k.Input((4, 4, 3)), k.Rescaling(scale, offset), k.Conv2D(2, 3)]), tmp_path / "m.keras")
        pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
        taken = import_keras(tmp_path / "m.keras", device="cpu")
        expected = np.asarray(model(pixels.astype(np.float32)).detach()).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(taken.predict(pixels), expected, rtol=APART, atol=APART)
        assert len(taken.layers) == count + 1 and "Rescaling" in taken.metadata["note"]


def test_a_model_that_was_built_later_and_one_that_never_says_its_shape(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([k.Conv2D(2, 3), k.GlobalAveragePooling2D(), k.Dense(2)])
    model.build((None, 6, 6, 1))
    check(model, tmp_path / "m.keras")
    model = saved(keras.Sequential([k.Input((None, None, 1)), k.Conv2D(2, 3), k.GlobalMaxPooling2D()]), tmp_path / "m.keras")
    with pytest.raises(CheckpointError, match=r"leaves the shape of its input open \(\(None, None, 1\)\): give it"):
        import_keras(tmp_path / "m.keras", device="cpu")
    with pytest.raises(ArgumentError, match=r"input_shape \(6, 5, 2\) does not fit"):
        import_keras(tmp_path / "m.keras", input_shape=(6, 5, 2), device="cpu")
    x = np.random.default_rng(0).random((2, 6, 5, 1), np.float32)
    found = import_keras(tmp_path / "m.keras", input_shape=(6, 5, 1), device="cpu").predict(x)
    np.testing.assert_allclose(found, np.asarray(model(x).detach()), rtol=APART, atol=APART)


def test_what_cannot_be_taken_is_named_layer_by_layer(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    image = k.Input((8, 8, 2))
    twice = k.ReLU(threshold=1.0, name="twice")
    x = k.Add()([twice(image), twice(image)])
    y = k.Conv2D(2, 1, activation="selu", name="odd")(k.UpSampling2D(name="up")(image))
    z = k.ReLU(max_value=4, name="four")(image)
    side = k.AveragePooling2D(2, name="pool")(y)
    model = keras.Model(image, k.Concatenate()([x, k.Dense(2, name="of_images")(z), side]))
    saved(model, tmp_path / "m.keras")
    with pytest.raises(NotTakenError) as caught:
        import_keras(tmp_path / "m.keras", device="cpu")
    words = sorted(caught.value.problems)
    assert words == [
        "ReLU 'four' has max_value 4, negative_slope 0, and here ReLU6 alone has an upper end: train it with that",
        "ReLU 'twice' has threshold 1.0, which no activation here has: train it with ReLU",
        "UpSampling2D 'up' has no equivalent layer in gpucnn",
    ]
    model = keras.Sequential([image, k.Conv2D(2, 1, activation="selu", name="odd"), k.Dense(2, name="of_images")])
    saved(model, tmp_path / "m.keras")
    with pytest.raises(NotTakenError, match="Conv2D 'odd' has the activation 'selu', which gpucnn does not have"):
        import_keras(tmp_path / "m.keras", device="cpu")
    saved(keras.Sequential([image, k.Dense(2, name="of_images")]), tmp_path / "m.keras")
    with pytest.raises(NotTakenError, match=r"Dense 'of_images' is dense on a value of shape \(8, 8, 2\)"):
        import_keras(tmp_path / "m.keras", device="cpu")


def test_layers_that_are_called_twice_have_weights_of_their_own_each(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    image = k.Input((6, 5, 2))
    conv, act, within = k.Conv2D(2, 3, padding="same", name="twice"), k.ReLU(), keras.Sequential([k.Input((6, 5, 2)), k.Conv2D(2, 1)])
    x = act(conv(within(act(conv(image)))))  # the second call of "twice" stands, in the file, before what it is called with
    model = keras.Model(image, k.Dense(3)(k.Flatten()(within(x))))
    taken = check(model, tmp_path / "m.keras")
    assert [type(layer).__name__ for layer in taken.layers] == ["Conv2D", "Conv2D", "Conv2D", "Conv2D", "Flatten", "Dense"]
    assert taken.metadata["note"].count("are used in several places; here each place has its own") == 2


def test_log_softmax_at_the_end_gives_probabilities_and_nowhere_else(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = saved(keras.Sequential([k.Input((5,)), k.Dense(3, activation="log_softmax")]), tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(0, 1, (2, 5)).astype(np.float32)
    taken = import_keras(tmp_path / "m.keras", device="cpu")
    np.testing.assert_allclose(taken.predict(x), np.exp(np.asarray(model(x).detach())), rtol=APART, atol=APART)
    assert "logarithms of probabilities" in taken.metadata["note"]
    saved(keras.Sequential([k.Input((5,)), k.Dense(3, activation="log_softmax"), k.Dense(2)]), tmp_path / "m.keras")
    with pytest.raises(NotTakenError, match="a log_softmax, which is supported only as the last layer"):
        import_keras(tmp_path / "m.keras", device="cpu")


def test_calls_that_go_round_or_come_from_nowhere(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    image = k.Input((5,))
    saved(keras.Model(image, k.Dense(2, name="b")(k.Dense(3, name="a")(image))), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for source in (["b", 0, 0], ["b", 7, 0], ["nobody", 0, 0], ["a"]):
        config = json.loads(parts["config.json"])
        config["config"]["layers"][1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = source
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            for name, data in (parts | {"config.json": json.dumps(config).encode()}).items():
                archive.writestr(name, data)
        with pytest.raises(CheckpointError, match="describes its model in an unsupported way"):
            import_keras(tmp_path / "m.keras", device="cpu")


# Keras's own way to ONNX.


def test_what_keras_exports_as_onnx(keras: Any, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: Keras's exporter needs it")
    k = keras.layers
    image = k.Input((10, 9, 2))
    x = k.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(image)
    x = stem = k.ReLU()(k.BatchNormalization()(x))
    x = k.Add()([k.SeparableConv2D(4, 3, padding="same", activation="gelu")(x), stem])
    x = k.Concatenate()([k.MaxPooling2D(3, strides=1, padding="same")(x), k.Conv2D(3, 1, activation="silu")(x)])
    x = k.Dense(6, activation="elu")(k.Flatten()(k.Dropout(0.3)(x)))
    model = saved(keras.Model(image, k.Dense(3, activation="softmax")(x)), tmp_path / "m.keras")
    x = np.random.default_rng(1).normal(0, 1, (3, 10, 9, 2)).astype(np.float32)
    expected = np.asarray(model(x, training=False).detach())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    except (ImportError, AttributeError, NotImplementedError) as error:
        pytest.skip(f"Keras {keras.__version__} does not export as ONNX through PyTorch here: {error}")
    taken = import_onnx(tmp_path / "m.onnx", device="cpu")
    assert taken.data_format == "channels_last"
    np.testing.assert_allclose(taken.predict(x), expected, rtol=APART, atol=APART)


# Files by hand: what Keras writes of a dense layer, and then something wrong with it.


def written(
    path: Path,
    weights: Callable[[Any], None] | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
    compression: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
) -> Path:
    def usual(group: Any) -> None:
        group["0"], group["1"] = np.ones((3, 2), np.float32), np.zeros(2, np.float32)

    layers = [
        {"module": "keras.layers", "class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 3]}},
        {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "linear"}},
    ]
    config: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    if change is not None:
        change(config)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        group = file.create_group("layers/dense/vars")
        (weights or usual)(group)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return path


def test_the_file_by_hand_is_right(tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        model = import_keras(written(tmp_path / "m.keras", compression=compression), device="cpu")
        np.testing.assert_array_equal(model.predict(np.array([[1, 2, 3]], np.float32)), [[6, 6]])


def _soft(group: Any) -> None:
    group["0"], group.file["x"] = h5py.SoftLink("/x"), np.ones((3, 2), np.float32)
    group["1"] = np.zeros(2, np.float32)


def _outside(group: Any) -> None:
    group["0"], group["1"] = h5py.ExternalLink("other.h5", "/x"), np.zeros(2, np.float32)


def _raw(group: Any) -> None:
    group.create_dataset("0", (3, 2), "f4", external=[("/etc/passwd", 0, 24)])
    group["1"] = np.zeros(2, np.float32)


def _virtual(group: Any) -> None:
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 2))
    group.create_virtual_dataset("0", layout)
    group["1"] = np.zeros(2, np.float32)


def _packed(group: Any) -> None:
    group.create_dataset("0", data=np.ones((3, 2), np.float32), compression="gzip")
    group["1"] = np.zeros(2, np.float32)


def _endless(group: Any) -> None:
    group.create_dataset("0", (1 << 62, 2), "f4", chunks=(1024, 2))
    group["1"] = np.zeros(2, np.float32)


def _missing(group: Any) -> None:
    group.create_dataset("0", (3, 2), "f4")  # never written: it has no bytes in the file
    group["1"] = np.zeros(2, np.float32)


def _text(group: Any) -> None:
    group["0"], group["1"] = np.full((3, 2), b"x"), np.zeros(2, np.float32)


def _nan(group: Any) -> None:
    group["0"], group["1"] = np.full((3, 2), np.nan, np.float32), np.zeros(2, np.float32)


def _few(group: Any) -> None:
    group["0"] = np.ones((3, 2), np.float32)


def _nested(group: Any) -> None:
    group.create_group("0")
    group["1"] = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    "weights, words",
    [
        (_soft, "is a link, and links are not followed"),
        (_outside, "is a link, and links are not followed"),
        (_raw, "is not stored directly in the file"),
        (_virtual, "is not stored directly in the file"),
        (_packed, "is not stored directly in the file"),
        (_endless, r"has shape \(4611686018427387904, 2\), and its layer \(3, 2\)"),
        (_missing, "is not stored directly in the file"),
        (_text, "is of type .*, and only floats are supported"),
        (_nan, "contains NaN or infinity"),
        (_few, "contains 1 arrays of 'd', which has 2"),
        (_nested, "contains no array 0 of 'd'"),
    ],
)
def test_weights_that_point_elsewhere_or_are_not_there(weights: Callable[[Any], None], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        import_keras(written(tmp_path / "m.keras", weights), device="cpu")


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        place: Any = config
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to

    return change


DENSE = ("config", "layers", 1)


@pytest.mark.parametrize(
    "change, words",
    [
        (_set(*DENSE, "config", "units", to=1 << 63), "has units 9223372036854775808, and an integer above 0"),
        (_set(*DENSE, "config", "units", to=1 << 30), r"has shape \(3, 2\), and its layer \(3, 1073741824\)"),
        (_set(*DENSE, "config", "units", to="many"), "has units 'many'"),
        (_set(*DENSE, "class_name", to="Lambda"), "Lambda 'd' has no equivalent layer in gpucnn"),
        (_set(*DENSE, "module", to="somebody"), "Dense 'd' has no equivalent layer in gpucnn"),
        (_set(*DENSE, "config", to=None), "the description of a layer is damaged"),
        (_set(*DENSE, to=[]), "the description of a layer is damaged"),
        (_set(*DENSE, "config", "activation", to={"class_name": "function", "config": "mine"}), "has the activation 'mine'"),
        (_set("config", "layers", to=None), "leaves the shape of its input open"),
        (_set("config", "layers", 0, "config", "batch_shape", to=[None, 1 << 40]), "not form a gpucnn model|has shape"),
        (_set("config", "layers", 0, "config", "batch_shape", to=[None, -3]), r"takes an input of shape \(-3,\)"),
        (_set("class_name", to="Elephant"), "is a 'Elephant', and only sequential and functional models"),
        (_set("class_name", to="Functional"), "describes its model in an unsupported way"),
        (_set("config", to=7), "describes no model"),
    ],
)
def test_descriptions_that_are_wrong(change: Callable[[dict[str, Any]], None], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        import_keras(written(tmp_path / "m.keras", change=change), device="cpu")


def test_archives_that_mean_harm(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    for name in ("../../outside", "/outside", "C:\\outside", "a/../../outside"):
        with pytest.raises(CheckpointError, match="leaves the archive"):
            import_keras(written(path, more={name: b"x"}), device="cpu")
    assert sorted(tmp_path.iterdir()) == [path]
    written(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", parts["config.json"])
        archive.writestr("model.weights.h5", bytes(40 << 20))  # zeros, in 40 KiB
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"unpacks to 40\.0 MiB: models do not compress that much"):
        import_keras(path, device="cpu")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("config.json", parts["config.json"])
    with pytest.raises(CheckpointError, match="two entries of one name"):
        import_keras(path, device="cpu")


def test_files_that_are_none_or_cut_short(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.keras").read_bytes()
    path = tmp_path / "m.keras"
    for content in (b"", b"text", whole[:100], whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is not a \.keras file, or was cut short|is empty"):
            import_keras(path, device="cpu")
    start = whole.index(b"\x89HDF")
    path.write_bytes(whole[:start] + b"\x00" * 64 + whole[start + 64 :])
    with pytest.raises(CheckpointError, match="is damaged"):  # the archive's checksum
        import_keras(path, device="cpu")
    for parts, words in (
        ({"config.json": b"{"}, "its description is damaged"),
        ({"config.json": b"[" * 100_000}, "its description is damaged"),
        ({"config.json": b"{}"}, "describes no model"),
        ({"config.json": b'{"config": {}}'}, r"has no model\.weights\.h5"),
        ({"config.json": b'{"config": {}}', "model.weights.h5": b"no HDF5"}, "its weights cannot be read"),
        ({"saved_model.pb": b""}, "is a SavedModel of TensorFlow"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        with pytest.raises(CheckpointError, match=words):
            import_keras(path, device="cpu")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(gc.MissingExtraError, match=r'\.keras files need h5py, which .*: pip install -e ".*\[keras\]"'):
        import_keras(tmp_path / "m.keras")
