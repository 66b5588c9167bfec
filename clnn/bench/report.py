"""Results for people and for programs: the table, the file of results, the page with its plots."""

import datetime
import json
import os
import platform
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyopencl as cl

from ..ceilings import ceilings
from ..device import ALIASES, Device
from ..errors import BenchmarkError
from ..files import write_whole
from ..profiler import COLOURS

SCHEMA = 1
PAGE = """# Benchmarks

How fast clnn is beside other programs on the same machine. `make bench` measures, and `python -m clnn bench --report`
makes this page from the files in `results/`; nothing here is typed by hand.

How it is measured: each contestant's result is held against NumPy's in float64 (a wrong result is an error, not a row);
then all take turns on the same data with the same number of threads, after warming up, and the times are medians.
A peer's column says how many times as long as clnn it takes: above 1 clnn is faster. It is the median over the rounds
of the ratio within one round, so that a change of the machine's load or clock meets both sides. "Of ceiling" is the
least time that the device's measured arithmetic and memory would allow, divided by clnn's time; the arithmetic is that
of the layers' definitions, though in training clnn leaves out the products with the zeros behind max pooling.
"Training" is a full step of SGD with momentum and weight decay, "inference" a forward pass; the batch lies in the
device's memory.
"""


def describe(device: Device, contestants: list, quick: bool) -> dict:
    """A report without rows: the machine, the device, who takes part."""
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "load": load_average(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": _memory_gib(),
            "system": _system(),
            "python": platform.python_version(),
            "pyopencl": cl.VERSION_TEXT,
        },
        "device": {
            "name": device.name,
            "platform": device.platform,
            "kind": device.kind,
            "driver": device.driver,
            "version": device.version,
            "cores": device.cores,
            "cache_bytes": device.cl_device.global_mem_cache_size,
            "vector_bits": 8 * device.vector_bytes,
        },
        "ceilings": {"gflops": 0.0, "gbps": 0.0, "cache_gbps": 0.0},
        "peers": {peer.name: peer.about for peer in contestants},
        "rows": [],
    }


def raise_ceilings(report: dict, device: Device, fresh: bool) -> None:
    """Measure the device's ceilings and put those into the report that are higher than what it has: other programs
    that run at the same time can only lower them."""
    found = asdict(ceilings(device, fresh))
    report["ceilings"] = {name: max(value, found[name]) for name, value in report["ceilings"].items()}


def load_average() -> float | None:
    """Programs that wanted a core in the last minute, on average; None on Windows."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _system() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}"
    except (OSError, KeyError):
        return f"{platform.system()} {platform.machine()}"


def title(report: dict) -> str:
    """The device; a processor also by its vectors, since two generations may bear one name."""
    device = report["device"]
    vectors = f", {device['vector_bits']}-bit vectors" if device["kind"] == "CPU" else ""
    return f"{device['name']}, {device['platform']}{vectors}"


def slug(report: dict) -> str:
    """The title as the name of a file: lower-case letters, digits and hyphens."""
    text = title(report).lower().removesuffix(" vectors")
    for short, long in ALIASES.items():
        text = text.replace(long, short)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def save(report: dict, path: Path) -> Path:
    """Write a report to a file, or into a folder (a path that does not end in .json) under the device's name."""
    path = path if path.suffix == ".json" else path / f"{slug(report)}.json"
    _write(path, (json.dumps(report, indent=1) + "\n").encode())
    return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def load(path: Path) -> dict:
    """A report from a file. Raises BenchmarkError if it holds none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchmarkError(f"{path} is damaged ({error}): measure again, `make bench`") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise BenchmarkError(f"{path} holds no results of this version of clnn: measure again, `make bench`")
    return report


def of_ceiling(row: dict, report: dict) -> float | None:
    """The least time that the device's ceilings allow for a row's work as a share of the time it took.

    The work's floating-point operations and the bytes that it must read and write at least each bound the time (the
    roofline of Williams, Waterman and Patterson, 2009). None where a row tells neither.
    """
    most = report["ceilings"]
    cached = row["nbytes"] <= report["device"]["cache_bytes"]
    memory = row["nbytes"] / most["cache_gbps" if cached else "gbps"]
    least = max(row["flops"] / most["gflops"], memory) / 1e9
    return least / row["seconds"]["clnn"] or None


def rate(row: dict) -> str:
    """What clnn does in a second, in the row's unit."""
    work = {"GFLOP/s": row["flops"] / 1e9, "GB/s": row["nbytes"] / 1e9, "images/s": row["images"]}
    if row["unit"] not in work:
        return ""
    value = work[row["unit"]] / row["seconds"]["clnn"]
    return f"{value:,.0f} {row['unit']}" if value >= 100 else f"{value:.3g} {row['unit']}"


def cells(report: dict, rows: list[dict]) -> list[list[str]]:
    """A table of rows as texts, its head first; a column for each peer that took part in one of them."""
    peers = [name for name in report["peers"] if any(name in row["ratio"] for row in rows)]
    lines = [["", "ms", "rate", "of ceiling", *(f"{name} takes" for name in peers)]]
    for row in rows:
        share = of_ceiling(row, report)
        ratios = [f"{row['ratio'][name]:.2f} x" if name in row["ratio"] else "" for name in peers]
        value = row["seconds"]["clnn"] * 1e3
        milliseconds = f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
        lines.append([row["name"], milliseconds, rate(row), f"{share:.0%}" if share else "", *ratios])
    return lines


