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

Winograd's convolution sums other products: y = Aᵀ·[Σ (G·g·Gᵀ) ⊙ (Bᵀ·d·B)]·A. An error is relative to what a whole tile adds up to, not to
the output's own Σ |a||b|: an output that is 0 beside one bright pixel need not come out as 0. So for it the bound is taken of
|Aᵀ|·[Σ (|G||g||Gᵀ|) ⊙ (|Bᵀ||d||B|)]·|A|, with the roundings of the transforms added to those of the sum: see `winograd`.
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

# Roundings on a path through one of Winograd's transforms, in both dimensions: the constants', which are products of two rounded numbers,
# and those of two multiply-adds and two sums. Of kernels of r, G has r products a dimension; and Gᵀ six.
TRANSFORM = 2 * 6

# The points 0, ±1, ∞ need no products but by ½, which are exact: of F(2×2, 3×3), Bᵀ is one sum a dimension, G two and Aᵀ two.
SUMS_ONLY = 2 * (1 + 2 + 2)


def winograd(x: Any, weight: Any, padding: Any, matrices: Any) -> tuple[Any, int]:
    """(magnitude, terms) of a convolution at stride 1 by Winograd: x (N, C, H, W), weight (K, C, R, R), matrices Bᵀ, G and Aᵀ, for tiles of
    6×6 pixels or of 4×4."""
    bt, g, at = (np.abs(matrix) for matrix in matrices)
    c, r = weight.shape[1:3]
    v = np.einsum("ai,ncpqij,bj->ncpqab", bt, _patches(np.abs(x), padding, r, len(bt)), bt)
    u = np.einsum("ai,kcij,bj->kcab", g, np.abs(weight), g)
    m = np.einsum("ncpqab,kcab->nkpqab", v, u, optimize=True)
    y = np.einsum("ia,nkpqab,jb->nkpiqj", at, m, at)
    high, wide = (size + sum(sides) - r + 1 for size, sides in zip(x.shape[2:], padding, strict=True))
    roundings = SUMS_ONLY if len(bt) == 4 else 2 * TRANSFORM + 2 * (r + 1)
    return y.reshape(*y.shape[:2], y.shape[2] * y.shape[3], -1)[:, :, :high, :wide], c + roundings


def winograd_weight_grad(dy: Any, x: Any, padding: Any, matrices: Any) -> tuple[Any, int]:
    """(magnitude, terms) of the gradient of its weight: Gᵀ·[Σ (Bᵀ·d·B) ⊙ (A·dy·Aᵀ)]·G."""
    bt, g, at = (np.abs(matrix) for matrix in matrices)
    r, m = g.shape[1], 7 - g.shape[1]
    v = np.einsum("ai,ncpqij,bj->ncpqab", bt, _patches(np.abs(x), padding, r), bt)
    n, k = dy.shape[:2]
    down, along = v.shape[2:4]
    tiles = np.zeros((n, k, down * m, along * m))
    tiles[:, :, : dy.shape[2], : dy.shape[3]] = np.abs(dy)
    w = np.einsum("ia,nkpiqj,jb->nkpqab", at, tiles.reshape(n, k, down, m, along, m), at)
    du = np.einsum("ncpqab,nkpqab->kcab", v, w, optimize=True)
    return np.einsum("ai,kcab,bj->kcij", g, du, g), n * down * along + 8 + 2 * TRANSFORM + 2 * 7


def _patches(x: Any, padding: Any, r: int, size: int = 6) -> Any:
    """The patches of `size`×`size` pixels that whole tiles of outputs read: (N, C, tiles down, tiles along, size, size)."""
    m = size + 1 - r
    ends = [-(-(size + sum(sides) - r + 1) // m) * m + r - 1 - size - sides[0] for size, sides in zip(x.shape[2:], padding, strict=True)]
    framed = np.pad(x, ((0, 0), (0, 0), *((sides[0], end) for sides, end in zip(padding, ends, strict=True))))
    return np.lib.stride_tricks.sliding_window_view(framed, (size, size), axis=(2, 3))[:, :, ::m, ::m]


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
