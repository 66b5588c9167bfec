"""The pictures of notebook 01: what is drawn, not how it looks."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import clnn
from clnn import models
from clnn.lab import basics_plots as bp
from clnn.lab import plots

matplotlib.use("Agg")
rng = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def drawn(line):
    return np.transpose(line.get_data())


def labelled(ax):
    assert ax.get_xlabel() and ax.get_ylabel()
    return [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


def test_growing_list():
    read, new, hit = np.sort(rng.random(9)), np.sort(rng.random(9)), np.arange(9) * 3
    left, right = bp.growing_list(read, new, hit).axes
    for line, shares in zip(left.lines, (read, new), strict=True):
        assert drawn(line) == pytest.approx(np.stack([np.arange(1, 10), 100 * shares], axis=1))
    assert drawn(right.lines[0])[:, 1] == pytest.approx(hit)
    assert len(labelled(left)) == 2 and not labelled(right)


def test_growing_list_that_hits_no_good_message():
    _, right = bp.growing_list([0.5, 1], [0.3, 0.4], [0, 0]).axes
    assert right.get_ylim() == (0, 1)


@pytest.mark.parametrize("ratios", [[200.0, 3.0, 0.01], [5.0, 40.0], [0.3, 0.002], [1.0], []])
def test_telling_words(ratios):
    words = [f"word {k}" for k in range(len(ratios))]
    (ax,) = bp.telling_words(words, ratios).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == words and ax.yaxis_inverted()
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert 10 ** np.array(ends) == pytest.approx(ratios)
    low, high = ax.get_xlim()
    assert low < high and all(low <= end <= high for end in [*ends, 0])
    assert len(ax.get_xticks()) >= 2
    for place, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True):
        top, _, bottom = label.get_text().replace(",", "").partition("/")
        assert 10.0**place == pytest.approx(float(top) / float(bottom or 1))
    shown = [t.get_text().split(" / ") for t in ax.texts]
    assert [float(p[0]) / float(p[1] if p[1:] else 1) for p in shown] == pytest.approx(ratios, rel=0.01)


def test_line_and_errors():
    x, y = rng.uniform(1, 5, 6), rng.uniform(0, 3, 6)
    (ax,) = bp.line_and_errors(x, y, 0.75, -0.5).axes
    line, houses = ax.lines
    assert drawn(line)[:, 1] == pytest.approx(0.75 * drawn(line)[:, 0] - 0.5)
    assert drawn(houses) == pytest.approx(np.stack([x, y], axis=1))
    segments = np.array(ax.collections[0].get_segments())
    assert segments == pytest.approx(np.stack([np.stack([x, y], 1), np.stack([x, 0.75 * x - 0.5], 1)], axis=1))
    assert [float(t.get_text()) for t in ax.texts] == pytest.approx(0.75 * x - 0.5 - y, abs=0.501)
    assert "0.7500 x -0.50" in labelled(ax)[0]


def test_descents():
    x, y = np.array([2.1, 1.4, 1.5, 0.9]), np.array([460.0, 232, 315, 178])
    best = np.linalg.lstsq(np.stack([x, np.ones(4)], 1), y)[0]
    calm, away = rng.uniform(0, 100, (9, 2)), np.array([[0, 0], [50, 0], [900, 0], [0, -2000], [1e9, 0]])
    figure = bp.descents({"calm": calm, "away": away}, x, y, best, reach=500)
    first, second, costs = figure.axes
    assert [first.get_title(), second.get_title()] == ["calm", "away"]
    path, star = first.lines
    assert drawn(path) == pytest.approx(calm) and drawn(star)[0] == pytest.approx(best)
    assert drawn(second.lines[0]) == pytest.approx(away[:3])  # to the first point outside
    assert first.get_xlim() == pytest.approx((best[0] - 500, best[0] + 500))
    error = [np.mean((w0 * x + w1 - y) ** 2) for w0, w1 in calm]
    assert costs.lines[0].get_ydata() == pytest.approx(error)
    assert labelled(costs) == ["calm", "away", "the minimum"]


def test_descents_that_overflow():
    path = np.array([[0, 0], [1e200, 1e200], [np.inf, -np.inf], [np.nan, np.nan]])
    with np.errstate(all="ignore"):
        figure = bp.descents({"away": path}, np.array([1.0, 2]), np.array([3.0, 5]), np.array([1.0, 2]))
    assert len(figure.axes) == 2


@pytest.mark.parametrize("with_weights", [False, True])
def test_fits(with_weights):
    x, y = rng.uniform(-1, 1, 7), rng.normal(size=7)
    curves = {"flat": lambda x: 0 * x + 0.5, "steep": lambda x: 40 * x}
    weights = {"flat": [0.5], "steep": [0, 40.0, 3]} if with_weights else None
    figure = bp.fits(x, y, curves, np.sin, weights)
    for ax, name in zip(figure.axes, curves):
        truth, fit, points = (drawn(line) for line in ax.lines)
        assert ax.get_title() == name
        assert truth[:, 1] == pytest.approx(np.sin(truth[:, 0]))
        assert fit[:, 1] == pytest.approx(np.clip(curves[name](fit[:, 0]), -9, 9))
        assert points == pytest.approx(np.stack([x, y], axis=1))
    assert len(figure.axes) == (4 if with_weights else 2)
    for ax, name in zip(figure.axes[2:], curves):
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(weights[name])


def test_brains_and_nets(device):
    net = clnn.summary(models.lenet(), (1, 1, 28, 28))
    neurons = sum(int(np.prod(layer.output_shape)) for layer in net.layers if layer.parameters)
    assert (neurons, net.parameters) == (20 * 24 * 24 + 50 * 8 * 8 + 500 + 10, 431_080)
    (ax,) = bp.brains_and_nets(
        {"mouse": (16e6, 128e9), "cat": (763e6, 6.1e12)}, {"LeNet": (neurons, net.parameters)}
    ).axes
    brains, nets = (line for line in ax.lines if line.get_marker() in "os")
    assert drawn(brains) == pytest.approx(np.array([[16e6, 128e9], [763e6, 6.1e12]]))
    assert drawn(nets) == pytest.approx(np.array([[neurons, net.parameters]]))
    for line in ax.lines[:4]:
        assert len(set(np.round(line.get_ydata() / line.get_xdata()))) == 1
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log") and len(labelled(ax)) == 2
    assert {"mouse", "cat", "LeNet"} <= {t.get_text() for t in ax.texts}
