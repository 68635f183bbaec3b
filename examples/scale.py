"""An estimate of how far data parallelism would scale, from measured steps of one GPU and the data rates of links.

    python examples/scale.py [--write docs/scale.md] [--check]

Prints the tables of docs/scale.md; --write puts them between its markers, --check writes nothing, and ends with 2 where other ones stand
there. Steps are from kernels/measured, links from gpucnn/profiling/chip/links.py. No run on more than one GPU is behind any of these
figures.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from measured_tables import CHIP, Refused, read, table

from gpucnn.networks import network
from gpucnn.profiling.chip.links import LINKS, sum_over_machines

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "scale.md"
NETWORKS = ("keras", "tf2", "lenet5x5")  # those that were measured, on images of 28×28
RANKS = (2, 8, 64, 512)
GPUS = 8  # of a machine
BACKWARD = 2 / 3  # of a step's time: what a sum may run beside, at the most
ENOUGH = 0.9  # an efficiency that is worth having
MARKED = re.compile(r"(<!-- scale: ([\w-]+) -->\n).*?(<!-- end of scale -->)", re.DOTALL)


def gradient_bytes(name: str) -> int:
    """What a step of a network has to sum: its gradients and the values sent along with them."""
    return int(network(name).build((1, 28, 28), device="cpu").buffers.summed.nbytes)


def step_seconds(name: str, batch: int) -> float:
    """A measured step, as one CUDA graph."""
    rows = read(CHIP)["steps"][f"{name}, batch {batch}"]
    return float(next(row["median"] for row in rows if row["name"] == "gpucnn, one graph")) * 1e-6


def summing(size: int, ranks: int, inside: str, between: str = "100gbe") -> float:
    machines = -(-ranks // GPUS)
    return sum_over_machines(size, machines, min(ranks, GPUS), LINKS[inside], LINKS[between])


def efficiencies(step: float, sum_: float) -> tuple[float, float]:
    """The speed of one of many GPUs as a fraction of one GPU's, for a batch of the same size: if none of the sum overlaps the step, and
    if as much as possible does."""
    return step / (step + sum_), step / (step + max(0.0, sum_ - BACKWARD * step))


def share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.095 else f"{100 * value:.1f} %"


def spread(step: float, sum_: float) -> str:
    least, most = map(share, efficiencies(step, sum_))
    return least if least == most else f"{least.removesuffix(' %')}–{most}"


def networks() -> str:
    rows = []
    for name in NETWORKS:
        size, steps = gradient_bytes(name), [step_seconds(name, batch) for batch in (128, 512)]
        model = network(name).build((1, 28, 28), device="cpu")
        largest = max(model.parameters.items(), key=lambda item: item[1].size)
        part = f"{100 * largest[1].size / model.parameter_count:.1f} % {largest[0].partition('.')[0]}"
        rows.append([name, f"{size / 1e6:.2f} MB", part, *(f"{step * 1e6:.0f} µs" for step in steps)])
    return table(["network", "gradient", "largest layer", "step, batch 128", "step, batch 512"], rows)


def links() -> str:
    rows = [[link.name, f"{link.rate / 1e9:g} GB/s", f"{link.message * 1e6:g} µs", link.source] for link in LINKS.values()]
    return table(["link", "each direction", "a message (assumed)", "source"], rows)


def by_ranks(inside: str, batch: int = 128) -> str:
    rows = []
    for name in NETWORKS:
        size, step = gradient_bytes(name), step_seconds(name, batch)
        sums = [summing(size, ranks, inside) for ranks in RANKS]
        rows.append([name, *(f"{sum_ * 1e6:,.0f} µs: {spread(step, sum_)}" for sum_ in sums)])
    return table(["network", *(f"{ranks} GPUs" for ranks in RANKS)], rows)


def where_it_pays() -> str:
    """The most that 64 and 512 GPUs achieve, in GPUs, and how many times longer a step would have to be for an efficiency of 90 %."""
    rows = []
    for name in NETWORKS:
        size, step = gradient_bytes(name), step_seconds(name, 128)
        found = [name]
        for ranks in (8, 64, 512):
            sum_ = summing(size, ranks, "nvlink")
            found.append(f"{ranks * efficiencies(step, sum_)[1]:.0f}")
            if ranks > GPUS:
                longer = sum_ / (1 / ENOUGH - 1 + BACKWARD)
                found.append(f"{longer / step:.0f} ×")
        rows.append(found)
    head = ["network", "8 GPUs are worth", "64 are worth", "step for 90 %", "512 are worth", "step for 90 %"]
    return table(head, rows)


def activations() -> str:
    """Splitting the largest layer among ranks instead of summing its gradient: what each rank would send and receive."""
    rows = []
    for name in NETWORKS:
        model = network(name).build((1, 28, 28), device="cpu")
        path, largest = max(model.parameters.items(), key=lambda item: item[1].size)
        layer = model[path.rpartition(".")[0]]
        assert layer.input_shape is not None
        features = layer.input_shape[0]
        for ranks in (8,):
            part = 2 * (ranks - 1) * 128 * features * 4
            whole = 2 * (ranks - 1) / ranks * largest.size * 4
            rows.append([name, f"{features:,} → {layer.output_shape[0]:,}", f"{whole / 1e6:.1f} MB", f"{part / 1e6:.1f} MB"])
    return table(["network", "largest layer", "its gradient summed", "its inputs and their gradients exchanged"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "networks": networks,
    "links": links,
    "nvlink": lambda: by_ranks("nvlink"),
    "pcie": lambda: by_ranks("pcie"),
    "larger-batch": lambda: by_ranks("nvlink", 512),
    "where-it-pays": where_it_pays,
    "sharding": activations,
}


def filled(text: str) -> str:
    """A document with its tables replaced according to the figures. Refused for an unknown table."""

    def put(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise Refused(f"there is no table {match[2]!r}: the tables are {', '.join(TABLES)}")
        return match[1] + TABLES[match[2]]() + match[3]

    return MARKED.sub(put, text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scale.py", description="Tables of docs/scale.md, from measured steps and data sheets.")
    parser.add_argument("--write", action="store_true", help="write the tables to docs/scale.md")
    parser.add_argument("--check", action="store_true", help="check the tables there instead")
    options = parser.parse_args()
    try:
        if not (options.write or options.check):
            for name, make in TABLES.items():
                print(f"{name}\n\n{make()}")
            return 0
        try:
            text = DOCUMENT.read_text(encoding="utf-8")
        except OSError as error:
            raise Refused(f"{DOCUMENT.name} cannot be read: {error.strerror}") from None
        new = filled(text)
        if options.write:
            DOCUMENT.write_text(new, encoding="utf-8")
        elif new != text:
            raise Refused("the tables in docs/scale.md do not match the figures: run python examples/scale.py --write")
        return 0
    except Refused as error:
        print(f"scale: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
