"""Models as ONNX files: each checked by onnx and run by onnxruntime, whose answers are the right values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import CheckpointError, GpucnnError, MissingExtraError
from gpucnn.exchange import export_onnx, import_onnx, packages
from gpucnn.exchange.onnx_nodes import ACTIVATIONS, NODES
from gpucnn.layers import kinds
from gpucnn.layers.base import ACTIVATIONS as KNOWN
from gpucnn.networks import NETWORKS

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: what a file computes is not known")

APART = 1e-5  # of what the two may differ, where outputs are of size one


def built(layers: list[Any], shape: tuple[int, ...], seed: int = 0) -> gc.Sequential:
    """A model with nothing left at its first value: biases, and means and variances of batch normalization."""
    model = gc.Sequential(layers).build(shape, seed=seed, device="cpu")
    rng = np.random.default_rng(seed)
    for name, array in (model.parameters | model.arrays).items():
        if array.shape and len(array.shape) in (1, 3):
            array.value = rng.uniform(0.5, 1.5, array.shape) if "variance" in name else rng.normal(0, 0.3, array.shape)
    return model


def run(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": x})[0]
    assert isinstance(found, np.ndarray)
    return found


def check(model: gc.Sequential, path: Path, batch: int = 3, spread: float = 1) -> None:
    export_onnx(model, path)
    x = np.random.default_rng(1).normal(0, spread, (batch, *model.input_shape)).astype(np.float32)
    expected = model.predict(x)
    assert np.abs(expected).max() > 1e-3  # or anything would pass
    np.testing.assert_allclose(run(path, x), expected, rtol=APART, atol=APART)


EACH: dict[str, tuple[list[Callable[[], Any]], tuple[int, ...]]] = {
    "Conv2D": (
        [
            lambda: gc.Conv2D(4, 3),
            lambda: gc.Conv2D(4, (3, 2), stride=2, padding="same", activation="relu"),
            lambda: gc.Conv2D(6, 3, stride=(2, 1), padding=((0, 2), (3, 1)), dilation=2, groups=2, use_bias=False),
        ],
        (2, 10, 9),
    ),
    "DepthwiseConv2D": ([lambda: gc.DepthwiseConv2D(3, stride=2, padding="same", multiplier=2, activation="silu")], (3, 8, 7)),
    "SeparableConv2D": ([lambda: gc.SeparableConv2D(5, 3, padding="same", multiplier=2, activation="relu")], (3, 8, 7)),
    "ConvTranspose2D": (
        [
            lambda: gc.ConvTranspose2D(4, 3, stride=2, padding=1, output_padding=1),
            lambda: gc.ConvTranspose2D(4, 2, stride=3, padding="same", activation="tanh"),
            lambda: gc.ConvTranspose2D(4, 3, padding="same", groups=2, dilation=2),
            lambda: gc.ConvTranspose2D(2, 4, stride=(1, 2), padding=((0, 1), (2, 0))),
        ],
        (2, 5, 4),
    ),
    "LocallyConnected2D": (
        [lambda: gc.LocallyConnected2D(3, 3, stride=2, padding=1, activation="relu"), lambda: gc.LocallyConnected2D(2, 2, use_bias=False)],
        (2, 7, 6),
    ),
    "Dense": ([lambda: gc.Dense(5, activation="sigmoid"), lambda: gc.Dense(3, use_bias=False)], (7,)),
    "BatchNorm2D": ([lambda: gc.BatchNorm2D(eps=1e-3, activation="relu"), lambda: gc.BatchNorm2D(affine=False)], (3, 4, 4)),
    "MaxPool2D": (
        [
            lambda: gc.MaxPool2D(2),
            lambda: gc.MaxPool2D(3, stride=2, padding="same"),
            lambda: gc.MaxPool2D(2, stride=3, ceil_mode=True),
            lambda: gc.MaxPool2D(3, stride=1, padding="same", dilation=4),  # padding of over the window's size
            lambda: gc.MaxPool2D((3, 2), stride=2, padding=1, dilation=(2, 1), ceil_mode=True),
        ],
        (2, 11, 8),
    ),
    "AvgPool2D": (
        [
            lambda: gc.AvgPool2D(2),
            lambda: gc.AvgPool2D(3, stride=2, padding="same"),
            lambda: gc.AvgPool2D(3, stride=2, padding=1),
            lambda: gc.AvgPool2D(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True),
            lambda: gc.AvgPool2D((3, 2), stride=(2, 3), padding=1, ceil_mode=True),
            lambda: gc.AvgPool2D((2, 5), stride=(3, 2), padding=((0, 1), (2, 1)), ceil_mode=True, count_include_pad=False),
            lambda: gc.AvgPool2D(4, stride=3, padding=((2, 0), (0, 2)), ceil_mode=True),
        ],
        (2, 10, 8),
    ),
    "GlobalAvgPool2D": ([gc.GlobalAvgPool2D], (3, 5, 4)),
    "GlobalMaxPool2D": ([gc.GlobalMaxPool2D], (3, 5, 4)),
    "ZeroPad2D": ([lambda: gc.ZeroPad2D(((1, 0), (2, 3))), lambda: gc.ZeroPad2D(0)], (2, 4, 3)),
    "Flatten": ([gc.Flatten], (2, 3, 4)),
    "Dropout": ([lambda: gc.Dropout(0.5)], (6,)),
    "ReLU": ([gc.ReLU], (2, 3, 4)),
    "Sigmoid": ([gc.Sigmoid], (2, 3, 4)),
    "Softmax": ([gc.Softmax], (2, 3, 4)),
    "Tanh": ([gc.Tanh], (2, 3, 4)),
    "LeakyReLU": ([lambda: gc.LeakyReLU(0.3), gc.LeakyReLU], (2, 3, 4)),
    "ELU": ([lambda: gc.ELU(0.7), gc.ELU], (2, 3, 4)),
    "GELU": ([gc.GELU, lambda: gc.GELU(approximate=True)], (2, 3, 4)),
    "SiLU": ([gc.SiLU], (2, 3, 4)),
    "ReLU6": ([gc.ReLU6, lambda: gc.Stack(gc.Conv2D(3, 1), gc.BatchNorm2D(activation="relu6"))], (2, 3, 4)),
    "HardSigmoid": ([gc.HardSigmoid], (2, 3, 4)),
    "HardSwish": ([gc.HardSwish, lambda: gc.Dense(3, activation="hard_swish")], (4,)),
    "Stack": ([lambda: gc.Stack(gc.Conv2D(3, 1), gc.ReLU())], (2, 3, 4)),
    "Residual": (
        [
            lambda: gc.Residual(gc.Conv2D(2, 3, padding="same"), activation="relu"),
            lambda: gc.Residual(gc.Conv2D(4, 3, padding="same", stride=2), shortcut=[gc.Conv2D(4, 1, stride=2), gc.BatchNorm2D()]),
        ],
        (2, 5, 4),
    ),
    "Concat": ([lambda: gc.Concat(gc.Conv2D(2, 1), [gc.Conv2D(3, 3, padding="same"), gc.ReLU()], gc.MaxPool2D(1))], (2, 5, 4)),
}


KINDS = {kind for kind in vars(kinds).values() if isinstance(kind, type) and issubclass(kind, gc.Layer)}  # of gpucnn's own


@pytest.mark.parametrize("kind", sorted({*EACH, *(kind.__name__ for kind in KINDS)}))
def test_every_layer(kind: str, tmp_path: Path) -> None:
    makers, shape = EACH[kind]
    for number, make in enumerate(makers):
        check(
            built([make()], shape, seed=number), tmp_path / "model.onnx", spread=4 if kind in ("ReLU6", "HardSigmoid", "HardSwish") else 1
        )
        model = built([gc.LeakyReLU(0.5), make()], shape, seed=number)  # dropout alone would be no layer at all
        export_onnx(model, tmp_path / "model.onnx")
        back = import_onnx(tmp_path / "model.onnx", device="cpu")
        x = np.random.default_rng(number).normal(0, 4, (2, *shape)).astype(np.float32)
        np.testing.assert_allclose(back.predict(x), model.predict(x), rtol=APART, atol=APART)


def test_every_layer_and_activation_is_in_the_tables() -> None:
    assert set(NODES) == KINDS
    assert set(KNOWN) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_by_name(name: str, tmp_path: Path) -> None:
    model = gc.network(name, classes=7).build((3, 28, 28), seed=2, device="cpu").compile()
    rng = np.random.default_rng(0)
    for key, array in model.arrays.items():
        array.value = rng.uniform(0.5, 1.5, array.shape) if "variance" in key else rng.normal(0, 0.1, array.shape)
    check(model, tmp_path / "model.onnx")
    export_onnx(model, tmp_path / "raw.onnx", logits=True)
    x = rng.random((2, 3, 28, 28), np.float32)
    np.testing.assert_allclose(run(tmp_path / "raw.onnx", x), model.forward(x), rtol=APART, atol=APART)


def random_layers(rng: np.random.Generator, depth: int = 0) -> list[Any]:
    """Layers that keep the size of an image, but for pooling between them."""

    def few(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    activation = [None, *KNOWN][few(0, 1 + len(KNOWN))]
    activation = None if activation == "softmax" else activation
    makers: list[Callable[[], Any]] = [
        lambda: gc.Conv2D(few(1, 6), (few(1, 5), few(1, 5)), padding="same", dilation=few(1, 3), activation=activation),
        lambda: gc.DepthwiseConv2D(few(1, 4), padding="same", multiplier=few(1, 3), activation=activation),
        lambda: gc.SeparableConv2D(few(1, 6), 3, padding="same"),
        lambda: gc.ConvTranspose2D(few(1, 5), few(1, 5), padding="same", activation=activation),
        lambda: gc.BatchNorm2D(affine=bool(few(0, 2)), activation=activation),
        lambda: gc.MaxPool2D(few(1, 5), stride=1, padding="same"),
        lambda: gc.AvgPool2D(few(1, 5), stride=1, padding="same"),
        lambda: gc.Residual(gc.Dropout(0.1), *same(rng, depth), activation=activation),
        lambda: gc.Concat(*[random_layers(rng, depth + 1) for _ in range(few(2, 4))]),
    ]
    return [makers[few(0, len(makers) - (2 if depth > 1 else 0))]() for _ in range(few(1, 4))]


def same(rng: np.random.Generator, depth: int) -> list[Any]:
    """Layers that keep the channels as well."""
    choice = int(rng.integers(0, 3))
    return [[gc.GELU()], [gc.BatchNorm2D()], [gc.Residual(gc.DepthwiseConv2D(3, padding="same"), shortcut=gc.ELU())]][choice]


@pytest.mark.parametrize("seed", range(12))
def test_random_models(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng)
    ending = [[], [gc.GlobalAvgPool2D(), gc.Dense(4)], [gc.Flatten(), gc.Dense(3, activation="softmax")]][seed % 3]
    shape = (int(rng.integers(1, 4)), int(rng.integers(5, 10)), int(rng.integers(5, 10)))
    model = built([*layers, *ending], shape, seed)
    check(model, tmp_path / "model.onnx")
    x = np.random.default_rng(2).normal(0, 1, (2, *shape)).astype(np.float32)
    np.testing.assert_allclose(import_onnx(tmp_path / "model.onnx", device="cpu").predict(x), model.predict(x), rtol=APART, atol=APART)


def test_batches_of_any_size_and_what_the_file_says_of_itself(tmp_path: Path) -> None:
    model = gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(2)).build((1, 4, 4), device="cpu").compile()
    model.metadata = {"class_names": ["yes", "no"], "network": "mine", "test_accuracy": np.float64(0.5)}
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    for count in (1, 5):
        x = np.random.default_rng(count).random((count, 1, 4, 4), np.float32)
        np.testing.assert_allclose(run(path, x), model.predict(x), rtol=APART, atol=APART)
        assert np.allclose(run(path, x).sum(axis=1), 1)  # as `predict` gives probabilities of a compiled model
    read = onnx.load(path)
    told = {entry.key: entry.value for entry in read.metadata_props}
    assert json.loads(told["class_names"]) == ["yes", "no"] and told["network"] == "mine" and json.loads(told["test_accuracy"]) == 0.5
    assert read.producer_name == "gpucnn" and read.opset_import[0].version == 21
    assert [dim.dim_param or dim.dim_value for dim in read.graph.input[0].type.tensor_type.shape.dim] == ["batch", 1, 4, 4]
    assert {array.name for array in read.graph.initializer} == set(model.parameters)


def test_images_have_channels_first_also_where_the_model_takes_them_last(tmp_path: Path) -> None:
    model = gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(2)).build((5, 4, 3), device="cpu", data_format="channels_last")
    export_onnx(model, tmp_path / "model.onnx")
    x = np.random.default_rng(0).random((2, 5, 4, 3), np.float32)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x.transpose(0, 3, 1, 2)), model.predict(x), rtol=APART, atol=APART)


@pytest.mark.parametrize("within", [lambda layer: layer, gc.Stack, gc.Sequential, lambda layer: gc.Stack(gc.Dense(4), gc.Stack(layer))])
def test_a_last_softmax_is_left_off_for_logits_and_the_model_stays_as_it_was(within: Any, tmp_path: Path) -> None:
    """Also in a stack; and without `logits` there is one, not two."""
    model = gc.Sequential(within(gc.Dense(3, activation="softmax"))).build((4,), device="cpu").compile()
    x = np.random.default_rng(0).random((2, 4), np.float32)
    for logits, expected in ((True, model.forward(x, logits=True)), (False, model.forward(x))):
        export_onnx(model, tmp_path / "model.onnx", logits=logits)
        np.testing.assert_allclose(run(tmp_path / "model.onnx", x), expected, rtol=APART, atol=APART)
    assert model.last_activation == "softmax"


def test_a_layer_of_ones_own_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    class Twice(gc.Layer):
        def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            return input_shape

        def _forward(self, x: Any, training: bool) -> Any:
            return 2 * x

    model = gc.Sequential(gc.Dense(2), gc.Stack(Twice())).build((3,), device="cpu")
    with pytest.raises(CheckpointError, match=r"'stack_1\.twice_1' is a Twice, which has no ONNX node"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_nan_and_a_model_that_is_not_built_are_refused(tmp_path: Path) -> None:
    model = gc.Sequential(gc.Dense(2))
    for given in ("model", None, gc.Dense(2)):
        with pytest.raises(TypeError, match="export_onnx takes a built model, got"):
            export_onnx(given, tmp_path / "model.onnx")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="logits must be True or False, got 'no'"):
        export_onnx(model, tmp_path / "model.onnx", logits="no")  # type: ignore[arg-type]
    with pytest.raises(GpucnnError, match="not built yet"):
        export_onnx(model, tmp_path / "model.onnx")
    model.build((3,), device="cpu").metadata = 5  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match="metadata must be a dict, got 5"):
        export_onnx(model, tmp_path / "model.onnx")
    model.metadata = {}
    model.parameters["dense_1.bias"].value = [0, np.nan]
    with pytest.raises(CheckpointError, match=r"'dense_1\.bias' contains NaN"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_package_its_name_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'ONNX files need onnx, which .*: pip install -e ".*\[onnx\]"'):
        packages.onnx()
    with pytest.raises(MissingExtraError):
        export_onnx(gc.Sequential(gc.Dense(2)).build((3,), device="cpu"), tmp_path / "model.onnx")
