"""Pooling and its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpucnn.ops.shapes import Window, pool_window
from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import (
    Arguments,
    Operation,
    Rule,
    Run,
    taps,
    times,
    torch_window,
    window_words,
    with_relu_grad,
)
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats, ints
from gpucnn.profiling.what.shapes import POOL_SHAPES
from gpucnn.profiling.what.work import Work


def _sizes(a: Arguments) -> tuple[int, int]:
    """N, C"""
    n, c = (a["x"] if "x" in a else a["dy"]).shape[:2]
    return int(n), int(c)


def _words(a: Arguments) -> str:
    n, c = _sizes(a)
    window = a["window"]
    return f"{n}×{c}×{times(window.input)}, {times(window.kernel)}{window_words(window, window.kernel)}"


def _work(function: Callable[..., Work]) -> Callable[[Arguments], Work]:
    return lambda a: function(*_sizes(a), a["window"])


def _max_pool(a: Arguments, torch: Any) -> Run:
    stride, padding, dilation, kernel = torch_window(a["window"])
    pooling = torch.nn.functional.max_pool2d
    return lambda: pooling(a["x"], kernel, stride, padding, dilation, return_indices=True)


def max_pool_grad(a: Arguments, torch: Any) -> Run:
    """PyTorch's gradient of max pooling."""
    stride, padding, dilation, kernel = torch_window(a["window"])
    x = torch.empty((*a["dy"].shape[:2], *a["window"].input), device=a["dy"].device)
    indices, backward = a["indices"].long(), torch.ops.aten.max_pool2d_with_indices_backward
    masked = with_relu_grad(lambda: a["dy"], a.get("relu"), torch)
    return lambda: backward(masked(), x, kernel, stride, padding, dilation, False, indices)


def _plane(a: Arguments) -> int:
    """Pixels of a plane."""
    height, width = a["x"].shape[2:] if "x" in a else a["size"]
    return int(height * width)


def _whole(operations: int, arrays: int, results: int) -> Callable[[Arguments], Work]:
    """The work of `operations` on each pixel, with `arrays` of pixels and `results` of a number per plane read or written."""

    def count(a: Arguments) -> Work:
        planes = math.prod((a["x"] if "x" in a else a["dy"]).shape[:2])
        return work.elementwise(planes * _plane(a), operations, arrays) + work.elementwise(planes, 0, results)

    return count


def poolings(n: int, c: int, window: Window) -> Callable[[Ops], None]:
    """Max pooling and its gradient, without ReLU's and with it; average pooling and its gradient."""

    def run(ops: Ops) -> None:
        x, y = floats(n, c, *window.input), floats(n, c, *window.output)
        ops.max_pool2d(x, window)
        for relu in (None, y):
            ops.max_pool2d_grad(y, ints(*y.shape), window, relu=relu)
        ops.avg_pool2d(x, window)
        ops.avg_pool2d_grad(y, window)

    return run


def max_pooling(n: int, c: int, window: Window) -> Callable[[Ops], None]:
    """Max pooling and its gradient."""

    def run(ops: Ops) -> None:
        _, places = ops.max_pool2d(floats(n, c, *window.input), window)
        ops.max_pool2d_grad(floats(n, c, *window.output), places, window)

    return run


def dilated(ops: Ops) -> None:
    """Pooling that the strip kernels do not support."""
    window = pool_window((32, 32), 3, 2, 1, dilation=2)
    max_pooling(64, 64, window)(ops)
    ops.avg_pool2d(floats(64, 64, *window.input), window)
    ops.avg_pool2d_grad(floats(64, 64, *window.output), window)


def whole_planes(ops: Ops) -> None:
    """Pooling of whole planes and padding; and pooling of windows, of branches that write to one array."""
    x, window = floats(64, 32, 28, 28), pool_window((28, 28), 3, 1, 1)
    part = floats(64, 96, 28, 28)[:, 32:64]
    _, places = ops.max_pool2d(x, window, out=part)
    ops.max_pool2d_grad(part, places, window)
    ops.avg_pool2d(x, window, out=part)
    ops.avg_pool2d_grad(part, window)
    means, (_, places) = ops.global_avg_pool2d(x), ops.global_max_pool2d(x)
    ops.global_avg_pool2d_grad(means, (28, 28))
    ops.global_max_pool2d_grad(means, places, (28, 28))
    ops.zero_pad2d_grad(ops.zero_pad2d(x, ((1, 2), (0, 3))), ((1, 2), (0, 3)))


OPERATIONS = {
    "max_pool2d": Operation("pool", _work(work.max_pool2d), Rule(("x",), room=("out", "indices"), exact=True), _max_pool, _words),
    "max_pool2d_grad": Operation("pool", _work(work.max_pool2d_grad), Rule(("dy", "indices", "relu"), terms=taps), max_pool_grad, _words),
    "avg_pool2d": Operation("pool", _work(work.avg_pool2d), Rule(("x",), terms=taps), sizes=_words),
    "avg_pool2d_grad": Operation("pool", _work(work.avg_pool2d_grad), Rule(("dy",), terms=taps), sizes=_words),
    "global_avg_pool2d": Operation("pool", _whole(1, 1, 1), Rule(("x",), terms=_plane)),
    "global_avg_pool2d_grad": Operation("pool", _whole(0, 1, 1), Rule(("dy",))),
    "global_max_pool2d": Operation("pool", _whole(1, 1, 2), Rule(("x",), room=("out", "indices"), exact=True)),
    "global_max_pool2d_grad": Operation("pool", _whole(0, 1, 2), Rule(("dy", "indices"))),
    "zero_pad2d": Operation("pad", lambda a: work.elementwise(int(a["x"].size), 0, 2), Rule(("x",))),
    "zero_pad2d_grad": Operation("pad", lambda a: work.elementwise(int(a["dy"].size), 0, 2), Rule(("dy",))),
}
SAMPLES = (
    *(Sample(pool.name, poolings(pool.n, pool.c, pool.window)) for pool in POOL_SHAPES),
    Sample("odd", poolings(64, 64, pool_window((31, 31), 2))),
    Sample("dilated", dilated),
    Sample("", whole_planes),
)
