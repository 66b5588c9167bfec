"""Layers and losses, with PyTorch's names, arguments, defaults, initialisation and parameter names."""

import numpy as np

from . import ops
from .errors import DTypeError, ShapeError, StateDictError
from .ops.conv import geometry, pair
from .tensor import Tensor, generator, ones, tensor, zeros


class Parameter(Tensor):
    """A tensor that a module learns: found by ``parameters()`` and moved by the optimiser.

    Raises DTypeError for integers and booleans, which have no gradients.
    """

    __slots__ = ()

    def __init__(self, values, device=None):
        made = tensor(values, device=device)
        super().__init__(made.array, made.device)
        self.requires_grad_()


def uniform(shape, bound: float) -> np.ndarray:
    """Random numbers in -bound .. bound from the generator of ``clnn.manual_seed``."""
    return generator().uniform(-bound, bound, shape).astype(np.float32)


class Module:
    """Something that computes tensors from tensors and may have parameters and other modules inside.

    A subclass sets them as attributes in ``__init__`` and defines ``forward``; calling the module runs it.
    """

    training = True

    def __call__(self, *inputs, **options):
        result = self.forward(*inputs, **options)
        for hook in tuple(self.__dict__.get("_hooks", ())):  # a hook may remove itself
            changed = hook(self, inputs, result)
            result = result if changed is None else changed
        return result

    def __setattr__(self, name: str, value):
        if type(value) is Tensor and isinstance(self.__dict__.get(name), Parameter):
            raise DTypeError(
                f"{type(self).__name__}.{name} is a Parameter: with a plain Tensor in its place the module would learn "
                f"no more. Change its numbers by {name}.copy_(...), or set a Parameter"
            )
        super().__setattr__(name, value)

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def register_forward_hook(self, hook) -> "HookHandle":
        """Call ``hook(module, inputs, result)`` after each forward, until the returned handle's ``remove()``. What it
        returns, unless None, takes the place of the result."""
        self.__dict__.setdefault("_hooks", []).append(hook)
        return HookHandle(self, hook)

    def named_children(self):
        """(name, module) of the modules directly inside."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True):
        """(name, module) of this module, named "", and of all inside, at any depth; as in PyTorch a module that
        stands in several places comes once, unless ``remove_duplicate`` is False."""
        memo = set() if memo is None else memo
        if remove_duplicate and id(self) in memo:
            return
        memo.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self):
        """This module and all inside, at any depth."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, remove_duplicate: bool = True):
        """(name, parameter) at any depth: names as in PyTorch, such as "0.weight"; a shared parameter comes once,
        unless ``remove_duplicate`` is False."""
        return self._named_tensors(_is_parameter, remove_duplicate)

    def _named_tensors(self, wanted, remove_duplicate: bool = True):
        seen = set()
        for prefix, module in self.named_modules(remove_duplicate=remove_duplicate):
            for name, value in vars(module).items():
                if wanted(module, name, value) and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def parameters(self):
        """The parameters at any depth."""
        return (parameter for _, parameter in self.named_parameters())

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Set an attribute to a tensor that is no parameter but moves with the module, such as a running mean; if
        ``persistent`` it stands in the state dict, too."""
        self.__dict__.setdefault("_buffers", {})[name] = persistent
        setattr(self, name, tensor)

    def named_buffers(self, remove_duplicate: bool = True):
        """(name, buffer) at any depth, as ``named_parameters``."""
        return self._named_tensors(_is_buffer, remove_duplicate)

    def buffers(self):
        """The buffers at any depth."""
        return (buffer for _, buffer in self.named_buffers())

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> "Module":
        """Set training mode (dropout drops) here and in all modules inside."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Set evaluation mode (dropout does nothing)."""
        return self.train(False)

    def to(self, device) -> "Module":
        """Move the parameters, without their gradients, and the buffers to another device; an optimiser must be made
        after that."""
        for t in (*self.parameters(), *self.buffers()):
            moved = t.detach().to(device)
            if moved.device is not t.device:
                t.array, t.device = moved.array, moved.device
                t.grad = t._grad_slot = None
        return self

    def _named_state(self) -> dict[str, Tensor]:
        """What a state dict holds, a shared tensor under each of its names."""
        return dict(self._named_tensors(_is_saved, remove_duplicate=False))

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters and persistent buffers by name, a shared one under each of its names, as NumPy arrays (waits
        for the device)."""
        return {name: t.numpy() for name, t in self._named_state().items()}

    def load_state_dict(self, state_dict, strict: bool = True) -> None:
        """Overwrite parameters and buffers by arrays of the same names and shapes, such as a PyTorch state dict's.

        Raises StateDictError, before anything is written, if names are missing or too many (unless ``strict`` is
        False), a shape differs or an array holds no numbers.
        """
        own = self._named_state()
        given = {name: np.asarray(values) for name, values in state_dict.items()}
        faults = []
        if strict and (missing := own.keys() - given.keys()):
            faults.append(f"missing: {', '.join(sorted(missing))}")
        if strict and (extra := given.keys() - own.keys()):
            faults.append(f"not in this model: {', '.join(sorted(extra))}")
        both = [name for name in own if name in given]
        faults += [
            f"{name} has shape {given[name].shape}, the model's {own[name].shape}"
            for name in both
            if given[name].shape != own[name].shape
        ]
        faults += [f"{name} holds {given[name].dtype}" for name in both if given[name].dtype.kind not in "fiub"]
        if faults:
            raise StateDictError("the state dict does not fit the model: " + "; ".join(faults))
        for name in both:
            own[name].copy_(given[name])

    def extra_repr(self) -> str:
        """What stands in the brackets when the module is printed."""
        return ""

    def multiply_adds(self, input_shape, output_shape) -> int:
        """Products summed by one forward pass, not counting the modules inside."""
        return 0

    def __repr__(self):
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        inside = "\n  ".join(children)
        return f"{type(self).__name__}({self.extra_repr()}" + (f"\n  {inside}\n)" if children else ")")


def _is_parameter(module: Module, name: str, value) -> bool:
    return isinstance(value, Parameter)


def _is_buffer(module: Module, name: str, value) -> bool:
    return name in module.__dict__.get("_buffers", ()) and value is not None


def _is_saved(module: Module, name: str, value) -> bool:
    return _is_parameter(module, name, value) or (_is_buffer(module, name, value) and module._buffers[name])


class HookHandle:
    """Takes a forward hook out again."""

    def __init__(self, module, hook):
        self._module, self._hook = module, hook

    def remove(self) -> None:
        """Stop calling the hook."""
        if self._hook in self._module._hooks:
            self._module._hooks.remove(self._hook)


class Sequential(Module):
    """Modules one after another, named "0", "1", ...

    A ``Linear`` or ``Conv2d`` and the ReLU, Tanh or Sigmoid behind it are computed in one launch, and on a CPU so is
    a convolution with max pooling and an activation behind it, in either order. Modules with hooks are left as they
    stand. Raises DTypeError for what is no module.
    """

    def __init__(self, *modules: Module):
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                is_class = isinstance(module, type)
                what = f"the class {module.__name__}" if is_class else type(module).__name__
                cure = f"make one, {module.__name__}(...)" if is_class else "give them one by one, Sequential(*layers)"
                raise DTypeError(f"{type(self).__name__} consists of modules, number {i} is {what}: {cure}")
            setattr(self, str(i), module)

    def forward(self, x):
        modules, i = list(self), 0
        while i < len(modules):
            layer, (count, activation, pool) = modules[i], _fusion(modules[i : i + 3])
            if count == 1:
                x = layer(x)
            elif pool is None:
                x = layer.forward(x, activation)
            else:
                x = layer.forward_pooled(x, pool, activation)
            i += count
        return x

    def __iter__(self):
        return (value for value in vars(self).values() if isinstance(value, Module))

    def __len__(self):
        return sum(1 for _ in self)

    def __getitem__(self, i):
        chosen = list(self)[i]
        return type(self)(*chosen) if isinstance(i, slice) else chosen


def _fusion(modules: list) -> tuple[int, str | None, int | None]:
    """How many of these modules the first can compute in one launch, the activation among them and the pooling's size.
    Types, not isinstance: a subclass may compute something else."""
    layer, *behind = modules
    count, activation, pool = 1, None, None
    if type(layer) in (Linear, Conv2d) and not layer.__dict__.get("_hooks"):
        for module in behind:
            if activation is None and type(module) in ACTIVATIONS and not module.__dict__.get("_hooks"):
                activation = ACTIVATIONS[type(module)]
            elif pool is None and _poolable(layer, module):
                pool = module.kernel_size
            else:
                break
            count += 1
    return count, activation, pool


def _poolable(layer, pool) -> bool:
    """Whether these are a convolution and max pooling of windows side by side."""
    if type(layer) is not Conv2d or type(pool) is not MaxPool2d or pool.__dict__.get("_hooks"):
        return False
    plain = type(pool.kernel_size) is int and pool.stride == pool.kernel_size > 1 and not pool.ceil_mode
    return plain and pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1))


class Branches(Sequential):
    """Modules side by side: each is given the same input, and their results are joined along dimension 1, the channels
    of images. Named "0", "1", ..."""

    def forward(self, x):
        return ops.cat([branch(x) for branch in self], dim=1)


class Linear(Module):
    """y = x W^T + b for x (..., in_features); weight (out_features, in_features), bias (out_features,).

    Both start uniform in +-1 / sqrt(in_features), as in PyTorch (after LeCun et al., "Efficient BackProp", 1998).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        if in_features < 1 or out_features < 1:
            raise ShapeError(f"Linear needs at least one feature in and one out, got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        bound = in_features**-0.5
        self.weight = Parameter(uniform((out_features, in_features), bound))
        self.bias = Parameter(uniform((out_features,), bound)) if bias else None

    def forward(self, x, activation: str | None = None):
        return ops.linear(x, self.weight, self.bias, activation)

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def multiply_adds(self, input_shape, output_shape):
        return int(np.prod(output_shape)) * self.in_features


class Conv2d(Module):
    """Convolution of images (N, C, H, W) with ``out_channels`` filters; see ``clnn.ops.conv2d`` for the shapes.

    Weight (out_channels, in_channels / groups, KH, KW) and bias start uniform in +-1 / sqrt(in_channels / groups
    * KH * KW), as in PyTorch.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True,
    ):  # fmt: skip
        if in_channels < 1 or out_channels < 1:
            raise ShapeError(f"Conv2d needs at least one channel in and one out, got {in_channels} and {out_channels}")
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(f"{in_channels} to {out_channels} channels do not divide into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = pair(kernel_size, "kernel_size"), pair(stride, "stride")
        self.padding, self.dilation = pair(padding, "padding"), pair(dilation, "dilation")
        if min(self.kernel_size) < 1:
            raise ShapeError(f"Conv2d needs a window of at least 1 x 1, got kernel_size={kernel_size}")
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = int(np.prod(shape[1:])) ** -0.5
        self.weight = Parameter(uniform(shape, bound))
        self.bias = Parameter(uniform(shape[:1], bound)) if bias else None

    def forward(self, x, activation: str | None = None):
        settings = self.stride, self.padding, self.dilation, self.groups
        return ops.conv2d(x, self.weight, self.bias, *settings, activation)

    def forward_pooled(self, x, kernel_size: int, activation: str | None = None):
        """The result after the activation and max pooling by ``kernel_size``."""
        settings = self.stride, self.padding, self.dilation, self.groups
        return ops.conv2d_max_pool2d(x, self.weight, self.bias, *settings, kernel_size, activation)

    def extra_repr(self):
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1)):
            text += f", {name}={getattr(self, name)}" if getattr(self, name) != usual else ""
        return text + ("" if self.bias is not None else ", bias=False")

    def multiply_adds(self, input_shape, output_shape):
        return int(np.prod(output_shape)) * int(np.prod(self.weight.shape[1:]))


class LocallyConnected2d(Module):
    """A convolution of images (N, C, H, W) of one ``input_size``, with filters of their own at each position.

    Weight (OH, OW, out_channels, in_channels, KH, KW) and bias (out_channels, OH, OW) start as those of ``Conv2d``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, input_size, kernel_size, stride=1, padding=0, bias: bool = True
    ):
        self.in_channels, self.out_channels = in_channels, out_channels
        self.input_size, self.kernel_size = pair(input_size, "input_size"), pair(kernel_size, "kernel_size")
        self.stride, self.padding = pair(stride, "stride"), pair(padding, "padding")
        filters = (out_channels, in_channels, *self.kernel_size)
        geo = geometry((1, in_channels, *self.input_size), filters, self.stride, self.padding)
        bound = int(np.prod(filters[1:])) ** -0.5
        self.weight = Parameter(uniform((geo.OH, geo.OW, *filters), bound))
        self.bias = Parameter(uniform((out_channels, geo.OH, geo.OW), bound)) if bias else None

    def forward(self, x):
        return ops.locally_connected2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self):
        text = f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}" + (f", padding={self.padding}" if self.padding != (0, 0) else "")
        return text + ("" if self.bias is not None else ", bias=False")

    def multiply_adds(self, input_shape, output_shape):
        return int(np.prod(output_shape)) * int(np.prod(self.weight.shape[3:]))


