"""What is measured: the cases of each suite, with random data of a fixed seed and the expected results."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import models
from .. import modules as nn
from ..device import device
from ..summary import summary
from ..tensor import manual_seed, no_grad, zeros
from . import reference
from .peers import SETTINGS, Problem
from .timing import Case


@dataclass(frozen=True)
class Net:
    """A net to measure: its images' shape, the batches that are timed, the usual one of them, one for quick runs,
    whether its layers are measured one by one, too, and how far its gradients may be off (see ``whole_net``)."""

    title: str
    make: Callable
    image: tuple[int, ...]
    batches: tuple[int, ...]
    usual: int
    quick: int
    layers: bool = True
    gradients: float = 2e-2


NETS = {
    "lenet": Net("LeNet", models.lenet, (1, 28, 28), (1, 10, 100, 1000), 100, 4),
    "cifar": Net("CIFAR 18%", models.cifar18, (3, 32, 32), (1, 16, 128), 128, 2),
    "cifar_quick": Net("CIFAR quick", models.cifar_quick, (3, 32, 32), (100,), 100, 2, layers=False),
    "alexnet": Net("AlexNet", models.alexnet, (3, 227, 227), (1, 4, 16), 16, 1, gradients=0.1),
}
LAYERED = [name for name, net in NETS.items() if net.layers]


def random(*shape) -> np.ndarray:
    """Normal random numbers, the same at each call."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@lru_cache(maxsize=1)
def net_on(name: str, on) -> tuple[nn.Sequential, dict]:
    """A net with its first parameters, which are the same at each call, also as NumPy arrays."""
    manual_seed(0)
    net = NETS[name].make()
    return net, net.state_dict()


@dataclass(frozen=True)
class Layer:
    """The sizes of a convolution or a linear layer: its weight's, those of one image that it gets, its options."""

    weight: tuple[int, ...]
    image: tuple[int, ...]
    options: dict


@lru_cache
def layers(name: str) -> tuple[list[Layer], list[Layer]]:
    """The convolutions and the linear layers of a net."""
    net, found = net_on(name, device())[0].eval(), ([], [])

    def note(module, inputs, _):
        on_images = isinstance(module, nn.Conv2d)
        options = {key: getattr(module, key) for key in ("stride", "padding", "groups")} if on_images else {}
        found[not on_images].append(Layer(module.weight.shape, inputs[0].shape[1:], options))

    handles = [m.register_forward_hook(note) for m in net if isinstance(m, nn.Conv2d | nn.Linear)]
    with no_grad():
        net(zeros(1, *NETS[name].image))
    for handle in handles:
        handle.remove()
    return found


@lru_cache
def multiply_adds(name: str, task: str) -> int:
    """Products summed for one image. Training sums three times as many as inference, but for the first layer, which
    has no use for a gradient of its input."""
    rows = [layer.multiply_adds for layer in summary(net_on(name, device())[0], (1, *NETS[name].image)).layers]
    return sum(rows) if task == "inference" else 3 * sum(rows) - next(filter(None, rows))


def vector_add(quick: bool) -> Iterator[Case]:
    """c = a + b: nothing but memory."""
    for n in (1000,) if quick else (2**12, 2**16, 2**20, 2**24):

        def make(n=n):
            a, b = random(2, n)
            return (a, b), lambda: a.astype(np.float64) + b

        yield Case(
            "vector_add", f"{n:,} numbers", "vector_add", make, "GB/s", "vector_add", n, flops=n, nbytes=12 * n,
        )  # fmt: skip


def gemm(quick: bool) -> Iterator[Case]:
    """Square matrices, then the linear layers of the nets at their batch: forward and both gradients."""
    for n in (64, 128) if quick else (128, 256, 512, 1024, 2048):
        yield product(f"{n} x {n} x {n}", n, n, n, series="gemm", size=n, for_slow_peers=True)
    for name in ("lenet",) if quick else LAYERED:
        rows = NETS[name].quick if quick else NETS[name].usual
        for i, layer in enumerate(layers(name)[1], 1):
            n, k = layer.weight
            title = f"{NETS[name].title} fc{i}"
            yield product(f"{title} forward, {rows} x {n} x {k}", rows, n, k, tb=True)
            yield product(f"{title} backward data, {rows} x {k} x {n}", rows, k, n)
            yield product(f"{title} backward weight, {n} x {k} x {rows}", n, k, rows, ta=True)


def product(name, m, n, k, ta=False, tb=False, **options) -> Case:
    """One matrix product (m, k) times (k, n), each operand stored transposed or not."""

    def make():
        rng = np.random.default_rng(0)
        a = rng.standard_normal((k, m) if ta else (m, k), np.float32)
        b = rng.standard_normal((n, k) if tb else (k, n), np.float32)
        x, y = (v.astype(np.float64) for v in (a, b))
        return (a, b, ta, tb), lambda: (x.T if ta else x) @ (y.T if tb else y)

    numbers = m * k + k * n + m * n
    return Case(
        "gemm", name, "gemm", make, "GFLOP/s", flops=2 * m * n * k, nbytes=4 * numbers, **options,
    )  # fmt: skip


