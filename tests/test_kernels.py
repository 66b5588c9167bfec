"""No kernel without a test: each family's exercise must launch every kernel that its file compiles to.

An exercise compares with NumPy, so a kernel counts only where its result was looked at. The families' own test
modules go over many more shapes and settings.
"""

import operator
import re
from importlib import resources

import numpy as np
import pytest
from helpers import assert_close, check, distinct, generator, numbers, positive
from scipy import special
from test_conv_winners import agree

import clnn
from clnn import ops, optim, program
from clnn.ops import ceiling, conv, conv_rows, gemm, tally

SOURCES = {
    file.name.removesuffix(".cl") for file in resources.files("clnn.kernels").iterdir() if file.name.endswith(".cl")
}


def activation(rng):
    check(ops.relu, lambda x: np.maximum(x, 0), distinct(rng, 3, 5))
    check(ops.tanh, np.tanh, numbers(rng, 3, 5))
    check(ops.sigmoid, special.expit, numbers(rng, 3, 5))
    check(ops.softplus, lambda x: np.logaddexp(0, x), numbers(rng, 3, 5))


def batchnorm(rng):
    def reference(x, w, b):
        mean, rstd = x.mean((0, 2), keepdims=True), 1 / np.sqrt(x.var((0, 2), keepdims=True) + 1e-5)
        return (x - mean) * rstd * w[:, None] + b[:, None]

    inputs, count = (numbers(rng, 3, 4, 5), numbers(rng, 4), numbers(rng, 4)), clnn.tensor(6)
    check(lambda t, w, b: ops.batch_norm(t, None, None, w, b, training=True), reference, *inputs, limit=2e-5)
    ops.batch_norm(clnn.tensor(inputs[0]), None, None, training=True, num_batches_tracked=count)
    assert count.item() == 7


def ceiling_(rng):
    device = clnn.device()
    groups, items = ceiling.workers(device)
    x = rng.uniform(1, 2, (items, ceiling.CHAINS, ceiling.lanes(device))).astype(np.float32)
    got = ceiling.multiply_add(device, clnn.tensor(x).array, 0.5, 0.25, 3).get()
    want = x.astype(float) / 8 + 0.25 * (1 + 1 / 2 + 1 / 4)
    assert_close(got, np.broadcast_to(want.sum(1), got.shape), 1e-6, "multiply_add")
    b, c = rng.standard_normal((2, 3 * groups * items * ceiling.lanes(device)), dtype=np.float32)
    a, *sides = [clnn.tensor(v).array for v in (np.zeros_like(b), b, c)]
    ceiling.triad(device, a, *sides, 1.5)
    assert_close(a.get(), b + 1.5 * c.astype(float), 1e-6, "triad")


def convolve(x, w, b):
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,fcij->nfhw", windows, w) + b[:, None, None]


def convolve_and_pool(x, w, b):
    y = convolve(x, w, b)[..., :2, :4]
    return y.reshape(*y.shape[:2], 1, 2, 2, 2).max((3, 5))


def convolution(rng):
    """The form of the device's kind, with a stride (for CPUs also without, and with pooling), and the plain kernels."""
    device = clnn.device()
    x, w, b = numbers(rng, 2, 2, 4, 5), numbers(rng, 3, 2, 3, 2), numbers(rng, 3)
    check(lambda *t: ops.conv2d(*t, stride=2), lambda *v: convolve(*v)[:, :, ::2, ::2], x, w, b)
    if device.kind == "CPU":  # else it would be the same kernels again, slow ones in a simulator
        check(ops.conv2d, convolve, x, w, b)
        check(lambda *t: ops.conv2d_max_pool2d(*t, 1, 0, 1, 1, 2), convolve_and_pool, x, w, b)
    t = [clnn.tensor(v, requires_grad=True) for v in (x, w, b)]
    y = ops.conv2d(*t)
    g = numbers(rng, *y.shape)
    y.backward(clnn.tensor(g))
    images, filters, bias, slopes = [v.array for v in (*t, clnn.tensor(g))]
    geo = conv.geometry(x.shape, w.shape)
    assert_close(conv.forward_plain(device, images, filters, bias, geo).get(), convolve(x, w, b), 1e-5, "forward")
    dx = conv.backward_data_plain(device, slopes, filters, geo)
    dw = conv.backward_weight_plain(device, images, slopes, geo)
    assert_close(dx.get(), t[0].grad.numpy(), 1e-5, "image")
    assert_close(dw.get(), t[1].grad.numpy(), 1e-5, "filters")
    if device.kind == "CPU":
        pooled_by_tiles(device, images, filters, bias, geo, convolve_and_pool(x, w, b))


