"""The pool: forks, spawned processes, several threads at once, errors and Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpucnn_loops import threads

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "count", lambda: 4)
    monkeypatch.setattr(threads, "_number", 0)


def test_every_piece_is_done_once(four_threads: None) -> None:
    for pieces in (1, 2, 3, 4, 5, 17):
        done: list[int] = []
        threads.share(pieces, lambda first, last, done=done: done.extend(range(first, last)), 1 << 30)  # type: ignore[misc]
        assert sorted(done) == list(range(pieces))


def test_little_work_stays_on_the_callers_thread(four_threads: None) -> None:
    seen: list[int] = []
    threads.share(8, lambda first, last: seen.append(threading.get_ident()), 10)
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("bad", [0, 3])
def test_an_error_in_any_thread_comes_out_when_all_are_done(bad: int, four_threads: None) -> None:
    finished: list[int] = []

    def body(first: int, last: int) -> None:
        if first == bad:
            raise ValueError("broken")
        time.sleep(0.05)
        finished.append(first)

    with pytest.raises(ValueError, match="broken"):
        threads.share(4, body, 1 << 30)
    assert len(finished) == 3


def test_work_within_work_and_of_several_at_once_is_all_done(four_threads: None) -> None:
    done: list[tuple[int, int]] = []

    def outer(first: int, last: int) -> None:
        for piece in range(first, last):
            threads.share(3, lambda a, z, piece=piece: done.extend((piece, each) for each in range(a, z)), 1 << 30)  # type: ignore[misc]

    callers = [threading.Thread(target=threads.share, args=(5, outer, 1 << 30)) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(done) == sorted(6 * [(piece, each) for piece in range(5) for each in range(3)])
    assert len([thread for thread in threading.enumerate() if thread.name == "gpucnn"]) <= 3


def test_after_an_error_all_threads_work_again(four_threads: None) -> None:
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            threads.share(4, lambda first, last: 1 // 0, 1 << 30)
    seen: list[int] = []

    def body(first: int, last: int) -> None:
        seen.append(threading.get_ident())
        time.sleep(0.02)

    threads.share(4, body, 1 << 30)
    assert len(set(seen)) == 4


@pytest.mark.skipif(not hasattr(threads.os, "sched_setaffinity"), reason="this system pins no threads")
def test_threads_that_share_a_core_are_told_to_leave_it(four_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda thread: {0, 1, 2, 3})
    monkeypatch.setattr(threads.os, "sched_setaffinity", lambda thread, cores: told.append((thread, cores)))
    found = iter([7, 7, 5, 7])  # three threads and the caller, in whatever order
    monkeypatch.setattr(threads, "core", lambda: next(found))
    threads.share(4, lambda first, last: None, 1 << 30)
    assert len(told) == 2
    assert threading.get_native_id() not in [thread for thread, _ in told]  # the program's own threads stay as they are
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda thread: {2})
    monkeypatch.setattr(threads, "core", lambda: 2)
    threads.share(4, lambda first, last: None, 1 << 30)
    assert len(told) == 2  # nowhere to go


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "50000 100000"}, 1),  # half of a core
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2),
        ("0::/a", {"a/cpu.max": "max 100000"}, 1 << 20),
        ("0::/a", {"a/cpu.max": "nonsense"}, 1 << 20),
        ("3:cpuset:/x\n4:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "150000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 1 << 20),
        ("", {}, 1 << 20),
    ],
)
def test_a_containers_share_of_time(own: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    monkeypatch.setattr(threads, "OWN_CGROUP", tmp_path / "own")
    assert threads.share_of_time() == cores
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert threads.cores() == min(cores, 64)
    monkeypatch.setattr(threads, "OWN_CGROUP", tmp_path / "missing")
    assert threads.cores() == 64


def test_scratch_belongs_to_its_thread_and_is_kept() -> None:
    def piece() -> int:
        return threads.Scratch(1000).addresses()[0]

    found: list[int] = []
    mine = piece()
    other = threading.Thread(target=lambda: found.append(piece()))
    other.start()
    other.join()
    assert piece() == mine != found[0]
    assert threads.Scratch(1000, shared=True).addresses()[0] != mine
    parts = threads.Scratch(3, 1, 20).parts
    assert [part.size for part in parts] == [3, 1, 20]
    assert all(part.ctypes.data % 64 == 0 for part in parts)


WORK = """
import numpy as np
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window
from gpucnn_loops import threads
threads.WORTH_A_THREAD = 0
rng = np.random.default_rng(0)
x, w = rng.standard_normal((16, 16, 12, 12), dtype="float32"), rng.standard_normal((32, 16, 3, 3), dtype="float32")
window = conv_window((12, 12), 3, 1, 1)
run = lambda: cpu.conv2d(x, w, None, window)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork here")
def test_a_forked_process_has_a_pool_of_its_own(program: Program) -> None:
    text = (
        WORK
        + """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
before = run()
child = os.fork()
if not child:
    os._exit(0 if (run() == before).all() else 1)
print(os.waitpid(child, 0)[1], (run() == before).all())
"""
    )
    done = program(text, GPUCNN_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "True"]


def test_a_spawned_process(program: Program) -> None:
    text = (
        WORK
        + """
import multiprocessing, hashlib
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    from concurrent.futures import ProcessPoolExecutor
    from gpucnn.functional import conv2d
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print((pool.submit(conv2d, x, w, padding=1).result() == run()).all())
"""
    )
    done = program(text, GPUCNN_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]


def test_predicting_in_a_thread_while_another_one_trains(program: Program) -> None:
    text = """
import threading
import numpy as np, gpucnn as gc
rng = np.random.default_rng(0)
x, y = rng.random((96, 1, 28, 28), dtype="float32"), rng.integers(0, 10, 96)
def trained(beside):
    models = [gc.network("tf2").build((1, 28, 28), seed=1, device="cpu") for _ in range(2)]
    models[0].compile("adam")
    answers, over = [], threading.Event()
    def ask():
        while not over.is_set():
            answers.append(models[1].predict(x[:40]))
    thread = threading.Thread(target=ask)
    if beside:
        thread.start()
    models[0].fit(x, y, batch_size=32, epochs=2, verbose=False)
    over.set()
    if beside:
        thread.join()
        assert answers and all((answer == models[1].predict(x[:40])).all() for answer in answers)
    return models[0].buffers.values
print((trained(False) == trained(True)).all())
"""
    done = program(text, GPUCNN_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent with os.kill")
def test_ctrl_c_is_heard_between_passes_and_everything_works_after_it(program: Program) -> None:
    text = (
        WORK
        + """
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
before = run()
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    while time.monotonic() - began < 60:
        run()
except KeyboardInterrupt:
    print("heard", (run() == before).all())
"""
    )
    done = program(text, GPUCNN_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["heard", "True"]


def test_blas_keeps_its_threads(program: Program) -> None:
    text = """
import numpy as np
from threadpoolctl import threadpool_info
blas = lambda: {library["filepath"]: library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
before = blas()
import gpucnn as gc
model = gc.network("keras").build((1, 28, 28), device="cpu").compile("adam")
model.fit(np.zeros((8, 1, 28, 28), "float32"), np.zeros(8, int), epochs=1, verbose=False)
print(before.items() <= blas().items())
"""
    done = program(text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]
