"""How the nets of ``clnn.models`` are trained: published settings, as data."""

from collections.abc import Callable
from dataclasses import dataclass

from . import models
from .data import CenterCrop, Compose, ImageDataset, Normalize, RandomCrop, RandomHorizontalFlip, mean_image
from .modules import Module


@dataclass(frozen=True)
class Recipe:
    """A net with the settings of its training: SGD with momentum.

    ``milestones``: epochs after which lr falls to a tenth. ``bias_lr``: biases learn at so many times lr; above 1 they
    do not decay. ``last_decay``: the last layer's own weight decay. ``centred``: pixels on the scale of 0 to 255 less
    the training set's mean image, in place of 0 to 1. ``crop``: train on windows of this side (of
    images with a border of ``padding`` zeros), mirrored half of the time, and test on the one in the middle.
    """

    net: Callable[[], Module]
    data: str  # the data set it was published with
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...] = ()
    bias_lr: float = 1.0
    last_decay: float | None = None
    centred: bool = False
    crop: int | None = None
    padding: int = 0

    def groups(self, net: Module, lr: float, weight_decay: float) -> list[dict]:
        """The optimiser's groups of parameters: one where all are alike."""
        weights, biases = ([p for n, p in net.named_parameters() if n.endswith("bias") == b] for b in (False, True))
        if self.bias_lr == 1:
            return [{"params": list(net.parameters())}]
        last = [{"params": weights[-1:], "weight_decay": self.last_decay}] if self.last_decay is not None else []
        first = {"params": weights[:-1] if last else weights}
        return [first, *last, {"params": biases, "lr": lr * self.bias_lr, "weight_decay": 0.0}]

    def transforms(self, train: ImageDataset) -> tuple:
        """What is done to the training and to the test images."""
        centre = [Normalize(mean_image(train), 1 / 255)] if self.centred else []
        random = [RandomCrop(self.crop, self.padding), RandomHorizontalFlip()] if self.crop else []
        middle = [CenterCrop(self.crop)] if self.crop else []
        return tuple(Compose(parts) if parts else None for parts in (centre + random, centre + middle))


# LeNet: MXNet.jl's tutorial. The others: cuda-convnet's and Caffe's examples for CIFAR-10.
CIFAR = dict(data="cifar10", batch_size=100, lr=0.001, momentum=0.9, weight_decay=0.004, bias_lr=2, centred=True)
RECIPES = {
    "lenet": Recipe(models.lenet, "mnist", 20, 100, 0.05, 0.9, 1e-5),
    "krizhevsky2008": Recipe(models.krizhevsky2008, "cifar10", 20, 100, 0.01, 0.9, 1e-4),
    "cifar_quick": Recipe(models.cifar_quick, epochs=10, milestones=(8,), **CIFAR),
    "cifar18": Recipe(models.cifar18, epochs=140, milestones=(120, 130), last_decay=1.0, **CIFAR),
    "cifar11": Recipe(models.cifar11, epochs=300, milestones=(250, 275), last_decay=0.01, crop=24, **CIFAR),
    "alexnet_cifar": Recipe(
        models.alexnet_cifar, "cifar10", 40, 100, 0.01, 0.9, 5e-4, milestones=(25, 35), crop=32, padding=4
    ),
}
