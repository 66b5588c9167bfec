"""What nets compute, in NumPy: the independent result that benchmarks are held against before they are timed.

Each layer is a function that returns its result and ``back``, which turns a gradient of the result into one of the
input and those of the parameters by name. Arrays of float64 give results exact to about 13 digits.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .. import modules as nn


def conv(x, w, stride, padding, groups):
    """The convolution of images x (N, C, H, W) with filters w, without a bias."""
    (sy, sx), (py, px), (high, wide) = stride, padding, x.shape[2:]
    per_group, kh, kw = w.shape[1:]
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    windows = sliding_window_view(padded, (kh, kw), axis=(2, 3))[:, :, ::sy, ::sx]
    each = w.shape[0] // groups
    parts = [(np.s_[i * per_group : (i + 1) * per_group], np.s_[i * each : (i + 1) * each]) for i in range(groups)]
    y = np.concatenate([np.tensordot(w[f], windows[:, c], ((1, 2, 3), (1, 4, 5))) for c, f in parts])

    def back(g):
        dw = np.concatenate([np.tensordot(g[:, f], windows[:, c], ((0, 2, 3), (0, 2, 3))) for c, f in parts])
        dx, (oh, ow) = np.zeros_like(padded), g.shape[2:]
        for c, f in parts:
            for ky, kx in np.ndindex(kh, kw):
                part = np.tensordot(w[f, :, ky, kx], g[:, f], (0, 1)).transpose(1, 0, 2, 3)
                dx[:, c, ky : ky + sy * oh : sy, kx : kx + sx * ow : sx] += part
        return dx[:, :, py : py + high, px : px + wide], dw

    return y.transpose(1, 0, 2, 3), back


def pool(x, k, s, ceil_mode, largest):
    """The largest or the mean of each k x k window, without padding."""
    sizes = [-(-(n - k) // s) + 1 if ceil_mode else (n - k) // s + 1 for n in x.shape[2:]]
    oh, ow = [size - (ceil_mode and (size - 1) * s >= n) for size, n in zip(sizes, x.shape[2:])]
    behind = [max(0, (o - 1) * s + k - n) for o, n in zip((oh, ow), x.shape[2:])]
    border = ((0, 0), (0, 0), (0, behind[0]), (0, behind[1]))
    padded = np.pad(x, border, constant_values=-np.inf if largest else 0)
    taps = [np.s_[:, :, ky : ky + s * oh : s, kx : kx + s * ow : s] for ky, kx in np.ndindex(k, k)]
    inside = np.pad(np.ones(x.shape), border)
    if largest:
        winner = np.argmax([padded[tap] for tap in taps], axis=0)
        y, shares = np.max([padded[tap] for tap in taps], axis=0), [winner == i for i in range(k * k)]
    else:
        count = np.sum([inside[tap] for tap in taps], axis=0)
        y, shares = np.sum([padded[tap] for tap in taps], axis=0) / count, [1 / count] * (k * k)

    def back(g):
        dx = np.zeros_like(padded)
        for tap, share in zip(taps, shares):
            dx[tap] += g * share
        return dx[:, :, : x.shape[2], : x.shape[3]]

    return y, back


def local_response_norm(x, size, alpha, beta, k, within):
    """x divided by (k + alpha / n * the sum of squares of its n neighbours)^beta: those in ``size`` maps, or, with
    ``within``, in ``size`` rows and columns of the same map."""
    before, behind = size // 2, (size - 1) // 2

    def neighbours(values, before, behind):
        for axis in (2, 3) if within else (1,):
            border = [(before, behind) if d == axis else (0, 0) for d in range(4)]
            values = sliding_window_view(np.pad(values, border), size, axis).sum(-1)
        return values

    scale = alpha / size ** (2 if within else 1)
    d = k + scale * neighbours(x * x, before, behind)

    def back(g):
        return g * d**-beta - 2 * scale * beta * x * neighbours(g * x * d ** (-beta - 1), behind, before)

    return x * d**-beta, back


def layer(module, x, weight, bias):
    """A module's result, and ``back``: the gradients of its input, weight and bias."""
    match module:
        case nn.Conv2d():
            y, conv_back = conv(x, weight, module.stride, module.padding, module.groups)
            return y + bias[:, None, None], lambda g: (*conv_back(g), g.sum((0, 2, 3)))
        case nn.Linear():
            return x @ weight.T + bias, lambda g: (g @ weight, g.T @ x, g.sum(0))
        case nn.Tanh():
            y = np.tanh(x)
            return y, lambda g: (g * (1 - y * y),)
        case nn.ReLU():
            return np.maximum(x, 0), lambda g: (g * (x > 0),)
        case nn.Flatten():
            return x.reshape(len(x), -1), lambda g: (g.reshape(x.shape),)
        case nn.Dropout():  # in evaluation mode
            return x, lambda g: (g,)
        case nn.LocalResponseNorm():
            within = isinstance(module, nn.LocalResponseNorm2d)
            y, back = local_response_norm(x, module.size, module.alpha, module.beta, module.k, within)
        case nn.MaxPool2d() | nn.AvgPool2d():
            largest = isinstance(module, nn.MaxPool2d)
            y, back = pool(x, module.kernel_size, module.stride, module.ceil_mode, largest)
        case _:
            raise NotImplementedError(f"no reference for {type(module).__name__}")
    return y, lambda g: (back(g),)


def forward(net, state, x):
    """The result of a Sequential with the parameters ``state``, and each layer's ``back`` by its name."""
    backs = {}
    for name, module in net.named_children():
        x, backs[name] = layer(module, x, state.get(f"{name}.weight"), state.get(f"{name}.bias"))
    return x, backs


def cross_entropy(x, labels):
    """The mean of -log softmax(x)[label], and its gradient."""
    rows = np.arange(len(x))
    odds = np.exp(x - x.max(1, keepdims=True))
    slope = odds / odds.sum(1, keepdims=True)
    loss = -np.log(slope[rows, labels]).mean()
    slope[rows, labels] -= 1
    return loss, slope / len(x)


def mse(x, target):
    """The mean of (x - target)^2, and its gradient."""
    return ((x - target) ** 2).mean(), 2 * (x - target) / x.size


def step(net, state, x, target, loss, lr, weight_decay):
    """The loss, the gradients and the parameters after the first step of SGD, by name."""
    y, backs = forward(net, state, x)
    value, g = loss(y, target)
    result = {"loss": value}
    for name, back in reversed(backs.items()):
        g, *own = back(g)
        for kind, gradient in zip(("weight", "bias"), own):
            p = state[f"{name}.{kind}"]
            result[f"gradient of {name}.{kind}"] = gradient
            result[f"{name}.{kind} after a step"] = p - lr * (gradient + weight_decay * p)
    return result
