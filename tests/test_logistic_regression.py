"""The checks of notebook 02: solutions are right, plausible mistakes are told apart; and its support vector machine."""

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import clnn
from clnn import lab, optim
from clnn import modules as nn
from clnn.lab.check import exercises_of

SOLUTIONS = runpy.run_path(str(Path(__file__).parents[1] / "course" / "solutions" / "02_logistic_regression.py"))


def naive_loss(z, y):
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-z))
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


def clipped_loss(z, y, tiny=1e-12):
    p = np.clip(expit(z), tiny, 1 - tiny)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


def softplus_loss(z, y):
    with np.errstate(all="ignore"):
        return np.mean(np.log(1 + np.exp(z)) - y * z)


def loss_loop(z, y):
    """Right, written in another way than the solution."""
    losses = []
    for score, label in zip(z, y):
        signed = score if label else -score
        losses.append(np.log1p(np.exp(-abs(signed))) + max(0, -signed))
    return sum(losses) / len(losses)


def gradient(X, y, w, b, penalty, error=None, divisor=None):
    error = expit(X @ w + b) - y if error is None else error
    n = divisor or len(y)
    return X.T @ error / n + penalty * w, error.sum() / n


def gradient_loop(X, y, w, b, penalty):
    """Right, one example after the other."""
    by_w, by_b = penalty * w, 0.0
    for x, label in zip(X, y):
        error = expit(x @ w + b) - label
        by_w, by_b = by_w + error * x / len(y), by_b + error / len(y)
    return by_w, by_b


def penalised_bias(X, y, w, b, penalty):
    by_w, by_b = gradient(X, y, w, b, penalty)
    return by_w, by_b + penalty * b


def sorted_positives(p, y):
    return np.sort(p[y == 1])[::-1]


def count(p, y, recall):
    return int(np.ceil(recall * np.sum(y)))


def threshold_search(p, y, recall):
    """Right: from above, the first threshold that catches enough."""
    return next(t for t in sorted(p, reverse=True) if np.mean(p[y == 1] >= t) >= recall)


def step(w, x, s):
    return w + s * x if s * (w @ x) <= 0 else w


def step_in_place(w, x, s):
    if s * (w @ x) <= 0:
        w += s * x
    return w


def distances(w, b, X, s):
    return s * (X @ w + b) / np.linalg.norm(w)


