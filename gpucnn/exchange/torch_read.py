"""Reads files that torch.save wrote: a zip archive with a pickle, and one entry with the numbers of each storage.

A pickle is a program. It is not passed to Python's pickle, which would run it. Instead, the few instructions that build dictionaries of
tensors are interpreted one by one, and only two functions can be called: one makes an empty dictionary, the other a tensor over a storage.
Everything else in the file is refused by name. PyTorch is not needed.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import CheckpointError
from gpucnn.exchange.archives import Archive, opened
from gpucnn.exchange.problems import DAMAGE
from gpucnn.exchange.tensors import Tensor, Tensors, widened
from gpucnn.text import plain, reason_of, shown

LONGEST = 1 << 24  # bytes of the pickle, which contains no weights
MOST_STEPS = 1_000_000
WITHIN = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # keys of the model's state_dict in checkpoints
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}


@dataclass(frozen=True)
class _Named:
    """A class or function that the pickle refers to."""

    name: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class _Strided:
    """A tensor: a part of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The reason why a pickle is refused."""


@contextmanager
def read_torch(path: str | Path) -> Iterator[Tensors]:
    """The tensors of a state_dict that torch.save wrote (PyTorch 1.6 and later), also of one inside a checkpoint, in the model's order.

    CheckpointError for anything else: whole models, which are programs; files that were cut short; contents other than tensors.
    """
    with opened(path, "a PyTorch file of version 1.6 or later") as archive:
        path = archive.path
        pickles = [name for name in archive.names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError(f"{path} is not a torch.save file: save model.state_dict() with torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in archive.names):
            raise CheckpointError(f"{path} is a TorchScript model, a program: save model.state_dict() with torch.save instead")
        try:
            content = _follow(archive.read(pickles[0], LONGEST))
            tensors = _tensors(content)
        except _Refused as error:
            raise CheckpointError(f"{path} {error}: save model.state_dict() with torch.save") from None
        except CheckpointError:
            raise
        except DAMAGE as error:
            raise CheckpointError(f"{path} is damaged, or is not a torch.save file ({reason_of(error)}): get a new copy") from None
        order = archive.read(f"{root}byteorder", 16).decode("ascii", "replace") if f"{root}byteorder" in archive.names else "little"
        found = {name: Tensor(each.shape, _reader(archive, root, name, each, order)) for name, each in tensors.items()}
        yield Tensors(path, found, in_order=True)


def _reader(archive: Archive, root: str, name: str, tensor: _Strided, order: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        storage = tensor.storage
        narrow = storage.kind == "bf2"
        dtype = np.dtype("u2" if narrow else storage.kind).newbyteorder(">" if order == "big" else "<")
        last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
        size = math.prod(list(tensor.shape))
        entry = f"{root}data/{storage.key}"
        if (
            min((tensor.offset, *tensor.shape, *tensor.strides)) < 0
            or size > storage.count
            or (size and last >= storage.count)
            or archive.size(entry) != storage.count * dtype.itemsize
        ):
            raise CheckpointError(f"{archive.path}: {plain(name)} of shape {shown(tensor.shape)} is incomplete: get a new copy of the file")
        numbers = np.frombuffer(archive.read(entry), dtype)
        steps = [step * dtype.itemsize for step in tensor.strides]
        view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
        whole = np.ascontiguousarray(view, dtype.newbyteorder("="))
        return widened(whole, False) if narrow else whole

    return read


def _tensors(content: Any) -> dict[str, _Strided]:
    """The tensors of a state_dict, or of the one inside a checkpoint."""
    if not isinstance(content, dict):
        raise _Refused(f"contains {_kind(content)}, not a state_dict")
    if not any(isinstance(value, _Strided) for value in content.values()):
        within = [content[name] for name in WITHIN if isinstance(content.get(name), dict)]
        if len(within) != 1:
            raise _Refused(
                f"contains no tensors at the top level, and {len(within)} state_dicts under the usual names ({', '.join(WITHIN)})"
            )
        content = within[0]
    found = {str(name): value for name, value in content.items() if isinstance(value, _Strided)}
    others = [name for name, value in content.items() if not isinstance(value, _Strided)]
    if others or not found:
        raise _Refused(f"contains {_kind(content[others[0]])} as {shown(others[0])}, not a tensor" if others else "contains no tensors")
    return found


def _kind(value: Any) -> str:
    return f"a {value.name}" if isinstance(value, _Named) else f"a {type(value).__name__}"


def _follow(program: bytes) -> Any:
    """The object that the pickle builds."""
    machine = _Machine()
    for step, (code, argument, _) in enumerate(pickletools.genops(program)):
        if step > MOST_STEPS:
            raise _Refused(f"has a description of more than {MOST_STEPS:,} steps")
        if code.name == "STOP":
            return machine.stack.pop()
        do = CODES.get(code.name)
        if do is None:
            made = next((value.name for value in reversed(machine.stack) if isinstance(value, _Named)), code.name)
            raise _Refused(f"contains more than tensors: an object of {plain(made)}")
        do(machine, argument)
    raise _Refused("has a description that does not end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def last(self, count: int) -> tuple[Any, ...]:
        found = tuple(self.stack[len(self.stack) - count :])
        if len(found) < count:
            raise ValueError("its pickle takes more objects than it has")
        del self.stack[len(self.stack) - count :]
        return found

    def put(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if not isinstance(into, dict) or len(items) % 2:
            raise ValueError("its pickle sets items of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise _Refused(f"has {_kind(key)} as a key")
            into[key] = value

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("its pickle appends to something that is not a list")
        self.stack[-1].extend(items)

    def call(self) -> None:
        function, arguments = self.last(2)
        self.push(_called(function, arguments))

    def build(self) -> None:
        """Ignores the state of an ordered dictionary, which has the versions of modules and no tensors."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise _Refused(f"contains {_kind(self.stack[-1])}")

    def persistent(self) -> None:
        told = self.stack.pop()
        if not isinstance(told, tuple) or len(told) != 5 or told[0] != "storage" or not isinstance(told[1], _Named):
            raise _Refused("refers to something outside, which is not a tensor's storage")
        kind = STORAGES.get(told[1].name.removeprefix("torch."))
        if kind is None or not isinstance(told[2], str) or type(told[4]) is not int or told[4] < 0:
            raise _Refused(f"has a storage of {told[1].name}, which is not supported")
        self.push(_Storage(kind, told[2], told[4]))


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Named) or not isinstance(arguments, tuple):
        raise ValueError("its pickle calls something that is not a function")
    if function.name == "collections.OrderedDict" and not arguments:
        return {}
    if function.name == "torch._utils._rebuild_tensor_v2" and len(arguments) >= 4:
        storage, offset, shape, strides = arguments[:4]
        numbers = (offset, *shape, *strides)
        if isinstance(storage, _Storage) and len(shape) == len(strides) and all(type(number) is int for number in numbers):
            return _Strided(storage, offset, tuple(shape), tuple(strides))
    if function.name == "torch._utils._rebuild_parameter" and arguments and isinstance(arguments[0], _Strided):
        return arguments[0]
    raise _Refused(f"contains more than tensors: it refers to {plain(function.name)}")


