"""Arithmetic, comparison and choice, element by element."""

import operator

import numpy as np
import pytest
from helpers import assert_close, check, distinct, dtypes, generator, numbers, positive, seeds, sides
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

import clnn
from clnn import ops
from clnn.errors import DTypeError, GraphError, ShapeError
from clnn.program import RUN

pytestmark = pytest.mark.usefixtures("device")

# name: (on tensors, on arrays, data of the left side, of the right side)
BINARY = {
    "add": (operator.add, np.add, numbers, numbers),
    "sub": (operator.sub, np.subtract, numbers, numbers),
    "mul": (operator.mul, np.multiply, numbers, numbers),
    "div": (operator.truediv, np.divide, numbers, positive),
    "power": (operator.pow, np.power, positive, numbers),
    "maximum": (ops.maximum, np.maximum, numbers, numbers),
    "minimum": (ops.minimum, np.minimum, numbers, numbers),
}
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=7)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=4, min_side=1, max_side=5)


@pytest.mark.parametrize("name", BINARY)
@given(shapes=pairs, seed=seeds)
@settings(max_examples=15)
def test_broadcast(name, shapes, seed):
    function, reference, left, right = BINARY[name]
    rng = generator(seed)
    a, b = shapes.input_shapes
    check(function, reference, left(rng, *a), right(rng, *b))


@pytest.mark.parametrize("name", BINARY)
@given(shape=shapes, seed=seeds)
@settings(max_examples=8)
def test_same_shape_and_numbers(name, shape, seed):
    function, reference, left, right = BINARY[name]
    rng = generator(seed)
    a, b = left(rng, *shape), right(rng, *shape)
    check(function, reference, a, b)
    x, y = float(left(rng)), float(right(rng))
    check(lambda t: function(t, y), lambda v: reference(v, y), a)
    check(lambda t: function(x, t), lambda v: reference(x, v), b)


@pytest.mark.parametrize("name", BINARY)
def test_numpy_arrays_mix_in(name):
    function, reference, left, right = BINARY[name]
    rng = generator(3)
    a, b = left(rng, 5, 1), right(rng, 3)
    for dtype in dtypes():
        for x, y in ((clnn.tensor(a, dtype), b), (a, clnn.tensor(b, dtype)), (clnn.tensor(a, dtype), b.tolist())):
            got = function(x, y)
            assert got.dtype == dtype
            assert_close(got.numpy(), reference(a, b), 1e-6, name)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 70001])
def test_sizes_around_work_groups(size):
    rng = generator(size)
    a, b = rng.standard_normal((2, size), dtype=np.float32)
    np.testing.assert_array_equal((clnn.tensor(a) + clnn.tensor(b)).numpy(), a + b)
    np.testing.assert_array_equal((clnn.tensor(a) * 3).numpy(), a * np.float32(3))
    np.testing.assert_array_equal((2 - clnn.tensor(a)).numpy(), np.float32(2) - a)
    np.testing.assert_array_equal((-clnn.tensor(a)).numpy(), -a)


def test_eight_dimensions():
    rng = generator(8)
    a, b = numbers(rng, 2, 1, 3, 1, 2, 1, 2, 3), numbers(rng, 1, 2, 3, 2, 1, 2, 1, 3)
    check(operator.mul, np.multiply, a, b)


@pytest.mark.parametrize("compare", COMPARISONS)
@given(shapes=pairs, seed=seeds)
@settings(max_examples=10)
def test_comparisons(compare, shapes, seed):
    rng = generator(seed)
    a, b = [rng.integers(-2, 3, shape) for shape in shapes.input_shapes]  # few values, so that some are equal
    for dtype in (*dtypes(), np.int32):
        x, y = a.astype(dtype), b.astype(dtype)
        if np.dtype(dtype).kind == "f" and x.size > 1:
            x.flat[0] = np.nan
        for left, right in (
            (clnn.tensor(x, dtype), clnn.tensor(y, dtype)),
            (clnn.tensor(x, dtype), y),
            (x, clnn.tensor(y, dtype)),
        ):
            got = compare(left, right)
            assert got.dtype == np.bool_ and not got.requires_grad
            np.testing.assert_array_equal(got.numpy(), compare(x, y))
        np.testing.assert_array_equal(compare(clnn.tensor(x, dtype), 1).numpy(), compare(x, 1))
        np.testing.assert_array_equal(compare(1, clnn.tensor(y, dtype)).numpy(), compare(1, y))
        np.testing.assert_array_equal(compare(clnn.tensor(x, dtype), 0.5).numpy(), compare(x, 0.5))


