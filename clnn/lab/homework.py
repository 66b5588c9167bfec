"""Grading homework: a student's file is run apart from the grader, tried on hidden cases and given points.

An instructor writes a file ``grading.py`` with a list QUESTIONS; ``python -m clnn.lab.homework grading.py FILE``
grades a student's .py or .ipynb. The submission runs in processes of its own with limits of time and memory. It gets
the arguments of each case and nothing else: references, tolerances and seeds stay with the grader, and whatever the
submission does (exit, crash, loop for ever, fork, print without end), the grader goes on with the next case. Its
kernels run between guard zones. On Linux it can neither read the grader's files nor reach its process (``confine``).
"""

import argparse
import base64
import contextlib
import io
import json
import os
import secrets
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..data.download import cache_folder
from ..errors import ClnnError
from ..files import write_whole
from . import confine
from .check import Wrong, expect
from .sandbox import PRINTED, Sandbox

SIDE = "clnn.lab.submission"
GUARDS = (0xFF, 0x7F, 0xFE)  # the bytes around arrays, in turn: of floats NaN, 3.4e38, -1.7e38, of ints -1, 2e9, -2e7
EMPTY = " Is it not written yet?"
OUTSIDE = (
    " Around arrays on the device lie NaN, 3.4e38 or -1.7e38, and in them before they are set: "
    "is something read from outside, or never written?"
)
MARGIN = "\n           "  # so that no message looks like a line of the report
LARGEST = 2**28  # bytes of one result
LONGEST = 1000  # characters of a message
PROCESSES = 256  # and threads that a submission may have at a time


@dataclass(frozen=True)
class Question:
    """A function that the submission must define, worth ``points``.

    ``cases`` maps the name of a part to a function of a NumPy generator that draws the tuple of arguments (arrays and
    numbers); each part is worth the same share and tried ``tries`` times. ``reference`` computes with NumPy what the
    function must return, ``tolerance`` is relative to the largest number of it. With ``kernels`` a part counts only
    where the function starts a kernel that the submission has written.
    """

    name: str
    points: float
    cases: dict[str, Callable]
    reference: Callable
    tolerance: float = 1e-5
    tries: int = 3
    kernels: bool = False


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
        lines += [f"  in the file: {complaint}".replace("\n", MARGIN) for complaint in self.complaints]
        for part in self.parts:
            mark = "right" if not part.message else "wrong"
            lines.append(f"  {mark}  {part.points:4.1f} of {part.possible:4.1f}  {part.question}, {part.name}")
            lines[-1] += "".join(MARGIN + line for line in part.message.splitlines())
        return "\n".join(lines)


