"""CUDA graphs: launches are recorded once and then replayed.

A step of a small network is a few dozen short kernels, and launching one from Python takes longer than running it. A graph holds all
launches, with the addresses of all arrays, and is launched at once. So everything that a recorded function reads and writes must keep its
address, and values that change from run to run must be in device memory.
"""

from __future__ import annotations

import gc
import importlib
import time
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gpucnn.device import Device
from gpucnn.errors import GpucnnError
from gpucnn.layers.beside import lent
from gpucnn.text import first_line


class Branch:
    """A stream beside the graphs' own, `main`; in a graph, another branch of nodes (layers/beside.py).

    The memory pool is separate for each stream until all of its memory is returned, so arrays of one stream never overlap arrays of the
    other.
    """

    def __init__(self, cuda: Any, main: Any) -> None:
        self.stream = cuda.Stream(non_blocking=True)
        self._main = main
        # One of each is enough for all forks: waiting for an event means waiting for its most recent record at that moment.
        self._forked, self._joined = (cuda.Event(disable_timing=True) for _ in range(2))
        self._open = False  # whether work that runs apart has not been waited for

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Runs the block on the branch, after everything launched before."""
        self.stream.wait_event(self._main.record(self._forked))
        self._open = True
        with self.stream:
            yield

    def join(self) -> None:
        """Orders everything launched from now on after all work that ran apart."""
        if self._open:
            self._main.wait_event(self.stream.record(self._joined))
            self._open = False


def _main(cuda: Any) -> Any:
    """A stream whose kernels have precedence over a branch's where blocks of both are ready: backward goes on with these. (The default
    stream cannot be recorded.)"""
    try:
        return cuda.Stream(non_blocking=True, priority=-1)
    except TypeError:  # CuPy 13
        return cuda.Stream(non_blocking=True)


class Prioritized:
    """A recorded CuPy graph whose kernels keep the priorities of the streams they were recorded on. RuntimeError if the driver refuses.

    A recording notes the priority of each kernel. CuPy instantiates graphs without the flag for it, and then all kernels have the priority
    of the stream that a graph is launched on ("CUDA Runtime API", cudaGraphInstantiate). So it is instantiated once more.
    """

    def __init__(self, graph: Any) -> None:
        driver: Any = importlib.import_module("cuda.bindings.driver")
        self._driver, self._graph = driver, graph
        flag = driver.CUgraphInstantiate_flags.CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY
        error, self._made = driver.cuGraphInstantiate(driver.CUgraph(graph.graph), flag)
        if int(error):
            self._made = None
            raise RuntimeError(f"a graph with priorities was refused ({error.name})")

    def launch(self, stream: Any) -> None:
        """Launches the graph on a CuPy stream. After an error CuPy's own is launched, which reports it as CuPy does."""
        (error,) = self._driver.cuGraphLaunch(self._made, self._driver.CUstream(stream.ptr))
        if int(error):
            self._graph.launch(stream)

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of a program the driver may be gone before
            if self._made is not None:
                self._driver.cuGraphExecDestroy(self._made)


def _prioritized(graph: Any) -> Any:
    """The graph, in which kernels keep the priorities of their streams; as it is where bindings or driver do not have that."""
    try:
        return Prioritized(graph)
    except Exception:  # slower, and nothing else
        return graph


class Branches:
    """A branch for each level of nested blocks, the same in every step."""

    def __init__(self, cuda: Any, main: Any) -> None:
        self._cuda, self._main = cuda, main
        self._made: list[Branch] = []
        self._depth = 0

    @property
    def streams(self) -> list[Any]:
        """Joins all branches that were used."""
        return [branch.stream for branch in self._made]

    @contextmanager
    def another(self) -> Iterator[Branch]:
        """A branch for one block."""
        if self._depth == len(self._made):
            self._made.append(Branch(self._cuda, self._main))
        self._depth += 1
        try:
            yield self._made[self._depth - 1]
        finally:
            self._depth -= 1


def _returned(pool: Any, stream: Any) -> None:
    """Returns the free blocks of a pool to the device, once the stream is done with them. After an error of CUDA's nothing can be freed."""
    with suppress(RuntimeError):
        stream.synchronize()
        pool.free_all_blocks()


