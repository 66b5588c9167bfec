// Local response normalisation of x[N][C][P] across neighbouring channels (Krizhevsky et al. 2012):
//
//   y[c] = x[c] d[c]^-beta,  d[c] = k + scale * (the sum of x[j]^2 for j = c - size / 2 .. c + (size - 1) / 2)
//
// at each of the P positions of an image; channels outside 0 .. C - 1 count as zeros. Forward keeps d^(-beta - 1):
// with it backward needs no power. A work-item computes SPAN neighbouring positions of `depth` channels: on a CPU
// all channels of a stretch that stays in the cache, its inner loops a vector wide; on a GPU one element.
//
// -DTHREE_QUARTERS=1 is for beta = 0.75: pow() costs PoCL fifty times as much as two square roots. -DSQRT names
// the square root.

#ifndef REAL
#define REAL float
#define SPAN 1
#define SQRT sqrt
#define THREE_QUARTERS 1
#endif

#define SIZES int C, int P, int depth, int size, REAL k, REAL scale, REAL beta

// sum = d[c]: x points at the stretch in channel 0
static inline void divisors(
    __global const REAL *x, REAL *sum, int width, int c, int C, int P, int size, REAL k, REAL scale)
{
    int low = c - size / 2 < 0 ? 0 : c - size / 2, high = c + (size - 1) / 2 < C ? c + (size - 1) / 2 : C - 1;
    for (int i = 0; i < width; i++)
        sum[i] = 0;
    for (int j = low; j <= high; j++)
        for (int i = 0; i < width; i++)
            sum[i] += x[j * P + i] * x[j * P + i];
    for (int i = 0; i < width; i++)
        sum[i] = k + scale * sum[i];
}

// `kept` may be null, where no gradient is wanted
__kernel void local_response_norm(
    __global const REAL *restrict x, __global REAL *restrict y, __global REAL *restrict kept, SIZES)
{
    int from = get_global_id(0) * SPAN, first = get_global_id(1) * depth, n = get_global_id(2);
    if (from >= P || first >= C) return;
    int width = P - from < SPAN ? P - from : SPAN, last = first + depth < C ? first + depth : C;
    size_t at = (size_t)n * C * P + from;
    x += at;
    y += at;
    for (int c = first; c < last; c++) {
        REAL d[SPAN];
        divisors(x, d, width, c, C, P, size, k, scale);
        for (int i = 0; i < width; i++) {
#if THREE_QUARTERS
            REAL root = SQRT(d[i]), factor = 1 / (root * SQRT(root));
#else
            REAL factor = pow(d[i], -beta);
#endif
            y[c * P + i] = x[c * P + i] * factor;
            if (kept)
                kept[at + c * P + i] = factor / d[i];
        }
    }
}

// dx[c] = g[c] kept[c] d[c] - 2 scale beta x[c] (the sum of g[j] x[j] kept[j] over all j whose d[j] holds x[c])
__kernel void local_response_norm_backward(
    __global const REAL *restrict x, __global const REAL *restrict kept, __global const REAL *restrict g,
    __global REAL *restrict dx, SIZES)
{
    int from = get_global_id(0) * SPAN, first = get_global_id(1) * depth, n = get_global_id(2);
    if (from >= P || first >= C) return;
    int width = P - from < SPAN ? P - from : SPAN, last = first + depth < C ? first + depth : C;
    size_t at = (size_t)n * C * P + from;
    x += at;
    kept += at;
    g += at;
    dx += at;
    for (int c = first; c < last; c++) {
        REAL d[SPAN], sum[SPAN];
        divisors(x, d, width, c, C, P, size, k, scale);
        int low = c - (size - 1) / 2 < 0 ? 0 : c - (size - 1) / 2, high = c + size / 2 < C ? c + size / 2 : C - 1;
        for (int i = 0; i < width; i++)
            sum[i] = 0;
        for (int j = low; j <= high; j++)
            for (int i = 0; i < width; i++)
                sum[i] += g[j * P + i] * x[j * P + i] * kept[j * P + i];
        for (int i = 0; i < width; i++) {
            int here = c * P + i;
            dx[here] = g[here] * kept[here] * d[i] - 2 * scale * beta * x[here] * sum[i];
        }
    }
}
