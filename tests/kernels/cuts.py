"""Cuts that do not ask what they gain, so that small products have them."""

from __future__ import annotations

from typing import Any

from gpucnn_kernels.engine.cut import Cut


def thirds(tile: Any, sizes: tuple[int, int, int], groups: int, fill: int) -> Cut:
    """A first tile that is whole, if there is another one, and three slices of the others, if their sums have as many turns."""
    M, N, depth = sizes
    tiles, turns = -(-M // tile.BM) * -(-N // tile.BN) * groups, max(1, -(-depth // tile.BK))
    each, whole = -(-turns // 3), min(1, tiles - 1)
    return Cut(whole, tiles - whole, -(-turns // each), each)
