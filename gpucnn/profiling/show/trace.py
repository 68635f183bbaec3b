"""A profile as a trace for chrome://tracing and ui.perfetto.dev: the Trace Event Format, complete events in microseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpucnn.data.files import atomic_file
from gpucnn.profiling.records import Profile, Row
from gpucnn.text import plain

PHASES = ("batch", "forward", "loss", "backward", "update")


def placed(profile: Profile) -> list[tuple[Row, float]]:
    """Each row with its start in the step; if that was not measured, one after the other."""
    result, end = [], 0.0
    for row in profile.rows:
        start = end if row.start is None else row.start
        result.append((row, start))
        end = max(end, start + row.seconds)
    return result


def lane(row: Row) -> int:
    """The line of the timeline that a row is on: one for each phase, and one for the rest."""
    return PHASES.index(row.phase) if row.phase in PHASES else len(PHASES)


def events(profile: Profile) -> list[dict[str, Any]]:
    """The events: a process for the device, a thread for each phase. Names are escaped for the viewer."""
    what = "" if profile.measured else " (bounds, not measured)"
    result: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": plain(profile.device.get("chip", profile.kind)) + what}}
    ]
    for number in sorted({lane(row) for row in profile.rows}):
        name = PHASES[number] if number < len(PHASES) else "other"
        result.append({"ph": "M", "pid": 1, "tid": number + 1, "name": "thread_name", "args": {"name": name}})
    for row, start in placed(profile):
        details = {
            "layer": plain(row.layer),
            "operation": plain(row.op),
            "shape": plain(row.shape),
            "bound by": row.wall,
            "FLOPs": row.flops,
            "bytes": row.bytes,
            "roofline µs": row.roofline * 1e6,
            "grid": None if row.blocks is None else f"{row.blocks} x {row.threads}",
            "registers": row.registers,
            "occupancy": row.occupancy,
        }
        result.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": lane(row) + 1,
                "ts": start * 1e6,
                "dur": row.seconds * 1e6,
                "name": plain(f"{row.layer} {row.kernel}"),
                "cat": plain(row.op),
                "args": {name: value for name, value in details.items() if value is not None},
            }
        )
    return result


def write(profile: Profile, path: Path) -> None:
    """Writes the trace."""
    content = {
        "traceEvents": events(profile),
        "displayTimeUnit": "ns",
        "otherData": {"model": plain(profile.model), "batch": str(profile.batch)},
    }
    with atomic_file(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, allow_nan=False).encode())
