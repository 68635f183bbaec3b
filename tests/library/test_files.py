"""The one door to files: how everything that is written is written, and what is never opened to be read."""

from __future__ import annotations

import ast
import errno
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import files, plots, reservation
from gpucnn.data import search
from gpucnn.data.download import fetch
from gpucnn.errors import DataError, GpucnnError
from gpucnn.training import history as histories
from gpucnn.training.callbacks import Run

ROOT = Path(gc.__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and locks are POSIX's here")


def model() -> gc.Sequential:
    return gc.Sequential(gc.Flatten(), gc.Dense(4)).build((1, 2, 2), device="cpu").compile()


def history() -> gc.History:
    return gc.History([{"epoch": 1, "loss": 2.0, "accuracy": 0.5}])


def log(path: Any) -> None:
    made = model()
    callback, run = gc.CSVLog(path), Run(made, made.optimizer, 1, 3, history=history())
    callback.on_train_begin(run)
    callback.on_epoch_end(run)
    run.history.rows.append({"epoch": 2, "loss": 1.0, "accuracy": 0.75})
    callback.on_epoch_end(run)


def checkpoint(path: Any) -> None:
    model().fit(np.zeros((4, 1, 2, 2), np.float32), np.arange(4), callbacks=[gc.Checkpoint(path)], verbose=False)


# Everything of the library that writes a file.
WRITES: dict[str, Callable[[Any], Any]] = {
    "Sequential.save": lambda path: model().save(path),
    "Checkpoint": checkpoint,
    "CSVLog": log,
    "History.to_csv": lambda path: history().to_csv(path),
    "write_idx": lambda path: gc.data.write_idx(path, np.zeros(3, np.uint8)),
    "save_curves": lambda path: plots.save_curves(history(), path),
}
# And everything that reads one.
READS: dict[str, Callable[[Any], Any]] = {
    "load": lambda path: gc.load(path, device="cpu"),
    "load_parameters": lambda path: model().load_parameters(path),
    "resume": lambda path: model().fit(np.zeros((4, 1, 2, 2), np.float32), np.arange(4), resume=path, verbose=False),
    "read_image": gc.data.read_image,
    "read_image .npy": lambda path: gc.data.read_image(path),
    "read_idx": gc.data.read_idx,
    "load_pair": lambda path: gc.data.load_pair(path, path, 10),
    "load_dataset": lambda path: gc.load_dataset(Path(path)),
    "data_dir": lambda path: gc.load_dataset("mnist", path, download=False),
}


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the current one, and no data anywhere."""
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    monkeypatch.setattr(search, "cache_folder", lambda: None)
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_nothing_writes_a_file_by_itself() -> None:
    """Nor changes the process's umask. What nvdisasm is handed is in a temporary file that goes at once, and ranks other
    than the first write to nowhere."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).as_posix() in ("files.py", "profiling/chip/sass.py", "cli/together.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [part.value for part in [*node.args[1:2], *(word.value for word in node.keywords)] if isinstance(part, ast.Constant)]
            if name in ("write_text", "write_bytes", "umask", "mkstemp", "NamedTemporaryFile") or (
                name == "open" and any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes)
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert found == []


@pytest.mark.parametrize("name", WRITES)
def test_a_link_stays_and_what_it_leads_to_is_written(name: str, opened: Path) -> None:
    Path("far").mkdir()
    Path("far/real").write_bytes(b"old")
    for link, target in (("near", "far/real"), ("new", "far/made")):
        Path(link).symlink_to(target)
        WRITES[name](link)
        assert Path(link).is_symlink() and Path(link).readlink() == Path(target)
        assert Path(target).stat().st_size > 3 and not Path(target).is_symlink()
    assert sorted(os.listdir("far")) == ["made", "real"]


@pytest.mark.parametrize("name", WRITES)
def test_pipes_devices_folders_and_sockets_are_never_replaced(name: str, opened: Path) -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("to-pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for path in ("pipe", "folder", "to-pipe", "socket", os.devnull):
            kind = stat.S_IFMT(os.stat(path).st_mode)
            with pytest.raises((OSError, GpucnnError), match=r"it is a (pipe|folder|socket|device)"):
                WRITES[name](path)
            assert stat.S_IFMT(os.stat(path).st_mode) == kind
    assert sorted(os.listdir()) == ["folder", "pipe", "socket", "to-pipe"]


@pytest.mark.parametrize("name", WRITES)
def test_links_that_lead_back_to_themselves_say_so(name: str, opened: Path) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    with pytest.raises((OSError, GpucnnError), match="a link to itself"):
        WRITES[name]("a")


@pytest.mark.parametrize("name", WRITES)
def test_a_place_in_a_file_and_a_name_too_long_are_no_places_to_write(name: str, opened: Path) -> None:
    Path("file").write_text("")
    for path, words in (("file/a", "file is not a folder: name another place"), ("x" * 256, "name too long: name another")):
        with pytest.raises((OSError, GpucnnError), match=words):
            WRITES[name](path)
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("name", READS)
def test_and_where_they_are_read(name: str, opened: Path) -> None:
    Path("a").symlink_to("a")
    with pytest.raises(GpucnnError, match="a link to itself"):
        READS[name]("a")


@pytest.mark.parametrize("length", [100, 230, 245, 255])
@pytest.mark.parametrize("letter", ["m", "é", "字"])
@pytest.mark.parametrize("name", WRITES)
def test_names_as_long_as_the_file_system_takes(name: str, letter: str, length: int, opened: Path) -> None:
    path = letter * (length // len(letter.encode()))
    for _ in range(2):
        WRITES[name](path)
    assert os.listdir() == [path]


@pytest.mark.parametrize("name", WRITES)
def test_a_tilde_is_the_home_folder(name: str, opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (opened / "home").mkdir()
    (opened / "here").mkdir()
    monkeypatch.setenv("GPUCNN_LOOP_CACHE", str(opened / "loops"))  # the home folder's, unless it is named: fit may compile some
    WRITES[name]("before")  # Matplotlib chooses its own folders in the home folder when it first draws
    Path("before").unlink()
    monkeypatch.setenv("HOME", str(opened / "home"))
    monkeypatch.chdir(opened / "here")
    WRITES[name]("~/file")
    assert os.listdir(opened / "home") == ["file"] and os.listdir() == []
    with pytest.raises(DataError, match="home folder that '~nobody-of-this-name/file' refers to is not known"):
        WRITES[name]("~nobody-of-this-name/file")
    assert os.listdir() == []


@pytest.mark.parametrize("call", ["open", "replace"])
def test_an_error_names_the_file_and_not_the_temporary_one(call: str, opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, call)

    def refused(path: Any, *more: Any) -> Any:
        if str(path).endswith(".partial"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, *more)

    monkeypatch.setattr(os, call, refused)
    with pytest.raises(OSError, match="Read-only") as caught, files.writing("a.txt"):
        pass
    assert caught.value.filename == "a.txt" and caught.value.filename2 is None and os.listdir() == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_permissions_are_those_of_open_and_the_umask_is_never_touched(mask: int, opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(mask)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to the whole process"))
        for name, write in WRITES.items():
            write(name)
            assert os.stat(name).st_mode & 0o777 == 0o666 & ~mask, name
            os.chmod(name, 0o640)
            write(name)
            assert os.stat(name).st_mode & 0o777 == 0o640, name
    finally:
        monkeypatch.undo()
        os.umask(before)


@pytest.mark.parametrize("name", ["file", "m" * 255])
def test_leftovers_of_the_killed_go_and_what_is_being_written_stays(name: str, opened: Path) -> None:
    program = f"""
import os, signal
from gpucnn.files import writing
with writing({name!r}) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert len(os.listdir()) == 1 and os.listdir()[0].endswith(".partial")
    Path(".other.file.abc.partial").write_bytes(b"not of this one")
    with files.writing(name) as file:
        file.write(b"first")
        file.flush()
        assert len(os.listdir()) == 2  # the leftover has gone; the file and the stranger
        files.write_atomically(name, lambda second: second.write(b"second"))
        assert Path(name).read_bytes() == b"second" and len(os.listdir()) == 3
    assert Path(name).read_bytes() == b"first"
    assert sorted(os.listdir()) == sorted([".other.file.abc.partial", name])


def test_many_writers_of_one_file_leave_one_whole_file(opened: Path) -> None:
    def write(number: int) -> None:
        for _ in range(30):
            files.write_atomically("file", lambda file: file.write(bytes([number]) * 5000))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = Path("file").read_bytes()
    assert len(content) == 5000 and len(set(content)) == 1 and os.listdir() == ["file"]


# Reading.


@pytest.mark.parametrize("name", [name for name in READS if name not in ("load_dataset", "data_dir")])
def test_a_file_that_may_not_be_read_says_so(name: str, opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library that would read it makes of that: safetensors says that there is no such file."""
    path = "a.npy" if name.endswith(".npy") else "a"
    Path(path).write_bytes(b"something")
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not bind root
    with pytest.raises(GpucnnError, match=rf"{path} cannot be read \(Permission denied\): check its permissions"):
        READS[name](path)


@pytest.mark.parametrize("what", ["pipe", "socket", "terminal", "device", "endless"])
@pytest.mark.parametrize("name", READS)
def test_what_might_never_answer_is_refused_at_once(name: str, what: str, opened: Path) -> None:
    path = Path("a.npy" if name.endswith(".npy") else "a")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif what == "terminal":
        _, end = os.openpty()
        path.symlink_to(os.ttyname(end))
    else:
        path.symlink_to("/dev/zero" if what == "endless" else os.devnull)
    started = time.monotonic()
    with pytest.raises(GpucnnError) as caught:
        READS[name](path)
    assert time.monotonic() - started < 30 and len(str(caught.value)) <= 500
    if name != "data_dir":
        assert any(word in str(caught.value) for word in ("pipe", "socket", "device", "no folder")), caught.value


def test_standard_input_that_never_answers(opened: Path) -> None:
    code = "import sys, gpucnn as gc\nfor read in (gc.load, gc.data.read_image, gc.data.read_idx):\n" + (
        "    try: read('/dev/stdin')\n    except gc.GpucnnError as error: print('pipe' in str(error))"
    )
    reading, writing = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=reading,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(reading)
    os.close(writing)
    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_special_files_among_images_are_passed_over_and_told(opened: Path) -> None:
    for name in ("cat", "dog"):
        os.makedirs(f"photos/{name}/deeper")
        for number in range(3):
            np.save(f"photos/{name}/{number}.npy", np.full((4, 4), number, np.uint8))
    os.mkfifo("photos/cat/pipe.png")
    Path("photos/dog/zero.png").symlink_to("/dev/zero")
    Path("photos/dog/lost.png").symlink_to("nowhere")
    Path("photos/dog/a.heic").write_bytes(b"x")
    Path("photos/dog/b.HEIC").write_bytes(b"x")
    Path("photos/dog/Thumbs.db").write_bytes(b"x")
    Path("photos/dog/.hidden").write_bytes(b"x")
    np.save("photos/loose.npy", np.zeros((4, 4), np.uint8))
    data = gc.load_dataset("./photos")
    assert len(data.train_images) + len(data.test_images) == 6
    assert data.note is not None and data.note.startswith("8 files in photos were skipped (")
    for part in ("2 a folder", "2 .heic", "1 a pipe", "1 a device", "1 a link that leads nowhere", "1 .npy beside the class folders"):
        assert part in data.note, data.note
    for name in ("cat/deeper", "dog/deeper"):
        os.rmdir(f"photos/{name}")
    for name in ("cat/pipe.png", "dog/zero.png", "dog/lost.png", "dog/a.heic", "dog/b.HEIC", "loose.npy"):
        os.unlink(f"photos/{name}")
    assert gc.load_dataset("./photos").note is None


@pytest.mark.parametrize("path", [b"bytes", 3, None, object()])
def test_what_is_no_path(path: Any) -> None:
    for call in (*WRITES.values(), gc.load, gc.data.read_image, gc.data.read_idx, gc.Checkpoint, gc.CSVLog):
        with pytest.raises(TypeError):
            call(path)


@pytest.mark.skipif(sys.platform != "linux", reason="file names have no encoding of their own here")
def test_a_name_that_the_file_system_cannot_hold(tmp_path: Path) -> None:
    program = "import gpucnn as gc; gc.Sequential(gc.Dense(2)).build((3,), seed=0, device='cpu').save(chr(233) + '.safetensors')"
    surroundings = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert "file names here are ascii" in last and "set PYTHONUTF8=1" in last and "UnicodeEncodeError" not in last
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_usable_path(path: str, opened: Path) -> None:
    for call in (*WRITES.values(), *READS.values(), lambda path: fetch([], path, "")):
        with pytest.raises((DataError, gc.CheckpointError)):
            call(path)


# Folders that one process writes to.


def hold(folder: Path, ready: Any, done: Any) -> None:
    with reservation.locked(folder):
        ready.set()
        done.wait(60)


def test_a_folder_is_one_process_s_and_the_second_is_told_whose(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, done))
    process.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match=f"process {process.pid} is writing a run to {tmp_path}"), reservation.locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == [reservation.LOCK]
    done.set()
    process.join()
    with reservation.locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_that_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, done))
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join()
    assert os.listdir(tmp_path) == [reservation.LOCK]
    with reservation.locked(tmp_path):
        assert (tmp_path / reservation.LOCK).read_text() == f"{os.getpid()}\n"
        with pytest.raises(DataError, match=f"process {os.getpid()} "), reservation.locked(tmp_path):
            pass
    assert os.listdir(tmp_path) == []


def test_a_log_is_added_to_and_not_written_anew(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(histories, "write_atomically", lambda *given: written.append(given) or files.write_atomically(*given))
    made = model()
    run = Run(made, made.optimizer, 1, 50)
    callback = gc.CSVLog("history.csv")
    callback.on_train_begin(run)
    for epoch in range(1, 51):
        run.history.rows.append({"epoch": epoch, "loss": 1 / epoch} | ({"val_loss": 2.0} if epoch > 40 else {}))
        callback.on_epoch_end(run)
    assert len(written) == 2  # the first, and where there was one more column
    run.history.to_csv("whole.csv")
    assert Path("history.csv").read_bytes() == Path("whole.csv").read_bytes()
    Path("history.csv").unlink()
    callback.on_epoch_end(run)  # somebody has taken it away: all of it again
    assert Path("history.csv").read_bytes() == Path("whole.csv").read_bytes()
