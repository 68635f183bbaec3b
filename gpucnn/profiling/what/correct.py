"""No time before a right answer: every operation's result against the CPU's in float64, on a sample where that would take long.

What rounding may account for is worked out as in Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis (SIAM J. Sci.
Comput. 41, 2019): a sum of L products is off by more than 6·√L·2⁻²⁴·Σ|a||b| once in 3·10⁷ elements. Twenty of that is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.device import get_device, to_numpy
from gpucnn.errors import GpucnnError
from gpucnn.profiling.what.observe import Call

UNIT = 2.0**-24  # the relative error of one rounding in float32
MOST = 20.0  # times what rounding accounts for
SAMPLE = 1 << 27  # multiply-adds that a reference may take
PART = 1 << 16  # elements of an optimizer's parameters that are looked at


@dataclass(frozen=True)
class Expected:
    """What a call should give, worked out before it runs: it may write over its own arguments."""

    call: Call
    pick: Any  # the images, or the filters, that were looked at
    references: tuple[Any, ...]
    allowed: tuple[Any, ...]

    def error(self, result: Any) -> float:
        """The largest error in the result, as a part of what rounding accounts for. GpucnnError where it is no error of rounding."""
        if self.call.op in UPDATES:
            results: tuple[Any, ...] = (self.call.arguments["parameters"],)
        else:
            results = result if isinstance(result, tuple) else (result,)
        worst = 0.0
        for got, reference, allowed in zip(results, self.references, self.allowed, strict=False):
            if allowed is None:
                continue
            own = to_numpy(got)
            own = own if not own.ndim else own[self.pick]
            if own.dtype.kind == "i":
                off = float("inf") if (own != reference).any() else 0.0
            else:
                difference = np.abs(own.astype(np.float64) - reference)
                off = float(np.max(np.divide(difference, allowed, out=np.zeros_like(difference), where=difference != 0)))  # NaN is not 0
            worst = max(worst, off) if off == off else float("inf")
        if worst > MOST:
            raise GpucnnError(
                f"{self.call.op} of {self.call.layer} ({self.call.phase}) gives a wrong result, {worst:.3g} times as far from the CPU's in "
                "float64 as rounding accounts for: there is no point in its time; please report it with the command that you ran"
            )
        return worst


@dataclass(frozen=True)
class Rule:
    """How an operation is looked at: the arguments that are cut along an axis, the products in each sum, and whether that is all it is."""

    cut: tuple[str, ...]
    axis: int = 0
    terms: Callable[[dict[str, Any]], int] = lambda a: 1
    linear: bool = False
    prefix: bool = False  # what a result is depends on its place, so only the first may be taken


def _taps(a: dict[str, Any]) -> int:
    return int(math.prod(a["window"].kernel))


def _filter_terms(a: dict[str, Any]) -> int:
    return int(math.prod(a["weight"].shape[1:]))


def _gradient_terms(a: dict[str, Any]) -> int:
    return int(a["weight"].shape[0] // a["groups"]) * _taps(a)


def _positions(a: dict[str, Any]) -> int:
    return int(a["x"].shape[0] * math.prod(a["window"].output))


def _rest(a: dict[str, Any]) -> int:
    return int(a["dy"].size // a["dy"].shape[1])


RULES = {
    "conv2d": Rule(("x",), 0, _filter_terms, True),
    "conv2d_input_grad": Rule(("dy", "relu"), 0, _gradient_terms, True),
    "conv2d_weight_grad": Rule(("dy",), 1, _positions, True),
    "conv2d_relu_max_pool2d": Rule(("x",), 0, _filter_terms, True),
    "conv2d_relu_max_pool2d_weight_grad": Rule(("dy", "indices", "relu"), 1, _positions, True),
    "bias_grad": Rule(("dy",), 1, _rest, True),
    "dense": Rule(("x",), 0, _filter_terms, True),
    "dense_input_grad": Rule(("dy", "relu"), 0, lambda a: int(a["weight"].shape[0]), True),
    "dense_weight_grad": Rule(("dy",), 1, lambda a: int(a["x"].shape[0]), True),
    "max_pool2d": Rule(("x",)),
    "max_pool2d_grad": Rule(("dy", "indices", "relu"), 0, _taps, True),
    "avg_pool2d": Rule(("x",), 0, _taps, True),
    "avg_pool2d_grad": Rule(("dy",), 0, _taps, True),
    "relu": Rule(("x",)),
    "relu_grad": Rule(("dy", "y")),
    "sigmoid": Rule(("x",)),
    "sigmoid_grad": Rule(("dy", "y")),
    "softmax": Rule(("x",)),
    "softmax_grad": Rule(("dy", "y")),
    "dropout": Rule(("x",), prefix=True),
    "softmax_cross_entropy": Rule(()),
    "binary_cross_entropy": Rule(()),
    "mean_squared_error": Rule(()),
}
UPDATES = {"sgd_update": ("parameters", "gradients", "velocity"), "adam_update": ("parameters", "gradients", "mean", "variance")}
WRITTEN = ("out", "dbias")  # where a result is put; a reference makes its own


def expect(call: Call, flops: int) -> Expected | None:
    """What a call of so many FLOPs should give; None for an operation that there is no rule for."""
    reference = getattr(get_device("cpu").ops, call.op, None)
    if reference is None:
        return None
    if call.op in UPDATES:
        return _expect_update(call, reference)
    rule = RULES.get(call.op)
    if rule is None:
        return None
    pick = _pick(call, rule, flops)
    skip = [*WRITTEN, *(["indices"] if call.op in ("max_pool2d", "conv2d_relu_max_pool2d") else [])]
    arguments: dict[str, Any] = {}
    for name, value in call.arguments.items():
        if name in skip:
            continue
        if name in rule.cut and _is_array(value):
            value = value[pick] if rule.axis == 0 else value[:, pick]
        arguments[name] = _double(value)
    result = _results(reference(**arguments))
    terms = rule.terms(call.arguments)
    if rule.linear:
        absolute = {name: np.abs(value) if name != "relu" and _floating(value) else value for name, value in arguments.items()}
        magnitude = _results(reference(**absolute))
    else:
        magnitude = tuple(np.abs(part) for part in result)
    roundings = 6 * math.sqrt(terms) + 8 if rule.linear else 64.0  # exponentials are good to some roundings of what goes into them
    allowed: list[Any] = []
    for index, (part, size) in enumerate(zip(result, magnitude, strict=True)):
        if index and call.op == "conv2d_relu_max_pool2d":
            allowed.append(None)  # two near-equals may change places
        elif _floating(part):
            floor = 0.0 if rule.linear or not part.size else float(np.max(np.abs(part)))
            allowed.append(UNIT * roundings * np.maximum(size, floor) + 1e-37)
        else:
            allowed.append(0.0 if call.op == "max_pool2d" else None)  # right answers: near-equal logits may change places
    return Expected(call, pick, result, tuple(allowed))


def _expect_update(call: Call, reference: Callable[..., Any]) -> Expected:
    part = slice(0, PART)
    arguments = {
        name: np.array(_double(value[part] if name in UPDATES[call.op] else value)) if _is_array(value) else value
        for name, value in call.arguments.items()
    }
    reference(**arguments)
    parameters = arguments["parameters"]
    return Expected(call, part, (parameters,), (64 * UNIT * np.maximum(np.abs(parameters), np.max(np.abs(parameters))),))


def _pick(call: Call, rule: Rule, flops: int) -> Any:
    """As many images or filters as SAMPLE allows, from the first to the last."""
    a = call.arguments
    if not rule.cut or (rule.axis == 1 and a.get("groups", 1) > 1):
        return slice(None)
    count = int(a[rule.cut[0]].shape[rule.axis])
    size = max(flops // 2, int(a[rule.cut[0]].size))
    wanted = max(1, min(count, SAMPLE * count // max(size, 1)))
    if wanted == count:
        return slice(None)
    return slice(0, wanted) if rule.prefix else sorted({round(place) for place in np.linspace(0, count - 1, max(wanted, 2))})


def _double(value: Any) -> Any:
    """An array as NumPy has it, float64 where it is float32, and never the same memory."""
    if not _is_array(value):
        return value
    own = to_numpy(value)
    return own.astype(np.float64) if own.dtype.kind == "f" else np.array(own)


def _is_array(value: Any) -> bool:
    return bool(getattr(value, "ndim", 0))


def _floating(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "f"


def _results(result: Any) -> tuple[Any, ...]:
    return tuple(np.asarray(part) for part in (result if isinstance(result, tuple) else (result,)))
