"""Decides what computes an operation: compiled loops (gpucnn_loops) or NumPy. Names and signatures are those of the modules beside it.

Loops compute contiguous float32 arrays, the usual case. NumPy computes float64, shapes that no loop supports, and everything if GPUCNN_CPU
is numpy or Numba cannot compile. The choice depends on a shape without its batch, so it never changes in the middle of a run, and
a plan (tables of offsets, and the algorithm) is made once for each shape.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu import activations as _activations
from gpucnn.ops.cpu import conv as _conv
from gpucnn.ops.cpu import dense as _dense
from gpucnn.ops.cpu import dropout as _dropout
from gpucnn.ops.cpu import fused as _fused
from gpucnn.ops.cpu import join as _join
from gpucnn.ops.cpu import loss as _loss
from gpucnn.ops.cpu import norm as _norm
from gpucnn.ops.cpu import pool as _pool
from gpucnn.ops.cpu import units as _units
from gpucnn.ops.cpu import update as _update
from gpucnn.ops.cpu._engine import images, loops
from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.shapes import Window

__all__ = [
    "adam_update",
    "add",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "batch_norm_apply",
    "batch_norm_grad",
    "bias_grad",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_relu_max_pool2d",
    "conv2d_relu_max_pool2d_weight_grad",
    "conv2d_weight_grad",
    "dense",
    "dense_input_grad",
    "dense_weight_grad",
    "dropout",
    "max_pool2d",
    "max_pool2d_grad",
    "relu",
    "relu_grad",
    "sgd_update",
    "softmax_cross_entropy",
    "tanh",
    "tanh_grad",
]

PLANS = 512  # kept
MOST = 1 << 26  # numbers of a framed image, which each thread holds one of


@functools.lru_cache(maxsize=PLANS)
def convolution(c: int, k: int, window: Window, groups: int) -> Any:
    """The plan of a convolution; None if NumPy computes it."""
    (top, bottom), (left, right) = window.padding
    high, wide = window.input[0] + top + bottom, window.input[1] + left + right
    if max(c, k) // groups * max(high * wide, window.output[0] * window.output[1]) * 4 > MOST:
        return None
    made = _engine.modules()
    if made is None:
        return None
    if groups == c == k and groups > 1 and made.depthwise.fits(window):
        return made.depthwise.Depthwise(k, window)
    if made.winograd.fits(c, k, window, groups):
        return made.winograd.Winograd(c, k, window)
    return made.direct.Direct(c, k, window, groups)


@functools.lru_cache(maxsize=PLANS)
def pooled(c: int, k: int, window: Window, pool_window: Window, groups: int) -> Any:
    """The plan of a convolution with ReLU and max pooling in one pass; None if they run one after the other."""
    made = _engine.modules()
    if groups != 1 or convolution(c, k, window, groups) is None or not made.pooled.halves(window, pool_window):
        return None
    return made.pooled.Pooled(c, k, window)


@functools.lru_cache(maxsize=PLANS)
def _counts(window: Window, count_include_pad: bool) -> Array:
    return _pool.window_counts(window, count_include_pad).astype(np.float32)


def _places(indices: Array | None) -> bool:
    """Whether loops can read or write the indices of maxima there."""
    return indices is None or (indices.dtype == np.int32 and indices.flags.c_contiguous and indices.flags.aligned)


def _whole(array: Array) -> bool:
    """Whether an array is contiguous: a branch's part of all channels is not."""
    return bool(array.flags.c_contiguous)


