"""Machine code placed in memory without LLVM, and what is left to LLVM."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from programs import run

from gpucnn_loops import direct, disk_cache, image, loops, machine

pytestmark = pytest.mark.skipif(not image.HERE, reason="only Linux on x86-64 has this way: LLVM loads elsewhere")

FIT = """
import hashlib, os, sys
import numpy as np
from gpucnn.networks import network
from gpucnn_loops import image, loops, machine
if os.environ.get("BY_LLVM"):
    image.HERE = False
if os.environ.get("REFUSED"):
    def refuse(start, size):
        raise OSError(13, "refused")
    image._make_executable = refuse
generator = np.random.default_rng(0)
x, labels = generator.standard_normal((96, 1, 28, 28), dtype="float32"), generator.integers(10, size=96)
model = network("lenet5").build((1, 28, 28), seed=0).compile()
model.fit(x, labels, epochs=2, batch_size=32, verbose=0, seed=0)
bits = hashlib.sha256(np.ascontiguousarray(model.buffers.values).tobytes()).hexdigest()
print(len(loops.compiled), "llvmlite.binding" in sys.modules, "numba" in sys.modules, bool(machine._engines), bits)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the loops that FIT needs, and the bits of the weights."""
    folder = tmp_path_factory.mktemp("loops")
    done = run(FIT, GPUCNN_LOOP_CACHE=str(folder))
    assert done.returncode == 0, done.stderr
    compiled, *_, by_llvm, bits = done.stdout.split()
    assert int(compiled) > 5 and by_llvm == "False"
    return folder, bits


def test_a_warm_process_trains_without_llvm_and_numba(trained: tuple[Path, str]) -> None:
    folder, bits = trained
    assert run(FIT, GPUCNN_LOOP_CACHE=str(folder)).stdout.split() == ["0", "False", "False", "False", bits]


@pytest.mark.parametrize("how", ["BY_LLVM", "REFUSED"])
def test_llvm_loads_the_same_bits_where_this_way_is_closed(how: str, trained: tuple[Path, str]) -> None:
    folder, bits = trained
    assert run(FIT, GPUCNN_LOOP_CACHE=str(folder), **{how: "1"}).stdout.split() == ["0", "True", "False", "True", bits]


def code_of(loop: loops.Loop) -> bytes:
    """The object file of a loop."""
    loop.prepare()
    if not (kept := disk_cache.read(loop.path)):
        pytest.skip("nothing is kept on this disk")
    return kept.partition(b"\n")[2]


@loops.loop("f*", "f", "i")
def filled(x: Any, value: float, n: int) -> None:
    for i in range(n):
        x[i] = value * 3.25 + i


def test_what_is_placed_computes_and_cannot_be_written_to() -> None:
    code = code_of(filled)
    found = image.place(code, image.address_in_libraries)
    assert set(found) >= {filled.symbol, filled.symbol + ".packed"} and found[filled.symbol] not in (0, filled.address)
    x = (ctypes.c_float * 5)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_float, ctypes.c_int64)(found[filled.symbol])(ctypes.addressof(x), 2.0, 5)
    assert list(x) == [6.5, 7.5, 8.5, 9.5, 10.5]
    pages = [line for line in Path("/proc/self/maps").read_text().splitlines() if within(line, found[filled.symbol])]
    assert [line.split()[1] for line in pages] == ["r-xp"]


def within(line: str, address: int) -> bool:
    first, last = (int(part, 16) for part in line.split()[0].split("-"))
    return first <= address < last


def sections(code: bytes) -> list[int]:
    """Where the headers of an object file's sections begin."""
    (table,), (count,) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<H", code, 60)
    return [table + 64 * number for number in range(count)]


def changed(code: bytes, kind: int, offset: int, layout: str, value: int) -> bytes:
    """The file with another number in the first section of a kind that is loaded, or is about one that is: in its header, or (offsets from
    64 on) in what it contains."""
    data = bytearray(code)
    for header in sections(code):
        own_kind, flags = struct.unpack_from("<IQ", code, header + 4)
        (begin,), (info,) = struct.unpack_from("<Q", code, header + 24), struct.unpack_from("<I", code, header + 44)
        loaded = flags & 2 or struct.unpack_from("<Q", code, sections(code)[info] + 8)[0] & 2
        if own_kind == kind and loaded:
            struct.pack_into(layout, data, header + offset if offset < 64 else begin + offset - 64, value)
            return bytes(data)
    raise AssertionError(f"no section of kind {kind}")


