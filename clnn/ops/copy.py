"""Moving elements: reshape, transpose, broadcast, slices, rows by index, joining, conversion."""

import math

import numpy as np
import pyopencl as cl

from ..device import device as get_device
from ..errors import DTypeError, ShapeError
from ..program import (
    c_name,
    copy_across,
    copy_columns,
    copy_into,
    empty,
    fill,
    kernel,
    launch,
    reshaped,
    strides_of,
    upload,
)
from ..tensor import Function, Tensor, element_type, method, same_device, sizes_of

MAX_DIMS = 8


def padded(numbers) -> np.ndarray:
    """Up to 8 numbers as the kernel argument type int8, from the last dimension to the first."""
    return cl.cltypes.make_int8(*numbers[::-1], *[1] * (MAX_DIMS - len(numbers)))


def check_dims(shape) -> None:
    if len(shape) > MAX_DIMS:
        raise ShapeError(f"tensors have at most {MAX_DIMS} dimensions here, this one has shape {shape}")


def gather(device, x, shape, strides, start=0, dtype=None):
    """A new array with the elements of a view into array x, converted to ``dtype``."""
    check_dims(shape)
    out = empty(device, shape, dtype or x.dtype)
    knl = kernel(device, "copy", "gather_view", FROM=c_name(x.dtype), TO=c_name(out.dtype))
    launch(
        device, knl, (out.size,), (256,), x, out, out.size, start, len(shape), padded(shape), padded(strides),
        nbytes=min(out.size, x.size) * x.dtype.itemsize + out.nbytes,
    )  # fmt: skip
    return out


def scatter(device, x, out, strides, start=0):
    """Write array x into a view of array ``out`` whose elements are all different."""
    knl = kernel(device, "copy", "scatter_view", FROM=c_name(x.dtype), TO=c_name(out.dtype))
    launch(
        device, knl, (x.size,), (256,), x, out, x.size, start, x.ndim, padded(x.shape), padded(strides),
        nbytes=x.size * (x.dtype.itemsize + out.dtype.itemsize),
    )  # fmt: skip
    return out


class ToDevice(Function):
    """The same elements on another device."""

    def __init__(self, target):
        self.target = target

    def forward(self, x):
        self.origin, self.device = self.device, self.target
        return copy_across(self.target, x)

    def backward(self, grad):
        return (copy_across(self.origin, grad),)


@method("to")
def to(x: Tensor, device) -> Tensor:
    """The tensor on another device: itself where it is there already, else a copy; gradients find their way back.

    Between the parts of one device (``Device.split``) nothing waits; between others the host carries the copy.
    """
    target = get_device(device)
    if target is x.device:
        return x
    moved = ToDevice(target)(x)
    moved.bounds = x.bounds
    return moved


class Clone(Function):
    """The same elements in memory of their own."""

    def forward(self, x):
        out = empty(self.device, x.shape, x.dtype)
        copy_into(out, x)
        return out

    def backward(self, grad):
        return (grad,)


@method("clone")
def clone(x: Tensor) -> Tensor:
    """A copy in memory of its own; as in PyTorch the gradient flows through it."""
    return Clone()(x)


class Reshape(Function):
    """The same elements in another shape; no copy."""

    def __init__(self, shape):
        self.shape = shape

    def forward(self, x):
        self.former = x.shape
        return reshaped(x, self.shape)

    def backward(self, grad):
        return (reshaped(grad, self.former),)


@method("reshape", "view")
def reshape(x: Tensor, *shape) -> Tensor:
    """The same elements in another shape; one size may be -1. Raises ShapeError if the sizes do not fit."""
    shape = sizes_of(shape)
    known = math.prod([n for n in shape if n != -1])
    if shape.count(-1) == 1 and known and x.size % known == 0:
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    if math.prod(shape) != x.size or any(n < 1 for n in shape):
        raise ShapeError(f"{x.size} elements of shape {x.shape} cannot take the shape {shape}")
    return Reshape(shape)(x)


