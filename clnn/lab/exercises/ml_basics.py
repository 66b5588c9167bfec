"""Checks of the exercises of notebook 01."""

import numpy as np

from ... import ops
from ..check import Wrong, compare, exercise

SIZES = np.array([2.104, 1.416, 1.534, 0.852])  # of the houses, in 1,000 square feet


# false_alarm_rate(answers, labels): the share of the good messages (label 0) that are called spam (answer 1).


def _verdicts(rng):
    n = int(rng.integers(20, 60))
    labels = np.append(rng.integers(0, 2, n), [0, 0, 1, 1])  # both kinds, each kept and thrown away
    answers = np.append(np.where(rng.random(n) < 0.7, labels[:n], 1 - labels[:n]), [0, 1, 0, 1])
    order = rng.permutation(n + 4)
    return answers[order], labels[order]


compare(
    "false_alarm_rate",
    _verdicts,
    lambda a, y: np.sum((a == 1) & (y == 0)) / np.sum(y == 0),
    faults={
        "You divide by the number of all messages. How many of them can raise a false alarm?": lambda a, y: np.mean(
            (a == 1) & (y == 0)
        ),
        "You divide by the messages called spam, so you get the share of the alarms that are false. Wanted is the "
        "share of the good messages that raise one.": lambda a, y: np.mean(y[a == 1] == 0),
        "You look at the spam that gets through. False alarms are about good messages.": lambda a, y: np.mean(
            a[y == 1] == 0
        ),
        "That is the share of the spam that is caught. False alarms are about good messages.": lambda a, y: np.mean(
            a[y == 1] == 1
        ),
        "That is the share of all mistakes, among all messages. False alarms are mistakes with good messages.": (
            lambda a, y: np.mean(a != y)
        ),
        "That is the share of the good messages that are kept.": lambda a, y: np.mean(a[y == 0] == 0),
        "That is a count. A rate is a share, from 0 to 1.": lambda a, y: np.sum((a == 1) & (y == 0)),
    },
)


# spam_probability(scores): from the scores log P(class) + log P(message | class), shape (n, 2), to P(spam | message).


def _scores(rng):
    n = int(rng.integers(3, 30))
    scores = -rng.uniform(5, 40, (n, 1)) + rng.normal(0, 2, (n, 2))
    scores[rng.integers(n)] = -rng.uniform(900, 1500) + rng.normal(0, 2, 2)  # a long message
    return scores


def _quietly(function):
    """The function without NumPy's warnings: it is meant to go wrong."""

    def call(scores):
        with np.errstate(all="ignore"):
            return function(scores)

    return call


compare(
    "spam_probability",
    _scores,
    lambda s: 1 / (1 + np.exp(s[:, 0] - s[:, 1])),
    faults={
        "For long messages you get NaN (not a number): e to the power -1000 is 0 for a computer, and 0 / 0 has no "
        "value. The quotient stays as it is if one number is added to both scores of a message first.": _quietly(
            lambda s: np.exp(s[:, 1]) / np.exp(s).sum(axis=1)
        ),
        "That is the probability of ham: which column belongs to spam?": lambda s: 1 / (1 + np.exp(s[:, 1] - s[:, 0])),
        "That is how many times as probable spam is as ham. A probability is at most 1: those of spam and ham add up "
        "to it.": _quietly(lambda s: np.exp(s[:, 1] - s[:, 0])),
        "You divide the scores themselves. They are logarithms: take them back to probabilities first.": lambda s: (
            s[:, 1] / s.sum(axis=1)
        ),
        "You give the probabilities of both classes. Wanted is one number a message, that of spam.": lambda s: np.exp(
            s - np.logaddexp(s[:, :1], s[:, 1:])
        ),
    },
)


# largest_rate: a number, the largest learning rate with which descent on the house table still comes down, to 2%.


def _comes_down(rate: float) -> bool:
    """Whether a step of gradient descent brings every direction closer to the minimum."""
    columns = np.stack([SIZES, np.ones(4)])
    curvature = 2 / 4 * columns @ columns.T  # the derivative of the gradient by w
    return bool(np.abs(np.linalg.eigvalsh(np.eye(2) - rate * curvature)).max() < 1)


@exercise("largest_rate", tries=1)
def largest_rate(answer, rng):
    try:
        rate = float(answer)
    except (TypeError, ValueError):
        raise Wrong("The answer is one number, such as 0.05.") from None
    if not 0 < rate < np.inf:
        raise Wrong("A learning rate is a positive number: with 0 nothing moves, below 0 it climbs.")
    if not _comes_down(rate):
        raise Wrong(f"With {rate:g} the steps grow until the cost overflows. Go lower, and look at 200 steps or more.")
    if _comes_down(1.02 * rate):
        raise Wrong(f"{rate:g} comes down, and so does a rate that is 2% larger. Go higher.")


