"""What the compiler makes of the kernels that make batches: nothing spilled, no memory of a thread's own, no float64, few registers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gpucnn.device import simulated
from gpucnn_kernels import batch, static
from gpucnn_kernels._numba import float32, int32, types, uint32
from gpucnn_kernels.catalogue import Entry


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

_F = types.Array(float32, 1, "C")
_I = types.Array(int32, 1, "C")
_B = types.Array(types.uint8, 1, "C")
_LABELS = (uint32,) * 4  # batch size, and rows of labels with their magic


def arrays(of_bytes: bool, of_classes: bool) -> tuple[Any, ...]:
    labels = _I if of_classes else _F
    return (_B if of_bytes else _F, labels, _I, _I, _F, labels)


def copying(of_bytes: bool, fours: bool, of_classes: bool) -> Entry:
    name = f"gather_batch-{'bytes' if of_bytes else 'floats'}{'-fours' if fours else ''}{'' if of_classes else '-rows'}"
    return Entry(name, batch.copying(of_bytes, fours), (*arrays(of_bytes, of_classes), *_LABELS, *(uint32,) * 4))


def changing(name: str, of_bytes: bool, *changes: bool) -> Entry:
    numbers = (uint32, int32, int32, *(uint32,) * 7, int32, int32, *(float32,) * 4, uint32, float32, float32, int32)
    kernel = batch.changing(of_bytes, *changes)
    name = f"gather_batch-{'bytes' if of_bytes else 'floats'}-{name}"
    return Entry(
        name, kernel, (*arrays(of_bytes, True), *_LABELS, *numbers), max_registers=64
    )  # on Blackwell the channels are written out by fours


ENTRIES = (
    Entry("permutation", batch.permutation_kernel, (_I, *(uint32,) * 5)),
    *(copying(*kind) for kind in itertools.product((True, False), repeat=3)),
    *(
        changing(name, of_bytes, *changes)
        for of_bytes in (True, False)
        for name, *changes in (
            ("move", True, False, False, False),
            ("cutout", False, False, False, True),
            ("warp", False, True, False, False),
            ("elastic", False, True, True, False),
            ("all", True, True, True, True),
        )
    ),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}


@pytest.mark.parametrize("arch", static.CHIPS)
@pytest.mark.parametrize("name", BY_NAME)
def test_kernels_fit_the_chip(name: str, arch: str) -> None:
    entry = BY_NAME[name]
    report = static.compile_kernel(entry, arch)
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.stack == 0, report
    assert report.float64 == 0, report
    assert 0 < report.registers <= entry.max_registers, report
    assert report.shared == 0, report
