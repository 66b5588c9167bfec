"""Two-dimensional convolution. ``forward``, ``backward_data`` and ``backward_weight`` are the one place where it
is computed; each ``*_plain`` is the same by the kernel that spells out the definition.
"""

from dataclasses import astuple, dataclass

import numpy as np

from ..errors import DTypeError, ShapeError
from ..program import c_name, empty, fill, kernel, launch
from ..tensor import Function, Tensor
from .copy import scatter
from .gemm import COLUMNS, multiply_panels, panels_of
from .reduce import reduce_axes

PACK = (32, 1, 1)  # work-group of the packing kernels
PANEL_BYTES = 16 * 2**20  # the unfolded images of one pass: bounds the memory, and stays near the cache


def pair(value, name: str) -> tuple[int, int]:
    """An int or a pair of ints as a pair."""
    both = (value, value) if isinstance(value, int | np.integer) else tuple(value)
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

    def launch(self, device, name, dtype, size, local, *args):
        knl = kernel(device, "conv", name, REAL=c_name(dtype))
        launch(device, knl, size, local, *args, *astuple(self))


def images_at_once(count: int, floats_per_image: int, itemsize: int) -> range:
    """The first image of each pass, so that a pass unfolds to about PANEL_BYTES."""
    return range(0, count, max(1, PANEL_BYTES // (floats_per_image * itemsize)))


def forward_plain(device, x, w, bias, geo):
    """y by the definition, one work-item an element."""
    y = empty(device, (x.shape[0], geo.F, geo.OH, geo.OW), x.dtype)
    geo.launch(device, "conv_forward", x.dtype, (geo.OH * geo.OW, geo.F, x.shape[0]), (16, 1, 1), x, w, bias, y)
    return y


def forward(device, x, w, bias, geo, out=None):
    """y = bias + sum over taps of w * x, as the product of the filters with the unfolded images."""
    count, positions, filters = x.shape[0], geo.OH * geo.OW, geo.F // geo.groups
    y = empty(device, (count, geo.F, geo.OH, geo.OW), x.dtype) if out is None else out
    wide, k = panels_of(positions), geo.taps
    per_image = geo.groups * wide * k * COLUMNS
    starts = images_at_once(count, per_image, x.dtype.itemsize)
    for first in starts:
        batch = min(starts.step, count - first) * geo.groups
        panels = empty(device, (batch * wide * k * COLUMNS,), x.dtype)
        geo.launch(device, "pack_windows", x.dtype, (k, wide, batch), PACK, x, panels, first)
        multiply_panels(
            device, w, panels, y, filters, positions, k, batch=batch, a_strides=(0, geo.groups, filters * k, 0, k, 1),
            bias=bias, bias_strides=(geo.groups, filters, 1, 0), start=first * geo.F * positions,
        )  # fmt: skip
    return y


def backward_data_plain(device, g, w, geo):
    """The gradient by the image, by the definition."""
    dx = empty(device, (g.shape[0], geo.C, geo.H, geo.W), g.dtype)
    size = (geo.H * geo.W, geo.C, g.shape[0])
    geo.launch(device, "conv_backward_data", g.dtype, size, (16, 1, 1), g, w, dx)
    return dx


def backward_data(device, g, w, geo, out=None):
    """The gradient by the image: a convolution of g, its elements ``stride`` apart, with the turned filters."""
    turned = empty(device, w.shape, w.dtype)
    geo.launch(device, "turn_filters", w.dtype, (w.size,), (64,), w, turned)
    high, wide = (geo.OH - 1) * geo.sy + 1, (geo.OW - 1) * geo.sx + 1
    if (geo.sy, geo.sx) != (1, 1):
        spread = fill(empty(device, (*g.shape[:2], high, wide), g.dtype), 0)
        plane = high * wide
        g = scatter(device, g, spread, (geo.F * plane, plane, geo.sy * wide, geo.sx))
    py, px = geo.dy * (geo.KH - 1) - geo.py, geo.dx * (geo.KW - 1) - geo.px
    back = Geometry(
        geo.F, high, wide, geo.C, geo.H, geo.W, geo.groups, geo.KH, geo.KW, 1, 1, py, px, geo.dy, geo.dx
    )  # fmt: skip
    return forward(device, g, turned, None, back, out)


def backward_weight_plain(device, x, g, geo):
    """The gradient by the filters, by the definition."""
    dw = empty(device, (geo.F, geo.C // geo.groups, geo.KH, geo.KW), x.dtype)
    geo.launch(device, "conv_backward_weight", x.dtype, (geo.taps, geo.F), (16, 1), x, g, dw, x.shape[0])
    return dw


def backward_weight(device, x, g, geo, out=None):
    """The gradient by the filters: the product of the gradients with the unfolded images, summed over images."""
    count, positions, filters = x.shape[0], geo.OH * geo.OW, geo.F // geo.groups
    dw = empty(device, (geo.F, geo.C // geo.groups, geo.KH, geo.KW), x.dtype) if out is None else out
    wide, k = panels_of(geo.taps), positions
    starts = images_at_once(count, geo.groups * wide * k * COLUMNS, x.dtype.itemsize)
    for first in starts:
        images = min(starts.step, count - first)
        panels = empty(device, (geo.groups * images * wide * k * COLUMNS,), x.dtype)
        size = (k, wide, geo.groups * images)
        geo.launch(device, "pack_windows_t", x.dtype, size, PACK, x, panels, first, images)
        each = geo.F * positions
        multiply_panels(
            device, g, panels, dw, filters, geo.taps, k, batch=geo.groups, blocks=images,
            a_strides=(first * each, geo.groups, filters * positions, each, positions, 1), accumulate=first > 0,
        )  # fmt: skip
    return dw


class Conv2dFunction(Function):
    """Convolution with filters and, if given, a bias a filter."""

    def __init__(self, geo: Geometry):
        self.geo = geo

    def forward(self, x, w, bias=None):
        self.x, self.w = x, w
        return forward(self.device, x, w, bias, self.geo)

    def backward(self, grad):
        dx = dw = db = None
        if self.needs[0]:
            dx = backward_data(self.device, grad, self.w, self.geo, out=self.grad_array(0))
        if self.needs[1]:
            dw = backward_weight(self.device, self.x, grad, self.geo, out=self.grad_array(1))
        if len(self.needs) > 2 and self.needs[2]:
            db = reduce_axes(self.device, "sum", grad, (0, 2, 3), out=self.grad_array(2))
        return (dx, dw, db)[: len(self.needs)]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation that deep learning calls convolution (LeCun et al. 1998), arguments as in PyTorch.

    input (N, C, H, W), weight (F, C / groups, KH, KW), bias (F,) -> (N, F, OH, OW) with
    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1. Raises ShapeError or DTypeError if they do not fit.
    """
    geo = geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"the bias must have shape {weight.shape[:1]}, got {bias.shape}")
    if input.dtype != weight.dtype:
        raise DTypeError(f"the input is {input.dtype.name}, the weight {weight.dtype.name}: convert with astype")
    return Conv2dFunction(geo)(input, weight, *(() if bias is None else (bias,)))


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
