"""What a device can do at most, measured on it: how fast it computes and how fast its memory and caches are."""

import json
import math
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pooch

from .device import Device
from .device import device as get_device
from .errors import DeviceError
from .files import write_whole
from .ops import ceiling
from .profiler import profile
from .program import empty, fill, upload

SECONDS = 0.25  # spent on each ceiling
ARRAY_BYTES = 128 * 2**20  # at the least, of each of the triad's three arrays in memory
CACHED_BYTES = 256 * 2**10  # a core, of the triad's arrays in the caches: past the first cache, within the second
CACHED_PASSES = 600  # so many that starting them takes no part of the time; a multiple of 6


@dataclass(frozen=True)
class Ceilings:
    """The most that a device was seen to do: float32 multiply-adds in GFLOP/s (each counts two), and the triad
    a = b + s c in GB/s (10^9 bytes) over arrays far larger than the caches and over arrays that the caches hold."""

    gflops: float
    gbps: float
    cache_gbps: float


def ceilings(device: "str | int | Device | None" = None, fresh: bool = False) -> Ceilings:
    """The device's ceilings, measured at the first call, which takes about a second, then kept in the user's cache.

    ``fresh`` measures again: do so where other programs kept the device busy the first time. Raises DeviceError where
    there is no such device or it computes wrong results.
    """
    target = get_device(device)
    kept = None if fresh else _kept(target)
    if kept is None:
        kept = Ceilings(_arithmetic(target), *_bandwidths(target))
        _keep(target, kept)
    return kept


def _fastest(device: Device, run) -> float:
    """The device's seconds for the fastest of several runs; the first ones warm it up."""
    end = time.perf_counter() + SECONDS
    with profile() as p:
        for k in range(10_000):
            run()
            device.synchronize()
            if k >= 2 and time.perf_counter() > end:
                break
    return min(launch.seconds for launch in p.launches)


def _check(device: Device, what: str, right: bool) -> None:
    """A wrong result means that the time says nothing, and that no result of the device can be trusted."""
    if not right:
        raise DeviceError(
            f"{device.name} computed a wrong {what}. Its driver is broken or its clock too fast: choose another "
            "device, CLNN_DEVICE=cpu, and compare."
        )


def _arithmetic(device: Device) -> float:
    """GFLOP/s of multiply-adds that wait for nothing."""
    steps = 2**17 if device.kind == "CPU" else 2**13
    groups, items = ceiling.workers(device)
    x = np.random.default_rng(0).uniform(1, 2, (items, ceiling.CHAINS, ceiling.lanes(device))).astype(np.float32)
    start, factor, term = upload(device, x), 1 - 1 / steps, 3 / steps  # from x towards 3, two thirds of the way
    results = []
    seconds = _fastest(device, lambda: results.append(ceiling.multiply_add(device, start, factor, term, steps)))
    expected = (3 + (x - 3.0) * factor**steps).sum(1)
    _check(device, "sum of products", np.allclose(results[-1].get(), expected, rtol=0.01))
    return groups * x.size * 2 * steps / seconds / 1e9


def _bandwidths(device: Device) -> tuple[float, float]:
    """GB/s of the triad in memory and in the caches."""
    cache = device.cl_device.global_mem_cache_size
    large = min(max(ARRAY_BYTES, 4 * cache), device.memory // 16, device.max_alloc)
    small = min(CACHED_BYTES * device.cores, cache or CACHED_BYTES) // 3
    return _bandwidth(device, large, 1), _bandwidth(device, small, CACHED_PASSES)


def _bandwidth(device: Device, nbytes: int, passes: int) -> float:
    """GB/s of the triad with s = -1 over three arrays of about ``nbytes`` each."""
    groups, items = ceiling.workers(device)
    workers = groups * items * ceiling.lanes(device)
    a, b, c = (fill(empty(device, (max(nbytes // 4 // workers, 1) * workers,)), value) for value in (0, 3, 5))
    seconds = _fastest(device, lambda: ceiling.triad(device, a, b, c, -1, passes))
    # The values come round after six passes: 5, 3, -2, -5, -3, 2, 5, 3.
    _check(device, "sum of arrays", bool((a.get() == (-2 if passes == 1 else 2)).all()))
    return 3 * a.nbytes * passes / seconds / 1e9


def _file() -> Path:
    return Path(pooch.os_cache("clnn")) / "ceilings.json"


def _key(device: Device) -> str:
    return f"{device.name} | {device.platform} | {device.driver} | {device.cores} cores"


def _read() -> dict:
    """What the file holds; nothing where it is missing or damaged, so that it is measured and written anew."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kept(device: Device) -> Ceilings | None:
    try:
        found = Ceilings(**_read()[_key(device)])
        return found if all(math.isfinite(v) and v > 0 for v in asdict(found).values()) else None
    except (KeyError, TypeError):  # none, or not of this form
        return None


def _keep(device: Device, found: Ceilings) -> None:
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**_read(), _key(device): asdict(found)}, indent=1)
        write_whole(path, f"{text}\n".encode())
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error}): the ceilings will be measured again", stacklevel=3)
