"""Kernels of a notebook's cell: OpenCL C, called like a function on Tensors and NumPy arrays.

``Cell(text)`` compiles; ``Cell(text).kernels["add"](a, b, out, n, size=n, local=64)`` runs. The magic ``%%kernel``
does the first and puts the kernels into the notebook under their names.
"""

import contextlib
import math
import os
import re
import time
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real

import numpy as np
import pyopencl as cl

from .. import program
from ..ceilings import ceilings
from ..device import Device
from ..device import device as get_device
from ..errors import DeviceError, DTypeError, KernelCompileError, ShapeError
from ..profiler import profile
from ..tensor import Tensor

SPACES = {
    cl.kernel_arg_address_qualifier.GLOBAL: "global",
    cl.kernel_arg_address_qualifier.CONSTANT: "constant",
    cl.kernel_arg_address_qualifier.LOCAL: "local",
    cl.kernel_arg_address_qualifier.PRIVATE: "",
}
NUMBERS = ("char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "float", "double")
GROUPS = {1: (64,), 2: (16, 16), 3: (8, 8, 4)}  # work-groups where none are asked for
MOST = 2**31 - 1  # work-items along a dimension: kernels count them with an int
TIMED = 0.2  # seconds spent on a timing
NO_KERNEL = "the cell holds no kernel: a function that begins with `__kernel void`"


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel: its ``name``; its ``type``, or that of the elements it points to; the ``space`` it
    points into ("global", "constant" or "local"; "" for a number); whether it is ``const``."""

    name: str
    type: str
    space: str = ""
    const: bool = False

    def __str__(self):
        if not self.space:
            return f"{self.type} {self.name}"
        return f"__{self.space} {'const ' * self.const}{self.type} *{self.name}"

    @property
    def dtype(self) -> np.dtype:
        """The NumPy type of a number, or of the numbers in one element: float for float4."""
        base = self.type.rstrip("0123456789")
        if base not in NUMBERS:
            raise DTypeError(f"arguments of type {self.type} are not supported: use {', '.join(NUMBERS)}")
        return np.dtype(getattr(cl.cltypes, base))

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        width = int(re.search(r"\d*$", self.type)[0] or 1)
        return self.dtype.itemsize * (4 if width == 3 else width)

    @property
    def written(self) -> bool:
        """Whether the kernel may write to it and others can see that."""
        return self.space == "global" and not self.const

    def number(self, value) -> np.generic:
        """A number in the argument's type. Raises DTypeError with the end of a sentence."""
        if isinstance(value, Tensor | np.ndarray | bool) or not isinstance(value, Real):
            raise DTypeError(f"takes one number ({self.type}), got {_kind(value)}")
        if self.type not in NUMBERS:
            raise DTypeError(f"takes a vector ({self.type}), which cannot be given: take a pointer to one")
        if self.dtype.kind == "f":
            return self.dtype.type(value)
        if not isinstance(value, Integral):
            raise DTypeError(f"takes a whole number ({self.type}), got {value!r}: use int()")
        limits = np.iinfo(self.dtype)
        if not limits.min <= value <= limits.max:
            raise DTypeError(f"takes {self.type}, {limits.min} to {limits.max}, got {value}")
        return self.dtype.type(value)

    @staticmethod
    def parse(text: str) -> "Argument":
        """The argument that stands as ``__global const float *x`` in a kernel's head."""
        found = re.fullmatch(
            r"\s*(?:_*(global|constant|local)\s+)?(const\s+)?(\w+)(?:\s*(\*)\s*(?:restrict\s+)?|\s+)(\w+)\s*", text
        )
        if not found or bool(found[1]) != bool(found[4]):
            raise DTypeError(f"not an argument of a kernel: {text!r}")
        return Argument(found[5], found[3], found[1] or "", bool(found[2]) or found[1] == "constant")


def arguments_of(knl: cl.Kernel) -> tuple[Argument, ...]:
    """The arguments of a compiled kernel."""
    info, const = cl.kernel_arg_info, cl.kernel_arg_type_qualifier.CONST

    def one(i):
        name, kind, space, qualifiers = (
            knl.get_arg_info(i, what)
            for what in (info.NAME, info.TYPE_NAME, info.ADDRESS_QUALIFIER, info.TYPE_QUALIFIER)
        )
        space = SPACES[space]
        return Argument(name, kind.rstrip("*"), space, space == "constant" or bool(space and qualifiers & const))

    return tuple(one(i) for i in range(knl.num_args))


class Cell:
    """OpenCL C, compiled for the device in use, and for any other when it is first used there.

    Attributes: ``text``, ``options`` (of the compiler), ``kernels`` (Kernel by name, in the order of the text).
    Raises KernelCompileError with the lines of the text.
    """

    def __init__(self, text: str, options: tuple[str, ...] = ()):
        self.text, self.options, self._built = text, tuple(options), {}
        built = self.on(get_device())
        # In the order of the text; behind them those whose names a macro puts together.
        names = [n for n in re.findall(r"\b\w+\b", without_comments(text)) if n in built]
        self.kernels = {name: Kernel(self, name) for name in dict.fromkeys([*names, *built])}

    def on(self, device: Device) -> dict[str, cl.Kernel]:
        """The kernels compiled for a device, by name."""
        if device not in self._built:
            if not re.search(r"\b(?:__)?kernel\b", without_comments(self.text)):
                raise KernelCompileError(NO_KERNEL)
            with _quiet():
                built = program.build(device, self.text, self.options, title="the cell").all_kernels()
            if not built:
                raise KernelCompileError(NO_KERNEL)
            for k in built:
                if k.function_name.startswith("_cl_"):  # what PoCL makes of the names of OpenCL's functions
                    name = k.function_name.removeprefix("_cl_")
                    raise KernelCompileError(f"OpenCL C has a function {name}() of its own: rename the kernel")
            self._built[device] = {k.function_name: _prepared(k) for k in built}
        return self._built[device]


def without_comments(text: str) -> str:
    """OpenCL C without what is said about it."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


@contextlib.contextmanager
def _quiet():
    """Drop what a compiler writes straight to the process's standard error, such as "1 warning generated."."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _prepared(knl: cl.Kernel) -> cl.Kernel:
    knl.set_scalar_arg_dtypes([None if a.space else a.dtype for a in arguments_of(knl)])
    knl.family = "cell"  # its family in a profile
    return knl


class Kernel:
    """One kernel of a cell. Call it with its arguments in order and the number of work-items:
    ``add(a, b, out, n, size=n, local=64)``.

    A pointer takes a Tensor of the element type, or a NumPy array, which is copied to the device and, unless the
    kernel takes it as ``const``, back into the same array; a ``__local`` pointer takes its number of elements.
    ``size`` is a number or, in two and three dimensions, a tuple, and is rounded up to whole work-groups, so the
    kernel guards its bounds; ``local`` is the size of a work-group. Attributes: ``name``, ``cell``, ``arguments``.
    """

    def __init__(self, cell: Cell, name: str):
        self.cell, self.name, self.last = cell, name, None
        knl = cell.on(get_device())[name]
        self.arguments = arguments_of(knl)
        where = knl.get_info(cl.kernel_info.CONTEXT).devices[0]
        fixed = knl.get_work_group_info(cl.kernel_work_group_info.COMPILE_WORK_GROUP_SIZE, where)
        self.group = tuple(fixed) if any(fixed) else None  # what __attribute__((reqd_work_group_size(...))) asks for

    def __repr__(self):
        return f"{self.name}({', '.join(map(str, self.arguments))})"

    @property
    def types(self) -> list[tuple[str, str]]:
        """Type and address space of each argument: what two kernels share that are called alike."""
        return [(a.type, a.space) for a in self.arguments]

    def on(self, device: Device) -> cl.Kernel:
        """The kernel compiled for a device."""
        return self.cell.on(device)[self.name]

    def __call__(self, *arguments, size=None, local=None) -> None:
        device, given, back = self._take(arguments)
        size, local = self.geometry(device, size, local)
        program.launch(device, self.on(device), size, local, *given)
        self.last = arguments, size, local
        for host, array in back:
            host[...] = array.get().reshape(host.shape)

    def time(self, *arguments, size=None, local=None, flops=None, nbytes=None) -> "Timing":
        """The device's seconds for one launch: the fastest of those that fit into a fifth of a second.

        ``flops`` is the number of arithmetic operations of the work, ``nbytes`` what must be read and written
        (left out, each array once). NumPy arrays are copied once before and keep what they hold. Raises DeviceError on
        a simulator.
        """
        device, given, _ = self._take(arguments)
        if device.kind == "simulator":
            raise DeviceError(f"{device.name} is a simulator: its time says nothing about the kernel")
        size, local = self.geometry(device, size, local)
        if nbytes is None:
            nbytes = sum(a.nbytes for a in given if isinstance(a, program.Array))
        knl = self.on(device)
        seconds = fastest(device, lambda: program.launch(device, knl, size, local, *given))
        return Timing(self.name, device, seconds, nbytes, flops)

    def geometry(self, device: Device, size, local=None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Size and work-group as tuples. Raises ShapeError where the device or the kernel cannot have them."""
        if size is None:
            raise ShapeError(f"say how many work-items shall run: {self.name}(..., size=1000), or size=(columns, rows)")
        size = _sizes("size", size)
        group = self.group and self.group[: len(size)]
        local = _sizes("local", local) if local is not None else group or GROUPS[len(size)]
        if len(local) != len(size):
            raise ShapeError(f"{self.name}: size {size} and local {local} must have the same number of dimensions")
        if group and local != group:
            raise ShapeError(f"{self.name} is written for work-groups of {group}, got local={local}")
        knl = self.on(device)
        most = knl.get_work_group_info(cl.kernel_work_group_info.WORK_GROUP_SIZE, device.cl_device)
        if math.prod(local) > most:
            raise ShapeError(f"local={local} makes {math.prod(local)} work-items a group; {device.name} takes {most}")
        return size, local

    def _take(self, values):
        """The device, what to launch the kernel with, and the pairs of host and device arrays to copy back."""
        if len(values) != len(self.arguments):
            raise DTypeError(f"{self!r} takes {len(self.arguments)} arguments and size=, got {len(values)} arguments")
        device = next((v.device for v in values if isinstance(v, Tensor)), None) or get_device()
        given, back = [], []
        for argument, value in zip(self.arguments, values, strict=True):
            try:
                taken = _taken(device, argument, value)
            except (DTypeError, ShapeError, DeviceError) as error:
                raise type(error)(f"{self!r}: `{argument.name}` {error}") from None
            if isinstance(value, np.ndarray) and argument.written:
                back.append((value, taken))
            given.append(taken)
        for argument, value in zip(self.arguments, values, strict=True):
            if isinstance(value, Tensor) and argument.written:
                value.bounds = None  # what was known of its values holds no more
        return device, given, back


def _taken(device: Device, argument: Argument, value):
    """A value as a launch takes it. Raises DTypeError, ShapeError or DeviceError with the end of a sentence."""
    if not argument.space:
        return argument.number(value)
    if argument.space == "local":
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise DTypeError(f"points to local memory: give its number of elements, not {_kind(value)}")
        return cl.LocalMemory(int(value) * argument.itemsize)
    if isinstance(value, Tensor):
        if value.device is not device:
            raise DeviceError(f"lies on {value.device.name}, another argument on {device.name}: move one with to()")
        if value.array.dtype != argument.dtype and not (value.dtype == np.bool_ and argument.dtype.itemsize == 1):
            raise DTypeError(f"takes {argument.type} elements, got a Tensor of {value.dtype.name}: use astype()")
        return value.array
    if not isinstance(value, np.ndarray):
        raise DTypeError(f"takes a Tensor or a NumPy array, got {_kind(value)}")
    if not value.size:
        raise ShapeError("takes an array with at least one element, got an empty one")
    if value.dtype.kind not in "biuf" or (value.dtype.kind == "f") != (argument.dtype.kind == "f"):
        raise DTypeError(f"takes {argument.type} elements, got a NumPy array of {value.dtype}: use astype()")
    if value.dtype.kind in "iu" and not argument.written and not np.can_cast(value.dtype, argument.dtype):
        for number in (value.min(), value.max()):
            argument.number(number)  # which tells what the type can hold
    if argument.written and not value.flags.writeable:
        raise DTypeError("is written to by the kernel, but the NumPy array is read-only: give a copy()")
    return program.upload(device, value.astype(argument.dtype))  # a copy: the caller may change it meanwhile


def _kind(value) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{'a Tensor' if isinstance(value, Tensor) else 'a NumPy array'} of {value.dtype}"
    return f"{type(value).__name__} {value!r:.40}"


def _sizes(what: str, value) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not 1 <= len(sizes) <= 3 or not all(isinstance(n, Integral) and 1 <= n <= MOST for n in sizes):
        raise ShapeError(f"{what} must be one to three whole numbers from 1 to {MOST} (the largest int), got {value!r}")
    return tuple(int(n) for n in sizes)


def fastest(device: Device, run) -> float:
    """The device's seconds for the fastest of several runs of one launch each, after two that warm it up."""
    for _ in range(2):
        run()
        device.synchronize()
    end = time.perf_counter() + TIMED
    with profile() as p:
        while True:
            for _ in range(3):
                run()
            device.synchronize()
            if time.perf_counter() > end:
                break
    return min(launch.seconds for launch in p.launches)


@dataclass(frozen=True)
class Timing:
    """How long a launch took, and that in relation to the device's measured ceilings (see ``clnn.ceilings``).

    Attributes: ``name``, ``device``, ``seconds``, ``nbytes``, ``flops`` (None where nobody said), ``gbps``,
    ``gflops`` (None without flops), ``share`` (of what the roofline allows this kernel).
    """

    name: str
    device: Device
    seconds: float
    nbytes: int
    flops: int | None = None

    @property
    def gbps(self) -> float:
        return self.nbytes / self.seconds / 1e9

    @property
    def gflops(self) -> float | None:
        return None if self.flops is None else self.flops / self.seconds / 1e9

    @cached_property
    def ceilings(self):
        return ceilings(self.device)

    @property
    def share(self) -> float:
        """Of the shortest time that the ceilings of memory and arithmetic allow, 0 to 1; above 1 where the arrays fit
        into the caches."""
        shares = [self.gbps / self.ceilings.gbps, (self.gflops or 0) / self.ceilings.gflops]
        return max(shares)

    def __repr__(self):
        parts = [
            f"{self.gbps:,.1f} GB/s ({self.gbps / self.ceilings.gbps:.0%} of the memory's {self.ceilings.gbps:,.1f})"
        ]
        if self.gflops is not None:
            share, most = self.gflops / self.ceilings.gflops, self.ceilings.gflops
            parts.append(f"{self.gflops:,.1f} GFLOP/s ({share:.1%} of the arithmetic's {most:,.0f})")
        return f"{self.name}: {_time(self.seconds)}; {'; '.join(parts)}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms" if seconds > 1e-3 else f"{seconds * 1e6:,.1f} us"
