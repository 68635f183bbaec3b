"""What can be said of a chip without having it: its ceilings, and what the compiler makes of the kernels for it."""
