// Matrix product C = A B (+ bias), for float and, with -DREAL=double, for double. With -DACTIVATION=TANH, RELU or
// SIGMOID that function is applied to what is stored.
//
//   gemm_plain    one work-item, one element of C: the definition, for reading, for checking the others, and for
//                 products so small that copying B would take longer
//   linear_backward  the three products of a small layer's way back, each element likewise by one work-item
//   gemm_dots     for CPUs, B stored transposed and C of a few rows: one work-item, the dot products with one row of B
//   gemm_strips   for CPUs, few rows or few products a sum: one work-item, one tile of C, its sums in the cache
//   gemm_pack     copies B into panels of COLUMNS columns, so that the inner loop below reads memory in order; an A
//                 that is stored transposed likewise, into panels of ROWS columns
//   gemm_panels   for CPUs: one work-item, one tile of ROWS x 2 V elements of C, held in registers
//   gemm_groups   for GPUs: one work-group, one tile of ROWS x 64 elements, its operands in local memory
//
// Why gemm_panels is fast: each value of A that it loads is used 2 V times and each of B ROWS times, so the
// arithmetic units wait for memory far less; V is the length of the device's vectors.
// Why gemm_dots and gemm_strips are fast: they read B as it stands, each number once, and in order; where it serves a few
// products only, copying it into panels would take longer than computing.
// Why gemm_groups is fast: its 256 work-items fetch each element from memory once for all of them, neighbours next
// to each other, and each then computes ROWS / 16 x 4 elements of C from local memory.
//
// Element (i, j) of a matrix stands at i * row + j * col: swapping the two strides transposes it.

#ifndef REAL
#define REAL float
#endif
#ifndef ROWS
#define ROWS 6
#define V 8
#endif
#ifdef ACTIVATION
#include "activation.h"
#else
#define ACTIVATION(x) (x)
#define SLOPE(y, g) (g)
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(REAL, V)
#ifndef COLUMNS
#define COLUMNS (2 * V)
#endif

__kernel void gemm_plain(
    __global const REAL *a, int a_batch, int a_row, int a_col,
    __global const REAL *b, int b_batch, int b_row, int b_col,
    __global const REAL *bias, __global REAL *c, int M, int N, int K)
{
    int j = get_global_id(0), i = get_global_id(1), batch = get_global_id(2);
    if (i >= M || j >= N) return;
    REAL sum = bias ? bias[j] : 0;
    for (int k = 0; k < K; k++)
        sum += a[batch * a_batch + i * a_row + k * a_col] * b[batch * b_batch + k * b_row + j * b_col];
    c[(batch * M + i) * N + j] = ACTIVATION(sum);
}

// The way back of a layer y = ACTIVATION(x W^T + bias) for x (M, K) and W (N, K), from the gradient g by y. A gradient
// that nobody wants is a null pointer. The bias counts as the weight of one more input that is always 1.
__kernel void linear_backward(
    __global const REAL *g, __global const REAL *y, __global const REAL *x, __global const REAL *w,
    __global REAL *dx, __global REAL *dw, __global REAL *db, int M, int N, int K)
{
    int k = get_global_id(0), row = get_global_id(1);
    if (dx && row < M && k < K) {
        REAL sum = 0;
        for (int j = 0; j < N; j++)
            sum += SLOPE(y[row * N + j], g[row * N + j]) * w[j * K + k];
        dx[row * K + k] = sum;
    }
    if (row < N && k <= K) {
        REAL sum = 0;
        for (int i = 0; i < M; i++)
            sum += SLOPE(y[i * N + row], g[i * N + row]) * (k < K ? x[i * K + k] : 1);
        if (dw && k < K)
            dw[row * K + k] = sum;
        if (db && k == K)
            db[row] = sum;
    }
}

#define LANES 64  // sums side by side, so that an addition need not wait for the one before
#define STRIP 128
#define STRIP_ROWS 16

