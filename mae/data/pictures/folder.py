"""A folder, or a list, of pictures as the data of a study: decoded once, or streamed from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mae.data.files.listing import Listing, Sides
from mae.data.files.sets import FileSet
from mae.data.pictures.cache import VERSION, decoded_pictures
from mae.data.pictures.decode import MAX_PIXELS, Decoding
from mae.data.pictures.depth import white_of
from mae.data.pictures.lists import pictures_in
from mae.data.pictures.stream import StreamedPictures
from mae.data.source import Source, Splits
from mae.errors import DataError


@dataclass(frozen=True, kw_only=True)
class PictureFolder(FileSet):
    """Pictures under ``root``, a folder or a CSV list as ``catalogue`` reads them, with ``channels`` 1 or 3.

    A study may use fewer than there are: all are read, so that one cache serves every part of them (``part_of``).
    ``test_share`` of each class of training is kept apart for testing where there are no pictures for that. A picture
    of more than ``max_pixels`` counts as unreadable.
    """

    channels: int
    test_share: float = 0.0
    max_pixels: int = MAX_PIXELS
    version: ClassVar[int] = VERSION

    def listed(self, root: Path) -> Sides:
        return pictures_in(root, test_share=self.test_share)

    def shape(self) -> dict[str, object]:
        return {"channels": self.channels, "max_pixels": self.max_pixels}

    def decoding(self, sides: Sides) -> Decoding:
        """How the files are read: 16-bit ones as those of training show."""
        return Decoding(self.channels, white_of(sides.train), self.max_pixels)

    def checked(self) -> Sides:
        """The sides; DataError when a study counts on more pictures than there are."""
        sides = self.sides()
        for name, count in (("train", self.train), ("test", self.test)):
            held = len(getattr(sides, name))
            if count > held:
                also = " (and data.samples.pretrain)" if name == "train" else ""
                raise DataError(
                    f"{self.root} has {held} pictures for {name}, the spec asks for {count}; lower "
                    f"data.samples.{name}{also} to {held} or less."
                )
        return sides


@dataclass(frozen=True, kw_only=True)
class DecodedFolder(PictureFolder):
    """The pictures under ``root``, decoded once to ``size = (h, w)`` and kept under the cache.

    Raises DataError as ``decoded_pictures`` does, too.
    """

    size: Sequence[int]

    def shape(self) -> dict[str, object]:
        return {**super().shape(), "size": list(self.size)}

    def __call__(self, cache: Path) -> Splits:
        height, width = self.size
        sides = self.checked()
        decoding = self.decoding(sides)

        def decoded(side: Listing) -> Source:
            return decoded_pictures(side, cache, size=(height, width), decoding=decoding)

        return self.splits(sides, decoded)


@dataclass(frozen=True, kw_only=True)
class StreamedFolder(PictureFolder):
    """The pictures under ``root``, decoded anew for every batch by worker processes; a study gives them a crop.

    Nothing is kept, so the cache is not used.
    """

    def streams(self) -> bool:
        return True

    def __call__(self, cache: Path) -> Splits:
        sides = self.checked()
        decoding = self.decoding(sides)

        def streamed(side: Listing) -> Source:
            return StreamedPictures(side, decoding=decoding, workers=self.workers)

        return self.splits(sides, streamed)
