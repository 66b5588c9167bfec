"""Training as a lazy iterator: each step is computed when the next one is asked for.

After Deniz Yuret's "Deep Learning in Julia" (MLDAS 2019): one generator trains, others say how long, how often to
look and when to stop, and they nest::

    for step in every(take(clnn.sgd(net, loader, lr=0.05, epochs=None), 1000), 100):
        print(step.number, step.loss.item())
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import DataError, NonFiniteLossError
from .metrics import Watch, device_of, pairs
from .modules import CrossEntropyLoss, Module
from .optim import SGD, Optimizer, clip_grad_norm_
from .tensor import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """A step of training that was asked of the device.

    ``number`` and ``epoch`` count from 1. ``loss`` is the batch's loss before the update, a Tensor on the device:
    only ``loss.item()`` waits for it.
    """

    number: int
    epoch: int
    loss: Tensor


def training_step(
    model: Module, optimizer: Optimizer, loss_function, x: Tensor, y: Tensor, max_grad_norm: float | None = None
) -> tuple[Tensor, Tensor]:
    """Predict, differentiate, clip the gradients to ``max_grad_norm`` if that is given, update: returns the loss and
    the model's output. Does not wait for the device."""
    output = model(x)
    loss = loss_function(output, y)
    optimizer.zero_grad()
    loss.backward()
    if max_grad_norm is not None:
        clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_grad_norm)
    optimizer.step()
    return loss.detach(), output.detach()


def sgd(
    model: Module, data: Iterable, *, epochs: int | None = 1, loss=None, optimizer: Optimizer | None = None, **settings
) -> Iterator[Step]:  # fmt: skip
    """Train a model step by step: ``for step in clnn.sgd(net, loader, lr=0.05, momentum=0.9): ...``

    ``data`` is a DataLoader or anything that yields pairs (x, y) anew in each epoch; ``epochs=None`` goes on for
    ever. ``loss`` is CrossEntropyLoss unless given. The settings are those of ``optim.SGD``; or give an
    ``optimizer``, such as one made before, whose momentum shall go on.

    Raises ValueError for settings beside an optimizer, DataError for an epoch without a batch.
    """
    if optimizer is not None and settings:
        raise ValueError(f"give either an optimizer or its settings ({', '.join(settings)}), not both")
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs is {epochs}; expected 1 or more, or None to go on for ever")
    optimizer = SGD(model.parameters(), **settings) if optimizer is None else optimizer
    return _steps(model, data, epochs, CrossEntropyLoss() if loss is None else loss, optimizer)


def _steps(model, data, epochs, loss_function, optimizer):
    watch, number = Watch(), 0
    for epoch in itertools.count(1) if epochs is None else range(1, epochs + 1):
        before = number
        for x, y in pairs(data, device_of(model)):
            loss, _ = training_step(model, optimizer, loss_function, x, y)
            number += 1
            yield Step(number, epoch, loss)
            watch.follow(number, loss)
        if number == before:
            raise DataError(f"epoch {epoch} has no batch: the data are empty, or an iterator that was used up before")


def take(steps: Iterable, n: int) -> Iterator:
    """The first n steps; the rest are not computed. Raises ValueError for an n below 0."""
    if n < 0:
        raise ValueError(f"n is {n}; expected 0 or more steps")
    return itertools.islice(steps, n)


def every(steps: Iterable, n: int) -> Iterator:
    """Compute all steps and hand out each n-th: n, 2n, 3n, ... Raises ValueError for an n below 1."""
    if n < 1:
        raise ValueError(f"n is {n}; expected 1 or more, to hand out each n-th step")
    return itertools.islice(steps, n - 1, None, n)


def converge(steps: Iterable[Step], tolerance: float = 1e-3, window: int = 100) -> Iterator[Step]:
    """Steps until learning has come to rest.

    Stops after a window of steps whose mean loss is not more than ``tolerance`` below that of the window before. The
    losses are summed on the device and read once a window. Raises NonFiniteLossError if they become NaN or infinite.
    """
    if window < 1:
        raise ValueError(f"window is {window}; expected at least one step")
    former, total, count = math.inf, None, 0
    for step in steps:
        total = step.loss.clone() if total is None else total.add_(step.loss)
        count += 1
        yield step
        if count == window:
            mean = total.item() / window
            if not math.isfinite(mean):
                raise NonFiniteLossError(
                    f"the mean loss of the {window} steps up to step {step.number} is {mean}: try a lower lr"
                )
            if former - mean <= tolerance:
                return
            former, total, count = mean, None, 0


def progress(steps: Iterable[Step], total: int | None = None) -> Iterator[Step]:
    """The same steps beside a progress bar of ``total`` steps with the loss, as far as the device has got."""
    from tqdm.auto import tqdm

    watch = Watch()
    with tqdm(total=total, unit="step") as bar:
        for step in steps:
            if watch.follow(step.number, step.loss):
                bar.set_postfix(loss=f"{watch.value:.4f}", refresh=False)
            bar.update()
            yield step
