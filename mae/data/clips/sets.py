"""Clips that users have as the data of a study: decoded once (``size``), or streamed from files (``short_side``)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mae.data.clips import lists
from mae.data.clips.cache import VERSION, decoded_clips
from mae.data.clips.readers.frame_folder import FRAME_SUFFIXES
from mae.data.clips.stream import ClipFiles
from mae.data.clips.video import SUFFIXES
from mae.data.files.folders import catalogue, sides_of
from mae.data.files.listing import Listing, Sides
from mae.data.files.sets import FileSet
from mae.data.source import Source, Splits
from mae.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ClipSet(FileSet):
    """Clips under ``root``, exactly as many for training and testing as a spec counts on.

    One of two is given: with ``size = (h, w)`` clips are decoded once, cropped to that and kept in the cache; with
    ``short_side`` they are decoded for every batch, scaled to that. Raises DataError when files are missing or counts
    differ, and as ``decoded_clips`` does.
    """

    size: Sequence[int] | None = None
    short_side: int | None = None
    version: ClassVar[int] = VERSION

    def __post_init__(self) -> None:
        if (self.size is None) == (self.short_side is None):
            raise DataError(f"size={self.size}, short_side={self.short_side}: give one of the two.")
        if self.channels not in (1, 3):
            raise DataError(f"channels={self.channels}: clips are decoded to 3 channels, or to 1, which is grey.")

    def shape(self) -> dict[str, object]:
        grey = {} if self.channels == 3 else {"channels": self.channels}
        return {"size": list(self.size), **grey} if self.size is not None else {"short_side": self.short_side, **grey}

    def streams(self) -> bool:
        return self.short_side is not None

    def __call__(self, cache: Path) -> Splits:
        sides = self.sides()
        for split, count in (("train", self.train), ("test", self.test)):
            side: Listing = getattr(sides, split)
            if len(side) != count and (side or split == "train"):  # without any to test on there is pre-training
                raise DataError(
                    f"{side.root} has {len(side)} clips for {split}, the spec says {count}; "
                    f"set data.source.{split} to match."
                )

        def read(side: Listing) -> Source:
            if self.short_side is not None:
                return ClipFiles(side, short_side=self.short_side, channels=self.channels, workers=self.workers)
            height, width = self.size or (0, 0)
            return decoded_clips(side, cache, size=(height, width), channels=self.channels)

        return self.splits(sides, read)


@dataclass(frozen=True, kw_only=True)
class ClipFolder(ClipSet):
    """Clips in train/<class>/ and test|val/<class>/ under ``root``.

    ``test_share`` of each class of training is kept apart for testing where the folder has no clips for that.
    """

    test_share: float = 0.0

    def listed(self, root: Path) -> Sides:
        return sides_of(catalogue(root, SUFFIXES, FRAME_SUFFIXES), test_share=self.test_share)


@dataclass(frozen=True, kw_only=True)
class ClipList(ClipSet):
    """Clips under ``root`` that two lists name, in lines of a path and a label; so are Kinetics and others shared.

    The lists' names start from ``root`` too. ``classes`` is the number of labels.
    """

    train_list: str
    test_list: str
    classes: int
    delimiter: str | None = None

    def listed(self, root: Path) -> Sides:
        train = lists.clips_in_list(root / self.train_list, root=root, delimiter=self.delimiter)
        numbered = not train.classes or train.classes[0] == "0"
        classes = self.classes if numbered else train.classes
        test = lists.clips_in_list(root / self.test_list, root=root, classes=classes, delimiter=self.delimiter)
        found = len(train.classes)
        if found > self.classes or (not numbered and found != self.classes):
            raise DataError(
                f"{root / self.train_list} has {found} classes, the spec says {self.classes}; "
                "set data.classes to match."
            )
        return Sides(replace(train, classes=test.classes), None, test)


@dataclass(frozen=True, kw_only=True)
class SomethingSomething(ClipSet):
    """Something-Something V2 by its official JSON files and its folder ``videos``, all under ``root``.

    The test set is the validation list, as in the paper.
    """

    train_list: str
    test_list: str
    labels: str
    videos: str

    def listed(self, root: Path) -> Sides:
        train, test = (
            lists.clips_in_json(root / name, labels=root / self.labels, root=root / self.videos)
            for name in (self.train_list, self.test_list)
        )
        return Sides(train, None, test)


@dataclass(frozen=True, kw_only=True)
class FoldedClips(ClipSet):
    """Clips in ``videos`` that official files in the folder ``lists`` divide in folds, both under ``root``."""

    lists: str
    videos: str
    fold: int = 1

    @abstractmethod
    def side(self, folder: Path, split: str, root: Path) -> Listing:
        """The clips of a split of the fold, by the files in ``folder``."""

    def listed(self, root: Path) -> Sides:
        train, test = (self.side(root / self.lists, split, root / self.videos) for split in ("train", "test"))
        return Sides(train, None, test)


@dataclass(frozen=True, kw_only=True)
class UCF101(FoldedClips):
    """UCF101 by its official files; clips in ``videos``."""

    def side(self, folder: Path, split: str, root: Path) -> Listing:
        return lists.ucf101(folder, split, root=root, fold=self.fold)


@dataclass(frozen=True, kw_only=True)
class HMDB51(FoldedClips):
    """HMDB51 by its official files; clips in ``videos``/<class>/."""

    def side(self, folder: Path, split: str, root: Path) -> Listing:
        return lists.hmdb51(folder, split, root=root, fold=self.fold)
