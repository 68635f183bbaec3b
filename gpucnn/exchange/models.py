"""Imports any supported file; its extension decides the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpucnn.checks import integer
from gpucnn.device import Device
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.exchange.keras_import import import_keras
from gpucnn.exchange.onnx_import import import_onnx
from gpucnn.exchange.state import SUFFIXES as STATES
from gpucnn.exchange.state import import_state
from gpucnn.files import exists
from gpucnn.model import Sequential, load
from gpucnn.networks import NETWORKS, network
from gpucnn.surroundings import user_path

ENDINGS = (".onnx", ".keras", *STATES)
OTHERS = {  # other files that people try, and what to do instead
    ".h5": "save the model as .keras with Keras 3",
    ".hdf5": "save the model as .keras with Keras 3",
    ".pb": "save the model as .keras with Keras 3, or as .onnx",
    ".tflite": "export the original model as .onnx",
    ".pkl": "a pickle is a program, and none is run: save the weights as .safetensors",
    ".bin": "save the weights as .safetensors",
    ".ckpt": "save model.state_dict() with torch.save as .pt",
    ".npz": "save the weights as .safetensors",
}


def import_model(
    path: str | Path,
    *,
    network: str | Sequential | None = None,
    classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    names: Mapping[str, str] | None = None,
    device: str | Device = "auto",
) -> Sequential:
    """The model in a file of another library: .onnx and .keras files describe a model (`import_onnx`, `import_keras`); .safetensors, .pt
    and .pth files hold the weights of one (`import_state`).

    For weights alone, `network` is the model that receives them: a name in NETWORKS, with `classes`, by default 10, and input_shape (C,
    H, W), by default (1, 28, 28); the path of a gpucnn model; or a built model, which is changed. names: as in `import_state`.

    Raises ArgumentError for arguments that do not apply to the kind of file, and the errors of these functions.
    """
    suffix = user_path(path).suffix.lower()
    if suffix not in ENDINGS:
        advice = f": {OTHERS[suffix]}" if suffix in OTHERS else ""
        raise ArgumentError(f"{path} cannot be imported: the supported files end in {', '.join(ENDINGS)}{advice}")
    if suffix in STATES:
        model = _network(network, classes, input_shape, device, str(path))
        import_state(path, model, names)
        model.metadata = {**model.metadata, "imported_from": user_path(path).name}
        return model
    if network is not None or names is not None or classes is not None:
        only = "a network, its number of classes and a map of names are only for"
        raise ArgumentError(f"{path} describes its own model: {only} {', '.join(STATES)}")
    if suffix == ".onnx":
        return import_onnx(path, input_shape=input_shape, device=device)
    return import_keras(path, input_shape=input_shape, device=device)


def _network(
    given: str | Sequential | None, classes: int | None, input_shape: Sequence[int] | None, device: str | Device, path: str
) -> Sequential:
    """The built model that receives the weights."""
    own = "has its own input shape and number of classes: leave out yours"
    if isinstance(given, Sequential):
        if input_shape is not None or classes is not None:
            raise ArgumentError(f"a built network {own}")
        return given
    if given is None:
        raise ArgumentError(f"{path} contains weights but no network: name one with --network, {NETWORKS}, or a model of gpucnn's")
    if NETWORKS.meant(given) is None and exists(user_path(given)):
        if input_shape is not None or classes is not None:
            raise ArgumentError(f"{given} {own}")
        return load(given, device=device)
    if NETWORKS.meant(given) is None and Path(given).suffix == ".safetensors":
        raise CheckpointError(f"{given} does not exist, there is no such file: check the path of the network")
    return network(given, integer(10 if classes is None else classes, "classes", 1)).build(input_shape or (1, 28, 28), device=device)
