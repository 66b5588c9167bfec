"""The pictures of the notebooks. Every function draws one figure and returns it; ``plt.show()`` shows it.

Colours stay apart for colour-blind readers: the palette of Okabe and Ito ("Color Universal Design", 2008), grey for
images, cividis for amounts, and purple through white to orange for numbers that may be negative.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
SIGNED = "PuOr_r"
WIDTH = 9  # inches: as wide as a notebook's page


def use_style() -> None:
    """Set matplotlib's defaults for the course: sizes, fonts, colours."""
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.2),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK]),
            "image.cmap": "gray",
            "legend.frameon": False,
        }
    )


def _bare(ax, title: str = ""):
    """Axes that hold an image: a thin frame, no ticks."""
    ax.set(xticks=[], yticks=[])
    ax.set_title(title)
    for spine in ax.spines.values():
        spine.set(visible=True, color="0.6", linewidth=0.6)
    return ax


def _frame(ax, row, column, height, width, color, **style):
    """A rectangle around the pixels from (row, column) on."""
    ax.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5),
            width,
            height,
            fill=False,
            edgecolor=color,
            zorder=3,
            **{"linewidth": 2.5, **style},
        )
    )


def _table(ax, values, title: str = "", fmt: str = "{:.2f}", cmap: str = "gray", norm=None, size: float = 8):
    """A small array as coloured squares with its numbers in them."""
    values = np.asarray(values, float)
    image = _bare(ax, title).imshow(values, cmap=cmap, norm=norm or Normalize(0, 1))
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ax.text(j, i, fmt.format(value), ha="center", va="center", size=size, color="white" if dark else "black")
    return image


def _signed(values, percentile: float = 100) -> Normalize:
    """A scale that is white at zero and full at this percentile of the absolute values."""
    limit = float(np.percentile(np.abs(values), percentile)) or 1.0
    return Normalize(-limit, limit)


