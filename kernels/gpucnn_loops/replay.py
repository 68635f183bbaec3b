"""A pass recorded once, and run again without Python between its loops.

Python chooses loops and their arguments in some fifty microseconds for each operation, and hands each over to the other threads. For one
shape of the input all of that is the same every time, except where the input lies. So `record` notes what a pass calls, for each thread,
and that threads wait for one another where the pass handed work over. A `Pass` hands over all notes at once.

What a pass reads and writes must outlive it: memory that the recording lends, arrays that the caller names, and what is `lasting`. A pass
that touches anything else is not kept. Nor is one that makes something else when it is run again from memory full of NaN: something besides
loops has then written what it reads, or its result.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import itertools
import math
import os
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import crew, threads
from gpucnn_loops.handing import LINE, await_end, reach, run, tell
from gpucnn_loops.loops import Loop, noting, observed, recording
from gpucnn_loops.threads import address

__all__ = ["NEEDED", "NOT_KNOWN", "Needs", "Outside", "Pass", "observed", "once", "record"]

Array = NDArray[Any]
WORTH_WAITING = 1 << 17  # multiply-adds of a thread's part: threads that wait for one another do so within a microsecond
MOST_WORK = 1 << 33  # multiply-adds of a pass: Ctrl-C is heard when it is over, some tenths of a second later
MOST_BYTES = 1 << 28  # of a pass
FLAGS = 1 << 14  # the most flags of a pass
NOT_NOW = "a number is not finite, or other threads are busy"
PAGE = 64  # bytes that memory begins at a multiple of
NEEDED = run, tell, reach, await_end  # loops that passes, and recording them, call


class _Lent:
    """The owner of an array's memory, which takes it back."""

    def __init__(self, array: Array, shape: tuple[int, ...], dtype: Any, back: Callable[[], None]) -> None:
        self.array, self.back = array, back
        self.__array_interface__ = {"shape": shape, "typestr": np.dtype(dtype).str, "data": (address(array), False), "version": 3}

    def __del__(self) -> None:
        self.back()


