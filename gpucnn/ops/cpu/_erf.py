"""The complementary error function, which NumPy lacks.

W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23, 1969: three quotients of polynomials,
for small, medium and large arguments, correct to the last bits of float64.
"""

from __future__ import annotations

import math

import numpy as np

from gpucnn.ops.cpu._threads import Array

# Numerator and denominator, the highest power first.
SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02, 3.20937758913846947e03),
    (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03),
)
MIDDLE = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e00, 6.61191906371416295e01, 2.98635138197400131e02),
        *(8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03),
    ),
    (
        *(1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03),
        *(3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03),
    ),
)
LARGE = (
    (
        *(1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1),
        *(1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    ),
    (
        *(1.0, 2.56852019228982242e00, 1.87295284992346725e00),
        *(5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3),
    ),
)


def erfc(x: Array) -> Array:
    """1 − erf(x), of any shape."""
    size = np.abs(x)
    inner = np.where(size <= 0.46875, 1 - size * _quotient(np.minimum(size, 0.5) ** 2, *SMALL), 0)
    middle = np.clip(size, 0.46875, 4)
    outer = np.exp(-(np.minimum(size, 30) ** 2))
    result = np.where(size <= 0.46875, inner, outer * _quotient(middle, *MIDDLE))
    inverse = 1 / np.maximum(size, 4) ** 2
    tail = (1 / math.sqrt(math.pi) - inverse * _quotient(inverse, *LARGE)) / np.maximum(size, 4)
    result = np.where(size > 4, outer * tail, result)
    found: Array = np.where(x < 0, 2 - result, result).astype(x.dtype, copy=False)
    return np.where(np.isnan(x), x, found)


def _quotient(x: Array, numerator: tuple[float, ...], denominator: tuple[float, ...]) -> Array:
    above, below = np.full_like(x, numerator[0]), np.full_like(x, denominator[0])
    for p, q in zip(numerator[1:], denominator[1:], strict=True):
        above = above * x + x.dtype.type(p)
        below = below * x + x.dtype.type(q)
    result: Array = above / below
    return result