@given(shapes=pairs, seed=seeds)
@settings(max_examples=15)
def test_integers(shapes, seed):
    rng = generator(seed)
    a, b = [rng.integers(-50, 50, shape, dtype=np.int32) for shape in shapes.input_shapes]
    x, y = clnn.tensor(a), clnn.tensor(b)
    for function, reference in (
        (operator.add, np.add), (operator.sub, np.subtract), (operator.mul, np.multiply),
        (ops.maximum, np.maximum), (ops.minimum, np.minimum),
    ):  # fmt: skip
        got = function(x, y)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got.numpy(), reference(a, b))
        np.testing.assert_array_equal(function(x, 7).numpy(), reference(a, 7))
        np.testing.assert_array_equal(function(-3, y).numpy(), reference(-3, b))
    np.testing.assert_array_equal((-x).numpy(), -a)
    np.testing.assert_array_equal(abs(x).numpy(), abs(a))
    np.testing.assert_array_equal((x**2).numpy(), a**2)
    quotient = x / (y * y + 1)
    assert quotient.dtype == np.float32
    assert_close(quotient.numpy(), a / (b * b + 1.0), 1e-6, "quotient")


def test_dtypes_of_results():
    f32, i32, yes = clnn.tensor([1.5]), clnn.tensor([2]), clnn.tensor([True])
    expected = {
        np.float32: [
            f32 + 1,
            f32 + 1.5,
            f32 + np.float64(1),
            f32 + i32,
            f32 * yes,
            i32 + 0.5,
            i32 / 2,
            i32.exp(),
            i32**3,
        ],
        np.int32: [i32 + 1, i32 + True, i32 * yes, yes + yes, -yes, i32**2],
        np.bool_: [f32 > 1, i32 == 2, yes != yes, f32 < i32],
    }
    if clnn.device().fp64:
        f64 = clnn.tensor([1.5], np.float64)
        expected[np.float64] = [f64 + 1, f64 + f32, i32 * f64, f64 / 3, f64**2, f64 + np.ones(1, np.float32)]
    for dtype, tensors in expected.items():
        assert [t.dtype for t in tensors] == [dtype] * len(tensors)


# name: (on tensors, on arrays, data)
UNARY = {
    "neg": (operator.neg, np.negative, numbers),
    "abs": (abs, np.abs, distinct),
    "exp": (ops.exp, np.exp, numbers),
    "log": (ops.log, np.log, positive),
    "sqrt": (ops.sqrt, np.sqrt, positive),
    "square": (lambda x: x**2, np.square, numbers),
    "cube": (lambda x: x**3, lambda x: x**3, numbers),
    "inverse": (lambda x: x**-1, lambda x: 1 / x, positive),
    "root": (lambda x: x**0.5, np.sqrt, positive),
    "clamp": (lambda x: x.clamp(-0.3, 0.5), lambda x: np.clip(x, -0.3, 0.5), distinct),
    "clamp above": (lambda x: x.clamp(max=0.1), lambda x: np.minimum(x, 0.1), distinct),
    "clamp below": (lambda x: x.clamp(min=0.1), lambda x: np.maximum(x, 0.1), distinct),
}


@pytest.mark.parametrize("name", UNARY)
@given(shape=shapes, seed=seeds)
@settings(max_examples=10)
def test_unary(name, shape, seed):
    function, reference, data = UNARY[name]
    check(function, reference, data(generator(seed), *shape))


@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, min_dims=0, max_dims=4, min_side=1, max_side=5), seed=seeds
)
@settings(max_examples=15)
def test_where(shapes, seed):
    rng = generator(seed)
    m, a, b = shapes.input_shapes
    mask = rng.random(m) < 0.5
    x, y = numbers(rng, *a), numbers(rng, *b)
    check(ops.where, np.where, mask, x, y)
    check(lambda m, t: ops.where(m, t, 1.25), lambda m, t: np.where(m, t, 1.25), mask, x)
    check(lambda m, t: ops.where(m, -2, t), lambda m, t: np.where(m, -2, t), mask, y)


def test_where_keeps_infinite_gradients_apart():
    x = clnn.tensor([4.0, 1.0], requires_grad=True)
    ops.where(clnn.tensor([True, False]), x, 1.0).backward(clnn.tensor([2.0, np.inf]))
    assert x.grad.numpy().tolist() == [2.0, 0.0]


def test_where_of_integers_and_numbers():
    mask = clnn.tensor([[True], [False]])
    assert ops.where(mask, clnn.tensor([1, 2]), 0).numpy().tolist() == [[1, 2], [0, 0]]
    assert ops.where(mask, 1, 0).dtype == np.int32
    assert ops.where(mask, np.array([1.5, 2.5]), 0).numpy().tolist() == [[1.5, 2.5], [0, 0]]


