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
from mae.data.pictures.depth import check_white, white_of
from mae.data.pictures.lists import pictures_in
from mae.data.pictures.stream import StreamedPictures
from mae.data.source import Source, Splits
from mae.errors import DataError


@dataclass(frozen=True, kw_only=True)
class PictureFolder(FileSet):
    """Pictures under ``root``, a folder or a CSV list as ``catalogue`` reads them.

    A study may use fewer than there are: all are read, so that one cache serves every part of them (``part_of``).
    ``test_share`` of each class of training is kept apart for testing where there are no pictures for that. A picture
    of more than ``max_pixels`` counts as unreadable. ``white`` is the value of 16-bit grey pixels that becomes 255;
    None stands for the highest of as many bits as the pictures of training use.
    """

    test_share: float = 0.0
    max_pixels: int = MAX_PIXELS
    white: int | None = None
    version: ClassVar[int] = VERSION

    def __post_init__(self) -> None:
        if self.white is not None:
            check_white(self.white, "data.source.white")

    def listed(self, root: Path) -> Sides:
        return pictures_in(root, test_share=self.test_share)

    def shape(self) -> dict[str, object]:
        stated = {} if self.white is None else {"white": self.white}
        return {"channels": self.channels, "max_pixels": self.max_pixels, **stated}

    def decoding(self, sides: Sides) -> Decoding:
        """How the files are read: 16-bit ones with the white that is stated, or as those of training show."""
        white = white_of(sides.train) if self.white is None else self.white
        return Decoding(self.channels, white, self.max_pixels)

    def checked(self) -> Sides:
        """The sides; DataError when a study counts on more pictures to train and test on than there are."""
        sides = self.sides()
        if not sides.test:  # to pre-train on, of which the study takes a part
            return sides
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
