"""Optimisers and learning-rate schedules, with PyTorch's names and update rules."""

import math
from types import SimpleNamespace

import numpy as np
import pyopencl as cl
import pyopencl.array

from .errors import DTypeError, OptimizerError, StateDictError
from .ops.reduce import reduce_run
from .program import c_name, copy_into, empty, fill, finder, launch, launch_each, reshaped, round_up, run_of
from .tensor import Tensor, zeros

ADVICE = "give net.parameters()"


@finder("optim")
def optim_kernel(device, dtype):
    return {"REAL": c_name(dtype), **run_of(device)}


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


def _as_list(params) -> list:
    """One parameter, or an iterable of them, as a list. Raises DTypeError for anything else."""
    if isinstance(params, Tensor):
        return [params]
    if not hasattr(params, "__iter__"):
        raise DTypeError(f"expected a list of parameters, got {type(params).__name__}: {ADVICE}")
    return list(params)


class Optimizer:
    """What optimisers share: groups of parameters with settings of their own, and steps in one launch a group.

    A subclass names in ``numbers`` what it keeps for each number of a parameter, says in ``counts`` whether its state
    dict holds the count of steps, and defines ``_update``.

    ``params`` is a parameter, an iterable of such, or one of dicts {"params": ..., setting: value}. ``param_groups``
    holds the settings, which may be changed between steps. Raises ValueError if there is no parameter or one stands
    twice, and DTypeError for what is no tensor of floating-point numbers or was computed from others.
    """

    numbers: tuple[str, ...] = ()
    counts = False

    def __init__(self, params, defaults: dict):
        params = _as_list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [{**defaults, **g, "params": _as_list(g["params"])} for g in groups]
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

    def _make_block(self, flat: FlatParameters) -> SimpleNamespace:
        """Parameters with the optimiser's own numbers for them: blocks and their windows by name, and steps done."""
        own = {name: flat.extra() for name in self.numbers}
        blocks, windows = ({name: pair[i] for name, pair in own.items()} for i in (0, 1))
        return SimpleNamespace(flat=flat, own=list(blocks.values()), windows=windows, steps=[0] * len(flat.parameters))

    def zero_grad(self) -> None:
        """Forget the gradients; the next backward writes them anew."""
        for g in self.param_groups:
            for p in g["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient. Does not wait for the device."""
        for group in self.param_groups:
            for block in group["blocks"]:
                flat = block.flat
                flat.collect()
                steps = [n if p.grad is not None else None for p, n in zip(flat.parameters, block.steps, strict=True)]
                for start, end, n in flat.runs(steps.__getitem__):
                    self._update(group, block, start, end, n)
                block.steps = [
                    self._next(group, former) if n is not None else former
                    for former, n in zip(block.steps, steps, strict=True)
                ]

    def _update(self, group: dict, block: SimpleNamespace, start: int, end: int, steps: int) -> None:
        """Launch the update of a block's numbers from ``start`` to ``end``, which have had ``steps`` before."""
        raise NotImplementedError

    def _next(self, group: dict, steps: int) -> int:
        """The count after one more step."""
        return steps + 1

    def _launch(self, name: str, block: SimpleNamespace, start: int, end: int, *settings, flops: int, moved: int):
        """Launch a kernel of optim.cl; flops and numbers moved are those for each parameter number."""
        flat, size = block.flat, end - start
        knl = optim_kernel(flat.device, name, flat.dtype)
        launch_each(
            flat.device, knl, size, flat.values, flat.grads, *block.own, start, end, *settings, flops=flops * size,
            nbytes=moved * size * flat.dtype.itemsize,
        )  # fmt: skip

    def state_dict(self) -> dict:
        """Settings and the optimiser's own numbers in PyTorch's layout, with NumPy arrays (waits for the device)."""
        state = {}
        for i, (block, j) in enumerate(self._places()):
            if block.steps[j]:
                count = {"step": np.float32(block.steps[j])} if self.counts else {}
                state[i] = count | {name: windows[j].get() for name, windows in block.windows.items()}
        groups = [{k: v for k, v in g.items() if k not in ("params", "blocks")} for g in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over settings and numbers. Raises StateDictError if they belong to another optimiser or parameters."""
        if missing := {"state", "param_groups"} - set(state_dict):
            raise StateDictError(f"an optimiser's state dict holds 'state' and 'param_groups'; missing: {missing}")
        places = list(self._places())
        expected = {*self.numbers, *(["step"] if self.counts else [])}
        state = {
            int(i): {k: np.asarray(v) for k, v in own.items()}
            for i, own in state_dict["state"].items()
            if not all(v is None for v in own.values())  # PyTorch's SGD without momentum
        }
        if len(state_dict["param_groups"]) != len(self.param_groups) or any(
            i >= len(places)
            or own.keys() != expected
            or any(own[name].shape != places[i][0].windows[name][places[i][1]].shape for name in self.numbers)
            for i, own in state.items()
        ):
            raise StateDictError("the optimiser's state belongs to other parameters: groups, names or shapes differ")
        for group, given in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in given.items() if k in group and k not in ("params", "blocks")})
        for i, (block, j) in enumerate(places):
            block.steps[j] = int(state[i].get("step", 1)) if i in state else 0
            for name, windows in block.windows.items():
                Tensor(windows[j], block.flat.device).copy_(state[i][name] if i in state else 0)

    def _places(self):
        """(block, its place there) of each parameter, in the order they were given."""
        for group in self.param_groups:
            place = {id(p): (block, j) for block in group["blocks"] for j, p in enumerate(block.flat.parameters)}
            yield from (place[id(p)] for p in group["params"])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, PyTorch's rule (Sutskever et al. 2013):

    g = grad + weight_decay w;  v = momentum v + (1 - dampening) g;  w -= lr v  (with nesterov: lr (g + momentum v)).

    One launch updates all parameters of a group; those without a gradient are left alone. Raises ValueError for
    settings out of range.
    """

    numbers, counts = ("momentum_buffer",), False

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

    def _update(self, group, block, start, end, steps):
        settings = [group[name] for name in ("lr", "momentum", "dampening", "weight_decay")]
        moving, nesterov = group["momentum"] != 0, bool(group["nesterov"])
        flops, moved = 4 + moving * 3 + nesterov * 2, 3 + moving * 2
        flags = int(nesterov), int(steps == 0)
        self._launch("sgd", block, start, end, *settings, *flags, flops=flops, moved=moved)

    def _next(self, group, steps):
        return 1 if group["momentum"] else steps  # whether there is a velocity: counting on would split the launch


class Adam(Optimizer):
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", 2015), PyTorch's rule and defaults:

    g = grad + weight_decay w;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    w -= lr m' / (sqrt(v') + eps)  with  m' = m / (1 - beta1^t)  and  v' = v / (1 - beta2^t)  in step t.

    One launch updates all parameters of a group that have seen as many steps; those without a gradient are left alone.
    Raises ValueError for settings out of range.
    """

    numbers, counts, decoupled = ("exp_avg", "exp_avg_sq"), True, False

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):  # fmt: skip
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr {lr}, eps {eps} and weight_decay {weight_decay} must not be negative")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are two numbers from 0 to below 1, got {betas}")
        super().__init__(params, dict(lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay))

    def _update(self, group, block, start, end, steps):
        lr, eps, decay, (beta1, beta2) = group["lr"], group["eps"], group["weight_decay"], group["betas"]
        rate = lr / (1 - beta1 ** (steps + 1))
        stretch = (1 - beta2 ** (steps + 1)) ** -0.5
        shrink, decay = (lr * decay, 0.0) if self.decoupled else (0.0, decay)
        settings = (rate, beta1, 1 - beta1, beta2, 1 - beta2, stretch, eps, decay, shrink)
        self._launch("adam", block, start, end, *settings, flops=15, moved=7)


class AdamW(Adam):
    """Adam whose weight decay is no part of the gradient: w -= lr weight_decay w goes before the step.

    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; PyTorch's rule and defaults.
    """

    decoupled = True

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay)


CLIP_CHUNK = 1024  # gradients that a work-item squares and adds up


def _with_gradients(parameters) -> list[Tensor]:
    return [p for p in _as_list(parameters) if p.grad is not None]


def clip_grad_norm_(parameters, max_norm: float) -> Tensor:
    """Shorten the gradients of these parameters, seen as one vector, to the length ``max_norm`` if it is longer.

    Call it between backward and the optimiser's step. Returns the former length, a Tensor on the device (of several,
    the first parameter's): nothing waits for it (Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent
    neural networks", 2013; PyTorch's rule: the factor is max_norm / (length + 1e-6), at most 1). Raises DTypeError for
    gradients of two types.
    """
    chosen, homes = _with_gradients(parameters), {}
    if not chosen:
        return zeros(())
    if len({p.dtype for p in chosen}) > 1:
        raise DTypeError("clip_grad_norm_ takes gradients of one type: call it once for float32, once for float64")
    for p in chosen:
        homes.setdefault(p.device, []).append(p)
    total, *others = [_sum_squares(device, same) for device, same in homes.items()]
    for part in others:
        total = total + part.to(total.device)
    for device, same in homes.items():
        _shorten(device, same, total.to(device), max_norm)
    return total.sqrt()


def _sum_squares(device, chosen: list[Tensor]) -> Tensor:
    """The sum of the squares of all gradients of one device."""
    dtype, counts = chosen[0].dtype, [-(-p.size // CLIP_CHUNK) for p in chosen]
    knl = optim_kernel(device, "sum_squares", dtype)
    sums, at = empty(device, (sum(counts),), dtype), 0
    for p, count in zip(chosen, counts, strict=True):
        launch(device, knl, (count,), (64,), p.grad.array, sums, p.size, CLIP_CHUNK, at, flops=2 * p.size)
        at += count
    return Tensor(reshaped(reduce_run(device, "sum", sums, 1, at, 1), ()), device)


def _shorten(device, chosen: list[Tensor], total: Tensor, max_norm: float) -> None:
    """Shorten the gradients of one device, the sum of whose squares, and perhaps those of others, is ``total``."""
    knl = optim_kernel(device, "shorten", total.dtype)
    for p in chosen:
        own = p.grad.array is p._grad_slot  # any other array may be another tensor's gradient, too
        out = p.grad.array if own else empty(device, p.shape, p.dtype)
        launch_each(device, knl, p.size, p.grad.array, out, total.array, p.size, max_norm, flops=p.size)
        p.grad = Tensor(out, device)


def clip_grad_value_(parameters, clip_value: float) -> None:
    """Limit each element of the parameters' gradients to -clip_value .. clip_value, on the device."""
    for p in _with_gradients(parameters):
        p.grad = p.grad.clamp(-clip_value, clip_value)


