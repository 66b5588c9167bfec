"""The checks of course/02_logistic_regression.ipynb."""

import numpy as np

from ..check import Wrong, compare, exercise


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


# x_at: where the model says p


def _x_at(p, A, B):
    return (np.log(p / (1 - p)) - B) / A


compare(
    "x_at",
    cases=lambda rng: (rng.uniform(0.02, 0.98, rng.integers(2, 9)), rng.choice([-1, 1]) * rng.uniform(0.3, 3),
                       rng.uniform(0.5, 5) * rng.choice([-1, 1])),
    reference=_x_at,
    faults={
        "B has the wrong sign: solve log(p / (1 - p)) = A x + B for x once more.": lambda p, A, B: _x_at(p, A, -B),
        "These are the odds, without their logarithm.": lambda p, A, B: (p / (1 - p) - B) / A,
        "The odds are upside down: p is the chance of yes, and stands on top.": lambda p, A, B: _x_at(1 - p, A, B),
        "Divide all of it by A: B stands on the same side as A x.": lambda p, A, B: np.log(p / (1 - p)) / A - B,
        "You multiply by A: in A x + B it stands beside x as a factor, so solving for x divides by it.":
            lambda p, A, B: (np.log(p / (1 - p)) - B) * A,
        "The logarithm is taken of p; it belongs to the odds.": lambda p, A, B: (np.log(p) - B) / A,
        "That is the score A x + B itself; the x that belongs to it is asked for.":
            lambda p, A, B: np.log(p / (1 - p)),
        "That is the probability at x = p. Here p is given and x is asked for.": lambda p, A, B: _sigmoid(A * p + B),
    },
)  # fmt: skip


# loss_of_scores: the cross-entropy from scores, without overflow


def _losses(z, y):
    return np.logaddexp(0, z) - y * z


def _overflowing(mean):
    """The loss by way of p, which is rounded to 0 and 1 where scores are large."""

    def loss(z, y):
        with np.errstate(all="ignore"):
            return mean(_sigmoid(z), y)

    return loss


def _clipped(z, y, tiny):
    """The loss by way of p, kept ``tiny`` away from 0 and 1."""
    p = np.clip(_sigmoid(z), tiny, 1 - tiny)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


def _naive_softplus(z, y):
    with np.errstate(all="ignore"):
        return np.mean(np.log(1 + np.exp(z)) - y * z)


def _some_scores(rng):
    n = int(rng.integers(6, 30))
    z = rng.normal(size=n) * 3
    z[rng.permutation(n)[:4]] = [-900, 800, -1000, 1200]
    y = (rng.random(n) < 0.4).astype(int)
    y[np.abs(z) > 100] = [0, 1, 0, 1]
    return z, y


compare(
    "loss_of_scores",
    cases=_some_scores,
    reference=lambda z, y: np.mean(_losses(z, y)),
    faults={
        "For scores like 1000 or -1000 that gives nan or infinity: p is rounded to exactly 1 or 0, and log 0 is "
        "infinite. Rewrite -log p and -log(1 - p) as functions of z that need no p.":
            _overflowing(lambda p, y: -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))),
        "For scores like 1000 or -1000 that gives infinity. Rewrite -log p and -log(1 - p) as functions of z.":
            _overflowing(lambda p, y: -np.mean(np.where(y == 1, np.log(p), np.log(1 - p)))),
        **{f"Kept {tiny:g} away from 0 and 1, p gives a finite loss, but a wrong one: at most {-np.log(tiny):.0f} for "
           "an example whose score is 1000 on the wrong side. Rewrite -log p and -log(1 - p) as functions of z.":
            lambda z, y, tiny=tiny: _clipped(z, y, tiny) for tiny in 10.0 ** -np.arange(5, 17)},
        "The exponential of a score like 1000 is infinite. What is log(1 + e^z) nearly, where z is that large?":
            _naive_softplus,
        "Only the positive examples count here; the negative ones have a term, too.":
            lambda z, y: np.mean(y * np.logaddexp(0, -z)),
        "Only the negative examples count here; the positive ones have a term, too.":
            lambda z, y: np.mean((1 - y) * np.logaddexp(0, z)),
        "That is the sum; divide by the number of examples.": lambda z, y: np.sum(_losses(z, y)),
        "Each example has a loss here; their mean is asked for.": _losses,
        "The two terms are exchanged: y = 1 must ask for a high score.": lambda z, y: np.mean(_losses(z, 1 - y)),
        "The sign is wrong: a logarithm of a probability is negative, a loss is not.":
            lambda z, y: -np.mean(_losses(z, y)),
    },
)  # fmt: skip


