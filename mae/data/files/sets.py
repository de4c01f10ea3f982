"""What data sets of files share, pictures and clips alike: where they lie, what they hold, and what a use reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mae.data.files.folders import check_tested
from mae.data.files.listing import Listing, Sides, kept_apart
from mae.data.source import DataSet, Holding, Source, Splits, Use
from mae.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FileSet(DataSet):
    """Files under ``root``; ``train`` and ``test`` are the numbers of them that a spec counts on.

    Each is decoded to 3 ``channels``, or to 1, which is grey.

    ``val_share`` of each class of training is kept apart for validation, by the hash of a file's name, where the set
    has no files for that. Pre-training reads the training files, as the papers do. ``workers`` is the number of
    processes that read files anew for every batch: None for as many as processors, 0 for none; it changes no example.
    """

    root: str | None
    train: int
    test: int
    channels: int = 3
    val_share: float = 0.0
    workers: int | None = None

    @abstractmethod
    def listed(self, root: Path) -> Sides:
        """Which files there are under ``root``."""

    @abstractmethod
    def shape(self) -> dict[str, object]:
        """How files become pixels, as JSON."""

    def sides(self) -> Sides:
        """Which files there are, those for validation kept apart; DataError when no root is given."""
        if self.root is None:
            raise DataError("The data is a folder of files and none is named; add data.source.root=PATH.")
        if self.workers is not None and self.workers < 0:
            raise DataError(f"workers={self.workers} is negative; choose 0 to read in this process, or null.")
        if not 0 <= self.val_share < 1:
            raise DataError(f"val_share={self.val_share} is no share; choose one from 0 to below 1, such as 0.1.")
        try:
            sides = self.listed(Path(self.root))
        except OSError as error:
            raise DataError(f"{error.filename} cannot be looked at ({error.strerror}); mend or remove it.") from error
        if not self.val_share:
            return sides
        if sides.val is not None:
            raise DataError(f"{self.root} has files for validation of its own; leave val_share away.")
        train, val = kept_apart(sides.train, self.val_share)
        if not val:
            raise DataError(f"{self.root}: val_share={self.val_share} leaves no file for validation; choose another.")
        return sides._replace(train=train, val=val)

    def holds(self) -> Holding | None:
        if self.root is None:
            return None
        train, _, test = self.sides()
        sizes = {"pretrain": len(train), "train": len(train), "test": len(test)}
        return Holding(self.root, sizes, len(train.classes), self.channels)

    def keeps_validation(self) -> bool:
        return self.root is not None and self.sides().val is not None

    def reads(self, use: Use) -> dict[str, object]:
        """The shape, and the content of the files; without labels for pre-training, and none while no root is given."""
        if self.root is None:
            return {**self.shape(), "files": None}
        train, val, test = self.sides()
        if use == "pretrain":
            return {**self.shape(), "pretrain": train.content()}
        check_tested(len(test), self.root)
        kept = {} if val is None else {"val": val.labelled()}
        return {**self.shape(), "train": train.labelled(), "test": test.labelled(), **kept}

    @staticmethod
    def splits(sides: Sides, read: Callable[[Listing], Source]) -> Splits:
        """The splits that ``read`` makes of the sides, those of training for pre-training, too.

        Without files for testing they also stand there, where no evaluation comes: ``reads`` refuses it.
        """
        train, val, test = sides
        first = read(train)
        return Splits(first, first, read(test) if test else first, None if val is None else read(val))
