// Batch normalisation of x[N][C][P], a work-group a channel (Ioffe and Szegedy 2015):
//
//   y = (x - mean) rstd w + b,  rstd = 1 / sqrt(var + eps),  mean and var over the n = N * P numbers of the channel
//
// The mean comes first and the squares of the distances from it in a pass of their own: the mean of the squares less
// the square of the mean would lose the digits of a channel whose mean is large (Chan, Golub and LeVeque 1983).
//
// A group has WIDTH work-items along the positions of an image, HEIGHT along the images: one in all on a CPU, which
// computes LANES positions side by side, and a few hundred on a GPU. Sums have a fixed order: in a lane, over the
// lanes, over the images, over the group.
//
// w and b may be null: 1 and 0.

#ifndef REAL
#define REAL float
#define WIDTH 1
#define HEIGHT 1
#define LANES 8
#endif
#define GROUP (WIDTH * HEIGHT)
#define SIZES int N, int C, int P

static inline REAL group_sum(REAL value, __local REAL *parts)
{
    int id = get_local_id(1) * WIDTH + get_local_id(0);
    parts[id] = value;
    for (int gap = GROUP / 2; gap > 0; gap /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (id < gap)
            parts[id] += parts[id + gap];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    REAL sum = parts[0];
    barrier(CLK_LOCAL_MEM_FENCE);  // parts is written again for the next sum
    return sum;
}

// The sum of (a - low) (b - mean) over channel c; without a b, of a - low
static inline REAL channel_sum(
    __global const REAL *a, REAL low, __global const REAL *b, REAL mean, int c, SIZES, __local REAL *parts)
{
    REAL sum = 0;
    for (int n = get_local_id(1); n < N; n += HEIGHT) {
        size_t plane = ((size_t)n * C + c) * P;
        REAL lane[LANES] = {0}, image = 0;
        int p = get_local_id(0) * LANES;
        for (; p + LANES <= P; p += WIDTH * LANES)
#pragma unroll
            for (int i = 0; i < LANES; i++)
                lane[i] += (a[plane + p + i] - low) * (b ? b[plane + p + i] - mean : 1);
        for (int i = 0; i < LANES && p + i < P; i++)
            lane[i] += (a[plane + p + i] - low) * (b ? b[plane + p + i] - mean : 1);
        for (int i = 0; i < LANES; i++)
            image += lane[i];
        sum += image;
    }
    return group_sum(sum, parts);
}

__kernel void count_batch(__global int *count)
{
    if (get_global_id(0) == 0)
        *count += 1;
}

// mean and var of each channel; running_mean and running_var, if there are any, move towards them by `momentum`, or if
// there is a `count` by 1 / count
__kernel __attribute__((reqd_work_group_size(WIDTH, HEIGHT, 1)))
void channel_moments(
    __global const REAL *x, __global REAL *means, __global REAL *vars, __global REAL *running_mean,
    __global REAL *running_var, __global const int *count, REAL momentum, SIZES)
{
    __local REAL parts[GROUP];
    int c = get_group_id(2);
    REAL n = (REAL)N * P;
    REAL mean = channel_sum(x, 0, 0, 0, c, N, C, P, parts) / n;
    REAL var = channel_sum(x, mean, x, mean, c, N, C, P, parts) / n;
    if (get_local_id(0) > 0 || get_local_id(1) > 0) return;
    means[c] = mean;
    vars[c] = var;
    if (!running_mean) return;
    REAL share = count ? (REAL)1 / *count : momentum;
    running_mean[c] = (1 - share) * running_mean[c] + share * mean;
    running_var[c] = (1 - share) * running_var[c] + share * var * (n / (n - 1));
}

// A work-item of batch_norm and batch_norm_backward takes `span` positions of channel id(1) of image id(2).
__kernel void batch_norm(
    __global const REAL *x, __global const REAL *means, __global const REAL *vars, __global const REAL *w,
    __global const REAL *b, __global REAL *y, REAL eps, int span, SIZES)
{
    int from = get_global_id(0) * span, c = get_global_id(1);
    REAL rstd = 1 / sqrt(vars[c] + eps), mean = means[c], scale = w ? rstd * w[c] : rstd, shift = b ? b[c] : 0;
    size_t plane = ((size_t)get_global_id(2) * C + c) * P;
    for (int p = from; p < from + span && p < P; p++)
        y[plane + p] = (x[plane + p] - mean) * scale + shift;
}

// db = sum g,  dw = rstd (the sum of g (x - mean))
__kernel __attribute__((reqd_work_group_size(WIDTH, HEIGHT, 1)))
void channel_slopes(
    __global const REAL *g, __global const REAL *x, __global const REAL *means, __global const REAL *vars,
    __global REAL *dw, __global REAL *db, REAL eps, SIZES)
{
    __local REAL parts[GROUP];
    int c = get_group_id(2);
    REAL sum = channel_sum(g, 0, 0, 0, c, N, C, P, parts);
    REAL product = channel_sum(g, 0, x, means[c], c, N, C, P, parts);
    if (get_local_id(0) > 0 || get_local_id(1) > 0) return;
    db[c] = sum;
    dw[c] = product / sqrt(vars[c] + eps);
}

// dx = w rstd g, and with `training`, where mean and var depend on x, dx = w rstd (g - db / n - (x - mean) rstd dw / n)
__kernel void batch_norm_backward(
    __global const REAL *g, __global const REAL *x, __global const REAL *means, __global const REAL *vars,
    __global const REAL *w, __global const REAL *dw, __global const REAL *db, __global REAL *dx, int training,
    REAL eps, int span, SIZES)
{
    int from = get_global_id(0) * span, c = get_global_id(1);
    REAL rstd = 1 / sqrt(vars[c] + eps), mean = means[c], scale = w ? rstd * w[c] : rstd, n = (REAL)N * P;
    REAL drift = training ? db[c] / n : 0, pull = training ? rstd * dw[c] / n : 0;
    size_t plane = ((size_t)get_global_id(2) * C + c) * P;
    for (int p = from; p < from + span && p < P; p++)
        dx[plane + p] = scale * (g[plane + p] - drift - (x[plane + p] - mean) * pull);
}
