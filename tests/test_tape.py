"""Drawn tapes: what stands in the picture, before and after backward(), and that nothing lies on anything else."""

import matplotlib
import numpy as np
import pytest
from helpers import generator, numbers, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import clnn
from clnn import modules as nn
from clnn import ops, optim
from clnn.errors import GraphError
from clnn.lab import plots, tape
from clnn.lab.tape import draw_tape

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")
    tape._recent.clear()


def leaves(*values):
    return [clnn.tensor(value, requires_grad=True) for value in values]


def parts(figure):
    """The boxes, the arrows and the texts."""
    (ax,) = figure.axes
    boxes = [p for p in ax.patches if isinstance(p, FancyBboxPatch)]
    arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    assert len(boxes) + len(arrows) == len(ax.patches)
    return boxes, arrows, ax.texts


def contents(figure):
    """The lines of each box, from top to bottom, sorted; lines that stand beside each other joined."""
    figure.canvas.draw()
    boxes, _, texts = parts(figure)
    found = []
    for box in boxes:
        outline, lines = box.get_window_extent(), {}
        for text in texts:
            extent = text.get_window_extent()
            middle = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
            if outline.contains(*middle):
                lines.setdefault(round(text.get_position()[1], 3), []).append((middle[0], text.get_text().strip()))
        found.append(tuple(" ".join(part for _, part in sorted(lines[y])).strip() for y in sorted(lines, reverse=True)))
    return sorted(found)


def joined(figure):
    """How many arrows come and go, by the first line of the box: {name: (coming, going)}."""
    figure.canvas.draw()
    boxes, arrows, texts = parts(figure)
    ends = [0, 0]
    counts = {}
    for box in boxes:
        outline = box.get_bbox().padded(0.02)
        inside = [t for t in texts if outline.contains(*t.get_position())]
        name = max(inside, key=lambda t: t.get_position()[1]).get_text()
        for k, at in enumerate((-1, 0)):
            ends[k] = sum(outline.contains(*arrow._path_original.vertices[at]) for arrow in arrows)
        counts[name] = tuple(ends)
    return counts


# What stands in the picture


def test_before_and_after_backward():
    a, b, c = leaves(2.0, 3.0, 4.0)
    y = (a * b + c) * a
    names = {"a": a, "b": b, "c": c, "y": y}
    before = draw_tape(y, names)
    assert contents(before) == [("+", "10"), ("a", "2"), ("b", "3"), ("c", "4"), ("y: ×", "20"), ("×", "6")]
    assert joined(before) == {"a": (0, 2), "b": (0, 1), "c": (0, 1), "×": (2, 1), "+": (2, 1), "y: ×": (2, 0)}
    y.backward()
    after = draw_tape(y)  # the names are remembered
    assert contents(after) == [
        ("+", "10", "grad 2"), ("a", "2", "grad 16"), ("b", "3", "grad 4"), ("c", "4", "grad 2"),
        ("y: ×", "20", "grad 1"), ("×", "6", "grad 2"),
    ]  # fmt: skip
    assert joined(after) == joined(before)
    legend = [text.get_text() for text in after.legends[0].get_texts()]
    assert legend == ["tensor with requires_grad", "operation and its result", "gradient"]


def test_drawing_changes_no_gradient():
    for draws in (False, True):
        (w,) = leaves([[0.5, -1.0], [2.0, 0.25]])
        loss = ((clnn.tensor([[1.0, 2.0]]) @ w).tanh() ** 2).sum()
        if draws:
            draw_tape(loss)
        loss.backward()
        if not draws:
            want = w.grad.numpy()
    np.testing.assert_array_equal(w.grad.numpy(), want)


