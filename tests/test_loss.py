"""Losses: values, gradients, and labels that do not fit."""

import numpy as np
import pytest
from helpers import LIMIT32, check, distinct, generator, numbers, seeds, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import clnn
from clnn import ops
from clnn.errors import ClnnError, DeviceError, DTypeError, GraphError, LabelError, ShapeError

pytestmark = pytest.mark.usefixtures("device")

REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}
reductions = st.sampled_from(list(REDUCE))


def cross_entropy_reference(x, labels, reduction):
    """By the definition: every row's label picked from the logarithm of softmax along dimension 1."""
    chosen = np.take_along_axis(special.log_softmax(x, axis=1), np.expand_dims(labels, 1), 1).squeeze(1)
    return REDUCE[reduction](-chosen)


def cross_entropy_check(rng, shape, reduction, scale=3.0):
    labels = rng.integers(0, shape[1], shape[:1] + shape[2:])
    check(
        lambda x, y: ops.cross_entropy(x, y, reduction),
        lambda x, y: cross_entropy_reference(x, y, reduction),
        scale * numbers(rng, *shape),
        labels,
    )


@given(rows=sides, classes=sides, reduction=reductions, seed=seeds)
@settings(max_examples=20)
def test_cross_entropy(rows, classes, reduction, seed):
    cross_entropy_check(generator(seed), (min(rows, 17), classes), reduction)


@given(shape=st.tuples(*[st.integers(1, 5)] * 4), dims=st.integers(3, 4), reduction=reductions, seed=seeds)
@settings(max_examples=15)
def test_cross_entropy_of_many_places(shape, dims, reduction, seed):
    cross_entropy_check(generator(seed), shape[:dims], reduction)


def test_cross_entropy_of_a_large_batch():
    rng = generator(8)
    x, labels = rng.standard_normal((5003, 10), dtype=np.float32), rng.integers(0, 10, 5003)
    t = clnn.tensor(x, requires_grad=True)
    loss = ops.cross_entropy(t, clnn.tensor(labels))
    loss.backward()
    np.testing.assert_allclose(loss.item(), cross_entropy_reference(x.astype(float), labels, "mean"), rtol=1e-6)
    slope = (special.softmax(x.astype(float), axis=1) - np.eye(10)[labels]) / 5003
    np.testing.assert_allclose(t.grad.numpy(), slope, atol=LIMIT32 / 5003)


def test_cross_entropy_is_stable():
    x = np.array([[1e4, 1e4 + 1, -1e4], [-3e38, 0, 3e38], [0, 200, -200]])
    labels = np.array([0, 2, 1])
    t = clnn.tensor(x, requires_grad=True)
    loss = ops.cross_entropy(t, clnn.tensor(labels), "none")
    loss.sum().backward()
    np.testing.assert_allclose(loss.numpy(), cross_entropy_reference(x, labels, "none"), rtol=1e-6)
    np.testing.assert_allclose(t.grad.numpy(), special.softmax(x, axis=1) - np.eye(3)[labels], atol=1e-6)
    assert np.isnan(ops.cross_entropy(clnn.tensor([[np.nan, 1.0]]), clnn.tensor([1])).item())


def test_targets_as_arrays():
    x, labels = numbers(generator(3), 4, 3), [0, 2, 1, 1]
    want = cross_entropy_reference(x, np.array(labels), "mean")
    for target in (labels, np.array(labels), np.array(labels, np.uint8), clnn.tensor(labels)):
        np.testing.assert_allclose(ops.cross_entropy(clnn.tensor(x), target).item(), want, rtol=1e-6)
    np.testing.assert_allclose(ops.mse_loss(clnn.tensor(x), x - 1).item(), 1, rtol=1e-6)
    ops.binary_cross_entropy_with_logits(clnn.tensor(x), (x > 0).tolist())


@given(shape=st.lists(st.integers(1, 7), max_size=3).map(tuple), reduction=reductions, seed=seeds)
@settings(max_examples=15)
def test_mse_loss(shape, reduction, seed):
    rng = generator(seed)
    check(
        lambda x, y: ops.mse_loss(x, y, reduction),
        lambda x, y: REDUCE[reduction]((x - y) ** 2),
        numbers(rng, *shape),
        numbers(rng, *shape),
    )


