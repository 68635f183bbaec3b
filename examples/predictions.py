"""What the documents say of chips that are not here: each table, and the predictions that it is made of. predict.py makes these.

A cell is a text, or something with `asked`, the predictions that it needs, and `text`, what it says given all predictions by key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Times: TypeAlias = Mapping[str, Mapping[str, Any]]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


@dataclass(frozen=True)
class Asked:
    """The predicted time of an operation: kind and shape as `gpucnn profile --op --shape` takes them, and the operation, which is one of
    the passes. variant: "" for the one that the rules select; otherwise a pattern, of which the rules' best is taken. slices: 1 for
    whole sums."""

    chip: str
    kind: str
    shape: str
    op: str
    variant: str = ""
    precision: str = "highest"
    slices: int | None = None

    @property
    def key(self) -> str:
        """One line that says all of it."""
        more = [self.variant, self.precision if self.precision != "highest" else "", "whole sums" if self.slices == 1 else ""]
        return ", ".join([self.chip, self.kind, self.shape.replace(",", " "), self.op, *filter(None, more)])

    @property
    def asked(self) -> tuple[Asked, ...]:
        return (self,)

    def text(self, times: Times) -> str:
        """The time; a dash if the variant cannot do it."""
        found = times[self.key]["µs"]
        return "–" if found is None else number(found)


@dataclass(frozen=True)
class Best:
    """The shortest of several."""

    of: tuple[Asked, ...]

    @property
    def asked(self) -> tuple[Asked, ...]:
        return self.of

    def least(self, times: Times) -> float:
        return min(float(times[each.key]["µs"]) for each in self.of)

    def text(self, times: Times) -> str:
        return number(self.least(times))


@dataclass(frozen=True)
class Gain:
    """How many times as fast the second is."""

    before: Asked
    after: Asked | Best

    @property
    def asked(self) -> tuple[Asked, ...]:
        return (self.before, *self.after.asked)

    def text(self, times: Times) -> str:
        after = self.after if isinstance(self.after, Best) else Best((self.after,))
        return f"{times[self.before.key]['µs'] / after.least(times):.2f}×"


@dataclass(frozen=True)
class Which:
    """Which tiles are cut into slices."""

    of: Asked

    @property
    def asked(self) -> tuple[Asked, ...]:
        return (self.of,)

    def text(self, times: Times) -> str:
        return ", ".join(times[self.of.key].get("cut", ())) or "none"


Cell: TypeAlias = str | Asked | Best | Gain | Which


@dataclass(frozen=True)
class Table:
    """A table of the documents: the names of its columns, how many of these are words, and its rows."""

    head: tuple[str, ...]
    words: int
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def asked(self) -> list[Asked]:
        return [each for row in self.rows for cell in row if not isinstance(cell, str) for each in cell.asked]

    def text(self, times: Times) -> str:
        """In Markdown. KeyError, with the key, for a prediction that is not there."""
        rules = ["---"] * self.words + ["---:"] * (len(self.head) - self.words)
        rows = [[cell if isinstance(cell, str) else cell.text(times) for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in (self.head, rules, *rows))


PASSES = {"": "forward", "_input_grad": "gradient of input", "_weight_grad": "gradient of weight"}
TWINS = (("-tf32", "high"), ("-bf16", "medium"))
COLUMNS = {  # of the tile on tensor cores that a shape fills, forward and for the gradient of the input
    "m2": (64, 32),
    "k2": (64, 64),
    "c1": (128, 64),
    "c2": (128, 128),
    "c3": (128, 128),
    "r1": (64, 64),
    "r2": (128, 64),
    "p1": (64, 128),
}
DENSE = {"128,3136,1024": "128 × 3136 to 1024", "256,4096,4096": "256 × 4096 to 4096", "128,5408,256": "128 × 5408 to 256"}


def tensor_cores() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for shape, columns in COLUMNS.items():
        for op, width in zip(("conv2d", "conv2d_input_grad"), columns, strict=True):
            warps: list[Cell] = [Asked("A100", "conv", shape, op, f"mma128x64{ending}", how) for ending, how in (("", "highest"), *TWINS)]
            hopper = [Asked("H100", "conv", shape, op, f"tensor128x{width}{ending}", how) for ending, how in TWINS]
            rows.append(
                (
                    shape,
                    PASSES[op.removeprefix("conv2d")],
                    Asked("A100", "conv", shape, op),
                    *warps,
                    Asked("H100", "conv", shape, op),
                    *hopper,
                )
            )
    head = "shape", "pass", "A100, FMAs", "`mma128x64`", "`mma128x64-tf32`", "`mma128x64-bf16`", "H100, selected"
    return Table((*head, "`tensor128x*-tf32`", "`tensor128x*-bf16`"), 2, tuple(rows))


def weight_gradients() -> Table:
    """The gradient of the weight on tensor cores: by warps, and Hopper's own."""
    op, rows = "conv2d_weight_grad", list[tuple[Cell, ...]]()
    for chip, shape in (("A100", "m2"), ("A100", "c2"), ("H100", "m2"), ("H100", "c2")):
        more = [Asked(chip, "conv", shape, op, f"mma128x64{ending}", how) for ending, how in (("", "highest"), *TWINS)]
        rows.append((chip, shape, Asked(chip, "conv", shape, op, "tile*"), *more, Asked(chip, "conv", shape, op)))
    return Table(("chip", "shape", "FMAs", "`mma128x64`", "`-tf32`", "`-bf16`", "selected"), 2, tuple(rows))


