"""Moving elements: shapes, views, rows by index, joining, conversions."""

import numpy as np
import pytest
from helpers import assert_close, check, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clnn
from clnn import ops, program
from clnn.errors import DeviceError, DTypeError, ShapeError

pytestmark = pytest.mark.usefixtures("device")

shapes = hnp.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=6)


@given(shape=shapes, seed=seeds, data=st.data())
@settings(max_examples=20)
def test_permute(shape, seed, data):
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    x = numbers(generator(seed), *shape)
    check(lambda t: t.permute(order), lambda v: v.transpose(order), x)
    check(lambda t: t.permute(*[d - len(shape) for d in order]), lambda v: v.transpose(order), x)
    check(lambda t: t.T, lambda v: v.T, x)
    a, b = order[0], order[-1]
    check(lambda t: t.transpose(a, b), lambda v: v.swapaxes(a, b), x)


@given(shape=shapes, seed=seeds, data=st.data())
@settings(max_examples=20)
def test_reshape(shape, seed, data):
    x = numbers(generator(seed), *shape)
    at = data.draw(st.integers(0, len(shape) - 1))
    check(lambda t: t.reshape(-1), lambda v: v.reshape(-1), x)
    check(lambda t: t.view(*shape[:at], -1), lambda v: v.reshape(*shape[:at], -1), x)
    check(lambda t: t.reshape(shape[::-1]), lambda v: v.reshape(shape[::-1]), x)
    flat = (*shape[:at], int(np.prod(shape[at:])))
    check(lambda t: t.flatten(at), lambda v: v.reshape(flat), x)
    flat = (int(np.prod(shape[: at + 1])), *shape[at + 1 :])
    check(lambda t: t.flatten(end_dim=at), lambda v: v.reshape(flat), x)
    check(lambda t: t.unsqueeze(at), lambda v: np.expand_dims(v, at), x)
    check(lambda t: t.unsqueeze(-1 - at), lambda v: np.expand_dims(v, -1 - at), x)
    check(lambda t: t.squeeze(), np.squeeze, x)
    one = at if shape[at] == 1 else ()
    check(lambda t: t.squeeze(at), lambda v: np.squeeze(v, one), x)


@given(shape=shapes, seed=seeds, data=st.data())
@settings(max_examples=60)
def test_basic_indexing(shape, seed, data):
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=7))
    x = numbers(generator(seed), *shape)
    if x[key].size:
        check(lambda t: t[key], lambda v: v[key], x)
    else:
        with pytest.raises(ShapeError, match="has no elements"):
            clnn.tensor(x)[key]


@given(shape=shapes, rows=hnp.array_shapes(min_dims=0, max_dims=2, max_side=9), seed=seeds)
@settings(max_examples=20)
def test_rows_by_index(shape, rows, seed):
    rng = generator(seed)
    x, rows = numbers(rng, *shape), rng.integers(-shape[0], shape[0], rows)  # rows come up several times
    check(lambda t: t[rows], lambda v: v[rows], x)
    check(lambda t: t[rows.tolist()] if rows.ndim else t[int(rows)], lambda v: v[rows], x)
    check(lambda t: ops.take_rows(t, clnn.tensor(rows)), lambda v: v[rows], x)


@given(shape=shapes, seed=seeds, data=st.data())
@settings(max_examples=20)
def test_masks(shape, seed, data):
    rng = generator(seed)
    covered = data.draw(st.integers(1, len(shape)))
    x, mask = numbers(rng, *shape), rng.random(shape[:covered]) < 0.6
    mask.flat[-1] = True
    check(lambda t: t[mask], lambda v: v[mask], x)
    check(lambda t: t[clnn.tensor(mask)], lambda v: v[mask], x)


def test_rows_sum_in_a_fixed_order():
    rng = generator(4)
    x, rows = numbers(rng, 3, 5), rng.integers(0, 3, 1000)
    gradients = []
    for _ in range(2):
        t = clnn.tensor(x, requires_grad=True)
        (t[rows] * clnn.tensor(numbers(generator(5), 1000, 5))).sum().backward()
        gradients.append(t.grad.numpy())
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 70001])
def test_sizes_around_work_groups(size):
    x = generator(size).standard_normal((size, 2), dtype=np.float32)
    np.testing.assert_array_equal(clnn.tensor(x).T.numpy(), x.T)
    np.testing.assert_array_equal(clnn.tensor(x)[::-1].numpy(), x[::-1])
    rows = generator(size).permutation(size)
    np.testing.assert_array_equal(clnn.tensor(x)[rows].numpy(), x[rows])


