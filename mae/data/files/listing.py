"""Which pictures a folder or a list file holds, under which labels, without opening one and without torch."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from mae.data.pictures.decode import SUFFIXES, read_picture
from mae.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


SPLITS = ("train", "test", "val")
LAYOUTS = "train/<class>/* with test/<class>/* (or val/<class>/*), <class>/*, or a CSV list with header path,label"

log = logging.getLogger(__name__)


def printable(name: str) -> str:
    """A file name that any terminal can show: bytes that are no text appear as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


class Entry(NamedTuple):
    """One picture: ``split`` of SPLITS or "", ``label`` "" if unlabelled, ``name`` relative to the root."""

    split: str
    label: str
    name: str


@dataclass(frozen=True)
class Catalogue:
    """What lies under ``root``: pictures, class names by split (of empty folders too), what is not read."""

    root: Path
    entries: tuple[Entry, ...]
    classes: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Picture files of one split, in a fixed order; ``labels`` index ``classes``, -1 if unlabelled."""

    root: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    sequential: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The decoded picture and its label; raises what ``read_picture`` raises."""
        return read_picture(self.path(index)), self.labels[index]

    def digest(self, times: bool = False) -> str:
        """16 hex digits over names, labels and file sizes; with ``times`` over modification times as well."""
        return _digest(self.root, zip(self.names, map(str, self.labels), strict=True), times)


def catalogue(root: Path | str) -> Catalogue:
    """What a folder or a CSV list holds; DataError when there is no such thing or the list is malformed."""
    root = Path(root)
    if root.is_file():
        return _read_list(root)
    if not root.is_dir():
        raise DataError(f"{root} is neither a folder nor a list file; give {LAYOUTS}.")
    splits = [name for name in SPLITS if (root / name).is_dir()]
    entries: list[Entry] = []
    classes: dict[str, tuple[str, ...]] = {}
    ignored: list[str] = []
    for split in splits or [""]:
        inside = _sorted_scan(root / split)
        folders = [item.name for item in inside if item.is_dir()]
        ignored += [_join(split, item.name) for item in inside if not item.is_dir()]
        classes[split] = tuple(folders)
        for label in folders:
            for name, is_picture in _walk(root, _join(split, label)):
                if is_picture:
                    entries.append(Entry(split, label, name))
                else:
                    ignored.append(name)
    return Catalogue(root, tuple(entries), classes, tuple(ignored))


def image_files(root: Path | str, split: str, *, held_out: float = 0.0) -> Listing:
    """The pictures of ``split``: "train", "test" or "val"; "test" is served by val where there is no other.

    ``root`` is a folder, train/<class>/* and test|val/<class>/*, or <class>/* alone; or a CSV list with the
    header path[,label][,split], paths relative to the list. Without splits a share ``held_out`` of every
    class, chosen by a hash of the name, is kept for testing. Classes are sorted (numbers by value) and are
    those of training. Raises DataError when the layout is not there, a class of testing is unknown in
    training, or nothing is left.
    """
    if split not in SPLITS:
        raise DataError(f"split={split!r} is not known; choose one of {', '.join(SPLITS)}.")
    if not 0.0 <= held_out < 1.0:
        raise DataError(f"held_out={held_out} is no share; choose one from 0 to below 1, such as 0.1.")
    found = catalogue(root)
    by_split = {name: [e for e in found.entries if e.split == name] for name in found.classes}
    pool = "" if "" in found.classes else "train"
    if not by_split.get(pool):
        raise DataError(
            f"{found.root} holds no pictures for training: looked for {LAYOUTS}, files ending in "
            f"{' '.join(sorted(SUFFIXES))}; for unlabelled ones give a list with the column path alone."
        )
    if found.ignored:
        log.info("%s: %d entries are not pictures and are left aside", found.root, len(found.ignored))
    classes = _class_names(by_split[pool])
    testing = next((name for name in (split, "val") if split != "train" and by_split.get(name)), None)
    has_test = bool(by_split.get("test") or by_split.get("val"))
    if held_out and has_test:
        raise DataError(f"{found.root} has pictures for testing of its own; leave held_out away.")
    if held_out:
        chosen = _divide(by_split[pool], held_out, testing=split != "train")
    elif split == "train" and pool == "train":
        chosen = by_split["train"]
    elif testing is not None:
        chosen = by_split[testing]
    else:
        looked = "test/<class>/* or val/<class>/*" if split != "val" else "val/<class>/*"
        looked = "train/<class>/* and test/<class>/*" if pool == "" else looked
        raise DataError(
            f"{found.root} has no pictures under {looked} (for a list: no such values in a column split); "
            "add them, or pass held_out=0.1 to keep a tenth of each class for testing."
        )
    known = {label: index for index, label in enumerate(classes)}
    unknown = sorted({e.label for e in chosen} - known.keys() - ({""} if not classes else set()))
    if unknown:
        raise DataError(
            f"{found.root}: the {split} classes {', '.join(map(repr, unknown[:5]))} ({len(unknown)}) are not "
            f" among the {len(classes)} training classes; add them to training or remove them."
        )
    if not chosen:
        raise DataError(f"{found.root}: held_out={held_out} leaves no picture for {split}; choose another share.")
    return Listing(
        found.root if found.root.is_dir() else found.root.parent,
        tuple(e.name for e in chosen),
        tuple(known.get(e.label, -1) for e in chosen),
        classes,
    )


