"""The words that Keras's and PyTorch's users type: the same things under second names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import recipes, words
from gpucnn.errors import ArgumentError, UnknownNameError

RNG = np.random.default_rng(3)
X = RNG.random((40, 1, 6, 6), dtype=np.float32)
Y = RNG.integers(0, 3, 40)


def model(**compile: Any) -> gc.Sequential:
    return gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 6, 6), seed=1, device="cpu").compile(**compile)


@pytest.mark.parametrize("given", ["Adam", "ADAM", "adam", gc.Adam, gc.Adam()])
def test_optimizers(given: Any) -> None:
    assert type(model(optimizer=given).optimizer) is gc.Adam


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        *((name, gc.CategoricalCrossentropy) for name in ("CategoricalCrossentropy", "sparse_categorical_crossentropy", "cross-entropy")),
        *((name, gc.BinaryCrossentropy) for name in ("BinaryCrossentropy", "bce", "BCE")),
        *((name, gc.MeanSquaredError) for name in ("mse", "MSE", "mean_squared_error", "MeanSquaredError", gc.MeanSquaredError)),
        ("CrossEntropyLoss", gc.CategoricalCrossentropy),
        ("BCEWithLogitsLoss", gc.BinaryCrossentropy),
        ("MSELoss", gc.MeanSquaredError),
    ],
)
def test_losses(given: Any, kind: type) -> None:
    assert type(gc.losses.get_loss(given)) is kind


@pytest.mark.parametrize("given", ["acc", "Accuracy", "sparse_categorical_accuracy", "binary_accuracy"])
def test_metrics(given: str) -> None:
    assert model(metrics=[given]).metrics == ["accuracy"] == model(metrics=given).metrics
    assert len(model(metrics=[given]).evaluate(X, Y)) == 2


@pytest.mark.parametrize("given", ["top_k_categorical_accuracy", "SparseTopKCategoricalAccuracy"])
def test_keras_names_of_the_five_best(given: str) -> None:
    assert gc.metrics.METRICS.meant(given) == "top_5_accuracy"


def test_a_wrong_name_is_told_the_first_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown loss 'huber': there are categorical_crossentropy, binary_crossentropy, mean_squ"):
        model(loss="huber")


def test_recipes_keep_the_first_name() -> None:
    recipe = recipes.OpenRecipe(optimizer="SGD", schedule="OneCycle")
    assert (recipe.optimizer, recipe.schedule) == ("sgd", "one-cycle")


ARGUMENTS: dict[str, tuple[Any, Any]] = {
    "SGD lr": (gc.SGD(lr=0.5), gc.SGD(0.5)),  # type: ignore[call-arg]
    "Adam betas": (gc.Adam(lr=0.5, beta_1=0.8, beta_2=0.9, eps=1e-6), gc.Adam(0.5, 0.8, 0.9, 1e-6)),  # type: ignore[call-arg]
    "AdamW lr": (gc.AdamW(lr=0.5), gc.AdamW(0.5)),  # type: ignore[call-arg]
    "StepDecay": (gc.StepDecay(lr=1, step_size=3, gamma=0.5), gc.StepDecay(1, 3, 0.5)),  # type: ignore[call-arg]
    "OneCycle": (gc.OneCycle(max_lr=1, total_steps=9), gc.OneCycle(1, 9)),  # type: ignore[call-arg]
    "Cosine": (gc.Cosine(initial_learning_rate=1, decay_steps=9), gc.Cosine(1, 9)),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_second_names_of_arguments(name: str) -> None:
    given, expected = ARGUMENTS[name]
    assert given.config() == expected.config()


def test_both_names_of_one_argument_are_refused() -> None:
    for call in (lambda: gc.SGD(0.1, lr=0.2), lambda: gc.SGD(learning_rate=0.1, lr=0.2), lambda: gc.Cosine(1, decay_steps=3, steps=2)):
        with pytest.raises(ArgumentError, match=r"are two names of one argument of (SGD|Cosine): give only one"):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        gc.SGD(rate=0.1)  # type: ignore[call-arg]
    assert gc.EarlyStopping(restore_best_weights=False).restore_best is False  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "given", "hint"),
    [
        (gc.SGD, {"momentom": 0.9}, "it takes learning_rate, momentum, nesterov, weight_decay, global_clipnorm; did you mean momentum?"),
        (gc.Adam, {"betas": (0.9, 0.99)}, "give beta1=0.9, beta2=0.999"),
        (gc.Dense, {"units": 3, "kernel_regularizer": "l2"}, "weight decay is the optimizer's"),
        (gc.Conv2D, {"filters": 3, "kernel_size": 3, "name": "stem"}, r"model\['conv2d_1'\]"),
        (gc.EarlyStopping, {"baseline": 0.5}, "it takes monitor, patience, min_delta, restore_best, mode$"),
        (gc.Cosine, {"learning_rate": 1, "steps": 2, "minimum": 0}, "it takes learning_rate, steps, final$"),
    ],
)
def test_an_argument_that_there_is_not(make: Any, given: dict[str, Any], hint: str) -> None:
    with pytest.raises(TypeError, match=rf"^{make.__name__}\(\) got an unexpected keyword argument '{list(given)[-1]}': .*{hint}"):
        make(**given)


def test_arguments_of_layers_that_pytorch_and_keras_name_otherwise() -> None:
    assert gc.Dropout(p=0.25).rate == 0.25  # type: ignore[call-arg]
    assert gc.LeakyReLU(alpha=0.25).config() == gc.LeakyReLU(0.25).config()  # type: ignore[call-arg]
    assert gc.Conv2D(3, 3, bias=False).use_bias is False  # type: ignore[call-arg]
    assert gc.Dense(3, activation="linear").config() == gc.Dense(3).config()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", words.NO_ATTRIBUTE)
def test_an_attribute_that_others_have(name: str) -> None:
    made = model()
    owners = [owner for owner in (made, made.layers[-1], made.optimizer) if not hasattr(type(owner), name)]
    assert owners, "it exists: the hint is of no use"
    for owner in owners:
        with pytest.raises(AttributeError, match=f"'{type(owner).__name__}' object has no attribute '{name}': ."):
            getattr(owner, name)


def test_an_attribute_that_nobody_has() -> None:
    made = model()
    for owner in (made, made.layers[-1], made.optimizer):
        with pytest.raises(AttributeError, match=f"^'{type(owner).__name__}' object has no attribute 'nonsense'$"):
            owner.nonsense  # type: ignore[union-attr]  # noqa: B018
        assert not hasattr(owner, "__array_interface__")
    with pytest.raises(TypeError, match=r"parameters are a dict by name, not a method: .*optimizer.attach\(model.buffers\)"):
        gc.Adam(made.parameters(), lr=1e-3)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gc.SGD(0.1, 0.9, nesterov="no"), TypeError, "nesterov must be True or False, got 'no'"),
        (lambda: gc.EarlyStopping(restore_best="no"), TypeError, "restore_best must be True or False"),
        (lambda: model().fit(X, Y, shuffle="no"), TypeError, "shuffle must be True or False"),
        (lambda: model().fit([(X, Y)], shuffle="no"), TypeError, "shuffle must be True or False"),
        (lambda: model().evaluate(X, Y, return_dict="no"), TypeError, "return_dict must be True or False, got 'no'"),
        (lambda: model().forward(X, training="no"), TypeError, "training must be True or False, got 'no'"),
        (lambda: model()(X, "no"), TypeError, "training must be True or False, got 'no'"),
        (lambda: gc.CategoricalCrossentropy(from_logits="no"), TypeError, "from_logits must be True or False, got 'no'"),
        (lambda: gc.BinaryCrossentropy(from_logits=1), TypeError, "from_logits must be True or False, got 1"),
        (
            lambda: model().fit(X, Y, augment=lambda x, rng: None, verbose=0),
            TypeError,
            r"augment\(x, rng\) must return an array like x, got No",
        ),
        (lambda: model(loss=lambda y, t: 0), TypeError, "a loss is a name or an object of a class derived from gpucnn.losses.Loss"),
        (
            lambda: model(metrics=[lambda y, t: 0]),
            TypeError,
            r"metrics are names, .*: register a function as one, @gpucnn.register\(metric='mine'\)",
        ),
        (lambda: model().parameters["w"], KeyError, "there is no 'w': the names are dense_1.weight, dense_1.bias"),
        (lambda: gc.functional.gelu(X, "no"), UnknownNameError, "unknown approximation of GELU 'no': there are none, tanh"),
        (lambda: gc.functional.gelu(X, 2), TypeError, "approximate must be True or False, got 2"),
        (lambda: gc.functional.avg_pool2d(X, 2, count_include_pad="no"), TypeError, "count_include_pad must be True or False"),
        (lambda: gc.functional.max_pool2d(X, 2, ceil_mode="same"), TypeError, "ceil_mode must be True or False, got 'same'"),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_learning_rate_is_assigned() -> None:
    made = model(optimizer=gc.SGD(0.5))
    optimizer: Any = made.optimizer
    optimizer.lr = 0.25
    assert (optimizer.learning_rate, optimizer.config()["learning_rate"]) == (0.25, gc.Constant(0.25).config())
    optimizer.learning_rate = lambda step: 1 / (1 + step)
    assert optimizer.lr == 1
    before = made.buffers.values.copy()
    made.train_on_batch(X, Y)
    assert optimizer.lr == 0.5
    optimizer.learning_rate = 0

    class Halved(gc.Callback):
        def on_epoch_end(self, run: gc.Run) -> None:
            run.optimizer.learning_rate = 0.125 if run.epoch == 1 else 0

    after = made.buffers.values.copy()
    assert (before != after).any()
    assert made.fit(X, Y, epochs=3, verbose=0, callbacks=[Halved()])["learning_rate"] == [0, 0.125, 0]
    with pytest.raises((TypeError, ArgumentError), match="learning_rate must be"):
        optimizer.learning_rate = -1


def test_a_class_of_ones_own_may_mean_something_else_by_such_a_word() -> None:
    class Own(gc.SGD):
        def __init__(self, lr: float, gamma: float = 2.0, **more: Any) -> None:
            super().__init__(**more)
            self.gamma = lr * gamma

    made = Own(lr=3, learning_rate=0.5)
    assert (made.gamma, made.learning_rate) == (6, 0.5)
    assert Own(1, learning_rate=0.25).learning_rate == 0.25


def test_a_function_of_the_step_is_a_schedule(tmp_path: Path) -> None:
    made = model(optimizer=gc.SGD(lambda step: 0.1 / (1 + step)))
    rates = made.fit(X, Y, batch_size=10, epochs=3, verbose=False)["learning_rate"]
    assert rates == pytest.approx([0.1 / 4, 0.1 / 8, 0.1 / 12])
    made.save(tmp_path / "m")
    with pytest.warns(UserWarning, match="loaded without its optimizer: unknown schedule 'Computed'"):
        loaded = gc.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(loaded.predict(X), made.predict(X))
    for wrong in (-1.0, float("nan"), "x"):
        with pytest.raises((ArgumentError, TypeError), match="the learning rate of step 0 must be"):
            model(optimizer=gc.SGD(lambda step, wrong=wrong: wrong)).fit(X, Y, verbose=False)


def test_a_run_with_a_function_of_the_step_is_resumed(tmp_path: Path) -> None:
    def rate(step: int) -> float:
        return 0.1 / (1 + step)

    def run(epochs: int, resume: Path | None) -> bytes:
        made = model(optimizer=gc.SGD(rate, momentum=0.5))
        made.fit(X, Y, batch_size=8, epochs=epochs, verbose=False, callbacks=[gc.Checkpoint(tmp_path / "c")], resume=resume)
        return made.buffers.values.tobytes()

    whole = run(4, None)
    run(2, None)
    assert run(4, tmp_path / "c") == whole


def test_history_as_keras_has_it() -> None:
    history = model(metrics=["acc"]).fit(X, Y, epochs=3, validation_split=0.25, verbose=0)
    assert history.history == {name: list(history[name]) for name in history} and isinstance(history.history, dict)
    assert history.history["acc"] == history["accuracy"] and history.history["val_acc"] == history["val_accuracy"]
    assert "acc" not in history.history
    for wrong in ("accurate", "val_", "val_mse"):
        with pytest.raises(KeyError, match=wrong):
            history.history[wrong]
    with pytest.raises(KeyError):
        model().fit(X, Y, verbose=0).history["val_acc"]


def test_what_things_say_of_themselves() -> None:
    data = gc.data.Dataset("a", *2 * (np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1], np.int32)), ("no", "yes"), "here")
    assert repr(data) == "<Dataset a: 2 + 2 images 1×3×3, 2 classes>"
    assert repr(gc.SGD(0.1, 0.9)) == "SGD(learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)"
    assert repr(gc.SGD(gc.Cosine(0.1, 5))).startswith("SGD(learning_rate=Cosine(learning_rate=0.1, steps=5, final=0.0), ")
    assert repr(gc.EarlyStopping("loss")) == "EarlyStopping(monitor='loss', patience=3, min_delta=0.0, restore_best=True, mode='auto')"
    assert repr(gc.CategoricalCrossentropy()) == "CategoricalCrossentropy(label_smoothing=0.0)"
    assert repr(gc.Checkpoint("a", 7)).startswith("Checkpoint(path=PosixPath('a'), every=7")
    history = model().fit(X, Y, epochs=2, verbose=0)
    assert repr(history).startswith("<History of 2 epochs: loss ") and repr(gc.History()) == "<History of 0 epochs>"

    class Bare(gc.Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []

    assert repr(Bare()) == "Bare()"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ReLU", "relu"),
        ("LeakyReLU", "leaky_relu"),
        ("leaky-relu", "leaky_relu"),
        ("swish", "silu"),
        ("SOFTMAX", "softmax"),
        ("hard_silu", "hard_swish"),
        ("Hardswish", "hard_swish"),
    ],
)
def test_activations(given: Any, meant: str) -> None:
    """However they are spelt, a layer keeps the one name, and has the initial weights that go with it."""
    for made in (lambda name: gc.Dense(3, activation=name), lambda name: gc.Conv2D(2, 3, activation=name)):
        assert made(given).activation == meant and made(given).settings() == made(meant).settings()
    with pytest.raises(UnknownNameError, match=r"unknown activation 'rellu'.*did you mean 'relu'"):
        gc.Dense(3, activation="rellu")


@pytest.mark.parametrize("name", words.INSTEAD)
def test_keras_words_without_a_class_of_their_own_are_told_what_there_is(name: str) -> None:
    assert not hasattr(gc, name) and name not in gc.__all__
    with pytest.raises(AttributeError, match=f"no attribute '{name}': .+"):
        getattr(gc, name)
    for word in re.findall(r"\b[A-Z]\w*[a-z]\w*", words.INSTEAD[name]):  # what it names can be had
        assert word == "Keras" or hasattr(gc, word), word
    for module in (gc.layers, gc.callbacks, gc.losses, gc.metrics, gc.models, gc.optimizers):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute '{name}': .+"):
            getattr(module, name)


def test_a_name_that_nothing_has_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match=r"module 'gpucnn' has no attribute 'nonsense'$"):
        gc.nonsense  # noqa: B018
