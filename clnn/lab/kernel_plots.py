"""The pictures of the notebook on kernels. Every function draws one figure and returns it; ``plt.show()`` shows it."""

import difflib
import itertools

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import LogLocator

from . import ladder
from .ladder import STEPS, Step, Timed
from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, WIDTH, YELLOW

COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW)
MOST_LINES = 60  # of a difference that is shown
COVERED = 0.4  # two points of the ladder whose GFLOP/s differ by less than e to this lie over each other
LINE = 16  # floats in one cache line of 64 bytes


def label(device) -> str:
    """A short name for a device: a GPU's own, of a CPU that of the OpenCL implementation that drives it."""
    return ladder.label(device.name, device.platform, device.kind)


def _empty(figsize, **kwargs):
    figure, axes = plt.subplots(figsize=figsize, **kwargs)
    for ax in np.atleast_1d(axes).flat:
        ax.axis("off")
    return figure, axes


def _square(ax, x, y, color, text="", width=0.9, height=0.9, **style):
    """A square cell whose lower left corner is (x, y), with a word in it."""
    look = {"facecolor": color, "edgecolor": "0.4", "linewidth": 0.6} | style
    ax.add_patch(Rectangle((x, y), width, height, **look))
    if text:
        dark = color in (BLUE, GREEN, RED, BLACK)
        ax.text(
            x + width / 2, y + height / 2, text, ha="center", va="center", size=8, color="white" if dark else "black"
        )


