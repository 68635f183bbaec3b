"""Optimizers: PyTorch step by step in float64, and the formulas written out for where it is not installed."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import GpucnnError, ShapeError, UnknownNameError
from gpucnn.ops import cpu
from gpucnn.optimizers import Optimizer, get_optimizer

OPTIMIZERS: list[tuple[Any, str, dict[str, Any]]] = [
    (lambda: gc.SGD(0.1), "SGD", {"lr": 0.1}),
    (lambda: gc.SGD(0.1, momentum=0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
    (lambda: gc.SGD(0.1, momentum=0.9, nesterov=True), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (lambda: gc.SGD(0.1, weight_decay=0.05), "SGD", {"lr": 0.1, "weight_decay": 0.05}),
    (
        lambda: gc.SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.05),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ),
    (lambda: gc.Adam(0.02), "Adam", {"lr": 0.02}),
    (lambda: gc.Adam(0.02, beta1=0.8, beta2=0.95, epsilon=1e-3), "Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3}),
    (lambda: gc.Adam(0.02, weight_decay=0.1), "Adam", {"lr": 0.02, "weight_decay": 0.1}),
    (lambda: gc.AdamW(0.02), "AdamW", {"lr": 0.02, "weight_decay": 0.01}),
    (lambda: gc.AdamW(0.02, weight_decay=0.3), "AdamW", {"lr": 0.02, "weight_decay": 0.3}),
    (lambda: gc.RMSprop(0.02), "RMSprop", {"lr": 0.02, "alpha": 0.9}),
    (lambda: gc.RMSprop(0.02, 0.7, 1e-3, 0.1), "RMSprop", {"lr": 0.02, "alpha": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
]


def small_model(seed: int = 0) -> gc.Sequential:
    layers = gc.Conv2D(2, 2), gc.Flatten(), gc.Dense(3)
    return gc.Sequential(*layers).build((1, 3, 3), seed=seed, device="cpu", dtype="float64")


@pytest.mark.parametrize("case", range(len(OPTIMIZERS)))
def test_ten_steps_are_pytorchs(case: int, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    make, name, options = OPTIMIZERS[case]
    model = small_model()
    model.compile(make())
    parameters = list(model.parameters.values())
    tensors = [torch.tensor(parameter.value.copy(), requires_grad=True) for parameter in parameters]
    theirs = getattr(torch.optim, name)(tensors, **options)
    for step in range(10):
        for parameter, tensor in zip(parameters, tensors, strict=True):
            gradient = rng.normal(size=parameter.shape) * 10.0 ** (step % 4 - 2)
            parameter.add_grad(lambda out, gradient=gradient: np.copyto(out, gradient))
            tensor.grad = torch.tensor(gradient)
        assert model.optimizer is not None
        model.optimizer.step()
        model.optimizer.zero_grad()
        theirs.step()
        for parameter, tensor in zip(parameters, tensors, strict=True):
            np.testing.assert_allclose(parameter.value, tensor.detach().numpy(), rtol=1e-11, atol=1e-13)


def one_number(optimizer: gc.Optimizer, start: float, gradients: list[float]) -> list[float]:
    """A single parameter under `optimizer`, after each gradient."""
    model = gc.Sequential(gc.Dense(1, use_bias=False)).build((1,), device="cpu", dtype="float64")
    optimizer.attach(model.buffers)
    weight = model.parameters["dense_1.weight"]
    weight.value[...] = start
    values = []
    for gradient in gradients:
        optimizer.zero_grad()
        weight.add_grad(lambda out, gradient=gradient: out.fill(gradient))
        optimizer.step()
        values.append(float(weight.value[0, 0]))
    return values


def test_momentum_is_the_sum_of_earlier_gradients() -> None:
    assert one_number(gc.SGD(0.1, momentum=0.5), 1.0, [1.0, 2.0]) == pytest.approx([0.9, 0.9 - 0.1 * 2.5])
    assert one_number(gc.SGD(0.1, momentum=0.5, nesterov=True), 1.0, [1.0]) == pytest.approx([1 - 0.1 * 1.5])


def test_adam_is_its_papers_algorithm_and_its_first_step_is_the_learning_rate() -> None:
    mean = variance = 0.0
    value, expected = 1.0, []
    for step, gradient in enumerate([2.0, -1.0, 0.5], start=1):
        mean, variance = 0.9 * mean + 0.1 * gradient, 0.999 * variance + 0.001 * gradient**2
        value -= 0.01 * (mean / (1 - 0.9**step)) / (math.sqrt(variance / (1 - 0.999**step)) + 1e-8)
        expected.append(value)
    assert one_number(gc.Adam(0.01), 1.0, [2.0, -1.0, 0.5]) == pytest.approx(expected, rel=1e-13)
    assert one_number(gc.Adam(0.01), 1.0, [1e-3]) == pytest.approx([0.99], rel=1e-4)


def test_rmsprop_is_the_gradient_over_its_mean_square_from_zero() -> None:
    square, value, expected = 0.0, 1.0, []
    for gradient in [2.0, -1.0, 0.5]:
        square = 0.75 * square + 0.25 * gradient**2
        value -= 0.01 * gradient / (math.sqrt(square) + 1e-8)
        expected.append(value)
    assert one_number(gc.RMSprop(0.01, rho=0.75), 1.0, [2.0, -1.0, 0.5]) == pytest.approx(expected, rel=1e-13)


def test_decay_is_in_the_gradient_with_adam_and_beside_it_with_adamw() -> None:
    # With a gradient of zero, AdamW shrinks the parameter by lr·decay; Adam sees decay·p as the gradient and takes a whole step.
    assert one_number(gc.AdamW(0.1, weight_decay=0.5), 2.0, [0.0]) == pytest.approx([2.0 * (1 - 0.1 * 0.5)])
    assert one_number(gc.Adam(0.1, weight_decay=0.5), 2.0, [0.0]) == pytest.approx([1.9])


def test_the_schedule_decides_each_step() -> None:
    optimizer = gc.SGD(gc.StepDecay(1.0, every=2, factor=0.1))
    assert one_number(optimizer, 0.0, [1.0] * 5) == pytest.approx([-1, -2, -2.1, -2.2, -2.21])
    assert optimizer.steps == 5
    assert optimizer.learning_rate == pytest.approx(0.01)


def test_a_parameter_without_a_gradient_has_one_of_zero(rng: np.random.Generator) -> None:
    model = small_model()
    model.compile(gc.SGD(1.0))
    assert model.optimizer is not None
    first = model.parameters["conv2d_1.weight"]
    first.add_grad(lambda out: out.fill(7.0))
    model.optimizer.zero_grad()  # that gradient is forgotten, though its numbers may still lie there
    before = model.buffers.values.copy()
    model.optimizer.step()
    np.testing.assert_array_equal(model.buffers.values, before)


def test_a_gradient_written_by_hand_counts() -> None:
    model = small_model()
    model.compile(gc.SGD(1.0))
    assert model.optimizer is not None
    weight = model.parameters["dense_1.weight"]
    before = weight.value.copy()
    weight.grad[...] = 2.0
    model.optimizer.step()
    np.testing.assert_array_equal(weight.value, before - 2)


def test_steps_are_taken_in_place_and_gaps_between_parameters_stay_zero(rng: np.random.Generator) -> None:
    model = small_model()
    model.compile(gc.AdamW(0.1))
    assert model.optimizer is not None
    held = {name: parameter.value for name, parameter in model.parameters.items()}
    for _ in range(3):
        model.forward(rng.normal(size=(2, 1, 3, 3)), training=True)
        model.backward(rng.normal(size=(2, 3)))
        model.optimizer.step()
        model.optimizer.zero_grad()
    used = np.zeros(model.buffers.values.shape, bool)
    for name, parameter in model.parameters.items():
        assert parameter.value is held[name]
        assert np.shares_memory(parameter.value, model.buffers.values)
        offset = (parameter.value.ctypes.data - model.buffers.values.ctypes.data) // 8
        assert offset % 32 == 0
        used[offset : offset + parameter.size] = True
    assert used.sum() == model.parameter_count
    np.testing.assert_array_equal(model.buffers.values[~used], 0)


def test_an_optimizer_without_a_model_says_so() -> None:
    for act in (lambda: gc.SGD().step(), lambda: gc.Adam().zero_grad()):
        with pytest.raises(GpucnnError, match=r"no parameters yet: call model.compile\(optimizer=...\) first"):
            act()


@pytest.mark.parametrize("kind", [gc.SGD, gc.Adam])
def test_an_optimizer_is_attached_to_buffers_alone(kind: Any) -> None:
    model = gc.Sequential(gc.Dense(3)).build((4,), device="cpu")
    for given in (model, model.parameters, None):
        with pytest.raises(TypeError, match=r"attach takes the parameters of a model, model\.buffers, got"):
            kind().attach(given)


def test_compile_starts_an_optimizer_afresh() -> None:
    optimizer = gc.Adam(0.1)
    one_number(optimizer, 1.0, [1.0, 2.0])
    model = small_model()
    model.compile(optimizer)
    assert optimizer.steps == 0
    assert all(not state.any() for state in optimizer.state.values())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gc.SGD(-0.1), ValueError, "learning_rate must be a finite number of at least 0, got -0.1"),
        (lambda: gc.SGD(float("nan")), ValueError, "learning_rate must be a finite number of at least 0, got nan"),
        (lambda: gc.Adam(float("inf")), ValueError, "learning_rate must be .*got inf"),
        (lambda: gc.SGD("fast"), TypeError, "learning_rate must be a number, got 'fast'"),
        (lambda: gc.SGD("0.1"), TypeError, "learning_rate must be a number, got '0.1'"),
        (lambda: gc.SGD(True), TypeError, "learning_rate must be a number, got True"),
        (lambda: gc.SGD(10**400), ValueError, "learning_rate must be a finite number"),
        (lambda: gc.SGD(0.1, momentum=1), ValueError, "momentum must be at least 0 and below 1, got 1"),
        (lambda: gc.SGD(0.1, momentum=-0.5), ValueError, "momentum must be .*got -0.5"),
        (lambda: gc.SGD(0.1, nesterov=True), ValueError, "nesterov needs a momentum above 0"),
        (lambda: gc.SGD(0.1, weight_decay=-1), ValueError, "weight_decay must be a finite number of at least 0, got -1"),
        (lambda: gc.Adam(beta1=1.0), ValueError, "beta1 must be at least 0 and below 1, got 1.0"),
        (lambda: gc.Adam(beta2=-0.1), ValueError, "beta2 must be .*got -0.1"),
        (lambda: gc.Adam(epsilon=0), ValueError, "epsilon must be a finite number above 0, got 0"),
        (
            lambda: get_optimizer("adamm"),
            UnknownNameError,
            r"unknown optimizer 'adamm': there are sgd, adam, adamw, rmsprop; did you mean 'adam",
        ),
        (lambda: get_optimizer(3), UnknownNameError, "unknown optimizer 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("case", range(len(OPTIMIZERS)))
def test_a_config_gives_the_same_optimizer_again(case: int) -> None:
    optimizer = OPTIMIZERS[case][0]()
    again = get_optimizer(optimizer.config())
    assert type(again) is type(optimizer)
    assert again.config() == optimizer.config()
    assert one_number(again, 1.0, [1.0, -2.0, 0.5]) == one_number(optimizer, 1.0, [1.0, -2.0, 0.5])
    scheduled = gc.SGD(gc.OneCycle(0.1, 100, warmup=0.3), momentum=0.9)
    assert get_optimizer(scheduled.config()).config() == scheduled.config()


def test_settings_that_are_left_out() -> None:
    adam = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    for optimizer, settings in {
        gc.SGD(): {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        gc.Adam(): {"optimizer": "adam", **adam, "weight_decay": 0.0},
        gc.AdamW(): {"optimizer": "adamw", **adam, "weight_decay": 0.01},
    }.items():
        rate = 0.01 if settings["optimizer"] == "sgd" else 0.001
        assert optimizer.config() == {"learning_rate": gc.Constant(rate).config(), **settings}
    for name, kind in (("sgd", gc.SGD), ("adam", gc.Adam), ("adamw", gc.AdamW)):
        assert get_optimizer(name).config() == kind().config()


def test_settings_by_their_places() -> None:
    assert gc.SGD(0.1, 0.9, True, 0.2).config() == gc.SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.2).config()
    for kind in (gc.Adam, gc.AdamW):
        named = kind(learning_rate=0.1, beta1=0.8, beta2=0.7, epsilon=0.1, weight_decay=0.2)
        assert kind(0.1, 0.8, 0.7, 0.1, 0.2).config() == named.config()


def test_rates_are_those_of_the_steps_to_come() -> None:
    optimizer = gc.AdamW(gc.Cosine(0.1, 8), beta1=0.5, beta2=0.75, weight_decay=0.2)
    optimizer.steps = 2
    rates = optimizer.rates(3)
    assert rates.shape == (3, 3) and rates.dtype == np.float64
    for row, step in zip(rates, (2, 3, 4), strict=True):
        rate = gc.Cosine(0.1, 8)(step)
        assert row == pytest.approx([rate / (1 - 0.5 ** (step + 1)), (1 - 0.75 ** (step + 1)) ** -0.5, 1 - rate * 0.2], rel=1e-14)
    assert gc.Adam(0.1, weight_decay=0.2).rates(1)[0, 2] == 1
    np.testing.assert_array_equal(gc.SGD(gc.StepDecay(1.0, 2, 0.5)).rates(4), [[1, 1, 1], [1, 1, 1], [0.5, 1, 1], [0.5, 1, 1]])


def test_momentum_alone_has_a_velocity() -> None:
    model = small_model()
    for optimizer, names in ((gc.SGD(), set()), (gc.SGD(momentum=0.5), {"velocity"}), (gc.Adam(), {"mean", "variance"})):
        assert not optimizer.trains(model.buffers)
        optimizer.attach(model.buffers)
        assert optimizer.trains(model.buffers) and not optimizer.trains(small_model().buffers)
        assert optimizer.state.keys() == names
        assert all(array.shape == model.buffers.values.shape and array.dtype == np.float64 for array in optimizer.state.values())


def test_a_momentum_that_is_assigned_waits_for_compile_and_is_not_passed_over() -> None:
    """Without its buffer the steps would be those without a momentum."""
    model, expected = small_model().compile(gc.SGD(0.1)), small_model().compile(gc.SGD(0.1, momentum=0.9))
    x, y = np.arange(18.0).reshape(2, 1, 3, 3) / 18, np.array([0, 2])
    model.optimizer.momentum = 0.9  # type: ignore[union-attr]
    before = model.buffers.values.copy()
    for step in (lambda: model.fit(x, y, verbose=False), lambda: model.train_on_batch(x, y), model.optimizer.step):  # type: ignore[union-attr]
        with pytest.raises(GpucnnError, match="keeps a velocity now, and did not when it was attached: compile the model again"):
            step()
    np.testing.assert_array_equal(model.buffers.values, before)
    model.compile(model.optimizer)
    for each in (model, expected):
        each.epochs_begun = 0
        each.fit(x, y, epochs=3, verbose=False)
    np.testing.assert_array_equal(model.buffers.values, expected.buffers.values)
    model.optimizer.momentum = 0.0  # type: ignore[union-attr]
    model.fit(x, y, verbose=False)


@pytest.mark.parametrize(
    ("optimizer", "name", "value", "message"),
    [
        (gc.SGD(0.1, momentum=0.5), "momentum", 7, "momentum must be at least 0 and below 1, got 7"),
        (gc.SGD(0.1), "weight_decay", -1, "weight_decay must be a finite number of at least 0, got -1"),
        (gc.SGD(0.1), "nesterov", "no", "nesterov must be True or False, got 'no'"),
        (gc.Adam(), "beta1", 1.0, "beta1 must be at least 0 and below 1, got 1.0"),
        (gc.Adam(), "beta2", -0.1, "beta2 must be a finite number of at least 0"),
        (gc.Adam(), "epsilon", 0, "epsilon must be a finite number above 0, got 0"),
        (gc.AdamW(), "weight_decay", "a", "weight_decay must be a number, got 'a'"),
        (gc.AdamW(), "global_clipnorm", 0, "global_clipnorm must be a finite number above 0, got 0"),
        (
            gc.Adam(),
            "momentum",
            0.9,
            "'Adam' object has no attribute 'momentum': it has learning_rate, global_clipnorm, beta1, beta2, epsilon",
        ),
        (gc.RMSprop(), "rho", 1, "rho must be at least 0 and below 1, got 1"),
        (gc.SGD(0.1), "clipnorm", 1.0, "'SGD' object has no attribute 'clipnorm'"),
    ],
)
def test_a_setting_that_is_assigned_is_checked_as_one_that_is_given(optimizer: Any, name: str, value: Any, message: str) -> None:
    before = repr(optimizer)
    with pytest.raises((ValueError, TypeError, AttributeError), match=f"^{message}"):
        setattr(optimizer, name, value)
    assert repr(optimizer) == before


def test_settings_that_are_assigned_count() -> None:
    assigned, given = gc.AdamW(0.1), gc.AdamW(0.1, 0.8, 0.95, 1e-3, 0.3, global_clipnorm=1.5)
    assigned.beta1, assigned.beta2, assigned.epsilon, assigned.weight_decay, assigned.global_clipnorm = 0.8, 0.95, 1e-3, 0.3, 1.5
    assert assigned.config() == given.config()
    assert one_number(assigned, 1.0, [2.0, -1.0]) == one_number(given, 1.0, [2.0, -1.0])
    assigned.global_clipnorm = None
    assert one_number(assigned, 1.0, [2.0, -1.0]) == one_number(gc.AdamW(0.1, 0.8, 0.95, 1e-3, 0.3), 1.0, [2.0, -1.0])


def test_the_operations_settings_that_are_left_out() -> None:
    rng = np.random.default_rng(3)
    p, g, v = rng.normal(size=7), rng.normal(size=7), rng.normal(size=7)
    expected, velocity = p - 0.5 * g, v.copy()
    for speed in (None, velocity):
        got = p.copy()
        cpu.sgd_update(got, g, speed, rates=np.array([0.5, 9, 9, 1]))
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(velocity, g)  # without momentum the last gradient is all that is left of it

    named, left_out = ([p.copy(), v.copy(), np.abs(v)] for _ in range(2))
    rates = np.array([0.5, 1.25, 0.75, 1])
    settings = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0, "decoupled": False}
    cpu.adam_update(named[0], g, *named[1:], rates=rates, **settings)
    cpu.adam_update(left_out[0], g, *left_out[1:], rates=rates)
    np.testing.assert_array_equal(left_out, named)
    mean, variance = 0.9 * v + 0.1 * g, 0.999 * np.abs(v) + 0.001 * g**2
    np.testing.assert_allclose(left_out, [p - 0.5 * mean / (np.sqrt(variance) * 1.25 + 1e-8), mean, variance], rtol=1e-12)


def test_what_is_left_of_a_decay_goes_to_the_new_gradient() -> None:
    g, m, v = np.array([2.0, -4.0]), np.array([1.0, 8.0]), np.array([16.0, 0.0])
    cpu.adam_update(np.zeros(2), g, m, v, rates=np.array([1.0, 1, 1, 1]), beta1=0.25, beta2=0.125)
    assert m.tolist() == [0.25 * 1 + 0.75 * 2, 0.25 * 8 - 0.75 * 4]
    assert v.tolist() == [0.125 * 16 + 0.875 * 4, 0.875 * 16]


@pytest.mark.parametrize("rates", [[0.5, 0, 0, 1], [0.5, 0, 0, 2], [0.5, 1, 1, 0]])
def test_only_the_last_of_the_rates_says_whether_there_is_a_step(rates: list[float]) -> None:
    p, m, v = np.ones(5), np.zeros(5), np.zeros(5)
    cpu.sgd_update(p, np.ones(5), m, rates=np.array(rates), momentum=0.5)
    assert p.tolist() == [0.5 if rates[3] else 1.0] * 5 and m.tolist() == [float(rates[3] > 0)] * 5
    p, m = np.ones(5), np.zeros(5)
    cpu.adam_update(p, np.ones(5), m, v, rates=np.array(rates), weight_decay=0.1, decoupled=True)
    assert [bool(m.any()), bool(v.any()), bool((p != 1).all())] == [rates[3] > 0] * 3


def test_decoupled_decay_is_the_factor_that_the_rates_give() -> None:
    for decay, factor in ((0.1, 0.75), (0.0, 1.0)):
        p = np.full(5, 2.0)
        cpu.adam_update(p, np.zeros(5), np.zeros(5), np.zeros(5), rates=np.array([0.5, 1, 0.75, 1]), weight_decay=decay, decoupled=True)
        np.testing.assert_array_equal(p, 2 * factor)


def test_what_gpucnn_train_takes_where_no_rate_is_given() -> None:
    assert [kind.peak for kind in (Optimizer, gc.SGD, gc.Adam, gc.AdamW, gc.RMSprop)] == [1e-3, 0.05, 2e-3, 2e-3, 1e-3]
    assert gc.SGD.recipe == {"momentum": 0.9, "nesterov": True} and gc.Adam.recipe == gc.AdamW.recipe == {}


def test_an_optimizer_says_its_settings() -> None:
    assert repr(gc.SGD(0.1)) == "SGD(learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)"
    assert repr(gc.SGD(gc.Cosine(0.1, 100))).startswith("SGD(learning_rate=Cosine(learning_rate=0.1, steps=100, final=0.0), momentum=0.0")


def test_clipping_is_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    model = small_model()
    optimizer = gc.SGD(0.1, global_clipnorm=2.5)
    model.compile(optimizer)
    parameters = list(model.parameters.values())
    tensors = [torch.tensor(parameter.value.copy(), requires_grad=True) for parameter in parameters]
    theirs = torch.optim.SGD(tensors, lr=0.1)
    for scale in (1e-3, 1.0, 1e3):
        for parameter, tensor in zip(parameters, tensors, strict=True):
            parameter.grad = scale * rng.normal(size=parameter.shape)
            tensor.grad = torch.tensor(parameter.grad.copy())
        norm = float(torch.nn.utils.clip_grad_norm_(tensors, 2.5))
        optimizer.step()
        theirs.step()
        for parameter, tensor in zip(parameters, tensors, strict=True):  # PyTorch adds 1e-6 to the norm
            np.testing.assert_allclose(parameter.value, tensor.detach().numpy(), rtol=0, atol=0.1 * 2.5 * 1e-6)
        assert np.linalg.norm(model.buffers.all_gradients()) == pytest.approx(min(norm, 2.5), rel=1e-12)


def test_the_norm_is_that_of_all_pieces_in_float64() -> None:
    g = np.random.default_rng(1).normal(size=2 * (1 << 18) + 77).astype(np.float32)
    norm = np.linalg.norm(g.astype(np.float64))
    for most, factor in ((norm * 1.0001, 1.0), (norm / 3, 1 / 3), (1e30, 1.0)):
        clipped = g.copy()
        cpu.clip_norm(clipped, most)
        np.testing.assert_array_equal(clipped, g if factor == 1 else g * np.float32(most / norm))
    with np.errstate(all="raise"):  # squares that float32 cannot hold, and zeros
        cpu.clip_norm(large := np.full(4, 1e30, np.float32), 2.0)
        cpu.clip_norm(none := np.zeros(4, np.float32), 2.0)
        cpu.clip_norm(np.zeros(0, np.float32), 2.0)
    assert large.tolist() == [1.0] * 4 and not none.any()


@pytest.mark.parametrize("kind", [gc.SGD, gc.Adam, gc.AdamW, gc.RMSprop])
def test_clipping_is_a_setting_only_where_it_is_given(kind: Any) -> None:
    assert "global_clipnorm" not in kind().config() and "global_clipnorm" not in repr(kind())  # as in files from before there was one
    made = kind(0.01, global_clipnorm=2)
    assert made.config()["global_clipnorm"] == 2.0 and "global_clipnorm=2.0" in repr(made)
    again = get_optimizer(made.config())
    assert type(again) is kind and again.config() == made.config()
    for wrong in (0, -1, math.nan, "1"):
        with pytest.raises((ValueError, TypeError), match="global_clipnorm must be a"):
            kind(global_clipnorm=wrong)
    with pytest.raises(TypeError, match="global_clipnorm limits the norm of all gradients together"):
        kind(clipnorm=1.0)


def test_fit_clips() -> None:
    """One step of SGD on one batch, by hand."""
    x, y = np.random.default_rng(2).normal(size=(5, 1, 3, 3)), np.arange(5) % 3
    model, free = small_model(), small_model()
    before = model.buffers.values.copy()
    free.compile(gc.SGD(1.0)).fit(x, y, batch_size=5, verbose=False)
    gradient = before - free.buffers.values
    norm = float(np.linalg.norm(gradient))
    model.compile(gc.SGD(1.0, global_clipnorm=norm / 8)).fit(x, y, batch_size=5, verbose=False)
    np.testing.assert_allclose(before - model.buffers.values, gradient / 8, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", range(len(OPTIMIZERS)))
def test_a_part_at_a_time_is_the_same_update(case: int, rng: np.random.Generator) -> None:
    make, *_ = OPTIMIZERS[case]
    models = [small_model() for _ in range(2)]
    for model in models:
        model.compile(make())
    first, *_, last = models[0].parameters.values()
    for _ in range(4):
        gradient = rng.normal(size=first.shape)
        for parts, model in zip(([slice(None)], [slice(64, None), slice(64)]), models, strict=True):
            assert model.optimizer is not None and model.optimizer.divisible
            model.optimizer.zero_grad()
            last_one = list(model.parameters.values())[-1]
            last_one.gradient_room[...] = np.nan  # it has no gradient, whatever is there
            next(iter(model.parameters.values())).add_grad(lambda out, gradient=gradient: np.copyto(out, gradient))
            rates = np.append(model.optimizer.rates(1)[0], 1)
            for part in parts:
                model.optimizer.update(rates, part)
            model.optimizer.steps += 1
        np.testing.assert_array_equal(models[0].buffers.values, models[1].buffers.values)
        for slot in models[0].optimizer.slots if models[0].optimizer is not None else ():
            np.testing.assert_array_equal(*(model.optimizer.state[slot] for model in models if model.optimizer is not None))
    assert np.isfinite(models[0].buffers.values).all() and last.size


def test_optimizers_that_need_all_gradients_are_not_divisible() -> None:
    class Own(gc.Adam):
        def _update(self, buffers: Any, gradients: Any, rates: Any) -> None:
            gradients /= np.abs(gradients).max()
            super()._update(buffers, gradients, rates)

    class Around(gc.SGD):
        def update(self, rates: Any, part: slice | None = None) -> None:
            super().update(rates * 2, part)

    class Named(gc.AdamW):
        """Has nothing of its own."""

    assert [make().divisible for make in (gc.SGD, gc.Adam, gc.AdamW, gc.RMSprop, Named, Own, Around)] == [True] * 5 + [False] * 2
    assert not gc.Adam(global_clipnorm=1.0).divisible


# An optimizer of one's own may assign what it computes, or compute in place.


class InPlace(gc.Optimizer):
    slots = ("memory",)

    def _update(self, buffers: Any, gradients: Any, rates: Any) -> None:
        memory = self.state["memory"]
        memory *= 0.5
        memory += gradients
        buffers.values -= rates[0] * memory


class Assigning(gc.Optimizer):
    slots = ("memory",)
    wrong: str = ""

    def _update(self, buffers: Any, gradients: Any, rates: Any) -> None:
        self.state["memory"] = 0.5 * self.state["memory"] + gradients if self.wrong != "state" else gradients[:1]
        buffers.values = buffers.values - rates[0] * self.state["memory"] if self.wrong != "values" else gradients.sum()


def test_what_an_optimizer_of_ones_own_assigns_is_written_to_the_parameters_and_to_its_state() -> None:
    x, y, found = np.random.default_rng(0).random((12, 3), dtype=np.float32), np.arange(12) % 2, []
    for optimizer in (InPlace(0.1), Assigning(0.1)):
        model = gc.Sequential(gc.Dense(2)).build((3,), device="cpu").compile(optimizer)
        values, memory = model.buffers.values, optimizer.state["memory"]
        model.fit(x, y, epochs=2, batch_size=4, verbose=False)
        assert model.buffers.values is values and optimizer.state["memory"] is memory  # which a recorded step goes on to use
        again = copy.deepcopy(model)
        for each in (model, again):
            each.train_on_batch(x, y)
            found.append([each.parameters["dense_1.weight"].value, each.optimizer.state["memory"]])
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(same, one)
    assert np.abs(found[0][1]).max() > 0


@pytest.mark.parametrize(("wrong", "words"), [("state", "the state 'memory' has shape"), ("values", r"values has shape \(64,\), got \(\)")])
def test_what_an_optimizer_of_ones_own_assigns_has_the_shape_of_what_is_there(wrong: str, words: str) -> None:
    optimizer = Assigning(0.1)
    optimizer.wrong = wrong
    model = gc.Sequential(gc.Dense(2)).build((3,), device="cpu").compile(optimizer)
    with pytest.raises(ShapeError, match=words):
        model.train_on_batch(np.ones((2, 3)), [0, 1])
