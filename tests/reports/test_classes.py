"""The average precision of each class stands beside a table of detection, over its seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.ablation import load_ablation
from reports.classes import by_class, write_classes
from reports.collect import tidy

NAME = "video_action_detection"
ROWS = ("VideoMAE ViT-B K400", "from scratch")


def lines(row: str, seed: int, walk: float, stand: float) -> list[tuple[object, ...]]:
    values = {"map": (walk + stand) / 2, "ap_walk": walk, "ap_stand_up": stand, "seconds": 3.0}
    return [(NAME, "", row, seed, "desk", f"action_detection/{key}", value, "f", "r") for key, value in values.items()]


def test_each_class_has_its_mean_and_spread_in_the_order_of_the_table(tmp_path: Path) -> None:
    frame = tidy([*lines(ROWS[0], 0, 50, 20), *lines(ROWS[0], 1, 60, 30), *lines(ROWS[1], 0, 10, 5)])
    table = load_ablation(NAME)
    found = by_class(table, frame)
    assert list(dict.fromkeys(found["row"])) == [ROWS[1], ROWS[0]]
    last = found.iloc[-1]
    assert (last["class"], last["mean"], last["n"]) == ("walk", 55.0, 2)
    assert last["std"] == pytest.approx(50**0.5)
    values, text = write_classes(table, frame, tmp_path)
    assert values.read_text().startswith("class,row,scale,mean,std,n\nstand_up,from scratch,desk,5,,1\n")
    assert "| walk | 10.0 (1) | 55.0 ± 7.1 (2) |" in text.read_text()


def test_a_table_without_classes_writes_nothing(tmp_path: Path) -> None:
    frame = tidy([("decoder_depth", "", "8", 0, "desk", "finetune/top1", 50.0, "f", "r")])
    assert write_classes(load_ablation("decoder_depth"), frame, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
