"""Convolution without weight sharing: a separate product for each position."""

from __future__ import annotations

import math
from collections.abc import Callable

from gpucnn.ops.shapes import conv_window
from gpucnn.profiling.what.operations.row import Arguments, Operation, Rule, times, window_words
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats
from gpucnn.profiling.what.work import WORD, Work
from gpucnn_kernels.choose import problems
from gpucnn_kernels.core.problem import Problem


def _sizes(a: Arguments) -> tuple[int, int, int]:
    """N, C, K"""
    images = a["x"] if "x" in a else a["dy"]
    channels = a["x"].shape[1] if "x" in a else a["weight"].shape[1]
    filters = a["weight"].shape[0] if "weight" in a else a["dy"].shape[1]
    return int(images.shape[0]), int(channels), int(filters)


def _work(a: Arguments) -> Work:
    """The weight is used once for each image, and accounts for most of the bytes."""
    n, c, k = _sizes(a)
    window = a["window"]
    weights = k * c * math.prod(window.kernel) * math.prod(window.output)
    return Work(2 * n * weights, WORD * (weights + n * c * math.prod(window.input) + n * k * math.prod(window.output)))


def _words(a: Arguments) -> str:
    n, c, k = _sizes(a)
    window = a["window"]
    return f"{n}×{c}×{times(window.input)} → {k}, {times(window.kernel)} unshared{window_words(window, (1, 1))}"


def _filter_terms(a: Arguments) -> int:
    return int(math.prod(a["weight"].shape[1:4]))


def _channel_terms(a: Arguments) -> int:
    return int(a["weight"].shape[0] * math.prod(a["weight"].shape[2:4]))


def _problem(of: Callable[..., Problem]) -> Callable[[Arguments], Problem]:
    return lambda a: of(*_sizes(a), a["window"])


def unshared(ops: Ops) -> None:
    """A convolution without weight sharing, and both gradients."""
    window = conv_window((32, 32), (8, 8), 2, 1)
    x, weight, dy = floats(64, 3, 32, 32), floats(20, 3, 8, 8, *window.output), floats(64, 20, *window.output)
    ops.locally_connected2d(x, weight, floats(20, *window.output), window, relu=True)
    ops.locally_connected2d_input_grad(dy, weight, window, relu=x)
    ops.locally_connected2d_weight_grad(dy, x, window, dbias=floats(20, *window.output))


_RULES: dict[str, tuple[Rule, Callable[..., Problem]]] = {
    "locally_connected2d": (Rule(("x",), terms=_filter_terms), problems.locally_connected2d),
    "locally_connected2d_input_grad": (Rule(("dy", "relu"), terms=_channel_terms), problems.locally_connected2d_input_grad),
    "locally_connected2d_weight_grad": (Rule(("dy",), 1, lambda a: int(a["dy"].shape[0])), problems.locally_connected2d_weight_grad),
}
OPERATIONS = {name: Operation("conv", _work, rule, sizes=_words, problem=_problem(of)) for name, (rule, of) in _RULES.items()}
SAMPLES = (Sample("", unshared),)
