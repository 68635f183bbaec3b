"""Whatever is wrong with what is given: one sentence, exit status 2, no traceback, and nothing left behind."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import device
from gpucnn.cli import info
from gpucnn.surroundings import install

TRAIN = ("train", "--output", "run")

# Arguments → pieces of the sentence.
ARGUMENTS = [
    (("trian",), ["No such command 'trian'", "train"]),
    (("train", "--epoch5", "1"), ["No such option", "--epoch5", "gpucnn train --help"]),
    (("train", "extra"), ["extra", "gpucnn train --help"]),
    (("train", "--epochs"), ["--epochs", "requires an argument", "gpucnn train --help"]),
    (("import", "--output"), ["--output", "requires an argument", "gpucnn import --help"]),
    (("train", "--resume=yes"), ["--resume", "does not take a value", "gpucnn train --help"]),
    (("train", "--epochs", "many"), ["--epochs", "'many' is not an integer"]),
    (("train", "--epochs", "2.5"), ["--epochs", "'2.5' is not an integer"]),
    (("train", "--batch-size", ""), ["--batch-size", "'' is not an integer"]),
    (("train", "--seed", "x"), ["--seed", "'x' is not an integer"]),
    (("train", "--checkpoint-every", "x"), ["--checkpoint-every", "'x' is not an integer"]),
    (("train", "--lr", "1,5"), ["--lr", "'1,5' is not a number"]),
    (("evaluate",), ["Missing argument", "MODEL", "gpucnn evaluate --help"]),
    (("predict",), ["Missing argument", "MODEL", "gpucnn predict --help"]),
    (("predict", "m.safetensors"), ["Missing argument", "IMAGE"]),
    (("info", "--device", "cpu"), ["No such option", "--device"]),
    ((*TRAIN, "--epochs", "0"), ["epochs must be at least 1, got 0"]),
    ((*TRAIN, "--epochs", "-3"), ["epochs must be at least 1, got -3"]),
    ((*TRAIN, "--epochs", "10000000000"), ["epochs must be at most 2,147,483,647, got 10000000000"]),
    ((*TRAIN, "--batch-size", "10000000000"), ["batch size must be at most 2,147,483,647, got 10000000000"]),
    ((*TRAIN, "--batch-size", "0"), ["batch size must be at least 1, got 0"]),
    ((*TRAIN, "--checkpoint-every", "0"), ["steps between checkpoints must be at least 1, got 0"]),
    ((*TRAIN, "--checkpoint-every", "-1"), ["steps between checkpoints must be at least 1, got -1"]),
    ((*TRAIN, "--seed", "-1"), ["seed must be at least 0, got -1"]),
    ((*TRAIN, "--lr", "0"), ["learning rate", "above 0"]),
    ((*TRAIN, "--lr", "-0.1"), ["learning rate", "above 0"]),
    ((*TRAIN, "--lr", "nan"), ["learning rate", "finite"]),
    ((*TRAIN, "--lr", "inf"), ["learning rate", "finite"]),
    ((*TRAIN, "--model", "lenet9x9"), ["unknown model 'lenet9x9'", "keras, tf2, lenet5x5"]),
    ((*TRAIN, "--model", "Kerass"), ["unknown model 'Kerass'", "did you mean 'keras'"]),
    ((*TRAIN, "--optimizer", "adma"), ["unknown optimizer 'adma'", "sgd, adam, adamw", "did you mean 'adam'"]),
    ((*TRAIN, "--schedule", "linear"), ["unknown schedule 'linear'", "constant, step, cosine, one-cycle"]),
    ((*TRAIN, "--augment", "flip"), ["unknown augmentation 'flip'", "none, shift, crop-flip"]),
    ((*TRAIN, "--device", "gpu"), ["unknown device 'gpu'", "auto, cpu, cuda"]),
    ((*TRAIN, "--dataset", "mnits"), ["no data set 'mnits'", "digits, mnist, fashion-mnist", "did you mean 'mnist'"]),
    ((*TRAIN, "--dataset", "./nowhere"), ["nowhere is not a folder", "FOLDER/CLASS/image.png"]),
    ((*TRAIN, "--dataset", "mnist", "--data-dir", "a-file"), ["a-file is a file, expected a folder"]),
    (("train", "--dataset", "digits", "--output", "a-file"), ["a-file cannot be written to (it is a file)", "--output"]),
    (("train", "--dataset", "digits", "--output", "a-file/run"), ["a-file/run cannot be written to", "--output"]),
    (("train", "--dataset", "digits", "--output", "x" * 300), ["cannot be written to (", "too long", "--output"]),
    (("train", "--dataset", "digits", "--output", ""), ["'--output': the path is empty: name a file or a folder"]),
    ((*TRAIN, "--data-dir", ""), ["'--data-dir': the path is empty"]),
    ((*TRAIN, "--dataset", ""), ["'--dataset': it is empty: give a name or a path, or leave the option out"]),
    ((*TRAIN, "--model", ""), ["'--model': it is empty"]),
    (("evaluate", "a-file", "--dataset", ""), ["'--dataset': it is empty"]),
    (("profile", "--model", ""), ["'--model': it is empty"]),
    (("import", "none.pt", "-o", "m.safetensors", "--network", ""), ["'--network': it is empty"]),
    (("predict", "a-file", ""), ["the path is empty"]),
    (("evaluate", ""), ["the path is empty"]),
    (("evaluate", "none.safetensors"), ["none.safetensors does not exist"]),
    (("evaluate", "."), ["is a folder"]),
    (("evaluate", "a-file"), ["a-file is not a safetensors file, or was cut short"]),
    (("predict", "a-file", "x.png"), ["a-file is not a safetensors file, or was cut short"]),
]


@pytest.mark.parametrize(("arguments", "pieces"), ARGUMENTS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_bad_arguments(gpucnn, arguments, pieces):
    Path("a-file").write_text("nothing of use")
    sentence = gpucnn(*arguments).sentence
    for piece in pieces:
        assert piece in sentence
    assert [path.name for path in Path().iterdir()] == ["a-file"]


@pytest.mark.parametrize("name", ["-a.png", "--a.png"])
def test_a_file_whose_name_begins_with_a_dash(gpucnn, bars_run, name):
    """As a shell writes it for *.png; until it exists, it is an option."""
    assert f"No such option: {name[:2] if name[1] != '-' else name}" in gpucnn("predict", bars_run.model, name).sentence
    png(name)
    assert f"{name} begins as options do: name it ./{name}, or write -- before it" in gpucnn("predict", bars_run.model, name).sentence
    assert gpucnn("predict", bars_run.model, f"./{name}").status == gpucnn("predict", "--", bars_run.model, name).status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a current folder cannot be deleted on Windows")
def test_a_current_folder_that_was_deleted(gpucnn, monkeypatch):
    Path("gone").mkdir()
    monkeypatch.chdir("gone")
    Path("../gone").rmdir()
    assert "the current folder does not exist any more: change to one" in gpucnn("train", "--dataset", "digits", "--device", "cpu").sentence


def test_what_cannot_be_written_is_said_before_anything_is_read(gpucnn):
    """The files that are named do not exist, which would be said next."""
    Path("a-file").write_text("nothing of use")
    for option, command in (
        ("--csv", ("predict", "none.safetensors", "x.png", "--csv", "a-file/t.csv")),
        ("FILE", ("export", "none.safetensors", "a-file/t.onnx")),
        ("-o", ("import", "none.onnx", "-o", "a-file/t.safetensors")),
        ("-o", ("view", "none.safetensors", "-o", "a-file/t.html")),
    ):
        written = next(argument for argument in command if argument.startswith("a-file/"))
        assert f"{option} {written} cannot be written, a-file is not a folder: name another place" in gpucnn(*command).sentence
    assert "--csv . cannot be written, it is a folder: name a file in it" in gpucnn("predict", "none", "x", "--csv", ".").sentence


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_an_output_folder_that_nobody_can_write(gpucnn):
    assert (
        "the output folder /proc/none/run cannot be written to"
        in gpucnn("train", "--dataset", "digits", "--output", "/proc/none/run").sentence
    )


@pytest.mark.parametrize("command", [TRAIN, ("evaluate", "MODEL"), ("predict", "MODEL", "x.png")], ids=lambda command: command[0])
def test_cuda_where_there_is_none(gpucnn, bars_run, command, monkeypatch):
    reason = "CuPy is not installed (pip install it)"
    monkeypatch.setattr(device, "why_no_cuda", lambda: reason)
    monkeypatch.setattr(device, "simulated", lambda: False)
    arguments = [str(bars_run.model) if argument == "MODEL" else argument for argument in command]
    sentence = gpucnn(*arguments, "--device", "cuda").sentence
    assert reason in sentence and 'use device "cpu", or "auto"' in sentence
    assert not Path("run").exists()


# Data sets.


def idx(shape: tuple[int, ...], code: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + bytes(int(np.prod(shape)))


IMAGES, LABELS = idx((60000, 28, 28)), idx((60000,))
MNIST = [
    ({"train-labels-idx1-ubyte": b""}, ["train-labels-idx1-ubyte is empty"]),
    ({"train-labels-idx1-ubyte": LABELS[:-5]}, ["train-labels-idx1-ubyte", "truncated", "60000"]),
    ({"train-labels-idx1-ubyte": LABELS + b"x"}, ["train-labels-idx1-ubyte continues after"]),
    ({"train-labels-idx1-ubyte": b"\x12\x34" + LABELS[2:]}, ["train-labels-idx1-ubyte is not an idx file", "12 34 08 01"]),
    ({"train-labels-idx1-ubyte": b"<html>not found</html>"}, ["is a web page"]),
    ({"train-labels-idx1-ubyte": idx((59999,))}, ["announces 59999, expected 60000"]),
    ({"train-labels-idx1-ubyte": b"\0\0\x08\x01" + struct.pack(">I", 60000) + bytes([10]) * 60000}, ["has the SHA-256", "65a50cbb"]),
    ({"train-labels-idx1-ubyte": LABELS}, ["has the SHA-256", "(uncompressed), expected ", "delete it and get a new copy"]),
    ({"train-labels-idx1-ubyte": gzip.compress(LABELS)[:-12]}, ["train-labels-idx1-ubyte is a damaged gzip file"]),
    ({"train-labels-idx1-ubyte": b"\x1f\x8b" + bytes(40)}, ["train-labels-idx1-ubyte is a damaged gzip file"]),
]


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize(("files", "pieces"), MNIST, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_damaged_mnist(gpucnn, files, pieces, name):
    """auto as well: files that are there and damaged are not passed over for the digits."""
    Path("mnist").mkdir()
    for file in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        Path("mnist", file).write_bytes(files.get(file, b"never looked at"))
    sentence = gpucnn(*TRAIN, "--dataset", name, "--data-dir", "mnist").sentence
    for piece in pieces:
        assert piece in sentence
    assert not Path("run").exists()


def png(path: str, size: tuple[int, ...] = (12, 12), grey: int = 0) -> None:
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, grey, np.uint8)).save(path)


def two_classes(size: tuple[int, ...] = (12, 12)) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        png(f"set/{name}", size)


def nothing() -> None:
    Path("set").mkdir()


def empty_class() -> None:
    two_classes()
    Path("set/c").mkdir()


def one_class() -> None:
    png("set/a/1.png")
    png("set/a/2.png")


def loose() -> None:
    png("set/1.png")


def only_train() -> None:
    png("set/train/a/1.png")


def other_size() -> None:
    two_classes()
    png("set/b/3.png", (12, 13))


def not_an_image() -> None:
    two_classes()
    Path("set/a/3.png").write_bytes(b"no image")


def cut_image() -> None:
    two_classes()
    rng = np.random.default_rng(0)
    from PIL import Image

    Image.fromarray(rng.integers(0, 255, (12, 12)).astype(np.uint8)).save("set/a/3.png")
    Path("set/a/3.png").write_bytes(Path("set/a/3.png").read_bytes()[:90])


def nan_image() -> None:
    two_classes()
    np.save("set/a/3.npy", np.full((12, 12), np.nan, np.float32))


def stranger_in_test() -> None:
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"):
        png(f"set/{name}")


def too_small() -> None:
    two_classes((3, 3))


def idx_files() -> None:
    nothing()
    Path("set/train-images-idx3-ubyte.gz").write_bytes(b"")


FOLDERS = [
    (nothing, ["set contains no images", "FOLDER/CLASS/image.png"]),
    (empty_class, ["set/c contains no images"]),
    (one_class, ["only the class 'a'", "at least two"]),
    (loose, ["no class folders"]),
    (only_train, ["contains train but no test"]),
    (other_size, ["set/b/3.png is 12 × 13 pixels", "expected 12 × 12"]),
    (not_an_image, ["set/a/3.png"]),
    (cut_image, ["set/a/3.png"]),
    (nan_image, ["set/a/3.npy contains NaN"]),
    (stranger_in_test, ["the class 'c'"]),
    (too_small, ["the images of set, 1×3×3, do not fit this network", "give larger ones, or another --model"]),
    (idx_files, ["contains idx files", "train labels are none", "there must be one of each"]),
]


@pytest.mark.parametrize(("make", "pieces"), FOLDERS, ids=lambda value: value.__name__ if callable(value) else "")
def test_bad_folders(gpucnn, make, pieces):
    make()
    sentence = gpucnn(*TRAIN, "--dataset", "./set", "--model", "tf2", "--device", "cpu").sentence
    for piece in pieces:
        assert piece in sentence
    assert not Path("run").exists()


@pytest.mark.parametrize("output", ["set/run", "set/a/b", "set"])
def test_an_output_folder_among_the_images(gpucnn, output):
    """It would be taken for a class at once, and the pictures in it for images of that class in the next run."""
    two_classes()
    sentence = gpucnn("train", "--dataset", "set", "--output", output, "--device", "cpu").sentence
    assert f"the output folder {output} is among the images in set" in sentence and "--output" in sentence
    assert sorted(path.name for path in Path("set").iterdir()) == ["a", "b"]


def test_an_output_folder_beside_train_and_test(gpucnn, no_pictures):
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
        png(f"set/{name}")
    assert gpucnn("train", "--dataset", "set", "--output", "set/run", "--device", "cpu", "--epochs", 1).status == 0


# Models.


def broken_models(whole: bytes) -> dict[str, bytes]:
    from safetensors.numpy import save

    return {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a model" * 50,
        "another tool's": save({"weight": np.zeros(3, np.float32)}),
        "header of another length": struct.pack("<Q", 1 << 40) + whole[8:],
    }


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "another tool's", "header of another length"])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_broken_models(gpucnn, bars_run, command, kind):
    Path("broken.safetensors").write_bytes(broken_models(bars_run.model.read_bytes())[kind])
    sentence = gpucnn(command, "broken.safetensors", *(["x.png"] if command == "predict" else [])).sentence
    assert "broken.safetensors" in sentence and "safetensors file" in sentence


def test_a_checkpoint_is_no_model(gpucnn, bars_run):
    assert "checkpoint.safetensors" in gpucnn("evaluate", bars_run.path / "checkpoint.safetensors", "--device", "cpu").sentence


def made(path: str, *layers: gc.Layer, names: object = None) -> str:
    model = gc.Sequential(*layers).build((1, 12, 12), device="cpu")
    if names is not None:
        model.metadata["class_names"] = names
    model.save(path)
    return path


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], [1, 2], "ab"], ids=str)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_class_names_that_do_not_fit_the_model(gpucnn, folder, command, names):
    model = made("odd.safetensors", gc.Flatten(), gc.Dense(2), names=names)
    png("x.png")
    more = ["x.png"] if command == "predict" else ["--dataset", folder]
    sentence = gpucnn(command, model, *more, "--device", "cpu").sentence
    assert f"has 2 outputs and the class names {names!r}, expected a list of as many strings: train it again, or set" in sentence


@pytest.mark.parametrize("layers", [(gc.Flatten(), gc.Dense(1)), (gc.Conv2D(2, 3),)], ids=["one output", "maps"])
def test_a_model_that_is_no_classifier(gpucnn, layers):
    png("x.png")
    sentence = gpucnn("predict", made("odd.safetensors", *layers), "x.png", "--device", "cpu").sentence
    assert "odd.safetensors" in sentence or "output" in sentence


def test_classes_that_differ(gpucnn, bars_run):
    two_classes()
    sentence = gpucnn("evaluate", bars_run.model, "--dataset", "./set", "--device", "cpu").sentence
    assert "the model knows the classes across, down, and set has a, b" in sentence and "same classes" in sentence


def test_arrays_of_another_size(gpucnn, bars_run):
    """Images are brought to the size; arrays are what they are."""
    x, y = np.zeros((20, 8, 12), np.uint8), np.arange(20) % 2
    np.savez("set.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    sentence = gpucnn("evaluate", bars_run.model, "--dataset", "./set.npz", "--device", "cpu").sentence
    assert "has shape (1, 8, 12) (channels, height, width) and the model takes (1, 12, 12)" in sentence


def test_a_folder_that_is_no_run(gpucnn):
    Path("empty").mkdir()
    for command in (("evaluate", "empty"), ("predict", "empty", "x.png")):
        assert "empty is a folder without model.safetensors (there is no run)" in gpucnn(*command).sentence
    Path("empty/checkpoint.safetensors").write_bytes(b"")
    assert "its run is not complete: continue it with gpucnn train --resume" in gpucnn("evaluate", "empty").sentence


@pytest.mark.parametrize(
    ("name", "array", "piece"),
    [
        ("nan.npy", np.full((12, 12), np.nan), "contains NaN"),
        ("inf.npy", np.full((12, 12), np.inf), "infinite"),
        ("range.npy", np.full((12, 12), 7.5), "expected 0 … 1"),
        ("object.npy", np.array([{}]), "numpy.save"),
        ("flat.npy", np.zeros(144, np.uint8), "(144,)"),
        ("empty.npy", np.zeros((0, 12), np.uint8), "no pixels"),
        ("text.png", None, "text.png"),
        ("none.png", None, "does not exist"),
    ],
)
def test_bad_images_to_predict(gpucnn, bars_run, name, array, piece):
    """A good one before it is not answered either: what was asked for cannot be had."""
    png("good.png")
    if array is not None:
        np.save(name, array, allow_pickle=True)
    elif name == "text.png":
        Path(name).write_text("not an image")
    result = gpucnn("predict", bars_run.model, "good.png", name, "--device", "cpu")
    assert piece in result.sentence and result.out == ""


def test_evaluate_of_a_folder_that_has_gone(gpucnn, tmp_path, no_pictures):
    two_classes()
    assert gpucnn("train", "--dataset", "./set", "--output", "run", "--epochs", 1, "--device", "cpu").status == 0
    Path("set").rename("moved")
    gone = f"{tmp_path / 'set'}, which does not exist any more: name the place where it is now with --dataset"
    assert gone in gpucnn("evaluate", "run/model.safetensors", "--device", "cpu").sentence
    assert gpucnn("evaluate", "run/model.safetensors", "--dataset", "./moved", "--device", "cpu").status == 0
    more = ("train", "--output", "run", "--resume", "--epochs", 2, "--device", "cpu")
    assert gone in gpucnn(*more).sentence
    Path("other").mkdir()
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        png(f"other/{name}", (12, 12), 7)
    assert "is a checkpoint of another run: its training data differ" in gpucnn(*more, "--dataset", "other").sentence
    assert gpucnn(*more, "--dataset", "moved").status == 0
    assert gpucnn("evaluate", "run/model.safetensors", "--device", "cpu").status == 0  # its new place is recorded


# Packages that are not installed.


@pytest.mark.parametrize(
    ("missing", "command", "pieces"),
    [
        ("sklearn.datasets", (*TRAIN, "--dataset", "digits"), ["scikit-learn", install("digits")]),
        ("sklearn.datasets", TRAIN, ["neither the digits nor MNIST", install("digits")]),
        ("PIL", (*TRAIN, "--dataset", "./set"), ["Pillow", install("images")]),
        ("PIL", ("predict", "MODEL", "set/a/1.png"), ["Pillow", install("images")]),
    ],
)
def test_missing_packages(gpucnn, bars_run, monkeypatch, missing, command, pieces):
    two_classes()
    monkeypatch.setenv("GPUCNN_DATA_DIR", "none")
    monkeypatch.setitem(sys.modules, missing, None)
    sentence = gpucnn(*(bars_run.model if argument == "MODEL" else argument for argument in command), "--device", "cpu").sentence
    for piece in pieces:
        assert piece in sentence
    assert not Path("run").exists()


# Errors of every kind.


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError("Unable to allocate 3 GiB"), "gpucnn: out of memory (Unable to allocate 3 GiB): use a smaller batch size\n"),
        (PermissionError(13, "Permission denied", "some/file"), "gpucnn: some/file: Permission denied\n"),
        (OSError(28, "No space left on device"), "gpucnn: No space left on device: free some room, or write to another place\n"),
        (OSError(27, "File too large", "some/file"), "gpucnn: some/file: File too large: free some room, or write to another place\n"),
        (
            RuntimeError("surprise"),
            "gpucnn: this is a bug, RuntimeError: surprise (set GPUCNN_DEBUG=1 for the traceback, and please report it)\n",
        ),
    ],
)
def test_errors_that_nobody_expects(gpucnn, monkeypatch, error, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(info, "get_device", fail)
    result = gpucnn("info")
    assert (result.status, result.err) == (2, text)
    monkeypatch.setenv("GPUCNN_DEBUG", "1")
    with pytest.raises(type(error)):
        gpucnn("info")
