"""Two profiles: what got slower, and what only looks so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from gpucnn.errors import DataError
from gpucnn.profiling.records import Profile, Timing
from gpucnn.profiling.show import compare


def with_row(profile: Profile, index: int, **changes: Any) -> Profile:
    rows = list(profile.rows)
    rows[index] = dataclasses.replace(rows[index], **changes)
    return dataclasses.replace(profile, rows=rows)


def test_the_same_profile_has_no_changes(recorded: Profile) -> None:
    assert compare.changes(recorded, recorded) == []
    assert compare.lines(recorded, recorded) == ["nothing got slower beyond the noise"]


def test_what_got_slower_comes_before_what_got_faster(recorded: Profile, make_timing: Callable[..., Timing]) -> None:
    new = with_row(with_row(recorded, 0, time=make_timing(3e-4)), 4, time=make_timing(0.5e-4))
    slower, faster = compare.lines(recorded, new)
    assert slower.startswith("slower    conv2d_1 forward conv2d: 200 µs (190 µs to 210 µs), now 300 µs")
    assert slower.endswith("1.50×")
    assert faster.startswith("faster    conv2d_1 backward conv2d_weight_grad: 160 µs")


def test_noise_is_no_change(recorded: Profile, make_timing: Callable[..., Timing]) -> None:
    assert compare.changes(recorded, with_row(recorded, 0, time=make_timing(2.1e-4))) == []


def test_kernels_of_one_operation_count_together(recorded: Profile, make_timing: Callable[..., Timing]) -> None:
    """A product that becomes two kernels, which together take as long, is not a change; nor is a kernel's new name."""
    first = recorded.rows[0]
    half = dataclasses.replace(first, time=make_timing(1e-4), kernel="engine")
    new = dataclasses.replace(recorded, rows=[half, dataclasses.replace(half, kernel="sum_slices"), *recorded.rows[1:]])
    assert compare.changes(recorded, new) == []


def test_rows_that_come_and_go_are_named(recorded: Profile) -> None:
    new = dataclasses.replace(recorded, rows=recorded.rows[1:])
    assert "gone      conv2d_1 forward conv2d" in compare.lines(recorded, new)
    assert "new       conv2d_1 forward conv2d" in compare.lines(new, recorded)
    part = dataclasses.replace(new, only="only pool")
    assert not any(line.startswith("gone") for line in compare.lines(recorded, part))


def test_the_step_counts_too(recorded: Profile, make_timing: Callable[..., Timing]) -> None:
    new = dataclasses.replace(recorded, step=dataclasses.replace(recorded.step, time=make_timing(9e-4)))
    assert [change.what for change in compare.changes(recorded, new)] == ["the step"]


def test_bounds_are_compared_by_what_the_compiler_says(bounds: Profile) -> None:
    new = with_row(bounds, 0, registers=168, roofline=2e-4, spills=64)
    texts = compare.lines(bounds, new)
    assert texts[0] == "slower    conv2d_1 forward conv2d: at least 101 µs, now 201 µs"
    assert set(texts[1:]) == {
        "slower    conv2d_1 forward conv2d: 8 bytes spilled, now 64",
        "slower    conv2d_1 forward conv2d: 130 registers, now 168",
    }
    assert compare.lines(bounds, bounds) == ["nothing got slower"]


def test_kernels_are_compared_one_by_one(kernels: Profile) -> None:
    new = with_row(kernels, 1, registers=40)
    assert compare.lines(kernels, new) == ["slower    m1 conv2d pack: 22 registers, now 40"]
    with pytest.raises(DataError, match="their kind was kernels by themselves and is bounds of a step"):
        compare.changes(kernels, dataclasses.replace(kernels, kind="bounds"))


@pytest.mark.parametrize(
    "changes", [{"model": "tf2"}, {"batch": 64}, {"kind": "cpu"}, {"device": {"chip": "another"}}], ids=["model", "batch", "kind", "chip"]
)
def test_profiles_of_different_things_are_not_compared(recorded: Profile, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="of different things"):
        compare.changes(recorded, dataclasses.replace(recorded, **changes))
