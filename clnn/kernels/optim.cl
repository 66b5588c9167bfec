// One step of stochastic gradient descent for all parameters at once, one work-item a number.
//
//   g = grad + weight_decay * w
//   v = momentum * v + (1 - dampening) * g          (Polyak 1964)
//   w = w - lr * v                                  or, with nesterov, w - lr * (g + momentum * v)

#ifndef REAL
#define REAL float
#endif

__kernel void sgd(
    __global REAL *w, __global const REAL *grad, __global REAL *velocity, int start, int end,
    REAL lr, REAL momentum, REAL dampening, REAL weight_decay, int nesterov, int first)
{
    int i = start + get_global_id(0);
    if (i >= end) return;
    REAL g = grad[i] + weight_decay * w[i], step = g;
    if (momentum != 0) {
        REAL v = first ? g : momentum * velocity[i] + (1 - dampening) * g;
        velocity[i] = v;
        step = nesterov ? g + momentum * v : v;
    }
    w[i] -= lr * step;
}
