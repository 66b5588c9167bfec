// Hinge losses: 0 once the right answer wins by the margin, before that growing with what is missing.
//
// Each computes the loss and, in the same pass, its slope times `weight`, the gradient of their mean or sum. At the kink itself the slope is 0. Comparisons are written
// so that NaN stays NaN; a target that is none gives NaN, never a read out of bounds.

#include "each.h"  // EACH(i, n): this work-item's elements

#ifndef REAL
#define REAL float
#endif

// max(0, margin - t x) for targets t of -1 or +1
__kernel void hinge(
    __global const REAL *xs, __global const REAL *ts, __global REAL *loss, __global REAL *dx, REAL weight,
    REAL margin, int n)
{
    EACH(i, n) {
        REAL t = ts[i], missing = t == 1 || t == -1 ? margin - t * xs[i] : NAN;
        loss[i] = missing <= 0 ? 0 : missing;
        dx[i] = missing <= 0 ? 0 : -t * weight;
    }
}

// scale * sum over k other than the label of max(0, margin - x[label] + x[k])^p, p 1 or 2, one work-item a row
__kernel void multi_margin(
    __global const REAL *x, __global const int *labels, __global REAL *loss, __global REAL *dx, REAL weight,
    int p, REAL margin, REAL scale, int rows, int n)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    x += (size_t)row * n;
    dx += (size_t)row * n;
    int label = labels[row];
    REAL right = label >= 0 && label < n ? x[label] : NAN, sum = 0, slopes = 0;
    for (int k = 0; k < n; k++) {
        REAL missing = margin - right + x[k];
        REAL part = k == label || missing <= 0 ? 0 : p == 1 ? missing : missing * missing;
        REAL slope = k == label || missing <= 0 ? 0 : p == 1 ? scale : 2 * scale * missing;
        sum += part;
        slopes += slope;
        dx[k] = slope * weight;
    }
    if (label >= 0 && label < n)
        dx[label] = -slopes * weight;
    loss[row] = sum * scale;
}
