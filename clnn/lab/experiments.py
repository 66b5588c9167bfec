"""The plumbing of experiments whose lesson is the result: convolution in three forms."""

from ..ops import conv
from ..profiler import Launch, profile
from ..program import empty
from ..tensor import Tensor


def convolutions(x: Tensor, w: Tensor) -> dict[str, tuple[Tensor, list[Launch]]]:
    """The convolution of images x (N, C, H, W) with filters w (F, C, height, width), computed in three forms.

    "direct": one work-item an element; "im2col": the images are unfolded, then it is a matrix product; "implicit": a
    tile of results a work-item, straight from the images. Each form's result and its launches, warmed up. Raises
    ShapeError if the shapes do not fit.
    """
    geo, on, found = conv.geometry(x.shape, w.shape), x.device, {}
    arrays = on, x.array, w.array, None, geo
    forms = {
        "direct": lambda out: conv.forward_plain(*arrays),
        "im2col": lambda out: conv.forward_unfolded(*arrays, out) or out,
        "implicit": lambda out: conv.forward_tiles(*arrays, out) or out,
    }
    for name, compute in forms.items():
        out = empty(on, (x.shape[0], geo.F, geo.OH, geo.OW), x.dtype)
        for _ in range(2):  # the first one compiles
            with profile() as p:
                result = compute(out)
        found[name] = Tensor(result, on), p.launches
    return found
