"""Batch normalisation."""

import math

from ..errors import DTypeError, ShapeError
from ..program import c_name, empty, kernel, launch
from ..tensor import Function, Tensor, same_device

GROUP = 256  # work-items that sum a channel on a GPU
SPAN = 1024  # positions of an image that a work-item of a CPU computes


class BatchNorm(Function):
    """Each channel shifted and stretched to mean 0 and variance 1, then by weight and bias if there are any."""

    def __init__(self, running, count, learned: str, training: bool, momentum: float | None, eps: float):
        self.running, self.count, self.training = running, count, training
        self.learned, self.momentum, self.eps = learned, momentum, eps

    def forward(self, x, *learned):
        device, (mean, var) = self.device, self.running
        self.x, learned = x, dict(zip(self.learned, learned, strict=True))
        self.w, y = learned.get("w"), empty(device, x.shape, x.dtype)
        if self.training:
            mean, var = [empty(device, x.shape[1:2], x.dtype) for _ in range(2)]
            count, share = (self.count, 0.0) if self.momentum is None else (None, self.momentum)
            self.sum_channels("channel_moments", 4, x, mean, var, *self.running, count, share)
        self.moments = mean, var
        self.each_number("batch_norm", 3, x, mean, var, self.w, learned.get("b"), y, self.eps)
        return y

    def backward(self, grad):
        grads = {name: self.grad_array(i) for i, name in enumerate(self.learned, 1)}
        dw, db = [grads[n] if n in grads else empty(self.device, grad.shape[1:2], grad.dtype) for n in "wb"]
        self.sum_channels("channel_slopes", 4, grad, self.x, *self.moments, dw, db, self.eps)
        dx = None
        if self.needs[0]:
            dx, training = empty(self.device, grad.shape, grad.dtype), int(self.training)
            self.each_number(
                "batch_norm_backward", 5, grad, self.x, *self.moments, self.w, dw, db, dx, training, self.eps
            )
        return (dx, *grads.values())

    def sum_channels(self, name, flops_each, x, *args):
        """Run a kernel with a group a channel: one work-item on a CPU."""
        wide, high = self.group(x)
        self.run(name, (wide, high, x.shape[1]), (wide, high, 1), flops_each, x, *args)

    def each_number(self, name, flops_each, x, *args):
        """Run a kernel with a work-item for each ``span`` positions."""
        positions = math.prod(x.shape[2:])
        span, local = (SPAN, 1) if self.device.kind == "CPU" else (1, min(positions, 64))
        self.run(name, (-(-positions // span), x.shape[1], len(x)), (local, 1, 1), flops_each, x, *args, span)

    def group(self, x) -> tuple[int, int]:
        """Work-items along the positions of an image and along the images."""
        if self.device.kind == "CPU":
            return 1, 1
        wide = min(GROUP, 2 ** math.ceil(math.log2(math.prod(x.shape[2:]))))
        return wide, GROUP // wide

    def run(self, name, size, local, flops_each, x, *args):
        wide, high = self.group(x)
        lanes = 8 if self.device.kind == "CPU" else 1
        knl = kernel(self.device, "batchnorm", name, REAL=c_name(x.dtype), WIDTH=wide, HEIGHT=high, LANES=lanes)
        sizes = len(x), x.shape[1], math.prod(x.shape[2:])
        launch(self.device, knl, size, local, x, *args, *sizes, flops=flops_each * x.size)


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float | None = 0.1, eps: float = 1e-5,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(input - mean) / sqrt(var + eps) * weight + bias, channel by channel, for input (N, C, ...) and all others (C,).

    With ``training`` mean and var are those of the batch, and the running ones move towards them by ``momentum`` (the
    variance towards the unbiased one, sum / (n - 1)); with momentum None they become the mean over all batches, which
    ``num_batches_tracked`` counts. Else they are the running ones. Arguments as in PyTorch, which counts elsewhere.

    From Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift" (2015). Raises ShapeError or DTypeError for what does not fit, and ShapeError for one number a channel.
    """
    if input.ndim < 2:
        raise ShapeError(f"batch_norm needs an input (N, C, ...) of 2 dimensions or more, got {input.shape}")
    names = ("running_mean", "running_var", "weight", "bias")
    given = {n: t for n, t in zip(names, (running_mean, running_var, weight, bias), strict=True) if t is not None}
    same_device(input, *given.values())
    for name, t in given.items():
        if t.shape != input.shape[1:2]:
            raise ShapeError(f"{name} has shape {t.shape}; expected ({input.shape[1]},), one for each channel")
        if t.dtype != input.dtype:
            raise DTypeError(f"{name} is {t.dtype.name}, the input {input.dtype.name}: convert with astype")
    if not training and len({"running_mean", "running_var"} & given.keys()) < 2:
        raise ValueError("batch_norm that is not training needs running_mean and running_var")
    if training and input.size == input.shape[1]:
        raise ShapeError(f"an input of shape {input.shape} has one number a channel, which has no variance")
    count = None
    if training and num_batches_tracked is not None:
        count = num_batches_tracked.array
        launch(input.device, kernel(input.device, "batchnorm", "count_batch"), (1,), (1,), count)
    running = [t if t is None else t.array for t in (running_mean, running_var)]
    learned = {name: t for name, t in (("w", weight), ("b", bias)) if t is not None}
    return BatchNorm(running, count, "".join(learned), training, momentum, eps)(input, *learned.values())
