"""A model as a file, and its state for copy and pickle.

Models are typed `Any` here, because this module is below the one that defines Sequential, which passes its class to `read`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpucnn import optimizers, schedules
from gpucnn.checks import integer
from gpucnn.device import Device, check_dtype, get_device, simulated, to_numpy, why_no_cuda
from gpucnn.errors import ArgumentError, CheckpointError, UnknownNameError
from gpucnn.layers import LAYERS, layer_from_config
from gpucnn.layers.chain import Chain
from gpucnn.layout import LAST, check_format
from gpucnn.losses import LOSSES, get_loss
from gpucnn.names import differing
from gpucnn.optimizers import OPTIMIZERS, get_optimizer
from gpucnn.schedules import SCHEDULES, get_schedule
from gpucnn.surroundings import user_path
from gpucnn.text import message, reason_of, shown
from gpucnn.training.checkpoint import TensorFile, save_tensors, take

MOST_LAYERS = 10_000  # limit for the description in a file


def config_of(model: Any) -> dict[str, Any]:
    """A description of the model without its parameters, ready for JSON."""
    if not isinstance(model.metadata, Mapping):
        raise CheckpointError(f"metadata must be a dict, got {shown(model.metadata)}: name what it is under a key")
    return {
        "input_shape": list(model.input_shape),
        "dtype": str(model.dtype),
        "seed": model.seed,
        "layers": [layer.config() for layer in model.layers],
        "loss": model.loss.config() if model.loss else None,
        "optimizer": model.optimizer.config() if model.optimizer else None,
        "metrics": model.metrics,
        "metadata": dict(model.metadata),
        **({"data_format": LAST} if model.data_format == LAST else {}),
    }


OTHERS = {  # endings that would promise another format, and what writes or replaces it
    ".onnx": "; gpucnn.exchange.export_onnx(model, path) writes ONNX",
    ".pt": ", which is PyTorch's: end the name in .safetensors",
    ".pth": ", which is PyTorch's: end the name in .safetensors",
}


def write(model: Any, path: str | Path) -> None:
    """Writes a built model; see `Sequential.save`."""
    if (suffix := user_path(path).suffix.lower()) in OTHERS:
        raise ArgumentError(f"{path} was not written: save writes safetensors files, not {suffix}{OTHERS[suffix]}")
    for layer in model.layers:
        for name, part in layer.walk(layer.name).items():
            if LAYERS.get(type(part).__name__) is not type(part):
                kind = type(part).__name__
                raise CheckpointError(
                    f"{path} was not written: {name!r} is a {kind}, which no file can name: gpucnn.register({kind}) first"
                )
    if model.loss is not None and LOSSES.get(model.loss.name) is not type(model.loss):
        kind = type(model.loss).__name__
        raise CheckpointError(f"{path} was not written: its loss is a {kind}, which no file can name: gpucnn.register({kind}) first")
    config = model.config()
    for layer in model.layers:
        _check_settings(layer, path)
    if model.loss is not None:
        what = f"{path} was not written: its loss"
        _check_same(model.loss, _made(lambda: get_loss(config["loss"]), what, "config()"), what, "config()")
    if model.optimizer is not None:  # one that is not registered is only named, and `load` leaves it out
        name, schedule = optimizers.name_of(model.optimizer), model.optimizer.schedule
        if OPTIMIZERS.get(name) is not type(model.optimizer):
            config["optimizer"] = {"optimizer": name}
        elif SCHEDULES.get(schedules.name_of(schedule)) is not type(schedule):
            config["optimizer"]["learning_rate"] = {"schedule": schedules.name_of(schedule)}
        else:
            try:
                _check_optimizer(model.optimizer, config["optimizer"])
            except CheckpointError as error:  # the weights are worth more
                config["optimizer"] = None
                warnings.warn(message(f"{path} was written without the optimizer: {error}"), stacklevel=3)  # points at the call of `save`
    save_tensors(path, model._tensors(), {"model": config})


def _check_settings(layer: Any, path: str | Path) -> None:
    """CheckpointError if `load` would make another layer: its settings() leave out something, or settings were changed that a layer heeds
    only when it is built."""

    def again() -> Any:
        made = layer_from_config(layer.config())
        made.build(layer.input_shape)
        return made

    made = _made(again, f"{path} was not written: {layer.name!r}", "settings", "change them, or what its settings() returns")
    if _sizes(made) != _sizes(layer):
        raise CheckpointError(
            f"{path} was not written: settings of {layer.name!r} were changed after the model was built: set them back, or make a new "
            "model of the layers and build it"
        )
    parts = made.walk(layer.name)
    for name, part in layer.walk(layer.name).items():
        _check_same(part, parts[name], f"{path} was not written: {name!r}", "settings()")


def _check_optimizer(optimizer: Any, config: Any) -> None:
    """CheckpointError if `load` would make another optimizer, or one with another schedule."""
    schedule = _made(lambda: get_schedule(config["learning_rate"]), "its schedule", "config()")
    _check_same(optimizer.schedule, schedule, "its schedule", "config()")
    _check_same(optimizer, _made(lambda: get_optimizer(config), "it", "config()"), "it", "config()")


def _made(make: Callable[[], Any], what: str, told: str, advice: str = "change what that returns") -> Any:
    """What `make` makes again. CheckpointError if it cannot."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{what} cannot be made again from its {told} ({reason_of(error)}): {advice}") from None


