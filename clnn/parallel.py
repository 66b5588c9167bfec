"""One net on several devices: towers that run side by side and exchange activations between stages.

After Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012, whose
two towers lie on two GPUs. Here they lie on any devices, or on the parts of one (``Device.split``), between which
nothing waits for the host. Two parts have no more cores than the whole and are no faster; PoCL, moreover, runs the
kernels of each part on all cores.
"""

from collections.abc import Sequence

import numpy as np

from . import modules as nn
from . import ops
from .device import Device
from .errors import ShapeError, StateDictError


class Towers(nn.Module):
    """Stages of modules, in each of which every device runs a module of its own.

    Between two stages all towers exchange their results, joined along dimension 1 (maps or neurons), and so they do
    after the last; the result lies on the first device. ``stages[s][t]`` is tower t's module of stage s and becomes the
    attribute "stage{s}_tower{t}". A device may stand twice: then its towers take turns.

    Raises ShapeError where a stage has not one module for each device.
    """

    def __init__(self, stages: Sequence[Sequence[nn.Module]], devices: Sequence[Device]):
        self.devices, self.stages = list(devices), len(stages)
        for s, stage in enumerate(stages):
            if len(stage) != len(self.devices):
                raise ShapeError(
                    f"stage {s} has {len(stage)} modules for {len(self.devices)} devices: one each is needed"
                )
            for t, (module, device) in enumerate(zip(stage, self.devices)):
                setattr(self, f"stage{s}_tower{t}", module.to(device))

    def forward(self, x):
        inputs = [x.to(device) for device in self.devices]
        for s in range(self.stages):
            parts = [getattr(self, f"stage{s}_tower{t}")(inputs[t]) for t in range(len(inputs))]
            homes = self.devices if s < self.stages - 1 else self.devices[:1]
            inputs = [ops.cat([part.to(home) for part in parts], dim=1) for home in homes]
        return inputs[0]

    def load_whole(self, state_dict) -> None:
        """Take over the weights of the same net in one piece, whose grouped convolutions have a group a tower.

        Each parameter's rows go to the towers in turn. Raises StateDictError, before anything is written, where the
        parameters differ in number or size.
        """
        own, whole = list(self._shared_out()), list(state_dict.items())
        fits = len(own) == len(whole) and all(
            np.shape(v) == (sum(p.shape[0] for p in parts), *parts[0].shape[1:]) for parts, (_, v) in zip(own, whole)
        )
        if not fits:
            raise StateDictError(
                f"the state dict of {len(whole)} parameters is not that of this net of {len(own)} in one piece"
            )
        for parts, (_, values) in zip(own, whole):
            ends = np.cumsum([p.shape[0] for p in parts])
            for part, rows in zip(parts, np.split(np.asarray(values), ends[:-1])):
                part.copy_(rows)

    def whole_state_dict(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The weights in one piece under these names, one for each parameter in order (waits for the devices)."""
        return {name: np.concatenate([p.numpy() for p in parts]) for name, parts in zip(names, self._shared_out())}

    def _shared_out(self):
        """For each parameter of the net in one piece its parts, a tower each."""
        towers = range(len(self.devices))
        for s in range(self.stages):
            yield from zip(*[getattr(self, f"stage{s}_tower{t}").parameters() for t in towers])


def alexnet_towers(devices: Sequence[Device], classes: int = 1000) -> Towers:
    """AlexNet for images (N, 3, 227, 227), its maps and neurons shared out among the devices: two in the paper.

    Towers meet before the third convolution and before each fully connected layer, and nowhere else: response
    normalisation, too, stays within a tower, where ``models.alexnet`` looks over the border at two maps of the other.
    Two towers have 60,965,224 parameters. They start from PyTorch's first weights; ``load_whole`` takes over others,
    such as the paper's, with which ``models.alexnet`` starts. Raises ShapeError where the shares cannot be equal.
    """
    if not devices or 32 % len(devices) or classes % len(devices):  # 32 divides 96, 256, 384 and 4096
        raise ShapeError(
            f"AlexNet's maps and {classes} classes cannot be shared out evenly among {len(devices)} devices: expected "
            "a number that divides 32 and the number of classes, such as 2"
        )

    def tower(n: int) -> list[nn.Sequential]:
        def normalise_and_pool():
            return nn.ReLU(), nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0), nn.MaxPool2d(3, 2)

        return [
            nn.Sequential(
                nn.Conv2d(3, 96 // n, 11, stride=4),
                *normalise_and_pool(),
                nn.Conv2d(96 // n, 256 // n, 5, padding=2),
                *normalise_and_pool(),
            ),
            nn.Sequential(
                nn.Conv2d(256, 384 // n, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384 // n, 384 // n, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384 // n, 256 // n, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
                nn.Flatten(),
            ),
            nn.Sequential(nn.Linear(256 * 6 * 6, 4096 // n), nn.ReLU(), nn.Dropout(0.5)),
            nn.Sequential(nn.Linear(4096, 4096 // n), nn.ReLU(), nn.Dropout(0.5)),
            nn.Sequential(nn.Linear(4096, classes // n)),
        ]

    return Towers(list(zip(*[tower(len(devices)) for _ in devices])), devices)
