"""Frame mAP is the published evaluator's: its definition written out box by box, and scikit-learn's curves."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve
from torch import Tensor

from mae.data.keyframes.table import Key, Keyframes, Task
from mae.heads.average_precision import curves, mean_average_precision

ACTIONS = 6
EVALUATED = (0, 1, 2, 4)


def table(counts: list[int], boxes: list[list[float]], actions: Tensor, seconds: list[int]) -> Keyframes:
    keys = tuple(Key("film", second) for second in seconds)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    scores = torch.ones(len(boxes), dtype=torch.float64)
    found = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    return Keyframes(keys, offsets, found, actions, scores, ("",) * len(keys))


def drawn(seed: int, keyframes: int = 12, levels: int = 0) -> tuple[Task, Tensor]:
    """True boxes, detections near them and elsewhere, and scores, of ``levels`` different values, 0 for any.

    Some keyframes have no truth and some no detection. The truth never has action 2.
    """
    chance = np.random.default_rng(seed)

    def box() -> list[float]:
        left, top, width, height = chance.uniform(0, 0.6), chance.uniform(0, 0.6), *chance.uniform(0.1, 0.4, 2)
        return [left, top, left + width, top + height]

    true, counts = [], []
    for _ in range(keyframes):
        own = [box() for _ in range(chance.integers(1, 4))]
        true += own
        counts.append(len(own))
    actions = torch.from_numpy(chance.uniform(size=(len(true), ACTIONS)) < 0.4)
    actions[:, 2] = False
    seconds = list(range(keyframes))
    truth = table(counts, true, actions, seconds)
    detected, found = [], []
    for row in range(keyframes):
        near = truth.boxes[truth.of([row])].numpy()
        own = [list(one + chance.normal(0, 0.03, 4)) for one in near for _ in range(chance.integers(0, 3))]
        own = [one for one in own if one[0] < one[2] and one[1] < one[3]] + [box()] * chance.integers(0, 2)
        detected += own
        found.append(len(own))
    seconds = [second + (3 if second > keyframes - 3 else 0) for second in seconds]  # some where there is no truth
    seen = table(found, detected, torch.zeros(len(detected), ACTIONS, dtype=torch.bool), seconds)
    scores = chance.uniform(size=(len(detected), ACTIONS))
    if levels:
        scores = np.floor(scores * levels) / levels
    return Task(seen, truth, EVALUATED), torch.from_numpy(scores)


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared)


def written_out(task: Task, scores: Tensor) -> dict[int, tuple[list[tuple[float, bool]], int]]:
    """By action, each detection's score and whether it is right, from the highest score down, and how many are true."""
    detected, truth, _ = task
    found = {}
    for action in EVALUATED:
        ranked: list[tuple[float, bool]] = []
        all_true = 0
        for row in range(len(truth)):
            all_true += sum(bool(truth.actions[box, action]) for box in truth.of([row]))
        for row, key in enumerate(detected.keys):
            true = []
            if key in truth.keys:
                ids = truth.of([truth.keys.index(key)]).tolist()
                true = [truth.boxes[box].tolist() for box in ids if truth.actions[box, action]]
            used = [False] * len(true)
            ids = detected.of([row]).tolist()
            for box in sorted(ids, key=lambda box: -float(scores[box, action])):
                overlaps = [overlap(detected.boxes[box].tolist(), other) for other in true]
                best = max(range(len(true)), key=lambda place: overlaps[place]) if true else -1
                right = best >= 0 and overlaps[best] >= 0.5 and not used[best]
                if right:
                    used[best] = True
                ranked.append((float(scores[box, action]), right))
        if all_true:
            found[action] = (ranked, all_true)
    return found


def area_of(ranked: list[tuple[float, bool]], true: int) -> float:
    """The integral of the best precision at a recall of r or more over r from 0 to 1."""
    order = sorted(ranked, key=lambda item: -item[0])
    points = []
    for count in range(1, len(order) + 1):
        hits = sum(right for _, right in order[:count])
        points.append((hits / true, hits / count))
    levels = sorted({0.0, *(recall for recall, _ in points)})
    return math.fsum(
        (high - low) * max(precision for recall, precision in points if recall >= high)
        for low, high in pairwise(levels)
    )


