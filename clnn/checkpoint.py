"""Weights and checkpoints in files: safetensors, never pickle, written whole or not at all."""

import glob
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from .errors import CheckpointError, DTypeError
from .files import write_whole
from .tensor import Tensor


def save(state_dict, path, metadata: dict[str, str] | None = None) -> None:
    """Write named arrays (a ``state_dict()``, or Tensors) to a safetensors file.

    The file appears complete or not at all: it is written under a temporary name, then renamed. Raises
    FileNotFoundError where its folder is not there, DTypeError for what has no names.
    """
    path = Path(path)
    if not isinstance(state_dict, Mapping):
        raise DTypeError(f"save takes named arrays, got {type(state_dict).__name__}: of a net, net.state_dict()")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    arrays = {k: np.asarray(v.numpy() if isinstance(v, Tensor) else v, order="C") for k, v in state_dict.items()}
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # by a process that was killed
        left.unlink(missing_ok=True)
    write_whole(path, to_bytes(arrays, metadata))


def load(path) -> dict[str, np.ndarray]:
    """Read the named arrays of a safetensors file, for ``load_state_dict``.

    Raises FileNotFoundError, and CheckpointError where the file is damaged or something else.
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file; raises as ``load`` does."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is no whole safetensors file ({error}; {path.stat().st_size:,} bytes): it was cut short or is "
            "something else. Use another copy."
        ) from None
