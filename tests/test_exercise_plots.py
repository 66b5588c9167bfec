"""The pictures of notebook 05's exercises: a work-item's cells are those that its results depend on."""

from itertools import product

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from clnn.errors import ClnnError
from clnn.lab import exercise_plots as ep
from clnn.lab import kernel_check, plots
from clnn.lab.check import exercises_of

matplotlib.use("Agg")
NAMES = exercises_of("gpu_kernels")
rng = np.random.default_rng(3)
# How the exercises call the extents of their first array
EXTENTS = {"bias_tanh": ("rows", "columns"), "max_pool": ("height", "width"), "tiled_gemm": ("M", "K")}


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    yield
    plt.close("all")


def parts(name, task=0):
    """The picture's grids by the names of the kernel's arrays, the names of what it reads, that of what it writes."""
    arrays = [a for a in kernel_check.find_exercise(name).tasks[task].arguments if a.space]
    grids = {grid.name.strip(): grid for grid in ep.picture(name).grids}
    reads = [a.name for a in arrays if not a.written and a.name in grids]
    return grids, reads, next(a.name for a in arrays if a.written)


def reference(name, arrays, task=0):
    """The right result for arrays in the shapes of the grids, in that of its own."""
    grids, reads, result = parts(name, task)
    first = arrays[reads[0]]
    values = {"slope": 0.1, "w": np.array([3.0, 1, 4, 2, 5]), "n": first.size}
    values |= dict(zip(EXTENTS.get(name, ("rows", "columns")), first.shape))
    values |= {key: v.ravel() if len(v) == 1 else v for key, v in arrays.items()}
    return np.reshape(
        kernel_check._ask(kernel_check.find_exercise(name).tasks[task].reference, values), grids[result].shape
    )


def needed(name, cells, task=0):
    """For each array that is read: the cells whose change changes one of these cells of the result."""
    grids, reads, _ = parts(name, task)
    arrays = {key: rng.normal(size=grids[key].shape) for key in reads}
    found = {key: set() for key in reads}

    def results():
        return [reference(name, arrays, task)[cell] for cell in cells]

    before = results()
    for key, cell, by in ((k, c, d) for k in reads for c in np.ndindex(arrays[k].shape) for d in (50, -50)):
        kept = arrays[key][cell]
        arrays[key][cell] += by
        if results() != before:
            found[key].add(cell)
        arrays[key][cell] = kept
    return found


def touched(name, color, **choices):
    """The cells that the work-item of this colour touches, by grid; places past the ends are left out."""
    picture = ep.picture(name, **choices)
    touch = next(t for t in picture.touches if t.color == color)
    return {key: [c for c in cells if picture[key].holds(c)] for key, cells in touch.cells.items()}


def test_every_exercise_has_its_picture():
    assert list(ep._pictures) == NAMES
    with pytest.raises(ClnnError, match="no picture of 'ad'; there are add, leaky_relu"):
        ep.draw("ad")


@pytest.mark.parametrize("name", ["add", "leaky_relu", "bias_tanh", "row_sum", "max_pool", "row_softmax"])
def test_a_work_item_alone(name):
    tasks = len(kernel_check.find_exercise(name).tasks)
    for task in range(tasks):
        grids, reads, result = parts(name, task)
        rows, columns = ((*grids[result].full, 1) if "work-items" not in grids else (*grids["work-items"].shape, 1))[:2]
        items = list(range(rows * columns)) if 1 in (rows, columns) else list(product(range(columns), range(rows)))
        everything = set()
        for item in items:
            cells = touched(name, ep.ORANGE, items=(items[0], item))
            cells = {key: v for key, v in cells.items() if key.endswith(" ") == (task == 1) or key[0] == "d"}
            cells = {key.strip(): v for key, v in cells.items()}
            everything |= set(cells[result])
            if cells[result]:
                assert {key: set(cells[key]) for key in reads} == needed(name, cells[result], task), item
            elif name != "max_pool":
                assert not any(cells[key] for key in reads), item
        assert everything == set(np.ndindex(grids[result].shape))


@pytest.mark.parametrize("name", ["leaky_relu", "row_sum", "max_pool", "row_softmax"])
def test_the_numbers_shown_are_right(name):
    for task in range(len(kernel_check.find_exercise(name).tasks)):
        grids, reads, result = parts(name, task)
        shown = {key: grids[key].texts.astype(float) for key in (*reads, result)}
        right = reference(name, {key: shown[key].astype(int) for key in reads}, task)
        assert shown[result] == pytest.approx(right, abs=0.006)


def test_histogram_colours_what_a_bin_counts():
    for k in range(6):
        cells = touched("histogram", ep.BLUE, items=(k, 7))
        x = ep.picture("histogram", items=(k, 7))[f"x, read by {k}"].texts
        assert cells[f"x, read by {k}"] == [(0, i) for i in np.flatnonzero(x[0] == str(k))]
        assert len(cells[f"x, read by {k}"]) == int(ep.picture("histogram")["counts"].texts[0, k])
        assert cells["counts"] == cells["work-items"] == [(0, k)]