def rtx_4090() -> Table:
    """Tensor cores that are as fast as FMAs."""
    rows = [
        (shape, PASSES[op.removeprefix("conv2d")], *(Asked("RTX 4090", "conv", shape, op, *how) for how in HOW))
        for shape in ("c1", "r1")
        for op in ("conv2d", "conv2d_input_grad")
    ]
    return Table(("shape", "pass", "FMAs", "`mma128x64`", "`-tf32`", "`-bf16`"), 2, tuple(rows))


HOW = (("tile*", "highest"), ("mma128x64", "highest"), *((f"mma128x64{ending}", mode) for ending, mode in TWINS))


def dense_by_warps() -> Table:
    rows = [
        (chip, words, PASSES[end], *(Asked(chip, "dense", shape, f"dense{end}", *how) for how in HOW))
        for chip in ("A100", "H100")
        for shape, words in DENSE.items()
        for end in PASSES
    ]
    return Table(("chip", "rows × inputs to outputs", "pass", "FMAs", "`mma128x64`", "`-tf32`", "`-bf16`"), 3, tuple(rows))


def dense_by_groups() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for shape, words in DENSE.items():
        for end in PASSES:
            op = f"dense{end}"
            own = [Asked("H100", "dense", shape, op, name) for name in ("mma128x64", "tensor128x128", "tensor64x128")]
            twins = [Asked("H100", "dense", shape, op, f"tensor128x128{ending}", how) for ending, how in TWINS]
            rows.append((words, PASSES[end], *own, *twins))
    names = "by warps", "`tensor128x128`", "`tensor64x128`", "`tensor128x128-tf32`", "`tensor128x128-bf16`"
    return Table(("rows × inputs to outputs", "pass", *names), 2, tuple(rows))


SMALL = {"m2": "32,32,14x14,64,5x5,1,same", "k2": "32,64,13x13,64,3x3,1,valid"}  # with 32 images in place of 128
WAVES = {
    "H100": ("m2", "m2 g", "k2", "k2 g", "m2 32 g"),
    "A100": ("k2", "k2 g", "m2 32", "m2 32 g", "k2 32", "k2 32 g"),
    "RTX 4090": ("m2 g", "k2", "k2 g", "k2 32", "k2 32 g"),
}
"""The rows of last_wave: a shape, 32 for so many images, g for the gradient of the input."""


def last_wave() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for chip, names in WAVES.items():
        for name in names:
            shape, *more = name.split()
            small, end = "32" in more, "_input_grad" if "g" in more else ""
            given = "conv", SMALL[shape] if small else shape, f"conv2d{end}", "", "highest"
            whole, cut = (Asked(chip, *given, slices) for slices in (1, None))
            rows.append((chip, f"{shape}, 32 images" if small else shape, PASSES[end], whole, cut, Gain(whole, cut), Which(cut)))
    return Table(("chip", "shape", "pass", "whole sums", "selected", "gain", "cut"), 3, tuple(rows))


