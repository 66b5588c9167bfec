"""Exercises whose answer is a kernel: what ``%%kernel --check NAME`` runs, and the means to write one.

The student's kernels run in a process of their own, on ragged shapes, between guard zones that show what is written
past the end of an array, into results that show what is never written; then, where Oclgrind is installed, on a small
shape in that simulator, which sees missing barriers.
"""

import importlib
import inspect
import re
from dataclasses import dataclass

import numpy as np
import pyopencl as cl

from .. import program
from ..device import device as get_device
from ..device import devices, use_device
from ..errors import ClnnError, KernelCompileError
from . import simulator
from .check import NotDone, Wrong, exercise, expect
from .kernel import Argument, Cell, Kernel, Timing, without_comments
from .sandbox import Sandbox, step
from .show import kernel_text

GUARD = 4096  # bytes at least before and behind each array: a GPU's work-groups write no farther when they overrun
UNREAD = bytes([0xFF] * 8)  # around what is read: NaN, or -1
UNWRITTEN = bytes([0xA5, 0xA5, 0xA5, 0xFF] * 2)  # in results that nobody has written: NaN, but another one

ALONE = "The numbers are right, but no local memory is used, and this exercise is to practise that."

_exercises: dict[str, "KernelExercise"] = {}
_sandbox = Sandbox()
start = _sandbox.start  # so that the first check finds it ready


@dataclass(frozen=True)
class KernelTask:
    """One kernel of an exercise: see ``kernel_task``."""

    name: str
    arguments: tuple[Argument, ...]
    inputs: object
    reference: object
    cases: tuple[tuple, ...]
    small: tuple
    large: tuple | None
    size: object
    locals: tuple
    faults: dict
    flops: object
    nbytes: object
    tolerance: float
    shares: bool

    def __repr__(self):
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class KernelExercise:
    """The kernels of an exercise in the order in which they are judged, and the module that it stands in."""

    name: str
    tasks: tuple[KernelTask, ...]
    module: str


def kernel_task(
    signature: str, inputs, reference, *, cases, small, size, local=64, large=None, faults=None, flops=None,
    nbytes=None, tolerance=1e-5, shares=False,
) -> KernelTask:  # fmt: skip
    """One kernel that an exercise asks for.

    ``signature`` is its head, "add(__global const float *a, ..., int n)". ``inputs(rng, *case)`` draws the values of
    its arguments for one of the ``cases`` (tuples of sizes, ragged ones among them) as a dict by name; results that
    are not in it begin unset, local memory that is not in it gets one element a work-item. The functions that follow
    take some of these values, by their names: ``reference`` gives the expected result (a tuple for several, in the
    order of the arguments), ``size`` the number of work-items (it may take ``local``, too), ``flops`` and ``nbytes``
    the work; ``faults`` maps what to say to functions that make this mistake. ``local`` is a work-group or a list of
    them, taken in turn. ``small`` is the case for the simulator, ``large`` the one for the clock. ``tolerance`` is
    relative to the largest number of a result. ``shares`` asks for a kernel that uses local memory.
    """
    found = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", signature, re.DOTALL)
    if not found:
        raise ClnnError(f"not the head of a kernel: {signature!r}")
    groups = local if isinstance(local, list) else [local]
    return KernelTask(
        found[1], tuple(map(Argument.parse, found[2].split(","))), inputs, reference, tuple(cases), small, large, size,
        tuple(g if isinstance(g, tuple) else (g,) for g in groups), faults or {}, flops, nbytes, tolerance, shares,
    )  # fmt: skip


def kernel_exercise(name: str, *tasks: KernelTask) -> KernelExercise:
    """Register an exercise whose answer is a cell with these kernels: for ``lab.check`` and ``%%kernel --check``.

    The answer may be a Cell, one of its Kernels or OpenCL C as text.
    """
    found = KernelExercise(name, tasks, tasks[0].inputs.__module__)

    def judge(answer, rng):
        _judge(found, answer)

    judge.__module__ = found.module
    exercise(name, tries=1)(judge)
    _exercises[name] = found
    return found


