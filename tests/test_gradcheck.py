"""grad and gradcheck: against gradients known by hand or by SciPy, and against operations that are wrong on purpose."""

import re

import numpy as np
import pytest
from helpers import generator, numbers, positive, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import clnn
from clnn import modules as nn
from clnn import ops, optim
from clnn.errors import DTypeError, GradientError, GraphError, ShapeError
from clnn.tensor import Function, Tensor

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(params=["float64", "float32"])
def precision(request, device, monkeypatch):
    """The device as it is, and one that does not compute in float64."""
    if request.param == "float32":
        monkeypatch.setattr(device, "fp64", False)
    elif not device.fp64:
        pytest.skip(f"{device.name} does not compute in float64")
    return request.param


# grad


def test_grad_of_numbers(precision):
    cube = clnn.grad(lambda x: x**3)
    assert cube(2.0) == 12 and type(cube(2.0)) is float
    assert cube(2) == 12 and type(cube(2)) is float
    assert cube(0.1) == pytest.approx(0.03, rel=1e-14 if precision == "float64" else 1e-6)
    assert clnn.grad(lambda x, y: x * y, 1)(3.0, 5.0) == 3
    assert clnn.grad(lambda x, y: x * y, (1, 0))(3.0, 5.0) == (3, 5)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=seeds)
@settings(max_examples=15)
def test_grad_of_arrays(rows, columns, seed):
    rng = generator(seed)
    x, y = 0.2 * numbers(rng, rows, columns), numbers(rng, rows)  # far from where tanh levels off and digits are lost

    def loss(w, x, y, exponent=2):
        return (abs((x @ w).tanh() - y) ** exponent).mean()

    def reference(w):
        return (abs(np.tanh(x @ w) - y) ** 3).mean()

    w = numbers(rng, columns)
    slope = clnn.grad(loss)(w, clnn.tensor(x), y, exponent=3)
    assert type(slope) is np.ndarray and slope.dtype == (np.float64 if clnn.device().fp64 else np.float32)
    np.testing.assert_allclose(slope, optimize.approx_fprime(w, reference), rtol=1e-3, atol=1e-4)
    single = clnn.grad(loss)(w.astype(np.float32), clnn.tensor(x), y, exponent=3)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, slope, rtol=1e-4, atol=1e-5 * max(1, abs(slope).max()))


def test_grad_of_lists_and_dicts():
    def loss(w, x):
        return ((w["layers"][0] * x + w["shift"]) ** 2).sum() * w["scale"]

    x = np.array([3.0, 4.0])
    slope = clnn.grad(loss)({"layers": (clnn.tensor([1.0, 2.0]),), "shift": np.array(1.0), "scale": 0.5, "no": 7.0}, x)
    assert list(slope) == ["layers", "shift", "scale", "no"] and type(slope["layers"]) is tuple
    (first,) = slope["layers"]
    assert isinstance(first, Tensor) and not first.requires_grad and first.numpy().tolist() == [4 * 3, 9 * 4]
    assert type(slope["shift"]) is np.ndarray and slope["shift"].shape == () and slope["shift"] == 13
    assert slope["scale"] == 16 + 81
    assert slope["no"] == 0 and type(slope["no"]) is float  # on no way to the result
    unused = clnn.grad(lambda w: w[0] * 2)([clnn.tensor(1.0), clnn.tensor([1.0, 2.0])])[1]
    assert unused.numpy().tolist() == [0, 0]


def test_grad_changes_nothing():
    """Not the argument, not the parameters that f uses besides, and not an optimiser's gradients."""
    net, x = nn.Linear(3, 1), clnn.tensor([[1.0, 2.0, 3.0]])
    opt = optim.SGD(net.parameters(), lr=0.5)
    net(x).sum().backward()
    before = net.weight.numpy()
    slope = clnn.grad(lambda x: net(x).sum() * 100)(x)
    np.testing.assert_array_equal(slope.numpy(), 100 * before)
    assert x.grad is None and not x.requires_grad
    assert net.weight.grad.numpy().tolist() == [[1, 2, 3]] and net.bias.grad.numpy().tolist() == [1]
    opt.step()
    np.testing.assert_allclose(net.weight.numpy(), before - 0.5 * x.numpy(), rtol=1e-6)

    w = clnn.tensor([2.0], requires_grad=True)
    (w * 3).sum().backward()
    assert clnn.grad(lambda w: (w * w).sum())(w).numpy().tolist() == [4]
    assert w.grad.numpy().tolist() == [3] and w.requires_grad


