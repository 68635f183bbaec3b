"""What a training step takes in memory: worked out from sizes, held against what NumPy allocates."""

from __future__ import annotations

import dataclasses
import io
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import get_device
from gpucnn.errors import DeviceMemoryError, TrainingError
from gpucnn.memory import of_step, on_cpu
from gpucnn.text import bytes_text
from gpucnn.training.feed import HostFeed
from gpucnn.training.step import TrainingStep

LAYERS: dict[str, Any] = {
    "convolutions": lambda: (gc.Conv2D(4, 3, activation="relu"), gc.Conv2D(5, 3, activation="relu"), gc.Flatten(), gc.Dense(3)),
    "pooling": lambda: (gc.Conv2D(4, 3, activation="relu"), gc.MaxPool2D(2), gc.AvgPool2D(2), gc.Flatten(), gc.Dense(3)),
    "apart": lambda: (gc.Conv2D(4, 3), gc.MaxPool2D(2), gc.ReLU(), gc.Flatten(), gc.Dense(9, activation="sigmoid"), gc.Dropout(0.5)),
}


@pytest.mark.parametrize("name", [*LAYERS, "keras", "tf2", "lenet5x5"])
def test_what_is_kept_is_what_numpy_holds_between_forward_and_backward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn_loops.threads.number", lambda: 1)  # a second thread may make its scratch memory at any time
    model = gc.Sequential(*LAYERS[name]()) if name in LAYERS else gc.network(name)
    model.build((1, 28, 28), device="cpu")
    x = np.random.default_rng(0).random((16, 1, 28, 28), np.float32)
    model.forward(x, training=True)  # whatever is made once
    for stage in model.chain.stages:
        stage.forget()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = model.forward(x, training=True)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    kept = 4 * 16 * sum(of_step(model.chain.stages).kept) - x.nbytes  # the batch was there before
    last = model.chain.stages[-1]
    kept += 0 if last.ends_in_relu or model.layers[-1].activation else y.nbytes  # and the output is ours
    assert abs(held - kept) < 20_000, (held, kept)  # Python's own objects


def test_the_most_at_one_time_is_counted_by_hand() -> None:
    model = gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(3)).build((1, 6, 6), device="cpu")
    # The dense layer's backward: what both keep, dy and dx. The convolution hands no gradient down.
    assert of_step(model.chain.stages).peak == 36 + 32 + 3 + 32
    assert model.step_bytes(10) == 4 * 10 * (36 + 32 + 3 + 32)
    assert model.held_bytes == 2 * model.buffers.values.nbytes
    model.compile("adam")
    assert model.held_bytes == 4 * model.buffers.values.nbytes


def test_a_kernel_that_fails_is_an_error_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gc.network("keras").build((1, 28, 28), device="cpu").compile()
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer)
    feed = HostFeed(step.graphs)

    def load(size: int, position: Any) -> Any:
        raise RuntimeError("the kernel conv2d failed (an illegal address)\nand more")

    monkeypatch.setattr(feed, "load", load)
    feed.put(np.zeros((2, 1, 28, 28), np.float32), np.zeros(2, np.int32))
    step.begin(1)
    with pytest.raises(TrainingError, match=r"^a training step failed on CPU: the kernel conv2d failed \(an illegal address\)$"):
        step.run(feed, 2)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")])
def test_bytes_for_people(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("free", "words"), [(1 << 20, r"a batch of \d+ should fit"), (100, "not even one example fits"), (1 << 62, "use a")]
)
def test_too_little_memory_says_what_would_fit(free: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gc.network("keras").build((1, 28, 28), device="cpu").compile()
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer)
    small = dataclasses.replace(get_device("cpu"))
    monkeypatch.setattr(type(small), "free_bytes", lambda self: free)
    feed = HostFeed(step.graphs)

    def load(size: int, position: Any) -> Any:
        raise MemoryError("out of memory")

    monkeypatch.setattr(feed, "load", load)
    feed.put(np.zeros((512, 1, 28, 28), np.float32), np.zeros(512, np.int32))
    step.begin(1)
    with pytest.raises(DeviceMemoryError, match=f"too little memory for a training step of 512 examples.*{words}"):
        step.run(feed, 512)
    assert model.optimizer.steps == 0