def find_exercise(name: str) -> KernelExercise:
    """The exercise of this name. Raises ClnnError where there is none, or its answer is no kernel."""
    from .check import _find

    _find(name)
    if name not in _exercises:
        raise ClnnError(f"the exercise {name!r} asks for no kernel: check it with lab.check({name!r}, your_answer)")
    return _exercises[name]


# The launches that an exercise asks for


@dataclass(frozen=True)
class Case:
    """One launch: ``values`` of the arguments by name, as the kernel sees them (float32 where it takes float),
    the same for the exercise's functions in ``given``, the expected results in ``want``, size and work-group."""

    task: KernelTask
    values: dict
    given: dict
    want: dict
    size: object
    local: tuple[int, ...]

    @staticmethod
    def of(task: KernelTask, sizes: tuple, number: int = 0) -> "Case":
        """The case of these sizes; ``number`` seeds its random numbers and picks the work-group."""
        local = task.locals[number % len(task.locals)]
        values = dict(task.inputs(np.random.default_rng(number), *sizes))
        for argument in task.arguments:
            if argument.space == "local":
                values.setdefault(argument.name, int(np.prod(local)))
            elif argument.name in values:
                values[argument.name] = np.asarray(values[argument.name]).astype(argument.dtype)
        given = {name: _wide(value) for name, value in values.items()}
        given["local"] = local if len(local) > 1 else local[0]
        want = _results(task, task.reference, given)
        return Case(task, values, given, want, _ask(task.size, given), local)

    def nbytes(self, a: Argument) -> int:
        """Bytes of an array."""
        value = self.values.get(a.name, self.want.get(a.name))
        return np.size(value) * a.dtype.itemsize

    def arguments(self) -> list:
        """The values in the kernel's order; a shape for a result that begins unset."""
        return [
            self.values[a.name].item() if not a.space else self.values.get(a.name, np.shape(self.want.get(a.name)))
            for a in self.task.arguments
        ]

    def __str__(self):
        counts = (a.name for a in self.task.arguments if not a.space and a.dtype.kind in "iu")
        numbers = [f"{name} = {self.given[name]}" for name in counts]
        return f"{', '.join(numbers)}, work-groups of {' x '.join(map(str, self.local))}"


def _wide(value):
    """Floats in double precision, which the reference computes with; numbers as Python's."""
    if not isinstance(value, np.ndarray):
        return value
    value = value.astype(np.float64) if value.dtype.kind == "f" else value
    return value if value.shape else value.item()


def _ask(function, given: dict):
    """A function called with those of the values that it names; a constant as it is."""
    if not callable(function):
        return function
    return function(**{name: given[name] for name in inspect.signature(function).parameters})


def _results(task: KernelTask, function, given: dict) -> dict:
    """What a reference or a fault gives for each argument that the kernel writes."""
    results = _ask(function, given)
    results = results if isinstance(results, tuple) else (results,)
    return {a.name: np.asarray(r) for a, r in zip((a for a in task.arguments if a.written), results, strict=True)}


# Judging


def _judge(found: KernelExercise, answer) -> None:
    """Raise NotDone or Wrong unless the answer's kernels are right."""
    cell = answer.cell if isinstance(answer, Kernel) else answer
    if isinstance(cell, str):
        cell = _compiled(cell)
    if not isinstance(cell, Cell):
        raise Wrong(f"A cell of OpenCL C is expected, your answer is of type {type(answer).__name__}.")
    _check_heads(found, cell)
    with simulator.Simulator() as s:
        if simulator.is_installed():
            s.start()  # it imports while the kernels run
        outcome = ask_sandbox("examine", found, cell)
        verdict = outcome.value or {}
        if "empty" in verdict:
            raise NotDone(verdict["empty"])
        words = verdict.get("wrong") or _accident(outcome)
        findings = []
        if outcome.failure != "time" and simulator.is_installed():
            findings = s.run(cell, _launches(found, cell)).findings
    seen = list(map(str, findings[:3]))
    # Wrong numbers follow from a race; a write past the end is told best by what was written.
    lines = [words, *seen] if findings and findings[0].kind == "bounds" else [*seen, words]
    if any(lines):
        raise Wrong("\n".join(filter(None, lines)))


