"""Comparing an operation's values and gradients with an independent reference, and data to do it on."""

import warnings

import numpy as np
import pytest
from hypothesis import strategies as st

import clnn

# Data are rounded to float32, so that both precisions compute from the same numbers. A sum of n rounded products is
# off by about sqrt(n) 6e-8 of the largest: the sums here have up to some thousand terms, so 1e-5 is five times that.
LIMIT32 = 1e-5
LIMIT64 = 1e-11
# Central differences of step h = 1e-5 are off by h^2 for the curve and by 1e-16 / h for the rounding.
LIMIT_NUMERIC = 1e-6
STEP = 1e-5

# Ones, primes, and sizes around the tiles' 16 and 32 columns.
sides = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 11, 13, 15, 16, 17, 31, 32, 33])
seeds = st.integers(0, 2**32 - 1)


def real_cifar10(reason: str = ""):
    """CIFAR-10's two parts; where only the stand-in is here the test is skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, test = clnn.data.cifar10()
    if train.source == "drawn":
        pytest.skip(f"no CIFAR-10 here{reason}")
    return train, test


def generator(seed) -> np.random.Generator:
    return np.random.default_rng(seed)


def dtypes() -> list:
    """The floating-point types of the device in use."""
    return [np.float32, np.float64] if clnn.device().fp64 else [np.float32]


def numbers(rng, *shape) -> np.ndarray:
    """Random numbers that float32 holds exactly, without symmetry around 0."""
    return (rng.standard_normal(shape) * 1.3 + 0.4).astype(np.float32).astype(np.float64)


def positive(rng, *shape) -> np.ndarray:
    """Random numbers from 0.5 to 3."""
    return rng.uniform(0.5, 3, shape).astype(np.float32).astype(np.float64)


def distinct(rng, *shape) -> np.ndarray:
    """Random numbers on both sides of 0, none 0 and no two alike, so far apart that differences are safe."""
    count = int(np.prod(shape))
    places = rng.permutation(count) - count // 2 + 0.375
    return (places / 8).reshape(shape)


def numeric_gradient(reference, inputs, weights, i) -> np.ndarray:
    """The derivative of sum(weights * reference(*inputs)) by input i, by central differences in float64."""
    x = inputs[i].copy()
    given = [*inputs[:i], x, *inputs[i + 1 :]]
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        former, ends = x[place], []
        for x[place] in (former + STEP, former - STEP):
            ends.append(np.sum(weights * reference(*given)))
        x[place] = former
        gradient[place] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


def assert_close(got, want, limit, title, floor=1e-3) -> None:
    """Alike within ``limit`` of the largest number in ``want`` or of ``floor``; infinities, NaN at the same places."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{title}: shape {got.shape}, expected {want.shape}"
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite].astype(float), want[~finite].astype(float), err_msg=title)
    error = np.abs(got[finite].astype(float) - want[finite])
    scale = np.abs(want[finite]).max(initial=floor)
    if not (error <= limit * scale).all():  # so put, a NaN in `got` fails
        raise AssertionError(f"{title}: off by {error.max() / scale:.2e} of the largest\ngot\n{got}\nexpected\n{want}")


def check(function, reference, *inputs, limit=LIMIT32, limit64=LIMIT64, numeric=LIMIT_NUMERIC, seed=1) -> None:
    """``function`` of tensors against ``reference`` of float64 arrays: values, types, shapes and gradients.

    Inputs of integers or booleans are passed on as they are and have no gradient. In float64 the gradients are held
    against central differences of the reference, in float32 against those of float64.
    """
    inputs = [np.asarray(x) for x in inputs]
    real = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    want = np.asarray(reference(*inputs), dtype=np.float64)
    weights = numbers(generator(seed), *want.shape)
    slopes = {i: numeric_gradient(reference, inputs, weights, i) for i in real}
    for dtype in reversed(dtypes()):
        # Terms of about 1 may cancel; central differences leave 1e-11 where all is 0.
        floor, *limits = (1e-3, limit64, numeric) if dtype == np.float64 else (1, limit, max(limit, numeric))
        title = f"{getattr(function, '__name__', 'function')} in {np.dtype(dtype).name}"

        def run(chosen, dtype=dtype):
            tensors = [
                clnn.tensor(x, dtype if i in real else None, requires_grad=i in chosen) for i, x in enumerate(inputs)
            ]
            result = function(*tensors)
            if chosen:
                result.backward(clnn.tensor(weights, dtype))
            return result, tensors

        result, tensors = run(real)
        assert result.dtype == dtype, f"{title}: gave {result.dtype}"
        assert_close(result.numpy(), want, limits[0], f"{title}: value", floor)
        for i in real:
            gradient = tensors[i].grad
            assert gradient is not None, f"{title}: input {i} got no gradient"
            assert gradient.dtype == dtype, f"{title}: the gradient of input {i} is {gradient.dtype}"
            assert_close(gradient.numpy(), slopes[i], limits[1], f"{title}: gradient of input {i}", floor)
        if dtype == np.float32 and len(real) > 1:
            for i in real:  # the same, bit for bit, where the others want none
                _, alone = run([i])
                np.testing.assert_array_equal(alone[i].grad.numpy(), tensors[i].grad.numpy(), err_msg=title)
                assert all(t.grad is None for j, t in enumerate(alone) if j != i)
        if dtype == np.float64:
            slopes = {i: tensors[i].grad.numpy() for i in real}