def by_suite(report: dict) -> dict[str, list[dict]]:
    """The rows of each suite."""
    suites = {}
    for row in report["rows"]:
        suites.setdefault(row["suite"], []).append(row)
    return suites


def facts(report: dict) -> list[str]:
    """The machine and the contestants in a few lines."""
    machine, device, most = report["machine"], report["device"], report["ceilings"]
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    return [
        f"{machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}, Python {machine['python']}",
        f"{device['name']} ({device['kind']}, {device['platform']}, driver {device['driver']}), {device['cores']} "
        f"compute units: at most {most['gflops']:.0f} GFLOP/s, {most['gbps']:.0f} GB/s from memory, "
        f"{most['cache_gbps']:.0f} GB/s from the caches",
        "; ".join(f"{name} {about}" for name, about in report["peers"].items()),
        f"{report['date']}, load before the start: {report['load']}" + ("; quick" if report["quick"] else ""),
    ]


def table(report: dict) -> str:
    """The report as text for a terminal."""
    blocks = ["\n".join(facts(report))]
    for suite, rows in by_suite(report).items():
        lines = cells(report, rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        lines[0][0] = suite
        blocks.append(
            "\n".join(
                "  ".join(
                    [line[0].ljust(max(widths[0], len(suite))), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]
                ).rstrip()
                for line in lines
            )
        )
    return "\n\n".join(blocks)


def section(report: dict) -> str:
    """The report as a part of a Markdown page."""
    name = slug(report)
    lines = [f"## {title(report)}", "", *[f"- {f}" for f in facts(report)]]
    lines += ["", f"![How many times as long each peer takes, row by row](results/{name}-ratio.png)"]
    lines += ["", f"![How time grows with size and batch](results/{name}-growth.png)"]
    for suite, rows in by_suite(report).items():
        head, *body = cells(report, rows)
        lines += ["", f"### {suite}", ""]
        lines += [f"| {' | '.join(line)} |" for line in (head, ["---", *["---:"] * (len(head) - 1)], *body)]
    return "\n".join(lines)


def page(reports: list[dict]) -> str:
    """The Markdown page of several devices."""
    return "\n".join([PAGE, *[section(report) + "\n" for report in reports]])


def write_page(folder: Path) -> list[Path]:
    """Make FOLDER/README.md, and two plots beside each file of results, from FOLDER/results/*.json.

    Returns the files written. Raises BenchmarkError where there are no results or one is damaged.
    """
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise BenchmarkError(f"no results in {folder / 'results'}: measure first, `make bench`")
    reports, written = [load(path) for path in files], []
    for report in reports:
        for kind, draw in (("ratio", plot_ratios), ("growth", plot_growth)):
            path = folder / "results" / f"{slug(report)}-{kind}.png"
            _write(path, _png(draw(report)))
            written.append(path)
    _write(folder / "README.md", page(reports).encode())
    return [*written, folder / "README.md"]


def _png(figure) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def plot_ratios(report: dict):
    """A figure: for each row and peer how many times as long as clnn it takes."""
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    rows, peers = report["rows"], [name for name in report["peers"] if name != "clnn"]
    figure = Figure(figsize=(9, 1.2 + 0.17 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for i, peer in enumerate(peers):
        points = [(row["ratio"][peer], y) for y, row in enumerate(rows) if peer in row["ratio"]]
        if points:
            axes.scatter(*np.transpose(points), s=18, color=COLOURS[i + 1], label=peer, zorder=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="time of the peer / time of clnn (right of 1: clnn is faster)")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [f"{row['suite']}: {row['name']}" for row in rows], fontsize=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", which="both", linewidth=0.3)
    axes.grid(axis="y", linewidth=0.2)
    figure.legend(loc="outside upper center", ncols=max(len(peers), 1), fontsize=8)
    return figure


def plot_growth(report: dict):
    """A figure: milliseconds by size or batch, for each series of rows and each contestant."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    series = {}
    for row in report["rows"]:
        if row["series"]:
            series.setdefault(row["series"], []).append(row)
    columns = min(len(series), 3) or 1
    lines = -(-len(series) // columns) or 1
    figure = Figure(figsize=(3.6 * columns, 2.9 * lines), layout="constrained")
    for at, (name, rows) in enumerate(series.items(), 1):
        axes = figure.add_subplot(lines, columns, at)
        for i, who in enumerate(report["peers"]):
            points = [(row["size"], row["seconds"][who] * 1e3) for row in rows if who in row["seconds"]]
            if points:
                axes.plot(*np.transpose(points), "o-", markersize=3, linewidth=1, color=COLOURS[i], label=who)
        axes.set(xscale="log", yscale="log", ylabel="ms", title=name)
        axes.set_xlabel("batch" if rows[0]["unit"] == "images/s" else "size")
        sizes = [row["size"] for row in rows]
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(axis="y", labelsize=7)
        axes.minorticks_off()
        axes.grid(linewidth=0.3)
        axes.legend(fontsize=7)
    return figure
