// Convolution of stride 1 along x for processors with vector registers: a vector holds V neighbouring positions of one
// output row, where those of conv_tiles.cl hold V filters. Which form wastes less depends on the layer: this one the
// places behind the end of a row, that one the filters that do not fill a vector.
//
//   pad_planes   images with their border of zeros written out, so that no tap needs a test
//   conv_rows    the result, max pooled if wanted, then activated (-DACTIVATION=TANH, RELU or SIGMOID)
//   weight_rows  the gradient of the filters: TILE filters by one row of taps
//
// Why it is fast: a vector of pixels is loaded once for TILE products and a tap once for VECTORS, and all sums stay in
// registers. Results lie in memory as they do in the vectors, so that whole vectors are stored. KW and DX are constants
// (-D), so that the compiler unrolls the taps, and so is the number of vectors ACROSS a row for weight_rows: with short
// rows, counting would take as long as computing. Pixels lie anywhere, hence LOOSE: a vector that need not be aligned.

#ifndef REAL
#define REAL float
#endif
#ifndef V
#define V 8
#define VECTORS 1
#define TILE 4
#define POOL 1
#endif
#ifndef KW
#define KW 3
#define DX 1
#endif
#ifndef ACROSS
#define ACROSS 1
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
typedef VECTOR LOOSE __attribute__((aligned(sizeof(REAL))));

// Half a vector of numbers, or of the integers that comparing them gives; and four numbers with the sum of all
#define QUARTET JOIN(REAL, 4)
#if V == 4
#define HALF(type) JOIN(type, 2)
#define FOUR_OF(v) (v)
#elif V == 8
#define HALF(type) JOIN(type, 4)
#define FOUR_OF(v) ((v).lo + (v).hi)
#else
#define HALF(type) JOIN(type, 8)
#define FOUR_OF(v) ((v).lo.lo + (v).lo.hi + (v).hi.lo + (v).hi.hi)
#endif
#define PLACE_float int
#define PLACE_double long
#define PLACE JOIN(PLACE_, REAL)

// out[plane][PH][PW] = x[plane][H][W] moved down by py and right by px, or cropped where they are negative; zero where x
// has nothing
__kernel void pad_planes(
    __global const REAL *x, __global REAL *out, int rows, int H, int W, int PH, int PW, int py, int px)
{
    int row = get_global_id(0), iy = row % PH - py;
    if (row >= rows) return;
    int from = px < 0 ? 0 : px, to = iy < 0 || iy >= H ? from : px + W < PW ? px + W : PW;
    out += (size_t)row * PW;
    for (int i = 0; i < from; i++)
        out[i] = 0;
    for (int i = from; i < to; i++)
        out[i] = x[((size_t)(row / PH) * H + iy) * W + i - px];
    for (int i = to; i < PW; i++)
        out[i] = 0;
}

// The larger of each two numbers, or the one that is none
#define LARGER(a, b) (((b) > (a)) | ((b) != (b)) ? (b) : (a))

// A larger number, or one that is none, takes the place of the largest so far
#define CONTEST(numbers, distance)                                                            \
    {                                                                                         \
        HALF(REAL) other = numbers;                                                           \
        HALF(PLACE) wins = (other > most) | (other != other);                                 \
        most = wins ? other : most;                                                           \
        place = wins ? (HALF(PLACE))(distance) : place;                                       \
    }

