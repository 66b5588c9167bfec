"""A student's kernels in the place of the package's."""

import numpy as np
import pytest
from helpers import assert_close, generator, numbers

import clnn
from clnn import lab, ops, program
from clnn import modules as nn
from clnn.lab.install import OPERATIONS
from clnn.lab.kernel import Cell
from clnn.lab.show import kernel_names

OWN = """
#define ITEM int i = get_global_id(0); if (i >= n) return;
__kernel void my_relu(__global const float *x, __global float *y, int n) { ITEM y[i] = x[i] > 0 ? x[i] : 0; }
__kernel void my_slope(__global const float *y, __global const float *dy, __global float *dx, int n)
{ ITEM dx[i] = y[i] > 0 ? dy[i] : 0; }
__kernel void seven(__global const float *x, __global float *y, int n) { ITEM y[i] = 7; }
__kernel void eight(__global const float *y, __global const float *dy, __global float *dx, int n) { ITEM dx[i] = 8; }
__kernel void nine(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    int j = get_global_id(0), i = get_global_id(1);
    if (i < M && j < N) c[i * N + j] = 9;
}
__kernel void my_gemm(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    __local float as[4][4], bs[4][4];
    int j = get_global_id(0), i = get_global_id(1), x = get_local_id(0), y = get_local_id(1);
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 4) {
        as[y][x] = i < M && k0 + x < K ? a[i * K + k0 + x] : 0;
        bs[y][x] = j < N && k0 + y < K ? b[(k0 + y) * N + j] : 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < 4; k++) sum += as[y][k] * bs[k][x];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (i < M && j < N) c[i * N + j] = sum;
}
"""


@pytest.fixture
def own(device):
    yield Cell(OWN).kernels
    lab.restore()


def net():
    clnn.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(54, 16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


def train(steps=5):
    """The parameters after some steps on random images, and the launches by kernel."""
    rng, model = generator(1), net()
    opt = clnn.optim.SGD(model.parameters(), lr=0.1)
    with clnn.profile() as p:
        for _ in range(steps):
            x, y = clnn.tensor(rng.standard_normal((8, 1, 12, 12))), clnn.tensor(rng.integers(0, 10, 8))
            loss = nn.CrossEntropyLoss()(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
    launches = {}
    for launch in p.launches:
        launches[launch.kernel] = launches.get(launch.kernel, 0) + 1
    return [v.numpy() for v in model.parameters()], launches


def test_a_net_trains_with_ones_own_kernels(own, form):
    before, _ = train()
    lab.install("relu", own["my_relu"])
    lab.install("relu_backward", own["my_slope"])
    lab.install("gemm", own["my_gemm"], local=(4, 4))
    meanwhile, launches = train()
    lab.restore()
    after, usual = train()
    assert launches["my_relu"] == launches["my_slope"] == 3 * 5  # three ReLUs, none of them fused
    assert launches["my_gemm"] == 2 * 5 * 3  # two layers: forward and both gradients
    assert not {"relu", "relu_backward", "gemm_plain"} & launches.keys()
    assert not {"my_relu", "my_slope", "my_gemm"} & usual.keys()
    for a, b, c in zip(before, meanwhile, after, strict=True):
        assert_close(b, a, 1e-5, "parameters")
        np.testing.assert_array_equal(c, a)  # the package's bits are back


def test_nothing_passes_the_installed_kernel_by(own, form):
    """Whatever way leads to an operation."""
    rng = generator(2)
    x, w, b = (clnn.tensor(numbers(rng, *s), np.float32) for s in ((3, 5), (4, 5), (4,)))
    image, filters = (clnn.tensor(numbers(rng, *s), np.float32) for s in ((1, 1, 6, 6), (2, 1, 3, 3)))
    lab.install("relu", own["seven"])
    linear, conv = nn.Linear(5, 4), nn.Conv2d(1, 2, 3)
    for result in (
        ops.relu(x), x.relu(), nn.ReLU()(x), nn.Sequential(linear, nn.ReLU())(x), ops.linear(x, w, b, "relu"),
        nn.Sequential(conv, nn.ReLU())(image), nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2))(image),
        ops.conv2d(image, filters, activation="relu"),
        ops.conv2d_max_pool2d(image, filters, None, 1, 0, 1, 1, 2, "relu"),
    ):  # fmt: skip
        assert (result.numpy() == 7).all()
    lab.restore("relu")
    lab.install("gemm", own["nine"])
    assert (ops.linear(x, w).numpy() == 9).all() and (ops.linear(x, w, activation="relu").numpy() == 9).all()
    assert (clnn.ones(2, 3, 4) @ clnn.ones(2, 4, 5)).numpy().mean() == 9
    assert_close(ops.linear(x, w, b).numpy(), np.broadcast_to(9 + b.numpy(), (3, 4)), 1e-6, "bias")
    assert_close(ops.linear(x, w, b, "tanh").numpy(), np.tanh(9 + b.numpy())[None].repeat(3, 0), 1e-6, "tanh")
    lab.restore("gemm")
    lab.install("relu_backward", own["eight"])
    x.requires_grad_()
    nn.Sequential(linear, nn.ReLU())(x).sum().backward()
    assert_close(linear.bias.grad.numpy(), np.full(4, 24.0), 1e-6, "slope")


