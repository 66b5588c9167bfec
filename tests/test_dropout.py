"""Dropout: which elements fall, how many, and what their gradient is."""

import numpy as np
import pytest
from helpers import dtypes, generator, seeds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clnn
from clnn import ops

pytestmark = pytest.mark.usefixtures("device")


def mask(shape, p, seed, dtype=np.float32):
    """What dropout leaves of ones."""
    clnn.manual_seed(seed)
    return ops.dropout(clnn.ones(shape, dtype=dtype), p).numpy()


@given(shape=hnp.array_shapes(max_dims=4, max_side=9), p=st.sampled_from([0.1, 0.25, 0.5, 0.9]), seed=seeds)
def test_values_and_gradient(shape, p, seed):
    rng = generator(seed)
    x, slope = rng.standard_normal((2, *shape))
    for dtype in dtypes():
        kept = mask(shape, p, seed, dtype) != 0
        clnn.manual_seed(seed)
        t = clnn.tensor(x, dtype, requires_grad=True)
        y = ops.dropout(t, p)
        y.backward(clnn.tensor(slope, dtype))
        factor = dtype(1 / (1 - p))
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.numpy(), np.where(kept, x.astype(dtype) * factor, 0))
        np.testing.assert_array_equal(t.grad.numpy(), np.where(kept, slope.astype(dtype) * factor, 0))


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.85])
def test_as_many_fall_as_told(p):
    """Within 5 standard deviations, over all and in each row and column; and neighbours fall independently."""
    n = 1000
    fallen = mask((n, n), p, seed=11) == 0
    spread = np.sqrt(p * (1 - p))
    assert abs(fallen.mean() - p) < 5 * spread / n
    for axis in (0, 1):
        assert abs(fallen.mean(axis) - p).max() < 5 * spread / np.sqrt(n)
    for other in (fallen[:, 1:], fallen[1:], fallen[:, 256:]):
        first = fallen[: other.shape[0], : other.shape[1]]
        both = (first & other).mean()
        assert abs(both - p * p) < 5 * np.sqrt(p**2 * (1 - p**2) / other.size)


def test_seed_decides():
    first, second = mask(999, 0.5, seed=1), mask(999, 0.5, seed=2)
    np.testing.assert_array_equal(first, mask(999, 0.5, seed=1))
    agree = (first == second).mean()  # half of them by chance
    assert 0.4 < agree < 0.6
    clnn.manual_seed(1)
    ones = clnn.ones(999)
    one, next_one = ops.dropout(ones).numpy(), ops.dropout(ones).numpy()
    np.testing.assert_array_equal(one, first)
    assert 0.4 < (one == next_one).mean() < 0.6


def test_mask_does_not_depend_on_the_shape():
    np.testing.assert_array_equal(mask((6, 7), 0.5, seed=3).ravel(), mask(42, 0.5, seed=3))


def test_limits():
    x = clnn.tensor([1.0, np.inf, np.nan], requires_grad=True)
    assert ops.dropout(x, 0.0) is x
    assert ops.dropout(x, 0.5, training=False) is x
    y = ops.dropout(x, 1.0)
    y.sum().backward()
    assert y.numpy().tolist() == [0, 0, 0] and x.grad.numpy().tolist() == [0, 0, 0]
    for p in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match=f"0 .. 1, got {p}"):
            ops.dropout(x, p)
    assert ops.dropout(clnn.tensor([1, 2, 3])).dtype == np.float32
