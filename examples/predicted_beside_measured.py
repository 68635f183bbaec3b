"""A table of the predicted times of kernels beside the measured ones in kernels/measured.

    python examples/predicted_beside_measured.py kernels/measured/nvidia-h100-80gb-hbm3.json [--arch H100] [--kernels 20] [--quick]

No GPU is needed: the kernels are compiled for the chip, which takes some minutes, and their times are predicted as in
`gpucnn profile --arch`. A kernel is compared if the measured one was launched for the same operation and shape, with the same blocks and
threads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import finish, parse, whole

import gpucnn as gc
from gpucnn.profiling.chip import bounds, chips, samples
from gpucnn.profiling.chip.chips import Chip
from gpucnn.profiling.chip.compiled import for_user
from gpucnn.profiling.chip.predict import predict
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.launches import Part, parts
from gpucnn.profiling.what.observe import Observer

SHARED = ("tensor", "tensor_grad", "engine")  # earlier names of kernels that are now named after their operation


def launched(name: str, shape: bool, chip: Chip) -> Iterator[tuple[str, Part]]:
    """The launches of a network or a named shape on the chip, with their operations."""
    if shape:
        sample = next(each for each in samples.SHAPES if each.name == name)
        yield from ((each.call.op, each.part) for each in samples.launched(sample, chip) if each.call)
        return
    with bounds.as_if_there(chip):
        work = workload.of_model(name, 128, bounds.device_of(chip), Observer())
    recorded = bounds.record(work, chip)
    with bounds.as_if_there(chip):
        for call, launches, _ in recorded:
            yield from ((call.op, part) for part in parts(call, launches))


def rows(figures: dict[str, Any], chip: Chip) -> Iterator[tuple[str, str, str, float, float, str]]:
    """(network or shape, operation, kernel, predicted µs, measured µs, what limits it)"""
    compiler = for_user(chip.arch, lambda text: print(text, flush=True))
    for kind in ("networks", "shapes"):
        for name, found in figures[kind].items():
            measured = [(each["op"], kernel) for each in found["operations"] for kernel in each["kernels"]]
            for op, part in launched(name, kind == "shapes", chip):
                launch = part.launch
                for pair in measured:
                    kernel = pair[1]
                    grid = (kernel["blocks"], kernel["threads"]) == (launch.blocks, launch.threads)
                    if pair[0] == op and grid and kernel["kernel"] in (part.name, *SHARED):
                        program = compiler.program(launch)
                        if program is None:
                            raise gc.GpucnnError("; ".join(compiler.notes))
                        made = predict(launch, part.work, program, compiler.compiled(launch).occupancy, chip)
                        yield name, op, part.name, made.seconds * 1e6, kernel["µs"], made.limit
                        measured.remove(pair)
                        break


def read(path: Path) -> dict[str, Any]:
    """Measured figures. DataError for a file that has none."""
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(found["operations"] for kind in ("networks", "shapes") for found in figures[kind].values()):
            return figures
        why = "an operation is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise gc.DataError(f"{path} has no measured figures ({why}): name a file that examples/measure_chip.py wrote")


def main() -> int:
    parser = argparse.ArgumentParser(description="Predicted times beside measured ones.")
    parser.add_argument("figures", type=Path, metavar="FILE", help="measured figures, as examples/measure_chip.py writes them")
    parser.add_argument("--arch", default="H100", metavar="CHIP", help="the chip to predict for [H100]")
    parser.add_argument("--kernels", type=whole(), metavar="N", help="only the first so many [all]")
    options = parse(parser, kernels=2)
    chip = chips.find(options.arch)
    found = list(itertools.islice(rows(read(options.figures), chip), options.kernels))
    if not found:
        raise gc.DataError(
            f"no kernel of {options.figures} is launched on {chip.name} with the same blocks and threads: name its own --arch"
        )
    print("| | operation | kernel | predicted µs | measured µs | predicted / measured | limited by |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    for name, op, kernel, predicted, measured, limit in found:
        print(f"| {name} | {op} | {kernel} | {predicted:.1f} | {measured:.1f} | {predicted / measured:.2f} | {limit} |")
    ratios = [predicted / measured for _, _, _, predicted, measured, _ in found]
    within = sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"\n{within} of {len(ratios)} within 1.5×; geometric mean of predicted over measured {mean:.2f}.")
    return 0


if __name__ == "__main__":
    finish(main)