def photo_and_numbers(photo, row: int, column: int, size: int = 10):
    """A photo, and beside it the numbers of the ``size`` x ``size`` pixels whose first is (row, column)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.7), width_ratios=(1.35, 1))
    left.imshow(photo, vmin=0, vmax=1)
    left.set(xlabel="column (pixels)", ylabel="row (pixels)", title=f"the photo: {photo.shape[0]} x {photo.shape[1]}")
    _frame(left, row, column, size, size, ORANGE, linewidth=2)
    part = photo[row : row + size, column : column + size]
    _table(right, part, f"the {size} x {size} pixels in the box: 0 is black, 1 is white", size=7)
    return figure


def centre_element(image, kernel, row: int, column: int, around: int = 2):
    """One step of a convolution: the kernel's centre over pixel (row, column), the products, and their sum.

    ``around`` is how many more pixels are shown on each side of the window. After Bernauer's slide "Convolution".
    """
    half, n = len(kernel) // 2, len(kernel)
    window = image[row - half : row + half + 1, column - half : column + half + 1]
    reach = half + around
    shown = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    products = window * kernel
    scale = _signed(products)
    figure, axes = plt.subplots(1, 4, figsize=(WIDTH, 3.3), width_ratios=(2 * reach + 1, n, n, 1.4))
    _table(axes[0], shown, f"the picture around pixel ({row}, {column})")
    _frame(axes[0], around, around, n, n, BLUE, linewidth=3)
    _frame(axes[0], reach, reach, 1, 1, ORANGE, linewidth=3)
    _table(axes[1], kernel, "times the kernel", "{:g}", SIGNED, _signed(kernel, 100))
    _frame(axes[1], half, half, 1, 1, ORANGE, linewidth=3)
    _table(axes[2], products, "nine products", "{:.2f}", SIGNED, scale)
    _table(axes[3], [[products.sum()]], "their sum", "{:.2f}", SIGNED, scale, size=9)
    _frame(axes[3], 0, 0, 1, 1, ORANGE, linewidth=3)
    return figure


def kernels_on_photo(photo, kernels: dict, results):
    """Each named kernel above the photo it made; numbers below 0 are purple, above 0 orange."""
    figure, axes = plt.subplots(2, len(kernels) + 1, figsize=(WIDTH, 3.4), height_ratios=(1, 1.15))
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, "kernel (above)\nand its result (below)", ha="center", va="center")
    _bare(axes[1, 0], "the photo").imshow(photo, vmin=0, vmax=1)
    for (name, kernel), result, (top, bottom) in zip(kernels.items(), results, axes[:, 1:].T, strict=True):
        _table(top, kernel, name, "{:.2g}", SIGNED, _signed(kernel), size=8)
        positive = np.min(kernel) >= 0
        norm = Normalize(0, 1) if positive else _signed(result, 99)
        _bare(bottom).imshow(result, cmap="gray" if positive else SIGNED, norm=norm)
    return figure


def image_grid(images, titles=None, columns: int = 10, cmap: str = "gray", signed: bool = False, suptitle: str = ""):
    """Images (n, H, W) in rows of ``columns``, all on one scale: from 0 to 1, or white at zero if ``signed``."""
    images = np.asarray(images)
    rows = -(-len(images) // columns)
    side = WIDTH / columns
    height = rows * (side + (0.25 if titles is not None else 0)) + (0.3 if suptitle else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False)
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images)):
        norm = _signed(images) if signed else Normalize(0, 1)
        shown = _bare(ax, str(titles[i]) if titles is not None else "")
        shown.imshow(image, cmap=SIGNED if signed else cmap, norm=norm)
    if suptitle:
        figure.suptitle(suptitle, size=10)
    return figure


def colour_bar(figure, label: str):
    """Add a scale for the images of a figure, all drawn on one scale."""
    image = next(ax.images[0] for ax in figure.axes if ax.images)
    figure.colorbar(image, ax=figure.axes, label=label, shrink=0.8, pad=0.01)
    return figure


def window_places(size: int, kernel: int, settings):
    """Where the windows of a convolution lie on a picture of ``size`` x ``size``, for (stride, padding) pairs."""
    figure, axes = plt.subplots(1, len(settings), figsize=(WIDTH, WIDTH / len(settings) + 0.4))
    most = max(padding for _, padding in settings)
    for ax, (stride, padding) in zip(axes, settings, strict=True):
        count = (size + 2 * padding - kernel) // stride + 1
        _bare(ax, f"stride {stride}, padding {padding}:\n{count} x {count} results")
        grid = np.pad(np.full((size, size), 0.75), padding, constant_values=0.95)
        low, high = -padding - 0.5, size + padding - 0.5
        ax.imshow(grid, extent=(low, high, high, low), vmin=0, vmax=1)
        cuts = np.arange(low, high + 1)
        ax.hlines(cuts, low, high, color="white", linewidth=0.8)
        ax.vlines(cuts, low, high, color="white", linewidth=0.8)
        _frame(ax, -padding, -padding, kernel, kernel, BLUE)
        _frame(ax, -padding + 0.12, stride - padding + 0.12, kernel - 0.24, kernel, RED, linestyle="--")
        centres = np.arange(count) * stride - padding + (kernel - 1) / 2
        ax.plot(*np.meshgrid(centres, centres), "o", color=BLACK, markersize=4)
        ax.set(xlim=(-most - 0.6, size + most - 0.4), ylim=(size + most - 0.4, -most - 0.6), frame_on=False)
    return figure


def pooling(values, pooled, window: int = 2, name: str = "largest"):
    """A small table of numbers, its windows framed, and beside it one number for each window."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH * 0.6, 2.6), width_ratios=(len(values), len(pooled)))
    colors = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
    _table(left, values, f"{len(values)} x {len(values[0])} numbers", cmap=SIGNED, norm=_signed(values))
    _table(right, pooled, f"{name} of each\nwindow", cmap=SIGNED, norm=_signed(values))
    for k, (i, j) in enumerate(np.ndindex(*np.shape(pooled))):
        style = {"color": colors[k % len(colors)], "linewidth": 3}
        _frame(left, window * i + 0.05, window * j + 0.05, window - 0.1, window - 0.1, **style)
        _frame(right, i + 0.05, j + 0.05, 0.9, 0.9, **style)
    return figure


