"""Dense layers of few outputs, by kernels of their own: read by fours and one by one, in one stage and in several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, Output, double, normal

from gpucnn.device import Device, to_numpy
from gpucnn.ops import cpu
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.dense import head, narrow
from tolerances import check

SIZES = [  # N, C, K
    pytest.param(132, 72, 5),  # dy in two stages, the second of which leaves warps without a row
    pytest.param(100, 72, 20, marks=COMPILED),
    pytest.param(3, 67, 10, marks=COMPILED),
    pytest.param(2, 600, 10, marks=COMPILED),
    pytest.param(65, 64, 32, marks=COMPILED),
    pytest.param(1, 130, 1, marks=COMPILED),
]


@pytest.mark.parametrize(("n", "c", "k"), SIZES)
def test_the_three_products(device: Device, n: int, c: int, k: int) -> None:
    x, weight, bias, dy = np.maximum(normal(0, n, c), 0), normal(1, k, c), normal(2, k), normal(3, n, k)
    given, weights, gradients = map(device.array, (x, weight, dy))
    for relu, shift in ((False, None), (True, bias)):
        y = Output(device, (n, k))
        narrow.dense(given, weights, None if shift is None else device.array(shift), y.array, relu)
        ref = cpu.dense(double(x), double(weight), None if shift is None else double(shift), relu=relu)
        magnitude = cpu.dense(double(x), np.abs(double(weight)), None if shift is None else np.abs(double(shift)))
        check(y.result(), ref, magnitude=magnitude, terms=c, direction="forward")
    for mask in (None, x):
        dx = Output(device, (n, c))
        narrow.dense_input_grad(gradients, weights, dx.array, relu=None if mask is None else given)
        ref = cpu.dense_input_grad(double(dy), double(weight), relu=mask)
        check(dx.result(), ref, magnitude=np.abs(double(dy)) @ np.abs(double(weight)), terms=k, direction="input_grad")
    dweight, dbias = Output(device, (k, c)), Output(device, (k,))
    narrow.dense_weight_grad(gradients, given, dweight.array, dbias=dbias.array)
    check(dweight.result(), double(dy).T @ double(x), magnitude=np.abs(double(dy)).T @ double(x), terms=n, direction="weight_grad")
    check(dbias.result(), double(dy).sum(0), magnitude=np.abs(double(dy)).sum(0), terms=n, direction="weight_grad")


def as_one(device: Device, x: Any, weight: Any, bias: Any, labels: Any, relu: bool | None = None) -> list[Any]:
    """(row losses, right answers, dlogits), and dx if relu is not None"""
    (n, c), k = x.shape, len(weight)
    dy, losses, correct, dx = Output(device, (n, k)), Output(device, (n,)), Output(device, (n,), "int32"), Output(device, (n, c))
    given = [None if each is None else device.array(each) for each in (x, weight, bias, labels)]
    wanted = {} if relu is None else {"dx": dx.array, "relu": relu}
    head.dense_cross_entropy(*given, dy.array, losses.array, correct.array, **wanted)
    return [losses.result(nan=True), correct.result(), dy.result(nan=True), *([] if relu is None else [dx.result(nan=True)])]


@pytest.mark.parametrize(("n", "c", "k"), [pytest.param(9, 72, 5), *(pytest.param(*each.values, marks=COMPILED) for each in SIZES[1:])])
def test_the_head_in_one_is_the_layer_and_the_loss_to_the_bit(device: Device, n: int, c: int, k: int) -> None:
    x, weight = normal(0, n, c), normal(1, k, c)
    labels = np.random.default_rng(4).integers(0, k, n).astype(np.int32)
    for bias in (None, normal(2, k)):
        losses, correct, dlogits = as_one(device, x, weight, bias, labels)
        y, dy = Output(device, (n, k)), Output(device, (n, k))
        narrow.dense(device.array(x), device.array(weight), None if bias is None else device.array(bias), y.array)
        mean, right, _ = device.ops.softmax_cross_entropy(y.array, device.array(labels), out=dy.array)
        np.testing.assert_array_equal(dlogits.view(np.uint32), dy.result().view(np.uint32))
        for relu in (False, True) if bias is not None else ():
            *others, gradients = as_one(device, x, weight, bias, labels, relu)
            for one, other in zip(others, (losses, correct, dlogits), strict=True):
                np.testing.assert_array_equal(one, other)
            dx = Output(device, (n, c))
            narrow.dense_input_grad(dy.array, device.array(weight), dx.array, relu=device.array(x) if relu else None)
            np.testing.assert_array_equal(gradients.view(np.uint32), dx.result().view(np.uint32))
        assert correct.sum() == int(right) and set(correct) <= {0, 1}
        ref, *_ = cpu.dense_cross_entropy(double(x), double(weight), None if bias is None else double(bias), labels)
        logits = double(y.result())
        largest, chosen = logits.max(1, keepdims=True), logits[np.arange(n), labels]
        own = np.log(np.exp(logits - largest).sum(1)) + largest[:, 0] - chosen
        # Of the logits as they are: sums of K exponentials and a logarithm, each good to two roundings, and three differences.
        np.testing.assert_allclose(losses, own, rtol=0, atol=2.0**-24 * ((k + 8) + 4 * np.abs(logits).max()))
        check(
            losses,
            ref,
            magnitude=2 * (np.abs(double(x)) @ np.abs(double(weight)).T).max(1) + np.abs(logits).max() + k,
            terms=c,
            direction="forward",
        )

        table, state = np.ones((1, 3), np.float32), []
        for loss, answers in ((device.array(losses), device.array(correct)), (mean, right)):
            rates, counters, sums = (
                device.array(np.zeros(4, np.float32)),
                device.array(np.zeros(6, np.int32)),
                device.array(np.zeros(2, np.float32)),
            )
            device.ops.tally(loss, answers, n, device.array(table), rates, counters, sums)
            state.append([to_numpy(each).view(np.uint32).tolist() for each in (rates, counters, sums)])
        assert state[0] == state[1]


def test_the_head_with_nan_ties_and_labels_out_of_range(device: Device) -> None:
    x, weight = np.ones((6, 72), np.float32), np.ones((5, 72), np.float32)
    x[1, 5] = np.nan
    labels = np.array([0, 0, 3, -1, 5, 2**31 - 1], np.int32)
    losses, correct, dlogits = as_one(device, x, weight, None, labels)
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False, True, True, True])
    np.testing.assert_array_equal(correct, [1, 0, 0, 0, 0, 0])  # of equals the first
    np.testing.assert_array_equal(np.isnan(dlogits).all(1), [False, True, *[False] * 4])


def test_nan_stays_where_it_is(device: Device) -> None:
    """In its row of y, also behind ReLU, and its column of dweight; a mask that is NaN gives 0."""
    x, weight, dy = np.ones((2, 72), np.float32), np.ones((5, 72), np.float32), np.ones((2, 5), np.float32)
    x[1, 5] = np.nan
    given, weights, gradients = map(device.array, (x, weight, dy))
    y, dx, dweight = Output(device, (2, 5)), Output(device, x.shape), Output(device, weight.shape)
    narrow.dense(given, weights, None, y.array, True)
    np.testing.assert_array_equal(np.isnan(y.result(nan=True)), [[False] * 5, [True] * 5])
    narrow.dense_input_grad(gradients, weights, dx.array, relu=given)
    np.testing.assert_array_equal(dx.result(), np.where(np.isnan(x), np.float32(0), np.float32(5)))
    narrow.dense_weight_grad(gradients, given, dweight.array)
    np.testing.assert_array_equal(np.isnan(dweight.result(nan=True)), np.isnan(x[1])[None].repeat(5, 0))


def test_when_it_is_chosen() -> None:
    """For few outputs of a batch, however little work that is; not for the tiniest layers, nor for many rows."""
    for problem in (problems.dense, problems.dense_input_grad, problems.dense_weight_grad):
        assert select.choose(problem(128, 256, 10)).name == select.choose(problem(128, 1024, 32)).name == "narrow"
        for sizes in ((128, 256, 33), (128, 63, 10), (4096, 1024, 10)):
            assert "narrow" not in select.variants(problem(*sizes))
