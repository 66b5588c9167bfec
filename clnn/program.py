"""Builds OpenCL programs and launches kernels: the only place that does.

A kernel is named by its family (the file ``clnn/kernels/FAMILY.cl``), its own name, and the macros that its
file is compiled with. Each is compiled once per device and kept.
"""

import math
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from importlib import resources

import numpy as np
import pyopencl as cl
import pyopencl.array

from .device import Device
from .errors import KernelCompileError, ShapeError

FLOAT32 = np.dtype(np.float32)
SCALARS = {
    "uchar": np.uint8, "int": np.int32, "uint": np.uint32, "long": np.int64, "ulong": np.uint64,
    "float": np.float32, "double": np.float64, "int8": cl.cltypes.int8,
}  # fmt: skip
C_NAMES = {np.dtype(t): name for t, name in zip("fdi?", ("float", "double", "int", "uchar"), strict=True)}

Array = cl.array.Array
RUN = 1024  # elements that a CPU's work-item computes one after the other: see each.h
MOST_UPLOADS = 32  # copies to the device that may be under way
MOST_ELEMENTS = 2**31 - 1  # of an array: kernels count them in int


@lru_cache(maxsize=8192)
def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a C-contiguous array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


@lru_cache(maxsize=8192)
def _layout(shape: tuple[int, ...], dtype) -> tuple[int, tuple[int, ...]]:
    """The number of elements, and the strides in bytes. Raises ShapeError for more than kernels can count."""
    size = math.prod(shape)
    if size > MOST_ELEMENTS:
        raise ShapeError(
            f"an array of shape {shape} has more than {MOST_ELEMENTS:,} elements: use a smaller batch or net"
        )
    return size, tuple(s * dtype.itemsize for s in strides_of(shape))


def wrap(owner, buffer, shape: tuple[int, ...], dtype) -> cl.array.Array:
    """The pyopencl array of a buffer on the owner's queue (a Device or an array), C-contiguous from offset 0."""
    size, strides = _layout(shape, dtype)
    # The general constructor looks at everything again, which takes longer than a small kernel runs.
    return Array(
        None, shape, dtype, data=buffer, strides=strides,
        _fast=True, _size=size, _context=owner.context, _queue=owner.queue,
    )  # fmt: skip


def empty(device: Device, shape: tuple[int, ...], dtype=FLOAT32) -> cl.array.Array:
    """An array of the device's pool, C-contiguous from offset 0, its contents undefined.

    Raises DeviceMemoryError where it does not fit, ShapeError where its elements are more than kernels can count.
    """
    dtype = np.dtype(dtype)
    size, _ = _layout(shape, dtype)
    return wrap(device, device.allocate(size * dtype.itemsize), shape, dtype)


def c_name(dtype) -> str:
    """The OpenCL C name of an element type that clnn's tensors have."""
    return C_NAMES[np.dtype(dtype)]


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below n."""
    return -(-n // multiple) * multiple


@cache
def source(family: str) -> str:
    """The OpenCL C text of ``clnn/kernels/FAMILY.cl``."""
    return (resources.files("clnn.kernels") / f"{family}.cl").read_text(encoding="utf-8")


def build(device: Device, text: str, options: tuple[str, ...] = (), title: str = "kernel") -> cl.Program:
    """Compile OpenCL C for one device.

    Raises KernelCompileError with the compiler's words and the source line they speak of.
    """
    options = ("-cl-std=CL1.2", "-cl-kernel-arg-info", *device.build_options, *options)
    whole = _with_headers(text)
    with warnings.catch_warnings():
        # Some implementations write a log for every build; it matters only when the build fails.
        warnings.simplefilter("ignore", cl.CompilerWarning)
        try:
            program = cl.Program(device.context, whole).build(options=list(options))
            if not _knows_arguments(program):  # Intel's CPU runtime, when the binary came from pyopencl's cache
                program = cl.Program(device.context, whole).build(options=list(options), cache_dir=False)
            return program
        except cl.RuntimeError as error:
            raise KernelCompileError(_explain(device, text, str(error), title)) from None


def _with_headers(text: str) -> str:
    """The text with clnn's own headers written into it; ``#line`` keeps the numbers of its lines as they were."""

    def header(found):
        file = resources.files("clnn.kernels") / found[1]
        following = text.count("\n", 0, found.start()) + 2
        return f"{file.read_text(encoding='utf-8')}\n#line {following}" if file.is_file() else found[0]

    return re.sub(r'^#include "(\w+\.h)".*$', header, text, flags=re.MULTILINE)


def _knows_arguments(program: cl.Program) -> bool:
    taking = [each for each in program.all_kernels() if each.num_args]  # there may be none
    try:
        for each in taking[:1]:
            each.get_arg_info(0, cl.kernel_arg_info.TYPE_NAME)
    except cl.RuntimeError:
        return False
    return True


