"""Modules: what they compute, their parameters, names, states and hooks."""

import functools

import numpy as np
import pytest
from helpers import assert_close, dtypes, generator, numbers
from scipy import special

import clnn
from clnn import modules as nn
from clnn import ops, optim
from clnn.errors import ClnnError, DeviceError, DTypeError, LabelError, ShapeError, StateDictError

pytestmark = pytest.mark.usefixtures("device")


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
    )  # fmt: skip


def perceptron():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


LENET_SHAPES = {
    "0.weight": (20, 1, 5, 5), "0.bias": (20,), "3.weight": (50, 20, 5, 5), "3.bias": (50,),
    "7.weight": (500, 800), "7.bias": (500,), "9.weight": (10, 500), "9.bias": (10,),
}  # fmt: skip


class Net(nn.Module):
    """Modules inside modules, a parameter of its own, and things that are neither."""

    def __init__(self):
        self.scale = nn.Parameter([2.0])
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Sequential(nn.Linear(4, 2)))
        self.rate, self.names, self.fixed = 0.1, ["a"], clnn.zeros(2)

    def forward(self, x):
        return self.body(x) * self.scale


NAMES = ["scale", "body.0.weight", "body.0.bias", "body.2.0.weight", "body.2.0.bias"]


# What they compute


def test_the_programs_of_lenet(device):
    """The lines that other programs rely on."""
    rng = generator(1)
    x, y = rng.standard_normal((6, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 6)
    weights = {name: rng.uniform(-0.1, 0.1, shape) for name, shape in LENET_SHAPES.items()}
    net = lenet()
    net.load_state_dict(weights)
    opt = optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    losses = []
    for _ in range(6):
        loss = nn.CrossEntropyLoss()(net(clnn.tensor(x)), clnn.tensor(y))
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert isinstance(losses[0], float) and losses[-1] < losses[0] / 2
    state = net.state_dict()
    clnn.synchronize()
    assert {name: values.shape for name, values in state.items()} == LENET_SHAPES
    assert list(state) == list(LENET_SHAPES)
    assert all(type(v) is np.ndarray and v.dtype == np.float32 for v in state.values())
    assert (state["9.bias"] != weights["9.bias"]).all()


def test_layers_compute_what_ops_compute():
    rng = generator(2)
    image = numbers(rng, 2, 4, 9, 8)
    x = clnn.tensor(image)
    for module, function in (
        (nn.MaxPool2d(3, 2, 1, 1, True), lambda: ops.max_pool2d(x, 3, 2, 1, 1, True)),
        (nn.MaxPool2d((2, 3)), lambda: ops.max_pool2d(x, (2, 3))),
        (nn.MaxPool2d(2, dilation=2, stride=1), lambda: ops.max_pool2d(x, 2, 1, 0, 2)),
        (nn.AvgPool2d(3, 2, 1, True, False), lambda: ops.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AvgPool2d(2), lambda: ops.avg_pool2d(x, 2)),
        (nn.AdaptiveAvgPool2d((None, 3)), lambda: ops.adaptive_avg_pool2d(x, (9, 3))),
        (nn.ReLU(), x.relu), (nn.Tanh(), x.tanh), (nn.Sigmoid(), x.sigmoid),
        (nn.Softmax(), x.softmax), (nn.Softmax(dim=1), lambda: x.softmax(1)),
        (nn.Flatten(), lambda: x.reshape(2, -1)), (nn.Flatten(2), lambda: x.reshape(2, 4, -1)),
        (nn.Flatten(0, 2), lambda: x.reshape(-1, 8)),
    ):  # fmt: skip
        np.testing.assert_array_equal(module(x).numpy(), function().numpy())
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    assert conv.weight.shape == (6, 2, 3, 2)
    want = ops.conv2d(x, conv.weight, conv.bias, (2, 1), (1, 0), (1, 2), 2)
    np.testing.assert_array_equal(conv(x).numpy(), want.numpy())
    linear = nn.Linear(8, 3, bias=False)
    assert linear.bias is None and list(linear.state_dict()) == ["weight"]
    assert_close(linear(x).numpy(), image @ linear.weight.numpy().T.astype(float), 1e-5, "linear")
    assert nn.Conv2d(4, 6, 1, bias=False).bias is None


def test_losses():
    rng = generator(3)
    x, y = numbers(rng, 5, 4), rng.integers(0, 4, 5)
    rows = -special.log_softmax(x, axis=1)[range(5), y]
    for reduction, reduce in (("mean", np.mean), ("sum", np.sum), ("none", lambda v: v)):
        got = nn.CrossEntropyLoss(reduction=reduction)(clnn.tensor(x), clnn.tensor(y))
        np.testing.assert_allclose(got.numpy(), reduce(rows), rtol=1e-6)
        got = nn.MSELoss(reduction=reduction)(clnn.tensor(x), clnn.tensor(x[::-1]))
        np.testing.assert_allclose(got.numpy(), reduce((x - x[::-1]) ** 2), rtol=1e-5, atol=1e-6)
        got = nn.L1Loss(reduction=reduction)(clnn.tensor(x), clnn.tensor(x[::-1]))
        np.testing.assert_allclose(got.numpy(), reduce(abs(x - x[::-1])), rtol=1e-5, atol=1e-6)
        p = special.expit(x)
        got = nn.BCELoss(reduction=reduction)(clnn.tensor(p), clnn.tensor(x > 0))
        np.testing.assert_allclose(got.numpy(), reduce(np.logaddexp(0, -abs(x))), rtol=1e-5, atol=1e-6)
        got = nn.BCEWithLogitsLoss(reduction=reduction)(clnn.tensor(x), clnn.tensor(x > 0))
        np.testing.assert_allclose(got.numpy(), reduce(np.logaddexp(0, -abs(x))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module, fan_in", [
    (lambda: nn.Linear(300, 200), 300), (lambda: nn.Conv2d(8, 128, (3, 5)), 120),
    (lambda: nn.Conv2d(64, 256, 3, groups=4), 144),
])  # fmt: skip
def test_initialisation(module, fan_in):
    """Uniform in +-1 / sqrt(fan in), weight and bias: the bounds, the mean, the variance and the quartiles."""
    clnn.manual_seed(4)
    made, bound = module(), fan_in**-0.5
    weight = made.weight.numpy().ravel() / bound
    n = weight.size
    assert abs(weight).max() <= 1 and abs(weight).max() > 0.999
    assert abs(weight.mean()) < 5 / np.sqrt(3 * n) and abs(weight.var() - 1 / 3) < 5 * 0.3 / np.sqrt(n)
    np.testing.assert_allclose(np.quantile(weight, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=5 / np.sqrt(n))
    bias = made.bias.numpy() / bound
    assert 0.5 < abs(bias).max() <= 1 and abs(bias.mean()) < 5 / np.sqrt(3 * bias.size)
    clnn.manual_seed(4)
    np.testing.assert_array_equal(module().weight.numpy().ravel() / bound, weight)


def test_dropout_follows_the_mode():
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.9)))
    x = clnn.ones(1000)
    assert 0 < (net(x).numpy() == 0).mean() < 1
    assert net.eval() is net and not any(m.training for m in net.modules())
    np.testing.assert_array_equal(net(x).numpy(), 1)
    assert net.train() is net and all(m.training for m in net.modules())
    assert (net(x).numpy() == 0).any()


