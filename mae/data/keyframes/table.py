"""The keyframes of a split and the boxes in them, as tensors that go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Key(NamedTuple):
    """The second of a film at which its boxes are stated."""

    film: str
    second: float

    def __str__(self) -> str:
        return f"{self.film} at second {self.second:g}"


@dataclass(frozen=True)
class Keyframes:
    """The boxes ``offsets[i]`` to ``offsets[i + 1] - 1`` lie in the keyframe ``keys[i]``; ``offsets: (n + 1,)`` int64.

    ``boxes: (N, 4)`` float64 are left, top, right and bottom in shares of the picture, ``actions: (N, A)`` bool the
    actions in each, and ``scores: (N,)`` float64 how sure it is that somebody is there. ``places[i]`` says in which
    file and line a keyframe is stated first.
    """

    keys: tuple[Key, ...]
    offsets: Tensor
    boxes: Tensor
    actions: Tensor
    scores: Tensor
    places: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, rows: Sequence[int]) -> Tensor:
        """Ids of the boxes of the keyframes ``rows``, one keyframe after the other: ``(n,)`` int64."""
        found = [torch.arange(int(self.offsets[row]), int(self.offsets[row + 1])) for row in rows]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)

    def part(self, rows: Sequence[int]) -> Keyframes:
        """The keyframes ``rows``, with their boxes."""
        ids = self.of(rows)
        counts = self.offsets.diff()[list(rows)]
        return Keyframes(
            tuple(self.keys[row] for row in rows),
            torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            self.boxes[ids],
            self.actions[ids],
            self.scores[ids],
            tuple(self.places[row] for row in rows),
        )


class Task(NamedTuple):
    """What a detector is tested on: it is given the boxes of ``detected`` and says the actions in each.

    ``truth`` has the right boxes and actions. ``evaluated`` are the columns of ``actions`` that are judged.
    """

    detected: Keyframes
    truth: Keyframes
    evaluated: tuple[int, ...]

    def part(self, rows: Sequence[int]) -> Task:
        """The same for the keyframes ``rows`` of ``detected``."""
        detected = self.detected.part(rows)
        kept = set(detected.keys)
        truth = self.truth.part([row for row, key in enumerate(self.truth.keys) if key in kept])
        return Task(detected, truth, self.evaluated)
