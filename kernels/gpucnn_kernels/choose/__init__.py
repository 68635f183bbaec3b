"""The choice of kernels for an operation on the current chip."""
