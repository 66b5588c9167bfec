"""clnn: deep learning, and the kernels under it, on any OpenCL device."""

from . import data, models, modules, ops, optim, parallel, recipes
from .ceilings import ceilings
from .checkpoint import load, save
from .device import Device, device, devices, synchronize, use_device
from .errors import (
    CheckpointError,
    ClnnError,
    DataError,
    DeviceError,
    DeviceMemoryError,
    DTypeError,
    GradientError,
    GraphError,
    KernelCompileError,
    LabelError,
    NonFiniteLossError,
    OptimizerError,
    ShapeError,
    StateDictError,
)  # fmt: skip
from .gradcheck import grad, gradcheck
from .iterators import converge, every, progress, take
from .metrics import top_k_accuracy
from .ops import cat
from .profiler import profile
from .summary import summary
from .tensor import (
    Tensor,
    arange,
    full,
    is_grad_enabled,
    manual_seed,
    no_grad,
    ones,
    ones_like,
    rand,
    randn,
    tensor,
    zeros,
    zeros_like,
)  # fmt: skip
from .trainer import Trainer, evaluate, sgd

__version__ = "0.1.0"
__all__ = [
    "CheckpointError", "ClnnError", "DTypeError", "DataError", "Device", "DeviceError", "DeviceMemoryError",
    "GradientError", "GraphError", "KernelCompileError", "LabelError", "NonFiniteLossError", "OptimizerError",
    "ShapeError", "StateDictError", "Tensor", "Trainer", "arange", "cat", "ceilings", "converge", "data", "device",
    "devices", "evaluate", "every", "full", "grad", "gradcheck", "is_grad_enabled", "load", "manual_seed", "models",
    "modules", "no_grad", "ones", "ones_like", "ops", "optim", "parallel", "profile", "progress", "rand", "randn",
    "recipes", "save", "sgd", "summary", "synchronize", "take", "tensor", "top_k_accuracy", "use_device", "zeros",
    "zeros_like",
]  # fmt: skip
