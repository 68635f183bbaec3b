"""What predict and evaluate make of images that are not as the model takes them: sizes, colours, and light where it was dark."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

import gpucnn as gc

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


@pytest.fixture
def model() -> Path:
    """A model of (1, 6, 6) images that answers "bright" as sure as the image is, trained on dark backgrounds as far as its file says."""
    made = gc.Sequential(gc.GlobalAvgPool2D(), gc.Dense(2)).build((1, 6, 6), device="cpu")
    made.parameters["dense_1.weight"].value[...] = np.array([[-4], [4]]).reshape(made.parameters["dense_1.weight"].value.shape)
    made.parameters["dense_1.bias"].value[...] = [2, -2]
    made.metadata.update(class_names=["dark", "bright"], background="dark")
    made.save("m.safetensors")
    return Path("m.safetensors")


def picture(name: str, size: tuple[int, int] = (6, 6), border: int = 0, inside: int = 255, mode: str = "L", wide: int = 1) -> Path:
    array = np.full(size[::-1], border, np.uint8)
    array[wide:-wide, wide:-wide] = inside
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(name)
    return Path(name)


def test_sizes_and_colours(gpucnn, model):
    picture("same.png")
    wide = picture("wide.png", (40, 20))
    result = gpucnn("predict", model, wide, "--device", "cpu")
    assert result.status == 0 and result.out.splitlines()[0] == "note: wide.png, 20×40, was resized to 6×6, the input size of the model"
    picture("set/colour.png", (12, 12), mode="RGB")
    picture("set/small.png", (3, 3))
    picture("set/as it is.png")
    notes = gpucnn("predict", model, "set", "--device", "cpu").out.splitlines()
    assert notes[0] == "note: 2 images (set/colour.png, 12×12 in colour) were resized to 6×6 in grey, the input size of the model"
    assert [line.partition(".png")[0] for line in notes[1:]] == ["set/as it is", "set/colour", "set/small"]
    assert "note" not in gpucnn("predict", model, "same.png", "--device", "cpu").out
    picture("red.png", mode="RGB")
    note = gpucnn("predict", model, "red.png", "--device", "cpu").out.splitlines()[0]
    assert note == "note: red.png, 6×6 in colour, was converted to 6×6 in grey, the input size of the model"


def test_a_folder_that_cannot_be_read_is_not_called_empty(gpucnn, model, monkeypatch):
    picture("set/a/1.png")
    picture("set/b/2.png")
    scan = os.scandir

    def closed(path):
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)  # permissions do not bind root
    for folder in ("set", "set/b"):
        assert "set/b cannot be read (Permission denied): check its permissions" in gpucnn("predict", model, folder).sentence


def test_what_is_in_a_closed_folder_is_said_to_be_closed(gpucnn, model, monkeypatch):
    original = os.stat

    def closed(path, *given, **named):
        if str(path).startswith("closed/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *given, **named)

    Path("closed").mkdir()
    monkeypatch.setattr(os, "stat", closed)
    for command in (("predict", model, "closed/1.png"), ("predict", "closed", "x.png"), ("evaluate", "closed/m.safetensors")):
        assert re.search(r"closed/\S+ cannot be read \(Permission denied\): check the path of a", gpucnn(*command).sentence)


def test_an_image_that_is_named_twice_is_predicted_once(gpucnn, model):
    inside, outside = picture("set/a/1.png"), picture("set/2.png")
    result = gpucnn("predict", model, inside, "set", "set/a", "set/../set", inside.absolute(), "--device", "cpu", "--csv", "out.csv")
    assert result.status == 0 and [line.split()[0] for line in result.out.splitlines()[:-1]] == [str(inside), str(outside)]
    assert len(Path("out.csv").read_text().splitlines()) == 3


@pytest.mark.skipif(os.name == "nt", reason="no file name has a line end there")
def test_a_line_end_in_a_name_starts_no_line(gpucnn, model):
    wide = picture("wide\nnote: all is well.png", (40, 20), border=255, inside=0)
    lines = gpucnn("predict", model, wide, "--device", "cpu", "--csv", "out\n.csv").out.splitlines()
    assert len(lines) == 3 and all("\\n" in line for line in lines)
    assert lines[0] == r"note: wide\nnote: all is well.png, 20×40, was resized to 6×6, the input size of the model"


def test_images_that_look_inverted(gpucnn, model):
    light, dark = picture("light.png", border=255, inside=0), picture("dark.png")
    plain = gpucnn("predict", model, light, dark, "--device", "cpu").out.splitlines()
    said = "note: light.png looks inverted, with a light background, while the training images had a dark one: "
    assert plain[0] == said + "--invert auto corrects that" and len(plain) == 3
    mended = gpucnn("predict", model, light, dark, "--device", "cpu", "--invert", "auto").out.splitlines()
    assert mended[0] == said + "they were inverted"
    answers = [line.split("png")[1].split() for line in mended[1:]]
    assert answers[0] == answers[1] == plain[2].split("png")[1].split() != plain[1].split("png")[1].split()
    both = gpucnn("predict", model, light, dark, "--device", "cpu", "--invert", "always").out.splitlines()
    assert [line.split("png")[1].split() for line in both] == [answers[0], plain[1].split("png")[1].split()]
    assert "unknown way to invert 'sometimes'" in gpucnn("predict", model, light, "--invert", "sometimes").sentence


def test_without_a_noted_background_nothing_looks_inverted(gpucnn, model):
    network = gc.load(model, device="cpu")
    for noted in (None, "light", "something", 3):
        network.metadata["background"] = noted
        network.save("other.safetensors")
        result = gpucnn("predict", "other.safetensors", picture("light.png", border=255, inside=0), "--invert", "auto", "--device", "cpu")
        assert result.status == 0 and "note" not in result.out


def test_evaluate_of_a_folder_of_other_images(gpucnn, model):
    """Of another size, in colour, and inverted: as predict takes them, and the same answers."""
    for name, inside in (("bright", 0), ("dark", 255)):
        for index in range(5):
            picture(f"set/{name}/{index}.png", (24 + index, 24), border=255, inside=inside, mode="RGB", wide=7)
    model_ = gc.load(model, device="cpu")
    model_.metadata["class_names"] = ["bright", "dark"]
    model_.save("m.safetensors")
    command = ("evaluate", "m.safetensors", "--dataset", "./set", "--device", "cpu")
    plain, mended = gpucnn(*command), gpucnn(*command, "--invert", "auto")
    assert "note: the images look inverted, with a light background" in plain.out and "--invert auto corrects that" in plain.out
    assert "they were inverted" in mended.out and plain.status == mended.status == 0
    loss = [float(result.out.split("test loss ")[1].split()[0]) for result in (plain, mended)]
    assert loss[0] != loss[1]
    classes = gpucnn(*command, "--classes").out.splitlines()
    assert classes[-4].split() == ["class", "images", "recall", "precision", "F1", "mistaken", "for"]
    assert classes[-3].startswith("bright") and classes[-2].startswith("dark") and classes[-1].startswith("test accuracy")


def test_training_notes_the_background(gpucnn, bars_run, digits):
    assert gc.load(digits.model, device="cpu").metadata["background"] == "dark"
    assert gc.load(bars_run.model, device="cpu").metadata["background"] == "dark"


def test_training_leaves_a_report_and_the_worst_mistakes(digits):
    rows = (digits.path / "report.csv").read_text().splitlines()
    assert len(rows) == 11 and rows[0].startswith("class,images,right,recall")
    right, images = (sum(int(row.split(",")[column]) for row in rows[1:]) for column in (2, 1))
    assert digits.result.last == f"test accuracy {100 * right / images:.2f} %" and images == 360
    with Image.open(digits.path / "mistakes.png") as made:
        assert made.width > 1000
