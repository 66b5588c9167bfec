"""Exercises for kernels: wrong kernels are refused with words on their fault, right ones are not.

The exercises stand here, in a module, because the process that checks imports them, too.
"""

import numpy as np
import pytest

import clnn
from clnn.lab import check, kernel_check, simulator
from clnn.lab.kernel import Cell
from clnn.lab.kernel_check import Case, kernel_exercise, kernel_task
from clnn.lab.sandbox import Sandbox

kernel_exercise(
    "test: twice",
    kernel_task(
        "twice(__global const float *x, __global float *y, int n)",
        inputs=lambda rng, n: {"x": rng.normal(size=n), "n": n},
        reference=lambda x: 2 * x,
        cases=[(63,), (64,), (1,), (500,)],
        small=(13,),
        large=(1 << 16,),
        size=lambda n: n,
        local=[64, 16],
        faults={"That is the square.": lambda x: x * x, "It never fits.": lambda x: 1 / 0},
        flops=lambda n: n,
    ),
)
kernel_exercise(
    "test: add to",
    kernel_task(
        "add_to(__global float *y, __global const float *x, float a, int n)",
        inputs=lambda rng, n: {"x": rng.normal(size=n), "y": rng.normal(size=n), "a": 0.3, "n": n},
        reference=lambda x, y, a: y + a * x,
        cases=[(63,), (100,)],
        small=(13,),
        size=lambda n: n,
    ),
    kernel_task(
        "count(__global const int *x, __global int *counts, int n)",
        inputs=lambda rng, n: {"x": rng.integers(0, 7, n), "n": n},
        reference=lambda x: np.bincount(x, minlength=7),
        cases=[(63,), (100,)],
        small=(13,),
        size=7,
        local=7,
    ),
)
kernel_exercise(
    "test: row sum",
    kernel_task(
        "row_sum(__global const float *x, __global float *sums, __local float *part, int columns)",
        inputs=lambda rng, rows, columns: {"x": rng.normal(size=(rows, columns)), "columns": columns},
        reference=lambda x: x.sum(1),
        cases=[(3, 63), (5, 200), (1, 1)],
        small=(2, 21),
        size=lambda x, local: len(x) * local,
        local=[64, 16],
    ),
)
kernel_exercise(
    "test: transpose",
    kernel_task(
        "transpose(__global const float *x, __global float *y, int rows, int columns)",
        inputs=lambda rng, rows, columns: {"x": rng.normal(size=(rows, columns)), "rows": rows, "columns": columns},
        reference=lambda x: x.T,
        cases=[(16, 32), (5, 33), (17, 3)],
        small=(5, 9),
        size=lambda rows, columns: (columns, rows),
        local=(16, 4),
    ),
)

needs_oclgrind = pytest.mark.skipif(not simulator.is_installed(), reason="Oclgrind is not installed")
TWICE = """
__kernel void twice(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    BODY
}
"""
ROW_SUM = """
__kernel void row_sum(__global const float *x, __global float *sums, __local float *part, int columns)
{
    int l = get_local_id(0), wide = get_local_size(0), row = get_group_id(0);
    float sum = 0;
    for (int c = l; c < columns; c += wide) sum += x[row * columns + c];
    part[l] = sum;
    for (int s = wide / 2; s > 0; s /= 2) {
        BARRIER
        if (l < s) part[l] += part[l + s];
    }
    if (l == 0) sums[row] = part[0];
}
"""
ADD_TO = """
__kernel void add_to(__global float *y, __global const float *x, float a, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] += a * x[i];
}
"""
COUNT = """
__kernel void count(__global const int *x, __global int *counts, int n)
{
    int bin = get_global_id(0), found = 0;
    for (int i = 0; i < n; i++) found += x[i] == bin;
    BODY
}
"""
TURN = "if (r < rows && c < columns) y[c * rows + r] = x[r * columns + c];"
TRANSPOSE = """
__kernel void transpose(__global const float *x, __global float *y, int rows, int columns)
{
    int c = get_global_id(0), r = get_global_id(1);
    BODY
}
"""


