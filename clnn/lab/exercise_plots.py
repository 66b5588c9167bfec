"""Pictures of notebook 05's exercises: which work-item touches what.

``draw("transpose")`` draws the picture of one exercise; ``picture("transpose")`` gives what is in it. ``Picture`` draws
such pictures of other kernels, too: arrays as cells, coloured where a work-item reads or writes. All are drawn with
work-groups much smaller than the checks', so that a few of them fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from ..errors import ClnnError
from .plots import BLUE, ORANGE, WIDTH

GROUP = "#D5E8F3"  # what a whole work-group touches
CELL = 0.3  # inches
COLORS = (BLUE, ORANGE)
BARRIER = "– – –  barrier  – – –"

_pictures: dict[str, Callable] = {}


@dataclass(frozen=True)
class Grid:
    """An array, or the work-items themselves, as cells in rows and columns.

    ``at`` is the place of its first cell in the picture, in cells (row, column). ``group``: the rows and columns of a
    work-group, which get a frame. ``reach``: rows and columns with the places past the ends that work-items come to.
    ``text``: what stands in the cells, their index where nothing is given and the grid has one row or column.
    """

    name: str
    shape: tuple[int, int]
    at: tuple[float, float]
    group: tuple[int, int] | None = None
    reach: tuple[int, int] | None = None
    text: object = None

    @property
    def full(self) -> tuple[int, int]:
        """Rows and columns with the places past the ends."""
        return self.reach or self.shape

    @property
    def texts(self) -> np.ndarray:
        """What stands in each cell."""
        if self.text is not None:
            return np.reshape([f"{v:g}" if np.isreal(v) else v for v in np.ravel(self.text)], self.shape)
        if 1 not in self.shape:
            return np.full(self.shape, "")
        return np.arange(np.prod(self.shape)).astype(str).reshape(self.shape)

    def centre(self, cell) -> tuple[float, float]:
        """The middle of a cell in the picture: (x, y)."""
        return self.at[1] + cell[1] + 0.5, self.at[0] + cell[0] + 0.5

    @property
    def corner(self) -> tuple[float, float]:
        """Row and column of the picture in which the grid with its name begins."""
        if self.shape[0] == 1:
            return self.at[0], self.at[1] - 0.6 - 0.24 * len(self.name)
        return self.at[0] - 1.5, self.at[1] - 1.2

    def holds(self, cell) -> bool:
        """Whether a cell lies within the array, not past its end."""
        return cell[0] < self.shape[0] and cell[1] < self.shape[1]


@dataclass(frozen=True)
class Touch:
    """What one work-item, or a group, touches: the cells (row, column) of each grid by its name, in one colour."""

    label: str
    color: str
    cells: dict


@dataclass(frozen=True)
class Arrow:
    """A number's way from a cell to another: (grid's name, (row, column)) twice."""

    begin: tuple
    end: tuple
    color: str = "0.45"


@dataclass(frozen=True)
class Picture:
    """Grids, what touches their cells, and arrows between them; ``notes`` maps a place (row, column) to words."""

    grids: list[Grid]
    touches: list[Touch]
    arrows: list[Arrow]
    notes: dict
    cell: float = CELL

    def __getitem__(self, name: str) -> Grid:
        """The grid of this name."""
        return next(grid for grid in self.grids if grid.name == name)

    def draw(self):
        """The matplotlib figure."""
        top = min([grid.corner[0] for grid in self.grids] + [row - 0.5 for row, _ in self.notes]) - 1.4
        left = min(grid.corner[1] for grid in self.grids)
        bottom = max(grid.at[0] + grid.full[0] for grid in self.grids) + 0.4
        figure = plt.figure(figsize=(WIDTH, (bottom - top) * self.cell), layout="none")
        ax = figure.add_axes((0, 0, 1, 1), xlim=(left, left + WIDTH / self.cell), ylim=(bottom, top))
        ax.axis("off")
        for grid in self.grids:
            _draw_grid(ax, grid, [(t.color, t.cells.get(grid.name, ())) for t in self.touches], self.cell)
        for arrow in self.arrows:
            (x, y), (to_x, to_y) = (self[name].centre(cell) for name, cell in (arrow.begin, arrow.end))
            style = {"arrowstyle": "-|>", "color": arrow.color, "linewidth": 1.2, "shrinkA": 7, "shrinkB": 7}
            ax.annotate("", (to_x, to_y), (x, y), arrowprops=style, zorder=4)
        for (row, column), words in self.notes.items():
            ax.text(column, row, words, va="center", size=9, color="0.3")
        handles = [Rectangle((0, 0), 1, 1, facecolor=t.color, edgecolor="0.5") for t in self.touches]
        place = {"loc": "upper left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1}
        ax.legend(handles, [t.label for t in self.touches], ncols=3, handlelength=1, handleheight=1, **place)
        return figure


def _draw_grid(ax, grid: Grid, touched, size: float) -> None:
    row, column = grid.at
    for cell in product(*map(range, grid.full)):
        x, y = column + cell[1], row + cell[0]
        colors = [color for color, cells in touched if cell in cells]
        colors = [color for color in colors if color != GROUP] or colors
        if not grid.holds(cell):
            _draw_nothing(ax, x, y, colors)
            continue
        for k, color in enumerate(colors):
            ax.add_patch(Rectangle((x + k / len(colors), y), 1 / len(colors), 1, facecolor=color, linewidth=0))
        ax.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="0.6", linewidth=0.7))
        ink = "white" if colors == [BLUE] else "black"
        ax.text(x + 0.5, y + 0.5, grid.texts[cell], ha="center", va="center", size=26 * size, color=ink, zorder=5)
    if grid.group:
        for i, j in product(*(range(0, n, g) for n, g in zip(grid.full, grid.group))):
            high, wide = (min(g, n - k) for g, n, k in zip(grid.group, grid.full, (i, j)))
            ax.add_patch(Rectangle((column + j, row + i), wide, high, fill=False, linewidth=1.6, zorder=3))
    _draw_names(ax, grid)


def _draw_names(ax, grid: Grid) -> None:
    """The grid's name, and the numbers of a table's rows and columns."""
    row, column = grid.at
    if grid.shape[0] == 1:
        ax.text(column - 0.3, row + 0.5, grid.name, ha="right", va="center")
    elif grid.shape[1] == 1:
        ax.text(column + 0.5, row - 0.3, grid.name, ha="center")
    else:
        ax.text(column, row - 0.9, grid.name)
        style = {"ha": "center", "va": "center", "size": 7, "color": "0.45", "zorder": 5}
        style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the arrows
        for j in range(grid.full[1]):
            ax.text(column + j + 0.5, row - 0.4, str(j), **style)
        for i in range(grid.full[0]):
            ax.text(column - 0.4, row + i + 0.5, str(i), **style)


def _draw_nothing(ax, x, y, colors) -> None:
    """A place past the end of an array: hatched, and crossed out where work-items come to it."""
    style = {"facecolor": "none", "edgecolor": "0.8", "hatch": "////", "linewidth": 0}
    ax.add_patch(Rectangle((x, y), 1, 1, **style))
    for color in colors:
        for ends in ((0.2, 0.8), (0.8, 0.2)):
            ax.plot(np.add((0.2, 0.8), x), np.add(ends, y), color=color, linewidth=2.5, zorder=4)


def draw(name: str, **choices):
    """The picture of an exercise. ``choices`` are those of its function below: which work-items, which step.

    Raises ClnnError where no exercise of the name has a picture.
    """
    return picture(name, **choices).draw()


def picture(name: str, **choices) -> Picture:
    """What ``draw(name, **choices)`` draws."""
    if name not in _pictures:
        raise ClnnError(f"there is no picture of {name!r}; there are {', '.join(_pictures)}")
    return _pictures[name](**choices)


def _pictured(function):
    _pictures[function.__name__] = function
    return function


def _numbers(*shape, low: int = -9, high: int = 9) -> np.ndarray:
    return np.random.default_rng(5).integers(low, high, shape, endpoint=True)


def _past(there: bool) -> str:
    return "" if there else ": past the end"


# One work-item an element


@_pictured
def add(items=(5, 10)):
    """Two work-items, by their places."""
    n, group, reach = 10, (1, 4), (1, 12)
    names = ("work-items", "a", "b", "c")
    grids = [Grid("work-items", reach, (0, 0), group)]
    grids += [Grid(name, (1, n), (row, 0), reach=reach) for name, row in zip(names[1:], (1.6, 3.2, 4.8))]
    touches = [
        Touch(f"work-item {i}{_past(i < n)}", color, {name: [(0, i)] for name in names})
        for i, color in zip(items, COLORS)
    ]
    return Picture(grids, touches, [], {(2.1, 12.5): "read", (3.7, 12.5): "read", (5.3, 12.5): "written"})


@_pictured
def leaky_relu(items=(1, 4)):
    """Two work-items, by their places, on the way forward and on the way back."""
    n, group, reach, slope = 7, (1, 4), (1, 8), 0.1
    x, dy = _numbers(2, n)
    grids = []
    for names, values, column in (
        (("work-items", "x", "y"), (x, np.where(x > 0, x, slope * x)), 0),
        (("work-items ", "x ", "dy", "dx"), (x, dy, np.where(x > 0, dy, slope * dy)), 14),
    ):
        grids.append(Grid(names[0], reach, (0, column), group))
        for k, (name, value) in enumerate(zip(names[1:], values), 1):
            grids.append(Grid(name, (1, n), (1.6 * k, column), reach=reach, text=value[None]))
    touches = [
        Touch(f"work-item {i}{_past(i < n)}", color, {grid.name: [(0, i)] for grid in grids})
        for i, color in zip(items, COLORS)
    ]
    notes = {(-1, 0): "leaky_relu, slope = 0.1", (-1, 14): "leaky_relu_backward"}
    return Picture(grids, touches, [], notes)


@_pictured
def bias_tanh(items=((6, 1), (2, 5))):
    """Two work-items (column, row)."""
    rows, columns, group, reach = 5, 7, (4, 4), (8, 8)
    grids = [
        Grid("bias", (1, columns), (0, 0), reach=(1, 8)),
        Grid("x", (rows, columns), (3, 0), group, reach),
        Grid("y", (rows, columns), (3, 12), group, reach),
    ]
    touches = [
        Touch(
            f"work-item ({j}, {i}): column {j}, row {i}{_past(i < rows and j < columns)}",
            color,
            {"bias": [(0, j)] if i < rows else [], "x": [(i, j)], "y": [(i, j)]},
        )
        for (j, i), color in zip(items, COLORS)
    ]
    return Picture(grids, touches, [], {})


# One work-item a row, a window, a bin


@_pictured
def row_sum(items=(1, 4)):
    """Two work-items, by their rows."""
    x = _numbers(6, 9)
    rows, columns = x.shape
    grids = [
        Grid("work-items", (8, 1), (0, 0), (4, 1)),
        Grid("x", x.shape, (0, 5), reach=(8, columns), text=x),
        Grid("sums", (rows, 1), (0, 18), reach=(8, 1), text=x.sum(1)),
    ]
    touches, arrows = [], []
    for i, color in zip(items, COLORS):
        row = [(i, j) for j in range(columns)]
        touches.append(
            Touch(f"work-item {i}{_past(i < rows)}", color, {"work-items": [(i, 0)], "x": row, "sums": [(i, 0)]})
        )
        arrows.append(Arrow(("x", row[-1]), ("sums", (i, 0)), color))
    return Picture(grids, touches, arrows, {})


@_pictured
def max_pool(items=((1, 0), (2, 2))):
    """Two work-items (column, row) of y, with their windows."""
    x = _numbers(7, 9)
    high, wide = (n // 2 for n in x.shape)
    y = x[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2).max((1, 3))
    grids = [Grid("x", x.shape, (0, 0), text=x), Grid("y", y.shape, (1, 12), (2, 2), (4, 4), y)]
    touches = []
    for (j, i), color in zip(items, COLORS):
        window = [(2 * i + a, 2 * j + b) for a, b in product((0, 1), (0, 1))]
        there = i < high and j < wide
        label = f"work-item ({j}, {i}): column {j}, row {i} of y{_past(there)}"
        touches.append(Touch(label, color, {"x": window if there else [], "y": [(i, j)]}))
    return Picture(grids, touches, [], {})


@_pictured
def row_softmax(items=(1, 3)):
    """Two work-items, by their rows. The last row but one is the second plus 100, and has the same result."""
    x = _numbers(5, 7, low=-4, high=4)
    x[3] = x[1] + 100
    e = np.exp(x - x.max(1, keepdims=True))
    rows, columns = x.shape
    grids = [
        Grid("work-items", (8, 1), (0, 0), (4, 1)),
        Grid("x", x.shape, (0, 4), reach=(8, columns), text=x),
        Grid("y", x.shape, (0, 14), reach=(8, columns), text=[f"{v:.2f}" for v in (e / e.sum(1, keepdims=True)).flat]),
    ]
    touches = []
    for i, color in zip(items, COLORS):
        row = [(i, j) for j in range(columns)]
        touches.append(Touch(f"work-item {i}{_past(i < rows)}", color, {"work-items": [(i, 0)], "x": row, "y": row}))
    return Picture(grids, touches, [], {})


@_pictured
def histogram(items=(1, 4)):
    """Two work-items, by their bins: each reads all of x."""
    bins, reach, group = 6, (1, 8), (1, 4)
    x = _numbers(22, low=0, high=bins - 1)
    grids = [Grid(f"x, read by {k}", (1, x.size), (1.6 * row, 0), text=x[None]) for row, k in enumerate(items)]
    grids += [
        Grid("work-items", reach, (3.6, 0), group),
        Grid("counts", (1, bins), (5.2, 0), reach=reach, text=np.bincount(x, minlength=bins)[None]),
    ]
    touches = []
    for k, color in zip(items, COLORS):
        found = [(0, i) for i in np.flatnonzero(x == k)]
        cells = {f"x, read by {k}": found, "work-items": [(0, k)], "counts": [(0, k)]}
        touches.append(Touch(f"work-item {k}{_past(k < bins)}: what it counts", color, cells))
    return Picture(grids, touches, [], {})


# Work-items that share local memory


def _tiles(grids: list[Grid], corners: dict, side: int) -> dict:
    """The cells of the square tile that begins at each named grid's corner; those past its end are left out."""
    tile = list(product(range(side), range(side)))
    return {
        grid.name: [cell for p, q in tile if grid.holds(cell := (corners[grid.name][0] + p, corners[grid.name][1] + q))]
        for grid in grids
        if grid.name in corners
    }


