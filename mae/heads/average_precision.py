"""Frame mAP, as the evaluator of AVA computes it: the mean over actions of their average precision at IoU 0.5.

In a keyframe, detections of an action are looked at from the highest score down. A detection belongs to the box of the
truth that it overlaps most; it is right if their IoU is at least 0.5 and no detection before it was right about that
box. Over all keyframes the detections of an action are then ranked by score, and average precision is the area under
precision against recall, where precision is first made to fall only (VOC 2010). An action that the truth has nowhere is
left out. Equal scores keep the order of keyframes and of their boxes, which the published code leaves to its sort.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from mae.data.keyframes.table import Task
from mae.world import World

Floats = NDArray[np.float64]

#: The least IoU at which a detection may be right.
OVERLAP = 0.5


class Curve(NamedTuple):
    """``precision`` and ``recall`` after each detection, from the highest score down, and the area under them."""

    precision: Floats
    recall: Floats
    area: float

    def points(self) -> dict[str, object]:
        """The curve as plain values, where recall rises."""
        rises = np.flatnonzero(np.diff(self.recall, prepend=0.0))
        precision, recall = (np.round(values[rises], 4).tolist() for values in (self.precision, self.recall))
        return {"area": self.area, "precision": precision, "recall": recall}


class FrameAP:
    """What a detector said so far about the boxes of ``task``, a state that processes sum up.

    ``add`` takes probabilities of all actions in boxes; where several views show a box, each counts by its weight.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        boxes, actions = task.detected.actions.shape
        self.sums = torch.zeros(boxes, actions, dtype=torch.float64, device=device)
        self.weights = torch.zeros(boxes, 1, dtype=torch.float64, device=device)

    def add(self, ids: Tensor, probabilities: Tensor, weights: Tensor) -> None:
        """Count ``probabilities: (n, A)`` of the boxes ``ids: (n,)``, which differ, each by its weight of ``(n,)``."""
        self.sums[ids] += probabilities.double() * weights.double()[:, None]
        self.weights[ids] += weights.double()[:, None]

    def gathered(self, world: World) -> Tensor:
        """Scores ``(boxes, A)`` float64 of what all processes said: the mean over views times the detection's own.

        A box that no view shows has 0.
        """
        sums, weights = world.sum(self.sums.clone()), world.sum(self.weights.clone())
        return (sums / weights.clamp(min=1e-12)).cpu() * self.task.detected.scores[:, None]


def curves(task: Task, scores: Tensor) -> dict[int, Curve]:
    """Rank what a detector says: ``scores: (boxes of task.detected, A)``, by action that is evaluated and occurs."""
    detected, truth, evaluated = task
    right = np.zeros(tuple(scores.shape), dtype=bool)
    rows_of = {key: row for row, key in enumerate(truth.keys)}
    for row, key in enumerate(detected.keys):
        if (other := rows_of.get(key)) is not None:
            ids, true = detected.of([row]), truth.of([other])
            overlaps = box_iou(detected.boxes[ids], truth.boxes[true])
            right[ids.numpy()] = _right(overlaps.numpy(), truth.actions[true].numpy(), scores[ids].numpy())
    return {
        action: _curve(scores[:, action].numpy(), right[:, action], int(truth.actions[:, action].sum()))
        for action in evaluated
        if truth.actions[:, action].any()
    }


def _right(overlaps: Floats, actions: NDArray[np.bool_], scores: Floats) -> NDArray[np.bool_]:
    """Which detections of one keyframe are right, by action: ``(n, A)``.

    ``overlaps: (n, m)`` are IoUs with the true boxes, ``actions: (m, A)`` what these show.
    """
    found = np.zeros(scores.shape, dtype=bool)
    for action in np.flatnonzero(actions.any(0)):
        true = np.flatnonzero(actions[:, action])
        nearest = true[overlaps[:, true].argmax(1)]
        taken: set[int] = set()
        for detection in np.argsort(-scores[:, action], kind="stable"):
            box = int(nearest[detection])
            if overlaps[detection, box] >= OVERLAP and box not in taken:
                found[detection, action] = True
                taken.add(box)
    return found


def _curve(scores: Floats, right: NDArray[np.bool_], true: int) -> Curve:
    """Precision and recall of one action, which ``true`` boxes show."""
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / true
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    area = float(np.sum(np.diff(recall, prepend=0.0) * falling))
    return Curve(precision, recall, area)


def mean_average_precision(found: dict[int, Curve]) -> float:
    """The mean of the areas, in percent; NaN where no action that is evaluated occurs."""
    return 100.0 * float(np.mean([curve.area for curve in found.values()])) if found else float("nan")
