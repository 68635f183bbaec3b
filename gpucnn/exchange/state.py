"""Imports a state_dict, which has names and tensors but no layers, into an existing network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.exchange.problems import NotTakenError
from gpucnn.exchange.tensors import Tensors, checked, read_safetensors
from gpucnn.exchange.torch_read import read_torch
from gpucnn.model import Sequential
from gpucnn.surroundings import user_path
from gpucnn.text import listed, plain, shown
from gpucnn.training.checkpoint import take

FIELDS = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_variance"}
UNUSED = "num_batches_tracked"  # a counter that PyTorch's batch normalization keeps for momentum=None
SUFFIXES = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Module:
    """Tensors that belong together, by kind: shapes of weight, bias and running statistics."""

    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def kind(self) -> str:
        """The key by which modules are grouped."""
        shapes = dict(self.shapes)
        if "running_mean" in shapes:
            return "batch normalization"
        return {4: "convolution", 2: "dense layer"}.get(len(shapes.get("weight", ())), "other layer")

    def __str__(self) -> str:
        shapes = dict(self.shapes)
        name = self.name or self.shapes[0][0]  # a tensor that belongs to no module
        return f"{plain(name)} {shapes.get('weight', self.shapes[0][1])}"


def import_state(path: str | Path, model: Sequential, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Loads a PyTorch state_dict, from a .safetensors or .pt file, into a built model with the same layers: all of it or nothing.
    Returns the file's name of each tensor, by its name in gpucnn.

    Tensors are matched by kind, order and shape. A .pt file has the order in which the modules were created, which must be the order of
    the layers here. A .safetensors file has its names sorted: numbers in them give the order, and if two modules of one shape differ in
    anything else, their order is unknown, and they are refused unless `names` gives it.

    names: {"layer1.conv1": "conv2d_1", …} maps the file's modules (or tensors) to layers (or parameters) here; everything else is
    matched as usual.

    Raises NotTakenError, a CheckpointError, which names everything without a counterpart; CheckpointError for files that are damaged or
    contain more than tensors.
    """
    with opened_state(path) as tensors:
        arrays = {name: array.value for name, array in (model.parameters | model.arrays).items()}
        pairs = _pairs(tensors, {name: tuple(array.shape) for name, array in arrays.items()}, names or {})
        values = {here: checked(tensors.path, there, tensors.found[there].read()) for here, there in pairs.items()}
        take({name: value.astype(model.dtype) for name, value in values.items()}, arrays, tensors.path)
    return pairs


def opened_state(path: str | Path) -> AbstractContextManager[Tensors]:
    """The tensors of a file, in the format of its extension."""
    suffix = user_path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ArgumentError(f"{path} must end in {', '.join(SUFFIXES)}, which tell the format")
    return read_safetensors(path) if suffix == ".safetensors" else read_torch(path)


def _pairs(tensors: Tensors, here: Mapping[str, tuple[int, ...]], names: Mapping[str, str]) -> dict[str, str]:
    there = {name: tensor.shape for name, tensor in tensors.found.items() if name.rpartition(".")[2] != UNUSED}
    pairs = _told(tensors.path, there, here, names)
    left_here = _modules({name: shape for name, shape in here.items() if name not in pairs})
    left_there = _modules({name: shape for name, shape in there.items() if name not in pairs.values()})
    if not tensors.in_order:
        left_there.sort(key=lambda module: _natural(module.name))
    problems: list[str] = []
    for kind in dict.fromkeys(module.kind for module in (*left_here, *left_there)):
        ours = [module for module in left_here if module.kind == kind]
        theirs = [module for module in left_there if module.kind == kind]
        matched = _in_order(kind, ours, theirs, tensors.in_order)
        if isinstance(matched, str):
            problems.append(matched)
            continue
        for one, other in matched:
            pairs |= {_joined(one.name, FIELDS[field]): _joined(other.name, field) for field, _ in other.shapes}
    if problems:
        raise NotTakenError(tensors.path, problems)
    return pairs


