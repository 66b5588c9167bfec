"""Pictures of small networks of neurons: their wires, their activations, what flows back, what they learn.

Every function returns the figure. Purple lines are negative weights, orange ones positive, as in ``plots.SIGNED``.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator

from ..errors import ShapeError
from .boundary_plots import boundary, line, scatter
from .plots import BLACK, BLUE, RED, SIGNED, WIDTH, _bare

_RADIUS = 0.3


def diagram(weights, values, biases=None, names=None, ax=None, title: str = "", thickest=None):
    """A net of neurons: circles with their numbers in them, joined by lines as thick as the weights.

    ``weights``: for each layer an array (inputs, outputs); ``values``: for each column of circles, the inputs first,
    its numbers; ``biases``: for each layer the numbers written under its circles; ``names``: for each column of
    circles what stands above it; ``thickest``: the weight of the thickest line, by default the largest. Raises
    ShapeError where weights and values do not fit.
    """
    weights, values = [np.asarray(w, float) for w in weights], [np.ravel(v) for v in values]
    wanted = list(zip(map(len, values), map(len, values[1:])))
    if [w.shape for w in weights] != wanted:
        columns, got = [len(v) for v in values], [w.shape for w in weights]
        raise ShapeError(f"columns of {columns} circles need weights of shapes {wanted}, got {got}")
    ax = ax or plt.subplots(figsize=(WIDTH * 0.55, 3.2))[1]
    places = [
        [(2.2 * k, 1.1 * ((len(column) - 1) / 2 - i)) for i in range(len(column))] for k, column in enumerate(values)
    ]
    limit = thickest or max(np.abs(w).max() for w in weights) or 1.0
    for k, w in enumerate(weights):
        for (i, j), weight in np.ndenumerate(w):
            _wire(ax, places[k][i], places[k + 1][j], weight, limit, 0.3 + 0.16 * (j % 2))
    for k, column in enumerate(values):
        for i, value in enumerate(column):
            ax.add_patch(plt.Circle(places[k][i], _RADIUS, facecolor="white", edgecolor=BLACK, zorder=3))
            ax.text(*places[k][i], f"{value:.2f}", ha="center", va="center", size=9, zorder=4)
            if k and biases is not None:
                x, y = places[k][i]
                ax.text(x, y - 0.36, f"bias {np.ravel(biases[k - 1])[i]:.2f}", ha="center", va="top", size=8)
    top = max(y for column in places for _, y in column) + 0.5
    for k, name in enumerate(names or []):
        ax.text(2.2 * k, top, name, ha="center", va="bottom", size=9)
    ax.set(xlim=(-0.6, places[-1][0][0] + 0.6), ylim=(0.05 - top - 0.2, top + 0.35), aspect="equal", title=title)
    ax.axis("off")
    return ax.figure


def _wire(ax, start, end, weight, limit, at):
    """A line whose colour and thickness show a weight, its number beside it at this share of the way."""
    (x0, y0), (x1, y1) = start, end
    color = plt.get_cmap(SIGNED)(0.12 if weight < 0 else 0.85)
    ax.plot([x0, x1], [y0, y1], color=color, linewidth=0.5 + 5 * abs(weight) / limit, zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    ax.text(x0 + at * (x1 - x0), y0 + at * (y1 - y0), f"{weight:.2f}", ha="center", va="center", size=8, bbox=box)


def neuron(inputs, weights, activation, name: str = "F"):
    """A neuron's wires, and beside them its activation function with the point at which it works."""
    total = float(np.dot(inputs, weights))
    y = float(activation(total))
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), width_ratios=(1.1, 1))
    style = {"names": ["inputs x", "output y"], "title": f"weighted sum a = {total:.2f}", "thickest": 3.0}
    diagram([np.reshape(weights, (-1, 1))], [inputs, [y]], ax=left, **style)
    sums = np.linspace(-6, 6, 241)
    right.plot(sums, activation(sums), color=BLUE, label=name)
    right.plot([total, total, -6], [right.get_ylim()[0], y, y], ":", color="0.4", linewidth=1)
    right.plot(total, y, "o", color=RED, markersize=9, label=f"{name}({total:.2f}) = {y:.2f}")
    right.set(xlim=(-6, 6), xlabel="weighted sum a", ylabel="output y", title="the activation")
    right.grid(alpha=0.3)
    right.legend(loc="upper left")
    return figure


