"""The ladder: seven ways to compute the matrix product C = A B, from one element a work-item to the package's own.

``clnn/lab/ladder/*.cl`` hold the first six, each to be read alone. Here is how they are launched, what they ask memory
for, and how they are checked and timed. ``python -m clnn.lab.ladder`` climbs it on a device and keeps the result.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from .. import program
from ..bench import peers, suites, timing
from ..bench import report as reports
from ..ceilings import Ceilings
from ..device import Device, device, use_device
from ..errors import BenchmarkError, ShapeError
from ..ops import gemm
from ..profiler import profile
from ..program import empty, upload
from .show import Source, kernel_text

SIDE, LINE = 16, 64  # work-items along a square work-group and in one in a row
EACH, ROWS = 4, 6  # elements a work-item in step 4, rows of a tile in steps 5 and 6
SHAPE = (1024, 1024, 512)  # m, n, k: half of the benchmark's third product, its rows as long
MOST_RUNS, SECONDS = 15, 0.3  # of each step that is timed
TOLERANCE = 1e-5  # of the norm
FLOAT = np.dtype(np.float32)


def _up(n: int, each: int) -> int:
    """How many tiles of ``each`` cover n."""
    return -(-n // each)


def _wide(on: Device) -> int:
    """Columns of a tile in steps 5 and 6: one vector of the device."""
    return on.vector_bytes // FLOAT.itemsize


@dataclass(frozen=True, repr=False)
class Step:
    """One way to compute the product, shown as its source.

    ``number`` and ``name``; ``change``: what is new in it; ``file``: where its kernels stand. ``run(device, a, b, out,
    m, n, k)`` enqueues it for device arrays of float32; ``count(device, m, n, k)`` gives how many numbers its
    work-items read from global memory and how many they write.
    """

    number: int
    name: str
    change: str
    file: str
    run: Callable
    count: Callable

    def __str__(self):
        return f"{self.number} {self.name}"

    @property
    def source(self) -> str:
        """Its OpenCL C; of the package's file the two kernels that a CPU runs."""
        if self.file != "gemm.cl":
            return (resources.files(__package__) / "ladder" / self.file).read_text(encoding="utf-8")
        return "\n".join(kernel_text(program.source("gemm"), name) for name in ("gemm_pack", "gemm_panels"))

    def __repr__(self):
        return repr(Source(f"step {self}: {self.change}", self.source))

    def _repr_html_(self):
        return Source(f"step {self}: {self.change}", self.source)._repr_html_()

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The product of two matrices on the device in use, in float32. Raises ShapeError where they do not fit."""
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or not a.size * b.size:
            raise ShapeError(f"a product needs matrices (m, k) and (k, n), got {a.shape} and {b.shape}")
        on, (m, k), n = device(), a.shape, b.shape[1]
        out = empty(on, (m, n))
        self.run(on, upload(on, a.astype(FLOAT)), upload(on, b.astype(FLOAT)), out, m, n, k)
        return out.get()

    def traffic(self, on: Device, m: int, n: int, k: int) -> int:
        """Bytes that its work-items ask global memory for and write to it, whether or not a cache holds them."""
        return FLOAT.itemsize * sum(self.count(on, m, n, k))


@lru_cache(maxsize=64)
def _kernels(on: Device, step: Step) -> dict:
    title = f"clnn/lab/ladder/{step.file}"
    built = program.build(on, step.source, (f"-DV={_wide(on)}",), title).all_kernels()
    for knl in built:
        program.declare_scalars(knl)
        knl.family = "ladder"  # its family in a profile
    return {knl.function_name: knl for knl in built}


def _runner(number: int, local, size) -> Callable:
    """``run`` of a step with one kernel: work-groups of ``local``, ``size(device, m, n)`` work-items."""

    def run(on, a, b, out, m, n, k):
        knl = _kernels(on, STEPS[number - 1])["multiply"]
        program.launch(on, knl, size(on, m, n), local or _few(on), a, b, out, m, n, k)

    return run


def _few(on: Device) -> tuple[int, int]:
    """Work-groups of steps 5 and 6, whose work-items share nothing: some tiles that lie together."""
    return (4, 4) if on.kind == "CPU" else (16, 8)


def _run_panels(on, a, b, out, m, n, k):
    kernels, wide = _kernels(on, STEPS[5]), _wide(on)
    panels = empty(on, (_up(n, wide), k, wide))
    program.launch(on, kernels["pack"], (k, _up(n, wide)), (32, 1), b, panels, n, k)
    program.launch(on, kernels["multiply"], (_up(m, ROWS), _up(n, wide)), _few(on), a, panels, out, m, n, k)


def _run_package(on, a, b, out, m, n, k):
    gemm.gemm(on, a, b, m, n, k, out=out)


def _count_elements(on, m, n, k):
    return 2 * m * n * k, m * n


def _counter_of_groups(height: int) -> Callable:
    """A group reads ``height`` rows of A and SIDE columns of B."""
    return lambda on, m, n, k: (m * k * _up(n, SIDE) + k * n * _up(m, height), m * n)


def _count_vectors(on, m, n, k):
    tiles, wide = _up(m, ROWS), _wide(on)
    return k * tiles * (n // wide) * (ROWS + wide) + 2 * m * (n % wide) * k, m * n


def _packed(m, n, k, wide, tiles, rows_read):
    """B is read and its panels are written; then ``tiles`` of them are read for each panel, and rows of A."""
    panels = _up(n, wide)
    return n * k + panels * k * (rows_read + tiles * wide), panels * k * wide + m * n


def _count_panels(on, m, n, k):
    tiles = _up(m, ROWS)
    return _packed(m, n, k, _wide(on), tiles, tiles * ROWS)


def _count_package(on, m, n, k):
    turned = gemm.packs_left(on, FLOAT, m, n, k)  # it computes the transposed product where that costs less
    m, n = (n, m) if turned else (m, n)
    cpu = on.kind == "CPU"
    height = gemm.tile_rows(
        on, "gemm_panels" if cpu else "gemm_groups", "float", m, n, k, 1, "TT" if turned else "NN"
    )  # fmt: skip
    tiles, wide = _up(m, height), gemm.columns(on, FLOAT)
    read, written = _packed(m, n, k, wide, tiles, tiles * height if cpu else m)
    if cpu and turned:  # both factors are then stored transposed, and the left one is packed, too
        read, written = read + m * k, written + tiles * height * k
    bias = tiles * height * _up(n, wide) if cpu else m * n  # zeros: one for each row of a tile, or for each element
    return read + bias, written


STEPS = (
    Step(
        1, "rows", "one work-item, one element of C; neighbours lie below each other", "1_rows.cl",
        _runner(1, (LINE, 1), lambda on, m, n: (m, n)), _count_elements,
    ),
    Step(
        2, "columns", "neighbouring work-items lie beside each other", "2_columns.cl",
        _runner(2, (LINE, 1), lambda on, m, n: (n, m)), _count_elements,
    ),
    Step(
        3, "tiles", "a work-group shares tiles of A and B in local memory", "3_tiles.cl",
        _runner(3, (SIDE, SIDE), lambda on, m, n: (n, m)), _counter_of_groups(SIDE),
    ),
    Step(
        4, "registers", "four elements of C a work-item", "4_registers.cl",
        _runner(4, (SIDE, SIDE), lambda on, m, n: (n, _up(m, EACH * SIDE) * SIDE)), _counter_of_groups(EACH * SIDE),
    ),
    Step(
        5, "vectors", "six rows of a vector a work-item, nothing shared", "5_vectors.cl",
        _runner(5, None, lambda on, m, n: (_up(n, _wide(on)), _up(m, ROWS))), _count_vectors,
    ),
    Step(
        6, "panels", "B is first copied into panels, which the loop reads in order", "6_panels.cl",
        _run_panels, _count_panels,
    ),
    Step(
        7, "package", "clnn's own gemm: a larger tile, as the device's registers allow", "gemm.cl",
        _run_package, _count_package,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """One step of a climb: the median ``seconds`` of ``runs``, ``flops``, ``nbytes`` (see ``Step.traffic``), and the
    ``error`` of its result: the norm of the difference to NumPy's in float64 over the norm."""

    number: int
    name: str
    seconds: float
    runs: int
    flops: int
    nbytes: int
    error: float

    @property
    def gflops(self) -> float:
        return self.flops / self.seconds / 1e9

    @property
    def intensity(self) -> float:
        """Arithmetic operations a byte."""
        return self.flops / self.nbytes


