"""Pictures with sliders, and questions that answer back, without a page and with one."""

import base64
import io
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from matplotlib import pyplot as plt

from clnn import lab
from clnn.errors import ClnnError
from clnn.lab import widgets

VIEW = "application/vnd.jupyter.widget-view+json"
matplotlib.use("Agg")
COURSE = Path(__file__).parents[1] / "course"


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    yield
    plt.close("all")


def draw(rate, n, kind):
    """A black square whose grey and size in pixels tell the values."""
    figure = plt.figure(figsize=(n, 1), dpi=10, facecolor=str(rate))
    plt.figure()  # another one, which nobody gets
    if kind == "none":
        raise ValueError("no <kind>\nof picture")
    return figure


def explorer(**options):
    return lab.explore(draw, **{"rate": (0.0, 1.0), "n": (1, 9), "kind": ["plain", "none"]} | options)


def pixels(png):
    return plt.imread(io.BytesIO(png))


def test_picture_of_the_first_values_and_of_those_given():
    assert pixels(explorer().png).shape[:2] == (10, 10)
    started = explorer(start={"n": 3, "rate": 0.6})
    assert pixels(started.png).shape[:2] == (10, 30)
    assert np.allclose(pixels(started.png)[..., :3], 0.6, atol=0.01)
    assert repr(started) == "explore: rate = 0.6, n = 3, kind = plain"


@pytest.mark.parametrize("path", sorted(COURSE.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_page_stores_a_picture_for_those_who_cannot_slide(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and (explorers := cell.source.count("lab.explore(")):
            pictures = [out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {})]
            assert len(pictures) >= explorers, cell.id
            assert all(pixels(base64.b64decode(png)).shape[1] >= 300 for png in pictures), cell.id


def test_nothing_is_left_open_that_draw_opened_and_all_that_was_there_is():
    mine = plt.figure()
    explorer()
    assert plt.get_fignums() == [mine.number]


def test_without_a_page_the_picture_stands_alone():
    bundle = explorer()._repr_mimebundle_()
    assert sorted(bundle) == ["image/png", "text/plain"]
    assert pixels(base64.b64decode(bundle["image/png"])).shape[:2] == (10, 10)


def test_with_a_page_there_are_sliders_too(monkeypatch):
    monkeypatch.setattr(widgets, "_page_is_open", lambda: True)
    bundle = explorer()._repr_mimebundle_()
    assert sorted(bundle) == [VIEW, "image/png", "text/plain"]
    assert bundle["text/plain"] == "explore: rate = 0.0, n = 1, kind = plain"


def test_sliders_draw_anew():
    shown = explorer()
    shown.sliders["n"].value = 4
    assert shown.values == {"rate": 0.0, "n": 4, "kind": "plain"}
    assert pixels(shown.image.value).shape[:2] == (10, 40)
    shown.sliders["rate"].value = 1.0
    assert pixels(shown.image.value).min() == 1


def test_a_pad_gives_its_drawing():
    seen = []
    dot, line = [[(0.2, 0.3)]], [[0.1, 0.2], [0.9, 0.8]]
    shown = lab.explore(lambda drawing: seen.append(drawing) or plt.figure(), drawing=lab.Sketchpad(dot))
    assert seen == [dot] and repr(shown) == "explore: drawing = 1 strokes"
    shown.sliders["drawing"].value = [*dot, line]
    assert len(seen) == 2 and len(seen[1]) == 2 and seen[1][1] == line
    assert repr(shown) == "explore: drawing = 2 strokes"
    with pytest.raises(ClnnError, match=r"drawing starts with the pad's own strokes: lab\.Sketchpad\(strokes\)"):
        lab.explore(lambda drawing: plt.figure(), start={"drawing": dot}, drawing=lab.Sketchpad([]))


def test_an_error_of_draw_is_one_line_and_the_picture_stays():
    shown = explorer()
    shown.sliders["kind"].value = "none"
    assert "ValueError: no &lt;kind&gt;</span>" in shown.note.value
    assert shown.image.value == shown.png and len(shown.png) > 0
    assert plt.get_fignums() == []
    shown.sliders["kind"].value = "plain"
    assert shown.note.value == ""


def test_kinds_of_controls():
    def nothing(**values):
        return plt.figure()

    choices = [(20, 50), (75, 100)]
    shown = lab.explore(nothing, n=(1, 9, 2), x=(0.5, 2), rho=[0.0, 0.9], layers=choices, on=[False, True])
    kinds = {name: type(slider).__name__ for name, slider in shown.sliders.items()}
    assert kinds == {
        "n": "IntSlider", "x": "FloatSlider", "rho": "SelectionSlider", "layers": "Dropdown", "on": "Dropdown",
    }  # fmt: skip
    assert (shown.sliders["n"].step, shown.sliders["x"].step) == (2, 0.01)
    assert shown.values["layers"] == (20, 50)
    shown.sliders["layers"].value = choices[1]
    assert shown.values["layers"] == (75, 100)


@pytest.mark.parametrize(
    "low, high, start",
    [
        (0.01, 0.3, 0.1),
        (0.01, 0.3, 0.083),
        (1e-5, 1e-2, 3e-4),
        (-2.0, 5.0, 0.7),
        (0.0, 1.0, 1.0),
        (0.5, 2, 0.5),
        (3.0, 950.0, 47.1),
    ],
)
def test_a_slider_shows_the_start_that_was_given(low, high, start):
    """The page moves a value to the nearest of the slider's steps, which are counted from its low end."""
    slider = lab.explore(lambda x: plt.figure(), x=(low, high), start={"x": start}).sliders["x"]
    steps = round((start - low) / slider.step)
    assert low + steps * slider.step == pytest.approx(start, rel=1e-9)
    assert 100 <= (high - low) / slider.step * (1 + 1e-9) <= 2e6


def test_labels_are_words_and_not_cut_off():
    slider = lab.explore(lambda learning_rate: plt.figure(), learning_rate=(0.0, 1.0)).sliders["learning_rate"]
    assert slider.description == "learning rate"
    assert slider.style.description_width == "initial"


@pytest.mark.parametrize(("seconds", "follows"), [(0.01, True), (0.5, False)])
def test_slow_pictures_wait_until_the_slider_is_let_go(monkeypatch, seconds, follows):
    clock = iter([0.0, seconds])
    monkeypatch.setattr(widgets.time, "perf_counter", lambda: next(clock))
    assert explorer().sliders["n"].continuous_update is follows


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": (3, 1)}, r"n=\(3, 1\) is no control"),
        ({"n": 5}, "n=5 is no control"),
        ({"kind": []}, "is no control"),
        ({"kind": ("plain", "none")}, "is no control"),
        ({"start": {"n": 10}}, "start sets n to 10, outside of"),
        ({"start": {"kind": "other"}}, "start sets kind to other"),
        ({"start": {"m": 1}}, "start sets m, which is none of the controls rate, n, kind"),
        ({"other": (1, 2)}, "are not the arguments of draw"),
    ],
)
def test_wrong_controls(options, words):
    with pytest.raises(ClnnError, match=words):
        explorer(**options)


