"""Pooling against loops over windows."""

import numpy as np
import pytest
from helpers import assert_close, check, distinct, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn.errors import DTypeError, ShapeError
from clnn.ops import adaptive_avg_pool2d, avg_pool2d, conv, conv2d, conv2d_max_pool2d, max_pool2d

pytestmark = pytest.mark.usefixtures("device")

# kernel_size, stride, padding, dilation
WINDOWS = [
    (2, None, 0, 1),
    (3, 2, 1, 1),
    (3, 1, 1, 1),
    (2, 3, 1, 1),  # apart, with pixels between that no window covers
    ((2, 3), (1, 2), (1, 0), 1),
    ((1, 4), (3, 1), (0, 2), 1),
    (2, 2, 0, (1, 2)),
    (3, (2, 4), 1, (2, 1)),
    (1, 2, 0, 1),
]
windows = st.sampled_from(WINDOWS)
AVERAGED = [w for w in WINDOWS if w[3] == 1]
sizes = st.sampled_from([3, 4, 5, 6, 7, 9])


def windows_along(n, k, s, p, d, ceil_mode):
    """(pixels inside the image, pixels that count with the border) of each window along one dimension."""
    found, start, end = [], -p, None
    while start + (k - 1) * d < n + p or (ceil_mode and start < n and end is not None and end < n + p):
        places = range(start, start + k * d, d)
        found.append(([i for i in places if 0 <= i < n], sum(i < n + p for i in places)))
        end = start + (k - 1) * d + 1
        start += s
    return found


def pooled(x, reduce, kernel, stride, padding, dilation, ceil_mode):
    """reduce(pixels, count with the border) of every window."""
    k, p, d = [v if isinstance(v, tuple) else (v, v) for v in (kernel, padding, dilation)]
    s = k if stride is None else stride if isinstance(stride, tuple) else (stride, stride)
    rows, columns = [windows_along(*sizes, ceil_mode) for sizes in zip(x.shape[2:], k, s, p, d, strict=True)]
    out = np.empty((*x.shape[:2], len(rows), len(columns)))
    for i, (ys, high) in enumerate(rows):
        for j, (xs, wide) in enumerate(columns):
            out[:, :, i, j] = reduce(x[:, :, ys][:, :, :, xs], high * wide)
    return out


def largest(pixels, _):
    return pixels.max((2, 3))


def mean(count_include_pad):
    return lambda pixels, count: pixels.sum((2, 3)) / (count if count_include_pad else pixels[0, 0].size)


@given(
    window=windows, ceil_mode=st.booleans(), planes=st.sampled_from([(1, 1), (2, 3), (1, 5)]), height=sizes,
    width=sizes, seed=seeds,
)  # fmt: skip
@settings(max_examples=8)
def test_max_pool2d(form, window, ceil_mode, planes, height, width, seed):
    if window == WINDOWS[7]:
        height += 2  # its dilated window is 5 high
    x = distinct(generator(seed), *planes, height, width)
    check(lambda t: max_pool2d(t, *window, ceil_mode), lambda v: pooled(v, largest, *window, ceil_mode), x)


@given(
    window=st.sampled_from(AVERAGED), ceil_mode=st.booleans(), count_include_pad=st.booleans(),
    planes=st.sampled_from([(1, 1), (2, 3), (1, 5)]), height=sizes, width=sizes, seed=seeds,
)  # fmt: skip
@settings(max_examples=8)
def test_avg_pool2d(form, window, ceil_mode, count_include_pad, planes, height, width, seed):
    x = numbers(generator(seed), *planes, height, width)
    check(
        lambda t: avg_pool2d(t, *window[:3], ceil_mode, count_include_pad),
        lambda v: pooled(v, mean(count_include_pad), *window, ceil_mode),
        x,
    )


