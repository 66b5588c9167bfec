// Max and average pooling of x[planes][H][W] to y[planes][OH][OW].
//
// The window of (oy, ox) starts at (oy * SY - py, ox * SX - px). Its size KH x KW, stride SY x SX and dilation
// DY x DX are constants (-D), so that the compiler unrolls it; INSIDE says that no window reaches past the image,
// so that no pixel needs a test. A work-item computes `span` neighbours of a row: a whole row on a CPU, one element
// on a GPU, where neighbouring work-items should read neighbouring memory.
//
// The windows of adaptive_avg_pool differ in size instead: see there.
//
// Backward comes in two forms, both without atomics, so that each sum has one owner and a fixed order:
// max_pool_backward, avg_pool_backward   one work-item a pixel, which collects from every window that covers it: GPUs
// *_backward_planes                      one work-item a plane, which hands out window after window: CPUs

#ifndef REAL
#define REAL float
#define KH 2
#define KW 2
#define SY 2
#define SX 2
#define DY 1
#define DX 1
#define INSIDE 0
#endif

// Without dilation a tap past the border may read the border's pixel instead: the window holds that one anyway. So
// only dilated windows have to leave taps out.
#define TESTED (!INSIDE && (DY > 1 || DX > 1))
static inline int limited(int i, int n)
{
    return INSIDE || TESTED ? i : i < 0 ? 0 : i < n ? i : n - 1;
}

#define SIZES int planes, int H, int W, int OH, int OW, int py, int px, int span

#define LANES 2  // neighbours computed side by side

__kernel void max_pool(__global const REAL *x, __global REAL *y, __global int *winner, SIZES)
{
    int from = get_global_id(0) * span, to = from + span < OW ? from + span : OW, row = get_global_id(1), oy = row % OH;
    if (row >= planes * OH) return;
    x += (size_t)(row / OH) * H * W;
    y += (size_t)row * OW;
    winner += (size_t)row * OW;
    for (int ox = from; ox < to; ox += LANES) {
        REAL top[LANES];
        int at[LANES], left = ox * SX - px, top_row = oy * SY - py;
        bool done = false;
        if (!TESTED && left >= 0 && left + (LANES - 1) * SX + (KW - 1) * DX < W && ox + LANES <= to) {
            // One comparison a tap and no branch, for which tap wins could not be predicted. It would lose a NaN, which
            // the sum betrays.
            REAL sum[LANES] = {0}, all = 0;
#pragma unroll
            for (int ky = 0; ky < KH; ky++) {
                int first = limited(top_row + ky * DY, H) * W + left;
#pragma unroll
                for (int kx = 0; kx < KW; kx++)
#pragma unroll
                    for (int i = 0; i < LANES; i++) {
                        int here = first + i * SX + kx * DX;
                        REAL v = x[here];
                        bool wins = ky + kx == 0 || !(v <= top[i]);
                        top[i] = wins ? v : top[i];
                        at[i] = wins ? here : at[i];
                        sum[i] += v;
                    }
            }
            for (int i = 0; i < LANES; i++)
                all += sum[i];
            done = all == all;
        }
        for (int i = 0; !done && i < LANES && ox + i < to; i++) {
            top[i] = -INFINITY;
            at[i] = -1;  // stays so where a dilated window steps over a small image
#pragma unroll
            for (int ky = 0; ky < KH; ky++)
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    int iy = top_row + ky * DY, ix = left + i * SX + kx * DX;
                    if (TESTED && (iy < 0 || iy >= H || ix < 0 || ix >= W)) continue;
                    int here = limited(iy, H) * W + limited(ix, W);
                    REAL v = x[here];
                    bool wins = (TESTED ? at[i] < 0 : ky + kx == 0) || v > top[i] || v != v;
                    top[i] = wins ? v : top[i];
                    at[i] = wins ? here : at[i];
                }
        }
        for (int i = 0; i < LANES && ox + i < to; i++) {
            y[ox + i] = top[i];
            winner[ox + i] = at[i];  // the place in the plane that the gradient goes back to
        }
    }
}

// The first and the last window along one dimension that can cover pixel i.
static inline int first_window(int i, int p, int reach, int s)
{
    return i + p - reach < 0 ? 0 : (i + p - reach + s - 1) / s;
}

static inline int last_window(int i, int p, int s, int n)
{
    return (i + p) / s < n ? (i + p) / s : n - 1;
}

__kernel void max_pool_backward(__global const REAL *g, __global const int *winner, __global REAL *dx, SIZES)
{
    int from = get_global_id(0) * span, row = get_global_id(1), iy = row % H;
    if (row >= planes * H) return;
    g += (size_t)(row / H) * OH * OW;
    winner += (size_t)(row / H) * OH * OW;
    dx += (size_t)row * W;
    int y0 = first_window(iy, py, (KH - 1) * DY, SY), y1 = last_window(iy, py, SY, OH);
    for (int ix = from; ix < from + span && ix < W; ix++) {
        int x0 = first_window(ix, px, (KW - 1) * DX, SX), x1 = last_window(ix, px, SX, OW);
        REAL sum = 0;
        for (int o = y0 * OW; o <= y1 * OW; o += OW)
            for (int ox = x0; ox <= x1; ox++)
                sum += winner[o + ox] == iy * W + ix ? g[o + ox] : 0;
        dx[ix] = sum;
    }
}

__kernel void max_pool_backward_planes(__global const REAL *g, __global const int *winner, __global REAL *dx, SIZES)
{
    int plane = get_global_id(1);
    if (plane >= planes) return;
    g += (size_t)plane * OH * OW;
    winner += (size_t)plane * OH * OW;
    dx += (size_t)plane * H * W;
    for (int i = 0; i < H * W; i++)
        dx[i] = 0;
    for (int o = 0; o < OH * OW; o++)
        if (!TESTED || winner[o] >= 0)
            dx[winner[o]] += g[o];
}

