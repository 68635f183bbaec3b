"""The table of a profile, column by column: title, meaning, number, and text.

The report and the page show the same columns; one that is empty in all rows is left out of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.profiling.records import Profile, Row
from gpucnn.profiling.show.units import scaled, seconds_text
from gpucnn.profiling.what import roofline
from gpucnn.text import bytes_text


@dataclass(frozen=True)
class Column:
    """`number` is the key for sorting, or None; `text` is what is shown."""

    title: str
    help: str
    text: Callable[[Row, Profile], str]
    number: Callable[[Row, Profile], float | None] | None = None
    detail: bool = False  # on the page alone: it would make a terminal's lines too long
    work: bool = False  # describes the work; a list of kernels shows it on the page only


def of(profile: Profile, *, details: bool = True) -> list[Column]:
    """The columns in which this profile has values."""
    wanted = [column for column in COLUMNS if details or not (column.detail or (column.work and profile.kind == "kernels"))]
    return [column for column in wanted if any(column.text(row, profile) for row in profile.rows)]


def _number(
    title: str,
    help: str,
    value: Callable[[Row, Profile], float | None],
    text: Callable[[float], str],
    *,
    detail: bool = False,
    work: bool = False,
) -> Column:
    def shown(row: Row, profile: Profile) -> str:
        number = value(row, profile)
        return "" if number is None else text(number)

    return Column(title, help, shown, value, detail, work)


def _percent(part: float) -> str:
    if 0 < part < 0.0005:
        return "<0.1 %"
    return f"{100 * part:.1f} %" if part < 0.0995 else f"{100 * part:.0f} %"


def _share(row: Row, profile: Profile) -> float | None:
    return roofline.share(row, profile) if profile.of_step else None


def _slip(count: int | None, profile: Profile) -> int | None:
    """A number that should be 0: in a step it is shown only if it is not, in a list of kernels always."""
    return None if profile.of_step and not count else count


def _spread(row: Row, profile: Profile) -> str:
    return "" if row.time is None else f"{seconds_text(row.time.p10)}–{seconds_text(row.time.p90)}"


def _loop(row: Row, profile: Profile) -> str:
    if row.loop is None:
        return ""
    loop = row.loop
    other = loop.instructions - loop.fma - loop.shared - loop.memory
    return f"{loop.instructions}: {loop.fma} FMA, {loop.shared} shared memory, {loop.memory} memory, {other} other"


def _torch_spread(row: Row, profile: Profile) -> str:
    return "" if row.reference is None else f"{seconds_text(row.reference.p10)}–{seconds_text(row.reference.p90)}"


COLUMNS = (
    Column("layer", "who calls it", lambda row, profile: row.layer if profile.of_step else ""),
    Column("sample", "what launches it: a shape, or what is special about it", lambda row, profile: "" if profile.of_step else row.layer),
    Column("pass", "the part of the step", lambda row, _: row.phase),
    Column("kernel", "the kernel; on the CPU the operation", lambda row, _: row.kernel),
    Column("road", "on the CPU what computed it: loops of gpucnn_loops, or numpy", lambda row, _: row.road or ""),
    Column("of", "the operation that the kernel is of", lambda row, profile: "" if profile.kind == "cpu" else row.op, detail=True),
    Column(
        "grid",
        "blocks × threads of a block",
        lambda row, _: "" if row.blocks is None else f"{row.blocks:,} × {row.threads}",
        lambda row, _: row.blocks,
    ),
    _number("time", "the median", lambda row, _: row.time.median if row.time else None, seconds_text),
    Column("p10–p90", "the 10th and the 90th percentile", _spread, lambda row, _: row.time.p90 - row.time.p10 if row.time else None),
    _number(
        "warm", "the median where the caches hold the data already", lambda row, _: row.warm.median if row.warm else None, seconds_text
    ),
    _number("at least", "what the roofline allows", lambda row, _: row.roofline, seconds_text, work=True),
    _number(
        "predicted", "worked out from the machine code, with what lies before the next kernel", lambda row, _: row.predicted, seconds_text
    ),
    _number("step", "the share of the step", _share, _percent),
    _number(
        "FLOPs",
        "floating-point operations, an FMA being two",
        lambda row, _: float(row.flops),
        lambda n: scaled(n, "") if n else "–",
        work=True,
    ),
    _number("bytes", "the least that have to be moved", lambda row, _: float(row.bytes), lambda n: scaled(n, "B"), work=True),
    _number("FLOP/B", "operations per byte", lambda row, _: row.intensity if row.flops else None, lambda n: f"{n:.1f}", work=True),
    _number("FLOP/s", "reached", lambda row, _: row.flops / row.time.median if row.time and row.flops else None, lambda n: scaled(n, "")),
    _number("B/s", "reached", lambda row, _: row.bytes / row.time.median if row.time else None, lambda n: scaled(n, "B")),
    _number("roofline", "the part of it that was reached", lambda row, _: row.of_roofline, lambda part: f"{100 * part:.0f} %"),
    Column("bound by", "what stands in the way of less", lambda row, _: row.wall, work=True),
    Column("limited by", "what the prediction says that it waits for", lambda row, _: row.limit or "", detail=True),
    _number("regs", "registers of a thread", lambda row, _: row.registers, lambda n: f"{n:.0f}"),
    _number("spills", "bytes of registers stored to memory and loaded back", lambda row, _: row.spills, lambda n: f"{n:.0f}"),
    _number(
        "stack",
        "bytes of a thread's arrays that had to be put in memory",
        lambda row, profile: _slip(row.stack, profile),
        lambda n: f"{n:.0f}",
    ),
    _number("f64", "instructions in float64, a slip here", lambda row, profile: _slip(row.float64, profile), lambda n: f"{n:.0f}"),
    _number("shared", "shared memory of a block", lambda row, _: row.shared, bytes_text),
    _number(
        "occupancy", "the part of the chip's thread slots that can be filled", lambda row, _: row.occupancy, lambda n: f"{100 * n:.0f} %"
    ),
    _number("waves", "how many times over the grid fills the chip", lambda row, _: row.waves, lambda n: f"{n:.2f}", work=True),
    _number(
        "loop FMA",
        "the part of the main loop's instructions that are FMAs",
        lambda row, _: row.loop.fma_share if row.loop and row.loop.fma else None,
        _percent,
    ),
    Column("main loop", "what its instructions are", _loop, lambda row, _: row.loop.instructions if row.loop else None, detail=True),
    _number(
        "torch", "PyTorch's time for the whole operation", lambda row, _: row.reference.median if row.reference else None, seconds_text
    ),
    Column("torch p10–p90", "how even PyTorch's times were", _torch_spread, detail=True),
    _number("× torch", "the whole operation's time over PyTorch's", lambda row, _: row.ratio, lambda n: f"{n:.2f}×"),
    _number("error", "of the result, as a part of what rounding accounts for", lambda row, _: row.error, lambda n: f"{n:.2g}", detail=True),
    Column("shape", "sizes, without those that are as usual", lambda row, _: row.shape, work=True),
)
