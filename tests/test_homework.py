"""Grading: points for what is right, and a grader that nothing in a submission can stop."""

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from clnn.errors import ClnnError
from clnn.lab import confine, homework
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
        "    assert sorted(os.listdir()) == sorted(os.listdir(os.path.dirname(__file__))) == ['answer.py', 'tmp']\n"
        "    assert 'grading' not in ' '.join(sys.argv + [str(v) for v in os.environ.values()])\n"
        "    return 2 * x\n"
    )
    assert messages(graded(tmp_path, text))["double", "small"] == ""


locked = pytest.mark.skipif(confine.version() < 6, reason="this kernel does not lock processes in (Linux 6.12)")
ATTACKS = {  # each raises PermissionError where it is kept from its aim
    "the questions": "open({secret!r}).read()",
    "another submission": "open({secret!r}, 'a')",
    "a file in the grader's folder": "open({secret!r} + '.new', 'w')",
    "taking it away": "os.remove({secret!r})",
    "emptying it": "os.truncate({secret!r}, 0)",
    "its memory": "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "its output": "open(f'/proc/{{os.getppid()}}/fd/1', 'w')",
    "its folder": "os.readlink(f'/proc/{{os.getppid()}}/cwd')",
    "its life": "os.kill(os.getppid(), 9)",
    "by a child": "subprocess.run(['cat', {secret!r}], check=True, stderr=subprocess.DEVNULL)",
}


@locked
@pytest.mark.parametrize("what", ATTACKS)
def test_the_grader_is_out_of_reach(tmp_path, what):
    """Whatever the submission tries stands where it runs, at once and in a call, and its right answers count."""
    secret = tmp_path / "grading.py"
    secret.write_text("kept")
    attack = ATTACKS[what].format(secret=str(secret))
    text = "import os, subprocess\ndef attack():\n    try:\n        " + attack
    text += "\n    except (PermissionError, subprocess.CalledProcessError):\n        return 2\n    return 0\n"
    report = graded(tmp_path, text + "first = attack()\n" + RIGHT.replace("2 * x", "x * (first * attack() / 2)"))
    assert report.points == 5 and secret.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answer.py", "grading.py"]


TALK = "from clnn.lab import sandbox\ndef double(x):\n    sandbox._replies.write({!r})\n    sandbox._replies.flush()\n"


@pytest.mark.parametrize(
    "line",
    [
        "no JSON\n", "5\n", "[]\n", "{}\n", '{"value": ["", ""]}\n', '{"value": {"0": "", "1": ""}}\n',
        '{"failure": 5}\n', '{"points": 12, "possible": 12}\n', "[" * 100_000 + "\n",
        '{"value": ["\\u001b[2J\\n  right   2.0 of  2.0 double, small", ""]}\n',
    ],
)  # fmt: skip
def test_forged_replies(tmp_path, line):
    """What the submission writes in the place of its answers gives no points, stops nothing and draws nothing."""
    report = graded(tmp_path, RIGHT + TALK.format(line))
    assert report.points in (0, 1) and len(report.parts) == 3
    assert [part.points for part in report.parts[:2]] == [0, 0]
    assert "\n  right   2.0" not in str(report) and "\x1b" not in str(report)


def test_forged_arrays(tmp_path):
    """A small file of many zeros, an object that runs code when it is read, text."""
    make = (
        "import base64, io, numpy, zipfile\nfrom clnn.lab import submission\nfile = io.BytesIO()\n{}\n"
        "class Forger:\n    def b64encode(self, content):\n        return base64.b64encode(file.getvalue())\n"
        "    b64decode = staticmethod(base64.b64decode)\nsubmission.base64 = Forger()\n"
    )
    for forged in (
        "numpy.savez_compressed(file, numpy.zeros(2**28 + 1, numpy.int8))",
        "numpy.savez(file, numpy.array([print], object), allow_pickle=True)",
        "numpy.savez(file, numpy.array(['text']))",
        "file.write(b'PK nothing')",
        "z = zipfile.ZipFile(file, 'w'); h = io.BytesIO()\n"
        "numpy.lib.format.write_array_header_1_0(h, dict(descr='<f8', fortran_order=False, shape=(10**13,)))\n"
        "z.writestr('arr_0.npy', h.getvalue()); z.close()",
    ):
        report = graded(tmp_path, RIGHT + make.format(forged))
        assert report.points == 0 and "its result cannot be read" in report.parts[0].message, forged