@pytest.mark.parametrize("window", [WINDOWS[0], WINDOWS[1], WINDOWS[3]])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_larger_images(form, window, ceil_mode):
    rng = generator(1)
    for height, width in ((31, 33), (17, 16), (64, 15)):
        x = numbers(rng, 3, 7, height, width)
        for dtype in dtypes():
            got = max_pool2d(clnn.tensor(x, dtype), *window, ceil_mode)
            np.testing.assert_array_equal(got.numpy(), pooled(x, largest, *window, ceil_mode))
            got = avg_pool2d(clnn.tensor(x, dtype), *window[:3], ceil_mode)
            assert_close(got.numpy(), pooled(x, mean(True), *window, ceil_mode), 1e-6, "mean")


def test_ties_and_nan_as_in_pytorch(form):
    nan = np.nan
    x = clnn.tensor(
        np.array([[[[2.0, 2, 1, 2], [2, 0, 2, 2]], [[nan, 1, 3, nan], [5, nan, 4, 4]]]]), requires_grad=True
    )
    y = max_pool2d(x, 2)
    y.backward(clnn.tensor(np.array([[[[3.0, 5]], [[7, 11]]]])))
    np.testing.assert_array_equal(y.numpy(), [[[[2, 2]], [[nan, nan]]]])
    # The first of equals; of several NaN the last.
    np.testing.assert_array_equal(x.grad.numpy(), [[[[3, 0, 0, 5], [0, 0, 0, 0]], [[0, 0, 0, 11], [0, 7, 0, 0]]]])


def test_infinity_and_integers(form):
    x = np.full((1, 1, 4, 4), -np.inf)
    x[0, 0, 0, 1] = -7
    np.testing.assert_array_equal(max_pool2d(clnn.tensor(x), 2).numpy(), [[[[-7, -np.inf], [-np.inf, -np.inf]]]])
    x = generator(2).integers(-9, 0, (1, 2, 5, 4))
    got = max_pool2d(clnn.tensor(x), 2, 1, 1)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got.numpy(), pooled(x.astype(float), largest, 2, 1, 1, 1, False))


def test_means_of_integers_are_no_integers(form):
    x = clnn.tensor([[[[0, 1], [1, 1]]]])
    for got in (avg_pool2d(x, 2), adaptive_avg_pool2d(x, 1)):
        assert got.dtype == np.float32 and got.item() == 0.75


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_that_see_no_pixel(form, stride):
    """Dilated windows may step over a small image: no number is the largest, and no gradient goes anywhere."""
    x = clnn.tensor([[[[5.0]]]], requires_grad=True)
    y = max_pool2d(x, 2, stride, padding=1, dilation=2)
    y.sum().backward()
    assert y.numpy().tolist() == [[[[-np.inf]]]]
    assert x.grad.numpy().tolist() == [[[[0]]]]


@pytest.mark.parametrize("pool", [
    1, 2, 3, 4, 5,
])  # fmt: skip
@given(
    count=st.integers(1, 3), groups=st.sampled_from([1, 1, 2]), channels=st.integers(1, 3),
    filters=st.sampled_from([1, 7, 17]), height=st.integers(7, 14), width=st.sampled_from([8, 13, 20]),
    options=st.sampled_from([dict(padding=1), dict(stride=(1, 2), padding=2), dict(dilation=(2, 1), padding=1)]),
    bias=st.booleans(), seed=seeds,
)  # fmt: skip
@settings(max_examples=4)
def test_convolution_and_pooling(form, pool, count, groups, channels, filters, height, width, options, bias, seed):
    """In one launch as in two: values, and gradients of image, filters and bias."""
    rng = generator(seed)
    x, w = numbers(rng, count, channels * groups, height, width), numbers(rng, filters * groups, channels, 3, 3)
    b = [numbers(rng, filters * groups)] if bias else []
    settings = [options.get(name, 1 if name != "padding" else 0) for name in ("stride", "padding", "dilation")]
    for dtype in dtypes() if pool == 2 else [np.float32]:
        found = []
        for function in (
            lambda x, w, b=None: conv2d_max_pool2d(x, w, b, *settings, groups, pool),
            lambda x, w, b=None: max_pool2d(conv2d(x, w, b, *settings, groups), pool),
        ):
            t = [clnn.tensor(v, dtype, requires_grad=True) for v in (x, w, *b)]
            y = function(*t)
            with clnn.no_grad():  # without the places of the largest
                np.testing.assert_array_equal(function(*t).numpy(), y.numpy())
            y.backward(clnn.tensor(numbers(generator(seed), *y.shape), dtype))
            found.append([y.numpy(), *[v.grad.numpy() for v in t]])
        for got, want in zip(*found, strict=True):
            assert_close(got, want, 2e-6 if dtype == np.float32 else 1e-13, "in one launch")


