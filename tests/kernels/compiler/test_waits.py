"""Where the main loops wait for the numbers that they have asked of global memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from compile_harness import kernels, machine_code, needs_compilers
from waits import Wait, copies, main_loop, waits

from gpucnn.profiling.chip import machine, sass
from gpucnn.profiling.chip.machine import Instruction, Program

A, B = 1, 2  # bits of scoreboards 0 and 1


def instruction(text: str, write: int = 7, wait: int = 0) -> Instruction:
    name, _, rest = text.partition(" ")
    return Instruction(0, "", name, tuple(part.strip() for part in rest.split(", ")) if rest else (), 1, write, 7, wait)


LOOP = [
    instruction("LDG.E R4, desc[UR8][R2.64]", write=0),
    instruction("LDS.128 R8, [R3]", write=1),
    instruction("FFMA R1, R8, R9, R1", wait=B),
    instruction("STS [R3], R4", wait=A),
]


def test_the_first_wait_for_a_read_is_where_its_scoreboard_is_waited_for() -> None:
    assert waits(LOOP) == [Wait(0.0, 0.75, 0, True, "STS [R3], R4")]


def test_a_shared_scoreboard_makes_another_wait_one_for_memory() -> None:
    shared = [LOOP[0], instruction("LDS.128 R8, [R3]", write=0), instruction("FFMA R1, R8, R9, R1", wait=A), LOOP[3]]
    assert waits(shared) == [Wait(0.0, 0.5, 0, False, "FFMA R1, R8, R9, R1")]


def test_a_read_may_be_waited_for_in_the_next_turn() -> None:
    turned = [LOOP[3], LOOP[1], LOOP[2], LOOP[0]]
    assert waits(turned) == [Wait(0.75, 0.0, 1, True, "STS [R3], R4")]
    assert waits(turned)[0].way == 0.25


def test_a_wait_for_all_but_the_last_reads() -> None:
    loop = [LOOP[0], LOOP[0], instruction("DEPBAR.LE SB0, 0x1"), LOOP[2], LOOP[3]]
    assert [(each.asked, each.waited) for each in waits(loop)] == [(0.0, 0.4), (0.2, 0.8)]


def test_copies_past_registers_are_begun_and_waited_for() -> None:
    copy = instruction("LDGSTS.E [R9], desc[UR8][R2.64], P0")
    loop = [LOOP[1], copy, copy, instruction("LDGDEPBAR", write=0), LOOP[2], LOOP[2], LOOP[2], instruction("DEPBAR.LE SB0, 0x0")]
    assert copies(loop) == (0.25, 0.875)
    with pytest.raises(ValueError, match="0 copies are begun, and there are 1 waits"):
        copies(loop[3:])


def test_the_main_loop_is_the_inner_one_with_the_most_ffma() -> None:
    code = [instruction("FADD R1, R1, R2"), *LOOP, instruction("BRA `(.L_x_2)"), instruction("BRA `(.L_x_1)"), instruction("BRA `(.L_x_3)")]
    program = Program(code, {".L_x_1": 0, ".L_x_2": 1, ".L_x_3": 7})
    assert main_loop(program) == code[1:6]
    with pytest.raises(ValueError, match="no loop"):
        main_loop(Program(code[:5], {}))


# On sm_90, in hundredths of a turn: where the first wait for a number that this turn has asked for is at least, where the first is that
# needs one, by when all have been asked for; and how often parameters are read again. Each is what was reached, rounded to the next
# hundredth. The first waits are early because reads of shared memory have the same scoreboards, which the compiler assigns.
REACHED = {
    "conv2d_weight_grad-tile64x64 odd": (57, 86, 19, 2),
    "conv2d_weight_grad-tile128x64 odd": (90, 90, 17, 2),
    "dense-tile64x64 odd": (45, 87, 15, 0),
}
# The same of loops that copy past registers, where nothing else is a wait for memory: by when all copies have been begun, and where the
# wait for them is at least.
COPYING = {
    "conv2d-tile128x128 m2": (27, 89),
    "conv2d-tile128x64 m2": (27, 89),
    "conv2d-tile64x64 m2": (29, 89),
    "conv2d_input_grad-tile128x32 m2": (36, 85),
    "dense-tile64x64 even": (26, 88),
    "dense_weight_grad-tile128x64 even": (25, 94),
    "locally_connected2d-tile64x32": (39, 91),
    "locally_connected2d-tile64x64": (36, 90),
    "locally_connected2d_weight_grad-tile64x32": (31, 90),
    "locally_connected2d_weight_grad-tile64x64": (31, 90),
}
QUICK = ("conv2d_weight_grad-tile64x64 odd", "dense-tile64x64 even", "locally_connected2d_weight_grad-tile64x32")
disassembled = pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")


def quick(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@needs_compilers
@disassembled
@pytest.mark.parametrize("name", quick(REACHED))
def test_loops_wait_late(name: str) -> None:
    first, needed, asked, parameters = REACHED[name]
    loop = main_loop(machine.parse(sass.disassemble(machine_code(kernels()[name].launch, "sm_90"), "-hex")))
    found = waits(loop)
    assert len(found) == sum(each.base == "LDG" for each in loop) > 0
    assert min(each.waited for each in found if not each.turns) * 100 >= first, found
    assert min(each.waited for each in found if each.meant) * 100 >= needed, found
    assert max(each.asked for each in found) * 100 <= asked, found
    assert sum(each.base == "LDC" for each in loop) <= parameters, found


@needs_compilers
@disassembled
@pytest.mark.parametrize("name", quick(COPYING))
def test_loops_that_copy_past_registers_read_no_memory_and_wait_last(name: str) -> None:
    begun, waited = COPYING[name]
    loop = main_loop(machine.parse(sass.disassemble(machine_code(kernels()[name].launch, "sm_90"), "-hex")))
    assert not {"LDG", "STS"} & {each.base for each in loop}
    last, wait = copies(loop)
    assert last * 100 <= begun and wait * 100 >= waited, (last, wait)
