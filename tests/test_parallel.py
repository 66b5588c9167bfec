"""Towers: the same net on one device, on two, and in one piece."""

import numpy as np
import pytest
from helpers import assert_close, generator, numbers

import clnn
from clnn import modules as nn
from clnn import optim, parallel
from clnn.errors import ShapeError, StateDictError


@pytest.fixture
def halves(device):
    if device.kind != "CPU" or device.cores < 2:
        pytest.skip("this device cannot be split")
    return device.split(2)


def towers(devices):
    """A small net of three stages with layers of every kind that AlexNet has."""
    clnn.manual_seed(5)

    def tower():
        first = nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2), nn.Conv2d(5, 4, 2)
        second = nn.Conv2d(8, 6, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)
        return [nn.Sequential(*first), nn.Sequential(*second), nn.Sequential(nn.Linear(12 * 4 * 3, 7))]

    return parallel.Towers(list(zip(*[tower() for _ in devices])), devices)


def in_one_piece():
    """The same net; its response normalisation is applied to each half by itself."""

    class InHalves(nn.LocalResponseNorm):
        def forward(self, x):
            n = x.shape[1] // 2
            return clnn.ops.cat([super(InHalves, self).forward(part) for part in (x[:, :n], x[:, n:])], dim=1)

    return nn.Sequential(
        nn.Conv2d(3, 10, 3, stride=2), nn.ReLU(), InHalves(3), nn.MaxPool2d(2), nn.Conv2d(10, 8, 2, groups=2),
        nn.Conv2d(8, 12, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 14),
    )  # fmt: skip


def trained(net, device, x, labels, steps=3):
    """Logits, gradients and weights after some steps of SGD."""
    with clnn.use_device(device):
        optimizer, loss = optim.SGD(net.parameters(), 0.1, momentum=0.9), nn.CrossEntropyLoss()
        for _ in range(steps):
            logits = net(clnn.tensor(x))
            optimizer.zero_grad()
            loss(logits, clnn.tensor(labels)).backward()
            grads = [p.grad.numpy() for p in net.parameters()]
            optimizer.step()
    return [logits.numpy(), *grads, *[p.numpy() for p in net.parameters()]]


def data():
    rng = generator(7)
    return numbers(rng, 6, 3, 19, 14), rng.integers(0, 14, 6)


def test_two_devices_and_one_agree_to_the_bit(device, halves):
    """With dropout, for the masks are drawn in the same order."""
    x, labels = data()
    found = []
    for devices in ([device, device], halves):
        net = towers(devices)
        assert [p.device for p in net.stage0_tower1.parameters()] == [devices[1]] * 4
        found.append(trained(net, devices[0], x, labels))
    for one, two in zip(*found, strict=True):
        assert_close(two, one, 1e-5, "on two devices")


def test_towers_and_the_net_in_one_piece_agree(device, halves):
    """Logits, gradients and weights, with the weights taken over and given back."""
    x, labels = data()
    net, whole = towers(halves), in_one_piece()
    names = [name for name, _ in whole.named_parameters()]
    net.load_whole(whole.state_dict())
    for name, array in net.whole_state_dict(names).items():
        np.testing.assert_array_equal(array, whole.state_dict()[name])
    net.eval()
    with clnn.use_device(halves[0]):
        got = net(clnn.tensor(x)).numpy()
    assert_close(got, whole(clnn.tensor(x)).numpy(), 1e-5, "logits")
    trained(net, halves[0], x, labels), trained(whole, device, x, labels)
    for name, array in net.whole_state_dict(names).items():
        assert_close(array, whole.state_dict()[name], 1e-5, name)


def test_the_way_back_goes_through_all_towers_of_a_stage_before_an_exchange(halves):
    """Else each tower would wait until the other has worked through its stage."""
    clnn.manual_seed(1)
    stages = [[nn.Sequential(nn.Linear(n, 4), nn.Tanh()) for _ in halves] for n in (4, 8, 8, 8)]
    net = parallel.Towers(stages, halves)
    with clnn.use_device(halves[0]):
        loss = net(clnn.tensor(numbers(generator(2), 5, 4))).sum()
        with clnn.profile() as p:
            loss.backward()
    moments = [[]]  # the devices that compute between one exchange and the next
    for launch in p.launches:
        if launch.kernel == "copy across":
            moments.append([])
        elif launch.family == "gemm":
            moments[-1].append(launch.device)
    at_work = [set(found) for found in moments if found]
    assert at_work == [set(halves)] * len(stages)


@pytest.mark.parametrize("limit", [0.05, 1e3])
def test_gradients_of_two_devices_are_clipped_as_one_vector(device, halves, limit):
    x, labels = data()
    found = []
    for devices in ([device, device], halves):
        net = towers(devices)
        with clnn.use_device(devices[0]):
            nn.CrossEntropyLoss()(net(clnn.tensor(x)), clnn.tensor(labels)).backward()
            grads = [p.grad.numpy().astype(np.float64) for p in net.parameters()]
            length = np.sqrt(sum((g**2).sum() for g in grads))
            assert 0.05 < length < 1e3
            norm = optim.clip_grad_norm_(net.parameters(), limit)
        assert norm.device is devices[0]
        assert_close(norm.numpy(), length, 1e-6, "length")
        for p, g in zip(net.parameters(), grads):
            assert_close(p.grad.numpy(), g * min(1, limit / length), 1e-5, "gradient")
        found.append([p.grad.numpy() for p in net.parameters()])
    for one, two in zip(*found, strict=True):
        assert_close(two, one, 1e-5, "on two devices")


def test_what_does_not_fit(device):
    with pytest.raises(ShapeError, match="stage 0 has 1 modules for 2 devices"):
        parallel.Towers([[nn.ReLU()]], [device, device])
    net = towers([device, device])
    before = net.state_dict()
    wrong = in_one_piece().state_dict()
    wrong["4.weight"] = wrong["4.weight"][:, :, :1]
    with pytest.raises(StateDictError, match="of 8 parameters is not that of this net of 8"):
        net.load_whole(wrong)
    assert all((net.state_dict()[name] == array).all() for name, array in before.items())


def test_alexnet_s_towers_have_the_published_number_of_parameters(halves):
    net = parallel.alexnet_towers(halves)
    assert sum(p.size for p in net.parameters()) == 60_965_224
    shapes = [p.shape for p in net.stage0_tower0.parameters()] + [p.shape for p in net.stage1_tower1.parameters()]
    assert shapes == [
        (48, 3, 11, 11), (48,), (128, 48, 5, 5), (128,),
        (192, 256, 3, 3), (192,), (192, 192, 3, 3), (192,), (128, 192, 3, 3), (128,),
    ]  # fmt: skip


@pytest.mark.parametrize("count, classes", [(0, 1000), (3, 1000), (3, 999), (4, 10), (64, 1024)])
def test_alexnet_is_shared_out_evenly_or_not_at_all(device, count, classes):
    """Else maps or classes would be missing without a word."""
    with pytest.raises(ShapeError, match=f"{classes} classes cannot be shared out evenly among {count} devices"):
        parallel.alexnet_towers([device] * count, classes)
