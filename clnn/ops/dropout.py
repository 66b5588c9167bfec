"""Dropout with random numbers drawn on the device."""

import numpy as np

from ..program import c_name, empty, kernel, launch_each, run_of
from ..tensor import Function, Tensor, generator
from .elementwise import as_real


class DropoutFunction(Function):
    """Zero some elements; the mask follows from the key, so that backward draws the same again."""

    def __init__(self, p: float, key: int):
        self.p, self.key = p, key

    def forward(self, x):
        out = empty(self.device, x.shape, x.dtype)
        knl = kernel(self.device, "dropout", "dropout", REAL=c_name(x.dtype), **run_of(self.device))
        limit = min(int(self.p * 2**32), 2**32)
        scale = 1 / (1 - self.p) if self.p < 1 else 0.0
        launch_each(self.device, knl, x.size, x, out, x.size, self.key, limit, scale, flops=x.size)
        return out

    def backward(self, grad):
        return (self.forward(grad),)


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Each element set to 0 with probability p and the rest scaled by 1 / (1 - p), while training (Srivastava 2014).

    The mask depends on ``clnn.manual_seed`` alone. Raises ValueError unless p is in 0 .. 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"the probability p must lie in 0 .. 1, got {p}")
    if not training or p == 0:
        return input
    return DropoutFunction(p, int(generator().integers(2**63, dtype=np.int64)) * 2 + 1)(as_real(input))
