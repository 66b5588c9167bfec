"""Optimisers and schedules against their rules, written again in NumPy."""

import numpy as np
import pytest
from helpers import assert_close, dtypes, generator, numbers, seeds
from hypothesis import given
from hypothesis import strategies as st

import clnn
from clnn import modules as nn
from clnn import optim
from clnn.errors import ClnnError, DTypeError, StateDictError
from clnn.optim import lr_scheduler

pytestmark = pytest.mark.usefixtures("device")

SHAPES = [(3, 5), (1,), (2, 3, 4), (), (257,), (17, 31)]


def sgd_rule(w, grads, velocity, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """One parameter's value after each gradient, as PyTorch's documentation puts it; None is a step without one."""
    for grad in grads:
        if grad is None:
            continue
        g = grad + weight_decay * w
        if momentum:
            velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
            g = g + momentum * velocity if nesterov else velocity
        w = w - lr * g
    return w, velocity


def parameters(rng, shapes, dtype=np.float32):
    values = [numbers(rng, *shape) for shape in shapes]
    return values, [clnn.tensor(v, dtype, requires_grad=True) for v in values]


def give(tensors, grads):
    """Let a backward pass put these gradients there."""
    total = sum(((t * clnn.tensor(g, t.dtype)).sum() for t, g in zip(tensors, grads, strict=True) if g is not None))
    total.backward()


settings_of_sgd = st.fixed_dictionaries(
    dict(lr=st.sampled_from([0.1, 0.03]), weight_decay=st.sampled_from([0, 0.01])),
    optional=dict(momentum=st.sampled_from([0.5, 0.9])),
).flatmap(
    lambda s: st.fixed_dictionaries(
        {name: st.just(value) for name, value in s.items()},
        optional=dict(dampening=st.sampled_from([0.25])) if "momentum" in s else {},
    )
)


@given(
    options=settings_of_sgd, nesterov=st.booleans(), steps=st.integers(1, 5),
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5), skipped=st.sets(st.integers(0, 24)), seed=seeds,
)  # fmt: skip
def test_sgd(options, nesterov, steps, shapes, skipped, seed):
    """Random settings, shapes, and steps at which some parameters have no gradient."""
    if nesterov and "momentum" in options and "dampening" not in options:
        options = {**options, "nesterov": True}
    for dtype in dtypes():
        rng = generator(seed)
        values, tensors = parameters(rng, shapes, dtype)
        opt = optim.SGD(tensors, **options)
        grads = [
            [None if (5 * step + i) in skipped and i else numbers(rng, *shape) for i, shape in enumerate(shapes)]
            for step in range(steps)
        ]
        for step in grads:
            opt.zero_grad()
            give(tensors, step)
            opt.step()
        for i, (value, t) in enumerate(zip(values, tensors, strict=True)):
            want, velocity = sgd_rule(value, [step[i] for step in grads], None, **options)
            assert_close(t.numpy(), want, 2e-6 if dtype == np.float32 else 1e-13, f"parameter {i}")
            state = opt.state_dict()["state"]
            assert (i in state) == (velocity is not None)
            if velocity is not None:
                limit = 2e-6 if dtype == np.float32 else 1e-13
                assert_close(state[i]["momentum_buffer"], velocity, limit, f"momentum {i}")


def test_settings_change_between_steps():
    values, tensors = parameters(generator(1), [(4, 3)])
    opt = optim.SGD(tensors, lr=0.1, dampening=0.5)
    grads = [numbers(generator(i), 4, 3) for i in range(3)]
    w, velocity = values[0], None
    for grad, options in zip(
        grads, (dict(lr=0.1), dict(lr=0.02, momentum=0.9), dict(lr=0.5, momentum=0.7)), strict=True
    ):
        opt.param_groups[0].update(options)
        opt.zero_grad()
        give(tensors, [grad])
        opt.step()
        w, velocity = sgd_rule(w, [grad], velocity, dampening=0.5, **options)
        assert_close(tensors[0].numpy(), w, 2e-6, "parameter")


