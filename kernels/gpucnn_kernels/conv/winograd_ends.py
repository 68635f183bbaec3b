"""Winograd's kernel (winograd_loop.py) before and after its loop: the transform of the weights, and that of the sums to outputs."""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32, uint64
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import beyond, split
from gpucnn_kernels.core.unroll import unrolled
from gpucnn_kernels.core.vector import load_2, store_2, store_4
from gpucnn_kernels.engine.loop import finish, kept
from gpucnn_kernels.engine.tiles import BIAS, MASK

POINTS = 16
GROUPS = 8  # of two points, one for each warp


@dataclass(frozen=True)
class WinogradTile:
    """What a block computes: `tiles` × `filters` results of 2 × 2, `channels` at a time. A thread has TM × TN sums at two points."""

    tiles: int = 32
    filters: int = 64
    channels: int = 4
    TM: int = 8
    TN: int = 8

    @property
    def threads(self) -> int:
        return GROUPS * self.lanes[0] * self.lanes[1]

    def padded(self, channels: int, filters: int) -> tuple[int, int]:
        """Channels and filters up to whole turns and blocks."""
        return -(-channels // self.channels) * self.channels, -(-filters // self.filters) * self.filters

    def packed(self, channels: int, filters: int) -> int:
        """The number of transformed weights."""
        padded_c, padded_k = self.padded(channels, filters)
        return POINTS * padded_c * padded_k

    @property
    def lanes(self) -> tuple[int, int]:
        """Of a warp, along tiles and along filters."""
        return self.tiles // self.TM, self.filters // self.TN

    @property
    def at_once(self) -> int:
        """The filters whose sums are in shared memory at a time, at the end."""
        return 2 * self.lanes[1]

    @property
    def pitch(self) -> int:
        """From a filter's sums there to the next one's: eight lanes that write four sums each then write to different banks."""
        return self.tiles + 8


@functools.cache
def pack_kernel(tile: WinogradTile) -> Any:
    """The kernel that transforms weights: (weight, packed, taps, C, K, turns). packed[block of filters][turn][point][channel][filter], with
    0 past the last channel and filter. A thread for each channel and filter."""
    channels, filters = tile.channels, tile.filters
    size, step = POINTS * channels * filters, channels * filters

    @kernel
    def pack_winograd_kernel(weight, packed, taps, C, K, turns):
        k_stride, c_stride, first, tap_step = taps
        rest, number = split(uint32(cuda.grid(1)), uint32(filters))
        rest, channel = split(rest, uint32(channels))
        block, turn = split(rest, turns)
        at = uint32(rest * uint32(size) + channel * uint32(filters) + number)
        if at >= packed.size:
            return
        c, k = uint32(turn * uint32(channels) + channel), uint32(block * uint32(filters) + number)
        g = cuda.local.array(9, float32)
        rows = cuda.local.array(12, float32)
        for i in range(9):
            g[i] = float32(0)
            if c < C and k < K:
                g[i] = weight[uint32(uint32(k * k_stride + c * c_stride) + uint32(int32(first + i * tap_step)))]
        half = float32(0.5)
        for j in range(3):
            even, odd = float32(g[j] + g[6 + j]), g[3 + j]
            rows[j], rows[3 + j], rows[6 + j], rows[9 + j] = g[j], float32(even + odd) * half, float32(even - odd) * half, g[6 + j]
        for i in range(4):
            even, odd = float32(rows[3 * i] + rows[3 * i + 2]), rows[3 * i + 1]
            packed[uint32(at + uint32(4 * i * step))] = rows[3 * i]
            packed[uint32(at + uint32((4 * i + 1) * step))] = float32(even + odd) * half
            packed[uint32(at + uint32((4 * i + 2) * step))] = float32(even - odd) * half
            packed[uint32(at + uint32((4 * i + 3) * step))] = rows[3 * i + 2]

    return pack_winograd_kernel


@functools.cache
def ending(tile: WinogradTile) -> tuple[Any, Any]:
    """The device functions at the end of a block: one that writes the outputs and notes tiles that are not finite, one that computes these
    once more. Those that branch most have no line numbers, with which nvJitLink 13 cannot compile the kernel (patch.py)."""
    BM, TM, TN, threads = tile.tiles, tile.TM, tile.TN, tile.threads
    (lanes_m, lanes_n), at_once, pitch = tile.lanes, tile.at_once, tile.pitch
    a_patch, b_patch = lanes_m * 4, lanes_n * 4
    point_step = at_once * pitch  # from a point's sums to the next one's
    count = at_once * BM // threads  # tiles of a part that a thread finishes

    @device(forceinline=True)
    def number_of(part, number):
        """The block's filter whose sums are number `number` of those that are there in part `part`."""
        lane_n, odd = uint32(number % uint32(lanes_n)), uint32(number // uint32(lanes_n))
        return uint32(lane_n * uint32(4) + odd + uint32(part % uint32(2)) * uint32(2) + uint32(part // uint32(2)) * uint32(b_patch))

    @device(lines=False, forceinline=True)
    def write_pair(y, extra, at, second, v0, v1, shift, epilogue):
        """Two results side by side, or the first of them."""
        vector, extra_role, relu = epilogue
        v0, v1 = finish(v0, shift, relu), finish(v1, shift, relu)
        if vector:
            if extra_role == MASK:
                m0, m1 = load_2(extra, uint64(at))
                v0, v1 = kept(v0, m0), kept(v1, m1)
            store_2(y, uint64(at), v0, v1)
        else:
            y[at] = kept(v0, extra[at]) if extra_role == MASK else v0
            if second:
                beside_it = uint32(at + uint32(1))
                y[beside_it] = kept(v1, extra[beside_it]) if extra_role == MASK else v1

    @device(forceinline=True)
    def down(shared, at):
        """A column of Aᵀ·m: the sums of its four points, made into two numbers."""
        m0, m1 = shared[at], shared[beyond(at, 4 * point_step)]
        m2, m3 = shared[beyond(at, 8 * point_step)], shared[beyond(at, 12 * point_step)]
        return float32(float32(m0 + m1) + m2), float32(float32(m1 - m2) + m3)

    @device(forceinline=True)
    def finish_tile(part, i, shared, y, extra, place, first_filter, thread, sizes, target, epilogue):
        """The outputs of a thread's tile number i of a part; whether all of them are finite."""
        _, K, _, _, _, _, _ = sizes
        P, Q, plane, _ = target
        there, p, q, out = place
        number = uint32(uint32(thread // uint32(BM)) + uint32(i * (threads // BM)))
        k = uint32(first_filter + number_of(uint32(part), number))
        at = uint32(uint32(number * uint32(pitch) + uint32(thread % uint32(BM))))
        a0, b0 = down(shared, beyond(at, 0))
        a1, b1 = down(shared, beyond(at, point_step))
        a2, b2 = down(shared, beyond(at, 2 * point_step))
        a3, b3 = down(shared, beyond(at, 3 * point_step))
        v00, v01 = float32(float32(a0 + a1) + a2), float32(float32(a1 - a2) + a3)
        v10, v11 = float32(float32(b0 + b1) + b2), float32(float32(b1 - b2) + b3)
        if not there or k >= K:
            return True
        _, extra_role, _ = epilogue
        shift = extra[k] if extra_role == BIAS else float32(0)
        here, second = uint32(out + k * plane), uint32(q + uint32(1)) < Q
        write_pair(y, extra, here, second, v00, v01, shift, epilogue)
        if uint32(p + uint32(1)) < P:
            write_pair(y, extra, uint32(here + Q), second, v10, v11, shift, epilogue)
        zero = float32(0)
        return v00 * zero + v01 * zero + v10 * zero + v11 * zero == zero

    @device(forceinline=True)
    def put_sums(part, shared, at, sums):
        """Columns 2 · part and 2 · part + 1 of a thread's sums."""
        for point in range(2):
            for odd in range(2):
                for i in range(0, TM, 4):
                    own = (point * TM + i) * TN + 2 * part + odd
                    to = beyond(at, (point * at_once + odd * lanes_n) * pitch + i // 4 * a_patch)
                    store_4(shared, to, sums[own], sums[own + TN], sums[own + 2 * TN], sums[own + 3 * TN])

    @device(forceinline=True)
    def finish_part(part, shared, y, extra, put_at, place, first_filter, thread, sizes, target, epilogue, sums, bad):
        """The outputs of two columns of all threads' sums. bad[0]: a bit for each tile of the thread that is not finite."""
        put_sums(part, shared, put_at, sums)
        cuda.syncthreads()
        for i in range(count):
            if not finish_tile(part, i, shared, y, extra, place, first_filter, thread, sizes, target, epilogue):
                bad[0] = uint32(bad[0] | uint32(1 << (part * count + i)))
        cuda.syncthreads()

    finish_all = unrolled(finish_part, TN // 2)

    @device(lines=False, forceinline=True)
    def directly(x, weight, channels, source, taps, n, k, h, w):
        """One output, by the sum that it is, in the order of plain.py. Padding is left out."""
        H, W, area, image, _, _ = source
        k_stride, c_stride, first, tap_step = taps
        total = float32(0)
        for c in range(int32(channels)):
            for tap in range(9):
                row, column = int32(h + tap // 3), int32(w + tap % 3)
                if uint32(row) < H and uint32(column) < W:
                    pixel = x[uint32(uint32(n * image + uint32(c) * area) + uint32(uint32(row) * W + uint32(column)))]
                    total += weight[uint32(uint32(k * k_stride + uint32(c) * c_stride) + uint32(int32(first + tap * tap_step)))] * pixel
        return total

    @device(lines=False, forceinline=True)
    def once_more(x, weight, extra, y, bad, sizes, source, target, taps, epilogue, n, place, first_filter, thread):
        """The tiles of a thread that are not finite."""
        channels, _, _, _, _, _, _ = sizes
        _, _, _, _, origin_h, origin_w = source
        P, Q, plane, _ = target
        _, extra_role, relu = epilogue
        _, p, q, out = place
        number = uint32(0)
        while bad != uint32(0):
            if uint32(bad & uint32(1)) != uint32(0):
                part, i = split(number, uint32(count))
                own = uint32(uint32(thread // uint32(BM)) + i * uint32(threads // BM))
                k = uint32(first_filter + number_of(part, own))
                for output in range(4):
                    row, column = uint32(p + uint32(output // 2)), uint32(q + uint32(output % 2))
                    if row < P and column < Q:
                        at = uint32(out + uint32(k * plane + uint32(uint32(output // 2) * Q + uint32(output % 2))))
                        h, w = int32(int32(row) + origin_h), int32(int32(column) + origin_w)
                        value = directly(x, weight, channels, source, taps, n, k, h, w)
                        value = finish(value, extra[k] if extra_role == BIAS else float32(0), relu)
                        y[at] = kept(value, extra[at]) if extra_role == MASK else value
            bad = uint32(bad >> uint32(1))
            number = uint32(number + uint32(1))

    return finish_all, once_more
