"""Predictions: blocks over multiprocessors, a launch as a chip finds its arguments, what limits a kernel in words, and what is shown of
it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn.layers.beside import lent
from gpucnn.profiling import records
from gpucnn.profiling.chip import bounds, predict
from gpucnn.profiling.chip.beside import Load, side_by_side
from gpucnn.profiling.chip.chips import CHIPS, Chip
from gpucnn.profiling.chip.constants import LaunchConstants
from gpucnn.profiling.chip.listing import listing
from gpucnn.profiling.chip.machine import Program, parse
from gpucnn.profiling.chip.predict import NODE, REACHED, Prediction
from gpucnn.profiling.chip.units import SECOND_LEVEL
from gpucnn.profiling.chip.warp import Walker
from gpucnn.profiling.chip.waves import Waves
from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import page, report
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.core.launch import Launch

H100 = CHIPS["H100"]
ROW = "        /*{address:04x}*/                   {text} ;    /* 0x0000000000000000 */\n    /* 0x{control:016x} */"


def program(*texts: str, stall: int = 4) -> Program:
    """Hand-made code; every instruction waits for all scoreboards, and what reads memory releases the first one."""
    rows = []
    for number, text in enumerate(texts):
        write = 0 if text.startswith(("LDG", "LDS")) else 7
        rows.append(ROW.format(address=16 * number, text=text, control=(stall | write << 5 | 7 << 8 | 0b111111 << 11) << 41))
    return parse("\n".join(rows))


def a_launch(blocks: int = 132, threads: int = 128, *arguments: Any) -> Launch:
    return Launch(None, blocks, threads, arguments)


def predicted(code: Program, blocks: int = 132, work: Work | None = None, chip: Chip = H100, occupancy: float = 0.25) -> Prediction:
    return predict.predict(a_launch(blocks), work or Work(0, 0), code, occupancy, chip)


@pytest.mark.parametrize(
    ("blocks", "held", "multiprocessors", "most", "words"),
    [
        (132, 1, 132, 1, ""),
        (198, 1, 132, 2, "1.5 waves: the second is half empty"),
        (330, 1, 132, 3, "2.5 waves: the third is half empty"),
        (145, 1, 132, 2, "1.1 waves: the second is 90 % empty"),
        (264, 2, 132, 2, ""),
        (170, 3, 132, 2, "1.3 blocks for each multiprocessor: some have 2 and some 1"),
        (8, 4, 132, 1, "8 blocks for 132 multiprocessors"),
        (1, 1, 40, 1, "1 block for 40 multiprocessors"),
        (132 * 20 + 1, 1, 132, 21, ""),  # a twentieth is lost
    ],
)
def test_waves(blocks: int, held: int, multiprocessors: int, most: int, words: str) -> None:
    waves = Waves(blocks, held, multiprocessors)
    assert (waves.most, waves.words) == (most, words)
    assert waves.count == pytest.approx(blocks / (held * multiprocessors)) and 0 <= waves.idle < 1


@pytest.mark.parametrize(("capability", "first", "sizes"), [((8, 0), 0x160, 0), ((9, 0), 0x210, 0), ((12, 0), 0x380, 0x360)])
def test_arguments_lie_where_a_kernel_reads_them(capability: tuple[int, int], first: int, sizes: int) -> None:
    """Two pointers, size, bytes of a number, where it lies, shape and stride of an array; then numbers, each at a multiple of its size."""
    x = np.empty(10, np.float32)
    launch = a_launch(7, 96, x, x, np.int32(5), (np.uint32(6), np.float32(1.0)), np.int64(-1))
    words = LaunchConstants(launch, capability)
    assert (words(sizes), words(sizes + 12)) == (96, 7)
    at = first + 56  # of the second array
    assert (words(first + 16), words(first + 24), words(first + 40), words(first + 48)) == (10, 4, 10, 4)
    assert words(first + 32) == words(at + 32) and words(first + 36) == words(at + 36)  # one array, one place
    numbers = first + 2 * 56
    assert [words(numbers + 4 * place) for place in range(6)] == [5, 6, 0x3F800000, None, 0xFFFFFFFF, 0xFFFFFFFF]
    assert words(first - 4) is None


def test_a_kernel_takes_what_its_instructions_do() -> None:
    """A warp on each quarter, 4000 cycles of FMAs one after another, at the clock that the peak stands for: 1.98 GHz."""
    found = predicted(program(*["FFMA R4, R4, R5, R6"] * 1000, "EXIT"))
    clock = H100.fp32 / (2 * 128 * 132)
    assert found.seconds == pytest.approx(NODE + 4000 / clock, rel=1e-3)
    assert "waits for its own results: too few warps in 75 %" in found.limit
    assert found.issued[0] == 1 and sum(found.waited.values()) == pytest.approx(0.75, rel=1e-3)


def test_a_second_wave_takes_as_long_as_the_first() -> None:
    code = program(*["FFMA R4, R4, R5, R6"] * 1000, "EXIT")
    one, two = (predicted(code, blocks, occupancy=128 / 2048) for blocks in (132, 198))
    assert (two.seconds - NODE) / (one.seconds - NODE) == pytest.approx(2, rel=1e-2)
    assert two.limit.endswith("1.5 waves: the second is half empty") and "wave" not in one.limit


CUT_FOR_132 = (*[np.empty(1, np.float32)] * 4, ((np.uint32(1),) * 6, tuple(map(np.uint32, (132, 2, 13, 0, 0)))))
"""The arguments of a launch whose first 132 tiles are whole, and the others cut into two slices of 13 turns."""


def test_slices_take_their_own_time() -> None:
    """Of 196 tiles 64 are cut in two: the busiest multiprocessor has a whole tile and a slice, which here is half as long."""
    half = ["FFMA R4, R4, R5, R6"] * 500
    code = program("S2R R0, SR_CTAID.X", "ISETP.GE.U32.AND P0, PT, R0, 0x84, PT", *half, "@P0 EXIT", *half, "EXIT")
    launch = a_launch(132 + 2 * 64, 128, *CUT_FOR_132)
    found = predict.predict(launch, Work(0, 0), code, 128 / 2048, H100)
    clock = H100.fp32 / (2 * 128 * 132)
    assert found.seconds == pytest.approx(NODE + 6000 / clock, rel=0.02)
    assert found.limit.endswith("64 of 196 tiles are cut into 2 slices")
    assert found.load.blocks == 260 and found.load.last == pytest.approx((128, found.load.seconds / 2), rel=0.02)


def test_one_of_the_blocks_of_a_tile_adds_up() -> None:
    """The one that finds all others counted."""
    count = ["ATOMG.E.ADD.F32.FTZ.RN.STRONG.GPU PT, R6, desc[UR4][R2.64], R7", "F2I.U32.TRUNC.NTZ R6, R6"]
    more = ["MOV R8, 0x1", "ISETP.GT.U32.AND P0, PT, R8, R6, PT", "@P0 EXIT", *["FADD R4, R4, R5"] * 100, "EXIT"]
    walker = Walker(program(*count, *more), LaunchConstants(a_launch(), (9, 0)))
    first, last, any_one = (len(walker.walk(5, 0, 128, counted).issued) for counted in (0, 1, None))
    assert (first, last) == (5, 106) and any_one == last  # what is unknown is assumed not to be so


def test_an_address_may_be_given_from_behind() -> None:
    """By a negative offset, as ptxas writes it: the same sectors."""
    lanes = "S2R R2, SR_TID.X", "IMAD R2, R2, 0x4, 0x100"
    behind, there = (
        Walker(program(*lanes, f"LDG.E R4, [R2.64{offset}]", "EXIT"), LaunchConstants(a_launch(), (8, 0))).walk(0, 0, 128)
        for offset in ("+-0x80", "")
    )
    assert behind.accesses == there.accesses and behind.accesses[2] is not None


def test_a_fence_waits_for_the_second_level_cache() -> None:
    fenced, not_fenced = (predicted(program(*texts, "EXIT")) for texts in (["MEMBAR.SC.GPU"] * 20, ["MEMBAR.SC.CTA"] * 20))
    least = 20 * SECOND_LEVEL * 2 * 128 * 132 / H100.fp32
    assert not_fenced.seconds - NODE < least <= fenced.seconds - NODE


def test_many_waves_are_worked_out_from_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    code = program(*["FFMA R4, R4, R5, R6"] * 50, "EXIT")
    whole = predicted(code, 132 * 64)
    monkeypatch.setattr(predict, "MOST_ISSUES", 10)
    assert predicted(code, 132 * 64).seconds == pytest.approx(whole.seconds, rel=0.02)


def test_bytes_take_the_time_of_the_memory() -> None:
    found = predicted(program("EXIT"), work=Work(0, 10**8))
    assert found.seconds == pytest.approx(NODE + 1e8 / (REACHED * H100.bandwidth), rel=0.02)
    assert found.limit == "moves bytes as fast as memory does"


def test_what_is_waited_for_is_named() -> None:
    code = program(*["LDG.E R4, desc[UR4][R2.64]", "FADD R5, R4, R4"] * 20, "EXIT")
    assert "waits for global memory" in predicted(code, work=Work(0, 0)).limit
    assert "waits for shared memory" in predicted(program(*["LDS R4, [RZ]", "FADD R5, R4, R4"] * 400, "EXIT")).limit


@pytest.mark.parametrize("change", ["blocks", "bytes", "bandwidth", "multiprocessors", "code"])
def test_more_to_do_never_takes_less(change: str) -> None:
    """And a better chip never more."""
    code = program(*["LDG.E R4, desc[UR4][R2.64]", *["FFMA R4, R4, R5, R6"] * 30] * 5, "EXIT")
    longer = program(*["LDG.E R4, desc[UR4][R2.64]", *["FFMA R4, R4, R5, R6"] * 60] * 5, "EXIT")
    less, more = {
        "blocks": (predicted(code, 500), predicted(code, 5000)),
        "bytes": (predicted(code, work=Work(0, 10**6)), predicted(code, work=Work(0, 10**8))),
        "bandwidth": (predicted(code, 5000, Work(0, 10**8), CHIPS["H200"]), predicted(code, 5000, Work(0, 10**8))),
        "multiprocessors": (predicted(code, 5000), predicted(code, 5000, chip=dataclasses.replace(H100, sms=66, fp32=H100.fp32 / 2))),
        "code": (predicted(code, 500), predicted(longer, 500)),
    }[change]
    assert less.seconds < more.seconds


def test_python_beside_machine_code(tmp_path: Path, bounds: Profile) -> None:
    """Lines in the order of the code, with what they take; on the page as text, whatever they hold."""
    source = tmp_path / "kernels" / "update.py"
    source.parent.mkdir()
    source.write_text("first\nsecond = '<b>'\n", encoding="utf-8")
    rows = [
        f'\t//## File "{source}", line 2',
        ROW.format(address=0, text="FADD R0, R0, R1", control=0xFC8 << 41 | 4 << 41),
        f'\t//## File "{source}", line 1',
        ROW.format(address=16, text="FMUL R0, R0, R1", control=0x7E4 << 41),
        ROW.format(address=32, text="EXIT", control=0x7E1 << 41),
    ]
    code = parse("\n".join(rows))
    made = listing("update", code, predicted(code))
    assert [(line.location, line.text) for line in made.lines] == [
        ("kernels/update.py:2", "second = '<b>'"),
        ("kernels/update.py:1", "first"),
    ]
    assert made.lines[1].instructions == [("FMUL R0, R0, R1", 1), ("EXIT", 1)] and made.lines[0].issued == pytest.approx(1 / 3)
    shown = page.html(dataclasses.replace(bounds, listings=[made]))
    assert "Python and machine code" in shown and "FMUL R0, R0, R1" in shown and "&lt;b&gt;" in shown and "<b>" not in shown
    assert "listings" not in records.to_json(dataclasses.replace(bounds, listings=[made]))


def test_a_prediction_is_shown_beside_the_bound(bounds: Profile) -> None:
    rows = [dataclasses.replace(row, predicted=3e-4, limit="waits for shared memory in 40 % of all cycles") for row in bounds.rows]
    made = dataclasses.replace(bounds, rows=rows, step=dataclasses.replace(bounds.step, predicted=6e-4))
    lines = report.lines(made)
    assert "predicted 600 µs as one CUDA graph, 213,333 images/s" in lines
    assert any("predicted" in line and "at least" in line for line in lines)
    assert any("3.0 times its bound: waits for shared memory" in line for line in lines)
    assert "limited by" in page.html(made) and records.from_json(records.to_json(made), "p.json") == made


def a_load(blocks: int, held: int = 1, seconds: float = 1.0, share: float = 0.4, moving: float = 0.0) -> Load:
    return Load(blocks, held, seconds, share, moving)


@pytest.mark.parametrize(
    ("branches", "seconds"),
    [
        ([[a_load(10)], []], 1),
        ([[a_load(10)], [a_load(20)]], 3),  # nothing beside what fills a multiprocessor
        ([[a_load(5)], [a_load(5)]], 1),  # each has half of the multiprocessors
        ([[a_load(15)], [a_load(5)]], 2),  # in the second wave's other half
        ([[a_load(10, 2)], [a_load(10, 2)]], 1),
        ([[a_load(10, 2, share=0.8)], [a_load(10, 2, share=0.8)]], 1.6),
        ([[a_load(10, 2, share=1)], [a_load(10, 2, seconds=3, share=1)]], 4),  # two for the first, of which the other gets a half
        ([[a_load(10), a_load(10)], []], 2 + 1 / 8),
        ([[a_load(5), a_load(5)], [a_load(5, seconds=2)]], 2 + 1 / 8),  # what comes second does not wait for the other branch
        ([[a_load(10, 2, moving=1)], [a_load(10, 2, moving=0.75)]], 1.75),
        ([[a_load(12000)], []], 1200),
    ],
)
def test_blocks_of_two_branches_share_a_chip(branches: list[list[Load]], seconds: float) -> None:
    loads = [load for branch in branches for load in branch]
    after: list[list[int]] = []
    for branch in branches:
        for at in range(len(branch)):
            after.append([len(after) - 1] if at else [])
    assert side_by_side(loads, after, 10, 1 / 8) == pytest.approx(seconds + 1 / 8)


def test_kernels_come_after_all_that_they_wait_for() -> None:
    """A fork within a branch: the second and the third after the first, the last after both; and one beside them all."""
    loads = [a_load(5), a_load(5, seconds=2), a_load(5), a_load(5), a_load(5, seconds=9)]
    assert side_by_side(loads[:4], [[], [0], [0], [1, 2]], 10, 1 / 8) == pytest.approx(1 + 2 + 1 + 3 / 8)
    assert side_by_side(loads, [[], [0], [0], [1, 2], []], 10, 1 / 8) == pytest.approx(9 + 1 / 8)  # the two then come one after the other


def test_the_order_of_launches_is_that_of_their_forks() -> None:
    made: Any = [SimpleNamespace(load=number) for number in range(7)]
    branches = [
        ((1, True),),
        ((1, False),),
        ((1, False), (2, True)),
        ((1, False), (2, False)),
        ((1, False), (2, False)),
        ((1, False),),
        ((1, False), (3, True)),
    ]
    loads: list[Any] = []
    after: list[list[int]] = []
    last = bounds._in_order(list(zip(branches, made, strict=True)), 0, [], loads, after)
    # What runs apart comes after what has precedence.
    assert loads == [1, 3, 4, 2, 5, 6, 0] and after == [[], [0], [1], [0], [2, 3], [4], []] and last == [5, 6]


def test_what_a_launch_asks_of_a_chip_is_what_it_takes_alone() -> None:
    for blocks in (132, 200, 1000, 5000):
        made = predicted(program(*["FFMA R1, R2, R3, R1"] * 40, "EXIT"), blocks)
        assert made.load.blocks == blocks and 0 < made.load.share * min(made.load.held, -(-blocks // 132)) <= 1
        alone = side_by_side([made.load], [[]], H100.sms, NODE)
        assert 0.7 * made.seconds <= alone <= 1.4 * made.seconds  # the last wave is not full


def test_a_profile_knows_what_a_step_runs_side_by_side() -> None:
    with bounds.as_if_there(H100):
        work = workload.of_model("keras", 8, bounds.device_of(H100), Observer())
    forks = bounds.Forks()
    with lent(forks):
        called = [call.op for call, _, _ in bounds.record(work, H100, forks)]
    assert list(zip(called, forks.branches, strict=True))[-7:] == [
        ("tally", ((1, True),)),
        ("dense_weight_grad", ((1, True),)),  # of the head
        ("dense_weight_grad", ((1, False), (2, True))),
        ("dense_input_grad", ((1, False), (2, False))),
        ("adam_update", ((3, True),)),  # of the dense layers
        ("conv2d_relu_max_pool2d_weight_grad", ((3, False),)),
        ("adam_update", ((3, False),)),
    ]
    assert not any(forks.branches[:-7])
