"""What an operation asks of a chip: floating-point work, and bytes. Counted, not measured.

    Work.flops        what the operation is, whoever does it: an FMA counts as two, as it does for cuDNN and PyTorch. A convolution has
                      2·N·K·P·Q·(C/groups)·R·S, taps that fall on padding included, though the plain kernels leave those out.
    Work.least_bytes  each number of the inputs that is needed read once, each number of the outputs written once: no kernel moves less
    Work.moved_bytes  what the kernels that do it ask for, before any cache: what all threads together read from global memory and write
                      to it. A number that ten blocks copy to their shared memory counts ten times, and so do the parts of long sums that
                      are written and read back, and the rewritten weights. Threads of a warp that read one number count each. What a
                      step reads in place of arguments, its rates and how often dropout was called, does not count.

The time that a chip needs at least is that of the slower of its two ceilings (S. Williams et al., "Roofline", CACM 2009): its arithmetic
takes flops / fp32, its memory least_bytes / bandwidth. How much of moved_bytes the caches serve decides how near a kernel comes.

The counts follow the kernels' loops step by step, including what is clumsy in them: that the last tile is read twice (engine/loop.py says
why), that rows past the last are read in place of branching. tests/kernels/simulator/test_work.py counts them in running kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpucnn.profiling.chip.chips import Chip
from gpucnn_kernels import loss
from gpucnn_kernels.choose import select
from gpucnn_kernels.conv import depthwise, direct, pooled_grad
from gpucnn_kernels.conv.parts import GradPlan
from gpucnn_kernels.conv.patch import Patch
from gpucnn_kernels.core.launch import Window
from gpucnn_kernels.core.reduce import LANES
from gpucnn_kernels.dense import plain as gemm
from gpucnn_kernels.engine.tiles import Tile
from gpucnn_kernels.tensor.product import TensorTile
from gpucnn_kernels.tensor.weight_grad import TensorGradTile


@dataclass(frozen=True, slots=True)
class Choice:
    """What does an operation, as it is counted here: a variant's name, its tile, the slices that its sums are cut into."""

    variant: str
    tile: Any = None
    slices: int = 1


def counted(choice: select.Choice) -> Choice:
    """A choice of the kernels, as it is counted here."""
    return Choice(choice.name, getattr(choice.variant.launch, "keywords", {}).get("tile"), choice.slices)


PLAIN = Choice("plain")
_WORD = 4  # bytes of a number, whether float32 or int32


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations and bytes: see the module's docstring. Works add up."""

    flops: int
    least_bytes: int
    moved_bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.least_bytes + other.least_bytes, self.moved_bytes + other.moved_bytes)

    @property
    def intensity(self) -> float:
        """FLOP per byte that has to be moved."""
        return self.flops / self.least_bytes

    def seconds(self, chip: Chip) -> float:
        """The least time that it takes on a chip: the roofline."""
        return max(self.flops / chip.fp32, self.least_bytes / chip.bandwidth)

    def bound(self, chip: Chip) -> Literal["compute", "memory"]:
        """Which of the chip's ceilings that is."""
        return "compute" if self.flops / chip.fp32 >= self.least_bytes / chip.bandwidth else "memory"


