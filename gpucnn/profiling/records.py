"""The record of a profile, and its JSON: written whole or not at all, checked field by field when it is read.

Times are in seconds, memory in bytes, rates in FLOP and bytes per second. Values that were not measured or counted are None.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gpucnn.data.files import atomic_file, content_of
from gpucnn.errors import DataError

SCHEMA = 1
LARGEST = 256 << 20  # bytes of a profile; that of a large model has some hundred kilobytes

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Seconds: the median of the samples, and their 10th and 90th percentile."""

    median: float
    p10: float
    p90: float
    samples: int


@dataclass(frozen=True)
class HotLoop:
    """The innermost loop of a kernel, counted in instructions of the chip."""

    instructions: int
    fma: int
    shared: int  # reads and writes of shared memory
    memory: int  # reads and writes of global memory

    @property
    def fma_share(self) -> float:
        """FMAs among the instructions: a bound on the share of the chip's peak."""
        return self.fma / self.instructions if self.instructions else 0.0


@dataclass(frozen=True)
class Row:
    """A kernel in a step; on the CPU an operation."""

    layer: str
    phase: str  # "batch", "forward", "loss", "backward" or "update"
    op: str  # the operation that launched it
    kernel: str
    shape: str
    flops: int
    bytes: int  # the least that must be moved
    roofline: float  # the least seconds that the chip needs
    wall: str  # what bounds it: "memory", "compute", "launch", or the "link" to other ranks
    blocks: int | None = None
    threads: int | None = None
    time: Timing | None = None
    warm: Timing | None = None  # on data that the caches already hold
    start: float | None = None  # after the step's beginning
    error: float | None = None  # of its result, as a multiple of what rounding explains
    registers: int | None = None
    spills: int | None = None  # bytes stored and loaded
    stack: int | None = None  # bytes of a thread
    float64: int | None = None  # instructions
    shared: int | None = None  # bytes per block
    occupancy: float | None = None
    waves: float | None = None  # how many times the grid fills the chip
    loop: HotLoop | None = None
    reference: Timing | None = None  # PyTorch's time for the whole operation
    ratio: float | None = None  # this library's time for the whole operation, over PyTorch's
    road: str | None = None  # on the CPU: what computed it, loops by name or numpy
    predicted: float | None = None  # seconds, from the machine code (profiling/chip/predict.py)
    limit: str | None = None  # the limit that the prediction names, in words

    @property
    def key(self) -> tuple[str, str, str]:
        """The names that stay the same from run to run. A faster kernel for the same operation has another name and the same key."""
        return self.layer, self.phase, self.op

    @property
    def seconds(self) -> float:
        """The measured median; where nothing was measured, the bound."""
        return self.roofline if self.time is None else self.time.median

    @property
    def intensity(self) -> float | None:
        """FLOP per byte."""
        return self.flops / self.bytes if self.bytes else None

    @property
    def of_roofline(self) -> float | None:
        """The fraction of the roofline that was reached; over 1 if caches held data that was counted as read from memory."""
        return None if self.time is None or not self.time.median else self.roofline / self.time.median


@dataclass(frozen=True)
class SourceLine:
    """A line of Python and its machine code: instructions as a disassembler writes them, each with the number of times that a warp issues
    it; and their share of the kernel's issues, and of the cycles in which it waits."""

    location: str  # file and number; "" if there is none
    text: str
    instructions: list[tuple[str, float]]
    issued: float
    waited: float


@dataclass(frozen=True)
class Listing:
    """A kernel's Python beside its machine code, in the order of the code."""

    kernel: str
    lines: list[SourceLine]


@dataclass(frozen=True)
class Ceilings:
    """The most that the chip can do, and the source of these figures."""

    bandwidth: float  # bytes per second, reading and writing together
    flops: float  # float32 FLOP per second, an FMA being two
    launch: float  # seconds that an empty launch takes
    source: str


@dataclass(frozen=True)
class Step:
    """A training step as a whole."""

    kernels: float  # the sum over all rows, whether profiled or left out
    time: Timing | None = None  # from the first kernel's begin to the last one's end
    graph: Timing | None = None  # the same, captured as one CUDA graph; on a CPU, recorded and run without Python between its loops
    host: Timing | None = None  # the host's time to launch it
    memory: dict[str, int] = field(default_factory=dict)  # peak bytes by buffer
    predicted: float | None = None  # seconds of the whole step as one graph, where all of its kernels have a prediction

    @property
    def gaps(self) -> float | None:
        """Seconds in which no kernel ran."""
        return None if self.time is None else max(0.0, self.time.median - self.kernels)


