"""The lint that reads the documents, help texts and messages: it finds what is planted, in its place, and leaves code and figures alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = """# Title

Two runs are bit-identical. `is no integer` is code.

```
The kernel gives the same bits.
```
<!-- figures: one -->
| told apart |
<!-- end of figures -->

The kernel gives the same
bits. It is held against NumPy, [told apart](told apart.md).
"""
MODULE = '''"""What is taken anew.

Further paragraphs and comments are read for words alone: told apart.
"""


def f(x: int) -> None:
    """A size that is no integer."""
    if x:
        raise ValueError(f"{x} is no integer: mend it, " "or leave it")
    option(help="Prints one's own." + " Told apart.")  # told apart
'''


@pytest.fixture(scope="module")
def lint() -> Any:
    pytest.importorskip("proselint", reason="proselint is not installed")
    spec = importlib.util.spec_from_file_location("lint_prose", ROOT / "docs" / "lint_prose.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(lint: Any, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[tuple[int, str]]]:
    status = lint.main([str(path)])
    found = [line.removeprefix(f"{path}:").split(": ")[:2] for line in capsys.readouterr().out.splitlines()]
    return status, sorted((int(number), words.strip("'\"")) for number, words in found)


def test_words_are_found_in_a_document_and_not_in_its_code(lint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.md"
    path.write_text(DOCUMENT)
    assert lines(lint, path, capsys) == (1, [(12, "gives the same bits"), (13, "held against"), (13, "told apart")])
    path.write_text("Two runs are bit-identical.\n")
    assert lines(lint, path, capsys) == (0, [])


def test_words_are_found_in_docstrings_comments_messages_and_help(lint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.py"
    path.write_text(MODULE)
    expected = [(1, "anew"), (3, "told apart"), (7, "is no integer"), (10, "is no integer"), (10, "mend it")]
    expected += [(11, "Told apart"), (11, "one's own"), (11, "told apart")]
    status, found = lines(lint, path, capsys)
    assert status == 1 and [words for _, words in found] == [words for _, words in expected]
    assert [line for line, _ in found] == [line for line, _ in expected]


def test_proselint_reads_along(lint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.md"
    path.write_text("At the end of the day it is a very unique library.\n")
    assert lint.main([str(path)]) == 1 and "uncomparables" in capsys.readouterr().out


def test_the_documents_are_among_what_is_read(lint: Any) -> None:
    read = {str(path.relative_to(ROOT)) for path in [*lint.documents(), *lint.modules()]}
    assert {"README.md", "docs/tutorial.md", "kernels/README.md", "kernels/gpucnn_loops/README.md", "gpucnn/cli/train.py"} <= read
    assert len(lint.word_list()) > 20 and all(instead for _, instead in lint.word_list())
