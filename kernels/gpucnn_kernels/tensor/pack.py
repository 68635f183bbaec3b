"""Weights as the kernels on tensor cores read them: rewritten by a launch beforehand, both parts of each, the big one or as bfloat16."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import split
from gpucnn_kernels.core.problem import BFLOAT16
from gpucnn_kernels.tensor import fragments
from gpucnn_kernels.tensor.hopper import ROW
from gpucnn_kernels.tensor.instructions import number_of, to_bfloat16
from gpucnn_kernels.tensor.parts import first_part, parts_of, small_part

_b_word = device(fragments.b_word, forceinline=True)
_b_pair_word = device(fragments.b_pair_word, forceinline=True)
_first_of_pair = device(fragments.first_of_pair, forceinline=True)


@device(forceinline=True)
def _weight_of(weight, rest, place, tile_size, sizes, taps):
    """The weight at `place`, row (filter) and depth (channel), of a tile of BK × BN, or 0 past the last, and past the last group; `rest`
    counts the tiles as `packed` has them: [group][tap t, u][BK of c][BN of n]. sizes: the filters, the tiles that they take, the channels,
    and these up to whole tiles. taps: `Gather.weights`."""
    row, depth = place
    BK, BN = tile_size
    N, tiles_n, C, padded_c = sizes
    T, U, S, group_size, n_stride, c_stride, first_r, first_s, step_r, step_s = taps
    rest, tile = split(rest, tiles_n)
    rest, block = split(rest, uint32(padded_c // BK))
    rest, u = split(rest, U)
    group, t = split(rest, T)
    n, c = uint32(tile * BN + row), uint32(block * BK + depth)
    value = float32(0)
    if n < N and c < C and uint32(group * group_size) < uint32(weight.size):
        tap = uint32(uint32(first_r + t * step_r) * S + uint32(first_s + u * step_s))
        value = weight[uint32(uint32(group * group_size + n * n_stride) + uint32(c * c_stride + tap))]
    return value


@functools.cache
def pack_split_kernel(bits: int) -> Any:
    """The kernel that lays out b for product.tensor_kernel."""
    return _pack_swizzled_pairs_kernel() if bits == BFLOAT16 else _pack_swizzled_kernel(bits)


def _pack_swizzled_kernel(bits: int) -> Any:
    """In TF32."""
    big_of, parts = first_part(bits), parts_of(bits)

    @kernel
    def pack_split_kernel(weight, packed, sizes, BN, taps):
        """packed[group][tap t, u][32 of c][BN of n][big, small][n][c, swizzled] = weight at tap (first + t·step, …), or 0 past the last
        c and n. A thread for each number of weight, or zero in its place."""
        i = uint32(cuda.grid(1))
        if uint32(i * uint32(parts)) >= packed.size:
            return
        rest, offset = split(i, uint32(uint32(ROW) * BN))
        first = uint32(rest * uint32(uint32(parts * ROW) * BN))
        row = uint32(offset // uint32(ROW))
        depth = uint32(offset % uint32(ROW) ^ uint32(row % uint32(8)) * uint32(4))  # hopper.swizzled, the other way round
        value = _weight_of(weight, rest, (row, depth), (uint32(ROW), BN), sizes, taps)
        big = big_of(value)
        packed[uint32(first + offset)] = big
        if parts == 2:
            packed[uint32(first + offset + uint32(ROW) * BN)] = small_part(value, big)

    return pack_split_kernel


def _pack_swizzled_pairs_kernel() -> Any:
    """In bfloat16."""
    pairs = ROW // 2

    @kernel
    def pack_split_pairs_kernel(weight, packed, sizes, BN, taps):
        """packed[group][tap t, u][32 of c][BN of n][n][pair of c, swizzled] = two weights at tap (first + t·step, …), or 0 past the last c
        and n. A thread for each word."""
        i = uint32(cuda.grid(1))
        if i >= packed.size:
            return
        rest, offset = split(i, uint32(uint32(pairs) * BN))
        row = uint32(offset // uint32(pairs))
        pair = uint32(offset % uint32(pairs) ^ uint32(row // uint32(2) % uint32(4)) * uint32(4))  # hopper.swizzled_pair, the other way
        depth, tile_size = uint32(_first_of_pair(pair)), (uint32(ROW), BN)
        low = _weight_of(weight, rest, (row, depth), tile_size, sizes, taps)
        high = _weight_of(weight, rest, (row, uint32(depth + uint32(4))), tile_size, sizes, taps)
        packed[i] = number_of(to_bfloat16(low, high))

    return pack_split_pairs_kernel


@functools.cache
def pack_fragments_kernel(bits: int, BK: int, BN: int) -> Any:
    """The kernel that lays out b for warps.warps_kernel."""
    return _pack_pairs_kernel(BK, BN) if bits == BFLOAT16 else _pack_parts_kernel(bits, BK, BN)


def _pack_parts_kernel(bits: int, BK: int, BN: int) -> Any:
    """In TF32."""
    big_of, parts, size = first_part(bits), parts_of(bits), BK * BN

    @kernel
    def pack_fragments_kernel(weight, packed, sizes, taps):
        """packed[group][tap t, u][BK of c][BN of n][fragments.b_word] = weight at tap (first + t·step, …), or 0 past the last c and n. A
        thread for each number of weight, or zero in its place."""
        i = uint32(cuda.grid(1))
        if uint32(i * uint32(parts)) >= packed.size:
            return
        rest, offset = split(i, uint32(size))
        first = uint32(rest * uint32(parts * size))
        row, depth = uint32(offset // uint32(BK)), uint32(offset % uint32(BK))
        value = _weight_of(weight, rest, (row, depth), (uint32(BK), uint32(BN)), sizes, taps)
        big = big_of(value)
        packed[uint32(first + uint32(_b_word(BN, parts, row, depth, 0)))] = big
        if parts == 2:
            packed[uint32(first + uint32(_b_word(BN, parts, row, depth, 1)))] = small_part(value, big)

    return pack_fragments_kernel


def _pack_pairs_kernel(BK: int, BN: int) -> Any:
    """In bfloat16."""
    pairs, size = BK // 2, BK * BN // 2

    @kernel
    def pack_pairs_kernel(weight, packed, sizes, taps):
        """packed[group][tap t, u][BK of c][BN of n][fragments.b_pair_word] = two weights at tap (first + t·step, …), or 0 past the last c
        and n. A thread for each word."""
        i = uint32(cuda.grid(1))
        if i >= packed.size:
            return
        rest, offset = split(i, uint32(size))
        row, depth = uint32(offset // uint32(pairs)), uint32(_first_of_pair(uint32(offset % uint32(pairs))))
        tile_size = uint32(BK), uint32(BN)
        low = _weight_of(weight, rest, (row, depth), tile_size, sizes, taps)
        high = _weight_of(weight, rest, (row, uint32(depth + uint32(4))), tile_size, sizes, taps)
        at = uint32(uint32(rest * uint32(size)) + uint32(_b_pair_word(BN, row, depth)))
        packed[at] = number_of(to_bfloat16(low, high))

    return pack_pairs_kernel
