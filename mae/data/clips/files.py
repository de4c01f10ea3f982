"""Clips that are decoded anew for every batch, by worker processes: for sets that do not fit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from mae.data.clips.sampling import Sampling
from mae.data.clips.source import Account, Taking, WholeClips
from mae.data.clips.video import LIMIT, Video
from mae.data.files.listing import Listing
from mae.data.files.tally import DecodeReport
from mae.data.files.workers import default_workers
from mae.data.source import Augment, Batch, generators
from mae.errors import DataError


class ClipFiles(WholeClips):
    """A source for clips that do not fit: the frames of every batch are read from the files by worker processes.

    Frames are scaled so that the shorter side has ``short_side`` pixels. Opening a clip and reading from it may take
    ``limit`` seconds each. DataError when the share ``max_failed`` of the clips could not be used.
    """

    def __init__(
        self,
        listing: Listing,
        *,
        short_side: int,
        workers: int | None = None,
        max_failed: float = 0.05,
        limit: float = LIMIT,
    ) -> None:
        if short_side < 1:
            raise DataError(f"short_side={short_side}: give at least one pixel.")
        self.listing, self.short_side, self.limit = listing, short_side, limit
        self.classes = listing.classes
        self.workers = default_workers() if workers is None else workers
        self._account = Account(listing.names, str(listing.root), max_failed)

    def __len__(self) -> int:
        return len(self.listing)

    @property
    def report(self) -> DecodeReport:
        return self._account.report

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> TakenFiles:
        return TakenFiles(self, Taking(sampling, view, views, repeats, seed), self._account)


class TakenFiles:
    """Frames of clips in files, as ``taking`` says; ``crop`` is taken of each clip where it is read.

    Clips differ in shape, so something must be cut before they make a batch: the central square, or what ``through``
    is given.
    """

    def __init__(self, clips: ClipFiles, taking: Taking, account: Account, crop: Augment | None = None) -> None:
        self.clips, self.taking, self.crop, self._account = clips, taking, crop, account
        self.classes = clips.classes

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def report(self) -> DecodeReport:
        return self.clips.report

    def through(self, crop: Augment) -> TakenFiles:
        """The same clips, each cropped by ``crop`` (all of its frames alike) before it goes into a batch."""
        return TakenFiles(self.clips, self.taking, self._account, crop)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """``(B * repeats, 3, T, h, w)`` for each index tensor of ``order: (B,)``, without the unusable clips."""
        loader = DataLoader(
            _ClipReader(self.clips, self.taking, self.crop),
            batch_size=None,
            sampler=order,
            num_workers=self.clips.workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            prefetch_factor=2 if self.clips.workers else None,
            generator=Generator(),  # else the loader would draw from the global one
        )
        for read in loader:
            self._account.note(read.rows, read.failed)
            yield Batch(read.clips.to(device, non_blocking=True), read.labels.to(device, non_blocking=True), read.rows)


class _Read(NamedTuple):
    """One batch from a worker: clips, labels, their rows, and the rows that could not be used, with the reason."""

    clips: Tensor
    labels: Tensor
    rows: Tensor
    failed: list[tuple[int, str]]


class _ClipReader(Dataset[_Read]):
    """Reads whole batches: an item is the batch of one index tensor."""

    def __init__(self, clips: ClipFiles, taking: Taking, crop: Augment | None) -> None:
        self.root, self.short_side, self.limit = clips.listing.root, clips.short_side, clips.limit
        self.taking, self.crop = taking, crop
        # One block of bytes: workers would copy a million strings page by page as reference counts change.
        self.names = np.array([os.fsencode(name) for name in clips.listing.names], dtype=np.bytes_)
        self.labels = torch.tensor(clips.listing.labels, dtype=torch.int64)

    def __getitem__(self, index: Tensor) -> _Read:
        asked = index.tolist()
        clips, kept, failed = [], [], []
        for row, generator in zip(asked, generators(self.taking.seed, asked), strict=True):
            try:
                clips += self._examples(row, generator)
                kept += [row] * self.taking.repeats
            except DataError as error:
                failed.append((row, str(error)))
        empty = torch.empty(0, 3, self.taking.sampling.frames, self.short_side, self.short_side, dtype=torch.uint8)
        rows = torch.tensor(kept, dtype=torch.int64)
        return _Read(torch.stack(clips) if clips else empty, self.labels[rows], rows, failed)

    def _examples(self, row: int, generator: Generator) -> list[Tensor]:
        """``repeats`` clips ``(3, T, h, w)`` of one file, of which each frame is decoded once."""
        video = Video(self.root / os.fsdecode(bytes(self.names[row])), limit=self.limit)
        ids = self.taking.ids(video.frames, generator)
        needed, place = torch.unique(ids, return_inverse=True)
        frames = torch.from_numpy(video.read(needed.tolist(), short_side=self.short_side))
        return [self._cropped(frames[own].transpose(0, 1), generator) for own in place]

    def _cropped(self, clip: Tensor, generator: Generator) -> Tensor:
        """``(3, T, h, w)`` uint8 of ``clip: (3, T, H, W)``."""
        if self.crop is None:
            top, left = ((side - self.short_side) // 2 for side in clip.shape[-2:])
            return clip[..., top : top + self.short_side, left : left + self.short_side].contiguous()
        cropped = self.crop(clip.flatten(0, 1)[None], generator)  # frames as channels: all are cropped alike
        return cropped.mul(255).round_().clamp_(0, 255).to(torch.uint8).view(*clip.shape[:2], *cropped.shape[-2:])


def _unchanged(read: Any) -> Any:
    return read
