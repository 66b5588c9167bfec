"""Sums, means, extremes along dimensions, and the broadcasting that is their opposite."""

import math
from functools import lru_cache

import numpy as np

from ..errors import DTypeError, ShapeError
from ..program import c_name, empty, finder, launch, reshaped, strides_of
from ..tensor import Function, Tensor, method, sizes_of
from .copy import axis_of, gather

CHUNK = 256  # the longest run that one work-item adds up


@finder("reduce")
def reduce_kernel(device, dtype):
    return {"REAL": c_name(dtype)}


def reduce_run(device, name, x, outer, n, inner, out=None, scale=1):
    """Reduce the middle dimension of array x seen as (outer, n, inner), in as many passes as it takes; times scale."""
    name = "sum_neighbours" if name == "sum" and inner == 1 else name
    knl = reduce_kernel(device, name, x.dtype)
    while True:
        chunks = -(-n // CHUNK) if outer * inner < 1024 else 1  # many results keep the device busy as they are
        last = chunks == 1
        result = out if last and out is not None else empty(device, (outer * chunks * inner,), x.dtype)
        local = (64, 1, 1) if inner > 1 else (1, 1, 16)
        launch(
            device, knl, (inner, chunks, outer), local,
            x, result, outer, n, inner, -(-n // chunks), scale if last else 1,
            flops=outer * (n - chunks) * inner,
        )  # fmt: skip
        if last:
            return result
        x, n = result, chunks


def reduce_axes(device, name, x, axes, out=None, scale=1):
    """Reduce array x over the axes (ascending), which vanish from its shape; ``out`` may take the result. It is
    multiplied by ``scale``."""
    kept, runs = _plan(x.shape, tuple(axes))
    for i, (outer, n, inner) in enumerate(runs):
        x = reduce_run(device, name, x, outer, n, inner, *((out, scale) if i == len(runs) - 1 else ()))
    return reshaped(x, kept) if out is None else out


@lru_cache(maxsize=4096)
def _plan(shape, axes) -> tuple[tuple, list]:
    """What is left of the shape, and (outer, n, inner) of each reduction: neighbouring axes are reduced at once."""
    runs = []
    for d in axes:
        if runs and runs[-1][1] == d:
            runs[-1][1] = d + 1
        else:
            runs.append([d, d + 1])
    size, plan = list(shape), []
    for a, b in reversed(runs):  # from the back, so that the axes in front keep their places
        plan.append((math.prod(size[:a]), math.prod(size[a:b]), math.prod(size[b:])))
        del size[a:b]
    return tuple(size), plan


def broadcast_strides(shape, target) -> tuple[int, ...]:
    """Strides that repeat an array of ``shape`` to ``target``: 0 along each repeated dimension."""
    lead = len(target) - len(shape)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(shape, strides_of(shape), strict=True))


def sum_to(device, grad, shape):
    """Sum array grad over what broadcasting from ``shape`` had repeated."""
    if grad.shape == shape:
        return grad
    lead = grad.ndim - len(shape)
    axes = [d for d in range(grad.ndim) if d < lead or (shape[d - lead] == 1 and grad.shape[d] != 1)]
    return reshaped(reduce_axes(device, "sum", grad, axes) if axes else grad, shape)


def expand(device, x, shape):
    """Array x repeated to ``shape``."""
    return gather(device, x, shape, broadcast_strides(x.shape, shape))


class Broadcast(Function):
    """Repeated along new dimensions and those of size 1."""

    def __init__(self, shape):
        self.shape = shape

    def forward(self, x):
        self.former = x.shape
        return expand(self.device, x, self.shape)

    def backward(self, grad):
        return (sum_to(self.device, grad, self.former),)


@method("broadcast_to", "expand")
def broadcast_to(x: Tensor, *shape) -> Tensor:
    """x repeated to a shape by NumPy's rule; -1 leaves a size as it is. Raises ShapeError if it does not fit."""
    shape = sizes_of(shape)
    own = (None,) * (len(shape) - x.ndim) + x.shape  # nothing to leave along new dimensions
    shape = tuple(m if n == -1 and m else n for m, n in zip(own, shape, strict=False))
    try:
        fits = np.broadcast_shapes(x.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits or 0 in shape:
        raise ShapeError(f"a tensor of shape {x.shape} cannot be repeated to {shape}")
    return Broadcast(shape)(x)


class Sum(Function):
    """The sum over some axes."""

    def __init__(self, axes, keepdim):
        self.axes, self.keepdim = axes, keepdim

    def forward(self, x):
        self.former = x.shape
        self.kept = tuple(1 if d in self.axes else n for d, n in enumerate(x.shape))
        y = reduce_axes(self.device, "sum", x, self.axes)
        return reshaped(y, self.kept) if self.keepdim else y

    def backward(self, grad):
        return (expand(self.device, reshaped(grad, self.kept), self.former),)


def axes_of(x: Tensor, dim) -> tuple[int, ...]:
    """The axes that ``dim`` (None for all, an int or a tuple) names, ascending."""
    dims = range(x.ndim) if dim is None else dim if isinstance(dim, tuple | list) else (dim,)
    axes = tuple(sorted(axis_of(x, d) for d in dims))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"dim={dim} names a dimension twice")
    return axes


@method("sum")
def sum(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """The sum over all elements or over the dimensions ``dim``; booleans are counted, integers wrap around at 2^31."""
    x = x.astype(np.int32) if x.dtype == np.bool_ else x
    axes = axes_of(x, dim)
    return Sum(axes, keepdim)(x) if x.ndim else x


@method("mean")
def mean(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """The mean over all elements or over the dimensions ``dim``."""
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    total = sum(x, dim, keepdim)
    return total * (total.size / x.size)


class Extreme(Function):
    """The largest or smallest element over some axes; elements that tie share the gradient evenly."""

    def __init__(self, name, axes, keepdim):
        self.name, self.axes, self.keepdim = name, axes, keepdim

    def forward(self, x):
        self.x = x
        self.kept = tuple(1 if d in self.axes else n for d, n in enumerate(x.shape))
        self.y = reduce_axes(self.device, self.name, x, self.axes)
        return reshaped(self.y, self.kept) if self.keepdim else self.y

    def backward(self, grad):
        x = Tensor(self.x, self.device)
        winners = (x == Tensor(reshaped(self.y, self.kept), self.device)).astype(x.dtype)
        share = Tensor(reshaped(grad, self.kept), self.device) / winners.sum(self.axes, keepdim=True)
        return ((winners * share).array,)


def _extreme(name, x, dim, keepdim):
    if x.dtype == np.bool_:
        raise DTypeError("the largest of booleans: use sum() > 0 or convert with astype")
    return Extreme(name, axes_of(x, dim), keepdim)(x) if x.ndim else x


@method("max", "amax")
def max(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """The largest element of all or over ``dim`` (values only; ``argmax`` gives places)."""
    return _extreme("largest", x, dim, keepdim)


@method("min", "amin")
def min(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """The smallest element of all or over ``dim``."""
    return _extreme("smallest", x, dim, keepdim)


@method("all")
def all(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """Whether every element, of all or over ``dim``, is other than 0."""
    return (x == 0).sum(dim, keepdim) == 0


@method("any")
def any(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """Whether some element, of all or over ``dim``, is other than 0."""
    return (x != 0).sum(dim, keepdim) != 0


@method("argmax")
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the first largest element, of all or along ``dim``, as int32."""
    axes = axes_of(x, dim if dim is None else (dim,)) if x.ndim else ()
    before, after = (x.shape[: axes[0]], x.shape[axes[-1] + 1 :]) if axes else ((), ())
    outer, inner = math.prod(before), math.prod(after)
    shape = (*before, *[1 for _ in axes], *after) if keepdim else before + after
    out = empty(x.device, shape, np.dtype(np.int32))
    knl = reduce_kernel(x.device, "argmax", x.dtype)
    n = x.size // (outer * inner)
    launch(x.device, knl, (inner, outer), (1, 64), x.array, out, outer, n, inner, flops=outer * (n - 1) * inner)
    return Tensor(out, x.device)
