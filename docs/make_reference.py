"""Writes docs/reference.md from the docstrings of what is public, and a line in gpucnn/layers/kinds.py for each file of layers that has
none, from which type checkers know them. `python docs/make_reference.py [--check]`

    pip install griffe2md

With --check nothing is written: the status is 1 where the reference is out of date.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"
EXAMPLES = ROOT / "docs" / "reference_examples.txt"
HEAD = """# Reference

Every public name of gpucnn, `gc.functional`, `gc.metrics`, `gc.initializers` and `gc.data`, by what it is for; [models.md](models.md) has
`gpucnn.exchange`, and [view.md](view.md) `gpucnn.viewing`. `import gpucnn as gc`; arrays are NCHW, (images, channels, rows, columns), and
the shapes of layers leave the number of images out. `python docs/make_reference.py` generates this file from the docstrings and from
[reference_examples.txt](reference_examples.txt); tests run the examples and compare the file. The examples share this setup:
"""
# Heading, what is said of it, module, and the methods that are shown of its classes.
SECTIONS = [
    (
        "Models",
        "",
        "gpucnn.model",
        ["build", "compile", "fit", "train_on_batch", "evaluate", "predict", "forward", "backward", "features", "summary", "save"],
    ),
    ("Layers", "Each takes `activation=` where that makes sense, a name: {activations}.", "gpucnn.layers", []),
    ("Losses", "", "gpucnn.losses", []),
    ("Metrics", "", "gpucnn.metrics", []),
    ("Optimizers", "", "gpucnn.optimizers", ["attach", "step", "zero_grad"]),
    ("Schedules", "", "gpucnn.schedules", []),
    ("Callbacks", "", "gpucnn.training", []),
    ("Data", "`gc.data`; `load_dataset` is `gc.load_dataset` as well.", "gpucnn.data", []),
    ("Initializers", "", "gpucnn.initializers", []),
    ("Functions on arrays", "`gc.functional`, on NumPy and CuPy arrays alike.", "gpucnn.functional", []),
    ("Errors", "", "gpucnn.errors", []),
    ("Everything else", "", "gpucnn", []),
]
MADE_BY_GPUCNN = ("Run",)  # classes whose objects are given to a user
REACHED = ("gpucnn.data", "gpucnn.functional", "gpucnn.metrics", "gpucnn.initializers")  # modules that are public themselves


def public(module: str) -> dict[str, Any]:
    """What a module offers to a user, by name: its classes and functions, each under its own name and not a second one."""
    import gpucnn

    reached = importlib.import_module(module) if module in REACHED else gpucnn
    return {
        name: thing
        for name, thing in vars(reached).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and f"{thing.__module__}.".startswith(f"{module}.")
        and thing.__name__ == name
        if not name.startswith("_")
    }


def examples() -> dict[str, str]:
    """An example for each public name, as a Python session; and under Setup what all of them begin with."""
    parts = re.split(r"^## (\w+)\n", EXAMPLES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: session.strip() for name, session in zip(parts[::2], parts[1::2], strict=True)}


ENTRY = re.compile(r"[*\w][\w*]*(?:, [*\w]+)*: ")


def as_markdown(text: str) -> str:
    """A docstring's paragraphs for a page: arguments, `name: what it is` line by line, become a list; code becomes a block."""
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        block if number % 2 else re.sub(r"[^\n]+(?:\n[^\n]+)*", paragraph, block)  # the odd ones are code
        for number, block in enumerate(blocks)
    )


def paragraph(match: re.Match[str]) -> str:
    text = match[0]
    if is_code(text):
        return f"```python\n{text}\n```"
    first, *rest = re.split(r"\n(?=\S)", text)
    columns = re.findall(r"^ {4,}(\S[\w, ]*?) {2,}(\S.*)$", text, re.MULTILINE)
    if columns:  # a table under a sentence
        return f"{text.partition(chr(10))[0]}\n\n" + "\n".join(f"- {name}: {words}" for name, words in columns)
    entries = [first, *rest]
    starts = [index for index, entry in enumerate(entries) if ENTRY.match(entry)]
    if not starts or starts[0] != 0 or (len(entries) > 1 and len(starts) == 1):
        return text
    items: list[str] = []
    for entry in entries:
        if ENTRY.match(entry):
            items.append(re.sub(ENTRY, lambda name: f"- **{name[0][:-2]}**: ", entry, count=1))
        else:
            items[-1] += f"\n{entry}"  # a line of the entry before, wrapped without an indent
    return "\n".join(re.sub(r"\n *", "\n  ", item) for item in items)


