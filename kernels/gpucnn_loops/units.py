"""Smooth and bounded variants of ReLU, and their gradients, 16 numbers at a time.

    leaky ReLU  x, or slope · x below 0          ELU   x, or alpha · (eˣ − 1) below 0
    SiLU        x · σ(x), σ(x) = 1 / (1 + e⁻ˣ)   GELU  x · Φ(x), Φ the normal distribution
    ReLU6       min(max(x, 0), 6)                hard sigmoid  ReLU6(x + 3) / 6; hard swish  x · ReLU6(x + 3) / 6

Φ(x) is ½ + x·p(x²) near 0, and its tail is e^(−x²/2) times a polynomial in 2/x²: those of the Cephes library for erf and erfc
(S. L. Moshier 1989: ndtrf). What rounding takes from x² is made up for, since in an exponent it would matter as much as x² is large.

GELU's other form, by the hyperbolic tangent, has ½·(1 + tanh u) = σ(2u), which does not cancel where u is negative (Hendrycks and Gimpel,
"Gaussian Error Linear Units", 2016).

Results may overwrite the first operand.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.elementwise import COST, through
from gpucnn_loops.exponential import HALF, ONE, exp16, expm1_16, where_less, where_more
from gpucnn_loops.language import helper
from gpucnn_loops.loops import loop
from gpucnn_loops.softmax import sigmoid16
from gpucnn_loops.tanh import COST as EXPONENTIAL
from gpucnn_loops.tanh import least, magnitude, signed
from gpucnn_loops.vector import L, fma, load, splat, store

Array = NDArray[np.float32]
F = np.float32
ZERO, TWO, THREE, SIX, MINUS = F(0), F(2), F(3), F(6), F(-1)
ROOT = F(math.sqrt(2))  # where Φ's tail begins; twice of it is where the other polynomial does
DENSITY = F(1 / math.sqrt(2 * math.pi))  # of the normal distribution at 0
FAR = F(30)  # Φ is 0 or 1 long before
T0, T1, T2, T3 = F(7.853861353153693e-5), F(-8.010193625184903e-4), F(5.188327685732524e-3), F(-2.685381193529856e-2)
T4, T5, T6 = F(1.128358514861418e-1), F(-3.761262582423300e-1), F(1.128379165726710)
P0, P1, P2 = F(2.326819970068386e-2), F(-1.387039388740657e-1), F(3.687424674597105e-1)
P3, P4, P5 = F(-5.824733027278666e-1), F(6.210004621745983e-1), F(-4.944515323274145e-1)
P6, P7, P8 = F(3.404879937665872e-1), F(-2.741127028184656e-1), F(5.638259427386472e-1)
R0, R1, R2, R3 = F(-1.047766399936249e1), F(1.297719955372516e1), F(-7.495518717768503), F(2.921019019210786)
R4, R5, R6, R7 = F(-1.015265279202700), F(4.218463358204948e-1), F(-2.820767439740514e-1), F(5.641895067754075e-1)
SCALE, CUBE = F(2 * math.sqrt(2 / math.pi)), F(0.044715)  # of u
CUBES = F(3 * 0.044715)
LARGE = F(40)  # σ(2u) is 0 or 1 long before


@loop("i i f* f* f")
def leaky_relu_part(first, last, x, y, slope):
    for i in range(first, last, L):
        v = load(x, i)
        store(y, i, where_less(v, ZERO, v * splat(slope), v))


@loop("i i f* f* f* f")
def leaky_relu_grad_part(first, last, dy, y, dx, slope):
    for i in range(first, last, L):
        g, v = load(dy, i), load(y, i)
        store(dx, i, where_more(v, ZERO, g, g * splat(slope)))


@loop("i i f* f* f")
def elu_part(first, last, x, y, alpha):
    for i in range(first, last, L):
        v = load(x, i)
        store(y, i, where_more(v, ZERO, v, expm1_16(v) * splat(alpha)))


@loop("i i f* f* f* f")
def elu_grad_part(first, last, dy, y, dx, alpha):
    for i in range(first, last, L):
        g, v = load(dy, i), load(y, i)
        store(dx, i, where_more(v, ZERO, g, g * (v + splat(alpha))))


@helper
def at_most_six(v):
    """min(max(v, 0), 6); NaN stays NaN."""
    return least(where_less(v, ZERO, splat(ZERO), v), SIX)


@helper
def between(v, low, high, inside):
    """inside where low < v < high, else 0, as for NaN."""
    return where_more(v, low, where_less(v, high, inside, splat(ZERO)), splat(ZERO))


@loop("i i f* f*")
def relu6_part(first, last, x, y):
    for i in range(first, last, L):
        store(y, i, at_most_six(load(x, i)))


@loop("i i f* f* f*")
def relu6_grad_part(first, last, dy, y, dx):
    for i in range(first, last, L):
        g, v = load(dy, i), load(y, i)
        store(dx, i, between(v, ZERO, SIX, g))


@loop("i i f* f*")
def hard_sigmoid_part(first, last, x, y):
    for i in range(first, last, L):
        store(y, i, at_most_six(load(x, i) + splat(THREE)) / splat(SIX))


@loop("i i f* f* f*")
def hard_sigmoid_grad_part(first, last, dy, y, dx):
    for i in range(first, last, L):
        g, v = load(dy, i), load(y, i)
        store(dx, i, between(v, ZERO, ONE, g / splat(SIX)))


@loop("i i f* f*")
def hard_swish_part(first, last, x, y):
    for i in range(first, last, L):
        v = load(x, i)
        store(y, i, v * (at_most_six(v + splat(THREE)) / splat(SIX)))


@loop("i i f* f* f*")
def hard_swish_grad_part(first, last, dy, x, dx):
    for i in range(first, last, L):
        g, v = load(dy, i), load(x, i)
        inside = where_less(v, THREE, g * (v / splat(THREE) + splat(HALF)), g)
        store(dx, i, where_more(v, MINUS * THREE, inside, splat(ZERO)))


@loop("i i f* f*")
def silu_part(first, last, x, y):
    for i in range(first, last, L):
        v = load(x, i)
        store(y, i, v * sigmoid16(v))


@loop("i i f* f* f*")
def silu_grad_part(first, last, dy, x, dx):
    for i in range(first, last, L):
        g, v = load(dy, i), load(x, i)
        part = sigmoid16(v)
        store(dx, i, g * (part + v * (part * sigmoid16(splat(MINUS) * v))))


@helper
def bell16(t):
    """e^(−t²/2) of 16 numbers of up to 30, none of which is negative."""
    square = t * t
    lost = fma(t, t, splat(MINUS) * square)
    e = exp16(splat(MINUS * HALF) * square)
    return fma(splat(MINUS * HALF) * lost, e, e)


@helper
def normal16(x, t, bell):
    """Φ of 16 numbers; t: |x|, or 30 where that is less; bell: e^(−t²/2)."""
    h = splat(HALF) * t * t
    p = fma(fma(fma(splat(T0), h, splat(T1)), h, splat(T2)), h, splat(T3))
    p = fma(fma(fma(p, h, splat(T4)), h, splat(T5)), h, splat(T6))
    near = fma(x * splat(ROOT / 4), p, splat(HALF))
    q = splat(ROOT) / t
    z = q * q
    p = fma(fma(fma(fma(splat(P0), z, splat(P1)), z, splat(P2)), z, splat(P3)), z, splat(P4))
    p = fma(fma(fma(fma(p, z, splat(P5)), z, splat(P6)), z, splat(P7)), z, splat(P8))
    r = fma(fma(fma(splat(R0), z, splat(R1)), z, splat(R2)), z, splat(R3))
    r = fma(fma(fma(fma(r, z, splat(R4)), z, splat(R5)), z, splat(R6)), z, splat(R7))
    tail = bell * (splat(HALF) * q) * where_less(t, TWO * ROOT, p, r)
    return where_less(t, ROOT, near, where_less(x, ZERO, tail, splat(ONE) - tail))


@loop("i i f* f*")
def gelu_part(first, last, x, y):
    for i in range(first, last, L):
        v = load(x, i)
        t = least(magnitude(v), FAR)
        store(y, i, v * normal16(v, t, bell16(t)))


@loop("i i f* f* f*")
def gelu_grad_part(first, last, dy, x, dx):
    for i in range(first, last, L):
        g, v = load(dy, i), load(x, i)
        t = least(magnitude(v), FAR)
        bell = bell16(t)
        store(dx, i, g * fma(v * splat(DENSITY), bell, normal16(v, t, bell)))


@loop("i i f* f*")
def gelu_by_tanh_part(first, last, x, y):
    for i in range(first, last, L):
        v = load(x, i)
        near = signed(least(magnitude(v), LARGE), v)
        store(y, i, v * sigmoid16(splat(SCALE) * fma(splat(CUBE) * near * near, near, near)))


@loop("i i f* f* f*")
def gelu_by_tanh_grad_part(first, last, dy, x, dx):
    for i in range(first, last, L):
        g, v = load(dy, i), load(x, i)
        near = signed(least(magnitude(v), LARGE), v)
        u = splat(SCALE) * fma(splat(CUBE) * near * near, near, near)
        part, other = sigmoid16(u), sigmoid16(splat(MINUS) * u)
        slope = splat(SCALE) * fma(splat(CUBES) * near, near, splat(ONE))
        store(dx, i, g * (part + v * (part * other * slope)))


def leaky_relu(x: Array, slope: float, y: Array) -> None:
    """y = x, or slope · x where that is not positive."""
    through(leaky_relu_part, COST, x, y, numbers=(slope,))


def leaky_relu_grad(dy: Array, y: Array, slope: float, dx: Array) -> None:
    """dx = dy, or slope · dy where y is not positive."""
    through(leaky_relu_grad_part, COST, dy, y, dx, numbers=(slope,))


def elu(x: Array, alpha: float, y: Array) -> None:
    """y = x, or alpha · (eˣ − 1) where that is not positive."""
    through(elu_part, EXPONENTIAL, x, y, numbers=(alpha,))


def elu_grad(dy: Array, y: Array, alpha: float, dx: Array) -> None:
    """dx = dy, or dy · (y + alpha) where y is not positive."""
    through(elu_grad_part, COST, dy, y, dx, numbers=(alpha,))


def relu6(x: Array, y: Array) -> None:
    """y = min(max(x, 0), 6)."""
    through(relu6_part, COST, x, y)


def relu6_grad(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy where 0 < y < 6, else 0."""
    through(relu6_grad_part, COST, dy, y, dx)