def test_iteration_and_length():
    x = np.arange(12).reshape(4, 3)
    t = clnn.tensor(x)
    assert len(t) == 4
    assert [row.numpy().tolist() for row in t] == x.tolist()
    with pytest.raises(ShapeError, match="no length"):
        len(t.sum())


def test_conversions():
    x = np.array([-2.7, -0.5, 0.0, 0.4, 3.9, 300.0])
    for dtype in dtypes():
        t = clnn.tensor(x, dtype)
        assert t.astype(dtype) is t
        np.testing.assert_array_equal(t.astype(np.int32).numpy(), x.astype(np.int32))
        np.testing.assert_array_equal(t.astype(bool).numpy(), x.astype(bool))
        np.testing.assert_array_equal(t.float().numpy(), x.astype(np.float32))
    i = clnn.tensor([-3, 0, 7])
    np.testing.assert_array_equal(i.float().numpy(), [-3, 0, 7])
    np.testing.assert_array_equal(i.astype(bool).numpy(), [True, False, True])
    np.testing.assert_array_equal(i.astype(bool).astype(np.int32).numpy(), [1, 0, 1])
    np.testing.assert_array_equal(i.astype(bool).float().numpy(), [1, 0, 1])


def test_conversions_carry_gradients(device):
    if not device.fp64:
        pytest.skip("the device has no float64")
    x = clnn.tensor([1.5, -2.0], requires_grad=True)
    (x.double() * clnn.tensor([0.1, 3.0], np.float64)).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), np.float32([0.1, 3.0]))


def test_clone():
    x = clnn.tensor([1.0, 2.0], requires_grad=True)
    copy = x.clone()
    (copy * clnn.tensor([3.0, 5.0])).sum().backward()
    assert x.grad.numpy().tolist() == [3, 5]
    copy.copy_([7, 8])
    assert x.numpy().tolist() == [1, 2] and copy.numpy().tolist() == [7, 8]
    assert clnn.tensor(3.5).clone().item() == 3.5


def test_wrong_shapes():
    x = clnn.zeros(2, 3, 4)
    for shape in ((5, 5), (-1, 7), (-1, -1, 24), (0, -1), (2, 3, 5), (-2, -12)):
        with pytest.raises(ShapeError, match=r"24 elements of shape \(2, 3, 4\)"):
            x.reshape(shape)
    for shape in ((x.size / 6, 6), (2.0, 3, 4), ("2", 12)):
        with pytest.raises(ShapeError, match=r"a shape consists of integers, .* divide sizes with //"):
            x.reshape(shape)
    for order in ((0, 1), (0, 0, 1), (0, 1, 2, 2)):
        with pytest.raises(ShapeError, match="each of the 3 dimensions once"):
            x.permute(order)
    for wrong in (lambda: x.transpose(0, 3), lambda: x.squeeze(-4), lambda: x.permute(0, 1, 3), lambda: x.flatten(3)):
        with pytest.raises(ShapeError, match=r"\(2, 3, 4\) has no dimension"):
            wrong()
    with pytest.raises(ShapeError, match="goes backwards"):
        x.flatten(2, 1)
    with pytest.raises(ShapeError, match="no place 4"):
        x.unsqueeze(4)


def test_wrong_indices():
    x = clnn.zeros(4, 3)
    for key in (4, (0, 3), (0, 0, 0), (slice(None), -4), (..., ...)):
        with pytest.raises(ShapeError, match=r"\(4, 3\) cannot be indexed"):
            x[key]
    with pytest.raises(ShapeError, match="no elements"):
        x[2:2]
    for key in (True, "a", 1.0, ([0], [1])):
        with pytest.raises(ShapeError, match="an index is made of"):
            x[key]
    for rows in ([0, 4], [-5]):
        with pytest.raises(ShapeError, match="there are 4"):
            x[rows]
    for rows in ([], [0.5]):
        with pytest.raises(ShapeError, match="non-empty array of integers"):
            x[rows]
    with pytest.raises(ShapeError, match="non-empty array of integers"):
        x[np.zeros(4, bool)]
    with pytest.raises(ShapeError, match=r"mask of shape \(3,\)"):
        x[np.ones(3, bool)]
    with pytest.raises(TypeError, match="not assigned by index"):
        x[0] = 1


def test_wrong_types():
    for dtype in (np.int64, np.float16, np.complex64):
        with pytest.raises(DTypeError, match=f"cannot hold {np.dtype(dtype)}"):
            clnn.zeros(2).astype(dtype)


@pytest.fixture(params=["parts of one device", "contexts of their own"])
def pair_of_devices(request, device):
    """Two devices: parts of one, between which nothing waits, or strangers, between which the host carries."""
    if request.param == "contexts of their own":
        return device, clnn.Device(device.cl_device)
    if device.kind != "CPU" or device.cores < 2:
        pytest.skip("this device cannot be split")
    return device.split(2)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (1023,)])