@pytest.mark.parametrize("batch_size", [1, 32, 128])
@pytest.mark.parametrize(
    ("name", "shape"), [("keras", (1, 28, 28)), ("tf2", (1, 28, 28)), ("lenet5x5", (1, 28, 28)), ("keras", (3, 64, 64))]
)
def test_what_summary_says_is_what_a_step_takes(name: str, shape: tuple[int, ...], batch_size: int) -> None:
    """With what the operations of the CPU take for themselves, which for a large batch is half of it."""
    model = gc.network(name).build(shape, device="cpu").compile("adam")
    assert model.loss is not None and model.optimizer is not None
    x, y = np.random.default_rng(0).random((batch_size, *shape), np.float32), np.zeros(batch_size, np.int32)
    step = TrainingStep(model, model.loss, model.optimizer)
    step(x, y)  # whatever is made once
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step(x, y)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    text = io.StringIO()
    model.summary(batch_size, file=text)
    said = re.search(r"a training step takes ([\d.]+) (KiB|MiB|GiB)", text.getvalue())
    assert said is not None
    taken = float(said[1]) * {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[said[2]]
    assert 1 / 1.3 < (model.held_bytes + peak) / taken < 1.3


def test_what_the_operations_of_a_cpu_take_is_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_CPU", "numpy")
    from gpucnn.ops.cpu import conv, pool
    from gpucnn.ops.shapes import conv_window

    # 16 images in 8 pieces of 2 on one thread: little work. Unfolded 4·9 × 2·12, a result of 6 × 2·12, eight sums and a term of 6 × 2·9.
    assert conv.scratch(16, 6, 4, conv_window((6, 5), 3), 2) == (864 + 144, 864 + 144 + 108 + 8 * 108)
    # Five images are five pieces, and five sums.
    assert conv.scratch(5, 6, 4, conv_window((6, 5), 3), 1) == (432 + 72, 432 + 72 + 216 + 5 * 216)
    assert pool.scratch(1000) == 2000 and pool.scratch(1 << 30) % (2 << 18) == 0
    # Four threads and more work: 48 images in 8 pieces of 6. Unfolded 2·9 × 6·324, a result of 3 × 6·324, weights of 3 × 2·9.
    large = conv_window((20, 20), 3)
    with monkeypatch.context() as four:
        four.setattr("gpucnn.ops.cpu._threads.threads", lambda: 4)
        assert conv.scratch(48, 3, 2, large, 1) == (4 * (34992 + 5832), 4 * (34992 + 5832 + 54) + 8 * 54)
        assert [pool.scratch(n) for n in (1 << 18, (2 << 18) + 1, 9 << 18)] == [2 << 18, 2 * 3 << 18, 2 * 4 << 18]
        four.delenv("GPUCNN_CPU")
        assert pool.scratch(1000) == 0  # loops need none
        # Loops: for each thread an image of a group's channels and 240 outputs of its filters, all outputs backward; a sum for 8 images.
        assert conv.scratch(100, 3, 2, large, 1) == (4 * (2 * 400 + 3 * 240), 4 * (2 * 400 + 3 * 324) + 8 * 54)
        assert conv.scratch(16, 6, 4, conv_window((6, 5), 3), 2) == (2 * 30 + 3 * 12, 2 * 30 + 3 * 12 + 2 * 108)
        assert conv.scratch(7, 6, 4, conv_window((6, 5), 3), 1)[1] == 4 * 30 + 6 * 12 + 216
        assert {type(number) for number in conv.scratch(16, 6, 4, conv_window((6, 5), 3), 2)} == {int}
    model = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.MaxPool2D(2)).build((1, 6, 6), device="cpu")
    ahead, back = conv.scratch(3, 2, 1, conv_window((6, 6), 3), 1)
    # The convolution's output lies between: 2·16 in either direction, besides what is kept (x, y, indices) and dy.
    assert on_cpu(model.chain.stages, 3) == 3 * (36 + 8 + 8 + 32 + 8) + max(back, pool.scratch(3 * 32))
    assert ahead < back
