"""Compares two profiles of the same thing: what got slower, or uses more memory, beyond noise."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from gpucnn.errors import DataError
from gpucnn.profiling.measure.statistics import LEAST_CHANGE, differs
from gpucnn.profiling.records import Profile, Row, Timing
from gpucnn.profiling.show.units import seconds_text

KINDS = {
    "gpu": "measured on a GPU",
    "cpu": "measured on the CPU",
    "bounds": "bounds of a step",
    "kernels": "kernels by themselves",
    "shapes": "named shapes",
}


@dataclass(frozen=True)
class Change:
    """A difference between the old profile and the new one; worse where `slower`."""

    what: str
    slower: bool
    size: float  # in seconds of a step, to sort by
    text: str


def changes(old: Profile, new: Profile) -> list[Change]:
    """The differences, the worst first. Raises DataError if the profiles are not of the same thing."""
    for name, one, other in (
        ("kind", KINDS[old.kind], KINDS[new.kind]),
        ("model", old.model, new.model),
        ("batch size", str(old.batch), str(new.batch)),
        ("chip", old.device.get("chip", ""), new.device.get("chip", "")),
    ):
        if one != other:
            raise DataError(
                f"these profiles are of different things, their {name} was {one or 'none'} and is {other or 'none'}: profile the same"
            )
    found = []
    befores, afters = _grouped(old), _grouped(new)
    for key, rows in afters.items():
        if key in befores:
            found += _change(" ".join(key), befores[key], rows, new.measured)
    if old.step.time and new.step.time:
        found += _timing_change("the step", old.step.time, new.step.time)
    return sorted(found, key=lambda change: (not change.slower, -change.size))


def lines(old: Profile, new: Profile) -> list[str]:
    """The comparison as lines to print."""
    found = changes(old, new)
    slower, faster = [change for change in found if change.slower], [change for change in found if not change.slower]
    befores, afters = _grouped(old), _grouped(new)
    result = [f"slower    {change.text}" for change in slower] + [f"faster    {change.text}" for change in faster]
    result += [f"new       {' '.join(key)}" for key in afters if key not in befores]
    if not new.only:
        result += [f"gone      {' '.join(key)}" for key in befores if key not in afters]
    if not slower:
        result.append("nothing got slower" + (" beyond the noise" if new.measured else ""))
    return result


def _grouped(profile: Profile) -> dict[tuple[str, str, str], list[Row]]:
    """Groups the kernels of one operation: their number may change, and only their total counts."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in profile.rows:
        groups[row.key if profile.of_step else (row.layer, row.op, row.kernel)].append(row)
    return groups


def _change(what: str, old: list[Row], new: list[Row], measured: bool) -> list[Change]:
    if measured:
        before, after = _sum(old), _sum(new)
        return _timing_change(what, before, after) if before and after else []
    found = []
    for name, unit in (("spills", "bytes spilled"), ("registers", "registers")):
        one, other = (max((getattr(row, name) or 0 for row in rows), default=0) for rows in (old, new))
        if one != other:
            found.append(Change(what, other > one, 0.0, f"{what}: {one} {unit}, now {other}"))
    one, other = (sum(row.roofline for row in rows) for rows in (old, new))
    if abs(other - one) > LEAST_CHANGE * one:
        found.append(Change(what, other > one, abs(other - one), f"{what}: at least {seconds_text(one)}, now {seconds_text(other)}"))
    return found


def _timing_change(what: str, old: Timing, new: Timing) -> list[Change]:
    if not differs(old, new):
        return []
    ratio = new.median / old.median
    text = (
        f"{what}: {seconds_text(old.median)} ({seconds_text(old.p10)} to {seconds_text(old.p90)}), now {seconds_text(new.median)} "
        f"({seconds_text(new.p10)} to {seconds_text(new.p90)}), {ratio:.2f}×"
    )
    return [Change(what, new.median > old.median, abs(new.median - old.median), text)]


def _sum(rows: list[Row]) -> Timing | None:
    """The time of kernels that run one after the other. Percentiles add up if all kernels are slow at the same time, as on a busy
    machine."""
    times = [row.time for row in rows if row.time is not None]
    if not times or len(times) < len(rows):
        return None
    count = min(time.samples for time in times)
    return Timing(sum(time.median for time in times), sum(time.p10 for time in times), sum(time.p90 for time in times), count)
