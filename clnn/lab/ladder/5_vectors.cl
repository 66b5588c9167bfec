// 5. Each work-item computes six rows of one vector: V neighbouring elements of C in each, with -DV= the device's width.
//
// One instruction multiplies and adds V numbers. Its own tile of 6 x V sums in registers takes the place of the group's: a
// number of A is used V times and a vector of B six times. Nothing is shared, so there is no barrier to wait at.

#ifndef ROWS
#define ROWS 6
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(float, V) vector;
typedef vector anywhere __attribute__((aligned(4)));  // rows of B and C need not begin at a multiple of V

__kernel void multiply(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    int j = get_global_id(0) * V, i = get_global_id(1) * ROWS;
    if (i >= M || j >= N) return;
    if (j + V > N) {  // the ragged edge on the right: one by one
        for (int r = i; r < i + ROWS && r < M; r++)
            for (int s = j; s < N; s++) {
                float sum = 0;
                for (int k = 0; k < K; k++)
                    sum += a[r * K + k] * b[k * N + s];
                c[r * N + s] = sum;
            }
        return;
    }
    vector sum[ROWS];
    int row[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sum[r] = (vector)(0);
        row[r] = (i + r < M ? i + r : M - 1) * K;  // rows past the edge repeat the last and are not stored
    }
    for (int k = 0; k < K; k++) {
        vector value = *(__global const anywhere *)(b + k * N + j);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] += a[row[r] + k] * value;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (i + r < M)
            *(__global anywhere *)(c + (i + r) * N + j) = sum[r];
}
