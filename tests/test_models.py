"""The nets of the literature: their sizes, shapes and first weights. What their layers compute is held against NumPy in
the layers' own tests, whole nets in test_bench.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, generator, numbers, real_cifar10

import clnn
from clnn import models
from clnn import modules as nn
from clnn.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("device")


def count(net) -> int:
    return sum(p.size for p in net.parameters())


def layer_by_layer(net, *image) -> tuple[list, int]:
    """The shape of each layer's result for one image, and the net's multiply-adds."""
    summary = clnn.summary(net, (1, *image))
    return [layer.output_shape[1:] for layer in summary.layers], summary.multiply_adds


def shapes(net, *image) -> list:
    return layer_by_layer(net, *image)[0]


def test_lenet():
    net = models.lenet()
    assert count(net) == 431_080
    assert net(clnn.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_krizhevsky2008():
    """One convolution, and most of the work in it."""
    net = models.krizhevsky2008()
    convolution = 64 * (3 * 8 * 8 + 1)
    assert count(net) == convolution + 10 * (64 * 5 * 5 + 1) == 28_362
    work = {layer.kind: layer.multiply_adds for layer in clnn.summary(net, (1, 3, 32, 32)).layers}
    assert work["Conv2d"] == 25 * 25 * 64 * 192 and work["Conv2d"] > 0.99 * sum(work.values())
    assert models.krizhevsky2008(classes=4)(clnn.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("make, parameters", [(models.cifar_quick, 145_578), (models.cifar18, 89_578)])
def test_cifar_nets(make, parameters):
    assert count(make()) == parameters
    pools = [layer for layer in clnn.summary(make(), (2, 3, 32, 32)).layers if "Pool" in layer.kind]
    assert [layer.output_shape[2:] for layer in pools] == [(16, 16), (8, 8), (4, 4)]
    assert make(classes=7)(clnn.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_cifar11():
    """cuda-convnet counts a bias for each filter and position of a local layer."""
    net = models.cifar11()
    first, second = 64 * (75 + 1), 64 * (64 * 25 + 1)
    local = 36 * 32 * (64 * 9 + 1) + 36 * 32 * (32 * 9 + 1)
    assert count(net) == first + second + local + 10 * (32 * 36 + 1) == 1_116_490
    found = shapes(net, 3, 24, 24)
    assert found[3] == (64, 12, 12) and found[7] == (64, 6, 6) and found[8] == found[10] == (32, 6, 6)
    with pytest.raises(clnn.ShapeError, match="have 8 x 8"):  # whole pictures in place of crops
        net(clnn.zeros(1, 3, 32, 32))


def test_alexnet():
    """Its size, its stages' shapes and its work, with one image."""
    net = models.alexnet()
    assert count(net) == 60_965_224
    stages, multiply_adds = layer_by_layer(net, 3, 227, 227)
    assert stages[0] == (96, 55, 55)
    assert stages[3] == (96, 27, 27)
    assert stages[7] == (256, 13, 13)
    assert stages[15] == (9216,)
    assert stages[-1] == (1000,)
    assert multiply_adds == 724_406_816


@pytest.mark.parametrize("towers, count, most", [(False, 128, 4e9), (True, 48, 2.5e9)])
def test_alexnet_trains_on_128_images_within_4_gb(device, run_python, towers, count, most):
    """A step with dropout and momentum in a process of its own: what the pool holds, and the optimiser's blocks."""
    if device.memory < 8e9 or device.kind == "simulator":
        pytest.skip("this device has little memory or no speed")
    code = f"""
import numpy as np, clnn
from clnn import modules as nn
device = clnn.device()
net = clnn.parallel.alexnet_towers([device] * 2) if {towers} else clnn.models.alexnet()
optimizer = clnn.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
images = np.random.default_rng(0).standard_normal(({count}, 3, 227, 227), np.float32)
loss = nn.CrossEntropyLoss()(net(clnn.tensor(images)), clnn.tensor(np.arange({count})))
loss.backward()
optimizer.step()
blocks = 3 * 4 * sum(p.size for p in net.parameters())
print(device.pool.managed_bytes + blocks, loss.item())
"""
    result = run_python("-c", code, CLNN_DEVICE=str(clnn.devices().index(device)))
    assert result.returncode == 0, result.stderr
    held, loss = map(float, result.stdout.split())
    assert most / 3 < held < most and 4 < loss < 10


def test_alexnet_in_one_tower():
    assert count(models.alexnet(groups=1)) == 62_378_344


