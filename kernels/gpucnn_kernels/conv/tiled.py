"""Convolution as a product of matrices that are never stored: fast forward and gradients on the engine.

                    rows of a (M)          columns of b (N)       depth (K of the product)
    forward         positions n, p, q      filters                channels of x × taps
    input gradient  pixels n, h, w         channels of x          filters × taps
    weight gradient filters                channels of x × taps   positions n, p, q

The first two are one product. Position p reads by tap r the row p·stride − top + r·dilation of x. And row h = i·stride + a of dx gathers
by tap r from row p = i + (a + top − r·dilation) / stride of dy, if that is an integer. So pixels fall into stride × stride classes
by their remainders a, b; the taps that a class needs lie at regular distances, and along them p moves by constant steps. Each class is a
launch. A class without taps sums nothing and writes zeros.

For both the weights are first rewritten, in a workspace, as [group][tap][channel][filter] (for the gradient [filter][channel]), with zeros
up to whole tiles: then the engine reads them four at a time and without a comparison. They are small beside the images.

The weight gradient has few results and long sums. So each sum is cut into slices that are computed side by side in a workspace and then
added, always in the same order: the bits are always the same. Forward, and for the gradient of the input, only sums of the tiles that
would leave a part of the chip idle are cut (engine/cut.py).

A weight that is infinite or NaN makes NaN of the padding that it meets, as in every product of matrices: 0 · ∞ is NaN. The plain kernels
(plain.py) leave padding out of the sum.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from gpucnn_kernels.conv.classes import Gather, Sizes, Sum, forward, input_grad, weight_grad
from gpucnn_kernels.conv.plain import weight_shape
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.integers import split
from gpucnn_kernels.core.launch import Array, Stream, Window, aligned, floats, images, run_each
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.engine.cut import Cutter, cut_of
from gpucnn_kernels.engine.merit import half_is_padding, weigh
from gpucnn_kernels.engine.operands import GRADIENT, IMAGES, PIXELS, gradients, matrix, taps
from gpucnn_kernels.engine.product import Last, Product, product, room
from gpucnn_kernels.engine.tiles import BEST, BIAS, MASK, NARROW, NOTHING, SHORT, SUMS, TILES, Tile
from gpucnn_kernels.tensor.accuracy import enough
from gpucnn_kernels.tensor.chips import UNCONFIRMED, groups_there


@kernel
def pack_kernel(weight, packed, sizes, taps):
    """packed[group][tap t, u][c][n] = weight at tap (first + t·step, …), or 0 past the last c and n, and past the last group. taps:
    `Gather.weights`."""
    N, padded_n, C, padded_c = sizes
    T, U, S, group_size, n_stride, c_stride, first_r, first_s, step_r, step_s = taps
    i = uint32(cuda.grid(1))
    if i >= packed.size:
        return
    rest, n = split(i, padded_n)
    rest, c = split(rest, padded_c)
    rest, u = split(rest, U)
    group, t = split(rest, T)
    value = float32(0)
    if n < N and c < C and uint32(group * group_size) < uint32(weight.size):
        tap = uint32(uint32(first_r + t * step_r) * S + uint32(first_s + u * step_s))
        value = weight[uint32(uint32(group * group_size + n * n_stride) + uint32(c * c_stride + tap))]
    packed[i] = value


@dataclass(frozen=True, slots=True)
class Part:
    """A launch, and the weights that are rewritten before it."""

    product: Product
    packed: int  # elements of the rewritten weights, and of the zeros behind them
    pack_kernel: Any
    pack_threads: int
    pack: tuple[Any, ...]
    slices: int = 0  # elements behind those, for sums that are cut


@dataclass(frozen=True, slots=True)
class Epilogue:
    """The steps after the sum, whether the result may be written four numbers at a time, and the number of multiprocessors that blocks are
    to fill by cutting sums; of 1, none is cut."""

    extra: int = NOTHING
    relu: bool = False
    vector: bool = True
    fill: int = 1


Gatherer: TypeAlias = Callable[[Any, Gather, Epilogue], Part]  # a tile, what is gathered, what comes after
Weigh: TypeAlias = Callable[[Problem, Chip], tuple[float, int]]
Summer: TypeAlias = Callable[[Any, Sum, int, bool, int], Product]  # a tile, what is summed, what `extra` is for, by fours, slices


def gather(tile: Tile, one: Gather, epilogue: Epilogue, cut_of: Cutter = cut_of) -> Part:
    """A class of pixels on the engine."""
    padded_c, padded_n = one.padded(tile)
    depth = one.taps * padded_c
    packed = depth * padded_n * one.groups
    rows, walk, put = one.arguments(padded_c, packed)
    by_fours = epilogue.vector and one.plane % 4 == 0 and one.side_by_side
    weights = matrix("rows", 4), tuple(map(np.uint32, (1, padded_n, depth * padded_n, padded_n, depth)))
    last, sizes = (by_fours, epilogue.extra, epilogue.relu), (one.M, one.N, depth)
    cut = cut_of(tile, sizes, one.groups, epilogue.fill)
    zeroed, slices = (cut.zeroed(tile, 4), cut.sums(tile)) if cut else (0, 0)
    scratch = packed, packed + zeroed
    made = product(
        tile, (PIXELS, (rows, walk)), weights, (IMAGES, put), sizes, last, groups=one.groups, cut=cut, scratch=scratch, past_registers=True
    )
    how = tuple(map(np.uint32, (one.N, padded_n, one.C, padded_c))), one.weights
    return Part(made, packed + zeroed, pack_kernel, packed + zeroed, how, slices)


def total(tile: Tile, one: Sum, extra: int, vector: bool, slices: int) -> Product:
    """The gradient of a weight on the engine. Both factors lie along the depth, so that past registers, each number would be a copy of its
    own: predicted to take longer with each of the tiles."""
    width = 4 if vector and one.plane % 4 == 0 else 1
    last = vector and one.N % 4 == 0, extra, False
    a, b = (gradients(width, tile.guards), one.dy), (taps(tile.guards), (one.rows, one.walk))
    return product(tile, a, b, (GRADIENT, ()), (one.M, one.N, one.depth), last, groups=one.groups, slices=slices)


@functools.lru_cache(maxsize=256)
def _forward(sizes: Sizes, tile: Any, make: Gatherer, epilogue: Epilogue, step: int = 0) -> tuple[Part, ...]:
    return tuple(make(tile, each, epilogue) for each in forward(sizes, step))


@functools.lru_cache(maxsize=256)
def _input_grad(sizes: Sizes, tile: Any, make: Gatherer, epilogue: Epilogue, step: int = 0) -> tuple[Part, ...]:
    return tuple(make(tile, each, epilogue) for each in input_grad(sizes, step))


@functools.lru_cache(maxsize=256)
def _weight_grad(sizes: Sizes, tile: Any, make: Summer, extra: int, vector: bool, slices: int, step: int = 0) -> Product:
    return make(tile, weight_grad(sizes, step), extra, vector, slices)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    window: Window,
    groups: int = 1,
    relu: bool = False,
    stream: Stream = 0,
    *,
    workspace: Array | None = None,
    slices: int = 1,
    tile: Any,
    make: Gatherer = gather,
) -> None:
    """plain.conv2d by tiles. `workspace`: as many elements as the variant's says, or more, flat. `slices`: the number of multiprocessors
    that blocks are to fill, by cutting sums where that helps; of 1, none is cut."""
    (n, c), k = x.shape[:2], weight.shape[0]
    x, weight = floats(x, "x", (n, c, *window.input)), floats(weight, "weight", weight_shape(k, c, window, groups))
    bias_or_any = x if bias is None else floats(bias, "bias", (k,))
    y, step = images(y, "y", (n, k, *window.output))
    epilogue = Epilogue(NOTHING if bias is None else BIAS, relu, aligned(y) and step % 4 == 0, slices)
    _run(_forward((n, c, k, window, groups), tile, make, epilogue, step), x, weight, bias_or_any, y, workspace, stream)


def conv2d_input_grad(
    dy: Array,
    weight: Array,
    dx: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    relu: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
    tile: Any,
    make: Gatherer = gather,
) -> None:
    """plain.conv2d_input_grad by tiles. `workspace` and `slices`: as of `conv2d`."""
    (n, k), c = dy.shape[:2], weight.shape[1] * groups
    dy, step = images(dy, "dy", (n, k, *window.output))
    weight, dx = floats(weight, "weight", weight_shape(k, c, window, groups)), floats(dx, "dx", (n, c, *window.input))
    if relu is None:
        extra, epilogue = dy, Epilogue(NOTHING, False, aligned(dx), slices)
    else:
        extra = floats(relu, "relu", (n, c, *window.input))
        epilogue = Epilogue(MASK, False, aligned(dx) and aligned(extra), slices)
    _run(_input_grad((n, c, k, window, groups), tile, make, epilogue, step), dy, weight, extra, dx, workspace, stream)


def conv2d_weight_grad(
    dy: Array,
    x: Array,
    dweight: Array,
    window: Window,
    groups: int = 1,
    stream: Stream = 0,
    *,
    dbias: Array | None = None,
    workspace: Array | None = None,
    slices: int = 1,
    tile: Any,
    make: Summer = total,
) -> None:
    """plain.conv2d_weight_grad by tiles, with the sums in `slices`. `workspace`: as many elements as the variant's says, or more, flat."""
    (n, k), c = dy.shape[:2], x.shape[1]
    (dy, step), x = images(dy, "dy", (n, k, *window.output)), floats(x, "x", (n, c, *window.input))
    dweight = floats(dweight, "dweight", weight_shape(k, c, window, groups))
    extra, extra_role = (None, NOTHING) if dbias is None else (floats(dbias, "dbias", (k,)), SUMS)
    vector = aligned(dy) and aligned(dweight) and step % 4 == 0
    plan = _weight_grad((n, c, k, window, groups), tile, make, extra_role, vector, slices, step)
    plan.run_whole((dy, x, dweight), Last(extra, extra_role), workspace, stream)