def conv(quick: bool) -> Iterator[Case]:
    """Every convolution of the nets at their batch: forward and both gradients."""
    for name in ("lenet",) if quick else LAYERED:
        batch = NETS[name].quick if quick else NETS[name].usual
        for i, layer in enumerate(layers(name)[0], 1):
            for direction in ("forward", "backward data", "backward weight"):
                yield convolution(f"{NETS[name].title} conv{i} {direction}", direction, batch, layer)


def convolution(name: str, direction: str, batch: int, layer: Layer) -> Case:
    """One of the three passes of a convolution."""
    options, w_shape, x_shape = layer.options, layer.weight, (batch, *layer.image)
    sizes = zip(x_shape[2:], w_shape[2:], options["stride"], options["padding"])
    y_shape = (batch, w_shape[0], *((n + 2 * p - k) // s + 1 for n, k, s, p in sizes))

    def make():
        rng = np.random.default_rng(0)
        x, w, g = (rng.standard_normal(shape, np.float32) for shape in (x_shape, w_shape, y_shape))

        def right():
            y, back = reference.conv(x.astype(np.float64), w.astype(np.float64), **options)
            return y if direction == "forward" else back(g.astype(np.float64))[direction == "backward weight"]

        return ((x, w, options) if direction == "forward" else (x, w, g, options)), right

    task = "conv" if direction == "forward" else f"conv_{direction.replace(' ', '_')}"
    numbers = sum(int(np.prod(shape)) for shape in (x_shape, w_shape, y_shape))
    return Case(
        "conv", f"{name}, batch {batch}", task, make, "GFLOP/s", images=batch, nbytes=4 * numbers,
        flops=2 * int(np.prod(y_shape)) * int(np.prod(w_shape[1:])),
    )  # fmt: skip


def net_suite(name: str):
    """The suite of one net: training (a full step of SGD) and inference, at several batches."""

    def cases(quick: bool) -> Iterator[Case]:
        net = NETS[name]
        for task in ("training", "inference"):
            for batch in (net.quick,) if quick else net.batches:
                yield whole_net(name, task, batch, for_slow_peers=name == "lenet" and batch == net.usual)

    return cases


def whole_net(name: str, task: str, batch: int, **options) -> Case:
    """Training or inference of one net with one batch.

    The gradients' tolerance is wide since rounding moves some numbers across 0, before a ReLU, or past their
    neighbours in a pooling window; each switches one of the thousands of terms of a gradient. AlexNet begins with
    biases of 1 and weights near 0: neighbours in its last pooling differ by little more than the rounding.
    """

    def make():
        net, state = net_on(name, device())
        labels = np.random.default_rng(1).integers(0, 10, batch).astype(np.int32)
        problem = Problem(net, state, random(batch, *NETS[name].image), labels)
        return (problem,), lambda: expected(problem, task)

    series = f"{name} {task}" if len(NETS[name].batches) > 1 else ""
    return Case(
        name, f"{task}, batch {batch}", task, make, "images/s", series, batch,
        flops=2 * multiply_adds(name, task) * batch, images=batch, lr=SETTINGS["lr"],
        gradient_tolerance=NETS[name].gradients, **options,
    )  # fmt: skip


def expected(problem: Problem, task: str):
    """The logits of a net in float64, or all that its first step of training computes."""
    state = {name: values.astype(np.float64) for name, values in problem.state.items()}
    x = problem.x.astype(np.float64)
    if task == "inference":
        return reference.forward(problem.net, state, x)[0]
    loss = {"cross_entropy": reference.cross_entropy, "mse": reference.mse}[problem.loss]
    return reference.step(problem.net, state, x, problem.y, loss, SETTINGS["lr"], SETTINGS["weight_decay"])


def xor(quick: bool) -> Iterator[Case]:
    """The smallest net that learns XOR: a full step of it measures what surrounds the arithmetic."""

    def make():
        manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1), nn.Tanh())
        x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        y = np.array([[0], [1], [1], [0]], np.float32)
        problem = Problem(net, net.state_dict(), x, y, "mse")
        return (problem,), lambda: expected(problem, "training")

    yield Case("xor", "2-2-1 tanh net, batch 4: a full step", "xor", make, "ms", images=4, gradient_tolerance=1e-5)


SUITES = {
    "vector_add": vector_add,
    "gemm": gemm,
    "conv": conv,
    **{name: net_suite(name) for name in NETS},
    "xor": xor,
}
