"""Pictures that users have: decoded once (``cached``) or anew for every batch (``ImageFiles``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from mae.data.files.cache import VERSION, cached
from mae.data.files.listing import Listing, image_files, listing_digest, printable
from mae.data.files.tally import DecodedImages, DecodeReport, Pictures
from mae.data.files.workers import default_workers
from mae.data.pictures.decode import read_picture, reason, to_array, with_channels
from mae.data.pictures.geometry import CentreView, Geometry, RandomView
from mae.data.pictures.timm import TimmPictures, timm_dataset
from mae.data.source import Batch, Splits, generators
from mae.errors import DataError

__all__ = [
    "CentreView", "DecodeReport", "DecodedImages", "Geometry", "ImageFiles", "Listing", "Pictures",
    "RandomView", "TimmPictures", "cached", "image_files", "listing_digest", "splits", "timm_dataset",
]  # fmt: skip

log = logging.getLogger(__name__)


class _Decoded(NamedTuple):
    """One batch from a worker: pixels, labels, their rows, and the rows that could not be read, with the reason."""

    images: Tensor
    labels: Tensor
    rows: Tensor
    failed: list[tuple[int, str]]


class _Decoder(Dataset[_Decoded]):
    """Decodes whole batches: an item is the batch of one index tensor."""

    def __init__(self, listing: Listing, geometry: Geometry, channels: int, seed: int) -> None:
        self.root, self.geometry, self.channels, self.seed = listing.root, geometry, channels, seed
        # One block of bytes: workers would copy a million strings page by page as reference counts change.
        self.names = np.array([os.fsencode(name) for name in listing.names], dtype=np.bytes_)
        self.labels = torch.tensor(listing.labels, dtype=torch.int64)

    def path(self, row: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[row]))

    def __getitem__(self, index: Tensor) -> _Decoded:
        rows = index.tolist()
        images, kept, failed = [], [], []
        for row, generator in zip(rows, generators(self.seed, rows), strict=True):
            path = self.path(row)
            try:
                picture = self.geometry(with_channels(read_picture(path), self.channels), generator)
            except Exception as error:  # Pillow raises a dozen types on damaged files; each means: unusable
                failed.append((row, reason(error, path)))
                continue
            images.append(torch.from_numpy(to_array(picture)))
            kept.append(row)
        empty = torch.empty(0, self.channels, *self.geometry.size, dtype=torch.uint8)
        pixels = torch.stack(images) if images else empty
        return _Decoded(pixels, self.labels[kept], torch.tensor(kept, dtype=torch.int64), failed)


class ImageFiles:
    """A source for sets that do not fit: every batch is decoded from its files by worker processes.

    ``geometry`` is applied to the original picture. Its draws for a picture are seeded by ``seed``, the
    indices of the batch and the place in it: so they do not depend on the number of workers, a run that is
    resumed at any step draws what it would have drawn, and the next epoch, another permutation, draws anew.
    An unreadable file makes its batch one smaller; it is named once and kept in ``report``. DataError when
    their share exceeds ``max_failed``. Workers live as long as one ``batches``, that is for a whole training;
    they are started as the platform does.
    """

    def __init__(
        self,
        listing: Listing,
        geometry: Geometry,
        *,
        channels: int = 3,
        seed: int = 0,
        workers: int | None = None,
        max_failed: float = 0.05,
    ) -> None:
        if channels not in (1, 3):
            raise DataError(f"channels={channels}: pictures are decoded to 1 or 3 channels.")
        self.classes = listing.classes
        self.workers = default_workers() if workers is None else workers
        self.max_failed = max_failed
        self._root = listing.root
        self._decoder = _Decoder(listing, geometry, channels, seed)
        self._read = torch.zeros(len(listing), dtype=torch.bool)
        self._failed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._read)

    @property
    def report(self) -> DecodeReport:
        """Pictures read so far, each counted once, and those that failed."""
        names = (os.fsdecode(bytes(self._decoder.names[row])) for row in sorted(self._failed))
        failed = tuple(zip(names, (self._failed[row] for row in sorted(self._failed)), strict=True))
        return DecodeReport(int(self._read.sum()), failed)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """One batch ``(B, C, h, w)`` for each index tensor of ``order``, without the unreadable pictures."""
        asked: list[Tensor] = []
        loader = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=_Noted(order, asked),
            num_workers=self.workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            generator=Generator(),  # else the loader would draw from the global one
        )
        for decoded in loader:
            rows = asked.pop(0)
            for row, why in decoded.failed:
                if row not in self._failed:
                    log.warning("left out: %s: %s", printable(str(self._decoder.path(row))), why)
                self._failed[row] = why
            self._read[rows] = True
            self._read[list(self._failed)] = False
            if decoded.failed:
                failed = self.report.failed
                DecodeReport(len(self) - len(failed), failed).check(self.max_failed, str(self._root))
            yield Batch(
                decoded.images.to(device, non_blocking=True),
                decoded.labels.to(device, non_blocking=True),
                decoded.rows,
            )


class _Noted:
    """The order as a sampler, remembering what was asked for until its batch comes back."""

    def __init__(self, order: Iterable[Tensor], asked: list[Tensor]) -> None:
        self.order, self.asked = order, asked

    def __iter__(self) -> Iterator[Tensor]:
        for index in self.order:
            self.asked.append(index)
            yield index


def _unchanged(decoded: Any) -> Any:
    return decoded


def splits(
    train: Pictures,
    test: Pictures,
    cache: Path,
    *,
    size: int | tuple[int, int],
    name: str,
    channels: int | None = 3,
    budget: int = 4 * 2**30,
    workers: int | None = None,
    max_failed: float = 0.05,
) -> Splits:
    """Both sides of a data set through ``cached``; pre-training reads the training pictures (the papers do).

    ``name`` leads the identity, which goes on with the content's digest and the geometry.
    Raises DataError as ``cached`` does, and when the two sides disagree about classes or channels.
    """
    first, second = (
        cached(side, cache, size=size, channels=channels, budget=budget, workers=workers, max_failed=max_failed)
        for side in (train, test)
    )
    if train.classes != test.classes or int(second.labels.max()) >= max(len(first.classes), 1):
        raise DataError(
            f"{name}: training has the classes {first.classes[:5]}, testing {second.classes[:5]}; align them."
        )
    if first.pixels.shape[1:] != second.pixels.shape[1:]:
        raise DataError(f"{name}: training and testing files differ in channels; state channels=1 or channels=3.")
    shape = "x".join(map(str, first.pixels.shape[1:]))
    identity = f"{name}-v{VERSION}-{train.digest()}-{test.digest()}-{shape}-{len(first)}-{len(second)}"
    return Splits(pretrain=first, train=first, test=replace(second, classes=first.classes), identity=identity)
