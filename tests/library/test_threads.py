"""Results are the same to the bit on any number of threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.ops import cpu
from gpucnn.ops.cpu import _threads
from gpucnn.ops.shapes import conv_window

PROGRAM = """
import hashlib, numpy as np
import gpucnn.functional as F
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window, pool_window
rng = np.random.default_rng(0)
make = lambda *shape: rng.normal(size=shape).astype("float32")
parts = []
for n, c, side, k, kernel in ((37, 3, 24, 16, 3), (1, 16, 20, 32, 3), (8, 64, 13, 64, 3), (5, 1, 28, 32, 5)):
    x, w, b = make(n, c, side, side), make(k, c, kernel, kernel), make(k)
    window = conv_window((side, side), kernel, 1, "same")
    y = cpu.conv2d(x, w, b, window, relu=True)
    parts += [y, cpu.conv2d_input_grad(y, w, window), cpu.conv2d_weight_grad(y, x, window), cpu.bias_grad(y)]
    pool = pool_window((side, side), 3, 2, 1)
    p, indices = cpu.max_pool2d(y, pool)
    parts += [p, indices, cpu.max_pool2d_grad(p, indices, pool), cpu.avg_pool2d(y, pool), cpu.avg_pool2d_grad(p, pool)]
x, w = make(128, 500), make(60, 500)
y = cpu.dense(x, w)
parts += [y, cpu.dense_input_grad(y, w), cpu.dense_weight_grad(y, x), cpu.dropout(y, np.array([2, 0], "uint32"), 0.5, 1)]
p, g, m, v = make(200_003), make(200_003), make(200_003), abs(make(200_003))
cpu.adam_update(p, g, m, v, rates=np.array([0.37, 18.3, 1, 1]), weight_decay=0.1)
cpu.sgd_update(p, g, m, rates=np.array([0.1, 1, 1, 1]), momentum=0.9, nesterov=True)
cpu.clip_norm(large := make(600_007), 9.0)
parts += [p, m, v, large]
print(*(hashlib.sha256(np.ascontiguousarray(part)).hexdigest()[:16] for part in parts))
"""


def digests(threads: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"GPUCNN_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    one = digests("1")
    assert len(one) == 44
    assert digests("2") == one
    assert digests("5") == one


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_threads_that_is_none_is_refused_and_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_NUM_THREADS", given)
    with pytest.raises(ValueError, match="GPUCNN_NUM_THREADS must be an integer of at least 1, got ") as caught:
        _threads.threads.__wrapped__()
    assert repr(given) in str(caught.value)


SLAB, WORTH = _threads.SLAB, _threads.WORTH_A_THREAD


@pytest.mark.parametrize("size", [1, 31, SLAB - 1, SLAB, SLAB + 1, 2 * SLAB, 3 * SLAB + 5])
def test_every_element_is_updated_once_whatever_the_size(size: int) -> None:
    parameters = np.zeros(size)
    cpu.sgd_update(parameters, np.ones(size), None, rates=np.array([0.5, 1, 1, 1]))
    np.testing.assert_array_equal(parameters, -0.5)


@pytest.fixture(params=[1, 2, 3, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """So many threads, whatever the machine has, and a pool of them."""
    pool = ThreadPoolExecutor(request.param)
    monkeypatch.setattr(_threads, "threads", lambda: request.param)
    monkeypatch.setattr(_threads, "_pool", lambda process: pool)
    yield request.param
    pool.shutdown()


@pytest.mark.parametrize("pieces", [1, 2, 4, 5, 11])
def test_pieces_are_shared_out_and_each_is_done_once(threads: int, pieces: int) -> None:
    shares: list[list[int]] = []
    _threads.share(pieces, lambda own: shares.append(list(own)), work=WORTH)
    assert sorted(piece for own in shares for piece in own) == list(range(pieces))
    assert len(shares) == min(threads, pieces) == _threads.workers_for(pieces, WORTH) == _threads.workers_for(pieces, 2 * WORTH)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("blas", [False, True])
def test_little_work_stays_where_it_is(threads: int, blas: bool) -> None:
    at: list[int] = []
    _threads.share(7, lambda own: at.extend(threading.get_ident() for _ in own), work=WORTH - 1, blas=blas)
    assert at == [threading.get_ident()] * 7
    assert _threads.workers_for(7, WORTH - 1) == 1


def test_what_goes_wrong_in_a_thread_is_raised_here(threads: int) -> None:
    def body(own: Iterable[int]) -> None:
        if 3 in own:
            raise KeyError("three")

    with pytest.raises(KeyError, match="three"):
        _threads.share(5, body, work=WORTH)


@pytest.mark.parametrize("size", [0, 1, SLAB - 1, SLAB, SLAB + 1, 4 * SLAB + 3])
def test_slabs_cover_a_buffer_with_no_overlap(threads: int, size: int) -> None:
    parts: list[slice] = []
    _threads.slabs(parts.append, size)
    edges = sorted((part.start, part.stop) for part in parts)
    assert [start for start, _ in edges] == [0, *(stop for _, stop in edges)][: len(edges)]
    assert all(0 < stop - start <= SLAB for start, stop in edges)
    assert (edges[-1][1] if edges else 0) == size


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (3, 4, 5), (40, 300, 15), (64, 512, 16), (64, 512, 33), (128, 500, 129), (300, 90, 700)]
)
def test_products_are_numpys_however_their_columns_are_shared_out(threads: int, m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m + n)
    a, b = rng.integers(-9, 9, (m, k)).astype(np.float64), rng.integers(-9, 9, (k, n)).astype(np.float64)
    out = np.full((m, n), np.nan)
    assert _threads.matmul(a, b, out) is out
    np.testing.assert_array_equal(out, a @ b)  # whole numbers: exact in any order


def test_a_piece_of_a_buffer_is_a_megabyte_of_float32(threads: int) -> None:
    parts: list[slice] = []
    _threads.slabs(parts.append, 2**19 + 1)
    assert sorted((part.start, part.stop) for part in parts) == [(0, 2**18), (2**18, 2**19), (2**19, 2**19 + 1)]


def test_loops_have_as_many_threads_as_numpy() -> None:
    assert _threads.pools.count is _threads.threads


@pytest.mark.parametrize(
    ("m", "k", "n", "pieces"),
    [
        (9001, 31, 15, 1),  # fewer columns than a piece has
        (9000, 30, 16, 1),
        (9000, 30, 31, 1),
        (9000, 30, 32, 2),
        (1024, 64, 4, 1),  # 2¹⁸ multiplications in all
        (64, 64, 127, 1),
        (64, 64, 128, 2),  # and twice as many
        (64, 64, 192, 3),
        (500, 128, 127, 7),
        (500, 128, 128, 8),
        (500, 128, 900, 8),
    ],
)
def test_a_products_columns_are_cut_into_eight_at_most_of_sixteen_columns_that_are_worth_a_thread(
    m: int, k: int, n: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, bool]] = []
    widths: list[int] = []
    out = np.full((m, n), np.nan)

    def share(count: int, body: Callable[[Iterable[int]], None], *, work: int, blas: bool = False) -> None:
        asked.append((count, work, blas))
        for piece in range(count):
            body([piece])
            widths.append(n - np.isnan(out[0]).sum() - sum(widths))

    monkeypatch.setattr(_threads, "share", share)
    monkeypatch.setattr(_threads, "WORTH_A_THREAD", 1 << 18)
    _threads.matmul(np.ones((m, k)), np.ones((k, n)), out)
    assert asked == [(pieces, m * n * k // 8, True)]
    assert sum(widths) == n and max(widths) - min(widths) <= 1


class Library:
    """As threadpoolctl shows BLAS."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.log: list[int] = []

    def get_num_threads(self) -> int:
        return self.number

    def set_num_threads(self, number: int) -> None:
        self.number = number
        self.log.append(number)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> list[Library]:
    found = [Library(4), Library(7)]
    known = SimpleNamespace(lib_controllers=found, info=lambda: [{"num_threads": library.number} for library in found])
    monkeypatch.setattr(_threads, "_blas", lambda: known)
    return found


