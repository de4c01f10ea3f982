"""Which frames of a clip a model sees: drawn for training, fixed for testing (VideoMAE Sec. 4.1, Appendix 7).

Frames are ids from 0 in presentation order, ``(frames,)`` int64, never descending. A clip too short to say anything
about time is refused, unless the released code is followed: that would be a still, or a sequence of repeats, under a
label of motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from mae.errors import DataError


class Sampling(Protocol):
    """``frames`` of them out of ``length``; DataError, without a name, when the clip is too short."""

    @property
    def frames(self) -> int: ...

    def train(self, length: int, generator: Generator) -> Tensor:
        """Ids for one training example of a clip of ``length`` frames."""
        ...

    def test(self, length: int, view: int, views: int) -> Tensor:
        """Ids of view ``view`` of ``views``: nothing is random."""
        ...


@dataclass(frozen=True)
class Dense:
    """Frames ``stride`` apart from a start anywhere in the clip: Kinetics, and all pre-training.

    Tested on ``views`` stretches spread evenly from the first to the last frame, a single one from the centre. Ids
    past the end are the last frame, as released.
    """

    frames: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1:
            raise DataError(f"{self}: give at least one frame and a stride of at least 1.")

    def train(self, length: int, generator: Generator) -> Tensor:
        _require(length, min(2, self.frames))
        room = max(0, length - 1 - (self.frames - 1) * self.stride)
        return self._from(int(torch.randint(room + 1, (), generator=generator)), length)

    def test(self, length: int, view: int, views: int) -> Tensor:
        _check_view(view, views)
        _require(length, min(2, self.frames))
        room = max(0, (length - 1) // self.stride + 1 - self.frames)  # in steps of the stride
        start = room // 2 if views == 1 else room * view // (views - 1)
        return self._from(start * self.stride, length)

    def _from(self, start: int, length: int) -> Tensor:
        return (start + self.stride * torch.arange(self.frames)).clamp(max=length - 1)


@dataclass(frozen=True)
class Span(Dense):
    """``Dense`` as fine-tuning on Kinetics was released: training spreads its frames over ``frames * stride`` frames.

    They go from the first to the last frame of a stretch of that length, so that 16 frames at a stride of 4 lie 64 / 15
    apart and not 4. Of a clip that is no longer, one frame for each ``stride`` is taken, spread over all of it, and
    then its last one. Tests take what ``Dense`` takes, and fill up with the last strided frame.
    """

    def train(self, length: int, generator: Generator) -> Tensor:
        _require(length, min(2, self.frames))
        span, start = self.frames * self.stride, 0
        count = length // self.stride if length <= span else self.frames
        if length > span:
            start, length = int(torch.randint(length - span, (), generator=generator)), span
        place = torch.arange(self.frames)
        spread = torch.where(place < count, place * length // max(1, count - 1), length)
        return start + spread.clamp(max=length - 1)

    def _from(self, start: int, length: int) -> Tensor:
        last = (length - 1) // self.stride * self.stride
        return (start + self.stride * torch.arange(self.frames)).clamp(max=last)


@dataclass(frozen=True)
class Uniform:
    """One frame of each of ``frames`` equal segments of the whole clip (TSN): fine-tuning on Something-Something.

    In training a random one, the segments being a whole number of frames long, as released. Tested with two views on
    the starts and on the middles of the segments, in general at the fraction ``view / views`` of each; a single view
    takes the middles. A clip of fewer frames is refused, unless it may be ``shorter``: training then takes its first
    frame ``frames`` times, as released, and tests repeat frames.
    """

    frames: int
    shorter: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DataError(f"{self}: give at least one frame.")

    def train(self, length: int, generator: Generator) -> Tensor:
        _require(length, self._least)
        segment = length // self.frames
        if not segment:
            return torch.zeros(self.frames, dtype=torch.int64)
        return torch.arange(self.frames) * segment + torch.randint(segment, (self.frames,), generator=generator)

    def test(self, length: int, view: int, views: int) -> Tensor:
        _check_view(view, views)
        _require(length, self._least)
        numerator, denominator = (1, 2) if views == 1 else (view, views)
        return (torch.arange(self.frames) * denominator + numerator) * length // (self.frames * denominator)

    @property
    def _least(self) -> int:
        return 1 if self.shorter else max(2, self.frames)


@dataclass(frozen=True)
class Still:
    """One frame ``frames`` times over: what a model learns that is shown no time, to compare with.

    Any frame in training; in testing the one at the middle of each ``view``'s part of the clip.
    """

    frames: int

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DataError(f"{self}: give at least one frame.")

    def train(self, length: int, generator: Generator) -> Tensor:
        _require(length, 1)
        return torch.randint(length, (1,), generator=generator).expand(self.frames)

    def test(self, length: int, view: int, views: int) -> Tensor:
        _check_view(view, views)
        _require(length, 1)
        return torch.tensor([(2 * view + 1) * length // (2 * views)]).expand(self.frames)


@dataclass(frozen=True)
class Around:
    """Frames ``stride`` apart around a keyframe, half of them before it: detection of actions (AVA).

    Ids past an end of the film are the frame at that end. Of a film without a stated keyframe it is the middle.
    """

    frames: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1:
            raise DataError(f"{self}: give at least one frame and a stride of at least 1.")

    def around(self, length: int, keyframe: int) -> Tensor:
        """Ids for one example of a film of ``length`` frames."""
        _require(length, keyframe + 1)
        return (keyframe + self.stride * (torch.arange(self.frames) - self.frames // 2)).clamp(0, length - 1)

    def train(self, length: int, generator: Generator) -> Tensor:
        return self.around(length, length // 2)

    def test(self, length: int, view: int, views: int) -> Tensor:
        _check_view(view, views)
        return self.around(length, length // 2)


def _require(length: int, least: int) -> None:
    if length < least:
        raise DataError(f"has {length} frames, {least} are asked for")


def _check_view(view: int, views: int) -> None:
    if not 0 <= view < views:
        raise DataError(f"view={view} of views={views} does not exist; count views from 0 to {views - 1}.")
