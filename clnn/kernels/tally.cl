// Running sums over the batches of an epoch, which the host reads when the epoch is over.

#ifndef REAL
#define REAL float
#endif
#define GROUP 64

// loss_sum += weight * loss, and hits += the rows of x[outer][n][inner] whose largest element stands at the label.
// One work-group, so that only one work-item writes.
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void tally(
    __global const REAL *x, __global const int *labels, __global const REAL *loss, __global REAL *loss_sum,
    __global int *hits, int outer, int n, int inner, REAL weight)
{
    __local int counts[GROUP];
    int id = get_local_id(0), count = 0;
    for (int row = id; row < outer * inner; row += GROUP) {
        __global const REAL *at = x + (size_t)(row / inner) * n * inner + row % inner;
        int best = 0;
        for (int k = 1; k < n; k++)
            best = at[(size_t)k * inner] > at[(size_t)best * inner] ? k : best;
        count += best == labels[row];
    }
    counts[id] = count;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (id == 0) {
        for (int i = 1; i < GROUP; i++)
            count += counts[i];
        *hits += count;
        *loss_sum += weight * *loss;
    }
}