def test_shapes_and_colours_tell_what_is_what():
    (w,) = leaves(2.0)
    figure = draw_tape(clnn.tensor(3.0) * w)
    boxes, *_ = parts(figure)
    kinds = {(type(box.get_boxstyle()).__name__, box.get_facecolor(), box.get_edgecolor()) for box in boxes}
    assert len(kinds) == len({k[1] for k in kinds}) == len({k[2] for k in kinds}) == 3
    assert sorted(style for style, *_ in kinds) == ["Round", "Square", "Square"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["tensor with requires_grad", "other tensor", "operation and its result"]


def test_operations_in_words_and_signs():
    a, b = leaves(0.5, 2.0)
    rows = clnn.ones(2, 2, requires_grad=True)
    for result, label in (
        (a + b, "+"), (a - b, "−"), (a * b, "×"), (a / b, "/"), (a**b, "^"), (-a, "−"), (abs(a), "abs"),
        (a * 3, "× 3"), (3 - a, "3 −"), (a - 0.25, "− 0.25"), (1 / a, "1 /"), (a**3, "^ 3"), (12345 * a, "× 12345"),
        (a.exp(), "exp"), (a.sqrt(), "sqrt"), (a.tanh(), "tanh"), (a.relu(), "relu"), (a.clamp(min=0), "at least 0"),
        (rows.max(), "max"), (rows.sum(), "sum"), (rows.softmax(), "softmax"), (rows.log_softmax(), "log softmax"),
        (rows @ rows, "@"), (rows.T, "permute"), (rows.reshape(4), "reshape"),
        (ops.mse_loss(a, 1.0), "mean squared error"), (ops.mse_loss(a, 1.0, "none"), "squared error"),
        (ops.cross_entropy(rows, [0, 1], "sum"), "sum cross entropy"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())(rows), "linear, sigmoid"), (nn.Linear(2, 2)(rows), "linear"),
    ):  # fmt: skip
        (operation,) = [node for node in tape._graph_of(result).nodes if node.kind == "operation"]
        assert operation.label == label
    if clnn.device().fp64:
        assert tape._graph_of(a.double()).nodes[-1].label == "to float64"


def test_an_operand_twice_has_two_arrows():
    (x,) = leaves(0.5)
    assert joined(draw_tape(x * x, {"x": x})) == {"x": (0, 2), "×": (2, 0)}


def test_arrays_small_and_large():
    (w,) = leaves([[0.5, -12.0, 3.0], [1e-5, 0.123456, -0.0]])
    (v,) = leaves(np.arange(-6.0, 6).reshape(4, 3))
    figure = draw_tape((w * 2).sum() + v.sum() + clnn.ones(7, requires_grad=True).sum(), {"w": w, "v": v})
    found = {lines[0]: lines[1:] for lines in contents(figure)}
    assert found["w"] == ("0.5   -12 3", "1e-05 0.123 0")
    assert found["× 2"] == ("1   -24 6", "2e-05 0.247 0")
    assert found["v"] == ("4 × 3", "-6 .. 5")
    assert found["7 numbers"] == ("1 .. 1",)


def test_names():
    net = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
    x = clnn.ones(3, 2)
    everything = {**dict(net.named_parameters()), "x": x, "_hidden": net[0].weight, "size": 3, "other": clnn.ones(1)}
    firsts = {lines[0] for lines in contents(draw_tape(net(x).sum(), everything))}
    assert firsts == {"0.weight", "0.bias", "x", "linear, tanh", "sum"}


def test_matrix_products_are_one_node():
    """They are computed as batches of one: reshapes that add or drop ones are no news."""
    (w,) = leaves([0.5, 2.0])
    x, y = clnn.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), clnn.tensor([1.0, 2.0, 3.0])
    loss = ops.mse_loss(x @ w, y, "sum")
    figure = draw_tape(loss, {"x": x, "w": w, "y": y})
    assert contents(figure) == [
        ("@", "4.5 9.5 14.5"), ("sum squared error", "201"), ("w", "0.5 2"), ("x", "3 × 2", "1 .. 6"), ("y", "1 2 3"),
    ]  # fmt: skip
    loss.backward()
    after = {lines[0]: lines[-1] for lines in contents(draw_tape(loss))}
    assert after["@"] == "grad 7 15 23" and after["w"] == f"grad {7 + 45 + 115} {14 + 60 + 138}"
    row = clnn.tensor([1.0, 2.0])
    assert contents(draw_tape(row @ w, {"row": row, "w": w, "r": row}))[0] == ("@", "4.5")
    assert [lines[0] for lines in contents(draw_tape(w.reshape(2, 1).squeeze() * 1, {"w": w}))] == ["w", "× 1"]


