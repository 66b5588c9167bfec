"""Kernels that do nothing but reach what a device can do at most: the measure for all others."""

from ..errors import ShapeError
from ..program import empty, kernel, launch

CHAINS = 10  # two arithmetic units, each with a result ready after 4 or 5 cycles


def lanes(device) -> int:
    """Floats in one vector register of the device."""
    return device.vector_bytes // 4


def workers(device) -> tuple[int, int]:
    """(groups, work-items in each) that keep the whole device busy."""
    return (device.cores, 1) if device.kind == "CPU" else (8 * device.cores, 256)


def ceiling_kernel(device, name):
    return kernel(device, "ceiling", name, V=lanes(device), CHAINS=CHAINS)


def multiply_add(device, x, factor: float, term: float, steps: int):
    """x = factor x + term, ``steps`` times, then the sum over CHAINS: float32 x (items, CHAINS, lanes), out (groups,
    items, lanes), every group computing the same."""
    groups, items = workers(device)
    if x.shape != (items, CHAINS, lanes(device)):
        raise ShapeError(f"x must have shape {(items, CHAINS, lanes(device))}, got {x.shape}")
    out = empty(device, (groups, items, lanes(device)))
    flops = groups * x.size * (2 * steps + 1)
    launch(
        device, ceiling_kernel(device, "multiply_add"), (groups * items,), (items,), x, out, factor, term, steps,
        flops=flops, nbytes=groups * x.nbytes + out.nbytes,
    )  # fmt: skip
    return out


def triad(device, a, b, c, s: float, passes: int = 1) -> None:
    """a = b + s c for float32 arrays; with more ``passes`` the oldest of (c, b, a) takes the next result each time.

    Raises ShapeError unless the arrays have one size that the device's workers can share.
    """
    groups, items = workers(device)
    workers_wide = groups * items * lanes(device)
    if not a.size == b.size == c.size or a.size % workers_wide:
        raise ShapeError(f"the arrays must have one size, a multiple of {workers_wide}: {a.size}, {b.size}, {c.size}")
    count = a.size // workers_wide
    first, following = (count, 1) if items == 1 else (1, groups * items)
    launch(
        device, ceiling_kernel(device, "triad"), (groups * items,), (items,), a, b, c, s, count, first, following,
        passes, flops=2 * a.size * passes, nbytes=3 * a.nbytes * passes,
    )  # fmt: skip
