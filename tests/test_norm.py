"""Local response normalisation against NumPy, its gradient against numeric ones."""

import numpy as np
import pytest
from helpers import assert_close, check, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn import modules as nn
from clnn.errors import DTypeError, ShapeError
from clnn.ops import local_response_norm, local_response_norm2d, norm

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(params=["CPU", "GPU"])
def form(request, device, monkeypatch):
    """Many elements a work-item, as on CPUs, and one, as on GPUs."""
    monkeypatch.setattr(device, "kind", request.param)
    return request.param


def normalised(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """The definition: for each channel the squares from size // 2 before it to (size - 1) // 2 behind it."""
    y, channels = np.empty_like(x), x.shape[1]
    for c in range(channels):
        near = x[:, max(c - size // 2, 0) : min(c + (size - 1) // 2, channels - 1) + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (near**2).sum(1)) ** beta
    return y


@given(
    size=st.integers(1, 9), count=st.sampled_from([1, 2, 3]), channels=st.sampled_from([1, 2, 3, 5, 8]),
    places=st.sampled_from([(1,), (7,), (3, 2), (1, 5), (2, 1, 3)]), alpha=st.sampled_from([0.7, 2.0]),
    beta=st.sampled_from([0.75, 0.5, 1.3]), k=st.sampled_from([1.0, 2.0, 0.6]), seed=seeds,
)  # fmt: skip
@settings(max_examples=20)
def test_local_response_norm(form, size, count, channels, places, alpha, beta, k, seed):
    """Even and odd sizes, sizes beyond the channels, and any number of dimensions."""
    x, settings = numbers(generator(seed), count, channels, *places), (size, alpha, beta, k)
    check(lambda t: local_response_norm(t, *settings), lambda v: normalised(v, *settings), x)


def slope(x, g, size, alpha, beta, k):
    """The gradient by x from a gradient g by the result, derived by hand."""
    channels, d = x.shape[1], (x / normalised(x, size, alpha, 1.0, k))
    dx = g * d**-beta
    for c in range(channels):
        for j in range(max(c - size // 2, 0), min(c + (size - 1) // 2, channels - 1) + 1):
            dx[:, j] -= 2 * alpha * beta / size * g[:, c] * x[:, c] * d[:, c] ** (-beta - 1) * x[:, j]
    return dx


@pytest.mark.parametrize("shape", [(2, 7, 23, 25), (3, 33, 1, norm.SPAN), (1, 5, norm.SPAN + 1), (2, 3, 2, 700)])
@pytest.mark.parametrize("beta", [0.75, 0.9])
def test_larger_images(form, shape, beta):
    """More positions than one work-item takes, and channels to spare; the gradient against the formula."""
    rng, settings = generator(5), (4, 0.3, beta, 2.0)
    x, g = numbers(rng, *shape), numbers(rng, *shape)
    for dtype in dtypes():
        t = clnn.tensor(x, dtype, requires_grad=True)
        y = local_response_norm(t, *settings)
        y.backward(clnn.tensor(g, dtype))
        limit = 2e-6 if dtype == np.float32 else 1e-13
        assert_close(y.numpy(), normalised(x, *settings), limit, "value")
        assert_close(t.grad.numpy(), slope(x, g, *settings), limit, "gradient")


def test_the_slope_of_this_test():
    """The formula above against the definition, along a random direction."""
    rng, settings = generator(6), (4, 0.3, 0.9, 2.0)
    x, g, step = numbers(rng, 2, 7, 5), numbers(rng, 2, 7, 5), 1e-5 * numbers(rng, 2, 7, 5)
    change = (g * (normalised(x + step, *settings) - normalised(x - step, *settings))).sum()
    np.testing.assert_allclose((slope(x, g, *settings) * 2 * step).sum(), change, rtol=1e-7)


def box_sums(x, before, behind):
    """At each pixel the sum of x over the rows and columns from ``before`` before it to ``behind`` behind it."""
    y, (high, wide) = np.empty_like(x), x.shape[2:]
    for i in range(high):
        for j in range(wide):
            near = x[:, :, max(i - before, 0) : i + behind + 1, max(j - before, 0) : j + behind + 1]
            y[:, :, i, j] = near.sum((2, 3))
    return y


def normalised2d(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """cuda-convnet's definition, within maps: size // 2 rows and columns before a pixel, (size - 1) // 2 behind it."""
    return x / (k + alpha / size**2 * box_sums(x**2, size // 2, (size - 1) // 2)) ** beta


@given(
    size=st.integers(1, 7), planes=st.sampled_from([(1, 1), (2, 3), (3, 1)]), height=st.integers(1, 7),
    width=st.integers(1, 7), alpha=st.sampled_from([0.7, 2.0]), beta=st.sampled_from([0.75, 0.5, 1.3]),
    k=st.sampled_from([1.0, 2.0, 0.6]), seed=seeds,
)  # fmt: skip
@settings(max_examples=5)
def test_local_response_norm2d(form, size, planes, height, width, alpha, beta, k, seed):
    """Even and odd sizes, and windows larger than the map."""
    x, settings = numbers(generator(seed), *planes, height, width), (size, alpha, beta, k)
    check(lambda t: local_response_norm2d(t, *settings), lambda v: normalised2d(v, *settings), x)


@pytest.mark.parametrize("shape", [(3, 5, 16, 16), (2, 3, 3, norm.ROW_SPAN + 1), (1, 2, 9, 3 * norm.ROW_SPAN - 1)])
@pytest.mark.parametrize("size, beta", [(3, 0.75), (4, 0.9)])
def test_larger_maps(form, shape, size, beta):
    """Rows longer than one work-item takes, and of whole vectors; the gradient against the formula."""
    rng, settings = generator(15), (size, 0.3, beta, 2.0)
    x, g = numbers(rng, *shape), numbers(rng, *shape)
    d = 2 + 0.3 / size**2 * box_sums(x**2, size // 2, (size - 1) // 2)
    others = box_sums(g * x * d ** (-beta - 1), (size - 1) // 2, size // 2)
    for dtype in dtypes():
        t = clnn.tensor(x, dtype, requires_grad=True)
        y = local_response_norm2d(t, *settings)
        y.backward(clnn.tensor(g, dtype))
        limit = 2e-6 if dtype == np.float32 else 1e-13
        assert_close(y.numpy(), x * d**-beta, limit, "value")
        assert_close(t.grad.numpy(), g * d**-beta - 2 * 0.3 * beta / size**2 * x * others, limit, "gradient")


@pytest.mark.parametrize("function", [local_response_norm, local_response_norm2d])
def test_forms_agree(function, device, monkeypatch):
    """A sum has one order, whatever a work-item computes: only roots and powers may round differently."""
    x, found = numbers(generator(7), 2, 9, 6, 7), []
    for kind in ("CPU", "GPU"):
        monkeypatch.setattr(device, "kind", kind)
        found.append(function(clnn.tensor(x), 5, 0.2, 0.75, 2.0).numpy())
    np.testing.assert_allclose(*found, rtol=5e-7)


def test_module(form):
    x = numbers(generator(8), 2, 6, 3, 4)
    layer = nn.LocalResponseNorm(3, alpha=0.5, k=2.0)
    assert repr(layer) == "LocalResponseNorm(3, alpha=0.5, beta=0.75, k=2.0)"
    assert_close(layer(clnn.tensor(x)).numpy(), normalised(x, 3, 0.5, 0.75, 2.0), 1e-6, "value")
    plain = nn.LocalResponseNorm(5)(clnn.tensor(x))
    assert_close(plain.numpy(), normalised(x, 5), 1e-6, "defaults")
    assert not plain.requires_grad
    assert list(layer.parameters()) == []
    within = nn.LocalResponseNorm2d(3, alpha=0.5)
    assert repr(within) == "LocalResponseNorm2d(3, alpha=0.5, beta=0.75, k=1.0)"
    assert_close(within(clnn.tensor(x)).numpy(), normalised2d(x, 3, 0.5), 1e-6, "within maps")


def test_no_gradient_is_kept_where_none_is_wanted(device):
    x = clnn.tensor(numbers(generator(9), 4, 8, 16, 16), requires_grad=True)
    before = device.pool.active_bytes
    with clnn.no_grad():
        y = local_response_norm(x, 5)
    assert device.pool.active_bytes - before < 2 * y.nbytes


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"3 dimensions or more, got \(4, 5\)"):
        local_response_norm(clnn.zeros(4, 5), 3)
    for shape in ((4, 5, 6), (1, 2, 4, 5, 6)):
        with pytest.raises(ShapeError, match=r"images as \(N, C, H, W\), got shape"):
            local_response_norm2d(clnn.zeros(shape), 3)
    for size in (0, -1, 2.5):
        for function, unit in ((local_response_norm, "channels"), (local_response_norm2d, "pixels")):
            with pytest.raises(ValueError, match=f"number of {unit}, at least 1"):
                function(clnn.zeros(1, 4, 2, 2), size)
    with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
        local_response_norm(np.zeros((1, 4, 2, 2), np.float32), 3)
