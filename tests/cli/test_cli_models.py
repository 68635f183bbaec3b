"""gpucnn export and import, and the model card that train leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import gpucnn as gc
from gpucnn.cli import import_
from gpucnn.exchange.models import ENDINGS
from gpucnn.experiment import card


def small(path: Path) -> gc.Sequential:
    model = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3)).build((1, 6, 6), seed=4, device="cpu").compile()
    model.metadata = {"class_names": ["a", "b", "c"]}
    model.save(path)
    return model


@pytest.fixture
def onnx() -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")


def test_a_model_goes_out_and_comes_back(onnx, gpucnn, tmp_path):
    model = small(tmp_path / "m.safetensors")
    out = gpucnn("export", "m.safetensors", "m.onnx")
    assert (out.status, out.out, out.err) == (0, "wrote     m.onnx\n", "")
    back = gpucnn("import", "m.onnx", "-o", "back.safetensors")
    assert back.status == 0 and back.err == ""
    assert back.out.splitlines() == ["read      m.onnx: 3 layers, 119 parameters, input 1×6×6", "wrote     back.safetensors"]
    x = np.random.default_rng(0).random((2, 1, 6, 6), np.float32)
    again = gc.load("back.safetensors", device="cpu")
    np.testing.assert_allclose(again.predict(x), model.predict(x), atol=1e-6)  # probabilities: the file has the softmax
    assert again.metadata["class_names"] == ["a", "b", "c"]
    gpucnn("export", "m.safetensors", "raw.onnx", "--logits")
    gpucnn("import", "raw.onnx", "-o", "raw.safetensors")
    np.testing.assert_allclose(gc.load("raw.safetensors", device="cpu").predict(x), model.forward(x), atol=1e-5)


def test_one_layer_is_no_layers(gpucnn):
    small = gc.Sequential(gc.Dense(2)).build((3,), device="cpu")
    small.save("m.safetensors")
    save_file({name: np.array(array.value) for name, array in small.parameters.items()}, "weights.safetensors")
    result = gpucnn("import", "weights.safetensors", "--network", "m.safetensors", "-o", "back.safetensors")
    assert result.out.splitlines()[0] == "read      weights.safetensors: 1 layer, 8 parameters, input 3"


def test_what_is_imported_is_not_written_over(gpucnn, tmp_path):
    model = small(tmp_path / "m.safetensors")
    save_file({name: np.array(array.value) for name, array in model.parameters.items()}, "weights.safetensors")
    Path("names.json").write_text("{}", encoding="utf-8")
    kept = {name: Path(name).read_bytes() for name in ("m.safetensors", "weights.safetensors", "names.json")}
    for name, what in (("weights", "the file that is imported"), ("m", "the model that is the network"), ("names", "the map of names")):
        target = next(each for each in kept if each.startswith(name))
        given = ("--network", "m.safetensors", "--map", "names.json", "-o", target)
        assert f"{target} is {what}: name another file with -o" in gpucnn("import", "weights.safetensors", *given).sentence
    assert {name: Path(name).read_bytes() for name in kept} == kept


def test_what_is_not_taken_is_named_line_by_line_and_nothing_is_written(onnx, gpucnn, tmp_path):
    from onnx import TensorProto, helper, save

    nodes = [helper.make_node(kind, ["x"], [name], name=name) for kind, name in (("LRN", "one"), ("Mish", "y"))]
    nodes[0].attribute.append(helper.make_attribute("size", 3))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 4, 4]) for name in "xy"]
    save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])), "m.onnx")
    result = gpucnn("import", "m.onnx", "-o", "m.safetensors")
    assert result.status == 2 and result.out == ""
    assert result.err.splitlines() == [
        "  LRN 'one' has no equivalent layer in gpucnn",
        "  Mish 'y' has no equivalent layer in gpucnn",
        "gpucnn: m.onnx was not imported: LRN 'one' has no equivalent layer in gpucnn; Mish 'y' has no equivalent layer in gpucnn",
    ]
    assert not Path("m.safetensors").exists()


def test_weights_go_into_a_network_by_name_into_a_model_and_by_a_map(gpucnn, tmp_path):
    network = gc.network("lenet5", classes=3).build((1, 28, 28), seed=9, device="cpu")
    names = ["c1.0", "c1.1", "f5", "f6", "f7"]
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in network.parameters))
    tensors = {}
    for layer, name in zip(layers, names, strict=True):
        tensors |= {f"{name}.{field}": network.parameters[f"{layer}.{field}"].value.copy() for field in ("weight", "bias")}
    save_file(tensors, "w.safetensors")
    result = gpucnn("import", "w.safetensors", "-o", "m.safetensors", "--network", "LeNet5", "--classes", 3, "--input", "1x28x28")
    assert result.status == 0, result.err
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(gc.load("m.safetensors", device="cpu").predict(x), network.predict(x))
    small(Path("own.safetensors"))
    save_file(
        {
            "a.weight": np.ones((2, 1, 3, 3), np.float32),
            "a.bias": np.zeros(2, np.float32),
            "b.weight": np.zeros((3, 32), np.float32),
            "b.bias": np.array([1, 2, 3], np.float32),
        },
        "v.safetensors",
    )
    Path("map.json").write_text(json.dumps({"a": "conv2d_1", "b.bias": "dense_1.bias"}))
    result = gpucnn("import", "v.safetensors", "-o", "m.safetensors", "--network", "own.safetensors", "--map", "map.json")
    assert result.status == 0, result.err
    np.testing.assert_array_equal(gc.load("m.safetensors", device="cpu").parameters["dense_1.bias"].value, [1, 2, 3])
    Path("run").mkdir()
    Path("own.safetensors").rename("run/model.safetensors")
    again = ("import", "v.safetensors", "-o", "again.safetensors", "--network", "run", "--map", "map.json")
    assert gpucnn(*again).status == 0 and Path("again.safetensors").read_bytes() == Path("m.safetensors").read_bytes()
    sentence = gpucnn(*again, "--classes", 3).sentence
    assert f"{Path('run/model.safetensors')} has its own input shape and number of classes: leave out yours" in sentence


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("export m.safetensors m.pb", "m.pb must end in .onnx, the only format that is written"),
        ("export none.safetensors m.onnx", "none.safetensors does not exist"),
        (
            "import m.h5 -o m.safetensors",
            "supported files end in .onnx, .keras, .safetensors, .pt, .pth: save the model as .keras with Keras 3",
        ),
        ("import m.zip -o m.safetensors", "m.zip cannot be imported"),
        ("import none.onnx -o m.safetensors", "none.onnx does not exist"),
        ("import none.keras -o m.safetensors", "none.keras does not exist"),
        ("import none.pt -o m.safetensors", "none.pt contains weights but no network: name one with --network, keras, tf2"),
        ("import none.pt -o m.safetensors --network keras", "none.pt does not exist"),
        ("import none.pt -o m.safetensors --network elephant", "unknown model 'elephant'"),
        ("import none.pt -o m.safetensors --network none.safetensors", "none.safetensors does not exist"),
        ("import none.pt -o m.safetensors --network keras --classes 0", "classes must be at least 1"),
        ("import none.pt -o m.safetensors --network keras --classes many", "'many' is not an integer"),
        ("import none.pt -o m.safetensors --network keras --input 1x28xa", "--input '1x28xa' must be sizes separated by x"),
        ("import none.pt -o m.safetensors --network keras --map none.json", "none.json does not exist"),
        ("import none.pt -o m.safetensors --network keras --map bad.json", "bad.json is not JSON"),
        ("import none.pt -o m.safetensors --network keras --map list.json", "list.json must contain an object"),
        ("import none.onnx -o m.safetensors --network keras", "describes its own model"),
        ("import none.onnx -o m.safetensors --classes 3", "describes its own model: a network, its number of classes and a map"),
        ("import none.pt -o m.safetensors --network folder", "folder is a folder without model.safetensors (there is no run)"),
        ("import none.onnx", "Missing option '--output'"),
    ],
)
def test_what_is_refused(words, sentence, gpucnn, tmp_path):
    Path("bad.json").write_text("{")
    Path("list.json").write_text("[]")
    Path("folder").mkdir()
    before = sorted(tmp_path.iterdir())
    if ".onnx" in words or ".keras" in words:
        pytest.importorskip("onnx" if ".onnx" in words else "h5py")
    assert sentence in gpucnn(*words.split()).sentence
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_of_channels_last_answers_images_as_well(gpucnn, folder, tmp_path):
    """As one of Keras's does: what it was made for are arrays of Python's."""
    first = gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(2)).build((3, 12, 12), seed=1, device="cpu").compile()
    first.save("first.safetensors")
    last = gc.Sequential(gc.Conv2D(2, 3), gc.Flatten(), gc.Dense(2))
    last.build((12, 12, 3), seed=1, device="cpu", data_format="channels_last").compile().save("last.safetensors")
    image = next((folder / "down").glob("*.png"))
    for command in (("predict", "NAME", image), ("evaluate", "NAME", "--dataset", folder)):
        answers = [gpucnn(*(f"{name}.safetensors" if word == "NAME" else word for word in command)) for name in ("first", "last")]
        assert answers[0].status == 0 and answers[0] == answers[1], answers


def test_the_help_names_the_files_that_are_taken(gpucnn):
    assert ", ".join(ENDINGS) == import_.KINDS
    text = " ".join(gpucnn("import", "--help").out.split())
    assert import_.KINDS in text and "they are named and nothing is written" in text


def test_a_place_that_cannot_be_written_to(onnx, gpucnn, tmp_path):
    small(tmp_path / "m.safetensors")
    Path("folder.onnx").mkdir()
    assert "folder" in gpucnn("export", "m.safetensors", "folder.onnx").sentence
    gpucnn("export", "m.safetensors", "m.onnx")
    assert "folder" in gpucnn("import", "m.onnx", "-o", "folder.onnx").sentence


# The model card.


def test_the_card_says_what_a_reader_needs(digits):
    text = (digits.path / "README.md").read_text(encoding="utf-8")
    accuracy = gc.load(digits.model, device="cpu").metadata["test_accuracy"]
    for words in (
        "# keras, trained on digits",
        f"**{100 * accuracy:.2f} %** of ",
        "| lr | 0.002 |",
        "| epochs | 1 |",
        f"- gpucnn {gc.__version__}",
        "gpucnn train --dataset digits --model keras --epochs 1 --batch-size 32",
        'gc.load("model.safetensors")',
        "images: (N, 1, 8, 8), integer pixels",
    ):
        assert words in text, words
    assert str(digits.path.parent) not in text
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, and whether the head is YAML is not known")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "gpucnn" and head["datasets"] == ["digits"]
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": pytest.approx(accuracy, abs=1e-6)}]


@pytest.mark.usefixtures("no_pictures")
def test_the_command_in_the_card_has_every_digit(gpucnn, folder):
    options = ("--epochs", 1, "--lr", "0.00123456789", "--validation", 0, "--device", "cpu", "--output", "run")
    assert gpucnn("train", "--dataset", folder, *options).status == 0
    text = Path("run/README.md").read_text(encoding="utf-8")
    assert " --lr 0.00123456789 " in text and " --validation 0 " in text


def test_a_model_of_one_output_is_exported_though_it_was_never_compiled(onnx, gpucnn):
    gc.Sequential(gc.Flatten(), gc.Dense(1, activation="sigmoid")).build((1, 4, 4), device="cpu").save("m.safetensors")
    assert gpucnn("export", "m.safetensors", "m.onnx").out == "wrote     m.onnx\n"


def test_a_run_is_exported_by_its_folder(onnx, gpucnn, digits, tmp_path):
    assert gpucnn("export", digits.path, "m.onnx").out == "wrote     m.onnx\n"
    assert "is a folder without model.safetensors" in gpucnn("export", tmp_path, "m.onnx").sentence


def test_the_program_in_the_card_runs(digits, monkeypatch):
    monkeypatch.chdir(digits.path)
    text = (digits.path / "README.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    data = gc.load_dataset("digits")
    known = {"images": data.test_images}
    exec(program, known)
    accuracy = np.mean(known["probabilities"].argmax(axis=1) == data.test_labels)
    assert accuracy == pytest.approx(gc.load("model.safetensors").metadata["test_accuracy"])
    assert known["names"] == list(data.class_names)


def test_names_in_a_card_are_only_words(bars_run, tmp_path):
    model = gc.load(bars_run.model, device="cpu")
    data = gc.data.Dataset(
        train_images=np.zeros((2, 1, 4, 4), np.uint8),
        train_labels=np.zeros(2, np.int32),
        test_images=np.zeros((1, 1, 4, 4), np.uint8),
        test_labels=np.zeros(1, np.int32),
        class_names=("<script>alert(1)</script>", "a|b\n---\nx: [link](http://x)"),
        name='say: "hi"\n---',
        source="",
    )
    card.write(tmp_path, model, data, {"dataset": "/home/somebody/secret/bars; rm -rf ~", "lr": 0.1}, 0)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in text and "somebody" not in text and "[link]" not in text
    assert "--dataset 'bars; rm -rf ~' --lr 0.1" in text
    assert text.count("\n---\n") == 1  # the end of the head
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, and whether the head is YAML is not known")
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]["type"] == "custom"


def test_a_readme_of_somebodys_own_stays(gpucnn, folder, no_pictures, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "README.md").write_text("# my project\n")
    command = ("train", "--dataset", folder, "--epochs", 1, "--device", "cpu", "--output", out)
    first = gpucnn(*command)
    assert first.status == 0 and f"note: {out / 'README.md'} was not written by gpucnn" in first.out
    gpucnn(*command)  # sets the first run aside
    assert (out / "README.md").read_text() == "# my project\n" and not (out / "previous-1" / "README.md").exists()
    (out / "README.md").unlink()
    gpucnn(*command)
    gpucnn(*command)
    assert card.is_ours(out / "README.md") and card.is_ours(out / "previous-3" / "README.md")
