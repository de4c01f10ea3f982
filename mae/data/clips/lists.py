"""Which clips a list or an official split file names, under which labels, without opening one.

Each function gives the ``Listing`` of one split. Whatever is wrong is a DataError that names file and line.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mae.data.clips.video import SUFFIXES
from mae.data.files.listing import Listing, class_order
from mae.errors import DataError

DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon", " ": "a space"}


class Line(NamedTuple):
    """One entry of a list: its number in the file, the clip's path and label, "" if unlabelled."""

    number: int
    path: str
    label: str


def clips_in_list(
    file: Path | str,
    *,
    root: Path | str | None = None,
    classes: Sequence[str] | int | None = None,
    delimiter: str | None = None,
) -> Listing:
    """The clips of a text file with a path, a delimiter and a label in each line, or paths alone (labels are -1).

    Paths start from ``root``, by default the file's folder. Labels are numbers from 0, or names; ``classes`` is how
    many numbers or which names there are, by default up to the largest number, or the names that occur. The
    delimiter is found by the first line: comma, tab, semicolon or space, values with it in quotes (after a space as
    delimiter nothing but the label may follow, so paths may hold spaces). A header "path,label" is passed over.
    """
    file = Path(file)
    lines = _delimited(file, delimiter)
    unlabelled = [line for line in lines if not line.label]
    if unlabelled and len(unlabelled) < len(lines):
        raise DataError(f"{file}, line {unlabelled[0].number}: there is no label, as other lines have.")
    return _listing(file, Path(root) if root is not None else file.parent, lines, _names(lines, classes, file))


def clips_in_json(file: Path | str, *, labels: Path | str, root: Path | str) -> Listing:
    """Something-Something's official split: entries with ``id``, and ``template`` or ``label``; unlabelled if neither.

    ``labels`` is the official JSON file from a template without brackets to its number; clips are files of any video
    suffix in ``root``, or folders of frames, named by their id.
    """
    file, labels, root = Path(file), Path(labels), Path(root)
    numbers = _json(labels, dict)
    wrong = [name for name, number in numbers.items() if not str(number).isdecimal()]
    if wrong or sorted(int(number) for number in numbers.values()) != list(range(len(numbers))):
        raise DataError(
            f"{labels}: it must number its {len(numbers)} labels from 0, each once, as the official one does."
        )
    known = {name: int(number) for name, number in numbers.items()}
    classes = tuple(sorted(known, key=known.__getitem__))
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the one with the clips of {file}.")
    files = {
        Path(name).stem: name
        for name in sorted(os.listdir(root))  # noqa: PTH208
        if Path(name).suffix.lower() in SUFFIXES or (root / name).is_dir()
    }
    names, indices = [], []
    for position, entry in enumerate(_json(file, list), 1):
        where = f"{file}, entry {position}"
        if not isinstance(entry, dict) or "id" not in entry:
            raise DataError(f"{where}: it has no id; give the official list.")
        if str(entry["id"]) not in files:
            raise DataError(f"{where}: {root} has no clip named {entry['id']}; add it or remove the entry.")
        label = re.sub(r"[\[\]]", "", str(entry.get("template", entry.get("label", ""))))
        if label and label not in known:
            raise DataError(f"{where}: the label {label!r} is not among the {len(known)} of {labels}.")
        names.append(files[str(entry["id"])])
        indices.append(known.get(label, -1))
    if not names:
        raise DataError(f"{file}, line 1: the list is empty; give the official list.")
    return Listing(root, tuple(names), tuple(indices), classes)


def ucf101(lists: Path | str, split: str, *, root: Path | str, fold: int = 1) -> Listing:
    """UCF101's official split ``fold``, 1 to 3: trainlist0F.txt, testlist0F.txt and classInd.txt in ``lists``."""
    lists = Path(lists)
    classes: list[str] = []
    for number, text in _lines(lists / "classInd.txt"):
        index, _, name = text.partition(" ")
        if index != str(len(classes) + 1) or not name.strip():
            raise DataError(f"{lists / 'classInd.txt'}, line {number}: {text!r} is not {len(classes) + 1} and a class.")
        classes.append(name.strip())
    file = lists / f"{split}list{fold:02d}.txt"
    lines = []
    for number, text in _lines(file):
        path, _, index = text.partition(" ")
        label = path.partition("/")[0]
        if label not in classes or index.strip() not in ("", str(classes.index(label) + 1)):
            raise DataError(f"{file}, line {number}: {text!r} does not agree with the classes of classInd.txt.")
        lines.append(Line(number, path, label))
    return _listing(file, Path(root), lines, tuple(classes))


