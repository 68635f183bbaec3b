"""Data sets by name: where they are looked for, in which order, and what is said when they are not there."""

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from gpucnn.data import Dataset, UnavailableError, load_dataset, mnist, names, write_idx
from gpucnn.errors import DataError, MissingExtraError, UnknownNameError

GIVEN = os.environ.get("GPUCNN_DATA_DIR", "")
SPELLINGS = ["{}", "{}.gz", "{.}", "{.}.gz"]


def write_set(folder, seed, spelling="{}.gz"):
    """Four files of a small made-up data set; returns their hashes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    hashes = []
    for name in mnist.FILES:
        n = 30 if name.startswith("train") else 10
        array = rng.integers(0, 256, (n, 4, 4), np.uint8) if "images" in name else np.arange(n, dtype=np.uint8) % 10
        if seed:
            array = array[::-1]
        path = folder / spelling.replace("{.}", name.replace("-idx", ".idx")).replace("{}", name)
        write_idx(path, array)
        raw = path.read_bytes()
        hashes.append(hashlib.sha256(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).hexdigest())
    return tuple(hashes)


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Small stand-ins for both data sets, served by a mirror on this machine after one that fails; an empty cache."""
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror")))
    url = f"http://127.0.0.1:{server.server_port}"
    for seed, name in enumerate(("mnist", "fashion-mnist")):
        source = replace(
            mnist.SOURCES[name],
            mirrors=(f"{url}/gone/{name}/", f"{url}/{name}/"),
            sha256=write_set(tmp_path / "mirror" / name, seed),
            train_shape=(30, 4, 4),
            test_shape=(10, 4, 4),
        )
        monkeypatch.setitem(mnist.SOURCES, name, source)
    Quiet.asked.clear()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield tmp_path
    server.shutdown()
    server.server_close()


@pytest.fixture
def offline(home, monkeypatch):
    for name, source in list(mnist.SOURCES.items()):
        monkeypatch.setitem(mnist.SOURCES, name, replace(source, mirrors=source.mirrors[:1]))
    return home


def refused(match, *args, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        load_dataset(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("sub", ["", "mnist"])
def test_a_data_dir(home, spelling, sub):
    write_set(home / "data" / sub, 0, spelling)
    data = load_dataset("mnist", home / "data")
    assert data.name == "mnist" and data.image_shape == (1, 4, 4) and data.classes == 10
    assert data.train_images.shape == (30, 1, 4, 4) and data.test_images.shape == (10, 1, 4, 4)
    assert data.train_labels.dtype == np.int32 and data.test_labels.tolist() == list(range(10))
    assert data.source == f"{home / 'data' / sub}, 30 + 10 images" and data.note is None
    assert Quiet.asked == []


def test_the_order_of_places(home, monkeypatch):
    """The environment's before the cache; and a folder that is named is the only one."""
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "env"))
    for place in ("cache/gpucnn/mnist", "env"):
        write_set(home / place, 0)
        assert load_dataset("mnist").source.startswith(str(home / place))
    (home / "given").mkdir()
    for name in ("mnist", "auto"):
        text = refused(
            "MNIST was not found in .*given, and downloading is off", name, home / "given", download=False, error=UnavailableError
        )
        assert (
            "train-images-idx3-ubyte" in text and "leave --data-dir (data_dir=) out to search GPUCNN_DATA_DIR and the user's cache" in text
        )
    assert Quiet.asked == []
    assert load_dataset("mnist", home / "given").source.startswith(str(home / "given" / "mnist"))  # downloaded, as it is requested there
    assert Quiet.asked != []
    write_set(home / "other", 0)
    assert load_dataset("mnist", home / "other").source.startswith(str(home / "other"))


@pytest.mark.parametrize(
    ("given", "env", "expected"),
    [(None, "", "cache/gpucnn/mnist"), (None, "env", "env/mnist"), ("new/given", "env", "new/given/mnist"), ("a/mnist", "", "a/mnist")],
)
def test_where_a_download_goes(home, monkeypatch, given, env, expected):
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / env) if env else "")
    calls = []
    if given:
        (home / given).mkdir(parents=True)
    data = load_dataset("mnist", given and home / given, progress=lambda *call: calls.append(call))
    assert data.source == f"{home / expected}, 30 + 10 images"
    assert sorted(os.listdir(home / expected)) == sorted(f"{file}.gz" for file in mnist.FILES)
    assert {call[0] for call in calls} == {f"{file}.gz" for file in mnist.FILES}
    # the mirror that failed was asked once, not four times
    assert [path.startswith("/gone") for path in Quiet.asked] == [True] + [False] * 4
    Quiet.asked.clear()
    load_dataset("mnist", given and home / given)
    assert Quiet.asked == []