def is_code(text: str) -> bool:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return bool(tree.body) and all(
        isinstance(node, ast.Assign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) for node in tree.body
    )


def with_signature(thing: Any, text: str) -> str:
    """The text with the signature of an inherited constructor, and without that of a class which only gpucnn makes."""
    if thing.__name__ in MADE_BY_GPUCNN:
        return re.sub(r"```python\n.*?^```\n\n", "", text, count=1, flags=re.MULTILINE | re.DOTALL)
    if not inspect.isclass(thing) or "__init__" in vars(thing) or thing.__init__ is object.__init__ or issubclass(thing, Exception):
        return text
    signature = inspect.signature(thing.__init__)
    names = [each.replace(annotation=each.empty) for each in list(signature.parameters.values())[1:]]
    if not names or "```" in text:
        return text
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n```python\n{thing.__name__}{signature.replace(parameters=names, return_annotation=signature.empty)}\n```\n{rest}"


def session(text: str) -> str:
    return f"```pycon\n{text}\n```\n"


def reference() -> str:
    """The whole text."""
    import griffe
    import griffe2md

    from gpucnn.layers.activations import ACTIVATIONS

    loader = griffe.GriffeLoader(search_paths=[str(ROOT)])
    package = loader.load("gpucnn")
    loader.resolve_aliases(implicit=True)
    shown = examples()
    parts, seen = [HEAD, session(shown["Setup"])], set()
    for heading, words, module, methods in SECTIONS:
        things = [thing for thing in public(module).values() if thing not in seen]
        if not things:
            continue
        words = words.replace("{activations}", ", ".join(f'"{name}"' for name in ACTIVATIONS))
        parts.append(f"## {heading}\n" + (f"\n{words}\n" if words else ""))
        for thing in things:
            seen.add(thing)
            whole = heading == "Models"  # the methods that it has from the class before it are shown too
            members = [method for method in methods if method in vars(thing) or whole] if inspect.isclass(thing) else []
            config = {
                **griffe2md.default_config,
                "heading_level": 3,
                "show_root_full_path": False,
                "show_bases": False,
                "docstring_style": None,
                "members": members or False,
                "summary": False,
                "show_signature_annotations": False,
                "inherited_members": whole,
            }
            path = f"{thing.__module__}.{thing.__qualname__}".removeprefix("gpucnn.")
            text = griffe2md.render_object_docs(package[path], config)
            text = re.sub(r"^(#+) `gpucnn\.(?:\w+\.)*?(\w+\.\w+|\w+)`$", r"\1 `\2`", text.strip(), flags=re.MULTILINE)
            parts.append(with_signature(thing, as_markdown(text)) + "\n")
            if thing.__name__ in shown:
                parts.append(session(shown[thing.__name__]))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def list_layers(folder: Path) -> None:
    """Adds to kinds.py the files of layers in its folder that it does not name, behind those that it names."""
    kinds = folder / "kinds.py"
    text = kinds.read_text(encoding="utf-8")
    files = [path for path in sorted(folder.glob("[!_]*.py")) if "\n__all__ = " in path.read_text(encoding="utf-8")]
    lines = [f"from gpucnn.layers.{path.stem} import *\n" for path in files if path.stem != "base"]
    missing = "".join(line for line in lines if line not in text)
    last = [found.end() for found in re.finditer(r"^from gpucnn\.layers\.\w+ import \*\n", text, re.MULTILINE)][-1]
    if missing:
        kinds.write_text(text[:last] + missing + text[last:], encoding="utf-8")


def main() -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    if sys.argv[1:] != ["--check"]:
        list_layers(ROOT / "gpucnn" / "layers")
    text = reference()
    if sys.argv[1:] == ["--check"]:
        if TARGET.is_file() and TARGET.read_text() == text:
            return 0
        print("docs/reference.md is out of date: python docs/make_reference.py", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
