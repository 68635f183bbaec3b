"""What a training step counts, on the CPU: the sums, the right answers past 32 bits, and the end at a loss that is not a number."""

from __future__ import annotations

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.ops import cpu
from gpucnn.training.step import Totals, TrainingStep


def test_a_step_is_counted_and_its_rates_are_looked_up() -> None:
    table = np.arange(9, dtype=np.float32).reshape(3, 3)
    rates, counters, sums = np.full(4, 7, np.float32), np.array([1, 4, 5, 8, 0, 0], np.int32), np.array([10.0, 0.25])
    cpu.tally(np.asarray(2.5), np.asarray(3), 4, table, rates, counters, sums)
    np.testing.assert_array_equal(rates, [3, 4, 5, 1])
    np.testing.assert_array_equal(counters, [2, 4, 8, 9, 0, 0])
    np.testing.assert_array_equal(sums, [20.0, 0.25])


@pytest.mark.parametrize("before", [0, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 5 * 2**32 - 1, 2**45])
@pytest.mark.parametrize("correct", [0, 1, 2, 2**31 - 1])
def test_right_answers_are_counted_in_64_bits(before: int, correct: int) -> None:
    counters = np.zeros(6, np.uint32)
    counters[[2, 5]] = before & 0xFFFFFFFF, before >> 32
    counters = counters.view(np.int32)
    cpu.tally(np.asarray(1.0), np.asarray(correct), 1, np.zeros((1, 3), np.float32), np.zeros(4, np.float32), counters, np.zeros(2))
    words = counters.view(np.uint32)
    assert int(words[2]) + (int(words[5]) << 32) == before + correct
    assert words[[0, 1, 3, 4]].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_is_counted_from_a_loss_that_is_no_number_on(bad: float) -> None:
    table, rates = np.ones((3, 3), np.float32), np.full(4, 7, np.float32)
    counters, sums = np.array([0, 4, 5, 0, 0, 1], np.int32), np.array([10.0, 0.25])
    for loss in (2.0, bad, 3.0):
        cpu.tally(np.asarray(loss), np.asarray(1), 1, table, rates, counters, sums)
    np.testing.assert_array_equal(counters, [1, 4, 6, 1, 1, 1])
    np.testing.assert_array_equal(sums, [bad, 0.25])
    np.testing.assert_array_equal(rates, [1, 1, 1, 0])


@pytest.mark.parametrize("correct", [7, 2**31 + 5, 2**32 + 5, 2**40])
def test_totals_go_in_and_come_out(correct: int) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 2, 2), device="cpu").compile("sgd")
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer)
    step.begin(5, done=2, totals=Totals(1.5, correct))
    assert step.read() == Totals(1.5, correct)