def pooled_by_tiles(device, images, filters, bias, geo, want):
    """By conv_tiles.cl, whatever form the sizes would get."""
    v, dtype = gemm.vector_width(device, images.dtype), images.dtype
    y, winner = (program.empty(device, want.shape, kind) for kind in (dtype, np.int32))
    tiles = conv.Tiling("float", v, **conv.tile_candidates(device, 2)[0], KW=2, SX=1, DX=1, POOL=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "tiling", lambda *_: tiles)
        conv.forward_tiles(device, images, filters, bias, geo, y, 2, winner)
    assert_close(y.get(), want, 1e-5, "pooled")


def convolution_by_rows(rng):
    """Whole and broken vectors of a row, with a border and without, pooled too."""
    device, dtype = clnn.device(), np.dtype(np.float32)
    for width, padding in ((21, 0), (9, 2)):
        x, w, b = numbers(rng, 3, 2, 5, width), numbers(rng, 7, 2, 3, 2), numbers(rng, 7)
        want = convolve(np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))), w, b)
        images, filters, bias = [clnn.tensor(v).array for v in (x, w, b)]
        geo = conv.geometry(x.shape, w.shape, 1, padding)
        for pool in (1, 2):
            oh, ow = want.shape[2] // pool, want.shape[3] // pool
            right = want[..., : oh * pool, : ow * pool].reshape(3, 7, oh, pool, ow, pool).max((3, 5))
            for choice in conv_rows.candidates(device, dtype, geo, pool)[::3]:
                tiles = conv.Tiling("float", gemm.vector_width(device, dtype), **choice, KW=2, SX=1, DX=1, POOL=pool)
                y, winner = (program.empty(device, right.shape, kind) for kind in (dtype, np.int32))
                conv_rows.forward_rows(device, images, filters, bias, geo, y, tiles, winner)
                assert_close(y.get(), right, 1e-5, f"{choice}, pool {pool}")
                if pool == 2:
                    alone = program.empty(device, right.shape, dtype)
                    conv_rows.forward_rows(device, images, filters, bias, geo, alone, tiles)
                    np.testing.assert_array_equal(alone.get(), y.get())
                    places = winner.get().reshape(3, 7, -1)
                    found = np.take_along_axis(want.reshape(3, 7, -1), places, 2).reshape(right.shape)
                    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
        if conv_rows.possible(device, dtype, geo):
            slopes = clnn.tensor(numbers(rng, *want.shape)).array
            dw = program.empty(device, w.shape, dtype)
            conv_rows.backward_weight_rows(device, images, slopes, geo, dw)
            assert_close(dw.get(), conv.backward_weight_plain(device, images, slopes, geo).get(), 1e-5, "filters")


def convolution_of_winners(rng):
    """Vectors of neighbours in a row, and of channels."""
    for channels in (1, 9):
        agree(rng, 2, conv.geometry((2, channels, 4, 7), (3, channels, 3, 4)), 2, np.float32)


def copy(rng):
    x, rows = numbers(rng, 4, 3), rng.integers(0, 4, 7)
    check(lambda t: t.T, lambda v: v.T, x)
    check(lambda t: t[1:, ::-2], lambda v: v[1:, ::-2], x)
    check(lambda t: t[rows], lambda v: v[rows], x)


def dropout(rng):
    x = numbers(rng, 500)
    t = clnn.tensor(x, requires_grad=True)
    y = ops.dropout(t, 0.5)
    y.sum().backward()
    kept = y.numpy() != 0
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_array_equal(y.numpy(), 2 * x * kept)
    np.testing.assert_array_equal(t.grad.numpy(), 2 * kept)


def elementwise(rng):
    a, b, row = positive(rng, 4, 3), positive(rng, 4, 3), positive(rng, 3)
    for function, reference in (
        (ops.add, np.add), (ops.sub, np.subtract), (ops.mul, np.multiply), (ops.div, np.divide),
        (ops.power, np.power), (ops.maximum, np.maximum), (ops.minimum, np.minimum),
        *[(f, f) for f in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)],
    ):  # fmt: skip
        for x, y in ((a, b), (a, row), (a, 1.5), (1.5, b)):
            tensors = [clnn.tensor(v) if isinstance(v, np.ndarray) else v for v in (x, y)]
            assert_close(function(*tensors).numpy(), reference(x, y), 1e-6, reference.__name__)
    for function, reference in ((operator.neg, np.negative), (ops.exp, np.exp), (ops.log, np.log), (ops.sqrt, np.sqrt)):
        check(function, reference, a)
    check(abs, np.abs, distinct(rng, 4, 3))
    check(ops.where, np.where, rng.random((4, 3)) < 0.5, a, b)


