"""The page's numbers against Python's: every layer of every network by name, and of random models of all layers.

The page sums in double precision and rounds once, so it is held to 10⁻⁵ of a layer's largest value against float64, and against what
float32 gives in Python, whose roundings are of the order of √terms · 2⁻²⁴.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.networks import NETWORKS
from gpucnn.viewing import pictures
from gpucnn.viewing.graph import Graph

RELATIVE = 1e-5
QUICK = ("keras", "lenet5", "inception", "mobilenet")  # which have a layer of each kind that networks by name have, but the sum
RUNS = """async () => {
  const times = [];
  for (let i = 0; i < 12; i++) {
    const before = gpucnn.state.answers;
    gpucnn.state.runner.run({ input: gpucnn.state.input, given: {} });
    while (gpucnn.state.answers === before) await new Promise(done => setTimeout(done, 1));
    times.push(gpucnn.state.took);
  }
  return times.sort((a, b) => a - b);
}"""


# Looks into every layer; what the panel says of its strongest value, what its equation ends in, and what the network says.
VISIT = """async () => {
  const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const found = [];
  for (const block of document.querySelectorAll("#ribbon .block")) {
    block.click();
    await frame();
    const { node, unit, outputs, network } = gpucnn.state;
    const results = [...document.querySelectorAll("#inspector .equation .value")];
    const result = results.length ? Number(results[results.length - 1].title) : null;
    found.push([network.nodes[node].name, Number(document.querySelector("#inspector .at").dataset.value), result, outputs[node][unit]]);
  }
  return found;
}"""

# From an event of the pen to the frame that shows what every layer makes of it.
STROKES = """async () => {
  const pad = document.getElementById("pad");
  const box = pad.getBoundingClientRect();
  const send = (kind, i) => pad.dispatchEvent(new PointerEvent(kind, { pointerId: 1, bubbles: true, cancelable: true, button: 0,
    clientX: box.left + box.width * (0.3 + 0.03 * i), clientY: box.top + box.height * (0.2 + 0.04 * i) }));
  const frame = () => new Promise(done => requestAnimationFrame(done));
  const times = [];
  send("pointerdown", 0);
  for (let i = 1; i <= 12; i++) {
    while (gpucnn.state.runner.running) await frame();
    await frame();
    const before = gpucnn.state.answers;
    const began = performance.now();
    send("pointermove", i);
    while (gpucnn.state.answers === before) await new Promise(done => setTimeout(done, 0));
    await frame();
    times.push(performance.now() - began);
  }
  send("pointerup", 13);
  return times.sort((a, b) => a - b);
}"""


def drawn(model: gc.Sequential, seed: int) -> gc.Sequential:
    """The model with biases and statistics that are not those it starts with."""
    rng = np.random.default_rng(seed)
    for name, array in model._tensors().items():
        if name.endswith("bias") or name.endswith("mean"):
            array[...] = rng.normal(size=array.shape) * 0.2
        elif name.endswith("variance"):
            array[...] = rng.uniform(0.5, 1.5, size=array.shape)
    return model


def exact(model: gc.Sequential) -> gc.Sequential:
    """The same model in float64."""
    copy = gc.Sequential([gc.layers.layer_from_config(layer.config()) for layer in model.layers])
    copy.build(model.input_shape, device="cpu", dtype="float64")
    copy.loss = model.loss
    for name, array in copy._tensors().items():
        array[...] = model._tensors()[name]
    return copy


def compare(model: gc.Sequential, outputs: list[Any], image: np.ndarray[Any, Any]) -> float:
    """Holds every layer's output against Python's; returns the largest error, as a part of its layer's largest value."""
    nodes, worst = Graph(model).nodes, 0.0
    assert len(nodes) == len(outputs) > len(model.layers)
    for reference in (exact(model), model):
        for node, found in zip(nodes, outputs, strict=True):
            if node["op"] == "input":
                expected = image / 255
            elif node["name"] == "probabilities":
                raw = reference.forward(image[None] / reference.dtype.type(255))
                expected = gc.functional.softmax(raw)
            else:
                expected = reference.features(image[None].astype(reference.dtype) / reference.dtype.type(255), node["name"])
            expected = np.asarray(expected, np.float64).reshape(-1)
            assert found.shape == expected.shape, node["name"]
            size = np.abs(expected).max() or 1.0
            error = np.abs(found - expected).max() / size
            assert error <= RELATIVE, f"{node['name']} ({node['kind']}): {error:.2g} of {size:.3g}"
            worst = max(worst, float(error)) if reference.dtype == np.float64 else worst
    return worst


