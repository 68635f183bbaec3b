"""The threads of a block in Numba's simulator, which has one thread of Python for each: how they wait for one another.

The simulator looks again and again whether all have come to a barrier, and knows no other meeting than that of the whole block. Here a
thread that waits sleeps until another wakes it, and so do threads that meet in smaller numbers: the lanes of a warp, the threads of a
warpgroup. So it is known when none is awake any more, which is an error that says who waits for what.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy

_BARRIER = "syncthreads"


class Stuck(RuntimeError):
    """All threads of a block that have not ended wait for others."""


class Stopped(RuntimeError):
    """Another thread of the block failed."""


class Block:
    """The threads of one block while they run. `kept`: what instructions keep for all of them, by names of their own."""

    def __init__(self, threads: int) -> None:
        self.kept: dict[str, Any] = {}
        self.first_failed: Any = None
        self._lock = threading.Lock()
        self._running = threads
        self._asleep: dict[Any, str] = {}  # threads, and what each waits for
        self._at_barrier: list[Any] = []
        self._came: dict[str, dict[Any, Any]] = {}  # places, and what the threads that wait there have brought
        self._watching: dict[Any, Callable[[], bool]] = {}

    def barrier(self) -> None:
        """Waits for all threads that have not ended."""
        me = threading.current_thread()
        with self._lock:
            self._at_barrier.append(me)
            if self._all_at_barrier():
                return
            self._falls_asleep(me, _BARRIER)
        self._sleep(me)

    def meet(self, place: str, count: int, brought: Any, together: Callable[[list[Any]], Sequence[Any]]) -> Any:
        """Waits at a place for `count` threads. The last to come works out by `together`, from what they have brought, in the order of
        their numbers, what each takes away."""
        me: Any = threading.current_thread()
        with self._lock:
            came = self._came.setdefault(place, {})
            came[me] = brought
            if len(came) < count:
                self._falls_asleep(me, place)
            else:
                del self._came[place]
                present = sorted(came, key=lambda thread: int(thread.thread_id))
                for thread, taken in zip(present, together([came[thread] for thread in present]), strict=True):
                    thread.taken = taken
                    if thread is not me:
                        self._wake(thread)
                return me.taken
        self._sleep(me)
        return me.taken

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until a change by `change` has made a condition true."""
        me = threading.current_thread()
        with self._lock:
            if condition():
                return
            self._watching[me] = condition
            self._falls_asleep(me, what)
        self._sleep(me)

    def change(self, action: Callable[[], None]) -> None:
        """Does something for which others may be waiting."""
        with self._lock:
            action()
            for thread in [thread for thread, condition in self._watching.items() if condition()]:
                del self._watching[thread]
                self._wake(thread)

    def leave(self) -> None:
        """This thread ends; the others wait for it no longer."""
        with self._lock:
            self._running -= 1
            if not self._all_at_barrier():
                self._check()

    def fail(self) -> None:
        """Stops all threads that wait, or are going to."""
        with self._lock:
            self.first_failed = self.first_failed or threading.current_thread()
            for thread in list(self._asleep):
                self._wake(thread)

    def _all_at_barrier(self) -> bool:
        """Whether all have come, whom this wakes."""
        if len(self._at_barrier) < self._running:
            return False
        for thread in self._at_barrier:
            if thread in self._asleep:
                self._wake(thread)
        self._at_barrier.clear()
        return True

    def _falls_asleep(self, thread: Any, what: str) -> None:
        if self.first_failed is not None:
            raise Stopped("another thread of the block failed")
        self._asleep[thread] = what
        self._check()

    def _wake(self, thread: Any) -> None:
        del self._asleep[thread]
        thread.gate.release()

    def _sleep(self, thread: Any) -> None:
        thread.gate.acquire()
        if self.first_failed is not None:
            raise Stopped("another thread of the block failed")

    def _check(self) -> None:
        if self._asleep and len(self._asleep) == self._running:
            waiting = ", ".join(f"{count} for {what}" for what, count in Counter(self._asleep.values()).items())
            raise Stuck(f"the block is stuck: of its threads {self._running} have not ended, and these wait: {waiting}")


def current_block() -> Block:
    """The block of the calling thread."""
    thread: Any = threading.current_thread()
    block: Block = thread.block
    return block


def run_block(thread_type: Any, manager: Any, place: Any, arguments: tuple[Any, ...]) -> None:
    """Runs a block of the simulator's threads, of this type, to its end; raises what the first one raised that failed."""
    points = list(numpy.ndindex(*manager._block_dim))
    block = Block(len(points))

    def run() -> None:
        try:
            # On a chip numbers wrap around, and infinities and NaN come about in silence.
            with numpy.errstate(all="ignore"):
                manager._f(*arguments)
            block.leave()
        except BaseException:
            block.fail()
            raise

    threads = [thread_type(run, manager, place, point, manager._debug) for point in points]
    for thread in threads:
        thread.block, thread.gate = block, threading.Lock()
        thread.gate.acquire()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:  # such as Ctrl-C
        block.fail()
        raise
    if block.first_failed is not None:
        error, trace = block.first_failed.exception
        raise error.with_traceback(trace)


def lane_exchange(mask: int, value: Any, lane_mask: int) -> Any:
    """cuda.shfl_xor_sync: the value of the lane whose number differs in these bits. All 32 lanes together."""
    if mask != 0xFFFFFFFF:
        raise NotImplementedError(f"shfl_xor_sync with the mask {mask:#x}: all lanes take part here")
    thread: Any = threading.current_thread()

    def exchange(values: list[Any]) -> list[Any]:
        if any(other != lane_mask for _, other in values):
            raise ValueError(f"lanes of a warp differ in shfl_xor_sync's bits: {sorted({other for _, other in values})}")
        return [values[lane ^ lane_mask][0] for lane in range(32)]

    return current_block().meet(f"shfl_xor_sync in warp {thread.thread_id // 32}", 32, (value, lane_mask), exchange)
