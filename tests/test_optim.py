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


def adam_rule(w, grads, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    """Adam and AdamW as PyTorch's documentation puts them; None is a step without a gradient."""
    t, m, v = state or (0, 0.0, 0.0)
    for grad in grads:
        if grad is None:
            continue
        t += 1
        w = w - lr * weight_decay * w if decoupled else w
        g = grad if decoupled else grad + weight_decay * w
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        w = w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return w, (t, m, v)


@given(
    decoupled=st.booleans(), options=st.fixed_dictionaries(dict(lr=st.sampled_from([0.1, 0.003])), optional=dict(
        betas=st.sampled_from([(0.5, 0.8), (0.0, 0.99)]), eps=st.sampled_from([1e-3, 0.1]),
        weight_decay=st.sampled_from([0.0, 0.3]),
    )), steps=st.integers(1, 6), shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5),
    skipped=st.sets(st.integers(0, 29)), seed=seeds,
)  # fmt: skip
def test_adam(decoupled, options, steps, shapes, skipped, seed):
    """Random settings, shapes, and steps at which some parameters have no gradient, so that their counts differ."""
    usual = dict(weight_decay=0.01) if decoupled else {}
    for dtype in dtypes():
        rng = generator(seed)
        values, tensors = parameters(rng, shapes, dtype)
        opt = (optim.AdamW if decoupled else optim.Adam)(tensors, **options)
        grads = [
            [None if (5 * step + i) in skipped and i else numbers(rng, *shape) for i, shape in enumerate(shapes)]
            for step in range(steps)
        ]
        for step in grads:
            opt.zero_grad()
            give(tensors, step)
            opt.step()
        state = opt.state_dict()["state"]
        limit = 5e-6 if dtype == np.float32 else 1e-12
        for i, (value, t) in enumerate(zip(values, tensors, strict=True)):
            rule = usual | options | dict(decoupled=decoupled)
            want, (count, m, v) = adam_rule(value, [step[i] for step in grads], None, **rule)
            assert_close(t.numpy(), want, limit, f"parameter {i}")
            assert (i in state) == (count > 0)
            if count:
                assert state[i]["step"] == count and set(state[i]) == {"step", "exp_avg", "exp_avg_sq"}
                assert_close(state[i]["exp_avg"], m, limit, f"mean {i}")
                assert_close(state[i]["exp_avg_sq"], v, limit, f"square {i}")