def hmdb51(lists: Path | str, split: str, *, root: Path | str, fold: int = 1) -> Listing:
    """HMDB51's official split ``fold``, 1 to 3: one <class>_test_splitF.txt a class; clips are <class>/<name>."""
    lists, wanted = Path(lists), {"train": "1", "test": "2"}[split]
    suffix = f"_test_split{fold}.txt"
    files = sorted(lists.glob(f"*{suffix}"))
    if not files:
        raise DataError(f"{lists} has no file <class>{suffix}; give the folder of the official splits.")
    classes = tuple(file.name.removesuffix(suffix) for file in files)
    names: list[str] = []
    labels: list[int] = []
    for index, file in enumerate(files):
        lines = []
        for number, text in _lines(file):
            name, _, side = text.rpartition(" ")
            if side not in ("0", "1", "2") or not name:
                raise DataError(f"{file}, line {number}: {text!r} is not a clip and 0 (unused), 1 (train) or 2 (test).")
            if side == wanted:
                lines.append(Line(number, f"{classes[index]}/{name.strip()}", classes[index]))
        if lines:
            names += _listing(file, Path(root), lines, classes).names
            labels += [index] * len(lines)
    if not names:
        raise DataError(f"{files[0]}, line 1: neither it nor the other lists name a clip for {split}.")
    return Listing(Path(root), tuple(names), tuple(labels), classes)


def _lines(file: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank; DataError when there are none, or no text."""
    if not file.is_file():
        raise DataError(f"{file}: there is no such list; check the path.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error}); save it as such.") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{file}, line 1: the list is empty; give one clip in each line.")
    return lines


def _delimited(file: Path, delimiter: str | None) -> list[Line]:
    if delimiter is not None and delimiter not in DELIMITERS:
        raise DataError(f"{file}: delimiter={delimiter!r} is none of {', '.join(map(repr, DELIMITERS))}.")
    rows = _lines(file)
    if delimiter is None:
        delimiter = next((mark for mark in DELIMITERS if len(_fields(rows[0][1], mark)) == 2), None)
    lines = []
    for number, text in rows:
        fields = [text] if delimiter is None else _fields(text, delimiter)
        if (delimiter is not None and len(fields) != 2) or not fields[0]:
            raise DataError(
                f"{file}, line {number}: {text[:80]!r} is not a path and a label with {DELIMITERS[delimiter or ',']} "
                "between them; use the same delimiter in all lines, and quotes around a value that holds it."
            )
        lines.append(Line(number, fields[0], fields[1] if len(fields) == 2 else ""))
    lines = lines[lines[0].path.lower() == "path" :]
    if not lines:
        raise DataError(f"{file}, line 2: the list is empty after its header; give one clip in each line.")
    bare = next((line for line in lines if delimiter is None and Path(line.path).suffix.lower() not in SUFFIXES), None)
    if bare:
        raise DataError(
            f"{file}, line {bare.number}: {bare.path[:80]!r} is neither a clip nor a clip and a label; put "
            f"{', '.join(list(DELIMITERS.values())[:-1])} or a space between them."
        )
    return lines


def _fields(text: str, delimiter: str) -> list[str]:
    """Of a line; with a space between path and label the last one divides, so that a path may hold others."""
    if delimiter == " ":
        path, _, label = text.rpartition(" ")
        is_clip = Path(path.strip()).suffix.lower() in SUFFIXES or path.strip().lower() == "path"
        return [path.strip(), label] if is_clip or label.isdecimal() else [text]  # a folder of frames has no suffix
    return [field.strip() for field in next(csv.reader([text], delimiter=delimiter))]


def _names(lines: list[Line], classes: Sequence[str] | int | None, file: Path) -> tuple[str, ...]:
    """Class names: those given, or those of the labels that occur."""
    if isinstance(classes, int):
        return tuple(map(str, range(classes)))
    if classes is not None:
        return tuple(classes)
    labels = {line.label for line in lines} - {""}
    if labels and all(label.isdecimal() for label in labels):
        return tuple(map(str, range(max(map(int, labels)) + 1)))
    return class_order(labels)


def _listing(file: Path, root: Path, lines: list[Line], classes: tuple[str, ...]) -> Listing:
    """The listing of ``lines``; DataError when a label is not among ``classes``, or a clip not under ``root``."""
    known = {label: index for index, label in enumerate(classes)}
    for line in lines:
        if line.label and line.label not in known:
            outside = f"{classes[0]} to {classes[-1]}" if classes else "no classes"
            raise DataError(
                f"{file}, line {line.number}: the label {line.label!r} is none of the {len(classes)} ({outside}); "
                "correct it, or state the classes that there are."
            )
        if not (root / line.path).exists():
            raise DataError(f"{file}, line {line.number}: {root / line.path} does not exist; check where paths start.")
    return Listing(
        root, tuple(line.path for line in lines), tuple(known.get(line.label, -1) for line in lines), classes
    )


def _json(file: Path, kind: type) -> Any:
    if not file.is_file():
        raise DataError(f"{file}: there is no such list; check the path.")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}); give the official list.") from error
    if not isinstance(content, kind):
        raise DataError(f"{file}, line 1: it holds no {'list' if kind is list else 'mapping'}; give the official list.")
    return content
