"""Tensors and the tape: what was computed from what, so that gradients can be traced back.

Every operation is a ``Function``: ``forward`` computes on arrays of the device, ``backward`` turns the gradient
of its result into the gradients of its inputs. A tensor remembers the function that made it, that function its
input tensors: this chain is the tape. ``Tensor.backward`` walks it from the result to the leaves
(reverse-mode differentiation; see Baydin et al., "Automatic differentiation in machine learning", 2018).
The operations stand in ``clnn.ops`` and attach themselves to ``Tensor`` as methods.
"""

import contextlib
import itertools
import operator

import numpy as np

from . import program
from .device import Device
from .device import device as get_device
from .errors import DeviceError, DTypeError, GraphError, ShapeError

DTYPES = tuple(np.dtype(t) for t in (np.float32, np.float64, np.int32, np.bool_))
_recording = True
_count = itertools.count()  # of all that is recorded


@contextlib.contextmanager
def no_grad():
    """Within this context operations are not recorded: results do not require gradients (as in PyTorch)."""
    global _recording
    former, _recording = _recording, False
    try:
        yield
    finally:
        _recording = former


def is_grad_enabled() -> bool:
    """Whether operations are recorded at the moment."""
    return _recording


class Tensor:
    """An array on an OpenCL device, with NumPy's shape rules and PyTorch's gradients.

    Attributes: ``array`` (the pyopencl array, C-contiguous), ``device``, ``requires_grad``, ``grad`` (a Tensor or
    None), ``shape``, ``dtype`` (float32, float64, int32 or bool), ``ndim``, ``size`` (number of elements).
    Make one with ``clnn.tensor``.
    """

    __slots__ = (
        "__weakref__",
        "_grad_slot",
        "_keep_grad",
        "array",
        "bounds",
        "device",
        "grad",
        "node",
        "requires_grad",
    )
    __array_ufunc__ = None  # lets Tensor's operators handle `numpy_array + tensor`
    __hash__ = object.__hash__  # == compares elements, so identity must be the key

    def __init__(self, array, device: Device, requires_grad: bool = False):
        self.array = array
        self.device = device
        self.requires_grad = requires_grad
        self.grad = None
        self.node = None  # the Function that computed it
        self.bounds = None  # (smallest, largest) of integers that came from the host, for checks without waiting
        self._grad_slot = None  # where an optimiser wants this parameter's gradient written
        self._keep_grad = False

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: len(self.array.shape))
    size = property(lambda self: self.array.size)
    nbytes = property(lambda self: self.array.nbytes)
    is_leaf = property(lambda self: self.node is None)

    def numpy(self) -> np.ndarray:
        """A copy on the host (waits for the device)."""
        return self.array.get()

    def __array__(self, dtype=None, copy=None):
        return self.numpy().astype(dtype or self.dtype, copy=False)

    def item(self):
        """The one element as a Python number (waits for the device). Raises ShapeError if there are more."""
        if self.size != 1:
            raise ShapeError(f"item() needs a tensor of one element, this one has shape {self.shape}")
        return self.numpy().reshape(()).item()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    def __format__(self, spec: str):
        return format(self.item(), spec) if spec else str(self)

    def __len__(self):
        if not self.shape:
            raise ShapeError("a tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(", precision=4)
        kind = "" if self.dtype == np.float32 else f", dtype={self.dtype.name}"
        return f"tensor({text}{kind}{', requires_grad=True' if self.requires_grad else ''})"

    def detach(self) -> "Tensor":
        """The same memory without its history."""
        bare = Tensor(self.array, self.device)
        bare.bounds = self.bounds
        return bare

    def copy_(self, values) -> "Tensor":
        """Overwrite the contents in place with an array or tensor of the same shape, or with one number.

        Raises ShapeError for another shape and DTypeError for a tensor of another type; nothing is written then.
        """
        if not isinstance(values, Tensor):
            same = np.full(self.shape, values) if np.ndim(values) == 0 else values
            values = tensor(same, dtype=self.dtype, device=self.device)
        if values.shape != self.shape:
            raise ShapeError(f"cannot copy a shape of {values.shape} into one of {self.shape}")
        if values.dtype != self.dtype:
            raise DTypeError(f"cannot copy {values.dtype.name} into {self.dtype.name}: convert with astype")
        program.copy_into(self.array, values.to(self.device).array)
        self.bounds = values.bounds
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Say whether ``backward`` shall collect this tensor's gradient."""
        if requires_grad and self.dtype.kind != "f":
            raise DTypeError(f"only floating-point tensors have gradients, this one is {self.dtype.name}")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this intermediate result, too, in ``grad``. Raises GraphError if it has none."""
        if not self.requires_grad:
            raise GraphError("retain_grad() of a tensor that depends on nothing with requires_grad=True")
        self._keep_grad = True

    def backward(self, gradient: "Tensor | None" = None, retain_graph: bool = False) -> None:
        """Add to ``grad`` of every leaf that requires it the derivative of this tensor by that leaf.

        ``gradient`` weighs the elements; it may be left out where there is one element only. The tape is used up and
        its memory given back, unless ``retain_graph`` keeps it for another backward(). Raises GraphError where there is
        no tape, or it was used up before, and ShapeError for a wrong gradient.
        """
        if not self.requires_grad:
            raise GraphError("backward() from a tensor that depends on nothing with requires_grad=True")
        if gradient is None and self.size != 1:
            raise ShapeError(
                f"backward() starts from one number, this tensor has shape {self.shape}: take its sum() or "
                "mean() first, or pass a gradient of its shape"
            )
        with no_grad():
            if gradient is None:
                if self.node is not None and self.node.starts and not (retain_graph or self._keep_grad):
                    return _walk_back(self, None, False)
                gradient = full(self.shape, 1, dtype=self.dtype, device=self.device)
            same_device(self, gradient)
            if gradient.shape != self.shape:
                raise ShapeError(f"the gradient has shape {gradient.shape}, the tensor {self.shape}")
            if gradient.dtype != self.dtype:
                raise DTypeError(f"the gradient is {gradient.dtype.name}, the tensor {self.dtype.name}")
            _walk_back(self, gradient.array, retain_graph)

    def _receive(self, array) -> None:
        """Add an arriving gradient to ``grad``; in the optimiser's slot where there is one."""
        slot, part = self._grad_slot, Tensor(array, self.device)
        if self.grad is None:
            if slot is not None and array is not slot:
                program.copy_into(slot, array)
            self.grad = part if slot is None else Tensor(slot, self.device)
        elif self.grad.array is slot:
            self.grad.add_(part)
        else:
            self.grad = self.grad + part  # out of place: the same array may have been handed to another tensor, too


