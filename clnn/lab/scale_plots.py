"""Pictures of notebook 06: colour images, response normalisation, overfitting, two devices at work, training records.

Every function draws one figure and returns it.
"""

import itertools

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, NullLocator

from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SIGNED, SKY, WIDTH, YELLOW, _bare, _signed

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK)
GREY = "0.75"


def colour_grid(images, titles=None, columns: int = 10, suptitle: str = ""):
    """Colour images (n, 3, H, W), bytes or numbers, in rows of ``columns``; what lies beyond 0 .. 1 is cut off."""
    images = np.asarray(images)
    images = images / 255 if images.dtype == np.uint8 else np.clip(images, 0, 1)
    rows, side = -(-len(images) // columns), WIDTH / columns
    height = rows * (side + (0.25 if titles is not None else 0.02)) + (0.3 if suptitle else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False)
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images)):
        _bare(ax, str(titles[i]) if titles is not None else "").imshow(image.transpose(1, 2, 0))
        ax.title.set_size(9)
    if suptitle:
        figure.suptitle(suptitle, size=10)
    return figure


def share_bars(shares: dict, threshold: float = 0.005):
    """For each named run one bar of 100%, cut into the shares (0 to 1) of its parts; small parts become "other"."""
    parts = {}
    for name, own in shares.items():
        for part, share in own.items():
            key = part if max(run.get(part, 0) for run in shares.values()) >= threshold else "other"
            parts.setdefault(key, dict.fromkeys(shares, 0.0))[name] += share
    figure, ax = plt.subplots(figsize=(WIDTH, 0.55 * len(shares) + 1.2))
    left = np.zeros(len(shares))
    for (part, values), colour in zip(sorted(parts.items(), key=lambda p: -sum(p[1].values())), COLOURS * 2):
        width = 100 * np.array([values[name] for name in shares])
        colour = GREY if part == "other" else colour
        bars = ax.barh(list(shares), width, left=left, color=colour, label=part, edgecolor="white")
        dark = colour in (BLUE, BLACK, GREEN, RED)
        texts = [f"{w:.0f}%" if w >= 4 else "" for w in width]
        ax.bar_label(bars, texts, label_type="center", size=9, color="white" if dark else "black")
        left += width
    ax.set(xlim=(0, 100), xlabel="share of the device's time (%)")
    ax.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=min(len(parts), 7))
    return figure


def top_answers(image, answers: dict, top: int = 5):
    """A photo (3, H, W) of bytes; for each named net the ``top`` most probable of its classes {name: probability}."""
    figure, axes = plt.subplots(1, 1 + len(answers), figsize=(WIDTH, 2.3), width_ratios=(1, *[1.6] * len(answers)))
    _bare(axes[0], f"as the net sees it, {image.shape[1]} x {image.shape[2]}").imshow(image.transpose(1, 2, 0))
    for ax, (net, probabilities) in zip(axes[1:], answers.items()):
        best = sorted(probabilities, key=probabilities.get, reverse=True)[:top]
        bars = ax.barh(best, [100 * probabilities[name] for name in best], color=BLUE)
        ax.bar_label(bars, [f"{probabilities[name]:.1%}" for name in best], padding=3)
        ax.set(title=f"{net} says", xlabel="probability (%)", xlim=(0, 125), xticks=range(0, 101, 25))
        ax.invert_yaxis()
    return figure


