"""Exercises that check themselves: what is done, right and wrong, and what is said about it."""

import functools
import importlib
import pkgutil
import random

import numpy as np
import pytest

import clnn
from clnn import lab
from clnn.errors import ClnnError
from clnn.lab import exercises
from clnn.lab.check import NotDone, Wrong, compare, exercise, exercises_of, expect, numbers, unchanged

module = importlib.import_module("clnn.lab.check")  # as an attribute of clnn.lab it is the function


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """The course's exercises and those below; what a test registers is forgotten after it."""
    for found in pkgutil.iter_modules(exercises.__path__, exercises.__name__ + "."):  # or they are forgotten, too
        importlib.import_module(found.name)
    monkeypatch.setattr(module, "_registry", dict(module._registry))
    compare(
        "mse",
        cases=pair,
        reference=lambda p, t: np.mean((p - t) ** 2),
        faults={"That is the sum.": lambda p, t: np.sum((p - t) ** 2), "No case fits.": lambda p, t: p @ t[1:]},
    )
    compare("scale", cases=lambda rng: rng.normal(size=(3, 3)) + 0.5, reference=lambda x: 2 * x)
    compare("steps", cases=lambda rng: tuple(int(n) for n in rng.integers(1, 9, 2)), reference=lambda n, k: n // k + n)
    compare("both", cases=lambda rng: rng.normal(size=(4, 5)), reference=lambda x: (x.mean(0), x.std(0)))
    compare("softmax", cases=rows, reference=lambda x: x.exp() / x.exp().sum(dim=1, keepdim=True), gradient=True)
    compare("weighted", cases=weighted, reference=lambda w, n, x, k: k * (w * n * x).sum(), gradient=True)


def pair(rng):
    n = rng.integers(3, 9)
    return rng.normal(size=n), rng.normal(size=n)


def rows(rng):
    return rng.normal(size=(rng.integers(2, 5), 3))


def weighted(rng):
    return rng.normal(size=4), rng.integers(-9, 9, 4), rng.normal(size=4), 3


def message(name, answer) -> str:
    """What is said of a wrong answer."""
    result = lab.check(name, answer)
    assert result.done and not result.right
    assert repr(result) == f"{name}: not right yet. {result.message}"
    return result.message


# Right


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("mse", lambda p, t: np.mean((p - t) ** 2)),
        ("mse", lambda p, t: np.float32(np.mean((p - t) ** 2))),
        ("mse", lambda a, b: sum((x - y) ** 2 for x, y in zip(a, b)) / len(a)),
        ("mse", lambda p, t: clnn.tensor((p - t) ** 2).mean()),
        ("scale", lambda x: (2 * x).tolist()),
        ("scale", lambda *all_of_them: 2 * all_of_them[0]),
        ("steps", lambda n, k: np.int64(n // k + n)),
        ("both", lambda x: (np.mean(x, 0), np.std(x, 0).tolist())),
        ("softmax", lambda x: clnn.ops.softmax(x)),
        ("softmax", lambda x: x.exp() / x.exp().sum(1)[..., None]),
        ("weighted", lambda w, n, x, k: (n * w * k * x).sum()),
    ],
)
def test_right(name, answer):
    result = lab.check(name, answer)
    assert (result.right, result.done, result.message) == (True, True, ""), result
    assert repr(result) == f"{name}: right"


def test_dots_that_belong_to_the_code_are_none_of_the_skeleton():
    def scale(x):
        ...  # about 1 line
        y = np.einsum(x, [..., 0], np.ones(3), [1], [..., 0, 1])
        return 2 * y[..., 0]

    assert lab.check("scale", scale).right


# Not done yet


def stub(p, t):
    """What it shall compute."""
    ...


def only_pass(p, t):
    pass


def gives_dots(p, t):
    return ...


def not_implemented(p, t):
    raise NotImplementedError


def with_given_lines(p, t):
    difference = ...
    return np.mean(difference**2)


def with_a_block(p, t):
    total = 0.0
    for _x, _y in zip(p, t):
        ...
    return total


def with_a_number(p, t):
    return np.mean((p - t) ** ...)


class Unfinished:
    def forward(self, p):
        """What it shall compute."""
        ...


class AnotherAnswer:
    def __init__(self):
        self.weight = ...


@pytest.mark.parametrize(
    "answer",
    [..., None, (1, ...), [[1, None]], {"a": 1, "b": ...}, np.array([1, ...]), stub, only_pass, gives_dots,
     not_implemented, with_given_lines, with_a_block, with_a_number, Unfinished, AnotherAnswer, lambda p, t: ...,
     lambda p, t: None],
)  # fmt: skip
def test_not_done_yet(answer):
    result = lab.check("mse", answer)
    assert (result.right, result.done, repr(result)) == (False, False, "mse: not done yet")


def test_a_missing_return_is_not_done_but_said():
    def mse(p, t):
        mean = np.mean((p - t) ** 2)
        mean = float(mean)

    result = lab.check("mse", mse)
    assert not result.done and result.message == "mse() returns None: is a `return` missing?"


def test_a_check_may_say_so_itself():
    @exercise("kernel")
    def kernel(answer, rng):
        if "// your code" in answer:
            raise NotDone
        raise Wrong("It does not compile.")

    assert repr(lab.check("kernel", "{ // your code }")) == "kernel: not done yet"
    assert message("kernel", "{}") == "It does not compile."


# Wrong


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("mse", lambda p, t: np.sum((p - t) ** 2), "That is the sum."),
        ("mse", lambda p, t: -np.mean((p - t) ** 2), "wrong sign"),
        ("mse", lambda p, t: np.mean((p - t) ** 2) / 2, "is always 0.5 times what is expected."),
        ("mse", lambda p, t: np.mean((p - t) ** 2) + 3, "is always too large by 3."),
        ("mse", lambda p, t: 0, "is always 0."),
        ("mse", lambda p, t: np.mean(abs(p - t)), "With p of shape (8,), t of shape (8,): your result is 1.1"),
        ("mse", lambda p, t: [np.mean((p - t) ** 2)], "expected is one number; the numbers in it are right"),
        ("mse", lambda p, t: (p - t) ** 2, "has shape (8,), expected is one number."),
        ("mse", lambda p, t: np.inf - np.inf, "holds NaN"),
        ("mse", lambda p, t: {}, "Your result is a dict; numbers are expected."),
        ("mse", lambda p, t: [[1.0], [1.0, 2.0]], "parts have different lengths"),
        ("mse", lambda p, t: 1j * p, "holds complex128; real numbers are expected"),
        ("mse", lambda p, t: [1.0, None], "Your result holds None; numbers are expected."),
        ("mse", functools.partial(lambda p, t: None), "Your result is None; numbers are expected."),
        ("mse", lambda p, t: np.array([{}, 1, "x"], object), "holds a dict and a str; numbers are expected."),
        ("mse", lambda p, t: np.mean((p - t) ^ 2), "A power is written **: ^ is another operation"),
        ("mse", lambda p, t: "small", "holds text; floats expected"),
        ("mse", lambda p: 1.0, "takes 1 positional argument but 2 were given"),
        ("mse", 0.5, "It is a float, which is not callable: hand over the function itself, without brackets."),
        ("scale", lambda x: 2 * x.T, "rows and columns are exchanged"),
        ("scale", lambda x: 2 * x[:, :2], "has shape (3, 2), expected is shape (3, 3)."),
        ("scale", lambda x: (2 * x).ravel(), "has shape (9,), expected is shape (3, 3); the numbers in it are right"),
        ("scale", lambda x: np.where(np.arange(3) == 1, x, 2 * x), "in 3 of 9 places, first at [0, 1]: you have"),
        ("scale", lambda x: np.where(np.arange(3) == 1, np.inf, 2 * x), "you have inf, which is too large"),
        ("steps", lambda n, k: n / k + n, "holds floats; whole numbers (int) expected"),
        ("steps", lambda n, k: n // k + n - 1, "is always too small by 1."),
        ("steps", lambda n, k: n + k, "With n = 7, k = 6: your result is 13, which is too large."),
        ("both", lambda x: x.mean(0), "returns one value; expected: 2 values."),
        ("both", lambda x: [x.mean(0), x.std(0)], "expected: 2 values. Write them after `return` with commas"),
        ("both", lambda x: (x.mean(0), x.std(0), 1), "returns 3 values; expected: 2 values."),
        ("both", lambda x: (x.mean(0), None), "Value 2 of your result is None; numbers are expected."),
        ("both", lambda x: (x.mean(0), x.var(0)), "value 2 of your result is wrong in 5 of 5 places"),
        ("softmax", lambda x: clnn.ops.softmax(x).numpy(), "returns a NumPy array. A Tensor is expected"),
        ("softmax", lambda x: clnn.tensor(clnn.ops.softmax(x).numpy()), "No gradient arrives: the gradient by x"),
        ("softmax", lambda x: x.exp() / x.exp().sum(1, keepdim=True).detach(), "the gradient by x is wrong in"),
        ("softmax", lambda x: x.exp() / x.exp().sum(), "your result is wrong in"),
        ("weighted", lambda w, n, x, k: k * (w * n * x.detach()).sum(), "the gradient by x is missing"),
        ("weighted", lambda w, n, x, k: (k * (w * n * x)).sum() * 2, "your result is always 2 times"),
    ],
)  # fmt: skip
def test_the_first_difference(name, answer, words):
    assert words.lower() in message(name, answer).lower()


