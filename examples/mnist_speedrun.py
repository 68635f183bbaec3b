"""How many seconds of training MNIST takes to reach 98, 99 and 99.4 % test accuracy.

    python examples/mnist_speedrun.py [--seeds 10] [--epochs 6] [--batch-size 256] [--filters 32] [--pytorch] [--data-dir FOLDER]
                                      [--device auto] [--quick]
    python examples/mnist_speedrun.py --device cpu --seeds 3 --epochs 3 --batch-size 128 --filters 16

The second is the recipe for a CPU: with half of the filters it takes a third of the time, and loses a tenth of a per cent of accuracy.

Each seed is a training run of its own, with the test images measured after every epoch; a target is reached at the end of the first epoch
that has it. Only training counts, from the first batch of an epoch to the end of its last: neither testing, nor compiling the kernels,
which is done first and reported separately. --pytorch trains the same recipe in PyTorch as well, on the CPU and the same batches, with
initial values of its own. Without MNIST, scikit-learn's digits take its place, and the first line says so;
--dataset names another set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from common import data_options, data_set, finish, not_measured, parse, pytorch_on, whole  # beside this file

import gpucnn as gc
from gpucnn.device import Device, get_device

TARGETS = (0.98, 0.99, 0.994)
RATE = 4e-3
SHIFT = gc.data.augment.Shift(1)


def network(data: gc.data.Dataset, seed: int, steps: int, device: str | Device, filters: int = 32) -> gc.Sequential:
    """Two convolutions, the second with twice the filters, and two dense layers, trained by Adam with a one-cycle learning rate."""
    model = gc.Sequential(
        gc.Conv2D(filters, 5, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(2 * filters, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Flatten(),
        gc.Dense(128, activation="relu"),
        gc.Dense(data.classes),
    )
    model.build(data.image_shape, seed=seed, device=device)
    return model.compile(gc.Adam(gc.OneCycle(RATE, steps)))


def run(data: gc.data.Dataset, seed: int, epochs: int, batch: int, device: str | Device, filters: int = 32) -> list[tuple[float, float]]:
    """(seconds of training so far, test accuracy) after each epoch."""
    steps = epochs * -(-len(data.train_images) // batch)
    model = network(data, seed, steps, device, filters)
    history = model.fit(
        data.train_images,
        data.train_labels,
        batch_size=batch,
        epochs=epochs,
        augment=SHIFT,
        validation_data=(data.test_images, data.test_labels),
        verbose=False,
    )
    seconds = 0.0
    reached = []
    for row in history.rows:
        seconds += row["seconds"]
        reached.append((seconds, row["val_accuracy"]))
    return reached


def run_pytorch(data: gc.data.Dataset, seed: int, epochs: int, batch: int, filters: int) -> list[tuple[float, float]]:
    """The same in PyTorch, on the CPU. Its seconds include what `fit` includes: drawing the batches, and adding up the losses."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    channels, height, width = data.image_shape
    model = nn.Sequential(
        nn.Conv2d(channels, filters, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(filters, 2 * filters, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * filters * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, data.classes),
    )
    batches = gc.data.Batches(data.train_images, data.train_labels, batch, seed=seed, augment=SHIFT)
    rate = gc.OneCycle(RATE, epochs * batches.steps_per_epoch)
    optimizer = torch.optim.Adam(model.parameters())
    tests = torch.from_numpy(data.test_images.astype(np.float32) / 255).split(1000)
    seconds, step, reached = 0.0, 0, []
    for epoch in range(epochs):
        start = time.perf_counter()
        total = torch.zeros(())
        for x, labels in batches.epoch(epoch):
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(labels).long())
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        seconds += time.perf_counter() - start
        with torch.no_grad():
            guesses = torch.cat([model(part).argmax(dim=1) for part in tests]).numpy()
        reached.append((seconds, float(np.mean(guesses == data.test_labels))))
    return reached


def sizes(images: int, batch: int) -> int:
    """A number of images that gives, in two whole batches and a rest, every batch size that a run over all `images` has."""
    return min(images, 2 * batch + images % batch)


def told(runs: list[list[tuple[float, float]]]) -> None:
    """Prints when each target was reached, and by how many of the runs."""
    for target in TARGETS:
        firsts = (next((seconds for seconds, accuracy in each if accuracy >= target), None) for each in runs)
        times = [seconds for seconds in firsts if seconds is not None]
        spread = f" ± {statistics.stdev(times):.3f}" if len(times) > 1 else ""
        words = f"{statistics.mean(times):.3f}{spread} s" if times else "not reached"
        print(f"{100 * target:g} %: {words} ({len(times)} of {len(runs)} seeds)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds of training to an accuracy on MNIST.")
    parser.add_argument("--seeds", type=whole(), default=10, help="runs [10]")
    parser.add_argument("--epochs", type=whole(), default=6, help="passes over the training images in each [6]")
    parser.add_argument("--batch-size", type=whole(), default=256, help="images in a step [256]")
    parser.add_argument(
        "--filters",
        type=whole(),
        default=32,
        help="filters of the first convolution; the second has twice as many [32]",
    )
    parser.add_argument("--pytorch", action="store_true", help="also train with the same recipe in PyTorch, on the CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, seeds=2, epochs=1, batch_size=16)
    device, batch = get_device(options.device), options.batch_size
    if options.pytorch:
        torch, missing = pytorch_on(get_device("cpu"))
        if torch is None:
            raise gc.MissingExtraError(f"{missing}, so there is nothing to compare with")
    data = data_set(options)
    start = time.perf_counter()
    few, tested = (slice(sizes(len(images), batch)) for images in (data.train_images, data.test_images))
    warm_up = network(data, 0, 3, device, options.filters)
    warm_up.fit(
        data.train_images[few],
        data.train_labels[few],
        batch_size=batch,
        augment=SHIFT,
        validation_data=(data.test_images[tested], data.test_labels[tested]),
        verbose=False,
    )
    print(f"{device.name}: the first steps, compilation included, took {time.perf_counter() - start:.1f} s")
    if note := not_measured(device, options.quick):
        print(note)
    runners: dict[str, Callable[[int], list[tuple[float, float]]]] = {
        "": lambda seed: run(data, seed, options.epochs, batch, device, options.filters)
    }
    if options.pytorch:
        runners["PyTorch, "] = lambda seed: run_pytorch(data, seed, options.epochs, batch, options.filters)
    runs: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in runners}
    for seed in range(options.seeds):
        for name, runner in runners.items():
            runs[name].append(runner(seed))
            seconds, accuracy = runs[name][-1][-1]
            print(f"{name}seed {seed}: {100 * accuracy:.2f} % after {seconds:.3f} s", flush=True)
    for name, each in runs.items():
        if name:
            print("PyTorch:")
        told(each)
    return 0


if __name__ == "__main__":
    finish(main)