def test_alexnet_for_one_gpu():
    """Also for pictures of other sizes than the 224 it was made for; the names of its parameters are torchvision's."""
    net = models.alexnet_one_gpu().eval()
    assert count(net) == 61_100_840
    names = [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)]
    assert list(net.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    for side in (224, 63, 131):
        assert net(clnn.zeros(1, 3, side, side)).shape == (1, 1000)
    found = shapes(net, 3, 224, 224)
    assert found[0] == (64, 55, 55) and found[12] == (256, 6, 6)


def test_alexnet_cifar():
    net = models.alexnet_cifar()
    convolutions = 48 * 76 + 128 * (48 * 25 + 1) + 192 * (128 * 9 + 1) + 192 * (192 * 9 + 1) + 128 * (192 * 9 + 1)
    assert count(net) == convolutions + 1024 * (1152 + 1) + 1024 * 1025 + 10 * 1025 == 3_172_554
    large, small = [[type(m) for m in n] for n in (models.alexnet(), net)]
    assert small == large  # layer for layer
    assert models.alexnet_cifar(classes=3)(clnn.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_overfeat_fast():
    """The paper says 145 million parameters, and 2,810 million connections."""
    net = models.overfeat_fast()
    assert count(net) == 145_920_872
    found, multiply_adds = layer_by_layer(net, 3, 231, 231)
    assert found[1] == (96, 56, 56) and found[3] == (256, 24, 24) and found[12] == (1024, 6, 6)
    assert abs(multiply_adds / 2_810e6 - 1) < 0.005


def test_overfeat_accurate():
    """The paper says 144 million parameters, and 5,369 million connections."""
    net = models.overfeat_accurate()
    assert count(net) == 144_656_488
    found, multiply_adds = layer_by_layer(net, 3, 221, 221)
    assert found[2] == (96, 36, 36) and found[5] == (256, 15, 15) and found[14] == (1024, 5, 5)
    assert abs(multiply_adds / 5_369e6 - 1) < 0.005


def test_inception_block():
    """Block 3a, counted by hand: 1x1, 3x3 after its reduction, 5x5 after its own, and the one after the pooling."""
    block = models.inception_block()
    ones, after_pool = 64 * 193, 32 * 193
    threes, fives = 96 * 193 + 128 * (96 * 9 + 1), 16 * 193 + 32 * (16 * 25 + 1)
    assert count(block) == ones + threes + fives + after_pool == 163_696
    x = clnn.tensor(numbers(generator(1), 2, 192, 7, 6))
    y = block(x)
    assert y.shape == (2, 256, 7, 6)
    parts = np.split(y.numpy(), [64, 192, 224], axis=1)
    for branch, part in zip(block, parts, strict=True):
        np.testing.assert_array_equal(branch(x).numpy(), part)
    small = models.inception_block(3, 2, 4, 5, 1, 3, 2)  # and its gradients reach every branch
    small(clnn.tensor(numbers(generator(2), 2, 3, 5, 5))).sum().backward()
    assert all(abs(p.grad.numpy()).max() > 0 for p in small.parameters())


def test_import_clnn_brings_the_nets(run_python):
    """With their recipes and the towers, and without anything large."""
    code = (
        "import sys, clnn\n"
        "print(clnn.models.lenet.__name__, clnn.recipes.RECIPES['lenet'].epochs, clnn.parallel.Towers.__name__)\n"
        "print(*sorted({'matplotlib', 'scipy', 'PIL', 'torch', 'IPython'} & set(sys.modules)))"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["lenet 20 Towers", ""]


def test_first_weights():
    """Those that were published: normal, with the deviations and biases of cuda-convnet's files and of the paper."""
    clnn.manual_seed(3)
    published = {
        models.cifar_quick: [(0.0001, 0), (0.01, 0), (0.01, 0), (0.1, 0), (0.1, 0)],
        models.cifar18: [(0.0001, 0), (0.01, 0), (0.01, 0), (0.01, 0)],
        models.cifar11: [(0.0001, 0), (0.01, 0), (0.04, 0), (0.04, 0), (0.01, 0)],
        models.alexnet: [(0.01, bias) for bias in (0, 1, 0, 1, 1, 1, 1, 0)],
        models.alexnet_cifar: [((2 / n) ** 0.5, 0) for n in (75, 1200, 1152, 1728, 1728, 1152, 1024, 1024)],  # He's
    }
    for make, wanted in published.items():
        layers = [m for m in make().modules() if hasattr(m, "weight")]
        for layer, (deviation, bias) in zip(layers, wanted, strict=True):
            weight = layer.weight.numpy().ravel()
            error = 5 / np.sqrt(weight.size)
            assert abs(weight.mean()) < error * deviation and abs(weight.std() / deviation - 1) < error
            assert 2.5 < abs(weight).max() / deviation < 7  # normal, not uniform
            assert (layer.bias.numpy() == bias).all()
    clnn.manual_seed(3)
    first = models.cifar_quick().state_dict()
    clnn.manual_seed(3)
    for name, values in models.cifar_quick().state_dict().items():
        np.testing.assert_array_equal(values, first[name])


def test_branches():
    """Side by side in any depth, each with its own share of the gradient."""
    clnn.manual_seed(4)
    net = nn.Branches(nn.Conv2d(2, 3, 1), nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.Tanh()), nn.ReLU())
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert repr(net).startswith("Branches(\n  (0): Conv2d(2, 3")
    t = clnn.tensor(numbers(generator(5), 2, 2, 4, 3), requires_grad=True)
    y = net(t)
    assert y.shape == (2, 6, 4, 3)
    g = clnn.tensor(numbers(generator(6), *y.shape))
    y.backward(g)
    together, each = t.grad.numpy(), np.zeros(t.shape)
    for branch, part in zip(net, (g[:, :3], g[:, 3:4], g[:, 4:]), strict=True):
        alone = t.detach().clone().requires_grad_()
        branch(alone).backward(part)
        each += alone.grad.numpy()
    assert_close(together, each, 1e-6, "gradient")


def test_the_trained_net_of_the_course():
    """course/nets/cifar18: the weights give what the history beside them tells, on the photos that are here."""
    nets = Path(__file__).parents[1] / "course" / "nets"
    report = json.loads((nets / "cifar18.json").read_text(encoding="utf-8"))
    train, test = real_cifar10()
    net = models.cifar18()
    net.load_state_dict(clnn.load(nets / "cifar18.safetensors"))
    _, transform = RECIPES["cifar18"].transforms(train)
    found = clnn.evaluate(net, clnn.data.DataLoader(test, 250, transform=transform))
    assert report["history"][-1]["val_accuracy"] == report["test_accuracy"] > 0.8
    deviation = (0.81 * 0.19 / len(test)) ** 0.5
    assert abs(found.accuracy - report["test_accuracy"]) < 4 * deviation + 0.01  # the sample's mean image differs
