"""State has one owner: layers and models, parameters that are assigned, calls of fit one after another, answers beside training, copies."""

from __future__ import annotations

import contextlib
import copy
import gc as garbage
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import gpucnn as gc
from gpucnn.errors import GpucnnError, ShapeError
from gpucnn.layers.base import Array, Shape

RNG = np.random.default_rng(0)
X, Y = RNG.random((44, 1, 6, 6), dtype=np.float32), RNG.integers(0, 3, 44)


def build(seed: int = 7, optimizer: gc.Optimizer | None = None) -> gc.Sequential:
    model = gc.Sequential(
        gc.Conv2D(4, 3, activation="relu"), gc.Dropout(0.2), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(5, activation="sigmoid"), gc.Dense(3)
    ).build((1, 6, 6), seed=seed, device="cpu")
    return model.compile(optimizer or gc.Adam(gc.OneCycle(0.02, 30)))


def bits(model: gc.Sequential) -> tuple[Any, ...]:
    assert model.optimizer is not None
    state = {name: array.tobytes() for name, array in model.optimizer.state.items()}
    return model.buffers.values.tobytes(), state, model.optimizer.steps, model.state()


# Layers of two models.


@pytest.mark.parametrize("taken", [slice(0, 1), slice(4, 5), slice(0, 6)])
def test_layers_go_over_to_another_model_with_their_weights(taken: slice) -> None:
    first = build()
    first.fit(X, Y, verbose=False)
    other = copy.deepcopy(first)
    layers = first.layers[taken]
    second = gc.Sequential(*layers, gc.Flatten(), gc.Dense(2))
    second.build((1, 6, 6) if taken.start == 0 else (16,), seed=1, device="cpu").compile("adam")
    assert second.layers[: len(layers)] == layers
    for layer, before in zip(layers, other.layers[taken], strict=True):
        for name, parameter in layer.named_parameters():
            np.testing.assert_array_equal(parameter.value, dict(before.named_parameters())[name].value)
            assert np.shares_memory(parameter.value, second.buffers.values)
    assert second.layers[-1].parameters[0].value.any()
    # The first goes on with a copy of its own, as it would have.
    assert not set(map(id, first.layers)) & set(map(id, second.layers))
    np.testing.assert_array_equal(first.predict(X), other.predict(X))
    for model in (first, other):
        model.fit(X, Y, epochs=2, verbose=False)
    assert bits(first) == bits(other)
    assert [layer.name for layer in first.layers] == [layer.name for layer in other.layers]


def test_weights_that_do_not_fit_are_refused_and_nothing_is_lost() -> None:
    first = build()
    before, loss = first.predict(X), first.fit(X, Y, verbose=False)["loss"]
    before = first.predict(X)
    again = copy.deepcopy(first)
    for layers, shape, message in (
        (first.layers[:1], (3, 6, 6), r"'conv2d_1' keeps the weights of another model, and its weight of shape \(4, 1, 3, 3\) has"),
        (first.layers[:1], (1, 2, 2), "layer 1 of 1"),
    ):
        with pytest.raises(ShapeError, match=message):
            gc.Sequential(*layers).build(shape, device="cpu")
        np.testing.assert_array_equal(first.predict(X), before)
    assert first.fit(X, Y, verbose=False)["loss"] == again.fit(X, Y, verbose=False)["loss"] != loss
    assert bits(first) == bits(again)
    before = first.predict(X)
    first.layers[0].use_bias = False  # heeded when it is built again
    with pytest.raises(ShapeError, match=r"its bias of shape \(4,\) is not there here"):
        gc.Sequential(*first.layers[:1]).build((1, 6, 6), device="cpu")
    np.testing.assert_array_equal(first.predict(X), before)


