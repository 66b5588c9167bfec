"""Matrix products. ``gemm`` is the one place where they are computed; all others call it."""

from functools import lru_cache

import numpy as np

from .. import tuning
from ..errors import DTypeError, ShapeError
from ..program import FLOAT32, c_name, empty, fill, finder, launch, replacements, reshaped, round_up
from ..tensor import Function, Tensor, method
from .activation import ACTIVATIONS, fused, fused_backward
from .copy import gather, scatter
from .elementwise import binary, match
from .reduce import reduce_axes

SMALL = 8192  # products of numbers, so few that the plain kernel is done before the panels of B were packed
DOT_ROWS = 4  # with so few rows of C gemm_dots is faster than the packed product
COPY, TURN = 16, 36  # products that take as long as to copy a number into panels, as it stands or turned
STACK = 64  # tiles one above the other that share what they read while it is in the cache
STRIP, STRIP_ROWS = 128, 16  # the tile of gemm_strips, as gemm.cl has it


def vector_width(device, dtype) -> int:
    """Numbers in one vector register of the device."""
    return device.vector_bytes // dtype.itemsize


def accumulators(device) -> int:
    """Vectors of sums that a tile may hold: the registers, less those that the operands pass through."""
    return 26 if device.vector_bytes == 64 else 12  # AVX-512 has 32 registers, AVX 16


def tile_cost(height: int, vectors: int) -> int:
    """What one step of a tile of height x vectors takes: its products, or the wait for the last sum; and what of its
    loads is not hidden behind them, the least where two vectors are loaded."""
    return max(height * vectors, 8) + abs(vectors - 2) + 1


