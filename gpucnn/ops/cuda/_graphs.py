"""Priorities in recorded graphs (gpucnn_kernels/core/recorded.py), where the driver and its bindings have them."""

from __future__ import annotations

from typing import Any

from gpucnn_kernels.core.recorded import Prioritized


def with_priorities(graph: Any) -> Any:
    """A recorded CuPy graph in which kernels keep the priorities of their streams; the graph itself if that is not possible."""
    try:
        return Prioritized(graph)
    except Exception:  # older bindings or driver: slower, and nothing else
        return graph