def activations(functions: dict, limit: float = 5):
    """Activation functions, and beside them their derivatives by central differences; ``functions``: name to F."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    a, step = np.linspace(-limit, limit, 400), 1e-5  # an even number of points leaves out the kink at 0
    for (name, function), style in zip(functions.items(), ("-", "--", "-.", ":", (0, (5, 1)))):
        left.plot(a, function(a), linestyle=style, linewidth=2, label=name)
        right.plot(a, (function(a + step) - function(a - step)) / (2 * step), linestyle=style, linewidth=2, label=name)
    left.set(xlabel="weighted sum a", ylabel="y = F(a)", title="activation", ylim=(-1.2, 2.2))
    right.set(xlabel="weighted sum a", ylabel="F'(a)", title="its derivative", ylim=(-0.1, 1.2))
    for ax in (left, right):
        ax.grid(alpha=0.3)
    left.legend(loc="upper left")
    return figure


def hidden_plane(predict, hidden, readout, points, labels, names=("input plane", "hidden plane")):
    """The same points twice: in the plane of the inputs with the net's boundary, and where two hidden neurons put them.

    ``predict(x)`` answers for points (n, 2), ``hidden(x)`` gives their two hidden numbers, ``readout`` is (weights,
    bias) of the last neuron, whose line is drawn.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.7))
    boundary(predict, points, labels, left, title=names[0], bar="output", limits=[(-1.6, 1.6)] * 2)
    grid = np.linspace(-1.6, 1.6, 33)
    for path in [np.stack([grid, np.full(33, at)], axis=1) for at in np.linspace(-1.6, 1.6, 9)]:
        for way in (path, path[:, ::-1]):  # the net of lines that the hidden neurons bend
            right.plot(*np.asarray(hidden(way.astype(np.float32)), float).T, color="0.8", linewidth=0.7, zorder=0)
    places, labels = np.asarray(hidden(np.asarray(points, np.float32)), float), np.ravel(labels)
    scatter(places, labels, right, size=70)
    line(right, *readout)
    for k, place in enumerate(places):
        met = [i for i, other in enumerate(places) if np.abs(other - place).max() < 0.15]
        if met[0] == k:  # points that meet share a text
            text = " ".join(f"({points[i][0]:g}, {points[i][1]:g})" for i in met)
            right.annotate(text, place, xytext=(0, 9), textcoords="offset points", ha="center", size=8)
            if under := [i for i in met if labels[i] < labels[met].max()]:  # hidden by a marker of the other kind
                scatter(places[under], labels[under], right, size=20)
    low, high = min(places.min(), -1) - 0.3, max(places.max(), 1) + 0.3
    right.set(xlim=(low, high), ylim=(low, high), xlabel="hidden neuron 1", ylabel="hidden neuron 2", title=names[1])
    return figure


def boundaries(predictors: dict, points, labels, columns: int = 6, limits=((-1.6, 1.6), (-1.6, 1.6))):
    """A strip of small boundaries, one for each named ``predict``, such as a net at several steps of its training."""
    rows = -(-len(predictors) // columns)
    side = WIDTH / columns
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * (side + 0.3)), squeeze=False)
    for ax in axes.flat[len(predictors) :]:
        ax.axis("off")
    for ax, (name, predict) in zip(axes.flat, predictors.items()):
        boundary(predict, points, labels, ax, limits=limits, steps=60, xlabel="", ylabel="", title=name)
        ax.set(xticks=[], yticks=[], aspect="equal")
    return figure