__kernel void gemm_dots(
    __global const REAL *a, __global const REAL *b, __global const REAL *bias, int bias_row, int bias_col,
    __global REAL *c, int M, int N, int K)
{
    int j = get_global_id(0), batch = get_global_id(1);
    if (j >= N) return;
    b += ((size_t)batch * N + j) * K;
    for (int i = 0; i < M; i++) {
        __global const REAL *row = a + ((size_t)batch * M + i) * K;
        REAL part[LANES] = {0}, sum = bias ? bias[i * bias_row + j * bias_col] : 0;
        int k = 0;
        for (; k + LANES <= K; k += LANES)
#pragma unroll
            for (int l = 0; l < LANES; l++)
                part[l] += row[k + l] * b[k + l];
        for (int l = 0; k + l < K; l++)
            part[l] += row[k + l] * b[k + l];
        for (int l = 0; l < LANES; l++)
            sum += part[l];
        c[((size_t)batch * M + i) * N + j] = ACTIVATION(sum);
    }
}

__kernel void gemm_strips(
    __global const REAL *a, int a_row, int a_col, __global const REAL *b,
    __global const REAL *bias, int bias_row, int bias_col, __global REAL *c, int M, int N, int K)
{
    int j0 = get_global_id(0) * STRIP, i0 = get_global_id(1) * STRIP_ROWS, batch = get_global_id(2);
    if (j0 >= N || i0 >= M) return;
    int rows = M - i0 < STRIP_ROWS ? M - i0 : STRIP_ROWS, wide = N - j0 < STRIP ? N - j0 : STRIP;
    a += (size_t)batch * M * K + i0 * a_row;
    b += (size_t)batch * K * N + j0;
    c += ((size_t)batch * M + i0) * N + j0;
    REAL sum[STRIP_ROWS][STRIP];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < wide; j++)
            sum[r][j] = bias ? bias[(i0 + r) * bias_row + (j0 + j) * bias_col] : 0;
    int k = 0;
    for (; k + 4 <= K; k += 4, b += 4 * N)  // four rows of B at once: each sum is fetched from the cache for four products
        for (int r = 0; r < rows; r++) {
            __global const REAL *from = a + r * a_row + k * a_col;
            REAL v0 = from[0], v1 = from[a_col], v2 = from[2 * a_col], v3 = from[3 * a_col];
            if (wide == STRIP)  // a loop of fixed length, which the compiler unrolls
                for (int j = 0; j < STRIP; j++)
                    sum[r][j] += v0 * b[j] + v1 * b[N + j] + v2 * b[2 * N + j] + v3 * b[3 * N + j];
            else
                for (int j = 0; j < wide; j++)
                    sum[r][j] += v0 * b[j] + v1 * b[N + j] + v2 * b[2 * N + j] + v3 * b[3 * N + j];
        }
    for (; k < K; k++, b += N)
        for (int r = 0; r < rows; r++) {
            REAL value = a[r * a_row + k * a_col];
            for (int j = 0; j < wide; j++)
                sum[r][j] += value * b[j];
        }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < wide; j++)
            c[(size_t)r * N + j] = ACTIVATION(sum[r][j]);
}

// panels[batch][panel][k][width]: columns past N are zero, so the product needs no test for the edge. One work-item
// copies `deep` rows of `run` panels: reading on where it stands is several times as fast as starting anew.
__kernel void gemm_pack(
    __global const REAL *b, int b_batch, int b_row, int b_col,
    __global REAL *panels, int N, int K, int width, int deep, int run)
{
    int k0 = get_global_id(0) * deep, first = get_global_id(1) * run, batch = get_global_id(2);
    int count = (N + width - 1) / width, k1 = k0 + deep < K ? k0 + deep : K;
    for (int panel = first; panel < first + run && panel < count; panel++) {
        int wide = N - panel * width < width ? N - panel * width : width;
        __global const REAL *from = b + (size_t)batch * b_batch + panel * width * b_col;
        __global REAL *to = panels + ((size_t)batch * count + panel) * K * width;
        if (b_col == 1 && wide == COLUMNS && width == COLUMNS)
            for (int k = k0; k < k1; k++)
                for (int j = 0; j < COLUMNS; j++)  // of fixed length: the compiler makes vectors of it
                    to[k * COLUMNS + j] = from[k * b_row + j];
        else if (b_col == 1 && wide == ROWS && width == ROWS)
            for (int k = k0; k < k1; k++)
                for (int j = 0; j < ROWS; j++)
                    to[k * ROWS + j] = from[k * b_row + j];
        else
            for (int j = 0; j < width; j++)
                for (int k = k0; k < k1; k++)
                    to[k * width + j] = j < wide ? from[k * b_row + j * b_col] : 0;
    }
}

#if COLUMNS != 64  // there the compiler would be busy with it for nothing
// C[batch] (M x N) = or += sum over `blocks` of A[batch % a_batches][block] (M x K) * panels[batch][block].
// A second loop over blocks lets the sum run over images, too, as the weight gradient of a convolution does.
// One of c_row and c_col is 1: C is stored by rows or, transposed, by columns. A stands row after row (a_row = K,
// a_col = 1), or packed as panels ROWS wide (a_row = 1, a_col = ROWS).
__kernel void gemm_panels(
    __global const REAL *a, int a_start, int a_batches, int a_batch, int a_block, int a_row, int a_col,
    __global const REAL *panels,
    __global const REAL *bias, int bias_batches, int bias_batch, int bias_row, int bias_col,
    __global REAL *c, int c_start, int c_batch, int c_row, int c_col,
    int M, int N, int K, int blocks, int accumulate)
{
    // (0) tiles of one stack of them, (1) panels, (2) stacks of each batch: A's part for a stack stays in the cache.
    int stack = get_global_size(0) * ROWS, stacks = (M + stack - 1) / stack;
    int i0 = get_global_id(2) % stacks * stack + get_global_id(0) * ROWS, batch = get_global_id(2) / stacks;
    if (i0 >= M) return;
    int panel = get_global_id(1), n_panels = get_global_size(1), j0 = panel * COLUMNS;
    a += a_start + (batch % a_batches) * a_batch;
    panels += (size_t)(batch * n_panels + panel) * blocks * K * COLUMNS;

    bias += (batch % bias_batches) * bias_batch + i0 * bias_row + j0 * bias_col;
    REAL shift[COLUMNS] __attribute__((aligned(64)));  // the sums begin with the bias, of a column or of a row
    for (int j = 0; j < COLUMNS; j++)
        shift[j] = bias_col && j0 + j < N ? bias[j * bias_col] : 0;

    VECTOR left[ROWS], right[ROWS];
    __global const REAL *row[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        REAL more = bias_col ? 0 : bias[(i0 + r < M ? r : 0) * bias_row];
        left[r] = *(VECTOR *)&shift[0] + more;
        right[r] = *(VECTOR *)&shift[V] + more;
        row[r] = a + i0 * K + (i0 + r < M ? r : M - 1 - i0) * a_row;  // past the edge: the last, for nothing
    }
    // One step of the sum. Pointer casts in place of vloadN: the panels are aligned, and PoCL does not inline vloadN.
#define STEP(factor)                                                                                         \
    {                                                                                                        \
        VECTOR b0 = *(__global const VECTOR *)panels, b1 = *(__global const VECTOR *)(panels + V);           \
        _Pragma("unroll") for (int r = 0; r < ROWS; r++)                                                     \
        {                                                                                                    \
            REAL value = factor;                                                                             \
            left[r] += value * b0;                                                                           \
            right[r] += value * b1;                                                                          \
        }                                                                                                    \
        panels += COLUMNS;                                                                                   \
    }
    for (int block = 0; block < blocks; block++) {
        int k = 0;
        // Four steps at constant distances, which take hardly any arithmetic on addresses.
        if (a_col == 1)
            for (; k + 4 <= K; k += 4)
#pragma unroll
                for (int u = 0; u < 4; u++)
                    STEP(row[r][k + u])
        else
            for (; k + 4 <= K; k += 4)
#pragma unroll
                for (int u = 0; u < 4; u++)
                    STEP(row[0][(k + u) * ROWS + r])
        for (; k < K; k++)
            STEP(row[r][k * a_col])
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            row[r] += a_block;
    }
    c += c_start + batch * c_batch + i0 * c_row + j0 * c_col;
    int rows = M - i0 < ROWS ? M - i0 : ROWS, wide = N - j0 < COLUMNS ? N - j0 : COLUMNS;
    REAL out[ROWS][COLUMNS] __attribute__((aligned(64)));
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        *(VECTOR *)&out[r][0] = left[r];
        *(VECTOR *)&out[r][V] = right[r];
        for (int j = 0; j < COLUMNS; j++)  // loops of fixed length, without a test: the compiler makes vectors of them
            out[r][j] = ACTIVATION(out[r][j]);
    }
    if (accumulate) {
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < wide; j++)
                c[r * c_row + j * c_col] += out[r][j];
    } else if (c_col != 1) {  // neighbours in memory in the inner loop
        for (int j = 0; j < wide; j++)
            for (int r = 0; r < rows; r++)
                c[r + j * c_col] = out[r][j];
    } else if (wide == COLUMNS && rows == ROWS) {  // a whole tile: from the registers straight to memory
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < COLUMNS; j++)
                c[r * c_row + j] = out[r][j];
    } else
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < wide; j++)
                c[r * c_row + j] = out[r][j];
}

