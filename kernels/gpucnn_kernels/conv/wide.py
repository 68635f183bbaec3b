"""Convolution with 16 × 8 results per thread and asynchronous copies: forward and gradient of the input, in float32 on FMA units.

The products are tiled.py's, for all strides, dilations and groups; wide_loop.py has the kernel. Sums are added in the order of
engine/loop.py, so the results are bit-identical to the engine's, NaN and infinity included.

It is for chips of 128 FMA lanes to a multiprocessor, and large shapes (kernels/README.md). It needs cp.async, so it runs from compute
capability 8.0 on. No chip has confirmed it. So the rules never choose it: `gpucnn tune`, which compares its results before it times it,
select.override, and the environment do (GPUCNN_VARIANT=conv2d=wide128x128).
"""

from __future__ import annotations

import numpy as np

from gpucnn_kernels.conv.classes import Gather
from gpucnn_kernels.conv.tiled import Epilogue, Part, gathering, pack_kernel
from gpucnn_kernels.conv.wide_ends import WideTile
from gpucnn_kernels.conv.wide_loop import wide_kernel
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.tensor.chips import UNCONFIRMED, asynchronous_copies_there

TILES = {"wide128x128": WideTile(), "wide256x64": WideTile(256, 64, copies=3)}


def gather(tile: WideTile, one: Gather, epilogue: Epilogue) -> Part:
    """A class of pixels, with the weights rewritten as for the engine."""
    padded_c, padded_n = one.padded(tile)
    depth = one.taps * padded_c
    packed = depth * padded_n * one.groups
    rows, walk, put = one.arguments(padded_c, packed)
    by_fours = epilogue.vector and one.plane % 4 == 0 and one.side_by_side
    tiles_m, tiles_n = -(-one.M // tile.BM), padded_n // tile.BN
    sizes = tuple(map(np.uint32, (one.M, one.N, depth // tile.BK, one.groups, tiles_m, tiles_n)))
    last = tuple(map(np.uint32, (by_fours, epilogue.extra, epilogue.relu)))
    kernel, blocks = wide_kernel(tile, one.C % tile.BK == 0), tiles_m * tiles_n * one.groups
    made = Product(kernel, blocks, tile.threads, one.groups, 1, (sizes, last, (rows, walk), put))
    return Part(made, packed, pack_kernel, packed, (tuple(map(np.uint32, (one.N, padded_n, one.C, padded_c))), one.weights))


def _fits(problem: Problem, chip: Chip) -> bool:
    return asynchronous_copies_there(chip)


ALL = [gathering(name, tile, UNCONFIRMED, gather, fits=_fits) for name, tile in TILES.items()]
