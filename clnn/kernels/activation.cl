// Activation functions, forward and backward, one work-item an element.
//
// The backward of tanh and sigmoid needs only the result y: tanh' = 1 - y^2, sigmoid' = y (1 - y).
// exp and tanh are written out for float because some compilers make a slow call of each built-in.

#ifndef REAL
#define REAL float
#endif

#ifdef DOUBLE
#define EXP exp
#define TANH tanh
#else
// e^x = 2^k e^r with k the nearest integer to x / ln 2 and |r| <= ln 2 / 2, e^r by its Taylor series.
// ln 2 is subtracted in two parts, so that r keeps its digits (Cody and Waite 1980).
static inline float fast_exp(float x)
{
    float inside = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float scaled = inside * 1.44269504f;
    int k = (int)(scaled + (scaled < 0 ? -0.5f : 0.5f));
    float r = inside - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * as_float((k + 127) << 23);
}

// Near 0 the odd Taylor series, for 1 - 2 / (e^2x + 1) would cancel there.
static inline float fast_tanh(float x)
{
    float a = x < 0 ? -x : x, s = x * x;
    float p = -1382.0f / 155925;
    p = p * s + 62.0f / 2835;
    p = p * s - 17.0f / 315;
    p = p * s + 2.0f / 15;
    p = p * s - 1.0f / 3;
    float near = x + x * s * p;
    float far = 1 - 2 / (fast_exp(2 * a) + 1);
    return a < 0.35f ? near : x < 0 ? -far : x != x ? x : far;
}
#define EXP fast_exp
#define TANH fast_tanh
#endif

#define FORWARD(NAME, RESULT)                                                       \
    __kernel void NAME(__global const REAL *xs, __global REAL *ys, int n)           \
    {                                                                               \
        int i = get_global_id(0);                                                   \
        if (i >= n) return;                                                         \
        REAL x = xs[i];                                                             \
        ys[i] = RESULT;                                                             \
    }

// ys holds what forward returned, g the gradient of the loss by it
#define BACKWARD(NAME, RESULT)                                                      \
    __kernel void NAME(__global const REAL *ys, __global const REAL *gs, __global REAL *out, int n) \
    {                                                                               \
        int i = get_global_id(0);                                                   \
        if (i >= n) return;                                                         \
        REAL y = ys[i], g = gs[i];                                                  \
        out[i] = RESULT;                                                            \
    }

FORWARD(relu, x < 0 ? 0 : x)  // written so that NaN stays NaN
BACKWARD(relu_backward, y > 0 ? g : 0)

FORWARD(tanh_, TANH(x))
BACKWARD(tanh_backward, g * (1 - y * y))

FORWARD(sigmoid, 1 / (1 + EXP(-x)))
BACKWARD(sigmoid_backward, g * y * (1 - y))

// log(1 + e^x) without overflow: the loss of one logit
FORWARD(softplus, (x < 0 ? 0 : x) + log1p(EXP(x > 0 ? -x : x)))
