"""Which device is chosen, by which name, and what happens where there is none or no memory left."""

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pyopencl as cl
import pytest

import clnn
from clnn.device import default_device, find_device

device_module = sys.modules["clnn.device"]  # `clnn.device` is the function
find_anew = device_module._find_devices.__wrapped__  # without its cache
GIB = 2**30


@dataclasses.dataclass(eq=False)
class FakeDevice:
    """What a driver says of a device that this machine need not have."""

    name: str
    platform: SimpleNamespace
    vendor: str
    type: int
    max_compute_units: int
    max_clock_frequency: int
    host_unified_memory: bool
    version: str = "OpenCL 3.0"
    driver_version: str = "1.0"
    extensions: str = "cl_khr_fp64 cl_khr_icd"
    global_mem_size: int = 8 * GIB
    max_mem_alloc_size: int = 2 * GIB


def fake(name, platform, vendor, kind, cores, clock, unified):
    kinds = cl.device_type.ALL if kind == "ALL" else getattr(cl.device_type, kind)
    platform = SimpleNamespace(name=platform)
    return clnn.Device(FakeDevice(name, platform, vendor, kinds, cores, clock, unified))


SIMULATOR = fake("Oclgrind Simulator", "Oclgrind", "University of Bristol", "ALL", 1, 1, True)
INTEL_CPU = fake("AMD EPYC 9554", "Intel(R) OpenCL", "Intel(R) Corporation", "CPU", 64, 3100, True)
POCL = fake("cpu-AMD EPYC 9554", "Portable Computing Language", "AuthenticAMD", "CPU", 64, 2600, True)
BUILT_IN = fake("Intel(R) Iris(R) Xe", "Intel(R) OpenCL Graphics", "Intel(R) Corporation", "GPU", 96, 1300, True)
SMALL_CARD = fake("NVIDIA GeForce RTX 3050", "NVIDIA CUDA", "NVIDIA Corporation", "GPU", 20, 1500, False)
LARGE_CARD = fake(
    "gfx1100", "AMD Accelerated Parallel Processing", "Advanced Micro Devices, Inc.", "GPU", 48, 2300, False
)
FPGA = fake("board", "FPGA SDK", "Somebody", "ACCELERATOR", 900, 3000, False)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No variable asks for a device, none was chosen yet, and all is put back after the test."""
    monkeypatch.delenv("CLNN_DEVICE", raising=False)
    monkeypatch.delenv("PYOPENCL_CTX", raising=False)
    monkeypatch.setattr(device_module, "_current", None)


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has these devices, named in any order."""

    def pretend(*found):
        platforms = [SimpleNamespace(get_devices=lambda d=d: [d.cl_device]) for d in found]
        monkeypatch.setattr(cl, "get_platforms", lambda: platforms)
        ranked = find_anew()
        monkeypatch.setattr(device_module, "_find_devices", lambda: ranked)
        return ranked

    return pretend


def names(found):
    return [d.name for d in found]


# --- ranking ---------------------------------------------------------------------------------------------


def test_best_first(machine):
    machine(SIMULATOR, INTEL_CPU, FPGA, POCL, BUILT_IN, SMALL_CARD, LARGE_CARD)
    ranked = [LARGE_CARD, SMALL_CARD, BUILT_IN, POCL, INTEL_CPU, FPGA, SIMULATOR]
    assert names(clnn.devices()) == names(ranked)
    assert [d.kind for d in clnn.devices()] == ["GPU"] * 3 + ["CPU"] * 2 + ["accelerator", "simulator"]
    assert default_device().name == LARGE_CARD.name


@pytest.mark.parametrize("found", [(SIMULATOR, POCL), (POCL, SIMULATOR), (SIMULATOR, FPGA, INTEL_CPU)])
def test_a_simulator_is_never_the_default(machine, found):
    machine(*found)
    assert clnn.device().kind == "CPU"
    assert clnn.devices()[-1].kind == "simulator"


