"""Homework 1: the hidden cases. Keep this file, and solution.py, where students cannot read them."""

from functools import partial

import numpy as np

from clnn.lab.homework import Question

Question = partial(Question, kernels=True)  # NumPy's answers do not count


def ragged(rng, low=1, high=700):
    """A size that no work-group divides."""
    n = int(rng.integers(low, high))
    return n + 1 if n % 16 == 0 else n


def swish(x):
    return x / (1 + np.exp(-x.astype(float)))


def swish_backward(x, dy):
    s = 1 / (1 + np.exp(-x.astype(float)))
    return dy * (s + x * s * (1 - s))


def heat(t, k):
    """Heat flows between neighbours; none leaves the plate."""
    t = t.astype(float)
    flow = np.zeros_like(t)
    for axis in (0, 1):
        d = np.diff(t, axis=axis)
        edge = np.zeros_like(np.take(t, [0], axis))
        flow += np.concatenate([d, edge], axis) - np.concatenate([edge, d], axis)
    return t + k * flow


def plate(rows, columns):
    return lambda rng: (rng.normal(size=(rows, columns)).astype(np.float32), float(rng.uniform(0.05, 0.25)))


def pair(shape):
    return lambda rng: tuple(rng.normal(size=(2, *shape(rng))).astype(np.float32))


QUESTIONS = [
    Question(
        "scale_shift",
        points=2,
        cases={
            "64 numbers": lambda rng: (rng.normal(size=64).astype(np.float32), *map(float, rng.normal(size=2))),
            "any number of numbers": lambda rng: (
                rng.normal(size=ragged(rng)).astype(np.float32),
                *map(float, rng.normal(size=2)),
            ),
        },
        reference=lambda x, a, b: a * x + b,
    ),
    Question(
        "column_max",
        points=3,
        cases={
            "square": lambda rng: (rng.normal(size=(64, 64)).astype(np.float32),),
            "any shape": lambda rng: (rng.normal(size=(ragged(rng, high=40), ragged(rng))).astype(np.float32),),
            "all below zero": lambda rng: (-1 - rng.random((7, ragged(rng)), np.float32),),
        },
        reference=lambda x: x.max(axis=0),
    ),
    Question(
        "swish",
        points=1,
        cases={"any number of numbers": lambda rng: (rng.normal(size=ragged(rng)).astype(np.float32),)},
        reference=swish,
    ),
    Question(
        "swish_backward",
        points=2,
        cases={
            "gradient": pair(lambda rng: (ragged(rng),)),
            "a batch of rows": pair(lambda rng: (ragged(rng, high=20), ragged(rng, high=60))),
        },
        reference=swish_backward,
    ),
    Question(
        "heat",
        points=4,
        cases={
            "a square plate": plate(32, 32),
            "a ragged plate": lambda rng: plate(ragged(rng, 2, 50), ragged(rng, 2, 90))(rng),
            "a rod": plate(1, 77),
            "a single place": plate(1, 1),
        },
        reference=heat,
    ),
]