def test_what_is_not_as_expected_is_left_to_llvm() -> None:
    code = code_of(filled)
    wrong = {
        "not for Linux": [b"", code[:3], b"\x7fELF\x01" + code[5:], code[:18] + b"\xb7\x00" + code[20:]],
        "not an object file": [
            code[: len(code) // 2],
            code[:-64],
            code[:60] + b"\xff\xff" + code[62:],
            changed(code, 1, 32, "<Q", 1 << 40),
        ],
        "variables": [changed(code, 1, 8, "<Q", 0x3), changed(code, 1, 8, "<Q", 0x402)],
    }
    for reason, files in wrong.items():
        for file in files:
            with pytest.raises(image.Unplaced, match=reason):
                image.place(file, image.address_in_libraries)


def test_words_of_another_kind_are_left_to_llvm_and_outer_functions_are_found() -> None:
    caller = direct.gather
    code = code_of(caller)
    assert image.place(code, lambda name: 4096)
    asked: list[str] = []
    with pytest.raises(image.Unplaced, match="which is not there"):
        image.place(code, lambda name: asked.append(name) or 0)  # type: ignore[func-returns-value]
    assert set(asked) - {"memset"} == {loop.symbol for loop in caller.calls()}  # LLVM calls memset of its own accord
    with pytest.raises(image.Unplaced, match="kind 4"):  # R_X86_64_PLT32
        image.place(changed(code, 4, 64 + 8, "<I", 4), lambda name: 4096)
    with pytest.raises(image.Unplaced, match="filled in"):  # beyond its section
        image.place(changed(code, 4, 64, "<Q", 1 << 40), lambda name: 4096)


def test_functions_of_c_are_found() -> None:
    for name in ("usleep", "memset", "expf", "tanh"):
        assert image.address_in_libraries(name)
        assert machine.known(name)
    assert not image.address_in_libraries("nobody_has_this") and not machine.known("nobody_has_this")


def about(folder: Path, text: str) -> str:
    file = folder / "cpuinfo"
    file.write_text(text)
    return machine._about(str(file))


def test_what_linux_says_of_the_processor_is_what_stays(tmp_path: Path) -> None:
    text = "processor\t: {}\nvendor_id\t: A\nmodel name\t: B\ncpu MHz\t\t: {}\nflags\t\t: fpu {}\n\nprocessor\t: 9\nflags\t: other\n"
    first = about(tmp_path, text.format(0, 1200, "avx2"))
    assert first == about(tmp_path, text.format(1, 900, "avx2")) == "vendor_id : A\nmodel name : B\nflags : fpu avx2"
    assert first != about(tmp_path, text.format(0, 1200, "avx512f"))
    assert about(tmp_path, "processor\t: 0\nFeatures\t: neon\n") == about(tmp_path, "") == machine._about(str(tmp_path / "none")) == ""


def test_llvms_answer_is_kept_for_a_processor_and_a_broken_one_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite.binding

    said = str(llvmlite.binding.get_process_triple()), str(llvmlite.binding.get_host_cpu_name()), machine._features()
    monkeypatch.setenv("GPUCNN_LOOP_CACHE", str(tmp_path))
    assert machine._host() == said and len(list(tmp_path.iterdir())) == 1
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(machine, "_llvm", lambda: pytest.fail("LLVM was asked again"))
    assert machine._host() == said
    monkeypatch.undo()
    monkeypatch.setenv("GPUCNN_LOOP_CACHE", str(tmp_path))
    for broken in (b"", file.read_bytes()[:-3], b"?" * 90):
        file.write_bytes(broken)
        assert machine._host() == said and disk_cache.read(file) == "\n".join(said).encode()
    for about in ("another processor", ""):  # without anything said of it, nothing is kept
        monkeypatch.setattr(machine, "_about", lambda about=about: about)
        assert machine._host() == said and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_not_spoken_of_for_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GPUCNN_LOOP_CACHE", str(tmp_path / "file" / "folder"))
    monkeypatch.setattr(disk_cache, "say_once", pytest.fail)
    assert machine._host()[0] and os.listdir(tmp_path) == ["file"]