CASES = [(seed, levels) for seed in range(6) for levels in (0, 4, 1)]


def test_areas_are_those_of_the_definition_written_out() -> None:
    compared = 0
    for seed, levels in CASES:
        task, scores = drawn(seed, levels=levels)
        found = curves(task, scores)
        expected = {action: area_of(*item) for action, item in written_out(task, scores).items()}
        assert found.keys() == expected.keys()
        assert 2 not in found  # the truth never has it
        for action, area in expected.items():
            assert found[action].area == pytest.approx(area, abs=1e-9)
            compared += 1
        assert mean_average_precision(found) == pytest.approx(100 * np.mean(list(expected.values())), abs=1e-9)
    assert compared == 3 * len(CASES)


def test_areas_without_ties_are_those_under_scikit_learns_curves() -> None:
    task, scores = drawn(3, keyframes=30)
    expected = written_out(task, scores)
    for action, (ranked, true) in expected.items():
        right = [hit for _, hit in ranked]
        precision, recall, _ = precision_recall_curve(right, [score for score, _ in ranked])
        best = np.maximum.accumulate(precision[:-1])  # from the highest recall down; the last point is made up
        steps = -np.diff(recall) * sum(right) / true  # scikit-learn does not know of what was not found
        assert curves(task, scores)[action].area == pytest.approx(float(np.sum(steps * best)), abs=1e-9)
    assert len(expected) == 3


def one_keyframe(true: list[list[float]], boxes: list[list[float]], values: list[float]) -> float:
    """The area of an only action of an only keyframe."""
    truth = table([len(true)], true, torch.ones(len(true), 1, dtype=torch.bool), [0])
    seen = table([len(boxes)], boxes, torch.zeros(len(boxes), 1, dtype=torch.bool), [0])
    found = curves(Task(seen, truth, (0,)), torch.tensor(values, dtype=torch.float64)[:, None])
    return found[0].area


BOX, SHIFTED, AWAY = [0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.52, 0.5], [0.6, 0.6, 0.9, 0.9]


@pytest.mark.parametrize(
    ("true", "boxes", "values", "area"),
    [
        ([BOX], [BOX, BOX], [0.9, 0.8], 1.0),  # a duplicate below is wrong, after all was found
        ([BOX, AWAY], [BOX, BOX, AWAY], [0.9, 0.8, 0.7], 0.5 + 0.5 * 2 / 3),  # a duplicate between is wrong
        ([BOX, SHIFTED], [SHIFTED, SHIFTED], [0.9, 0.8], 0.5),  # its best box is taken, and it gets no other
        ([BOX], [AWAY], [0.9], 0.0),
        ([BOX], [AWAY, BOX], [0.9, 0.8], 0.5),
        ([BOX], [AWAY, BOX], [0.5, 0.5], 0.5),  # of equal scores the first comes first
        ([BOX], [BOX, AWAY], [0.5, 0.5], 1.0),
        ([[0.0, 0.0, 1.0, 0.5]], [[0.0, 0.0, 1.0, 1.0]], [0.5], 1.0),  # an IoU of one half is enough
        ([[0.0, 0.0, 1.0, 0.499]], [[0.0, 0.0, 1.0, 1.0]], [0.5], 0.0),
    ],
)  # fmt: skip
def test_what_counts_as_right(
    true: list[list[float]], boxes: list[list[float]], values: list[float], area: float
) -> None:
    assert one_keyframe(true, boxes, values) == pytest.approx(area, abs=1e-9)


def test_actions_that_the_truth_has_nowhere_are_left_out_and_those_never_detected_count_as_0() -> None:
    task, scores = drawn(0)
    nothing = task._replace(detected=task.detected.part([]))
    found = curves(nothing, scores[:0])
    assert {action: curve.area for action, curve in found.items()} == {0: 0.0, 1: 0.0, 4: 0.0}
    assert math.isnan(mean_average_precision({}))
