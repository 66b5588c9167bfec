"""Building and launching kernels, and the copies to and from a device."""

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clnn
from clnn import program

DTYPES = [np.float32, np.int32, np.bool_, np.float64]
GOOD = """
__kernel void scale(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = FACTOR * x[i];
}
__kernel void shift(__global const float *x, __global float *y, float by, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = x[i] + by;
}
"""
BAD = GOOD.replace("FACTOR * x[i]", "FACTOR * undeclared[i]")


@pytest.fixture
def family(monkeypatch):
    """Serve a text as the file of a family of kernels."""
    files = {}
    real = program.source
    monkeypatch.setattr(program, "source", lambda name: files.get(name) or real(name))
    return files.__setitem__


def ramp(n):
    return np.random.default_rng(n).standard_normal(n, dtype=np.float32)


# --- compiling -------------------------------------------------------------------------------------------


def test_a_kernel_is_compiled_once(device, family, monkeypatch):
    family("once", GOOD)
    builds = []
    real = program.build
    monkeypatch.setattr(program, "build", lambda *a, **k: builds.append(a) or real(*a, **k))
    first = program.kernel(device, "once", "scale", FACTOR="2.0f")
    assert program.kernel(device, "once", "scale", FACTOR="2.0f") is first
    assert program.kernel(device, "once", "shift", FACTOR="2.0f").function_name == "shift"
    assert len(builds) == 1  # both kernels of the file
    other = program.kernel(device, "once", "scale", FACTOR="3.0f")
    assert other is not first
    assert len(builds) == 2
    for knl, factor in (first, 2), (other, 3), (first, 2):
        x = ramp(77)
        y = program.empty(device, x.shape)
        program.launch(device, knl, (x.size,), (32,), program.upload(device, x), y, x.size)
        assert np.array_equal(y.get(), np.float32(factor) * x)


def test_a_kernel_that_does_not_compile_shows_its_line(device, family):
    family("broken", BAD)
    with pytest.raises(clnn.KernelCompileError) as error:
        program.kernel(device, "broken", "scale", FACTOR="2.0f")
    text = str(error.value)
    assert text.startswith(f"clnn/kernels/broken.cl does not compile on {device.name}:\nline 5: ")
    assert "undeclared" in text.splitlines()[1]
    shown = text.splitlines().index("        if (i < n) y[i] = FACTOR * undeclared[i];")
    caret = text.splitlines()[shown + 1]
    assert caret.strip() == "^"
    assert text.splitlines()[shown][caret.index("^") :].startswith("undeclared")
    assert not [key for key in device.kernels if key[0] == "broken"]  # nothing half-built is kept

    family("broken", GOOD)  # mended: the process goes on
    x = ramp(50)
    y = program.empty(device, x.shape)
    knl = program.kernel(device, "broken", "shift", FACTOR="1.0f")
    program.launch(device, knl, (x.size,), (16,), program.upload(device, x), y, 0.25, x.size)
    assert np.array_equal(y.get(), x + np.float32(0.25))
    assert np.array_equal((clnn.tensor(x) + clnn.tensor(x)).numpy(), x + x)


@pytest.mark.parametrize(
    "log",
    [
        "error: /tmp/pocl/tempfile-1-2.cl:5:32: use of undeclared identifier 'undeclared'",  # PoCL
        "7:5:32: error: use of undeclared identifier 'undeclared'",  # Intel's CPU runtime
        "<kernel>:5:32: error: use of undeclared identifier 'undeclared'",  # NVIDIA
        "/tmp/comgr-1/input/CompileSource:5:32: error: use of undeclared identifier 'undeclared'",  # AMD
        "input.cl:5:32: fatal error: use of undeclared identifier 'undeclared'",
    ],
)
def test_every_compiler_s_way_to_name_a_line(log):
    text = program._explain(clnn.device(), BAD, f"Build on X:\n\n{log}\n1 error generated.", "a.cl")
    assert text.splitlines()[1:] == [
        "line 5: use of undeclared identifier 'undeclared'",
        "        if (i < n) y[i] = FACTOR * undeclared[i];",
        " " * 35 + "^",
    ]


def test_a_log_without_a_line_is_shown_whole():
    for log in ("link failure: out of registers", "error: x.cl:999:1: no such line", "warning: x.cl:3:1: unused"):
        assert log in program._explain(clnn.device(), GOOD, log, "a.cl")


def test_a_kernel_that_is_not_in_its_file(device):
    with pytest.raises(clnn.KernelCompileError, match=r"vector_add\.cl holds no kernel named 'vector_sub'"):
        program.kernel(device, "vector_add", "vector_sub")


# --- arguments and sizes ---------------------------------------------------------------------------------

SCALARS = """
__kernel void collect(
    __global float *out, __global long *whole, int a, uint b, long c, ulong d, float e, __global const float *x, int8 v)
{
    out[0] = e; out[1] = x[0];
    whole[0] = a; whole[1] = b; whole[2] = c; whole[3] = (long)(d - 1);
    whole[4] = v.s0; whole[5] = v.s7;
}
"""


