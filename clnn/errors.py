"""The exceptions of clnn. Each says what came, what was expected and what to do."""


class ClnnError(Exception):
    """Base class of every exception that clnn raises itself."""


class DataError(ClnnError):
    """A data set is missing, damaged, or cannot be fetched."""


class DownloadError(DataError):
    """No server could deliver a data set: most often there is no network."""


class DeviceError(ClnnError):
    """No OpenCL device is there, or none fits the name that was asked for."""


class DeviceMemoryError(DeviceError, MemoryError):
    """An array does not fit into the device's memory."""


class KernelCompileError(ClnnError):
    """A kernel does not compile; the message shows the compiler's words and the line."""


class ShapeError(ClnnError, ValueError):
    """A shape or rank does not fit the operation."""


class DTypeError(ClnnError, TypeError):
    """An element type does not fit the operation."""


class LabelError(ClnnError, ValueError):
    """A class label lies outside 0 .. classes - 1."""


class GraphError(ClnnError, RuntimeError):
    """backward() was asked for where the tape cannot give it."""


class GradientError(ClnnError, RuntimeError):
    """The gradient that the tape gives and the numeric one differ."""


class OptimizerError(ClnnError, RuntimeError):
    """An optimiser was asked to move parameters that another one has taken over."""


class StateDictError(ClnnError, KeyError):
    """A state dict lacks names, has too many, or holds other shapes."""

    def __str__(self):
        return str(self.args[0])  # KeyError would print the message in quotes


class CheckpointError(ClnnError):
    """A file of weights or a checkpoint is damaged or belongs to something else."""


class NonFiniteLossError(ClnnError, ArithmeticError):
    """The loss became NaN or infinite, so training stopped."""


class BenchmarkError(ClnnError):
    """A contestant of a benchmark computes a wrong result, or a file of results cannot be read."""
