"""Contact sheets of reconstructions, as PNG."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import Spec

GAP, CAPTION, TILE, FRAMES = 4, 16, 96, 4


def save_pictures(pictures: dict[str, Tensor], spec: Spec, path: Path) -> Path:
    """One row a clip (up to ``FRAMES`` of its frames), one captioned column each of ``pictures: (B, C, T, H, W)``.

    The caption of a picture made from a patch-normalised prediction says whose statistics un-normalise it.
    """
    mean = torch.tensor(spec["data"]["mean"]).view(1, -1, 1, 1)
    std = torch.tensor(spec["data"]["std"]).view(1, -1, 1, 1)
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
        normalised = "Normalised" in spec["target"]["_target_"] and name in ("reconstruction", "pasted")
        draw.text((left, 1), f"{name}*" if normalised else name, fill="black")
        for y, frame in enumerate(column):
            sheet.paste(Image.fromarray(frame.numpy()), (left, CAPTION + y * (height + GAP)))
    if "Normalised" in spec["target"]["_target_"]:
        note = Image.new("RGB", (sheet.width, sheet.height + CAPTION), "white")
        note.paste(sheet)
        ImageDraw.Draw(note).text((0, sheet.height + 1), "* mean and std of the visible patches", fill="black")
        sheet = note
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    sheet.save(part, format="PNG")
    part.replace(path)
    return path
