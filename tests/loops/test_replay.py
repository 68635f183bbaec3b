"""Recorded passes: the bits of the pass that was recorded, whatever has changed since, or the pass as always."""

from __future__ import annotations

import copy
import gc as garbage
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpucnn as gc
from gpucnn.layers import replayed
from gpucnn_loops import crew, replay, threads
from gpucnn_loops.loops import loop
from gpucnn_loops.threads import address

Program = Callable[..., subprocess.CompletedProcess[str]]
Array = np.ndarray[Any, Any]


@loop("i i f* f* f")
def scaled(first, last, x, y, by):  # type: ignore[no-untyped-def]
    """y = x · by."""
    for i in range(first, last):
        y[i] = x[i] * by


def built(*layers: gc.Layer, shape: tuple[int, ...] = (3, 12, 12)) -> gc.Sequential:
    return gc.Sequential(*layers).build(shape, seed=2, device="cpu")


def small() -> gc.Sequential:
    return built(gc.Conv2D(16, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(7, activation="tanh"))


def images(n: int, rng: np.random.Generator, shape: tuple[int, ...] = (3, 12, 12)) -> Array:
    return rng.standard_normal((n, *shape), dtype=np.float32)


def as_always(model: gc.Sequential, x: Array, **options: Any) -> Array:
    """The output, without any recorded pass."""
    before, model.chain.replayed = model.chain.replayed, None
    try:
        return np.array(model.forward(x, **options))
    finally:
        model.chain.replayed = before


def record(run: Callable[[Array], Array], x: Array) -> tuple[Array, replay.Pass | None, str]:
    done, found, why = replay.record(lambda x: [run(x)], x, replay.Outside(), replay.NOT_KNOWN)
    return run(x) if done is None else done[0], found, why


def recorded(model: gc.Sequential, x: Array, **options: Any) -> replay.Pass:
    """The pass that is recorded the second time."""
    for _ in range(2):
        np.testing.assert_array_equal(model.forward(x, **options), as_always(model, x, **options))
    found = known(model)[-1]
    assert isinstance(found, replay.Pass)
    return found


def known(model: gc.Sequential) -> list[Any]:
    assert model.chain.replayed is not None
    return list(model.chain.replayed.known.values())


NETWORKS = """
import numpy as np, gpucnn as gc
from gpucnn_loops import chunks, replay
replay.WORTH_WAITING = 1
rng = np.random.default_rng(0)
for name in {names}:
    model = gc.network(name).build((1, 28, 28), seed=3, device="cpu")
    for n in {sizes}:
        for turn in range(5):
            x = rng.random((n, 1, 28, 28), dtype="float32")
            got, before = model.forward(x), model.chain.replayed
            model.chain.replayed = None
            assert (got == model.forward(x)).all(), (name, n, turn)
            model.chain.replayed = before
            model.buffers.values *= 0.9
            model.buffers.saved += 0.1
    assert [isinstance(each, {kind}) for each in model.chain.replayed.known.values()] == [True] * 2, name
print("the same")
"""


def check_networks(program: Program, count: str, names: tuple[str, ...], sizes: tuple[int, int], kind: str) -> None:
    """Predictions of networks have the bits of the pass as always, with other weights and images, and their passes are of a kind."""
    done = program(NETWORKS.format(names=names, sizes=sizes, kind=kind), GPUCNN_NUM_THREADS=count)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same\n"


@pytest.mark.parametrize("count", ["1", "2", "3"])
def test_the_bits_of_a_pass_as_always_with_other_weights_and_images(count: str, program: Program) -> None:
    names = ("keras", "lenet5", "lenet5x5", "alexnet", "resnet", "mobilenet")
    check_networks(program, count, names, (9, 2), "replay.Pass")


LAYERS = [
    [gc.Conv2D(8, 5, stride=2, padding="same", groups=1), gc.BatchNorm2D(activation="relu")],
    [gc.Conv2D(6, 3, groups=3), gc.Conv2D(4, 1, activation="tanh"), gc.AvgPool2D(3, 2, padding=1)],
    [gc.DepthwiseConv2D(3, padding=1), gc.BatchNorm2D(), gc.ReLU(), gc.GlobalAvgPool2D()],
    [gc.Sigmoid(), gc.Conv2D(3, 3, activation="sigmoid"), gc.Softmax(), gc.Flatten(), gc.Dense(5), gc.Softmax()],
    [gc.MaxPool2D(3, 1), gc.BatchNorm2D(), gc.Tanh(), gc.Dropout(0.5), gc.MaxPool2D(3, 3)],
    [gc.Conv2D(16, 3, padding=1, activation="relu"), gc.MaxPool2D(3, 2)],
    [gc.Conv2D(18, 5, padding=2), gc.BatchNorm2D(), gc.Conv2D(16, 3, activation="relu"), gc.MaxPool2D(2)],
    [gc.Residual(gc.Conv2D(3, 3, padding=1), gc.BatchNorm2D(), activation="relu"), gc.Residual([gc.Conv2D(3, 1)])],
    [gc.Conv2D(5, 3), gc.ReLU(), gc.BatchNorm2D(affine=False)],
    [gc.SeparableConv2D(5, 3), gc.Flatten(), gc.Dense(33, activation="relu"), gc.Dense(3, activation="softmax")],
    [gc.Conv2D(5, 3, activation="gelu"), gc.LeakyReLU(0.2), gc.GELU(approximate=True), gc.SiLU(), gc.ELU(0.5), gc.ReLU6(), gc.HardSwish()],
]


@pytest.mark.parametrize("layers", LAYERS)
def test_layers(layers: list[gc.Layer], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "WORTH_WAITING", 1)
    model, x = built(*copy.deepcopy(layers)), images(5, rng)
    found = recorded(model, x, logits=True)
    for _ in range(3):
        x = images(5, rng)
        model.buffers.values += np.float32(0.01)
        model.buffers.saved += np.float32(0.01)
        np.testing.assert_array_equal(model.forward(x, logits=True), as_always(model, x, logits=True))
        np.testing.assert_array_equal(found(x)[0], as_always(model, x, logits=True))
    assert known(model) == [found]


def test_each_shape_has_a_pass_and_the_output_is_the_callers(rng: np.random.Generator) -> None:
    model = small()
    x, others = images(6, rng), images(3, rng)
    passes = [recorded(model, x), recorded(model, others)]
    y = model.forward(x)
    before = y.copy()
    assert model.forward(x[::-1]) is not y
    np.testing.assert_array_equal(y, before)
    y[:] = 0
    np.testing.assert_array_equal(model.forward(x), before)
    np.testing.assert_array_equal(model.predict(x, batch_size=4), before)
    assert known(model)[:2] == passes


def test_the_input_may_lie_elsewhere_or_hold_something_else(rng: np.random.Generator) -> None:
    model = small()
    x, others = images(6, rng), images(6, rng)
    found = recorded(model, x)
    first, second = model.forward(x), model.forward(others)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(model.forward(x), first)
    x[...] = others
    np.testing.assert_array_equal(model.forward(x), second)
    assert known(model) == [found]


def test_evaluating_is_a_pass_for_predictions(rng: np.random.Generator) -> None:
    model, x, labels = small(), images(6, rng), np.arange(6) % 7
    model.compile("sgd")
    found = [model.evaluate(x, labels) for _ in range(4)]
    assert len(set(found)) == 1
    assert [type(each) for each in known(model)] == [replay.Pass]


def test_an_image_that_is_not_finite_goes_the_direct_road(rng: np.random.Generator) -> None:
    model = built(gc.Conv2D(16, 3), gc.Conv2D(16, 3, activation="relu"), gc.Conv2D(16, 3))
    x = images(4, rng)
    found = recorded(model, x)
    x[1, 2, 3, 4] = np.inf
    assert found(x) is None
    got = model.forward(x)
    np.testing.assert_array_equal(got, as_always(model, x))
    assert np.isfinite(got[[0, 2, 3]]).all() and np.isfinite(got[1]).any() and not np.isfinite(got[1]).all()
    other = built(gc.Conv2D(16, 3), gc.Conv2D(16, 3, activation="relu"))
    for _ in range(3):
        np.testing.assert_array_equal(other.forward(x), as_always(other, x))
    assert [type(each) for each in known(other)] == [replay.Needs]  # until there are images that say what a pass does
    recorded(other, images(4, rng))


def test_what_is_set_on_a_layer_counts(rng: np.random.Generator) -> None:
    model = built(gc.Residual(gc.Conv2D(3, 1), gc.BatchNorm2D()), gc.Conv2D(4, 3, activation="relu"))
    x = images(4, rng)
    recorded(model, x)
    model["residual_1.batchnorm2d_1"].eps = 3.0  # type: ignore[attr-defined]
    assert known(model) == []
    recorded(model, x)
    called: list[int] = []
    layer = model["conv2d_1"]
    forward = layer._forward
    layer._forward = lambda *given: called.append(1) or forward(*given)  # type: ignore[method-assign, func-returns-value]
    for _ in range(4):
        model.forward(x)
    assert len(called) == 4


def test_a_class_of_ones_own_is_run(rng: np.random.Generator) -> None:
    class Twice(gc.Dense):
        def _forward(self, x: Array, training: bool) -> Array:
            self.calls = getattr(self, "calls", 0) + 1
            return np.asarray(2 * super()._forward(x, training))

    model, x = built(gc.Flatten(), gc.Dense(5), Twice(4), gc.Dense(3)), images(2, rng)
    for _ in range(4):
        np.testing.assert_array_equal(model.forward(x), as_always(model, x))
    assert model.layers[2].calls == 8  # type: ignore[attr-defined]


def test_training_and_freezing_between(rng: np.random.Generator) -> None:
    model, x, labels = small(), images(8, rng), np.arange(8) % 7
    model.compile(gc.SGD(0.1))
    recorded(model, x)
    for _ in range(2):
        model.train_on_batch(x, labels)
        np.testing.assert_array_equal(model.forward(x), as_always(model, x))
    model["dense_1"].trainable = False
    model["dense_1"].weight.value *= 2  # type: ignore[attr-defined]
    for _ in range(3):
        np.testing.assert_array_equal(model.forward(x), as_always(model, x))
    twin = copy.deepcopy(model)
    twin["dense_1"].weight.value *= 2  # type: ignore[attr-defined]
    for each in (twin, model):
        recorded(each, x)
    assert (model.forward(x) != twin.forward(x)).any()


def test_a_pass_that_touches_what_may_not_last_is_not_kept() -> None:
    x = np.arange(8, dtype=np.float32)

    def run(x: Array) -> Array:
        between, y = np.empty(8, np.float32), threads.empty((8,))
        scaled(0, 8, address(x), address(between), 2.0)
        scaled(0, 8, address(between), address(y), 2.0)
        return y

    y, found, why = record(run, x)
    assert found is None and "may not last" in why
    np.testing.assert_array_equal(y, 4 * x)


def test_a_pass_whose_result_is_not_made_by_loops_is_not_kept() -> None:
    x = np.arange(8, dtype=np.float32)

    def run(x: Array) -> Array:
        between = threads.empty((8,))
        scaled(0, 8, address(x), address(between), 2.0)
        return between + 1

    y, found, why = record(run, x)
    assert found is None and "memory of its own" in why
    np.testing.assert_array_equal(y, 2 * x + 1)


@pytest.mark.parametrize("by", ["loops", "NumPy"])
@pytest.mark.parametrize("kind", ["written", "counted"])
def test_what_a_pass_does_to_arrays_outside(kind: str, by: str) -> None:
    """It is as one pass leaves it when the pass has been recorded, and after that each pass does it once more, if loops do it. If NumPy
    does, it is as it was before, and the pass has to run as always."""
    x, kept = np.arange(8, dtype=np.float32), np.full(8, 3, np.float32)

    def run(x: Array) -> list[Array]:
        y, source = threads.empty((8,)), x if kind == "written" else kept
        scaled(0, 8, address(x), address(y), 2.0)
        if by == "loops":
            scaled(0, 8, address(source), address(kept), 5.0)
        else:
            kept[...] = source * 5
        return [y]

    results, found, why = replay.record(run, x, replay.Outside(**{kind: [kept]}), replay.NOT_KNOWN)
    if by == "NumPy":
        assert results is None and found is None and "something besides loops" in why
        if kind == "counted":
            np.testing.assert_array_equal(kept, 3)
        return
    assert results is not None and found is not None
    np.testing.assert_array_equal(results[0], 2 * x)
    np.testing.assert_array_equal(kept, 5 * x if kind == "written" else 15)
    for turn in range(1, 3):
        kept[...] = kept if kind == "counted" else np.nan
        (y,) = found(x + turn)
        np.testing.assert_array_equal(y, 2 * (x + turn))
        np.testing.assert_array_equal(kept, 5 * (x + turn) if kind == "written" else 15 * 5**turn)


def test_a_pass_may_read_from_the_middle_of_what_lasts() -> None:
    x, kept = np.zeros(8, np.float32), np.arange(16, dtype=np.float32)
    place = threads.lasting(kept)

    def run(x: Array) -> Array:
        y = threads.empty((8,))
        scaled(0, 8, place + 4 * 8, address(y), 2.0)
        return y

    y, found, _ = record(run, x)
    assert found is not None
    np.testing.assert_array_equal(found(x)[0], 2 * kept[8:])
    np.testing.assert_array_equal(y, 2 * kept[8:])
    del kept
    garbage.collect()
    assert threads.owner_of(place + 4 * 8) is not None  # the pass keeps it


def test_a_pass_with_numpy_in_it_is_not_kept() -> None:
    x = np.arange(8, dtype=np.float32)

    def run(x: Array) -> Array:
        between, y = threads.empty((8,)), threads.empty((8,))
        between[...] = 5 + x
        scaled(0, 8, address(between), address(y), 2.0)
        return y

    y, found, why = record(run, x)
    assert found is None and "something besides loops" in why
    np.testing.assert_array_equal(y, 10 + 2 * x)


@pytest.mark.parametrize("limit", ["MOST_WORK", "MOST_BYTES"])
def test_a_large_pass_is_not_kept(limit: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, limit, 100)
    model, x = small(), images(3, rng)
    for _ in range(3):
        np.testing.assert_array_equal(model.forward(x), as_always(model, x))
    assert known(model) == [replayed.UNFIT]


@given(st.sampled_from([0, 4096, 1 << 24]), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_memory_that_is_lent_belongs_to_one_array(size: int, asked: list[tuple[int, int]]) -> None:
    """size: of the first room. asked: how many numbers, and which of the arrays before is given back then."""
    memory, arrays = replay._Memory(size), []
    for turn, (count, back) in enumerate(asked):
        arrays.append((turn, memory.empty((count,), np.float32)))
        arrays[-1][1].fill(turn)
        assert all((each == number).all() for number, each in arrays)
        assert all(address(each) % replay.PAGE == 0 for _, each in arrays if each.size)
        assert sum(each.size for each in memory.used()) >= sum(each.nbytes for _, each in arrays)
        if back < len(arrays):
            del arrays[back]
    del arrays
    memory.settle()
    assert sorted(memory._gaps) == sorted((address(room), address(room) + room.size) for room in memory.rooms)


def test_a_pass_holds_what_is_there_at_once(rng: np.random.Generator) -> None:
    """The sizes go down, as they do in a network."""
    x = rng.standard_normal(1 << 16, dtype=np.float32)

    def run(x: Array) -> Array:
        for _ in range(8):
            y, half = threads.empty((len(x),)), threads.empty((len(x) // 2,))
            scaled(0, len(x), address(x), address(y), 2.0)
            scaled(0, len(half), address(y), address(half), 2.0)
            x = half
            del y
        return x

    y, found, _ = record(run, x)
    assert found is not None
    np.testing.assert_array_equal(found(x)[0], 4.0**8 * x[: len(y)])
    assert found.bytes == 1.5 * x.nbytes  # the first two


def test_a_system_that_does_not_give_so_much_at_once(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_BYTES", 1 << 60)
    recorded(small(), images(3, rng))


def test_the_oldest_passes_make_room(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = small(), small()
    first = recorded(one, images(3, rng))
    monkeypatch.setattr(replayed, "MOST_BYTES", int(2.5 * first.bytes))
    recorded(one, images(2, rng))
    recorded(other, images(3, rng))
    assert [type(each) for each in known(one)] == [replay.Pass]
    del one
    garbage.collect()
    recorded(other, images(2, rng))
    assert [type(each) for each in known(other)] == [replay.Pass] * 2


def test_shapes_are_forgotten(rng: np.random.Generator) -> None:
    model = small()
    for n in range(1, 40):
        model.forward(images(n, rng))
    assert len(known(model)) <= replayed.SHAPES
    assert known(model)[-1] is replay.NOT_KNOWN  # it has run as always
    recorded(model, images(40, rng))


def test_threads_that_are_busy_leave_the_pass_to_be_run_as_always(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_number", 3)
    monkeypatch.setattr(replay, "WORTH_WAITING", 1)
    model, x = small(), images(6, rng)
    found = recorded(model, x)
    monkeypatch.setattr(crew, "_worker", lambda: None)
    assert found(x) is None
    np.testing.assert_array_equal(model.forward(x), as_always(model, x))


def test_several_threads_of_a_program(rng: np.random.Generator) -> None:
    model, x = small(), images(6, rng)
    recorded(model, x)
    expected, wrong = as_always(model, x), []

    def ask() -> None:
        for _ in range(200):
            if not (model.forward(x) == expected).all():
                wrong.append(1)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


FOUR_THREADS = """
import numpy as np, gpucnn as gc
from gpucnn_loops import replay
replay.WORTH_WAITING = 1
x = np.random.default_rng(0).random((32, 1, 28, 28), dtype="float32")
model = gc.network("lenet5").build((1, 28, 28), device="cpu")
before = [model.forward(x) for _ in range(3)][0]
assert isinstance(*model.chain.replayed.known.values(), replay.Pass)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process(program: Program) -> None:
    text = (
        FOUR_THREADS
        + """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
(found,) = model.chain.replayed.known.values()
found.lock.acquire()  # as another thread would have it
child = os.fork()
if not child:
    os._exit(0 if (found(x)[0] == before).all() else 1)
found.lock.release()
print(os.waitpid(child, 0)[1], (found(x)[0] == before).all())
"""
    )
    done = program(text, GPUCNN_NUM_THREADS="4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "True"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent with os.kill")
def test_ctrl_c_is_heard_between_passes(program: Program) -> None:
    text = (
        FOUR_THREADS
        + """
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(5):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        while time.monotonic() - began < 60:
            model.forward(x)
    except KeyboardInterrupt:
        (found,) = model.chain.replayed.known.values()
        print("heard", (found(x)[0] == before).all())
"""
    )
    done = program(text, GPUCNN_NUM_THREADS="4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["heard", "True"] * 5


def test_ctrl_c_between_handing_over_and_waking(program: Program) -> None:
    """The other thread has its note and sleeps: it is woken, for the caller's note waits for it."""
    text = (
        FOUR_THREADS
        + """
import time
from gpucnn_loops import crew
(found,) = model.chain.replayed.known.values()
wake, called = crew.Worker.wake, []
def interrupted(self):
    called.append(1)
    if len(called) == 1:
        raise KeyboardInterrupt
    wake(self)
crew.Worker.wake = interrupted
while any(worker.awake for worker in crew.workers()):
    time.sleep(0.01)
try:
    found(x)
except KeyboardInterrupt:
    print("heard", len(called) > 1, (found(x)[0] == before).all())
"""
    )
    done = program(text, GPUCNN_NUM_THREADS="4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["heard", "True", "True"]


def test_numpy_alone_records_nothing(program: Program) -> None:
    text = """
import numpy as np, gpucnn as gc
model = gc.network("keras").build((1, 28, 28), device="cpu")
x = np.zeros((3, 1, 28, 28), "float32")
print(len({model.forward(x).tobytes() for _ in range(4)}), model.chain.replayed.known)
"""
    done = program(text, GPUCNN_CPU="numpy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "{}"]
