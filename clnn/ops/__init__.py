"""The operations on tensors, a family a file, each beside its kernels in ``clnn/kernels`` under the same name."""

from .activation import log_softmax, relu, sigmoid, softmax, softplus, tanh
from .batchnorm import batch_norm
from .conv import conv2d
from .copy import cat, flatten, getitem, permute, reshape, take_rows, transpose
from .dropout import dropout
from .elementwise import (
    absolute,
    add,
    clamp,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    power,
    sqrt,
    sub,
    where,
)  # fmt: skip
from .gemm import linear, matmul
from .hinge import hinge_loss, multi_margin_loss
from .local import locally_connected2d
from .loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
)  # fmt: skip
from .norm import local_response_norm, local_response_norm2d
from .pool import adaptive_avg_pool2d, avg_pool2d, conv2d_max_pool2d, max_pool2d
from .reduce import argmax, broadcast_to, max, mean, min, sum
from .vector_add import vector_add

__all__ = [
    "absolute", "adaptive_avg_pool2d", "add", "argmax", "avg_pool2d", "batch_norm", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "broadcast_to", "cat", "clamp", "conv2d", "conv2d_max_pool2d", "cross_entropy",
    "div", "dropout", "exp", "flatten", "getitem", "hinge_loss", "l1_loss", "linear", "local_response_norm",
    "local_response_norm2d", "locally_connected2d", "log", "log_softmax", "matmul", "max", "max_pool2d", "maximum",
    "mean", "min", "minimum", "mse_loss", "mul", "multi_margin_loss", "neg", "permute", "power", "relu", "reshape",
    "sigmoid", "softmax", "softplus", "sqrt", "sub", "sum", "take_rows", "tanh", "transpose", "vector_add", "where",
]  # fmt: skip