def method(*names: str):
    """Attach a function to Tensor under these names: how ``clnn.ops`` gives tensors their operations."""

    def attach(function):
        for name in names:
            setattr(Tensor, name, function)
        return function

    return attach


def same_device(*tensors: Tensor) -> Device:
    """The device on which all of them lie. Raises DeviceError if there are two, DTypeError for what is no Tensor."""
    device = None
    for t in tensors:
        if not isinstance(t, Tensor):
            raise DTypeError(f"a Tensor was expected, got {type(t).__name__}: make one with clnn.tensor()")
        device = device or t.device
        if t.device is not device:
            raise DeviceError(
                f"the tensors lie on different devices, {device.name} and {t.device.name}: move one with to()"
            )
    return device


class Function:
    """One operation, recorded on the tape.

    A subclass defines ``forward(*arrays)``, which returns the result's array, and ``backward(grad)``, which
    returns a gradient for each input (None where there is none). Both may use ``self.device`` and keep what they
    need as attributes; ``self.needs[i]`` says whether input i wants a gradient. Calling the object with Tensors
    runs it. Where a class says ``starts``, its backward takes None for a gradient of one: a loss knows by then what
    that makes of its input's, and nothing need be launched. What it returns is then given away.
    """

    starts = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.device = same_device(*inputs)
        self.inputs = inputs
        self.needs = [t.requires_grad for t in inputs] if _recording else [False] * len(inputs)
        output = Tensor(self.forward(*[t.array for t in inputs]), self.device)  # forward may have changed the device
        if True in self.needs:
            output.requires_grad = True
            output.node, self.recorded = self, next(_count)
        return output

    def forward(self, *arrays):
        raise NotImplementedError

    def backward(self, grad):
        raise NotImplementedError

    def grad_array(self, i: int):
        """Where to write the gradient of input i: an optimiser's slot if it waits empty, else a new array."""
        t = self.inputs[i]
        if t._grad_slot is not None and t.grad is None and t.node is None:
            if [other is t for other in self.inputs].count(True) == 1:  # else the second would overwrite the first
                return t._grad_slot
        return program.empty(self.device, t.shape, t.dtype)


