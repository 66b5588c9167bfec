"""The tape of a result as a picture: what was computed from what, with values and, after backward(), gradients.

The layout is that of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical system structures",
1981): every node in a layer by its distance from the result, few crossings, long edges led through the layers between.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path

from ..errors import GraphError
from ..ops.copy import Cast, Reshape
from ..ops.gemm import MatMul
from ..tensor import Function, Tensor, tape_behind
from .plots import BLACK, BLUE, ORANGE, WIDTH

# Kind of node: (fill, edge, corner radius in inches, words in the legend)
KINDS = {
    "parameter": ("#CFE6F5", BLUE, 0, "tensor with requires_grad"),
    "data": ("#EEEEEE", "#777777", 0, "other tensor"),
    "operation": ("#FDF1D8", ORANGE, 0.12, "operation and its result"),
}
SYMBOLS = {
    "Add": "+", "Sub": "−", "Mul": "×", "Div": "/", "Power": "^", "MatMul": "@", "Neg": "−", "Absolute": "abs",
    "Maximum": "max", "Minimum": "min", "AtLeast": "at least", "AtMost": "at most",
}  # fmt: skip
SLOPE = "#B34D00"  # the palette's RED, darker: small letters must be read
MOST = 60  # nodes in a picture
FONT = 8  # points
CHAR, LINE = 0.63 * FONT / 72, 1.35 * FONT / 72  # inches: a letter of DejaVu Sans Mono, a little more; and a line
PAD, GAP, THIN, ARROW = 0.07, 0.14, 0.14, 0.3  # inches: inside a box, between boxes, around an arrow, between layers
LEGEND, LEAST = 0.35, 6.6  # inches: the height of the legend, the width of the narrowest picture
HEAD = 0.09  # inches that arrows go straight before they arrive


@dataclass(eq=False)
class Node:
    """A tensor in the picture; ``label`` is its operation, ``value`` a copy of its numbers."""

    tensor: Tensor
    kind: str
    label: str
    value: np.ndarray
    inputs: list["Node"] = field(default_factory=list)


@dataclass
class Graph:
    """The tape behind ``root``; ``places`` finds the node of a tensor by its ``_key``."""

    root: Tensor
    tensors: list[Tensor]  # held, so that no other takes the id of one of them
    nodes: list[Node] = field(default_factory=list)
    places: dict[int, Node] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)


_recent: deque[Graph] = deque(maxlen=4)  # backward() uses a tape up; these were drawn before


def draw_tape(tensor: Tensor, names: dict | None = None):
    """Draw what ``tensor`` was computed from, as a figure: square boxes hold what you made, round ones operations and
    their results, all with their values, or the shape and the smallest and largest number of larger arrays.

    ``names`` labels tensors: ``{"w": w}``, ``dict(net.named_parameters())`` or ``globals()``. Arrows enter an operation
    in the order of its operands. backward() uses the tape up, so draw once before it; drawn again after it, the same
    picture shows the gradients, too (this calls ``retain_grad`` on what lies between). Reshapes that only add or drop
    dimensions of size 1 are left out. Raises GraphError where there is no tape (any more), ValueError beyond 60 nodes.
    """
    graph = next((g for g in _recent if g.root is tensor), None)
    if graph is None:
        graph = _graph_of(tensor)
        _recent.append(graph)
    for name, t in (names or {}).items():
        if isinstance(t, Tensor) and _key(t) in graph.places and not name.startswith("_"):
            node = graph.places[_key(t)]
            graph.names[node] = name
            node.value = node.value.reshape(t.shape)
    return _draw(graph)


def _graph_of(root: Tensor) -> Graph:
    if not root.requires_grad:
        raise GraphError("draw_tape of a tensor that depends on nothing with requires_grad=True: it has no tape")
    try:
        order = tape_behind(root)
    except GraphError:
        raise GraphError(
            "backward() used this tape up before it was drawn: compute the result anew, draw it, then call backward() "
            "and draw it again to see the gradients"
        ) from None
    graph = Graph(root, order)
    for t in order:
        inner = _without_reshapes(t)
        for each in () if t is not inner or t.node is None else t.node.inputs:
            _add(graph, _without_reshapes(each))
        node = _add(graph, inner)
        graph.places[_key(t)] = node
        if t is not inner and isinstance(inner.node, MatMul):  # it computes batches
            node.value = node.value.reshape(t.shape)
    if len(graph.nodes) > MOST:
        raise ValueError(f"a picture of {len(graph.nodes)} nodes cannot be read: draw a part, of at most {MOST}")
    for t in order:
        t.retain_grad()
    return graph


def _without_reshapes(t: Tensor) -> Tensor:
    """The tensor that t is another form of, but for dimensions of size 1."""
    while isinstance(t.node, Reshape):
        (former,) = t.node.inputs
        if [n for n in former.shape if n > 1] != [n for n in t.shape if n > 1]:
            break
        t = former
    return t


def _add(graph: Graph, t: Tensor) -> Node:
    """The node of a tensor, made if there is none."""
    key = _key(t)
    if key not in graph.places:
        kind = "operation" if t.node else "parameter" if t.requires_grad else "data"
        inputs = [graph.places[_key(_without_reshapes(s))] for s in t.node.inputs] if t.node else []
        node = graph.places[key] = Node(t, kind, _label(t.node) if t.node else "", t.numpy(), inputs)
        graph.nodes.append(node)
    return graph.places[key]


def _key(t: Tensor) -> int:
    """What finds the node of a tensor: constants by their memory, for their reshapes are not on the tape."""
    return id(t if t.node is not None or t.requires_grad else t.array.base_data)


def _label(function: Function) -> str:
    """An operation in a word or a sign, with the number it was given, as in ``× 2``."""
    kind = type(function).__name__.removesuffix("Function")
    word = SYMBOLS.get(kind) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    if kind in ("Row", "Extreme"):
        word = {"largest": "max", "smallest": "min"}.get(function.name, function.name).replace("_", " ")
    if isinstance(function, Cast):
        word = f"to {function.dtype.name}"
    if getattr(function, "reduction", "none") != "none":
        word = f"{function.reduction} {word}"
    if getattr(function, "activation", None):
        word += f", {function.activation}"
    if (number := getattr(function, "number", None)) is not None:
        word = f"{_number(number)} {word}" if function.flipped else f"{word} {_number(number)}"
    return word


def _number(value, digits: int = 3) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value + 0.0:.{digits}g}"  # + 0.0 makes -0 0


def _rows(values: np.ndarray) -> list[str]:
    """Up to 2 x 3 numbers as rows of text, of more the smallest and the largest."""
    if _is_large(values):
        return [f"{_number(values.min(), 2)} .. {_number(values.max(), 2)}"]
    texts = [[_number(v) for v in row] for row in np.atleast_2d(values).tolist()]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [" ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in texts]


def _is_large(values: np.ndarray) -> bool:
    return values.ndim > 2 or values.shape[-1:] > (3,) or values.shape[:-1] > (2,)


class Box:
    """The text of a node as ``cells`` of (row, column, text, colour, weight), in a font of fixed width, and its size in
    inches; ``wide`` puts the gradient beside the value, else below."""

    def __init__(self, node: Node, name: str, gradient: np.ndarray | None, wide: bool):
        header = ": ".join(part for part in (name, node.label) if part)
        shape = " × ".join(map(str, node.value.shape)) + " numbers" * (node.value.ndim == 1)
        value = [shape] * _is_large(node.value) + _rows(node.value)
        slope = [] if gradient is None else _rows(gradient.reshape(node.value.shape))
        slope = [("grad " if i == 0 else "     ") + row for i, row in enumerate(slope)]
        first, left, right = int(bool(header)), max(map(len, value)), max(map(len, slope), default=0)
        beside = wide and bool(slope)
        columns = max(len(header), left + 2 + right if beside else max(left, right))
        rows = first + (max(len(value), len(slope)) if beside else len(value) + len(slope))
        self.node, self.kind = node, KINDS[node.kind]
        self.cells = [(0, (columns - len(header)) / 2, header, BLACK, "bold")] * first
        start = (columns - (left + 2 + right if beside else left)) / 2
        self.cells += [(first + i, start + (left - len(row)) / 2, row, BLACK, "normal") for i, row in enumerate(value)]
        below, start = (rows - len(slope), start + left + 2) if beside else (first + len(value), (columns - right) / 2)
        self.cells += [(below + i, start, row, SLOPE, "normal") for i, row in enumerate(slope)]
        self.size = (columns * CHAR + 2 * PAD, rows * LINE + 2 * PAD)
        self.rows, self.columns = rows, columns

    def draw(self, ax, x: float, y: float, scale: float) -> None:
        """Put it on axes that count inches, its centre at (x, y)."""
        (width, height), (fill, edge, radius, _) = self.size, self.kind
        style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
        ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, style, fc=fill, ec=edge, lw=1.2))
        size = FONT * scale * (0.93 if scale < 1 else 1)  # a letter of a smaller font may be rounded up to a pixel more
        for row, column, text, color, weight in self.cells:
            at = x + (column - self.columns / 2) * CHAR, y + (self.rows / 2 - row - 0.5) * LINE
            font = {"family": "DejaVu Sans Mono", "size": size, "color": color, "weight": weight}
            ax.text(*at, text, va="center_baseline", **font)


def _layers(nodes: list[Node]) -> tuple[list[list], dict]:
    """The layers from the result back, in an order with few crossings, and for each arrow ``(source, target, place)``
    its stops: target, what stands for the arrow in each layer that it passes through, source."""
    depth = {}
    for node in reversed(nodes):  # the result first: those that use a node come before it
        users = [depth[other] for other in depth if any(source is node for source in other.inputs)]
        depth[node] = 1 + max(users, default=-1)
    layers = [[] for _ in range(1 + max(depth.values()))]
    arrows = {}

    def place(node):
        layers[depth[node]].append(node)
        for i, source in enumerate(node.inputs):
            between = [(source, node, i, d) for d in range(depth[node] + 1, depth[source])]
            arrows[source, node, i] = [node, *between, source]
            for d, stop in enumerate(between, depth[node] + 1):
                layers[d].append(stop)
            if source not in placed:
                placed.add(source)
                place(source)

    placed = {nodes[-1]}
    place(nodes[-1])
    return _untangled(layers, arrows), arrows


def _untangled(layers: list[list], arrows: dict) -> list[list]:
    """The layers reordered: each stop to the mean place of its neighbours, to and fro; the best of all rounds."""
    # (stop, stop behind it, where the first is entered: operands stand in order)
    links = [
        (a, b, (place + 1) / (len(target.inputs) + 1) - 0.5 if a is target else 0)
        for (_, target, place), stops in arrows.items()
        for a, b in pairwise(stops)
    ]
    best, fewest = layers, _crossings(layers, links)
    for sweep in range(12):
        layers = [list(layer) for layer in layers]
        to_source = sweep % 2 == 0
        for k in range(1, len(layers)) if to_source else range(len(layers) - 2, -1, -1):
            fixed = {stop: i for i, stop in enumerate(layers[k - 1 if to_source else k + 1])}
            ends = {stop: [] for stop in layers[k]}
            for a, b, port in links:
                if to_source and a in fixed:
                    ends[b].append(fixed[a] + port)
                elif not to_source and b in fixed:
                    ends[a].append(fixed[b] - port)
            order = {stop: np.mean(found) if found else i for i, (stop, found) in enumerate(ends.items())}
            layers[k].sort(key=order.get)
        if (crossings := _crossings(layers, links)) < fewest:
            best, fewest = layers, crossings
    return best


def _crossings(layers: list[list], links: list) -> int:
    at = {stop: (k, i) for k, layer in enumerate(layers) for i, stop in enumerate(layer)}
    ends = [(at[a][0], at[a][1] + port, at[b][1]) for a, b, port in links]
    return sum(k == m and (i - p) * (j - q) < 0 for n, (k, i, j) in enumerate(ends) for m, p, q in ends[:n])


def _spread(wanted, sizes, weights) -> np.ndarray:
    """Places nearest to the wanted ones, in this order, that leave room for the sizes: isotonic regression."""
    room = np.concatenate([[0], np.cumsum((np.array(sizes[:-1]) + sizes[1:]) / 2)])
    blocks = []
    for place, weight in zip(np.asarray(wanted) - room, weights, strict=True):
        blocks.append((place, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, v, m), (b, w, n) = blocks[-2:]
            blocks[-2:] = [((a * v + b * w) / (v + w), v + w, m + n)]
    return np.concatenate([[place] * count for place, _, count in blocks]) + room


def _across(layers: list[list], arrows: dict, sizes: dict) -> dict:
    """The place of every stop across the direction of the arrows: near those it is joined with, without overlaps."""
    joined = {stop: [] for layer in layers for stop in layer}
    for stops in arrows.values():
        for a, b in pairwise(stops):
            joined[a].append(b)
            joined[b].append(a)
    # What you made gives way, so that a chain of operations runs straight.
    weight = {stop: 0.1 if isinstance(stop, Node) and not stop.inputs else 1 for stop in joined}
    places = dict.fromkeys(joined, 0.0)
    for sweep in range(30):
        for layer in layers if sweep % 2 else layers[::-1]:
            wanted = [
                np.average([places[s] for s in joined[stop]], weights=[weight[s] for s in joined[stop]])
                if joined[stop]
                else 0.0
                for stop in layer
            ]
            found = _spread(wanted, [sizes[stop] for stop in layer], [weight[stop] for stop in layer])
            places |= dict(zip(layer, found, strict=True))
    return places


def _draw(graph: Graph):
    """From left to right where that fits the page, else from top to bottom."""
    layers, arrows = _layers(graph.nodes)
    walked = graph.root.grad is not None
    for down in (False, True):
        boxes = {}
        for node in graph.nodes:
            gradient = node.tensor.grad.numpy() if walked and node.tensor.grad is not None else None
            boxes[node] = Box(node, graph.names.get(node, ""), gradient, wide=down)
        thick = [max(boxes[s].size[down] for s in layer if s in boxes) for layer in layers]
        if sum(thick) + ARROW * (len(thick) - 1) <= WIDTH - 2 * GAP:
            break
    sizes = {s: boxes[s].size[not down] + GAP if s in boxes else THIN for layer in layers for s in layer}
    across = _across(layers, arrows, sizes)
    along = {s: -ARROW * k - sum(thick[:k]) - thick[k] / 2 for k, layer in enumerate(layers) for s in layer}
    half = {s: thick[k] / 2 for k, layer in enumerate(layers) for s in layer}

    def xy(forward, sideways):
        """From the directions along and across the arrows to those of the page."""
        return (sideways, -forward) if down else (forward, -sideways)

    places = {stop: xy(along[stop], across[stop]) for stop in across}
    ax = _page(boxes, places, walked)
    for (_, target, place), stops in arrows.items():
        port = ((place + 1) / (len(target.inputs) + 1) - 0.5) * boxes[target].size[not down]
        ways = [(along[s], across[s] + (port if s is target else 0), half[s]) for s in reversed(stops)]
        inside = [boxes[s].size[down] / 2 for s in (stops[-1], target)]
        ax.add_patch(_arrow(ways, *inside, xy))
    return ax.figure


def _arrow(ways: list, start: float, end: float, xy) -> FancyArrowPatch:
    """An arrow through ``ways`` of (along, across, half a layer): straight inside a layer, bent between two. ``start``
    and ``end`` are half the sizes of the boxes at its ends."""
    points, codes = [xy(ways[0][0] + start, ways[0][1])], [Path.MOVETO]
    for (a, p, half_a), (b, q, half_b) in pairwise(ways):
        leave, enter = a + half_a, b - half_b - HEAD
        middle = (leave + enter) / 2
        points += [xy(leave, p), xy(middle, p), xy(middle, q), xy(enter, q)]
        codes += [Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    points.append(xy(ways[-1][0] - end, ways[-1][1]))
    codes.append(Path.LINETO)
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0, "color": "#555555", "lw": 1}
    return FancyArrowPatch(path=Path(points, codes), joinstyle="round", **style)


def _page(boxes: dict, places: dict, walked: bool):
    """Axes that count inches, shrunk if they must be, with the boxes at their places, and a legend below."""
    sizes = np.array([boxes[stop].size if stop in boxes else (0, 0) for stop in places])
    centres = np.array([*places.values()])
    low, high = np.min(centres - sizes / 2, 0) - GAP, np.max(centres + sizes / 2, 0) + GAP
    scale = min(1, WIDTH / (high - low)[0])
    missing = max(0, (LEAST - (high - low)[0]) / 2)
    low[0], high[0] = low[0] - missing, high[0] + missing
    width, height = scale * (high - low)
    figure = plt.figure(figsize=(width, height + LEGEND), layout="none")
    ax = figure.add_axes((0, LEGEND / (height + LEGEND), 1, height / (height + LEGEND)))
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.axis("off")
    for node, box in boxes.items():
        box.draw(ax, *places[node], scale)
    kinds = {node.kind for node in boxes}
    keys = [Patch(fc=fill, ec=edge, label=words) for kind, (fill, edge, _, words) in KINDS.items() if kind in kinds]
    keys += [Patch(color=SLOPE, label="gradient")] * walked
    legend = figure.legend(handles=keys, loc="lower center", ncols=len(keys), frameon=False, fontsize=FONT)
    if walked:
        legend.get_texts()[-1].set_color(SLOPE)
    return ax
