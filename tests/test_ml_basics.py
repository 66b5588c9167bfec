"""Notebook 01: its exercises judge right and wrong answers, and its spam filter is scikit-learn's."""

import re
import warnings
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy.special import softmax
from sklearn.metrics import precision_score, recall_score
from sklearn.naive_bayes import MultinomialNB

import clnn
from clnn.data import DataNote, text
from clnn.errors import DownloadError
from clnn.lab import check
from clnn.lab.check import exercises_of

matplotlib.use("Agg")
ROOT = Path(__file__).parents[1]
CELLS = {c.id: c for c in nbformat.read(ROOT / "course/01_ml_basics.ipynb", 4).cells}
PARTS = re.split(r"^# %% exercise:(\w+)\n", (ROOT / "course/solutions/01_ml_basics.py").read_text("utf-8"), flags=re.M)
SOLUTIONS = dict(zip(PARTS[1::2], PARTS[2::2]))
NAMES = [
    "false_alarm_rate",
    "spam_probability",
    "largest_rate",
    "decay_gradient",
    "common_divisor",
    "mean_absolute_error",
]


def solution(name: str):
    space = {}
    exec(PARTS[0] + SOLUTIONS[name], space)
    return space[name]


def test_each_exercise_has_a_cell_and_a_solution():
    tags = [t.removeprefix("exercise:") for c in CELLS.values() for t in c.metadata.get("tags", []) if "exercise:" in t]
    assert tags == NAMES == list(SOLUTIONS) and set(exercises_of("ml_basics")) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_skeleton_is_not_done(name, capsys):
    cell = next(c for c in CELLS.values() if f"exercise:{name}" in c.metadata.get("tags", []))
    space = {"lab": clnn.lab, "np": np}
    exec(cell.source.rpartition("lab.check")[0], space)
    assert not check(name, space[name]).done


@pytest.mark.parametrize("name", NAMES)
def test_solution_is_right(device, name):
    result = check(name, solution(name))
    assert result.right, result.message


def ratio(a, b):
    with np.errstate(all="ignore"):
        return a / b


