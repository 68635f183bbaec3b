"""gpucnn tune where there is no GPU: what it says."""

from __future__ import annotations

from typing import Any

import pytest

from gpucnn.device import why_no_cuda


@pytest.mark.skipif(why_no_cuda() is None, reason="there is a GPU")
@pytest.mark.parametrize("options", [(), ("--forget",), ("--model", "tf2", "--batch-size", "64")])
def test_without_a_gpu_it_says_what_is_missing(gpucnn: Any, options: tuple[str, ...]) -> None:
    result = gpucnn("tune", *options)
    assert result.out == ""
    assert "there is no GPU to tune (" in result.sentence and "run tune on a machine that has one" in result.sentence
    assert '"auto"' not in result.sentence, "tune has no --device"


def test_help_names_the_networks(gpucnn: Any) -> None:
    result = gpucnn("tune", "--help")
    assert result.status == 0 and "keras, tf2, lenet5x5" in result.out


@pytest.mark.parametrize(("options", "words"), [(("--batch-size", "many"), "'many' is not an integer"), (("--modell", "x"), "--modell")])
def test_bad_options_are_refused(gpucnn: Any, options: tuple[str, ...], words: str) -> None:
    result = gpucnn("tune", *options)
    assert result.status == 2 and words in result.err
