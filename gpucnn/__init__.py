"""gpucnn: a small CNN library whose CUDA kernels are plain Python, and which runs on NumPy where there is no GPU.

import gpucnn as gc

model = gc.Sequential(gc.Conv2D(32, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(10))
model.build((1, 28, 28), seed=0, device="auto")
model.compile(optimizer=gc.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, batch_size=128, epochs=5)
"""

from gpucnn import starting as _starting  # isort: skip  # noqa: F401
from gpucnn import data, functional, initializers, layers, losses, metrics, optimizers, schedules, words
from gpucnn.data import load_dataset
from gpucnn.device import get_device, to_numpy
from gpucnn.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceError,
    GpucnnError,
    MissingExtraError,
    ShapeError,
    TrainingError,
    UnknownNameError,
)
from gpucnn.layers import (
    ELU,
    GELU,
    AveragePooling2D,
    AvgPool2D,
    BatchNorm2D,
    Concat,
    Conv2D,
    Convolution2D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Input,
    Layer,
    LeakyReLU,
    LocallyConnected2D,
    MaxPool2D,
    MaxPooling2D,
    Parameter,
    ReLU,
    Residual,
    SavedArray,
    SeparableConv2D,
    Sigmoid,
    SiLU,
    Softmax,
    Stack,
    Tanh,
    ZeroPad2D,
)
from gpucnn.layers.blocks import depthwise_block, inception, residual_block
from gpucnn.losses import BinaryCrossentropy, CategoricalCrossentropy, Loss, MeanSquaredError, SparseCategoricalCrossentropy
from gpucnn.model import Sequential, load
from gpucnn.networks import network
from gpucnn.optimizers import SGD, Adam, AdamW, Optimizer
from gpucnn.registry import register
from gpucnn.schedules import Constant, Cosine, OneCycle, Schedule, StepDecay
from gpucnn.training.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, History, Progress

__version__ = "0.1.0"

__all__ = [
    "ELU",
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "ArgumentError",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNorm2D",
    "BinaryCrossentropy",
    "CSVLog",
    "Callback",
    "CategoricalCrossentropy",
    "Checkpoint",
    "CheckpointError",
    "Concat",
    "Constant",
    "Conv2D",
    "ConvTranspose2D",
    "Convolution2D",
    "Cosine",
    "DataError",
    "Dense",
    "DepthwiseConv2D",
    "DeviceError",
    "Dropout",
    "EarlyStopping",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GpucnnError",
    "History",
    "Input",
    "Layer",
    "LeakyReLU",
    "LocallyConnected2D",
    "Loss",
    "MaxPool2D",
    "MaxPooling2D",
    "MeanSquaredError",
    "MissingExtraError",
    "OneCycle",
    "Optimizer",
    "Parameter",
    "Progress",
    "ReLU",
    "Residual",
    "SavedArray",
    "Schedule",
    "SeparableConv2D",
    "Sequential",
    "ShapeError",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SparseCategoricalCrossentropy",
    "Stack",
    "StepDecay",
    "Tanh",
    "TrainingError",
    "UnknownNameError",
    "ZeroPad2D",
    "__version__",
    "data",
    "depthwise_block",
    "functional",
    "get_device",
    "inception",
    "initializers",
    "layers",
    "load",
    "load_dataset",
    "losses",
    "metrics",
    "network",
    "optimizers",
    "register",
    "residual_block",
    "schedules",
    "to_numpy",
    "words",
]
