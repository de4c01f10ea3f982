"""A clip that is kept as a folder of pictures, one for each frame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mae.data.pictures.decode import SUFFIXES, read_picture, reason, with_channels
from mae.data.pictures.depth import white_in

#: Pictures that are frames, by the end of the name (lower case); a GIF is a clip of its own.
FRAME_SUFFIXES = SUFFIXES - {".gif"}


def is_frame(name: str) -> bool:
    return name[0] != "." and Path(name).suffix.lower() in FRAME_SUFFIXES


class FrameFolder:
    """The pictures of a folder in the order of their numbers, which are the last digits of their names.

    Raises ValueError, without the path, when the names differ in more than that, or when numbers are left out.
    """

    name = "pictures"

    def __init__(self, path: str) -> None:
        self.folder = Path(path)
        numbered = sorted((_parts(name), name) for name in os.listdir(path) if is_frame(name))  # noqa: PTH208
        self.files = [name for _, name in numbered]
        if not numbered:
            raise ValueError("a folder without pictures, not a clip")
        (first, _), *_ = numbered
        other = next((name for (kind, _), name in numbered if kind != first[0]), None)
        if other is not None:
            raise ValueError(f"a folder with two kinds of pictures, {self.files[0]} and {other}; keep the frames alone")
        steps = np.diff([number for (_, number), _ in numbered])
        for place in np.flatnonzero((steps < 1) | (steps != steps[:1]))[:1]:
            raise ValueError(f"its frames are not evenly numbered: {self.files[place + 1]} follows {self.files[place]}")
        self.frames = len(self.files)
        some = {place * (self.frames - 1) // 7 for place in range(8)}
        self.white = white_in([self.folder / self.files[place] for place in sorted(some)])

    def read(self, ids: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        now, pixels = -1, np.empty((0, 0, 3), np.uint8)
        for wanted in ids:
            if wanted >= self.frames:
                raise ValueError(f"only {self.frames} frames are there, frame {wanted} is asked for")
            if wanted != now:
                file = self.folder / self.files[wanted]
                try:
                    now, pixels = wanted, np.asarray(with_channels(read_picture(file), 3, self.white))
                except Exception as error:  # whatever Pillow raises
                    raise ValueError(f"{self.files[wanted]}: {reason(error, file)}") from error
            yield pixels


def _parts(name: str) -> tuple[tuple[str, str], int]:
    """The name without its last digits, and their value; -1 if it has none."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    found = re.fullmatch(r"(.*?)(\d+)(\D*)", stem)
    if found is None:
        return (stem, suffix), -1
    return (found[1], found[3] + suffix), int(found[2])
