"""Which kernels do an operation: the plain ones, those made for such shapes, or the engine, with which tile and how many slices.

The one place where that is chosen. What is said first counts:

    with override(conv2d="plain"): …                               for the calls inside
    GPUCNN_VARIANT="conv2d=plain,conv2d_weight_grad=tile128x64"    in the environment
    tuned.py                                                       what was fastest on this chip for this very shape (`gpucnn tune`)
    the rules below                                                for everything else

The rules are estimates: the share of the work that is not padding up to whole tiles, and the share of the multiprocessors that have
something to do in the last round of blocks.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from gpucnn_kernels.choose import problems, tuned
from gpucnn_kernels.choose.problems import Problem
from gpucnn_kernels.core._numba import SIMULATED, cuda
from gpucnn_kernels.core.launch import Window
from gpucnn_kernels.engine.tiles import Tile
from gpucnn_kernels.tensor.product import TensorTile
from gpucnn_kernels.tensor.weight_grad import TensorGradTile

TILES = {
    "tile128x128": Tile(128, 128, 8, 8, 8, 2),
    "tile128x64": Tile(128, 64, 8, 8, 8, 3),
    "tile64x64": Tile(64, 64, 8, 8, 8, 6),
}
TENSOR_TILES: dict[str, dict[str, TensorTile | TensorGradTile]] = {  # by Problem.tensor
    "": {},
    "gather": {f"tensor128x{columns}": TensorTile(columns) for columns in (128, 64, 32)},
    "grad": {f"tensor128x{columns}": TensorGradTile(columns) for columns in (128, 64, 32)},
}
"""On tensor cores: for compute capability 9.0, where an H100 has confirmed them (kernels/measured)."""
_TENSOR_CAPABILITY = (9, 0)
# What a full tile gives, as a part of what the first does: on an H100 43, 41 and 37 TFLOP/s, and 124, 93 and 62 on tensor cores. Smaller
# tiles read more numbers per FMA.
_MERIT = {
    "tile128x128": 1.0, "tile128x64": 0.95, "tile64x64": 0.85, "tensor128x128": 2.9, "tensor128x64": 2.15, "tensor128x32": 1.4,
}  # fmt: skip
OPERATIONS: dict[str, tuple[str, ...]] = {  # and their variants
    "conv2d": ("plain", "direct", "depthwise", *TILES, *TENSOR_TILES["gather"]),
    "conv2d_input_grad": ("plain", "depthwise", *TILES, *TENSOR_TILES["gather"]),
    "conv2d_weight_grad": ("plain", "direct", "depthwise", *TILES, *TENSOR_TILES["grad"]),
    "conv2d_relu_max_pool2d": ("plain", "direct"),  # plain: a convolution and a pooling
    "conv2d_relu_max_pool2d_weight_grad": ("plain", "direct"),
    "dense": ("plain", *TILES),
    "dense_input_grad": ("plain", *TILES),
    "dense_weight_grad": ("plain", *TILES),
}
VARIABLE = "GPUCNN_VARIANT"

_LEAST_TERMS = 32  # on tensor cores: a sum of fewer may be less exact than FMAs one after the other (tensor/product.py)
_LEAST_WORK = 1 << 20  # FMAs: less than that takes as long as a launch, however it is done
_LEAST_USE = 1 / 8  # of a tile's FMAs: the plain kernels do about so much of what the engine does
_LEAST_STEPS = 16  # blocks of BK steps per slice: filling and writing a tile must not take as long as the sum
_MOST_SLICES = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """What does an operation. With a tile it is a product: on the engine (Tile), or on tensor cores (TensorTile, TensorGradTile)."""

    variant: str
    tile: Any = None
    slices: int = 1


def choose(problem: Problem, variant: str | None = None) -> Choice:
    """What does `problem` on the current GPU. `variant` says so for this call.

    A variant that is known but cannot do such a shape is passed over. Raises ValueError for a variant or an operation that is not there.
    """
    operation = problem.operation
    said = variant or _override.get().get(operation) or _overrides(os.environ.get(VARIABLE, "")).get(operation)
    if isinstance(said, Choice):
        return said
    name = said
    if variant:
        _check(operation, variant)
    if name is None:
        found = tuned.lookup(chip_name(), problem.key)
        if found is not None and found[0] in variants(problem):
            return Choice(found[0], tiles_for(problem).get(found[0]), found[1])
    known = name is not None and name in variants(problem)
    return _choose(problem, name if known else None, multiprocessors(), tuple(tiles_for(problem)))


def variants(problem: Problem) -> tuple[str, ...]:
    """All that can do it on the current GPU."""
    return ("plain", *problem.made_for, *tiles_for(problem))


def tiles_for(problem: Problem) -> dict[str, Tile | TensorTile | TensorGradTile]:
    """The tiles of products that can do it on the current GPU."""
    found: dict[str, Tile | TensorTile | TensorGradTile] = {}
    if problem.products:
        found |= TILES
    if has_tensor_cores() and problem.depth >= _LEAST_TERMS:
        found |= TENSOR_TILES[problem.tensor]
    return found


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, name: str | None, sms: int, products: tuple[str, ...]) -> Choice:
    M, N, depth, groups = problem.M, problem.N, problem.depth, problem.groups
    if name == "plain" or (name is None and groups * M * N * depth < _LEAST_WORK):
        return Choice("plain")
    if name in problem.made_for or (name is None and problem.made_for):
        return Choice(name or problem.made_for[0])
    best, best_merit = Choice("plain"), _LEAST_USE
    for candidate in [name] if name else products:
        tile = TILES.get(candidate) or TENSOR_TILES[problem.tensor][candidate]
        rows, columns = (N, M) if isinstance(tile, TensorGradTile) else (M, N)  # its rows are channels and taps
        tiles = -(-rows // tile.BM) * -(-columns // tile.BN)
        use = M * N / (tiles * tile.BM * tile.BN)
        if problem.channels:
            use *= problem.channels / (-(-problem.channels // tile.BK) * tile.BK)
        tiles *= groups
        room = sms * tile.blocks_per_sm
        steps = -(-depth // tile.BK)
        slices = max(1, min(_MOST_SLICES, room // tiles, steps // _LEAST_STEPS)) if problem.cuts and tiles < room else 1
        blocks = tiles * slices
        # The last round of blocks is seldom full. Where there is but one, blocks share a multiprocessor no more than they must.
        rounds = -(-blocks // room)
        filled = blocks / (rounds * room) if rounds > 1 else min(1.0, blocks / sms)
        merit = use * filled * _MERIT[candidate]
        if name is not None or (use > _LEAST_USE and merit > best_merit * (best.tile is not None)):
            best, best_merit = Choice(candidate, tile, slices), merit
    return best


# One function for each operation.


def conv2d(n: int, c: int, k: int, window: Window, groups: int = 1) -> Choice:
    """For the forward convolution of n images of c channels by k filters."""
    return choose(problems.conv2d(n, c, k, window, groups))


def conv2d_input_grad(n: int, c: int, k: int, window: Window, groups: int = 1) -> Choice:
    """For its gradient of the input."""
    return choose(problems.conv2d_input_grad(n, c, k, window, groups))


def conv2d_weight_grad(n: int, c: int, k: int, window: Window, groups: int = 1) -> Choice:
    """For its gradient of the weight."""
    return choose(problems.conv2d_weight_grad(n, c, k, window, groups))


def conv2d_relu_max_pool2d(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1) -> Choice:
    """For a convolution, ReLU and max pooling."""
    return choose(problems.conv2d_relu_max_pool2d(n, c, k, window, pool_window, groups))


def conv2d_relu_max_pool2d_weight_grad(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1) -> Choice:
    """For its gradient of the weight, from that of the pooled values."""
    return choose(problems.conv2d_relu_max_pool2d_weight_grad(n, c, k, window, pool_window, groups))


def dense(n: int, c: int, k: int) -> Choice:
    """For n rows of c numbers made into k."""
    return choose(problems.product("dense", n, k, c))


def dense_input_grad(n: int, c: int, k: int) -> Choice:
    """For its gradient of the input."""
    return choose(problems.product("dense_input_grad", n, c, k))


def dense_weight_grad(n: int, c: int, k: int) -> Choice:
    """For its gradient of the weight."""
    return choose(problems.product("dense_weight_grad", k, c, n))


# What the choice depends on besides the problem.

_override: ContextVar[dict[str, str | Choice]] = ContextVar("override", default={})  # noqa: B039  (never written to)
_chip: ContextVar[tuple[str, int, tuple[int, int]] | None] = ContextVar("chip", default=None)


@contextmanager
def override(variants: Mapping[str, str | Choice] | None = None, **more: str | Choice) -> Iterator[None]:
    """Variants by the names of operations, for the calls inside; a Choice is taken as it is. Raises ValueError for what is not there."""
    chosen = {**(variants or {}), **more}
    for operation, said in chosen.items():
        _check(operation, said.variant if isinstance(said, Choice) else said)
    token = _override.set({**_override.get(), **chosen})
    try:
        yield
    finally:
        _override.reset(token)


@contextmanager
def for_chip(sms: int, name: str = "", capability: tuple[int, int] = (0, 0)) -> Iterator[None]:
    """Chooses as on a chip of `sms` multiprocessors and a compute capability, which need not be there."""
    token = _chip.set((name, sms, capability))
    try:
        yield
    finally:
        _chip.reset(token)


def multiprocessors() -> int:
    """How many the current GPU has; under the simulator, as many as an H100."""
    chip = _chip.get()
    return _present()[1] if chip is None else chip[1]


def chip_name() -> str:
    """What the driver calls the current GPU; "" for the simulator."""
    chip = _chip.get()
    return _present()[0] if chip is None else chip[0]


def has_tensor_cores() -> bool:
    """Whether the current GPU is one for whose tensor cores there are kernels here."""
    chip = _chip.get()
    return (_present() if chip is None else chip)[2] == _TENSOR_CAPABILITY and not SIMULATED


@functools.cache
def _present() -> tuple[str, int, tuple[int, int]]:
    if SIMULATED:
        return "", 132, (0, 0)
    current = cuda.get_current_device()
    name = current.name.decode() if isinstance(current.name, bytes) else str(current.name)
    major, minor = current.compute_capability[:2]
    return name, int(current.MULTIPROCESSOR_COUNT), (int(major), int(minor))


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


def _check(operation: str, name: str) -> None:
    if operation not in OPERATIONS:
        raise ValueError(f"unknown operation {operation!r}: the operations with variants are {', '.join(OPERATIONS)}")
    if name not in OPERATIONS[operation]:
        raise ValueError(f"unknown variant {name!r} of {operation}: the variants are {', '.join(OPERATIONS[operation])}")