def _check_same(thing: Any, again: Any, what: str, told: str) -> None:
    """CheckpointError if the two were made with different arguments."""
    if name := differing(thing, again):
        raise CheckpointError(f"{what} would be made again with another {name} than it has: change what its {told} returns")


def _sizes(layer: Any) -> dict[str, Any]:
    """What is fixed when a layer is built, for each layer inside it."""
    return {
        path: (part.output_shape, getattr(part, "window", None), [(array.name, array.shape) for array in (*part.parameters, *part.arrays)])
        for path, part in layer.walk().items()
    }


def read(kind: type[Any], path: str | Path, device: str | Device) -> Any:
    """The model of class `kind` in a file that `write` wrote; see `load`."""
    with TensorFile(path) as file:
        config: Any = file.description.get("model")
        if config is None:
            raise CheckpointError(
                f"{file.path} is a checkpoint of a run, not a model: name the model.safetensors beside it, or resume the run"
            )
        found = get_device(device)
        try:
            layers = list(config["layers"])
            if len(layers) > MOST_LAYERS:
                raise CheckpointError(f"{file.path} describes a model of {len(layers):,} layers; the limit is {MOST_LAYERS:,}")
            model = kind([layer_from_config(layer) for layer in layers])
            check_dtype(config["dtype"], found)
            model._lay_out(config["input_shape"], integer(config["seed"], "seed", 0), config["dtype"])
            held = [array for layer in model.layers for array in (*layer.named_parameters(layer.name), *layer.named_arrays(layer.name))]
            file.check({name: array.shape for name, array in held})
            model._settle(found)
            model.data_format = check_format(config.get("data_format"))
            model.metadata = dict(config["metadata"])
            _compile(model, config, file.path)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
            raise CheckpointError(f"{file.path} describes a model that this gpucnn cannot make ({reason_of(error)})") from None
        take(file, model._tensors())
    return model


def _compile(model: Any, config: dict[str, Any], path: Path) -> None:
    """Compiles a model as its file says. Names that this process does not know are left out, with a warning."""
    loss = None if config["loss"] is None else get_loss(config["loss"])
    unknown = ""
    try:
        optimizer = None if config["optimizer"] is None else get_optimizer(config["optimizer"])
    except UnknownNameError as error:
        rate = dict(config["optimizer"]).get("learning_rate")
        names = config["optimizer"]["optimizer"], rate["schedule"] if isinstance(rate, dict) else ""
        if not all(isinstance(name, str) for name in names):
            raise
        optimizer, unknown = None, str(error)
    if loss is not None and optimizer is not None:
        model.compile(optimizer, loss, config["metrics"])
    elif loss is not None:
        loss.check_model(model.output_shape, model.last_activation)
        model.loss, model.metrics = loss, list(config["metrics"])
    if unknown:
        model._unknown = f" (its file: {unknown})"
        warnings.warn(
            message(
                f"{path} was loaded without its optimizer: {unknown}; register the class with gpucnn.register before loading, "
                "or compile the model again"
            ),
            stacklevel=4,  # points at the call of `load`
        )


def kept(model: Any) -> dict[str, Any]:
    """The complete state for copy and pickle, independent of the device: gradients and optimizer state included."""
    state: dict[str, Any] = {
        **vars(model),
        "chain": Chain(),
        "_named": {},
        "_arrays": {},
        "_device": None,
        "_buffers": None,
        "_in_fit": False,
    }
    buffers = model._buffers
    if buffers is not None:
        state["_kept"] = {
            "device": model.device.kind,
            "values": to_numpy(buffers.values),
            "saved": to_numpy(buffers.saved),
            "gradients": to_numpy(buffers.all_gradients()),
            "has_grad": [parameter.has_grad for parameter in buffers.parameters],
            "random": model.state(),
            "trained": model.optimizer is not None and model.optimizer.trains(buffers),
        }
    return state


def take_up(model: Any, state: dict[str, Any]) -> None:
    """Restores what `kept` returned into a new model, on the same kind of device if available, otherwise on the CPU."""
    arrays = state.pop("_kept", None)
    vars(model).update(state)
    if arrays is None:
        return
    epochs = model.epochs_begun
    usable = arrays["device"] == "cpu" or why_no_cuda() is None or simulated()
    buffers = model._settle(get_device(arrays["device"] if usable else "cpu"))
    model.epochs_begun = epochs
    buffers.values[...] = model.device.array(arrays["values"])
    buffers.saved[...] = model.device.array(arrays["saved"])
    buffers.all_gradients()[...] = model.device.array(arrays["gradients"])
    for parameter, has_grad in zip(buffers.parameters, arrays["has_grad"], strict=True):
        parameter.has_grad = has_grad
    model.restore(arrays["random"])
    if model.optimizer is not None and arrays["trained"]:
        model.optimizer.attached_again(buffers)
