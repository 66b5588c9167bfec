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
    """(x - mean) / std for each channel; mean and std are numbers, or one number for each channel.

    Raises ValueError where a std is not positive, ShapeError where the number of channels differs.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]):
        self.mean, self.std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (mean, std))
        if not (self.std > 0).all():
            raise ValueError(f"std is {std}; expected positive numbers")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        channels = images.shape[-3]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ShapeError(f"Normalize has {len(values)} values of {name}; the images have {channels} channels")
        return (images - self.mean) / self.std
