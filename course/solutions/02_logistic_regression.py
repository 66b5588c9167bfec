"""Solutions of 02_logistic_regression.ipynb: each takes the place of its exercise's skeleton."""

import numpy as np


# %% exercise:x_at
def x_at(p, A, B):
    """The x at which the model with log(p / (1 - p)) = A x + B gives the probability p."""
    return (np.log(p / (1 - p)) - B) / A


# %% exercise:loss_of_scores
def loss_of_scores(z, y):
    """The mean cross-entropy of scores z for labels y (0 or 1), also for scores like 1000."""
    return np.mean(np.logaddexp(0, z) - y * z)  # logaddexp(0, z) is log(e^0 + e^z), computed without overflow


# %% exercise:logistic_gradient
def logistic_gradient(X, y, w, b, penalty):
    """The gradients, by w and by b, of the mean cross-entropy plus penalty / 2 * (sum of w^2)."""
    error = 1 / (1 + np.exp(-(X @ w + b))) - y
    return X.T @ error / len(y) + penalty * w, np.mean(error)


# %% exercise:choose_threshold
def choose_threshold(p, y, recall):
    """The highest threshold t for which p >= t catches at least this share of the examples with y = 1."""
    positives = np.sort(p[y == 1])[::-1]
    return positives[int(np.ceil(recall * len(positives))) - 1]


# %% exercise:perceptron_step
def perceptron_step(w, x, s):
    """The weights after the perceptron has seen one example x of class s (-1 or 1)."""
    if s * (w @ x) <= 0:
        return w + s * x
    return w


# %% exercise:margin
def margin(w, b, X, s):
    """The distance from the boundary to the nearest row of X, negative if that row is on the wrong side."""
    return np.min(s * (X @ w + b)) / np.sqrt(np.sum(w**2))
