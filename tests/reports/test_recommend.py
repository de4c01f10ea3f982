"""What the seeds say about each setting: what differs, what does not matter, what is open."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.recommend import sentences
from reports.render.text import render_text
from reports.tables import advice

FT = "finetune/top1"


def table_of(make_ablation: Any) -> Any:
    return make_ablation(
        columns={"ft": {"metric": FT}}, rows={label: {} for label in ("usual", "worse", "same", "noisy")}
    )


def test_what_differs_what_does_not_matter_and_what_is_open_are_told_apart(make_ablation: Any, make_frame: Any) -> None:
    values = {
        "usual": [50.0, 50.4, 50.2, 50.1], "worse": [40.1, 40.3, 40.0, 40.2], "same": [50.1, 50.3, 50.25, 50.0],
        "noisy": [50.0, 54.0, 47.0, 53.0],
    }  # fmt: skip
    frame = make_frame({(row, FT): seeds for row, seeds in values.items()})
    timed = make_frame({(row, "finetune/wall_seconds"): [60.0] * 4 for row in values})
    table = table_of(make_ablation)
    found = advice(table, pd.concat([frame, timed]), "desk").set_index("row")
    assert found["what"].to_dict() == {"worse": "differs", "same": "does not matter", "noisy": "open"}
    assert "10.03 lower (n=4, -" in found.loc["worse", "words"]
    assert " more seeds, " in found.loc["noisy", "words"]  # with their cost
    text = render_text(table, pd.concat([frame, timed]), "desk")
    assert "for data of your own:" in text
    assert "Does not matter here (within 1 point of the default): same, ft (n=4)." in text


def test_one_seed_decides_nothing_and_says_so_once(make_ablation: Any, make_frame: Any) -> None:
    frame = make_frame({(row, FT): [value] for row, value in (("usual", 50.0), ("worse", 10.0), ("same", 50.0))})
    found = advice(table_of(make_ablation), frame, "desk")
    assert set(found["what"]) == {"open"}
    assert sentences(found, "desk") == ["Open: worse, ft; same, ft: run two seeds first."]
    assert sentences(found.assign(scale="smoke"), "smoke") == []
    assert advice(table_of(make_ablation), make_frame({}), "desk").empty
    assert advice(make_ablation(default=None), frame, "desk").empty
