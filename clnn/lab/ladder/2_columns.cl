// 2. The same, but neighbouring work-items lie beside each other.
//
// Neighbours have j, j + 1, j + 2, ...: in the same step they read the same element of A and neighbouring elements of B, and
// they write neighbouring elements of C. One fetch from memory serves them all.

__kernel void multiply(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    int j = get_global_id(0), i = get_global_id(1);
    if (i >= M || j >= N) return;
    float sum = 0;
    for (int k = 0; k < K; k++)
        sum += a[i * K + k] * b[k * N + j];
    c[i * N + j] = sum;
}