def test_a_gradient_may_be_wrong_by_a_factor():
    def weighted(w, n, x, k):
        full = k * (w * n * x).sum()
        return full + (full - full.detach())

    assert message("weighted", weighted) == "The gradient by w is always 2 times what is expected."


def test_whole_numbers_are_exact():
    compare("count", cases=lambda rng: int(rng.integers(10**8, 10**9)), reference=lambda n: n + 1)
    assert lab.check("count", lambda n: n + 1).right
    assert message("count", lambda n: n + 1 + n % 2).endswith(", which is too large.")
    with pytest.raises(Wrong, match="always too large by 1"):
        expect(np.array([10**9, 10**8]) + 1, np.array([10**9, 10**8]))


def test_a_small_case_is_not_lost_beside_a_large_one():
    compare("sizes", cases=lambda rng: 10.0 ** rng.integers(0, 9), reference=lambda x: x)
    assert "is 10002, which is too large" in message("sizes", lambda x: x + 2 * (x == 10_000))


def test_changing_an_argument_is_refused():
    def mse(p, t):
        p -= t
        return np.mean(p**2)

    assert message("mse", mse) == "Your function changes its argument p. Leave it as it is and make a new array."


def helper(x):
    return x.missing


def test_an_exception_is_told_with_the_students_line():
    def mse(p, t):
        return helper(p)

    line = helper.__code__.co_firstlineno + 1
    said = message("mse", mse)
    assert said == (
        f"Your code stops in helper, line {line}, `return x.missing`. "
        "AttributeError: 'numpy.ndarray' object has no attribute 'missing'"
    )