def heights(device) -> range:
    """The heights of a CPU's tiles, two vectors wide, whose sums its registers hold."""
    return range(accumulators(device) // 2, 1, -1)


def row_candidates(device) -> list[dict]:
    """The tiles that gemm.cl may be compiled with: a GPU's have 2, 4 or 8 rows for each of 16 rows of work-items."""
    return [{"ROWS": rows} for rows in (heights(device) if device.kind == "CPU" else (32, 64, 128))]


@lru_cache(maxsize=4096)
def likely_rows(device, m: int) -> int:
    """The height of a CPU's tiles that cover m rows at the least cost."""
    return min(heights(device), key=lambda r: -(-m // r) * tile_cost(r, 2))


@tuning.cached
def tile_rows(device, name: str, *key) -> int:
    """The height of the tiles of a product: the tuned one, else the one that should be best.

    ``key``: the element type, m, n, k, the number of products, then N or, if stored transposed, T for A and for C.
    """
    tuned = tuning.lookup(device, name, key, row_candidates(device))
    m = key[1]
    return tuned["ROWS"] if tuned else likely_rows(device, m) if name == "gemm_panels" else 64 if m > 32 else 32


@lru_cache(maxsize=8)
def zero_of(device, dtype):
    """One zero on the device: the bias of products without one."""
    return fill(empty(device, (1,), dtype), 0)


def columns(device, dtype) -> int:
    """The width of a panel: two vectors of a CPU, four numbers for each of 16 work-items of a GPU."""
    return 2 * vector_width(device, dtype) if device.kind == "CPU" else 64


@finder("gemm")
def gemm_kernel(device, dtype, activation=None, rows=None):
    rows = rows or (heights(device)[0] if device.kind == "CPU" else 32)  # for which it is compiled anyway
    sizes = {"ROWS": rows, "V": vector_width(device, dtype), "COLUMNS": columns(device, dtype)}
    return {"REAL": c_name(dtype), **sizes, **fused(activation, dtype)}


@lru_cache(maxsize=4096)
def packs_left(device, dtype, m, n, k, ta=False, tb=False) -> bool:
    """Whether C^T = B^T A^T costs less than C = A B. The right factor is copied into panels, the left only where it is
    stored transposed."""

    def cost(m, n, ta, tb):
        products = round_up(m, likely_rows(device, m)) * round_up(n, columns(device, dtype)) * k
        return products + n * k * (TURN if tb else COPY) + m * k * (TURN if ta else 0)

    return cost(n, m, not tb, not ta) + 8 * m * n < cost(m, n, ta, tb)  # C^T is written in shorter pieces


def gemm(device, a, b, m, n, k, *, ta=False, tb=False, batch=1, bias=None, activation=None, out=None):
    """C = activation(A B + bias) for A (m, k) and B (k, n), each optionally stored transposed; ``batch`` in a row.

    ``a`` and ``b`` are arrays; ``bias`` has one number a column. Returns an array (batch, m, n), or ``out``, which
    may have any shape of that size.
    """
    out = empty(device, (batch, m, n), a.dtype) if out is None else out
    if replacements and ("gemm", "gemm") in replacements and a.dtype == FLOAT32:
        return gemm_replaced(device, a, b, m, n, k, ta, tb, batch, bias, out)
    if batch * m * n * k <= SMALL:
        return gemm_plain(device, a, b, m, n, k, ta=ta, tb=tb, batch=batch, bias=bias, activation=activation, out=out)
    if device.kind == "CPU" and gemm_unpacked(device, a, b, m, n, k, ta, tb, batch, bias, activation, out):
        return out
    if packs_left(device, a.dtype, m, n, k, ta, tb):
        panels = pack(device, b=a, n=m, k=k, transposed=not ta, batch=batch)
        multiply_panels(
            device, b, panels, out, n, m, k, batch=batch, a_strides=(0, batch, n * k, 0, *((k, 1) if tb else (1, n))),
            bias=bias, bias_strides=(1, 0, 1, 0), c_strides=(1, n), activation=activation,
        )  # fmt: skip
    else:
        panels = pack(device, b, n, k, tb, batch)
        multiply_panels(
            device, a, panels, out, m, n, k, batch=batch, a_strides=(0, batch, m * k, 0, *((1, m) if ta else (k, 1))),
            bias=bias, bias_strides=(1, 0, 0, 1), activation=activation,
        )  # fmt: skip
    return out


def pack(device, b, n, k, transposed, batch, rows=None):
    """Panels of ``batch`` matrices B (k, n), or stored transposed as (n, k), each as wide as the kernels read them
    or, for a left factor stored transposed, as a tile has ``rows``."""
    width = rows or columns(device, b.dtype)
    count = -(-n // width)
    panels = empty(device, (batch, count, k, width), b.dtype)
    b_row, b_col = (1, k) if transposed else (n, 1)
    deep, run = (1, 1) if device.kind != "CPU" else (16, 1 if transposed else 16)
    knl = gemm_kernel(device, "gemm_pack", b.dtype, None, rows)
    size = (-(-k // deep), -(-count // run), batch)
    launch(device, knl, size, (1, 1, 1), b, k * n, b_row, b_col, panels, n, k, width, deep, run)
    return panels


def multiply_panels(
    device, a, panels, out, m, n, k, *, batch, a_strides, blocks=1, bias=None, bias_strides=(1, 0, 0, 0),
    c_strides=None, start=0, accumulate=False, activation=None,
):  # fmt: skip
    """out[batch] = (or +=) A[batch] times packed panels, the sum running over ``blocks`` of k.

    ``a_strides``: where A starts, the number of different A in a batch, then the strides of batch, block, row and
    column; ``bias_strides`` likewise, without start and block. ``start`` is where in ``out`` the first result goes,
    ``c_strides`` are those of its rows and columns.
    """
    if bias is None:
        bias, bias_strides = zero_of(device, out.dtype), (1, 0, 0, 0)
    name = "gemm_panels" if device.kind == "CPU" else "gemm_groups"
    layout = ("N" if a_strides[5] == 1 else "T") + ("T" if c_strides else "N")
    rows = tile_rows(device, name, c_name(out.dtype), m, n, k * blocks, batch, layout)
    if device.kind == "CPU":
        if a_strides[5] != 1:  # a tile's rows side by side, so that it reads in order, too
            a = pack(device, a, m, k, False, a_strides[1], rows)
            a_strides = (0, a_strides[1], round_up(m, rows) * k, 0, 1, rows)
        tiles = -(-m // rows)
        stacks = -(-tiles // STACK)
        size, local = (-(-tiles // stacks), -(-n // columns(device, out.dtype)), stacks * batch), (1, 1, 1)
    else:
        size, local = (-(-n // 64) * 16, -(-m // rows) * 16, batch), (16, 16, 1)
    moved = a_strides[1] * blocks * m * k + panels.size + bias.size + (1 + accumulate) * batch * m * n
    knl = gemm_kernel(device, name, out.dtype, activation, rows)
    launch(
        device, knl, size, local, a, *a_strides, panels, bias, *bias_strides,
        out, start, m * n, *(c_strides or (n, 1)), m, n, k, blocks, int(accumulate),
        flops=2 * batch * m * n * k * blocks, nbytes=moved * out.dtype.itemsize,
    )  # fmt: skip


def gemm_plain(device, a, b, m, n, k, *, ta=False, tb=False, batch=1, bias=None, activation=None, out=None):
    """The same product by the plain kernel: one work-item, one element."""
    out = empty(device, (batch, m, n), a.dtype) if out is None else out
    a_row, a_col = (1, m) if ta else (k, 1)
    b_row, b_col = (1, k) if tb else (n, 1)
    knl = gemm_kernel(device, "gemm_plain", a.dtype, activation)
    launch(
        device, knl, (n, m, batch), (16, 1, 1), a, m * k, a_row, a_col, b, k * n, b_row, b_col, bias, out, m, n, k,
        flops=2 * batch * m * n * k,
    )  # fmt: skip
    return out


def thin(device) -> tuple[int, int]:
    """The most rows of C for which gemm_dots, and rows or products a sum for which gemm_strips pays."""
    if device.platform == "Intel(R) OpenCL":  # its compiler makes no vectors of gemm_dots' sums
        return 0, STRIP_ROWS // 4
    return DOT_ROWS, STRIP_ROWS


def gemm_unpacked(device, a, b, m, n, k, ta, tb, batch, bias, activation, out) -> bool:
    """The same product by a kernel that reads B as it stands. False, and nothing done, where packing it pays."""
    bias_strides = (0, 1)
    if n == 1:  # C^T = B^T A^T lies in memory as C does
        a, b, m, n, ta, tb, bias_strides = b, a, 1, m, not tb, not ta, (0, 0)
    work, (few_rows, few) = {"flops": 2 * batch * m * n * k}, thin(device)
    if tb and m <= few_rows and (m == 1 or not ta):
        knl = gemm_kernel(device, "gemm_dots", a.dtype, activation)
        launch(device, knl, (n, batch), (8, 1), a, b, bias, *bias_strides, out, m, n, k, **work)
    elif not tb and n >= STRIP // 4 and min(m, k) <= few:
        knl = gemm_kernel(device, "gemm_strips", a.dtype, activation)
        size, a_strides = (-(-n // STRIP), -(-m // STRIP_ROWS), batch), (1, m) if ta else (k, 1)
        launch(device, knl, size, (1, 1, 1), a, *a_strides, b, bias, *bias_strides, out, m, n, k, **work)
    else:
        return False
    return True


def gemm_replaced(device, a, b, m, n, k, ta, tb, batch, bias, out):
    """The same product by a kernel that stands in for the package's. It takes one pair of matrices, stored by rows."""
    own = replacements["gemm", "gemm"]

    def matrix(x, rows, cols, transposed, i):
        if batch == 1 and not transposed:
            return x
        return gather(device, x, (rows, cols), (1, rows) if transposed else (cols, 1), i * rows * cols)

    for i in range(batch):
        left, right = matrix(a, m, k, ta, i), matrix(b, k, n, tb, i)
        c = out if batch == 1 else empty(device, (m, n), out.dtype)
        flops, nbytes = 2 * m * n * k, 4 * (m * k + k * n + m * n)
        knl = own.kernel(device)
        launch(device, knl, own.size(m, n, k), own.local, left, right, c, m, n, k, flops=flops, nbytes=nbytes)
        if batch > 1:
            scatter(device, c, out, (n, 1), i * m * n)
    if bias is not None:
        rows = reshaped(out, (batch * m, n))
        binary(device, "add", rows, bias, out=rows)
    return out


class MatMul(Function):
    """A batch of matrix products: (B, M, K) times (B, K, N)."""

    def forward(self, a, b):
        self.a, self.b = a, b
        (batch, m, k), n = a.shape, b.shape[2]
        return gemm(self.device, a, b, m, n, k, batch=batch)

    def backward(self, grad):
        (batch, m, k), n = self.a.shape, self.b.shape[2]
        da = db = None
        if self.needs[0]:
            da = gemm(self.device, grad, self.b, m, k, n, tb=True, batch=batch, out=self.grad_array(0))
        if self.needs[1]:
            db = gemm(self.device, self.a, grad, k, n, m, ta=True, batch=batch, out=self.grad_array(1))
        return da, db


@method("__matmul__", "matmul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product by NumPy's rules for 1, 2 and more dimensions. Raises ShapeError if it does not fit."""
    a, b = match(a, b, real=True)
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or not a.ndim or not b.ndim:
        shapes = " and ".join(str(x.shape if isinstance(x, Tensor) else x) for x in (a, b))
        raise ShapeError(f"a matrix product needs two tensors of at least one dimension, got {shapes}")
    left = a.reshape(1, -1) if a.ndim == 1 else a
    right = b.reshape(-1, 1) if b.ndim == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise ShapeError(f"shapes {a.shape} and {b.shape} do not fit a product: {left.shape[-1]} != {right.shape[-2]}")
    if right.ndim == 2:  # one matrix on the right: all rows on the left are one tall matrix
        product = MatMul()(left.reshape(1, -1, left.shape[-1]), right.reshape(1, *right.shape))
        shape = (*left.shape[:-1], right.shape[-1])
    else:
        try:
            lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        except ValueError:
            raise ShapeError(f"the batches of {a.shape} and {b.shape} do not fit together") from None
        sides = [t if t.shape[:-2] == lead else t.broadcast_to(lead + t.shape[-2:]) for t in (left, right)]
        product = MatMul()(*[t.reshape(-1, *t.shape[-2:]) for t in sides])
        shape = (*lead, left.shape[-2], right.shape[-1])
    drop = (-2,) * (a.ndim == 1) + (-1,) * (b.ndim == 1)
    return product.reshape(tuple(n for i, n in enumerate(shape, -len(shape)) if i not in drop))


Tensor.__rmatmul__ = lambda b, a: matmul(a, b)


class LinearFunction(Function):
    """x W^T + bias, the bias added and the activation applied as the product is stored."""

    def __init__(self, activation: str | None):
        self.activation = activation

    def forward(self, x, weight, bias=None):
        self.x, self.weight = x, weight
        (rows, k), n = x.shape, weight.shape[0]
        self.y = empty(self.device, (rows, n), x.dtype)
        return gemm(self.device, x, weight, rows, n, k, tb=True, bias=bias, activation=self.activation, out=self.y)

    def backward(self, grad):
        if self.y.size * self.weight.shape[1] <= SMALL and not replacements:
            return self.backward_plain(grad)
        grad = fused_backward(self.device, self.activation, self.y, grad)
        (rows, k), n = self.x.shape, self.weight.shape[0]
        dx = dw = db = None
        if self.needs[0]:
            dx = gemm(self.device, grad, self.weight, rows, k, n, out=empty(self.device, (rows, k), grad.dtype))
        if self.needs[1]:
            dw = gemm(self.device, grad, self.x, n, k, rows, ta=True, out=self.grad_array(1))
        if len(self.needs) > 2 and self.needs[2]:
            db = reduce_axes(self.device, "sum", grad, (0,), out=self.grad_array(2))
        return (dx, dw, db)[: len(self.needs)]

    def backward_plain(self, grad):
        """The same in one launch: by themselves the parts of a small layer take longer to start than to run."""
        (rows, k), n = self.x.shape, self.weight.shape[0]
        wanted = [self.grad_array(i) if needed else None for i, needed in enumerate(self.needs)]
        knl = gemm_kernel(self.device, "linear_backward", grad.dtype, self.activation)
        launch(
            self.device, knl, (k + 1, max(rows, n)), (16, 16), grad, self.y, self.x, self.weight,
            *(*wanted, None)[:3], rows, n, k, flops=2 * rows * n * k * sum(self.needs[:2]) + rows * n,
        )  # fmt: skip
        return wanted


def operands(input: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Input, weight and, if there is one, bias of a layer. Raises ShapeError or DTypeError where they differ, and
    DTypeError where they are no numbers."""
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"the bias must have shape {weight.shape[:1]}, got {bias.shape}")
    given = [t for t in (input, weight, bias) if t is not None]
    if len({t.dtype for t in given}) > 1 or weight.dtype == np.bool_:
        kinds = ", the ".join(
            f"{n} {t.dtype.name}" for n, t in zip(("input is", "weight", "bias"), given, strict=False)
        )
        raise DTypeError(f"the {kinds}, but a layer multiplies numbers of one type: convert with astype")
    return given


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """input W^T + bias for input (..., in), weight (out, in) and bias (out,): a fully connected layer.

    ``activation``, "relu", "tanh" or "sigmoid", is applied in the same launch. Raises ShapeError or DTypeError if
    shapes or types do not fit, ValueError for another activation.
    """
    if weight.ndim != 2:
        raise ShapeError(f"the weight must have two dimensions, (out, in), got shape {weight.shape}")
    if not input.ndim or input.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"a weight of shape {weight.shape} needs an input (..., {weight.shape[-1]}), got {input.shape}"
        )
    _, *given = operands(input, weight, bias)
    if activation in ACTIVATIONS and replacements:
        return ACTIVATIONS[activation](linear(input, weight, bias))
    if input.ndim == 2:
        return LinearFunction(activation)(input, *given)
    rows = LinearFunction(activation)(input.reshape(-1, input.shape[-1]), *given)
    return rows.reshape(*input.shape[:-1], weight.shape[0])
