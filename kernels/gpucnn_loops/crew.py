"""Divides work among threads, including the caller, in microseconds: the others need neither Python's lock nor, while there is much to
do, the system to be woken.

The caller notes which loops another thread is to run, with which arguments (`Loop.note`), hands the note over by writing one word, and does
its own part meanwhile. The other thread is within a loop, `serve`, that looks at this word, for a tenth of a millisecond after it has last
had work; then it sleeps, and has to be woken. A pass takes some hundred microseconds, waking a thread takes fifty, and so does waiting
for Python's lock.

Work is cut by its size alone, never by the number of threads; what a thread gets are whole pieces. So the bits of a result do not depend
on how many there are.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn_loops import threads
from gpucnn_loops.handing import ASLEEP, BEFORE, CALLS, CORE, GIVEN, HANDING, LOOKS, NOTE, SLOT, STATE, await_end, hand_over, run, serve
from gpucnn_loops.loops import Loop, alone, noting, recorder, rehearsing

WORTH_A_THREAD = 1 << 21  # multiply-adds; below it, handing them over costs more than it saves
PATIENCE = 1e-4  # seconds for which a thread looks for work before it sleeps
LEAST_LOOKS = 16

core: Callable[[], int] = lambda: -1  # noqa: E731
"""The core that the calling thread runs on; −1 where the system does not tell."""
if sys.platform == "linux":
    with contextlib.suppress(OSError, AttributeError):
        core = ctypes.PyDLL(None).sched_getcpu

_idle: list[Worker] = []  # threads that wait for work
_all: list[Worker] = []
_made = 0  # threads that there are, or are about to be
_lock = threading.Lock()


class Worker:
    """A thread that runs what is noted for it, time after time, as long as the process lives."""

    def __init__(self) -> None:
        for each in HANDING:
            each.prepare()
        self._slot = np.zeros(SLOT, np.int64)
        self._address = threads.address(self._slot)
        self._note = np.empty(1024, np.int64)
        self._end = self._calls = 0
        self.scratch = threads.Blocks()
        self.looks = most_looks()
        self._slot[[STATE, LOOKS, CORE]] = ASLEEP, self.looks, -1
        self._bell = threading.Lock()  # free when it rings
        self._bell.acquire()
        self._thread = threading.Thread(target=self._run, name="gpucnn", daemon=True)
        self._thread.start()

    def begin(self, body: Callable[[int, int], object], first: int, last: int) -> None:
        """Starts body(first, last) for this thread: its Python runs now, its loops run there while the caller does something else."""
        self._end = self._calls = 0
        before = threads.acting(self.scratch)
        self.scratch.held = []
        try:
            noting(self._keep, body, first, last)
        finally:
            threads.acting(before)
        if self._calls:
            self.run(threads.address(self._note), self._calls)

    def run(self, note: int, calls: int) -> None:
        """Starts the first `calls` loops of the note at an address."""
        slot, self._calls = self._slot, calls
        slot[NOTE], slot[CALLS], slot[LOOKS] = note, calls, self.looks
        hand_over(self._address)
        if slot[BEFORE] == ASLEEP:
            self.wake()

    def _keep(self, loop: Loop, arguments: tuple[Any, ...]) -> None:
        if not loop.ready:
            loop.prepare()
        if self._end + len(arguments) + 2 > len(self._note):
            self._note = np.append(self._note, np.empty_like(self._note))
        self._end = loop.note(self._note, self._end, arguments)
        self._calls += 1

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    def end(self) -> None:
        """Waits until the work, if there is any, is done. Once interrupted, it can be called again."""
        if not self._calls:
            return
        slot = self._slot
        await_end(self._address, most_looks())
        if slot[STATE] != GIVEN:
            self.looks = min(2 * self.looks, most_looks())
        else:
            # It has more to do, or no core to itself. In the second case it should not keep others from theirs by looking for work.
            self.looks = max(self.looks // 4, LEAST_LOOKS)
            pause = 2e-5
            while slot[STATE] == GIVEN:
                if slot[BEFORE] == ASLEEP:  # Ctrl-C may have come before it was woken; once more does no harm
                    self.wake()
                time.sleep(pause)
                pause = min(2 * pause, 1e-3)
        await_end(self._address, 1)  # Python's look at the word does not order memory: what the thread wrote is seen after this one

    @property
    def awake(self) -> bool:
        """Whether the thread works, or looks for work."""
        return int(self._slot[STATE]) != ASLEEP

    @property
    def core(self) -> int:
        """The core that the thread was on when it last had work."""
        return int(self._slot[CORE])

    def keep_off(self, cores: set[int]) -> None:
        """Keeps the thread off these cores from now on, if the caller may run on any others."""
        others = os.sched_getaffinity(0) - cores
        if others and self._thread.native_id is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._thread.native_id, others)

    def rest(self) -> bool:
        """Tells the thread to look for no more work; returns whether it sleeps already."""
        self.looks = self._slot[LOOKS] = 0
        return not self.awake

    def _run(self) -> None:
        while True:
            self._bell.acquire()
            serve(self._address)


_looks: list[int] = []


def most_looks() -> int:
    """The number of times that a thread looks for work before it sleeps. A look takes 10 to 100 ns, which is measured once."""
    if not _looks:
        slot, count = np.full(SLOT, GIVEN, np.int64), 1000
        times = []
        for _ in range(3):
            began = time.perf_counter()
            await_end(threads.address(slot), count)
            times.append(time.perf_counter() - began)
        _looks.append(max(LEAST_LOOKS, int(PATIENCE / max(min(times), 1e-6) * count)))
    return _looks[0]


def workers() -> list[Worker]:
    """The threads that have been started; the program's own is not among them."""
    return list(_all)