def test_numbers_need_no_type_at_a_launch(device):
    knl = program.build(device, SCALARS).all_kernels()[0]
    program.declare_scalars(knl)
    out, whole = program.empty(device, (2,)), program.empty(device, (6,), np.int64)
    x = program.upload(device, np.float32([0.375]))
    v = np.arange(-3, 5, dtype=np.int32).view(program.SCALARS["int8"])[0]
    program.launch(device, knl, (1,), (1,), out, whole, -7, 2**32 - 1, -(2**62), 2**63, 0.1, x, v)
    assert out.get().tolist() == [np.float32(0.1), np.float32(0.375)]
    assert whole.get().tolist() == [-7, 2**32 - 1, -(2**62), 2**63 - 1, -3, 4]


def test_numbers_need_no_type_for_programs_of_a_second_process(run_python):
    # Some platforms forget the types of arguments when a program comes from a cache of binaries.
    code = (
        "import numpy as np, clnn\n"
        "for d in clnn.devices():\n"
        "    x = clnn.tensor(np.float32([1, 2.5]), device=d)\n"
        "    print((x * 1.5).numpy().tolist())\n"
    )
    for _ in range(2):
        result = run_python("-c", code)
        assert result.returncode == 0, result.stderr
        assert set(result.stdout.splitlines()) == {"[1.5, 3.75]"}


FILL = """
__kernel void mark(__global int *out, int rows, int columns)
{
    int r = get_global_id(1), c = get_global_id(0);
    if (r < rows && c < columns) out[r * columns + c] += r * 1000 + c;
}
"""


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([(1, 1), (16, 1), (7, 3), (8, 8)]))
def test_sizes_are_rounded_up_to_whole_groups(device, rows, columns, local):
    key = ("test", "mark")
    if key not in device.kernels:
        device.kernels[key] = program.build(device, FILL).all_kernels()[0]
        program.declare_scalars(device.kernels[key])
    out = program.fill(program.empty(device, (rows, columns), np.int32), 5)
    program.launch(device, device.kernels[key], (columns, rows), local, out, rows, columns)
    r, c = np.indices((rows, columns))
    assert np.array_equal(out.get(), 5 + r * 1000 + c)


def test_round_up():
    for n in range(1, 100):
        for multiple in (1, 2, 7, 16):
            assert program.round_up(n, multiple) == min(m for m in range(n, n + multiple) if m % multiple == 0)


# --- copies ----------------------------------------------------------------------------------------------

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=9)


@given(st.data())
def test_upload_brings_every_layout(device, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    host = data.draw(hnp.arrays(dtype, data.draw(shapes)))
    layout = data.draw(st.sampled_from(["plain", "transposed", "reversed", "every second", "read-only"]))
    view = {
        "plain": lambda: host,
        "transposed": lambda: host.T,
        "reversed": lambda: host[..., ::-1] if host.ndim else host,
        "every second": lambda: host[::2] if host.ndim else host,
        "read-only": lambda: np.broadcast_to(host, (2, *host.shape)),
    }[layout]()
    array = program.upload(device, view)
    assert (array.shape, array.dtype) == (view.shape, view.dtype)
    assert array.flags.c_contiguous and array.offset == 0
    assert np.array_equal(array.get(), view, equal_nan=view.dtype.kind == "f")


def test_uploads_finish_in_order_and_are_let_go(device):
    hosts = [np.random.default_rng(i).standard_normal(10_007 * (i + 1), dtype=np.float32) for i in range(30)]
    expected = [host.copy() for host in hosts]
    arrays = [program.upload(device, hosts.pop(0)) for _ in range(30)]  # nobody else keeps the host's array
    for array, host in zip(arrays, expected):
        assert np.array_equal(array.get(), host)
    device.synchronize()
    program.upload(device, expected[0])
    device.synchronize()
    program.upload(device, expected[0])
    assert len(device.uploads) <= 2


@given(st.data())
def test_fill_copy_and_reshape(device, data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=11))
    dtype = data.draw(st.sampled_from([np.float32, np.int32, np.bool_]))
    value = data.draw(hnp.from_dtype(np.dtype(dtype), allow_nan=False))
    filled = program.fill(program.empty(device, shape, dtype), value)
    assert np.array_equal(filled.get(), np.full(shape, value, dtype))

    host = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False)))
    program.copy_into(filled, program.upload(device, host))
    assert np.array_equal(filled.get(), host)

    flat = program.reshaped(filled, (host.size,))
    assert np.array_equal(flat.get(), host.ravel())
    program.fill(flat, value)  # the same memory
    assert np.array_equal(filled.get(), np.full(shape, value, dtype))


def test_c_names():
    assert [program.c_name(t) for t in (np.float32, "float64", np.int32, np.dtype(bool))] == [
        "float", "double", "int", "uchar",
    ]  # fmt: skip


def test_only_operations_and_optimisers_launch_kernels():
    # The house rule: everything else goes through them. The lab launches what students write.
    package = sys.modules["clnn"].__path__[0]
    from pathlib import Path

    users = {
        path.relative_to(package).as_posix()
        for path in Path(package).rglob("*.py")
        if re.search(r"\blaunch\(|enqueue_nd_range", path.read_text(encoding="utf-8"))
    }
    assert {u for u in users if not u.startswith(("ops/", "lab/"))} <= {"program.py", "optim.py"}
