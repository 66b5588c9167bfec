"""Bring the official files of a data set into the cache: checked by checksum, whole or not at all."""

import os
import queue
import shutil
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clnn.errors import DataError, DownloadError

ANSWER_WITHIN = 6  # seconds a server has to answer before it counts as out of reach
STALL_AFTER = 30  # seconds without a byte before a download counts as cut


def cache_folder(name: str) -> Path:
    """The folder `name` in clnn's cache (`~/.cache/clnn` on Linux; the variable XDG_CACHE_HOME moves it)."""
    import pooch

    return pooch.os_cache("clnn") / name


def fetch(
    folder: Path, files: Mapping[str, str], mirrors: Sequence[str], archive: tuple[str, str] | None = None
) -> str:
    """Make `folder` hold all of `files` (name: checksum); returns "cache" or "download".

    Files already there are kept if their checksums agree; a checksum is SHA-256 in hexadecimal, or
    "algorithm:digest". The mirrors are tried in turn, each a URL that ends in "/". With `archive`, a pair
    (name, checksum), the files are members of that tar or zip archive. Raises DownloadError where no mirror
    delivers, DataError where what came is damaged or cannot be stored.
    """
    problems = []
    try:
        if all(_intact(folder / name, known) for name, known in files.items()):
            return "cache"
        for mirror in mirrors:
            try:
                _wait_for_answer(mirror)
                if archive:
                    _fetch_archive(folder, files, mirror + archive[0], archive[1])
                else:
                    _fetch_files(folder, files, mirror)
                return "download"
            except DataError as error:
                problems.append(error)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read or written ({error}). Check its permissions and the space left, "
            "or point XDG_CACHE_HOME elsewhere."
        ) from error
    # A damaged file is a graver thing to report than a server that is out of reach.
    kind = DownloadError if all(isinstance(p, DownloadError) for p in problems) else DataError
    raise kind("; ".join(str(p) for p in problems))


def _intact(path: Path, known: str) -> bool:
    import pooch

    algorithm, _, digest = known.rpartition(":")
    return path.is_file() and pooch.file_hash(path, alg=algorithm or "sha256") == digest


def _download(url: str, path: Path, known: str) -> None:
    """Download one file; pooch checks it under a temporary name, then moves it into place."""
    import pooch

    try:
        pooch.retrieve(url, known, fname=path.name, path=path.parent, downloader=_http)
    except ValueError as error:  # pooch's word for a wrong checksum
        raise DataError(f"{url}: the file that came is damaged, nothing was kept ({error})") from error


def _http(url: str, output_file: str, pooch: object) -> None:
    """A downloader for pooch with short timeouts, a bar for terminal or notebook, and clnn's exceptions."""
    import requests
    from tqdm.auto import tqdm

    # A .gz must arrive as it is stored, not unpacked on the way.
    options = {"headers": {"Accept-Encoding": "identity"}, "timeout": (ANSWER_WITHIN, STALL_AFTER)}
    received = 0
    try:
        with requests.get(url, stream=True, **options) as reply, open(output_file, "wb") as target:
            reply.raise_for_status()
            size = int(reply.headers.get("Content-Length", 0)) or None
            with tqdm(desc=url.rpartition("/")[2], total=size, unit="B", unit_scale=True) as bar:
                for chunk in reply.iter_content(1 << 16):
                    received += target.write(chunk)
                    bar.update(len(chunk))
    except requests.RequestException as error:
        if received or isinstance(error, requests.exceptions.ChunkedEncodingError):
            raise DataError(f"{url}: the connection broke after {received:,} bytes, nothing was kept") from error
        raise DownloadError(f"{url}: {_reason(error)}") from error


def _wait_for_answer(url: str) -> None:
    """Raise DownloadError unless the server answers soon.

    A timeout of requests holds for one address and not for the name look-up; the thread bounds the whole.
    """
    import requests

    answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(url, timeout=ANSWER_WITHIN)
            answer.put(None)
        except Exception as error:  # handed to the caller's thread
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answer.get(timeout=ANSWER_WITHIN)
    except queue.Empty:
        raise DownloadError(f"{url}: no answer within {ANSWER_WITHIN} s") from None
    if error is not None:
        raise DownloadError(f"{url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The innermost cause of a failed request, in a few words."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code} {response.reason}"
    while error.__context__ is not None:
        error = error.__context__
    return f"no connection ({error})"


def _fetch_files(folder: Path, files: Mapping[str, str], mirror: str) -> None:
    for name, known in files.items():
        if not _intact(folder / name, known):
            _download(mirror + name, folder / name, known)


def _fetch_archive(folder: Path, files: Mapping[str, str], url: str, known: str) -> None:
    """Download an archive to a temporary folder and move the wanted members, checked, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        packed = Path(temporary, url.rpartition("/")[2])
        _download(url, packed, known)
        for name, source in _members(packed):
            if name in files:  # nothing else in the archive is ever written
                with open(Path(temporary, name), "wb") as target:
                    shutil.copyfileobj(source, target)
        for name, digest in files.items():
            if not _intact(Path(temporary, name), digest):
                raise DataError(f"{url}: {name} in the archive is missing or altered, nothing was kept")
        for name in files:
            os.replace(Path(temporary, name), folder / name)


def _members(packed: Path) -> Iterator[tuple]:
    """(name without its folder, open stream) of each file in a zip or tar archive."""
    if packed.suffix == ".zip":
        with zipfile.ZipFile(packed) as archive:
            for member in archive.infolist():
                with archive.open(member) as source:
                    yield member.filename.rpartition("/")[2], source
    else:
        with tarfile.open(packed) as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                with archive.extractfile(member) as source:
                    yield member.name.rpartition("/")[2], source
