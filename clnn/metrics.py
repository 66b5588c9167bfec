"""What training measures: loss and accuracy, summed on the device so that no step waits for it."""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyopencl as cl

from .device import Device
from .device import device as get_device
from .errors import DataError, ShapeError
from .modules import CrossEntropyLoss, Module
from .ops.tally import count_hits, tally
from .tensor import Tensor, no_grad, tensor, zeros, zeros_like

NO_BATCH = "there was no batch: the loader is empty, or an iterator that was used up before"
AHEAD = 8  # steps the host may be ahead of the device: enough to keep it busy, few enough to hold in memory


class Metrics(NamedTuple):
    """The mean loss a record, and the share of correct predictions (None where the targets are no class labels)."""

    loss: float
    accuracy: float | None


class Sums:
    """Loss and correct predictions of many batches, added up on the device."""

    def __init__(self):
        self.loss: Tensor | None = None  # each batch's loss times its records
        self.correct: Tensor | None = None
        self.records = self.labels = 0

    def add(self, loss: Tensor, output: Tensor, target: Tensor, reduction: str = "mean") -> None:
        """Count one batch, whose loss is one number. Does not wait for the device."""
        if loss.size != 1:
            raise ShapeError(f"the loss must be one number a batch, it has shape {loss.shape}: take its mean()")
        if self.loss is None:
            self.loss = zeros_like(loss)
        weight = 1 if reduction == "sum" else len(target)
        if _are_labels(target, output):
            if self.correct is None:
                self.correct = zeros((), dtype=np.int32, device=loss.device)
            tally(self.loss, self.correct, loss, weight, output, target)
            self.labels += target.size
        else:
            self.loss.add_(loss.detach() * weight)
        self.records += len(target)

    def metrics(self) -> Metrics:
        """The means (waits for the device). Raises DataError if no batch came."""
        if self.loss is None:
            raise DataError(NO_BATCH)
        accuracy = None if self.correct is None else self.correct.item() / self.labels
        return Metrics(self.loss.item() / self.records, accuracy)


class Watch:
    """Follows a number on the device without making the device wait.

    One copy to the host is under way at a time, and its event is polled. ``value`` is the number as it was after
    ``step``, the last step that is known to be done.
    """

    def __init__(self, step: int = 0):
        self.value, self.step = math.nan, step
        self._event = self._host = None

    def follow(self, step: int, number: Tensor) -> bool:
        """Call after each step; says whether ``value`` is new.

        Where the host is AHEAD steps or more before the device, it rests here: the device still has those steps
        to do, and batches that wait for it would only fill the memory.
        """
        if self._event is None:
            self._ask(step, number)
        while not (arrived := self._event.command_execution_status <= cl.command_execution_status.COMPLETE):
            if step - self._asked < AHEAD:
                break
            time.sleep(1e-3)
        if arrived:
            self.value, self.step, self._event = float(self._host[0]), self._asked, None
        return arrived

    def _ask(self, step: int, number: Tensor) -> None:
        queue = number.device.queue
        if self._host is None:
            # Memory of the driver's own: into any other some drivers copy only while the caller waits.
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
            buffer = cl.Buffer(number.device.context, flags, number.nbytes)
            read = cl.map_flags.READ
            self._host, _ = cl.enqueue_map_buffer(queue, buffer, read, 0, (1,), number.dtype, is_blocking=False)
        self._asked = step
        self._event = cl.enqueue_copy(queue, self._host, number.array.base_data, is_blocking=False)
        queue.flush()  # starts the work, else some drivers let it lie until somebody waits


def pairs(batches: Iterable, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches as (x, y) of tensors; NumPy arrays are copied to the device. Raises DataError for other batches."""
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            shape = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
            raise DataError(f"a batch must be a pair (x, y) of inputs and targets, this one is {shape}")
        yield tuple(part if isinstance(part, Tensor) else tensor(part, device=device) for part in batch)


def epoch_of(loader, epoch: int, start: int = 0) -> Iterable:
    """The batches of one epoch from ``start`` on; a loader without ``batches`` is simply iterated."""
    return loader.batches(epoch, start) if hasattr(loader, "batches") else iter(loader)


def device_of(model: Module) -> Device:
    """Where the model's parameters lie."""
    parameter = next(model.parameters(), None)
    return get_device() if parameter is None else parameter.device


@contextlib.contextmanager
def evaluating(model: Module):
    """Within this context the model is in evaluation mode; after it each module has its former mode."""
    former = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in former.items():
            module.training = mode


def evaluate(model: Module, loader, loss=None) -> Metrics:
    """The mean loss (default: CrossEntropyLoss) and the accuracy of a model on all records of a loader.

    The model runs in evaluation mode and without a tape; its modes are put back. Each record weighs the same, also
    in a last batch that is smaller. The loader is a DataLoader (its first epoch is taken, its own count of epochs
    left alone) or anything that yields pairs (x, y). Waits for the device once, at the end. Raises DataError for
    an empty loader.
    """
    loss = CrossEntropyLoss() if loss is None else loss
    sums, watch = Sums(), Watch()
    with evaluating(model), no_grad():
        for step, (x, y) in enumerate(pairs(epoch_of(loader, 0), device_of(model)), 1):
            output = model(x)
            sums.add(loss(output, y), output, y, reduction_of(loss))
            watch.follow(step, sums.loss)
    return sums.metrics()


def top_k_accuracy(model: Module, loader, ks: Iterable[int] = (1, 5)) -> dict[int, float]:
    """For each k the share of labels that are among the model's k largest logits, as {k: share}.

    Of equal logits the first come first. The model runs as in ``evaluate``; the device counts, and only the end waits
    for it. Raises DataError for an empty loader, and ShapeError where outputs and targets are no logits (N, C, ...)
    and integer labels (N, ...).
    """
    ks = list(ks)
    if not ks or not all(isinstance(k, int) and k >= 1 for k in ks):
        raise ValueError(f"ks are whole numbers of at least 1, got {ks}")
    hits, labels, watch = {}, 0, Watch()
    with evaluating(model), no_grad():
        for step, (x, y) in enumerate(pairs(epoch_of(loader, 0), device_of(model)), 1):
            output = model(x)
            if not _are_labels(y, output):
                raise ShapeError(
                    f"targets {y.dtype.name} {y.shape} are no labels of outputs {output.shape}: expected int32 "
                    f"{output.shape[:1] + output.shape[2:]}"
                )
            for k in ks:
                if k not in hits:
                    hits[k] = zeros((), dtype=np.int32, device=output.device)
                count_hits(hits[k], output, y, k)
            labels += y.size
            watch.follow(step, hits[ks[0]])
    if not labels:
        raise DataError(NO_BATCH)
    return {k: count.item() / labels for k, count in hits.items()}


def _are_labels(target: Tensor, output: Tensor) -> bool:
    """Whether targets are class labels for logits (N, C, ...)."""
    return target.dtype == np.int32 and output.ndim >= 2 and target.shape == output.shape[:1] + output.shape[2:]


def reduction_of(loss) -> str:
    """Whether the loss of a batch is the mean over its records, as of any plain function, or their sum."""
    return getattr(loss, "reduction", "mean")