def _walk_back(root: Tensor, gradient, retain_graph: bool) -> None:
    """Send the gradient from the root along the tape, each function once, the last recorded first: what was asked of
    several devices in turn goes back in turn, so that none waits while another works through all of its part."""
    waiting = {id(root): gradient}
    order = tape_behind(root)
    while order:  # popped, so that each result's memory goes back as soon as it is done with
        t = order.pop()
        if id(t) not in waiting:
            continue
        grad, node = waiting.pop(id(t)), t.node
        if node is None or t._keep_grad:
            t._receive(grad)
        if node is None:
            continue
        for source, part in zip(node.inputs, node.backward(grad), strict=True):
            if part is None or not source.requires_grad:
                continue
            if source.node is None:
                source._receive(part)  # at once, so that a parameter used twice finds its slot taken
            elif (former := waiting.get(id(source))) is None:
                waiting[id(source)] = part
            else:
                waiting[id(source)] = (Tensor(former, source.device) + Tensor(part, source.device)).array
        if not retain_graph:
            node.__dict__.clear()  # frees what forward kept


def tape_behind(root: Tensor) -> list[Tensor]:
    """The tensors on the tape behind ``root`` that require gradients, in the order of their making, leaves first."""
    found, seen = [root], {id(root)}
    for t in found:  # which grows meanwhile
        if t.node is None:
            continue
        if "inputs" not in t.node.__dict__:
            raise GraphError(
                "the tape was used up by an earlier backward(): compute the result anew, or keep the tape "
                "there with backward(retain_graph=True)"
            )
        for source in t.node.inputs:
            if source.requires_grad and id(source) not in seen:
                seen.add(id(source))
                found.append(source)
    return sorted(found, key=lambda t: -1 if t.node is None else t.node.recorded)


