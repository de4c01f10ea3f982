"""Clips that are decoded anew for every batch, by worker processes: for sets that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Generator, Tensor

from mae.data.augment.compose import Stacked
from mae.data.clips.sampling import Sampling
from mae.data.clips.source import Taken, Taking, WholeClips
from mae.data.clips.video import LIMIT, Video
from mae.data.files.listing import Listing
from mae.data.files.stream import streamed
from mae.data.files.tally import MAX_FAILED, DecodeReport, Tally
from mae.data.files.workers import processors
from mae.data.source import Augment, Batch
from mae.errors import DataError


class ClipFiles(WholeClips):
    """A source for clips that do not fit: the frames of every batch are read from the files by worker processes.

    Frames have 1 or 3 ``channels``, and are scaled so that the shorter side has ``short_side`` pixels. Opening a clip
    and reading from it may take ``limit`` seconds each. DataError when the share ``max_failed`` of the clips could not
    be used.
    """

    def __init__(
        self,
        listing: Listing,
        *,
        short_side: int,
        channels: int = 3,
        workers: int | None = None,
        max_failed: float = MAX_FAILED,
        limit: float = LIMIT,
    ) -> None:
        if short_side < 1:
            raise DataError(f"short_side={short_side}: give at least one pixel.")
        self.listing, self.short_side, self.channels, self.limit = listing, short_side, channels, limit
        self.classes = listing.classes
        self.workers = processors() if workers is None else workers
        self.tally = Tally(listing.names, str(listing.root), max_failed)

    def __len__(self) -> int:
        return len(self.listing)

    @property
    def report(self) -> DecodeReport:
        return self.tally.report

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> TakenFiles:
        return TakenFiles(self, Taking(sampling, view, views, repeats, seed))


class TakenFiles(Taken[ClipFiles]):
    """Frames of clips in files, as ``taking`` says; ``crop`` is taken of each clip where it is read.

    Clips differ in shape, so something must be cut before they make a batch: the central square, or what ``through``
    is given.
    """

    def __init__(self, clips: ClipFiles, taking: Taking, crop: Augment | None = None) -> None:
        super().__init__(clips)
        self.taking, self.crop, self.workers = taking, crop, clips.workers

    def through(self, crop: Augment) -> TakenFiles:
        """The same clips, each cropped by ``crop`` (all of its frames alike) before it goes into a batch."""
        return TakenFiles(self.whole, self.taking, crop)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """``(B * repeats, channels, T, h, w)`` for each index tensor of ``order: (B,)``, without the unusable clips."""
        clips = self.whole
        reader = ClipReader(self.taking, self.crop, clips.short_side, clips.channels, clips.limit)
        return streamed(
            clips.listing, reader, clips.tally, order, device,
            seed=self.taking.seed, workers=self.workers, places=self.places,
        )  # fmt: skip


@dataclass(frozen=True)
class ClipReader:
    """The clips ``(channels, T, h, w)`` that ``taking`` takes of one file, of which each frame is decoded once."""

    taking: Taking
    crop: Augment | None
    short_side: int
    channels: int
    limit: float

    @property
    def shape(self) -> tuple[int, ...]:
        if isinstance(self.crop, Stacked):
            return (len(self.crop.crops), self.channels, self.taking.sampling.frames, self.short_side, self.short_side)
        return (self.channels, self.taking.sampling.frames, self.short_side, self.short_side)

    @property
    def nbytes(self) -> int:
        return self.taking.repeats * prod(self.shape)

    def examples(self, path: Path, generator: Generator) -> list[Tensor]:
        video = Video(path, limit=self.limit)
        ids = self.taking.ids(video.frames, generator)
        needed, place = torch.unique(ids, return_inverse=True)
        frames = torch.from_numpy(video.read(needed.tolist(), short_side=self.short_side, channels=self.channels))[
            place
        ].transpose(0, 1)
        return [self._cropped(frames, generator) for _ in range(self.taking.repeats)]

    def _cropped(self, clip: Tensor, generator: Generator) -> Tensor:
        """``(C, T, h, w)`` uint8 of ``clip: (C, T, H, W)``."""
        if self.crop is None:
            top, left = ((side - self.short_side) // 2 for side in clip.shape[-2:])
            return clip[..., top : top + self.short_side, left : left + self.short_side].contiguous()
        return self.crop(clip[None], generator)[0].mul(255).round_().clamp_(0, 255).to(torch.uint8)
