"""Ten kinds of drawn colour pictures: a stand-in for CIFAR-10 where no photos can be had."""

import functools

import numpy as np

from clnn.data.images import ImageDataset

# Each shape as a condition on (u, v), its own coordinates: about -1 to 1 across, v downwards
SHAPES = {
    "disc": lambda u, v: u**2 + v**2 < 1,
    "ring": lambda u, v: (0.35 < u**2 + v**2) & (u**2 + v**2 < 1),
    "crescent": lambda u, v: (u**2 + v**2 < 1) & ((u - 0.5) ** 2 + v**2 > 0.5),
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.85,
    "diamond": lambda u, v: abs(u) + abs(v) < 1.1,
    "triangle": lambda u, v: (v < 0.8) & (2 * abs(u) < v + 1),
    "plus": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1),
    "cross": lambda u, v: (np.minimum(abs(u + v), abs(u - v)) < 0.4) & (np.maximum(abs(u), abs(v)) < 0.9),
    "bars": lambda u, v: (np.sin(7 * u) > 0) & (np.maximum(abs(u), abs(v)) < 0.95),
    "checkerboard": lambda u, v: (np.sin(5 * u) * np.sin(5 * v) > 0) & (np.maximum(abs(u), abs(v)) < 0.95),
}
NAME = "drawn shapes, a stand-in for cifar10"
TRAIN, TEST, SIDE = 5000, 1000, 32


@functools.cache
def drawn_shapes() -> tuple[ImageDataset, ImageDataset]:
    """5,000 training and 1,000 test pictures 3x32x32 of ten kinds of shapes, always the same, in random order.

    Place, size, tilt, colours and noise vary. Returns (train, test).
    """
    rng = np.random.Generator(np.random.PCG64(10))
    labels = rng.permutation(np.arange(TRAIN + TEST) % len(SHAPES))
    images = np.empty((len(labels), 3, SIDE, SIDE), np.uint8)
    for label, inside in enumerate(SHAPES.values()):
        chosen = np.flatnonzero(labels == label)
        images[chosen] = _draw(inside, len(chosen), rng)
    return tuple(
        ImageDataset(images[part], labels[part], tuple(SHAPES), NAME, split, "drawn")
        for part, split in ((slice(TRAIN), "train"), (slice(TRAIN, None), "test"))
    )


def _draw(inside, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` pictures of one shape, from twice the pixels, so that edges are soft."""

    def drawn(low, high):
        return rng.uniform(low, high, (count, 1, 1))

    grid = (np.arange(2 * SIDE) + 0.5) / SIDE - 1  # -1 to 1 across the picture
    x, y = grid - drawn(-0.3, 0.3), grid[:, None] - drawn(-0.3, 0.3)
    angle, size = drawn(-0.3, 0.3), drawn(0.4, 0.75)
    u, v = (np.cos(angle) * x + np.sin(angle) * y) / size, (np.cos(angle) * y - np.sin(angle) * x) / size
    shape = inside(u, v).reshape(count, SIDE, 2, SIDE, 2).mean((2, 4), dtype=np.float32)[:, None]
    ground = rng.random((count, 3, 1, 1))
    ink = (ground + rng.uniform(0.35, 0.65, ground.shape)) % 1  # in each channel at least 0.35 away
    slope = rng.uniform(-0.15, 0.15, (count, 3, 1, 1)) * np.linspace(-1, 1, SIDE)  # light from one side
    noise = rng.normal(0, 0.08, (count, 3, SIDE, SIDE))
    return (np.clip(ground + (ink - ground) * shape + slope + noise, 0, 1) * 255).round().astype(np.uint8)
