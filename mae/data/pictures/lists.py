"""Which pictures a folder or a list file holds, without opening one."""

from __future__ import annotations

import csv
from pathlib import Path

from mae.data.files import folders
from mae.data.files.folders import SPLITS, Catalogue, Entry, sides_of, split_named
from mae.data.files.listing import Sides, class_order
from mae.data.files.tally import check_missing
from mae.data.pictures.decode import SUFFIXES
from mae.errors import DataError


def catalogue(root: Path | str) -> Catalogue:
    """What a folder holds, or a CSV list with the header `path[,label][,split]`; DataError on anything else.

    The paths of a list start from its folder.
    """
    root = Path(root)
    if root.is_file():
        return _read_list(root)
    if not root.exists():
        raise DataError(
            f"{root} does not exist; give a folder with {folders.LAYOUT}, or a CSV list: path,label[,split]."
        )
    return folders.catalogue(root, SUFFIXES)


def pictures_in(root: Path | str, *, val_share: float = 0.0, test_share: float = 0.0) -> Sides:
    """The pictures of a folder or a list by side, as ``sides_of`` says."""
    found = catalogue(root)
    if not found.root.is_dir():  # a list, which may name what is not there
        names = [(f"line {line}", entry.name) for line, entry in enumerate(found.entries, 2)]
        missing = [named for named in names if not (found.folder / named[1]).exists()]
        check_missing(found.root, found.folder, missing, len(names))
    return sides_of(found, val_share=val_share, test_share=test_share)


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
        named, label, name = ((row.get(column) or "").strip() for column in ("split", "label", "path"))
        split = split_named(named) if "split" in columns else ""
        if not name or None in row:
            raise DataError(f"{path}, line {line}: a row must have one path, and quotes around a value with a comma.")
        if "label" in columns and not label:
            raise DataError(f"{path}, line {line}: the label is empty; drop the column if the data has none.")
        if split is None:
            raise DataError(f"{path}, line {line}: split={named!r} is not one of {', '.join(SPLITS)}.")
        entries.append(Entry(split, label, name))
    splits = sorted({e.split for e in entries})
    classes = {name: class_order({e.label for e in entries if e.split == name} - {""}) for name in splits}
    return Catalogue(path, tuple(entries), classes)
