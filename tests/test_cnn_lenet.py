"""The checks of notebook 04: solutions are right, and plausible mistakes are told apart."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import clnn
from clnn import lab
from clnn import modules as nn
from clnn.lab.check import exercises_of

SOLUTIONS = runpy.run_path(str(Path(__file__).parents[1] / "course" / "solutions" / "04_cnn_lenet.py"))


def sharper(centre, beside, corner):
    return np.array([[corner, beside, corner], [beside, centre, beside], [corner, beside, corner]]) / 8


def slide(image, kernel, stride, padding, step=None, count=None, pad=np.pad):
    """A convolution whose windows lie ``step`` apart, ``count`` along each side where given."""
    image, size = pad(image, padding), len(kernel)
    rows, columns = ((n - size) // stride + 1 if count is None else count(n, size, stride) for n in image.shape)
    starts = [(i * (step or stride), j * (step or stride)) for i in range(rows) for j in range(columns)]
    result = [np.sum(kernel * image[i : i + size, j : j + size]) for i, j in starts]
    return np.reshape(result, (rows, columns))


def floor(n, size, stride):
    return (n - size) // stride  # one too few


def pooled(maps, size, function=np.max, stride=None):
    windows = sliding_window_view(maps, (1, size, size))[:, :: stride or size, :: stride or size]
    return function(windows, axis=(-1, -2, -3))


def costs(c, f, k, r, w, weights=None, biases=None, products=None):
    weights = f * c * k * k if weights is None else weights
    return weights + (f if biases is None else biases), f * c * k * k * r * w if products is None else products


def loss(z, t):
    return -(t * clnn.ops.log_softmax(z)).sum(dim=1)


def step(w, v, g, lr, m, d):
    new = m * v + g + d * w
    return w - lr * new, new


WRONG = [
    ("sharpen", sharper(8, -1, -1), "even grey of 0.5 your kernel gives 0;"),
    ("sharpen", sharper(0, 1, 1), "softer, not sharper"),
    ("sharpen", sharper(16, -2, 0), "those at the corners are neighbours, too"),
    ("sharpen", 2 * np.eye(9)[4].reshape(3, 3) - np.ones((3, 3)) / 9, "counts the pixel among its neighbours"),
    ("sharpen", sharper(40, -8, 0), "differences to four neighbours"),
    ("sharpen", sharper(72, -8, -8), "differences to the eight neighbours"),
    ("sharpen", np.ones((5, 5)) / 25, "yours has shape (5, 5)"),
    ("sharpen", [[-1, -1, -1], [-1, 16], [-1, -1, -1]], "Your kernel is a list whose parts have different lengths"),
    ("sharpen", lambda image: image, "Your kernel is a function; numbers are expected"),
    ("strided_convolution", lambda x, w, s, p: slide(x, w, 1, p), "The stride is left out"),
    ("strided_convolution", lambda x, w, s, p: slide(x, w, s, 0), "The padding is left out"),
    ("strided_convolution", lambda x, w, s, p: slide(x, w, s, p, step=1), "but they lie one pixel apart"),
    ("strided_convolution", lambda x, w, s, p: slide(x, w[::-1, ::-1], s, p), "turned by half a turn"),
    ("strided_convolution", lambda x, w, s, p: slide(np.pad(x, (p, 0)), w, s, 0), "first rows and columns only"),
    ("strided_convolution", lambda x, w, s, p: slide(x, w, s, p, count=floor), "expected is shape"),
    ("pool_by_hand", lambda x, k: pooled(x, k, np.mean), "the mean of each window"),
    ("pool_by_hand", lambda x, k: pooled(x, k, stride=1), "overlap"),
    ("pool_by_hand", lambda x, k: pooled(x, k).max(axis=0), "each map should be pooled alone"),
    ("pool_by_hand", lambda x, k: pooled(np.abs(x), k), "which is too large"),
    ("pool_by_hand", lambda x, k: np.maximum(0, pooled(x, k)), "start from 0"),
    ("pool_by_hand", lambda x, k: x.reshape(len(x), x.shape[1] // k, k, -1, k).max((2, 4)), "cannot reshape"),
    ("conv_costs", lambda c, f, k, r, w: costs(c, f, k, r, w, biases=0), "The biases are parameters, too"),
    ("conv_costs", lambda c, f, k, r, w: costs(c, f, k, r, w, biases=1), "There is a bias for each filter"),
    ("conv_costs", lambda c, f, k, r, w: costs(1, f, k, r, w), "a table of weights for each channel"),
    ("conv_costs", lambda c, f, k, r, w: costs(c, f, k, r, w, products=f * c * k * k), "once at every place"),
    ("conv_costs", lambda c, f, k, r, w: costs(c, f, k, r, w)[0], "one value; expected: 2 values"),
    ("conv_costs", lambda c, f, k, r, w: [*costs(c, f, k, r, w)], "with commas between, not as a list"),
    ("batch_cross_entropy", lambda z, t: loss(z, t).sum(), "their mean is wanted"),
    ("batch_cross_entropy", lambda z, t: loss(z, t), "their mean is wanted"),
    ("batch_cross_entropy", lambda z, t: -loss(z, t).mean(), "wrong sign"),
    ("batch_cross_entropy", lambda z, t: loss(z, t).sum() / (z.shape[0] * z.shape[1]), "over all numbers of the table"),
    ("batch_cross_entropy", lambda z, t: (z.exp() * t).sum(dim=1).log().mean(), "your result is"),
    ("batch_cross_entropy", lambda z, t: clnn.tensor(loss(z, t).mean().numpy()), "No gradient arrives"),
    ("batch_cross_entropy", lambda z, t: loss(z, t).mean().item(), "A Tensor is expected"),
    ("sgd_step_of_lenet", lambda w, v, g, lr, m, d: step(w, v, g, lr, m, 0), "The weight decay is left out"),
    ("sgd_step_of_lenet", lambda w, v, g, lr, m, d: step(w, v, g, -lr, m, d), "uphill"),
    ("sgd_step_of_lenet", lambda w, v, g, lr, m, d: step(w, v, g, lr, 0, d), "The momentum is left out"),
    ("sgd_step_of_lenet", lambda w, v, g, lr, m, d: (w - lr * v, m * v + g + d * w), "compute the new one first"),
    ("sgd_step_of_lenet", lambda w, v, g, lr, m, d: step(w, v, g, lr, m, d)[::-1], "wrong order"),
    ("sgd_step_of_lenet", lambda w, v, g, lr, m, d: (w - lr * g, None), "Value 2 of your result is None"),
]  # fmt: skip


@pytest.mark.parametrize("name", exercises_of("cnn_lenet"))
def test_solutions_are_right(name):
    result = lab.check(name, SOLUTIONS[name])
    assert result.right, result


@pytest.mark.parametrize(("name", "answer", "message"), WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG])
def test_mistakes_are_told_apart(name, answer, message):
    result = lab.check(name, answer)
    assert result.done and not result.right
    assert message in result.message


def test_each_exercise_has_three_mistakes():
    names = [name for name, _, _ in WRONG]
    assert all(names.count(name) >= 3 for name in exercises_of("cnn_lenet"))


def test_solutions_agree_with_clnn():
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(9, 7)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    want = clnn.ops.conv2d(clnn.tensor(x[None, None]), clnn.tensor(w[None, None]), stride=2, padding=1).numpy()[0, 0]
    np.testing.assert_allclose(SOLUTIONS["strided_convolution"](x, w, 2, 1), want, rtol=1e-5, atol=1e-5)
    maps = rng.normal(size=(3, 8, 7)).astype(np.float32)
    want = clnn.ops.max_pool2d(clnn.tensor(maps[None]), 3).numpy()[0]
    np.testing.assert_array_equal(SOLUTIONS["pool_by_hand"](maps, 3), want)
    layer = clnn.summary(nn.Sequential(nn.Conv2d(20, 50, 5)), (1, 20, 12, 12)).layers[0]
    assert SOLUTIONS["conv_costs"](20, 50, 5, 8, 8) == (layer.parameters, layer.multiply_adds)
    logits, labels = clnn.tensor(rng.normal(size=(6, 10))), rng.integers(0, 10, 6)
    loss = SOLUTIONS["batch_cross_entropy"](logits, clnn.tensor(np.eye(10)[labels]))
    assert loss.item() == pytest.approx(nn.CrossEntropyLoss()(logits, clnn.tensor(labels)).item(), rel=1e-5)


def test_step_is_that_of_the_optimizer():
    rng = np.random.default_rng(3)
    w, v = rng.normal(size=(3, 4)), np.zeros((3, 4))
    parameter = nn.Linear(4, 3, bias=False)
    parameter.load_state_dict({"weight": w})
    optimizer = clnn.optim.SGD(parameter.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        x = clnn.tensor(rng.normal(size=(5, 4)))
        optimizer.zero_grad()
        parameter(x).sum().backward()
        g = parameter.weight.grad.numpy()
        optimizer.step()
        w, v = SOLUTIONS["sgd_step_of_lenet"](w, v, g, 0.05, 0.9, 0.1)
    np.testing.assert_allclose(parameter.weight.numpy(), w, rtol=1e-5)