def lines(x, curves: dict, xlabel: str, ylabel: str, title: str = ""):
    """One line with markers for each name in ``curves``, over the same x."""
    figure, ax = plt.subplots()
    for (name, y), marker in zip(curves.items(), "os^Dv*P"):
        ax.plot(x, y, marker=marker, markersize=5, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.xaxis.get_major_locator().set_params(integer=all(v == int(v) for v in x))
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def network(summary):
    """What flows between the layers of a net, from ``clnn.summary``: stacks of maps, or bars where it is flat.

    A layer that keeps the shape, such as Tanh, is named together with the one before it.
    """
    stages = [["input", summary.input_shape]]
    for row in summary.layers:
        if row.output_shape == stages[-1][1]:
            stages[-1][0] += f"\n{row.kind}"
        else:
            stages.append([row.kind, row.output_shape])
    figure, ax = plt.subplots(figsize=(WIDTH, 2.5))
    for x, (name, (_, count, *size)) in enumerate(stages):
        _stage(ax, 1.25 * x, count, size, summary.input_shape[-1])
        ax.text(1.25 * x, 0.85, name, ha="center", va="bottom", size=9)
        numbers = f"{count} map{'s' * (count > 1)}\n{size[0]} x {size[1]}" if size else f"{count}\nnumbers"
        ax.text(1.25 * x, -0.75, numbers, ha="center", va="top", size=9)
    ax.set(xlim=(-0.7, 1.25 * len(stages) - 0.5), ylim=(-1.3, 1.5), aspect="equal")
    ax.axis("off")
    return figure


def _stage(ax, x, count, size, largest):
    """Up to six squares behind one another, or a bar as high as the logarithm of the count."""
    drawn = min(count, 6) if size else 1
    height, width = (1.1 * n / largest for n in size) if size else (0.4 * np.log10(count), 0.12)
    for k in reversed(range(drawn)):
        shift = 0.05 * (k - (drawn - 1) / 2)
        corner = (x + shift - width / 2, shift - height / 2)
        ax.add_patch(Rectangle(corner, width, height, facecolor="#CFE6F5", edgecolor=BLUE))


def cost_bars(summary):
    """Each layer's share of a net's parameters and multiply-adds, from ``clnn.summary``; layers with none left out."""
    rows = [row for row in summary.layers if row.parameters or row.multiply_adds]
    names = [f"{row.name}: {row.kind}" for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.45 * len(rows) + 0.9), sharey=True)
    for ax, what, color in zip(axes, ("parameters", "multiply_adds"), (BLUE, ORANGE), strict=True):
        counts = np.array([getattr(row, what) for row in rows])
        bars = ax.barh(names, 100 * counts / counts.sum(), color=color)
        ax.bar_label(bars, [f"{c:,} ({c / counts.sum():.1%})" for c in counts], padding=3, size=9)
        ax.set(xlim=(0, 135), xticks=range(0, 101, 25), xlabel="share (%)", title=what.replace("_", "-"))
    axes[0].invert_yaxis()
    return figure


def receptive_fields(image, sizes: dict):
    """Squares amid an image: the pixels of it that one number of each layer depends on (a layer's name: the width)."""
    figure, axes = plt.subplots(1, len(sizes), figsize=(WIDTH, WIDTH / len(sizes) + 0.4))
    for ax, (name, size), color in zip(axes, sizes.items(), (BLUE, SKY, RED, ORANGE, GREEN), strict=False):
        _bare(ax, f"{name}\n{size} x {size} pixels").imshow(image, vmin=0, vmax=1)
        start = (len(image) - size) // 2
        _frame(ax, start, start, size, size, color)
    return figure


def confusion(matrix, classes):
    """A confusion matrix: row the true class, column the answer. Colour shows the mistakes only."""
    matrix = np.asarray(matrix)
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    figure, ax = plt.subplots(figsize=(6.2, 5.2))
    image = ax.imshow(np.ma.masked_where(np.eye(len(matrix), dtype=bool), wrong), cmap="cividis", vmin=0)
    for (i, j), count in np.ndenumerate(matrix):
        dark = i != j and count < 0.6 * max(wrong.max(), 1)
        style = {"color": "white" if dark else "black", "weight": "bold" if i == j else "normal"}
        ax.text(j, i, str(count), ha="center", va="center", size=8, **style)
    ticks = range(len(classes))
    ax.set(xticks=ticks, yticks=ticks, xticklabels=classes, yticklabels=classes)
    ax.set(xlabel="what the net answered", ylabel="what the image shows")
    ticks = MaxNLocator(6, integer=True, min_n_ticks=1)
    figure.colorbar(image, ax=ax, label="number of mistakes", shrink=0.8, ticks=ticks)
    return figure


