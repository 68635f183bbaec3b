"""Batch normalization. A channel's statistics need the whole batch, so a check cannot use a part of it."""

from __future__ import annotations

from collections.abc import Callable

from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Arguments, Operation, Rule
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats
from gpucnn.profiling.what.work import Work


def _on(array: str, operations: int, arrays: int) -> Callable[[Arguments], Work]:
    return lambda a: work.elementwise(int(a[array].size), operations, arrays)


def normalized(ops: Ops) -> None:
    """Batch normalization of images, in training and for predictions, and its gradient."""
    x, each = floats(64, 32, 28, 28), floats(32)
    y, mean, rstd = ops.batch_norm(x, each, each, (each, floats(32)), momentum=0.1, eps=1e-5, relu=True)
    ops.batch_norm_apply(x, each, each, (mean, rstd), eps=1e-5)
    ops.batch_norm_grad(y, x, each, (mean, rstd), relu=True, dweight=floats(32), dbias=floats(32))


OPERATIONS = {
    # The mean needs a sum, the variance a difference and a product that is added, the result a difference and another such product.
    "batch_norm": Operation("norm", _on("x", 7, 2), Rule()),
    "batch_norm_apply": Operation("norm", _on("x", 3, 2), Rule(("x",))),
    # The sums of dy and of dy times the normalized x, and the terms of dx.
    "batch_norm_grad": Operation("norm", _on("dy", 9, 3), Rule(room=("out", "dweight", "dbias"))),
}
SAMPLES = (Sample("", normalized),)