# logistic_gradient: by the weights and the bias, with a penalty on the weights


def _gradient(X, y, w, b, penalty, sign=1, on_bias=False, mean=True, error=None):
    error = _sigmoid(X @ w + b) - y if error is None else error
    share = 1 / len(y) if mean else 1
    return sign * share * (X.T @ error) + penalty * w, sign * share * error.sum() + on_bias * penalty * b


def _some_tumours(rng):
    n, d = int(rng.integers(5, 20)), int(rng.integers(2, 6))
    X, w = rng.normal(size=(n, d)) + 0.5, rng.normal(size=d)
    return X, (rng.random(n) < 0.5).astype(int), w, rng.normal() + 1, rng.uniform(0.1, 0.9)


compare(
    "logistic_gradient",
    cases=_some_tumours,
    reference=_gradient,
    faults={
        "The gradient of the loss has the wrong sign: where p is too high, the gradient by b is positive.":
            lambda *a: _gradient(*a, sign=-1),
        "Both parts have the wrong sign: the gradient points to where the loss grows.":
            lambda *a: tuple(-g for g in _gradient(*a)),
        "The penalty is missing: it adds to the gradient by w.": lambda *a: _gradient(*a[:4], 0),
        "The penalty is on w only; here it is on b, too.": lambda *a: _gradient(*a, on_bias=True),
        "The penalty has half its slope: the derivative of w^2 / 2 is w.":
            lambda *a: _gradient(*a[:4], a[4] / 2),
        "The penalty has twice its slope: it is half of penalty * w^2.": lambda *a: _gradient(*a[:4], 2 * a[4]),
        "The loss is a mean: divide the sums over the examples by their number.":
            lambda *a: _gradient(*a, mean=False),
        "The gradient by w is right; the one by b is a sum, and the loss is a mean.":
            lambda *a: (_gradient(*a)[0], _gradient(*a, mean=False)[1]),
        "You divide by the number of columns; the mean runs over the examples, the rows.":
            lambda X, y, w, b, penalty: (
                _gradient(X, y, w, b, 0, mean=False)[0] / len(w) + penalty * w, _gradient(X, y, w, b, 0)[1]
            ),
        "The bias b is missing in the score X w + b.":
            lambda X, y, w, b, penalty: _gradient(X, y, w, 0, penalty),
        "That is y compared with the score. The model's answer is a probability, the sigmoid of the score.":
            lambda X, y, w, b, penalty: _gradient(X, y, w, b, penalty, error=X @ w + b - y),
        "There is a factor p (1 - p) too much: it cancels against the derivative of the logarithm.":
            lambda X, y, w, b, penalty: _gradient(
                X, y, w, b, penalty, error=(p := _sigmoid(X @ w + b)) * (1 - p) * (p - y)
            ),
        "w and b are exchanged: return the gradient by w first.": lambda *a: _gradient(*a)[::-1],
    },
)  # fmt: skip


# choose_threshold: the highest one that catches enough


@exercise("choose_threshold", tries=12)
def choose_threshold(answer, rng):
    n = int(rng.integers(20, 60))
    p, y = rng.permutation(n) / n + rng.uniform(0, 0.9 / n), (rng.random(n) < 0.4).astype(int)
    y[np.argsort(p)[[1, -2]]] = 1  # so that the highest and the lowest are negative: shortcuts show
    y[np.argsort(p)[[0, -1]]] = 0
    positives = np.sort(p[y == 1])[::-1]
    wanted = int(rng.integers(1, len(positives) + 1))  # so many must be caught
    recall = (wanted - 0.5) / len(positives)
    given = answer(p.copy(), y.copy(), recall)
    try:
        threshold = float(given)
    except (TypeError, ValueError):
        raise Wrong(f"Your threshold is {given!r}; one number is expected.") from None
    caught, alarms = (int(np.sum(p[y == k] >= threshold)) for k in (1, 0))
    asked = f"{recall:.0%} of {len(positives)} malignant tumours were asked for"
    if caught < wanted:
        above = int(np.sum(p[y == 1] > threshold - 1e-9))
        just = " One has exactly this probability: rounding may not lose it." if above > caught else ""
        raise Wrong(f"With your threshold {threshold:.4f} only {caught} are caught, {asked}.{just}")
    best = positives[wanted - 1]
    if caught > wanted or alarms > np.sum(p[y == 0] >= best):
        raise Wrong(
            f"Your threshold {threshold:.4f} catches enough ({caught}; {asked}), but it is not the highest that does: "
            f"it gives {alarms} false alarms, and fewer are possible. Malignant is who has p >= threshold."
        )


