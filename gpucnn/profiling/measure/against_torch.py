"""The same operations in PyTorch: right in both, or no ratio; timed in turn."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import MissingExtraError
from gpucnn.profiling.measure.timing import Clock, Work, alternate
from gpucnn.profiling.records import Timing
from gpucnn.profiling.what.observe import Call

CLOSE = 1e-3  # of the largest value: two ways to round apart, and far below what a wrong operation is off by


@dataclass(frozen=True)
class Compared:
    """Times of the whole operation."""

    own: Timing
    torch: Timing

    @property
    def ratio(self) -> float:
        """This library's time over PyTorch's: over 1, PyTorch is faster."""
        return self.own.median / self.torch.median


def load(*, cuda: bool = False) -> Any:
    """The module torch. MissingExtraError where it is missing, or sees no GPU where `cuda`."""
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
    call: Call, torch: Any, clock: Clock, *, own: Work | None = None, prepared: Callable[[Work], Work] = lambda run: run
) -> Compared | None:
    """Both, in turn; None for an operation, or a padding, that PyTorch has no equal of.

    `own` does the call, where that is not to be done by calling it; `prepared` makes PyTorch's ready to be timed. Where the two disagree
    there is no ratio: which of them is right has been found out before, against float64.
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
    """The operation in PyTorch on the same memory, ready to be called: as many calls of PyTorch as it takes to do as much."""
    a = {name: torch.as_tensor(value) if getattr(value, "ndim", 0) else value for name, value in call.arguments.items()}
    window = a.get("window")
    if call.op.startswith("dense"):
        return _dense(call.op, a, torch)
    if window is None or not _has_equal(window) or ("pool_window" in a and not _has_equal(a["pool_window"])):
        return None
    make = {
        "conv2d": _forward,
        "conv2d_input_grad": _input_grad,
        "conv2d_weight_grad": _weight_grad,
        "conv2d_relu_max_pool2d": _fused,
        "conv2d_relu_max_pool2d_weight_grad": _fused_grad,
        "max_pool2d": _pool,
        "max_pool2d_grad": _pool_grad,
    }.get(call.op)
    return None if make is None else make(a, torch)


def _dense(op: str, a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    if op == "dense":
        return _with_relu(lambda: torch.nn.functional.linear(a["x"], a["weight"], a["bias"]), a["relu"])
    if op == "dense_input_grad":
        return _with_relu_grad(lambda: a["dy"] @ a["weight"], a.get("relu"), torch)
    if a.get("dbias") is None:
        return lambda: a["dy"].T @ a["x"]
    return lambda: (a["dy"].T @ a["x"], a["dy"].sum(0))


def _forward(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    stride, padding, dilation, _ = _geometry(a["window"])
    convolution = torch.nn.functional.conv2d
    return _with_relu(lambda: convolution(a["x"], a["weight"], a["bias"], stride, padding, dilation, a["groups"]), a.get("relu", True))


def _input_grad(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    shape = a["dy"].shape[0], a["weight"].shape[1] * a["groups"], *a["window"].input
    x = torch.empty(shape, device=a["dy"].device)
    run = _backward(a["dy"], x, a["weight"], a, [True, False, False], torch)
    return _with_relu_grad(lambda: run()[0], a.get("relu"), torch)


def _weight_grad(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    run = _backward(a["dy"], a["x"], _weight_like(a, torch), a, [False, True, a.get("dbias") is not None], torch)
    return lambda: run()[1]


def _fused(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    convolution, pool = _forward(a, torch), a["pool_window"]
    stride, padding, dilation, kernel = _geometry(pool)
    pooling = torch.nn.functional.max_pool2d
    return lambda: pooling(convolution(), kernel, stride, padding, dilation, return_indices=True)


def _fused_grad(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    pool, weight, mask = a["pool_window"], _weight_like(a, torch), [False, True, a.get("dbias") is not None]
    unpool = _pool_grad({**a, "window": pool, "relu": None}, torch)
    masked = _with_relu_grad(lambda: a["dy"], a.get("relu"), torch)  # on the pooled values, as this library does it

    def run() -> Any:
        a["dy"] = masked()
        return _backward(unpool(), a["x"], weight, a, mask, torch)()[1]

    return run


def _backward(dy: Any, x: Any, weight: Any, a: dict[str, Any], mask: list[bool], torch: Any) -> Callable[[], Any]:
    stride, padding, dilation, _ = _geometry(a["window"])
    bias, backward = [weight.shape[0]], torch.ops.aten.convolution_backward
    return lambda: backward(dy, x, weight, bias, stride, padding, dilation, False, [0, 0], a["groups"], mask)


def _weight_like(a: dict[str, Any], torch: Any) -> Any:
    shape = a["dy"].shape[1], a["x"].shape[1] // a["groups"], *a["window"].kernel
    return torch.empty(shape, device=a["dy"].device)


def _pool(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    stride, padding, dilation, kernel = _geometry(a["window"])
    pooling = torch.nn.functional.max_pool2d
    return lambda: pooling(a["x"], kernel, stride, padding, dilation, return_indices=True)


def _pool_grad(a: dict[str, Any], torch: Any) -> Callable[[], Any]:
    stride, padding, dilation, kernel = _geometry(a["window"])
    x = torch.empty((*a["dy"].shape[:2], *a["window"].input), device=a["dy"].device)
    indices, backward = a["indices"].long(), torch.ops.aten.max_pool2d_with_indices_backward
    masked = _with_relu_grad(lambda: a["dy"], a.get("relu"), torch)
    return lambda: backward(masked(), x, kernel, stride, padding, dilation, False, indices)


def _geometry(window: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, padding, dilation and kernel, as PyTorch wants them."""
    return list(window.stride), [begin for begin, _ in window.padding], list(window.dilation), list(window.kernel)


def _has_equal(window: Any) -> bool:
    """Whether PyTorch has the same window: the same padding on both sides, and no window that runs over the end."""
    return all(
        begin == end and (count - 1) * stride + (taps - 1) * dilation + 1 <= side + begin + end
        for count, stride, taps, dilation, side, (begin, end) in zip(
            window.output, window.stride, window.kernel, window.dilation, window.input, window.padding, strict=True
        )
    )


def _with_relu(run: Callable[[], Any], relu: bool) -> Callable[[], Any]:
    return (lambda: run().relu_()) if relu else run


def _with_relu_grad(run: Callable[[], Any], relu: Any, torch: Any) -> Callable[[], Any]:
    backward = torch.ops.aten.threshold_backward
    return run if relu is None else lambda: backward(run(), relu, 0)


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result
