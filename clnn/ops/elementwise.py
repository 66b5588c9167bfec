"""Arithmetic and comparison, element by element, with NumPy's broadcasting."""

from functools import lru_cache
from numbers import Real

import numpy as np

from ..errors import DTypeError, GraphError, ShapeError
from ..program import c_name, empty, fill, finder, launch_each, run_of
from ..tensor import Function, Tensor, full, is_grad_enabled, method, same_device, tensor
from .copy import check_dims, padded
from .reduce import broadcast_strides, sum_to


@finder("elementwise")
def elementwise_kernel(device, dtype):
    return {"REAL": c_name(dtype), **({"INTEGER": 1} if dtype.kind != "f" else {}), **run_of(device)}


def unary(device, name, x):
    """One of the one-array kernels of elementwise.cl."""
    out = empty(device, x.shape, x.dtype)
    launch_each(device, elementwise_kernel(device, name, x.dtype), x.size, x, out, x.size, flops=x.size)
    return out


def broadcast_shape(*shapes) -> tuple[int, ...]:
    """The shape that NumPy broadcasts these to. Raises ShapeError where there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"shapes {' and '.join(map(str, shapes))} do not fit together: counted from the right, the sizes must be "
            "equal or 1"
        ) from None


@lru_cache(maxsize=4096)
def _broadcast_plan(x_shape, y_shape):
    shape = broadcast_shape(x_shape, y_shape)
    check_dims(shape)
    strides = [padded(broadcast_strides(s, shape)) for s in (x_shape, y_shape)]
    return shape, (len(shape), padded(shape), *strides)


def binary(device, name, x, y, out=None, dtype=None):
    """One of the two-operand kernels of elementwise.cl; x or y may be a number."""
    if not hasattr(y, "shape"):
        name, shape, kind, extra = f"{name}_number", x.shape, x.dtype, ()
    elif not hasattr(x, "shape"):
        name, shape, kind, extra = f"number_{name}", y.shape, y.dtype, ()
    elif x.shape == y.shape:
        shape, kind, extra = x.shape, x.dtype, ()
    else:
        shape, extra = _broadcast_plan(x.shape, y.shape)
        name, kind = f"{name}_broadcast", x.dtype
    out = empty(device, shape, dtype or kind) if out is None else out
    knl = elementwise_kernel(device, name, kind)
    launch_each(device, knl, out.size, x, y, out, out.size, *extra, flops=out.size)
    return out


class Binary(Function):
    """An operation on two operands, either of which may be a plain number kept in ``self.number``."""

    name = ""
    number = None
    flipped = False  # whether the number is the left operand

    def operands(self, *arrays):
        if self.number is None:
            return arrays
        return (self.number, *arrays) if self.flipped else (*arrays, self.number)

    def forward(self, *arrays):
        self.x, self.y = self.operands(*arrays)
        self.out = binary(self.device, self.name, self.x, self.y)
        return self.out

    def backward(self, grad):
        sides = [i for i, side in enumerate((self.x, self.y)) if hasattr(side, "shape")]
        parts = (self.left, self.right)
        return tuple(
            sum_to(self.device, parts[side](grad), (self.x, self.y)[side].shape) if self.needs[i] else None
            for i, side in enumerate(sides)
        )

    def go(self, name, x, y):
        return binary(self.device, name, x, y)


class Add(Binary):
    name = "add"

    def left(self, grad):
        return grad

    right = left


class Sub(Binary):
    name = "sub"

    def left(self, grad):
        return grad

    def right(self, grad):
        return unary(self.device, "neg", grad)


class Mul(Binary):
    name = "mul"

    def left(self, grad):
        return self.go("mul", grad, self.y)

    def right(self, grad):
        return self.go("mul", grad, self.x)


class Div(Binary):
    name = "div"

    def left(self, grad):
        return self.go("div", grad, self.y)

    def right(self, grad):
        return unary(self.device, "neg", self.go("div", self.go("mul", grad, self.out), self.y))


class Power(Binary):
    name = "power"

    def left(self, grad):
        # Where y is 0 so is the derivative, even at x = 0, where x^(y - 1) would be infinite.
        y = self.y if self.number is not None else Tensor(self.y, self.device)
        exponent = y - (y != 0)
        lower = self.go("power", self.x, exponent if self.number is not None else exponent.array)
        return self.go("mul", grad, self.go("mul", lower, self.y))

    def right(self, grad):
        # 0^y stays 0 as y changes: log 1 in place of log 0.
        if self.number is not None:
            log_x = float(np.log(self.x or 1)) if self.x >= 0 else np.nan
        else:
            x = Tensor(self.x, self.device)
            log_x = unary(self.device, "logarithm", (x + (x == 0)).array)
        return self.go("mul", grad, self.go("mul", self.out, log_x))


class Maximum(Binary):
    """The larger of two; where they are equal each gets half of the gradient."""

    name = "maximum"

    def _share(self, grad, x, y):
        first, tied = [
            Tensor(binary(self.device, "eq", self.out, side, dtype=np.dtype(np.bool_)), self.device).astype(grad.dtype)
            for side in (x, y)
        ]
        return self.go("mul", grad, (first / (1 + first * tied)).array)

    def left(self, grad):
        return self._share(grad, self.x, self.y)

    def right(self, grad):
        return self._share(grad, self.y, self.x)


class Minimum(Maximum):
    name = "minimum"


class AtLeast(Maximum):
    """x, but no less than a limit; where they are equal x gets the whole gradient, as in PyTorch's ``clamp``."""

    def left(self, grad):
        return self._where("eq", grad)

    def right(self, grad):
        return self._where("ne", grad)

    def _where(self, comparison, grad):
        """The gradient where the result compares so with x, elsewhere 0."""
        mask = Tensor(binary(self.device, comparison, self.out, self.x, dtype=np.dtype(np.bool_)), self.device)
        return self.go("mul", grad, mask.astype(grad.dtype).array)


