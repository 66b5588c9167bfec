"""Optimisers and learning-rate schedules, with PyTorch's names and update rules."""

from types import SimpleNamespace

import numpy as np
import pyopencl as cl
import pyopencl.array

from .errors import DTypeError, OptimizerError, StateDictError
from .program import c_name, copy_into, fill, kernel, launch, round_up
from .tensor import Tensor

ADVICE = "give net.parameters()"


class FlatParameters:
    """Parameters of one device and type moved into one block of memory, their gradients into another.

    Each parameter keeps its shape and becomes a window into the block, so one launch can update all of them.
    """

    def __init__(self, parameters: list[Tensor]):
        self.parameters, self.device, self.dtype = parameters, parameters[0].device, parameters[0].dtype
        align = max(1, self.device.cl_device.mem_base_addr_align // 8 // self.dtype.itemsize)  # bits to elements
        self.starts, size = [], 0
        for p in parameters:
            self.starts.append(size)
            size += round_up(p.size, align)
        self.size = size
        self.values, self.grads = self._block(), self._block()
        self.slots = []
        for p, start in zip(parameters, self.starts, strict=True):
            home = self._window(self.values, start, p.shape)
            copy_into(home, p.array)
            p.array, p._grad_slot = home, self._window(self.grads, start, p.shape)
            self.slots.append(p._grad_slot)

    def _block(self):
        """A block of zeros for all parameters; the gaps between them stay zero."""
        buffer = cl.Buffer(self.device.context, cl.mem_flags.READ_WRITE, self.size * self.dtype.itemsize)
        return fill(cl.array.Array(self.device.queue, (self.size,), self.dtype, data=buffer), 0)

    def _window(self, block, start, shape):
        nbytes = int(np.prod(shape)) * self.dtype.itemsize
        part = block.base_data.get_sub_region(start * self.dtype.itemsize, nbytes)
        return cl.array.Array(self.device.queue, shape, self.dtype, data=part)

    def extra(self) -> list:
        """One more block, for an optimiser's own numbers, and its windows, one a parameter."""
        block = self._block()
        return block, [self._window(block, s, p.shape) for s, p in zip(self.starts, self.parameters, strict=True)]

    def runs(self, key) -> list[tuple[int, int, object]]:
        """(start, end, key(i)) of neighbouring parameters with equal keys; those with key None are left out."""
        found = []
        for i, start in enumerate(self.starts):
            end = self.starts[i + 1] if i + 1 < len(self.starts) else self.size
            k = key(i)
            if found and found[-1][1] == start and found[-1][2] == k:
                found[-1] = (found[-1][0], end, k)
            elif k is not None:
                found.append((start, end, k))
        return found

    def collect(self) -> None:
        """See that every gradient lies in its slot. Raises OptimizerError if another took the parameters."""
        for p, slot in zip(self.parameters, self.slots, strict=True):
            if p._grad_slot is not slot:
                raise OptimizerError(
                    "another optimiser was made for these parameters since, and their gradients go to that one: call "
                    "its step(), or make this one anew"
                )
            if p.grad is not None and p.grad.array is not slot:
                copy_into(slot, p.grad.array)
                p.grad = Tensor(slot, p.device)


class Optimizer:
    """What optimisers share: groups of parameters with settings of their own.

    ``params`` is an iterable of parameters, or of dicts {"params": ..., setting: value}. ``param_groups`` holds the
    settings, which may be changed between steps. Raises ValueError if there is no parameter or one stands twice, and
    DTypeError for what is no tensor of floating-point numbers or was computed from others.
    """

    def __init__(self, params, defaults: dict):
        if not hasattr(params, "__iter__"):
            raise DTypeError(f"an optimiser needs a list of parameters, got {type(params).__name__}: {ADVICE}")
        params = list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [{**defaults, **g, "params": list(g["params"])} for g in groups]
        flat = [p for g in self.param_groups for p in g["params"]]
        if not flat or len({id(p) for p in flat}) < len(flat):
            raise ValueError("an optimiser needs parameters, each once")
        for p in flat:
            if not isinstance(p, Tensor) or p.dtype.kind != "f" or p.node is not None:
                raise DTypeError(
                    f"an optimiser moves floating-point leaves of the tape, got {type(p).__name__}: {ADVICE}"
                )
        for g in self.param_groups:
            kinds = {}
            for p in g["params"]:
                kinds.setdefault((p.device, p.dtype), []).append(p)
            g["blocks"] = [self._make_block(FlatParameters(same)) for same in kinds.values()]

    def _make_block(self, flat: FlatParameters):
        return flat

    def zero_grad(self) -> None:
        """Forget the gradients; the next backward writes them anew."""
        for g in self.param_groups:
            for p in g["params"]:
                p.grad = None

    def step(self) -> None:
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, PyTorch's rule (Sutskever et al. 2013):

    g = grad + weight_decay w;  v = momentum v + (1 - dampening) g;  w -= lr v  (with nesterov: lr (g + momentum v)).

    One launch updates all parameters of a group; those without a gradient are left alone. Raises ValueError for
    settings out of range.
    """

    def __init__(
        self, params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False,
    ):  # fmt: skip
        if lr < 0 or momentum < 0 or weight_decay < 0:
            raise ValueError(f"lr {lr}, momentum {momentum} and weight_decay {weight_decay} must not be negative")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and dampening 0")
        super().__init__(
            params,
            dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov),
        )

    def _make_block(self, flat):
        velocity, windows = flat.extra()
        return SimpleNamespace(flat=flat, velocity=velocity, windows=windows, moving=[False] * len(windows))

    def step(self) -> None:
        """Update every parameter that has a gradient. Does not wait for the device."""
        for group in self.param_groups:
            for block in group["blocks"]:
                self._step(group, block)

    def _step(self, group, block):
        flat, real = block.flat, block.flat.dtype.type
        flat.collect()
        knl = kernel(flat.device, "optim", "sgd", REAL=c_name(flat.dtype))
        settings = [real(group[name]) for name in ("lr", "momentum", "dampening", "weight_decay")]
        moving = group["momentum"] != 0
        flops = 4 + moving * 3 + bool(group["nesterov"]) * 2  # for each number
        has_grad = [p.grad is not None for p in flat.parameters]
        for start, end, first in flat.runs(lambda i: not block.moving[i] if has_grad[i] else None):
            launch(
                flat.device, knl, (end - start,), (256,), flat.values, flat.grads, block.velocity, start, end,
                *settings, int(group["nesterov"]), int(first), flops=flops * (end - start),
                nbytes=(3 + moving * 2) * (end - start) * flat.dtype.itemsize,
            )  # fmt: skip
        if moving:
            block.moving = [moved or has for moved, has in zip(block.moving, has_grad, strict=True)]

    def state_dict(self) -> dict:
        """Settings and momentum in PyTorch's layout, with NumPy arrays (waits for the device)."""
        return {
            "state": {
                i: {"momentum_buffer": window.get()} for i, (_, window, moving) in enumerate(self._windows()) if moving
            },
            "param_groups": [{k: v for k, v in g.items() if k not in ("params", "blocks")} for g in self.param_groups],
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over settings and momentum. Raises StateDictError if they belong to other parameters."""
        if missing := {"state", "param_groups"} - set(state_dict):
            raise StateDictError(f"an optimiser's state dict holds 'state' and 'param_groups'; missing: {missing}")
        windows = list(self._windows())
        state = {int(i): np.asarray(s["momentum_buffer"]) for i, s in state_dict["state"].items()}
        if len(state_dict["param_groups"]) != len(self.param_groups) or any(
            i >= len(windows) or values.shape != windows[i][1].shape for i, values in state.items()
        ):
            raise StateDictError("the optimiser's state belongs to other parameters: groups or shapes differ")
        for group, given in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in given.items() if k in group and k not in ("params", "blocks")})
        for i, (block, window, _) in enumerate(windows):
            at = next(j for j, w in enumerate(block.windows) if w is window)
            block.moving[at] = i in state
            Tensor(window, block.flat.device).copy_(state.get(i, np.zeros(window.shape, window.dtype)))

    def _windows(self):
        """(block, velocity window, whether it was used) of each parameter, in the order they were given."""
        for group in self.param_groups:
            place = {id(p): (block, j) for block in group["blocks"] for j, p in enumerate(block.flat.parameters)}
            for p in group["params"]:
                block, j = place[id(p)]
                yield block, block.windows[j], block.moving[j]


class LRScheduler:
    """Sets each group's lr to its first value times ``factor(epoch)``; call ``step()`` after each epoch."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer, self.last_epoch = optimizer, 0
        self.base_lrs = [g["lr"] for g in optimizer.param_groups]
        self._apply()

    def factor(self, epoch: int) -> float:
        raise NotImplementedError

    def step(self) -> None:
        """Go on to the next epoch (or iteration, if you call it once each)."""
        self.last_epoch += 1
        self._apply()

    def _apply(self):
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * self.factor(self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The rates in use."""
        return [g["lr"] for g in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        """Where the schedule stands."""
        return {"last_epoch": self.last_epoch, "base_lrs": self.base_lrs}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from where ``state_dict`` stood."""
        self.last_epoch, self.base_lrs = state_dict["last_epoch"], list(state_dict["base_lrs"])
        self._apply()


class StepLR(LRScheduler):
    """lr times gamma every ``step_size`` epochs."""

    def __init__(self, optimizer, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, epoch):
        return self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """lr times gamma at each of the epochs in ``milestones``."""

    def __init__(self, optimizer, milestones, gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def factor(self, epoch):
        return self.gamma ** sum(epoch >= m for m in self.milestones)


class ExponentialLR(LRScheduler):
    """lr times gamma every epoch."""

    def __init__(self, optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def factor(self, epoch):
        return self.gamma**epoch


class LambdaLR(LRScheduler):
    """lr times ``lr_lambda(epoch)``: any schedule as a function."""

    def __init__(self, optimizer, lr_lambda):
        self.factor = lr_lambda
        super().__init__(optimizer)


lr_scheduler = SimpleNamespace(
    ExponentialLR=ExponentialLR,
    LambdaLR=LambdaLR,
    MultiStepLR=MultiStepLR,
    StepLR=StepLR,
)
