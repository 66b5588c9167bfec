"""Exercises that check themselves: what ``lab.check`` shows, and the means to write a check.

The checks stand in ``clnn/lab/exercises/``, each a function under ``@exercise(NAME)`` or a call of ``compare``. A check
tries the answer on random data and raises ``Wrong`` with what is wrong; it never tells the formula.
"""

import ast
import contextlib
import copy
import difflib
import functools
import html
import importlib
import inspect
import os
import pkgutil
import random
import sysconfig
import textwrap
import traceback
from dataclasses import dataclass

import numpy as np

from .. import tensor as make_tensor
from ..device import device
from ..errors import ClnnError
from ..tensor import Tensor, generator, manual_seed, no_grad
from . import exercises

_STEP = 1e-5  # of the central differences: off by its square for the curve, by 1e-16 / step for the rounding
_MARKS = {"right": ("✓", "#009E73"), "not right yet": ("✗", "#E69F00"), "not done yet": ("○", "#888888")}
_registry: dict[str, "_Exercise"] = {}


class Wrong(Exception):
    """Raised by a check: what is wrong with the answer, in words for the student, without the right answer."""


class NotDone(Exception):
    """Raised by a check that finds the skeleton still empty."""


@dataclass(frozen=True)
class _Exercise:
    module: str  # where its check is written
    judge: object  # a function of the answer that raises Wrong or NotDone


@dataclass(frozen=True)
class Result:
    """What a check found: whether the answer is ``done`` and ``right``, and a ``message`` on what is wrong."""

    name: str
    right: bool
    done: bool
    message: str

    @property
    def status(self) -> str:
        return "right" if self.right else "not right yet" if self.done else "not done yet"

    def __repr__(self):
        return f"{self.name}: {self.status}" + (f". {self.message}" if self.message else "")

    def _repr_html_(self):
        mark, colour = _MARKS[self.status]
        text = f'<div style="white-space: pre-wrap">{html.escape(self.message)}</div>' if self.message else ""
        return (
            f'<div style="border-left: 5px solid {colour}; padding: 2px 10px">'
            f'<b><span style="color: {colour}">{mark}</span> {html.escape(self.name)}: {self.status}</b>{text}</div>'
        )


def check(name: str, answer) -> Result:
    """Judge the answer to an exercise: the last line of its cell, which shows the result.

    Not done yet are ``...``, None, and a function that holds a ``...`` where code belongs, returns None or ``...`` or
    raises NotImplementedError. Whatever else the answer raises becomes the result's message.
    Raises ClnnError if there is no such exercise.
    """
    judge = _find(name).judge
    try:
        if _empty(answer):
            raise NotDone
        with _random_numbers_kept():
            judge(_watched(answer))
    except Exception as error:  # the student's code may raise anything
        dots = _dots_left(answer)
        if dots or isinstance(error, (NotDone, NotImplementedError)):
            return Result(name, False, False, str(error) if isinstance(error, NotDone) and not dots else "")
        return Result(name, False, True, str(error) if isinstance(error, Wrong) else _explain(error, answer))
    return Result(name, True, True, "")


# Writing a check


def exercise(name: str, tries: int = 5):
    """Register the decorated ``function(answer, rng)`` as the check of an exercise; it raises Wrong.

    It is called ``tries`` times, each time with the next generator of random numbers. ``name`` is unique in the course.
    """

    def register(function):
        def judge(answer):
            for seed in range(tries):
                function(answer, _seeded(seed))

        _register(name, function.__module__, judge)
        return function

    return register


def compare(name, cases, reference, faults=None, *, gradient=False, tolerance=1e-5, tries=5) -> None:
    """Register a check that holds the answer, a function, against ``reference`` and tells the first difference.

    ``cases(rng)`` draws the tuple of arguments, ``faults`` maps what to say to functions that make this mistake.
    With ``gradient`` the arrays among the arguments become Tensors (float32; float64 for the reference where the device
    has it) and the gradients by those of floats are held against central differences of the reference, too.
    ``tolerance`` is relative to the largest number of a result. A reference that returns a tuple wants a tuple.
    """
    outcome = _gradients if gradient else _values
    limit = max(tolerance, 1e-4) if gradient else tolerance  # gradients are computed in float32

    def judge(answer):
        given = [_tuple(cases(_seeded(seed))) for seed in range(tries)]
        wants = [outcome(reference, case, exact=True) for case in given]
        gots = []
        for seed, case in enumerate(given):
            _seeded(seed)
            gots.append(outcome(answer, case))
        agree = all(_agree(got, want, limit) for got, want in zip(gots, wants))
        for text, fault in (faults or {}).items():
            if not agree and all(_commits(fault, outcome, case, got, limit) for case, got in zip(given, gots)):
                raise Wrong(text)
        names = _names(answer, len(given[0]))
        inputs = [_given(names, case) for case in given]
        for i, what in enumerate(_titles(names, given[0], gots, wants, gradient)):
            pairs = [(got[i], want[i]) for got, want in zip(gots, wants)]
            if gradient and any(got is None and not _same(got, want, limit) for got, want in pairs):
                raise Wrong(f"No gradient arrives: {what} is missing. Is the tape cut, by numpy() or detach()?")
            _tell(what, pairs, inputs, limit)

    _register(name, cases.__module__, judge)