def test_a_build_that_fails_leaves_the_model_as_it_was() -> None:
    first, again = build(), build()
    for model in (first, again):
        model.fit(X, Y, verbose=False)
    before = first.predict(X)

    def fails(shape: tuple[int, ...], rng: Any) -> Any:
        raise RuntimeError("no weights today")

    first.layers[-1].initializer = fails
    for shape, error in (((1, 2, 2), ShapeError), ((3, 7, 7), RuntimeError)):
        with pytest.raises(error):
            first.build(shape, seed=5, device="cpu", dtype="float64")
        np.testing.assert_array_equal(first.predict(X), before)
    assert (first.input_shape, first.dtype, first.seed) == (again.input_shape, again.dtype, again.seed)
    for model in (first, again):
        model.fit(X, Y, verbose=False)
    assert bits(first) == bits(again)
    new = gc.Sequential(gc.Dense(2, initializer=fails))
    with pytest.raises(RuntimeError):
        new.build((3,), device="cpu")
    with pytest.raises(gc.GpucnnError, match="not built yet"):
        new.predict(np.ones((1, 3)))


def test_layers_of_a_loaded_model_keep_their_weights_and_may_be_frozen(tmp_path: Path) -> None:
    whole = build()
    whole.fit(X, Y, verbose=False)
    whole.save(tmp_path / "m.safetensors")
    model = gc.Sequential(*gc.load(tmp_path / "m.safetensors", device="cpu").layers[:-1], gc.Dense(4))  # the model itself is gone by then
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.build((1, 6, 6), seed=9, device="cpu").compile(gc.Adam(0.05))
    model.fit(X, Y, epochs=3, verbose=False)
    for name in ("conv2d_1.weight", "conv2d_1.bias", "dense_1.weight"):
        np.testing.assert_array_equal(model.parameters[name].value, whole.parameters[name].value)
    assert model.parameters["dense_2.weight"].shape == (4, 5)


def test_layers_of_a_model_that_is_gone_and_of_the_same_model_are_free() -> None:
    first = build()
    layers = first.layers
    first.build((1, 6, 6), seed=8, device="cpu")
    del first
    garbage.collect()
    gc.Sequential(*layers).build((1, 6, 6), device="cpu")


def test_a_layer_within_a_layer_goes_over_too() -> None:
    inner = gc.Dense(4)
    first = gc.Sequential(gc.Flatten(), Twice(inner, gc.Dense(4))).build((1, 2, 2), device="cpu")
    weight = inner.weight.value.copy()
    assert first.parameter_count == 40
    gc.Sequential(gc.Flatten(), Twice(gc.Dense(4), inner)).build((1, 2, 2), seed=3, device="cpu")
    np.testing.assert_array_equal(inner.weight.value, weight)
    assert first.layers[1].inner()["first"] is not inner
    np.testing.assert_array_equal(first.layers[1].inner()["first"].parameters[0].value, weight)


# Layers made of layers.


class Twice(gc.Layer):
    """Two layers, one after the other."""

    def __init__(self, first: gc.Layer, *rest: gc.Layer) -> None:
        super().__init__()
        self.first, self.rest = first, list(rest)

    def settings(self) -> dict[str, Any]:
        return {"first": self.first, "rest": self.rest}

    def _build(self, input_shape: Shape) -> Shape:
        shape = self.first.build(input_shape)
        for layer in self.rest:
            shape = layer.build(shape)
        return shape

    def _forward(self, x: Array, training: bool) -> Array:
        for layer in (self.first, *self.rest):
            x = layer.forward(x, training)
        return x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        for layer in reversed([self.first, *self.rest]):
            dy = layer.backward(dy)
        return dy


def test_layers_made_of_layers_keep_their_weights_under_their_paths() -> None:
    model = gc.Sequential(
        gc.Flatten(), Twice(gc.Dense(5, activation="relu"), gc.Dropout(0.3), Twice(gc.Dense(4), gc.Dense(3))), gc.Dense(3)
    ).build((1, 6, 6), seed=3, device="cpu")
    flat = gc.Sequential(gc.Flatten(), gc.Dense(5, activation="relu"), gc.Dropout(0.3), gc.Dense(4), gc.Dense(3), gc.Dense(3)).build(
        (1, 6, 6), seed=3, device="cpu"
    )
    inner = ("twice_1.first", "twice_1.rest.1.first", "twice_1.rest.1.rest.0", "dense_1")
    assert list(model.parameters) == [f"{layer}.{name}" for layer in inner for name in ("weight", "bias")]
    assert model.parameter_count == flat.parameter_count
    np.testing.assert_array_equal(model.buffers.values, flat.buffers.values)
    assert list(model.state()) == ["twice_1.rest.0"]
    before = model.buffers.values.copy()
    model.compile(gc.SGD(0.5)).fit(X, Y, verbose=False)
    for parameter in model.parameters.values():
        assert parameter.value.base is not None and np.shares_memory(parameter.value, model.buffers.values)
    assert (model.buffers.values != before).sum() > 0.9 * model.parameter_count