def test_blas_has_one_thread_from_the_first_that_comes_to_the_last_that_goes(libraries: list[Library]) -> None:
    one = _threads._OneThread()
    with pytest.raises(ZeroDivisionError), one:
        assert [library.number for library in libraries] == [1, 1]
        with one:
            assert [library.number for library in libraries] == [1, 1]
        assert [library.number for library in libraries] == [1, 1]
        raise ZeroDivisionError
    assert [library.log for library in libraries] == [[1, 4], [1, 7]]
    with one:
        assert libraries[0].number == 1
    assert [library.log for library in libraries] == [[1, 4, 1, 4], [1, 7, 1, 7]]


def test_only_who_calls_blas_holds_it_to_one_thread(libraries: list[Library], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_one_thread", _threads._OneThread())
    seen: list[int] = []
    for blas in (False, True):
        _threads.share(1, lambda own: seen.append(libraries[0].number), work=1, blas=blas)
    _threads.share(1, lambda own: seen.append(libraries[0].number), work=1)
    assert seen == [4, 1, 4] and libraries[0].number == 4


def test_as_many_threads_as_asked_for_or_as_blas_takes(libraries: list[Library], monkeypatch: pytest.MonkeyPatch) -> None:
    count = _threads.threads.__wrapped__
    monkeypatch.delenv("GPUCNN_NUM_THREADS", raising=False)
    assert count() == 7
    libraries.clear()
    assert count() == (os.cpu_count() or 1)
    monkeypatch.setattr(_threads.pools, "share_of_time", lambda: 1)  # half of a core, in a container
    assert count() == 1
    for given in ("1", "3"):
        monkeypatch.setenv("GPUCNN_NUM_THREADS", given)
        assert count() == int(given)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_has_a_lock_and_a_pool_of_its_own() -> None:
    """Another thread of the parent may hold either."""
    x = np.ones(3 * SLAB, np.float32)
    cpu.relu(x)
    before = _threads._one_thread
    with before._lock:
        child = os.fork()
        if not child:
            try:
                assert _threads._one_thread is not before
                signal.alarm(20)
                cpu.relu(x)
                cpu.dense(np.ones((300, 300)), np.ones((300, 300)))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_every_operation_that_multiplies_matrices_holds_blas_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    under_way = ""

    class Counted:
        def __enter__(self) -> None:
            entered.append(under_way)

        def __exit__(self, *exception: object) -> None:
            pass

    monkeypatch.setattr(_threads, "_one_thread", Counted())
    window = conv_window((4, 4), 3)
    x, weight, dy = np.ones((2, 1, 4, 4)), np.ones((3, 1, 3, 3)), np.ones((2, 3, 2, 2))
    calls = {
        "conv2d": lambda: cpu.conv2d(x, weight, None, window),
        "conv2d_input_grad": lambda: cpu.conv2d_input_grad(dy, weight, window),
        "conv2d_weight_grad": lambda: cpu.conv2d_weight_grad(dy, x, window),
        "dense": lambda: cpu.dense(np.ones((2, 3)), np.ones((4, 3))),
        "dense_input_grad": lambda: cpu.dense_input_grad(np.ones((2, 4)), np.ones((4, 3))),
        "dense_weight_grad": lambda: cpu.dense_weight_grad(np.ones((2, 4)), np.ones((2, 3))),
    }
    for under_way, call in calls.items():  # noqa: B007 (Counted reads it)
        call()
    assert entered == list(calls)
