"""Clips as data: sets of whole clips, of which ``taking`` makes the source of a training or of a test view.

``DecodedClips`` were decoded once into one array; ``mae.data.clips.stream`` decodes anew for every batch. A
clip that is damaged or too short for that makes its batch smaller; it is named once, and kept in ``report``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Generator, Tensor

from mae.data.clips.sampling import Sampling
from mae.data.files.tally import MAX_FAILED, DecodeReport, Tally
from mae.data.source import Batch, ReadsPlaces, Source, generators, sent
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


W = TypeVar("W", bound=ClipSource)


class Taken(ReadsPlaces, Generic[W]):
    """What ``taking`` gives of a ``whole`` set: as many clips, of which the whole set reports."""

    def __init__(self, whole: W) -> None:
        self.whole, self.classes = whole, whole.classes

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def report(self) -> DecodeReport:
        return self.whole.report


class TakenClips(Taken[DecodedClips]):
    """Frames of decoded clips, as ``taking`` says."""

    def __init__(self, clips: DecodedClips, taking: Taking) -> None:
        super().__init__(clips)
        self.taking = taking

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """``(B * repeats, C, T, H, W)`` for each index tensor of ``order: (B,)``, without clips that are too short."""
        starts, lengths = self.whole.offsets[:-1], self.whole.offsets.diff()
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
            self.whole.tally.note(rows, failed)
            flat = torch.cat(ids) if ids else torch.empty(0, self.taking.sampling.frames, dtype=torch.int64)
            taken = self.whole.frames[sent(flat, self.whole.frames.device)]
            clips = taken.transpose(1, 2).contiguous()  # (B, T, C, H, W) to (B, C, T, H, W)
            yield Batch(sent(clips, device), sent(self.whole.labels[rows], device), rows)
