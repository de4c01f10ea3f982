"""Contact sheets of reconstructions, as PNG."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import Spec

GAP, CAPTION, TILE = 4, 16, 96


def save_pictures(pictures: dict[str, Tensor], spec: Spec, path: Path) -> Path:
    """One row a clip (its first frame), one captioned column each of ``pictures: (B, C, T, H, W)``.

    The caption of a picture made from a patch-normalised prediction says whose statistics un-normalise it.
    """
    mean = torch.tensor(spec["data"]["mean"]).view(1, -1, 1, 1)
    std = torch.tensor(spec["data"]["std"]).view(1, -1, 1, 1)
    columns = []
    for clips in pictures.values():
        frames = (clips[:, :, 0].cpu().float() * std + mean).clamp(0, 1)
        if frames.shape[1] not in (1, 3):  # show the mean of any other number of channels
            frames = frames.mean(1, keepdim=True)
        frames = F.interpolate(
            frames.expand(-1, 3, -1, -1), scale_factor=max(1, TILE // frames.shape[-1]), mode="nearest"
        )
        columns.append((frames * 255).round().byte().permute(0, 2, 3, 1))
    count, height, width, _ = columns[0].shape
    size = (len(columns) * (width + GAP) - GAP, CAPTION + count * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for x, (name, column) in enumerate(zip(pictures, columns, strict=True)):
        normalised = "Normalised" in spec["target"]["_target_"] and name in ("reconstruction", "pasted")
        draw.text((x * (width + GAP), 1), f"{name}*" if normalised else name, fill="black")
        for y, frame in enumerate(column):
            sheet.paste(Image.fromarray(frame.numpy()), (x * (width + GAP), CAPTION + y * (height + GAP)))
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
