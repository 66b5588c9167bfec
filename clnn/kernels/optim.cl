// Steps of optimisers for all parameters at once, number by number; and gradients shortened before them.

#ifndef REAL
#define REAL float
#endif

#include "each.h"  // EACH

// Stochastic gradient descent:
//
//   g = grad + weight_decay * w
//   v = momentum * v + (1 - dampening) * g          (Polyak 1964)
//   w = w - lr * v                                  or, with nesterov, w - lr * (g + momentum * v)

__kernel void sgd(
    __global REAL *w, __global const REAL *grad, __global REAL *velocity, int start, int end,
    REAL lr, REAL momentum, REAL dampening, REAL weight_decay, int nesterov, int first)
{
    EACH(k, end - start) {
        int i = start + k;
        REAL g = grad[i] + weight_decay * w[i], step = g;
        if (momentum != 0) {
            REAL v = first ? g : momentum * velocity[i] + (1 - dampening) * g;
            velocity[i] = v;
            step = nesterov ? g + momentum * v : v;
        }
        w[i] -= lr * step;
    }
}

// Adam (Kingma and Ba 2015), in step t with rate = lr / (1 - beta1^t) and stretch = 1 / sqrt(1 - beta2^t):
//
//   g = grad + weight_decay * w
//   m = beta1 * m + (1 - beta1) * g
//   s = beta2 * s + (1 - beta2) * g^2
//   w = w - shrink * w - rate * m / (sqrt(s) * stretch + eps)        (shrink = lr * weight_decay in AdamW, else 0)
//
// rest1 = 1 - beta1 and rest2 = 1 - beta2 come from the host, where they lose no digits.
__kernel void adam(
    __global REAL *w, __global const REAL *grad, __global REAL *mean, __global REAL *square, int start, int end,
    REAL rate, REAL beta1, REAL rest1, REAL beta2, REAL rest2, REAL stretch, REAL eps, REAL weight_decay, REAL shrink)
{
    EACH(k, end - start) {
        int i = start + k;
        REAL old = w[i], g = grad[i] + weight_decay * old;
        REAL m = beta1 * mean[i] + rest1 * g, s = beta2 * square[i] + rest2 * g * g;
        mean[i] = m;
        square[i] = s;
        w[i] = old - shrink * old - rate * m / (sqrt(s) * stretch + eps);
    }
}

#define LANES 8  // parts of a sum: an addition need not wait for the one before

// sums[at + t] = the sum of the squares of g[t * chunk .. (t + 1) * chunk - 1]
__kernel void sum_squares(__global const REAL *g, __global REAL *sums, int n, int chunk, int at)
{
    int t = get_global_id(0), i = t * chunk, end = i + chunk < n ? i + chunk : n;
    if (i >= n) return;
    REAL part[LANES] = {0}, sum = 0;
    for (; i + LANES <= end; i += LANES)
#pragma unroll
        for (int k = 0; k < LANES; k++)
            part[k] += g[i + k] * g[i + k];
    for (int k = 0; i + k < end; k++)
        part[k] += g[i + k] * g[i + k];
    for (int k = 0; k < LANES; k++)
        sum += part[k];
    sums[at + t] = sum;
}

// out = g, shortened where the root of *total is longer than max_norm; NaN and infinities spread
__kernel void shorten(__global const REAL *g, __global REAL *out, __global const REAL *total, int n, REAL max_norm)
{
    REAL factor = max_norm / (sqrt(*total) + (REAL)1e-6);
    EACH(i, n)
        out[i] = factor >= 1 ? g[i] : g[i] * factor;
}
