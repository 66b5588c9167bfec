"""Readers of the binary formats of the course's image sets: idx (MNIST, Fashion-MNIST) and CIFAR-10.

Both are read whole and checked against what their own headers and sizes promise; nothing is unpickled.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from clnn.errors import DataError

CIFAR_SHAPE = (3, 32, 32)
CIFAR_RECORD = 1 + math.prod(CIFAR_SHAPE)  # one label byte, then the red, green and blue planes


def damaged(path: Path, found: str, expected: str) -> DataError:
    """The exception for a file whose content is not what it should be."""
    return DataError(
        f"{path}: found {found}, expected {expected}. Copy the official file there again, "
        "or unset CLNN_DATA to let clnn download it."
    )


def find_file(folder: Path, name: str) -> Path | None:
    """`folder/name`, plain or with `.gz`; None where neither exists."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where it starts as gzip does (whatever its name says).

    Raises DataError where it cannot be read or unpacked; gzip carries a CRC-32, so altered bytes are found.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, f"damaged gzip data ({error})", "a whole gzip file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Check the file and its permissions.") from error


def read_idx(path: Path, item_shape: tuple[int, ...]) -> np.ndarray:
    """Read an idx file of unsigned bytes: a read-only uint8 array of shape (n, *item_shape).

    The header is two zero bytes, 8 for "unsigned byte", the rank, then each size as a big-endian 32-bit
    integer (LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). Raises DataError where
    header, size and `item_shape` disagree, or where there is no item at all.
    """
    raw = read_bytes(path)
    rank = 1 + len(item_shape)
    start, magic = 4 * (1 + rank), bytes((0, 0, 8, rank))
    if raw[:4] != magic:
        raise damaged(path, f"first bytes {raw[:4].hex(' ') or 'none'}", f"the idx mark {magic.hex(' ')}")
    if len(raw) < start:
        raise damaged(path, f"a header of {len(raw)} bytes", f"{start} bytes")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=rank, offset=4))
    if shape[1:] != item_shape or shape[0] == 0:
        raise damaged(path, f"sizes {shape} in the header", f"at least one item of shape {item_shape}")
    if len(raw) - start != math.prod(shape):
        raise damaged(path, f"{len(raw) - start:,} bytes of data", f"{math.prod(shape):,} as the header says")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a CIFAR-10 `.bin` file: images (n, 3, 32, 32) and labels (n,), both read-only uint8.

    Each record is one label byte and 3,072 bytes of pixels (Krizhevsky, "Learning Multiple Layers of Features
    from Tiny Images", 2009). Raises DataError where the size is not a whole, positive number of records.
    """
    raw = read_bytes(path)
    if not raw or len(raw) % CIFAR_RECORD:
        raise damaged(path, f"{len(raw):,} bytes", f"a whole number of records of {CIFAR_RECORD:,} bytes")
    records = np.frombuffer(raw, np.uint8).reshape(-1, CIFAR_RECORD)
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE), records[:, 0]


def check_labels(path: Path, labels: np.ndarray, classes: int, count: int | None = None) -> None:
    """Raise DataError unless the labels are 0 ... classes - 1 and, where `count` is given, that many."""
    if labels.max() >= classes:
        at = int(np.argmax(labels >= classes))
        raise damaged(path, f"label {labels[at]} at record {at}", f"labels from 0 to {classes - 1}")
    if count is not None and len(labels) != count:
        raise damaged(path, f"{len(labels):,} labels", f"{count:,}, one for each image beside it")