FEW = (
    ("A100", "m2", "m2", "_input_grad"),
    ("A100", "128,64,28x28,32,3x3,1,1", "128 × 64 × 28 × 28 by 32 of 3 × 3", ""),
    ("A100", "128,64,28x28,32,3x3,1,1", "the same", "_weight_grad"),
    ("A100", "128,64,28x28,96,3x3,1,1", "the same by 96", ""),
    ("A100", "128,16,32x32,16,3x3,1,1", "128 × 16 × 32 × 32 by 16 of 3 × 3", ""),
    ("A100", "128,32,16x16,32,3x3,1,1", "128 × 32 × 16 × 16 by 32 of 3 × 3", ""),
    ("RTX 4090", "m2", "m2", "_input_grad"),
    ("RTX 4090", "128,64,28x28,32,3x3,1,1", "128 × 64 × 28 × 28 by 32 of 3 × 3", ""),
    ("RTX 4090", "128,64,28x28,32,3x3,1,1", "the same", "_weight_grad"),
    ("RTX 4090", "128,64,28x28,96,3x3,1,1", "the same by 96", ""),
    ("RTX 4090", "128,16,32x32,16,3x3,1,1", "128 × 16 × 32 × 32 by 16 of 3 × 3", ""),
    ("RTX 4090", "128,32,16x16,32,3x3,1,1", "128 × 32 × 16 × 16 by 32 of 3 × 3", ""),
    ("H100", "8,64,28x28,32,3x3,1,1", "8 × 64 × 28 × 28 by 32 of 3 × 3", "_weight_grad"),
    ("H100", "128,48,8x8,32,3x3,1,1", "128 × 48 × 8 × 8 by 32 of 3 × 3", "_weight_grad"),
)


def few_filters() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for chip, shape, words, end in FEW:
        wide, narrow = ("tile64x64", "tile32x64") if end == "_weight_grad" else ("tile128x64", "tile128x32")
        before, after = (Asked(chip, "conv", shape, f"conv2d{end}", name) for name in (wide, narrow))
        rows.append((chip, words, PASSES[end], before, after, Gain(before, after)))
    return Table(("chip", "shape", "pass", "64 columns or rows", "32", "gain"), 3, tuple(rows))


def first_layers() -> Table:
    shapes = {"m1": "m1", "k1": "k1", "colour": "256,3,32x32,64,3x3,1,1", "stem": "64,3,224x224,64,7x7,2,3"}
    chips = "H100", "A100", "RTX 4090"
    rows = [
        (name, *(Asked(chip, "conv", shape, "conv2d_input_grad", way) for chip in chips for way in ("plain", "direct")))
        for name, shape in shapes.items()
    ]
    return Table(("shape", *(text for chip in chips for text in (f"{chip}, `plain`", "`direct`"))), 1, tuple(rows))


def winograd() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for op in ("conv2d", "conv2d_input_grad"):
        for shape in ("k2", "c1", "c2", "c3", "r1"):
            cells: list[Cell] = []
            for chip in ("A100", "RTX 4090", "H100"):
                tiles, own = (Asked(chip, "conv", shape, op, way) for way in ("tile*", "winograd"))
                cells += [tiles, own, Gain(tiles, own)]
            rows.append((shape, PASSES[op.removeprefix("conv2d")], *cells))
    names = [text for chip in ("A100", "RTX 4090", "H100") for text in (f"{chip}, tiles", "`winograd`", "gain")]
    return Table(("shape", "pass", *names), 2, tuple(rows))


def wide_tiles() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for op in ("conv2d", "conv2d_input_grad"):
        for shape in ("c1", "c2", "c3", "r1", "r2", "p1"):
            tiles = Asked("RTX 4090", "conv", shape, op)
            wide = Best(tuple(Asked("RTX 4090", "conv", shape, op, name) for name in ("wide128x128", "wide256x64")))
            rival = "–" if shape in ("r2", "p1") else Asked("RTX 4090", "conv", shape, op, "winograd")
            rows.append((shape, PASSES[op.removeprefix("conv2d")], tiles, wide, Gain(tiles, wide), rival))
    return Table(("shape", "pass", "RTX 4090, selected", "wide", "gain", "`winograd`"), 2, tuple(rows))