@_pictured
def transpose(items=((0, 1), (2, 1))):
    """A work-group and two of its work-items (place along dimension 0, along dimension 1)."""
    rows, columns, side, reach = 5, 7, 4, (8, 8)
    group = (1, 0)  # the second along the columns of x, the first along its rows
    grids = [
        Grid("x", (rows, columns), (1, 0), (side, side), reach),
        Grid("tile (local), written", (side, side), (0, 12)),
        Grid("tile (local), read", (side, side), (7, 12)),
        Grid("y", (columns, rows), (1, 20), (side, side), reach),
    ]
    corners = {"x": (group[1] * side, group[0] * side), "y": (group[0] * side, group[1] * side)}
    inside = _tiles(grids, corners, side)
    touches, arrows = [Touch("work-group (1, 0)", GROUP, inside)], []
    for (tx, ty), color in zip(items, COLORS):
        read, written = (group[1] * side + ty, group[0] * side + tx), (group[0] * side + ty, group[1] * side + tx)
        ways = ("x", read), ("tile (local), written", (ty, tx)), ("tile (local), read", (tx, ty)), ("y", written)
        touches.append(Touch(f"its work-item ({tx}, {ty})", color, {name: [cell] for name, cell in ways}))
        arrows += [Arrow(ways[0], ways[1], color), Arrow(ways[2], ways[3], color)]
    return Picture(grids, touches, arrows, {(5.1, 12): BARRIER})


