"""The pool: forks, spawned processes, several threads at once, errors and Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpucnn_loops import crew, threads
from gpucnn_loops.handing import breath
from gpucnn_loops.loops import loop

Program = Callable[..., subprocess.CompletedProcess[str]]
MUCH = 1 << 30  # work that is shared out


@loop("i i w* i")
def mark(first, last, done, number):  # type: ignore[no-untyped-def]
    """done[first] … done[last − 1] += number."""
    for i in range(first, last):
        done[i] += number


@loop("i i w* i")
def slow(first, last, done, breaths):  # type: ignore[no-untyped-def]
    """As `mark` with 1, some time later."""
    for _ in range(breaths):
        breath()
    for i in range(first, last):
        done[i] += 1


@loop("i i f* d* f d u i")
def write(first, last, x, y, a, b, c, d):  # type: ignore[no-untyped-def]
    """Numbers of every kind."""
    for i in range(first, last):
        x[i] = a + i
        y[i] = b + c + d


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "count", lambda: 4)
    monkeypatch.setattr(threads, "_number", 0)


@pytest.fixture
def done() -> np.ndarray:
    return np.zeros(64, np.int64)


def rooms_of(pieces: int) -> list[int]:
    """Where the scratch of each piece's thread is: another place for each thread."""
    found = np.zeros(pieces, np.int64)
    crew.share(pieces, lambda first, last: mark(first, last, threads.address(found), threads.Scratch(8).addresses()[0]), MUCH)
    return [int(room) for room in found]


def test_every_piece_is_done_once(four_threads: None) -> None:
    for pieces in (1, 2, 3, 4, 5, 17):
        done = np.zeros(pieces, np.int64)
        crew.share(pieces, lambda first, last, done=done: mark(first, last, threads.address(done), 1), MUCH)  # type: ignore[misc]
        assert done.tolist() == [1] * pieces


def test_each_thread_takes_part_with_scratch_of_its_own(four_threads: None) -> None:
    rooms = rooms_of(8)
    assert len(set(rooms)) == 4 and rooms[::2] == rooms[1::2]
    assert rooms[0] == threads.Scratch(8).addresses()[0]
    assert set(rooms_of(8)) == set(rooms)


def test_little_work_stays_on_the_callers_thread(four_threads: None) -> None:
    seen: list[tuple[int, int]] = []
    crew.share(8, lambda first, last: seen.append((first, last)), 10)
    assert seen == [(0, 8)]


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_an_error_comes_out_when_nobody_is_at_work(bad: int, four_threads: None, done: np.ndarray) -> None:
    begun: list[int] = []

    def body(first: int, last: int) -> None:
        if first == bad:
            raise ValueError("broken")
        begun.append(first)
        slow(first, last, threads.address(done), 1_000_000)

    with pytest.raises(ValueError, match="broken"):
        crew.share(4, body, MUCH)
    assert sorted(begun) == np.flatnonzero(done).tolist()
    assert (bad == 0) == (len(begun) == 3)


def test_work_within_work_and_of_several_at_once_is_all_done(four_threads: None) -> None:
    done = np.zeros((6, 5, 3), np.int64)

    def work(caller: int) -> None:
        def outer(first: int, last: int) -> None:
            for piece in range(first, last):
                at = threads.address(done[caller, piece])
                crew.share(3, lambda a, z, at=at: mark(a, z, at, 1), MUCH)  # type: ignore[misc]

        for _ in range(20):
            crew.share(5, outer, MUCH)

    callers = [threading.Thread(target=work, args=(caller,)) for caller in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (done == 20).all()
    assert len([thread for thread in threading.enumerate() if thread.name == "gpucnn"]) <= 3


def test_after_an_error_all_threads_work_again(four_threads: None) -> None:
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            crew.share(4, lambda first, last: 1 // 0, MUCH)
    assert len(set(rooms_of(8))) == 4


def test_threads_that_sleep_and_threads_that_look_for_work_are_handed_all_of_it(four_threads: None, done: np.ndarray) -> None:
    for turn in range(600):
        crew.share(64, lambda first, last: mark(first, last, threads.address(done), 1), MUCH)
        time.sleep((0, 5e-5, 1e-4, 3e-4)[turn % 4])  # some look for work by then, some sleep, some are falling asleep
    assert done.tolist() == [600] * 64


def test_threads_without_work_sleep(four_threads: None) -> None:
    rooms_of(8)
    deadline = time.monotonic() + 20
    while any(each.awake for each in crew.workers()) and time.monotonic() < deadline:
        time.sleep(1e-3)
    assert len(crew.workers()) >= 3 and not any(each.awake for each in crew.workers())


def test_any_number_of_calls_with_arguments_of_every_kind_reach_another_thread(four_threads: None) -> None:
    x, y = np.zeros(400, np.float32), np.zeros(400)

    def body(first: int, last: int) -> None:
        for i in range(first, last):
            write(i, i + 1, threads.address(x), threads.address(y), 0.1, -1e300 if i % 2 else 0.1, 2**63, True)

    crew.share(400, body, MUCH)
    np.testing.assert_array_equal(x, np.float32(0.1) + np.arange(400, dtype=np.float32))
    np.testing.assert_array_equal(y, np.where(np.arange(400) % 2, -1e300, 0.1) + 2.0**63 + 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no threads")
def test_threads_that_share_a_core_are_told_to_leave_it(four_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: told.append((thread, cores)))
    found, cores = iter([7, 5, 7]), dict[int, int]()  # of three threads
    monkeypatch.setattr(crew, "core", lambda: 7)  # the caller
    monkeypatch.setattr(
        crew.Worker,
        "core",
        property(lambda worker: cores[id(worker)] if id(worker) in cores else cores.setdefault(id(worker), next(found))),
    )
    crew.share(4, lambda first, last: None, MUCH)
    assert len(told) == 2
    assert threading.get_native_id() not in [thread for thread, _ in told]  # the program's own threads stay as they are
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {2})
    monkeypatch.setattr(crew, "core", lambda: 2)
    monkeypatch.setattr(crew.Worker, "core", 2)
    crew.share(4, lambda first, last: None, MUCH)
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
from gpucnn_loops import crew
crew.WORTH_A_THREAD = 0
rng = np.random.default_rng(0)
x, w = rng.standard_normal((16, 16, 12, 12), dtype="float32"), rng.standard_normal((32, 16, 3, 3), dtype="float32")
window = conv_window((12, 12), 3, 1, 1)
run = lambda: cpu.conv2d(x, w, None, window)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
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
