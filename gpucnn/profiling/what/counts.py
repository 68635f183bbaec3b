"""FLOPs and bytes of a call, by gpucnn.profiling.what.work; and its sizes in words."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.profiling.what import work
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.work import PLAIN, Work
from gpucnn_kernels.choose import problems, select
from gpucnn_kernels.core.launch import Window

WORD = 4  # bytes of a number


def count(call: Call, *, kernels: bool) -> Work:
    """The work of a call. With `kernels`, bytes moved are those of the kernels that `select` chooses."""
    a = call.arguments
    extra = sum(int(a[name].size) for name in ("relu",) if name in a and hasattr(a[name], "size"))  # ReLU's gradient taken along
    more = Work(extra, WORD * extra, WORD * extra)
    op = call.op
    if op in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        n, c, k = _convolution(op, a)
        choice = work.counted(select.choose(getattr(problems, op)(n, c, k, a["window"], a["groups"]))) if kernels else PLAIN
        given = a.get("bias") if op == "conv2d" else a.get("dbias")
        options = {} if op == "conv2d_input_grad" else {"bias": given is not None}
        result: Work = getattr(work, op)(n, c, k, a["window"], a["groups"], choice, **options)
        return result + more
    if op == "conv2d_relu_max_pool2d":
        n, c, k = _convolution("conv2d", a)
        try:
            if a["groups"] > 1:
                raise ValueError("groups")
            return work.conv2d_relu_max_pool2d(n, c, k, a["window"], a["pool_window"], a["bias"] is not None)
        except ValueError:  # by two kernels then, but what is between need not be moved
            both = work.conv2d(n, c, k, a["window"], a["groups"], PLAIN, a["bias"] is not None) + work.max_pool2d(n, k, a["pool_window"])
            return Work(both.flops, both.least_bytes - 2 * WORD * n * k * math.prod(a["window"].output), both.moved_bytes)
    if op == "conv2d_relu_max_pool2d_weight_grad":
        n, c, k = _convolution("conv2d_weight_grad", a)
        product = work.conv2d_weight_grad(n, c, k, a["window"], a["groups"])
        least = WORD * (2 * int(a["dy"].size) + int(a["x"].size) + k * (c // a["groups"]) * math.prod(a["window"].kernel))
        return Work(product.flops + int(a["dy"].size), least, least) + more
    if op in ("max_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"):
        n, c = a["dy" if op.endswith("_grad") else "x"].shape[:2]
        pooled: Work = getattr(work, op)(n, c, a["window"])
        return pooled + more
    if op in ("dense", "dense_input_grad", "dense_weight_grad"):
        n, c, k = _matrix(op, a)
        choice = work.counted(select.choose(getattr(problems, op)(n, c, k))) if kernels else PLAIN
        options = {"bias": a["bias"] is not None} if op == "dense" else {}
        multiplied: Work = getattr(work, op)(n, c, k, choice, **options)
        return multiplied + more
    if op == "bias_grad":
        n, k, *plane = a["dy"].shape
        return work.bias_grad(n, k, math.prod(plane))
    if op in ("relu", "sigmoid", "dropout"):
        elementwise: Work = getattr(work, op)(int(a["x"].size))
        return elementwise
    if op in ("relu_grad", "sigmoid_grad"):
        gradient: Work = getattr(work, op)(int(a["dy"].size))
        return gradient
    if op in ("softmax", "softmax_grad"):
        rows: Work = getattr(work, op)(*a["x" if op == "softmax" else "dy"].shape)
        return rows
    if op == "softmax_cross_entropy":
        n, k = a["logits"].shape
        return work.softmax_cross_entropy(n, k, of_classes=a["labels"].ndim == 1)
    if op == "sgd_update":
        return work.sgd(int(a["parameters"].size), a["velocity"] is not None, bool(a.get("weight_decay")))
    if op == "adam_update":
        return work.adam(int(a["parameters"].size))
    # Anything else is taken for elementwise, without arithmetic: each array is moved once.
    arrays = {id(array): int(array.nbytes) for array in a.values() if getattr(array, "ndim", 0)}
    return Work(0, sum(arrays.values()), sum(arrays.values()))


def shape_of(call: Call) -> str:
    """The sizes of a call: "128×32×14×14 → 64, 5×5, padding 2"."""
    a = call.arguments
    window = a.get("window")
    if window is None:
        array = next((array for array in a.values() if getattr(array, "ndim", 0)), None)
        if call.op.startswith("dense"):
            n, c, k = _matrix(call.op, a)
            return f"{n}×{c} → {k}"
        return "" if array is None else _times(array.shape)
    if call.op.startswith("conv"):
        n, c, k = _convolution(call.op, a)
        text = f"{n}×{c}×{_times(window.input)} → {k}, {_times(window.kernel)}{_placed(window, 1)}"
        text += f", groups {a['groups']}" if a["groups"] > 1 else ""
        return text + (f", pooled {_times(a['pool_window'].kernel)}" if "pool_window" in a else "")
    n, c = a["dy" if call.op.endswith("_grad") else "x"].shape[:2]
    return f"{n}×{c}×{_times(window.input)}, {_times(window.kernel)}{_placed(window, window.kernel)}"


def _convolution(op: str, a: dict[str, Any]) -> tuple[int, int, int]:
    """N, C, K"""
    if op.endswith("input_grad"):
        return int(a["dy"].shape[0]), int(a["weight"].shape[1] * a["groups"]), int(a["dy"].shape[1])
    if op.endswith("weight_grad"):
        return int(a["dy"].shape[0]), int(a["x"].shape[1]), int(a["dy"].shape[1])
    return int(a["x"].shape[0]), int(a["x"].shape[1]), int(a["weight"].shape[0])


def _matrix(op: str, a: dict[str, Any]) -> tuple[int, int, int]:
    """N, C, K"""
    if op == "dense_weight_grad":
        return int(a["x"].shape[0]), int(a["x"].shape[1]), int(a["dy"].shape[1])
    k, c = a["weight"].shape
    return int(a["x" if op == "dense" else "dy"].shape[0]), int(c), int(k)


def _placed(window: Window, usual: Any) -> str:
    """Stride, padding and dilation, where they are not the usual ones."""
    text = "" if window.stride == (usual if isinstance(usual, tuple) else (usual, usual)) else f", stride {_once(window.stride)}"
    sides = {side for pair in window.padding for side in pair}
    if sides != {0}:
        text += f", padding {sides.pop() if len(sides) == 1 else 'same' if window.same else window.padding}"
    return text + ("" if window.dilation == (1, 1) else f", dilation {_once(window.dilation)}")


def _once(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


def _times(sides: Any) -> str:
    return "×".join(map(str, sides))
