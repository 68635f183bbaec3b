"""The trace: the Trace Event Format, as chrome://tracing and Perfetto read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import trace


def test_every_kernel_is_an_event(recorded: Profile, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace.write(recorded, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    events = [event for event in content["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(recorded.rows)
    for event, row in zip(events, recorded.rows, strict=True):
        assert {"name", "cat", "ts", "dur", "pid", "tid", "args"} <= event.keys()
        assert event["ts"] == pytest.approx(row.start * 1e6) and event["dur"] == pytest.approx(row.seconds * 1e6)
        assert None not in event["args"].values()
    names = {event["args"]["name"] for event in content["traceEvents"] if event["name"] == "thread_name"}
    assert names == {"forward", "loss", "backward", "update"}


def test_events_of_a_lane_do_not_overlap(recorded: Profile) -> None:
    ends: dict[int, float] = {}
    for row, start in trace.placed(recorded):
        assert start >= ends.get(trace.lane(row), 0.0) - 1e-9
        ends[trace.lane(row)] = start + row.seconds


def test_bounds_stand_one_after_the_other_and_say_what_they_are(bounds: Profile) -> None:
    starts = [start for _, start in trace.placed(bounds)]
    assert starts == [0.0, bounds.rows[0].roofline]
    assert "not measured" in trace.events(bounds)[0]["args"]["name"]
