"""The drawings of a profile's page, as SVG: the roofline and the timeline. Text in them is escaped here."""

from __future__ import annotations

import math
from html import escape

from gpucnn.profiling.records import Profile, Row
from gpucnn.profiling.show.trace import PHASES, lane, placed
from gpucnn.profiling.show.units import scaled, seconds_text
from gpucnn.profiling.what import roofline
from gpucnn.profiling.what.operations import KINDS, kind_of
from gpucnn.profiling.what.operations.row import OTHER
from gpucnn.text import plain

WIDTH = 760


def words(text: object) -> str:
    """Foreign text for a page, in an element or in quotes: one line, without markup, and without characters that move or reverse text."""
    return escape(plain(text))


def _tip_words(row: Row, profile: Profile) -> str:
    return "\n".join(map(words, tip(row, profile)))


def roofline_svg(profile: Profile) -> str:
    """Log-log: FLOP per byte across, FLOP/s up; the roof, and a dot for each kernel with an area like its share of the step."""
    ceilings = profile.ceilings
    dots = [(index, row, x, y) for index, row in enumerate(profile.rows) if (x := row.intensity) and (y := _reached(row))]
    knee = roofline.knee(ceilings)
    low_x, high_x = _decades([knee / 4, knee * 4, *(x for _, _, x, _ in dots)])
    low_y, high_y = _decades([ceilings.flops, ceilings.flops / 100, *(y for _, _, _, y in dots)])
    low_y = max(low_y, high_y - 7)
    left, right, top, bottom = 64, WIDTH - 28, 26, 346

    def across(x: float) -> float:
        return left + (right - left) * (math.log10(x) - low_x) / (high_x - low_x)

    def up(y: float) -> float:
        return bottom - (bottom - top) * max(0.0, (math.log10(y) - low_y) / (high_y - low_y))

    parts = [_open(bottom + 44, "Roofline: operations per byte across, operations per second up")]
    for power in range(low_x, high_x + 1):
        x = across(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_power(power)}</text>')
    for power in range(low_y, high_y + 1):
        y = up(10.0**power)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_rate(power)}</text>')
    parts.append(f'<text class="axis" x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">FLOP per byte of memory</text>')
    parts.append(f'<text class="axis" x="{left}" y="{top - 6}" text-anchor="start">FLOP per second</text>')
    # The sloping part begins where it enters the drawing, at the left or at the bottom.
    begin = max(10.0**low_x, 10.0**low_y / ceilings.bandwidth)
    roof = [(begin, begin * ceilings.bandwidth), (knee, ceilings.flops), (10.0**high_x, ceilings.flops)]
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in roof)
    parts.append(f'<polyline class="roof" points="{points}"/>')
    y = up(ceilings.flops) - 7
    # At the left end of the level part, away from dots above the roof, such as products by Winograd's algorithm.
    x = across(knee) + 4
    parts.append(f'<text class="note" x="{x:.1f}" y="{y:.1f}" text-anchor="start">{words(scaled(ceilings.flops, "FLOP/s"))}</text>')
    middle = math.sqrt(begin * knee)
    angle = -math.degrees(math.atan2(up(begin * ceilings.bandwidth) - up(ceilings.flops), across(knee) - across(begin)))
    x, y = across(middle), up(middle * ceilings.bandwidth) - 8
    parts.append(
        f'<text class="note" x="{x:.1f}" y="{y:.1f}" text-anchor="middle" transform="rotate({angle:.1f} {x:.1f} {y:.1f})">'
        f"{words(scaled(ceilings.bandwidth, 'B/s'))}</text>"
    )
    hollow = "" if profile.measured else " hollow"
    for index, row, x, y in sorted(dots, key=lambda dot: -dot[1].seconds):
        radius = 3.5 + 16 * math.sqrt(roofline.share(row, profile))
        parts.append(
            f'<circle class="dot {kind_of(row.op)}{hollow}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="{radius:.1f}" tabindex="0" '
            f'data-row="{index}" data-tip="{_tip_words(row, profile)}"/>'
        )
    return "".join([*parts, "</svg>"])


def timeline_svg(profile: Profile) -> str:
    """The step from left to right, a line for each phase, a bar for each kernel."""
    bars = placed(profile)
    end = max([start + row.seconds for row, start in bars] + [profile.whole, 1e-12])
    lanes = sorted({lane(row) for row, _ in bars})
    left, right, top, height = 76, WIDTH - 28, 8, 34
    bottom = top + height * len(lanes)
    parts = [_open(bottom + 26, "Timeline of the step")]
    step = _round_step(end / 6)
    for number in range(int(end / step) + 1):
        x = left + (right - left) * number * step / end
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        label = seconds_text(number * step)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{words(label)}</text>')
    for line, number in enumerate(lanes):
        name = PHASES[number] if number < len(PHASES) else "other"
        parts.append(f'<text class="axis" x="{left - 10}" y="{top + line * height + 21}" text-anchor="end">{name}</text>')
    for index, (row, start) in enumerate(bars):
        x = left + (right - left) * start / end
        width = max(1.0, (right - left) * row.seconds / end - 0.5)
        y = top + lanes.index(lane(row)) * height + 5
        parts.append(
            f'<rect class="bar {kind_of(row.op)}" x="{x:.2f}" y="{y}" width="{width:.2f}" height="{height - 10}" rx="2" tabindex="0" '
            f'data-row="{index}" data-tip="{_tip_words(row, profile)}"/>'
        )
    return "".join([*parts, "</svg>"])


def legend(profile: Profile) -> str:
    """The colours of the kinds that occur."""
    kinds = [kind for kind in (*KINDS, OTHER) if any(kind_of(row.op) == kind for row in profile.rows)]
    return "".join(f'<span class="key"><i class="{kind}"></i>{words(kind)}</span>' for kind in kinds)


def tip(row: Row, profile: Profile) -> list[str]:
    """The text shown under the mouse, in lines."""
    time = seconds_text(row.seconds)
    if profile.of_step:
        time += f", {100 * roofline.share(row, profile):.1f} % of the step"
    lines = [
        row.kernel,
        ", ".join(part for part in (row.layer, row.phase) if part),
        row.shape,
        time if profile.measured else f"at least {time}",
    ]
    if row.flops:
        lines.append(f"{scaled(row.flops, 'FLOP')}, {row.intensity or 0:.1f} FLOP/B")
    if row.of_roofline is not None:
        lines.append(f"{100 * row.of_roofline:.0f} % of the roofline")
    lines.append(roofline.WORDS[row.wall])
    return [line for line in lines if line]


def _reached(row: Row) -> float:
    return row.flops / row.seconds if row.seconds else 0.0


def _open(height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{words(title)}">'


def _decades(values: list[float]) -> tuple[int, int]:
    """Powers of ten around the values."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.05)


def _power(power: int) -> str:
    return f"{10.0**power:.{-power}f}" if power < 0 else f"{10**power:,}"


def _rate(power: int) -> str:
    prefix = {12: "T", 9: "G", 6: "M", 3: "k", 0: ""}
    base = max((size for size in prefix if size <= power), default=0)
    return f"{10 ** (power - base)} {prefix[base]}" if power >= 0 else f"1e{power}"


def _round_step(step: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    size = 10.0 ** math.floor(math.log10(step))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= step * 0.999)
