"""What is known of a chip without having it: its peak rates, and the kernels compiled for it."""
