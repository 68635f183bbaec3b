"""Which kernels are chosen, and what can say otherwise: a call, the environment, a table of what was fastest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn.profiling import tune
from gpucnn_kernels.choose import problems, select, tuned
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.core._numba import MLIR
from gpucnn_kernels.core.problem import Chip, Problem

BIG = (256, 64, 128, conv_window((32, 32), (3, 3), 1, 1))
GREY = (128, 1, 32, conv_window((28, 28), (5, 5), 1, "same"))
POOL = pool_window((28, 28), (2, 2), (2, 2), 0, 1, False)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv(select.VARIABLE, raising=False)
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path))
    tuned.forget()
    with select.for_chip(132):  # as large as an H100, whose tensor cores are for the tests that ask for them
        yield
    tuned.forget()


def test_the_rules_for_tensor_cores() -> None:
    """For Hopper's alone."""
    small = 128, 64, 32, conv_window((14, 14), (5, 5), padding="same")
    with select.for_chip(132, capability=(9, 0)):
        chosen = (
            select.choose(problems.conv2d(*BIG)),
            select.choose(problems.conv2d_input_grad(*BIG)),
            select.choose(problems.conv2d(*small)),
            select.choose(problems.conv2d_weight_grad(*BIG)),
        )
        direct = select.choose(problems.conv2d(*GREY))
    expected = ["tensor128x128", "tensor128x64", "tensor128x32", "tensor128x128"]
    assert [choice.name for choice in chosen] == expected and direct.name == "direct"
    for capability in ((8, 0), (10, 0), (12, 0)):
        with select.for_chip(132, capability=capability):
            assert select.choose(problems.conv2d(*BIG)).name == "tile128x128"


def test_a_part_of_a_batch_takes_the_kernels_of_the_whole() -> None:
    """With a workspace of its own size; where they cannot do it, it has its own."""
    n, *rest = BIG
    alone, part = problems.conv2d_weight_grad(n, *rest), problems.conv2d_weight_grad(3, *rest)
    tiny = problems.dense(1, 512, 256)
    assert select.choose(tiny).name == "plain" != select.choose(problems.dense(128, 512, 256)).name
    with select.batches_of(n):
        assert select.choose(alone).slices == select.choose(part).slices > 1
        assert select.choose(part).variant is select.choose(alone).variant
        assert select.choose(part).workspace == select.choose(part).variant.workspace(part, select.choose(part).slices)
    with select.batches_of(128):
        assert select.choose(tiny).variant is select.choose(problems.dense(128, 512, 256)).variant
        with select.override(dense="plain"):
            assert select.choose(tiny).name == "plain"
    narrow = select.choose(problems.dense(128, 256, 10))
    with select.batches_of(128):
        assert select.choose(problems.dense(16, 256, 10)).variant is narrow.variant
    assert select.choose(tiny).name == "plain"

    def even(problem: Problem, chip: Chip) -> bool:
        return problem.n % 2 == 0

    picky = replace(select.choose(problems.dense(128, 512, 256)).variant, name="even", fits=even)
    assert select._as_in(select.choice(picky, alone), tiny.depth, tiny, select.current_chip(), None).name == "plain"


@pytest.mark.skipif(MLIR, reason="numba-cuda-mlir has no instructions of ours")
def test_a_part_of_a_batch_with_short_sums_takes_the_kernels_of_the_whole() -> None:
    """The gradient of the weight of one image has 121 terms, too few for tensor cores by itself."""
    whole, part = (problems.conv2d_weight_grad(n, 64, 64, conv_window((13, 13), (3, 3))) for n in (128, 1))
    with select.for_chip(132, capability=(9, 0)):
        assert select.choose(whole).name.startswith("tensor") and not select.choose(part).name.startswith("tensor")
        with select.batches_of(128):
            assert select.choose(part).variant is select.choose(whole).variant


def test_the_same_problem_with_another_batch() -> None:
    window, sizes = conv_window((9, 8), (3, 2), 2, 1), (6, 4)
    made = [
        lambda n: problems.conv2d(n, *sizes, window, 2, False),
        lambda n: problems.conv2d_input_grad(n, *sizes, window, 2),
        lambda n: problems.conv2d_weight_grad(n, *sizes, window),
        lambda n: problems.conv2d_relu_max_pool2d(n, *sizes, window, POOL, 2),
        lambda n: problems.conv2d_relu_max_pool2d_weight_grad(n, *sizes, window, POOL),
        lambda n: problems.locally_connected2d(n, *sizes, window),
        lambda n: problems.locally_connected2d_input_grad(n, *sizes, window),
        lambda n: problems.locally_connected2d_weight_grad(n, *sizes, window),
        lambda n: problems.dense(n, *sizes),
        lambda n: problems.dense_input_grad(n, *sizes),
        lambda n: problems.dense_weight_grad(n, *sizes),
    ]
    for make in made:
        assert problems.of_batch(make(5), 128) == make(128) != make(5)
    assert {make(1).operation for make in made} == set(VARIANTS)


