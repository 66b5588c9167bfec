"""The checks of notebook 05: kernels that the student writes."""

import numpy as np

from ..kernel_check import kernel_exercise, kernel_task

VECTORS = [(1,), (64,), (1000,), (257,)]
TABLES = [(1, 1), (16, 16), (5, 33), (37, 18)]


def _vectors(*names, **numbers):
    """``inputs`` for a case (n,): random vectors of n numbers, and numbers that are the same in each case."""
    return lambda rng, n: {"n": n, **numbers, **{name: rng.normal(size=n) for name in names}}


def _table(rng, rows, columns):
    """``inputs`` for a case (rows, columns): one table x, with few numbers that are alike."""
    return {"x": rng.normal(size=(rows, columns)), "rows": rows, "columns": columns}


def _table_and_bias(rng, rows, columns):
    return {**_table(rng, rows, columns), "bias": rng.normal(size=columns)}


def _matrices(rng, M, N, K):
    return {"a": rng.normal(size=(M, K)), "b": rng.normal(size=(K, N)), "M": M, "N": N, "K": K}


def _outside(values, places):
    """The numbers at these places, NaN for those that lie behind the end, as a kernel finds them here."""
    return np.where(places < values.size, values.ravel()[np.minimum(places, values.size - 1)], np.nan)


def _group_sums(x, n):
    return np.pad(x, (0, -n % 64)).reshape(-1, 64).sum(1)


def _convolved(x, w, n, ends="constant"):
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, 2, mode=ends), 5)
    return windows @ w


def _pooled(x, height, width, pick=np.max):
    return pick(x[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2), (1, 3))


def _softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _overflowing_softmax(x):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(x.astype(np.float32))
        return e / e.sum(1, keepdims=True)


kernel_exercise(
    "add",
    kernel_task(
        "add(__global const float *a, __global const float *b, __global float *c, int n)",
        inputs=_vectors("a", "b"),
        reference=lambda a, b: a + b,
        cases=VECTORS,
        small=(70,),
        large=(2**22,),
        size=lambda n: n,
        local=[64, 16],
        faults={
            "c holds a - b.": lambda a, b: a - b,
            "c holds a alone: where is b?": lambda a: a,
            "Only the first work-group's elements are computed: which number tells a work-item its place among all?": (
                lambda a, b, local: np.where(np.arange(len(a)) < local, a + b, np.nan)
            ),
        },
        flops=lambda n: n,
    ),
)

kernel_exercise(
    "leaky_relu",
    kernel_task(
        "leaky_relu(__global const float *x, __global float *y, float slope, int n)",
        inputs=_vectors("x", slope=0.1),
        reference=lambda x, slope: np.where(x > 0, x, slope * x),
        cases=VECTORS,
        small=(70,),
        large=(2**22,),
        size=lambda n: n,
        faults={
            "y is 0 below 0: that is the plain ReLU, which does not leak.": lambda x: np.maximum(x, 0),
            "The two sides are exchanged: the slope belongs to numbers below 0.": (
                lambda x, slope: np.where(x < 0, x, slope * x)
            ),
            "The slope is applied on both sides.": lambda x, slope: slope * x,
        },
        flops=lambda n: n,
    ),
    kernel_task(
        "leaky_relu_backward("
        "__global const float *x, __global const float *dy, __global float *dx, float slope, int n)",
        inputs=_vectors("x", "dy", slope=0.1),
        reference=lambda x, dy, slope: np.where(x > 0, dy, slope * dy),
        cases=VECTORS,
        small=(70,),
        size=lambda n: n,
        faults={
            "The gradient is 0 below 0, but y still changes with x there.": lambda x, dy: np.where(x > 0, dy, 0),
            "That is the derivative of y by x alone. By the chain rule it is to be multiplied by dy.": (
                lambda x, slope: np.where(x > 0, 1, slope)
            ),
            "The sides of the gradient are exchanged.": lambda x, dy, slope: np.where(x < 0, dy, slope * dy),
            "dx is dy everywhere: below 0 the slope is missing.": lambda dy: dy,
        },
        flops=lambda n: n,
    ),
)

