"""Data sets in files that others write: archives, tables, idx files and arrays, each made here and read to the last pixel."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.data import load_dataset, tables, write_idx
from gpucnn.errors import DataError

RNG = np.random.default_rng(4)
TRAIN, TEST = RNG.integers(0, 256, (30, 6, 6), np.uint8), RNG.integers(0, 256, (12, 6, 6), np.uint8)
TRAIN_LABELS, TEST_LABELS = np.arange(30, dtype=np.uint8) % 3, np.arange(12, dtype=np.uint8) % 3
KERAS = {"x_train": TRAIN, "y_train": TRAIN_LABELS, "x_test": TEST, "y_test": TEST_LABELS}


def npz(folder: Path, arrays: dict[str, Any], save: Callable[..., Any] = np.savez_compressed) -> Path:
    save(folder / "set.npz", **arrays)
    return folder / "set.npz"


def refused(path: Path | str, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load_dataset(path, **options)
    assert len(str(caught.value)) <= 500 and "\n" not in str(caught.value)


def check(data: Any, train: Any = TRAIN[:, None], test: Any = TEST[:, None], names: tuple[str, ...] = ("0", "1", "2")) -> None:
    np.testing.assert_array_equal(data.train_images, train)
    np.testing.assert_array_equal(data.test_images, test)
    np.testing.assert_array_equal(data.train_labels, TRAIN_LABELS)
    np.testing.assert_array_equal(data.test_labels, TEST_LABELS)
    assert data.class_names == names


# Archives.


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_archive(tmp_path: Path, save: Any) -> None:
    data = load_dataset(npz(tmp_path, KERAS, save))
    check(data)
    assert data.name == "set" and "30 + 12 images" in data.source


def test_medmnist_archive(tmp_path: Path) -> None:
    """Labels in a column, colour last, a part to validate on."""
    colour, test = RNG.integers(0, 256, (30, 6, 6, 3), np.uint8), RNG.integers(0, 256, (12, 6, 6, 3), np.uint8)
    arrays = {
        "train_images": colour,
        "val_images": test,
        "test_images": test,
        "train_labels": TRAIN_LABELS[:, None],
        "val_labels": TEST_LABELS[:, None],
        "test_labels": TEST_LABELS[:, None],
    }
    data = load_dataset(npz(tmp_path, arrays))
    check(data, colour.transpose(0, 3, 1, 2), test.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.validation_images, data.test_images)
    np.testing.assert_array_equal(data.validation_labels, data.test_labels)


SAME: dict[str, Callable[[Any], Any]] = {
    "int64": lambda x: x.astype(np.int64),
    "big-endian": lambda x: x.astype(">i4"),
    "floats to 255": lambda x: x.astype(np.float32),
    "floats to 1": lambda x: (x / 255).astype(np.float32),
    "doubles to 1": lambda x: x / 255,
    "channel first": lambda x: x[:, None],
    "channel last": lambda x: x[..., None],
    "rows": lambda x: x.reshape(len(x), -1),
    "Fortran's order": np.asfortranarray,
}


@pytest.mark.parametrize("kind", SAME)
def test_pixels_of_every_kind(tmp_path: Path, kind: str) -> None:
    check(load_dataset(npz(tmp_path, {**KERAS, "x_train": SAME[kind](TRAIN), "x_test": SAME[kind](TEST)})))


LABELS: dict[str, Callable[[Any], Any]] = {
    "int64": lambda y: y.astype(np.int64),
    "floats": lambda y: y.astype(np.float32),
    "column": lambda y: y[:, None],
    "one-hot": lambda y: np.eye(3, dtype=np.float32)[y],
    "words": lambda y: np.array(["a", "b", "c"])[y],
    "bytes": lambda y: np.array([b"a", b"b", b"c"])[y],
    "not from 0": lambda y: y.astype(np.int32) + 7,
    "below 0": lambda y: y.astype(np.int32) - 1,
}
NAMES = {"words": ("a", "b", "c"), "bytes": ("a", "b", "c"), "not from 0": ("7", "8", "9"), "below 0": ("-1", "0", "1")}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(tmp_path: Path, kind: str) -> None:
    arrays = {**KERAS, "y_train": LABELS[kind](TRAIN_LABELS), "y_test": LABELS[kind](TEST_LABELS)}
    check(load_dataset(npz(tmp_path, arrays)), names=NAMES.get(kind, ("0", "1", "2")))


def test_an_archive_without_a_test_set_is_split(tmp_path: Path) -> None:
    path = npz(tmp_path, {"images": TRAIN, "labels": TRAIN_LABELS})
    first, again, other = (load_dataset(path, seed=seed, test_fraction=0.3) for seed in (0, 0, 1))
    assert len(first.test_images) == 9 and np.bincount(first.test_labels).tolist() == [3, 3, 3]
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert (first.test_images != other.test_images).any()
    everything = np.concatenate([first.train_images, first.test_images])[:, 0]
    assert sorted(image.tobytes() for image in everything) == sorted(image.tobytes() for image in TRAIN)


def test_archives_that_cannot_be(tmp_path: Path) -> None:
    for change, match in (
        ({"x_train": TRAIN[:29]}, r"x_train has 29 images, and .*y_train has labels of shape \(30,\)"),
        ({"x_train": TRAIN.astype(np.int32) + 1000}, "contain 1000 to 12"),
        ({"x_train": TRAIN.astype(np.float32) - 1}, r"expected 0 … 1 or integers"),
        ({"x_train": TRAIN / 2}, r"images contain fractions up to 127\.5, expected 0 … 1 or integers 0 … 255"),
        ({"x_train": np.full((30, 6, 6), np.nan)}, "NaN or infinity"),
        ({"x_train": RNG.random((30, 7))}, "rows of 7 pixels are not square images"),
        ({"x_train": RNG.random((30, 6, 6, 6))}, "1 or 3 channels"),
        ({"x_train": TRAIN[:0], "y_train": TRAIN_LABELS[:0]}, "a non-empty array of numbers"),
        ({"x_test": RNG.integers(0, 9, (12, 5, 6), np.uint8)}, "of one shape"),
        ({"y_test": TEST_LABELS + 1}, "has the class '3', which .* does not have"),
        ({"y_test": np.array(["a"] * 12)}, "y_test has other labels than .*y_train"),
        ({"y_train": TRAIN_LABELS + 0.5}, "y_train has labels that are not integers"),
        ({"y_train": np.ones((30, 3), np.uint8)}, "several labels for an image"),
        ({"y_train": np.zeros(30, int)}, "only the class '0'"),
        ({"y_train": np.arange(30).astype("M8[s]")}, "labels of the type"),
        ({"x_train": np.array(["a"] * 30)}, "images must be a non-empty array of numbers"),
    ):
        refused(npz(tmp_path, {**KERAS, **change}), match)
    refused(
        npz(tmp_path, {"images": TRAIN, "labels": np.arange(30)}),
        r"images has a single image of the classes 0, 1, 2 and 27 more, and one of each class must be held out for testing: add",
    )
    refused(npz(tmp_path, {"a": TRAIN}), "contains a, expected x_train")


def header(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_hostile_archives(tmp_path: Path) -> None:
    """Sizes that lie, bombs, objects to be unpickled, and files cut short end in a sentence, and take no memory on the way."""
    path = tmp_path / "set.npz"
    for content, match in (
        (header("(1 << 40,)") + b"a", "cannot be read as an .npz archive"),
        (header("(1099511627776, 6, 6)") + b"a", "declares .* GiB, and has 1 B"),
        (header("(2, 6, 6)") + bytes(71), "declares 72 B, and has 71 B"),
        (header("(1,)", "|O") + b"cos\nsystem\n", "Python objects .* never unpickled"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "its format is of version 9.0"),
        (b"nothing", "cannot be read as an .npz archive"),
        (b"", "cannot be read as an .npz archive"),
    ):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in KERAS:
                archive.writestr(f"{name}.npy", content)
        refused(path, match)
    whole = npz(tmp_path, KERAS).read_bytes()
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(path, "is empty|cannot be read as an .npz archive")
    changed = bytearray(whole)
    for at in range(0, len(whole), 37):
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            load_dataset(path)
        except DataError as error:
            assert len(str(error)) <= 500
        changed[at] ^= 0xFF


# Tables.


def csv(path: Path, images: Any = TRAIN, labels: Any = TRAIN_LABELS, header: str | None = "label", **write: Any) -> Path:
    rows = images.reshape(len(images), -1)
    lines = [",".join([str(label), *map(str, row)]) for label, row in zip(labels, rows.tolist(), strict=True)]
    if header is not None:
        lines.insert(0, ",".join([header, *(f"pixel{index}" for index in range(rows.shape[1]))]))
    text = (write.get("end", "\n").join(lines) + write.get("end", "\n")).encode(write.get("encoding", "utf-8"))
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("header", ["label", "Class", '"label"', None])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_kaggles_table(tmp_path: Path, header: str | None, end: str) -> None:
    csv(tmp_path / "train.csv", header=header, end=end)
    csv(tmp_path / "test.csv", TEST, TEST_LABELS, header=header, end=end)
    check(load_dataset(tmp_path))


@pytest.mark.parametrize("name", ["mnist.csv", "mnist.csv.gz"])
def test_one_table_is_split(tmp_path: Path, name: str) -> None:
    data = load_dataset(csv(tmp_path / name, encoding="utf-8-sig"))
    assert (len(data.train_images), len(data.test_images), data.name) == (24, 6, "mnist")
    whole = {image.tobytes(): label for image, label in zip(TRAIN, TRAIN_LABELS, strict=True)}
    for image, label in zip(data.train_images, data.train_labels, strict=True):
        assert whole[image.tobytes()] == label


@pytest.mark.parametrize("name", ["mnist.csv", "mnist.csv.gz"])
def test_a_small_table_takes_little_memory(tmp_path: Path, name: str) -> None:
    """Not as much as the largest table would: where memory is limited, that cannot even be reserved."""
    path = csv(tmp_path / name)
    tracemalloc.start()
    try:
        tables.table(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_test_table_without_labels_is_passed_over(tmp_path: Path) -> None:
    csv(tmp_path / "train.csv")
    rows = TEST.reshape(12, -1)
    (tmp_path / "test.csv").write_text(",".join(f"pixel{i}" for i in range(36)) + "\n" + "\n".join(",".join(map(str, row)) for row in rows))
    assert not tables.has_labels(tmp_path / "test.csv") and tables.has_labels(tmp_path / "train.csv")
    assert len(load_dataset(tmp_path).test_images) == 6
    refused(tmp_path / "test.csv", "no label column")


def test_a_number_that_is_missing_in_the_first_row_makes_no_header_of_it(tmp_path: Path) -> None:
    path = csv(tmp_path / "set.csv", header=None)
    cells = path.read_text().split(",")
    path.write_text(",".join([cells[0], "", *cells[2:]]))
    refused(path, "line 1, column 2: '' is no number")


def test_labels_may_be_words_and_stand_anywhere(tmp_path: Path) -> None:
    words = np.array(["cat", "dog", "emu"])[TRAIN_LABELS]
    data = load_dataset(csv(tmp_path / "set.csv", labels=words))
    assert data.class_names == ("cat", "dog", "emu")
    rows = TRAIN.reshape(30, -1)
    lines = [",".join([*map(str, row), f'"{word}"']) for row, word in zip(rows.tolist(), words, strict=True)]
    (tmp_path / "set.csv").write_text("\n".join([",".join([*(f"p{i}" for i in range(36)), "class"]), *lines]))
    again = load_dataset(tmp_path / "set.csv")
    np.testing.assert_array_equal(again.train_images, data.train_images)
    np.testing.assert_array_equal(again.train_labels, data.train_labels)


@pytest.mark.parametrize("header", ["label", None])
@pytest.mark.parametrize(
    "names",
    [
        ("20230001", "20230002", "20230003"),  # float32 has only every second of these
        ("-9007199254740993", "-9007199254740992", "9007199254740993"),
        ("cat, big", "cat, small", "dog"),
        ('a "big" cat', "a cat", "dog"),
        ("dog", "étÉ", "été"),
        ("1", "2", "x"),
    ],
)
def test_labels_are_those_that_are_written(tmp_path: Path, names: tuple[str, ...], header: str | None) -> None:
    quoted = np.array(['"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name for name in names])
    for encoding in ("utf-8", "utf-8-sig"):
        data = load_dataset(csv(tmp_path / "set.csv", labels=quoted[TRAIN_LABELS], header=header, encoding=encoding))
        assert data.class_names == names
        labels = np.concatenate([data.train_labels, data.test_labels])
        assert np.bincount(labels).tolist() == np.bincount(TRAIN_LABELS).tolist()


@pytest.mark.parametrize("header", ["label", None])
def test_a_table_says_in_which_line_of_it_something_is_wrong(tmp_path: Path, header: str | None) -> None:
    lines = csv(tmp_path / "set.csv", header=header).read_text().splitlines()
    fourth = lines[3].split(",")
    for cells, match in (
        ([*fourth[:5], "", *fourth[6:]], "line 4, column 6: '' is no number"),
        ([*fourth[:5], "five", *fourth[6:]], "line 4, column 6: 'five' is no number"),
        (fourth[:5], "line 4 has 5 cells, and the first one 37"),
        (["", *fourth[1:]], "line 4, has no label"),
    ):
        (tmp_path / "set.csv").write_text("\n".join([*lines[:3], ",".join(cells), *lines[4:]]))
        refused(tmp_path / "set.csv", match)


def test_names_in_another_encoding_are_not_guessed(tmp_path: Path) -> None:
    words = np.array(["b", "é", "è"])[TRAIN_LABELS]
    refused(csv(tmp_path / "set.csv", labels=words, encoding="latin-1"), "labels that are not UTF-8 .*: save it in that encoding")
    refused(csv(tmp_path / "set.csv", labels=words, encoding="utf-16"), "is in UTF-16: save it as UTF-8")
    np.savez(tmp_path / "set.npz", images=TRAIN, labels=np.char.encode(words, "latin-1"))
    refused(tmp_path / "set.npz", "labels that are not UTF-8")


def test_tables_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    for text, match in (
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("label,a,b\n", "has 3 columns"),
        ("label,p1,p2,p3,p4\n", "no rows below its header"),
        ("label,p1,p2,p3,p4\n1,2,3,4\n", "rows of 4 cells below a header of 5|cannot be read"),
        ("label,p1,p2,p3,p4\n1,2,3,4,5\n1,2,3\n", "cannot be read as a table of numbers"),
        ("label,p1,p2,p3,p4\n1,2,3,4,x\n", "cannot be read as a table of numbers"),
        ("label,p1,p2,p3,p4\n1,2,3,4,999\n0,1,1,1,1\n", "contain 1 to 999"),
        ("label,p1,p2,p3,p4\n1,2,3,4,nan\n0,1,1,1,1\n", "NaN"),
        ("label,p1,p2,p3,p4,p5\n1,1,2,3,4,5\n0,1,1,1,1,1\n", "rows of 5 pixels are not square"),
        ("\x00\x01\x02", "has 1 column,"),
        ("<html>", "has 1 column,"),
    ):
        path.write_text(text)
        refused(path, match)
    path.write_bytes(gzip.compress(b"label")[:-4])
    refused(path, "damaged gzip")
    csv(tmp_path / "train.csv")
    csv(tmp_path / "train2.csv")
    refused(tmp_path, "several tables to train on")


# idx files and arrays.


def test_four_idx_files_of_any_type_and_name(tmp_path: Path) -> None:
    for index, (images, labels) in enumerate(((TRAIN, TEST), (TRAIN.astype(np.int32), TEST.astype(np.int32)), (TRAIN / 255, TEST / 255))):
        folder = tmp_path / str(index)
        folder.mkdir()
        write_idx(folder / "my-train-images-idx3-ubyte.gz", images)
        write_idx(folder / "my-train-labels-idx1-ubyte", TRAIN_LABELS.astype(np.int16))
        write_idx(folder / "my-test-images-idx3-ubyte", labels)
        write_idx(folder / "my-test-labels-idx1-ubyte", TEST_LABELS)
        check(load_dataset(folder))


def test_emnist_is_turned_upright(tmp_path: Path) -> None:
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        write_idx(tmp_path / f"emnist-letters-{part}-images-idx3-ubyte", images.swapaxes(1, 2).copy())
        write_idx(tmp_path / f"emnist-letters-{part}-labels-idx1-ubyte", labels + 1)
    check(load_dataset(tmp_path), names=("1", "2", "3"))


def test_idx_files_that_are_too_few_or_too_many(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", TRAIN)
    refused(tmp_path, "train labels are none")
    write_idx(tmp_path / "train-labels-idx1-ubyte", TRAIN_LABELS)
    refused(tmp_path, "test images are none")
    write_idx(tmp_path / "letters-train-labels-idx1-ubyte", TRAIN_LABELS)
    refused(tmp_path, "each set into a folder of its own")


def test_errors_about_labels_name_the_file_of_the_labels(tmp_path: Path) -> None:
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS + 0.5), ("test", TEST, TEST_LABELS)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    refused(tmp_path, "train-labels-idx1-ubyte has labels that are not integers")
    write_idx(tmp_path / "train-labels-idx1-ubyte", TRAIN_LABELS[:29])
    refused(tmp_path, r"train-images-idx3-ubyte has 30 images, and .*train-labels-idx1-ubyte has labels of shape \(29,\)")


def test_four_arrays(tmp_path: Path) -> None:
    for name, array in KERAS.items():
        np.save(tmp_path / f"{name}.npy", array)
    check(load_dataset(tmp_path))
    for content, match in ((header("(1099511627776, 6, 6)") + b"a", "cannot be read as a .npy array"), (b"", "is empty")):
        (tmp_path / "x_train.npy").write_bytes(content)
        refused(tmp_path, match)
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    (tmp_path / "x_train.npy").write_bytes(objects.getvalue())
    refused(tmp_path, "cannot be read as a .npy array")
    (tmp_path / "y_test.npy").unlink()
    refused(tmp_path, "contains x_train.npy, y_train.npy, x_test.npy but no y_test.npy: put all four into one folder")
    for name in ("x_train", "x_test"):
        (tmp_path / f"{name}.npy").rename(tmp_path / f"{name.capitalize()}.npy")
    refused(tmp_path, "contains X_train.npy, y_train.npy, X_test.npy but no y_test.npy")


# Which of them.


def test_a_folder_with_one_file_of_a_set_is_that_set(tmp_path: Path) -> None:
    npz(tmp_path, KERAS)
    check(load_dataset(tmp_path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    refused(tmp_path / "a.zip", r"is a file, expected a folder, or one of \.npz, \.csv")
    refused(tmp_path / "none.npz", "does not exist")
    refused(tmp_path / "none.csv", "does not exist")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "contains no images")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
        refused(tmp_path / "pipe.npz", "is a pipe, not a regular file")


def test_names_are_spelt_as_one_likes_and_a_path_goes_before_such_a_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_dataset("Digits").name == "digits"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Digits").mkdir()
    npz(tmp_path / "Digits", KERAS)
    assert load_dataset("Digits").name == "set" and load_dataset("digits").name == "digits"


@pytest.mark.parametrize("name", ["nobody.npz", "nobody.csv", "nobody.CSV.gz", "nobody.parquet"])
def test_a_file_that_is_not_there_is_no_unknown_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"{name} does not exist, there is no such file"):
        load_dataset(name)
