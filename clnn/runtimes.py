"""Makes the OpenCL implementations that pip installs usable as they come.

Two of them need a hand before they work: Intel's CPU runtime is not found by the loader, and PoCL refuses
to compile on a processor that is younger than its compiler.
"""

import os
import struct
import sys
from functools import cache
from pathlib import Path

from .files import write_whole

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")


def register_intel(cache_folder: Path) -> Path | None:
    """Let the OpenCL loader find Intel's CPU runtime from the pip package ``intel-opencl-rt``.

    The package's own ``.icd`` file names a path that does not exist, so this writes one that does, beside
    copies of the system's (``OCL_ICD_VENDORS`` replaces the system's folder). Returns the folder, or None
    where the runtime is not installed, the user has set ``OCL_ICD_VENDORS``, or the cache cannot be written.
    Must run before the first OpenCL call of the process.
    """
    library = Path(sys.prefix) / "lib" / "libintelocl.so"
    if sys.platform != "linux" or not library.exists() or "OCL_ICD_VENDORS" in os.environ:
        return None
    folder = cache_folder / "vendors"
    try:
        _write_icd_files(folder, library)
    except OSError:  # no right to write there: the other devices still work
        return None
    os.environ["OCL_ICD_VENDORS"] = str(folder)
    return folder


def _write_icd_files(folder: Path, library: Path) -> None:
    wanted = {"clnn-intel.icd": f"{library}\n"}
    for icd in SYSTEM_VENDORS.glob("*.icd") if SYSTEM_VENDORS.is_dir() else ():
        wanted[icd.name] = icd.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {p.name for p in folder.glob("*.icd")} - wanted.keys():
        (folder / stale).unlink(missing_ok=True)
    for name, text in wanted.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            write_whole(folder / name, text.encode())


def host_cpu_name(flags: set[str]) -> str:
    """The compiler's name for the most capable x86-64 processor that has no more than these CPU flags.

    The names are LLVM's, of at most 7 letters: they replace the word "generic" where it stands.
    """
    if {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2"} <= flags:
        return "skx"
    if {"avx2", "fma", "bmi1", "bmi2", "movbe", "f16c"} <= flags:
        return "haswell"
    return "x86-64"


@cache  # the second call would find nothing left to name
def name_pocl_cpu(cl_device) -> str | None:
    """Tell PoCL 3.0 which processor to compile for where its LLVM 14 does not know this one.

    LLVM then calls the CPU "generic", a name that its own C compiler rejects ("unknown target CPU
    'generic'", PoCL issue 1049), and PoCL 3.0 has no setting for it. The name is an 8-byte string that
    PoCL's device record points to; this finds it by its text and writes a name that LLVM knows.
    Returns that name, or None where nothing had to be, or could be, done.
    """
    if not cl_device.version.endswith("x86_64-unknown-linux-gnu-generic"):
        return None
    name = host_cpu_name(cpu_flags())
    try:
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            address = _find_pointer_to(memory, cl_device.int_ptr, b"generic\0")
            if address is None:
                return None
            memory.seek(address)
            memory.write(name.encode().ljust(8, b"\0"))
    except OSError:  # a hardened kernel may forbid it: the build then fails with PoCL's own message
        return None
    return name


def _find_pointer_to(memory, start: int, text: bytes, span: int = 4096) -> int | None:
    """The first address among the pointers in ``span`` bytes from ``start`` at which ``text`` stands."""
    memory.seek(start)
    for (address,) in struct.iter_unpack("Q", memory.read(span)):
        if not 1 << 16 <= address < 1 << 47:
            continue
        try:  # reading through the file turns a bad address into an error in place of a crash
            memory.seek(address)
            if memory.read(len(text)) == text:
                return address
        except OSError:
            continue
    return None


def cpu_flags() -> set[str]:
    """The instruction-set flags of this processor, as Linux lists them (empty elsewhere)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())