def _explain(device: Device, text: str, log: str, title: str) -> str:
    """The compiler's complaint with the line of source it points at, marked with a caret."""
    lines = text.splitlines()
    complaints = []
    for entry in log.splitlines():
        # Some compilers write "error: FILE:ROW:COLUMN: words", others "FILE:ROW:COLUMN: error: words".
        found = re.search(r":(\d+):(\d+): (?:(?:fatal )?error: )?(.+)", entry) if "error" in entry else None
        if found and 1 <= (row := int(found[1])) <= len(lines):
            caret = re.sub(r"[^\t]", " ", lines[row - 1][: int(found[2]) - 1]) + "^"
            complaints.append(f"line {row}: {found[3]}\n    {lines[row - 1]}\n    {caret}")
    complaints = list(dict.fromkeys(complaints))
    words = "\n".join(complaints[:3]) or log.strip()
    if len(complaints) > 3:
        words += f"\nand {len(complaints) - 3} more"
    advice = ""
    if "unknown target CPU" in log:
        advice = (
            "\nThis PoCL does not know this processor. Use another implementation: "
            "`pip install intel-opencl-rt` (a CPU device), or a GPU's driver."
        )
    return f"{title} does not compile on {device.name}:\n{words}{advice}"


@dataclass(frozen=True)
class Replacement:
    """A kernel in place of one of the package's: ``kernel(device)`` compiles it. One for matrix products has also
    ``size(m, n, k)``, the number of work-items, and the work-group ``local``."""

    kernel: Callable
    size: Callable | None = None
    local: tuple[int, ...] = ()


# (family, name): what stands there at the moment (see clnn.lab.install). While there is any, no activation is fused
# into another launch, so that none is passed by. Replacements compute in float32; other types keep the package's.
replacements: dict[tuple[str, str], Replacement] = {}


def kernel(device: Device, family: str, name: str, **defines) -> cl.Kernel:
    """The kernel ``name`` of ``clnn/kernels/FAMILY.cl``, compiled with ``-DKEY=VALUE`` for each define."""
    if replacements and (family, name) in replacements and defines["REAL"] == "float":
        return replacements[family, name].kernel(device)
    key = (family, name, *defines.items())
    found = device.kernels.get(key)
    if found is None:
        text = source(family)
        options = tuple(f"-D{k}={v}" for k, v in defines.items())
        program = build(device, text, options, title=f"clnn/kernels/{family}.cl")
        for each in program.all_kernels():
            declare_scalars(each)
            each.family, each.run = family, defines.get("RUN", 1)
            device.kernels[(family, each.function_name, *defines.items())] = each
        found = device.kernels.get(key)
        if found is None:
            raise KernelCompileError(f"clnn/kernels/{family}.cl holds no kernel named {name!r}")
    return found


def finder(family: str):
    """A decorator: of a function that gives the macros of a family for ``(device, *key)`` it makes one that finds the
    family's kernels, ``find(device, name, *key)``, and remembers them: a small net asks more often than it computes."""

    def decorate(defines):
        def find(device: Device, name: str, *key) -> cl.Kernel:
            if replacements:
                return kernel(device, family, name, **defines(device, *key))
            place = (family, name, device.kind, device.vector_bytes, *key)
            found = device.found.get(place)
            if found is None:
                found = device.found[place] = kernel(device, family, name, **defines(device, *key))
            return found

        return wraps(defines)(find)

    return decorate


def run_of(device: Device) -> dict:
    """The constant for a kernel that includes each.h."""
    return {"RUN": RUN if device.kind == "CPU" else 1}


def declare_scalars(knl: cl.Kernel) -> None:
    """Tell pyopencl once which arguments are numbers and of what type, so that a launch is cheap."""
    info = cl.kernel_arg_info
    knl.set_scalar_arg_dtypes(
        [None if (t := knl.get_arg_info(i, info.TYPE_NAME)).endswith("*") else SCALARS[t] for i in range(knl.num_args)]
    )


@lru_cache(maxsize=8192)
def _whole(size: tuple[int, ...], local: tuple[int, ...]) -> tuple[int, ...]:
    """The size rounded up to whole groups."""
    return tuple(round_up(s, g) for s, g in zip(size, local, strict=True))


# What an open profile is told of each command: recorder(event, Device, kernel or name, global size, local size, flops,
# bytes). None where no profile is open.
recorder = None


