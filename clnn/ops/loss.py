"""Losses: how wrong a prediction is, as one number to minimise."""

import math

import numpy as np

from ..errors import DTypeError, GraphError, LabelError, ShapeError
from ..program import empty, launch, launch_each
from ..tensor import Function, Tensor, tensor
from .activation import softmax_kernel
from .elementwise import as_real, match, unary
from .reduce import reduce_axes

LOSS_FLOPS = {  # an element
    "squared_error": 3, "absolute_error": 3, "binary_cross_entropy": 11, "logits_cross_entropy": 16,
}  # fmt: skip


class Loss(Function):
    """A loss of each row, averaged, summed or left apart. The kernel that computes it computes the gradient, too, as it
    is where that of the result is 1: ``slope``, the derivative by row i times ``factor`` and the row's ``weight``."""

    factor = 1.0
    starts = True

    def __init__(self, reduction: str):
        self.reduction = reduction

    def results(self, x, rows):
        """Arrays for the loss of each row and for the slopes, and the number that the slopes are multiplied by."""
        self.rows = math.prod(rows)
        self.weight = 1 / self.rows if self.reduction == "mean" else 1.0
        self.slope = empty(self.device, x.shape, x.dtype)
        return empty(self.device, rows, x.dtype), self.slope, self.factor * self.weight

    def reduced(self, loss):
        """What forward returns, from the losses of the rows."""
        if self.reduction == "none":
            return loss
        return reduce_axes(self.device, "sum", loss, tuple(range(loss.ndim)), scale=self.weight)

    def elements(self, name, x, target):
        """The loss of elements that are rows of their own."""
        loss, *slopes = self.results(x, x.shape)
        knl = softmax_kernel(self.device, name, x.dtype)
        launch_each(self.device, knl, x.size, x, target, loss, *slopes, x.size, flops=LOSS_FLOPS[name] * x.size)
        return self.reduced(loss)

    def backward(self, grad):
        if grad is None:
            return self.slope, None
        out, n = empty(self.device, self.slope.shape, grad.dtype), self.slope.size // self.rows
        knl = softmax_kernel(self.device, "scale_rows", grad.dtype)
        one_each = int(self.reduction == "none")
        launch_each(self.device, knl, out.size, self.slope, grad, out, one_each, out.size, n, flops=out.size)
        return out, None


class CrossEntropy(Loss):
    """-log softmax at the label."""

    def forward(self, x, labels):
        rows, n = x.shape
        loss, *slopes = self.results(x, (rows,))
        knl = softmax_kernel(self.device, "cross_entropy", x.dtype)
        launch(self.device, knl, (rows,), (8,), x, labels, loss, *slopes, rows, n, flops=9 * rows * n)
        return self.reduced(loss)


class Difference(Loss):
    """A loss of x - target: the gradients by the two differ in their sign only."""

    def backward(self, grad):
        dx, _ = super().backward(grad)
        return dx, unary(self.device, "neg", dx) if self.needs[1] else None


class SquaredError(Difference):
    """(x - target)^2 element by element; its slope is the difference, times 2."""

    factor = 2.0

    def forward(self, x, target):
        return self.elements("squared_error", x, target)


class AbsoluteError(Difference):
    """|x - target| element by element; its slope is the sign of the difference."""

    def forward(self, x, target):
        return self.elements("absolute_error", x, target)


class BinaryCrossEntropy(Loss):
    """-t log p - (1 - t) log(1 - p) for each probability p and its target t."""

    def forward(self, p, target):
        return self.elements("binary_cross_entropy", p, target)


class LogitsCrossEntropy(Loss):
    """The same for the logit x of each probability, p = sigmoid(x), in which nothing cancels where t is 0 or 1."""

    def forward(self, x, target):
        self.x = x
        return self.elements("logits_cross_entropy", x, target)

    def backward(self, grad):
        dx, _ = super().backward(grad)
        if not self.needs[1]:
            return dx, None
        by_target = Tensor(self.x, self.device) * -self.weight
        return dx, (by_target if grad is None else by_target * Tensor(grad, self.device)).array


