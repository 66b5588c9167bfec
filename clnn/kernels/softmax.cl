// Softmax, its logarithm, and cross-entropy along the last dimension, one work-item a row; and losses of single numbers:
// the cross-entropy of probabilities or of their logits, the squared and the absolute error. A loss comes with its slope times `weight`, the
// gradient of their mean or sum.
//
// The largest logit is subtracted first: e^x then never overflows, and the result does not change.

#include "each.h"  // EACH(i, n): this work-item's elements

#ifndef REAL
#define REAL float
#endif

static inline REAL row_max(__global const REAL *x, int n)
{
    REAL top = x[0];
    for (int k = 1; k < n; k++)
        top = x[k] > top || x[k] != x[k] ? x[k] : top;
    return top;
}

static inline REAL row_sum_exp(__global const REAL *x, int n, REAL top)
{
    REAL sum = 0;
    for (int k = 0; k < n; k++)
        sum += exp(x[k] - top);
    return sum;
}

__kernel void softmax(__global const REAL *x, __global REAL *y, int rows, int n)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    x += (size_t)row * n;
    y += (size_t)row * n;
    REAL top = row_max(x, n), sum = 0;
    for (int k = 0; k < n; k++) {
        y[k] = exp(x[k] - top);
        sum += y[k];
    }
    for (int k = 0; k < n; k++)
        y[k] /= sum;
}

// dx = y (g - sum g y)
__kernel void softmax_backward(
    __global const REAL *y, __global const REAL *g, __global REAL *dx, int rows, int n)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    size_t at = (size_t)row * n;
    REAL dot = 0;
    for (int k = 0; k < n; k++)
        dot += y[at + k] * g[at + k];
    for (int k = 0; k < n; k++)
        dx[at + k] = y[at + k] * (g[at + k] - dot);
}

__kernel void log_softmax(__global const REAL *x, __global REAL *y, int rows, int n)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    x += (size_t)row * n;
    y += (size_t)row * n;
    REAL top = row_max(x, n), shift = log(row_sum_exp(x, n, top));
    for (int k = 0; k < n; k++)
        y[k] = (x[k] - top) - shift;  // in this order large logits keep their digits
}

// dx = g - softmax sum g
__kernel void log_softmax_backward(
    __global const REAL *y, __global const REAL *g, __global REAL *dx, int rows, int n)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    size_t at = (size_t)row * n;
    REAL sum = 0;
    for (int k = 0; k < n; k++)
        sum += g[at + k];
    for (int k = 0; k < n; k++)
        dx[at + k] = g[at + k] - exp(y[at + k]) * sum;
}

// loss[row] = log sum_k e^x[k] - x[label], in one pass with its gradient:
// dx[row] = softmax(x) - (1 at the label). A label outside 0..n-1 gives NaN, never a read out of bounds.
__kernel void cross_entropy(
    __global const REAL *x, __global const int *labels, __global REAL *loss, __global REAL *dx, REAL weight,
    int rows, int n)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    x += (size_t)row * n;
    dx += (size_t)row * n;
    REAL top = row_max(x, n), sum = row_sum_exp(x, n, top);
    int label = labels[row];
    loss[row] = label >= 0 && label < n ? log(sum) + (top - x[label]) : NAN;
    for (int k = 0; k < n; k++)
        dx[k] = (exp(x[k] - top) / sum - (k == label)) * weight;
}

// -t log p - (1 - t) log(1 - p), each logarithm no less than -100, and its slope by p. Comparisons are written so that
// NaN, the logarithm of what is no probability, stays NaN.
__kernel void binary_cross_entropy(
    __global const REAL *ps, __global const REAL *ts, __global REAL *loss, __global REAL *dp, REAL weight, int n)
{
    EACH(i, n) {
        REAL p = ps[i], t = ts[i], yes = log(p), no = log1p(-p), spread = p * (1 - p);
        loss[i] = -(t * (yes < -100 ? -100 : yes) + (1 - t) * (no < -100 ? -100 : no));
        dp[i] = (p - t) / (spread < (REAL)1e-12 ? (REAL)1e-12 : spread) * weight;
    }
}

// The same of p = sigmoid(x): t log(1 + e^-x) + (1 - t) log(1 + e^x), and its slope p - t. Where t is 0 or 1 no number is
// taken from another, so that the last digits of an answer that is nearly certain are not lost.
__kernel void logits_cross_entropy(
    __global const REAL *xs, __global const REAL *ts, __global REAL *loss, __global REAL *dx, REAL weight, int n)
{
    EACH(i, n) {
        REAL x = xs[i], t = ts[i], e = exp(-fabs(x)), rest = log1p(e);  // e^x itself could overflow
        REAL p = (x < 0 ? e : 1) / (1 + e), not_p = (x < 0 ? 1 : e) / (1 + e);
        loss[i] = t * (rest + (x < 0 ? -x : 0)) + (1 - t) * (rest + (x < 0 ? 0 : x));
        dx[i] = ((1 - t) * p - t * not_p) * weight;
    }
}

// (x - t)^2 and its slope by x, less the factor 2
__kernel void squared_error(
    __global const REAL *x, __global const REAL *t, __global REAL *loss, __global REAL *dx, REAL weight, int n)
{
    EACH(i, n) {
        REAL d = x[i] - t[i];
        loss[i] = d * d;
        dx[i] = d * weight;
    }
}

// |x - t| and its slope by x, which is 0 where they are equal
__kernel void absolute_error(
    __global const REAL *x, __global const REAL *t, __global REAL *loss, __global REAL *dx, REAL weight, int n)
{
    EACH(i, n) {
        REAL d = x[i] - t[i];
        loss[i] = fabs(d);
        dx[i] = d > 0 ? weight : d < 0 ? -weight : d;
    }
}

// out[row] = dx[row] g, where the gradient g of the loss is not 1: a number for each row of n or one for all
__kernel void scale_rows(
    __global const REAL *dx, __global const REAL *g, __global REAL *out, int one_each, int size, int n)
{
    EACH(i, size)
        out[i] = dx[i] * g[one_each ? i / n : 0];
}
