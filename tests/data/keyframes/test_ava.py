"""Files in AVA's layout are read whole, and what cannot be right is named with file and line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from mae.data.keyframes import ava
from mae.data.keyframes.sets import AVA
from mae.data.keyframes.table import Key
from mae.errors import DataError
from tests.data.keyframes.ava_files import LAYOUT, RECTANGLES, laid_down, line, shares
from tests.data.keyframes.ava_files import ava as ava_set

GOOD = "one,0902,0.1,0.1,0.5,0.5,1,0"


def test_a_set_in_the_official_layout_is_read_whole(tmp_path: Path) -> None:
    found = ava_set(laid_down(tmp_path))
    splits = found(tmp_path / "cache")
    assert splits.train.classes == ("stand", "action 2", "talk to (e.g., self)", "action 4", "action 5")
    held = found.holds()
    assert held is not None
    assert held.sizes == {"pretrain": 3, "train": 3, "test": 2}
    table = splits.train.table  # type: ignore[attr-defined]
    assert table.keys == tuple(Key(film, float(second)) for film, second in RECTANGLES)
    assert torch.allclose(table.boxes, torch.tensor([shares(box) for box in RECTANGLES.values()]).double(), atol=1e-4)
    assert table.actions.tolist() == [[True, False, True, False, False]] * 3
    task = splits.test.task  # type: ignore[attr-defined]
    assert task.evaluated == (0, 2)
    assert [key.film for key in task.detected.keys] == ["one", "one"]  # the excluded one is gone on both sides
    assert task.truth.keys == task.detected.keys
    assert task.detected.scores.tolist() == [0.9, 0.9]  # and that of 0.5 is too unsure


def test_identity_follows_what_files_hold(tmp_path: Path) -> None:
    found = ava_set(laid_down(tmp_path))
    before = found.identity("evaluate")
    (tmp_path / LAYOUT.test_excluded).write_text("one,0902\n")
    after = ava_set(tmp_path).identity("evaluate")
    assert {key for key in before if before[key] != after[key]} == {"stated"}


MALFORMED = {
    "fields": ("one,0902,0.1,0.1,0.5,1,0", "the action id '0' is not from 1 to 5"),
    "a side that is no number": ("one,0902,0.1,left,0.5,0.5,1,0", "'left' is no number"),
    "a box beyond the picture": ("one,0902,0.1,0.1,1.2,0.5,1,0", r"leaves \[0, 1\]"),
    "a box inside out": ("one,0902,0.5,0.1,0.1,0.5,1,0", "is inside out or empty"),
    "an empty box": ("one,0902,0.5,0.1,0.5,0.5,1,0", "is inside out or empty"),
    "an action id of 0": ("one,0902,0.1,0.1,0.5,0.5,0,0", "the action id '0' is not from 1 to 5"),
    "an action id too high": ("one,0902,0.1,0.1,0.5,0.5,6,0", "the action id '6' is not from 1 to 5"),
    "no action": ("one,0902,0.1,0.1,0.5,0.5,,0", "the action id '' is not from 1 to 5"),
    "a second that is no number": ("one,late,0.1,0.1,0.5,0.5,1,0", "'late' is no number, where a second"),
    "no film": (",0902,0.1,0.1,0.5,0.5,1,0", "is no film and second of it"),
    "too few fields": ("one,0902", "it has 2 fields"),
    "not a number": ("one,0902,nan,0.1,0.5,0.5,1,0", "'nan' is no number"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_line_is_named(tmp_path: Path, kind: str) -> None:
    text, said = MALFORMED[kind]
    file = tmp_path / "boxes.csv"
    file.write_text(f"{GOOD}\n\n{text}\n")
    with pytest.raises(DataError, match=said) as caught:
        ava.annotated(file, 5)
    assert str(caught.value).startswith(f"{file}, line 3: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one,0902,0.1,0.1,0.5,0.5", "there is no score"),
        ("one,0902,0.1,0.1,0.5,0.5,1,", "there is no score"),
        ("one,0902,0.1,0.1,0.5,0.5,,likely", "'likely' is no number, where a score"),
        ("one,0902,0.1,0.1,0.5,0.5,,1.5", r"the score 1.5 is not within \[0, 1\]"),
        ("one,0902,0.5,0.1,0.1,0.5,,0.9", "is inside out or empty"),
    ],
)
def test_a_malformed_detection_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "detections.csv"
    file.write_text(f"one,0902,0.1,0.1,0.5,0.5,,0.9\n{text}\n")
    with pytest.raises(DataError, match=said) as caught:
        ava.detected(file, 5, 0.8)
    assert str(caught.value).startswith(f"{file}, line 2: ")


def test_a_line_that_stands_there_twice_counts_once_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(f"{GOOD}\none,0902,0.1,0.1,0.5,0.5,3,0\n{GOOD}\n{GOOD}\n")
    with caplog.at_level(logging.WARNING):
        found = ava.annotated(file, 5)
    assert len(found.boxes) == 1
    assert found.actions.sum() == 2
    assert f"{file}, line 3: it says what line 1 says; 2 such lines count once" in caplog.text


def test_what_leaves_nothing_to_do_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    with pytest.raises(DataError, match="there is no such file"):
        ava.annotated(file, 5)
    file.write_text("")
    with pytest.raises(DataError, match="it states no box to use"):
        ava.annotated(file, 5)
    with pytest.raises(DataError, match="it names no action"):
        ava.label_map(file, 5)
    assert ava.excluded(file) == frozenset()
    file.write_text("one,0902,0.1,0.1,0.5,0.5,,0.7\n")
    with pytest.raises(DataError, match=r"none of its 1 detections has a score of 0\.8 or more"):
        ava.detected(file, 5, 0.8)
    file.write_text("one,0902,more\n")
    with pytest.raises(DataError, match="line 1: it has 3 fields; write a film and a second"):
        ava.excluded(file)
    file.write_text('item {\n name: "run"\n id: 9\n}\n')
    with pytest.raises(DataError, match="line 3: the action id 9 is not from 1 to 5"):
        ava.label_map(file, 5)


def test_films_that_are_not_there_are_named_with_the_line_that_names_them(tmp_path: Path) -> None:
    laid_down(tmp_path)
    file = tmp_path / LAYOUT.train_boxes
    file.write_text(file.read_text() + line("three", 903, (0.1, 0.1, 0.5, 0.5), 1, 0) + "\n")
    with pytest.raises(DataError, match=f"{LAYOUT.train_boxes}, line 7: there is no film three in .*videos"):
        ava_set(tmp_path)(tmp_path / "cache")
    with pytest.raises(DataError, match=r"add evaluate_data\.source\.root=PATH"):
        AVA(root=None, classes=5)(tmp_path)
