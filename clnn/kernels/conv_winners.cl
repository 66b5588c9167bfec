// The way back of a convolution whose result was max pooled, for processors with vector registers. Of each window only
// the winner has a gradient: one position in four, or fewer. These kernels compute with the winners alone, where
// conv_tiles.cl and conv_rows.cl would multiply the zeros between them, too.
//
//   block_channels   images with their border, V channels of a pixel side by side
//   weight_winners   the gradient of TILE filters by a run of TAPS taps
//   sort_winners     the winners of an image, those of one position side by side
//   order_taps       filters in the order in which spread_winners reads them
//   spread_winners   the gradient of V channels of an image
//
// Why it is fast: winners do not lie side by side, so a vector holds what one winner needs: V channels of a pixel or, for
// images of few channels, V neighbours of a row, of which KW are used. Each vector is loaded by the product that uses it.
// Sizes are constants (-D), so that the addresses of the taps need no arithmetic.

#ifndef REAL
#define REAL float
#endif
#ifndef V
#define V 8
#endif
#ifndef TILE
#define TILE 2
#define TAPS 3
#endif
#ifndef PW
#define PW 8
#define OW 6
#define SY 1
#define SX 1
#endif
#ifndef WINDOWS
#define WINDOWS 9
#endif
#ifndef STEP
#define STEP V
#define TAP STEP
#endif
#ifndef PLANE
#define PLANE 64
#define KH 3
#define KW 3
#define ROWS 1
#define DY 1
#define DX 1
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(REAL, V)
typedef VECTOR LOOSE __attribute__((aligned(sizeof(REAL))));
#if WINDOWS < 64  // winners of a plane; so many at a time that their places are computed as vectors
#define RUN WINDOWS
#else
#define RUN 64
#endif

// Where in a plane with its border the window of taps begins that a position of the result comes from
#define CORNER(position) ((position) / OW * SY * PW + (position) % OW * SX)

// out[n][group][block][PH][WIDE][V] = x[n][C][H][W] moved down by py and right by px; zero where x has nothing
__kernel void block_channels(
    __global const REAL *x, __global REAL *out, int channels, int H, int W, int PH, int WIDE, int py, int px)
{
    int block = get_global_id(0), batch = get_global_id(1), count = channels - block * V < V ? channels - block * V : V;
    int last = px + W < WIDE ? px + W : WIDE;
    out += ((size_t)batch * get_global_size(0) + block) * PH * WIDE * V;
    x += ((size_t)batch * channels + block * V) * H * W;
    for (int iy = -py; iy < PH - py; iy++, out += WIDE * V) {
        __global const REAL *row = x + iy * W - px;
        bool inside = iy >= 0 && iy < H;
        int from = inside ? px : WIDE, to = inside ? last : WIDE;
        for (int i = 0; i < from * V; i++)
            out[i] = 0;
        if (count == V)  // without a test: the compiler makes vectors of them
            for (int i = from; i < to; i++)
#pragma unroll
                for (int c = 0; c < V; c++)
                    out[i * V + c] = row[c * H * W + i];
        else
            for (int i = from; i < to; i++)
                for (int c = 0; c < V; c++)
                    out[i * V + c] = c < count ? row[c * H * W + i] : 0;
        for (int i = to * V; i < WIDE * V; i++)
            out[i] = 0;
    }
}

// dw[part][F][C / groups][KH][KW]: the sum over images part * share .. (part + 1) * share - 1, from g[N][F][windows] and
// the winners' places in planes of the result
//
// x[N][groups][blocks] holds images of `size` numbers. A pixel stands STEP behind the one before it, the taps of a run TAP
// apart, and each run begins `next` behind the run before it. The vectors of all blocks together hold `all` numbers to be
// used; neighbours in a vector, in a run, and neighbouring runs stand dw_lane, dw_tap and dw_run apart in dw.
__kernel void weight_winners(
    __global const REAL *x, __global const REAL *g, __global const int *winner, __global REAL *dw,
    int N, int F, int groups, int runs, int blocks, int size, int next,
    int all, int dw_lane, int dw_tap, int dw_run, int dw_filter, int share)
{
    int run = get_global_id(1) % runs, block = get_global_id(1) / runs, filters = F / groups;
    int group = get_global_id(2) % groups, part = get_global_id(2) / groups;
    int count = filters - (int)get_global_id(0) * TILE, first = group * filters + get_global_id(0) * TILE;
    count = count < TILE ? count : TILE;

    VECTOR sum[TILE][TAPS];
#pragma unroll
    for (int f = 0; f < TILE; f++)
#pragma unroll
        for (int t = 0; t < TAPS; t++)
            sum[f][t] = (VECTOR)(0);

    int last = (part + 1) * share < N ? (part + 1) * share : N;
    for (int n = part * share; n < last; n++) {
        __global const REAL *image = x + ((size_t)(n * groups + group) * blocks + block) * size + run * next;
        for (int from = 0; from < WINDOWS; from += RUN) {
            int these = WINDOWS - from < RUN ? WINDOWS - from : RUN, at[TILE][RUN];
            __global const REAL *grad[TILE];
#pragma unroll
            for (int f = 0; f < TILE; f++) {
                size_t start = (size_t)(n * F + first + (f < count ? f : 0)) * WINDOWS + from;  // past the last: for nothing
                grad[f] = g + start;
                for (int q = 0; q < these; q++)
                    at[f][q] = CORNER(winner[start + q]) * STEP;
            }
            for (int q = 0; q < these; q++)
#pragma unroll
                for (int f = 0; f < TILE; f++) {
                    __global const REAL *pixels = image + at[f][q];
                    REAL factor = grad[f][q];
#pragma unroll
                    for (int t = 0; t < TAPS; t++)
                        sum[f][t] += factor * *(__global const LOOSE *)(pixels + t * TAP);
                }
        }
    }

    int lanes = all - block * V < V ? all - block * V : V;
    dw += ((size_t)part * F + first) * dw_filter + (size_t)block * V * dw_lane + run * dw_run;
#pragma unroll
    for (int f = 0; f < TILE; f++)
#pragma unroll
        for (int t = 0; t < TAPS; t++) {
            REAL out[V] __attribute__((aligned(64)));
            *(VECTOR *)out = sum[f][t];
            if (f < count)
                for (int lane = 0; lane < lanes; lane++)
                    dw[(size_t)f * dw_filter + t * dw_tap + lane * dw_lane] = out[lane];
        }
}

