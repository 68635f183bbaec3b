"""Second names: the words that users of Keras and PyTorch know. This is the only table of them.

Capitals, "-" and "_" make no difference to a name in quotes: "SGD", "MeanSquaredError" and "one_cycle" are not listed. Second names of
classes are the class itself, and stand where the class is made public.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from gpucnn.layers.activations import ACTIVATIONS
from gpucnn.losses import LOSSES
from gpucnn.metrics import METRICS
from gpucnn.names import ARGUMENTS
from gpucnn.schedules import SCHEDULES

ARGUMENTS.update(
    {
        # of optimizers and schedules
        "lr": "learning_rate",
        "max_lr": "learning_rate",
        "initial_learning_rate": "learning_rate",
        "beta_1": "beta1",
        "beta_2": "beta2",
        "eps": "epsilon",
        "step_size": "every",
        "gamma": "factor",
        "decay_steps": "steps",
        "total_steps": "steps",
        # of layers
        "strides": "stride",
        "dilation_rate": "dilation",
        "kernel_initializer": "initializer",
        # of callbacks
        "restore_best_weights": "restore_best",
        "filepath": "path",
    }
)
ACTIVATIONS.also({"swish": "silu", "hard_silu": "hard_swish"})
LOSSES.also(
    {
        "sparse_categorical_crossentropy": "categorical_crossentropy",
        "cross_entropy": "categorical_crossentropy",
        "crossentropy": "categorical_crossentropy",
        "bce": "binary_crossentropy",
        "mse": "mean_squared_error",
        "cross_entropy_loss": "categorical_crossentropy",
        "bce_loss": "binary_crossentropy",
        "bce_with_logits_loss": "binary_crossentropy",
        "mse_loss": "mean_squared_error",
        "rmse": "root_mean_squared_error",
    }
)
METRICS.also(
    {
        "acc": "accuracy",
        "categorical_accuracy": "accuracy",
        "sparse_categorical_accuracy": "accuracy",
        "binary_accuracy": "accuracy",
        "top_k_categorical_accuracy": "top_5_accuracy",  # five is Keras's own k
        "sparse_top_k_categorical_accuracy": "top_5_accuracy",
    }
)
SCHEDULES.also({"step_decay": "step", "step_lr": "step", "one_cycle_lr": "one-cycle", "cosine_annealing_lr": "cosine"})

INSTEAD = {  # names from Keras and PyTorch that have no class here, and the alternative
    "Activation": "ReLU(), Tanh() and others are layers; other layers take activation=",
    "Add": "Residual(*layers) adds its input to the output of its layers",
    "BatchNorm2d": "BatchNorm2D() has no number of channels, which build finds",
    "BatchNormalization": "use BatchNorm2D; its momentum is the weight of the new batch, 1 − Keras's, and its eps is Keras's epsilon",
    "Concatenate": "Concat(*branches) joins the outputs of its branches",
    "Conv2d": "Conv2D(filters, kernel_size) has no number of channels that come in, which build finds",
    "CrossEntropyLoss": 'compile(loss="cross_entropy_loss"), or CategoricalCrossentropy(), takes class numbers and raw outputs',
    "ImageDataGenerator": 'fit(augment="shift") and the like change images as they are trained on',
    "LearningRateScheduler": "give the optimizer a schedule, or a function of the step, as its learning_rate",
    "Linear": "Dense(units) has no number of features that come in, which build finds",
    "MaxPool2d": "MaxPool2D takes the same arguments",
    "Model": "Sequential is the only kind of model; Residual and Concat are its layers for branches",
    "ModelCheckpoint": "Checkpoint(path) writes a run that can be resumed, model.save writes a model; EarlyStopping keeps the best",
    "Module": "Sequential is the only kind of model; Residual and Concat are its layers for branches",
    "Multiply": "only sums and joins are there, as Residual and Concat",
    "RMSprop": "the optimizers are SGD, Adam and AdamW",
    "ReduceLROnPlateau": "give the optimizer a schedule, such as Cosine, as its learning_rate",
    "Rescaling": "integer pixels are divided by 255 automatically",
    "SparseCategoricalAccuracy": 'metrics go by names, metrics=["accuracy"]',
    "TensorBoard": "CSVLog(path) writes a row for each epoch",
    "keras": "import gpucnn as keras: its layers, losses, optimizers and so on have Keras's names",
    "nn": "layers are in gpucnn.layers, and what works on arrays in gpucnn.functional",
}


def not_here(name: str, module: str = "gpucnn") -> str:
    """The message about a public name that does not exist."""
    told = f": {INSTEAD[name]}" if name in INSTEAD else ""
    return f"module {module!r} has no attribute {name!r}{told}"


def tell(*modules: ModuleType) -> None:
    """Makes modules give the same message about names that they do not have."""

    def tells(module: str) -> Callable[[str], Any]:
        def missing(name: str) -> Any:
            raise AttributeError(not_here(name, module))

        return missing

    for module in modules:
        vars(module)["__getattr__"] = tells(module.__name__)
