"""Solutions of 06_alexnet_cifar.ipynb: each takes the place of its exercise's skeleton."""

import numpy as np


# %% exercise:lrn_element
def lrn_element(a, c, size, alpha, beta, k):
    """Channel c of the activities a (one number a channel) after response normalisation; size is odd."""
    window = a[max(c - size // 2, 0) : c + size // 2 + 1]
    return a[c] / (k + alpha / size * np.sum(window**2)) ** beta


# %% exercise:crop_and_mirror
def crop_and_mirror(images, rows, columns, mirrored, size):
    """One window of size x size of each image (n, channels, height, width), some of them mirrored left to right."""
    result = []
    for image, row, column, mirror in zip(images, rows, columns, mirrored):
        window = image[:, row : row + size, column : column + size]
        result.append(window[:, :, ::-1] if mirror else window)
    return np.stack(result)


# %% exercise:inverted_dropout
def inverted_dropout(x, u, p):
    """x after dropout with probability p; u holds a random number from 0 to 1 for each element of x."""
    return np.where(u >= p, x / (1 - p), 0)


# %% exercise:top_k_share
def top_k_share(logits, labels, k):
    """The share of rows whose label is among the k largest logits."""
    best = np.argsort(-logits, axis=1)[:, :k]
    return np.mean(np.any(best == labels[:, None], axis=1))


# %% exercise:conv_parameters
def conv_parameters(in_channels, out_channels, kernel_size, groups):
    """The number of weights and biases of a convolution in groups."""
    return out_channels * (in_channels // groups) * kernel_size**2 + out_channels


# %% exercise:alexnet_update
def alexnet_update(w, v, gradient, lr):
    """The weights and the velocity after one step of AlexNet's rule."""
    v = 0.9 * v - 0.0005 * lr * w - lr * gradient
    return w + v, v


# %% exercise:scaling_efficiency
def scaling_efficiency(base_devices, base_seconds, devices, seconds):
    """The part of perfect scaling that is reached from the small system to the large one: 1 is perfect."""
    return (base_seconds / seconds) / (devices / base_devices)
