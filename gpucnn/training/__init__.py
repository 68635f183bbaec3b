"""Training: one step, the loop around it, callbacks, and checkpoints. It knows a model only by its methods."""
