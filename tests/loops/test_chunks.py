"""Passes that a thread takes some images through at a time: the bits of the pass as always, for any number of images and threads."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_replay import LAYERS, as_always, built, check_networks, images, known, recorded, small

import gpucnn as gc
from gpucnn.layers import replayed
from gpucnn_loops import chunks, crew, replay, threads
from gpucnn_loops.threads import address

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many images a thread takes at a time."""
    return lambda each: monkeypatch.setattr(chunks, "size", lambda n, needs, weights: each if each < n else 0)


@pytest.mark.parametrize("count", ["1", "2", "3"])
def test_the_bits_of_networks_as_always_with_other_weights_and_images(count: str, program: Program) -> None:
    check_networks(program, count, ("lenet5", "inception", "resnet", "mobilenet"), (19, 24), "chunks.Chunks")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("n", "each"), [(5, 1), (6, 2), (5, 3), (9, 2)])
@pytest.mark.parametrize("layers", LAYERS)
def test_layers(
    layers: list[gc.Layer],
    n: int,
    each: int,
    count: int,
    by: Callable[[int], None],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the last few images have been computed before."""
    monkeypatch.setattr(threads, "_number", count)
    by(each)
    model, x = built(*copy.deepcopy(layers)), images(n, rng)
    found = recorded(model, x, logits=True)
    assert isinstance(found, chunks.Chunks)
    for _ in range(3):
        x = images(n, rng)
        model.buffers.values += np.float32(0.01)
        model.buffers.saved += np.float32(0.01)
        np.testing.assert_array_equal(found(x)[0], as_always(model, x, logits=True))  # type: ignore[index]


def test_each_thread_has_memory_of_its_own(by: Callable[[int], None], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_number", 3)
    by(2)
    model = built(gc.Conv2D(16, 3), gc.Conv2D(16, 3, activation="relu"), gc.Conv2D(16, 3))  # with Winograd's flags
    found = recorded(model, images(8, rng))
    assert isinstance(found, chunks.Chunks) and len(found._copies) == 3
    used = []
    for own in found._copies:
        words = {int(own.words[place]) for place in found._found.places}
        used.append([index for index, block in enumerate(found.blocks) for word in words if 0 <= word - address(block) < block.size])
        assert len(set(used[-1])) >= 2
    assert not set(used[0]) & set(used[1]) and not set(used[0]) & set(used[2]) and not set(used[1]) & set(used[2])
    flags = {int(head.words[2 + 13]) for head in found._heads}
    assert len(flags) == 3 and found._found.flags.size > 0


@pytest.mark.parametrize("image", range(7))
def test_an_image_that_is_not_finite_goes_the_direct_road(
    image: int, by: Callable[[int], None], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has taken it, and whatever came after it."""
    monkeypatch.setattr(threads, "_number", 2)
    by(2)
    model = built(gc.Conv2D(16, 3), gc.Conv2D(16, 3, activation="relu"), gc.Conv2D(16, 3))
    x = images(7, rng)
    found = recorded(model, x)
    x[image, 2, 3, 4] = np.inf
    assert found(x) is None
    got = model.forward(x)
    np.testing.assert_array_equal(got, as_always(model, x))
    others = [each for each in range(7) if each != image]
    assert np.isfinite(got[others]).all() and not np.isfinite(got[image]).all()
    x = images(7, rng)
    np.testing.assert_array_equal(found(x)[0], as_always(model, x))  # type: ignore[index]


def test_threads_that_are_busy_leave_the_pass_to_be_run_as_always(
    by: Callable[[int], None], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_number", 3)
    by(2)
    model, x = small(), images(6, rng)
    found = recorded(model, x)
    with monkeypatch.context() as busy:
        busy.setattr(crew, "_worker", lambda: None)
        assert found(x) is None
        np.testing.assert_array_equal(model.forward(x), as_always(model, x))
        other = small()
        for _ in range(3):
            np.testing.assert_array_equal(other.forward(x), as_always(other, x))
        assert [type(each) for each in known(other)] == [replay.Needs]  # it is tried again
    assert isinstance(recorded(other, x), chunks.Chunks)


@pytest.mark.parametrize("limit", ["MOST_WORK", "MOST_BYTES"])
def test_a_large_pass_is_not_kept(limit: str, by: Callable[[int], None], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    by(2)
    monkeypatch.setattr(replay, limit, 100)
    if limit == "MOST_BYTES":
        monkeypatch.setattr(chunks, limit, 100)
    model, x = small(), images(6, rng)
    for _ in range(3):
        np.testing.assert_array_equal(model.forward(x), as_always(model, x))
    assert known(model) == [replayed.UNFIT]


def test_images_that_depend_on_one_another_go_together(rng: np.random.Generator) -> None:
    """Chunks of them would make something else, which is seen when the pass is tried."""
    model, x = small(), images(6, rng)

    def backwards(x: Any) -> list[Any]:
        return [model.chain.ahead[0].forward(x[::-1].copy() if len(x) == 6 else x)]

    done, found, why = chunks.record(backwards, x, 2, replay.Outside(replayed._held(replayed._parts(model.chain.ahead))))
    assert found is None and "something besides loops" in why
    np.testing.assert_array_equal(done[0], backwards(x)[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("count", "n", "each_needs", "weights", "expected"),
    [
        (2, 128, 200 << 10, 150 << 10, 10),  # seven rounds of two threads
        (2, 32, 200 << 10, 150 << 10, 8),  # two rounds
        (2, 16, 200 << 10, 150 << 10, 8),
        (2, 6, 200 << 10, 150 << 10, 0),  # too few for each thread
        (1, 6, 200 << 10, 150 << 10, 6),
        (2, 128, 1 << 10, 150 << 10, 32),  # small images
        (2, 128, 1 << 20, 150 << 10, 0),  # large ones
        (2, 128, 200 << 10, 2 << 20, 0),  # many weights
        (16, 128, 200 << 10, 150 << 10, 8),
        (2, 128, 0, 150 << 10, 0),  # not known
    ],
)
def test_how_many_images_at_a_time(
    count: int, n: int, each_needs: int, weights: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_number", count)
    assert chunks.size(n, replay.Needs(each_needs * n, {False: 0, True: 0}), weights) == expected
