"""The page as a file: that it is whole, strict and closed to the outside, and what is refused before it is written. No browser here."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import viewing
from gpucnn.errors import ArgumentError, DataError, GpucnnError, ShapeError
from gpucnn.layers import LAYERS
from gpucnn.layers.activations import ACTIVATIONS
from gpucnn.viewing import graph, pictures, writer
from gpucnn.viewing.graph import OPERATIONS, Graph

PAGE = Path(str(resources.files("gpucnn.viewing"))) / "page"


def model(units: int = 3) -> gc.Sequential:
    return gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(units)).build((1, 5, 5), seed=0, device="cpu")


def part(page: str, name: str) -> str:
    found = re.search(rf'<script[^>]* id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found
    return found[1]


def test_the_policy_allows_this_script_and_this_style_and_nothing_else() -> None:
    page = viewing.html(model())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#x27;", "'").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["worker-src"] == "blob:" and rules["img-src"] == "data:"
    for kind, text in (("script-src", part(page, "program")), ("style-src", re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1])):  # type: ignore[index]
        assert rules[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "worker-src", "base-uri", "form-action"}
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:,|#)\w""", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    assert not re.search(r"https?://", page) and " style=" not in page and not re.search(r"<[^>]* on\w+=", page.split("<script")[0])


def test_modules_import_what_is_exported_before_them_and_every_file_is_in_the_page() -> None:
    seen: dict[str, set[str]] = {}
    for name in writer.SCRIPTS:
        text = (PAGE / name).read_text(encoding="utf-8")
        for names, file in writer.IMPORT.findall(text):
            wanted = {each.strip() for each in names.strip("{} \n").split(",") if each.strip()}
            assert wanted <= seen[file], f"{name} imports {wanted - seen[file]} of {file}"
            used = re.sub(r"^import .*$", "", text, flags=re.MULTILINE)
            assert all(re.search(rf"(?<![\w$]){re.escape(each)}(?![\w$])", used) for each in wanted), (
                f"{name} does not need all of {wanted}"
            )
        assert text.count("import {") == len(writer.IMPORT.findall(text)) and "export default" not in text
        seen[name] = {name for _, name in writer.EXPORT.findall(text)}
    assert {path.name for path in PAGE.iterdir()} == {*writer.SCRIPTS, *writer.STYLES, "page.html"}
    assert not re.search(r"^(import|export)\b", writer.bundle(), re.MULTILINE)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 320 for path in PAGE.iterdir()), (
        "files that can be read in one sitting"
    )
    unsafe = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(", "XMLHttpRequest")
    assert not [word for word in unsafe if word in writer.bundle()]


def test_the_page_knows_every_layer_and_activation() -> None:
    scripts = {name: (PAGE / name).read_text(encoding="utf-8") for name in writer.SCRIPTS}
    table = scripts["layers.js"].split("export const OPERATIONS = {")[1].split("\n};")[0]
    assert set(re.findall(r"^  (\w+):", table, re.MULTILINE)) == {*OPERATIONS.values(), "add", "concat"}
    forms = scripts["explain.js"].split("const FORMS = {")[1].split("\n};")[0]
    assert set(re.findall(r"^  (\w+):", forms, re.MULTILINE)) == {*OPERATIONS.values(), "add", "concat"}
    names = scripts["activations.js"].split("export const ACTIVATIONS = {")[1].split("\n};")[0]
    assert set(ACTIVATIONS) >= graph.COMPUTED == {*re.findall(r"^  (\w+):", names, re.MULTILINE), "softmax"}
    known = {kind.__name__ for kind in OPERATIONS} | {"Stack", "SeparableConv2D", "Residual", "Concat"}
    assert known <= set(LAYERS) and len(known) >= 25, "what is not among them is drawn as a box"
    words = scripts["words.js"].split("const SENTENCES = {")[1].split("\n};")[0]
    assert {*OPERATIONS.values(), "add", "concat", "input", "opaque"} == set(re.findall(r"^  (\w+):", words, re.MULTILINE))


def test_the_weights_are_in_the_page_to_the_last_bit() -> None:
    made = model()
    page = viewing.html(made)
    described: Any = json.loads(part(page, "model"))
    values = np.frombuffer(base64.b64decode(part(page, "weights")), "<f4")
    conv = described["nodes"][1]
    at, size = conv["weight"]["at"], int(np.prod(conv["weight"]["shape"]))
    assert np.array_equal(values[at : at + size], made.parameters["conv2d_1.weight"].value.reshape(-1))
    assert values.size == sum(array.value.size for array in made.parameters.values()) == described["parameters"]
    halves = np.frombuffer(base64.b64decode(part(viewing.html(made, dtype="float16"), "weights")), "<f2")
    assert np.array_equal(halves, values.astype(np.float16))


def test_names_end_no_script() -> None:
    made = model()
    made.metadata = {"network": "</script><b>", "class_names": ["</script>", "<!--", "&"], "dataset_name": "]]>"}
    page = viewing.html(made)
    assert page.count("</script>") == 5 and "<b>" not in page and "<!--" not in page
    assert json.loads(part(page, "model"))["classes"] == ["</script>", "<!--", "&"]
    assert "&lt;/script&gt;&lt;b&gt;" in page


@pytest.mark.parametrize("names", [["a", "b"], "abc", [1, 2, 3], None, {"a": 1}])
def test_class_names_that_do_not_fit_are_numbers(names: Any) -> None:
    made = model()
    made.metadata = {"class_names": names, "network": 7, "dataset_name": ["x"], "test_accuracy": "much"}
    described = json.loads(part(viewing.html(made), "model"))
    assert described["classes"] == ["0", "1", "2"] and described["accuracy"] is None and described["dataset"] == ""


def test_too_large_a_model_is_told_how_to_become_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LIMIT", 400)
    wanted = r"weights are 688 B as float32, and a page takes at most 400 B: --dtype float16 halves it, .* dense_1, which has 84% of them"
    large = model(units=8)  # 18 + 2, 18 · 8 + 8 = 152 numbers
    assert Graph(large).size == 172
    with pytest.raises(DataError, match=wanted):
        viewing.html(large)
    assert viewing.html(large, dtype="float16")
    monkeypatch.setattr(writer, "LIMIT", 300)
    with pytest.raises(DataError, match=r"344 B as float16, and a page takes at most 300 B: fewer units"):
        viewing.html(large, dtype="float16")


def test_what_is_refused(tmp_path: Path) -> None:
    made = model()
    with pytest.raises(ArgumentError, match="dtype must be float32 or float16, got 'float8'"):
        viewing.html(made, dtype="float8")
    made.parameters["conv2d_1.weight"].value[0, 0, 0, 0] = 70000
    with pytest.raises(DataError, match="too large for float16"):
        viewing.html(made, dtype="float16")
    with pytest.raises(ShapeError, match=r"images must be \(number, 1, 5, 5\), got an array of shape \(2, 1, 6, 6\)"):
        viewing.write(made, tmp_path / "a.html", images=np.zeros((2, 1, 6, 6), np.uint8))
    with pytest.raises(DataError, match="must lie within 0 … 1"):
        viewing.write(made, tmp_path / "a.html", images=np.full((2, 1, 5, 5), 3.0))
    with pytest.raises(DataError, match="must be uint8, or floats"):
        viewing.write(made, tmp_path / "a.html", images=np.zeros((2, 1, 5, 5), np.int64))
    with pytest.raises(ShapeError, match="a page takes at most 40 images"):
        viewing.write(made, tmp_path / "a.html", images=np.zeros((41, 1, 5, 5), np.uint8))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written .* name another file with -o"):
        viewing.write(made, tmp_path / "file" / "a.html")
    with pytest.raises(GpucnnError, match="not built yet"):
        viewing.html(gc.Sequential(gc.Dense(2)))
    assert not list(tmp_path.glob("*.html*"))


class Broken(gc.layers.Layer):
    """A layer of the user's own that fails."""

    def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        raise KeyError("oh")


class Short(Broken):
    """A layer that gives another shape than it says."""

    def _forward(self, x: Any, training: bool) -> Any:
        return x[..., :-1]


class Twice(Broken):
    """A layer that gives each image twice."""

    def _forward(self, x: Any, training: bool) -> Any:
        return np.concatenate([x, x])


def test_a_layer_of_ones_own_that_fails_is_named() -> None:
    images = np.zeros((1, 1, 5, 5), np.uint8)
    for kind, words in (
        (Broken, r"layer 'broken_1', which is not one of gpucnn's layers, fails: KeyError"),
        (Short, r"layer 'short_1' must return \(batch, 1, 5, 5\), got an array of shape \(1, 1, 5, 4\)"),
        (Twice, r"layer 'twice_1' must return \(1, 1, 5, 5\), got an array of shape \(2, 1, 5, 5\)"),
    ):
        made = gc.Sequential(kind(), gc.Flatten(), gc.Dense(2)).build((1, 5, 5), device="cpu")
        with pytest.raises(GpucnnError, match=words):
            viewing.html(made, pictures.given(made, images))
        assert viewing.html(made), "without images nothing of it is computed"


def test_a_layer_derived_from_ours_is_not_taken_for_it() -> None:
    class Mine(gc.Conv2D):
        def _forward(self, x: Any, training: bool) -> Any:
            return -super()._forward(x, training)

    made = gc.Sequential(Mine(2, 3), gc.Flatten(), gc.Dense(2)).build((1, 5, 5), device="cpu")
    assert Graph(made).opaque == ["mine_1"]


def test_what_the_page_does_not_know_is_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gc.Sequential(gc.Conv2D(2, 3, activation="gelu"), gc.Residual(gc.ReLU(), activation="tanh"), gc.Flatten(), gc.Dense(2))
    made.build((1, 5, 5), device="cpu")
    assert Graph(made).opaque == []
    monkeypatch.setattr(graph, "COMPUTED", frozenset({"relu"}))
    monkeypatch.delitem(OPERATIONS, gc.Flatten)
    assert Graph(made).opaque == ["conv2d_1", "residual_1", "flatten_1"]
    outputs = graph.opaque_outputs(made, Graph(made), np.ones((2, 1, 5, 5), np.float32))
    assert np.array_equal(outputs["residual_1"], made.features(np.ones((2, 1, 5, 5), np.float32), "residual_1"))


def test_what_is_left_to_the_loss_is_added_as_predict_adds_it() -> None:
    raw = model()
    assert [node["name"] for node in Graph(raw).nodes][-1] == "probabilities", "a classifier's, as gpucnn predict takes it"
    raw.compile(loss="binary_crossentropy")
    assert Graph(raw).nodes[-1]["activation"] == "sigmoid"
    raw.compile(loss="mse")
    assert Graph(raw).scores is None and Graph(raw).nodes[-1]["name"] == "dense_1"
    own = gc.Sequential(gc.Flatten(), gc.Dense(3, activation="softmax")).build((1, 5, 5), device="cpu")
    assert Graph(own).scores == 2 and len(Graph(own).nodes) == 3
    stack = gc.Sequential(gc.Flatten(), gc.Stack(gc.Dense(3, activation="softmax"))).build((1, 5, 5), device="cpu")
    assert [node["name"] for node in Graph(stack).nodes] == ["input", "flatten_1", "stack_1.dense_1"] and Graph(stack).scores == 2
    raw = gc.Sequential(gc.Flatten(), gc.Dense(3, activation="tanh")).build((1, 5, 5), device="cpu").compile()
    assert Graph(raw).nodes[-1]["name"] == "probabilities" and Graph(raw).scores == 3


def test_blocks_stand_as_they_are_built() -> None:
    made = gc.Sequential(gc.residual_block(4, stride=2), gc.inception(2, (1, 2), (1, 2), 2)).build((2, 8, 8), device="cpu")
    graph = Graph(made)
    _, residual, concat = graph.tree
    names = [graph.nodes[i]["name"] for i in residual["rows"][0]]
    assert names == ["residual_1.conv2d_1", "residual_1.batchnorm2d_1", "residual_1.conv2d_2", "residual_1.batchnorm2d_2"]
    assert graph.nodes[residual["end"]]["inputs"] == [residual["rows"][0][-1], residual["rows"][1][0]["rows"][0][-1]]
    assert len(concat["rows"]) == 4 and graph.nodes[concat["end"]]["op"] == "concat"
    assert all(
        made[node["name"]].output_shape == tuple(node["shape"]) for node in graph.nodes if node["name"] in ("residual_1", "concat_1")
    )


def test_images_of_a_data_set_one_of_each_class() -> None:
    made = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((3, 4, 4), device="cpu")
    images = np.arange(6 * 16, dtype=np.uint8).reshape(6, 1, 4, 4)
    labels = np.array([2, 0, 2, 0, 1, 1], np.int32)
    data = gc.data.Dataset("set", images, labels, images, labels, ("a", "b\x1b", "c"), "made")
    found = pictures.of_dataset(made, data)
    assert found.titles == ["a", "b\\x1b", "c"] and found.images.shape == (3, 3, 4, 4), "grey as colour, the input size of the model"
    assert np.array_equal(found.images[:, 0], images[[1, 4, 0], 0])
    assert pictures.dark_paper(found) and not pictures.dark_paper(pictures.given(made, np.full((1, 3, 4, 4), 200, np.uint8)))


def test_images_of_a_training_on_a_folder_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a folder has images of one size, and is not asked to bring them to another."""
    images = np.arange(6 * 25, dtype=np.uint8).reshape(6, 5, 5)
    for name, array in (("x_train", images), ("y_train", np.arange(6) % 3), ("x_test", images[:3]), ("y_test", np.arange(3))):
        np.save(tmp_path / f"{name}.npy", array)
    monkeypatch.setattr("gpucnn.experiment.trained_on", lambda model, path: (str(tmp_path), None))
    found = pictures.of_training(model(), tmp_path / "model.safetensors")
    assert found.note == "" and found.titles == ["0", "1", "2"]
    np.testing.assert_array_equal(found.images[:, 0], images[:3])
