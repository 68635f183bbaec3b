"""A program: every loop on arrays that begin or end at the edge of memory that nobody may touch.

A read or a write past an array's end ends the process. Everything that NumPy allocates here lies so: inputs, outputs, tables, packed
weights; and each piece of a thread's scratch, which has the 16 numbers behind it that `Scratch` promises. What is not written yet is NaN.

    python edges.py begin|end
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections import deque
from typing import Any

import numpy as np
from loop_cases import DEPTHWISE, DIRECT, FIRST, PIXELS, POINTWISE, WHOLE, WINOGRAD, arrays

from gpucnn.ops import cpu
from gpucnn.ops.cpu import _engine, roads, units
from gpucnn.ops.shapes import pool_window
from gpucnn_loops import pointwise, threads
from gpucnn_loops.after import Norm
from gpucnn_loops.direct import Direct
from gpucnn_loops.loops import Loop

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
at_end = True
kept: deque[Any] = deque(maxlen=100)  # the real one outlives who asks for it


def guarded(shape: Any, dtype: Any = float, behind: int = 0) -> Any:
    """An array at the edge of a page that may not be touched, with room for `behind` numbers more."""
    sizes, dtype = (shape if isinstance(shape, tuple | list) else (shape,)), np.dtype(dtype)
    count = math.prod(int(size) for size in sizes)
    size = (count + behind) * dtype.itemsize
    pages = max(1, -(-size // PAGE)) * PAGE
    memory = mmap.mmap(-1, pages + 2 * PAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for edge in (first, first + PAGE + pages):
        assert libc.mprotect(ctypes.c_void_p(edge), PAGE, mmap.PROT_READ * 0) == 0
    offset = PAGE + (pages - size if at_end else 0)
    array = np.frombuffer(memory, dtype, count, offset).reshape([int(size) for size in sizes])
    if dtype.kind == "f":
        array[...] = np.nan
    return array


def copied(array: Any) -> Any:
    own = guarded(array.shape, array.dtype)
    own[...] = array
    return own


def guarded_zeros(shape: Any, dtype: Any = float) -> Any:
    array = guarded(shape, dtype)
    array[...] = 0
    return array


def guarded_scratch(self: Any, *sizes: int, shared: bool = False) -> None:
    self.parts = [guarded(size, np.float32, behind=-size % 16 + 16) for size in sizes]
    self._addresses = [part.ctypes.data for part in self.parts]
    kept.append(self.parts)


def all_passes(plan: Any, a: dict[str, Any]) -> None:
    y, dx, dweight, dbias = (guarded(a[name].shape, np.float32) for name in ("dy", "x", "weight", "bias"))
    plan.forward(a["x"], a["weight"], a["bias"], True, y)
    plan.input_grad(a["dy"], a["weight"], a["x"], dx)
    plan.weight_grad(a["dy"], a["x"], dweight, dbias)
    assert all(np.isfinite(array).all() for array in (y, dx, dweight, dbias))
    numbers = copied(np.ones(len(a["bias"]), np.float32))
    plan.forward(a["x"], a["weight"], None, True, y, Norm(numbers, numbers, numbers, numbers, 1e-3), a["dy"])
    assert np.isfinite(y).all()


def main(where: str) -> None:
    global at_end
    at_end = where == "end"
    for module in vars(_engine.modules()).values():  # before NumPy is another one: the compiler works with it, too
        for loop in vars(module).values():
            if isinstance(loop, Loop):
                loop.prepare()
    np.zeros, np.empty = guarded_zeros, guarded  # type: ignore[assignment]
    np.ascontiguousarray = lambda array, dtype=None: copied(np.asarray(array, dtype))  # type: ignore[assignment]
    threads.Scratch.__init__ = guarded_scratch  # type: ignore[method-assign]
    pointwise.LARGE = pointwise.MANY = 1
    rng = np.random.default_rng(0)
    for case in [*DIRECT, *DEPTHWISE, *PIXELS, *POINTWISE, *WHOLE, *WINOGRAD, *FIRST]:
        a = {name: copied(value) if isinstance(value, np.ndarray) else value for name, value in arrays(case, rng).items()}
        c, k = a["x"].shape[1], len(a["bias"])
        all_passes(roads.convolution(c, k, a["window"], a["groups"]), a)
        all_passes(Direct(c, k, a["window"], a["groups"]), a)
        p, q = a["window"].output
        if min(p, q) > 1 and a["groups"] == 1:
            window = pool_window((p, q), 2)
            overlapping = pool_window((p, q), 2, 1, 1)
            cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], overlapping)
            cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window, places=False)
            y, indices = cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window)
            assert np.isfinite(y).all()
            cpu.conv2d_relu_max_pool2d_weight_grad(copied(y), indices, a["x"], a["window"], window, relu=y, dbias=guarded(k, np.float32))
        cpu.global_avg_pool2d(a["dy"])
        for pooling in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (1, 3, 0), (4, 3, 2), (min(p, q), 3, 0)):
            if min(p, q) >= pooling[0]:
                window = pool_window((p, q), *pooling)
                y, indices = cpu.max_pool2d(a["dy"], window)
                cpu.max_pool2d(a["dy"], window, places=False)
                cpu.max_pool2d_grad(y, indices, window, relu=y)
                cpu.avg_pool2d_grad(cpu.avg_pool2d(a["dy"], window), window)
    for n, c, k in (
        (1, 1, 1),
        (2, 17, 3),
        (1, 700, 37),
        (3, 9, 521),
        (7, 31, 37),
        (4, 32, 48),
        (61, 130, 11),
        (64, 128, 64),
        (130, 257, 20),
        (260, 75, 131),
        (140, 200, 300),
        (33, 2100, 130),
    ):
        x, weight, bias = (copied(rng.standard_normal(shape, dtype=np.float32)) for shape in ((n, c), (k, c), (k,)))
        y = cpu.dense(x, weight, bias)
        assert np.isfinite(y).all() and np.isfinite(cpu.dense_input_grad(y, weight, relu=x)).all()
        assert np.isfinite(cpu.dense_weight_grad(y, x)).all()
        cpu.softmax_cross_entropy(y, guarded_zeros(n, np.int32))
        parameters, gradients, mean, variance = (copied(np.abs(x).reshape(-1)) for _ in range(4))
        cpu.adam_update(parameters, gradients, mean, variance, rates=np.ones(4, np.float32))
        cpu.sgd_update(parameters, gradients, mean, rates=np.ones(4, np.float32), momentum=0.9)
        cpu.sgd_update(parameters, gradients, None, rates=np.ones(4, np.float32))
        cpu.relu_grad(cpu.relu(x), x)
        cpu.tanh_grad(x, cpu.tanh(x))
        cpu.sigmoid_grad(x, cpu.sigmoid(x))
        for name in units.__all__:
            getattr(cpu, name)(x, x) if name.endswith("_grad") else getattr(cpu, name)(x)
        cpu.gelu_grad(x, cpu.gelu(x, True), True)
        cpu.softmax_grad(x, cpu.softmax(x))
        cpu.add(x, x, mask=x)
        for rows in (x.reshape(n, c, 1), x.reshape(n, 1, c)):
            ones = guarded_zeros(rows.shape[1], np.float32) + np.float32(1)
            kept = (
                cpu.batch_norm(rows, copied(ones), copied(ones), (copied(ones), copied(ones)), momentum=0.1, eps=0.1)[1:]
                if n > 1
                else (ones, ones)
            )
            cpu.batch_norm_grad(rows, rows, copied(ones), (copied(kept[0]), copied(kept[1])))
        cpu.dropout(x, np.array([1, 0], np.uint32), 0.5, 1)
    print("no edge was crossed")


if __name__ == "__main__":
    main(sys.argv[1])
