"""Digits drawn with a pen, by a program or on a pad in the page: the strokes, and the picture that they make.

A stroke is a list of points (x, y), a drawing a list of strokes; x and y run from 0 to 1, y downwards.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ClnnError

SIDE, BOX = 28, 20  # pixels: an image, and the longer side of the digit in it, both as in MNIST


def _arc(x: float, y: float, width: float, height: float, start: float, end: float, points: int = 24) -> list:
    """A part of an ellipse about (x, y), from one angle to another in degrees: 0 is right, 90 below, 180 left."""
    angles = np.radians(np.linspace(start, end, points))
    return list(zip((x + width / 2 * np.cos(angles)).tolist(), (y + height / 2 * np.sin(angles)).tolist()))


# One quick drawing of each; of a 0, a 5 and a 6, too, though the lecture's table has none.
DIGITS = {
    0: [_arc(0.5, 0.5, 0.5, 0.8, -70, 290)],
    1: [[(0.36, 0.27), (0.52, 0.1), (0.5, 0.9)]],
    2: [[*_arc(0.5, 0.31, 0.46, 0.42, 190, 390), (0.28, 0.88), (0.76, 0.86)]],
    3: [[*_arc(0.47, 0.29, 0.42, 0.38, 200, 440), *_arc(0.47, 0.68, 0.52, 0.42, 275, 515)]],
    4: [[(0.4, 0.1), (0.24, 0.56), (0.78, 0.53)], [(0.63, 0.28), (0.58, 0.92)]],
    5: [[(0.74, 0.1), (0.36, 0.12), (0.33, 0.46), *_arc(0.46, 0.66, 0.5, 0.46, 235, 500)]],
    6: [[(0.62, 0.08), *_arc(0.5, 0.66, 0.46, 0.46, 205, -160)]],
    7: [[(0.24, 0.14), (0.74, 0.12), (0.44, 0.9)], [(0.38, 0.5), (0.68, 0.48)]],
    8: [[*_arc(0.5, 0.3, 0.38, 0.38, 80, -260), *_arc(0.49, 0.7, 0.46, 0.42, -80, 270)]],
    9: [[*_arc(0.47, 0.32, 0.42, 0.42, 0, -360), (0.66, 0.55), (0.56, 0.92)]],
}


def sketch(strokes, pen: float = 2.2) -> np.ndarray:
    """A drawing as an image (28, 28) of whole numbers 0 to 255: dark ink on bright paper, ``pen`` pixels wide.

    The digit fills a square of 20 pixels, and its centre of mass lies in the middle, as MNIST's digits were made
    (LeCun et al. 1998), or as near to it as the paper's edge allows; without a stroke the paper is blank. Raises
    ClnnError if a stroke is no list of points.
    """
    lines = [_points(stroke) for stroke in strokes]
    if not lines:
        return np.full((SIDE, SIDE), 255, np.uint8)
    low, high = np.min([line.min(0) for line in lines], 0), np.max([line.max(0) for line in lines], 0)
    scale = (BOX - pen) / max(*(high - low), 0.05)  # a dot stays a dot
    middle = SIDE / 2 - (low + high) / 2 * scale
    ink = _ink(lines, scale, middle, pen)
    grid = np.arange(SIDE) + 0.5
    mass = np.array([ink.sum(0) @ grid, ink.sum(1) @ grid]) / ink.sum()
    shift = np.clip(SIDE / 2 - mass, (BOX - SIDE) / 2, (SIDE - BOX) / 2)  # no stroke leaves the paper
    ink = _ink(lines, scale, middle + shift, pen)
    return (255 * (1 - ink)).round().astype(np.uint8)


def _points(stroke) -> np.ndarray:
    """A stroke as an array (points, 2)."""
    try:
        points = np.asarray(stroke, float)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise ClnnError(f"a stroke is a list of points (x, y), not {str(stroke)[:60]}")
    return points


def _ink(lines: list, scale: float, shift, pen: float) -> np.ndarray:
    """How much ink each pixel has, 0 to 1: all within half a pen's width of a line, with an edge one pixel soft."""
    centres = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1) + 0.5
    nearest = np.full((SIDE, SIDE), np.inf)
    for line in lines:
        line = line * scale + shift
        for start, end in zip(line, [*line[1:], line[-1]]):
            along, away = end - start, centres - start
            part = np.clip(away @ along / max(along @ along, 1e-12), 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(away - part[..., None] * along, axis=-1))
    return np.clip((pen + 1) / 2 - nearest, 0, 1)


@dataclass(frozen=True)
class Sketchpad:
    """A control for ``lab.explore``: a pad to draw on, with ``strokes`` on it from the start."""

    strokes: list

    def widget(self):
        """The pad as a widget, whose ``value`` is the drawing."""
        return _pad_class()(value=self.strokes)


@functools.cache
def _pad_class():
    import anywidget  # late: it takes a while, and only a live page wants it
    import traitlets

    class Pad(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("sketch.js").read_text(encoding="utf-8")
        value = traitlets.List().tag(sync=True)

    return Pad