def _worker() -> Worker | None:
    """A thread that has nothing to do; None if all are busy, since several callers may share work at a time."""
    global _made
    with _lock:
        if _idle:
            return _idle.pop()
        if _made >= threads.number() - 1:
            return None
        _made += 1
    made = Worker()
    _all.append(made)
    return made


def _after_fork() -> None:
    """Threads do not survive a fork, and another one may have held the lock."""
    global _lock, _made
    _lock, _made = threading.Lock(), 0
    _idle.clear()
    _all.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _rest() -> None:
    """Stops the threads: none may be within a loop when the memory of its machine code is freed."""
    deadline = time.monotonic() + 1
    while not all([each.rest() for each in _all]) and time.monotonic() < deadline:
        time.sleep(1e-4)


def share(pieces: int, body: Callable[[int, int], object], work: int) -> None:
    """Calls body(first, last) with each thread's part of range(pieces). work: multiply-adds of all of them.

    body works in loops only, and reads nothing that a loop has written: for another thread, its loops run after it has returned. Its
    scratch is that thread's. Returns, or raises, when all threads are done: nobody writes to an array any more.
    """
    record = recorder()
    if record is not None and not alone():
        record(pieces, body, work)
        return
    count = min(threads.number(), pieces) if work >= WORTH_A_THREAD else 1
    if count > 1 and rehearsing():
        for each in HANDING:
            each(0)
    if count <= 1 or alone():
        body(0, pieces)
        return
    edges = [pieces * thread // count for thread in range(count + 1)]
    others: list[Worker] = []
    problem: BaseException | None = None
    taken: set[int] = set()
    try:
        for thread in range(1, count):
            other = _worker()
            if other is None:
                break
            others.append(other)
            other.begin(body, edges[thread], edges[thread + 1])
        taken.add(core())
        body(edges[0], edges[1])
        for thread in range(len(others) + 1, count):
            body(edges[thread], edges[thread + 1])
    except BaseException as error:
        problem = error
    _end(others, taken, problem)


def together(notes: list[tuple[int, int]]) -> bool:
    """Runs notes of loops that wait for one another (`handing.reach`), each as (address, calls) on a thread of its own, the first on the
    caller's. False, with nothing done, if not as many threads are free."""
    if len(notes) == 1:
        run(*notes[0])
        return True
    others: list[Worker] = []
    try:
        while len(others) < len(notes) - 1:
            other = _worker()
            if other is None:
                break
            others.append(other)
    except BaseException:
        _idle.extend(others)
        raise
    if len(others) < len(notes) - 1:
        _idle.extend(others)
        return False
    problem: BaseException | None = None
    taken: set[int] = set()
    while True:
        try:
            for other, note in zip(others, notes[1:], strict=True):
                other.run(*note)
                if problem is not None:  # which may have come between handing it the note and waking it
                    other.wake()
            taken.add(core())
            run(*notes[0])
            break
        except BaseException as error:  # Ctrl-C: all notes run nevertheless, for one that is never run would be waited for
            problem = error
    _end(others, taken, problem)
    return True


def _end(others: list[Worker], taken: set[int], problem: BaseException | None) -> None:
    """Waits for threads, which are free then, and raises the problem, if there was one. taken: the core of the caller."""
    while others:
        try:
            others[-1].end()
            other = others.pop()
            _idle.append(other)
            _apart(other, taken)
        except BaseException as error:  # Ctrl-C: heard when the pass is over
            problem = error
    if problem is not None:
        raise problem


def _apart(other: Worker, taken: set[int]) -> None:
    """Gives a thread a core of its own for its next work. taken: the cores of the threads before it.

    Linux wakes a thread on the waker's core, where it has to wait, if it believes that all others are busy; in a virtual machine it
    takes sleeping cores for busy ones. And two threads that share a core stay together for milliseconds, which is many passes.
    """
    its = other.core
    if its in taken and its >= 0:
        other.keep_off(taken)
    taken.add(its)
