"""Pictures of small networks: what is drawn, not how it looks."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Circle

from clnn.errors import ShapeError
from clnn.lab import network_plots as plots

matplotlib.use("Agg")
rng = np.random.default_rng(11)
CORNERS = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
LABELS = np.array([0, 1, 1, 0])


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def ends(line):
    return [tuple(float(v) for v in point) for point in line.get_xydata()]


def predict(x):
    return 1 / (1 + np.exp(-x[:, 0] - 0.5 * x[:, 1]))


def test_diagram_joins_every_two_neighbours_by_their_weight():
    weights = [rng.normal(size=(3, 2)), rng.normal(size=(2, 1))]
    values = [[1.25, -2, 0.5], [0.11, 0.22], [0.75]]
    (ax,) = plots.diagram(weights, values, [[0.33, 0.44], [-0.55]], ["in", "hidden", "out"], title="a net").axes
    circles = [p for p in ax.patches if isinstance(p, Circle)]
    assert [len({c.center for c in circles if c.center[0] == x}) for x in (0, 2.2, 4.4)] == [3, 2, 1]
    shown = texts(ax)
    assert shown[:8] == [f"{w:.2f}" for matrix in weights for w in matrix.ravel()]
    assert {"1.25", "-2.00", "0.50", "0.11", "0.22", "0.75", "bias 0.33", "bias 0.44", "bias -0.55"} <= set(shown)
    assert shown[-3:] == ["in", "hidden", "out"] and ax.get_title() == "a net"


def test_wires_run_between_their_circles_and_are_as_thick_as_the_weight():
    weights = [np.array([[2.0, -1], [0.5, 0]])]
    (ax,) = plots.diagram(weights, [[1, 2], [3, 4]]).axes
    up, down = 0.55, -0.55
    assert [ends(line) for line in ax.lines] == [
        [(0, up), (2.2, up)], [(0, up), (2.2, down)], [(0, down), (2.2, up)], [(0, down), (2.2, down)],
    ]  # fmt: skip
    widths = [line.get_linewidth() for line in ax.lines]
    assert widths[0] > widths[1] > widths[2] > widths[3]
    (wide,) = plots.diagram(weights, [[1, 2], [3, 4]], thickest=4).axes
    assert wide.lines[0].get_linewidth() == widths[1]
    assert ax.lines[0].get_color() == ax.lines[2].get_color() != ax.lines[1].get_color()


def test_diagram_of_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"columns of \[3, 2\] circles .* \[\(3, 2\)\], got \[\(2, 3\)\]"):
        plots.diagram([np.ones((2, 3))], [[1, 2, 3], [4, 5]])


def test_neuron_works_at_its_weighted_sum():
    left, right = plots.neuron([1, 0.5, -1], [0.5, 2, 1], np.tanh, "tanh").axes
    assert "weighted sum a = 0.50" in left.get_title()
    assert texts(left)[:3] == ["0.50", "2.00", "1.00"] and "0.46" in texts(left)
    curve, _, point = right.lines
    assert curve.get_ydata() == pytest.approx(np.tanh(curve.get_xdata()))
    assert ends(point) == [pytest.approx((0.5, np.tanh(0.5)))]


@pytest.mark.parametrize("total", [-30.0, 30.0])
def test_neuron_far_outside_says_its_sum(total):
    left, right = plots.neuron([total], [1.0], np.tanh, "tanh").axes
    assert f"{total:.2f}" in left.get_title()
    assert right.get_xlim() == (-6, 6)


def test_activations_and_their_slopes():
    figure = plots.activations({"tanh": np.tanh, "square": lambda a: a**2}, limit=3)
    left, right = figure.axes
    a = left.lines[0].get_xdata()
    assert 0 not in a and a[0] == -3 and a[-1] == 3
    assert left.lines[1].get_ydata() == pytest.approx(a**2)
    assert right.lines[0].get_ydata() == pytest.approx(1 - np.tanh(a) ** 2, abs=1e-8)
    assert right.lines[1].get_ydata() == pytest.approx(2 * a, abs=1e-8)
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["tanh", "square"]


def test_hidden_plane_shows_where_the_points_go():
    weights, bias = np.array([1.0, 2.0]), -0.5

    def hidden(x):
        return np.stack([np.tanh(x[:, 0] + x[:, 1]), x[:, 0] * x[:, 1]], axis=1)

    _, right, _ = plots.hidden_plane(predict, hidden, (weights, bias), CORNERS, LABELS).axes
    drawn = np.concatenate([c.get_offsets() for c in right.collections])
    assert sorted(map(tuple, drawn.round(6))) == sorted(map(tuple, hidden(CORNERS).round(6)))
    assert sorted(texts(right)) == ["(-1, -1)", "(-1, 1) (1, -1)", "(1, 1)"]  # two of them meet
    split = right.lines[-1]
    assert np.dot(weights, split.get_xy1()) + bias == pytest.approx(0)
    grid = np.concatenate([line.get_xydata() for line in right.lines[:-1]])
    assert len(right.lines) == 1 + 18 and np.abs(grid[:, 0]).max() <= np.tanh(3.2) + 1e-6


def test_hidden_plane_shows_both_kinds_at_one_place():
    _, right, _ = plots.hidden_plane(predict, lambda x: 0.01 * x, ([1.0, 2.0], 0.5), CORNERS, LABELS[:, None]).axes
    assert texts(right) == ["(-1, -1) (-1, 1) (1, -1) (1, 1)"]
    dots, squares, again = right.collections
    assert np.array_equal(again.get_offsets(), dots.get_offsets())
    assert again.get_sizes() < squares.get_sizes() and again.get_zorder() >= squares.get_zorder()
    assert np.array_equal(again.get_facecolor(), dots.get_facecolor())


def test_boundaries_names_each_and_leaves_the_rest_empty():
    figure = plots.boundaries({"first": predict, "second": lambda x: 1 - predict(x)}, CORNERS, LABELS, columns=3)
    first, second, rest = figure.axes
    assert [ax.get_title() for ax in (first, second)] == ["first", "second"]
    one, two = (np.asarray(ax.images[0].get_array()) for ax in (first, second))
    assert one == pytest.approx(1 - two) and not rest.axison


def test_training_moment_marks_its_step():
    losses = [0.7, 0.5, 0.25, 0.125]
    left, right, _ = plots.training_moment(predict, CORNERS, LABELS, losses, 2).axes
    assert left.get_title() == "after 2 steps"
    curve, point = right.lines
    assert ends(curve) == list(enumerate(losses)) and ends(point) == [(2, 0.25)]


def test_norms_per_layer():
    (ax,) = plots.norms_per_layer({"a": [1e-6, 1e-3, 1], "b": [1, 2]}).axes
    assert ax.get_yscale() == "log"
    assert ends(ax.lines[0]) == [(1, 1e-6), (2, 1e-3), (3, 1)]
    assert ends(ax.lines[1]) == [(1, 1), (2, 2)]


def test_outputs_of_seeds_mark_the_failures():
    outputs = np.array([[0.01, 0.98, 0.99, 0.02], [0.01, 0.5, 0.999, 0.02], [0.049, 0.96, 0.96, 0.051]])
    ax, bar = plots.outputs_of_seeds(outputs, LABELS, title="three").axes
    assert np.asarray(ax.images[0].get_array()) == pytest.approx(outputs.T)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0\n✓", "1\n✗", "2\n✗"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["target 0", "target 1", "target 1", "target 0"]
    assert texts(ax)[:3] == [".01", ".98", ".99"] and "1.0" in texts(ax)
    assert bar.get_ylabel() == "output"


def test_learning_curves_count_steps_from_one():
    figure = plots.learning_curves({"a": [3, 2, 1], "b": [4, 4]}, "norm", log="x")
    (ax,) = figure.axes
    assert ends(ax.lines[0]) == [(1, 3), (2, 2), (3, 1)]
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_ylabel()) == ("log", "linear", "norm")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_classes_known():
    tables = {"one": rng.random((4, 3)), "two": rng.random((4, 3))}
    left, right, bar = plots.classes_known(tables, [10, 20, 30, 45], "abc", "letter").axes
    for ax, (name, shares) in zip((left, right), tables.items()):
        (mesh,) = ax.collections
        assert np.asarray(mesh.get_array()) == pytest.approx(shares) and mesh.get_clim() == (0, 1)
        assert ax.get_title() == name and [t.get_text() for t in ax.get_xticklabels()] == list("abc")
    assert mesh.get_coordinates()[:, 0, 1].tolist() == [0, 10, 20, 30, 45]
    assert left.yaxis_inverted() and left.get_ylabel() == "training examples seen"
    assert bar.get_ylabel() == "share answered rightly"
