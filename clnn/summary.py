"""A table of what a model consists of and what it costs."""

from dataclasses import dataclass, field

import numpy as np

from .modules import Module, Parameter
from .tensor import no_grad, zeros


@dataclass(frozen=True)
class LayerSummary:
    """One row: the layer's name and type, the shape of its output, and what one forward pass costs."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int  # of its parameters and its output


@dataclass(frozen=True)
class Summary:
    """The rows and their totals; printing it shows the table.

    A parameter that several layers share counts in the first of them.
    """

    input_shape: tuple[int, ...]
    layers: list[LayerSummary] = field(repr=False)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    def __str__(self):
        head = ("layer", "type", "output shape", "parameters", "multiply-adds", "bytes")
        rows = [
            (r.name, r.kind, str(r.output_shape), f"{r.parameters:,}", f"{r.multiply_adds:,}", f"{r.bytes:,}")
            for r in self.layers
        ]
        total = ("total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", f"{self.bytes:,}")
        width = [max(len(row[i]) for row in (head, total, *rows)) for i in range(6)]

        def line(row):
            cells = [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, width, strict=True))]
            return "  ".join(cells).rstrip()

        rule = "-" * len(line(head))
        return "\n".join([f"input {self.input_shape}", line(head), rule, *map(line, rows), rule, line(total)])

    __repr__ = __str__


def summary(model: Module, input_shape) -> Summary:
    """Run the model once on zeros of ``input_shape`` (with the batch) and tell each layer's output shape,
    parameters, multiply-adds (products summed in one forward pass) and bytes (float32 parameters and output).

    Raises ShapeError where the shape does not fit the model.
    """
    layers, handles, counted = [], [], set()
    training = {module: module.training for module in model.modules()}

    def record(name):
        def hook(module, inputs, result):
            own = [p for p in vars(module).values() if isinstance(p, Parameter) and id(p) not in counted]
            counted.update(map(id, own))
            count = sum(p.size for p in own)
            layers.append(
                LayerSummary(
                    name,
                    type(module).__name__,
                    result.shape,
                    count,
                    module.multiply_adds(inputs[0].shape, result.shape),
                    4 * (count + int(np.prod(result.shape))),
                )
            )

        return hook

    parameter = next(model.parameters(), None)
    try:
        for name, module in model.named_modules():
            inside = list(vars(module).values())
            if any(isinstance(v, Parameter) for v in inside) or not any(isinstance(v, Module) for v in inside):
                handles.append(module.register_forward_hook(record(name or "model")))
        with no_grad():
            model.eval()(zeros(tuple(input_shape), device=parameter.device if parameter is not None else None))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return Summary(tuple(input_shape), layers)
