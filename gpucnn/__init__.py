"""gpucnn: a small CNN library whose CUDA kernels are plain Python, and which runs on compiled CPU loops or NumPy without a GPU.

import gpucnn as gc

model = gc.Sequential(gc.Conv2D(32, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(10))
model.build((1, 28, 28), seed=0, device="auto")
model.compile(optimizer=gc.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(images, labels, batch_size=128, epochs=5)
"""

from gpucnn import starting as _starting  # isort: skip  # noqa: F401
import types as _types
import typing as _typing

from gpucnn import data as data
from gpucnn import datasets as datasets
from gpucnn import functional as functional
from gpucnn import initializers as initializers
from gpucnn import layers as layers
from gpucnn import losses as losses
from gpucnn import metrics as metrics
from gpucnn import model as models
from gpucnn import optimizers as optimizers
from gpucnn import schedules as schedules
from gpucnn import utils as utils
from gpucnn import words as words
from gpucnn.data import load_dataset as load_dataset
from gpucnn.device import get_device as get_device
from gpucnn.device import to_numpy as to_numpy
from gpucnn.errors import *
from gpucnn.layers.base import Layer as Layer
from gpucnn.layers.base import Parameter as Parameter
from gpucnn.layers.base import SavedArray as SavedArray
from gpucnn.layers.kinds import *
from gpucnn.losses import *
from gpucnn.model import Sequential as Sequential
from gpucnn.model import load as load
from gpucnn.networks import network as network
from gpucnn.optimizers import *
from gpucnn.precision import get_float32_matmul_precision as get_float32_matmul_precision
from gpucnn.precision import set_float32_matmul_precision as set_float32_matmul_precision
from gpucnn.registry import register as register
from gpucnn.schedules import *
from gpucnn.training import callbacks as callbacks
from gpucnn.training.callbacks import *

__version__ = "0.2.0"

_MODULES = (
    "callbacks",
    "data",
    "datasets",
    "functional",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "schedules",
    "utils",
    "words",
)
if not _typing.TYPE_CHECKING:  # type checkers and editors go by the imports above
    __all__ = [name for name, thing in vars().items() if name[0] != "_" and (name in _MODULES or not isinstance(thing, _types.ModuleType))]
    __all__ += ["__version__"]

    def __getattr__(name: str) -> _typing.Any:
        raise AttributeError(words.not_here(name))

    words.tell(callbacks, functional, initializers, layers, losses, metrics, models, optimizers, schedules, utils)
