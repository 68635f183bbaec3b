"""How far a result may be from the float64 reference: one table for every operation.

Both are worked out from the same inputs, so all of the difference is rounding. A sum of L products in precision u (half of the distance
from 1 to the next number), in any order, with fused multiply-adds or without, is off by at most

    L·u · Σ |a||b|       (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1)

That bound is met only where every rounding goes the same way. Roundings being as good as random, the error stays, but for a chance of
2·e^(−λ²/2), within

    λ·√L·u · Σ |a||b|    (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41, 2019)

With λ = 6 that chance is 3·10⁻⁸ an element, so the lesser of the two bounds is taken. Σ |a||b| is what the reference gives for |a| and |b|.
An elementwise result is off by so many roundings of itself; each operation says how many.

A few roundings are added for what comes after the sum, by direction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}  # u: relative error of one rounding
SMALLEST = {"float32": 2.0**-149, "float64": 2.0**-1074}  # numbers below the normal ones have this absolute error instead
LAMBDA = 6.0

AFTER = {
    "forward": 2,  # the bias is added; a mean is divided
    "input_grad": 1,  # shares of a mean are divided
    "weight_grad": 1,
    "elementwise": 0,
}


def bound(magnitude: Any, terms: int, direction: str, dtype: str = "float32") -> Any:
    """The largest error allowed: `terms` roundings of values whose absolute values add up to `magnitude`."""
    roundings = min(float(terms), LAMBDA * terms**0.5) + AFTER[direction]
    return roundings * (ROUNDOFF[dtype] * np.abs(magnitude) + SMALLEST[dtype])


def check(got: Any, ref: Any, *, magnitude: Any, terms: int, direction: str, dtype: str = "float32") -> None:
    """Asserts that `got` is within `bound` of `ref`, and that NaN and the infinities are at the same places."""
    got, ref = np.asarray(got), np.asarray(ref)
    assert got.shape == ref.shape, f"shape {got.shape}, expected {ref.shape}"
    assert str(got.dtype) == dtype, f"{got.dtype}, expected {dtype}"
    finite = np.isfinite(ref)
    np.testing.assert_array_equal(np.where(finite, 0, got), np.where(finite, 0, ref))
    error = np.where(finite, np.abs(np.where(finite, got, 0) - np.where(finite, ref, 0.0)), 0.0)
    with np.errstate(invalid="ignore"):
        allowed = np.broadcast_to(bound(magnitude, terms, direction, dtype), ref.shape)
    wrong = finite & ~(error <= allowed)
    if wrong.any():
        place = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(wrong)))
        values = [float(np.atleast_1d(array)[place]) for array in (got, ref, error, allowed)]
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} are wrong, the first at {place}: {values[0]!r}, expected {values[1]!r}, "
            f"error {values[2]:.3g}, allowed {values[3]:.3g}"
        )
