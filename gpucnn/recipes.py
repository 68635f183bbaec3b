"""What `gpucnn train` does unless told otherwise: for each reference network the recipe that trains it well in a few epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.checks import integer, pick, positive
from gpucnn.data import Affine, Augmentation, Shift
from gpucnn.data.augment import CropFlip, Cutout, Elastic
from gpucnn.optimizers import SGD, Adam, AdamW, Optimizer
from gpucnn.schedules import Constant, Cosine, OneCycle, Schedule, StepDecay

OPTIMIZERS: dict[str, Callable[[Schedule], Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": lambda schedule: SGD(schedule, momentum=0.9, nesterov=True),
}
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda rate, steps: Constant(rate),
    "step": lambda rate, steps: StepDecay(rate, every=max(1, steps // 3), factor=0.1),
    "cosine": Cosine,
    "one-cycle": OneCycle,
}

SMALL = 10_000  # training images: below it, a handful of epochs is a handful of steps


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: `learning_rate` is the peak of the schedule."""

    optimizer: str
    learning_rate: float
    schedule: str
    epochs: int
    batch_size: int
    augment: str

    def make_optimizer(self, steps: int) -> Optimizer:
        """The optimizer, with its schedule laid over `steps` steps."""
        schedule = pick(self.schedule, SCHEDULES, "schedule")(self.learning_rate, steps)
        return pick(self.optimizer, OPTIMIZERS, "optimizer")(schedule)


@dataclass(frozen=True)
class OpenRecipe:
    """A recipe as it was asked for: what is None depends on the data set."""

    optimizer: str
    learning_rate: float
    schedule: str
    epochs: int | None = None
    batch_size: int | None = None
    augment: str | None = None

    def for_size(self, images: int) -> Recipe:
        """The recipe for so many training images."""
        small = images < SMALL
        return Recipe(
            self.optimizer,
            self.learning_rate,
            self.schedule,
            epochs=self.epochs or (40 if small else 5),
            batch_size=self.batch_size or (32 if small else 128),
            augment=self.augment or ("affine" if small else "shift"),
        )


LEARNING_RATES = {"adam": 2e-3, "adamw": 2e-3, "sgd": 0.05}  # at the schedule's peak
AUGMENTATIONS: dict[str, Callable[[int], Augmentation | None]] = {  # by the shorter side of the images
    "none": lambda side: None,
    "shift": lambda side: Shift(max(1, side // 28)),
    "affine": lambda side: Affine(side / 16, 8.0, 0.08),
    "elastic": lambda side: Elastic(side / 16, 5, side / 28, 8.0, 0.08),
    "crop-flip": lambda side: CropFlip(max(1, side // 8)),
    "cutout": lambda side: Cutout(max(1, side // 2)),
}


def recipe(
    optimizer: str, learning_rate: float | None, schedule: str, epochs: int | None, batch_size: int | None, augment: str | None
) -> OpenRecipe:
    """A recipe of these names and numbers, checked; without a learning rate, the one that goes with the optimizer."""
    pick(optimizer, OPTIMIZERS, "optimizer")
    pick(schedule, SCHEDULES, "schedule")
    if augment is not None:
        pick(augment, AUGMENTATIONS, "augmentation")
    return OpenRecipe(
        optimizer,
        LEARNING_RATES[optimizer] if learning_rate is None else positive(learning_rate, "learning rate"),
        schedule,
        None if epochs is None else integer(epochs, "epochs", 1),
        None if batch_size is None else integer(batch_size, "batch size", 1),
        augment,
    )
