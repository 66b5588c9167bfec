"""Draws docs/lenet.png for the README: ``python docs/make_lenet_png.py``. It trains LeNet for some seconds first."""

from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

import clnn
from clnn import modules as nn
from clnn import optim
from clnn.lab import plots

STEPS, MAPS = 600, 7


def train(net, data) -> list[float]:
    """The loss of each of STEPS training steps with Zhang's settings."""
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    loader = clnn.data.DataLoader(data, batch_size=100, shuffle=True, seed=0)
    losses = []
    for x, y in islice(chain.from_iterable(repeat(loader)), STEPS):
        loss = nn.CrossEntropyLoss()(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return [loss.item() for loss in losses]


def image(ax, values, limit: float, cmap: str = plots.SIGNED) -> None:
    ax.imshow(values, vmin=-limit, vmax=limit, cmap=cmap, interpolation="nearest")
    ax.axis("off")


def draw_learning(figure, losses, filters) -> None:
    """The loss of each step above the filters of layer 1."""
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1))
    ax = above.subplots()
    ax.semilogy(range(1, STEPS + 1), losses, color="0.8", linewidth=0.7)
    smooth = np.convolve(losses, np.full(20, 1 / 20), mode="valid")
    ax.semilogy(range(20, STEPS + 1), smooth, color=plots.BLUE)
    ax.set(xlabel="step (100 digits each)", ylabel="loss", title="LeNet learns ...")
    below.suptitle("... 20 filters of 5 x 5", size=10)
    for ax, weights in zip(below.subplots(4, 5).flat, filters, strict=True):
        image(ax, weights, np.abs(filters).max())


def draw_reading(figure, digits, maps, probabilities) -> None:
    """One row a digit: the image, some of its feature maps, the ten probabilities."""
    axes = figure.subplots(len(digits), MAPS + 2, width_ratios=(1.5, *[1] * MAPS, 2.6))
    most_varied = np.argsort(-maps.std(axis=(0, 2, 3)))[:MAPS]
    for row, digit, features, p in zip(axes, digits, maps[:, most_varied], probabilities, strict=True):
        image(row[0], digit - 0.5, 0.5, "gray")
        for ax, feature in zip(row[1:-1], features, strict=True):
            image(ax, feature, 1)
        row[-1].bar(range(10), 100 * p, color=[plots.ORANGE if k == p.argmax() else plots.BLUE for k in range(10)])
        row[-1].set(xticks=range(10), ylim=(0, 105), yticks=(0, 50, 100))
    axes[0, 0].set_title("a digit")
    axes[0, (MAPS + 1) // 2].set_title(f"what the first layer sees: {MAPS} of its 20 feature maps")
    axes[0, -1].set_title("probabilities (%)")


def main() -> None:
    data, test = clnn.data.mnist()
    clnn.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
    )  # fmt: skip
    losses = train(net, data)

    chosen = [np.flatnonzero(test.labels == digit)[0] for digit in (3, 8, 4, 6)]
    x = test.images[chosen].astype(np.float32) / 255
    with clnn.no_grad():
        maps = net[:2](clnn.tensor(x)).numpy()
        probabilities = clnn.ops.softmax(net(clnn.tensor(x))).numpy()

    plots.use_style()
    figure = plt.figure(figsize=(11, 4.2), dpi=160)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.9))
    draw_learning(left, losses, net.state_dict()["0.weight"][:, 0])
    draw_reading(right, x[:, 0], maps, probabilities)
    path = Path(__file__).with_name("lenet.png")
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    picture.quantize(128).save(path, optimize=True)  # 128 colours look the same and take half the bytes
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