def climb(m: int = SHAPE[0], n: int = SHAPE[1], k: int = SHAPE[2], seconds: float = SECONDS) -> list[Timed]:
    """Each step on the device in use: checked, warmed up, then timed by the device's clock, the steps in turn.

    A step is timed at least twice and for about ``seconds``. Raises BenchmarkError where a step computes something
    else than NumPy.
    """
    on, rng = device(), np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), FLOAT), rng.standard_normal((k, n), FLOAT)
    want = a.astype(np.float64) @ b
    arrays = upload(on, a), upload(on, b), empty(on, (m, n))
    errors, samples, runs = [], [], []
    for step in STEPS:
        program.fill(arrays[2], np.nan)
        _seconds(on, step, arrays, m, n, k)
        errors.append(float(np.linalg.norm(arrays[2].get() - want) / np.linalg.norm(want)))
        if not errors[-1] < TOLERANCE:  # so put, a NaN fails
            raise BenchmarkError(f"step {step} computes a wrong product: off by {errors[-1]:.1e} of the norm")
        samples.append([_seconds(on, step, arrays, m, n, k)])  # the first run may have compiled
        runs.append(int(np.clip(seconds / samples[-1][0], 2, MOST_RUNS)))
    for turn in range(1, max(runs)):  # a change of the machine's load or clock meets all of them
        for step, times, most in zip(STEPS, samples, runs):
            if turn < most:
                times.append(_seconds(on, step, arrays, m, n, k))
    return [
        Timed(s.number, s.name, float(np.median(t)), len(t), 2 * m * n * k, s.traffic(on, m, n, k), e)
        for s, t, e in zip(STEPS, samples, errors)
    ]


