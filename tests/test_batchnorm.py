"""Batch normalisation against NumPy, its gradients against numeric ones."""

import math

import numpy as np
import pytest
from helpers import assert_close, check, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn import modules as nn
from clnn.errors import DeviceError, DTypeError, ShapeError
from clnn.ops import batch_norm

pytestmark = pytest.mark.usefixtures("device")

AXES = {2: (0,), 3: (0, 2), 4: (0, 2, 3), 5: (0, 2, 3, 4)}
PLACES = [(), (1,), (7,), (3, 2), (1, 5), (4, 4), (2, 1, 3)]


def per_channel(v, ndim):
    return np.reshape(v, (-1,) + (1,) * (ndim - 2))


def normalised(x, weight=None, bias=None, mean=None, var=None, eps=1e-5):
    """The definition; mean and variance are x's own unless given."""
    axes = AXES[x.ndim]
    mean = x.mean(axes) if mean is None else mean
    var = x.var(axes) if var is None else var
    y = (x - per_channel(mean, x.ndim)) / np.sqrt(per_channel(var, x.ndim) + eps)
    y = y if weight is None else y * per_channel(weight, x.ndim)
    return y if bias is None else y + per_channel(bias, x.ndim)


def running(channels, mean=0.0, var=1.0, dtype=np.float32):
    return [clnn.full((channels,), value, dtype=dtype) for value in (mean, var)]


@given(
    count=st.sampled_from([1, 2, 3, 5]), channels=st.sampled_from([1, 2, 3, 5]), places=st.sampled_from(PLACES),
    learned=st.sampled_from(["", "w", "b", "wb"]), eps=st.sampled_from([1e-5, 0.1]), seed=seeds,
)  # fmt: skip
@settings(max_examples=30)
def test_training(form, count, channels, places, learned, eps, seed):
    """Any number of dimensions, with weight, bias, both or neither."""
    count = max(count, 3 if math.prod(places) == 1 else 1)  # of two numbers the gradient all but vanishes
    rng = generator(seed)
    x = numbers(rng, count, channels, *places)
    extra = [numbers(rng, channels) for _ in learned]

    def options(t):
        return {name: v for name, v in zip([{"w": "weight", "b": "bias"}[c] for c in learned], t, strict=True)}

    check(
        lambda t, *more: batch_norm(t, None, None, **options(more), training=True, eps=eps),
        lambda v, *more: normalised(v, **options(more), eps=eps),
        x, *extra, limit=2e-5, limit64=1e-10, numeric=2e-5,
    )  # fmt: skip


@given(
    count=st.sampled_from([1, 2, 3]), channels=st.sampled_from([1, 2, 5]), places=st.sampled_from(PLACES), seed=seeds
)
@settings(max_examples=15)
def test_evaluation(form, count, channels, places, seed):
    rng = generator(seed)
    x, weight, bias = numbers(rng, count, channels, *places), numbers(rng, channels), numbers(rng, channels)
    mean, var = numbers(rng, channels), rng.uniform(0.5, 3, channels).astype(np.float32).astype(float)

    def compute(t, w, b):
        return batch_norm(t, clnn.tensor(mean, t.dtype), clnn.tensor(var, t.dtype), w, b)

    check(compute, lambda v, w, b: normalised(v, w, b, mean, var), x, weight, bias)


