"""Grading: points for what is right, and a grader that nothing in a submission can stop."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from clnn.errors import ClnnError
from clnn.lab import homework
from clnn.lab.homework import Question, grade

SAMPLE = Path(__file__).parents[1] / "homework" / "01_kernels"
QUESTIONS = [
    Question(
        "double",
        points=4,
        cases={"small": lambda rng: (rng.normal(size=3),), "large": lambda rng: (rng.normal(size=(7, 9)),)},
        reference=lambda x: 2 * x,
    ),
    Question("split", 1, {"both": lambda rng: (rng.normal(size=5), 2)}, lambda x, n: (x[:n], x[n:])),
]
RIGHT = "def double(x):\n    return 2 * x\n\n\ndef split(x, n):\n    return x[:n], x[n:]\n"


def graded(tmp_path, text, name="answer.py", questions=QUESTIONS, **options):
    path = tmp_path / name
    path.write_text(text)
    return grade(questions, path, 3, **{"seconds": 5, **options})


def messages(report):
    return {(part.question, part.name): part.message for part in report.parts}


def test_points_for_each_part(tmp_path):
    report = graded(tmp_path, RIGHT)
    assert (report.points, report.possible, report.complaints) == (5, 5, [])
    report = graded(tmp_path, RIGHT.replace("2 * x", "2 * x if x.ndim == 1 else x"))
    assert report.points == 3
    assert [part.points for part in report.parts] == [2, 0, 1]
    text = str(report)
    assert text.startswith("answer.py: 3 of 5 points (seed 3)") and "wrong   0.0 of  2.0  double, large" in text
    assert "0.5 times" in messages(report)["double", "large"]


def test_json(tmp_path):
    report = graded(tmp_path, "print('hello')\n" + RIGHT)
    found = json.loads(report.to_json())
    assert found["points"] == found["possible"] == 5 and found["seed"] == 3 and "hello" in found["printed"]
    assert found["parts"][1] == {
        "question": "double", "name": "large", "points": 2.0, "possible": 2.0, "message": ""
    }  # fmt: skip


def test_same_seed_same_cases(tmp_path):
    drawn = []
    question = Question("f", 1, {"a": lambda rng: (drawn.append(rng.random()) or 1.0,)}, lambda x: x)
    for _ in range(2):
        graded(tmp_path, "def f(x):\n    return x", questions=[question])
    assert drawn[:3] == drawn[3:] and len(set(drawn)) == 3


@pytest.mark.parametrize(
    "text, words",
    [
        ("def double(x):\n    ...\n", "not done yet"),
        ("def double(x):\n    return -2 * x\n", "sign"),
        ("def double(x):\n    return 1 / 0\n", "line 10: ZeroDivisionError"),
        ("def double(x):\n    return x, x\n", "returns 2 values; expected: 1"),
        ("def double(x):\n    return 'two'\n", "arrays of numbers are expected"),
        ("double = 3\n", "double is no function"),
        ("del double\n", "there is no function double()"),
        ("def double(x):\n    raise SystemExit\n", "SystemExit"),
        ("import os\ndef double(x):\n    os._exit(0)\n", "ended the process"),
        ("import os, signal\ndef double(x):\n    os.kill(os.getpid(), signal.SIGSEGV)\n", "SIGSEGV"),
        ("def double(x):\n    while True: pass\n", "did not end within 2 seconds"),
        ("import numpy\ndef double(x):\n    return numpy.ones(10**9)\n", "MemoryError"),
    ],
)
def test_what_may_be_wrong_with_one_function(tmp_path, text, words):
    """The other functions get their points."""
    report = graded(tmp_path, RIGHT + "\n\n" + text, seconds=2, megabytes=2000)
    assert words in messages(report)["double", "small"]
    assert messages(report)["split", "both"] == "" and report.points == 1


@pytest.mark.parametrize(
    "text, points",
    [
        (RIGHT + "raise SystemExit(0)\n", 5),
        (RIGHT + "1 / 0\n", 5),
        ("this is no Python\n" + RIGHT, 0),
        ("import os\nos._exit(1)\n", 0),
        ("while True: pass\n", 0),
        (RIGHT + "for i in range(1_000_000): print('a line of no use')\n", 5),
        (RIGHT + "import os\nos.fork()\n", 5),
        (RIGHT + "import os\nos.close(0); os.close(1); os.close(2)\n", 5),
        (RIGHT + "import sys\nsys.stdout = sys.stderr = sys.stdin = None\n", 5),
        (RIGHT + "import numpy\nnumpy.savez = None\n", 0),
        (RIGHT + "import atexit, time\natexit.register(time.sleep, 1000)\n", 5),
    ],
)
def test_what_a_file_may_do_to_the_grader(tmp_path, text, points):
    start = time.perf_counter()
    report = graded(tmp_path, text, seconds=6)
    assert time.perf_counter() - start < 60
    assert report.points == points and len(report.parts) == 3
    assert points == 5 or all(part.message for part in report.parts)
    assert len(report.to_json()) < 50_000


def test_it_sees_neither_references_nor_results(tmp_path, monkeypatch):
    """What the submission's process holds of the grader: no question, no path to them, nothing on its command line."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    text = (
        "import gc, os, sys\n"
        "def double(x):\n"
        "    kinds = {type(o).__name__ for o in gc.get_objects()}\n"
        "    assert 'Question' not in kinds and 'clnn.lab.homework' not in sys.modules\n"
        "    assert not [f for f in os.listdir() if 'grading' in f]\n"
        "    assert os.listdir(os.path.dirname(__file__)) == ['answer.py']\n"
        "    assert 'grading' not in ' '.join(sys.argv + [str(v) for v in os.environ.values()])\n"
        "    return 2 * x\n"
    )
    assert messages(graded(tmp_path, text))["double", "small"] == ""


