"""The nets of the literature: their sizes and shapes. What they compute is held against NumPy in test_bench.py."""

import pytest

import clnn
from clnn import models

pytestmark = pytest.mark.usefixtures("device")


def count(net) -> int:
    return sum(p.size for p in net.parameters())


def test_lenet():
    net = models.lenet()
    assert count(net) == 431_080
    assert net(clnn.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_cifar18():
    net = models.cifar18()
    assert count(net) == 89_578
    pools = [layer for layer in clnn.summary(net, (2, 3, 32, 32)).layers if "Pool" in layer.kind]
    assert [layer.output_shape[2:] for layer in pools] == [(16, 16), (8, 8), (4, 4)]
    assert models.cifar18(classes=7)(clnn.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_alexnet():
    """Its size and its stages' shapes, with one image."""
    net = models.alexnet()
    assert count(net) == 60_965_224
    stages = [layer.output_shape[1:] for layer in clnn.summary(net, (1, 3, 227, 227)).layers]
    assert stages[0] == (96, 55, 55)
    assert stages[3] == (96, 27, 27)
    assert stages[7] == (256, 13, 13)
    assert stages[15] == (9216,)
    assert stages[-1] == (1000,)


def test_alexnet_in_one_tower():
    assert count(models.alexnet(groups=1)) == 62_378_344
