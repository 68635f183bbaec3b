"""Reads the prose of this repository as a strict editor would. `python docs/lint_prose.py [FILE...]`

Prose is the text of the documents, without code and figures, and the following parts of every module in gpucnn and kernels and of every
example: docstrings, comments, error messages, and the help texts of options. docs/words.txt lists expressions that a translation leaves
behind, with what to write instead. proselint looks for clichés, needless words and the like; it reads only the first paragraph of a
docstring, and no comments. The exit status is 1 if anything was found.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "docs" / "words.txt"
MADE = ("docs/reference.md", "docs/examples.md")  # by programs, from what is read here anyway
# Checks of proselint that do not suit texts about numbers and programs.
SPARED = (
    "misc.phrasal_adjectives",
    "typography",
    "spelling",
    "lexical_illusions",
    "annotations",
    "dates_times",
    "social_awareness",
    "skunked_terms",
)
CODE = re.compile(r"^```.*?^```$|<!-- (?:figures|scale).*?<!-- end of \w+ -->|`[^`\n]*`|\]\([^)\n]*\)|^    .*?$", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "kernels").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
    return sorted(path for path in found if str(path.relative_to(ROOT)) not in MADE and ".cache" not in path.parts)


def modules() -> list[Path]:
    return sorted(path for folder in ("gpucnn", "kernels", "examples") for path in (ROOT / folder).rglob("*.py"))


def blank(match: re.Match[str]) -> str:
    """As many lines; in place of code within a line, a word."""
    return "X".ljust(len(match[0])) if match[0][0] == "`" and "\n" not in match[0] else re.sub(r"[^\n]", " ", match[0])


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, prose) of a document or a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from of_module(ast.parse(text))
    else:
        yield 1, CODE.sub(blank, text)


def of_module(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """First paragraphs of docstrings, error messages, and the help of options and commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (said := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), said.split("\n\n")[0]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from ((node.lineno, words) for argument in node.exc.args if (words := written(argument)))
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in ("help", "short_help") and (words := written(keyword.value)):
                    yield node.lineno, words


def written(node: ast.expr) -> str:
    """The words of a string, or of concatenated strings; X for each value that is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(written(value) if isinstance(value, ast.Constant) else "X" for value in node.values)
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return ""


def word_list() -> list[tuple[re.Pattern[str], str]]:
    """docs/words.txt: `expression -> what to write instead`, one per line; # begins a comment."""
    lines = [line for line in WORDS.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.partition(" -> ") for line in lines]
    return [
        (re.compile(rf"(?<![\w-])(?:{spaced(pattern.strip())})(?![\w-])", re.IGNORECASE), instead.strip()) for pattern, _, instead in pairs
    ]


def spaced(pattern: str) -> str:
    """`pattern` with its spaces, except in a lookbehind, matching anything that separates two words, also the end of a line."""
    return re.sub(r"(?<!there) ", r"\\s+", pattern)


def remarks(path: Path) -> Iterator[tuple[int, str]]:
    """(line, prose) of a module's comments, and of its docstrings after their first paragraphs; nothing of a document."""
    if path.suffix != ".py":
        return
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (said := ast.get_docstring(node)):
            first, _, rest = said.partition("\n\n")
            yield getattr(node, "lineno", 1) + first.count("\n") + 2, rest


def found(text: str, words: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str]]:
    """(lines after the first, what to change) in `text`."""
    yield from by_words(text, words)
    yield from by_proselint(text)


def by_words(text: str, words: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str]]:
    for pattern, instead in words:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()), f"{' '.join(match[0].split())!r}: {instead}"


def by_proselint(text: str) -> Iterator[tuple[int, str]]:
    checker, config = proselint()
    for result in checker("text", text).lint(config) if text.strip() else ():
        yield result.pos[0] - 2, f"{result.check_result.message} ({result.check_result.check_path})"


def proselint() -> tuple[Any, Any]:
    """proselint's checker of a text, and its configuration."""
    if not hasattr(proselint, "made"):
        from proselint.checks import __register__
        from proselint.config import DEFAULT
        from proselint.registry import CheckRegistry
        from proselint.tools import LintFile

        CheckRegistry().register_many(__register__)
        others = {
            name: on for name, on in DEFAULT["checks"].items() if name not in SPARED
        }  # the first match decides: narrow names come first
        proselint.made = LintFile, {**DEFAULT, "checks": {**dict.fromkeys(SPARED, False), **others}}  # type: ignore[attr-defined]
    return proselint.made  # type: ignore[attr-defined,no-any-return]


def main(paths: list[str]) -> int:
    words, count = word_list(), 0
    for path in [Path(each).resolve() for each in paths] or [*documents(), *modules()]:
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        hits = [(line + below, message) for line, text in texts(path) for below, message in found(text, words)]
        hits += [(line + below, message) for line, text in remarks(path) for below, message in by_words(text, words)]
        for line, message in hits:
            print(f"{name}:{line}: {message}")
        count += len(hits)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