def test_groups():
    rng = generator(2)
    values, tensors = parameters(rng, [(3,), (4, 2), (5,)])
    opt = optim.SGD(
        [dict(params=tensors[:1], lr=0.5), dict(params=tensors[1:], momentum=0.9)], lr=0.1, weight_decay=0.1
    )
    grads = [[numbers(rng, *v.shape) for v in values] for _ in range(3)]
    for step in grads:
        opt.zero_grad()
        give(tensors, step)
        opt.step()
    for i, options in enumerate((dict(lr=0.5), dict(lr=0.1, momentum=0.9), dict(lr=0.1, momentum=0.9))):
        want, _ = sgd_rule(values[i], [step[i] for step in grads], None, weight_decay=0.1, **options)
        assert_close(tensors[i].numpy(), want, 2e-6, f"parameter {i}")


def test_types_mix_in_one_group(device):
    if not device.fp64:
        pytest.skip("the device has no float64")
    rng = generator(3)
    (single,), [a] = parameters(rng, [(5,)])
    (double,), [b] = parameters(rng, [(3,)], np.float64)
    opt = optim.SGD([a, b], lr=0.1, momentum=0.5)
    for _ in range(2):
        opt.zero_grad()
        (a.sum().double() + (b * b).sum()).backward()
        opt.step()
    assert a.dtype == np.float32 and b.dtype == np.float64
    assert_close(a.numpy(), sgd_rule(single, [1, 1], None, 0.1, 0.5)[0], 1e-6, "float32")
    w, v = sgd_rule(double, [2 * double], None, 0.1, 0.5)
    assert_close(b.numpy(), sgd_rule(w, [2 * w], v, 0.1, 0.5)[0], 1e-14, "float64")


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that clnn.optim launches."""
    names, launch = [], optim.launch

    def record(device, knl, *args, **options):
        names.append(knl.function_name)
        launch(device, knl, *args, **options)

    monkeypatch.setattr(optim, "launch", record)
    return names


def test_one_launch_a_group(launches):
    _, tensors = parameters(generator(4), SHAPES)
    opt = optim.SGD([dict(params=tensors[:4]), dict(params=tensors[4:], lr=0.01)], lr=0.1, momentum=0.9)
    for _ in range(3):
        launches.clear()
        opt.zero_grad()
        give(tensors, [np.ones(s) for s in SHAPES])
        opt.step()
        assert launches == ["sgd", "sgd"]
    launches.clear()
    opt.zero_grad()
    opt.step()  # nothing has a gradient
    assert launches == []


def test_gradients_are_written_in_place():
    """Products write straight into the optimiser's block; what comes from elsewhere is copied there."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    optim.SGD(net.parameters(), lr=0.1)
    net(clnn.ones(5, 4)).sum().backward()
    for p in net.parameters():
        assert p.grad.array is p._grad_slot
    slots = {id(p.grad.array) for p in net.parameters()}
    net(clnn.ones(5, 4)).sum().backward()  # adds to them
    assert {id(p.grad.array) for p in net.parameters()} == slots


def test_a_parameter_used_twice():
    x = numbers(generator(5), 6, 3)
    found = []
    for optimised in (False, True):
        clnn.manual_seed(1)
        layer = nn.Linear(3, 3)
        if optimised:
            optim.SGD(layer.parameters(), lr=0.1)
        layer(layer(clnn.tensor(x)).tanh()).sum().backward()
        (layer.weight * 2).sum().backward()
        found.append([p.grad.numpy() for p in layer.parameters()])
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-6, "gradient")


def test_gradients_from_before_the_optimiser():
    values, tensors = parameters(generator(6), [(4,), (2, 2)])
    give(tensors, [np.full((4,), 2.0), np.full((2, 2), 3.0)])
    opt = optim.SGD(tensors, lr=0.1)
    opt.step()
    for value, t, slope in zip(values, tensors, (2, 3), strict=True):
        assert_close(t.numpy(), value - 0.1 * slope, 1e-6, "parameter")
    tensors[0].grad = clnn.tensor([1.0, 2.0, 3.0, 4.0])  # and one set by hand
    tensors[1].grad = None
    before = tensors[1].numpy()
    opt.step()
    assert_close(tensors[0].numpy(), values[0] - 0.2 - 0.1 * np.arange(1, 5), 1e-6, "by hand")
    np.testing.assert_array_equal(tensors[1].numpy(), before)