def test_a_lone_simulator_is_used_only_when_asked_for(machine, monkeypatch):
    machine(SIMULATOR)
    with pytest.raises(clnn.DeviceError, match=r"but Oclgrind Simulator, .*pip install pocl"):
        clnn.device()
    monkeypatch.setenv("CLNN_DEVICE", "oclgrind")
    assert clnn.device().kind == "simulator"


def test_a_broken_platform_does_not_hide_the_others(machine, monkeypatch):
    def broken():
        raise cl.RuntimeError("clGetDeviceIDs failed: OUT_OF_HOST_MEMORY")

    good = SimpleNamespace(get_devices=lambda: [POCL.cl_device])
    monkeypatch.setattr(cl, "get_platforms", lambda: [SimpleNamespace(get_devices=broken), good])
    assert names(find_anew()) == [POCL.name]


# --- naming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        (0, LARGE_CARD), ("1", SMALL_CARD), (np.int64(3), POCL),
        ("gpu", LARGE_CARD), ("CPU", POCL), ("accelerator", FPGA), ("simulator", SIMULATOR),
        ("pocl", POCL), (" PoCL ", POCL), ("portable", POCL),
        ("nvidia", SMALL_CARD), ("GeForce", SMALL_CARD), ("amd", LARGE_CARD), ("gfx1100", LARGE_CARD),
        ("intel", BUILT_IN), ("intel(r) opencl graphics", BUILT_IN), ("bristol", SIMULATOR),
    ],
)  # fmt: skip
def test_words_and_indices(machine, spec, chosen):
    machine(SIMULATOR, POCL, BUILT_IN, SMALL_CARD, LARGE_CARD, FPGA)
    assert find_device(spec).name == chosen.name
    assert clnn.device(spec).name == chosen.name
    assert device_module._current is None  # asking is not using


def test_amd_means_the_maker_first_then_the_name(machine):
    mesa = fake("AMD Radeon RX 7600", "rusticl", "AMD", "GPU", 32, 2600, False)
    machine(POCL, mesa)
    assert find_device("amd").name == mesa.name
    machine(POCL, INTEL_CPU)
    assert find_device("amd").name == POCL.name


@pytest.mark.parametrize("spec", ["voodoo", 2, "7", -1, "-1", "", "gpu"])
def test_unknown_device_lists_those_that_are_there(machine, spec):
    machine(POCL, fake("Tesla-1", "Vendor's own", "Vendor", "CPU", 4, 1000, True))
    with pytest.raises(clnn.DeviceError) as error:
        clnn.use_device(spec)
    text = str(error.value)
    assert repr(spec) in text
    assert "0: cpu-AMD EPYC 9554 (CPU, Portable Computing Language)" in text
    assert "1: Tesla-1" in text
    assert device_module._current is None


def test_every_device_of_this_machine_by_index_and_by_itself():
    for index, d in enumerate(clnn.devices()):
        assert find_device(index) is find_device(str(index)) is find_device(d) is d
        assert d.name in find_device(d.name).name


def test_a_device_describes_itself(device):
    assert device.kind in ("GPU", "CPU", "accelerator")
    assert device.memory >= device.max_alloc >= device.memory // 8  # OpenCL promises a quarter, some give less
    assert device.cores >= 1
    assert device.name in repr(device) and device.kind in repr(device)
    if device.fp64:
        x = np.random.default_rng(1).standard_normal(1001)
        assert np.array_equal((clnn.tensor(x, dtype=np.float64) + 1.0).numpy(), x + 1.0)


# --- use_device ------------------------------------------------------------------------------------------