class LRScheduler:
    """Sets each group's lr to its first value times ``factor(epoch)``; call ``step()`` after each epoch.

    A ``Trainer`` does so by itself.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer, self.last_epoch = optimizer, 0
        self.base_lrs = [g["lr"] for g in optimizer.param_groups]
        self._apply()

    def factor(self, epoch: int) -> float:
        raise NotImplementedError

    def rate(self, base: float, epoch: int) -> float:
        """The lr of a group whose first was ``base``."""
        return base * self.factor(epoch)

    def step(self) -> None:
        """Go on to the next epoch (or iteration, if you call it once each)."""
        self.last_epoch += 1
        self._apply()

    def _apply(self):
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.last_epoch)

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


class CosineAnnealingLR(LRScheduler):
    """lr falls to ``eta_min`` along half a cosine in ``T_max`` epochs (and would rise again after that).

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, without the restarts.
    """

    def __init__(self, optimizer, T_max: int, eta_min: float = 0.0):
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base, epoch):
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class LambdaLR(LRScheduler):
    """lr times ``lr_lambda(epoch)``: any schedule as a function."""

    def __init__(self, optimizer, lr_lambda):
        self.factor = lr_lambda
        super().__init__(optimizer)


lr_scheduler = SimpleNamespace(
    CosineAnnealingLR=CosineAnnealingLR,
    ExponentialLR=ExponentialLR,
    LambdaLR=LambdaLR,
    MultiStepLR=MultiStepLR,
    StepLR=StepLR,
)
