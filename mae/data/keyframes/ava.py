"""The files of AVA (1705.08421) as they are published, and of whoever writes their own in the same way.

Boxes lie in lines of ``film,second,left,top,right,bottom,action,person`` without a header, coordinates in shares of the
picture; a box with several actions has a line for each. Detections end in a score and may have no action. A label map
names the actions that are evaluated by their ids, which count from 1. Excluded keyframes are lines of ``film,second``.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from mae.data.keyframes.table import Key, Keyframes
from mae.errors import DataError

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


class Found(NamedTuple):
    """A line of a file of boxes: ``action`` counts from 0, and is -1 where there is none."""

    key: Key
    box: Box
    action: int
    score: float
    line: int


class LabelMap(NamedTuple):
    """The names of all actions, and which of them, counted from 0, are evaluated."""

    names: tuple[str, ...]
    evaluated: tuple[int, ...]


def label_map(file: Path, actions: int) -> LabelMap:
    """Read the actions of a label map, whose ids go up to ``actions``; DataError on any other."""
    found: dict[int, str] = {}
    name = ""
    for number, line in enumerate(_lines(file), 1):
        if match := re.match(r'\s*name:\s*"(.*)"', line):
            name = match[1]
        elif match := re.match(r"\s*(?:label_)?id:\s*(\S+)", line):
            where, wrong = f"{file}, line {number}", match[1]
            if not wrong.isdecimal() or not 1 <= int(wrong) <= actions:
                raise DataError(
                    f"{where}: the action id {wrong} is not from 1 to {actions}; correct it, or the number."
                )
            if int(wrong) in found:
                raise DataError(f"{where}: the action id {wrong} stands there a second time; keep one of the two.")
            found[int(wrong)] = name or f"action {wrong}"
    if not found:
        raise DataError(f"{file}, line 1: it names no action; give a label map with items of a name and an id.")
    names = tuple(found.get(action, f"action {action}") for action in range(1, actions + 1))
    return LabelMap(names, tuple(sorted(action - 1 for action in found)))


def excluded(file: Path) -> frozenset[Key]:
    """Read the keyframes that are left out; an empty file excludes none."""
    found = set()
    for number, fields in _rows(file):
        where = f"{file}, line {number}"
        if len(fields) != 2:
            raise DataError(f"{where}: it has {len(fields)} fields; write a film and a second.")
        found.add(Key(fields[0], _number(fields[1], "second", where)))
    return frozenset(found)


def annotated(file: Path, actions: int, without: Collection[Key] = ()) -> Keyframes:
    """Read boxes with their actions, without the keyframes ``without``; a box is one person's, with all its actions.

    A line that stands there twice counts once, and is told. DataError names file and line of what cannot be right.
    """
    found = [_annotation(file, number, fields, actions) for number, fields in _rows(file)]
    return _table(file, found, actions, without)


def detected(file: Path, actions: int, least: float, without: Collection[Key] = ()) -> Keyframes:
    """Read detections whose score is at least ``least``, without the keyframes ``without``."""
    found = [_detection(file, number, fields) for number, fields in _rows(file)]
    kept = [line for line in found if line.score >= least]
    if found and not kept:
        raise DataError(f"{file}: none of its {len(found)} detections has a score of {least} or more; lower that.")
    return _table(file, kept, actions, without)


def _annotation(file: Path, number: int, fields: list[str], actions: int) -> Found:
    where = f"{file}, line {number}"
    if len(fields) not in (7, 8):
        raise DataError(f"{where}: it has {len(fields)} fields; write film, second, four sides, action and person.")
    action = fields[6]
    if not action.isdecimal() or not 1 <= int(action) <= actions:
        raise DataError(f"{where}: the action id {action!r} is not from 1 to {actions}; correct it, or data.classes.")
    return Found(_key(fields, where), _box(fields, where), int(action) - 1, 1.0, number)


def _detection(file: Path, number: int, fields: list[str]) -> Found:
    where = f"{file}, line {number}"
    if len(fields) not in (7, 8) or not fields[-1]:
        raise DataError(f"{where}: there is no score; write film, second, four sides, an action or none, and a score.")
    score = _number(fields[-1], "score", where)
    if not 0 <= score <= 1:
        raise DataError(f"{where}: the score {fields[-1]} is not within [0, 1]; correct it.")
    return Found(_key(fields, where), _box(fields, where), -1, score, number)


def _key(fields: list[str], where: str) -> Key:
    second = _number(fields[1], "second", where)
    if not fields[0] or second < 0:
        raise DataError(f"{where}: {','.join(fields[:2])!r} is no film and second of it; correct them.")
    return Key(fields[0], second)


def _box(fields: list[str], where: str) -> Box:
    left, top, right, bottom = (_number(text, "side", where) for text in fields[2:6])
    said = ",".join(fields[2:6])
    if not all(0 <= side <= 1 for side in (left, top, right, bottom)):
        raise DataError(
            f"{where}: the box {said} leaves [0, 1]; give left, top, right, bottom in shares of the picture."
        )
    if left >= right or top >= bottom:
        raise DataError(f"{where}: the box {said} is inside out or empty; give left, top, right, bottom in this order.")
    return left, top, right, bottom


def _number(text: str, what: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number != number or number in (float("inf"), float("-inf")):
        raise DataError(f"{where}: {text!r} is no number, where a {what} is expected; correct it.")
    return number


def _table(file: Path, found: list[Found], actions: int, without: Collection[Key]) -> Keyframes:
    """The lines by keyframe, in the order of films and seconds, boxes in that of the file."""
    by_key: dict[Key, dict[Box | int, tuple[Box, set[int], float]]] = {}
    first: dict[Key, int] = {}
    seen: dict[tuple[Key, Box, int], int] = {}
    repeated: list[Found] = []
    for line in found:
        if line.key in without:
            continue
        boxes = by_key.setdefault(line.key, {})
        first.setdefault(line.key, line.line)
        # detections are not merged: each is judged by itself
        if line.action >= 0 and seen.setdefault((line.key, line.box, line.action), line.line) != line.line:
            repeated.append(line)
            continue
        place: Box | int = line.box if line.action >= 0 else line.line
        boxes.setdefault(place, (line.box, set(), line.score))[1].add(line.action)
    if repeated:
        twice, before = repeated[0], seen[repeated[0].key, repeated[0].box, repeated[0].action]
        log.warning(
            "%s, line %d: it says what line %d says; %d such lines count once", file, twice.line, before, len(repeated)
        )
    if not by_key:
        raise DataError(f"{file}, line 1: it states no box to use; give the lines of film, second, box and action.")
    keys = sorted(by_key)
    boxes_of = [list(by_key[key].values()) for key in keys]
    flat = [box for boxes in boxes_of for box in boxes]
    multi = torch.zeros(len(flat), actions, dtype=torch.bool)
    for row, (_, own, _) in enumerate(flat):
        multi[row, [action for action in own if action >= 0]] = True
    return Keyframes(
        tuple(keys),
        torch.tensor([0, *(len(boxes) for boxes in boxes_of)]).cumsum(0),
        torch.tensor([box for box, _, _ in flat], dtype=torch.float64),
        multi,
        torch.tensor([score for _, _, score in flat], dtype=torch.float64),
        tuple(f"{file}, line {first[key]}" for key in keys),
    )


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; check the path.")
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error}); save it as such.") from error


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines that are not blank, cut at commas."""
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield number, [field.strip() for field in next(csv.reader([line]))]