def rates(values: dict, xlabel: str):
    """A bar for each name on a logarithmic scale, with its value."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.5 * len(values) + 0.8))
    bars = ax.barh(list(values), list(values.values()), color=BLUE)
    ax.bar_label(bars, [f"{v:,.3g}" if v < 100 else f"{v:,.0f}" for v in values.values()], padding=3)
    ax.set(xscale="log", xlabel=xlabel, xlim=(min(values.values()) / 3, 8 * max(values.values())))
    ax.invert_yaxis()
    return figure


def channels(before, after, title: str = ""):
    """The numbers of all channels at one place, before and after normalisation: two rows of bars, largest marked."""
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 3.6), sharex=True)
    for ax, values, name in zip(axes, (before, after), ("before", "after"), strict=True):
        values = np.asarray(values, float)
        colours = np.where(np.arange(len(values)) == values.argmax(), ORANGE, BLUE)
        ax.bar(np.arange(len(values)), values, color=colours)
        ax.set(ylabel=f"response {name}")
        ax.margins(x=0.01)
    axes[1].set_xlabel("channel (the largest is orange)")
    axes[0].set_title(title)
    return figure


def maps_before_after(before, after, names):
    """Feature maps (n, H, W) above, and what became of them below; each row has a scale of its own."""
    figure, axes = plt.subplots(2, len(before), figsize=(WIDTH, 2 * WIDTH / len(before) + 0.7), squeeze=False)
    for row, maps, side in zip(axes, (before, after), names, strict=True):
        for k, (ax, values) in enumerate(zip(row, maps)):
            shown = _bare(ax, f"map {k}").imshow(values, cmap="cividis", vmin=0, vmax=maps.max())
        row[0].set_ylabel(side)
        figure.colorbar(shown, ax=row.tolist(), label="response", pad=0.01)
    return figure


def pooling_kinds(values, pooled: dict, gradients: dict):
    """A feature map; for each kind of pooling its result, and the gradient that each number of the map gets back."""
    figure, axes = plt.subplots(2, len(pooled) + 1, figsize=(WIDTH, 5.2))
    norm = _signed(values)
    _bare(axes[0, 0], f"a feature map, {values.shape[0]} x {values.shape[1]}").imshow(values, cmap=SIGNED, norm=norm)
    axes[1, 0].axis("off")
    root = PowerNorm(0.5, 0, max(np.max(g) for g in gradients.values()))  # so that small gradients show
    for (above, below), (name, result) in zip(axes.T[1:], pooled.items()):
        shown = _bare(above, f"{name}: {result.shape[0]} x {result.shape[1]}").imshow(result, cmap=SIGNED, norm=norm)
        back = _bare(below, f"{name}: gradient that comes back").imshow(gradients[name], cmap="cividis", norm=root)
    figure.colorbar(shown, ax=axes[0].tolist(), label="response", pad=0.01)
    figure.colorbar(back, ax=axes[1].tolist(), label="gradient", pad=0.01)
    return figure


def overfitting(epochs, curves: dict, chance: float = 0.1):
    """For each named run (training accuracies, test accuracies), 0 to 1, over the epochs: one panel each."""
    figure, axes = plt.subplots(1, len(curves), figsize=(WIDTH, 2.9), sharey=True, squeeze=False)
    for ax, (name, (train, test)) in zip(axes[0], curves.items()):
        ax.fill_between(epochs, 100 * np.array(test), 100 * np.array(train), color=SKY, alpha=0.25, label="the gap")
        ax.plot(epochs, 100 * np.array(train), "o-", color=BLUE, markersize=4, label="training pictures")
        ax.plot(epochs, 100 * np.array(test), "s--", color=ORANGE, markersize=4, label="test pictures")
        ax.axhline(100 * chance, color="0.5", linewidth=0.8, linestyle=":", label="guessing")
        ax.set(xlabel="epoch", title=f"{name}\ntest {100 * test[-1]:.1f}%", ylim=(0, 103))
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def rate_steps(history, other: str = "validation"):
    """Training loss and that of the ``other`` set of each epoch above, the learning rate below; its drops marked."""
    epochs = [record.epoch for record in history]
    figure, (top, low) = plt.subplots(2, 1, figsize=(WIDTH, 4), sharex=True, height_ratios=(2.4, 1))
    top.plot(epochs, [record.train_loss for record in history], "o-", color=BLUE, markersize=4, label="training")
    if history[0].val_loss is not None:
        top.plot(epochs, [record.val_loss for record in history], "s--", color=ORANGE, markersize=4, label=other)
    low.step(epochs, [record.lr for record in history], where="mid", color=BLACK)
    drops = [record.epoch - 0.5 for former, record in itertools.pairwise(history) if record.lr < former.lr]
    for ax in (top, low):
        for i, drop in enumerate(drops):
            ax.axvline(drop, color=RED, linestyle=":", label="lr / 10" if i == 0 else None)
    top.set(ylabel="mean loss")
    top.legend()
    low.set(yscale="log", ylabel="learning rate", xlabel="epoch")
    low.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    rates = sorted({record.lr for record in history})
    low.set_yticks(rates, [f"{rate:g}" for rate in rates])
    low.yaxis.set_minor_locator(NullLocator())
    for ax in (top, low):
        ax.grid(alpha=0.3)
    return figure


def device_lanes(profiles: dict, kinds: dict):
    """For each named profile one lane a device, its launches coloured by kind, over one time axis.

    ``kinds`` names the kinds of families of kernels; other families are "other". The lanes of one profile share a zero
    where their devices are CPUs, whose clock is the host's; else each begins with its first command.
    """
    colours = dict(zip(dict.fromkeys(kinds.values()), COLOURS * 2)) | {"other": GREY}
    lanes = [len({launch.device for launch in p.launches}) for p in profiles.values()]
    figure, axes = plt.subplots(
        len(profiles), 1, figsize=(WIDTH, 0.55 * sum(lanes) + 0.6 * len(lanes) + 0.9), sharex=True, squeeze=False,
        height_ratios=lanes,
    )  # fmt: skip
    for ax, (name, p) in zip(axes[:, 0], profiles.items()):
        devices = list(dict.fromkeys(launch.device for launch in p.launches))
        first = {d: min(launch.start for launch in p.launches if launch.device is d) for d in devices}
        if all(d.kind == "CPU" for d in devices):
            first = dict.fromkeys(devices, min(first.values()))
        for y, d in enumerate(devices):
            own = [launch for launch in p.launches if launch.device is d]
            for kind in colours:
                same = [launch for launch in own if kinds.get(launch.family, "other") == kind]
                bars = [((launch.start - first[d]) / 1e6, launch.seconds * 1e3) for launch in same]
                ax.broken_barh(bars, (y - 0.4, 0.8), color=colours[kind], linewidth=0.3, label=kind if bars else None)
        ax.set(yticks=range(len(devices)), yticklabels=[f"device {y + 1}" for y in range(len(devices))], title=name)
        ax.invert_yaxis()
    axes[-1, 0].set(xlabel="time (ms)", xlim=(0, None))
    seen = {text: handle for ax in axes[:, 0] for handle, text in zip(*ax.get_legend_handles_labels())}
    figure.legend(seen.values(), seen, loc="outside lower center", ncols=min(len(seen), 5))
    return figure


def records(rows, own: str):
    """Trainings as points: images a second over the number of devices, both logarithmic, with lines of equal speed a
    device. ``rows``: (name, devices, images a second); ``own``: the name of the one to be marked.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.6))
    most = max(count for _, count, _ in rows)
    ends = np.array([0.3, 3 * most])
    low, high = (f(rate / count for _, count, rate in rows) for f in (min, max))
    for each in 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1):
        ax.plot(ends, each * ends, color="0.8", linewidth=0.8, zorder=1)
        ax.text(ends[1], each * ends[1], f" {each:g} a device", size=8, color="0.4", va="center", clip_on=False)
    for i, (name, count, rate) in enumerate(rows):
        mine = name == own
        ax.plot(count, rate, "D" if mine else "o", color=RED if mine else BLUE, markersize=8, zorder=3)
        ax.annotate(
            name, (count, rate), (-6, 5) if i % 2 == 0 else (6, -5), textcoords="offset points", size=9,
            ha="right" if i % 2 == 0 else "left", va="bottom" if i % 2 == 0 else "top",
            weight="bold" if mine else "normal",
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="devices", ylabel="training images a second", xlim=ends)
    return figure