def test_zero_grad():
    _, tensors = parameters(generator(7), [(3,)])
    opt = optim.SGD(tensors, lr=0.1)
    for expected in (1, 2):
        tensors[0].sum().backward()
        assert tensors[0].grad.numpy().tolist() == [expected] * 3
    opt.zero_grad()
    assert tensors[0].grad is None
    tensors[0].sum().backward()
    assert tensors[0].grad.numpy().tolist() == [1] * 3


def test_parameters_stay_usable():
    """In the optimiser's block they keep values, shapes and state dicts, and are copied into as before."""
    net = nn.Linear(3, 2)
    before, x = net.state_dict(), clnn.tensor(numbers(generator(8), 4, 3))
    y = net(x).numpy()
    optim.SGD(net.parameters(), lr=0.1)
    for name, values in net.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    np.testing.assert_array_equal(net(x).numpy(), y)
    net.load_state_dict({name: values + 1 for name, values in before.items()})
    np.testing.assert_array_equal(net.bias.numpy(), before["bias"] + 1)
    np.testing.assert_array_equal(net.weight.numpy(), before["weight"] + 1)
    np.testing.assert_array_equal(net.weight[1:].numpy(), before["weight"][1:] + 1)


def test_a_second_optimiser():
    values, tensors = parameters(generator(9), [(3,), (2, 2)])
    first = optim.SGD(tensors, lr=0.1)
    second = optim.SGD(tensors, lr=0.1)
    give(tensors, [np.ones(3), np.ones((2, 2))])
    with pytest.raises(clnn.OptimizerError, match=r"another optimiser was made for these parameters .* its step\(\)"):
        first.step()
    second.step()
    for value, t in zip(values, tensors, strict=True):
        assert_close(t.numpy(), value - 0.1, 1e-6, "parameter")


def test_same_bits_every_time():
    results = []
    for _ in range(2):
        clnn.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(125, 3)
        )
        opt = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        x, y = clnn.randn(9, 1, 12, 12), clnn.arange(9).astype(np.float32).numpy().astype(int) % 3
        for _ in range(4):
            opt.zero_grad()
            nn.CrossEntropyLoss()(net(x), clnn.tensor(y)).backward()
            opt.step()
        results.append(net.state_dict())
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name])


def test_state_dict_round_trip():
    rng = generator(10)
    shapes = [(3, 2), (5,), (4,)]
    _, tensors = parameters(rng, shapes)
    grads = [[numbers(rng, *s) for s in shapes] for _ in range(4)]
    grads[0][2] = grads[1][2] = None  # the last parameter starts late

    def run(opt, tensors, steps):
        for step in steps:
            opt.zero_grad()
            give(tensors, step)
            opt.step()

    opt = optim.SGD(tensors, lr=0.1, momentum=0.9, dampening=0.2)
    run(opt, tensors, grads[:2])
    state, weights = opt.state_dict(), [t.numpy() for t in tensors]
    assert set(state["state"]) == {0, 1}
    assert state["param_groups"] == [dict(lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.0, nesterov=False)]
    run(opt, tensors, grads[2:])
    again = [clnn.tensor(w, requires_grad=True) for w in weights]
    resumed = optim.SGD(again, lr=0.7)
    run(resumed, again, grads[:1])  # momentum of its own, to be forgotten
    for t, w in zip(again, weights, strict=True):
        t.copy_(w)
    resumed.load_state_dict(state)
    run(resumed, again, grads[2:])
    for t, other in zip(tensors, again, strict=True):
        np.testing.assert_array_equal(t.numpy(), other.numpy())


