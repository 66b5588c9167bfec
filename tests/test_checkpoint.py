"""Weights in safetensors files: whole or not at all, and every damage noticed."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file

import clnn
from clnn import checkpoint
from clnn import modules as nn


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    return {
        "0.weight": rng.standard_normal((7, 3, 5, 2)).astype(np.float32),
        "0.bias": rng.standard_normal(7),
        "counts": rng.integers(-(2**31), 2**31, (3, 11), dtype=np.int32),
        "mask": rng.random((4, 9)) < 0.5,
        "number": np.array(rng.standard_normal(), np.float32),
    }


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        assert a[name].tobytes() == b[name].tobytes()


def test_arrays_come_back_to_the_bit(tmp_path, arrays):
    clnn.save(arrays, tmp_path / "w.safetensors")
    same(clnn.load(tmp_path / "w.safetensors"), arrays)
    same(load_file(tmp_path / "w.safetensors"), arrays)  # any other reader of the format sees the same


def test_views_are_stored_as_they_look(tmp_path):
    base = np.arange(30, dtype=np.float32).reshape(5, 6)
    clnn.save({"turned": base.T, "thinned": base[::2, ::-1]}, tmp_path / "w")
    same(clnn.load(tmp_path / "w"), {"turned": base.T.copy(), "thinned": base[::2, ::-1].copy()})


def test_tensors_and_metadata(tmp_path, arrays):
    checkpoint.save({"x": clnn.tensor(arrays["counts"])}, tmp_path / "w", {"note": "ä line\nand another"})
    found, metadata = checkpoint.load_with_metadata(tmp_path / "w")
    same(found, {"x": arrays["counts"]})
    assert metadata == {"note": "ä line\nand another"}


def test_a_model_through_a_file(tmp_path):
    net, other = (nn.Sequential(nn.Conv2d(2, 3, (2, 3)), nn.Flatten(), nn.Linear(6, 4)) for _ in range(2))
    x = clnn.randn(5, 2, 3, 3, seed=1)
    clnn.save(net.state_dict(), tmp_path / "net.safetensors")
    assert not np.array_equal(net(x).numpy(), other(x).numpy())
    other.load_state_dict(clnn.load(tmp_path / "net.safetensors"))
    assert np.array_equal(net(x).numpy(), other(x).numpy())


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_cut_short(tmp_path, arrays, share):
    path = tmp_path / "w.safetensors"
    clnn.save(arrays, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(clnn.CheckpointError, match=r"w\.safetensors.*cut short"):
        clnn.load(path)


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        clnn.load(tmp_path / "nowhere")
    (tmp_path / "poem").write_text("Shall I compare thee to a summer's day?\n" * 20)
    with pytest.raises(clnn.CheckpointError, match="poem"):
        clnn.load(tmp_path / "poem")


def test_what_cannot_be_saved(tmp_path, arrays):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write w\.safetensors in"):
        clnn.save(arrays, tmp_path / "nowhere" / "w.safetensors")
    with pytest.raises(clnn.DTypeError, match=r"got Linear: of a net, net\.state_dict\(\)"):
        clnn.save(nn.Linear(2, 2), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_former_file(tmp_path, arrays, monkeypatch, failing):
    """A full disk, say: the old weights stay, and no half-written file lies about."""
    path = tmp_path / "w.safetensors"
    clnn.save(arrays, path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        clnn.save({"0.weight": np.zeros((2, 2), np.float32)}, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_what_a_killed_process_left_is_cleared_away(tmp_path, arrays):
    """Only the unfinished files of this name, also where the name holds a pattern's signs."""
    others = {".w[1].99.part.txt", ".w1.99.part", "w[1].part"}
    for name in {".w[1].99.part", *others}:
        (tmp_path / name).write_text("half")
    clnn.save(arrays, tmp_path / "w[1]")
    assert set(os.listdir(tmp_path)) == {"w[1]", *others}
    same(clnn.load(tmp_path / "w[1]"), arrays)
