"""Notebook 03: its solutions are right, plausible mistakes are told apart, and its networks learn XOR."""

import runpy
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest

import clnn
from clnn import lab, optim
from clnn import modules as nn
from clnn.lab.check import exercises_of

matplotlib.use("Agg")
COURSE = Path(__file__).parents[1] / "course"
SOLUTIONS = runpy.run_path(str(COURSE / "solutions" / "03_backprop_xor.py"))
XOR = np.array([0.0, 1, 1, 0])


def solution(name):
    answers = {
        "xor_by_hand": [SOLUTIONS[part] for part in ("w1", "b1", "w2", "b2")],
        "paths": [SOLUTIONS[part] for part in ("by_a", "by_b", "by_c")],
    }
    return answers.get(name) or SOLUTIONS["DenseLayer" if name == "dense_layer" else name]


def layer(output=np.tanh, da=lambda dy, y: dy * (1 - y**2), dx=None, db=None, keep=None):
    """A DenseLayer; each argument replaces one of its lines, usually by a wrong one."""

    class DenseLayer(SOLUTIONS["DenseLayer"]):
        def __call__(self, given):
            self.x = given
            self.y = output(given @ self.w + self.b)
            return self.y

        def backward(self, dy):
            change = da(dy, self.y)
            self.dw = self.x.T @ (keep(dy, self.y) if keep else change)
            self.db = (db or (lambda change, dy: change.sum(axis=0)))(change, dy)
            return (dx or (lambda change, dy, w: change @ w.T))(change, dy, self.w)

    return DenseLayer


def slopes_of(x, weights, t, bend=lambda h: 1 - h**2, divide=True, order=1, at=0, first=lambda p, t: p - t):
    """The gradients of ``deep_gradients``; each argument replaces one of its lines by a wrong one."""
    kept = [x]
    for w in weights[:-1]:
        kept.append(np.tanh(kept[-1] @ w))
    p = 1 / (1 + np.exp(-kept[-1] @ weights[-1]))
    da = first(p, t) / (len(x) if divide else 1)
    found = []
    for k in reversed(range(len(weights))):
        found.insert(0, kept[k].T @ da)
        if k:
            da = (da @ weights[k].T) * bend(kept[max(k + at, 1)])
    return found[::order]


class ReturnsNothing(SOLUTIONS["DenseLayer"]):
    def __call__(self, x):
        super().__call__(x)


class NotCallable:
    def __init__(self, w, b):
        self.w, self.b = w, b


def central(f, w, d, h):
    return (f(w + h * d) - f(w - h * d)) / (2 * h)


STEP = ([[1, 1], [1, 1]], [-0.5, -1.5])  # OR and AND

