"""Estimates of how well a tile suits a product, for selecting kernels when nothing was measured."""

from __future__ import annotations

from typing import Any

from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.engine.cut import best_cut

_PLAIN = {"conv2d": (1 / 40, 1), "conv2d_input_grad": (1 / 40, 1), "conv2d_weight_grad": (1 / 128, 32)}
"""By operation: the speed of the plain kernels on a full chip, as a fraction of the engine's, and the threads that share a result. As
predicted for an H100, where a group has few channels or filters. For other operations, an eighth at any size."""
_THREADS = 1024  # on a multiprocessor, from which a plain kernel has its speed
LEAST_STEPS = 16
"""Blocks of BK steps per slice: filling and writing a tile must not take as long as the sum."""
_MOST_SLICES = 128
# What slices cost, in FMAs that a multiprocessor could do meanwhile, as predicted for an H100: to launch their sum, and to write and read
# an element of one.
_LAUNCH, _ELEMENT = 400_000, 32


def half_is_padding(size: int) -> bool:
    """Whether the last tile of 64 over so many rows or columns is padding by half or more: one of 32 is made for it."""
    return (size - 1) % 64 < 32


def _plain(problem: Problem, chip: Chip) -> float:
    """The fraction of the engine's speed that the plain kernel reaches: a tile of which less is used is not selected."""
    if problem.operation not in _PLAIN:
        return 1 / 8
    speed, threads = _PLAIN[problem.operation]
    return speed * min(1.0, problem.groups * problem.M * problem.N * threads / (chip.multiprocessors * _THREADS))


def weigh(
    problem: Problem,
    chip: Chip,
    *,
    tile: Any,
    best: float,
    turned: bool = False,
    fills: bool = False,
    least_steps: int = LEAST_STEPS,
    evenly: bool = False,
) -> tuple[float, int]:
    """(merit, slices) of a product by tiles of BM × BN results, whose full tiles give `best`. `turned`: its rows are the problem's columns.
    `fills`: sums can be cut so that the blocks fill a chip (cut.py); where that helps, `slices` is the number of its multiprocessors.
    `evenly`: one block keeps a multiprocessor busy, so that all should have as many. Other products wait for memory more: for them, as many
    blocks as there is room for are best.

    The merit is the fraction of the work that is not padding to whole tiles, times the fraction of multiprocessors busy in the last round
    of blocks. If the sums may be cut, they are cut so that all multiprocessors have work, and
    no slice has fewer than `least_steps` blocks of steps.
    """
    rows, columns = (problem.N, problem.M) if turned else (problem.M, problem.N)
    least = _plain(problem, chip)
    tiles = -(-rows // tile.BM) * -(-columns // tile.BN)
    use = problem.M * problem.N / (tiles * tile.BM * tile.BN)
    if problem.channels:
        use *= problem.channels / (-(-problem.channels // tile.BK) * tile.BK)
    tiles *= problem.groups
    room = chip.multiprocessors * tile.blocks_per_sm
    steps = -(-problem.depth // tile.BK)
    slices = max(1, min(_MOST_SLICES, room // tiles, steps // least_steps)) if problem.cuts and tiles < room else 1
    blocks = tiles * slices
    # The last round of blocks is seldom full. If there is only one round, blocks share a multiprocessor no more than they must.
    rounds = -(-blocks // room)
    filled = blocks / (rounds * room) if rounds > 1 else min(1.0, blocks / chip.multiprocessors)
    if fills and use > least:
        depth = problem.depth // problem.channels * -(-problem.channels // tile.BK) * tile.BK
        time, cut = best_cut(tile, (rows, columns, depth), problem.groups, chip.multiprocessors)
        if cut.rest:
            filled, slices = min(1.0, filled / time), chip.multiprocessors
    elif evenly and slices > 1:
        slices = _evenly(tile, tiles, steps, slices, chip.multiprocessors)
    return (use * filled * best if use > least else -1.0), slices


def _evenly(tile: Any, tiles: int, steps: int, most: int, multiprocessors: int) -> int:
    """The number of slices, up to `most`, that takes the least time: as many blocks as there is room for may be one more on some
    multiprocessors than on others, which then wait. Asked are the numbers that fill all of them with one block, with two, and so on."""

    def time(slices: int) -> float:
        turns = -(-steps // slices)
        parts = -(-steps // turns)
        blocks = -(-tiles * parts // multiprocessors)
        warps = min(blocks, tile.blocks_per_sm) * tile.threads / 128  # on each scheduler
        speed = min(warps, 1.3 - 0.3 / warps)  # others go on while one waits for memory: 1.15 for two, as predicted
        sums = _LAUNCH + _ELEMENT * tiles * parts * tile.BM * tile.BN / multiprocessors if parts > 1 else 0
        return float(blocks * turns * tile.BM * tile.BN * tile.BK / speed + sums)

    asked = {max(1, min(most, blocks * multiprocessors // tiles)) for blocks in range(1, tile.blocks_per_sm + 1)}
    return min(sorted(asked), key=time)
