// 1. Each work-item computes one element of C = A B; neighbouring work-items lie below each other.
//
// Element (i, j) is the sum of row i of A times column j of B. Neighbours have i, i + 1, i + 2, ...: in the same step they
// read elements of A that lie a whole row apart in memory, and they write elements of C a whole row apart.

__kernel void multiply(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    int i = get_global_id(0), j = get_global_id(1);
    if (i >= M || j >= N) return;
    float sum = 0;
    for (int k = 0; k < K; k++)
        sum += a[i * K + k] * b[k * N + j];
    c[i * N + j] = sum;
}
