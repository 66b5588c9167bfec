"""The trainer: epochs, validation, progress bar, history, early stop, and checkpoints that resume bit for bit."""

import contextlib
import math
import os
import sys
import time
from pathlib import Path

from .errors import CheckpointError, NonFiniteLossError
from .history import EpochRecord, History
from .iterators import sgd, training_step
from .metrics import Metrics, Sums, Watch, device_of, epoch_of, evaluate, pairs, reduction_of
from .modules import CrossEntropyLoss, Module
from .optim import LRScheduler, Optimizer
from .resume import Run, load_run, save_run, settings_of

__all__ = ["History", "Metrics", "Trainer", "evaluate", "sgd"]


class Trainer:
    """Trains a model with an optimiser; ``loss(output, target)`` is CrossEntropyLoss unless given.

    A ``scheduler`` is stepped after each epoch. ``max_grad_norm``: before each update the gradients of all parameters
    of the optimiser, seen as one vector, are shortened to this length if they are longer (``optim.clip_grad_norm_``).
    ``fit`` does what this loop does, to the same bits, and more::

        for epoch in range(epochs):
            for x, y in loader:
                step_loss = loss(model(x), y)
                optimizer.zero_grad()
                step_loss.backward()
                optimizer.step()

    Raises ValueError where ``max_grad_norm`` is not above 0.
    """

    def __init__(
        self, model: Module, optimizer: Optimizer, loss=None, *, scheduler: LRScheduler | None = None,
        max_grad_norm: float | None = None,
    ):  # fmt: skip
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm is {max_grad_norm!r}; expected a length above 0, or None for no limit")
        self.model, self.optimizer, self.scheduler, self.max_grad_norm = model, optimizer, scheduler, max_grad_norm
        self.loss = CrossEntropyLoss() if loss is None else loss

    def fit(
        self, loader, epochs: int, validation=None, *, checkpoint=None, checkpoint_every: int | None = None,
        patience: int | None = None, progress: bool = True,
    ) -> History:  # fmt: skip
        """Train for ``epochs`` epochs; returns their History.

        loader: a DataLoader, or anything that yields pairs (x, y) anew in each epoch. The run begins with the
            loader's next epoch and leaves it after the last, so that another fit goes on with new orders.
        validation: a loader for ``evaluate`` after each epoch.
        checkpoint: a safetensors file for weights, momentum, schedule, random numbers, running sums and history. It is
            written after each epoch and, with ``checkpoint_every``, after so many steps in it, complete or not at
            all; writing waits for the device. If the file is there already, fit goes on from it to the same bits as
            a run that was never interrupted; ``epochs`` counts from the beginning of that run.
        patience: stop after so many epochs without a lower validation loss (``history.best`` tells the best one; the
            weights stay those of the last).
        progress: a bar on stderr or in the notebook, with the mean loss of the epoch so far.

        No step waits for the device; between steps the host rests only where it is a few steps ahead of it. Raises
        NonFiniteLossError as soon as the loss is seen to be NaN or infinite (a checkpoint then stays the last good
        one), CheckpointError for a file that is damaged or belongs to another model or other settings, and ValueError
        for arguments that do not fit together.
        """
        path = Path(checkpoint) if checkpoint is not None else None
        _check(loader, epochs, validation, path, checkpoint_every, patience)
        settings = settings_of(self, loader) if path else None
        resumed = path is not None and path.exists()
        run = load_run(path, self, settings) if resumed else Run(getattr(loader, "epoch", 0))
        with contextlib.closing(_Bar(loader, epochs, run, progress)) as bar:
            if resumed:
                _enter(loader, run.epoch)
                bar.say(f"Resuming from {path}. Done so far: epochs {len(run.history)}, steps of the next {run.step}.")
            while len(run.history) < epochs and not _at_rest(run.history, patience):
                metrics = self._train(run, loader, bar, checkpoint_every, lambda: save_run(path, self, settings, run))
                self._finish_epoch(run, metrics, loader, validation, bar)
                if path:
                    save_run(path, self, settings, run)
        return run.history

    def _train(self, run: Run, loader, bar: "_Bar", every: int | None, save) -> Metrics:
        """Those steps of the epoch in hand that are not done yet; the measures of the whole epoch."""
        self.model.train()
        watch, reduction, finite_until = Watch(run.step), reduction_of(self.loss), run.step
        began = time.perf_counter() - run.seconds
        for x, y in pairs(epoch_of(loader, run.epoch, run.step), device_of(self.model)):
            loss, output = training_step(self.model, self.optimizer, self.loss, x, y, self.max_grad_norm)
            run.sums.add(loss, output, y, reduction)
            run.step += 1
            if watch.follow(run.step, run.sums.loss):
                _check_finite(watch.value, run, finite_until, watch.step)
                finite_until = watch.step
                bar.show(run, watch)
            if every and run.step % every == 0:
                _check_finite(run.sums.metrics().loss, run, finite_until, run.step)  # waits: only training is timed
                run.seconds = time.perf_counter() - began
                save()
                began = time.perf_counter() - run.seconds
        metrics = run.sums.metrics()
        run.seconds = time.perf_counter() - began
        _check_finite(metrics.loss, run, finite_until, run.step)
        return metrics

    def _finish_epoch(self, run: Run, metrics: Metrics, loader, validation, bar: "_Bar") -> None:
        """Validate, write the epoch down, go on to the next."""
        held_out = Metrics(None, None) if validation is None else evaluate(self.model, validation, self.loss)
        if validation is not None and not math.isfinite(held_out.loss):
            raise NonFiniteLossError(
                f"the validation loss after epoch {len(run.history) + 1} is {held_out.loss}: the last steps made the "
                "weights too large. Try a lower lr."
            )
        rate, lr = run.sums.records / run.seconds, self.optimizer.param_groups[0]["lr"]
        run.history.append(EpochRecord(len(run.history) + 1, *metrics, *held_out, run.seconds, rate, lr))
        bar.finish_epoch(run)
        run.step, run.seconds, run.sums = 0, 0.0, Sums()
        if self.scheduler is not None:
            self.scheduler.step()
        _enter(loader, run.epoch)