def check(opened: Callable[..., Any], model: gc.Sequential, seed: int) -> Any:
    images = np.random.default_rng(seed).integers(0, 256, (2, *model.input_shape)).astype(np.uint8)
    page = opened(model, pictures.given(model, images), "#image=2")
    worst = compare(model, page.outputs(), images[1])
    assert worst < 2e-6, "sums in double precision, rounded once for each layer"
    for name, pinned, result, output in page.page.evaluate(VISIT):
        assert pinned == output, name
        # The panel adds up in double precision what the layer below has put out in float32; sums of many terms cancel.
        if result is None:  # a pixel of the padding has no equation
            assert name.startswith("zeropad2d") and output == 0
        else:
            assert result == pytest.approx(output, rel=1e-5, abs=1e-5 * max(1, abs(output))), name
    assert page.quiet(), page.said
    return page


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS])
def test_every_layer_of_a_network_by_name(name: str, opened: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    model = drawn(gc.network(name).build((1, 28, 28), seed=3, device="cpu"), 4)
    page = check(opened, model, 5)
    times, strokes = page.page.evaluate(RUNS), page.page.evaluate(STROKES)
    with capsys.disabled():
        for what, found in (("a forward", times), ("from the pen's move to the picture", strokes)):
            print(f"\n{name}: {what} takes {found[len(found) // 2]:.1f} ms in the page (of 12 {found[0]:.1f} to {found[-1]:.1f})", end="")


def all_layers() -> list[gc.Sequential]:
    """Between them every kind of layer, with the settings that are easy to get wrong."""
    images = gc.Sequential(
        gc.ZeroPad2D(((1, 0), (2, 1))),
        gc.Conv2D(8, (3, 2), stride=(1, 2), padding=((0, 2), (1, 0)), dilation=(2, 1), groups=2, activation="leaky_relu"),
        gc.BatchNorm2D(activation="silu"),
        gc.MaxPool2D((3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2), ceil_mode=True),
        gc.DepthwiseConv2D(3, multiplier=2, padding="same", activation="gelu"),
        gc.Concat(
            gc.AvgPool2D(3, stride=2, padding=1, ceil_mode=True),
            gc.AvgPool2D(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
            [gc.Conv2D(4, 1, use_bias=False), gc.ZeroPad2D(1), gc.AvgPool2D(3, stride=2, padding="same"), gc.ELU(0.7)],
            activation="tanh",
        ),
        gc.Residual(gc.SeparableConv2D(36, 3, padding="same", stride=1), gc.Dropout(0.3), activation="gelu"),
        gc.ConvTranspose2D(6, 3, stride=2, padding=1, output_padding=1, groups=2, activation="relu"),
        gc.LocallyConnected2D(5, 3, stride=2, padding="same", activation="sigmoid"),
        gc.GELU(approximate=True),
        gc.Flatten(),
        gc.Concat(gc.Dense(7, activation="softmax"), [gc.Dense(5), gc.BatchNorm2D(affine=False), gc.LeakyReLU(0.2)]),
        gc.Dense(4, use_bias=False),
    )
    images.build((4, 11, 13), seed=1, device="cpu")
    small = gc.Sequential(
        gc.Stack(gc.Conv2D(6, 3, padding="same"), gc.ReLU(), gc.SiLU(), gc.Softmax()),
        gc.Residual(gc.BatchNorm2D(), shortcut=gc.Conv2D(6, 1)),
        gc.Concat(gc.GlobalAvgPool2D(), gc.GlobalMaxPool2D(), [gc.Flatten(), gc.Dense(3, activation="elu"), gc.Tanh()]),
        gc.Residual(gc.Dense(15)),
        gc.Dense(1),
        gc.Sigmoid(),
    )
    small.build((3, 6, 5), seed=2, device="cpu")
    return [images, small]


@pytest.mark.parametrize("index", [0, 1])
def test_every_kind_of_layer(index: int, opened: Callable[..., Any]) -> None:
    check(opened, drawn(all_layers()[index], 6), 7)


def random_model(seed: int) -> gc.Sequential:
    rng = np.random.default_rng(seed)
    activations = [None, "relu", "tanh", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "relu6", "hard_sigmoid", "hard_swish"]

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def window() -> dict[str, Any]:
        return {"stride": pick(1, 1, 2, (1, 2)), "padding": pick("same", "valid", 1, (0, 1), ((1, 0), (0, 2)))}

    def one(channels: int) -> gc.layers.Layer:
        return pick(
            lambda: gc.Conv2D(
                int(rng.integers(1, 9)), pick(1, 2, 3, (1, 3)), dilation=pick(1, 1, 2), activation=pick(*activations), **window()
            ),
            lambda: gc.Conv2D(2 * channels, 3, groups=channels, padding="same", use_bias=pick(True, False)),
            lambda: gc.DepthwiseConv2D(pick(2, 3), multiplier=pick(1, 2), activation=pick(*activations), **window()),
            lambda: gc.SeparableConv2D(int(rng.integers(1, 7)), 3, activation=pick(*activations), **window()),
            lambda: gc.ConvTranspose2D(int(rng.integers(1, 6)), pick(2, 3), stride=pick(1, 2), padding=pick("same", 0, 1)),
            lambda: gc.LocallyConnected2D(int(rng.integers(1, 4)), pick(2, 3), activation=pick(*activations), **window()),
            lambda: gc.MaxPool2D(pick(2, 3), stride=pick(None, 1, 2), padding=pick(0, 1, "same"), ceil_mode=pick(True, False)),
            lambda: gc.AvgPool2D(pick(2, 3), stride=pick(None, 1), padding=pick(0, 1, "same"), count_include_pad=pick(True, False)),
            lambda: gc.Residual(gc.Conv2D(channels, 3, padding="same"), gc.BatchNorm2D(), activation=pick(None, "relu", "gelu")),
            lambda: gc.Concat(
                gc.Conv2D(2, 1), [gc.MaxPool2D(3, stride=1, padding="same"), gc.Conv2D(3, 3, padding="same", activation="relu")]
            ),
            lambda: gc.BatchNorm2D(activation=pick(*activations)),
            lambda: gc.ZeroPad2D(pick(1, ((1, 0), (0, 2)))),
            lambda: gc.Dropout(0.5),
            lambda: pick(gc.ReLU, gc.Tanh, gc.ELU, gc.GELU, gc.SiLU, gc.Softmax)(),
        )()

    shape = (pick(1, 2, 3), int(rng.integers(6, 15)), int(rng.integers(6, 15)))
    layers: list[gc.layers.Layer] = []
    while len(layers) < 6:
        layer = one((gc.Sequential(*layers).build(shape, device="cpu").output_shape if layers else shape)[0])
        try:
            found = gc.Sequential(*layers, layer).build(shape, device="cpu").output_shape
        except gc.ShapeError:
            continue
        if min(found[1:]) >= 3 and found[0] * found[1] * found[2] < 20_000:
            layers.append(layer)
    layers += [pick(gc.Flatten, gc.GlobalAvgPool2D, gc.GlobalMaxPool2D)(), gc.Dense(int(rng.integers(2, 12)))]
    return gc.Sequential(*layers).build(shape, seed=seed, device="cpu")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 25))])
