"""Local response normalisation, across maps and within them."""

import math

import numpy as np

from ..errors import ShapeError
from ..program import c_name, empty, kernel, launch
from ..tensor import Function, Tensor
from .elementwise import as_real

SPAN = 512  # positions that a work-item takes on a CPU: some channels of so many stay in the first cache
ROW_SPAN = 64  # neighbours of a row that it computes side by side within maps


def square_root(device, dtype) -> str:
    """The name of the function that the device's compiler turns into an instruction for a whole vector."""
    if device.platform == "Intel(R) OpenCL":  # its sqrt takes one number at a time in a loop, four times as long
        return "__builtin_sqrtf" if dtype == np.float32 else "__builtin_sqrt"
    return "sqrt"


class LocalResponseNorm(Function):
    """Each element divided by a power of the sum of squares of its neighbours in other channels."""

    name = "local_response_norm"

    def __init__(self, size: int, alpha: float, beta: float, k: float):
        self.size, self.scale, self.beta, self.k = size, alpha / size, beta, k

    def forward(self, x):
        self.x = x
        y = empty(self.device, x.shape, x.dtype)
        self.kept = empty(self.device, x.shape, x.dtype) if self.needs[0] else None
        self.run(self.name, (2 * self.size + 4) * x.size, x, y, self.kept)
        return y

    def backward(self, grad):
        dx = empty(self.device, grad.shape, grad.dtype)
        self.run(f"{self.name}_backward", (5 * self.size + 7) * dx.size, self.x, self.kept, grad, dx)
        return (dx,)

    def kernel(self, name, dtype, span, **defines):
        real, root, power = c_name(dtype), square_root(self.device, dtype), int(self.beta == 0.75)
        return kernel(self.device, "norm", name, REAL=real, SPAN=span, SQRT=root, THREE_QUARTERS=power, **defines)

    def run(self, name, flops, *arrays):
        x = arrays[0]
        count, channels, positions = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        span, depth, local = (SPAN, channels, (1, 1, 1)) if self.device.kind == "CPU" else (1, 1, (64, 1, 1))
        size = (-(-positions // span), -(-channels // depth), count)
        launch(
            self.device, self.kernel(name, x.dtype, span), size, local, *arrays, channels, positions, depth, self.size,
            self.k, self.scale, self.beta, flops=flops,
        )  # fmt: skip


class LocalResponseNorm2d(LocalResponseNorm):
    """Each element divided by a power of the sum of squares of its neighbours in the same map."""

    name = "local_response_norm2d"

    def __init__(self, size: int, alpha: float, beta: float, k: float):
        super().__init__(size, alpha / size, beta, k)

    def run(self, name, flops, *arrays):
        count, channels, high, wide = arrays[0].shape
        on_cpu = self.device.kind == "CPU"
        span, rows, local = (min(wide, ROW_SPAN), high, (1, 1, 1)) if on_cpu else (1, 1, (16, 4, 1))
        knl = self.kernel(name, arrays[0].dtype, span, SIZE=self.size, WHOLE=int(wide % span == 0))
        size = (-(-wide // span), -(-high // rows), count * channels)
        settings = self.k, self.scale, self.beta
        launch(self.device, knl, size, local, *arrays, high, wide, rows, *settings, flops=flops)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input / (k + alpha / size * sum of squares)^beta, the sum over ``size`` neighbouring channels, zeros beyond
    the first and the last; input (N, C, ...), arguments as in PyTorch (an even size reaches one further back).

    From Krizhevsky et al., "ImageNet classification with deep convolutional neural networks" (2012), section 3.3,
    where alpha is not divided by size. Raises ShapeError for an input without positions and ValueError for a size
    below 1.
    """
    input = as_real(input)
    if input.ndim < 3:
        raise ShapeError(f"local_response_norm needs an input (N, C, ...) of 3 dimensions or more, got {input.shape}")
    return LocalResponseNorm(at_least_one(size, "channels"), alpha, beta, k)(input)


def local_response_norm2d(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input / (k + alpha / size^2 * sum of squares)^beta, the sum over ``size`` x ``size`` neighbours in the same map,
    zeros beyond its edges; input (N, C, H, W) (an even size reaches one further back, up and to the left).

    The "rnorm" of Krizhevsky's cuda-convnet (2011), which PyTorch has not. Raises ShapeError for other inputs and
    ValueError for a size below 1.
    """
    input = as_real(input)
    if input.ndim != 4:
        raise ShapeError(f"local_response_norm2d needs images as (N, C, H, W), got shape {input.shape}")
    return LocalResponseNorm2d(at_least_one(size, "pixels"), alpha, beta, k)(input)


def at_least_one(size, what: str) -> int:
    """The size as an int. Raises ValueError unless it is a whole number of at least 1."""
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"size is a number of {what}, at least 1, got {size!r}")
    return int(size)
