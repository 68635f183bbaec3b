"""Convolutions, alone and with ReLU and pooling, and their gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import (
    Arguments,
    Operation,
    Rule,
    Run,
    filter_terms,
    taps,
    times,
    torch_window,
    window_words,
    with_relu,
    with_relu_grad,
)
from gpucnn.profiling.what.operations.sample import ROUNDED, Ops, Sample, floats, ints
from gpucnn.profiling.what.shapes import CONV_SHAPES, DEPTHWISE_WINDOWS
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.choose import problems
from gpucnn_kernels.core.problem import Problem


def _sizes(a: Arguments) -> tuple[int, int, int]:
    """N, C, K"""
    images = a["x"] if "x" in a else a["dy"]
    channels = a["x"].shape[1] if "x" in a else a["weight"].shape[1] * a["groups"]
    filters = a["weight"].shape[0] if "weight" in a else a["dy"].shape[1]
    return int(images.shape[0]), int(channels), int(filters)


def _words(a: Arguments) -> str:
    n, c, k = _sizes(a)
    window = a["window"]
    text = f"{n}×{c}×{times(window.input)} → {k}, {times(window.kernel)}{window_words(window, (1, 1))}"
    text += f", groups {a['groups']}" if a["groups"] > 1 else ""
    return text + (f", pooled {times(a['pool_window'].kernel)}" if "pool_window" in a else "")


def _forward_work(a: Arguments) -> Work:
    return work.conv2d(*_sizes(a), a["window"], a["groups"], bias=a["bias"] is not None)


def _input_work(a: Arguments) -> Work:
    return work.conv2d_input_grad(*_sizes(a), a["window"], a["groups"])


def _weight_work(a: Arguments) -> Work:
    return work.conv2d_weight_grad(*_sizes(a), a["window"], a["groups"], bias=a["dbias"] is not None)


def _fused_work(a: Arguments) -> Work:
    return work.conv2d_relu_max_pool2d(*_sizes(a), a["window"], a["pool_window"], a["groups"], bias=a["bias"] is not None)


def _normalized_work(a: Arguments) -> Work:
    """Normalizing takes a difference, a product and a sum for each result; a residual block's shortcut is one more array and sum."""
    results, added = a["x"].shape[0] * a["weight"].shape[0] * math.prod(a["window"].output), a["added"] is not None
    return _forward_work(a) + Work((3 + added) * int(results), added * work.WORD * int(results))


def _fused_weight_work(a: Arguments) -> Work:
    bias = a["dbias"] is not None
    return work.conv2d_relu_max_pool2d_weight_grad(*_sizes(a), a["window"], a["pool_window"], a["groups"], bias=bias)


def _bias_work(a: Arguments) -> Work:
    n, k, *plane = map(int, a["dy"].shape)
    return work.bias_grad(n, k, math.prod(plane))


