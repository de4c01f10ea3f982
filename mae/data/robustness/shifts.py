"""Shifted test sets: what a model trained on one kind of pictures is tested on besides (MAE Table 13, Appendix C).

Each is called as ``shift(test, view)`` with the test set of the data and the view that its pictures are tested through,
up to normalisation; it returns the parts of the shifted set, which count alike in the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from mae.data.augment.compose import Compose
from mae.data.files.listing import Listing
from mae.data.pictures.decode import Decoding
from mae.data.pictures.depth import white_of
from mae.data.pictures.lists import catalogue
from mae.data.pictures.stream import StreamedPictures
from mae.data.source import Augment, Shifted, Source
from mae.errors import DataError


class Shift(Protocol):
    """From the test set and its view to the parts of a shifted one."""

    def __call__(self, test: Source, view: Augment) -> tuple[Shifted, ...]: ...

    def identity(self) -> dict[str, object]:
        """What the shifted pictures depend on beside the test set, as JSON: content in the place of paths.

        The content is None while no root is given.
        """
        ...


@dataclass(frozen=True)
class Changed:
    """The test pictures themselves, in every way of ``changes``, which come after the crop as in ImageNet-C."""

    changes: Sequence[Augment]

    def __post_init__(self) -> None:
        if not self.changes:
            raise DataError("Changed: no change is named; list one or more under changes.")

    def __call__(self, test: Source, view: Augment) -> tuple[Shifted, ...]:
        return tuple(Shifted(test, Compose((view, change))) for change in self.changes)

    def identity(self) -> dict[str, object]:
        return {"changes": [repr(change) for change in self.changes]}


@dataclass(frozen=True)
class Folder:
    """Other pictures of the same classes, ``<class>/*`` below ``root`` under the names that training has for them.

    A set may have some of the classes only: predictions are then made among those, as ImageNet-A and -R define it.
    ``classes`` and ``samples`` state what the folder holds; a wrong number is refused with the right one.
    """

    root: str | None
    samples: int
    classes: int
    channels: int = 3

    def __call__(self, test: Source, view: Augment) -> tuple[Shifted, ...]:
        found = _listing(_place(self.root), test.classes)
        _count(self.root, len(found), self.samples)
        return (_shifted(found, view, self.classes, self.channels),)

    def identity(self) -> dict[str, object]:
        return {"channels": self.channels, "content": None if self.root is None else _content([_place(self.root)])}


@dataclass(frozen=True)
class CorruptionFolders:
    """The layout of ImageNet-C: ``<corruption>/<severity>/<class>/*`` below ``root``, each severity a part.

    The files of ImageNet-C have the size of the test crop already, so they are looked at through ``view`` and not
    through that of the test set, which would enlarge them. ``alexnet`` has AlexNet's error on each corruption, the mean
    over severities in percent, by which mCE divides; empty for none. Errors as of ``Folder``.
    """

    root: str | None
    corruptions: Sequence[str]
    severities: Sequence[int]
    view: Augment
    samples: int
    classes: int
    channels: int = 3
    alexnet: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.alexnet and (missing := sorted(set(self.corruptions) - set(self.alexnet))):
            raise DataError(f"CorruptionFolders: alexnet has no error for {missing[0]}; add it, or leave alexnet away.")

    def __call__(self, test: Source, view: Augment) -> tuple[Shifted, ...]:
        root, places = _place(self.root), self._places()
        if missing := [place.relative_to(root).as_posix() for place in places if not place.is_dir()]:
            raise DataError(
                f"{root} has no folder {missing[0]} ({len(missing)} of {len(places)} are missing); "
                "lay it out as <corruption>/<severity>/<class>/*."
            )
        found = [_listing(place, test.classes) for place in places]
        _count(self.root, sum(map(len, found)), self.samples)
        references = [self.alexnet.get(name) for name in self.corruptions for _ in self.severities]
        return tuple(
            _shifted(part, self.view, self.classes, self.channels)._replace(reference=reference)
            for part, reference in zip(found, references, strict=True)
        )

    def identity(self) -> dict[str, object]:
        content = None if self.root is None else _content(self._places())
        return {"channels": self.channels, "view": repr(self.view), "content": content}

    def _places(self) -> list[Path]:
        root = _place(self.root)
        return [root / name / str(severity) for name in self.corruptions for severity in self.severities]


def _place(root: str | None) -> Path:
    if root is None:
        raise DataError("A shifted test set is a folder and none is named; add evaluate_data.shifts.NAME.root=PATH.")
    return Path(root)


def _content(places: Sequence[Path]) -> list[str]:
    """What the folders hold, each with the names of its classes."""
    found = [catalogue(place) for place in places]
    return [
        _listing(place, sorted({e.label for e in held.entries})).labelled()
        for place, held in zip(places, found, strict=True)
    ]


def _listing(root: Path, classes: Sequence[str]) -> Listing:
    """The pictures of ``<class>/*``, labelled as ``classes`` are numbered; DataError for a class that is not there."""
    found = catalogue(root)
    if unknown := sorted({entry.label for entry in found.entries} - set(classes)):
        raise DataError(
            f"{root}: the classes {', '.join(map(repr, unknown[:5]))} ({len(unknown)}) are not among the "
            f"{len(classes)} training classes; name the folders as those of training are."
        )
    number = {name: index for index, name in enumerate(classes)}
    names, labels = (entry.name for entry in found.entries), (number[entry.label] for entry in found.entries)
    return Listing(found.folder, tuple(names), tuple(labels), tuple(classes))


def _count(root: str | None, found: int, stated: int) -> None:
    if found != stated:
        raise DataError(f"{root} has {found} pictures, the spec says {stated}; set the samples of this shift to match.")


def _shifted(found: Listing, view: Augment, classes: int, channels: int) -> Shifted:
    among = sorted(set(found.labels))
    if len(among) != classes:
        raise DataError(
            f"{found.root} has pictures of {len(among)} classes, the spec says {classes}; set the classes of this "
            "shift to match."
        )
    chosen = None if classes == len(found.classes) else torch.tensor(among)
    return Shifted(StreamedPictures(found, decoding=Decoding(channels, white_of(found))), view, chosen)
