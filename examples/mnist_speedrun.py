"""How many seconds of training does MNIST take to 98, 99 and 99.4 % test accuracy?

    python examples/mnist_speedrun.py [--seeds 10] [--epochs 6] [--batch-size 256] [--data-dir FOLDER] [--device auto] [--quick]

Each seed is a training run of its own, with the test images measured after every epoch; a target is reached at the end of the first epoch
that has it. Only training counts, from the first batch of an epoch to the end of its last: neither testing, nor compiling the kernels,
which is done before and told apart. Where MNIST cannot be had, the digits of scikit-learn take its place, and the first line says so;
--dataset names another set.
"""

from __future__ import annotations

import argparse
import statistics
import time

from common import data_options, data_set, finish, not_measured, parse, whole  # beside this file

import gpucnn as gc
from gpucnn.device import Device, get_device

TARGETS = (0.98, 0.99, 0.994)


def network(data: gc.data.Dataset, seed: int, steps: int, device: str | Device) -> gc.Sequential:
    """Two convolutions and two dense layers, trained by Adam with one cycle of the learning rate."""
    model = gc.Sequential(
        gc.Conv2D(32, 5, padding="same", activation="relu"), gc.MaxPool2D(2),
        gc.Conv2D(64, 3, padding="same", activation="relu"), gc.MaxPool2D(2),
        gc.Flatten(), gc.Dense(128, activation="relu"), gc.Dense(data.classes),
    )  # fmt: skip
    model.build(data.image_shape, seed=seed, device=device)
    return model.compile(gc.Adam(gc.OneCycle(4e-3, steps)))


def run(data: gc.data.Dataset, seed: int, epochs: int, batch: int, device: str | Device) -> list[tuple[float, float]]:
    """(seconds of training so far, test accuracy) after each epoch."""
    steps = epochs * -(-len(data.train_images) // batch)
    model = network(data, seed, steps, device)
    history = model.fit(
        data.train_images, data.train_labels, batch_size=batch, epochs=epochs, augment=gc.data.augment.Shift(1),
        validation_data=(data.test_images, data.test_labels), verbose=False,
    )  # fmt: skip
    seconds = 0.0
    reached = []
    for row in history.rows:
        seconds += row["seconds"]
        reached.append((seconds, row["val_accuracy"]))
    return reached


def sizes(images: int, batch: int) -> int:
    """How many images give, in two whole batches and a rest, every size of batch that a run over all `images` has."""
    return min(images, 2 * batch + images % batch)


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds of training to an accuracy on MNIST.")
    parser.add_argument("--seeds", type=whole(), default=10, help="runs [10]")
    parser.add_argument("--epochs", type=whole(), default=6, help="passes over the training images in each [6]")
    parser.add_argument("--batch-size", type=whole(), default=256, help="images in a step [256]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, seeds=2, epochs=1, batch_size=16)
    device, batch = get_device(options.device), options.batch_size
    data = data_set(options)
    start = time.perf_counter()
    few, tested = (slice(sizes(len(images), batch)) for images in (data.train_images, data.test_images))
    warm_up = network(data, 0, 3, device)
    warm_up.fit(
        data.train_images[few], data.train_labels[few], batch_size=batch, augment=gc.data.augment.Shift(1),
        validation_data=(data.test_images[tested], data.test_labels[tested]), verbose=False,
    )  # fmt: skip
    print(f"{device.name}: the first steps, with all that is compiled for them, took {time.perf_counter() - start:.1f} s")
    if note := not_measured(device, options.quick):
        print(note)
    runs = []
    for seed in range(options.seeds):
        runs.append(run(data, seed, options.epochs, batch, device))
        seconds, accuracy = runs[-1][-1]
        print(f"seed {seed}: {100 * accuracy:.2f} % after {seconds:.3f} s", flush=True)
    for target in TARGETS:
        firsts = (next((seconds for seconds, accuracy in each if accuracy >= target), None) for each in runs)
        times = [seconds for seconds in firsts if seconds is not None]
        spread = f" ± {statistics.stdev(times):.3f}" if len(times) > 1 else ""
        words = f"{statistics.mean(times):.3f}{spread} s" if times else "not reached"
        print(f"{100 * target:g} %: {words} ({len(times)} of {len(runs)} seeds)")
    return 0


if __name__ == "__main__":
    finish(main)
