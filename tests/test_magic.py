"""``%%kernel`` in a shell of IPython."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from test_kernel_check import needs_oclgrind, quick  # noqa: F401 - a fixture

import clnn
from clnn import modules as nn
from clnn import program

pytest.importorskip("IPython")
from IPython.core.interactiveshell import InteractiveShell

TWICE = """__kernel void twice(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = 2 * x[i];
}
__kernel void thrice(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = FACTOR * x[i];
}
"""


@pytest.fixture(scope="module")
def shell():
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "clnn.lab")
    return shell


@pytest.fixture
def run(shell, device, capsys):
    """Run a cell: what it shows, and the error that it ends with, if any."""

    def run(line, text=TWICE):
        result = shell.run_cell(f"{line}\n{text}")
        shown = capsys.readouterr()
        return re.sub(r"\x1b\[[\d;]*m", "", shown.out + shown.err), result.error_in_exec or result.error_before_exec

    yield run
    clnn.lab.restore()


def test_kernels_become_functions(run, shell):
    shown, error = run("%%kernel -DFACTOR=3")
    assert not error and shown == ""
    x, y = np.arange(5.0), np.zeros(5)
    shell.user_ns["twice"](x, y, 5, size=5)
    assert y.tolist() == [0, 2, 4, 6, 8]
    shell.user_ns["thrice"](x, y, 5, size=5)
    assert y.tolist() == [0, 3, 6, 9, 12]


@pytest.mark.parametrize("options", ['-o "-DFACTOR=3 -cl-fast-relaxed-math"', "--options -DFACTOR=3", "-D FACTOR=3"])
def test_options(run, shell, options):
    _, error = run(f"%%kernel {options}")
    assert not error and "thrice" in shell.user_ns


def test_compile_errors_are_no_traceback(run):
    shown, error = run("%%kernel", TWICE)  # FACTOR is not defined
    assert isinstance(error, clnn.KernelCompileError)
    assert "Traceback" not in shown and "magic.py" not in shown
    lines = shown.strip().splitlines()
    assert lines[0].startswith("KernelCompileError: the cell does not compile on")
    assert lines[1].startswith("line 10: ")  # the cell's own, the magic's line being the first
    assert lines[3].index("^") == lines[2].index("FACTOR")


def test_check(run):
    shown, error = run("%%kernel --check 'test: twice' -DFACTOR=3")
    assert not error and shown.strip() == "test: twice: right"
    shown, error = run("%%kernel --check 'test: twice' -DFACTOR=3", TWICE.replace("if (i < n) y[i] = 2", "y[i] = 2"))
    assert not error and "test: twice: not right yet. twice writes past the end" in shown
    shown, error = run("%%kernel -c 'test: twice'", TWICE[: TWICE.index("    if")] + "}")
    assert not error and shown.strip() == "test: twice: not done yet"


@needs_oclgrind
def test_race(run, shell):
    shown, _ = run("%%kernel --race -DFACTOR=3 --check 'test: twice'")
    assert shown.splitlines() == [
        "test: twice: right",
        "no race, no access out of bounds, no use of memory that nothing has set",
    ]
    wrong = TWICE.replace("if (i < n) y[i] = 2", "y[i] = 2")
    shown, _ = run("%%kernel --race -DFACTOR=3 --check 'test: twice'", wrong)
    assert "Line 5, `y[i] = 2 * x[i];`, reads element 13 of `x`" in shown


def test_race_and_time_of_the_last_call(run, shell, device):
    shell.user_ns.pop("twice", None)
    shown, error = run("%%kernel --time -DFACTOR=3")
    assert isinstance(error, clnn.ClnnError) and "twice was not called yet" in shown and "--check" in shown
    shell.user_ns["twice"](np.ones(64), clnn.zeros(64), 64, size=64)
    if device.kind != "simulator":
        shown, error = run("%%kernel --time -DFACTOR=3")  # the cell is run again: what was called before counts
        assert not error and re.fullmatch(
            r"twice: [\d.]+ [mu]s; [\d.,]+ GB/s \(\d+% of the memory's [\d.,]+\)\n", shown
        )
        shown, error = run("%%kernel --time -DFACTOR=3 --check 'test: twice'")
        assert re.search(r"GB/s .*; [\d.]+ GFLOP/s \([\d.]+% of the arithmetic's", shown)
    run("%%kernel -DFACTOR=3", TWICE.replace("if (i < n) y[i] = 2", "y[i] = 2"))
    if clnn.lab.simulator.is_installed():
        shell.user_ns["twice"](np.ones(60), np.ones(64), 60, size=64)
        shown, error = run("%%kernel --race -DFACTOR=3", TWICE.replace("if (i < n) y[i] = 2", "y[i] = 2"))
        assert "reads element 60 of `x`, which has the elements 0 to 59" in " ".join(shown.split())


OWN = """
__kernel void relu(__global const float *x, __global float *y, int n)
{ int i = get_global_id(0); if (i < n) y[i] = 7; }
__kernel void slope(__global const float *y, __global const float *dy, __global float *dx, int n)
{ int i = get_global_id(0); if (i < n) dx[i] = 8; }
"""


def test_install(run):
    shown, error = run("%%kernel --install relu --install relu_backward=slope", OWN)
    assert not error
    assert shown.splitlines() == [
        "relu is now computed by relu, until lab.restore().",
        "relu_backward is now computed by slope, until lab.restore().",
    ]
    x = clnn.tensor([1.0, -1.0], requires_grad=True)
    y = x.relu()
    y.sum().backward()
    assert y.numpy().tolist() == [7, 7] and x.grad.numpy().tolist() == [8, 8]
    clnn.lab.restore()
    assert clnn.tensor([1.0, -1.0]).relu().numpy().tolist() == [1, 0]


SOLUTIONS = Path(__file__).parents[1] / "course" / "solutions" / "05_gpu_kernels.py"
MY_RELU = """__kernel void my_relu(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = x[i] > 0 ? x[i] : 0;
}
"""


def train_lenet():
    """LeNet with ReLU after five epochs on small digits: right answers on others, weights, names of the kernels."""
    images, labels = load_digits(return_X_y=True)
    images = np.pad(np.kron(images.reshape(-1, 1, 8, 8), np.ones((3, 3))), ((0, 0), (0, 0), (2, 2), (2, 2)))
    images = (images / 16).astype(np.float32)
    clnn.manual_seed(3)
    net = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.Tanh) else m for m in clnn.models.lenet()))
    optimizer = clnn.optim.SGD(net.parameters(), lr=0.1)
    with clnn.profile() as p:
        for first in 5 * list(range(0, 1000, 50)):
            x, y = (clnn.tensor(a[first : first + 50]) for a in (images, labels))
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(net(x), y).backward()
            optimizer.step()
    answers = net(clnn.tensor(images[1000:1500])).numpy().argmax(1)
    return np.mean(answers == labels[1000:1500]), [w.numpy() for w in net.parameters()], {n.kernel for n in p.launches}


def test_lenet_learns_as_well_with_a_student_s_kernels(run):
    """And to the same bits as before once the package's are back."""
    tiled_gemm = runpy.run_path(str(SOLUTIONS))["tiled_gemm"]
    accuracy, weights, kernels = train_lenet()
    assert accuracy > 0.9
    for line, text in (("%%kernel --install relu", MY_RELU), ("%%kernel --install gemm", tiled_gemm)):
        _, error = run(line, text)
        assert not error
    own_accuracy, own_weights, own_kernels = train_lenet()
    assert {"my_relu", "tiled_gemm"} <= own_kernels - kernels
    assert abs(own_accuracy - accuracy) <= 0.01
    assert not all(map(np.array_equal, own_weights, weights))
    clnn.lab.restore()
    again, restored, usual = train_lenet()
    assert again == accuracy and usual == kernels
    for one, other in zip(restored, weights, strict=True):
        np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def test_names_that_something_else_had(run, shell):
    """Python's own, words of Python's, and what the notebook has."""
    shell.user_ns["mine"] = np.ones(3)
    for name, words in (
        ("sum", "sum was Python's own; from now on it is your kernel."),
        ("mine", "mine was of type ndarray; from now on it is your kernel."),
        ("lambda", "lambda(...) cannot be called: rename the kernel."),
    ):
        text = f"__kernel void {name}(__global int *x) {{ x[get_global_id(0)] = 1; }}"
        shown, error = run("%%kernel", text)
        assert not error and words in shown, shown
        again, _ = run("%%kernel", text)
        assert "from now on" not in again  # said once
    shell.run_cell("del sum")
    assert shell.run_cell("sum([1, 2])").result == 3