def gemm_(rng):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "SMALL", 100)
        for m, n, k in ((3, 4, 5), (17, 9, 18), (1, 40, 9)):  # small, neither small nor thin, thin
            assert (m * n * k > gemm.SMALL) == (m != 3)
            check(operator.matmul, np.matmul, numbers(rng, m, k), numbers(rng, k, n))
    x, w, b = numbers(rng, 5, 3), numbers(rng, 7, 3), numbers(rng, 7)
    check(lambda x, w, b: ops.linear(x, w, b, "tanh"), lambda x, w, b: np.tanh(x @ w.T + b), x, w, b)


def hinge(rng):
    x, labels, signs = distinct(rng, 4, 5), rng.integers(0, 5, 4), rng.choice([-1, 1], (4, 5))
    margin = 1.06  # off the kinks, for the numbers lie multiples of 1/8 apart

    def reference(v, y):
        missing = np.maximum(0, margin - np.take_along_axis(v, y[:, None], 1) + v)
        return (missing.sum(1) - margin).mean() / 5  # without the label's own

    check(lambda v, y: ops.multi_margin_loss(v, y, 1, margin), reference, x, labels)
    check(ops.hinge_loss, lambda v, t: np.maximum(0, 1 - t * v).mean(), x, signs)


def local(rng):
    x, w = numbers(rng, 3, 2, 3, 4), numbers(rng, 2, 2, 5, 2, 2, 3)

    def reference(x, w):
        windows = np.lib.stride_tricks.sliding_window_view(x, (2, 3), axis=(2, 3))
        return np.einsum("nchwij,hwfcij->nfhw", windows, w)

    check(ops.locally_connected2d, reference, x, w)


def norm(rng):
    x = numbers(rng, 2, 7, 3, 2)

    def reference(x):
        d = np.stack([np.sum(x[:, max(c - 1, 0) : c + 2] ** 2, 1) for c in range(7)], 1)
        return x / (2 + 0.5 / 3 * d) ** 0.75

    check(lambda t: ops.local_response_norm(t, 3, 0.5, 0.75, 2.0), reference, x)

    def within(x):
        squares = np.pad(x**2, ((0, 0), (0, 0), (1, 1), (1, 1)))
        d = sum(squares[:, :, i : i + 3, j : j + 2] for i in range(3) for j in range(3))
        return x / (2 + 0.5 / 9 * d) ** 0.75

    check(lambda t: ops.local_response_norm2d(t, 3, 0.5, 0.75, 2.0), within, x)


def optimiser(rng):
    w, g = numbers(rng, 9), numbers(rng, 9)
    t = [clnn.tensor(w, requires_grad=True) for _ in range(2)]
    steps = optim.SGD(t[:1], lr=0.1), optim.Adam(t[1:], lr=0.1)
    (t[0] * clnn.tensor(g) + t[1] * clnn.tensor(g)).sum().backward()
    length = optim.clip_grad_norm_(t, 1.5)
    for opt in steps:
        opt.step()
    assert_close(length.numpy(), np.sqrt(2 * (g**2).sum()), 1e-6, "length")
    assert_close(t[0].numpy(), w - 0.1 * g * 1.5 / length.item(), 1e-6, "SGD")
    assert_close(t[1].numpy(), w - 0.1 * np.sign(g), 1e-5, "Adam, whose first step has the length lr")


def pool(rng):
    x = distinct(rng, 1, 2, 4, 6)
    tiled = x.reshape(1, 2, 2, 2, 3, 2)
    check(lambda t: ops.max_pool2d(t, 2), lambda v: v.reshape(tiled.shape).max((3, 5)), x)
    check(lambda t: ops.avg_pool2d(t, 2), lambda v: v.reshape(tiled.shape).mean((3, 5)), x)
    uneven = [slice(0, 2), slice(1, 3), slice(3, 5), slice(4, 6)]  # four windows over six columns
    check(
        lambda t: ops.adaptive_avg_pool2d(t, (1, 4)),
        lambda v: np.stack([v[..., c].mean((2, 3)) for c in uneven], -1)[:, :, None],
        x,
    )
    overlapping = np.lib.stride_tricks.sliding_window_view
    check(lambda t: ops.max_pool2d(t, 2, 1), lambda v: overlapping(v, (2, 2), (2, 3)).max((4, 5)), x)


