"""The engine adds up the terms of a result one after the other, from the first depth to the last: its bits are those of NumPy's sums in
that order, whether numbers get to shared memory through registers or by asynchronous copies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from kernel_harness import COMPILED, Output, normal

from gpucnn.device import Device, simulated
from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.choose import problems
from gpucnn_kernels.conv import tiled as conv
from gpucnn_kernels.core import simulated_copies
from gpucnn_kernels.dense import tiled as dense
from gpucnn_kernels.engine.tiles import Tile
from gpucnn_kernels.local import tiled as local

SMALL = Tile(8, 8, 8, 4, 4)
N, C, K, WINDOW = 3, 9, 10, conv_window((5, 4), (2, 3), (2, 1), ((1, 0), (0, 2)))
(R, S), (P, Q) = WINDOW.kernel, WINDOW.output

Terms = Iterable[tuple[Any, Any]]


def in_order(terms: Terms) -> Any:
    """Σ a · b, term by term. A GPU rounds each sum once, the simulator the product as well."""
    total = np.float32(0)
    for a, b in terms:
        if simulated():
            total = total + a * b
        else:  # the product has 48 bits, and float64 keeps them
            total = (total.astype(np.float64) + a.astype(np.float64) * b.astype(np.float64)).astype(np.float32)
    return total


def seen(x: Any, r: int, s: int) -> Any:
    """The pixels that all positions see by a tap, (N, C, P, Q)."""
    (top, _), (left, _) = WINDOW.padding
    padded = np.pad(x, ((0, 0), (0, 0), WINDOW.padding[0], WINDOW.padding[1]))
    assert (top, left) == (1, 0)
    return padded[:, :, r : r + 2 * P - 1 : 2, s : s + Q]


def forward(device: Device) -> tuple[Any, Any]:
    x, weight = normal(1, N, C, *WINDOW.input), normal(2, K, C, R, S)
    out = Output(device, (N, K, P, Q))
    room = conv.variants("tile", SMALL, 1.0)["conv2d"].workspace(problems.conv2d(N, C, K, WINDOW), 1)
    space = device.xp.full(room, np.nan, "float32")
    conv.conv2d(device.array(x), device.array(weight), None, out.array, WINDOW, workspace=space, tile=SMALL)
    taps = itertools.product(range(R), range(S), range(C))
    return out.result(), in_order((seen(x, r, s)[:, None, c], weight[:, c, r, s, None, None]) for r, s, c in taps)


def weight_grad(device: Device) -> tuple[Any, Any]:
    x, dy = normal(1, N, C, *WINDOW.input), normal(2, N, K, P, Q)
    out = Output(device, (K, C, R, S))
    conv.conv2d_weight_grad(device.array(dy), device.array(x), out.array, WINDOW, tile=SMALL)
    pixels = np.stack([seen(x, r, s) for r, s in itertools.product(range(R), range(S))], -1).reshape(N, C, P, Q, R, S)
    positions = itertools.product(range(N), range(P), range(Q))
    return out.result(), in_order((dy[n, :, p, q, None, None, None], pixels[n, :, p, q]) for n, p, q in positions)


def dense_forward(device: Device, c: int) -> tuple[Any, Any]:
    x, weight = normal(1, 9, c), normal(2, 11, c)
    out = Output(device, (9, 11))
    dense.dense(device.array(x), device.array(weight), None, out.array, tile=SMALL)
    return out.result(), in_order((x[:, None, i], weight[:, i]) for i in range(c))


def dense_input_grad(device: Device) -> tuple[Any, Any]:
    dy, weight = normal(1, 9, 20), normal(2, 20, 12)
    out = Output(device, (9, 12))
    dense.dense_input_grad(device.array(dy), device.array(weight), out.array, tile=SMALL)
    return out.result(), in_order((dy[:, None, i], weight[i]) for i in range(20))


def dense_weight_grad(device: Device) -> tuple[Any, Any]:
    dy, x = normal(1, 19, 12), normal(2, 19, 8)
    out, sums = Output(device, (12, 8)), Output(device, (12,))
    dense.dense_weight_grad(device.array(dy), device.array(x), out.array, dbias=sums.array, tile=SMALL)
    # A row's sums: those of the even and of the odd depths of each turn, two threads'; and then both.
    even_and_odd = [in_order((dy[i], np.float32(1)) for i in range(19) if i % 2 == odd) for odd in (0, 1)]
    expected = in_order((dy[i, :, None], x[i]) for i in range(19))
    return np.column_stack([out.result(), sums.result()]), np.column_stack([expected, even_and_odd[0] + even_and_odd[1]])


def locally_connected(device: Device) -> tuple[Any, Any]:
    x, weight = normal(1, N, C, *WINDOW.input), normal(2, K, C, R, S, P, Q)
    out = Output(device, (N, K, P, Q))
    local.locally_connected2d(device.array(x), device.array(weight), None, out.array, WINDOW, tile=SMALL)
    taps = itertools.product(range(C), range(R), range(S))
    return out.result(), in_order((seen(x, r, s)[:, None, c], weight[:, c, r, s]) for c, r, s in taps)


def locally_connected_weight_grad(device: Device) -> tuple[Any, Any]:
    x, dy = normal(1, N, C, *WINDOW.input), normal(2, N, K, P, Q)
    out = Output(device, (K, C, R, S, P, Q))
    local.locally_connected2d_weight_grad(device.array(dy), device.array(x), out.array, WINDOW, tile=SMALL)
    pixels = np.stack([seen(x, r, s) for r, s in itertools.product(range(R), range(S))], 2).reshape(N, C, R, S, P, Q)
    return out.result(), in_order((dy[n, :, None, None, None], pixels[n]) for n in range(N))


WAYS: dict[str, Callable[[Device], tuple[Any, Any]]] = {
    "conv2d": forward,
    "conv2d_weight_grad": weight_grad,
    "dense by fours": lambda device: dense_forward(device, 20),
    "dense by ones": lambda device: dense_forward(device, 19),
    "dense_input_grad": dense_input_grad,
    "dense_weight_grad": dense_weight_grad,
    "locally_connected2d": locally_connected,
    "locally_connected2d_weight_grad": locally_connected_weight_grad,
}
QUICK = ("conv2d", "dense_weight_grad")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else COMPILED) for name in WAYS])
@pytest.mark.parametrize(
    "past_registers", [False, pytest.param(True, marks=pytest.mark.skipif(not simulated(), reason="a chip has one way"))]
)
def test_order(device: Device, name: str, past_registers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if simulated():
        monkeypatch.setattr(simulated_copies, "PAST_REGISTERS", [past_registers])
    got, expected = WAYS[name](device)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
