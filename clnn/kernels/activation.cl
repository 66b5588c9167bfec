// Activation functions, forward and backward, element by element. Their way back needs only the result y.

#ifndef REAL
#define REAL float
#endif

#include "activation.h"  // RELU, TANH, SIGMOID, their slopes, EXP
#include "each.h"        // EACH

#define FORWARD(NAME, RESULT)                                                       \
    __kernel void NAME(__global const REAL *xs, __global REAL *ys, int n)           \
    {                                                                               \
        EACH(i, n) {                                                                \
            REAL x = xs[i];                                                         \
            ys[i] = RESULT;                                                         \
        }                                                                           \
    }

// ys holds what forward returned, g the gradient of the loss by it
#define BACKWARD(NAME, RESULT)                                                      \
    __kernel void NAME(__global const REAL *ys, __global const REAL *gs, __global REAL *out, int n) \
    {                                                                               \
        EACH(i, n) {                                                                \
            REAL y = ys[i], g = gs[i];                                              \
            out[i] = RESULT;                                                        \
        }                                                                           \
    }

FORWARD(relu, RELU(x))
BACKWARD(relu_backward, RELU_SLOPE(y, g))

FORWARD(tanh_, TANH(x))
BACKWARD(tanh_backward, TANH_SLOPE(y, g))

FORWARD(sigmoid, SIGMOID(x))
BACKWARD(sigmoid_backward, SIGMOID_SLOPE(y, g))

// log(1 + e^x) without overflow: the loss of one logit
FORWARD(softplus, (x < 0 ? 0 : x) + log1p(EXP(x > 0 ? -x : x)))