def _named(machine: _Machine, argument: Any) -> None:
    machine.push(_Named(str(argument).replace(" ", ".")))


def _named_from_stack(machine: _Machine, argument: Any) -> None:
    machine.push(_Named(".".join(map(str, machine.last(2)))))


def _push(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _remember(machine: _Machine, argument: Any) -> None:
    machine.memo[argument] = machine.stack[-1]


CODES: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _push),
    "NONE": lambda machine, argument: machine.push(None),
    "NEWTRUE": lambda machine, argument: machine.push(True),
    "NEWFALSE": lambda machine, argument: machine.push(False),
    "EMPTY_DICT": lambda machine, argument: machine.push({}),
    "EMPTY_LIST": lambda machine, argument: machine.push([]),
    "EMPTY_TUPLE": lambda machine, argument: machine.push(()),
    "MARK": lambda machine, argument: machine.mark(),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, argument: machine.push(machine.last(1)),
    "TUPLE2": lambda machine, argument: machine.push(machine.last(2)),
    "TUPLE3": lambda machine, argument: machine.push(machine.last(3)),
    "SETITEM": lambda machine, argument: machine.put(list(machine.last(2))),
    "SETITEMS": lambda machine, argument: machine.put(machine.marked()),
    "APPEND": lambda machine, argument: machine.extend(list(machine.last(1))),
    "APPENDS": lambda machine, argument: machine.extend(machine.marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _remember),
    "MEMOIZE": lambda machine, argument: _remember(machine, len(machine.memo)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, argument: machine.push(machine.memo[argument])),
    "GLOBAL": _named,
    "STACK_GLOBAL": _named_from_stack,
    "REDUCE": lambda machine, argument: machine.call(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPERSID": lambda machine, argument: machine.persistent(),
}