@given(shape=st.lists(st.integers(1, 7), max_size=3).map(tuple), reduction=reductions, seed=seeds)
@settings(max_examples=15)
def test_binary_cross_entropy_with_logits(shape, reduction, seed):
    rng = generator(seed)

    def reference(x, t):
        return REDUCE[reduction](-t * special.log_expit(x) - (1 - t) * special.log_expit(-x))

    def function(x, t):
        return ops.binary_cross_entropy_with_logits(x, t, reduction)

    check(function, reference, 3 * numbers(rng, *shape), rng.random(shape, dtype=np.float32).astype(np.float64))


@given(shape=st.lists(st.integers(1, 7), max_size=3).map(tuple), reduction=reductions, seed=seeds)
@settings(max_examples=15)
def test_l1_loss(shape, reduction, seed):
    rng = generator(seed)
    x = numbers(rng, *shape)
    check(
        lambda x, y: ops.l1_loss(x, y, reduction),
        lambda x, y: REDUCE[reduction](abs(x - y)),
        x,
        x + distinct(rng, *shape),
    )


@given(shape=st.lists(st.integers(1, 7), max_size=3).map(tuple), reduction=reductions, seed=seeds)
@settings(max_examples=15)
def test_binary_cross_entropy(shape, reduction, seed):
    rng = generator(seed)
    targets = rng.random(shape, dtype=np.float32).astype(np.float64)

    def reference(p):
        return REDUCE[reduction](-special.xlogy(targets, p) - special.xlog1py(1 - targets, -p))

    p = rng.uniform(0.05, 0.95, shape).astype(np.float32).astype(np.float64)
    check(lambda p: ops.binary_cross_entropy(p, targets, reduction), reference, p)


