"""Folders of pictures or clips by split and class: ``train/<class>/*``, ``test/<class>/*``, or ``<class>/*`` alone.

The splits may be called train or training, test or testing, and val, valid or validation, in any case of letters. A
folder of that name that holds files itself, and no folders, is a class, if it stands beside others. Files without any
folder of a class, ``*`` or ``train/*``, are unlabelled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mae.data.files.listing import Listing, Sides, class_order, kept_apart
from mae.errors import DataError

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
LAYOUT = "train/<class>/* with test/<class>/* (or val/<class>/*), or <class>/* alone"

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One file: ``split`` of SPLITS or "", ``label`` "" if unlabelled, ``name`` relative to the root."""

    split: str
    label: str
    name: str


@dataclass(frozen=True)
class Catalogue:
    """What lies under ``root``: files, class names by split (of empty folders too), what is not read."""

    root: Path
    entries: tuple[Entry, ...]
    classes: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the names of the entries start: ``root``, or the folder of a list."""
        return self.root if self.root.is_dir() else self.root.parent


def split_named(name: str) -> str | None:
    """The split of SPLITS that goes by ``name``."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), None)


def catalogue(root: Path, suffixes: frozenset[str], parts: frozenset[str] = frozenset()) -> Catalogue:
    """The files of a folder that end in ``suffixes``; DataError when it is none, or names a split twice.

    A folder below a class that holds files ending in ``parts``, and neither others of ``suffixes`` nor folders, counts
    as one file: a clip that is kept as pictures.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give one with {LAYOUT}.")
    folders: dict[str, str] = {}
    inside = [item for item in _scan(root) if item.is_dir()]
    unlabelled = all(split_named(item.name) and not _holds_folders(Path(item.path)) for item in inside)
    for item in inside:
        split = split_named(item.name) if unlabelled or _is_split(Path(item.path)) else None
        if split and split in folders:
            raise DataError(f"{root} has both {folders[split]}/ and {item.name}/; keep one as its {split} split.")
        if split:
            folders[split] = item.name
    _check_lone_split(root, folders, suffixes, parts)
    entries: list[Entry] = []
    classes: dict[str, tuple[str, ...]] = {}
    ignored: list[str] = []
    for split, folder in sorted(folders.items(), key=lambda item: list(SPLITS).index(item[0])) or [("", "")]:
        inside = _scan(root / folder)
        labels = [item.name for item in inside if item.is_dir()]
        ignored += [_join(folder, item.name) for item in inside if not item.is_dir()]
        classes[split] = tuple(labels)
        for label in labels:
            for name, wanted in _walk(root, _join(folder, label), suffixes, parts):
                if wanted:
                    entries.append(Entry(split, label, name))
                else:
                    ignored.append(name)
    if not entries and (unlabelled or not folders):
        flat = _unlabelled(root, folders or {"": ""}, suffixes, parts)
        if flat.entries:
            return flat
    return Catalogue(root, tuple(entries), classes, tuple(ignored))


def _unlabelled(root: Path, folders: dict[str, str], suffixes: frozenset[str], parts: frozenset[str]) -> Catalogue:
    """All files below the folder of each split, as files without labels."""
    found = {split: list(_walk(root, folder, suffixes, parts)) for split, folder in folders.items()}
    entries = tuple(Entry(split, "", name) for split in found for name, wanted in found[split] if wanted)
    ignored = tuple(name for walked in found.values() for name, wanted in walked if not wanted)
    return Catalogue(root, entries, dict.fromkeys(found, ()), ignored)


def _check_lone_split(root: Path, folders: dict[str, str], suffixes: frozenset[str], parts: frozenset[str]) -> None:
    """DataError when one folder has the name of a split and stands beside classes: it may be a class of that name."""
    if len(folders) != 1:
        return
    ((split, name),) = folders.items()
    beside = [item.name for item in _scan(root) if item.is_dir() and item.name != name]
    other = next((label for label in beside if any(wanted for _, wanted in _walk(root, label, suffixes, parts))), None)
    if other is not None:
        raise DataError(
            f"{root}: {name}/ may be the {split} split, or a class beside {other}/; move the classes into train/, or "
            f"{other}/ away."
        )


def sides_of(found: Catalogue, *, val_share: float = 0.0, test_share: float = 0.0) -> Sides:
    """The sides of a data set: files for testing are those of test, or of val where there is no test.

    Without files for testing, ``test_share`` of every training class is kept for that, and without a share there are
    none, which is enough to pre-train; without others for validation, ``val_share`` of every training class is, and
    without a share there is no validation. Classes are those of training, sorted, numbers by value. DataError when
    files for training are missing, a class is unknown in training, or a share is asked for of a set that has such
    files.
    """
    for key, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise DataError(f"{key}={share} is no share; choose one from 0 to below 1, such as 0.1.")
    by_split = {name: [entry for entry in found.entries if entry.split == name] for name in ("", *SPLITS)}
    pool = by_split["train"] or by_split[""]
    if not pool:
        raise DataError(f"{found.root} holds no files for training; looked for {LAYOUT}.")
    if found.ignored:
        log.info("%s: %d entries are of another kind and are left aside", found.root, len(found.ignored))
    classes = class_order({entry.label for entry in pool} - {""})
    train, val = _listing(found, pool, classes), None
    testing = "test" if by_split["test"] else "val"
    if test_share and not by_split[testing]:
        train, test = kept_apart(train, test_share)
    elif test_share:
        raise DataError(f"{found.root} has files for testing of its own; leave test_share away.")
    else:
        test = _listing(found, by_split[testing], classes)
    if testing == "test" and by_split["val"]:
        if val_share:
            raise DataError(f"{found.root} has files for validation of its own; leave val_share away.")
        val = _listing(found, by_split["val"], classes)
    elif val_share:
        train, val = kept_apart(train, val_share)
    if not train or (test_share and not test):
        raise DataError(f"{found.root}: the shares leave nothing for a side; choose others.")
    return Sides(train, val, test)


def check_tested(files: int, where: Path | str) -> None:
    """DataError where a set has no ``files`` to test on: an evaluation needs some, pre-training alone does not."""
    if not files:
        raise DataError(
            f"{where} has no files for testing under test/<class>/* or val/<class>/* (for a list: no such values in a "
            "column split), which an evaluation needs; add them, or keep a tenth of each class: "
            "data.source.test_share=0.1"
        )


def _listing(found: Catalogue, entries: Sequence[Entry], classes: tuple[str, ...]) -> Listing:
    known = {label: index for index, label in enumerate(classes)}
    unknown = sorted({entry.label for entry in entries} - known.keys() - ({""} if not classes else set()))
    if unknown:
        raise DataError(
            f"{found.root}: the {entries[0].split} classes {', '.join(map(repr, unknown[:5]))} ({len(unknown)}) are "
            f"not among the {len(classes)} training classes; add them to training or remove them."
        )
    names = tuple(entry.name for entry in entries)
    return Listing(found.folder, names, tuple(known.get(entry.label, -1) for entry in entries), classes)


def _is_split(folder: Path) -> bool:
    """Whether a folder that has the name of a split is one: it holds folders, or nothing."""
    return _holds_folders(folder) or not _scan(folder)


def _holds_folders(folder: Path) -> bool:
    return any(item.is_dir() for item in _scan(folder))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Entries by name; hidden ones (thumbnails, resource forks named like pictures) are not data."""
    with os.scandir(folder) as scan:
        return sorted((item for item in scan if not item.name.startswith(".")), key=lambda item: item.name)


def _walk(
    root: Path, folder: str, suffixes: frozenset[str], parts: frozenset[str], above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, bool]]:
    """Names below ``folder``, relative to ``root``, and whether each is wanted; a link to a folder ``above`` is not."""
    above |= {os.path.realpath(root / folder)}
    for item in _scan(root / folder):
        name = _join(folder, item.name)
        wanted = Path(item.name).suffix.lower() in suffixes
        if item.is_dir():
            if wanted or (item.is_symlink() and os.path.realpath(item.path) in above):
                yield name, False
            elif parts and _holds_parts(Path(item.path), suffixes, parts):
                yield name, True
            else:
                yield from _walk(root, name, suffixes, parts, above)
        else:
            yield name, wanted


def _holds_parts(folder: Path, suffixes: frozenset[str], parts: frozenset[str]) -> bool:
    inside = _scan(folder)
    kinds = {Path(item.name).suffix.lower() for item in inside}
    return bool(kinds & parts) and not kinds & suffixes and not any(item.is_dir() for item in inside)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
