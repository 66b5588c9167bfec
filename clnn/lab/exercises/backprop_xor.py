"""The checks of notebook 03: slopes, backpropagation by hand, XOR."""

import itertools

import numpy as np

from ..check import Wrong, compare, exercise, expect, numbers, unchanged

compare(
    "tanh_slope",
    cases=lambda rng: np.tanh(rng.normal(size=tuple(rng.integers(2, 6, 2)))),
    reference=lambda y: 1 - y**2,
    faults={
        "That is the rule for the sigmoid. The bend of tanh is another one.": lambda y: y * (1 - y),
        "You take the tanh once more, but y is the result of tanh already.": lambda y: 1 - np.tanh(y) ** 2,
        "The steepest place is right, but one y is missing: the formula has a square.": lambda y: 1 - y,
        "Plus or minus? tanh is steepest in the middle and flat where y is near -1 or 1.": lambda y: 1 + y**2,
    },
)


XOR = {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 0}


@exercise("xor_by_hand", tries=1)
def xor_by_hand(answer, rng):
    """Weights (w1, b1, w2, b2) of a 2-2-1 net of step functions."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 4:
        raise Wrong("The answer is four things: w1, b1, w2 and b2.")
    parts = {}
    for (name, shape), value in zip({"w1": (2, 2), "b1": (2,), "w2": (2,), "b2": ()}.items(), answer):
        parts[name] = numbers(value, f"your {name}")
        if parts[name].shape != shape:
            raise Wrong(f"{name} has shape {parts[name].shape}, expected is {shape}.")
    hidden = {x: (np.array(x) @ parts["w1"] + parts["b1"] > 0).astype(float) for x in XOR}
    outputs = {x: int(h @ parts["w2"] + parts["b2"] > 0) for x, h in hidden.items()}
    wrong = [x for x in XOR if outputs[x] != XOR[x]]
    if not wrong:
        return
    if len(wrong) == 4:
        raise Wrong("Every output is the opposite of what it should be.")
    columns = {tuple(column) for column in np.transpose(list(hidden.values()))}
    if len(columns) == 1 or any(len(set(column)) == 1 for column in columns):
        raise Wrong(
            "One hidden neuron adds nothing: it answers the same for all four inputs, or the same as the other. So the "
            f"net is a single neuron, and no single neuron can do XOR. Wrong at present: {_inputs(wrong)}."
        )
    raise Wrong(
        f"Wrong for the input {_inputs(wrong)}. At {wrong[0]} the hidden neurons say "
        f"{hidden[wrong[0]].astype(int).tolist()} and the output is {outputs[wrong[0]]}."
    )


def _inputs(points) -> str:
    return " and ".join(map(str, points))


def _wave(rng):
    """A function of an array with a curve in it, the array, a direction and a step that is not small."""
    shape = tuple(rng.integers(2, 5, 2))
    factors = rng.normal(size=shape)
    return lambda w: float(np.sum(np.sin(factors + w))), rng.normal(size=shape), rng.normal(size=shape), 0.3


compare(
    "directional_slope",
    cases=_wave,
    reference=lambda f, w, d, h: (f(w + h * d) - f(w - h * d)) / (2 * h),
    faults={
        "The two points are 2 h apart, not h: your slope is twice too large.": (
            lambda f, w, d, h: (f(w + h * d) - f(w - h * d)) / h
        ),
        "You step to one side only. A step to both sides is far more exact: try f(w + ...) and f(w - ...).": (
            lambda f, w, d, h: (f(w + h * d) - f(w)) / h
        ),
        "Where is the direction d? You step by the same h in every element of w.": (
            lambda f, w, d, h: (f(w + h) - f(w - h)) / (2 * h)
        ),
        "The check brings an h of its own, and you step by another. Use the argument h.": (
            lambda f, w, d, h: (f(w + 1e-5 * d) - f(w - 1e-5 * d)) / 2e-5
        ),
        "You step by the whole of d. A slope wants a small step: h times d.": (
            lambda f, w, d, h: (f(w + d) - f(w - d)) / 2
        ),
        "You divide by the length of d, too. Here the slope counts for one whole d: twice the d has twice the slope.": (
            lambda f, w, d, h: (f(w + h * d) - f(w - h * d)) / (2 * h * np.linalg.norm(d))
        ),
        "The slope has the wrong sign: which of the two values comes first?": (
            lambda f, w, d, h: (f(w - h * d) - f(w + h * d)) / (2 * h)
        ),
    },
)


@exercise("paths", tries=1)
def paths(answer, rng):
    """The derivatives of y = (a b + c) a at a = 2, b = 3, c = 4 by a, b and c."""
    try:
        by_a, by_b, by_c = (float(number) for number in answer)
    except (TypeError, ValueError):
        raise Wrong("The answer is three numbers: the derivatives of y by a, by b and by c.") from None
    a, b, c = 2.0, 3.0, 4.0
    if by_a in (a * b + c, a * b):
        raise Wrong(
            "The derivative by a: that is the share of one path only. Two paths lead from a to y, their shares add up."
        )
    if by_b == a:
        raise Wrong("The derivative by b: the path from b to y passes two products, and you have the slope of one.")
    if by_c == 1:
        raise Wrong("The derivative by c: that is the slope of the sum, but behind the sum stands a product.")
    for name, got, want in (("a", by_a, 2 * a * b + c), ("b", by_b, a * a), ("c", by_c, a)):
        if got != want:
            raise Wrong(
                f"The derivative by {name} is not {got:g}. Multiply the slopes along each path from {name} to y."
            )


@exercise("dense_layer")
def dense_layer(answer, rng):
    """A class: DenseLayer(w, b), called with x, then backward(dy), which returns dx and keeps dw and db."""
    examples, inputs, outputs = (int(n) for n in rng.choice([2, 3, 4, 5, 7], 3, replace=False))
    if hasattr(type(answer), "backward"):
        raise Wrong("Hand over the class itself, not an object of it.")
    w, b = rng.normal(size=(inputs, outputs)), rng.normal(size=outputs)
    x, dy = rng.normal(size=(examples, inputs)), rng.normal(size=(examples, outputs))
    y, former = np.tanh(x @ w + b), {"w": w, "b": b, "x": x, "dy": dy}
    given = {name: value.copy() for name, value in former.items()}
    layer = answer(given["w"], given["b"])
    if not callable(layer):
        raise Wrong("An object of your class cannot be called: it needs a method __call__(self, x).")
    layer(rng.normal(size=(examples + 1, inputs)))  # what it keeps of an earlier batch must not matter
    result = layer(given["x"])
    if result is None:
        raise Wrong("layer(x) returns None: is a `return` missing in __call__?")
    expect(result, y, "the result of layer(x)")
    dx = layer.backward(given["dy"])
    for name, value in given.items():
        unchanged(name, value, former[name])
    if dx is None:
        raise Wrong("backward(dy) returns None; it must return dx, for the layer before this one.")
    if isinstance(dx, (tuple, list)):
        raise Wrong(f"backward(dy) returns {len(dx)} things; it must return dx alone, and keep dw and db in self.")
    for name in ("dw", "db"):
        if not hasattr(layer, name):
            raise Wrong(f"After backward(dy) the layer has no {name}: keep it as self.{name}.")
        numbers(getattr(layer, name), f"the derivative {name}")
    da = dy * (1 - y**2)
    again = "The slope is taken of tanh(y), but y is the result of tanh already."
    _refuse(layer.dw, x.T @ (dy * (1 - np.tanh(y) ** 2)), again)
    _refuse(layer.dw, x.T @ (dy * y * (1 - y)), "That is the slope of a sigmoid; this layer has tanh.")
    mean = "dw is the mean over the examples; how much dy counts is settled before it arrives, and shares add up."
    _refuse(layer.dw, x.T @ da / examples, mean)
    _refuse(layer.dw, x.T @ dy, "dw lacks the slope of tanh: dy must pass back through tanh before it meets x.")
    _refuse(layer.db, da.mean(axis=0), "db is the mean over the examples; b stands in every row, and shares add up.")
    _refuse(layer.db, dy.sum(axis=0), "db lacks the slope of tanh: it comes from da, not from dy.")
    _refuse(dx, dy @ w.T, "dx lacks the slope of tanh: it comes from da, not from dy.")
    expect(layer.dw, x.T @ da, "the derivative dw")
    expect(layer.db, da.sum(axis=0), "the derivative db")
    expect(dx, da @ w.T, "the derivative dx, which backward(dy) returns,")


def _refuse(got, fault, text: str) -> None:
    if np.shape(got) == fault.shape and np.allclose(got, fault):
        raise Wrong(text)


def _deep(x, weights, t, slope=lambda y: 1 - y**2, shift: int = 0, divide: bool = True, last=lambda p: 1) -> list:
    """The gradients of the net of ``deep_gradients``; the other arguments are ways to get it wrong."""
    kept = [x]
    for w in weights[:-1]:
        kept.append(np.tanh(kept[-1] @ w))
    p = 1 / (1 + np.exp(-kept[-1] @ weights[-1]))
    da = (p - t) * last(p) / (len(x) if divide else 1)
    gradients = []
    for layer in reversed(range(len(weights))):
        gradients.insert(0, kept[layer].T @ da)
        if layer:
            da = (da @ weights[layer].T) * slope(kept[max(layer + shift, 1)])
    return gradients


@exercise("deep_gradients")
def deep_gradients(answer, rng):
    """A function of (x, weights, t): the gradient by each weight array of a net with any number of tanh layers."""
    examples, width = (int(n) for n in rng.choice([3, 4, 5, 6], 2, replace=False))
    depth = int(rng.integers(3, 6))
    sizes = [int(rng.integers(2, 5))] + [width] * (depth - 1) + [1]  # equal widths: a mixed-up layer still fits
    weights = [rng.normal(size=shape) for shape in itertools.pairwise(sizes)]
    x, t = rng.normal(size=(examples, sizes[0])), rng.integers(0, 2, (examples, 1)).astype(float)
    given = x.copy(), [w.copy() for w in weights], t.copy()
    got = answer(*given)
    for name, value, former in zip(("x", "weights", "t"), given, (x, weights, t)):
        unchanged(name, value, former)
    if not isinstance(got, (list, tuple)):
        raise Wrong(f"Return a list with a gradient for each weight array; a single {type(got).__name__} came.")
    if len(got) != depth:
        raise Wrong(f"There are {depth} weight arrays and you return {len(got)} gradients.")
    faults = {
        "Your gradients come in the order in which they are computed, last layer first. The list wants the order of "
        "weights.": _deep(x, weights, t)[::-1],
        "Somewhere a slope of tanh is missing: each step back through a hidden layer takes its factor.": _deep(
            x, weights, t, slope=np.ones_like
        ),
        "The slope of tanh is taken at the wrong layer: at which numbers did this tanh come out?": _deep(
            x, weights, t, shift=-1
        ),
        "Your loss adds up the examples; the mean divides by their number.": _deep(x, weights, t, divide=False),
        "The slope of the last sigmoid is in it; together with the cross-entropy it cancels, as in 3.2.": _deep(
            x, weights, t, last=lambda p: p * (1 - p)
        ),
    }
    for text, fault in faults.items():
        if all(np.shape(g) == f.shape and np.allclose(g, f) for g, f in zip(got, fault)):
            raise Wrong(text)
    for k, (mine, want) in enumerate(zip(got, _deep(x, weights, t))):
        expect(mine, want, f"the gradient by weights[{k}]")
