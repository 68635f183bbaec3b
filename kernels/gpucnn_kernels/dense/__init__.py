"""Dense layers, forward and both gradients: one file per algorithm."""