def test_a_container_is_saved_and_loaded_once_it_is_registered(tmp_path: Path) -> None:
    class Pair(gc.Layer):
        def __init__(self, layers_within: Any) -> None:
            super().__init__()
            self.within = list(layers_within)

        def settings(self) -> dict[str, Any]:
            return {"layers_within": self.within}

        def _build(self, input_shape: Shape) -> Shape:
            for layer in self.within:
                input_shape = layer.build(input_shape)
            return input_shape

        def _forward(self, x: Array, training: bool) -> Array:
            for layer in self.within:
                x = layer.forward(x, training)
            return x

    model = gc.Sequential(gc.Flatten(), Pair([gc.Dense(4, activation="relu"), gc.Dense(3)])).build((1, 6, 6), device="cpu")
    with pytest.raises(gc.CheckpointError, match=r"'pair_1' is a Pair, which no file can name: gpucnn\.register\(Pair\) first"):
        model.save(tmp_path / "m.safetensors")
    gc.register(Pair)
    try:
        model.save(tmp_path / "m.safetensors")
        np.testing.assert_array_equal(gc.load(tmp_path / "m.safetensors", device="cpu").predict(X), model.predict(X))
    finally:
        from gpucnn.layers import LAYERS

        del LAYERS["Pair"]


class Two(gc.Layer):
    """A layer whose parameters have one name."""

    def _build(self, input_shape: Shape) -> Shape:
        self.parameters = [gc.Parameter("weight", (2,), "zeros"), gc.Parameter("weight", (2,), "zeros")]
        return input_shape


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"'two_1' has two parameters called 'two_1\.weight'"):
        gc.Sequential(Two()).build((1, 2, 2), device="cpu")


# Arrays that are saved and not trained.


class Mean(gc.Layer):
    """Keeps a running mean of what it has seen in training, and a gain that is trained."""

    passes_on = True

    def _build(self, input_shape: Shape) -> Shape:
        self.mean = gc.SavedArray("mean", input_shape, 0.25)
        self.gain = gc.Parameter("gain", (1,), "zeros")
        self.arrays, self.parameters = [self.mean], [self.gain]
        return input_shape

    def _forward(self, x: Array, training: bool) -> Array:
        if training:
            self.mean.value[...] = 0.5 * self.mean.value + 0.5 * x.mean(axis=0)
        return x + self.gain.value

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        self.gain.grad[...] += dy.sum()
        return dy


@pytest.fixture
def registered() -> Any:
    from gpucnn.layers import LAYERS

    gc.register(Mean)
    yield
    del LAYERS["Mean"]


def with_mean(optimizer: gc.Optimizer | None = None, within: bool = False) -> gc.Sequential:
    last = [Twice(gc.Dense(4), Mean())] if within else [gc.Dense(4), Mean()]
    model = gc.Sequential(gc.Flatten(), Mean(), gc.Dense(4, activation="relu"), *last, gc.Dense(3))
    return model.build((1, 6, 6), seed=3, device="cpu").compile(optimizer or gc.Adam(0.01))


def test_arrays_that_are_not_trained_have_a_place_of_their_own() -> None:
    model = with_mean(gc.SGD(0.1, weight_decay=0.1), within=True)
    assert list(model.arrays) == ["mean_1.mean", "twice_1.rest.0.mean"]
    assert "mean_1.mean" not in model.parameters and model.parameter_count == 37 * 4 + 1 + 20 + 1 + 15
    mean = model.arrays["mean_1.mean"]
    np.testing.assert_array_equal(mean.value, 0.25)
    assert np.shares_memory(mean.value, model.buffers.saved) and not np.shares_memory(mean.value, model.buffers.values)
    with pytest.raises(ShapeError, match=r"array 'mean' has shape \(36,\), got an array of shape \(3,\)"):
        mean.value = np.zeros(3)
    model.fit(X, Y, batch_size=44, verbose=False)
    np.testing.assert_allclose(mean.value, 0.125 + 0.5 * X.reshape(44, 36).mean(axis=0), rtol=1e-6)
    model.build((1, 6, 6), device="cpu")
    np.testing.assert_array_equal(model.arrays["mean_1.mean"].value, 0.25)


