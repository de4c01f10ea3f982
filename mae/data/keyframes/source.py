"""Clips around keyframes as a source: each batch brings the boxes that lie in its keyframes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mae.data.clips.sampling import Around, Sampling
from mae.data.clips.source import DecodedClips, WholeClips
from mae.data.files.tally import MAX_FAILED, DecodeReport, Tally
from mae.data.keyframes.table import Key, Keyframes, Task
from mae.data.source import WHOLE, Batch, Places, Source, sent
from mae.errors import DataError


@dataclass(frozen=True)
class Timing:
    """The second ``starts_at`` of what keyframes count is a film's first frame, and it has ``rate`` frames a second."""

    rate: float
    starts_at: float = 0.0

    def frame(self, key: Key) -> int:
        """The frame of a keyframe; DataError, without a name, where it lies before the film."""
        if key.second < self.starts_at:
            raise DataError(f"lies before second {self.starts_at:g}, at which films start")
        return round((key.second - self.starts_at) * self.rate)


class KeyframeSource(Source, Protocol):
    """Clips around keyframes, with boxes; a source to test on states the ``task``, another has None."""

    @property
    def task(self) -> Task | None: ...


def around(sampling: Sampling, repeats: int) -> Around:
    """``sampling`` if it takes frames around a keyframe; DataError where it does not, or clips are repeated."""
    if not isinstance(sampling, Around):
        raise DataError(
            f"{sampling} takes frames anywhere; clips around keyframes are taken by mae.data.clips.sampling.Around."
        )
    if repeats != 1:
        raise DataError(f"repeats={repeats}: clips around keyframes are used once.")
    return sampling


def placed(table: Keyframes, rows: Sequence[int], size: tuple[int, int]) -> Places:
    """The boxes of the keyframes ``rows``, in pixels of pictures of ``size`` (h, w), and the actions in them."""
    ids = table.of(rows)
    scale = torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)
    items = torch.arange(len(rows)).repeat_interleave(table.offsets.diff()[list(rows)])
    return Places((table.boxes[ids] * scale).float(), items, labels=table.actions[ids])


class DecodedKeyframes(WholeClips):
    """The keyframes of ``table`` in ``films`` that were decoded once; ``film_of[i]`` is the place of a keyframe's film.

    ``classes`` are the names of all actions. ``task`` is given where it is tested on.
    """

    def __init__(
        self,
        films: DecodedClips,
        film_of: Tensor,
        table: Keyframes,
        classes: tuple[str, ...],
        timing: Timing,
        task: Task | None = None,
        max_failed: float = MAX_FAILED,
    ) -> None:
        self.films, self.film_of, self.table, self.classes = films, film_of, table, classes
        self.timing, self.task, self.max_failed = timing, task, max_failed
        names = tuple(f"{key} ({place})" for key, place in zip(table.keys, table.places, strict=True))
        self.tally = Tally(names, "the keyframes", max_failed)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def report(self) -> DecodeReport:
        """Keyframes used so far, and those whose film ends before them."""
        return self.tally.report

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> TakenKeyframes:
        """Clips around the keyframes as ``sampling`` takes them, in training and in testing alike."""
        return TakenKeyframes(self, around(sampling, repeats))


class TakenKeyframes:
    """Frames around the keyframes of decoded films."""

    def __init__(self, whole: DecodedKeyframes, sampling: Around) -> None:
        self.whole, self.sampling, self.places = whole, sampling, WHOLE
        self.classes, self.task = whole.classes, whole.task

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def report(self) -> DecodeReport:
        return self.whole.report

    def reading(self, places: slice) -> TakenKeyframes:
        """The same clips, of each of whose batches only ``places`` are taken."""
        found = copy(self)
        found.places = places
        return found

    def part(self, ids: Tensor) -> TakenKeyframes:
        """The keyframes ``ids: (n,)``, numbered from 0; a task is that for these."""
        whole, rows = self.whole, ids.tolist()
        task = None if whole.task is None else whole.task.part(rows)
        table = whole.table.part(rows)
        kept = DecodedKeyframes(
            whole.films, whole.film_of[ids], table, whole.classes, whole.timing, task, whole.max_failed
        )
        return TakenKeyframes(kept, self.sampling)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """``(B, C, T, H, W)`` for each index tensor of ``order: (B,)``, with boxes, without films that end before."""
        films, table = self.whole.films, self.whole.table
        lengths = films.offsets.diff()
        for index in order:
            ids, kept, failed = [], [], []
            for row in index[self.places].tolist():
                film = int(self.whole.film_of[row])
                try:
                    own = self.sampling.around(int(lengths[film]), self.whole.timing.frame(table.keys[row]))
                except DataError as error:
                    failed.append((row, str(error)))
                    continue
                ids.append(own + films.offsets[film])
                kept.append(row)
            rows = torch.tensor(kept, dtype=torch.int64)
            self.whole.tally.note(rows, failed)
            flat = torch.cat(ids) if ids else torch.empty(0, dtype=torch.int64)
            taken = films.frames[flat].view(len(kept), self.sampling.frames, *films.frames.shape[1:])
            places = placed(table, kept, (taken.shape[-2], taken.shape[-1]))
            clips = taken.transpose(1, 2).contiguous()  # (B, T, C, H, W) to (B, C, T, H, W)
            labels = torch.full((len(kept),), -1)
            yield Batch(sent(clips, device), sent(labels, device), rows, places.to(device))
