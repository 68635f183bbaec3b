"""The sets that have a name besides MNIST: small ones of the same form, wherever other programs leave them, and from a server."""

import gzip
import hashlib
import http.server
import io
import os
import string
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gpucnn.data import UnavailableError, cifar, load_dataset, mnist, read_idx, write_idx
from gpucnn.errors import DataError, UnknownNameError

SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.0 to 3.11.3 know no filters
EMNIST = "emnist-letters"
SIZES = {"kmnist": (30, 10), EMNIST: (52, 26), "qmnist": (30, 40)}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()


def arrays_of(name):
    """The four arrays of a small set, as they stand in its files."""
    source, rng = mnist.SOURCES[name], np.random.default_rng(len(name))
    arrays = []
    for count in SIZES[name]:
        classes = np.arange(count) % len(source.class_names) + source.first
        arrays.append(rng.integers(0, 256, (count, 5, 5), np.uint8))
        if name == "qmnist":
            extended = rng.integers(0, 9999, (count, 8), np.int32)
            extended[:, 0] = classes
            arrays.append(extended)
        else:
            arrays.append(classes.astype(np.uint8))
    return arrays


def write_set(folder, name, ending=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(mnist.SOURCES[name].files, arrays_of(name), strict=True):
        write_idx(folder / f"{file}{ending}", array)
    return folder


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def records(labels, images, fine):
    rng = np.random.default_rng(fine)
    classes = rng.permutation(np.arange(images) % fine).astype(np.uint8)
    content = rng.integers(0, 256, (images, labels + cifar.PIXELS), np.uint8)
    content[:, labels - 1] = classes
    return content


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A server with small sets, an empty cache, and SOURCES that know them."""
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "mirror"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    server.asked = []
    url = f"http://127.0.0.1:{server.server_port}"
    for name in SIZES:
        source = mnist.SOURCES[name]
        write_set(served / name, name)
        hashes = tuple(md5_of(served / name / f"{file}.gz") for file in source.files)
        train, test = ((count, 5, 5) for count in SIZES[name])
        changed = replace(source, md5=hashes, sha256=(None,) * 4, train_shape=train, test_shape=test, mirrors=(f"{url}/{name}/",))
        if source.archive is not None:
            with zipfile.ZipFile(served / "gzip.zip", "w") as archive:
                for file in source.files:
                    archive.write(served / name / f"{file}.gz", f"gzip/{file}.gz")
                archive.writestr("gzip/../../evil", b"no")
            known = replace(source.archive, mirrors=(f"{url}/gzip.zip",), md5=md5_of(served / "gzip.zip"))
            changed = replace(changed, archive=known, mirrors=())
        monkeypatch.setitem(mnist.SOURCES, name, changed)
    for name, source in list(cifar.SOURCES.items()):
        fine, parts = len(source.class_names), len(source.train)
        train = np.split(records(source.labels, 2 * fine * parts, fine), parts)
        contents = dict(zip(source.files, [*train, records(source.labels, fine, fine)], strict=True))
        with tarfile.open(served / source.archive, "w:gz") as archive:
            for file, content in contents.items():
                member = tarfile.TarInfo(f"{source.folder}/{file}")
                member.size = content.nbytes
                archive.addfile(member, io.BytesIO(content.tobytes()))
        changed = replace(source, mirrors=(f"{url}/gone/", f"{url}/"), md5=md5_of(served / source.archive))
        monkeypatch.setitem(cifar.SOURCES, name, replace(changed, train_images=2 * fine * parts, test_images=fine))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    (tmp_path / "data").mkdir()
    yield Home(tmp_path, server.asked)
    server.shutdown()
    server.server_close()


class Home:
    def __init__(self, path, asked):
        self.path, self.asked, self.mirror = path, asked, path / "mirror"

    def __truediv__(self, name):
        return self.path / name


def refused(match, *args, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        load_dataset(*args, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 500
    return str(caught.value)


def check(data, name):
    """That a set is what was written, upright, with classes from 0 on."""
    source, (x, y, xt, yt) = mnist.SOURCES[name], arrays_of(name)
    if name == EMNIST:
        x, xt = x.transpose(0, 2, 1), xt.transpose(0, 2, 1)
    if name == "qmnist":
        y, yt = y[:, 0], yt[:, 0]
    np.testing.assert_array_equal(data.train_images[:, 0], x)
    np.testing.assert_array_equal(data.test_images[:, 0], xt)
    np.testing.assert_array_equal(data.train_labels, y.astype(np.int32) - source.first)
    np.testing.assert_array_equal(data.test_labels, yt.astype(np.int32) - source.first)
    assert data.name == name and data.class_names == source.class_names and data.train_images.flags.c_contiguous


@pytest.mark.parametrize("name", SIZES)
def test_downloaded_and_found_again(home, name):
    data = load_dataset(name, home / "data")
    check(data, name)
    assert data.source.startswith(f"{home / 'data' / name.removesuffix('-letters')}, ") and data.note is None
    asked = len(home.asked)
    check(load_dataset(name, home / "data"), name)
    assert len(home.asked) == asked
    assert not (home / "evil").exists() and not (home / "data" / "evil").exists()


@pytest.mark.parametrize(
    ("name", "place"),
    [("kmnist", "KMNIST/raw"), ("kmnist", "raw"), ("kmnist", ""), (EMNIST, "EMNIST/raw"), (EMNIST, "gzip"), ("qmnist", "QMNIST/raw")],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_found_where_other_programs_leave_them(home, name, place, ending):
    write_set(home / "data" / place, name, ending)
    check(load_dataset(name, home / "data"), name)
    assert home.asked == []


def test_the_archive_serves_the_other_sets_in_it(home):
    load_dataset(EMNIST, home / "data")
    assert home.asked == ["/gzip.zip"]
    for file in mnist.SOURCES[EMNIST].files:
        (home / "data" / "emnist" / f"{file}.gz").unlink()
    check(load_dataset(EMNIST, home / "data", download=False), EMNIST)


def test_an_archive_that_is_there_is_unpacked(home):
    (home / "data" / "EMNIST" / "raw").mkdir(parents=True)
    (home / "data" / "EMNIST" / "raw" / "gzip.zip").write_bytes((home.mirror / "gzip.zip").read_bytes())
    check(load_dataset(EMNIST, home / "data", download=False), EMNIST)
    assert home.asked == [] and not (home / "data" / "evil").exists()


@pytest.mark.parametrize("damage", ["no zip", "other", "lacks"])
def test_an_archive_that_is_none(home, damage):
    source, path = mnist.SOURCES[EMNIST], home / "data" / "gzip.zip"
    path.parent.mkdir(exist_ok=True)
    if damage == "no zip":
        path.write_bytes(b"PK oops")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for file in source.files[:3] if damage == "lacks" else source.files:
                archive.writestr(f"gzip/{file}.gz", gzip.compress(b"something else"))
    refused("is not the file that was published" if damage != "no zip" else "cannot be read as", EMNIST, home / "data")
    assert os.listdir(path.parent) == ["gzip.zip"] and home.asked == []


def test_what_is_packed_anew_is_taken_and_said(home):
    folder = write_set(home / "data", "kmnist")
    path = folder / f"{mnist.FILES[0]}.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    data = load_dataset("kmnist", home / "data")
    check(data, "kmnist")
    assert mnist.FILES[0] in data.note and "not the published files byte for byte" in data.note and mnist.FILES[1] not in data.note


def test_damaged_files(home):
    folder = write_set(home / "data", "kmnist")
    labels = folder / f"{mnist.FILES[1]}.gz"
    good = read_idx(labels)
    for change, match in (
        (np.where(good == 3, 4, good), "has as many of each"),
        (good[:-1], "announces 29, expected 30"),
        (np.where(good == 3, 77, good), "label 3 is 77"),
    ):
        write_idx(labels, change.astype(np.uint8))
        assert str(labels) in refused(match, "kmnist", home / "data")
    labels.write_bytes(labels.read_bytes()[:-9])
    assert str(labels) in refused("delete it", "kmnist", home / "data")
    assert home.asked == []


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_in_the_folder_is_not_taken_for_kmnist(home, monkeypatch, ending):
    """Nor the other way round: their files have the same names, and here the same sizes."""
    folder = write_set(home / "data", "kmnist", ending)
    hashes = []
    for file in mnist.FILES:
        array = read_idx(folder / f"{file}{ending}")[::-1]
        write_idx(folder / f"{file}{ending}", array)
        write_idx(home / "raw", array)
        hashes.append(hashlib.sha256((home / "raw").read_bytes()).hexdigest())
    real = replace(mnist.SOURCES["mnist"], sha256=tuple(hashes), train_shape=(30, 5, 5), test_shape=(10, 5, 5))
    monkeypatch.setitem(mnist.SOURCES, "mnist", real)
    refused("contains MNIST, and Kuzushiji-MNIST was requested", "kmnist", home / "data")
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "data"))  # which may well be meant for the other set
    assert load_dataset("kmnist").source.startswith(str(home / "data" / "kmnist"))
    if ending:
        write_set(home / "other", "kmnist")
        refused("contains Kuzushiji-MNIST, and MNIST was requested", "mnist", home / "other")


def test_names_and_classes_are_those_that_the_sets_are_published_with():
    source = mnist.SOURCES
    assert "".join(source["emnist-balanced"].class_names) == string.digits + string.ascii_uppercase + "abdefghnqrt"
    assert len(source["emnist-balanced"].class_names) == 47 and len(cifar.SOURCES["cifar100"].class_names) == 100
    assert cifar.SOURCES["cifar100"].class_names == tuple(sorted(cifar.SOURCES["cifar100"].class_names))
    for one in source.values():
        for shape in (one.train_shape, one.test_shape) if one.even else ():
            assert shape[0] % len(one.class_names) == 0
    with pytest.raises(UnknownNameError, match="did you mean 'emnist-letters' or 'emnist-digits' or 'emnist-balanced'"):
        load_dataset("emnist")


# CIFAR.


@pytest.mark.parametrize("name", cifar.SOURCES)
@pytest.mark.parametrize("form", ["downloaded", "archive", "unpacked", "unpacked by itself"])
def test_cifar(home, name, form):
    source = cifar.SOURCES[name]
    if form != "downloaded":
        folder = home / "data" / (name if form == "unpacked by itself" else "")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(home.mirror / source.archive) as archive:
            if form == "archive":
                (folder / source.archive).write_bytes((home.mirror / source.archive).read_bytes())
            else:
                archive.extractall(folder, **SAFELY)
        if form == "unpacked by itself":
            (folder / source.folder).rename(home / "moved")
            (home / "moved").rename(folder / "files")
            folder = folder / "files"
    data = load_dataset(name, folder if form == "unpacked by itself" else home / "data")
    fine = len(source.class_names)
    train, test = records(source.labels, 2 * fine * len(source.train), fine), records(source.labels, fine, fine)
    for images, labels, expected in ((data.train_images, data.train_labels, train), (data.test_images, data.test_labels, test)):
        assert images.shape == (len(expected), 3, 32, 32) and images.flags.c_contiguous
        np.testing.assert_array_equal(images[:, 1, 2, 3], expected[:, source.labels + 1024 + 2 * 32 + 3])
        np.testing.assert_array_equal(images.reshape(len(images), -1), expected[:, source.labels :])
        np.testing.assert_array_equal(labels, expected[:, source.labels - 1])
    assert data.class_names == source.class_names
    assert home.asked == ([f"/gone/{source.archive}", f"/{source.archive}"] if form == "downloaded" else [])


def test_cifar_that_is_damaged_or_pickled(home, monkeypatch):
    source = cifar.SOURCES["cifar10"]
    path = home / "data" / source.archive
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((home.mirror / source.archive).read_bytes()[:-1])
    refused("has the MD5 .*, expected .*", "cifar10", home / "data")
    for content, match in ((b"no archive", "cannot be read as a .tar.gz"), (None, "lacks data_batch_1.bin, data_batch_2.bin")):
        if content is None:
            with tarfile.open(path, "w:gz"):
                pass
        else:
            path.write_bytes(content)
        monkeypatch.setitem(cifar.SOURCES, "cifar10", replace(source, md5=md5_of(path)))
        refused(match, "cifar10", home / "data")
    path.unlink()
    with tarfile.open(home.mirror / source.archive) as archive:
        archive.extractall(path.parent, **SAFELY)
    test = path.parent / source.folder / source.test
    good = test.read_bytes()
    test.write_bytes(good[:-1])
    refused(r"test_batch.bin has 30,729 bytes, expected 10 images of 3,073 bytes", "cifar10", home / "data")
    test.write_bytes(bytes([99]) + good[1:])
    refused("test_batch.bin do not have 1 images of each of 10 classes", "cifar10", home / "data")
    monkeypatch.setitem(cifar.SOURCES, "cifar10", replace(source, mirrors=source.mirrors[:1]))
    (home / "pickled" / source.pickled).mkdir(parents=True)
    for download in (True, False):
        text = refused(
            "cifar-10-batches-py lies there, and nothing is ever unpickled",
            "cifar10",
            home / "pickled",
            download=download,
            error=UnavailableError,
        )
        assert source.archive in text and "--data-dir" in text


def test_a_folder_that_was_named_is_the_only_one(home, monkeypatch):
    """The environment's has the archive, which was not requested."""
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "env"))
    (home / "env").mkdir()
    (home / "env" / "cifar-10-binary.tar.gz").write_bytes((home.mirror / "cifar-10-binary.tar.gz").read_bytes())
    refused("typo does not exist", "cifar10", home / "typo")
    (home / "empty").mkdir()
    refused("CIFAR-10 was not found in .*empty", "cifar10", home / "empty", download=False, error=UnavailableError)
    assert load_dataset("cifar10").source.startswith(str(home / "env"))


