"""The model card: a README.md beside a trained model, so that its folder can be published or shared as it is.

It states what the model was trained on and how, its accuracy, the versions, and how to load it. The head is YAML in the form that model
hubs read. It contains no paths of the machine. A README.md that the user has written is never replaced.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gpucnn
from gpucnn.data import Dataset
from gpucnn.data.dataset import DATASETS
from gpucnn.files import write_atomically
from gpucnn.model import Sequential
from gpucnn.text import number_of, plain, shortened

CARD = "README.md"
MARK = "<!-- Written by gpucnn train, and rewritten by the next run. Remove this line to keep the file as it is. -->"
MOST_CLASSES = 200  # that are listed
PACKAGES = ("numpy", "numba", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "safetensors")
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]<>#|&~$"})  # characters with a meaning in Markdown or HTML


def is_ours(path: Path) -> bool:
    """Whether the file at `path` is a card that gpucnn wrote, which may be replaced: it has the mark in its first lines."""
    try:
        with open(path, "rb") as file:
            return MARK.encode() in file.read(1 << 16)
    except OSError:
        return False


def write(folder: Path, model: Sequential, dataset: Dataset, options: Mapping[str, Any], validated: int) -> Path | None:
    """Writes the card of a model that was trained with `options` (as the run recorded them) and tested; returns None if another
    README.md exists. validated: how many images it was validated on. OSError from the disk."""
    path = folder / CARD
    if path.exists() and not is_ours(path):
        return None
    text = "\n".join([*_head(model, dataset), MARK, "", *_body(model, dataset, options, validated), ""])
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))
    return path


def _head(model: Sequential, dataset: Dataset) -> list[str]:
    """YAML in which every string is a JSON string."""

    def word(value: object) -> str:
        return json.dumps(plain(value), ensure_ascii=False)

    name = str(model.metadata["dataset"])
    known = name if name in DATASETS else "custom"
    return [
        "---",
        "library_name: gpucnn",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- convolutional-neural-network",
        *(["datasets:", f"- {word(name)}"] if name in DATASETS else []),
        "metrics:",
        "- accuracy",
        "model-index:",
        f"- name: {word(model.metadata['network'])}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {word(dataset.name)}",
        f"      type: {word(known)}",
        "      split: test",
        "    metrics:",
        "    - type: accuracy",
        f"      value: {model.metadata['test_accuracy']:.6f}",
        "---",
    ]


def _body(model: Sequential, dataset: Dataset, options: Mapping[str, Any], validated: int) -> list[str]:
    network, shape = _marked(model.metadata["network"]), "×".join(map(str, model.input_shape))
    accuracy = model.metadata["test_accuracy"]
    classes = [_marked(shortened(plain(name), 80)) for name in dataset.class_names]
    more = [f"- … and {len(classes) - MOST_CLASSES:,} more"] if len(classes) > MOST_CLASSES else []
    held = f" {validated:,} more {'was' if validated == 1 else 'were'} held out for validation." if validated else ""
    return [
        f"# {network}, trained on {_marked(dataset.name)}",
        "",
        f"A convolutional network with {model.parameter_count:,} parameters that sorts images of {shape} (channels, height, width) into "
        f"{len(classes)} classes.",
        "",
        "## Accuracy",
        "",
        f"**{100 * accuracy:.2f} %** of {number_of(len(dataset.test_images), 'test image')}, used once, after training. It is what to "
        "expect for images like these, and says nothing about others.",
        "",
        "## Data",
        "",
        f"{_marked(dataset.name)}: trained on {number_of(len(dataset.train_images), 'image')}.{held}",
        "",
        *(f"{number}. {name}" for number, name in enumerate(classes[:MOST_CLASSES])),
        *more,
        "",
        "## Recipe",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {_marked(_short(value))} |" for name, value in options.items() if value is not None),
        f"| device | {_marked(model.device.name)} |",
        "",
        "```sh",
        _command(options),
        "```",
        "",
        "## Use",
        "",
        "```python",
        "import gpucnn as gc",
        "",
        'model = gc.load("model.safetensors")',
        f"# images: (N, {', '.join(map(str, model.input_shape))}), integer pixels 0 … 255, or floats from 0 to 1",
        "probabilities = model.predict(images)",
        'names = model.metadata["class_names"]',
        "```",
        "",
        "```sh",
        "gpucnn predict model.safetensors image.png",
        "gpucnn export model.safetensors model.onnx",
        "```",
        "",
        "## Versions",
        "",
        *(f"- {line}" for line in _versions()),
    ]


def _command(options: Mapping[str, Any]) -> str:
    """The command that repeats the training."""
    words = ["gpucnn", "train"]
    for name, value in options.items():
        if value is not None:
            words += ["--" + name.replace("_", "-"), _short(value)]
    return " ".join(shlex.quote(plain(word)) for word in words)


def _short(value: Any) -> str:
    """A value as the command line takes it, with all of its digits; for a folder, only its name."""
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return Path(text).name or text if "/" in text or "\\" in text else text


def _marked(words: object) -> str:
    """Text for a Markdown page, escaped so that it is plain text there."""
    return plain(words).translate(_SPECIAL)


def _versions() -> Sequence[str]:
    found = [f"gpucnn {gpucnn.__version__}", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
