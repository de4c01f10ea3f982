"""Clips around keyframes as a source: each batch brings the boxes that lie in its keyframes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from mae.data.clips.sampling import Around, Sampling
from mae.data.clips.source import DecodedClips, Taken, WholeClips
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


class WholeKeyframes(WholeClips, ABC):
    """What sets of keyframes share: the items of ``table``, which a report names, in films that ``timing`` describes.

    ``classes`` are the names of all actions. ``task`` is given where it is tested on. ``where`` names the set in words.
    """

    def __init__(
        self,
        table: Keyframes,
        classes: tuple[str, ...],
        timing: Timing,
        task: Task | None,
        where: str,
        max_failed: float,
    ) -> None:
        self.table, self.classes, self.timing, self.task, self.max_failed = table, classes, timing, task, max_failed
        names = tuple(f"{key} ({place})" for key, place in zip(table.keys, table.places, strict=True))
        self.tally = Tally(names, where, max_failed)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def report(self) -> DecodeReport:
        """Keyframes used so far, and those that could not be read, or whose film ends before them."""
        return self.tally.report

    @abstractmethod
    def part(self, ids: Tensor) -> WholeKeyframes:
        """The keyframes ``ids: (n,)``, numbered from 0; a task is that for these."""

    @abstractmethod
    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> KeyframeSource:
        """Clips around the keyframes as ``sampling`` takes them, in training and in testing alike."""


K = TypeVar("K", bound=WholeKeyframes)
T = TypeVar("T", bound="TakenAround[Any]")


class TakenAround(Taken[K]):
    """What ``taking`` gives of keyframes: frames around each of ``whole``."""

    def __init__(self, whole: K, sampling: Around) -> None:
        super().__init__(whole)
        self.sampling, self.task = sampling, whole.task

    def part(self: T, ids: Tensor) -> T:
        """The keyframes ``ids: (n,)``, numbered from 0; a task is that for these."""
        found = self.reading(WHOLE)
        found.whole = self.whole.part(ids)
        found.task = found.whole.task
        return found


class DecodedKeyframes(WholeKeyframes):
    """Keyframes in ``films`` that were decoded once; ``film_of[i]`` is the place of the film of a keyframe."""

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
        super().__init__(table, classes, timing, task, "the keyframes", max_failed)
        self.films, self.film_of = films, film_of

    def part(self, ids: Tensor) -> DecodedKeyframes:
        rows = ids.tolist()
        return DecodedKeyframes(
            self.films, self.film_of[ids], self.table.part(rows), self.classes, self.timing,
            self.task and self.task.part(rows), self.max_failed,
        )  # fmt: skip

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> TakenKeyframes:
        return TakenKeyframes(self, around(sampling, repeats))


class TakenKeyframes(TakenAround[DecodedKeyframes]):
    """Frames around the keyframes of decoded films."""

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
