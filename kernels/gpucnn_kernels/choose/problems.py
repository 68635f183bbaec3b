"""What there is to choose a kernel for: the size of an operation as select.py weighs it, and its name in tables of what is fastest.

An operation asks for its problem at every call, so each is worked out once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from gpucnn_kernels.conv import depthwise, direct, pooled, pooled_grad
from gpucnn_kernels.core.launch import Window
from gpucnn_kernels.tensor import weight_grad as tensor_grad


@dataclass(frozen=True, slots=True)
class Problem:
    """What there is to choose for: a product of M × N results with sums of `depth` terms, in each of `groups`.

    `channels`, where depth is channels × taps and every tap is filled up to whole blocks of channels, is how many there are. `cuts`
    says that the sums may be cut into slices. `made_for` are the kernels that were written for such shapes, in the order in
    which they are to be taken; `products` says whether the engine can do it, and `tensor` which kernels on tensor cores can: "gather" or
    "grad". `shape` names it in tables.
    """

    operation: str
    shape: str
    M: int
    N: int
    depth: int
    channels: int = 0
    groups: int = 1
    cuts: bool = False
    made_for: tuple[str, ...] = ()
    products: bool = True
    tensor: str = ""

    @property
    def key(self) -> str:
        """The name of operation and shape, as tables of what is fastest have it."""
        return f"{self.operation} {self.shape}"


@functools.lru_cache(maxsize=1024)
def conv2d(n: int, c: int, k: int, window: Window, groups: int = 1) -> Problem:
    """The forward convolution."""
    group_c, taps = c // groups, window.kernel[0] * window.kernel[1]
    M = n * window.output[0] * window.output[1]
    shape, made_for = _conv_shape(n, c, k, window, groups), _made_for(c, k, window, groups)
    tensor = "gather" if _near(c, k, window) else ""
    return Problem("conv2d", shape, M, k // groups, group_c * taps, group_c, groups, made_for=made_for, tensor=tensor)


@functools.lru_cache(maxsize=1024)
def conv2d_input_grad(n: int, c: int, k: int, window: Window, groups: int = 1) -> Problem:
    """The gradient of the input: the largest of its classes of pixels (conv/tiled.py)."""
    M, depth = n, k // groups
    for axis in (0, 1):
        M *= -(-window.input[axis] // window.stride[axis])
        depth *= -(-window.kernel[axis] // window.stride[axis])
    made_for = tuple(name for name in _made_for(c, k, window, groups) if name == "depthwise")
    shape, tensor = _conv_shape(n, c, k, window, groups), "gather" if _near(c, k, window) else ""
    return Problem("conv2d_input_grad", shape, M, c // groups, depth, k // groups, groups, made_for=made_for, tensor=tensor)


@functools.lru_cache(maxsize=1024)
def conv2d_weight_grad(n: int, c: int, k: int, window: Window, groups: int = 1) -> Problem:
    """The gradient of the weight."""
    N, depth = c // groups * window.kernel[0] * window.kernel[1], n * window.output[0] * window.output[1]
    shape, made_for = _conv_shape(n, c, k, window, groups), _made_for(c, k, window, groups)
    tensor = "grad" if window.kernel[0] * window.kernel[1] <= tensor_grad.MOST_TAPS and _near(c, k, window) else ""
    return Problem("conv2d_weight_grad", shape, k // groups, N, depth, groups=groups, cuts=True, made_for=made_for, tensor=tensor)


@functools.lru_cache(maxsize=1024)
def conv2d_relu_max_pool2d(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1) -> Problem:
    """A convolution with ReLU and the max pooling after it, in one kernel where that can be."""
    alone = conv2d(n, c, k, window, groups)
    made_for = ("direct",) if pooled.fits(c, window, pool_window, groups) else ()
    shape = f"{alone.shape} pool {_window_shape(pool_window)}"
    return Problem("conv2d_relu_max_pool2d", shape, alone.M, alone.N, alone.depth, made_for=made_for, products=False)


@functools.lru_cache(maxsize=1024)
def conv2d_relu_max_pool2d_weight_grad(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1) -> Problem:
    """Its gradient of the weight from that of the pooled values, where no gradient of the input is wanted."""
    alone = conv2d_weight_grad(n, c, k, window, groups)
    made_for = ("direct",) if pooled_grad.fits(c, window, pool_window, groups) else ()
    shape = f"{alone.shape} pool {_window_shape(pool_window)}"
    return Problem("conv2d_relu_max_pool2d_weight_grad", shape, alone.M, alone.N, alone.depth, made_for=made_for, products=False)


@functools.lru_cache(maxsize=1024)
def product(operation: str, M: int, N: int, depth: int) -> Problem:
    """A dense layer, forward or a gradient: M × N results, each a sum of `depth` terms."""
    return Problem(operation, f"{M}x{N}x{depth}", M, N, depth, cuts=True)


def _near(c: int, k: int, window: Window) -> bool:
    """Whether the kernels on tensor cores can count from one of a block's numbers to its others in 32 bits, in bytes: 128 planes, and a
    whole image."""
    planes = [(c, window.input[0] * window.input[1]), (k, window.output[0] * window.output[1])]
    return all(plane < 1 << 23 and channels * plane < 1 << 30 for channels, plane in planes)


@functools.cache
def _made_for(c: int, k: int, window: Window, groups: int) -> tuple[str, ...]:
    if groups == c and c > 1:
        return ("depthwise",) if depthwise.fits(c, k, window) else ()
    return ("direct",) if direct.fits(c, window, groups) else ()


def _conv_shape(n: int, c: int, k: int, window: Window, groups: int) -> str:
    return f"n{n} c{c} k{k} groups {groups} {_window_shape(window)}"


def _window_shape(window: Window) -> str:
    (top, bottom), (left, right) = window.padding
    pairs = (window.input, window.kernel, window.stride, window.dilation)
    image, kernel, stride, dilation = ("x".join(map(str, pair)) for pair in pairs)
    return f"{image} kernel {kernel} stride {stride} padding {top},{bottom},{left},{right} dilation {dilation}"