@_pictured
def conv1d(items=(1, 6)):
    """A work-group and two of its work-items, by their places in it."""
    n, size, half, group = 15, 8, 2, 1
    first = group * size - half
    count = size + 2 * half
    places = [(0, first + t) for t in range(count)]
    grids = [
        Grid("x", (1, n), (0, 0), (1, size), (1, 18)),
        Grid("part (local), copied by", (1, count), (2.2, first), text=[t % size for t in range(count)]),
        Grid("part (local), read", (1, count), (5.2, first)),
        Grid("y", (1, n), (7.4, 0), (1, size), (1, 16)),
    ]
    cells = {"x": [p for p in places if grids[0].holds(p)], "y": [(0, i) for i in range(group * size, n)]}
    touches = [Touch("work-group 1", GROUP, cells)]
    for me, color in zip(items, COLORS):
        loaded = [t for t in (me, me + size) if t < count]
        read = [(0, me + k) for k in range(2 * half + 1)]
        i = group * size + me
        cells = {"x": [(0, first + t) for t in loaded], "part (local), copied by": [(0, t) for t in loaded],
                 "part (local), read": read, "y": [(0, i)]}  # fmt: skip
        touches.append(Touch(f"its work-item {me}{_past(i < n)}", color, cells))
    arrows = [
        Arrow((a, (0, p)), (b, (0, q)), color)
        for me, color in zip(items, COLORS)
        for a, p, b, q in [
            *(("x", first + t, "part (local), copied by", t) for t in (me, me + size) if t < count),
            ("part (local), read", me + half, "y", group * size + me),
        ]
    ]
    return Picture(grids, touches, arrows, {(4.2, first): BARRIER})