def training_moment(predict, points, labels, losses, step: int, limits=((-1.6, 1.6), (-1.6, 1.6))):
    """A boundary at one step of the training, and beside it the learning curve with this step marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.5))
    boundary(predict, points, labels, left, limits=limits, title=f"after {step} steps", bar="output", steps=80)
    right.plot(losses, color=BLUE, label="loss")
    right.plot(step, losses[step], "o", color=RED, markersize=9, label=f"step {step}: {losses[step]:.3f}")
    right.set(xlabel="step", ylabel="loss", ylim=(0, None), title="learning curve")
    right.grid(alpha=0.3)
    right.legend()
    return figure


def norms_per_layer(norms: dict, ylabel: str = "gradient norm"):
    """For each named net one line, on a logarithmic scale: a number for each of its layers, 1 beside the input."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.3))
    for (name, values), marker in zip(norms.items(), "os^Dv*P"):
        ax.plot(range(1, len(values) + 1), values, marker=marker, markersize=5, label=name)
    ax.set(yscale="log", xlabel="layer (1: beside the input)", ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.yaxis.set_major_locator(LogLocator(numticks=10))
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def outputs_of_seeds(outputs, labels, tolerance: float = 0.05, title: str = ""):
    """Each net's outputs, a column a net, as coloured squares; a cross marks a net that is not within ``tolerance``.

    ``outputs`` (nets, examples), ``labels`` (examples,) of 0 and 1.
    """
    outputs, labels = np.asarray(outputs, float), np.ravel(labels)
    wrong = np.abs(outputs - labels).max(axis=1) >= tolerance
    figure, ax = plt.subplots(figsize=(WIDTH, 0.34 * outputs.shape[1] + 0.95))
    image = _bare(ax, title).imshow(outputs.T, cmap=SIGNED, norm=Normalize(0, 1), aspect="auto")
    for (j, i), value in np.ndenumerate(outputs):
        dark = abs(value - 0.5) > 0.35
        ax.text(
            j,
            i,
            f"{value:.2f}".lstrip("0") if value < 0.995 else "1.0",
            ha="center",
            va="center",
            size=7,
            color="white" if dark else "black",
        )
    ticks = [f"{i}\n{'✗' if w else '✓'}" for i, w in enumerate(wrong)]
    ax.set(xticks=range(len(outputs)), xticklabels=ticks, xlabel="seed (✓: all outputs right)")
    ax.set(yticks=range(len(labels)), yticklabels=[f"target {label:g}" for label in labels])
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, label="output", pad=0.01)
    return figure


def learning_curves(curves: dict, ylabel: str = "loss", xlabel: str = "step", log: str = ""):
    """A line for each named series; ``log`` names the axes ("x", "y" or "xy") with a logarithmic scale."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
    for (name, values), style in zip(curves.items(), ("-", "--", "-.", ":", (0, (5, 1)))):
        values = np.asarray(values, float)
        ax.plot(np.arange(1, len(values) + 1), values, linestyle=style, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")
    ax.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(curves))
    return figure


def classes_known(tables: dict, seen, classes, xlabel: str = "class"):
    """For each named run a map of what the model knew and when: a row for each moment, a column for each class.

    A table holds the shares (moments, classes) answered rightly, from 0 to 1; ``seen``: the training examples before
    each moment.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.6), sharey=True, squeeze=False)
    edges = [0, *seen]
    for ax, (name, shares) in zip(axes[0], tables.items()):
        image = ax.pcolormesh(np.arange(len(classes) + 1) - 0.5, edges, shares, cmap="cividis", vmin=0, vmax=1)
        ax.set(xticks=range(len(classes)), xticklabels=classes, xlabel=xlabel, title=name)
    axes[0, 0].set_ylabel("training examples seen")
    axes[0, 0].invert_yaxis()
    figure.colorbar(image, ax=axes, label="share answered rightly", pad=0.01)
    return figure
