"""Smooth and bounded variants of ReLU, and the hyperbolic tangent: one thread per element.

    leaky ReLU  x, or slope · x below 0          ELU   x, or alpha · (eˣ − 1) below 0
    SiLU        x · σ(x), σ(x) = 1 / (1 + e⁻ˣ)   GELU  x · Φ(x), Φ(x) = erfc(−x / √2) / 2 the normal distribution
    ReLU6       min(max(x, 0), 6)                hard sigmoid  ReLU6(x + 3) / 6; hard swish  x · ReLU6(x + 3) / 6

GELU's other form is x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2 (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016). Gradients
of SiLU, GELU and hard swish are computed from the input, all others from the output.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from gpucnn_kernels.activations import logistic
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.launch import Array, Stream, floats, run_each

HALF_ROOT = np.float32(math.sqrt(0.5))  # 1/√2
DENSITY = np.float32(1 / math.sqrt(2 * math.pi))  # of the normal distribution at 0
TANH_SCALE = np.float32(math.sqrt(2 / math.pi))
CUBE = np.float32(0.044715)


@device
def at_most_six(x):
    """min(max(x, 0), 6); NaN stays NaN."""
    if x <= float32(0):
        x = float32(0)
    if x >= float32(6):
        x = float32(6)
    return x


@kernel
def leaky_relu_kernel(x, y, slope):
    i = uint32(cuda.grid(1))
    if i < y.size:
        value = x[i]
        if value <= float32(0):
            value *= slope
        y[i] = value


@kernel
def leaky_relu_grad_kernel(dy, y, dx, slope):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        gradient = dy[i]
        if not y[i] > float32(0):
            gradient *= slope
        dx[i] = gradient


@kernel
def elu_kernel(x, y, alpha):
    i = uint32(cuda.grid(1))
    if i < y.size:
        value = x[i]
        if value <= float32(0):
            value = alpha * float32(math.expm1(value))
        y[i] = value


@kernel
def elu_grad_kernel(dy, y, dx, alpha):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        gradient = dy[i]
        if not y[i] > float32(0):
            gradient *= y[i] + alpha
        dx[i] = gradient


@kernel
def relu6_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        y[i] = at_most_six(x[i])


@kernel
def relu6_grad_kernel(dy, y, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        gradient = dy[i]
        if not (y[i] > float32(0) and y[i] < float32(6)):
            gradient = float32(0)
        dx[i] = gradient


@kernel
def hard_sigmoid_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        y[i] = at_most_six(x[i] + float32(3)) / float32(6)


@kernel
def hard_sigmoid_grad_kernel(dy, y, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        gradient = dy[i] / float32(6)
        if not (y[i] > float32(0) and y[i] < float32(1)):
            gradient = float32(0)
        dx[i] = gradient


@kernel
def hard_swish_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        y[i] = x[i] * (at_most_six(x[i] + float32(3)) / float32(6))


@kernel
def hard_swish_grad_kernel(dy, x, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        gradient = dy[i]
        if not x[i] > float32(-3):
            gradient = float32(0)
        elif x[i] < float32(3):
            gradient *= x[i] / float32(3) + float32(0.5)
        dx[i] = gradient


@kernel
def tanh_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        y[i] = math.tanh(x[i])


@kernel
def tanh_grad_kernel(dy, y, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        dx[i] = dy[i] * ((float32(1) - y[i]) * (float32(1) + y[i]))


@kernel
def silu_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < y.size:
        y[i] = x[i] * logistic(x[i])


@kernel
def silu_grad_kernel(dy, x, dx):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        part = logistic(x[i])
        dx[i] = dy[i] * (part + x[i] * (part * logistic(-x[i])))


@kernel
def gelu_kernel(x, y, approximate):
    i = uint32(cuda.grid(1))
    if i < y.size:
        value = x[i]
        if approximate:
            y[i] = float32(0.5) * value * (float32(1) + float32(math.tanh(TANH_SCALE * (value + CUBE * value * value * value))))
        else:
            y[i] = float32(0.5) * value * float32(math.erfc(-value * HALF_ROOT))


@kernel
def gelu_grad_kernel(dy, x, dx, approximate):
    i = uint32(cuda.grid(1))
    if i < dx.size:
        value = x[i]
        square = value * value
        if approximate:
            if square > float32(100):  # there the tangent is ±1 and its slope 0, times a square that overflows NaN
                square = float32(100)
            part = float32(math.tanh(TANH_SCALE * (value + CUBE * square * value)))
            slope = TANH_SCALE * (float32(1) + float32(3) * CUBE * square)
            steep = float32(0.5) * value * ((float32(1) - part) * (float32(1) + part)) * slope
            dx[i] = dy[i] * (float32(0.5) * (float32(1) + part) + steep)
        else:
            steep = value * DENSITY * float32(math.exp(float32(-0.5) * square))
            dx[i] = dy[i] * (float32(0.5) * float32(math.erfc(-value * HALF_ROOT)) + steep)


def leaky_relu(x: Array, y: Array, slope: float, stream: Stream = 0) -> None:
    """Writes x, or slope · x where that is not positive, to y. y may be x."""
    _forward(leaky_relu_kernel, x, y, stream, np.float32(slope))


def leaky_relu_grad(dy: Array, y: Array, dx: Array, slope: float, stream: Stream = 0) -> None:
    """Writes dy, or slope · dy where y is not positive, to dx. dx may be dy."""
    _backward(leaky_relu_grad_kernel, dy, y, dx, stream, np.float32(slope))


def elu(x: Array, y: Array, alpha: float, stream: Stream = 0) -> None:
    """Writes x, or alpha · (eˣ − 1) where that is not positive, to y. y may be x."""
    _forward(elu_kernel, x, y, stream, np.float32(alpha))


def elu_grad(dy: Array, y: Array, dx: Array, alpha: float, stream: Stream = 0) -> None:
    """Writes dy, or dy · (y + alpha) where y is not positive, to dx. dx may be dy."""
    _backward(elu_grad_kernel, dy, y, dx, stream, np.float32(alpha))


def relu6(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes min(max(x, 0), 6) to y. y may be x."""
    _forward(relu6_kernel, x, y, stream)


