"""A program: every loop in plain Python, each read and write checked against the array that it is of.

Loops are given addresses, which Numba's bounds checks know nothing of. Here an address becomes the array that it is in, and the functions
that write instructions have twins that work on 16 numbers of NumPy's. So an index is found that leaves its array for another one, which a
guarded page (edges.py) cannot see. What comes out is held against the reference, too.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
from loop_cases import DEPTHWISE, DIRECT, PIXELS, POINTWISE, WHOLE, WINOGRAD, arrays, hold, nan_like

from gpucnn.ops import cpu
from gpucnn.ops.cpu import _engine, roads, units
from gpucnn.ops.shapes import pool_window
from gpucnn_loops import dense, pixel_sums, pixels, pointwise, tables, threads
from gpucnn_loops.direct import Direct
from gpucnn_loops.language import Helper, Intrinsic
from gpucnn_loops.loops import Loop, every

KINDS = {"f*": np.float32, "i*": np.int32, "w*": np.int64, "d*": np.float64}
F, INT = np.float32, np.int32
regions: list[tuple[int, int, Any]] = []  # first byte, behind the last, and the array
run: set[str] = set()  # names of the loops that were


class Pointer:
    """An address within an array."""

    def __init__(self, array: Any, place: int) -> None:
        self.array, self.place = array, place

    def part(self, i: Any, count: int) -> slice:
        first = self.place + int(i)
        if first < 0 or first + count > len(self.array):
            raise IndexError(f"{first} … {first + count - 1} of {len(self.array)}")
        return slice(first, first + count)

    def __getitem__(self, i: Any) -> Any:
        return self.array[self.part(i, 1).start]

    def __setitem__(self, i: Any, value: Any) -> None:
        self.array[self.part(i, 1).start] = value


def register(array: Any) -> int:
    start = int(array.ctypes.data)
    regions.append((start, start + array.nbytes, array))
    return start


def pointer(address: int, kind: Any) -> Pointer:
    for start, end, array in reversed(regions):
        if start <= address < end:
            return Pointer(array.reshape(-1).view(kind), (address - start) // np.dtype(kind).itemsize)
    return Pointer(np.empty(0, kind), 0)  # of nothing: whoever reads it is wrong


def load(x: Pointer, i: Any, count: int = 16) -> Any:
    return x.array[x.part(i, count)].copy()


def store(x: Pointer, i: Any, v: Any) -> None:
    x.array[x.part(i, 16)] = v


def splat(number: Any) -> Any:
    return np.full(16, number, F)


def beats(value: Any, best: Any, place: Any, best_place: Any) -> tuple[Any, Any]:
    wins = ~(value <= best) & ~np.isnan(best)
    return np.where(wins, value, best), np.where(wins, place, best_place)


def relu_first(best: Any, place: Any, first: Any) -> tuple[Any, Any]:
    return np.where(best <= 0, F(0), best), np.where(best <= 0, first, place)


def sum16(v: Any) -> Any:
    while len(v) > 1:
        v = v[: len(v) // 2] + v[len(v) // 2 :]
    return v[0]


def turn16(a: Pointer, a_step: int, b: Pointer, places: Any) -> None:
    rows = np.stack([load(a, i * a_step) for i in range(16)])
    for j in range(16):
        store(b, places[j] if isinstance(places, Pointer) else places * j, rows[:, j])


def turn_last(count: int, a: Pointer, a_step: int, b: Pointer, b_step: int) -> None:
    rows = np.stack([load(a, min(i, count - 1) * a_step) for i in range(16)])
    for j in range(16):
        store(b, j * b_step, rows[:, j])


def turned_tile(Q: int, m: int, n: int, x: Pointer, w: Pointer, ws: int, count: int, y: Pointer) -> None:
    def rows(of: Pointer, have: int, places: int) -> Any:
        return np.stack([load(of, min(i, have - 1) * ws, n) for i in range(places)]).astype(np.float64) if n else np.zeros((places, 0))

    y.array[y.part(0, 16 * Q)] = (rows(x, m, Q) @ rows(w, count, 16).T).reshape(-1)


def row_tile(
    Q: int, T: int, rows: int, vectors: int, dy: Pointer, plane: int, x: Pointer, wide: int, cols: Pointer, inside: Any, y: Pointer, ys: int
) -> None:
    lanes = np.where(np.arange(16 * vectors) < 16 * (vectors - 1), True, np.tile(inside.view(INT) < 0, vectors))
    for t in range(T):
        pixels = np.stack([np.where(lanes, load(x, cols[t] + i * wide, 16 * vectors), 0) for i in range(rows)]).astype(np.float64)
        for q in range(Q):
            gradients = load(dy, q * plane, 16 * vectors * rows)
            y.array[y.part(q * ys + 16 * t, 16)] += (gradients * pixels.reshape(-1)).reshape(-1, 16).sum(axis=0)


def tile(Q: int, W: int, n: int, x: Pointer, rows: Any, row: int, cols: Any, w: Pointer, ws: int, y: Pointer, ys: int, mode: int) -> None:
    def place(places: Any, index: int) -> Any:  # of a table, or a distance
        return places[index] if isinstance(places, Pointer) else places * index

    lanes = np.stack([load(w, i * ws, 16 * W) for i in range(n)]).astype(np.float64) if n else np.zeros((0, 16 * W))
    for q in range(Q):
        numbers = np.array([x[place(rows, row + q) + place(cols, i)] for i in range(n)], np.float64)
        part = y.part(q * ys, 16 * W)
        y.array[part] = (0 if mode == 0 else y.array[part]) + numbers @ lanes


def lane_tile(
    Q: int, n: int, x: Pointer, rows: Pointer, cols: Pointer, w: Pointer, ws: int, y: Pointer, places: Pointer, mode: int
) -> None:
    for q in range(Q):
        part = y.part(places[q], 16)
        total = np.zeros(16) if mode == 0 else y.array[part].astype(np.float64)
        for i in range(n):
            total += load(x, rows[q] + cols[i]).astype(np.float64) * load(w, i * ws)
        y.array[part] = total


def window_sums(Q: int, n: int, x: Pointer, above: Pointer, below: Pointer, right: int, w: Pointer, bias: Pointer) -> list[Any]:
    corners = [(table, side) for table in (above, below) for side in (0, right)]
    pixels = [np.stack([load(x, table[i] + side) for i in range(n)]).astype(np.float64) for table, side in corners]
    numbers = [np.array([w[q * n + i] for i in range(n)], np.float64) for q in range(Q)]
    return [(bias[q] + own @ four).astype(F) for q, own in enumerate(numbers) for four in pixels]


def tap_tile(
    T: int, Q: int, n: int, x: Pointer, above: Pointer, below: Pointer, cols: Pointer, g: Pointer, gs: int, y: Pointer, ys: int
) -> None:
    for t in range(T):
        pixels = np.stack([load(x, table[t] + cols[i]) for table in (above, below) for i in range(n)]).astype(np.float64)
        for q in range(Q):
            part = y.part(q * ys + 16 * t, 16)
            y.array[part] += (pixels * np.stack([load(g, q * gs + 16 * i) for i in range(2 * n)])).sum(axis=0)


def pixel_tile(
    Q: int,
    W: int,
    n: int,
    x: Pointer,
    xs: int,
    w: Pointer,
    cols: Pointer,
    y: Pointer,
    ys: int,
    vectors: Pointer,
    width: int,
    normed: int,
    relu: int,
) -> None:
    pixels = np.stack([load(w, cols[i], 16 * W) for i in range(n)]).astype(np.float64)
    for q in range(Q):
        total = vectors[q] + np.array([x[q * xs + i] for i in range(n)], np.float64) @ pixels
        if normed:
            total = (total - vectors[width + q]) * vectors[2 * width + q] + vectors[3 * width + q]
        y.array[y.part(q * ys, 16 * W)] = np.where(total <= 0, 0, total) if relu else total


def at(x: Pointer, i: Any) -> Pointer:
    return Pointer(x.array, x.place + int(i))


INTRINSICS: dict[str, Callable[..., Any]] = {
    "at": at,
    "load": load,
    "store": store,
    "splat": splat,
    "beats": beats,
    "relu_first": relu_first,
    "sum16": sum16,
    "turn16": turn16,
    "turn_last": turn_last,
    "row_tile": row_tile,
    "turned_tile": turned_tile,
    "tile": tile,
    "lane_tile": lane_tile,
    "window_sums": window_sums,
    "tap_tile": tap_tile,
    "nan_among": lambda *vectors: bool(np.isnan(vectors).any()),
    "nan_or": lambda a, b, c, d, v: np.where(np.isnan([a, b, c, d]).any(axis=0), F(np.nan), v),
    "larger_place": lambda value, best, place, best_place: (np.where(value > best, value, best), np.where(value > best, place, best_place)),
    "pixel_tile": pixel_tile,
    "spread": lambda x, i: splat(x[i]),
    "load_even": lambda x, i: load(x, i, 32)[::2],
    "load_apart": lambda x, i, step: load(x, i, 15 * step + 1)[::step],
    "pairs": lambda x, i: (load(x, i, 32)[::2], load(x, i, 32)[1::2]),
    "fma": lambda a, b, c: (a.astype(np.float64) * b + c).astype(F),
    "relu16": lambda a: np.where(a <= 0, F(0), a),
    "where_positive": lambda a, b: np.where(a > 0, b, F(0)),
    "as_floats": lambda x: Pointer(x.array.view(F), x.place),
    "where_same": lambda a, b, v: np.where(a.view(INT) == b.view(INT), v, F(0)),
    "place16": lambda number: np.full(16, number, INT).view(F),
    "add_place": lambda places, number: (places.view(INT) + INT(number)).view(F),
    "places_from": lambda first, step: (np.arange(16, dtype=INT) * INT(step) + INT(first)).view(F),
    "low_pairs": lambda even, odd: np.stack([even, odd], 1).reshape(-1)[:16],
    "magnitude": np.abs,
    "signed": np.copysign,
    "where_less": lambda v, limit, a, b: np.where(v < limit, a, b),
    "where_more": lambda v, limit, a, b: np.where(v > limit, a, b),
    "better": lambda value, best: beats(value, best, best, best)[0],
    "lanes_before": lambda count: np.where(np.arange(16) < count, INT(-1), INT(0)).astype(INT).view(F),
    "chosen": lambda lanes, a, b: np.where(lanes.view(INT) < 0, a, b),
    "larger": lambda a, b: np.where(a > b, a, b),
    "largest16": np.max,
    "times_power": lambda v, whole: (v.view(INT) + (whole.view(INT) << 23)).view(F),
    "high_pairs": lambda even, odd: np.stack([even, odd], 1).reshape(-1)[16:],
}
made: dict[int, Any] = {}


def plain(function: Any, name: str = "") -> Any:
    """The Python function, with twins for all that Numba would have compiled."""
    if id(function) not in made:
        names = dict(function.__globals__)
        twin = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)

        def counted(*arguments: Any) -> Any:
            run.add(name)
            return twin(*arguments)

        made[id(function)] = counted if name else twin
        for key, value in names.items():
            if isinstance(value, Loop):
                names[key] = plain(value.function, value.name)
            elif isinstance(value, Helper):
                names[key] = plain(value.py_func)
            elif isinstance(value, Intrinsic):
                names[key] = INTRINSICS[value.function.__name__]
    return made[id(function)]


def given(kind: str, value: Any) -> Any:
    if kind in KINDS:
        return pointer(value, KINDS[kind])
    return np.uint64(value) if kind == "u" else F(value) if kind == "f" else value


def in_python(loop: Loop) -> None:
    function = plain(loop.function, loop.name)
    loop._call = lambda *values: function(*loop.whole(map(given, loop.arguments, values)))
    loop.ready = True


def scratch(self: Any, *sizes: int, shared: bool = False) -> None:
    rooms = [np.full(size + -size % 16 + 16, np.nan, F) for size in sizes]
    self._addresses = [register(room) for room in rooms]
    self.parts = [room[:size] for room, size in zip(rooms, sizes, strict=True)]


def checked() -> list[Loop]:
    """All loops but those that run notes of others."""
    return [loop for loop in every() if not loop.name.startswith(("handing.", "chunks."))]


def prepare() -> None:
    """From here on all loops are Python."""
    modules = vars(_engine.modules()).values()
    for loop in checked():
        in_python(loop)
    threads.Scratch.__init__ = scratch  # type: ignore[method-assign]
    for module in (*modules, tables):
        if hasattr(module, "address"):
            module.address = register
        if hasattr(module, "lasting"):
            module.lasting = lambda array, owner=None: register(array)


def main() -> None:
    prepare()
    rng = np.random.default_rng(0)
    cases = [
        DIRECT[0],
        DIRECT[13],
        DIRECT[15],
        *DEPTHWISE[:4:3],
        *PIXELS[3:7],
        *POINTWISE[:5],
        WHOLE[2],
        WINOGRAD[5],
        (2, 17, 5, 6, 18, 3, 2, (2, 1), ((1, 0), (0, 1)), 1, 1),
        (2, 6, 5, 4, 4, 3, 3, 2, 1, 1, 2),
        (2, 3, 7, 20, 3, 3, 3, 1, 1, 1, 3),
        (1, 2, 5, 33, 5, 3, 3, 1, (0, 1), 1, 1),
        (1, 1, 6, 26, 3, 5, 5, 1, 2, 1, 1),
        (1, 17, 6, 7, 16, 5, 5, 1, 2, 1, 1),
    ]
    pointwise.LARGE = pointwise.MANY = 1
    # Blocks of pixels, several strips of them, and bands of a gradient, for as few pixels as can be computed here.
    pixels.LARGE, pixels.BOTH, pixels.STRIP, pixel_sums.BAND = 1, 1, 1 << 11, 200
    for case in cases:
        regions.clear()
        roads.convolution.cache_clear()
        roads.pooled.cache_clear()
        a = arrays(case, rng)
        c, k = a["x"].shape[1], len(a["bias"])
        hold(roads.convolution(c, k, a["window"], a["groups"]), a)
        hold(Direct(c, k, a["window"], a["groups"]), a)
        affine, running = (np.ones(k, F), np.ones(k, F)), (np.ones(k, F), np.ones(k, F))
        y = cpu.conv2d(a["x"], a["weight"], None, a["window"], a["groups"])
        y = cpu.add(cpu.batch_norm_apply(y, *affine, running, eps=0.1), a["dy"], relu=True)
        got = cpu.conv2d_batch_norm_apply(
            a["x"], a["weight"], None, a["window"], a["groups"], affine, running, eps=0.1, relu=True, added=a["dy"]
        )
        np.testing.assert_allclose(got, y, atol=1e-5)
        p, q = a["window"].output
        if min(p, q) > 1 and a["groups"] == 1:
            window = pool_window((p, q), 2)
            cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], pool_window((p, q), 2, 1, 1))
            cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window, places=False)
            y, indices = cpu.conv2d_relu_max_pool2d(a["x"], a["weight"], a["bias"], a["window"], window)
            cpu.conv2d_relu_max_pool2d_weight_grad(y, indices, a["x"], a["window"], window, relu=y, dbias=nan_like(a["bias"]))
    x = rng.standard_normal((2, 3, 7, 9), dtype=F)
    cpu.global_avg_pool2d_grad(cpu.global_avg_pool2d(x), x.shape[2:])
    cpu.copied(x, out=nan_like(x))
    for pooling in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0), ((7, 9), 1, 0)):
        window = pool_window((7, 9), *pooling)
        y, indices = cpu.max_pool2d(x, window)
        np.testing.assert_array_equal(cpu.max_pool2d(x, window, places=False)[0], y)
        cpu.max_pool2d_grad(y, indices, window, relu=y)
        cpu.avg_pool2d_grad(cpu.avg_pool2d(x, window), window)
    for n, c, k, many in ((1, 1, 1, 256), (5, 35, 18, 256), (17, 20, 18, 256), (18, 70, 40, 16)):
        dense.STEPS, dense.MANY = (16, many) if many < 256 else (128, many)  # wide strips for as few rows as can be computed here
        x, weight, bias = (rng.standard_normal(shape, dtype=F) for shape in ((n, c), (k, c), (k,)))
        y = cpu.dense(x, weight, bias)
        np.testing.assert_allclose(y, x.astype(np.float64) @ weight.T + bias, atol=1e-4)
        cpu.dense_input_grad(y, weight, relu=x)
        cpu.dense_weight_grad(y, x)
        cpu.softmax_cross_entropy(y, np.zeros(n, INT))
        parameters, gradients, mean, variance = (np.abs(x).reshape(-1) for _ in range(4))
        cpu.adam_update(parameters, gradients, mean, variance, rates=np.ones(4, F))
        cpu.sgd_update(parameters, gradients, mean, rates=np.ones(4, F), momentum=0.9)
        cpu.sgd_update(parameters, gradients, None, rates=np.ones(4, F))
        cpu.relu_grad(cpu.relu(x), x)
        np.testing.assert_allclose(cpu.tanh(x), np.tanh(x), rtol=1e-6)
        cpu.tanh_grad(x, x)
        cpu.sigmoid_grad(x, cpu.sigmoid(x))
        for name in (each for each in units.__all__ if not each.endswith("_grad")):
            np.testing.assert_allclose(getattr(cpu, name)(x), getattr(units, name)(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
            getattr(cpu, f"{name}_grad")(x, x)
        np.testing.assert_allclose(cpu.gelu(x, True), units.gelu(x.astype(np.float64), True), rtol=1e-5, atol=1e-6)
        cpu.gelu_grad(x, x, True)
        np.testing.assert_allclose(cpu.softmax(x).sum(axis=-1), 1, rtol=1e-6)
        cpu.softmax_grad(x, x)
        cpu.add(x, x, mask=x)
        for rows in (x.reshape(n, c, 1), x.reshape(n, 1, c)):
            ones = np.ones(rows.shape[1], F)
            if n > 1:
                cpu.batch_norm(rows, ones, ones, (ones.copy(), ones.copy()), momentum=0.1, eps=0.1)
            cpu.batch_norm_grad(rows, rows, ones, (ones, ones))
        calls = np.array([1, 0], np.uint32)
        cpu.next_call(calls)
        cpu.dropout(x, calls, 0.5, 1)
    missed = {loop.name for loop in checked()} - run
    assert not missed, f"never run: {sorted(missed)}"
    print("no array was left")


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        main()
