"""Facts about a chip that need not be present: its peak rates, and the kernels compiled for it."""