def test_time_cannot_be_stretched(tmp_path):
    text = (
        "import time\nfrom clnn.lab.sandbox import step\ndef double(x):\n    while True: step('on'); time.sleep(0.1)\n"
    )
    start = time.perf_counter()
    report = graded(tmp_path, RIGHT + text, seconds=2)
    assert time.perf_counter() - start < 20 and report.points == 1


def test_a_file_without_end_is_run_once(tmp_path):
    start = time.perf_counter()
    report = graded(tmp_path, "while True: pass\n", seconds=3)
    assert time.perf_counter() - start < 3 * 2
    assert all("did not end within 3 seconds" in part.message for part in report.parts)


def test_patches_help_nobody(tmp_path):
    """The comparison is in another process."""
    text = (
        "import numpy, clnn, builtins\nfrom clnn.lab import check, homework\n"
        "numpy.abs = numpy.allclose = numpy.array_equal = check.expect = homework.expect = lambda *a, **k: True\n"
        "homework.Part.points = 4\nbuiltins.sum = lambda *a: 99\ncheck.Wrong = homework.Wrong = KeyError\n"
    )
    assert graded(tmp_path, text + RIGHT.replace("2 * x", "3 * x")).points == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_no_child_is_left(tmp_path):
    """Children in sessions of their own, and children of theirs, end with the grading."""
    text = (
        "import os, subprocess, sys, time\n"
        "def tell(child):  # in one piece: unbuffered prints of several processes mix\n"
        "    os.write(1, f'child {child}\\n'.encode())\n"
        "for i in range(5):\n    if os.fork() == 0:\n"
        "        os.setsid(); os.fork(); tell(os.getpid())\n        time.sleep(600)\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "tell(subprocess.Popen(sleep, start_new_session=True).pid)\n"
        "tell(subprocess.Popen(sleep, start_new_session=True, env={}).pid)\n"
        "if os.fork() == 0:  # whose parent ends at once\n"
        "    tell(subprocess.Popen(sleep, start_new_session=True, env={}).pid); os._exit(0)\n"
        "time.sleep(1)\n"
    )
    report = graded(tmp_path, RIGHT + text)
    children = [line.split()[1] for line in report.printed.splitlines() if line.startswith("child")]
    assert report.points == 5 and len(children) == 13
    assert not [c for c in children if _lives(c)]


def _lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


KERNELS = """
import numpy as np
from clnn.lab.kernel import Cell
TEXT = '''
__kernel void double_it(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    BODY
}
__kernel void largest(__global const float *x, __global float *out, int rows, int columns)
{
    int j = get_global_id(0);
    if (j >= columns) return;
    float most = x[j];
    for (int i = 1; i < ROWS; i++) if (x[i * columns + j] > most) most = x[i * columns + j];
    out[j] = most;
}
'''
def double(x):
    y = np.zeros_like(x)
    Cell(TEXT).kernels["double_it"](x, y, x.size, size=x.size)
    return y
def largest(x):
    out = np.zeros(x.shape[1], np.float32)
    Cell(TEXT).kernels["largest"](x, out, *x.shape, size=x.shape[1])
    return out
"""
KERNEL_QUESTIONS = [
    Question(
        "double",
        4,
        {
            "whole work-groups": lambda rng: (rng.normal(size=128).astype(np.float32),),
            "any size": lambda rng: (rng.normal(size=101).astype(np.float32),),
        },
        lambda x: 2 * x,
    ),
    Question("largest", 1, {"any": lambda rng: (rng.normal(size=(7, 13)).astype(np.float32),)}, lambda x: x.max(0)),
]


