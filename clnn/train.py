"""``clnn train``: train a net of the literature on a known data set and tell how well it does."""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

from . import data
from .checkpoint import save
from .data import DataLoader
from .device import device, use_device
from .files import write_whole
from .modules import Module, uniform
from .optim import SGD, MultiStepLR
from .recipes import RECIPES
from .tensor import manual_seed
from .trainer import Trainer

TEST_BATCH = 500
DATA = {"mnist": data.mnist, "fashion_mnist": data.fashion_mnist, "cifar10": data.cifar10}
RECIPE = ("data", "epochs", "batch_size", "lr", "momentum", "weight_decay")  # what a recipe says, if the user does not


def add_parser(subparsers) -> None:
    """Add the subcommand ``train``."""
    parser = subparsers.add_parser(
        "train",
        help="train a net",
        description="Train a net with SGD and test it. Each net has its published settings; options change them.",
        epilog=_recipes_as_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("net", choices=RECIPES, help="the net")
    parser.add_argument("--data", choices=DATA, help="the data set")
    parser.add_argument("--epochs", type=_positive, help="times through the training set")
    parser.add_argument("--batch-size", type=_positive, help="images a step")
    parser.add_argument("--lr", type=_not_negative, help="learning rate")
    parser.add_argument("--momentum", type=_not_negative, help="share of the last step that goes on")
    parser.add_argument("--weight-decay", type=_not_negative, help="pull of the weights towards 0")
    parser.add_argument("--milestones", type=_positive, nargs="*", metavar="EPOCH",
                        help="epochs after which the learning rate falls to a tenth")  # fmt: skip
    parser.add_argument("--max-grad-norm", type=_positive_number, metavar="LENGTH",
                        help="shorten longer gradients to this length, all of them seen as one vector")  # fmt: skip
    parser.add_argument("--init", choices=("default", "uniform0.01"), default="default",
                        help="first weights: PyTorch's, or uniform in +-0.01 with biases 0, MXNet's")  # fmt: skip
    parser.add_argument("--seed", type=_seed, default=0, help="of all random numbers (0 where nothing is said)")
    parser.add_argument("--device", help="part of a device's name, or its index (default: the best one)")
    parser.add_argument("--checkpoint", type=_file, metavar="FILE", help="write the run's state here, resume from it")
    parser.add_argument("--checkpoint-every", type=_positive, metavar="STEPS", help="write it within an epoch, too")
    parser.add_argument("--save", type=_file, metavar="FILE", help="write the weights here at the end (safetensors)")
    parser.add_argument("--history", type=_file, metavar="FILE", help="write the report here at the end (JSON)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the report")
    parser.set_defaults(func=run, error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Carry out ``clnn train``; the exit status: 0, or 130 after Ctrl-C."""
    try:
        report = _train(args)
    except KeyboardInterrupt:
        there = args.checkpoint and args.checkpoint.exists()
        advice = f"the same command goes on from {args.checkpoint}" if there else "no checkpoint was written"
        print(f"\nclnn train: interrupted; {advice}", file=sys.stderr)
        return 130
    text = json.dumps({**report, "history": report["history"].to_dicts()})
    if args.history:
        write_whole(args.history, (text + "\n").encode())
    print(text if args.json else _as_text(report, args.save))
    return 0


def _train(args: argparse.Namespace) -> dict:
    """Load, build, train; what is to be reported."""
    if args.checkpoint_every and not args.checkpoint:
        args.error("--checkpoint-every needs --checkpoint FILE")
    began, recipe = time.perf_counter(), RECIPES[args.net]
    for key in RECIPE:
        if getattr(args, key) is None:
            setattr(args, key, getattr(recipe, key))
    milestones = recipe.milestones if args.milestones is None else args.milestones
    chosen = device() if args.device is None else use_device(args.device).device
    train, test = _load(args.data)
    manual_seed(args.seed)
    net = recipe.net()
    if args.init == "uniform0.01":
        init_uniform(net)
    groups = recipe.groups(net, args.lr, args.weight_decay)
    optimizer = SGD(groups, args.lr, args.momentum, weight_decay=args.weight_decay)
    changed, unchanged = recipe.transforms(train)
    scheduler = MultiStepLR(optimizer, milestones) if milestones else None
    history = Trainer(net, optimizer, scheduler=scheduler, max_grad_norm=args.max_grad_norm).fit(
        DataLoader(train, args.batch_size, shuffle=True, seed=args.seed, transform=changed),
        args.epochs,
        DataLoader(test, TEST_BATCH, transform=unchanged),
        checkpoint=args.checkpoint,
        checkpoint_every=args.checkpoint_every,
    )
    if args.save:
        save(net.state_dict(), args.save)
    seconds = sum(record.seconds for record in history)
    return {
        "net": args.net,
        "test_accuracy": history[-1].val_accuracy,
        "test_loss": history[-1].val_loss,
        "images_per_second": len(history) * len(train) / seconds,
        "seconds": seconds,
        "total_seconds": time.perf_counter() - began,
        "device": chosen.name,
        "platform": chosen.platform,
        "data": {"name": train.name, "source": train.source, "train": len(train), "test": len(test)},
        "parameters": sum(p.size for p in net.parameters()),
        "epochs": len(history),
        "seed": args.seed,
        "settings": {
            **{key: getattr(args, key) for key in ("batch_size", "lr", "momentum", "weight_decay", "init")},
            "milestones": list(milestones),
            "max_grad_norm": args.max_grad_norm,
        },
        "history": history,
    }


def init_uniform(model: Module, scale: float = 0.01) -> None:
    """Weights uniform in -scale .. scale and biases 0: the first weights of MXNet's tutorials."""
    for name, parameter in model.named_parameters():
        parameter.copy_(0 if name.endswith("bias") else uniform(parameter.shape, scale))


def _load(name: str):
    """A data set; what clnn has to note about it goes to stderr in plain words."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        sets = DATA[name]()
    for note in notes:
        print(f"clnn train: {note.message}", file=sys.stderr)
    return sets


def _as_text(report: dict, saved: Path | None) -> str:
    sets, history = report["data"], report["history"]
    lines = [
        f"{report['net']}, {report['parameters']:,} parameters, on {report['device']} ({report['platform']})",
        f"{sets['name']} from {sets['source']}: {sets['train']:,} training and {sets['test']:,} test images",
        "",
        repr(history),  # whose validation is the test
        "",
        f"test accuracy {report['test_accuracy']:.2%} after {len(history)} epoch{'s'[: len(history) > 1]}; training "
        f"took {report['seconds']:.1f} s, {report['images_per_second']:,.0f} images a second",
    ]
    return "\n".join([*lines, f"weights in {saved}"] if saved else lines)


def _recipes_as_text() -> str:
    head = ("net", "data", "epochs", "batch size", "lr", "momentum", "weight decay", "milestones")
    keys = (*RECIPE, "milestones")
    rows = [head, *((name, *(_words(getattr(r, key)) for key in keys)) for name, r in RECIPES.items())]
    wide = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(word.ljust(w) for word, w in zip(row, wide)).rstrip() for row in rows]
    return "\n".join([*lines, "", "The first run of a kernel on a device compiles it; that counts as training time."])


def _words(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _positive(text: str) -> int:
    return _number(text, int, 1)


def _seed(text: str) -> int:
    return _number(text, int, 0)


def _not_negative(text: str) -> float:
    return _number(text, float, 0)


def _positive_number(text: str) -> float:
    value = _number(text, float, 0)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is no length: expected a number above it")
    return value


def _number(text: str, kind: type, least: int):
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} of at least {least}")
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file in a folder that is there")
    return path