def _in_order(kind: str, ours: list[Module], theirs: list[Module], in_order: bool) -> list[tuple[Module, Module]] | str:
    """Pairs the modules of one kind, or returns the problem."""
    if len(ours) != len(theirs):
        return (
            f"the network has {len(ours)} {kind} modules and the file {len(theirs)}: here {listed(ours, 3) or 'none'}, "
            f"there {listed(theirs, 3) or 'none'}"
        )
    same = [_shapes(one) == other.shapes for one, other in zip(ours, theirs, strict=True)]
    if all(same):
        unclear = None if in_order else _unclear(theirs)
        if unclear is None:
            return list(zip(ours, theirs, strict=True))
        return f"{unclear[0]} and {unclear[1]} have the same shapes, and their order is unknown: give it in a map of names (--map)"
    by_shape = {_shapes(module): module for module in ours}
    if len(by_shape) == len(ours) and {module.shapes for module in theirs} == set(by_shape):
        return [(by_shape[module.shapes], module) for module in theirs]
    wrong = same.index(False)
    return f"{ours[wrong]} is where the file has {theirs[wrong]}: name the same network, or match the names in a map (--map)"


def _shapes(module: Module) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The shapes of a gpucnn module, by PyTorch's names."""
    back = {ours: theirs for theirs, ours in FIELDS.items()}
    return tuple(sorted((back.get(field, field), shape) for field, shape in module.shapes))


def _unclear(modules: Sequence[Module]) -> tuple[str, str] | None:
    """Two modules of one shape whose order is only alphabetical: where their names first differ, there is no number."""
    last: dict[tuple[tuple[str, tuple[int, ...]], ...], Module] = {}
    for module in modules:
        other = last.get(module.shapes)
        if other is not None:
            parts = zip(_natural(other.name), _natural(module.name), strict=False)
            where = next((pair for pair in parts if pair[0] != pair[1]), None)
            if where is None or {where[0][0], where[1][0]} != {0}:
                return plain(other.name), plain(module.name)
        last[module.shapes] = module
    return None


def _modules(shapes: Mapping[str, tuple[int, ...]]) -> list[Module]:
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in shapes.items():
        above, _, field = name.rpartition(".")
        found.setdefault(above, []).append((field, tuple(shape)))
    return [Module(name, tuple(sorted(fields))) for name, fields in found.items()]


def _joined(above: str, field: str) -> str:
    return f"{above}.{field}" if above else field


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts layer2 before layer10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name[:1000])]


def _told(
    path: Path, there: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]], names: Mapping[str, str]
) -> dict[str, str]:
    """The pairs in a map of names. A module stands for all of its tensors."""
    pairs: dict[str, str] = {}
    for other, own in names.items():
        if not isinstance(other, str) or not isinstance(own, str):
            raise ArgumentError(f"a map of names has strings for strings, got {shown(other)}: {shown(own)}")
        whole = [name for name in there if name == other]
        parts = [name for name in there if name.rpartition(".")[0] == other]
        if not whole and not parts:
            raise ArgumentError(f"the map of names refers to {shown(other)}, and {path} has {listed(list(there), 6)}")
        for name in whole or parts:
            mine = own if whole else _joined(own, FIELDS.get(name.rpartition(".")[2], name.rpartition(".")[2]))
            if mine not in here:
                raise ArgumentError(f"the map of names refers to {shown(mine)}, and the network has {listed(list(here), 6)}")
            if here[mine] != there[name]:
                raise CheckpointError(f"{path}: {plain(name)} has shape {there[name]}, and {mine} here {here[mine]}")
            if mine in pairs:
                raise ArgumentError(f"the map of names gives {shown(mine)} two tensors: {plain(pairs[mine])} and {plain(name)}")
            pairs[mine] = name
    return pairs