def hard_sigmoid(x: Array, y: Array) -> None:
    """y = x / 6 + 1/2, no less than 0 and no more than 1."""
    through(hard_sigmoid_part, COST, x, y)


def hard_sigmoid_grad(dy: Array, y: Array, dx: Array) -> None:
    """dx = dy / 6 where 0 < y < 1, else 0."""
    through(hard_sigmoid_grad_part, COST, dy, y, dx)


def hard_swish(x: Array, y: Array) -> None:
    """y = x · (x / 6 + 1/2), the second between 0 and 1."""
    through(hard_swish_part, COST, x, y)


def hard_swish_grad(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy · (x / 3 + 1/2) where −3 < x < 3, dy above, 0 below."""
    through(hard_swish_grad_part, COST, dy, x, dx)


def silu(x: Array, y: Array) -> None:
    """y = x · σ(x)."""
    through(silu_part, EXPONENTIAL, x, y)


def silu_grad(dy: Array, x: Array, dx: Array) -> None:
    """dx = dy · (σ(x) + x · σ(x) · σ(−x))."""
    through(silu_grad_part, 2 * EXPONENTIAL, dy, x, dx)


def gelu(x: Array, approximate: bool, y: Array) -> None:
    """y = x · Φ(x), by the hyperbolic tangent if `approximate`."""
    through(gelu_by_tanh_part if approximate else gelu_part, 2 * EXPONENTIAL, x, y)


def gelu_grad(dy: Array, x: Array, approximate: bool, dx: Array) -> None:
    """dx = dy · (Φ(x) + x · Φ′(x))."""
    through(gelu_by_tanh_grad_part if approximate else gelu_grad_part, 2 * EXPONENTIAL, dy, x, dx)