def _run(
    parts: tuple[Part, ...], source: Array, weight: Array, extra: Array, target: Array, workspace: Array | None, stream: Stream
) -> None:
    for part in parts:
        packed = weight
        if part.packed:
            packed = room(workspace, part.packed + part.slices)
            first = packed[: part.packed] if part.slices else packed
            run_each(part.pack_kernel, part.pack_threads, stream, weight, first, *part.pack)
        part.product.run(source, packed, extra, target, stream)


def gathering(name: str, tile: Any, best: float, make: Gatherer = gather, fills: bool = False, **more: Any) -> dict[str, Variant]:
    """The gathering variants of that name by operation, on tiles of which a full one gives `best` (engine/merit.py). `fills`: whether
    `make` cuts sums so that blocks fill the chip."""

    def room_of(plan: Callable[..., tuple[Part, ...]]) -> Callable[[Problem, int], int]:
        return lambda problem, slices: max(part.packed + part.slices for part in plan(_sizes(problem), tile, make, Epilogue(fill=slices)))

    measure, launchers = functools.partial(weigh, tile=tile, best=best, fills=fills), ((conv2d, _forward), (conv2d_input_grad, _input_grad))
    return {
        launcher.__name__: Variant(
            name,
            functools.partial(launcher, tile=tile, make=make),
            workspace=room_of(plan),
            weigh=measure,
            slices=fills,
            parts=True,
            **more,
        )
        for launcher, plan in launchers
    }