def test_a_name_says_which_kernel(run):
    _, error = run("%%kernel slope --install tanh_backward", OWN)
    assert not error and ("activation", "tanh_backward") in program.replacements
    shown, error = run("%%kernel nothing", OWN)
    assert isinstance(error, clnn.ClnnError) and "holds no kernel 'nothing'; it holds relu, slope" in shown
    shown, error = run("%%kernel --install relu=slope", OWN)
    assert isinstance(error, clnn.DTypeError) and "a kernel for relu takes" in shown
    shown, error = run("%%kernel --install relu=none", OWN)
    assert isinstance(error, clnn.ClnnError) and "holds no kernel 'none'" in shown


def test_what_is_not_right_is_not_installed(run):
    wrong = TWICE.replace("y[i] = 2 *", "y[i] = 3 *")
    shown, error = run("%%kernel -c 'test: twice' --install relu --time -DFACTOR=3", wrong)
    assert not error and "Neither timed nor installed before it is right." in shown
    assert not program.replacements


def test_usage(run):
    shown, error = run("%%kernel --chek x")
    assert error and "UsageError: %%kernel: unrecognized arguments: --chek: did you mean --check?" in shown
    assert "usage: %%kernel" in shown
    shown, error = run("%%kernel -o '-DFACTOR=3")
    assert error and "UsageError: %%kernel: No closing quotation" in shown
    shown, error = run("%%kernel --check twise -DFACTOR=3")
    assert isinstance(error, clnn.ClnnError) and "no exercise is named 'twise': did you mean" in shown
    shown, error = run("%%kernel --check x_at -DFACTOR=3")
    assert isinstance(error, clnn.ClnnError) and "the exercise 'x_at' asks for no kernel" in shown
    shown, error = run("%%kernel --help")
    assert not error and "--install OP[=KERNEL]" in shown
