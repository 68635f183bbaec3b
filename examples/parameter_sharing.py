"""What sharing weights saves: parameters and accuracy of a convolution, and of a layer with separate filters at every position.

    python examples/parameter_sharing.py [--epochs 3] [--dataset NAME] [--data-dir FOLDER] [--device auto] [--quick]

First the sizes of the texts: 20 filters of 8 × 8 on images of 32 × 32 × 3, with stride 2 and padding 1. Then both train on the same images
and are tested on them as they are, and moved by two pixels: filters that are shared know a stroke wherever it stands.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc

LAYERS: dict[str, Callable[..., gc.Layer]] = {"Conv2D": gc.Conv2D, "LocallyConnected2D": gc.LocallyConnected2D}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=3, help="passes over the training images [3]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=15)
    data = data_set(options)
    for name, kind in LAYERS.items():
        layer = gc.Sequential(kind(20, 8, stride=2, padding=1)).build((3, 32, 32), device="cpu")
        outputs = " × ".join(map(str, layer.output_shape))
        print(f"{name:18}  20 filters 8 × 8 × 3 on 32 × 32: {outputs} outputs, {layer.parameter_count:,} parameters")
    moved = np.roll(data.test_images, (2, 2), axis=(2, 3))
    for name, kind in LAYERS.items():
        model = gc.Sequential(
            kind(16, 3, activation="relu"),
            gc.MaxPool2D(2),
            kind(16, 3, activation="relu"),
            gc.GlobalMaxPool2D(),
            gc.Dense(len(data.class_names)),
        )
        model.build(data.image_shape, seed=0, device=options.device).compile(gc.Adam(3e-3))
        batch = min(128, len(data.train_images) // 6)
        model.fit(data.train_images, data.train_labels, batch_size=batch, epochs=options.epochs, verbose=False)
        accuracy, of_moved = (100 * model.evaluate(images, data.test_labels)[1] for images in (data.test_images, moved))
        print(f"{name:18}  {model.parameter_count:,} parameters: {accuracy:.2f} % of test images, {of_moved:.2f} % of them moved")
    return 0


if __name__ == "__main__":
    finish(main)
