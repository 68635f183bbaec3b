"""Links between GPUs, and the least time of a sum over ranks on them: an estimate; nothing is measured.

A sum of S bytes over n ranks moves at least 2·(n − 1)/n·S bytes through each rank's link, in each direction, with any algorithm
(P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69, 2009; NVIDIA's nccl-tests call
it the bus bandwidth, doc/PERFORMANCE.md). A tree needs 2·⌈log₂ n⌉ messages in sequence, which are added. No real algorithm achieves both,
so this is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucnn.checks import integer
from gpucnn.names import Registry


@dataclass(frozen=True)
class Link:
    """A rank's connection to the others."""

    name: str
    rate: float  # bytes a second in each direction, from the data sheet
    message: float  # seconds until an empty message arrives: assumed, because no data sheet gives it
    source: str


LINKS: Registry[Link] = Registry("link")
LINKS.add("nvlink")(Link("NVLink 4", 450e9, 2e-6, "NVIDIA H100 SXM data sheet: 900 GB/s in both directions together"))
LINKS.add("pcie")(Link("PCI Express 5.0 ×16", 64e9, 3e-6, "NVIDIA H100 data sheets: 128 GB/s in both directions together"))
LINKS.add("100gbe")(Link("100 Gb/s Ethernet", 12.5e9, 10e-6, "its name: 100 Gb/s in each direction, nothing taken off for headers"))


def sum_seconds(size: int, ranks: int, link: Link) -> float:
    """The least time for a sum of `size` bytes over this many ranks, each on a link of its own; 0 for one."""
    integer(ranks, "ranks", 1)
    if ranks == 1:
        return 0.0
    return 2 * (ranks - 1) / ranks * size / link.rate + 2 * math.ceil(math.log2(ranks)) * link.message


def sum_over_machines(size: int, machines: int, gpus: int, inside: Link, between: Link) -> float:
    """The same if each of `machines` has `gpus` ranks with links `inside`, and one link to the other machines, which its ranks share.

    The ranks of a machine sum among themselves, in two halves with the sum over machines between them, of S bytes through each
    machine's link.
    """
    return sum_seconds(size, gpus, inside) + sum_seconds(size, machines, between)
