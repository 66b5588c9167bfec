"""Pictures with sliders, and questions that answer back. Where nobody can move a slider, a picture stands alone."""

import base64
import functools
import html
import inspect
import io
import math
import time

import numpy as np

from ..errors import ClnnError
from .sketch import Sketchpad

_QUICK = 0.15  # seconds: a picture drawn within this follows the slider while it moves


def explore(draw, start: dict | None = None, **controls) -> "Explorer":
    """``draw(**values)``, which returns a matplotlib figure, with a slider, a menu or a pad for each of its arguments.

    A control is a range (low, high) or (low, high, step), of whole numbers or of floats, a list of choices, or a
    ``lab.Sketchpad``, whose value is the drawing. ``start`` gives values to begin with; the others begin with the
    first. Where no page is open (in a saved notebook, as HTML, in a test) the picture of these values stands alone.
    Raises ClnnError for a bad control or start.
    """
    return Explorer(draw, start or {}, controls)


class Explorer:
    """What ``explore`` returns. Attributes: ``values`` (by name, at the moment), ``png`` (the picture, bytes)."""

    def __init__(self, draw, start: dict, controls: dict):
        self.draw = draw
        self.controls = controls
        self.values = {name: _first(name, control) for name, control in controls.items()} | start
        _check_controls(draw, start, controls)
        began = time.perf_counter()
        self.png = _png(draw, self.values)
        self._quick = time.perf_counter() - began < _QUICK

    def __repr__(self):
        said = self.values | {
            name: f"{len(self.values[name])} strokes" for name, c in self.controls.items() if isinstance(c, Sketchpad)
        }
        return "explore: " + ", ".join(f"{name} = {value}" for name, value in said.items())

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"image/png": base64.b64encode(self.png).decode(), "text/plain": repr(self)}
        if _page_is_open():
            bundle |= self.widget._repr_mimebundle_() | {"text/plain": repr(self)}
        return bundle

    @functools.cached_property
    def sliders(self) -> dict:
        """The ipywidgets by name: setting ``sliders[name].value`` draws anew."""
        sliders = {n: _slider(n, c, self.values[n], self._quick) for n, c in self.controls.items()}
        for slider in sliders.values():
            slider.observe(self._redraw, names="value")
        return sliders

    @functools.cached_property
    def note(self):
        """The ipywidget that says in one line why there is no new picture."""
        return _ipywidgets().HTML()

    @functools.cached_property
    def image(self):
        """The ipywidget that holds the picture."""
        return _ipywidgets().Image(value=self.png, format="png", layout={"max_width": "100%", "object_fit": "contain"})

    @functools.cached_property
    def widget(self):
        """Sliders, note and image together, as an ipywidget."""
        box = _ipywidgets().Box([*self.sliders.values()], layout={"flex_flow": "row wrap"})
        return _ipywidgets().VBox([box, self.note, self.image])

    def _redraw(self, change) -> None:
        self.values = {name: slider.value for name, slider in self.sliders.items()}
        try:
            self.png = _png(self.draw, self.values)
        except Exception as error:  # whatever the notebook's own draw raises
            line = f"No picture for these values. {type(error).__name__}: {error}".splitlines()[0]
            self.note.value = (
                f"<span style='border-left: 5px solid #E69F00; padding: 2px 10px'>{html.escape(line)}</span>"
            )
        else:
            self.note.value, self.image.value = "", self.png


def _ipywidgets():
    import ipywidgets  # late: it takes a while, and only a live page wants it

    return ipywidgets


def _page_is_open() -> bool:
    """Whether a person can move sliders: ipywidgets is there, and who runs this cell would answer a question.

    A run of a notebook without a page (nbconvert, nbclient, nbval) says of each cell that nobody can be asked.
    """
    try:
        from IPython import get_ipython

        _ipywidgets()
        return bool(get_ipython().kernel.get_parent("shell")["content"]["allow_stdin"])
    except (ImportError, AttributeError, KeyError):  # no IPython, no kernel, nothing running
        return False


def _are_numbers(values) -> bool:
    return all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in values)


def _first(name: str, control):
    if isinstance(control, Sketchpad):
        return control.strokes
    choices = isinstance(control, list) and control
    is_range = isinstance(control, tuple) and len(control) in (2, 3) and _are_numbers(control)
    if not choices and not (is_range and control[0] < control[1]):
        raise ClnnError(
            f"{name}={control!r} is no control: give a range (low, high) or (low, high, step), a list "
            "or a lab.Sketchpad"
        )
    return control[0]


