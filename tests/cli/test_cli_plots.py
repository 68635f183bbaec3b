"""The pictures: nothing cut off, nothing over anything else, whatever the classes are called."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import plots
from gpucnn.training.callbacks import History

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # of glyphs, of layouts that did not work out

NAMES = {
    "digits": [str(number) for number in range(10)],
    "long": ["a very long class name indeed, longer than one expects", "Ankle boot", "T-shirt/top", "pick-up_truck", "z"],
    "two": ["cat", "dog"],
    "no formula": ["$x_1$", "$5", "$\\frac$", "a_b^c", "100 %"],
    "no glyph": ["日本語", "中文", "line\nbreak"],
    "controls": ["a\x00\x1b[31mb", "c\u202ed", "e\ud800f", "g\u2028h\ufeff"],
    "many": [f"class number {number}" for number in range(120)],
    "thirty": [f"{number}" for number in range(30)],
}


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they were saved."""
    figures = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (save(figure, path), figures.append(figure)))
    return figures


def check(figure) -> None:
    """All text lies within the picture, and no two labels of an axis touch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # here; while it was saved, there was none
        canvas.draw()
    width, height = canvas.get_width_height()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        if not axes.axison:
            continue
        for number, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())  # there are ticks beyond it, which are not drawn
            labels = [label for label in axis.get_ticklabels() if label.get_text() and low <= label.get_position()[number] <= high]
            boxes = [label.get_window_extent(renderer) for label in labels]
            for box in boxes:
                assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, "cut off"
            for one, other in pairwise(boxes):
                assert not one.overlaps(other), "over each other"
    for title in [figure._suptitle, *(axes.title for axes in figure.axes)]:
        if title is not None and title.get_text():
            box = title.get_window_extent(renderer)
            assert box.x0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, title.get_text()


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_confusion(drawn, tmp_path, names):
    classes = len(names)
    counts = np.random.default_rng(0).integers(0, 1000, (classes, classes))
    plots.save_confusion(counts, names, tmp_path / "confusion.png")
    (figure,) = drawn
    check(figure)
    axes = figure.axes[0]
    box = axes.get_window_extent()
    assert box.width > 0.35 * figure.bbox.width, "the names take the place of the matrix"
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == len(names) or (len(names) > 60 and len(shown) >= 40)
    assert all(len(label) <= 24 for label in shown)
    assert figure._suptitle.get_text().startswith(f"{np.trace(counts):,} of {counts.sum():,} right")
    written = [text.get_text() for text in axes.texts]
    assert written == ([f"{count:,}" for count in counts.ravel() if count] if classes <= 20 else [])


@pytest.mark.parametrize("epochs", [1, 2, 5, 40, 300])
def test_curves(drawn, tmp_path, epochs):
    rows = [
        {"epoch": n + 1, "loss": 2 / (n + 1), "accuracy": 1 - 0.5 / (n + 1), "val_loss": 2.1 / (n + 1), "val_accuracy": 1 - 0.6 / (n + 1)}
        for n in range(epochs)
    ]
    plots.save_curves(History(rows), tmp_path / "curves.png")
    (figure,) = drawn
    check(figure)
    left, right = figure.axes
    for axes in (left, right):
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)  # there is no epoch 1.02
        assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    assert left.lines[0].get_ydata().tolist() == [row["loss"] for row in rows]
    assert right.lines[1].get_ydata() == pytest.approx([100 * row["val_accuracy"] for row in rows])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["keras", "lenet5x5"])
def test_filters_and_features(drawn, tmp_path, name, channels):
    model = gc.network(name, 10).build((channels, 14, 20), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (channels, 14, 20)).astype(np.uint8)
    assert plots.save_filters(model, tmp_path / "filters.png")
    assert plots.save_features(model, image, tmp_path / "features.png", "the first test image: " + "very " * 40 + "long, predicted $x")
    filters, features = drawn
    check(filters)
    check(features)
    assert "32 filters of conv2d_1" in filters.axes[0].get_title()
    titles = [axes.get_title() for axes in features.axes]
    assert features.axes[0].images[0].get_clim() == (0, 255)  # the image as it is: one of a single grey is not black
    assert titles[0].startswith("the first test image: very") and len(titles[0]) <= 100
    assert titles[1].startswith("conv2d_1: 32 maps of ") and len(titles) == (3 if name == "keras" else 5)
    assert (tmp_path / "features.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("channels", "size", "wrong"), [(1, (8, 8), 1), (1, (28, 28), 9), (3, (32, 48), 55), (3, (600, 300), 3)])
def test_mistakes(drawn, tmp_path, channels, size, wrong):
    rng = np.random.default_rng(1)
    names = ["a very long class name indeed", "$x_1$", "c", "d"]
    labels, scores = rng.integers(0, 4, 60), np.full((60, 4), 0.1)
    guesses = np.where(np.arange(60) < wrong, (labels + 1) % 4, labels)
    scores[np.arange(60), guesses] = 0.7
    scores[np.arange(60), labels] += np.linspace(0.05, 0, 60)  # the last of the wrong ones is the worst
    images = rng.integers(0, 256, (60, channels, *size)).astype(np.uint8)
    assert plots.save_mistakes(images, labels, scores, names, tmp_path / "mistakes.png")
    (figure,) = drawn
    check(figure)
    texts = figure.axes[0].texts
    assert len(texts) == min(wrong, 40) and texts[0].get_text() == (
        f"{plots._short(names[labels[wrong - 1]], 16)}\n→ {plots._short(names[guesses[wrong - 1]], 13)}, 70 %"
    )
    count = f"the worst 40 of {wrong}" if wrong > 40 else f"{wrong}"
    assert figure.axes[0].get_title().startswith(f"{count} mistake{'s' if wrong > 1 else ''} among 60 images")
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    shown = figure.axes[0].images[0].get_array()
    if channels == 3 and size == (32, 48):  # each pixel of the worst one, in the place of the first
        np.testing.assert_array_equal(shown[:64:2, :96:2], images[wrong - 1].transpose(1, 2, 0))


def test_no_mistakes_no_picture(tmp_path):
    images = np.zeros((2, 1, 4, 4), np.uint8)
    assert not plots.save_mistakes(images, np.array([0, 1]), np.eye(2), ["a", "b"], tmp_path / "mistakes.png")
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_maps_has_no_such_pictures(tmp_path):
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 6, 6), device="cpu")
    assert not plots.save_filters(model, tmp_path / "filters.png")
    assert not plots.save_features(model, np.zeros((1, 6, 6), np.uint8), tmp_path / "features.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for names in ("controls", "no formula", "no glyph", "long") for name in NAMES[names]])
def test_a_layer_may_have_any_name(drawn, tmp_path, name):
    model = gc.network("keras", 10).build((1, 14, 14), device="cpu")
    model.layers[0].name = name
    assert plots.save_filters(model, tmp_path / "filters.png")
    assert plots.save_features(model, np.zeros((1, 14, 14), np.uint8), tmp_path / "features.png")
    for figure in drawn:
        check(figure)
        assert all(title.isprintable() for title in (axes.get_title() for axes in figure.axes))