def _convolution(window: Window, groups: int, c: int, k: int, *arrays: Array | None) -> Any:
    return convolution(c, k, window, groups) if loops(*arrays) else None


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    *,
    relu: bool = False,
    out: Array | None = None,
    exact: bool = True,
) -> Array:
    n, c, k = *x.shape[:2], weight.shape[0]
    plan = _convolution(window, groups, c, k, x, weight, bias)
    if plan is None or not images(out):
        return _conv.conv2d(x, weight, bias, window, groups, relu=relu, out=out)
    y = np.empty((n, k, *window.output), np.float32) if out is None else out
    target = y if plan.parts or _whole(y) else np.empty(y.shape, np.float32)
    plan.forward(x, weight, bias, relu, target)
    if target is not y:
        y[...] = target
    return y


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    window: Window,
    groups: int = 1,
    *,
    relu: Array | None = None,
    out: Array | None = None,
    exact: bool = True,
) -> Array:
    n, k, c = *dy.shape[:2], weight.shape[1] * groups
    plan = _convolution(window, groups, c, k, weight, relu, out)
    if plan is None or not images(dy):
        return _conv.conv2d_input_grad(dy, weight, window, groups, relu=relu, out=out)
    dx = np.empty((n, c, *window.input), np.float32) if out is None else out
    plan.input_grad(dy if plan.parts else np.ascontiguousarray(dy), weight, relu, dx)
    return dx


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    window: Window,
    groups: int = 1,
    *,
    out: Array | None = None,
    dbias: Array | None = None,
    exact: bool = True,
) -> Array:
    c, k = x.shape[1], dy.shape[1]
    plan = _convolution(window, groups, c, k, x, out, dbias)
    if plan is None or not images(dy):
        return _conv.conv2d_weight_grad(dy, x, window, groups, out=out, dbias=dbias)
    dweight = np.empty((k, c // groups, *window.kernel), np.float32) if out is None else out
    plan.weight_grad(dy if plan.parts else np.ascontiguousarray(dy), x, dweight, dbias)
    return dweight


def bias_grad(dy: Array, *, out: Array | None = None) -> Array:
    return _conv.bias_grad(dy, out=out)


def conv2d_relu_max_pool2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    pool_window: Window,
    groups: int = 1,
    *,
    out: Array | None = None,
    indices: Array | None = None,
    exact: bool = True,
) -> tuple[Array, Array]:
    n, c, k = *x.shape[:2], weight.shape[0]
    if not (loops(x, weight, bias) and images(out) and _places(indices)):
        return _fused.conv2d_relu_max_pool2d(x, weight, bias, window, pool_window, groups, out=out, indices=indices)
    plan = pooled(c, k, window, pool_window, groups)
    if plan is None or not (out is None or _whole(out)):
        return max_pool2d(conv2d(x, weight, bias, window, groups, relu=True), pool_window, out=out, indices=indices)
    shape = (n, k, *pool_window.output)
    y = np.empty(shape, np.float32) if out is None else out
    places = np.empty(shape, np.int32) if indices is None else indices
    whole = convolution(c, k, window, groups)
    if hasattr(whole, "forward_pool"):
        for image in whole.forward_pool(x, weight, bias, y, places):
            one = slice(image, image + 1)
            plan.forward(x[one], weight, bias, y[one], places[one])
    else:
        plan.forward(x, weight, bias, y, places)
    return y, places


def conv2d_relu_max_pool2d_weight_grad(
    dy: Array,
    indices: Array,
    x: Array,
    window: Window,
    pool_window: Window,
    groups: int = 1,
    *,
    relu: Array | None = None,
    out: Array | None = None,
    dbias: Array | None = None,
    exact: bool = True,
) -> Array:
    c, k = x.shape[1], dy.shape[1]
    if not (loops(x, relu, out, dbias) and images(dy) and _places(indices)):
        return _fused.conv2d_relu_max_pool2d_weight_grad(dy, indices, x, window, pool_window, groups, relu=relu, out=out, dbias=dbias)
    plan = pooled(c, k, window, pool_window, groups)
    if plan is not None and plan.sums_winners and _whole(dy):
        dweight = np.empty((k, c, *window.kernel), np.float32) if out is None else out
        if plan.weight_grad(dy, relu, indices, x, dweight, dbias):
            return dweight
    return conv2d_weight_grad(max_pool2d_grad(dy, indices, pool_window, relu=relu), x, window, groups, out=out, dbias=dbias)


def dense(x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, out: Array | None = None) -> Array:
    if not loops(x, weight, bias, out):
        return _dense.dense(x, weight, bias, relu=relu, out=out)
    y = np.empty((x.shape[0], weight.shape[0]), np.float32) if out is None else out
    _engine.modules().dense.dense(x, weight, bias, relu, y)
    return y


def dense_input_grad(dy: Array, weight: Array, *, relu: Array | None = None, out: Array | None = None) -> Array:
    if not loops(dy, weight, relu, out):
        return _dense.dense_input_grad(dy, weight, relu=relu, out=out)
    dx = np.empty((dy.shape[0], weight.shape[1]), np.float32) if out is None else out
    _engine.modules().dense.dense_input_grad(dy, weight, relu, dx)
    return dx


def dense_weight_grad(dy: Array, x: Array, *, out: Array | None = None, dbias: Array | None = None) -> Array:
    if not loops(dy, x, out, dbias):
        return _dense.dense_weight_grad(dy, x, out=out, dbias=dbias)
    if dbias is not None:
        _conv.bias_grad(dy, out=dbias)
    dweight = np.empty((dy.shape[1], x.shape[1]), np.float32) if out is None else out
    _engine.modules().dense.dense_weight_grad(dy, x, dweight)
    return dweight


def max_pool2d(x: Array, window: Window, *, out: Array | None = None, indices: Array | None = None) -> tuple[Array, Array]:
    if not (loops(x) and images(out) and _places(indices)):
        return _pool.max_pool2d(x, window, out=out, indices=indices)
    shape = (*x.shape[:2], *window.output)
    y = np.empty(shape, np.float32) if out is None else out
    places = np.empty(shape, np.int32) if indices is None else indices
    _engine.modules().pool.max_pool2d(x, window, y, places)
    return y, places


def max_pool2d_grad(dy: Array, indices: Array, window: Window, *, relu: Array | None = None, out: Array | None = None) -> Array:
    if not (loops(relu, out) and images(dy) and _places(indices)):
        return _pool.max_pool2d_grad(dy, indices, window, relu=relu, out=out)
    dx = np.empty((*dy.shape[:2], *window.input), np.float32) if out is None else out
    _engine.modules().pool.max_pool2d_grad(dy, indices, window, relu, dx)
    return dx


def avg_pool2d(x: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    if not (loops(x) and images(out)):
        return _pool.avg_pool2d(x, window, count_include_pad, out=out)
    y = np.empty((*x.shape[:2], *window.output), np.float32) if out is None else out
    _engine.modules().pool.avg_pool2d(x, window, _counts(window, count_include_pad), y)
    return y


def avg_pool2d_grad(dy: Array, window: Window, count_include_pad: bool = True, *, out: Array | None = None) -> Array:
    if not (loops(out) and images(dy)):
        return _pool.avg_pool2d_grad(dy, window, count_include_pad, out=out)
    dx = np.empty((*dy.shape[:2], *window.input), np.float32) if out is None else out
    _engine.modules().pool.avg_pool2d_grad(dy, window, _counts(window, count_include_pad), dx)
    return dx


def relu(x: Array, *, out: Array | None = None) -> Array:
    if not loops(x, out):
        return _activations.relu(x, out=out)
    y = np.empty_like(x) if out is None else out
    _engine.modules().elementwise.relu(x, y)
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    if not loops(dy, y, out):
        return _activations.relu_grad(dy, y, out=out)
    dx = np.empty_like(dy) if out is None else out
    _engine.modules().elementwise.relu_grad(dy, y, dx)
    return dx


def tanh(x: Array, *, out: Array | None = None) -> Array:
    if not loops(x, out):
        return _units.tanh(x, out=out)
    y = np.empty_like(x) if out is None else out
    _engine.modules().tanh.tanh(x, y)
    return y


def tanh_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    if not loops(dy, y, out):
        return _units.tanh_grad(dy, y, out=out)
    dx = np.empty_like(dy) if out is None else out
    _engine.modules().tanh.tanh_grad(dy, y, dx)
    return dx


def add(a: Array, b: Array, *, relu: bool = False, mask: Array | None = None, out: Array | None = None) -> Array:
    if (relu and mask is not None) or a.shape != b.shape or not loops(a, b, mask, out):
        return _join.add(a, b, relu=relu, mask=mask, out=out)
    y = np.empty_like(a) if out is None else out
    _engine.modules().elementwise.add(a, b, relu, mask, y)
    return y


def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    running: tuple[Array, Array],
    *,
    momentum: float,
    eps: float,
    relu: bool = False,
    out: Array | None = None,
) -> tuple[Array, Array, Array]:
    if not (loops(x, weight, bias, *running) and images(out)):
        return _norm.batch_norm(x, weight, bias, running, momentum=momentum, eps=eps, relu=relu, out=out)
    y = np.empty_like(x) if out is None else out
    norm = _engine.modules().norm
    mean, variance = norm.moments(x)
    root = np.sqrt(variance + np.float32(eps))
    norm.normalize(x, mean, weight / root, bias, relu, y)
    _norm.move(running, mean, variance, x.size // x.shape[1], momentum)
    return y, mean, 1 / root


def batch_norm_apply(
    x: Array, weight: Array, bias: Array, running: tuple[Array, Array], *, eps: float, relu: bool = False, out: Array | None = None
) -> Array:
    if not (loops(weight, bias, *running) and images(x, out)):
        return _norm.batch_norm_apply(x, weight, bias, running, eps=eps, relu=relu, out=out)
    y = np.empty(x.shape, np.float32) if out is None else out
    mean, variance = running
    _engine.modules().norm.normalize(x, mean, weight / np.sqrt(variance + np.float32(eps)), bias, relu, y)
    return y


def batch_norm_grad(
    dy: Array,
    x: Array,
    weight: Array,
    kept: tuple[Array, Array],
    *,
    input_grad: bool = True,
    relu: bool = False,
    out: Array | None = None,
    dweight: Array | None = None,
    dbias: Array | None = None,
) -> Array | None:
    if not (loops(x, weight, *kept, out, dweight, dbias) and images(dy)):
        return _norm.batch_norm_grad(dy, x, weight, kept, input_grad=input_grad, relu=relu, out=out, dweight=dweight, dbias=dbias)
    dx = (np.empty_like(x) if out is None else out) if input_grad else None
    dw, db = (np.empty_like(weight) if array is None else array for array in (dweight, dbias))
    _engine.modules().norm.batch_norm_grad(dy, x, weight, *kept, relu, dx, dw, db)
    return dx


def dropout(x: Array, calls: Array, rate: float, seed: int, *, first: int = 0, out: Array | None = None) -> Array:
    if first % 4 or not loops(x, out):  # loops draw four words at a time
        return _dropout.dropout(x, calls, rate, seed, first=first, out=out)
    y = np.empty_like(x) if out is None else out
    call, scale = int(calls[0]) | int(calls[1]) << 32, float(np.float32(1 / (1 - rate)))
    _engine.modules().elementwise.dropout(x, call, _dropout.drop_threshold(rate), scale, seed, first // 4, y)
    return y


def softmax_cross_entropy(logits: Array, labels: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    classes = logits.shape[1]  # an invalid label would read out of bounds: NumPy reports it
    if labels.ndim != 1 or not (_places(labels) and loops(logits, out)) or labels.min() < 0 or labels.max() >= classes:
        return _loss.softmax_cross_entropy(logits, labels, out=out)
    dlogits = np.empty_like(logits) if out is None else out
    loss, correct = _engine.modules().loss.softmax_cross_entropy(logits, labels, dlogits)
    return np.asarray(loss), np.asarray(correct), dlogits


def sgd_update(
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    *,
    rates: Array,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    if not loops(parameters, gradients, velocity):
        _update.sgd_update(parameters, gradients, velocity, rates=rates, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    elif rates[3]:
        rate = float(rates[0])
        _engine.modules().update.sgd_update(parameters, gradients, velocity, rate, momentum, nesterov, weight_decay)


def adam_update(
    parameters: Array,
    gradients: Array,
    mean: Array,
    variance: Array,
    *,
    rates: Array,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    if not loops(parameters, gradients, mean, variance):
        _update.adam_update(
            parameters,
            gradients,
            mean,
            variance,
            rates=rates,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled=decoupled,
        )
        return
    rate, root, shrink, go = (float(number) for number in rates)
    if go:
        own = (shrink, 0.0) if decoupled and weight_decay else (1.0, weight_decay)
        _engine.modules().update.adam_update(parameters, gradients, mean, variance, rate, root, *own, beta1, beta2, epsilon)


for _module in (_activations, _conv, _dense, _dropout, _fused, _join, _loss, _norm, _pool, _units, _update):
    for _name in {*_module.__all__} & {*__all__}:
        globals()[_name].__doc__ = getattr(_module, _name).__doc__
