"""Convolution: each form and each gradient against a sum written in NumPy, and that sum against SciPy."""

from dataclasses import astuple

import numpy as np
import pyopencl as cl
import pytest
from helpers import LIMIT32, assert_close, check, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import clnn
from clnn import tuning
from clnn.errors import DTypeError, ShapeError
from clnn.ops import conv, conv2d, conv_rows, gemm
from clnn.program import c_name, empty, fill, wrap

pytestmark = pytest.mark.usefixtures("device")

# kernel_size, stride, padding, dilation
WINDOWS = [
    (1, 1, 0, 1),
    (3, 1, 1, 1),
    (5, 1, 0, 1),
    ((2, 3), (2, 1), (0, 2), 1),
    ((3, 2), (1, 2), (1, 0), (2, 1)),
    (3, (2, 3), (2, 1), (1, 2)),
    ((1, 4), 1, (0, 3), 1),
    (2, 1, 3, 1),  # a border wider than the window
    (1, 2, 1, 1),
    (4, 3, 5, 2),  # a stride whose interleaved windows have gaps
    ((5, 3), (4, 2), 2, (2, 4)),
]
windows = st.sampled_from(WINDOWS)
sides = st.sampled_from([1, 2, 5, 6, 7, 9, 11, 12])
groups = st.sampled_from([1, 1, 2, 3])


def pairs(*values):
    return [v if isinstance(v, tuple) else (v, v) for v in values]


def reference(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """The sum over the taps of w * x, all windows at once."""
    (sy, sx), (py, px), (dy, dx) = pairs(stride, padding, dilation)
    x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    span = [(w.shape[2] - 1) * dy + 1, (w.shape[3] - 1) * dx + 1]
    taken = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))[:, :, ::sy, ::sx, ::dy, ::dx]
    parts = [
        np.einsum("nchwij,fcij->nfhw", a, b, optimize=True)
        for a, b in zip(np.split(taken, groups, 1), np.split(w, groups), strict=True)
    ]
    return np.concatenate(parts, 1) + (0 if bias is None else bias[:, None, None])


