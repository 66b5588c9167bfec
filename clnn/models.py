"""Nets of the literature, ready to train.

Where a net was published with its first weights it starts from such, else from PyTorch's. Those of cuda-convnet are
made for pixels from 0 to 255 less the mean image of the training set.
"""

import numpy as np

from . import modules as nn
from .tensor import generator


def gaussian(layer, std: float | None = None, bias: float = 0.0):
    """The layer with new first weights: normal with mean 0 and deviation ``std``, all biases equal.

    Left out, std is the root of 2 / inputs of a neuron, which keeps signals alive through many layers of ReLU (He et
    al., "Delving deep into rectifiers", 2015).
    """
    std = (2 * layer.weight.shape[0] / layer.weight.size) ** 0.5 if std is None else std
    layer.weight.copy_(generator().standard_normal(layer.weight.shape, np.float32) * np.float32(std))
    layer.bias.copy_(bias)
    return layer


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


def krizhevsky2008(classes: int = 10) -> nn.Sequential:
    """A net of one convolution for images (N, 3, 32, 32): 28,362 parameters for ten classes.

    After Krizhevsky's first net in CUDA ("Convolutional neural networks for object classification in CUDA", 2009, from
    a course of 2008; Shao's lecture of 2021), of which the lecture tells one layer of convolution, colour images of
    32x32 pixels and ten classes. The 64 filters of 8x8, the tanh and the 5x5 pooling here are clnn's choice.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 8),
        nn.Tanh(),
        nn.MaxPool2d(5),
        nn.Flatten(),
        nn.Linear(64 * 5 * 5, classes),
    )


def cifar_quick(classes: int = 10) -> nn.Sequential:
    """cuda-convnet's net "26% in 80 seconds" (Krizhevsky, 2011) for images (N, 3, 32, 32): 145,578 parameters for ten
    classes.

    Caffe's "CIFAR10_quick" is the same but for the ReLU between the last two layers, which it leaves out.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 32, 5, padding=2), 0.0001),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(),
        gaussian(nn.Conv2d(32, 32, 5, padding=2), 0.01),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        gaussian(nn.Conv2d(32, 64, 5, padding=2), 0.01),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        gaussian(nn.Linear(64 * 4 * 4, 64), 0.1),
        nn.ReLU(),
        gaussian(nn.Linear(64, classes), 0.1),
    )


def cifar18(classes: int = 10) -> nn.Sequential:
    """cuda-convnet's net "18% in 20 minutes" (Krizhevsky, 2011) for images (N, 3, 32, 32): 89,578 parameters for ten
    classes. Three stages of 5x5 convolution and overlapping 3x3 pooling, with response normalisation within maps.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 32, 5, padding=2), 0.0001),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(),
        nn.LocalResponseNorm2d(3, alpha=5e-5, beta=0.75),
        gaussian(nn.Conv2d(32, 32, 5, padding=2), 0.01),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm2d(3, alpha=5e-5, beta=0.75),
        gaussian(nn.Conv2d(32, 64, 5, padding=2), 0.01),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        gaussian(nn.Linear(64 * 4 * 4, classes), 0.01),
    )


def cifar11(classes: int = 10) -> nn.Sequential:
    """cuda-convnet's net "11%" (Krizhevsky, 2012) for crops (N, 3, 24, 24) of CIFAR-10: 1,116,490 parameters for ten
    classes, most of them in two locally connected layers.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 64, 5, padding=2), 0.0001),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=0.001, beta=0.75),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        gaussian(nn.Conv2d(64, 64, 5, padding=2), 0.01),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=0.001, beta=0.75),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        gaussian(nn.LocallyConnected2d(64, 32, 6, 3, padding=1), 0.04),
        nn.ReLU(),
        gaussian(nn.LocallyConnected2d(32, 32, 6, 3, padding=1), 0.04),
        nn.ReLU(),
        nn.Flatten(),
        gaussian(nn.Linear(32 * 6 * 6, classes), 0.01),
    )