def conv2d(n: int, c: int, k: int, window: Window, groups: int = 1, choice: Choice = PLAIN, bias: bool = False) -> Work:
    """The forward convolution of n images by the kernels of `choice`; ReLU costs nothing."""
    down, across = _reaches(window)
    results, terms = n * k * _area(window.output), c // groups
    least = n * c * down.pixels * across.pixels + k * terms * down.taps * across.taps + bias * k + results
    if choice.variant == "direct":
        moved = _direct(_plan(direct.plan_of(c, k, window)), n, k, window, _area(window.output), bias) + results
    elif choice.variant == "depthwise":
        moved = _depthwise(n, k, window, bias)
    elif choice.tile is not None:
        moved = _gather(choice.tile, n, c // groups, k // groups, down, across, groups, bias)
    else:
        _plain(choice)
        moved = 2 * n * k * terms * down.reads * across.reads + bias * results + results
    return _work(_conv_flops(n, c, k, window, groups), least, moved)


def conv2d_input_grad(n: int, c: int, k: int, window: Window, groups: int = 1, choice: Choice = PLAIN) -> Work:
    """The gradient of a convolution with respect to its input."""
    down, across = _reaches(window)
    results, terms = n * c * _area(window.input), k // groups
    least = n * k * down.positions * across.positions + c * terms * down.taps * across.taps + results
    if choice.variant == "depthwise":
        moved = _depthwise_input_grad(n, c, k, window)
    elif choice.tile is not None:
        classes = [(rows, columns) for rows in _backward(window, 0) for columns in _backward(window, 1)]
        moved = sum(_gather(choice.tile, n, k // groups, c // groups, rows, columns, groups, False) for rows, columns in classes)
    else:
        _plain(choice)
        moved = 2 * n * c * terms * down.reads * across.reads + results
    return _work(_conv_flops(n, c, k, window, groups), least, moved)


def conv2d_weight_grad(n: int, c: int, k: int, window: Window, groups: int = 1, choice: Choice = PLAIN, bias: bool = False) -> Work:
    """The gradient of a convolution with respect to its weight; `bias`: and its bias, which the direct and depthwise kernels write
    along."""
    down, across = _reaches(window)
    results = k * (c // groups) * _area(window.kernel)
    bias = bias and choice.variant in ("direct", "depthwise")
    least = n * k * down.positions * across.positions + n * c * down.pixels * across.pixels + results + bias * k
    if choice.variant == "direct":
        moved = _direct_weight_grad(direct.grad_plan_of(n, c, k, window), n, c, k, window, _area(window.output), 1, bias)
    elif choice.variant == "depthwise":
        moved = _depthwise_weight_grad(n, k, window, bias)
    elif choice.tile is not None:
        moved = _engine_weight_grad(choice.tile, choice.slices, n, c // groups, k // groups, window, groups)
    else:
        _plain(choice)
        moved = 2 * n * k * (c // groups) * down.reads * across.reads + results
    return _work(_conv_flops(n, c, k, window, groups) + bias * n * k * _area(window.output), least, moved)


def conv2d_relu_max_pool2d(n: int, c: int, k: int, window: Window, pool_window: Window, bias: bool = False) -> Work:
    """Convolution, ReLU and 2 × 2 max pooling in one kernel (conv/pooled.py): the work of all three, the bytes of none between."""
    kept = n * k * _area(pool_window.output)
    down, across = (_reach(window, axis, 2 * pool_window.output[axis]) for axis in (0, 1))
    weights = k * c * down.taps * across.taps
    least = n * c * down.pixels * across.pixels + weights + bias * k + 2 * kept
    plan = _plan(direct.plan_of(c, k, window, side=2))
    moved = _direct(plan, n, k, window, _area(pool_window.output), bias) + 2 * kept
    flops = _conv_flops(n, c, k, window, 1) + n * k * _area(window.output) + kept * _area(pool_window.kernel)
    return _work(flops, least, moved)


def conv2d_relu_max_pool2d_weight_grad(
    n: int, c: int, k: int, window: Window, pool_window: Window, bias: bool = False, masked: bool = True
) -> Work:
    """Its gradient with respect to weight and `bias` (pooled_grad.py), of the winners alone: a quarter of the terms, the rest are zero.
    `masked`: with ReLU's gradient, for which the block's result is read."""
    kept, results = n * k * _area(pool_window.output), k * c * _area(window.kernel)
    down, across = (_reach(window, axis, 2 * pool_window.output[axis]) for axis in (0, 1))
    arrays = 2 + masked  # of pooled size: gradients, places and results
    least = arrays * kept + n * c * down.pixels * across.pixels + results + bias * k
    plan = pooled_grad.grad_plan_of(n, c, k, window, pool_window)
    moved = _direct_weight_grad(plan, n, c, k, window, _area(pool_window.output), arrays, bias)
    return _work(2 * kept * c * _area(window.kernel) + bias * kept, least, moved)


def max_pool2d(n: int, c: int, window: Window) -> Work:
    """Max pooling and the winners' places. A comparison counts as an operation, one per tap."""
    down, across = _reaches(window)
    results = n * c * _area(window.output)
    least = n * c * down.pixels * across.pixels + 2 * results
    return _work(results * _area(window.kernel), least, n * c * down.reads * across.reads + 2 * results)


def max_pool2d_grad(n: int, c: int, window: Window) -> Work:
    """Its gradient: an addition per window. Whatever the pixels are, every window has one winner, and so is read by one pixel; a pixel
    looks at the place that each window over it has, except with 2 × 2 windows side by side, where a thread takes a window."""
    down, across = _reaches(window)
    windows, pixels = n * c * _area(window.output), n * c * _area(window.input)
    side_by_side = window.kernel == window.stride == (2, 2) and window.dilation == (1, 1) and not any(map(any, window.padding))
    side_by_side = side_by_side and window.output == (window.input[0] // 2, window.input[1] // 2)
    looks = windows if side_by_side else n * c * down.reads * across.reads
    return _work(windows, 2 * windows + pixels, windows + looks + pixels)


def avg_pool2d(n: int, c: int, window: Window) -> Work:
    """Average pooling: an operation per tap, all but one additions."""
    down, across = _reaches(window)
    results = n * c * _area(window.output)
    least = n * c * down.pixels * across.pixels + results
    return _work(results * _area(window.kernel), least, n * c * down.reads * across.reads + results)


def avg_pool2d_grad(n: int, c: int, window: Window) -> Work:
    """Its gradient: an addition per tap."""
    down, across = _reaches(window)
    windows, pixels = n * c * _area(window.output), n * c * _area(window.input)
    return _work(windows * _area(window.kernel), windows + pixels, n * c * down.reads * across.reads + pixels)


def dense(n: int, c: int, k: int, choice: Choice = PLAIN, bias: bool = False) -> Work:
    """A dense layer: x (n, c), weight (k, c). Of bias and ReLU only the reading counts."""
    return _matrices(n, k, c, choice, bias)


def dense_input_grad(n: int, c: int, k: int, choice: Choice = PLAIN) -> Work:
    """Its gradient with respect to x."""
    return _matrices(n, c, k, choice, False)


def dense_weight_grad(n: int, c: int, k: int, choice: Choice = PLAIN) -> Work:
    """Its gradient with respect to weight."""
    return _matrices(k, c, n, choice, False)


def bias_grad(n: int, k: int, plane: int = 1) -> Work:
    """The sums of dy (n, k, plane) over everything but channels."""
    return _once(n * k * plane, n * k * plane + k)


def relu(size: int) -> Work:
    return _once(size, 2 * size)


def relu_grad(size: int) -> Work:
    return _work(size, 3 * size, 3 * size)


def sigmoid(size: int) -> Work:
    """e⁻ᶻ, a sum, a quotient: three operations, however many instructions the exponential takes."""
    return _once(3 * size, 2 * size)


def sigmoid_grad(size: int) -> Work:
    """dy · (y · (1 − y)); the plain kernel names y twice, and the compiler reads it once."""
    return _once(3 * size, 3 * size)


def dropout(size: int) -> Work:
    """One multiplication; the random words are work for the integer units."""
    return _once(size, 2 * size)


def sgd(size: int, momentum: bool = False, weight_decay: bool = False) -> Work:
    """p −= rate·g, after g += decay·p and v = momentum·v + g."""
    return _once(size * (2 + 2 * momentum + 2 * weight_decay), size * (3 + 2 * momentum))


def adam(size: int) -> Work:
    """Four arrays are read and three written; 14 operations, weight decay not counted."""
    return _once(14 * size, 7 * size)


def softmax(rows: int, k: int) -> Work:
    """Maximum, difference, exponential, sum and quotient. A row is read for its maximum and again for the sum; what the sum writes is
    read once more to be divided."""
    return _work(5 * rows * k, 2 * rows * k, 5 * rows * k)


def softmax_grad(rows: int, k: int) -> Work:
    """Its gradient: a sum of products, then a difference and a product. Both inputs are read twice."""
    return _work(4 * rows * k, 3 * rows * k, 5 * rows * k)


def softmax_cross_entropy(n: int, k: int, of_classes: bool = True) -> Work:
    """Loss, gradient and right answers of n rows of k logits; labels are class numbers, or rows of probabilities.

    Per logit softmax's five operations and the gradient's difference and product; with probabilities the loss's product and sum as well.
    """
    size, labels = n * k, n if of_classes else n * k
    least = 2 * size + labels + 2
    if k > loss.ONE_BLOCK_CLASSES or size > loss.ONE_BLOCK_LOGITS:
        # A warp per row. With class numbers, logits are read for the maximum and for the sum, dlogits written, read and written again;
        # every lane reads the row's label, and one its logit. With probabilities, labels are read three times, and logits once more.
        # Then a loss and an answer per row are written, and read by the second launch.
        moved = 5 * size + LANES * n + n if of_classes else 9 * size
        return _work((7 if of_classes else 9) * size, least, moved + 4 * n + 2)
    threads = min(max(LANES, 1 << (n - 1).bit_length()), loss.ONE_BLOCK_THREADS)
    room = loss._TILE if of_classes else loss._TILE // 2
    at_once = min(threads, room // (k | 1))
    moved = size + (n if of_classes else 0) + 2
    for first in range(0, n, at_once):
        count = min(at_once, n - first) * k
        # A thread reads _BATCH numbers at a time, those past the last in vain.
        rounds, rest = divmod(count, loss._BATCH * threads)
        moved += (1 if of_classes else 2) * loss._BATCH * (rounds * threads + min(rest, threads))
    return _work((7 if of_classes else 9) * size, least, moved)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Along one axis, what the taps of all positions read: table[position][tap] says whether there is a pixel. Counts in `reads`, and of
    these at the last position, by the last tap, and by the last tap at the last position."""

    table: tuple[tuple[bool, ...], ...]
    pixels: int  # different ones that are read
    positions: int  # that read any
    taps: int  # that read any

    @property
    def reads(self) -> int:
        return sum(map(sum, self.table))

    @property
    def at_last(self) -> int:
        return sum(self.table[-1])

    @property
    def by_last(self) -> int:
        return sum(row[-1] for row in self.table)

    @property
    def by_last_at_last(self) -> int:
        return int(self.table[-1][-1])


def _reach(window: Window, axis: int, positions: int | None = None) -> _Reach:
    """Of a window, all its positions or so many."""
    size, taps, stride, dilation = window.input[axis], window.kernel[axis], window.stride[axis], window.dilation[axis]
    before, count = window.padding[axis][0], window.output[axis] if positions is None else positions
    places = [[p * stride - before + r * dilation for r in range(taps)] for p in range(count)]
    return _reach_of([[place if 0 <= place < size else None for place in row] for row in places])


def _reaches(window: Window) -> tuple[_Reach, _Reach]:
    return _reach(window, 0), _reach(window, 1)


def _backward(window: Window, axis: int) -> list[_Reach]:
    """Of pixels that gather from outputs, by their remainders modulo the stride (conv/tiled.py)."""
    stride, dilation, before = window.stride[axis], window.dilation[axis], window.padding[axis][0]
    classes = []
    for first in range(min(stride, window.input[axis])):
        taps = [r for r in range(window.kernel[axis]) if (first + before - r * dilation) % stride == 0]
        places = [[(h + before - r * dilation) // stride for r in taps] for h in range(first, window.input[axis], stride)]
        classes.append(_reach_of([[place if 0 <= place < window.output[axis] else None for place in row] for row in places]))
    return classes


def _reach_of(places: Sequence[Sequence[int | None]]) -> _Reach:
    read = {place for row in places for place in row if place is not None}
    table = tuple(tuple(place is not None for place in row) for row in places)
    return _Reach(table, len(read), sum(map(any, table)), sum(map(any, zip(*table, strict=True))))


def _tensor_gather(tile: TensorTile, n: int, c: int, k: int, down: _Reach, across: _Reach, groups: int, bias: bool) -> int:
    """`_gather` on tensor cores: nothing is read twice, and the weights are two parts each."""
    M, taps = n * len(down.table) * len(across.table), len(down.table[0]) * len(across.table[0])
    tiles_m, tiles_n = -(-M // tile.BM), -(-k // tile.BN)
    depth, spare = taps * -(-c // tile.BK) * tile.BK, tiles_m * tile.BM - M  # rows past the last stand in its place
    moved = M * k * (1 + bias)
    if taps:
        moved += tiles_n * c * (n * down.reads * across.reads + spare * down.at_last * across.at_last)
        moved += 2 * tiles_m * tiles_n * tile.BN * depth
        moved += taps * c * k + 2 * depth * tiles_n * tile.BN
    return groups * moved


def _gather(tile: Tile | TensorTile, n: int, c: int, k: int, down: _Reach, across: _Reach, groups: int, bias: bool) -> int:
    """Numbers moved by one launch of the engine from c channels of a group to k, and by rewriting the weights for it."""
    if isinstance(tile, TensorTile):
        return _tensor_gather(tile, n, c, k, down, across, groups, bias)
    M, taps = n * len(down.table) * len(across.table), len(down.table[0]) * len(across.table[0])
    tiles_m, tiles_n = -(-M // tile.BM), -(-k // tile.BN)
    padded_c = -(-c // tile.BK) * tile.BK
    moved = M * k + bias * tiles_m * (tile.BM // tile.TM) * k
    if taps:
        depth, spare = taps * padded_c, tiles_m * tile.BM - M  # rows past the last stand in its place
        reads = n * down.reads * across.reads + spare * down.at_last * across.at_last
        again = n * down.by_last * across.by_last + spare * down.by_last_at_last * across.by_last_at_last  # by the last block of depths
        moved += tiles_n * (c * reads + (c - padded_c + tile.BK) * again)
        moved += tiles_m * tiles_n * tile.BN * (depth + tile.BK)
        moved += taps * c * k + depth * tiles_n * tile.BN
    return groups * moved


def _cuts(depth: int, tile: Tile | TensorGradTile, slices: int) -> tuple[int, list[int]]:
    """How many slices a sum really falls into, and where the last block of each begins: product.product's rule."""
    blocks = -(-depth // tile.BK)
    slice_blocks = max(1, -(-blocks // slices))
    ends = [min(first + slice_blocks, blocks) for first in range(0, blocks, slice_blocks)]
    return len(ends), [(end - 1) * tile.BK for end in ends]


def _results(size: int, slices: int, bias: int = 0) -> int:
    """Numbers moved to write `size` results, or their slices, which are then added up."""
    return size if slices == 1 else 2 * slices * size + size + bias


def _tensor_weight_grad(tile: TensorGradTile, slices: int, n: int, c: int, k: int, window: Window, groups: int) -> int:
    """`_engine_weight_grad` on tensor cores: rows are channels and taps, and none is read again; those past the last are the last one's."""
    down, across = _reaches(window)
    N, depth = c * _area(window.kernel), n * _area(window.output)
    tiles_m, tiles_n = -(-N // tile.BM), -(-k // tile.BN)
    slices, _ = _cuts(depth, tile, slices)
    spare = tiles_m * tile.BM - N
    moved = tiles_m * k * depth + tiles_n * n * (c * down.reads * across.reads + spare * down.by_last * across.by_last)
    return groups * (moved + _results(k * N, slices))


def _engine_weight_grad(tile: Tile | TensorGradTile, slices: int, n: int, c: int, k: int, window: Window, groups: int) -> int:
    if isinstance(tile, TensorGradTile):
        return _tensor_weight_grad(tile, slices, n, c, k, window, groups)
    down, across = _reaches(window)
    (P, Q), N, depth = window.output, c * _area(window.kernel), n * _area(window.output)
    tiles_m, tiles_n = -(-k // tile.BM), -(-N // tile.BN)
    slices, last = _cuts(depth, tile, slices)
    again = [position for first in last for position in range(first, min(first + tile.BK, depth))]
    moved = tiles_m * tiles_n * tile.BM * (depth + len(again))
    spare = tiles_n * tile.BN - N  # columns past the last stand in its place
    moved += tiles_m * n * (c * down.reads * across.reads + spare * down.by_last * across.by_last)
    for position in again:
        row, column = down.table[position // Q % P], across.table[position % Q]
        moved += tiles_m * (c * sum(row) * sum(column) + spare * (row[-1] and column[-1]))
    return groups * (moved + _results(k * N, slices))


def _matrices(M: int, N: int, depth: int, choice: Choice, bias: bool) -> Work:
    tile = choice.tile
    if tile is None:
        _plain(choice)
        rows, columns = -(-M // gemm.TILE), -(-N // gemm.TILE)
        moved = columns * M * depth + rows * N * depth + bias * M * N + M * N
    else:
        rows, columns = -(-M // tile.BM), -(-N // tile.BN)
        slices, last = _cuts(depth, tile, choice.slices)
        steps = depth + sum(min(tile.BK, depth - first) for first in last)
        moved = rows * columns * (tile.BM + tile.BN) * steps + _results(M * N, slices, bias * M * N)
        if slices == 1:
            moved += bias * rows * (tile.BM // tile.TM) * N
    return _work(2 * M * N * depth, M * depth + depth * N + M * N + bias * N, moved)


def _plan(plan: direct.Plan | None) -> direct.Plan:
    if plan is None:
        raise ValueError("the direct convolution is not for this window: see direct.fits")
    return plan


def _patches(patch: Patch | pooled_grad.Corners, stretch: int, outputs: int, window: Window) -> tuple[int, int]:
    """Stretches of an image, and the pixels that their patches hold together, padding left out."""
    (top, _), (left, _) = window.padding
    firsts = range(0, outputs, stretch)
    columns = _overlap(-left, patch.columns, window.input[1])
    rows = sum(_overlap(first // patch.across * patch.step[0] - top, patch.rows, window.input[0]) for first in firsts)
    return len(firsts), patch.channels * rows * columns


def _overlap(first: int, count: int, size: int) -> int:
    return max(0, min(first + count, size) - max(first, 0))


def _direct(plan: direct.Plan, n: int, k: int, window: Window, outputs: int, bias: bool) -> int:
    """Numbers read by the forward kernels of direct.py and conv/pooled.py."""
    stretches, pixels = _patches(plan.patch, plan.stretch, outputs, window)
    return n * (-(-k // plan.filters) * pixels + stretches * k * (plan.taps + bias))


def _direct_weight_grad(plan: GradPlan | None, n: int, c: int, k: int, window: Window, outputs: int, arrays: int, bias: bool) -> int:
    """Numbers moved by the gradients of weight of direct.py and pooled_grad.py: `arrays` are as large as dy."""
    if plan is None:
        raise ValueError("the direct convolution is not for this window: see direct.fits")
    assert isinstance(plan.patch, Patch | pooled_grad.Corners)
    weights = k * c * _area(window.kernel)
    stretches, pixels = _patches(plan.patch, plan.stretch, outputs, window)
    # Each thread asks for the first of its dy before it knows whether there is one, and always for one ahead.
    moved = n * -(-k // plan.filters) * plan.tap_groups * (pixels + arrays * plan.filters * (stretches * plan.threads + outputs))
    return moved + _parts(plan.parts, weights, k, bias)


def _strips(strip: depthwise.Strip | None, window: Window) -> tuple[int, int]:
    """Strips of a column of results, and the rows of the image that they read together; rows between dilated taps as well."""
    if strip is None:
        raise ValueError("the depthwise convolution is not for this window: see depthwise.fits")
    stride, rows = window.stride[0], (strip.length - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
    firsts = range(0, window.output[0], strip.length)
    return len(firsts), sum(_overlap(first * stride - window.padding[0][0], rows, window.input[0]) for first in firsts)


def _depthwise(n: int, k: int, window: Window, bias: bool) -> int:
    strips, rows = _strips(depthwise.strip_of(window), window)
    threads = strips * window.output[1]
    return n * k * (threads * (_area(window.kernel) + bias) + rows * _reach(window, 1).reads + _area(window.output))


def _depthwise_input_grad(n: int, c: int, k: int, window: Window) -> int:
    strip = depthwise.input_strip_of(window)
    if strip is None:
        raise ValueError("the depthwise convolution is not for this window: see depthwise.fits")
    length, sizes, reads = (strip.length, 1), [], []
    for axis in (0, 1):  # strips of rows, groups of columns
        size, stride, before = window.input[axis], window.stride[axis], window.padding[axis][0]
        above = (window.kernel[axis] - 1) * window.dilation[axis] // stride
        firsts = range(0, -(-(size + before % stride) // stride), length[axis])
        sizes.append(len(firsts))
        reads.append(sum(_overlap(first + before // stride - above, above + length[axis], window.output[axis]) for first in firsts))
    return n * k * (sizes[0] * sizes[1] * _area(window.kernel) + reads[0] * reads[1]) + n * c * _area(window.input)


def _depthwise_weight_grad(n: int, k: int, window: Window, bias: bool) -> int:
    plan = depthwise.grad_plan_of(n, k, window)
    _, rows = _strips(depthwise.strip_of(window), window)
    assert plan is not None  # there is a strip
    moved = n * k * (_area(window.output) + rows * _reach(window, 1).reads)
    return moved + _parts(plan.parts, k * _area(window.kernel), k, bias)


def _parts(parts: int, weights: int, k: int, bias: bool) -> int:
    """Numbers moved to write the blocks' sums of a gradient of weight and bias, and to add them up."""
    return parts * (weights + k) + (parts + 1) * (weights + bias * k)


def _plain(choice: Choice) -> None:
    if choice.variant != "plain":
        raise ValueError(
            f"what the variant {choice.variant!r} moves is not counted: work.py counts plain, direct, depthwise, and the engine's tiles"
        )


def _conv_flops(n: int, c: int, k: int, window: Window, groups: int) -> int:
    return 2 * n * k * _area(window.output) * (c // groups) * _area(window.kernel)


def _area(sides: tuple[int, int]) -> int:
    return sides[0] * sides[1]


def _work(flops: int, least: int, moved: int) -> Work:
    """From numbers moved to bytes."""
    return Work(flops, _WORD * least, _WORD * moved)


def _once(flops: int, numbers: int) -> Work:
    """Nothing is moved twice."""
    return _work(flops, numbers, numbers)
