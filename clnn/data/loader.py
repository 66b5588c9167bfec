"""Cut a data set into batches and send them to the device ahead of their use."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from clnn.data.images import ImageDataset
from clnn.data.transforms import Transform
from clnn.errors import DataError, DTypeError, ShapeError


class DataLoader:
    """Batches of a data set as tuples of tensors on the device, usually (x, y).

    dataset: an ImageDataset, or a sequence of NumPy arrays of equal length (inputs, targets, ...).
    In the first array uint8 pixels are scaled from 0 ... 255 to [0, 1], as float32. Otherwise integers become
    int32 and floats float32.

    shuffle: a new order each epoch, which depends only on (seed, epoch).
    drop_last: leave out a last batch that is not full.
    transform(images, rng): applied to the first array of each batch on the host, see clnn.data.transforms.
    prefetch: how many batches are prepared and on their way to the device before the current one is handed
        out, so that the host works while the device computes.
    device: where the tensors go; None is clnn's current device.

    Each `for` loop over the loader is one epoch, counted from 0; `set_epoch(e)` sets the number of the next
    and `batches(epoch, start)` enters any epoch at any batch, with the same bits as the loop would give.

    Raises DataError for an empty data set, ShapeError for unequal lengths, DTypeError for elements that are
    not numbers, ValueError for other arguments out of range.
    """

    def __init__(
        self,
        dataset: ImageDataset | Sequence[np.ndarray],
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        prefetch: int = 2,
        device=None,
    ):
        self.dataset = dataset
        self.batch_size = _at_least(1, batch_size, "batch_size")
        self.shuffle, self.drop_last, self.transform, self.device = shuffle, drop_last, transform, device
        self.seed, self.prefetch = _at_least(0, seed, "seed"), _at_least(0, prefetch, "prefetch")
        self.epoch = 0
        self._arrays = _check(dataset)
        if len(self) == 0:
            raise DataError(
                f"{len(self._arrays[0])} records make no full batch of {batch_size}, and drop_last leaves "
                "out the rest. Take a smaller batch_size or drop_last=False."
            )

    def __len__(self) -> int:
        """The number of batches in one epoch."""
        records = len(self._arrays[0])
        return records // self.batch_size if self.drop_last else -(-records // self.batch_size)

    def __iter__(self) -> Iterator[tuple]:
        batches = self.batches(self.epoch)
        self.epoch += 1
        return batches

    def set_epoch(self, epoch: int) -> None:
        """Number the next epoch `epoch`; its order and its random transforms depend on it."""
        self.epoch = _at_least(0, epoch, "epoch")

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple]:
        """The batches of one epoch from number `start` on, without touching the loader's own epoch."""
        _at_least(0, epoch, "epoch")
        if not 0 <= start <= len(self):
            raise ValueError(f"start is {start}; expected 0 to {len(self)}, the number of batches")
        # Numbers in the spawn key keep the streams of orders and transforms apart from each other.
        order = np.arange(len(self._arrays[0]))
        if self.shuffle:
            self._rng(0, epoch).shuffle(order)
        ready = (self._batch(order, epoch, k) for k in range(start, len(self)))
        return _ahead(ready, self.prefetch)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))

    def _batch(self, order: np.ndarray, epoch: int, k: int) -> tuple:
        rows = order[k * self.batch_size : (k + 1) * self.batch_size]
        inputs, *rest = (array[rows] for array in self._arrays)
        if inputs.dtype == np.uint8:
            inputs = np.divide(inputs, 255, dtype=np.float32)
        elif inputs.dtype.kind == "f":
            inputs = inputs.astype(np.float32, copy=False)
        if self.transform is not None:
            inputs = np.asarray(self.transform(inputs, self._rng(1, epoch, k)))
            if inputs.shape[:1] != rows.shape:
                raise ShapeError(f"the transform gave an array of shape {inputs.shape} for {len(rows)} records")
        return tuple(_upload(array, self.device) for array in (inputs, *rest))


def _ahead(batches: Iterator[tuple], count: int) -> Iterator[tuple]:
    """The same batches, each handed out only when `count` more have been made."""
    ready = deque(itertools.islice(batches, count))
    for batch in batches:
        ready.append(batch)
        yield ready.popleft()
    while ready:
        yield ready.popleft()


def _upload(array: np.ndarray, device):
    """Start the transfer to the device, without waiting for it; integers become int32, floats float32."""
    from clnn.tensor import tensor

    return tensor(array, device=device)


def _at_least(least: int, value: int, name: str) -> int:
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    return int(value)


def _check(dataset: ImageDataset | Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The arrays of a data set, or an exception that says why they cannot be cut into batches."""
    if isinstance(dataset, ImageDataset):
        arrays = dataset.images, dataset.labels
    elif isinstance(dataset, (tuple, list)) and dataset:
        arrays = tuple(np.asarray(array) for array in dataset)
    else:
        raise DTypeError(f"dataset is {type(dataset).__name__}; expected an ImageDataset or a tuple of arrays")
    for place, array in enumerate(arrays):
        if array.ndim == 0 or array.dtype.kind not in "iufb":
            raise DTypeError(
                f"array {place} of the data set is {array.dtype} of rank {array.ndim}; expected numbers, "
                "one row for each record (class labels as integers)"
            )
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ShapeError(f"the arrays of the data set have {lengths} records; expected equal lengths")
    if lengths[0] == 0:
        raise DataError("the data set is empty; expected at least one record")
    return arrays
