"""OpenCL C in its colours in JupyterLab's cells, seen in a real browser (see test_browser)."""

import json
import shutil
import tomllib
from pathlib import Path

import nbformat
from browser import Lab, Visit
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


def test_colours(browser, tmp_path):  # noqa: F811
    course = tmp_path / "course"
    course.mkdir()
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernelspec, "language_info": {"name": "python"}})
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in (CELL, PYTHON)]
    nbformat.write(notebook, course / "kernel.ipynb")
    shutil.copytree(EXTENSION, tmp_path / "lab" / "data" / "labextensions" / "clnn")
    server = Lab(course, tmp_path / "lab")
    try:
        server.wait()
        page = browser.new_page()
        Visit(page, server, "kernel.ipynb", tmp_path)
        page.wait_for_timeout(500)
        kernel, python = page.evaluate(LETTERS)
        colour = {name: page.evaluate(VARIABLE, name) for name in ("comment", "keyword", "number", "meta", "builtin")}
    finally:
        server.stop()
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
