"""The memory use of a step, by buffer.

NumPy reports every array to Python's tracemalloc, whether or not it was ever filled; on a GPU, CuPy's pool is queried.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.workload import Workload


def of_step(workload: Workload, used: Callable[[], int] | None = None) -> dict[str, int]:
    """Bytes at the peak of a step: the buffers that always exist, and what forward, loss and backward add.

    `used` returns the bytes allocated on the workload's device, and is called around every operation; without it the arrays are NumPy's,
    and tracemalloc knows of each.
    """
    model = workload.model
    values = int(model.buffers.values.nbytes)
    state = model.optimizer.state.values() if model.optimizer else ()
    result = {
        "parameters": values,
        "gradients": values,
        "optimizer state": sum(int(array.nbytes) for array in state),
        "batch and labels": workload.given_bytes,
    }
    tracing = used is None and not tracemalloc.is_tracing()
    if tracing:
        tracemalloc.start()
    try:
        if used is None:
            tracemalloc.reset_peak()
        count = used or (lambda: tracemalloc.get_traced_memory()[0])
        before = peak = count()
        at_backward = 0

        def listener(call: Call) -> object:
            nonlocal at_backward, peak
            if not at_backward and call.phase == "backward":
                at_backward = count()
            returned = call.run()
            peak = max(peak, count())
            return returned

        with workload.observer.listening(listener):
            workload.step()
        peak = peak if used is not None else tracemalloc.get_traced_memory()[1]
    finally:
        if tracing:
            tracemalloc.stop()
    kept = max(0, at_backward - before)
    result["activations kept for backward"] = kept
    result["gradients on the way and workspaces"] = max(0, peak - before - kept)
    return {name: count for name, count in result.items() if count}
