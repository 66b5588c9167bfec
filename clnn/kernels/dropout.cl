// Dropout: each element becomes 0 with probability p, the others grow by 1 / (1 - p) (Srivastava et al. 2014).
//
// The random number of element i depends only on (seed, i): any order of the work-items draws the same mask,
// and backward draws it again in place of storing it. The mixing function is that of Widynski, "Squares: a fast
// counter-based RNG" (2020): four rounds of squaring, adding and swapping halves of a 64-bit word.

#ifndef REAL
#define REAL float
#endif

#include "each.h"  // EACH

static inline uint random_word(ulong key, ulong counter)
{
    ulong x = counter * key, y = x, z = y + key;
    x = x * x + y;
    x = (x >> 32) | (x << 32);
    x = x * x + z;
    x = (x >> 32) | (x << 32);
    x = x * x + y;
    x = (x >> 32) | (x << 32);
    return (uint)((x * x + z) >> 32);
}

// `limit` = p * 2^32
__kernel void dropout(__global const REAL *x, __global REAL *out, int n, ulong key, ulong limit, REAL scale)
{
    EACH(i, n)
        out[i] = random_word(key, (ulong)i + 1) < limit ? 0 : x[i] * scale;
}