def test_draw_must_return_the_figure():
    with pytest.raises(ClnnError, match="draw returned NoneType"):
        lab.explore(lambda n: print(end=""), n=(1, 2))


def test_the_package_is_imported_without_what_only_pages_want(run_python):
    unwanted = {"matplotlib", "ipywidgets", "anywidget", "traitlets"}
    done = run_python("-c", f"import sys; from clnn import lab; print({unwanted} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


def test_without_ipywidgets_no_page_is_open(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert not widgets._page_is_open()
    assert sorted(explorer()._repr_mimebundle_()) == ["image/png", "text/plain"]


@pytest.fixture(scope="module")
def kernel():
    """A running kernel, and ``ask(code, page)``: what it sends while it runs the code, from a page or from none."""
    manager, client = start_new_kernel()

    def answers(message_id):
        while True:
            message = client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == message_id:
                if message["content"].get("execution_state") == "idle":
                    return
                assert message["msg_type"] != "error", message["content"]
                yield message

    client.ask = lambda code, page: list(answers(client.execute(code, allow_stdin=page)))
    client.answers = answers
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


CODE = """
from matplotlib import pyplot as plt
from clnn import lab
lab.explore(lambda n: plt.figure(figsize=(n, 1), dpi=10), n=(1, 9))
"""


def test_a_run_without_a_page_stores_the_picture_alone(kernel):
    (result,) = [m["content"]["data"] for m in kernel.ask(CODE, page=False) if m["msg_type"] == "execute_result"]
    assert sorted(result) == ["image/png", "text/plain"]


def test_a_page_moves_the_slider_and_gets_another_picture(kernel):
    messages = kernel.ask(CODE, page=True)
    assert [m["msg_type"] for m in messages].count("display_data") == 0
    (result,) = [m["content"]["data"] for m in messages if m["msg_type"] == "execute_result"]
    assert sorted(result) == [VIEW, "image/png", "text/plain"]
    models = {m["content"]["comm_id"]: m["content"]["data"]["state"] for m in messages if m["msg_type"] == "comm_open"}
    assert result[VIEW]["model_id"] in models
    (slider,) = [model for model, state in models.items() if state["_model_name"] == "IntSliderModel"]
    (image,) = [model for model, state in models.items() if state["_model_name"] == "ImageModel"]
    update = {"method": "update", "state": {"value": 5}, "buffer_paths": []}
    message = kernel.session.msg("comm_msg", {"comm_id": slider, "data": update})
    kernel.shell_channel.send(message)
    changed = [m for m in kernel.answers(message["header"]["msg_id"]) if m["content"].get("comm_id") == image]
    assert pixels(changed[-1]["buffers"][0]).shape[:2] == (10, 50)


def test_quiz_as_text_keeps_its_replies():
    quiz = lab.quiz("Which is it?", {"a < b": "No, b < a.", "b": (True, "Yes.")})
    assert repr(quiz) == "Which is it?\n  - a < b\n  - b"


def test_quiz_answers_back_in_html():
    page = lab.quiz("Which is it?", {"a < b": "No, b < a.", "b": (True, "Yes."), "c": (False, "No.")})._repr_html_()
    first, second, third = page.split("<details")[1:]
    assert "a &lt; b</summary>" in first and "✗" in first and "No, b &lt; a.</div>" in first
    assert "b</summary>" in second and "✓" in second and "Yes." in second
    assert "✗" in third


def test_quiz_wants_a_right_answer():
    with pytest.raises(ClnnError, match="none of the answers to 'Which"):
        lab.quiz("Which is it?", {"a": "no", "b": (False, "no")})