def test_grad_keeps_the_name():
    def loss(w):
        """How wrong."""

    assert clnn.grad(loss).__name__ == "loss" and clnn.grad(loss).__doc__ == "How wrong."


def test_grad_of_what_is_not_on_the_tape():
    w = clnn.tensor([1.0], requires_grad=True)
    for f in (lambda x: (x.detach() * 2).sum(), lambda x: clnn.tensor(x.numpy()).sum(), lambda x: (w * w).sum()):
        with pytest.raises(GraphError, match="does not come from the argument on the tape"):
            clnn.grad(f)(np.ones(3))
    with pytest.raises(GraphError, match="is it a gradient itself"):
        clnn.grad(clnn.grad(lambda x: x**3))(clnn.tensor(2.0))
    with pytest.raises(DTypeError, match=r"must return a Tensor of .* computed from its arguments, it gave float"):
        clnn.grad(lambda x: float(x) ** 2)(2.0)
    with pytest.raises(ShapeError, match=r"starts from one number, this tensor has shape \(3,\)"):
        clnn.grad(lambda x: x * 2)(np.ones(3))
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients"):
        clnn.grad(lambda x: x.sum())(np.arange(3))
    assert w.grad is None


# gradcheck: what is right

FUNCTIONS = {
    "square": lambda x, y: (x * x).sum(),
    "of many numbers": lambda x, y: x.tanh() * y.exp(),
    "loss": lambda x, y: ops.mse_loss(x, y),
    "softmax": lambda x, y: x.softmax() @ y.T,
    "shapes": lambda x, y: (x.T @ y)[1:].reshape(-1).sum(0, keepdim=True) * y.mean(),
    "labels": lambda x, y: ops.cross_entropy(x, np.zeros(3, int)) + y.sigmoid().sum(),
    "large numbers": lambda x, y: (1000 * x * y).sum() + 1e4,
    "kinks": lambda x, y: abs(x).sum() + y.relu().sum() + x.maximum(y).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_that_are_right(name, precision):
    for seed in range(5):
        rng = generator(seed)
        x, y = (clnn.tensor(numbers(rng, 3, 4), requires_grad=True) for _ in range(2))
        assert clnn.gradcheck(FUNCTIONS[name], x, y)
        assert clnn.gradcheck(FUNCTIONS[name], (x, y))  # as in PyTorch


def test_at_kinks_every_slope_between_is_right():
    x = clnn.tensor([0.0, 0.0, 1.0, -2.0], requires_grad=True)
    for f in (
        abs,
        ops.relu,
        lambda x: x.max(),
        lambda x: x.clamp(0, 1),
        lambda x: x.maximum(0),
        lambda x: x.minimum(0),
    ):
        assert clnn.gradcheck(f, x)

    class Steep(Wrong):
        """|x| with a slope at 0 that is steeper than either side's."""

        def forward(self, x):
            self.x = x
            return abs(Tensor(x, self.device)).array

        def slope(self, x):
            return (x > 0) * 2 - 1.0 - 0.5 * (x == 0)

    with pytest.raises(GradientError, match="differ at 2 of 4 elements"):
        clnn.gradcheck(Steep(), x)


def test_what_is_checked():
    """Tensors that require gradients; if there is none, whatever has floating-point numbers."""
    x, constant = clnn.tensor([1.0, 2.0], requires_grad=True), clnn.tensor([3.0, 4.0])
    wrong_by_constant = lambda x, c: x * c.detach()  # noqa: E731
    assert clnn.gradcheck(wrong_by_constant, x, constant)
    with pytest.raises(GradientError, match="input 1"):
        clnn.gradcheck(wrong_by_constant, x.detach(), constant)
    assert clnn.gradcheck(
        lambda a, b, n, rows: (a[rows.numpy()] * b * n).sum(), np.ones((3, 2)), 0.5, 3, clnn.arange(2)
    )
    with pytest.raises(GradientError, match=r"input 1, shape \(\)"):
        clnn.gradcheck(lambda a, b: (a * float(b)).sum(), np.ones(3), 0.5)
    with pytest.raises(DTypeError, match="needs an input of floating-point numbers"):
        clnn.gradcheck(lambda a: a * 2, np.arange(3))
    with pytest.raises(DTypeError, match="needs an input"):
        clnn.gradcheck(lambda: clnn.tensor(1.0))


def test_one_tensor_twice():
    x = clnn.tensor([1.0, -2.0], requires_grad=True)
    assert clnn.gradcheck(lambda a, b: a * b + a, x, x)


def test_a_net_by_its_parameters(precision):
    """In place: the parameters are no arguments of what is computed, and their layers want float32."""
    clnn.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))
    x, y = clnn.randn(4, 1, 8, 8), clnn.tensor([0, 2, 1, 1])
    assert clnn.gradcheck(lambda *_: nn.CrossEntropyLoss()(net(x), y), *net.parameters())
    double = clnn.tensor(x.numpy(), np.float64) if precision == "float64" else x
    shapes = []

    def loss(*_):
        result = nn.CrossEntropyLoss()(net(double), y)
        shapes.append(result.dtype)
        return result

    assert clnn.gradcheck(loss, *net.parameters())
    assert set(shapes) == {np.dtype(precision)}


# gradcheck: what is wrong


class Wrong(Function):
    """The square with the slope of a subclass."""

    def forward(self, x):
        self.x = x
        t = Tensor(x, self.device)
        return (t * t).array

    def backward(self, grad):
        return ((Tensor(grad, self.device) * self.slope(Tensor(self.x, self.device))).array,)


SLOPES = {
    "sign": lambda x: -2 * x, "factor": lambda x: x, "always positive": lambda x: 2 * abs(x), "zero": lambda x: 0 * x,
    "two per cent too much": lambda x: 2.04 * x + 0.03, "nan": lambda x: x / 0 * 0,
    "one element only": lambda x: 2 * x * np.array([[1, 1, 1], [1, 1, 1.5]]),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_that_are_wrong(name, precision):
    def function(x):
        square = Wrong()
        square.slope = SLOPES[name]
        return square(x)

    for scale in (1e-3, 1, 1e3):  # whatever the result is multiplied with
        x = clnn.tensor(positive(generator(2), 2, 3) * [[1, -1, 1], [-1, 1, -1]], requires_grad=True)
        if precision == "float32" and scale < 1:
            continue  # below what rounding leaves there
        with pytest.raises(GradientError, match=r"input 0, shape \(2, 3\)"):
            clnn.gradcheck(lambda x, s=scale: function(x) * s, x)
        assert clnn.gradcheck(lambda x, s=scale: function(x) * s, x, raise_exception=False) is False


def test_the_message_shows_both_gradients():
    def half(x):
        square = Wrong()
        square.slope = lambda x: x * 1.0
        return square(x)

    x = clnn.tensor([[0.5, 2.0, 0.0], [1.0, -8.0, 4.0]], requires_grad=True)
    with pytest.raises(GradientError) as caught:
        clnn.gradcheck(lambda c, x: half(x).sum() * c, clnn.tensor(1.0), x)
    first, _, *rows, last = str(caught.value).splitlines()
    how = "float64, eps=1e-06" if clnn.device().fp64 else "float32, eps=0.003"
    assert first == (
        f"input 1, shape (2, 3): the tape's gradient and the numeric one differ at 5 of 6 elements ({how})"
    )
    shown = [[float(n) for n in re.findall(r"[-+.\de]+", row)] for row in rows]
    want = [[1, 1, -8, -16], [1, 2, 4, 8], [0, 1, 2, 4], [1, 0, 1, 2], [0, 0, 0.5, 1]]  # the worst first
    np.testing.assert_allclose(shown, want, rtol=1e-4)
    assert last == "  the tape's is 0.5 times the numeric one everywhere"


def test_long_messages_are_cut():
    def wrong(x):
        square = Wrong()
        square.slope = lambda x: x * x + 10
        return square(x)

    with pytest.raises(GradientError) as caught:
        clnn.gradcheck(lambda x: wrong(x).sum(), np.arange(300.0))
    lines = str(caught.value).splitlines()
    assert "differ at 300 of 300" in lines[0] and lines[-1] == "  and 295 more" and len(lines) == 8
    assert lines[2].split()[0] == "299"


def test_results_off_the_tape():
    with pytest.raises(GradientError, match="does not come from this input on the tape"):
        clnn.gradcheck(lambda x: x.detach() * 3, clnn.randn(3, requires_grad=True))
    assert clnn.gradcheck(lambda x: x.detach() * 0 + 5, clnn.randn(3, requires_grad=True))  # where zero is right
    with pytest.raises(DTypeError, match=r"must return a Tensor of .* computed from its arguments, it gave float32"):
        clnn.gradcheck(lambda x: x.numpy().sum(), clnn.randn(3, requires_grad=True))
    with pytest.raises(DTypeError, match="it gave one of int32"):
        clnn.gradcheck(lambda x: x.argmax(), clnn.randn(3, requires_grad=True))


def test_results_by_chance():
    with pytest.raises(GradientError, match=r"another value for the same inputs.*net\.eval\(\)"):
        clnn.gradcheck(lambda x: ops.dropout(x, 0.5), clnn.ones(100, requires_grad=True))


def test_tolerances():
    def off(x):  # by 0.5 where the right slope is 2 x
        square = Wrong()
        square.slope = lambda x: 2 * x + 0.5
        return square(x).sum()

    x = clnn.tensor([1.0, 5.0], requires_grad=True)
    assert not clnn.gradcheck(off, x, raise_exception=False)
    assert clnn.gradcheck(off, x, atol=0.51)
    assert clnn.gradcheck(off, x, rtol=0.26)
    assert not clnn.gradcheck(off, x, rtol=0.2, atol=0, raise_exception=False)
    with pytest.raises(GradientError, match=r"eps=0\.001\)"):
        clnn.gradcheck(off, x, eps=1e-3)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(fails):
    net, x = nn.Linear(3, 2), clnn.tensor([[1.0, -2.0, 3.0]])
    opt = optim.SGD(net.parameters(), lr=0.5)
    net(x).sum().backward()
    middle = x * net.weight  # an intermediate result among the inputs
    tensors = [net.weight, net.bias, middle, x, clnn.tensor([1, 2])]
    before = [(t.array, t.numpy(), t.node, t.requires_grad, t._grad_slot) for t in tensors]
    grads = [net.weight.grad, net.bias.grad]

    def f(weight, bias, middle, x, integers):
        result = (middle * weight).sum() + (bias * integers).sum() + net(x).sum()
        return result if not fails else result.no_such_thing

    if fails:
        with pytest.raises(AttributeError):
            clnn.gradcheck(f, *tensors)
    else:
        assert clnn.gradcheck(f, *tensors)
    for t, (array, values, *rest) in zip(tensors, before, strict=True):
        assert t.array is array and [t.node, t.requires_grad, t._grad_slot] == rest
        np.testing.assert_array_equal(t.numpy(), values)
    assert net.weight.grad is grads[0] and net.bias.grad is grads[1]
    assert net.weight.grad.numpy().tolist() == [[1, -2, 3]] * 2 and x.grad is None
    weight = net.weight.numpy()
    opt.step()
    np.testing.assert_allclose(net.weight.numpy(), weight - 0.5 * x.numpy(), rtol=1e-6)
    middle.sum().backward()  # and its tape is whole