kernel_exercise(
    "bias_tanh",
    kernel_task(
        "bias_tanh(__global const float *x, __global const float *bias, __global float *y, int rows, int columns)",
        inputs=_table_and_bias,
        reference=lambda x, bias: np.tanh(x + bias),
        cases=TABLES,
        small=(5, 18),
        large=(2048, 2048),
        size=lambda rows, columns: (columns, rows),
        local=(16, 16),
        faults={
            "tanh comes before the bias is added: the bias belongs inside.": lambda x, bias: np.tanh(x) + bias,
            "The bias is missing.": lambda x: np.tanh(x),
            "tanh is missing.": lambda x, bias: x + bias,
            "The bias is chosen by the row; each column has its own.": (
                lambda x, bias, rows, columns: np.tanh(x + _outside(bias, np.arange(rows)[:, None]))
            ),
        },
        flops=lambda rows, columns: 2 * rows * columns,
        tolerance=1e-4,
    ),
)

kernel_exercise(
    "row_sum",
    kernel_task(
        "row_sum(__global const float *x, __global float *sums, int rows, int columns)",
        inputs=_table,
        reference=lambda x: x.sum(1),
        cases=[(1, 1), (64, 64), (70, 5), (3, 200)],
        small=(5, 7),
        large=(4096, 1024),
        size=lambda rows: rows,
        faults={
            "That is the mean of each row; the sum is not divided.": lambda x: x.mean(1),
            "The last column is left out.": lambda x: x[:, :-1].sum(1),
            "The first column is left out.": lambda x: x[:, 1:].sum(1),
            "Rows and columns are mixed up: the next number of a row is its neighbour in memory.": (
                lambda x, rows, columns: _outside(x, np.add.outer(np.arange(rows), columns * np.arange(columns))).sum(1)
            ),
            "Rows begin at the wrong places: how many numbers does one row take in memory?": (
                lambda x, rows, columns: _outside(x, np.add.outer(rows * np.arange(rows), np.arange(columns))).sum(1)
            ),
        },
        flops=lambda rows, columns: rows * columns,
    ),
)