def check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")


def on_device(target, input: Tensor) -> Tensor:
    """Targets given as a NumPy array or a list, beside the input."""
    return target if isinstance(target, Tensor) else tensor(target, device=input.device)


def check_labels(target: Tensor, classes: int) -> None:
    """Raise DTypeError unless labels are integers, and LabelError where they are known to lie out of range."""
    if target.dtype != np.int32:
        raise DTypeError(f"labels must be integers, got {target.dtype.name}")
    if target.bounds and not (0 <= target.bounds[0] and target.bounds[1] < classes):
        raise LabelError(
            f"labels run from {target.bounds[0]} to {target.bounds[1]}, but {classes} logits a row allow "
            f"0 to {classes - 1}"
        )


def check_constant(name: str, target: Tensor) -> Tensor:
    """The targets. Raises GraphError if they want a gradient, which this loss does not give them."""
    if target.requires_grad:
        raise GraphError(f"{name} has no gradient by its targets: pass target.detach()")
    return target


def cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-log softmax(input)[target], fused and stable: the loss of logits (N, C) for labels (N,) in 0 .. C - 1.

    Also (N, C, d1, ...) with labels (N, d1, ...), as in PyTorch. Raises ShapeError, DTypeError for labels that are
    no integers, and LabelError for labels out of range; labels that were computed on the device are not checked
    here (that would wait for it), they make the loss NaN.
    """
    check_reduction(reduction)
    input, target = as_real(input), on_device(target, input)
    places = input.shape[2:]
    if input.ndim < 2 or target.shape != (input.shape[0], *places):
        raise ShapeError(
            f"cross_entropy needs logits (N, C, ...) and labels (N, ...), got {input.shape} and {target.shape}"
        )
    check_labels(target, input.shape[1])
    if not places:
        return CrossEntropy(reduction)(input, target)
    rows = input.permute(0, *range(2, input.ndim), 1).reshape(-1, input.shape[1])
    loss = CrossEntropy(reduction)(rows, target.reshape(-1))
    return loss.reshape(target.shape) if reduction == "none" else loss


def check_same(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ShapeError(f"{name} needs two equal shapes, got {input.shape} and {target.shape}")


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)^2, averaged, summed or element by element. Raises ShapeError for different shapes."""
    target = on_device(target, input)
    check_same("mse_loss", input, target)
    check_reduction(reduction)
    return SquaredError(reduction)(*match(input, target, real=True))


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|, averaged, summed or element by element; where they are equal the derivative is 0.

    Raises ShapeError for different shapes.
    """
    target = on_device(target, input)
    check_same("l1_loss", input, target)
    check_reduction(reduction)
    return AbsoluteError(reduction)(*match(input, target, real=True))


def binary_cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-t log p - (1 - t) log(1 - p) for probabilities p and targets t in [0, 1]; p outside makes the loss NaN.

    As in PyTorch no logarithm counts as less than -100, so that p = 0 and p = 1 give a finite loss. Where p is a
    sigmoid, ``binary_cross_entropy_with_logits`` of its argument still tells wrong answers apart whose p rounds to 0 or
    1. Raises ShapeError for different shapes.
    """
    target = check_constant("binary_cross_entropy", on_device(target, input))
    check_same("binary_cross_entropy", input, target)
    check_reduction(reduction)
    return BinaryCrossEntropy(reduction)(*match(input, target, real=True))


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)) for logits x and targets t in [0, 1].

    Nothing overflows, and for targets of 0 and 1 no digit is lost: a right answer of the logit 50 has the loss 2e-22.
    Raises ShapeError for different shapes.
    """
    target = on_device(target, input)
    check_same("binary_cross_entropy_with_logits", input, target)
    check_reduction(reduction)
    return LogitsCrossEntropy(reduction)(*match(input, target, real=True))
