"""The table of `Sequential.summary`: one row per layer, nested layers below the one that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpucnn import notebook
from gpucnn.diagram import network_picture
from gpucnn.layers.base import Layer, Shape
from gpucnn.memory import kept_by_layer, of_step, on_cpu
from gpucnn.text import aligned, bytes_text, columns, number_of

TITLES = ("layer", "output", "parameters", "multiply-adds", "kept for backward")


def html_of(model: Any) -> str:
    """The layers of a model for notebooks: a picture and a table of their outputs if the model is built, a table of their settings
    otherwise."""
    if model._buffers is None:
        rows = [(layer.name, repr(layer)) for layer in model.layers]
        return notebook.table(("layer", "made by"), rows, heading="Sequential, not built: build(input_shape) or fit sets its sizes")
    stages = model.chain.stages
    kept, width = kept_by_layer(stages), model.dtype.itemsize
    body = [row for layer in model.layers for row in _rows(layer, layer.name, 0, kept, 1, width)]
    cost = sum(part.cost().multiply_adds for layer in model.layers for part in layer.layers)
    total = (
        "total",
        _shape_text(model.output_shape),
        f"{model.parameter_count:,}",
        f"{cost:,}",
        bytes_text(sum(of_step(stages).kept) * width),
    )
    heading = f"Sequential on {model.device.name}, input {_shape_text(model.input_shape)}, {model.dtype}"
    return network_picture(model.input_shape, model.layers) + notebook.table(TITLES, body, heading=heading, last=total)


def text_of(model: Any, batch_size: int) -> str:
    """The table of a built model, and the memory of a training step."""
    stages, width = model.chain.stages, batch_size * model.dtype.itemsize
    kept, memory = kept_by_layer(stages), of_step(stages)
    rows: list[tuple[str, ...]] = [TITLES]
    for layer in model.layers:
        rows.extend(_rows(layer, layer.name, 0, kept, batch_size, width))
    costs = [part.cost().multiply_adds for layer in model.layers for part in layer.layers]
    total = f"{model.parameter_count:,}", f"{sum(costs) * batch_size:,}", bytes_text(sum(memory.kept) * width)
    rows.append(("total", _shape_text(model.output_shape), *total))
    lines = aligned(rows, right=range(2, 5))
    frozen = sum(parameter.size for parameter in model.parameters.values() if parameter.frozen)
    rule = "─" * max(map(columns, lines))
    slots = len(model.optimizer.slots) if model.optimizer else 0
    step = (on_cpu(stages, batch_size) if model.device.kind == "cpu" else memory.peak * batch_size) * model.dtype.itemsize
    return "\n".join(
        [
            f"Sequential on {model.device.name}, input {_shape_text(model.input_shape)}, batch of {batch_size}, {model.dtype}",
            rule,
            lines[0],
            rule,
            *lines[1:-1],
            rule,
            lines[-1],
            *([f"{number_of(frozen, 'parameter')} {'is' if frozen == 1 else 'are'} frozen"] if frozen else []),
            f"a training step takes {bytes_text(model.held_bytes + step)}: {bytes_text(model.held_bytes)} for "
            f"{'parameters, gradients and optimizer' if slots else 'parameters and gradients'}, "
            f"{bytes_text(step)} at most for the batch in progress",
        ]
    )


def _rows(layer: Layer, name: str, depth: int, kept: Mapping[int, int], batch_size: int, width: int) -> Iterator[tuple[str, ...]]:
    """The row of a layer and those of the layers inside it."""
    parameters = sum(parameter.size for _, parameter in layer.named_parameters())
    own = sum(kept.get(id(part), 0) for part in layer.layers)
    label = "  " * depth + name + (f" ({layer.activation})" if layer.activation else "")
    cost = sum(part.cost().multiply_adds for part in layer.layers) * batch_size
    yield label, _shape_text(layer.output_shape), f"{parameters:,}", f"{cost:,}", bytes_text(own * width)
    for within, part in layer.inner().items():
        yield from _rows(part, within, depth + 1, kept, batch_size, width)


def _shape_text(shape: Shape) -> str:
    return " × ".join(map(str, shape))
