"""Homework 1: a solution, for the instructor."""

import numpy as np

from clnn.lab.kernel import Cell

# 1. scale_shift: y = a x + b, one work-item an element

SCALE_SHIFT = r"""
__kernel void scale_shift(__global const float *x, __global float *y, float a, float b, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    y[i] = a * x[i] + b;
}
"""


def scale_shift(x, a, b):
    y = np.zeros_like(x)
    Cell(SCALE_SHIFT).kernels["scale_shift"](x, y, a, b, x.size, size=x.size)
    return y


# 2. column_max: the largest number of each column, one work-item a column

COLUMN_MAX = r"""
__kernel void column_max(__global const float *x, __global float *largest, int rows, int columns)
{
    int j = get_global_id(0);
    if (j >= columns) return;
    float most = x[j];
    for (int i = 1; i < rows; i++)
        most = x[i * columns + j] > most ? x[i * columns + j] : most;
    largest[j] = most;
}
"""


def column_max(x):
    rows, columns = x.shape
    largest = np.zeros(columns, np.float32)
    Cell(COLUMN_MAX).kernels["column_max"](x, largest, rows, columns, size=columns)
    return largest


# 3. swish and its way back: y = x / (1 + e^-x); dx = dy times the derivative of y by x

SWISH = r"""
__kernel void swish(__global const float *x, __global float *y, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    y[i] = x[i] / (1 + exp(-x[i]));
}

__kernel void swish_backward(__global const float *x, __global const float *dy, __global float *dx, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    float s = 1 / (1 + exp(-x[i]));
    dx[i] = dy[i] * s * (1 + x[i] * (1 - s));
}
"""


def swish(x):
    y = np.zeros_like(x)
    Cell(SWISH).kernels["swish"](x, y, x.size, size=x.size)
    return y


def swish_backward(x, dy):
    dx = np.zeros_like(x)
    Cell(SWISH).kernels["swish_backward"](x, dy, dx, x.size, size=x.size)
    return dx


# 4. heat: one step of heat spreading on a plate, one work-item a place

HEAT = r"""
__kernel void heat(__global const float *t, __global float *next, float k, int rows, int columns)
{
    int j = get_global_id(0), i = get_global_id(1);
    if (i >= rows || j >= columns) return;
    int here = i * columns + j;
    float sum = 0;
    if (i > 0) sum += t[here - columns] - t[here];
    if (i < rows - 1) sum += t[here + columns] - t[here];
    if (j > 0) sum += t[here - 1] - t[here];
    if (j < columns - 1) sum += t[here + 1] - t[here];
    next[here] = t[here] + k * sum;
}
"""


def heat(t, k):
    rows, columns = t.shape
    after = np.zeros_like(t)
    Cell(HEAT).kernels["heat"](t, after, k, rows, columns, size=(columns, rows))
    return after


if __name__ == "__main__":
    x = np.float32([[1, -2, 3], [0, 5, -6]])
    print("scale_shift:   ", scale_shift(x, 2.0, 1.0).tolist(), "expected [[3, -3, 7], [1, 11, -11]]")
    print("column_max:    ", column_max(x).tolist(), "expected [1, 5, 3]")
    print("swish:         ", swish(np.float32([0, 1])).round(4).tolist(), "expected [0, 0.7311]")
    back = swish_backward(np.float32([0, 1]), np.float32([1, 2]))
    print("swish_backward:", back.round(4).tolist(), "expected [0.5, 1.8553]")
    print("heat:          ", heat(np.float32([[0, 4, 0]]), 0.25).tolist(), "expected [[1, 2, 1]]")
