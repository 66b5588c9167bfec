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


def cifar18(classes: int = 10) -> nn.Sequential:
    """cuda-convnet's net "18%" (Krizhevsky, 2012) for images (N, 3, 32, 32): 89,578 parameters for ten classes.

    Three stages of 5x5 convolution and overlapping 3x3 pooling. Its response normalisation here is PyTorch's, across
    maps; the original's sums squares within each map.
    """
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(),
        nn.LocalResponseNorm(3, alpha=5e-5),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(3, alpha=5e-5),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, classes),
    )


def alexnet(groups: int = 2, classes: int = 1000) -> nn.Sequential:
    """AlexNet for images (N, 3, 227, 227): 60,965,224 parameters for a thousand classes.

    ``groups=2`` is the net of the paper, whose second, fourth and fifth convolutions stay within one of two GPUs;
    ``groups=1`` joins the two towers (62,378,344 parameters). Krizhevsky, Sutskever and Hinton, "ImageNet
    classification with deep convolutional neural networks", 2012. alpha is divided by the number of maps, as in
    cuda-convnet, the program that trained it.
    """
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=groups),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )
