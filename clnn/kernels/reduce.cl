// Reductions along the middle dimension of x[outer][n][inner].
//
// A work-item reduces `chunk` elements; the host calls again for the chunks of a long sum. Adding within chunks
// first also keeps the rounding error small (Higham 1993, pairwise summation). Results are multiplied by `scale`, so that
// a sum can be a mean.

#ifndef REAL
#define REAL float
#endif

// out[outer][chunks][inner]
#define REDUCE(NAME, TAKE)                                                                  \
    __kernel void NAME(                                                                     \
        __global const REAL *x, __global REAL *out, int outer, int n, int inner, int chunk, REAL scale) \
    {                                                                                       \
        int j = get_global_id(0), c = get_global_id(1), o = get_global_id(2);               \
        if (j >= inner || o >= outer) return;                                               \
        int from = c * chunk, to = from + chunk < n ? from + chunk : n;                     \
        __global const REAL *at = x + (size_t)o * n * inner + j;                            \
        REAL y = at[(size_t)from * inner];                                                  \
        for (int k = from + 1; k < to; k++) {                                               \
            REAL v = at[(size_t)k * inner];                                                 \
            y = TAKE;                                                                       \
        }                                                                                   \
        out[((size_t)o * get_global_size(1) + c) * inner + j] = y * scale;                  \
    }

REDUCE(sum, y + v)

// The sum of neighbours (inner = 1) in eight interleaved parts: an addition need not wait for the one before.
__kernel void sum_neighbours(
    __global const REAL *x, __global REAL *out, int outer, int n, int inner, int chunk, REAL scale)
{
    int c = get_global_id(1), o = get_global_id(2);
    if (get_global_id(0) > 0 || o >= outer) return;
    int k = c * chunk, to = k + chunk < n ? k + chunk : n;
    x += (size_t)o * n;
    REAL part[8] = {0, 0, 0, 0, 0, 0, 0, 0}, y = 0;
    for (; k + 8 <= to; k += 8)
#pragma unroll
        for (int i = 0; i < 8; i++)
            part[i] += x[k + i];
    for (int i = 0; k + i < to; i++)
        part[i] += x[k + i];
    for (int i = 0; i < 8; i++)
        y += part[i];
    out[(size_t)o * get_global_size(1) + c] = y * scale;
}

REDUCE(largest, v > y || v != v ? v : y)  // NaN wins, as in NumPy
REDUCE(smallest, v < y || v != v ? v : y)

// The index of the first largest element
__kernel void argmax(__global const REAL *x, __global int *out, int outer, int n, int inner)
{
    int j = get_global_id(0), o = get_global_id(1);
    if (j >= inner || o >= outer) return;
    __global const REAL *at = x + (size_t)o * n * inner + j;
    int best = 0;
    REAL top = at[0];
    for (int k = 1; k < n; k++) {
        REAL v = at[(size_t)k * inner];
        if (v > top || (v != v && top == top)) {
            top = v;
            best = k;
        }
    }
    out[o * inner + j] = best;
}
