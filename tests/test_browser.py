"""The notebooks in a real JupyterLab in a headless Chromium: as they are opened, after Run All, with sliders moved.
The exercises are solved, and must be found right; and no data and no network are to be had, and every other cell must
print what is stored: so a page is run once for all of it.

Needs a Chromium of the system (nothing is downloaded; ``CLNN_CHROMIUM`` names another) and pip's playwright, and is
skipped without, but with ``CLNN_REQUIRE_BROWSER=1`` it fails. Pictures of the pages go to the folder that
``CLNN_SCREENSHOTS`` names, if it does.
"""

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
from browser import FLAGS, WIDGET, Lab, Visit, chromium
from test_solutions import shown, solved_notebook

COURSE = Path(__file__).parents[1] / "course"
NOTEBOOKS = sorted(path.name for path in COURSE.glob("*.ipynb"))
pytestmark = pytest.mark.timeout(900)  # the first test of each page opens and runs all of it, on a slow machine too


def missing(what: str) -> None:
    """Skip, or fail where skipping is forbidden."""
    text = f"no notebook was opened in a browser: {what}"
    pytest.fail(text) if os.environ.get("CLNN_REQUIRE_BROWSER") == "1" else pytest.skip(text)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium with an empty profile."""
    program, named = chromium(), os.environ.get("CLNN_CHROMIUM")
    if program is None:
        missing(f"CLNN_CHROMIUM={named} is no program" if named else "no Chromium here (Debian: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright here (pip install playwright)")
    environment = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=FLAGS, env=environment)


@pytest.fixture(scope="module")
def jupyterlab(browser, tmp_path_factory):
    """One server for all notebooks, their exercises solved; none is started where there is no browser."""
    server = Lab(COURSE, tmp_path_factory.mktemp("lab"))
    for name in NOTEBOOKS:
        nbformat.write(solved_notebook(COURSE / name), server.root / name)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def open_notebook(browser, jupyterlab):
    """Open a notebook by its name, in a page of its own, and close the one before."""
    folder = os.environ.get("CLNN_SCREENSHOTS")
    pictures = Path(folder) if folder else None
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)

    def visit(name):
        for context in browser.contexts:
            context.close()
        jupyterlab.stop_kernels()
        jupyterlab.refusals.unlink(missing_ok=True)
        return Visit(browser.new_page(viewport={"width": 1280, "height": 1000}), jupyterlab, name, pictures)

    return visit


@pytest.fixture(scope="module", params=NOTEBOOKS)
def visit(open_notebook, request):
    """A notebook of the course, opened and run."""
    visit = open_notebook(request.param)
    visit.run_all()
    return visit


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def calls(cell, name: str) -> list[ast.Call]:
    """The calls of ``lab.NAME`` in a cell; none in a cell that a magic reads, which is not Python."""
    if cell.source.startswith("%%"):
        return []
    source = re.sub(r"^(%|!).*", "", cell.source, flags=re.MULTILINE)
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in found if ast.unparse(call.func) in (name, f"lab.{name}")]


def bundles(cell, mime: str) -> int:
    """How many outputs of this kind a cell holds."""
    return sum(mime in output.get("data", {}) for output in cell.outputs)


def faults_when_opened(visit) -> list[str]:
    """A reader who has run nothing sees every stored picture, and a line of text for what only a run can draw."""
    faults = []
    for cell, seen in zip(code_cells(visit.stored), visit.opened, strict=True):
        if "Error displaying widget" in seen["text"] or "Loading widget" in seen["text"]:
            faults.append(f"{cell.id}: {seen['text']}")
        if seen["images"] != bundles(cell, "image/png"):
            faults.append(f"{cell.id}: {bundles(cell, 'image/png')} pictures stored, {seen['images']} shown")
    return faults


def faults_of_run(visit) -> list[str]:
    """All cells ran, one after the other; none failed that is not meant to; what solves an exercise is right."""
    faults = []
    for number, (cell, seen) in enumerate(zip(code_cells(visit.saved), visit.ran, strict=True), 1):
        tags = cell.metadata.get("tags", [])
        if seen["prompt"] != f"[{number}]:":
            faults.append(f"{cell.id}: prompt {seen['prompt']}, expected [{number}]:")
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags:
                faults.append(f"{cell.id}: {output.ename}: {output.evalue}")
        for name in (tag.removeprefix("exercise:") for tag in tags if tag.startswith("exercise:")):
            if shown(cell) != f"{name}: right":
                faults.append(f"{cell.id}: an exercise whose solution is not right: {seen['text']}")
    return faults


def printed(cell) -> str:
    """The text that a cell printed or showed, and no picture's."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(texts)


