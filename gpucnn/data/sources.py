"""Data sets of four idx files each: where they are available, and how to verify them. These are only facts; gpucnn.data.mnist uses them.

MNIST           Y. LeCun, C. Cortes, C. Burges, CC BY-SA 3.0
Fashion-MNIST   Zalando Research (H. Xiao, K. Rasul, R. Vollgraf), MIT
Kuzushiji-MNIST T. Clanuwat and others, Center for Open Data in the Humanities, CC BY-SA 4.0
EMNIST          G. Cohen, S. Afshar, J. Tapson, A. van Schaik, from NIST Special Database 19
QMNIST          C. Yadav, L. Bottou, Facebook, BSD-style

SHA-256 is of the uncompressed file, MD5 of the .gz as it is published. MD5s are those that torchvision checks (KMNIST, QMNIST, EMNIST's
archive), and for EMNIST's single files those that Deeplearning4j's EmnistFetcher checks; the SHA-256 of QMNIST's labels was taken of files
with these MD5s.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DIGITS = tuple(string.digits)
BALANCED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")  # of EMNIST: where a small letter looks like the capital they are one


@dataclass(frozen=True)
class Archive:
    """One file that contains the four, and possibly those of other sets."""

    name: str
    folder: str  # that it is put into
    mirrors: tuple[str, ...]
    md5: str
    inside: str  # the prefix of the files' names in it


@dataclass(frozen=True)
class Source:
    """One data set in four idx files."""

    name: str
    title: str
    mirrors: tuple[str, ...]  # prefixes of a file's name with .gz
    sha256: tuple[str | None, ...]  # of the uncompressed files, in the order of `files`; None if unknown
    train_shape: tuple[int, int, int]
    test_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    files: tuple[str, ...] = FILES
    md5: tuple[str | None, ...] = (None,) * 4  # of the .gz files as they are published
    folders: tuple[str, ...] = ()  # other names of its folder
    archive: Archive | None = None
    first: int = 0  # the least label
    even: bool = False  # every class has the same number of images
    upright: bool = True  # or rows and columns are exchanged in the files


EMNIST = Archive(
    name="gzip.zip",
    folder="emnist",
    mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip"),
    md5="58c8d27c78d21e728a6bc7b3cc06412e",
    inside="gzip/",
)


def _emnist(split: str, train: int, test: int, names: tuple[str, ...], md5: tuple[str, ...], first: int = 0, copy: bool = False) -> Source:
    return Source(
        name=f"emnist-{split}",
        title=f"EMNIST {split.capitalize()}",
        # A copy of the single files, which saves downloading the archive of half a gigabyte.
        mirrors=(f"https://huggingface.co/datasets/Royc30ne/emnist-{split}/resolve/main/",) if copy else (),
        sha256=(None,) * 4,
        train_shape=(train, 28, 28),
        test_shape=(test, 28, 28),
        class_names=names,
        files=tuple(f"emnist-{split}-{part}-{kind}-ubyte" for part in ("train", "test") for kind in ("images-idx3", "labels-idx1")),
        md5=md5,
        folders=("emnist", "EMNIST/raw", "EMNIST/raw/gzip", "emnist/gzip", "gzip"),
        archive=EMNIST,
        first=first,
        even=True,
        upright=False,
    )


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="mnist",
            title="MNIST",
            mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
            sha256=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            train_shape=(60000, 28, 28),
            test_shape=(10000, 28, 28),
            class_names=DIGITS,
            folders=("MNIST/raw",),
        ),
        Source(
            name="fashion-mnist",
            title="Fashion-MNIST",
            mirrors=(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            ),
            sha256=(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            train_shape=(60000, 28, 28),
            test_shape=(10000, 28, 28),
            class_names=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            folders=("FashionMNIST/raw",),
        ),
        Source(
            name="kmnist",
            title="Kuzushiji-MNIST",
            mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
            sha256=(None,) * 4,
            train_shape=(60000, 28, 28),
            test_shape=(10000, 28, 28),
            class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            md5=(
                "bdb82020997e1d708af4cf47b453dcf7",
                "e144d726b3acfaa3e44228e80efcd344",
                "5c965bf0a639b31b8f53240b1b52f4d7",
                "7320c461ea6c1c855c0b718fb2a4b134",
            ),
            folders=("KMNIST/raw",),
            even=True,
        ),
        _emnist(
            "letters",
            124_800,
            20_800,
            tuple(string.ascii_lowercase),
            (
                "8795078f199c478165fe18db82625747",
                "c16de4f1848ddcdddd39ab65d2a7be52",
                "382093a19703f68edac6d01b8dfdfcad",
                "d4108920cd86601ec7689a97f2de7f59",
            ),
            first=1,
            copy=True,
        ),
        _emnist(
            "digits",
            240_000,
            40_000,
            DIGITS,
            (
                "d2662ecdc47895a6bbfce25de9e9a677",
                "2223fcfee618ac9c89ef20b6e48bcf9e",
                "a159b8b3bd6ab4ed4793c1cb71a2f5cc",
                "8afde66ea51d865689083ba6bb779fac",
            ),
        ),
        _emnist(
            "balanced",
            112_800,
            18_800,
            BALANCED,
            (
                "4041b0d6f15785d3fa35263901b5496b",
                "7a35cc7b2b7ee7671eddf028570fbd20",
                "6818d20fe2ce1880476f747bbc80b22b",
                "acd3694070dcbf620e36670519d4b32f",
            ),
            copy=True,
        ),
        Source(
            name="qmnist",
            title="QMNIST",
            mirrors=(
                "https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
                "https://github.com/facebookresearch/qmnist/raw/master/",
            ),
            sha256=(
                None,
                "bb1b6e1ec7b04fd5696f1ed50b5f58f8ef195118edd5c93c81783df9740b8ac5",
                None,
                "92d0ccb8c25f9c6534270fb4be7e1d24a1c6d315edfc8a638bfbd31c70f362dd",
            ),
            train_shape=(60000, 28, 28),
            test_shape=(60000, 28, 28),
            class_names=DIGITS,
            files=(
                "qmnist-train-images-idx3-ubyte",
                "qmnist-train-labels-idx2-int",
                "qmnist-test-images-idx3-ubyte",
                "qmnist-test-labels-idx2-int",
            ),
            md5=(
                "ed72d4157d28c017586c42bc6afe6370",
                "0058f8dd561b90ffdd0f734c6a30e5e4",
                "1394631089c404de565df7b7aeaf9412",
                "5b5b05890a5e13444e108efe57b788aa",
            ),
            folders=("QMNIST/raw",),
        ),
    )
}
