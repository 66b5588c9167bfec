"""Drawings with a pen: the picture of the strokes, and the pad."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clnn import lab
from clnn.errors import ClnnError
from clnn.lab.sketch import DIGITS, SIDE

points = st.tuples(*[st.floats(0, 1)] * 2)
drawings = st.lists(st.lists(points, min_size=1, max_size=6), min_size=1, max_size=3)


def ink_of(image) -> np.ndarray:
    return 1 - image / 255.0


def middle_of(ink) -> np.ndarray:
    """The centre of mass (x, y), in pixels from the upper left corner."""
    y, x = np.mgrid[0.5:SIDE, 0.5:SIDE]
    return np.array([(ink * x).sum(), (ink * y).sum()]) / ink.sum()


@given(strokes=drawings)
@settings(max_examples=40)
def test_a_drawing_lies_in_the_middle_and_fills_its_square(strokes):
    image = lab.sketch(strokes)
    assert image.shape == (SIDE, SIDE) and image.dtype == np.uint8
    ink = ink_of(image)
    assert ink.max() > 0.5
    reach = np.ptp(np.concatenate([np.array(stroke) for stroke in strokes]), axis=0).max()
    for rows in (ink.max(0), ink.max(1)):
        assert np.ptp(np.flatnonzero(rows)) <= 22  # 20 pixels and the soft edges
    if reach > 0.05:
        assert max(np.ptp(np.flatnonzero(ink.max(axis) > 0.5)) for axis in (0, 1)) >= 15
    away = abs(middle_of(ink) - SIDE / 2)
    edges = [max(ink.max(axis)[0], ink.max(axis)[-1]) for axis in (0, 1)]  # ink at the left or right, above or below
    assert all(off < 0.25 or edge > 0 for off, edge in zip(away, edges, strict=True))


@given(strokes=drawings, shift=points, size=st.floats(0.2, 5))
@settings(max_examples=40)
def test_place_and_size_on_the_pad_do_not_matter(strokes, shift, size):
    strokes = [[(0.0, 0.0), (1.0, 0.3)], *strokes]
    moved = [[(shift[0] + size * x, shift[1] + size * y) for x, y in stroke] for stroke in strokes]
    np.testing.assert_allclose(lab.sketch(moved), lab.sketch(strokes), atol=1)


def test_a_straight_line_is_as_wide_as_the_pen():
    """By the area: length times width and a round end on each side, as the soft edge takes as much as it gives."""
    for pen in (1.5, 2.2, 4.0):
        ink = ink_of(lab.sketch([[(0.5, 0), (0.5, 0.4)], [(0.5, 0.4), (0.5, 1)]], pen))
        assert ink.sum() == pytest.approx((20 - pen) * pen + np.pi * (pen / 2) ** 2, rel=0.05)
        assert ink.sum(1)[12] == pytest.approx(pen, rel=0.05)


def test_no_stroke_is_blank_paper_and_a_dot_a_dot():
    assert (lab.sketch([]) == 255).all()
    ink = ink_of(lab.sketch([[(0.9, 0.1)]]))
    assert 1 < ink.sum() < 9
    np.testing.assert_allclose(middle_of(ink), 14)


def test_every_digit_is_dark_on_bright_and_its_own():
    images = {digit: lab.sketch(strokes) for digit, strokes in DIGITS.items()}
    assert sorted(images) == list(range(10))
    for image in images.values():
        assert 0.05 < ink_of(image).mean() < 0.2
    flat = np.array([image.ravel() for image in images.values()], float)
    assert np.corrcoef(flat)[~np.eye(10, dtype=bool)].max() < 0.8


@pytest.mark.parametrize("stroke", [[], [(0.1,)], [(0, 1, 2)], 3, "ab", [(0, np.nan)], [(0, "x")], None, [[], [1]]])
def test_what_is_no_stroke(stroke):
    with pytest.raises(ClnnError, match=r"a stroke is a list of points \(x, y\), not "):
        lab.sketch([[(0, 0), (1, 1)], stroke])


def test_the_pad_is_a_widget_whose_value_is_the_drawing():
    pad = lab.Sketchpad(DIGITS[4]).widget()
    state = pad.get_state()
    drawing = json.loads(json.dumps(state["value"]))  # as the page gets it
    np.testing.assert_array_equal(lab.sketch(drawing), lab.sketch(DIGITS[4]))
    assert "export default" in state["_esm"]
