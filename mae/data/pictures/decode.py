"""One encoded picture to an array: reading, channels, resizing.

Nothing here imports torch, so that a worker process starts fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

#: Pictures that a reader opens, by the end of the name (lower case).
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
CHANNELS_OF_MODE = {"1": 1, "L": 1, "LA": 2, "PA": 2, "La": 2, "RGBA": 4, "RGBa": 4}
MODE_OF_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def read_picture(source: Path | BinaryIO) -> Image.Image:
    """The fully decoded picture, the first frame of an animated one; orientation tags are not applied.

    Raises whatever Pillow raises on a file that is damaged, cut short or no picture; see ``reason``.
    """
    # Other libraries switch it on for the whole process: grey filler would stand where pixels are missing.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with Image.open(source) as picture:
        picture.load()
        return picture


def reason(error: Exception, source: Path | None = None) -> str:
    """Why a picture could not be read, in a few words and without the path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError) or (source is not None and source.is_dir()):
        return "a directory, not a picture"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if source is not None and source.exists() and source.stat().st_size == 0:
        return "an empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in any known format"
    return " ".join(str(error).split()) or type(error).__name__


def channels_of(picture: Image.Image) -> int:
    """Channels that the file holds: 1 grey, 2 grey and alpha, 3 colour (palettes too), 4 colour and alpha."""
    if picture.mode.startswith("I;16"):
        return 1
    return CHANNELS_OF_MODE.get(picture.mode, 3)


def with_channels(picture: Image.Image, channels: int) -> Image.Image:
    """The picture with 1, 2, 3 or 4 channels of 8 bits; 16-bit grey keeps its upper byte.

    Raises ValueError for 32-bit pixels, whose white point no file states.
    """
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in {"I", "F"}:
        raise ValueError(f"pixels of mode {picture.mode} (32 bits) have no agreed white point; store 8 or 16 bits")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    mode = MODE_OF_CHANNELS[channels]
    return picture if picture.mode == mode else picture.convert(mode)


def cover(picture: Image.Image, size: tuple[int, int], resize: tuple[int, int] | None = None) -> Image.Image:
    """The centre ``size = (h, w)`` of the picture scaled until it covers ``resize`` (by default ``size``).

    Bicubic with antialias. With a square ``resize`` this is "short side to 256, centre crop 224", the papers'
    test view.
    """
    (height, width), (rows, columns) = size, resize or size
    if columns * picture.height <= rows * picture.width:
        scaled = (max(columns, int(rows * picture.width / picture.height)), rows)
    else:
        scaled = (columns, max(rows, int(columns * picture.height / picture.width)))
    if scaled != picture.size:
        picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    if scaled == (width, height):
        return picture
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def to_array(picture: Image.Image) -> NDArray[np.uint8]:
    """``(C, H, W)`` uint8."""
    pixels = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
