// Arithmetic and comparison of one or two arrays, element by element.
// -DREAL=float, double or int names the element type.
//
// Each binary operation has four forms: two arrays of one shape, an array and a number, a number and an array,
// and two arrays whose shapes are broadcast as NumPy does it. Shapes are counted from the last dimension; a
// dimension along which an array repeats itself has stride 0.

#ifndef REAL
#define REAL float
#endif

#include "each.h"  // EACH

static inline int offset(int i, int dims, const int *shape, const int *strides)
{
    int at = 0;
    for (int d = 0; d < dims; d++) {
        at += i % shape[d] * strides[d];
        i /= shape[d];
    }
    return at;
}

#define UNARY(NAME, RESULT)                                                                  \
    __kernel void NAME(__global const REAL *xs, __global REAL *out, int n)                   \
    {                                                                                        \
        EACH(i, n) {                                                                         \
            REAL x = xs[i];                                                                  \
            out[i] = RESULT;                                                                 \
        }                                                                                    \
    }

#define BINARY_TO(OUT, NAME, RESULT)                                                         \
    __kernel void NAME(__global const REAL *xs, __global const REAL *ys, __global OUT *out, int n) \
    {                                                                                        \
        EACH(i, n) {                                                                         \
            REAL x = xs[i], y = ys[i];                                                       \
            out[i] = RESULT;                                                                 \
        }                                                                                    \
    }                                                                                        \
    __kernel void NAME##_number(__global const REAL *xs, REAL y, __global OUT *out, int n)   \
    {                                                                                        \
        EACH(i, n) {                                                                         \
            REAL x = xs[i];                                                                  \
            out[i] = RESULT;                                                                 \
        }                                                                                    \
    }                                                                                        \
    __kernel void NAME##_broadcast(                                                          \
        __global const REAL *xs, __global const REAL *ys, __global OUT *out, int n,          \
        int dims, int8 shape, int8 x_strides, int8 y_strides)                                \
    {                                                                                        \
        EACH(i, n) {                                                                         \
            REAL x = xs[offset(i, dims, (const int *)&shape, (const int *)&x_strides)];      \
            REAL y = ys[offset(i, dims, (const int *)&shape, (const int *)&y_strides)];      \
            out[i] = RESULT;                                                                 \
        }                                                                                    \
    }

// A comparison does without number_NAME: Python asks `2 < x` as `x > 2`.
#define BINARY(NAME, RESULT)                                                                 \
    BINARY_TO(REAL, NAME, RESULT)                                                            \
    __kernel void number_##NAME(REAL x, __global const REAL *ys, __global REAL *out, int n)  \
    {                                                                                        \
        EACH(i, n) {                                                                         \
            REAL y = ys[i];                                                                  \
            out[i] = RESULT;                                                                 \
        }                                                                                    \
    }
#define COMPARE(NAME, RESULT) BINARY_TO(uchar, NAME, RESULT)

BINARY(add, x + y)
BINARY(sub, x - y)
BINARY(mul, x * y)
// A NaN in either comes through, as in NumPy.
BINARY(maximum, x > y || x != x ? x : y)
BINARY(minimum, x < y || x != x ? x : y)

COMPARE(lt, x < y)
COMPARE(le, x <= y)
COMPARE(gt, x > y)
COMPARE(ge, x >= y)
COMPARE(eq, x == y)
COMPARE(ne, x != y)

UNARY(neg, -x)
UNARY(absolute, x < 0 ? -x : x)
UNARY(signum, x > 0 ? 1 : x < 0 ? -1 : x)

#ifndef INTEGER
BINARY(div, x / y)
BINARY(power, pow(x, y))
UNARY(exponential, exp(x))
UNARY(logarithm, log(x))
UNARY(square_root, sqrt(x))
#endif

// where mask is true x, elsewhere y
__kernel void choose(
    __global const uchar *mask, __global const REAL *xs, __global const REAL *ys, __global REAL *out, int n)
{
    EACH(i, n)
        out[i] = mask[i] ? xs[i] : ys[i];
}