class MaxPool2d(Module):
    """The largest element of each window; ``stride`` is ``kernel_size`` unless given."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False):
        self.kernel_size, self.stride = kernel_size, stride if stride is not None else kernel_size
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x):
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of each window; ``stride`` is ``kernel_size`` unless given."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True):
        self.kernel_size, self.stride = kernel_size, stride if stride is not None else kernel_size
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def forward(self, x):
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """The mean of each of ``output_size`` windows that cover images of any size (an int or a pair)."""

    def __init__(self, output_size):
        self.output_size = output_size

    def forward(self, x):
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class BatchNorm2d(Module):
    """Each channel of images (N, C, H, W) shifted and stretched to mean 0 and variance 1, then by weight and bias; see
    ``clnn.ops.batch_norm``.

    Buffers: running_mean, running_var, which stand in for the batch's in evaluation mode, and num_batches_tracked.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ):  # fmt: skip
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.register_buffer("running_mean", zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=np.int32) if track_running_stats else None)

    def forward(self, x):
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ShapeError(f"BatchNorm2d needs images as (N, {self.num_features}, H, W), got shape {x.shape}")
        training = self.training or not self.track_running_stats
        running = self.running_mean, self.running_var
        return ops.batch_norm(
            x, *running, self.weight, self.bias, training, self.momentum, self.eps, self.num_batches_tracked
        )

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class LocalResponseNorm(Module):
    """Each element divided by (k + alpha / size * sum of squares)^beta over ``size`` neighbouring channels."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self):
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class LocalResponseNorm2d(LocalResponseNorm):
    """Each element divided by (k + alpha / size^2 * sum of squares)^beta over ``size`` x ``size`` neighbours in the
    same map: the "rnorm" of cuda-convnet."""

    def forward(self, x):
        return ops.local_response_norm2d(x, self.size, self.alpha, self.beta, self.k)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return ops.relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x):
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x):
        return ops.sigmoid(x)


ACTIVATIONS = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid"}  # those that a layer can apply to its result


class Softmax(Module):
    """e^x divided by its sum along ``dim``."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x):
        return ops.softmax(x, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class Flatten(Module):
    """All dimensions from ``start_dim`` to ``end_dim`` joined into one; the first, the batch, stays."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Dropout(Module):
    """While training, each element becomes 0 with probability p and the rest grow by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"the probability p must lie in 0 .. 1, got {p}")
        self.p = p

    def forward(self, x):
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class MeanOfViews(Module):
    """Classifies from several views of each record, (N, views, ...): the mean of a net's probabilities.

    Gives the logarithms of those means (N, classes), which serve as logits. For ``clnn.data.TenCrop``.
    """

    def __init__(self, net: Module):
        self.net = net

    def forward(self, x):
        logits = self.net(x.reshape(-1, *x.shape[2:]))
        return ops.softmax(logits).reshape(*x.shape[:2], -1).mean(1).log()


