"""ONNX files taken in: made by PyTorch's two exporters and by Keras's, whose own answers are the right values, and by hand."""

from __future__ import annotations

import logging
import math
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.exchange import NotTakenError, export_onnx, import_onnx
from gpucnn.networks import NETWORKS

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
helper = onnx.helper

APART = 1e-5


def randomized(model: gc.Sequential, seed: int = 0) -> gc.Sequential:
    rng = np.random.default_rng(seed)
    for name, array in (model.parameters | model.arrays).items():
        if len(array.shape) == 1:
            array.value = rng.uniform(0.5, 1.5, array.shape) if "variance" in name else rng.normal(0, 0.2, array.shape)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_went_out_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    model = randomized(gc.network(name, classes=3).build((1, 28, 28), device="cpu"))
    model.metadata = {"class_names": ["a", "b", "c"], "network": name}
    export_onnx(model, tmp_path / "m.onnx")
    back = import_onnx(tmp_path / "m.onnx", device="cpu")
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    np.testing.assert_allclose(back.predict(x), model.predict(x), rtol=APART, atol=APART)
    # The same layers, with the same weights: dropout alone, which does nothing in predicting, was left out.
    for (key, value), found in zip(model.parameters.items(), back.parameters.values(), strict=True):
        np.testing.assert_array_equal(found.value, value.value, err_msg=key)
    assert back.metadata == {**model.metadata, "imported_from": "m.onnx"}
    back.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(gc.load(tmp_path / "m.safetensors", device="cpu").predict(x), back.predict(x))


def test_every_layer_that_has_nodes_of_its_own_comes_back(tmp_path: Path) -> None:
    layers: list[Any] = [
        gc.Conv2D(6, (3, 2), stride=(1, 2), padding="same", activation="elu"),
        gc.BatchNorm2D(eps=1e-3, momentum=0.01, activation="silu"),
        gc.Conv2D(8, 3, groups=2, dilation=2, padding=2, activation="gelu"),
        gc.ConvTranspose2D(6, 3, stride=2, padding=1, output_padding=1, groups=2, activation="leaky_relu"),
        gc.ConvTranspose2D(4, 2, stride=3, padding="same"),
        gc.SeparableConv2D(4, 3, multiplier=2),
        gc.MaxPool2D(3, stride=2, padding=1),
        gc.LeakyReLU(0.3),
        gc.Residual(gc.DepthwiseConv2D(3, padding="same"), gc.GELU(approximate=True), shortcut=gc.ELU(0.5), activation="tanh"),
        gc.AvgPool2D(3, stride=2, padding=1, count_include_pad=False),
        gc.Concat(gc.Conv2D(3, 1), [gc.MaxPool2D(3, stride=1, padding=1), gc.Sigmoid()], gc.Dropout(0.0)),
        gc.ZeroPad2D(((0, 2), (1, 0))),
        gc.AvgPool2D(2, padding=1),
        gc.Flatten(),
        gc.Dense(7, activation="relu", use_bias=False),
        gc.BatchNorm2D(),
        gc.Dense(4, activation="softmax"),
    ]
    model = randomized(gc.Sequential(layers).build((2, 9, 8), device="cpu"), 3)
    export_onnx(model, tmp_path / "m.onnx")
    back = import_onnx(tmp_path / "m.onnx", device="cpu")
    x = np.random.default_rng(0).normal(0, 1, (3, 2, 9, 8)).astype(np.float32)
    np.testing.assert_allclose(back.predict(x), model.predict(x), rtol=APART, atol=APART)
    norms = [part for layer in back.layers for part in layer.walk().values() if isinstance(part, gc.BatchNorm2D)]
    assert norms[0].eps == pytest.approx(1e-3) and norms[0].momentum == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("next_layer", [gc.SiLU, gc.HardSwish, lambda: gc.Residual(gc.Conv2D(2, 3, padding=1))])