def class_bars(values, classes, ylabel: str, xlabel: str = "class"):
    """One bar a class, with its value on top."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.6))
    bars = ax.bar([str(c) for c in classes], values, color=BLUE)
    ax.bar_label(bars, [f"{v:.1f}" for v in values], padding=2, size=9)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(y=0.15)
    return figure


def grouped_bars(groups, bars: dict, ylabel: str):
    """For each name in ``groups`` one bar of each series in ``bars``, side by side."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3))
    width = 0.8 / len(bars)
    for k, (name, values) in enumerate(bars.items()):
        drawn = ax.bar(np.arange(len(groups)) + (k - (len(bars) - 1) / 2) * width, values, width, label=name)
        ax.bar_label(drawn, [f"{v:.1f}" for v in values], padding=2, size=9)
    ax.set(xticks=range(len(groups)), xticklabels=groups, ylabel=ylabel)
    ax.margins(y=0.12)
    figure.legend(loc="outside upper right", ncols=len(bars))
    return figure


def mistakes(images, labels, probabilities, classes, columns: int = 8):
    """Images with the right class, the answer given and its probability, for as many as there are."""
    answers = probabilities.argmax(1)
    titles = [
        f"{classes[t]} read as {classes[a]}\n{p[a]:.1%}" for t, a, p in zip(labels, answers, probabilities, strict=True)
    ]
    figure = image_grid(images, titles, columns)
    for ax in figure.axes:
        ax.title.set_size(8)
    figure.set_figheight(figure.get_figheight() + 0.15 * (-(-len(images) // columns)))
    return figure


def answer(image, probabilities, classes, top: int = 3):
    """An image and the ``top`` most probable classes as bars."""
    best = np.argsort(probabilities)[::-1][:top]
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH * 0.7, 2.2), width_ratios=(1, 2.6))
    _bare(left, "the image").imshow(image, vmin=0, vmax=1)
    bars = right.barh([str(classes[k]) for k in best], 100 * probabilities[best], color=BLUE)
    right.bar_label(bars, [f"{probabilities[k]:.2%}" for k in best], padding=3)
    right.set(xlim=(0, 118), xticks=range(0, 101, 25), xlabel="probability (%)", ylabel="class", title="the answer")
    right.invert_yaxis()
    return figure


def answer_table(images, answers: dict, classes, labels=None):
    """A row of images and, below, what each network says to each: its class, how sure it is, and right or wrong.

    ``answers`` holds the probabilities (images, classes) of each network by its name, ``labels`` the right classes.
    """
    columns = max(len(images), 1.5)  # a single image is not drawn larger
    figure, ax = plt.subplots(figsize=(1.5 + 1.07 * columns, 1.1 + 0.5 * len(answers)))
    for column, image in enumerate(images):
        ax.imshow(image, extent=(column + 0.1, column + 0.9, 0, 1.6), vmin=0, vmax=255, aspect="auto")
        ax.add_patch(Rectangle((column + 0.1, 0), 0.8, 1.6, fill=False, edgecolor="0.6", linewidth=0.6))
        for row, probabilities in enumerate(answers.values()):
            best = probabilities[column].argmax()
            text, fill = f"{classes[best]}: {probabilities[column, best]:.0%}", "0.94"
            if labels is not None:
                mark, fill = ("✓", SKY) if best == labels[column] else ("✗", ORANGE)
                text = f"{text} {mark}"
            ax.add_patch(Rectangle((column + 0.04, -row - 0.95), 0.92, 0.9, color=fill, alpha=0.6, linewidth=0))
            ax.text(column + 0.5, -row - 0.5, text, ha="center", va="center")
    ax.set(xlim=(0, columns), ylim=(-len(answers), 1.7), xticks=[])
    ax.set_yticks([0.8, *(-row - 0.5 for row in range(len(answers)))], ["", *answers])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def what_pooling_keeps(image, response, window: int = 2):
    """An image and its negative: one filter's responses to each, and what max pooling passes on.

    ``response(image)`` gives the filter's feature map.
    """
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH * 0.8, 5))
    maps = [response(image), response(1 - image)]
    norm = _signed(maps)
    for row, name, picture, feature in zip(axes, ("digit", "inverted digit"), (image, 1 - image), maps, strict=True):
        h, w = (n // window for n in feature.shape)
        pooled = feature[: h * window, : w * window].reshape(h, window, w, window).max((1, 3))
        _bare(row[0], name).imshow(picture, vmin=0, vmax=1)
        _bare(row[1], "response of one filter").imshow(feature, cmap=SIGNED, norm=norm)
        last = _bare(row[2], "after max pooling").imshow(pooled, cmap=SIGNED, norm=norm)
    figure.colorbar(last, ax=axes, label="response", shrink=0.8)
    return figure