def _input_terms(a: Arguments) -> int:
    return int(a["weight"].shape[0] // a["groups"]) * taps(a)


def _positions(a: Arguments) -> int:
    return int(a["x"].shape[0] * math.prod(a["window"].output))


def _rest(a: Arguments) -> int:
    return int(a["dy"].size // a["dy"].shape[1])


def _forward(a: Arguments, torch: Any) -> Run:
    stride, padding, dilation, _ = torch_window(a["window"])
    convolution = torch.nn.functional.conv2d
    return with_relu(lambda: convolution(a["x"], a["weight"], a["bias"], stride, padding, dilation, a["groups"]), a.get("relu", True))


def _input_grad(a: Arguments, torch: Any) -> Run:
    shape = a["dy"].shape[0], a["weight"].shape[1] * a["groups"], *a["window"].input
    x = torch.empty(shape, device=a["dy"].device)
    run = _backward(a["dy"], x, a["weight"], a, [True, False, False], torch)
    return with_relu_grad(lambda: run()[0], a.get("relu"), torch)


def _weight_grad(a: Arguments, torch: Any) -> Run:
    run = _backward(a["dy"], a["x"], _weight_like(a, torch), a, [False, True, a.get("dbias") is not None], torch)
    return lambda: run()[1]


def _fused(a: Arguments, torch: Any) -> Run:
    convolution = _forward(a, torch)
    stride, padding, dilation, kernel = torch_window(a["pool_window"])
    pooling = torch.nn.functional.max_pool2d
    return lambda: pooling(convolution(), kernel, stride, padding, dilation, return_indices=True)


def _fused_weight_grad(a: Arguments, torch: Any) -> Run:
    from gpucnn.profiling.what.operations.pool import max_pool_grad

    weight, mask = _weight_like(a, torch), [False, True, a.get("dbias") is not None]
    unpool = max_pool_grad({**a, "window": a["pool_window"]}, torch)  # with ReLU's gradient, on the pooled values
    return lambda: _backward(unpool(), a["x"], weight, a, mask, torch)()[1]


def _backward(dy: Any, x: Any, weight: Any, a: Arguments, mask: list[bool], torch: Any) -> Run:
    stride, padding, dilation, _ = torch_window(a["window"])
    bias, backward = [weight.shape[0]], torch.ops.aten.convolution_backward
    return lambda: backward(dy, x, weight, bias, stride, padding, dilation, False, [0, 0], a["groups"], mask)


def _weight_like(a: Arguments, torch: Any) -> Any:
    shape = a["dy"].shape[1], a["x"].shape[1] // a["groups"], *a["window"].kernel
    return torch.empty(shape, device=a["dy"].device)


def _problem(a: Arguments, make: Callable[..., Problem]) -> Problem:
    return make(*_sizes(a), a["window"], a["groups"], a.get("bits", 24))


def _pooled_problem(a: Arguments, make: Callable[..., Problem]) -> Problem:
    return make(*_sizes(a), a["window"], a["pool_window"], a["groups"])


def convolutions(n: int, c: int, k: int, window: Window, groups: int = 1, *, relu: bool = True, bits: int = 24) -> Callable[[Ops], None]:
    """A convolution and both gradients, with a bias; including ReLU's gradient if `relu`, with factors of so many `bits`."""

    def run(ops: Ops) -> None:
        x, weight, dy = floats(n, c, *window.input), floats(k, c // groups, *window.kernel), floats(n, k, *window.output)
        ops.conv2d(x, weight, floats(k), window, groups, relu=relu, bits=bits)
        ops.conv2d_input_grad(dy, weight, window, groups, relu=x if relu else None, bits=bits)
        ops.conv2d_weight_grad(dy, x, window, groups, dbias=floats(k), bits=bits)

    return run


def first_layer(n: int, c: int, k: int, window: Window, *, relu: bool = True) -> Callable[[Ops], None]:
    """A convolution with ReLU and 2 × 2 pooling, and its gradient of the weight, which includes ReLU's gradient if `relu`."""

    def run(ops: Ops) -> None:
        pooling = pool_window(window.output, 2)
        x, y, places = floats(n, c, *window.input), floats(n, k, *pooling.output), ints(n, k, *pooling.output)
        ops.conv2d_relu_max_pool2d(x, floats(k, c, *window.kernel), floats(k), window, pooling)
        ops.conv2d_relu_max_pool2d_weight_grad(y, places, x, window, pooling, relu=y if relu else None, dbias=floats(k))

    return run


def normalized(ops: Ops) -> None:
    """A convolution with batch normalization for predictions."""
    each, window = floats(32), conv_window((28, 28), 3, padding=1)
    ops.conv2d_batch_norm_apply(floats(64, 32, 28, 28), floats(32, 32, 3, 3), None, window, 1, (each, each), (each, each), eps=1e-5)


def _samples() -> Iterator[Sample]:
    named = {shape.name: (shape.n, shape.c, shape.k, shape.window) for shape in CONV_SHAPES}
    yield Sample("m2", convolutions(*named["m2"]))  # whole tiles; the other shapes with many channels use the same kernels
    for name in ("m1", "k1"):
        yield Sample(name, convolutions(*named[name]))
        yield Sample(name, first_layer(*named[name]))
        yield Sample(f"{name}-no-relu", first_layer(*named[name], relu=False))  # if the next layer has included it
    odd = 8, 20, 40, conv_window((7, 7), (3, 3), padding=1)
    yield Sample("odd", convolutions(*odd))
    yield Sample("few", convolutions(8, 20, 24, odd[3]))  # filters, for which there are tiles of their own
    for (name, sizes), (kind, bits) in itertools.product((("m2", named["m2"]), ("odd", odd)), ROUNDED.items()):
        yield Sample(f"{name}-{kind}", convolutions(*sizes, bits=bits))
    for name, window in DEPTHWISE_WINDOWS.items():
        yield Sample(name, convolutions(64, 32, 32, window, 32))
    yield Sample("groups-of-4", convolutions(64, 128, 128, conv_window((56, 56), 3, 1, 1), 32))
    yield Sample("", normalized)
    yield Sample("", lambda ops: ops.bias_grad(floats(128, 1024)))


OPERATIONS = {
    "conv2d": Operation(
        "conv", _forward_work, Rule(("x",), terms=filter_terms, planes=True), _forward, _words, lambda a: _problem(a, problems.conv2d)
    ),
    "conv2d_input_grad": Operation(
        "conv",
        _input_work,
        Rule(("dy", "relu"), terms=_input_terms, planes=True),
        _input_grad,
        _words,
        lambda a: _problem(a, problems.conv2d_input_grad),
    ),
    "conv2d_weight_grad": Operation(
        "conv",
        _weight_work,
        Rule(("dy",), 1, _positions, planes=True, near=("x",)),
        _weight_grad,
        _words,
        lambda a: _problem(a, problems.conv2d_weight_grad),
    ),
    "conv2d_batch_norm_apply": Operation("conv", _normalized_work, Rule(("x", "added")), sizes=_words),
    "conv2d_relu_max_pool2d": Operation(
        "conv",
        _fused_work,
        Rule(("x",), terms=filter_terms, room=("out", "indices"), planes=True),
        _fused,
        _words,
        lambda a: _pooled_problem(a, problems.conv2d_relu_max_pool2d),
        "conv2d",
    ),
    "conv2d_relu_max_pool2d_weight_grad": Operation(
        "conv",
        _fused_weight_work,
        Rule(("dy", "indices", "relu"), 1, _positions, planes=True),
        _fused_weight_grad,
        _words,
        lambda a: _pooled_problem(a, problems.conv2d_relu_max_pool2d_weight_grad),
        "conv2d_weight_grad",
    ),
    "bias_grad": Operation("bias", _bias_work, Rule(("dy",), 1, _rest)),
}
SAMPLES = tuple(_samples())
