"""Imports models from files of other libraries, and exports models for them."""

from gpucnn.exchange.keras_import import import_keras
from gpucnn.exchange.models import import_model
from gpucnn.exchange.onnx_export import export_onnx
from gpucnn.exchange.onnx_import import import_onnx
from gpucnn.exchange.problems import NotTakenError
from gpucnn.exchange.state import import_state

__all__ = ["NotTakenError", "export_onnx", "import_keras", "import_model", "import_onnx", "import_state"]
