"""Makes one profile from the options of `gpucnn profile`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpucnn.checks import integer
from gpucnn.device import Device, get_device, why_no_cuda, why_not_auto
from gpucnn.errors import DataError, DeviceError
from gpucnn.files import why_not_written
from gpucnn.profiling import ranks, records
from gpucnn.profiling.chip import bounds, chips
from gpucnn.profiling.chip.links import LINKS
from gpucnn.profiling.measure import against_torch, cpu
from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import page, trace
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn.profiling.what.workload import Selection, Workload
from gpucnn.training.parallel import join

BATCH = 128
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The things to profile, the device, and what to compare with."""

    model: str = "keras"
    batch_size: int | None = None
    layer: str | None = None
    op: str | None = None
    shape: str | None = None
    compare: str | None = None
    device: str = "auto"
    arch: str | None = None
    lineinfo: bool = False
    kernels: str | None = None
    ranks: int | None = None
    link: str | None = None

    @property
    def words(self) -> list[str]:
        """The options as one types them, without those that have their default."""
        found = []
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                name = "--" + item.name.replace("_", "-")
                found += [name] if value is True else [name, str(value)]
        return found


@dataclass(frozen=True)
class Outputs:
    """The files that the profile is written to, besides the terminal."""

    json: Path | None = None
    trace: Path | None = None
    html: Path | None = None

    def check(self) -> None:
        """Raises DataError before minutes of measuring if a file cannot be written where it should be."""
        paths = [path for path in (self.json, self.trace, self.html) if path is not None]
        if len(set(paths)) < len(paths):
            raise DataError(f"two of the files that are to be written are {max(paths, key=paths.count)}: name another for one of them")
        for path in paths:
            if why := why_not_written(path):
                raise DataError(f"{path} cannot be written, {why}")
            if not path.parent.is_dir():
                raise DataError(f"{path} cannot be written: there is no folder {path.parent}; make it first, or choose another")

    def write(self, profile: Profile) -> list[Path]:
        """Writes all of them, each whole or not at all, and returns their paths."""
        for path, writer in ((self.json, records.write), (self.trace, trace.write), (self.html, page.write)):
            if path is not None:
                writer(profile, path)
        return [path for path in (self.json, self.trace, self.html) if path is not None]


def make(options: Options, say: Say) -> Profile:
    """Profiles; `say` receives the progress. Raises a gpucnn error for anything that is not available."""
    _check(options)
    selection = Selection(None if options.shape else options.op, options.layer)
    if options.arch is not None:
        chip = chips.find(options.arch)
        if options.kernels is not None:
            bounds.device_of(chip)  # which says where nothing can be compiled
            return bounds.catalogue(options.kernels, chip, say)
        with bounds.as_if_there(chip):
            work = _workload(options, selection, bounds.device_of(chip))
        return _with_sum(options, bounds.profile(work, selection, chip, say), work)
    device = _device(options.device)
    if options.lineinfo and device.kind == "cpu":
        raise DeviceError("--lineinfo is about the kernels on a GPU, and this is the CPU: leave it out")
    torch = None if options.compare is None else against_torch.load(cuda=device.kind == "cuda")
    work = _workload(options, selection, device)
    if device.kind == "cpu":
        made = cpu.profile(work, selection, torch, say)
        together = join("auto")
        if together.size == 1 or options.shape is not None:
            return made
        say("measuring the sum over ranks")
        return ranks.measured_with_sum(made, work.model, together, made.ceilings.bandwidth)
    from gpucnn.profiling.measure import gpu

    return _with_sum(options, gpu.profile(work, selection, torch, say, options.words), work)


def _with_sum(options: Options, made: Profile, work: Workload) -> Profile:
    """The profile with the sum over ranks, if that was asked for."""
    if options.ranks in (None, 1):
        return made
    return ranks.with_sum(made, work.model, options.ranks, LINKS.pick("nvlink" if options.link is None else options.link))


def _check(options: Options) -> None:
    """Checks options that depend on one another."""
    if options.compare not in (None, "torch"):
        raise DataError(f"--compare takes torch, got {options.compare!r}")
    if options.shape is not None and options.op is None:
        raise DataError(f"--shape needs --op, to say of what: {', '.join(workload.SHAPED)}")
    if options.shape is not None and (options.layer is not None or options.batch_size is not None):
        raise DataError("--shape is of one operation and begins with the batch size: leave --layer and --batch-size out")
    if options.ranks is not None:
        integer(options.ranks, "--ranks", 1)
    if options.link is not None:
        LINKS.pick(options.link)
    if options.link is not None and options.ranks is None:
        raise DataError("--link is what ranks are connected by, and needs --ranks, to say how many")
    if options.ranks is not None and (options.shape is not None or options.kernels is not None):
        raise DataError("--ranks is about the gradients of a whole model: leave --shape and --kernels out")
    if options.kernels is not None and options.arch is None:
        raise DataError("--kernels says what the compiler makes of kernels, and needs --arch, to say for which chip")
    if options.kernels is not None and any(given is not None for given in (options.shape, options.op, options.layer, options.batch_size)):
        raise DataError("--kernels is in place of a model: leave --op, --shape, --layer and --batch-size out")
    if options.arch is not None and options.device != "auto":
        raise DataError("--arch is for a chip that is not here, and --device for one that is: give one of them")
    if options.arch is not None and (options.compare is not None or options.lineinfo):
        raise DataError("with --arch nothing runs: leave --compare and --lineinfo out")


def _device(name: str) -> Device:
    """The device to measure on. DeviceError, with a way out, where there is no GPU and the CPU was not asked for."""
    instead = "pass --arch H100 (or another chip) to see what the compiler says of one, or --device cpu to measure the operations there"
    if name not in ("auto", "cuda"):
        return get_device(name)
    virtual = why_not_auto() if name == "auto" and why_no_cuda() is None else None
    if virtual is not None:  # it has no times; who asks for it by name wants to see how measuring goes
        raise DeviceError(f"there is no GPU to measure ({virtual}): {instead}")
    try:
        device = get_device("cuda")
    except DeviceError as error:
        missing = why_no_cuda()
        raise DeviceError(f"there is no GPU to measure ({missing}): {instead}" if missing else str(error)) from None
    if device.xp.__name__ == "numpy":
        raise DeviceError(f"Numba's CUDA simulator is on, and its times say nothing: {instead}")
    return device


def _workload(options: Options, selection: Selection, device: Device) -> Workload:
    observer = Observer()
    if options.shape is not None:
        assert options.op is not None
        return workload.of_operation(options.op, options.shape, device, observer)
    made = workload.of_model(options.model, BATCH if options.batch_size is None else options.batch_size, device, observer)
    selection.check(made.model)
    return made
