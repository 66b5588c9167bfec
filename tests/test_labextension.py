"""What clnn adds to JupyterLab, seen in a real browser (see test_browser): colours of OpenCL C, stored pictures."""

import json
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
from browser import CELLS, WIDGET, Lab, Visit
from test_browser import browser  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[1]
EXTENSION = ROOT / "labextension"
CELL = """%%kernel add
#define WIDE 4
__kernel void add(__global float *a)
{
    // it isn't Python
    a[0] = 1.0f;  /* nor
    is this */
}"""
PYTHON = "x = 2.5  # not C"
# Of each cell its letters, and the colour and slant of each of them, as they are seen
LETTERS = """() => [...document.querySelectorAll('.jp-CodeCell .cm-content')].map(cell => {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
        const style = getComputedStyle(walker.currentNode.parentElement);
        for (const letter of walker.currentNode.textContent) found.push([letter, style.color, style.fontStyle]);
    }
    return found;
})"""
VARIABLE = """name => {
    const probe = document.createElement('span');
    probe.style.color = `var(--jp-mirror-editor-${name}-color)`;
    document.querySelector('.jp-Notebook').append(probe);
    return getComputedStyle(probe).color;
}"""


def looks(letters, piece) -> set:
    """The colours and slants of a piece of a cell's text."""
    start = "".join(letter for letter, *_ in letters).index(piece)
    return {tuple(look) for letter, *look in letters[start : start + len(piece)] if letter != " "}


def test_its_version_is_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    facts = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
    assert (facts["name"], facts["version"]) == (project["name"], project["version"])
    assert (EXTENSION / facts["jupyterlab"]["_build"]["load"]).is_file()


EXPLORE = """from clnn import lab
from matplotlib import pyplot as plt

lab.explore(lambda rate: plt.subplots(figsize=(3, 2))[0], rate=(0.01, 0.3), start={"rate": 0.1})"""


@pytest.fixture(scope="module")
def visit(browser, tmp_path_factory):  # noqa: F811
    """A page in a JupyterLab with the extension as it stands here."""
    folder = tmp_path_factory.mktemp("extension")
    course = folder / "course"
    course.mkdir()
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernelspec, "language_info": {"name": "python"}})
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in ("import clnn", EXPLORE, CELL, PYTHON)]
    nbformat.write(notebook, course / "page.ipynb")
    shutil.copytree(EXTENSION, folder / "lab" / "data" / "labextensions" / "clnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # else the copy that pip has installed comes first
        server = Lab(course, folder / "lab")
    try:
        server.wait()
        yield Visit(browser.new_page(), server, "page.ipynb", folder)
    finally:
        server.stop()


def test_colours(visit):
    kernel, python = visit.page.evaluate(LETTERS)[2:]
    names = ("comment", "keyword", "number", "meta", "builtin")
    colour = {name: visit.page.evaluate(VARIABLE, name) for name in names}
    assert len(set(colour.values())) >= 4
    for piece, name, slant in (
        ("// it isn't Python", "comment", "italic"),
        ("/* nor", "comment", "italic"), ("is this */", "comment", "italic"),
        ("#define WIDE 4", "meta", "normal"), ("__kernel", "keyword", "normal"), ("__global", "keyword", "normal"),
        ("float", "builtin", "normal"), ("1.0f", "number", "normal"),
    ):  # fmt: skip
        assert looks(kernel, piece) == {(colour[name], slant)}, piece
    assert looks(python, "# not C") == {(colour["comment"], "italic")}
    assert looks(python, "2.5") == {(colour["number"], "normal")}


def test_a_saved_page_shows_its_pictures_without_a_kernel(browser, visit):  # noqa: F811
    visit.run_all()
    assert WIDGET in visit.saved.cells[1].outputs[0].data
    assert visit.ran[1]["text"] == "rate0.100"
    visit.page.close()
    visit.lab.stop_kernels()
    again = Visit(browser.new_page(), visit.lab, "page.ipynb", visit.pictures)
    again.page.wait_for_function("() => !document.body.textContent.includes('Loading widget...')")
    again.page.wait_for_selector(".jp-OutputArea-output img")
    again.photograph()
    seen = again.page.evaluate(CELLS)[1]
    assert seen["images"] == 1 and seen["text"] == ""
