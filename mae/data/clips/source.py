"""Clips as data: sets of whole clips, of which ``taking`` makes the source of a training or of a test view.

``DecodedClips`` were decoded once into one array; ``mae.data.clips.stream`` decodes anew for every batch. A
clip that is damaged or too short for that makes its batch smaller; it is named once, and kept in ``report``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from mae.data.clips.sampling import Sampling
from mae.data.files.tally import MAX_FAILED, DecodeReport, Tally
from mae.data.source import WHOLE, Batch, Source, generators, sent
from mae.errors import DataError


class ClipSource(Source, Protocol):
    """A labelled set of clips, of which ``taking`` gives sources of batches ``(B, C, T, H, W)`` uint8."""

    @property
    def report(self) -> DecodeReport:
        """Clips used so far, each counted once, and those that could not be."""
        ...

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> Source:
        """The clips as ``sampling`` sees them: training draws with ``view=None``, else view ``view`` of ``views``.

        A draw is seeded by ``seed``, the indices of the batch and the place in it: it does not depend on the number
        of workers, a resumed run draws what it would have drawn, the next epoch draws anew. Each clip is read once
        and the same frames are used ``repeats`` times, item by item (a a b b): a batch has as many times the items
        asked for, which augmentation tells apart (VideoMAE's repeated augmentation, as released).
        """
        ...


@dataclass(frozen=True)
class Taking:
    """What ``ClipSource.taking`` was asked for, and the frames that it means for a clip of a batch."""

    sampling: Sampling
    view: int | None
    views: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise DataError(f"repeats={self.repeats}: a clip is used at least once.")
        if self.view is not None and not 0 <= self.view < self.views:
            raise DataError(f"view={self.view} of views={self.views} does not exist; count views from 0.")

    def ids(self, length: int, generator: Generator) -> Tensor:
        """Frames of a clip of ``length``, which every repeat uses: ``(T,)`` int64."""
        if self.view is not None:
            return self.sampling.test(length, self.view, self.views)
        return self.sampling.train(length, generator)


class WholeClips:
    """What sets of whole clips share: they have no batches before a sampling is taken."""

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        raise DataError("These are whole clips; `taking` a sampling says which of their frames make a batch.")


class DecodedClips(WholeClips):
    """Clips held as ``frames: (all frames, C, H, W)`` uint8, memory-mapped where they are many.

    Clip ``i`` is ``frames[offsets[i]:offsets[i + 1]]``; ``offsets: (n + 1,)``, ``labels: (n,)`` int64. ``failed`` are
    clips that decoding left out, with the reason; clips too short to be taken join them.
    """

    def __init__(
        self,
        frames: Tensor,
        offsets: Tensor,
        labels: Tensor,
        classes: tuple[str, ...],
        *,
        names: tuple[str, ...] | None = None,
        failed: tuple[tuple[str, str], ...] = (),
        max_failed: float = MAX_FAILED,
    ) -> None:
        if len(offsets) != len(labels) + 1 or int(offsets[-1]) != len(frames):
            raise DataError(
                f"{len(labels)} clips need {len(labels) + 1} offsets that end with the number of frames, "
                f"{len(frames)}; got {len(offsets)} that end with {int(offsets[-1])}."
            )
        self.frames, self.offsets, self.labels, self.classes = frames, offsets, labels, classes
        self.names = names or tuple(f"clip {row}" for row in range(len(labels)))
        self.max_failed = max_failed
        self.tally = Tally(self.names, "the decoded clips", max_failed, failed)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def report(self) -> DecodeReport:
        """Clips that are here and were not found too short, and all that failed."""
        return DecodeReport(len(self) - len(self.tally.failed), self.tally.report.failed)

    @property
    def nbytes(self) -> int:
        return self.frames.nbytes

    def to(self, device: torch.device) -> DecodedClips:
        """The same clips with their frames on ``device``."""
        return DecodedClips(
            self.frames.to(device), self.offsets, self.labels, self.classes,
            names=self.names, failed=self.tally.before, max_failed=self.max_failed,
        )  # fmt: skip

    def labelled(self, labels: Tensor, classes: tuple[str, ...]) -> DecodedClips:
        """The same clips under other labels, ``(n,)`` int64; the frames are shared."""
        return DecodedClips(
            self.frames, self.offsets, labels, classes,
            names=self.names, failed=self.tally.before, max_failed=self.max_failed,
        )  # fmt: skip

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> TakenClips:
        return TakenClips(self, Taking(sampling, view, views, repeats, seed))


class TakenClips:
    """Frames of decoded clips, as ``taking`` says."""

    def __init__(self, clips: DecodedClips, taking: Taking) -> None:
        self.clips, self.taking = clips, taking
        self.classes, self.places = clips.classes, WHOLE

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def report(self) -> DecodeReport:
        return self.clips.report

    def reading(self, places: slice) -> TakenClips:
        """The same clips, of each of whose batches only ``places`` are taken."""
        found = copy(self)
        found.places = places
        return found

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """``(B * repeats, C, T, H, W)`` for each index tensor of ``order: (B,)``, without clips that are too short."""
        starts, lengths = self.clips.offsets[:-1], self.clips.offsets.diff()
        for index in order:
            asked = index.tolist()
            ids, kept, failed = [], [], []
            drawn = generators(self.taking.seed, asked, self.places)
            for row, generator in zip(asked[self.places], drawn, strict=True):
                try:
                    own = self.taking.ids(int(lengths[row]), generator)
                except DataError as error:
                    failed.append((row, str(error)))
                    continue
                ids.append((own + starts[row]).expand(self.taking.repeats, -1))
                kept += [row] * self.taking.repeats
            rows = torch.tensor(kept, dtype=torch.int64)
            self.clips.tally.note(rows, failed)
            flat = torch.cat(ids) if ids else torch.empty(0, self.taking.sampling.frames, dtype=torch.int64)
            taken = self.clips.frames[sent(flat, self.clips.frames.device)]
            clips = taken.transpose(1, 2).contiguous()  # (B, T, C, H, W) to (B, C, T, H, W)
            yield Batch(sent(clips, device), sent(self.clips.labels[rows], device), rows)
