"""Max and average pooling."""

import numpy as np

from ..errors import ShapeError
from ..program import c_name, empty, fill, kernel, launch
from ..tensor import Function, Tensor
from .conv import pair


def pooled_size(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Windows along one dimension; in ceil mode a last one may reach past the edge, if it starts inside."""
    span = n + 2 * p - d * (k - 1) - 1
    size = (-(-span // s) if ceil_mode else span // s) + 1
    if ceil_mode and (size - 1) * s >= n + p:
        size -= 1
    return size


class Pool(Function):
    """What the two poolings share: sizes, launches."""

    name = ""

    def __init__(self, sizes, window):
        self.sizes, self.window = sizes, window  # (H, W, OH, OW) and the kernel's remaining arguments

    def run(self, name, size, local, planes, *arrays):
        knl = kernel(self.device, "pool", name, REAL=c_name(arrays[0].dtype))
        launch(self.device, knl, size, local, *arrays, planes, *self.sizes, *self.window)


class MaxPool(Pool):
    """The largest of each window; the gradient goes to the place where it stood."""

    def forward(self, x):
        planes, out = x.shape[0] * x.shape[1], self.sizes[2:]
        y = empty(self.device, (*x.shape[:2], *out), x.dtype)
        self.winner = empty(self.device, y.shape, np.dtype(np.int32))
        self.run("max_pool", (*out[::-1], planes), (8, 1, 1), planes, x, y, self.winner)
        return y

    def backward(self, grad):
        dx = empty(self.device, (*grad.shape[:2], *self.sizes[:2]), grad.dtype)
        planes, (kh, kw, sh, sw, _, _, dh, dw) = grad.shape[0] * grad.shape[1], self.window
        if sh > (kh - 1) * dh and sw > (kw - 1) * dw:
            size = (self.sizes[2] * self.sizes[3], planes)
            self.run("max_pool_backward_apart", size, (64, 1), planes, grad, self.winner, fill(dx, 0))
        else:
            self.run("max_pool_backward", (*self.sizes[1::-1], planes), (8, 1, 1), planes, grad, self.winner, dx)
        return (dx,)


class AvgPool(Pool):
    """The mean of each window."""

    def forward(self, x):
        y = empty(self.device, (*x.shape[:2], *self.sizes[2:]), x.dtype)
        planes = x.shape[0] * x.shape[1]
        self.run("avg_pool", (*self.sizes[:1:-1], planes), (8, 1, 1), planes, x, y)
        return y

    def backward(self, grad):
        dx = empty(self.device, (*grad.shape[:2], *self.sizes[:2]), grad.dtype)
        planes = grad.shape[0] * grad.shape[1]
        self.run("avg_pool_backward", (*self.sizes[1::-1], planes), (8, 1, 1), planes, grad, dx)
        return (dx,)


def _sizes(name, shape, kernel_size, stride, padding, dilation, ceil_mode):
    """((H, W, OH, OW), (kh, kw, sh, sw, ph, pw), (dh, dw)), checked."""
    if len(shape) != 4:
        raise ShapeError(f"{name} needs images as (N, C, H, W), got shape {shape}")
    k = pair(kernel_size, "kernel_size")
    s, p, d = pair(stride if stride else k, "stride"), pair(padding, "padding"), pair(dilation, "dilation")
    if min(*k, *s, *d) < 1 or min(p) < 0 or any(2 * q > n for q, n in zip(p, k, strict=True)):
        raise ShapeError(
            f"{name}: kernel_size {kernel_size}, stride {stride} and dilation {dilation} must be at least 1, and "
            f"padding {padding} at most half of kernel_size"
        )
    out = [pooled_size(n, *ksp, ceil_mode) for n, *ksp in zip(shape[2:], k, s, p, d, strict=True)]
    if min(out) < 1:
        raise ShapeError(f"{name}: a window of {k} does not fit an image of {shape[2:]}")
    return (*shape[2:], *out), (*k, *s, *p), d


def max_pool2d(input: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of input (N, C, H, W); arguments as in PyTorch.

    Where several are largest the first gets the gradient; a NaN wins. Raises ShapeError if it does not fit.
    """
    sizes, window, dilations = _sizes("max_pool2d", input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return MaxPool(sizes, (*window, *dilations))(input)


def avg_pool2d(
    input: Tensor,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of input (N, C, H, W); arguments as in PyTorch. Raises ShapeError if it does not fit."""
    sizes, window, _ = _sizes("avg_pool2d", input.shape, kernel_size, stride, padding, 1, ceil_mode)
    return AvgPool(sizes, (*window, int(count_include_pad)))(input)