def relu6_grad(dy: Array, y: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy where 0 < y < 6, else 0, to dx. dx may be dy."""
    _backward(relu6_grad_kernel, dy, y, dx, stream)


def hard_sigmoid(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes x / 6 + 1/2, no less than 0 and no more than 1, to y. y may be x."""
    _forward(hard_sigmoid_kernel, x, y, stream)


def hard_sigmoid_grad(dy: Array, y: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy / 6 where 0 < y < 1, else 0, to dx. dx may be dy."""
    _backward(hard_sigmoid_grad_kernel, dy, y, dx, stream)


def hard_swish(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes x · (x / 6 + 1/2), the second between 0 and 1, to y. y may be x."""
    _forward(hard_swish_kernel, x, y, stream)


def hard_swish_grad(dy: Array, x: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy · (x / 3 + 1/2) where −3 < x < 3, dy above, 0 below, to dx. dx may be dy."""
    _backward(hard_swish_grad_kernel, dy, x, dx, stream)


def tanh(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes the hyperbolic tangent of x to y. y may be x."""
    _forward(tanh_kernel, x, y, stream)


def tanh_grad(dy: Array, y: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy · (1 − y²) to dx. dx may be dy."""
    _backward(tanh_grad_kernel, dy, y, dx, stream)


def silu(x: Array, y: Array, stream: Stream = 0) -> None:
    """Writes x · σ(x) to y. y may be x."""
    _forward(silu_kernel, x, y, stream)


def silu_grad(dy: Array, x: Array, dx: Array, stream: Stream = 0) -> None:
    """Writes dy · (σ(x) + x · σ(x) · σ(−x)) to dx. dx may be dy."""
    _backward(silu_grad_kernel, dy, x, dx, stream)


def gelu(x: Array, y: Array, approximate: bool = False, stream: Stream = 0) -> None:
    """Writes x · Φ(x) to y. y may be x."""
    _forward(gelu_kernel, x, y, stream, np.int32(approximate))


def gelu_grad(dy: Array, x: Array, dx: Array, approximate: bool = False, stream: Stream = 0) -> None:
    """Writes dy · (Φ(x) + x · Φ′(x)) to dx. dx may be dy."""
    _backward(gelu_grad_kernel, dy, x, dx, stream, np.int32(approximate))


def _forward(kernel_: object, x: Array, y: Array, stream: Stream, *numbers: object) -> None:
    shape = tuple(x.shape)
    run_each(kernel_, math.prod(shape), stream, floats(x, "x"), floats(y, "y", shape), *numbers)


def _backward(kernel_: object, dy: Array, kept: Array, dx: Array, stream: Stream, *numbers: object) -> None:
    shape = tuple(dy.shape)
    run_each(kernel_, math.prod(shape), stream, floats(dy, "dy"), floats(kept, "kept", shape), floats(dx, "dx", shape), *numbers)
