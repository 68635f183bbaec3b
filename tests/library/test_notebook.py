"""How a model, its history and its training look in a notebook, and what short descriptions say."""

import re
import sys
import types
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import notebook, surroundings
from gpucnn.training import loop, progress
from gpucnn.training.callbacks import History


def network():
    return gc.Sequential(gc.Conv2D(4, 3, activation="relu"), gc.Residual(gc.Conv2D(4, 3, padding="same")), gc.Flatten(), gc.Dense(3))


def cells(page):
    """The rows of the table in a page, each a list of words; a page that is not well-formed HTML fails here."""
    tree = ElementTree.fromstring(f"<page>{page}</page>")
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


def test_a_model_is_a_table():
    model = network().build((1, 8, 8), device="cpu")
    rows = cells(model._repr_html_())
    assert rows[0] == ["layer", "output", "parameters", "multiply-adds", "kept for backward"]
    names = [row[0] for row in rows[1:]]
    assert names == ["conv2d_1 (relu)", "residual_1", "  0", "flatten_1", "dense_1", "total"] or names[0].startswith("conv2d_1")
    assert rows[1][1:3] == ["4 × 6 × 6", "40"] and rows[-1][2] == f"{model.parameter_count:,}"
    total = sum(int(row[3].replace(",", "")) for row in rows[1:-1] if not row[0].startswith(" "))
    assert rows[-1][3] == f"{total:,}"


def boxes(page):
    """The groups of a picture, each with what it says and its rectangles."""
    svg = ElementTree.fromstring(f"<page>{page}</page>").find("{http://www.w3.org/2000/svg}svg")
    groups = svg.findall("{http://www.w3.org/2000/svg}g")
    return svg, [
        ([text.text for text in group.iter("{http://www.w3.org/2000/svg}text")], list(group.iter("{http://www.w3.org/2000/svg}rect")))
        for group in groups
    ]


def test_a_model_is_a_picture_as_well():
    model = network().build((1, 8, 8), device="cpu")
    svg, drawn = boxes(model._repr_html_())
    assert [said[0] for said, _ in drawn] == ["input", "conv2d_1", "residual_1", "flatten_1", "dense_1"]
    assert drawn[1][0][1:] == ["Conv2D, relu", "4 × 6 × 6"] and drawn[4][0][2] == "3"
    heights = [float(rects[-1].get("height")) for _, rects in drawn]
    assert heights[0] > heights[1] == heights[2]  # 8 rows, 6 and 6
    assert heights[0] == heights[3] > heights[4]  # the longest row of features, 144, is as high as the largest image
    assert [len(rects) for _, rects in drawn] == [1, 2, 2, 1, 1]  # four maps lie behind one another
    wide, high = (float(number) for number in svg.get("viewBox").split()[2:])
    for _, rects in drawn:
        for rect in rects:
            x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            assert x >= 0 and x + width <= wide and y >= 0 and y + height <= high
    colours = {each.get(kind) for each in svg.iter() for kind in ("fill", "stroke")} - {None, "none", "currentColor", *notebook.COLOURS}
    assert not colours  # nothing that would be gone on dark


def test_the_picture_of_a_deep_network_and_of_odd_names():
    class Odd(gc.Flatten):
        pass

    Odd.__name__ = "<script>alert('x')</script>"
    deep = gc.Sequential([gc.Dense(1) for _ in range(300)]).build((3,), device="cpu")
    svg, drawn = boxes(deep._repr_html_())
    assert len(drawn) == 42 and drawn[21][0][:2] == ["…", "260 more"] and drawn[-1][0][0] == "dense_300"
    assert float(svg.get("width")) == 7 * 112 and float(svg.get("height")) == 6 * 136
    odd = gc.Sequential(gc.Concat(gc.Conv2D(5000, 1), gc.Conv2D(2, 1)), Odd(), gc.Dense(2)).build((1, 1, 1), device="cpu")
    _, drawn = boxes(odd._repr_html_())  # well-formed: the name is text
    assert drawn[1][0][1:] == ["Concat of 2", "5002 × 1 × 1"] and len(drawn[1][1]) == 5
    assert "<script" not in odd._repr_html_()


def test_a_model_that_is_not_built_is_one_too():
    rows = cells(network()._repr_html_())
    assert rows[0] == ["layer", "made by"] and len(rows) == 5 and rows[4][1].startswith("Dense(units=3")


def test_a_history_is_a_table_and_two_pictures():
    rows = [
        {"epoch": n, "loss": 2 / n, "accuracy": n / 10, "val_loss": 3 / n, "seconds": 1.5, "images_per_second": 12345.6} for n in (1, 2, 3)
    ]
    page = History(rows)._repr_html_()
    table = cells(page)
    assert table[0][:3] == ["epoch", "loss", "accuracy"] and table[2] == ["2", "1", "20.00 %", "1.5", "1.5", "12,346"]
    assert page.count("<svg") == 2 and page.count("<polyline") == 3
    (points, *_) = re.findall(r'points="([^"]*)"', page)
    x, y = zip(*(map(float, point.split(",")) for point in points.split()), strict=True)
    assert x == (36, 160, 284) and y[0] < y[1] < y[2]  # the loss falls, and the axis points down


