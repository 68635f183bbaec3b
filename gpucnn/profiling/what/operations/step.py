"""The operations of a training step around the model: batches, losses, counters and updates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from gpucnn.ops.augment import Augment
from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Arguments, Operation, Rule, times
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats, ints
from gpucnn.profiling.what.work import Work

PART = 1 << 16  # parameters in the update that is checked


def _of_bytes(a: Arguments, *names: str) -> int:
    return sum(int(a[name].nbytes) for name in names)


def _gather(a: Arguments) -> Work:
    """An example is read in the data set's type and written in the step's; bytes are divided by 255."""
    images, x = a["images"], a["x"]
    labels = 2 * _of_bytes(a, "targets")
    order = int(x.shape[0]) * int(a["order"].itemsize)
    return Work(int(x.size) if images.dtype == "uint8" else 0, int(x.size) * int(images.itemsize) + _of_bytes(a, "x") + labels + order)


def _tally(a: Arguments) -> Work:
    """Reads a row of the table and writes the rates; reads and writes counters and sums. Some additions."""
    return Work(10, 2 * _of_bytes(a, "counters", "sums") + _of_bytes(a, "rates") * 2 + 8)


def _cross_entropy(a: Arguments) -> Work:
    n, k = map(int, a["logits"].shape)
    return work.softmax_cross_entropy(n, k, of_classes=a["labels"].ndim == 1)


def _dense_cross_entropy(a: Arguments) -> Work:
    """Both, without writing the logits to memory and reading them back; and the gradient of the inputs, which is written."""
    (n, c), k = map(int, a["x"].shape), int(a["weight"].shape[0])
    layer, loss = work.dense(n, c, k, bias=a["bias"] is not None), work.softmax_cross_entropy(n, k)
    both = Work(layer.flops + loss.flops, layer.least_bytes + loss.least_bytes - 2 * 4 * n * k + 8 * n - 8)
    return both + Work(work.dense_input_grad(n, c, k).flops, 4 * n * c) if a["input_grad"] else both


def _sgd(a: Arguments) -> Work:
    """p −= rate·g, after g += decay·p and v = momentum·v + g."""
    momentum, decay = a["velocity"] is not None, bool(a["weight_decay"])
    return work.elementwise(int(a["parameters"].size), 2 + 2 * momentum + 2 * decay, 3 + 2 * momentum)


def _update(*arrays: str) -> Rule:
    return Rule(("parameters", "gradients", *arrays), first=True, most=PART, written=("parameters",))


def losses(n: int, k: int) -> Callable[[Ops], None]:
    """Every loss, on n rows of k; classes are numbers."""

    def run(ops: Ops) -> None:
        x = floats(n, k)
        ops.softmax_cross_entropy(x, ints(n))
        ops.dense_cross_entropy(floats(n, 256), floats(k, 256), floats(k), ints(n))
        ops.binary_cross_entropy(x, x)
        ops.mean_squared_error(x, x)
        ops.root_mean_squared_error(x, x)
        ops.hinge(x, x)

    return run


def batches(dtype: str, side: int, *, rows: bool = False, augment: Augment | None = None) -> Callable[[Ops], None]:
    """The examples of a step, of a data set of square images; labels are classes, or rows of probabilities."""

    def run(ops: Ops) -> None:
        images = np.empty((1000, 1, side, side), dtype)
        labels, targets = (floats(1000, 10), floats(128, 10)) if rows else (ints(1000), ints(128))
        x = floats(128, 1, side, side)
        ops.gather_batch(images, labels, ints(1000), ints(2), x, targets, batch_size=128, augment=augment)

    return run


def updates(ops: Ops) -> None:
    """The counters of a step, the order of an epoch, and updates."""
    rates, counters, flat = floats(4), ints(6), floats(1 << 20)
    ops.sgd_update(flat, flat, flat, rates=rates, momentum=0.9)
    ops.adam_update(flat, flat, flat, flat, rates=rates)
    ops.clip_norm(flat, 1.0)
    ops.tally(floats(), ints(), 128, floats(100, 3), rates, counters, floats(2))
    ops.tally(floats(128), ints(128), 128, floats(100, 3), rates, counters, floats(2))
    ops.permutation(ints(60000), 0, 0)


def _samples() -> Iterator[Sample]:
    yield Sample("", updates)
    yield Sample("512x10", losses(512, 10))
    yield Sample("512x1000", losses(512, 1000))
    yield Sample("512x10-rows", lambda ops: ops.softmax_cross_entropy(floats(512, 10), floats(512, 10)))
    yield Sample("512x1000-rows", lambda ops: ops.softmax_cross_entropy(floats(512, 1000), floats(512, 1000)))
    changes = {
        "move": Augment(shift=1),
        "cutout": Augment(cutout=1),
        "warp": Augment(scale=0.1),
        "elastic": Augment(elastic=1.0),
        "all": Augment(1, 1.0, 0.1, 1.0, True, 2, 1.0),
    }
    for dtype in ("uint8", "float32"):
        for side, rows in itertools.product((28, 27), (False, True)):
            yield Sample(f"{dtype}-{side}x{side}{'-rows' if rows else ''}", batches(dtype, side, rows=rows))
        for name, augment in changes.items():
            yield Sample(f"{dtype}-{name}", batches(dtype, 28, augment=augment))


OPERATIONS = {
    "gather_batch": Operation("batch", _gather, Rule(written=("x", "targets"), exact=True), sizes=lambda a: times(a["x"].shape)),
    "permutation": Operation("batch", lambda a: work.elementwise(int(a["order"].size), 0, 1), Rule(written=("order",), exact=True)),
    "softmax_cross_entropy": Operation("loss", _cross_entropy, Rule()),
    "dense_cross_entropy": Operation(
        "loss",
        _dense_cross_entropy,
        Rule(),
        sizes=lambda a: f"{times(a['x'].shape)} → {a['weight'].shape[0]}",
    ),
    # For each number the logarithm of 1 + e^−|z|, a product, a maximum, two sums; for the gradient σ and a difference.
    "binary_cross_entropy": Operation("loss", lambda a: work.elementwise(int(a["logits"].size), 9, 3), Rule()),
    # A difference, its square, the sum; and twice the difference.
    "hinge": Operation("loss", lambda a: work.elementwise(int(a["y"].size), 4, 3), Rule()),
    # The gradient is written, then divided by the root.
    "root_mean_squared_error": Operation("loss", lambda a: work.elementwise(int(a["y"].size), 5, 5), Rule()),
    "mean_squared_error": Operation("loss", lambda a: work.elementwise(int(a["y"].size), 4, 3), Rule()),
    "tally": Operation("loss", _tally, Rule(written=("rates", "counters", "sums"), exact=True), sizes=lambda a: ""),
    # A square and a sum; where the norm is too large, a product, and the array is read again and written.
    "clip_norm": Operation(
        "update",
        lambda a: work.elementwise(int(a["gradients"].size), 3, 3),
        Rule(terms=lambda a: int(a["gradients"].size), written=("gradients",)),
    ),
    "sgd_update": Operation("update", _sgd, _update("velocity")),
    # Four arrays are read and three written; 14 operations, weight decay not counted.
    "adam_update": Operation("update", lambda a: work.elementwise(int(a["parameters"].size), 14, 7), _update("mean", "variance")),
}
SAMPLES = tuple(_samples())
