"""Tables and curves as HTML for notebooks, made of plain text so that they need no package."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from gpucnn.text import plain

COLOURS = ("#1f6f8b", "#d1495b")  # of training and of validation, as in the pictures
WIDTH, HEIGHT, MARGIN = 320, 180, 36  # of a curve, in pixels


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, heading: str = "", last: Sequence[str] = (), below: str = "") -> str:
    """A table with its first column aligned left and the others right; `last` is a separate row under a line."""
    line = "border-top: 1px solid currentColor"
    parts = [f"<p><b>{words(heading)}</b></p>" if heading else "", "<table><thead><tr>"]
    parts += [f'<th style="text-align: {_side(column)}">{words(title)}</th>' for column, title in enumerate(titles)]
    parts.append("</tr></thead><tbody>")
    for row, style in [*((row, "") for row in rows), *([(last, line)] if last else [])]:
        cells = [f'<td style="text-align: {_side(column)}; white-space: pre">{words(cell)}</td>' for column, cell in enumerate(row)]
        parts.append(f'<tr style="{style}">{"".join(cells)}</tr>')
    parts.append(f"</tbody></table>{f'<p>{words(below)}</p>' if below else ''}")
    return "".join(parts)


def curves(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line chart (x, y) by name, over integers, as SVG; "" if there is nothing to draw. Values that are not finite are left out."""
    lines = {name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in lines.items()}
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="10" fill="currentColor">',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 2 * MARGIN}" fill="none" stroke="#999"/>',
        _text(WIDTH / 2, 14, title, "middle", "currentColor"),
        _text(MARGIN - 4, MARGIN + 4, f"{high:.3g}", "end", "currentColor"),
        _text(MARGIN - 4, HEIGHT - MARGIN, f"{low:.3g}", "end", "currentColor"),
        _text(MARGIN, HEIGHT - MARGIN + 14, f"{left:g}", "middle", "currentColor"),
        _text(WIDTH - MARGIN, HEIGHT - MARGIN + 14, f"{right:g}", "middle", "currentColor"),
    ]
    for number, (name, line) in enumerate((name, line) for name, line in lines.items() if line):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(line) <= 60:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in (at(*point) for point in line)]
        parts.append(_text(MARGIN + 4 + 80 * number, HEIGHT - 4, name, "start", colour))
    return "".join([*parts, "</svg>"])


def _text(x: float, y: float, label: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" stroke="none">{words(label)}</text>'


def _side(column: int) -> str:
    return "right" if column else "left"


def words(text: str) -> str:
    """Any text, escaped for HTML."""
    return html.escape(plain(text))
