"""The first kernel of the course, called as plainly as can be."""

from ..errors import DTypeError, ShapeError
from ..program import empty, kernel, launch
from ..tensor import Tensor, same_device


def vector_add(a: Tensor, b: Tensor) -> Tensor:
    """c = a + b for two float32 tensors of one shape, by the kernel ``vector_add``; not recorded on the tape.

    Raises ShapeError for different shapes and DTypeError for another type (use ``a + b`` for the general case).
    """
    device = same_device(a, b)
    if a.shape != b.shape:
        raise ShapeError(f"vector_add needs two equal shapes, got {a.shape} and {b.shape}")
    if {a.dtype.name, b.dtype.name} != {"float32"}:
        raise DTypeError(f"vector_add needs float32, got {a.dtype.name} and {b.dtype.name}")
    c = empty(device, a.shape)
    knl = kernel(device, "vector_add", "vector_add")
    launch(device, knl, (a.size,), (256,), a.array, b.array, c, a.size, flops=a.size)
    return Tensor(c, device)