def faults_of_text(visit) -> list[str]:
    """What is printed is what is stored, as nbval compares it, but where an exercise is solved."""
    faults = []
    for stored, cell in zip(code_cells(visit.stored), code_cells(visit.saved), strict=True):
        tags = cell.metadata.get("tags", [])
        varies = "nbval-ignore-output" in tags or any(tag.startswith("exercise:") for tag in tags)
        if not varies and printed(cell) != printed(stored):
            faults.append(f"{cell.id}: prints {printed(cell)!r}, stored is {printed(stored)!r}")
    return faults


def faults_of_widgets(visit) -> list[str]:
    """Each widget that the kernel sent is drawn, and each that the source or the stored page has was sent."""
    faults = []
    for stored, cell, seen in zip(code_cells(visit.stored), code_cells(visit.saved), visit.ran, strict=True):
        explorers, quizzes = calls(cell, "explore"), calls(cell, "quiz")
        wanted = {
            "views": max(bundles(cell, WIDGET), bundles(stored, WIDGET), len(explorers)),
            "pictures": len(explorers),
            "controls": sum(keyword.arg != "start" for call in explorers for keyword in call.keywords),
            "answers": 2 * len(quizzes),
        }
        for what, count in wanted.items():
            if seen[what] < count:
                faults.append(f"{cell.id}: {seen[what]} {what}, expected {count}: {seen['text'][:200]}")
    return faults


def test_page_reads_before_any_run(visit):
    assert not faults_when_opened(visit)


def test_run_all_reaches_the_end(visit):
    assert not faults_of_run(visit)


def test_without_data_and_network_it_prints_what_is_stored(visit):
    assert not faults_of_text(visit)
    downloads = ("sms_spam", "mnist", "cifar10")
    if any(calls(cell, f"clnn.data.{name}") for cell in code_cells(visit.stored) for name in downloads):
        assert visit.lab.refusals.exists(), "this page asked for no network"


def test_every_widget_is_drawn(visit):
    assert not faults_of_widgets(visit)


def test_formulas_are_set(visit):
    assert not visit.formulas


def test_sliders_change_their_picture(visit):
    assert not visit.still_pictures()


def test_answers_of_a_quiz_open(visit):
    for summary in visit.page.locator(".jp-OutputArea-output details > summary").all():
        reply = summary.locator("xpath=following-sibling::*")
        assert not reply.is_visible()
        summary.click()
        assert reply.is_visible() and reply.inner_text().strip()


FAULTY = {
    "formula": "# A fraction $\\frac{1}{2}$ and $\\nosuchcommand{1}$\n\nand $\\sum_{1",
    "picture": "print('its stored picture is no picture')",
    "still": """
from clnn import lab
from matplotlib.figure import Figure
lab.explore(lambda rate, kind: Figure(), rate=(0.0, 1.0), kind=["a", "b"])""",
    "moves": """
def draw(rate):
    figure = Figure()
    figure.text(rate, rate, "here")
    return figure
lab.explore(draw, rate=(0.0, 1.0))""",
    "pad": "lab.explore(lambda drawing: draw(len(drawing) / 2), drawing=lab.Sketchpad([]))",
    "fails": "lab.explore(lambda rate: draw(1 / (rate - 1)), rate=(0.0, 1.0), start={'rate': 0.5})",
    "model": f"display({{{WIDGET!r}: {{'model_id': 'nobody', 'version_major': 2, 'version_minor': 0}}}}, raw=True)",
    "exercise": "print('done')",
    "raises": "1 / 0",
    "later": "1",
}


def test_faults_of_a_page_are_seen(open_notebook, jupyterlab):
    cells = [nbformat.v4.new_code_cell(source, id=name) for name, source in FAULTY.items()]
    cells[0] = nbformat.v4.new_markdown_cell(FAULTY["formula"], id="formula")
    cells[1].outputs = [nbformat.v4.new_output("display_data", {"image/png": "bm8gcGljdHVyZQ=="})]
    cells[7].metadata.tags = ["exercise:nothing"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), jupyterlab.root / "faulty.ipynb")
    visit = open_notebook("faulty.ipynb")
    visit.run_all()

    assert faults_when_opened(visit) == ["picture: 1 pictures stored, 0 shown"]
    assert faults_of_run(visit) == [
        "exercise: an exercise whose solution is not right: done\n",
        "raises: ZeroDivisionError: division by zero",
        "later: prompt [ ]:, expected [9]:",
    ]
    assert faults_of_text(visit)[0].startswith("picture: prints 'its stored picture is no picture\\n', stored is ''")
    assert faults_of_widgets(visit) == ["model: 0 views, expected 1: Error displaying widget: model not found"]
    assert visit.formulas == ["\\nosuchcommand", "\\sum_{1"]
    visit.patience = 2
    assert visit.still_pictures() == [
        "still: the picture stays as it is, whichever slider moves",
        "fails: the picture stays as it is, whichever slider moves",
        "fails: No picture for these values. ZeroDivisionError: float division by zero",
    ]