def expect(got, want, what: str = "your result", tolerance: float = 1e-5) -> None:
    """For ``exercise``: raise Wrong with the first difference of ``got`` from ``want`` in type, shape or value."""
    _array(got, what)
    _tell(what, [(got, want)], [""], tolerance)


def numbers(value, what: str = "your result") -> np.ndarray:
    """For ``exercise``: a Tensor, array, list or number as an array of floats. Raises Wrong for anything else."""
    array = _array(value, what)
    if array.dtype.kind == "U":
        raise Wrong(_sentence("", what, "is text; numbers are expected"))
    return array.astype(float)


def unchanged(name: str, value, former) -> None:
    """For ``exercise``: raise Wrong where the answer changed its argument ``name``, which was ``former``, in place."""
    if not _unchanged(value, former):
        raise Wrong(f"Your function changes its argument {name}. Leave it as it is and make a new array.")


# Finding a check


def exercises_of(notebook: str) -> list[str]:
    """The names of the exercises in ``clnn/lab/exercises/NOTEBOOK.py``."""
    module = f"{exercises.__name__}.{notebook}"
    importlib.import_module(module)
    return [name for name, found in _registry.items() if found.module == module]


def _register(name: str, module: str, judge) -> None:
    if name in _registry and _registry[name].module != module:
        raise ClnnError(f"two exercises are named {name!r}, one in {_registry[name].module}, one in {module}")
    _registry[name] = _Exercise(module, judge)


def _find(name: str) -> _Exercise:
    """The check of this name. A module that cannot be imported is in nobody's way but its own notebook's."""
    broken = []
    for module in pkgutil.iter_modules(exercises.__path__, exercises.__name__ + "."):
        if name in _registry:
            break
        try:
            importlib.import_module(module.name)
        except Exception as error:
            broken.append(f"{module.name} cannot be imported ({type(error).__name__}: {error})")
    if name not in _registry:
        near = difflib.get_close_matches(name, _registry) or sorted(_registry)
        raise ClnnError("; ".join([f"no exercise is named {name!r}: did you mean {', '.join(near)}?", *broken]))
    return _registry[name]


# The answer


def _empty(answer) -> bool:
    """Whether it is, or holds, None or ``...``."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, np.ndarray) and answer.dtype == object:
        answer = list(answer.flat)
    if isinstance(answer, (list, tuple)):
        return any(map(_empty, answer))
    return answer is None or answer is ...


def _dots_left(answer) -> bool:
    """Whether a function, or a class in one of its methods, holds a ``...`` of the skeleton."""
    functions = vars(answer).values() if inspect.isclass(answer) else [answer]
    return any(_holds_dots(function) for function in functions if inspect.isfunction(function))


def _tree(function):
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source, or part of a longer line
        return None


def _dots(node) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _holds_dots(function) -> bool:
    """Whether a ``...`` stands where a value belongs or alone in a block: not in x[..., 0], not left above code."""
    tree = _tree(function)
    harmless = set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Subscript):
            harmless.update(map(id, ast.walk(node.slice)))
        for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(block, list) and any(not isinstance(line, ast.Expr) for line in block):
                harmless.update(id(line.value) for line in block if isinstance(line, ast.Expr))
    return any(_dots(node) and id(node) not in harmless for node in ast.walk(tree)) if tree else False


def _watched(answer):
    """The answer; where it is a function, one that tells a result of None or ``...`` as not done."""
    if not inspect.isfunction(answer):
        return answer

    @functools.wraps(answer)
    def call(*arguments, **options):
        result = answer(*arguments, **options)
        if result is None or result is ...:
            lines = tree.body[0].body if (tree := _tree(answer)) and isinstance(tree.body[0], ast.FunctionDef) else []
            written = any(not isinstance(line, (ast.Expr, ast.Pass, ast.Return)) for line in lines)
            raise NotDone(f"{answer.__name__}() returns None: is a `return` missing?" if written else "")
        return result

    return call


def _explain(error: Exception, answer) -> str:
    """The exception's words, after the last line of the student's own code that ran."""
    words = f"{type(error).__name__}: {error}".strip().removesuffix(":")
    own = own_frames(error)
    if not own:  # called with other arguments than it takes, or its result fits nothing
        if not callable(answer) and "object is not callable" in words:
            words = f"It is {_kind(answer)}, which is not callable: hand over the function itself, without brackets."
        return f"The check cannot use your answer. {words}"
    if "bitwise_xor" in words or "operand type(s) for ^" in words:
        words += ". A power is written **: ^ is another operation"
    line = f", `{own[-1].line}`" if own[-1].line else ""
    return f"Your code stops in {own[-1].name}, line {own[-1].lineno}{line}. {words}"


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Where the student's own code was, outermost first, when this was raised: without clnn's frames and libraries'."""
    paths = sysconfig.get_paths()
    ours = (os.path.dirname(os.path.dirname(__file__)), paths["stdlib"], paths["purelib"], paths["platlib"])
    frames = traceback.extract_tb(error.__traceback__)
    return [f for f in frames if not f.filename.startswith(tuple(os.path.join(path, "") for path in ours))]