def test_the_rules() -> None:
    assert select.choose(problems.conv2d(1, 3, 8, conv_window((5, 5), (3, 3)))).name == "plain"  # tiny
    assert select.choose(problems.conv2d(*BIG)).name == "tile128x128"
    assert select.choose(problems.conv2d_weight_grad(*BIG)).slices > 1
    assert select.choose(problems.conv2d(*GREY)).name == select.choose(problems.conv2d_weight_grad(*GREY)).name == "direct"
    assert select.choose(problems.conv2d_input_grad(*GREY)).name == "direct"
    assert select.choose(problems.conv2d_relu_max_pool2d(*GREY, POOL)).name == "direct"
    assert select.choose(problems.conv2d_relu_max_pool2d(*BIG, pool_window((32, 32), (2, 2), (2, 2), 0, 1, False))).name == "plain"
    pooled = *GREY, POOL
    assert select.choose(problems.conv2d_relu_max_pool2d_weight_grad(*pooled)).name == "direct"
    assert select.choose(problems.dense(128, 5408, 256)).slices > 1
    assert select.choose(problems.dense(1, 1, 1)).name == "plain"
    depthwise = 128, 64, 64, conv_window((64, 64), (3, 3)), 64
    for problem in (problems.conv2d, problems.conv2d_input_grad, problems.conv2d_weight_grad):
        assert select.choose(problem(*depthwise)).name == "depthwise"


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_tiles_go_before_plain_kernels_though_most_of_them_is_padding(capability: tuple[int, int]) -> None:
    """For a layer with 1 to 3 filters; and for few results, each of which would be a long sum by one thread."""
    with select.for_chip(132, capability=capability):
        for filters, kernel, side in ((1, 1, 256), (2, 1, 256), (3, 3, 64)):
            sizes = 32, 64, filters, conv_window((side, side), kernel, 1, kernel // 2)
            for make in (problems.conv2d, problems.conv2d_input_grad, problems.conv2d_weight_grad):
                assert select.choose(make(*sizes)).name.startswith(("tile", "tensor")), (make, filters)
        last = 32, 512, 1, conv_window((4, 4), (4, 4))
        assert problems.conv2d(*last).fmas < 1 << 20 and select.choose(problems.conv2d(*last)).name != "plain"
        assert select.choose(problems.conv2d(2, 8, 8, last[-1])).name == "plain"


@pytest.mark.parametrize("capability", [(0, 0), (8, 0), (9, 0)])
def test_first_layers_of_large_images(capability: tuple[int, int]) -> None:
    """Forward always directly. The gradient of the weight of few taps too, but not of many: each block of it has only four filters."""
    small = [GREY, (128, 1, 32, conv_window((26, 26), (3, 3))), (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1))]
    large = [(64, 3, 64, conv_window((224, 224), (3, 3), 1, 1)), (8, 1, 64, conv_window((512, 512), (3, 3), 1, 1))]
    wide = [(64, 3, 64, conv_window((224, 224), (7, 7), 2, 3)), (64, 3, 96, conv_window((224, 224), (11, 11), 4, 2))]
    with select.for_chip(132, capability=capability):
        for sizes in (*small, *large, *wide):
            assert select.choose(problems.conv2d(*sizes)).name == "direct"
        for sizes in (*small, *large):
            assert select.choose(problems.conv2d_weight_grad(*sizes)).name == "direct"
        for sizes in wide:
            assert select.choose(problems.conv2d_weight_grad(*sizes)).name.startswith("tile")


@pytest.mark.parametrize(("filters", "narrow"), [(1, True), (32, True), (33, False), (64, False), (65, True), (96, True), (97, False)])
def test_a_tile_of_32_where_one_of_64_would_be_half_padding(filters: int, narrow: bool) -> None:
    """Of columns forward and for the gradient of the input, of rows for that of the weight."""
    window = conv_window((28, 28), (3, 3), 1, 1)
    given = problems.conv2d(128, 64, filters, window), problems.conv2d_input_grad(128, filters, 64, window)
    for problem, name in (
        (given[0], "tile128x32"),
        (given[1], "tile128x32"),
        (problems.conv2d_weight_grad(128, 64, filters, window), "tile32x64"),
    ):
        assert (name in select.variants(problem)) == narrow
    grouped = problems.conv2d(128, 64, 2 * filters, window, 2)
    assert ("tile128x32" in select.variants(grouped)) == narrow
    if filters in (32, 96):
        with select.for_chip(108, capability=(8, 0)):
            assert {select.choose(problem).name for problem in given} == {"tile128x32"}
    if filters == 32:
        assert select.choose(problems.conv2d_weight_grad(128, 64, filters, window)).name == "tile32x64"
        with select.for_chip(132, capability=(9, 0)):
            short = problems.conv2d(128, 16, filters, conv_window((28, 28), 1))
            assert [select.choose(problem).name for problem in (*given, short)] == ["tensor128x32", "tensor128x32", "tile128x32"]


