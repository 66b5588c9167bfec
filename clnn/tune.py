"""``clnn tune``: the fastest tiles of this device for the products and convolutions of known nets.

Kernel Tuner (van Werkhoven, 2019) is the field's tuner. It is not used here: it would bring scikit-learn, pandas and
pymoo for a list that is short enough to be tried whole; it times a single kernel on a context and a queue of its own,
where a tile of ``conv_tiles`` also changes the launches that prepare its operands; and it measures one candidate after
the other, not in turn, so that a change of the machine's load falls on some of them only.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pyopencl as cl
from tqdm import tqdm

from . import models, tuning
from .device import Device, device, use_device
from .errors import KernelCompileError
from .ops import conv, gemm
from .profiler import profile
from .program import SCALARS, empty, fill, upload
from .tensor import randn

NETS = {  # and the images of one step
    "lenet": (models.lenet, (100, 1, 28, 28)),
    "cifar18": (models.cifar18, (128, 3, 32, 32)),
    "alexnet": (models.alexnet, (16, 3, 227, 227)),
}
GAIN = 0.03  # a choice that is faster by less than this is not worth an entry
NEAR = 1.25  # who takes this much longer than the fastest in the first round is out
SECONDS, QUICK_SECONDS = 1.0, 0.1  # of each search's rounds
FLOPS, MOST_IMAGES = 4e8, 128  # of a convolution that is timed: so many images as come to about this work


@dataclass
class Problem:
    """The work to be timed: ``run`` does it and fills ``results``."""

    what: str
    allowed: list[dict]
    default: dict
    run: Callable
    results: list


@dataclass(frozen=True)
class Found:
    """One row of the report: seconds of the default and of the best, and by how much the best is faster (0.05: 5%).

    ``kept`` says whether it went into the table.
    """

    what: str
    family: str
    key: tuple
    default: dict
    best: dict
    default_seconds: float
    best_seconds: float
    gain: float
    kept: bool


def add_parser(subparsers) -> None:
    """Add the subcommand ``tune``."""
    parser = subparsers.add_parser(
        "tune",
        help="find the fastest tile sizes of a device",
        description="Time every tile size that the kernels may have on the work of known nets, and keep the fastest in "
        "the user's cache, where all programs find them. Results stay the same, bit for bit.",
        epilog="Ctrl-C keeps what is finished. CLNN_TUNING=0 does without what was found.",
    )
    parser.add_argument("--net", choices=NETS, nargs="+", default=list(NETS), help="whose work (default: all)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a step (default: the nets' usual ones)")
    parser.add_argument("--device", help="part of a device's name, or its index (default: the best one)")
    parser.add_argument("--quick", action="store_true", help="few candidates, few rounds: to see that it runs")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    parser.set_defaults(func=run, error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Carry out ``clnn tune``; the exit status: 0, or 130 after Ctrl-C."""
    if not tuning.enabled():
        args.error("CLNN_TUNING=0 switches tuning off: unset it")
    if args.batch_size is not None and args.batch_size < 1:
        args.error(f"--batch-size must be at least 1, got {args.batch_size}")
    chosen = device() if args.device is None else use_device(args.device).device
    found, status = [], 0
    path = tuning.save(chosen)  # tells at once whether it can be written
    try:
        work = {}
        for name in args.net:
            make, (usual, *image) = NETS[name]
            work |= work_of(make(), (args.batch_size or usual, *image))
        with tqdm(work, file=sys.stderr, disable=None, leave=False) as bar:
            for family, key in bar:
                found.append(search(chosen, family, key, args.quick, bar.set_description))
    except KeyboardInterrupt:
        print("\nclnn tune: interrupted; what was finished is kept", file=sys.stderr)
        status = 130
    finally:
        tuning.save(chosen)
    if args.json:
        report = {"device": chosen.name, "platform": chosen.platform, "driver": chosen.driver, "file": str(path)}
        print(json.dumps({**report, "rows": [asdict(row) for row in found]}))
    else:
        print(f"{chosen.name} ({chosen.platform})\n{_as_text(found)}\n{sum(f.kept for f in found)} kept in {path}")
    return status


def work_of(net, shape: tuple[int, ...]) -> dict:
    """What a training step of the net on images of ``shape`` asks the table for: {(family, key): None}."""
    with tuning.asked() as work:
        net(randn(*shape)).sum().backward()
    return work


