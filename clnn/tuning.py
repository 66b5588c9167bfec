"""The tile sizes that were found fastest on a device, kept from one program to the next; ``python -m clnn tune`` finds
them. ``CLNN_TUNING=0`` does without them.

A choice says how fast a kernel is, never what it computes: each number is summed in the same order with all of them.
So results stay the same, bit for bit, with any table and with none.
"""

import json
import os
import re
import warnings
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pooch

from .device import Device
from .errors import ClnnError
from .files import write_whole

_tables = {}  # device -> {family: {key: choice}}
_cached = []  # the functions whose results depend on the tables
_asked = None  # the (family, key) of what is looked up, while someone wants to know


def cached(function):
    """``lru_cache`` for a function that looks something up: it forgets all when a table changes."""
    kept = lru_cache(maxsize=4096)(function)
    _cached.append(kept)
    return kept


def enabled() -> bool:
    """Whether tables are read: CLNN_TUNING=0 switches them off."""
    return os.environ.get("CLNN_TUNING") != "0"


def lookup(device: Device, family: str, key: tuple, allowed: list[dict]) -> dict | None:
    """The choice that the device's table has for ``key``, if it is one of those ``allowed``; else None.

    ``family`` names the kernel, ``key`` the sizes of its work. The table is read at the first call of the process; a
    file that is damaged or belongs to another device counts as empty and is told of in one warning.
    """
    if _asked is not None:
        _asked[family, key] = None
    found = _table(device).get(family, {}).get(_text(key))
    return found if found in allowed else None


def record(device: Device, family: str, key: tuple, choice: dict | None) -> None:
    """Put a choice into the device's table, in this process only until ``save``; None takes it out."""
    choices = _table(device).setdefault(family, {})
    choices[_text(key)] = choice
    if choice is None:
        del choices[_text(key)]
    _forget()


def save(device: Device) -> Path:
    """Write the device's table into the user's cache, whole or not at all; the file's path.

    Raises ClnnError where it cannot be written.
    """
    path = file_of(device)
    text = json.dumps({"device": _identity(device), "choices": _table(device)}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{text}\n".encode())
    except OSError as error:
        raise ClnnError(f"{path} cannot be written ({error}). Make room or get the right to write there.") from error
    return path


@contextmanager
def asked():
    """Gathers what is looked up meanwhile: a dict whose keys are (family, key), each once."""
    global _asked
    _forget()
    former, _asked = _asked, {}
    try:
        yield _asked
    finally:
        _asked = former


def file_of(device: Device) -> Path:
    """Where the device's table is kept: one file a device, driver and processor."""
    name = re.sub(r"[^\w.]+", "-", _identity(device))
    return Path(pooch.os_cache("clnn")) / "tuning" / f"{name[:200]}.json"


def _identity(device: Device) -> str:
    """Another driver, or another processor that it compiles for, makes other code of the same kernel."""
    return " | ".join((device.name, device.platform, device.driver, device.cpu_name or device.version))


def _text(key: tuple) -> str:
    return " ".join(map(str, key))


def _forget() -> None:
    for function in _cached:
        function.cache_clear()


def _table(device: Device) -> dict:
    if device not in _tables:
        _tables[device] = _read(device) if enabled() else {}
    return _tables[device]


def _read(device: Device) -> dict:
    path = file_of(device)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        choices = found["choices"]
        if found["device"] != _identity(device):
            raise ValueError(f"it belongs to {found['device']}")
        if not all(isinstance(family, dict) for family in choices.values()):
            raise TypeError("its families are no tables")
        return choices
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        warnings.warn(
            f"{path} is no table of tuned sizes for this device ({type(error).__name__}: {error}), so clnn uses its "
            "defaults: `python -m clnn tune` writes a new one",
            stacklevel=2,
        )
        return {}
