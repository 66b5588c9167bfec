"""Running sums of the loss and of correct predictions, added to on the device in one launch a batch."""

import math

from ..program import c_name, kernel, launch
from ..tensor import Tensor


def tally(loss_sum: Tensor, hits: Tensor, loss: Tensor, weight: float, output: Tensor, labels: Tensor) -> None:
    """Add weight * loss to ``loss_sum`` and the number of correct predictions to ``hits`` (int32), in place.

    A prediction is the place of the first largest of the logits (N, C, ...) along C; labels are (N, ...). Does not
    wait for the device.
    """
    _launch(hits, output, labels, 1, loss.array, loss_sum.array, weight)


def count_hits(hits: Tensor, output: Tensor, labels: Tensor, k: int) -> None:
    """Add to ``hits`` (int32) the number of labels that are among the k largest logits; else as ``tally``."""
    _launch(hits, output, labels, k, None, None, 0.0)


def _launch(hits, output, labels, k, loss, loss_sum, weight):
    knl = kernel(output.device, "tally", "tally", REAL=c_name(output.dtype))
    sizes = len(output), output.shape[1], math.prod(output.shape[2:]), k
    launch(
        output.device, knl, (64,), (64,), output.array, labels.array, loss, loss_sum, hits.array, *sizes, weight,
        flops=output.size,
    )  # fmt: skip
