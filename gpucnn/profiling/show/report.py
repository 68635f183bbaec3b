"""A profile as text for a terminal."""

from __future__ import annotations

from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import columns
from gpucnn.profiling.show.units import scaled, seconds_text
from gpucnn.profiling.what import roofline
from gpucnn.text import aligned, bytes_text, number_of

BOUNDS = "These are bounds and predictions, worked out and compiled for a chip that is not here. Nothing was run, and nothing measured."


def lines(profile: Profile) -> list[str]:
    """The whole report, a line at a time."""
    whole = [*step(profile), ""] if profile.of_step else []
    return [*header(profile), "", *table(profile), "", *whole, *_listed("look at", roofline.advice(profile)), *notes(profile)]


def header(profile: Profile) -> list[str]:
    """The first lines: model, device and ceilings."""
    result = [BOUNDS] if not profile.measured else []
    if profile.of_step:
        result.append(f"model     {profile.model}, batch {profile.batch}" + (f", {profile.only}" if profile.only else ""))
    else:
        result.append(f"kernels   {profile.model}")
    chip = profile.device.get("chip", "")
    result.append(f"chip      {', '.join([chip, *(f'{name} {value}' for name, value in profile.device.items() if name != 'chip')])}")
    ceilings = profile.ceilings
    result.append(
        f"ceilings  {scaled(ceilings.bandwidth, 'B/s')}, {scaled(ceilings.flops, 'FLOP/s')}, {seconds_text(ceilings.launch)} a launch "
        f"({ceilings.source})"
    )
    return result


def table(profile: Profile) -> list[str]:
    """A line per kernel and pass."""
    shown = columns.of(profile, details=False)
    if not shown:
        return ["the selected part of the model has no kernel"]
    cells = [[column.title for column in shown]] + [[column.text(row, profile) for column in shown] for row in profile.rows]
    return aligned(cells, right=[index for index, column in enumerate(shown) if column.number])


def step(profile: Profile) -> list[str]:
    """The step as a whole."""
    whole = profile.step
    result = []
    if whole.time is not None:
        rate = f", {profile.batch / whole.time.median:,.0f} images/s" if whole.time.median else ""
        result.append(
            f"step      {seconds_text(whole.time.median)} ({seconds_text(whole.time.p10)}–{seconds_text(whole.time.p90)}, "
            f"{number_of(whole.time.samples, 'step')}){rate}"
        )
    if whole.graph is not None:
        name, how = ("recorded", "as `fit` runs it, without Python between") if profile.kind == "cpu" else ("graph", "as one CUDA graph")
        result.append(f"{name:<9} {seconds_text(whole.graph.median)} {how}, {profile.batch / whole.graph.median:,.0f} images/s")
    if profile.measured:
        gaps = "" if whole.gaps is None else f", {seconds_text(whole.gaps)} of the step beside them"
        result.append(f"kernels   {seconds_text(whole.kernels)} in all{gaps}")
    else:
        result.append(f"step      at least {seconds_text(whole.kernels)}: every kernel at its roofline, no time between them")
        if whole.predicted is not None:
            result.append(f"predicted {seconds_text(whole.predicted)} as one CUDA graph, {profile.batch / whole.predicted:,.0f} images/s")
    if whole.host is not None:
        result.append(f"host      {seconds_text(whole.host.median)} to launch a step")
    if whole.memory:
        parts = ", ".join(f"{name} {bytes_text(count)}" for name, count in whole.memory.items())
        result.append(f"memory    {bytes_text(sum(whole.memory.values()))} at the peak: {parts}")
    return result


def notes(profile: Profile) -> list[str]:
    """The last lines: notes, and commands to look closer."""
    return _listed("note", profile.notes) + [f"{name + ':':<9} {command}" for name, command in profile.commands.items()]


def _listed(name: str, texts: list[str]) -> list[str]:
    return [f"{name if not index else '':<9} {text}" for index, text in enumerate(texts)]