WRONG = [
    ("tanh_slope", lambda y: y * (1 - y), "the rule for the sigmoid"),
    ("tanh_slope", lambda y: 1 - np.tanh(y) ** 2, "y is the result of tanh already"),
    ("tanh_slope", lambda y: 1 - y, "the formula has a square"),
    ("tanh_slope", lambda y: y**2 - 1, "wrong sign"),
    ("tanh_slope", lambda y: 1 - y ^ 2, "A power is written **"),
    ("tanh_slope", 0.75, "hand over the function itself"),
    ("xor_by_hand", (*STEP, [1, 1], -0.5), "Wrong for the input (1, 1)"),  # OR
    ("xor_by_hand", (*STEP, [-1, 1], 0.5), "the opposite of what it should be"),
    ("xor_by_hand", (*STEP, [0, 1], -0.5), "Wrong for the input (0, 1) and (1, 0) and (1, 1)"),  # AND
    ("xor_by_hand", ([[1, 1], [1, 1]], [-0.5, -0.5], [1, -1], -0.5), "no single neuron can do XOR"),
    ("xor_by_hand", ([[1, 1], [1, 1]], [-0.5, -5], [1, -1], -0.5), "no single neuron can do XOR"),
    ("xor_by_hand", ([1, 1], [-0.5, -1.5], [1, -1], -0.5), "w1 has shape (2,)"),
    ("xor_by_hand", (*STEP, [1, -1]), "four things"),
    ("xor_by_hand", ([[1, 1], [1]], [-0.5, -1.5], [1, -1], -0.5), "Your w1 is a list whose parts have different"),
    ("xor_by_hand", (*STEP, [1, {}], -0.5), "Your w2 holds a dict"),
    ("directional_slope", lambda f, w, d, h=1e-5: (f(w + h * d) - f(w)) / h, "one side only"),
    ("directional_slope", lambda f, w, d, h=1e-5: (f(w + h * d) - f(w - h * d)) / h, "2 h apart"),
    ("directional_slope", lambda f, w, d, h=1e-5: (f(w + h) - f(w - h)) / (2 * h), "Where is the direction d?"),
    ("directional_slope", lambda f, w, d, h=1e-5: (f(w - h * d) - f(w + h * d)) / (2 * h), "which of the two values"),
    ("directional_slope", lambda f, w, d, h=1e-5: (f(w + d) - f(w - d)) / 2, "by the whole of d"),
    ("directional_slope", lambda f, w, d, h=1e-5: central(f, w, d, h) / np.linalg.norm(d), "the length of d"),
    ("directional_slope", lambda f, w, d, h=1e-5: central(f, w, d, 1e-6), "Use the argument h"),
    ("directional_slope", lambda f, w, d, h=1e-5: central(f, w, d, h) * d, "With w of shape"),
    ("dense_layer", layer(output=lambda a: a), "result of layer(x) is wrong"),
    ("dense_layer", layer(da=lambda dy, y: dy), "dw lacks the slope of tanh"),
    ("dense_layer", layer(keep=lambda dy, y: dy), "dw lacks the slope of tanh"),
    ("dense_layer", layer(da=lambda dy, y: dy * (1 - np.tanh(y) ** 2)), "result of tanh already"),
    ("dense_layer", layer(keep=lambda dy, y: dy * (1 - y**2) / len(dy)), "dw is the mean over the examples"),
    ("dense_layer", layer(dx=lambda da, dy, w: (da, w)), "returns 2 things"),
    ("dense_layer", layer(db=lambda da, dy: da.mean(axis=0)), "db is the mean over the examples"),
    ("dense_layer", layer(db=lambda da, dy: dy.sum(axis=0)), "db lacks the slope of tanh"),
    ("dense_layer", layer(dx=lambda da, dy, w: dy @ w.T), "dx lacks the slope of tanh"),
    ("dense_layer", layer(dx=lambda da, dy, w: da @ w), "Your code stops"),
    ("dense_layer", layer(da=lambda dy, y: -dy * (1 - y**2)), "derivative dw has the wrong sign"),
    ("dense_layer", layer(dx=lambda da, dy, w: None), "must return dx"),
    ("dense_layer", layer(da=lambda dy, y: np.multiply(dy, 1 - y**2, out=dy)), "changes its argument dy"),
    ("dense_layer", ReturnsNothing, "layer(x) returns None: is a `return` missing"),
    ("dense_layer", NotCallable, "needs a method __call__"),
    ("dense_layer", SOLUTIONS["DenseLayer"](np.ones((2, 2)), np.ones(2)), "Hand over the class itself"),
    ("dense_layer", layer(da=lambda dy, y: dy * y * (1 - y)), "the slope of a sigmoid; this layer has tanh"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t, order=-1), "last layer first"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t, bend=np.ones_like), "a slope of tanh is missing"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t, at=-1), "at the wrong layer"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t, divide=False), "the mean divides by their number"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t, first=lambda p, t: t - p), "wrong sign"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t, first=lambda p, t: (p - t) * p * (1 - p)), "it cancels"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t)[1:], "weight arrays and you return"),
    ("deep_gradients", lambda x, ws, t: [None] * len(ws), "The gradient by weights[0] is None"),
    ("deep_gradients", lambda x, ws, t: (slopes_of(x, ws, t), ws.reverse())[0], "changes its argument weights"),
    ("deep_gradients", lambda x, ws, t: slopes_of(x, ws, t)[0], "Return a list"),
    ("paths", (10, 4, 2), "one path only"),
    ("paths", (6, 4, 2), "one path only"),
    ("paths", (16, 2, 2), "passes two products"),
    ("paths", (16, 4, 1), "behind the sum stands a product"),
    ("paths", (16, 4, 3), "by c is not 3"),
    ("paths", 16, "three numbers"),
]


