"""What a table came to, in short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from reports.summary import summarise_table
from reports.tables import write_tables


def test_a_summary_names_the_best_row_by_the_direction_of_each_column(
    tmp_path: Path, make_ablation: Any, make_frame: Any
) -> None:
    columns = {
        "hours": {"metric": "pretrain/hours", "better": "lower", "unit": "h"},
        "ft": {"metric": "finetune/top1"},
        "lin": {"metric": "linear/top1"},
    }
    ablation = make_ablation(columns=columns, rows={"a": {}, "b": {}, "c": {}}, claims=("ft[a] > ft[b]",))
    values = {
        ("a", "pretrain/hours"): [3.0], ("b", "pretrain/hours"): [2.0],
        ("a", "finetune/top1"): [50.0, 52.0], ("b", "finetune/top1"): [60.0],
    }  # fmt: skip
    other = make_frame({("c", "finetune/top1"): [99.0]}, scale="gpu")
    write_tables(ablation, pd.concat([make_frame(values), other]), tmp_path / "tables")
    found = summarise_table(ablation, "desk", "", tmp_path)
    assert found.numbers == {
        "best/pretrain/hours": 2.0, "default/pretrain/hours": 3.0,
        "best/finetune/top1": 60.0, "default/finetune/top1": 51.0, "accuracy": 60.0,
    }  # fmt: skip
    assert found.best == "b"
    assert found.sentences[1] == "ft: best b with 60.00 (1) %, default a with 51.00 ± 1.41 (2) %"
    assert found.verdicts == "1 undecided"
    assert [file.name for file in found.files] == ["mask_sampling.md", "mask_sampling.csv"]


def test_a_table_without_runs_has_no_best_row(tmp_path: Path, make_ablation: Any, make_frame: Any) -> None:
    write_tables(make_ablation(), make_frame({}), tmp_path / "tables")
    found = summarise_table(make_ablation(), "desk", "", tmp_path)
    assert (found.best, found.sentences, dict(found.numbers)) == ("", (), {})