def alexnet(groups: int = 2, classes: int = 1000) -> nn.Sequential:
    """AlexNet for images (N, 3, 227, 227): 60,965,224 parameters for a thousand classes.

    ``groups=2`` is the net of the paper, whose second, fourth and fifth convolutions stay within one of two GPUs;
    ``groups=1`` joins the two towers (62,378,344 parameters). Krizhevsky, Sutskever and Hinton, "ImageNet
    classification with deep convolutional neural networks", 2012. alpha is divided by the number of maps, as in
    cuda-convnet, the program that trained it.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 96, 11, stride=4), 0.01),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        gaussian(nn.Conv2d(96, 256, 5, padding=2, groups=groups), 0.01, bias=1.0),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        gaussian(nn.Conv2d(256, 384, 3, padding=1), 0.01),
        nn.ReLU(),
        gaussian(nn.Conv2d(384, 384, 3, padding=1, groups=groups), 0.01, bias=1.0),
        nn.ReLU(),
        gaussian(nn.Conv2d(384, 256, 3, padding=1, groups=groups), 0.01, bias=1.0),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        gaussian(nn.Linear(256 * 6 * 6, 4096), 0.01, bias=1.0),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(4096, 4096), 0.01, bias=1.0),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(4096, classes), 0.01),
    )


def alexnet_one_gpu(classes: int = 1000) -> nn.Sequential:
    """AlexNet in the widths for one GPU (Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
    2014) for images (N, 3, H, W) of any size from 63x63: 61,100,840 parameters for a thousand classes.

    Its parts are named as in torchvision, whose weights fit: "features", "avgpool", "classifier".
    """
    net = nn.Sequential()
    net.features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    net.avgpool = nn.AdaptiveAvgPool2d((6, 6))
    net.flatten = nn.Flatten()
    net.classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
    return net


def alexnet_cifar(classes: int = 10) -> nn.Sequential:
    """AlexNet's shape for images (N, 3, 32, 32): 3,172,554 parameters for ten classes.

    The layers of ``alexnet`` in their order, with the widths of one of its towers; the first convolution has 5x5
    filters side by side, and the fully connected layers a quarter of the neurons. No published net: one to train at
    home, and so with first weights after He et al.: from PyTorch's it learns nothing for a long while.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 48, 5, padding=2)),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        gaussian(nn.Conv2d(48, 128, 5, padding=2)),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
        nn.MaxPool2d(3, 2),
        gaussian(nn.Conv2d(128, 192, 3, padding=1)),
        nn.ReLU(),
        gaussian(nn.Conv2d(192, 192, 3, padding=1)),
        nn.ReLU(),
        gaussian(nn.Conv2d(192, 128, 3, padding=1)),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        gaussian(nn.Linear(128 * 3 * 3, 1024)),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(1024, 1024)),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(1024, classes)),
    )


def overfeat_fast(classes: int = 1000) -> nn.Sequential:
    """OverFeat's "fast" net for images (N, 3, 231, 231): 145,920,872 parameters for a thousand classes.

    Sermanet et al., "OverFeat: integrated recognition, localization and detection using convolutional networks", 2013,
    table 1.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 96, 11, stride=4), 0.01),
        nn.ReLU(),
        nn.MaxPool2d(2),
        gaussian(nn.Conv2d(96, 256, 5), 0.01),
        nn.ReLU(),
        nn.MaxPool2d(2),
        gaussian(nn.Conv2d(256, 512, 3, padding=1), 0.01),
        nn.ReLU(),
        gaussian(nn.Conv2d(512, 1024, 3, padding=1), 0.01),
        nn.ReLU(),
        gaussian(nn.Conv2d(1024, 1024, 3, padding=1), 0.01),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        gaussian(nn.Linear(1024 * 6 * 6, 3072), 0.01),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(3072, 4096), 0.01),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(4096, classes), 0.01),
    )


def overfeat_accurate(classes: int = 1000) -> nn.Sequential:
    """OverFeat's "accurate" net for images (N, 3, 221, 221): 144,656,488 parameters for a thousand classes.

    Table 3 of the paper (see ``overfeat_fast``), which Bernauer's lecture of 2017 shows.
    """
    return nn.Sequential(
        gaussian(nn.Conv2d(3, 96, 7, stride=2), 0.01),
        nn.ReLU(),
        nn.MaxPool2d(3),
        gaussian(nn.Conv2d(96, 256, 7), 0.01),
        nn.ReLU(),
        nn.MaxPool2d(2),
        gaussian(nn.Conv2d(256, 512, 3, padding=1), 0.01),
        nn.ReLU(),
        gaussian(nn.Conv2d(512, 512, 3, padding=1), 0.01),
        nn.ReLU(),
        gaussian(nn.Conv2d(512, 1024, 3, padding=1), 0.01),
        nn.ReLU(),
        gaussian(nn.Conv2d(1024, 1024, 3, padding=1), 0.01),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Flatten(),
        gaussian(nn.Linear(1024 * 5 * 5, 4096), 0.01),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(4096, 4096), 0.01),
        nn.ReLU(),
        nn.Dropout(0.5),
        gaussian(nn.Linear(4096, classes), 0.01),
    )


def inception_block(
    in_channels: int = 192, ones: int = 64, before_threes: int = 96, threes: int = 128, before_fives: int = 16,
    fives: int = 32, after_pool: int = 32,
) -> nn.Branches:  # fmt: skip
    """GoogLeNet's building block: 1x1, 3x3 and 5x5 convolutions and a pooling of the same maps (N, C, H, W), side by
    side, their results joined. The numbers are those of filters; the usual ones make block 3a: 163,696 parameters.

    1x1 convolutions before the large filters, and after the pooling, keep the work small. Szegedy et al., "Going deeper
    with convolutions", 2014, table 1.
    """
    return nn.Branches(
        nn.Sequential(nn.Conv2d(in_channels, ones, 1), nn.ReLU()),
        nn.Sequential(
            nn.Conv2d(in_channels, before_threes, 1),
            nn.ReLU(),
            nn.Conv2d(before_threes, threes, 3, padding=1),
            nn.ReLU(),
        ),
        nn.Sequential(
            nn.Conv2d(in_channels, before_fives, 1),
            nn.ReLU(),
            nn.Conv2d(before_fives, fives, 5, padding=2),
            nn.ReLU(),
        ),
        nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(in_channels, after_pool, 1), nn.ReLU()),
    )
