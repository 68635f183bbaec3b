"""Problems: operations with their sizes, computed once for each shape."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import TypeAlias

from gpucnn_kernels.core.launch import Window
from gpucnn_kernels.core.problem import FLOAT32, Problem

Maker: TypeAlias = Callable[..., Problem]
_MAKERS: dict[str, tuple[Maker, tuple[str, ...]]] = {}
"""By operation: the function that makes its problems, and the names of that function's arguments after n, which are fields of Problem."""


def _problem(make: Maker) -> Maker:
    """Makes each problem of the operation `make` once, and registers the operation for `of_batch`."""
    kept = functools.lru_cache(maxsize=1024)(make)
    first, *names = inspect.signature(make).parameters
    assert first == "n" and set(names) <= {field.name for field in fields(Problem)}
    _MAKERS[make.__name__] = kept, tuple(names)
    return kept


@_problem
def conv2d(n: int, c: int, k: int, window: Window, groups: int = 1, bits: int = FLOAT32) -> Problem:
    """The forward convolution of n images of c channels by k filters."""
    group_c, M = c // groups, n * window.output[0] * window.output[1]
    shape, depth = _conv_shape(n, c, k, window, groups), group_c * window.kernel[0] * window.kernel[1]
    return Problem("conv2d", shape, n, c, k, M, k // groups, depth, window, groups=groups, channels=group_c, bits=bits)


@_problem
def conv2d_input_grad(n: int, c: int, k: int, window: Window, groups: int = 1, bits: int = FLOAT32) -> Problem:
    """The gradient with respect to its input: the largest of the classes of pixels (conv/tiled.py)."""
    M, depth = n, k // groups
    for axis in (0, 1):
        M *= -(-window.input[axis] // window.stride[axis])
        depth *= -(-window.kernel[axis] // window.stride[axis])
    shape = _conv_shape(n, c, k, window, groups)
    sizes = M, c // groups, depth
    return Problem("conv2d_input_grad", shape, n, c, k, *sizes, window, groups=groups, channels=k // groups, bits=bits)


@_problem
def conv2d_weight_grad(n: int, c: int, k: int, window: Window, groups: int = 1, bits: int = FLOAT32) -> Problem:
    """The gradient with respect to its weight."""
    N, depth = c // groups * window.kernel[0] * window.kernel[1], n * window.output[0] * window.output[1]
    shape = _conv_shape(n, c, k, window, groups)
    return Problem("conv2d_weight_grad", shape, n, c, k, k // groups, N, depth, window, groups=groups, cuts=True, bits=bits)


@_problem
def conv2d_relu_max_pool2d(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1) -> Problem:
    """A convolution with ReLU and the max pooling after it."""
    return _pooled(conv2d(n, c, k, window, groups), pool_window)


@_problem
def conv2d_relu_max_pool2d_weight_grad(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1) -> Problem:
    """The gradient with respect to its weight from that of the pooled values, where no gradient of the input is wanted."""
    return _pooled(conv2d_weight_grad(n, c, k, window, groups), pool_window)


@_problem
def locally_connected2d(n: int, c: int, k: int, window: Window) -> Problem:
    """A convolution without sharing: a product for each position."""
    depth = c * window.kernel[0] * window.kernel[1]
    return _unshared("locally_connected2d", n, c, k, window, (n, k, depth), window.output)


@_problem
def locally_connected2d_input_grad(n: int, c: int, k: int, window: Window) -> Problem:
    """The gradient with respect to its input: a product for each pixel of the largest class."""
    (H, W), (R, S), (down, across) = window.input, window.kernel, window.stride
    depth = k * -(-R // down) * -(-S // across)
    return _unshared("locally_connected2d_input_grad", n, c, k, window, (n, c, depth), (-(-H // down), -(-W // across)))


@_problem
def locally_connected2d_weight_grad(n: int, c: int, k: int, window: Window) -> Problem:
    """The gradient with respect to its weight."""
    N = c * window.kernel[0] * window.kernel[1]
    return _unshared("locally_connected2d_weight_grad", n, c, k, window, (k, N, n), window.output)


def of_batch(problem: Problem, n: int) -> Problem:
    """The same operation on n images or rows."""
    make, names = _MAKERS[problem.operation]
    return make(n, *(getattr(problem, name) for name in names))


def _unshared(operation: str, n: int, c: int, k: int, window: Window, sizes: tuple[int, int, int], places: tuple[int, int]) -> Problem:
    M, N, depth = sizes
    return Problem(operation, _conv_shape(n, c, k, window, 1), n, c, k, M, N, depth, window, groups=places[0] * places[1])


@_problem
def dense(n: int, c: int, k: int, bits: int = FLOAT32) -> Problem:
    """A dense layer, forward: n rows of c numbers made into k."""
    return _product("dense", n, c, k, (n, k, c), bits)


@_problem
def dense_input_grad(n: int, c: int, k: int, bits: int = FLOAT32) -> Problem:
    """The gradient with respect to its input."""
    return _product("dense_input_grad", n, c, k, (n, c, k), bits)


@_problem
def dense_weight_grad(n: int, c: int, k: int, bits: int = FLOAT32) -> Problem:
    """The gradient with respect to its weight."""
    return _product("dense_weight_grad", n, c, k, (k, c, n), bits)


def _product(operation: str, n: int, c: int, k: int, sizes: tuple[int, int, int], bits: int) -> Problem:
    M, N, depth = sizes
    return Problem(operation, f"{M}x{N}x{depth}", n, c, k, M, N, depth, cuts=True, bits=bits)


def _pooled(alone: Problem, pool_window: Window) -> Problem:
    operation = alone.operation.replace("conv2d", "conv2d_relu_max_pool2d")
    shape = f"{alone.shape} pool {_window_shape(pool_window)}"
    n, c, k, M, N, depth = alone.n, alone.c, alone.k, alone.M, alone.N, alone.depth
    return Problem(operation, shape, n, c, k, M, N, depth, alone.window, pool_window, alone.groups)


def _conv_shape(n: int, c: int, k: int, window: Window, groups: int) -> str:
    return f"n{n} c{c} k{k} groups {groups} {_window_shape(window)}"


def _window_shape(window: Window) -> str:
    (top, bottom), (left, right) = window.padding
    pairs = (window.input, window.kernel, window.stride, window.dilation)
    image, kernel, stride, dilation = ("x".join(map(str, pair)) for pair in pairs)
    return f"{image} kernel {kernel} stride {stride} padding {top},{bottom},{left},{right} dilation {dilation}"
