"""Two 5 × 5 convolutions as in the TensorFlow 1 tutorials: loss and validation accuracy every few batches, and the test accuracy.

    python examples/lenet5x5_mnist.py [--epochs 1] [--learning-rate 0.001] [--keep 0.5] [--every 50] [--device auto] [--quick]

A line gives the loss and the accuracy of that batch's images, and the accuracy on images held back from training. The tutorials say which
part of the numbers dropout keeps; Dropout here is told which part it drops, 1 − keep.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc

BATCH, HELD_BACK = 128, 1000


class Lines(gc.Callback):
    """Every `every` steps, prints the loss of the batch and the accuracy on images that the model is not trained on."""

    def __init__(self, every: int, images: Any, labels: Any) -> None:
        self.every, self.images, self.labels = every, images, labels

    def on_step_end(self, run: Any) -> None:
        loss = run.batch_loss
        if run.step % self.every == 0 or run.step == run.steps_per_epoch:
            _, accuracy = run.model.evaluate(self.images, self.labels)
            print(f"epoch {run.epoch + 1}, batch {run.step}: loss {loss:.4f}, validation accuracy {100 * accuracy:.2f} %", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=1, help="passes over the training images [1]")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="learning rate of Adam [0.001]")
    parser.add_argument("--keep", type=float, default=0.5, help="fraction that dropout keeps [0.5]")
    parser.add_argument("--every", type=whole(), default=50, help="batches per line of output [50]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=6, every=1)
    data = data_set(options)
    model = gc.Sequential(
        gc.Conv2D(32, 5, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(64, 5, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Flatten(),
        gc.Dense(1024, activation="relu"),
        gc.Dropout(1 - options.keep),
        gc.Dense(len(data.class_names)),
    )
    model.build(data.image_shape, seed=0, device=options.device).compile(gc.Adam(options.learning_rate))
    held = min(HELD_BACK, len(data.train_images) // 4)
    lines = Lines(options.every, data.train_images[:held], data.train_labels[:held])
    images, labels = data.train_images[held:], data.train_labels[held:]
    model.fit(images, labels, batch_size=min(BATCH, len(images) // 3), epochs=options.epochs, callbacks=[lines], verbose=False)
    _, accuracy = model.evaluate(data.test_images, data.test_labels)
    print(f"test accuracy {100 * accuracy:.2f} %")
    return 0


if __name__ == "__main__":
    finish(main)