def twice(body):
    return TWICE.replace("BODY", body)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Nobody waits ten seconds here for a loop that does not end."""
    former, kernel_check._sandbox = kernel_check._sandbox, Sandbox(seconds=4)
    yield
    kernel_check._sandbox.close()
    kernel_check._sandbox = former


@pytest.mark.parametrize("name, text", [
    ("test: twice", twice("if (i < n) y[i] = 2 * x[i];")),
    ("test: twice", twice("if (i < n) { y[i] = x[i]; y[i] += x[i]; }")),
    ("test: add to", ADD_TO + COUNT.replace("BODY", "counts[bin] = found;")),
    ("test: row sum", ROW_SUM.replace("BARRIER", "barrier(CLK_LOCAL_MEM_FENCE);")),
    ("test: transpose", TRANSPOSE.replace("BODY", TURN)),
])  # fmt: skip
def test_right(name, text, device):
    result = check(name, text)
    assert result.right, result
    cell = Cell(text)
    assert check(name, cell).right and check(name, next(iter(cell.kernels.values()))).right


@pytest.mark.parametrize("text, words", [
    (twice("// about one line: y[i] = ..."), ""),
    (twice("/* y[i] = 2 * x[i]; */"), ""),
    (twice("if (i < n && x[i] >= 0 && y[i] != 0 && x[i] == 1) return;"), ""),
    ("__kernel void other(__global float *x) {}", "no kernel 'twice' yet; it has other. Its head is twice(__global "),
    (None, ""),
])  # fmt: skip
def test_not_done_yet(text, words, device):
    result = check("test: twice", text)
    assert not result.done and not result.right and words in result.message


def test_the_second_kernel_is_empty(device):
    result = check("test: add to", ADD_TO + COUNT.replace("BODY", "// store it"))
    assert not result.done and result.message == "count writes nothing yet."


WRONG = {
    "no guard": (twice("y[i] = 2 * x[i];"), ["twice writes past the end of `y`: 1 element there, with n = 63"]),
    "guard off by one": (twice("if (i <= n) y[i] = 2 * x[i];"), ["writes past the end of `y`: 1 element"]),
    "before the start": (twice("if (i < n) y[i] = 2 * x[i]; if (!i) y[-2] = 3;"), ["before the start of `y`"]),
    "guard the other way round": (twice("if (i > n) y[i] = 2 * x[i];"), ["past the end"]),
    "never true": (twice("if (i < 0) y[i] = 2 * x[i];"), ["writes nothing to `y`: no work-item comes to a line"]),
    "last one left out": (
        twice("if (i < n - 1) y[i] = 2 * x[i];"), ["never written: 1 of the 63 elements of `y` of twice, first [62]"],
    ),
    "known fault": (twice("if (i < n) y[i] = x[i] * x[i];"), ["That is the square."]),
    "sign": (twice("if (i < n) y[i] = -2 * x[i];"), ["`y` of twice has the wrong sign"]),
    "factor": (twice("if (i < n) y[i] = 3 * x[i];"), ["1.5 times what is expected"]),
    "neighbour": (twice("if (i < n) y[i] = 2 * x[i + 1];"), ["NaN", "first [62]"]),
    "input changed": (
        twice("if (i < n) y[i] = 2 * x[i];").replace("const ", "").replace("if", "if (i < n) x[i] += 0.5f;\n    if"),
        ["changes `x`, which it should only read"],
    ),
    "only whole groups": (
        twice("if (i < n / 16 * 16) y[i] = 2 * x[i];"), ["never written: 15 of the 63", "It is right with n = 64"],
    ),
    "other arguments": (
        "__kernel void twice(__global const float *x, __global float *y) {}", ["takes other arguments", "int n)"],
    ),
    "does not compile": (twice("if (i < n) y[i] = 2 * z[i];"), ["does not compile", "line 5: ", "^"]),
    "endless loop": (twice("while (n) y[i % n] = 1;"), ["stopped after 4 seconds", "with n = 63"]),
    "far outside": (twice("y[i + 1000000000000L] = 1;"), ["ended the process", "far outside of its arrays"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_wrong(fault, device):
    if device.kind != "CPU" and fault == "far outside":
        pytest.skip("a GPU may let it pass")
    text, words = WRONG[fault]
    result = check("test: twice", text)
    assert result.done and not result.right
    assert all(word in result.message for word in words), result


@pytest.mark.parametrize("body, words", [
    ("counts[bin] = found + 1;", "too large by 1"), ("counts[bin + 1] = found;", "past the end of `counts`"),
    ("if (found) counts[0] = found;", "never written: 6 of the 7"),
])  # fmt: skip
def test_whole_numbers(body, words, device):
    result = check("test: add to", ADD_TO + COUNT.replace("BODY", body))
    assert words in result.message


def test_what_is_added_to_must_stay(device):
    text = ADD_TO.replace("+=", "=") + COUNT.replace("BODY", "counts[bin] = found;")
    assert "`y` of add_to" in check("test: add to", text).message


def test_index_hidden_by_a_square(device):
    body = TURN.replace("c * rows + r", "c * columns + r")  # right where there are as many rows as columns
    assert "past the end of `y`" in check("test: transpose", TRANSPOSE.replace("BODY", body)).message


@needs_oclgrind
def test_missing_barrier(device):
    message = check("test: row sum", ROW_SUM.replace("BARRIER", "")).message
    assert "Two work-items race" in message and "line 10, `if (l < s)" in message


@needs_oclgrind
def test_races_that_the_values_do_not_show(device):
    """On a CPU the work-items of a group run one after the other, so that each repairs what the one before spoilt."""
    if device.kind == "GPU":
        pytest.skip("there the values may show it")
    body = """int next = get_local_id(0) + 1 < get_local_size(0) && i + 1 < n ? i + 1 : i;
    if (i < n) { y[next] = 0; y[i] = 2 * x[i]; }"""
    message = check("test: twice", twice(body)).message
    assert message.startswith("Two work-items race in line 6") and "element 1 of `y`" in message


def test_messages_stay_the_same(device):
    text = twice("if (i < n) y[i] = x[i] + 1;")
    assert check("test: twice", text) == check("test: twice", text)


def test_race_and_time(device):
    cell = Cell(twice("if (i < n) y[i] = 2 * x[i];"))
    if simulator.is_installed():
        assert kernel_check.race("test: twice", cell).clean
        assert kernel_check.race("test: twice", Cell(twice("y[i] = 2 * x[i];"))).findings[0].kind == "bounds"
    if device.kind != "simulator":
        (timing,) = kernel_check.time("test: twice", cell)
        assert timing.name == "twice" and timing.nbytes == 8 << 16 and timing.flops == 1 << 16 and timing.seconds > 0
        with pytest.raises(clnn.ClnnError, match="stopped after 4 seconds"):
            kernel_check.time("test: twice", Cell(twice("while (n) y[i % n] = 1;")))


def test_errors(device):
    with pytest.raises(clnn.ClnnError, match="no exercise is named 'test: nothing'"):
        kernel_check.find_exercise("test: nothing")
    with pytest.raises(clnn.ClnnError, match=r"'x_at' asks for no kernel: check it with lab.check\('x_at', "):
        kernel_check.find_exercise("x_at")
    with pytest.raises(clnn.ClnnError, match="not the head of a kernel"):
        kernel_task("twice", None, None, cases=[], small=(), size=1)
    assert "A cell of OpenCL C is expected" in check("test: twice", 3).message


def test_cases_are_drawn_alike_in_every_process():
    task = kernel_check.find_exercise("test: twice").tasks[0]
    a, b = (Case.of(task, (63,), 1) for _ in range(2))
    np.testing.assert_array_equal(a.values["x"], b.values["x"])
    assert a.values["x"].dtype == np.float32 and a.given["x"].dtype == np.float64
    assert a.local == (16,) and a.size == 63 and str(a) == "n = 63, work-groups of 16"
    assert a.arguments()[1:] == [(63,), 63]
