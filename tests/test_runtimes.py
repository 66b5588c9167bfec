"""PoCL on a processor it does not know, and Intel's runtime from pip."""

import ctypes
import os
import struct
import sys
from types import SimpleNamespace

import pytest

import clnn
from clnn import runtimes
from clnn.runtimes import cpu_flags, host_cpu_name, name_pocl_cpu, register_intel

AVX2 = {"sse2", "sse4_2", "avx", "avx2", "fma", "bmi1", "bmi2", "movbe", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
GENERIC = "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-generic"
unknown_to_pocl = pytest.mark.skipif(
    not any(d.version == GENERIC for d in clnn.devices()), reason="no PoCL here that does not know this processor"
)

ADD_ONE = """
import sys
import numpy as np
import clnn
from clnn import runtimes
{patch}
x = np.random.default_rng(3).standard_normal((37, 11), dtype=np.float32)
with clnn.use_device("pocl") as device:
    assert np.array_equal((clnn.tensor(x) + 1).numpy(), x + np.float32(1))
    print(device.cpu_name, *device.build_options)
"""


# --- which processor -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (AVX512 | {"avx512_vnni"}, "skx"),
        (AVX512 - {"avx512vl"}, "haswell"),  # Xeon Phi has AVX-512 without VL
        (AVX512 - {"avx2"}, "x86-64"),
        (AVX2, "haswell"),
        (AVX2 - {"movbe"}, "x86-64"),
        (AVX2 - {"avx2"}, "x86-64"),
        ({"sse2"}, "x86-64"),
        (set(), "x86-64"),
    ],
)
def test_host_cpu_name(flags, name):
    assert host_cpu_name(flags) == name
    assert len(name.encode()) <= len(b"generic")


@pytest.mark.skipif("sys.platform != 'linux' or os.uname().machine != 'x86_64'")
def test_cpu_flags_of_this_machine():
    assert {"fpu", "sse", "sse2"} <= cpu_flags()  # every 64-bit x86 has these


def test_cpu_flags_where_linux_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(runtimes, "Path", lambda _: tmp_path / "absent")
    assert cpu_flags() == set()


# --- telling PoCL ----------------------------------------------------------------------------------------