def _compiled(text: str) -> Cell:
    try:
        return Cell(text)
    except KernelCompileError as error:
        raise Wrong(str(error)) from None


def _check_heads(found: KernelExercise, cell: Cell) -> None:
    """Raise unless each kernel is there and takes what it should."""
    for task in found.tasks:
        kernel = cell.kernels.get(task.name)
        if kernel is None:
            others = f"; it has {', '.join(cell.kernels)}" if cell.kernels else ""
            raise NotDone(f"The cell has no kernel {task.name!r} yet{others}. Its head is {task!r}.")
        if kernel.types != [(a.type, a.space) for a in task.arguments]:
            raise Wrong(f"The kernel takes other arguments than it should. Yours: {kernel!r}. Asked for: {task!r}.")


def ask_sandbox(what: str, found: KernelExercise, cell: Cell):
    """The outcome of one of this module's functions in the sandbox, on the device in use."""
    if found.module == "__main__":
        raise ClnnError("an exercise for kernels must stand in a module, so that another process can import it")
    here = get_device()
    index = devices().index(here) if here in devices() else here.name
    return _sandbox.call(
        f"{__name__}:{what}", module=found.module, name=found.name, text=cell.text, options=cell.options, device=index
    )


def _accident(outcome) -> str:
    """What to say where the kernel did not come to its end."""
    where = f" It happened in {outcome.step}." if outcome.step else ""
    if outcome.failure == "time":
        return f"The kernel was stopped after {_sandbox.seconds:g} seconds: is there a loop that does not end?{where}"
    if outcome.failure == "crash":
        return f"The kernel ended the process that ran it: does it write far outside of its arrays?{where}"
    if outcome.failure:
        return f"The kernel could not be run.{where}\n{outcome.words}"
    return ""


def _launches(found: KernelExercise, cell: Cell) -> list[tuple]:
    """The small case of each kernel, for the simulator."""
    cases = [Case.of(task, task.small) for task in found.tasks]
    return [(cell.kernels[case.task.name], case.arguments(), case.size, case.local) for case in cases]


# Beyond right and wrong


def race(name: str, cell: Cell) -> simulator.Report:
    """What the simulator sees in a cell's kernels on the small cases of an exercise."""
    found = find_exercise(name)
    _check_heads(found, cell)
    with simulator.Simulator() as s:
        return s.run(cell, _launches(found, cell))


def time(name: str, cell: Cell) -> list[Timing]:
    """How long each kernel of an exercise takes in its large case, measured in the sandbox.

    Raises ClnnError where the kernel comes to no end."""
    found = find_exercise(name)
    _check_heads(found, cell)
    outcome = ask_sandbox("clock", found, cell)
    if outcome.failure:
        raise ClnnError(_accident(outcome))
    return [Timing(kernel, get_device(), *measured) for kernel, measured in outcome.value.items()]


# In the sandbox


def examine(module: str, name: str, text: str, options: list[str], device) -> dict:
    """Run a cell's kernels on every case of an exercise: what is wrong, or that nothing is written yet, or nothing."""
    importlib.import_module(module)
    with use_device(device):
        cell = Cell(text, tuple(options))
        for task in _exercises[name].tasks:
            trials = []
            for number, sizes in enumerate(task.cases):
                case = Case.of(task, sizes, number)
                step(f"{task.name} with {case}")
                trials.append(_try(cell.kernels[task.name], case))
            if all(trial.idle for trial in trials):
                if not _stores(text, task.name):
                    return {"empty": "" if task is _exercises[name].tasks[0] else f"{task.name} writes nothing yet."}
                results = " and ".join(f"`{a.name}`" for a in task.arguments if a.written)
                return {"wrong": f"{task.name} writes nothing to {results}: no work-item comes to a line that does."}
            if words := _fault(task, trials):
                return {"wrong": words}
            if task.shares and not re.search(r"\b(?:__)?local\b", without_comments(text)):
                return {"wrong": ALONE}
    return {}


