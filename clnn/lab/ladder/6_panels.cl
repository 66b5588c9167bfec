// 6. B is first copied into panels as wide as a vector, so that the loop reads memory in order.
//
// From one row of B to the next step 5 jumps a whole row ahead, which caches and their look-ahead serve badly. In a panel the
// V numbers of row k + 1 follow those of row k. Columns past the edge are zero, so the ragged edge needs no loop of its own.

#ifndef ROWS
#define ROWS 6
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(float, V) vector;

// panels[panel][k][V]
__kernel void pack(__global const float *b, __global float *panels, int N, int K)
{
    int k = get_global_id(0), j = get_global_id(1) * V;
    if (k >= K) return;
    panels += j * K + k * V;
    for (int s = 0; s < V; s++)
        panels[s] = j + s < N ? b[k * N + j + s] : 0;
}

__kernel void multiply(__global const float *a, __global const float *panels, __global float *c, int M, int N, int K)
{
    int j = get_global_id(1) * V, i = get_global_id(0) * ROWS;
    if (i >= M || j >= N) return;
    vector sum[ROWS];
    int row[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sum[r] = (vector)(0);
        row[r] = (i + r < M ? i + r : M - 1) * K;  // rows past the edge repeat the last and are not stored
    }
    panels += j * K;
    for (int k = 0; k < K; k++) {
        vector value = *(__global const vector *)(panels + k * V);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] += a[row[r] + k] * value;
    }
    float out[ROWS][V] __attribute__((aligned(64)));
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        *(vector *)out[r] = sum[r];
    for (int r = 0; r < ROWS && i + r < M; r++)
        for (int s = 0; s < V && j + s < N; s++)
            c[(i + r) * N + j + s] = out[r][s];
}
