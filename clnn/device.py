"""Finds OpenCL devices, chooses one, and holds what belongs to it: context, queue, memory pool."""

import os
import re
from collections import deque
from functools import cached_property, lru_cache

import pooch

from .errors import DeviceError, DeviceMemoryError
from .runtimes import name_pocl_cpu, register_intel

register_intel(pooch.os_cache("clnn"))  # the loader reads its settings once, at pyopencl's first call

import pyopencl as cl  # noqa: E402
import pyopencl.tools  # noqa: E402

CURE = (
    "Install one: `pip install pocl-binary-distribution` (a CPU device, Linux x86-64), "
    "`apt install pocl-opencl-icd` (a CPU device, Debian and Ubuntu), or your GPU vendor's driver with its "
    "OpenCL part (`apt install nvidia-opencl-icd`, `intel-opencl-icd` or `mesa-opencl-icd`). "
    "`python -m clnn doctor` shows what is missing."
)
ALIASES = {"pocl": "portable computing language", "amd": "advanced micro devices"}

# LLVM's names of processors with AVX-512
AVX512_TARGETS = re.compile("skx|skylake-avx512|(cascade|cooper|cannon|ice|tiger|rocket)lake|sapphirerapids|znver[45]")


class Device:
    """One OpenCL device with the context, the in-order queue and the memory pool that clnn uses on it.

    Attributes: ``name``, ``platform``, ``vendor``, ``kind`` ("GPU", "CPU", "accelerator" or "simulator"),
    ``memory`` (bytes), ``max_alloc`` (bytes of the largest single buffer), ``cores`` (compute units),
    ``clock`` (MHz), ``fp64`` (whether it computes in double precision), ``shares_memory`` (whether its memory is the
    host's, as on CPUs and on GPUs inside them), ``driver``, ``version``.
    """

    def __init__(self, cl_device: "cl.Device"):
        self.cl_device = cl_device
        self.name = cl_device.name.strip()
        self.platform = cl_device.platform.name.strip()
        self.vendor = cl_device.vendor.strip()
        self.version = cl_device.version.strip()
        self.driver = cl_device.driver_version.strip()
        self.kind = _kind(cl_device)
        self.memory = cl_device.global_mem_size
        self.max_alloc = cl_device.max_mem_alloc_size
        self.cores = cl_device.max_compute_units
        self.clock = cl_device.max_clock_frequency
        self.fp64 = "cl_khr_fp64" in cl_device.extensions.split()
        self.shares_memory = bool(cl_device.host_unified_memory)
        self.kernels = {}  # (family, name, options) -> kernel object, kept by clnn.program
        self.found = {}  # the same by what was asked for: see finder there
        self.uploads = deque()  # events of copies to the device that may be under way

    @cached_property
    def cpu_name(self) -> str | None:
        """The processor that PoCL was told to compile for, where it did not know this one."""
        return name_pocl_cpu(self.cl_device)

    @cached_property
    def vector_bytes(self) -> int:
        """Bytes in one vector register, as the compiler uses them; 16 where the device works on single numbers."""
        if "portable computing language" in self.platform.lower():
            # PoCL tells the processor's vectors, but compiles for the name at its version's end.
            target = self.cpu_name or self.version.rpartition("-gnu-")[2]
            return 64 if AVX512_TARGETS.match(target) else 32
        return min(max(4 * self.cl_device.native_vector_width_float, 16), 64)

    @cached_property
    def context(self) -> "cl.Context":
        self.cpu_name  # noqa: B018 - PoCL must know its processor before it compiles anything
        try:
            return cl.Context([self.cl_device])
        except cl.Error as error:
            raise DeviceError(
                f"{self.name} is listed but cannot be used ({error}). Another program may hold it, or its driver "
                "is broken. Choose another device: CLNN_DEVICE=cpu."
            ) from error

    @cached_property
    def queue(self) -> "cl.CommandQueue":
        # Arrays hold their queue, so it cannot be exchanged for one that takes times when a profile begins. Taking
        # them always costs a CPU nothing measurable, and a GPU no more than two time stamps a command.
        queue = cl.CommandQueue(self.context, properties=cl.command_queue_properties.PROFILING_ENABLE)
        queue.home = self  # so that an array, which holds its queue, tells its Device
        return queue

    @cached_property
    def pool(self) -> "cl.tools.MemoryPool":
        return cl.tools.MemoryPool(cl.tools.ImmediateAllocator(self.queue))

    @cached_property
    def build_options(self) -> tuple[str, ...]:
        """Options that every kernel of this device is compiled with."""
        if "oclgrind" in self.platform.lower():
            # Unoptimised, each access is in the line that it was written in, what the optimiser would drop is seen, and
            # no instruction comes up that Oclgrind does not know (LLVM's freeze and funnel shifts).
            return ("-cl-opt-disable",)
        # The define keeps kernels of two processors apart that PoCL files under one name, "generic".
        return (f"-DCPU_{self.cpu_name.replace('-', '_')}",) if self.cpu_name else ()

    def allocate(self, nbytes: int):
        """A buffer of ``nbytes`` from the pool. Raises DeviceMemoryError where it cannot fit."""
        in_use = self.pool.active_bytes
        if nbytes <= self.max_alloc and in_use + nbytes <= self.memory:
            try:
                return self.pool(nbytes)
            except cl.Error:
                pass  # the driver's own limit, or the pool rounded up past it: told below, with the same cure
        raise DeviceMemoryError(
            f"an array of {nbytes / 2**20:,.0f} MiB does not fit on {self.name}: it has "
            f"{self.memory / 2**20:,.0f} MiB, of which {in_use / 2**20:,.0f} are in use, and takes at most "
            f"{self.max_alloc / 2**20:,.0f} in one array. Use a smaller batch or a smaller net."
        )

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        self.queue.finish()

    def split(self, parts: int = 2) -> list["Device"]:
        """Its cores shared out among ``parts`` devices (OpenCL sub-devices), which copy to each other without the host.

        PoCL 3.0 runs the kernels of each part on all cores all the same. Raises DeviceError where the device cannot be
        divided so.
        """
        each, found = self.cores // max(parts, 1), []
        try:
            if parts > 0 and each:
                found = self.cl_device.create_sub_devices([cl.device_partition_property.EQUALLY, each])[:parts]
        except cl.Error:  # GPUs mostly
            pass
        if not found or len(found) != parts:
            raise DeviceError(
                f"{self.name} with its {self.cores} compute units cannot be split in {parts}: CPU devices can, in as "
                "many parts as they have cores"
            )
        context, halves = cl.Context(found), [Device(part) for part in found]
        for half in halves:
            half.context, half.cpu_name = context, self.cpu_name
        return halves

    def __repr__(self):
        return f"<clnn.Device {self.name!r} ({self.kind}, {self.platform})>"