def test_use_device_nests_and_restores(machine):
    pocl, intel, simulator = machine(SIMULATOR, INTEL_CPU, POCL)
    assert clnn.device() is pocl
    with clnn.use_device("intel") as outer:
        assert outer is intel is clnn.device()
        with clnn.use_device(2):
            assert clnn.device() is simulator
            with pytest.raises(clnn.DeviceError), clnn.use_device("voodoo"):
                pass
            assert clnn.device() is simulator
        assert clnn.device() is intel
    assert clnn.device() is pocl
    with pytest.raises(ZeroDivisionError), clnn.use_device("simulator"):
        1 / 0  # noqa: B018
    assert clnn.device() is pocl


def test_use_device_without_with_stays(machine):
    _, intel, simulator = machine(SIMULATOR, INTEL_CPU, POCL)
    choice = clnn.use_device("intel")
    assert clnn.device() is intel
    assert intel.name in repr(choice)
    clnn.use_device(simulator)
    for _ in range(2):  # the same object again, entered later
        with choice:
            assert clnn.device() is intel
        assert clnn.device() is simulator


def test_a_context_before_the_first_choice_leaves_it_open(machine):
    pocl, _ = machine(INTEL_CPU, POCL)
    with clnn.use_device("intel"):
        pass
    assert clnn.device() is pocl


def test_tensors_go_to_the_device_in_use(device):
    assert clnn.tensor([1.0, 2.5]).device is device
    assert clnn.zeros(3).device is device
    clnn.synchronize()
    clnn.synchronize(device)


# --- the environment -------------------------------------------------------------------------------------

SHOW = "import clnn; print(clnn.device().name)"


def first_word(platform: str) -> str:
    return platform.split()[0].lower()


def test_clnn_device(run_python):
    for index, d in enumerate(clnn.devices()):
        for spec in (str(index), d.platform.upper()):
            assert run_python("-c", SHOW, CLNN_DEVICE=spec).stdout.strip() == find_device(spec).name
            assert find_device(spec).platform == d.platform


def test_clnn_device_unknown(run_python):
    result = run_python("-c", SHOW, CLNN_DEVICE="voodoo")
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith("clnn.errors.DeviceError: no device fits 'voodoo'")
    assert all(d.name in message for d in clnn.devices())


def test_pyopencl_ctx(run_python):
    for index, platform in enumerate(cl.get_platforms()):
        expected = platform.get_devices()[0].name.strip()
        for answers in (f"{index}:0", first_word(platform.name), f"{index}:{expected}"):
            assert run_python("-c", SHOW, PYOPENCL_CTX=answers).stdout.strip() == expected


@pytest.mark.parametrize("answers", ["voodoo", "99", "0:voodoo", "0:0:0"])
def test_pyopencl_ctx_unknown(run_python, answers):
    message = run_python("-c", SHOW, PYOPENCL_CTX=answers).stderr.splitlines()[-1]
    assert message.startswith(f"clnn.errors.DeviceError: PYOPENCL_CTX='{answers}' names no device")


def test_clnn_device_goes_before_pyopencl_ctx(run_python):
    result = run_python("-c", SHOW, CLNN_DEVICE="0", PYOPENCL_CTX="voodoo")
    assert result.stdout.strip() == clnn.devices()[0].name


# --- nothing there ---------------------------------------------------------------------------------------

NO_PLATFORM = """
import pyopencl as cl
def none():
    raise cl.LogicError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")
cl.get_platforms = none
import clnn
assert clnn.devices() == []
for ask in (clnn.device, lambda: clnn.use_device("gpu"), lambda: clnn.zeros(3)):
    try:
        ask()
    except clnn.DeviceError as error:
        print(error)
"""


def test_no_platform_at_all(run_python):
    result = run_python("-c", NO_PLATFORM)
    assert result.stderr == ""
    messages = result.stdout.splitlines()
    assert len(messages) == 3
    for message in messages:
        assert message.startswith("no OpenCL device was found. Install one:")
        for cure in ("pip install pocl-binary-distribution", "apt install", "python -m clnn doctor"):
            assert cure in message


