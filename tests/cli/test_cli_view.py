"""gpucnn view: the page of a model or a run, and what is said where there is none to be had."""

from __future__ import annotations

import json
import re
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.cli import app


def run(*args: Any) -> tuple[int, str]:
    """Status and output of a command, in this process."""
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [str(arg) for arg in args])
    words = f"{done.stdout}{'' if done.exception is None or isinstance(done.exception, SystemExit) else done.exception}"
    return done.exit_code, words


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 6, 6), seed=0, device="cpu").compile()
    made.metadata = {"class_names": ["dark", "bright"], "dataset": "nowhere", "network": "tiny"}
    (tmp_path / "run").mkdir()
    made.save(tmp_path / "run" / "model.safetensors")
    return tmp_path / "run" / "model.safetensors"


def described(page: Path) -> Any:
    found = re.search(r'id="model">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def folder_of_images(folder: Path, count: int, size: int = 6) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        np.save(folder / f"{number:02d}.npy", np.full((size, size), number, np.uint8))
    return folder


def test_of_a_file_and_of_a_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = folder_of_images(tmp_path / "images", 3)
    status, out = run("view", model, "--images", images, "--no-open")
    assert status == 0 and re.fullmatch(r"wrote     view.html \(\d+\.\d KiB\): open it in any browser\n", out)
    page = described(tmp_path / "view.html")
    other = folder_of_images(tmp_path / "other size", 1, size=7)
    assert run("view", model, "--images", other, "-o", "other.html", "--no-open")[0] == 0, "brought to the model's size, as predict does"
    assert page["titles"] == ["00.npy", "01.npy", "02.npy"] and page["classes"] == ["dark", "bright"] and page["title"] == "tiny"
    status, out = run("view", model.parent, "-o", "deep/er/page.html", "--no-open", "--dtype", "float16")
    assert status == 0 and "note: this page has no image of its training set" in out and "--dataset" not in out
    assert described(tmp_path / "deep/er/page.html")["dtype"] == "float16"


def test_a_browser_is_opened_where_there_is_a_screen(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert run("view", model, "-o", tmp_path / "a b.html")[0] == 0 and asked == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert run("view", model, "-o", tmp_path / "a b.html")[0] == 0
    assert asked == [(tmp_path / "a b.html").as_uri()]
    assert run("view", model, "-o", tmp_path / "a b.html", "--no-open")[0] == 0 and len(asked) == 1


def test_forty_images_at_the_most(model: Path, tmp_path: Path) -> None:
    status, out = run("view", model, "--images", folder_of_images(tmp_path / "many", 43), "--no-open", "-o", tmp_path / "page.html")
    assert status == 0 and "note: the first 40 of 43 images" in out
    assert len(described(tmp_path / "page.html")["titles"]) == 40


def test_each_image_once_of_folders_named_twice_or_within_each_other(model: Path, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "set" / "a", 2)
    folder_of_images(tmp_path / "set" / "b", 1)
    for folders in (("set", "set"), ("set", "set/b"), ("set/a", "set/../set"), ("set/a", "set/b")):
        command = [word for name in folders for word in ("--images", tmp_path / name)]
        status, out = run("view", model, *command, "--no-open", "-o", tmp_path / "page.html")
        assert status == 0 and len(described(tmp_path / "page.html")["titles"]) == 3, (folders, out)


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("no model")
    wrong = folder_of_images(tmp_path / "wrong", 1, size=7)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoint.safetensors").write_bytes(b"")
    some = folder_of_images(tmp_path / "some", 2)
    image = next(some.iterdir())
    before = image.read_bytes()
    target = tmp_path / "page.html"
    for given, expected in (
        ([words], "is not a safetensors file"),
        ([tmp_path / "nothing"], "does not exist"),
        ([tmp_path / "images"], "does not exist"),
        ([unfinished], "without model.safetensors (its run is not complete: continue it with gpucnn train --resume)"),
        ([wrong], "is a folder without model.safetensors (there is no run)"),
        ([model, "--images", unfinished], "contains no images"),
        ([model, "--dtype", "int8"], "dtype must be float32 or float16, got 'int8'"),
        ([model, "-o", model], "is the model itself: name another file with -o"),
        ([model, "--images", some, "-o", image], "is one of the images: name another file with -o"),
        ([model, "-o", words / "page.html"], "cannot be written"),
        ([model, "-o", tmp_path], "it is a folder: name a file in it"),
    ):
        status, out = run("view", "-o", target, *given, "--no-open")
        assert status != 0 and expected in out, (given, out)
    assert not target.exists() and not list(tmp_path.glob(".*.partial"))
    assert gc.load(model, device="cpu").input_shape == (1, 6, 6) and image.read_bytes() == before


def test_a_folder_of_data_that_is_named_has_to_be_there_and_to_have_it(model: Path, tmp_path: Path) -> None:
    made = gc.load(model, device="cpu")
    made.metadata["dataset"] = "mnist"
    made.save(model)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for folder, words in (
        ("none", "does not exist: check the path, or leave it out"),
        ("empty", "MNIST was not found in"),
        ("file", "is a file, expected a folder: name the folder that contains the data"),
    ):
        status, out = run("view", model, "--no-open", "-o", tmp_path / "page.html", "--data-dir", tmp_path / folder)
        assert status != 0 and words in out and "--dataset" not in out and "downloaded" not in out
    assert not (tmp_path / "page.html").exists()


def test_a_model_with_a_layer_that_is_not_known_says_which(model: Path, tmp_path: Path) -> None:
    raw = model.read_bytes()
    changed = raw.replace(b'\\"Flatten\\"', b'\\"Flutter\\"')
    assert changed != raw
    (tmp_path / "other.safetensors").write_bytes(changed)
    status, out = run("view", tmp_path / "other.safetensors", "--no-open")
    assert status != 0 and "'Flutter'" in out and "gpucnn.viewing.write" in out


def test_train_says_that_there_is_a_page_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    status, out = run("train", "--dataset", "digits", "--epochs", "1", "--output", "a run", "--device", "cpu")
    assert status == 0 and "look      gpucnn view 'a run' writes a page that shows what each layer does" in out.splitlines()
    status, out = run("view", "a run", "--no-open")
    assert status == 0 and "note" not in out
    page = described(tmp_path / "view.html")
    assert page["titles"] == list("0123456789") and page["prepare"]["box"] == 8 and page["accuracy"] > 0.3
