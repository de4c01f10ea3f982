"""A set of one's own in AVA's layout is trained and tested on without code; where it is wrong it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.ablation import SpecError, load_ablation
from experiments.plan import facts_of
from experiments.spec import Spec, spec_of
from experiments.stages.evaluation import Evaluation
from mae.train.loop import Runtime
from tests.data.keyframes.ava_files import ACTIONS, HEIGHT, LAYOUT, RATE, RECTANGLES, laid_down, line, shares

STAGE = "action_detection"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The set of three keyframes, eight times over."""
    found = laid_down(tmp_path / "set")
    boxes = (found / LAYOUT.train_boxes).read_text()
    copies = (found / "videos" / "one.mp4", found / "videos" / "two.mp4")
    for number in range(8):
        for film in copies:
            film.with_name(f"{film.stem}{number}.mp4").write_bytes(film.read_bytes())
        boxes += "\n".join(
            line(f"{film}{number}", second, shares(box), 1, 0) for (film, second), box in RECTANGLES.items()
        )
        boxes += "\n"
    (found / LAYOUT.train_boxes).write_text(boxes)
    return found


def spec(root: Path, *changes: str) -> Spec:
    table = load_ablation("video_action_detection")
    own = [
        "evaluate_data=ava", f"evaluate_data.source.root={root}", f"evaluate_data.classes={ACTIONS}",
        f"evaluate_data.source.rate={RATE}", f"evaluate_data.source.short_side={HEIGHT}",
        "evaluate_data.source.workers=0", "evaluate_data.samples={pretrain: 27, train: 27, test: 2}", "precision=fp32",
        *changes,
    ]  # fmt: skip
    return spec_of(table, table.rows["from scratch"], "smoke", 0, own, stages=[STAGE])


def test_it_is_trained_and_tested_on(root: Path, tmp_path: Path) -> None:
    stage = Evaluation(spec(root, f"evaluate.{STAGE}.views.crops=3"), STAGE)
    stage.check()
    results = stage.run(None, tmp_path / "cache", Runtime(0)).results
    assert set(results) == {"map", "ap_stand", "ap_talk_to_e_g_self", "seconds", "samples_per_second"}
    assert results["map"] == pytest.approx((results["ap_stand"] + results["ap_talk_to_e_g_self"]) / 2)
    assert results["map"] == 100.0  # each keyframe to test on has one detection, of a box that shows both actions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("evaluate_data.samples.test=3", r"choose evaluate_data\.samples\.test from 1 to 2"),
        ("evaluate_data.classes=2", r"ava_train_v2\.2\.csv, line 2: the action id '3' is not from 1 to 2"),
        ("evaluate_data.source.videos=films", r"films is no folder; give the one with the films"),
        ("evaluate_data.source.least_score=0.95", r"none of its 4 detections has a score of 0\.95 or more; lower that"),
        ("evaluate_data.source.rate=0", r"rate=0, .*: give a rate above 0"),
        ("evaluate_data.input_size=[16,16]", r"evaluate_data has .* and data .*; make them equal"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(root: Path, change: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        facts_of(spec(root, change), STAGE)


def test_boxes_and_labels_are_not_taken_for_one_another() -> None:
    table = load_ablation("video_action_detection")
    labels = spec_of(table, table.rows["from scratch"], "smoke", 0, ["evaluate_data=moving_digits_motion"])
    with pytest.raises(SpecError, match="action_detection reads boxes, which data has not: choose"):
        facts_of(labels, STAGE)
    boxes = spec_of(table, table.rows["from scratch"], "smoke", 0)
    with pytest.raises(SpecError, match="finetune reads labels, and evaluate_data has boxes with actions: choose"):
        facts_of(boxes, "finetune")
