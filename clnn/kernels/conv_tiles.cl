// Convolution for processors with vector registers: one work-item computes a tile of TILE neighbouring positions
// of one output row by WIDTH = VECTORS * V filters, and keeps it in registers while it sums over channels and taps.
// (conv_rows.cl holds positions in its vectors in place of filters.)
//
//   pad_rows       rows with their zero border written out, so that no tap needs a test along x
//   pack_filters   filters side by side, WIDTH at a time, in the order in which the tiles read them
//   conv_tiles     the result, max pooled if wanted, then activated (-DACTIVATION=TANH, RELU or SIGMOID); with turned
//                  filters the gradient of the image
//   order_filters  filters in the order in which spread_taps reads them
//   spread_taps    the gradient of images without border or stride: whole planes, tap after tap, so that it need not
//                  compute on the border of zeros that the result's gradient would get
//   pack_channels  the result's gradient, WIDTH filters side by side
//   weight_tiles   the gradient of the filters: a tile of one row of taps by WIDTH filters
//
// Why it is fast: a vector holds V filters, so a pixel is loaded once for WIDTH products and a vector of filters
// once for TILE; nothing is unfolded in memory. KW, SX and DX are constants (-D), so that the compiler unrolls the
// taps and their addresses need no arithmetic. Pointer casts stand in place of vloadN, which PoCL does not inline;
// the packed arrays are aligned.

#ifndef REAL
#define REAL float
#endif
#ifndef V
#define V 8
#define VECTORS 2
#endif
#ifndef KW
#define KW 3
#define SX 1
#define DX 1
#endif
#ifndef ROW
#define ROW 0
#endif
#ifndef TILE
#define TILE 4
#define POOL 1
#endif
#ifdef ACTIVATION
#include "activation.h"
#else
#define ACTIVATION(x) (x)
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(REAL, V)
#define WIDTH (VECTORS * V)

// out[row][PW] = x[row][W] shifted right by px, or cropped if that is negative; zero where x has nothing
__kernel void pad_rows(__global const REAL *x, __global REAL *out, int rows, int W, int PW, int px)
{
    int row = get_global_id(0);
    if (row >= rows) return;
    x += (size_t)row * W;
    out += (size_t)row * PW;
    int from = px < 0 ? 0 : px, to = px + W < PW ? px + W : PW;
    for (int i = 0; i < from; i++)
        out[i] = 0;
    for (int i = from; i < to; i++)
        out[i] = x[i - px];
    for (int i = to; i < PW; i++)
        out[i] = 0;
}

// out[group][block][tap][WIDTH] from w[F][taps]; filters past the group's last are zero
__kernel void pack_filters(__global const REAL *w, __global REAL *out, int filters, int taps)
{
    int tap = get_global_id(0), block = get_global_id(1), group = get_global_id(2), blocks = get_global_size(1);
    if (tap >= taps) return;
    out += ((size_t)(group * blocks + block) * taps + tap) * WIDTH;
    for (int j = 0; j < WIDTH; j++) {
        int f = block * WIDTH + j;
        out[j] = f < filters ? w[(size_t)(group * filters + f) * taps + tap] : 0;
    }
}

// x[N][C][H][PW] with padded rows; filters packed by pack_filters; y[N][F][OH / POOL][OW / POOL]
//
// With POOL > 1 the largest of each POOL x POOL window is taken before anything is written; `winner`, if there
// is one, gets its place in the plane. A tile is POOL rows high.
__kernel void conv_tiles(
    __global const REAL *x, __global const REAL *packed, __global const REAL *bias, __global REAL *y,
    __global int *winner, int C, int H, int PW, int F, int OH, int OW, int groups, int KH, int sy, int py, int dy)
{
    int QH = OH / POOL, QW = OW / POOL, tiles = (QW * POOL + TILE - 1) / TILE;
    int qy = get_global_id(0) / tiles, ox = get_global_id(0) % tiles * TILE;
    int block = get_global_id(1), n = get_global_id(2) / groups, group = get_global_id(2) % groups;
    int channels = C / groups, filters = F / groups;
    x += (size_t)(n * C + group * channels) * H * PW + ox * SX;
    packed += (size_t)(group * (int)get_global_size(1) + block) * channels * KH * KW * WIDTH;

    VECTOR sum[POOL][TILE][VECTORS];
#pragma unroll
    for (int r = 0; r < POOL; r++)
#pragma unroll
        for (int p = 0; p < TILE; p++)
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                sum[r][p][v] = (VECTOR)(0);

    for (int c = 0; c < channels; c++, x += H * PW)
        for (int ky = 0; ky < KH; ky++, packed += KW * WIDTH)
#pragma unroll
            for (int r = 0; r < POOL; r++) {
                int iy = (qy * POOL + r) * sy - py + ky * dy;
                if (iy < 0 || iy >= H) continue;
                __global const REAL *row = x + iy * PW;
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    VECTOR w[VECTORS];
#pragma unroll
                    for (int v = 0; v < VECTORS; v++)
                        w[v] = *(__global const VECTOR *)(packed + kx * WIDTH + v * V);
#pragma unroll
                    for (int p = 0; p < TILE; p++) {
                        REAL pixel = row[p * SX + kx * DX];
#pragma unroll
                        for (int v = 0; v < VECTORS; v++)
                            sum[r][p][v] += pixel * w[v];
                    }
                }
            }

    REAL out[POOL * TILE][WIDTH] __attribute__((aligned(64)));
#pragma unroll
    for (int r = 0; r < POOL; r++)
#pragma unroll
        for (int p = 0; p < TILE; p++)
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                *(VECTOR *)&out[r * TILE + p][v * V] = sum[r][p][v];
    int count = filters - block * WIDTH < WIDTH ? filters - block * WIDTH : WIDTH, first = group * filters + block * WIDTH;
    int wide = QW - ox / POOL < TILE / POOL ? QW - ox / POOL : TILE / POOL;
    size_t to = ((size_t)(n * F + first) * QH + qy) * QW + ox / POOL;
    REAL shift[WIDTH];
    for (int f = 0; f < WIDTH; f++)
        shift[f] = bias && f < count ? bias[first + f] : 0;
#if POOL == 1
    for (int q = 0; q < TILE; q++)
        for (int f = 0; f < WIDTH; f++)  // filters side by side: the compiler makes vectors of them
            out[q][f] = ACTIVATION(out[q][f] + shift[f]);
    for (int f = 0; f < count; f++, to += OH * OW)
        for (int q = 0; q < wide; q++)
            y[to + q] = out[q][f];
#else
    REAL top[TILE / POOL][WIDTH];
    int at[TILE / POOL][WIDTH];
    for (int q = 0; q < TILE / POOL; q++) {
        int corner = qy * POOL * OW + ox + q * POOL;
        for (int f = 0; f < WIDTH; f++) {  // filters side by side: the compiler makes vectors of them
            REAL most = out[q * POOL][f];
            int place = corner;
#pragma unroll
            for (int r = 0; r < POOL; r++)
#pragma unroll
                for (int p = 0; p < POOL; p++) {
                    REAL v = out[r * TILE + q * POOL + p][f];
                    bool wins = (v > most) | (v != v);
                    most = wins ? v : most;
                    place = wins ? corner + r * OW + p : place;
                }
            top[q][f] = ACTIVATION(most + shift[f]);
            at[q][f] = place;
        }
    }
    for (int f = 0; f < count; f++, to += QH * QW)
        for (int q = 0; q < wide; q++) {  // neighbours in memory last, so that a line is written while it is near
            y[to + q] = top[q][f];
            if (winner) winner[to + q] = at[q][f];
        }
#endif
}

// out[channel][ky][filter][kx] from w[filter][channel][ky][kx], within each group; one filter's channel a work-item
__kernel void order_filters(__global const REAL *w, __global REAL *out, int filters, int channels, int KH, int size)
{
    int i = get_global_id(0);
    if (i >= size) return;
    int c = i % channels, f = i / channels, group = f / filters;
    out += ((size_t)(group * channels + c) * KH * filters + f % filters) * KW;
    w += (size_t)i * KH * KW;
    for (int ky = 0; ky < KH; ky++)
        for (int kx = 0; kx < KW; kx++)
            out[ky * filters * KW + kx] = w[ky * KW + kx];
}

