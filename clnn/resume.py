"""The state of a training run, and the checkpoint file from which it goes on to the same bits."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .checkpoint import load_with_metadata, save
from .errors import CheckpointError, NonFiniteLossError
from .history import EpochRecord, History
from .metrics import Sums, device_of
from .tensor import generator, tensor

STATE = "clnn.run"  # the metadata's key; arrays that are no weights are named "@...", which no module can be


@dataclass
class Run:
    """How far a run has come. The epoch in hand is number ``len(history)``, counted from 0."""

    first_epoch: int = 0  # the loader's number of the run's first epoch
    step: int = 0  # batches of the epoch in hand that are done
    seconds: float = 0.0  # what they took
    sums: Sums = field(default_factory=Sums)  # what they measured
    history: History = field(default_factory=History)

    @property
    def epoch(self) -> int:
        """The loader's number of the epoch in hand."""
        return self.first_epoch + len(self.history)


def settings_of(trainer, loader) -> dict:
    """What a run consists of: a checkpoint is only taken by a run that agrees in all of it."""
    model, optimizer, scheduler, loss = trainer.model, trainer.optimizer, trainer.scheduler, trainer.loss
    settings = {
        "parameters": {name: f"{p.dtype.name} {p.shape}" for name, p in model.named_parameters()},
        "model": repr(model),
        "loss": getattr(loss, "__name__", type(loss).__name__),
        "optimizer": type(optimizer).__name__,
        "max_grad_norm": trainer.max_grad_norm,
        "scheduler": None,
    }
    groups = [{k: v for k, v in group.items() if k not in ("params", "blocks")} for group in optimizer.param_groups]
    if scheduler is not None:
        plain = {
            k: v for k, v in vars(scheduler).items() if isinstance(v, int | float | str | list) and k != "last_epoch"
        }
        settings["scheduler"] = f"{type(scheduler).__name__} {plain}"
        for group in groups:
            del group["lr"]  # it moves; base_lrs stands among the scheduler's own
    for key in groups[0]:
        settings[key] = [group[key] for group in groups] if len(groups) > 1 else groups[0][key]
    data = getattr(loader, "dataset", None)
    settings["data"] = " ".join(getattr(data, key, "") for key in ("name", "split")).strip()
    settings["records"] = len(data[0]) if isinstance(data, tuple | list) else len(data) if data is not None else None
    for key in ("batch_size", "seed", "shuffle", "drop_last"):
        settings[key] = getattr(loader, key, None)
    return json.loads(json.dumps(settings, default=float))  # as it will come back from a file


def save_run(path: Path, trainer, settings: dict, run: Run) -> None:
    """Write a checkpoint (waits for the device). Raises NonFiniteLossError, and writes nothing, if a weight is NaN."""
    optimizer = trainer.optimizer.state_dict()
    arrays = trainer.model.state_dict()
    arrays |= {f"@optimizer.{i}.{k}": v for i, state in optimizer["state"].items() for k, v in state.items()}
    broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        raise NonFiniteLossError(
            f"{broken[0]} became NaN or infinite; {len(run.history)} epochs and {run.step} steps were done. Try a "
            "lower lr. No checkpoint was written; an earlier one stays as it was."
        )
    sums = {"loss": run.sums.loss, "correct": run.sums.correct}
    arrays |= {f"@sums.{name}": t.numpy() for name, t in sums.items() if t is not None}
    state = {
        "settings": settings,
        "param_groups": optimizer["param_groups"],
        "scheduler": trainer.scheduler.state_dict() if trainer.scheduler is not None else None,
        "generator": generator().bit_generator.state,
        "run": {"first_epoch": run.first_epoch, "step": run.step, "seconds": run.seconds},
        "counts": {"records": run.sums.records, "labels": run.sums.labels},
        "history": run.history.to_dicts(),
    }
    text = json.dumps(state, default=float)  # an lr may be one of NumPy's numbers
    save(arrays, path, {STATE: text, "sha256": _digest(arrays, text)})


def load_run(path: Path, trainer, settings: dict) -> Run:
    """Take over the state in a checkpoint.

    Raises CheckpointError, before anything is changed, where the file is damaged or of another run.
    """
    arrays, metadata = load_with_metadata(path)
    text = metadata.get(STATE)
    if text is None:
        raise CheckpointError(f"{path} holds arrays, but no state of a training run: give the checkpoint another name")
    if metadata.get("sha256") != _digest(arrays, text):
        raise CheckpointError(
            f"{path} was altered: its checksum is wrong. Use another copy, or delete it to start anew."
        )
    state = json.loads(text)
    if found := _differences(state["settings"], settings):
        raise CheckpointError(
            f"{path} is of another run: {'; '.join(found)}. Nothing was changed. Resume with the settings of the file, "
            "or give the checkpoint another name."
        )
    _restore(trainer, arrays, state)
    sums = Sums()
    sums.records, sums.labels = state["counts"]["records"], state["counts"]["labels"]
    for name in ("loss", "correct"):
        if (array := arrays.get(f"@sums.{name}")) is not None:
            setattr(sums, name, tensor(array, array.dtype, device=device_of(trainer.model)))
    history = History(EpochRecord(**record) for record in state["history"])
    return Run(**state["run"], sums=sums, history=history)


def _restore(trainer, arrays: dict, state: dict) -> None:
    """Weights, optimiser, schedule and random numbers as they were."""
    trainer.model.load_state_dict({name: array for name, array in arrays.items() if not name.startswith("@")})
    optimizer = {}
    for name, array in arrays.items():
        if name.startswith("@optimizer."):
            _, i, key = name.split(".", 2)
            optimizer.setdefault(int(i), {})[key] = array
    trainer.optimizer.load_state_dict({"state": optimizer, "param_groups": state["param_groups"]})
    if trainer.scheduler is not None:
        trainer.scheduler.load_state_dict(state["scheduler"])
    generator().bit_generator.state = state["generator"]


def _digest(arrays: dict, text: str) -> str:
    """SHA-256 over all arrays and the state: a safetensors file has no checksum of its own."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"\0{name}\0{arrays[name].dtype}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def _differences(theirs: dict, ours: dict) -> list[str]:
    """What differs between the settings in a file and those of this run, in words."""
    found = []
    file, here = theirs["parameters"], ours["parameters"]
    for name in (n for n in {**file, **here} if file.get(n) != here.get(n)):
        found.append(
            f"parameter {name} is {file.get(name, 'missing')} in the file and {here.get(name, 'missing')} here"
        )
    found[3:] = [f"{len(found) - 3} more parameters"] if len(found) > 3 else []
    if not found and theirs["model"] != ours["model"]:
        lines = zip(theirs["model"].splitlines(), ours["model"].splitlines(), strict=False)
        a, b = next((pair for pair in lines if pair[0] != pair[1]), ("shorter or longer", "not so"))
        found.append(f"the model has {a.strip()!r} in the file and {b.strip()!r} here")
    for key in (k for k in {**theirs, **ours} if k not in ("parameters", "model")):
        if theirs.get(key) != ours.get(key):
            found.append(f"{key} is {theirs.get(key)!r} in the file and {ours.get(key)!r} here")
    return found