def test_nan_and_infinity():
    a = np.array([np.nan, 1, np.nan, np.inf, -np.inf, 0, -0.0], np.float32)
    b = np.array([1, np.nan, np.nan, 2, 2, 0, 0], np.float32)
    x, y = clnn.tensor(a), clnn.tensor(b)
    with np.errstate(all="ignore"):
        for function, reference, *_ in BINARY.values():
            np.testing.assert_allclose(function(x, y).numpy(), reference(a, b), rtol=1e-6)
        for function, reference in ((ops.exp, np.exp), (ops.log, np.log), (ops.sqrt, np.sqrt), (abs, np.abs)):
            np.testing.assert_allclose(function(x).numpy(), reference(a), rtol=1e-6)


def test_gradients_at_ties_and_edges():
    x = clnn.tensor([np.inf, 2.0, 1.0, -1.0], requires_grad=True)
    y = clnn.tensor([1.0, 2.0, 3.0, -np.inf], requires_grad=True)
    ops.maximum(x, y).sum().backward()
    assert x.grad.numpy().tolist() == [1, 0.5, 0, 1] and y.grad.numpy().tolist() == [0, 0.5, 1, 0]

    x = clnn.tensor([0.0, 0.0, 2.0], requires_grad=True)
    y = clnn.tensor([0.0, 3.0, 0.0], requires_grad=True)
    (x**y).sum().backward()
    assert x.grad.numpy().tolist() == [0, 0, 0]
    np.testing.assert_allclose(y.grad.numpy(), [0, 0, np.log(2)], rtol=1e-6)

    x = clnn.tensor([0.0, -2.0], requires_grad=True)
    (x**0 + x**3 + abs(x)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [0, 11], rtol=1e-6)


def test_clamp_passes_the_gradient_at_its_limits():
    """As PyTorch does, for numbers and for tensors as limits; a limit gets the gradient of what it replaced."""
    x = clnn.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, np.nan], requires_grad=True)
    y = x.clamp(-1, 1)
    y.sum().backward()
    assert y.numpy()[:5].tolist() == [-1, -1, 0, 1, 1] and np.isnan(y.numpy()[5])
    assert x.grad.numpy().tolist() == [0, 1, 1, 1, 0, 0]
    x, low = clnn.tensor([[1.0, 2.0, 3.0]] * 2, requires_grad=True), clnn.tensor([2.0, 2.0, 2.0], requires_grad=True)
    x.clamp(min=low, max=2.5).sum().backward()
    assert x.grad.numpy().tolist() == [[0, 1, 0]] * 2 and low.grad.numpy().tolist() == [2, 0, 0]
    assert clnn.tensor([1.0, 2.0]).clamp(min=3, max=0).numpy().tolist() == [0, 0]  # as NumPy and PyTorch


def test_a_sum_of_absolute_values_as_penalty():
    """loss + lam * w.abs().sum(), the L1 penalty: lam times the sign of w, nothing where w is 0."""
    rng = generator(6)
    w = numbers(rng, 5, 3)
    w[rng.random(w.shape) < 0.4] = 0
    t = clnn.tensor(w, requires_grad=True)
    x = clnn.tensor(numbers(rng, 7, 5))
    loss = ((x @ t) ** 2).sum() + 0.25 * t.abs().sum()
    loss.backward()
    x = x.numpy().astype(float)
    assert (w == 0).any()
    assert_close(loss.item(), ((x @ w) ** 2).sum() + 0.25 * np.abs(w).sum(), 1e-5, "loss")
    assert_close(t.grad.numpy(), 2 * x.T @ (x @ w) + 0.25 * np.sign(w), 1e-5, "gradient")


def test_exp_log_sqrt_are_accurate():
    """OpenCL allows 3 units in the last place (6e-8 each) for exp, log and sqrt."""
    x = np.linspace(-87, 88, 100_003).astype(np.float32)
    np.testing.assert_allclose(clnn.tensor(x).exp().numpy(), np.exp(x.astype(float)), rtol=4e-7)
    x = np.exp(np.linspace(-80, 80, 100_003)).astype(np.float32)
    np.testing.assert_allclose(clnn.tensor(x).log().numpy(), np.log(x.astype(float)), rtol=4e-7, atol=1e-7)
    np.testing.assert_allclose(clnn.tensor(x).sqrt().numpy(), np.sqrt(x.astype(float)), rtol=4e-7)


def test_add_in_place():
    rng = generator(2)
    a, b = rng.standard_normal((2, 5, 7), dtype=np.float32)
    x = clnn.tensor(a)
    assert x.add_(clnn.tensor(b)) is x
    np.testing.assert_array_equal(x.numpy(), a + b)
    with pytest.raises(ShapeError, match=r"\(5, 7\) and \(7,\)"):
        x.add_(clnn.zeros(7))
    with pytest.raises(DTypeError, match="float32 and int32"):
        x.add_(clnn.zeros(5, 7, dtype=np.int32))


