"""What only the notebooks need: exercises that check themselves, widgets, pictures.

``lab.plots`` and ``lab.explore`` want matplotlib, which ``pip install clnn[course]`` brings.
"""

from .check import check
from .widgets import explore, quiz

__all__ = ["check", "explore", "quiz"]