def summing(name: str, tile: Any, best: float, make: Summer = total, turned: bool = False, **more: Any) -> dict[str, Variant]:
    """Likewise for the gradient of the weight. `turned`: the rows of its tiles are channels and taps."""

    def room_of(problem: Problem, slices: int) -> int:
        """With a gradient of the bias or without; none where the sums are not cut."""
        plan = _weight_grad(_sizes(problem), tile, make, NOTHING, True, slices)
        return plan.slices * problem.k * (problem.N + 1) if plan.slices > 1 else 0

    launch = functools.partial(conv2d_weight_grad, tile=tile, make=make)
    measure = functools.partial(weigh, tile=tile, best=best, turned=turned)
    return {"conv2d_weight_grad": Variant(name, launch, workspace=room_of, weigh=measure, slices=True, parts=True, **more)}


UNCUT = ("tile128x128",)
"""Tiles whose threads have no register left for what cutting sums takes: they would spill."""


def _sizes(problem: Problem) -> Sizes:
    return problem.n, problem.c, problem.k, problem.windowed, problem.groups


def variants(name: str, tile: Tile, best: float) -> dict[str, Variant]:
    """The engine's variants of that name, by operation."""
    return {**gathering(name, tile, best, fills=name not in UNCUT), **summing(name, tile, best)}


ALL = [variants(name, tile, BEST[name]) for name, tile in TILES.items()]


def _beside_tensor_cores(problem: Problem, chip: Chip, weigh: Weigh) -> tuple[float, int]:
    """On Hopper, which has tiles of 32 columns on tensor cores, `gpucnn tune` finds out where FMAs are faster: for 16 channels, say."""
    merit, slices = weigh(problem, chip)
    return (UNCONFIRMED if groups_there(chip) and enough(problem.depth, problem.bits) else merit), slices


def narrow(name: str, tile: Tile, best: float) -> dict[str, Variant]:
    """The engine's variants of that name for up to 32 filters, or channels where the gradient of the input is wanted; or 96, and so on."""
    made = gathering(name, tile, best, fills=True, fits=lambda problem, chip: half_is_padding(problem.N))
    return {key: replace(each, weigh=functools.partial(_beside_tensor_cores, weigh=each.weigh)) for key, each in made.items()}


GATHERING = [narrow(name, tile, BEST[name]) for name, tile in NARROW.items()]
SUMMING = [summing(name, tile, BEST[name], fits=lambda problem, chip: half_is_padding(problem.M)) for name, tile in SHORT.items()]
"""For the gradient of a weight with so many filters."""