def test_zero_padding_that_several_nodes_read_is_one_layer(next_layer: Any, tmp_path: Path) -> None:
    model = gc.Sequential(gc.Conv2D(2, 3), gc.ZeroPad2D(((0, 1), (2, 0))), next_layer(), gc.Flatten(), gc.Dense(3))
    model.build((1, 6, 5), device="cpu")
    export_onnx(model, tmp_path / "m.onnx")
    back = import_onnx(tmp_path / "m.onnx", device="cpu")
    assert [repr(each) for each in back.layers] == [repr(each) for each in model.layers]
    x = np.random.default_rng(0).normal(0, 1, (3, 1, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(back.predict(x), model.predict(x), rtol=APART, atol=APART)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_filters_of_each_position_come_back_as_one_layer(channels: int, bias: bool, tmp_path: Path) -> None:
    layer = gc.LocallyConnected2D(4, (3, 2), stride=(2, 1), padding=((0, 2), (1, 0)), dilation=(1, 2), activation="tanh", use_bias=bias)
    model = randomized(gc.Sequential(layer, gc.MaxPool2D(2), gc.Flatten(), gc.Dense(3)).build((channels, 9, 8), device="cpu"))
    if bias:
        values = model.parameters["locallyconnected2d_1.bias"]
        values.value = np.random.default_rng(1).normal(0, 1, values.shape)
    export_onnx(model, tmp_path / "m.onnx")
    back = import_onnx(tmp_path / "m.onnx", device="cpu")
    assert [repr(each) for each in back.layers] == [repr(each) for each in model.layers]
    for (key, value), found in zip(model.parameters.items(), back.parameters.values(), strict=True):
        np.testing.assert_array_equal(found.value, value.value, err_msg=key)
    x = np.random.default_rng(0).normal(0, 1, (2, channels, 9, 8)).astype(np.float32)
    np.testing.assert_allclose(back.predict(x), model.predict(x), rtol=APART, atol=APART)


@pytest.mark.parametrize("kind", ["GlobalAvgPool2D", "GlobalMaxPool2D"])
def test_pooling_of_whole_images_has_its_name_again(kind: str, tmp_path: Path) -> None:
    model = gc.Sequential(gc.Conv2D(3, 1), getattr(gc, kind)(), gc.Dense(2)).build((1, 4, 5), device="cpu")
    export_onnx(model, tmp_path / "m.onnx")
    assert [type(layer).__name__ for layer in import_onnx(tmp_path / "m.onnx", device="cpu").layers] == ["Conv2D", kind, "Dense"]


# Files of PyTorch's.


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def tensors(torch: Any, module: Any, shape: tuple[int, ...]) -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The module with nothing left at its first value, an input, and its own answer."""
    generator = torch.Generator().manual_seed(0)
    for name, array in (*module.named_parameters(), *module.named_buffers()):
        if array.is_floating_point() and array.ndim == 1:
            low, high = (0.5, 1.5) if "running_var" in name else (-0.3, 0.3)
            array.data.uniform_(low, high, generator=generator)
    x = torch.randn((3, *shape), generator=generator)
    with torch.no_grad():
        return module.eval(), x.numpy(), module(x).numpy()


def exported(torch: Any, module: Any, shape: tuple[int, ...], path: Path, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros((2, *shape)),), str(path), **{"dynamo": False, "input_names": ["x"], **options})


def block(torch: Any, i: int, o: int, stride: int) -> Any:
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o)
            )
            self.side = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            return torch.relu(self.main(x) + self.side(x))

    return Block()


def branches(torch: Any, *each: Any) -> Any:
    class Branches(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.each = torch.nn.ModuleList(each)

        def forward(self, x: Any) -> Any:
            return torch.cat([x, *(module(x) for module in self.each)], 1)

    return Branches()


def lenet(nn: Any) -> list[Any]:
    """As in tutorials: flattening by view and a size that the graph works out, and max pooling of a ReLU."""
    return [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 25, 20),
        nn.Dropout(0.3),
        nn.ReLU(),
        nn.Linear(20, 10),
        nn.Softmax(1),
    ]


MODULES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "lenet": (lambda t: t.nn.Sequential(*lenet(t.nn)), (1, 28, 28)),
    "residual": (
        lambda t: t.nn.Sequential(block(t, 3, 3, 1), block(t, 3, 6, 2), t.nn.AdaptiveAvgPool2d(1), t.nn.Flatten(), t.nn.Linear(6, 4)),
        (3, 9, 9),
    ),
    "branches": (
        lambda t: t.nn.Sequential(branches(t, t.nn.Conv2d(2, 3, 3, padding=1), block(t, 2, 2, 1)), t.nn.BatchNorm2d(7), t.nn.ReLU()),
        (2, 5, 6),
    ),
    "depthwise": (
        lambda t: t.nn.Sequential(t.nn.Conv2d(4, 8, 3, 2, 1, groups=4), t.nn.SiLU(), t.nn.Conv2d(8, 4, 1), t.nn.GELU()),
        (4, 8, 7),
    ),
    "transposed": (
        lambda t: t.nn.Sequential(t.nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2), t.nn.ELU(0.7), t.nn.ConvTranspose2d(4, 1, 2, (1, 2))),
        (2, 5, 4),
    ),
    "padded": (
        lambda t: t.nn.Sequential(t.nn.ZeroPad2d((1, 2, 0, 3)), t.nn.Conv2d(1, 3, 3, 2, padding=1), t.nn.LeakyReLU(0.2), t.nn.ZeroPad2d(1)),
        (1, 8, 7),
    ),
    "pooling": (
        lambda t: t.nn.Sequential(
            t.nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            t.nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            t.nn.AdaptiveMaxPool2d(1),
        ),
        (2, 12, 11),
    ),
    "features": (
        lambda t: t.nn.Sequential(t.nn.Linear(6, 5, bias=False), t.nn.BatchNorm1d(5), t.nn.Sigmoid(), t.nn.Linear(5, 2)),
        (6,),
    ),
    "activations that end": (
        lambda t: t.nn.Sequential(
            t.nn.Conv2d(1, 3, 3),
            t.nn.BatchNorm2d(3),
            t.nn.ReLU6(),
            t.nn.Conv2d(3, 3, 1),
            t.nn.Hardswish(),
            t.nn.Hardtanh(0, 6),
            t.nn.BatchNorm2d(3),
            t.nn.Hardsigmoid(),
            t.nn.Identity(),
        ),
        (1, 6, 5),
    ),
    "pooling over the edge": (
        lambda t: t.nn.Sequential(
            t.nn.AvgPool2d(3, 2, 1, ceil_mode=True),
            t.nn.MaxPool2d(2, 3, ceil_mode=True),
            t.nn.AvgPool2d(2, 2, ceil_mode=True),
            t.nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False),
        ),
        (2, 24, 21),
    ),
    "tanh's gelu": (lambda t: t.nn.Sequential(t.nn.Conv2d(1, 2, 1), t.nn.GELU("tanh"), t.nn.Dropout2d(0.2)), (1, 4, 4)),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", MODULES)
def test_pytorchs_first_exporter(name: str, opset: int, torch: Any, tmp_path: Path) -> None:
    """Before version 20 it spells GELU out, node by node; before 18 means have their axes as attributes."""
    make, shape = MODULES[name]
    module, x, expected = tensors(torch, make(torch), shape)
    folded = opset == 18  # otherwise batch normalization is not put into the convolution before it
    kind = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    exported(
        torch,
        module,
        shape,
        tmp_path / "m.onnx",
        opset_version=opset,
        dynamic_axes={"x": {0: "b"}},
        training=kind,
        do_constant_folding=folded,
    )
    model = import_onnx(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(model.predict(x), expected, rtol=APART, atol=APART)


def test_a_fixed_batch_and_sizes_that_the_graph_works_out(torch: Any, tmp_path: Path) -> None:
    class Viewing(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(1, 3, 3), torch.nn.Linear(3 * 16, 2)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.gelu(self.a(x))
            return self.b(x.view(x.size(0), -1))

    module, x, expected = tensors(torch, Viewing(), (1, 6, 6))
    for options in ({}, {"dynamic_axes": {"x": {0: "b"}}}):
        exported(torch, module, (1, 6, 6), tmp_path / "m.onnx", opset_version=17, **options)
        np.testing.assert_allclose(import_onnx(tmp_path / "m.onnx", device="cpu").predict(x), expected, rtol=APART, atol=APART)


def test_a_model_that_ends_in_log_softmax_gives_the_probabilities(torch: Any, tmp_path: Path) -> None:
    """PyTorch's own example of MNIST ends so."""
    nn = torch.nn
    module, x, expected = tensors(torch, nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3), nn.LogSoftmax(1)), (1, 6, 6))
    exported(torch, module, (1, 6, 6), tmp_path / "m.onnx", opset_version=17)
    model = import_onnx(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(model.predict(x), np.exp(expected), rtol=APART, atol=APART)
    assert "logarithms of probabilities" in model.metadata["note"] and model.layers[-1].activation == "softmax"
    module.append(nn.Linear(3, 2))
    exported(torch, module, (1, 6, 6), tmp_path / "m.onnx", opset_version=17)
    with pytest.raises(NotTakenError, match="a log_softmax, which is supported only as the last layer"):
        import_onnx(tmp_path / "m.onnx", device="cpu")


def test_weights_of_several_places_become_weights_of_each_and_that_is_said(torch: Any, tmp_path: Path) -> None:
    class Twice(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.shared = torch.nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return self.shared(torch.relu(self.shared(x)))

    module, x, expected = tensors(torch, Twice(), (2, 5, 5))
    exported(torch, module, (2, 5, 5), tmp_path / "m.onnx", opset_version=17)
    model = import_onnx(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(model.predict(x), expected, rtol=APART, atol=APART)
    assert model.metadata["note"].count("'shared.weight' are used in several places") == 1


def test_a_model_exported_for_training_is_told_what_to_do(torch: Any, tmp_path: Path) -> None:
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    exported(torch, module, (1, 6, 6), tmp_path / "m.onnx", opset_version=17, training=torch.onnx.TrainingMode.TRAINING)
    with pytest.raises(NotTakenError, match=r"BatchNormalization .* is in training mode: export the model for inference"):
        import_onnx(tmp_path / "m.onnx", device="cpu")


def test_pytorchs_second_exporter_with_its_weights_in_a_file_beside(torch: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: PyTorch's second exporter needs it")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    nn = torch.nn
    make = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        block(torch, 4, 4, 1),
        block(torch, 4, 6, 2),
        nn.GELU(),
        nn.SiLU(),
        nn.ReLU6(),
        nn.Hardswish(),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        branches(torch, nn.Conv2d(6, 2, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 30),
        nn.Tanh(),
        nn.Linear(30, 10),
        nn.Softmax(1),
    )
    module, x, expected = tensors(torch, make, (1, 14, 14))
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            module, (torch.zeros(2, 1, 14, 14),), str(path), dynamo=True, verbose=False, dynamic_shapes=shapes, external_data=True
        )
    beside = tmp_path / "m.onnx.data"
    assert beside.stat().st_size > 1000  # or this would be no test of it
    np.testing.assert_allclose(import_onnx(path, device="cpu").predict(x), expected, rtol=APART, atol=APART)
    whole = beside.read_bytes()
    beside.write_bytes(whole[:-100])
    with pytest.raises(NotTakenError, match=r"places .* at \d+ to \d+ of m\.onnx\.data, which has"):
        import_onnx(path, device="cpu")
    beside.rename(tmp_path / "elsewhere")
    with pytest.raises(NotTakenError, match=r"stores its weights in m\.onnx\.data, which cannot be read"):
        import_onnx(path, device="cpu")
    beside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotTakenError, match="is not a regular file"):
        import_onnx(path, device="cpu")


# Files by hand.


def graph(
    nodes: list[Any],
    shape: tuple[Any, ...],
    constants: dict[str, Any] | None = None,
    path: Path | None = None,
    opset: int = 21,
    **more: Any,
) -> Any:
    """A model from "x" (N, *shape) to "y"."""
    arrays = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        arrays,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], **more)
    if path is not None:
        onnx.save(model, path)
    return model