def test_values_are_those_of_the_computation():
    (w,) = leaves(2.0)
    opt = optim.SGD([w], lr=0.5)
    loss = w * w
    draw_tape(loss, {"w": w})
    loss.backward()
    opt.step()
    assert w.item() == 0
    assert contents(draw_tape(loss)) == [("w", "2", "grad 4"), ("×", "4", "grad 1")]


def test_gradients_of_another_tape_are_not_shown():
    (w,) = leaves(2.0)
    (w * 100).backward()
    loss = w * 3
    assert contents(draw_tape(loss, {"w": w})) == [("w", "2"), ("× 3", "6")]
    w.grad = None
    loss.backward()
    assert contents(draw_tape(loss)) == [("w", "2", "grad 3"), ("× 3", "6", "grad 1")]


def test_a_leaf_alone():
    (w,) = leaves(2.0)
    assert contents(draw_tape(w, {"w": w})) == [("w", "2")]
    w.backward()
    assert contents(draw_tape(w)) == [("w", "2", "grad 1")]


# What cannot be drawn


def test_no_tape():
    with pytest.raises(GraphError, match="depends on nothing with requires_grad=True: it has no tape"):
        draw_tape(clnn.ones(2) * 2)
    (w,) = leaves(2.0)
    y = w * w
    y.backward()
    with pytest.raises(GraphError, match="used this tape up before it was drawn: compute the result anew, draw it"):
        draw_tape(y)


def test_more_than_can_be_read():
    (w,) = leaves(1.0)
    y = w
    for _ in range(59):
        y = y.tanh()
    draw_tape(y)
    with pytest.raises(ValueError, match="61 nodes cannot be read"):
        draw_tape(y.tanh())


def test_only_a_few_are_remembered():
    (w,) = leaves(1.0)
    results = [w * k for k in range(6)]
    for y in results:
        draw_tape(y)
    for y in results:
        y.backward()
    assert len(tape._recent) == 4
    draw_tape(results[-4])
    with pytest.raises(GraphError, match="before it was drawn"):
        draw_tape(results[0])


# Nothing lies on anything else


def assert_readable(figure):
    """Boxes apart, every text within one box, arrows outside of all boxes, all on a page of the right width."""
    figure.canvas.draw()
    boxes, arrows, texts = parts(figure)
    page = figure.bbox
    extents = [box.get_window_extent() for box in boxes]
    assert page.width <= plots.WIDTH * figure.dpi + 1
    for i, one in enumerate(extents):
        assert page.x0 <= one.x0 and one.x1 <= page.x1 and page.y0 <= one.y0 and one.y1 <= page.y1
        for other in extents[:i]:
            apart = one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
            assert apart, f"two boxes overlap: {one}, {other}"
    corners = np.array([e.extents for e in extents])
    places = [text.get_window_extent() for text in texts]  # asked for once: a text is laid out anew each time
    for text, place in zip(texts, places, strict=True):
        x0, y0, x1, y1 = place.extents
        inside = (corners[:, 0] <= x0) & (corners[:, 1] <= y0 + 2) & (x1 <= corners[:, 2]) & (y1 - 2 <= corners[:, 3])
        assert inside.sum() == 1, f"{text.get_text()!r} does not stand in one box"
    for i, a in enumerate(places):
        for j, b in enumerate(places[:i]):
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 - 2 <= b.y0 or b.y1 - 2 <= a.y0
            assert apart, f"two texts overlap: {texts[i]}, {texts[j]}"
    to_pixels = figure.axes[0].transData
    for arrow in arrows:
        (line,) = arrow._path_original.interpolated(1).to_polygons(closed_only=False)
        line = to_pixels.transform(line)
        steps = np.linspace(0, 1, 20)[:, None, None]
        points = (line[:-1] * (1 - steps) + line[1:] * steps).reshape(-1, 2)
        x, y = points[:, :1], points[:, 1:]
        hits = (
            (x > corners[:, 0] + 1.5)
            & (x < corners[:, 2] - 1.5)
            & (y > corners[:, 1] + 1.5)
            & (y < corners[:, 3] - 1.5)
        )
        assert not hits.any(), "an arrow runs through a box"
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= page.x1 and box.y1 <= corners[:, 1].min()


