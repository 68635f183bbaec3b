"""Every kernel, by launches of it: named cases that run operations as users do, on arrays that are never filled, with launches written down
in place of being done. So what is compiled and shown is what the launchers launch, on the chip that kernels are chosen for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from gpucnn.device import Device
from gpucnn.ops.augment import Augment
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn.profiling.chip.chips import Chip
from gpucnn.profiling.measure import fma
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import OPERATIONS
from gpucnn.profiling.what.shapes import CONV_SHAPES, DEPTHWISE_WINDOWS, POOL_SHAPES
from gpucnn.profiling.what.work import Work
from gpucnn_kernels.choose import select
from gpucnn_kernels.core.launch import Launch, recording

Ops: TypeAlias = ModuleType  # the operations of a device


@dataclass(frozen=True)
class Sample:
    """A case: its name, and the operations that it runs. `variants`: each in all the ways that there are, and not only in the one that
    would be chosen."""

    name: str
    run: Callable[[Ops], object]
    variants: bool = True


@dataclass(frozen=True)
class Kernel:
    """A kernel, by a launch of it in a sample, and the call that launched it: None for what no operation runs."""

    sample: str
    part: Part = field(repr=False)
    call: Call | None = field(repr=False)

    @property
    def launch(self) -> Launch:
        return self.part.launch

    @property
    def name(self) -> str:
        """What it is called, and the sample that launched it: no other kernel has both."""
        return f"{self.part.name} {self.sample}".strip()


def floats(*shape: int) -> Any:
    """float32 that nobody fills: memory that is never touched takes no room."""
    return np.empty(shape, np.float32)


def ints(*shape: int) -> Any:
    """The same in int32."""
    return np.empty(shape, np.int32)


def convolutions(n: int, c: int, k: int, window: Window, groups: int = 1, *, relu: bool = True) -> Callable[[Ops], None]:
    """A convolution and both gradients, with a bias; ReLU's gradient taken along where `relu`."""

    def run(ops: Ops) -> None:
        x, weight, dy = floats(n, c, *window.input), floats(k, c // groups, *window.kernel), floats(n, k, *window.output)
        ops.conv2d(x, weight, floats(k), window, groups, relu=relu)
        ops.conv2d_input_grad(dy, weight, window, groups, relu=x if relu else None)
        ops.conv2d_weight_grad(dy, x, window, groups, dbias=floats(k))

    return run


def first_layer(n: int, c: int, k: int, window: Window, *, relu: bool = True) -> Callable[[Ops], None]:
    """A convolution with ReLU and 2 × 2 pooling, and its gradient of the weight; with ReLU's gradient taken along where `relu`."""

    def run(ops: Ops) -> None:
        pooling = pool_window(window.output, 2)
        x, y, places = floats(n, c, *window.input), floats(n, k, *pooling.output), ints(n, k, *pooling.output)
        ops.conv2d_relu_max_pool2d(x, floats(k, c, *window.kernel), floats(k), window, pooling)
        ops.conv2d_relu_max_pool2d_weight_grad(y, places, x, window, pooling, relu=y if relu else None, dbias=floats(k))

    return run


def poolings(n: int, c: int, window: Window) -> Callable[[Ops], None]:
    """Max pooling and its gradient, without ReLU's and with it; average pooling and its gradient."""

    def run(ops: Ops) -> None:
        x, y = floats(n, c, *window.input), floats(n, c, *window.output)
        ops.max_pool2d(x, window)
        for relu in (None, y):
            ops.max_pool2d_grad(y, ints(*y.shape), window, relu=relu)
        ops.avg_pool2d(x, window)
        ops.avg_pool2d_grad(y, window)

    return run


def max_pooling(n: int, c: int, window: Window) -> Callable[[Ops], None]:
    """Max pooling and its gradient."""

    def run(ops: Ops) -> None:
        _, places = ops.max_pool2d(floats(n, c, *window.input), window)
        ops.max_pool2d_grad(floats(n, c, *window.output), places, window)

    return run


def dense(n: int, c: int, k: int) -> Callable[[Ops], None]:
    """A dense layer and both gradients."""

    def run(ops: Ops) -> None:
        x, weight, dy = floats(n, c), floats(k, c), floats(n, k)
        ops.dense(x, weight, floats(k), relu=True)
        ops.dense_input_grad(dy, weight, relu=x)
        ops.dense_weight_grad(dy, x, dbias=floats(k))

    return run


def elementwise(ops: Ops) -> None:
    """Activations, dropout, updates, and what a step counts."""
    x, calls, rates, counters = floats(128, 1024), np.empty(2, np.uint32), floats(4), ints(6)
    for name in ("relu", "sigmoid", "softmax", "leaky_relu", "elu", "tanh", "silu", "gelu"):
        getattr(ops, name)(x)
        getattr(ops, f"{name}_grad")(x, x)
    ops.dropout(x, calls, 0.5, 0)
    ops.next_call(calls)
    ops.bias_grad(x)
    flat = floats(1 << 20)
    ops.sgd_update(flat, flat, flat, rates=rates, momentum=0.9)
    ops.adam_update(flat, flat, flat, flat, rates=rates)
    ops.tally(floats(), ints(), 128, floats(100, 3), rates, counters, floats(2))
    ops.permutation(ints(60000), 0, 0)
    fma.fma(floats(1), 1, 1)


def whole_planes(ops: Ops) -> None:
    """What is done to images, but for convolution and pooling of windows."""
    x, each = floats(64, 32, 28, 28), floats(32)
    y, mean, rstd = ops.batch_norm(x, each, each, (each, floats(32)), momentum=0.1, eps=1e-5, relu=True)
    ops.batch_norm_apply(x, each, each, (mean, rstd), eps=1e-5)
    ops.batch_norm_grad(y, x, each, (mean, rstd), relu=True, dweight=floats(32), dbias=floats(32))
    ops.add(x, y, relu=True)
    ops.add_bias(x, each)
    part, window = floats(64, 96, 28, 28)[:, 32:64], pool_window((28, 28), 3, 1, 1)  # of branches that write to one array
    ops.copied(x, out=part)
    _, places = ops.max_pool2d(x, window, out=part)
    ops.max_pool2d_grad(part, places, window)
    ops.avg_pool2d(x, window, out=part)
    ops.avg_pool2d_grad(part, window)
    means, (_, places) = ops.global_avg_pool2d(x), ops.global_max_pool2d(x)
    ops.global_avg_pool2d_grad(means, (28, 28))
    ops.global_max_pool2d_grad(means, places, (28, 28))
    ops.zero_pad2d_grad(ops.zero_pad2d(x, ((1, 2), (0, 3))), ((1, 2), (0, 3)))


def unshared(ops: Ops) -> None:
    """A convolution without sharing, and both gradients."""
    window = conv_window((32, 32), (8, 8), 2, 1)
    x, weight, dy = floats(64, 3, 32, 32), floats(20, 3, 8, 8, *window.output), floats(64, 20, *window.output)
    ops.locally_connected2d(x, weight, floats(20, *window.output), window, relu=True)
    ops.locally_connected2d_input_grad(dy, weight, window, relu=x)
    ops.locally_connected2d_weight_grad(dy, x, window, dbias=floats(20, *window.output))


def losses(n: int, k: int) -> Callable[[Ops], None]:
    """Every loss, on n rows of k; classes are numbers."""

    def run(ops: Ops) -> None:
        x = floats(n, k)
        ops.softmax_cross_entropy(x, ints(n))
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


def _samples() -> Iterator[Sample]:
    for pool in POOL_SHAPES:
        yield Sample(pool.name, poolings(pool.n, pool.c, pool.window))
    yield Sample("odd", poolings(64, 64, pool_window((31, 31), 2)))
    yield Sample("dilated", max_pooling(64, 64, pool_window((32, 32), 3, 2, 1, dilation=2)))
    named = {shape.name: (shape.n, shape.c, shape.k, shape.window) for shape in CONV_SHAPES}
    yield Sample("m2", convolutions(*named["m2"]))  # whole tiles; the other shapes with many channels are done by the same kernels
    for name in ("m1", "k1"):
        yield Sample(name, convolutions(*named[name]))
        yield Sample(name, first_layer(*named[name]))
        yield Sample(f"{name}-no-relu", first_layer(*named[name], relu=False))  # where the layer above has taken it along
    yield Sample("odd", convolutions(8, 20, 40, conv_window((7, 7), (3, 3), padding=1)))
    for name, window in DEPTHWISE_WINDOWS.items():
        yield Sample(name, convolutions(64, 32, 32, window, 32))
    yield Sample("even", dense(128, 1024, 512))
    yield Sample("few", dense(128, 1024, 12))
    yield Sample("odd", lambda ops: ops.dense(floats(7, 33), floats(13, 33)))
    yield Sample("", elementwise)
    yield Sample("", whole_planes)
    yield Sample("", unshared)
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


SAMPLES = tuple(_samples())
SHAPES = (  # the named shapes, done as the chip would do them
    *(Sample(shape.name, convolutions(shape.n, shape.c, shape.k, shape.window, relu=False), False) for shape in CONV_SHAPES),
    *(Sample(pool.name, max_pooling(pool.n, pool.c, pool.window), False) for pool in POOL_SHAPES),
)


def launched(sample: Sample, chip: Chip) -> list[Kernel]:
    """What a sample launches on a chip, one after the other."""
    from gpucnn.ops import cuda

    found: list[Kernel] = []
    observer = Observer()

    def add(call: Call) -> Any:
        with recording(launching=False) as launches:
            result = call.run()
        found.extend(Kernel(sample.name, part, call) for part in parts(call, launches))
        return result

    def listener(call: Call) -> Any:
        row, result = OPERATIONS[call.op], None
        if row.problem is None or not sample.variants:
            return add(call)
        for variant in select.variants(row.problem(call.arguments)):
            with select.override({call.op: variant}):
                result = add(call)
        return result

    device = observer.device(Device("cuda", chip.name, np, cuda))
    there = select.for_chip(chip.sms, capability=chip.architecture.capability)
    with there, recording(launching=False) as beside, observer.listening(listener):
        sample.run(device.ops)
    for each in beside:  # what no operation launches
        found.append(Kernel(sample.name, Part(each, each.name, Work(0, each.array_bytes)), None))
    return found


def kernels(chip: Chip) -> list[Kernel]:
    """Every kernel that there is for a chip, once each: of those that do the same the one that was launched first."""
    found: dict[Any, Kernel] = {}
    for sample in SAMPLES:
        for each in launched(sample, chip):
            launch = each.launch
            found.setdefault((id(launch.kernel), launch.signature, launch.threads, launch.shared), each)
    return list(found.values())
