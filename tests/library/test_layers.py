"""Layers: gradients of input and parameters by numerical differentiation, what is kept and what is left alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, GpucnnError, ShapeError, UnknownNameError
from gpucnn.layers import LAYERS, layer_from_config
from gpucnn.layers.activations import ACTIVATIONS

IMAGE, ROW = (2, 5, 6), (7,)


def stack(*layers: gc.Layer, shape: tuple[int, ...] = IMAGE, seed: int = 0) -> gc.Sequential:
    return gc.Sequential(*layers).build(shape, seed=seed, device="cpu", dtype="float64")


# Layers are made again for every test: a layer belongs to one model.
STACKS: dict[str, Any] = {
    "conv": lambda: stack(gc.Conv2D(3, 3)),
    "conv strided, same": lambda: stack(gc.Conv2D(3, (2, 3), stride=2, padding="same")),
    "conv dilated, padded": lambda: stack(gc.Conv2D(2, 2, padding=((1, 0), (2, 1)), dilation=(2, 1))),
    "conv in groups, no bias": lambda: stack(gc.Conv2D(4, 3, groups=2, use_bias=False)),
    "max pool": lambda: stack(gc.MaxPool2D(2)),
    "max pool overlapping": lambda: stack(gc.MaxPool2D(3, stride=2, padding=1, ceil_mode=True)),
    "max pool dilated": lambda: stack(gc.MaxPool2D(2, stride=1, dilation=2)),
    "average pool": lambda: stack(gc.AvgPool2D(2)),
    "average pool same": lambda: stack(gc.AvgPool2D(3, stride=2, padding="same")),
    "average pool without padding": lambda: stack(gc.AvgPool2D(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)),
    "depthwise": lambda: stack(gc.DepthwiseConv2D(3, multiplier=2, padding="same", activation="relu")),
    "separable": lambda: stack(gc.SeparableConv2D(3, (2, 3), stride=2, padding=1, multiplier=2, activation="elu")),
    "transposed": lambda: stack(gc.ConvTranspose2D(3, (2, 3), stride=(2, 1), padding=((1, 0), (0, 1)), output_padding=(1, 0))),
    "transposed in groups, no bias": lambda: stack(gc.ConvTranspose2D(4, 3, groups=2, use_bias=False, activation="relu", dilation=2)),
    "transposed, same": lambda: stack(gc.Conv2D(2, 2, activation="relu"), gc.ConvTranspose2D(2, 3, stride=2, padding="same")),
    "locally connected": lambda: stack(gc.Conv2D(2, 2, activation="relu"), gc.LocallyConnected2D(3, 3, padding=1, stride=2)),
    "locally connected, ReLU": lambda: stack(gc.LocallyConnected2D(3, (2, 1), dilation=2, activation="relu", use_bias=False)),
    "global average pool": lambda: stack(gc.GlobalAvgPool2D()),
    "global max pool": lambda: stack(gc.GlobalMaxPool2D()),
    "zero pad": lambda: stack(gc.ZeroPad2D(((1, 0), (2, 3)))),
    "zero pad between": lambda: stack(gc.Conv2D(3, 2, activation="relu"), gc.ZeroPad2D(1), gc.Conv2D(2, 2)),
    "flatten": lambda: stack(gc.Flatten()),
    "dense": lambda: stack(gc.Dense(4), shape=ROW),
    "dense, no bias": lambda: stack(gc.Dense(4, use_bias=False), shape=ROW),
    "softmax over images": lambda: stack(gc.Softmax()),
    **{f"conv {name}": lambda name=name: stack(gc.Conv2D(3, 2, activation=name)) for name in ACTIVATIONS},
    **{f"dense {name}": lambda name=name: stack(gc.Dense(4, activation=name), shape=ROW) for name in ACTIVATIONS},
    **{
        f"{kind.__name__} between": lambda kind=kind: stack(gc.Dense(5), kind(), gc.Dense(3), shape=ROW)
        for kind in (
            gc.ReLU,
            gc.Sigmoid,
            gc.Softmax,
            gc.Tanh,
            gc.LeakyReLU,
            gc.ELU,
            gc.GELU,
            gc.SiLU,
            gc.ReLU6,
            gc.HardSigmoid,
            gc.HardSwish,
        )
    },
    "a steep leaky ReLU": lambda: stack(gc.Dense(5), gc.LeakyReLU(0.7), gc.ELU(2.5), gc.GELU(approximate=True), shape=ROW),
    "a whole network": lambda: stack(
        gc.Conv2D(3, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(4, 2, activation="sigmoid"),
        gc.AvgPool2D((1, 2)),
        gc.Flatten(),
        gc.Dense(6, activation="relu"),
        gc.Dense(3, activation="softmax"),
    ),
    # What the last layer passes on is the user's own array: the layer before must not write to it.
    "conv relu, flatten": lambda: stack(gc.Conv2D(3, 2, activation="relu"), gc.Flatten()),
    "dense sigmoid, dropout of nothing": lambda: stack(gc.Dense(4, activation="sigmoid"), gc.Dropout(0.0), shape=ROW),
    "dense relu, flatten, relu": lambda: stack(gc.Dense(4, activation="relu"), gc.Flatten(), gc.ReLU(), shape=ROW),
    "relu, flatten alone": lambda: stack(gc.ReLU(), gc.Flatten()),
    "dropout": lambda: stack(gc.Dense(5), gc.Dropout(0.4), gc.Dense(3), shape=ROW),
}


@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_the_numerical_ones(name: str, tie_free: Any, rng: np.random.Generator, numerical_gradient: Any) -> None:
    model = STACKS[name]()
    for parameter in model.parameters.values():
        if parameter.name == "bias":
            parameter.value[...] = rng.normal(size=parameter.shape)
    x = tie_free(2, *model.input_shape)
    dy = rng.normal(size=(2, *model.output_shape))
    state = model.state()

    def objective() -> float:
        model.restore(state)  # dropout draws the same mask again
        return float((model.forward(x, training=True) * dy).sum())

    objective()
    dx = model.backward(dy, input_grad=True)
    gradients = {key: parameter.grad.copy() for key, parameter in model.parameters.items()}
    np.testing.assert_allclose(dx, numerical_gradient(objective, x), rtol=1e-5, atol=1e-7)
    for key, parameter in model.parameters.items():
        np.testing.assert_allclose(gradients[key], numerical_gradient(objective, parameter.value), rtol=1e-5, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softmax"])
def test_an_activation_as_an_argument_is_the_layer_of_that_name(name: str, rng: np.random.Generator) -> None:
    layer = {"relu": gc.ReLU, "sigmoid": gc.Sigmoid, "softmax": gc.Softmax}[name]
    fused = stack(gc.Dense(4, activation=name, initializer="he_normal"), shape=ROW)
    apart = stack(gc.Dense(4, initializer="he_normal"), layer(), shape=ROW)
    x, dy = rng.normal(size=(3, *ROW)), rng.normal(size=(3, 4))
    np.testing.assert_array_equal(fused.forward(x, True), apart.forward(x, True))
    np.testing.assert_array_equal(fused.backward(dy, input_grad=True), apart.backward(dy, input_grad=True))
    np.testing.assert_array_equal(fused.parameters["dense_1.weight"].grad, apart.parameters["dense_1.weight"].grad)


@pytest.mark.parametrize("name", ["conv", "dense", "a whole network"])
def test_gradients_add_up_over_backward_passes_until_they_are_zeroed(name: str, rng: np.random.Generator) -> None:
    model = STACKS[name]()
    batches = [(rng.normal(size=(n, *model.input_shape)), rng.normal(size=(n, *model.output_shape))) for n in (2, 3)]
    single = []
    for x, dy in batches:
        model.buffers.forget_gradients()
        model.forward(x, training=True)
        model.backward(dy)
        single.append({key: parameter.grad.copy() for key, parameter in model.parameters.items()})
    model.buffers.forget_gradients()
    for x, dy in batches:
        model.forward(x, training=True)
        model.backward(dy)
    for key, parameter in model.parameters.items():
        assert parameter.grad.any()
        np.testing.assert_allclose(parameter.grad, single[0][key] + single[1][key], rtol=1e-13, atol=1e-14)
    model.buffers.forget_gradients()
    for parameter in model.parameters.values():
        assert not parameter.grad.any()


def test_the_gradient_is_zero_before_any_backward() -> None:
    model = STACKS["a whole network"]()
    for parameter in model.parameters.values():
        assert parameter.grad.shape == parameter.shape == parameter.value.shape
        assert not parameter.grad.any()


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(gc.LeakyReLU, "negative_slope", 0.7), (gc.ELU, "alpha", 0.3), (gc.GELU, "approximate", True)]
)
def test_a_setting_of_an_activation_is_checked_and_heeded_when_it_is_assigned(kind: Any, name: str, value: Any) -> None:
    x = np.linspace(-3, 3, 7, dtype=np.float32)[None]
    model, other = (gc.Sequential(layer).build((7,), device="cpu") for layer in (kind(), kind(**{name: value})))
    for _ in range(3):  # recorded by then
        before = model.forward(x)
    setattr(model.layers[0], name, value)
    assert model.layers[0].config() == other.layers[0].config()
    for _ in range(3):
        np.testing.assert_array_equal(model.forward(x), other.forward(x))
    assert (model.forward(x) != before).any()
    for wrong in (-1, "0.1", None, np.ones(2)):
        with pytest.raises((TypeError, gc.ArgumentError), match=f"{name} must be "):
            setattr(model.layers[0], name, wrong)


def test_looking_at_a_gradient_changes_nothing(rng: np.random.Generator) -> None:
    looked, untouched = STACKS["conv"](), STACKS["conv"]()
    x, dy = rng.normal(size=(2, *IMAGE)), rng.normal(size=(2, *looked.output_shape))
    for parameter in looked.parameters.values():
        assert not parameter.grad.any()
    for model in (looked, untouched):
        model.forward(x, True)
        model.backward(dy)
    for key, parameter in looked.parameters.items():
        np.testing.assert_array_equal(parameter.grad, untouched.parameters[key].grad)


@pytest.mark.parametrize("name", STACKS)
def test_backward_needs_a_forward_in_training_for_each(name: str, rng: np.random.Generator) -> None:
    model = STACKS[name]()
    x, dy = rng.normal(size=(2, *model.input_shape)), rng.normal(size=(2, *model.output_shape))
    needs = r"backward of layer '[\w.]+' needs a forward with training=True before it"
    with pytest.raises(GpucnnError, match=needs):
        model.backward(dy)
    model.forward(x)
    with pytest.raises(GpucnnError, match=needs):
        model.backward(dy)
    model.forward(x, training=True)
    model.backward(dy)
    with pytest.raises(GpucnnError, match=needs):
        model.backward(dy)
    state = model.state()
    model.forward(x, training=True)
    expected = model.backward(dy, input_grad=True)
    model.restore(state)
    model.forward(x, training=True)
    model.forward(x[:1] + 1)  # an answer in between keeps nothing, and forgets nothing
    np.testing.assert_array_equal(model.backward(dy, input_grad=True), expected)


def test_backward_refuses_gradients_that_do_not_fit(rng: np.random.Generator) -> None:
    model = STACKS["conv"]()
    model.forward(rng.normal(size=(4, *IMAGE)), training=True)
    with pytest.raises(ShapeError, match=r"gradient must have shape \(batch, 3, 3, 4\), got \(4, 3, 3, 5\)"):
        model.backward(np.zeros((4, 3, 3, 5)))
    with pytest.raises(ShapeError, match=r"gradient must have shape \(batch, 3, 3, 4\), got \(4, 3\)"):
        model.backward(np.zeros((4, 3)))
    with pytest.raises(ShapeError, match=r"the last forward had a batch of 4, the output's gradient has 2"):
        model.backward(np.zeros((2, 3, 3, 4)))
    model.backward(np.zeros((4, 3, 3, 4)))  # a refused gradient does not use the forward up


@pytest.mark.parametrize("name", STACKS)
def test_arrays_of_the_user_are_never_written_to(name: str, rng: np.random.Generator) -> None:
    model = STACKS[name]()
    x, dy = rng.normal(size=(2, *model.input_shape)), rng.normal(size=(2, *model.output_shape))
    x.flags.writeable = dy.flags.writeable = False  # writing raises
    y = model.forward(x, training=True)
    kept = y.copy()
    model.backward(dy, input_grad=True)
    np.testing.assert_array_equal(y, kept)
    model.forward(x)


def test_backward_gives_the_inputs_gradient_only_where_it_is_asked_for(rng: np.random.Generator) -> None:
    for name in ("conv", "a whole network", "max pool"):
        model = STACKS[name]()
        x, dy = rng.normal(size=(2, *model.input_shape)), rng.normal(size=(2, *model.output_shape))
        model.forward(x, training=True)
        assert model.backward(dy) is None
        model.forward(x, training=True)
        dx = model.backward(dy, input_grad=True)
        assert dx is not None
        assert dx.shape == x.shape


def test_layers_before_the_first_trained_one_are_left_out_of_backward_without_harm(rng: np.random.Generator) -> None:
    model = stack(gc.MaxPool2D(2), gc.Flatten(), gc.Dense(3))
    x, dy = rng.normal(size=(2, *IMAGE)), rng.normal(size=(2, 3))
    model.forward(x, training=True)
    model.backward(dy)
    gradient = model.parameters["dense_1.weight"].grad.copy()
    with pytest.raises(GpucnnError, match="needs a forward"):
        model.layers[0].backward(np.zeros((2, 2, 2, 3)))
    model.buffers.forget_gradients()
    model.forward(x, training=True)
    model.backward(dy, input_grad=True)
    np.testing.assert_array_equal(model.parameters["dense_1.weight"].grad, gradient)


def test_a_new_build_forgets_what_the_last_forward_kept(rng: np.random.Generator) -> None:
    model = stack(gc.Conv2D(2, 3))
    model.forward(rng.normal(size=(2, *IMAGE)), training=True)
    model.build((2, 5, 6), device="cpu", dtype="float64")
    with pytest.raises(GpucnnError, match="needs a forward"):
        model.backward(np.zeros((2, 2, 3, 4)))


def test_a_new_build_finds_the_layers_inside_anew(rng: np.random.Generator) -> None:
    class Outer(gc.Layer):
        def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            self.first = gc.Dense(3)
            return tuple(self.first.build(input_shape))

        def _forward(self, x: Any, training: bool) -> Any:
            return self.first.forward(x, training)

    outer = Outer()
    for _ in range(2):
        model = stack(outer, shape=(4,))
        model.forward(rng.normal(size=(2, 4)), training=True)
        assert outer.first._ready and set(outer.inner()) == {"first"}
        outer.forget()
        assert not outer.first._ready and set(outer.inner()) == {"first"}  # what is kept is no layer more


def test_dropout_drops_in_training_only_and_differs_by_call_layer_and_seed(rng: np.random.Generator) -> None:
    x = np.ones((4, 100))
    model = stack(gc.Dropout(0.5), shape=(100,))
    np.testing.assert_array_equal(model.forward(x), x)
    first, second = model.forward(x, training=True), model.forward(x, training=True)
    assert (first != second).any()
    assert set(np.unique(first)) == {0.0, 2.0}
    again = stack(gc.Dropout(0.5), shape=(100,))
    again.forward(x)  # evaluation draws nothing
    np.testing.assert_array_equal(again.forward(x, training=True), first)
    assert (stack(gc.Dropout(0.5), shape=(100,), seed=1).forward(x, training=True) != first).any()
    both = stack(gc.Dropout(0.5), gc.Dropout(0.5), shape=(100,)).forward(x, training=True)
    # Two independent masks keep a quarter; one mask twice would keep a half: five standard deviations of 400 draws are 0.11.
    assert abs((both != 0).mean() - 0.25) < 0.11


def test_dropout_of_rate_zero_passes_on(rng: np.random.Generator) -> None:
    model = stack(gc.Dropout(0.0), shape=ROW)
    x = rng.normal(size=(2, *ROW))
    np.testing.assert_array_equal(model.forward(x, training=True), x)
    np.testing.assert_array_equal(model.backward(x, input_grad=True), x)


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, float("nan"), 2])
def test_dropout_refuses_rates_outside_zero_to_one(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"rate must be .*got {rate}"):
        gc.Dropout(rate)


@pytest.mark.parametrize(
    "layer",
    [
        gc.Conv2D(4, (3, 2), stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2, groups=2, activation="relu", use_bias=False),
        gc.Conv2D(4, 3, padding="same", initializer="he_normal"),
        gc.MaxPool2D(3, stride=2, padding=1, dilation=(1, 2), ceil_mode=True),
        gc.AvgPool2D((2, 3), stride=1, padding="same", ceil_mode=True, count_include_pad=False),
        gc.Flatten(),
        gc.Dense(3, activation="softmax", use_bias=False, initializer="zeros"),
        gc.ReLU(),
        gc.Sigmoid(),
        gc.Softmax(),
        gc.Tanh(),
        gc.LeakyReLU(0.2),
        gc.ELU(0.5),
        gc.GELU(approximate=True),
        gc.SiLU(),
        gc.GlobalAvgPool2D(),
        gc.GlobalMaxPool2D(),
        gc.ZeroPad2D((1, 2)),
        gc.DepthwiseConv2D(3, stride=2, padding="same", multiplier=3, activation="relu", use_bias=False),
        gc.SeparableConv2D(5, 3, stride=2, padding=1, multiplier=2, activation="silu", initializer="he_normal"),
        gc.ConvTranspose2D(4, 3, stride=2, padding=1, output_padding=1, dilation=(1, 2), groups=2, activation="tanh"),
        gc.LocallyConnected2D(2, 3, stride=(1, 2), padding="same", activation="relu", use_bias=False),
        gc.BatchNorm2D(eps=1e-3, momentum=0.01, affine=False, activation="relu"),
        gc.Stack(gc.Flatten(), gc.Dense(3)),
        gc.Residual(gc.Dense(3), shortcut=[gc.Dense(3), gc.ReLU()], activation="relu"),
        gc.Concat(gc.Dense(3), [gc.Dense(2), gc.Dropout(0.5)], activation="gelu"),
        gc.Dropout(0.25),
    ],
    ids=repr,
)
def test_a_config_survives_json_and_gives_the_same_layer_again(layer: gc.Layer) -> None:
    again = layer_from_config(json.loads(json.dumps(layer.config())))
    assert type(again) is type(layer)
    assert again.config() == layer.config()
    assert repr(again) == repr(layer)
    assert again.activation == layer.activation


def test_every_layer_is_among_those_that_files_may_name() -> None:
    def kinds(kind: type[gc.Layer]) -> set[str]:
        found = {kind.__name__} if kind.__module__.startswith("gpucnn.") and not kind.__name__.startswith("_") else set()
        return found.union(*(kinds(sub) for sub in kind.__subclasses__()))

    assert kinds(gc.Layer) - {"Layer"} == set(LAYERS)
    with pytest.raises(UnknownNameError, match=r"unknown layer 'Conv3D'.*did you mean 'Conv2D'"):
        layer_from_config({"layer": "Conv3D"})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gc.Conv2D(0, 3), ArgumentError, "filters must be at least 1, got 0"),
        (lambda: gc.Conv2D(2.0, 3), TypeError, "filters must be an integer, got 2.0"),
        (lambda: gc.Conv2D(2, 0), ShapeError, "kernel_size must be at least 1, got 0"),
        (lambda: gc.Conv2D(2, (3, 3, 3)), ShapeError, r"kernel_size must be one integer or two .*got \(3, 3, 3\)"),
        (lambda: gc.Conv2D(2, 3, stride=0), ShapeError, "stride must be at least 1, got 0"),
        (lambda: gc.Conv2D(2, 3, dilation=-1), ShapeError, "dilation must be at least 1, got -1"),
        (lambda: gc.Conv2D(2, 3, padding="full"), ShapeError, "padding must be .*got 'full'"),
        (lambda: gc.Conv2D(2, 3, groups=0), ArgumentError, "groups must be at least 1, got 0"),
        (lambda: gc.Conv2D(3, 3, groups=2), ShapeError, "divisible by groups, got 3 filters in 2 groups"),
        (lambda: gc.Conv2D(2, 3, activation="relo"), UnknownNameError, "unknown activation 'relo'.*did you mean 'relu'"),
        (lambda: gc.Dense(-1), ArgumentError, "units must be at least 1, got -1"),
        (lambda: gc.Dense(True), TypeError, "units must be an integer, got True"),
        (lambda: gc.Dense(2, activation=len), UnknownNameError, "unknown activation"),
        (lambda: gc.MaxPool2D(0), ShapeError, "pool_size must be at least 1, got 0"),
        (lambda: gc.MaxPool2D(2, stride=0), ShapeError, "stride must be at least 1, got 0"),
        (lambda: gc.AvgPool2D(2.5), TypeError, "pool_size must be an integer, got 2.5"),
        (lambda: gc.DepthwiseConv2D(3, multiplier=0), ArgumentError, "multiplier must be at least 1, got 0"),
        (lambda: gc.SeparableConv2D(0, 3), ArgumentError, "filters must be at least 1, got 0"),
        (lambda: gc.ConvTranspose2D(3, 3, groups=2), ShapeError, "divisible by groups, got 3 filters in 2 groups"),
        (lambda: gc.ConvTranspose2D(3, 3, output_padding=1), ShapeError, r"below the stride or the dilation, got \(1, 1\)"),
        (lambda: gc.ConvTranspose2D(3, 3, stride=2, padding="same", output_padding=1), ShapeError, 'padding="same" settles the size'),
        (lambda: stack(gc.ConvTranspose2D(3, 1, padding=5)), ShapeError, r"leaves nothing of the output, \(-5, -4\) pixels"),
        (lambda: stack(gc.ConvTranspose2D(4, 1, groups=4)), ShapeError, "got 2 channels in 4 groups"),
        (lambda: stack(gc.LocallyConnected2D(3, 9)), ShapeError, "the kernel is 9 pixels high"),
        (lambda: gc.ZeroPad2D("same"), ArgumentError, "padding of ZeroPad2D must be integers, got 'same'"),
        (lambda: gc.ZeroPad2D(-1), ArgumentError, "padding must be at least 0, got -1"),
        (lambda: gc.LeakyReLU(-0.1), ArgumentError, "negative_slope must be a finite number of at least 0"),
        (lambda: gc.ELU(0), ArgumentError, "alpha must be a finite number above 0, got 0"),
        (lambda: gc.Dense(2, activation="leaky_relus"), UnknownNameError, "unknown activation.*did you mean 'leaky_relu'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


class Own(gc.Layer):
    """A layer that returns what it is told."""

    def __init__(self, shape: Any = (4,), y: Any = None, dx: Any = None) -> None:
        super().__init__()
        self.shape, self.y, self.dx = shape, y, dx

    def _build(self, input_shape: Any) -> Any:
        return self.shape

    def _forward(self, x: Any, training: bool) -> Any:
        return x if self.y is None else self.y

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        return dy if self.dx is None else self.dx


@pytest.mark.parametrize("shape", [None, (), 4, "4", (4.0,), (0,), [4, None]])
def test_a_layer_of_ones_own_must_return_a_shape(shape: Any) -> None:
    with pytest.raises(TypeError, match=r"^Own._build must return the shape of an output without the batch, got "):
        gc.Sequential(Own(shape)).build((4,), device="cpu")


def test_a_layer_of_ones_own_may_return_a_list() -> None:
    assert gc.Sequential(Own([np.int64(4)]), gc.Dense(2)).build((4,), device="cpu").layers[0].output_shape == (4,)


def test_what_a_layer_of_ones_own_lacks_is_named() -> None:
    for name, kind in (("_build", gc.Layer), ("_forward", type("Half", (gc.Layer,), {"_build": lambda self, shape: shape}))):
        told = rf"has no method {name}, and a layer implements _build\(input_shape\), _forward\(x, training\) and _backward"
        with pytest.raises(NotImplementedError, match=f"^{kind.__name__} {told}"):
            gc.Sequential(kind()).build((4,), device="cpu").predict(np.ones((2, 4)))
    for part, name in (
        (lambda: gc.Loss().check_labels([0], 1, 2, np.dtype("float32")), "Loss has no method check_labels"),
        (lambda: gc.Loss()(None, None, None), "Loss has no method __call__"),
        (lambda: gc.schedules.Schedule()(0), "Schedule has no method __call__"),
        (lambda: gc.Optimizer(0.1)._update(None, None, None), "Optimizer has no method _update"),
    ):
        with pytest.raises(NotImplementedError, match=name):
            part()


def test_arrays_of_a_layer_of_ones_own_are_held_by_the_model_or_refused() -> None:
    class Scale(Own):
        listed: Any = ()

        def _build(self, input_shape: Any) -> Any:
            self.scale = gc.Parameter("scale", input_shape, "ones")
            self.parameters = list(self.listed)
            return input_shape

    with pytest.raises(TypeError, match=r"^Scale._build makes 'scale' and does not list it in self.parameters: no model would hold it$"):
        gc.Sequential(Scale()).build((4,), device="cpu")
    Scale.listed = [np.ones(4)]
    with pytest.raises(
        TypeError, match=r"^parameters and arrays of Scale must list Parameters and SavedArrays, got an array of shape \(4,\)$"
    ):
        gc.Sequential(Scale()).build((4,), device="cpu")
    for shape in ((0,), "ab", (-1,), (2.5,), 3, None):
        with pytest.raises(ShapeError, match="parameter 'w' must have a shape of integers of at least 1, got"):
            gc.Parameter("w", shape, "ones")  # type: ignore[arg-type]
    with pytest.raises(gc.UnknownNameError, match="unknown initializer 'onez'"):
        gc.Parameter("w", (3,), "onez")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_layer_of_ones_own_returns_has_the_shape_that_it_said(dtype: str) -> None:
    x, one = np.ones((3, 4), dtype), np.ones((3, 1), dtype)
    layers = gc.Dense(4), Own(y=one), gc.Dense(2)
    model = gc.Sequential(layers).build((4,), device="cpu", dtype=dtype).compile("sgd")
    told = r"^Own._forward of layer 'own_1' must return \(batch, 4\), got "
    for call in (model.predict, model.forward, lambda x: model.fit(x, [0, 1, 0], verbose=False)):
        with pytest.raises(ShapeError, match=rf"{told}an array of shape \(3, 1\)$"):
            call(x)
    layers[1].y = 3
    with pytest.raises(ShapeError, match=f"{told}3$"):
        model.predict(x)
    layers[1].y, layers[1].dx = None, one
    model.forward(x, training=True)
    with pytest.raises(ShapeError, match=r"^Own._backward of layer 'own_1' must return \(batch, 4\), got an array of shape \(3, 1\)$"):
        model.backward(np.ones((3, 2)))
    layers[1].dx = x[:2]
    model.forward(x, training=True)
    with pytest.raises(ShapeError, match=r"^Own._backward of layer 'own_1' must return \(3, 4\), got an array of shape \(2, 4\)$"):
        model.backward(np.ones((3, 2)))
    layers[1].dx, layers[1].y = None, x[:2]
    with pytest.raises(ShapeError, match=r"^Own._forward of layer 'own_1' must return \(3, 4\), got an array of shape \(2, 4\)$"):
        model.fit(x, [0, 1, 0], verbose=False)
    layers[1].y = None
    model.fit(x, [0, 1, 0], verbose=False)


class Doubling(gc.Layer):
    """2·x; its gradient is dy itself, as it came or written to in place."""

    in_place = True

    def _build(self, input_shape: Any) -> Any:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        return 2 * x if self.in_place else x

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        if self.in_place:
            dy *= 2
        return dy[:]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    "around",
    [
        lambda layer, other: gc.Residual(gc.Dense(4), layer, shortcut=gc.Dense(4)),
        lambda layer, other: gc.Residual(layer),
        lambda layer, other: gc.Residual(layer, shortcut=other, activation="relu"),
        lambda layer, other: gc.Concat([layer], [gc.Dense(4, activation="relu"), other]),
        lambda layer, other: gc.Stack(gc.Dense(4), layer, other, gc.Softmax()),
    ],
)
def test_a_layer_of_ones_own_may_return_the_gradient_that_it_is_given(around: Any, in_place: bool, dtype: str) -> None:
    """Whatever else needs it: a shortcut, a caller."""
    model = gc.Sequential(gc.Dense(4), around(Doubling(), Doubling())).build((4,), seed=1, device="cpu", dtype=dtype)
    for part in model.layers[1].walk().values():
        if isinstance(part, Doubling):
            part.in_place = in_place
    rng = np.random.default_rng(0)
    for parameter in model.parameters.values():
        parameter.value = rng.normal(size=parameter.shape)
    x = rng.normal(size=(3, 4)).astype(dtype)
    y = model.forward(x, training=True)
    dy = rng.normal(size=y.shape).astype(dtype)
    before = dy.copy()
    dx = model.backward(dy, input_grad=True)
    np.testing.assert_array_equal(dy, before)
    exact = gc.Sequential(gc.Dense(4), around(Times(2 if in_place else 1), Times(2 if in_place else 1)))
    exact.build((4,), seed=1, device="cpu", dtype=dtype)
    for parameter, same in zip(exact.parameters.values(), model.parameters.values(), strict=True):
        parameter.value = same.value
    exact.forward(x, training=True)
    np.testing.assert_allclose(dx, exact.backward(dy, input_grad=True), rtol=1e-5, atol=1e-6)  # the same, in another order
    for parameter, same in zip(exact.parameters.values(), model.parameters.values(), strict=True):
        np.testing.assert_allclose(same.grad, parameter.grad, rtol=1e-5, atol=1e-6)


ORDERS: dict[str, Any] = {
    "of C": lambda array: array,
    "of Fortran": np.asfortranarray,
    "with gaps": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "turned": lambda array: np.ascontiguousarray(array.swapaxes(1, -1)).swapaxes(1, -1),
    "of another type": lambda array: array.astype("float64" if array.dtype == "float32" else "float32"),
}


class Around(gc.Layer):
    """A layer that calls another one with arrays in some order, and returns such arrays."""

    def __init__(self, inner: gc.Layer, order: str) -> None:
        super().__init__(activation="tanh")
        self.within, self.order = inner, ORDERS[order]

    def _build(self, input_shape: Any) -> Any:
        return self.within.build(input_shape)

    def _forward(self, x: Any, training: bool) -> Any:
        return self.order(self.within.forward(self.order(x), training))

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        return self.order(self.within.backward(self.order(dy), input_grad=input_grad))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [*ORDERS][1:])
@pytest.mark.parametrize(
    "inner",
    [
        lambda: gc.Conv2D(4, 3, padding=1, activation="relu"),
        lambda: gc.DepthwiseConv2D(3, padding=1, activation="gelu"),
        lambda: gc.BatchNorm2D(activation="relu"),
        lambda: gc.Residual(gc.Conv2D(4, 1), activation="relu"),
        lambda: gc.Concat(gc.Conv2D(2, 1, activation="relu"), gc.Conv2D(2, 1, activation="relu")),
        lambda: gc.MaxPool2D(3, 1, padding=1),
        gc.ReLU,
        gc.Tanh,
        gc.GELU,
    ],
)
def test_layers_take_arrays_in_any_order_from_a_layer_of_ones_own(inner: Any, order: str, dtype: str) -> None:
    found = []
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 5)).astype(dtype)
    for each in ("of C", order):
        layers = gc.Conv2D(4, 3, padding=1, activation="elu"), Around(inner(), each), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(3)
        model = gc.Sequential(*layers).build((2, 6, 5), seed=1, device="cpu", dtype=dtype)
        y = model.forward(x, training=True)
        dx = model.backward(np.ones((3, 3)), input_grad=True)
        assert y.dtype == dx.dtype == dtype
        found.append([y, dx, *(parameter.grad for parameter in model.parameters.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


class Times(gc.Layer):
    """factor·x, in arrays of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def _build(self, input_shape: Any) -> Any:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        return self.factor * x

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        return self.factor * dy