@method("flatten")
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the dimensions from ``start_dim`` to ``end_dim`` into one."""
    a, b = axis_of(x, start_dim), axis_of(x, end_dim)
    if a > b:
        raise ShapeError(f"flatten from dimension {start_dim} to {end_dim} goes backwards")
    return reshape(x, x.shape[:a] + (-1,) + x.shape[b + 1 :])


def axis_of(x: Tensor, dim: int) -> int:
    """A dimension counted from 0. Raises ShapeError if x has no such dimension."""
    if not -max(x.ndim, 1) <= dim < max(x.ndim, 1):
        raise ShapeError(f"a tensor of shape {x.shape} has no dimension {dim}")
    return dim % max(x.ndim, 1)


class Permute(Function):
    """The dimensions in another order."""

    def __init__(self, dims):
        self.dims = dims

    def forward(self, x):
        strides = strides_of(x.shape)
        return gather(self.device, x, tuple(x.shape[d] for d in self.dims), [strides[d] for d in self.dims])

    def backward(self, grad):
        strides, back = strides_of(grad.shape), np.argsort(self.dims)
        return (gather(self.device, grad, tuple(grad.shape[d] for d in back), [strides[d] for d in back]),)


@method("permute")
def permute(x: Tensor, *dims) -> Tensor:
    """The dimensions in the given order. Raises ShapeError unless each stands there once."""
    dims = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    order = [axis_of(x, d) for d in dims]
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute needs each of the {x.ndim} dimensions once, got {tuple(dims)}")
    return Permute(order)(x)


@method("transpose")
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    order = list(range(x.ndim))
    a, b = axis_of(x, dim0), axis_of(x, dim1)
    if a != b:
        order[a], order[b] = b, a
    return Permute(order)(x)


Tensor.T = property(lambda x: permute(x, tuple(range(x.ndim))[::-1]), doc="The dimensions in reverse order.")


@method("unsqueeze")
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at ``dim``."""
    at = dim if dim >= 0 else x.ndim + 1 + dim
    if not 0 <= at <= x.ndim:
        raise ShapeError(f"a tensor of shape {x.shape} has no place {dim} for a new dimension")
    return reshape(x, x.shape[:at] + (1,) + x.shape[at:])


@method("squeeze")
def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """Without the dimensions of size 1, or without ``dim`` if its size is 1."""
    drop = range(x.ndim) if dim is None else (axis_of(x, dim),)
    return reshape(x, tuple(n for d, n in enumerate(x.shape) if d not in drop or n != 1))


class Cast(Function):
    """Another element type."""

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        self.former = x.dtype
        return gather(self.device, x, x.shape, strides_of(x.shape), dtype=self.dtype)

    def backward(self, grad):
        return (gather(self.device, grad, grad.shape, strides_of(grad.shape), dtype=self.former),)


@method("astype", "type")
def astype(x: Tensor, dtype) -> Tensor:
    """The elements converted to float32, float64, int32 or bool. Raises DTypeError for other types."""
    dtype = element_type(dtype, x.device)
    if dtype == x.dtype:
        return x
    if dtype == np.bool_:
        return x != 0
    if dtype.kind != "f":
        return Tensor(gather(x.device, x.array, x.shape, strides_of(x.shape), dtype=dtype), x.device)
    return Cast(dtype)(x)


@method("float")
def to_float(x: Tensor) -> Tensor:
    """The elements as float32."""
    return astype(x, np.float32)


@method("double")
def to_double(x: Tensor) -> Tensor:
    """The elements as float64."""
    return astype(x, np.float64)


class Slice(Function):
    """A view told by NumPy's basic indexing."""

    def __init__(self, shape, strides, start):
        self.shape, self.strides, self.start = shape, strides, start

    def forward(self, x):
        self.former = x.shape
        return gather(self.device, x, self.shape, self.strides, self.start)

    def backward(self, grad):
        out = fill(empty(self.device, self.former, grad.dtype), 0)
        return (scatter(self.device, grad, out, self.strides, self.start),)


