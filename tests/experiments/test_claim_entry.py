"""Entries under ``claims:`` of a table's file."""

from __future__ import annotations

from typing import Any

import pytest

import experiments.ablation
from experiments.ablation import SpecError, ablation_names, load_ablation
from experiments.claim_entry import ClaimError, claim_entries

#: Orderings that no sentence of the papers states.
OURS = {
    "augmentation": 1, "labels": 3, "methods": 8, "video_action_detection": 1, "video_data_efficiency": 1,
    "video_efficiency": 1, "video_masking": 2, "video_model_size": 2, "video_pretraining_data": 1, "video_schedule": 4,
    "video_target": 1, "video_transfer": 1,
}  # fmt: skip


def test_a_claim_of_the_paper_shows_its_words_and_place_and_one_of_ours_its_reason() -> None:
    quoted, sensed, ours = claim_entries([
        {"that": "a[x] > a[y]", "says": "x is best", "where": "Sec. 4"},
        {"that": "a[x] > a[y]", "after": "x does best", "where": "Sec. 4"},
        {"that": "a[x] > a[y]", "ours": True, "why": "to see"},
    ])  # fmt: skip
    assert quoted.source == "Sec. 4: “x is best”"
    assert sensed.source == "Sec. 4, in our words: x does best"
    assert ours.source == "ours: to see"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a[x] > a[y]", "is no mapping"),
        ({"says": "x"}, "is no mapping"),
        ({"that": "a > b", "sais": "x", "where": "y"}, "unknown key 'sais': valid: that, says"),
        ({"that": "a > b", "says": "x"}, "needs where in the paper it stands"),
        ({"that": "a > b", "where": "Sec. 4"}, "needs where in the paper it stands"),
        ({"that": "a > b", "says": "x", "after": "y", "where": "Sec. 4"}, "either says"),
        ({"that": "a > b", "ours": True}, "is ours: give it why"),
        ({"that": "a > b", "ours": True, "why": "x", "says": "y"}, "is ours: give it why"),
    ],
)
def test_an_entry_that_cannot_be_read_says_which_and_what_it_needs(entry: Any, message: str) -> None:
    with pytest.raises(ClaimError, match=message):
        claim_entries([entry])


def test_a_wrong_entry_is_refused_with_its_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ablation").mkdir()
    text = "title: t\nquestion: q\npaper: {}\ncolumns: {}\nrows: {}\nclaims: [a > b]\n"
    (tmp_path / "ablation" / "own.yaml").write_text(text)
    monkeypatch.setattr(experiments.ablation, "CONF", tmp_path)
    with pytest.raises(SpecError, match=r"own\.yaml: claim 'a > b' is no mapping"):
        load_ablation("own")


def test_what_the_papers_do_not_state_is_ours_in_every_table() -> None:
    counted = {name: sum(entry.ours for entry in load_ablation(name).claims) for name in ablation_names()}
    assert {name: count for name, count in counted.items() if count} == OURS
