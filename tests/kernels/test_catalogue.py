"""The catalogue: samples that launch every kernel, each under a name of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gpucnn.device import simulated
from gpucnn.ops import cuda
from gpucnn.profiling.chip import samples
from gpucnn.profiling.chip.chips import find
from gpucnn.profiling.what.operations import OPERATIONS
from gpucnn_kernels.choose import select
from gpucnn_kernels.choose.variants import VARIANTS

pytestmark = pytest.mark.skipif(simulated(), reason="the simulator knows no types")


def test_names_are_different() -> None:
    counts = Counter(each.name for each in samples.kernels(find("H100")))
    assert max(counts.values()) == 1, counts.most_common(3)


def test_every_operation_is_in_a_sample() -> None:
    called = {each.call.op for sample in samples.SAMPLES for each in samples.launched(sample, find("H100")) if each.call}
    assert called == set(cuda.__all__) == set(OPERATIONS)


def test_every_variant_is_launched() -> None:
    called: dict[str, set[str]] = {}
    real = select.override

    def seen(chosen: Any) -> Any:
        for op, variant in chosen.items():
            called.setdefault(op, set()).add(variant.name)
        return real(chosen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "override", seen)
        samples.kernels(find("H100"))
    assert called == {op: {variant.name for variant in variants} for op, variants in VARIANTS.items()}


def test_named_shapes_are_done_as_the_chip_would() -> None:
    by_chip = {}
    for chip in ("T4", "H100"):
        found = [each for sample in samples.SHAPES for each in samples.launched(sample, find(chip)) if each.sample == "c2"]
        by_chip[chip] = [each.part.name for each in found if each.part.work.flops]
    assert by_chip["H100"] == [f"{op}-tensor128x128" for op in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")]
    assert all("-tile" in name for name in by_chip["T4"]) and len(by_chip["T4"]) == 3