def pooled_net(pool, activation, **options):
    clnn.manual_seed(21)
    return nn.Sequential(nn.Conv2d(2, 5, 3, **options), activation, pool)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Sigmoid()])
@pytest.mark.parametrize("pool", [
    nn.MaxPool2d(2), nn.MaxPool2d(3), nn.MaxPool2d(5), nn.MaxPool2d(1), nn.MaxPool2d(3, 2), nn.MaxPool2d((2, 3)),
    nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(2),
])  # fmt: skip
def test_what_sequential_computes_in_one_launch(pool, activation):
    """Convolution, activation and pooling, in either order, or one of the two: the values and all gradients."""
    conv = pooled_net(pool, activation, stride=(1, 2), padding=1)[0]
    x = numbers(generator(8), 3, 2, 11, 14)
    for behind in ([activation, pool], [pool, activation], [pool], [pool, activation, nn.Tanh(), nn.ReLU()]):
        net, found = nn.Sequential(conv, *behind), []
        for compute in (net, functools.partial(functools.reduce, lambda t, module: module(t), net)):
            t = clnn.tensor(x, requires_grad=True)
            y = compute(t)
            y.backward(clnn.tensor(numbers(generator(9), *y.shape)))
            found.append([y.numpy(), t.grad.numpy(), conv.weight.grad.numpy(), conv.bias.grad.numpy()])
            net.zero_grad()
        for got, want in zip(*found, strict=True):
            assert_close(got, want, 1e-6, "sequential")