class _Bar:
    """The progress bar: all steps of the run, counted when the device has done them."""

    def __init__(self, loader, epochs: int, run: Run, progress: bool):
        from tqdm.auto import tqdm  # here, for a quick `import clnn`

        a_epoch = len(loader) if hasattr(loader, "__len__") else None
        self.epochs, self.before = epochs, len(run.history) * (a_epoch or 0)
        total = a_epoch and epochs * a_epoch
        self.tqdm = tqdm(total=total, initial=self.before + run.step, unit="step", disable=not progress)

    def close(self) -> None:
        self.tqdm.close()

    def say(self, text: str) -> None:
        """One line above the bar."""
        if not self.tqdm.disable:
            self.tqdm.write(text, file=sys.stderr)

    def show(self, run: Run, watch: Watch) -> None:
        """The steps that are done and the epoch's mean loss up to there."""
        self.tqdm.set_description(f"epoch {len(run.history) + 1}/{self.epochs}", refresh=False)
        self.tqdm.set_postfix(loss=f"{watch.value * run.step / run.sums.records / watch.step:.4f}", refresh=False)
        self.tqdm.update(self.before + watch.step - self.tqdm.n)

    def finish_epoch(self, run: Run) -> None:
        """The epoch's final numbers; they stay until the next one's come."""
        self.before += run.step
        record = run.history[-1]
        shown = {"loss": f"{record.train_loss:.4f}"}
        if record.val_loss is not None:
            shown["val_loss"] = f"{record.val_loss:.4f}"
        if record.val_accuracy is not None:
            shown["val_acc"] = f"{record.val_accuracy:.2%}"
        self.tqdm.set_description(f"epoch {record.epoch}/{self.epochs}", refresh=False)
        self.tqdm.set_postfix(shown, refresh=False)
        self.tqdm.update(self.before - self.tqdm.n)


def _enter(loader, epoch: int) -> None:
    """Number the loader's next epoch, if it counts them."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)


def _check(loader, epochs, validation, path: Path | None, checkpoint_every, patience) -> None:
    """Refuse what cannot work before anything is trained."""
    for name, value in (("epochs", epochs), ("checkpoint_every", checkpoint_every), ("patience", patience)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} is {value!r}; expected an integer of at least 1")
    if patience is not None and validation is None:
        raise ValueError("patience watches the validation loss: give a validation loader")
    if checkpoint_every is not None and path is None:
        raise ValueError("checkpoint_every needs a file: give checkpoint")
    if checkpoint_every is not None and not hasattr(loader, "batches"):
        raise CheckpointError(
            f"a {type(loader).__name__} cannot be entered in the middle of an epoch, so a run cannot go on from there: "
            "use a clnn.data.DataLoader, or leave out checkpoint_every for a checkpoint after each epoch"
        )
    if path is not None and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
        raise CheckpointError(f"{path} cannot be written: expected the name of a file in a folder that is there")


def _check_finite(loss: float, run: Run, finite_until: int, step: int) -> None:
    """Raise NonFiniteLossError unless the loss up to ``step`` is finite, as it was up to ``finite_until``."""
    if not math.isfinite(loss):
        first = finite_until + 1
        place = f"step {step}" if first == step else f"between steps {first} and {step}"
        raise NonFiniteLossError(
            f"the loss became {'NaN' if math.isnan(loss) else 'infinite'} in epoch {len(run.history) + 1}, {place}. "
            "Try a lower lr, and see that the inputs are scaled and finite."
        )


def _at_rest(history: History, patience: int | None) -> bool:
    """Whether the validation loss has not fallen for ``patience`` epochs."""
    return patience is not None and bool(history) and len(history) - history.best.epoch >= patience
