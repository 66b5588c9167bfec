// Moving elements: transposes, slices, broadcasts, conversions, rows by index.
// -DFROM=... and -DTO=... name the element types.
//
// A view is told by its shape and by a stride a dimension, counted from the last dimension.

static inline int offset(int i, int dims, const int *shape, const int *strides)
{
    int at = 0;
    for (int d = 0; d < dims; d++) {
        at += i % shape[d] * strides[d];
        i /= shape[d];
    }
    return at;
}

// out[i] = the i-th element of a view into x
__kernel void gather_view(
    __global const FROM *x, __global TO *out, int n, int start, int dims, int8 shape, int8 strides)
{
    int i = get_global_id(0);
    if (i < n)
        out[i] = (TO)x[start + offset(i, dims, (const int *)&shape, (const int *)&strides)];
}

// the i-th element of a view into out = x[i]; the view must not name an element twice
__kernel void scatter_view(
    __global const FROM *x, __global TO *out, int n, int start, int dims, int8 shape, int8 strides)
{
    int i = get_global_id(0);
    if (i < n)
        out[start + offset(i, dims, (const int *)&shape, (const int *)&strides)] = (TO)x[i];
}

// out[i] = x[rows[i]], a row having `width` elements
__kernel void take_rows(__global const FROM *x, __global const int *rows, __global TO *out, int n, int width)
{
    int i = get_global_id(0);
    if (i < n * width)
        out[i] = x[rows[i / width] * width + i % width];
}

// The gradient of take_rows: out[row] = sum of x[i] over the i that took it, order[first[row]..first[row + 1]].
// Each row is summed by its own work-items in a fixed order, so no atomics are needed and every run agrees.
__kernel void add_rows(
    __global const FROM *x, __global const int *order, __global const int *first, __global TO *out,
    int rows, int width)
{
    int i = get_global_id(0);
    if (i >= rows * width) return;
    TO sum = 0;
    for (int k = first[i / width]; k < first[i / width + 1]; k++)
        sum += x[order[k] * width + i % width];
    out[i] = sum;
}