def test_adam_far_from_its_start():
    """A hundred steps: the corrections of the means fade, and tiny gradients still move by about lr."""
    values, tensors = parameters(generator(21), [(50,)])
    grads = [1e-6 * numbers(generator(i), 50) for i in range(100)]
    opt = optim.Adam(tensors, lr=0.01)
    for grad in grads:
        opt.zero_grad()
        give(tensors, [grad])
        opt.step()
    want, _ = adam_rule(values[0], grads, None, lr=0.01)
    assert_close(tensors[0].numpy(), want, 2e-5, "parameter")


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


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_group_of_one_parameter(kind):
    """The parameter itself may stand in place of a list, in a group and alone."""
    found = []
    for wrap in (lambda t: t, lambda t: [t]):
        values, (a, b) = parameters(generator(30), [(4, 3), (4,)])
        opts = [kind([dict(params=wrap(a)), dict(params=wrap(b), lr=0.5)], lr=0.1)]
        give([a, b], values)
        opts[0].step()
        assert [len(g["params"]) for g in opts[0].param_groups] == [1, 1]
        (c,) = parameters(generator(31), [(5,)])[1]
        opts.append(kind(wrap(c), lr=0.1))
        give([c], [np.arange(5)])
        opts[1].step()
        found.append([t.numpy() for t in (a, b, c)])
    for one, listed in zip(*found, strict=True):
        np.testing.assert_array_equal(one, listed)
    for wrong in (3, nn.Linear(2, 1)):
        with pytest.raises(DTypeError, match=r"expected a list of parameters, got (int|Linear): give net"):
            kind([dict(params=wrong)], lr=0.1)


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


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_groups_of_adam(kind):
    """Rates and decay of their own for weights and biases, changed between steps."""
    rng = generator(22)
    values, tensors = parameters(rng, [(4, 3), (4,), (2, 4), (2,)])
    opt = kind([dict(params=tensors[::2]), dict(params=tensors[1::2], lr=0.02, weight_decay=0.0)], lr=0.01,
               weight_decay=0.1)  # fmt: skip
    states, wanted = [None] * 4, values
    for step in range(4):
        opt.param_groups[0]["lr"] = 0.01 / (1 + step)
        grads = [numbers(rng, *v.shape) for v in values]
        opt.zero_grad()
        give(tensors, grads)
        opt.step()
        for i in range(4):
            rule = dict(lr=0.02) if i % 2 else dict(lr=0.01 / (1 + step), weight_decay=0.1)
            rule |= dict(decoupled=kind is optim.AdamW)
            wanted[i], states[i] = adam_rule(wanted[i], [grads[i]], states[i], **rule)
    for t, want in zip(tensors, wanted, strict=True):
        assert_close(t.numpy(), want, 5e-6, "parameter")


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that clnn.optim launches."""
    names, launch = [], optim.launch_each

    def record(device, knl, *args, **options):
        names.append(knl.function_name)
        launch(device, knl, *args, **options)

    monkeypatch.setattr(optim, "launch_each", record)
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


def test_one_launch_a_group_of_adam(launches):
    """Two where some parameters have seen fewer steps, whose corrections differ."""
    _, tensors = parameters(generator(23), SHAPES)
    opt = optim.AdamW([dict(params=tensors[:4]), dict(params=tensors[4:], lr=0.01)])
    for missing, expected in ((None, 2), (5, 2), (None, 3)):
        launches.clear()
        opt.zero_grad()
        give(tensors, [None if i == missing else np.ones(s) for i, s in enumerate(SHAPES)])
        opt.step()
        assert launches == ["adam"] * expected


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


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_state_dict_of_adam(kind):
    """Another optimiser goes on from it to the same bits; its layout is PyTorch's."""
    rng, shapes = generator(24), [(3, 2), (5,), ()]
    _, tensors = parameters(rng, shapes)
    grads = [[numbers(rng, *s) for s in shapes] for _ in range(5)]
    grads[1][2] = None

    def run(opt, tensors, steps):
        for step in steps:
            opt.zero_grad()
            give(tensors, step)
            opt.step()

    opt = kind([dict(params=tensors[:1]), dict(params=tensors[1:], lr=0.2)], lr=0.1, betas=(0.8, 0.9))
    run(opt, tensors, grads[:3])
    state, weights = opt.state_dict(), [t.numpy() for t in tensors]
    assert [float(state["state"][i]["step"]) for i in range(3)] == [3, 3, 2]
    decay = 0.0 if kind is optim.Adam else 0.01
    usual = dict(betas=(0.8, 0.9), eps=1e-8, weight_decay=decay)
    assert state["param_groups"] == [dict(lr=0.1, **usual), dict(lr=0.2, **usual)]
    run(opt, tensors, grads[3:])
    again = [clnn.tensor(w, requires_grad=True) for w in weights]
    resumed = kind([dict(params=again[:1]), dict(params=again[1:])])
    run(resumed, again, grads[:1])  # means of its own, to be forgotten
    for t, w in zip(again, weights, strict=True):
        t.copy_(w)
    groups = [{**g, "betas": list(g["betas"]), "amsgrad": False} for g in state["param_groups"]]  # as from a file
    resumed.load_state_dict({"state": state["state"], "param_groups": groups})
    run(resumed, again, grads[3:])
    for t, other in zip(tensors, again, strict=True):
        np.testing.assert_array_equal(t.numpy(), other.numpy())
    sgd = optim.SGD(parameters(rng, shapes)[1], lr=0.1)
    with pytest.raises(StateDictError, match="other parameters"):
        sgd.load_state_dict({**state, "param_groups": sgd.state_dict()["param_groups"]})


def test_a_state_without_momentum():
    """PyTorch's SGD without momentum stores None."""
    _, tensors = parameters(generator(25), [(3,), ()])
    opt = optim.SGD(tensors, lr=0.1)
    groups = opt.state_dict()["param_groups"]
    opt.load_state_dict({"state": {0: {"momentum_buffer": None}, 1: {"momentum_buffer": None}}, "param_groups": groups})
    assert opt.state_dict()["state"] == {}


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
    for options in (dict(lr=-1), dict(eps=-1), dict(weight_decay=-0.1)):
        for kind in (optim.Adam, optim.AdamW):
            with pytest.raises(ValueError, match="must not be negative"):
                kind([x], **options)
    for betas in ((0.9, 1.0), (-0.1, 0.9), (0.9,)):
        with pytest.raises(ValueError, match="from 0 to below 1"):
            optim.Adam([x], betas=betas)
    assert issubclass(DTypeError, ClnnError)


# Clipping


