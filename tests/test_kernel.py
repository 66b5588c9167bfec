"""Kernels of a cell: what they compute, and what they say to wrong arguments."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clnn
from clnn.lab.kernel import Argument, Cell, Kernel

ADD = """
__kernel void add(__global const float *a, __global const float *b, __global float *out, int n)
{
    int i = get_global_id(0);
    if (i < n) out[i] = a[i] + b[i];
}
"""
FILL = """
__kernel void fill(__global TYPE *out, TYPE value)
{
    out[get_global_id(0)] = value;
}
"""


@pytest.fixture
def add(device):
    return Cell(ADD).kernels["add"]


@given(n=st.integers(1, 300), local=st.sampled_from([None, 1, 7, 64]), seed=st.integers(0, 99))
def test_tensors_and_numpy_arrays(add, n, local, seed):
    a, b = np.random.default_rng(seed).standard_normal((2, n), dtype=np.float32)
    out = clnn.zeros(n)
    add(clnn.tensor(a), clnn.tensor(b), out, n, size=n, local=local)
    np.testing.assert_array_equal(out.numpy(), a + b)
    for dtype in (np.float32, np.float64):
        host = np.full((2, n), -1, dtype)
        add(a.astype(dtype), clnn.tensor(b), host[1], n, size=(n,), local=local)
        np.testing.assert_array_equal(host[1], a + b)  # written in place, through a view
        assert (host[0] == -1).all()


def test_const_arrays_come_back_unread(add):
    a = np.ones(3)
    a.flags.writeable = False
    out = np.zeros(3)
    add(a, a, out, 2, size=3)
    assert out.tolist() == [2, 2, 0]


@pytest.mark.parametrize("kind, dtype, value", [
    ("char", np.int8, -5), ("uchar", np.uint8, 250), ("short", np.int16, -300), ("ushort", np.uint16, 65_000),
    ("int", np.int32, -7), ("uint", np.uint32, 4_000_000_000), ("long", np.int64, -(2**40)),
    ("ulong", np.uint64, 2**63), ("float", np.float32, 1.5), ("unsigned int", np.uint32, 5),
])  # fmt: skip
def test_types_of_numbers(device, kind, dtype, value):
    out = np.zeros(5, dtype)
    Cell(FILL, (f"-DTYPE={kind}",) if " " not in kind else ("-DTYPE=uint",)).kernels["fill"](
        out, value, size=5, local=5
    )
    assert (out == value).all()


def test_local_memory_and_dimensions(device):
    text = """
    __kernel void turn(__global const float *x, __global float *y, __local float *tile, int rows, int columns)
    {
        int c = get_global_id(0), r = get_global_id(1), at = get_local_id(1) * get_local_size(0) + get_local_id(0);
        if (r < rows && c < columns) tile[at] = x[r * columns + c];
        barrier(CLK_LOCAL_MEM_FENCE);
        if (r < rows && c < columns) y[c * rows + r] = tile[at];
    }
    """
    x, y = np.random.default_rng(0).random((5, 7), dtype=np.float32), np.zeros((7, 5), np.float32)
    Cell(text).kernels["turn"](x, y, 16, 5, 7, size=(7, 5), local=(4, 4))
    np.testing.assert_array_equal(y, x.T)


def test_written_labels_are_checked_anew(device):
    labels = clnn.tensor([0, 1])
    assert labels.bounds == (0, 1)
    Cell(FILL, ("-DTYPE=int",)).kernels["fill"](labels, 9, size=2, local=2)
    assert labels.bounds is None and labels.numpy().tolist() == [9, 9]


A = np.ones(3, np.float32)


@pytest.mark.parametrize("arguments, size, local, words", [
    ((A, A, A), 3, None, r"add\(__global const float \*a.* takes 4 arguments and size=, got 3"),
    ((A, A, A, 1.5), 3, None, r"`n` takes a whole number \(int\), got 1.5"),
    ((A, A, A, A), 3, None, r"`n` takes one number \(int\), got a NumPy array of float32"),
    ((A, A, A, True), 3, None, r"`n` takes one number"),
    ((A, A, A, 2**31), 3, None, r"`n` takes int, -2147483648 to 2147483647, got 2147483648"),
    ((A, [1.0], A, 3), 3, None, r"`b` takes a Tensor or a NumPy array, got list"),
    ((A, A.astype(int), A, 3), 3, None, r"`b` takes float elements, got a NumPy array of int64: use astype"),
    ((A, A, A[:0], 3), 3, None, r"`out` takes an array with at least one element"),
    ((A, A, A, 3), None, None, r"how many work-items shall run: add\(\.\.\., size=1000\)"),
    ((A, A, A, 3), 2.5, None, r"size must be one to three whole numbers from 1 to 2147483647 .*, got 2.5"),
    ((A, A, A, 3), 2**70, None, r"size must be .* got 1180591620717411303424"),
    ((A, A, A, 3), (3, 1, 1, 1), None, r"size must be"),
    ((A, A, A, 3), 3, (1, 2), r"size \(3,\) and local \(1, 2\) must have the same number of dimensions"),
    ((A, A, A, 3), 3, 10**6, r"local=\(1000000,\) makes 1000000 work-items a group"),
])  # fmt: skip
def test_errors(add, arguments, size, local, words):
    with pytest.raises(clnn.ClnnError, match=words):
        add(*arguments, size=size, local=local)


def test_wrong_tensors(add):
    out = clnn.zeros(2)
    with pytest.raises(clnn.DTypeError, match="`a` takes float elements, got a Tensor of int32"):
        add(clnn.tensor([1, 2]), out, out, 2, size=2)
    read_only = np.zeros(2)
    read_only.flags.writeable = False
    with pytest.raises(clnn.DTypeError, match="read-only"):
        add(out, out, read_only, 2, size=2)
    other = clnn.Device(clnn.device().cl_device)
    with pytest.raises(clnn.DeviceError, match="`b` lies on"):
        add(out, clnn.tensor([1.0, 2.0], device=other), out, 2, size=2)


def test_whole_numbers_must_fit(device):
    text = "__kernel void f(__global const uchar *x, __global int *y) { int i = get_global_id(0); y[i] = x[i]; }"
    f, y = Cell(text).kernels["f"], np.full(3, 2**40)  # what stands in a result does not matter
    f(np.array([0, 7, 255]), y, size=3, local=3)
    assert y.tolist() == [0, 7, 255]
    for wrong in (-1, 256):
        with pytest.raises(clnn.DTypeError, match=rf"`x` takes uchar, 0 to 255, got {wrong}"):
            f(np.array([0, wrong, 9]), y, size=3, local=3)


def test_required_groups(device):
    text = (
        "__kernel __attribute__((reqd_work_group_size(4, 2, 1))) void f(__global int *x) { x[get_global_id(0)] = 1; }"
    )
    f, x = Cell(text).kernels["f"], np.zeros(8, np.int32)
    f(x, size=(8, 2))
    assert x.all()
    with pytest.raises(clnn.ShapeError, match=r"written for work-groups of \(4, 2\)"):
        f(x, size=(8, 2), local=(8, 1))


def test_compile_errors(device, capfd):
    with pytest.raises(clnn.KernelCompileError) as caught:
        Cell("\n__kernel void f(__global float *x)\n{\n    x[0] = nothing;\n}\n")
    words = str(caught.value)
    assert words.startswith("the cell does not compile on") and "line 4: " in words and "nothing" in words
    assert words.splitlines()[-1].index("^") == words.splitlines()[-2].index("nothing")
    for text in ("float half_of(float x) { return x / 2; }", "// no kernel\nvoid f() {}", "/* __kernel\n */", "\n"):
        with pytest.raises(clnn.KernelCompileError, match="holds no kernel"):
            Cell(text)
    assert capfd.readouterr().err == ""  # PoCL's own count of errors is no help


def test_heads(device):
    head = "f(__global const float *a, __constant uchar *b, __local float4 *c, __global int *d, float e, uint g)"
    f = Cell(f"kernel void {head} {{}}").kernels["f"]
    assert repr(f) == head.replace("__constant uchar", "__constant const uchar").replace("const const", "const")
    parsed = [Argument.parse(text) for text in head[2:-1].split(",")]
    assert f.types == [(a.type, a.space) for a in parsed]
    assert [a.written for a in parsed] == [False, False, False, True, False, False]
    assert [a.itemsize for a in parsed] == [4, 1, 16, 4, 4, 4]
    for wrong in ("float *x", "__global float x", "__global", "float x y"):
        with pytest.raises(clnn.DTypeError, match="not an argument"):
            Argument.parse(wrong)


def test_kernels_of_all_names(device):
    """Put together by a macro, named in a comment first, without arguments, like a function of OpenCL C."""
    text = """// second comes after first
    #define MAKE(name) __kernel void name##_made(__global int *x) { x[0] = 3; }
    MAKE(third)
    __kernel void first() {}
    __kernel void second(__global int *x) { x[0] = 2; }"""
    kernels, x = Cell(text).kernels, np.zeros(1, np.int32)
    assert list(kernels) == ["first", "second", "third_made"]
    kernels["first"](size=1)
    kernels["third_made"](x, size=1)
    assert x[0] == 3
    try:
        assert list(Cell("__kernel void max(__global int *x) { x[0] = 1; }").kernels) == ["max"]
    except clnn.KernelCompileError as error:
        assert re.search(r"OpenCL C has a function max\(\) of its own|line 1: ", str(error))


def test_vectors_by_value(device):
    f = Cell("__kernel void f(float4 a, __global float *y) { y[0] = a.x; }").kernels["f"]
    with pytest.raises(clnn.DTypeError, match=r"`a` takes a vector \(float4\), which cannot be given"):
        f(1.0, np.zeros(1), size=1)


def test_kernels_in_order(device):
    text = "__kernel void b(__global int *x) {} __kernel void a(__global int *x) {}"
    assert list(Cell(text).kernels) == ["b", "a"]
    assert all(isinstance(k, Kernel) for k in Cell(text).kernels.values())


def test_timing(device, monkeypatch):
    n = 1 << 16
    add = Cell(ADD).kernels["add"]
    x, out = clnn.rand(n), clnn.zeros(n)
    if device.kind == "simulator":
        with pytest.raises(clnn.DeviceError, match="simulator"):
            add.time(x, x, out, n, size=n)
        return
    timing = add.time(x, x, out, n, size=n, flops=n)
    assert timing.nbytes == 12 * n and timing.flops == n and 0 < timing.seconds < 1
    assert timing.gbps == pytest.approx(12 * n / timing.seconds / 1e9)
    assert timing.gflops == pytest.approx(n / timing.seconds / 1e9)
    monkeypatch.setitem(timing.__dict__, "ceilings", type("C", (), {"gbps": 2 * timing.gbps, "gflops": 1e9})())
    assert timing.share == pytest.approx(0.5)
    assert repr(timing).startswith("add: ") and "50% of the memory's" in repr(timing)
    assert add.time(x, x, out, n, size=n).gflops is None
    assert add.time(np.ones(n), x, out, n, size=n, nbytes=5).nbytes == 5
