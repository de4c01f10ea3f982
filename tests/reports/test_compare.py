"""Two sets of results side by side: what changed, and what is noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import compare as command
from reports.collect import save_evidence

FT = "finetune/top1"


def test_intervals_are_those_of_scipy_paired_where_seeds_are_shared_and_welchs_where_not() -> None:
    before, after = pd.Series([40.0, 42.0, 41.0]), pd.Series([41.1, 43.0, 42.2])
    paired = stats.ttest_rel(after, before).confidence_interval()
    assert command.difference(before, after)[1:3] == pytest.approx((paired.low, paired.high))
    assert command.difference(before, after)[3] == "changed"
    other = after.set_axis([7, 8, 9])
    welch = stats.ttest_ind(other, before, equal_var=False).confidence_interval()
    assert command.difference(before, other)[1:3] == pytest.approx((welch.low, welch.high))
    assert command.difference(before, other)[3] == "noise"  # the same numbers, which pairing alone can tell apart
    assert command.difference(before[:1], after[:1])[3].startswith("not known")
    assert command.difference(before, before.copy())[3] == "the same"


def test_noise_is_called_noise_19_times_in_20() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(400, 2, 5))
    said = [command.difference(pd.Series(a), pd.Series(b))[3] for a, b in draws]
    assert 0.91 < said.count("noise") / 400 < 0.98


def test_two_folders_are_compared_cell_by_cell_and_what_changed_comes_first(
    tmp_path: Path, make_frame: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {("random 75", FT): [40.0, 41.0, 40.5], ("block 75", FT): [30.0, 30.1, 30.2], ("grid 75", FT): [5.0]}
    save_evidence(make_frame(rows), tmp_path / "a")
    rows |= {("random 75", FT): [40.4, 40.2, 41.0], ("block 75", FT): [35.0, 35.2, 35.1]}
    save_evidence(make_frame(rows | {("block 50", FT): [7.0]}), tmp_path / "b")
    assert command.main([str(tmp_path / "a"), str(tmp_path / "b"), "ablation=mask_sampling"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mask_sampling desk ft[block 75]: 30.10 ± 0.10 (3) -> 35.10 ± 0.10 (3)  +5.00 (+")
    assert lines[0].endswith("changed")
    assert lines[1] == "mask_sampling desk ft[block 50]: not run -> 7.00 (1)  only in B"
    assert "ft[random 75]" in lines[2]
    assert lines[2].endswith("noise")
    assert lines[3] == "4 cells: 1 changed, 1 the same, 1 noise, 1 only in B."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["one"], "name two sets"), (["no-such", "desk"], "is no folder, no scale"), (["desk", "desk", "x=1"], "unknown")],
)
def test_what_cannot_be_read_is_one_sentence_and_exit_code_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    assert said in capsys.readouterr().err
