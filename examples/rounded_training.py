"""Test accuracy where the factors of products are rounded, as tensor cores round them: float32, TF32 and bfloat16 beside one another.

    python examples/rounded_training.py [--model lenet5] [--epochs 2] [--seeds 5] [--first 0] [--dataset NAME] [--data-dir FOLDER] [--quick]

Trains on the CPU, which computes in float32, with the factors of every convolution, every dense layer and their gradients rounded
beforehand: to 11 bits (TF32, ties away from zero, as the library's kernels do it) and to 8 (bfloat16, ties to even). Products of such
factors are exact in float32, as on tensor cores; only the order of the sums is another. All modes of a seed have the same initial values
and batches.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc
from gpucnn.device import Device
from gpucnn.networks import NETWORKS
from gpucnn.ops import cpu

BATCH = 128


def to_tf32(x: Any) -> Any:
    """float32 with 11 significant bits, ties away from zero; infinities and NaN stay what they are."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return np.where(np.isfinite(x), ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32), x)


def to_bfloat16(x: Any) -> Any:
    """float32 with 8 significant bits, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return np.where(np.isfinite(x), ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32), x)


MODES: dict[str, Callable[[Any], Any] | None] = {"float32": None, "TF32": to_tf32, "bfloat16": to_bfloat16}
FACTORS = {  # which arguments of an operation are factors of its products
    "conv2d": (0, 1),
    "conv2d_input_grad": (0, 1),
    "conv2d_weight_grad": (0, 1),
    "conv2d_relu_max_pool2d": (0, 1),
    "conv2d_relu_max_pool2d_weight_grad": (0, 2),  # dy, indices, x
    "dense": (0, 1),
    "dense_input_grad": (0, 1),
    "dense_weight_grad": (0, 1),
}


class Rounding:
    """The CPU's operations, with the factors of products rounded."""

    def __init__(self, rounded: Callable[[Any], Any]) -> None:
        self._rounded = rounded

    def __getattr__(self, name: str) -> Any:
        operation = getattr(cpu, name)
        places = FACTORS.get(name)
        if places is None:
            return operation

        def run(*arguments: Any, **more: Any) -> Any:
            given = [self._rounded(each) if place in places else each for place, each in enumerate(arguments)]
            return operation(*given, **more)

        return run


def device_of(rounded: Callable[[Any], Any] | None) -> Device:
    """The CPU, on which factors are rounded like that."""
    return Device("cpu", "CPU", np, cpu if rounded is None else Rounding(rounded))  # type: ignore[arg-type]


def train(network: str, data: gc.data.Dataset, seed: int, epochs: int, device: Device) -> float:
    model = gc.network(network, data.classes).build(data.image_shape, seed=seed, device=device)
    model.compile(gc.Adam(1e-3))
    model.fit(data.train_images, data.train_labels, batch_size=BATCH, epochs=epochs, verbose=False)
    _, accuracy = model.evaluate(data.test_images, data.test_labels)
    return float(accuracy)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="lenet5", help=f"one of {NETWORKS} [lenet5]")
    parser.add_argument("--epochs", type=whole(), default=2, help="passes over the training images [2]")
    parser.add_argument("--seeds", type=whole(), default=5, help="runs of each mode [5]")
    parser.add_argument("--first", type=whole(0), default=0, help="the first seed [0]")
    data_options(parser)
    options = parse(parser, model="keras", epochs=1, seeds=1)
    data = data_set(options)
    results: dict[str, list[float]] = {name: [] for name in MODES}
    for seed in range(options.first, options.first + options.seeds):
        for name, rounded in MODES.items():
            results[name].append(100 * train(options.model, data, seed, options.epochs, device_of(rounded)))
        print(f"seed {seed}  " + "  ".join(f"{name} {values[-1]:.2f} %" for name, values in results.items()), flush=True)
    for name, values in results.items():
        print(f"mean    {name:<8}  {statistics.mean(values):.2f} %  ({min(values):.2f}–{max(values):.2f})")
    return 0


if __name__ == "__main__":
    finish(main)