@pytest.mark.parametrize("shape", [(5, 3, 33, 31), (300, 2, 1, 1), (70, 4, 3, 3), (2, 3, 40, 90), (9, 70)])
def test_larger_batches(form, shape):
    """More numbers than a group takes at once; the gradient against the formula."""
    rng = generator(3)
    x, g, weight, bias = [numbers(rng, *s) for s in (shape, shape, shape[1:2], shape[1:2])]
    axes, n = AXES[len(shape)], x.size / shape[1]
    hat, w = normalised(x), per_channel(weight, x.ndim)
    rstd = 1 / np.sqrt(per_channel(x.var(axes), x.ndim) + 1e-5)
    db, dw = g.sum(axes), (g * hat).sum(axes)
    dx = w * rstd * (g - per_channel(db, x.ndim) / n - hat * per_channel(dw, x.ndim) / n)
    for dtype in dtypes():
        t = [clnn.tensor(v, dtype, requires_grad=True) for v in (x, weight, bias)]
        y = batch_norm(t[0], None, None, *t[1:], training=True)
        y.backward(clnn.tensor(g, dtype))
        limit = 2e-6 if dtype == np.float32 else 1e-13
        assert_close(y.numpy(), normalised(x, weight, bias), limit, "value")
        for got, want, name in zip(t, (dx, dw, db), ("input", "weight", "bias"), strict=True):
            assert_close(got.grad.numpy(), want, limit * 5, f"gradient of the {name}")