def test_arrays_that_are_not_trained_are_saved_loaded_copied_and_resumed(registered: None, tmp_path: Path) -> None:
    model = with_mean()
    model.fit(X, Y, batch_size=8, verbose=False)
    model.save(tmp_path / "m.safetensors")
    others = [gc.load(tmp_path / "m.safetensors", device="cpu"), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), with_mean()]
    others[-1].load_parameters(tmp_path / "m.safetensors")
    for other in others:
        assert other.buffers.saved.tobytes() == model.buffers.saved.tobytes()
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert model.buffers.saved.any()

    whole, part, resumed = with_mean(), with_mean(), with_mean()
    whole.fit(X, Y, batch_size=8, epochs=3, verbose=False)
    part.fit(X, Y, batch_size=8, epochs=1, verbose=False, callbacks=[gc.Checkpoint(tmp_path / "run.safetensors")])
    resumed.fit(X, Y, batch_size=8, epochs=3, verbose=False, resume=tmp_path / "run.safetensors")
    assert bits(resumed) == bits(whole) and resumed.buffers.saved.tobytes() == whole.buffers.saved.tobytes()


def test_early_stopping_puts_back_what_is_not_trained_as_well() -> None:
    model = with_mean(gc.SGD(0.1))
    kept = {}

    class Look(gc.Callback):
        def on_epoch_end(self, run: Any) -> None:
            kept[run.history.rows[-1]["loss"]] = model.buffers.saved.copy()

    model.fit(X, Y, batch_size=8, epochs=4, verbose=False, callbacks=[Look(), gc.EarlyStopping("loss", patience=9, restore_best=True)])
    np.testing.assert_array_equal(model.buffers.saved, kept[min(kept)])
    assert len({each.tobytes() for each in kept.values()}) == 4


class Both(gc.Layer):
    """A parameter and an array of one name."""

    def _build(self, input_shape: Shape) -> Shape:
        self.parameters, self.arrays = [gc.Parameter("mean", (2,), "zeros")], [gc.SavedArray("mean", (2,))]
        return input_shape


def test_a_parameter_and_an_array_of_one_name_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"'both_1' has a parameter and an array called 'both_1\.mean'"):
        gc.Sequential(Both()).build((1, 2, 2), device="cpu")


# Parameters.


@pytest.mark.parametrize("what", ["value", "grad"])
def test_what_is_assigned_to_a_parameter_is_written_through(what: str) -> None:
    model = build()
    parameter = model.parameters["dense_1.weight"]
    view = getattr(parameter, what)
    for given in (np.ones((5, 16)), np.ones((5, 16)).tolist(), np.full((5, 16), 3, np.int64), 2.5):
        setattr(parameter, what, given)
        assert getattr(parameter, what) is view or np.shares_memory(getattr(parameter, what), view)
        np.testing.assert_array_equal(view, np.broadcast_to(np.asarray(given, np.float32), (5, 16)))
    if what == "value":
        assert np.shares_memory(parameter.value, model.buffers.values)
        parameter.value += 1
        np.testing.assert_array_equal(view, 3.5)
        parameter.value *= 0.01
        before = view.copy()
        model.fit(X, Y, verbose=False)
        assert (view != before).any()
    for wrong in (np.ones((16, 5)), np.ones(16), np.ones((1, 5, 16))):
        with pytest.raises(ShapeError, match=r"'weight' has shape \(5, 16\), got"):
            setattr(parameter, what, wrong)
    with pytest.raises(ValueError, match="masked"):
        setattr(parameter, what, np.ma.masked_array(np.ones((5, 16))))
    with pytest.raises(GpucnnError, match=r"has no array yet: call model\.build"):
        setattr(gc.Parameter("weight", (2, 2), "zeros"), what, np.ones((2, 2)))


