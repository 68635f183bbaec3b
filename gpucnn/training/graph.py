"""Launches recorded once and replayed: a CUDA graph.

A step of a small network is a few dozen short kernels, and launching one from Python takes longer than running it. A graph holds the
launches, with the addresses of all arrays, and is launched as one. So everything that such a function reads and writes must stay where it
is, and what changes from one run to the next must be in the memory of the device.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from gpucnn.device import Device
from gpucnn.errors import GpucnnError
from gpucnn.text import first_line


class Graphs:
    """Runs functions that do nothing but launch kernels: one graph for each key.

    A key's first run launches the kernels one by one, which compiles them; the second records, and from then on they are replayed. Where
    there is nothing to record with (NumPy), or recording fails, they are launched one by one every time.

    Arrays that such functions make come from a pool that nobody else uses: what is freed inside a step serves the rest of it, and after
    the first run nothing is allocated any more.
    """

    def __init__(self, device: Device, enabled: bool = True) -> None:
        self.device = device
        self.cuda: Any = getattr(device.xp, "cuda", None) if enabled else None
        self._graphs: dict[Hashable, Any] = {}
        self._known: set[Hashable] = set()
        self._apart = True  # whether other streams may have work that a graph has to wait for
        self._records = True
        self._recording = False
        self.waited = 0.0  # seconds that `wait` has taken, all together
        if self.cuda is not None:
            self._stream = self.cuda.Stream(non_blocking=True)  # the default stream cannot be recorded
            self._pool = self.cuda.MemoryPool(self._allocate)

    @property
    def recorded(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    @property
    def bytes(self) -> int:
        """What the functions' own arrays take, in the memory of the device."""
        return 0 if self.cuda is None else int(self._pool.total_bytes())

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Does what `function` does, whose launches must be the same for the same key."""
        if self.cuda is None:
            function()
            return
        with self.entered():
            if key in self._known and key not in self._graphs and self._records:
                self._record(key, function)
            if key in self._graphs:
                self._graphs[key].launch(self._stream)
            else:
                function()
                self._known.add(key)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """On the stream and with the pool of the graphs."""
        if self.cuda is None:
            yield
            return
        if self._apart:
            self._stream.wait_event(self.cuda.get_current_stream().record())
            self._apart = False
        with self._stream, self.cuda.using_allocator(self._pool.malloc):
            yield

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """What is launched in the block comes after all that was launched before, here and on the current stream, and before what will be.

        Nobody waits for it but the device.
        """
        if self.cuda is None:
            yield
            return
        outside = self.cuda.get_current_stream()
        self._stream.wait_event(outside.record())
        try:
            with self._stream:
                yield
        finally:
            outside.wait_event(self._stream.record())

    def wait(self) -> None:
        """Until everything that was launched has been done."""
        if self.cuda is not None:
            begun = time.perf_counter()
            self._stream.synchronize()
            self.waited += time.perf_counter() - begun
            self._apart = True

    def clear(self) -> None:
        """Forgets all graphs: what they read and write is no longer where it was."""
        self.wait()
        self._graphs.clear()
        self._known.clear()

    def _allocate(self, size: int) -> Any:
        """New memory for the pool. Where there is none left the pool gives back to the device whatever is free between two runs, and tries
        again; but recorded graphs use that at every replay: so they go first."""
        try:
            return self.cuda.MemoryPointer(self.cuda.Memory(size), 0)
        except self.cuda.runtime.CUDARuntimeError as error:
            if self._recording:  # nothing can be waited for now; the pool takes no notice of an error of another kind
                raise RuntimeError(f"there is no memory left to record in ({first_line(error)})") from None
            self.clear()
            raise

    def _record(self, key: Hashable, function: Callable[[], None]) -> None:
        """Makes the graph of `function`. Where it cannot be had that is said, and not tried again."""
        collecting = gc.isenabled()
        gc.disable()  # an old graph or event that is collected now would break the recording off
        try:
            self._stream.begin_capture()
            self._recording = True
            try:
                function()
            finally:
                self._recording = False
                graph = self._stream.end_capture()
            self._graphs[key] = graph
        except GpucnnError:
            raise
        except Exception as error:  # whatever CUDA refuses inside a recording
            warnings.warn(
                f"training goes on without a CUDA graph, and slower: it could not be recorded ({first_line(error)})", stacklevel=2
            )
            self._records = False
        finally:
            if collecting:
                gc.enable()
