"""The report in the terminal, and numbers as people read them."""

from __future__ import annotations

import dataclasses

import pytest

from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import columns, report
from gpucnn.profiling.show.units import scaled, seconds_text
from gpucnn.text import bytes_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.5, "1.50 s"),
        (0.0123, "12.3 ms"),
        (1e-3, "1.00 ms"),
        (0.9996e-3, "1,000 µs"),
        (2.5e-6, "2.50 µs"),
        (3e-9, "3.00 ns"),
        (1e-12, "<0.1 ns"),
        (0.0, "0 s"),
        (4000.0, "4,000 s"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_rates_and_bytes() -> None:
    assert [scaled(number, "B/s") for number in (3.35e12, 1e9, 123456.0, 5.0)] == ["3.35 TB/s", "1.00 GB/s", "123 kB/s", "5.00 B/s"]
    assert [bytes_text(count) for count in (0, 1023, 1536, 5 << 20, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]


def test_the_report_has_all_that_was_recorded(recorded: Profile) -> None:
    lines = report.lines(recorded)
    assert lines[0] == "model     keras, batch 128"
    assert lines[1] == "chip      A recorded chip, compute capability 9.0, CuPy 14.2.0"
    assert lines[2] == "ceilings  1.00 TB/s, 10.0 TFLOP/s, 2.00 µs a launch (recorded)"
    text = "\n".join(lines)
    assert "step      550 µs (522 µs–578 µs, 20 steps), 232,727 images/s" in text
    assert "graph     490 µs as one CUDA graph, 261,224 images/s" in text
    assert "kernels   473 µs in all, 77.0 µs of the step beside them" in text
    assert "host      300 µs to launch a step" in text
    assert "memory    5.5 MiB at the peak: parameters 5.0 MiB, batch 512.0 KiB" in text
    assert "note      a note" in text and "Nsight Compute: ncu" in text


def test_a_line_for_each_kernel_under_its_head(recorded: Profile, bounds: Profile) -> None:
    for profile in (recorded, bounds):
        head, *lines = report.table(profile)
        assert len(lines) == len(profile.rows)
        start = head.index("kernel")
        for line, row in zip(lines, profile.rows, strict=True):
            assert line[start:].startswith(row.kernel)


def test_columns_that_say_nothing_are_left_out(recorded: Profile, bounds: Profile) -> None:
    measured, worked_out = ({column.title for column in columns.of(profile)} for profile in (recorded, bounds))
    assert "time" in measured and "registers" not in measured and "regs" not in measured
    assert {"regs", "occupancy", "waves", "loop FMA"} <= worked_out and "time" not in worked_out
    (loop,) = (column for column in columns.of(bounds) if column.title == "main loop")
    assert loop.text(bounds.rows[0], bounds) == "100: 75 FMA, 20 shared memory, 4 memory, 1 other"
    assert "main loop" not in {column.title for column in columns.of(bounds, details=False)}


def test_a_list_of_kernels_says_what_each_takes(kernels: Profile) -> None:
    assert report.header(kernels)[1] == "kernels   all"
    shown = [column.title for column in columns.of(kernels, details=False)]
    assert shown == ["sample", "kernel", "grid", "regs", "spills", "stack", "f64", "shared", "occupancy", "loop FMA"]
    assert {"at least", "FLOPs", "waves", "shape"} <= {column.title for column in columns.of(kernels)}, "the page has room"
    lines = report.lines(kernels)
    assert not any(line.startswith("step") for line in lines)
    assert "look at   pack (m1) spills 8 bytes of registers to memory" in lines
    assert "          pack (m1) has 2 instructions in float64" in lines


def test_bounds_begin_with_what_they_are(bounds: Profile) -> None:
    lines = report.lines(bounds)
    assert lines[0] == report.BOUNDS
    assert any("at least 101 µs: every kernel at its roofline" in line for line in lines)


def test_a_part_without_kernels_says_so(recorded: Profile) -> None:
    nothing = dataclasses.replace(recorded, rows=[], only="only bias")
    assert "the selected part of the model has no kernel" in report.lines(nothing)
    assert report.lines(nothing)[0] == "model     keras, batch 128, only bias"