// x[N][C][PH][PW] with its border; w[F][C / groups][KH][KW]; y[N][F][OH / POOL][OW / POOL]
//
// With POOL = 2 the largest of each 2 x 2 window is taken before anything is written; with -DPLACES `winner` gets its
// place in the plane. A tile is POOL rows high. A work-item computes `blocks` tiles of filters one after the other,
// and so finds its place once for all of them.
__kernel void conv_rows(
    __global const REAL *x, __global const REAL *w, __global const REAL *bias, __global REAL *y, __global int *winner,
    int C, int PH, int PW, int F, int OH, int OW, int groups, int KH, int sy, int dy, int blocks)
{
    int QH = OH / POOL, QW = OW / POOL, tiles = (QW * POOL + WIDTH - 1) / WIDTH;
    int qy = get_global_id(0) / tiles, ox = get_global_id(0) % tiles * WIDTH;
    int n = get_global_id(2) / groups, group = get_global_id(2) % groups, channels = C / groups, filters = F / groups;
    x += ((size_t)(n * C + group * channels) * PH + qy * POOL * sy) * PW + ox;
    int wide = QW - ox / POOL < WIDTH / POOL ? QW - ox / POOL : WIDTH / POOL;
    int done = (int)get_global_id(1) * blocks * TILE, end = done + blocks * TILE < filters ? done + blocks * TILE : filters;
    for (; done < end; done += TILE) {
        int count = filters - done < TILE ? filters - done : TILE, first = group * filters + done;
        __global const REAL *plane = x;

        __global const REAL *taps[TILE];
        VECTOR sum[POOL][TILE][VECTORS];
#pragma unroll
        for (int f = 0; f < TILE; f++) {
            taps[f] = w + (size_t)(first + (f < count ? f : 0)) * channels * KH * KW;  // past the last: for nothing
#pragma unroll
            for (int r = 0; r < POOL; r++)
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
                    sum[r][f][v] = (VECTOR)(0);
        }
        for (int c = 0; c < channels; c++, plane += PH * PW)
            for (int ky = 0; ky < KH; ky++) {
                __global const REAL *row = plane + ky * dy * PW;
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    VECTOR pixels[POOL][VECTORS];
#pragma unroll
                    for (int r = 0; r < POOL; r++)
#pragma unroll
                        for (int v = 0; v < VECTORS; v++)
                            pixels[r][v] = *(__global const LOOSE *)(row + r * sy * PW + v * V + kx * DX);
#pragma unroll
                    for (int f = 0; f < TILE; f++) {
                        REAL tap = taps[f][kx];
#pragma unroll
                        for (int r = 0; r < POOL; r++)
#pragma unroll
                            for (int v = 0; v < VECTORS; v++)
                                sum[r][f][v] += tap * pixels[r][v];
                    }
                }
#pragma unroll
                for (int f = 0; f < TILE; f++)
                    taps[f] += KW;
            }

        REAL top[TILE][WIDTH / POOL] __attribute__((aligned(64)));
#ifdef PLACES
        PLACE at[TILE][WIDTH / 2] __attribute__((aligned(64)));  // the winner's distance from its window's corner
#endif
#pragma unroll
        for (int f = 0; f < TILE; f++) {
            REAL shift = bias && f < count ? bias[first + f] : 0;
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
#if POOL == 1
                *(VECTOR *)&top[f][v * V] = sum[0][f][v] + shift;
#elif !defined PLACES
                VECTOR column = LARGER(sum[0][f][v], sum[1][f][v]);
                HALF(REAL) most = LARGER(column.even, column.odd);
                *(HALF(REAL) *)&top[f][v * V / 2] = most + shift;
#else
                HALF(REAL) most = sum[0][f][v].even;
                HALF(PLACE) place = 0;
                CONTEST(sum[0][f][v].odd, 1)
                CONTEST(sum[1][f][v].even, OW)
                CONTEST(sum[1][f][v].odd, OW + 1)
                *(HALF(REAL) *)&top[f][v * V / 2] = most + shift;
                *(HALF(PLACE) *)&at[f][v * V / 2] = place;
#endif
            }
        }
        for (int f = 0; f < TILE; f++)
            for (int q = 0; q < WIDTH / POOL; q++)  // short and of fixed length: the compiler makes vectors of it
                top[f][q] = ACTIVATION(top[f][q]);

        size_t to = ((size_t)(n * F + first) * QH + qy) * QW + ox / POOL;
        for (int f = 0; f < count; f++, to += QH * QW) {
#ifdef PLACES
            int corner = qy * 2 * OW + ox;
            if (wide == WIDTH / 2)
                for (int q = 0; q < WIDTH / 2; q++)
                    winner[to + q] = corner + q * 2 + at[f][q];
            else
                for (int q = 0; q < wide; q++)
                    winner[to + q] = corner + q * 2 + at[f][q];
#endif
            if (wide == WIDTH / POOL)  // of fixed length: the compiler makes vectors of it
                for (int q = 0; q < WIDTH / POOL; q++)
                    y[to + q] = top[f][q];
            else
                for (int q = 0; q < wide; q++)
                    y[to + q] = top[f][q];
        }
    }
}

// dw[part][F][C / groups][KH][KW]: the sum over images part * share .. (part + 1) * share - 1, from x[N][C][PH][PW] with
// its border and g[N][F][OH][ACROSS * V], whose rows are filled up to whole vectors with zeros
__kernel void weight_rows(
    __global const REAL *x, __global const REAL *g, __global REAL *dw,
    int N, int C, int PH, int PW, int F, int OH, int groups, int KH, int sy, int dy, int share)
{
    int channels = C / groups, filters = F / groups;
    int c = get_global_id(0) / KH, ky = get_global_id(0) % KH;
    int group = get_global_id(2) % groups, part = get_global_id(2) / groups;
    int count = filters - (int)get_global_id(1) * TILE, first = group * filters + get_global_id(1) * TILE;
    count = count < TILE ? count : TILE;

    VECTOR sum[TILE][KW];
#pragma unroll
    for (int f = 0; f < TILE; f++)
#pragma unroll
        for (int kx = 0; kx < KW; kx++)
            sum[f][kx] = (VECTOR)(0);

    int last = (part + 1) * share < N ? (part + 1) * share : N;
    for (int n = part * share; n < last; n++) {
        __global const REAL *row = x + ((size_t)(n * C + group * channels + c) * PH + ky * dy) * PW, *grad[TILE];
#pragma unroll
        for (int f = 0; f < TILE; f++)
            grad[f] = g + (size_t)(n * F + first + (f < count ? f : 0)) * OH * ACROSS * V;
#if ACROSS == 1
#pragma unroll 4
#endif
        for (int oy = 0; oy < OH; oy++, row += sy * PW) {
#if ACROSS <= 4
#pragma unroll
#endif
            for (int v = 0; v < ACROSS; v++) {
                VECTOR factor[TILE];
#pragma unroll
                for (int f = 0; f < TILE; f++)
                    factor[f] = *(__global const LOOSE *)(grad[f] + v * V);
#pragma unroll
                for (int kx = 0; kx < KW; kx++) {
                    VECTOR pixels = *(__global const LOOSE *)(row + v * V + kx * DX);
#pragma unroll
                    for (int f = 0; f < TILE; f++)
                        sum[f][kx] += factor[f] * pixels;
                }
            }
#pragma unroll
            for (int f = 0; f < TILE; f++)
                grad[f] += ACROSS * V;
        }
    }
    dw += (size_t)part * F * channels * KH * KW + ((size_t)first * channels + c) * KH * KW + ky * KW;
#pragma unroll
    for (int f = 0; f < TILE; f++)
#pragma unroll
        for (int kx = 0; kx < KW; kx++) {
            QUARTET four = FOUR_OF(sum[f][kx]);
            if (f < count)
                dw[(size_t)f * channels * KH * KW + kx] = (four.x + four.y) + (four.z + four.w);
        }
}