def _seeded(seed: int) -> np.random.Generator:
    """Seed every source of random numbers that an answer may use, so that the same answer gets the same message."""
    random.seed(seed)
    np.random.seed(seed)
    manual_seed(seed)
    return np.random.default_rng(seed)


@contextlib.contextmanager
def _random_numbers_kept():
    """What a check draws does not change the numbers that the notebook draws after it."""
    former = random.getstate(), np.random.get_state(), generator().bit_generator.state
    try:
        yield
    finally:
        random.setstate(former[0])
        np.random.set_state(former[1])
        generator().bit_generator.state = former[2]


# Running the answer on one case


def _tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _copied(value):
    if isinstance(value, Tensor):
        return make_tensor(value, value.dtype, requires_grad=value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(part) for part in value)
    return copy.copy(value)


def _unchanged(value, former) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) == len(former) and all(map(_unchanged, value, former))
    if isinstance(value, (Tensor, np.ndarray)):
        return np.asarray(value).tobytes() == np.asarray(former).tobytes()  # so put, NaN equals NaN
    return True


def _names(function, count: int) -> list[str]:
    """What the function calls its arguments."""
    try:
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_POSITIONAL]
    except (TypeError, ValueError):  # some built-in functions do not tell
        names = []
    return [*names, *(f"argument {i + 1}" for i in range(len(names), count))][:count]


def _values(function, case, exact=False) -> list:
    given = _copied(case)
    result = function(*given)
    results = list(_tuple(result))
    if not exact:
        for name, value, former in zip(_names(function, len(case)), given, case):
            unchanged(name, value, former)
        for i, part in enumerate(results):
            _array(part, "your result" if len(results) == 1 else f"value {i + 1} of your result")
    return results