def test_a_download_takes_up_where_it_ended(home):
    (home / "data").mkdir()
    load_dataset("fashion-mnist", home / "data")
    os.remove(home / "data" / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz")
    Quiet.asked.clear()
    load_dataset("fashion-mnist", home / "data")
    assert [Path(path).name for path in Quiet.asked[1:]] == ["t10k-labels-idx1-ubyte.gz"]


def test_files_that_lack_one_are_completed_where_they_are(home):
    write_set(home / "data", 0)
    os.remove(home / "data" / "t10k-labels-idx1-ubyte.gz")
    text = refused("lacks t10k-labels", "mnist", home / "data", download=False, error=UnavailableError)
    assert "train-images" not in text.partition("lacks")[2].partition(",")[0]
    assert load_dataset("mnist", home / "data").source.startswith(f"{home / 'data'},")


def test_nothing_there(offline, monkeypatch):
    text = refused("MNIST was not found", "mnist", download=False, error=UnavailableError)
    assert str(offline / "cache") in text and "--data-dir" in text and "set GPUCNN_DATA_DIR" in text
    for folder, more in (("nowhere", ", which does not exist"), (".", "")):
        with monkeypatch.context() as patch:
            patch.setenv("GPUCNN_DATA_DIR", folder)
            text = refused("MNIST was not found", "mnist", download=False, error=UnavailableError)
        assert text.endswith(f"or set GPUCNN_DATA_DIR to it; it is {folder} now{more}")
    (offline / "data").mkdir()
    for name, title in (("fashion-mnist", "Fashion-MNIST"), ("mnist", "MNIST"), ("auto", "MNIST")):
        text = refused(f"^{title} is not in .*data, and .* could not be downloaded", name, offline / "data", error=UnavailableError)
        assert "127.0.0.1" in text and "HTTP 404" in text and "--data-dir" in text and "t10k-labels-idx1-ubyte" in text
        assert ("--dataset digits" in text) == (name == "auto")
    assert list((offline / "data").iterdir()) == []


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize("file", mnist.FILES)
def test_a_damaged_file_is_neither_skipped_nor_replaced(home, name, file):
    write_set(home / "data", 0)
    path = home / "data" / f"{file}.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-1] ^= 1
    for broken in (gzip.compress(raw), path.read_bytes()[:-9], b""):
        path.write_bytes(broken)
        assert str(path) in refused("delete it", name, home / "data")
        assert path.read_bytes() == broken
    assert Quiet.asked == []


def test_the_other_data_set_in_the_folder(home, monkeypatch):
    write_set(home / "data", 1)
    for name in ("mnist", "auto"):
        refused("contains Fashion-MNIST, and MNIST was requested", name, home / "data")
    # named by the environment, it may well be meant for the other set
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "data"))
    assert load_dataset("mnist").source.startswith(str(home / "data" / "mnist"))
    assert load_dataset("fashion-mnist").source.startswith(f"{home / 'data'},")


def test_places_that_are_files(home, monkeypatch):
    (home / "file").write_bytes(b"")
    refused("a file, expected a folder.*--dataset FILE", "mnist", home / "file")
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "file"))
    refused("GPUCNN_DATA_DIR is .* a file", "mnist")


def test_auto_takes_mnist_and_says_so(home):
    (home / "data").mkdir()
    data = load_dataset(data_dir=home / "data")
    assert data.name == "mnist" and data.note is not None and "MNIST" in data.note and str(home / "data") in data.note


def test_auto_falls_back_to_digits_and_says_why(offline):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    for download, why in ((True, "HTTP 404"), (False, "was not found")):
        data = load_dataset("auto", download=download)
        assert data.name == "digits" and data.note is not None
        assert why in data.note and "8×8 digits" in data.note and "--data-dir" in data.note