@pytest.mark.parametrize("vector_bytes, pool", [(v, p) for v in (16, 32, 64) for p in (2, 3, 4)])
def test_convolution_and_pooling_in_every_width_of_vectors(device, monkeypatch, vector_bytes, pool):
    monkeypatch.setattr(device, "kind", "CPU")
    monkeypatch.setattr(device, "vector_bytes", vector_bytes)
    rng = generator(pool)
    x, w, b = [clnn.tensor(numbers(rng, *s)) for s in ((2, 3, 17, 19), (37, 3, 2, 2), (37,))]
    conv.tiling.cache_clear()
    got = conv2d_max_pool2d(x, w, b, 1, 0, 1, 1, pool)
    conv.tiling.cache_clear()
    assert_close(got.numpy(), max_pool2d(conv2d(x, w, b), pool).numpy(), 1e-6, "in one launch")


@pytest.mark.parametrize("pool", [2, 3])
def test_ties_in_convolution_and_pooling(form, pool):
    """A flat image: the first place of each window gets the gradient."""
    w = clnn.tensor(numbers(generator(5), 2, 1, 3, 3))
    found = []
    for pooled_ in (True, False):
        t = clnn.ones(1, 1, 11, 14, requires_grad=True)
        y = conv2d_max_pool2d(t, w, None, 1, 0, 1, 1, pool) if pooled_ else max_pool2d(conv2d(t, w), pool)
        y.sum().backward()
        found.append(t.grad.numpy())
    want = np.zeros((1, 1, 11, 14))
    for i in range(9 // pool):
        for j in range(12 // pool):
            want[0, 0, i * pool : i * pool + 3, j * pool : j * pool + 3] += w.numpy().sum((0, 1))
    for got in found:
        assert_close(got, want, 1e-6, "gradient")


def test_nan_in_convolution_and_pooling(form):
    x = numbers(generator(3), 1, 1, 8, 8)
    x[0, 0, 3, 4] = np.nan
    x, w = clnn.tensor(x), clnn.tensor(numbers(generator(4), 2, 1, 3, 3))
    got = conv2d_max_pool2d(x, w, None, 1, 0, 1, 1, 2).numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(max_pool2d(conv2d(x, w), 2).numpy()))
    assert np.isnan(got).any() and not np.isnan(got).all()
    with pytest.raises(ShapeError, match=r"window of \(7, 7\) does not fit an image of \(6, 6\)"):
        conv2d_max_pool2d(x, w, None, 1, 0, 1, 1, 7)


def test_shapes_in_ceil_mode():
    """Sizes that PyTorch gives."""
    for n, k, s, p, floor, ceil in (
        (5, 2, 2, 0, 2, 3), (6, 3, 2, 0, 2, 3), (5, 2, 2, 1, 3, 3), (7, 2, 3, 1, 3, 3),
        (3, 1, 2, 0, 2, 2), (4, 1, 3, 0, 2, 2), (5, 2, 4, 0, 1, 2), (5, 1, 3, 0, 2, 2),
    ):  # fmt: skip
        for function in (max_pool2d, avg_pool2d):
            assert function(clnn.zeros(1, 1, n, n), k, s, p).shape == (1, 1, floor, floor)
            assert function(clnn.zeros(1, 1, n, n), k, s, p, ceil_mode=True).shape == (1, 1, ceil, ceil)


@pytest.mark.parametrize("function", [max_pool2d, avg_pool2d])
def test_what_does_not_fit(function):
    x = clnn.zeros(2, 3, 6, 6)
    for shape in ((3, 6, 6), (6, 6), (1, 2, 3, 6, 6)):
        with pytest.raises(ShapeError, match=rf"{function.__name__} needs images as \(N, C, H, W\)"):
            function(clnn.zeros(shape), 2)
    for options in (dict(kernel_size=0), dict(kernel_size=2, stride=0), dict(kernel_size=2, padding=-1)):
        with pytest.raises(ShapeError, match="must be at least 1"):
            function(x, **options)
    with pytest.raises(ShapeError, match="at most half of kernel_size"):
        function(x, 3, padding=2)
    with pytest.raises(ShapeError, match=r"does not fit an image of \(6, 6\)"):
        function(x, 7)
    with pytest.raises(ShapeError, match="an integer or a pair"):
        function(x, (2, 2, 2))
    with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
        function(np.zeros((2, 3, 6, 6), np.float32), 2)


@pytest.mark.parametrize(
    "size",
    [
        1.5,
        "2",
        None,
    ],
)
def test_sizes_are_integers(size):
    with pytest.raises(ShapeError, match="an integer or a pair"):
        max_pool2d(clnn.zeros(1, 1, 4, 4), size)


def adaptive(x, out):
    """PyTorch's rule: window i holds the rows from floor(i n / out) to ceil((i + 1) n / out)."""
    bins = [[slice(i * n // o, -(-(i + 1) * n // o)) for i in range(o)] for n, o in zip(x.shape[2:], out, strict=True)]
    return np.stack([np.stack([x[:, :, r, c].mean((2, 3)) for c in bins[1]], -1) for r in bins[0]], -2)


@given(
    planes=st.sampled_from([(1, 1), (2, 3), (1, 5)]), size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    out=st.tuples(st.integers(1, 11), st.integers(1, 11)), seed=seeds,
)  # fmt: skip
@settings(max_examples=8)
def test_adaptive_avg_pool2d(form, planes, size, out, seed):
    """Sizes that divide and sizes that do not; more windows than pixels, too."""
    x = numbers(generator(seed), *planes, *size)
    check(lambda t: adaptive_avg_pool2d(t, out), lambda v: adaptive(v, out), x)


@pytest.mark.parametrize("size, out", [((37, 64), (6, 7)), ((13, 13), (6, 6)), ((8, 66), (4, 33)), ((5, 70), (5, 9))])
def test_adaptive_on_larger_images(form, size, out):
    rng = generator(6)
    x, g = numbers(rng, 3, 5, *size), numbers(rng, 3, 5, *out)
    for dtype in dtypes():
        t = clnn.tensor(x, dtype, requires_grad=True)
        y = adaptive_avg_pool2d(t, out)
        y.backward(clnn.tensor(g, dtype))
        assert_close(y.numpy(), adaptive(x, out), 1e-6, "mean")
        assert_close((t.grad.numpy() * x).sum(), (g * adaptive(x, out)).sum(), 1e-5, "gradient", floor=10)
        assert_close(t.grad.numpy().sum((2, 3)), g.sum((2, 3)), 1e-5, "what goes in comes out")


def test_adaptive_sizes():
    x = clnn.tensor(numbers(generator(7), 2, 3, 5, 8))
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, None).numpy(), x.numpy())
    assert adaptive_avg_pool2d(x, (None, 3)).shape == (2, 3, 5, 3)
    assert adaptive_avg_pool2d(x, 4).shape == (2, 3, 4, 4)
    assert_close(adaptive_avg_pool2d(x, 1).numpy()[..., 0, 0], x.numpy().mean((2, 3)), 1e-6, "global")
    with pytest.raises(ShapeError, match=r"adaptive_avg_pool2d needs images as \(N, C, H, W\), got shape \(3, 5\)"):
        adaptive_avg_pool2d(clnn.zeros(3, 5), 2)
    with pytest.raises(ShapeError, match=r"output_size \(2, 0\) must be at least 1"):
        adaptive_avg_pool2d(x, (2, 0))
    for size in ((1, 2, 3), 2.5):
        with pytest.raises(ShapeError, match="output_size must be an integer or a pair"):
            adaptive_avg_pool2d(x, size)
