"""scikit-learn's digits are read from its file, which is what it loads itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import digits
from gpucnn.errors import MissingExtraError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn has the images, and is not installed")


def test_from_the_file() -> None:
    loaded = digits.load()
    assert loaded.train_images.shape == (1437, 1, 8, 8) and loaded.test_images.shape == (360, 1, 8, 8)
    assert loaded.train_images.dtype == np.uint8 and loaded.train_images.max() == 255
    labels = np.concatenate([loaded.train_labels, loaded.test_labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.slow  # importing scikit-learn
def test_where_the_file_is_elsewhere_scikit_learn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    by_file = digits.load()
    monkeypatch.setattr(digits, "_from_file", lambda: None)
    by_itself = digits.load()
    np.testing.assert_array_equal(by_file.train_images, by_itself.train_images)
    np.testing.assert_array_equal(by_file.test_labels, by_itself.test_labels)


@pytest.mark.parametrize("content", [b"", b"1,2\n", b"\x1f\x8b broken"])
def test_a_file_of_another_kind_is_not_taken(content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "datasets" / "data").mkdir(parents=True)
    (tmp_path / "datasets" / "data" / "digits.csv.gz").write_bytes(content)

    class Found:
        submodule_search_locations = (str(tmp_path),)

    def absent(name: str) -> None:
        raise ImportError

    monkeypatch.setattr(digits, "find_spec", lambda name: Found)
    assert digits._from_file() is None
    monkeypatch.setattr(digits, "import_module", absent)
    with pytest.raises(MissingExtraError, match="scikit-learn, which is not installed"):
        digits.load()
