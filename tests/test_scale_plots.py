"""Pictures of notebook 06: what is drawn, not how it looks."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import clnn
from clnn import modules as nn
from clnn.history import EpochRecord
from clnn.lab import scale_plots as plots

matplotlib.use("Agg")
rng = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    yield
    plt.close("all")


def bars(ax):
    return np.array([patch.get_width() for patch in ax.patches])


def test_colour_grid_shows_bytes_and_numbers_alike():
    images = rng.integers(0, 256, (5, 3, 6, 7), np.uint8)
    for given in (images, images / 255):
        axes = plots.colour_grid(given, [f"n{i}" for i in range(5)], columns=3).axes
        shown = [ax for ax in axes if ax.images]
        assert [ax.get_title() for ax in shown] == ["n0", "n1", "n2", "n3", "n4"]
        for ax, image in zip(shown, images):
            np.testing.assert_allclose(ax.images[0].get_array(), image.transpose(1, 2, 0) / 255)


def test_colour_grid_cuts_off_what_no_screen_shows():
    shown = plots.colour_grid(np.full((1, 3, 2, 2), 1.7)).axes[0].images[0].get_array()
    assert np.all(shown == 1)


def test_share_bars_fill_each_row_and_join_small_parts():
    shares = {"a": {"conv": 0.9, "pool": 0.097, "sum": 0.003}, "b": {"conv": 0.5, "gemm": 0.499, "sgd": 0.001}}
    figure = plots.share_bars(shares)
    (ax,) = figure.axes
    assert bars(ax).sum() == pytest.approx(200)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "conv" and set(names) == {"conv", "gemm", "pool", "other"}
    np.testing.assert_allclose(bars(ax)[:2], [90, 50])


def test_rates_are_on_a_logarithmic_scale():
    ax = plots.rates({"slow": 2.0, "fast": 5e4}, "things a second").axes[0]
    assert ax.get_xscale() == "log" and list(bars(ax)) == [2.0, 5e4]
    assert [t.get_text() for t in ax.texts] == ["2", "50,000"]


def test_channels_marks_the_largest_of_each_row():
    before, after = [1.0, 5.0, 2.0], [0.5, 0.7, 0.9]
    for ax, values, largest in zip(plots.channels(before, after).axes, (before, after), (1, 2)):
        assert [p.get_height() for p in ax.patches] == values
        colours = [p.get_facecolor() for p in ax.patches]
        assert colours.count(colours[largest]) == 1


def test_maps_before_after_shows_each_map_twice():
    before, after = rng.random((3, 4, 5)), rng.random((3, 4, 5)) / 10
    axes = plots.maps_before_after(before, after, ("x", "y")).axes[:6]
    for ax, values in zip(axes, [*before, *after]):
        np.testing.assert_array_equal(ax.images[0].get_array(), values)


def test_pooling_kinds_shows_results_and_gradients():
    values = rng.normal(size=(6, 6))
    pooled, gradients = {"max": values[:3, :3], "mean": values[3:, 3:]}, {"max": values**2, "mean": values**4}
    arrays = [
        np.asarray(ax.images[0].get_array())
        for ax in plots.pooling_kinds(values, pooled, gradients).axes[:6]
        if ax.images
    ]
    for want in (values, *pooled.values(), *gradients.values()):
        assert any(got.shape == want.shape and np.allclose(got, want) for got in arrays)


def test_overfitting_draws_training_and_test_of_each_run():
    epochs, curves = [5, 10], {"plain": ([0.5, 1.0], [0.3, 0.35]), "better": ([0.4, 0.6], [0.3, 0.45])}
    axes = plots.overfitting(epochs, curves).axes
    assert ["35.0%" in axes[0].get_title(), "45.0%" in axes[1].get_title()] == [True, True]
    for ax, (train, test) in zip(axes, curves.values()):
        np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * np.array(train))
        np.testing.assert_allclose(ax.lines[1].get_ydata(), 100 * np.array(test))


@pytest.mark.parametrize("validated", [True, False])
def test_rate_steps_marks_the_drops(validated):
    rows = [(1, 2.0, 0.1), (2, 1.5, 0.1), (3, 1.0, 0.01), (4, 0.9, 0.001)]
    history = [
        EpochRecord(e, loss, 0.5, *((loss + 0.1, 0.4) if validated else (None, None)), 1.0, 10.0, lr)
        for e, loss, lr in rows
    ]
    top, low = plots.rate_steps(history, "test").axes
    assert [line.get_xdata()[0] for line in top.lines[1 + validated :]] == [2.5, 3.5]
    np.testing.assert_allclose(top.lines[0].get_ydata(), [2.0, 1.5, 1.0, 0.9])
    np.testing.assert_allclose(low.lines[0].get_ydata(), [0.1, 0.1, 0.01, 0.001])
    names = ["training", *["test"] * validated, "lr / 10"]
    assert [text.get_text() for text in top.get_legend().get_texts()] == names


def test_rate_steps_of_many_epochs_stay_readable():
    history = [EpochRecord(e, 1 / e, 0.5, None, None, 1.0, 10.0, 0.1 if e < 100 else 0.01) for e in range(1, 141)]
    figure = plots.rate_steps(history)
    assert len(figure.axes[1].get_xticks()) < 20


def test_top_answers_are_the_most_probable_in_order():
    image = rng.integers(0, 256, (3, 5, 7), np.uint8)
    one, two = ({name: p for name, p in zip("abcdefg", rng.dirichlet(np.ones(7)))} for _ in range(2))
    photo, *panels = plots.top_answers(image, {"one": one, "two": two}, top=5).axes
    np.testing.assert_array_equal(photo.images[0].get_array(), image.transpose(1, 2, 0))
    for ax, name, answer in zip(panels, ("one says", "two says"), (one, two), strict=True):
        best = sorted(answer, key=lambda letter: -answer[letter])[:5]
        assert ax.get_title() == name and [t.get_text() for t in ax.get_yticklabels()] == best
        np.testing.assert_allclose(bars(ax), [100 * answer[letter] for letter in best])


def test_device_lanes_has_a_lane_for_each_device(device):
    devices = device.split(2) if device.kind == "CPU" and device.cores > 1 else [device]
    layers = [nn.Linear(5, 4).to(d) for d in devices]
    runs = {}
    for name, used in (("one", devices[:1]), ("all", devices)):
        with clnn.profile() as runs[name]:
            for layer in layers[: len(used)]:
                layer(clnn.ones(3, 5, device=layer.weight.device))
    figure = plots.device_lanes(runs, {"gemm": "products"})
    axes = figure.axes
    assert [len(ax.get_yticks()) for ax in axes] == [1, len(devices)]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"products", "other"}
    for ax, p in zip(axes, runs.values()):
        drawn = sum(len(collection.get_paths()) for collection in ax.collections)
        assert drawn == len(p.launches)
        starts = [path.get_extents().x0 for collection in ax.collections for path in collection.get_paths()]
        assert min(starts) == pytest.approx(0, abs=1e-9)


def test_records_places_each_training():
    rows = [("small", 4, 200.0), ("large", 2048, 3e5), ("mine", 1, 12.0)]
    (ax,) = plots.records(rows, "mine").axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
    assert points == [(count, rate) for _, count, rate in rows]
    assert {"small", "large", "mine"} <= {text.get_text() for text in ax.texts}