@pytest.mark.parametrize("name", exercises_of("backprop_xor"))
def test_solutions_are_right(name):
    result = lab.check(name, solution(name))
    assert result.right, result


def test_other_solutions_of_xor_are_right_too():
    result = lab.check("xor_by_hand", ([[1, -1], [-1, 1]], [-0.5, -0.5], [1, 1], -0.5))  # one but not the other
    assert result.right, result


@pytest.mark.parametrize(("name", "answer", "message"), WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG])
def test_mistakes_are_told_apart(name, answer, message):
    result = lab.check(name, answer)
    assert result.done and not result.right
    assert message in result.message, result


def test_each_exercise_has_three_mistakes():
    names = [name for name, _, _ in WRONG]
    assert all(names.count(name) >= 3 for name in exercises_of("backprop_xor"))


def test_solutions_agree_with_the_tape(device):
    rng = np.random.default_rng(4)
    x, t = rng.normal(size=(7, 3)), rng.integers(0, 2, (7, 1)).astype(float)
    weights = [rng.normal(size=shape) for shape in ((3, 5), (5, 4), (4, 1))]
    tensors = [clnn.tensor(w, requires_grad=True) for w in weights]
    h = clnn.tensor(x)
    for w in tensors[:-1]:
        h = (h @ w).tanh()
    nn.BCEWithLogitsLoss()(h @ tensors[-1], clnn.tensor(t)).backward()
    for tensor, slopes in zip(tensors, SOLUTIONS["deep_gradients"](x, weights, t)):
        np.testing.assert_allclose(tensor.grad.numpy(), slopes, rtol=1e-4, atol=1e-6)


@pytest.fixture
def page(device, monkeypatch):
    """What the notebook's own cells define up to the twenty seeds."""
    monkeypatch.delenv("CLNN_FULL", raising=False)
    cells = {c.id: c.source for c in nbformat.read(COURSE / "03_backprop_xor.ipynb", as_version=4).cells}
    names = {}
    with matplotlib.rc_context():
        for cell in "setup neuron no-bend xor-one numeric one-layer hidden chain network train learn seeds".split():
            exec(cells[cell], names)
    return names


def test_xor_is_learnt_from_at_least_18_of_20_seeds(page):
    from_seeds = page["outputs_of"](page["learn_xor"]([page["start"](seed, scale=0.05) for seed in range(20)]))
    assert from_seeds.shape == (20, 4)
    assert np.sum(np.abs(from_seeds - XOR).max(axis=1) < 0.05) >= 18
    others = page["outputs_of"](page["learn_xor"]([page["start"](seed, scale=0.05) for seed in range(20, 220)]))
    assert np.mean(np.abs(others - XOR).max(axis=1) < 0.05) >= 0.9


def test_the_table_of_the_slides(page):
    outputs = page["net"](page["inputs"]).sigmoid().numpy()[:, 0]
    assert np.abs(outputs - [0.03, 0.96, 0.97, 0.03]).max() < 0.05
    assert page["losses"][-1] < 0.034 and len(page["moments"]) == len(page["losses"]) + 1


def test_networks_in_a_batch_learn_as_they_would_alone(page):
    """The same start in PyTorch's modules, one network, by itself."""
    starts = [page["start"](seed, scale=0.3) for seed in range(3)]
    together = page["outputs_of"](page["learn_xor"](starts, steps=50))
    x, t = clnn.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), clnn.tensor(XOR[:, None])
    for (w1, b1, w2, b2), outputs in zip(starts, together):
        net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
        net.load_state_dict({"0.weight": w1.T, "0.bias": b1[0], "2.weight": w2.T, "2.bias": b2[0]})
        optimizer = optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
        for _ in range(50):
            loss = nn.BCEWithLogitsLoss()(net(x), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        np.testing.assert_allclose(net(x).sigmoid().numpy()[:, 0], outputs, atol=2e-3)
