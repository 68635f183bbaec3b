"""Convolution on tensor cores: the products of tiled.py by other kernels.

Hopper's own (`tensor128x64` and the like) are chosen by the rules, since an H100 has confirmed them. Those in TF32 and bfloat16, and those
by warps (`mma128x64`), which every chip from Ampere on can run, come by `gpucnn tune`, by select.override or by the environment alone.

The gradient of the input has a product for each class of pixels (tiled.py), some of shorter sums than others. Those that are too short to
be exact on tensor cores (tensor/accuracy.py) are computed by the engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gpucnn_kernels.conv import tiled
from gpucnn_kernels.conv.classes import Gather, Sum
from gpucnn_kernels.conv.tiled import Epilogue, Part, gathering, summing
from gpucnn_kernels.core._numba import MLIR
from gpucnn_kernels.core.problem import FLOAT32, KINDS, Chip, Problem
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.cut import Cutter, cut_of
from gpucnn_kernels.engine.operands import IMAGES
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.engine.tiles import TILES
from gpucnn_kernels.tensor import pack, product, warps, warps_grad, weight_grad
from gpucnn_kernels.tensor.accuracy import enough
from gpucnn_kernels.tensor.chips import UNCONFIRMED, warps_there
from gpucnn_kernels.tensor.parts import ENDING, words_of
from gpucnn_kernels.tensor.product import TensorTile
from gpucnn_kernels.tensor.taps import MOST_TAPS
from gpucnn_kernels.tensor.warps import WarpTile
from gpucnn_kernels.tensor.warps_grad import WarpGradTile
from gpucnn_kernels.tensor.weight_grad import TensorGradTile

CAPABILITY = (9, 0)
"""The compute capability on which the kernels were confirmed, by an H100 (kernels/measured)."""
BEST = {128: 2.9, 64: 2.15, 32: 1.4}
"""The speed of a full tile by its columns, as a multiple of the engine's largest: on an H100 124, 93 and 62 TFLOP/s."""
WARPS = {"mma128x64": (WarpTile(), WarpGradTile())}
SHORT = "tile128x64"
"""The name of the engine's tile for classes of pixels whose sums are too short."""


def gather(tile: TensorTile, one: Gather, epilogue: Epilogue, cut_of: Cutter = cut_of) -> Part:
    """A class of pixels on tensor cores, if its sums are long enough. Each weight is split into two parts, a big one and the remainder, or
    is rounded."""
    if not enough(one.taps * one.C, tile.bits):
        return tiled.gather(TILES[SHORT], one, epilogue, cut_of)
    padded_c, padded_n = one.padded(tile)
    depth = one.taps * padded_c
    numbers = depth * padded_n * one.groups
    words = words_of(tile.bits, numbers)
    rows, walk, put = one.arguments(padded_c, words)
    sizes, last = (one.M, one.N, depth), (epilogue.extra, epilogue.relu)
    cut = cut_of(tile, sizes, one.groups, epilogue.fill)
    zeroed, slices = (cut.zeroed(tile, words_of(tile.bits, tile.BK * tile.BN)), cut.sums(tile)) if cut else (0, 0)
    scratch, whole = (words, words + zeroed), one.C % tile.BK == 0
    made = product.product(tile, (rows, walk), (IMAGES, put), sizes, last, one.groups, whole=whole, cut=cut, scratch=scratch)
    how = tuple(map(np.uint32, (one.N, padded_n // tile.BN, one.C, padded_c))), np.uint32(tile.BN), one.weights
    each = max(1, words // max(1, numbers))  # words of a thread
    return Part(made, words + zeroed, pack.pack_split_kernel(tile.bits), (words + zeroed) // each, how, slices)


def gather_by_warps(tile: WarpTile, one: Gather, epilogue: Epilogue) -> Part:
    """A class of pixels on tensor cores that warps feed, if its sums are long enough, with the weights in the order of their registers."""
    if not enough(one.taps * one.C, tile.bits):
        return tiled.gather(TILES[SHORT], one, epilogue)
    padded_c, padded_n = one.padded(tile)
    depth = one.taps * padded_c
    numbers = depth * padded_n * one.groups
    words = words_of(tile.bits, numbers)
    rows, walk, put = one.arguments(padded_c, words)
    sizes, last = (one.M, one.N, depth), (epilogue.extra, epilogue.relu)
    made = warps.product(tile, (rows, walk), (IMAGES, put), sizes, last, one.groups)
    how = tuple(map(np.uint32, (one.N, padded_n // tile.BN, one.C, padded_c))), one.weights
    return Part(made, words, pack.pack_fragments_kernel(tile.bits, tile.BK, tile.BN), min(numbers, words), how)


def total(tile: TensorGradTile, one: Sum, extra: int, vector: bool, slices: int) -> Product:
    """The gradient of a weight on tensor cores."""
    width = 4 if vector and one.plane % 4 == 0 else 1
    return weight_grad.product(
        tile, one.dy, (one.rows, one.walk), (one.M, one.N, one.depth), extra, groups=one.groups, slices=slices, width=width
    )


def total_by_warps(tile: WarpGradTile, one: Sum, extra: int, vector: bool, slices: int) -> Product:
    """The gradient of a weight on tensor cores that warps feed."""
    return warps_grad.product(tile, one.dy, (one.rows, one.walk), (one.M, one.N, one.depth), extra, groups=one.groups, slices=slices)


def there(chip: Chip) -> bool:
    """Whether there are kernels of its own for the tensor cores of a chip."""
    return chip.capability == CAPABILITY and not MLIR


def _fits(problem: Problem, chip: Chip, bits: int, most_taps: int | None = None, has: Callable[[Chip], bool] = there) -> bool:
    """Whether factors may be rounded to so many bits, the longest sums are long enough to be exact, and byte offsets within a block fit
    into 32 bits: over 128 planes, and over a whole image."""
    window = problem.windowed
    planes = [(problem.c, window.input[0] * window.input[1]), (problem.k, window.output[0] * window.output[1])]
    return (
        has(chip)
        and bits >= problem.bits
        and enough(problem.depth, bits)
        and (most_taps is None or window.kernel[0] * window.kernel[1] <= most_taps)
        and all(plane < 1 << 23 and channels * plane < 1 << 30 for channels, plane in planes)
    )


def _variants(columns: int, bits: int) -> dict[str, Variant]:
    name, best = f"tensor128x{columns}{ENDING[bits]}", BEST[columns] if bits == FLOAT32 else UNCONFIRMED
    gather_fits, sum_fits = (functools.partial(_fits, bits=bits, most_taps=most) for most in (None, MOST_TAPS))
    return {
        **gathering(name, TensorTile(columns, bits), best, gather, fills=True, fits=gather_fits),
        **summing(name, TensorGradTile(columns, bits), best, total, True, fits=sum_fits),
    }


def _variants_by_warps(name: str, bits: int) -> dict[str, Variant]:
    tile, grad_tile = (replace(each, bits=bits) for each in WARPS[name])
    gather_fits, sum_fits = (functools.partial(_fits, bits=bits, most_taps=most, has=warps_there) for most in (None, MOST_TAPS))
    return {
        **gathering(name + ENDING[bits], tile, UNCONFIRMED, gather_by_warps, fits=gather_fits),
        **summing(name + ENDING[bits], grad_tile, UNCONFIRMED, total_by_warps, True, fits=sum_fits),
    }


ALL = [
    *(_variants(columns, bits) for bits in KINDS for columns in BEST),
    *(_variants_by_warps(name, bits) for bits in KINDS for name in WARPS),
]
