"""What changes when a digit moves: feature maps, pooled maps, the maximum of each map, and the prediction.

    python examples/translation.py [--epochs 2] [--most 4] [--output translation.png] [--dataset NAME] [--device auto] [--quick]

Trains a small network, then moves test images to the right pixel by pixel. For each move it prints how much of the images' feature maps, of
their pooled maps and of their probabilities has changed (the size of the difference, as a part of the size of what was there), and how many
answers are still right; and draws that, with one digit above it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc
from gpucnn.errors import DataError, MissingExtraError

IMAGES = 200  # that are moved


def moved(images: Any, pixels: int) -> Any:
    """The images moved to the right by this many pixels; black pixels enter from the left."""
    result = np.zeros_like(images)
    result[..., pixels:] = images[..., : images.shape[-1] - pixels]
    return result


def change(before: Any, after: Any) -> float:
    """The size of the difference relative to the size of the original."""
    return float(np.linalg.norm(after - before) / max(float(np.linalg.norm(before)), 1e-9))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=2, help="passes over the training images [2]")
    parser.add_argument("--most", type=whole(1, 8), default=4, help="the largest move, in pixels [4]")
    parser.add_argument("--output", type=Path, default=Path("translation.png"), help="file for the picture [translation.png]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=12)
    data = data_set(options)
    model = gc.Sequential(
        gc.Conv2D(16, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(32, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.GlobalMaxPool2D(),
        gc.Dense(len(data.class_names), activation="softmax"),
    )
    model.build(data.image_shape, seed=0, device=options.device).compile(gc.Adam(3e-3))
    batch = min(128, len(data.train_images) // 6)
    model.fit(data.train_images, data.train_labels, batch_size=batch, epochs=options.epochs, verbose=False)
    images, labels = data.test_images[:IMAGES], data.test_labels[:IMAGES]
    names = {"conv2d_1": "feature maps", "maxpool2d_2": "pooled maps", "globalmaxpool2d_1": "maximum of each map", "dense_1": "prediction"}
    before = {layer: gc.to_numpy(model.features(images, layer)) for layer in names}
    rows = []
    for pixels in range(options.most + 1):
        shifted = moved(images, pixels)
        changes = [change(before[layer], gc.to_numpy(model.features(shifted, layer))) for layer in names]
        right = float((model.predict(shifted).argmax(axis=1) == labels).mean())
        rows.append(changes)
        parts = ", ".join(f"{name} {value:.2f}" for name, value in zip(names.values(), changes, strict=True))
        print(f"moved by {pixels}: changed {parts}; {100 * right:.1f} % right")
    draw(options.output, [moved(images[:1], pixels)[0] for pixels in range(options.most + 1)], rows, list(names.values()))
    print(f"wrote {options.output}")
    return 0


def draw(path: Path, digits: list[Any], rows: list[list[float]], names: list[str]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"the picture is drawn with matplotlib: pip install matplotlib ({error})") from None
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplot_mosaic([[f"digit {index}" for index in range(len(digits))], ["changes"] * len(digits)], height_ratios=[1, 2.5])
    for index, digit in enumerate(digits):
        axes[f"digit {index}"].imshow(digit.mean(axis=0), cmap="gray")
        axes[f"digit {index}"].set_axis_off()
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        axes["changes"].plot(values, marker="o", label=name)
    axes["changes"].set(xlabel="pixels moved", ylabel="change, as a part of what was there", xticks=range(len(digits)))
    axes["changes"].legend()
    try:
        figure.savefig(path, dpi=100)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}") from None


if __name__ == "__main__":
    finish(main)
