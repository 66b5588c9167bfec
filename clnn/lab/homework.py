"""Grading homework: a student's file is run apart from the grader, tried on hidden cases and given points.

An instructor writes a file ``grading.py`` with a list QUESTIONS; ``python -m clnn.lab.homework grading.py FILE``
grades a student's .py or .ipynb. The submission runs in processes of its own with limits of time and memory. It gets
the arguments of each case and nothing else: references, tolerances and seeds stay with the grader, and whatever the
submission does (exit, crash, loop for ever, fork, print without end), the grader goes on with the next case.
"""

import argparse
import json
import secrets
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ClnnError
from ..files import write_whole
from .check import Wrong, expect
from .sandbox import PRINTED, Sandbox

SIDE = "clnn.lab.submission"


@dataclass(frozen=True)
class Question:
    """A function that the submission must define, worth ``points``.

    ``cases`` maps the name of a part to a function of a NumPy generator that draws the tuple of arguments (arrays and
    numbers); each part is worth the same share and tried ``tries`` times. ``reference`` computes with NumPy what the
    function must return, ``tolerance`` is relative to the largest number of it.
    """

    name: str
    points: float
    cases: dict[str, Callable]
    reference: Callable
    tolerance: float = 1e-5
    tries: int = 3


@dataclass
class Part:
    """One part of a question: its points, and what was wrong ("" where it is right)."""

    question: str
    name: str
    points: float
    possible: float
    message: str


@dataclass
class Report:
    """What a submission is worth. ``complaints`` are of the file itself, ``printed`` is the start of what it wrote."""

    submission: str
    seed: int
    parts: list[Part] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    printed: str = ""

    @property
    def points(self) -> float:
        return sum(part.points for part in self.parts)

    @property
    def possible(self) -> float:
        return sum(part.possible for part in self.parts)

    def to_json(self) -> str:
        """All of it, with the sums."""
        return json.dumps({"points": self.points, "possible": self.possible, **asdict(self)}, indent=1)

    def __str__(self):
        lines = [f"{self.submission}: {self.points:g} of {self.possible:g} points (seed {self.seed})"]
        lines += [f"  in the file: {complaint}" for complaint in self.complaints]
        for part in self.parts:
            mark = "right" if not part.message else "wrong"
            lines.append(f"  {mark}  {part.points:4.1f} of {part.possible:4.1f}  {part.question}, {part.name}")
            lines += [f"           {line}" for line in part.message.splitlines()]
        return "\n".join(lines)


def grade(
    questions: list[Question], submission, seed: int | None = None, *, seconds: float = 20, megabytes: int = 4096
) -> Report:  # fmt: skip
    """Grade a student's .py or .ipynb; ``seed`` draws the cases (left out: a new one, which the report tells).

    ``seconds`` limits running the file and each call, ``megabytes`` the memory of its process. Raises ClnnError where
    the file is missing or of another kind.
    """
    submission = Path(submission)
    if submission.suffix not in (".py", ".ipynb") or not submission.is_file():
        raise ClnnError(f"{submission} is no homework: expected a .py or .ipynb file that is there")
    report = Report(submission.name, secrets.randbelow(2**31) if seed is None else seed)
    with tempfile.TemporaryDirectory() as folder:
        with _Student(submission, Path(folder), report, seconds, megabytes) as student:
            for question in questions:
                for number, part in enumerate(question.cases):
                    rng = np.random.default_rng([report.seed, *question.name.encode(), number])
                    message = _judge(question, part, rng, student)
                    possible = question.points / len(question.cases)
                    report.parts.append(Part(question.name, part, 0 if message else possible, possible, message))
    return report


def _judge(question: Question, part: str, rng, student: "_Student") -> str:
    """What is wrong with the answers to one part; "" where nothing is."""
    for _ in range(question.tries):
        case = question.cases[part](rng)
        wants = question.reference(*case)
        wants = wants if isinstance(wants, tuple) else (wants,)
        values, fault = student.answer(question.name, part, case)
        if fault:
            return fault
        if len(values) != len(wants):
            return f"{question.name}() returns {len(values)} values; expected: {len(wants)}"
        try:
            for i, (got, want) in enumerate(zip(values, wants), 1):
                what = "the result" if len(wants) == 1 else f"value {i} of the result"
                expect(got, np.asarray(want), what, question.tolerance)
        except Wrong as error:
            return str(error)
    return ""


