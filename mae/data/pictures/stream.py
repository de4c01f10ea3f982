"""Pictures that are decoded anew for every batch, by worker processes: for sets that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Generator, Tensor

from mae.data.files.listing import Listing
from mae.data.files.stream import streamed
from mae.data.files.tally import MAX_FAILED, DecodeReport, Tally
from mae.data.files.workers import processors
from mae.data.pictures.decode import Decoding, reason, to_array
from mae.data.pictures.geometry import CentreView, Geometry, geometry_of
from mae.data.source import Augment, Batch, ReadsPlaces
from mae.errors import DataError


@dataclass(frozen=True)
class PictureReader:
    """One picture of a file, cropped by ``geometry`` from the original one."""

    geometry: Geometry
    decoding: Decoding

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.decoding.channels, *self.geometry.size)

    @property
    def nbytes(self) -> int:
        return prod(self.shape)

    def examples(self, path: Path, generator: Generator) -> list[Tensor]:
        try:
            picture = self.geometry(self.decoding(path), generator)
        except Exception as error:  # Pillow raises a dozen types on damaged files; each means: unusable
            raise DataError(reason(error, path)) from error
        return [torch.from_numpy(to_array(picture))]


class StreamedPictures(ReadsPlaces):
    """A source for pictures that do not fit: every batch is decoded from its files, as ``streamed`` does.

    An unreadable file makes its batch one smaller; it is named once and kept in ``report``. DataError when their share
    exceeds ``max_failed``. ``labels: (n,)`` int64.
    """

    def __init__(
        self,
        listing: Listing,
        geometry: Geometry | None = None,
        *,
        decoding: Decoding = Decoding(),  # noqa: B008, it is frozen
        seed: int = 0,
        workers: int | None = None,
        max_failed: float = MAX_FAILED,
    ) -> None:
        if decoding.channels not in (1, 3):
            raise DataError(f"channels={decoding.channels}: pictures are decoded to 1 or 3 channels.")
        self.listing, self.geometry, self.decoding, self.seed = listing, geometry or CentreView(), decoding, seed
        self.workers = processors() if workers is None else workers
        self.classes = listing.classes
        self.labels = torch.tensor(listing.labels, dtype=torch.int64)
        self.tally = Tally(listing.names, str(listing.root), max_failed)

    def __len__(self) -> int:
        return len(self.listing)

    @property
    def report(self) -> DecodeReport:
        """Pictures read so far, each counted once, and those that failed."""
        return self.tally.report

    def through(self, crop: Augment) -> StreamedPictures:
        """The same files, each cropped as ``crop`` crops a batch, where it is decoded. DataError if that cannot be."""
        return self._again(self.listing, geometry_of(crop))

    def part(self, ids: Tensor) -> StreamedPictures:
        """The files ``ids: (n,)`` int64, of which alone it reports; the classes stay those of all."""
        return self._again(self.listing.part(ids.tolist()), self.geometry)

    def _again(self, listing: Listing, geometry: Geometry) -> StreamedPictures:
        return StreamedPictures(
            listing, geometry,
            decoding=self.decoding, seed=self.seed, workers=self.workers, max_failed=self.tally.max_failed,
        )  # fmt: skip

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """One batch ``(B, C, h, w)`` for each index tensor of ``order``, without the unreadable pictures."""
        reader = PictureReader(self.geometry, self.decoding)
        return streamed(
            self.listing, reader, self.tally, order, device,
            seed=self.seed, workers=self.workers, places=self.places,
        )  # fmt: skip