class AtMost(AtLeast):
    """x, but no more than a limit."""

    name = "minimum"


def match(x, y, real=False):
    """Two operands of one element type; numbers stay numbers, NumPy arrays become tensors beside the other.

    The type is the wider one, as in NumPy; with ``real`` integers become float32.
    """
    first = x if isinstance(x, Tensor) else y
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.dtype == y.dtype and x.dtype.kind == "f":
        return [x, y]
    sides = []
    for side in (x, y):
        if isinstance(side, np.ndarray | list | tuple):
            side = tensor(side, dtype=np.float64 if first.dtype == np.float64 else None, device=first.device)
        elif not isinstance(side, Tensor | Real | np.bool_):
            raise DTypeError(f"cannot compute with a tensor and {type(side).__name__}: give numbers or arrays")
        sides.append(side)
    dtypes = [s.dtype for s in sides if isinstance(s, Tensor)]
    if any(isinstance(s, float | np.floating) for s in sides):
        dtypes.append(np.dtype(np.float32))
    dtype = (
        np.dtype(np.float64) if np.dtype(np.float64) in dtypes
        else np.dtype(np.float32) if real or np.dtype(np.float32) in dtypes
        else np.dtype(np.int32)
    )  # fmt: skip
    try:
        return [s.astype(dtype) if isinstance(s, Tensor) else dtype.type(s).item() for s in sides]
    except OverflowError:
        raise DTypeError(f"{x if first is y else y} does not fit int32: give a float") from None


def apply(function: type[Binary], x, y, real=False) -> Tensor:
    x, y = match(x, y, real)
    op = function()
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return op(x, y)
    op.flipped = not isinstance(x, Tensor)
    op.number, given = (x, y) if op.flipped else (y, x)
    return op(given)


@method("__add__", "__radd__", "add")
def add(x, y) -> Tensor:
    """x + y, element by element."""
    return apply(Add, x, y)


@method("__sub__", "sub")
def sub(x, y) -> Tensor:
    """x - y, element by element."""
    return apply(Sub, x, y)


@method("__mul__", "__rmul__", "mul")
def mul(x, y) -> Tensor:
    """x * y, element by element."""
    return apply(Mul, x, y)


@method("__truediv__", "div")
def div(x, y) -> Tensor:
    """x / y, element by element; integers give float32."""
    return apply(Div, x, y, real=True)


@method("__pow__", "pow")
def power(x, y) -> Tensor:
    """x to the power y, element by element; integers give float32, except that x**2 is x * x."""
    if isinstance(y, Real) and isinstance(x, Tensor) and y in (2, 0.5):
        return apply(Mul, x, x) if y == 2 else sqrt(x)
    return apply(Power, x, y, real=True)


@method("maximum")
def maximum(x, y) -> Tensor:
    """The larger of x and y, element by element."""
    return apply(Maximum, x, y)


@method("minimum")
def minimum(x, y) -> Tensor:
    """The smaller of x and y, element by element."""
    return apply(Minimum, x, y)


@method("clamp", "clip")
def clamp(x: Tensor, min=None, max=None) -> Tensor:
    """x limited to the range from ``min`` to ``max``; either may be left out. At a limit the derivative is 1."""
    x = x if min is None else apply(AtLeast, x, min)
    return x if max is None else apply(AtMost, x, max)


for _name, _function in (("__rsub__", sub), ("__rtruediv__", div), ("__rpow__", power)):
    setattr(Tensor, _name, lambda x, y, f=_function: f(y, x))


def _in_place(function):
    """``x -= y`` and its like for a leaf that requires a gradient: other tensors become new ones, as ``x = x - y``."""

    def change(x: Tensor, y) -> Tensor:
        if not (x.is_leaf and x.requires_grad):
            return NotImplemented
        if is_grad_enabled():
            raise GraphError(
                "a tensor that requires a gradient is changed in place only where nothing is recorded: "
                "with clnn.no_grad(): w -= lr * w.grad"
            )
        return x.copy_(function(x, y))

    return change


for _name, _function in (("__iadd__", add), ("__isub__", sub), ("__imul__", mul), ("__itruediv__", div)):
    setattr(Tensor, _name, _in_place(_function))


