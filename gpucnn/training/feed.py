"""Where a step's batches come from: the host, a batch at a time, or a data set that lies on the device.

Where several ranks share a batch, `part` says which slice of it is this one's (team.py): only that is copied, or made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any, Protocol

from gpucnn.data.augment import device_augment, on_device
from gpucnn.device import Device, to_numpy
from gpucnn.layers.base import Array
from gpucnn.ops.augment import Augment
from gpucnn.ops.shapes import LIMIT
from gpucnn.training.graph import Graphs
from gpucnn.training.team import Part


class Feed(Protocol):
    """What a training step needs of its data."""

    def epoch(self, epoch: int, start: int) -> Iterator[int]:
        """Makes the batches of an epoch ready one by one, from the step `start` on, and yields their sizes: of whole batches, whatever part
        of them is this rank's."""
        ...

    def key(self, size: int) -> Hashable:
        """What the launches of `load` depend on."""
        ...

    def load(self, size: int, position: Array) -> tuple[Array, Array]:
        """Launches whatever puts the batch into (x, labels), at addresses that stay. position (2, int32): step and epoch."""
        ...

    def labels(self, size: int) -> Array:
        """The labels of the last batch, of `size` examples."""
        ...


class HostFeed:
    """Batches that come from the host. On a GPU a batch is copied while the step before it runs."""

    def __init__(self, graphs: Graphs, batches: Any = None, part: Part | None = None) -> None:
        self.graphs = graphs
        self.batches = batches
        self.part = part
        self._x: Array = None
        self._labels: Array = None
        self._copies: dict[Hashable, _Copies] = {}

    def epoch(self, epoch: int, start: int) -> Iterator[int]:
        if self.part is None:
            for x, labels in self.batches.epoch(epoch, start):
                self.put(x, labels)
                yield len(x)
            return
        for x, labels in self.batches.epoch(epoch, start, self.part.of):
            self.put(x, labels)
            yield self.part.size

    def put(self, x: Array, labels: Array) -> None:
        """Makes a batch the next one."""
        if self.graphs.cuda is None:
            device = self.graphs.device
            self._x, self._labels = device.array(x), device.array(labels)
            return
        # Made outside of `entered`: the pool there hands out again what a recorded graph uses at every replay.
        copies = [self._copies_of(name, array) for name, array in (("x", x), ("labels", labels))]
        with self.graphs.entered():
            self._x, self._labels = (each.put(array) for each, array in zip(copies, (x, labels), strict=True))

    def key(self, size: int) -> Hashable:
        return self._x.shape, str(self._x.dtype), self._labels.shape, str(self._labels.dtype)

    def load(self, size: int, position: Array) -> tuple[Array, Array]:
        return self._x, self._labels

    def labels(self, size: int) -> Array:
        return self._labels

    def _copies_of(self, name: str, array: Array) -> _Copies:
        key = name, array.shape, str(array.dtype)
        if key not in self._copies:
            self._copies[key] = _Copies(self.graphs.device, array.shape, array.dtype)
        return self._copies[key]


class _Copies:
    """Arrays of one shape on their way to the device, on a stream of their own.

    The host writes one to memory that cannot be paged out, from which the chip fetches it by itself. Two are under way at a time. Where
    the step reads them there is but one place, because a graph knows it by its address: so what has arrived is copied there, on the chip.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: Any) -> None:
        cuda = device.xp.cuda
        self._cuda = cuda
        self._stream = cuda.Stream(non_blocking=True)
        self._written = [device.pinned(shape, dtype) for _ in range(2)]
        self._arrived = [device.xp.empty(shape, dtype) for _ in range(2)]
        self._batch = device.xp.empty(shape, dtype)
        self._fetched, self._used = ([cuda.Event(disable_timing=True) for _ in range(2)] for _ in range(2))
        self._turn = 0
        # What had this memory before may still be using it on the stream that is current here; the step waits for `_fetched` after that.
        self._stream.wait_event(cuda.get_current_stream().record())

    def put(self, array: Array) -> Array:
        """The array where the step reads it, as soon as the current stream gets there."""
        turn = self._turn = 1 - self._turn
        step = self._cuda.get_current_stream()
        self._fetched[turn].synchronize()  # the one before the last has left the host's memory
        self._written[turn][...] = to_numpy(array)
        self._stream.wait_event(self._used[turn])  # and has been copied to the step's batch
        self._arrived[turn].set(self._written[turn], stream=self._stream)
        self._fetched[turn].record(self._stream)
        step.wait_event(self._fetched[turn])
        self._batch[...] = self._arrived[turn]
        self._used[turn].record(step)
        return self._batch


class DeviceFeed:
    """A data set that lies on the device, as uint8 or float32: order, batches and augmentation are made there, inside the step."""

    def __init__(self, graphs: Graphs, batches: Any, augment: Augment | None, part: Part | None = None) -> None:
        device = graphs.device
        self.graphs = graphs
        self.batches = batches
        self.part = part
        self._augment = augment
        self._images, self._labels = device.array(batches.images), device.array(batches.labels)
        self._order = device.xp.arange(len(batches.images), dtype="int32")
        size = min(batches.batch_size, len(batches.images))
        size = size if part is None else -(-size // part.ranks.size)
        self._x = device.xp.empty((size, *self._images.shape[1:]), "float32")
        self._targets = device.xp.empty((size, *self._labels.shape[1:]), self._labels.dtype)

    def epoch(self, epoch: int, start: int) -> Iterator[int]:
        batches, count = self.batches, len(self._images)
        if batches.shuffle:
            with self.graphs.entered():
                self.graphs.device.ops.permutation(self._order, batches.seed, epoch)
        for step in range(start, batches.steps_per_epoch):
            size = min(batches.batch_size, count - step * batches.batch_size)
            if self.part is not None:
                self.part.of(size)
            yield size

    def key(self, size: int) -> Hashable:
        return size

    def load(self, size: int, position: Array) -> tuple[Array, Array]:
        batches, count = self.batches, self._count(size)
        x, targets = self._x[:count], self._targets[:count]
        before = {} if self.part is None else {"first": self.part.first}
        self.graphs.device.ops.gather_batch(
            self._images, self._labels, self._order, position, x, targets,
            batch_size=batches.batch_size, augment=self._augment, seed=batches.seed, **before,
        )  # fmt: skip
        return x, targets

    def labels(self, size: int) -> Array:
        return self._targets[: self._count(size)]

    def _count(self, size: int) -> int:
        """The examples of a batch of `size` that are this rank's."""
        if self.part is None:
            return size
        self.part.of(size)
        return max(self.part.count, 1)


def feed_for(graphs: Graphs, batches: Any, part: Part | None = None) -> Feed:
    """On a GPU a data set that takes no more than half of the free memory, has no more elements than the kernels count, and is changed at
    random by nothing but kernels, is taken there; all others come from the host. Ranks do alike, the two orders of examples differ."""
    if not hasattr(batches, "images"):  # they come from outside
        return HostFeed(graphs, batches, part)
    device, images = graphs.device, batches.images
    found: Feed | None = None
    fits = images.dtype in ("uint8", "float32") and (batches.augment is None or images.ndim == 4)
    if device.kind == "cuda" and fits and on_device(batches.augment):
        size = images.nbytes + batches.labels.nbytes
        if max(images.size, batches.labels.size) < LIMIT and size <= device.free_bytes() // 2:
            with contextlib.suppress(MemoryError):  # it may be in pieces
                found = DeviceFeed(graphs, batches, device_augment(batches.augment), part)
    if part is not None and not all(part.ranks.gather(found is not None)):
        found = None
    return found or HostFeed(graphs, batches, part)
