"""The way back of a max pooled convolution from the winners alone, against the plain kernels and NumPy."""

import numpy as np
import pytest
from helpers import LIMIT32, assert_close, dtypes, generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import clnn
from clnn import program
from clnn.ops import conv, conv2d_max_pool2d, conv_winners

pytestmark = pytest.mark.usefixtures("device", "nothing_remembered")

GEOMETRIES = st.fixed_dictionaries({
    "stride": st.tuples(*[st.integers(1, 2)] * 2), "padding": st.tuples(st.integers(0, 2), st.integers(0, 3)),
    "dilation": st.tuples(*[st.integers(1, 2)] * 2), "groups": st.integers(1, 2),
})  # fmt: skip


@pytest.fixture
def nothing_remembered():
    """What was chosen for another width of vectors, or for other limits."""
    conv_winners.spreading_winners.cache_clear()
    yield
    conv_winners.spreading_winners.cache_clear()


def winners_of(rng, count, geo, pool):
    """A random place in each window of the result, as max pooling gives them: (count, filters, rows, columns)."""
    rows, columns = geo.OH // pool, geo.OW // pool
    y, x = rng.integers(0, pool, (2, count, geo.F, rows, columns))
    return (y + pool * np.arange(rows)[:, None]) * geo.OW + x + pool * np.arange(columns)


def unpooled(g, winner, geo):
    dense = np.zeros((*g.shape[:2], geo.OH * geo.OW))
    np.put_along_axis(dense, winner.reshape(*g.shape[:2], -1), g.reshape(*g.shape[:2], -1), 2)
    return dense.reshape(*g.shape[:2], geo.OH, geo.OW)


def agree(rng, count, geo, pool, dtype):
    """Both gradients against those of the plain kernels, to which all positions count. Which forms were tried."""
    device = clnn.device()
    winner = winners_of(rng, count, geo, pool)
    x, g = numbers(rng, count, geo.C, geo.H, geo.W), numbers(rng, *winner.shape)
    w = numbers(rng, geo.F, geo.C // geo.groups, geo.KH, geo.KW)
    images, slopes, filters, dense = [clnn.tensor(v, dtype).array for v in (x, g, w, unpooled(g, winner, geo))]
    places, limit = clnn.tensor(winner).array, LIMIT32 if dtype == np.float32 else 1e-13
    dw, dx = program.empty(device, w.shape, dtype), program.empty(device, x.shape, dtype)
    conv_winners.backward_weight_winners(device, images, slopes, places, geo, dw)
    assert_close(dw.get(), conv.backward_weight_plain(device, images, dense, geo).get(), limit, "filters")
    if spread := conv_winners.spreading_winners(device, images.dtype, geo):
        conv_winners.backward_data_winners(device, slopes, places, filters, geo, spread, dx)
        assert_close(dx.get(), conv.backward_data_plain(device, dense, filters, geo).get(), limit, "images")
    return bool(conv_winners.row_lanes(device, images.dtype, geo)), spread is not None


@given(
    count=st.integers(1, 11), channels=st.sampled_from([1, 2, 3, 8, 9, 17]), filters=st.sampled_from([1, 2, 7]),
    size=st.sampled_from([(11, 16), (14, 12)]), taps=st.sampled_from([(1, 1), (2, 5), (5, 2), (3, 6)]),
    geometry=GEOMETRIES, pool=st.integers(2, 3), seed=seeds,
)  # fmt: skip
@settings(max_examples=4)
def test_gradients_from_winners(count, channels, filters, size, taps, geometry, pool, seed):
    groups = geometry["groups"]
    shapes = (count, channels * groups, *size), (filters * groups, channels, *taps)
    geo = conv.geometry(*shapes, **geometry)
    for dtype in dtypes():
        agree(generator(seed), count, geo, min(pool, geo.OH, geo.OW), dtype)


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_every_width_of_vectors(device, monkeypatch, vector_bytes):
    """With rows and with channels in the vectors, and with more winners than have their places computed at a time."""
    monkeypatch.setattr(device, "vector_bytes", vector_bytes)
    tried = set()
    for shape, filters, padding in (
        ((9, 1, 28, 27), (5, 1, 5, 5), 0), ((2, 3, 23, 19), (4, 3, 3, 4), 1), ((3, 20, 12, 13), (7, 20, 5, 5), 0),
    ):  # fmt: skip
        tried.add(agree(generator(1), shape[0], conv.geometry(shape, filters, 1, padding), 2, np.float32))
    assert {(False, True), (False, False) if vector_bytes == 16 else (True, False)} <= tried


def test_a_plane_too_large_for_local_memory(device, monkeypatch):
    """The dense form takes over, with the same gradients."""
    monkeypatch.setattr(device, "kind", "CPU")
    rng, found = generator(3), []
    x, w = numbers(rng, 2, 16, 12, 14), numbers(rng, 8, 16, 3, 3)
    for share in (4, 2**40):
        monkeypatch.setattr(conv_winners, "LOCAL_SHARE", share)
        conv_winners.spreading_winners.cache_clear()
        t = [clnn.tensor(v, requires_grad=True) for v in (x, w)]
        with clnn.profile() as p:
            conv2d_max_pool2d(*t, None, 1, 1, 1, 1, 2).sum().backward()
        found.append(([v.grad.numpy() for v in t], "spread_winners" in {row.kernel for row in p.rows}))
    assert [by_winners for _, by_winners in found] == [True, False]
    for got, want in zip(*[gradients for gradients, _ in found], strict=True):
        assert_close(got, want, LIMIT32, "gradient")


def test_zeros_between_winners_are_not_multiplied(device, monkeypatch):
    """An infinite pixel that the window's winner does not see leaves the gradient finite."""
    monkeypatch.setattr(device, "kind", "CPU")
    x = clnn.tensor([[[[-np.inf, 0, 0], [0, 5, 0], [0, 0, 0]]]])
    w = clnn.tensor([[[[1, 0.25], [0.25, 0.25]]]], np.float32, True)
    y = conv2d_max_pool2d(x, w, None, 1, 0, 1, 1, 2)
    y.backward(clnn.ones(1, 1, 1, 1))
    assert y.item() == 5 and w.grad.numpy().tolist() == [[[[5, 0], [0, 0]]]]