WRONG = {
    "false_alarm_rate": [
        (lambda answers, labels: np.mean((labels == 0) & (answers == 1)), "all messages"),
        (lambda answers, labels: np.sum((labels == 0) & (answers == 1)) / np.sum(answers), "share of the alarms"),
        (lambda answers, labels: 1 - np.mean(answers[labels == 1]), "spam that gets through"),
        (lambda answers, labels: np.mean(answers[labels == 1]), "spam that is caught"),
        (lambda answers, labels: 1 - np.mean(answers == labels), "all mistakes"),
        (lambda answers, labels: np.mean(answers[labels == 0] == 0), "kept"),
        (lambda answers, labels: sum(answers[labels == 0]), "count"),
    ],
    "spam_probability": [
        (lambda s: ratio(np.exp(s[:, 1]), np.exp(s[:, 0]) + np.exp(s[:, 1])), "NaN"),
        (lambda s: 1 / (1 + np.exp(s[:, 1] - s[:, 0])), "probability of ham"),
        (lambda s: np.exp(s[:, 1] - s[:, 0]), "at most 1"),
        (lambda s: s[:, 1] / (s[:, 0] + s[:, 1]), "logarithms"),
        (lambda s: softmax(s, axis=1), "both"),
    ],
    "largest_rate": [
        (0.35, "grow"),
        (2 / 6.6, "grow"),  # the curvature rounded: a little too large
        (0.15, "Go higher"),
        (0.295, "Go higher"),
        (-0.1, "positive"),
        (np.nan, "positive"),
        ("fast", "one number"),
    ],
    "decay_gradient": [
        (lambda w, X, y, s: 2 * X.T @ (X @ w - y) / len(y), "penalty is missing"),
        (lambda w, X, y, s: 2 * X.T @ (X @ w - y) / len(y) + s * w, "square of a weight"),
        (lambda w, X, y, s: 2 * X.T @ (y - X @ w) / len(y) + 2 * s * w, "first part has the wrong sign"),
        (lambda w, X, y, s: 2 * X.T @ (X @ w - y) / len(y) - 2 * s * w, "away from 0"),
        (lambda w, X, y, s: 2 * X.T @ (X @ w - y) + 2 * s * w, "mean"),
        (lambda w, X, y, s: X.T @ (X @ w - y) / len(y) + 2 * s * w, "half"),
        (lambda w, X, y, s: 2 * X.T @ (X @ w - y) / len(y) + s * np.sign(w), "L1"),
    ],
    "common_divisor": [
        (lambda a, b: {p: max(a[p], b[p]) for p in a if p in b}, "does not divide both"),
        (lambda a, b: {p: min(a.get(p, 9), b.get(p, 9)) for p in {*a, *b}}, "divides only one"),
        (lambda a, b: {p: 1 for p in a if p in b}, "a greater number"),
        (lambda a, b: {p: min(a.get(p, 0), b.get(p, 0)) for p in {*a, *b}}, "leave out"),
        (lambda a, b: int(np.gcd(12, 18)), "A dict is expected"),
        (lambda a, b: {p: min(a.pop(p), b[p]) for p in list(a) if p in b}, "changes its arguments"),
    ],
    "mean_absolute_error": [
        (lambda p, t: (p - t).mean(), "cancel in your mean"),
        (lambda p, t: (p - t).abs().sum(), "sum"),
        (lambda p, t: ((p - t) ** 2).mean(), "squared"),
        (lambda p, t: (p - t).mean().abs(), "too late"),
        (lambda p, t: np.abs(p.numpy() - t.numpy()).mean(), "Tensor"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name, wrong, word", [(name, *case) for name, cases in WRONG.items() for case in cases])
def test_wrong_answer_is_told_its_fault(name, wrong, word):
    result = check(name, wrong)
    assert result.done and not result.right
    assert word in result.message, result.message


def test_largest_rate_is_that_of_the_lines_curvature():
    x = np.array([2.104, 1.416, 1.534, 0.852])
    limit = 2 / np.linalg.eigvalsh(2 * np.array([[np.mean(x * x), np.mean(x)], [np.mean(x), 1]])).max()
    for factor, right in [(0.975, False), (0.985, True), (0.9995, True), (1.0005, False)]:
        assert check("largest_rate", factor * limit).right == right


# The spam filter of the page, on its own data


def run(*names, **space):
    """What the cells of these names define, one after the other."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        for name in names:
            exec(compile(CELLS[name].source, name, "exec"), space)
    plt.close("all")
    return space


@pytest.fixture(params=["as it comes", "stand-in"])
def page(request, monkeypatch):
    """The names of the page up to its filter, with what CLNN_DATA holds and with the stand-in."""
    if request.param == "stand-in":

        def no_network(what):
            raise DownloadError("no network in this test")

        monkeypatch.setattr(text, "_find", no_network)
    space = run("setup", "data", "split")
    assert (space["messages"].source == "sample") or request.param != "stand-in"
    return space


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_filter_is_that_of_scikit_learn(device, page, seed):
    order = np.random.default_rng(seed).permutation(len(page["messages"]))
    cut = 2 * len(order) // 3
    page["train"], page["test"] = page["messages"].subset(order[:cut]), page["messages"].subset(order[cut:])
    page["spam"] = page["test"].labels == 1
    page["ham"] = ~page["spam"]
    page = run("rules", "grow", "count", "bayes", "score", "judge", **page)
    theirs = MultinomialNB().fit(page["train_counts"], page["train"].labels)
    assert np.exp(theirs.feature_log_prob_) == pytest.approx(page["p_word"], rel=1e-4)
    assert np.exp(theirs.class_log_prior_) == pytest.approx(page["p_class"], rel=1e-5)
    expected, labels = theirs.predict(page["test_counts"]), page["test"].labels
    ours = page["results"]["Naive Bayes"]
    assert ours[0] == pytest.approx(np.mean(expected == labels), abs=0.005)
    assert ours[1] == pytest.approx(precision_score(labels, expected), abs=0.005)
    assert ours[2] == pytest.approx(recall_score(labels, expected), abs=0.005)
    assert page["results"]["always ham"][0] == pytest.approx(1 - labels.mean())


def test_counts_are_those_of_scikit_learn(page):
    from sklearn.feature_extraction.text import CountVectorizer

    page = run("rules", "grow", "count", **page)
    vectorizer = CountVectorizer(analyzer=page["words"], vocabulary=page["vocabulary"])
    np.testing.assert_array_equal(page["train_counts"], vectorizer.transform(page["train"].texts).toarray())
    np.testing.assert_array_equal(page["test_counts"], vectorizer.transform(page["test"].texts).toarray())


def test_stand_in_is_said_on_the_page(monkeypatch, capsys):
    def no_network(what):
        raise DownloadError("no network in this test")

    monkeypatch.setattr(text, "_find", no_network)
    run("setup", "data")
    shown = capsys.readouterr().out
    assert "small stand-in" in shown and "60 texts" in shown and "note: sms_spam" in shown
    with pytest.warns(DataNote):
        clnn.data.sms_spam()
