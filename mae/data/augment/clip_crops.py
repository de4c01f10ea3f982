"""The crops that VideoMAE takes of clips: multi-scale ones for training, several along the long side for testing.

They are augmentations as in ``mae.data.augment`` and take pictures too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from mae.constants import constant
from mae.data.augment.crops import CenterCrop, Crop, Cut, check_interpolation, pair, window
from mae.data.augment.resample import Boxes, cover, resample, unit
from mae.data.source import Augment
from mae.draws import uniform
from mae.errors import DataError

#: Where a multi-scale crop may lie, (down, right) in quarters of the room that it leaves: corners, middles of the
#: sides and the centre, and the four places between corner and centre.
PLACES = (*((i, j) for i in (0, 2, 4) for j in (0, 2, 4)), (1, 1), (1, 3), (3, 1), (3, 3))


@dataclass(frozen=True)
class MultiScaleCrop(Crop):
    """A crop whose sides are two of ``scales`` of the short side, resized to ``size`` (VideoMAE Table 9).

    It is that of TSN (1608.00859, Sec. 3.2). The two scales are neighbours in the list or the same, so the aspect
    changes a little; the place is one of ``PLACES``. A side that is within 2 pixels of ``size`` is as long as that, so
    that nothing is resized. ``flip`` mirrors half of the clips; labels of motion forbid it.
    """

    size: int | Sequence[int]
    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66)
    flip: bool = False
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise DataError(f"MultiScaleCrop: scales={self.scales} must be shares of the short side, within (0, 1].")
        check_interpolation(self, self.interpolation)

    def cut(self, images: Tensor, generator: Generator) -> Cut:
        images = unit(images)
        draw = uniform(generator, len(images), 3)
        boxes = self.boxes(images, draw[:, :2])
        mirrored = draw[:, 2] < 0.5 if self.flip else None
        seen = resample(images, boxes, pair(self.size), flip=mirrored, interpolation=self.interpolation)
        return Cut(seen, boxes, mirrored)

    def boxes(self, images: Tensor, draw: Tensor) -> Boxes:
        """A box with integer sides for each item, from ``draw: (B, 2)`` in [0, 1): for the sides, for the place."""
        rows, columns = images.shape[-2:]
        wanted = pair(self.size)
        short = min(rows, columns)
        lengths = [[self._length(int(short * scale), side, short) for scale in self.scales] for side in wanted]
        count = range(len(self.scales))
        sides = [(lengths[0][i], lengths[1][j]) for i in count for j in count if abs(i - j) <= 1]
        height, width = self._choose(constant(sides, images.device), draw[:, 0]).unbind(1)
        down, right = self._choose(constant(PLACES, images.device), draw[:, 1]).unbind(1)
        top, left = down * ((rows - height) / 4).floor(), right * ((columns - width) / 4).floor()
        return Boxes(top, left, height, width)

    @staticmethod
    def _length(length: int, wanted: int, most: int) -> int:
        return wanted if abs(length - wanted) < 3 and wanted <= most else max(1, length)

    @staticmethod
    def _choose(options: Tensor, draw: Tensor) -> Tensor:
        return options[(draw * len(options)).long()]


@dataclass(frozen=True)
class SideCrop(Crop):
    """Resize to just cover ``size``, then take number ``index`` of ``count`` crops, spread over the longer side."""

    size: int | Sequence[int]
    index: int
    count: int
    interpolation: str = "bicubic"
    antialias: bool = True

    def __post_init__(self) -> None:
        check_interpolation(self, self.interpolation)
        if self.count < 2 or not 0 <= self.index < self.count:
            raise DataError(f"{self}: give a count of at least 2 and an index below it.")

    def cut(self, images: Tensor, generator: Generator) -> Cut:
        h, w = pair(self.size)
        images = cover(unit(images), h, w, self.interpolation, self.antialias)
        top, left = (
            (length - side) * self.index // (self.count - 1)
            for length, side in zip(images.shape[-2:], (h, w), strict=True)
        )
        return window(images, top, left, (h, w))


def crops(centre: CenterCrop, count: int) -> tuple[Augment, ...]:
    """The test crops of a clip: ``centre`` for ``count=1``, else ``count`` along the long side (VideoMAE: three)."""
    if count < 1:
        raise DataError(f"crops={count}: test on at least one crop.")
    if count == 1:
        return (centre,)
    return tuple(SideCrop(centre.size, n, count, centre.interpolation, centre.antialias) for n in range(count))
