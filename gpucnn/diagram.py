"""A network as a picture for notebooks: the output of each layer, drawn to size, from left to right and row by row.

SVG made of plain text, in the colour of the text around it, so that it can be read on light and on dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpucnn.layers import Concat, Layer, Residual
from gpucnn.layers.base import Shape
from gpucnn.notebook import COLOURS, words
from gpucnn.text import number_of, shortened

ACROSS = 7  # layers in a row
MOST = 42  # layers; of a deeper network, the first and the last are drawn
WIDTH, HEIGHT = 112, 136  # of the room for a layer
MIDDLE = 58  # where the boxes' middles lie, from the top of a row
LARGEST, SMALLEST = 52.0, 5.0  # sides of a box
SHEETS, APART = 5, 4  # the most maps that are drawn behind one another, and how far


@dataclass(frozen=True)
class Step:
    """The drawing of a layer. way: "residual" for one with a shortcut around its own layers; told: its full description, shown on hover."""

    name: str
    below: str
    shape: Shape
    told: str = ""
    learns: bool = False
    way: str = ""


def network_picture(input_shape: Shape, layers: Sequence[Layer]) -> str:
    """A built network as SVG. Boxes have the height and width of the maps, on a logarithmic scale, and a depth for their number."""
    steps = [Step("input", "", input_shape), *map(_step, layers)]
    if len(steps) > MOST:
        left = len(steps) - MOST + 1
        steps = [*steps[: MOST // 2], Step("…", f"{left} more", ()), *steps[len(steps) - (MOST - 1 - MOST // 2) :]]
    rows = -(-len(steps) // ACROSS)
    wide, high = min(len(steps), ACROSS) * WIDTH, rows * HEIGHT
    largest = [
        max((max(_sizes(step.shape)[1:]) for step in steps if (len(step.shape) == 3) is image), default=1) for image in (False, True)
    ]
    end = _text(layers[-1].output_shape) if layers else "…"
    label = f"The network: {number_of(len(layers), 'layer')} from {_text(input_shape)} to {end}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" role="img" '
        f'aria-label="{words(label)}" style="max-width: 100%; height: auto" font-family="sans-serif" font-size="10" '
        'text-anchor="middle" fill="currentColor" stroke="none">'
    ]
    for number, step in enumerate(steps):
        x, y = (number % ACROSS + 0.5) * WIDTH, number // ACROSS * HEIGHT
        parts += _drawn(step, x, y, largest[len(step.shape) == 3], before=number > 0, after=number < len(steps) - 1)
    return "".join([*parts, "</svg>"])


def _step(layer: Layer) -> Step:
    below = type(layer).__name__ + (f", {layer.activation}" if layer.activation else "")
    way = "residual" if isinstance(layer, Residual) else ""
    if isinstance(layer, Concat):
        below = f"Concat of {len(layer.branches)}"
    return Step(layer.name, below, layer.output_shape, repr(layer), any(True for _ in layer.named_parameters()), way)


def _drawn(step: Step, x: float, y: float, largest: int, *, before: bool, after: bool) -> list[str]:
    """A layer whose position has its middle at x and its top at y, with the lines to and from it."""
    depth, rows, columns = _sizes(step.shape)
    high, wide = _side(rows, largest), _side(columns, largest)
    sheets = 1 + min(SHEETS - 1, round(math.log2(depth) / 2)) if depth > 1 else 1
    back = (sheets - 1) * APART
    middle, left = y + MIDDLE, x - (wide + back) / 2
    right = left + wide + back
    parts = [f"<g><title>{words(shortened(step.told, 400))}</title>" if step.told else "<g>"]
    lines = [(x - WIDTH / 2, left - 3)] * before + [(right + 3, x + WIDTH / 2)] * after
    parts += [f'<path d="M{start:.1f} {middle:.1f}H{end:.1f}" stroke="currentColor" opacity="0.5"/>' for start, end in lines]
    if step.way:
        top = middle - LARGEST / 2 - APART * SHEETS
        parts.append(
            f'<path d="M{x - WIDTH / 2 + 4:.1f} {middle:.1f}C{x - WIDTH / 2 + 8:.1f} {top:.1f} {x + WIDTH / 2 - 8:.1f} {top:.1f} '
            f'{x + WIDTH / 2 - 4:.1f} {middle:.1f}" fill="none" stroke="{COLOURS[1]}" stroke-width="1.5"/>'
        )
    colour, strength = (COLOURS[0], 0.45) if step.learns else ("currentColor", 0.12)
    for sheet in range(sheets - 1, -1, -1):
        at = sheet * APART
        parts.append(
            f'<rect x="{left + at:.1f}" y="{middle - high / 2 - at + back / 2:.1f}" width="{wide:.1f}" height="{high:.1f}" '
            f'fill="{colour}" fill-opacity="{strength}" stroke="currentColor" stroke-width="0.8"/>'
        )
    told = ((step.name, "bold"), (step.below, "normal"), (_text(step.shape), "normal"))
    for number, (text, weight) in enumerate(told):
        parts.append(
            f'<text x="{x:.1f}" y="{y + HEIGHT - 30 + 12 * number:.1f}" font-weight="{weight}">{words(shortened(text, 20))}</text>'
        )
    return [*parts, "</g>"]


def _sizes(shape: Shape) -> tuple[int, int, int]:
    """Maps, rows and columns; a row of features is drawn upright."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, math.prod(shape), 1


def _side(size: int, largest: int) -> float:
    return SMALLEST + (LARGEST - SMALLEST) * math.log2(size) / math.log2(max(largest, 2))


def _text(shape: Shape) -> str:
    return " × ".join(map(str, shape))