def test_what_is_assigned_by_name_is_written_through() -> None:
    model = build()
    for held in (model.parameters, model.arrays):
        for name, array in held.items():
            held[name] = np.full(array.shape, 0.25)
            np.testing.assert_array_equal(array.value, 0.25)
    np.testing.assert_array_equal(np.unique(model.buffers.values), [0, 0.25])  # zeros between the parameters
    model.parameters["dense_1.bias"] = model.parameters["dense_1.bias"]
    with pytest.raises(KeyError, match=r"there is no 'dense_7\.bias': the names are .*dense_1\.bias"):
        model.parameters["dense_7.bias"] = np.zeros(5)
    with pytest.raises(ShapeError, match=r"'bias' has shape \(5,\), got"):
        model.parameters["dense_1.bias"] = np.zeros(4)


@pytest.mark.parametrize("given", [np.ones((5, 16), np.float32), None, gc.Parameter("weight", (5, 16), "zeros")])
def test_a_parameter_of_a_layer_is_not_replaced(given: Any) -> None:
    model = build()
    layer = model["dense_1"]
    before = model.predict(X)
    for name in ("weight", "bias"):
        with pytest.raises(AttributeError, match=f"'{name}' is the layer's parameter, .* assign numbers to layer.{name}.value"):
            setattr(layer, name, given)
    layer.weight = layer.weight  # type: ignore[attr-defined]
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize(
    "change", [lambda layers: layers.append(gc.Dense(2)), lambda layers: layers.pop(), lambda layers: layers.__setitem__(-1, gc.Dense(5))]
)
def test_layers_that_are_changed_after_build_are_refused(change: Callable[[list[gc.Layer]], object]) -> None:
    model = build()
    change(model.layers)
    for act in (lambda: model.predict(X), lambda: model.fit(X, Y, verbose=False), model.summary, lambda: model.save("x.safetensors")):
        with pytest.raises(GpucnnError, match=r"model\.layers was changed after the model was built: make a new model"):
            act()


# fit, called again.


@pytest.mark.parametrize("optimizer", [lambda: gc.Adam(gc.OneCycle(0.02, 30)), lambda: gc.SGD(gc.Cosine(0.1, 30), momentum=0.9)])
@pytest.mark.parametrize("parts", [(1, 1, 1, 1, 1), (2, 3), (4, 1)])
def test_fit_called_again_is_one_longer_fit(parts: tuple[int, ...], optimizer: Callable[[], gc.Optimizer]) -> None:
    whole, pieces = build(optimizer=optimizer()), build(optimizer=optimizer())
    options: dict[str, Any] = {"batch_size": 8, "augment": gc.data.augmentation("affine"), "verbose": False}
    options["validation_data"] = X[:9], Y[:9]
    expected = whole.fit(X, Y, epochs=5, **options)
    losses = [loss for epochs in parts for loss in pieces.fit(X, Y, epochs=epochs, **options)["val_loss"]]
    assert losses == expected["val_loss"]
    assert bits(pieces) == bits(whole)


def test_no_two_calls_see_the_same_order_or_draw_the_same_changes(tmp_path: Path) -> None:
    seen: list[tuple[bytes, int]] = []

    def note(batch: Any, rng: np.random.Generator) -> Any:
        seen.append((batch[:, 0, 0, 0].tobytes(), int(rng.integers(1 << 62))))
        return batch

    class Stop(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            raise KeyboardInterrupt

    model = build()
    for callbacks in ([], [Stop()], [], [gc.Checkpoint(tmp_path / "a", every=1)]):
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(X, Y, batch_size=11, augment=note, callbacks=callbacks, verbose=False)
    assert len(seen) == 13 and len({order for order, _ in seen}) == len({draw for _, draw in seen}) == 13
    model.build((1, 6, 6), seed=7, device="cpu")  # and a model that is built anew begins anew
    model.fit(X, Y, batch_size=11, augment=note, verbose=False)
    assert seen[13:] == seen[:4]


def test_a_second_fit_that_is_stopped_resumes_to_the_same_bits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 8, "augment": gc.data.augmentation("shift"), "verbose": False}
    expected = build()
    expected.fit(X, Y, epochs=2, **options)
    state = copy.deepcopy(expected)
    expected.fit(X, Y, epochs=3, **options)

    class Stop(gc.Callback):
        def on_step_end(self, run: Any) -> None:
            if (run.epoch, run.step) == (1, 3):
                raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        state.fit(X, Y, epochs=3, callbacks=[Stop(), gc.Checkpoint(path, every=1)], **options)
    fresh = build()
    fresh.fit(X, Y, epochs=3, callbacks=[gc.Checkpoint(path, every=100)], resume=path, **options)
    assert bits(fresh) == bits(expected) and fresh.epochs_begun == expected.epochs_begun == 5
    for model in (fresh, expected):
        model.fit(X, Y, **options)
    assert bits(fresh) == bits(expected)