def test_an_exception_inside_a_library_is_told_with_the_students_line():
    def mse(p, t):
        return np.linalg.inv(p)

    assert "`return np.linalg.inv(p)`. LinAlgError: 1-dimensional array given" in message("mse", mse)


def test_the_text_is_the_same_each_time():
    assert len({message("mse", lambda p, t: np.mean(p) + random.random() + np.random.rand()) for _ in range(3)}) == 1


def test_random_numbers_go_on_as_if_nothing_was_checked():
    def draws(x):
        clnn.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        return clnn.randn(3, 3)

    def sources():
        return random.random(), np.random.rand(), clnn.rand(1).item()

    clnn.manual_seed(1), np.random.seed(1), random.seed(1)
    want = sources()
    clnn.manual_seed(1), np.random.seed(1), random.seed(1)
    message("scale", draws)
    assert sources() == want


def test_interrupting_an_endless_answer_interrupts_the_cell():
    def mse(p, t):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.check("mse", mse)


# Writing checks


def test_exercise_tries_several_generators():
    seen = []

    @exercise("seven", tries=3)
    def seven(answer, rng):
        seen.append(rng.random())
        if answer != 7:
            raise Wrong("Count again.")

    assert lab.check("seven", 7).right and len(set(seen)) == 3
    assert message("seven", 8) == "Count again."


