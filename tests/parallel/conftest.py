"""Ranks: as threads of one process (local_ranks), where it is about what they compute, and by MPI, where it is about processes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parents[1])]  # local_ranks, process_ranks


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of small images of two classes."""
    pillow = pytest.importorskip("PIL.Image")
    folder, random = tmp_path_factory.mktemp("ranks") / "bars", np.random.default_rng(5)
    for name in ("across", "down"):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            image = random.integers(0, 60, (12, 12)).astype(np.uint8)
            image[(index % 12, slice(None)) if name == "across" else (slice(None), index % 12)] = 250
            pillow.fromarray(image).save(folder / name / f"{index}.png")
    yield folder
    shutil.rmtree(folder.parent)