def xor_step_by_step(rng):
    x, t = clnn.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), clnn.tensor([[0.0], [1], [1], [0]])
    w1, b1, w2, b2 = leaves(numbers(rng, 2, 2), numbers(rng, 2), numbers(rng, 2, 1), numbers(rng, 1))
    h = (x @ w1 + b1).tanh()
    loss = (((h @ w2 + b2).sigmoid() - t) ** 2).mean()
    return loss, {"x": x, "t": t, "w1": w1, "b1": b1, "w2": w2, "b2": b2, "h": h, "loss": loss}


def xor_of_modules(rng):
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1), nn.Sigmoid())
    x, t = clnn.tensor(numbers(rng, 4, 2)), clnn.tensor(rng.random((4, 1)))
    return nn.MSELoss()(net(x), t), {**dict(net.named_parameters()), "x": x, "t": t}


def penalties(rng):
    (w,) = leaves(numbers(rng, 3))
    x, y = clnn.tensor(numbers(rng, 20, 3)), clnn.tensor(numbers(rng, 20))
    return ((x @ w - y) ** 2).mean() + 0.1 * w.abs().sum() + 0.01 * (w * w).sum(), {"w": w, "x": x, "y": y}


def a_net_for_images(rng):
    net = nn.Sequential(nn.Conv2d(1, 4, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10))
    x = clnn.tensor(numbers(rng, 3, 1, 16, 16))
    return nn.CrossEntropyLoss()(net(x), clnn.tensor([1, 5, 9])), dict(net.named_parameters())


def long_names(rng):
    (w,) = leaves(1.5)
    name = "the_number_of_all_the_examples_there_are"
    return (w * 2).tanh() / (w + 7), {name: w}


@pytest.mark.parametrize("build", [xor_step_by_step, xor_of_modules, penalties, a_net_for_images, long_names])
def test_pictures_of_the_course_are_readable(build):
    result, names = build(generator(3))
    assert_readable(draw_tape(result, names))
    result.backward()
    assert_readable(draw_tape(result))


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)), max_size=11), seed=seeds)
@settings(max_examples=6)
def test_pictures_of_random_expressions_are_readable(steps, seed):
    """Each step combines two results of earlier ones, picked at random; the last two are joined."""
    rng = generator(seed)
    values = [*leaves(*[numbers(rng, *shape) for shape in ((), (2,), (2, 2))]), clnn.tensor(numbers(rng, 2, 2))]
    functions = (
        lambda a, b: a * b,
        lambda a, b: a - b,
        lambda a, b: (a + b).tanh(),
        lambda a, b: (a * values[2]).mean(0) - b,
    )
    for kind, i, j in steps:
        values.append(functions[kind](values[-1 - i % len(values)], values[-1 - j % len(values)]))
    result = values[-1].sum() * values[-2].mean() + values[0]
    assert_readable(draw_tape(result, {f"v{i}": v for i, v in enumerate(values[:4])}))
    result.backward()
    assert_readable(draw_tape(result))
    plt.close("all")