def test_launches_of_a_sequential(device, monkeypatch):
    monkeypatch.setattr(device, "kind", "CPU")
    x = clnn.tensor(numbers(generator(7), 2, 2, 9, 9))
    for behind, launches in (
        ([nn.ReLU(), nn.MaxPool2d(2)], 1), ([nn.MaxPool2d(2), nn.ReLU()], 1), ([nn.MaxPool2d(2)], 1),
        ([nn.MaxPool2d(2), nn.ReLU(), nn.ReLU()], 2), ([nn.MaxPool2d(2), nn.MaxPool2d(2)], 2),
        ([nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)], 3), ([nn.AvgPool2d(2), nn.ReLU()], 3),
    ):  # fmt: skip
        net = nn.Sequential(nn.Conv2d(2, 5, 3), *behind)
        with clnn.profile() as p:
            net(x)
        packing = ("pad_planes", "pad_rows", "pack_filters")
        assert sum(launch.kernel not in packing for launch in p.launches) == launches, behind


def test_modules_of_one_s_own_are_called_in_sequential():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Shifted(nn.Tanh):
        def forward(self, x):
            return super().forward(x) + 1

    class Halved(nn.MaxPool2d):
        def forward(self, x):
            return super().forward(x) / 2

    x = clnn.tensor(numbers(generator(10), 2, 1, 8, 8))
    for parts in ((Doubled, nn.Tanh, nn.MaxPool2d), (nn.Conv2d, Shifted, nn.MaxPool2d), (nn.Conv2d, nn.Tanh, Halved)):
        layer, activation, pool = parts[0](1, 3, 3), parts[1](), parts[2](2)
        for net in (nn.Sequential(layer, activation, pool), nn.Sequential(layer, pool, activation)):
            want = net[2](net[1](net[0](x)))
            np.testing.assert_array_equal(net(x).numpy(), want.numpy())


# What they are made of


def test_names():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES == list(net.state_dict())
    modules = ["", "body", "body.0", "body.1", "body.2", "body.2.0"]
    assert [name for name, _ in net.named_modules()] == modules
    assert [name for name, _ in net.named_children()] == ["body"]
    assert len(list(net.modules())) == 6 and next(net.modules()) is net
    assert sum(p.size for p in net.parameters()) == 1 + 12 + 4 + 8 + 2
    assert all(isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf for p in net.parameters())


def test_shared_modules_and_parameters():
    """As in PyTorch: each parameter once, but a state dict with all of its names."""
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.Tanh(), shared)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert [name for name, _ in net.named_modules()] == ["", "0", "1"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    net.load_state_dict(net.state_dict())
    x = numbers(generator(5), 2, 3)
    w, b = shared.weight.numpy().astype(float), shared.bias.numpy()
    assert_close(net(clnn.tensor(x)).numpy(), np.tanh(x @ w.T + b) @ w.T + b, 1e-5, "shared")
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert [name for name, _ in tied.named_parameters()] == ["0.weight", "0.bias", "1.bias"]


def test_sequential():
    net = perceptron()
    assert len(net) == 3 and [type(m) for m in net] == [nn.Linear, nn.Tanh, nn.Linear]
    assert net[0] is next(iter(net)) and net[-1].out_features == 3
    head = net[:2]
    assert isinstance(head, nn.Sequential) and len(head) == 2 and head[0] is net[0]
    assert list(net[1:].state_dict()) == ["1.weight", "1.bias"]
    with pytest.raises(IndexError):
        net[3]
    x = clnn.tensor([[1.0, 2, 3, 4, 5]])
    np.testing.assert_array_equal(net[2](head(x)).numpy(), net(x).numpy())
    assert nn.Sequential()(x) is x
    joined = nn.Branches(nn.Linear(5, 2), nn.Linear(5, 3), nn.Linear(5, 4))[1:]
    assert isinstance(joined, nn.Branches) and joined(x).shape == (1, 7)


def test_sequential_of_what_is_no_module():
    """It would be left out without a word."""
    with pytest.raises(DTypeError, match=r"number 1 is the class Tanh: make one, Tanh\(\.\.\.\)"):
        nn.Sequential(nn.Linear(2, 2), nn.Tanh)
    with pytest.raises(DTypeError, match=r"number 0 is list: give them one by one, Sequential\(\*layers\)"):
        nn.Branches([nn.Linear(2, 2)])


def test_a_parameter_s_place_is_for_parameters():
    net = perceptron()
    for wrong in (net[0].weight - 1, net[0].weight.detach()):
        with pytest.raises(DTypeError, match=r"Linear\.weight is a Parameter: .* weight\.copy_\(\.\.\.\)"):
            net[0].weight = wrong
    net[0].weight = tied = nn.Parameter(np.ones((4, 5)))
    net[2].bias = None
    assert [p is tied for p in net.parameters()] == [True, False, False]
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients, this one is int32"):
        nn.Parameter([1, 2])


def test_options_reach_forward():
    class Scale(nn.Module):
        def forward(self, x, by=1.0):
            return x * by

    assert Scale()(clnn.ones(2), by=3.0).numpy().tolist() == [3, 3]


def test_repr():
    assert (
        repr(lenet())
        == """Sequential(
  (0): Conv2d(1, 20, kernel_size=(5, 5), stride=(1, 1))
  (1): Tanh()
  (2): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  (3): Conv2d(20, 50, kernel_size=(5, 5), stride=(1, 1))
  (4): Tanh()
  (5): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  (6): Flatten(start_dim=1, end_dim=-1)
  (7): Linear(in_features=800, out_features=500, bias=True)
  (8): Tanh()
  (9): Linear(in_features=500, out_features=10, bias=True)
)"""
    )
    assert (
        repr(nn.Sequential(nn.Sequential(nn.ReLU()), nn.AvgPool2d(3, 2)))
        == """Sequential(
  (0): Sequential(
    (0): ReLU()
  )
  (1): AvgPool2d(kernel_size=3, stride=2, padding=0)
)"""
    )
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2, bias=False)
    assert repr(conv) == (
        "Conv2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=2, bias=False)"
    )


