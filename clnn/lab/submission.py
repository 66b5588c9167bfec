"""The side of a student's homework: a process of its own runs the submission and answers with files of arrays.

``clnn.lab.homework`` calls these functions through a sandbox. They get arguments and give results; what is right they
do not know.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ..tensor import Tensor, manual_seed
from .check import own_frames
from .sandbox import step

_names: dict = {}  # what the submission defines


def load(path: str) -> list[str]:
    """Run a submission, .py or .ipynb; the complaints of what failed in it. What was defined before is kept.

    A notebook's cells run one after another, magics included, and a cell that fails does not stop the next.
    """
    step("running the submission")
    np.random.seed(0)
    manual_seed(0)
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path]
    run = _run_notebook if path.endswith(".ipynb") else _run_script
    return run(Path(path).read_text(encoding="utf-8"), path)


def answer(name: str, part: str, inputs: str, results: str) -> list[str]:
    """Call the submission's function with the arrays in the file ``inputs`` and save what it returns in ``results``.

    Returns complaints: none where there is a result.
    """
    step(f"{name}, {part}")
    function = _names.get(name)
    if not callable(function):
        return [f"there is no function {name}()" if function is None else f"{name} is no function"]
    try:
        with np.load(inputs, allow_pickle=False) as file:
            arguments = [file[key] if file[key].ndim else file[key].item() for key in file.files]
        values = function(*arguments)
        values = values if isinstance(values, tuple) else (values,)
        if any(value is None or value is ... for value in values):
            return [f"{name}() returns None: it is not done yet, or a `return` is missing"]
        arrays = [value.numpy() if isinstance(value, Tensor) else np.asarray(value) for value in values]
        if bad := next((a for a in arrays if a.dtype.kind not in "biuf"), None):
            return [f"{name}() returns {bad.dtype}; arrays of numbers are expected"]
        np.savez(results, *arrays)
    except (Exception, SystemExit) as error:  # the student's code may raise anything
        return [_complaint(error)]
    return []


def _run_script(text: str, path: str) -> list[str]:
    _names.update(__name__="__main__", __file__=path)
    try:
        exec(compile(text, path, "exec"), _names)
    except (Exception, SystemExit) as error:
        return [_complaint(error)]
    return []


def _run_notebook(text: str, path: str) -> list[str]:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance(user_ns=_names)
    complaints = []
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        if cell["cell_type"] != "code":
            continue
        result = shell.run_cell("".join(cell["source"]))
        if error := result.error_before_exec or result.error_in_exec:
            complaints.append(f"cell {number}: {_complaint(error)}")
    return complaints


def _complaint(error: BaseException) -> str:
    """The exception in one line, after the last line of the submission's own code."""
    own = own_frames(error)
    where = f"line {own[-1].lineno}: " if own else ""
    return f"{where}{type(error).__name__}: {error}"
