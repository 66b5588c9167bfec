"""Max and average pooling."""

from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError
from ..program import c_name, empty, kernel, launch, replacements
from ..tensor import Function, Tensor
from .activation import fused_backward
from .conv import (
    Conv2dFunction,
    Geometry,
    backward_data,
    conv2d,
    forward_tiles,
    geometry,
    pair,
    tile_candidates,
)
from .conv_winners import backward_data_winners, backward_weight_winners, spreading_winners
from .elementwise import as_real
from .gemm import operands
from .reduce import reduce_axes


@dataclass(frozen=True)
class Windows:
    """The sizes of a pooling: image, result, and for y and x each the window's size, stride, padding, dilation."""

    H: int
    W: int
    OH: int
    OW: int
    k: tuple[int, int]
    s: tuple[int, int]
    p: tuple[int, int] = (0, 0)
    d: tuple[int, int] = (1, 1)

    @property
    def inside(self) -> bool:
        """Whether no window reaches past the image."""
        ends = [
            (o - 1) * s + (k - 1) * d < n
            for o, s, k, d, n in zip((self.OH, self.OW), self.s, self.k, self.d, (self.H, self.W), strict=True)
        ]
        return self.p == (0, 0) and all(ends)

    def launch(self, device, name, grid, planes, *args):
        """Run a kernel of pool.cl over ``planes`` grids of (rows, columns)."""
        (KH, KW), (SY, SX), (DY, DX) = self.k, self.s, self.d
        real = c_name(args[0].dtype)
        knl = kernel(device, "pool", name, REAL=real, KH=KH, KW=KW, SY=SY, SX=SX, DY=DY, DX=DX, INSIDE=int(self.inside))
        rows, wide = grid
        span, local = (wide, (1, 16)) if device.kind == "CPU" else (1, (16, 8))
        size = (-(-wide // span), planes * rows)
        taps = 1 if name == "max_pool_backward_planes" else KH * KW
        flops = planes * self.OH * self.OW * taps  # comparisons or sums
        launch(device, knl, size, local, *args, planes, self.H, self.W, self.OH, self.OW, *self.p, span, flops=flops)


class Pool(Function):
    """What both poolings have: windows, and results of one size."""

    def __init__(self, windows: Windows):
        self.windows = windows

    def result(self, x):
        return empty(self.device, (*x.shape[:2], self.windows.OH, self.windows.OW), x.dtype)

    def gradient(self, grad):
        return empty(self.device, (*grad.shape[:2], self.windows.H, self.windows.W), grad.dtype)

    def run(self, name, grid, *args):
        planes = args[0].shape[0] * args[0].shape[1]
        self.windows.launch(self.device, name, grid, planes, *args)

    def run_backward(self, name, *args):
        """A plane for each work-item of a CPU, a pixel for each of another device."""
        planes = self.device.kind == "CPU"
        self.run(*((f"{name}_planes", (1, 1)) if planes else (name, (self.windows.H, self.windows.W))), *args)

    def spread(self, grad, winner):
        """The gradient of max pooling: each window's goes to the place of its largest."""
        dx = self.gradient(grad)
        self.run_backward("max_pool_backward", grad, winner, dx)
        return dx


class MaxPool(Pool):
    """The largest of each window; the gradient goes to the place where it stood."""

    def forward(self, x):
        y = self.result(x)
        self.winner = empty(self.device, y.shape, np.dtype(np.int32))
        self.run("max_pool", y.shape[2:], x, y, self.winner)
        return y

    def backward(self, grad):
        return (self.spread(grad, self.winner),)


class ConvMaxPool(Pool, Conv2dFunction):
    """Convolution and max pooling of windows side by side in one launch: the unpooled result is never written."""

    def __init__(self, geo: Geometry, pool: int, activation: str | None):
        Pool.__init__(self, Windows(geo.OH, geo.OW, geo.OH // pool, geo.OW // pool, (pool, pool), (pool, pool)))
        self.geo, self.pool, self.activation = geo, pool, activation

    def forward(self, x, w, bias=None):
        self.x, self.w, sizes = x, w, (x.shape[0], self.geo.F, self.windows.OH, self.windows.OW)
        self.y = empty(self.device, sizes, x.dtype)
        self.winner = empty(self.device, sizes, np.dtype(np.int32)) if True in self.needs else None
        forward_tiles(self.device, x, w, bias, self.geo, self.y, self.pool, self.winner, self.activation)
        return self.y

    def backward(self, grad):
        device, geo, dx, dw, db = self.device, self.geo, None, None, None
        grad = fused_backward(device, self.activation, self.y, grad)
        if self.needs[0]:
            dx = self.grad_array(0)
            if spread := spreading_winners(device, grad.dtype, geo):
                backward_data_winners(device, grad, self.winner, self.w, geo, spread, dx)
            else:
                backward_data(device, self.spread(grad, self.winner), self.w, geo, dx)
        if self.needs[1]:
            dw = self.grad_array(1)
            backward_weight_winners(device, self.x, grad, self.winner, geo, dw)
        if len(self.needs) > 2 and self.needs[2]:  # the pooled gradients add up to the same and are fewer
            db = reduce_axes(device, "sum", grad, (0, 2, 3), out=self.grad_array(2))
        return (dx, dw, db)[: len(self.needs)]


def conv2d_max_pool2d(
    input, weight, bias, stride, padding, dilation, groups, kernel_size: int, activation: str | None = None
) -> Tensor:
    """``max_pool2d(conv2d(..., activation), kernel_size)``; on a CPU in one launch, which pools before it activates:
    the activations never fall, so the largest element stays the largest. Raises ShapeError if it does not fit."""
    geo = geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    fits = 1 < kernel_size <= min(geo.OH, geo.OW) and tile_candidates(weight.device, kernel_size)
    if weight.device.kind != "CPU" or not fits or (activation and replacements):
        return max_pool2d(conv2d(input, weight, bias, stride, padding, dilation, groups, activation), kernel_size)
    return ConvMaxPool(geo, kernel_size, activation)(*operands(input, weight, bias))


class AvgPool(Pool):
    """The mean of each window."""

    def __init__(self, windows: Windows, count_include_pad: bool):
        super().__init__(windows)
        self.count_include_pad = int(count_include_pad)

    def forward(self, x):
        y = self.result(x)
        self.run("avg_pool", y.shape[2:], x, y, self.count_include_pad)
        return y

    def backward(self, grad):
        dx = self.gradient(grad)
        self.run_backward("avg_pool_backward", grad, dx, self.count_include_pad)
        return (dx,)


class AdaptiveAvgPool(Pool):
    """The mean of each of so many windows that cover the image."""

    def forward(self, x):
        y = self.result(x)
        self.run("adaptive_avg_pool", y.shape[2:], x, y)
        return y

    def backward(self, grad):
        dx = self.gradient(grad)
        self.run("adaptive_avg_pool_backward", dx.shape[2:], grad, dx)
        return (dx,)


def pooled_size(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Windows along one dimension; in ceil mode a last one may reach past the edge, if it starts inside."""
    span = n + 2 * p - d * (k - 1) - 1
    size = (-(-span // s) if ceil_mode else span // s) + 1
    if ceil_mode and (size - 1) * s >= n + p:
        size -= 1
    return size


def windows_of(name, shape, kernel_size, stride, padding, dilation, ceil_mode) -> Windows:
    """The checked sizes of a pooling. Raises ShapeError that says what does not fit."""
    if len(shape) != 4:
        raise ShapeError(f"{name} needs images as (N, C, H, W), got shape {shape}")
    k = pair(kernel_size, "kernel_size")
    s = k if stride is None else pair(stride, "stride")
    p, d = pair(padding, "padding"), pair(dilation, "dilation")
    if min(*k, *s, *d) < 1 or min(p) < 0 or any(2 * q > n for q, n in zip(p, k, strict=True)):
        raise ShapeError(
            f"{name}: kernel_size {kernel_size}, stride {stride} and dilation {dilation} must be at least 1, and "
            f"padding {padding} at most half of kernel_size"
        )
    out = [pooled_size(n, *ksp, ceil_mode) for n, *ksp in zip(shape[2:], k, s, p, d, strict=True)]
    if min(out) < 1:
        raise ShapeError(f"{name}: a window of {k} does not fit an image of {shape[2:]}")
    return Windows(*shape[2:], *out, k, s, p, d)


def max_pool2d(input: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of input (N, C, H, W); arguments as in PyTorch.

    Where several are largest the first gets the gradient; a NaN wins. Raises ShapeError if it does not fit.
    """
    return MaxPool(windows_of("max_pool2d", input.shape, kernel_size, stride, padding, dilation, ceil_mode))(input)


def avg_pool2d(
    input: Tensor, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window of input (N, C, H, W); arguments as in PyTorch. Raises ShapeError if it does not fit."""
    windows = windows_of("avg_pool2d", input.shape, kernel_size, stride, padding, 1, ceil_mode)
    return AvgPool(windows, count_include_pad)(as_real(input))


def adaptive_avg_pool2d(input: Tensor, output_size) -> Tensor:
    """The mean of each of ``output_size`` windows (an int, or a pair; None leaves a side as it is) that together cover
    the images of input (N, C, H, W), whatever their size. Where the sizes do not divide, neighbouring windows share
    rows or columns, as in PyTorch. Raises ShapeError for what is no image or no size.
    """
    if input.ndim != 4:
        raise ShapeError(f"adaptive_avg_pool2d needs images as (N, C, H, W), got shape {input.shape}")
    sides = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(sides) == 2:
        sides = [n if side is None else side for side, n in zip(sides, input.shape[2:], strict=True)]
    out = pair(sides, "output_size")
    if min(out) < 1:
        raise ShapeError(f"adaptive_avg_pool2d: output_size {output_size} must be at least 1")
    window = tuple(-(-n // o) for n, o in zip(input.shape[2:], out, strict=True))
    return AdaptiveAvgPool(Windows(*input.shape[2:], *out, window, (1, 1)))(as_real(input))