class Graphs:
    """Runs functions that do nothing but launch kernels: one graph for each key.

    The first run of a key launches the kernels one by one, which compiles them; the second run records them, later runs replay them.
    Without CUDA (NumPy), or if recording fails, they are launched one by one every time.

    Arrays made inside come from a pool of their own: memory freed in a step is reused in the same step, and after the first run nothing
    is allocated any more.
    """

    def __init__(self, device: Device, enabled: bool = True) -> None:
        self.device = device
        self.cuda: Any = getattr(device.xp, "cuda", None) if enabled else None
        self._graphs: dict[Hashable, Any] = {}
        self._known: set[Hashable] = set()
        self._apart = True  # whether a graph may have to wait for other streams
        self._records = True
        self._recording = False
        self.waited = 0.0  # total seconds spent in `wait`
        if self.cuda is not None:
            self._stream = _main(self.cuda)
            self._branches = Branches(self.cuda, self._stream)
            allocate = weakref.WeakMethod(self._allocate)  # a pool that kept the graphs alive would last until garbage is collected
            self._pool = self.cuda.MemoryPool(lambda size: allocate()(size))  # type: ignore[misc]
            weakref.finalize(self, _returned, self._pool, self._stream).atexit = False  # CuPy loses the free blocks of a pool that ends

    @property
    def recorded(self) -> int:
        """The number of graphs."""
        return len(self._graphs)

    @property
    def bytes(self) -> int:
        """Bytes of device memory in the pool of the recorded functions."""
        return 0 if self.cuda is None else int(self._pool.total_bytes())

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Runs `function`, directly or by replay. It must make the same launches whenever the key is the same."""
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
        """Makes the stream and the memory pool of the graphs current, and lends layers the branches beside that stream."""
        if self.cuda is None:
            yield
            return
        if self._apart:
            self._stream.wait_event(self.cuda.get_current_stream().record())
            self._apart = False
        with self._stream, self.cuda.using_allocator(self._pool.malloc), lent(self._branches):
            yield

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """Orders the launches in the block after all earlier ones, here and on the current stream, and before all later ones.

        Only the device waits.
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
        """Waits until all launched work is done."""
        if self.cuda is not None:
            begun = time.perf_counter()
            for stream in self._branches.streams:  # before a join, if memory ran out between fork and join
                stream.synchronize()
            self._stream.synchronize()
            self.waited += time.perf_counter() - begun
            self._apart = True

    def clear(self) -> None:
        """Drops all graphs, because the arrays that they use have moved."""
        self.wait()
        self._graphs.clear()
        self._known.clear()

    def release(self) -> None:
        """Drops all graphs and returns the memory of the recorded functions to the device, all but that of arrays that are still held."""
        self.clear()
        if self.cuda is not None:
            self._pool.free_all_blocks()

    def _allocate(self, size: int) -> Any:
        """Allocates memory for the pool. If there is none left, CuPy's own pool returns what predictions have left there. If that is not
        enough, this pool frees all its unused blocks and tries again. Recorded graphs use these blocks in every replay, so the graphs are
        dropped first."""
        try:
            try:
                return self._from_device(size)
            except self.cuda.runtime.CUDARuntimeError:
                if self._recording or not self.device.give_back():  # freeing memory would wait, and nothing can wait in a recording
                    raise
                return self._from_device(size)
        except self.cuda.runtime.CUDARuntimeError as error:
            if self._recording:  # the pool ignores errors of other kinds
                raise RuntimeError(f"there is no memory left to record in ({first_line(error)})") from None
            self.clear()
            raise

    def _from_device(self, size: int) -> Any:
        return self.cuda.MemoryPointer(self.cuda.Memory(size), 0)

    def _record(self, key: Hashable, function: Callable[[], None]) -> None:
        """Records the graph of `function`. If that fails, says so once and does not try again."""
        collecting = gc.isenabled()
        gc.disable()  # collecting an old graph or event now would abort the capture
        try:
            self._stream.begin_capture()
            self._recording = True
            try:
                function()
            finally:
                self._recording = False
                graph = self._stream.end_capture()
            self._graphs[key] = _prioritized(graph)
        except GpucnnError:
            raise
        except Exception as error:  # anything that CUDA refuses during capture
            warnings.warn(
                f"training continues without a CUDA graph, more slowly: the step could not be recorded ({first_line(error)})", stacklevel=2
            )
            self._records = False
        finally:
            if collecting:
                gc.enable()
