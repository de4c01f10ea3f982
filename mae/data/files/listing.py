"""Which files a split has and under which labels, without opening one and without torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mae.data.files.content import content_of, stamp_of


def printable(name: str) -> str:
    """A file name that any terminal can show: bytes that are no text appear as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Listing:
    """The files of one split in a fixed order: ``names`` from ``root``, ``labels`` index ``classes``, -1 without."""

    root: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        return self.root / self.names[row]

    def name(self, row: int) -> str:
        return self.names[row]

    def part(self, rows: Sequence[int]) -> Listing:
        """The files ``rows``; the classes stay those of all."""
        names, labels = tuple(self.names[row] for row in rows), tuple(self.labels[row] for row in rows)
        return replace(self, names=names, labels=labels)

    def stamp(self) -> str:
        """Hex digits that change whenever a file is touched."""
        return stamp_of(self.root, self.names)

    def content(self) -> str:
        """Hex digits over what the files hold, in this order; neither names nor labels count."""
        return content_of(self.root, self.names)

    def labelled(self) -> str:
        """Hex digits over what the files hold, their labels and the names of the classes."""
        text = f"{self.content()} {self.labels} {self.classes}"
        return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


class Sides(NamedTuple):
    """The files of a data set by what they are for; ``val`` is None where none are kept for validation."""

    train: Listing
    val: Listing | None
    test: Listing


def class_order(labels: set[str]) -> tuple[str, ...]:
    """Sorted; by value where all are whole numbers, so that "10" follows "9"."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def kept_apart(listing: Listing, share: float) -> tuple[Listing, Listing]:
    """``listing`` without a ``share`` of every class, and that share: files whose names have the lowest hashes.

    Two or more files of a class serve both sides. So a new file moves no other from one side to the other by its place.
    """
    by_label: dict[int, list[int]] = {}
    for row, label in enumerate(listing.labels):
        by_label.setdefault(label, []).append(row)
    apart: set[int] = set()
    for rows in by_label.values():
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        ranked = sorted(rows, key=lambda row: hashlib.sha256(os.fsencode(listing.names[row])).digest())
        apart.update(ranked[:count])
    return (
        listing.part([row for row in range(len(listing)) if row not in apart]),
        listing.part(sorted(apart)),
    )
