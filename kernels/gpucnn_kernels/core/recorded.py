"""Recorded graphs whose kernels keep the priorities of the streams on which they were recorded.

A recording notes the priority of each kernel. CuPy instantiates graphs without the flag for it, and then all kernels have the priority of
the stream that a graph is launched on ("CUDA Runtime API", cudaGraphInstantiate).
"""

from __future__ import annotations

import contextlib
from typing import Any


class Prioritized:
    """A CuPy graph, instantiated once more. RuntimeError if the driver refuses."""

    def __init__(self, graph: Any) -> None:
        from cuda.bindings import driver  # not at the top: it is missing where kernels are simulated

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
        with contextlib.suppress(Exception):  # at the end of a program the driver may be gone before
            if self._made is not None:
                self._driver.cuGraphExecDestroy(self._made)
