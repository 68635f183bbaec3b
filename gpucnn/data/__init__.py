"""Data sets, image files, and the mini-batches for training. Nothing here needs a GPU or the rest of gpucnn."""

from gpucnn.data.augment import Affine, Augmentation, CropFlip, Cutout, Elastic, RandomChange, Shift, augmentation
from gpucnn.data.batches import Batches
from gpucnn.data.dataset import Dataset, Request
from gpucnn.data.datasets import load_dataset, names
from gpucnn.data.download import Progress, UnavailableError, fetch
from gpucnn.data.idx import load_pair, read_idx, write_idx
from gpucnn.data.images import fit_channels, read_image

__all__ = [
    "Affine",
    "Augmentation",
    "Batches",
    "CropFlip",
    "Cutout",
    "Dataset",
    "Elastic",
    "Progress",
    "RandomChange",
    "Request",
    "Shift",
    "UnavailableError",
    "augmentation",
    "fetch",
    "fit_channels",
    "load_dataset",
    "load_pair",
    "names",
    "read_idx",
    "read_image",
    "write_idx",
]
