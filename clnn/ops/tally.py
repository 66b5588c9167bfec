"""Running sums of the loss and of correct predictions, added to on the device in one launch a batch."""

import math

from ..program import c_name, kernel, launch
from ..tensor import Tensor


def tally(loss_sum: Tensor, hits: Tensor, loss: Tensor, weight: float, output: Tensor, labels: Tensor) -> None:
    """Add weight * loss to ``loss_sum`` and the number of correct predictions to ``hits`` (int32), in place.

    A prediction is the place of the first largest of the logits (N, C, ...) along C; labels are (N, ...). Does not
    wait for the device.
    """
    inner = math.prod(output.shape[2:])
    knl = kernel(output.device, "tally", "tally", REAL=c_name(output.dtype))
    arrays = [t.array for t in (output, labels, loss, loss_sum, hits)]
    launch(output.device, knl, (64,), (64,), *arrays, len(output), output.shape[1], inner, weight, flops=output.size)
