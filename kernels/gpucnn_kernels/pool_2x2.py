"""Max pooling by windows of 2 × 2, side by side and without padding, and its gradient: one thread for each window.

A thread reads or writes the four pixels of its window, two at a time where rows are even, so that a warp moves 256 bytes of neighbours by
one instruction. Forward that is 16 bytes read and 8 written per window, backward 8 and 16, and nothing twice. The last row and column of
odd images are set to zero by the threads of the last windows. The results are those of the general kernels (pool.py), bit by bit.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn_kernels.core._numba import cuda, float32, int32, uint32
from gpucnn_kernels.core.compile import device, kernel
from gpucnn_kernels.core.integers import divide, magic
from gpucnn_kernels.core.launch import Array, Window, aligned
from gpucnn_kernels.core.vector import load_2, store_2


def fits(window: Window) -> bool:
    """Whether windows are 2 × 2, side by side and inside the image."""
    return (
        window.kernel == window.stride == (2, 2)
        and window.dilation == (1, 1)
        and window.padding == ((0, 0), (0, 0))
        and window.output == (window.input[0] // 2, window.input[1] // 2)  # more with ceil_mode
    )


def pairs_of(image: Array, window: Window) -> bool:
    """Whether all rows of `image` begin at a multiple of 8 bytes."""
    return window.input[1] % 2 == 0 and aligned(image)


@functools.lru_cache(maxsize=256)
def sizes(window: Window) -> tuple[np.uint32, ...]:
    """H, W, P, Q, and the magic of P and of Q."""
    return (*(np.uint32(size) for size in (*window.input, *window.output)), *magic(window.output[0]), *magic(window.output[1]))


@functools.cache
def forward(pairs: bool) -> Any:
    """The kernel of 2 × 2 pooling: (x, y, indices, sizes), with the `sizes` of the window. `pairs`: all rows of x begin at 8 bytes."""

    @kernel
    def max_pool2d_2x2(x, y, indices, sizes):
        H, W, P, Q, p_magic, p_shift, q_magic, q_shift = sizes
        i = uint32(cuda.grid(1))
        if i >= y.size:
            return
        rest = divide(i, q_magic, q_shift)
        q = uint32(i - rest * Q)
        plane = divide(rest, p_magic, p_shift)
        h = uint32(uint32(rest - plane * P) * uint32(2))
        place = uint32(h * W + q * uint32(2))
        at = uint32(plane * uint32(H * W) + place)
        below = uint32(at + W)
        if pairs:
            v0, v1 = load_2(x, at)
            v2, v3 = load_2(x, below)
        else:
            v0, v1 = x[at], x[uint32(at + uint32(1))]
            v2, v3 = x[below], x[uint32(below + uint32(1))]
        best = v0
        winner = place
        if not (v1 <= best) and best == best:  # larger, or NaN over anything but NaN
            best = v1
            winner = uint32(place + uint32(1))
        if not (v2 <= best) and best == best:
            best = v2
            winner = uint32(place + W)
        if not (v3 <= best) and best == best:
            best = v3
            winner = uint32(place + W + uint32(1))
        y[i] = best
        indices[i] = int32(winner)

    return max_pool2d_2x2


@functools.cache
def gradient(pairs: bool, masked: bool = False) -> Any:
    """The kernel of its gradient: (dy, indices, dx, sizes), with y after indices where it is `masked`, and the `sizes` of the window.
    `pairs`: all rows of dx begin at 8 bytes."""

    @device(forceinline=True)
    def share(gradient, won, place):
        """A pixel's share, added to zero as in the general kernel, so that −0 becomes 0."""
        return float32(0) + gradient if won == int32(place) else float32(0)

    @device(forceinline=True)
    def hand_down(i, gradient, won, dx, sizes):
        """Writes the four pixels of window i, and those left over beside it."""
        H, W, P, Q, p_magic, p_shift, q_magic, q_shift = sizes
        rest = divide(i, q_magic, q_shift)
        q = uint32(i - rest * Q)
        plane = divide(rest, p_magic, p_shift)
        h = uint32(uint32(rest - plane * P) * uint32(2))
        w = uint32(q * uint32(2))
        place = uint32(h * W + w)
        at = uint32(plane * uint32(H * W) + place)
        below = uint32(at + W)
        v0 = share(gradient, won, place)
        v1 = share(gradient, won, uint32(place + uint32(1)))
        v2 = share(gradient, won, uint32(place + W))
        v3 = share(gradient, won, uint32(place + W + uint32(1)))
        last_row = uint32(h + uint32(3)) == H  # a row is left over, and this is the window above it
        if pairs:
            store_2(dx, at, v0, v1)
            store_2(dx, below, v2, v3)
            if last_row:
                store_2(dx, uint32(below + W), float32(0), float32(0))
        else:
            dx[at] = v0
            dx[uint32(at + uint32(1))] = v1
            dx[below] = v2
            dx[uint32(below + uint32(1))] = v3
            if last_row:
                dx[uint32(below + W)] = float32(0)
                dx[uint32(below + W + uint32(1))] = float32(0)
            if uint32(w + uint32(3)) == W:
                dx[uint32(at + uint32(2))] = float32(0)
                dx[uint32(below + uint32(2))] = float32(0)
                if last_row:
                    dx[uint32(below + W + uint32(2))] = float32(0)

    @kernel
    def max_pool2d_2x2_grad(dy, indices, dx, sizes):
        i = uint32(cuda.grid(1))
        if i < dy.size:
            hand_down(i, dy[i], indices[i], dx, sizes)

    @kernel
    def max_pool2d_2x2_relu_grad(dy, indices, y, dx, sizes):
        i = uint32(cuda.grid(1))
        if i < dy.size:
            gradient, maximum = dy[i], y[i]  # both at once: neither read waits for the other
            if not (maximum > float32(0)):
                gradient = float32(0)
            hand_down(i, gradient, indices[i], dx, sizes)

    return max_pool2d_2x2_relu_grad if masked else max_pool2d_2x2_grad
