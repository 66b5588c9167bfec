// Matrix product C = A B (+ bias), for float and, with -DREAL=double, for double.
//
//   gemm_plain    one work-item, one element of C: the definition, for reading and for checking the others
//   gemm_pack     copies B into panels of 2 V columns, so that the inner loop below reads memory in order
//   gemm_panels   one work-item, one tile of ROWS x 2 V elements of C, held in registers
//
// Why the last is fast: each value of A that it loads is used 2 V times and each of B ROWS times, so the
// arithmetic units wait for memory far less; V is the length of the device's vectors.
//
// Element (i, j) of a matrix stands at i * row + j * col: swapping the two strides transposes it.

#ifndef REAL
#define REAL float
#endif
#ifndef ROWS
#define ROWS 6
#define V 8
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(REAL, V)
#define COLUMNS (2 * V)

__kernel void gemm_plain(
    __global const REAL *a, int a_batch, int a_row, int a_col,
    __global const REAL *b, int b_batch, int b_row, int b_col,
    __global REAL *c, int M, int N, int K)
{
    int j = get_global_id(0), i = get_global_id(1), batch = get_global_id(2);
    if (i >= M || j >= N) return;
    REAL sum = 0;
    for (int k = 0; k < K; k++)
        sum += a[batch * a_batch + i * a_row + k * a_col] * b[batch * b_batch + k * b_row + j * b_col];
    c[(batch * M + i) * N + j] = sum;
}

// panels[batch][panel][k][COLUMNS]: columns past N are zero, so the product needs no test for the edge.
__kernel void gemm_pack(
    __global const REAL *b, int b_batch, int b_row, int b_col,
    __global REAL *panels, int N, int K)
{
    int k = get_global_id(0), panel = get_global_id(1), batch = get_global_id(2);
    if (k >= K) return;
    int j0 = panel * COLUMNS;
    __global const REAL *from = b + batch * b_batch + k * b_row + j0 * b_col;
    __global REAL *to = panels + ((batch * (int)get_global_size(1) + panel) * K + k) * COLUMNS;
    for (int j = 0; j < COLUMNS; j++)
        to[j] = j0 + j < N ? from[j * b_col] : 0;
}

// C[batch] (M x N) = or += sum over `blocks` of A[batch % a_batches][block] (M x K) * panels[batch][block].
// A second loop over blocks lets the sum run over images, too, as the weight gradient of a convolution does.
__kernel void gemm_panels(
    __global const REAL *a, int a_start, int a_batches, int a_batch, int a_block, int a_row, int a_col,
    __global const REAL *panels,
    __global const REAL *bias, int bias_batches, int bias_batch, int bias_row, int bias_col,
    __global REAL *c, int c_start, int c_batch,
    int M, int N, int K, int blocks, int accumulate)
{
    int i0 = get_global_id(0) * ROWS, panel = get_global_id(1), batch = get_global_id(2);
    if (i0 >= M) return;
    int n_panels = get_global_size(1), j0 = panel * COLUMNS;
    a += a_start + (batch % a_batches) * a_batch;
    panels += (size_t)(batch * n_panels + panel) * blocks * K * COLUMNS;

    VECTOR left[ROWS], right[ROWS];
    int at[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        left[r] = right[r] = (VECTOR)(0);
        at[r] = (i0 + r < M ? i0 + r : M - 1) * a_row;  // rows past the edge repeat the last and are not stored
    }
    for (int block = 0; block < blocks; block++, a += a_block)
        for (int k = 0; k < K; k++, panels += COLUMNS) {
            // Pointer casts in place of vloadN: the panels are aligned, and PoCL does not inline vloadN.
            VECTOR b0 = *(__global const VECTOR *)panels, b1 = *(__global const VECTOR *)(panels + V);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                REAL value = a[at[r] + k * a_col];
                left[r] += value * b0;
                right[r] += value * b1;
            }
        }
    c += c_start + batch * c_batch;
    bias += (batch % bias_batches) * bias_batch;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        VECTOR tile[2] = {left[r], right[r]};
        const REAL *out = (const REAL *)tile;
        for (int j = 0; j < COLUMNS; j++)
            if (i0 + r < M && j0 + j < N) {
                int to = (i0 + r) * N + j0 + j;
                REAL base = accumulate ? c[to] : bias[(i0 + r) * bias_row + (j0 + j) * bias_col];
                c[to] = base + out[j];
            }
    }
}