@pytest.mark.parametrize("shift", [1e3, -3e4])
def test_a_large_mean_costs_no_digits(form, shift):
    """Where the mean of the squares less the square of the mean would be off by many times the variance."""
    x = (generator(4).standard_normal((16, 3, 20, 21)) + shift).astype(np.float32)
    stats = running(3)
    y = batch_norm(clnn.tensor(x), *stats, training=True, momentum=1.0)
    want = x.astype(float)
    spacing = abs(np.spacing(np.float32(shift)))  # how exactly float32 can tell the mean at all
    np.testing.assert_allclose(y.numpy(), normalised(want), atol=2 * spacing + 1e-5)
    np.testing.assert_allclose(stats[0].numpy(), want.mean((0, 2, 3)), atol=2 * spacing)
    np.testing.assert_allclose(stats[1].numpy(), want.var((0, 2, 3), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics(form, momentum):
    """PyTorch's rule: the mean, and the variance with n - 1, each mixed into the former; with None the plain mean."""
    layer = nn.BatchNorm2d(3, momentum=momentum)
    mean, var = np.zeros(3), np.ones(3)
    for step in range(1, 5):
        x = numbers(generator(step), step, 3, 4, 5) * step
        layer(clnn.tensor(x))
        share = 1 / step if momentum is None else momentum
        mean = (1 - share) * mean + share * x.mean((0, 2, 3))
        var = (1 - share) * var + share * x.var((0, 2, 3), ddof=1)
        assert_close(layer.running_mean.numpy(), mean, 2e-6, "mean")
        assert_close(layer.running_var.numpy(), var, 2e-6, "variance")
        assert layer.num_batches_tracked.item() == step
    x = numbers(generator(9), 2, 3, 4, 5)
    y = layer.eval()(clnn.tensor(x)).numpy()
    assert_close(y, normalised(x, mean=mean, var=var), 5e-6, "evaluation")
    assert layer.num_batches_tracked.item() == 4  # evaluation does not count


def test_module(form):
    rng = generator(5)
    layer = nn.BatchNorm2d(4, eps=0.01)
    assert repr(layer) == "BatchNorm2d(4, eps=0.01, momentum=0.1, affine=True, track_running_stats=True)"
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in layer.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]
    assert layer.weight.numpy().tolist() == [1] * 4 and layer.bias.numpy().tolist() == [0] * 4
    assert layer.running_mean.numpy().tolist() == [0] * 4 and layer.running_var.numpy().tolist() == [1] * 4
    x = numbers(rng, 3, 4, 2, 5)
    assert_close(layer(clnn.tensor(x)).numpy(), normalised(x, eps=0.01), 2e-6, "value")
    layer.load_state_dict({"weight": [1, 2, 3, 4], "bias": [5, 6, 7, 8]}, strict=False)
    want = normalised(x, np.arange(1, 5), np.arange(5, 9), eps=0.01)
    assert_close(layer(clnn.tensor(x)).numpy(), want, 2e-6, "learned")
    plain = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    assert plain.state_dict() == {} and list(plain.parameters()) == []
    for module in (plain, plain.eval()):  # without running statistics always the batch's
        assert_close(module(clnn.tensor(x)).numpy(), normalised(x), 2e-6, "plain")


def test_state_dict_both_ways():
    first = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    for seed in range(3):
        first(clnn.tensor(numbers(generator(seed), 4, 2, 6, 6)))
    state = first.state_dict()
    assert {n: (v.shape, v.dtype.name) for n, v in state.items() if n.startswith("1.")} == {
        "1.weight": ((3,), "float32"), "1.bias": ((3,), "float32"), "1.running_mean": ((3,), "float32"),
        "1.running_var": ((3,), "float32"), "1.num_batches_tracked": ((), "int32"),
    }  # fmt: skip
    state["1.num_batches_tracked"] = state["1.num_batches_tracked"].astype(np.int64)  # as PyTorch keeps it
    second = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    second.load_state_dict(state)
    assert second[1].num_batches_tracked.item() == 3
    x = clnn.tensor(numbers(generator(7), 2, 2, 6, 6))
    np.testing.assert_array_equal(second.eval()(x).numpy(), first.eval()(x).numpy())


def test_same_bits_every_time(form):
    x, g = numbers(generator(8), 7, 5, 9, 8), numbers(generator(9), 7, 5, 9, 8)
    found = []
    for _ in range(2):
        t, stats = clnn.tensor(x, requires_grad=True), running(5)
        w = clnn.ones(5, requires_grad=True)
        y = batch_norm(t, *stats, w, training=True)
        y.backward(clnn.tensor(g))
        found.append([v.numpy() for v in (y, t.grad, w.grad, *stats)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_what_is_wanted(form):
    """Gradients of weight and bias alone, or of the bias alone, as beside the others."""
    x, g = numbers(generator(10), 3, 4, 5, 2), numbers(generator(11), 3, 4, 5, 2)
    found = {}
    for wanted in ((0, 1, 2), (1, 2), (2,), (0,)):
        t = [clnn.tensor(v, requires_grad=i in wanted) for i, v in enumerate((x, np.full(4, 2.0), np.ones(4)))]
        batch_norm(t[0], None, None, *t[1:], training=True).backward(clnn.tensor(g))
        for i in wanted:
            np.testing.assert_array_equal(t[i].grad.numpy(), found.setdefault(i, t[i].grad.numpy()))
        assert all(t[i].grad is None for i in range(3) if i not in wanted)


def test_what_does_not_fit(device):
    x = clnn.ones(2, 3, 4, 5)
    with pytest.raises(ShapeError, match=r"2 dimensions or more, got \(4,\)"):
        batch_norm(clnn.ones(4), *running(4))
    with pytest.raises(ShapeError, match=r"running_var has shape \(4,\); expected \(3,\)"):
        batch_norm(x, clnn.zeros(3), clnn.ones(4))
    with pytest.raises(ShapeError, match=r"weight has shape \(3, 1\)"):
        batch_norm(x, *running(3), clnn.ones(3, 1))
    with pytest.raises(DTypeError, match="running_mean is int32, the input float32"):
        batch_norm(x, clnn.zeros(3, dtype=np.int32), clnn.ones(3))
    with pytest.raises(ValueError, match="needs running_mean and running_var"):
        batch_norm(x, None, None)
    with pytest.raises(ShapeError, match=r"\(1, 3, 1, 1\) has one number a channel"):
        batch_norm(clnn.ones(1, 3, 1, 1), *running(3), training=True)
    with pytest.raises(DeviceError, match="different devices"):
        batch_norm(x, *[t.to(clnn.Device(device.cl_device)) for t in running(3)])
    with pytest.raises(ShapeError, match=r"images as \(N, 5, H, W\), got shape \(2, 3, 4, 5\)"):
        nn.BatchNorm2d(5)(x)
    with pytest.raises(ShapeError, match=r"images as \(N, 3, H, W\), got shape \(2, 3\)"):
        nn.BatchNorm2d(3)(clnn.ones(2, 3))
