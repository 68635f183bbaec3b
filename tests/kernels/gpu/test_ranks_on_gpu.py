"""Ranks on a GPU, with a stand-in for NCCL: what is summed when, in a recorded step too, and parts of a batch made on the device.

No test here has NCCL itself: it takes a GPU for each rank. `test_nccl_of_one_rank` has the library where it is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from signal import SIGTERM
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.data.augment import Affine
from gpucnn.data.batches import Batches
from gpucnn.device import Device, get_device, to_numpy
from gpucnn.errors import DeviceError, MissingExtraError
from gpucnn.ops import cpu
from gpucnn.training import nccl
from gpucnn.training.feed import DeviceFeed
from gpucnn.training.nccl import NCCL
from gpucnn.training.step import VARIABLE, Totals, TrainingStep
from gpucnn.training.team import LAG, Part, Team, buckets
from local_ranks import LocalRank, _Room, together

pytestmark = pytest.mark.gpu

RANDOM = np.random.default_rng(6)
BATCH = 7
IMAGES = RANDOM.integers(0, 256, (2 * BATCH + 3, 1, 8, 8)).astype(np.uint8)
LABELS = RANDOM.integers(0, 4, len(IMAGES)).astype(np.int32)


@pytest.fixture(autouse=True)
def no_word_about_graphs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA graph")
        yield


class StandIn:
    """As cupy.cuda.nccl, for one rank of several of which the others have nothing to add: a sum leaves what is there. Notes the calls."""

    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 7, 8, 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.made: list[tuple[int, Any, int]] = []

    def get_unique_id(self) -> str:
        return "an identifier"

    def NcclCommunicator(self, size: int, identifier: Any, rank: int) -> StandIn:
        self.made.append((size, identifier, rank))
        return self

    def allReduce(self, source: int, target: int, count: int, kind: int, operation: int, stream: int) -> None:
        assert source == target and (kind, operation) == (self.NCCL_FLOAT32, self.NCCL_SUM)
        self.calls.append((source, count, stream))


class Alone(LocalRank):
    """Rank 0 of two, of which the other is not there."""

    def __init__(self) -> None:
        super().__init__(_Room(1), 0)
        self.size = 2


def model_on(device: Device) -> gc.Sequential:
    layers = (gc.Conv2D(4, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.3), gc.Dense(8), gc.Dense(4))
    return gc.Sequential(*layers).build((1, 8, 8), seed=3, device=device).compile(gc.SGD(0.05, momentum=0.9))


def normalized_on(device: Device) -> gc.Sequential:
    """With statistics of the batch that all ranks share, of images and of rows."""
    conv, dense = gc.Conv2D(4, 3, use_bias=False), gc.Dense(6, use_bias=False)
    layers = (conv, gc.BatchNorm2D(activation="relu"), gc.MaxPool2D(2), gc.Flatten(), dense, gc.BatchNorm2D(), gc.Dense(4))
    return gc.Sequential(*layers).build((1, 8, 8), seed=3, device=device).compile(gc.SGD(0.05, momentum=0.9))


MODELS = (model_on, normalized_on)


def trained(
    device: Device, ranks: Any, graphs: bool, epochs: int = 3, make: Callable[[Device], gc.Sequential] = model_on
) -> tuple[gc.Sequential, list[Totals], TrainingStep]:
    model = make(device)
    assert model.loss is not None and model.optimizer is not None
    team = Team(ranks, model) if ranks is not None else None
    step = TrainingStep(model, model.loss, model.optimizer, graphs=graphs, team=team)
    batches, part = Batches(IMAGES, LABELS, BATCH, seed=1, augment=Affine()), None if team is None else team.part
    feed = DeviceFeed(step.graphs, batches, Affine().on_device(), part)
    totals = []
    if team is not None:
        with team.at_work():
            for epoch in range(epochs):
                step.begin(batches.steps_per_epoch, epoch=epoch)
                for number, size in enumerate(feed.epoch(epoch, 0)):
                    step.ask(0)
                    step.run(feed, size)
                    assert step.told(number == batches.steps_per_epoch - 1) == 0
                totals.append(step.read())
        return model, totals, step
    for epoch in range(epochs):
        step.begin(batches.steps_per_epoch, epoch=epoch)
        for size in feed.epoch(epoch, 0):
            step.run(feed, size)
        totals.append(step.read())
    return model, totals, step


def test_sums_are_begun_from_the_back_on_a_stream_of_their_own_and_recorded_with_the_step(gpu: Device) -> None:
    library = StandIn()
    ranks = NCCL(Alone(), gpu, library)
    assert library.made == [(2, "an identifier", 0)]
    model, totals, step = trained(gpu, ranks, graphs=True)
    # Two sizes of batches, each launched once and recorded once; the third epoch replays, and calls nothing.
    plan = buckets(model)
    assert len(plan) == 2 and len(library.calls) == 2 * 2 * len(plan) and step.graphs.recorded == 2
    assert {stream for _, _, stream in library.calls} == {ranks._stream.ptr}
    assert ranks._stream.ptr != step.graphs._stream.ptr
    begin, size = model.buffers.summed.data.ptr, model.buffers.summed.size
    for call in range(0, len(library.calls), 2):
        (late, many, _), (early, few, _) = library.calls[call : call + 2]
        assert early == begin and few * 4 + early == late and few + many == size  # the back first, with the tail; together all of it
    launched, others, plain = trained(gpu, NCCL(Alone(), gpu, StandIn()), graphs=False)
    assert plain.graphs.recorded == 0
    np.testing.assert_array_equal(to_numpy(model.buffers.values), to_numpy(launched.buffers.values))
    assert totals == others and model.state() == launched.state()


def test_shared_statistics_are_summed_in_order_and_recorded_with_the_step(gpu: Device) -> None:
    """Two sums forward for each layer, and one backward, between the buckets: what the plain array operations around them do is the same
    where they are replayed."""
    library = StandIn()
    model, totals, step = trained(gpu, NCCL(Alone(), gpu, library), graphs=True, make=normalized_on)
    assert step.graphs.recorded == 2
    # The last layer by itself; mean and variance, then dweight and dbias: of the four channels, and of the six features.
    counts = [count for _, count, _ in library.calls]
    sums, size = [part.stop - part.start for _, part in buckets(model)], model.buffers.summed.size
    assert sum(sums) == size and len(counts) == 4 * (6 + len(sums))
    for first in range(0, len(counts), 6 + len(sums)):
        one = counts[first : first + 6 + len(sums)]
        assert one[:4] == [4, 4, 6, 6] and [count for count in one[4:] if count not in sums] == [12, 8]
    launched, others, _ = trained(gpu, NCCL(Alone(), gpu, StandIn()), graphs=False, make=normalized_on)
    np.testing.assert_array_equal(to_numpy(model.buffers.values), to_numpy(launched.buffers.values))
    for key, array in model.arrays.items():
        np.testing.assert_array_equal(to_numpy(array.value), to_numpy(launched.arrays[key].value))
    assert totals == others


def test_sums_that_cannot_be_recorded_are_launched(gpu: Device) -> None:
    """As by a library that refuses while a stream records: the second step of a size tries, and launches like all after it."""

    class Refusing(StandIn):
        def allReduce(self, source: int, target: int, count: int, kind: int, operation: int, stream: int) -> None:
            if gpu.xp.cuda.runtime.streamIsCapturing(stream):
                raise RuntimeError("NCCL_ERROR_INVALID_USAGE")
            super().allReduce(source, target, count, kind, operation, stream)

    library = Refusing()
    with pytest.warns(UserWarning, match=r"without a CUDA graph, more slowly: .*NCCL_ERROR_INVALID_USAGE") as said:
        model, totals, step = trained(gpu, NCCL(Alone(), gpu, library), graphs=True)
    assert len(said) == 1 and step.graphs.recorded == 0
    launched, others, _ = trained(gpu, NCCL(Alone(), gpu, (plain := StandIn())), graphs=False)
    assert [count for _, count, _ in library.calls] == [count for _, count, _ in plain.calls]
    np.testing.assert_array_equal(to_numpy(model.buffers.values), to_numpy(launched.buffers.values))
    assert totals == others


def test_a_sum_is_begun_when_backward_is_done_with_its_stage(gpu: Device) -> None:
    done: list[tuple[str, int]] = []

    class Noted(StandIn):
        def allReduce(self, *given: Any) -> None:
            super().allReduce(*given)
            done.append(("sum", self.calls[-1][1]))

    model = model_on(gpu)
    assert model.loss is not None and model.optimizer is not None
    team = Team(NCCL(Alone(), gpu, Noted()), model)
    step = TrainingStep(model, model.loss, model.optimizer, graphs=False, team=team)
    feed = DeviceFeed(step.graphs, Batches(IMAGES, LABELS, BATCH), None, team.part)
    with team.at_work():
        tell = model.chain.done
        model.chain.done = lambda index: (done.append(("stage", index)), tell(index))[0]  # type: ignore[misc]
        step.begin(1)
        step.run(feed, next(feed.epoch(0, 0)))
        step.read()
    plan = buckets(model)
    order = [
        each for stage in (4, 3, 2, 1, 0) for each in (("stage", stage), *(("sum", p.stop - p.start) for at, p in plan if at == stage))
    ]
    assert done == order and plan[0][0] > plan[-1][0] == 0


def test_buckets_cover_the_buffer_from_the_back(gpu: Device) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(4)).build((1, 8, 8), device=gpu)
    assert buckets(model) == [(1, slice(0, model.buffers.summed.size))]  # one stage that is trained
    model = gc.Sequential(*(gc.Conv2D(3, 3) for _ in range(3)), gc.Flatten(), gc.Dense(40), gc.Dense(4)).build((1, 12, 12), device=gpu)
    plan = buckets(model)
    assert [part.stop for _, part in plan] == [model.buffers.summed.size, *(part.start for _, part in plan[:-1])]
    assert plan[-1][1].start == 0 and [stage for stage, _ in plan] == sorted((stage for stage, _ in plan), reverse=True)
    assert 2 * (plan[0][1].stop - plan[0][1].start) >= model.buffers.values.size


class Summing(StandIn):
    """Sums for real, through the host: ranks are threads. A step can then not be recorded."""

    def __init__(self, ranks: LocalRank, device: Device) -> None:
        super().__init__()
        self.ranks, self.xp = ranks, device.xp

    def allReduce(self, source: int, target: int, count: int, kind: int, operation: int, stream: int) -> None:
        super().allReduce(source, target, count, kind, operation, stream)
        self.xp.cuda.runtime.streamSynchronize(stream)
        memory = self.xp.cuda.UnownedMemory(source, 4 * count, self)
        array = self.xp.ndarray(count, "float32", self.xp.cuda.MemoryPointer(memory, 0))
        host = array.get()
        self.ranks.sum(host)
        array.set(host)
        self.xp.cuda.runtime.deviceSynchronize()


@pytest.mark.parametrize(
    ("size", "make"), [(2, model_on), (2, normalized_on), *(pytest.param(3, m, marks=pytest.mark.slow) for m in MODELS)]
)
def test_ranks_on_a_gpu_train_as_one_does(
    size: int, make: Callable[[Device], gc.Sequential], gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    monkeypatch.setattr(nccl, "one_each", lambda ranks, device: None)  # all have the one that is here
    one, expected, _ = trained(gpu, None, graphs=False, epochs=2, make=make)

    def work(ranks: Any) -> tuple[np.ndarray[Any, Any], list[Totals], Any]:
        model, totals, _ = trained(gpu, NCCL(ranks, gpu, Summing(ranks, gpu)), graphs=False, epochs=2, make=make)
        return to_numpy(model.buffers.values), totals, model.state()

    found = together(size, work)
    for values, totals, state in found:
        np.testing.assert_array_equal(values, found[0][0])
        np.testing.assert_allclose(values, to_numpy(one.buffers.values), rtol=1e-5, atol=1e-5)
        assert state == one.state()
        for total, other in zip(totals, expected, strict=True):
            assert total.correct == other.correct and total.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_a_signal_is_told_some_steps_later_and_at_the_end_of_an_epoch_at_once(last: bool, gpu: Device) -> None:
    model = model_on(gpu)
    assert model.loss is not None and model.optimizer is not None
    team = Team(NCCL(Alone(), gpu, StandIn()), model)
    step = TrainingStep(model, model.loss, model.optimizer, team=team)
    feed = DeviceFeed(step.graphs, Batches(IMAGES, LABELS, len(IMAGES)), None, team.part)
    told = []
    with team.at_work():
        step.begin(8)
        for number in range(6):
            step.ask(SIGTERM if number == 2 else 0)
            step.run(feed, next(feed.epoch(0, 0)))
            told.append(step.told(last))
    assert told == ([0, 0, SIGTERM] if last else [0, 0, *[0] * LAG, SIGTERM]) + [SIGTERM] * (3 if last else 3 - LAG)


def test_parts_made_on_the_device_are_those_of_the_whole_batch(gpu: Device) -> None:
    batches = Batches(IMAGES, LABELS, BATCH, seed=1, augment=Affine())
    step = TrainingStep(model_on(gpu), gc.losses.get_loss("categorical_crossentropy"), gc.SGD(), graphs=False)
    whole = DeviceFeed(step.graphs, batches, Affine().on_device())
    for rank in range(3):
        ranks = Alone()
        ranks.rank, ranks.size = rank, 3
        own = DeviceFeed(step.graphs, batches, Affine().on_device(), Part(ranks))
        position = gpu.array([0, 1], "int32")
        for number, (size, other) in enumerate(zip(whole.epoch(1, 0), own.epoch(1, 0), strict=True)):
            position[0] = number
            x, labels = (to_numpy(array).copy() for array in whole.load(size, position))
            part_x, part_labels = (to_numpy(array) for array in own.load(other, position))
            place = slice(size * rank // 3, size * (rank + 1) // 3)
            np.testing.assert_array_equal(part_x, x[place])
            np.testing.assert_array_equal(part_labels, labels[place])


@pytest.mark.parametrize("before", [0, 1, 2, 3, 4, 9, 2**34 + 5])
@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_the_kernel_drops_in_a_part_what_the_whole_would_drop(before: int, size: int, device: Device) -> None:
    calls = np.array([5, 1], np.uint32)
    x = RANDOM.normal(size=size).astype(np.float32)
    found = device.ops.dropout(device.array(x), device.array(calls), 0.5, 77, first=before)
    np.testing.assert_array_equal(to_numpy(found), cpu.dropout(x, calls, 0.5, 77, first=before))


def test_arrays_of_the_host_go_through_mpi(gpu: Device) -> None:
    class Host(Alone):
        def sum(self, array: Any) -> None:
            array += 1

    library, array = StandIn(), np.zeros(3, np.float32)
    NCCL(Host(), gpu, library).sum(array)
    assert array.tolist() == [1, 1, 1] and not library.calls


def test_a_missing_nccl_is_named(gpu: Device) -> None:
    if gpu.nccl() is not None:
        pytest.skip("NCCL is installed")
    with pytest.raises(MissingExtraError, match=r"ranks on GPUs need NCCL: pip install -e .*\[nccl1[23]\]"):
        NCCL(Alone(), gpu)


def test_two_ranks_on_one_gpu_are_refused(gpu: Device) -> None:
    class Same(Alone):
        def gather(self, value: Any) -> list[Any]:
            return [("a", "0000:01:00.0"), ("b", "0000:01:00.0"), ("a", "0000:02:00.0"), ("a", "0000:01:00.0")]

    with pytest.raises(DeviceError, match=r"ranks 0, 3 on a have the same GPU \(0000:01:00.0\)"):
        NCCL(Same(), gpu, StandIn())


def test_nccl_of_one_rank(gpu: Device) -> None:
    """The library itself, where a GPU is at hand: the calls have the arguments that it takes, launched and recorded."""
    library = gpu.nccl()
    if library is None or gpu.name.startswith("virtual "):
        pytest.skip("needs NCCL and a GPU that is one")
    ranks = Alone()
    ranks.size = 1
    model, totals, step = trained(gpu, NCCL(ranks, gpu, library), graphs=True)
    one, expected, _ = trained(get_device("cuda"), None, graphs=True)
    assert step.graphs.recorded == 2
    np.testing.assert_array_equal(to_numpy(model.buffers.values), to_numpy(one.buffers.values))
    assert totals == expected
