// 3. A work-group copies tiles of A and B into local memory, where all its work-items read them.
//
// 16 x 16 work-items fetch 16 x 16 elements of A and of B, one each; every element then serves 16 of them. So the group asks
// memory for 16 times less. The barriers keep its members in step.

#define T 16

__kernel __attribute__((reqd_work_group_size(T, T, 1)))
void multiply(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    __local float left[T][T], right[T][T];
    int x = get_local_id(0), y = get_local_id(1);
    int j = get_global_id(0), i = get_global_id(1);
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += T) {
        left[y][x] = i < M && k0 + x < K ? a[i * K + k0 + x] : 0;
        right[y][x] = k0 + y < K && j < N ? b[(k0 + y) * N + j] : 0;
        barrier(CLK_LOCAL_MEM_FENCE);  // all have written before any reads
        for (int k = 0; k < T; k++)
            sum += left[y][k] * right[k][x];
        barrier(CLK_LOCAL_MEM_FENCE);  // all have read before any writes again
    }
    if (i < M && j < N)
        c[i * N + j] = sum;
}
