"""Batches supplied by the user: a generator, a list, a data loader, anything that yields pairs (x, labels)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.arrays import numbers, scaled
from gpucnn.checks import integer
from gpucnn.errors import ArgumentError, DataError
from gpucnn.text import shown

Pair = tuple[NDArray[Any], NDArray[Any]]


class Stream:
    """The batches of `source` in sequence, with the interface of `Batches`.

    source: an object that can be iterated once for every epoch (a list, a PyTorch DataLoader, a Keras Sequence), or a generator, which
    continues where it was left. steps_per_epoch: batches in an epoch; by default len(source).

    `prepared` turns a batch of the source into a checked pair; it must be set before the first epoch. Raises ArgumentError if the length of
    an epoch is unknown, DataError if the source ends before an epoch does.
    """

    shuffle = False
    augment = None

    def __init__(self, source: Iterable[Any], steps_per_epoch: int | None = None, *, seed: int = 0, batch_size: int = 32) -> None:
        self.source = _in_turn(source)
        self.once = isinstance(self.source, Iterator)
        if steps_per_epoch is None and not hasattr(source, "__len__"):
            raise ArgumentError(f"{shown(source)} has no length: give steps_per_epoch")
        self.steps_per_epoch = integer(len(source) if steps_per_epoch is None else steps_per_epoch, "steps_per_epoch", 1)  # type: ignore[arg-type]
        self.seed, self.batch_size = seed, batch_size
        self.dtype: np.dtype[Any] = np.dtype("float32")
        self.prepared: Callable[[Any, Any], Pair] | None = None
        self._begun: Iterator[Any] | None = None  # a pass over the source of which only the first batch was looked at

    def first(self) -> tuple[Any, Any]:
        """The first batch of the next epoch, which yields it again. To look at it begins no further pass over the source: a loader that
        shuffles would draw another order for it."""
        ahead = self._pass()
        pair = self._next(ahead, 0)
        self._begun = itertools.chain([pair], ahead)
        return _pair(pair)

    def examples(self, size: int) -> int:
        """The examples of an epoch whose first batch has `size`: the last has fewer where the source says so, a list or a loader with a
        `dataset`."""
        most = size * self.steps_per_epoch
        if isinstance(self.source, list | tuple):
            known = sum(len(_pair(pair)[0]) for pair in self.source[: self.steps_per_epoch])
        else:
            dataset: Any = getattr(self.source, "dataset", None)
            known = len(dataset) if hasattr(dataset, "__len__") else most
        return known if most - size < known < most else most

    @property
    def fingerprint(self) -> list[Any]:
        """The description of the data in a checkpoint; they come from outside and can be read only once."""
        return ["batches from outside", self.steps_per_epoch]

    def epoch(self, epoch: int, start: int = 0, part: Callable[[int], slice] | None = None) -> Iterator[Pair]:
        """The batches of an epoch from step `start` on; of each, the slice that `part` returns for its size."""
        assert self.prepared is not None
        source = self._pass()
        if not self.once:
            source = itertools.islice(source, start, None)
        for step in range(start, self.steps_per_epoch):
            x, labels = self.prepared(*_pair(self._next(source, step)))
            own = slice(0, len(x)) if part is None else part(len(x))
            yield scaled(x[own], self.dtype), labels[own]

    def _pass(self) -> Iterator[Any]:
        begun, self._begun = self._begun, None
        return iter(self.source) if begun is None else begun

    def _next(self, source: Iterator[Any], step: int) -> Any:
        pair = next(source, None)
        if pair is None:
            raise DataError(f"the batches ended after {step} of the {self.steps_per_epoch} steps of an epoch: give fewer steps_per_epoch")
        return pair


def gathered(source: Iterable[Any], steps: int | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """(x, labels) of all batches (or of `steps` of them), each as one array."""
    if steps is None and isinstance(source, Iterator):
        raise ArgumentError("a generator may never end: give a list, or arrays (x, y)")
    pairs = [_pair(pair) for pair in itertools.islice(_in_turn(source), steps)]
    if not pairs:
        raise DataError("there are no batches: the source is empty")
    xs, ys = zip(*pairs, strict=True)
    return np.concatenate([numbers(x, "examples") for x in xs]), np.concatenate([np.atleast_1d(numbers(y, "labels")) for y in ys])


def is_stream(x: Any) -> bool:
    """Whether `x` yields batches and is not an array of examples."""
    if hasattr(x, "shape") or isinstance(x, str | bytes) or not (hasattr(x, "__iter__") or hasattr(x, "__getitem__")):
        return False
    if isinstance(x, list | tuple):
        return bool(x) and all(isinstance(pair, tuple | list) and len(pair) == 2 and hasattr(pair[0], "shape") for pair in x[:2])
    return True


def _in_turn(source: Any) -> Any:
    """An iterable; Keras's Sequence has a length and items instead."""
    if hasattr(source, "__iter__"):
        return source
    return _Items(source)


class _Items:
    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return (self.source[index] for index in range(len(self.source)))


def _pair(pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"a batch must be a pair (x, labels), got {shown(pair)}")
    return pair[0], pair[1]
