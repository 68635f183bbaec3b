"""A training run that writes to a folder, the implementation of `gpucnn train`.

    checkpoint.safetensors  the run, to go on from        history.csv    a line per epoch
    model.safetensors       the trained model             curves.png     loss and accuracy over the epochs
    filters.png             the first layer's filters     confusion.png  which class was predicted as which
    features.png            an image and its feature maps    mistakes.png   the worst mistakes among the test images
    report.csv              a line per class                README.md      the model card

model.safetensors is written when training has ended, before the pictures: if it exists, the run is complete. One process at a time
writes to the folder.
"""

from gpucnn.experiment.data import load_data
from gpucnn.experiment.folder import FILES, StoppedError
from gpucnn.experiment.options import OPTIONS, Options, run_notes
from gpucnn.experiment.run import Outcome, devices, train
from gpucnn.experiment.trained import (
    check_fits,
    class_count,
    class_names,
    class_probabilities,
    compiled,
    fit_to,
    model_file,
    noted_background,
    run_files,
    taken_size,
    trained_on,
)

__all__ = [
    "FILES",
    "OPTIONS",
    "Options",
    "Outcome",
    "StoppedError",
    "check_fits",
    "class_count",
    "class_names",
    "class_probabilities",
    "compiled",
    "devices",
    "fit_to",
    "load_data",
    "model_file",
    "noted_background",
    "run_files",
    "run_notes",
    "taken_size",
    "train",
    "trained_on",
]
