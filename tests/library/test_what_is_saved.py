"""What is saved can be loaded, what cannot be loaded is not saved, and a file that lies costs neither memory nor time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

import gpucnn as gc
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.training.checkpoint import KEY, load_tensors, save_tensors

resource = pytest.importorskip("resource", reason="how much memory a process takes is asked of POSIX")
X = np.random.default_rng(0).random((5, 1, 2, 2), dtype=np.float32)
Y = np.arange(5) % 4


def build(*more: gc.Layer, optimizer: gc.Optimizer | None = None, **options: Any) -> gc.Sequential:
    return gc.Sequential(gc.Flatten(), gc.Dense(4), *more).build((1, 2, 2), device="cpu", **options).compile(optimizer or gc.SGD(0.1))


def written(path: Path, description: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    text = json.dumps({"version": 1, "description": description})
    path.write_bytes(to_bytes(tensors or {"dense_1.bias": np.zeros(4, np.float32)}, {KEY: text}))
    return path


@pytest.mark.parametrize(
    ("index", "name", "value", "words"),
    [
        (0, "stride", (2, 2), "settings of 'conv2d_1' were changed after the model was built: set them back"),
        (0, "groups", 2, "settings of 'conv2d_1' were changed after the model was built: set them back"),
        (0, "filters", 6, "settings of 'conv2d_1' were changed after the model was built: set them back"),
        (0, "groups", 3, r"'conv2d_1' cannot be made again from its settings \(.*divisible by groups"),
        (1, "pool_size", (3, 3), "settings of 'maxpool2d_1' were changed"),
        (2, "affine", False, "settings of 'stack_1' were changed"),
    ],
)
def test_a_layer_that_was_changed_so_that_it_would_be_another_is_not_saved(
    index: int, name: str, value: Any, words: str, tmp_path: Path
) -> None:
    norm = gc.BatchNorm2D()
    model = gc.Sequential(gc.Conv2D(4, 3, padding=1), gc.MaxPool2D(2), gc.Stack(norm), gc.GlobalAvgPool2D(), gc.Dropout(0.1), gc.Dense(3))
    model.build((2, 8, 8), device="cpu").save(tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    layer = norm if index == 2 else model.layers[index]
    was = getattr(layer, name)
    setattr(layer, name, value)
    with pytest.raises(CheckpointError, match=f"was not written: {words}"):
        model.save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == before
    setattr(layer, name, was)
    model.save(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("index", "name", "value"), [(0, "activation", "tanh"), (2, "eps", 0.5), (2, "momentum", 0.5), (4, "rate", 0.9)])
def test_a_setting_that_a_layer_heeds_at_every_pass_is_saved_as_it_is_now(index: int, name: str, value: Any, tmp_path: Path) -> None:
    layers = gc.Conv2D(4, 3), gc.MaxPool2D(2), gc.BatchNorm2D(), gc.Flatten(), gc.Dropout(0.1), gc.Dense(3)
    model = gc.Sequential(*layers).build((2, 8, 8), device="cpu").compile()
    setattr(layers[index], name, value)
    model.save(tmp_path / "m.safetensors")
    again = gc.load(tmp_path / "m.safetensors", device="cpu")
    assert getattr(again.layers[index], name) == value
    x = np.random.default_rng(1).random((4, 2, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.train_on_batch(x, np.arange(4) % 3) == model.train_on_batch(x, np.arange(4) % 3)


class Inverse(gc.Schedule):
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate / (1 + step)


class Whatever(gc.Schedule):
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, step: int) -> float:
        return self.function(step)


class Half(gc.SGD):
    """An optimizer of your own."""


class Hinge(gc.MeanSquaredError):
    name = "own_hinge"


@pytest.mark.parametrize("optimizer", [lambda: gc.SGD(Inverse(0.1)), lambda: gc.SGD(Whatever(lambda step: 0.1)), lambda: Half(0.1)])
def test_weights_load_without_an_optimizer_or_a_schedule_of_ones_own(optimizer: Any, tmp_path: Path) -> None:
    model = build(optimizer=optimizer())
    model.fit(X, Y, verbose=False)
    model.save(tmp_path / "m")
    with pytest.warns(UserWarning, match=r"loaded without its optimizer: unknown (schedule|optimizer) .*gpucnn\.register"):
        loaded = gc.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.evaluate(X, Y) == model.evaluate(X, Y)
    with pytest.raises(gc.GpucnnError, match=r"no optimizer yet: call model\.compile.*its file: unknown"):
        loaded.fit(X, Y, verbose=False)
    loaded.compile(gc.SGD(0.1)).fit(X, Y, verbose=False)


@pytest.mark.filterwarnings("error")
def test_what_is_registered_is_loaded(tmp_path: Path) -> None:
    for kind in (Inverse, Half, Hinge):
        assert gc.register(kind) is kind
        assert gc.register(kind) is kind  # once more is the same
    try:
        model = build(optimizer=Half(Inverse(0.25), momentum=0.5))
        model.compile(model.optimizer, Hinge())
        model.save(tmp_path / "m")
        loaded = gc.load(tmp_path / "m", device="cpu")
        assert isinstance(loaded.optimizer, Half) and isinstance(loaded.optimizer.schedule, Inverse) and isinstance(loaded.loss, Hinge)
        assert loaded.config() == model.config() and loaded.optimizer.learning_rate == 0.25
    finally:
        del gc.schedules.SCHEDULES["Inverse"], gc.optimizers.OPTIMIZERS["Half"], gc.losses.LOSSES["own_hinge"]


class Times(gc.Layer):
    def __init__(self, factor: float = 2.0, shifts: tuple[float, ...] = (), activation: str | None = None) -> None:
        super().__init__(activation)
        self._factor, self.shifts = factor, shifts
        self.calls = 0

    def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        self.calls += 1
        return self._factor * x + sum(self.shifts)

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        return self._factor * dy if input_grad else None


class Bare(Times):
    """With the constructor of the class before it."""


class Plain(gc.Layer):
    """Without a constructor; an activation is an argument of every layer."""

    def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        return 1 * x

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        return 1 * dy if input_grad else None


class Power(gc.MeanSquaredError):
    name = "power"

    def __init__(self, exponent: float = 2.0) -> None:
        self.exponent = exponent
        self.calls = 0

    def __call__(self, device: Any, outputs: Any, labels: Any) -> tuple[Any, Any, Any]:
        self.calls += 1
        difference = outputs - labels
        loss = (abs(difference) ** self.exponent).mean()
        gradient = self.exponent * abs(difference) ** (self.exponent - 1) * np.sign(difference) / difference.size
        return loss, (outputs.argmax(axis=1) == labels.argmax(axis=1)).sum(), gradient


class Smoothed(gc.CategoricalCrossentropy):
    name = "smoothed"

    def __init__(self, scale: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale


class Slow(gc.Schedule):
    def __init__(self, rate: float, steps: int = 10) -> None:
        self._rate, self.steps = rate, steps
        self.cache: dict[int, float] = {}

    def __call__(self, step: int) -> float:
        return self.cache.setdefault(step, self._rate * min(1.0, (step + 1) / self.steps))


class Counted(gc.SGD):
    def __init__(self, learning_rate: Any = 0.01, ceiling: float = 1.0, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self._ceiling = ceiling
        self.calls = 0


OWN = {Times: gc.layers.LAYERS, Bare: gc.layers.LAYERS, Plain: gc.layers.LAYERS, Power: gc.losses.LOSSES, Smoothed: gc.losses.LOSSES}
OWN |= {Slow: gc.schedules.SCHEDULES, Counted: gc.optimizers.OPTIMIZERS}


@pytest.fixture
def own() -> Iterator[None]:
    """The classes above, registered."""
    for kind in OWN:
        gc.register(kind)
    yield
    for kind, known in OWN.items():
        del known[kind.name if issubclass(kind, gc.Loss) else kind.__name__]


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("loss", [Power(3.0), Smoothed(2.0, label_smoothing=0.25), gc.BinaryCrossentropy(from_logits=True)])
def test_what_is_of_ones_own_is_made_again_with_the_arguments_that_its_attributes_hold(loss: gc.Loss, tmp_path: Path) -> None:
    """Other attributes are not arguments."""
    optimizer = Counted(Slow(0.25, steps=4), ceiling=3.0, momentum=0.5)
    model = build(Times(0.5, (1.0, 2.0)), Bare(np.float32(0.25)), Plain("tanh"), gc.Dense(4), optimizer=optimizer).compile(optimizer, loss)
    labels = np.eye(4)[Y] if isinstance(loss, gc.BinaryCrossentropy) else Y
    model.fit(X, labels, epochs=2, verbose=False)
    model.save(tmp_path / "m")
    loaded = gc.load(tmp_path / "m", device="cpu")
    assert list(map(repr, loaded.layers[2:5])) == [
        "Times(factor=0.5, shifts=[1.0, 2.0], activation=None)",
        "Bare(factor=0.25, shifts=[], activation=None)",
        "Plain(activation='tanh')",
    ]
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.evaluate(X, labels) == model.evaluate(X, labels)
    assert isinstance(loaded.optimizer, Counted) and (loaded.optimizer._ceiling, loaded.optimizer.momentum) == (3.0, 0.5)
    assert [loaded.optimizer.schedule(step) for step in range(6)] == [0.0625, 0.125, 0.1875, 0.25, 0.25, 0.25]


@pytest.mark.usefixtures("own")
def test_what_would_be_made_again_with_other_arguments_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Times, "settings", lambda self: {"activation": self.activation})
    build(Times(2.0)).save(tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    for layer, name in ((Times(0.5), "factor"), (Times(shifts=(1.0,)), "shifts"), (gc.Stack(Bare(0.5)), "factor")):
        with pytest.raises(CheckpointError, match=f"was not written: '.*' would be made again with another {name} than it has: .*settings"):
            build(layer).save(tmp_path / "m")
    monkeypatch.setattr(Power, "config", lambda self: self.name)
    with pytest.raises(CheckpointError, match=r"was not written: its loss would be made again with another exponent .*config\(\)"):
        build().compile("sgd", Power(3.0)).save(tmp_path / "m")
    monkeypatch.setattr(Power, "config", lambda self: {"loss": self.name, "power": 3.0})
    with pytest.raises(CheckpointError, match=r"was not written: its loss cannot be made again from its config\(\) \(.*'power'"):
        build().compile("sgd", Power(3.0)).save(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == before


def double(x: Any) -> Any:
    return 2 * x


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("value", [double, object(), np.ones(2), {1: 2}, [double]])
def test_an_argument_that_no_file_holds_is_told_where_the_layer_is_not_made_with_its_default(value: Any, tmp_path: Path) -> None:
    build(Times(shifts=())).save(tmp_path / "m")
    layer = Times()
    layer.shifts = value
    with pytest.raises(CheckpointError, match="'times_1' would be made again with another shifts than it has"):
        gc.Sequential(gc.Flatten(), layer).build((1, 2, 2), device="cpu").save(tmp_path / "m")


def test_arguments_that_no_file_holds_stop_no_checkpoint(tmp_path: Path) -> None:
    class Sum(gc.MeanSquaredError):
        name = "sum"

        def __init__(self, first: gc.Loss, weight: Any) -> None:
            self.first, self.weight = first, weight

    model = build().compile("sgd", Sum(gc.Hinge(), object()))
    model.fit(X, Y, verbose=False, callbacks=[gc.Checkpoint(tmp_path / "run")])
    assert model.config()["loss"] == "sum"


def test_a_function_that_becomes_its_name_is_no_other_argument(tmp_path: Path) -> None:
    kind = type("Own", (gc.Dense,), {"__module__": __name__})
    gc.register(kind)
    try:
        build(kind(4, initializer=np.ones), kind(4, initializer=gc.initializers.he_normal)).save(tmp_path / "m")
    finally:
        del gc.layers.LAYERS["Own"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Slow, r"its schedule cannot be made again from its config\(\) \(.*'rate'"),
        (Counted, r"it would be made again with another ceiling"),
    ],
)
def test_weights_are_saved_without_an_optimizer_that_cannot_be_made_again(
    kind: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = Counted(Slow(0.25), ceiling=3.0)
    model = build(optimizer=optimizer)
    config = kind.config
    without = {"schedule": "Slow"} if kind is Slow else {"optimizer": "Counted", "learning_rate": 0.1}
    monkeypatch.setattr(kind, "config", lambda self: without)
    with pytest.warns(UserWarning, match=f"was written without the optimizer: {words}"):
        model.save(tmp_path / "m")
    monkeypatch.setattr(kind, "config", config)
    loaded = gc.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.optimizer is None and loaded.evaluate(X, Y) == model.evaluate(X, Y)


def test_what_can_be_registered() -> None:
    for wrong in (gc.Layer, int, 3, gc.Dense(2), "Dense"):
        with pytest.raises(TypeError, match="register takes a class derived from Layer, Loss, Optimizer, Schedule"):
            gc.register(wrong)  # type: ignore[type-var]
    with pytest.raises(ArgumentError, match="the name 'Dense' is taken by gpucnn"):
        gc.register(type("Dense", (gc.Layer,), {}))


def test_a_loss_or_a_layer_that_no_file_can_name_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"its loss is a Hinge, which no file can name: gpucnn\.register\(Hinge\)"):
        build().compile("sgd", Hinge()).save(tmp_path / "m")
    mine = type("Dense", (gc.Dense,), {})
    with pytest.raises(CheckpointError, match=r"'dense_2' is a Dense, which no file can name"):
        build(mine(4)).save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


# Metadata.


def test_numbers_of_numpy_in_metadata_become_numbers(tmp_path: Path) -> None:
    model = build()
    model.metadata = {"a": np.float32(0.5), "b": np.int64(3), "c": [np.bool_(True), (1, np.uint8(2))], "d": {"e": np.arange(3)}, "f": None}
    model.save(tmp_path / "m")
    found = gc.load(tmp_path / "m", device="cpu").metadata
    assert found == {"a": 0.5, "b": 3, "c": [True, [1, 2]], "d": {"e": [0, 1, 2]}, "f": None}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"a": {"b": [1, object()]}}, r"model\.metadata\.a\.b\[1\] is <object"),
        ({"when": {1, 2}}, r"model\.metadata\.when is \{1, 2\}"),
        ({"a": {3: 4}}, r"model\.metadata\.a has the key 3"),
        ({"a": b"x"}, r"model\.metadata\.a is b'x'"),
        ({"a": 1j}, r"model\.metadata\.a is 1j"),
        ([1], "metadata must be a dict, got"),
        (None, "metadata must be a dict, got None"),
        ({"a": "x" * (1 << 25)}, "has 33,.* characters; the limit is 16,777,216"),
    ],
)
def test_metadata_that_would_not_come_back_is_not_saved(metadata: Any, words: str, tmp_path: Path) -> None:
    model = build()
    model.metadata = metadata
    with pytest.raises(CheckpointError, match=words):
        model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == []
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    model.metadata = {"deep": nested}
    with pytest.raises(CheckpointError, match="was not written"):
        model.save(tmp_path / "m")


# Tensors.


def test_surplus_tensors_are_named(tmp_path: Path) -> None:
    deeper = build(gc.Dense(4), gc.Dense(4), gc.Dense(4))
    deeper.save(tmp_path / "deeper")
    model = build()
    before = model.buffers.values.copy()
    with pytest.raises(CheckpointError, match=r"contains dense_2\.bias, dense_2\.weight, .* and 2 more, which the model does not have"):
        model.load_parameters(tmp_path / "deeper")
    np.testing.assert_array_equal(model.buffers.values, before)
    tensors, description = load_tensors(tmp_path / "deeper")
    save_tensors(tmp_path / "more", {**tensors, "other": np.zeros(3)}, description)
    with pytest.raises(CheckpointError, match="contains other, which the model does not have"):
        gc.load(tmp_path / "more", device="cpu")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("way", ["load", "load_parameters"])
def test_floats_of_16_bits_become_wider(dtype: str, way: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors import safe_open
    from safetensors.torch import save_file

    model = build(gc.Dense(3))
    model.save(tmp_path / "m")
    with safe_open(tmp_path / "m", "pt") as file:
        narrow = {name: file.get_tensor(name).to(getattr(torch, dtype)) for name in file.keys()}  # noqa: SIM118
        save_file(narrow, tmp_path / "narrow", file.metadata())
    loaded = gc.load(tmp_path / "narrow", device="cpu") if way == "load" else build(gc.Dense(3), seed=5)
    loaded.load_parameters(tmp_path / "narrow")
    for name, parameter in loaded.parameters.items():
        np.testing.assert_array_equal(parameter.value, narrow[name].float().numpy())


def test_floats_of_8_bits_are_refused_for_that_reason(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import save_file

    build().save(tmp_path / "m")
    _, description = load_tensors(tmp_path / "m")
    text = json.dumps({"version": 1, "description": description})
    save_file(
        {"dense_1.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn), "dense_1.bias": torch.zeros(4)}, tmp_path / "narrow", {KEY: text}
    )
    with pytest.raises(CheckpointError, match="save its arrays as float32"):
        gc.load(tmp_path / "narrow", device="cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_said_when_they_are_loaded(value: float, tmp_path: Path) -> None:
    build().save(tmp_path / "m")
    tensors, description = load_tensors(tmp_path / "m")
    tensors["dense_1.bias"][2] = value
    written(tmp_path / "bad", description, tensors)
    for load in (lambda path: gc.load(path, device="cpu"), build().load_parameters):
        with pytest.raises(CheckpointError, match=r"'dense_1\.bias' contains NaN or infinity"):
            load(tmp_path / "bad")


# Files that lie.


def described(layers: list[dict[str, Any]], shape: list[int]) -> dict[str, Any]:
    model = {"input_shape": shape, "dtype": "float32", "seed": 0, "layers": layers, "loss": None, "optimizer": None, "metrics": []}
    return {"model": {**model, "metadata": {}}}


CONV = {"layer": "Conv2D", "filters": 4, "kernel_size": 1}
POOL = {"layer": "MaxPool2D", "pool_size": 2}
FLAT, DENSE = {"layer": "Flatten"}, {"layer": "Dense", "units": 4}
HOSTILE = {
    "a million layers": described([FLAT] * 10**6, [1, 2, 2]),
    "a hundred thousand dense layers": described([FLAT, *[DENSE] * 10**5], [1, 2, 2]),
    "layers within layers": {"model": {**described([], [1, 2, 2])["model"], "layers": json.loads('[{"layer":' * 400 + "1" + "}]" * 400)}},
    "pixels": described([FLAT, DENSE], [1, 10**9, 10**9]),
    "many pixels": described([CONV], [1, 46340, 46340]),
    "a dense layer of 9 GB": described([FLAT, {**DENSE, "units": 500_000_000}], [1, 2, 2]),
    "a wide dense layer": described([FLAT, {**DENSE, "units": 10**18}], [1, 2, 2]),
    "padding": described([{**CONV, "padding": 10**15}], [1, 2, 2]),
    "padding and as long a stride": described([{**CONV, "padding": 10**15, "stride": 10**15}], [1, 2, 2]),
    "padding of 2³⁰": described([{**CONV, "padding": 2**30, "stride": 2**30}], [1, 2, 2]),
    "a stride": described([{**CONV, "stride": 10**18}], [1, 2, 2]),
    "a kernel": described([{**CONV, "kernel_size": 10**12, "padding": "same"}], [1, 2, 2]),
    "a dilation": described([{**CONV, "kernel_size": 2, "dilation": 10**12, "padding": "same"}], [1, 2, 2]),
    "a pooling window": described([{**POOL, "pool_size": 2**31 - 1, "padding": "same"}], [1, 1, 30000]),
    "many pooling windows": described([{**POOL, "stride": 1, "padding": "same", "dilation": 10**6}], [1, 2, 10**9]),
    "very many pooling windows": described([{**POOL, "stride": 1}], [1, 2, 2**31 - 1]),
    "many pooling windows in a row": described([{**POOL, "stride": 1}] * 500, [1, 2, 10**9]),
    "filters": described([{**CONV, "filters": 10**9}], [4, 2, 2]),
    "groups": described([{**CONV, "filters": 10**9, "groups": 10**9}], [10**9, 1, 1]),
    "a seed": described([FLAT, DENSE], [1, 2, 2]) | {"x": 0},
    "a negative shape": described([FLAT, DENSE], [1, -2, 2]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_describes_what_it_does_not_hold_is_refused_in_a_second(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m", HOSTILE[name])
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError) as caught:
        gc.load(path, device="cpu")
    assert time.process_time() - started < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB, of which a million descriptions take most
    assert len(str(caught.value)) <= 500


def test_no_more_memory_is_taken_than_there_are_weights(tmp_path: Path) -> None:
    """In a process that may have 2 GB at the most, of which a few hundred MB are libraries."""
    path = written(tmp_path / "m", HOSTILE["a dense layer of 9 GB"])
    assert path.stat().st_size < 1000
    code = (
        "import resource, sys, gpucnn as gc\nresource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\n"
        "try: gc.load(sys.argv[1], device='cpu')\nexcept gc.CheckpointError as error: print(error)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment, timeout=60)
    assert "dense_1.weight" in done.stdout or "dense_1.bias" in done.stdout, done.stderr


def test_a_description_that_is_too_long_is_not_even_parsed(tmp_path: Path) -> None:
    path = written(tmp_path / "m", {"model": "x" * (1 << 25)})
    with pytest.raises(CheckpointError, match=r"has a description of 33,.* characters"):
        gc.load(path, device="cpu")


# Arguments are checked before any work.


class Count(gc.Callback):
    steps = 0

    def on_train_begin(self, run: Any) -> None:
        Count.steps += 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"callbacks": [gc.EarlyStopping("val_loss")]}, "monitors 'val_loss', which this run does not have.*give fit validation_data"),
        ({"callbacks": [gc.EarlyStopping("val_accuracy")]}, "'val_accuracy'"),
        ({"callbacks": gc.EarlyStopping("loss")}, "callbacks must be a list of callbacks, got"),
        ({"callbacks": [gc.Progress]}, "must be gpucnn.Callback objects, got .*call the class"),
        ({"callbacks": [print]}, "must be gpucnn.Callback objects"),
        ({"callbacks": 3}, "callbacks must be a list"),
        ({"validation_data": (X, Y, Y)}, r"validation_data must be a pair \(x, y\), got .* of 3"),
        ({"validation_data": X}, "validation_data must be a pair"),
        ({"validation_data": (X,)}, "validation_data must be a pair .* of 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1.5}, "batch_size must be an integer"),
        ({"augment": "shfit"}, "unknown augmentation"),
        ({"augment": 3}, "augment must be a callable"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_arguments_are_checked_before_the_first_step(options: dict[str, Any], words: str) -> None:
    model = build()
    with pytest.raises((ValueError, TypeError), match=words):
        model.fit(X, Y, **{"epochs": 3, "verbose": False, **options})
    assert model.optimizer is not None and model.optimizer.steps == 0 and model.epochs_begun == 0


def test_no_callbacks_and_one_metric_are_taken_as_they_are_meant() -> None:
    model = build()
    model.fit(X, Y, callbacks=None, verbose=False)
    model.fit(X, Y, callbacks=iter([Count()]), validation_data=[X, Y], verbose=False)
    assert Count.steps == 1
    assert model.compile("adam", metrics="accuracy").metrics == ["accuracy"]
    assert model.compile("adam", metrics=()).metrics == []
    for wrong in ("a", ["a"], [3]):
        with pytest.raises(ValueError, match=r"unknown metric ('a'|3): there are accuracy"):
            model.compile("adam", metrics=wrong)
    for wrong in (3, None):
        with pytest.raises(TypeError, match="metrics must be a list of names"):
            model.compile("adam", metrics=wrong)  # type: ignore[arg-type]
    model.compile("adam", metrics=[])
    with pytest.raises(ValueError, match="'accuracy', which this run does not have: it has loss, val_loss"):
        model.fit(X, Y, callbacks=[gc.EarlyStopping("accuracy")], validation_data=(X, Y), verbose=False)