def listing_digest(source: Path | str | Listing | Catalogue) -> str:
    """16 hex digits that identify a data set in a fingerprint: splits, labels, names and sizes of its files.

    Modification times are left out: a copy on another machine is the same data. Neither torch nor a picture
    is opened.
    """
    if isinstance(source, Listing):
        return source.digest()
    found = source if isinstance(source, Catalogue) else catalogue(source)
    root = found.root if found.root.is_dir() else found.root.parent
    return _digest(root, ((e.name, f"{e.split}/{e.label}") for e in found.entries), times=False)


def class_order(labels: set[str]) -> tuple[str, ...]:
    """Sorted; by value where all are whole numbers, so that "10" follows "9"."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _class_names(entries: list[Entry]) -> tuple[str, ...]:
    return class_order({e.label for e in entries} - {""})


def _divide(entries: list[Entry], share: float, testing: bool) -> list[Entry]:
    """Per class the ``round(share * n)`` names of lowest hash test; two or more serve both sides."""
    by_label: dict[str, list[Entry]] = {}
    for entry in entries:
        by_label.setdefault(entry.label, []).append(entry)
    held: set[str] = set()
    for members in by_label.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        ranked = sorted(members, key=lambda e: hashlib.sha256(os.fsencode(e.name)).digest())
        held.update(e.name for e in ranked[:count])
    return [e for e in entries if (e.name in held) == testing]


def _digest(root: Path, rows: Iterator[tuple[str, str]] | zip[tuple[str, str]], times: bool) -> str:
    digest = hashlib.sha256()
    for name, label in rows:
        try:
            stat = (root / name).stat()
            facts = f"{stat.st_size}" + (f" {stat.st_mtime_ns}" if times else "")
        except OSError:
            facts = "missing"
        digest.update(b"\0".join([os.fsencode(name), os.fsencode(label), facts.encode()]) + b"\n")
    return digest.hexdigest()[:16]


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _sorted_scan(folder: Path) -> list[os.DirEntry[str]]:
    """Entries by name; hidden ones (thumbnails, resource forks named like pictures) are not data."""
    with os.scandir(folder) as scan:
        return sorted((item for item in scan if not item.name.startswith(".")), key=lambda item: item.name)


def _walk(root: Path, folder: str) -> Iterator[tuple[str, bool]]:
    """Names below ``folder``, relative to ``root``, and whether each is a picture; folder links end it."""
    for item in _sorted_scan(root / folder):
        name = _join(folder, item.name)
        has_suffix = Path(item.name).suffix.lower() in SUFFIXES
        if item.is_dir():
            if has_suffix or item.is_symlink():
                yield name, False
            else:
                yield from _walk(root, name)
        else:
            yield name, has_suffix


def _read_list(path: Path) -> Catalogue:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV text in UTF-8 ({error}); give a list with the header path,label.") from error
    if "path" not in columns:
        raise DataError(f"{path} has the header {','.join(map(str, columns)) or '(none)'}; use path,label[,split].")
    entries = []
    for line, row in rows:
        entry = Entry(*((row.get(column) or "").strip() for column in ("split", "label", "path")))
        if not entry.name or None in row:
            raise DataError(f"{path}, line {line}: a row must have one path, and quotes around a value with a comma.")
        if "label" in columns and not entry.label:
            raise DataError(f"{path}, line {line}: the label is empty; drop the column if the data has none.")
        if "split" in columns and entry.split not in SPLITS:
            raise DataError(f"{path}, line {line}: split={entry.split!r} is not one of {', '.join(SPLITS)}.")
        entries.append(entry)
    splits = sorted({e.split for e in entries})
    classes = {name: class_order({e.label for e in entries if e.split == name} - {""}) for name in splits}
    return Catalogue(path, tuple(entries), classes)