def test_random_models(seed: int, opened: Callable[..., Any]) -> None:
    check(opened, drawn(random_model(seed), seed + 100), seed + 200)


def test_what_is_not_a_number_stays_so(opened: Callable[..., Any]) -> None:
    model = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(3)).build((1, 8, 8), device="cpu")
    model.parameters["conv2d_1.weight"].value[0, 0, 1, 1] = np.nan
    model.parameters["dense_1.bias"].value[1] = np.inf
    images = np.full((1, 1, 8, 8), 200, np.uint8)
    page = opened(model, pictures.given(model, images))
    found = page.outputs()
    assert np.isnan(found[1][:36]).all() and np.isfinite(found[1][36:]).all() and np.isnan(found[4]).all()
    assert page.quiet(), page.said


def test_halves_are_the_weights_rounded_and_the_page_says_so(opened: Callable[..., Any]) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(300, activation="relu"), gc.Dense(10)).build((1, 9, 9), seed=1, device="cpu")
    values = model.parameters["dense_1.weight"].value
    values.flat[:6] = [65504, -1e-7, 6e-8, 0.1, -0.0, 1e-4]  # the largest, and some below the normal ones
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 9, 9)).astype(np.uint8)
    page = opened(model, pictures.given(model, images), dtype="float16")
    for array in model._tensors().values():
        array[...] = array.astype(np.float16)
    compare(model, page.outputs(), images[0])
    assert "rounded to float16" in page.text("#notes")