def test_digits(offline):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    data = load_dataset("digits")
    assert data.train_images.shape == (1437, 1, 8, 8) and data.test_images.shape == (360, 1, 8, 8)
    assert data.train_images.max() == 255 and data.classes == 10 and data.note is None
    counts = np.bincount(data.test_labels)
    assert np.abs(counts - 0.2 * (counts + np.bincount(data.train_labels))).max() <= 1
    with pytest.raises(TypeError, match="download must be True or False, got 'no'"):
        load_dataset("digits", download="no")
    again = load_dataset("digits", seed=5, test_fraction=0.5)
    np.testing.assert_array_equal(again.test_images, data.test_images)
    # the split is part of what accuracies are compared by: it must never change
    assert hashlib.sha256(data.test_images.tobytes()).hexdigest().startswith("e2275324056c9a1f")


def test_without_scikit_learn(offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    refused(r'pip install -e ".*\[digits\]"', "digits", error=MissingExtraError)
    text = refused(r"\[digits\]", "auto", error=MissingExtraError)
    assert "HTTP 404" in text and "--data-dir" in text


def test_names(offline):
    idx = ["emnist-balanced", "emnist-digits", "emnist-letters", "fashion-mnist", "kmnist", "mnist", "qmnist"]
    assert sorted(names()) == ["auto", "cifar10", "cifar100", "digits", *idx]
    assert "'mnist'?" in refused("no data set 'minst', did you mean", "minst", error=UnknownNameError)
    assert "'fashion-mnist'?" in refused("mnist, fashion-mnist", "Fashion_MNISTS", error=UnknownNameError)
    refused("could not be downloaded", "Fashion_MNIST")
    refused("no data set 'qqq' .the names are .*digits, mnist", "qqq", error=UnknownNameError)
    refused("is not a folder", f"no{os.sep}where")
    refused("is not a folder", Path("nowhere"))
    refused("must be a data set's name", 3, error=TypeError)


def test_a_name_goes_before_a_folder_of_that_name(offline, monkeypatch):
    (offline / "mnist").mkdir()
    monkeypatch.chdir(offline)
    refused("could not be downloaded", "mnist")
    refused("contains no images", f".{os.sep}mnist")


def test_a_data_set_is_checked():
    x, y = np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1], np.int32)
    good = Dataset("a", x, y, x, y, ("no", "yes"), "here")
    assert good.image_shape == (1, 3, 3) and good.classes == 2
    for change, match in (
        ({"train_images": x.astype(np.float32)}, "train_images must be uint8"),
        ({"test_images": x[:0]}, "not empty"),
        ({"test_labels": y[:1]}, "one label for each of the 2"),
        ({"train_labels": y.astype(np.int64)}, "int32"),
        ({"train_labels": y + 1}, "got 1 to 2"),
        ({"test_images": x[..., :2]}, "one shape"),
    ):
        with pytest.raises(DataError, match=match):
            replace(good, **change)


def test_importing_is_light_and_needs_nothing_of_gpucnn_but_the_batch_operations():
    code = """
import sys, types
gpucnn = sys.modules["gpucnn"] = types.ModuleType("gpucnn")
gpucnn.__path__ = [sys.argv[1]]
import gpucnn.data
print([m for m in sys.modules if m in ("sklearn", "PIL", "urllib.request", "http.client", "difflib")])
own = [m for m in sys.modules if m.startswith("gpucnn.") and not m.startswith(("gpucnn.data", "gpucnn.ops"))]
below = ("errors", "checks", "names", "arrays", "files", "surroundings", "text")
print([m for m in own if m.removeprefix("gpucnn.") not in below])
"""
    root = Path(mnist.__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["[]", "[]"]


@pytest.mark.skipif(not GIVEN, reason="GPUCNN_DATA_DIR names no folder with the real MNIST")
def test_the_real_mnist():
    data = load_dataset("mnist", GIVEN, download=False)
    assert data.train_images.shape == (60000, 1, 28, 28) and data.test_images.shape == (10000, 1, 28, 28)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9] and np.bincount(data.test_labels).tolist()[:2] == [980, 1135]
    assert "60,000 + 10,000 images" in data.source


@pytest.mark.parametrize("name", ["mnist", "auto", "fashion-mnist", "cifar10", "digits", "."])
def test_a_folder_that_is_not_there_is_refused_and_not_made(home, monkeypatch, name):
    """Whether the environment has another, the set has files at all, or it could be downloaded there."""
    monkeypatch.chdir(home)
    for env in ("", "env"):
        monkeypatch.setenv("GPUCNN_DATA_DIR", env and str(home / env))
        write_set(home / "env", 0)
        refused("mnist does not exist: check the path.*make the folder first", Path(name) if name == "." else name, home / "typo" / "mnist")
    assert not (home / "typo").exists() and Quiet.asked == []
