"""Pictures of classifiers: the plane coloured by what a model answers, its boundary and margins, what it got wrong.

Every function returns the figure. With ``ax`` it draws into given axes, so that several stand side by side. The first
class is blue on purple, the second red on orange, and each has a marker of its own.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize

from ..errors import ShapeError
from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SIGNED, SKY, WIDTH

COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = "os^Dv*P"
# The middle of the signed colours: points still stand out where a model is sure.
PALE = LinearSegmentedColormap.from_list("pale", plt.get_cmap(SIGNED)(np.linspace(0.3, 0.7, 101)))


def boundary(
    predict, points, labels, ax=None, *, level: float = 0.5, reach: float | None = None, margin: float = 0,
    classes=None, ring=None, limits=None, xlabel: str = "$x_1$", ylabel: str = "$x_2$", title: str = "", bar: str = "",
    size: float = 28, steps: int = 150,
):  # fmt: skip
    """The plane coloured by ``predict``, the line where it equals ``level``, and the labelled points (n, 2) on it.

    ``predict`` takes a float32 array (m, 2) and returns m numbers, as an array or Tensor. Colours run from
    ``level - reach`` to ``level + reach``: by default 0 to 1 for the level 0.5 of probabilities, else as far as the
    values go. ``margin`` adds dashed lines at ``level`` plus and minus that much. ``classes`` names the labels in
    ascending order, for a legend; ``ring`` marks which points get a ring; ``limits`` is ((x, x), (y, y)), by default
    a frame around the points; ``bar`` labels a colour scale; ``size`` is a point's, in points squared. Raises
    ShapeError for other shapes.
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"points in the plane have shape (n, 2), these have {points.shape}: choose two columns")
    ax = ax or plt.subplots(figsize=(WIDTH * 0.62, 4))[1]
    (left, right), (low, high) = limits or [_framed(column) for column in points.T]
    x, y = np.linspace(left, right, steps), np.linspace(low, high, steps)
    values = _values(predict, np.stack(np.meshgrid(x, y), axis=-1))
    reach = reach or (0.5 if level == 0.5 else np.abs(values - level).max() or 1.0)
    norm = Normalize(level - reach, level + reach)
    image = ax.imshow(
        values, extent=(left, right, low, high), origin="lower", aspect="auto", cmap=PALE, norm=norm,
        interpolation="bilinear",
    )  # fmt: skip
    for at, style in [(level, "solid"), (level - margin, "dashed"), (level + margin, "dashed")][: 3 if margin else 1]:
        if values.min() < at - 1e-6 * reach and at + 1e-6 * reach < values.max():  # else there is only rounding noise
            ax.contour(x, y, values, [at], colors=BLACK, linestyles=style, linewidths=2 if style == "solid" else 1.2)
    scatter(points, labels, ax, classes=classes, ring=ring, size=size)
    ax.set(xlim=(left, right), ylim=(low, high), xlabel=xlabel, ylabel=ylabel, title=title)
    if bar:
        ax.figure.colorbar(image, ax=ax, label=bar)
    return ax.figure


def _framed(column):
    """The ends of an axis that leaves some room around all numbers of a column."""
    room = 0.12 * (np.ptp(column) or 1)
    return column.min() - room, column.max() + room


def _values(predict, grid):
    """What ``predict`` says of each point of a grid (rows, columns, 2)."""
    flat = grid.reshape(-1, 2).astype(np.float32)
    values = np.asarray(predict(flat), float)
    if values.size != len(flat):
        raise ShapeError(
            f"predict was given {len(flat)} points and returned an array of shape {values.shape}; "
            "expected one number for each point"
        )
    return values.reshape(grid.shape[:2])


def scatter(points, labels, ax=None, *, classes=None, ring=None, size: float = 28):
    """Points (n, 2) with a colour and a marker for each label; with ``classes``, a legend. ``ring``: as in boundary."""
    points, labels = np.asarray(points, float), np.asarray(labels).ravel()
    if points.shape != (len(labels), 2):
        raise ShapeError(f"{len(labels)} labels need points of shape ({len(labels)}, 2), got {points.shape}")
    ax = ax or plt.subplots(figsize=(WIDTH * 0.62, 4))[1]
    for k, label in enumerate(np.unique(labels)):
        of_class = points[labels == label].T
        name = None if classes is None else str(classes[k])
        style = {"color": COLORS[k], "marker": MARKERS[k], "s": size, "label": name}
        ax.scatter(*of_class, edgecolors="white", linewidths=0.6, zorder=3, **style)
    if ring is not None:
        ringed = points[np.asarray(ring, bool)].T
        ax.scatter(*ringed, s=4 * size, facecolors="none", edgecolors=BLACK, linewidths=1.2, zorder=4)
    if classes is not None:
        ax.legend(loc="best", frameon=True, framealpha=0.85)
    return ax.figure


def line(ax, weights, bias: float, **style):
    """The line where ``weights @ x + bias`` is 0, right across the axes. Raises ShapeError for no 2 weights."""
    weights = np.asarray(weights, float)
    if weights.shape != (2,) or not weights.any():
        raise ShapeError(f"a line in the plane needs two weights, not both 0; got {weights}")
    foot = -bias * weights / (weights @ weights)  # the point of the line that is nearest to the origin
    ax.axline(foot, foot + [-weights[1], weights[0]], **{"color": BLACK, "linewidth": 2, **style})
    return ax.figure


def outcomes(matrix, classes, names=None, ax=None, title: str = ""):
    """A confusion matrix as a small table: row the truth, column the answer; ``names`` says what each count is.

    Right answers are light blue, mistakes light orange. ``names`` has the matrix' shape.
    """
    matrix = np.asarray(matrix)
    ax = ax or plt.subplots(figsize=(WIDTH * 0.5, 2.6))[1]
    ax.imshow(np.eye(len(matrix)), cmap=ListedColormap(["#FBE3B8", "#CFE6F5"]), aspect="auto")
    for (i, j), count in np.ndenumerate(matrix):
        ax.text(j, i - (0.12 if names is not None else 0), str(count), ha="center", va="center", size=15)
        if names is not None:
            ax.text(j, i + 0.25, names[i][j], ha="center", va="center", size=9)
    ticks = range(len(classes))
    ax.set(xticks=ticks, yticks=ticks, xticklabels=classes, yticklabels=classes, title=title)
    ax.set(xlabel="the model's answer", ylabel="the truth")
    ax.tick_params(length=0)
    return ax.figure


def coefficients(names, series: dict, xlabel: str, columns: int = 2):
    """One dot for each weight and each series in ``series`` (its name: the weights), the weights named at the left."""
    parts = np.array_split(np.arange(len(names)), columns)
    figure, axes = plt.subplots(1, columns, figsize=(WIDTH, 0.24 * len(parts[0]) + 0.9), sharex=True, squeeze=False)
    for ax, part in zip(axes[0], parts, strict=True):
        ax.axvline(0, color="0.6", linewidth=0.8)
        for k, (name, values) in enumerate(series.items()):
            style = {"markersize": 9 - 4 * k, "markerfacecolor": "none" if k == 0 else COLORS[k], "color": COLORS[k]}
            ax.plot(np.asarray(values)[part], range(len(part)), MARKERS[k], label=name, **style)
        ax.set(yticks=range(len(part)), yticklabels=[names[i] for i in part], xlabel=xlabel)
        ax.invert_yaxis()
        ax.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(series))
    return figure