// How many elements a window's mean divides by: those of the window cut to the padded image, or to the image.
static inline int window_size(int o, int k, int s, int p, int n, int count_include_pad)
{
    int from = o * s - p, to = from + k;
    int low = count_include_pad ? from : (from < 0 ? 0 : from);
    int high = count_include_pad ? (to > n + p ? n + p : to) : (to > n ? n : to);
    return high - low;
}

__kernel void avg_pool(__global const REAL *x, __global REAL *y, int count_include_pad, SIZES)
{
    int from = get_global_id(0) * span, row = get_global_id(1), oy = row % OH;
    if (row >= planes * OH) return;
    x += (size_t)(row / OH) * H * W;
    y += (size_t)row * OW;
    int high = window_size(oy, KH, SY, py, H, count_include_pad);
    for (int ox = from; ox < from + span && ox < OW; ox++) {
        REAL sum = 0;
#pragma unroll
        for (int ky = 0; ky < KH; ky++)
#pragma unroll
            for (int kx = 0; kx < KW; kx++) {
                int iy = oy * SY - py + ky, ix = ox * SX - px + kx;
                if (INSIDE || (iy >= 0 && iy < H && ix >= 0 && ix < W))
                    sum += x[iy * W + ix];
            }
        y[ox] = sum / (high * window_size(ox, KW, SX, px, W, count_include_pad));
    }
}

__kernel void avg_pool_backward(__global const REAL *g, __global REAL *dx, int count_include_pad, SIZES)
{
    int from = get_global_id(0) * span, row = get_global_id(1), iy = row % H;
    if (row >= planes * H) return;
    g += (size_t)(row / H) * OH * OW;
    dx += (size_t)row * W;
    int y0 = first_window(iy, py, KH - 1, SY), y1 = last_window(iy, py, SY, OH);
    for (int ix = from; ix < from + span && ix < W; ix++) {
        int x0 = first_window(ix, px, KW - 1, SX), x1 = last_window(ix, px, SX, OW);
        REAL sum = 0;
        for (int oy = y0; oy <= y1; oy++) {
            int high = window_size(oy, KH, SY, py, H, count_include_pad);
            for (int ox = x0; ox <= x1; ox++)
                sum += g[oy * OW + ox] / (high * window_size(ox, KW, SX, px, W, count_include_pad));
        }
        dx[ix] = sum;
    }
}

__kernel void avg_pool_backward_planes(__global const REAL *g, __global REAL *dx, int count_include_pad, SIZES)
{
    int plane = get_global_id(1);
    if (plane >= planes) return;
    g += (size_t)plane * OH * OW;
    dx += (size_t)plane * H * W;
    for (int i = 0; i < H * W; i++)
        dx[i] = 0;
    for (int oy = 0; oy < OH; oy++) {
        int high = window_size(oy, KH, SY, py, H, count_include_pad);
        for (int ox = 0; ox < OW; ox++) {
            REAL part = g[oy * OW + ox] / (high * window_size(ox, KW, SX, px, W, count_include_pad));
#pragma unroll
            for (int ky = 0; ky < KH; ky++)
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    int iy = oy * SY - py + ky, ix = ox * SX - px + kx;
                    if (INSIDE || (iy >= 0 && iy < H && ix >= 0 && ix < W))
                        dx[iy * W + ix] += part;
                }
        }
    }
}

// Adaptive pooling: OH x OW windows cover the image whatever its size. Window oy holds the rows from oy H / OH, rounded
// down, to (oy + 1) H / OH, rounded up: neighbours share a row where OH does not divide H.
static inline int adaptive_start(int o, int n, int windows)
{
    return o * n / windows;
}

static inline int adaptive_end(int o, int n, int windows)
{
    return ((o + 1) * n + windows - 1) / windows;
}

__kernel void adaptive_avg_pool(__global const REAL *x, __global REAL *y, SIZES)
{
    int from = get_global_id(0) * span, row = get_global_id(1), oy = row % OH;
    if (row >= planes * OH) return;
    x += (size_t)(row / OH) * H * W;
    y += (size_t)row * OW;
    int top = adaptive_start(oy, H, OH), bottom = adaptive_end(oy, H, OH);
    for (int ox = from; ox < from + span && ox < OW; ox++) {
        int left = adaptive_start(ox, W, OW), right = adaptive_end(ox, W, OW);
        REAL sum = 0;
        for (int iy = top; iy < bottom; iy++)
            for (int ix = left; ix < right; ix++)
                sum += x[iy * W + ix];
        y[ox] = sum / ((bottom - top) * (right - left));
    }
}

__kernel void adaptive_avg_pool_backward(__global const REAL *g, __global REAL *dx, SIZES)
{
    int from = get_global_id(0) * span, row = get_global_id(1), iy = row % H;
    if (row >= planes * H) return;
    g += (size_t)(row / H) * OH * OW;
    dx += (size_t)row * W;
    // The windows that hold a row are found by the same rule with rows and windows exchanged.
    for (int ix = from; ix < from + span && ix < W; ix++) {
        REAL sum = 0;
        for (int oy = adaptive_start(iy, OH, H); oy < adaptive_end(iy, OH, H); oy++) {
            int high = adaptive_end(oy, H, OH) - adaptive_start(oy, H, OH);
            for (int ox = adaptive_start(ix, OW, W); ox < adaptive_end(ix, OW, W); ox++)
                sum += g[oy * OW + ox] / (high * (adaptive_end(ox, W, OW) - adaptive_start(ox, W, OW)));
        }
        dx[ix] = sum;
    }
}
