"""Model files: a round trip to the bit, and every kind of file that is none."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import gpucnn as gc
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.files import write_atomically
from gpucnn.training.checkpoint import load_tensors, save_tensors


def build(seed: int = 0, dtype: str = "float32") -> gc.Sequential:
    return gc.Sequential(
        gc.Conv2D(3, (3, 2), stride=(1, 2), padding=((1, 0), (0, 1)), activation="relu"),
        gc.Conv2D(3, 3, padding="same", dilation=2, groups=3, use_bias=False, activation="sigmoid"),
        gc.MaxPool2D(2, ceil_mode=True),
        gc.AvgPool2D(2, stride=1, padding="same", count_include_pad=False),
        gc.Flatten(),
        gc.Dense(5, activation="relu", initializer="he_normal"),
        gc.Dropout(0.25),
        gc.Dense(2),
        gc.Softmax(),
    ).build((1, 6, 8), seed=seed, device="cpu", dtype=dtype)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[gc.Sequential, Path]:
    model = build(seed=3).compile(gc.SGD(gc.OneCycle(0.1, 30), momentum=0.9, nesterov=True), "categorical_crossentropy")
    rng = np.random.default_rng(0)
    model.fit(rng.random((20, 1, 6, 8)), rng.integers(0, 2, 20), batch_size=8, verbose=False)
    model.metadata = {"classes": ["no", "ja, é"], "scale": 1 / 3}
    path = tmp_path / "model.safetensors"
    model.save(path)
    return model, path


def rewrite(path: Path, change: Any) -> None:
    """The file with its tensors and description changed by `change(tensors, description)`, and every checksum right."""
    tensors, description = load_tensors(path)
    change(tensors, description)
    save_tensors(path, tensors, description)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_to_the_bit(dtype: str, tmp_path: Path) -> None:
    model = build(seed=3, dtype=dtype)
    model.save(tmp_path / "model.safetensors")
    again = gc.load(tmp_path / "model.safetensors", device="cpu")
    assert list(again.parameters) == list(model.parameters)
    for name, parameter in model.parameters.items():
        assert again.parameters[name].value.dtype == dtype
        assert again.parameters[name].value.tobytes() == parameter.value.tobytes()
    x = np.random.default_rng(1).random((4, 1, 6, 8))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.loss is again.optimizer is None


def test_all_that_describes_a_model_comes_back(saved: tuple[gc.Sequential, Path]) -> None:
    model, path = saved
    again = gc.load(str(path), device="cpu")
    assert json.loads(json.dumps(again.config())) == json.loads(json.dumps(model.config()))
    assert again.metadata == model.metadata
    assert repr(again) == repr(model)
    x, y = np.random.default_rng(1).random((10, 1, 6, 8)), np.arange(10) % 2
    assert again.evaluate(x, y) == model.evaluate(x, y)


def test_a_loaded_model_trains_on(saved: tuple[gc.Sequential, Path]) -> None:
    model = gc.load(saved[1], device="cpu")
    x, y = np.random.default_rng(1).random((10, 1, 6, 8)), np.arange(10) % 2
    assert len(model.fit(x, y, epochs=2, verbose=False)["loss"]) == 2


def test_the_same_model_makes_the_same_file(saved: tuple[gc.Sequential, Path], tmp_path: Path) -> None:
    model, path = saved
    model.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_parameters_alone_can_be_taken_over(saved: tuple[gc.Sequential, Path]) -> None:
    model, path = saved
    other = build(seed=9)
    other.load_parameters(path)
    for name, parameter in model.parameters.items():
        np.testing.assert_array_equal(other.parameters[name].value, parameter.value)


def test_a_refused_file_leaves_all_parameters_as_they_were(saved: tuple[gc.Sequential, Path]) -> None:
    rewrite(saved[1], lambda tensors, _: tensors.pop("dense_2.bias"))
    other = build(seed=9)
    before = other.buffers.values.copy()
    with pytest.raises(CheckpointError, match=r"contains no 'dense_2.bias': it belongs to another model"):
        other.load_parameters(saved[1])
    np.testing.assert_array_equal(other.buffers.values, before)


def refused(path: Path, match: str = ".") -> None:
    """Loading raises CheckpointError, which names the file, and never anything else."""
    with pytest.raises(CheckpointError, match=match) as caught:
        gc.load(path, device="cpu")
    assert str(path) in str(caught.value)


def test_a_file_cut_short_anywhere_is_refused(saved: tuple[gc.Sequential, Path]) -> None:
    path = saved[1]
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(path, "is not a safetensors file, or was cut short")
    path.write_bytes(content + b"\0")
    refused(path, "is not a safetensors file")


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    for length in (1, 7, 8, 9, 100, 5000):
        for _ in range(5):
            path.write_bytes(rng.bytes(length))
            refused(path)
            path.write_bytes((length * 2).to_bytes(8, "little") + rng.bytes(length * 3))  # a plausible length of the header
            refused(path)


def test_a_header_with_any_byte_changed_gives_a_model_or_a_checkpoint_error(saved: tuple[gc.Sequential, Path]) -> None:
    path = saved[1]
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    refusals = 0
    for position in rng.choice(8 + header, 250, replace=False):
        kept = content[position]
        content[position] = int(rng.integers(32, 127)) if position >= 8 else int(rng.integers(256))
        path.write_bytes(content)
        try:
            gc.load(path, device="cpu")
        except CheckpointError:
            refusals += 1
        content[position] = kept
    assert refusals > 100


def test_other_tools_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros((2, 2), np.float32)}, path)
    refused(path, "is a safetensors file, but not one that gpucnn wrote")
    save_file({"weight": np.zeros((2, 2), np.float32)}, path, {"format": "pt"})
    refused(path, "not one that gpucnn wrote")
    # A dtype that NumPy has no name for, as in the files of many language models.
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    refused(path, "not one that gpucnn wrote")
    np.save(tmp_path / "array.npy", np.zeros(3))
    refused(tmp_path / "array.npy")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    refused(tmp_path / "text.safetensors")


def test_strange_dtypes_under_our_own_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for dtype, size in (("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F4", 1), ("X9", 1)):
        metadata = {"gpucnn": '{"version": 1, "description": {}}'}
        header = json.dumps({"__metadata__": metadata, "w": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * (2 * size))
        refused(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.safetensors", "there is no such file")
    refused(tmp_path, "is a folder: name a .safetensors file in it")


def test_another_version_and_a_broken_description_are_refused(saved: tuple[gc.Sequential, Path]) -> None:
    path = saved[1]
    tensors, _ = load_tensors(path)
    for content, message in (
        ('{"version": 2, "description": {}}', r"has format version 2; this gpucnn reads version 1: update gpucnn"),
        ('{"version": 1}', "has a broken description"),
        ('{"description": {}}', "has a broken description"),
        ("{", "has a broken description"),
        ("[]", "has a broken description"),
        ("7", "has a broken description"),
        ("[" * 100_000, "has a broken description"),
        ('{"version": 1, "description": []}', "has a broken description"),
        ('{"version": 1, "description": {}}', "is a checkpoint of a run, not a model"),
    ):
        save_file(tensors, path, {"gpucnn": content})
        refused(path, message)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, description: description["model"].pop("layers"),
        lambda tensors, description: description["model"].pop("seed"),
        lambda tensors, description: description.update(model=None),
        lambda tensors, description: description.update(model=[1]),
        lambda tensors, description: description["model"].update(layers=3),
        lambda tensors, description: description["model"].update(layers=[3]),
        lambda tensors, description: description["model"].update(layers=[]),
        lambda tensors, description: description["model"]["layers"][0].update(layer="Conv9D"),
        lambda tensors, description: description["model"]["layers"][0].update(filters=-1),
        lambda tensors, description: description["model"]["layers"][0].update(filters="many"),
        lambda tensors, description: description["model"]["layers"][0].update(filters=10**18),
        lambda tensors, description: description["model"]["layers"][0].update(filters=10**30),
        lambda tensors, description: description["model"]["layers"][0].update(colour="red"),
        lambda tensors, description: description["model"]["layers"][0].pop("kernel_size"),
        lambda tensors, description: description["model"].update(input_shape=None),
        lambda tensors, description: description["model"].update(input_shape=[1, 2]),
        lambda tensors, description: description["model"].update(input_shape=[1, 1, 1]),
        lambda tensors, description: description["model"].update(dtype="int8"),
        lambda tensors, description: description["model"].update(seed="zero"),
        lambda tensors, description: description["model"].update(loss="wasserstein"),
        lambda tensors, description: description["model"].update(loss=[]),
        lambda tensors, description: description["model"].update(optimizer={"optimizer": "adam", "speed": 1}),
        lambda tensors, description: description["model"].update(optimizer=[]),
        lambda tensors, description: description["model"]["optimizer"].update(learning_rate={"schedule": []}),
        lambda tensors, description: description["model"].update(metrics=None),
        lambda tensors, description: description["model"].update(metrics=["f1"]),
        lambda tensors, description: description["model"].update(metadata=3),
        lambda tensors, description: tensors.pop("conv2d_1.weight"),
        lambda tensors, description: tensors.update({"conv2d_1.bias": np.zeros(4, np.float32)}),
        lambda tensors, description: tensors.update({"conv2d_1.bias": np.zeros(3, np.float64)}),
        lambda tensors, description: tensors.update({"conv2d_1.bias": np.zeros((3, 1), np.float32)}),
    ],
)
def test_whatever_is_missing_or_of_another_kind_is_refused(change: Any, saved: tuple[gc.Sequential, Path]) -> None:
    rewrite(saved[1], change)
    refused(saved[1])


def test_what_is_missing_is_named(saved: tuple[gc.Sequential, Path]) -> None:
    rewrite(saved[1], lambda tensors, description: description["model"].pop("seed"))
    with pytest.raises(CheckpointError, match=r"describes a model that this gpucnn cannot make \(there is no 'seed'\)"):
        gc.load(saved[1], device="cpu")


def test_parameters_with_nan_are_not_written(saved: tuple[gc.Sequential, Path]) -> None:
    model, path = saved
    before = path.read_bytes()
    model.parameters["dense_1.weight"].value[0, 0] = np.nan
    with pytest.raises(CheckpointError, match=r"was not written: 'dense_1.weight' contains NaN or infinity"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "open"])
def test_a_full_or_read_only_disk_leaves_the_old_file_and_no_other(
    where: str, saved: tuple[gc.Sequential, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = saved
    before = path.read_bytes()
    model.parameters["dense_1.weight"].value[...] = 0
    number = errno.EROFS if where == "open" else errno.ENOSPC

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    class Full:
        """A file that takes nothing."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *args: Any) -> None:
            self.file.close()

        write = fail

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr("gpucnn.files.open", lambda *args, **more: Full(open(*args, **more)), raising=False)  # noqa: SIM115
        else:
            patch.setattr(f"gpucnn.files.os.{where}", fail)
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            model.save(path)
    assert where == "open" or caught.value.filename == str(path)  # which tells the disk that is full
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(("name", "hint"), [("m.onnx", "export_onnx"), ("m.pt", "end the name in .safetensors"), ("m.PTH", "end the name")])
def test_a_name_that_promises_another_format_is_refused(name: str, hint: str, saved: tuple[gc.Sequential, Path], tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(
        ArgumentError, match=rf"{name} was not written: save writes safetensors files, not {Path(name).suffix.lower()}.*{hint}"
    ):
        saved[0].save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("name", ["m.onnx", "m.keras", "m.pt"])
def test_a_file_of_another_format_is_told_how_it_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4" * 100)
    with pytest.raises(
        CheckpointError, match=rf"{name} is not a safetensors file, .*: gpucnn import, or gpucnn.exchange.import_model, conv"
    ):
        gc.load(tmp_path / name)


def test_folders_are_made_and_permissions_are_those_of_open(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a" / "b" / "file", lambda file: file.write(b"content"))
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_ctrl_c_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