WRONG = [
    ("x_at", lambda p, A, B: (np.log(p / (1 - p)) + B) / A, "B has the wrong sign"),
    ("x_at", lambda p, A, B: (p / (1 - p) - B) / A, "without their logarithm"),
    ("x_at", lambda p, A, B: (np.log((1 - p) / p) - B) / A, "upside down"),
    ("x_at", lambda p, A, B: np.log(p / (1 - p)) / A - B, "Divide all of it by A"),
    ("x_at", lambda p, A, B: (np.log(p) - B) / A, "belongs to the odds"),
    ("x_at", lambda p, A, B: expit(A * p + B), "p is given and x is asked for"),
    ("x_at", lambda p, A, B: A * (np.log(p / (1 - p)) - B), "You multiply by A"),
    ("loss_of_scores", naive_loss, "p is rounded to exactly 1 or 0"),
    ("loss_of_scores", softplus_loss, "What is log(1 + e^z) nearly"),
    ("loss_of_scores", clipped_loss, "Kept 1e-12 away from 0 and 1"),
    ("loss_of_scores", lambda z, y: clipped_loss(z, y, 1e-7), "at most 16"),
    ("loss_of_scores", lambda z, y: np.mean(y * np.logaddexp(0, -z)), "the negative ones have a term"),
    ("loss_of_scores", lambda z, y: np.mean((1 - y) * np.logaddexp(0, z)), "the positive ones have a term"),
    ("loss_of_scores", lambda z, y: np.sum(np.logaddexp(0, z) - y * z), "That is the sum"),
    ("loss_of_scores", lambda z, y: np.logaddexp(0, z) - y * z, "their mean is asked for"),
    ("loss_of_scores", lambda z, y: np.mean(np.logaddexp(0, z) - (1 - y) * z), "exchanged"),
    ("loss_of_scores", lambda z, y: np.mean(y * z - np.logaddexp(0, z)), "The sign is wrong"),
    ("logistic_gradient", lambda X, y, *r: gradient(X, y, *r, error=y - expit(X @ r[0] + r[1])), "wrong sign"),
    ("logistic_gradient", lambda X, y, w, b, d: gradient(X, y, w, b, 0), "penalty is missing"),
    ("logistic_gradient", lambda X, y, w, b, d: gradient(X, y, w, 0, d), "b is missing in the score"),
    ("logistic_gradient", lambda *a: (gradient(*a)[0], gradient(*a, divisor=1)[1]), "the one by b is a sum"),
    ("logistic_gradient", lambda *a: (gradient(*a, divisor=len(a[2]))[0], gradient(*a)[1]), "number of columns"),
    ("logistic_gradient", penalised_bias, "penalty is on w only"),
    ("logistic_gradient", lambda *a: gradient(*a[:4], 2 * a[4]), "twice its slope"),
    ("logistic_gradient", lambda *a: gradient(*a, divisor=1), "divide the sums"),
    ("logistic_gradient", lambda X, y, *r: gradient(X, y, *r, error=X @ r[0] + r[1] - y), "sigmoid of the score"),
    ("logistic_gradient", lambda *a: gradient(*a)[::-1], "w and b are exchanged"),
    ("logistic_gradient", lambda *a: gradient(*a)[0], "one value; expected: 2 values"),
    ("choose_threshold", lambda p, y, r: sorted_positives(p, y)[max(count(p, y, r) - 2, 0)], "are caught"),
    ("choose_threshold", lambda p, y, r: np.append(sorted_positives(p, y), 0)[count(p, y, r)], "not the highest"),
    ("choose_threshold", lambda p, y, r: np.sort(p)[::-1][count(p, y, r) - 1], "are caught"),
    ("choose_threshold", lambda p, y, r: 0.0, "fewer are possible"),
    ("choose_threshold", lambda p, y, r: sorted_positives(p, y)[count(p, y, r) - 1] + 1e-12, "rounding may not"),
    ("choose_threshold", lambda p, y, r: p >= r, "one number is expected"),
    ("perceptron_step", lambda w, x, s: w + s * x if s * (w @ x) < 0 else w, "never starts"),
    ("perceptron_step", lambda w, x, s: w + s * x, "only where it is wrong"),
    ("perceptron_step", lambda w, x, s: w - s * x if s * (w @ x) <= 0 else w, "wrong way"),
    ("perceptron_step", lambda w, x, s: w + x if s * (w @ x) <= 0 else w, "forgets the class"),
    ("perceptron_step", lambda w, x, s: w + s * x if w @ x <= 0 else w, "depends on the class"),
    ("perceptron_step", lambda w, x, s: w if s * (w @ x) <= 0 else w + s * x, "stays where it is wrong"),
    ("perceptron_step", step_in_place, "changes its argument w"),
    ("margin", lambda w, b, X, s: np.min(s * (X @ w + b)), "scale of w"),
    ("margin", lambda w, b, X, s: np.min(np.abs(distances(w, b, X, s))), "never negative"),
    ("margin", lambda w, b, X, s: np.max(distances(w, b, X, s)), "the nearest counts"),
    ("margin", lambda w, b, X, s: 2 * np.min(distances(w, b, X, s)), "one side"),
    ("margin", lambda w, b, X, s: np.min(s * (X @ w + b)) / np.sum(w**2), "square root"),
    ("margin", lambda w, b, X, s: np.min((X @ w + b) / np.linalg.norm(w)), "class s is missing"),
    ("margin", lambda w, b, X, s: np.min(distances(w, 0, X, s)), "b is missing"),
]
RIGHT = [
    ("loss_of_scores", loss_loop),
    ("logistic_gradient", gradient_loop),
    ("choose_threshold", threshold_search),
    ("perceptron_step", step),
    ("margin", lambda w, b, X, s: distances(w, b, X, s).min()),
]


