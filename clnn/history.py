"""What a training run was like, epoch by epoch: a table, a plot, plain numbers."""

from typing import NamedTuple

HEAD = ("epoch", "train loss", "train acc", "val loss", "val acc", "seconds", "images/s", "lr")
FORMATS = ("{}", "{:.4f}", "{:.2%}", "{:.4f}", "{:.2%}", "{:.2f}", "{:,.0f}", "{:g}")
# Blue and vermilion of Okabe and Ito's palette, which colour-blind people tell apart; the marks differ, too.
TRAINING = {"color": "#0072B2", "marker": "o", "linestyle": "-", "label": "training (mean over the epoch)"}
VALIDATION = {"color": "#D55E00", "marker": "s", "linestyle": "--", "label": "validation (after the epoch)"}


class EpochRecord(NamedTuple):
    """One epoch. Accuracies are shares in 0 .. 1; what was not measured is None.

    The training numbers are means over the epoch, while the weights changed; those of the validation belong to the
    weights at its end. ``seconds`` and ``images_per_second`` count the training only. ``lr`` is the learning rate
    of the first parameter group.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    images_per_second: float
    lr: float


class History(list):
    """The EpochRecords of a run, in order; printing it shows a table."""

    @property
    def best(self) -> EpochRecord:
        """The epoch with the lowest validation loss (without validation: training loss), the first of equals."""
        if not self:
            raise ValueError("the history is empty: no epoch was trained")
        return min(self, key=lambda record: record.train_loss if record.val_loss is None else record.val_loss)

    def to_dicts(self) -> list[dict]:
        """One dict an epoch, ready for JSON or a pandas DataFrame."""
        return [record._asdict() for record in self]

    def plot(self, ax=None):
        """Draw loss and, where it was measured, accuracy over the epochs; returns the axes.

        ``ax`` may give the matplotlib axes to draw on: a pair, or one alone for the loss. Raises ValueError for an
        empty history.
        """
        panels = [("loss", "mean loss per record", 1)]
        if self.best.train_accuracy is not None or self.best.val_accuracy is not None:
            panels.append(("accuracy", "accuracy (%)", 100))
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), layout="constrained")
        axes = list(ax) if hasattr(ax, "__len__") else [ax]
        for axis, (name, label, scale) in zip(axes, panels, strict=False):
            self._draw(axis, name, label, scale)
        return axes

    def _draw(self, axis, name, label, scale):
        from matplotlib.ticker import MaxNLocator

        for prefix, style in (("train", TRAINING), ("val", VALIDATION)):
            column = [(r.epoch, getattr(r, f"{prefix}_{name}")) for r in self]
            points = [(epoch, scale * value) for epoch, value in column if value is not None]
            if points:
                axis.plot(*zip(*points, strict=True), markersize=4, **style)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend()

    def __repr__(self):
        shown = [i for i in range(len(HEAD)) if not self or any(record[i] is not None for record in self)]
        rows = [[HEAD[i] for i in shown]]
        for record in self:
            rows.append(["-" if record[i] is None else FORMATS[i].format(record[i]) for i in shown])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
