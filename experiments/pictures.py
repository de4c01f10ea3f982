"""Contact sheets of reconstructions, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import Data
from mae.disk import replacing

GAP, CAPTION, TILE, FRAMES = 4, 16, 96, 4


def contact_sheet(pictures: Mapping[str, Tensor], data: Data, note: str) -> Image.Image:
    """One row a clip (up to ``FRAMES`` of its frames), one captioned column each of ``pictures: (B, C, T, H, W)``.

    A ``note`` on the pictures of predictions, such as whose statistics un-normalise them, stands below.
    """
    mean = torch.tensor(data.mean).view(1, -1, 1, 1)
    std = torch.tensor(data.std).view(1, -1, 1, 1)
    columns = []
    for clips in pictures.values():
        length = clips.shape[2]
        shown = clips[:, :, torch.linspace(0, length - 1, min(length, FRAMES)).round().long()]
        # (B, C, T, H, W) -> (B, C, H, T W): frames side by side
        frames = (shown.transpose(2, 3).flatten(3).cpu().float() * std + mean).clamp(0, 1)
        if frames.shape[1] not in (1, 3):  # show the mean of any other number of channels
            frames = frames.mean(1, keepdim=True)
        frames = F.interpolate(
            frames.expand(-1, 3, -1, -1), scale_factor=max(1, TILE // frames.shape[-2]), mode="nearest"
        )
        columns.append((frames * 255).round().byte().permute(0, 2, 3, 1))
    count, height = columns[0].shape[:2]
    widths = [column.shape[2] for column in columns]
    size = (sum(widths) + (len(columns) - 1) * GAP, CAPTION + count * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for x, (name, column) in enumerate(zip(pictures, columns, strict=True)):
        left = sum(widths[:x]) + x * GAP
        noted = note and name in ("reconstruction", "pasted")
        draw.text((left, 1), f"{name}*" if noted else name, fill="black")
        for y, frame in enumerate(column):
            sheet.paste(Image.fromarray(frame.numpy()), (left, CAPTION + y * (height + GAP)))
    if note:
        below = Image.new("RGB", (sheet.width, sheet.height + CAPTION), "white")
        below.paste(sheet)
        ImageDraw.Draw(below).text((0, sheet.height + 1), f"* {note}", fill="black")
        sheet = below
    return sheet


def save_pictures(pictures: Mapping[str, Tensor], data: Data, note: str, path: Path) -> Path:
    """Write the ``contact_sheet`` of ``pictures``."""
    sheet = contact_sheet(pictures, data, note)
    with replacing(path) as draft:
        sheet.save(draft, format="PNG")
    return path
