"""The notebooks' pictures: what is drawn, not how it looks."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import clnn
from clnn import modules as nn
from clnn.lab import plots

matplotlib.use("Agg")
rng = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def frames(ax):
    """(row, column, height, width, colour) of the frames on an image."""
    boxes = [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [
        (p.get_y() + 0.5, p.get_x() + 0.5, p.get_height(), p.get_width(), to_hex(p.get_edgecolor()).upper())
        for p in boxes
    ]


def numbers(ax):
    return [float(text.get_text()) for text in ax.texts]


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def bar_values(ax):
    return [max(p.get_width(), p.get_height(), key=abs) for p in ax.patches]


def test_style_is_wide_and_for_all_eyes():
    plots.use_style()
    assert plt.rcParams["figure.figsize"][0] == plots.WIDTH
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(colors)) == len(colors) == 7


def test_photo_and_numbers():
    photo = rng.random((20, 30))
    left, right = plots.photo_and_numbers(photo, 4, 7, size=5).axes
    assert np.array_equal(shown(left), photo)
    assert frames(left) == [(4, 7, 5, 5, plots.ORANGE)]
    assert (left.get_xlabel(), left.get_ylabel()) == ("column (pixels)", "row (pixels)")
    assert numbers(right) == pytest.approx(photo[4:9, 7:12].ravel(), abs=0.0051)


def test_centre_element_adds_up():
    image, kernel = rng.random((15, 15)), rng.standard_normal((3, 3))
    picture, weights, products, total = plots.centre_element(image, kernel, row=6, column=8).axes
    assert np.array_equal(shown(picture), image[3:10, 5:12])
    assert frames(picture) == [(2, 2, 3, 3, plots.BLUE), (3, 3, 1, 1, plots.ORANGE)]
    assert np.array_equal(shown(weights), kernel)
    assert numbers(products) == pytest.approx((image[5:8, 7:10] * kernel).ravel(), abs=0.0051)
    assert numbers(total) == pytest.approx([np.sum(image[5:8, 7:10] * kernel)], abs=0.0051)


def test_kernels_on_photo_scales():
    photo, results = rng.random((9, 9)), rng.standard_normal((2, 7, 7))
    kernels = {"mean": np.full((3, 3), 1 / 9), "edge": np.array([[-1.0, 0, 1]] * 3)}
    figure = plots.kernels_on_photo(photo, kernels, results)
    top, bottom = figure.axes[:3], figure.axes[3:]
    assert [ax.get_title() for ax in top[1:]] == ["mean", "edge"]
    for ax, data in zip(bottom, [photo, *results]):
        assert np.array_equal(shown(ax), data)
    low, high = bottom[2].images[0].get_clim()
    assert low == -high < 0
    assert bottom[1].images[0].get_clim() == (0, 1)


@pytest.mark.parametrize("signed", [False, True])
def test_image_grid(signed):
    images = rng.standard_normal((7, 4, 5))
    figure = plots.image_grid(images, list("abcdefg"), columns=3, signed=signed, suptitle="seven")
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(figure.axes) == 9 and len(drawn) == 7
    assert [ax.get_title() for ax in drawn] == list("abcdefg")
    assert all(np.array_equal(shown(ax), image) for ax, image in zip(drawn, images))
    largest = np.abs(images).max()
    assert {ax.images[0].get_clim() for ax in drawn} == {(-largest, largest) if signed else (0, 1)}
    assert figure.get_suptitle() == "seven"


def test_colour_bar_takes_the_images_scale():
    figure = plots.colour_bar(plots.image_grid(rng.standard_normal((3, 4, 4)), columns=3, signed=True), "weight")
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "weight"
    assert bar.get_ylim() == pytest.approx(figure.axes[0].images[0].get_clim())


def test_window_places_agree_with_conv2d(device):
    settings = [(1, 0), (2, 1), (3, 2)]
    figure = plots.window_places(8, 3, settings)
    for ax, (stride, padding) in zip(figure.axes, settings, strict=True):
        out = clnn.ops.conv2d(clnn.ones(1, 1, 8, 8), clnn.ones(1, 1, 3, 3), stride=stride, padding=padding)
        assert f"{out.shape[2]} x {out.shape[3]}" in ax.get_title()
        centres = {(x, y) for line in ax.lines for x, y in zip(*line.get_data(), strict=True)}
        assert len(centres) == out.shape[2] * out.shape[3]
        assert min(centres) == (1 - padding, 1 - padding)
        assert frames(ax)[0] == (-padding, -padding, 3, 3, plots.BLUE)


def test_pooling_frames_each_window():
    values = rng.standard_normal((4, 6))
    pooled = values.reshape(2, 2, 3, 2).max((1, 3))
    left, right = plots.pooling(values, pooled).axes
    assert numbers(left) == pytest.approx(values.ravel(), abs=0.0051)
    assert numbers(right) == pytest.approx(pooled.ravel(), abs=0.0051)
    assert [f[-1] for f in frames(left)] == [f[-1] for f in frames(right)]
    assert len(frames(left)) == pooled.size


def test_lines():
    (ax,) = plots.lines([0, 1, 2], {"a": [1, 2, 3], "b": [3, 5, 4]}, "steps", "loss", "title").axes
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert list(ax.lines[1].get_ydata()) == [3, 5, 4]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("steps", "loss", "title")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_network_names_layers_and_shapes(device):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4))
    (ax,) = plots.network(clnn.summary(net, (1, 1, 8, 8))).axes
    above, below = ([t.get_text() for t in ax.texts if (t.get_position()[1] > 0) == up] for up in (True, False))
    assert above == ["input", "Conv2d\nTanh", "MaxPool2d", "Flatten", "Linear"]
    assert below == ["1 map\n8 x 8", "3 maps\n6 x 6", "3 maps\n3 x 3", "27\nnumbers", "4\nnumbers"]
    assert len(ax.patches) == 1 + 3 + 3 + 1 + 1


def test_cost_bars_are_shares_of_the_whole(device):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 6 * 6, 4))
    figure = plots.cost_bars(clnn.summary(net, (1, 1, 8, 8)))
    parameters, work = (bar_values(ax) for ax in figure.axes)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["0: Conv2d", "3: Linear"]
    assert [p.get_width() for p in figure.axes[0].patches] == pytest.approx([100 * 30 / 466, 100 * 436 / 466])
    assert sum(work) == pytest.approx(100) and sum(parameters) == pytest.approx(100)


def test_receptive_fields_are_centred():
    figure = plots.receptive_fields(rng.random((28, 28)), {"one": 6, "two": 16})
    assert [frames(ax)[0][:4] for ax in figure.axes] == [(11, 11, 6, 6), (6, 6, 16, 16)]


def test_confusion_shows_counts_and_colours_mistakes_only():
    matrix = np.array([[50, 2, 0], [1, 40, 3], [0, 0, 60]])
    ax, bar = plots.confusion(matrix, "abc").axes
    assert numbers(ax) == list(matrix.ravel())
    assert ax.images[0].get_array().max() == 3
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("what the net answered", "what the image shows")
    assert bar.get_ylabel() == "number of mistakes"


def test_confusion_without_mistakes():
    ax, _ = plots.confusion(np.diag([3, 4]), "ab").axes
    assert numbers(ax) == [3, 0, 0, 4]


def test_class_bars():
    (ax,) = plots.class_bars([1.25, 3], ["cat", "dog"], "errors (%)").axes
    assert [p.get_height() for p in ax.patches] == [1.25, 3]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog"]
    assert ax.get_ylabel() == "errors (%)"


def test_grouped_bars():
    (ax,) = plots.grouped_bars(["x", "y", "z"], {"a": [1, 2, 3], "b": [4, 5, 6]}, "accuracy (%)").axes
    assert [p.get_height() for p in ax.patches] == [1, 2, 3, 4, 5, 6]
    lefts = [p.get_x() for p in ax.patches]
    assert lefts[3] == pytest.approx(lefts[0] + ax.patches[0].get_width())


def test_mistakes_say_right_class_answer_and_probability():
    p = np.array([[0.1, 0.9], [0.75, 0.25], [0.6, 0.4]])
    figure = plots.mistakes(rng.random((3, 5, 5)), np.array([0, 1, 1]), p, ("cat", "dog"), columns=2)
    titles = [ax.get_title() for ax in figure.axes if ax.images]
    assert titles == ["cat read as dog\n90.0%", "dog read as cat\n75.0%", "dog read as cat\n60.0%"]


def test_answer_lists_the_most_probable_first():
    p = np.array([0.05, 0.6, 0.3, 0.05])
    left, right = plots.answer(rng.random((4, 4)), p, "abcd", top=2).axes
    assert [bar.get_width() for bar in right.patches] == pytest.approx([60, 30])
    assert [t.get_text() for t in right.get_yticklabels()] == ["b", "c"]
    assert right.yaxis_inverted()
    assert left.images


def test_answer_table_says_what_each_network_says_to_each_image():
    p = np.array([[0.1, 0.9, 0.0], [0.75, 0.25, 0.0]])
    images = rng.integers(0, 256, (2, 4, 4))
    (ax,) = plots.answer_table(images, {"one": p, "two": p[::-1]}, "abc", labels=[1, 0]).axes
    assert [t.get_text() for t in ax.texts] == ["b: 90% ✓", "a: 75% ✗", "a: 75% ✓", "b: 90% ✗"]
    cells = {tuple(np.floor(t.get_position())): t.get_text()[0] for t in ax.texts}
    assert cells == {(0, -1): "b", (0, -2): "a", (1, -1): "a", (1, -2): "b"}  # an image's answers stand below it
    assert [t.get_text() for t in ax.get_yticklabels()] == ["", "one", "two"]
    assert all(np.array_equal(shown.get_array(), image) for shown, image in zip(ax.images, images, strict=True))
    plain = plots.answer_table(images, {"one": p}, "abc").axes[0]
    assert [t.get_text() for t in plain.texts] == ["b: 90%", "a: 75%"]


def test_what_pooling_keeps():
    image = rng.random((6, 6))
    figure = plots.what_pooling_keeps(image, lambda x: x[:5, :5] - 0.5)
    kept = [shown(ax) for ax in figure.axes[:6]]
    assert np.array_equal(kept[3], 1 - image)
    assert kept[2] == pytest.approx((image[:4, :4] - 0.5).reshape(2, 2, 2, 2).max((1, 3)))
    assert kept[5] == pytest.approx((0.5 - image[:4, :4]).reshape(2, 2, 2, 2).max((1, 3)))
