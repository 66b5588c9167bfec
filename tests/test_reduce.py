"""Sums, means, extremes and repetition along dimensions."""

import numpy as np
import pytest
from helpers import assert_close, check, distinct, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clnn
from clnn.errors import DTypeError, ShapeError

pytestmark = pytest.mark.usefixtures("device")

shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7)
# name: (on tensors, on arrays, data)
REDUCTIONS = {
    "sum": (clnn.Tensor.sum, np.sum, numbers),
    "mean": (clnn.Tensor.mean, np.mean, numbers),
    "max": (clnn.Tensor.max, np.max, distinct),
    "min": (clnn.Tensor.amin, np.min, distinct),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@given(shape=shapes, seed=seeds, data=st.data())
@settings(max_examples=15)
def test_reductions(name, shape, seed, data):
    function, reference, values = REDUCTIONS[name]
    dims = st.integers(-len(shape), len(shape) - 1)
    many = st.lists(dims, min_size=1, max_size=4, unique_by=lambda d: d % len(shape)).map(tuple)
    dim, keep = data.draw(st.none() | dims | many), data.draw(st.booleans())
    x = values(generator(seed), *shape)
    check(lambda t: function(t, dim, keep), lambda v: reference(v, axis=dim, keepdims=keep), x)


@pytest.mark.parametrize("shape, dim", [
    ((255,), 0), ((256,), 0), ((257,), 0), ((513, 3), 0), ((3, 769), 1), ((2, 300, 2), 1), ((70001,), None),
    ((1025, 17), 0), ((9, 1100), 0), ((300, 2, 300), (0, 2)), ((33, 31, 70), None),
])  # fmt: skip
def test_long_runs(shape, dim):
    """Longer than one work-item's share, so in several passes."""
    rng = generator(sum(shape))
    for dtype in dtypes():
        x = (rng.standard_normal(shape) + 0.4).astype(dtype)
        t = clnn.tensor(x, dtype)
        limit = 1e-6 if dtype == np.float32 else 1e-14
        assert_close(t.sum(dim).numpy(), x.sum(dim, dtype=np.float64), limit, "sum")
        assert_close(t.mean(dim).numpy(), x.mean(dim, dtype=np.float64), limit, "mean")
        np.testing.assert_array_equal(t.max(dim).numpy(), x.max(dim))
        np.testing.assert_array_equal(t.min(dim).numpy(), x.min(dim))
        np.testing.assert_array_equal(t.sum(dim).numpy(), t.sum(dim).numpy())
        if not isinstance(dim, tuple):
            np.testing.assert_array_equal(t.argmax(dim).numpy(), x.argmax(dim))


@given(shape=shapes, seed=seeds, data=st.data())
@settings(max_examples=25)
def test_integers(shape, seed, data):
    dim, keep = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1)), data.draw(st.booleans())
    x = generator(seed).integers(-5, 6, shape, dtype=np.int32)
    t = clnn.tensor(x)
    for got, want in (
        (t.sum(dim, keep), x.sum(dim, keepdims=keep)),
        (t.max(dim, keep), x.max(dim, keepdims=keep)),
        (t.min(dim, keep), x.min(dim, keepdims=keep)),
        (t.argmax(dim, keep), x.argmax(dim, keepdims=keep)),  # with ties: the first
        ((t > 0).sum(dim, keep), (x > 0).sum(dim, keepdims=keep)),
        ((t > 0).argmax(dim, keep), (x > 0).argmax(dim, keepdims=keep)),
    ):
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got.numpy(), want)
    for got, want in ((t.mean(dim, keep), x.mean(dim, keepdims=keep)), ((t > 0).float().mean(), (x > 0).mean())):
        assert got.dtype == np.float32
        assert_close(got.numpy(), want, 1e-6, "mean")


def test_nan_wins():
    x = np.array([[1, np.nan, 3], [4, 5, 6], [np.nan, np.nan, 9]], np.float32)
    t = clnn.tensor(x)
    for dim in (None, 0, 1):
        np.testing.assert_array_equal(t.max(dim).numpy(), x.max(dim))
        np.testing.assert_array_equal(t.min(dim).numpy(), x.min(dim))
        np.testing.assert_array_equal(t.argmax(dim).numpy(), x.argmax(dim))
    long = generator(1).standard_normal(1000, dtype=np.float32)
    long[617] = np.nan
    assert np.isnan(clnn.tensor(long).max().item()) and clnn.tensor(long).argmax().item() == 617
    assert clnn.tensor([-np.inf, -np.inf]).max().item() == -np.inf


def test_ties_share_the_gradient():
    x = clnn.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    x.max(1).backward(clnn.tensor([4.0, 6.0]))
    np.testing.assert_allclose(x.grad.numpy(), [[0, 2, 2], [2, 2, 2]])


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(3, 4, 5), min_dims=0, max_dims=3), seed=seeds)
@settings(max_examples=20)
def test_broadcast_to(shapes, seed):
    [shape] = shapes.input_shapes
    x = numbers(generator(seed), *shape)
    check(lambda t: t.broadcast_to(3, 4, 5), lambda v: np.broadcast_to(v, (3, 4, 5)), x)
    check(lambda t: t.expand((2, 3, 4, 5)), lambda v: np.broadcast_to(v, (2, 3, 4, 5)), x)


@pytest.mark.parametrize("shape, to, want", [
    ((2, 1), (-1, 3), (2, 3)), ((4,), (2, -1), (2, 4)), ((1, 3), (-1, -1), (1, 3)),
    ((3, 1, 2), (5, -1, 4, -1), (5, 3, 4, 2)),
])  # fmt: skip
def test_sizes_left_as_they_are(shape, to, want):
    check(lambda t: t.expand(*to), lambda v: np.broadcast_to(v, want), numbers(generator(4), *shape))


def test_single_numbers():
    x = numbers(generator(6))
    for name, (function, reference, _) in REDUCTIONS.items():
        check(function, reference, x)
        assert function(clnn.tensor(x), 0).shape == (), name
    assert clnn.tensor(x).argmax().item() == 0 and clnn.tensor(x).argmax(0).shape == ()


def test_dimensions_that_do_not_fit():
    x = clnn.zeros(2, 3)
    for function in (x.sum, x.mean, x.max, x.min, x.argmax):
        with pytest.raises(ShapeError, match=r"\(2, 3\) has no dimension 2"):
            function(2)
    with pytest.raises(ShapeError, match="twice"):
        x.sum((1, -1))
    for shape in ((3, 3), (3,), (2, 0), (2, 3, 1), (-1, 2, 3), (-1,), (2, -2)):
        with pytest.raises(ShapeError, match="cannot be repeated"):
            x.broadcast_to(shape)
    with pytest.raises(DTypeError, match="booleans"):
        (x > 0).max()
