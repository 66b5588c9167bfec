"""The contestants: clnn, NumPy, PyTorch, CLBlast and tinygrad. Each has a method for each task it can do."""

import ctypes
import ctypes.util
import importlib.metadata
import inspect
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .. import __version__
from .. import modules as nn
from ..device import Device
from ..ops import conv2d, linear
from ..optim import SGD
from ..program import empty, upload
from ..tensor import Tensor, no_grad, tensor
from .timing import Contestant

SETTINGS = dict(lr=0.01, momentum=0.9, weight_decay=1e-4)


@dataclass
class Problem:
    """A net with its first parameters, and a batch to train it on by the loss "cross_entropy" or "mse"."""

    net: nn.Module
    state: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    loss: str = "cross_entropy"


def trained(loss, named_parameters, array) -> dict[str, np.ndarray]:
    """What a step of training is checked by."""
    result = {"loss": array(loss)}
    for name, p in named_parameters:
        result |= {f"gradient of {name}": array(p.grad), f"{name} after a step": array(p)}
    return result


def step_of(net, criterion, optimizer, x, y):
    """A function that trains a net by one step and returns the loss: the same lines for clnn and PyTorch."""

    def run():
        loss = criterion(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return run


class Clnn:
    """The package itself, on one device."""

    name, slow = "clnn", False

    def __init__(self, device: Device):
        self.device, self.about = device, __version__
        self.tensor = partial(tensor, device=device)

    def contestant(self, run, fetch=Tensor.numpy, **options):
        return Contestant(run, self.device.synchronize, fetch, **options)

    def vector_add(self, a, b):
        a, b = self.tensor(a), self.tensor(b)
        return self.contestant(lambda: a + b)

    def gemm(self, a, b, ta, tb):
        """Transposed operands as a layer has them: B in its forward pass, A in the gradient of its weight."""
        if ta:
            x, weight = self.tensor(b), self.tensor(np.zeros((a.shape[1], b.shape[1]), np.float32))
            return self.backward(linear, x, weight.requires_grad_(), a)
        a, b = self.tensor(a), self.tensor(b)
        return self.contestant((lambda: linear(a, b)) if tb else (lambda: a @ b))

    def conv(self, x, w, options):
        x, w = self.tensor(x), self.tensor(w)
        return self.contestant(lambda: conv2d(x, w, **options))

    def conv_backward_data(self, x, w, g, options):
        return self.backward(partial(conv2d, **options), self.tensor(x).requires_grad_(), self.tensor(w), g)

    def conv_backward_weight(self, x, w, g, options):
        return self.backward(partial(conv2d, **options), self.tensor(x), self.tensor(w).requires_grad_(), g)

    def backward(self, layer, x, w, g):
        """The backward pass of a layer alone, run again and again from what its forward pass left on the tape."""
        y, g = layer(x, w), self.tensor(g)
        which = 0 if x.requires_grad else 1
        return self.contestant(lambda: Tensor(y.node.backward(g.array)[which], self.device))

    def inference(self, problem: Problem):
        net, x = self.load(problem), self.tensor(problem.x)

        def run():
            with no_grad():
                return net(x)

        return self.contestant(run)

    def training(self, problem: Problem):
        net, x, y = self.load(problem), self.tensor(problem.x), self.tensor(problem.y)
        criterion = nn.CrossEntropyLoss() if problem.loss == "cross_entropy" else nn.MSELoss()
        run = step_of(net, criterion, SGD(net.parameters(), **SETTINGS), x, y)
        return self.contestant(run, lambda loss: trained(loss, net.named_parameters(), Tensor.numpy), checked=net.train)

    xor = training

    def load(self, problem: Problem):
        problem.net.load_state_dict(problem.state)
        return problem.net.eval()


class Numpy:
    """NumPy and the BLAS it was built with."""

    name, slow = "numpy", False

    def __init__(self, device: Device):
        self.about = np.__version__
        try:
            from threadpoolctl import threadpool_info, threadpool_limits
        except ImportError:
            self.about += ", threads as it comes"
            return
        if device.kind == "CPU":
            self.limits = threadpool_limits(device.cores)
        for pool in threadpool_info():
            if pool["user_api"] == "blas":
                self.about += f", {pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"

    def vector_add(self, a, b):
        c = np.empty_like(a)
        return Contestant(lambda: np.add(a, b, out=c))

    def gemm(self, a, b, ta, tb):
        a, b = a.T if ta else a, b.T if tb else b
        c = np.empty((a.shape[0], b.shape[1]), a.dtype)
        return Contestant(lambda: np.matmul(a, b, out=c))

    def xor(self, problem: Problem):
        """The step of a 2-2-1 net written by hand, as a course does it."""
        x, y = problem.x, problem.y
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        parameters = [problem.state[name].copy() for name in names]
        velocities, gradients = [None] * 4, []
        lr, momentum, weight_decay = (np.float32(v) for v in SETTINGS.values())

        def run():
            w1, b1, w2, b2 = parameters
            hidden = np.tanh(x @ w1.T + b1)
            out = np.tanh(hidden @ w2.T + b2)
            error = out - y
            g2 = np.float32(2 / out.size) * error * (1 - out * out)
            g1 = (g2 @ w2) * (1 - hidden * hidden)
            gradients[:] = g1.T @ x, g1.sum(0), g2.T @ hidden, g2.sum(0)
            for i, (p, g) in enumerate(zip(parameters, gradients)):
                g = g + weight_decay * p
                velocities[i] = g if velocities[i] is None else momentum * velocities[i] + g
                p -= lr * velocities[i]
            return (error * error).mean()

        def fetch(loss):
            result = {"loss": loss}
            for name, p, g in zip(names, parameters, gradients):
                result |= {f"gradient of {name}": g, f"{name} after a step": p}
            return result

        return Contestant(run, fetch=fetch)


class Torch:
    """PyTorch, eager: on the CPU, or on its GPU where clnn uses one."""

    name, slow = "torch", False

    def __init__(self, device: Device):
        import torch

        self.torch, self.on = torch, "cpu"
        self.about = torch.__version__
        if device.kind == "GPU" and torch.cuda.is_available():
            self.on = "cuda"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            self.about += f", {torch.cuda.get_device_name()}, TF32 off"
        else:
            if device.kind == "CPU":
                torch.set_num_threads(device.cores)
            self.about += f", CPU, {torch.get_num_threads()} threads"

    def tensor(self, array):
        return self.torch.tensor(array).to(self.on)

    def contestant(self, run, fetch=lambda t: t.detach().cpu().numpy(), **options):
        finish = self.torch.cuda.synchronize if self.on == "cuda" else lambda: None
        return Contestant(run, finish, fetch, **options)

    def vector_add(self, a, b):
        a, b = self.tensor(a), self.tensor(b)
        c = self.torch.empty_like(a)
        return self.contestant(lambda: self.torch.add(a, b, out=c))

    def gemm(self, a, b, ta, tb):
        a, b = self.tensor(a), self.tensor(b)
        a, b = a.T if ta else a, b.T if tb else b
        return self.contestant(lambda: a @ b)

    def conv(self, x, w, options):
        x, w = self.tensor(x), self.tensor(w)
        return self.contestant(lambda: self.torch.nn.functional.conv2d(x, w, **options))

    def conv_backward_data(self, x, w, g, options):
        return self.conv_backward(x, w, g, options, 0)

    def conv_backward_weight(self, x, w, g, options):
        return self.conv_backward(x, w, g, options, 1)

    def conv_backward(self, x, w, g, options, which):
        x, w, g = self.tensor(x), self.tensor(w), self.tensor(g)
        backward = self.torch.ops.aten.convolution_backward
        shape = ([0], options["stride"], options["padding"], [1, 1], False, [0, 0], options["groups"])
        mask = [which == 0, which == 1, False]
        return self.contestant(lambda: backward(g, x, w, *shape, mask)[which])

    def inference(self, problem: Problem):
        net, x = self.load(problem).eval(), self.tensor(problem.x)

        def run():
            with self.torch.inference_mode():
                return net(x)

        return self.contestant(run)

    def training(self, problem: Problem):
        net, x, y = self.load(problem).eval(), self.tensor(problem.x), self.tensor(problem.y)
        y = y.long() if problem.loss == "cross_entropy" else y
        criterion = self.torch.nn.CrossEntropyLoss() if problem.loss == "cross_entropy" else self.torch.nn.MSELoss()
        run = step_of(net, criterion, self.torch.optim.SGD(net.parameters(), **SETTINGS), x, y)

        def fetch(loss):
            return trained(loss, net.named_parameters(), lambda t: t.detach().cpu().numpy())

        return self.contestant(run, fetch, checked=net.train)

    xor = training

    def load(self, problem: Problem):
        """The same net in PyTorch: modules there have the same names and arguments."""
        net = self.torch.nn.Sequential(*[self.like(module) for module in problem.net])
        net.load_state_dict({name: self.torch.tensor(values) for name, values in problem.state.items()})
        return net.to(self.on)

    def like(self, module):
        if isinstance(module, nn.LocalResponseNorm2d):
            return self.within_maps(module)
        named = inspect.signature(type(module)).parameters.values()
        options = {p.name: getattr(module, p.name) for p in named if p.kind is p.POSITIONAL_OR_KEYWORD}
        if "bias" in options:
            options["bias"] = options["bias"] is not None
        return getattr(self.torch.nn, type(module).__name__)(**options)

    def within_maps(self, norm: nn.LocalResponseNorm2d):
        """Response normalisation within maps, which PyTorch has not, by its pooling; for odd sizes."""
        pool = self.torch.nn.AvgPool2d(norm.size, 1, norm.size // 2)

        class Within(self.torch.nn.Module):
            def forward(self, x):
                return x / (norm.k + norm.alpha * pool(x * x)) ** norm.beta

        return Within()


class ClBlast:
    """CLBlast's matrix product on clnn's own device and queue, with its untuned defaults.

    The library is the one that CLNN_CLBLAST names, else the system's (Debian's package libclblast1).
    """

    name, slow = "clblast", True

    def __init__(self, device: Device):
        path = os.environ.get("CLNN_CLBLAST") or ctypes.util.find_library("clblast")
        if not path:
            raise ImportError("no libclblast: apt install libclblast1, or name the library in CLNN_CLBLAST")
        loader = Path(path).parent / "libOpenCL.so.1"
        if loader.exists():  # a package unpacked beside it; the handles are the same for every loader
            ctypes.CDLL(str(loader), ctypes.RTLD_GLOBAL)
        size, number, pointer = ctypes.c_size_t, ctypes.c_float, ctypes.c_void_p
        self.sgemm = ctypes.CDLL(path).CLBlastSgemm
        matrix = [pointer, size, size]
        self.sgemm.argtypes = [
            *[ctypes.c_int] * 3, *[size] * 3, number, *matrix, *matrix, number, *matrix, pointer, pointer,
        ]  # fmt: skip
        self.device, self.about = device, f"{Path(path).resolve().name}, untuned defaults"

    def gemm(self, a, b, ta, tb):
        (m, k), n = a.shape[:: -1 if ta else 1], b.shape[0 if tb else 1]
        device, queue = self.device, ctypes.c_void_p(self.device.queue.int_ptr)
        left, right, c = upload(device, a), upload(device, b), empty(device, (m, n))
        handles = [array.base_data.int_ptr for array in (left, right, c)]
        row_major, transposed = 101, {False: 111, True: 112}

        def run():
            status = self.sgemm(
                row_major, transposed[ta], transposed[tb], m, n, k, 1.0, handles[0], 0, a.shape[1],
                handles[1], 0, b.shape[1], 0.0, handles[2], 0, n, ctypes.byref(queue), None,
            )  # fmt: skip
            if status != 0:
                raise RuntimeError(f"CLBlastSgemm returned {status}")
            return left, right, c  # so that they live as long as the work

        return Contestant(run, device.synchronize, lambda arrays: arrays[2].get())


class TinyGrad:
    """tinygrad on clnn's own OpenCL device, each task compiled by its TinyJit."""

    name, slow = "tinygrad", True

    def __init__(self, device: Device):
        device.context  # noqa: B018 - tells PoCL its processor
        os.environ.setdefault("OPENCL_PATH", opencl_library())
        import tinygrad
        from tinygrad.helpers import DEV
        from tinygrad.runtime.ops_cl import CLDevice
        from tinygrad.runtime.ops_cl import cl as opencl

        CLDevice.device_ids = (opencl.cl_device_id * 1)(ctypes.cast(device.cl_device.int_ptr, opencl.cl_device_id))
        DEV.value = "CL"
        self.tinygrad, self.finish = tinygrad, tinygrad.Device["CL"].synchronize
        self.about = f"{importlib.metadata.version('tinygrad')}, OpenCL on {device.platform}"

    def tensor(self, array):
        return self.tinygrad.Tensor(np.ascontiguousarray(array)).realize()

    def contestant(self, function, *tensors, fetch=lambda t: t.numpy()):
        jitted = self.tinygrad.TinyJit(function)
        return Contestant(lambda: jitted(*tensors), self.finish, fetch)

    def gemm(self, a, b, ta, tb):
        def product(a, b):
            return ((a.T if ta else a) @ (b.T if tb else b)).realize()

        return self.contestant(product, self.tensor(a), self.tensor(b))

    def inference(self, problem: Problem):
        state = {name: self.tensor(values) for name, values in problem.state.items()}
        return self.contestant(lambda x: self.forward(problem.net, state, x).realize(), self.tensor(problem.x))

    def training(self, problem: Problem):
        tinygrad = self.tinygrad
        state = {name: self.tensor(values) for name, values in problem.state.items()}
        optimizer = tinygrad.nn.optim.SGD(list(state.values()), **SETTINGS)

        def step(x, y):
            with tinygrad.helpers.Context(TRAINING=1):
                optimizer.zero_grad()
                loss = self.forward(problem.net, state, x).sparse_categorical_crossentropy(y)
                loss.backward()
                gradients = [p.grad for p in state.values()]
                return loss.realize(*gradients, *optimizer.schedule_step()), gradients

        def fetch(result):
            loss, gradients = result
            found = {"loss": loss.numpy()}
            for (name, p), g in zip(state.items(), gradients):
                found |= {f"gradient of {name}": g.numpy(), f"{name} after a step": p.numpy()}
            return found

        return self.contestant(step, self.tensor(problem.x), self.tensor(problem.y), fetch=fetch)

    def forward(self, net, state, x):
        """A net of convolutions, max pooling, tanh and linear layers."""
        for name, module in net.named_children():
            weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
            match module:
                case nn.Conv2d():
                    x = x.conv2d(weight, bias, module.groups, module.stride, module.dilation, module.padding)
                case nn.Linear():
                    x = x.linear(weight.T, bias)
                case nn.MaxPool2d():
                    x = x.max_pool2d(module.kernel_size, module.stride)
                case nn.Tanh():
                    x = x.tanh()
                case nn.Flatten():
                    x = x.flatten(1)
                case _:
                    raise NotImplementedError(f"tinygrad's {type(module).__name__}")
        return x


def opencl_library() -> str:
    """The file of the OpenCL loader that this process has loaded, on Linux; else what the system calls it."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return ctypes.util.find_library("OpenCL") or ""
    return next((line.split()[-1] for line in lines if "libOpenCL" in line), "")


PEERS = {peer.name: peer for peer in (Numpy, Torch, ClBlast, TinyGrad)}


def find_peers(device: Device, names, note=print) -> list:
    """clnn first, then those of the named peers that are installed; a note on each that is not."""
    found = [Clnn(device)]
    for name in names:
        try:
            found.append(PEERS[name](device))
        except (ImportError, OSError) as error:
            note(f"without {name}: {error}")
    return found