def _kind(cl_device) -> str:
    if "oclgrind" in cl_device.platform.name.lower():
        return "simulator"
    for kind in ("GPU", "CPU"):
        if cl_device.type & getattr(cl.device_type, kind):
            return kind
    return "accelerator"


@lru_cache(maxsize=1)
def _find_devices() -> tuple[Device, ...]:
    try:
        platforms = cl.get_platforms()
    except cl.Error:  # the loader found no implementation at all
        return ()
    found = []
    for platform in platforms:
        try:
            found += [Device(d) for d in platform.get_devices()]
        except cl.Error:  # a driver without its hardware
            continue
    return tuple(sorted(found, key=_rank))


def _rank(device: Device):
    """Sort key, best first: GPUs, then CPUs, then the rest; the larger one before the smaller."""
    order = {"GPU": 0, "CPU": 1, "accelerator": 2, "simulator": 3}[device.kind]
    if device.kind == "GPU":
        preferred = not device.shares_memory  # vendors count cores differently, but a card beats a built-in GPU
    else:
        # Two CPU platforms drive the same cores: the one that clnn is tested on comes first.
        preferred = ALIASES["pocl"] in device.platform.lower()
    return order, not preferred, -device.cores * max(device.clock, 1)


def devices() -> list[Device]:
    """All OpenCL devices of this machine, best first: GPUs, CPUs, simulators."""
    return list(_find_devices())


