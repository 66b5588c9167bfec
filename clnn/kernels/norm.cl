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
//
// The kernels whose names end in 2d sum within each map in place of across maps; see there.

#ifndef REAL
#define REAL float
#define SPAN 1
#define SQRT sqrt
#define THREE_QUARTERS 1
#endif
#ifndef SIZE
#define SIZE 1
#define WHOLE 0
#endif

// d^-beta
static inline REAL inverse_power(REAL d, REAL beta)
{
#if THREE_QUARTERS
    REAL root = SQRT(d);
    return 1 / (root * SQRT(root));
#else
    return pow(d, -beta);
#endif
}

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
            REAL factor = inverse_power(d[i], beta);
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

// The same within each map of x[planes][H][W] (Krizhevsky's cuda-convnet, 2011): the sum is that of the squares of
// SIZE x SIZE pixels around one, from SIZE / 2 rows and columns before it to (SIZE - 1) / 2 behind it, and pixels
// outside the map count as zeros. A work-item computes SPAN neighbours of each of `rows` rows: on a CPU whole maps, on
// a GPU one pixel. -DWHOLE=1 says that SPAN divides W, so that the inner loops have a fixed length.

#define MAP_SIZES int H, int W, int rows, REAL k, REAL scale, REAL beta

// sum[i] for pixels `from` + i of row iy: of x^2, or of g x kept where there is a g; `before` says how many rows and
// columns of the window lie before the pixel. Down the columns first, then along the row.
static inline void window_sums(
    __global const REAL *x, __global const REAL *g, __global const REAL *kept, REAL *sum, int width, int iy, int from,
    int before, int H, int W)
{
    REAL column[SPAN + SIZE - 1];
    int top = iy - before < 0 ? 0 : iy - before, end = iy - before + SIZE < H ? iy - before + SIZE : H;
    int left = from - before, first = left < 0 ? -left : 0;
    int last = left + width + SIZE - 1 < W ? width + SIZE - 1 : W - left;
    for (int i = 0; i < width + SIZE - 1; i++)
        column[i] = 0;
    for (int at = top * W + left; at < end * W + left; at += W)
        for (int i = first; i < last; i++)
            column[i] += g ? g[at + i] * x[at + i] * kept[at + i] : x[at + i] * x[at + i];
    for (int i = 0; i < width; i++)
        sum[i] = 0;
    for (int j = 0; j < SIZE; j++)
        for (int i = 0; i < width; i++)
            sum[i] += column[i + j];
}

__kernel void local_response_norm2d(
    __global const REAL *restrict x, __global REAL *restrict y, __global REAL *restrict kept, MAP_SIZES)
{
    int from = get_global_id(0) * SPAN, first = get_global_id(1) * rows;
    if (from >= W || first >= H) return;
    int width = WHOLE ? SPAN : W - from < SPAN ? W - from : SPAN, end = first + rows < H ? first + rows : H;
    size_t plane = (size_t)get_global_id(2) * H * W;
    x += plane;
    for (int iy = first; iy < end; iy++) {
        REAL sum[SPAN];
        window_sums(x, 0, 0, sum, width, iy, from, SIZE / 2, H, W);
        size_t row = plane + iy * W + from;
        for (int i = 0; i < width; i++) {
            REAL d = k + scale * sum[i], factor = inverse_power(d, beta);
            y[row + i] = x[iy * W + from + i] * factor;
            if (kept)
                kept[row + i] = factor / d;
        }
    }
}

// dx = g kept d - 2 scale beta x (the sum of g x kept over all pixels whose windows hold this one)
__kernel void local_response_norm2d_backward(
    __global const REAL *restrict x, __global const REAL *restrict kept, __global const REAL *restrict g,
    __global REAL *restrict dx, MAP_SIZES)
{
    int from = get_global_id(0) * SPAN, first = get_global_id(1) * rows;
    if (from >= W || first >= H) return;
    int width = WHOLE ? SPAN : W - from < SPAN ? W - from : SPAN, end = first + rows < H ? first + rows : H;
    size_t plane = (size_t)get_global_id(2) * H * W;
    x += plane;
    kept += plane;
    g += plane;
    dx += plane;
    for (int iy = first; iy < end; iy++) {
        REAL squares[SPAN], sum[SPAN];
        window_sums(x, 0, 0, squares, width, iy, from, SIZE / 2, H, W);
        window_sums(x, g, kept, sum, width, iy, from, (SIZE - 1) / 2, H, W);
        for (int i = 0; i < width; i++) {
            int here = iy * W + from + i;
            dx[here] = g[here] * kept[here] * (k + scale * squares[i]) - 2 * scale * beta * x[here] * sum[i];
        }
    }
}
