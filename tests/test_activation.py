"""Activation functions and the softmax family."""

import numpy as np
import pytest
from helpers import assert_close, check, distinct, dtypes, generator, numbers, seeds, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

import clnn
from clnn import ops
from clnn.errors import DTypeError, ShapeError

pytestmark = pytest.mark.usefixtures("device")

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=7)
# name: (on tensors, on arrays, data)
ACTIVATIONS = {
    "relu": (ops.relu, lambda x: np.maximum(x, 0), distinct),
    "tanh": (ops.tanh, np.tanh, numbers),
    "sigmoid": (ops.sigmoid, special.expit, numbers),
    "softplus": (ops.softplus, lambda x: np.logaddexp(0, x), numbers),
}
SOFTMAXES = {"softmax": (ops.softmax, special.softmax), "log_softmax": (ops.log_softmax, special.log_softmax)}


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(shape=shapes, seed=seeds)
@settings(max_examples=15)
def test_activations(name, shape, seed):
    function, reference, data = ACTIVATIONS[name]
    check(function, reference, data(generator(seed), *shape))


FUSED = {
    "linear": (lambda x, w, b, name: ops.linear(x, w, b, name), (7, 19), (37, 19)),
    "short linear": (lambda x, w, b, name: ops.linear(x, w, b, name), (150, 19), (3, 19)),  # stored transposed
    "conv2d": (lambda x, w, b, name: ops.conv2d(x, w, b, 1, 1, activation=name), (2, 3, 9, 11), (37, 3, 3, 2)),
    "pooled": (lambda x, w, b, name: ops.conv2d_max_pool2d(x, w, b, 1, 0, 1, 1, 2, name), (2, 3, 9, 11), (5, 3, 2, 2)),
}


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("layer", FUSED)
def test_applied_as_a_layer_stores_its_result(form, layer, name):
    """As if computed by itself: values and all gradients, with one launch of the activation family less."""
    function, *shapes = FUSED[layer]
    arrays = [numbers(generator(i), *shape) for i, shape in enumerate((*shapes, shapes[1][:1]))]
    for dtype in dtypes() if name == "tanh" else [np.float32]:
        found = []
        for compute in (lambda *t: function(*t, name), lambda *t: ACTIVATIONS[name][0](function(*t, None))):
            t = [clnn.tensor(v, dtype, requires_grad=True) for v in arrays]
            with clnn.profile() as profile:
                y = compute(*t)
            y.backward(clnn.tensor(numbers(generator(9), *y.shape), dtype))
            launches = sum("activation" in line for line in str(profile.table()).splitlines())
            found.append([y.numpy(), *[v.grad.numpy() for v in t], launches])
        for got, want in zip(*[values[:-1] for values in found], strict=True):
            assert_close(got, want, 2e-6 if dtype == np.float32 else 1e-13, layer)
        assert [values[-1] for values in found] == [0, 1]


def test_unknown_activation():
    x, w = clnn.ones(2, 3), clnn.ones(4, 3)
    with pytest.raises(ValueError, match="must be one of relu, tanh, sigmoid or None, got 'swish'"):
        ops.linear(x, w, activation="swish")


@pytest.mark.parametrize("size", [1, 255, 256, 257, 70001])
def test_sizes_around_work_groups(size):
    x = generator(size).standard_normal(size, dtype=np.float32)
    t = clnn.tensor(x, requires_grad=True)
    y = t.relu()
    y.backward(clnn.tensor(x))
    np.testing.assert_array_equal(y.numpy(), np.maximum(x, 0))
    np.testing.assert_array_equal(t.grad.numpy(), np.maximum(x, 0))


@pytest.mark.parametrize(
    "name, relative, absolute", [("tanh", 4e-7, 0), ("sigmoid", 4e-7, 1e-38), ("softplus", 4e-7, 2e-38)]
)
def test_accuracy_in_float32(name, relative, absolute):
    """Written out for float32: within 4e-7 (under 4 units in the last place), and e^x no less than e^-88."""
    function, reference, _ = ACTIVATIONS[name]
    small = np.geomspace(1e-30, 1, 30_001)
    x = np.concatenate([np.linspace(-120, 120, 400_001), np.linspace(-1, 1, 200_001), small, -small]).astype(np.float32)
    want = reference(x.astype(np.float64))
    np.testing.assert_allclose(function(clnn.tensor(x)).numpy(), want, rtol=relative, atol=absolute)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus"])
def test_slopes_are_accurate_in_float32(name):
    """1 - y^2 loses digits as y nears 1: 1e-6 of the largest slope, 1, is what float32 leaves."""
    function, *_ = ACTIVATIONS[name]
    x = np.linspace(-30, 30, 50_001).astype(np.float32)
    t = clnn.tensor(x, requires_grad=True)
    function(t).sum().backward()
    v = x.astype(np.float64)
    slope = {"tanh": 1 / np.cosh(v) ** 2, "sigmoid": special.expit(v) * special.expit(-v), "softplus": special.expit(v)}
    np.testing.assert_allclose(t.grad.numpy(), slope[name], atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinity(name):
    function, reference, _ = ACTIVATIONS[name]
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0, 1e-40])
    for dtype in dtypes():
        with np.errstate(invalid="ignore"):
            want = reference(x)
        np.testing.assert_allclose(function(clnn.tensor(x, dtype)).numpy(), want, rtol=1e-6, atol=2e-38)


def test_slope_of_relu_at_zero_is_zero():
    x = clnn.tensor([0.0, -0.0, 1e-30], requires_grad=True)
    x.relu().sum().backward()
    assert x.grad.numpy().tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", SOFTMAXES)
@given(rows=sides, classes=sides, seed=seeds)
@settings(max_examples=12)
def test_softmax_of_rows(name, rows, classes, seed):
    function, reference = SOFTMAXES[name]
    check(function, lambda v: reference(v, axis=-1), numbers(generator(seed), min(rows, 9), classes))


@pytest.mark.parametrize("name", SOFTMAXES)
@given(shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), seed=seeds, data=st.data())
@settings(max_examples=15)
def test_softmax_along_any_dimension(name, shape, seed, data):
    function, reference = SOFTMAXES[name]
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = 3 * numbers(generator(seed), *shape)
    check(lambda t: function(t, dim), lambda v: reference(v, axis=dim), x)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_is_stable(name):
    function, reference = SOFTMAXES[name]
    x = np.array([[1e4, 1e4 + 1, -1e4], [-1e38, 0, 1e38], [88.5, 89.5, 90.25], [-np.inf, 0, 1], [1e-30, 0, -1e-30]])
    want = reference(x, axis=-1)
    np.testing.assert_allclose(function(clnn.tensor(x)).numpy(), want, rtol=5e-7, atol=1e-38)
    assert np.isnan(function(clnn.tensor([[0.0, np.nan], [-np.inf, -np.inf]])).numpy()).all()


def test_softmax_adds_up_to_one():
    y = clnn.tensor(generator(5).standard_normal((300, 257)) * 20).softmax().numpy()
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(-1, dtype=np.float64), 1, rtol=1e-6)


def test_what_does_not_fit():
    for function in (ops.softmax, ops.log_softmax):
        with pytest.raises(ShapeError, match="at least one dimension"):
            function(clnn.tensor(1.0))
        with pytest.raises(ShapeError, match="no dimension 2"):
            function(clnn.zeros(2, 3), 2)
    for function, *_ in ACTIVATIONS.values():
        assert function(clnn.tensor([-3, 0, 2])).dtype == np.float32  # integers are taken as float32
        with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
            function(np.ones(3, np.float32))
