"""Pictures of the first notebook: spam filters, lines and curves through points, paths downhill, sizes of brains.

Every function draws one figure and returns it.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, WIDTH


def growing_list(caught_read, caught_new, hit_new):
    """What a list of 1, 2, 3 ... keywords does: the share of spam it catches, and the good messages it hits.

    ``caught_read`` and ``caught_new`` are shares of the spam that the list was written after and of new spam,
    ``hit_new`` counts new good messages; one number for each length of the list.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.1), width_ratios=(1.6, 1))
    count = np.arange(1, len(caught_read) + 1)
    left.plot(count, 100 * np.asarray(caught_read), color=BLUE, label="spam that he has read")
    left.plot(count, 100 * np.asarray(caught_new), color=ORANGE, linestyle="--", label="new spam")
    left.set(ylim=(0, 103), xlabel="keywords on the list", ylabel="spam caught (%)")
    left.legend(loc="lower right")
    right.plot(count, hit_new, color=RED)
    right.set(xlabel="keywords on the list", ylabel="new good messages hit")
    right.set_ylim(0, max(1.05 * np.max(hit_new), 1))
    for ax in (left, right):
        ax.grid(alpha=0.3)
    return figure


def telling_words(words, ratios, xlabel: str = "times as frequent in spam as in ham"):
    """A bar for each word, from 1 to its ratio on a logarithmic axis: spam to the right, ham to the left."""
    ratios = np.asarray(ratios, float)
    figure, ax = plt.subplots(figsize=(WIDTH * 0.8, 0.24 * len(words) + 0.8))
    bars = ax.barh(range(len(words)), np.log10(ratios), color=np.where(ratios > 1, ORANGE, BLUE))
    ax.bar_label(bars, [f"{r:,.3g}" if r >= 1 else f"1 / {1 / r:,.3g}" for r in ratios], padding=3, size=9)
    ax.set(yticks=range(len(words)), yticklabels=words, xlabel=xlabel)
    reach = 1.25 * np.abs(np.log10(ratios)).max(initial=0.8)  # so that there is a mark beside 1
    low = -reach if (ratios < 1).any() else 0
    high = reach if (ratios > 1).any() or not low else 0
    powers = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    ax.set(xlim=(low, high), xticks=powers, xticklabels=[f"{10**p:,}" if p >= 0 else f"1/{10**-p:,}" for p in powers])
    ax.axvline(0, color=BLACK, linewidth=0.8)
    ax.set_ylim(len(words) - 0.4, -0.6)
    return figure


def line_and_errors(x, y, A: float, B: float):
    """Points, the line A x + B and, dashed, the error at each point."""
    figure, ax = plt.subplots(figsize=(WIDTH * 0.75, 3.2))
    ends = np.array([0.9 * np.min(x), 1.05 * np.max(x)])
    ax.plot(ends, A * ends + B, color=BLUE, label=f"the line: {A:.4f} x {B:+.2f}")
    ax.vlines(x, y, A * x + B, color=RED, linestyle="--", label="errors")
    for size, price, error in zip(x, y, A * x + B - y):
        side, align = (1, "left") if error > 0 else (-1, "right")  # away from the rising line
        style = {"textcoords": "offset points", "ha": align, "va": "center"}
        ax.annotate(f"{error:+.0f}", (size, price), xytext=(9 * side, 0), **style)
    ax.plot(x, y, "o", color=BLACK, markersize=7, label="houses")
    ax.set(xlabel="size (square feet)", ylabel="price (1,000 dollars)")
    ax.legend()
    return figure