def clock(module: str, name: str, text: str, options: list[str], device) -> dict:
    """The seconds, bytes and operations of each kernel of an exercise in its large case."""
    importlib.import_module(module)
    found = {}
    with use_device(device):
        cell = Cell(text, tuple(options))
        for task in _exercises[name].tasks:
            if task.large is None:
                continue
            case = Case.of(task, task.large)
            step(f"{task.name} with {case}")
            arguments = [
                np.zeros(value, a.dtype) if isinstance(value, tuple) else value
                for value, a in zip(case.arguments(), task.arguments, strict=True)
            ]
            work = {"flops": _ask(task.flops, case.given), "nbytes": _ask(task.nbytes, case.given)}
            timing = cell.kernels[task.name].time(*arguments, size=case.size, local=case.local, **work)
            found[task.name] = timing.seconds, timing.nbytes, timing.flops
    return found


@dataclass(frozen=True)
class Trial:
    """What a kernel did in one case."""

    case: Case
    got: dict  # results by name
    unwritten: dict  # where nobody wrote to them, by name
    idle: bool  # whether it wrote nothing at all
    overruns: list  # sentences on what was written outside of an array
    changed: list  # names of arrays that it should only read
    steady: bool  # whether a second run gave the same

    def close(self, want: dict) -> bool:
        """Whether the results are these."""
        return all(_close(self.got[name], want[name], self.case.task.tolerance) for name in want)


def _try(kernel: Kernel, case: Case) -> Trial:
    before, after = _run(kernel, case)
    _, again = _run(kernel, case)
    got, unwritten, overruns, changed = {}, {}, [], []
    for a in case.task.arguments:
        if a.name not in before:
            continue
        old, new, start = before[a.name], after[a.name], _guard(case, a)
        end = start + case.nbytes(a)
        overruns += _overruns(kernel, case, a, old != new, start, end)
        if not a.written:
            changed += [a.name] * bool((old != new)[start:end].any())
            continue
        shape = case.want[a.name].shape
        got[a.name] = new[start:end].view(a.dtype).reshape(shape)
        same = (old == new)[start:end].reshape(-1, a.dtype.itemsize).all(1).reshape(shape)
        unwritten[a.name] = same & (a.name not in case.values)
    idle = all(np.array_equal(before[name], after[name]) for name in got)
    steady = all(np.array_equal(after[name], again[name]) for name in got)
    return Trial(case, got, unwritten, idle, overruns, changed, steady)


