"""Evidence in and out, and local runs over committed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.collect import (
    COLUMNS,
    collect,
    merge,
    read_evidence,
    save_evidence,
    scales_of,
    stem,
    tidy,
    variant_of,
)

VALUES = {
    ("none", "linear/top1"): [35.0, 36.123456789],
    ("8", "finetune/top1"): [50.0],
    ("NA", "x"): [1e-7, 1e9],
}


def test_evidence_survives_the_round_trip_and_a_second_one_changes_no_byte(tmp_path: Path, make_frame: Any) -> None:
    frame = pd.concat([make_frame(VALUES), make_frame(VALUES, variant="data=cifar10,mask.ratio=0.5")])
    written = save_evidence(frame, tmp_path)
    assert [path.name for path in written] == [
        "mask_sampling.csv",
        "mask_sampling--data=cifar10,mask.ratio=0.5.csv",
    ]
    back = read_evidence(tmp_path)
    assert set(back["row"]) == {"none", "8", "NA"}
    assert len(back) == len(frame)
    assert back["value"].sum() == pytest.approx(frame["value"].sum())
    before = [path.read_bytes() for path in written]
    save_evidence(back, tmp_path)
    assert [path.read_bytes() for path in written] == before


def test_saving_some_rows_keeps_the_evidence_of_the_others(tmp_path: Path, make_frame: Any) -> None:
    save_evidence(make_frame({("a", "m"): [1.0], ("b", "m"): [2.0]}), tmp_path)
    save_evidence(make_frame({("b", "m"): [3.0]}), tmp_path)
    assert read_evidence(tmp_path).set_index("row")["value"].to_dict() == {"a": 1.0, "b": 3.0}


def test_order_of_the_measurements_does_not_change_the_file(tmp_path: Path, make_frame: Any) -> None:
    frame = make_frame(VALUES)
    (first,) = save_evidence(frame, tmp_path / "a")
    (second,) = save_evidence(frame.iloc[::-1], tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_local_run_supersedes_only_the_committed_measurement_of_the_same_key(make_frame: Any) -> None:
    committed = make_frame({("a", "m"): [1.0, 2.0]})
    merged = merge(committed, pd.concat([make_frame({("a", "m"): [9.0]}), make_frame({("a", "m"): [7.0]}, "gpu")]))
    found = merged.set_index(["scale", "seed"])["value"].to_dict()
    assert found == {("desk", 0): 9.0, ("desk", 1): 2.0, ("gpu", 0): 7.0}


def test_nothing_measured_is_an_empty_frame_with_all_columns(tmp_path: Path) -> None:
    frame = collect(tmp_path / "absent")
    assert frame.empty
    assert tuple(frame.columns) == COLUMNS
    assert collect(tmp_path, tidy()).empty
    assert scales_of(frame, "mask_sampling") == ["desk"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with the header"),
        ("row,value\n8,1\n", "does not begin with the header"),
        ("{header}\na,,8,0,desk,m,1.0\n", "line 2, has 7 fields"),
        ("{header}\na,,8,0,desk,m,1.0,f,r\n<<<<<<< HEAD\n", "line 3, has 1 fields"),
        ("{header}\na,,8,zero,desk,m,1.0,f,r\n", "line 2, has seed 'zero'"),
        ("{header}\na,,8,0,desk,m,,f,r\n", "line 2, has seed '0' and value ''"),
        ("{header}\na,,8,0,desk,m,nan,f,r\n", "holds nan for m of row '8', seed 0"),
        ("{header}\na,,8,0,desk,m,1,f,r\na,,8,0,desk,m,2,f,s\n", "twice"),
        ('{header}\na,,"8,0,desk,m,1,f,r\n', "not a readable CSV"),
    ],
)
def test_damaged_evidence_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mask_sampling.csv"
    path.write_text(text.replace("{header}", ",".join(COLUMNS)))
    with pytest.raises(ValueError, match=message) as caught:
        read_evidence(tmp_path)
    assert "mask_sampling.csv" in str(caught.value)


def test_local_frame_without_a_column_is_refused(tmp_path: Path, make_frame: Any) -> None:
    with pytest.raises(ValueError, match="lacks the column seed"):
        collect(tmp_path, make_frame(VALUES).drop(columns="seed"))


@pytest.mark.parametrize("variant", ["", "data=cifar10", "data.root=/somewhere/else", "a--b", "mask=ä b"])
def test_any_variant_has_a_file_name_that_gives_it_back(variant: str) -> None:
    name = stem("mask_sampling", variant)
    assert "/" not in name
    assert variant_of(name) == variant


def test_scales_come_in_the_order_of_what_they_can_claim(make_frame: Any) -> None:
    frames = [make_frame({("a", "m"): [1.0]}, scale) for scale in ("paper", "mine", "smoke", "gpu", "desk")]
    assert scales_of(pd.concat(frames), "mask_sampling") == ["smoke", "desk", "gpu", "paper", "mine"]
