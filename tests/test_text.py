"""The SMS Spam Collection: a folder of the user, the download, the stand-in; and TextDataset."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import os
import socket
import threading
import warnings
import zipfile

import numpy as np
import pytest

import clnn.data
from clnn import errors
from clnn.data import DataNote, TextDataset, datasets, text

REAL_DATA = os.environ.get("CLNN_DATA")
LINES = ["ham\tSee you at 5 £", "spam\tWIN a\tprize  now ", "spam\tü\u2028\x85!", "ham\t"]
CONTENT = "".join(f"{line}\n" for line in LINES).encode()


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Each test has an empty cache and no data folder."""
    monkeypatch.delenv("CLNN_DATA", raising=False)
    monkeypatch.setattr(datasets, "cache_folder", lambda name: tmp_path / "cache" / name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write SMSSpamCollection into CLNN_DATA/`inside`."""

    def write(content: bytes, inside="sms-spam", name="SMSSpamCollection"):
        path = tmp_path / "data" / inside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        monkeypatch.setenv("CLNN_DATA", str(tmp_path / "data"))

    return write


def notes_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(w.message) for w in caught if issubclass(w.category, DataNote)]


def check_lines(data):
    assert data.texts.tolist() == [line.split("\t", 1)[1] for line in LINES]
    assert data.labels.tolist() == [0, 1, 1, 0] and data.labels.dtype == np.int32


# A folder of the user


@pytest.mark.parametrize("inside", ["sms-spam", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_folder(folder, inside, packed):
    folder(gzip.compress(CONTENT) if packed else CONTENT, inside, "SMSSpamCollection" + ".gz" * packed)
    data, notes = notes_of(clnn.data.sms_spam)
    check_lines(data)
    assert data.source == "folder" and data.classes == ("ham", "spam")
    assert len(notes) == 1 and "holds 4 messages; the official set has 5,574" in notes[0]


def test_windows_line_ends(folder):
    folder(CONTENT.replace(b"\n", b"\r\n"))
    check_lines(notes_of(clnn.data.sms_spam)[0])


@pytest.mark.parametrize(
    "content, found",
    [
        (CONTENT + b"eggs\tmore\n", "'eggs\\\\tmore' in line 5"),
        (CONTENT + b"ham and no tab\n", "'ham and no tab' in line 5"),
        (b"\n" + CONTENT, "'' in line 1"),
        (b"", "'' in line 1"),
        (CONTENT + b"ham\t\xff\n", "no UTF-8"),
        (gzip.compress(CONTENT, mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_damaged_file(folder, content, found):
    folder(content)
    with pytest.raises(errors.DataError, match=f"SMSSpamCollection: found .*{found}"):
        clnn.data.sms_spam()


@pytest.mark.skipif(not REAL_DATA, reason="CLNN_DATA names no folder with the official files")
def test_official_file(monkeypatch):
    monkeypatch.setenv("CLNN_DATA", REAL_DATA)
    if datasets._user_folder(text._SMS_SPAM) is None:
        pytest.skip("CLNN_DATA holds no SMSSpamCollection")
    data, notes = notes_of(clnn.data.sms_spam)
    assert not notes and len(data) == 5574
    assert np.bincount(data.labels).tolist() == [4827, 747]
    path = datasets._user_folder(text._SMS_SPAM) / "SMSSpamCollection"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == text._SMS_SPAM.files["SMSSpamCollection"]
    again = "".join(f"{data.classes[label]}\t{t}\n" for t, label in zip(data.texts, data.labels))
    assert again.encode() == path.read_bytes()


# Without a network


def test_stand_in(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    data, notes = notes_of(clnn.data.sms_spam)
    assert len(notes) == 1 and "small stand-in of 60 messages" in notes[0] and "no network in this test" in notes[0]
    assert data.source == "sample" and len(data) == len(set(data.texts)) == 60
    assert np.bincount(data.labels).min() >= 25
    for part in (slice(0, 40), slice(40, 60)):  # both kinds in any part of it
        assert 0.3 < data[part][1].mean() < 0.7


# Download and cache, against a server on this machine


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A zip archive with CONTENT on a server of this machine, pinned by its checksum; gives its path."""
    site = tmp_path / "site"
    site.mkdir()
    path = site / "sms+spam+collection.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("deep")
        for name, content in {"../evil": b"x", "deep/SMSSpamCollection": CONTENT, "readme": b"y"}.items():
            archive.writestr(name, content)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        what = dataclasses.replace(
            text._SMS_SPAM,
            files={"SMSSpamCollection": hashlib.sha256(CONTENT).hexdigest()},
            sizes=(4,),
            mirrors=(f"http://127.0.0.1:{server.server_address[1]}/",),
            archive=(path.name, hashlib.sha256(path.read_bytes()).hexdigest()),
        )
        monkeypatch.setattr(text, "_SMS_SPAM", what)
        yield path
        server.shutdown()


def test_download_then_cache(tmp_path, served):
    data, notes = notes_of(clnn.data.sms_spam)
    assert not notes and data.source == "download"
    check_lines(data)
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == ["SMSSpamCollection"]
    assert not list(tmp_path.rglob("evil"))
    served.unlink()
    data, notes = notes_of(clnn.data.sms_spam)
    assert not notes and data.source == "cache"
    check_lines(data)


def test_damaged_download(tmp_path, served):
    content = served.read_bytes()
    served.write_bytes(content[:60] + bytes((content[60] ^ 1,)) + content[61:])
    with pytest.raises(errors.DataError, match=r"collection\.zip.*nothing was kept"):
        clnn.data.sms_spam()
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_altered_member(tmp_path, served, monkeypatch):
    what = dataclasses.replace(text._SMS_SPAM, files={"SMSSpamCollection": hashlib.sha256(b"else").hexdigest()})
    monkeypatch.setattr(text, "_SMS_SPAM", what)
    with pytest.raises(errors.DataError, match="SMSSpamCollection in the archive is missing or altered"):
        clnn.data.sms_spam()
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


# TextDataset


def test_indexing():
    rng = np.random.default_rng(0)
    texts, labels = [f"text {k}" for k in range(23)], rng.integers(0, 3, 23)
    data = TextDataset(texts, labels, "abc", "toys")
    chosen = rng.integers(0, 23, 9)
    assert len(data) == 23 and data[4] == ("text 4", labels[4])
    for index in (slice(3, 17, 2), chosen, labels > 1):
        some, kinds = data[index]
        assert some.tolist() == np.array(texts)[index].tolist()
        np.testing.assert_array_equal(kinds, labels[index])
    part = data.subset(chosen)
    assert part.texts.tolist() == [texts[i] for i in chosen] and part.classes == ("a", "b", "c")
    counts = np.bincount(labels, minlength=3)
    assert repr(data) == f"TextDataset(toys: 23 texts, {counts[0]} a, {counts[1]} b, {counts[2]} c, from memory)"
    with pytest.raises(ValueError, match="read-only"):
        data.texts[0] = "x"


@pytest.mark.parametrize(
    "texts, labels, error",
    [
        (["a", 5], [0, 1], errors.DTypeError),
        ("ab", [0, 1], errors.DTypeError),
        (["a", "b"], [0.0, 1.0], errors.DTypeError),
        (["a", "b"], [0], errors.ShapeError),
        (["a", "b"], [0, 2], errors.LabelError),
        (["a", "b"], [-1, 0], errors.LabelError),
    ],
)
def test_refuses(texts, labels, error):
    with pytest.raises(error):
        TextDataset(texts, labels, ("no", "yes"))