@dataclass(frozen=True)
class Profile:
    """One run of the profiler."""

    kind: str  # "gpu" and "cpu" were measured; "bounds", of a step, "kernels" and "shapes", of each by itself, were not
    model: str
    batch: int
    device: dict[str, str]  # chip, driver and versions by name, for people
    ceilings: Ceilings
    rows: list[Row]
    step: Step
    notes: list[str] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)  # for a closer look, by the tool's name
    only: str = ""  # the part of the model that was asked for, in words
    listings: list[Listing] = field(default_factory=list)  # for the page; JSON has none

    @property
    def measured(self) -> bool:
        """Whether its times were measured, and are not bounds."""
        return self.kind in ("gpu", "cpu")

    @property
    def of_step(self) -> bool:
        """Whether its rows are parts of a step, one after the other, and not kernels each by itself."""
        return self.kind not in ("kernels", "shapes")

    @property
    def whole(self) -> float:
        """The seconds that shares of the step refer to."""
        return self.step.time.median if self.step.time is not None else self.step.kernels


KINDS = ("gpu", "cpu", "bounds", "kernels", "shapes")
WALLS = ("memory", "compute", "launch", "link")


def to_json(profile: Profile) -> str:
    """The profile as JSON text."""
    content = dataclasses.asdict(dataclasses.replace(profile, listings=[]))
    del content["listings"]
    return json.dumps({"gpucnn_profile": SCHEMA, **content}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str, name: str) -> Profile:
    """The profile in a text that `to_json` made. DataError, which names `name` and the field, for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not a profile: it is not JSON ({error}); give a file that gpucnn profile --json wrote") from None
    if not isinstance(data, dict) or "gpucnn_profile" not in data:
        raise DataError(f"{name} is not a profile: give a file that gpucnn profile --json wrote")
    schema = data.pop("gpucnn_profile")
    if schema != SCHEMA:
        raise DataError(f"{name} is a profile of format {schema!r} and this gpucnn reads format {SCHEMA}: write it again with --json")
    for row in data["rows"] if isinstance(data.get("rows"), list) else ():
        if isinstance(row, dict):
            row.pop("moved", None)  # earlier profiles had the bytes that a kernel requests before any cache
    try:
        profile: Profile = checked(Profile, data, "the profile")
        _check(profile)
    except ValueError as error:
        raise DataError(f"{name} is damaged: {error}; write it again with --json") from None
    return profile


def write(profile: Profile, path: Path) -> None:
    """Writes the JSON file."""
    with atomic_file(path) as file:
        # A lone surrogate, from a file's name that is not UTF-8, has no bytes: it is written as JSON's escape, which looks like Python's.
        file.write(to_json(profile).encode(errors="backslashreplace"))


def read(path: Path) -> Profile:
    """Reads what `write` wrote; DataError for a file that is missing, too long, or something else."""
    try:
        text = content_of(path, LARGEST, "it is not a profile").decode()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a profile: it is not text; give a file that gpucnn profile --json wrote") from None
    return from_json(text, str(path))


def checked(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON gives it, converted to the type `kind`: a dataclass, a list or dict, text, a number. ValueError says where it does
    not fit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else checked(arguments[0], value, where)
    if origin is list and isinstance(value, list):
        return [checked(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: checked(arguments[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints, known = typing.get_type_hints(kind), {item.name: item for item in dataclasses.fields(kind)}
        strange = sorted(value.keys() - known.keys())
        if strange:
            raise ValueError(f"{where} has {strange[0]!r}, which nothing is known of")
        for name, item in known.items():
            if name not in value and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                raise ValueError(f"{where} lacks {name!r}")
        make: Any = kind
        prefix = "" if where == "the profile" else f"{where}."
        return make(**{name: checked(hints[name], item, prefix + name) for name, item in value.items()})
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if (kind is str and isinstance(value, str)) or (kind is int and number and isinstance(value, int) and value >= 0):
        return value
    if kind is float and number and math.isfinite(value) and value >= 0:
        return float(value)
    expected = {str: "text", int: "an integer of at least 0", float: "a number of at least 0"}.get(kind, f"a {origin or kind}")
    raise ValueError(f"{where} must be {expected}, got {value!r:.60}")


def _check(profile: Profile) -> None:
    """Checks what the types cannot express."""
    if profile.kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {profile.kind!r}")
    for index, row in enumerate(profile.rows):
        if row.wall not in WALLS:
            raise ValueError(f"rows[{index}].wall must be one of {', '.join(WALLS)}, got {row.wall!r}")
        for timing in (row.time, row.warm, row.reference):
            if timing is not None and not timing.p10 <= timing.median <= timing.p90:
                raise ValueError(f"rows[{index}] has a median outside of its 10th and 90th percentile")
    if not profile.ceilings.bandwidth or not profile.ceilings.flops:
        raise ValueError("a ceiling is 0")