# Answers beside training.


def test_answers_keep_nothing_and_forget_nothing() -> None:
    model, other = build(), build()
    dy = RNG.normal(size=(6, 3)).astype(np.float32)
    for each in (model, other):
        each.forward(X[:6], training=True)
    kept = {name: repr(value) for layer in model.layers for name, value in vars(layer).items() if name.startswith("_")}
    model.predict(X[7:])
    model.evaluate(X[7:], Y[7:])
    model.forward(X[7:9])
    assert {name: repr(value) for layer in model.layers for name, value in vars(layer).items() if name.startswith("_")} == kept
    np.testing.assert_array_equal(model.backward(dy, input_grad=True), other.backward(dy, input_grad=True))
    model.predict(X)
    for layer in model.layers:
        assert not [name for name in ("_x", "_output", "_indices", "_kept") if getattr(layer, name, None) is not None]


def test_a_thread_may_ask_while_another_one_trains() -> None:
    alone, model, stop, failures = build(), build(), threading.Event(), []
    alone.fit(X, Y, epochs=20, batch_size=8, verbose=False)

    def ask() -> None:
        try:
            while not stop.is_set():
                model.predict(X[:9])
                model.evaluate(X[:5], Y[:5])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        model.fit(X, Y, epochs=20, batch_size=8, verbose=False)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == [] and bits(model) == bits(alone)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blas_has_its_threads_back_whoever_comes_last(threads: int) -> None:
    from gpucnn.ops.cpu import _threads

    def blas() -> set[int]:
        """The threads of the BLAS that NumPy has: SciPy brings another, which a test may load at any time."""
        ours = {library.filepath for library in _threads._blas().lib_controllers}
        return {library["num_threads"] for library in threadpool_info() if library["filepath"] in ours}

    model = gc.network("keras").build((1, 28, 28), seed=0, device="cpu").compile()
    x = np.random.default_rng(0).random((16, 1, 28, 28), dtype=np.float32)
    with threadpool_limits(2, "blas"):
        before = blas()
        for _ in range(4):
            workers = [threading.Thread(target=lambda: [model.predict(x) for _ in range(6)]) for _ in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert blas() == before
        with pytest.raises(ValueError, match="together"), _threads._one_thread:
            assert blas() == {1}
            raise ValueError("together")
        assert blas() == before
        found = []

        def inside() -> None:  # another thread than the one that has set two, which threadpoolctl calls the controlling one
            with _threads._one_thread:
                found.append(blas())

        worker = threading.Thread(target=inside)
        worker.start()
        worker.join()
        assert found == [{1}] and blas() == before


# Copies.

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    **{f"pickle {protocol}": lambda model, protocol=protocol: pickle.loads(pickle.dumps(model, protocol)) for protocol in (2, 4, 5)},
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_the_same_model_and_another(how: str) -> None:
    model = build()
    model.metadata = {"a": [1]}
    model.fit(X, Y, epochs=2, batch_size=8, verbose=False)
    model.forward(X[:4], training=True)
    model.backward(np.ones((4, 3), np.float32))
    before = bits(model)
    made = COPIES[how](model)
    assert bits(made) == before == bits(model)
    np.testing.assert_array_equal(made.predict(X), model.predict(X))
    for name, parameter in made.parameters.items():
        np.testing.assert_array_equal(parameter.grad, model.parameters[name].grad)
        assert not np.shares_memory(parameter.value, model.buffers.values)
        assert np.shares_memory(parameter.value, made.buffers.values)
    assert made.layers[0].weight is made.parameters["conv2d_1.weight"]
    made.metadata["a"].append(2)
    assert model.metadata == {"a": [1]}
    for each in (made, model):  # both go on alike, each for itself
        each.fit(X, Y, epochs=2, batch_size=8, augment=gc.data.augmentation("shift"), verbose=False)
    assert bits(made) == bits(model) != before
    assert made.config() == {**model.config(), "metadata": {"a": [1, 2]}}


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_models_that_are_not_built_or_compiled(how: str) -> None:
    bare = gc.Sequential(gc.Flatten(), gc.Dense(3))
    COPIES[how](bare).build((1, 6, 6), device="cpu")
    built = gc.Sequential(gc.Flatten(), Twice(gc.Dense(4), gc.Dense(3))).build((1, 6, 6), device="cpu", dtype="float64")
    np.testing.assert_array_equal(COPIES[how](built).predict(X), built.predict(X))
    layer = COPIES[how](build().layers[0])
    gc.Sequential(layer, gc.Flatten()).build((1, 6, 6), device="cpu")
    optimizer = COPIES[how](build().optimizer)
    with pytest.raises(GpucnnError, match="no parameters yet"):
        optimizer.step()
    gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 6, 6), device="cpu").compile(optimizer).fit(X, Y, verbose=False)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: gc.Dense(3), "bias"),
        (lambda: gc.ReLU(), "device"),
        (lambda: copy.deepcopy(build().layers[-1]), "device"),
        (lambda: pickle.loads(pickle.dumps(build().layers[-1])), "device"),
    ],
)
def test_a_layer_without_a_model_says_that_it_has_no_device(make: Callable[[], gc.Layer], name: str) -> None:
    layer = make()
    told = f"'{type(layer).__name__}' object has no attribute '{name}': a layer has one when a model is built with it"
    with pytest.raises(AttributeError, match=f"^{told}$"):
        layer.forward(np.ones((2, 5), np.float32))
    assert not hasattr(layer, name)
    gc.Sequential(layer).build((5,), device="cpu")
    assert layer.forward(np.ones((2, 5), np.float32)).shape[0] == 2