def test_zero_grad():
    net = perceptron()
    net(clnn.ones(2, 5)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


class Counter(nn.Module):
    """Buffers of each kind: saved, not saved, none at all; and a module inside with one of its own."""

    def __init__(self):
        self.register_buffer("total", clnn.zeros(2, 3))
        self.scale = nn.Parameter([2.0, 3.0, 4.0])
        self.register_buffer("scratch", clnn.ones(3), persistent=False)
        self.register_buffer("nothing", None)
        self.norm = nn.BatchNorm2d(2)
        self.plain = clnn.zeros(4)  # no buffer


def test_buffers(device):
    net = Counter()
    own = ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert [name for name, _ in net.named_buffers()] == ["total", "scratch", *own]
    assert [name for name, _ in net.named_parameters()] == ["scale", "norm.weight", "norm.bias"]
    assert list(net.state_dict()) == ["total", "scale", "norm.weight", "norm.bias", *own]
    assert len(list(net.buffers())) == 5
    values = {name: array + i for i, (name, array) in enumerate(net.state_dict().items(), 1)}
    net.load_state_dict(values)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, values[name])
    with pytest.raises(StateDictError, match="missing: total"):
        net.load_state_dict({name: array for name, array in values.items() if name != "total"})
    with pytest.raises(StateDictError, match="not in this model: scratch"):
        net.load_state_dict({**values, "scratch": np.ones(3)})
    net.total = clnn.ones(1)  # another tensor is the buffer then
    assert dict(net.named_buffers())["total"].shape == (1,)
    other = clnn.Device(device.cl_device)
    assert net.to(other) is net and net.plain.device is device
    assert all(t.device is other for t in (*net.buffers(), *net.parameters()))


def test_shared_buffers():
    shared = nn.BatchNorm2d(2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(list(net.buffers())) == 3 and len(net.state_dict()) == 10
    net.load_state_dict(net.state_dict())


# State dicts


def test_state_dict_round_trip(tmp_path):
    first, second = perceptron(), perceptron()
    x = clnn.tensor(numbers(generator(6), 3, 5))
    assert (first(x).numpy() != second(x).numpy()).any()
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first(x).numpy(), second(x).numpy())
    clnn.save(first.state_dict(), tmp_path / "net.safetensors")
    third = perceptron()
    third.load_state_dict(clnn.load(tmp_path / "net.safetensors"))
    np.testing.assert_array_equal(first(x).numpy(), third(x).numpy())


def test_state_dict_is_a_copy():
    net = perceptron()
    state = net.state_dict()
    before = state["0.bias"].copy()
    state["0.bias"][:] = 9
    np.testing.assert_array_equal(net.state_dict()["0.bias"], before)


def test_load_state_dict_takes_what_has_numbers():
    net = nn.Linear(2, 1)
    for values in ([[1.5, -2]], np.array([[1.5, -2]]), clnn.tensor([[1.5, -2]])):
        net.load_state_dict({"weight": values, "bias": [3]})
        assert net.weight.numpy().tolist() == [[1.5, -2]] and net.bias.numpy().tolist() == [3]
    assert net.weight.dtype == np.float32 and net.weight.requires_grad