def descents(paths: dict, x, y, best, reach: float = 420):
    """Ways downhill on the mean squared error of w[0] x + w[1] to its minimum ``best``, and the error at each step.

    ``paths`` names arrays (steps + 1, 2) of w; each has axes of its own, which show ``best`` and ``reach`` around it.
    """

    def cost(w0, w1):
        return np.mean([(w0 * a + w1 - b) ** 2 for a, b in zip(x, y)], axis=0)

    count = len(paths)
    figure, axes = plt.subplots(1, count + 1, figsize=(WIDTH, 3.3), width_ratios=[1] * count + [0.9 + 0.1 * count])
    w0, w1 = (np.linspace(b - reach, b + reach, 160) for b in best)
    grid = cost(w0[None, :], w1[:, None])
    levels = np.geomspace(grid.min(), grid.max(), 14)
    for ax, (name, path), color in zip(axes, paths.items(), (BLUE, GREEN, RED, PURPLE)):
        ax.contour(w0, w1, grid, levels, cmap="Greys", norm=LogNorm(levels[0] / 30, levels[-1]), linewidths=0.8)
        inside = np.flatnonzero((np.abs(path - best) <= reach).all(axis=1))  # what diverges is drawn as far as the edge
        ax.plot(*path[: inside.max(initial=0) + 2].T, "o-", color=color, markersize=2.5, linewidth=0.8)
        ax.plot(*best, "*", color=ORANGE, markersize=13, markeredgecolor=BLACK, zorder=4)
        ax.set(xlim=w0[[0, -1]], ylim=w1[[0, -1]], xlabel="slope $w_0$", ylabel="height $w_1$", title=name)
        axes[-1].plot(np.minimum(cost(*path.T), 1e9), color=color, label=name)
    for ax in axes[1:count]:
        ax.set(ylabel="", yticklabels=[])
    axes[-1].set(yscale="log", ylim=(0.5 * cost(*best), 1e7), xlabel="step", ylabel="mean squared error")
    axes[-1].axhline(cost(*best), color=ORANGE, linestyle="--", label="the minimum")
    axes[-1].legend(fontsize=8)
    return figure


def fits(x, y, curves: dict, truth, weights: dict | None = None):
    """Points (x, y), the curve they come from (dashed) and a fitted one, in axes for each name in ``curves``.

    ``truth`` and the values of ``curves`` are functions of an array; ``weights`` gives the numbers of each fit, drawn
    as bars below it.
    """
    rows, height = (2, 4.4) if weights else (1, 2.7)
    figure, axes = plt.subplots(rows, len(curves), figsize=(WIDTH, height), squeeze=False)
    fine = np.linspace(-1, 1, 400)
    for column, (name, curve) in enumerate(curves.items()):
        ax = axes[0, column]
        ax.plot(fine, truth(fine), color="0.55", linestyle="--", label="where they come from")
        ax.plot(fine, np.clip(curve(fine), -9, 9), color=BLUE, label="the fit")
        ax.plot(x, y, "o", color=ORANGE, markeredgecolor=BLACK, markersize=5, label="training points")
        ax.set(ylim=(-2.3, 2.3), xlabel="x", title=name)
        ax.tick_params(labelleft=column == 0)
        if weights:
            axes[1, column].bar(range(len(weights[name])), weights[name], color=BLUE)
            axes[1, column].axhline(0, color=BLACK, linewidth=0.8)
            axes[1, column].set(xlabel="number of the weight")
            axes[1, column].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel("y")
    if weights:
        axes[1, 0].set_ylabel("weight")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def brains_and_nets(brains: dict, nets: dict):
    """Neurons against connections on logarithmic axes; both dicts give (neurons, connections) by name.

    Dotted lines join equal numbers of connections for each neuron.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4))
    ends = np.array([2e3, 3e11])
    for each in (10, 100, 1_000, 10_000):
        ax.plot(ends, each * ends, color="0.7", linestyle=":", linewidth=1)
        ax.text(
            3 * ends[0],
            3 * each * ends[0],
            f"{each:,} each",
            color="0.4",
            size=8,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    for group, (label, color, marker) in zip(
        (brains, nets), [("brains: neurons and synapses", ORANGE, "o"), ("nets: neurons and parameters", BLUE, "s")]
    ):
        ax.plot(*np.transpose(list(group.values())), marker, color=color, markersize=9, label=label)
        for name, place in group.items():
            ax.annotate(name, place, xytext=(9, -4), textcoords="offset points")
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=(1e4, 1e16))
    ax.set(xlabel="neurons", ylabel="synapses or parameters")
    ax.legend(loc="upper left", bbox_to_anchor=(0.12, 1))
    return figure
