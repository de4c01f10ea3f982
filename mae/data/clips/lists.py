"""Which clips a list or an official split file names, under which labels, without opening one.

Each function gives the ``Listing`` of one split. Whatever is wrong is a DataError that names file and line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mae.data.clips.delimited import Line, delimited, lines_of
from mae.data.clips.video import SUFFIXES
from mae.data.files.listing import Listing, class_order
from mae.data.files.tally import check_missing
from mae.errors import DataError


def clips_in_list(
    file: Path | str,
    *,
    root: Path | str | None = None,
    classes: Sequence[str] | int | None = None,
    delimiter: str | None = None,
) -> Listing:
    """The clips of a text file with a path, a delimiter and a label in each line, or paths alone (labels are -1).

    Paths start from ``root``, by default the file's folder. Labels are numbers from 0, or names; ``classes`` is how
    many numbers or which names there are, by default up to the largest number, or the names that occur. Lines are read
    as ``delimited`` says. Clips that are not there stay in the listing, and are counted when they are read, as long as
    their share is allowed.
    """
    file = Path(file)
    start = Path(root) if root is not None else file.parent
    lines = delimited(file, start, delimiter)
    unlabelled = [line for line in lines if not line.label]
    if unlabelled and len(unlabelled) < len(lines):
        raise DataError(f"{file}, line {unlabelled[0].number}: there is no label, as other lines have.")
    return _listing(file, start, lines, _names(lines, classes, file))


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
    names, indices, missing = [], [], []
    for position, entry in enumerate(_json(file, list), 1):
        where = f"{file}, entry {position}"
        if not isinstance(entry, dict) or "id" not in entry:
            raise DataError(f"{where}: it has no id; give the official list.")
        if str(entry["id"]) not in files:
            missing.append((f"entry {position}", str(entry["id"])))
        label = re.sub(r"[\[\]]", "", str(entry.get("template", entry.get("label", ""))))
        if label and label not in known:
            raise DataError(f"{where}: the label {label!r} is not among the {len(known)} of {labels}.")
        names.append(files.get(str(entry["id"]), str(entry["id"])))
        indices.append(known.get(label, -1))
    if not names:
        raise DataError(f"{file}, line 1: the list is empty; give the official list.")
    check_missing(file, root, missing, len(names))
    return Listing(root, tuple(names), tuple(indices), classes)


def ucf101(lists: Path | str, split: str, *, root: Path | str, fold: int = 1) -> Listing:
    """UCF101's official split ``fold``, 1 to 3: trainlist0F.txt, testlist0F.txt and classInd.txt in ``lists``."""
    lists = Path(lists)
    classes: list[str] = []
    for number, text in lines_of(lists / "classInd.txt"):
        index, _, name = text.partition(" ")
        if index != str(len(classes) + 1) or not name.strip():
            raise DataError(f"{lists / 'classInd.txt'}, line {number}: {text!r} is not {len(classes) + 1} and a class.")
        classes.append(name.strip())
    file = lists / f"{split}list{fold:02d}.txt"
    lines = []
    for number, text in lines_of(file):
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
        for number, text in lines_of(file):
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
    """The listing of ``lines``; DataError on a label that is not among ``classes``, or too many missing clips."""
    known = {label: index for index, label in enumerate(classes)}
    for line in lines:
        if line.label and line.label not in known:
            outside = f"{classes[0]} to {classes[-1]}" if classes else "no classes"
            raise DataError(
                f"{file}, line {line.number}: the label {line.label!r} is none of the {len(classes)} ({outside}); "
                "correct it, or state the classes that there are."
            )
    missing = [(f"line {line.number}", line.path) for line in lines if not (root / line.path).exists()]
    check_missing(file, root, missing, len(lines))
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
