"""A profile's JSON: read back as it was, refused with a reason otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gpucnn.errors import DataError
from gpucnn.profiling import records
from gpucnn.profiling.records import Profile


def test_a_profile_comes_back_as_it_was(recorded: Profile, bounds: Profile, nasty: str, tmp_path: Path) -> None:
    for profile in (recorded, bounds, dataclasses.replace(recorded, model=nasty, rows=[])):
        path = tmp_path / "profile.json"
        records.write(profile, path)
        assert records.read(path) == profile
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_a_profile_from_before_is_read(recorded: Profile) -> None:
    """They held bytes that a kernel asks for before any cache."""
    data = json.loads(records.to_json(recorded))
    for row in data["rows"]:
        row["moved"] = 10**8
    assert records.from_json(json.dumps(data), "old.json") == recorded


def changed(profile: Profile, path: list[Any], value: Any) -> str:
    data = json.loads(records.to_json(profile))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["rows", 0, "flops"], "many", "rows[0].flops must be an integer of at least 0, got 'many'"),
        (["rows", 0, "flops"], 1.5, "rows[0].flops must be an integer"),
        (["rows", 0, "flops"], True, "rows[0].flops must be an integer"),
        (["rows", 0, "flops"], -1, "at least 0"),
        (["rows", 0, "time", "median"], float("nan"), "rows[0].time.median must be a number"),
        (["rows", 0, "time", "median"], 1e9, "median outside"),
        (["rows", 0, "wall"], "sound", "rows[0].wall must be one of memory, compute, launch"),
        (["rows", 1], 5, "rows[1] must be"),
        (["rows"], None, "rows must be"),
        (["kind"], "guess", "kind must be one of gpu, cpu, bounds, kernels, shapes"),
        (["batch"], None, "batch must be an integer"),
        (["device", "chip"], 5, "device['chip'] must be text"),
        (["step", "memory", "parameters"], "x", "step.memory['parameters']"),
        (["ceilings", "flops"], 0, "a ceiling is 0"),
        (["surprise"], 1, "'surprise'"),
        (["ceilings"], {"bandwidth": 1}, "ceilings lacks 'flops'"),
    ],
)
def test_a_damaged_profile_is_refused_by_field(recorded: Profile, path: list[Any], value: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        records.from_json(changed(recorded, path, value), "old.json")
    assert "old.json is damaged" in str(caught.value) and reason in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"rows": []}', "[" * 100_000])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"old\.json is not a profile"):
        records.from_json(text, "old.json")


def test_another_format_is_refused(recorded: Profile) -> None:
    with pytest.raises(DataError, match="format 99 and this gpucnn reads format 1"):
        records.from_json(changed(recorded, ["gpucnn_profile"], 99), "old.json")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="does not exist"):
        records.read(tmp_path / "none.json")
    with pytest.raises(DataError, match="is a folder"):
        records.read(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it is not text"):
        records.read(tmp_path / "bytes.json")
    monkeypatch.setattr(records, "LARGEST", 10)
    (tmp_path / "long.json").write_text(" " * 11)
    with pytest.raises(DataError, match="it is not a profile"):
        records.read(tmp_path / "long.json")


def test_what_rows_say_of_themselves(recorded: Profile, bounds: Profile) -> None:
    row = recorded.rows[0]
    assert row.seconds == 2e-4 and row.of_roofline == pytest.approx(0.5) and row.intensity == 100
    assert bounds.rows[0].seconds == bounds.rows[0].roofline and bounds.rows[0].of_roofline is None
    assert not bounds.measured and bounds.whole == bounds.step.kernels
    assert recorded.step.gaps == pytest.approx(5.5e-4 - 4.73e-4)
