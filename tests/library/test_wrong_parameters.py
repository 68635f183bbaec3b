"""Each parameter of each layer, given what it cannot be: a sentence that names the parameter and the value."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.layers import LAYERS
from gpucnn.text import shown

NAN, INFINITY = float("nan"), float("inf")
COUNT = (0, -1, 2.5, "3", None, True, [2], 1j, INFINITY, NAN, 1e300, np.array([2, 3]), len)
SIZES = (0, -1, 2.5, "3", True, (1, 2, 3), (), (2, 0), (2, None), b"2", {"a": 1}, NAN, (2, NAN), 1e300, len)
MORE = tuple(value for value in SIZES if value not in (0, (2, 0)))
FLAG = (1, "no", None, 0.0, [], (True,))
WRONG: dict[str, tuple[Any, ...]] = {
    "filters": COUNT,
    "units": COUNT,
    "groups": COUNT,
    "multiplier": COUNT,
    "kernel_size": (*SIZES, None),
    "pool_size": (*SIZES, None),
    "stride": SIZES,
    "dilation": (*SIZES, None),
    "padding": (-1, 2.5, "full", True, (1, 2, 3), ((1, 2), 3), ((1, 2), (3, -4)), None),
    "output_padding": (*MORE, None),
    "use_bias": FLAG,
    "affine": FLAG,
    "ceil_mode": FLAG,
    "count_include_pad": FLAG,
    "approximate": FLAG,
    "sync": FLAG,
    "activation": ("relo", 3, len, ["relu"], np.ones(2)),
    "initializer": ("he", 3, ["zeros"]),
    "precision": ("exact", 3, True, ["high"]),
    "rate": (1, 1.5, -0.1, NAN, "0.5", None, True),
    "momentum": (-0.1, 1.5, NAN, "0.1", None, True),
    "eps": (0, -1, NAN, INFINITY, "1e-5", None, True),
    "negative_slope": (-0.1, NAN, INFINITY, "0.1", None),
    "alpha": (0, -1, NAN, "1", None),
    "shortcut": (3, "relu", [3]),
    "layers": (3, "relu", [3], None),
    "branches": (3, "relu", [3], None),
}
NEEDED: dict[str, Any] = {"filters": 2, "kernel_size": 3, "units": 3}


def cases() -> Iterator[tuple[str, str, Any]]:
    for name, kind in LAYERS.items():
        for parameter in list(inspect.signature(kind.__init__).parameters)[1:]:
            for value in WRONG[parameter]:  # a new parameter has no place here yet, and should
                yield name, parameter, value


@pytest.mark.parametrize(("name", "parameter", "value"), list(cases()), ids=lambda each: each if isinstance(each, str) else shown(each))
def test_what_a_parameter_cannot_be_is_said_with_its_name(name: str, parameter: str, value: Any) -> None:
    kind = LAYERS[name]
    names = inspect.signature(kind.__init__).parameters
    with pytest.raises((ValueError, TypeError)) as caught:
        if parameter in ("layers", "branches"):
            kind(gc.Flatten(), value)
        elif name == "Residual":
            kind(gc.Flatten(), **{parameter: value})
        elif name == "Concat":
            kind(gc.Flatten(), gc.Flatten(), **{parameter: value})
        else:
            kind(**{each: NEEDED[each] for each in names if each in NEEDED} | {parameter: value})
    message = str(caught.value)
    assert "\n" not in message and isinstance(caught.value, gc.GpucnnError | TypeError), message
    said = name if parameter in ("layers", "branches") else parameter
    assert re.search(rf"\b{said}\b", message), message
    assert any(shown(each) in message for each in (value, *_within(value))), message


def _within(value: Any) -> Iterator[Any]:
    for each in value if isinstance(value, list | tuple) else ():
        yield each
        yield from _within(each)


def test_an_empty_list_of_layers_says_where() -> None:
    with pytest.raises(gc.ArgumentError, match="a list in Concat needs at least one layer"):
        gc.Concat(gc.Flatten(), [])
    with pytest.raises(gc.ArgumentError, match="a list in Residual's shortcut needs at least one layer"):
        gc.Residual(gc.Flatten(), shortcut=[])


ON_IMAGES = [name for name in LAYERS if re.search(r"2D$", name) and name != "BatchNorm2D"]


@pytest.mark.parametrize("shape", [(7,), (2, 1, 1), (2, 2, 2), (3, 1, 9)], ids=shown)
@pytest.mark.parametrize("name", LAYERS)
def test_an_input_that_does_not_fit_is_said_with_the_layer_and_the_size(name: str, shape: tuple[int, ...]) -> None:
    kind = LAYERS[name]
    names = inspect.signature(kind.__init__).parameters
    inside = {"Stack": 1, "Residual": 1, "Concat": 2}.get(name, 0)
    settings = {each: value for each, value in NEEDED.items() if each in names}
    layer = kind(*(gc.Conv2D(2, 3) for _ in range(inside)), **settings)
    try:
        output = gc.Sequential(layer).build(shape, device="cpu").output_shape
    except gc.ShapeError as error:
        message = str(error)
        assert "\n" not in message and message.startswith(f"layer 1 of 1, {name}("), message
        assert re.search(rf"got an input of shape {re.escape(str(shape))}|(padded image|image) only \d", message), message
    else:
        assert all(size > 0 for size in output) and not (len(shape) == 1 and name in ON_IMAGES)


BLOCKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "inception": (gc.inception, {"ones": 2, "threes": (2, 3), "fives": (2, 3), "pooled": 2}),
    "residual_block": (gc.residual_block, {"filters": 2, "stride": 1}),
    "depthwise_block": (gc.depthwise_block, {"filters": 2, "stride": 1}),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_what_a_block_cannot_be_made_of_is_said_with_its_name(name: str) -> None:
    make, good = BLOCKS[name]
    assert make(**good)
    for parameter in good:
        for value in {"stride": SIZES, "threes": PAIRS, "fives": PAIRS}.get(parameter, COUNT):
            with pytest.raises((gc.GpucnnError, TypeError)) as caught:
                make(**good | {parameter: value})
            message = str(caught.value)
            assert re.search(rf"\b{parameter}\b", message) and "\n" not in message, (parameter, value, message)
            assert any(shown(each) in message for each in (value, *_within(value))), message


def test_a_block_projects_for_a_stride_in_pairs_as_for_its_number() -> None:
    assert gc.residual_block(2, stride=(1, 1)).shortcut is None and gc.residual_block(2, stride=(1, 2)).shortcut is not None
    for value in (*FLAG[:2], np.ones(2)):
        with pytest.raises(TypeError, match="project must be True or False, got"):
            gc.residual_block(2, project=value)
    with pytest.raises(TypeError, match="stride must be one integer or a tuple of two, got"):
        gc.residual_block(2, stride=np.ones(2))


PASSES: dict[str, tuple[Any, str]] = {
    "forward": (lambda model, value: model.forward(X, logits=value), "logits must be True or False, got"),
    "backward": (lambda model, value: model.backward(DY, input_grad=value), "input_grad must be True or False, got"),
    "step_bytes": (lambda model, value: model.step_bytes(value), "batch_size must be an integer, got"),
    "summary": (lambda model, value: model.summary(value), "batch_size must be an integer, got"),
    "dtype": (lambda model, value: model.build((1, 4, 4), device="cpu", dtype=value), "dtype must be float32 or float64, got"),
    "device": (lambda model, value: model.build((1, 4, 4), device=value), "unknown device"),
    "callbacks": (lambda model, value: model.fit(X, [0, 1], callbacks=value), "callbacks must be a list of callbacks, got"),
    "validation_split": (
        lambda model, value: model.fit(X, [0, 1], validation_split=value),
        "validation_split must be a number, got",
    ),
}
X, DY = np.zeros((2, 1, 4, 4), np.float32), np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("value", ["no", np.ones(2), np.array("no")], ids=shown)
@pytest.mark.parametrize("name", PASSES)
def test_what_a_pass_cannot_take_is_said_with_its_name(name: str, value: Any) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device="cpu").compile()
    model.forward(X, training=True)
    call, words = PASSES[name]
    with pytest.raises((gc.GpucnnError, TypeError), match=words) as caught:
        call(model, value)
    assert shown(value) in str(caught.value)


@pytest.mark.parametrize("dy", [None, "a", {}, [[1], [2, 3]], np.array(["a"]), np.ma.masked_array(DY)], ids=shown)
def test_a_gradient_that_is_no_array_of_numbers_is_refused_in_a_sentence(dy: Any) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device="cpu")
    model.forward(X, training=True)
    with pytest.raises(gc.DataError, match=r"the output's gradient (must be|are a masked)"):
        model.backward(dy)


def test_memory_is_told_for_as_many_examples_as_a_batch_may_have() -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device="cpu")
    with pytest.raises(gc.ArgumentError, match="batch_size must be at most 2,147,483,647, got"):
        model.summary(10**400)


PAIRS = (3, "ab", (1,), (1, 2, 3), (0, 2), (2, -1), (2.5, 2), (2, None), None, {"a": 1}, ("2", 3))
LARGE = ("filters", "kernel_size", "pool_size", "padding", "stride", "dilation", "multiplier", "units")


@pytest.mark.parametrize("value", [2**31, 2**63, 10**30])
@pytest.mark.parametrize("name", LAYERS)
def test_what_no_memory_holds_is_refused_before_any_is_taken(name: str, value: int) -> None:
    kind = LAYERS[name]
    names = inspect.signature(kind.__init__).parameters
    for parameter in (each for each in LARGE if each in names):
        with pytest.raises(gc.GpucnnError) as caught:
            layer = kind(**{each: NEEDED[each] for each in names if each in NEEDED} | {parameter: value})
            gc.Sequential(layer).build((7,) if "units" in names else (2, 6, 6), device="cpu")
        message = str(caught.value)
        assert "\n" not in message and len(message) <= 500, message
