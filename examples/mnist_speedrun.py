"""How many seconds of training does MNIST take to 98, 99 and 99.4 % test accuracy?

    python examples/mnist_speedrun.py [--seeds 10] [--epochs 6] [--batch-size 256] [--data-dir FOLDER] [--device auto]

Each seed is a training run of its own, with the test images measured after every epoch; a target is reached at the end of the first epoch
that has it. Only training counts, from the first batch of an epoch to the end of its last: neither testing, nor compiling the kernels,
which is done before and told apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import gpucnn as gc

TARGETS = (0.98, 0.99, 0.994)


def network(data: gc.data.Dataset, seed: int, steps: int, device: str) -> gc.Sequential:
    """Two convolutions and two dense layers, trained by Adam with one cycle of the learning rate."""
    model = gc.Sequential(
        gc.Conv2D(32, 5, padding="same", activation="relu"), gc.MaxPool2D(2),
        gc.Conv2D(64, 3, padding="same", activation="relu"), gc.MaxPool2D(2),
        gc.Flatten(), gc.Dense(128, activation="relu"), gc.Dense(data.classes),
    )  # fmt: skip
    model.build(data.image_shape, seed=seed, device=device)
    return model.compile(gc.Adam(gc.OneCycle(4e-3, steps)))


def run(data: gc.data.Dataset, seed: int, epochs: int, batch: int, device: str) -> list[tuple[float, float]]:
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
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--data-dir")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    try:
        data = gc.load_dataset("mnist", data_dir=options.data_dir)
        start = time.perf_counter()
        few, tested = (slice(sizes(len(images), options.batch_size)) for images in (data.train_images, data.test_images))
        warm_up = network(data, 0, 3, options.device)
        warm_up.fit(
            data.train_images[few], data.train_labels[few], batch_size=options.batch_size, augment=gc.data.augment.Shift(1),
            validation_data=(data.test_images[tested], data.test_labels[tested]), verbose=False,
        )  # fmt: skip
        print(f"{warm_up.device.name}: the first steps, with all that is compiled for them, took {time.perf_counter() - start:.1f} s")
        runs = []
        for seed in range(options.seeds):
            runs.append(run(data, seed, options.epochs, options.batch_size, options.device))
            seconds, accuracy = runs[-1][-1]
            print(f"seed {seed}: {100 * accuracy:.2f} % after {seconds:.3f} s", flush=True)
    except gc.GpucnnError as error:
        print(f"mnist_speedrun: {error}", file=sys.stderr)
        return 2
    for target in TARGETS:
        firsts = (next((seconds for seconds, accuracy in each if accuracy >= target), None) for each in runs)
        times = [seconds for seconds in firsts if seconds is not None]
        spread = f" ± {statistics.stdev(times):.3f}" if len(times) > 1 else ""
        words = f"{statistics.mean(times):.3f}{spread} s" if times else "not reached"
        print(f"{100 * target:g} %: {words} ({len(times)} of {len(runs)} seeds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
