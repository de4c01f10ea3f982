"""Pictures that are decoded once, to one size, and kept as one array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from mae.data.files.cache import Item, decoded_once
from mae.data.files.listing import Listing
from mae.data.files.tally import MAX_FAILED, DecodeReport
from mae.data.files.workers import default_workers, in_processes
from mae.data.pictures.decode import MAX_PIXELS, WHITE, Decoding, cover, read_picture, reason, to_array
from mae.data.source import Images
from mae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

VERSION = 2  # raise it whenever the same files give other pixels
CHUNK = 256  # pictures per task of a process: large enough to hide its cost, small enough for the bar to move


class Pictures(Protocol):
    """Encoded pictures that are read one by one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, empty when the set does not tell."""
        ...

    @property
    def sequential(self) -> bool:
        """Whether pictures must be read in ascending order, by one process."""
        ...

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """What to call this picture in a message."""
        ...

    def read(self, row: int) -> tuple[Image.Image, int]:
        """The decoded picture and its label (-1 if it has none); may raise anything on a damaged one."""
        ...

    def stamp(self) -> str:
        """Hex digits that change whenever a picture is touched."""
        ...


@dataclass(frozen=True)
class PictureFiles:
    """The pictures of a listing, by path."""

    listing: Listing
    max_pixels: int = MAX_PIXELS
    sequential: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.listing.classes

    def __len__(self) -> int:
        return len(self.listing)

    def name(self, row: int) -> str:
        return self.listing.name(row)

    def path(self, row: int) -> Path:
        return self.listing.path(row)

    def read(self, row: int) -> tuple[Image.Image, int]:
        return read_picture(self.path(row), self.max_pixels), self.listing.labels[row]

    def stamp(self) -> str:
        return self.listing.stamp()


@dataclass(frozen=True)
class DecodedImages(Images):
    """Images together with the account of their decoding."""

    report: DecodeReport

    def to(self, device: torch.device) -> DecodedImages:
        return DecodedImages(self.pixels.to(device), self.labels.to(device), self.classes, self.report)


def decoded_pictures(
    pictures: Pictures | Listing,
    cache: Path,
    *,
    size: tuple[int, int],
    decoding: Decoding = Decoding(),  # noqa: B008, it is frozen
    workers: int | None = None,
    max_failed: float = MAX_FAILED,
) -> DecodedImages:
    """All pictures, by ``decoding``, as ``pixels: (n, C, h, w)`` uint8 that cover ``size = (h, w)``, centre cropped.

    The array is kept under ``cache`` by the stamp of the set, the size and the decoding, as ``decoded_once`` says.
    Other labels for the same files do not decode them again. An unreadable picture is left out and named in ``report``.
    ``workers``: processes, 0 for this one. Raises DataError when more than the share ``max_failed`` is unreadable, or
    the disk is too small.
    """
    channels, white = decoding.channels, decoding.white
    if min(size) < 1 or channels not in (1, 3):
        raise DataError(f"size={size}, channels={channels}: give a size from 1 pixel and 1 or 3 channels.")
    listing = pictures if isinstance(pictures, Listing) else None
    encoded: Pictures = PictureFiles(pictures, decoding.max_pixels) if isinstance(pictures, Listing) else pictures
    count = len(encoded)
    if not count:
        raise DataError("There are no pictures to decode; check the folder and the split.")
    if workers is None:
        workers = default_workers() if count >= 2 * CHUNK else 0  # starting a process costs more than a few files
    decoder = _Decoder(encoded, size, decoding)
    shape = (channels, *size)
    kind = f"c{channels}" + (f"-w{white}" if white != WHITE else "")
    kind += f"-p{decoding.max_pixels}" if decoding.max_pixels != MAX_PIXELS else ""
    found = decoded_once(
        cache / f"pictures-v{VERSION}-{encoded.stamp()}-{size[0]}x{size[1]}-{kind}.bin",
        [encoded.name(row) for row in range(count)],
        partial(_items, decoder, workers=0 if encoded.sequential else workers),
        shape,
        unit="picture",
        max_failed=max_failed,
        need=count * channels * size[0] * size[1],
    )
    labels = [listing.labels[row] for row in found.rows] if listing else found.labels
    classes = encoded.classes or tuple(str(label) for label in range(max(labels) + 1))
    return DecodedImages(found.frames, torch.tensor(labels), classes, found.report)


@dataclass(frozen=True)
class _Decoder:
    """What a process needs to decode rows."""

    pictures: Pictures
    size: tuple[int, int]
    decoding: Decoding


def _items(decoder: _Decoder, first: int, workers: int) -> Iterator[Item | str]:
    """The items from row ``first`` on."""
    count = len(decoder.pictures)
    chunks = [range(start, min(start + CHUNK, count)) for start in range(first, count, CHUNK)]
    try:
        for items in in_processes(_chunk, decoder, chunks, workers):
            yield from items
    except RuntimeError as error:
        raise DataError(str(error)) from error


def _chunk(decoder: _Decoder, rows: range) -> list[Item | str]:
    return [_item(decoder, row) for row in rows]


def _item(decoder: _Decoder, row: int) -> Item | str:
    pictures = decoder.pictures
    try:
        picture, label = pictures.read(row)
        return Item(to_array(cover(decoder.decoding.converted(picture), decoder.size))[None], int(label))
    except Exception as error:  # Pillow raises a dozen types; each means: unusable
        return reason(error, pictures.path(row) if isinstance(pictures, PictureFiles) else None)
