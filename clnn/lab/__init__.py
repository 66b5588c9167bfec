"""What only the notebooks need: exercises that check themselves, kernels written in a cell, widgets, pictures.

``lab.plots`` and ``lab.explore`` want matplotlib, which ``pip install clnn[course]`` brings; ``%load_ext clnn.lab``
brings the cell magic ``%%kernel``.
"""

from .check import check
from .install import install, restore
from .show import show
from .simulator import race
from .sketch import Sketchpad, sketch
from .widgets import explore, quiz

__all__ = ["Sketchpad", "check", "explore", "install", "quiz", "race", "restore", "show", "sketch"]


def load_ipython_extension(shell) -> None:
    """Bring the cell magic ``%%kernel``: ``%load_ext clnn.lab``."""
    from .magic import load_ipython_extension

    load_ipython_extension(shell)