@pytest.mark.parametrize("rows", [[], [{"epoch": 1, "loss": float("nan")}], [{"epoch": 1, "loss": 1.0}], [{"loss": 1.0}], [{}]])
def test_a_history_with_next_to_nothing_in_it(rows):
    cells(History(rows)._repr_html_())


def test_a_long_history_is_shortened():
    page = History([{"epoch": n, "loss": 1.0 / n} for n in range(1, 201)])._repr_html_()
    assert len(cells(page)) == 26 and "175 epochs are left out" in page and "<circle" not in page


def test_words_of_others_are_no_html():
    model = gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 2, 2), device="cpu")
    model.layers[1].name = "<script>alert(1)</script>\x1b[31m"
    page = model._repr_html_()
    assert "<script" not in page and "\x1b" not in page and cells(page)[2][0] == "<script>alert(1)</script>\\x1b[31m"
    assert "<b" not in notebook.curves("<b>", {"<i>": [(1, 2)]})


# Progress of fit.


class ZMQInteractiveShell:
    pass


@pytest.fixture
def in_a_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell))


def test_fit_shows_its_epochs_in_a_notebook(in_a_notebook, monkeypatch, capsys):
    """A line for each, or the bar where something is there to draw it."""
    assert surroundings.in_notebook()
    model = gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 2, 2), device="cpu")
    model.compile()
    x, y = np.zeros((6, 1, 2, 2), np.float32), np.arange(6) % 2
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    model.fit(x, y, epochs=2)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    model.fit(x, y, epochs=1, verbose=False)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress, "find_spec", lambda name: object())
    assert progress.Progress().bar and loop.shown_unasked()


@pytest.mark.parametrize("ipython", [None, types.SimpleNamespace(), types.SimpleNamespace(get_ipython=lambda: None)])
def test_elsewhere_it_does_not(monkeypatch, ipython, capsys):
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not surroundings.in_notebook() and not progress.Progress().bar and not loop.shown_unasked()


@pytest.mark.slow
def test_in_a_real_notebook():
    """In a kernel of its own: a model and a history as HTML, and a bar that leaves the lines of the epochs."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("ipywidgets", reason="ipywidgets are not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "import gpucnn as gc, numpy as np\n"
                "model = gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 2, 2), device='cpu')\n"
                "model.compile()\nmodel"
            ),
            nbformat.v4.new_code_cell("history = model.fit(np.zeros((6, 1, 2, 2), np.float32), np.arange(6) % 2, epochs=2)"),
            nbformat.v4.new_code_cell("history"),
        ]
    )
    nbclient.NotebookClient(book, timeout=120).execute()
    pages = [output.data.get("text/html", "") for cell in book.cells for output in cell.outputs if "data" in output]
    assert "dense_1" in pages[0] and "<svg" in pages[-1]
    shown = "".join(output.get("text", "") + str(output.get("data", "")) for output in book.cells[1].outputs)
    assert "epoch 1/2" in shown and "epoch 2/2" in shown and "Warning" not in shown


# Descriptions.


def test_short_descriptions():
    model = gc.Sequential(gc.Conv2D(4, 3), gc.Flatten(), gc.Dense(3))
    assert "Conv2D(filters=4" in repr(model)
    model.build((1, 8, 8), device="cpu")
    model.layers[0].trainable = False
    model.build((1, 8, 8), device="cpu")
    assert repr(model.parameters["dense_1.bias"]) == "<Parameter bias (3,), float32>"
    assert repr(model.parameters["conv2d_1.weight"]) == "<Parameter weight (4, 1, 3, 3), float32, frozen>"
    assert repr(gc.Parameter("w", (2,), "zeros")) == "<Parameter w (2,), not built>"
    batches = gc.data.Batches(np.zeros((5, 1, 8, 8), np.uint8), np.zeros(5, int), 2)
    assert repr(batches) == "<Batches of 2: 5 images 1×8×8, 3 steps an epoch>"
    for thing, piece in (
        (gc.Adam(1e-3), "Adam(learning_rate=0.001"),
        (gc.Cosine(0.1, 50), "Cosine(learning_rate=0.1, steps=50"),
        (gc.EarlyStopping(), "EarlyStopping(monitor='val_loss'"),
        (gc.CSVLog("a.csv"), "CSVLog(path="),
        (gc.Progress(), "Progress("),
        (History([{"epoch": 1, "loss": 0.5}]), "<History of 1 epoch: loss 0.5>"),
    ):
        assert repr(thing).startswith(piece) and len(repr(thing)) < 250 and "object at" not in repr(thing)