def test_binary_cross_entropy_of_certain_answers():
    """No logarithm below -100, no slope above 1e12: as PyTorch has it."""
    p = clnn.tensor([0.0, 1.0, 0.0, 1.0, 1e-30, 0.5], requires_grad=True)
    target = clnn.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.25])
    loss = ops.binary_cross_entropy(p, target, "none")
    loss.sum().backward()
    np.testing.assert_allclose(loss.numpy(), [0, 0, 100, 100, -np.log(1e-30), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(p.grad.numpy(), [0, 0, -1e12, 1e12, -1e12, 1], rtol=1e-6)
    for wrong in (-0.1, 1.1, np.nan):
        assert np.isnan(ops.binary_cross_entropy(clnn.tensor([wrong]), [0.5]).item())


def test_binary_cross_entropy_agrees_with_that_of_logits():
    rng = generator(11)
    x, targets = clnn.tensor(numbers(rng, 40)), rng.random(40).round()
    losses = ops.binary_cross_entropy(x.sigmoid(), targets), ops.binary_cross_entropy_with_logits(x, targets)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "name",
    ["mse_loss", "l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "hinge_loss"],
)
def test_a_backward_that_starts_at_the_loss(name, reduction):
    """It takes the slopes as they are; from a gradient, along a kept tape or through more operations it takes the same
    by a launch."""
    rng = generator(5)
    x = clnn.tensor(rng.uniform(0.1, 0.9, (5, 3)), requires_grad=True)
    target = rng.integers(0, 3, 5) if name in ("cross_entropy", "hinge_loss") else rng.random((5, 3))
    target = clnn.tensor(target, requires_grad=name in ("mse_loss", "l1_loss"))

    def gradients(way):
        x.grad = target.grad = None
        loss = getattr(ops, name)(x, target, reduction=reduction)
        way(loss)
        return [t.grad.numpy() for t in (x, target) if t.requires_grad]

    with clnn.profile() as p:
        (start, *other) = gradients(lambda loss: loss.backward())
    assert "scale_rows" not in {row.kernel for row in p.rows} and start.any()
    assert all(np.array_equal(start, -g) for g in other) and len(other) == target.requires_grad

    def three_times(loss):
        loss.retain_grad()
        loss.backward(retain_graph=True)
        loss.backward(retain_graph=True)
        loss.backward()
        assert loss.grad.item() == 3

    for way, times in (
        (lambda loss: loss.backward(clnn.tensor(1.0)), 1),
        (lambda loss: (loss * -2).backward(), -2),
        (three_times, 3),
    ):
        np.testing.assert_allclose(gradients(way)[0], times * start, rtol=1e-6)


def test_slope_of_l1_loss_at_zero_is_zero():
    x = clnn.tensor([1.0, 2.0, 3.0], requires_grad=True)
    ops.l1_loss(x, [1, 1, 4], "sum").backward()
    assert x.grad.numpy().tolist() == [0, 1, -1]


def test_binary_cross_entropy_with_logits_of_certain_answers():
    """Right ones keep their digits, wrong ones do not overflow; beyond e^-87 float32 has no digits left."""
    rng = generator(12)
    size = np.concatenate([rng.uniform(10, 80, 50), [90, 1e4, 3e38]])
    target = rng.integers(0, 2, size.size)
    for right in (True, False):
        x = np.float32(np.where((target == 1) == right, size, -size))
        t = clnn.tensor(x, requires_grad=True)
        loss = ops.binary_cross_entropy_with_logits(t, target.astype(np.float32), "none")
        loss.sum().backward()
        away = np.float64(np.where(target == 1, -x, x))  # how far on the wrong side
        np.testing.assert_allclose(loss.numpy(), -special.log_expit(-away), rtol=1e-6, atol=1e-37)
        np.testing.assert_allclose(t.grad.numpy(), (1 - 2 * target) * special.expit(away), rtol=1e-6, atol=1e-37)
    assert np.isnan(ops.binary_cross_entropy_with_logits(clnn.tensor([np.nan]), [1.0]).item())


@pytest.mark.parametrize("labels", [[0, 3, 1, 1], [0, -1, 1, 1], [7, 7, 7, 7]])
def test_labels_out_of_range(labels):
    with pytest.raises(LabelError, match=f"from {min(labels)} to {max(labels)}, but 3 logits a row allow 0 to 2"):
        ops.cross_entropy(clnn.zeros(4, 3), clnn.tensor(labels))
    fixed = clnn.tensor(labels).copy_([0, 1, 2, 0])  # the range follows the contents
    assert ops.cross_entropy(clnn.zeros(4, 3), fixed).item() == pytest.approx(np.log(3))
    with pytest.raises(LabelError):
        ops.cross_entropy(clnn.zeros(4, 3), clnn.tensor([0, 0, 0, 0]).copy_(labels).detach())


def test_labels_computed_on_the_device_make_nan():
    labels = clnn.tensor([0, 1]) + clnn.tensor([0, 4])
    x = clnn.zeros(2, 3, requires_grad=True)
    loss = ops.cross_entropy(x, labels, "none")
    assert loss.numpy()[0] == pytest.approx(np.log(3)) and np.isnan(loss.numpy()[1])


def test_what_does_not_fit():
    x = clnn.zeros(4, 3)
    for labels in (clnn.tensor([0, 1, 2]), clnn.tensor([[0], [1], [2], [0]]), clnn.tensor(1)):
        with pytest.raises(ShapeError, match=r"logits \(N, C, ...\) and labels \(N, ...\), got \(4, 3\)"):
            ops.cross_entropy(x, labels)
    with pytest.raises(ShapeError, match=r"got \(3,\)"):
        ops.cross_entropy(clnn.zeros(3), clnn.tensor(1))
    with pytest.raises(DTypeError, match="labels must be integers, got float32"):
        ops.cross_entropy(x, clnn.zeros(4))
    pairs = (ops.mse_loss, ops.l1_loss, ops.binary_cross_entropy, ops.binary_cross_entropy_with_logits)
    for loss in pairs:
        with pytest.raises(ShapeError, match=rf"{loss.__name__} .*\(4, 3\) and \(4,\)"):
            loss(x, clnn.zeros(4))
    with pytest.raises(GraphError, match=r"no gradient by its targets: pass target\.detach\(\)"):
        ops.binary_cross_entropy(x, clnn.zeros(4, 3, requires_grad=True))
    for loss in (ops.cross_entropy, *pairs):
        with pytest.raises(ValueError, match="'average'"):
            loss(x, clnn.tensor([0, 1, 2, 0]) if loss is ops.cross_entropy else x, "average")


def test_labels_on_another_device(device):
    other = clnn.Device(device.cl_device)  # the same hardware, but with memory of its own
    labels = clnn.tensor([0, 1], device=other)
    with pytest.raises(DeviceError, match="different devices"):
        ops.cross_entropy(clnn.zeros(2, 3), labels)
    assert issubclass(DeviceError, ClnnError)
    assert ops.cross_entropy(clnn.zeros(2, 3), labels.to(device)).item() == pytest.approx(np.log(3))