@pytest.mark.skipif("sys.platform != 'linux'", reason="the variable is of Linux's loader")
def test_a_loader_that_looks_nowhere(run_python, tmp_path):
    missing = str(tmp_path / "missing")
    result = run_python("-c", SHOW, OCL_ICD_VENDORS=missing)
    message = result.stderr.splitlines()[-1]
    assert "no OpenCL device was found" in message
    assert f"OCL_ICD_VENDORS={missing} does not exist" in message


def test_a_device_that_cannot_be_opened(monkeypatch):
    def busy(devices):
        raise cl.RuntimeError("clCreateContext failed: OUT_OF_RESOURCES")

    monkeypatch.setattr(cl, "Context", busy)
    card = fake("NVIDIA A100", "NVIDIA CUDA", "NVIDIA Corporation", "GPU", 108, 1400, False)
    with pytest.raises(clnn.DeviceError, match=r"NVIDIA A100 .*OUT_OF_RESOURCES.*CLNN_DEVICE=cpu"):
        card.queue  # noqa: B018


# --- memory ----------------------------------------------------------------------------------------------


def works(device):
    a, b = np.random.default_rng(2).standard_normal((2, 999), dtype=np.float32)
    return np.array_equal((clnn.tensor(a) + clnn.tensor(b)).numpy(), a + b)


def test_an_array_that_is_too_large(device, monkeypatch):
    in_use = device.pool.active_bytes
    for nbytes in (device.max_alloc + 1, device.memory + 1, 2**60):
        with pytest.raises(clnn.DeviceMemoryError) as error:
            device.allocate(nbytes)
        assert f"{nbytes / 2**20:,.0f} MiB does not fit on {device.name}" in str(error.value)
        assert "smaller batch" in str(error.value)
    monkeypatch.setattr(device, "max_alloc", 2**20)
    with pytest.raises(MemoryError):  # also Python's own name for it
        clnn.zeros(2**18 + 1)
    assert device.pool.active_bytes == in_use
    assert works(device)


def test_just_below_the_limit_it_fits_or_says_why(device):
    # The pool rounds sizes up, which may go past the device's limit.
    for nbytes in (device.max_alloc - 1, device.max_alloc):
        try:
            device.allocate(nbytes)
        except clnn.DeviceMemoryError as error:
            assert "does not fit" in str(error)
    device.pool.free_held()
    assert works(device)


def test_many_arrays_fill_the_memory(device):
    size, kept = device.max_alloc // 2, []
    with pytest.raises(clnn.DeviceMemoryError, match="are in use"):
        while len(kept) <= device.memory // size:
            kept.append(device.allocate(size))
    kept.pop()
    assert works(device)
    del kept
    device.pool.free_held()
    assert device.allocate(size) is not None  # what was given back can be had again
    device.pool.free_held()


def test_a_released_array_is_used_again(device):
    clnn.zeros(12345)
    held = device.pool.managed_bytes
    for _ in range(5):
        clnn.zeros(12345)
    assert device.pool.managed_bytes == held


@pytest.fixture
def halves():
    """The two parts of the first CPU device that can be split."""
    for device in find_anew():
        if device.kind == "CPU" and device.cores >= 2 and device.cl_device.partition_max_sub_devices >= 2:
            return device, device.split(2)
    pytest.skip("no CPU device of two cores or more")


def test_split(halves):
    """Two devices with half the cores each, the same code for their vectors, and one context."""
    whole, parts = halves
    assert [part.cores for part in parts] == [whole.cores // 2] * 2
    assert parts[0].context is parts[1].context
    assert all(part.vector_bytes == whole.vector_bytes and part.kind == "CPU" for part in parts)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(37, 51)), rng.normal(size=(51, 23))
    for part in parts:
        with clnn.use_device(part):
            np.testing.assert_allclose((clnn.tensor(a) @ clnn.tensor(b)).numpy(), a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [0, 1000])
def test_splits_that_cannot_be(halves, parts):
    with pytest.raises(clnn.DeviceError, match=rf"cannot be split in {parts}: CPU devices can"):
        halves[0].split(parts)
