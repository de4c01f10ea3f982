"""How many of their 16 bits the pictures of a set use: 12 bits, as many cameras have, would else become black."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mae.data.files.listing import Listing
from mae.data.pictures.decode import WHITE, read_picture
from mae.errors import DataError

LEVELS = (255, 1023, 4095, 16383)
SAMPLE = 64  # pictures of a set that are looked at, evenly spread

log = logging.getLogger(__name__)


def check_white(white: object, key: str) -> None:
    """DataError, which names the ``key`` that it stands under, on a white that 16-bit pixels cannot have."""
    if not isinstance(white, int) or isinstance(white, bool) or not 1 <= white <= WHITE:
        raise DataError(
            f"{key}={white} is no white of 16-bit pixels; give a whole number from 1 to {WHITE}, such as 4095 for 12 "
            "bits, or leave it out"
        )


def white_of(listing: Listing) -> int:
    """What is white in the 16-bit grey pictures of a set, all alike: the highest value of as many bits as they use."""
    white = white_in([listing.path(row) for row in _spread(len(listing), SAMPLE)])
    if white != WHITE:
        bits = (white + 1).bit_length() - 1
        log.warning("%s: its 16-bit pictures use %d bits; %d is read as white", listing.root, bits, white)
    return white


def white_in(paths: Sequence[Path]) -> int:
    """That of these files, which are opened, and read where they have 16 bits."""
    highest = max((_highest(path) for path in paths), default=0)
    return next((level for level in LEVELS if 0 < highest <= level), WHITE)


def _spread(count: int, sample: int) -> list[int]:
    return sorted({place * (count - 1) // max(1, sample - 1) for place in range(sample)}) if count else []


def _highest(path: Path) -> int:
    """The highest value of a picture of 16 bits, 0 of another or an unreadable one, which is named when it is read."""
    try:
        with Image.open(path) as picture:
            deep = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
        return int(np.asarray(read_picture(path)).max()) if deep else 0
    except Exception:  # Pillow raises a dozen types
        return 0