@pytest.mark.parametrize(
    "body, rows, points, part, words",
    [
        ("if (i < n) y[i] = 2 * x[i];", "rows", 5, None, ""),
        (
            "y[i] = 2 * x[i];",
            "rows",
            3,
            ("double", "any size"),
            "double_it writes past the end of `y`, 27 elements there",
        ),
        ("if (i <= n) y[i] = 2 * x[i];", "rows", 1, ("double", "whole work-groups"), None),
        (
            "if (i < n) y[i - 1] = 2 * x[i];",
            "rows",
            1,
            ("double", "any size"),
            "before the start of `y`, 1 element there",
        ),
        ("if (i < n) y[i] = 2 * x[i];", "(rows + 1)", 4, ("largest", "any"), "is something read from outside"),
        ("if (i < n - 1) y[i] = 2 * x[i];", "rows", 1, ("double", "any size"), ""),
        ("while (x[0] < 9) y[0] += 1;", "rows", 1, ("double", "any size"), "did not end within 4 seconds"),
        ("y[i] = 2 * z[i];", "rows", 0, ("largest", "any"), "KernelCompileError"),
        ("}} {{", "rows", 0, ("double", "any size"), "KernelCompileError"),
    ],
)
def test_kernels(tmp_path, body, rows, points, part, words):
    """What a kernel writes or reads outside of its arrays costs the parts where it does so."""
    text = KERNELS.replace("BODY", body).replace("ROWS", rows)
    report = graded(tmp_path, text, questions=KERNEL_QUESTIONS, seconds=4)
    if words is None:  # with whole work-groups nobody oversteps: the part is right
        points, words = 3, ""
    assert report.points == points, str(report)
    assert part is None or words in messages(report)[part], str(report)


def notebook(*sources):
    return json.dumps({"cells": [{"cell_type": "code", "source": s.splitlines(keepends=True)} for s in sources]})


CELL = """%%kernel
__kernel void double_it(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    if (i < n) y[i] = 2 * x[i];
}"""
CALL = "def double(x):\n    y = np.zeros_like(x)\n    double_it(x, y, x.size, size=x.size)\n    return y"


@pytest.mark.parametrize(
    "cells, points, complaint, words",
    [
        ([CELL, CALL], 4, "", ""),
        ([CELL.replace("if (i < n) ", ""), CALL], 2, "", "past the end of `y`"),
        (
            [CELL.replace("2 * x", "2 * z"), CALL],
            0,
            "cell 2: line 1: KernelCompileError: the cell does not compile",
            "NameError",
        ),
        ([CALL], 0, "", "NameError: name 'double_it' is not defined"),
        ([CELL, CALL, "def broken(:"], 4, "cell 4: SyntaxError", ""),
        (["exit()", CELL, "raise SystemExit", CALL], 4, "cell 4: line 1: SystemExit", ""),
    ],
)
def test_kernels_of_a_notebook(tmp_path, cells, points, complaint, words):
    text = notebook("%load_ext clnn.lab\nimport numpy as np", *cells)
    report = graded(tmp_path, text, "answer.ipynb", KERNEL_QUESTIONS[:1], seconds=20)
    assert report.points == points, str(report)
    assert words in messages(report)["double", "any size"]
    assert complaint in "\n".join(report.complaints) and bool(complaint) == bool(report.complaints)


def test_the_cell_that_grades_is_not_run(tmp_path):
    """nbgrader puts it into the very notebook that is graded."""
    cells = json.loads(notebook("import numpy as np\n%load_ext clnn.lab", CELL, CALL, "1 / 0", "2 / 0"))
    for number, solution in ((3, False), (4, True)):
        cells["cells"][number]["metadata"] = {"nbgrader": {"grade": True, "solution": solution}}
    report = graded(tmp_path, json.dumps(cells), "answer.ipynb", KERNEL_QUESTIONS[:1])
    assert report.points == 4 and report.complaints == ["cell 5: line 1: ZeroDivisionError: division by zero"]


