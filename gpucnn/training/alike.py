"""Compares descriptions of a run, and finds the first difference: of a checkpoint and the run that continues from it, or of ranks."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from gpucnn.device import to_numpy
from gpucnn.errors import ArgumentError
from gpucnn.text import shown
from gpucnn.training.communicator import Communicator

VERSION = "version of gpucnn"
_PLACES = {  # of descriptions that are lists
    "training data": ("the number of examples", "the checksum of the examples", "the checksum of the labels"),
    "validation data": ("the number of examples", "their checksum"),
    "state of the optimizer": ("the number of steps", "the checksum"),
    "seed": ("the model's", "the one given to fit"),
    "input shape": ("the number of channels", "the height", "the width"),
}


def same(ranks: Communicator, facts: dict[str, Any]) -> None:
    """Raises ArgumentError, the same on all ranks, unless all ranks have the same `facts`, values for JSON by name."""
    if ranks.size == 1:
        return
    everybody = ranks.gather((ranks.host, facts))
    host, first = everybody[0]
    for rank, (other, found) in enumerate(everybody):
        hosts = f"on rank {rank} ({other})", f"on rank 0 ({host})"
        for name in dict.fromkeys([*first, *found]):
            if first.get(name) != found.get(name):
                raise ArgumentError(
                    f"the ranks do not see the same {name}: {difference(name, found.get(name), first.get(name), hosts)}; start all of them "
                    "with the same version, options, model and data"
                )


def same_to_measure(ranks: Communicator, model: Any, batch_size: int, **arrays: Any) -> None:
    """`same` for a model that is about to evaluate or predict, and for arrays by name: each rank uses the results of the others."""
    if ranks.size == 1:
        return
    seen = {name: {"number": len(array), "checksum": checksum(to_numpy(array))} for name, array in arrays.items()}
    held = checksum(to_numpy(model.buffers.values), to_numpy(model.buffers.saved))
    same(ranks, {**seen, "batch size": batch_size, "layers": plain(model.config()["layers"]), "parameters": held})


def checksum(*arrays: Any) -> str:
    """A short text that identifies the contents of arrays."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).data, total)
    return f"{total:08x}"


def difference(name: str, there: Any, here: Any, hosts: tuple[str, str] = ("there", "here"), path: str = "") -> str:
    """The first place at which two descriptions of what has this name differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            if there.get(key) != here.get(key):
                return difference(name, there.get(key), here.get(key), hosts, f"{path}.{key}" if path else str(key))
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (one, other) in enumerate(zip(there, here, strict=True)):
            if one != other:
                return difference(name, one, other, hosts, f"{path}[{index}]" if path else _place(name, index, len(here)))
    one, other = shown(there), shown(here)
    if one == other and isinstance(there, list) and isinstance(here, list):  # what differs was left out as too long
        parts = "layers" if name == "layers" and not path else "parts"
        return f"{path or 'which'} has {len(there)} {parts} {hosts[0]} and {len(here)} {hosts[1]}"
    return f"{path or 'which'} is {one} {hosts[0]} and {other} {hosts[1]}"


def _place(name: str, index: int, count: int) -> str:
    if name == "layers":
        return f"layer {index + 1}"
    places = _PLACES.get(name, ())
    return places[index] if len(places) == count else f"number {index + 1} of them"


def plain(value: Any) -> Any:
    """The value as it comes back from JSON: tuples become lists."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value
