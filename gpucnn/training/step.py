"""One training step: forward, loss, backward, update."""

from __future__ import annotations

from typing import Any, Protocol

from gpucnn.errors import TrainingError
from gpucnn.layers.base import Array
from gpucnn.losses import Loss
from gpucnn.optimizers import Optimizer


class Trainable(Protocol):
    """What training needs of a model."""

    device: Any

    def forward(self, x: Array, training: bool = False, *, logits: bool = False) -> Array: ...
    def backward(self, dy: Array, *, input_grad: bool = False) -> Array | None: ...
    def evaluate_sums(self, x: Any, labels: Any, batch_size: int) -> tuple[float, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class TrainingStep:
    """Trains a model on one batch at a time. `x` and `labels` are arrays on the model's device, checked before."""

    def __init__(self, model: Trainable, loss: Loss, optimizer: Optimizer) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer

    def __call__(self, x: Array, labels: Array) -> tuple[float, int]:
        """(mean loss, right answers) of the batch, before the update. Raises TrainingError, and updates nothing, where the loss is
        NaN or infinite."""
        outputs = self.model.forward(x, training=True, logits=self.loss.fused_activation is not None)
        loss, correct, doutputs = self.loss(self.model.device, outputs, labels)
        value = float(loss)
        if value - value != 0:  # NaN and infinity alike
            raise TrainingError(
                f"the loss became {value} at step {self.optimizer.steps + 1}: lower the learning rate (now "
                f"{self.optimizer.learning_rate:g}) or look for broken values in the data"
            )
        self.optimizer.zero_grad()
        self.model.backward(doutputs)
        self.optimizer.step()
        return value, int(correct)