@pytest.mark.parametrize("name", exercises_of("logistic_regression"))
def test_solution_is_right(name):
    assert lab.check(name, SOLUTIONS[name]).right


@pytest.mark.parametrize("name, answer", RIGHT, ids=[name for name, _ in RIGHT])
def test_other_right_answers(name, answer):
    result = lab.check(name, answer)
    assert result.right, result.message


@pytest.mark.parametrize("name, answer, words", WRONG, ids=[f"{name}: {words}" for name, _, words in WRONG])
def test_wrong_answers_are_told_what_is_wrong(name, answer, words):
    result = lab.check(name, answer)
    assert result.done and not result.right
    assert words in result.message


def test_each_exercise_has_wrong_answers():
    assert {name for name, *_ in WRONG} == set(exercises_of("logistic_regression"))
    assert min(sum(name == other for other, *_ in WRONG) for name in exercises_of("logistic_regression")) >= 5


# What the notebook says of scikit-learn


@pytest.fixture(scope="module")
def tumours():
    """Standardised training rows and their labels 0 and 1, split as in the notebook."""
    data = load_breast_cancer()
    x, y = data.data, (data.target == 0).astype(int)
    train = np.random.RandomState(0).permutation(len(y))[:400]
    return (x[train] - x[train].mean(0)) / x[train].std(0), y[train]


def trained(loss, x, y, groups):
    """Weights and bias of one neuron after the notebook's 1000 steps."""
    clnn.manual_seed(0)
    neuron = nn.Linear(x.shape[1], 1)
    optimizer = optim.SGD(groups(neuron), lr=0.3, momentum=0.95)
    rates = optim.MultiStepLR(optimizer, [500, 750])
    batch = clnn.tensor(x), clnn.tensor(y[:, None].astype(np.float32))
    for _ in clnn.sgd(neuron, itertools.repeat(batch, 1000), loss=loss, optimizer=optimizer):
        rates.step()
    return neuron.weight.numpy()[0].astype(float), neuron.bias.item()


def test_logistic_regression_has_scikit_learns_minimum(device, tumours):
    x, y = tumours

    def groups(neuron):
        return [{"params": [neuron.weight], "weight_decay": 1 / len(y)}, {"params": [neuron.bias]}]

    w, b = trained(nn.BCEWithLogitsLoss(), x, y, groups)
    theirs = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(w, theirs.coef_[0], atol=1e-4)
    assert b == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_hinge_loss_has_linear_svcs_minimum(device, tumours):
    """LinearSVC penalises the bias, too, so that weight_decay on all parameters is its objective."""
    x, y = tumours
    s, penalty = 2 * y - 1, 0.01
    w, b = trained(
        nn.HingeLoss(), x, s, lambda neuron: [{"params": list(neuron.parameters()), "weight_decay": penalty}]
    )
    C = 1 / (penalty * len(y))
    theirs = LinearSVC(C=C, loss="hinge", tol=1e-8, max_iter=1_000_000, random_state=0).fit(x, s)

    def objective(w, b):
        return np.maximum(0, 1 - s * (x @ w + b)).mean() + penalty / 2 * (w @ w + b * b)

    best = objective(theirs.coef_[0], theirs.intercept_[0])
    assert objective(w, b) == pytest.approx(best, rel=1e-3)
    np.testing.assert_allclose(w, theirs.coef_[0], atol=0.02)
    assert np.mean((x @ w + b > 0) == (theirs.decision_function(x) > 0)) >= 0.995
