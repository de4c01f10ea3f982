"""Files that are read anew for every batch, by worker processes: for sets that do not fit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from mae.data.files.listing import Listing
from mae.data.files.tally import Tally
from mae.data.source import Batch, generators
from mae.errors import DataError


class Reader(Protocol):
    """How one file becomes training examples; it is sent to the worker processes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an example, where a batch has none; those that are read must agree with one another."""
        ...

    def examples(self, path: Path, generator: Generator) -> Sequence[Tensor]:
        """One uint8 example or several of the file at ``path``; DataError, without the path, if it cannot be used."""
        ...


def streamed(
    listing: Listing,
    reader: Reader,
    tally: Tally,
    order: Iterable[Tensor],
    device: torch.device,
    *,
    seed: int,
    workers: int,
) -> Iterator[Batch]:
    """One batch for each index tensor of ``order: (B,)``, without unusable files, which ``tally`` counts.

    The draws for a file are seeded by ``seed``, the indices of the batch and the place in it. So they do not depend on
    the number of workers, a run that is resumed at any step draws what it would have drawn, and the next epoch, another
    permutation, draws anew. Workers live as long as this iterator, that is for a whole training; they are started as
    the platform does; 0 reads in this process.
    """
    loader = DataLoader(
        _Batches(listing, reader, seed),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if workers else None,
        generator=Generator(),  # else the loader would draw from the global one
    )
    for read in loader:
        tally.note(read.rows, read.failed)
        yield Batch(read.examples.to(device, non_blocking=True), read.labels.to(device, non_blocking=True), read.rows)


class _Read(NamedTuple):
    """One batch from a worker: examples, labels, their rows, and the rows that could not be read, with the reason."""

    examples: Tensor
    labels: Tensor
    rows: Tensor
    failed: list[tuple[int, str]]


class _Batches(Dataset[_Read]):
    """Reads whole batches: an item is the batch of one index tensor."""

    def __init__(self, listing: Listing, reader: Reader, seed: int) -> None:
        self.root, self.reader, self.seed = listing.root, reader, seed
        # One block of bytes: workers would copy a million strings page by page as reference counts change.
        self.names = np.array([os.fsencode(name) for name in listing.names], dtype=np.bytes_)
        self.labels = torch.tensor(listing.labels, dtype=torch.int64)

    def __getitem__(self, index: Tensor) -> _Read:
        asked = index.tolist()
        examples: list[Tensor] = []
        kept: list[int] = []
        failed: list[tuple[int, str]] = []
        for row, generator in zip(asked, generators(self.seed, asked), strict=True):
            try:
                read = self.reader.examples(self.root / os.fsdecode(bytes(self.names[row])), generator)
            except DataError as error:
                failed.append((row, str(error)))
                continue
            examples += read
            kept += [row] * len(read)
        pixels = torch.stack(examples) if examples else torch.empty(0, *self.reader.shape, dtype=torch.uint8)
        rows = torch.tensor(kept, dtype=torch.int64)
        return _Read(pixels, self.labels[rows], rows, failed)


def _unchanged(read: Any) -> Any:
    return read