def changed(state, **changes):
    """The state, all its numbers one higher, with some entries set or, if None, left out."""
    state = {name: values + 1 for name, values in state.items()}
    state.update({name.replace("_", "."): values for name, values in changes.items()})
    return {name: values for name, values in state.items() if values is not None}


@pytest.mark.parametrize("changes, message", [
    (dict(**{"0_weight": None}), "missing: 0.weight$"),
    (dict(**{"0_weight": None, "2_bias": None}), "missing: 0.weight, 2.bias$"),
    (dict(**{"9_weight": np.zeros(1)}), "not in this model: 9.weight$"),
    (dict(**{"2_bias": np.zeros(4)}), r"2.bias has shape \(4,\), the model's \(3,\)$"),
    (dict(**{"2_bias": np.zeros((1, 3))}), r"2.bias has shape \(1, 3\)"),
    (dict(**{"0_weight": np.zeros((5, 4))}), r"0.weight has shape \(5, 4\), the model's \(4, 5\)$"),
    (dict(**{"2_bias": np.array(["a", "b", "c"])}), "2.bias holds <U1$"),
    (dict(**{"2_bias": np.zeros(3, complex)}), "2.bias holds complex128$"),
    (dict(**{"0_bias": None, "x": np.zeros(1), "2_bias": np.zeros(1)}), "missing: 0.bias; not in .*: x; 2.bias has"),
])  # fmt: skip
def test_state_dicts_that_do_not_fit(changes, message):
    net = perceptron()
    before = net.state_dict()
    with pytest.raises(StateDictError, match=message):
        net.load_state_dict(changed(before, **changes))
    for name, values in net.state_dict().items():  # nothing was written
        np.testing.assert_array_equal(values, before[name])