def _seconds(on: Device, step: Step, arrays, m, n, k) -> float:
    with profile() as p:
        step.run(on, *arrays, m, n, k)
    return sum(launch.seconds for launch in p.launches)


def benchmark(m: int = SHAPE[0], n: int = SHAPE[1], k: int = SHAPE[2]) -> float:
    """GFLOP/s of this product on the device in use as ``clnn bench`` measures them, by the host's clock.

    Raises BenchmarkError where the product is wrong.
    """
    case = suites.product("the ladder's product", m, n, k)
    row, faults = timing.measure(case, [peers.Clnn(device())], timing.Settings(sample=0.05))
    if faults:
        raise BenchmarkError(faults[0])
    return case.flops / row["seconds"]["clnn"] / 1e9


def label(name: str, platform: str, kind: str) -> str:
    """A short name for a device: a GPU's own, of a CPU that of the OpenCL implementation that drives it."""
    return (name if kind == "GPU" else platform).replace("Portable Computing Language", "PoCL").replace("(R)", "")


@dataclass(frozen=True)
class Record:
    """A climb that was kept: the device's ``label`` and ``kind``, the product's ``shape`` (m, n, k), the device's
    ``ceilings``, the ``steps``, and GFLOP/s of the same product by ``clnn bench``."""

    label: str
    kind: str
    shape: tuple[int, int, int]
    ceilings: Ceilings
    steps: list[Timed]
    bench: float

    @staticmethod
    def of(report: dict) -> "Record":
        """What ``measure`` gave. Raises BenchmarkError where that is something else."""
        try:
            on, steps = report["device"], [Timed(**step) for step in report["ladder"]]
            return Record(
                label(on["name"], on["platform"], on["kind"]), on["kind"], tuple(report["shape"]),
                Ceilings(**report["ceilings"]), steps, report["bench"],
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise BenchmarkError(f"this is no ladder ({error!r}): python -m clnn.lab.ladder makes one") from None


def measure(m: int = SHAPE[0], n: int = SHAPE[1], k: int = SHAPE[2]) -> dict:
    """A climb on the device in use and what is to be known of machine and device, to be kept as JSON."""
    on = device()
    about = reports.describe(on, [], quick=False)
    found = {key: about[key] for key in ("schema", "date", "load", "machine", "device", "ceilings")}
    reports.raise_ceilings(found, on, fresh=True)
    before, steps, after = benchmark(m, n, k), climb(m, n, k), benchmark(m, n, k)
    reports.raise_ceilings(found, on, fresh=True)
    bench = max(before, after)  # other programs can only lower it, as they can the ceilings
    return found | {"shape": [m, n, k], "bench": bench, "ladder": [asdict(step) for step in steps]}


def load(folder: Path | str) -> list[Record]:
    """The climbs that are kept in a folder, one a device. Raises BenchmarkError for a file that holds none."""
    return [Record.of(reports.load(path)) for path in sorted(Path(folder).glob("*.json"))]


def table(steps: list[Timed]) -> str:
    """The climb as text. The gain is over the step before; MB (10^6 bytes) and FLOP a byte count what the work-items
    ask memory for."""
    lines = [f"{'step':12} {'ms':>9} {'GFLOP/s':>9} {'gain':>7} {'MB':>7} {'FLOP/byte':>10}"]
    for before, s in zip([None, *steps], steps):
        gain = f"{before.seconds / s.seconds:.2f}x" if before else ""
        lines.append(
            f"{s.number} {s.name:10} {s.seconds * 1e3:9.2f} {s.gflops:9.2f} {gain:>7} {s.nbytes / 1e6:7,.0f} "
            f"{s.intensity:10.2f}"
        )
    return "\n".join(lines)


def main(arguments=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m clnn.lab.ladder", description="Climb the ladder on one device.")
    parser.add_argument("--device", help="part of a device's name, or its index (default: the best one)")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("M", "N", "K"))
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="keep the result there, under the device's name")
    chosen = parser.parse_args(arguments)
    with use_device(chosen.device or device()) as on:
        kept = measure(*chosen.shape)
        record = Record.of(kept)
        print(on)
        print(table(record.steps))
        print(f"clnn bench: {record.bench:.2f} GFLOP/s; at most {record.ceilings.gflops:.0f}")
        if chosen.json:
            print(f"results in {reports.save(kept, chosen.json)}")


if __name__ == "__main__":
    main()
