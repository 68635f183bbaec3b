"""A warp's way through hand-made machine code, and the cycles that a quarter of a multiprocessor takes for it: all of them worked out by
hand.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from gpucnn.profiling.chip import arithmetic, evaluate, machine
from gpucnn.profiling.chip.chips import ARCHITECTURES
from gpucnn.profiling.chip.issue import Issued, Quarter
from gpucnn.profiling.chip.machine import Program
from gpucnn.profiling.chip.units import Units, units_of
from gpucnn.profiling.chip.warp import Walker, Way

NOTHING = 7
HOPPER = units_of(ARCHITECTURES["sm_90"])


def listing(*rows: str | tuple[str, int] | tuple[str, int, int, int, int]) -> str:
    """What a disassembler prints: a label ends in a colon; else (text, stall, write, read, wait), of which the last may be left out."""
    lines, address = [], 0
    for row in rows:
        given = (row,) if isinstance(row, str) else row
        text, stall, write, read, wait = (*given, *(1, NOTHING, NOTHING, 0)[len(given) - 1 :])
        if text.endswith(":"):
            lines.append(text)
            continue
        control = stall | 1 << 4 | write << 5 | read << 8 | wait << 11
        lines.append(f"        /*{address:04x}*/                   {text} ;                /* 0x0000000000000000 */")
        lines.append(f"                                                         /* 0x{control << 41:016x} */")
        address += 16
    return "\n".join(lines)


def program(*rows: str | tuple[str, int] | tuple[str, int, int, int, int]) -> Program:
    return machine.parse(listing(*rows))


def way(code: Program, constants: dict[int, int] | None = None, warp: int = 0, threads: int = 128) -> Way:
    return Walker(code, (constants or {}).get).walk(0, warp, threads)


def run(
    code: Program, warps: int = 1, blocks: int = 1, slots: int = 1, units: Units = HOPPER, latency: float = 500, sharing: int = 1
) -> Issued:
    ways = [way(code, warp=4 * number, threads=128 * warps) for number in range(warps)]
    return Quarter(code.instructions, ways, units, latency, sharing).run(slots, blocks)


def test_what_is_read_is_what_stands_there() -> None:
    code = program(("@!P0 LDS.128 R4, [R2+0x10]", 2, 1, 3, 0b101), ".L_x_1:", ("EXIT", 5))
    first, last = code.instructions
    assert (first.guard, first.name, first.operands) == ("!P0", "LDS.128", ("R4", "[R2+0x10]"))
    assert (first.stall, first.write, first.read, first.wait, first.words) == (2, 1, 3, 0b101, 4)
    assert (last.base, last.stall, last.write, code.labels) == ("EXIT", 5, NOTHING, {".L_x_1": 1})
    with pytest.raises(ValueError, match="no instructions"):
        machine.parse("nothing of the kind")


def test_lines_of_python_are_kept() -> None:
    text = '\t//## File "/somewhere/kernels/update.py", line 34\n' + listing("FADD R0, R0, R1")
    assert machine.parse(text).instructions[0].line == ("/somewhere/kernels/update.py", 34)


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("IADD3 R4, P0, P1, R2, R5, RZ", ("R4", "P0", "P1")),
        ("IADD3.X R5, R0, UR7, RZ, P0, !PT", ("R5",)),
        ("ISETP.GE.AND P0, PT, R2, UR4, PT", ("P0", "PT")),
        ("LOP3.LUT P0, RZ, R6, 0xf, RZ, 0xc0, !PT", ("P0", "RZ")),
        ("LOP3.LUT R6, R6, 0xf, RZ, 0xc0, !PT", ("R6",)),
        ("SHFL.BFLY PT, R9, R8, 0x1, 0x1f", ("PT", "R9")),
        ("SEL R0, R0, RZ, !P0", ("R0",)),
        ("STG.E desc[UR4][R2.64], R0", ()),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR16], R25", ("P0",)),
        ("SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR4], RZ", ("RZ",)),
    ],
)
def test_what_an_instruction_writes(text: str, results: tuple[str, ...]) -> None:
    assert program(text).instructions[0].results == results


def value_of(text: str, registers: dict[str, object]) -> list[object]:
    instruction = program(text).instructions[0]
    step = evaluate.step(instruction, {}.get, lambda name: None)
    assert step is not None
    return step(registers)


@pytest.mark.parametrize("seed", range(20))
def test_arithmetic_is_that_of_whole_numbers(seed: int) -> None:
    """Against Python's own, for one number for all threads and for one each."""
    chance = random.Random(seed)
    a, b, c, d = (chance.choice([0, 1, 0x80000000, 0xFFFFFFFF, chance.getrandbits(32), chance.getrandbits(7)]) for _ in range(4))
    by, table = chance.randrange(0, 32), chance.randrange(256)
    word, sign = 1 << 32, lambda x: x - (x >> 31 << 32)
    lut = sum(1 << bit for bit in range(32) if table >> ((a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1)) & 1)
    wanted = {
        "IMAD R9, R0, R1, R2": [(a * b + c) % word],
        "IMAD.WIDE.U32 R8, R0, R1, R2": [(a * b + c + d * word) % word, (a * b + c + d * word) // word % word],
        "IMAD.WIDE R8, R0, R1, R2": [(sign(a) * sign(b) + c) % word, (sign(a) * sign(b) + c + d * word) // word % word],
        "IMAD.HI.U32 R9, R0, R1, R2": [(a * b + c + d * word) // word % word],
        "IADD3 R9, P0, R0, R1, RZ": [(a + b) % word, a + b >= word],
        "IADD3 R9, R0, -R1, R2": [(a - b + c) % word],
        "VIADD R9, R0, 0xffffffff": [(a - 1) % word],
        f"LEA R9, R0, R1, {by:#x}": [((a << by) % word + b) % word],
        f"LEA.HI R9, R0, R1, RZ, {by:#x}": [((a << by) // word + b) % word],
        f"LOP3.LUT R9, R0, R1, R2, {table:#x}, !PT": [lut],
        f"SHF.R.U32.HI R9, RZ, {by:#x}, R0": [a >> by],
        f"SHF.R.S32.HI R9, RZ, {by:#x}, R0": [(sign(a) >> by) % word],
        f"SHF.L.U32 R9, R0, {by:#x}, RZ": [(a << by) % word],
        f"SHF.R.U64 R9, R0, {by:#x}, R1": [(a + b * word >> by) % word],
        "ISETP.LT.AND P0, PT, R0, R1, PT": [sign(a) < sign(b), not sign(a) < sign(b)],
        "ISETP.GE.U32.AND P0, PT, R0, R1, PT": [a >= b, a < b],
        "VIMNMX.U32 R9, R0, R1, PT": [min(a, b)],
        "VIMNMX.U32 R9, PT, PT, R0, R1, PT": [min(a, b)],
        "VIMNMX R9, R0, R1, !PT": [max(sign(a), sign(b)) % word],
    }
    alike = {"R0": a, "R1": b, "R2": c, "R3": d}
    apart = {name: np.full(32, number, np.uint64) for name, number in alike.items()}
    for text, result in wanted.items():
        for registers in (alike, apart):
            found = value_of(text, registers)[: len(result)]
            same = [bool(np.all(arithmetic.as_lanes(each) == want)) for each, want in zip(found, result, strict=True)]
            assert all(same), (text, registers, found, result)


def test_a_division_of_whole_numbers_comes_out() -> None:
    """The steps that a compiler writes for it, up to the estimate that it then corrects by one."""
    divisor = 28
    (as_float,) = value_of("I2F.U32.RP R0, R1", {"R1": divisor})
    (inverse,) = value_of("MUFU.RCP R0, R0", {"R0": as_float})
    (scaled,) = value_of("VIADD R2, R0, 0xffffffe", {"R0": inverse})
    (whole,) = value_of("F2I.FTZ.U32.TRUNC.NTZ R3, R2", {"R2": scaled})
    assert 0 <= (1 << 32) // divisor - int(whole) < 1 << 10  # float32 keeps 24 of its 32 bits; Newton's step follows


def loop(turns_at: int = 0x210) -> Program:
    """R0 from 0 up to a kernel's argument, by one FFMA a turn."""
    return program(
        "MOV R0, RZ",
        ".L_x_0:",
        ("FFMA R4, R4, R5, R6", 4),
        "VIADD R0, R0, 0x1",
        (f"ISETP.NE.AND P0, PT, R0, c[0x0][{turns_at:#x}], PT", 13),
        ("@P0 BRA `(.L_x_0)", 5),
        ("EXIT", 5),
    )


@pytest.mark.parametrize("turns", [1, 2, 17, 1000])
def test_a_loop_has_the_turns_of_its_arguments(turns: int) -> None:
    found = way(loop(), {0x210: turns})
    assert found.issued.count(1) == turns and len(found.issued) == 2 + 4 * turns and not found.unknown and not found.cut


def test_a_loop_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn.profiling.chip.warp.MOST_BLOCKS", 100)
    assert way(program(".L_x_0:", "FADD R0, R0, R1", "BRA `(.L_x_0)")).cut


def test_what_data_decide_is_gone_through_once() -> None:
    """A loop that waits for a number in memory is left, and the work behind a branch is done."""
    found = way(
        program(
            ".L_x_0:",
            "LDG.E R0, desc[UR4][R2.64]",
            "ISETP.NE.AND P0, PT, R0, RZ, PT",
            "@P0 BRA `(.L_x_0)",
            "@P0 BRA `(.L_x_1)",
            "FADD R5, R5, R5",
            ".L_x_1:",
            "EXIT",
        )
    )
    assert found.issued == [0, 1, 2, 3, 4, 5] and found.unknown == {2, 3}


def test_a_loop_on_data_is_left_as_ptxas_leaves_it() -> None:
    found = way(
        program(
            ".L_x_0:",
            "LDG.E R0, desc[UR4][R2.64]",
            "ISETP.NE.AND P0, PT, R0, RZ, PT",
            "@!P0 CALL.REL.NOINC `(.L_x_1)",
            "BRA `(.L_x_0)",
            ".L_x_1:",
            "EXIT",
        )
    )
    assert found.issued == [0, 1, 2, 4] and found.unknown == {2}


@pytest.mark.parametrize(("store", "goes_on"), [("STG.E [R4.64], R0", False), ("@P0 STG.E [R4.64], R0", True), ("FADD R5, R5, R5", True)])
def test_what_follows_the_results_is_for_exceptions(store: str, goes_on: bool) -> None:
    """Where data decide, a warp ends that has certainly written; before, it goes on to its work."""
    found = way(
        program(
            "LDG.E R0, desc[UR4][R2.64]",
            "ISETP.NE.AND P0, PT, R0, RZ, PT",
            store,
            "@!P0 EXIT",
            "FADD R5, R5, R5",
            "EXIT",
        )
    )
    assert found.issued == ([0, 1, 2, 3, 4, 5] if goes_on else [0, 1, 2, 3]) and found.wrote == (not goes_on)


def test_threads_that_part_meet_again() -> None:
    """Half of a warp goes one way, half the other; both are issued, and what follows once."""
    found = way(
        program(
            "S2R R0, SR_TID.X",
            "ISETP.GE.AND P0, PT, R0, 0x10, PT",
            "@P0 BRA `(.L_x_0)",
            "MOV R1, 0x1",
            "BRA `(.L_x_1)",
            ".L_x_0:",
            "MOV R1, 0x2",
            ".L_x_1:",
            "STS [R1], R0",
            "EXIT",
        )
    )
    assert found.issued == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("by", "words", "cycles"),
    [(0, 1, 1), (4, 1, 1), (8, 1, 2), (16, 1, 4), (128, 1, 32), (132, 1, 1), (16, 4, 4), (0, 4, 2)],
)
def test_banks_of_shared_memory(by: int, words: int, cycles: int) -> None:
    """Threads that many bytes apart: those that ask one bank for different words wait for one another."""
    name = {1: "LDS", 4: "LDS.128"}[words]
    code = program("S2R R0, SR_TID.X", f"IMAD R0, R0, {by:#x}, RZ", f"{name} R4, [R0]", "EXIT")
    access = way(code).accesses[2]
    assert access is not None and access.cycles == cycles


@pytest.mark.parametrize(("by", "sectors"), [(0, 1), (4, 4), (8, 8), (32, 32), (128, 32)])
def test_pieces_of_global_memory(by: int, sectors: int) -> None:
    code = program("S2R R0, SR_TID.X", f"IMAD R2, R0, {by:#x}, RZ", "LDG.E R4, desc[UR4][R2.64]", "LDG.E R5, desc[UR4][R2.64]", "EXIT")
    found = way(code)
    first, second = found.accesses[2], found.accesses[3]
    assert first is not None and second is not None
    assert (first.sectors, first.new, second.sectors, second.new) == (sectors, sectors, sectors, 0)


@pytest.mark.parametrize("offset", ["-0x40", "+-0x40", "+R5+-0x100"])
def test_an_offset_may_be_negative(offset: str) -> None:
    """From an address for each thread, and from one for all."""
    code = program("S2R R0, SR_TID.X", "IMAD R2, R0, 0x4, RZ", "IADD3 R2, R2, 0x100, RZ", "MOV R5, 0xc0", f"LDS R3, [R2{offset}]", "EXIT")
    assert [access.cycles for access in way(code).accesses.values() if access] == [1]
    for_all = program("MOV R2, 0x100", "MOV R5, 0xc0", f"LDS R3, [R2{offset}]", "EXIT")
    assert [access.cycles for access in way(for_all).accesses.values() if access] == [1]


def ffma(count: int, stall: int) -> list[tuple[str, int]]:
    return [("FFMA R4, R5, R6, R7", stall)] * count


def test_one_warp_issues_as_the_compiler_says() -> None:
    assert run(program(*ffma(10, 1), ("EXIT", 1))).cycles == 10
    assert run(program(*ffma(10, 4), ("EXIT", 1))).cycles == 40


def test_four_warps_fill_what_one_leaves_empty() -> None:
    """An FMA every fourth cycle each: together one in each, and the last warp ends three cycles behind the first."""
    found = run(program(*ffma(10, 4), ("EXIT", 1)), warps=4)
    assert found.cycles == 43 and found.busy == 44


def test_a_chip_with_half_of_the_lanes_takes_twice_as_long() -> None:
    assert run(program(*ffma(10, 1), ("EXIT", 1)), units=units_of(ARCHITECTURES["sm_80"])).cycles == 19  # the end waits for no unit
    assert run(program(*[("IMAD R4, R5, R6, R7", 1)] * 10, ("EXIT", 1))).cycles == 19


def test_a_scoreboard_is_waited_for() -> None:
    """LDS at 0, one cycle of memory, and 29 to the result; an FADD that waits for board 2 and one that does not."""
    loads = ("LDS R0, [RZ]", 1, 2, NOTHING, 0)
    assert run(program(loads, ("FADD R1, R0, R0", 1, NOTHING, NOTHING, 0b100), ("EXIT", 1))).cycles == 31
    assert run(program(loads, ("FADD R1, R0, R0", 1, NOTHING, NOTHING, 0b010), ("EXIT", 1))).cycles == 2
    found = run(program(loads, ("FADD R1, R0, R0", 1, NOTHING, NOTHING, 0b100), ("EXIT", 1)))
    assert found.waited["shared"] == 29 and found.idle[1] == 29


def test_others_who_share_the_memory_units() -> None:
    """Eight reads: 8 cycles of the units for one quarter, 32 for four."""
    code = program(*[("LDS R0, [RZ]", 1, 2, NOTHING, 0)] * 8, ("FADD R1, R0, R0", 1, NOTHING, NOTHING, 0b100), ("EXIT", 1))
    assert run(code, sharing=1).cycles == 7 + 1 + 29 + 1
    assert run(code, sharing=4).cycles == 32 + 29 + 1


def test_a_barrier_holds_everyone_up() -> None:
    """One warp of two has forty FMAs before it, one after another; the other has none of them."""
    code = program(
        "S2R R0, SR_TID.X",
        ("ISETP.GE.AND P0, PT, R0, 0x80, PT", 1),
        ("@P0 BRA `(.L_x_0)", 1),
        *ffma(40, 4),
        ".L_x_0:",
        ("BAR.SYNC.DEFER_BLOCKING 0x0", 1),
        ("EXIT", 1),
    )
    found = run(code, warps=2)
    assert found.cycles >= 160 + HOPPER.barrier and found.busy == 2 * 5 + 40
    assert found.waited["barrier"] >= HOPPER.barrier - 1


@pytest.mark.parametrize("name", ["64x64x8.F32.TF32", "64x64x16.F32.BF16"])
def test_products_on_tensor_cores(name: str) -> None:
    """Two products of 64 × 64 × 8 are 64 columns each; waiting for both takes their time and the last one's latency."""
    code = program(
        (f"HGMMA.{name} R24, R84, gdesc[UR4], R24", 1),
        (f"HGMMA.{name} R24, R84, gdesc[UR4], R24, gsb0", 1),
        ("WARPGROUP.DEPBAR.LE gsb0, 0x0", 1),
        ("FADD R0, R24, R24", 1),
        ("EXIT", 1),
    )
    assert run(code).cycles == 2 * 64 / HOPPER.tensor + HOPPER.tensor_latency + 1


@pytest.mark.parametrize("name", ["1688.F32.TF32", "16816.F32.BF16"])
@pytest.mark.parametrize(("arch", "cycles"), [("sm_80", 8), ("sm_89", 32), ("sm_90", 8 / (2 * 0.62))])
def test_products_of_warps(arch: str, cycles: float, name: str) -> None:
    """By peaks in TF32: 128 FMAs a cycle in a quarter of an A100, as many as in float32 on consumer chips, and not all of Hopper's. Twice
    the depth in bfloat16 takes as long."""
    code = program(*[(f"HMMA.{name} R4, R8, R12, R4", 1)] * 10, ("EXIT", 1))
    assert run(code, units=units_of(ARCHITECTURES[arch])).cycles == pytest.approx(10 * cycles + HOPPER.tensor_latency, abs=1)


@pytest.mark.parametrize("code", ["loop", "reads"])
def test_more_never_takes_less(code: str) -> None:
    """Blocks, warps, latency, and quarters that share the memory; one slot more for blocks is no slower, but for who is at which place."""
    made: Sequence[object] = [*ffma(20, 2), ("LDG.E R4, desc[UR4][R2.64]", 1, 0, NOTHING, 0), ("FADD R1, R4, R4", 4, NOTHING, NOTHING, 1)]
    if code == "reads":
        made = [
            ("LDG.E R4, desc[UR4][R2.64]", 1, 0, NOTHING, 0),
            ("STS.128 [R0], R4", 1, NOTHING, 1, 1),
            ("BAR.SYNC.DEFER_BLOCKING 0x0", 1),
        ] * 5
    kernel = program(*made, ("EXIT", 1))  # type: ignore[arg-type]
    blocks = [run(kernel, blocks=count).cycles for count in (1, 2, 3, 8)]
    warps = [run(kernel, warps=count).cycles for count in (1, 2, 4, 8)]
    latency = [run(kernel, latency=cycles).cycles for cycles in (50, 200, 500, 900)]
    sharing = [run(kernel, sharing=count).cycles for count in (1, 2, 4)]
    for times in (blocks, warps, latency, sharing):
        assert times == sorted(times)
    assert blocks[0] < blocks[1] and latency[0] < latency[-1]
    assert run(kernel, blocks=8, slots=4).cycles < run(kernel, blocks=8, slots=1).cycles


def test_blocks_follow_one_another() -> None:
    found = run(program(*ffma(10, 4), ("EXIT", 1)), blocks=3)
    assert found.ends == [40, 81, 122]


def test_a_block_preferred_to_another_tells_nothing_about_the_rest() -> None:
    """Each quarter issues one instruction in a cycle. The scheduler goes on with a warp that can, so that of two equal blocks one ends
    before the other, and the times between ends are less than what a block takes."""
    kernel = program(*[("FFMA R4, R4, R5, R6", 1), ("FFMA R7, R7, R5, R6", 1)] * 200, ("EXIT", 1))
    four = run(kernel, warps=2, blocks=4, slots=2)
    issues = four.busy / 4
    assert (four.ends[3] - four.ends[1]) / 2 < 0.9 * issues
    assert four.each == pytest.approx(issues, rel=0.02)
    many = run(kernel, warps=2, blocks=20, slots=2)
    assert many.cycles == pytest.approx(four.cycles + 16 * four.each, rel=0.01)