def test_transpose_goes_through_the_tile():
    written, read = "tile (local), written", "tile (local), read"
    ways = [ep.picture("transpose", items=(t, t)).touches[1].cells for t in product(range(4), range(4))]
    copied = {way[written][0]: way["x"][0] for way in ways}
    assert set(copied) == set(np.ndindex(4, 4))
    y = ep.picture("transpose")["y"]
    ends = {way["y"][0]: copied[way[read][0]] for way in ways if y.holds(way["y"][0])}
    for end, start in ends.items():
        assert needed("transpose", [end])["x"] == {start}
    group = ep.picture("transpose").touches[0].cells
    assert set(group["y"]) == set(ends) and set(group["x"]) == set(ends.values())


def test_conv1d_copies_its_part_and_reads_five():
    first, by, read = 6, "part (local), copied by", "part (local), read"
    items = [ep.picture("conv1d", items=(me, me)) for me in range(8)]
    copied = {}
    for me, picture in enumerate(items):
        cells = picture.touches[1].cells
        copied |= dict(zip(cells[by], cells["x"], strict=True))
        assert all(picture[by].texts[cell] == str(me) for cell in cells[by])
    assert copied == {(0, t): (0, first + t) for t in range(12)}
    for picture in items:
        cells = picture.touches[1].cells
        if picture["y"].holds(cells["y"][0]):
            from_x = {copied[cell] for cell in cells[read]}
            assert {c for c in from_x if picture["x"].holds(c)} == needed("conv1d", cells["y"])["x"]


def test_group_sum_adds_what_the_arrows_bring():
    picture = ep.picture("group_sum")
    arriving = {}
    for arrow in picture.arrows:
        arriving.setdefault(arrow.end, []).append(arrow.begin)
    for (name, cell), sources in arriving.items():
        total = sum(float(picture[source].texts[place]) for source, place in sources)
        assert float(picture[name].texts[cell]) == total
    x = picture["x"].texts[0].astype(float)
    assert picture["sums"].texts[0].astype(float) == pytest.approx([x[:8].sum(), x[8:].sum()])
    assert picture["part (local)"].texts[0].astype(float) == pytest.approx([*x[8:], 0, 0, 0])
    assert [len(v) for v in arriving.values()] == [2] * 7 + [1]
    for me in range(8):
        cells = touched("group_sum", ep.BLUE, items=(me, 7))
        steps = [bool(cells[f"after step {step}"]) for step in (4, 2, 1)]
        assert steps == [me < 4, me < 2, me < 1] and ("sums" in cells) == (me == 0)


def test_tiled_gemm_reads_a_row_and_a_column_in_tiles():
    a, b = "tile of a (local)", "tile of b (local)"
    copied, read = {}, {}
    for step, item in product((0, 1), product(range(4), range(4))):
        _, copies, reads = (t.cells for t in ep.picture("tiled_gemm", step=step, item=item).touches)
        for tile, array in ((a, "a"), (b, "b")):
            copied[step, array, copies[tile][0]] = copies[array][0]
            read.setdefault((item, array), []).extend((step, array, cell) for cell in reads[tile])
    assert len(copied) == 2 * 2 * 16
    grids = {grid.name: grid for grid in ep.picture("tiled_gemm").grids}
    for item in product(range(4), range(4)):
        (cell,) = ep.picture("tiled_gemm", item=item).touches[1].cells["c"]
        if grids["c"].holds(cell):
            got = {array: {copied[key] for key in read[item, array]} for array in "ab"}
            got = {array: {c for c in cells if grids[array].holds(c)} for array, cells in got.items()}
            assert got == needed("tiled_gemm", [cell])


@pytest.mark.parametrize("name", NAMES)
def test_drawn(name):
    picture = ep.picture(name)
    figure = ep.draw(name)
    (ax,) = figure.axes
    assert figure.get_figwidth() == plots.WIDTH
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [t.label for t in picture.touches]
    painted = {}
    for patch in ax.patches:
        if patch.get_facecolor()[3] and not patch.get_hatch():
            place = int(patch.get_y() // 0.1), patch.get_x()
            painted.setdefault(to_hex(patch.get_facecolor()), []).append(place)
    for touch in picture.touches:
        places = painted.get(to_hex(touch.color), [])
        for key, cells in touch.cells.items():
            grid = picture[key]
            for row, column in (c for c in cells if grid.holds(c)):
                x, y = grid.at[1] + column, grid.at[0] + row
                covered = touch.color == ep.GROUP and any(
                    (row, column) in t.cells.get(key, ()) for t in picture.touches[1:]
                )
                found = any(p == int(y // 0.1) and x <= q < x + 1 for p, q in places)
                assert found != covered, (key, row, column)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    figure.canvas.draw()
    for text in ax.texts:
        box = text.get_window_extent().transformed(ax.transData.inverted())
        assert left <= box.x0 and box.x1 <= right and top <= box.y1 and box.y0 <= bottom, text.get_text()
    legend = ax.get_legend().get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    assert all(not legend.overlaps(text.get_window_extent()) for text in ax.texts)
