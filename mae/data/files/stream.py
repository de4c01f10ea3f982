"""Files that are read anew for every batch, by worker processes: for sets that do not fit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from mae.data.files.listing import Listing
from mae.data.files.tally import Tally
from mae.data.source import WHOLE, Batch, Places, generators, joined
from mae.errors import DataError

#: Bytes of examples that all workers together may have read ahead, in the memory that they share with this process.
READ_AHEAD = 1 << 30
#: Parts that a worker reads ahead.
PARTS_AHEAD = 2


class Shaped(Protocol):
    """What is known of the examples of a file before it is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an example, where a batch has none; those that are read must agree with one another."""
        ...

    @property
    def nbytes(self) -> int:
        """Most bytes that the examples of one file take."""
        ...


class Reader(Shaped, Protocol):
    """How one file becomes training examples; it is sent to the worker processes."""

    def examples(self, path: Path, generator: Generator) -> Sequence[Tensor]:
        """One uint8 example or several of the file at ``path``; DataError, without the path, if it cannot be used."""
        ...


@runtime_checkable
class PlacedReader(Shaped, Protocol):
    """A reader of files in which something lies at places; files may repeat, so it is told the row."""

    def placed(self, path: Path, row: int, generator: Generator) -> tuple[Tensor, Places]:
        """One uint8 example, and its places, as those of a batch of one; DataError as ``examples`` does."""
        ...


def streamed(
    listing: Listing,
    reader: Reader | PlacedReader,
    tally: Tally,
    order: Iterable[Tensor],
    device: torch.device,
    *,
    seed: int,
    workers: int,
    places: slice = WHOLE,
) -> Iterator[Batch]:
    """One batch for ``places`` of each index tensor of ``order: (B,)``, without unusable files, which ``tally`` counts.

    The draws for a file are seeded by ``seed``, the indices of the batch and the place in it. So they do not depend on
    the number of workers, a run that is resumed at any step draws what it would have drawn, and the next epoch, another
    permutation, draws anew. Workers live as long as this iterator, that is for a whole training; they are started as
    the platform does; 0 reads in this process.

    Workers read parts of batches, which go to ``device`` one by one and are put together there: what waits on the host
    is at most ``READ_AHEAD`` bytes, whatever the batch and the number of workers, unless a single file takes more.
    """
    size = part_size(reader.nbytes, workers)
    loader = DataLoader(
        _Parts(listing, reader, seed),
        batch_size=None,
        sampler=parts(order, size, places),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=device.type == "cuda",
        prefetch_factor=PARTS_AHEAD if workers else None,
        generator=Generator(),  # else the loader would draw from the global one
    )
    waiting: list[Batch] = []
    for read in loader:
        tally.note(read.rows, read.failed)
        if len(read.rows) or (read.last and not waiting):
            # copied on the CPU, too: what workers share is given back before the batch is whole
            examples, labels = (part.to(device, non_blocking=True, copy=True) for part in (read.examples, read.labels))
            waiting.append(Batch(examples, labels, read.rows, None if read.places is None else read.places.to(device)))
        if read.last:
            yield waiting[0] if len(waiting) == 1 else _joined(waiting)
            waiting = []


def _joined(waiting: Sequence[Batch]) -> Batch:
    """The parts of a batch as one."""
    images, labels, rows = (torch.cat(column) for column in zip(*(part[:3] for part in waiting), strict=True))
    return Batch(images, labels, rows, joined([(len(part.rows), part.places) for part in waiting]))


class Part(NamedTuple):
    """The places ``start`` to ``stop`` of a batch of ``rows``, and whether they are the ``last`` read of it."""

    rows: list[int]
    start: int
    stop: int
    last: bool


def part_size(nbytes: int, workers: int) -> int:
    """Files in a part, of ``nbytes`` bytes each, so that all parts read ahead are together within ``READ_AHEAD``."""
    return max(1, READ_AHEAD // (PARTS_AHEAD * max(1, workers) * nbytes))


def parts(order: Iterable[Tensor], size: int, places: slice = WHOLE) -> Iterator[Part]:
    """Cut ``places`` of each batch of ``order`` into parts of at most ``size``."""
    for index in order:
        rows = index.tolist()
        first, end, _ = places.indices(len(rows))
        for start in range(first, max(first + 1, end), size):
            yield Part(rows, start, min(start + size, end), start + size >= end)


class _Read(NamedTuple):
    """One part from a worker: examples, labels, their rows, and the rows that could not be read, with the reason.

    ``last`` is True of the last part of a batch. ``places`` are those of the examples, if they have any.
    """

    examples: Tensor
    labels: Tensor
    rows: Tensor
    failed: list[tuple[int, str]]
    last: bool
    places: Places | None = None


class _Parts(Dataset[_Read]):
    """Reads parts of batches: an item is one part."""

    def __init__(self, listing: Listing, reader: Reader | PlacedReader, seed: int) -> None:
        self.root, self.reader, self.seed = listing.root, reader, seed
        # One block of bytes: workers would copy a million strings page by page as reference counts change.
        self.names = np.array([os.fsencode(name) for name in listing.names], dtype=np.bytes_)
        self.labels = torch.tensor(listing.labels, dtype=torch.int64)

    def __getitem__(self, part: Part) -> _Read:
        places = slice(part.start, part.stop)
        examples: list[Tensor] = []
        kept: list[int] = []
        failed: list[tuple[int, str]] = []
        found: list[tuple[int, Places | None]] = []
        for row, generator in zip(part.rows[places], generators(self.seed, part.rows, places), strict=True):
            path = self.root / os.fsdecode(bytes(self.names[row]))
            try:
                if isinstance(self.reader, PlacedReader):
                    example, own = self.reader.placed(path, row, generator)
                    read: Sequence[Tensor] = [example]
                    found.append((1, own))
                else:
                    read = self.reader.examples(path, generator)
            except DataError as error:
                failed.append((row, str(error)))
                continue
            examples += read
            kept += [row] * len(read)
        pixels = torch.stack(examples) if examples else torch.empty(0, *self.reader.shape, dtype=torch.uint8)
        rows = torch.tensor(kept, dtype=torch.int64)
        return _Read(pixels, self.labels[rows], rows, failed, part.last, joined(found))


def _unchanged(read: Any) -> Any:
    return read