def test_load_state_dict_of_a_part():
    net = perceptron()
    before = net.state_dict()
    net.load_state_dict({"0.bias": np.arange(4), "else": np.zeros(2)}, strict=False)
    after = net.state_dict()
    assert after["0.bias"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(after["0.weight"], before["0.weight"])


def test_to_another_device(device):
    other = clnn.Device(device.cl_device)  # the same hardware, but with memory of its own
    net = perceptron()
    x = numbers(generator(7), 2, 5)
    want = net(clnn.tensor(x)).numpy()
    assert net.to(other) is net and all(p.device is other for p in net.parameters())
    np.testing.assert_array_equal(net(clnn.tensor(x, device=other)).numpy(), want)
    with pytest.raises(DeviceError, match="different devices"):
        net(clnn.tensor(x))
    opt = optim.SGD(net.parameters(), lr=0.1)
    net.to(other)  # is there already: the optimiser stays valid
    net(clnn.tensor(x, device=other)).sum().backward()
    opt.step()


# Hooks


def test_forward_hooks():
    net, calls = perceptron(), []
    handles = [m.register_forward_hook(lambda m, inputs, result: calls.append((m, inputs, result))) for m in net]
    x = clnn.ones(2, 5)
    y = net(x)
    assert [m for m, *_ in calls] == list(net)
    assert calls[0][1][0] is x and calls[1][1][0] is calls[0][2] and calls[-1][2] is y
    handles[1].remove()
    handles[1].remove()  # once more does no harm
    calls.clear()
    net(x)
    assert [m for m, *_ in calls] == [net[0], net[2]]


def test_hooks_that_take_themselves_out_or_change_the_result():
    net, calls = nn.Tanh(), []

    def once(module, inputs, result):
        calls.append(1)
        handle.remove()

    handle = net.register_forward_hook(once)
    net.register_forward_hook(lambda module, inputs, result: result * 2)
    net.register_forward_hook(lambda module, inputs, result: calls.append(result))
    for _ in range(2):
        np.testing.assert_allclose(net(clnn.ones(1)).numpy(), 2 * np.tanh([1]), rtol=1e-6)
    assert calls[0] == 1 and [c.shape for c in calls[1:]] == [(1,), (1,)]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_hooks_see_what_stands_in_the_net(at):
    """Also where Sequential would otherwise pool before the activation."""
    net, seen = pooled_net(nn.MaxPool2d(2), nn.Tanh()), []
    x = clnn.tensor(numbers(generator(11), 2, 2, 9, 9))
    net[at].register_forward_hook(lambda m, inputs, result: seen.append(result.numpy()))
    net(x)
    want = [x]
    for module in net:
        want.append(module(want[-1]))
    np.testing.assert_array_equal(seen[0], want[at + 1].numpy())


# Bad input


def test_what_does_not_fit():
    net = lenet()
    with pytest.raises(ShapeError, match=r"images as \(N, C, H, W\), got shape \(28, 28\)"):
        net(clnn.zeros(28, 28))
    with pytest.raises(ShapeError, match="take 1 channels, the images have 3"):
        net(clnn.zeros(2, 3, 28, 28))
    with pytest.raises(ShapeError, match=r"got \(2, 450\)"):
        net(clnn.zeros(2, 1, 24, 24))
    with pytest.raises(ShapeError, match="window of 5 x 5 does not fit an image of 4 x 4"):
        net(clnn.zeros(2, 1, 4, 4))
    with pytest.raises(DTypeError, match="the input is int32, the weight float32"):
        net(clnn.zeros(2, 1, 28, 28, dtype=np.int32))
    for dtype in dtypes()[1:]:
        with pytest.raises(DTypeError, match="the input is float64, the weight float32"):
            net(clnn.zeros(2, 1, 28, 28, dtype=dtype))
    with pytest.raises(ShapeError, match="is a batch empty"):
        net(clnn.tensor(np.zeros((0, 1, 28, 28))))
    with pytest.raises(LabelError, match="from 0 to 10, but 10 logits"):
        nn.CrossEntropyLoss()(clnn.zeros(2, 10), clnn.tensor([0, 10]))
    assert issubclass(StateDictError, ClnnError) and issubclass(StateDictError, KeyError)


@pytest.mark.parametrize("net", [
    nn.Flatten, perceptron, lambda: nn.Conv2d(1, 2, 3),
    lenet,
])  # fmt: skip
def test_arrays_are_no_tensors(net):
    with pytest.raises(DTypeError, match=r"a Tensor was expected, got ndarray: make one with clnn\.tensor"):
        net()(np.zeros((2, 1, 28, 28) if net is not perceptron else (2, 5), np.float32))


def test_wrong_settings():
    for make in (lambda: nn.Conv2d(3, 4, 3, groups=2), lambda: nn.Conv2d(4, 3, 3, groups=2)):
        with pytest.raises(ShapeError, match="do not divide into 2 groups"):
            make()
    for sizes in ((0, 5), (5, 0), (-1, 2)):
        with pytest.raises(ShapeError, match=f"Linear needs at least one feature .* got {sizes[0]} and {sizes[1]}"):
            nn.Linear(*sizes)
        with pytest.raises(ShapeError, match=f"Conv2d needs at least one channel .* got {sizes[0]} and {sizes[1]}"):
            nn.Conv2d(*sizes, 3)
    with pytest.raises(ShapeError, match="kernel_size must be an integer or a pair"):
        nn.Conv2d(3, 4, (3, 3, 3))
    for size in (0, (3, 0), -1):
        with pytest.raises(ShapeError, match="at least 1 x 1, got kernel_size="):
            nn.Conv2d(3, 4, size)
    with pytest.raises(ValueError, match=r"must lie in 0 \.\. 1, got 1\.5"):
        nn.Dropout(1.5)
    with pytest.raises(ValueError, match="'average'"):
        nn.MSELoss("average")(clnn.zeros(2), clnn.zeros(2))
    with pytest.raises(NotImplementedError, match="Bare defines no forward"):
        type("Bare", (nn.Module,), {})()(clnn.zeros(1))


def test_mean_of_views():
    """The mean over the views of each record, held against SciPy; and through a loader with TenCrop."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    x = numbers(generator(2), 6, 3, 7, 8).astype(np.float32)
    views = clnn.data.TenCrop(4)(x, generator(0))
    got = nn.MeanOfViews(net)(clnn.tensor(views)).numpy()
    logits = views.reshape(60, -1) @ net[1].weight.numpy().T + net[1].bias.numpy()
    want = np.log(special.softmax(logits.astype(float), axis=1).reshape(6, 10, 5).mean(1))
    assert_close(got, want, 1e-5, "views")
    loader = clnn.data.DataLoader((x, np.arange(6) % 5), 4, transform=clnn.data.TenCrop(4))
    metrics = clnn.evaluate(nn.MeanOfViews(net), loader)
    assert metrics.loss == pytest.approx(-want[np.arange(6), np.arange(6) % 5].mean(), rel=1e-4)
