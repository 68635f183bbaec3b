"""Pictures of a training run, as PNG. Needs matplotlib: pip install "gpucnn[plot]"."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import MissingExtraError
from gpucnn.layers import Conv2D
from gpucnn.training.callbacks import History
from gpucnn.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpucnn.model import Sequential

TRAIN, TEST = "#1f6f8b", "#d1495b"


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError('pictures need matplotlib, which is not installed: pip install "gpucnn[plot]"') from error
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
    """A class name on one line, and no longer than there is room for."""
    name = " ".join(name.split())
    return name if len(name) <= longest else f"{name[: longest - 1].rstrip()}…"


def save_curves(history: History, path: str | Path) -> None:
    """Loss and accuracy of each epoch, for training and for validation."""
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = history["epoch"]
    for axes, name, scale in ((left, "loss", 1.0), (right, "accuracy", 100.0)):
        for key, label, color in ((name, "training", TRAIN), (f"val_{name}", "test", TEST)):
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
    """The confusion matrix: counts[i, j] of class i that were taken for class j. Colour is the share of the row."""
    classes = len(class_names)
    labels = [_short(name) for name in class_names]
    longest = max(map(len, labels))
    side = min(11.0, max(2.6, 0.55 * classes))  # inches of the matrix itself
    figure = _figure(side + 0.9 + 0.09 * longest, side + 0.9 + 0.09 * (longest if longest > 3 else 1))
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Errors are what one looks for, and they are few: the square root lifts them out of the white.
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
    axes.set_xticks(shown, labels=names, rotation=90 if longest > 3 or classes > 20 else 0, fontsize=size)
    axes.set_yticks(shown, labels=names, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right = int(np.trace(counts))
    figure.suptitle(f"{right:,} of {int(counts.sum()):,} right ({100 * right / max(1, counts.sum()):.2f} %)", fontsize=10)
    _save(figure, path)


def save_filters(model: Sequential, path: str | Path) -> bool:
    """The filters of the first convolution; False, and no file, where the model has none."""
    layer = next((layer for layer in model.layers if isinstance(layer, Conv2D)), None)
    if layer is None:
        return False
    weight = to_numpy(layer.weight.value)
    in_colour = weight.shape[1] == 3
    tiles = [filter.transpose(1, 2, 0) if in_colour else filter[0] for filter in weight]
    limit = float(np.abs(weight).max()) or 1.0
    columns = min(16, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = _figure(0.55 * columns + 0.6, 0.55 * rows + 0.8)
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, tile in zip(grid, tiles, strict=False):
        if in_colour:
            axes.imshow(tile / (2 * limit) + 0.5)
        else:
            axes.imshow(tile, cmap="RdBu_r", vmin=-limit, vmax=limit)
    sides = "×".join(map(str, weight.shape[2:]))
    figure.suptitle(f"{len(tiles)} filters of {layer.name}, {sides}: red is positive, blue negative" if not in_colour else
                    f"{len(tiles)} filters of {layer.name}, {sides}", fontsize=9)  # fmt: skip
    _save(figure, path)
    return True


def save_features(model: Sequential, image: np.ndarray[Any, Any], path: str | Path, title: str = "") -> bool:
    """An image (C, H, W), uint8, and its feature maps after each layer that gives maps; False, and no file, where none does."""
    stages: list[tuple[str, np.ndarray[Any, Any]]] = []
    y = model.device.array(image[None].astype(model.dtype) / 255)
    for layer in model.layers:
        if len(layer.output_shape) != 3:
            break
        y = layer.forward(y)
        stages.append((layer.name, to_numpy(y)[0]))
    if not stages:
        return False
    columns = 16
    shown = [(name, maps[: 2 * columns]) for name, maps in stages]
    heights = [1.6] + [-(-len(maps) // columns) for _, maps in shown]
    figure = _figure(0.62 * columns, 0.72 * sum(heights) + 0.3 * len(heights))
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)  # at least two: the image and a layer
    axes = parts[0].subplots()
    axes.imshow(image.transpose(1, 2, 0) if image.shape[0] == 3 else image[0], cmap="gray")
    axes.set_axis_off()
    parts[0].suptitle(_short(title, 100) or "the image", fontsize=9)
    for part, (name, maps), (_, whole) in zip(parts[1:], shown, stages, strict=True):
        grid = part.subplots(-(-len(maps) // columns), columns, squeeze=False).ravel()
        for cell in grid:
            cell.set_axis_off()
        for cell, plane in zip(grid, maps, strict=False):
            cell.imshow(plane, cmap="viridis")
        count = f"{len(maps)} of {len(whole)}" if len(maps) < len(whole) else f"{len(whole)}"
        part.suptitle(f"{name}: {count} maps of {plane.shape[0]}×{plane.shape[1]}", fontsize=9)
    _save(figure, path)
    return True