def find_device(spec: "str | int | Device") -> Device:
    """The device that ``spec`` names: an index into ``devices()``, a word such as "pocl", "nvidia", "gpu"
    or "cpu" that its platform, vendor, name or kind contains, or a Device.

    Raises DeviceError where there is no device or none fits.
    """
    if isinstance(spec, Device):
        return spec
    found = devices()
    if not found:
        raise _nothing_found()
    text = str(spec).strip().lower()
    if text.removeprefix("-").isdigit():
        fitting = found[int(text) :][:1] if int(text) >= 0 else []
    else:
        kinds = [d for d in found if d.kind.lower() == text]
        words = filter(None, (ALIASES.get(text), text))
        fitting = kinds or [d for word in words for d in found if word in _description(d)]
    if not fitting:
        listing = "; ".join(f"{i}: {d.name} ({d.kind}, {d.platform})" for i, d in enumerate(found))
        raise DeviceError(f"no device fits {spec!r}. There are: {listing}. Give an index or a part of a name.")
    return fitting[0]


def _description(device: Device) -> str:
    return f"{device.platform} {device.vendor} {device.name}".lower()


def _nothing_found() -> DeviceError:
    folder = os.environ.get("OCL_ICD_VENDORS")
    reason = ""
    if devices():
        reason = f" but {devices()[0].name}, which is used only when asked for (CLNN_DEVICE=0)"
    elif folder and not os.path.exists(folder):
        reason = f": OCL_ICD_VENDORS={folder} does not exist, and the loader looks nowhere else; unset it"
    return DeviceError(f"no OpenCL device was found{reason}. {CURE}")


def default_device() -> Device:
    """The device that a new process takes: ``CLNN_DEVICE``, else ``PYOPENCL_CTX``, else the best GPU or CPU.

    A simulator is taken only when it is asked for. Raises DeviceError where there is no such device.
    """
    if spec := os.environ.get("CLNN_DEVICE"):
        return find_device(spec)
    if os.environ.get("PYOPENCL_CTX"):
        try:
            chosen = cl.choose_devices(interactive=False)[0]
        except (cl.Error, RuntimeError, ValueError, IndexError) as error:
            raise DeviceError(
                f"PYOPENCL_CTX={os.environ['PYOPENCL_CTX']!r} names no device ({error}). Unset it or use CLNN_DEVICE."
            ) from error
        return next(d for d in devices() if d.cl_device == chosen)
    usable = [d for d in devices() if d.kind != "simulator"]
    if not usable:
        raise _nothing_found()
    return usable[0]


_current: Device | None = None


def device(spec: "str | int | Device | None" = None) -> Device:
    """The device in use, or the one that ``spec`` names (see ``find_device``).

    The first call takes ``default_device()``. Raises DeviceError where there is none.
    """
    global _current
    if spec is not None:
        return find_device(spec)
    if _current is None:
        _current = default_device()
    return _current


class use_device:
    """Make ``spec`` the device that new tensors go to: ``use_device("pocl")``, ``use_device(0)``.

    As a context manager it puts the former device back: ``with clnn.use_device("nvidia"): ...``.
    Raises DeviceError where no device fits.
    """

    def __init__(self, spec: "str | int | Device"):
        global _current
        self._former = _current
        self.device = _current = find_device(spec)

    def __enter__(self) -> Device:
        global _current
        if _current is not self.device:  # made earlier, or entered once more
            self._former, _current = _current, self.device
        return self.device

    def __exit__(self, *exception):
        global _current
        _current = self._former

    def __repr__(self):
        return f"using {self.device!r}"


def synchronize(spec: "str | int | Device | None" = None) -> None:
    """Wait until the device (default: the one in use) has done all that was asked of it."""
    device(spec).synchronize()