def test_notebooks(tmp_path):
    """Cells one after another, magics too; a cell that fails does not stop the next."""
    sources = ["def double(x):\n    return 2 * x", "1 / 0", "%time a = 1", RIGHT.partition("\n\n\n")[2]]
    cells = [{"cell_type": "code", "source": s.splitlines(keepends=True)} for s in sources]
    cells.insert(1, {"cell_type": "markdown", "source": ["words"]})
    report = graded(tmp_path, json.dumps({"cells": cells}), "answer.ipynb")
    assert report.points == 5 and report.complaints == ["cell 3: line 1: ZeroDivisionError: division by zero"]


def test_the_sample(tmp_path, capsys):
    """The solution gets all points, the starter none; a missing edge costs its own part only."""
    files = [SAMPLE / "solution.py", SAMPLE / "starter.py", tmp_path / "edge.py"]
    solution = files[0].read_text()
    assert "if (i > 0) sum" in solution
    files[2].write_text(solution.replace("if (j < columns - 1) sum", "if (j < columns) sum"))
    command = [str(SAMPLE / "grading.py"), *map(str, files), "--seed", "5", "--json", str(tmp_path / "reports")]
    assert homework.main(command) == 0
    reports = {f.stem: json.loads((tmp_path / "reports" / f"{f.stem}.json").read_text()) for f in files}
    assert [reports[f.stem]["points"] for f in files[:2]] == [12, 0]
    wrong = {part["question"] for part in reports["edge"]["parts"] if part["message"]}
    assert wrong == {"heat"} and 8 <= reports["edge"]["points"] < 12
    assert "solution.py: 12 of 12 points (seed 5)" in capsys.readouterr().out


def test_nothing_to_grade(tmp_path, capsys):
    with pytest.raises(ClnnError, match=r"expected a \.py or \.ipynb file"):
        grade(QUESTIONS, tmp_path / "none.py")
    (tmp_path / "grading.py").write_text("x = 1")
    assert homework.main([str(tmp_path / "grading.py"), "a.py"]) == 2
    assert "defines no QUESTIONS" in capsys.readouterr().err


def test_the_heat_of_the_reference_stays_on_the_plate():
    questions = {q.name: q for q in homework.questions_of(SAMPLE / "grading.py")}
    heat, rng = questions["heat"].reference, np.random.default_rng(0)
    t = rng.normal(size=(5, 8)).astype(np.float32)
    assert heat(t, 0.2).sum() == pytest.approx(t.astype(float).sum())
    alone = np.zeros((3, 3), np.float32)
    alone[0, 1] = 1
    np.testing.assert_allclose(heat(alone, 0.1), [[0.1, 0.7, 0.1], [0, 0.1, 0], [0, 0, 0]], atol=1e-7)
