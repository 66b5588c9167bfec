"""Locally connected layers against loops over positions."""

import numpy as np
import pytest
from helpers import assert_close, check, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn import modules as nn
from clnn.errors import DTypeError, ShapeError
from clnn.ops import conv2d, locally_connected2d

pytestmark = pytest.mark.usefixtures("device")


def connected(x, w, b=None, stride=(1, 1), padding=(0, 0)):
    """The definition: at each position the window times that position's filters."""
    (rows, columns, filters, _, kh, kw), (sy, sx), (py, px) = w.shape, stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    y = np.empty((len(x), filters, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, i * sy : i * sy + kh, j * sx : j * sx + kw]
            y[:, :, i, j] = np.tensordot(window, w[i, j], ((1, 2, 3), (1, 2, 3)))
    return y if b is None else y + b


def positions(n, k, s, p):
    return (n + 2 * p - k) // s + 1


@given(
    count=st.integers(1, 3), channels=st.integers(1, 3), filters=st.integers(1, 3), height=st.integers(3, 5),
    width=st.integers(3, 6), kernel=st.sampled_from([(1, 1), (2, 3), (3, 2), (3, 3)]),
    stride=st.sampled_from([(1, 1), (2, 1), (3, 2)]), padding=st.sampled_from([(0, 0), (1, 0), (1, 2)]),
    bias=st.booleans(), seed=seeds,
)  # fmt: skip
@settings(max_examples=20)
def test_values_and_gradients(form, count, channels, filters, height, width, kernel, stride, padding, bias, seed):
    rng = generator(seed)
    rows, columns = [positions(*sizes) for sizes in zip((height, width), kernel, stride, padding, strict=True)]
    inputs = [numbers(rng, count, channels, height, width), numbers(rng, rows, columns, filters, channels, *kernel)]
    inputs += [numbers(rng, filters, rows, columns)] if bias else []
    check(
        lambda x, w, b=None: locally_connected2d(x, w, b, stride, padding),
        lambda x, w, b=None: connected(x, w, b, stride, padding),
        *inputs,
    )


@pytest.mark.parametrize("count, channels, filters, side", [(33, 17, 19, 6), (5, 64, 32, 3), (128, 3, 33, 4)])
def test_larger_layers(form, count, channels, filters, side):
    """Against the definition, and the gradient along the input against the one of the filters."""
    rng = generator(1)
    x, w = numbers(rng, count, channels, side, side), numbers(rng, side, side, filters, channels, 3, 3)
    b, g = numbers(rng, filters, side, side), numbers(rng, count, filters, side, side)
    for dtype in dtypes():
        t = [clnn.tensor(v, dtype, requires_grad=True) for v in (x, w, b)]
        y = locally_connected2d(*t, padding=1)
        y.backward(clnn.tensor(g, dtype))
        limit = 3e-6 if dtype == np.float32 else 1e-13
        want = connected(x, w, b, padding=(1, 1))
        assert_close(y.numpy(), want, limit, "value")
        assert_close(t[2].grad.numpy(), g.sum(0), limit, "gradient of the bias")
        along = (g * (want - b)).sum()  # linear in x and in w
        for v, slope in zip((x, w), t, strict=False):
            assert abs((v * slope.grad.numpy()).sum() - along) < limit * np.abs(g * (want - b)).sum()


def test_equal_filters_are_a_convolution(form):
    rng = generator(2)
    x, w, b = (clnn.tensor(numbers(rng, *s)) for s in ((4, 3, 7, 8), (5, 3, 3, 2), (5,)))
    want = conv2d(x, w, b, (2, 1), 1)
    rows, columns = want.shape[2:]
    each = np.broadcast_to(w.numpy(), (rows, columns, 5, 3, 3, 2))
    got = locally_connected2d(x, clnn.tensor(each), b.reshape(5, 1, 1).broadcast_to(want.shape[1:]), (2, 1), 1)
    assert_close(got.numpy(), want.numpy(), 2e-6, "convolution")


def test_module():
    clnn.manual_seed(3)
    layer = nn.LocallyConnected2d(4, 6, (5, 7), (3, 2), stride=(1, 2), padding=1)
    assert repr(layer) == (
        "LocallyConnected2d(4, 6, input_size=(5, 7), kernel_size=(3, 2), stride=(1, 2), padding=(1, 1))"
    )
    assert layer.weight.shape == (5, 4, 6, 4, 3, 2) and layer.bias.shape == (6, 5, 4)
    bound = 24**-0.5
    for p in layer.parameters():
        assert 0.9 * bound < abs(p.numpy()).max() <= bound and abs(p.numpy().mean()) < 0.2 * bound
    x = numbers(generator(4), 3, 4, 5, 7)
    w, b = layer.weight.numpy().astype(float), layer.bias.numpy()
    assert_close(layer(clnn.tensor(x)).numpy(), connected(x, w, b, (1, 2), (1, 1)), 2e-6, "value")
    (row,) = clnn.summary(layer, (3, 4, 5, 7)).layers
    assert row.multiply_adds == 3 * 6 * 5 * 4 * 24 and row.parameters == 5 * 4 * 6 * 24 + 6 * 5 * 4
    plain = nn.LocallyConnected2d(1, 2, 4, 3, bias=False)
    assert list(plain.state_dict()) == ["weight"] and plain(clnn.ones(1, 1, 4, 4)).shape == (1, 2, 2, 2)
    assert repr(plain) == ("LocallyConnected2d(1, 2, input_size=(4, 4), kernel_size=(3, 3), stride=(1, 1), bias=False)")


def test_what_does_not_fit():
    layer = nn.LocallyConnected2d(2, 3, 5, 3)
    with pytest.raises(ShapeError, match=r"3 x 3 positions does not fit images \(1, 2, 6, 5\), which have 4 x 3"):
        layer(clnn.ones(1, 2, 6, 5))
    with pytest.raises(ShapeError, match="take 2 channels, the images have 3"):
        layer(clnn.ones(1, 3, 5, 5))
    with pytest.raises(ShapeError, match=r"a weight \(OH, OW, F, C, KH, KW\), got shape \(3, 2, 3, 3\)"):
        locally_connected2d(clnn.ones(1, 2, 5, 5), clnn.ones(3, 2, 3, 3))
    with pytest.raises(ShapeError, match=r"bias must have shape \(3, 3, 3\), got \(3,\)"):
        locally_connected2d(clnn.ones(1, 2, 5, 5), layer.weight, clnn.ones(3))
    with pytest.raises(DTypeError, match="one type, they are int32, float32"):
        locally_connected2d(clnn.ones(1, 2, 5, 5, dtype=np.int32), layer.weight)
    with pytest.raises(ShapeError, match="window of 3 x 3 does not fit an image of 2 x 2"):
        nn.LocallyConnected2d(2, 3, 2, 3)
