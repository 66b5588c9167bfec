"""Solutions to the exercises of 04_cnn_lenet.ipynb. Try first: the checks say what is missing."""

import numpy as np

import clnn

# %% exercise:sharpen
sharpen = np.float32([[-1, -1, -1], [-1, 16, -1], [-1, -1, -1]]) / 8


# %% exercise:strided_convolution
def strided_convolution(image, kernel, stride, padding):
    size = len(kernel)
    padded = np.pad(image, padding)
    rows = (padded.shape[0] - size) // stride + 1
    columns = (padded.shape[1] - size) // stride + 1
    result = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            result[i, j] = np.sum(kernel * padded[top : top + size, left : left + size])
    return result


# %% exercise:pool_by_hand
def pool_by_hand(maps, size):
    count, rows, columns = len(maps), maps.shape[1] // size, maps.shape[2] // size
    whole = maps[:, : rows * size, : columns * size]
    return whole.reshape(count, rows, size, columns, size).max(axis=(2, 4))


# %% exercise:conv_costs
def conv_costs(channels, filters, size, rows, columns):
    weights = filters * channels * size * size
    return weights + filters, weights * rows * columns


# %% exercise:batch_cross_entropy
def batch_cross_entropy(logits, truth):
    of_true_class = (clnn.ops.softmax(logits) * truth).sum(dim=1)
    return -of_true_class.log().mean()


# %% exercise:sgd_step_of_lenet
def sgd_step_of_lenet(w, v, g, lr, momentum, weight_decay):
    v = momentum * v + (g + weight_decay * w)
    return w - lr * v, v
