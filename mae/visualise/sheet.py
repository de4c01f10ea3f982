"""Contact sheets as PNG: captioned columns of pictures, frames of clips side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from mae.disk import replacing

GAP, CAPTION, TILE, FRAMES = 4, 16, 96, 4

#: The pictures that are predicted, on which a note is made.
PREDICTED = ("reconstruction", "pasted")


def strip(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Up to ``FRAMES`` frames of each of ``clips: (B, C, T, H, W)`` side by side, ``(B, 3, H, n W)`` in [0, 1].

    They are given back the colours that ``mean`` and ``std`` normalised. Channels other than one or three are averaged.
    """
    length = clips.shape[2]
    return coloured(clips[:, :, torch.linspace(0, length - 1, min(length, FRAMES)).round().long()], mean, std)


def coloured(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """All frames of each of ``clips`` side by side, as ``strip`` gives some."""
    # (B, C, T, H, W) -> (B, C, H, T W): frames side by side
    frames = clips.transpose(2, 3).flatten(3).cpu().float()
    centre, spread = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    frames = (frames * spread + centre).clamp(0, 1)
    if frames.shape[1] not in (1, 3):
        frames = frames.mean(1, keepdim=True)
    return frames.expand(-1, 3, -1, -1)


def noted(pictures: Mapping[str, Tensor], note: str) -> dict[str, Tensor]:
    """``pictures`` with a star at the names of those that are predicted, where there is a ``note`` on them."""
    return {f"{name}*" if note and name in PREDICTED else name: shown for name, shown in pictures.items()}


def save_sheet(
    columns: Mapping[str, Tensor], path: Path, *, rows: Sequence[str] = (), notes: Sequence[str] = ()
) -> Path:
    """One captioned column each of ``columns: (B, 3, H, W)`` in [0, 1], one row an item, small ones enlarged.

    ``rows`` name the items at the left. ``notes``, such as whose statistics un-normalise a prediction, stand below.
    """
    shown = []
    for frames in columns.values():
        frames = F.interpolate(frames, scale_factor=max(1, TILE // frames.shape[-2]), mode="nearest")
        shown.append((frames * 255).round().byte().permute(0, 2, 3, 1))
    count, height = shown[0].shape[:2]
    widths = [column.shape[2] for column in shown]
    wide = ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength
    margin = math.ceil(max(map(wide, rows))) + 2 * GAP if rows else 0
    width = max(margin + sum(widths) + (len(shown) - 1) * GAP, *(math.ceil(wide(note)) for note in notes), 1)
    top = CAPTION + count * (height + GAP) - GAP
    sheet = Image.new("RGB", (width, top + CAPTION * len(notes)), "white")
    draw = ImageDraw.Draw(sheet)
    for x, (name, column) in enumerate(zip(columns, shown, strict=True)):
        left = margin + sum(widths[:x]) + x * GAP
        draw.text((left, 1), name, fill="black")
        for y, frame in enumerate(column):
            sheet.paste(Image.fromarray(frame.numpy()), (left, CAPTION + y * (height + GAP)))
    for y, row in enumerate(rows):
        draw.text((1, CAPTION + y * (height + GAP) + height // 2 - GAP), row, fill="black")
    for y, note in enumerate(notes):
        draw.text((0, top + 1 + y * CAPTION), note, fill="black")
    with replacing(path) as draft:
        sheet.save(draft, format="PNG")
    return path
