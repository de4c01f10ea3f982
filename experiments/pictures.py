"""What the report shows of reconstructions: strips as PNG, and clips as animations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from experiments.spec import Data
from mae.disk import replacing
from mae.visualise.sheet import coloured, strip

#: How many samples a strip shows, and how long a frame of a clip stays, in milliseconds.
STRIP, FRAME_TIME = 2, 200


def save_strips(pictures: Mapping[str, Tensor], data: Data, note: str, path: Path) -> None:
    """Write what the report shows of ``pictures``: ``STRIP`` samples below one another, one column each, not enlarged.

    ``path`` is a PNG whose texts ``columns`` and ``note`` say what is seen. Of clips it shows some frames side by side,
    and all of them one after the other in an animation beside it, as WebP.
    """
    texts = PngInfo()
    texts.add_itxt("columns", ", ".join(pictures))
    texts.add_itxt("note", note)
    first = [clips[:STRIP] for clips in pictures.values()]
    with replacing(path) as draft:
        whole = _joined([strip(clips, data.mean, data.std) for clips in first])
        whole.save(draft, format="PNG", pnginfo=texts, optimize=True)
    length = first[0].shape[2]
    how: dict[str, Any] = {"format": "WEBP", "save_all": True, "duration": FRAME_TIME, "loop": 3, "lossless": True}
    if length > 1:
        frames = [
            _joined([coloured(clips[:, :, t : t + 1], data.mean, data.std) for clips in first]) for t in range(length)
        ]
        with replacing(path.with_suffix(".webp")) as draft:
            frames[0].save(draft, append_images=frames[1:], **how)


def _joined(columns: Sequence[Tensor]) -> Image.Image:
    """The items of each of ``columns: (B, 3, H, W)`` below one another, columns side by side, two pixels apart."""
    found = [F.pad(column, (0, 2, 0, 2), value=1.0) for column in columns]
    whole = torch.cat([column.permute(0, 2, 3, 1).flatten(0, 1) for column in found], 1)[:-2, :-2]
    return Image.fromarray((whole * 255).round().byte().numpy())
