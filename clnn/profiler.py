"""What the device did and how long it took: a table, a timeline and the roofline of a stretch of a program."""

import itertools
import time
from dataclasses import dataclass, field

from . import program
from .device import Device

# Okabe and Ito, "Color Universal Design" (2008): colours that stay apart for colour-blind readers
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")


@dataclass(frozen=True, slots=True)
class Launch:
    """One command that a device carried out: a kernel, or a "fill", "copy" or "upload" of the family "memory".

    Times are nanoseconds of the device's clock, ``flops`` arithmetic operations and ``bytes`` what was read and
    written at the least; None where the operation does not state them.
    """

    kernel: str
    family: str
    device: Device
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    queued: int
    submit: int
    start: int
    end: int
    flops: int | None
    bytes: int | None

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


@dataclass(frozen=True)
class Row:
    """All launches of one kernel on one device: their number, time, share of all launches' time, and what they did."""

    kernel: str
    family: str
    device: Device = field(repr=False)
    launches: int
    seconds: float
    share: float
    flops: int | None
    bytes: int | None

    @property
    def mean_us(self) -> float:
        """Microseconds a launch."""
        return self.seconds / self.launches * 1e6

    @property
    def gflops(self) -> float | None:
        """10^9 arithmetic operations a second."""
        return self.flops / self.seconds / 1e9 if self.flops and self.seconds else None

    @property
    def gbps(self) -> float | None:
        """10^9 bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.bytes and self.seconds else None

    @property
    def intensity(self) -> float | None:
        """Arithmetic operations a byte."""
        return self.flops / self.bytes if self.flops and self.bytes else None


@dataclass(frozen=True)
class Table:
    """``rows``, the kernel that took most time first, and ``wall``, the seconds the profile was open; to be printed."""

    rows: list[Row] = field(repr=False)
    wall: float

    def __str__(self):
        head = ("kernel", "family", "launches", "total ms", "share", "mean us", "GFLOP/s", "GB/s")
        body = [
            (
                r.kernel, r.family, f"{r.launches:,}", f"{r.seconds * 1e3:,.3f}", f"{r.share:.1%}", f"{r.mean_us:,.1f}",
                *("" if rate is None else f"{rate:,.1f}" for rate in (r.gflops, r.gbps)),
            )
            for r in self.rows
        ]  # fmt: skip
        busy, count = sum(r.seconds for r in self.rows), sum(r.launches for r in self.rows)
        total = ("total", "", f"{count:,}", f"{busy * 1e3:,.3f}", "", "", "", "")
        width = [max(len(line[i]) for line in (head, total, *body)) for i in range(len(head))]

        def line(cells):
            sides = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, width, strict=True))]
            return "  ".join(sides).rstrip()

        where = ", ".join(_names(r.device for r in self.rows).values()) or "no device was used"
        rule = "-" * len(line(head))
        title = f"{where}: busy {busy * 1e3:,.3f} of {self.wall * 1e3:,.3f} ms"
        return "\n".join([title, line(head), rule, *map(line, body), rule, line(total)])

    __repr__ = __str__


_open = []  # the profiles that gather at the moment


def _record(*command) -> None:
    for p in _open:
        p._pending.append(command)


class profile:
    """Gathers what the devices do while it is open: ``with clnn.profile() as p: ...``, then ``p.table()``,
    ``p.plot()``, ``p.roofline()``; ``p.launches`` has every command's times, ``p.wall`` the seconds it was open.

    Waits for the devices when it closes, never before; what was queued before it opened does not count. Of copies to
    the host nothing is recorded. Run the code once before: a kernel's first launch may include some of its
    compilation. Profiles may stand inside each other: each gathers all launches of its own time. One
    that is entered again forgets what it had; one that is open cannot be entered or looked at (RuntimeError).
    """

    def __init__(self):
        self._launches, self._pending, self.wall = [], [], 0.0

    def __enter__(self) -> "profile":
        if self in _open:
            raise RuntimeError("this profile is open: make another one with clnn.profile()")
        _open.append(self)
        program.recorder = _record
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exception) -> None:
        _open.remove(self)
        program.recorder = _record if _open else None
        pending, self._pending = self._pending, []  # events hold memory of the driver: let them go
        for device in dict.fromkeys(device for _, device, *_ in pending):
            device.synchronize()
        self.wall = time.perf_counter() - self._began
        self._launches = [_launch_of(*command) for command in pending]

    @property
    def launches(self) -> list[Launch]:
        """Every command, in the order in which they were queued."""
        if self in _open:
            raise RuntimeError("this profile is open: look at it after the with block")
        return self._launches

    @property
    def rows(self) -> list[Row]:
        """One row a kernel and device, the one that took most time first."""
        groups = {}
        for launch in self.launches:
            groups.setdefault((launch.kernel, launch.family, launch.device), []).append(launch)
        total = sum(launch.seconds for launch in self.launches) or 1
        rows = []
        for key, same in groups.items():
            seconds = sum(launch.seconds for launch in same)
            flops, moved = _sum(launch.flops for launch in same), _sum(launch.bytes for launch in same)
            rows.append(Row(*key, len(same), seconds, seconds / total, flops, moved))
        return sorted(rows, key=lambda row: -row.seconds)

    def table(self) -> Table:
        """Launches, time, share of the devices' time, GFLOP/s and GB/s of every kernel; print it, or read its rows."""
        return Table(self.rows, self.wall)

    def _colours(self) -> dict[str, str]:
        """A colour for each family, the same in both pictures."""
        families = dict.fromkeys(row.family for row in self.rows)
        return dict(zip(families, itertools.cycle(COLOURS)))

    def plot(self, ax=None):
        """The timeline: a lane for each family of kernels, a bar for each launch. Returns the matplotlib axes."""
        ax, colours, devices = _axes(ax, 3.2), self._colours(), _names(launch.device for launch in self.launches)
        first, lanes = {}, {}  # each context has a clock of its own, which the parts of a split device share
        for launch in self.launches:
            clock = launch.device.context
            first[clock] = min(first.get(clock, launch.queued), launch.queued)
            lanes.setdefault((launch.family, launch.device), []).append(launch)
        lanes = sorted(lanes.items(), key=lambda lane: sum(launch.seconds for launch in lane[1]))
        busy, names = sum(launch.seconds for launch in self.launches), []
        for y, ((family, device), same) in enumerate(lanes):
            bars = [((launch.start - first[device.context]) / 1e6, launch.seconds * 1e3) for launch in same]
            # An edge half a point wide keeps the shortest launches in sight.
            ax.broken_barh(bars, (y - 0.4, 0.8), color=colours[family], linewidth=0.5)
            names.append(family + (f" on {devices[device]}" if len(devices) > 1 else ""))
        ax.set(yticks=range(len(names)), yticklabels=names, xlabel="time (ms)", ylabel="family of kernels")
        ax.set_title(f"{len(self.launches):,} launches: busy {busy * 1e3:,.2f} of {self.wall * 1e3:,.2f} ms")
        ax.set_xlim(left=0)
        return ax

    def roofline(self, ax=None, ceilings=None):
        """Each kernel's GFLOP/s over its arithmetic operations a byte, under the device's ceilings (Williams et al.,
        "Roofline", 2009), measured at the first call. Returns the matplotlib axes.

        A point's area is its share of the time. Under the slope a kernel waits for memory, under the level line for
        the arithmetic units; above the memory's slope it finds its data in the caches. Kernels whose operations are
        not stated, such as copies, are left out. Raises RuntimeError if none or those of two devices are left.
        """
        rows = [row for row in self.rows if row.intensity and row.gflops]
        used = list(dict.fromkeys(row.device for row in rows))
        if len(used) != 1:
            raise RuntimeError(
                f"a roofline needs kernels of one device that state their work, these are of {len(used)} devices"
            )
        if ceilings is None:
            from .ceilings import ceilings as measure  # which itself profiles

            ceilings = measure(used[0])
        ax = _axes(ax, 4.5)
        ridge = ceilings.gflops / ceilings.gbps
        low = min(row.intensity for row in rows) / 2
        high = 4 * max(ridge, *(row.intensity for row in rows))
        for name, rate, style in (("memory", ceilings.gbps, "-"), ("caches", ceilings.cache_gbps, "--")):
            ends = [low, ceilings.gflops / rate]
            ax.plot(ends, [rate * x for x in ends], style, color="0.3", label=f"{name}: {rate:,.1f} GB/s")
        level = f"arithmetic: {ceilings.gflops:,.0f} GFLOP/s"
        ax.plot([ceilings.gflops / ceilings.cache_gbps, high], [ceilings.gflops] * 2, color="0.3", lw=2.5, label=level)
        for row in rows:
            ax.scatter(row.intensity, row.gflops, _area(row), self._colours()[row.family], zorder=3)
        ax.set(xscale="log", yscale="log", xlim=(low, high))
        ax.set_ylim(min(row.gflops for row in rows) / 2, 2 * max(ceilings.gflops, *(row.gflops for row in rows)))
        ax.set(xlabel="arithmetic operations a byte (FLOP/byte)", ylabel="GFLOP/s", title=used[0].name)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
        _name_points(ax, rows)
        return ax


