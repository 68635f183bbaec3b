"""A profile as one self-contained page: style, script and drawings are included, and nothing is loaded from the network."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path

from gpucnn.data.files import atomic_file
from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import columns, report, source, svg
from gpucnn.profiling.show.svg import words
from gpucnn.profiling.show.units import scaled, seconds_text
from gpucnn.profiling.what import roofline
from gpucnn.text import bytes_text

# Whatever the profile contains, the page can neither load nor send anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def html(profile: Profile) -> str:
    """The whole page."""
    name = profile.model if profile.of_step else f"kernels: {profile.model}"
    batch = f", batch {profile.batch}" if profile.of_step else ""
    title = f"{name}{batch}, on {profile.device.get('chip', profile.kind)}"
    here = resources.files("gpucnn.profiling.show")
    style, script = (here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    drawn, named = svg.roofline_svg(profile), svg.legend(profile)
    sections = [
        _section("Look at next", "".join(f"<li>{words(text)}</li>" for text in roofline.advice(profile)), "ul"),
        _section("Roofline", f'<div class="scroll">{drawn}</div><p class="legend">{named}</p><p>{words(_explain(profile))}</p>'),
    ]
    if profile.of_step:
        line = f'<div class="scroll">{svg.timeline_svg(profile)}</div><p>{words(_timeline_words(profile))}</p>'
        sections.append(_section("Timeline", line))
    sections.append(_section("Kernels", _table(profile)))
    if profile.listings:
        sections.append(_section("Python and machine code", source.source(profile.listings)))
    if profile.of_step:
        sections.append(_section("The step", _step(profile)))
    if profile.commands:
        sections.append(_section("Look closer", "".join(_command(name, text) for name, text in profile.commands.items())))
    if profile.notes:
        sections.append(_section("Notes", "".join(f"<li>{words(text)}</li>" for text in profile.notes), "ul"))
    warning = "" if profile.measured else f'<p class="bounds">{words(report.BOUNDS)}</p>'
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{words(title)}</title><style>{style}</style></head>\n<body><main>'
        f"<header><h1>{words(name)}</h1><p>{words(_subtitle(profile))}</p>{warning}{_cards(profile)}</header>\n"
        + "\n".join(sections)
        + f'\n</main><div id="tip" role="status" hidden></div><script>{script}</script></body></html>\n'
    )


def write(profile: Profile, path: Path) -> None:
    """Writes the page."""
    with atomic_file(path) as file:
        file.write(html(profile).encode())


def _section(title: str, content: str, tag: str = "div") -> str:
    return f"<section><h2>{words(title)}</h2><{tag}>{content}</{tag}></section>"


def _subtitle(profile: Profile) -> str:
    if not profile.of_step:
        return "gpucnn profile: kernels, each by itself"
    what = "training step" if not profile.only else profile.only
    return f"gpucnn profile: {what}, batch {profile.batch}"


def _cards(profile: Profile) -> str:
    step, ceilings = profile.step, profile.ceilings
    cards = []
    if step.time is not None:
        cards.append(("step", seconds_text(step.time.median), f"{seconds_text(step.time.p10)} to {seconds_text(step.time.p90)}"))
        cards.append(("throughput", f"{profile.batch / step.time.median:,.0f}", "images per second"))
    elif profile.of_step:
        if step.predicted is not None:
            cards.append(("step, predicted", seconds_text(step.predicted), "as one CUDA graph"))
        cards.append(("step, at least", seconds_text(step.kernels), "every kernel at its roofline"))
    cards.append(("chip", profile.device.get("chip", ""), _versions(profile)))
    cards.append(("memory", scaled(ceilings.bandwidth, "B/s"), "ceiling" if profile.measured else "data sheet"))
    cards.append(("arithmetic", scaled(ceilings.flops, "FLOP/s"), "ceiling, float32" if profile.measured else "data sheet, float32"))
    shown = "".join(
        f"<div><dt>{words(name)}</dt><dd>{words(value)}</dd><dd class='more'>{words(more)}</dd></div>" for name, value, more in cards
    )
    return f"<dl class='cards'>{shown}</dl>"


def _versions(profile: Profile) -> str:
    return ", ".join(f"{name} {value}" for name, value in profile.device.items() if name != "chip")


def _explain(profile: Profile) -> str:
    dots = "Each dot is an operation or a kernel" + ("; its area is proportional to its share of the step. " if profile.of_step else ". ")
    if profile.measured:
        text = (
            dots + "Under the sloping line, memory is the limit; under the level one, arithmetic. The distance to the line can be gained."
        )
    else:
        text = "Nothing was measured, so every dot is on the roof; its position shows which limit it meets first. " + dots
    left_out = sum(not row.flops for row in profile.rows)
    return text + (f" Left out: {left_out} without floating-point work." if left_out else "")


def _timeline_words(profile: Profile) -> str:
    if not profile.measured:
        return "Every kernel takes its least possible time, one after the other: this is a bound, not a measurement."
    gaps = profile.step.gaps
    return "" if gaps is None else f"{seconds_text(gaps)} of the step are between the bars."


def _table(profile: Profile) -> str:
    shown = columns.of(profile)
    if not shown:
        return "<p>The selected part of the model has no kernel.</p>"
    heads = "".join(
        f'<th scope="col" class="{_side(column)}"><button type="button" title="{words(column.help)}">{words(column.title)}</button></th>'
        for column in shown
    )
    rows = []
    for index, row in enumerate(profile.rows):
        cells = []
        for column in shown:
            number = column.number(row, profile) if column.number else None
            text = column.text(row, profile)
            key = "" if column.number and number is None else f"{number:.9g}" if number is not None else text
            bar = f' style="--part:{100 * min(1.0, roofline.share(row, profile)):.1f}%"' if column.title == "step" else ""
            more = " wall-" + row.wall if column.title == "bound by" else " bar" if bar else ""
            cells.append(f'<td class="{_side(column)}{more}" data-key="{words(key)}"{bar}><span>{words(text)}</span></td>')
        rows.append(f'<tr id="row-{index}" data-row="{index}">{"".join(cells)}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "<p>Click a column's heading to sort by it, and again to reverse the order.</p>"
    )


def _side(column: columns.Column) -> str:
    return "number" if column.number else "text"


def _step(profile: Profile) -> str:
    rows = []
    for line in report.step(profile):
        name, _, text = line.partition(" ")
        if name != "memory":
            rows.append(f"<dt>{words(name)}</dt><dd>{words(text.strip())}</dd>")
    total = sum(profile.step.memory.values())
    memory = "".join(
        f'<tr><th scope="row">{words(name)}</th><td class="number bar" style="--part:{100 * count / total:.1f}%"><span>'
        f"{words(bytes_text(count))}</span></td></tr>"
        for name, count in profile.step.memory.items()
    )
    if memory:
        memory = f'<div class="scroll"><table class="small"><tbody>{memory}</tbody></table></div>'
        memory = f"<h3>Memory at the peak: {words(bytes_text(total))}</h3>{memory}"
    return f"<dl class='facts'>{''.join(rows)}</dl>{memory}"


def _command(name: str, text: str) -> str:
    return f"<h3>{words(name)}</h3><pre><code>{words(text)}</code></pre>"
