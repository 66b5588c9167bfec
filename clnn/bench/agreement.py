"""``python -m clnn.bench.agreement``: AlexNet in clnn and in PyTorch from the same weights, number by number.

Two programs round differently, and where a ReLU's input is almost 0, or the two largest numbers of a pooling window
almost equal, rounding decides where the gradient goes. A handful of such flips among three million selections moves
the first layer's gradient by a percent, in PyTorch's float32 against its own float64, too. So gradients are compared as
they come, and again with PyTorch's in float64 that selects what clnn had selected: what then remains is arithmetic.
"""

import argparse
import sys

import numpy as np

from .. import models
from .. import modules as nn
from ..device import device
from ..optim import SGD
from ..tensor import manual_seed, tape_behind, tensor
from .peers import SETTINGS, Torch

LIMIT = 1e-3
CHECKED = ("logits", "same: gradients", "same: step")
INITS = {
    "paper": "weights of deviation 0.01, many biases 1: in the last stages all numbers of a map are nearly equal",
    "he": "after He et al., 2015: signals keep their spread from layer to layer, so that near ties are rare",
}


def alexnet(init: str, seed: int) -> nn.Sequential:
    """AlexNet without dropout, with one of the INITS."""
    manual_seed(seed)
    net = models.alexnet().eval()
    if init == "he":
        for layer in net:
            if hasattr(layer, "weight"):
                models.gaussian(layer)
    return net


def compare(init: str, seed: int, batch: int = 4) -> dict[str, float]:
    """How far clnn on the device in use and PyTorch are apart, as norm of the difference over norm, worst tensor first.

    "logits", "gradients", "step" (the parameters after one of SGD with momentum and weight decay) and "flips" (the
    number of selections that differ) compare with PyTorch in float32; "torch: ..." PyTorch's float32 with its float64;
    "same: ..." clnn with PyTorch in float64 when it selects as clnn did.
    Raises ImportError where there is no PyTorch.
    """
    peer, net, rng = Torch(device()), alexnet(init, seed), np.random.default_rng(seed)
    state = net.state_dict()
    x, y = rng.standard_normal((batch, 3, 227, 227), np.float32), rng.integers(0, 1000, batch)
    own, chosen = _clnn_step(net, x, y)
    single, single_chosen = _torch_step(peer, net, state, peer.torch.float32, x, y)
    double, double_chosen = _torch_step(peer, net, state, peer.torch.float64, x, y)
    forced, _ = _torch_step(peer, net, state, peer.torch.float64, x, y, chosen)
    return {
        "logits": _apart(own, single, "logits"),
        "gradients": _apart(own, single, "gradient"),
        "step": _apart(own, single, "parameter"),
        "flips": _flips(chosen, single_chosen),
        "torch: gradients": _apart(single, double, "gradient"),
        "torch: flips": _flips(single_chosen, double_chosen),
        "same: gradients": _apart(own, forced, "gradient"),
        "same: step": _apart(own, forced, "parameter"),
    }


def _clnn_step(net, x, y) -> tuple[dict, list[np.ndarray]]:
    """Logits, gradients and parameters after a step, and what each ReLU and each pooling selected."""
    optimizer = SGD(net.parameters(), **SETTINGS)
    logits = net(tensor(x))
    chosen = []
    for t in tape_behind(logits):
        if hasattr(t.node, "winner"):
            chosen.append(t.node.winner.get())
        elif "relu" in (getattr(t.node, "activation", None), getattr(t.node, "name", None)):
            chosen.append(t.numpy() > 0)
    nn.CrossEntropyLoss()(logits, tensor(y)).backward()
    optimizer.step()
    return _results(logits, net, lambda t: t.numpy()), chosen


def _torch_step(peer: Torch, net, state, dtype, x, y, given=None) -> tuple[dict, list[np.ndarray]]:
    """The same in PyTorch; ``given`` makes its ReLUs and poolings select what they are told to."""
    torch, chosen, given = peer.torch, [], iter(given or ())

    class Relu(torch.nn.Module):
        def forward(self, x):
            mask = next(given, None)
            mask = x > 0 if mask is None else torch.tensor(mask, device=x.device)
            chosen.append(mask.cpu().numpy())
            return x * mask

    class MaxPool(torch.nn.Module):
        def forward(self, x):
            at = next(given, None)
            if at is None:
                at = torch.nn.functional.max_pool2d(x, 3, 2, return_indices=True)[1]
            at = torch.as_tensor(at, dtype=torch.int64, device=x.device)
            chosen.append(at.cpu().numpy())
            return x.flatten(2).gather(2, at.flatten(2)).reshape(at.shape)

    own = {nn.ReLU: Relu, nn.MaxPool2d: MaxPool}
    same = torch.nn.Sequential(*[own[type(m)]() if type(m) in own else peer.like(m) for m in net]).eval()
    same.load_state_dict({name: torch.tensor(values) for name, values in state.items()})
    same.to(peer.on, dtype)
    optimizer = torch.optim.SGD(same.parameters(), **SETTINGS)
    logits = same(torch.tensor(x, dtype=dtype, device=peer.on))
    torch.nn.functional.cross_entropy(logits, torch.tensor(y, device=peer.on)).backward()
    optimizer.step()
    return _results(logits, same, lambda t: t.detach().cpu().numpy()), chosen


def _results(logits, net, array) -> dict[str, np.ndarray]:
    named = list(net.named_parameters())
    gradients = {f"gradient of {name}": array(p.grad) for name, p in named}
    return {"logits": array(logits), **gradients, **{f"parameter {name}": array(p) for name, p in named}}


def _apart(got: dict, want: dict, kind: str) -> float:
    """The largest norm of a difference over the norm, among the tensors of one kind."""
    pairs = [(got[name].astype(np.float64), want[name].astype(np.float64)) for name in want if name.startswith(kind)]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def _flips(one: list[np.ndarray], other: list[np.ndarray]) -> int:
    return sum(int((a != b).sum()) for a, b in zip(one, other, strict=True))


def main() -> int:
    """Print a line for each seed of each first weights; 1 where clnn and PyTorch do not agree."""
    parser = argparse.ArgumentParser(prog="python -m clnn.bench.agreement", description=__doc__.partition(": ")[2])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and images (default: 0 1 2)"
    )
    parser.add_argument("--batch", type=int, default=4, help="images (default: 4)")
    args = parser.parse_args()
    try:
        agree = _tell(args.seeds, args.batch)
    except ImportError as error:
        parser.error(f"{error}: `make bench` installs PyTorch in .venv-bench, whose python runs this")
    return 0 if agree else 1


def _tell(seeds: list[int], batch: int) -> bool:
    print(f"AlexNet, batch {batch}, on {device().name}. Norm of the difference over the norm, of the worst tensor.")
    for init, about in INITS.items():
        print(f"{init}: {about}")
    agree, first = True, True
    for init in INITS:
        for seed in seeds:
            found = compare(init, seed, batch)
            if first:
                print("init, seed", *found, sep="  ")
            first = False
            cells = [f"{v:.1e}" if isinstance(v, float) else f"{v}" for v in found.values()]
            print(f"{init}, {seed}".ljust(10), *[c.rjust(len(n)) for c, n in zip(cells, found)], sep="  ", flush=True)
            agree = agree and all(found[name] <= LIMIT for name in CHECKED)
    print(f"{', '.join(CHECKED)} within {LIMIT:g}: {'yes' if agree else 'NO'}")
    return agree


if __name__ == "__main__":
    sys.exit(main())
