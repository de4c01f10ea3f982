"""Which frames are seen and which are predicted: the four rows of VideoMAE Table 1c.

| row of Table 1c          | here                                                     |
|--------------------------|----------------------------------------------------------|
| T x tau -> center        | ``CentreFrame()``                                        |
| T x tau/2 -> T x tau/2   | ``SameFrames()``, the clip being sampled at half the stride |
| T x tau -> T x tau       | ``SameFrames()``                                         |
| T x tau -> 2T x tau/2    | ``TwiceTheFrames()``                                     |

``grid`` is always that of the T frames that the encoder sees; the target has a grid of its own, ``target_grid``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Generator, Tensor

from mae.data.clips.sampling import Dense, Sampling
from mae.grid import Grid
from mae.masking import Mask, Strategy


class FrameSelection(Protocol):
    """It chooses the frames that are sampled, those among them that are seen, and those that are predicted."""

    def sampling(self, sampling: Sampling) -> Sampling:
        """Say how clips must be sampled when the encoder is to see the frames of ``sampling``."""
        ...

    def seen(self, clips: Tensor) -> Tensor:
        """Return what the encoder sees of sampled ``clips: (B, C, T', H, W)``, as ``(B, C, T, H, W)``."""
        ...

    def target(self, clips: Tensor) -> Tensor:
        """Return what is predicted of sampled ``clips: (B, C, T', H, W)``, as clips that ``target_grid`` cuts."""
        ...

    def target_grid(self, grid: Grid) -> Grid:
        """Return the grid that cuts the target."""
        ...

    def predicted(self, mask: Mask, grid: Grid) -> tuple[slice, Mask]:
        """Say which of ``mask.drop`` is predicted, and give the same as a mask of the target's grid."""
        ...

    def check(self, strategy: Strategy, grid: Grid) -> None:
        """Raise ValueError if what these masks drop cannot be predicted so."""
        ...


@dataclass(frozen=True)
class SameFrames:
    """What is seen is predicted: T x tau -> T x tau. This is the default, and serves images, too."""

    def sampling(self, sampling: Sampling) -> Sampling:
        return sampling

    def seen(self, clips: Tensor) -> Tensor:
        return clips

    def target(self, clips: Tensor) -> Tensor:
        return clips

    def target_grid(self, grid: Grid) -> Grid:
        return grid

    def predicted(self, mask: Mask, grid: Grid) -> tuple[slice, Mask]:
        return slice(None), mask

    def check(self, strategy: Strategy, grid: Grid) -> None:
        pass


SAME_FRAMES = SameFrames()


@dataclass(frozen=True)
class CentreFrame:
    """Only the frame in the middle is predicted, number T / 2 of 0 to T - 1, where its temporal slot is dropped.

    The mask must drop equally many patches there whatever it draws, so it is a tube.
    """

    def sampling(self, sampling: Sampling) -> Sampling:
        return sampling

    def seen(self, clips: Tensor) -> Tensor:
        return clips

    def target(self, clips: Tensor) -> Tensor:
        frame = clips.shape[2] // 2
        return clips[:, :, frame : frame + 1]

    def target_grid(self, grid: Grid) -> Grid:
        return replace(grid, t=1, patch=(1, *grid.patch[1:]))

    def predicted(self, mask: Mask, grid: Grid) -> tuple[slice, Mask]:
        # ids ascend, so the dropped patches of a tube stand slot by slot, equally many in each
        slot = grid.t * grid.patch[0] // 2 // grid.patch[0]
        first = slot * grid.h * grid.w
        keep, drop = (ids.shape[1] // grid.t for ids in (mask.keep, mask.drop))
        here = slice(slot * drop, (slot + 1) * drop)
        return here, Mask(mask.keep[:, slot * keep : (slot + 1) * keep] - first, mask.drop[:, here] - first)

    def check(self, strategy: Strategy, grid: Grid) -> None:
        drop = strategy(8, grid, Generator().manual_seed(0)).drop
        slots = drop // (grid.h * grid.w)
        if any(((slots == slot).sum(1) * grid.t != drop.shape[1]).any() for slot in range(grid.t)):
            raise ValueError(
                f"the centre frame is predicted where its slot is dropped, and {strategy} drops another number of "
                f"patches in each slot; choose mask=tube"
            )


@dataclass(frozen=True)
class TwiceTheFrames:
    """The frames between those that are seen are predicted with them: T x tau -> 2T x tau/2.

    2T frames are sampled at half the stride, and every second one, from the first on, is seen.
    """

    def sampling(self, sampling: Sampling) -> Sampling:
        """Raise ValueError unless ``sampling`` is dense with an even stride: there must be frames between."""
        if not isinstance(sampling, Dense) or sampling.stride % 2:
            raise ValueError(
                f"to predict twice the frames at half the stride, sample densely with an even stride, not {sampling}"
            )
        return Dense(2 * sampling.frames, sampling.stride // 2)

    def seen(self, clips: Tensor) -> Tensor:
        return clips[:, :, ::2]

    def target(self, clips: Tensor) -> Tensor:
        return clips

    def target_grid(self, grid: Grid) -> Grid:
        frames, height, width = grid.patch
        return replace(grid, patch=(2 * frames, height, width))

    def predicted(self, mask: Mask, grid: Grid) -> tuple[slice, Mask]:
        return slice(None), mask

    def check(self, strategy: Strategy, grid: Grid) -> None:
        pass
