"""How a loop becomes fast on a CPU: one layer in six versions, each the one before with one more idea. For reading, not for use.

    python kernels/ladder/cpu.py [--images 16] [--channels 64] [--filters 64] [--side 28]

The layer is a 3×3 convolution with its bias, ReLU and 2×2 max pooling, forward. All six run on one thread.

    plain       a sum for each output, one product at a time         two numbers are read for each, and each waits for the one before
    vectors     16 sums at a time: the lanes are filters             an instruction does 16 products; and still waits
    tiles       5 × 4 vectors of sums in registers                   9 reads for 20 products, and nobody waits for another
    cache       sums are cut so that weights stay in the first cache the tile is fed as fast as it works
    fused       bias, ReLU and pooling while a window's sums are hot the convolution's output never goes to memory
    Winograd    36 products for 16 outputs instead of 144            the same processor, four times fewer products

GFLOP/s count the products of the plain sum, an addition with each, whatever a rung does for them: so Winograd may pass the peak, which is
what the tile reaches on numbers that stay in registers. The last three are the library's own loops. Sizes are such that nothing but the
idea is to be seen: filters are a multiple of 16, there is no padding, the side is even.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # gpucnn_loops, where it is not installed

from gpucnn_loops import threads
from gpucnn_loops.direct import Direct
from gpucnn_loops.loops import loop
from gpucnn_loops.pool import max_pool2d
from gpucnn_loops.pooled import Pooled
from gpucnn_loops.tables import Sliding, Tables, outputs, taps
from gpucnn_loops.threads import address
from gpucnn_loops.tile import at_most, product
from gpucnn_loops.turn import to_planes
from gpucnn_loops.vector import L, at, fma, load, relu16, spread, store
from gpucnn_loops.winograd_plan import Winograd

Array = NDArray[np.float32]
KERNEL = 3
ZERO = np.float32(0)


@loop("i f* f* f* f* i i i i")
def plain(n, x, weight, bias, y, c, k, side, out):
    """y (n, k, out, out) = relu(conv(x) + bias), number by number."""
    for image in range(n):
        for filter in range(k):
            for i in range(out):
                for j in range(out):
                    total = bias[filter]
                    for channel in range(c):
                        for a in range(3):
                            line = at(x, ((image * c + channel) * side + i + a) * side + j)
                            taps = at(weight, ((filter * c + channel) * 3 + a) * 3)
                            for b in range(3):
                                total += line[b] * taps[b]
                    y[((image * k + filter) * out + i) * out + j] = ZERO if total <= 0 else total


@loop("i f* f* f* f* i i i i w* f*")
def vectors(n, x, weight, bias, y, c, k, side, out, places, sums):
    """The same with 16 filters at a time, whose weights lie side by side: weight (c, 3, 3, k). Then filters are turned to planes."""
    for image in range(n):
        for i in range(out):
            for j in range(out):
                for lane in range(0, k, L):
                    total = load(bias, lane)
                    for channel in range(c):
                        for a in range(3):
                            line = at(x, ((image * c + channel) * side + i + a) * side + j)
                            taps = at(weight, (channel * 9 + a * 3) * k + lane)
                            for b in range(3):
                                total = fma(spread(line, b), load(taps, b * k), total)
                    store(sums, (i * out + j) * k + lane, relu16(total))
        to_planes(sums, out * out, k, k, at(y, image * k * out * out), places)


@loop("i f* f* f* f* i i i i w* w* w* f*")
def tiles(n, x, weight, bias, y, c, k, side, out, rows, cols, places, sums):
    """The same with the register tile: outputs are rows, where their first taps lie; taps are the steps of all sums."""
    for image in range(n):
        product(out * out, c * 9, at(x, image * c * side * side), rows, cols, weight, k, k, sums, k, 0)
        for lane in range(0, k, L):
            for i in range(lane, out * out * k, k):
                store(sums, i, relu16(load(sums, i) + load(bias, lane)))
        to_planes(sums, out * out, k, k, at(y, image * k * out * out), places)


class Layer:
    """The layer's numbers, and what the rungs make ready before they are timed: tables, packed weights, room."""

    def __init__(self, n: int, c: int, k: int, side: int, seed: int = 0) -> None:
        if k % L or side % 2 or side < 8 or min(n, c, k) < 1:
            raise ValueError(f"filters must be a multiple of {L} and the side even and at least 8, got {k} filters and a side of {side}")
        rng = np.random.default_rng(seed)
        self.out = out = side - KERNEL + 1
        self.sizes = c, k, side, out
        self.x, self.weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((n, c, side, side), (k, c, KERNEL, KERNEL)))
        self.bias = rng.standard_normal(k, dtype=np.float32)
        self.convolved = np.empty((n, k, out, out), np.float32)
        self.y, self.indices = np.empty((n, k, out // 2, out // 2), np.float32), np.empty((n, k, out // 2, out // 2), np.int32)
        none = (0, 0), (0, 0)
        self.window = Sliding((side, side), (KERNEL, KERNEL), (1, 1), none, (1, 1), (out, out))
        self.pool = Sliding((out, out), (2, 2), (2, 2), none, (1, 1), (out // 2, out // 2))
        self.packed = np.ascontiguousarray(self.weight.transpose(1, 2, 3, 0))
        self.tables = Tables(rows=outputs(self.window, side), cols=taps(c, self.window, side, side), places=np.arange(k) * out * out)
        self.room = np.empty(out * out * k + L, np.float32)
        self.direct, self.pooled, self.winograd = Direct(c, k, self.window), Pooled(c, k, self.window), Winograd(c, k, self.window)

    @property
    def flops(self) -> int:
        """Of the plain sum: a product and an addition for each tap of each output."""
        return 2 * int(self.convolved.size) * int(self.weight[0].size)

    def plain(self) -> None:
        plain(len(self.x), *map(address, (self.x, self.weight, self.bias, self.convolved)), *self.sizes)
        max_pool2d(self.convolved, self.pool, self.y, self.indices)

    def vectors(self) -> None:
        arrays = map(address, (self.x, self.packed, self.bias, self.convolved))
        vectors(len(self.x), *arrays, *self.sizes, self.tables.at.places, address(self.room))
        max_pool2d(self.convolved, self.pool, self.y, self.indices)

    def tiles(self) -> None:
        arrays, t = map(address, (self.x, self.packed, self.bias, self.convolved)), self.tables.at
        tiles(len(self.x), *arrays, *self.sizes, t.rows, t.cols, t.places, address(self.room))
        max_pool2d(self.convolved, self.pool, self.y, self.indices)

    def cache(self) -> None:
        self.direct.forward(self.x, self.weight, self.bias, True, self.convolved)
        max_pool2d(self.convolved, self.pool, self.y, self.indices)

    def fused(self) -> None:
        self.pooled.forward(self.x, self.weight, self.bias, self.y, self.indices)

    def by_winograd(self) -> None:
        self.winograd.forward_pool(self.x, self.weight, self.bias, self.y, self.indices)


@dataclass(frozen=True)
class Rung:
    """A version: what runs it, and whether it is so slow that a few images are enough to time it."""

    name: str
    run: Callable[[Layer], None]
    slow: bool = False


RUNGS = (
    Rung("plain", Layer.plain, slow=True),
    Rung("vectors", Layer.vectors, slow=True),
    Rung("tiles", Layer.tiles),
    Rung("cache", Layer.cache),
    Rung("fused", Layer.fused),
    Rung("Winograd", Layer.by_winograd),
)


def seconds(run: Callable[[], Any], least: float = 0.2) -> float:
    """The median of some runs by this thread's own time on its core, so that other programs do not count."""
    run()
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        began = time.thread_time()
        run()
        times.append(time.thread_time() - began)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, usual in (("images", 16), ("channels", 64), ("filters", 64), ("side", 28)):
        parser.add_argument(f"--{name}", type=int, default=usual, help=f"[{usual}]")
    options = parser.parse_args()
    threads.count = lambda: 1
    try:
        layer = Layer(options.images, options.channels, options.filters, options.side)
        few = Layer(min(options.images, 2), options.channels, options.filters, options.side)
    except ValueError as error:
        parser.error(str(error))
    counts = [2 * at_most() / seconds(at_most) for _ in range(3)]
    peak = max(counts)
    print(f"{options.images} × {options.channels} × {options.side}×{options.side} → {options.filters}, 3×3, ReLU, pooled 2×2; one thread")
    print(f"{'peak':<9} {peak / 1e9:7.1f} GFLOP/s")
    for rung in RUNGS:
        own = few if rung.slow else layer
        rate = own.flops / seconds(lambda rung=rung, own=own: rung.run(own))  # type: ignore[misc]
        print(f"{rung.name:<9} {rate / 1e9:7.1f} GFLOP/s  {100 * rate / peak:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
