"""Clips around keyframes that are read from their films anew for every batch, by worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Generator, Tensor

from mae.data.augment.compose import Stacked
from mae.data.augment.crops import CenterCrop
from mae.data.augment.places import mapped, moved
from mae.data.clips.sampling import Around, Sampling
from mae.data.clips.video import LIMIT, Video
from mae.data.files.listing import Listing
from mae.data.files.stream import streamed
from mae.data.files.tally import MAX_FAILED
from mae.data.files.workers import processors
from mae.data.keyframes.source import TakenAround, Timing, WholeKeyframes, around, placed
from mae.data.keyframes.table import Keyframes, Task
from mae.data.source import Augment, Batch, Places


class KeyframeFiles(WholeKeyframes):
    """The keyframes of ``table``; ``films`` lists the film of each, and its classes are the names of all actions.

    Frames have 1 or 3 ``channels``, and are scaled so that the shorter side has ``short_side`` pixels.
    """

    def __init__(
        self,
        films: Listing,
        table: Keyframes,
        timing: Timing,
        task: Task | None = None,
        *,
        short_side: int,
        channels: int = 3,
        workers: int | None = None,
        max_failed: float = MAX_FAILED,
    ) -> None:
        super().__init__(table, films.classes, timing, task, str(films.root), max_failed)
        self.films, self.short_side, self.channels = films, short_side, channels
        self.workers = processors() if workers is None else workers

    def part(self, ids: Tensor) -> KeyframeFiles:
        rows = ids.tolist()
        return KeyframeFiles(
            self.films.part(rows), self.table.part(rows), self.timing, self.task and self.task.part(rows),
            short_side=self.short_side, channels=self.channels, workers=self.workers, max_failed=self.max_failed,
        )  # fmt: skip

    def taking(
        self, sampling: Sampling, *, view: int | None = None, views: int = 1, repeats: int = 1, seed: int = 0
    ) -> TakenKeyframeFiles:
        return TakenKeyframeFiles(self, around(sampling, repeats), seed, CenterCrop(self.short_side))


class TakenKeyframeFiles(TakenAround[KeyframeFiles]):
    """Frames around keyframes in files; ``crop`` is taken of each clip where it is read, and boxes go with it."""

    def __init__(self, whole: KeyframeFiles, sampling: Around, seed: int, crop: Augment) -> None:
        super().__init__(whole, sampling)
        self.seed, self.crop = seed, crop

    def through(self, crop: Augment) -> TakenKeyframeFiles:
        """The same clips, each cropped by ``crop`` before it goes into a batch."""
        return TakenKeyframeFiles(self.whole, self.sampling, self.seed, crop)

    def batches(self, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """``(B, channels, T, h, w)`` for each index tensor of ``order: (B,)``, with boxes; none that cannot be read."""
        whole = self.whole
        reader = KeyframeReader(whole.table, whole.timing, self.sampling, self.crop, whole.short_side, whole.channels)
        for batch in streamed(
            whole.films, reader, whole.tally, order, device,
            seed=self.seed, workers=whole.workers, places=self.places,
        ):  # fmt: skip
            none = placed(whole.table, [], (1, 1)).to(device)  # of a batch of which nothing can be read
            yield batch if batch.places is not None else batch._replace(places=none)


@dataclass(frozen=True)
class KeyframeReader:
    """The clip ``(channels, T, h, w)`` around a keyframe, and its boxes; several crops of it are stacked before."""

    table: Keyframes
    timing: Timing
    sampling: Around
    crop: Augment
    short_side: int
    channels: int
    limit: float = LIMIT

    @property
    def shape(self) -> tuple[int, ...]:
        crops = (len(self.crop.crops),) if isinstance(self.crop, Stacked) else ()
        return (*crops, self.channels, self.sampling.frames, self.short_side, self.short_side)

    @property
    def nbytes(self) -> int:
        return prod(self.shape)

    def placed(self, path: Path, row: int, generator: Generator) -> tuple[Tensor, Places]:
        """The clip around the keyframe ``row`` in the film at ``path``, cropped, and its boxes in the crop."""
        video = Video(path, limit=self.limit)
        ids = self.sampling.around(video.frames, self.timing.frame(self.table.keys[row]))
        needed, place = torch.unique(ids, return_inverse=True)
        read = video.read(needed.tolist(), short_side=self.short_side, channels=self.channels)
        clip = torch.from_numpy(read)[place].transpose(0, 1)
        places = placed(self.table, [row], (clip.shape[-2], clip.shape[-1]))
        if not isinstance(self.crop, Stacked):
            return _cropped(clip, places, self.crop, generator)
        crops = [_cropped(clip, places, crop, generator) for crop in self.crop.crops]
        boxes = torch.stack([own.boxes for _, own in crops], 1)
        return torch.stack([pixels for pixels, _ in crops]), places._replace(boxes=boxes)


def _cropped(clip: Tensor, places: Places, crop: Augment, generator: Generator) -> tuple[Tensor, Places]:
    """``(C, T, h, w)`` uint8 of ``clip: (C, T, H, W)``, and where its places lie there."""
    pixels, maps = mapped(crop, clip[None], generator)
    size = (pixels.shape[-2], pixels.shape[-1])
    own = places if maps is None else moved(places, maps, size)
    return pixels[0].mul(255).round_().clamp_(0, 255).to(torch.uint8), own