@pytest.mark.parametrize("layers", [[], [gc.Dense(4, activation="relu")]])
def test_a_layer_of_ones_own_that_writes_to_its_input_is_stopped(layers: list[gc.Layer]) -> None:
    """It may be the caller's array, and the layer before needs it for its gradient."""

    class Shifted(Times):
        def _forward(self, x: Any, training: bool) -> Any:
            x -= 1
            return x

    model = gc.Sequential(*layers, Shifted(1)).build((4,), device="cpu")
    x = np.ones((3, 4), np.float32)
    for call in (model.predict, model.forward, lambda x: model.forward(x, training=True)):
        with pytest.raises(ValueError, match="read-only"):
            call(x)
    np.testing.assert_array_equal(x, 1)
    assert x.flags.writeable

    class Same(Times):
        def _forward(self, x: Any, training: bool) -> Any:
            return x

    assert gc.Sequential(gc.Dense(4), Same(1)).build((4,), device="cpu").forward(x).flags.writeable


def test_a_layer_of_ones_own_that_begins_nothing_is_told_what_is_missing() -> None:
    class Bare(Own):
        def __init__(self) -> None:
            self.factor = 2

    with pytest.raises(AttributeError, match=r": call super\(\).__init__\(\) in its __init__$"):
        gc.Sequential(Bare()).build((4,), device="cpu")


def test_a_layer_of_ones_own_warns_of_nothing_that_is_only_rehearsed() -> None:
    seen = []

    class Noting(Own):
        def _forward(self, x: Any, training: bool) -> Any:
            seen.append(np.geterr()["over"])
            return x

    model = gc.Sequential(gc.Dense(4), Noting(), gc.Dense(2)).build((4,), device="cpu").compile("sgd")
    with np.errstate(over="raise"):
        model.fit(np.ones((6, 4)), np.arange(6) % 2, batch_size=3, epochs=2, verbose=False)
    assert seen.count("raise") == 4 and set(seen) <= {"raise", "ignore"}


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), "float64"])
def test_a_type_of_numbers_may_be_numpys(dtype: Any) -> None:
    model = gc.Sequential(gc.Dense(2)).build((4,), device="cpu", dtype=dtype)
    assert model.dtype == np.float64 and model.buffers.values.dtype == np.float64 and model.config()["dtype"] == "float64"
    for wrong in (np.float16, float, "f4"):
        with pytest.raises(gc.ArgumentError, match="dtype must be float32 or float64, got "):
            gc.Sequential(gc.Dense(2)).build((4,), device="cpu", dtype=wrong)
