"""Machine code on disk: kept, found again, and never trusted further than it is whole and made for this processor."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import run

from gpucnn_loops import disk_cache, loops, machine, tile, turn

Program = Callable[..., subprocess.CompletedProcess[str]]

WORK = """
import numpy as np, hashlib
from gpucnn.ops import cpu
from gpucnn_loops import loops
x = np.random.default_rng(0).standard_normal((20, 20), dtype="float32")
y = cpu.relu_grad(cpu.relu(x), x)
print(len(loops.compiled), hashlib.sha256(y.tobytes()).hexdigest())
"""


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.loop"))


def result(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert done.returncode == 0, done.stderr
    count, digest = done.stdout.split()
    return int(count), digest


def test_the_second_process_compiles_nothing(tmp_path: Path, program: Program) -> None:
    first = program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))
    compiled, bits = result(first)
    assert compiled == len(files(tmp_path)) > 0
    assert first.stderr == ""  # which is not a terminal
    second = program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert result(second) == (0, bits)
    assert second.stderr == ""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, str]]:
    """A folder with all that WORK needs, how many loops that are, and what WORK gives."""
    folder = tmp_path_factory.mktemp("kept")
    yield folder, *result(run(WORK, GPUCNN_LOOP_CACHE=str(folder)))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "other bytes": lambda data: data[:-1] + b"?",
    "of another kind": lambda data: b"?" * 100,
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_what_is_damaged_is_not_read(damage: str, kept: tuple[Path, int, str], tmp_path: Path) -> None:
    for file in files(kept[0]):
        assert disk_cache.read(file) is not None
        (tmp_path / file.name).write_bytes(DAMAGE[damage](file.read_bytes()))
        assert disk_cache.read(tmp_path / file.name) is None


def test_what_is_damaged_is_compiled_again(kept: tuple[Path, int, str], tmp_path: Path, program: Program) -> None:
    folder, compiled, bits = kept
    for file, damage in zip(files(folder), itertools.cycle(DAMAGE.values())):
        (tmp_path / file.name).write_bytes(damage(file.read_bytes()))
    assert result(program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))) == (compiled, bits)
    assert [file.name for file in files(tmp_path)] == [file.name for file in files(folder)]
    assert result(program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))) == (0, bits)


def test_without_the_compiler_what_is_kept_runs(kept: tuple[Path, int, str], program: Program) -> None:
    folder, _, bits = kept
    text = "import sys; sys.modules['numba'] = None\n" + WORK
    assert result(program(text, GPUCNN_LOOP_CACHE=str(folder), GPUCNN_CPU="loops")) == (0, bits)


def test_machine_code_that_calls_what_is_not_there_is_not_run(kept: tuple[Path, int, str], tmp_path: Path, program: Program) -> None:
    folder, compiled, bits = kept
    for file in files(folder):
        data = disk_cache.read(file)
        assert data is not None
        needs, _, code = data.partition(b"\n")
        disk_cache.keep(tmp_path / file.name, "", needs + b" nobody_has_this\n" + code)
    assert result(program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))) == (compiled, bits)


def test_where_nothing_can_be_written_that_is_said_once(tmp_path: Path, program: Program) -> None:
    (tmp_path / "file").touch()
    done = program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path / "file" / "folder"))
    assert result(done)[0] > 0
    assert done.stderr.count("cannot be kept") == 1
    assert f"at every start: {tmp_path / 'file'} is a file (GPUCNN_LOOP_CACHE)" in done.stderr


def test_a_folder_that_may_only_be_read_is_read(kept: tuple[Path, int, str], program: Program) -> None:
    folder, _, bits = kept
    for place in (folder, *files(folder)):
        place.chmod(0o555)
    try:
        assert result(program(WORK, GPUCNN_LOOP_CACHE=str(folder))) == (0, bits)
    finally:
        folder.chmod(0o755)


def test_it_can_be_turned_off(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("0", ""):
        monkeypatch.setenv("GPUCNN_LOOP_CACHE", given)
        assert disk_cache.folder() is None
    assert result(program(WORK, GPUCNN_LOOP_CACHE="", XDG_CACHE_HOME=str(tmp_path)))[0] > 0
    assert list(tmp_path.iterdir()) == []


def start(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"GPUCNN_LOOP_CACHE": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", WORK], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once(tmp_path: Path, program: Program) -> None:
    both = [start(tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len({output.split()[1] for output, _ in outputs}) == 1
    assert result(program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))) == (0, outputs[0][0].split()[1])
    assert files(tmp_path) == sorted(file for file in tmp_path.iterdir() if file.suffix != ".text")  # the processor


def test_a_process_that_is_killed_while_it_compiles(tmp_path: Path, program: Program) -> None:
    process = start(tmp_path)
    deadline = time.monotonic() + 100
    while not files(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    _, bits = result(program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path)))
    assert result(program(WORK, GPUCNN_LOOP_CACHE=str(tmp_path))) == (0, bits)


def test_each_processor_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_LOOP_CACHE", str(tmp_path))

    def path(*processor: str, version: str = "1") -> Path | None:
        monkeypatch.setattr(machine, "processor", lambda: processor)
        monkeypatch.setattr(loops, "_versions", lambda: (version,))
        return tile.product.path

    paths = {
        path("x86_64", "znver4", "+avx512f"),
        path("x86_64", "znver4", "+avx2"),
        path("x86_64", "haswell", "+avx2"),
        path("aarch64", "haswell", "+avx2"),
        path("x86_64", "znver4", "+avx512f", version="2"),
    }
    assert len(paths) == 5 and None not in paths
    assert path("x86_64", "znver4", "+avx512f") in paths
    assert turn.to_rows.path not in paths


def test_what_nobody_has_asked_for_in_a_month_goes(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in ("a.loop-1.loop", "a.loop-2.loop", "b.loop-1.loop"))
    for file in (old, young, other):
        file.write_bytes(b"")
    long_ago = time.time() - 32 * 24 * 3600
    for file in (old, other):
        os.utime(file, (long_ago, long_ago))
    disk_cache.keep(tmp_path / "a.loop-3.loop", "a.loop", b"code")
    assert not old.exists() and young.exists() and other.exists()
    assert disk_cache.read(tmp_path / "a.loop-3.loop") == b"code"


def test_the_folder_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUCNN_LOOP_CACHE", raising=False)
    name = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    monkeypatch.setenv(name, str(tmp_path))
    assert disk_cache.folder() == tmp_path / "gpucnn" / "loops"
    from gpucnn.surroundings import cache_folder

    base = cache_folder()
    assert base is not None and disk_cache.folder() == base / "loops"
