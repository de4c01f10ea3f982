"""The token grid: an image is a clip with one frame, and one patchify serves both papers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """It cuts a clip into ``t * h * w`` cubes of ``patch = (pt, ph, pw)`` pixels with ``channels`` channels.

    An image is the case ``t = pt = 1``. Tokens are numbered frame by frame, row by row.
    """

    t: int
    h: int
    w: int
    patch: tuple[int, int, int]
    channels: int = 3

    @classmethod
    def of(cls, frames: int, size: tuple[int, int], patch: tuple[int, int, int], channels: int = 3) -> Grid:
        """Cut ``frames`` frames of ``size = (height, width)`` pixels; ValueError if patches do not divide them."""
        extent = (frames, *size)
        for name, length, part in zip(("frames", "height", "width"), extent, patch, strict=True):
            if length < 1 or part < 1 or length % part:
                raise ValueError(
                    f"{name} {length} is not a multiple of its patch size {part}; "
                    f"choose a patch that divides {frames} x {size[0]} x {size[1]}"
                )
        t, h, w = (length // part for length, part in zip(extent, patch, strict=True))
        return cls(t, h, w, patch, channels)

    @property
    def num_patches(self) -> int:
        return self.t * self.h * self.w

    @property
    def patch_dim(self) -> int:
        pt, ph, pw = self.patch
        return pt * ph * pw * self.channels

    def patchify(self, clips: Tensor) -> Tensor:
        """Cut ``clips: (B, C, T, H, W)`` or images ``(B, C, H, W)`` to patches ``(B, N, pt * ph * pw * C)``."""
        if clips.ndim == 4:
            clips = clips.unsqueeze(2)
        pt, ph, pw = self.patch
        expected = (self.channels, self.t * pt, self.h * ph, self.w * pw)
        if clips.shape[1:] != expected:
            raise ValueError(f"clips have shape {tuple(clips.shape[1:])}, this grid cuts (C, T, H, W) = {expected}")
        cubes = clips.reshape(-1, self.channels, self.t, pt, self.h, ph, self.w, pw)
        # (B, C, t, pt, h, ph, w, pw) -> (B, t, h, w, pt, ph, pw, C): channels last, as in both official codes
        return cubes.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, self.num_patches, self.patch_dim)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Invert ``patchify``: put ``(B, N, pt * ph * pw * C)`` together to clips ``(B, C, T, H, W)``."""
        pt, ph, pw = self.patch
        cubes = patches.reshape(-1, self.t, self.h, self.w, pt, ph, pw, self.channels)
        clips = cubes.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return clips.reshape(-1, self.channels, self.t * pt, self.h * ph, self.w * pw)


def _angles(positions: Tensor, frequencies: int) -> Tensor:
    """Multiply positions by the frequencies 10000^(-i / frequencies): ``(n, frequencies)`` float64."""
    omega = 10000.0 ** (-torch.arange(frequencies, dtype=torch.float64, device="cpu") / frequencies)
    return positions.to(torch.float64)[:, None] * omega


def _placed(table: Tensor) -> Tensor:
    """Put a table, which the CPU computes wherever the encoder is made, on the device where that is."""
    return table.float().to(torch.empty(0).device)


def sincos_2d(grid: Grid, width: int) -> Tensor:
    """Return MAE's fixed positions ``(N, width)`` float32: half the channels encode the column, half the row.

    They follow MAE's appendix A.1. Each half begins with all its sines and ends with all its cosines, as released.
    """
    if grid.t != 1:
        raise ValueError("2-D positions serve images (t = 1); clips take positions=sincos_1d")
    if width % 4:
        raise ValueError(f"2-D sine-cosine positions need a width divisible by 4, not {width}")
    rows, columns = torch.meshgrid(*(torch.arange(n, device="cpu") for n in (grid.h, grid.w)), indexing="ij")
    halves = [_angles(axis.flatten(), width // 4) for axis in (columns, rows)]
    return _placed(torch.cat([f(half) for half in halves for f in (torch.sin, torch.cos)], dim=1))


def sincos_1d(grid: Grid, width: int) -> Tensor:
    """Return VideoMAE's fixed positions ``(N, width)`` float32: one sinusoid runs over all tokens of the clip.

    They follow VideoMAE's appendix 6 as released: even channels hold sines, odd ones cosines.
    """
    if width % 2:
        raise ValueError(f"sine-cosine positions need an even width, not {width}")
    angles = _angles(torch.arange(grid.num_patches, device="cpu"), width // 2)
    return _placed(torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1))


#: The fixed position tables by name.
POSITIONS = {"sincos_2d": sincos_2d, "sincos_1d": sincos_1d}