@_pictured
def group_sum(items=(0, 1)):
    """Two work-items of a group, by their places in it, in each step of the sum."""
    n, size, group = 13, 8, 1
    x = _numbers(n, low=0)
    padded = np.pad(x, (0, -n % size)).reshape(-1, size)
    part, steps, column = padded[group], [], group * size
    grids = [Grid("x", (1, n), (0, 0), (1, size), (1, padded.size), x)]
    grids.append(Grid("part (local)", (1, size), (2, column), text=part))
    cells = {item: {"x": [(0, column + item)], "part (local)": [(0, item)]} for item in items}
    arrows = []
    for k in range(size.bit_length() - 1):
        step, before = size >> k + 1, grids[-1]
        part = np.where(np.arange(size) < step, part + np.roll(part, -step), part)
        grids.append(Grid(f"after step {step}", (1, size), (4.2 + 2.2 * k, column), text=part))
        for me in range(step):
            color = dict(zip(items, COLORS)).get(me, "0.6")
            arrows += [Arrow((before.name, (0, me + s)), (grids[-1].name, (0, me)), color) for s in (0, step)]
        for item in items:
            cells[item][grids[-1].name] = [(0, item)] * (item < step)
        steps.append(step)
    grids.append(Grid("sums", (1, len(padded)), (4.2 + 2.2 * len(steps), column), text=padded.sum(1)))
    arrows.append(Arrow((grids[-2].name, (0, 0)), ("sums", (0, group)), COLORS[0] if 0 in items else "0.6"))
    if 0 in cells:
        cells[0]["sums"] = [(0, group)]
    touches = [Touch(f"work-item {me} of work-group {group}", c, cells[me]) for me, c in zip(items, COLORS)]
    return Picture(grids, touches, arrows, {})


