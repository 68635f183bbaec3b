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
from gpucnn.names import ARGUMENTS, NO_ARGUMENT, NO_ATTRIBUTE
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
        "bias": "use_bias",
        "p": "rate",
        "alpha": "negative_slope",
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

DECAY = "weight decay is the optimizer's: SGD(weight_decay=5e-4), AdamW()"
CLIPPED = "global_clipnorm limits the norm of all gradients together"
LOADED = "give fit a loader that prepares batches in processes of its own"
SIZES = "build finds the sizes of the input"
NO_ARGUMENT.update(
    {
        "activity_regularizer": DECAY,
        "amsgrad": "its second moment is Adam's own",
        "betas": "give beta1=0.9, beta2=0.999",
        "bias_initializer": "biases start at zero",
        "bias_regularizer": DECAY,
        "clipnorm": CLIPPED,
        "clipvalue": CLIPPED,
        "data_format": "build and fit take it",
        "decay": "give a schedule, such as Cosine, as learning_rate",
        "dtype": "build takes it",
        "initial_epoch": "a further call of fit continues where the last one ended, for epochs more; resume= takes a checkpoint",
        "in_channels": SIZES,
        "in_features": SIZES,
        "input_dim": SIZES,
        "jit_compile": "everything is compiled in any case",
        "kernel_constraint": "weights are not constrained",
        "kernel_regularizer": DECAY,
        "loss_weights": "there is one loss; class_weight and sample_weight of fit weigh examples",
        "max_queue_size": LOADED,
        "name": "layers are named by their kind and number, such as model['conv2d_1']",
        "num_features": SIZES,
        "run_eagerly": "a callback sees each step, and GPUCNN_GRAPHS=0 in the environment records none",
        "sample_weight": "weights are for training, in fit and train_on_batch",
        "steps": "give as many batches as you want to measure",
        "trainable": "set layer.trainable = False",
        "use_multiprocessing": LOADED,
        "validation_batch_size": "validation has the batch_size of the training",
        "validation_freq": "validation follows each epoch; call fit for the epochs between, and then evaluate",
        "validation_steps": "all of validation_data is measured: give fewer batches",
        "verbose": "fit(verbose=) shows or hides progress",
        "weighted_metrics": "metrics are not weighted: metrics=[...]",
        "workers": LOADED,
    }
)
WEIGHTS = "model.parameters has the arrays by name, and assigning to model.parameters[name] changes one"
PLACED = 'the device is chosen when the model is built, build(..., device="cuda")'
NO_ATTRIBUTE.update(
    {
        "count_params": "model.parameter_count is their number",
        "cpu": PLACED,
        "cuda": PLACED,
        "eval": "forward and predict are those of evaluation, unless forward is called with training=True",
        "fit_generator": "fit takes batches (x, y) from a generator, with steps_per_epoch",
        "get_config": "config() describes it",
        "get_layer": 'model["dense_1"] is the layer of that name',
        "get_weights": WEIGHTS,
        "input": 'features(x, "conv2d_1") is the output of a layer',
        "kernel": "weight is its name: (filters, channels/groups, rows, columns), or (units, features)",
        "load_state_dict": "assign to model.parameters[name], or read a file with model.load_parameters(path)",
        "load_weights": "load_parameters(path) reads what save(path) wrote",
        "metrics_names": "evaluate(x, y, return_dict=True) names its results",
        "named_parameters": "parameters is a dict of them by name",
        "output": 'features(x, "conv2d_1") is the output of a layer',
        "param_groups": "all parameters have one learning_rate, and a number or a schedule can be assigned to it",
        "pop": "make a new model of its layers, Sequential(*model.layers[:-1]).build(...): they keep their weights",
        "predict_classes": "predict(x).argmax(axis=1) are the classes",
        "predict_on_batch": "predict(x) takes any number of examples",
        "save_weights": "save(path) writes the model",
        "set_weights": WEIGHTS,
        "state_dict": f"{WEIGHTS}; model.save(path) writes all of them",
        "test_on_batch": "evaluate(x, y) takes any number of examples",
        "to": PLACED,
        "to_json": "config() describes it",
        "train": "fit trains; forward(x, training=True) is the pass that backward needs",
        "trainable_variables": WEIGHTS,
        "trainable_weights": WEIGHTS,
        "variables": WEIGHTS,
        "weights": WEIGHTS,
        "zero_grad": "optimizer.zero_grad() resets the gradients",
    }
)

