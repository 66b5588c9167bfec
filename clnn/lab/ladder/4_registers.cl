// 4. Each work-item computes four elements of C.
//
// An element of B that a work-item has read from local memory is used four times, for four rows of C; the four sums stay in
// registers. A group's tile of C is now 64 x 16, so an element of B serves four times as many products, too.

#define T 16
#define EACH 4  // elements of C a work-item, 16 rows apart

__kernel __attribute__((reqd_work_group_size(T, T, 1)))
void multiply(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    __local float left[EACH * T][T], right[T][T];
    int x = get_local_id(0), y = get_local_id(1);
    int j = get_global_id(0), i = get_group_id(1) * EACH * T + y;
    float sum[EACH] = {0};
    for (int k0 = 0; k0 < K; k0 += T) {
        for (int e = 0; e < EACH; e++)
            left[e * T + y][x] = i + e * T < M && k0 + x < K ? a[(i + e * T) * K + k0 + x] : 0;
        right[y][x] = k0 + y < K && j < N ? b[(k0 + y) * N + j] : 0;
        barrier(CLK_LOCAL_MEM_FENCE);  // all have written before any reads
        for (int k = 0; k < T; k++) {
            float value = right[k][x];
#pragma unroll
            for (int e = 0; e < EACH; e++)
                sum[e] += left[e * T + y][k] * value;
        }
        barrier(CLK_LOCAL_MEM_FENCE);  // all have read before any writes again
    }
    for (int e = 0; e < EACH; e++)
        if (i + e * T < M && j < N)
            c[(i + e * T) * N + j] = sum[e];
}
