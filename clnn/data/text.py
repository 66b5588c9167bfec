"""Short texts with labels: the SMS Spam Collection, or a small stand-in where it cannot be had."""

import warnings
from pathlib import Path

import numpy as np

from clnn.data.datasets import DataNote, _Collection, _find
from clnn.data.formats import damaged, find_file, read_bytes
from clnn.errors import DownloadError, DTypeError, LabelError, ShapeError

_SAMPLE = Path(__file__).with_name("sms_sample.tsv")


class TextDataset:
    """Texts with one label each, in memory and read-only.

    texts: array of n strings. labels: int32 array of n numbers. classes: the name of each label. name: of the
    collection. source: "folder" (CLNN_DATA), "cache", "download", "sample" or whatever else the texts came from.

    `len(data)` is n; `data[i]` gives (texts, labels) for an integer, a slice or an index array.
    Raises DTypeError, ShapeError or LabelError where texts, labels and classes do not fit each other.
    """

    def __init__(self, texts, labels, classes, name: str = "texts", source: str = "memory"):
        self.texts, labels = np.array(texts, dtype=object), np.asarray(labels)
        if self.texts.ndim != 1 or not all(isinstance(text, str) for text in self.texts):
            raise DTypeError("texts must be a list of strings")
        if labels.dtype.kind not in "iu":
            raise DTypeError(f"labels are {labels.dtype}; expected integers. Convert them with .astype(int)")
        if labels.shape != self.texts.shape:
            raise ShapeError(f"labels have shape {labels.shape}; expected {self.texts.shape}, one for each text")
        if labels.size and (labels.min() < 0 or labels.max() >= len(classes)):
            raise LabelError(
                f"labels go from {labels.min()} to {labels.max()}; expected 0 to {len(classes) - 1} "
                f"for {len(classes)} classes"
            )
        self.labels = labels.astype(np.int32)
        self.texts.flags.writeable = self.labels.flags.writeable = False
        self.classes, self.name, self.source = tuple(classes), name, source

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index) -> tuple:
        return self.texts[index], self.labels[index]

    def subset(self, indices) -> "TextDataset":
        """The texts at `indices` (slice, index array or boolean mask) as a data set of its own."""
        return TextDataset(*self[indices], self.classes, self.name, self.source)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.classes))
        parts = ", ".join(f"{count:,} {name}" for name, count in zip(self.classes, counts))
        return f"TextDataset({self.name}: {len(self):,} texts, {parts}, from {self.source})"


def sms_spam() -> TextDataset:
    """The SMS Spam Collection: 5,574 text messages in English, 4,827 ham (label 0) and 747 spam (label 1).

    Looked for in the folder that the environment variable CLNN_DATA names (`sms-spam/SMSSpamCollection` or
    the folder itself, plain or gzip), then in the cache, then downloaded with checksums (200 kB). Without a
    network, one DataNote says so and a stand-in of 60 messages, written for clnn, is served instead.

    There is no official split. Raises DataError where a file is damaged. Source: Almeida, Gómez Hidalgo and
    Yamakami, "Contributions to the Study of SMS Spam Filtering: New Collection and Results", 2011.
    """
    try:
        folder, source = _find(_SMS_SPAM)
    except DownloadError as error:
        note = "serving a small stand-in of 60 messages, written for clnn, in place of the collection's 5,574"
        warnings.warn(f"sms_spam: {note}. {error}", DataNote, stacklevel=2)
        return TextDataset(*_read_lines(_SAMPLE), _SMS_SPAM.classes, _SMS_SPAM.name, "sample")
    texts, labels = _SMS_SPAM.read(folder)
    if (len(texts),) != _SMS_SPAM.sizes:
        note = f"{folder} holds {len(texts):,} messages; the official set has {_SMS_SPAM.sizes[0]:,}"
        warnings.warn(f"sms_spam: {note}. Serving what is there.", DataNote, stacklevel=2)
    return TextDataset(texts, labels, _SMS_SPAM.classes, _SMS_SPAM.name, source)


def _read_lines(path: Path) -> tuple[list[str], list[int]]:
    """Texts and labels of a file with a label, a tab and a text in each line, in UTF-8."""
    try:
        lines = read_bytes(path).decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"bytes that are no UTF-8 ({error.reason} at byte {error.start})", "text") from error
    texts, labels = [], []
    for number, line in enumerate(lines, 1):
        label, tab, text = line.removesuffix("\r").partition("\t")
        if not tab or label not in _SMS_SPAM.classes:
            raise damaged(path, f"{line[:30]!r} in line {number}", "ham or spam, a tab and a message")
        texts.append(text)
        labels.append(_SMS_SPAM.classes.index(label))
    return texts, labels


_SMS_SPAM = _Collection(
    name="sms_spam",
    classes=("ham", "spam"),
    folders=("sms-spam",),
    sizes=(5_574,),
    files={"SMSSpamCollection": "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"},
    mirrors=("https://archive.ics.uci.edu/static/public/228/",),
    read=lambda folder: _read_lines(find_file(folder, "SMSSpamCollection")),
    archive=("sms+spam+collection.zip", "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3"),
)