@given(
    shapes=st.lists(st.sampled_from([*SHAPES, (3000,)]), min_size=1, max_size=6), max_norm=st.sampled_from([0.5, 1e4]),
    optimised=st.booleans(), missing=st.booleans(), seed=seeds,
)  # fmt: skip
def test_clip_grad_norm(shapes, max_norm, optimised, missing, seed):
    """Longer gradients are shortened together, shorter ones stay to the bit; with and without an optimiser."""
    for dtype in dtypes():
        rng = generator(seed)
        _, tensors = parameters(rng, shapes, dtype)
        opt = optim.SGD(tensors, lr=1.0) if optimised else None
        grads = [None if missing and i == 1 else numbers(rng, *s) for i, s in enumerate(shapes)]
        give(tensors, grads)
        before = [t.numpy() for t in tensors]
        norm = optim.clip_grad_norm_(tensors, max_norm)
        length = np.sqrt(sum((g**2).sum() for g in grads if g is not None))
        limit = 2e-6 if dtype == np.float32 else 1e-13
        assert norm.shape == () and norm.dtype == dtype
        assert_close(norm.numpy(), length, limit, "length")
        factor = min(max_norm / (length + 1e-6), 1)
        for t, g in zip(tensors, grads, strict=True):
            assert (t.grad is None) == (g is None)
            if g is None:
                continue
            if factor == 1:
                np.testing.assert_array_equal(t.grad.numpy(), g.astype(dtype))
            assert_close(t.grad.numpy(), g * factor, limit * 2, "gradient")
        if opt:
            opt.step()
            for t, former, g in zip(tensors, before, grads, strict=True):
                assert_close(t.numpy(), former if g is None else former - g * factor, limit * 2, "step")


def test_clipping_leaves_other_gradients_alone():
    """One array may be the gradient of two tensors, and the one that was given to backward."""
    a, b, g = clnn.zeros(4, requires_grad=True), clnn.zeros(4, requires_grad=True), clnn.full((4,), 3.0)
    (a + b).backward(g)
    norm = optim.clip_grad_norm_([a], 1.0)
    assert norm.item() == 6
    assert_close(a.grad.numpy(), np.full(4, 0.5), 1e-6, "shortened")
    assert b.grad.numpy().tolist() == g.numpy().tolist() == [3.0] * 4
    optim.clip_grad_value_([b], 2.0)
    assert b.grad.numpy().tolist() == [2.0] * 4 and g.numpy().tolist() == [3.0] * 4


def test_clip_grad_value():
    values, tensors = parameters(generator(26), SHAPES)
    opt = optim.SGD(tensors, lr=1.0)
    grads = [numbers(generator(27), *s) for s in SHAPES]
    give(tensors, grads[:-1] + [None])
    optim.clip_grad_value_((t for t in tensors), 0.75)
    opt.step()
    for i, (value, t) in enumerate(zip(values, tensors, strict=True)):
        step = np.clip(grads[i], -0.75, 0.75) if i < len(SHAPES) - 1 else 0
        assert_close(t.numpy(), value - step, 1e-6, f"parameter {i}")


def test_clipping_without_gradients_and_with_nan(device):
    _, tensors = parameters(generator(28), [(3,), (2,)])
    assert optim.clip_grad_norm_(tensors, 1.0).item() == 0
    optim.clip_grad_value_(tensors, 1.0)
    give(tensors, [np.array([1.0, np.nan, 2.0]), np.ones(2)])
    assert np.isnan(optim.clip_grad_norm_(tensors, 1.0).item())
    assert np.isnan(tensors[1].grad.numpy()).all()  # it shows at once, as in PyTorch
    assert optim.clip_grad_norm_(tensors[0], 1.0).shape == ()  # one tensor, too
    if device.fp64:
        double = clnn.tensor([1.0], np.float64, requires_grad=True)
        double.sum().backward()
        with pytest.raises(DTypeError, match="gradients of one type"):
            optim.clip_grad_norm_([*tensors, double], 1.0)


SCHEDULES = {
    "StepLR": (lambda o: lr_scheduler.StepLR(o, 3, 0.5), lambda e: 0.5 ** (e // 3)),
    "MultiStepLR": (lambda o: lr_scheduler.MultiStepLR(o, [5, 2], 0.1), lambda e: 0.1 ** ((e >= 2) + (e >= 5))),
    "ExponentialLR": (lambda o: lr_scheduler.ExponentialLR(o, 0.9), lambda e: 0.9**e),
    "CosineAnnealingLR": (lambda o: lr_scheduler.CosineAnnealingLR(o, 6), lambda e: (1 + np.cos(np.pi * e / 6)) / 2),
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


def test_cosine_to_a_floor():
    """eta_min is a rate and no factor: each group falls from its own to it."""
    _, tensors = parameters(generator(29), [(2,), (3,)])
    opt = optim.SGD([dict(params=tensors[:1]), dict(params=tensors[1:], lr=2.0)], lr=0.4)
    schedule = lr_scheduler.CosineAnnealingLR(opt, 4, eta_min=0.1)
    found = []
    for _ in range(5):
        found.append(schedule.get_last_lr())
        schedule.step()
    shape = (1 + np.cos(np.pi * np.arange(5) / 4)) / 2
    np.testing.assert_allclose(np.transpose(found), [0.1 + 0.3 * shape, 0.1 + 1.9 * shape], rtol=1e-12)
