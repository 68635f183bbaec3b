"""The sum over ranks in a profile: worked out for a GPU, measured on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.device import get_device
from gpucnn.errors import ArgumentError, DataError, UnknownNameError
from gpucnn.networks import network
from gpucnn.profiling import ranks, records, run
from gpucnn.profiling.chip.links import LINKS, Link, sum_over_machines, sum_seconds
from gpucnn.profiling.records import Ceilings, Profile, Step
from gpucnn.profiling.run import Options
from gpucnn.profiling.show import report
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from local_ranks import together

LINK = Link("a wire", 1e9, 1e-3, "nowhere")


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, 0.0), (2, 0.004 + 0.002), (3, 2 * 2 / 3 * 0.004 + 0.004), (8, 0.007 + 0.006), (9, 2 * 8 / 9 * 0.004 + 0.008)],
)
def test_a_sum_takes_its_bytes_and_its_messages(count: int, expected: float) -> None:
    assert sum_seconds(4_000_000, count, LINK) == pytest.approx(expected, rel=1e-12)


def test_over_machines_all_goes_through_one_link_of_each() -> None:
    fast = Link("a bus", 1e12, 0.0, "nowhere")
    assert sum_over_machines(8_000_000, 2, 4, fast, LINK) == pytest.approx(12e-6 + 0.008 + 0.002, rel=1e-12)
    assert sum_over_machines(8_000_000, 1, 4, fast, LINK) == pytest.approx(12e-6, rel=1e-12)


def test_no_ranks_take_no_time() -> None:
    with pytest.raises(ArgumentError, match="ranks must be"):
        sum_seconds(1, 0, LINK)


def profile(time: Any = None) -> Profile:
    return Profile(
        "bounds", "a model", 4, {"chip": "a chip"}, Ceilings(1e10, 1e11, 1e-6, "assumed"), [], Step(1e-3, time=time), notes=["n"]
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return network("lenet5").build((1, 28, 28), device="cpu")


def test_a_gpus_sum_is_worked_out_and_no_part_of_the_step(model: Any, tmp_path: Path) -> None:
    made = ranks.with_sum(profile(), model, 8, LINKS.pick("nvlink"))
    (row,) = made.rows
    size = model.buffers.summed.nbytes
    assert row.time is None and row.wall == "link" and row.kernel == "sum over 8 ranks by NVLink 4"
    assert row.roofline == pytest.approx(2 * 7 / 8 * size / 450e9 + 6 * 2e-6)
    assert row.bytes == size * 7 // 4 and made.step == profile().step
    assert made.notes[0] == "n" and "900 GB/s in both directions" in made.notes[1]
    assert any("sum over 8 ranks" in line for line in report.lines(made))
    records.write(made, tmp_path / "p.json")
    assert records.read(tmp_path / "p.json").rows == made.rows


def test_the_cpus_sum_is_measured_by_all_ranks_together(model: Any) -> None:
    def work(own: Any) -> tuple[Profile, int]:
        return ranks.measured_with_sum(profile(), model, own, 1e9), own.sums

    for made, sums in together(2, work):
        (row,) = made.rows
        assert row.time is not None and row.time.samples == ranks.SAMPLES and sums == ranks.SAMPLES + ranks.WARM_UP
        assert row.kernel == "sum over 2 ranks by MPI" and row.roofline == pytest.approx(3 * model.buffers.summed.nbytes / 1e9)
    assert np.asarray(model.buffers.summed).sum() == 0  # what was summed is another array


def test_a_gpus_profile_has_the_row_where_it_is_asked_for() -> None:
    work = workload.of_model("lenet5", 2, get_device("cpu"), Observer())
    assert run._with_sum(Options(), profile(), work) == profile() == run._with_sum(Options(ranks=1), profile(), work)
    assert run._with_sum(Options(ranks=4, link="100gbe"), profile(), work).rows[0].kernel == "sum over 4 ranks by 100 Gb/s Ethernet"
    assert run._with_sum(Options(ranks=4), profile(), work).rows[0].kernel == "sum over 4 ranks by NVLink 4"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (Options(ranks=0), ArgumentError, "--ranks must be"),
        (Options(link="nvlink"), DataError, "--link .* needs --ranks"),
        (Options(ranks=2, link="nvlnk"), UnknownNameError, "nvlink"),
        (Options(ranks=2, shape="2,3,8x8,2x2", op="pool"), DataError, "leave --shape and --kernels out"),
        (Options(ranks=2, kernels="all", arch="H100"), DataError, "leave --shape and --kernels out"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(options: Options, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run.make(options, lambda text: None)


def test_every_link_says_where_its_rate_is_from() -> None:
    for name, link in LINKS.items():
        assert link.rate > 0 and link.message > 0 and link.source, name