class _Memory:
    """Memory for one pass: rooms that are lent in pieces. What the pass lets go of is lent again: of the gaps between what is lent, the
    smallest that is large enough. There is one room, of `size` bytes, unless the pass needs more.

    The system gives a room pages when they are written for the first time: those up to `end` of the first one.
    """

    def __init__(self, size: int) -> None:
        self.rooms: list[Array] = []
        self.end = self.flags_lent = 0
        self.flagged = np.zeros(FLAGS, np.float32)
        self._gaps: list[tuple[int, int]] = []  # addresses where they begin and end
        self._back: deque[tuple[int, int]] = deque()  # to become gaps; Python may let go of an array while the gaps are being changed
        with contextlib.suppress(MemoryError):  # where a process may not have that much, each array gets a room
            self._add(max(size, PAGE))

    def _add(self, size: int) -> tuple[int, int]:
        """Adds a room, which touches no other, and returns it as a gap."""
        whole = np.empty(size + 2 * PAGE, np.uint8)
        first = -address(whole) % PAGE
        self.rooms.append(whole[first : first + size])
        self._gaps.append((address(whole) + first, address(whole) + first + size))
        return self._gaps[-1]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        size = max(1, -(-math.prod(shape) * np.dtype(dtype).itemsize // PAGE)) * PAGE
        self.settle()
        gap = min((each for each in self._gaps if each[1] - each[0] >= size), key=lambda each: each[1] - each[0], default=None)
        begin, end = self._add(size) if gap is None else gap
        first, last = begin, begin + size
        self._gaps.remove((begin, end))
        if last < end:
            self._gaps.append((last, end))
        room = next(each for each in self.rooms if address(each) <= first <= last <= address(each) + each.size)
        place = first - address(room)
        if room is self.rooms[0]:
            self.end = max(self.end, place + size)
        return np.asarray(_Lent(room[place : place + size], shape, dtype, lambda: self._back.append((first, last))))

    def settle(self) -> None:
        """Makes gaps of what was given back, each one with those that it touches."""
        while self._back:
            first, last = self._back.popleft()
            for begin, end in [each for each in self._gaps if first in each or last in each]:
                self._gaps.remove((begin, end))
                first, last = min(first, begin), max(last, end)
            self._gaps.append((first, last))

    def used(self) -> list[Array]:
        """What of the rooms has been lent."""
        return [self.rooms[0][: self.end], *self.rooms[1:]] if self.rooms else []

    def flags(self, shape: tuple[int, ...]) -> Array:
        first, self.flags_lent = self.flags_lent, self.flags_lent + math.prod(shape)
        if self.flags_lent > FLAGS:
            return np.empty(shape, np.float32)  # which nobody knows of, so the pass is not kept
        return self.flagged[first : self.flags_lent].reshape(shape)


class Needs(NamedTuple):
    """What a pass needs, in bytes, and in numbers for each use of scratch memory."""

    size: int
    scratch: dict[bool, int]


NOT_KNOWN = Needs(0, {False: 0, True: 0})  # then rooms are added as they are needed


class Note:
    """The loops that one thread calls, and where addresses are among their arguments."""

    def __init__(self) -> None:
        self.words = np.empty(1024, np.int64)
        self.end = self.calls = 0
        self.addresses: list[tuple[int, int]] = []  # the place, and what stands there

    def add(self, loop: Loop, arguments: tuple[Any, ...]) -> None:
        if self.end + len(arguments) + 2 > len(self.words):
            self.words = np.append(self.words, np.empty_like(self.words))
        begin = self.end + 2
        self.end, self.calls = loop.note(self.words, self.end, arguments), self.calls + 1
        self.addresses += [(begin + i, arguments[i]) for i, kind in enumerate(loop.arguments) if kind.endswith("*")]


class Recording:
    """Runs a pass on the calling thread, and notes for each thread what it would call."""

    def __init__(self, needs: Needs, count: int) -> None:
        self.memory, self.work, self.turn = _Memory(needs.size), 0, 0
        self.notes = [Note() for _ in range(count)]
        self.scratch = [threads.Blocks() for _ in self.notes]
        for each in self.scratch:  # as large at once as the pass before needed: a block that is too small would be held beside a larger one
            each.held, each.least = [], needs.scratch
        self.turns = np.zeros((1 + len(self.notes)) * LINE, np.int64)  # how far the first thread is, and each of the others
        self.looks = crew.most_looks()  # which calls loops when it is asked for the first time
        for loop in NEEDED:
            loop.prepare()

    def meet(self, loop: Loop, arguments: tuple[Any, ...]) -> None:
        self._note(0, loop, arguments)

    def share(self, pieces: int, body: Callable[[int, int], object], work: int) -> None:
        """`crew.share`, as long as the pass is recorded."""
        self.work += work
        count = max(1, min(len(self.notes), pieces, work // WORTH_WAITING))
        edges = [pieces * thread // count for thread in range(count + 1)]
        if count > 1:
            self.turn += 1
            self._wait(0, tell, 0)
        for thread, (first, last) in reversed(list(enumerate(itertools.pairwise(edges)))):
            if thread:
                self._wait(thread, reach, 0)
            before = threads.acting(self.scratch[thread])
            try:
                noting(lambda loop, arguments, own=thread: self._note(own, loop, arguments), body, first, last)  # type: ignore[misc]
            finally:
                threads.acting(before)
            if thread:
                self._wait(thread, tell, thread)
        for thread in range(1, count):
            self._wait(0, reach, thread)

    def _note(self, thread: int, loop: Loop, arguments: tuple[Any, ...]) -> None:
        loop._call(*arguments)
        self.notes[thread].add(loop, arguments)

    def _wait(self, thread: int, loop: Loop, of: int) -> None:
        """Notes that a thread tells the others how far it is, or waits until thread `of` is as far."""
        word = address(self.turns) + 8 * LINE * of
        self.notes[thread].add(loop, (word, self.turn) if loop is tell else (word, self.turn, self.looks))

    def blocks(self) -> list[Array]:
        """All memory that was lent."""
        scratch = [block for own in self.scratch for block in (*(now for now, _ in own.of.values()), *(own.held or ()))]
        return [*self.memory.used(), *(block.view(np.uint8) for block in scratch if block is not None)]


class Outside(NamedTuple):
    """Arrays that outlive a pass. read: their numbers may change between passes. written: the pass writes each number without having read
    it. counted: it reads and changes them, such as running means."""

    read: Sequence[Array] = ()
    written: Sequence[Array] = ()
    counted: Sequence[Array] = ()


class Found:
    """What a recording has found: the notes in one piece, and where in them addresses are.

    Raises LookupError if they touch what may not last.
    """

    def __init__(self, recording: Recording, x: Array, results: Sequence[Array], outside: Outside) -> None:
        self.blocks, memory = recording.blocks(), recording.memory
        self.flagged, self.flags = memory.flagged, memory.flagged[: memory.flags_lent]
        notes = [note for note in recording.notes if note.calls]
        self.starts = list(itertools.accumulate((note.end for note in notes), initial=0))
        self.calls = [note.calls for note in notes]
        self.words = np.concatenate([note.words[: note.end] for note in notes])
        self.held: dict[int, Any] = {}
        known = (*self.blocks, *itertools.chain(*outside), recording.turns, self.flagged)
        own = sorted({(address(each), address(each) + each.nbytes) for each in known})
        lent = sorted((address(block), address(block) + block.nbytes) for block in self.blocks)
        if not all(_within(address(each), lent) for each in results):
            raise LookupError("a result is in memory of its own")
        first, last = address(x), address(x) + x.nbytes
        if any(begin < last and first < end for begin, end in own):
            raise LookupError("the input is a part of the model")
        self.places: list[int] = []  # of addresses in the notes
        inputs, distances = [], []
        for start, note in zip(self.starts, notes, strict=False):
            for place, there in note.addresses:
                self.places.append(start + place)
                if first <= there < last:
                    inputs.append(start + place)
                    distances.append(there - first)
                elif there and there not in self.held and not _within(there, own):
                    self.held[there] = threads.owner_of(there)
                    if self.held[there] is None:
                        raise LookupError("it reads or writes what may not last")
        self.inputs, self.distances = np.array(inputs, np.int64), np.array(distances, np.int64)  # those of the input, and how far behind it


class Pass:
    """A recorded pass: called with an input, it returns the outputs, or None, with nothing counted, if that takes the pass as always."""

    def __init__(self, recording: Recording, x: Array, results: Sequence[Array], outside: Outside) -> None:
        """Raises LookupError if the pass touches what may not last."""
        found = Found(recording, x, results, outside)
        self.blocks, self.turns, self.outside, self._results = found.blocks, recording.turns, outside, list(results)
        self._before = [np.empty_like(array) for array in outside.counted]
        self._found, self._flags = found, found.flags
        self._there = -1  # the address of the input that the notes are for
        self.bytes = sum(block.size for block in self.blocks)
        self._notes = [(address(found.words) + 8 * start, calls) for start, calls in zip(found.starts, found.calls, strict=False)]
        self.lock = threading.Lock()
        _passes.add(self)

    def __call__(self, x: Array) -> list[Array] | None:
        """x: of the shape and type that the pass was recorded with, without gaps."""
        if not self.lock.acquire(blocking=False):  # another thread of the program runs it
            return None
        try:
            self._begin(x)
            for array, before in zip(self.outside.counted, self._before, strict=True):
                before[...] = array
            if not crew.together(self._notes):
                return None
            if len(self._flags) and math.isnan(self._flags.sum()):
                for array, before in zip(self.outside.counted, self._before, strict=True):
                    array[...] = before
                return None
            return self._outputs()
        finally:
            self.lock.release()

    def _begin(self, x: Array) -> None:
        """Makes the notes those of x."""
        there = address(x)
        if there != self._there:
            self._found.words[self._found.inputs] = self._found.distances + there
            self._there = there
        self.turns[...] = 0

    def _outputs(self) -> list[Array]:
        """What the notes have made."""
        return [each.copy() for each in self._results]


def _within(place: int, ranges: list[tuple[int, int]]) -> bool:
    """Whether an address is in one of these ranges, which are in order."""
    before = bisect.bisect_right(ranges, (place, math.inf))
    return before > 0 and place < ranges[before - 1][1]


_passes: weakref.WeakSet[Pass] = weakref.WeakSet()


def _after_fork() -> None:
    """Another thread may have held a lock; it does not run here."""
    for each in _passes:
        each.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def once(function: Callable[[Array], Sequence[Array]], x: Array) -> tuple[list[Array], Needs]:
    """(function(x), what recording it will need). All its memory goes back to the system, so that the recording's does not come on top."""
    own, memory = threads.Blocks(), _Memory(MOST_BYTES)
    with contextlib.suppress(AttributeError, TypeError, OSError):  # another system than Linux, or another C library
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what arrays have given back
    lender, scratch = threads.lending(memory), threads.acting(own)
    try:
        results = [each.copy() for each in function(x)]
    finally:
        threads.acting(scratch)
        threads.lending(lender)
    return results, Needs(memory.end, own.most)


def record(
    function: Callable[[Array], Sequence[Array]], x: Array, outside: Outside, needs: Needs
) -> tuple[list[Array] | None, Pass | None, str]:
    """(function(x), the pass, or None and why it is not kept: NOT_NOW, or what will not change). In place of function(x) there may be None,
    where the pass did something else when it was tried: then nothing is counted, and function(x) has to be called again."""
    made = Recording(needs, threads.number())
    before = [array.copy() for array in outside.counted]
    made_by_it, why = recorded(made, function, x)
    results = [each.copy() for each in made_by_it]
    if why:
        return results, None, why
    try:
        found = Pass(made, x, made_by_it, outside)
    except LookupError as error:
        return results, None, str(error)
    why = tried(found, x, results, before)
    return (results, found, "") if not why else (None, None, why)


def tried(found: Pass, x: Array, results: list[Array], before: list[Array]) -> str:
    """Why a pass is not kept, if it does not make the results again; then everything is as it was `before`."""
    same = _does_the_same(found, x, results, before)
    if same:
        return ""
    for array, numbers in zip(found.outside.counted, before, strict=True):
        array[...] = numbers
    return NOT_NOW if same is None else "something besides loops writes what they read"


def recorded(made: Recording, function: Callable[[Array], Sequence[Array]], x: Array, times: float = 1) -> tuple[Sequence[Array], str]:
    """function(x), and why it cannot be a pass, which does it so many times, if it cannot."""
    lender, scratch = threads.lending(made.memory), threads.acting(made.scratch[0])
    try:
        with recording(made.meet, made.share):
            results = function(x)
    finally:
        threads.acting(scratch)
        threads.lending(lender)
    if math.isnan(made.memory.flagged.sum()):
        return results, NOT_NOW
    if not made.notes[0].calls or not all(each.flags.c_contiguous for each in results):
        return results, "no loops"
    if made.work * times > MOST_WORK or sum(block.size for block in made.blocks()) > MOST_BYTES:
        return results, "too large"
    return results, ""


def _does_the_same(found: Pass, x: Array, results: list[Array], before: list[Array]) -> bool | None:
    """Whether the pass makes the same again, from memory full of NaN and counters as they were before; None if it did not run."""
    written, counted = found.outside.written, found.outside.counted
    expected = list(map(_sum_of_bytes, (*results, *written, *counted)))
    for block in found.blocks:
        block[: block.size // 4 * 4].view(np.float32).fill(np.nan)
    for array in written:
        array.fill(np.nan)
    for array, numbers in zip(counted, before, strict=True):
        array[...] = numbers
    again = found(x)
    return None if again is None else list(map(_sum_of_bytes, (*again, *written, *counted))) == expected


def _sum_of_bytes(array: Array) -> int:
    """In place of a copy of gradients, which are as large as a model."""
    numbers: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(numbers)
