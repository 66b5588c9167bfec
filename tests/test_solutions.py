"""Every notebook's exercises: each has a check and a solution, is "not done yet" as stored, and right once solved."""

import re
from pathlib import Path

import nbformat
import pytest
from browser import is_there
from nbclient import NotebookClient

from clnn.lab.check import exercises_of

COURSE = Path(__file__).parents[1] / "course"
NOTEBOOKS = sorted(COURSE.glob("[0-9]*.ipynb"))


def solutions_of(notebook: Path) -> dict[str, str]:
    """The code of each cell of the solutions' file, by the name of its exercise; what stands above them is left out."""
    text = (COURSE / "solutions" / f"{notebook.stem}.py").read_text(encoding="utf-8")
    parts = re.split(r"^# %% exercise:(\w+)\n", text, flags=re.MULTILINE)
    return {name: code.strip() for name, code in zip(parts[1::2], parts[2::2])}


def exercise_cells(notebook) -> dict:
    """The cells that are tagged as exercises, by name. Fails if a name comes twice."""
    cells = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("exercise:"):
                name = tag.removeprefix("exercise:")
                assert name not in cells, f"two cells have the tag {tag}"
                cells[name] = cell
    return cells


def check_of(cell) -> str:
    """The end of a cell, from its last line on that begins with ``lab.check(``; of a kernel the line of its magic."""
    if cell.source.startswith("%%kernel"):
        return cell.source.splitlines()[0]
    return cell.source[cell.source.rindex("\nlab.check(") + 1 :]


def solved(cell, solution: str) -> str:
    """The cell with the solution; that of a kernel stands in the solutions' file as ``name = r\"\"\"...\"\"\"``."""
    if cell.source.startswith("%%kernel"):
        return "\n".join([check_of(cell), solution.split('"""')[1].strip("\n")])
    return f"{solution}\n\n{check_of(cell)}"


def solved_notebook(path: Path):
    """A notebook with all its exercises solved."""
    notebook, solutions = nbformat.read(path, as_version=4), solutions_of(path)
    for name, cell in exercise_cells(notebook).items():
        cell.source = solved(cell, solutions[name])
    return notebook


def shown(cell) -> str:
    """The text of the last thing that the cell shows."""
    return cell.outputs[-1].get("data", {}).get("text/plain", "") if cell.outputs else ""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_there_are_notebooks_and_no_solution_without_one():
    assert NOTEBOOKS
    assert {p.stem for p in (COURSE / "solutions").glob("*.py")} <= {p.stem for p in NOTEBOOKS}


def test_cells_checks_and_solutions_belong_together(path):
    cells = exercise_cells(nbformat.read(path, as_version=4))
    assert len(cells) >= 4
    assert sorted(cells) == sorted(solutions_of(path))
    assert sorted(cells) == sorted(exercises_of(path.stem.split("_", 1)[1]))
    for name, cell in cells.items():
        check = rf'lab\.check\(\s*"{name}",\s[^;]+\)|%%kernel .*--check {name}\b.*'
        assert re.fullmatch(check, check_of(cell)), f"{name}: {check_of(cell)!r}"


def test_as_stored_nothing_is_done_yet(path):
    for name, cell in exercise_cells(nbformat.read(path, as_version=4)).items():
        assert shown(cell) == f"{name}: not done yet"


@pytest.mark.skipif(is_there(), reason="there is a browser: test_browser.py runs the solved notebooks in it")
@pytest.mark.timeout(1200)
def test_with_the_solutions_every_check_is_right(path, tmp_path, monkeypatch):
    monkeypatch.delenv("CLNN_FULL", raising=False)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = solved_notebook(path)
    cells = exercise_cells(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert {name: shown(cell) for name, cell in cells.items()} == {name: f"{name}: right" for name in cells}