def test_add_in_place_where_it_would_have_to_be_recorded():
    x, y = clnn.tensor([1.0, 2.0], requires_grad=True), clnn.ones(2)
    for wrong in (lambda: x.add_(y), lambda: y.add_(x), lambda: (x * 2).add_(y)):
        with pytest.raises(GraphError, match=r"add_ is not recorded.*write x \+ y"):
            wrong()
    with clnn.no_grad():
        assert x.add_(y) is x and y.add_(x.detach()) is y
    assert x.numpy().tolist() == [2, 3] and y.numpy().tolist() == [3, 4]


@pytest.mark.parametrize("change", [operator.iadd, operator.isub, operator.imul, operator.itruediv])
def test_assignments_with_an_operator(change):
    """As in PyTorch leaves that require a gradient are changed themselves, where nothing is recorded."""
    rng = generator(3)
    a, b = positive(rng, 4, 3), positive(rng, 3)
    net = clnn.modules.Linear(3, 4, bias=False)
    net.load_state_dict({"weight": a})
    weight, memory = net.weight, net.weight.array
    with pytest.raises(GraphError, match=r"only where nothing is recorded: with clnn\.no_grad\(\)"):
        change(net.weight, clnn.tensor(b))
    with clnn.no_grad():
        net.weight = change(net.weight, clnn.tensor(b))
        with pytest.raises(ShapeError, match=r"a shape of \(2, 4, 3\) into one of \(4, 3\)"):
            change(net.weight, clnn.ones(2, 1, 1))
    assert net.weight is weight and weight.array is memory and weight.requires_grad
    assert_close(weight.numpy(), change(a.copy(), b), 1e-6, "weight")
    x = clnn.tensor(a)
    y = change(x, clnn.tensor(b, requires_grad=True))  # any other tensor: a new one, recorded
    assert y is not x and y.requires_grad and x.numpy().tolist() == a.astype(np.float32).tolist()
    assert_close(y.numpy(), change(a.copy(), b), 1e-6, "result")


@given(a=sides, b=sides)
def test_shapes_that_do_not_fit(a, b):
    if a == b or 1 in (a, b):
        return
    x, y = clnn.zeros(2, a), clnn.zeros(2, b)
    for function in (*[f for f, *_ in BINARY.values()], *COMPARISONS, lambda p, q: ops.where(p > 0, p, q)):
        with pytest.raises(ShapeError, match=rf"\(2, {a}\).*\(2, {b}\) do not fit"):
            function(x, y)


def test_operands_that_do_not_fit():
    x = clnn.tensor([1, 2])
    for other in (None, "2", 1j, object()):
        with pytest.raises(DTypeError, match=f"a tensor and {type(other).__name__}"):
            x + other
        with pytest.raises(DTypeError, match=f"a tensor and {type(other).__name__}"):
            x == other  # noqa: B015
    with pytest.raises(DTypeError, match="4294967296 does not fit int32"):
        x * 2**32
    with pytest.raises(DTypeError, match="holds numbers"):
        x + np.array(["a", "b"])
    with pytest.raises(ShapeError, match="at most 8 dimensions"):
        clnn.zeros(*[1] * 9) + clnn.zeros(2)


@pytest.mark.parametrize("n", [1, RUN - 1, RUN, RUN + 1, 2 * RUN + 3])
def test_around_what_one_work_item_computes(form, n):
    rng = generator(n)
    a, b, mask = numbers(rng, n), numbers(rng, n), rng.random(n) < 0.5
    check(lambda x, y: ops.tanh(x * y) - 2, lambda x, y: np.tanh(x * y) - 2, a, b)
    check(lambda x, y: ops.where(clnn.tensor(mask), x, 1 - y), lambda x, y: np.where(mask, x, 1 - y), a, b)
    for optimiser, settings_, step in (
        (clnn.optim.SGD, dict(lr=0.5, momentum=0.9), a - 0.5 * b),
        (clnn.optim.Adam, dict(lr=0.5, eps=0), a - 0.5 * np.sign(b)),  # its first step
    ):
        w = clnn.tensor(a, requires_grad=True)
        optimiser = optimiser([w], **settings_)
        w.grad = clnn.tensor(b)
        optimiser.step()
        assert_close(w.numpy(), step, 1e-5, type(optimiser).__name__)
    clnn.manual_seed(n)
    y = ops.dropout(clnn.tensor(b), 0.4).numpy()
    np.testing.assert_allclose(y[y != 0], b[y != 0] / 0.6, rtol=1e-5)
    assert n < 100 or 0.5 < (y != 0).mean() < 0.7