_generator = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Set the seed of the random numbers behind ``randn``, ``rand``, initialisation and dropout."""
    global _generator
    _generator = np.random.default_rng(seed)


def generator() -> np.random.Generator:
    """The generator that ``manual_seed`` sets. It runs on the host, so every device gets the same numbers."""
    return _generator


def tensor(data, dtype=None, requires_grad: bool = False, device=None) -> Tensor:
    """A Tensor from numbers, nested lists, a NumPy array or a Tensor, copied to the device.

    Floating-point data become float32 unless ``dtype`` says float64, integers int32, booleans bool.
    Raises DTypeError for other types, for integers beyond int32 and for float64 on a device without it, and
    ShapeError for ragged or empty data.
    """
    target = get_device(device)
    host = _host_array(data, dtype, target)
    result = Tensor(program.upload(target, host), target)
    if host.dtype == np.int32:
        result.bounds = (int(host.min()), int(host.max()))
    return result.requires_grad_() if requires_grad else result


def element_type(dtype, device: Device) -> np.dtype:
    """The NumPy type that ``dtype`` names. Raises DTypeError if tensors on this device cannot have it."""
    dtype = np.dtype(dtype)
    if dtype not in DTYPES:
        raise DTypeError(f"a tensor cannot hold {dtype}: it holds numbers as float32, float64, int32 or bool")
    if dtype == np.float64 and not device.fp64:
        raise DTypeError(f"{device.name} does not compute in float64: use float32")
    return dtype


def _host_array(data, dtype, device) -> np.ndarray:
    try:
        host = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"the rows of a tensor must have equal lengths ({error})") from None
    kinds = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.bool_}
    if host.dtype.kind not in kinds:
        raise DTypeError(f"a tensor holds numbers or booleans, the data are {host.dtype}")
    dtype = element_type(kinds[host.dtype.kind] if dtype is None else dtype, device)
    if host.size == 0:
        raise ShapeError(f"a tensor needs at least one element, the data have shape {host.shape}: is a batch empty?")
    if dtype == np.int32 and not (host.min() >= -(2**31) and host.max() < 2**31):  # so put, NaN fails, too
        raise DTypeError(f"numbers from {host.min()} to {host.max()} do not fit int32")
    return host.astype(dtype, copy=True)  # a copy: the caller may change its array before it is uploaded


def full(size, fill_value, *, dtype=np.float32, requires_grad: bool = False, device=None) -> Tensor:
    """A tensor of the given size, every element ``fill_value``. Raises ShapeError and DTypeError as ``tensor`` does."""
    target = get_device(device)
    shape, kind = _shape((size,)), element_type(dtype, target)
    try:
        value = np.asarray(fill_value, kind)
    except (OverflowError, TypeError, ValueError):
        raise DTypeError(f"fill_value {fill_value!r} is no number that {kind} holds") from None
    if value.ndim:
        raise ShapeError(f"fill_value is one number, got an array of shape {value.shape}")
    result = Tensor(program.fill(program.empty(target, shape, kind), value), target)
    return result.requires_grad_() if requires_grad else result


def zeros(*size, **options) -> Tensor:
    """A tensor of zeros: ``zeros(2, 3)`` or ``zeros((2, 3))``; options as for ``full``."""
    return full(_shape(size), 0, **options)


def ones(*size, **options) -> Tensor:
    """A tensor of ones: ``ones(2, 3)`` or ``ones((2, 3))``; options as for ``full``."""
    return full(_shape(size), 1, **options)


def zeros_like(other: Tensor) -> Tensor:
    """Zeros with the shape, type and device of another tensor."""
    return full(other.shape, 0, dtype=other.dtype, device=other.device)


def ones_like(other: Tensor) -> Tensor:
    """Ones with the shape, type and device of another tensor."""
    return full(other.shape, 1, dtype=other.dtype, device=other.device)


def randn(*size, seed: int | None = None, dtype=np.float32, requires_grad: bool = False, device=None) -> Tensor:
    """Random numbers of the normal distribution, mean 0 and variance 1; the same for the same ``seed``."""
    rng = _generator if seed is None else np.random.default_rng(seed)
    return tensor(rng.standard_normal(_shape(size)), dtype, requires_grad, device)


def rand(*size, seed: int | None = None, dtype=np.float32, requires_grad: bool = False, device=None) -> Tensor:
    """Random numbers, uniform in [0, 1); the same for the same ``seed``."""
    rng = _generator if seed is None else np.random.default_rng(seed)
    return tensor(rng.random(_shape(size), dtype=np.float32), dtype, requires_grad, device)


def arange(*bounds, dtype=None, device=None) -> Tensor:
    """The numbers ``arange(stop)``, ``arange(start, stop)`` or ``arange(start, stop, step)``."""
    return tensor(np.arange(*bounds), dtype, device=device)


def _shape(size) -> tuple[int, ...]:
    """A shape from ``2, 3`` or ``(2, 3)``."""
    shape = sizes_of(size)
    if any(n < 1 for n in shape):
        raise ShapeError(f"a tensor needs at least one element along each dimension, not {shape}")
    return shape


def sizes_of(size) -> tuple[int, ...]:
    """The integers of ``2, 3`` or ``(2, 3)``. Raises ShapeError for other numbers."""
    sizes = size[0] if len(size) == 1 and isinstance(size[0], tuple | list) else size
    try:
        return tuple(operator.index(n) for n in sizes)
    except TypeError:
        raise ShapeError(f"a shape consists of integers, got {tuple(sizes)}: divide sizes with //") from None
