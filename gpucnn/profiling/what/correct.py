"""Checks results before anything is timed: every operation against the CPU's in float64, on a sample if all of it would take long.

The error that rounding explains is computed as in Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis (SIAM J. Sci.
Comput. 41, 2019): a sum of L products is off by more than 6·√L·2⁻²⁴·Σ|a||b| once in 3·10⁷ elements. Twenty times that is a fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.device import get_device, to_numpy
from gpucnn.errors import GpucnnError
from gpucnn.profiling.what.launches import variant_name
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import OPERATIONS, work_of
from gpucnn.profiling.what.operations.row import Rule
from gpucnn_kernels.core.problem import FLOAT32

UNIT = 2.0**-24  # the relative error of one rounding in float32
MOST = 20.0  # times the error that rounding explains
SAMPLE = 1 << 27  # the most multiply-adds of a reference


@dataclass(frozen=True)
class Expected:
    """The right result of a call, computed before it runs, because it may overwrite its own arguments."""

    call: Call
    rule: Rule
    part: Any  # the images, or the filters, that were checked
    references: tuple[Any, ...]
    allowed: tuple[Any, ...]

    def error(self, result: Any) -> float:
        """The largest error in the result, as a multiple of what rounding explains. Raises GpucnnError if rounding does not explain it."""
        results = _results(self.rule, self.call.arguments, result)
        worst = 0.0
        for got, reference, allowed in zip(results, self.references, self.allowed, strict=True):
            if allowed is None:
                continue
            own = to_numpy(got)
            own = own if not own.ndim else own[self.part]
            if own.dtype.kind in "iu":
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


def expect(call: Call) -> Expected | None:
    """The right result of a call; None for an operation without a rule."""
    reference, row = getattr(get_device("cpu").ops, call.op, None), OPERATIONS.get(call.op)
    if reference is None or row is None:
        return None
    rule = row.rule
    part = _part(call, rule)
    arguments: dict[str, Any] = {}
    for name, value in call.arguments.items():
        if name in rule.room:
            continue
        if name in rule.cut and _is_array(value):
            value = value[part] if rule.axis == 0 else value[:, part]
        arguments[name] = _double(value)
    references = _arrays(_results(rule, arguments, reference(**arguments)))
    if rule.terms is None:
        sizes = tuple(np.abs(each) for each in references)
        roundings = 64.0  # exponentials are accurate to a few roundings of their arguments
    else:
        absolute = {name: np.abs(value) if name != "relu" and _floating(value) else value for name, value in arguments.items()}
        tiles = by_tiles(call)
        if tiles:
            absolute |= {name: _largest_near(absolute[name]) for name in rule.near}
            if _is_array(absolute.get("relu")):  # what it makes 0 has been in the sums of the others of its tile
                absolute["relu"] = None
        sizes = _arrays(_results(rule, absolute, reference(**absolute)))
        if tiles:
            sizes = tuple(np.broadcast_to(each.max((2, 3), keepdims=True), each.shape) if each.ndim == 4 else each for each in sizes)
        roundings = 6 * math.sqrt(rule.terms(call.arguments)) + 8
    rounded = _of_factors(call.arguments.get("bits", FLOAT32))
    allowed: list[Any] = []
    for each, size in zip(references, sizes, strict=True):
        if _floating(each):
            floor = float(np.max(np.abs(each))) if rule.terms is None and each.size else 0.0
            allowed.append((UNIT * roundings + rounded) * np.maximum(size, floor) + 1e-37)
        else:
            allowed.append(0.0 if rule.exact else None)
    return Expected(call, rule, part, references, tuple(allowed))


def _of_factors(bits: int) -> float:
    """The largest relative error of a product whose factors are rounded to so many bits, each by half of the last; with no margin."""
    return 0.0 if bits == FLOAT32 else ((1 + 2.0**-bits) ** 2 - 1) / MOST


def by_tiles(call: Call) -> bool:
    """Whether it may be done by Winograd's algorithm, whose errors come from whole tiles: other outputs' sums, and pixels beside a tap's.
    On the CPU any convolution may; on a GPU those may for which that variant is selected."""
    rule = OPERATIONS[call.op].rule
    if not rule.planes:
        return False
    return isinstance(call.arguments[rule.cut[0]], np.ndarray) or variant_name(call).endswith("-winograd")


def _largest_near(x: Any) -> Any:
    """Replaces each pixel of x (N, C, H, W) by the largest one within a tile's reach, five pixels on each side."""
    for axis in (2, 3):
        padded = np.pad(x, [(0, 0) if other != axis else (5, 5) for other in range(4)])
        x = np.lib.stride_tricks.sliding_window_view(padded, 11, axis).max(-1)
    return x


def _part(call: Call, rule: Rule) -> Any:
    """A selection of as many images or filters as SAMPLE allows, spread from the first to the last."""
    a = call.arguments
    if not rule.cut or (rule.axis == 1 and a.get("groups", 1) > 1):
        return slice(None)
    count = int(a[rule.cut[0]].shape[rule.axis])
    size = max(work_of(call).flops // 2, int(a[rule.cut[0]].size))
    wanted = max(1, min(count, SAMPLE * count // max(size, 1), rule.most or count))
    if wanted == count:
        return slice(None)
    return slice(0, wanted) if rule.first else sorted({round(index) for index in np.linspace(0, count - 1, max(wanted, 2))})


def _results(rule: Rule, arguments: dict[str, Any], returned: Any) -> tuple[Any, ...]:
    """The results of an operation: what it returns, or the arguments that it changes."""
    if rule.written:
        return tuple(arguments[name] for name in rule.written)
    return returned if isinstance(returned, tuple) else (returned,)


def _arrays(results: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(np.asarray(each) for each in results)


def _double(value: Any) -> Any:
    """A copy of an array for NumPy, with float64 in place of float32."""
    if isinstance(value, tuple):  # arrays that go together, such as a mean and a variance
        return tuple(map(_double, value))
    if not hasattr(value, "dtype"):
        return value
    own = to_numpy(value)
    return own.astype(np.float64) if own.dtype.kind == "f" else np.array(own)


def _is_array(value: Any) -> bool:
    return bool(getattr(value, "ndim", 0))


def _floating(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "f"
