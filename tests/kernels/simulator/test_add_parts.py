"""The second kernel of small gradients adds up the parts that blocks have left: few, or many, of which more threads share each number."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.device import Device, to_numpy
from gpucnn_kernels.conv.parts import ADDERS, sum_parts
from gpucnn_kernels.core.launch import recording


def in_order(values: np.ndarray, lanes: int) -> np.ndarray:
    """The sums of rows in float32: lane l adds rows l, l + lanes, …, then half of the lanes add the other half's sums to theirs."""
    sums = np.zeros((lanes, values.shape[1]), np.float32)
    for row, own in enumerate(values):
        sums[row % lanes] += own
    while len(sums) > 1:
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    return np.asarray(sums[0])


@pytest.mark.parametrize(("parts", "which"), [(1, "few"), (35, "few"), (1, "many parts"), (33, "many parts"), (131, "many parts")])
@pytest.mark.parametrize("with_bias", [False, True])
def test_parts_are_added_in_one_order(device: Device, parts: int, which: str, with_bias: bool) -> None:
    filters, weights, adders = 3, 32, ADDERS[which]
    values = np.random.default_rng(parts).standard_normal((parts, weights + filters), dtype=np.float32)
    dweight, dbias = device.xp.full(weights, np.nan, "float32"), device.xp.full(filters, np.nan, "float32")
    with recording() as launches:
        sum_parts((dweight, dbias, device.array(values.ravel())), filters, with_bias, parts, adders, 0)
    assert [launch.threads for launch in launches] == [adders[0] * adders[1]]
    expected = in_order(values, adders[1])
    np.testing.assert_array_equal(to_numpy(dweight), expected[:weights])
    np.testing.assert_array_equal(to_numpy(dbias), expected[weights:] if with_bias else np.full(filters, np.nan))
