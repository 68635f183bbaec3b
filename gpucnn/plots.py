"""Pictures of a training run as PNG. They need matplotlib, which the extra `plot` installs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import MissingExtraError
from gpucnn.files import write_atomically
from gpucnn.layers import Conv2D
from gpucnn.surroundings import install
from gpucnn.text import plain
from gpucnn.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpucnn.model import Sequential

TRAIN, TEST = "#1f6f8b", "#d1495b"
WIDTH, COLUMNS = 9.6, 16  # of a picture in inches, and of the tiles in a row of it
FILTERS = 512  # shown at most
MISTAKES, ABREAST = 40, 8  # shown at most, and in a row
CELLS = 250  # on a side of a confusion matrix, at the most


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"pictures need matplotlib, which is not installed: {install('plot')}") from error
    return Figure(figsize=(width, height), dpi=130, layout="constrained")  # not pyplot: no window system is touched


def _save(figure: Figure, path: str | Path) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a class may well be called "$5", and a tick label is one long before it is drawn
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; a page of warnings would not change that.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        write_atomically(path, lambda file: figure.savefig(file, format="png"))


def _short(name: str, longest: int = 24) -> str:
    """A name on one line, shortened to the room available."""
    name = plain(" ".join(name.split()))
    return name if len(name) <= longest else f"{name[: longest - 1].rstrip()}…"


def save_curves(history: History, path: str | Path) -> None:
    """Loss and accuracy of each epoch, for training and validation."""
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = history["epoch"]
    for axes, name, scale in ((left, "loss", 1.0), (right, "accuracy", 100.0)):
        for key, label, color in ((name, "training", TRAIN), (f"val_{name}", "validation", TEST)):
            if key in history:
                marker = "o-" if len(epochs) <= 60 else "-"
                axes.plot(epochs, [scale * value for value in history[key]], marker, color=color, label=label, markersize=4)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss" if name == "loss" else "accuracy (%)")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.has_data():
            axes.legend(frameon=False)
    _save(figure, path)


def save_confusion(counts: np.ndarray[Any, Any], class_names: Sequence[str], path: str | Path) -> None:
    """The confusion matrix: counts[i, j] images of class i were predicted as class j. The colour shows the share of the row."""
    classes = len(class_names)
    labels = [_short(name) for name in class_names]
    longest = max(map(len, labels))
    side = min(11.0, max(2.6, 0.55 * classes))  # inches of the matrix itself
    figure = _figure(side + 0.9 + 0.09 * longest, side + 0.9 + 0.09 * (longest if longest > 3 else 1))
    axes = figure.subplots()
    block = -(-classes // CELLS)  # classes that share a row and a column, where there are more of them than a picture has room for
    edges = np.arange(0, classes, block)
    cells = counts if block == 1 else np.add.reduceat(np.add.reduceat(counts, edges, axis=0), edges, axis=1)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    # Errors are few, and the most interesting: the square root makes them visible.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    if classes <= 20:
        for row in range(classes):
            for column in range(classes):
                if counts[row, column]:
                    color = "white" if share[row, column] > 0.4 else "black"
                    axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=7)
    shown = range(0, classes, -(-classes // 60))  # of very many classes, as many names as fit
    names = [labels[number] for number in shown]
    size = 10 if classes <= 20 else 7
    positions = [number / block for number in shown]
    axes.set_xticks(positions, labels=names, rotation=90 if longest > 3 or classes > 20 else 0, fontsize=size)
    axes.set_yticks(positions, labels=names, fontsize=size)
    axes.set_xlabel("predicted class" if block == 1 else f"predicted class, {block} to a column")
    axes.set_ylabel("true class" if block == 1 else f"true class, {block} to a row")
    right = int(np.trace(counts))
    figure.suptitle(f"{right:,} of {int(counts.sum()):,} right ({100 * right / max(1, counts.sum()):.2f} %)", fontsize=10)
    _save(figure, path)


def save_filters(model: Sequential, path: str | Path) -> bool:
    """The filters of the first convolution; False, and no file, if the model has none."""
    layer = next((layer for layer in model.layers if isinstance(layer, Conv2D)), None)
    if layer is None:
        return False
    weight = to_numpy(layer.weight.value)
    limit = float(np.abs(weight).max()) or 1.0
    filters, weight = len(weight), weight[:FILTERS]
    in_colour = weight.shape[1] == 3
    tiles = weight.transpose(0, 2, 3, 1) / (2 * limit) + 0.5 if in_colour else weight[:, 0]
    picture = _mosaic(tiles)
    height, width = picture.shape[:2]
    figure = _figure(WIDTH, WIDTH * height / width + 0.4)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
    sides = "×".join(map(str, weight.shape[2:]))
    meaning = "grey is zero" if in_colour else "red is positive, blue negative"
    count = f"{filters}" if filters == len(weight) else f"{len(weight)} of {filters}"
    axes.set_title(f"{count} filters of {_short(layer.name)}, {sides}: {meaning}", fontsize=9)
    _save(figure, path)
    return True


def save_features(model: Sequential, image: np.ndarray[Any, Any], path: str | Path, title: str = "") -> bool:
    """An image (C, H, W), uint8, and its feature maps after each layer that has maps, each map scaled from its least to its greatest value.

    False, and no file, where no layer gives maps.
    """
    pictures: list[tuple[str, np.ndarray[Any, Any]]] = []
    y = model.device.array(image[None].astype(model.dtype) / 255)
    for layer in model.layers:
        if len(layer.output_shape) != 3:
            break
        y = layer.forward(y)
        maps = to_numpy(y)[0]
        shown = maps[: 2 * COLUMNS]
        least, greatest = shown.min(axis=(1, 2), keepdims=True), shown.max(axis=(1, 2), keepdims=True)
        count = f"{len(shown)} of {len(maps)}" if len(shown) < len(maps) else f"{len(maps)}"
        name = f"{_short(layer.name)}: {count} maps of {maps.shape[1]}×{maps.shape[2]}"
        pictures.append((name, _mosaic((shown - least) / np.maximum(greatest - least, 1e-12))))
    if not pictures:
        return False
    heights = [1.5] + [WIDTH * picture.shape[0] / picture.shape[1] for _, picture in pictures]
    figure = _figure(WIDTH, sum(heights) + 0.35 * len(heights))
    parts = figure.subplots(len(heights), 1, height_ratios=heights)
    parts[0].imshow(image.transpose(1, 2, 0) if image.shape[0] == 3 else image[0], cmap="gray", vmin=0, vmax=255)
    parts[0].set_title(_short(title, 100) or "the image", fontsize=9)
    for axes, (name, picture) in zip(parts[1:], pictures, strict=True):
        axes.imshow(picture, cmap="viridis", vmin=0, vmax=1)
        axes.set_title(name, fontsize=9)
    for axes in parts:
        axes.set_axis_off()
    _save(figure, path)
    return True


def save_mistakes(
    images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], class_names: Sequence[str], path: str | Path
) -> bool:
    """The worst mistakes: the images (N, C, H, W) that were predicted as another class, those whose own class was least probable first.

    labels: class numbers (N,); scores: probabilities (N, K). Below each image stand its class, and what was predicted. False, and no
    file, where there was no mistake.
    """
    guesses = scores.argmax(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    if not wrong.size:
        return False
    worst = wrong[np.argsort(scores[wrong, labels[wrong]], kind="stable")][:MISTAKES]
    tiles = images[worst].transpose(0, 2, 3, 1)
    tiles = tiles.repeat(3, axis=3) if tiles.shape[3] == 1 else tiles
    tiles = tiles[:, :: -(-tiles.shape[1] // 256), :: -(-tiles.shape[2] // 256)]
    enlarged = max(1, 96 // max(tiles.shape[1:3]))
    tiles = tiles.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    height, width = tiles.shape[1:3]
    abreast = min(ABREAST, len(tiles))
    inch = width * 1.12 * ABREAST / WIDTH  # in pixels
    step, across = height + round(0.42 * inch), round(width * 1.12)
    rows = -(-len(tiles) // abreast)
    picture = np.full((rows * step, ABREAST * across, 3), 255, np.uint8)
    figure = _figure(WIDTH, picture.shape[0] / inch + 0.5)
    axes = figure.subplots()
    axes.set_axis_off()
    for place, (tile, index) in enumerate(zip(tiles, worst, strict=True)):
        top, left = place // abreast * step, place % abreast * across
        picture[top : top + height, left : left + width] = tile
        guess = guesses[index]
        words = f"{_short(class_names[labels[index]], 16)}\n→ {_short(class_names[guess], 13)}, {100 * scores[index, guess]:.0f} %"
        axes.text(left + width / 2, top + height + 0.03 * inch, words, ha="center", va="top", fontsize=6.5, linespacing=1.1)
    axes.imshow(picture, interpolation="nearest")
    count = f"{wrong.size:,}" if len(worst) == wrong.size else f"the worst {len(worst)} of {wrong.size:,}"
    axes.set_title(
        f"{count} mistake{'s' * (wrong.size > 1)} among {len(labels):,} images: below each its class, and → what was predicted",
        fontsize=9,
    )
    _save(figure, path)
    return True


def _mosaic(tiles: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Tiles (N, H, W) or (N, H, W, 3), in rows of COLUMNS as one picture, because drawing an axis for each would take seconds."""
    count, height, width = tiles.shape[:3]
    enlarged = max(1, 24 // max(height, width))  # so that the gaps are narrow beside the smallest tiles
    tiles = tiles.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    height, width = tiles.shape[1:3]
    gap = max(2, width // 10)
    rows = -(-count // COLUMNS)
    # The gaps are white: NaN has no colour in a colour map, and ones are white in RGB.
    background = np.nan if tiles.ndim == 3 else 1.0
    picture = np.full((rows * (height + gap) - gap, COLUMNS * (width + gap) - gap, *tiles.shape[3:]), background)
    for number, tile in enumerate(tiles):
        top, left = number // COLUMNS * (height + gap), number % COLUMNS * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture
