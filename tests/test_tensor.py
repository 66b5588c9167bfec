"""Tensors and the tape."""

import operator
import warnings

import numpy as np
import pytest
from helpers import assert_close, check, dtypes, generator, numbers, positive, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn import ops, program
from clnn.errors import ClnnError, DeviceError, DTypeError, GraphError, ShapeError
from clnn.tensor import Function

pytestmark = pytest.mark.usefixtures("device")


def leaf(*values):
    return clnn.tensor(np.array(values, float), requires_grad=True)


# Making tensors


@pytest.mark.parametrize("data, dtype", [
    (3, np.int32), (2.5, np.float32), (True, np.bool_), ([1, 2], np.int32), ([[1, 2.0], [3, 4]], np.float32),
    ([True, False], np.bool_), (np.float64(2), np.float32), (np.arange(3, dtype=np.uint8), np.int32),
    (np.arange(3, dtype=np.int64), np.int32), (np.ones((2, 1, 3), np.float16), np.float32), (range(4), np.int32),
    (np.uint64(2**31 - 1), np.int32), (-(2**31), np.int32),
])  # fmt: skip
def test_data_and_types(data, dtype):
    t = clnn.tensor(data)
    assert (t.dtype, t.shape, t.ndim, t.size) == (dtype, np.shape(data), np.ndim(data), np.size(data))
    assert t.nbytes == t.size * np.dtype(dtype).itemsize and t.is_leaf and not t.requires_grad and t.grad is None
    np.testing.assert_array_equal(t.numpy(), data)
    assert t.numpy().dtype == dtype


def test_chosen_types():
    x = np.array([1.5, -2.5, 0.0])
    for dtype in (*dtypes(), np.int32, bool):
        np.testing.assert_array_equal(clnn.tensor(x, dtype).numpy(), x.astype(dtype))
    np.testing.assert_array_equal(clnn.tensor(clnn.tensor(x)).numpy(), x)
    np.testing.assert_array_equal(clnn.tensor([clnn.tensor(1.0), clnn.tensor(2.0)]).numpy(), [1, 2])


def test_layouts_of_the_host():
    x = np.arange(24.0).reshape(2, 3, 4)
    for view in (x.T, x[:, ::-1], x[..., 1], np.asfortranarray(x), np.broadcast_to(x[0, 0], (3, 4)), x.astype(">f8")):
        np.testing.assert_array_equal(clnn.tensor(view).numpy(), view)


def test_the_host_s_array_may_change_at_once():
    x = np.ones(1_000_000, np.float32)
    t = clnn.tensor(x)
    x[:] = 7
    assert t.sum().item() == 1_000_000
    out = t.numpy()
    out[:] = 9
    assert t.sum().item() == 1_000_000


def test_data_that_no_tensor_holds():
    with pytest.raises(ShapeError, match=r"at least one element.*\(0, 3\): is a batch empty"):
        clnn.tensor(np.zeros((0, 3)))
    with pytest.raises(ShapeError, match="equal lengths"):
        clnn.tensor([[1, 2], [3]])
    for data in ("word", ["a", "b"], None, 1j, [object()], np.datetime64("2020-01-01")):
        with pytest.raises(DTypeError, match="holds numbers or booleans"):
            clnn.tensor(data)
    for data in (2**31, -(2**31) - 1, [2**40, 0], np.uint64(2**63)):
        with pytest.raises(DTypeError, match="do not fit int32"):
            clnn.tensor(data)
    for data in (np.nan, np.inf, 3e9):
        with pytest.raises(DTypeError, match="do not fit int32"), warnings.catch_warnings():
            warnings.simplefilter("error")
            clnn.tensor(data, np.int32)
    for dtype in (np.int64, np.float16, np.complex128, np.uint8):
        for make in (lambda t: clnn.tensor([1], t), lambda t: clnn.zeros(2, dtype=t)):
            with pytest.raises(DTypeError, match=f"cannot hold {np.dtype(dtype)}: it holds numbers as float32"):
                make(dtype)
    for make in (lambda: clnn.tensor([1, 2], requires_grad=True), lambda: clnn.zeros(2, dtype=bool).requires_grad_()):
        with pytest.raises(DTypeError, match="only floating-point tensors have gradients"):
            make()


def test_float64_only_where_the_device_has_it(device, monkeypatch):
    monkeypatch.setattr(device, "fp64", False)
    one = clnn.tensor(1.0)
    for make in (lambda: clnn.tensor(1.0, np.float64), lambda: clnn.ones(2, dtype=np.float64), one.double):
        with pytest.raises(DTypeError, match=r"does not compute in float64: use float32"):
            make()


def test_filled():
    assert clnn.zeros(2, 3).numpy().tolist() == [[0] * 3] * 2
    assert clnn.ones((3, 1)).numpy().tolist() == [[1]] * 3
    assert clnn.full((2,), 2.5).numpy().tolist() == [2.5, 2.5]
    assert clnn.full(3, -7, dtype=np.int32).numpy().tolist() == [-7] * 3
    assert clnn.full(np.int64(2), True, dtype=bool).numpy().tolist() == [True] * 2
    assert clnn.zeros(()).shape == () and clnn.zeros().item() == 0
    assert clnn.ones([2, 2], requires_grad=True).requires_grad
    for dtype in (*dtypes(), np.int32, bool):
        like = clnn.zeros(2, 5, dtype=dtype)
        for got, value in ((clnn.ones_like(like), 1), (clnn.zeros_like(like), 0)):
            assert got.shape == (2, 5) and got.dtype == dtype and (got.numpy() == value).all()
    for wrong in (lambda: clnn.zeros(2, 0), lambda: clnn.ones(-1), lambda: clnn.full((3, 0), 1), lambda: clnn.rand(0)):
        with pytest.raises(ShapeError, match="at least one element along each dimension"):
            wrong()
    for size in ((2.0, 3), (2.5,), ("2",), (clnn.ones(2).size / 1,)):
        with pytest.raises(ShapeError, match=r"a shape consists of integers, .* divide sizes with //"):
            clnn.zeros(*size)
    for value in (2**31, -np.inf, np.nan, "a"):
        with pytest.raises(DTypeError, match="is no number that int32 holds"):
            clnn.full(3, value, dtype=np.int32)
    with pytest.raises(ShapeError, match=r"fill_value is one number, got an array of shape \(2,\)"):
        clnn.full(4, [1, 2])


def test_more_elements_than_kernels_count(monkeypatch):
    """For every array, also those that an operation makes for itself."""
    x, w = clnn.ones(1, 1, 40, 40), clnn.ones(20, 1, 3, 3)
    monkeypatch.setattr(program, "MOST_ELEMENTS", 2000)
    for make in (lambda: clnn.zeros(2001), lambda: clnn.tensor(np.zeros((3, 667))), lambda: ops.conv2d(x, w)):
        with pytest.raises(ShapeError, match="has more than 2,000 elements: use a smaller batch"):
            make()
    assert clnn.zeros(2000).size == 2000


def test_arange():
    for bounds in ((5,), (2, 7), (1, 10, 3), (5, 0, -2)):
        t = clnn.arange(*bounds)
        assert t.dtype == np.int32
        np.testing.assert_array_equal(t.numpy(), np.arange(*bounds))
    assert clnn.arange(0.5, 3).dtype == np.float32
    assert clnn.arange(3, dtype=np.float32).dtype == np.float32
    with pytest.raises(ShapeError):
        clnn.arange(0)


def test_random_numbers():
    normal, uniform = clnn.randn(300, 400, seed=5).numpy(), clnn.rand(300, 400, seed=5).numpy()
    assert normal.dtype == uniform.dtype == np.float32
    n = normal.size
    assert abs(normal.mean()) < 5 / np.sqrt(n) and abs(normal.var() - 1) < 5 * np.sqrt(2 / n)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 / np.sqrt(12 * n) and abs(uniform.var() - 1 / 12) < 0.001
    np.testing.assert_array_equal(clnn.randn(300, 400, seed=5).numpy(), normal)
    assert (clnn.randn(300, 400, seed=6).numpy() != normal).mean() > 0.99


def test_manual_seed():
    def draw():
        dropped = ops.dropout(clnn.ones(50)).numpy()
        return [clnn.randn(4).numpy(), clnn.rand(4).numpy(), clnn.modules.Linear(3, 2).weight.numpy(), dropped]

    clnn.manual_seed(17)
    first, second = draw(), draw()
    clnn.manual_seed(17)
    for a, b, c in zip(first, draw(), second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    before = clnn.randn(2, seed=3).numpy()  # a seed of its own leaves the common one alone
    clnn.manual_seed(17)
    clnn.randn(2, seed=3)
    np.testing.assert_array_equal(draw()[0], first[0])
    np.testing.assert_array_equal(before, clnn.randn(2, seed=3).numpy())


# Reading them


def test_numbers_of_python():
    assert clnn.tensor([[3]]).item() == 3 and isinstance(clnn.tensor(3).item(), int)
    assert isinstance(clnn.tensor(2.5).item(), float) and clnn.tensor(True).item() is True
    assert float(clnn.tensor([2.5])) == 2.5 and int(clnn.tensor(2.5)) == 2
    assert bool(clnn.tensor([0.0])) is False and bool(clnn.tensor(3) > 2) is True
    for convert in (clnn.Tensor.item, float, int, bool):
        with pytest.raises(ShapeError, match=r"one element, this one has shape \(2,\)"):
            convert(clnn.tensor([1, 2]))


def test_as_numpy_array():
    t = clnn.tensor([[1.5, 2.0]])
    assert np.asarray(t).dtype == np.float32
    assert np.asarray(t, dtype=np.int64).tolist() == [[1, 2]]
    assert np.add(np.asarray(t), 1).tolist() == [[2.5, 3]]


def test_repr():
    assert repr(clnn.tensor([[1.0, 2.0], [3.0, 4.5]])) == "tensor([[1. , 2. ],\n        [3. , 4.5]])"
    assert repr(clnn.tensor([1, 2])) == "tensor([1, 2], dtype=int32)"
    assert repr(leaf(0.5)) == "tensor([0.5], requires_grad=True)"


def test_identity_is_the_key():
    a, b = clnn.tensor([1.0]), clnn.tensor([1.0])
    assert len({a, b, a}) == 2 and {a: 1}[a] == 1


def test_copy_in_place():
    t = clnn.zeros(2, 3)
    values = numbers(generator(1), 2, 3)
    assert t.copy_(values) is t
    np.testing.assert_array_equal(t.numpy(), values)
    t.copy_(clnn.ones(2, 3))
    assert (t.numpy() == 1).all()
    assert (t.copy_(2.5).numpy() == 2.5).all()
    for wrong in (np.zeros((3, 2)), np.zeros(3), np.zeros((1, 3)), clnn.zeros(6)):
        with pytest.raises(ShapeError, match=r"into one of \(2, 3\)"):
            t.copy_(wrong)
    with pytest.raises(DTypeError, match="int32 into float32"):
        t.copy_(clnn.zeros(2, 3, dtype=np.int32))
    with pytest.raises(DTypeError):
        t.copy_("ab")
    assert (t.numpy() == 2.5).all()


# The tape


def test_gradient_of_a_scalar():
    x = leaf(2.0, -3.0)
    y = (x * x * clnn.tensor([5.0, 7.0])).sum()
    assert y.requires_grad and not y.is_leaf and x.is_leaf
    assert y.backward() is None
    assert x.grad.numpy().tolist() == [20, -42] and not x.grad.requires_grad and y.grad is None


def test_weights_of_the_elements():
    x = leaf(2.0, -3.0)
    (x * x).backward(clnn.tensor([10.0, 100.0]))
    assert x.grad.numpy().tolist() == [40, -600]


def test_backward_from_a_leaf():
    x = leaf(2.0)
    x.backward()
    x.backward(clnn.tensor([3.0]))
    assert x.grad.numpy().tolist() == [4]


def test_gradients_add_up():
    x = leaf(1.0, 2.0)
    for times in (1, 2, 3):
        (x * clnn.tensor([3.0, 4.0])).sum().backward()
        assert x.grad.numpy().tolist() == [3 * times, 4 * times]
    x.grad = None
    x.sum().backward()
    assert x.grad.numpy().tolist() == [1, 1]


def test_leaves_share_no_gradient_memory():
    """a and b get one array as their gradients: adding to one must not change the other."""
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).sum().backward()
    (a * 2).sum().backward()
    assert a.grad.numpy().tolist() == [3, 3] and b.grad.numpy().tolist() == [1, 1]

    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).sum().backward()
    clnn.optim.SGD([a, b], lr=1.0)  # from here on their gradients have places of their own
    (a + b).sum().backward()
    assert a.grad.numpy().tolist() == [2, 2] and b.grad.numpy().tolist() == [2, 2]


def test_diamonds():
    """Values that reach the result on several ways, long and short, twice in one function, and not at all."""

    def function(x):
        a = x * 3 + 1
        b = a.tanh()
        c = a * b + x
        d = c + c * a
        (a * 100).tanh()  # on no way to the result
        return (d * d + b - c).sum() + x.max()

    def reference(x):
        a = x * 3 + 1
        b = np.tanh(a)
        c = a * b + x
        d = c + c * a
        return (d * d + b - c).sum() + x.max()

    check(function, reference, np.array([[0.5, -0.25, 0.125], [0.75, -0.5, 0.0625]]))


@given(steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)), max_size=14), seed=seeds)
@settings(max_examples=25)
def test_random_graphs(steps, seed):
    """Each step combines two results of earlier ones, picked at random; the last three are added up."""
    functions = {
        0: (lambda a, b: (a + b) * 0.6, lambda a, b: (a + b) * 0.6),
        1: (lambda a, b: a * b, lambda a, b: a * b),
        2: (lambda a, b: (a - b).tanh(), lambda a, b: np.tanh(a - b)),
        3: (lambda a, b: a.sum(0, keepdim=True) * 0.1 + b, lambda a, b: a.sum(0, keepdims=True) * 0.1 + b),
        4: (lambda a, b: (a @ b.T @ b).tanh(), lambda a, b: np.tanh(a @ b.T @ b)),
    }

    def build(which, *inputs):
        values = list(inputs)
        for kind, i, j in steps:
            values.append(functions[kind][which](values[i % len(values)], values[j % len(values)]))
        return values[-1] + values[-2] * values[-3] + inputs[0] * inputs[1] - inputs[2]

    rng = generator(seed)
    inputs = [rng.uniform(-0.9, 0.9, (3, 4)).astype(np.float32).astype(float) for _ in range(3)]
    check(lambda *t: build(0, *t), lambda *v: build(1, *v), *inputs, limit=1e-4, numeric=1e-5)


def test_long_chains():
    """Deeper than Python's recursion limit."""
    x = leaf(1.0)
    y = x
    for _ in range(3000):
        y = y + 0.5
    y.backward()
    assert x.grad.item() == 1 and y.item() == 1501


def test_a_used_up_tape():
    x = leaf(1.0, 2.0)
    y = x.exp()
    first, second = y.sum(), (y * 3).sum()
    first.backward()
    before = x.grad.numpy()
    for used in (first, second):
        with pytest.raises(GraphError, match="used up by an earlier backward"):
            used.backward()
    np.testing.assert_array_equal(x.grad.numpy(), before)  # a refused backward adds nothing
    y.detach().sum()
    x.exp().sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * before)


def test_a_tape_that_is_kept():
    """A second backward adds the same again, also into an optimiser's place; without retain_graph it is the last."""
    x, w = leaf(1.0, 2.0), clnn.modules.Parameter([[0.5, -1.0], [2.0, 0.25]])
    clnn.optim.SGD([w], lr=1.0)
    y = ((w @ x).tanh() * x).sum()
    y.backward(retain_graph=True)
    once = [t.grad.numpy() for t in (x, w)]
    y.backward(None, True)
    y.backward()
    for t, grad in zip((x, w), once, strict=True):
        np.testing.assert_allclose(t.grad.numpy(), 3 * grad, rtol=1e-6)
    with pytest.raises(GraphError, match=r"keep the tape there with backward\(retain_graph=True\)"):
        y.backward()


def test_backward_that_cannot_be():
    x = leaf(1.0, 2.0)
    with pytest.raises(GraphError, match="depends on nothing with requires_grad=True"):
        clnn.tensor([1.0]).backward()
    with pytest.raises(GraphError, match="depends on nothing"):
        (x > 1).backward()
    y = x * 2
    with pytest.raises(ShapeError, match=r"starts from one number, this tensor has shape \(2,\): take its sum"):
        y.backward()
    with pytest.raises(ShapeError, match=r"gradient has shape \(1,\), the tensor \(2,\)"):
        y.backward(clnn.ones(1))
    with pytest.raises(DTypeError, match="gradient is int32, the tensor float32"):
        y.backward(clnn.ones(2, dtype=np.int32))
    with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
        y.backward(np.ones(2))
    assert x.grad is None
    y.backward(clnn.ones(2))  # and the tape is still whole
    assert x.grad.numpy().tolist() == [2, 2]


def test_no_grad():
    x = leaf(1.0, 2.0)
    assert clnn.is_grad_enabled()
    with clnn.no_grad():
        assert not clnn.is_grad_enabled()
        y = x * 2
        with clnn.no_grad():
            pass
        assert not clnn.is_grad_enabled()
    assert not y.requires_grad and y.is_leaf and clnn.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), clnn.no_grad():
        _ = 1 / 0
    assert clnn.is_grad_enabled()

    @clnn.no_grad()
    def double(t):
        return t * 2

    assert not double(x).requires_grad and (x * 2).requires_grad


def test_detach():
    x = leaf(1.0, 2.0)
    y = x * 3
    cut = y.detach()
    assert not cut.requires_grad and cut.array is y.array
    (y * cut).sum().backward()
    assert x.grad.numpy().tolist() == [9, 18]  # 3 * cut, not 2 * 9 x


def test_requires_grad():
    x = clnn.tensor([1.0, 2.0])
    assert not (x * 2).requires_grad
    assert x.requires_grad_() is x
    y = leaf(3.0, 4.0)
    y.requires_grad_(False)
    (x * y).sum().backward()
    assert x.grad.numpy().tolist() == [3, 4] and y.grad is None


def test_retain_grad():
    x = leaf(1.0, 2.0)
    y = x * 3
    z = y * y
    y.retain_grad()
    z.retain_grad()
    (z * 1).sum().backward()
    assert y.grad.numpy().tolist() == [6, 12] and z.grad.numpy().tolist() == [1, 1]
    assert x.grad.numpy().tolist() == [18, 36]
    with pytest.raises(GraphError, match="retain_grad"):
        clnn.tensor([1.0]).retain_grad()


def test_memory_goes_back_with_the_tape(device):
    x = clnn.ones(1000, 1000, requires_grad=True)
    y = (x * 2).exp().tanh()
    held = device.pool.active_bytes
    y.sum().backward()
    x.grad = None
    assert device.pool.active_bytes <= held - 2 * x.nbytes


def test_functions_of_one_s_own():
    class Cube(Function):
        def forward(self, x):
            self.x = x
            t = clnn.Tensor(x, self.device)
            return (t * t * t).array

        def backward(self, grad):
            x = clnn.Tensor(self.x, self.device)
            return ((clnn.Tensor(grad, self.device) * x * x * 3).array,)

    check(lambda t: Cube()(t * 2), lambda v: (2 * v) ** 3, positive(generator(1), 3, 4))


# Devices


