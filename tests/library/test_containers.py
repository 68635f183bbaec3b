"""Layers made of layers: numerical gradients, fusion and plans through them, names, files, summary, what does not fit."""

from __future__ import annotations

import copy
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, ShapeError
from gpucnn.layers.fused import ConvReluMaxPool
from gpucnn.memory import of_step
from gpucnn.ops import cpu

IMAGE = (2, 6, 6)


def conv(filters: int = 3, size: int = 3, activation: str | None = "relu", **settings: Any) -> gc.Conv2D:
    return gc.Conv2D(filters, size, padding="same", activation=activation, **settings)


NETWORKS: dict[str, Any] = {
    "a stack": lambda: [gc.Stack(conv(), gc.MaxPool2D(2)), gc.Flatten(), gc.Dense(3)],
    "a stack in a stack": lambda: [gc.Stack(conv(), gc.Stack(conv(2), gc.MaxPool2D(2), gc.Flatten())), gc.Dense(3)],
    "a model in a model": lambda: [gc.Sequential(conv(), gc.Sequential(gc.MaxPool2D(2))), gc.Flatten(), gc.Dense(3)],
    "residual": lambda: [conv(), gc.Residual(conv(), conv(activation=None), activation="relu"), conv(2), gc.Flatten(), gc.Dense(3)],
    "residual, the sum alone": lambda: [gc.Residual(conv(2, activation=None)), gc.Flatten(), gc.Dense(3)],
    "two residuals": lambda: [
        conv(),
        gc.Residual(conv(), conv(activation=None), activation="relu"),
        gc.Residual(conv(4, stride=2), conv(4, activation=None), shortcut=conv(4, 1, None, stride=2), activation="relu"),
        gc.Flatten(),
        gc.Dense(3),
    ],
    "residual with a list": lambda: [gc.Residual([conv(2), gc.Dropout(0.3)], shortcut=[conv(3), conv(2, 1, None)], activation="sigmoid")],
    "a residual that passes on": lambda: [gc.Residual(gc.Dropout(0.0)), gc.Flatten(), gc.Dense(3)],
    "a residual within a residual": lambda: [conv(), gc.Residual(conv(), gc.Residual(conv(), activation="relu")), conv(2)],
    "concat": lambda: [conv(), gc.Concat(conv(2, 1), [conv(2, 1), conv(4)], gc.MaxPool2D(3, stride=1, padding=1)), conv(2), gc.Flatten()],
    "concat of ReLUs": lambda: [conv(), gc.Concat(conv(2, 1), [conv(2, 1), conv(4), gc.Dropout(0.2)]), conv(2)],
    "concat first and last": lambda: [gc.Concat(conv(2, 1), conv(1, activation="sigmoid"))],
    "concat with an activation": lambda: [gc.Concat(conv(2, 1), conv(1, activation=None), activation="relu"), conv(2)],
    "concat of batch normalization": lambda: [
        conv(),
        gc.Concat([conv(2, activation=None), gc.BatchNorm2D(activation="relu")], conv(1), gc.Concat(conv(2, 1), conv(1))),
        conv(2),
    ],
    "concat of rows": lambda: [gc.Flatten(), gc.Concat(gc.Dense(3, activation="relu"), gc.Dense(2), gc.Flatten()), gc.Dense(2)],
    "concat in residual in concat": lambda: [
        gc.Concat(gc.Residual(gc.Concat(conv(1), conv(1)), activation="relu"), conv(1)),
        gc.Flatten(),
        gc.Dense(2),
    ],
}


