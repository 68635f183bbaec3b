"""Models in and out: other makers' files read and written."""

from gpucnn.exchange.onnx_export import export_onnx

__all__ = ["export_onnx"]