def _guard(case: Case, a: Argument) -> int:
    """Bytes before and behind an array: a multiple of what a part of a buffer may begin at."""
    align = max(get_device().cl_device.mem_base_addr_align // 8, 8)
    return program.round_up(max(GUARD, min(case.nbytes(a), 2**20)), align)


def _image(case: Case, a: Argument) -> np.ndarray:
    """The bytes of an array with its guard zones, as the kernel finds them."""
    start, nbytes = _guard(case, a), case.nbytes(a)
    image = np.resize(
        np.frombuffer(UNWRITTEN if a.written else UNREAD, np.uint8), 2 * start + program.round_up(nbytes, 8)
    )
    if a.name in case.values:
        image[start : start + nbytes] = np.ascontiguousarray(case.values[a.name]).reshape(-1).view(np.uint8)
    return image


def _run(kernel: Kernel, case: Case) -> tuple[dict, dict]:
    """Launch a kernel on arrays between guard zones: the bytes of each array by name, before and after."""
    device = get_device()
    before = {a.name: _image(case, a) for a in case.task.arguments if a.space in ("global", "constant")}
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    buffers = {name: cl.Buffer(device.context, flags, hostbuf=image) for name, image in before.items()}
    given = []
    for a in case.task.arguments:
        if a.name in buffers:
            given.append(buffers[a.name].get_sub_region(_guard(case, a), case.nbytes(a)))
        else:
            value = case.values[a.name]
            given.append(cl.LocalMemory(value * a.itemsize) if a.space else a.number(value.item()))
    size, local = kernel.geometry(device, case.size, case.local)
    program.launch(device, kernel.on(device), size, local, *given)
    after = {name: np.empty_like(image) for name, image in before.items()}
    for name, buffer in buffers.items():
        cl.enqueue_copy(device.queue, after[name], buffer)
    return before, after


# What is wrong


def _overruns(kernel: Kernel, case: Case, a: Argument, changed: np.ndarray, start: int, end: int) -> list[str]:
    found = []
    for place, part in (("before the start", changed[:start]), ("past the end", changed[end:])):
        if part.any():
            count = len(np.unique(np.flatnonzero(part) // a.dtype.itemsize))
            elements = "1 element" if count == 1 else f"{count} elements"
            found.append(f"{kernel.name} writes {place} of `{a.name}`: {elements} there, with {case}.")
    return found


def _fault(task: KernelTask, trials: list[Trial]) -> str:
    """What is wrong with a kernel, in words; "" where nothing is."""
    for trial in trials:
        if trial.overruns:
            return trial.overruns[0]
        if trial.changed:
            return f"{task.name} changes `{trial.changed[0]}`, which it should only read."
    wrong = [trial for trial in trials if not trial.close(trial.case.want)]
    if wrong:
        return _known_fault(task, trials) or _difference(task, trials, wrong[0])
    if unsteady := [trial for trial in trials if not trial.steady]:
        return f"{task.name} gives another result when it runs again, with {unsteady[0].case}: do work-items race?"
    return ""


def _known_fault(task: KernelTask, trials: list[Trial]) -> str:
    for words, fault in task.faults.items():
        try:
            if all(trial.close(_results(task, fault, trial.case.given)) for trial in trials):
                return words
        except Exception:  # no fault can be computed in every case
            continue
    return ""


def _difference(task: KernelTask, trials: list[Trial], trial: Trial) -> str:
    """The first difference of a wrong trial, and in which cases the kernel is right."""
    words = next(filter(None, (_tell(task, trial, name) for name in trial.got)))
    right = [str(t.case) for t in trials if t.close(t.case.want)]
    also = f" It is right with {'; '.join(right[:3])}." if right else ""
    return f"With {trial.case}: {words}{also}"


def _tell(task: KernelTask, trial: Trial, name: str) -> str:
    got, want, unwritten = trial.got[name], trial.case.want[name], trial.unwritten[name]
    what = f"`{name}` of {task.name}"
    if unwritten.any():
        return f"never written: {unwritten.sum()} of the {got.size} elements of {what}, first {_place(unwritten)}."
    odd = np.isnan(got) & ~np.isnan(want)
    if odd.any():
        return (
            f"NaN, not a number: {odd.sum()} of the {got.size} elements of {what}, first {_place(odd)}. NaN is what "
            "lies around the arrays here: is something read from outside, or before it is set?"
        )
    try:
        expect(got, want, what, task.tolerance)
    except Wrong as error:
        return str(error)
    return ""


def _place(mask: np.ndarray) -> str:
    return f"[{', '.join(map(str, np.argwhere(mask)[0]))}]"


def _close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    if got.shape != want.shape:
        return False
    got, want = got.astype(float), want.astype(float)
    finite = np.isfinite(want)
    limit = tolerance * np.abs(want[finite]).max(initial=1e-3)
    with np.errstate(invalid="ignore"):
        near = np.abs(got - want) <= limit
    return bool(np.where(finite, near, (got == want) | (np.isnan(got) & np.isnan(want))).all())


def _stores(text: str, name: str) -> bool:
    """Whether a kernel's text writes to an array at all."""
    body = without_comments(kernel_text(text, name))
    set_or_changed = r"\s*(?:[-+*/%&|^]|<<|>>)?=(?!=)"
    places = rf"[\])](?:\.\w+)?{set_or_changed}|\](?:\+\+|--)|(?:\+\+|--)\w+\["
    return bool(re.search(rf"{places}|[;{{}})]\s*\*+\s*\w+{set_or_changed}|vstore|atom", body))