def test_state_dicts_that_do_not_fit():
    _, tensors = parameters(generator(11), [(3,), (2,)])
    opt = optim.SGD(tensors, lr=0.1, momentum=0.9)
    give(tensors, [np.ones(3), np.ones(2)])
    opt.step()
    good = opt.state_dict()
    for wrong, message in (
        ({}, "missing"),
        ({"state": {}}, "missing: {'param_groups'}"),
        ({**good, "state": {0: {"momentum_buffer": np.zeros(4)}}}, "other parameters"),
        ({**good, "state": {2: {"momentum_buffer": np.zeros(3)}}}, "other parameters"),
        ({**good, "param_groups": good["param_groups"] * 2}, "other parameters"),
    ):
        with pytest.raises(StateDictError, match=message):
            opt.load_state_dict(wrong)
    after = opt.state_dict()
    assert after["param_groups"] == good["param_groups"]
    for i in (0, 1):
        np.testing.assert_array_equal(after["state"][i]["momentum_buffer"], good["state"][i]["momentum_buffer"])


def test_what_no_optimiser_takes():
    x = clnn.tensor([1.0, 2.0], requires_grad=True)
    for wrong in (nn.Linear(2, 1), nn.Sequential(nn.Linear(2, 1)), [clnn.tensor([1, 2])], [x * 2], [np.ones(2)], 3):
        with pytest.raises(DTypeError, match=r"give net\.parameters\(\)"):
            optim.SGD(wrong, lr=0.1)
    for wrong in ([], [x, x], [dict(params=[x]), dict(params=[x])], nn.Tanh().parameters()):
        with pytest.raises(ValueError, match="needs parameters, each once"):
            optim.SGD(wrong, lr=0.1)
    for options in (dict(lr=-1), dict(momentum=-0.1), dict(weight_decay=-1)):
        with pytest.raises(ValueError, match="must not be negative"):
            optim.SGD([x], **options)
    for options in (dict(nesterov=True), dict(nesterov=True, momentum=0.9, dampening=0.1)):
        with pytest.raises(ValueError, match="nesterov needs a momentum"):
            optim.SGD([x], **options)
    assert issubclass(DTypeError, ClnnError)


SCHEDULES = {
    "StepLR": (lambda o: lr_scheduler.StepLR(o, 3, 0.5), lambda e: 0.5 ** (e // 3)),
    "MultiStepLR": (lambda o: lr_scheduler.MultiStepLR(o, [5, 2], 0.1), lambda e: 0.1 ** ((e >= 2) + (e >= 5))),
    "ExponentialLR": (lambda o: lr_scheduler.ExponentialLR(o, 0.9), lambda e: 0.9**e),
    "LambdaLR": (lambda o: lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e)), lambda e: 1 / (1 + e)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    make, factor = SCHEDULES[name]
    _, tensors = parameters(generator(12), [(2,), (3,)])
    opt = optim.SGD([dict(params=tensors[:1]), dict(params=tensors[1:], lr=2.0)], lr=0.4)
    schedule = make(opt)
    assert type(schedule) is getattr(lr_scheduler, name)
    for epoch in range(8):
        np.testing.assert_allclose(schedule.get_last_lr(), [0.4 * factor(epoch), 2 * factor(epoch)], rtol=1e-12)
        np.testing.assert_allclose([g["lr"] for g in opt.param_groups], schedule.get_last_lr())
        schedule.step()
    state = schedule.state_dict()
    fresh = optim.SGD(parameters(generator(13), [(2,), (3,)])[1], lr=9.0)
    fresh.param_groups = [dict(g) for g in opt.param_groups]
    resumed = make(fresh)
    resumed.load_state_dict(state)
    for schedule_ in (schedule, resumed):
        schedule_.step()
    np.testing.assert_allclose(resumed.get_last_lr(), schedule.get_last_lr(), rtol=1e-12)
    np.testing.assert_allclose(resumed.get_last_lr(), [0.4 * factor(9), 2 * factor(9)], rtol=1e-12)


def test_a_schedule_changes_the_steps():
    values, tensors = parameters(generator(14), [(3,)])
    opt = optim.SGD(tensors, lr=1.0)
    schedule = lr_scheduler.StepLR(opt, step_size=2, gamma=0.1)
    for _ in range(4):
        opt.zero_grad()
        give(tensors, [np.ones(3)])
        opt.step()
        schedule.step()
    assert_close(tensors[0].numpy(), values[0] - (1 + 1 + 0.1 + 0.1), 1e-6, "parameter")
