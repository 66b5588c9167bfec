"""Hinge losses: values, gradients, the relations between them, and targets that do not fit."""

import numpy as np
import pytest
from helpers import check, distinct, generator, numbers, seeds, sides
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn import modules as nn
from clnn import ops
from clnn.errors import DTypeError, GraphError, LabelError, ShapeError

pytestmark = pytest.mark.usefixtures("device")

REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}
reductions = st.sampled_from(list(REDUCE))
margins = st.sampled_from([0.56, 1.06, 2.31])  # `distinct` numbers lie multiples of 1/8 apart: this is off the kinks


def multi_margin_reference(x, labels, p, margin):
    """By the definition, one row and one class after the other."""
    rows = [
        sum(max(0, margin - row[y] + row[k]) ** p for k in range(len(row)) if k != y) / len(row)
        for row, y in zip(x, labels)
    ]
    return np.array(rows)


@given(rows=sides, classes=sides, p=st.integers(1, 2), margin=margins, reduction=reductions, seed=seeds)
@settings(max_examples=25)
def test_multi_margin_loss(rows, classes, p, margin, reduction, seed):
    rng = generator(seed)
    check(
        lambda x, y: ops.multi_margin_loss(x, y, p, margin, reduction=reduction),
        lambda x, y: REDUCE[reduction](multi_margin_reference(x, y, p, margin)),
        distinct(rng, min(rows, 9), min(classes, 11)),
        rng.integers(0, min(classes, 11), min(rows, 9)),
    )


@given(shape=st.lists(st.integers(1, 7), max_size=3).map(tuple), margin=margins, reduction=reductions, seed=seeds)
@settings(max_examples=20)
def test_hinge_loss_of_two_classes(shape, margin, reduction, seed):
    rng = generator(seed)
    targets = rng.choice([-1, 1], shape)
    check(
        lambda x, t: ops.hinge_loss(x, t, margin, reduction),
        lambda x, t: REDUCE[reduction](np.maximum(0, margin - t * x)),
        distinct(rng, *shape),
        targets,
    )


@given(rows=sides, classes=sides, margin=margins, reduction=reductions, seed=seeds)
@settings(max_examples=15)
def test_hinge_loss_of_more_classes(rows, classes, margin, reduction, seed):
    rng, classes = generator(seed), min(classes, 11)
    check(
        lambda x, y: ops.hinge_loss(x, y, margin, reduction),
        lambda x, y: REDUCE[reduction](classes * multi_margin_reference(x, y, 1, margin)),
        distinct(rng, min(rows, 9), classes),
        rng.integers(0, classes, min(rows, 9)),
    )


def test_two_classes_by_either_form():
    """Of two columns of scores only the difference counts."""
    rng = generator(7)
    x, labels = numbers(rng, 23, 2), rng.integers(0, 2, 23)
    by_labels = ops.hinge_loss(clnn.tensor(x), clnn.tensor(labels), reduction="none")
    by_signs = ops.hinge_loss(clnn.tensor(x[:, 1] - x[:, 0]), 2 * labels - 1, reduction="none")
    np.testing.assert_allclose(by_labels.numpy(), by_signs.numpy(), rtol=1e-6, atol=1e-6)
    assert (by_signs.numpy() == 0).any() and (by_signs.numpy() > 1).any()


def test_slope_at_the_kink_is_zero():
    x = clnn.tensor([1.0, -1.0, 0.5], requires_grad=True)
    ops.hinge_loss(x, [1, -1, 1], reduction="sum").backward()
    assert x.grad.numpy().tolist() == [0, 0, -1]
    x = clnn.tensor([[2.0, 1.0, 1.5]], requires_grad=True)
    ops.multi_margin_loss(x, [0], reduction="sum").backward()
    np.testing.assert_allclose(x.grad.numpy(), [[-1 / 3, 0, 1 / 3]], rtol=1e-6)


def test_targets_in_every_form():
    x = numbers(generator(4), 6)
    signs = np.array([1, -1, -1, 1, 1, -1])
    want = np.maximum(0, 1 - signs * x).mean()
    given = [signs, signs.astype(float), signs.tolist(), 2 * (signs > 0) - 1]
    given += [
        clnn.tensor(signs),
        clnn.tensor(signs.astype(float)),
        clnn.tensor(signs) * 1,
        clnn.tensor(signs > 0) * 2 - 1,
    ]
    for targets in given:
        np.testing.assert_allclose(ops.hinge_loss(clnn.tensor(x), targets).item(), want, rtol=1e-6)
    assert ops.hinge_loss(clnn.tensor([3, -3]), [1, 1]).item() == 2  # integer scores are taken as float32


