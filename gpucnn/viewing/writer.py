"""The page: one self-contained file, which can neither load nor send anything, whatever the model contains."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.errors import ArgumentError, DataError
from gpucnn.files import writing
from gpucnn.model import Sequential
from gpucnn.text import bytes_text, plain, shown
from gpucnn.viewing import pictures as pictures_of
from gpucnn.viewing.graph import Graph, opaque_outputs, parameter_count
from gpucnn.viewing.pictures import Pictures

LIMIT = 64 << 20  # bytes of weights: phones and mail do not take larger pages
DTYPES = ("float32", "float16")
STYLES = ("colours.css", "style.css", "layer.css", "play.css")
SCRIPTS = (  # each after those that it needs
    *("numbers.js", "windows.js", "activations.js", "convolution.js", "layers.js", "network.js", "worker.js"),
    *("prepare.js", "filters.js", "explain.js", "field.js", "words.js", "colours.js", "elements.js", "state.js", "address.js"),
    *("pictures.js", "pad.js", "seen.js", "input.js", "scores.js", "ribbon.js", "tile.js", "bars.js", "maps.js", "details.js"),
    *("inspector.js", "editor.js", "sandbox.js", "layer.js", "start.js"),
)
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([a-z]+\.js)";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function|const|class)\s+([\w$]+))", re.MULTILINE)


def html(model: Sequential, pictures: Pictures | None = None, *, title: str = "", dtype: str = "float32") -> str:
    """The whole page.

    pictures: the images to choose from. title: the model's name; by default the network's that its file notes. dtype: of the weights,
    "float32", or "float16" for a page of half the size, whose results are those of the rounded weights.

    ArgumentError for another dtype; DataError where the weights are over 64 MiB, or do not fit float16.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype must be {' or '.join(DTYPES)}, got {shown(dtype)}")
    pictures = pictures_of.none(model) if pictures is None else pictures
    graph = Graph(model)
    _check_size(graph, dtype)
    weights = _weights(graph, dtype)
    described = _description(model, graph, pictures, title, dtype)
    outputs = _outputs(model, graph, pictures)
    described["given"] = {name: list(array.shape) for name, array in outputs.items()}
    given = np.concatenate([array.reshape(-1) for array in outputs.values()]) if outputs else np.zeros(0, np.float32)
    style = "\n".join(_file(name) for name in STYLES)
    script = bundle()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; worker-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": escape(policy),
        "title": escape(str(described["title"])),
        "style": style,
        "model": _json(described),
        "weights": _base64(weights),
        "images": _base64(pictures.images),
        "given": _base64(given.astype("<f4")),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))


def write(
    model: Sequential, path: str | Path, pictures: Pictures | None = None, *, title: str = "", dtype: str = "float32", images: Any = None
) -> None:
    """Writes the page that `html` returns to `path`, completely or not at all. images: your own, (N, C, H, W), instead of `pictures`.

    Besides what `html` raises: DataError where the file cannot be written.
    """
    if images is not None:
        pictures = pictures_of.given(model, images)
    content = html(model, pictures, title=title, dtype=dtype).encode()
    try:
        with writing(path) as file:
            file.write(content)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}), {bytes_text(len(content))}: fix that, or name another file with -o"
        ) from None


def bundle() -> str:
    """The modules of page/ as one script: each becomes a function, called once, that returns its exports."""
    parts = ['"use strict";', "const modules = {};"]
    for name in SCRIPTS:
        text = _file(name).strip()
        exported = ", ".join(found[2] for found in EXPORT.finditer(text))
        text = EXPORT.sub(r"\1", IMPORT.sub(r'const \1 = modules["\2"];', text))
        parts.append(f'modules["{name}"] = (() => {{\n{text}\nreturn {{ {exported} }};\n}})();')
    return "\n".join(parts) + "\n"


def _file(name: str) -> str:
    return resources.files("gpucnn.viewing").joinpath("page", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _base64(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _json(value: Any) -> str:
    """JSON in which nothing can end a script or begin a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _check_size(graph: Graph, dtype: str) -> None:
    size = graph.size * np.dtype(dtype).itemsize
    if size <= LIMIT:
        return
    largest = max((node for node in graph.nodes if "weight" in node), key=lambda node: int(np.prod(node["weight"]["shape"])))
    share = int(np.prod(largest["weight"]["shape"])) / graph.size
    half = "--dtype float16 halves it, and so would " if dtype == "float32" else ""
    raise DataError(
        f"the model's weights are {bytes_text(size)} as {dtype}, and a page takes at most {bytes_text(LIMIT)}: {half}fewer units or "
        f"filters, or pooling before its largest layer, {largest['name']}, which has {share:.0%} of them"
    )


def _weights(graph: Graph, dtype: str) -> np.ndarray[Any, Any]:
    values = graph.values()
    if dtype == "float32":
        return values.astype("<f4")
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if bool((np.isinf(halves) & np.isfinite(values)).any()):
        raise DataError("a weight is too large for float16, whose largest number is 65,504: leave --dtype float16 out")
    return halves


def _outputs(model: Sequential, graph: Graph, pictures: Pictures) -> dict[str, np.ndarray[Any, Any]]:
    if not graph.opaque or not len(pictures.images):
        return {}
    return opaque_outputs(model, graph, pictures.images.astype(model.dtype) / model.dtype.type(255))


def _description(model: Sequential, graph: Graph, pictures: Pictures, title: str, dtype: str) -> dict[str, Any]:
    metadata = model.metadata
    dataset, accuracy = metadata.get("dataset_name"), metadata.get("test_accuracy")
    network = metadata.get("network")
    named = title or (network if isinstance(network, str) and network else "a network of your own")
    return {
        "title": plain(named),
        "dataset": plain(dataset) if isinstance(dataset, str) else "",
        "accuracy": accuracy if isinstance(accuracy, float) and 0 <= accuracy <= 1 else None,
        "parameters": parameter_count(graph),
        "dtype": dtype,
        "double": str(model.dtype) == "float64",
        "nodes": graph.nodes,
        "tree": graph.tree,
        "scores": graph.scores,
        "classes": _classes(model),
        "titles": [plain(each) for each in pictures.titles],
        "source": pictures.source,
        "note": pictures.note,
        "dark": pictures_of.dark_paper(pictures),
        "prepare": _preparation(model, str(dataset)),
    }


def _classes(model: Sequential) -> list[str]:
    """The names of the classes, or their numbers if the model's file does not have names."""
    count = model.output_shape[0] if len(model.output_shape) == 1 else 0
    names: Sequence[Any] | Any = model.metadata.get("class_names")
    if isinstance(names, list | tuple) and len(names) == count and all(isinstance(name, str) for name in names):
        return [plain(name) for name in names]
    return [str(number) for number in range(count)]


def _preparation(model: Sequential, dataset: str) -> dict[str, Any] | None:
    """How drawings are normalized to look like the training images; None if unknown, or if these were not digits.

    MNIST: "normalized to fit in a 20×20 pixel box while preserving their aspect ratio", then placed "by computing the center of mass of
    the pixels" (yann.lecun.com/exdb/mnist). scikit-learn's digits fill their 8 rows.
    """
    shape = model.input_shape
    if len(shape) != 3 or shape[0] != 1:
        return None
    if dataset == "mnist" and shape[1:] == (28, 28):
        return {"box": 20, "by": "mass", "name": "MNIST"}
    if dataset == "digits" and shape[1:] == (8, 8):
        return {"box": 8, "by": "box", "name": "scikit-learn’s digits"}
    return None
