"""The instrument's own sources: built without a warning, and short."""

import os
from pathlib import Path

SOURCES = [file for file in (Path(__file__).parents[1] / "src").glob("**/*.*") if file.suffix in (".cpp", ".hpp", ".h")]


def test_nothing_warned():
    assert "warning:" not in Path(os.environ["VGPU_CACHE"], "build.log").read_text()


def test_files_can_be_read_in_one_sitting():
    assert len(SOURCES) > 50
    assert not [file.name for file in SOURCES if len(file.read_text().splitlines()) > 800]
