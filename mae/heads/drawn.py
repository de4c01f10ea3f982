"""Pictures of what a detector says: keyframes with boxes, and the best actions of each beside them, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from mae.data.source import Batch

#: Least height of a keyframe, width of what is written beside it, height of a line, keyframes in a row, best actions.
HEIGHT, BESIDE, LINE, ACROSS, BEST = 192, 190, 11, 3, 3
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def sheet(batch: Batch, frame: int, scores: Tensor, names: Sequence[str]) -> bytes:
    """Draw ``frame`` of each clip of ``batch``, uint8, its boxes, and the best actions by ``scores: (boxes, A)``."""
    clips, places = batch.images, batch.places
    assert places is not None
    boxes = places.boxes
    if clips.ndim == 6:  # the first of several crops
        clips, boxes = clips[:, 0], boxes[:, 0]
    tiles = [
        tile(clip[:, frame], boxes[places.items == item], scores[(places.items == item).cpu()], names)
        for item, clip in enumerate(clips)
    ]
    width, height = max(each.width for each in tiles), max(each.height for each in tiles)
    whole = Image.new("RGB", (width * min(ACROSS, len(tiles)), height * -(-len(tiles) // ACROSS)), "white")
    for place, each in enumerate(tiles):
        whole.paste(each, (place % ACROSS * width, place // ACROSS * height))
    written = io.BytesIO()
    whole.save(written, format="PNG")
    return written.getvalue()


def tile(picture: Tensor, boxes: Tensor, scores: Tensor, names: Sequence[str]) -> Image.Image:
    """One keyframe ``(C, H, W)`` with ``boxes: (n, 4)`` in pixels, and beside it what is in each."""
    pixels = picture.expand(3, -1, -1) if len(picture) == 1 else picture
    shown = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    scale = max(1, -(-HEIGHT // shown.height))
    shown = shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)
    found = Image.new("RGB", (shown.width + BESIDE, max(shown.height, LINE * (BEST + 1) * len(boxes))), "white")
    found.paste(shown)
    draw, line = ImageDraw.Draw(found), 0
    for place, (box, own) in enumerate(zip(boxes.cpu(), scores, strict=True)):
        colour = COLOURS[place % len(COLOURS)]
        draw.rectangle([scale * side for side in box.tolist()], outline=colour, width=2)
        best = own.topk(min(BEST, len(own)))
        for score, action in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            draw.text((shown.width + 4, line * LINE), f"{score:.2f} {names[action][:24]}", fill=colour)
            line += 1
        line += 1
    return found
