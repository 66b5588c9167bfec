"""Changes to a batch of images on their way to the device, each a function of (images, rng).

images is a float32 NumPy array of shape (n, channels, height, width); rng is a numpy.random.Generator that
depends only on the loader's seed, the epoch and the batch. A transform takes its chance from rng alone, so
that a resumed run sees the same bits, and returns an array of as many images.
"""

from collections.abc import Callable, Sequence

import numpy as np

from clnn.errors import ShapeError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Compose:
    """Apply several transforms one after the other, all with one rng."""

    def __init__(self, transforms: Sequence[Transform]):
        self.transforms = tuple(transforms)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            images = transform(images, rng)
        return images


class Invert:
    """Turn each image into its negative, 1 - x, with probability p (all of them by default).

    For pixels in [0, 1]. Raises ValueError unless 0 <= p <= 1.
    """

    def __init__(self, p: float = 1.0):
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; expected a probability from 0 to 1")
        self.p = p

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.random(len(images)) < self.p
        return np.where(chosen.reshape(-1, *[1] * (images.ndim - 1)), 1 - images, images)


class Normalize:
    """(x - mean) / std; each is a number, one number for each channel, or an array (channels, height, width).

    `Normalize(mean_image(train), 1 / 255)` subtracts the mean image and gives pixels on the scale of 0 to 255.
    Raises ValueError where a std is not positive, ShapeError where the sizes do not fit the images.
    """

    def __init__(self, mean, std):
        self.mean, self.std = (
            v if (v := np.asarray(given, np.float32)).ndim == 3 else v.reshape(-1, 1, 1) for given in (mean, std)
        )
        if not (self.std > 0).all():
            raise ValueError(f"std is {std}; expected positive numbers")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if any(n not in (1, size) for n, size in zip(values.shape, images.shape[-3:], strict=True)):
                channels, height, width = images.shape[-3:]
                what = f"{len(values)} values of {name}" if values.shape[1:] == (1, 1) else f"a {name} {values.shape}"
                raise ShapeError(f"Normalize has {what}; the images have {channels} channels of {height} x {width}")
        return (images - self.mean) / self.std


def mean_image(dataset) -> np.ndarray:
    """The mean of an ImageDataset's images: float32 (channels, height, width), from 0 to 1."""
    return (dataset.images.mean(axis=0) / 255).astype(np.float32)


class RandomHorizontalFlip:
    """Mirror each image, left to right, with probability p. Raises ValueError unless 0 <= p <= 1."""

    def __init__(self, p: float = 0.5):
        self.p = _probability(p)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.random(len(images)) < self.p
        return np.where(chosen[:, None, None, None], images[..., ::-1], images)


class RandomCrop:
    """Cut a window of size x size out of each image, at a place of its own; before that add a border of zeros.

    Raises ValueError for a size or padding below 1 or 0, ShapeError where the window does not fit.
    """

    def __init__(self, size: int, padding: int = 0):
        self.size, self.padding = size, padding
        if size < 1 or padding < 0:
            raise ValueError(f"size is {size} and padding {padding}; expected at least 1 and at least 0")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pad = self.padding
        images = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        places = _places(images, self.size)
        rows, columns = (rng.integers(0, n, len(images)) for n in places)
        windows = np.lib.stride_tricks.sliding_window_view(images, (self.size, self.size), axis=(2, 3))
        return windows[np.arange(len(images)), :, rows, columns]


class CenterCrop:
    """Cut the window of size x size out of the middle of each image. Raises ShapeError where it does not fit."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        row, column = ((n - 1) // 2 for n in _places(images, self.size))
        return images[..., row : row + self.size, column : column + self.size]


class TenCrop:
    """Ten views of each image: the four corners and the middle of size x size, and all five mirrored.

    Gives an array (n, 10, channels, size, size), for a net in ``clnn.modules.MeanOfViews``. Raises ShapeError where
    the window does not fit. Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    neural networks", 2012.
    """

    def __init__(self, size: int):
        self.size = size

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        s = self.size
        down, right = (n - 1 for n in _places(images, s))
        corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
        views = [images[..., i : i + s, j : j + s] for i, j in corners]
        return np.stack([*views, *(view[..., ::-1] for view in views)], axis=1)


class ColorJitter:
    """Multiply brightness, contrast and saturation of each colour image by random factors near 1.

    Each setting r draws factors from 1 - r to 1 + r; 0 changes nothing. Brightness scales the pixels; contrast
    scales their distance from the image's mean grey, saturation that from the pixel's own grey. Pixels stay
    in [0, 1]. Raises ValueError unless 0 <= r <= 1, ShapeError for images without three channels.
    """

    GREY = np.float32([0.299, 0.587, 0.114])  # how bright red, green and blue look (ITU-R BT.601)

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0):
        self.ranges = [_probability(r) for r in (brightness, contrast, saturation)]

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if images.shape[1] != 3:
            raise ShapeError(f"ColorJitter needs images of three channels, these are {images.shape}")
        brightness, contrast, saturation = (
            rng.uniform(1 - r, 1 + r, (len(images), 1, 1, 1)).astype(np.float32) for r in self.ranges
        )
        images = np.clip(images * brightness, 0, 1)
        grey = self._grey(images).mean(axis=(2, 3), keepdims=True)
        images = np.clip(grey + (images - grey) * contrast, 0, 1)
        grey = self._grey(images)
        return np.clip(grey + (images - grey) * saturation, 0, 1)

    def _grey(self, images: np.ndarray) -> np.ndarray:
        return np.einsum("nchw,c->nhw", images, self.GREY)[:, None]


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"{p} is out of range; expected a number from 0 to 1")
    return p


def _places(images: np.ndarray, size: int) -> tuple[int, int]:
    """In how many rows and columns a window may begin."""
    if not 1 <= size <= min(images.shape[-2:]):
        raise ShapeError(f"a window of {size} x {size} does not fit images of {images.shape[-2]} x {images.shape[-1]}")
    return images.shape[-2] - size + 1, images.shape[-1] - size + 1
