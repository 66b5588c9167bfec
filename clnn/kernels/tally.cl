// Running sums over the batches of an epoch, which the host reads when the epoch is over.

#ifndef REAL
#define REAL float
#endif
#define GROUP 64

// loss_sum += weight * loss, if there is a loss, and hits += the rows of x[outer][n][inner] at whose label stands one
// of the k largest elements; of equals the first come first, and a NaN comes before all. One work-group, so that only
// one work-item writes.
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void tally(
    __global const REAL *x, __global const int *labels, __global const REAL *loss, __global REAL *loss_sum,
    __global int *hits, int outer, int n, int inner, int k, REAL weight)
{
    __local int counts[GROUP];
    int id = get_local_id(0), count = 0;
    for (int row = id; row < outer * inner; row += GROUP) {
        int label = labels[row], before = 0;
        if (label < 0 || label >= n) continue;
        __global const REAL *at = x + (size_t)(row / inner) * n * inner + row % inner;
        REAL own = at[(size_t)label * inner];
        for (int j = 0; j < n; j++) {
            REAL other = at[(size_t)j * inner];
            before += j != label && (!(other <= own) || (other == own && j < label));
        }
        count += before < k;
    }
    counts[id] = count;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (id == 0) {
        for (int i = 1; i < GROUP; i++)
            count += counts[i];
        *hits += count;
        if (loss)
            *loss_sum += weight * *loss;
    }
}
