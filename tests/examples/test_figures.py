"""Figures stand in the documents once, between the markers of the tables that are written from the measured files; pictures say how they
are made; and what against_pytorch.py measures can be added to those files."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpucnn as gc

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "measured" / "cpu.json"
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("performance", "training", "gpu", "library", "view"))]
TABLES = re.compile(r"<!-- figures: [\w-]+ -->.*?<!-- end of figures -->", re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"(?<!over )\b\d(?:[\d.,]*\d)? ?(?:µs|ms|MiB|[GT]FLOP/s|%|images/s)(?!\w)|\d×(?![\w×])")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_figure_stands_outside_the_tables(document: Path) -> None:
    assert FIGURE.search("It takes 10.4 ms (0.30×), 99.19 %, at 3 images/s.") and not FIGURE.search("28 × 28 pixels, 5×5 filters, 3 msgs")
    assert FIGURE.findall(CODE.sub("", TABLES.sub("", document.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_two_rows_of_a_table_have_the_same_words(document: Path) -> None:
    """Otherwise a reader cannot know what sets their figures apart."""
    for found in TABLES.finditer(document.read_text(encoding="utf-8")):
        rows = [line for line in found[0].splitlines() if line.startswith("|")]
        cells = [row.split("|")[1:] for row in rows]
        words = [(first, *(cell for cell in others if not re.match(r"[ *<–]*\d", cell))) for first, *others in cells]
        assert len(set(words)) == len(words), found[0].partition("\n")[0]


def test_what_the_readme_shows_of_a_run_is_what_was_measured() -> None:
    printed = re.findall(r"^test accuracy ([\d.]+) %$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [float(each) for each in printed] == json.loads(FIGURES.read_text(encoding="utf-8"))["accuracy"][0]["of"]["keras"]


def test_every_figure_says_what_it_was_measured_with() -> None:
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    parts = [part for value in figures.values() for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]
    assert len(parts) >= 10
    for part in parts:
        assert {"processor", "cores", "date", "commit"} <= part["about"].keys(), part
        assert re.fullmatch(r"[0-9a-f]{7,}", part["about"]["commit"]) and re.match(
            r"([A-Z_]+=\S+ )*(python|gpucnn|pytest) ", part["command"]
        ), part


def test_every_picture_says_how_it_is_made() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "kernels").glob("**/*.md")]
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for found in re.finditer(r"^(?:!\[[^\]]*\]\([^)]+\.png\)|<img .*)$", text, re.MULTILINE):
            around = text[: found.start()].rstrip().rpartition("\n\n")[2], text[found.end() :].lstrip().partition("\n\n")[0]
            assert any(re.search(r"savefig|`gpucnn |`python |\.png`", words) for words in around), f"{document.name}: {found[0]}"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("cpu_tables", ROOT / "examples" / "cpu_tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_is_added_and_takes_the_place_of_its_like(tables: Any, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    for batch, commit, processor in ((128, "a", "P"), (32, "b", "P"), (128, "c", "P"), (32, "d", "P (AVX2)")):
        about = {"commit": commit, "processor": processor}
        run = {"about": about, "command": f"x --batch-size {batch}", "batch": batch, "threads": 2, "networks": {}}
        tables.add(file, "steps", run)
    tables.add(file, "memory", {"batch": 4})
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [(run["batch"], run["about"]["commit"]) for run in found["steps"]] == [(32, "b"), (32, "d"), (128, "c")]
    assert found["memory"] == {"batch": 4}
    about = '"command": "x", "batch": 4, "networks": {}, "about": null'
    others = '{"steps": [1]}', '{"steps": [{}]}', f'{{"steps": [{{{about}, "threads": 2}}]}}', "[" * 100000
    for content in ("{", "[]", '{"steps": 3}', '{"others": {}}', *others):
        file.write_text(content)
        with pytest.raises(gc.DataError, match=r"figures\.json cannot be added to: "):
            tables.add(file, "memory", {})
        assert file.read_text() == content


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name\t: A 9\nflags\t\t: fma avx2 avx512f\n", "A 9 (AVX-512)"),
        ("model name\t: A 9\nflags\t\t: fma avx2\n\nmodel name\t: A 9\n", "A 9 (AVX2)"),
        ("model name\t: A 9\nflags\t\t: sse2\n", "A 9"),
    ],
)
def test_a_processor_is_named_with_its_widest_vectors(text: str, name: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("machine", ROOT / "examples" / "machine.py")
    assert spec is not None and spec.loader is not None
    machine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(machine)
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.processor(tmp_path / "cpuinfo") == name


def test_against_pytorch_writes_what_the_tables_are_made_of(
    example: Callable[..., Any], tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    file = tmp_path / "figures.json"
    assert example("against_pytorch", "--quick", "--models", "lenet5x5", "--json", file).status == 0
    monkeypatch.setattr(tables, "FIGURES", file)
    row, about = tables.steps().splitlines()[2], tables.steps().splitlines()[-1]
    assert re.fullmatch(
        r"\| lenet5x5, batch 4, step(, one thread)?(, AVX2)? \| \*\*[\d.]+\*\* \([\d.]+–[\d.]+\) \| [\d.]+ \(.*\) \| [\d.]+× \|", row
    )
    assert "--batch-size 4 --threads" in about and "a run with --quick: the figures mean nothing" in about
    assert example("against_pytorch", "--quick", "--models", "keras", "--others", "--json", file).status == 0
    monkeypatch.setattr(tables, "FIGURES", file)
    head, _, row = tables.others().splitlines()[:3]
    assert head.startswith("| gpucnn's time over that of |") and re.fullmatch(r"\| keras, batch 4(, one thread)?( \| [\d.]+×)* \|", row)
    for library in ("ONNX Runtime", "JAX"):  # where it is installed, with its version
        assert (f"{library} |" in head) == (f", {library} " in tables.others().splitlines()[-1])
    file.write_text("{")
    result = example("against_pytorch", "--quick", "--json", file)  # refused before anything is measured
    assert "batch 4" not in result.out and "figures.json cannot be added to: " in result.sentence
    sentence = example("against_pytorch", "--quick", "--json", tmp_path / "no" / "a.json").sentence
    assert f"there is no folder {tmp_path / 'no'}" in sentence
