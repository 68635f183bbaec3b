"""Provides a step's batches: from the host, one at a time, or from a data set on the device.

If several ranks share a batch, `part` says which slice belongs to this rank (team.py): only that slice is copied or computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any, Protocol

import numpy as np

from gpucnn.data.augment import device_augment, on_device
from gpucnn.device import Device, to_numpy
from gpucnn.layers.base import Array
from gpucnn.ops.augment import Augment
from gpucnn.ops.shapes import LIMIT
from gpucnn.training.graph import Graphs
from gpucnn.training.team import Part


class Feed(Protocol):
    """The interface of a source of batches."""

    def epoch(self, epoch: int, start: int) -> Iterator[int]:
        """Prepares the batches of an epoch one by one, from the step `start` on, and yields their sizes: those of whole batches, whatever
        this rank's part is."""
        ...

    def order(self, epoch: int) -> None:
        """Launches the work that comes before the batches of an epoch."""
        ...

    def blank(self, size: int) -> bool:
        """Prepares a batch of `size` examples for a rehearsal, if there is none yet. False if the form of the batches is not known."""
        ...

    def key(self, size: int) -> Hashable:
        """A key that is the same for calls of `load` with the same launches."""
        ...

    def load(self, size: int, position: Array) -> tuple[Array, Array]:
        """Launches the work that fills (x, labels), at fixed addresses. position (2, int32): step and epoch."""
        ...

    def labels(self, size: int) -> Array:
        """The labels of the last batch, which has `size` examples."""
        ...


class HostFeed:
    """Batches from the host. On a GPU, a batch is copied while the previous step runs."""

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
        """Sets the next batch."""
        if self.graphs.cuda is None:
            device = self.graphs.device
            self._x, self._labels = device.array(x), device.array(labels)
            return
        # Allocated outside of `entered`: the pool there would reuse memory that a recorded graph writes in every replay.
        copies = [self._copies_of(name, array) for name, array in (("x", x), ("labels", labels))]
        with self.graphs.entered():
            self._x, self._labels = (each.put(array) for each, array in zip(copies, (x, labels), strict=True))

    def order(self, epoch: int) -> None:
        pass

    def blank(self, size: int) -> bool:
        if self._x is None:
            if not hasattr(self.batches, "images"):
                return False
            self.put(np.zeros((size, *self.batches.images.shape[1:]), self.batches.dtype), self.batches.labels[:size])
        return True

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

    The host writes an array to pinned memory, from which the GPU fetches it without the CPU. Two are in flight at a time. The step reads
    from one fixed array, because a graph stores its address: arrived data is copied into it on the GPU.
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
        # The previous owner of this memory may still use it on the current stream; the step waits for `_fetched` after that.
        self._stream.wait_event(cuda.get_current_stream().record())

    def put(self, array: Array) -> Array:
        """Returns the array that the step reads, filled once the current stream gets there."""
        turn = self._turn = 1 - self._turn
        step = self._cuda.get_current_stream()
        self._fetched[turn].synchronize()  # the copy before the last has been read from pinned memory
        self._written[turn][...] = to_numpy(array)
        self._stream.wait_event(self._used[turn])  # and has been copied to the step's batch
        self._arrived[turn].set(self._written[turn], stream=self._stream)
        self._fetched[turn].record(self._stream)
        step.wait_event(self._fetched[turn])
        self._batch[...] = self._arrived[turn]
        self._used[turn].record(step)
        return self._batch


class DeviceFeed:
    """A data set held on the device, as uint8 or float32. Shuffling, batching and augmentation happen there, as part of the step."""

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
        # Zeros, because a rehearsal (ops/cuda/_ahead.py) may read them before a batch is there.
        self._x = device.xp.zeros((size, *self._images.shape[1:]), "float32")
        self._targets = device.xp.zeros((size, *self._labels.shape[1:]), self._labels.dtype)

    def epoch(self, epoch: int, start: int) -> Iterator[int]:
        batches, count = self.batches, len(self._images)
        with self.graphs.entered():
            self.order(epoch)
        for step in range(start, batches.steps_per_epoch):
            size = min(batches.batch_size, count - step * batches.batch_size)
            if self.part is not None:
                self.part.of(size)
            yield size

    def order(self, epoch: int) -> None:
        if self.batches.shuffle:
            self.graphs.device.ops.permutation(self._order, self.batches.seed, epoch)

    def blank(self, size: int) -> bool:
        return True

    def key(self, size: int) -> Hashable:
        return size

    def load(self, size: int, position: Array) -> tuple[Array, Array]:
        batches, count = self.batches, self._count(size)
        x, targets = self._x[:count], self._targets[:count]
        before = {} if self.part is None else {"first": self.part.first}
        self.graphs.device.ops.gather_batch(
            self._images,
            self._labels,
            self._order,
            position,
            x,
            targets,
            batch_size=batches.batch_size,
            augment=self._augment,
            seed=batches.seed,
            **before,
        )
        return x, targets

    def labels(self, size: int) -> Array:
        return self._targets[: self._count(size)]

    def _count(self, size: int) -> int:
        """This rank's examples in a batch of `size`."""
        if self.part is None:
            return size
        self.part.of(size)
        return max(self.part.count, 1)


def feed_for(graphs: Graphs, batches: Any, part: Part | None = None) -> Feed:
    """The feed for a data set. On a GPU, the data set is kept on the device if it needs at most half of the free memory, has few enough
    elements for the kernels, and only kernels augment it; otherwise batches come from the host. All ranks decide alike, because the two
    feeds order examples differently."""
    if not hasattr(batches, "images"):  # batches from outside
        return HostFeed(graphs, batches, part)
    device, images = graphs.device, batches.images
    found: Feed | None = None
    fits = images.dtype in ("uint8", "float32") and (batches.augment is None or images.ndim == 4)
    if device.kind == "cuda" and fits and on_device(batches.augment):
        size = images.nbytes + batches.labels.nbytes
        if max(images.size, batches.labels.size) < LIMIT and size <= device.free_bytes() // 2:
            with contextlib.suppress(MemoryError):  # free memory may be fragmented
                found = DeviceFeed(graphs, batches, device_augment(batches.augment), part)
    if part is not None and not all(part.ranks.gather(found is not None)):
        found = None
    return found or HostFeed(graphs, batches, part)
