// What a device can do at most: multiply-adds that wait for nothing, and sums that wait for memory alone.
//
//   multiply_add   CHAINS vectors of V floats, each multiplied and added to again and again: the chains do not
//                  depend on each other, so that the arithmetic units need not wait for the last result
//   triad          a = b + s c as in McCalpin's STREAM (1995), `passes` times, the oldest of the three arrays
//                  becoming the next a

#ifndef V
#define V 8
#define CHAINS 10
#endif
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(float, V)

// out[i] = the sum of the chains; all work-groups begin with the same `x`.
__kernel void multiply_add(__global const VECTOR *x, __global VECTOR *out, float factor, float term, int steps)
{
    VECTOR chain[CHAINS], sum = (VECTOR)(0);
#pragma unroll
    for (int c = 0; c < CHAINS; c++)
        chain[c] = x[get_local_id(0) * CHAINS + c];
    for (int k = 0; k < steps; k++) {
#pragma unroll
        for (int c = 0; c < CHAINS; c++)
            chain[c] = chain[c] * factor + term;
    }
#pragma unroll
    for (int c = 0; c < CHAINS; c++)
        sum += chain[c];
    out[get_global_id(0)] = sum;
}

// Work-item i takes the vectors i * first, i * first + next, ...: on a CPU each core a run of its own, on a GPU
// neighbours next to each other.
__kernel void triad(
    __global VECTOR *a, __global VECTOR *b, __global VECTOR *c, float s, int count, int first, int next, int passes)
{
    size_t start = (size_t)get_global_id(0) * first;
    for (int pass = 0; pass < passes; pass++) {
        size_t at = start;
        for (int k = 0; k < count; k++, at += next)
            a[at] = b[at] + s * c[at];
        __global VECTOR *oldest = c;
        c = b;
        b = a;
        a = oldest;
    }
}