kernel_exercise(
    "max_pool",
    kernel_task(
        "max_pool(__global const float *x, __global float *y, int height, int width)",
        inputs=lambda rng, height, width: {"x": rng.normal(-1, 1, (height, width)), "height": height, "width": width},
        reference=lambda x, height, width: _pooled(x, height, width),
        cases=[(2, 2), (32, 32), (7, 9), (5, 66)],
        small=(5, 7),
        large=(4096, 4096),
        size=lambda height, width: (width // 2, height // 2),
        local=(8, 8),
        faults={
            "Windows whose numbers are all negative give 0: what does the search begin with?": (
                lambda x, height, width: np.maximum(_pooled(x, height, width), 0)
            ),
            "That is the smallest of each window.": lambda x, height, width: _pooled(x, height, width, np.min),
            "That is the mean of each window.": lambda x, height, width: _pooled(x, height, width, np.mean),
            "One of the four numbers of a window is left out.": (
                lambda x, height, width: np.maximum(
                    np.maximum(
                        x[: height // 2 * 2 : 2, : width // 2 * 2 : 2], x[: height // 2 * 2 : 2, 1 : width // 2 * 2 : 2]
                    ),
                    x[1 : height // 2 * 2 : 2, : width // 2 * 2 : 2],
                )
            ),
        },
        flops=lambda height, width: 3 * (height // 2) * (width // 2),
    ),
)

kernel_exercise(
    "row_softmax",
    kernel_task(
        "row_softmax(__global const float *x, __global float *y, int rows, int columns)",
        inputs=lambda rng, rows, columns: {
            "x": rng.normal(0, 3, (rows, columns)) + rng.choice([0, 100], (rows, 1)),
            "rows": rows,
            "columns": columns,
        },
        reference=_softmax,
        cases=[(1, 1), (64, 10), (7, 33), (70, 3)],
        small=(5, 7),
        large=(4096, 1024),
        size=lambda rows: rows,
        faults={
            "The numbers of a row are not divided by their sum: they must add up to 1.": (
                lambda x: np.exp(x - x.max(1, keepdims=True))
            ),
            "Rows of large numbers give NaN: a float holds no e^100. What may be taken from all of a row's numbers?": (
                _overflowing_softmax
            ),
        },
        flops=lambda rows, columns: 5 * rows * columns,
        tolerance=1e-4,
    ),
)

kernel_exercise(
    "histogram",
    kernel_task(
        "histogram(__global const int *x, __global int *counts, int n, int bins)",
        inputs=lambda rng, n, bins: {"x": rng.integers(0, bins, n) * (rng.random(n) < 0.7), "n": n, "bins": bins},
        reference=lambda x, bins: np.bincount(x, minlength=bins),
        cases=[(1, 1), (1000, 64), (777, 10), (500, 100)],
        small=(90, 10),
        large=(2**18, 256),
        size=lambda bins: bins,
        faults={
            "The last number of x is not counted.": lambda x, bins: np.bincount(x[:-1], minlength=bins),
            "The first number of x is not counted.": lambda x, bins: np.bincount(x[1:], minlength=bins),
        },
        flops=lambda n, bins: n * bins,
        nbytes=lambda n, bins: 4 * (n + bins),
    ),
)

kernel_exercise(
    "transpose",
    kernel_task(
        "transpose(__global const float *x, __global float *y, int rows, int columns)",
        inputs=_table,
        reference=lambda x: x.T,
        cases=TABLES,
        small=(18, 33),
        large=(4096, 4096),
        size=lambda rows, columns: (columns, rows),
        local=(16, 16),
        faults={
            "y holds x as it was, row by row.": lambda x, rows, columns: x.reshape(columns, rows),
        },
        shares=True,
    ),
)

kernel_exercise(
    "conv1d",
    kernel_task(
        "conv1d(__global const float *x, __global const float *w, __global float *y, int n)",
        inputs=lambda rng, n: {"x": rng.normal(size=n), "w": rng.normal(size=5), "n": n},
        reference=lambda x, w, n: _convolved(x, w, n),
        cases=[(1,), (64,), (1000,), (130,)],
        small=(130,),
        large=(2**22,),
        size=lambda n: n,
        local=64,
        faults={
            "The filter is turned round: y[0] begins with w[2] * x[0] + w[3] * x[1].": (
                lambda x, w, n: _convolved(x, w[::-1], n)
            ),
            "Outside of x all is 0; your kernel repeats the number at the edge.": (
                lambda x, w, n: _convolved(x, w, n, "edge")
            ),
        },
        flops=lambda n: 10 * n,
        shares=True,
    ),
)

kernel_exercise(
    "group_sum",
    kernel_task(
        "group_sum(__global const float *x, __global float *sums, int n)",
        inputs=_vectors("x"),
        reference=_group_sums,
        cases=[(1,), (64,), (1000,), (130,)],
        small=(130,),
        large=(2**22,),
        size=lambda n: n,
        local=64,
        faults={
            "One half of each group is left out.": lambda x, n: np.pad(x, (0, -n % 64)).reshape(-1, 64)[:, ::2].sum(1),
        },
        flops=lambda n: n,
        shares=True,
    ),
)

kernel_exercise(
    "tiled_gemm",
    kernel_task(
        "tiled_gemm(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)",
        inputs=_matrices,
        reference=lambda a, b: a @ b,
        cases=[(1, 1, 1), (32, 32, 32), (17, 40, 33), (40, 5, 19)],
        small=(17, 18, 35),
        large=(512, 512, 512),
        size=lambda M, N: (N, M),
        local=(16, 16),
        faults={
            "The products of the last, shorter tile along K are missing.": (
                lambda a, b, K: a[:, : K // 16 * 16] @ b[: K // 16 * 16]
            ),
            "Only the first tile along K is added up.": lambda a, b: a[:, :16] @ b[:16],
            "b is read as if it were stored column after column.": lambda a, b, N, K: a @ b.reshape(N, K).T,
        },
        flops=lambda M, N, K: 2 * M * N * K,
        tolerance=1e-4,
        shares=True,
    ),
)
