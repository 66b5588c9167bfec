"""Locally connected layers: convolutions whose filters differ from place to place."""

from ..errors import DTypeError, ShapeError
from ..program import c_name, empty, kernel, launch
from ..tensor import Function, Tensor
from .conv import Geometry, geometry
from .copy import gather
from .elementwise import binary
from .gemm import gemm
from .reduce import reduce_axes


class LocallyConnected(Function):
    """At each position the product of its windows (images, window) with its filters (filters, window)."""

    def __init__(self, geo: Geometry):
        self.geo, self.positions = geo, geo.OH * geo.OW

    def forward(self, x, w, bias=None):
        geo, count = self.geo, x.shape[0]
        self.w, self.rows = w, empty(self.device, (self.positions, count, geo.taps), x.dtype)
        self.run("windows_to_rows", (geo.C, count, self.positions), (min(geo.C, 16), 1, 1), count, x, self.rows)
        y = gemm(self.device, self.rows, w, count, geo.F, geo.taps, tb=True, batch=self.positions)
        shape, strides = (count, geo.F, geo.OH, geo.OW), (geo.F, 1, geo.OW * count * geo.F, count * geo.F)
        y = gather(self.device, y, shape, strides)
        return y if bias is None else binary(self.device, "add", y, bias, out=y)

    def backward(self, grad):
        geo, count, dx, dw, db = self.geo, grad.shape[0], None, None, None
        each = {"batch": self.positions}
        g = gather(
            self.device, grad, (self.positions, count, geo.F), (1, geo.F * self.positions, self.positions)
        )  # one matrix a position, as the rows
        if self.needs[0]:
            rows = gemm(self.device, g, self.w, count, geo.taps, geo.F, **each)
            dx = empty(self.device, (count, geo.C, geo.H, geo.W), grad.dtype)
            self.run("rows_to_windows", (geo.H * geo.W, geo.C, count), (min(geo.H * geo.W, 64), 1, 1), count, rows, dx)
        if self.needs[1]:
            dw = gemm(self.device, g, self.rows, geo.F, geo.taps, count, ta=True, **each, out=self.grad_array(1))
        if len(self.needs) > 2 and self.needs[2]:
            db = reduce_axes(self.device, "sum", grad, (0,), out=self.grad_array(2))
        return (dx, dw, db)[: len(self.needs)]

    def run(self, name, size, local, count, *arrays):
        g, knl = self.geo, kernel(self.device, "local", name, REAL=c_name(arrays[0].dtype))
        sizes = (count, g.C, g.H, g.W, g.OH, g.OW, g.KH, g.KW, g.sy, g.sx, g.py, g.px)
        launch(self.device, knl, size, local, *arrays, *sizes)


def locally_connected2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0) -> Tensor:
    """A convolution of input (N, C, H, W) whose filters are others at each position: weight (OH, OW, F, C, KH, KW) and
    bias (F, OH, OW) give a result (N, F, OH, OW). The "local" layer of Krizhevsky's cuda-convnet (2011), which PyTorch
    has not. Raises ShapeError or DTypeError for what does not fit.
    """
    if weight.ndim != 6:
        raise ShapeError(f"locally_connected2d needs a weight (OH, OW, F, C, KH, KW), got shape {weight.shape}")
    geo = geometry(input.shape, weight.shape[2:], stride, padding)
    if weight.shape[:2] != (geo.OH, geo.OW):
        raise ShapeError(
            f"a weight for {weight.shape[0]} x {weight.shape[1]} positions does not fit images {input.shape}, which "
            f"have {geo.OH} x {geo.OW}"
        )
    if bias is not None and bias.shape != (geo.F, geo.OH, geo.OW):
        raise ShapeError(f"the bias must have shape {(geo.F, geo.OH, geo.OW)}, got {bias.shape}")
    given = [t for t in (input, weight, bias) if t is not None]
    if len({t.dtype for t in given}) > 1:
        kinds = ", ".join(t.dtype.name for t in given)
        raise DTypeError(f"input, weight and bias must have one type, they are {kinds}: convert with astype")
    return LocallyConnected(geo)(*given)
