"""The gradient of a function as a function, and whether the tape's gradient is right."""

import contextlib
import functools

import numpy as np

from .device import device as get_device
from .errors import DTypeError, GradientError, GraphError
from .tensor import Tensor, no_grad, tape_behind, tensor

# For each precision the step of the differences and how far, relatively, the gradients may lie apart.
STEPS = {np.dtype(np.float64): (1e-6, 1e-5), np.dtype(np.float32): (3e-3, 1e-2)}
SHOWN = 5  # elements that the message lists


def grad(f, argnums: int | tuple[int, ...] = 0):
    """The function that returns the gradient of f, whose result must be one number, by its first argument.

    ``grad(lambda x: x**3)(2.0)`` is 12.0. The argument may be a number, a NumPy array or a Tensor, or a list, tuple or
    dict of these, and the gradient comes in the same form; ``argnums`` names another argument, or several. It is
    computed on the tape; f sees Tensors. Like Knet's and JAX's ``grad``, and unlike ``torch.autograd.grad``, which
    takes a result that was already computed. Nobody's ``.grad`` changes. Raises GraphError where f's result does not
    come from its argument through operations on Tensors, ShapeError where it is more than one number.
    """
    places = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(f)
    def gradient(*args, **kwargs):
        args, leaves = list(args), []

        def leaf(value):
            leaves.append(_as_tensor(value).detach().requires_grad_())
            return leaves[-1]

        given = [args[i] for i in places]
        for i in places:
            args[i] = _each(leaf, args[i])
        slopes = _gradients(_tensor_from(f(*args, **kwargs)), leaves)
        if all(slope is None for slope in slopes):
            raise GraphError(
                "the result does not come from the argument on the tape: was it computed in NumPy, with no_grad() or "
                "detach(), or is it a gradient itself? grad() gives first derivatives of operations on Tensors"
            )
        pairs = iter([(leaf, slope) for leaf, slope in zip(leaves, slopes, strict=True)])
        results = [_each(lambda value: _in_the_form_of(value, *next(pairs)), value) for value in given]
        return results[0] if isinstance(argnums, int) else tuple(results)

    return gradient


def gradcheck(func, *inputs, eps=None, atol=None, rtol=None, raise_exception: bool = True) -> bool:
    """Whether the gradients that the tape gives of ``func(*inputs)``, a Tensor, agree with differences of its values.

    Checked are the inputs with ``requires_grad=True``, or if there are none all of floating-point numbers (Tensors,
    NumPy arrays, numbers). These, and what func uses besides, become float64 in place where the device and func allow
    it, so that ``gradcheck(lambda *_: loss(net(x), y), *net.parameters())`` checks a net; afterwards all is as before.

    Each element x goes a step h = eps * max(1, |x|) up and down: (f(x + h) - f(x - h)) / 2h should be the tape's
    number. Of a result of several numbers, a sum with random weights is looked at. At a kink, such as that of |x| at 0
    or of ReLU, any number between the slopes to the left and to the right is right. Two runs of func an element: give
    it small inputs. ``eps`` is 1e-6 (float32: 3e-3); two numbers may lie ``atol + rtol * |numeric|`` apart, ``rtol``
    1e-5 (float32: 1e-2) and ``atol`` a tenth of that of the largest element and what rounding can do.

    Raises GradientError that lists the worst elements with both numbers (returns False if ``raise_exception`` is
    False), and where two runs of func give different values; DTypeError if there is nothing to check.
    """
    inputs = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple) else inputs
    tensors = [_as_tensor(x) for x in inputs]
    real = [t for t in tensors if t.dtype.kind == "f"]
    checked = {t: None for t in real if t.requires_grad} or dict.fromkeys(real)  # no list: == compares elements
    if not checked:
        raise DTypeError("gradcheck needs an input of floating-point numbers: only those have gradients")
    leaves = {*real, *_leaves_besides(func, tensors, checked)}
    for dtype in [np.float64] * all(t.device.fp64 for t in leaves) + [np.float32]:
        try:
            with _as_leaves(leaves, checked, dtype):
                faults = _faults(func, tensors, checked, eps, atol, rtol)
            break
        except DTypeError:  # such as float32 weights that func makes itself beside an input of float64
            if dtype == np.float32:
                raise
    if faults and raise_exception:
        raise GradientError("\n".join(faults))
    return not faults


def _as_tensor(value) -> Tensor:
    """A Tensor as it is; NumPy's float64 and Python's numbers stay as precise as the device can."""
    if isinstance(value, Tensor):
        return value
    host = np.asarray(value, float if isinstance(value, int) else None)
    return tensor(host, np.float64 if host.dtype == np.float64 and get_device().fp64 else None)


def _each(function, value):
    """``function`` of a value, or of each one in nested lists, tuples and dicts, in the same arrangement."""
    if isinstance(value, dict):
        return {key: _each(function, v) for key, v in value.items()}
    return type(value)(_each(function, v) for v in value) if isinstance(value, list | tuple) else function(value)


def _in_the_form_of(value, leaf: Tensor, slope: Tensor | None):
    """A gradient (None means zero: no way to the result) as a Tensor, an array or a number, as ``value`` is."""
    if isinstance(value, Tensor):
        return leaf * 0 if slope is None else slope
    host = np.zeros(leaf.shape, leaf.dtype) if slope is None else slope.numpy()
    return host if isinstance(value, np.ndarray) else host.item()


def _tensor_from(result) -> Tensor:
    if not isinstance(result, Tensor) or result.dtype.kind != "f":
        kind = f"one of {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise DTypeError(
            f"the function must return a Tensor of floating-point numbers computed from its arguments, it gave {kind}"
        )
    return result


