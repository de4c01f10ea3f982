"""A set of encoded pictures, and the account of decoding it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from mae.data.files.listing import printable
from mae.data.source import Images
from mae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


class Pictures(Protocol):
    """Encoded pictures that are read one by one; ``Listing`` and ``TimmPictures`` are such sets."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, empty when the set does not tell."""
        ...

    @property
    def sequential(self) -> bool:
        """Whether pictures must be read in ascending order, by one process."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call this picture in a message."""
        ...

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The decoded picture and its label (-1 if it has none); may raise anything on a damaged one."""
        ...

    def digest(self, times: bool = False) -> str:
        """Identity of the content; with ``times`` a touched file counts as another."""
        ...


@dataclass(frozen=True)
class DecodeReport:
    """How many pictures were read, and which were left out and why: ``failed`` holds (name, reason)."""

    read: int
    failed: tuple[tuple[str, str], ...] = ()

    def check(self, max_failed: float, where: str) -> None:
        """Raise DataError when more than the share ``max_failed`` failed, or nothing was read."""
        total = self.read + len(self.failed)
        if self.failed and (self.read == 0 or len(self.failed) > max_failed * total):
            name, why = self.failed[0]
            raise DataError(
                f"{where}: {len(self.failed)} of {total} files are unreadable, more than the share "
                f"{max_failed} allowed (first: {printable(name)}: {why}); run `python -m mae.data.check` "
                "(`--clips` for clips), then repair or remove these files."
            )


@dataclass(frozen=True)
class DecodedImages(Images):
    """Images together with the account of their decoding."""

    report: DecodeReport

    def to(self, device: torch.device) -> DecodedImages:
        return DecodedImages(self.pixels.to(device), self.labels.to(device), self.classes, self.report)