# decay_gradient(w, X, y, strength): the gradient of mean((X w - y)^2) + strength * sum(w^2) by w.


def _penalised(rng):
    n, d = int(rng.integers(5, 15)), int(rng.integers(2, 6))
    return rng.normal(size=d) + 1, rng.normal(size=(n, d)), rng.normal(size=n) - 1, float(rng.uniform(0.3, 2))


def _slope(w, X, y):
    return 2 * X.T @ (X @ w - y) / len(y)


compare(
    "decay_gradient",
    _penalised,
    lambda w, X, y, c: _slope(w, X, y) + 2 * c * w,
    faults={
        "The penalty is missing: `strength` changes nothing in your answer.": lambda w, X, y, c: _slope(w, X, y),
        "The first part is right. What is the derivative of the square of a weight?": lambda w, X, y, c: (
            _slope(w, X, y) + c * w
        ),
        "The first part has the wrong sign: what is the derivative of the error X @ w - y by w?": lambda w, X, y, c: (
            2 * c * w - _slope(w, X, y)
        ),
        "Your penalty pushes the weights away from 0: check its sign.": lambda w, X, y, c: _slope(w, X, y) - 2 * c * w,
        "You sum the error over the examples, the cost takes its mean.": lambda w, X, y, c: (
            len(y) * _slope(w, X, y) + 2 * c * w
        ),
        "The penalty is right. The first part is half as large as it should be.": lambda w, X, y, c: (
            _slope(w, X, y) / 2 + 2 * c * w
        ),
        "That is for a penalty of absolute values (L1). Here the weights are squared.": lambda w, X, y, c: (
            _slope(w, X, y) + c * np.sign(w)
        ),
    },
)


# common_divisor(a, b): the greatest common divisor of two numbers given as {prime: exponent}, in the same form.


def _number(factors: dict) -> int:
    return int(np.prod([int(p) ** int(k) for p, k in factors.items()], dtype=object))


@exercise("common_divisor")
def common_divisor(answer, rng):
    shared = {2: 3, 3: 1}
    a, b = ({**shared, 5: 2, 2: 1, 11: 1}, {**shared, 5: 1, 7: 2})
    if rng.random() < 0.7:
        a, b = ({int(p): int(rng.integers(1, 5)) for p in rng.choice([2, 3, 5, 7, 11], 3, False)} for _ in "ab")
    former = dict(a), dict(b)
    got, want = answer(a, b), int(np.gcd(_number(a), _number(b)))
    if not isinstance(got, dict):
        raise Wrong(f"Your function returns {got!r}. A dict is expected, {{prime: exponent}}, as its arguments are.")
    if (a, b) != former:
        raise Wrong("Your function changes its arguments. Leave them as they are and make a new dict.")
    given = f"For {a} and {b}"
    if any(exponent <= 0 for exponent in got.values()):
        raise Wrong(f"{given} you give {got}: leave out a prime that does not occur.")
    if any(p not in a or p not in b for p in got):
        missing = next(p for p in got if p not in a or p not in b)
        raise Wrong(f"{given} you give {got}, but {missing} divides only one of the two numbers.")
    for p, exponent in got.items():
        if exponent > min(a[p], b[p]):
            raise Wrong(f"{given} you give {got}, but {p} to the power {exponent} does not divide both numbers.")
    if _number(got) != want:
        raise Wrong(
            f"{given} you give {got}, which is {_number(got)}. It divides both, but a greater number does so, too."
        )


# mean_absolute_error(predictions, targets): the mean of |p - t| for Tensors, with its gradient.


def _pairs(rng):
    shape = tuple(int(n) for n in rng.integers(2, 8, 2))
    return rng.normal(size=shape), rng.normal(size=shape) + 0.3


compare(
    "mean_absolute_error",
    _pairs,
    lambda p, t: ops.absolute(p - t).mean(),
    faults={
        "Positive and negative errors cancel in your mean.": lambda p, t: (p - t).mean(),
        "That is the sum of the errors; their mean is asked for.": lambda p, t: ops.absolute(p - t).sum(),
        "That is the mean squared error. Here an error counts as it is, without its sign.": lambda p, t: (
            (p - t) ** 2
        ).mean(),
        "Taken of the mean, the absolute value comes too late: the errors have cancelled before.": lambda p, t: (
            ops.absolute((p - t).mean())
        ),
    },
    gradient=True,
)
