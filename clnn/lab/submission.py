"""The side of a student's homework: a process of its own runs the submission and answers with arrays.

``clnn.lab.homework`` calls these functions through a sandbox. They get arguments and give results; what is right they
do not know. Arrays on the device lie between guard zones here, which show what a kernel writes outside of them.
"""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyopencl as cl

from .. import program
from ..device import Device
from ..errors import ClnnError
from ..tensor import Tensor, manual_seed
from .check import own_frames
from .confine import confine
from .kernel import arguments_of
from .kernel_check import GUARD
from .sandbox import step

_names: dict = {}  # what the submission defines
_guard = 0xFF  # the byte that fills the guard zones
_launch = program.launch
_ran = 0  # launches of the submission's own kernels


def load(path: str) -> list[str]:
    """Run a submission, .py or .ipynb; the complaints of what failed in it. What was defined before is kept.

    A notebook's cells run one after another, magics included, and a cell that fails does not stop the next.
    """
    step("running the submission")
    confine(str(Path(path).parent))
    Device.allocate, program.launch = _allocate, _launch_and_look
    np.random.seed(0)
    manual_seed(0)
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path]
    try:
        text = Path(path).read_text(encoding="utf-8")
        cells = json.loads(text)["cells"] if path.endswith(".ipynb") else None
    except (ValueError, TypeError, KeyError):
        return ["it is no notebook, or no text in UTF-8"]
    return _run_script(text, path) if cells is None else _run_notebook(cells)


def answer(name: str, part: str, inputs: str, guard: int, kernels: bool) -> tuple[str, str]:
    """Call the submission's function with the arrays in ``inputs``, a .npz file as text (base64): (complaint, results).

    ``guard`` is the byte around arrays on the device; with ``kernels`` it is a complaint if none of the submission's
    own has run. Where there is a complaint there are no results.
    """
    global _guard, _ran
    _guard, _ran = guard, 0
    step(f"{name}, {part}")
    function = _names.get(name)
    if not callable(function):
        return f"there is no function {name}()" if function is None else f"{name} is no function", ""
    try:
        with np.load(io.BytesIO(base64.b64decode(inputs)), allow_pickle=False) as file:
            arguments = [file[key] if file[key].ndim else file[key].item() for key in file.files]
        values = function(*arguments)
        values = values if isinstance(values, tuple) else (values,)
        if any(value is None or value is ... for value in values):
            return f"{name}() returns None: it is not done yet, or a `return` is missing", ""
        arrays = [value.numpy() if isinstance(value, Tensor) else np.asarray(value) for value in values]
        if bad := next((a for a in arrays if a.dtype.kind not in "biuf"), None):
            return f"{name}() returns {bad.dtype}; arrays of numbers are expected", ""
        if kernels and not _ran:
            return f"{name}() starts no kernel of yours; its work is to be done by one", ""
        results = io.BytesIO()
        np.savez(results, *arrays)
    except (Exception, SystemExit) as error:  # the student's code may raise anything
        return _complaint(error), ""
    return "", base64.b64encode(results.getvalue()).decode()


def _allocate(device: Device, nbytes: int) -> cl.Buffer:
    """In place of ``Device.allocate``: a buffer in the middle of one that is filled with the guard."""
    align = max(device.cl_device.mem_base_addr_align // 8, 8)
    zone = program.round_up(max(GUARD, min(nbytes, 2**20)), align)
    whole = np.full(2 * zone + program.round_up(nbytes, align), _guard, np.uint8)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    return cl.Buffer(device.context, flags, hostbuf=whole).get_sub_region(zone, nbytes)


def _launch_and_look(device: Device, knl: cl.Kernel, size, local, *args, **work) -> None:
    """In place of ``program.launch``: raises ClnnError where a kernel of the submission wrote into a guard zone."""
    global _ran
    _launch(device, knl, size, local, *args, **work)
    if getattr(knl, "family", "") != "cell":
        return
    _ran += 1
    for argument, value in zip(arguments_of(knl), args):
        whole = isinstance(value, program.Array) and value.base_data.get_info(cl.mem_info.ASSOCIATED_MEMOBJECT)
        if not whole:
            continue
        found, start = np.empty(whole.size, np.uint8), value.base_data.offset
        cl.enqueue_copy(device.queue, found, whole)
        end = start + value.base_data.size
        for place, zone in (("before the start", found[:start]), ("past the end", found[end:])):
            if count := len(np.unique(np.flatnonzero(zone != found[0]) // argument.itemsize)):
                elements = "1 element" if count == 1 else f"{count} elements"
                raise ClnnError(
                    f"{knl.function_name} writes {place} of `{argument.name}`, {elements} there: "
                    "is a guard missing, or off by one?"
                )


def _run_script(text: str, path: str) -> list[str]:
    _names.update(__name__="__main__", __file__=path)
    try:
        exec(compile(text, path, "exec"), _names)
    except (Exception, SystemExit) as error:
        return [_complaint(error)]
    return []


def _run_notebook(cells: list) -> list[str]:
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    shell = InteractiveShell.instance(user_ns=_names)
    complaints = []
    for number, cell in enumerate(cells, 1):
        nbgrader = cell.get("metadata", {}).get("nbgrader", {})
        if cell["cell_type"] != "code" or (nbgrader.get("grade") and not nbgrader.get("solution")):
            continue  # that is the instructor's cell, which grades
        result = shell.run_cell("".join(cell["source"]))
        if error := result.error_before_exec or result.error_in_exec:
            complaints.append(f"cell {number}: {_complaint(error)}")
    return complaints


def _complaint(error: BaseException) -> str:
    """The exception in one line, after the last line of the submission's own code."""
    own = own_frames(error)
    where = f"line {own[-1].lineno}: " if own else ""
    return f"{where}{type(error).__name__}: {error}"
