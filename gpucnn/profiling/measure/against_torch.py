"""The same operations in PyTorch, timed in turn. There is a ratio only if both results agree."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import MissingExtraError
from gpucnn.profiling.measure.timing import Clock, Run, alternate
from gpucnn.profiling.records import Timing
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations import OPERATIONS

CLOSE = 1e-3  # relative to the largest value: allows for rounding, and is far below the error of a wrong operation


@dataclass(frozen=True)
class Compared:
    """Times of the whole operation."""

    own: Timing
    torch: Timing

    @property
    def ratio(self) -> float:
        """This library's time divided by PyTorch's; above 1, PyTorch is faster."""
        return self.own.median / self.torch.median


def load(*, cuda: bool = False) -> Any:
    """The module torch. Raises MissingExtraError if it is missing, or if `cuda` and it sees no GPU."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        if getattr(error, "name", None) == "torch":
            raise MissingExtraError("--compare torch needs PyTorch: pip install torch, or leave --compare out") from None
        raise MissingExtraError(f"PyTorch is installed and does not import ({error}): pip install torch, or leave --compare out") from None
    if cuda and not torch.cuda.is_available():
        raise MissingExtraError("this PyTorch sees no GPU: install a build of it with CUDA, or leave --compare out")
    return torch


def compare(
    call: Call, torch: Any, clock: Clock, *, own: Run | None = None, prepared: Callable[[Run], Run] = lambda run: run
) -> Compared | None:
    """Times both, in turn; None for an operation, or a padding, that PyTorch lacks.

    `own` replaces the call itself, if given; `prepared` prepares PyTorch's function for timing. If the two disagree there is no ratio: this
    library's result has already been checked against float64.
    """
    reference = _reference(call, torch)
    if reference is None:
        return None
    with torch.no_grad():
        ours, theirs = to_numpy(_first(call.run())), _first(reference()).cpu().numpy()
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=CLOSE, atol=CLOSE * float(np.max(np.abs(theirs)))):
            return None
        return Compared(*alternate(clock, [own or call.run, prepared(reference)]))


def _reference(call: Call, torch: Any) -> Callable[[], Any] | None:
    """A function that does the same work in PyTorch on the same memory, with as many PyTorch calls as needed."""
    row = OPERATIONS.get(call.op)
    windows = [call.arguments[name] for name in ("window", "pool_window") if name in call.arguments]
    if row is None or row.twin is None or not all(map(_has_equal, windows)):
        return None
    return row.twin({name: torch.as_tensor(value) if getattr(value, "ndim", 0) else value for name, value in call.arguments.items()}, torch)


def _has_equal(window: Any) -> bool:
    """Whether PyTorch supports the window: equal padding on both sides, and no window beyond the end."""
    return all(
        begin == end and (count - 1) * stride + (taps - 1) * dilation + 1 <= side + begin + end
        for count, stride, taps, dilation, side, (begin, end) in zip(
            window.output, window.stride, window.kernel, window.dilation, window.input, window.padding, strict=True
        )
    )


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result
