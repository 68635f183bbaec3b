"""A folder of images: classes from subfolders, and a split that depends on nothing but the names and the seed."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import image_folder, kept, load_dataset
from gpucnn.errors import ArgumentError, DataError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def grey(path, value=0, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def fill(folder, classes=("cat", "dog"), count=10):
    """`count` images each, of which every one has a value of its own."""
    value = 0
    for name in classes:
        for i in range(count):
            grey(folder / name / f"{i}.png", value)
            value += 1
    return folder


def values(images):
    return sorted(images[:, 0, 0, 0].tolist())


def test_classes_and_split(tmp_path):
    data = load_dataset(fill(tmp_path / "pets"), test_fraction=0.3)
    assert data.name == "pets" and data.class_names == ("cat", "dog") and data.classes == 2
    assert data.image_shape == (1, 3, 4) and data.note is None
    assert data.source == f"{tmp_path / 'pets'}, 14 + 6 images"
    assert data.train_labels.tolist() == [0] * 7 + [1] * 7 and data.test_labels.tolist() == [0] * 3 + [1] * 3
    assert data.train_labels.dtype == np.int32
    assert sorted(values(data.train_images) + values(data.test_images)) == list(range(20))
    np.testing.assert_array_equal(data.train_images[:, 0, 0, 0] >= 10, data.train_labels == 1)


def test_the_split_depends_on_the_seed_and_the_names_alone(tmp_path):
    a, b = fill(tmp_path / "a"), tmp_path / "b"
    for path in sorted(a.rglob("*.png"), reverse=True):  # another order of creation
        (b / path.parent.name).mkdir(parents=True, exist_ok=True)
        (b / path.parent.name / path.name).write_bytes(path.read_bytes())
    first, second = load_dataset(a), load_dataset(str(b))
    np.testing.assert_array_equal(first.test_images, second.test_images)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert any(values(load_dataset(a, seed=seed).test_images) != values(first.test_images) for seed in range(1, 5))
    # one more image moves at most one other
    grey(a / "cat" / "new.png", 99)
    assert len(set(values(load_dataset(a).test_images)) ^ set(values(first.test_images))) <= 2


@pytest.mark.parametrize(("fraction", "held"), [(0.001, 1), (0.999, 9), (0.25, 3), (np.float64(0.5), 5)])
def test_each_class_keeps_and_gives_an_image(tmp_path, fraction, held):
    assert len(load_dataset(fill(tmp_path), test_fraction=fraction).test_images) == 2 * held


def test_a_folder_that_is_split_already(tmp_path):
    fill(tmp_path / "train", ("a", "b", "c"), 2)
    fill(tmp_path / "test", ("b",), 3)
    fill(tmp_path / "val", ("b",), 3)
    data = load_dataset(tmp_path, test_fraction=0.9, seed=7)
    assert data.class_names == ("a", "b", "c")
    assert data.train_labels.tolist() == [0, 0, 1, 1, 2, 2] and data.test_labels.tolist() == [1, 1, 1]


def test_what_is_passed_over(tmp_path):
    fill(tmp_path)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "cat" / "notes.txt").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "cat" / "folder.png").mkdir()
    (tmp_path / "readme.md").write_bytes(b"")
    assert len(load_dataset(tmp_path).train_images) == 16


def test_images_a_folder_too_deep_are_skipped_and_that_is_said(tmp_path):
    fill(tmp_path)
    grey(tmp_path / "cat" / "more" / "0.png")
    data = load_dataset(tmp_path)
    assert len(data.train_images) + len(data.test_images) == 20
    said = f"the images in {tmp_path / 'cat' / 'more'} were skipped, a folder deeper than {tmp_path}/CLASS/image.png: move them to "
    assert data.note == f"{said}{tmp_path / 'cat'} if they belong to that class"
    grey(tmp_path / "dog" / "a" / "b" / "0.png")
    (tmp_path / "dog" / "empty").mkdir()
    (tmp_path / "dog" / "__MACOSX").mkdir()
    note = load_dataset(tmp_path).note
    assert "more and 1 more folder were skipped" in note and "2 files in" in note and "2 a folder" in note


def test_one_colour_image_makes_all_of_them_colour(tmp_path):
    fill(tmp_path)
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "dog" / "0.png")
    np.save(tmp_path / "dog" / "extra.npy", np.full((3, 4), 77, np.uint8))
    data = load_dataset(tmp_path)
    assert data.image_shape == (3, 3, 4)
    everything = np.concatenate([data.train_images, data.test_images])[:, :, 0, 0].tolist()
    assert [1, 2, 3] in everything and [77, 77, 77] in everything and [5, 5, 5] in everything


def refused(folder, match, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        load_dataset(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_size(tmp_path):
    grey(fill(tmp_path) / "dog" / "7.png", size=(5, 3))
    assert str(tmp_path / "dog" / "7.png") in refused(tmp_path, "3 × 5 pixels .*, expected 3 × 4")


def test_an_unreadable_image(tmp_path):
    (fill(tmp_path) / "dog" / "7.png").write_bytes(b"oops")
    assert str(tmp_path / "dog" / "7.png") in refused(tmp_path, "cannot be read as an image")


def test_nothing_to_learn_from(tmp_path):
    refused(tmp_path / "none", "is not a folder")
    refused(tmp_path, "contains no images")
    (tmp_path / "cat").mkdir()
    refused(tmp_path, "contains no images")
    grey(tmp_path / "0.png")
    refused(tmp_path, "no class folders")
    fill(tmp_path, ("cat",))
    refused(tmp_path, "only the class 'cat'")
    (tmp_path / "dog").mkdir()
    assert str(tmp_path / "dog") in refused(tmp_path, "contains no images")
    grey(tmp_path / "dog" / "0.png")
    refused(tmp_path, "contains one image")


def test_a_class_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    fill(tmp_path)
    scan = os.scandir

    def closed(path):
        if Path(path).name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)  # permissions do not bind root
    refused(tmp_path, "dog cannot be read .Permission denied.: check its permissions")


def test_images_that_are_all_a_folder_too_deep(tmp_path):
    inside = fill(tmp_path / "unpacked" / "pets")
    assert refused(tmp_path / "unpacked", "contains no images, only folders of them").endswith(f"itself: name the folder {inside}")
    deep = tmp_path / "deep"
    for name in ("cat", "dog"):
        fill(deep / name, ("more",))
    said = refused(deep, r"contains no images, only folders of them \(.*0.png\), expected the images of a class in .*CLASS itself")
    assert said.endswith(f"move the images of cat to {deep / 'cat'}")
    fill(deep, ("cow",))
    assert refused(deep, "cat contains no images, only").endswith(f"move them to {deep / 'cat'}")


def test_splits_that_do_not_fit(tmp_path):
    fill(tmp_path / "train")
    refused(tmp_path, "train but no test")
    fill(tmp_path / "test", ("cow",))
    refused(tmp_path, "the class 'cow'")


def test_a_folder_of_idx_files(tmp_path):
    (tmp_path / "t10k-images.idx3-ubyte.gz").write_bytes(b"")
    refused(tmp_path, "there must be one of each of train and test, images and labels")


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan")])
def test_fractions_out_of_range(tmp_path, fraction):
    refused(fill(tmp_path, count=2), "test_fraction", ArgumentError, test_fraction=fraction)


@pytest.mark.parametrize("options", [{"test_fraction": "a"}, {"test_fraction": True}, {"seed": 1.5}, {"seed": True}])
def test_options_of_the_wrong_type(tmp_path, options):
    refused(fill(tmp_path, count=2), next(iter(options)), TypeError, **options)


# Parts and sizes.


@pytest.mark.parametrize(
    ("train", "validation", "test"), [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "validation", "TEST")]
)
def test_parts_in_every_usual_spelling(tmp_path, train, validation, test):
    for part, count in ((train, 4), (validation, 2), (test, 3)):
        fill(tmp_path / part, count=count)
    data = load_dataset(tmp_path)
    assert (len(data.train_images), len(data.validation_images), len(data.test_images)) == (8, 4, 6) and data.note is None
    assert data.validation_labels.tolist() == [0, 0, 1, 1]


def test_val_without_test_is_tested_on_and_that_is_said(tmp_path):
    fill(tmp_path / "train", count=4)
    fill(tmp_path / "val", count=2)
    data = load_dataset(tmp_path)
    assert len(data.test_images) == 4 and data.validation_images is None and "no test folder" in data.note
    grey(tmp_path / "val" / "emu" / "a.png")
    refused(tmp_path, "val has the class 'emu', which .*train does not have")


def test_a_folder_that_looks_like_a_part_and_is_none_is_noted(tmp_path):
    for part in ("train", "test", "vall"):
        fill(tmp_path / part)
    fill(tmp_path / "run", ("pictures",))
    data = load_dataset(tmp_path)
    assert data.validation_images is None
    assert data.note == f"{tmp_path / 'vall'} was skipped: the parts of a data set are named train, test and val"


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_images_of_a_class_is_noted(tmp_path, part):
    for name in ("train", "val", "test"):
        fill(tmp_path / name, ("cat",) if name == part else ("cat", "dog"), count=2)
    data = load_dataset(tmp_path)
    assert data.note == f"{tmp_path / part} has no images of dog: accuracies there say nothing about it"
    fill(tmp_path / "train", ("cow",), count=2)
    fill(tmp_path / ("val" if part == "test" else "test"), ("cow",), count=2)
    assert load_dataset(tmp_path).note == f"{tmp_path / part} has no images of cow, dog: accuracies there say nothing about them"


@pytest.mark.parametrize(("given", "shape"), [(6, (6, 6)), ("6", (6, 6)), ("6x4", (6, 4)), ((2, 5), (2, 5)), ("3×4", (3, 4))])
def test_images_of_several_sizes_are_brought_to_one(tmp_path, given, shape):
    fill(tmp_path, count=4)
    grey(tmp_path / "cat" / "wide.png", 200, (40, 10))
    Image.new("RGB", (5, 30), (10, 20, 30)).save(tmp_path / "dog" / "high.png")
    refused(tmp_path, "give --image-size")
    data = load_dataset(tmp_path, image_size=given)
    assert data.image_shape == (3, *shape)
    everything = np.concatenate([data.train_images, data.test_images])
    assert all(len(np.unique(plane)) == 1 for image in everything for plane in image)  # of one colour before and after
    assert {10, 200} <= set(everything[:, 0, 0, 0].tolist())


def test_what_does_not_fit_is_cut_about_the_centre(tmp_path):
    stripes = np.zeros((4, 12), np.uint8)
    stripes[:, 4:8] = 255
    for name in ("a", "b"):
        for index in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(stripes).save(tmp_path / name / f"{index}.png")
    assert (load_dataset(tmp_path, image_size=4).train_images == 255).all()
    np.testing.assert_array_equal(load_dataset(tmp_path, image_size=(4, 12)).train_images[0, 0], stripes)


def test_sizes_that_cannot_be(tmp_path):
    fill(tmp_path)
    for size in (0, -1, "", "x", "3x", "axb", "1x2x3", (1, 2, 3), "99999x99999", "-3"):
        refused(tmp_path, "image_size", ArgumentError, image_size=size)
    for size in (1.5, True, [[]]):
        with pytest.raises((TypeError, ArgumentError), match="image_size"):
            load_dataset(tmp_path, image_size=size)
    refused("digits", "has a size of its own", ArgumentError, image_size=8)


# Many images: read by threads, told as they come, and kept.


@pytest.fixture
def many(tmp_path, monkeypatch):
    """600 images of several sizes, a cache of its own, and how many files were read so far."""
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, read, original = tmp_path / "set", [], image_folder.read_image
    for index in range(600):
        grey(folder / ("a" if index % 2 else "b") / f"{index:03}.png", index % 251, (4 + index % 3, 5))
    monkeypatch.setattr(image_folder, "read_image", lambda path: read.append(path) or original(path))
    return folder, read


def test_many_images_come_in_their_order_and_are_read_once(many):
    folder, read = many
    told = []
    first = load_dataset(folder, image_size=4, reading=lambda *call: told.append(call))
    assert len(read) == 600 and told[0] == ("images", 1, 600) and told[-1] == ("images", 600, 600) and len(told) == 600
    for images, labels in ((first.train_images, first.train_labels), (first.test_images, first.test_labels)):
        names = [f"{'ba'[index % 2]}/{index:03}.png" for index in range(600)]
        values = {f"{index % 251}" for index in range(600) if names[index][0] == "a"}
        assert {str(image[0, 0, 0]) for image, label in zip(images, labels, strict=True) if label == 0} <= values
    again = load_dataset(folder, image_size="4x4")
    assert len(read) == 600
    np.testing.assert_array_equal(again.train_images, first.train_images)
    np.testing.assert_array_equal(again.test_images, first.test_images)
    other = load_dataset(folder, image_size=(4, 5))
    assert len(read) == 1200 and other.image_shape == (1, 4, 5)


def test_what_has_changed_is_read_anew(many, tmp_path):
    folder, read = many
    load_dataset(folder, image_size=4)
    grey(folder / "a" / "001.png", 252, (4, 5))
    load_dataset(folder, image_size=4)
    assert len(read) == 1200
    (folder / "a" / "003.png").unlink()
    load_dataset(folder, image_size=4)
    assert len(read) == 1799
    places = sorted((tmp_path / "cache" / "gpucnn" / "images").iterdir())
    assert len(places) == 3
    for place in places:
        for content in (b"", b"damaged", place.read_bytes()[:-1]):
            place.write_bytes(content)
    assert len(load_dataset(folder, image_size=4).train_images) == 479 and len(read) == 1799 + 599


def test_a_bad_one_among_many_is_named(many):
    folder, _ = many
    (folder / "a" / "301.png").write_bytes(b"oops")
    assert "301.png" in refused(folder, "cannot be read as an image", image_size=4)


def test_the_cache_has_a_limit(many, tmp_path, monkeypatch):
    folder, _ = many
    monkeypatch.setattr(kept, "MOST", 2 * 600 * 16 + 4000)
    for size in (4, (4, 3), (3, 4), (2, 8)):
        load_dataset(folder, image_size=size)
    left = list((tmp_path / "cache" / "gpucnn" / "images").iterdir())
    assert 1 <= len(left) <= 2 and sum(path.stat().st_size for path in left) <= kept.MOST


def test_a_cache_that_cannot_be_written_is_none(many, tmp_path):
    folder, _ = many
    (tmp_path / "cache").write_bytes(b"a file")
    assert len(load_dataset(folder, image_size=4).train_images) == 480
