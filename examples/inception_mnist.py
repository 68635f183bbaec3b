"""An Inception block: its branches and their sizes, and the test accuracy of a small network of three such blocks.

    python examples/inception_mnist.py [--epochs 2] [--dataset NAME] [--data-dir FOLDER] [--device auto] [--quick]

The block is Concat with four branches: 1 × 1; 3 × 3 and 5 × 5, each behind a 1 × 1 that reduces the channels; and pooling.
"""

from __future__ import annotations

import argparse

from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc


def block(ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int) -> gc.Concat:
    """What gc.inception(ones, threes, fives, pooled) builds, written out."""

    def conv(filters: int, size: int) -> gc.Conv2D:
        return gc.Conv2D(filters, size, padding="same", activation="relu")

    return gc.Concat(
        conv(ones, 1),
        [conv(threes[0], 1), conv(threes[1], 3)],
        [conv(fives[0], 1), conv(fives[1], 5)],
        [gc.MaxPool2D(3, stride=1, padding="same"), conv(pooled, 1)],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=2, help="passes over the training images [2]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=10)
    data = data_set(options)
    model = gc.Sequential(
        gc.Conv2D(32, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        block(16, (16, 32), (8, 16), 16),
        gc.inception(32, (32, 48), (8, 24), 24),
        gc.GlobalAvgPool2D(),
        gc.Dense(len(data.class_names)),
    )
    model.build(data.image_shape, seed=0, device=options.device).compile(gc.Adam(3e-3))
    model.summary()
    batch = min(128, len(data.train_images) // 6)
    model.fit(data.train_images, data.train_labels, batch_size=batch, epochs=options.epochs, verbose=False)
    _, accuracy = model.evaluate(data.test_images, data.test_labels)
    print(f"test accuracy {100 * accuracy:.2f} %")
    return 0


if __name__ == "__main__":
    finish(main)
