"""Training: the step, the loop around it, callbacks, and checkpoints. A model is used through its methods only."""
