"""Boxes and masks move with the pixels: where an augmentation puts the points of a picture, and what follows from it.

A map is ``(B, 2, 3)`` float32: row (a, b, c) of x and of y take the point (x, y) of the input, in pixels from its upper
left corner, to a x + b y + c in the output. An augmentation that has ``mapped`` gives the map of its draw; one that is
called plainly computes none.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from mae.constants import constant
from mae.data.augment.resample import Boxes
from mae.data.source import Augment, Batch, Places
from mae.errors import DataError


@runtime_checkable
class MapsPoints(Protocol):
    """An augmentation that can tell where it moves points to."""

    def mapped(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """What the plain call returns after the same draws, and the map ``(B, 2, 3)``, None where nothing moves."""
        ...


@runtime_checkable
class Picks(Protocol):
    """An augmentation that takes one of several crops that were made where files are read, and does the rest."""

    @property
    def then(self) -> Augment: ...

    def picked(self, batch: Batch) -> Batch:
        """The one crop of each item, with its places."""
        ...


class InPlace:
    """An augmentation that changes values and moves nothing."""

    def mapped(self: Augment, images: Tensor, generator: Generator) -> tuple[Tensor, None]:
        return self(images, generator), None


def augmented(batch: Batch, augment: Augment, generator: Generator) -> Batch:
    """``batch`` with its images through ``augment``, and its places where the same draws put them."""
    if batch.places is None:
        return batch._replace(images=augment(batch.images, generator))
    if isinstance(augment, Picks):
        return augmented(augment.picked(batch), augment.then, generator)
    images, maps = mapped(augment, batch.images, generator)
    height, width = images.shape[-2:]
    places = batch.places if maps is None else moved(batch.places, maps, (height, width))
    return batch._replace(images=images, places=places)


def mapped(augment: Augment, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """``augment.mapped``; DataError when ``augment`` has none."""
    if not isinstance(augment, MapsPoints):
        raise DataError(
            f"{augment} does not tell where it moves boxes and masks; give it `mapped`, or let it inherit "
            "mae.data.augment.places.InPlace if it moves nothing."
        )
    return augment.mapped(images, generator)


def moved(places: Places, maps: Tensor, size: tuple[int, int]) -> Places:
    """``places`` where ``maps: (B, 2, 3)`` put them, in a picture of ``size`` (h, w).

    A box becomes the smallest upright box around its four corners, cut at the border; one that leaves the picture has
    no area. A mask takes the nearest value, 0 from beyond the border.
    """
    return places._replace(
        boxes=_moved_boxes(places.boxes, maps[places.items], size),
        masks=None if places.masks is None else _moved_masks(places.masks, inverse(maps), size),
    )


def crop_map(boxes: Boxes, size: tuple[int, int], flip: Tensor | None) -> Tensor:
    """The map of crops: each of ``boxes`` of the input resized to ``size`` (h, w), mirrored where ``flip: (B,)``."""
    (h, w), zero = size, torch.zeros_like(boxes.top)
    across, down = w / boxes.width, h / boxes.height
    start = -across * boxes.left
    if flip is not None:
        across, start = torch.where(flip, -across, across), torch.where(flip, w - start, start)
    rows = (across, zero, start), (zero, down, -down * boxes.top)
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def after(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The map of ``first`` and then ``second``, each ``(B, 2, 3)`` or None where nothing moves."""
    if first is None or second is None:
        return second if first is None else first
    return second @ _square(first)


def inverse(maps: Tensor) -> Tensor:
    """The maps ``(B, 2, 3)`` from the output back to the input."""
    return torch.linalg.inv(_square(maps))[:, :2]


def _square(maps: Tensor) -> Tensor:
    """``(B, 3, 3)``: with the row that keeps the 1 of homogeneous coordinates."""
    return torch.cat([maps, constant((0, 0, 1), maps.device).expand(len(maps), 1, 3)], 1)


def _moved_boxes(boxes: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    left, top, right, bottom = boxes.unbind(-1)
    corners = torch.stack([torch.stack([x, y], -1) for x in (left, right) for y in (top, bottom)], -2)
    rest = (1,) * (corners.ndim - 2)
    turn, shift = maps[..., :2].view(-1, *rest, 2, 2), maps[..., 2].view(-1, *rest, 2)
    points = (turn @ corners[..., None])[..., 0] + shift
    limit = constant((size[1], size[0]), points.device)
    low, high = (torch.minimum(end.clamp(min=0), limit) for end in (points.amin(-2), points.amax(-2)))
    return torch.cat([low, high], -1)


def _moved_masks(masks: Tensor, back: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = masks.shape[-2:]
    y, x = (torch.arange(length, device=masks.device) + 0.5 for length in size)
    grid = torch.stack([x.expand(size), y[:, None].expand(size), torch.ones(size, device=masks.device)], -1)
    column, row = (grid.flatten(0, 1) @ back.transpose(1, 2)).floor().long().unbind(-1)  # each (B, h * w)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0)[:, None].expand(-1, masks.shape[1], -1)
    taken = masks.flatten(2).gather(2, index).masked_fill(~inside[:, None], 0)
    return taken.view(*masks.shape[:2], *size)
