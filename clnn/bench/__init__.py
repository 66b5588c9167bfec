"""``python -m clnn bench``: how fast clnn is beside NumPy, PyTorch, CLBlast and tinygrad on the same machine.

    reference.py   what each case must compute, in NumPy and float64
    peers.py       the contestants, clnn among them: how each does a task
    suites.py      the cases: which tasks, on which sizes
    timing.py      checks results, then times the contestants in turn
    report.py      tables for people, files of results, and the page and pictures made of them

The field's term for such comparisons is interleaved timing: contestants take turns within one run, so that a change
of the machine's load or clock meets all of them alike.
"""

import os
import sys
from pathlib import Path

from tqdm import tqdm

from ..device import device, use_device
from .peers import PEERS, find_peers
from .report import describe, load_average, raise_ceilings, save, table, write_page
from .suites import SUITES
from .timing import Settings, measure

QUICK = Settings(rounds=3, sample=0.002, budget=0.5, pause=0.005)


def add_parser(subparsers) -> None:
    """Add ``bench`` to the subcommands of ``clnn``."""
    parser = subparsers.add_parser(
        "bench",
        help="measure clnn beside its peers",
        description="Check and time clnn and those of its peers that are installed, in turn, on the same data.",
        epilog="`make bench` installs the peers in a virtual environment of their own and runs everything.",
    )
    parser.add_argument("--suite", choices=SUITES, nargs="+", default=list(SUITES), help="what to run (default: all)")
    parser.add_argument("--peers", choices=PEERS, nargs="*", default=list(PEERS), help="whom to compare with")
    parser.add_argument("--device", help="part of a device's name, or its index (default: the best one)")
    parser.add_argument("--quick", action="store_true", help="few small sizes, a few seconds: to see that it runs")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="write the results here; in a folder under the device's name"
    )
    parser.add_argument(
        "--report", type=Path, nargs="?", const=Path("benchmarks"), metavar="FOLDER",
        help="measure nothing: make FOLDER/README.md and its plots from FOLDER/results/*.json (default: benchmarks)",
    )  # fmt: skip
    parser.set_defaults(func=run)


def run(args) -> int:
    """Carry out ``clnn bench``; 1 where a result was wrong."""
    if args.report:
        for path in write_page(args.report):
            print(path)
        return 0
    if args.device is not None:
        use_device(args.device)
    report, faults = benchmark(args.suite, args.peers, args.quick)
    print(table(report))
    if args.json:
        print(f"results in {save(report, args.json)}")
    for fault in faults:
        print(f"clnn bench: {fault}", file=sys.stderr)
    return 1 if faults else 0


def benchmark(suites=tuple(SUITES), peers=tuple(PEERS), quick: bool = False) -> tuple[dict, list[str]]:
    """(report, faults): the machine and the rows of these suites on the device in use, and what was computed wrong.

    Raises DeviceError where there is no device.
    """
    on, settings = device(), QUICK if quick else Settings()

    def note(text):
        tqdm.write(f"clnn bench: {text}", file=sys.stderr)

    contestants = find_peers(on, peers, note)
    load, cores = load_average(), os.cpu_count()
    if load and load > cores / 2:
        note(f"the machine is busy (load {load:.1f}, {cores} cores): threads that wait for each other take far longer")
    report, faults = describe(on, contestants, quick), []
    with tqdm(suites, file=sys.stderr, disable=None, leave=False) as bar:
        for suite in bar:
            bar.set_description("ceilings")
            raise_ceilings(report, on, fresh=not quick)
            for case in SUITES[suite](quick):
                bar.set_description(f"{case.suite}: {case.name}")
                row, wrong = measure(case, contestants, settings, note)
                report["rows"] += [row] if row else []
                faults += wrong
    return report, faults