AVERAGES = ("256,128,32x32,2x2", "256,128,32x32,3x3,2,0", "64,64,56x56,3x3,1,0", "64,64,56x56,5x5,2,0", "64,64,56x56,5x5,1,0")


def pooling() -> Table:
    """Maxima and averages on an H100."""
    rows: list[tuple[Cell, ...]] = []
    for kind, shapes in (("pool", ("256,128,32x32,3x3,2,1", "64,64,56x56,3x3,2,1", "64,64,56x56,5x5,1,2")), ("avg_pool", AVERAGES)):
        for shape in shapes:
            op = {"pool": "max_pool2d", "avg_pool": "avg_pool2d"}[kind]
            n, c, sides, window, *rest = shape.split(",")
            words = f"{n} × {c} × {sides.replace('x', ' × ')}, {window.replace('x', ' × ')}, stride {rest[0] if rest else 2}"
            found = [Asked("H100", kind, shape, op + end) for end in ("", "_grad")]
            rows.append(("maxima" if kind == "pool" else "averages", words, *found))
    return Table(("pooling", "shape", "forward", "gradient"), 2, tuple(rows))


MEASURED = (  # what was measured with earlier kernels: (words, where in kernels/measured, what is predicted of today's)
    ("c1-3x3, pooling", ("shapes", "c1-3x3", "", "max_pool2d"), Asked("H100", "pool", "256,128,32x32,3x3,2,1", "max_pool2d")),
    (
        "c1-3x3, its gradient",
        ("shapes", "c1-3x3", "", "max_pool2d_grad"),
        Asked("H100", "pool", "256,128,32x32,3x3,2,1", "max_pool2d_grad"),
    ),
    ("r1-3x3, pooling", ("shapes", "r1-3x3", "", "max_pool2d"), Asked("H100", "pool", "64,64,56x56,3x3,2,1", "max_pool2d")),
    ("r1-3x3, its gradient", ("shapes", "r1-3x3", "", "max_pool2d_grad"), Asked("H100", "pool", "64,64,56x56,3x3,2,1", "max_pool2d_grad")),
    ("m1, gradient of input", ("shapes", "m1", "", "conv2d_input_grad"), Asked("H100", "conv", "m1", "conv2d_input_grad")),
    ("k1, gradient of input", ("shapes", "k1", "", "conv2d_input_grad"), Asked("H100", "conv", "k1", "conv2d_input_grad")),
    *(
        (
            f"dense, {words}, {PASSES[end]}",
            ("networks", network, "dense_2", f"dense{end}"),
            Asked("H100", "dense", shape, f"dense{end}"),
        )
        for network, shape, words in (("keras", "128,256,10", "128 × 256 to 10"), ("lenet5x5", "128,1024,10", "128 × 1024 to 10"))
        for end in PASSES
    ),
)
UPDATES = (
    ("Adam, 1.4 million parameters (keras)", "keras", "adam_update"),
    ("SGD with momentum, 3.2 million (lenet5x5)", "lenet5x5", "sgd_update"),
)
"""The updates, which the predicted steps have."""


TABLES = {
    "tensor-cores": tensor_cores,
    "dense-by-warps": dense_by_warps,
    "dense-by-groups": dense_by_groups,
    "pooling": pooling,
    "first-layers": first_layers,
    "weight-gradients": weight_gradients,
    "rtx-4090": rtx_4090,
    "last-wave": last_wave,
    "wide-tiles": wide_tiles,
    "few-filters": few_filters,
    "winograd": winograd,
}
STEPS = tuple((chip, network) for chip in ("H100",) for network in ("keras", "tf2", "lenet5x5"))


def everything(tables: Sequence[str] = tuple(TABLES)) -> Iterable[Asked]:
    """The predictions that the tables need, each once, in the order of the tables."""
    found = [each for name in tables for each in TABLES[name]().asked]
    return dict.fromkeys([*(each for _, _, each in MEASURED), *found])
