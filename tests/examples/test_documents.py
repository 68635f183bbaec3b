"""The documents: the blocks of the tutorial and of the recipes run, in order, and print what stands under them; links lead somewhere; the
reference is up to date.

Run as a program, this file draws the tutorial's pictures.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gpucnn.layers import LAYERS
from gpucnn.losses import LOSSES
from gpucnn.metrics import METRICS
from gpucnn.optimizers import OPTIMIZERS

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = DOCS / "tutorial.md"
KNOWN: dict[str, dict[str, Any]] = {"layer": LAYERS, "loss": LOSSES, "metric": METRICS}  # of which the recipes register some
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(text: str) -> list[tuple[str, str, str]]:
    """Runs the Python blocks of a document in one namespace: (code, what should be printed, what was)."""
    blocks, names, done = [(match[1], match[2]) for match in BLOCKS.finditer(text)], {"__name__": "tutorial"}, []
    for number, (language, code) in enumerate(blocks):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{TUTORIAL.name}, block {number + 1}", "exec"), names)
        after = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
        done.append((code, after[1] if after[0] == "" else "", printed.getvalue()))
    return done


def test_every_block_prints_what_stands_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    text = TUTORIAL.read_text()
    done = run(text)
    assert len(done) >= 10
    for code, expected, printed in done:
        assert printed.strip() == expected.strip(), code
    pictures = re.findall(r"\]\((tutorial/[\w.]+)\)", text)
    assert pictures and {Path(picture).name for picture in pictures} == {file.name for file in tmp_path.glob("*.png")}
    assert all((DOCS / picture).is_file() for picture in pictures)


def test_every_recipe_prints_what_stands_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    before = {kind: dict(known) for kind, known in KNOWN.items()}
    try:
        done = run((DOCS / "recipes.md").read_text(encoding="utf-8"))
    finally:
        for kind, known in KNOWN.items():
            known.clear()
            known.update(before[kind])
    assert len(done) >= 9
    for code, expected, printed in done:
        assert printed.strip() == expected.strip(), code


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md"), *(DOCS.parent / "kernels").glob("**/*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCKS.sub("", document.read_text())):
            if not re.match(r"[a-z]+:", link):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_it_is_a_notebook_too() -> None:
    jupytext: Any = pytest.importorskip("jupytext")
    cells = jupytext.reads(TUTORIAL.read_text(), fmt="md").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert [block.strip() for block in code if not block.startswith("%%")] == [
        match[2].strip() for match in BLOCKS.finditer(TUTORIAL.read_text()) if match[1] == "python"
    ]


def make_reference() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_that_is_public_has_a_docstring_of_its_own() -> None:
    maker = make_reference()
    things = {thing for _, _, module, _ in maker.SECTIONS for thing in maker.public(module).values()}
    assert len(things) > 80
    assert not [thing.__qualname__ for thing in things if not (vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__)]


def test_all_that_is_public_has_an_example_that_prints_what_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    maker = make_reference()
    shown = maker.examples()
    names = {name for _, _, module, _ in maker.SECTIONS for name in maker.public(module)}
    assert shown.keys() - {"Setup"} == names
    parser, checker = doctest.DocTestParser(), doctest.OutputChecker()
    runner = doctest.DocTestRunner(checker, verbose=False, optionflags=doctest.ELLIPSIS)
    request.addfinalizer(lambda: OPTIMIZERS.pop("mine", None))  # what the example of `register` registers
    for name in names:
        session = parser.get_doctest(f"{shown['Setup']}\n{shown[name]}\n", {}, name, str(maker.EXAMPLES), 0)
        assert name in shown[name], name
        assert any(example.want or "train" in example.source for example in session.examples[-2:])
        said = io.StringIO()
        assert runner.run(session, out=said.write).failed == 0, said.getvalue()


def test_the_reference_is_what_the_docstrings_say() -> None:
    pytest.importorskip("griffe2md")
    maker = make_reference()
    assert maker.TARGET.read_text() == maker.reference(), "python docs/make_reference.py"


def test_the_reference_shows_arguments_as_a_list_and_code_as_code() -> None:
    text = (
        "First.\n\nx: an array\n    of numbers.\ny, z: more\n\n"
        'model = make(1)\nmodel.run("x: y")\n\nNote: one line\nand its end.\n\n```pycon\na: 1\nb: 2\n```'
    )
    assert make_reference().as_markdown(text) == (
        "First.\n\n- **x**: an array\n  of numbers.\n- **y, z**: more\n\n"
        '```python\nmodel = make(1)\nmodel.run("x: y")\n```\n\nNote: one line\nand its end.\n\n```pycon\na: 1\nb: 2\n```'
    )
    assert (
        make_reference().as_markdown("Pairs:\n    one    the first\n    two    the second")
        == "Pairs:\n\n- one: the first\n- two: the second"
    )


if __name__ == "__main__":
    import os

    import matplotlib

    matplotlib.use("Agg")
    text = TUTORIAL.read_text()
    os.chdir(DOCS / "tutorial")
    for code, expected, printed in run(text):
        if printed.strip() != expected.strip():
            print(f"{code}\nprints\n{printed}", file=sys.stderr)
    Path("digits.safetensors").unlink(missing_ok=True)