class Loss(Module):
    """A loss of (input, target), reduced by "mean", "sum" or "none"."""

    function = None

    def __init__(self, reduction: str = "mean"):
        self.reduction = reduction

    def forward(self, input, target):
        return type(self).function(input, target, self.reduction)


class CrossEntropyLoss(Loss):
    """-log softmax(input)[target] for logits (N, C) and integer labels (N,)."""

    function = staticmethod(ops.cross_entropy)


class MSELoss(Loss):
    """(input - target)^2."""

    function = staticmethod(ops.mse_loss)


class L1Loss(Loss):
    """|input - target|."""

    function = staticmethod(ops.l1_loss)


class BCELoss(Loss):
    """-t log p - (1 - t) log(1 - p) for probabilities p and targets t in 0 .. 1."""

    function = staticmethod(ops.binary_cross_entropy)


class BCEWithLogitsLoss(Loss):
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)) for logits x and targets t in 0 .. 1."""

    function = staticmethod(ops.binary_cross_entropy_with_logits)


class MultiMarginLoss(Loss):
    """The hinge loss of scores (N, C) and integer labels (N,), divided by C; see ``clnn.ops.multi_margin_loss``."""

    def __init__(self, p: int = 1, margin: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction)
        self.p, self.margin = p, margin

    def forward(self, input, target):
        return ops.multi_margin_loss(input, target, self.p, self.margin, reduction=self.reduction)

    def extra_repr(self):
        return f"p={self.p}, margin={self.margin}"


class HingeLoss(Loss):
    """max(0, margin - t x) for scores x and targets t of -1 or +1; for scores (N, C) and integer labels (N,) its sum
    over the wrong classes. See ``clnn.ops.hinge_loss``; PyTorch's HingeEmbeddingLoss is another thing."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input, target):
        return ops.hinge_loss(input, target, self.margin, self.reduction)

    def extra_repr(self):
        return f"margin={self.margin}"