@unknown_to_pocl
@pytest.mark.parametrize("name", ["the host's", "haswell", "x86-64"])
def test_pocl_compiles_for_the_processor_it_is_told(run_python, tmp_path, name):
    host = host_cpu_name(cpu_flags())
    if name == "the host's":
        name, patch = host, ""
    elif name == "haswell" and host == "x86-64":
        pytest.skip("this processor has no AVX2")
    else:
        patch = f"runtimes.host_cpu_name = lambda flags: {name!r}"
    result = run_python("-c", ADD_ONE.format(patch=patch), POCL_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [name, f"-DCPU_{name.replace('-', '_')}"]


@unknown_to_pocl
def test_untold_it_refuses_and_the_message_says_what_to_do(run_python, tmp_path):
    patch = "sys.modules['clnn.device'].name_pocl_cpu = lambda device: None"
    result = run_python("-c", ADD_ONE.format(patch=patch), POCL_CACHE_DIR=str(tmp_path))
    assert "clnn.errors.KernelCompileError" in result.stderr
    assert "unknown target CPU 'generic'" in result.stderr
    assert "pip install intel-opencl-rt" in result.stderr


@unknown_to_pocl
def test_told_once_for_all_devices_made_from_one():
    d = next(d for d in clnn.devices() if d.version == GENERIC)
    assert d.cpu_name == clnn.Device(d.cl_device).cpu_name == host_cpu_name(cpu_flags())


@pytest.mark.parametrize(
    "version",
    [
        "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-znver3",
        "OpenCL 3.0 PoCL HSTR: cpu-aarch64-unknown-linux-gnu-generic",
        "OpenCL 3.0 CUDA",
        "generic",
    ],
)
def test_other_devices_are_not_touched(version, monkeypatch):
    class Untouchable:
        int_ptr = property(lambda self: pytest.fail("looked into the memory of a device that needs no name"))

    device = Untouchable()
    device.version = version
    assert name_pocl_cpu(device) is None


@pytest.mark.skipif("sys.platform != 'linux'")
def test_a_hardened_kernel_is_no_error(monkeypatch):
    def forbid(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(runtimes, "open", forbid, raising=False)
    assert name_pocl_cpu.__wrapped__(SimpleNamespace(version=GENERIC, int_ptr=1 << 20)) is None


@pytest.mark.skipif("sys.platform != 'linux'")
def test_the_name_is_found_among_good_and_bad_pointers():
    text, other = ctypes.create_string_buffer(b"generic"), ctypes.create_string_buffer(b"generics")
    wild = [0, 1, 0x10_0000, 0x7FFF_FFFF_F000, 1 << 63, ctypes.addressof(other)]

    def find(pointers):
        record = ctypes.create_string_buffer(struct.pack("64Q", *(pointers + [0] * 64)[:64]))
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            return runtimes._find_pointer_to(memory, ctypes.addressof(record), b"generic\0", span=512)

    address = ctypes.addressof(text)
    assert find(wild) is None
    assert find([*wild, address]) == address
    assert find([address, *wild]) == address


# --- Intel's runtime from pip ----------------------------------------------------------------------------


@pytest.fixture
def intel(tmp_path, monkeypatch):
    """A prefix with Intel's library in it, a system's folder of .icd files, and an empty cache."""
    prefix, system, cache = (tmp_path / name for name in ("prefix", "system", "cache"))
    (prefix / "lib").mkdir(parents=True)
    (prefix / "lib" / "libintelocl.so").touch()
    system.mkdir()
    (system / "nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(runtimes, "SYSTEM_VENDORS", system)
    monkeypatch.setenv("OCL_ICD_VENDORS", "to be put back")  # so that monkeypatch restores the variable
    monkeypatch.delenv("OCL_ICD_VENDORS")
    return SimpleNamespace(library=prefix / "lib" / "libintelocl.so", system=system, cache=cache)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_intel_is_registered_beside_the_system_s(intel):
    folder = register_intel(intel.cache)
    assert os.environ["OCL_ICD_VENDORS"] == str(folder)
    assert folder.parent == intel.cache
    assert contents(folder) == {"clnn-intel.icd": f"{intel.library}\n", "nvidia.icd": "libnvidia-opencl.so.1\n"}


def test_registering_again_follows_the_system(intel, monkeypatch):
    folder = register_intel(intel.cache)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.delenv("OCL_ICD_VENDORS")
    assert register_intel(intel.cache) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times  # nothing to write

    (intel.system / "nvidia.icd").unlink()
    (intel.system / "rusticl.icd").write_text("libRusticlOpenCL.so.1\n")
    monkeypatch.delenv("OCL_ICD_VENDORS")
    register_intel(intel.cache)
    assert set(contents(folder)) == {"clnn-intel.icd", "rusticl.icd"}


def test_files_appear_whole(intel, monkeypatch):
    seen = []
    real = os.replace

    def watch(source, target):
        seen.append((os.path.exists(target), open(source).read(), os.path.basename(target)))
        real(source, target)

    monkeypatch.setattr(os, "replace", watch)
    register_intel(intel.cache)
    assert sorted(seen) == [
        (False, f"{intel.library}\n", "clnn-intel.icd"),
        (False, "libnvidia-opencl.so.1\n", "nvidia.icd"),
    ]


@pytest.mark.parametrize("setting", ["/home/somebody/icd", ""])
def test_the_user_s_own_setting_is_left_alone(intel, monkeypatch, setting):
    monkeypatch.setenv("OCL_ICD_VENDORS", setting)
    assert register_intel(intel.cache) is None
    assert os.environ["OCL_ICD_VENDORS"] == setting
    assert not intel.cache.exists()


@pytest.mark.parametrize("case", ["not installed", "another system"])
def test_nothing_is_done_without_need(intel, monkeypatch, case):
    if case == "not installed":
        intel.library.unlink()
    else:
        monkeypatch.setattr(sys, "platform", "darwin")
    assert register_intel(intel.cache) is None
    assert "OCL_ICD_VENDORS" not in os.environ
    assert not intel.cache.exists()


def test_a_cache_that_cannot_be_written_is_no_error(intel):
    intel.cache.write_text("a file where the folder should be")
    assert register_intel(intel.cache) is None
    assert "OCL_ICD_VENDORS" not in os.environ


@pytest.mark.skipif(
    not os.path.exists(os.path.join(sys.prefix, "lib", "libintelocl.so")), reason="Intel's runtime is not installed"
)
def test_intel_is_found_where_pip_put_it(run_python, tmp_path):
    code = "import clnn; print(*(d.platform for d in clnn.devices()), sep='\\n')"
    result = run_python("-c", code, OCL_ICD_VENDORS=None, XDG_CACHE_HOME=str(tmp_path))
    assert "Intel(R) OpenCL" in result.stdout.splitlines()