def reduce(rng):
    x = distinct(rng, 4, 5)
    for function, reference in ((ops.sum, np.sum), (ops.max, np.max), (ops.min, np.min)):
        for dim in (0, 1):
            check(lambda t, f=function, d=dim: f(t, d), lambda v, f=reference, d=dim: f(v, d), x)
    np.testing.assert_array_equal(clnn.tensor(x).argmax(1).numpy(), x.argmax(1))


def softmax(rng):
    x, labels = numbers(rng, 4, 5), rng.integers(0, 5, 4)
    check(ops.softmax, lambda v: special.softmax(v, 1), x)
    check(ops.log_softmax, lambda v: special.log_softmax(v, 1), x)
    check(ops.cross_entropy, lambda v, y: -special.log_softmax(v, 1)[range(4), y].mean(), x, labels)
    p, t = rng.uniform(0.1, 0.9, (2, 7)).astype(np.float32).astype(float)
    check(ops.mse_loss, lambda v, w: ((v - w) ** 2).mean(), p, t)
    check(ops.l1_loss, lambda v, w: abs(v - w).mean(), p, t)
    check(lambda v: ops.binary_cross_entropy(v, t), lambda v: -(t * np.log(v) + (1 - t) * np.log(1 - v)).mean(), p)
    check(
        lambda v: ops.binary_cross_entropy_with_logits(v, t),
        lambda v: -(t * special.log_expit(v) + (1 - t) * special.log_expit(-v)).mean(),
        numbers(rng, 7),
    )


def tally_(rng):
    logits, labels = numbers(rng, 70, 3, 2), rng.integers(0, 3, (70, 2))
    total, hits = clnn.tensor(1.5), clnn.tensor(4)
    tally.tally(total, hits, clnn.tensor(0.25), 3.0, clnn.tensor(logits), clnn.tensor(labels))
    assert total.item() == 2.25 and hits.item() == 4 + (logits.argmax(1) == labels).sum()
    tally.count_hits(hits, clnn.tensor(logits), clnn.tensor(labels), 2)
    assert hits.item() == 4 + (logits.argmax(1) == labels).sum() + (logits.argmin(1) != labels).sum()


def vector_add(rng):
    a, b = rng.standard_normal((2, 300), dtype=np.float32)
    np.testing.assert_array_equal(ops.vector_add(clnn.tensor(a), clnn.tensor(b)).numpy(), a + b)


# family: its exercise
EXERCISES = {
    "activation": activation, "batchnorm": batchnorm, "ceiling": ceiling_, "conv": convolution,
    "conv_rows": convolution_by_rows, "conv_tiles": convolution, "conv_winners": convolution_of_winners, "copy": copy,
    "dropout": dropout, "elementwise": elementwise, "gemm": gemm_, "hinge": hinge, "local": local, "norm": norm,
    "optim": optimiser, "pool": pool, "reduce": reduce, "softmax": softmax, "tally": tally_, "vector_add": vector_add,
}  # fmt: skip


def test_every_family_has_an_exercise():
    assert SOURCES == set(EXERCISES), "write an exercise for each file in clnn/kernels, and add it to EXERCISES"


@pytest.mark.parametrize("family", EXERCISES)
def test_every_kernel_is_launched(family, device, monkeypatch):
    """In the forms for CPUs and for GPUs together."""
    compiled, launched = set(), set()
    monkeypatch.setattr(
        program, "recorder", lambda event, queue, knl, *_: launched.add(getattr(knl, "function_name", knl))
    )
    for kind in ("CPU", "GPU"):
        fresh = clnn.Device(device.cl_device)  # it has compiled nothing yet
        fresh.kind = kind
        with clnn.use_device(fresh):
            EXERCISES[family](generator(1))
        compiled |= {name for of, name, *_ in fresh.kernels if of == family}
    assert compiled, f"the exercise of {family} uses no kernel of {family}.cl"
    unused = sorted(compiled - launched)
    assert not unused, f"clnn/kernels/{family}.cl: kernels that its exercise does not launch: {', '.join(unused)}"


@pytest.mark.parametrize("family", sorted(SOURCES))
def test_no_atomics(family):
    """Sums have a fixed order, so that every run gives the same bits."""
    assert not re.findall(r"\batom(?:ic)?_\w+\s*\(", program.source(family))


@pytest.mark.parametrize("family", sorted(SOURCES))
def test_compiles_as_it_stands(family, device):
    """Without any -D, so that a reader can try a file in a tool of their own."""
    if family != "copy":  # it has no types of its own
        assert program.build(device, program.source(family)).all_kernels()