# What torchvision reads of the same files, where it is installed.


@pytest.mark.parametrize(("name", "place"), [("kmnist", "KMNIST/raw"), (EMNIST, "EMNIST/raw"), ("qmnist", "QMNIST/raw")])
def test_torchvision_reads_the_same(home, name, place):
    try:
        from torchvision import datasets
    except Exception as error:  # one that was built for another PyTorch fails in its own way
        pytest.skip(f"torchvision cannot be used: {type(error).__name__}")
    write_set(home / "data" / place, name, "")
    ours = load_dataset(name, home / "data", download=False)
    kind, more = {"kmnist": (datasets.KMNIST, {}), EMNIST: (datasets.EMNIST, {"split": "letters"}), "qmnist": (datasets.QMNIST, {})}[name]
    for train, images, labels in ((True, ours.train_images, ours.train_labels), (False, ours.test_images, ours.test_labels)):
        theirs = kind(str(home / "data"), train=train, **more)
        classes = theirs.targets[:, 0] if name == "qmnist" else theirs.targets
        np.testing.assert_array_equal(classes.numpy() - mnist.SOURCES[name].first, labels)
        upright = theirs.data.numpy().swapaxes(1, 2) if name == EMNIST else theirs.data.numpy()  # which torchvision leaves as it is
        np.testing.assert_array_equal(upright, images[:, 0])
        assert tuple(words.split(" ")[0] for words in theirs.classes if words != "N/A") == ours.class_names