// dx[n][c][H][W], one plane a work-item, from g[n][F][pitch]: planes of g, their number of elements filled up with zeros
// to a multiple of WIDTH. Where whole rows fit a tile they stand as they are, ROW long (-DROW); else (ROW = 0) they are
// filled up to the length W of the image's, so that each tap shifts all of them by one distance. The sums over all
// filters stay in registers for one row of taps.
__kernel void spread_taps(
    __global const REAL *g, __global const REAL *ordered, __global REAL *dx, int pitch,
    int C, int H, int W, int F, int OH, int OW, int groups, int KH, int dy)
{
    int c = get_global_id(0), batch = get_global_id(1), channels = C / groups, filters = F / groups;
    int positions = ROW ? OH * ROW : (OH - 1) * W + OW;  // the zeros behind the last need not, and must not, be added
    g += (size_t)batch * filters * pitch;
    ordered += (size_t)(batch % groups * channels + c) * KH * filters * KW;
    dx += ((size_t)batch * channels + c) * H * W;
    for (int i = 0; i < H * W; i++)
        dx[i] = 0;
    for (int from = 0; from < positions; from += WIDTH)
        for (int ky = 0; ky < KH; ky++) {
            VECTOR sum[KW][VECTORS];
#pragma unroll
            for (int kx = 0; kx < KW; kx++)
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
                    sum[kx][v] = (VECTOR)(0);
            __global const REAL *at = g + from, *w = ordered + ky * filters * KW;
            for (int f = 0; f < filters; f++, at += pitch, w += KW) {
                VECTOR grad[VECTORS];
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
                    grad[v] = *(__global const VECTOR *)(at + v * V);
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    REAL tap = w[kx];
#pragma unroll
                    for (int v = 0; v < VECTORS; v++)
                        sum[kx][v] += tap * grad[v];
                }
            }
            int count = positions - from < WIDTH ? positions - from : WIDTH;
            REAL out[KW][WIDTH] __attribute__((aligned(64)));
#pragma unroll
            for (int kx = 0; kx < KW; kx++)
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
                    *(VECTOR *)&out[kx][v * V] = sum[kx][v];
            for (int kx = 0; kx < KW; kx++) {
#if ROW
                __global REAL *to = dx + (from / ROW + ky * dy) * W + kx * DX;
                for (int at = 0; at < count; at += ROW, to += W)
                    for (int i = 0; i < ROW; i++)  // a constant number: the compiler makes vectors of them
                        to[i] += out[kx][at + i];
#else
                __global REAL *to = dx + ky * dy * W + kx * DX + from;
                for (int i = 0; i < count; i++)
                    to[i] += out[kx][i];
#endif
            }
        }
}

// out[n][group][block][position][WIDTH] from g[N][F][positions]; 16 positions a work-item
__kernel void pack_channels(__global const REAL *g, __global REAL *out, int filters, int positions)
{
    int from = get_global_id(0) * 16, block = get_global_id(1), batch = get_global_id(2), blocks = get_global_size(1);
    if (from >= positions) return;
    int to = from + 16 < positions ? from + 16 : positions;
    int count = filters - block * WIDTH < WIDTH ? filters - block * WIDTH : WIDTH;
    out += (size_t)(batch * blocks + block) * positions * WIDTH;
    g += (size_t)(batch * filters + block * WIDTH) * positions;
    for (int o = from; o < to; o++)
        for (int j = 0; j < WIDTH; j++)
            out[o * WIDTH + j] = j < count ? g[j * positions + o] : 0;
}

// dw[part][F][C / groups][KH][KW]: the sum over images part * share .. (part + 1) * share - 1
__kernel void weight_tiles(
    __global const REAL *x, __global const REAL *packed, __global REAL *dw,
    int N, int C, int H, int PW, int F, int OH, int OW, int groups, int KH, int sy, int py, int dy, int share)
{
    int channels = C / groups, filters = F / groups, blocks = get_global_size(1);
    int c = get_global_id(0) / KH, ky = get_global_id(0) % KH, block = get_global_id(1);
    int group = get_global_id(2) % groups, part = get_global_id(2) / groups;

    VECTOR sum[KW][VECTORS];
#pragma unroll
    for (int kx = 0; kx < KW; kx++)
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            sum[kx][v] = (VECTOR)(0);

    int last = (part + 1) * share < N ? (part + 1) * share : N;
    for (int n = part * share; n < last; n++)
        for (int oy = 0; oy < OH; oy++) {
            int iy = oy * sy - py + ky * dy;
            if (iy < 0 || iy >= H) continue;
            __global const REAL *row = x + ((size_t)(n * C + group * channels + c) * H + iy) * PW;
            __global const REAL *grad = packed + ((size_t)((n * groups + group) * blocks + block) * OH + oy) * OW * WIDTH;
            for (int ox = 0; ox < OW; ox++, grad += WIDTH, row += SX) {
                VECTOR g[VECTORS];
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
                    g[v] = *(__global const VECTOR *)(grad + v * V);
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    REAL pixel = row[kx * DX];
#pragma unroll
                    for (int v = 0; v < VECTORS; v++)
                        sum[kx][v] += pixel * g[v];
                }
            }
        }

    dw += (size_t)part * F * channels * KH * KW + (c * KH + ky) * KW;
    int count = filters - block * WIDTH < WIDTH ? filters - block * WIDTH : WIDTH, first = group * filters + block * WIDTH;
#pragma unroll
    for (int kx = 0; kx < KW; kx++) {
        REAL out[WIDTH] __attribute__((aligned(64)));
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            *(VECTOR *)&out[v * V] = sum[kx][v];
        for (int f = 0; f < count; f++)
            dw[(size_t)(first + f) * channels * KH * KW + kx] = out[f];
    }
}