def grade(
    questions: list[Question], submission, seed: int | None = None, *, seconds: float = 20, megabytes: int = 4096
) -> Report:  # fmt: skip
    """Grade a student's .py or .ipynb; ``seed`` draws the cases (left out: a new one, which the report tells).

    ``seconds`` limits running the file and each call, ``megabytes`` the memory of its process. Raises ClnnError where
    the file is missing or of another kind, or the seed is negative.
    """
    submission = Path(submission)
    if submission.suffix not in (".py", ".ipynb") or not submission.is_file():
        raise ClnnError(f"{submission} is no homework: expected a .py or .ipynb file that is there")
    if seed is not None and seed < 0:
        raise ClnnError(f"a seed is a whole number from 0, got {seed}")
    report = Report(submission.name, secrets.randbelow(2**31) if seed is None else seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
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
    for number in range(question.tries):
        case = question.cases[part](rng)
        wants = question.reference(*case)
        wants = wants if isinstance(wants, tuple) else (wants,)
        values, fault = student.answer(question, part, case, GUARDS[number % len(GUARDS)])
        if fault:
            return fault
        if len(values) != len(wants):
            return f"{question.name}() returns {len(values)} values; expected: {len(wants)}"
        for i, (got, want) in enumerate(zip(values, wants), 1):
            what = "the result" if len(wants) == 1 else f"value {i} of the result"
            try:
                expect(got, np.asarray(want), what, question.tolerance)
            except Wrong as error:
                odd = not np.abs(got).max(initial=0) < 1e37
                return f"{error}{OUTSIDE if odd else '' if np.any(got) else EMPTY}"
    return ""


class _Student:
    """The submission in a sandbox, started again after each end that it came to."""

    def __init__(self, submission: Path, folder: Path, report: Report, seconds: float, megabytes: int):
        # A copy in a folder of its own: the way back to the grader's files is not in any path it is told.
        self.path = shutil.copy(submission, folder)
        self.report, self.loaded, self.broken = report, False, ""
        own = {"PWD": str(folder), "OLDPWD": str(folder), "PYTHONPATH": os.pathsep.join(_libraries())}
        own |= dict.fromkeys(["TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"], str(folder / "tmp"))
        (folder / "tmp").mkdir()
        with contextlib.suppress(OSError):  # Windows may refuse links: data sets come from CLNN_DATA alone there
            (folder / "tmp" / "clnn").symlink_to(cache_folder(""))
        # One step for the sandbox, one for the work: who asks for more wants more time.
        self.sandbox = Sandbox(seconds, megabytes, own, steps=2, processes=PROCESSES, folder=folder)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.sandbox.close()

    def answer(self, question: Question, part: str, case: tuple, guard: int):
        """(arrays, "") or (None, what went wrong)."""
        if not self.loaded and (fault := self._load()):
            return None, fault
        file = io.BytesIO()
        np.savez(file, *case)
        inputs = base64.b64encode(file.getvalue()).decode()
        outcome = self._call(
            "answer", name=question.name, part=part, inputs=inputs, guard=guard, kernels=question.kernels
        )  # fmt: skip
        if outcome.failure:
            self.loaded = False
            return None, _plain(outcome.words)
        try:
            complaint, results = outcome.value
            if complaint:
                return None, _plain(complaint)
            return _arrays(base64.b64decode(results)), ""
        except Exception as error:  # the submission may have answered anything
            return None, f"its result cannot be read ({type(error).__name__})"

    def _load(self) -> str:
        """Run the file, unless it did not come to its end before; why it cannot be run, else ""."""
        if self.broken:
            return self.broken
        outcome = self._call("load", path=self.path)
        if outcome.failure:
            complaints = [outcome.words.strip().splitlines()[-1]]
            self.broken = f"the file cannot be run. {_plain(complaints[0])}"
        else:
            complaints = outcome.value if isinstance(outcome.value, list) else []
        self.loaded = not self.broken
        complaints = [_plain(str(complaint)) for complaint in complaints[:20]]
        self.report.complaints += [c for c in complaints if c not in self.report.complaints]
        return self.broken

    def _call(self, what: str, **arguments):
        outcome = self.sandbox.call(f"{SIDE}:{what}", **arguments)
        self.report.printed = (self.report.printed + outcome.printed)[:PRINTED]
        return outcome


def _libraries() -> list[str]:
    """Where Python looks for modules, but not the folder where the grader was started."""
    return [path for path in sys.path if path and Path(path).resolve() != Path.cwd()] + [str(Path(__file__).parents[2])]


def _plain(words: str) -> str:
    """A message of the submission, not too long and without what moves the cursor."""
    words = "".join(c if c.isprintable() or c == "\n" else " " for c in words.strip())
    return words if len(words) <= LONGEST else words[:LONGEST] + " ..."


def _arrays(content: bytes) -> list[np.ndarray]:
    """The arrays of numbers in a .npz file that nobody needs to trust."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST:
            raise ValueError
    with np.load(file, allow_pickle=False) as arrays:
        found = [arrays[key] for key in arrays.files]
    if any(array.dtype.kind not in "biuf" for array in found):
        raise TypeError
    return found


def main(arguments=None) -> int:
    """``python -m clnn.lab.homework GRADING SUBMISSION``; the exit status: 0, or 2 where a file could not be graded."""
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
    except ClnnError as error:
        return _complain(error)
    if confine.version() < 6:
        print("homework: no lock here (Linux 6.12): submissions may read what you may read", file=sys.stderr)
    stems, status = [submission.stem for submission in args.submission], 0
    for submission in args.submission:
        try:
            report = grade(questions, submission, args.seed, seconds=args.seconds, megabytes=args.megabytes)
        except ClnnError as error:  # nobody else waits for one who handed in something else
            status = _complain(error)
            continue
        print(report)
        if args.json:
            args.json.mkdir(parents=True, exist_ok=True)
            # Where two are called alike, as in a folder for each student, the path tells them apart.
            parts = submission.with_suffix("").parts if stems.count(submission.stem) > 1 else [submission.stem]
            name = "-".join(part.strip("/\\:") for part in parts).lstrip("-.")
            write_whole(args.json / f"{name}.json", report.to_json().encode())
    return status


def _complain(error: ClnnError) -> int:
    print(f"homework: {error}", file=sys.stderr)
    return 2


def questions_of(path: Path | str) -> list[Question]:
    """The list QUESTIONS of an instructor's file. Raises ClnnError where there is none."""
    import runpy

    if not Path(path).is_file():
        raise ClnnError(f"{path} is not there: expected a Python file with a list QUESTIONS")
    questions = runpy.run_path(str(path)).get("QUESTIONS")
    if not questions:
        raise ClnnError(f"{path} defines no QUESTIONS: a list of clnn.lab.homework.Question is expected")
    return questions


if __name__ == "__main__":
    sys.exit(main())