# Settings that are assigned after a model was built.


@pytest.mark.parametrize(
    ("layers", "at"),
    [
        ([gc.Conv2D(2, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(3)], 0),  # one stage
        ([gc.Conv2D(2, 3), gc.ReLU(), gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)], 2),
        ([gc.Conv2D(2, 3), gc.BatchNorm2D(activation="relu"), gc.Flatten(), gc.Dense(3)], 1),
        ([gc.Residual(gc.Conv2D(1, 1), activation="relu"), gc.Flatten(), gc.Dense(3)], 0),
    ],
)
def test_an_activation_that_is_assigned_is_the_one_that_is_given(layers: list[gc.Layer], at: int) -> None:
    model = gc.Sequential(copy.deepcopy(layers)).build((1, 6, 6), seed=3, device="cpu").compile("sgd")
    for _ in range(3):  # by then passes are recorded
        model.predict(X)
    model.layers[at].activation = "tanh"
    again = copy.deepcopy(layers)
    again[at].activation = "tanh"
    other = gc.Sequential(again).build((1, 6, 6), seed=3, device="cpu").compile("sgd")
    other.buffers.values[...] = model.buffers.values
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    for each in (model, other):
        each.fit(X, Y, epochs=2, verbose=False)
    np.testing.assert_array_equal(model.buffers.values, other.buffers.values)


@pytest.mark.parametrize(
    ("layer", "name", "value", "message"),
    [
        (gc.Conv2D(2, 3, activation="relu"), "activation", "foo", "unknown activation 'foo': there are relu"),
        (gc.Dropout(0.5), "rate", 5, "rate must be at least 0 and below 1, got 5"),
        (gc.BatchNorm2D(), "momentum", 1.5, "momentum must be at most 1, got 1.5"),
        (gc.BatchNorm2D(), "eps", 0, "eps must be a finite number above 0, got 0"),
    ],
)
def test_a_setting_of_a_layer_that_is_assigned_is_checked(layer: gc.Layer, name: str, value: Any, message: str) -> None:
    before = layer.config()
    with pytest.raises(ValueError, match=f"^{message}"):
        setattr(layer, name, value)
    assert layer.config() == before
    layer.activation = "linear"  # Keras's word for none
    assert layer.activation is None