def _check_controls(draw, start: dict, controls: dict) -> None:
    try:
        inspect.signature(draw).bind(**controls)
    except TypeError as error:
        raise ClnnError(f"the controls {', '.join(controls)} are not the arguments of draw: {error}") from None
    for name, value in start.items():
        if name not in controls:
            raise ClnnError(f"start sets {name}, which is none of the controls {', '.join(controls)}")
        control = controls[name]
        if isinstance(control, Sketchpad):
            raise ClnnError(f"{name} starts with the pad's own strokes: lab.Sketchpad(strokes), not start")
        if not (value in control if isinstance(control, list) else control[0] <= value <= control[1]):
            raise ClnnError(f"start sets {name} to {value}, outside of {control}")


def _png(draw, values: dict) -> bytes:
    """The figure that ``draw`` returns, as PNG. All that it opened is closed, so that nothing is shown twice."""
    from matplotlib import pyplot as plt

    opened = set(plt.get_fignums())
    try:
        figure = draw(**values)
        if not hasattr(figure, "savefig"):
            raise ClnnError(f"draw returned {type(figure).__name__}: it must return the matplotlib figure")
        target = io.BytesIO()
        figure.savefig(target, format="png")
        return target.getvalue()
    finally:
        for number in set(plt.get_fignums()) - opened:
            plt.close(number)


def _slider(name: str, control, value, quick: bool):
    """The ipywidget for a control: a slider for numbers, a menu for other choices, a pad."""
    if isinstance(control, Sketchpad):
        return control.widget()
    widgets = _ipywidgets()
    label = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    sliding = label | {"value": value, "continuous_update": quick, "layout": {"width": "400px", "max_width": "100%"}}
    if isinstance(control, list):
        options = [(str(choice), choice) for choice in control]
        if _are_numbers(control):
            return widgets.SelectionSlider(options=options, **sliding)
        return widgets.Dropdown(options=options, value=value, **label)
    low, high, *step = control
    if all(isinstance(x, (int, np.integer)) for x in (*control, value)):
        return widgets.IntSlider(min=low, max=high, step=step[0] if step else 1, **sliding)
    step = step[0] if step else _step(low, high, value)
    return widgets.FloatSlider(min=low, max=high, step=step, readout_format=".3g", **sliding)


def _step(low: float, high: float, start: float) -> float:
    """A round step, a hundredth of the range or less, that meets ``start``: a slider shows the nearest of its steps."""
    power = math.floor(math.log10((high - low) / 100))
    steps = [float(f"{digit}e{power - k}") for k in range(4) for digit in (5, 2, 1)]
    steps = [step for step in steps if step <= (high - low) / 100 * (1 + 1e-9)]
    return next((s for s in steps if abs((start - low) / s - round((start - low) / s)) < 1e-6), steps[-1])


def quiz(question: str, answers: dict) -> "Quiz":
    """A question whose answers open when they are clicked: ``{answer: reply}``, and (True, reply) for the right one.

    It needs no kernel, so it answers back in a saved notebook and in HTML, too. Raises ClnnError if no answer is right.
    """
    return Quiz(question, answers)


class Quiz:
    """What ``quiz`` returns: it shows itself, as HTML or as text without the replies."""

    def __init__(self, question: str, answers: dict):
        self.question = question
        self.answers = {  # answer: (is it right?, reply)
            answer: reply if isinstance(reply, tuple) else (False, reply) for answer, reply in answers.items()
        }
        if not any(right for right, _ in self.answers.values()):
            raise ClnnError(f"none of the answers to {question!r} is right: write it as (True, reply)")

    def __repr__(self):
        return "\n".join([self.question, *(f"  - {answer}" for answer in self.answers)])

    def _repr_html_(self):
        return f"<div><b>{html.escape(self.question)}</b>{''.join(map(self._answer, self.answers))}</div>"

    def _answer(self, answer: str) -> str:
        right, reply = self.answers[answer]
        mark, colour = ("✓ Right.", "#009E73") if right else ("✗ Not so.", "#E69F00")
        return (
            '<details style="margin: 6px 0"><summary style="border: 1px solid #888888; border-radius: 4px; '
            f'padding: 4px 10px; cursor: pointer; width: fit-content">{html.escape(answer)}</summary>'
            f'<div style="border-left: 5px solid {colour}; margin: 4px 0; padding: 2px 10px">'
            f"<b>{mark}</b> {html.escape(reply)}</div></details>"
        )