#else
#define DEEP 16        // steps of k between two exchanges
#define EACH (ROWS / 16)  // rows of C that a work-item computes
#define VECTOR4 JOIN(REAL, 4)

// The same product and arguments; work-groups of 16 x 16, (0) along the columns, (1) along the rows.
__kernel __attribute__((reqd_work_group_size(16, 16, 1))) void gemm_groups(
    __global const REAL *a, int a_start, int a_batches, int a_batch, int a_block, int a_row, int a_col,
    __global const REAL *panels,
    __global const REAL *bias, int bias_batches, int bias_batch, int bias_row, int bias_col,
    __global REAL *c, int c_start, int c_batch, int c_row, int c_col,
    int M, int N, int K, int blocks, int accumulate)
{
    __local REAL left[DEEP][ROWS + 1];  // + 1: neighbours in a column then lie in different memory banks
    __local REAL right[DEEP][COLUMNS] __attribute__((aligned(32)));
    int tx = get_local_id(0), ty = get_local_id(1), me = ty * 16 + tx;
    int panel = get_group_id(0), i0 = get_group_id(1) * ROWS, batch = get_global_id(2);
    int j0 = panel * COLUMNS + tx * 4;
    a += a_start + (batch % a_batches) * a_batch;
    panels += (size_t)(batch * (int)get_num_groups(0) + panel) * blocks * K * COLUMNS;

    VECTOR4 sum[EACH];
    for (int e = 0; e < EACH; e++)
        sum[e] = (VECTOR4)(0);
    for (int block = 0; block < blocks; block++, a += a_block, panels += K * COLUMNS)
        for (int k0 = 0; k0 < K; k0 += DEEP) {
            for (int t = me; t < ROWS * DEEP; t += 256) {
                // Neighbouring work-items follow the direction in which A's elements are neighbours.
                int r = a_col == 1 ? t / DEEP : t % ROWS, d = a_col == 1 ? t % DEEP : t / ROWS;
                left[d][r] = i0 + r < M && k0 + d < K ? a[(i0 + r) * a_row + (k0 + d) * a_col] : 0;
            }
            for (int t = me; t < DEEP * COLUMNS; t += 256)
                right[t / COLUMNS][t % COLUMNS] = k0 + t / COLUMNS < K ? panels[k0 * COLUMNS + t] : 0;
            barrier(CLK_LOCAL_MEM_FENCE);  // all have written before any reads
#pragma unroll
            for (int d = 0; d < DEEP; d++) {
                VECTOR4 b = *(__local const VECTOR4 *)&right[d][tx * 4];
#pragma unroll
                for (int e = 0; e < EACH; e++)
                    sum[e] += left[d][ty + e * 16] * b;
            }
            barrier(CLK_LOCAL_MEM_FENCE);  // all have read before any writes again
        }
    c += c_start + batch * c_batch;
    bias += (batch % bias_batches) * bias_batch;
    for (int e = 0; e < EACH; e++) {
        int i = i0 + ty + e * 16;
        REAL out[4] = {sum[e].x, sum[e].y, sum[e].z, sum[e].w};
        for (int j = 0; j < 4; j++)
            if (i < M && j0 + j < N) {
                int to = i * c_row + (j0 + j) * c_col;
                c[to] = accumulate ? c[to] + out[j] : ACTIVATION(out[j] + bias[i * bias_row + (j0 + j) * bias_col]);
            }
    }
}
#endif