INSTEAD = {  # names from Keras and PyTorch that have no class here, and the alternative
    "Activation": "ReLU(), Tanh() and others are layers; other layers take activation=",
    "Adadelta": "the optimizers are SGD, Adam, AdamW and RMSprop",
    "Adagrad": "the optimizers are SGD, Adam, AdamW and RMSprop",
    "adaptive_avg_pool2d": "global_avg_pool2d is the one for an output of one pixel",
    "Add": "Residual(*layers) adds its input to the output of its layers",
    "BatchNorm2d": "BatchNorm2D() has no number of channels, which build finds",
    "BatchNormalization": "use BatchNorm2D; its momentum is the weight of the new batch, 1 − Keras's, and its eps is Keras's epsilon",
    "clip_grad_norm_": "optimizers take global_clipnorm, the largest norm of all gradients together",
    "clip_grad_value_": "optimizers take global_clipnorm, the largest norm of all gradients together",
    "Concatenate": "Concat(*branches) joins the outputs of its branches",
    "Conv2d": "Conv2D(filters, kernel_size) has no number of channels that come in, which build finds",
    "CosineAnnealingLR": "Cosine(learning_rate, steps) is one, counted in steps",
    "CosineDecay": "Cosine(learning_rate, steps) is one",
    "cross_entropy": "softmax_cross_entropy(logits, labels) returns the loss and its gradient",
    "CrossEntropyLoss": 'compile(loss="cross_entropy_loss"), or CategoricalCrossentropy(), takes class numbers and raw outputs',
    "CSVLogger": "CSVLog(path) writes a row for each epoch",
    "DataLoader": "fit takes arrays, or batches (x, y) from any data loader",
    "Dropout2d": "Dropout(rate) drops single values",
    "ExponentialDecay": "give a function of the step as learning_rate, such as lambda step: 0.1 * 0.96 ** (step / 1000)",
    "GlorotUniform": 'initializers go by names, initializer="glorot_uniform"',
    "HeNormal": 'initializers go by names, initializer="he_normal"',
    "image_dataset_from_directory": "load_dataset(folder) reads images in folders named after their classes",
    "ImageDataGenerator": 'fit(augment="shift") and the like change images as they are trained on',
    "keras": "import gpucnn as keras: its layers, losses, optimizers and so on have Keras's names",
    "LearningRateScheduler": "give the optimizer a schedule, or a function of the step, as its learning_rate",
    "Linear": "Dense(units) has no number of features that come in, which build finds",
    "linear": "dense(x, weight, bias) is one",
    "log_softmax": "softmax_cross_entropy takes the raw outputs; softmax are the probabilities",
    "manual_seed": "build(..., seed=0) and fit(..., seed=0) take it",
    "MaxPool2d": "MaxPool2D takes the same arguments",
    "Model": "Sequential is the only kind of model; Residual and Concat are its layers for branches",
    "ModelCheckpoint": "Checkpoint(path) writes a run that can be resumed, model.save writes a model; EarlyStopping keeps the best",
    "Module": "Sequential is the only kind of model; Residual and Concat are its layers for branches",
    "Multiply": "only sums and joins are there, as Residual and Concat",
    "MultiStepLR": "give a function of the step as learning_rate",
    "nll_loss": "softmax_cross_entropy(logits, labels) returns the loss and its gradient",
    "nn": "layers are in gpucnn.layers, and what works on arrays in gpucnn.functional",
    "no_grad": "forward keeps nothing for backward, unless it is told that it trains",
    "Normalization": "subtract the mean from the images, or begin with BatchNorm2D()",
    "RandomCrop": 'fit(augment="crop-flip") and the like change images as they are trained on',
    "RandomFlip": 'fit(augment="crop-flip") and the like change images as they are trained on',
    "ReduceLROnPlateau": "give the optimizer a schedule, such as Cosine, or let a Callback set run.optimizer.learning_rate",
    "regularizers": "weight decay is the optimizer's: SGD(weight_decay=5e-4), AdamW()",
    "Rescaling": "integer pixels are divided by 255 automatically",
    "set_random_seed": "build(..., seed=0) and fit(..., seed=0) take it",
    "SparseCategoricalAccuracy": 'metrics go by names, metrics=["accuracy"]',
    "StepLR": "StepDecay(learning_rate, every, factor) is one, counted in steps",
    "TensorBoard": "CSVLog(path) writes a row for each epoch",
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
