"""The checks of course/06_alexnet_cifar.ipynb."""

import numpy as np

from ..check import compare

# lrn_element: response normalisation across channels, one element


def _lrn(a, c, size, alpha, beta, k, reach=None, scale=None, power=2, square=True, root=None, low=0, high=0):
    half = size // 2 if reach is None else reach
    window = a[max(c - half - low, 0) : c + half + 1 + high]
    total = np.sum(window**2) if square else np.sum(np.abs(window))
    return a[c] / (k + (alpha / size if scale is None else scale) * total) ** (beta if root is None else root)


def _some_channels(rng):
    n, size = int(rng.integers(9, 20)), int(rng.choice([3, 5]))
    place = rng.choice([0, 1, n // 2, n - 1])  # at the borders the window is cut off
    return (rng.normal(size=n) * 3, int(place), size, rng.uniform(0.2, 2), rng.uniform(0.3, 0.9), rng.uniform(0.5, 2))


compare(
    "lrn_element",
    cases=_some_channels,
    reference=_lrn,
    tries=16,
    faults={
        "alpha counts for the mean of the squares: divide it by size.": lambda *a: _lrn(*a, scale=a[3]),
        "alpha is divided by the number of channels that the window really holds; divide by size, also at the border.":
            lambda a, c, size, alpha, beta, k: _lrn(
                a, c, size, alpha, beta, k, scale=alpha / len(a[max(c - size // 2, 0) : c + size // 2 + 1])
            ),
        "The window holds the channels before this one only: it reaches size // 2 to both sides.":
            lambda *a: _lrn(*a, high=-(a[2] // 2)),
        "The window holds the channels after this one only: it reaches size // 2 to both sides.":
            lambda *a: _lrn(*a, low=-(a[2] // 2)),
        "The window ends one channel too early: the last of a slice is not part of it.":
            lambda *a: _lrn(*a, high=-1),
        "The window is too wide: size is its whole width, not the reach to each side.":
            lambda *a: _lrn(*a, reach=a[2]),
        "At the border the window wraps around or becomes empty: a slice must not begin below 0.":
            lambda a, c, size, alpha, beta, k: a[c]
            / (k + alpha / size * np.sum(a[slice(c - size // 2, c + size // 2 + 1)] ** 2)) ** beta,
        "The activities are squared before they are added.": lambda *a: _lrn(*a, square=False),
        "The exponent beta is missing.": lambda *a: _lrn(*a, root=1),
        "k is missing: without it a quiet neighbourhood would be blown up.": lambda *a: _lrn(*a[:5], 0),
        "That is the divisor; the activity divided by it is asked for.": lambda *a: a[0][a[1]] / _lrn(*a),
        "That multiplies where it should divide.": lambda *a: a[0][a[1]] ** 2 / _lrn(*a),
    },
)  # fmt: skip


# crop_and_mirror: windows of a batch


def _crop(images, rows, columns, mirrored, size, axis=2):
    parts = [image[:, r : r + size, c : c + size] for image, r, c in zip(images, rows, columns)]
    return np.stack([np.flip(part, axis) if m else part for part, m in zip(parts, mirrored)])


def _some_pictures(rng):
    n, height, width, size = int(rng.integers(4, 8)), int(rng.integers(7, 10)), int(rng.integers(10, 13)), 5
    mirrored = rng.random(n) < 0.5
    mirrored[:2] = True, False
    rows, columns = rng.integers(0, height - size + 1, n), rng.integers(0, width - size + 1, n)
    rows[0], columns[0] = 1, 4  # so that a mirror before the cut shows
    return rng.random((n, 3, height, width)), rows, columns, mirrored, size


compare(
    "crop_and_mirror",
    cases=_some_pictures,
    reference=_crop,
    faults={
        "The mirror turns the pictures upside down: left and right are to be exchanged, the last axis.":
            lambda *a: _crop(*a, axis=1),
        "The mirror exchanges the colours: the channels are the first axis of a picture, the columns the last.":
            lambda *a: _crop(*a, axis=0),
        "All pictures are mirrored; only those where mirrored says so.":
            lambda i, r, c, m, s: _crop(i, r, c, np.ones_like(m), s),
        "No picture is mirrored.": lambda i, r, c, m, s: _crop(i, r, c, np.zeros_like(m), s),
        "The wrong ones are mirrored.": lambda i, r, c, m, s: _crop(i, r, c, ~m, s),
        "All windows begin where the first one does; each picture has its own row and column.":
            lambda i, r, c, m, s: _crop(i, np.full_like(r, r[0]), np.full_like(c, c[0]), m, s),
        "Rows and columns are exchanged: rows count along the height, the second axis of a picture.":
            lambda i, r, c, m, s: _crop_exchanged(i, r, c, m, s),
        "The pictures are mirrored before they are cut, so that the window lies elsewhere: cut first.":
            lambda i, r, c, m, s: np.stack(
                [(p[:, :, ::-1] if f else p)[:, a : a + s, b : b + s] for p, a, b, f in zip(i, r, c, m)]
            ),
    },
)  # fmt: skip


def _crop_exchanged(images, rows, columns, mirrored, size):
    """Windows with row and column exchanged, kept inside the picture so that they have the size."""
    height, width = images.shape[2:]
    rows, columns = np.minimum(columns, height - size), np.minimum(rows, width - size)
    return _crop(images, rows, columns, mirrored, size)


# inverted_dropout: with given chances


def _dropout(x, u, p, factor=None, drop=None):
    keep = u >= p if drop is None else ~drop
    return np.where(keep, x * (1 / (1 - p) if factor is None else factor), 0)


compare(
    "inverted_dropout",
    cases=lambda rng: (
        rng.normal(size=(shape := tuple(rng.integers(2, 7, 2)))) + 3, rng.random(shape), rng.choice([0.2, 0.3, 0.7]),
    ),
    reference=_dropout,
    faults={
        "The elements that stay must grow, else the sum that the next layer sees is smaller while training.":
            lambda x, u, p: _dropout(x, u, p, 1),
        "The elements that stay are multiplied by the share that stays; they must grow instead.":
            lambda x, u, p: _dropout(x, u, p, 1 - p),
        "They grow by the wrong share: a part 1 - p of them stays.": lambda x, u, p: _dropout(x, u, p, 1 / p),
        "The wrong ones are dropped: p is the chance of becoming 0.":
            lambda x, u, p: _dropout(x, u, p, drop=u >= p),
        "The wrong ones are dropped: p is the chance of becoming 0, and the others grow.":
            lambda x, u, p: _dropout(x, u, p, 1 / p, drop=u >= p),
        "Nothing is dropped.": lambda x, u, p: x / (1 - p),
        "That is the mask; x times the mask is asked for.": lambda x, u, p: _dropout(np.ones_like(x), u, p),
    },
)  # fmt: skip


# top_k_share: right among the k best


def _hits(logits, labels, k):
    return np.any(np.argsort(-logits, axis=1)[:, :k] == labels[:, None], axis=1)


def _some_logits(rng):
    n, classes = int(rng.integers(20, 40)), int(rng.integers(6, 10))
    logits, labels = rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    logits[np.arange(n), labels] += 0.7
    return logits, labels, int(rng.integers(2, 5))


compare(
    "top_k_share",
    cases=_some_logits,
    reference=lambda logits, labels, k: np.mean(_hits(logits, labels, k)),
    faults={
        "Those are the k smallest logits: argsort begins with the smallest.":
            lambda logits, labels, k: np.mean(_hits(-logits, labels, k)),
        "That is the number of hits; their share is asked for.": lambda *a: np.sum(_hits(*a)),
        "That is the error; the share of hits is asked for.": lambda *a: 1 - np.mean(_hits(*a)),
        "That is the top-1 accuracy: k plays no part in it.":
            lambda logits, labels, k: np.mean(_hits(logits, labels, 1)),
        "One class too many counts: k of them.": lambda logits, labels, k: np.mean(_hits(logits, labels, k + 1)),
        "One class too few counts: k of them.": lambda logits, labels, k: np.mean(_hits(logits, labels, k - 1)),
        "It says for each picture whether it is a hit; the share of hits is asked for.": _hits,
        "The hits are divided by k, too: a picture has one label, and is right or wrong.":
            lambda logits, labels, k: np.mean(_hits(logits, labels, k)) / k,
    },
)  # fmt: skip


# conv_parameters: of a convolution in groups


def _some_layer(rng):
    groups = int(rng.integers(2, 5))
    return groups * int(rng.integers(2, 9)), groups * int(rng.integers(2, 9)), int(rng.choice([1, 3, 5])), groups


compare(
    "conv_parameters",
    cases=_some_layer,
    reference=lambda i, o, k, g: o * (i // g) * k * k + o,
    faults={
        "The biases are missing: one for each filter.": lambda i, o, k, g: o * (i // g) * k * k,
        "That is without groups: a filter sees only the channels of its own group.":
            lambda i, o, k, g: o * i * k * k + o,
        "That is one group only; there are several.": lambda i, o, k, g: (o // g) * (i // g) * k * k + o // g,
        "Filters are shared out among the groups, their number stays: only the channels that each sees become fewer.":
            lambda i, o, k, g: (o // g) * (i // g) * k * k + o,
        "The biases do not become fewer: one for each filter, whatever the groups.":
            lambda i, o, k, g: o * (i // g) * k * k + o // g,
        "A filter has kernel_size rows and kernel_size columns.": lambda i, o, k, g: o * (i // g) * k + o,
        "There is one bias for each filter, not for each input channel.":
            lambda i, o, k, g: o * (i // g) * k * k + i,
    },
)  # fmt: skip


# alexnet_update: the paper's rule


def _update(w, v, gradient, lr, sign=-1, decay=0.0005, momentum=0.9, decay_rate=True, gradient_rate=True, old=False):
    new = momentum * v - decay * (lr if decay_rate else 1) * w + sign * (lr if gradient_rate else 1) * gradient
    return w + (v if old else new), new


def _torch_rule(w, v, gradient, lr):
    new = 0.9 * v + gradient + 0.0005 * w
    return w - lr * new, new


compare(
    "alexnet_update",
    cases=lambda rng: (*rng.normal(size=(3, int(rng.integers(3, 7)))) * [[300], [1], [1]], rng.uniform(0.05, 0.5)),
    reference=_update,
    tolerance=1e-7,
    faults={
        "The gradient has the wrong sign: the step goes downhill.": lambda *a: _update(*a, sign=1),
        "The decay has the wrong sign: it makes the weights smaller.": lambda *a: _update(*a, decay=-0.0005),
        "The decay is missing.": lambda *a: _update(*a, decay=0),
        "The decay is multiplied by lr, too.": lambda *a: _update(*a, decay_rate=False),
        "The gradient is multiplied by lr.": lambda *a: _update(*a, gradient_rate=False),
        "The momentum is missing: the velocity keeps 0.9 of its old value.": lambda *a: _update(*a, momentum=0),
        "The velocity keeps only 0.9 of its old value.": lambda *a: _update(*a, momentum=1),
        "The weights take the new velocity, not the old one.": lambda *a: _update(*a, old=True),
        "The velocity is subtracted; in the paper's rule it carries the sign already, and is added.":
            lambda w, v, g, lr: (w - (new := _update(w, v, g, lr)[1]), new),
        "That is PyTorch's rule, whose velocity holds no lr. The paper's velocity is a step: lr is in it.": _torch_rule,
        "Return the new weights first, then the new velocity.": lambda *a: _update(*a)[::-1],
    },
)  # fmt: skip


# scaling_efficiency: of a record beside another


def _efficiency(base_devices, base_seconds, devices, seconds):
    return (base_seconds / seconds) / (devices / base_devices)


compare(
    "scaling_efficiency",
    cases=lambda rng: (
        int(rng.integers(2, 9)), rng.uniform(5e4, 1e5), int(rng.integers(64, 512)), rng.uniform(500, 4000),
    ),
    reference=_efficiency,
    faults={
        "That is how many times faster it got; compare it with how many times more devices there are.":
            lambda b, bs, d, s: bs / s,
        "That is how many times more devices there are.": lambda b, bs, d, s: d / b,
        "It is upside down: an efficiency above 1 would mean that devices got faster by being many.":
            lambda *a: 1 / _efficiency(*a),
        "The small system has several devices, too: compare with their number.":
            lambda b, bs, d, s: bs / s / d,
        "The times are upside down: the longer one belongs to the small system.":
            lambda b, bs, d, s: s / bs / (d / b),
        "It is a share from 0 to 1, not in percent.": lambda *a: 100 * _efficiency(*a),
        "The numbers of devices are multiplied with the times on the wrong side: more devices, lower efficiency.":
            lambda b, bs, d, s: bs / s * d / b,
    },
)  # fmt: skip