def _gradients(result: Tensor, inputs: list[Tensor], weights: Tensor | None = None) -> list:
    """The derivatives of ``sum(weights * result)`` by the inputs, None where there is no way on the tape."""
    if not result.requires_grad:
        return [None] * len(inputs)
    with _kept({*inputs, *(t for t in tape_behind(result) if t.node is None)}, "grad", "_grad_slot"):
        result.backward(weights)
        return [t.grad for t in inputs]


@contextlib.contextmanager
def _kept(tensors, *names: str):
    """Within this context these attributes are None; afterwards what they were before."""
    former = [(t, name, getattr(t, name)) for t in tensors for name in names]
    for t, name, _ in former:
        setattr(t, name, None)
    try:
        yield
    finally:
        for t, name, value in former:
            setattr(t, name, value)


@contextlib.contextmanager
def _as_leaves(tensors, checked, dtype):
    """Within this context tensors are leaves that hold copies of the given type; ``checked`` require gradients."""
    copies = [(t, t.requires_grad, tensor(t.numpy(), dtype, device=t.device)) for t in tensors]
    with _kept(tensors, "array", "node", "grad", "_grad_slot"):
        for t, _, copy in copies:
            t.array, t.requires_grad = copy.array, t in checked
        try:
            yield
        finally:
            for t, requires_grad, _ in copies:
                t.requires_grad = requires_grad


def _leaves_besides(func, tensors, checked) -> set:
    """The floating-point leaves that func uses although they are none of its inputs, such as a net's parameters."""
    try:
        with _as_leaves({t for t in tensors if t.dtype.kind == "f"}, checked, np.float32):
            result = _tensor_from(func(*tensors))
            nodes = [t.node for t in tape_behind(result) if t.node is not None]
    except DTypeError:
        return set()
    return {t for node in nodes for t in node.inputs if t.node is None and t.dtype.kind == "f"}


def _faults(func, tensors, checked, eps, atol, rtol) -> list[str]:
    """What is wrong with the gradients, in words."""
    result = _tensor_from(func(*tensors))
    weights = np.random.default_rng(0).standard_normal(result.shape) if result.size > 1 else np.ones(result.shape)
    slopes = _gradients(result, [*checked], tensor(weights, result.dtype, device=result.device))

    def value() -> float:
        with no_grad():
            return float(np.sum(weights * func(*tensors).numpy()))

    here = value()
    if not np.array_equal(here, np.sum(weights * result.numpy()), equal_nan=True):
        raise GradientError(
            "the function gives another value for the same inputs: is there a Dropout in it? net.eval() stills it"
        )
    step, near = STEPS[result.dtype]
    eps, rtol = step if eps is None else eps, near if rtol is None else rtol
    # A value is off by some units in its last place, a slope by that divided by the step.
    noise = 8 * np.finfo(result.dtype).eps * max(1, np.abs(weights * result.numpy()).sum()) / eps
    faults = []
    for t, slope in zip(checked, slopes, strict=True):
        tape = np.zeros(t.shape) if slope is None else slope.numpy().astype(float)
        left, right = _slopes(value, here, t, eps)
        numeric = (left + right) / 2
        limit = 0.1 * rtol * np.abs(numeric).max() + noise if atol is None else atol
        limit = limit + rtol * np.abs(numeric)
        right_ones = (np.minimum(left, right) - limit <= tape) & (tape <= np.maximum(left, right) + limit)
        if not right_ones.all():
            at = next(i for i, other in enumerate(tensors) if other is t)
            lost = "; the result does not come from this input on the tape" if slope is None else ""
            faults.append(_describe(at, tape, numeric, ~right_ones, f"{result.dtype}, eps={eps:g}{lost}"))
    return faults


def _slopes(value, here: float, t: Tensor, eps: float):
    """For each element of t the slope of ``value()`` to its left and to its right; t is as before afterwards."""
    host = t.numpy()
    left, right = np.empty(t.shape), np.empty(t.shape)
    for place in np.ndindex(t.shape):
        x = host[place]
        for side, slope in ((-1, left), (1, right)):
            host[place] = x + side * eps * max(1, abs(x))
            t.copy_(host)
            slope[place] = (value() - here) / (float(host[place]) - float(x))  # the step that rounding left
        host[place] = x
    t.copy_(host)
    return left, right


def _describe(at: int, tape, numeric, wrong, how: str) -> str:
    """Both gradients of one input at the elements that differ most."""
    places = sorted(np.argwhere(wrong).tolist(), key=lambda p: -abs(tape[tuple(p)] - numeric[tuple(p)]))
    lines = [
        f"input {at}, shape {tape.shape}: the tape's gradient and the numeric one differ at {len(places)} of "
        f"{tape.size} elements ({how})",
        f"  {'index':>12} {'tape':>14} {'numeric':>14}",
    ]
    for place in map(tuple, places[:SHOWN]):
        index = str(place[0]) if len(place) == 1 else str(place)
        lines.append(f"  {index:>12} {tape[place]:14.6g} {numeric[place]:14.6g}")
    if len(places) > SHOWN:
        lines.append(f"  and {len(places) - SHOWN} more")
    with np.errstate(all="ignore"):
        ratio = tape[wrong] / numeric[wrong]
    even = np.isfinite(ratio).all() and np.ptp(ratio) <= 1e-3 * abs(ratio[0])
    if even and tape.any() and (wrong | (numeric == 0)).all():
        lines.append(f"  the tape's is {ratio[0]:.4g} times the numeric one everywhere")
    return "\n".join(lines)