class Cat(Function):
    """Tensors one behind the other along a dimension."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, *arrays):
        shape = list(arrays[0].shape)
        shape[self.dim] = sum(x.shape[self.dim] for x in arrays)
        out, start, self.rows = empty(self.device, tuple(shape), arrays[0].dtype), 0, math.prod(shape[: self.dim])
        for x in arrays:
            width = x.size // self.rows
            copy_columns(out, start, x, 0, self.rows, width)
            start += width
        return out

    def backward(self, grad):
        parts, start = [], 0
        for t, need in zip(self.inputs, self.needs, strict=True):
            width = t.size // self.rows
            parts.append(empty(self.device, t.shape, grad.dtype) if need else None)
            if need:
                copy_columns(parts[-1], 0, grad, start, self.rows, width)
            start += width
        return parts


def cat(tensors, dim: int = 0) -> Tensor:
    """The tensors joined along a dimension that is there already; their other sizes and their types must agree.

    Raises ShapeError or DTypeError where they do not.
    """
    tensors = list(tensors)
    if not tensors:
        raise ShapeError("cat needs at least one tensor")
    same_device(*tensors)
    first = tensors[0]
    if not first.ndim:
        raise ShapeError("cat joins tensors along a dimension, a single number has none: reshape it to (1,)")
    axis = axis_of(first, dim)
    for t in tensors[1:]:
        if t.dtype != first.dtype:
            raise DTypeError(f"cat of {first.dtype.name} and {t.dtype.name}: convert with astype")
        sizes = [(*t.shape[:axis], *t.shape[axis + 1 :]) for t in (first, t)]
        if t.ndim != first.ndim or sizes[0] != sizes[1]:
            raise ShapeError(f"cat along dimension {dim} of shapes {first.shape} and {t.shape}: the others must agree")
    return Cat(axis)(*tensors)


class TakeRows(Function):
    """Rows chosen by an array of indices."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def forward(self, x):
        self.former = x.shape
        self.width = math.prod(x.shape[1:])
        out = empty(self.device, self.rows.shape + x.shape[1:], x.dtype)
        knl = kernel(self.device, "copy", "take_rows", FROM=c_name(x.dtype), TO=c_name(x.dtype))
        index = upload(self.device, self.rows)
        nbytes = 2 * out.nbytes + index.nbytes  # of x only the rows that are taken
        launch(self.device, knl, (out.size,), (256,), x, index, out, self.rows.size, self.width, nbytes=nbytes)
        return out

    def backward(self, grad):
        flat = self.rows.ravel()
        order = np.argsort(flat, kind="stable").astype(np.int32)
        first = np.searchsorted(flat[order], np.arange(self.former[0] + 1)).astype(np.int32)
        out = empty(self.device, self.former, grad.dtype)
        knl = kernel(self.device, "copy", "add_rows", FROM=c_name(grad.dtype), TO=c_name(grad.dtype))
        order, first = upload(self.device, order), upload(self.device, first)
        launch(
            self.device, knl, (out.size,), (256,), grad, order, first, out, self.former[0], self.width, flops=grad.size
        )
        return (out,)


def take_rows(x: Tensor, rows) -> Tensor:
    """``x[rows]`` for an integer array of any shape. Raises ShapeError if an index is out of range."""
    rows = np.asarray(rows)
    if rows.size == 0 or rows.dtype.kind not in "iu":
        raise ShapeError(f"rows are chosen by a non-empty array of integers, got {rows.dtype} {rows.shape}")
    if rows.min() < -len(x) or rows.max() >= len(x):
        raise ShapeError(f"rows {rows.min()} to {rows.max()} were asked for, there are {len(x)}")
    return TakeRows(np.where(rows < 0, rows + len(x), rows).astype(np.int32))(x)


@method("__getitem__")
def getitem(x: Tensor, key) -> Tensor:
    """``x[key]`` as in NumPy for integers, slices, None and Ellipsis, and for one array of row numbers or one mask.

    A mask or an index that is a Tensor is fetched from the device first. Raises ShapeError for other keys.
    """
    if isinstance(key, list | np.ndarray | Tensor):
        key = np.asarray(key)
        if key.dtype != np.bool_:
            return take_rows(x, key)
        if key.shape != x.shape[: key.ndim]:
            raise ShapeError(f"a mask of shape {key.shape} does not fit a tensor of shape {x.shape}")
        rows = reshape(x, (-1, *x.shape[key.ndim :]))
        return take_rows(rows, np.flatnonzero(key))
    key = key if isinstance(key, tuple) else (key,)
    if not all(k is None or k is Ellipsis or type(k) is int or isinstance(k, np.integer | slice) for k in key):
        raise ShapeError(f"an index is made of integers, slices, None and ..., or is one array; got {key!r}")
    if not any(k is Ellipsis for k in key):
        key = (*key, Ellipsis)  # so that NumPy answers with a view even where one element is named
    # NumPy itself resolves the key, on an array that pretends to have x's shape but owns a single byte.
    dummy = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), x.shape, strides_of(x.shape))
    try:
        view = dummy[key]
    except IndexError as error:
        raise ShapeError(f"a tensor of shape {x.shape} cannot be indexed with {key!r}: {error}") from None
    if view.size == 0:
        raise ShapeError(f"a tensor of shape {x.shape} indexed with {key!r} has no elements")
    start = view.__array_interface__["data"][0] - dummy.__array_interface__["data"][0]
    return Slice(view.shape, view.strides, start)(x)


@method("__setitem__")
def setitem(x: Tensor, key, values) -> None:
    """Tensors that the tape may hold are not written piecemeal: this raises TypeError with the way to do it."""
    raise TypeError("clnn tensors are not assigned by index: build the array in NumPy, or use clnn.ops.where")