@_pictured
def tiled_gemm(step=0, item=(1, 2)):
    """A work-group in one ``step`` along K, and one of its work-items (place along dimension 0, along dimension 1)."""
    M, N, K, side, reach = 6, 7, 6, 4, (8, 8)
    tx, ty = item
    i, j, k0 = ty, side + tx, step * side  # the group is the second along the columns of c, the first along its rows
    left, right = "tile of a (local)", "tile of b (local)"
    grids = [
        Grid(left, (side, side), (2, 2.5)),
        Grid(right, (side, side), (2, 8)),
        Grid("a", (M, K), (11, 2.5), (side, side), reach),
        Grid("b", (K, N), (0, 13.5), (side, side), reach),
        Grid("c", (M, N), (11, 13.5), (side, side), reach),
    ]
    corners = {"a": (0, k0), "b": (k0, side), "c": (0, side)}
    tiles = _tiles(grids, corners, side)
    copies = {"a": [(i, k0 + tx)], "b": [(k0 + ty, j)], left: [(ty, tx)], right: [(ty, tx)], "c": [(i, j)]}
    reads = {left: [(ty, k) for k in range(side)], right: [(k, tx) for k in range(side)]}
    touches = [
        Touch(f"work-group (1, 0), k0 = {k0}", GROUP, tiles),
        Touch(f"its work-item ({tx}, {ty})", BLUE, copies),
        Touch("what that reads after the barrier", ORANGE, reads),
    ]
    arrows = [Arrow((name, copies[name][0]), (tile, (ty, tx)), BLUE) for name, tile in (("a", left), ("b", right))]
    return Picture(grids, touches, arrows, {}, cell=0.24)
