"""A student's kernels in place of the package's own: ``install("relu", my_relu)``, then ``restore()``."""

from .. import program
from ..errors import ClnnError, DTypeError
from .kernel import GROUPS, Argument, Kernel

ELEMENTS = "(__global const float *x, __global float *y, int n)"
SLOPES = "(__global const float *y, __global const float *dy, __global float *dx, int n)"
# What can be replaced: the family and name of the package's kernel, and the arguments that one in its place takes.
# The way back of an activation gets the result y of the way forward. The matrix product is C (M x N) = A B, stored by
# rows; clnn transposes what is stored otherwise, and adds the bias.
OPERATIONS = {
    "relu": ("activation", "relu", ELEMENTS),
    "relu_backward": ("activation", "relu_backward", SLOPES),
    "tanh": ("activation", "tanh_", ELEMENTS),
    "tanh_backward": ("activation", "tanh_backward", SLOPES),
    "sigmoid": ("activation", "sigmoid", ELEMENTS),
    "sigmoid_backward": ("activation", "sigmoid_backward", SLOPES),
    "add": ("elementwise", "add", "(__global const float *a, __global const float *b, __global float *out, int n)"),
    "mul": ("elementwise", "mul", "(__global const float *a, __global const float *b, __global float *out, int n)"),
    "gemm": (
        "gemm", "gemm",
        "(__global const float *a, __global const float *b, __global float *c, int M, int N, int K)",
    ),
}  # fmt: skip


def install(operation: str, kernel: Kernel, size=None, local=None) -> None:
    """Let ``kernel`` compute an operation of clnn in float32, everywhere, until ``restore()``.

    ``OPERATIONS`` lists the operations with the arguments that a kernel for them takes. All but "gemm" run one
    work-item an element in groups of 256. "gemm" runs one for each element of C, the columns along dimension 0, in
    groups of 16 x 16; ``size``, a function (m, n, k) -> size, and ``local`` change that. Raises ClnnError for another
    operation, DTypeError where the arguments differ.
    """
    if operation not in OPERATIONS:
        raise ClnnError(f"no operation {operation!r} can be replaced; these can: {', '.join(OPERATIONS)}")
    family, name, head = OPERATIONS[operation]
    wanted = [Argument.parse(text) for text in head.strip("()").split(",")]
    if kernel.types != [(a.type, a.space) for a in wanted]:
        raise DTypeError(f"a kernel for {operation} takes {head}, yours is {kernel!r}")
    if operation == "gemm":
        local = local or kernel.group or GROUPS[2]
        own = program.Replacement(kernel.on, size or (lambda m, n, k: (n, m)), tuple(local))
    elif kernel.group:
        raise DTypeError(f"{operation} runs in groups of 256, {kernel.name} asks for groups of {kernel.group}")
    else:
        own = program.Replacement(kernel.on)
    program.replacements[family, name] = own


def restore(operation: str | None = None) -> None:
    """Put the package's kernel of an operation, or of all, back in its place."""
    for op in OPERATIONS if operation is None else [operation]:
        if op not in OPERATIONS:
            raise ClnnError(f"no operation {op!r} can be replaced; these can: {', '.join(OPERATIONS)}")
        program.replacements.pop(OPERATIONS[op][:2], None)
