"""Solutions to the exercises of 03_backprop_xor.ipynb. Try first: the checks say what is missing."""

import numpy as np


# %% exercise:tanh_slope
def tanh_slope(y):
    return 1 - y**2


# %% exercise:xor_by_hand
w1 = [[1, 1], [1, 1]]
b1 = [-0.5, -1.5]  # the first hidden neuron answers OR, the second AND
w2 = [1, -1]
b2 = -0.5


# %% exercise:directional_slope
def directional_slope(f, w, d, h=1e-5):
    return (f(w + h * d) - f(w - h * d)) / (2 * h)


# %% exercise:dense_layer
class DenseLayer:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def __call__(self, x):
        self.x = x
        self.y = np.tanh(x @ self.w + self.b)
        return self.y

    def backward(self, dy):
        da = dy * (1 - self.y**2)
        self.dw = self.x.T @ da
        self.db = da.sum(axis=0)
        return da @ self.w.T


# %% exercise:deep_gradients
def deep_gradients(x, weights, t):
    kept = [x]
    for w in weights[:-1]:
        kept.append(np.tanh(kept[-1] @ w))
    p = 1 / (1 + np.exp(-kept[-1] @ weights[-1]))
    da = (p - t) / len(x)
    slopes = []
    for h, w in zip(reversed(kept), reversed(weights)):
        slopes.insert(0, h.T @ da)
        da = (da @ w.T) * (1 - h**2)  # after the last turn nobody needs it
    return slopes


# %% exercise:paths
by_a = 2 * 2 * 3 + 4
by_b = 2 * 2
by_c = 2