// For each image and group (a work-item) the winners in the order of their positions: those of position p are number
// start[p] .. start[p + 1] - 1; of each the filter, times `pitch`, and the gradient
__kernel void sort_winners(
    __global const REAL *g, __global const int *winner, __global int *start, __global int *filter, __global REAL *grad,
    int batch, int filters, int windows, int positions, int pitch)
{
    int i = get_global_id(0), count = filters * windows;
    if (i >= batch) return;
    g += (size_t)i * count;
    winner += (size_t)i * count;
    filter += (size_t)i * count;
    grad += (size_t)i * count;
    start += (size_t)i * (positions + 2) + 1;  // one place on, until all are in
    for (int p = -1; p <= positions; p++)
        start[p] = 0;
    for (int k = 0; k < count; k++)
        start[winner[k] + 1]++;
    for (int p = 1; p <= positions; p++)
        start[p] += start[p - 1];
    for (int f = 0, k = 0; f < filters; f++)
        for (int q = 0; q < windows; q++, k++) {
            int to = start[winner[k]]++;
            filter[to] = f * pitch;
            grad[to] = g[k];
        }
}

// out[group][block][run][filter][ROWS * KW][V] from w[F][channels][KH][KW]: a run is ROWS rows of taps, zero past the last
__kernel void order_taps(__global const REAL *w, __global REAL *out, int filters, int channels, int runs)
{
    int f = get_global_id(0), block = get_global_id(1), group = get_global_id(2), taps = ROWS * KW;
    if (f >= filters) return;
    w += ((size_t)(group * filters + f) * channels + block * V) * KH * KW;
    out += ((size_t)(group * get_global_size(1) + block) * runs * filters + f) * taps * V;
    for (int run = 0; run < runs; run++, out += (size_t)filters * taps * V)
        for (int t = 0; t < taps; t++)
            for (int lane = 0; lane < V; lane++) {
                int tap = run * taps + t, there = tap < KH * KW && block * V + lane < channels;
                out[t * V + lane] = there ? w[lane * KH * KW + tap] : 0;
            }
}

// dx[n][C][H][W], V channels of one image a work-item, from what sort_winners and order_taps made. The sums of a run of
// taps stay in registers for all winners of a position; then they are added to the plane, which stays in the cache.
__kernel void spread_winners(
    __global const int *start, __global const int *filter, __global const REAL *grad, __global const REAL *ordered,
    __global REAL *dx, int channels, int H, int W, int filters, int windows, int positions, int groups, int runs,
    int py, int px)
{
    __local REAL plane[PLANE * V] __attribute__((aligned(64)));
    int block = get_global_id(0), batch = get_global_id(1), blocks = get_global_size(0);
    start += (size_t)batch * (positions + 2);
    filter += (size_t)batch * filters * windows;
    grad += (size_t)batch * filters * windows;
    ordered += ((size_t)(batch % groups * blocks + block) * runs * filters) * ROWS * KW * V;
    for (int i = 0; i < PLANE * V; i++)
        plane[i] = 0;

    for (int run = 0; run < runs; run++, ordered += (size_t)filters * ROWS * KW * V)
        for (int p = 0; p < positions; p++) {
            int from = start[p], to = start[p + 1];
            if (from == to) continue;
            VECTOR sum[ROWS * KW];
#pragma unroll
            for (int t = 0; t < ROWS * KW; t++)
                sum[t] = (VECTOR)(0);
            for (int k = from; k < to; k++) {
                __global const REAL *taps = ordered + filter[k];
                REAL factor = grad[k];
#pragma unroll
                for (int t = 0; t < ROWS * KW; t++)
                    sum[t] += factor * *(__global const VECTOR *)(taps + t * V);
            }
            __local REAL *corner = plane + (CORNER(p) + run * ROWS * DY * PW) * V;
#pragma unroll
            for (int t = 0; t < ROWS * KW; t++)
                *(__local VECTOR *)(corner + (t / KW * DY * PW + t % KW * DX) * V) += sum[t];
        }

    int count = channels - block * V < V ? channels - block * V : V;
    dx += ((size_t)batch * channels + block * V) * H * W;
    for (int lane = 0; lane < count; lane++)
        for (int iy = 0; iy < H; iy++, dx += W)
            for (int ix = 0; ix < W; ix++)
                dx[ix] = plane[((iy + py) * PW + ix + px) * V + lane];
}