def test_gradients_without_float64(monkeypatch):
    monkeypatch.setattr(clnn.device(), "fp64", False)
    assert lab.check("softmax", lambda x: clnn.ops.softmax(x)).right
    assert "the gradient by x is wrong" in message("softmax", lambda x: x.exp() / x.exp().sum(1, True).detach())


def test_expect():
    expect([1, 2], np.array([1.0, 2.0]))
    with pytest.raises(Wrong, match=r"^The weight has shape \(2,\), expected is shape \(3,\)\.$"):
        expect(np.zeros(2), np.ones(3), "the weight")
    with pytest.raises(Wrong, match=r"^Your result is 'ham', which is wrong\.$"):
        expect("ham", "spam")
    with pytest.raises(Wrong, match="holds floats; text expected"):
        expect(1.0, "spam")
    with pytest.raises(Wrong, match=r"^Your result is a NumPy array; a Tensor is expected"):
        expect(np.ones(2), clnn.ones(2))
    with pytest.raises(Wrong, match=r"^The weight is None; numbers are expected\.$"):
        expect(None, np.zeros(2), "the weight")
    expect(1.001, 1.0, tolerance=0.01)


def test_numbers():
    for value in (clnn.tensor([1.0, 2.0]), [1, 2], (np.float32(1), 2.0), np.array([1, 2.0], object)):
        assert numbers(value).tolist() == [1, 2] and numbers(value).dtype.kind == "f"
    with pytest.raises(Wrong, match=r"^The weight is a list whose parts have different lengths\.$"):
        numbers([[1], [1, 2]], "the weight")
    with pytest.raises(Wrong, match=r"^Your result is text; numbers are expected\.$"):
        numbers(["1", 2])


def test_unchanged():
    unchanged("w", [np.ones(2), 3], [np.ones(2), 3])
    unchanged("w", np.array([np.nan]), np.array([np.nan]))
    for now, former in ((clnn.zeros(2), clnn.ones(2)), ([np.ones(2)], []), ([np.ones(2)], [np.zeros(2)])):
        with pytest.raises(Wrong, match=r"^Your function changes its argument w\. Leave it as it is"):
            unchanged("w", now, former)


# Finding checks


def test_an_unknown_name_is_told_with_near_ones():
    with pytest.raises(ClnnError, match=r"no exercise is named 'softmaxx': did you mean softmax"):
        lab.check("softmaxx", 1)


def test_names_are_unique():
    def judge(answer, rng): ...

    judge.__module__ = "another"
    with pytest.raises(ClnnError, match=r"two exercises are named 'mse', one in .*test_check, one in another"):
        exercise("mse")(judge)


def test_a_broken_module_is_in_nobody_elses_way(monkeypatch, tmp_path):
    (tmp_path / "a_broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "b_whole.py").write_text(
        "from clnn.lab.check import exercise, Wrong\n\n@exercise('found')\ndef found(answer, rng):\n    pass\n"
    )
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path)])
    assert lab.check("found", 1).right
    assert exercises_of("b_whole") == ["found"]
    with pytest.raises(ClnnError, match=r"a_broken cannot be imported .*nothing_of_this_name"):
        lab.check("not there", 1)


def test_html_tells_by_sign_and_colour_and_escapes():
    right, wrong = lab.check("steps", lambda n, k: n // k + n), lab.check("scale", lambda x: x["<b>"])
    later = lab.check("mse", ...)
    assert "✓" in right._repr_html_() and "steps: right" in right._repr_html_()
    assert "✗" in wrong._repr_html_() and "&lt;b&gt;" in wrong._repr_html_() and "<b>&" not in wrong._repr_html_()
    assert "○" in later._repr_html_() and "mse: not done yet" in later._repr_html_()
    assert len({colour for r in (right, wrong, later) for colour in [r._repr_html_().split("solid ")[1][:7]]}) == 3
