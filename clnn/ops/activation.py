"""Activation functions and the softmax family."""

import numpy as np

from ..errors import ShapeError
from ..program import c_name, empty, finder, launch, launch_each, run_of
from ..tensor import Function, Tensor, method
from .elementwise import as_real, binary

# Arithmetic operations for each element: of the definition, however a kernel computes a function such as exp
FLOPS = {
    "relu": 1, "relu_backward": 1, "tanh_": 1, "tanh_backward": 3, "sigmoid": 4, "sigmoid_backward": 3, "softplus": 5,
    "softmax": 5, "softmax_backward": 4, "log_softmax": 6, "log_softmax_backward": 4,
}  # fmt: skip


@finder("activation")
def activation_kernel(device, dtype):
    return {"REAL": c_name(dtype), **({"DOUBLE": 1} if dtype == np.float64 else {}), **run_of(device)}


@finder("softmax")
def softmax_kernel(device, dtype):
    return {"REAL": c_name(dtype), **run_of(device)}


def _apply(device, name, x):
    y = empty(device, x.shape, x.dtype)
    knl = activation_kernel(device, name, x.dtype)
    launch_each(device, knl, x.size, x, y, x.size, flops=FLOPS[name] * x.size)
    return y


def _slope(device, name, y, grad):
    out = empty(device, grad.shape, grad.dtype)
    knl = activation_kernel(device, name, grad.dtype)
    launch_each(device, knl, grad.size, y, grad, out, grad.size, flops=FLOPS[name] * grad.size)
    return out


class Activation(Function):
    """A function applied to each element whose derivative follows from its result y."""

    name = backward_name = ""

    def forward(self, x):
        self.y = _apply(self.device, self.name, x)
        return self.y

    def backward(self, grad):
        return (_slope(self.device, self.backward_name, self.y, grad),)


# What other kernels apply as they store their result: the macro of activation.h, and the kernel of the way back
FUSED = {
    "relu": ("RELU", "relu_backward"),
    "tanh": ("TANH", "tanh_backward"),
    "sigmoid": ("SIGMOID", "sigmoid_backward"),
}


def fused(activation: str | None, dtype) -> dict:
    """The constants for a kernel that includes activation.h. Raises ValueError for an unknown activation."""
    if activation is None:
        return {}
    if activation not in FUSED:
        raise ValueError(f"activation must be one of {', '.join(FUSED)} or None, got {activation!r}")
    macro = FUSED[activation][0]
    return {"ACTIVATION": macro, "SLOPE": f"{macro}_SLOPE", **({"DOUBLE": 1} if dtype == np.float64 else {})}


def fused_backward(device, activation: str | None, y, grad):
    """The gradient before the activation, from that after it and its result y."""
    return grad if activation is None else _slope(device, FUSED[activation][1], y, grad)


class Relu(Activation):
    name, backward_name = "relu", "relu_backward"


class Tanh(Activation):
    name, backward_name = "tanh_", "tanh_backward"


class Sigmoid(Activation):
    name, backward_name = "sigmoid", "sigmoid_backward"


class Softplus(Function):
    """log(1 + e^x); its derivative is the sigmoid of x."""

    def forward(self, x):
        self.x = x
        return _apply(self.device, "softplus", x)

    def backward(self, grad):
        return (binary(self.device, "mul", grad, _apply(self.device, "sigmoid", self.x)),)


@method("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0); the derivative at 0 is 0."""
    return Relu()(as_real(x))


@method("tanh")
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh()(as_real(x))


@method("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return Sigmoid()(as_real(x))


ACTIVATIONS = {"relu": relu, "tanh": tanh, "sigmoid": sigmoid}


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), without overflow."""
    return Softplus()(as_real(x))


class RowFunction(Function):
    """A function of each row (the last dimension) whose backward needs its result."""

    def __init__(self, name):
        self.name = name

    def _launch(self, name, *arrays):
        x = arrays[0]
        out, n = empty(self.device, x.shape, x.dtype), x.shape[-1]
        knl = softmax_kernel(self.device, name, x.dtype)
        launch(self.device, knl, (x.size // n,), (8,), *arrays, out, x.size // n, n, flops=FLOPS[name] * x.size)
        return out

    def forward(self, x):
        self.y = self._launch(self.name, x)
        return self.y

    def backward(self, grad):
        return (self._launch(f"{self.name}_backward", self.y, grad),)


def _along(name, x, dim):
    x = as_real(x)
    if not x.ndim:
        raise ShapeError(f"{name} needs at least one dimension, got a single number")
    if dim in (-1, x.ndim - 1):
        return RowFunction(name)(x)
    return RowFunction(name)(x.transpose(dim, -1)).transpose(dim, -1)


@method("softmax")
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """e^x divided by its sum along ``dim``: positive numbers that add up to 1."""
    return _along("softmax", x, dim)


@method("log_softmax")
def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """The logarithm of ``softmax``, without overflow or cancellation."""
    return _along("log_softmax", x, dim)