def test_modules():
    rng = generator(9)
    x, y, t = numbers(rng, 5, 4), rng.integers(0, 4, 5), rng.choice([-1, 1], (5, 4))
    for reduction, reduce in REDUCE.items():
        for p, margin in ((1, 1.0), (2, 0.5)):
            got = nn.MultiMarginLoss(p, margin, reduction=reduction)(clnn.tensor(x), clnn.tensor(y))
            np.testing.assert_allclose(got.numpy(), reduce(multi_margin_reference(x, y, p, margin)), rtol=1e-6)
        got = nn.HingeLoss(0.75, reduction)(clnn.tensor(x), clnn.tensor(t))
        np.testing.assert_allclose(got.numpy(), reduce(np.maximum(0, 0.75 - t * x)), rtol=1e-5, atol=1e-7)
        got = nn.HingeLoss(reduction=reduction)(clnn.tensor(x), clnn.tensor(y))
        np.testing.assert_allclose(got.numpy(), 4 * reduce(multi_margin_reference(x, y, 1, 1)), rtol=1e-6)
    assert repr(nn.MultiMarginLoss()) == "MultiMarginLoss(p=1, margin=1.0)"
    assert repr(nn.HingeLoss(2)) == "HingeLoss(margin=2)"


def test_a_support_vector_machine_finds_the_widest_margin():
    """Two pairs of points: by hand, the widest street between them has w = (0.5, 0), b = 0."""
    x = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0], [4.0, 3.0]])
    t = np.array([1, 1, -1, -1, 1])
    net = nn.Linear(2, 1)
    decay = 0.5  # the penalty's factor; small enough that no point lies inside the street
    opt = clnn.optim.SGD([{"params": [net.weight], "weight_decay": decay}, {"params": [net.bias]}])
    for step in range(1000):
        for group in opt.param_groups:  # subgradients do not fade by themselves: the steps must
            group["lr"] = 1 / (decay * (step + 10))
        loss = nn.HingeLoss()(net(clnn.tensor(x)).reshape(-1), t)
        opt.zero_grad()
        loss.backward()
        opt.step()
    np.testing.assert_allclose(net.weight.numpy(), [[0.5, 0]], atol=0.02)
    np.testing.assert_allclose(net.bias.numpy(), [0], atol=0.02)


def test_nan_shows():
    x = clnn.tensor([[np.nan, 1.0, 2.0]])
    for label in (0, 1):
        assert np.isnan(ops.multi_margin_loss(x, [label]).item())
    assert np.isnan(ops.hinge_loss(x, [[1, 1, 1]]).item())


@pytest.mark.parametrize(
    "targets", [[0, 1, 1], [-1, 0, -1], [1, 2, 1], [False, True, True], [0.5, 1, -1], [1, np.nan, 1]]
)
def test_signs_that_are_none(targets):
    x = clnn.zeros(3)
    with pytest.raises(LabelError, match=r"are -1 and \+1 here, got numbers from .* 2 \* target - 1"):
        ops.hinge_loss(x, targets)
    if np.asarray(targets).dtype.kind in "ib":
        with pytest.raises(LabelError, match=r"-1 and \+1"):
            ops.hinge_loss(x, clnn.tensor(targets))
    else:  # real numbers on the device are not looked at before they are used
        loss = ops.hinge_loss(x, clnn.tensor(targets), reduction="none").numpy()
        np.testing.assert_array_equal(np.isnan(loss), ~np.isin(targets, (-1, 1)))


@pytest.mark.parametrize("function", [ops.multi_margin_loss, ops.hinge_loss])
def test_labels_that_do_not_fit(function):
    x = clnn.zeros(4, 3)
    for labels in ([0, 3, 1, 1], [0, -1, 1, 1]):
        with pytest.raises(LabelError, match=f"from {min(labels)} to {max(labels)}, but 3 .* allow 0 to 2"):
            function(x, clnn.tensor(labels))
        on_device = clnn.tensor(labels) + 0
        rows = function(x, on_device, reduction="none").numpy()
        np.testing.assert_array_equal(np.isnan(rows), [False, True, False, False])
    with pytest.raises(DTypeError, match="labels must be integers, got float32"):
        function(x, clnn.zeros(4))
    with pytest.raises(ShapeError, match=rf"{function.__name__} needs .*\(4, 3\) and \(3,\)"):
        function(x, [0, 1, 2])
    with pytest.raises(ShapeError, match=rf"{function.__name__} needs .*\(4, 3\) and \(4, 1\)"):
        function(x, [[1], [1], [1], [1]])
    with pytest.raises(ValueError, match="'average'"):
        function(x, [0, 1, 2, 0], reduction="average")


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="p is 1 or 2, not 3"):
        ops.multi_margin_loss(clnn.zeros(2, 3), [0, 1], 3)
    with pytest.raises(GraphError, match=r"no gradient by its targets: pass target\.detach\(\)"):
        ops.hinge_loss(clnn.zeros(2), clnn.tensor([1.0, -1.0], requires_grad=True))
