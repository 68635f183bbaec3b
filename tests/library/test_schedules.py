"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.errors import ArgumentError, UnknownNameError
from gpucnn.schedules import get_schedule


def test_constant_and_step_decay() -> None:
    assert [gc.Constant(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3
    decay = gc.StepDecay(0.5, every=3, factor=0.5)
    assert [decay(step) for step in range(8)] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]


def test_cosine_falls_from_the_learning_rate_to_the_final_one_and_stays_there() -> None:
    schedule = gc.Cosine(0.4, steps=10, final=0.1)
    for step in range(11):
        assert schedule(step) == pytest.approx(0.1 + 0.3 * (1 + math.cos(math.pi * step / 10)) / 2, rel=1e-14)
    assert schedule(0) == 0.4
    assert schedule(5) == pytest.approx(0.25)
    assert schedule(10) == schedule(11) == schedule(10**6) == pytest.approx(0.1)


def test_cosine_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=0.1)
    ours = gc.Cosine(0.4, 10, 0.1)
    for step in range(11):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_one_cycle_rises_to_the_learning_rate_and_falls_to_its_end() -> None:
    schedule = gc.OneCycle(1.0, steps=100, warmup=0.25, start_factor=20, end_factor=1000)
    assert schedule(0) == pytest.approx(0.05)
    assert schedule(25) == 1.0
    assert schedule(100) == schedule(1000) == pytest.approx(0.001)
    values = [schedule(step) for step in range(101)]
    assert all(a < b for a, b in itertools.pairwise(values[:26]))
    assert all(a > b for a, b in itertools.pairwise(values[25:]))
    assert schedule(10) == pytest.approx(1 + (0.05 - 1) * (1 + math.cos(math.pi * 10 / 25)) / 2)
    assert schedule(70) == pytest.approx(0.001 + 0.999 * (1 + math.cos(math.pi * 45 / 75)) / 2)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.25), (2, 0.9), (3, 0.1), (7, 0.5)])
def test_one_cycle_of_any_length_stays_within_its_bounds(steps: int, warmup: float) -> None:
    schedule = gc.OneCycle(0.1, steps, warmup)
    for step in range(steps + 3):
        assert 0.1 / 1e4 * 0.999 <= schedule(step) <= 0.1


@pytest.mark.parametrize(
    "schedule",
    [gc.Constant(0.1), gc.StepDecay(0.1, 5, 0.3), gc.Cosine(0.1, 9, 0.01), gc.OneCycle(0.2, 40, 0.1, 5, 50)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_config_gives_the_same_schedule_again(schedule: gc.Schedule) -> None:
    again = get_schedule(schedule.config())
    assert type(again) is type(schedule)
    assert [again(step) for step in range(50)] == [schedule(step) for step in range(50)]


def test_a_schedule_of_ones_own_can_be_trained_with_but_not_loaded() -> None:
    class Halving(gc.Schedule):
        def __call__(self, step: int) -> float:
            return 0.5**step

    assert gc.SGD(Halving()).learning_rate == 1.0
    config = Halving().config()
    with pytest.raises(UnknownNameError, match=r"unknown schedule .*Halving"):
        get_schedule(config)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gc.Constant(-1), ValueError, "learning_rate must be .*got -1"),
        (lambda: gc.StepDecay(0.1, 0), ValueError, "every must be at least 1, got 0"),
        (lambda: gc.StepDecay(0.1, 2.5), TypeError, "every must be an integer, got 2.5"),
        (lambda: gc.StepDecay(0.1, 2, 0), ValueError, "factor must be a finite number above 0, got 0"),
        (lambda: gc.Cosine(0.0, 10), ValueError, "learning_rate must be a finite number above 0, got 0.0"),
        (lambda: gc.Cosine(0.1, -3), ValueError, "steps must be at least 1, got -3"),
        (lambda: gc.Cosine(0.1, 10, -0.1), ValueError, "final must be .*got -0.1"),
        (lambda: gc.OneCycle(0.1, 10, 1.0), ValueError, "warmup must be at least 0 and below 1, got 1.0"),
        (lambda: gc.OneCycle(0.1, 10, 0.1, 0), ValueError, "start_factor must be .*got 0"),
        (lambda: gc.OneCycle(0.1, 10, 0.1, 5, -1), ValueError, "end_factor must be .*got -1"),
        (lambda: get_schedule("cosine"), TypeError, "learning_rate must be a number, got 'cosine'"),
        (lambda: get_schedule({"schedule": "cosin"}), UnknownNameError, "unknown schedule 'cosin'.*did you mean 'cosine'"),
        (lambda: get_schedule({}), UnknownNameError, "unknown schedule None"),
        (lambda: get_schedule(gc.Cosine), TypeError, "learning_rate must be a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


class Own(gc.Schedule):
    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Own, lambda rate: lambda step: rate], ids=["class", "function"])
