"""Matrix products and fully connected layers."""

import operator

import numpy as np
import pytest
from helpers import LIMIT32, assert_close, check, dtypes, generator, numbers, seeds, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import clnn
from clnn.errors import DTypeError, ShapeError
from clnn.ops import gemm, linear

pytestmark = pytest.mark.usefixtures("device", "packed")


def stored(x, transposed):
    """The last two dimensions as the product's ``ta`` and ``tb`` want them in memory."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)) if transposed else x


def products(rng, dtype, m, n, k, *, ta=False, tb=False, batch=1, bias=False):
    """(fast, plain, NumPy's in float64) of one random product."""
    device = clnn.device()
    a, b, c = numbers(rng, batch, m, k), numbers(rng, batch, k, n), numbers(rng, n)
    left, right, last = [clnn.tensor(x, dtype).array for x in (stored(a, ta), stored(b, tb), c)]
    fast = gemm.gemm(device, left, right, m, n, k, ta=ta, tb=tb, batch=batch, bias=last if bias else None)
    plain = gemm.gemm_plain(device, left, right, m, n, k, ta=ta, tb=tb, batch=batch)
    return fast.get(), plain.get(), a @ b + (c if bias else 0)


@given(
    m=sides,
    n=sides,
    k=sides,
    batch=st.integers(1, 3),
    ta=st.booleans(),
    tb=st.booleans(),
    bias=st.booleans(),
    seed=seeds,
)
@settings(max_examples=20)
def test_fast_plain_and_numpy_agree(form, m, n, k, batch, ta, tb, bias, seed):
    for dtype in dtypes():
        rng = generator(seed)
        fast, plain, want = products(rng, dtype, m, n, k, ta=ta, tb=tb, batch=batch, bias=bias)
        limit = LIMIT32 if dtype == np.float32 else 1e-13
        assert fast.dtype == plain.dtype == dtype
        assert_close(fast, want, limit, "fast")
        if not bias:
            assert_close(plain, want, limit, "plain")


@pytest.mark.parametrize("m, n, k", [(67, 130, 259), (1, 1000, 3), (511, 1, 129), (128, 128, 128), (3, 33, 5000)])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_larger_products(form, m, n, k, ta, tb):
    rng = generator(m + n + k)
    for dtype in dtypes():
        fast, plain, want = products(rng, dtype, m, n, k, ta=ta, tb=tb)
        limit = LIMIT32 if dtype == np.float32 else 1e-13
        assert_close(fast, want, limit, "fast")
        assert_close(plain, want, limit, "plain")


@pytest.mark.parametrize("rows", range(1, 14))
def test_every_height_of_tiles(rows, monkeypatch):
    monkeypatch.setattr(clnn.device(), "kind", "CPU")
    monkeypatch.setattr(gemm, "tile_rows", lambda *_: rows)
    for m in (1, rows - 1, rows, rows + 1, 3 * rows + 2):
        if m:
            fast, _, want = products(generator(m), np.float32, m, 19, 7, ta=m % 2 == 0, bias=True)
            assert_close(fast, want, LIMIT32, f"{m} rows in tiles of {rows}")


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_every_width_of_vectors(vector_bytes, device, monkeypatch):
    """Also those that other devices have."""
    monkeypatch.setattr(device, "kind", "CPU")
    monkeypatch.setattr(device, "vector_bytes", vector_bytes)
    for dtype in dtypes():
        width = vector_bytes // np.dtype(dtype).itemsize
        for n in (1, 2 * width - 1, 2 * width, 2 * width + 1, 5 * width):
            fast, _, want = products(generator(n), dtype, 13, n, 9, tb=n % 2 == 0, batch=2, bias=True)
            assert_close(fast, want, LIMIT32, f"{n} columns in vectors of {width}")


@given(images=st.integers(1, 4), m=sides, n=sides, k=sides, seed=seeds)
@settings(max_examples=25)
def test_sums_over_blocks_and_calls(form, images, m, n, k, seed):
    """The sum over `blocks`, in one call or added up over several, with A and the result away from their start."""
    rng, device = generator(seed), clnn.device()
    a, b, before = numbers(rng, images, m, k), numbers(rng, images, k, n), numbers(rng, m, n)
    gap = 3
    width = gemm.columns(device, np.dtype(np.float32))
    count = -(-n // width)
    panels = np.zeros((count, images, k, width))
    for j in range(n):
        panels[j // width, :, :, j % width] = b[:, :, j]
    left = clnn.tensor(np.concatenate([np.full(gap, np.nan), a.ravel()])).array
    out = clnn.tensor(np.concatenate([np.full(gap, 7.0), before.ravel()])).array
    strides = (gap, 1, 0, m * k, k, 1)
    packed = clnn.tensor(panels).array
    options = dict(batch=1, a_strides=strides, blocks=images, start=gap)
    gemm.multiply_panels(device, left, packed, out, m, n, k, accumulate=True, **options)
    assert_close(out.get()[gap:].reshape(m, n), before + (a @ b).sum(0), LIMIT32, "added to")
    gemm.multiply_panels(device, left, packed, out, m, n, k, **options)
    assert_close(out.get()[gap:].reshape(m, n), (a @ b).sum(0), LIMIT32, "written")
    assert out.get()[:gap].tolist() == [7] * gap


@given(m=sides, n=sides, k=sides, seed=seeds)
@settings(max_examples=15)
def test_matrices(form, m, n, k, seed):
    rng = generator(seed)
    check(operator.matmul, np.matmul, numbers(rng, m, k), numbers(rng, k, n))


@pytest.mark.parametrize("left, right", [
    ((5,), (5,)), ((4, 5), (5,)), ((5,), (5, 4)), ((3, 4, 5), (5,)), ((5,), (3, 5, 2)), ((3, 4, 5), (5, 2)),
    ((4, 5), (3, 5, 2)), ((3, 4, 5), (3, 5, 2)), ((2, 1, 4, 5), (3, 5, 2)), ((1, 4, 5), (3, 5, 2)),
    ((2, 3, 1, 1), (1, 7)),
])  # fmt: skip
def test_ranks(left, right):
    rng = generator(len(left) * 10 + len(right))
    check(operator.matmul, np.matmul, numbers(rng, *left), numbers(rng, *right))


def test_a_factor_used_twice():
    x = numbers(generator(2), 5, 5)
    check(lambda t: t @ t, lambda v: v @ v, x)
    check(lambda t: t.T @ t, lambda v: v.T @ v, x)


@pytest.mark.parametrize("lead", [(7,), (), (2, 3), (1,), (2, 1, 17)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(form, lead, bias):
    rng = generator(len(lead))
    x, w, b = numbers(rng, *lead, 6), numbers(rng, 5, 6), numbers(rng, 5)
    if bias:
        check(linear, lambda x, w, b: x @ w.T + b, x, w, b)
    else:
        check(linear, lambda x, w: x @ w.T, x, w)


@given(rows=sides, inputs=sides, outputs=sides, seed=seeds)
@settings(max_examples=15)
def test_linear_of_ragged_sizes(form, rows, inputs, outputs, seed):
    rng = generator(seed)
    check(
        linear,
        lambda x, w, b: x @ w.T + b,
        numbers(rng, rows, inputs), numbers(rng, outputs, inputs), numbers(rng, outputs),
    )  # fmt: skip


@pytest.mark.parametrize("m, n, k", [
    (1, 300, 129), (2, 131, 64), (4, 1000, 9), (5, 128, 63), (8, 129, 200), (301, 1, 77), (40, 260, 1), (33, 32, 16),
    (17, 257, 7), (3, 33, 190), (1, 1, 9000),
])  # fmt: skip
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_thin_products(device, monkeypatch, m, n, k, ta, tb):
    """A few rows, a single column, or few products a sum: on CPUs the forms that read B as it stands."""
    for limit, value in (("DOT_ROWS", 4), ("STRIP_ROWS", 16)):
        monkeypatch.setattr(gemm, limit, value)
    monkeypatch.setattr(device, "kind", "CPU")
    rng = generator(m + n + k)
    for dtype in dtypes():
        with clnn.profile() as p:
            fast, _, want = products(rng, dtype, m, n, k, ta=ta, tb=tb, batch=2, bias=True)
        assert_close(fast, want, LIMIT32 if dtype == np.float32 else 1e-13, "fast")
        if 1 in (m, n) and m != n and all(gemm.thin(device)):
            assert "gemm_panels" not in {row.kernel for row in p.rows}


# name: the function and its derivative
ACTIVATIONS = {
    None: (lambda v: v, np.ones_like),
    "relu": (lambda v: np.maximum(v, 0), lambda v: v > 0),
    "tanh": (np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "sigmoid": (special.expit, lambda v: special.expit(v) * special.expit(-v)),
}


@given(
    rows=sides, inputs=sides, outputs=sides, activation=st.sampled_from(list(ACTIVATIONS)),
    wanted=st.tuples(*[st.booleans()] * 3), seed=seeds,
)  # fmt: skip
@settings(max_examples=20)
def test_products_too_small_to_pack(form, monkeypatch, rows, inputs, outputs, activation, wanted, seed):
    """The plain kernels in place of the fast one, up to their limit and no farther."""
    monkeypatch.setattr(gemm, "SMALL", rows * inputs * outputs)
    rng, (function, derivative) = generator(seed), ACTIVATIONS[activation]
    x, w, b, slopes = [numbers(rng, *size) for size in ((rows, inputs), (outputs, inputs), (outputs,), (rows, outputs))]
    t = [clnn.tensor(v, requires_grad=needed) for v, needed in zip((x, w, b), wanted, strict=True)]
    with clnn.profile() as p:
        y = linear(*t, activation)
        if any(wanted):
            y.backward(clnn.tensor(slopes))
    launched = {row.kernel for row in p.rows if row.family != "memory"}
    assert launched == ({"gemm_plain", "linear_backward"} if any(wanted) else {"gemm_plain"})
    assert_close(y.numpy(), function(x @ w.T + b), LIMIT32, "value")
    inner = slopes * derivative(x @ w.T + b)
    for tensor, want in zip(t, (inner @ w, inner.T @ x, inner.sum(0)), strict=True):
        if tensor.requires_grad:
            assert_close(tensor.grad.numpy(), want, 1e-3, "gradient")  # 1 - tanh^2 loses digits where it is small
    monkeypatch.setattr(gemm, "SMALL", gemm.SMALL - 1)
    with clnn.profile() as p:
        y = linear(*t, activation)
    assert "gemm_plain" not in {row.kernel for row in p.rows}
    assert_close(y.numpy(), function(x @ w.T + b), LIMIT32, "packed")


def test_types_mix():
    rng = generator(9)
    a, b = rng.integers(-9, 9, (3, 4)), numbers(rng, 4, 2)
    for got in (clnn.tensor(a) @ clnn.tensor(b), a @ clnn.tensor(b), clnn.tensor(a) @ b, clnn.tensor(a).matmul(b)):
        assert got.dtype == np.float32
        assert_close(got.numpy(), a @ b, 1e-6, "product")
    assert (clnn.tensor(a) @ clnn.tensor(a.T)).dtype == np.float32


def test_nan_and_infinity_stay_in_their_row_and_column(form):
    a, b = np.ones((3, 2)), np.ones((2, 20))
    a[1, 0], b[1, 17] = np.nan, np.inf
    np.testing.assert_array_equal((clnn.tensor(a) @ clnn.tensor(b)).numpy(), a @ b)


def test_what_does_not_fit():
    x = clnn.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 3\) do not fit a product: 3 != 2"):
        x @ x
    with pytest.raises(ShapeError, match="batches"):
        clnn.zeros(2, 2, 3) @ clnn.zeros(3, 3, 2)
    for wrong, got in (
        (lambda: x @ 2, r"\(2, 3\) and 2"),
        (lambda: x @ clnn.tensor(2.0), r"\(2, 3\) and \(\)"),
        (lambda: clnn.tensor(2.0) @ x, r"\(\) and \(2, 3\)"),
    ):
        with pytest.raises(ShapeError, match=f"at least one dimension, got {got}"):
            wrong()
    with pytest.raises(DTypeError, match="NoneType"):
        x @ None

    weight = clnn.zeros(4, 3)
    with pytest.raises(ShapeError, match=r"weight of shape \(4, 3\) needs an input \(\.\.\., 3\), got \(2, 4\)"):
        linear(clnn.zeros(2, 4), weight)
    with pytest.raises(ShapeError, match=r"bias must have shape \(4,\), got \(3,\)"):
        linear(x, weight, clnn.zeros(3))
    with pytest.raises(DTypeError, match="the input is int32, the weight float32"):
        linear(clnn.zeros(2, 3, dtype=np.int32), weight)
    with pytest.raises(DTypeError, match=r"the input is bool, the weight bool, but a layer multiplies numbers"):
        linear(x > 0, weight > 0)
    for flat in (clnn.tensor(1.0), clnn.zeros(3)):
        with pytest.raises(ShapeError, match=r"two dimensions, \(out, in\), got shape \("):
            linear(x, flat)
    with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
        linear(np.zeros((2, 3), np.float32), weight)


def test_the_bias_has_the_weight_s_type(device):
    other = np.float64 if device.fp64 else np.int32
    with pytest.raises(DTypeError, match=f"{np.dtype(other)}"):
        linear(clnn.zeros(2, 3), clnn.zeros(4, 3), clnn.zeros(4, dtype=other))
