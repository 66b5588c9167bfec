"""Hinge losses, those of support vector machines: right answers must win by a margin, then they cost nothing."""

import numpy as np

from ..errors import LabelError, ShapeError
from ..program import c_name, finder, launch, launch_each, run_of
from ..tensor import Tensor
from .elementwise import as_real, match
from .loss import Loss, check_constant, check_labels, check_reduction, on_device


@finder("hinge")
def hinge_kernel(device, dtype):
    return {"REAL": c_name(dtype), **run_of(device)}


class Hinge(Loss):
    """max(0, margin - t x) for each element x and its target t."""

    def __init__(self, margin: float, reduction: str):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, x, target):
        loss, *slopes = self.results(x, x.shape)
        knl = hinge_kernel(self.device, "hinge", x.dtype)
        launch_each(self.device, knl, x.size, x, target, loss, *slopes, self.margin, x.size, flops=4 * x.size)
        return self.reduced(loss)


class MultiMargin(Loss):
    """scale times the sum of max(0, margin - x[label] + x[k])^p over the classes k other than the label."""

    def __init__(self, p: int, margin: float, scale: float, reduction: str):
        super().__init__(reduction)
        self.p, self.margin, self.scale = p, margin, scale

    def forward(self, x, labels):
        rows, n = x.shape
        loss, *slopes = self.results(x, (rows,))
        knl = hinge_kernel(self.device, "multi_margin", x.dtype)
        launch(
            self.device, knl, (rows,), (8,), x, labels, loss, *slopes, self.p, self.margin, self.scale, rows, n,
            flops=6 * x.size,
        )  # fmt: skip
        return self.reduced(loss)


def _rows_and_labels(name: str, input: Tensor, target) -> tuple[Tensor, Tensor]:
    input, target = as_real(input), on_device(target, input)
    if input.ndim != 2 or target.shape != input.shape[:1]:
        raise ShapeError(f"{name} needs scores (N, C) and labels (N,), got {input.shape} and {target.shape}")
    check_labels(target, input.shape[1])
    return input, target


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, *, reduction: str = "mean"
) -> Tensor:
    """The sum of max(0, margin - x[label] + x[k])^p over the classes k other than the label, divided by C, for scores
    (N, C) and integer labels (N,); p is 1 or 2. As in PyTorch, after Weston and Watkins, "Support vector machines for
    multi-class pattern recognition" (1999).

    Raises ShapeError, DTypeError and LabelError as ``cross_entropy`` does, ValueError for another p.
    """
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"p is 1 or 2, not {p!r}")
    input, target = _rows_and_labels("multi_margin_loss", input, target)
    return MultiMargin(p, margin, 1 / input.shape[1], reduction)(input, target)


def hinge_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """max(0, margin - t x) for scores x and targets t of -1 or +1, both of one shape: two classes.

    For scores (N, C) and integer labels (N,) in 0 .. C - 1, the sum of max(0, margin - x[label] + x[k]) over the other
    classes k: C times ``multi_margin_loss``, and for C = 2 the loss above of x[1] - x[0]. Two classes after Cortes and
    Vapnik, "Support-vector networks" (1995), more after Weston and Watkins (1999).

    Raises ShapeError, and LabelError for targets that are neither -1 nor +1; where those were computed on the device
    they are not checked (that would wait for it), they make the loss NaN.
    """
    check_reduction(reduction)
    if np.ndim(target) == input.ndim - 1:
        return MultiMargin(1, margin, 1.0, reduction)(*_rows_and_labels("hinge_loss", input, target))
    if np.shape(target) != input.shape:
        raise ShapeError(
            f"hinge_loss needs scores and targets of one shape, or scores (N, C) and labels (N,), got {input.shape} "
            f"and {np.shape(target)}"
        )
    _check_signs(target)
    return Hinge(margin, reduction)(*match(input, check_constant("hinge_loss", on_device(target, input)), real=True))


def _check_signs(target) -> None:
    """Raise LabelError unless the targets, where the host knows them, are all -1 or +1."""
    if not isinstance(target, Tensor):
        known = np.unique(target)
    else:
        known = (0, 1) if target.dtype == np.bool_ else target.bounds or ()
    if not np.isin(known, (-1, 1)).all():
        raise LabelError(
            f"the targets of two classes are -1 and +1 here, got numbers from {min(known)} to {max(known)}: "
            "0 and 1 become those by 2 * target - 1"
        )
