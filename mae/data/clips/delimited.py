"""Lines of a path and a label, as people write them: with any delimiter, a header, or a number of frames between."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mae.data.clips.video import SUFFIXES
from mae.errors import DataError

DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon", " ": "a space"}
PATHS = frozenset("path video clip file filename file_name name video_path video_name filepath".split())  # noqa: SIM905
LABELS = frozenset("label class category target label_id class_id".split())  # noqa: SIM905
SAMPLE = 100  # lines by which the delimiter is found


class Line(NamedTuple):
    """One entry of a list: its number in the file, the clip's path and label, "" if unlabelled."""

    number: int
    path: str
    label: str


def lines_of(file: Path) -> list[tuple[int, str]]:
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


def delimited(file: Path, root: Path, delimiter: str | None) -> list[Line]:
    """The entries of a list whose paths start from ``root``.

    A line is a path and a label, or the official code's path, number of frames and label, of which -1 is none. The
    ``delimiter`` is the one by which most lines begin with a clip. With any of them the path may hold others of it,
    and needs quotes only where that leaves two readings.
    """
    if delimiter is not None and delimiter not in DELIMITERS:
        raise DataError(f"{file}: delimiter={delimiter!r} is none of {', '.join(map(repr, DELIMITERS))}.")
    rows = lines_of(file)
    if delimiter is None:
        few = [text for _, text in rows[:SAMPLE]]
        fits = {mark: sum(_read(text, mark, root) is not None for text in few) for mark in DELIMITERS}
        delimiter = max(fits, key=lambda mark: fits[mark])
        if not fits[delimiter]:  # no line begins with a clip that is there, or has the suffix of one
            delimiter = next((mark for mark in DELIMITERS if len(_fields(few[0], mark)) == 2), None)
            if delimiter == " " and not _fields(few[0], " ")[1].lstrip("-").isdecimal():
                delimiter = None
        if all(_is_clip(text, root) for text in few[1:] or few):
            delimiter = None  # paths alone
    rows, swapped = _without_header(rows, delimiter, file)
    lines = []
    for number, text in rows:
        fields = (text, "") if delimiter is None else _entry(text, delimiter, root, swapped)
        if fields is None or not fields[0]:
            raise DataError(
                f"{file}, line {number}: {text[:80]!r} is not a path and a label with {DELIMITERS[delimiter or ',']} "
                "between them; use the same delimiter in all lines, and quotes around a value that holds it."
            )
        lines.append(Line(number, *fields))
    bare = next((line for line in lines if delimiter is None and not _is_clip(line.path, root)), None)
    if bare:
        raise DataError(
            f"{file}, line {bare.number}: {bare.path[:80]!r} is neither a clip nor a clip and a label; put "
            f"{', '.join(list(DELIMITERS.values())[:-1])} or a space between them."
        )
    return lines


def _without_header(
    rows: list[tuple[int, str]], delimiter: str | None, file: Path
) -> tuple[list[tuple[int, str]], bool]:
    """The lines after a header, if there is one, and whether it puts the label first."""
    fields = [rows[0][1]] if delimiter is None else [field.strip() for field in rows[0][1].split(delimiter)]
    names = [field.strip('"').lower() for field in fields]
    if names[0] not in PATHS | LABELS or not set(names) <= PATHS | LABELS | {"frames", "total", "num_frames", "start"}:
        return rows, False
    if not PATHS & set(names):
        raise DataError(f"{file}, line 1: the header {rows[0][1][:80]!r} names no path; call that column path.")
    if len(rows) == 1:
        raise DataError(f"{file}, line 2: the list is empty after its header; give one clip in each line.")
    return rows[1:], names[0] in LABELS


def _entry(text: str, delimiter: str, root: Path, swapped: bool) -> tuple[str, str] | None:
    if swapped:
        label, mark, path = text.partition(delimiter)
        return (path.strip().strip('"'), label.strip()) if mark else None
    found = _read(text, delimiter, root)
    if found is not None:
        return found
    fields = _fields(text, delimiter)
    return (fields[0], fields[1]) if len(fields) == 2 else None


def _read(text: str, delimiter: str, root: Path) -> tuple[str, str] | None:
    """A path that is a clip, and its label; None if ``text`` is not that with this delimiter."""
    quoted = _fields(text, delimiter) if '"' in text and delimiter != " " else []
    if len(quoted) == 2 and _is_clip(quoted[0], root):
        return quoted[0], quoted[1]
    path, mark, label = text.rpartition(delimiter)
    if not mark or _is_clip(label, root):
        return None
    before, also, count = path.rpartition(delimiter)
    with_count = also and count.strip().lstrip("-").isdecimal() and _is_clip(before.strip(), root)
    if with_count and not _is_clip(path.strip(), root):
        return before.strip(), "" if label.strip() == "-1" else label.strip()
    return (path.strip(), label.strip()) if _is_clip(path.strip(), root) else None


def _is_clip(path: str, root: Path) -> bool:
    """Whether a path has the suffix of a film, or is something under ``root``, such as a folder of frames."""
    name = path.strip()
    return bool(name) and (Path(name).suffix.lower() in SUFFIXES or (len(name) < 1024 and (root / name).exists()))


def _fields(text: str, delimiter: str) -> Sequence[str]:
    """Of a line; with a space between path and label the last one divides, so that a path may hold others."""
    if delimiter == " ":
        path, _, label = text.rpartition(" ")
        return [path.strip(), label] if path else [text]
    return [field.strip() for field in next(csv.reader([text], delimiter=delimiter))]
