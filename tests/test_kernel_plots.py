"""The pictures of the notebook on kernels: what they show is what they were given."""

from types import SimpleNamespace

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot")

from clnn.ceilings import Ceilings  # noqa: E402
from clnn.lab import kernel_plots, ladder, plots  # noqa: E402

ROOF = Ceilings(500.0, 50.0, 400.0)


@pytest.fixture(autouse=True)
def style():
    plots.use_style()
    yield
    plt.close("all")


def climb() -> list[ladder.Timed]:
    return [ladder.Timed(s.number, s.name, 1.0 / s.number**3, 3, 10**10, 10**10 // s.number, 0.0) for s in ladder.STEPS]


def texts(figure) -> list[str]:
    figure.draw_without_rendering()
    parts = [figure, *figure.subfigs]
    return [t.get_text() for part in parts for ax in part.axes for t in ax.texts]


def in_sight(figure) -> bool:
    """Whether every text that stands in the figure lies inside it, give or take a pixel."""
    figure.draw_without_rendering()
    page = figure.bbox.padded(1.5)
    boxes = [t.get_window_extent() for ax in figure.get_axes() for t in ax.texts if t.get_text() and t.get_visible()]
    return all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)


@pytest.mark.parametrize("n, group", [(13, 8), (16, 4), (3, 8)])
def test_work_items(n, group):
    found = texts(figure := kernel_plots.work_items(n, group))
    count = -(-n // group) * group
    assert [t for t in found if t.startswith("work-group")] == [f"work-group {i}" for i in range(count // group)]
    assert found.count(str(n - 1)) == 2  # a work-item and its element
    assert found.count(str(count - 1)) == (1 if count > n else 2)
    assert any("guard" in t for t in found) == (count > n)
    assert in_sight(figure)


def test_memory_lines():
    found = texts(figure := kernel_plots.memory_lines([1, 2, 4, 16, 32]))
    words = [t.strip(" .") for t in found if "used" in t]
    assert words == ["1 line, 100% used", "2 lines, 50% used", "4 lines, 25% used", *["16 lines, 6% used"] * 2]
    assert in_sight(figure)


def test_stride_curves():
    ax = kernel_plots.stride_curves([1, 2, 16, 32], {"a": [60, 40, 8, 4], "b": [30, 20, 5, 3]}).axes[0]
    measured, model = ax.lines[0].get_ydata(), ax.lines[1].get_ydata()
    assert list(measured) == [60, 40, 8, 4]
    np.testing.assert_allclose(model, [60, 40, 60 * 2 / 17, 60 * 2 / 17])
    assert [t.get_text() for t in ax.get_legend().get_texts()][:2] == ["a", "b"]


def test_reduction_tree():
    values = [3, 1, 4, 1, 5, 9, 2, 6]
    found = texts(figure := kernel_plots.reduction_tree(values))
    assert found.count("barrier") == 3 and str(sum(values)) in found
    assert in_sight(figure)


def test_ladder_tiles():
    figure = kernel_plots.ladder_tiles()
    assert [ax.get_title() for ax in figure.axes] == [str(s) for s in ladder.STEPS[:5]]


def test_ladder_bars_and_roofline():
    climbs = {"one": climb(), "two": climb()[::-1][::-1]}
    ax = kernel_plots.ladder_bars(climbs, {"one": 500, "two": 400}).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [s.gflops for s in climb()] * 2
    figure = kernel_plots.ladder_roofline(climbs, {"one": ROOF, "two": ROOF})
    for axes in figure.axes:
        points = {t.get_text(): t.xy for t in axes.texts}
        assert points == {str(s.number): (s.intensity, s.gflops) for s in climb()}
        memory = axes.lines[1].get_xydata() if axes.lines[1].get_label().startswith("memory") else None
        lines = {line.get_label(): line.get_xydata() for line in axes.lines}
        memory = lines["memory: 50 GB/s"]
        np.testing.assert_allclose(memory[:, 1] / memory[:, 0], 50)
        np.testing.assert_allclose(memory[-1], (10, 500))


@pytest.mark.parametrize("chosen, names", [(None, ["1,2", "3"]), (1, ["1", "3"]), (2, ["2", "3"]), (3, ["1,2", "3"])])
def test_steps_that_cover_each_other(chosen, names):
    """Two points at the same place bear one name; all names stand over all points."""
    steps = [ladder.Timed(n, "s", seconds, 1, 10**9, 10**9 // each, 0.0) for n, seconds, each in (
        (1, 0.5, 1), (2, 0.45, 1), (3, 0.4, 1.01))]  # fmt: skip
    ax = plt.figure().add_subplot()
    kernel_plots._steps_on_roof(ax, steps, ROOF, chosen)
    assert [t.get_text() for t in ax.texts] == names
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(points) == 3 and min(t.get_zorder() for t in ax.texts) > max(p.get_zorder() for p in points)


def test_roofline_of_named_kernels():
    figure = kernel_plots.roofline(["dot", "product"], [0.25, 100], [5, 300], ROOF)
    assert {t.get_text(): t.xy for t in figure.axes[0].texts} == {"dot": (0.25, 5), "product": (100, 300)}


@pytest.mark.parametrize("number", range(1, 8))
def test_ladder_step(number):
    figure = kernel_plots.ladder_step(number, climb(), ROOF)
    code = [t[2:] for t in texts(figure)]
    step = ladder.STEPS[number - 1]
    if number < 7:
        assert any("multiply(" in line for line in code)
    assert any("get_g" in line for line in code)
    assert f"step {step}: {step.change}" in [t.get_text() for sub in figure.subfigs for t in sub.texts]


def test_differences():
    assert {mark for mark, _ in kernel_plots.difference(ladder.STEPS[0])} == {" "}
    second = kernel_plots.difference(ladder.STEPS[1])
    assert [line.strip() for mark, line in second if mark == "+"] == ["int j = get_global_id(0), i = get_global_id(1);"]
    assert sum(mark == "-" for mark, _ in second) == 1
    for step in ladder.STEPS:  # what is not gone is the step's own code, in its order
        kept = [line for mark, line in kernel_plots.difference(step) if mark != "-"]
        assert "\n".join(kept) in step.source
    assert all(mark != "-" for mark, _ in kernel_plots.difference(ladder.STEPS[4]))  # which is new throughout


def test_side_by_side():
    figure = kernel_plots.side_by_side(["a", "b"], {"ms": [1, 2], "MB": [30, 4]})
    assert [[bar.get_width() for bar in ax.patches] for ax in figure.axes] == [[1, 2], [30, 4]]
    assert [ax.get_xlabel() for ax in figure.axes] == ["ms", "MB"]


def test_lost_update():
    found = texts(figure := kernel_plots.lost_update())
    assert found.count("reads 5") == 2 and found.count("writes 6") == 2 and "7" not in found
    assert in_sight(figure)


def test_unfolding():
    picture, columns = kernel_plots.unfolding(4, 2).axes
    numbers = np.array([int(t.get_text()) for t in columns.texts]).reshape(4, 9)
    want = np.lib.stride_tricks.sliding_window_view(np.arange(16).reshape(4, 4), (2, 2)).reshape(9, 4).T
    np.testing.assert_array_equal(numbers, want)
    assert len(picture.texts) == 16


@pytest.mark.parametrize(
    "name, platform, kind, label",
    [
        ("pthread-AMD EPYC", "Portable Computing Language", "CPU", "PoCL"),
        ("AMD EPYC", "Intel(R) OpenCL", "CPU", "Intel OpenCL"),
        ("NVIDIA H200", "NVIDIA CUDA", "GPU", "NVIDIA H200"),
    ],
)
def test_labels(name, platform, kind, label):
    assert kernel_plots.label(SimpleNamespace(name=name, platform=platform, kind=kind)) == label
