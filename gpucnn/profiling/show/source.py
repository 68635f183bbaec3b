"""The part of a profile's page that shows each kernel's Python beside its machine code."""

from __future__ import annotations

from collections.abc import Sequence

from gpucnn.profiling.records import Listing, SourceLine
from gpucnn.profiling.show.svg import words

MOST_INSTRUCTIONS = 400  # of a line: an unrolled one has thousands, all alike


def source(listings: Sequence[Listing]) -> str:
    """All kernels, each folded; bars mark the lines that take the most time."""
    intro = (
        "Each line of Python with the instructions that it became, its part of what a warp issues, and of the cycles in which nothing is "
        "issued the part that is spent waiting for it. Predicted. A line opens to its instructions, each with how often a warp issues it."
    )
    return f"<p>{words(intro)}</p>" + "".join(map(_kernel, listings))


def _kernel(listing: Listing) -> str:
    rows = "".join(map(_line, listing.lines))
    return (
        f'<details class="kernel"><summary>{words(listing.kernel)}</summary><div class="scroll"><table class="source"><thead><tr>'
        '<th class="text" scope="col">line</th><th class="number" scope="col">issued</th><th class="number" scope="col">waited for</th>'
        '<th class="text" scope="col">Python, and its instructions</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _line(line: SourceLine) -> str:
    shown = line.instructions[:MOST_INSTRUCTIONS]
    code = "\n".join(f"{_times(times):>7}  {words(text)}" for text, times in shown)
    if len(line.instructions) > len(shown):
        code += f"\n         and {len(line.instructions) - len(shown):,} more"
    return (
        f'<tr><td class="text">{words(line.location)}</td>{_part(line.issued)}{_part(line.waited)}'
        f'<td class="text"><details><summary><code>{words(line.text)}</code> ({len(line.instructions):,})</summary>'
        f"<pre>{code}</pre></details></td></tr>"
    )


def _times(times: float) -> str:
    return f"{times:,.0f}×" if times >= 1 or not times else "<1×"


def _part(part: float) -> str:
    text = "" if not part else "<0.1 %" if part < 0.0005 else f"{100 * part:.1f} %"
    return f'<td class="number bar" style="--part:{100 * min(1.0, part):.1f}%"><span>{words(text)}</span></td>'