def test_where_kernels_are_asked_for_numpy_does_not_count(tmp_path):
    questions = [dataclasses.replace(KERNEL_QUESTIONS[0], kernels=True)]
    report = graded(tmp_path, RIGHT, questions=questions)
    assert report.points == 0 and "double() starts no kernel of yours" in report.parts[0].message
    text = KERNELS.replace("BODY", "if (i < n) y[i] = 2 * x[i];").replace("ROWS", "rows")
    assert graded(tmp_path, text, questions=questions).points == 4


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"nbformat": 3, "worksheets": []}'])
def test_no_notebook(tmp_path, text):
    report = graded(tmp_path, text, "answer.ipynb")
    assert report.points == 0 and report.complaints == ["it is no notebook, or no text in UTF-8"]


def test_reports_of_files_called_alike(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grading.py").write_text(
        "from clnn.lab.homework import Question\nQUESTIONS = [Question('f', 1, {'a': lambda rng: (1.0,)}, lambda x: x)]"
    )
    for name, text in (("ann", "def f(x):\n    return x"), ("bob", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hw.py").write_text(text)
    assert homework.main(["grading.py", "ann/hw.py", "bob/hw.py", "--json", "reports"]) == 0
    points = {p.name: json.loads(p.read_text())["points"] for p in (tmp_path / "reports").iterdir()}
    assert points == {"ann-hw.json": 1, "bob-hw.json": 0}


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
    assert all("Is it not written yet?" in part["message"] for part in reports["starter"]["parts"])
    wrong = {part["question"] for part in reports["edge"]["parts"] if part["message"]}
    assert wrong == {"heat"} and 8 <= reports["edge"]["points"] < 12
    assert "solution.py: 12 of 12 points (seed 5)" in capsys.readouterr().out


def test_one_file_that_is_no_homework_stops_nobody(tmp_path, capsys):
    (tmp_path / "grading.py").write_text(
        "from clnn.lab.homework import Question\nQUESTIONS = [Question('f', 1, {'a': lambda rng: (1.0,)}, lambda x: x)]"
    )
    (tmp_path / "b.py").write_text("def f(x):\n    return x")
    files = [str(tmp_path / name) for name in ("grading.py", "a.pdf", "b.py")]
    assert homework.main(files) == 2
    shown = capsys.readouterr()
    assert "b.py: 1 of 1 points" in shown.out and "a.pdf is no homework: expected a .py or .ipynb file" in shown.err


def test_nothing_to_grade(tmp_path, capsys):
    with pytest.raises(ClnnError, match=r"expected a \.py or \.ipynb file"):
        grade(QUESTIONS, tmp_path / "none.py")
    (tmp_path / "a.py").write_text(RIGHT)
    with pytest.raises(ClnnError, match="a seed is a whole number from 0, got -1"):
        grade(QUESTIONS, tmp_path / "a.py", -1)
    (tmp_path / "grading.py").write_text("x = 1")
    assert homework.main([str(tmp_path / "grading.py"), "a.py"]) == 2
    assert "defines no QUESTIONS" in capsys.readouterr().err


def test_the_heat_of_the_reference_stays_on_the_plate():
    questions = {q.name: q for q in homework.questions_of(str(SAMPLE / "grading.py"))}
    heat, rng = questions["heat"].reference, np.random.default_rng(0)
    t = rng.normal(size=(5, 8)).astype(np.float32)
    assert heat(t, 0.2).sum() == pytest.approx(t.astype(float).sum())
    alone = np.zeros((3, 3), np.float32)
    alone[0, 1] = 1
    np.testing.assert_allclose(heat(alone, 0.1), [[0.1, 0.7, 0.1], [0, 0.1, 0], [0, 0, 0]], atol=1e-7)
