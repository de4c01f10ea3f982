"""A table of positions that came with weights, on the grid of another encoder."""

from __future__ import annotations

from math import isqrt, log, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from mae.grid import POSITIONS, Grid
from mae.methods.masked_autoencoder import Decoder
from mae.model import Encoder

#: How far apart two tables may lie that are the same but for half precision.
ROUNDING = 1e-3


def split(table: Tensor, grid: Grid, *, class_token: bool, still: bool) -> tuple[Tensor | None, Tensor]:
    """The position of the class token, None without one, and those of the patches ``(N, D)``, of ``(1, n, D)``.

    ``grid`` is the one that the table is for; of the two readings, with and without a position for the class token,
    the first is right for which ``places_of`` finds a place. ValueError when there is none for either.
    """
    entries = table.flatten(0, -2)
    for prefix in (1, 0) if class_token else (0, 1):
        if places_of(len(entries) - prefix, grid, still) is not None:
            return (entries[0] if prefix else None), entries[prefix:]
    raise ValueError(
        f"the weights have {len(entries)} positions, which cover no square of patches; choose an input of the size "
        "that they were trained at"
    )


def places_of(count: int, grid: Grid, still: bool) -> tuple[int, int, int] | None:
    """The ``(t, h, w)`` that ``count`` positions cover, guessed for use on ``grid``; None where nothing fits.

    They are those of pictures (``still``), or of clips with frames of the same shape, or else of square ones: in as
    many slots of time as the grid has, else in one, else in those whose shape is the least change.
    """
    area = grid.h * grid.w
    if count < 1:
        return None
    if count == grid.num_patches and not (still and grid.t > 1):
        return grid.t, grid.h, grid.w
    if count == area:
        return 1, grid.h, grid.w
    squares = [(t, isqrt(count // t)) for t in range(1, count + 1) if count % t == 0]
    squares = [(t, side) for t, side in squares if t * side * side == count and (t == 1 or grid.t > 1)]
    if still:
        squares = [(t, side) for t, side in squares if t == 1]
    elif grid.t > 1 and count % area == 0 and not any(t == grid.t for t, _ in squares):
        return count // area, grid.h, grid.w
    if not squares:
        return None
    t, side = min(squares, key=lambda way: (way[0] != grid.t, way[0] != 1, _change(way[0], way[1], grid)))
    return t, side, side


def _change(t: int, side: int, grid: Grid) -> float:
    return abs(log(t / grid.t)) + abs(log(side / sqrt(grid.h * grid.w)))


def resampled(table: Tensor, places: tuple[int, int, int], grid: Grid) -> Tensor:
    """``(N, D)`` of ``places = (t, h, w)`` on ``grid``: bicubic in space, as MAE's code, linear in time."""
    t, h, w = places
    if (h, w) != (grid.h, grid.w):
        frames = table.reshape(t, h, w, -1).permute(0, 3, 1, 2)  # (t, D, h, w)
        frames = F.interpolate(frames, size=(grid.h, grid.w), mode="bicubic", align_corners=False)
        table = frames.permute(0, 2, 3, 1).flatten(0, 2)
    if t != grid.t:
        places_in_time = table.reshape(t, grid.h * grid.w, -1).permute(1, 2, 0)  # (h w, D, t)
        places_in_time = F.interpolate(places_in_time, size=grid.t, mode="linear", align_corners=False)
        table = places_in_time.permute(2, 0, 1).flatten(0, 1)
    return table


def positions_for(encoder: Encoder | Decoder, table: Tensor, *, still: bool) -> tuple[Tensor | None, str]:
    """What stands for positions in ``encoder`` after weights with ``table: (N, D)``: a table ``(1, N, D)``, and how.

    None keeps the encoder's own fixed ones: where ``table`` holds the same, where it is the sinusoid over the tokens of
    a clip, which the official code of VideoMAE computes anew for every size, and where it is the fixed table of
    pictures and the encoder is one of clips. Any other is used: learned, or on the grid of another input size, as the
    official code of MAE does with fixed ones, too. ``still`` says that they are a picture model's for one of clips.
    """
    grid, width = encoder.grid, encoder.shape.width
    places = places_of(len(table), grid, still)
    if places is None or table.shape[1] != width:
        raise ValueError(
            f"the weights have {len(table)} positions of width {table.shape[1]}, which do not fit this encoder's "
            f"{grid.num_patches} of {width}; choose a model that they fit"
        )
    own = POSITIONS[encoder.table](grid, width)
    if table.shape == own.shape and _same(table, own):
        return None, ""
    before = Grid(*places, grid.patch)
    if width % 2 == 0 and _same(table, POSITIONS["sincos_1d"](before, width)) and encoder.table == "sincos_1d":
        return None, f"positions are computed for {_in_words(grid)}"
    if places[0] < grid.t and places[0] == 1 and width % 4 == 0 and _same(table, POSITIONS["sincos_2d"](before, width)):
        return None, "fixed positions of pictures give way to those of clips"
    made = resampled(table, places, grid).unsqueeze(0)
    words = "positions that came with the weights are used"
    if places != (grid.t, grid.h, grid.w):
        words += f", interpolated from {_in_words(before)} to {_in_words(grid)}"
    if places[0] == 1 < grid.t:
        words += ": they do not tell frames apart"
    return made, words


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=0, atol=ROUNDING)


def _in_words(grid: Grid) -> str:
    return f"{grid.t} x {grid.h} x {grid.w}" if grid.t > 1 else f"{grid.h} x {grid.w}"
