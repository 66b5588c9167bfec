"""Checks of notebook 04: convolution, pooling, what a layer costs, the loss of a batch, Zhang's training step."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ...ops import softmax
from ..check import Wrong, compare, exercise, expect, numbers


def _windows(images, size: int, stride: int):
    """All windows of size x size over the last two axes, ``stride`` apart."""
    return sliding_window_view(images, (size, size), axis=(-2, -1))[..., ::stride, ::stride, :, :]


def _convolve(image, kernel, stride=1, padding=0):
    return np.sum(_windows(np.pad(image, padding), len(kernel), stride) * kernel, axis=(-2, -1))


@exercise("sharpen")
def sharpen(answer, rng):
    kernel = numbers(answer, "your kernel")
    if kernel.shape != (3, 3):
        raise Wrong(f"A kernel of shape (3, 3) is expected, yours has shape {kernel.shape}.")
    if not np.isclose(kernel.sum(), 1):
        raise Wrong(f"In an even grey of 0.5 your kernel gives {kernel.sum() / 2:.3g}; there it should change nothing.")
    image = rng.random(rng.integers(4, 9, 2))
    centre, got, all_nine = image[1:-1, 1:-1], _convolve(image, kernel), _convolve(image, np.ones((3, 3)))
    beside = _convolve(image, np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    faults = {
        "It gives the mean of the neighbours itself, so the picture gets softer, not sharper.": (all_nine - centre) / 8,
        "It counts the pixel among its neighbours: the mean is that of the other eight.": 2 * centre - all_nine / 9,
        "It counts four neighbours; those at the corners are neighbours, too.": 2 * centre - beside / 4,
        "It adds up the differences to four neighbours; wanted is the difference to the mean of all eight.": (
            5 * centre - beside
        ),
        "It adds up the differences to the eight neighbours; wanted is the difference to their mean.": (
            10 * centre - all_nine
        ),
    }
    for text, fault in faults.items():
        if np.allclose(got, fault):
            raise Wrong(text)
    expect(got, 2 * centre - (all_nine - centre) / 8, "the picture that your kernel makes")


def _pictures(rng):
    size, padding = rng.integers(2, 4, 2)
    image, kernel = rng.normal(size=rng.integers(5, 10, 2)), rng.normal(size=(size, size))
    return image, kernel, int(rng.integers(2, 4)), int(padding) - 1


def _closer(image, kernel, stride, padding):
    """As many windows as there should be, but one pixel apart."""
    rows, columns = _convolve(image, kernel, stride, padding).shape
    return _convolve(image, kernel, 1, padding)[:rows, :columns]


compare(
    "strided_convolution",
    cases=_pictures,
    reference=_convolve,
    faults={
        "The stride is left out: the windows lie one pixel apart.": lambda x, w, s, p: _convolve(x, w, 1, p),
        "The padding is left out.": lambda x, w, s, p: _convolve(x, w, s),
        "There are as many windows as there should be, but they lie one pixel apart.": _closer,
        "The padding lies on the first rows and columns only; the picture has four sides.": (
            lambda x, w, s, p: _convolve(np.pad(x, (p, 0)), w, s)
        ),
        "The picture is padded with its own border, not with zeros.": (
            lambda x, w, s, p: _convolve(np.pad(x, p, mode="edge"), w, s)
        ),
        "The kernel is turned by half a turn; in deep learning it is not.": (
            lambda x, w, s, p: _convolve(x, w[::-1, ::-1], s, p)
        ),
    },
)


def _pool(maps, size, keep=np.max):
    return keep(_windows(maps, size, size), axis=(-2, -1))


def _with_rest(maps, size):
    """Windows over the border, too, as if the maps went on."""
    wanting = [(0, -n % size) for n in maps.shape[1:]]
    return _pool(np.pad(maps, [(0, 0), *wanting], constant_values=-np.inf), size)


def _maps(rng):
    size = int(rng.integers(2, 5))
    rows, columns = size * rng.integers(1, 4, 2) + rng.integers(1, size, 2)  # never a whole number of windows
    lower = 3 * np.arange(rng.integers(2, 5))[:, None, None]  # so that some windows hold negative numbers only
    return rng.normal(size=(len(lower), rows, columns)) - lower, size


compare(
    "pool_by_hand",
    cases=_maps,
    reference=_pool,
    faults={
        "That is the mean of each window; max pooling keeps the largest number.": lambda x, k: _pool(x, k, np.mean),
        "The windows overlap; they should lie side by side.": lambda x, k: _windows(x, k, 1).max(axis=(-2, -1)),
        "The windows at the border hang over it; rows and columns that fill no whole window are left out.": _with_rest,
        "The largest number of all maps is kept; each map should be pooled alone.": lambda x, k: _pool(x, k).max(0),
        "The numbers lose their sign or start from 0: a window may hold negative numbers only.": (
            lambda x, k: np.maximum(_pool(x, k), 0)
        ),
    },
)


def _products(channels, filters, size, rows, columns):
    return filters * channels * size**2 * rows * columns


compare(
    "conv_costs",
    cases=lambda rng: tuple(int(n) for n in rng.integers(2, 30, 5)),
    reference=lambda c, f, k, r, w: (f * (c * k * k + 1), _products(c, f, k, r, w)),
    faults={
        "The biases are parameters, too.": lambda c, f, k, r, w: (f * c * k * k, _products(c, f, k, r, w)),
        "There is a bias for each filter, not one for all.": (
            lambda c, f, k, r, w: (f * c * k * k + 1, _products(c, f, k, r, w))
        ),
        "There is one bias for each filter, not for each of its tables.": (
            lambda c, f, k, r, w: (f * c * (k * k + 1), _products(c, f, k, r, w))
        ),
        "A filter has a table of weights for each channel.": (
            lambda c, f, k, r, w: (f * (k * k + 1), f * k * k * r * w)
        ),
        "The weights are shared: they are parameters once, however many places they are used at.": (
            lambda c, f, k, r, w: (f * (c * k * k + 1) * r * w, _products(c, f, k, r, w))
        ),
        "A bias is added and not multiplied: it is no multiply-add.": (
            lambda c, f, k, r, w: (f * (c * k * k + 1), f * (c * k * k + 1) * r * w)
        ),
        "Each weight is multiplied once at every place of the result.": (
            lambda c, f, k, r, w: (f * (c * k * k + 1), f * c * k * k)
        ),
    },
)


def _batch(rng):
    images, classes = rng.integers(2, 6, 2)
    return 2 * rng.normal(size=(images, classes)), np.eye(classes, dtype=np.int32)[rng.integers(0, classes, images)]


compare(
    "batch_cross_entropy",
    cases=_batch,
    reference=lambda z, t: -(softmax(z) * t).sum(dim=1).log().mean(),
    faults={
        "That is the sum of the losses; their mean is wanted.": lambda z, t: -(softmax(z) * t).sum(dim=1).log().sum(),
        "The mean runs over all numbers of the table; there is one loss for each image.": (
            lambda z, t: -(softmax(z).log() * t).mean()
        ),
        "There is one loss for each image; their mean is wanted.": lambda z, t: -(softmax(z) * t).sum(dim=1).log(),
        "The softmax runs down the columns; the probabilities of one image stand in one row.": (
            lambda z, t: -(softmax(z, dim=0) * t).sum(dim=1).log().mean()
        ),
        "The probabilities of the wrong classes count, too; the loss looks at the true class only.": (
            lambda z, t: -softmax(z).log().sum(dim=1).mean()
        ),
        "The logarithm is missing.": lambda z, t: -(softmax(z) * t).sum(dim=1).mean(),
    },
    gradient=True,
)


def _weights(rng):
    shape = rng.integers(1, 5, 2)
    return *rng.normal(size=(3, *shape)), *(float(rate) for rate in rng.uniform([0.02, 0.5, 0.1], [0.3, 0.95, 0.5]))


def _step(w, v, g, lr, momentum, weight_decay):
    v = momentum * v + (g + weight_decay * w)
    return w - lr * v, v


compare(
    "sgd_step_of_lenet",
    cases=_weights,
    reference=_step,
    faults={
        "The weight decay is left out.": lambda w, v, g, lr, m, d: _step(w, v, g, lr, m, 0),
        "The momentum is left out: v forgets the earlier gradients.": lambda w, v, g, lr, m, d: _step(
            w, v, g, lr, 0, d
        ),
        "The step goes uphill: the loss grows in the direction of the gradient.": (
            lambda w, v, g, lr, m, d: (2 * w - _step(w, v, g, lr, m, d)[0], _step(w, v, g, lr, m, d)[1])
        ),
        "The step uses the old v; compute the new one first.": (
            lambda w, v, g, lr, m, d: (w - lr * v, _step(w, v, g, lr, m, d)[1])
        ),
        "The weights decay away from 0: look at the sign of the weight decay.": (
            lambda w, v, g, lr, m, d: _step(w, v, g, lr, m, -d)
        ),
        "The results are in the wrong order: first the parameters, then v.": (
            lambda w, v, g, lr, m, d: _step(w, v, g, lr, m, d)[::-1]
        ),
        "The parameters move by the gradient alone; they should move by v.": (
            lambda w, v, g, lr, m, d: (w - lr * (g + d * w), _step(w, v, g, lr, m, d)[1])
        ),
        "The gradient is multiplied by 1 - momentum; here it counts in full.": (
            lambda w, v, g, lr, m, d: _step(w, v, (1 - m) * (g + d * w), lr, m, 0)
        ),
    },
)
