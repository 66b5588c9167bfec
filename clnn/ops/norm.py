"""Local response normalisation."""

import math

import numpy as np

from ..errors import ShapeError
from ..program import c_name, empty, kernel, launch
from ..tensor import Function, Tensor
from .elementwise import as_real

SPAN = 512  # positions that a work-item takes on a CPU: some channels of so many stay in the first cache


def square_root(device, dtype) -> str:
    """The name of the function that the device's compiler turns into an instruction for a whole vector."""
    if device.platform == "Intel(R) OpenCL":  # its sqrt takes one number at a time in a loop, four times as long
        return "__builtin_sqrtf" if dtype == np.float32 else "__builtin_sqrt"
    return "sqrt"


class LocalResponseNorm(Function):
    """Each element divided by a power of the sum of squares of its neighbours in other channels."""

    def __init__(self, size: int, alpha: float, beta: float, k: float):
        self.size, self.scale, self.beta, self.k = size, alpha / size, beta, k

    def forward(self, x):
        self.x = x
        y = empty(self.device, x.shape, x.dtype)
        self.kept = empty(self.device, x.shape, x.dtype) if self.needs[0] else None
        self._run("local_response_norm", 2 * self.size + 4, x, y, self.kept)
        return y

    def backward(self, grad):
        dx = empty(self.device, grad.shape, grad.dtype)
        self._run("local_response_norm_backward", 5 * self.size + 7, self.x, self.kept, grad, dx)
        return (dx,)

    def _run(self, name, flops_each, *arrays):
        x = arrays[0]
        count, channels, positions = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        span, depth, local = (SPAN, channels, (1, 1, 1)) if self.device.kind == "CPU" else (1, 1, (64, 1, 1))
        real, root = c_name(x.dtype), square_root(self.device, x.dtype)
        knl = kernel(self.device, "norm", name, REAL=real, SPAN=span, SQRT=root, THREE_QUARTERS=int(self.beta == 0.75))
        size = (-(-positions // span), -(-channels // depth), count)
        launch(
            self.device, knl, size, local, *arrays, channels, positions, depth, self.size, self.k, self.scale,
            self.beta, flops=flops_each * x.size,
        )  # fmt: skip


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
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"size is a number of channels, at least 1, got {size!r}")
    return LocalResponseNorm(int(size), alpha, beta, k)(input)
