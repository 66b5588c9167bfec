"""The cell magic ``%%kernel``, which ``%load_ext clnn.lab`` brings.

It goes on where PyOpenCL's ``%%cl_kernel`` ends: the kernels of the cell are called like functions on Tensors and NumPy
arrays, checked, timed, run in a simulator that sees races, and put in place of the package's own.
"""

import argparse
import builtins
import difflib
import functools
import keyword
import re
import shlex

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.display import display

from ..errors import ClnnError
from . import kernel_check, simulator
from .check import check
from .install import install
from .kernel import Cell, Kernel


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        known = [word for action in self._actions for word in action.option_strings]
        unknown = re.findall(r"-[\w-]+", message.partition("unrecognized arguments:")[2])
        near = [close for word in unknown for close in difflib.get_close_matches(word, known, 1)]
        advice = f": did you mean {' '.join(near)}?" if near else ""
        raise UsageError(f"%%kernel: {message}{advice}\n{self.format_usage()}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "%%kernel",
        description="Compile the cell's OpenCL C for the device in use. Each of its kernels becomes a function of its "
        "name: add(a, b, out, n, size=n, local=64).",
        add_help=False,  # which would end the program
    )
    add = parser.add_argument
    add("name", nargs="?", help="the kernel that --time, --race and --install speak of (else the cell's first)")
    add("-c", "--check", metavar="EXERCISE", help="check the cell's kernels against an exercise")
    add("-t", "--time", action="store_true", help="time it: the exercise's large case, else as it was last called")
    add("-r", "--race", action="store_true", help="run it in Oclgrind: the exercise's small case, else as last called")
    add(
        "-i",
        "--install",
        metavar="OP[=KERNEL]",
        action="append",
        default=[],
        help="let it compute an operation of clnn",
    )
    add("-D", metavar="KEY=VALUE", action="append", default=[], help="define a macro")
    add("-o", "--options", default="", help="options for the OpenCL compiler, in quotes")
    add("-h", "--help", action="store_true", help="show this")
    return parser


def _plain_errors(function):
    """Errors of clnn are shown as their message alone: a traceback through this module says nothing to a student."""

    @functools.wraps(function)
    def wrapped(*arguments):
        try:
            return function(*arguments)
        except ClnnError as error:
            shown = [f"{type(error).__name__}: {error}"]
            error._render_traceback_ = lambda *_: shown  # IPython asks for it
            raise

    return wrapped


@magics_class
class KernelMagics(Magics):
    """``%%kernel [NAME] [--check EXERCISE] [--time] [--race] [--install OP] [-D KEY=VALUE] [-o OPTIONS]``"""

    @cell_magic
    @_plain_errors
    def kernel(self, line: str, text: str) -> None:
        """Compile the cell's OpenCL C; see ``%%kernel --help``."""
        # argparse takes what begins with a minus for an option, unless it is joined to one.
        words = re.sub(r"(?<!\S)(?:-o|--options)\s+", "--options=", line)
        try:
            chosen = _parser().parse_args(shlex.split(words))
        except ValueError as error:  # a quote without its other half
            _parser().error(str(error))
        if chosen.help:
            print(_parser().format_help())
            return
        if chosen.check:
            kernel_check.find_exercise(chosen.check)  # before anything is compiled
        options = (*(f"-D{define}" for define in chosen.D), *chosen.options.split())
        # An empty first line in place of the magic's, so that the compiler counts the cell's own lines.
        cell = Cell(f"\n{text}", options)
        self._publish(cell)
        kernel = _named(cell, chosen.name) if chosen.name else next(iter(cell.kernels.values()))
        right = True
        if chosen.check:
            display(result := check(chosen.check, cell))
            right = result.right
        if chosen.race:
            print(kernel_check.race(chosen.check, cell) if chosen.check else _race_again(kernel))
        if not right and (chosen.time or chosen.install):
            print("Neither timed nor installed before it is right.")
            return
        if chosen.time:
            print(*(kernel_check.time(chosen.check, cell) if chosen.check else [_time_again(kernel)]), sep="\n")
        for wish in chosen.install:
            operation, _, name = wish.partition("=")
            own = _named(cell, name) if name else cell.kernels.get(operation, kernel)
            install(operation, own)
            print(f"{operation} is now computed by {own.name}, until lab.restore().")

    def _publish(self, cell: Cell) -> None:
        """Put the kernels into the notebook; each remembers the last call of the one whose place it takes."""
        for name, kernel in cell.kernels.items():
            former = self.shell.user_ns.get(name, getattr(builtins, name, None))
            if isinstance(former, Kernel):
                kernel.last = former.last if former.types == kernel.types else None
            elif former is not None:
                what = "Python's own" if former is getattr(builtins, name, None) else f"of type {type(former).__name__}"
                print(f"{name} was {what}; from now on it is your kernel. If you need both, rename the kernel.")
            if keyword.iskeyword(name):
                print(f"{name} is a word of Python's, so {name}(...) cannot be called: rename the kernel.")
            self.shell.user_ns[name] = kernel


def _named(cell: Cell, name: str) -> Kernel:
    if name not in cell.kernels:
        raise ClnnError(f"the cell holds no kernel {name!r}; it holds {', '.join(cell.kernels)}")
    return cell.kernels[name]


def _last_call(kernel: Kernel) -> tuple:
    if kernel.last is None:
        raise ClnnError(
            f"{kernel.name} was not called yet, so there is nothing to run it on: call it once, "
            f"{kernel.name}(..., size=...), and run this cell again, or name an exercise: --check EXERCISE"
        )
    return kernel.last


def _race_again(kernel: Kernel):
    arguments, size, local = _last_call(kernel)
    return simulator.race(kernel, *arguments, size=size, local=local)


def _time_again(kernel: Kernel):
    arguments, size, local = _last_call(kernel)
    return kernel.time(*arguments, size=size, local=local)


def load_ipython_extension(shell) -> None:
    """What ``%load_ext clnn.lab`` does: bring the magic, and start the process that checks."""
    shell.register_magics(KernelMagics)
    kernel_check.start()
