"""The kernels that solve the exercises of notebook 05."""

# %% exercise:add
add = r"""
__kernel void add(__global const float *a, __global const float *b, __global float *c, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    c[i] = a[i] + b[i];
}
"""

# %% exercise:leaky_relu
leaky_relu = r"""
__kernel void leaky_relu(__global const float *x, __global float *y, float slope, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

__kernel void leaky_relu_backward(
    __global const float *x, __global const float *dy, __global float *dx, float slope, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
}
"""

# %% exercise:bias_tanh
bias_tanh = r"""
__kernel void bias_tanh(
    __global const float *x, __global const float *bias, __global float *y, int rows, int columns)
{
    int j = get_global_id(0), i = get_global_id(1);
    if (i >= rows || j >= columns) return;
    y[i * columns + j] = tanh(x[i * columns + j] + bias[j]);
}
"""

# %% exercise:row_sum
row_sum = r"""
__kernel void row_sum(__global const float *x, __global float *sums, int rows, int columns)
{
    int i = get_global_id(0);
    if (i >= rows) return;
    float sum = 0;
    for (int j = 0; j < columns; j++)
        sum += x[i * columns + j];
    sums[i] = sum;
}
"""

# %% exercise:max_pool
max_pool = r"""
__kernel void max_pool(__global const float *x, __global float *y, int height, int width)
{
    int j = get_global_id(0), i = get_global_id(1);
    if (i >= height / 2 || j >= width / 2) return;
    __global const float *corner = x + 2 * i * width + 2 * j;
    float most = corner[0];
    if (corner[1] > most) most = corner[1];
    if (corner[width] > most) most = corner[width];
    if (corner[width + 1] > most) most = corner[width + 1];
    y[i * (width / 2) + j] = most;
}
"""

# %% exercise:row_softmax
row_softmax = r"""
__kernel void row_softmax(__global const float *x, __global float *y, int rows, int columns)
{
    int i = get_global_id(0);
    if (i >= rows) return;
    x += i * columns;
    y += i * columns;
    float most = x[0], sum = 0;
    for (int j = 1; j < columns; j++)
        if (x[j] > most) most = x[j];
    for (int j = 0; j < columns; j++) {
        y[j] = exp(x[j] - most);
        sum += y[j];
    }
    for (int j = 0; j < columns; j++)
        y[j] /= sum;
}
"""

# %% exercise:histogram
histogram = r"""
__kernel void histogram(__global const int *x, __global int *counts, int n, int bins)
{
    int bin = get_global_id(0);
    if (bin >= bins) return;
    int count = 0;
    for (int i = 0; i < n; i++)
        if (x[i] == bin) count++;
    counts[bin] = count;
}
"""

# %% exercise:transpose
transpose = r"""
__kernel void transpose(__global const float *x, __global float *y, int rows, int columns)
{
    __local float tile[16][17];
    int tx = get_local_id(0), ty = get_local_id(1);
    int j = get_group_id(0) * 16 + tx, i = get_group_id(1) * 16 + ty;
    if (i < rows && j < columns) tile[ty][tx] = x[i * columns + j];
    barrier(CLK_LOCAL_MEM_FENCE);
    int row = get_group_id(0) * 16 + ty, column = get_group_id(1) * 16 + tx;
    if (row < columns && column < rows) y[row * rows + column] = tile[tx][ty];
}
"""

# %% exercise:conv1d
conv1d = r"""
__kernel void conv1d(__global const float *x, __global const float *w, __global float *y, int n)
{
    __local float part[64 + 4];
    int i = get_global_id(0), me = get_local_id(0), first = get_group_id(0) * 64 - 2;
    for (int t = me; t < 64 + 4; t += 64)
        part[t] = first + t >= 0 && first + t < n ? x[first + t] : 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (i >= n) return;
    float sum = 0;
    for (int k = 0; k < 5; k++)
        sum += w[k] * part[me + k];
    y[i] = sum;
}
"""

# %% exercise:group_sum
group_sum = r"""
__kernel void group_sum(__global const float *x, __global float *sums, int n)
{
    __local float part[64];
    int i = get_global_id(0), me = get_local_id(0);
    part[me] = i < n ? x[i] : 0;
    for (int step = 32; step > 0; step /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (me < step) part[me] += part[me + step];
    }
    if (me == 0) sums[get_group_id(0)] = part[0];
}
"""

# %% exercise:tiled_gemm
tiled_gemm = r"""
__kernel void tiled_gemm(
    __global const float *a, __global const float *b, __global float *c, int M, int N, int K)
{
    __local float left[16][16], right[16][16];
    int tx = get_local_id(0), ty = get_local_id(1), j = get_global_id(0), i = get_global_id(1);
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 16) {
        left[ty][tx] = i < M && k0 + tx < K ? a[i * K + k0 + tx] : 0;
        right[ty][tx] = k0 + ty < K && j < N ? b[(k0 + ty) * N + j] : 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < 16; k++)
            sum += left[ty][k] * right[k][tx];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (i < M && j < N) c[i * N + j] = sum;
}
"""
