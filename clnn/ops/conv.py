"""Two-dimensional convolution. ``forward``, ``backward_data`` and ``backward_weight`` are the one place where it
is computed. Each comes in several forms: ``*_plain`` spells out the definition, ``*_tiles`` (conv_tiles.cl) and
``*_rows`` (conv_rows.py) are for CPUs, ``*_unfolded`` (conv.cl and gemm.cl) for all other devices and for what those
are not made for. (conv_winners.py computes the way back behind max pooling.)
"""

import math
from dataclasses import astuple, dataclass

import numpy as np

from .. import tuning
from ..errors import ShapeError
from ..program import SCALARS, c_name, empty, kernel, launch, replacements, round_up
from ..tensor import Function, Tensor
from . import conv_rows
from .activation import ACTIVATIONS, fused, fused_backward
from .conv_rows import backward_weight_rows, forward_rows, sums
from .gemm import accumulators, columns, multiply_panels, operands, tile_cost, vector_width
from .reduce import reduce_axes, reduce_run

PACK = (32, 1, 1)  # work-group of the packing kernels
SHARE_BYTES = 512 * 2**10  # half of what the second cache of a core often holds
PANEL_BYTES = 16 * 2**20  # the unfolded images of one pass: bounds the memory, and stays near the cache


def pair(value, name: str) -> tuple[int, int]:
    """An int or a pair of ints as a pair. Raises ShapeError for anything else."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int | np.integer) for v in both):
        raise ShapeError(f"{name} must be an integer or a pair of them, got {value!r}")
    return both


@dataclass(frozen=True)
class Geometry:
    """The sizes of a convolution, in the order in which conv.cl's kernels take them."""

    C: int
    H: int
    W: int
    F: int
    OH: int
    OW: int
    groups: int
    KH: int
    KW: int
    sy: int
    sx: int
    py: int
    px: int
    dy: int
    dx: int

    @property
    def taps(self) -> int:
        """Products summed for one element of the result."""
        return self.C // self.groups * self.KH * self.KW

    @property
    def inside(self) -> float:
        """The share of the rows of taps that meet the image, not its border."""
        rows = [oy * self.sy - self.py + ky * self.dy for oy in range(self.OH) for ky in range(self.KH)]
        return sum(0 <= row < self.H for row in rows) / len(rows)

    def blocks(self, filters: int) -> int:
        """How often so many filters make up all of a group, for all groups."""
        return self.groups * -(-self.F // self.groups // filters)

    def flops(self, count: int, pool: int = 1) -> int:
        """Multiplications and additions for ``count`` images; with ``pool`` for what fills whole windows."""
        return 2 * count * self.F * self.taps * (self.OH // pool) * (self.OW // pool) * pool**2

    def launch(self, device, name, dtype, size, local, *args, **work):
        knl = kernel(device, "conv", name, REAL=c_name(dtype), COLUMNS=columns(device, dtype))
        launch(device, knl, size, local, *args, *astuple(self), **work)

    def transposed(self) -> "Geometry":
        """The convolution of stride 1 that computes this one's gradient by the image. With a stride it computes sy * sx
        images for each channel, which interleaved make up the gradient (see ``turn_filters``)."""
        KH, OH, py, dy = _transposed(self.KH, self.H, self.sy, self.py, self.dy)
        KW, OW, px, dx = _transposed(self.KW, self.W, self.sx, self.px, self.dx)
        return Geometry(
            C=self.F, H=self.OH, W=self.OW, F=self.C * self.sy * self.sx, OH=OH, OW=OW, groups=self.groups,
            KH=KH, KW=KW, sy=1, sx=1, py=py, px=px, dy=dy, dx=dx,
        )  # fmt: skip


def _transposed(taps: int, length: int, stride: int, padding: int, dilation: int) -> tuple[int, int, int, int]:
    """Taps, results, padding and dilation of the transposed convolution along one axis."""
    if stride > 1:  # the taps of an interleaved image are neighbours, zeros among them where dilation leaves gaps
        taps, dilation = dilation * (taps - 1) // stride + 1, 1
    first, last = padding // stride, (length - 1 + padding) // stride
    return taps, last - first + 1, dilation * (taps - 1) - first, dilation


def images_at_once(count: int, floats_per_image: int, itemsize: int) -> range:
    """The first image of each pass, so that a pass unfolds to about PANEL_BYTES."""
    return range(0, count, max(1, PANEL_BYTES // (floats_per_image * itemsize)))


def forward_plain(device, x, w, bias, geo):
    """y by the definition, one work-item an element."""
    y = empty(device, (x.shape[0], geo.F, geo.OH, geo.OW), x.dtype)
    size = (geo.OH * geo.OW, geo.F, x.shape[0])
    geo.launch(device, "conv_forward", x.dtype, size, (16, 1, 1), x, w, bias, y, flops=geo.flops(x.shape[0]))
    return y


def forward_unfolded(device, x, w, bias, geo, out, activation=None):
    """y as the product of the filters with the unfolded images."""
    count, positions, filters = x.shape[0], geo.OH * geo.OW, geo.F // geo.groups
    width, k = columns(device, x.dtype), geo.taps
    panels_each = -(-positions // width)
    starts = images_at_once(count, geo.groups * panels_each * k * width, x.dtype.itemsize)
    for first in starts:
        batch = min(starts.step, count - first) * geo.groups
        panels = empty(device, (batch * panels_each * k * width,), x.dtype)
        moved = x.nbytes * batch // (count * geo.groups) + panels.nbytes
        geo.launch(device, "pack_windows", x.dtype, (k, panels_each, batch), PACK, x, panels, first, nbytes=moved)
        multiply_panels(
            device, w, panels, out, filters, positions, k, batch=batch, a_strides=(0, geo.groups, filters * k, 0, k, 1),
            bias=bias, bias_strides=(geo.groups, filters, 1, 0), start=first * geo.F * positions, activation=activation,
        )  # fmt: skip


FILTERS, TAPS = ("REAL", "V", "VECTORS"), ("KW", "SX", "DX")
STORE, PACKED = 4.5, 8  # what it takes to store a number, to pack one, in products of two vectors
CONSTANTS = {
    "pad_rows": ("REAL",),
    "pack_filters": FILTERS,
    "pack_channels": FILTERS,
    "weight_tiles": FILTERS + TAPS,
    "order_filters": ("REAL", *TAPS),
    "spread_taps": FILTERS + TAPS + ("ROW",),
    "conv_tiles": FILTERS + TAPS + ("TILE", "POOL"),
}


@dataclass(frozen=True)
class Tiling:
    """The constants that conv_tiles.cl is compiled with."""

    REAL: str
    V: int
    VECTORS: int
    TILE: int
    KW: int
    SX: int
    DX: int
    POOL: int = 1
    ROW: int = 0
    FORM: str = "conv_tiles"

    def kernel(self, device, name, **defines):
        """A kernel of conv_tiles.cl, compiled with the constants that it uses and no others: they are few."""
        return kernel(device, "conv_tiles", name, **{key: getattr(self, key) for key in CONSTANTS[name]}, **defines)

    @property
    def width(self) -> int:
        """Filters computed side by side."""
        return self.V * self.VECTORS

    @property
    def choice(self) -> dict:
        """What of it was chosen from among ``candidates``."""
        form = {} if self.FORM == "conv_tiles" else {"FORM": self.FORM}
        return form | {"VECTORS": self.VECTORS, "TILE": self.TILE}


def tile_candidates(device, pool: int = 1) -> list[dict]:
    """The tiles that conv_tiles may be compiled with: POOL rows high, their sums in registers.

    With pooling, at least two windows wide: the loop over a single one PoCL's compiler does not turn into vectors.
    """
    most, least = sums(device) // pool, 2 * pool if pool > 1 else 1
    return [
        {"VECTORS": vectors, "TILE": tile}
        for vectors in (4, 3, 2, 1)
        for tile in range(most // vectors // pool * pool, least - 1, -pool)
    ]


def candidates(device, key: tuple) -> list[dict]:
    """All tiles of both forms for CPUs. ``key``: the element type, the numbers of a Geometry, and the pooling."""
    real, *sizes, pool = key
    return tile_candidates(device, pool) + conv_rows.candidates(device, np.dtype(SCALARS[real]), Geometry(*sizes), pool)


def cost(device, dtype, geo: Geometry, pool: int, tile: dict) -> float:
    """What an image takes with a tile, in products of two vectors."""
    if tile.get("FORM") == "conv_rows":
        return conv_rows.cost(device, dtype, geo, pool, tile)
    height, vectors, v = tile["TILE"] * pool, tile["VECTORS"], vector_width(device, dtype)
    tiles = geo.blocks(v * vectors) * (geo.OH // pool) * -(-(geo.OW // pool * pool) // tile["TILE"])
    stored = height * vectors * v * (2 / pool**2 if pool > 1 else 1)  # of each window two numbers
    taps = geo.taps * geo.inside * tile_cost(height, vectors)
    return tiles * (taps + STORE * stored + conv_rows.STARTING)


@tuning.cached
def tiling(device, dtype, geo: Geometry, pool: int = 1) -> Tiling:
    """The tuned tile, if there is one, else the one that should cost least."""
    key = (c_name(dtype), *astuple(geo), pool)
    allowed = candidates(device, key)
    tile = tuning.lookup(device, "conv_tiles", key, allowed)
    tile = tile or min(allowed, key=lambda tile: cost(device, dtype, geo, pool, tile))
    v = vector_width(device, dtype)
    return Tiling(c_name(dtype), v, **tile, KW=geo.KW, SX=geo.sx, DX=geo.dx, POOL=pool)


@tuning.cached
def weighing(device, dtype, geo: Geometry) -> Tiling:
    """The form and the constants for the gradient of the filters. Nothing tuned: they decide how the images are shared
    out, and so the order of the sum."""
    v, strips = vector_width(device, dtype), geo.C // geo.groups * geo.KH
    fit = [n for n in (4, 3, 2, 1) if n * geo.KW <= sums(device)] or [1]

    def by_filters(vectors):
        steps = geo.OH * geo.OW * geo.blocks(v * vectors)
        return steps * (strips * tile_cost(geo.KW, vectors) + PACKED * v * vectors)

    vectors, form = min(fit, key=by_filters), "conv_tiles"
    if conv_rows.possible(device, dtype, geo) and conv_rows.weight_filters(device, geo):
        if 1.2 * conv_rows.weight_cost(device, dtype, geo) < by_filters(vectors):  # only where it is clearly less
            form = "conv_rows"
    return Tiling(c_name(dtype), v, vectors, 1, KW=geo.KW, SX=geo.sx, DX=geo.dx, FORM=form)


def padded_rows(device, x, geo, tiles):
    """x with its rows' borders written out, wide enough for whole tiles; x itself if it is so already."""
    wide = (round_up(geo.OW // tiles.POOL * tiles.POOL, tiles.TILE) - 1) * geo.sx + geo.dx * (geo.KW - 1) + 1
    if geo.px == 0 and wide <= geo.W:
        return x
    wide = max(wide, geo.W + geo.px)
    out = empty(device, (*x.shape[:3], wide), x.dtype)
    rows = x.size // geo.W
    launch(device, tiles.kernel(device, "pad_rows"), (rows,), (16,), x, out, rows, geo.W, wide, geo.px)
    return out


def forward_tiles(device, x, w, bias, geo, out, pool=1, winner=None, activation=None):
    """y tile by tile, straight from the images, in the form and with the tile that ``tiling`` says; with ``pool`` the
    largest of each window, its place in ``winner``."""
    tiles, groups, filters = tiling(device, x.dtype, geo, pool), geo.groups, geo.F // geo.groups
    if tiles.FORM == "conv_rows":
        return forward_rows(device, x, w, bias, geo, out, tiles, winner, activation)
    blocks = -(-filters // tiles.width)
    packed = empty(device, (groups * blocks * geo.taps * tiles.width,), w.dtype)
    pack = tiles.kernel(device, "pack_filters")
    launch(device, pack, (geo.taps, blocks, groups), (16, 1, 1), w, packed, filters, geo.taps)
    rows = padded_rows(device, x, geo, tiles)
    size = (geo.OH // pool * -(-(geo.OW // pool * pool) // tiles.TILE), blocks, x.shape[0] * groups)
    knl = tiles.kernel(device, "conv_tiles", **fused(activation, x.dtype))
    launch(
        device, knl, size, (1, 1, 1), rows, packed, bias, out, winner,
        geo.C, geo.H, rows.shape[3], geo.F, geo.OH, geo.OW, groups, geo.KH, geo.sy, geo.py, geo.dy,
        flops=geo.flops(x.shape[0], pool),
    )  # fmt: skip


def forward(device, x, w, bias, geo, out=None, activation=None):
    """y = activation(bias + sum over taps of w * x)."""
    out = empty(device, (x.shape[0], geo.F, geo.OH, geo.OW), x.dtype) if out is None else out
    compute = forward_tiles if device.kind == "CPU" else forward_unfolded
    compute(device, x, w, bias, geo, out, activation=activation)
    return out


def backward_data_plain(device, g, w, geo):
    """The gradient by the image, by the definition."""
    dx = empty(device, (g.shape[0], geo.C, geo.H, geo.W), g.dtype)
    size = (geo.H * geo.W, geo.C, g.shape[0])
    geo.launch(device, "conv_backward_data", g.dtype, size, (16, 1, 1), g, w, dx, flops=geo.flops(g.shape[0]))
    return dx


@tuning.cached
def spreading(device, dtype, geo: Geometry) -> Tiling | None:
    """The constants of spread_taps, where that fits and has less to compute than tiles on a border of zeros."""
    v, most = vector_width(device, dtype), accumulators(device)
    allowed = [n for n in (4, 3, 2, 1) if n * geo.KW <= most]
    if device.kind != "CPU" or not allowed or (geo.sy, geo.sx, geo.py, geo.px) != (1, 1, 0, 0):
        return None

    def elements(vectors):
        """Of a plane of g, filled up to whole tiles."""
        return round_up(geo.OH * (whole_rows(geo, v * vectors) or geo.W), v * vectors)

    vectors, back = min(allowed, key=elements), geo.transposed()
    spread = geo.C * geo.KH * elements(vectors) // v * (geo.F // geo.groups * geo.KW)
    # Adding up the taps takes its time, too.
    if 1.2 * spread > cost(device, dtype, back, 1, tiling(device, dtype, back).choice):
        return None
    return Tiling(c_name(dtype), v, vectors, 1, geo.KW, geo.sx, geo.dx, ROW=whole_rows(geo, v * vectors))


def whole_rows(geo: Geometry, width: int) -> int:
    """The length of g's rows where whole rows make up the width of a tile, else 0."""
    return 0 if width % geo.OW else geo.OW


def backward_data_spread(device, g, w, geo, tiles, out):
    """The gradient by the image, each plane by one work-item that adds up what each tap sends."""
    ordered, channels, filters = empty(device, (w.size,), w.dtype), geo.C // geo.groups, geo.F // geo.groups
    order = tiles.kernel(device, "order_filters")
    launch(device, order, (geo.F * channels,), (16,), w, ordered, filters, channels, geo.KH, geo.F * channels)
    count, filled = out.shape[0], geo.OH * (tiles.ROW or geo.W)
    pitch, pad = round_up(filled, tiles.width), tiles.kernel(device, "pad_rows")
    rows = g
    if not tiles.ROW:
        rows = empty(device, (count * geo.F * filled,), g.dtype)
        launch(device, pad, (rows.size // geo.W,), (16,), g, rows, rows.size // geo.W, geo.OW, geo.W, 0)
    planes = rows
    if pitch > filled:
        planes = empty(device, (count * geo.F * pitch,), g.dtype)
        launch(device, pad, (count * geo.F,), (16,), rows, planes, count * geo.F, filled, pitch, 0)
    launch(
        device, tiles.kernel(device, "spread_taps"), (channels, count * geo.groups), (1, 1), planes, ordered, out,
        pitch, geo.C, geo.H, geo.W, geo.F, geo.OH, geo.OW, geo.groups, geo.KH, geo.dy, flops=geo.flops(count),
    )  # fmt: skip
    return out


def backward_data(device, g, w, geo, out=None):
    """The gradient by the image."""
    if (tiles := spreading(device, g.dtype, geo)) is not None:
        out = empty(device, (g.shape[0], geo.C, geo.H, geo.W), g.dtype) if out is None else out
        return backward_data_spread(device, g, w, geo, tiles, out)
    return backward_data_turned(device, g, w, geo, out)


def backward_data_turned(device, g, w, geo, out=None):
    """The gradient by the image: a convolution of g with the turned filters; with a stride its results interleaved."""
    back, strided = geo.transposed(), (geo.sy, geo.sx) != (1, 1)
    filters = geo.F // geo.groups
    turned = empty(device, (back.F, filters, back.KH, back.KW), w.dtype)
    taps = (back.KH, back.KW, geo.sy * back.dy, geo.sx * back.dx)
    geo.launch(device, "turn_filters", w.dtype, (back.F * filters,), (64,), w, turned, *taps)
    parts = forward(device, g, turned, None, back, None if strided else out)
    if not strided:
        return parts
    out = empty(device, (g.shape[0], geo.C, geo.H, geo.W), g.dtype) if out is None else out
    size = (geo.sx, geo.H, g.shape[0] * geo.C)
    geo.launch(device, "interleave", g.dtype, size, (4, 4, 1), parts, out, back.OH, back.OW)
    return out


def backward_weight_plain(device, x, g, geo):
    """The gradient by the filters, by the definition."""
    dw = empty(device, (geo.F, geo.C // geo.groups, geo.KH, geo.KW), x.dtype)
    geo.launch(
        device,
        "conv_backward_weight",
        x.dtype,
        (geo.taps, geo.F),
        (16, 1),
        x,
        g,
        dw,
        x.shape[0],
        flops=geo.flops(x.shape[0]),
    )
    return dw


def backward_weight_unfolded(device, x, g, geo, out):
    """The gradient by the filters: the product of g with the unfolded images, summed over the images."""
    count, positions, filters = x.shape[0], geo.OH * geo.OW, geo.F // geo.groups
    width, each = columns(device, x.dtype), geo.F * positions
    panels_each = -(-geo.taps // width)
    starts = images_at_once(count, geo.groups * panels_each * positions * width, x.dtype.itemsize)
    for first in starts:
        images = min(starts.step, count - first)
        panels = empty(device, (geo.groups * images * panels_each * positions * width,), x.dtype)
        size = (positions, panels_each, geo.groups * images)
        moved = x.nbytes * images // count + panels.nbytes
        geo.launch(device, "pack_windows_t", x.dtype, size, PACK, x, panels, first, images, nbytes=moved)
        multiply_panels(
            device, g, panels, out, filters, geo.taps, positions, batch=geo.groups, blocks=images,
            a_strides=(first * each, geo.groups, filters * positions, each, positions, 1), accumulate=first > 0,
        )  # fmt: skip


def backward_weight_tiles(device, x, g, geo, out):
    """The gradient by the filters, a row of taps at a time. The images are shared out so that all cores work, and a
    share's gradients stay in a core's cache from one row of taps to the next."""
    tiles, groups = weighing(device, x.dtype, geo), geo.groups
    filters, count = geo.F // groups, x.shape[0]
    blocks, positions = -(-filters // tiles.width), geo.OH * geo.OW
    packed = empty(device, (count * groups * blocks * positions * tiles.width,), g.dtype)
    size = (-(-positions // 16), blocks, count * groups)
    launch(device, tiles.kernel(device, "pack_channels"), size, (1, 1, 1), g, packed, filters, positions)
    rows = padded_rows(device, x, geo, tiles)
    strips = geo.C // groups * geo.KH
    busy, cached = 4 * device.cores / (strips * blocks * groups), packed.nbytes / (blocks * groups * SHARE_BYTES)
    parts = min(count, math.ceil(max(busy, cached)))
    share = -(-count // parts)
    parts = -(-count // share)
    result = out if parts == 1 else empty(device, (parts, out.size), out.dtype)
    launch(
        device, tiles.kernel(device, "weight_tiles"), (strips, blocks, groups * parts), (1, 1, 1), rows, packed, result,
        count, geo.C, geo.H, rows.shape[3], geo.F, geo.OH, geo.OW, groups, geo.KH, geo.sy, geo.py, geo.dy, share,
        flops=geo.flops(count),
    )  # fmt: skip
    if parts > 1:
        reduce_run(device, "sum", result, 1, parts, out.size, out)


def backward_weight(device, x, g, geo, out=None):
    """The gradient by the filters."""
    out = empty(device, (geo.F, geo.C // geo.groups, geo.KH, geo.KW), x.dtype) if out is None else out
    if device.kind != "CPU" or geo.KW == 1:  # a single tap would give a tile too few sums
        backward_weight_unfolded(device, x, g, geo, out)
    elif weighing(device, x.dtype, geo).FORM == "conv_rows":
        backward_weight_rows(device, x, g, geo, out)
    else:
        backward_weight_tiles(device, x, g, geo, out)
    return out


class Conv2dFunction(Function):
    """Convolution with filters and, if given, a bias a filter, the activation applied as the result is stored."""

    def __init__(self, geo: Geometry, activation: str | None):
        self.geo, self.activation = geo, activation

    def forward(self, x, w, bias=None):
        self.x, self.w = x, w
        self.y = forward(self.device, x, w, bias, self.geo, activation=self.activation)
        return self.y

    def backward(self, grad):
        grad = fused_backward(self.device, self.activation, self.y, grad)
        db = None
        if len(self.needs) > 2 and self.needs[2]:
            db = reduce_axes(self.device, "sum", grad, (0, 2, 3), out=self.grad_array(2))
        return (*self.backward_product(grad), db)[: len(self.needs)]

    def backward_product(self, grad):
        """The gradients of image and filters."""
        dx = dw = None
        if self.needs[0]:
            dx = backward_data(self.device, grad, self.w, self.geo, out=self.grad_array(0))
        if self.needs[1]:
            dw = backward_weight(self.device, self.x, grad, self.geo, out=self.grad_array(1))
        return dx, dw


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """The cross-correlation that deep learning calls convolution (LeCun et al. 1998), arguments as in PyTorch.

    input (N, C, H, W), weight (F, C / groups, KH, KW), bias (F,) -> (N, F, OH, OW) with
    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1. ``activation``, "relu", "tanh" or "sigmoid", is applied
    in the same launch. Raises ShapeError or DTypeError if sizes or types do not fit, ValueError for another function.
    """
    if activation in ACTIVATIONS and replacements:
        return ACTIVATIONS[activation](conv2d(input, weight, bias, stride, padding, dilation, groups))
    geo = geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    return Conv2dFunction(geo, activation)(*operands(input, weight, bias))


def geometry(x_shape, w_shape, stride=1, padding=0, dilation=1, groups=1) -> Geometry:
    """The checked sizes of a convolution. Raises ShapeError that says what does not fit."""
    if len(x_shape) != 4:
        raise ShapeError(f"conv2d needs images as (N, C, H, W), got shape {x_shape}")
    if len(w_shape) != 4:
        raise ShapeError(f"conv2d needs filters as (F, C / groups, KH, KW), got shape {w_shape}")
    (_, c, h, w), (f, per_group, kh, kw) = x_shape, w_shape
    (sy, sx), (py, px), (dy, dx) = (
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
    )
    if groups < 1 or c != per_group * groups or f % groups:
        raise ShapeError(
            f"filters of shape {w_shape} in {groups} groups take {per_group * groups} channels, the images have {c} "
            f"({f} filters must divide into {groups} groups)"
        )
    if min(sy, sx, dy, dx) < 1 or min(py, px) < 0:
        raise ShapeError(f"stride {stride} and dilation {dilation} must be at least 1, padding {padding} at least 0")
    oh = (h + 2 * py - dy * (kh - 1) - 1) // sy + 1
    ow = (w + 2 * px - dx * (kw - 1) - 1) // sx + 1
    if min(oh, ow) < 1:
        raise ShapeError(
            f"a window of {dy * (kh - 1) + 1} x {dx * (kw - 1) + 1} does not fit an image of {h} x {w} with padding "
            f"{padding}"
        )
    return Geometry(c, h, w, f, oh, ow, groups, kh, kw, sy, sx, py, px, dy, dx)
