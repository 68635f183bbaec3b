"""Dense layers and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Arguments, Operation, Rule, Run, filter_terms, with_relu, with_relu_grad
from gpucnn.profiling.what.operations.sample import ROUNDED, Ops, Sample, floats
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.choose import problems
from gpucnn_kernels.core.problem import Problem


def _sizes(a: Arguments) -> tuple[int, int, int]:
    """N, C, K"""
    n = (a["x"] if "x" in a else a["dy"]).shape[0]
    k, c = a["weight"].shape if "weight" in a else (a["dy"].shape[1], a["x"].shape[1])
    return int(n), int(c), int(k)


def _words(a: Arguments) -> str:
    n, c, k = _sizes(a)
    return f"{n}×{c} → {k}"


def _forward_work(a: Arguments) -> Work:
    return work.dense(*_sizes(a), bias=a["bias"] is not None)


def _input_work(a: Arguments) -> Work:
    return work.dense_input_grad(*_sizes(a))


def _weight_work(a: Arguments) -> Work:
    return work.dense_weight_grad(*_sizes(a), bias=a["dbias"] is not None)


def _forward(a: Arguments, torch: Any) -> Run:
    return with_relu(lambda: torch.nn.functional.linear(a["x"], a["weight"], a["bias"]), a["relu"])


def _input_grad(a: Arguments, torch: Any) -> Run:
    return with_relu_grad(lambda: a["dy"] @ a["weight"], a["relu"], torch)


def _weight_grad(a: Arguments, torch: Any) -> Run:
    if a["dbias"] is None:
        return lambda: a["dy"].T @ a["x"]
    return lambda: (a["dy"].T @ a["x"], a["dy"].sum(0))


def _problem(a: Arguments, make: Callable[..., Problem]) -> Problem:
    return make(*_sizes(a), a.get("bits", 24))


def dense(n: int, c: int, k: int, bits: int = 24) -> Callable[[Ops], None]:
    """A dense layer and both gradients, with factors of so many `bits`."""

    def run(ops: Ops) -> None:
        x, weight, dy = floats(n, c), floats(k, c), floats(n, k)
        ops.dense(x, weight, floats(k), relu=True, bits=bits)
        ops.dense_input_grad(dy, weight, relu=x, bits=bits)
        ops.dense_weight_grad(dy, x, dbias=floats(k), bits=bits)

    return run


OPERATIONS = {
    "dense": Operation("dense", _forward_work, Rule(("x",), terms=filter_terms), _forward, _words, lambda a: _problem(a, problems.dense)),
    "dense_input_grad": Operation(
        "dense",
        _input_work,
        Rule(("dy", "relu"), terms=lambda a: int(a["weight"].shape[0])),
        _input_grad,
        _words,
        lambda a: _problem(a, problems.dense_input_grad),
    ),
    "dense_weight_grad": Operation(
        "dense",
        _weight_work,
        Rule(("dy",), 1, lambda a: int(a["x"].shape[0])),
        _weight_grad,
        _words,
        lambda a: _problem(a, problems.dense_weight_grad),
    ),
}
SAMPLES = (
    Sample("even", dense(128, 1024, 512)),
    Sample("few", dense(128, 1024, 12)),
    Sample("odd", lambda ops: ops.dense(floats(7, 33), floats(13, 33))),
    Sample("ones", dense(37, 51, 67)),
    Sample("long", dense(256, 260, 264)),  # sums that are long enough for tensor cores in all three products
    Sample("long-ones", dense(257, 259, 261)),
    *(Sample(f"even-{kind}", dense(128, 1024, 512, bits)) for kind, bits in ROUNDED.items()),
)
