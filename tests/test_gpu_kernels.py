"""The kernel exercises of notebook 05: solutions are accepted, wrong kernels refused with words on their fault."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from clnn.lab import check, kernel_check, simulator
from clnn.lab.kernel import Cell

SOLUTIONS_FILE = Path(__file__).parents[1] / "course" / "solutions" / "05_gpu_kernels.py"
SOLUTIONS = runpy.run_path(str(SOLUTIONS_FILE))
BARRIER = "barrier(CLK_LOCAL_MEM_FENCE);\n"
RACE = "Two work-items race"
NOT_ALL = "of a work-group come to this barrier; all or none must"

# exercise: fault: (what stands in the solution, what stands there instead, words of the message)
WRONG = {
    "add": {
        "missing guard": ("if (i >= n) return;", "", "writes past the end of `c`"),
        "guard off by one": ("i >= n", "i > n", "writes past the end of `c`: 1 element"),
        "last element left out": ("i >= n", "i >= n - 1", "never written"),
        "sign": ("a[i] + b[i]", "a[i] - b[i]", "c holds a - b"),
        "place in the group": ("get_global_id(0)", "get_local_id(0)", "Only the first work-group"),
        "loop without end": ("c[i] = a", "while (n > 0) c[i] = a", "is there a loop that does not end?"),
    },
    "leaky_relu": {
        "missing guard in the gradient": (
            "slope, int n)\n{\n    int i = get_global_id(0);\n    if (i >= n) return;\n    dx",
            "slope, int n)\n{\n    int i = get_global_id(0);\n    dx",
            "leaky_relu_backward writes past the end of `dx`",
        ),
        "gradient 0 below 0": ("slope * dy[i]", "0", "gradient is 0 below 0"),
        "gradient without dy": ("? dy[i] : slope * dy[i]", "? 1 : slope", "chain rule"),
        "gradient's sides exchanged": ("x[i] > 0 ? dy[i]", "x[i] < 0 ? dy[i]", "sides of the gradient are exchanged"),
        "flat below 0": ("slope * x[i]", "0", "plain ReLU"),
    },
    "bias_tanh": {
        "bias of the row": ("bias[j]", "bias[i]", "chosen by the row"),
        "tanh before the bias": ("tanh(x[i * columns + j] + bias[j])", "tanh(x[i * columns + j]) + bias[j]", "inside"),
        "guard of one side": ("i >= rows || j >= columns", "i >= rows", "writes past the end of `y`"),
    },
    "row_sum": {
        "index exchanged": ("x[i * columns + j]", "x[j * columns + i]", "Rows and columns are mixed up"),
        "right on squares only": ("x[i * columns + j]", "x[i * rows + j]", "64, columns = 64"),
        "last column left out": ("j < columns", "j < columns - 1", "last column is left out"),
        "missing guard": ("if (i >= rows) return;", "", "writes past the end of `sums`"),
        "mean for sum": ("sums[i] = sum", "sums[i] = sum / columns", "mean of each row"),
    },
    "max_pool": {
        "begins with 0": ("most = corner[0]", "most = corner[0] > 0 ? corner[0] : 0", "all negative give 0"),
        "right on even widths only": ("y[i * (width / 2) + j]", "y[(i * width) / 2 + j]", "height = 7, width = 9"),
        "one of four left out": ("if (corner[width + 1] > most) most = corner[width + 1];", "", "left out"),
        "missing guard": ("if (i >= height / 2 || j >= width / 2) return;", "", "writes past the end of `y`"),
    },
    "row_softmax": {
        "overflow": ("exp(x[j] - most)", "exp(x[j])", "Rows of large numbers give NaN"),
        "not divided": ("y[j] /= sum", "y[j] /= 1", "must add up to 1"),
        "first column left out": ("j = 0; j < columns; j++) {", "j = 1; j < columns; j++) {", "before it is set?"),
        "right on squares only": ("x += i * columns", "x += i * rows", "read from outside"),
    },
    "histogram": {
        "race": (
            "    int count = 0;\n    for (int i = 0; i < n; i++)\n        if (x[i] == bin) count++;\n"
            "    counts[bin] = count;",
            "    counts[bin] = 0;\n    for (int i = bin; i < n; i += bins)\n        counts[x[i]]++;",
            RACE,
        ),
        "adds to what was there": ("counts[bin] = count", "counts[bin] += count", "uses a value that nothing has set"),
        "last left out": ("i < n", "i < n - 1", "last number of x is not counted"),
        "missing guard": ("if (bin >= bins) return;", "", "writes past the end of `counts`"),
    },
    "transpose": {
        "missing barrier": (BARRIER, "", RACE),
        "return before the barrier": (
            "if (i < rows && j < columns) tile", "if (i >= rows || j >= columns) return; tile", NOT_ALL,
        ),
        "missing guard": ("if (row < columns && column < rows) y", "y", "writes past the end of `y`"),
        "right on squares only": ("y[row * rows + column]", "y[row * columns + column]", "rows = 5, columns = 33"),
        "tile not turned": ("tile[tx][ty]", "tile[ty][tx]", "transposed"),
    },
    "conv1d": {
        "missing barrier": (BARRIER, "", RACE),
        "return before the barrier": ("for (int t = me; t", "if (i >= n) return; for (int t = me; t", NOT_ALL),
        "halo left out": ("for (int t = me; t < 64 + 4; t += 64)", "int t = me;", "uses a value that nothing has set"),
        "filter turned round": ("w[k]", "w[4 - k]", "filter is turned round"),
        "edge repeated": (
            "first + t >= 0 && first + t < n ? x[first + t] : 0",
            "x[max(0, min(first + t, n - 1))]",
            "repeats the number",
        ),
        "missing guard": ("if (i >= n) return;", "", "writes past the end of `y`"),
    },
    "group_sum": {
        "missing barrier": (BARRIER, "\n", RACE),
        "barrier in a branch": (
            f"{BARRIER}        if (me < step) part[me] += part[me + step];",
            f"if (me < step) {{ {BARRIER} part[me] += part[me + step]; }}",
            NOT_ALL,
        ),
        "reads past the end": ("i < n ? x[i] : 0", "x[i]", "reads element 130 of `x`"),
        "all of them write": ("if (me == 0) sums", "sums", RACE),
        "one half left out": ("step > 0", "step > 1", "One half of each group is left out"),
        "loop without end": ("step /= 2", "step", "is there a loop that does not end?"),
    },
    "tiled_gemm": {
        "second barrier missing": (f"right[k][tx];\n        {BARRIER}", "right[k][tx];\n", RACE),
        "first barrier missing": (f": 0;\n        {BARRIER}", ": 0;\n", RACE),
        "return before the barrier": ("float sum = 0;", "float sum = 0; if (i >= M || j >= N) return;", NOT_ALL),
        "rest of K dropped": ("k0 < K; k0 += 16", "k0 + 16 <= K; k0 += 16", "last, shorter tile along K"),
        "right on squares only": ("b[(k0 + ty) * N + j]", "b[(k0 + ty) * K + j]", "It is right with"),
        "missing guard": ("if (i < M && j < N) c", "c", "writes past the end of `c`"),
        "b by its rows": ("b[(k0 + ty) * N + j]", "b[j * K + k0 + ty]", "as if it were stored column after column"),
    },
}  # fmt: skip
# Faults that do not show: exercise, fault, sizes on which its result is right, and what makes the input symmetric.
HIDDEN_BY_SYMMETRY = [
    ("row_sum", "index exchanged", (64, 64), {"x": lambda x: x + x.T}),
    ("transpose", "tile not turned", (16, 16), {"x": lambda x: x + x.T}),
    ("tiled_gemm", "b by its rows", (32, 32, 32), {"b": lambda b: b + b.T}),
    ("conv1d", "filter turned round", (128,), {"w": lambda w: w + w[::-1]}),
]
HIDDEN_BY_FULL_TILES = [
    ("add", "missing guard", (64,), {}),
    ("row_sum", "right on squares only", (64, 64), {}),
    ("max_pool", "right on even widths only", (8, 6), {}),
    ("row_softmax", "right on squares only", (64, 64), {}),
    ("transpose", "right on squares only", (32, 32), {}),
    ("group_sum", "reads past the end", (128,), {}),
    ("tiled_gemm", "rest of K dropped", (32, 16, 48), {}),
    ("tiled_gemm", "right on squares only", (32, 32, 32), {}),
]
KINDS = {
    "missing barrier": [
        (n, f) for n in WRONG for f in WRONG[n] if f.endswith("barrier missing") or f == "missing barrier"
    ],
    "barrier not for all": [(n, f) for n in WRONG for f in WRONG[n] if "the barrier" in f or "in a branch" in f],
    "missing guard": [(n, f) for n in WRONG for f in WRONG[n] if "guard" in f],
    "hidden by symmetry": [(n, f) for n, f, *_ in HIDDEN_BY_SYMMETRY],
    "wrong on ragged sizes only": [(n, f) for n, f, *_ in HIDDEN_BY_FULL_TILES],
    "wrong gradient": [(n, f) for n in WRONG for f in WRONG[n] if "gradient" in f and "guard" not in f],
    "loop without end": [(n, f) for n in WRONG for f in WRONG[n] if f == "loop without end"],
}
pytestmark = pytest.mark.skipif(not simulator.is_installed(), reason="no Oclgrind: pip install 'clnn[oclgrind]'")


@pytest.mark.parametrize("name", WRONG)
def test_solution_and_skeleton(name):
    assert check(name, SOLUTIONS[name]).right
    head, _, _ = SOLUTIONS[name].partition("{")
    empty = check(name, f"{head}{{\n    // about 3 lines\n}}\n")
    assert not empty.done


@pytest.mark.parametrize("name", WRONG)
def test_wrong_kernels_are_refused(name, monkeypatch, capsys):
    """Prints the table exercise, fault, kinds of fault, verdict."""
    monkeypatch.setattr(kernel_check._sandbox, "seconds", 5)
    lines = [""]
    for fault, (right, wrong, words) in WRONG[name].items():
        assert right in SOLUTIONS[name], fault
        result = check(name, SOLUTIONS[name].replace(right, wrong))
        assert not result.right and result.done, f"{name} with {fault} was accepted"
        assert words in result.message, f"{name} with {fault}: {result.message}"
        said = next(line for line in result.message.splitlines() if words in line)
        kinds = ", ".join(kind for kind, faults in KINDS.items() if (name, fault) in faults)
        lines.append(f"{name:12}{fault:31}{kinds:44}refused: {said[:100]}")
    with capsys.disabled():
        print("\n".join(lines))


# Each work-item for itself
ALONE = {
    "transpose": "int j = get_global_id(0), i = get_global_id(1);"
    "if (i < rows && j < columns) y[j * rows + i] = x[i * columns + j];",
    "conv1d": "int i = get_global_id(0); if (i >= n) return; float sum = 0;"
    "for (int k = 0; k < 5; k++) if (i + k >= 2 && i + k < n + 2) sum += w[k] * x[i + k - 2]; y[i] = sum;",
    "group_sum": "int i = get_global_id(0); float sum = 0; if (get_local_id(0)) return;"
    "for (int k = i; k < i + 64 && k < n; k++) sum += x[k]; sums[get_group_id(0)] = sum;",
    "tiled_gemm": "int j = get_global_id(0), i = get_global_id(1); if (i >= M || j >= N) return; float sum = 0;"
    "for (int k = 0; k < K; k++) sum += a[i * K + k] * b[k * N + j]; c[i * N + j] = sum;",
}


@pytest.mark.parametrize("name", ALONE)
def test_local_memory_is_asked_for(name):
    """By the exercises that are about it; a word in a comment does not count."""
    head, _, _ = SOLUTIONS[name].partition("{")
    result = check(name, f"{head}{{\n    // __local\n    {ALONE[name]}\n}}\n")
    assert result.done and not result.right and "right, but no local memory is used" in result.message


def test_every_exercise_has_three_wrong_kernels_or_more():
    assert set(WRONG) == {name for name in SOLUTIONS if not name.startswith("_")}
    assert all(len(faults) >= 3 for faults in WRONG.values())


def test_every_kind_of_fault_is_there():
    known = {(name, fault) for name, faults in WRONG.items() for fault in faults}
    for kind, faults in KINDS.items():
        assert faults and set(faults) <= known, kind
    assert len(KINDS["missing barrier"]) >= 5 and len(KINDS["missing guard"]) >= 8


@pytest.mark.parametrize(("name", "fault", "sizes", "made"), HIDDEN_BY_SYMMETRY + HIDDEN_BY_FULL_TILES)
def test_hidden_faults_are_hidden(name, fault, sizes, made):
    """On such an input the wrong kernel's result is right, so that only the check's other cases can tell."""
    right, wrong, _ = WRONG[name][fault]
    (task,) = kernel_check.find_exercise(name).tasks

    def inputs(rng, *sizes):
        values = task.inputs(rng, *sizes)
        return values | {key: change(values[key]) for key, change in made.items()}

    case = kernel_check.Case.of(replace(task, inputs=inputs), sizes)
    cell = Cell(SOLUTIONS[name].replace(right, wrong))
    assert kernel_check._try(cell.kernels[name], case).close(case.want)


SOLVE = """
import runpy, sys
import clnn
from clnn.lab import check
assert clnn.device().kind == "simulator"
for name, answer in runpy.run_path(sys.argv[1]).items():
    if not name.startswith("_"):
        result = check(name, answer)
        print(name, result.right, result.message)
"""


def test_solutions_are_right_in_the_simulator(run_python):
    """With Oclgrind as the device in use, whose cores are no processor's."""
    done = run_python("-c", SOLVE, str(SOLUTIONS_FILE), CLNN_DEVICE="oclgrind")
    assert done.returncode == 0, done.stderr
    verdicts = [line.split()[:2] for line in done.stdout.splitlines()]
    assert verdicts == [[name, "True"] for name in WRONG], done.stdout