def search(on: Device, family: str, key: tuple, quick: bool = False, note: Callable = lambda text: None) -> Found:
    """Try the candidates for one piece of work and put the best into the table of this process, if it is worth it.

    A candidate that does not compile, or whose results differ from the default's in any bit, takes no part.
    """
    former = _lookup(on, family, key)
    tuning.record(on, family, key, None)
    try:
        problem = (_convolution if family == "conv_tiles" else _product)(on, family, key)
        others = [c for c in problem.allowed if c != problem.default]
        if quick:
            others = others[:: max(1, len(others) // 2)]
        want, choices = _results(problem), [problem.default]
        for i, choice in enumerate(others):
            note(f"{problem.what}, {i + 1} of {len(others)}")
            tuning.record(on, family, key, choice)
            if _is_right(problem, want):
                choices.append(choice)
        first = _race(on, family, key, problem, choices, 1)[0]
        choices = [c for c, s in zip(choices, first) if c == problem.default or s <= NEAR * first.min()]
        rounds = int(np.clip((QUICK_SECONDS if quick else SECONDS) / (len(choices) * first.min()), 3, 25))
        seconds = np.median(_race(on, family, key, problem, choices, rounds), axis=0)
        best = choices[seconds.argmin()]
        # The least of many medians is partly luck: the best has to win once more, against the default alone.
        final = _race(on, family, key, problem, [problem.default, best], 2 * rounds)
        gain = 0.0 if best == problem.default else float(np.median(final[:, 0] / final[:, 1])) - 1
        former = best if gain >= GAIN else None
    finally:
        tuning.record(on, family, key, former)
    medians = map(float, np.median(final, axis=0))
    return Found(problem.what, family, key, problem.default, best, *medians, gain, former is not None)


def _lookup(on: Device, family: str, key: tuple) -> dict | None:
    allowed = conv.candidates(on, key) if family == "conv_tiles" else gemm.row_candidates(on)
    return tuning.lookup(on, family, key, allowed)


def _race(on, family, key, problem, choices, rounds) -> np.ndarray:
    """The device's seconds for each round and choice, one choice after the other in each round."""
    seconds = np.empty((rounds, len(choices)))
    for of_round in seconds:
        for i, choice in enumerate(choices):
            tuning.record(on, family, key, choice)
            with profile() as p:
                problem.run()
            of_round[i] = sum(launch.seconds for launch in p.launches)
    return seconds


def _results(problem: Problem) -> list[np.ndarray]:
    for array in problem.results:
        fill(array, -1)  # so that nothing of the run before counts
    problem.run()
    return [array.get() for array in problem.results]


def _is_right(problem: Problem, want: list[np.ndarray]) -> bool:
    try:
        return all(np.array_equal(got, right) for got, right in zip(_results(problem), want))
    except (KernelCompileError, cl.Error):
        return False


def _random(on: Device, shape: tuple[int, ...], dtype):
    return upload(on, np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype))


def _product(on: Device, family: str, key: tuple) -> Problem:
    """A product of matrices as ``multiply_panels`` computes it."""
    real, m, n, k, batch, layout = key
    dtype = np.dtype(SCALARS[real])
    width = gemm.columns(on, dtype)
    a, panels = _random(on, (batch, m, k), dtype), _random(on, (batch, -(-n // width), k, width), dtype)
    out = empty(on, (batch, m, n), dtype)
    options = dict(
        batch=batch,
        a_strides=(0, batch, m * k, 0, *((k, 1) if layout[0] == "N" else (1, m))),
        c_strides=None if layout[1] == "N" else (1, m),
    )
    what = f"{f'{batch} products' if batch > 1 else 'product'} of {m} x {k} and {k} x {n}, {layout}"
    default = {"ROWS": gemm.tile_rows(on, family, *key)}
    return Problem(
        what, gemm.row_candidates(on), default,
        lambda: gemm.multiply_panels(on, a, panels, out, m, n, k, **options), [out],
    )  # fmt: skip


def _convolution(on: Device, family: str, key: tuple) -> Problem:
    """A convolution as ``forward_tiles`` computes it, with max pooling where the key's last number is above 1."""
    real, *sizes, pool = key
    geo, dtype = conv.Geometry(*sizes), np.dtype(SCALARS[real])
    count = int(np.clip(FLOPS // geo.flops(1), 1, MOST_IMAGES))
    x = _random(on, (count, geo.C, geo.H, geo.W), dtype)
    w = _random(on, (geo.F, geo.C // geo.groups, geo.KH, geo.KW), dtype)
    shape = (count, geo.F, geo.OH // pool, geo.OW // pool)
    results = [empty(on, shape, dtype), empty(on, shape, np.int32)][: 2 if pool > 1 else 1]
    what = f"convolution of {geo.C} x {geo.H} x {geo.W} to {geo.F} x {geo.OH} x {geo.OW} by {geo.KH} x {geo.KW}"
    what += (f", {geo.groups} groups" if geo.groups > 1 else "") + (f", pooled by {pool}" if pool > 1 else "")
    return Problem(
        what, conv.candidates(on, key), conv.tiling(on, dtype, geo, pool).choice,
        lambda: conv.forward_tiles(on, x, w, None, geo, results[0], pool, *results[1:]), results,
    )  # fmt: skip


def _as_text(found: list[Found]) -> str:
    rows = [("what", "default", "best", "gain")]
    for row in found:
        sizes = [" ".join(f"{name}={value}" for name, value in tile.items()) for tile in (row.default, row.best)]
        rows.append((row.what, *sizes, f"{row.gain:+.1%}{'' if row.kept else ' (not kept)'}" if row.gain else ""))
    width = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, width)).rstrip() for row in rows)