def _is_real(value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _gradients(function, case, exact=False) -> list:
    """The value, then the gradients of its weighted sum by each array of floats: None where none arrives."""
    numeric = exact and device().fp64
    inputs = [make_tensor(x) if isinstance(x, np.ndarray) else x for x in case]  # float32
    real = [i for i, x in enumerate(case) if _is_real(x)]
    for i in real:
        inputs[i] = make_tensor(inputs[i], np.float64) if numeric else inputs[i].requires_grad_()
    result = function(*inputs)
    if not isinstance(result, Tensor):
        raise Wrong(f"Your function returns {_kind(result)}. A Tensor is expected, so that the tape goes on.")
    weights = np.random.default_rng(0).normal(size=result.shape)
    if numeric:
        return [result, *(_slope(function, inputs, i, weights) for i in real)]
    if result.requires_grad:
        result.backward(make_tensor(weights, result.dtype))
    return [result, *(inputs[i].grad for i in real)]


def _slope(function, inputs, i, weights) -> np.ndarray:
    """The derivative of sum(weights * function(*inputs)) by input i, by central differences."""
    x = inputs[i].numpy()
    slope = np.empty_like(x)
    for place in np.ndindex(x.shape):
        ends = []
        for step in (_STEP, -_STEP):
            moved = x.copy()
            moved[place] += step
            with no_grad():
                ends.append(
                    np.sum(weights * function(*inputs[:i], make_tensor(moved, np.float64), *inputs[i + 1 :]).numpy())
                )
        slope[place] = (ends[0] - ends[1]) / (2 * _STEP)
    return slope


# Comparing, and telling the difference


def _kind(value) -> str:
    """What a value is, in words."""
    names = {"ndarray": "a NumPy array", "int": "an integer", "NoneType": "None", "ellipsis": "..."}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _array(value, what: str = "your result") -> np.ndarray:
    """The result as an array: of a Tensor, a list, a number or a text alike. Raises Wrong for what is none of them."""
    if not isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float, str, list, tuple)):
        raise Wrong(_sentence("", what, f"is {_kind(value)}; numbers are expected"))
    try:
        array = np.asarray(value)
    except ValueError:
        raise Wrong(_sentence("", what, "is a list whose parts have different lengths")) from None
    if array.dtype.kind == "O":
        kinds = sorted({_kind(x) for x in array.flat if not isinstance(x, (int, float, np.integer, np.floating))})
        if kinds:
            raise Wrong(_sentence("", what, f"holds {' and '.join(kinds)}; numbers are expected"))
        array = array.astype(float)
    if array.dtype.kind not in "biufU":
        raise Wrong(_sentence("", what, f"holds {array.dtype.name}; real numbers are expected"))
    return array


def _differ(got, want, tolerance) -> np.ndarray:
    """Where two arrays of one shape differ: floats by more than ``tolerance`` of the largest that is wanted."""
    if got.dtype.kind == "U" or want.dtype.kind == "U":
        return np.asarray(got != want) if got.dtype.kind == want.dtype.kind else np.ones(want.shape, bool)
    exact = want.dtype.kind in "biu"
    got, want = got.astype(float), want.astype(float)
    finite = np.isfinite(want)
    limit = 0 if exact else tolerance * np.abs(want[finite]).max(initial=1e-3)
    with np.errstate(invalid="ignore"):  # the difference of infinities
        close = np.where(finite, np.abs(got - want) <= limit, (got == want) | np.isnan(got) & np.isnan(want))
    return ~close


def _same(got, want, tolerance) -> bool:
    if got is None or want is None:  # no gradient
        return (got is None or not _array(got).any()) and (want is None or not _array(want).any())
    got, want = _array(got), _array(want)
    return got.shape == want.shape and not _differ(got, want, tolerance).any()


def _agree(gots, wants, tolerance) -> bool:
    return len(gots) == len(wants) and all(_same(got, want, tolerance) for got, want in zip(gots, wants))


def _commits(fault, outcome, case, gots, tolerance) -> bool:
    """Whether the answer's outcome is this fault's."""
    try:
        with np.errstate(all="ignore"):
            return _agree(gots, outcome(fault, case, exact=outcome is _values), tolerance)
    except Exception:  # no fault can be computed on every case
        return False


def _shape(array) -> str:
    return f"shape {array.shape}" if array.shape else "one number"


def _misfit(got, want) -> str:
    """What is wrong with the type or the shape; "" where nothing is."""
    if isinstance(want, Tensor) and not isinstance(got, Tensor):
        return f"is {_kind(got)}; a Tensor is expected"
    got, want = _array(got), _array(want)
    kinds = ["b", "iu", "f", "U"]
    words = ["True or False", "whole numbers (int)", "floats", "text"]
    mine, wanted = (next(i for i, letters in enumerate(kinds) if a.dtype.kind in letters) for a in (got, want))
    if mine > wanted or (wanted == 3 and mine != 3):  # an int serves as a float
        return f"holds {words[mine]}; {words[wanted]} expected"
    if got.shape == want.shape:
        return ""
    right = got.size == want.size and not _differ(got.ravel(), want.ravel(), 1e-4).any()
    if not right and got.ndim == 2 and got.T.shape == want.shape and not _differ(got.T, want, 1e-4).any():
        return "is transposed: rows and columns are exchanged"
    return f"has {_shape(got)}, expected is {_shape(want)}" + ("; the numbers in it are right" if right else "")