def work_items(n: int, group: int):
    """Work-items in their groups above the elements of an array of n: those past its end have nothing to do."""
    count = -(-n // group) * group
    figure, ax = _empty((WIDTH, 1.9))
    for i in range(count):
        color = COLORS[i // group % len(COLORS)]
        _square(ax, i, 1.5, color if i < n else "0.9", str(i), hatch=None if i < n else "///")
        if i < n:
            _square(ax, i, 0, "white", str(i))
            ax.annotate(
                "", (i + 0.45, 0.92), (i + 0.45, 1.48), arrowprops={"arrowstyle": "->", "color": color, "lw": 1.2}
            )
        if i % group == 0:
            ax.text(
                i + group / 2 - 0.05, 2.6, f"work-group {i // group}", ha="center", size=9,
                color=color if color != YELLOW else BLACK,
            )  # fmt: skip
    ax.text(-0.3, 1.95, "work-item", ha="right", va="center", size=9)
    ax.text(-0.3, 0.45, "element", ha="right", va="center", size=9)
    if count > n:
        ax.text((n + count) / 2 - 0.05, 0.45, "no element:\nthe guard", ha="center", va="center", size=9)
    ax.set(xlim=(-4, count + 0.2), ylim=(-0.2, 3.1))
    return figure


def memory_lines(strides, neighbours: int = 16, shown: int = 6):
    """Which elements ``neighbours`` work-items read at once for each stride, and which cache lines that fetches."""
    figure, ax = _empty((WIDTH, 0.62 * len(strides) + 0.7))
    for row, stride in enumerate(strides):
        y = -1.9 * row
        touched = np.arange(neighbours) * stride
        lines = len(np.unique(touched // LINE))
        for i in range(shown * LINE):
            fetched = i // LINE in touched // LINE
            color = BLUE if i in touched else "#CFE6F5" if fetched else "white"
            _square(ax, i, y, color, width=1, height=1, linewidth=0.3)
        for line in range(shown):
            ax.add_patch(Rectangle((line * LINE, y), LINE, 1, fill=False, edgecolor=BLACK, linewidth=1.3))
        ax.text(-1, y + 0.5, f"stride {stride}", ha="right", va="center", size=9)
        used = neighbours / (lines * LINE)
        more = " ..." if lines > shown else ""
        words = f"{more} {lines} line{'s' * (lines > 1)}, {used:.0%} used"
        ax.text(shown * LINE + 1, y + 0.5, words, va="center", size=9)
    legend = (
        f"one row: {shown} lines of {LINE} floats; dark: read by one of {neighbours} neighbours; pale: fetched with it"
    )
    ax.text(0, 1.5, legend, size=9, va="bottom")
    ax.set(xlim=(-9, shown * LINE + 20), ylim=(-1.9 * len(strides) + 0.8, 2.6))
    return figure


def stride_curves(strides, gbps: dict):
    """GB/s of useful numbers over the stride, one line a device, and what whole cache lines leave of the first."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
    for (name, rates), marker in zip(gbps.items(), "os^Dv"):
        (drawn,) = ax.plot(strides, rates, marker=marker, label=name)
        left = [rates[0] * 2 / (min(s, LINE) + 1) for s in strides]  # of 2 numbers moved, one read and one written
        ax.plot(strides, left, ":", color=drawn.get_color())
    ax.plot([], [], ":", color="0.3", label="if a read costs its share of a cache line")
    ax.set(xscale="log", yscale="log", xlabel="stride (floats)", ylabel="useful GB/s")
    ax.set_xticks(strides, [str(s) for s in strides])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def reduction_tree(values):
    """The sum of a work-group in local memory: in each round the first half adds the second, then a barrier."""
    rows, n = [np.asarray(values)], len(values)
    while n > 1:
        n //= 2
        following = rows[-1].copy()
        following[:n] += rows[-1][n : 2 * n]
        rows.append(following)
    figure, ax = _empty((WIDTH, 0.85 * len(rows) + 0.2))
    wide = len(values)
    for r, row in enumerate(rows):
        y, live = -1.9 * r, wide >> r
        for i, value in enumerate(row):
            color = ("#CFE6F5" if r else "white") if i < live else "0.93"
            _square(ax, i, y, color, f"{value:g}", width=0.92, height=0.8)
        ax.text(-0.3, y + 0.4, "local memory" if r == 0 else f"after round {r}", ha="right", va="center", size=9)
        if r:
            for i in range(live):
                for source, color in ((i, BLUE), (i + live, ORANGE)):
                    ends = (source + 0.46, y + 1.88), (i + 0.46, y + 0.84)
                    ax.add_patch(FancyArrowPatch(*ends, arrowstyle="->", mutation_scale=8, color=color, lw=1))
            ax.plot([-0.1, wide + 0.1], [y + 1.36] * 2, "--", color="0.5", lw=0.8)
            ax.text(wide + 0.2, y + 1.36, "barrier", va="center", size=9, color="0.3")
    ax.set(xlim=(-2.6, wide + 1.6), ylim=(-1.9 * len(rows) + 1.6, 1.1))
    return figure


# What a group and one work-item of it compute of a small C: (step, the group's first row and column, its rows and
# columns, the work-item's rows, the columns of each). Groups have 4 x 4 members, those of a line have 12 or 16.
_REACH = (
    ("1 rows", (0, 5), (12, 1), (0,), 1),
    ("2 columns", (4, 0), (1, 16), (4,), 1),
    ("3 tiles", (4, 4), (4, 4), (4,), 1),
    ("4 registers", (0, 4), (12, 4), (0, 4, 8), 1),
    ("5 vectors", (4, 4), (3, 4), (4, 5, 6), 4),
)


def ladder_tiles():
    """For steps 1 to 5: the part of C that a work-item computes (dark) and its group (pale), with what they read."""
    rows, columns, deep, gap = 12, 16, 8, 1
    figure, axes = _empty((WIDTH, 2.35), ncols=len(_REACH))
    pale, dark = ("#CFE6F5", "#FBE3B5"), (BLUE, ORANGE)
    for ax, (name, (top, left), (high, wide), item, each) in zip(axes, _REACH, strict=True):
        x, y = deep + gap, rows + gap  # the left edge of C and B, the lower edge of B
        parts = [(0, 0, deep, rows, "white"), (x, 0, columns, rows, "white"), (x, y, columns, deep, "white")]
        parts += [(x + left, rows - top - high, wide, high, pale[0]), (0, rows - top - high, deep, high, pale[1])]
        parts += [(x + left, y, wide, deep, pale[1]), (x + left, y, each, deep, dark[1])]
        for row in item:
            parts += [(x + left, rows - row - 1, each, 1, dark[0]), (0, rows - row - 1, deep, 1, dark[1])]
        for px, py, w, h, color in parts:
            ax.add_patch(Rectangle((px, py), w, h, facecolor=color, lw=0))
        for letter, (px, py, w, h, _) in zip("ACB", parts):
            ax.add_patch(Rectangle((px, py), w, h, fill=False, edgecolor="0.4", lw=0.8))
            ax.text(px + w - 1, py + 0.6, letter, ha="right", size=9, color="0.4")
        ax.set_title(name)
        ax.set(xlim=(-0.5, x + columns + 0.5), ylim=(-0.5, y + deep + 0.5), aspect="equal")
    words = "blue: computed, orange: read; dark: by one work-item, pale: by its group"
    figure.text(0.5, 0.01, words, ha="center", va="bottom", size=9)
    return figure


def ladder_bars(climbs: dict, ceilings: dict):
    """GFLOP/s of each step, one series a device (its list of Timed), and each device's ceiling of arithmetic."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.8))
    width = 0.8 / len(climbs)
    for k, ((name, steps), color) in enumerate(zip(climbs.items(), COLORS)):
        x = np.arange(len(steps)) + (k - (len(climbs) - 1) / 2) * width
        drawn = ax.bar(x, [s.gflops for s in steps], width, label=name, color=color)
        words = ax.bar_label(drawn, [f"{s.gflops:.3g}" for s in steps], padding=2, size=8)
        plt.setp(words, bbox={"facecolor": "white", "lw": 0, "pad": 0.5})  # over the line of a ceiling
        ax.axhline(ceilings[name], color=color, ls="--", lw=1)
    ax.plot([], [], "--", color="0.3", lw=1, label="the device's ceiling")
    names = [f"{s.number}\n{s.name}" for s in next(iter(climbs.values()))]
    ax.set(xticks=range(len(names)), xticklabels=names, yscale="log", ylabel="GFLOP/s")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylim(top=3 * max(ceilings.values()))
    figure.legend(loc="outside upper center", ncols=len(climbs) + 1)
    return figure


def _roof(ax, ceilings, low: float, high: float, lowest: float):
    """The ceilings of a device over the operations a byte, from ``low`` to ``high``, with room for what has ``lowest``
    GFLOP/s above the legend."""
    most = ceilings.gflops
    for name, rate, style in (("memory", ceilings.gbps, "-"), ("caches", ceilings.cache_gbps, "--")):
        x = np.array([low, max(most / rate, low)])
        ax.plot(x, rate * x, style, color="0.4", lw=1.2, label=f"{name}: {rate:,.0f} GB/s")
    ax.plot([most / ceilings.cache_gbps, high], [most] * 2, color="0.2", lw=2, label=f"arithmetic: {most:,.0f} GFLOP/s")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(lowest / 15, 2.5 * most), ylabel="GFLOP/s")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=8)


def roofline(names, intensities, rates, ceilings):
    """Named kernels by their operations a byte (FLOP/byte) and GFLOP/s, under a device's ceilings."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.8))
    _roof(ax, ceilings, min(intensities) / 2, 4 * max(intensities), min(rates))
    for i, (name, x, y, color) in enumerate(zip(names, intensities, rates, COLORS)):
        ax.plot(x, y, "o", color=color, markersize=9, zorder=3)
        away = (0, 14 if i % 2 else -14)  # neighbours' names in turn below and above, lest they touch
        ax.annotate(name, (x, y), away, textcoords="offset points", ha="center", va="center", size=9)
    ax.set_xlabel("operations a byte moved (FLOP/byte)")
    return figure


def _steps_on_roof(ax, steps: list[Timed], ceilings, chosen: int | None = None):
    """Steps over the bytes that their work-items ask for, under the ceilings; the chosen one in full colour."""
    low, high = min(s.intensity for s in steps) / 2, 3 * max(s.intensity for s in steps)
    ax.plot([s.intensity for s in steps], [s.gflops for s in steps], "-", color="0.8", lw=1, zorder=1)
    pairs = [(a, b) for a, b in itertools.pairwise(steps) if a.intensity == b.intensity]
    under = {b.number: a.number for a, b in pairs if abs(np.log(a.gflops / b.gflops)) < COVERED}
    for s in steps:
        color = ORANGE if chosen == s.number else BLUE if chosen is None else "#A6CFE8"
        ax.plot(s.intensity, s.gflops, "o", color=color, markersize=14, zorder=4 if chosen == s.number else 3)
        below = under.get(s.number)
        if s.number != chosen and (s.number in under.values() or (below and below == chosen)):
            continue  # the other one of the two bears the name
        name = f"{below},{s.number}" if below and chosen != s.number else str(s.number)
        style = {"size": 8, "color": "white" if color == BLUE else "black"}
        ax.annotate(name, (s.intensity, s.gflops), ha="center", va="center_baseline", zorder=5, **style)
    _roof(ax, ceilings, low, high, min(s.gflops for s in steps))
    ax.set_xlabel("operations a byte asked for (FLOP/byte)")


def ladder_roofline(climbs: dict, ceilings: dict):
    """The steps on the roofline of each device: name -> list of Timed, name -> Ceilings."""
    figure, axes = plt.subplots(1, len(climbs), figsize=(WIDTH, 4), squeeze=False, sharey=True)
    for ax, (name, steps) in zip(axes.flat, climbs.items(), strict=True):
        _steps_on_roof(ax, steps, ceilings[name])
        ax.set_title(name)
        ax.label_outer()
    return figure


def difference(step: Step) -> list[tuple[str, str]]:
    """A step's code, its new lines marked "+": (mark, line) each. Where most of the step before is still there, what is
    no more comes with it, marked "-". Of the first step and the package's no line is marked."""
    new = _code(step.source)
    if step.number in (1, len(STEPS)):
        return [(" ", line) for line in new]
    old = _code(STEPS[step.number - 2].source)
    lines = [(line[0], line[2:]) for line in difflib.ndiff(old, new) if line[0] != "?"]
    rewritten = sum(mark == " " for mark, _ in lines) < len(old) / 2
    return [(mark, line) for mark, line in lines if not (rewritten and mark == "-")]


def _code(source: str) -> list[str]:
    lines = source.splitlines()
    start = next(i for i, line in enumerate(lines) if not line.startswith("//") and line.strip())
    return lines[start:]


def ladder_step(number: int, steps: list[Timed], ceilings):
    """One step of a climb: how its source differs from the step before, its traffic, and its place on the roofline."""
    step, lines = STEPS[number - 1], difference(STEPS[number - 1])
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], (" ", f"... {len(lines) - MOST_LINES} more lines")]
    height = 0.155 * len(lines) + 0.4
    figure = plt.figure(figsize=(WIDTH, height + 3.3))
    text, below = figure.subfigures(2, 1, height_ratios=(height, 3.3))
    _source(text.add_subplot(), lines)
    text.suptitle(f"step {step}: {step.change}", size=10)
    left, right = below.subplots(1, 2, width_ratios=(1, 1.4))
    bars = left.barh(
        [f"{s.number} {s.name}" for s in steps], [s.nbytes / 1e6 for s in steps],
        color=[ORANGE if s.number == number else "#A6CFE8" for s in steps],
    )  # fmt: skip
    left.bar_label(bars, [f"{s.nbytes / 1e6:,.0f}" for s in steps], padding=2, size=8)
    left.set(xlabel="memory asked for (MB)", xscale="log", xlim=(0.5 * min(s.nbytes for s in steps) / 1e6, None))
    left.margins(x=0.25)
    left.invert_yaxis()
    left.xaxis.set_major_formatter("{x:g}")
    _steps_on_roof(right, steps, ceilings, number)
    right.set_title(f"{steps[number - 1].gflops:.3g} GFLOP/s", size=10)
    return figure