def test_to_another_device_and_back(pair_of_devices, shape):
    """Values of every type, and gradients through two journeys; a use on each side adds up."""
    here, there = pair_of_devices
    rng = generator(3)
    for dtype in (np.float32, np.int32, np.bool_):
        x = (rng.normal(size=shape) * 10).astype(dtype)
        assert clnn.tensor(x, dtype, device=here).to(there).device is there
        np.testing.assert_array_equal(clnn.tensor(x, dtype, device=here).to(there).numpy(), x)
    x, w = numbers(rng, *shape), numbers(rng, *shape)
    t = clnn.tensor(x, requires_grad=True, device=here)
    y = (t * t).to(there) * clnn.tensor(w, device=there) + t.to(there)
    (y.to(here) * t).sum().backward()
    assert t.grad.device is here
    assert_close(t.grad.numpy(), 3 * x**2 * w + 2 * x, 1e-5, "gradient")


def test_memory_goes_to_nobody_before_it_is_copied(pair_of_devices):
    """Arrays that are dropped while their copy is under way, and their memory written by others at once."""
    here, there = pair_of_devices
    copies = []
    for i in range(60):
        copies.append(clnn.full((100_000,), i, device=here).to(there))
        clnn.full((100_000,), -1, device=here)
    for i, copy in enumerate(copies):
        values = copy.numpy()
        assert values.min() == values.max() == i


@given(shape=shapes, lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=seeds, data=st.data())
@settings(max_examples=20)
def test_cat(shape, lengths, seed, data):
    """Any number of tensors, of different lengths, along any dimension."""
    rng, dim = generator(seed), data.draw(st.integers(-len(shape), len(shape) - 1))
    at = dim % len(shape)
    parts = [numbers(rng, *shape[:at], n, *shape[at + 1 :]) for n in lengths]
    check(lambda *t: clnn.cat(t, dim), lambda *v: np.concatenate(v, dim), *parts)


def test_cat_of_one_tensor_twice_and_of_integers():
    x = numbers(generator(21), 3, 4)
    check(lambda t: ops.cat([t, t * 2, t], 1), lambda v: np.concatenate([v, v * 2, v], 1), x)
    whole = [np.arange(6).reshape(2, 3), np.arange(3).reshape(1, 3)]
    joined = clnn.cat([clnn.tensor(v) for v in whole])
    assert joined.dtype == np.int32
    np.testing.assert_array_equal(joined.numpy(), np.concatenate(whole))
    mask = clnn.cat([clnn.tensor([True, False]), clnn.tensor([True])])
    assert mask.dtype == np.bool_ and mask.numpy().tolist() == [True, False, True]


def test_cat_that_does_not_fit(device):
    a = clnn.ones(2, 3)
    with pytest.raises(ShapeError, match="at least one tensor"):
        clnn.cat([])
    for other in (clnn.ones(3, 2), clnn.ones(2, 3, 1)):
        with pytest.raises(ShapeError, match=r"cat along dimension 1 of shapes \(2, 3\) and \(.*must agree"):
            clnn.cat([a, other], 1)
    with pytest.raises(ShapeError, match="no dimension 2"):
        clnn.cat([a, a], 2)
    with pytest.raises(ShapeError, match="a single number has none"):
        clnn.cat([clnn.tensor(1.0), clnn.tensor(2.0)])
    with pytest.raises(DTypeError, match="cat of float32 and int32"):
        clnn.cat([a, clnn.ones(2, 3, dtype=np.int32)])
    with pytest.raises(DTypeError, match="a Tensor was expected, got ndarray"):
        clnn.cat([a, np.ones((2, 3))])
    with pytest.raises(DeviceError, match="different devices"):
        clnn.cat([a, a.to(clnn.Device(device.cl_device))])


def test_cat_moves_each_byte_once(monkeypatch):
    """In one copy a tensor, there and back, as profiles see it."""
    seen = []
    monkeypatch.setattr(program, "recorder", lambda event, queue, name, size, local, flops, nbytes: seen.append(nbytes))
    a, b = clnn.ones(3, 2, 5, requires_grad=True), clnn.ones(3, 4, 5, requires_grad=True)
    g = clnn.ones(3, 6, 5)
    seen.clear()
    joined = clnn.cat([a, b], 1)
    assert seen == [2 * a.nbytes, 2 * b.nbytes]
    joined.backward(g)
    assert seen[2:] == [2 * a.nbytes, 2 * b.nbytes]
