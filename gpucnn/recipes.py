"""The defaults of `gpucnn train`: a recipe that trains the reference networks well in a few epochs."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.checks import COUNT, fraction, integer, positive
from gpucnn.data import Augmentation
from gpucnn.data import augment as augmentations
from gpucnn.optimizers import OPTIMIZERS, Optimizer
from gpucnn.schedules import SCHEDULES


@dataclass(frozen=True)
class Length:
    """The defaults that depend on the number of images."""

    epochs: int
    batch_size: int
    augment: str
    validation: float


FEW = 10_000  # training images; with fewer, a handful of epochs would be a handful of steps
USUAL = Length(epochs=5, batch_size=128, augment="shift", validation=0.0)
OF_FEW = Length(epochs=40, batch_size=32, augment="affine", validation=0.1)


@dataclass(frozen=True)
class Recipe:
    """How to train a network. `learning_rate` is the peak of the schedule; `validation` is the fraction of training images held out for
    validation, or None if the data set has a validation part of its own."""

    optimizer: str
    learning_rate: float
    schedule: str
    epochs: int
    batch_size: int
    augment: str
    validation: float | None

    def make_optimizer(self, steps: int) -> Optimizer:
        """The optimizer, with its schedule for `steps` steps."""
        kind = OPTIMIZERS.pick(self.optimizer)
        return kind(SCHEDULES.pick(self.schedule).over(self.learning_rate, steps), **kind.recipe)

    def make_augment(self, side: int) -> Augmentation | None:
        """The augmentation for images whose shorter side has `side` pixels."""
        return augmentations.for_images(self.augment, side)


@dataclass(frozen=True)
class OpenRecipe:
    """A recipe as the user requested it, checked. A field that is None gets its default from the data set, the learning rate from the
    optimizer.

    Raises UnknownNameError for unknown names, ArgumentError or TypeError for invalid numbers.
    """

    optimizer: str = "adam"
    learning_rate: float | None = None
    schedule: str = "one-cycle"
    epochs: int | None = None
    batch_size: int | None = None
    augment: str | None = None
    validation: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):  # the registered names, however they were spelt
            object.__setattr__(self, name, known.first(getattr(self, name)))
        if self.augment is not None:
            object.__setattr__(self, "augment", augmentations.choices().first(self.augment))
        if self.learning_rate is not None:
            positive(self.learning_rate, "learning rate")
        if self.epochs is not None:
            integer(self.epochs, "epochs", 1, most=COUNT)
        if self.batch_size is not None:
            integer(self.batch_size, "batch size", 1, most=COUNT)
        if self.validation is not None:
            fraction(self.validation, "validation")

    def for_size(self, images: int, *, own: bool = False) -> Recipe:
        """The recipe for this number of training images. own: the data set is the user's, so it has few test images too."""
        length = OF_FEW if images < FEW else USUAL
        return Recipe(
            optimizer=self.optimizer,
            learning_rate=OPTIMIZERS.pick(self.optimizer).peak if self.learning_rate is None else float(self.learning_rate),
            schedule=self.schedule,
            epochs=self.epochs or length.epochs,
            batch_size=self.batch_size or length.batch_size,
            augment=self.augment or length.augment,
            validation=float(self.validation if self.validation is not None else OF_FEW.validation if own else length.validation),
        )


def optimizers_text() -> str:
    """The optimizers and the arguments that a recipe sets for each, for a help text."""
    return ", ".join(
        name + (f" ({', '.join(f'{setting} {value}' for setting, value in kind.recipe.items())})" if kind.recipe else "")
        for name, kind in OPTIMIZERS.items()
    )


def rates_text() -> str:
    """The default peak learning rate of each optimizer, for a help text."""
    return ", ".join(f"{name} {kind.peak:g}" for name, kind in OPTIMIZERS.items())


def default_text(what: str) -> str:
    """The default of one field of `Length`, for a help text."""
    usual, few = (f"{value:g}" if isinstance(value, float) else value for value in (getattr(USUAL, what), getattr(OF_FEW, what)))
    return f"[default: {usual}; {few} for under {FEW:,} images]"