def test_fewer_multiprocessors_want_fewer_slices() -> None:
    with select.for_chip(40):
        few = select.choose(problems.dense(128, 5408, 256))
    assert 1 <= few.slices < select.choose(problems.dense(128, 5408, 256)).slices


def test_what_is_said_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(select.VARIABLE, "dense=tile64x64, conv2d=plain")
    assert select.choose(problems.dense(1, 1, 1)).name == "tile64x64"
    assert select.choose(problems.conv2d(*BIG)).name == "plain"
    with select.override(conv2d="tile128x64"):
        assert select.choose(problems.conv2d(*BIG)).name == "tile128x64"
        with select.override({"conv2d": "plain"}):
            assert select.choose(problems.conv2d(*BIG)).name == "plain"
        assert select.choose(problems.dense(1, 1, 1)).name == "tile64x64"
    assert select.choose(problems.conv2d(*BIG)).name == "plain"
    assert select.choose(problems.conv2d(*BIG), "tile64x64").name == "tile64x64"


def test_a_variant_that_cannot_do_a_shape_is_passed_over() -> None:
    with select.override(conv2d="direct"):
        assert select.choose(problems.conv2d(*GREY)).name == "direct"
        assert select.choose(problems.conv2d(*BIG)).name == "tile128x128"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("dense", "'dense': write operation=variant"),
        ("dense=fast", "unknown variant 'fast' of dense: the variants are narrow, plain, tile128x128"),
        ("dense=direct", "unknown variant 'direct' of dense"),
        ("gemm=plain", "unknown operation 'gemm': the operations with variants are conv2d,"),
    ],
)
def test_variants_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, error: str) -> None:
    monkeypatch.setenv(select.VARIABLE, text)
    with pytest.raises(ValueError, match=error):
        select.choose(problems.dense(1, 1, 1))
    monkeypatch.delenv(select.VARIABLE)
    if "=" in text:
        operation, _, variant = text.partition("=")
        with pytest.raises(ValueError, match=error), select.override({operation: variant}):
            pass


def test_a_table_of_what_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, conv = problems.dense(128, 5408, 256), problems.conv2d(*BIG)
    entries = {dense.key: {"variant": "tile64x64", "slices": 3}, conv.key: {"variant": "direct", "slices": 1}}
    file = tune.write("NVIDIA H200", entries, {"driver": "580"})
    assert file.name == "nvidia-h200.json" and json.loads(file.read_text())["driver"] == "580"
    with select.for_chip(132, "NVIDIA H200"):
        found = select.choose(problems.dense(128, 5408, 256))
        assert (found.name, found.slices) == ("tile64x64", 3)
        assert select.choose(problems.conv2d(*BIG)).name == "tile128x128"  # direct is for few channels: a table for other kernels
        with select.override(dense="plain"):
            assert select.choose(problems.dense(128, 5408, 256)).name == "plain"
    with select.for_chip(132, "another"):
        assert select.choose(problems.dense(128, 5408, 256)).slices != 3
    tune.write("NVIDIA H200", {dense.key: {"variant": "plain", "slices": 1}}, {})  # what was there stays
    assert tuned.read(file) == {dense.key: ("plain", 1), conv.key: ("direct", 1)}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "entries": {}}',
        '{"version": 1, "entries": {"a": {"variant": 1, "slices": 1}}}',
        '{"version": 1, "entries": {"a": {"variant": "plain", "slices": 0}}}',
        '{"version": 1, "entries": {"a": []}}',
    ],
)
def test_a_broken_table_is_passed_over_with_a_warning(text: str, tmp_path: Path) -> None:
    (tmp_path / "chip.json").write_text(text)
    with select.for_chip(132, "chip"), pytest.warns(UserWarning, match=r"chip\.json is passed over .*gpucnn tune"):
        assert select.choose(problems.conv2d(*BIG)).name == "tile128x128"


def test_where_tables_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(tuned.VARIABLE, "")
    assert tuned.path("chip") is None and tuned.lookup("chip", "key") is None
    with pytest.raises(OSError, match="set GPUCNN_TUNED"):
        tune.write("chip", {}, {})
    monkeypatch.delenv(tuned.VARIABLE)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuned.path("Tesla T4") == tmp_path / "gpucnn" / "tuned" / "tesla-t4.json"
