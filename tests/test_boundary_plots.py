"""Pictures of classifiers: what is drawn, not how it looks."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.contour import QuadContourSet

import clnn
from clnn.errors import ShapeError
from clnn.lab import boundary_plots as plots

matplotlib.use("Agg")
rng = np.random.default_rng(7)
WEIGHTS, BIAS = np.array([1.5, -0.7]), 0.3
points = rng.normal(size=(23, 2)) * [3, 0.5] + [1, -2]
labels = (points @ WEIGHTS + BIAS > 0).astype(int)


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    yield
    plt.close("all")


def score(x):
    return x @ WEIGHTS + BIAS


def contours(ax):
    """The vertices of each drawn contour, by its level."""
    sets = [child for child in ax.get_children() if isinstance(child, QuadContourSet)]
    return {float(s.levels[0]): np.concatenate([path.vertices for path in s.get_paths()]) for s in sets}


def offsets(collection):
    return np.asarray(collection.get_offsets())


def test_boundary_lies_where_the_model_says_level():
    figure = plots.boundary(score, points, labels, level=0, margin=1)
    (ax,) = figure.axes
    found = contours(ax)
    assert sorted(found) == [-1, 0, 1]
    for level, vertices in found.items():
        assert len(vertices) > 10
        assert vertices @ WEIGHTS + BIAS == pytest.approx(level, abs=1e-4)


def test_colours_are_the_models_answers_on_the_whole_frame():
    limits = ((-2, 3), (-1, 5))
    seen = []

    def predict(x):
        seen.append(x)
        return 1 / (1 + np.exp(-score(x)))

    (ax, bar) = plots.boundary(predict, points, labels, limits=limits, steps=7, bar="probability").axes
    (grid,) = seen
    assert grid.dtype == np.float32 and grid.shape == (49, 2)
    image = ax.images[0]
    assert tuple(image.get_extent()) == (-2, 3, -1, 5) and image.origin == "lower"
    values = np.asarray(image.get_array())
    for row, y in enumerate(np.linspace(-1, 5, 7)):  # the first row is the lowest, the first column the leftmost
        for column, x in enumerate(np.linspace(-2, 3, 7)):
            assert values[row, column] == pytest.approx(1 / (1 + np.exp(-score(np.array([x, y])))), abs=1e-5)
    assert image.get_clim() == (0, 1)
    assert bar.get_ylabel() == "probability"


def test_colours_of_scores_are_centred_on_the_level():
    image = plots.boundary(score, points, labels, level=0).axes[0].images[0]
    low, high = image.get_clim()
    assert low == -high and high == pytest.approx(np.abs(image.get_array()).max())
    assert plots.boundary(score, points, labels, level=2, reach=3).axes[0].images[0].get_clim() == (-1, 5)


def test_boundary_frames_all_points():
    ax = plots.boundary(score, points, labels, title="t").axes[0]
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    assert left < points[:, 0].min() and points[:, 0].max() < right
    assert low < points[:, 1].min() and points[:, 1].max() < high
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("$x_1$", "$x_2$", "t")


def test_boundary_into_given_axes():
    figure, axes = plt.subplots(1, 2)
    assert plots.boundary(score, points, labels, axes[1]) is figure
    assert not axes[0].images and axes[1].images


@pytest.mark.parametrize("noise", [0, 1e-9])
def test_no_boundary_where_the_model_does_not_decide(noise):
    def undecided(x):
        return 0.5 + noise * rng.normal(size=len(x))

    (ax,) = plots.boundary(undecided, points, labels).axes
    assert contours(ax) == {}


def test_boundary_takes_tensors(device):
    weights = clnn.tensor(WEIGHTS[:, None].astype(np.float32))

    def predict(x):
        return clnn.tensor(x) @ weights + BIAS  # (m, 1) on the device

    (ax,) = plots.boundary(predict, points, labels, level=0).axes
    assert contours(ax)[0] @ WEIGHTS + BIAS == pytest.approx(0, abs=1e-4)


def test_scatter_tells_classes_apart():
    given = np.array([1, -1] * 11 + [1])
    (ax,) = plots.scatter(points, given, classes=["minus", "plus"]).axes
    minus, plus = ax.collections
    assert np.array_equal(offsets(minus), points[given == -1])
    assert np.array_equal(offsets(plus), points[given == 1])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["minus", "plus"]
    assert not np.array_equal(minus.get_facecolor(), plus.get_facecolor())
    assert not np.array_equal(minus.get_paths()[0].vertices, plus.get_paths()[0].vertices)


def test_ring_marks_the_chosen_points():
    chosen = np.abs(score(points)) < 1
    assert 0 < chosen.sum() < len(points)
    (ax,) = plots.boundary(score, points, labels, level=0, ring=chosen).axes
    last = [c for c in ax.collections if len(offsets(c)) == chosen.sum()][-1]
    assert np.array_equal(offsets(last), points[chosen]) and len(last.get_facecolor()) == 0


@pytest.mark.parametrize("weights", [(1.5, -0.7), (0, 2.0), (-3.0, 0)])
def test_line_is_where_the_score_is_zero(weights):
    _, ax = plt.subplots()
    plots.line(ax, weights, 0.3, linestyle="dotted")
    (drawn,) = ax.lines
    foot, other = np.array(drawn.get_xy1()), np.array(drawn.get_xy2())
    assert foot @ weights + 0.3 == pytest.approx(0, abs=1e-12)
    assert other @ weights + 0.3 == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(other - foot) > 0.1 and drawn.get_linestyle() == ":"


def test_outcomes_name_their_counts():
    names = [["a", "b"], ["c", "d"]]
    (ax,) = plots.outcomes([[40, 3], [2, 15]], ["no", "yes"], names, title="t").axes
    at = {(round(t.get_position()[1]), t.get_position()[0], t.get_text()) for t in ax.texts}
    counts = {(0, 0, "40"), (0, 1, "3"), (1, 0, "2"), (1, 1, "15")}
    assert at == counts | {(0, 0, "a"), (0, 1, "b"), (1, 0, "c"), (1, 1, "d")}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["no", "yes"]
    assert ax.get_ylabel() == "the truth" and ax.get_title() == "t"
    assert ax.images[0].get_array().tolist() == [[1, 0], [0, 1]]


def test_coefficients_stand_beside_their_names():
    names = list("abcde")
    series = {"ours": rng.normal(size=5), "theirs": rng.normal(size=5)}
    figure = plots.coefficients(names, series, "weight")
    drawn = {"ours": {}, "theirs": {}}
    for ax in figure.axes:
        for dots in ax.lines[1:]:  # the first is the line at 0
            for weight, row in zip(*dots.get_data(), strict=True):
                drawn[dots.get_label()][ax.get_yticklabels()[row].get_text()] = weight
    assert drawn == {name: dict(zip(names, values)) for name, values in series.items()}
    assert all(ax.yaxis_inverted() and ax.get_xlabel() == "weight" for ax in figure.axes)


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"\(n, 2\).*\(4, 3\)"):
        plots.boundary(score, np.zeros((4, 3)), [0, 0, 1, 1])
    with pytest.raises(ShapeError, match=r"9 points.*\(9, 2\)"):
        plots.boundary(lambda x: x, points, labels, steps=3)
    with pytest.raises(ShapeError, match=r"22 labels.*\(23, 2\)"):
        plots.boundary(score, points, labels[1:])
    with pytest.raises(ShapeError, match="two weights"):
        plots.line(plt.gca(), [0, 0], 1)
