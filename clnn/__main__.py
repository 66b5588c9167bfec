"""The command ``clnn``, also ``python -m clnn``: ``doctor``, ``train``, ``bench`` and ``tune``."""

import argparse
import sys

from . import __version__, bench, doctor, train, tune
from .errors import ClnnError


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return the exit status: 1 and one line on stderr for an error that clnn knows."""
    parser = argparse.ArgumentParser(prog="clnn", description="Deep learning on any OpenCL device.")
    parser.add_argument("--version", action="version", version=f"clnn {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    doctor.add_parser(subparsers)
    train.add_parser(subparsers)
    bench.add_parser(subparsers)
    tune.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return args.func(args) or 0
    except ClnnError as error:
        print(f"clnn: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
