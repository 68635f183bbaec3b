"""Times, on a GPU or a CPU, and beside PyTorch."""