def node(kind: str, *inputs: str, y: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [y], name=f"{kind.lower()}_of_{inputs[0]}", **attributes)


def by_runtime(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: what a file computes is not known")
    return np.asarray(runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


BY_HAND: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any]]] = {
    "padding worked out by rules": (
        [
            node("Conv", "x", "w", y="a", auto_pad="SAME_UPPER", strides=[2, 2]),
            node("Conv", "a", "v", y="b", auto_pad="SAME_LOWER", strides=[2, 2]),
            node("MaxPool", "b", kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
        ],
        (2, 11, 10),
        {"w": normal(3, 2, 3, 3), "v": normal(2, 3, 4, 4)},
    ),
    "channels last, and a dense layer behind them": (
        [
            node("Transpose", "x", y="a", perm=[0, 3, 1, 2]),
            node("Conv", "a", "w", y="b"),
            node("Transpose", "b", y="c", perm=[0, 2, 3, 1]),
            node("Mul", "c", "scale", y="d"),
            node("Add", "d", "shift", y="e"),
            node("Relu", "e", y="f"),
            node("Flatten", "f", y="g"),
            node("MatMul", "g", "dense", y="h"),
            node("Add", "h", "bias"),
        ],
        (5, 6, 2),
        {"w": normal(3, 2, 2, 2), "scale": normal(3), "shift": normal(1, 1, 1, 3), "dense": normal(60, 4), "bias": normal(4)},
    ),
    "features in the file's order through what keeps it": (
        [
            node("Transpose", "x", y="t", perm=[0, 2, 3, 1]),
            node("Flatten", "t", y="a"),
            node("Sigmoid", "a", y="s"),
            node("Concat", "a", "s", y="b", axis=1),
            node("BatchNormalization", "b", "k", "k", "m", "v", y="c"),
            node("Gemm", "c", "w", "bias", alpha=0.5, beta=2.0),
        ],
        (2, 3, 4),
        {"k": normal(48), "m": normal(48), "v": np.abs(normal(48)) + 0.5, "w": normal(48, 3), "bias": normal(1, 3)},
    ),
    "images put in order by a formula": (
        [node("Sub", "x", "mean", y="a"), node("Div", "a", "std", y="b"), node("Conv", "b", "w")],
        (3, 4, 4),
        {"mean": normal(3, 1, 1), "std": np.abs(normal(1, 3, 1, 1)) + 0.5, "w": normal(2, 3, 2, 2)},
    ),
    "gelu by its formula, from a bias on": (
        [
            node("Conv", "x", "w", y="c"),
            node("Add", "c", "b", y="a"),
            node("Div", "a", "root", y="d"),
            node("Erf", "d", y="e"),
            node("Add", "e", "one", y="f"),
            node("Mul", "a", "f", y="g"),
            node("Mul", "g", "half"),
        ],
        (1, 3, 3),
        {"w": normal(2, 1, 2, 2), "b": normal(2, 1, 1), "root": np.float32(math.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "one activation after another, and a scale of one number": (
        [node("Mul", "x", "k", y="a"), node("Relu", "a", y="b"), node("Tanh", "b", y="c"), node("Mul", "c", "k", y="d"), node("Elu", "d")],
        (1, 3, 3),
        {"k": np.float32(-2)},
    ),
    "a sum of three, a mean over a plane, and a clip that is ReLU": (
        [
            node("Conv", "x", "w", y="a"),
            node("Clip", "x", "zero", y="r"),
            node("Sum", "a", "x", "r", y="s"),
            node("ReduceMean", "s", "axes", keepdims=0),
        ],
        (2, 3, 5),
        {"w": normal(2, 2, 1, 1), "zero": np.float32(0), "axes": np.array([-1, -2])},
    ),
    "a value and its own activation, added and scaled": (
        [node("Relu", "x", y="r"), node("Add", "r", "x", y="a"), node("Mul", "a", "k", y="b"), node("Conv", "b", "w")],
        (2, 3, 3),
        {"k": normal(1, 2, 1, 1), "w": normal(2, 2, 1, 1)},
    ),
    "a grey image without its channel": (
        [node("Unsqueeze", "x", "one", y="a"), node("Conv", "a", "w", y="b"), node("Reshape", "b", "shape")],
        (4, 5),
        {"one": np.array([1]), "w": normal(2, 1, 2, 2), "shape": np.array([0, -1])},
    ),
    "a mean over the edge as PyTorch writes it": (
        [
            node("Pad", "x", "pads", "zero", y="a"),
            node("AveragePool", "a", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, y="b"),
            node("Clip", "b", "zero", "six", y="c"),
            node("ReduceMean", "c", "axes", keepdims=1, y="d"),
            node("Squeeze", "d", "places", y="e"),
            node("Softmax", "e", axis=1),
        ],
        (2, 5, 5),
        {
            "pads": np.array([0, 0, 0, 1, 0, 0, 0, 1]),
            "zero": np.float32(0),
            "six": np.array([6], np.float32),
            "axes": np.array([2, 3]),
            "places": np.array([-1, -2]),
        },
    ),
    "means and axes of size one, one after another": (
        [
            node("ReduceMean", "x", "last", y="a", keepdims=0),
            node("ReduceMean", "a", "last", y="b", keepdims=1),
            node("Unsqueeze", "b", "end", y="c"),
            node("Conv", "c", "w", y="d"),
            node("Squeeze", "d", "end", y="e"),
            node("Squeeze", "e", "last", y="f"),
            node("Gemm", "f", "v"),
        ],
        (3, 4, 5),
        {"last": np.array([2]), "end": np.array([3]), "w": normal(2, 3, 1, 1), "v": normal(2, 4)},
    ),
    "the height's mean, of channels last": (
        [
            node("Transpose", "x", y="t", perm=[0, 2, 3, 1]),
            node("ReduceMean", "t", "one", y="m", keepdims=0),
            node("Relu", "m", y="r"),
            node("Flatten", "r", y="f"),
            node("MatMul", "f", "w"),
        ],
        (2, 3, 4),
        {"one": np.array([1]), "w": normal(8, 3)},
    ),
    "padding before max pooling that never wins": (
        [node("Pad", "x", "pads", "low", y="a"), node("MaxPool", "a", kernel_shape=[3, 3], strides=[2, 2])],
        (2, 6, 6),
        {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "low": np.float32(-np.inf)},
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_graphs_by_hand(name: str, tmp_path: Path) -> None:
    nodes, shape, constants = BY_HAND[name]
    graph(nodes, shape, constants, tmp_path / "m.onnx", ir_version=10)
    x = np.random.default_rng(1).normal(0, 1, (3, *shape)).astype(np.float32)
    model = import_onnx(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(model.predict(x), by_runtime(tmp_path / "m.onnx", x), rtol=APART, atol=APART)


W = {"w": normal(2, 2, 1, 1)}
NOT_TAKEN: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "every node that is in the way": (
        [node("LRN", "x", y="a", size=3), node("Conv", "a", "w", y="b"), node("Mish", "x", y="c"), node("Add", "b", "c")],
        W,
        r"LRN 'lrn_of_x' has no equivalent layer in gpucnn; Mish 'mish_of_x' has no equivalent layer in gpucnn$",
    ),
    "ReLU with another end": (
        [node("Clip", "x", "zero", "four", y="a"), node("Conv", "a", "w")],
        W | {"zero": np.float32(0), "four": np.float32(4)},
        "Conv 'conv_of_a' uses what 'clip_of_x' outputs, a formula that no activation of gpucnn computes",
    ),
    "a formula of no name": ([node("Clip", "x", "low", "six")], {"low": np.float32(-1), "six": np.float32(6)}, "no activation of"),
    "the hard sigmoid of Keras 2": ([node("HardSigmoid", "x")], {}, "uses what 'hardsigmoid_of_x' outputs, a formula"),
    "softmax over the channels of images": ([node("Softmax", "x", axis=1)], {}, "Softmax 'softmax_of_x' is along axis 1 of 4"),
    "a mean over channels": ([node("ReduceMean", "x", "k")], {"k": np.array([1])}, r"ReduceMean .* reduces axes \[1\], and only height"),
    "channels in another order": (
        [node("Reshape", "x", "k")],
        {"k": np.array([0, 1, 2, 4, 4])},
        r"Reshape 'reshape_of_x' reshapes \(2, 4, 4\) to \(1, 2, 4, 4\)",
    ),
    "an axis that is not of size one": ([node("Squeeze", "x", "k")], {"k": np.array([1])}, r"Squeeze 'squeeze_of_x' removes axes \[1\]"),
    "average pooling with gaps": (
        [node("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 1])],
        {},
        r"AveragePool .* has dilations \(2, 1\)",
    ),
    "a product with a number for each pixel": (
        [node("AveragePool", "x", kernel_shape=[2, 2], y="a"), node("Mul", "a", "k")],
        {"k": normal(1, 1, 3, 3)},
        "differs from pixel to pixel",
    ),
    "shares that no pooling over the edge has": (
        [node("Pad", "x", "pads", y="p"), node("AveragePool", "p", kernel_shape=[2, 2], strides=[3, 3], y="a"), node("Mul", "a", "k")],
        {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "k": np.array([[[[1, 3], [3, 4]]]], np.float32)},
        "Mul 'mul_of_a' combines a value with a constant of shape .* differs from pixel to pixel",
    ),
    "a product of two": ([node("Conv", "x", "w", y="a"), node("Mul", "a", "x")], W, r"Mul 'mul_of_a' combines two values"),
    "sums of another kind": ([node("Einsum", "x", "w", equation="nchw,kchw->nk")], W, r"sums by 'nchw,kchw->nk', and only filters of each"),
    "filters of each position behind other than picked pixels": (
        [node("Conv", "x", "w", y="a"), node("Einsum", "a", "v", equation="nfpq,kfpq->nkpq")],
        W | {"v": normal(3, 2, 4, 4)},
        "follows a convolution with its own weights",
    ),
    "filters of each position behind nothing": (
        [node("Einsum", "x", "v", equation="nfpq, kfpq -> nkpq")],
        {"v": normal(3, 2, 4, 4)},
        "no convolution before it picks",
    ),
    "filters for other positions": (
        [node("Conv", "x", "taps", y="a", group=2), node("Einsum", "a", "v", equation="nfpq,kfpq->nkpq")],
        {"taps": np.ones((2, 1, 1, 1), np.float32), "v": normal(3, 2, 4, 3)},
        r"has a weight of shape \(3, 2, 4, 3\) for windows of shape \(2, 4, 4\)",
    ),
    "weights that are computed": ([node("Conv", "x", "x")], {}, "computes its input 2, which must be a constant"),
    "a convolution of three dimensions": ([node("Conv", "x", "w")], {"w": normal(2, 2, 1, 1, 1)}, "a convolution in 3 dimensions"),
    "a branch that ends in another's middle": (
        [
            node("Conv", "x", "w", y="a"),
            node("Conv", "a", "w", y="b"),
            node("Add", "a", "b", y="c"),
            node("Conv", "b", "w", y="d"),
            node("Add", "c", "d"),
        ],
        W,
        "in two places that neither Residual nor Concat joins",
    ),
    "the batch flattened": ([node("Flatten", "x", axis=0)], {}, "flattens from axis 0 on"),
    "the batch computed with": (
        [node("Shape", "x", y="s"), node("Mul", "s", "s", y="t"), node("Reshape", "x", "t")],
        {},
        "cannot be computed in advance",
    ),
    "pixels that differ": ([node("Add", "x", "k")], {"k": normal(2, 4, 4)}, "differs from pixel to pixel"),
    "NaN": ([node("Conv", "x", "w")], {"w": np.full((2, 2, 1, 1), np.nan, np.float32)}, "has NaN or infinity in its weight"),
    "a constant that is too large": (
        [node("ConstantOfShape", "k", y="s"), node("Add", "x", "s")],
        {"k": np.array([1 << 31, 1 << 31])},
        "too many numbers",
    ),
    "constants that grow": (
        [node("Mul", "a", "b", y="c"), node("Add", "x", "c")],
        {"a": np.zeros((1, 70000), np.float32), "b": np.zeros((70000, 1), np.float32)},
        r"cannot be computed in advance \(it would have 4,900,000,000 numbers",
    ),
    "a window larger than the image": ([node("MaxPool", "x", kernel_shape=[9, 9])], {}, "does not fit: the pooling window is 9 pixels"),
    "sizes of 2⁶³": (
        [node("MaxPool", "x", kernel_shape=[(1 << 63) - 1, 1], strides=[(1 << 63) - 1, 1])],
        {},
        "does not fit: .*must be below 2³¹",
    ),
    "what no node makes": ([node("Relu", "z")], {}, "takes 'z', which no earlier node outputs"),
    "a value added to itself": ([node("Add", "x", "x", y="a"), node("Conv", "a", "w")], W, "adds a value to itself"),
    "no layers": ([node("Identity", "x")], {}, "has no layers"),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_cannot_be_taken_is_named(name: str, tmp_path: Path) -> None:
    nodes, constants, words = NOT_TAKEN[name]
    graph(nodes, (2, 4, 4), constants, tmp_path / "m.onnx")
    with pytest.raises(NotTakenError, match=words) as caught:
        import_onnx(tmp_path / "m.onnx", device="cpu")
    assert len(str(caught.value)) <= 500 and caught.value.problems


def test_sizes_that_the_file_leaves_open(tmp_path: Path) -> None:
    nodes = [node("Conv", "x", "w", y="a"), node("GlobalAveragePool", "a", y="b"), node("Flatten", "b")]
    graph(nodes, (2, "h", "w"), W, tmp_path / "m.onnx", ir_version=10)
    with pytest.raises(CheckpointError, match=r"leaves the size of its input open \(2×\?×\?\): give it"):
        import_onnx(tmp_path / "m.onnx", device="cpu")
    with pytest.raises(ArgumentError, match=r"input_shape \(3, 5, 6\) does not fit .*, which takes 2×\?×\?"):
        import_onnx(tmp_path / "m.onnx", input_shape=(3, 5, 6), device="cpu")
    model = import_onnx(tmp_path / "m.onnx", input_shape=(2, 5, 6), device="cpu")
    x = normal(1, 2, 5, 6)
    np.testing.assert_allclose(model.predict(x), by_runtime(tmp_path / "m.onnx", x), rtol=APART, atol=APART)


def external(location: str, *, offset: str = "0", length: str = "16") -> Any:
    model = graph([node("Conv", "x", "w")], (2, 4, 4), W)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    return model


@pytest.mark.parametrize(
    "location, more, words",
    [
        ("../weights", {}, "only files in the same folder are read"),
        ("/etc/passwd", {}, "only files in the same folder are read"),
        ("a/weights", {}, "only files in the same folder are read"),
        ("a\\..\\weights", {}, "only files in the same folder are read"),
        ("..", {}, "only files in the same folder are read"),
        ("", {}, "only files in the same folder are read"),
        ("folder", {}, "is not a regular file"),
        ("here", {"offset": str(1 << 63)}, "as the position of 'w'"),
        ("here", {"offset": "-1"}, "as the position of 'w'"),
        ("here", {"offset": "1"}, "at 1 to 17 of here, which has 16 bytes"),
        ("here", {"length": str(1 << 40)}, "at 0 to 1099511627776"),
    ],
)
def test_weights_elsewhere_are_not_looked_for(location: str, more: dict[str, str], words: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (inside / "here").write_bytes(normal(4).tobytes())
    (tmp_path / "weights").write_bytes(normal(4).tobytes())
    (inside / "m.onnx").write_bytes(external(location, **more).SerializeToString())
    with pytest.raises(NotTakenError, match=words):
        import_onnx(inside / "m.onnx", device="cpu")
    (inside / "m.onnx").write_bytes(external("here").SerializeToString())
    import_onnx(inside / "m.onnx", device="cpu")  # the same, done rightly


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    whole = graph([node("Conv", "x", "w")], (2, 4, 4), W).SerializeToString()
    for content in (b"", b"not at all", whole[: len(whole) // 2], whole[:-3], b"\x00" * 1000):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cut short|contains no ONNX graph|is empty|is written in version 0|incomplete"):
            import_onnx(path, device="cpu")
    with pytest.raises(CheckpointError, match="does not exist"):
        import_onnx(tmp_path / "none.onnx", device="cpu")
    with pytest.raises(CheckpointError, match="is a folder"):
        import_onnx(tmp_path, device="cpu")


def test_files_that_go_beyond_one_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    conv = [node("Conv", "x", "w")]
    two = graph(conv, (2, 4, 4), W)
    two.graph.input.add(name="z")
    foreign = graph([helper.make_node("Fancy", ["x"], ["y"], domain="com.example")], (2, 4, 4))
    sparse = graph(conv, (2, 4, 4), W)
    sparse.graph.sparse_initializer.add()
    functions = graph(conv, (2, 4, 4), W)
    functions.functions.add(name="f")
    whole = graph(conv, (2, 4, 4), W)
    whole.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    unknown = graph(conv, (2, 4, 4), W)
    unknown.graph.input[0].type.tensor_type.elem_type = 1000
    cases = (
        (whole, "takes an input of type UINT8, and only floats are supported"),
        (unknown, "describes its input in an unsupported way"),
        (two, "has 2 inputs"),
        (foreign, "operators of com.example"),
        (sparse, "sparse weights"),
        (functions, "has functions"),
    )
    for model, words in (*cases, (graph(conv, (2, 4, 4), W, opset=6), "version 6 of ONNX's operators")):
        path.write_bytes(model.SerializeToString())
        with pytest.raises(CheckpointError, match=words):
            import_onnx(path, device="cpu")
    inner = helper.make_graph([node("Relu", "x", y="z")], "g", [], [helper.make_tensor_value_info("z", 1, None)])
    loop = graph([node("If", "c", then_branch=inner, else_branch=inner)], (2, 4, 4), {"c": np.array(True)})
    path.write_bytes(loop.SerializeToString())
    with pytest.raises(NotTakenError, match="contains a graph"):
        import_onnx(path, device="cpu")


def test_one_array_in_many_places_takes_no_more_memory_than_the_file_is_worth(tmp_path: Path) -> None:
    nodes = [node("Conv", "x" if not number else f"a{number}", "w", y=f"a{number + 1}") for number in range(40)]
    weight = np.zeros((512, 512, 1, 1), np.float32)  # a megabyte, forty times
    graph([*nodes, node("Relu", "a40")], (512, 4, 4), {"w": weight}, tmp_path / "m.onnx")
    with pytest.raises(NotTakenError, match="needs more weights than the file has"):
        import_onnx(tmp_path / "m.onnx", device="cpu")


def test_sizes_of_inputs_cost_nothing(tmp_path: Path) -> None:
    cases: list[tuple[list[Any], tuple[int, ...]]] = [
        ([node("Transpose", "x", y="a", perm=[0, 2, 3, 1]), node("Flatten", "a")], (4, 1 << 15, 1 << 13)),
        ([node("Mul", "x", "k")], (1 << 30,)),
        ([node("Concat", "x", "x", y="a", axis=1), node("Add", "a", "k")], (1 << 29, 1, 1)),
        ([node("Flatten", "x", y="a"), node("Gemm", "a", "w")], (1 << 15, 1 << 15, 2)),
        ([node("Conv", "x", "k4", y="a", strides=[1, 1]), node("GlobalAveragePool", "a")], (1, 1 << 40, 1 << 40)),
    ]
    for nodes, shape in cases:
        constants = {"k": np.float32(2), "w": normal(3, 2), "k4": normal(1, 1, 1, 1)}
        graph(nodes, shape, constants, tmp_path / "m.onnx")
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError):
                import_onnx(tmp_path / "m.onnx", device="cpu")
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("dims", [[1 << 62, 4], [-1, 2, 1, 1], [1 << 31, 1 << 31, 1 << 31, 1]])
def test_sizes_that_no_memory_holds(dims: list[int], tmp_path: Path) -> None:
    model = graph([node("Conv", "x", "w")], (2, 4, 4), W)
    model.graph.initializer[0].dims[:] = dims
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NotTakenError, match=r"incomplete|below 0"):
        import_onnx(tmp_path / "m.onnx", device="cpu")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph([node("Conv", "x", "w")], (2, 4, 4), W, tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(gc.MissingExtraError, match="ONNX files need onnx"):
        import_onnx(tmp_path / "m.onnx", device="cpu")