def _names(devices) -> dict[Device, str]:
    """Each device's name, numbered where several have the same: parts of a split device, or two cards of one kind."""
    devices = list(dict.fromkeys(devices))
    alike = [[other for other in devices if other.name == d.name] for d in devices]
    return {d: f"{d.name} #{same.index(d) + 1}" if len(same) > 1 else d.name for d, same in zip(devices, alike)}


def _launch_of(event, device, what, size, local, flops, nbytes) -> Launch:
    is_kernel = not isinstance(what, str)
    name = what.function_name if is_kernel else what
    family = getattr(what, "family", "own") if is_kernel else "memory"
    t = event.profile
    return Launch(name, family, device, size, local, t.queued, t.submit, t.start, t.end, flops, nbytes)


def _sum(numbers) -> int | None:
    """The sum, or None if one of the numbers is not known."""
    numbers = list(numbers)
    return None if None in numbers else sum(numbers)


def _axes(ax, height: float):
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from None
    return plt.figure(figsize=(9, height), layout="constrained").add_subplot()


def _area(row) -> float:
    """The area of a kernel's point, in square points of print."""
    return 15 + 300 * row.share


def _name_points(ax, rows) -> None:
    """Write each kernel's name beside its point, moved up where it would cover another name."""
    ax.figure.draw_without_rendering()  # the layout decides where the points come to lie
    taken, size, points = [], 8, 72 / ax.figure.dpi
    for row in sorted(rows, key=lambda row: row.gflops):
        x, y = ax.transData.transform((row.intensity, row.gflops)) * points
        away = 4 + _area(row) ** 0.5 / 2
        left, right, at = x + away, x + away + 0.65 * size * len(row.kernel), y
        while any(abs(at - other) < 1.2 * size and left < end and start < right for start, end, other in taken):
            at += 1
        taken.append((left, right, at))
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "relpos": (0, 0.5)} if at - y > size else None
        ax.annotate(
            row.kernel, (row.intensity, row.gflops), (away, at - y), textcoords="offset points", va="center", size=size,
            arrowprops=line, bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0}, zorder=4,
        )  # fmt: skip
