"""Which kernels do an operation: the plain ones, or the engine, with which tile and how many slices. The one place where that is chosen.

    GPUCNN_VARIANT="conv2d=plain,conv2d_weight_grad=tile128x64"    in the environment, overrides it for operations by name
    choose("conv2d", …, variant="plain")                           overrides that for one call

The rules are estimates: the share of the work that is not padding up to whole tiles, and the share of the multiprocessors that have
something to do in the last round of blocks.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from gpucnn_kernels._numba import SIMULATED, cuda
from gpucnn_kernels.launch import Window
from gpucnn_kernels.tiles import Tile

TILES = {
    "tile128x128": Tile(128, 128, 8, 8, 8, 2),
    "tile128x64": Tile(128, 64, 8, 8, 8, 3),
    "tile64x64": Tile(64, 64, 8, 8, 8, 6),
}
_MERIT = {"tile128x128": 1.0, "tile128x64": 0.95, "tile64x64": 0.85}  # smaller tiles read more numbers per FMA
VARIANTS = ("plain", *TILES)
OPERATIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "dense", "dense_input_grad", "dense_weight_grad")
VARIABLE = "GPUCNN_VARIANT"

_LEAST_WORK = 1 << 20  # FMAs: less than that takes as long as a launch, however it is done
_LEAST_USE = 1 / 8  # of a tile's FMAs: the plain kernels do about so much of what the engine does
_LEAST_STEPS = 16  # blocks of BK steps per slice: filling and writing a tile must not take as long as the sum
_MOST_SLICES = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """What does an operation. No tile: the plain kernel."""

    variant: str
    tile: Tile | None
    slices: int = 1


def choose(
    operation: str, M: int, N: int, depth: int, *, channels: int = 0, groups: int = 1, slice_limit: int = _MOST_SLICES,
    variant: str | None = None,
) -> Choice:  # fmt: skip
    """For a product of M × N results with sums of `depth` terms, in each of `groups`. `channels`, where depth is channels × taps and every
    tap is filled up to whole blocks of channels, is how many there are; a `slice_limit` of 1 says that the sums cannot be cut.

    Raises ValueError for a variant or an operation that is not there.
    """
    name = variant or _overrides(os.environ.get(VARIABLE, "")).get(operation)
    _check(operation, name)
    return _choose(M, N, depth, channels, groups, slice_limit, name, multiprocessors())


@functools.lru_cache(maxsize=1024)
def _choose(M: int, N: int, depth: int, channels: int, groups: int, slice_limit: int, name: str | None, sms: int) -> Choice:
    if name == "plain" or (name is None and groups * M * N * depth < _LEAST_WORK):
        return Choice("plain", None)
    best, best_merit = Choice("plain", None), _LEAST_USE
    for candidate in TILES if name is None else [name]:
        tile = TILES[candidate]
        tiles = -(-M // tile.BM) * -(-N // tile.BN)
        use = M * N / (tiles * tile.BM * tile.BN)
        if channels:
            use *= channels / (-(-channels // tile.BK) * tile.BK)
        tiles *= groups
        room = sms * tile.blocks_per_sm
        steps = -(-depth // tile.BK)
        slices = max(1, min(slice_limit, room // tiles, steps // _LEAST_STEPS)) if tiles < room else 1
        blocks = tiles * slices
        # The last round of blocks is seldom full. Where there is but one, blocks share a multiprocessor no more than they must.
        rounds = -(-blocks // room)
        filled = blocks / (rounds * room) if rounds > 1 else min(1.0, blocks / sms)
        merit = use * filled * _MERIT[candidate]
        if name is not None or (use > _LEAST_USE and merit > best_merit * (best.tile is not None)):
            best, best_merit = Choice(candidate, tile, slices), merit
    return best


def conv2d(n: int, c: int, k: int, window: Window, groups: int) -> Choice:
    """For the forward convolution."""
    group_c, taps = c // groups, window.kernel[0] * window.kernel[1]
    return choose(
        "conv2d", n * window.output[0] * window.output[1], k // groups, group_c * taps, channels=group_c, groups=groups, slice_limit=1
    )


def conv2d_input_grad(n: int, c: int, k: int, window: Window, groups: int) -> Choice:
    """For the gradient of the input: of the largest of its classes of pixels (implicit_gemm.py)."""
    M, group_k, depth = n, k // groups, k // groups
    for axis in (0, 1):
        M *= -(-window.input[axis] // window.stride[axis])
        depth *= -(-window.kernel[axis] // window.stride[axis])
    return choose("conv2d_input_grad", M, c // groups, depth, channels=group_k, groups=groups, slice_limit=1)


def conv2d_weight_grad(n: int, c: int, k: int, window: Window, groups: int) -> Choice:
    """For the gradient of the weight."""
    N = c // groups * window.kernel[0] * window.kernel[1]
    return choose("conv2d_weight_grad", k // groups, N, n * window.output[0] * window.output[1], groups=groups)


@functools.cache
def multiprocessors() -> int:
    """How many the current GPU has; under the simulator, as many as an H100."""
    return 132 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


@functools.lru_cache(maxsize=16)
def _overrides(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        operation, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{VARIABLE} holds {part!r}: write operation=variant, separated by commas")
        _check(operation, name)
        found[operation] = name
    return found


def _check(operation: str, name: str | None) -> None:
    if operation not in OPERATIONS:
        raise ValueError(f"unknown operation {operation!r}: the operations with variants are {', '.join(OPERATIONS)}")
    if name is not None and name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r} of {operation}: the variants are {', '.join(VARIANTS)}")
