"""A built wheel holds what it must and works away from the repository."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import clnn

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
USE = """
import clnn, pathlib
print(pathlib.Path(clnn.__file__).resolve())
print((clnn.tensor([1.0, 2.0]) + 1).numpy().tolist())
"""


def run(*command, **options) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=300, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_one_version():
    assert clnn.__version__ == PROJECT["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder with clnn installed from the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    pip_install = (sys.executable, "-m", "pip", "install", "--no-index", "--no-deps")
    run(*pip_install, "--target", folder, wheel)
    return folder


def test_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [p for p in (ROOT / "clnn").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    package = {p.relative_to(ROOT).as_posix() for p in files}
    for kind in ("clnn/kernels/.*[.]cl", "clnn/kernels/.*[.]h", "clnn/lab/ladder/.*[.]cl", ".*[.]tsv"):
        assert any(re.fullmatch(kind, name) for name in package), kind
    assert package <= names
    top = f"clnn-{PROJECT['version']}"
    assert {name.split("/")[0] for name in names} == {"clnn", f"{top}.data", f"{top}.dist-info"}
    extension = {p.relative_to(ROOT / "labextension").as_posix() for p in (ROOT / "labextension").rglob("*.js*")}
    place = f"{top}.data/data/share/jupyter/labextensions/clnn/"
    assert extension == {name.removeprefix(place) for name in names if name.startswith(f"{top}.data/")} != set()
    assert not [name for name in names if "__pycache__" in name]


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"clnn-{PROJECT['version']}.dist-info"
    metadata = archive.read(f"{info}/METADATA").decode()
    assert re.search(r"^License-Expression: MIT$", metadata, re.MULTILINE)
    assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata.count("Provides-Extra:") == len(PROJECT["optional-dependencies"])


def test_computes_away_from_the_repository(site, tmp_path):
    out = run(sys.executable, "-c", USE, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)})
    where, result = out.splitlines()
    assert Path(where) == (site / "clnn" / "__init__.py").resolve()
    assert result == "[2.0, 3.0]"


def test_console_script(site, tmp_path):
    script = next(p for folder in ("bin", "Scripts") for p in (site / folder).glob("clnn*"))
    out = run(script, "--help", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)})
    assert "doctor" in out and "train" in out
