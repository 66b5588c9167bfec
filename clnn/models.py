"""Nets of the literature, ready to train."""

from . import modules as nn


def lenet() -> nn.Sequential:
    """LeNet for images (N, 1, 28, 28) in ten classes, as in the MXNet.jl tutorial: 431,080 parameters.

    Two stages of convolution, tanh and max pooling, then two fully connected layers; after LeCun et al.,
    "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.Tanh(),
        nn.Linear(500, 10),
    )
