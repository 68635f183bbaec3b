"""Convolution, forward and both gradients: one file per algorithm."""
