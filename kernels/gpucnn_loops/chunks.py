"""A pass for predictions that a thread takes some images through at a time, from the first layer to the last.

Where a network has many numbers and few products, as with depthwise and 1×1 convolutions, each layer waits for memory: what the one before
it has written for a whole batch is in no cache any more. What a few images need is. So a pass is recorded for a few images, and each thread
has a copy of it, with memory of its own; whoever is free takes the next images, and nobody waits for another thread before the end.

Weights are packed again for each few images, so this pays only where there are few of them.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops import threads
from gpucnn_loops.handing import LINE, run_all, taken
from gpucnn_loops.loops import loop, rehearsing
from gpucnn_loops.replay import MOST_BYTES, PAGE, Found, Needs, Note, Outside, Pass, Recording, once, recorded, tried
from gpucnn_loops.threads import address

Array = NDArray[Any]
ROOM = 1 << 21  # bytes that a thread's images may take at once: about what it has of the caches
LEAST, MOST = 4, 32  # images at a time
WEIGHTS = 1 << 20  # bytes
X, Y = 5, 12  # which of `in_chunks`'s arguments are the input and the output


@loop("w* i w* w* i i i i i w* f* i f* f* i f*")
def in_chunks(note, calls, places, distances, inputs, x, step, images, each, turn, result, size, y, flags, flagged, bad):
    """y (images, size) from x, whose images are `step` bytes apart, by a note for `each` images, as long as `turn` says that some are left.

    places (inputs): where the note has addresses of the input, which lie `distances` bytes behind its first. The last few images end with
    the last one, and may have been computed before. bad: NaN if one of the note's flags was, for any images.
    """
    total = bad[0]
    while True:
        first = taken(turn, 0) * each
        if first >= images:
            break
        first = min(first, images - each)
        for i in range(inputs):
            note[places[i]] = x + first * step + distances[i]
        run_all(note, calls)
        for i in range(each * size):
            y[first * size + i] = result[i]
        for i in range(flagged):
            total += flags[i]
    bad[0] = total


class Chunks(Pass):
    """A pass recorded for some images, which takes all images of an input through it."""

    def __init__(self, made: Recording, part: Array, results: Sequence[Array], outside: Outside, images: int) -> None:
        """part: the images it was recorded with. Raises LookupError if the pass touches what may not last."""
        super().__init__(made, part, results, outside)
        (result,), found, each = results, self._found, len(part)
        self._shape, size = (images, *result.shape[1:]), result[0].size
        self._turn = np.zeros(LINE, np.int64)
        self._flags = np.zeros((min(threads.number(), -(-images // each)), 2 * LINE), np.float32)
        self._copies, self._heads = [], []
        self._made: Any = None
        tables = address(found.inputs), address(found.distances), len(found.inputs)
        for thread, bad in enumerate(self._flags):
            own = _Copy(found, self.blocks) if thread else _Same(found)
            self._copies.append(own)
            head, note = Note(), (address(own.words), found.calls[0])
            numbers = part[0].nbytes, images, each, address(self._turn), own.place(address(result)), size
            flags = own.place(address(found.flags)), found.flags.size, address(bad)
            head.add(in_chunks, (*note, *tables, 0, *numbers, 0, *flags))
            self._heads.append(head)
        self._notes = [(address(head.words), head.calls) for head in self._heads]
        self.blocks = [*self.blocks, *(block for own in self._copies for block in own.blocks)]
        self.bytes = sum(block.size for block in self.blocks)

    def _begin(self, x: Array) -> None:
        self._turn[...], self._flags[...] = 0, 0
        self._made = np.empty(self._shape, np.float32)
        for head in self._heads:
            head.words[2 + X], head.words[2 + Y] = address(x), address(self._made)

    def _outputs(self) -> list[Array]:
        made, self._made = self._made, None  # it is the caller's
        return [made]


class _Same:
    """What a pass was recorded with."""

    def __init__(self, found: Found) -> None:
        self.words = found.words
        self.blocks: list[Array] = []

    def place(self, of: int) -> int:
        return of


class _Copy(_Same):
    """A copy of a pass's notes with memory of its own."""

    def __init__(self, found: Found, blocks: Sequence[Array]) -> None:
        super().__init__(found)
        self._from = [*blocks, found.flagged.view(np.uint8)]
        self.blocks = [_as_even(block) for block in self._from]
        self.words = found.words.copy()
        for index in found.places:
            self.words[index] = self.place(int(self.words[index]))

    def place(self, of: int) -> int:
        """Where in this memory lies what lay there; what belongs to others stays where it is."""
        for block, own in zip(self._from, self.blocks, strict=True):
            if address(block) <= of < address(block) + block.size:
                return of - address(block) + address(own)
        return of


def _as_even(block: Array) -> Array:
    """Memory of the same size, which begins as far behind a multiple of 64 bytes."""
    whole = np.empty(block.size + PAGE, np.uint8)
    first = (address(block) - address(whole)) % PAGE
    return whole[first : first + block.size]


def size(images: int, needs: Needs, weights: int) -> int:
    """How many images a thread should take at a time; 0 if all threads should take all images through each layer together. needs: those of
    the pass for so many images. weights: the bytes of all that it reads besides."""
    at_once = min(MOST, ROOM // max(1, needs.size // images))
    if weights > WEIGHTS or not needs.size or at_once < LEAST:
        return 0
    rounds = -(-images // (at_once * threads.number()))  # of which each thread has as many
    each = -(-images // (rounds * threads.number()))
    return each if each >= LEAST else 0


def expect() -> None:
    """In a rehearsal, notes what a recorded pass for predictions may call besides the loops of its layers."""
    if rehearsing():
        in_chunks()


def record(
    function: Callable[[Array], Sequence[Array]], x: Array, each: int, outside: Outside
) -> tuple[list[Array] | None, Pass | None, str]:
    """As `replay.record`, but the pass takes `each` images at a time. function makes one output, each image's from this image alone."""
    part = x[:each]
    _, needs = once(function, part)
    in_chunks.prepare()
    made = Recording(needs, 1)
    results, why = recorded(made, function, part, len(x) / each)
    if not why and threads.number() * sum(block.size for block in made.blocks()) > MOST_BYTES:
        why = "too large"
    if why:
        return None, None, why
    try:
        found = Chunks(made, part, results, outside, len(x))
    except LookupError as error:
        return None, None, str(error)
    whole = [array.copy() for array in function(x)]
    why = tried(found, x, whole, [])
    return whole, None if why else found, why