def with_scipy(x, w, bias, stride, padding, dilation, groups):
    """The same by SciPy's correlation of one image with one filter, its taps spread by zeros."""
    (sy, sx), (py, px), (dy, dx) = pairs(stride, padding, dilation)
    f, per_group, kh, kw = w.shape
    spread = np.zeros((f, per_group, (kh - 1) * dy + 1, (kw - 1) * dx + 1))
    spread[:, :, ::dy, ::dx] = w
    images = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    return np.stack([
        np.stack([
            bias[j] + sum(
                signal.correlate2d(image[j // (f // groups) * per_group + c], spread[j, c], mode="valid")[::sy, ::sx]
                for c in range(per_group)
            )
            for j in range(f)
        ])
        for image in images
    ])  # fmt: skip


def fits(shape, window):
    kernel, _, padding, dilation = pairs(*window)
    return all(n + 2 * p >= (k - 1) * d + 1 for n, k, p, d in zip(shape, kernel, padding, dilation, strict=True))


def problem(rng, window, groups, count, channels, filters, height, width):
    """(x, w, bias, the arguments) of a random convolution; sizes of one group; the image grown till it fits."""
    kernel, stride, padding, dilation = window
    while not fits((height, width), window):
        height, width = height + 1, width + 1
    x = numbers(rng, count, channels * groups, height, width)
    w = numbers(rng, filters * groups, channels, *pairs(kernel)[0])
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return x, w, numbers(rng, filters * groups), options


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("groups", [1, 2])
def test_the_reference_agrees_with_scipy(window, groups):
    x, w, bias, options = problem(generator(1), window, groups, 2, 3, 2, 6, 7)
    np.testing.assert_allclose(reference(x, w, bias, **options), with_scipy(x, w, bias, **options), rtol=1e-12)


@given(
    window=windows, groups=groups, count=st.integers(1, 3), channels=st.integers(1, 3),
    filters=st.sampled_from([1, 2, 3, 5, 9]), height=sides, width=sides, bias=st.booleans(), seed=seeds,
)  # fmt: skip
@settings(max_examples=5)
def test_values_and_gradients(form, window, groups, count, channels, filters, height, width, bias, seed):
    x, w, b, options = problem(generator(seed), window, groups, count, channels, filters, height, width)
    given_ = (x, w, b) if bias else (x, w)
    check(lambda *t: conv2d(*t, **options), lambda *v: reference(*v, **options), *given_)


@pytest.mark.parametrize("channels, kernel, filters", [
    (15, 1, 16), (16, 1, 17), (17, 1, 31), (31, 1, 33), (33, 1, 1),  # taps around a panel's columns
    (1, (1, 16), 15), (1, (17, 1), 7), (3, (1, 11), 8), (1, (4, 4), 50), (5, 3, 20),
])  # fmt: skip
def test_taps_and_filters_around_tiles(form, channels, kernel, filters):
    rng = generator(channels + filters)
    x, w, b, options = problem(rng, (kernel, 1, 1, 1), 1, 2, channels, filters, 8, 9)
    slopes = numbers(rng, *reference(x, w, b, **options).shape)
    for dtype in dtypes() if form == "CPU" else [np.float32]:
        limit = LIMIT32 if dtype == np.float32 else 1e-12
        t = [clnn.tensor(v, dtype, requires_grad=True) for v in (x, w, b)]
        y = conv2d(*t, **options)
        y.backward(clnn.tensor(slopes, dtype))
        assert_close(y.numpy(), reference(x, w, b, **options), limit, "value")
        assert_close(t[1].grad.numpy(), weight_gradient(x, slopes, w.shape), limit, "weight")
        assert_close(t[2].grad.numpy(), slopes.sum((0, 2, 3)), limit, "bias")
        turned = w.swapaxes(0, 1)[:, :, ::-1, ::-1]
        border = tuple(k - 2 for k in w.shape[2:])  # k - 1 less the padding of 1
        inner = slopes
        if min(border) < 0:
            inner, border = crop(slopes, border), tuple(max(p, 0) for p in border)
        assert_close(t[0].grad.numpy(), reference(inner, turned, padding=border), limit, "image")


def crop(x, border):
    """Without the rows and columns that a negative border takes away."""
    rows, columns = [slice(-p if p < 0 else 0, p if p < 0 else None) for p in border]
    return x[:, :, rows, columns]


def weight_gradient(x, slopes, shape):
    """Each tap's gradient: the slopes times the pixels that the tap met, for stride 1 and padding 1."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    oh, ow = slopes.shape[2:]
    out = np.empty(shape)
    for i in range(shape[2]):
        for j in range(shape[3]):
            out[:, :, i, j] = np.einsum("nfhw,nchw->fc", slopes, x[:, :, i : i + oh, j : j + ow])
    return out


def all_forms(device, x, w, bias, slopes, dtype, options):
    """{form: (y, gradient of the image, of the filters)} of the plain, unfolded and tiled kernels."""
    geo = conv.geometry(x.shape, w.shape, **options)
    x, w, bias, g = [clnn.tensor(v, dtype).array for v in (x, w, bias, slopes)]

    def made(shape, compute, *args):
        out = conv.empty(device, shape, np.dtype(dtype))
        compute(device, *args, geo, out)
        return out

    plain = conv.forward_plain(device, x, w, bias, geo)
    shapes = [plain.shape, x.shape, w.shape]
    found = {
        "plain": (
            plain,
            conv.backward_data_plain(device, g, w, geo),
            conv.backward_weight_plain(device, x, g, geo),
        )
    }
    found["unfolded"] = (
        made(shapes[0], conv.forward_unfolded, x, w, bias), None,
        made(shapes[2], conv.backward_weight_unfolded, x, g),
    )  # fmt: skip
    key = (c_name(np.dtype(dtype)), *astuple(geo), 1)
    forms = {"tiles": (conv.tile_candidates(device), conv.backward_weight_tiles)}
    if rows := conv_rows.candidates(device, np.dtype(dtype), geo):
        forms["rows"] = (rows, conv.backward_weight_rows)
    for name, (tiles, backward) in forms.items():
        for choice in (tiles[0], tiles[len(tiles) // 2], tiles[-1]):
            tuning.record(device, "conv_tiles", key, choice)
            fits = name == "tiles" or conv_rows.weight_filters(device, geo)
            found[f"{name} {choice}"] = (
                made(shapes[0], conv.forward_tiles, x, w, bias), None,
                made(shapes[2], backward, x, g) if fits else None,
            )  # fmt: skip
    tuning.record(device, "conv_tiles", key, None)
    found["chosen"] = (
        conv.forward(device, x, w, bias, geo),
        conv.backward_data(device, g, w, geo),
        conv.backward_weight(device, x, g, geo),
    )
    return {name: [a if a is None else a.get() for a in arrays] for name, arrays in found.items()}


@given(
    window=windows, groups=groups, count=st.sampled_from([1, 2, 5, 9]), channels=st.sampled_from([1, 3, 4]),
    filters=st.sampled_from([1, 4, 7, 20]), height=st.sampled_from([6, 13, 24]), width=st.sampled_from([7, 16, 28]),
    seed=seeds,
)  # fmt: skip
@settings(max_examples=3)
def test_fast_forms_agree_with_the_plain_one(window, groups, count, channels, filters, height, width, seed):
    rng, device = generator(seed), clnn.device()
    x, w, b, options = problem(rng, window, groups, count, channels, filters, height, width)
    slopes = numbers(rng, *reference(x, w, b, **options).shape)
    for dtype in dtypes():
        limit = 2 * LIMIT32 if dtype == np.float32 else 1e-12  # two float32 results, each with its rounding
        found = all_forms(device, x, w, b, slopes, dtype, options)
        want = found.pop("plain")
        assert_close(want[0], reference(x, w, b, **options), limit, "plain value")
        for form, arrays in found.items():
            for title, got, expected in zip(("value", "image", "filters"), arrays, want, strict=True):
                if got is not None:
                    assert_close(got, expected, limit, f"{form}: {title}")


@given(window=windows, groups=groups, count=st.integers(2, 7), at_once=st.integers(1, 3), seed=seeds)
@settings(max_examples=6)
def test_batches_in_several_passes(device, monkeypatch, window, groups, count, at_once, seed):
    """Unfolded, few images fit at once: their gradients add up, and the bits of the values stay the same."""
    monkeypatch.setattr(device, "kind", "GPU")
    rng = generator(seed)
    x, w, b, options = problem(rng, window, groups, count, 2, 3, 9, 8)
    want = reference(x, w, b, **options)
    slopes = numbers(rng, *want.shape)

    def run():
        t = [clnn.tensor(v, requires_grad=True) for v in (x, w, b)]
        y = conv2d(*t, **options)
        y.backward(clnn.tensor(slopes))
        return [y.numpy(), *[v.grad.numpy() for v in t]]

    whole = run()
    with pytest.MonkeyPatch.context() as patch:
        passes = []
        patch.setattr(conv, "images_at_once", lambda n, *_: passes.append(n) or range(0, n, at_once))
        parts = run()
        assert passes == [count] * 3
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])
    for got, expected in zip(parts, whole, strict=True):
        assert_close(got, expected, LIMIT32, "in parts")
    assert_close(whole[0], want, LIMIT32, "value")


def test_memory_of_a_pass_is_bounded():
    for count, floats, itemsize in ((100, 10**6, 4), (7, 10**9, 8), (1000, 100, 4), (1, 1, 4)):
        starts = conv.images_at_once(count, floats, itemsize)
        assert starts.step == 1 or starts.step * floats * itemsize <= conv.PANEL_BYTES
        assert starts.start == 0 and starts.stop == count


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_every_width_of_vectors(vector_bytes, device, monkeypatch):
    """Also those that other devices have."""
    monkeypatch.setattr(device, "kind", "CPU")
    monkeypatch.setattr(device, "vector_bytes", vector_bytes)
    conv.tiling.cache_clear()
    x, w, b, options = problem(generator(5), (3, 1, 1, 1), 1, 3, 2, 37, 8, 21)
    slopes = numbers(generator(6), *reference(x, w, b, **options).shape)
    for dtype in dtypes():
        t = [clnn.tensor(v, dtype, requires_grad=True) for v in (x, w, b)]
        y = conv2d(*t, **options)
        y.backward(clnn.tensor(slopes, dtype))
        limit = LIMIT32 if dtype == np.float32 else 1e-12
        assert_close(y.numpy(), reference(x, w, b, **options), limit, "value")
        assert_close(t[1].grad.numpy(), weight_gradient(x, slopes, w.shape), limit, "weight")
    conv.tiling.cache_clear()


def test_same_bits_every_time(form):
    x, w, b, options = problem(generator(7), (5, 1, 0, 1), 1, 9, 3, 20, 17, 18)
    runs = []
    for _ in range(2):
        t = [clnn.tensor(v, requires_grad=True) for v in (x, w, b)]
        y = conv2d(*t, **options)
        (y * y).sum().backward()
        runs.append([y.numpy(), *[v.grad.numpy() for v in t]])
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)


def test_images_and_filters_from_one_tensor(device):
    """Both gradients go to one place, also where an optimiser waits for them."""
    x = numbers(generator(3), 2, 2, 3, 3)
    slopes = numbers(generator(4), 2, 2, 3, 3)
    gradients = []
    for optimised in (False, True):
        t = clnn.tensor(x, requires_grad=True)
        if optimised:
            clnn.optim.SGD([t], lr=0.1)
        conv2d(t, t, padding=1).backward(clnn.tensor(slopes))
        gradients.append(t.grad.numpy())
    assert_close(gradients[1], gradients[0], 1e-6, "with an optimiser")
    check(lambda t: conv2d(t, t, padding=1), lambda v: reference(v, v, padding=1), x)


def test_what_does_not_fit():
    x, w = clnn.zeros(2, 4, 6, 6), clnn.zeros(8, 4, 3, 3)
    for shape in ((4, 6, 6), (6, 6), (1, 2, 4, 6, 6)):
        with pytest.raises(ShapeError, match=r"images as \(N, C, H, W\)"):
            conv2d(clnn.zeros(shape), w)
    with pytest.raises(ShapeError, match=r"filters as \(F, C / groups, KH, KW\), got shape \(8, 4, 3\)"):
        conv2d(x, clnn.zeros(8, 4, 3))
    with pytest.raises(ShapeError, match="take 3 channels, the images have 4"):
        conv2d(x, clnn.zeros(8, 3, 3, 3))
    with pytest.raises(ShapeError, match="in 3 groups"):
        conv2d(x, w, groups=3)
    with pytest.raises(ShapeError, match="must divide into 2 groups"):
        conv2d(x, clnn.zeros(5, 2, 3, 3), groups=2)
    for options in (dict(stride=0), dict(dilation=(1, 0)), dict(padding=-1), dict(stride=(1, 0))):
        with pytest.raises(ShapeError, match="at least"):
            conv2d(x, w, **options)
    for options in (dict(stride=(1, 2, 3)), dict(padding="same")):
        with pytest.raises(ShapeError, match="an integer or a pair"):
            conv2d(x, w, **options)
    with pytest.raises(ShapeError, match="window of 7 x 7 does not fit an image of 6 x 6"):
        conv2d(x, w, dilation=3)
    with pytest.raises(ShapeError, match=r"bias must have shape \(8,\), got \(4,\)"):
        conv2d(x, w, clnn.zeros(4))
    with pytest.raises(DTypeError, match="the input is int32, the weight float32"):
        conv2d(x.astype(np.int32), w)
    with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
        conv2d(np.zeros((2, 4, 6, 6), np.float32), w)


def test_the_bias_has_the_weight_s_type(device):
    other = np.float64 if device.fp64 else np.int32
    with pytest.raises(DTypeError, match=f"{np.dtype(other)}"):
        conv2d(clnn.zeros(2, 4, 6, 6), clnn.zeros(8, 4, 3, 3), clnn.zeros(8, dtype=other))


def test_rows_that_the_border_crops(device, monkeypatch):
    """A border wider than the window crops the gradient's rows: pad_rows stays within its array even then."""
    monkeypatch.setattr(device, "kind", "CPU")
    geo = conv.geometry((1, 1, 2, 2), (1, 1, 1, 1), stride=2, padding=4).transposed()
    assert (geo.px, geo.W, geo.OW) == (-2, 5, 1)
    gap, float32 = device.cl_device.mem_base_addr_align // 8 // 4, np.dtype(np.float32)
    buffer = cl.Buffer(device.context, cl.mem_flags.READ_WRITE, 8 * gap)
    whole = fill(wrap(device, buffer, (2 * gap,), float32), 7)
    out = wrap(device, buffer.get_sub_region(4 * gap, 16), (2, 2), float32)
    knl = conv.tiling(device, out.dtype, geo).kernel(device, "pad_rows")
    rows = numbers(generator(5), 2, geo.W)
    conv.launch(device, knl, (2,), (2,), clnn.tensor(rows).array, out, 2, geo.W, 2, geo.px)
    got = whole.get()
    assert (got[gap : gap + 4].reshape(2, 2) == rows[:, 2:4]).all()
    assert (np.delete(got, range(gap, gap + 4)) == 7).all()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("height, width, kernel, dilation", [
    (12, 12, (5, 5), 1), (7, 5, (3, 2), 1), (9, 17, (1, 4), 1), (11, 13, (3, 2), (2, 3)), (6, 6, (6, 6), 1),
    (33, 4, (2, 1), 1), (9, 12, (2, 5), 2), (5, 17, (3, 2), 1),
])  # fmt: skip
def test_tap_after_tap(device, monkeypatch, groups, height, width, kernel, dilation):
    """The form for images without a border, which the cost model chooses for some sizes only, in every vector width."""
    monkeypatch.setattr(device, "kind", "CPU")
    rng = generator(height * width)
    for dtype in dtypes():
        w = numbers(rng, 3 * groups, 2, *kernel)
        geo = conv.geometry((2, 2 * groups, height, width), w.shape, 1, 0, dilation, groups)
        g = numbers(rng, 2, geo.F, geo.OH, geo.OW)
        slopes, filters = [clnn.tensor(v, dtype=dtype).array for v in (g, w)]
        want = conv.backward_data_plain(device, slopes, filters, geo).get()
        v = gemm.vector_width(device, np.dtype(dtype))
        for vectors in (1, 2, 3) if dtype == np.float32 else (2,):
            for row in {0, geo.OW if v * vectors % geo.OW == 0 else 0}:
                tiles = conv.Tiling(c_name(np.dtype(dtype)), v, vectors, 1, geo.KW, geo.sx, geo.dx, ROW=row)
                out = fill(empty(device, want.shape, np.dtype(dtype)), np.nan)
                got = conv.backward_data_spread(device, slopes, filters, geo, tiles, out).get()
                assert_close(got, want, 1e-5 if dtype == np.float32 else 1e-13, f"{vectors} vectors, row {row}")
