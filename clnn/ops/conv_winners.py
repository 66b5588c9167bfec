"""The way back of a convolution whose result was max pooled, on CPUs, from the winners alone. pool.py uses it."""

from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from ..program import c_name, empty, kernel, launch
from .conv_rows import LEAST_SHARE, MOST_FILTERS, PLANE_BYTES, bordered, sums
from .gemm import vector_width
from .reduce import reduce_run

AROUND = 5  # what a run of taps costs a winner besides its products
LOOSE = 1.5  # what a product costs whose vector begins anywhere: many lie in two lines of the cache
LOCAL_SHARE = 4  # the part of a device's local memory that a plane may fill is one in so many


def winners_kernel(device, name, dtype, geo, **defines):
    sizes = {"OW": geo.OW, "SY": geo.sy, "SX": geo.sx}
    return kernel(device, "conv_winners", name, REAL=c_name(dtype), **sizes, **defines)


def row_lanes(device, dtype, geo) -> int:
    """The length of the vectors that hold a row of taps, 0 where channels side by side cost less."""
    v, channels = vector_width(device, dtype), geo.C // geo.groups
    lanes = 1 << max(geo.KW - 1, 3).bit_length()
    cost_of_rows = channels * (LOOSE * geo.KH + AROUND)
    cost_of_channels = -(-channels // v) * geo.KH * (geo.KW + AROUND)
    return lanes if geo.dx == 1 and lanes <= v and cost_of_rows < cost_of_channels else 0


def extent(geo, rows: int) -> tuple[int, int]:
    """Height and width of an image with its border, as far as windows of ``rows`` rows of taps reach."""
    return (geo.OH - 1) * geo.sy + geo.dy * (rows - 1) + 1, (geo.OW - 1) * geo.sx + geo.dx * (geo.KW - 1) + 1


def by_rows(device, x, geo, v: int):
    """Images whose vectors hold neighbours of a row; the constants and sizes of weight_winners for them."""
    images = bordered(device, x, geo, (geo.OW - 1) * geo.sx + v - geo.KW + 1)
    (_, _, height, width), channels = images.shape, geo.C // geo.groups
    constants = {"V": v, "STEP": 1, "TAPS": geo.KH, "TAP": geo.dy * width, "PW": width}
    return (
        images,
        constants,
        (channels, 1, channels * height * width, height * width, geo.KW, 1, geo.KW, geo.KH * geo.KW),
    )


def by_channels(device, x, geo):
    """Images whose vectors hold channels of a pixel; the constants and sizes of weight_winners for them."""
    v, channels, (height, width) = vector_width(device, x.dtype), geo.C // geo.groups, extent(geo, geo.KH)
    blocks, batch = -(-channels // v), x.shape[0] * geo.groups
    images = empty(device, (batch, blocks, height, width, v), x.dtype)
    knl = kernel(device, "conv_winners", "block_channels", REAL=c_name(x.dtype), V=v)
    launch(device, knl, (blocks, batch), (1, 1), x, images, channels, geo.H, geo.W, height, width, geo.py, geo.px)
    constants = {"V": v, "STEP": v, "TAPS": geo.KW, "TAP": geo.dx * v, "PW": width}
    row = geo.dy * width * v
    return images, constants, (geo.KH, blocks, height * width * v, row, channels, geo.KH * geo.KW, 1, geo.KW)


def backward_weight_winners(device, x, g, winner, geo, out):
    """The gradient by the filters from that of the pooled results and the ``winner`` of each window. The images are
    shared out as in backward_weight_rows."""
    v, count, filters = row_lanes(device, x.dtype, geo), x.shape[0], geo.F // geo.groups
    images, constants, sizes = by_rows(device, x, geo, v) if v else by_channels(device, x, geo)
    runs, blocks, size, *_ = sizes
    tile = max(1, min(sums(device) // constants["TAPS"], MOST_FILTERS))
    tiles = -(-filters // tile)
    share = max(PLANE_BYTES // (size * x.dtype.itemsize), LEAST_SHARE)
    share = min(share, -(-count * tiles * runs * blocks * geo.groups // (4 * device.cores)), count)
    parts = -(-count // share)
    result = out if parts == 1 else empty(device, (parts, out.size), out.dtype)
    windows = g.shape[2] * g.shape[3]
    knl = winners_kernel(device, "weight_winners", x.dtype, geo, TILE=tile, WINDOWS=windows, **constants)
    launch(
        device, knl, (tiles, runs * blocks, geo.groups * parts), (1, 1, 1), images, g, winner, result,
        count, geo.F, geo.groups, *sizes, geo.taps, share, flops=2 * g.size * geo.taps,
    )  # fmt: skip
    if parts > 1:
        reduce_run(device, "sum", result, 1, parts, out.size, out)


@dataclass(frozen=True)
class Spread:
    """The constants of spread_winners."""

    V: int
    ROWS: int
    PW: int
    PLANE: int
    KH: int
    KW: int
    DY: int
    DX: int


@lru_cache(maxsize=4096)
def spreading_winners(device, dtype, geo) -> Spread | None:
    """The constants of spread_winners; None where a plane would not fit, or a dense form has less to compute."""
    v, channels = vector_width(device, dtype), geo.C // geo.groups

    def cost(rows):
        return -(-geo.KH // rows) * (rows * geo.KW + AROUND)

    rows = min(range(1, max(sums(device) // geo.KW, 1) + 1), key=cost)
    height, width = extent(geo, -(-geo.KH // rows) * rows)
    height, width = max(height, geo.H + geo.py), max(width, geo.W + geo.px)
    fits = height * width * v * dtype.itemsize <= device.cl_device.local_mem_size // LOCAL_SHARE
    # At most one position in four has a winner, but a dense form fills its vectors.
    less = -(-channels // v) * cost(rows) < 4 * channels * geo.KH * geo.KW / v
    return Spread(v, rows, width, height * width, geo.KH, geo.KW, geo.dy, geo.dx) if fits and less else None


def backward_data_winners(device, g, winner, w, geo, spread, out):
    """The gradient by the images from that of the pooled results and the ``winner`` of each window."""
    batch, filters, windows = g.shape[0] * geo.groups, geo.F // geo.groups, g.shape[2] * g.shape[3]
    channels, positions, pitch = geo.C // geo.groups, geo.OH * geo.OW, spread.ROWS * geo.KW * spread.V
    blocks, runs = -(-channels // spread.V), -(-geo.KH // spread.ROWS)
    start = empty(device, (batch * (positions + 2),), np.dtype(np.int32))
    filter, grad = empty(device, g.shape, np.dtype(np.int32)), empty(device, g.shape, g.dtype)
    knl = kernel(device, "conv_winners", "sort_winners", REAL=c_name(g.dtype), V=spread.V)
    launch(device, knl, (batch,), (1,), g, winner, start, filter, grad, batch, filters, windows, positions, pitch)
    ordered = empty(device, (geo.groups * blocks * runs * filters * pitch,), w.dtype)
    knl = winners_kernel(device, "order_taps", w.dtype, geo, **asdict(spread))
    launch(device, knl, (filters, blocks, geo.groups), (8, 1, 1), w, ordered, filters, channels, runs)
    knl = winners_kernel(device, "spread_winners", g.dtype, geo, **asdict(spread))
    launch(
        device, knl, (blocks, batch), (1, 1), start, filter, grad, ordered, out,
        channels, geo.H, geo.W, filters, windows, positions, geo.groups, runs, geo.py, geo.px,
        flops=2 * g.size * geo.taps,
    )  # fmt: skip
