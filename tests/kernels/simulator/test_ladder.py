"""Every rung of the ladder against NumPy, on tiles small enough for the simulator."""

from __future__ import annotations

import pytest
from kernel_harness import Output, double, normal

from gpucnn.device import Device
from gpucnn_kernels.engine.tiles import Tile
from ladder import gpu as ladder
from tolerances import check

TILE = Tile(16, 32, 8, 4, 8)


@pytest.mark.parametrize("sizes", [(16, 32, 8), (32, 32, 24), (16, 64, 16)], ids=str)
@pytest.mark.parametrize("rung", ladder.rungs(TILE, 8), ids=lambda rung: rung.name)
def test_product(device: Device, rung: ladder.Rung, sizes: tuple[int, int, int]) -> None:
    m, n, k = sizes
    a, b, c = normal(0, m, k), normal(1, k, n), Output(device, (m, n))
    ladder.product(rung, device.xp.asarray(a), device.xp.asarray(b), c.array)
    magnitude = abs(double(a)) @ abs(double(b))
    check(c.result(), double(a) @ double(b), magnitude=magnitude, terms=k, direction="forward")