@pytest.mark.parametrize("optimizer", [gc.SGD, gc.Adam, gc.AdamW, gc.RMSprop])
def test_a_rate_that_makes_no_sense_is_refused_before_the_step(kind: Any, optimizer: Any) -> None:
    for rate, error in ((math.nan, ArgumentError), (-0.5, ArgumentError), (math.inf, ArgumentError), ("0.1", TypeError), (None, TypeError)):
        model = gc.Sequential(gc.Dense(3)).build((4,), device="cpu").compile(optimizer(kind(rate)))
        before = model.buffers.values.copy()
        for step in (model.fit, model.train_on_batch):
            with pytest.raises(error, match=r"the learning rate of step 0 must be a (finite )?number"):
                step(np.ones((2, 4)), [0, 1])
        assert (model.buffers.values == before).all()


def test_a_rate_that_grows_beyond_all_numbers_is_infinite() -> None:
    optimizer = gc.SGD(gc.StepDecay(1.0, 1, 2.0))
    optimizer.attach(gc.Sequential(gc.Dense(3)).build((4,), device="cpu").buffers)
    optimizer.steps = 1024
    with pytest.raises(ArgumentError, match=r"the learning rate of step 1024 must be a finite number of at least 0, got inf"):
        optimizer.step()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rate_may_decay_below_what_float32_can_hold(dtype: str) -> None:
    for schedule in (lambda step: 0.1 * 0.5**step, lambda step: np.float64(0.1) * 0.5**step, gc.StepDecay(0.1, 1, 0.5)):
        model = gc.Sequential(gc.Dense(3)).build((4,), device="cpu", dtype=dtype).compile(gc.SGD(schedule))
        history = model.fit(np.ones((2, 4)), [0, 1], epochs=200, batch_size=1, verbose=0)
        assert history["learning_rate"][-1] == pytest.approx(0.1 * 0.5**399) and math.isfinite(history["loss"][-1])


def test_settings_that_are_left_out() -> None:
    assert gc.StepDecay(0.1, 5).config() == {"schedule": "step", "learning_rate": 0.1, "every": 5, "factor": 0.1}
    assert gc.Cosine(0.1, 5).config() == {"schedule": "cosine", "learning_rate": 0.1, "steps": 5, "final": 0.0}
    assert gc.OneCycle(0.1, 5).config() == {
        "schedule": "one-cycle",
        "learning_rate": 0.1,
        "steps": 5,
        "warmup": 0.25,
        "start_factor": 25.0,
        "end_factor": 1e4,
    }


def test_the_least_settings_that_make_sense() -> None:
    assert gc.Constant(0)(7) == 0
    assert [gc.StepDecay(1.0, 1, 0.5)(step) for step in range(3)] == [1, 0.5, 0.25]
    assert [gc.Cosine(0.4, 1)(step) for step in range(3)] == [0.4, 0, 0]
    assert [gc.OneCycle(0.4, 1, 0.0, end_factor=4.0)(step) for step in range(3)] == pytest.approx([0.4, 0.1, 0.1])
    for make in (lambda: gc.Cosine(0.4, 0), lambda: gc.OneCycle(0.4, 0), lambda: gc.StepDecay(0, 1), lambda: gc.OneCycle(0, 1)):
        with pytest.raises(ValueError):
            make()


def test_the_schedule_of_a_whole_run() -> None:
    assert gc.Constant.over(0.2, 90).config() == gc.Constant(0.2).config()
    for kind in (gc.Cosine, gc.OneCycle):
        assert kind.over(0.2, 90).config() == kind(0.2, 90).config()
    assert gc.StepDecay.over(0.2, 90).config() == gc.StepDecay(0.2, 30).config()
    assert gc.StepDecay.over(0.2, 92).config() == gc.StepDecay(0.2, 30).config()
    for steps in (1, 2, 3, 5):
        assert gc.StepDecay.over(0.2, steps).config() == gc.StepDecay(0.2, 1).config()
