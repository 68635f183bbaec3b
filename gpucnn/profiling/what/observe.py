"""Observes which layer calls which operation with which arguments. An observed model gets a device whose operations report to the
observer before they run, and its layers report when their forward or backward begins; the operations themselves are unchanged."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

from gpucnn.device import Device
from gpucnn.model import Sequential


@dataclass(frozen=True)
class Call:
    """An operation about to run, for a layer, in a phase of the step."""

    layer: str
    phase: str
    op: str
    bound: inspect.BoundArguments
    function: Callable[..., Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name, including defaults."""
        return self.bound.arguments

    def run(self) -> Any:
        """Runs the operation and returns its result. It may be run again: it writes to the same arrays, or to new ones."""
        return self.function(*self.bound.args, **self.bound.kwargs)


Listener: TypeAlias = Callable[[Call], Any]  # runs the call and returns its result


class Observer:
    """Passes every operation of an observed model to a listener, if there is one."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._where = ("", "")
        self.outside: Callable[[str], tuple[str, str]] = lambda op: ("", "")  # layer and phase of an operation that no layer calls
        self.on_phase: Callable[[str, str], Any] | None = None  # a context for each layer and phase, such as a range for Nsight

    def device(self, real: Device) -> Device:
        """`real`, with operations that report."""
        return dataclasses.replace(real, ops=_Reporting(real.ops, self))

    def watch(self, model: Sequential) -> None:
        """Makes the layers of a model, which is on the observer's device, report when they run."""
        # A model runs stages: layers, or several fused ones, which report themselves. So do the stages inside layers made of layers.
        chains = [model.chain, *(chain for layer in model.layers for part in layer.walk().values() for chain in part.chains())]
        stages: list[Any] = [*(stage for chain in chains for stage in (*chain.stages, *chain.ahead)), *model.layers]
        for stage in {id(stage): stage for stage in stages}.values():
            name = "+".join(layer.name for layer in getattr(stage, "layers", (stage,)))
            for phase in ("forward", "backward"):
                if not hasattr(stage, phase):  # it is for predictions only
                    continue
                setattr(stage, phase, self._watched(getattr(stage, phase), name, phase))

    @contextmanager
    def at(self, layer: str, phase: str) -> Iterator[None]:
        """Attributes calls in the block to this layer and phase; in nested blocks the innermost counts."""
        if (layer, phase) in (self._where, ("", "")):
            yield
            return
        outer, self._where = self._where, (layer, phase)
        try:
            if self.on_phase is None:
                yield
            else:
                with self.on_phase(layer, phase):
                    yield
        finally:
            self._where = outer

    @contextmanager
    def listening(self, listener: Listener | None) -> Iterator[None]:
        """Sends every call in the block to `listener`, or to nobody for None."""
        outer, self._listener = self._listener, listener
        try:
            yield
        finally:
            self._listener = outer

    def report(self, op: str, function: Callable[..., Any], signature: inspect.Signature, args: Any, kwargs: Any) -> Any:
        """Runs an operation through the listener."""
        with self.at(*(self._where if self._where != ("", "") else self.outside(op))):
            if self._listener is None:
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return self._listener(Call(*self._where, op, bound, function))

    def _watched(self, method: Callable[..., Any], layer: str, phase: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.at(layer, phase):
                return method(*args, **kwargs)

        return watched


class _Reporting(ModuleType):
    """Operations by name, each of which reports."""

    def __init__(self, ops: ModuleType, observer: Observer) -> None:
        super().__init__(ops.__name__)
        for name in ops.__all__:
            setattr(self, name, _reporting(name, getattr(ops, name), observer))


_signature = functools.lru_cache(maxsize=256)(inspect.signature)


def _reporting(name: str, function: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    signature = _signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return observer.report(name, function, signature, args, kwargs)

    return call
