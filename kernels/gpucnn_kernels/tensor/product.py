"""Products on Hopper's tensor cores, as accurate as float32: the engine's second loop, for an `a` that is looked up in images.

    c[m, n] = Σ over k of a[m, k] · b[k, n]

Tensor cores multiply in TF32, which keeps 11 bits of a number where float32 keeps 24. So a number is taken apart, x = big + small, big
being x rounded to TF32 and small what that leaves, and

    a · b ≈ small(a) · big(b) + big(a) · small(b) + big(a) · big(b)

What is left out is small · small, and the last bit of some small parts, which have 12: together at most 2⁻²¹ of the product. Three products
in TF32 are still done in less than half of the time of one in float32 (H100: 495 against 67 TFLOP/s).

Tensor cores add with less care than an FMA does: they cut off where it rounds. So after every 16 terms the sums are taken out and added up
in ordinary float32. Then sums from 256 terms on are at least as accurate as those of FMAs one after the other, and shorter ones are left to
these: accuracy.py says what that means and why. (Measured on an H100, with sums taken out every 32 terms, at 2304 terms: an error of
2.8 · 10⁻⁷ of the result's root mean square, and 8.1 · 10⁻⁷ for cuDNN in float32.)

Three warpgroups of 128 threads. The first only copies: each of its threads owns a row of a, that is a position in the images, and fetches
32 channels of it for the tap whose turn it is (`copy_word`: neighbours in the image are neighbours in memory, but they begin anywhere, so
no more than one word can be fetched at a time); and b's part comes as one bulk copy, because pack.py has laid it out beforehand just
as wgmma wants it, big and small parts. The other two multiply, 64 rows each: they read a from shared memory into registers, take it
apart there, and leave b where it is. Between them stand a few stages of shared memory, with two barriers each: "full" (all is there) and
"empty" (both have read it). Nobody waits for memory as long as a stage is full.

If a number is infinite, its small part is NaN, and so is every sum that contains it, although FMAs might have given an infinity. NaN stays
NaN. TF32's least number is 2⁻¹³⁶, and what is less is lost of a number: so those below 2⁻¹¹⁴ lose the last of their 24 bits.

If less accuracy is enough (`precision="high"`), only the big part of a number is used: one product instead of three, each factor off by at
most 2⁻¹¹ of itself. Infinities then mean what they mean with FMAs. In bfloat16 (`precision="medium"`) a number has 8 bits, and one
product has twice the depth: instructions.py says what becomes of infinities and the largest numbers.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.core.problem import FLOAT32
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.engine.cut import WHOLE, Cut, Way, given
from gpucnn_kernels.engine.operands import PIXELS
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.engine.tiles import Store
from gpucnn_kernels.tensor import hopper, instructions
from gpucnn_kernels.tensor.parts import words_of
from gpucnn_kernels.tensor.results import writer
from gpucnn_kernels.tensor.stages import DEPTH, HEAD, MOST_SHARED, begin_stages, multiplier

_ROWS = 128  # BM: a row for each thread that copies
_PITCH = _ROWS + 8  # from a depth of a to the next: then the 32 lanes of a warp read 32 different banks


@dataclass(frozen=True)
class TensorTile:
    """128 × BN results per block, 32 steps of k at a time, by three warpgroups. bits: what factors keep (parts.py)."""

    BN: int
    bits: int = FLOAT32
    BM: int = _ROWS
    BK: int = DEPTH
    threads: int = 384
    blocks_per_sm: int = 1

    @property
    def stage(self) -> int:
        """Bytes of a stage: b's tiles, one for each part, then a's; a multiple of 1024."""
        return 4 * (words_of(self.bits, self.BN * DEPTH) + DEPTH * _PITCH)

    @property
    def stages(self) -> int:
        """The number of stages: as many as there is room for, up to eight; more gain nothing."""
        return min(8, (MOST_SHARED - 2 * HEAD) // self.stage)

    @property
    def shared(self) -> int:
        """Bytes of shared memory, with what is lost to begin at a multiple of 1024."""
        return 2 * HEAD + self.stages * self.stage


@functools.cache
def tensor_kernel(tile: TensorTile, store: Store, whole: bool, way: Way = WHOLE) -> Any:
    """The kernel: (a, b, extra, c, sizes, epilogue, a_args, c_args), on a grid of blocks of `tile.threads` with `tile.shared` bytes.

    a are images under the taps of a window, with the arguments of operands.PIXELS; b is packed; c goes where `store` says, and `extra` is
    what engine.tile_kernel's is. `sizes` are M, N, the blocks of 32 steps, groups, and the tiles along M and N; `epilogue` what `extra` is
    for, and whether there is a ReLU. `whole`: a group's channels are a multiple of 32. `way`: whether there are tiles with several blocks
    (engine/cut.py).
    """
    BN, stages, stage_bytes = tile.BN, tile.stages, tile.stage
    sums_count, b_bytes = BN // 2, 4 * words_of(tile.bits, BN * DEPTH)
    prepare, row_offset = PIXELS.prepare, store.row_offset
    give, take = hopper.give_registers(40), hopper.take_registers(232)
    multiply_all = multiplier(BN, stages, stage_bytes, 1, _PITCH, tile.bits)

    @device(forceinline=True)
    def copy_channel(i, to, source, step, channels):
        """Channel i of a thread's pixel, or 0 where there are no more: `channels` is how many there are, none outside the image."""
        there = channels > int32(0) if whole else int32(i) < channels
        beyond = uint32(uint32(i) * step) if whole or there else uint32(0)
        instructions.copy_word(uint32(to + uint32(i * 4 * _PITCH)), uint64(source + uint64(beyond)), uint32(4) if there else uint32(0))

    copy_channels = unrolled(copy_channel, DEPTH)

    write_all = writer(store, sums_count)
    sizes_of, place_of, join = way.sizes, way.place, way.joiner(sums_count, 2 * _ROWS)

    @kernel(role="engine", launch_bounds=(tile.threads, 1))
    def tensor_kernel(a, b, extra, c, sizes, epilogue, a_args, c_args):
        shared = cuda.shared.array(0, float32)
        state = cuda.local.array(3, uint32)
        sums = cuda.local.array(sums_count, float32)
        part = cuda.local.array(sums_count, float32)
        own_sizes = sizes_of(sizes)
        M, N, blocks, _, tiles_m, tiles_n = own_sizes
        thread = uint32(cuda.threadIdx.x)
        tile_number, part_number, begin_block, own_blocks = place_of(sizes, uint32(cuda.blockIdx.x), blocks)
        number = tile_number
        tile_n = uint32(number % tiles_n)
        number = uint32(number // tiles_n)
        first_row = uint32(uint32(number % tiles_m) * uint32(_ROWS))
        group = uint32(number // tiles_m)

        begin = instructions.shared_address(shared)
        full, empty, stages_at = begin_stages(begin, thread, uint32(stages), uint32(_ROWS + 1))

        stage, parity = uint32(0), uint32(0)
        if thread < uint32(_ROWS):
            give()
            prepare(a_args, group, uint32(first_row + thread), state, 0)
            _, (padded, padded_by, padded_shift, U, U_by, U_shift, step_h, step_w, channels, H, W, area) = a_args
            a_at = instructions.global_address(a)
            first_block = uint32(uint32(group * blocks) + begin_block)
            b_at = uint64(instructions.global_address(b) + uint64(first_block * tiles_n + tile_n) * uint64(b_bytes))
            for block in range(int32(own_blocks)):
                while hopper.has_ended(uint32(empty + uint32(stage * uint32(8))), uint32(parity ^ uint32(1))) == 0:
                    pass
                filled = uint32(full + uint32(stage * uint32(8)))
                to = uint32(stages_at + uint32(stage * uint32(stage_bytes)))
                if thread == 0:
                    hopper.arrive_expecting(filled, uint32(b_bytes))
                    hopper.copy_bulk(to, b_at, uint32(b_bytes), filled)
                b_at = uint64(b_at + uint64(tiles_n) * uint64(b_bytes))
                first = uint32(uint32(begin_block + uint32(block)) * uint32(DEPTH))
                tap = divide(first, padded_by, padded_shift)
                channel = uint32(first - tap * padded)
                t = divide(tap, U_by, U_shift)
                h = uint32(int32(int32(state[1]) + int32(t) * step_h))  # above the image: a huge number, so one comparison is enough
                w = uint32(int32(int32(state[2]) + int32(tap - t * U) * step_w))
                inside = h < H and w < W
                pixel = uint32(uint32(state[0] + h * W + w) + channel * area) if inside else uint32(0)
                copy_channels(
                    0,
                    uint32(to + uint32(b_bytes) + uint32(thread * uint32(4))),
                    uint64(a_at + uint64(pixel) * uint64(4)),
                    uint32(area * uint32(4)) if inside else uint32(0),
                    int32(channels - channel) if inside else int32(0),
                )
                hopper.arrive_with_copies(filled)
                stage = uint32(stage + uint32(1))
                if stage == uint32(stages):
                    stage, parity = uint32(0), uint32(parity ^ uint32(1))
        else:
            take()
            own = uint32(thread - uint32(_ROWS))
            lane = uint32(thread % uint32(32))
            own_row = uint32(uint32(own // uint32(32)) * uint32(16) + uint32(lane // uint32(4)))
            a_first = uint32(uint32(uint32(stages_at - begin) + uint32(b_bytes)) // uint32(4))
            a_first = uint32(a_first + uint32(lane % uint32(4)) * uint32(_PITCH) + own_row)
            multiply_all(int32(own_blocks), shared, a_first, stages_at, full, empty, part, sums)
            if join(b, sizes, tile_number, part_number, own, sums):
                row = uint32(first_row + own_row)
                below = uint32(row + uint32(8))
                first_column = uint32(uint32(tile_n * uint32(BN)) + uint32(lane % uint32(4)) * uint32(2))
                row_at = row_offset(c_args, M, N, group, row)
                below_at = row_offset(c_args, M, N, group, below)
                write_all(0, 0, c, c_args, own_sizes, epilogue, group, row, row_at, below, below_at, first_column, extra, sums)

    return tensor_kernel


def product(
    tile: TensorTile,
    pixels: tuple[Any, Any],
    c: tuple[Store, Any],
    sizes: tuple[int, int, int],
    epilogue: tuple[int, bool],
    groups: int,
    *,
    whole: bool,
    cut: Cut | None = None,
    scratch: tuple[int, int] = (0, 0),
) -> Product:
    """A product ready to be launched, as product.product makes them: `pixels` are the arguments of a, `sizes` M, N and the depth of a
    group, `epilogue` what `extra` is for and whether there is a ReLU. `cut`: which tiles have several blocks, whose counters and sums are
    in b, from the elements `scratch` on."""
    M, N, depth = sizes
    tiles_m, tiles_n = -(-M // tile.BM), -(-N // tile.BN)
    numbers = tuple(np.uint32(number) for number in (M, N, depth // tile.BK, groups, tiles_m, tiles_n))
    more, blocks, way = given(cut, numbers, tiles_m * tiles_n * groups, scratch)
    arguments = more, tuple(np.uint32(number) for number in epilogue), pixels, c[1]
    return Product(tensor_kernel(tile, c[0], whole, way), blocks, tile.threads, groups, 1, arguments, tile.shared)