class _Student:
    """The submission in a sandbox, started again after each end that it came to."""

    def __init__(self, submission: Path, folder: Path, report: Report, seconds: float, megabytes: int):
        # A copy in a folder of its own: the way back to the grader's files is not in any path it is told.
        self.home = folder / "homework"
        self.home.mkdir()
        self.path = shutil.copy(submission, self.home)
        self.inputs, self.results = folder / "inputs.npz", folder / "results.npz"
        self.report, self.loaded = report, False
        self.sandbox = Sandbox(seconds, megabytes)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.sandbox.close()

    def answer(self, name: str, part: str, case: tuple):
        """(arrays, "") or (None, what went wrong)."""
        fault = "" if self.loaded else self._load()
        if fault:
            return None, fault
        self.results.unlink(missing_ok=True)
        np.savez(self.inputs, *case)
        outcome = self._call("answer", name=name, part=part, inputs=str(self.inputs), results=str(self.results))
        if outcome.failure:
            self.loaded = False
            return None, outcome.words
        if outcome.value:
            return None, outcome.value[0]
        try:
            with np.load(self.results, allow_pickle=False) as file:
                return [file[key] for key in file.files], ""
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            return None, f"its result cannot be read ({error})"

    def _load(self) -> str:
        outcome = self._call("load", path=self.path)
        if outcome.failure:
            complaints = [outcome.words.strip().splitlines()[-1]]
        else:
            self.loaded, complaints = True, outcome.value
        self.report.complaints += [c for c in complaints if c not in self.report.complaints]
        return f"the file cannot be run. {complaints[0]}" if outcome.failure else ""

    def _call(self, what: str, **arguments):
        outcome = self.sandbox.call(f"{SIDE}:{what}", **arguments)
        self.report.printed = (self.report.printed + outcome.printed)[:PRINTED]
        return outcome


def main(arguments=None) -> int:
    """``python -m clnn.lab.homework GRADING SUBMISSION``; the exit status: 0, or 2 where there is nothing to grade."""
    parser = argparse.ArgumentParser(prog="python -m clnn.lab.homework", description="Grade a student's homework.")
    parser.add_argument("grading", type=Path, help="the instructor's file, which holds a list QUESTIONS")
    parser.add_argument("submission", type=Path, nargs="+", help="students' files, .py or .ipynb")
    parser.add_argument("--seed", type=int, help="draws the cases (default: a new one for each file)")
    parser.add_argument("--seconds", type=float, default=20, help="for running a file and for each call (20)")
    parser.add_argument("--megabytes", type=int, default=4096, help="of memory (4096; Linux)")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write NAME.json for each submission there")
    args = parser.parse_args(arguments)
    try:
        questions = questions_of(args.grading)
        for submission in args.submission:
            report = grade(questions, submission, args.seed, seconds=args.seconds, megabytes=args.megabytes)
            print(report)
            if args.json:
                args.json.mkdir(parents=True, exist_ok=True)
                write_whole(args.json / f"{submission.stem}.json", report.to_json().encode())
    except ClnnError as error:
        print(f"homework: {error}", file=sys.stderr)
        return 2
    return 0


def questions_of(path: Path) -> list[Question]:
    """The list QUESTIONS of an instructor's file. Raises ClnnError where there is none."""
    import runpy

    if not path.is_file():
        raise ClnnError(f"{path} is not there: expected a Python file with a list QUESTIONS")
    questions = runpy.run_path(str(path)).get("QUESTIONS")
    if not questions:
        raise ClnnError(f"{path} defines no QUESTIONS: a list of clnn.lab.homework.Question is expected")
    return questions


if __name__ == "__main__":
    sys.exit(main())
