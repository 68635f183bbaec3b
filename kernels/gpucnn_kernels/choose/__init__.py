"""Which kernels do an operation on the chip at hand."""