@pytest.mark.parametrize("left, right", [((5, 7), (7, 3)), ((4, 5, 7), (4, 7, 3)), ((2, 5, 7), (7, 3)), ((7,), (7,))])
def test_products_of_all_shapes(own, left, right):
    rng = generator(3)
    a, b = numbers(rng, *left), numbers(rng, *right)
    lab.install("gemm", own["my_gemm"], local=(4, 4))
    t = [clnn.tensor(v, np.float32, requires_grad=True) for v in (a, b)]
    product = t[0] @ t[1]
    assert_close(product.numpy(), a @ b, 1e-5, "product")
    g = numbers(rng, *product.shape)
    product.backward(clnn.tensor(g, np.float32))
    mine = [v.grad.numpy() for v in t]
    lab.restore()
    t = [clnn.tensor(v, np.float32, requires_grad=True) for v in (a, b)]
    (t[0] @ t[1]).backward(clnn.tensor(g, np.float32))
    for got, want in zip(mine, t, strict=True):
        assert_close(got, want.grad.numpy(), 1e-5, "gradient")


def test_own_sizes(own):
    """A kernel whose work-items compute more than one element says how many it needs."""
    text = """
    __kernel void rows(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
    {
        int i = get_global_id(0);
        if (i < M)
            for (int j = 0; j < N; j++) {
                float sum = 0;
                for (int k = 0; k < K; k++) sum += a[i * K + k] * b[k * N + j];
                c[i * N + j] = sum;
            }
    }
    """
    lab.install("gemm", Cell(text).kernels["rows"], size=lambda m, n, k: (m,), local=(8,))
    a, b = numbers(generator(4), 5, 7), numbers(generator(5), 7, 3)
    assert_close((clnn.tensor(a) @ clnn.tensor(b)).numpy(), a @ b, 1e-5, "product")


def test_float64_keeps_the_packages(own, device):
    if not device.fp64:
        pytest.skip("no float64 here")
    lab.install("relu", own["seven"])
    lab.install("gemm", own["nine"])
    x = clnn.tensor([[1.0, -2.0]], np.float64)
    assert x.relu().numpy().tolist() == [[1, 0]] and (x @ x.T).item() == 5


def test_sums_and_products(own):
    text = "__kernel void f(__global const float *a, __global const float *b, __global float *c, int n) {"
    text += "int i = get_global_id(0); if (i < n) c[i] = 5; }"
    x = clnn.tensor([1.0, 2.0, 3.0])
    for name, operation in (("add", ops.add), ("mul", ops.mul)):
        lab.install(name, Cell(text).kernels["f"])
        assert operation(x, x).numpy().tolist() == [5, 5, 5]
        lab.restore(name)
        assert operation(x, x).numpy()[0] in (2, 1)


def test_errors(own):
    with pytest.raises(clnn.ClnnError, match="no operation 'sin' can be replaced; these can: relu, "):
        lab.install("sin", own["seven"])
    with pytest.raises(clnn.ClnnError, match="no operation 'sin'"):
        lab.restore("sin")
    with pytest.raises(
        clnn.DTypeError, match=r"a kernel for relu takes \(__global const float \*x, .*, yours is eight\("
    ):
        lab.install("relu", own["eight"])
    text = "__kernel __attribute__((reqd_work_group_size(64, 1, 1)))"
    text += "void f(__global const float *x, __global float *y, int n) {}"
    with pytest.raises(clnn.DTypeError, match="groups of 256, f asks for"):
        lab.install("relu", Cell(text).kernels["f"])
    assert not program.replacements


def test_every_operation_names_a_kernel():
    for family, name, _ in OPERATIONS.values():
        assert family == name == "gemm" or name in kernel_names(family)
