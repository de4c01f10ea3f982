"""Built-in films with boxes: repeatable, in AVA's files, and their actions are what is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.builtin.moving_digits_boxes import ACTIONS, APPROACH, MovingDigitsBoxes
from mae.data.keyframes.sets import Layout
from mae.data.source import identity_of
from mae.errors import DataError


def test_the_same_fields_give_the_same_files(tmp_path: Path) -> None:
    data = MovingDigitsBoxes(train=3, test=2, size=24)
    for place in ("a", "b"):
        data(tmp_path / place)
    written = [sorted((tmp_path / place).rglob("*.csv")) for place in ("a", "b")]
    assert len(written[0]) == 6
    for one, other in zip(*written, strict=True):
        assert one.read_text() == other.read_text()


def test_it_holds_what_it_says(tmp_path: Path) -> None:
    data = MovingDigitsBoxes(train=6, test=4, size=24)
    splits, held = data(tmp_path), data.holds()
    assert (len(splits.pretrain), len(splits.train), len(splits.test)) == (6, 6, 4)
    assert held.sizes == {"pretrain": 6, "train": 6, "test": 4}
    assert held.classes == len(splits.train.classes) == len(ACTIONS) == 19
    assert splits.train.classes == ACTIONS
    (folder,) = (path for path in tmp_path.glob("moving_digits_boxes-v1-test-*") if path.is_dir())
    assert {path.name for path in folder.iterdir() if path.suffix in (".csv", ".pbtxt")} == {
        Layout().test_boxes, Layout().test_excluded, Layout().detections, Layout().label_map,
    }  # fmt: skip


def test_actions_are_what_the_paths_do() -> None:
    train, _ = MovingDigitsBoxes(train=200, test=1)._studios(Path("nowhere"))
    seen: dict[str, int] = dict.fromkeys(ACTIONS, 0)
    for index in range(200):
        actors, _ = train.scene(np.random.RandomState([*train.seed, index]))
        for actor in actors:
            down, right = actor.centre[-1] - actor.centre[0]
            moves = {"move left": -right, "move right": right, "move up": -down, "move down": down}
            done = {name for name, length in moves.items() if length > 0.15}
            assert done == set(actor.actions) & set(moves)
            assert ("rest" in actor.actions) == (not done)
            growth = float(np.log(actor.scale[-1] / actor.scale[0])[0])
            assert ("grow" in actor.actions, "shrink" in actor.actions) == (growth > 0.1, growth < -0.1)
            assert f"be a {train.labels[actor.digit]}" in actor.actions
            others = [other.centre for other in actors if other is not actor]
            distance = np.min([np.linalg.norm(actor.centre - other, axis=1) for other in others], axis=0)
            nearer = distance[:8].mean() - distance[-8:].mean()
            assert ("near another" in actor.actions) == (nearer > APPROACH)
            for action in actor.actions:
                seen[action] += 1
    assert min(seen.values()) > 20  # no action is rare


def test_identity_follows_the_fields_and_pre_training_reads_no_test_films() -> None:
    usual, other = MovingDigitsBoxes(test=5), MovingDigitsBoxes(test=6)
    assert identity_of(usual, "pretrain") == identity_of(other, "pretrain")
    assert identity_of(usual, "evaluate") != identity_of(other, "evaluate")


@pytest.mark.parametrize("field", ["train", "test", "size", "frames", "seed"])
def test_fields_that_cannot_be_served_are_refused(field: str) -> None:
    with pytest.raises(DataError, match=f"moving_digits_boxes: {field}=-1"):
        MovingDigitsBoxes(**{field: -1})


def test_training_and_testing_share_no_digit() -> None:
    train, test = MovingDigitsBoxes()._studios(Path("nowhere"))
    shared = (torch.from_numpy(train.glyphs).flatten(1)[:, None] == torch.from_numpy(test.glyphs).flatten(1)).all(2)
    assert shared.sum() <= 3  # scikit-learn has a few digits twice