def build(name: str, dtype: str = "float64") -> gc.Sequential:
    return gc.Sequential(*NETWORKS[name]()).build(IMAGE, seed=3, device="cpu", dtype=dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_numerical_ones(name: str, tie_free: Any, rng: np.random.Generator, numerical_gradient: Any) -> None:
    model = build(name)
    for key, parameter in model.parameters.items():
        parameter.value[...] = rng.normal(size=parameter.shape) / np.sqrt(max(1, parameter.size / parameter.shape[0])) + (
            0.1 if key.endswith("bias") else 0
        )
    x, dy = tie_free(2, *IMAGE) / 8, rng.normal(size=(2, *model.output_shape))
    x.flags.writeable = True
    state = model.state()

    def objective() -> float:
        model.restore(state)
        return float((model.forward(x, training=True) * dy).sum())

    objective()
    given = dy.copy()
    dx = model.backward(dy, input_grad=True)
    np.testing.assert_array_equal(dy, given)
    found = {key: parameter.grad.copy() for key, parameter in model.parameters.items()}
    np.testing.assert_allclose(dx, numerical_gradient(objective, x), rtol=1e-5, atol=1e-6)
    for key, parameter in model.parameters.items():
        np.testing.assert_allclose(found[key], numerical_gradient(objective, parameter.value), rtol=1e-5, atol=1e-6, err_msg=key)
    model.buffers.forget_gradients()
    objective()
    assert model.backward(dy) is None
    for key, parameter in model.parameters.items():
        np.testing.assert_array_equal(parameter.grad, found[key], err_msg=key)


def test_a_stack_is_its_layers_to_the_bit() -> None:
    stacked, flat = build("a stack in a stack"), gc.Sequential(conv(), conv(2), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(3))
    flat.build(IMAGE, seed=3, device="cpu", dtype="float64")
    assert list(stacked.parameters)[:4:2] == ["stack_1.conv2d_1.weight", "stack_1.stack_1.conv2d_1.weight"]
    x = np.random.default_rng(0).normal(size=(3, *IMAGE))
    np.testing.assert_array_equal(stacked.forward(x, True), flat.forward(x, True))
    dy = np.ones((3, 3))
    np.testing.assert_array_equal(stacked.backward(dy, input_grad=True), flat.backward(dy, input_grad=True))
    np.testing.assert_array_equal(stacked.buffers.all_gradients(), flat.buffers.all_gradients())
    assert [type(stage) for stage in stacked.chain.stages] == [type(stage) for stage in flat.chain.stages]
    assert stacked.chain.plans == flat.chain.plans and isinstance(stacked.chain.stages[1], ConvReluMaxPool)
    alone = gc.Stack(conv(), gc.MaxPool2D(2))
    gc.Sequential(alone).build(IMAGE, device="cpu", dtype="float64")
    assert alone.backward(np.ones_like(alone.forward(x, True))).shape == x.shape  # a layer by itself, too


@pytest.mark.parametrize("name", ["two residuals", "concat of ReLUs"])
def test_relu_has_no_gradient_pass_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    y = model.forward(np.ones((2, *IMAGE)), training=True)
    with monkeypatch.context() as patch:
        passes: list[Any] = []
        relu_grad = cpu.relu_grad
        patch.setattr(cpu, "relu_grad", lambda *args, **more: passes.append(args) or relu_grad(*args, **more))
        model.backward(np.ones_like(y))
    assert len(passes) == (0 if name == "two residuals" else 1)  # the network's last ReLU


def test_branches_write_into_the_output_and_read_their_part_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that end in a convolution, pooling, batch normalization or another Concat: copied are the others alone, once each way."""
    copies: list[Any] = []
    copied = cpu.copied
    monkeypatch.setattr(cpu, "copied", lambda x, **more: copies.append(x.shape) or copied(x, **more))
    x = np.random.default_rng(0).normal(size=(3, 4, 6, 6))
    for layer, expected in (
        (gc.inception(2, (2, 3), (1, 2), 2), []),
        (gc.Concat(conv(2), [conv(1), gc.Dropout(0.5)], gc.AvgPool2D(3, stride=1, padding=1)), [(3, 2, 6, 6), (3, 1, 6, 6)] * 2),
        (gc.Concat(conv(2, activation="tanh"), gc.DepthwiseConv2D(1)), [(3, 2, 6, 6)] * 2),
        (gc.Concat([conv(2), gc.BatchNorm2D()], gc.Concat([conv(1, activation=None), gc.BatchNorm2D()], conv(2, activation=None))), []),
        (gc.Concat(*([conv(3, activation=None), gc.BatchNorm2D(activation="relu")] for _ in range(2)), gc.Concat(conv(1), conv(2))), []),
        (gc.Concat([gc.Flatten(), gc.Dense(2)], [gc.Flatten(), gc.BatchNorm2D()]), [(3, 2)] * 2),
    ):
        model = gc.Sequential(layer).build((4, 6, 6), device="cpu", dtype="float64")
        copies.clear()
        y = model.forward(x, training=True)
        model.backward(np.ones_like(y), input_grad=True)
        assert copies == expected


BRANCHES: tuple[tuple[Any, ...], ...] = (
    (lambda: conv(16), lambda: [conv(16), conv(17)], lambda: conv(5, 5)),
    (lambda: [conv(4), gc.MaxPool2D(3, stride=1, padding=1)], lambda: gc.Conv2D(3, 3, dilation=2, padding=2)),
    (lambda: gc.MaxPool2D(3, stride=3), lambda: gc.AvgPool2D(3), lambda: [conv(4), gc.MaxPool2D(3)], lambda: conv(6, 3, None, stride=3)),
    (lambda: gc.DepthwiseConv2D(3, padding=1, activation="relu"), lambda: gc.Conv2D(16, 1, groups=2, activation="relu")),
)


NORMALIZED: tuple[tuple[Any, ...], ...] = (
    (lambda: [conv(3), gc.BatchNorm2D()], lambda: gc.Concat(conv(2), gc.BatchNorm2D()), lambda: conv(1, activation=None)),
    (lambda: [conv(3, 3, None, use_bias=False), gc.BatchNorm2D(activation="relu")], lambda: gc.Concat(conv(2), conv(1))),
)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("branches", [*BRANCHES, *NORMALIZED], ids=range(len(BRANCHES) + len(NORMALIZED)))
def test_a_part_of_the_output_has_the_bits_of_an_array_of_its_own(branches: Any, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, found = np.random.default_rng(1).normal(size=(9, 16, 12, 12)).astype(np.float32), []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(gc.Concat, "shares_output", lambda self, chain: False)
        layers = conv(16, 1, None), gc.Concat(*(make() for make in branches)), conv(3, 1)
        model = gc.Sequential(*layers).build((16, 12, 12), seed=2, device="cpu")
        layers[1].trainable = not frozen
        y = model.forward(x, training=True)
        dx = model.backward(np.linspace(-1, 1, y.size, dtype="float32").reshape(y.shape), input_grad=True)
        found.append([y, dx, *(parameter.grad for parameter in model.parameters.values()), *(a.value for a in model.arrays.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("branches", BRANCHES, ids=range(len(BRANCHES)))
@pytest.mark.parametrize("behind", [gc.Flatten, lambda: conv(3, 1)], ids=["no relu taken", "relu taken"])
def test_branches_side_by_side_in_float32(branches: Any, behind: Any) -> None:
    """Compiled loops, where there are any, write and read images that lie apart: as in float64."""
    x = np.random.default_rng(1).normal(size=(9, 16, 12, 12))
    found = []
    for dtype in ("float64", "float32"):
        model = gc.Sequential(conv(16, 1, None), gc.Concat(*(make() for make in branches)), behind()).build(
            (16, 12, 12), seed=2, device="cpu", dtype=dtype
        )
        y = model.forward(x.astype(dtype), training=True)
        dx = model.backward(np.linspace(-1, 1, y.size, dtype=dtype).reshape(y.shape), input_grad=True)
        found.append([y, dx, *(parameter.grad for parameter in model.parameters.values())])
    for one, other in zip(*found, strict=True):
        # Sums of up to 1296 products, a layer on another: some hundred roundings of numbers of the largest one's size.
        np.testing.assert_allclose(other, one, rtol=0, atol=200 * 2**-24 * np.abs(one).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_containers_are_saved_loaded_copied_and_trained(name: str, tmp_path: Path) -> None:
    model = gc.Sequential(*NETWORKS[name](), gc.Flatten(), gc.Dense(3)).build(IMAGE, device="cpu").compile(gc.SGD(0.01))
    rng = np.random.default_rng(0)
    x, y = rng.random((20, *IMAGE), np.float32), rng.integers(0, 3, 20)
    model.fit(x, y, batch_size=8, verbose=False)
    model.save(tmp_path / "m.safetensors")
    for other in (gc.load(tmp_path / "m.safetensors", device="cpu"), copy.deepcopy(model)):
        assert list(other.parameters) == list(model.parameters) and repr(other) == repr(model)
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
        other.fit(x, y, batch_size=8, verbose=False)


def test_summary_is_a_tree() -> None:
    text = io.StringIO()
    build("two residuals").summary(2, file=text)
    names = [line.split("  ")[0] if line[0] != " " else line[: line.index(line.strip()[0])] + line.split()[0] for line in lines(text)]
    assert names == [
        "conv2d_1 (relu)",
        "residual_1 (relu)",
        "  conv2d_1",
        "  conv2d_2",
        "residual_2 (relu)",
        "  conv2d_1",
        "  conv2d_2",
        "  shortcut",
        "flatten_1",
        "dense_1",
        "total",
    ]
    second = next(line for line in lines(text) if line.startswith("residual_2"))
    # 3·3·(3·4 + 4·4) + 3·4 weights and 3·4 biases; multiply-adds for two images of 3 × 3.
    assert second.split()[-3] == f"{2 * 9 * (9 * 28 + 12):,}" and second.split()[-4] == str(9 * 28 + 12 + 12)


def lines(text: io.StringIO) -> list[str]:
    rows = text.getvalue().splitlines()
    first = next(index for index, row in enumerate(rows) if row.startswith("conv2d_1"))
    return [row for row in rows[first:-1] if not row.startswith("─")]


@pytest.mark.parametrize("name", ["residual", "two residuals", "concat", "concat of ReLUs", "concat with an activation"])
def test_memory_is_what_numpy_holds(name: str) -> None:
    model = gc.Sequential(*NETWORKS[name](), gc.Flatten(), gc.Dense(3)).build((2, 24, 24), device="cpu")
    x = np.random.default_rng(0).random((16, 2, 24, 24), np.float32)
    model.forward(x, training=True)
    model.chain.forget()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = model.forward(x, training=True)
        held = tracemalloc.get_traced_memory()[0] - before
        model.backward(np.ones_like(y))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    kept = 4 * 16 * sum(of_step(model.chain.stages).kept) - x.nbytes
    assert abs(held - kept - y.nbytes) < 40_000, (held, kept)
    assert peak < 1.05 * 4 * 16 * max(map(max, of_step(model.chain.stages, apart=True).most)) + 4 * sum(
        max(stage.scratch(16)) for stage in model.chain.stages
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gc.Residual(), ArgumentError, "Residual needs at least one layer"),
        (lambda: gc.Stack(3), TypeError, "Stack takes layers, or lists of them, got 3"),
        (lambda: gc.Concat(gc.Flatten()), ArgumentError, "Concat needs at least two branches"),
        (lambda: gc.Concat(gc.Flatten(), "x"), TypeError, "Concat takes layers, or lists of them, got 'x'"),
        (lambda: gc.Concat(*[gc.Flatten()] * 2), ArgumentError, "a layer can be in Concat only once"),
        (lambda: gc.Residual(conv(), activation="rely"), ValueError, "unknown activation 'rely'.*did you mean 'relu'"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: gc.Residual(conv(3)), r"its layers return the shape \(3, 6, 6\) and the input, which is the shortcut, has \(2, 6, 6\)"),
        (lambda: gc.Residual(conv(3), shortcut=conv(4, 1)), r"the shape \(3, 6, 6\) and the shortcut returns \(4, 6, 6\)"),
        (lambda: gc.Concat(conv(), conv(stride=2)), r"branch 1 returns the shape \(3, 6, 6\) and branch 2 \(3, 3, 3\): only channels may"),
        (lambda: gc.Concat(conv(), gc.Flatten()), r"branch 1 returns the shape \(3, 6, 6\) and branch 2 \(72,\)"),
        (lambda: gc.Concat(conv(), gc.Dense(3)), "branch 2, Dense.*Dense works on rows of features"),
        (lambda: gc.Stack(conv(), gc.Dense(3)), "layer 2 of 2, Dense.*Dense works on rows of features"),
        (lambda: gc.Residual(conv(), shortcut=gc.Dense(3)), "the shortcut, Dense.*Dense works on rows of features"),
    ],
)
def test_shapes_that_do_not_fit_are_named(layer: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=rf"layer 1 of 1, .*{message}"):
        gc.Sequential(layer()).build(IMAGE, device="cpu")


def test_a_layer_in_two_places_is_refused() -> None:
    twice = conv(2)
    with pytest.raises(ArgumentError, match="a layer can be in a model only once"):
        gc.Sequential(twice, gc.Residual(gc.Stack(twice)))
