"""Pictures and clips for a trained model: files of a folder, of a list, or one, as its test view shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from mae.data.augment.color import Normalise
from mae.data.augment.crops import CenterCrop
from mae.data.clips import video
from mae.data.clips.lists import clips_in_list
from mae.data.clips.readers.frame_folder import FRAME_SUFFIXES
from mae.data.clips.sampling import Dense
from mae.data.clips.stream import ClipFiles
from mae.data.files import folders
from mae.data.files.listing import Listing, class_order
from mae.data.files.tally import Tally
from mae.data.files.workers import default_workers
from mae.data.pictures import decode
from mae.data.pictures.decode import Decoding
from mae.data.pictures.depth import white_of
from mae.data.pictures.geometry import CentreView
from mae.data.pictures.lists import catalogue
from mae.data.pictures.stream import StreamedPictures
from mae.data.source import Source
from mae.errors import DataError
from mae.train.accuracy import in_order
from mae.weights.architecture import Architecture

#: A picture is scaled until it covers this many times the input, of which the centre is taken: 256 of 224 pixels.
COVER = 256 / 224

#: As many files are read by processes of their own only where there are more of them.
FEW = 64


@dataclass(frozen=True)
class Files:
    """The files of a ``listing``, and the ``splits`` that a folder or a list puts them in, "" for none."""

    listing: Listing
    splits: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.listing)

    def label(self, row: int) -> str:
        """The name of the class of a file, "" without one."""
        number = self.listing.labels[row]
        return self.listing.classes[number] if number >= 0 else ""


def files_at(path: Path, clips: bool) -> Files:
    """The pictures, or the ``clips``, in a folder or a list, or the one file at ``path``; DataError without any.

    Lists and folders are those that a training reads: splits and labels are kept.
    """
    wanted, other = (video.SUFFIXES, decode.SUFFIXES) if clips else (decode.SUFFIXES, video.SUFFIXES)
    kinds = ("clips", "pictures") if clips else ("pictures", "clips")
    if not path.exists():
        raise DataError(f"{path} does not exist; give a folder, a list or a file of {kinds[0]}.")
    if path.is_file() and path.suffix.lower() in wanted:
        return Files(Listing(path.parent, (path.name,), (-1,), ()), ("",))
    if path.is_file() and path.suffix.lower() in other:
        raise DataError(f"{path} is one of {kinds[1]}, and these weights read {kinds[0]}; give other files or weights.")
    if path.is_file() and clips:
        listing = clips_in_list(path)
        return Files(listing, ("",) * len(listing))
    found = folders.catalogue(path, wanted, FRAME_SUFFIXES) if clips else catalogue(path)
    if not found.entries:
        held = any(Path(name).suffix.lower() in other for name in found.ignored)
        also = f"it has {kinds[1]}, and these weights read {kinds[0]}" if held else f"{len(found.ignored)} other files"
        raise DataError(f"{path} holds no {kinds[0]} ({also}); give other files or weights.")
    classes = class_order({entry.label for entry in found.entries} - {""})
    number = {label: index for index, label in enumerate(classes)}
    names = tuple(entry.name for entry in found.entries)
    labels = tuple(number.get(entry.label, -1) for entry in found.entries)
    return Files(Listing(found.folder, names, labels, classes), tuple(entry.split for entry in found.entries))


@dataclass(frozen=True)
class Reading:
    """Files as the test view of a model: the centre of a picture, ``frames`` from the middle of a clip."""

    source: Source
    tally: Tally
    normalise: Normalise

    @classmethod
    def of(cls, files: Files, architecture: Architecture, workers: int | None = None) -> Reading:
        """``workers`` processes read the files, by default none for a few of them."""
        if workers is None:
            workers = default_workers() if len(files) > FEW else 0
        height, width = architecture.size
        normalise = Normalise(architecture.mean, architecture.std)
        channels = architecture.grid.channels
        if architecture.clips:
            clips = ClipFiles(files.listing, short_side=min(height, width), channels=channels, workers=workers)
            taken = clips.taking(Dense(architecture.frames, architecture.stride), view=0)
            return cls(taken.through(CenterCrop((height, width))), clips.tally, normalise)
        cover = (round(height * COVER), round(width * COVER))
        pictures = StreamedPictures(
            files.listing,
            CentreView((height, width), cover),
            decoding=Decoding(channels, white_of(files.listing)),
            workers=workers,
        )
        return cls(pictures, pictures.tally, normalise)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised ``(B, C, [T,] H, W)`` and the rows that they are, in order, without what cannot be read."""
        order = in_order(len(self.source), size)
        for batch in self.source.batches(order, device):
            yield self.normalise(batch.images, Generator(device)), batch.rows