# perceptron_step: Rosenblatt's rule


def _step(w, x, s, wrong=None, change=None):
    wrong = s * (w @ x) <= 0 if wrong is None else wrong
    return w + (s * x if change is None else change) if wrong else w


def _some_step(rng):
    w, x = rng.normal(size=(2, int(rng.integers(2, 6))))
    kind = rng.integers(4)  # one in four: the first step, where w is still 0 and decides nothing
    s = int(rng.choice([-1, 1]))
    return (np.zeros_like(w) if kind == 0 else w * s * np.sign(w @ x) * (-1) ** kind), x, s


compare(
    "perceptron_step",
    cases=_some_step,
    reference=_step,
    tries=24,
    faults={
        "Where the score is exactly 0, the example is not on its side yet and counts as a mistake: from w = 0 yours "
        "never starts.": lambda w, x, s: _step(w, x, s, s * (w @ x) < 0),
        "It learns from every example; the perceptron changes only where it is wrong.":
            lambda w, x, s: _step(w, x, s, True),
        "It changes where it is right and stays where it is wrong.": lambda w, x, s: _step(w, x, s, s * (w @ x) > 0),
        "The step goes the wrong way: afterwards the example lies deeper on the wrong side.":
            lambda w, x, s: _step(w, x, s, change=-s * x),
        "The step forgets the class s: examples of class -1 must be taken away, not added.":
            lambda w, x, s: _step(w, x, s, change=x),
        "Whether it is wrong depends on the class, too: compare the sign of the score with s.":
            lambda w, x, s: _step(w, x, s, w @ x <= 0),
        "That is only the change; the new weights are asked for.":
            lambda w, x, s: _step(w, x, s) - w,
    },
)  # fmt: skip


# margin: how far the nearest example lies from the boundary


def _distances(w, b, X, s):
    return s * (X @ w + b) / np.sqrt(w @ w)


def _some_margin(rng):
    n, d = int(rng.integers(4, 15)), int(rng.integers(2, 5))
    X, w, b = rng.normal(size=(n, d)), rng.normal(size=d) * 2 + 0.3, rng.normal()
    s = np.where(X @ w + b > 0, 1, -1)
    if rng.random() < 0.5:
        s[rng.integers(n)] *= -1  # one on the wrong side, whose distance is negative
    return w, b, X, s


compare(
    "margin",
    cases=_some_margin,
    reference=lambda w, b, X, s: np.min(_distances(w, b, X, s)),
    tries=12,
    faults={
        "That depends on the scale of w: twice the w and b describe the same line. Divide by the length of w.":
            lambda w, b, X, s: np.min(s * (X @ w + b)),
        "It is divided by w squared; the length of w is the square root of that.":
            lambda w, b, X, s: np.min(s * (X @ w + b)) / (w @ w),
        "The length of w is the root of the sum of the squares, not the sum of the absolute values.":
            lambda w, b, X, s: np.min(s * (X @ w + b)) / np.abs(w).sum(),
        "An example on the wrong side has a negative distance; yours is never negative.":
            lambda w, b, X, s: np.min(np.abs(_distances(w, b, X, s))),
        "That is the example furthest away; the nearest counts.": lambda w, b, X, s: np.max(_distances(w, b, X, s)),
        "That is the mean of all examples; the nearest counts.": lambda w, b, X, s: np.mean(_distances(w, b, X, s)),
        "That is the width of the whole street; the margin is the distance on one side.":
            lambda w, b, X, s: 2 * np.min(_distances(w, b, X, s)),
        "Those are all distances; the smallest is asked for.": _distances,
        "The bias b is missing.": lambda w, b, X, s: np.min(_distances(w, 0, X, s)),
        "The class s is missing: on the side of class -1 the score is negative.":
            lambda w, b, X, s: np.min((X @ w + b) / np.sqrt(w @ w)),
    },
)  # fmt: skip