@method("add_")
def add_(x: Tensor, y: Tensor) -> Tensor:
    """Add y to x in place. Raises ShapeError or DTypeError unless both have one shape and type, and GraphError where it
    would have to be recorded, which it is not."""
    same_device(x, y)
    if is_grad_enabled() and (x.requires_grad or y.requires_grad):
        raise GraphError("add_ is not recorded, so gradients would miss it: write x + y, or use it within no_grad()")
    if x.shape != y.shape:
        raise ShapeError(f"add_ needs two equal shapes, got {x.shape} and {y.shape}")
    if x.dtype != y.dtype:
        raise DTypeError(f"add_ needs two equal types, got {x.dtype.name} and {y.dtype.name}")
    x.bounds = None
    binary(x.device, "add", x.array, y.array, out=x.array)
    return x


def _comparison(name):
    def compare(x, y) -> Tensor:
        x, y = match(x, y)
        device = same_device(*[s for s in (x, y) if isinstance(s, Tensor)])
        sides = [s.array if isinstance(s, Tensor) else s for s in (x, y)]
        return Tensor(binary(device, name, *sides, dtype=np.dtype(np.bool_)), device)

    return compare


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Tensor, f"__{_name}__", _comparison(_name))


def _masks(*masks) -> None:
    for mask in masks:
        if not isinstance(mask, Tensor) or mask.dtype != np.bool_:
            kind = mask.dtype.name if isinstance(mask, Tensor) else type(mask).__name__
            raise DTypeError(f"~, & and | combine bool tensors, got {kind}: compare first, as in x > 0")


@method("__invert__", "logical_not")
def logical_not(mask: Tensor) -> Tensor:
    """True where the mask is false."""
    _masks(mask)
    return mask == 0


@method("__and__", "logical_and")
def logical_and(a: Tensor, b: Tensor) -> Tensor:
    """True where both masks are."""
    _masks(a, b)
    return a * b != 0


@method("__or__", "logical_or")
def logical_or(a: Tensor, b: Tensor) -> Tensor:
    """True where either mask is."""
    _masks(a, b)
    return a + b != 0


class Unary(Function):
    """An operation on one tensor: ``kernel`` computes it, ``slope`` its derivative from x and the result y."""

    kernel = ""

    def forward(self, x):
        self.x, self.y = x, unary(self.device, self.kernel, x)
        return self.y

    def backward(self, grad):
        return (self.slope(grad),)

    def slope(self, grad):
        raise NotImplementedError


class Neg(Unary):
    kernel = "neg"

    def slope(self, grad):
        return unary(self.device, "neg", grad)


class Absolute(Unary):
    kernel = "absolute"

    def slope(self, grad):
        return binary(self.device, "mul", grad, unary(self.device, "signum", self.x))


class Exp(Unary):
    kernel = "exponential"

    def slope(self, grad):
        return binary(self.device, "mul", grad, self.y)


class Log(Unary):
    kernel = "logarithm"

    def slope(self, grad):
        return binary(self.device, "div", grad, self.x)


class Sqrt(Unary):
    kernel = "square_root"

    def slope(self, grad):
        return binary(self.device, "div", binary(self.device, "mul", grad, 0.5), self.y)


def as_real(x: Tensor) -> Tensor:
    """x as floating-point numbers."""
    return x if x.dtype.kind == "f" else x.astype(np.float32)


@method("__neg__", "neg")
def neg(x: Tensor) -> Tensor:
    """-x."""
    return Neg()(x if x.dtype != np.bool_ else x.astype(np.int32))


@method("__abs__", "abs")
def absolute(x: Tensor) -> Tensor:
    """The absolute value; its derivative at 0 is 0."""
    return Absolute()(x)


@method("exp")
def exp(x: Tensor) -> Tensor:
    """e to the power x."""
    return Exp()(as_real(x))


@method("log")
def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return Log()(as_real(x))


@method("sqrt")
def sqrt(x: Tensor) -> Tensor:
    """The square root."""
    return Sqrt()(as_real(x))


class Where(Function):
    """Elements of the first tensor where the mask is true, else of the second."""

    def forward(self, mask, x, y):
        self.mask = mask
        return self.choose(x, y)

    def backward(self, grad):
        zero = fill(empty(self.device, grad.shape, grad.dtype), 0)  # multiplying would turn inf into NaN
        return None, self.choose(grad, zero), self.choose(zero, grad)

    def choose(self, x, y):
        out = empty(self.device, x.shape, x.dtype)
        knl = elementwise_kernel(self.device, "choose", x.dtype)
        launch_each(self.device, knl, out.size, self.mask, x, y, out, out.size)
        return out


def where(mask: Tensor, x, y) -> Tensor:
    """x where the bool tensor ``mask`` is true, elsewhere y; all three are broadcast together."""
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        x = tensor(x, device=mask.device)
    x, y = match(x, y)
    dtype = x.dtype if isinstance(x, Tensor) else y.dtype
    sides = [s if isinstance(s, Tensor) else full((), s, dtype=dtype, device=mask.device) for s in (x, y)]
    shape = broadcast_shape(mask.shape, *[s.shape for s in sides])
    return Where()(*[t if t.shape == shape else t.broadcast_to(shape) for t in (mask.astype(np.bool_), *sides)])