def _pattern(pairs, tolerance) -> str:
    """A difference that is the same in all cases: "" where there is none."""
    if pairs[0][1].dtype.kind in "iu":
        tolerance = 1e-12  # whole numbers are exact, but a factor between them is not
    pairs = [(got.astype(float), want.astype(float)) for got, want in pairs]
    got, want = (np.concatenate([a.ravel() for a in arrays]) for arrays in zip(*pairs))

    def right_after(change) -> bool:
        changed = [(change(g), w) for g, w in pairs]
        return all(g.shape == w.shape and not _differ(g, w, tolerance).any() for g, w in changed)

    if np.isnan(got).any() and not np.isnan(want).any():
        return "holds NaN, which is not a number: it comes from 0 / 0 or from the logarithm of a negative number"
    if not np.isfinite(want).all() or not np.isfinite(got).all() or not want.any():
        return ""
    if not got.any():
        return "is always 0"
    if right_after(np.negative):
        return "has the wrong sign: every number is the negative of what is expected"
    if len(set(want)) > 1:  # else any number is a factor of the other
        factor, offset = (got @ want) / (want @ want), np.mean(got - want)
        if factor and right_after(lambda g: g / factor):
            return f"is always {factor:.4g} times what is expected"
        if right_after(lambda g: g - offset):
            return f"is always too {'large' if offset > 0 else 'small'} by {abs(offset):.4g}"
    if pairs[0][0].ndim == 2 and right_after(np.transpose):
        return "is transposed: rows and columns are exchanged"
    return ""


def _element(got, want, tolerance) -> str:
    """The first number that differs, but not what it should be."""
    differ = _differ(got, want, tolerance)
    place = tuple(int(i) for i in np.argwhere(differ)[0])
    mine, wanted = got[place], want[place]
    aim = ""
    if want.dtype.kind in "iuf" and np.isfinite(wanted):
        aim = f", which is too {'large' if mine > wanted else 'small'}"
    value = repr(str(mine)) if got.dtype.kind == "U" else f"{mine:.6g}" if got.dtype.kind == "f" else str(mine)
    if got.shape == ():
        return f"is {value}{aim or ', which is wrong'}"
    where = f"[{', '.join(map(str, place))}]"
    return f"is wrong in {differ.sum()} of {got.size} places, first at {where}: you have {value}{aim}"


def _tell(what, results, inputs, tolerance) -> None:
    """Raise Wrong with the first difference in ``results``, one (got, want) for each case of ``inputs``."""
    for (got, want), given in zip(results, inputs):
        if got is not None and want is not None and (fault := _misfit(got, want)):
            raise Wrong(_sentence(given, what, fault))
    pairs = [(_array(got), _array(want)) for got, want in results if got is not None and want is not None]
    first = next((i for i, pair in enumerate(pairs) if _differ(*pair, tolerance).any()), None)
    if first is None:
        return
    if all(a.dtype.kind in "iuf" for pair in pairs for a in pair) and (fault := _pattern(pairs, tolerance)):
        raise Wrong(_sentence("", what, fault))
    raise Wrong(_sentence(inputs[first], what, _element(*pairs[first], tolerance)))


def _sentence(given: str, what: str, fault: str) -> str:
    text = f"{given}{what} {fault}."
    return text[0].upper() + text[1:]


def _given(names, case) -> str:
    """The arguments of a case in words: small ones as they are, of others their shape."""

    def words(value):
        if isinstance(value, (Tensor, np.ndarray)) and np.size(value) > 6:
            return f"of shape {tuple(value.shape)}"
        if isinstance(value, (Tensor, np.ndarray, np.generic, float)):
            return "= " + np.array2string(np.asarray(value), precision=4, separator=", ").replace("\n", "")
        return f"= {value!r}" if len(repr(value)) <= 60 else f"of type {type(value).__name__}"

    given = [f"{name} {words(value)}" for name, value in zip(names, case) if not callable(value)]
    return f"With {', '.join(given)}: "


def _count(number: int) -> str:
    return "one value" if number == 1 else f"{number} values"


def _titles(names, case, gots, wants, gradient) -> list[str]:
    """What the parts of a result are. Raises Wrong where the answer gives more or fewer than are expected."""
    if gradient:
        return ["your result", *(f"the gradient by {name}" for name, x in zip(names, case) if _is_real(x))]
    count = len(wants[0])
    if wrong := next((got for got in gots if len(got) != count), None):
        listed = len(wrong) == 1 and isinstance(wrong[0], list) and len(wrong[0]) == count
        hint = " Write them after `return` with commas between, not as a list." * listed
        raise Wrong(f"Your function returns {_count(len(wrong))}; expected: {_count(count)}.{hint}")
    return ["your result"] if count == 1 else [f"value {i + 1} of your result" for i in range(count)]