def test_two_devices(device):
    other = clnn.Device(device.cl_device)  # the same hardware, but with memory of its own
    here, there = clnn.tensor([1.0, 2.0]), clnn.tensor([3.0, 4.0], device=other)
    assert here.device is device and there.device is other
    for function in (operator.add, operator.truediv, operator.matmul, operator.lt, operator.eq, ops.maximum):
        with pytest.raises(DeviceError, match=r"different devices, .* move one with to\(\)"):
            function(here, there)
    with pytest.raises(DeviceError):
        here.add_(there)
    with pytest.raises(DeviceError):
        ops.where(clnn.tensor([True, False]), there, there)
    with pytest.raises(DeviceError):
        (leaf(1.0, 2.0) * 2).backward(there)
    assert (here + there.to(device)).numpy().tolist() == [4, 6]
    assert here.to(device) is here
    here.copy_(there)
    assert here.numpy().tolist() == [3, 4]
    with clnn.use_device(other):
        assert clnn.zeros(2).device is other and (there * 2 + 1).device is other
        assert (there @ np.array([1.0, 2.0])).item() == 11
    assert clnn.zeros(2).device is device


@pytest.mark.parametrize("spec", ["pocl-of-another-world", 99])
def test_unknown_devices(spec):
    with pytest.raises(DeviceError, match="no device fits"):
        clnn.tensor([1.0], device=spec)


def test_memory_that_does_not_fit(device, monkeypatch):
    monkeypatch.setattr(device, "memory", device.pool.active_bytes + 2**20)
    with pytest.raises(clnn.DeviceMemoryError, match=r"an array of 2 MiB does not fit on .* Use a smaller batch"):
        clnn.zeros(2**10, 2**9)
    with pytest.raises(ShapeError, match=r"\(65536, 65536, 64\) has more than 2,147,483,647 elements"):
        clnn.zeros(2**16, 2**16, 2**6)
    assert (clnn.ones(3) * 2).numpy().tolist() == [2, 2, 2]  # life goes on


def test_named_exceptions():
    """Each is of clnn and of the kind that Python programs expect."""
    for error, kind in ((ShapeError, ValueError), (DTypeError, TypeError), (GraphError, RuntimeError)):
        assert issubclass(error, ClnnError) and issubclass(error, kind)


def test_float32_gradients_of_a_small_net():
    """Linear, tanh, linear, cross-entropy by hand against the tape."""
    rng = generator(12)
    x, w, v = numbers(rng, 7, 5), numbers(rng, 6, 5) / 2, numbers(rng, 4, 6) / 2
    labels = rng.integers(0, 4, 7)
    t = [clnn.tensor(a, requires_grad=True) for a in (x, w, v)]
    ops.cross_entropy(ops.linear(ops.linear(t[0], t[1]).tanh(), t[2]), clnn.tensor(labels)).backward()
    h = np.tanh(x @ w.T)
    p = np.exp(h @ v.T)
    p /= p.sum(1, keepdims=True)
    d = (p - np.eye(4)[labels]) / 7
    e = d @ v * (1 - h * h)
    for got, want in zip(t, (e @ w, e.T @ x, d.T @ h), strict=True):
        assert_close(got.grad.numpy(), want, 1e-5, "gradient")


def test_one_number_is_formatted():
    loss = clnn.tensor(2.34567, requires_grad=True)
    assert f"{loss:.3f}" == "2.346"
    assert f"{clnn.tensor([1.0, 2.0])}".startswith("tensor([")
    with pytest.raises(ShapeError, match="one element"):
        f"{clnn.tensor([1.0, 2.0]):.3f}"


def test_masks_are_combined():
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 7)) > 0.5, rng.random((5, 7)) > 0.5
    x, y = clnn.tensor(a), clnn.tensor(b)
    for got, want in ((~x, ~a), (x & y, a & b), (x | y, a | b), (x.all(0), a.all(0)), (x.any(1), a.any(1))):
        assert got.dtype == np.bool_
        np.testing.assert_array_equal(got.numpy(), want)
    assert not x.all() and x.any() and (x | ~x).all()
    with pytest.raises(DTypeError, match="bool tensors, got float32"):
        x & clnn.tensor(a.astype(np.float32))