def launch(
    device: Device, knl: cl.Kernel, size: tuple[int, ...], local: tuple[int, ...], *args, flops=None, nbytes=None
) -> None:
    """Enqueue a kernel over at least ``size`` work-items in groups of ``local``, without waiting for it.

    Sizes are rounded up to whole groups, so kernels guard their bounds. Arrays among the arguments are
    passed as their buffers. For profiles, ``flops`` says how many arithmetic operations the work takes (a function
    such as exp counts as one), ``nbytes`` how many bytes must be read and written; left out, each array once.
    """
    size = _whole(size, local)
    event = knl(device.queue, size, local, *[a.base_data if type(a) is Array else a for a in args])
    if recorder is not None:
        if nbytes is None:
            nbytes = sum(a.nbytes for a in args if isinstance(a, cl.array.Array))
        recorder(event, device, knl, size, local, flops, nbytes)


def launch_each(device: Device, knl: cl.Kernel, n: int, *args, **work) -> None:
    """``launch`` a kernel for ``n`` elements: by RUN for each work-item where it was compiled so, else one by one."""
    run = getattr(knl, "run", 1)  # a kernel that stands in for the package's has none
    launch(device, knl, (-(-n // run),), (256,) if run == 1 else (1,), *args, **work)


def upload(device: Device, host: np.ndarray) -> cl.array.Array:
    """Copy a NumPy array to the device without waiting for it; the host copy is kept until it has arrived."""
    host = np.asarray(host, order="C")  # not ascontiguousarray, which would make a number an array of one
    array = empty(device, host.shape, host.dtype)
    event = cl.enqueue_copy(device.queue, array.base_data, host, is_blocking=False)
    uploads = device.uploads
    uploads.append(event)  # dropping an event of an unfinished upload would wait for it
    while uploads and uploads[0].command_execution_status <= cl.command_execution_status.COMPLETE:
        uploads.popleft()
    while len(uploads) > MOST_UPLOADS:  # the host is far ahead of the device: what waits there fills the memory
        device.queue.flush()  # some devices begin only then
        time.sleep(1e-3)
        if uploads[0].command_execution_status <= cl.command_execution_status.COMPLETE:
            uploads.popleft()
    if recorder is not None:
        recorder(event, device, "upload", (), (), None, array.nbytes)
    return array


def fill(array: cl.array.Array, value) -> cl.array.Array:
    """Set every element of an array to a number."""
    pattern = np.asarray(value, array.dtype)
    event = cl.enqueue_fill_buffer(array.queue, array.base_data, pattern, 0, array.nbytes)
    if recorder is not None:
        recorder(event, array.queue.home, "fill", (), (), None, array.nbytes)
    return array


def copy_into(target: cl.array.Array, origin: cl.array.Array) -> None:
    """Copy one array's contents into another of the same size and type, on the device."""
    event = cl.enqueue_copy(target.queue, target.base_data, origin.base_data, byte_count=target.nbytes)
    if recorder is not None:
        recorder(event, target.queue.home, "copy", (), (), None, 2 * target.nbytes)


def copy_across(device: Device, array: cl.array.Array) -> cl.array.Array:
    """A copy on another device. Devices of one context pass it on by themselves; else the host waits and carries it."""
    if array.context != device.context:
        return upload(device, array.get())
    out = empty(device, array.shape, array.dtype)
    ready = cl.enqueue_marker(array.queue)
    event = cl.enqueue_copy(
        device.queue, out.base_data, array.base_data, byte_count=array.nbytes, wait_for=[ready]
    )  # fmt: skip
    cl.enqueue_barrier(array.queue, wait_for=[event])  # its memory may go to another array only after that
    array.queue.flush()  # each queue waits for the other, so both must be on their way
    device.queue.flush()
    if recorder is not None:
        recorder(event, device, "copy across", (), (), None, 2 * array.nbytes)
    return out


def copy_columns(target: cl.array.Array, to: int, origin: cl.array.Array, start: int, rows: int, width: int) -> None:
    """Copy ``width`` columns from column ``start`` of one matrix to column ``to`` of another, on the device.

    Both arrays are of one type and seen as matrices of ``rows`` rows.
    """
    item = target.dtype.itemsize
    pitches = {"src_pitches": (origin.nbytes // rows,), "dst_pitches": (target.nbytes // rows,)}
    event = cl.enqueue_copy(
        target.queue, target.base_data, origin.base_data, src_origin=(start * item, 0, 0),
        dst_origin=(to * item, 0, 0), region=(width * item, rows, 1), **pitches,
    )  # fmt: skip
    if recorder is not None:
        recorder(event, target.queue.home, "copy", (), (), None, 2 * rows * width * item)


def reshaped(array: cl.array.Array, shape: tuple[int, ...]) -> cl.array.Array:
    """The same memory seen with another shape of the same size."""
    return wrap(array, array.base_data, shape, array.dtype)