def _source(ax, lines: list[tuple[str, str]]) -> None:
    """Lines of code, new ones on blue, former ones on orange."""
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(len(lines), 0))
    for y, (mark, line) in enumerate(lines):
        color = {"+": "#CFE6F5", "-": "#FBE3B5"}.get(mark)
        if color:
            ax.add_patch(Rectangle((0, y), 1, 1, facecolor=color, lw=0))
        code = f"{mark} {line}".expandtabs(4).replace("$", r"\$")
        words = ax.text(0.005, y + 0.5, code, va="center", size=7.8, family="monospace")
        words.set_in_layout(False)  # a long line would make the picture narrower


def side_by_side(names, panels: dict, fmt: str = "{:,.3g}"):
    """One bar for each name, once for each panel: its label -> values."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 0.42 * len(names) + 0.9), sharey=True, squeeze=False)
    for ax, (label, values), color in zip(axes.flat, panels.items(), COLORS):
        drawn = ax.barh(names, values, color=color)
        ax.bar_label(drawn, [fmt.format(v) for v in values], padding=3, size=9)
        ax.set(xlabel=label, xlim=(0, 1.25 * max(values)))
    axes[0, 0].invert_yaxis()
    return figure


def lost_update():
    """Two work-items add 1 to the same counter at once: both read the old value, and one addition is lost."""
    figure, ax = _empty((WIDTH, 2.1))
    events = (
        ("reads 5", 0, 5),
        ("reads 5", 1, 5),
        ("adds: 6", 0, 5),
        ("adds: 6", 1, 5),
        ("writes 6", 0, 6),
        ("writes 6", 1, 6),
    )
    for x, (words, who, counter) in enumerate(events):
        _square(ax, 1.6 * x, 1.1 * (1 - who), (BLUE, ORANGE)[who], words, width=1.5, height=0.8)
        color = "#FBE3B5" if counter == 6 else "white"
        _square(ax, 1.6 * x, -1.1, color, f"{counter}", width=1.5, height=0.5)
    for y, words in ((1.5, "work-item 0"), (0.4, "work-item 1"), (-0.85, "counter in memory")):
        ax.text(-0.2, y, words, ha="right", va="center", size=9)
    ax.annotate("", (9.55, -1.4), (0, -1.4), arrowprops={"arrowstyle": "->", "color": "0.4"})
    ax.text(9.6, -1.4, "time", va="center", size=9)
    ax.set(xlim=(-2.3, 10.2), ylim=(-1.6, 2.1))
    return figure


def unfolding(size: int = 4, window: int = 2):
    """im2col for one small picture: each window becomes a column, so that a product with the filters computes all."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8), width_ratios=(1, 2.2))
    picture = np.arange(size * size).reshape(size, size)
    count = size - window + 1
    places = [(i, j) for i in range(count) for j in range(count)]
    columns = np.stack([picture[i : i + window, j : j + window].ravel() for i, j in places], 1)
    for ax, table, title in (
        (left, picture, f"a picture of {size} x {size} pixels"),
        (right, columns, f"unfolded: {window * window} rows x {len(places)} windows"),
    ):
        ax.axis("off")
        ax.set_title(title)
        high, wide = table.shape
        for (i, j), value in np.ndenumerate(table):
            chosen = (i < window and j < window) if ax is left else j == 0
            second = (i < window and 1 <= j <= window) if ax is left else j == 1
            color = "#CFE6F5" if chosen else "#FBE3B5" if second else "white"
            if chosen and second:
                color = "#D9E8C8"
            _square(ax, j, high - 1 - i, color, str(value), width=1, height=1)
        ax.set(xlim=(-0.1, wide + 0.1), ylim=(-0.1, high + 0.1), aspect="equal")
    figure.supxlabel("blue: the first window; orange: the second; green: pixels of both", size=9)
    return figure
