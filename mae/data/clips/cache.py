"""Clips that are decoded once, to one size, and kept as one array of all their frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mae.data.clips.source import DecodedClips
from mae.data.clips.video import LIMIT, Video, in_threads
from mae.data.files.cache import Item, decoded_once
from mae.data.files.listing import Listing
from mae.data.files.tally import MAX_FAILED
from mae.data.files.workers import default_workers
from mae.errors import DataError

VERSION = 2  # raise it whenever the same files give other pixels


def decoded_clips(
    listing: Listing,
    cache: Path,
    *,
    size: tuple[int, int],
    channels: int = 3,
    workers: int | None = None,
    max_failed: float = MAX_FAILED,
    limit: float = LIMIT,
) -> DecodedClips:
    """All frames of all clips, of 1 or 3 ``channels``, each scaled to cover ``size = (h, w)`` and centre cropped.

    The file is kept under ``cache`` by the stamp of the set, the size and the channels, as ``decoded_once`` says. Other
    labels for the same files do not decode them again. An unusable clip is left out, named in ``report``. ``workers``
    decode at a time. Raises DataError when more than the share ``max_failed`` is unusable, or the disk is full.
    """
    if min(size) < 1 or not len(listing):
        raise DataError(f"{listing.root}: {len(listing)} clips at size={size}; give clips, and at least one pixel.")
    found = decoded_once(
        cache / f"clips-v{VERSION}-{listing.stamp()}-{size[0]}x{size[1]}{'' if channels == 3 else f'-c{channels}'}.bin",
        listing.names,
        _Decoder(listing, size, channels, limit, workers or default_workers()),
        (channels, *size),
        unit="clip",
        max_failed=max_failed,
    )
    return DecodedClips(
        found.frames,
        torch.tensor([0, *found.lengths]).cumsum(0),
        torch.tensor(listing.labels, dtype=torch.int64)[found.rows],
        listing.classes,
        names=tuple(listing.name(row) for row in found.rows),
        failed=found.report.failed,
        max_failed=max_failed,
    )


@dataclass(frozen=True)
class _Decoder:
    """Reads all frames of the clips of a listing, ``workers`` at a time."""

    listing: Listing
    size: tuple[int, int]
    channels: int
    limit: float
    workers: int

    def __call__(self, first: int) -> Iterator[Item | str]:
        rows = range(first, len(self.listing))
        return in_threads(self._read, rows, max(1, min(self.workers, len(rows))))

    def _read(self, row: int) -> Item | str:
        try:
            video = Video(self.listing.path(row), limit=self.limit)
            return Item(video.read(range(video.frames), size=self.size, channels=self.channels))
        except DataError as error:
            return str(error)
