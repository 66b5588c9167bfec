"""Times contestants against each other, after holding each one's result against a reference."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..errors import BenchmarkError


@dataclass
class Contestant:
    """One way to do a case's work: ``run`` does it (it may only enqueue it), ``finish`` waits until all is done,
    ``fetch`` turns what ``run`` gave into NumPy arrays, ``checked`` is called once the result was found right."""

    run: Callable
    finish: Callable = lambda: None
    fetch: Callable = np.asarray
    checked: Callable = lambda: None


@dataclass
class Case:
    """One row of a suite.

    ``task`` names the method of the peers that does it, ``make()`` gives the arguments for it and a function that
    computes the expected result. ``series`` and ``size`` place the row in the plots of growth. Of ``flops``,
    ``nbytes`` and ``images``, a run's work, ``unit`` (GFLOP/s, GB/s, images/s or ms) says which is shown.
    """

    suite: str
    name: str
    task: str
    make: Callable
    unit: str
    series: str = ""
    size: int = 0
    flops: int = 0
    nbytes: int = 0
    images: int = 0
    tolerance: float = 1e-5  # of the norm
    gradient_tolerance: float = 2e-2  # of each gradient that a net's training gives
    lr: float = 0.0  # how much of a gradient's error its parameter takes on in a step
    for_slow_peers: bool = False


@dataclass(frozen=True)
class Settings:
    """How long to time: each sample lasts at least ``sample`` seconds (or one run), and each contestant takes part in
    ``rounds`` rounds, fewer where they would take it more than ``budget`` seconds."""

    rounds: int = 7
    sample: float = 0.15  # so long that filling the queue and waking the threads hardly counts
    budget: float = 2.0
    pause: float = 0.03  # between two contestants, at the least: see ``rest``


@dataclass
class Timing:
    """The samples of one contestant: seconds a run, one number a round."""

    contestant: Contestant
    repeats: int
    rounds: int
    seconds: list[float] = field(default_factory=list)

    def sample(self, pause: float) -> None:
        c = self.contestant
        rest(pause)
        if self.repeats > 1:  # brings back what the others drove out of the caches; no matter for a long run
            c.run()
            c.finish()
        start = time.perf_counter()
        for _ in range(self.repeats):
            c.run()
        c.finish()
        self.seconds.append((time.perf_counter() - start) / self.repeats)


def rest(pause: float, most: float = 1.0) -> None:
    """Sleep for ``pause`` seconds, again and again until all threads of this process sleep, or ``most`` have passed.

    Some libraries' threads look for more work a while after their last: on a core that another contestant needs.
    """
    end = time.perf_counter() + most
    while True:
        busy = time.process_time()
        time.sleep(pause)
        if time.process_time() - busy <= max(pause / 10, 1e-4) or time.perf_counter() > end:
            return


AFTER = " after a step"


def check(who: str, case: Case, got, want) -> None:
    """Raise BenchmarkError unless each array is what it must be, within the case's tolerances for the norm of the
    difference over the norm."""
    got, want = (v if isinstance(v, dict) else {"the result": v} for v in (got, want))
    for name in want:
        right = np.asarray(want[name], np.float64)
        found = np.asarray(got[name], np.float64)
        if found.shape != right.shape:
            raise BenchmarkError(
                f"{who} on {case.suite} {case.name}: {name} has shape {found.shape}, not {right.shape}"
            )
        size = np.linalg.norm(right) or 1
        error = np.linalg.norm(found - right) / size
        allowed = case.gradient_tolerance if name.startswith("gradient") else case.tolerance
        if name.endswith(AFTER):  # where the parameter was 0 before, all of it comes from the gradient
            gradient = np.linalg.norm(want[f"gradient of {name.removesuffix(AFTER)}"])
            allowed += case.lr * case.gradient_tolerance * gradient / size
        if not error <= allowed:  # so put, a NaN fails
            raise BenchmarkError(
                f"{who} computes {case.suite} {case.name} wrong: {name} is off by {error:.1e} of its norm, "
                f"{allowed:.0e} is allowed"
            )


def measure(case: Case, peers: list, settings: Settings, note: Callable = print) -> tuple[dict, list[str]]:
    """(row, faults): the case's row for a table, and what went wrong. A peer that computes a wrong result is a fault
    and gets no time; one that fails otherwise is left out with a note. No row where clnn, the first of the peers,
    is wrong."""
    arguments, reference = case.make()
    want, timings, faults = reference(), {}, []
    for peer in peers:
        if not hasattr(peer, case.task) or (peer.slow and not case.for_slow_peers):
            continue
        try:
            timings[peer.name] = _prepare(peer, case, arguments, want, settings)
        except BenchmarkError as error:
            faults.append(str(error))
        except Exception as error:
            if peer is peers[0]:
                raise
            note(f"{peer.name} cannot do {case.suite} {case.name}: {type(error).__name__}: {error}")
    if peers[0].name not in timings:
        return None, faults
    for i in range(max(t.rounds for t in timings.values())):  # A B A B: a change of load meets all of them
        for timing in timings.values():
            if i < timing.rounds:
                timing.sample(settings.pause)
    return row_of(case, {name: timing.seconds for name, timing in timings.items()}), faults


def _prepare(peer, case, arguments, want, settings) -> Timing:
    """A contestant that was checked, warmed up and given as many repeats and rounds as it has time for."""
    contestant = getattr(peer, case.task)(*arguments)
    result = contestant.run()
    contestant.finish()
    check(peer.name, case, contestant.fetch(result), want)
    contestant.checked()
    for _ in range(2):  # the first may compile what the checked run had no need of
        start = time.perf_counter()
        result = contestant.run()
        contestant.finish()
        seconds = time.perf_counter() - start
    if not isinstance(want, dict):  # a step of training gives other numbers each time
        check(peer.name, case, contestant.fetch(result), want)  # a compiler at run time replays in another way
    repeats = int(np.clip(settings.sample / seconds, 1, 10_000))
    return Timing(contestant, repeats, int(np.clip(settings.budget / (repeats * seconds), 2, settings.rounds)))


def row_of(case: Case, samples: dict[str, list[float]]) -> dict:
    """Medians and quartiles of seconds by contestant, and by peer the median over rounds of its time divided by
    clnn's in the same round."""
    own = samples["clnn"]
    row = {key: getattr(case, key) for key in ("suite", "name", "unit", "series", "size", "flops", "nbytes", "images")}
    row["seconds"] = {name: float(np.median(s)) for name, s in samples.items()}
    row["quartiles"] = {name: [float(q) for q in np.percentile(s, (25, 75))] for name, s in samples.items()}
    row["ratio"] = {
        name: float(np.median([theirs / ours for theirs, ours in zip(s, own)]))
        for name, s in samples.items()
        if name != "clnn"
    }
    return row
